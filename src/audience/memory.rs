//! The bytes of an open version: private anonymous memory, or for a while the file itself, mapped.
//!
//! A version that serves stands in memory of ours. A mapped file that someone overwrites would be served as it has become,
//! and each of its pages that was dropped waits for the disk; a private copy can do neither, and anonymous memory may have
//! huge pages: a random load takes 272 ns with them and 361 without. Dropping it is one `munmap`, a few milliseconds a gigabyte.
//!
//! But while a version takes the place of another, both copies would take twice the memory. So the next one is
//! mapped until the one before is gone, and copied then. A mapping that breaks meanwhile, because its file was cut or its disk
//! fails, reads as zeros and says so ([`faults`]): [`Memory::is_whole`] is to be asked after each reading, before what was
//! read is believed.
//!
//! `unsafe` is allowed here for what has no safe form: the prefetch hint, mapping a file, and the handler of its faults.

#![allow(unsafe_code)]

mod faults;

use std::fmt;
use std::fs::File;
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
pub(super) struct Memory {
    /// Of a mapped file. Dropped before the mapping: what takes its place is not watched.
    watch: Option<faults::Watch>,
    bytes: Mmap,
}

impl Memory {
    /// Makes the memory read-only: a stray write would be a fault, not a wrong audience.
    pub(super) fn freeze(map: MmapMut) -> io::Result<Self> {
        Ok(Self {
            watch: None,
            bytes: map.make_read_only()?,
        })
    }

    /// The bytes of a file as it is, of which only what is in the system's cache of files takes memory.
    pub(super) fn map(file: &File) -> io::Result<Self> {
        // SAFETY: nothing is written through the mapping, and nothing that reads it relies on two readings being equal:
        // every reader takes any bytes. A file that becomes shorter is what `faults` is for.
        let bytes = unsafe { Mmap::map(file)? };
        Ok(Self {
            watch: Some(faults::Watch::over(&bytes)?),
            bytes,
        })
    }

    /// Whether it is a mapped file.
    pub(super) fn is_mapped(&self) -> bool {
        self.watch.is_some()
    }

    /// Whether all that was read so far was there to be read.
    #[inline(always)]
    pub(super) fn is_whole(&self) -> bool {
        self.watch.as_ref().is_none_or(|watch| !watch.is_broken())
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("bytes", &self.bytes.len())
            .field("mapped", &self.is_mapped())
            .finish_non_exhaustive()
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
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
