//! Words that threads share, in pairs of cache lines: a large table of them, for loads at random.
//!
//! `unsafe` is allowed here for what has no safe form: the system's zeroed memory seen as words, and the prefetch hint. Such memory
//! may have huge pages, without which a random load waits for the address to be translated too.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use memmap2::{Advice, MmapMut};

/// Words of a [`Pair`].
const WORDS: usize = 16;
/// The smallest page that a system has.
const PAGE_BYTES: usize = 4096;

/// Two cache lines next to each other, which processors like to fetch together.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Pair(pub(crate) [AtomicU64; WORDS]);

/// A table of pairs, zero at first. The system gives its memory as it is touched.
pub(crate) struct Pairs {
    map: Option<MmapMut>,
    pairs: usize,
}

impl Pairs {
    /// None at all.
    pub(crate) fn none() -> Self {
        Self {
            map: None,
            pairs: 0,
        }
    }

    /// So many; 0 need no memory. The error is the system's: so much may not be had.
    pub(crate) fn zeroed(pairs: usize) -> io::Result<Self> {
        let bytes = pairs
            .checked_mul(size_of::<Pair>())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let map = match bytes {
            0 => None,
            _ => Some(MmapMut::map_anon(bytes)?),
        };
        if let Some(map) = &map {
            // A kernel without huge pages says no; loads are then a little slower and as right.
            let _ = map.advise(Advice::HugePage);
        }
        Ok(Self { map, pairs })
    }

    /// Has the system give all of the memory now, so that whoever is in a hurry later need not wait for that.
    pub(crate) fn touch(&self) {
        for pair in self.iter().step_by(PAGE_BYTES / size_of::<Pair>()) {
            let [first, ..] = &pair.0;
            // It must be written: whoever only reads is shown a page of zeros that all share. Compilers know that adding nothing
            // writes nothing, but not this.
            let word = first.load(Relaxed);
            let _ = first.compare_exchange(word, word, Relaxed, Relaxed);
        }
    }
}

impl Deref for Pairs {
    type Target = [Pair];

    fn deref(&self) -> &[Pair] {
        let Some(map) = &self.map else { return &[] };
        // SAFETY: the mapping has as many bytes as so many pairs, is aligned to a page, lives as long as `self` and is reached
        // through this alone. A pair is nothing but atomic words, which any bytes are and any thread may write.
        unsafe { std::slice::from_raw_parts(map.as_ptr().cast(), self.pairs) }
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pairs").field("pairs", &self.pairs).finish()
    }
}

/// Asks the processor to have a pair at hand soon.
#[inline(always)]
pub(crate) fn prefetch(pair: &Pair) {
    let [first, .., last] = &pair.0;
    prefetch_line(first);
    prefetch_line(last);
}

/// Asks the processor to have the line of a pair at hand soon in which that word stands.
#[inline(always)]
pub(crate) fn prefetch_line(word: &AtomicU64) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction is a hint: it reads nothing into the program, and the address is a reference's; SSE,
        // which it needs, is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(word).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = word;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_zero_and_stand_on_lines_of_their_own() {
        let pairs = Pairs::zeroed(1000).expect("memory");
        assert_eq!(pairs.len(), 1000);
        pairs[7].0[0].store(7, Relaxed);
        pairs.touch();
        for (place, pair) in pairs.iter().enumerate() {
            prefetch(pair);
            assert_eq!(std::ptr::from_ref(pair).addr() % 128, 0);
            let sum: u64 = pair.0.iter().map(|word| word.load(Relaxed)).sum();
            assert_eq!(sum, if place == 7 { 7 } else { 0 });
        }
        assert!(Pairs::zeroed(0).expect("nothing").is_empty());
        assert!(Pairs::zeroed(usize::MAX).is_err());
    }
}
