//! Filters: one segment as an approximate set of ids, for suppression lists and onboarded lists of hundreds of
//! millions.
//!
//! A filter answers *not in it* for certain and *in it* with an error that was declared when it was built, at a quarter
//! to three fifths of the bytes of an exact audience. It is a split-block Bloom filter: an id has one block of 64 bytes,
//! a line of the cache, and sets one bit in each of the block's eight words. So a lookup is one load from memory
//! whatever the answer, it can be asked for in advance, and building is setting bits: no order, no retries, no memory
//! beside the filter's own. A binary fuse filter takes a quarter to two fifths less and was measured beside it:
//! `docs/filters.md` says why it is not this.
//!
//! Three parts: [`Shape`] is how large a filter for so many ids and such a rate is, and what of it is written down;
//! [`FilterSet`] is the set itself, over hashes that are mixed already; [`Filter`] is a version file with a set in it,
//! opened: the name of its segment, and the salt under which user keys become its hashes.
//!
//! Invariants: what was inserted is found; the same hashes in any order, each any number of times, make the same
//! bytes; no bytes whatever make a lookup panic, loop or allocate.
//!
//! Cost: 10.2 bits an id at a rate of 1 %, 16.2 at 0.1 %, 25.8 at 0.01 %; one memory load a lookup.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod shape;
mod version;

#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;

use arrayvec::ArrayVec;
use memmap2::MmapMut;

use super::memory::{self, Memory};

pub(super) use shape::BLOCK_BYTES;
pub use shape::{FalsePositiveRate, PROBES, Shape, ShapeRefused};
use shape::{HEAD_BYTES, WORD_BITS, WORD_BYTES};
pub use version::Filter;

/// What multiplies a hash so that the bits it sets do not follow from its block: odd, with bits set all over, as any
/// such number (here 2⁶⁴ divided by the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Bits that say which bit of a word is meant.
const PLACE_BITS: u32 = WORD_BYTES.ilog2().wrapping_add(3);

/// Hashes whose blocks are asked for together where many are inserted.
const AHEAD: usize = 16;

/// A lookup after its first step: which block, and which bit of each of its words.
#[derive(Debug, Clone, Copy)]
pub struct FilterProbe {
    /// Where the block begins among the blocks' bytes.
    at: usize,
    /// The bit of the first word in the low six bits, that of the second in the next, and so on.
    marks: u64,
}

impl FilterProbe {
    #[inline]
    fn new(hash: u64, blocks: u64) -> Self {
        // Blocks come in the order of hashes: the high half of a product that never reaches `blocks`.
        let product = u128::from(hash).wrapping_mul(u128::from(blocks));
        let block = usize::try_from(product >> 64).unwrap_or(usize::MAX);
        // The block has used up the high bits; all of them, folded and multiplied, decide on the marks.
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(SPREAD);
        Self {
            at: block.saturating_mul(BLOCK_BYTES),
            // The lowest bits of a product are mixed least, and eight times six are enough.
            marks: mixed >> 16,
        }
    }

    /// For each word of the block, which of its bits is meant: the low six bits of a number say so.
    #[inline]
    fn places(self) -> impl Iterator<Item = u32> {
        let marks =
            (0u32..).map(move |word| self.marks.wrapping_shr(word.wrapping_mul(PLACE_BITS)));
        marks.map(|marks| marks as u32)
    }
}

/// Sets bits until all ids are in.
#[derive(Debug)]
pub struct FilterBuilder {
    shape: Shape,
    memory: MmapMut,
}

