//! A shard of a version: the ids of one range of hashes, in buckets, behind a directory of its own.
//!
//! ```text
//! shard  := offset × (buckets + 1)  bucket × buckets       offsets of 2, 3 or 4 bytes, from where the buckets begin
//! bucket := count:u8  tag:u8 × count  rest:u32 × count  [length bits:u8  lengths]  sets   (an empty bucket has no bytes)
//! ```
//!
//! A shard holds about two thousand ids, so that its offsets fit two bytes, and a build writes it when it has sorted just
//! these; nothing in it depends on any other. If two of its ids would stand in one bucket under one fingerprint, the shard
//! alone is mixed anew, by a counter in its entry of the index.
//!
//! The fingerprints stand together, so that a miss, which is the usual answer, reads one cache line and no set; and of these
//! the lowest bytes, their *tags*, so that sixteen are compared at once. The sets are one string of bits. Where they are
//! long, their lengths stand before them, so that the sets before the one that is asked for need not be taken apart.
//!
//! Everything that reads reads bytes that may hold anything: nothing indexes, overflows or trusts a length.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ops::Range;

use wide::u8x16;

use super::bits::{AT_ONCE, BitWriter, Bits, Nonsense};
use super::code::{Code, Membership};

/// Ids a bucket holds on average.
const IDS_PER_BUCKET: usize = 8;
/// Most ids in a bucket. With 40-bit fingerprints 255 keep even the fullest below a false match of 2⁻³².
pub(super) const BUCKET_IDS_MAX: usize = 255;
/// Ids that a shard is meant to have.
const IDS_PER_SHARD: u64 = 2048;
/// Most bits of a hash that name the shard.
pub(super) const SHARD_BITS_MAX: u32 = 24;
/// Mixings tried before a build gives up. A shard needs a second one about once in a million.
pub(super) const MIXINGS_MAX: u8 = 16;
/// Bytes of a fingerprint in a full version.
pub(super) const FINGERPRINT_BYTES: usize = 5;
/// Bytes of a fingerprint's rest, which stands behind the tags.
const REST_BYTES: usize = FINGERPRINT_BYTES - 1;
/// Tags that are compared at once.
const TAGS_AT_ONCE: usize = 16;
/// The bits of a hash that are not in the fingerprint, which is of the highest.
const NOT_FINGERPRINT_BITS: u32 = u64::BITS - 8 * FINGERPRINT_BYTES as u32;
/// Bytes of what tells ids apart in a delta: all of the hash, so that the id can be found in the version below.
pub(super) const HASH_BYTES: usize = 16;
/// Bytes of an entry of the index.
pub(super) const ENTRY_BYTES: usize = 8;

/// How many bits of the hash name the shard, in a version of so many rows.
pub(super) fn shard_bits_for(rows: u64) -> u32 {
    let shards = rows.div_ceil(IDS_PER_SHARD).max(1);
    shards
        .next_power_of_two()
        .trailing_zeros()
        .min(SHARD_BITS_MAX)
}

/// How many buckets a shard of so many ids has.
pub(super) fn buckets_for(ids: u64) -> u64 {
    ids.div_ceil(IDS_PER_BUCKET as u64)
}

/// A key as one version sees it: its keyed hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Hashed {
    /// Decides the shard and the bucket.
    pub(super) spread: u64,
    /// Tells the bucket's ids apart.
    pub(super) check: u64,
}

impl Hashed {
    pub(super) fn fingerprint(self, mixing: u8) -> u64 {
        let check = match mixing {
            0 => self.check,
            again => mixed(self.check, again),
        };
        check >> NOT_FINGERPRINT_BITS
    }

    pub(super) fn bucket(self, shard_bits: u32, mixing: u8, buckets: u16) -> u16 {
        let within = self.spread.wrapping_shl(shard_bits);
        let within = match mixing {
            0 => within,
            again => mixed(within, again),
        };
        // The high half of the product, which is below `buckets`.
        let product = u128::from(within).wrapping_mul(u128::from(buckets));
        (product >> 64) as u16
    }

