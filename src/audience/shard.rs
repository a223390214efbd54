//! A shard of a version: the ids of one range of hashes, in bins of one size.
//!
//! ```text
//! shard := bin × bins  tail                                            each bin and the shard begin at a line of the cache
//! bin   := count:u8  moved:u24  tag:u8 × count  rest:u32 × count  [length:u4 or u8 × (count - outside), in whole bytes]
//!          sets  zeros  [place:u32 × outside  outside:u8]              the highest bit of count says whether the last are there
//! tail  := set × outside, each filled up to a byte                      the sets too long for a bin
//! ```
//!
//! Where a bin stands follows from the hash and the shard's entry in the index, which is small enough to be at hand: so a
//! lookup waits for one load from far. For that all bins have one size, and an id has a choice of two: its *first*, or, where
//! that is full, its *second* ([`placing`]). A bin says by `moved` which ids may be in their second, so that a miss reads one
//! bin nearly always, and of it one line.
//!
//! Of a full version's id a *word* of 40 bits is stored: 35 of fingerprint, 4 that say with the bin in which *cell* it is, and
//! whether the bin is its second. Cell and fingerprint are all that decides where it stands, so that a version can be laid out
//! anew from what it has, as compacting does, in more bins or fewer. If two ids of a shard are in one cell with one
//! fingerprint, the shard alone is mixed anew, by a counter in its entry.
//!
//! The words' lowest bytes, their *tags*, stand together: sixteen are compared at once. Everything that reads reads bytes that
//! may hold anything: nothing indexes, overflows or trusts a length.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod bin;
mod placing;
mod reader;
mod writer;

use super::code::Code;

pub(super) use bin::{Seen, bits_at, see};
pub(super) use reader::Shard;
pub(super) use writer::{Placed, ShardWriter};

/// Ids that a shard is meant to have.
const IDS_PER_SHARD: u64 = 8192;
/// Most bits of a hash that name the shard.
pub(super) const SHARD_BITS_MAX: u32 = 24;
/// Mixings tried before a build gives up. A shard needs a second one about once in eight million.
pub(super) const MIXINGS_MAX: u8 = 16;
/// Bits that tell ids of a cell apart.
const FINGERPRINT_BITS: u32 = 35;
/// Bits of a cell's number that are stored; the bin says the others.
const CELL_LOW_BITS: u32 = 4;
/// Most bits of a cell's number.
const CELL_BITS_MAX: u32 = 15;
/// Set in a word where the bin is the id's second.
const IN_SECOND: u64 = 1 << (FINGERPRINT_BITS + CELL_LOW_BITS);
/// Bytes of a word's rest, which stands behind the tags.
const REST_BYTES: usize = 4;
/// Bytes of what tells ids apart in a delta, besides the tag: all of the hash, so that the id can be found in the version below.
pub(super) const HASH_BYTES: usize = 16;
/// Tags that are compared at once.
const TAGS_AT_ONCE: usize = 16;
/// Bytes of an entry of the index.
pub(super) const ENTRY_BYTES: usize = 8;
/// Bytes before the tags.
const HEAD_BYTES: usize = 4;
/// Bits by which a bin says who may be in the second.
const MOVED_BITS: u32 = 24;
/// Set in a bin's count where some of its ids' sets stand outside.
const SOME_OUTSIDE: u8 = 1 << 7;
/// Bytes of the place of a set in the tail.
const PLACE_BYTES: usize = 4;
/// A line of the cache: what a bin's size and every shard's is a multiple of.
pub(super) const LINE: usize = 64;
/// Ids that a bin is meant to have: as many tags as are compared at once.
const IDS_PER_BIN: f64 = 16.0;
/// Lines of the smallest bin: with fewer ids in a bin their numbers differ more.
const LINES_MIN: f64 = 2.0;
/// The largest bin.
pub(super) const BIN_BYTES_MAX: usize = 512;
/// From so many bits an id on, lengths of four bits stand before the sets: then they cost less than going through those before.
const NIBBLES_FROM_BITS: f64 = 4.0;
/// From so many on, lengths of eight.
const BYTES_FROM_BITS: f64 = 24.0;
/// What sets in a bin are filled up to at most, in bits.
pub(super) const UNIT_MAX: u32 = 8;

/// How many bits of the hash name the shard, in a version of so many rows.
pub(super) fn shard_bits_for(rows: u64) -> u32 {
    let shards = rows.div_ceil(IDS_PER_SHARD).max(1);
    shards
        .next_power_of_two()
        .trailing_zeros()
        .min(SHARD_BITS_MAX)
}

