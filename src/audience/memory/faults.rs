//! Mapped files that end under our feet: what a lookup then reads, and that it learns of it.
//!
//! Where a mapped file was cut, or its disk fails, the system cannot give a page that is read, and sends SIGBUS, which would
//! end the process. The handler here lays zeros over the whole mapping and notes that it is broken; what was being read
//! goes on with zeros, and whoever reads looks at the note before it believes anything. A fault anywhere else goes the way it
//! would have gone.
//!
//! `unsafe` is needed because a signal handler has no safe form. It calls only what may be called in one: atomics, `mmap` and
//! `sigaction`.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Mappings that are watched at a time: each is a version that is being taken into service.
const MAPPINGS_MAX: usize = 64;

/// A mapping. A place whose length is 0 has none.
struct Mapping {
    taken: AtomicBool,
    start: AtomicUsize,
    length: AtomicUsize,
    broken: AtomicBool,
}

static MAPPINGS: [Mapping; MAPPINGS_MAX] = [const {
    Mapping {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        length: AtomicUsize::new(0),
        broken: AtomicBool::new(false),
    }
}; MAPPINGS_MAX];

/// What was done about SIGBUS before, or why nothing could be.
static BEFORE: OnceLock<Result<libc::sigaction, i32>> = OnceLock::new();

/// That a mapping is watched, until it is dropped: drop it before the mapping itself.
pub(super) struct Watch(&'static Mapping);

impl Watch {
    /// Watches these bytes, which must be a whole mapping.
    ///
    /// # Errors
    /// Where too many are watched, or the system takes no handler.
    pub(super) fn over(bytes: &[u8]) -> io::Result<Self> {
        if let Err(code) = BEFORE.get_or_init(install) {
            return Err(io::Error::from_raw_os_error(*code));
        }
        let free = |mapping: &&Mapping| !mapping.taken.swap(true, Ordering::AcqRel);
        let mapping = MAPPINGS.iter().find(free);
        let mapping = mapping.ok_or(io::ErrorKind::ResourceBusy)?;
        mapping.broken.store(false, Ordering::Release);
        mapping
            .start
            .store(bytes.as_ptr() as usize, Ordering::Release);
        mapping.length.store(bytes.len(), Ordering::Release);
        Ok(Self(mapping))
    }

    /// Whether some of it could not be read.
    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.length.store(0, Ordering::Release);
        self.0.start.store(0, Ordering::Release);
        self.0.taken.store(false, Ordering::Release);
    }
}

fn install() -> Result<libc::sigaction, i32> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: both structures are plain data of the system's shape, of which all zeros is a value; the handler has the
    // signature that SA_SIGINFO asks for, and calls nothing that may not be called in a handler.
    unsafe {
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_fault;
        (*action.as_mut_ptr()).sa_sigaction = handler as libc::sighandler_t;
        (*action.as_mut_ptr()).sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut (*action.as_mut_ptr()).sa_mask);
        if libc::sigaction(libc::SIGBUS, action.as_ptr(), before.as_mut_ptr()) != 0 {
            return Err(*libc::__errno_location());
        }
        Ok(before.assume_init())
    }
}

extern "C" fn on_fault(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the system hands over a valid `siginfo_t`, and SIGBUS fills in the address. `errno` is this thread's own. A
    // handler may call sigaction, which gives back to others what is theirs.
    unsafe {
        let errno = libc::__errno_location();
        let kept = *errno;
        if !mend((*info).si_addr() as usize) {
            let default = MaybeUninit::<libc::sigaction>::zeroed();
            let before = match BEFORE.get() {
                Some(Ok(before)) => ptr::from_ref(before),
                _ => default.as_ptr(),
            };
            libc::sigaction(libc::SIGBUS, before, ptr::null_mut());
        }
        *errno = kept;
    }
}

/// Lays zeros over the mapping that has this address; whether one has.
fn mend(address: usize) -> bool {
    let has = |mapping: &&Mapping| {
        let start = mapping.start.load(Ordering::Acquire);
        let length = mapping.length.load(Ordering::Acquire);
        address.wrapping_sub(start) < length
    };
    let Some(mapping) = MAPPINGS.iter().find(has) else {
        return false;
    };
    mapping.broken.store(true, Ordering::Release);
    let start = mapping.start.load(Ordering::Acquire);
    let length = mapping.length.load(Ordering::Acquire);
    // SAFETY: the range is one whole mapping of ours, page-aligned at its start, which nobody can unmap while it is being
    // read; nobody writes to it, and whoever reads it believes nothing of it from now on.
    let zeros = unsafe {
        libc::mmap(
            start as *mut libc::c_void,
            length,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    zeros != libc::MAP_FAILED
}