    /// Which shard it is in.
    pub(super) fn shard(self, shard_bits: u32) -> usize {
        match shard_bits {
            0 => 0,
            bits => (self.spread >> u64::BITS.saturating_sub(bits)) as usize,
        }
    }

    /// The hash that a delta has of an id.
    fn read(stored: [u8; HASH_BYTES]) -> Self {
        let both = u128::from_be_bytes(stored);
        Self {
            spread: (both >> 64) as u64,
            check: both as u64,
        }
    }

    fn bytes(self) -> [u8; HASH_BYTES] {
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

/// How the shards of a version are written.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) code: Code,
    /// Whether lengths stand before the sets.
    pub(super) lengths: bool,
    /// Whether it is a delta: each id may be deleted, and where it is not has a second set, of what is taken from it.
    pub(super) delta: bool,
    pub(super) shard_bits: u32,
}

impl Layout {
    /// Bytes that tell an id from others.
    #[inline(always)]
    fn id_bytes(&self) -> usize {
        if self.delta {
            HASH_BYTES
        } else {
            FINGERPRINT_BYTES
        }
    }
}

/// Where a shard lies among the records, and what it needs to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it begins.
    pub(super) start: u64,
    pub(super) buckets: u16,
    pub(super) mixing: u8,
    /// Bytes of its offsets.
    pub(super) width: u8,
}

impl Entry {
    /// 40 bits of start, 16 of buckets, 4 of mixing, 2 of width (2 to 4, less 2), 2 that are 0.
    pub(super) fn encode(self) -> [u8; ENTRY_BYTES] {
        let word = self.start
            | u64::from(self.buckets) << 40
            | u64::from(self.mixing) << 56
            | u64::from(self.width.saturating_sub(2)) << 60;
        word.to_le_bytes()
    }

    #[inline(always)]
    pub(super) fn decode(bytes: [u8; ENTRY_BYTES]) -> Self {
        let word = u64::from_le_bytes(bytes);
        Self {
            start: word & ((1 << 40) - 1),
            buckets: (word >> 40) as u16,
            mixing: (word >> 56) as u8 & 0xf,
            // Two bits that should be 0 come along: no offset is so wide.
            width: ((word >> 60) as u8).saturating_add(2),
        }
    }

    /// Where the bucket of a key has its two offsets, from the shard's start; nothing where there is no bucket.
    #[inline(always)]
    pub(super) fn offsets_of(self, hashed: Hashed, shard_bits: u32) -> Option<usize> {
        let bucket = match self.buckets {
            0 => return None,
            buckets => hashed.bucket(shard_bits, self.mixing, buckets),
        };
        Some(usize::from(bucket).wrapping_mul(usize::from(self.width)))
    }

    /// How many bytes the offsets take.
    #[inline(always)]
    pub(super) fn directory_bytes(self) -> usize {
        match self.buckets {
            0 => 0,
            buckets => usize::from(buckets)
                .wrapping_add(1)
                .wrapping_mul(self.width.into()),
        }
    }

    /// The offset at the front of some bytes.
    #[inline(always)]
    pub(super) fn offset(self, bytes: &[u8]) -> Option<usize> {
        Some(match self.width {
            2 => u16::from_le_bytes(*bytes.first_chunk()?).into(),
            3 => {
                let [a, b, c] = *bytes.first_chunk()?;
                u32::from_le_bytes([a, b, c, 0]) as usize
            }
            4 => u32::from_le_bytes(*bytes.first_chunk()?) as usize,
            _ => return None,
        })
    }
}

/// An id of a shard that is to be written, with its parts of a list of memberships.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) hashed: Hashed,
    pub(super) set: Range<usize>,
    /// Of a delta: what is taken from it; nothing where it is deleted.
    pub(super) removed: Range<usize>,
    /// Of a delta: whether all that lies below is taken from it.
    pub(super) deleted: bool,
}

/// Under no mixing do a shard's ids stay apart, or it is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crowded;