/// A key as one version sees it: its keyed hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Hashed {
    /// Decides the shard and the cell.
    pub(super) spread: u64,
    /// Tells the cell's ids apart.
    pub(super) check: u64,
}

impl Hashed {
    /// Which shard it is in.
    #[inline(always)]
    pub(super) fn shard(self, shard_bits: u32) -> usize {
        match shard_bits {
            0 => 0,
            bits => (self.spread >> u64::BITS.saturating_sub(bits)) as usize,
        }
    }

    /// What decides the place within a shard.
    #[inline(always)]
    pub(super) fn within(self, shard_bits: u32, mixing: u8) -> u64 {
        let within = self.spread.wrapping_shl(shard_bits);
        match mixing {
            0 => within,
            again => mixed(within, again),
        }
    }

    /// What tells ids apart there.
    #[inline(always)]
    pub(super) fn check(self, mixing: u8) -> u64 {
        match mixing {
            0 => self.check,
            again => mixed(self.check, again),
        }
    }

    /// Where it stands in a shard of such geometry.
    #[inline(always)]
    pub(super) fn spot(self, shard_bits: u32, geometry: Geometry) -> Spot {
        let within = self.within(shard_bits, geometry.mixing);
        let beyond = u64::BITS.wrapping_sub(geometry.cell_bits);
        Spot {
            cell: within.wrapping_shr(beyond) as u16,
            fingerprint: self.check(geometry.mixing) >> (u64::BITS - FINGERPRINT_BITS),
        }
    }

    /// The hash that a delta has of an id.
    pub(super) fn read(stored: [u8; HASH_BYTES]) -> Self {
        let both = u128::from_be_bytes(stored);
        Self {
            spread: (both >> 64) as u64,
            check: both as u64,
        }
    }

    pub(super) fn bytes(self) -> [u8; HASH_BYTES] {
        let mut bytes = [0; HASH_BYTES];
        let (spread, check) = bytes.split_at_mut(8);
        spread.copy_from_slice(&self.spread.to_be_bytes());
        check.copy_from_slice(&self.check.to_be_bytes());
        bytes
    }
}

/// Stafford's thirteenth variant of the mixer of MurmurHash3, as in SplitMix64.
fn mixed(hash: u64, again: u8) -> u64 {
    let mut z = hash.wrapping_add(u64::from(again).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// How a shard's ids are spread over its bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) bins: u16,
    /// 1 to [`CELL_BITS_MAX`]; of bits enough that no bin is the first of more cells than the stored bits tell apart.
    pub(super) cell_bits: u32,
    pub(super) mixing: u8,
}

impl Geometry {
    /// Of a shard without ids.
    pub(super) const NONE: Self = Self {
        bins: 0,
        cell_bits: CELL_BITS_MAX,
        mixing: 0,
    };

    /// The finest cells that so many bins can tell apart, or no finer than is known.
    fn of(bins: u16, known: u32, mixing: u8) -> Self {
        let finest = bins.max(1).ilog2().saturating_add(CELL_LOW_BITS);
        Self {
            bins,
            cell_bits: finest.min(known),
            mixing,
        }
    }

    fn is_sound(self) -> bool {
        let cells = 1u32.wrapping_shl(self.cell_bits);
        let each = cells.div_ceil(u32::from(self.bins).max(1));
        self.mixing < MIXINGS_MAX
            && (1..=CELL_BITS_MAX).contains(&self.cell_bits)
            && each <= 1 << CELL_LOW_BITS
    }

    /// The cell whose first bin this is and whose number ends so.
    fn cell(self, first: u16, low: u16) -> Option<u16> {
        let bins = u32::from(self.bins);
        let from = u32::from(first).wrapping_shl(self.cell_bits);
        let from = from.div_ceil(bins.max(1)) as u16;
        let mask = (1 << CELL_LOW_BITS) - 1;
        let cell = from.wrapping_add(low.wrapping_sub(from) & mask);
        let is_one = u32::from(cell) < 1u32.wrapping_shl(self.cell_bits);
        let spot = Spot {
            cell,
            fingerprint: 0,
        };
        (is_one && spot.first(self) == first).then_some(cell)
    }
}

/// What decides where an id stands in its shard, and tells it apart from all others there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) cell: u16,
    pub(super) fingerprint: u64,
}

impl Spot {
    /// The bin it belongs in.
    #[inline(always)]
    fn first(self, geometry: Geometry) -> u16 {
        let product = u32::from(self.cell).wrapping_mul(geometry.bins.into());
        product.wrapping_shr(geometry.cell_bits) as u16
    }