impl FilterBuilder {
    /// An empty set of that shape: takes its whole memory at once, and no more later.
    ///
    /// # Errors
    /// Where the system has not so much memory.
    pub fn new(shape: Shape) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let length = usize::try_from(shape.bytes()).map_err(|_| too_large())?;
        let mut memory = memory::zeroed(length)?;
        let head = memory.first_chunk_mut().ok_or_else(too_large)?;
        *head = shape.head();
        Ok(Self { shape, memory })
    }

    /// Puts an id in, by a hash of it that is well mixed in all of its 64 bits. Many are put in quicker by [`Extend`].
    pub fn insert(&mut self, hash: u64) {
        self.set(FilterProbe::new(hash, self.shape.blocks()));
    }

    #[inline]
    fn set(&mut self, probe: FilterProbe) {
        let at = HEAD_BYTES.saturating_add(probe.at);
        let block = self.memory.get_mut(at..);
        let Some(block) = block.and_then(|bytes| bytes.first_chunk_mut::<BLOCK_BYTES>()) else {
            return;
        };
        let (words, _) = block.as_chunks_mut::<WORD_BYTES>();
        for (word, place) in words.iter_mut().zip(probe.places()) {
            let bit = 1u64.wrapping_shl(place);
            *word = (u64::from_le_bytes(*word) | bit).to_le_bytes();
        }
    }

    /// All of it: head and blocks, as [`FilterSet::from_bytes`] reads them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.memory
    }

    /// The set, in the memory in which it was built.
    ///
    /// # Errors
    /// Where the system does not let the memory be made read-only.
    pub fn finish(self) -> io::Result<FilterSet> {
        let blocks = HEAD_BYTES..self.memory.len();
        Ok(FilterSet {
            shape: self.shape,
            memory: Memory::freeze(self.memory)?,
            blocks,
        })
    }
}

impl Extend<u64> for FilterBuilder {
    fn extend<T: IntoIterator<Item = u64>>(&mut self, hashes: T) {
        let mut hashes = hashes.into_iter();
        let mut ahead = ArrayVec::<FilterProbe, AHEAD>::new();
        loop {
            // All of them are asked for before the first is waited for.
            ahead.extend(hashes.by_ref().take(AHEAD).map(|hash| {
                let probe = FilterProbe::new(hash, self.shape.blocks());
                let at = HEAD_BYTES.saturating_add(probe.at);
                let block = self
                    .memory
                    .get(at..)
                    .and_then(<[u8]>::first_chunk::<BLOCK_BYTES>);
                memory::prefetch(block.map_or(&[], |block| block), 0);
                probe
            }));
            if ahead.is_empty() {
                return;
            }
            for probe in ahead.drain(..) {
                self.set(probe);
            }
        }
    }
}

/// An approximate set of hashes. Immutable, `Send` and `Sync`.
#[derive(Debug)]
pub struct FilterSet {
    shape: Shape,
    memory: Memory,
    /// Where in the memory the blocks are.
    blocks: Range<usize>,
}

impl FilterSet {
    /// All that is held: the file that the set is in, where it is in one.
    pub(super) fn held(&self) -> &[u8] {
        &self.memory
    }