/// Writes shards; what it needs is kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct ShardWriter {
    order: Vec<(u16, u64, u32)>,
    offsets: Vec<usize>,
    lengths: Vec<u64>,
    bits: BitWriter,
    sets: Vec<u8>,
}

impl ShardWriter {
    /// Appends a shard to `out`; its entry, but for the start. No two ids may have the same hash.
    pub(super) fn write(
        &mut self,
        layout: &Layout,
        ids: &[Placed],
        memberships: &[Membership],
        out: &mut Vec<u8>,
    ) -> Result<Entry, Crowded> {
        let buckets = u16::try_from(ids.len().div_ceil(IDS_PER_BUCKET)).map_err(|_| Crowded)?;
        let mixing = (0..MIXINGS_MAX)
            .find(|mixing| self.arrange(layout, ids, buckets, *mixing))
            .ok_or(Crowded)?;
        self.emit(layout, (buckets, mixing), ids, memberships, out)
    }

    /// As [`write`](Self::write), of a full version whose ids have their places: `places` says the bucket and fingerprint of
    /// each of `ids`, whose hashes are not looked at.
    pub(super) fn write_placed(
        &mut self,
        layout: &Layout,
        (buckets, mixing): (u16, u8),
        places: impl Iterator<Item = (u16, u64)>,
        ids: &[Placed],
        memberships: &[Membership],
        out: &mut Vec<u8>,
    ) -> Result<Entry, Crowded> {
        self.order.clear();
        let numbered = (0u32..).zip(places);
        self.order
            .extend(numbered.map(|(at, (bucket, fingerprint))| (bucket, fingerprint, at)));
        self.order.sort_unstable();
        if !self.is_apart() {
            return Err(Crowded);
        }
        let buckets = if ids.is_empty() { 0 } else { buckets };
        self.emit(layout, (buckets, mixing), ids, memberships, out)
    }

    /// Appends a shard whose ids are in order.
    fn emit(
        &mut self,
        layout: &Layout,
        (buckets, mixing): (u16, u8),
        ids: &[Placed],
        memberships: &[Membership],
        out: &mut Vec<u8>,
    ) -> Result<Entry, Crowded> {
        if ids.is_empty() {
            return Ok(Entry {
                start: 0,
                buckets,
                mixing,
                width: 2,
            });
        }
        let mut body = Vec::new();
        self.offsets.clear();
        let order = std::mem::take(&mut self.order);
        let mut rest = order.as_slice();
        for bucket in 0..buckets {
            self.offsets.push(body.len());
            let own = rest.partition_point(|(at, ..)| *at == bucket);
            let (own, others) = rest.split_at_checked(own).ok_or(Crowded)?;
            rest = others;
            self.bucket(layout, ids, memberships, own, &mut body)?;
        }
        self.offsets.push(body.len());
        self.order = order;
        let width: u8 = match body.len() {
            0..=0xffff => 2,
            0x1_0000..=0xff_ffff => 3,
            0x100_0000..=0xffff_ffff => 4,
            _ => return Err(Crowded),
        };
        for offset in &self.offsets {
            let bytes = (*offset as u64).to_le_bytes();
            out.extend(bytes.iter().take(width.into()));
        }
        out.append(&mut body);
        Ok(Entry {
            start: 0,
            buckets,
            mixing,
            width,
        })
    }

    /// Puts the ids in their order under a mixing; whether it keeps them apart.
    fn arrange(&mut self, layout: &Layout, ids: &[Placed], buckets: u16, mixing: u8) -> bool {
        self.order.clear();
        let placed = (0u32..).zip(ids).map(|(at, id)| {
            let bucket = id.hashed.bucket(layout.shard_bits, mixing, buckets.max(1));
            (bucket, id.hashed.fingerprint(mixing), at)
        });
        self.order.extend(placed);
        self.order.sort_unstable();
        self.is_apart()
    }