    /// The bin it may be in besides, given the other of the two: from either follows the other.
    #[inline(always)]
    fn other(self, bin: u16, geometry: Geometry) -> u16 {
        let bins = u32::from(geometry.bins);
        let spread = u64::from((self.fingerprint >> 3) as u32).wrapping_mul(bins.into()) >> 32;
        let ahead = (spread as u32).wrapping_add(bins).wrapping_sub(bin.into());
        match ahead >= bins {
            true => ahead.wrapping_sub(bins) as u16,
            false => ahead as u16,
        }
    }

    /// What is stored of it in its first bin.
    #[inline(always)]
    fn word(self) -> Word {
        let low = u64::from(self.cell) & ((1 << CELL_LOW_BITS) - 1);
        Word(self.fingerprint | low << FINGERPRINT_BITS)
    }

    /// A reduced precision of its cell.
    fn with_cell_bits(self, from: u32, to: u32) -> Self {
        Self {
            cell: self.cell.wrapping_shr(from.saturating_sub(to)),
            ..self
        }
    }
}

/// How the shards of a version are written.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) code: Code,
    /// In format 2: whether lengths stand before the sets. In format 3 the bins say it.
    pub(super) lengths: bool,
    /// Whether it is a delta: each id may be deleted, and where it is not has a second set, of what is taken from it.
    pub(super) delta: bool,
    pub(super) shard_bits: u32,
    /// The size of a bin, and what the sets in it are filled up to; in format 2 there are none.
    pub(super) bins: BinShape,
}

/// What all bins of a version have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BinShape {
    /// The size of each, some lines of the cache.
    pub(super) bytes: usize,
    /// How many bits a length before the sets has: 0 where there are none, 4 or 8.
    pub(super) length_bits: u32,
    /// Sets are filled up to a multiple of so many bits: what a length counts.
    pub(super) unit: u32,
}

impl BinShape {
    /// Of versions without bins.
    pub(super) const NONE: Self = Self {
        bytes: 0,
        length_bits: 0,
        unit: 0,
    };

    /// For ids whose sets take so many bits on average.
    pub(super) fn for_sets(mean_bits: f64, delta: bool) -> Self {
        // Most sets are to fit a length; the fewer bits it has, the more it costs that the largest do.
        let (length_bits, means) = match mean_bits {
            few if few < NIBBLES_FROM_BITS => (0, 0.0),
            some if some < BYTES_FROM_BITS => (4, 4.0),
            _ => (8, 6.0),
        };
        let shape = |unit| Self {
            bytes: 0,
            length_bits,
            unit,
        };
        let mut shapes = [1, 2, 4].into_iter().map(shape);
        let fits = |shape: &Self| shape.length_max() as f64 >= means * mean_bits;
        let shape = shapes.find(fits).unwrap_or(shape(UNIT_MAX));
        let padding = f64::from(shape.unit.saturating_sub(1)) / 2.0;
        let bits = shape.id_bits(delta) as f64 + mean_bits + padding;
        let bytes = HEAD_BYTES as f64 + IDS_PER_BIN * bits / 8.0;
        let lines = (bytes / LINE as f64).round().max(LINES_MIN) as usize;
        Self {
            bytes: lines.saturating_mul(LINE).min(BIN_BYTES_MAX),
            ..shape
        }
    }

    pub(super) fn is_sound(self) -> bool {
        let whole = self.bytes.is_multiple_of(LINE) && self.bytes > 0;
        // Without lengths sets are gone through one after the other.
        let unit_max = match self.length_bits {
            0 => 1,
            4 | 8 => UNIT_MAX,
            _ => return false,
        };
        let unit = self.unit.is_power_of_two() && self.unit <= unit_max;
        whole && self.bytes <= BIN_BYTES_MAX && unit
    }

    /// The most bits that a length can say; without lengths there is no most.
    fn length_max(self) -> u64 {
        match self.length_bits {
            0 => u64::MAX,
            bits => {
                let most = !u64::MAX.wrapping_shl(bits);
                most.saturating_mul(self.unit.into())
            }
        }
    }

    /// Most bits of a set that stands in a bin, a quarter of it at most.
    fn set_bits_max(self) -> u64 {
        let quarter = (self.bytes as u64).saturating_mul(2);
        self.length_max().min(quarter)
    }

    /// The bits of a bin that ids can have.
    fn room(self) -> u64 {
        // Lengths and sets each end where their last byte does.
        let bytes = self.bytes.saturating_sub(HEAD_BYTES) as u64;
        let lengths = u64::from(self.length_bits) % 8;
        bytes
            .saturating_mul(8)
            .saturating_sub(lengths)
            .saturating_sub(7)
    }

