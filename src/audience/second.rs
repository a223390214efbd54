//! Format 2, which is read and no longer written: the ids of a shard in buckets behind a directory of its own.
//!
//! ```text
//! shard  := offset × (buckets + 1)  bucket × buckets       offsets of 2, 3 or 4 bytes, from where the buckets begin
//! bucket := count:u8  tag:u8 × count  rest:u32 × count  [length bits:u8  lengths]  sets   (an empty bucket has no bytes)
//! ```
//!
//! The sets are one string of bits. Where they are long, their lengths stand before them, so that the sets before the one that
//! is asked for need not be taken apart. A delta has in place of tags and rests all of its ids' hashes.
//!
//! Everything that reads reads bytes that may hold anything: nothing indexes, overflows or trusts a length.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use wide::u8x16;

use super::bits::{AT_ONCE, Bits, Nonsense};
use super::shard::{HASH_BYTES, Hashed, Layout, MIXINGS_MAX, Stored};

/// Ids a bucket holds on average.
const IDS_PER_BUCKET: u64 = 8;
/// Bytes of a fingerprint in a full version.
const FINGERPRINT_BYTES: usize = 5;
/// Bytes of a fingerprint's rest, which stands behind the tags.
const REST_BYTES: usize = FINGERPRINT_BYTES - 1;
/// Tags that are compared at once.
const TAGS_AT_ONCE: usize = 16;
/// The bits of a hash that are not in the fingerprint, which is of the highest.
const NOT_FINGERPRINT_BITS: u32 = u64::BITS - 8 * FINGERPRINT_BYTES as u32;
/// Bytes of an entry of the index.
const ENTRY_BYTES: usize = 8;

/// The bits of a hash that are compared.
fn fingerprint(hashed: Hashed, mixing: u8) -> u64 {
    hashed.check(mixing) >> NOT_FINGERPRINT_BITS
}

/// The bucket of a hash.
fn bucket(hashed: Hashed, shard_bits: u32, mixing: u8, buckets: u16) -> u16 {
    let within = hashed.within(shard_bits, mixing);
    // The high half of the product, which is below `buckets`.
    let product = u128::from(within).wrapping_mul(u128::from(buckets));
    (product >> 64) as u16
}

/// Bytes that tell an id from others.
#[inline(always)]
fn id_bytes(layout: &Layout) -> usize {
    if layout.delta {
        HASH_BYTES
    } else {
        FINGERPRINT_BYTES
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
    #[inline(always)]
    pub(super) fn decode(bytes: [u8; ENTRY_BYTES]) -> Self {
        let word = u64::from_le_bytes(bytes);
        Self {
            start: word & ((1 << 40) - 1),
            buckets: (word >> 40) as u16,
            mixing: (word >> 56) as u8 & 0xf,
            // Two bits that should be 0 come along: no offset is so wide, and so none is sound.
            width: ((word >> 60) as u8).saturating_add(2),
        }
    }

    /// Where the bucket of a key has its two offsets, from the shard's start; nothing where there is no bucket.
    #[inline(always)]
    pub(super) fn offsets_of(self, hashed: Hashed, shard_bits: u32) -> Option<usize> {
        let bucket = match self.buckets {
            0 => return None,
            buckets => bucket(hashed, shard_bits, self.mixing, buckets),
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

    fn is_sound(self) -> bool {
        (2..=4).contains(&self.width) && self.mixing < MIXINGS_MAX
    }

    /// The offset at the front of some bytes.
    fn offset(self, bytes: &[u8]) -> Option<usize> {
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
        let taken = count.wrapping_mul(id_bytes(layout));
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
            let mut same = same_as(tags, fingerprint as u8);
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
    fn each(
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
            self.position(fingerprint(hashed, mixing))?
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
    /// left of them. Ends in nonsense unless every bit of the bucket is as it was written.
    fn verify(
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

/// A shard's bytes, to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shard<'a> {
    pub(super) layout: &'a Layout,
    pub(super) entry: Entry,
    /// From where it begins, and more.
    pub(super) bytes: &'a [u8],
}

impl<'a> Shard<'a> {
    /// Where a bucket begins and ends, from where the first does.
    fn range(&self, bucket: u16) -> Option<(usize, usize)> {
        let directory = self.bytes.get(..self.entry.directory_bytes())?;
        let offset = |bucket: usize| {
            let at = bucket.checked_mul(self.entry.width.into())?;
            self.entry.offset(directory.get(at..)?)
        };
        let bucket = usize::from(bucket);
        Some((offset(bucket)?, offset(bucket.checked_add(1)?)?))
    }

    fn bucket(&self, (start, end): (usize, usize)) -> Result<Bucket<'a>, Nonsense> {
        let length = end.checked_sub(start).ok_or(Nonsense)?;
        let at = self.entry.directory_bytes().checked_add(start);
        let bytes = self.bytes.get(at.ok_or(Nonsense)?..);
        Bucket::parse(self.layout, bytes.ok_or(Nonsense)?, length)
    }

    /// All ids: `each` is told what is stored of one and its bits, and gives back what it left of them.
    pub(super) fn each(
        &self,
        mut each: impl FnMut(Stored, Bits<'a>) -> Result<Bits<'a>, Nonsense>,
    ) -> Result<(), Nonsense> {
        (0..self.entry.buckets).try_for_each(|bucket| {
            let range = self.range(bucket).ok_or(Nonsense)?;
            self.bucket(range)?.each(self.layout, &mut each)
        })
    }

    /// As [`each`](Self::each), of a shard of so many bytes. Ends in nonsense unless every bit is as it was written: `remade`
    /// of a full version and deltas, it has the buckets of that.
    pub(super) fn verify(
        &self,
        shard: usize,
        length: usize,
        remade: bool,
        mut each: impl FnMut(Stored, Bits<'a>) -> Result<Bits<'a>, Nonsense>,
    ) -> Result<(), Nonsense> {
        let (layout, entry) = (self.layout, self.entry);
        let body = length
            .checked_sub(entry.directory_bytes())
            .ok_or(Nonsense)?;
        if !entry.is_sound() {
            return Err(Nonsense);
        }
        let (mut expected, mut ids) = (0, 0u64);
        for bucket in 0..entry.buckets {
            let (start, end) = self.range(bucket).ok_or(Nonsense)?;
            if start != expected || end > body {
                return Err(Nonsense);
            }
            expected = end;
            self.bucket((start, end))?.verify(layout, |stored, bits| {
                ids = ids.saturating_add(1);
                if let Stored::Hash(hashed) = stored {
                    // Where a lookup goes to look for it.
                    let offsets = usize::from(bucket).checked_mul(entry.width.into());
                    if hashed.shard(layout.shard_bits) != shard
                        || entry.offsets_of(hashed, layout.shard_bits) != offsets
                    {
                        return Err(Nonsense);
                    }
                }
                each(stored, bits)
            })?;
        }
        let narrow = match entry.width {
            2 => true,
            3 => body > 0xffff,
            _ => body > 0xff_ffff,
        };
        let fits = u64::from(entry.buckets) == ids.div_ceil(IDS_PER_BUCKET) || remade;
        match expected == body && narrow && fits {
            true => Ok(()),
            false => Err(Nonsense),
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