    /// The set whose bytes these are, copied: for tests, fuzzers and tools.
    ///
    /// # Errors
    /// Where they are no set, or there is no memory.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FilterFlaw> {
        // Before anything is copied: a length that is a lie takes no memory.
        Shape::read(bytes)?;
        let mut copy = memory::zeroed(bytes.len())?;
        copy.copy_from_slice(bytes);
        Self::within(Memory::freeze(copy)?, 0..bytes.len())
    }

    /// The set that stands in a part of this memory. Where the part begins at a multiple of 64 each block is one line
    /// of the cache; elsewhere it is two, and as right.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn within(memory: Memory, part: Range<usize>) -> Result<Self, FilterFlaw> {
        let bytes = memory.get(part.clone());
        let shape = Shape::read(bytes.ok_or(FilterFlaw::Short)?)?;
        let begin = part.start.saturating_add(HEAD_BYTES);
        Ok(Self {
            shape,
            memory,
            blocks: begin..part.end,
        })
    }

    /// How large it is, and for what.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether the hash is in: `true` for all that were inserted, and for a share of the others.
    #[inline]
    pub fn contains(&self, hash: u64) -> bool {
        self.contains_at(self.probe(hash)).unwrap_or(false)
    }

    /// The first of a lookup's two steps: starts fetching the block and returns at once. Take all hashes of a
    /// request through it before the [second](Self::contains_at), and their loads overlap.
    #[inline]
    pub fn probe(&self, hash: u64) -> FilterProbe {
        let probe = FilterProbe::new(hash, self.shape.blocks());
        if let Some(block) = self.block(probe) {
            memory::prefetch(block, 0);
        }
        probe
    }

    /// The second step. `None` where the probe is another set's and no block of this one, and where its mapped file could not be
    /// read.
    #[inline]
    pub fn contains_at(&self, probe: FilterProbe) -> Option<bool> {
        let (words, _) = self.block(probe)?.as_chunks::<WORD_BYTES>();
        // All eight, without a branch: for an id that is not in, after which word to stop is a coin toss.
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        let all = words
            .zip(probe.places())
            .fold(1, |all, (word, place)| all & word.wrapping_shr(place));
        self.memory.is_whole().then_some(all == 1)
    }

    /// The memory that it stands in.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    #[inline]
    fn block(&self, probe: FilterProbe) -> Option<&[u8; BLOCK_BYTES]> {
        let blocks = self.memory.get(self.blocks.clone())?;
        blocks.get(probe.at..)?.first_chunk()
    }

    /// How many of [`PROBES`] hashes that were not inserted are in, by trying: what [`Shape::rate`] promises at most
    /// that share of.
    ///
    /// The hashes are drawn under the seed. Of 10⁹ ids one is among them by chance in one measurement of twenty
    /// thousand.
    pub fn false_positives(&self, seed: u64) -> u64 {
        self.false_positives_among(PROBES, seed)
    }

    fn false_positives_among(&self, probes: u64, seed: u64) -> u64 {
        let hashes = (1..=probes).map(|n: u64| mixed(seed.wrapping_add(n.wrapping_mul(SPREAD))));
        let found = hashes.filter(|hash| self.contains(*hash));
        found.fold(0u64, |count, _| count.saturating_add(1))
    }

    /// The share of hashes that are in though they were not inserted, measured on [`PROBES`] under the seed.
    pub fn measured_rate(&self, seed: u64) -> f64 {
        self.false_positives(seed) as f64 / PROBES as f64
    }

    /// The share of hashes not inserted that are in, by which bits are set: exact, where [`measured_rate`](Self::measured_rate)
    /// is a sample. Reads all of it.
    ///
    /// A hash names each block alike and in it one bit of each word, so a block answers *in* for the product of its words'
    /// shares of bits that are set.
    pub fn expected_rate(&self) -> f64 {
        let blocks = self.memory.get(self.blocks.clone()).unwrap_or_default();
        let (blocks, _) = blocks.as_chunks::<BLOCK_BYTES>();
        let of_block = |block: &[u8; BLOCK_BYTES]| {
            let (words, _) = block.as_chunks::<WORD_BYTES>();
            let ones = words
                .iter()
                .map(|word| u64::from_le_bytes(*word).count_ones());
            ones.fold(1.0, |all, ones| all * f64::from(ones) / WORD_BITS)
        };
        blocks.iter().map(of_block).sum::<f64>() / (blocks.len().max(1) as f64)
    }

    /// How many different hashes were inserted, by how many bits are set: to a thousandth or better from a million on.
    ///
    /// A word of 64 bits in a filter where blocks have `load` hashes on average has each bit clear with probability
    /// e^(−load/64) (Swamidass and Baldi, 2007, for one block).
    pub fn estimated_ids(&self) -> f64 {
        let blocks = self.memory.get(self.blocks.clone()).unwrap_or_default();
        let (words, _) = blocks.as_chunks::<WORD_BYTES>();
        let set = words
            .iter()
            .map(|word| u64::from_le_bytes(*word).count_ones());
        let set = set.fold(0u64, |sum, ones| sum.saturating_add(ones.into()));
        let bits = blocks.len() as f64 * 8.0;
        // A set with every bit set holds anything; what would be infinite is what the last bit clear would say.
        let clear = (bits - set as f64).max(1.0) / bits;
        -clear.ln() * bits / 8.0
    }
}

/// Any number to one that looks like chance: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Which way an error of a filter may go. In the hands of targeting, not of the filter: it says for which use one was
/// built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errors {
    /// Somebody who is not on the list is reached as if she were: a list of those who are wanted.
    WronglyIncluded,
    /// Somebody who is not on the list is left out as if she were: a list of those who are not wanted.
    WronglyExcluded,
}

impl Errors {
    /// The word in configuration and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WronglyIncluded => "wrongly_included",
            Self::WronglyExcluded => "wrongly_excluded",
        }
    }
}

/// Bytes that are no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterFlaw {
    /// There is no memory for it.
    #[error("cannot be held: {0}")]
    Io(#[from] io::Error),
    /// It ends before its head does.
    #[error("is shorter than the head of a filter")]
    Short,
    /// A later Kith wrote it.
    #[error("has structure {found}, and this Kith reads {known}")]
    Structure {
        /// What it says.
        found: u32,
        /// What is read here.
        known: u32,
    },
    /// What its head says cannot be, or is not how it is written.
    #[error("contradicts itself: {0} cannot be true")]
    Contradiction(&'static str),
}
