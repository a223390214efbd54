//! How large a filter is: from the ids and the rate that was declared to a number of blocks, and the head that says so.
//!
//! A filter of `blocks` blocks for `ids` ids has a mean load of `ids / blocks` ids a block, and loads are distributed
//! by Poisson. In a block with `i` ids each word of 64 bits has one bit set by each, so that a certain bit of it is set
//! with probability
//! `1 − (1 − 1/64)^i`, and the eight that an id asks for with that to the power of eight. The rate is the mean of this over the loads
//! (Putze, Sanders and Singler, *Cache-, Hash- and Space-Efficient Bloom Filters*, 2007, §3, with the words of a block
//! kept apart as Parquet's filters do). Blocks of 512 bits and not of Parquet's 256 because loads then differ less:
//! 15.7 bits an id instead of 16.9 at 0.1 %, 23.6 instead of 26.3 at 0.01 %, for the same one line of the cache.
//!
//! A filter is made better than declared by what its measurement could be wrong by. Activation counts false positives
//! among [`PROBES`] and holds a version of which there are more than was declared; so that this is no toss of a coin
//! for an honest one, five standard deviations of that count lie between the rate that is aimed at and the one
//! declared. And since a small filter may be unlucky in its loads, some blocks are added, of which a large one notices
//! nothing.
//!
//! Cost: some hundred microseconds once a build.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use super::FilterFlaw;

/// Words of a block: bits that an id sets.
const WORDS: usize = 8;
/// Bytes of a word.
pub(super) const WORD_BYTES: usize = 8;
pub(super) const WORD_BITS: f64 = 64.0;
/// Bytes of a block: a line of the cache.
pub(in super::super) const BLOCK_BYTES: usize = WORDS.strict_mul(WORD_BYTES);
/// Bytes before the blocks: as many as a block, so that blocks are on lines of the cache where the head is.
pub(super) const HEAD_BYTES: usize = BLOCK_BYTES;
/// What the head begins with: a split-block filter of eight words of 64 bits.
const STRUCTURE: u32 = 1;

/// Hashes on which a filter's rate is measured.
pub const PROBES: u64 = 1_000_000;
/// Standard deviations of the count of false positives that a filter is better by than declared. An honest version is
/// measured worse once in three and a half million.
const DEVIATIONS: f64 = 5.0;
/// Blocks that are added to a filter that should have `b`: this many, and [`SPARE_OF_ROOT`] times the root of `b`.
const SPARE: f64 = 8.0;
const SPARE_OF_ROOT: f64 = 1.0;
/// Steps in which loads are tried, an id a block each.
const LOAD_STEP: f64 = 1.0 / 16.0;
/// Most ids of a filter: a million million, beyond any memory.
const IDS_MAX: u64 = 1 << 40;

/// The share of ids that a filter may answer *in it* for though they were not uploaded: from 0.01 % to 10 %.
///
/// Kept in parts of 10⁹, so that what is declared is what is written down. Less could not be told on a million probes,
/// more is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FalsePositiveRate(u32);

impl FalsePositiveRate {
    /// The lowest that can be declared.
    pub const MIN: Self = Self(100_000);
    /// The highest.
    pub const MAX: Self = Self(100_000_000);
    /// What holds where nothing is declared: 1 %.
    pub const DEFAULT: Self = Self(10_000_000);
    const PARTS: f64 = 1e9;

    /// A share, like 0.01; `None` where it is out of range.
    pub fn of_share(share: f64) -> Option<Self> {
        // Saturates, and what is no number is 0: both out of range.
        Self::of_parts((share * Self::PARTS).round() as u32)
    }

    fn of_parts(parts: u32) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0)
            .contains(&parts)
            .then_some(Self(parts))
    }

    /// As a share.
    pub fn share(self) -> f64 {
        f64::from(self.0) / Self::PARTS
    }

    /// The rate that a filter is made for, so that it is not measured worse than this by chance: the `x` for which `x`
    /// and [`DEVIATIONS`] deviations of its count among [`PROBES`] make this.
    fn aim(self) -> f64 {
        let declared = self.share() * PROBES as f64;
        let root = (DEVIATIONS * DEVIATIONS / 4.0 + declared).sqrt() - DEVIATIONS / 2.0;
        root * root / PROBES as f64
    }
}

impl fmt::Display for FalsePositiveRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Ten million parts are one in a hundred.
        write!(f, "{} %", f64::from(self.0) / 1e7)
    }
}

/// How large a filter is, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    blocks: u64,
    ids: u64,
    rate: FalsePositiveRate,
}

