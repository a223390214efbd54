//! One bin, as a lookup reads it.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use wide::u8x16;

use super::super::bits::{Bits, Nonsense};
use super::{HEAD_BYTES, Hashed, Layout, PLACE_BYTES, SOME_OUTSIDE, TAGS_AT_ONCE, Word};

/// What is known of an id after a look at a bin's ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Seen {
    /// It is the how-manieth of them, and its set stands in the bin.
    At(u8),
    /// It is not in the version, if this is its first bin.
    Absent,
    /// It is not here. If this is its first bin, it may be in its second.
    Elsewhere,
    /// It is one of them, and its set stands in the tail: [`super::Shard::find`] knows where.
    Outside,
}

/// Looks for an id among those of a bin of its, with which the bytes begin.
#[inline(always)]
pub(in super::super) fn see(
    layout: &Layout,
    bytes: &[u8],
    word: Word,
    hashed: Hashed,
) -> Result<Seen, Nonsense> {
    let bin = Bin::of(layout, bytes)?;
    Ok(match bin.position(layout, word, hashed)? {
        Some(position) if position < bin.inside() => Seen::At(position as u8),
        Some(_) => Seen::Outside,
        None if bin.moved() & word.moved_bit() == 0 => Seen::Absent,
        None => Seen::Elsewhere,
    })
}

/// The bits of an id that was [seen](see) in that bin at that position.
#[inline(always)]
pub(in super::super) fn bits_at<'a>(
    layout: &Layout,
    bytes: &'a [u8],
    position: u8,
) -> Result<Bits<'a>, Nonsense> {
    Bin::of(layout, bytes)?.at(layout, position.into())
}

/// One bin's bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bin<'a> {
    /// From where it begins, and more.
    pub(super) bytes: &'a [u8],
    head: [u8; HEAD_BYTES],
    /// How many sets stand outside: where there are any, its last byte, which is on another line.
    outside: u8,
}

impl<'a> Bin<'a> {
    /// The bytes begin with it.
    #[inline(always)]
    pub(super) fn of(layout: &Layout, bytes: &'a [u8]) -> Result<Self, Nonsense> {
        let head: [u8; HEAD_BYTES] = *bytes.first_chunk().ok_or(Nonsense)?;
        let outside = match head {
            [count, ..] if count & SOME_OUTSIDE != 0 => {
                let last = bytes.get(layout.bins.bytes.wrapping_sub(1));
                *last.ok_or(Nonsense)?
            }
            _ => 0,
        };
        let bin = Self {
            bytes,
            head,
            outside,
        };
        // The ids are in it, whatever is said of how many there are.
        let ids = bin.behind_ids(layout).wrapping_add(bin.places());
        match ids <= layout.bins.bytes {
            true => Ok(bin),
            false => Err(Nonsense),
        }
    }

    #[inline(always)]
    pub(super) fn count(self) -> usize {
        let [count, ..] = self.head;
        usize::from(count & !SOME_OUTSIDE)
    }

    /// Whether there is anybody whose set is in the tail.
    pub(super) fn says_some_outside(self) -> bool {
        let [count, ..] = self.head;
        count & SOME_OUTSIDE != 0
    }

    /// How many have their sets in the tail.
    #[inline(always)]
    pub(super) fn outside(self) -> usize {
        self.outside.into()
    }

    /// How many have their sets here.
    #[inline(always)]
    pub(super) fn inside(self) -> usize {
        self.count().saturating_sub(self.outside())
    }

    #[inline(always)]
    pub(super) fn moved(self) -> u32 {
        u32::from_le_bytes(self.head) >> u8::BITS
    }

    /// Bytes of the places at its end, and of how many they are.
    #[inline(always)]
    pub(super) fn places(self) -> usize {
        match self.outside() {
            0 => 0,
            some => some.wrapping_mul(PLACE_BYTES).wrapping_add(1),
        }
    }

    /// Where its lengths begin, or the sets if there are none.
    #[inline(always)]
    pub(super) fn behind_ids(self, layout: &Layout) -> usize {
        let each = layout.rest_bytes().wrapping_add(1);
        self.count().wrapping_mul(each).wrapping_add(HEAD_BYTES)
    }