    /// Whether no two ids are one, and no bucket is too full.
    fn is_apart(&self) -> bool {
        let clashes = self
            .order
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.0 == b.0 && a.1 == b.1));
        let largest = self.order.chunk_by(|a, b| a.0 == b.0).map(<[_]>::len).max();
        !clashes && largest.unwrap_or(0) <= BUCKET_IDS_MAX
    }

    fn bucket(
        &mut self,
        layout: &Layout,
        ids: &[Placed],
        memberships: &[Membership],
        own: &[(u16, u64, u32)],
        body: &mut Vec<u8>,
    ) -> Result<(), Crowded> {
        if own.is_empty() {
            return Ok(());
        }
        body.push(u8::try_from(own.len()).map_err(|_| Crowded)?);
        if !layout.delta {
            body.extend(own.iter().map(|(_, fingerprint, _)| tag_of(*fingerprint)));
            for (_, fingerprint, _) in own {
                body.extend(rest_of(*fingerprint));
            }
        }
        self.lengths.clear();
        for (_, _, at) in own {
            let id = ids.get(*at as usize).ok_or(Crowded)?;
            if layout.delta {
                body.extend(id.hashed.bytes());
            }
            let before = self.bits.len();
            let set = memberships.get(id.set.clone()).ok_or(Crowded)?;
            if layout.delta {
                self.bits.put(id.deleted.into(), 1);
                layout.code.put(&mut self.bits, set);
                if !id.deleted {
                    let removed = memberships.get(id.removed.clone()).ok_or(Crowded)?;
                    layout.code.put(&mut self.bits, removed);
                }
            } else {
                layout.code.put(&mut self.bits, set);
            }
            self.lengths.push(self.bits.len().saturating_sub(before));
        }
        self.bits.take(&mut self.sets);
        if layout.lengths {
            let longest = self.lengths.iter().copied().max().unwrap_or(0);
            let width = u64::BITS.saturating_sub(longest.leading_zeros());
            body.push(width as u8);
            for length in &self.lengths {
                self.bits.put(*length, width);
            }
            self.bits.take(body);
        }
        body.append(&mut self.sets);
        Ok(())
    }
}

/// The part of a fingerprint that is compared first.
fn tag_of(fingerprint: u64) -> u8 {
    fingerprint as u8
}

/// The other part, as it stands in a file.
fn rest_of(fingerprint: u64) -> [u8; REST_BYTES] {
    ((fingerprint >> u8::BITS) as u32).to_le_bytes()
}

/// What a file has of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// A full version: a part of its hash.
    Fingerprint(u64),
    /// A delta: all of it.
    Hash(Hashed),
}

/// One bucket's bytes, taken apart as far as its fingerprints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket<'a> {
    count: usize,
    /// What tells the ids apart, and all behind that.
    ids: &'a [u8],
    /// All behind what tells the ids apart, and more.
    rest: &'a [u8],
    /// How much of `rest` is the bucket's.
    length: usize,
}

/// An id of a bucket that was found: its bits, at its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a>(pub(super) Bits<'a>);

impl<'a> Bucket<'a> {
    /// `bytes` begin with the bucket, which is the first `length` of them.
    #[inline(always)]
    pub(super) fn parse(layout: &Layout, bytes: &'a [u8], length: usize) -> Result<Self, Nonsense> {
        let Some(length) = length.checked_sub(1) else {
            return Ok(Self {
                count: 0,
                ids: &[],
                rest: &[],
                length: 0,
            });
        };
        let (&count, ids) = bytes.split_first().ok_or(Nonsense)?;
        let count = usize::from(count);
        let taken = count.wrapping_mul(layout.id_bytes());
        let length = length.checked_sub(taken).ok_or(Nonsense)?;
        let rest = ids.get(taken..).ok_or(Nonsense)?;
        if count == 0 || rest.len() < length {
            return Err(Nonsense);
        }
        Ok(Self {
            count,
            ids,
            rest,
            length,
        })
    }

