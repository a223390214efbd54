//! The bytes of an open version: private anonymous memory, huge pages where the system gives them.
//!
//! A file is read into memory of ours, not mapped from disk. A mapped file that someone truncates, or a disk that fails,
//! kills the process with SIGBUS at the next lookup, and bytes that change on disk after they were verified would be
//! served. A private copy can do neither; reading costs no more than touching every page of a mapping (both
//! must happen before a version is served), and anonymous memory may have huge pages: a random load takes 272 ns with
//! them and 361 without. Dropping it is one `munmap`, a few milliseconds a gigabyte.
//!
//! `unsafe` is allowed here for one thing: the prefetch hint, which has no safe form.

#![allow(unsafe_code)]

use std::io;
use std::ops::Deref;

use memmap2::{Advice, Mmap, MmapMut};

/// Below this a huge page would be mostly air.
const HUGE_FROM_BYTES: usize = 4 << 20;

/// Zeroed memory of this length, to be filled and then [frozen](Memory::freeze).
pub(super) fn zeroed(length: usize) -> io::Result<MmapMut> {
    let map = MmapMut::map_anon(length)?;
    if length >= HUGE_FROM_BYTES {
        // A kernel without huge pages says no; the lookups are then a little slower and as right.
        let _ = map.advise(Advice::HugePage);
    }
    Ok(map)
}

/// Bytes nobody writes any more.
#[derive(Debug)]
pub(super) struct Memory(Mmap);

impl Memory {
    /// Makes the memory read-only: a stray write would be a fault, not a wrong audience.
    pub(super) fn freeze(map: MmapMut) -> io::Result<Self> {
        Ok(Self(map.make_read_only()?))
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Asks the processor to have the line of its cache at hand soon in which that byte stands, if there is such a byte.
#[inline(always)]
pub(super) fn prefetch(bytes: &[u8], at: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = bytes.as_ptr().wrapping_add(at);
        // SAFETY: the instruction is a hint. It reads nothing into the program, writes nothing and does not fault
        // whatever the address, and the address is made without leaving safe arithmetic; SSE, which it needs, is part of
        // x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (bytes, at);
}