    #[inline(always)]
    pub(super) fn rest(self, layout: &Layout, position: usize) -> Result<&'a [u8], Nonsense> {
        let at = position.wrapping_mul(layout.rest_bytes());
        let at = at.wrapping_add(self.count()).wrapping_add(HEAD_BYTES);
        self.bytes.get(at..).ok_or(Nonsense)
    }

    #[inline(always)]
    pub(super) fn is(
        self,
        layout: &Layout,
        position: usize,
        word: Word,
        hashed: Hashed,
    ) -> Result<bool, Nonsense> {
        let rest = self.rest(layout, position)?;
        Ok(match layout.delta {
            false => u32::from_le_bytes(*rest.first_chunk().ok_or(Nonsense)?) == word.rest(),
            true => *rest.first_chunk().ok_or(Nonsense)? == hashed.bytes(),
        })
    }

    /// Which of its ids is the one.
    #[inline(always)]
    pub(super) fn position(
        self,
        layout: &Layout,
        word: Word,
        hashed: Hashed,
    ) -> Result<Option<usize>, Nonsense> {
        let tag = u8x16::splat(word.tag());
        let (mut from, count) = (0usize, self.count());
        loop {
            // Behind the last bin there is an index, so that only a lie has too few.
            let tags = self.bytes.get(from.wrapping_add(HEAD_BYTES)..);
            let tags = tags.and_then(<[u8]>::first_chunk).ok_or(Nonsense)?;
            let mut same = u8x16::new(*tags).simd_eq(tag).to_bitmask();
            let left = count.saturating_sub(from);
            same &= !u32::MAX.wrapping_shl(left.min(TAGS_AT_ONCE) as u32);
            while same > 0 {
                let position = from.wrapping_add(same.trailing_zeros() as usize);
                if self.is(layout, position, word, hashed)? {
                    return Ok(Some(position));
                }
                same &= same.wrapping_sub(1);
            }
            if left <= TAGS_AT_ONCE {
                return Ok(None);
            }
            from = from.wrapping_add(TAGS_AT_ONCE);
        }
    }

    /// The lengths of the sets that stand here, and more, and the sets.
    #[inline(always)]
    pub(super) fn sets(self, layout: &Layout) -> Result<(&'a [u8], Bits<'a>), Nonsense> {
        let lengths_at = self.behind_ids(layout);
        let lengths = layout.bins.lengths_bytes(self.inside());
        let sets_at = lengths_at.wrapping_add(lengths);
        let end = layout.bins.bytes.wrapping_sub(self.places());
        let own = end.checked_sub(sets_at).ok_or(Nonsense)?;
        let lengths = self.bytes.get(lengths_at..).ok_or(Nonsense)?;
        let sets = self.bytes.get(sets_at..).ok_or(Nonsense)?;
        Ok((lengths, Bits::within(sets, own)))
    }

    /// The bits of the id at a position where they stand here.
    #[inline(always)]
    pub(super) fn at(self, layout: &Layout, position: usize) -> Result<Bits<'a>, Nonsense> {
        let (lengths, mut sets) = self.sets(layout)?;
        let sum = match layout.bins.length_bits {
            0 => return self.behind(layout, sets, position),
            4 => sum_of_nibbles(lengths, position),
            _ => sum_of(lengths, position),
        };
        sets.skip(sum.wrapping_mul(layout.bins.unit));
        Ok(sets)
    }

    /// The bits behind so many sets, by going through them.
    fn behind(
        self,
        layout: &Layout,
        mut sets: Bits<'a>,
        position: usize,
    ) -> Result<Bits<'a>, Nonsense> {
        if layout.delta {
            for _ in 0..position {
                let deleted = sets.take(1) == 1;
                let code = &layout.code;
                code.skip(&mut sets, if deleted { 1 } else { 2 })?;
            }
        } else {
            layout.code.skip(&mut sets, position)?;
        }
        Ok(sets)
    }

    /// Where in the tail the set of an id is whose own does not stand here.
    pub(super) fn place(self, layout: &Layout, position: usize) -> Result<usize, Nonsense> {
        let left = self.count().checked_sub(position).ok_or(Nonsense)?;
        let behind = left.wrapping_mul(PLACE_BYTES).wrapping_add(1);
        let at = layout.bins.bytes.checked_sub(behind).ok_or(Nonsense)?;
        let place = self.bytes.get(at..).and_then(<[u8]>::first_chunk);
        Ok(u32::from_le_bytes(*place.ok_or(Nonsense)?) as usize)
    }
}

/// The sum of the first `count` of the lengths that the bytes begin with, each a byte.
#[inline(always)]
pub(super) fn sum_of(lengths: &[u8], count: usize) -> u32 {
    if let Some(own) = first_of::<8>(lengths, count) {
        return sum_of_eight(own as u64).wrapping_add(sum_of_eight((own >> 64) as u64));
    }
    let own = lengths.iter().take(count);
    own.fold(0, |sum, length| sum.wrapping_add((*length).into()))
}

/// The same of lengths of four bits.
#[inline(always)]
pub(super) fn sum_of_nibbles(lengths: &[u8], count: usize) -> u32 {
    /// Every second of them.
    const EVEN: u128 = u128::from_le_bytes([0x0f; 16]);
    if let Some(own) = first_of::<4>(lengths, count) {
        let pairs = (own & EVEN).wrapping_add(own >> 4 & EVEN);
        return sum_of_eight((pairs as u64).wrapping_add((pairs >> 64) as u64));
    }
    let own = (0..count).map(|position| length_at(lengths, 4, position));
    own.fold(0, |sum, length| sum.wrapping_add(length))
}

/// The length at a position, of so many bits; nothing is zero.
pub(super) fn length_at(lengths: &[u8], length_bits: u32, position: usize) -> u32 {
    let of = |at: usize| u32::from(lengths.get(at).copied().unwrap_or(0));
    match length_bits {
        0 => 0,
        4 if position.is_multiple_of(2) => of(position / 2) & 0xf,
        4 => of(position / 2) >> 4,
        _ => of(position),
    }
}

/// The first numbers of so many bits that bytes begin with, the others zero, where all fit sixteen bytes. As many steps
/// whatever the count is: the processor need not guess it.
#[inline(always)]
fn first_of<const BITS: u32>(bytes: &[u8], count: usize) -> Option<u128> {
    let all = u128::from_le_bytes(*bytes.first_chunk()?);
    let bits = (count as u32).wrapping_mul(BITS);
    let own = all & !u128::MAX.checked_shl(bits).unwrap_or(0);
    (bits <= u128::BITS).then_some(own)
}

/// The sum of a word's bytes.
#[inline(always)]
fn sum_of_eight(word: u64) -> u32 {
    /// Every second byte.
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    const ONES: u64 = 0x0001_0001_0001_0001;
    let pairs = (word & EVEN).wrapping_add(word >> 8 & EVEN);
    (pairs.wrapping_mul(ONES) >> 48) as u32
}