    /// What is stored of the id at that position.
    fn stored(self, layout: &Layout, position: usize) -> Option<Stored> {
        if layout.delta {
            let (hashes, _) = self.ids.as_chunks::<HASH_BYTES>();
            return Some(Stored::Hash(Hashed::read(*hashes.get(position)?)));
        }
        let tag = *self.ids.get(position)?;
        let fingerprint = u64::from(self.rest_at(position)?) << u8::BITS | u64::from(tag);
        Some(Stored::Fingerprint(fingerprint))
    }

    #[inline(always)]
    fn rest_at(self, position: usize) -> Option<u32> {
        let at = position.wrapping_mul(REST_BYTES).wrapping_add(self.count);
        Some(u32::from_le_bytes(*self.ids.get(at..)?.first_chunk()?))
    }

    /// Where the id with this fingerprint is.
    #[inline(always)]
    fn position(self, fingerprint: u64) -> Result<Option<usize>, Nonsense> {
        let rest = (fingerprint >> u8::BITS) as u32;
        let mut from = 0usize;
        while from < self.count {
            let behind = self.ids.get(from..).ok_or(Nonsense)?;
            let tags = match behind.first_chunk() {
                Some(tags) => *tags,
                None => last_tags(behind),
            };
            let mut same = same_as(tags, tag_of(fingerprint));
            if let Some(beyond) = TAGS_AT_ONCE.checked_sub(self.count.wrapping_sub(from)) {
                same &= u32::from(u16::MAX).wrapping_shr(beyond as u32);
            }
            while same > 0 {
                let position = from.wrapping_add(same.trailing_zeros() as usize);
                if self.rest_at(position).ok_or(Nonsense)? == rest {
                    return Ok(Some(position));
                }
                same &= same.wrapping_sub(1);
            }
            from = from.wrapping_add(TAGS_AT_ONCE);
        }
        Ok(None)
    }

    /// All ids in their order, as [`verify`](Self::verify) but that nothing else is looked at.
    pub(super) fn each(
        self,
        layout: &Layout,
        mut each: impl FnMut(Stored, Bits<'a>) -> Result<Bits<'a>, Nonsense>,
    ) -> Result<(), Nonsense> {
        let mut sets = match layout.lengths && self.count > 0 {
            true => self.lengths()?.2,
            false => Bits::within(self.rest, self.length),
        };
        (0..self.count).try_for_each(|position| {
            let stored = self.stored(layout, position).ok_or(Nonsense)?;
            sets = each(stored, sets)?;
            Ok(())
        })
    }

    /// The id with this hash.
    #[inline(always)]
    pub(super) fn find(
        self,
        layout: &Layout,
        hashed: Hashed,
        mixing: u8,
    ) -> Result<Option<Found<'a>>, Nonsense> {
        let position = if layout.delta {
            let wanted = hashed.bytes();
            let (stored, _) = self.ids.as_chunks::<HASH_BYTES>();
            let mut stored = stored.iter().take(self.count);
            stored.position(|stored| *stored == wanted)
        } else {
            self.position(hashed.fingerprint(mixing))?
        };
        match position {
            None => Ok(None),
            Some(position) => self.at(layout, position).map(|bits| Some(Found(bits))),
        }
    }