    /// Bits of an id in a bin, without its set.
    fn id_bits(self, delta: bool) -> u64 {
        let rest = if delta { HASH_BYTES } else { REST_BYTES };
        let bytes = rest.saturating_add(1) as u64;
        bytes
            .saturating_mul(8)
            .saturating_add(self.length_bits.into())
    }

    /// Bytes of so many lengths.
    #[inline(always)]
    fn lengths_bytes(self, count: usize) -> usize {
        count
            .wrapping_mul(self.length_bits as usize)
            .wrapping_add(7)
            / 8
    }

    fn filled_up(self, bits: u64) -> u64 {
        bits.next_multiple_of(u64::from(self.unit).max(1))
    }
}

impl Layout {
    /// For ids of each of which so many bits say what it is in.
    pub(super) fn of(code: Code, mean_bits: f64, delta: bool, shard_bits: u32) -> Self {
        Self {
            code,
            lengths: false,
            delta,
            shard_bits,
            bins: BinShape::for_sets(mean_bits, delta),
        }
    }

    /// Bytes that tell an id from others, besides its tag.
    #[inline(always)]
    fn rest_bytes(&self) -> usize {
        match self.delta {
            true => HASH_BYTES,
            false => REST_BYTES,
        }
    }
}

/// Where a shard lies among the records, and what it needs to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it begins.
    pub(super) start: u64,
    pub(super) geometry: Geometry,
}

impl Entry {
    /// 40 bits of start, 16 of bins, 4 of mixing, 4 of the bits of a cell.
    pub(super) fn encode(self) -> [u8; ENTRY_BYTES] {
        let Geometry {
            bins,
            cell_bits,
            mixing,
        } = self.geometry;
        let word = self.start
            | u64::from(bins) << 40
            | u64::from(mixing) << 56
            | u64::from(cell_bits) << 60;
        word.to_le_bytes()
    }

    #[inline(always)]
    pub(super) fn decode(bytes: [u8; ENTRY_BYTES]) -> Self {
        let word = u64::from_le_bytes(bytes);
        Self {
            start: word & ((1 << 40) - 1),
            geometry: Geometry {
                bins: (word >> 40) as u16,
                mixing: (word >> 56) as u8 & 0xf,
                cell_bits: (word >> 60) as u32,
            },
        }
    }

    /// The entry behind the last shard's: where the records end.
    pub(super) fn end(start: u64) -> Self {
        Self {
            start,
            geometry: Geometry::of(0, CELL_BITS_MAX, 0),
        }
    }

    /// Whether a writer could have written it.
    pub(super) fn is_sound(self) -> bool {
        self.geometry.is_sound() && self.start.is_multiple_of(LINE as u64)
    }
}

/// What a file has of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// A full version: where it stands and what tells it apart.
    Spot(Spot),
    /// A full version of format 2, of which nothing is made any more.
    Fingerprint(u64),
    /// A delta: all of its hash.
    Hash(Hashed),
}

/// What is looked for in a bin: of a full version what is stored of an id there, of a delta only its tag and its moved bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word(u64);

impl Word {
    #[inline(always)]
    fn tag(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    fn rest(self) -> u32 {
        (self.0 >> u8::BITS) as u32
    }

    /// The bit of its first bin that says that it may have moved to its second.
    #[inline(always)]
    fn moved_bit(self) -> u32 {
        let high = (self.0 >> (FINGERPRINT_BITS - 8)) as u32 & 0xff;
        1u32.wrapping_shl(high.wrapping_mul(MOVED_BITS) >> 8)
    }

    /// The same in its second bin.
    #[inline(always)]
    pub(super) fn in_second(self) -> Self {
        Self(self.0 | IN_SECOND)
    }

    fn is_in_second(self) -> bool {
        self.0 & IN_SECOND != 0
    }
}

/// Where an id may be in its shard, and what is looked for there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bins {
    /// Where its first bin begins, in bytes from where the shard does.
    pub(super) first: usize,
    /// The same of its second.
    pub(super) second: usize,
    /// What is looked for in its first.
    pub(super) word: Word,
}

impl Bins {
    /// Those of a hash; nothing where the shard has no ids.
    #[inline(always)]
    pub(super) fn of(layout: &Layout, geometry: Geometry, hashed: Hashed) -> Option<Self> {
        if geometry.bins == 0 {
            return None;
        }
        let spot = hashed.spot(layout.shard_bits, geometry);
        let first = spot.first(geometry);
        let at = |bin: u16| usize::from(bin).wrapping_mul(layout.bins.bytes);
        Some(Self {
            first: at(first),
            second: at(spot.other(first, geometry)),
            word: spot.word(),
        })
    }
}

#[cfg(test)]
mod tests;