impl Shape {
    /// A shape in which `ids` different ids, or fewer, have at most that rate.
    ///
    /// # Errors
    /// Where there are none, or more than any memory holds.
    pub fn for_ids(ids: u64, rate: FalsePositiveRate) -> Result<Self, ShapeRefused> {
        if !(1..=IDS_MAX).contains(&ids) {
            return Err(ShapeRefused { ids });
        }
        let blocks = ids as f64 / load_for(rate.aim());
        let blocks = blocks + SPARE_OF_ROOT * blocks.sqrt() + SPARE;
        Ok(Self {
            // Some 2⁴⁰ at most.
            blocks: blocks.ceil() as u64,
            ids,
            rate,
        })
    }

    /// How many blocks it has.
    pub fn blocks(self) -> u64 {
        self.blocks
    }

    /// How many different ids it was made for.
    pub fn ids(self) -> u64 {
        self.ids
    }

    /// The rate that was declared.
    pub fn rate(self) -> FalsePositiveRate {
        self.rate
    }

    /// Length of a filter of this shape, its head included.
    pub fn bytes(self) -> u64 {
        let blocks = self.blocks.saturating_mul(BLOCK_BYTES as u64);
        blocks.saturating_add(HEAD_BYTES as u64)
    }

    /// What stands before the blocks: structure (4 bytes), rate in parts of 10⁹ (4), blocks (8), ids (8), zeros.
    pub(super) fn head(self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        let fields = [
            u64::from(STRUCTURE) | u64::from(self.rate.0) << 32,
            self.blocks,
            self.ids,
        ];
        let (places, _) = head.as_chunks_mut::<WORD_BYTES>();
        for (place, field) in places.iter_mut().zip(fields) {
            *place = field.to_le_bytes();
        }
        head
    }

    /// The shape of the filter whose bytes these are. Accepted only if its head is the one that is written for it and
    /// its blocks are all there is.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, FilterFlaw> {
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk().ok_or(FilterFlaw::Short)?;
        let (words, _) = head.as_chunks::<WORD_BYTES>();
        let [first, blocks, ids, ..] = words else {
            return Err(FilterFlaw::Short);
        };
        let [a, b, c, d, e, f, g, h] = *first;
        let found = u32::from_le_bytes([a, b, c, d]);
        if found != STRUCTURE {
            let known = STRUCTURE;
            return Err(FilterFlaw::Structure { found, known });
        }
        let rate = FalsePositiveRate::of_parts(u32::from_le_bytes([e, f, g, h]));
        let shape = Self {
            blocks: u64::from_le_bytes(*blocks),
            ids: u64::from_le_bytes(*ids),
            rate: rate.ok_or(FilterFlaw::Contradiction("the rate"))?,
        };
        if !(1..=IDS_MAX).contains(&shape.ids) {
            return Err(FilterFlaw::Contradiction("the number of ids"));
        }
        // Saturates far beyond any length that bytes have.
        if shape.blocks == 0 || shape.bytes() != bytes.len() as u64 {
            return Err(FilterFlaw::Contradiction("the number of blocks"));
        }
        if shape.head() != *head {
            return Err(FilterFlaw::Contradiction("what is reserved"));
        }
        Ok(shape)
    }
}

/// The rate of a filter with this mean load, in ids a block.
pub(super) fn rate_at(load: f64) -> f64 {
    // The Poisson weight of `i` ids, and the share of a word's bits that are clear under them.
    let (mut weight, mut clear) = ((-load).exp(), 1.0f64);
    let mut rate = 0.0;
    // Beyond this many the weights add less than 10⁻¹².
    let most = load + 12.0 * load.sqrt() + 24.0;
    let mut ids = 0.0;
    while ids < most {
        rate += weight * (1.0 - clear).powi(WORDS as i32);
        ids += 1.0;
        weight *= load / ids;
        clear *= 1.0 - 1.0 / WORD_BITS;
    }
    rate
}

/// The highest load, in steps, with at most this rate.
fn load_for(rate: f64) -> f64 {
    let (mut good, mut bad) = (1.0, 256.0 / LOAD_STEP);
    while bad - good > 1.0 {
        let between: f64 = ((good + bad) / 2.0f64).floor();
        if rate_at(between * LOAD_STEP) <= rate {
            good = between;
        } else {
            bad = between;
        }
    }
    good * LOAD_STEP
}

/// No filter is made for so many ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a filter is made for 1 to {IDS_MAX} ids, not for {ids}")]
pub struct ShapeRefused {
    /// How many were asked for.
    pub ids: u64,
}