    /// The bits of the id at that position.
    #[inline(always)]
    fn at(self, layout: &Layout, position: usize) -> Result<Bits<'a>, Nonsense> {
        if layout.lengths {
            let (lengths, width, mut sets) = self.lengths()?;
            sets.skip_far(sum_of(lengths, width, position));
            return Ok(sets);
        }
        let mut sets = Bits::within(self.rest, self.length);
        if layout.delta {
            for _ in 0..position {
                let deleted = sets.take(1) == 1;
                layout.code.skip(&mut sets, if deleted { 1 } else { 2 })?;
            }
        } else {
            layout.code.skip(&mut sets, position)?;
        }
        Ok(sets)
    }

    /// The lengths, how many bits each has, and the sets behind them.
    #[inline(always)]
    fn lengths(self) -> Result<(Bits<'a>, u32, Bits<'a>), Nonsense> {
        let (&width, rest) = self.rest.split_first().ok_or(Nonsense)?;
        let width = u32::from(width);
        let bits = self.count.wrapping_mul(width as usize);
        let bytes = bits.div_ceil(8);
        let left = self
            .length
            .checked_sub(1)
            .and_then(|left| left.checked_sub(bytes));
        let (Some(left), true) = (left, width <= AT_ONCE) else {
            return Err(Nonsense);
        };
        let sets = rest.get(bytes..).ok_or(Nonsense)?;
        Ok((Bits::within(rest, bytes), width, Bits::within(sets, left)))
    }

    /// Goes through all ids in their order: `each` is told the fingerprint or hash and the id's bits, and gives back what it
    /// left of them. Ends in nonsense unless every bit of the bucket is as [`ShardWriter`] writes it.
    pub(super) fn verify(
        self,
        layout: &Layout,
        mut each: impl FnMut(Stored, Bits<'a>) -> Result<Bits<'a>, Nonsense>,
    ) -> Result<(), Nonsense> {
        if self.count == 0 {
            return Ok(());
        }
        let (mut lengths, width, mut sets) = if layout.lengths {
            let (lengths, width, sets) = self.lengths()?;
            (Some(lengths), width, sets)
        } else {
            (None, 0, Bits::within(self.rest, self.length))
        };
        let mut longest = 0;
        let mut before = None;
        for position in 0..self.count {
            let stored = self.stored(layout, position);
            let ascends = match (before, stored) {
                (Some(Stored::Fingerprint(before)), Some(Stored::Fingerprint(own))) => before < own,
                (before, _) => before != stored,
            };
            if !ascends {
                return Err(Nonsense);
            }
            before = stored;
            let start = sets.position();
            sets = each(stored.ok_or(Nonsense)?, sets)?;
            if let Some(lengths) = &mut lengths {
                let said = lengths.take(width);
                longest = longest.max(said);
                if sets.position().checked_sub(start) != usize::try_from(said).ok() {
                    return Err(Nonsense);
                }
            }
        }
        let narrow = u64::BITS.saturating_sub(longest.leading_zeros()) == width;
        let whole = lengths.is_none_or(|lengths| lengths.is_at_end() && narrow);
        if whole && sets.is_at_end() {
            Ok(())
        } else {
            Err(Nonsense)
        }
    }
}

/// The sum of the first `count` numbers of so many bits.
#[inline(always)]
fn sum_of(mut numbers: Bits<'_>, width: u32, count: usize) -> u64 {
    /// This many numbers of [`NARROW`] bits are in a word.
    const FEW: usize = 7;
    const NARROW: u32 = AT_ONCE / FEW as u32;
    let mask = !u64::MAX.wrapping_shl(width);
    let mut sum = 0u64;
    if count <= FEW && width <= NARROW {
        // As many steps whatever the count is: the processor need not guess it.
        let bits = width.wrapping_mul(count as u32);
        let mut word = numbers.peek() & !u64::MAX.wrapping_shl(bits);
        for _ in 0..FEW {
            sum = sum.wrapping_add(word & mask);
            word = word.wrapping_shr(width);
        }
        return sum;
    }
    for _ in 0..count {
        sum = sum.wrapping_add(numbers.peek() & mask);
        numbers.skip(width);
    }
    sum
}

/// Which of the tags are this one: the lowest bit is the first tag's.
#[inline(always)]
fn same_as(tags: [u8; TAGS_AT_ONCE], tag: u8) -> u32 {
    u8x16::new(tags).simd_eq(u8x16::splat(tag)).to_bitmask()
}

/// Fewer tags than are compared at once, filled up.
#[cold]
fn last_tags(tags: &[u8]) -> [u8; TAGS_AT_ONCE] {
    let mut all = [0; TAGS_AT_ONCE];
    for (into, from) in all.iter_mut().zip(tags) {
        *into = *from;
    }
    all
}

#[cfg(test)]
mod tests;
