//! A shard as a whole: found in its second bins and its tail, gone through, verified.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::super::bits::{Bits, Nonsense};
use super::bin::{Bin, length_at};
use super::{
    CELL_LOW_BITS, FINGERPRINT_BITS, Geometry, HEAD_BYTES, Hashed, LINE, Layout, Spot, Stored, Word,
};

/// A shard's bytes, to be read.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Shard<'a> {
    pub(in super::super) layout: &'a Layout,
    pub(in super::super) geometry: Geometry,
    /// From where it begins, and more.
    pub(in super::super) bytes: &'a [u8],
}

impl<'a> Shard<'a> {
    fn bin(&self, number: u16) -> Result<Bin<'a>, Nonsense> {
        let at = usize::from(number).wrapping_mul(self.layout.bins.bytes);
        Bin::of(self.layout, self.bytes.get(at..).ok_or(Nonsense)?)
    }

    /// The bits of the id with this hash, wherever they are.
    pub(in super::super) fn find(&self, hashed: Hashed) -> Result<Option<Bits<'a>>, Nonsense> {
        let (layout, geometry) = (self.layout, self.geometry);
        if geometry.bins == 0 {
            return Ok(None);
        }
        let spot = hashed.spot(layout.shard_bits, geometry);
        let (first, word) = (spot.first(geometry), spot.word());
        let bin = self.bin(first)?;
        if let Some(position) = bin.position(layout, word, hashed)? {
            return self.at(bin, position).map(Some);
        }
        if bin.moved() & word.moved_bit() == 0 {
            return Ok(None);
        }
        let bin = self.bin(spot.other(first, geometry))?;
        match bin.position(layout, word.in_second(), hashed)? {
            Some(position) => self.at(bin, position).map(Some),
            None => Ok(None),
        }
    }

    /// The bits of the id at that position, wherever they are.
    fn at(&self, bin: Bin<'a>, position: usize) -> Result<Bits<'a>, Nonsense> {
        match position < bin.inside() {
            true => bin.at(self.layout, position),
            false => self.in_tail(bin.place(self.layout, position)?),
        }
    }

    /// The bits at a place of the tail.
    fn in_tail(&self, place: usize) -> Result<Bits<'a>, Nonsense> {
        let bins = usize::from(self.geometry.bins).wrapping_mul(self.layout.bins.bytes);
        let at = bins.checked_add(place).ok_or(Nonsense)?;
        let bytes = self.bytes.get(at..).ok_or(Nonsense)?;
        Ok(Bits::within(bytes, bytes.len()))
    }

    /// All ids: `each` is told what is stored of one and its bits, and gives back what it left of them.
    pub(in super::super) fn each(
        &self,
        mut each: impl FnMut(Stored, Bits<'a>) -> Result<Bits<'a>, Nonsense>,
    ) -> Result<(), Nonsense> {
        (0..self.geometry.bins).try_for_each(|number| {
            let bin = self.bin(number)?;
            let (_, mut sets) = bin.sets(self.layout)?;
            for position in 0..bin.count() {
                let stored = self.stored(bin, number, position)?.0;
                if position < bin.inside() {
                    sets = each(stored, sets)?;
                    sets.fill_up(self.layout.bins.unit);
                } else {
                    each(stored, self.in_tail(bin.place(self.layout, position)?)?)?;
                }
            }
            Ok(())
        })
    }

    /// What is stored of an id, and its word.
    fn stored(
        &self,
        bin: Bin<'a>,
        number: u16,
        position: usize,
    ) -> Result<(Stored, Word), Nonsense> {
        let tag = bin.bytes.get(position.saturating_add(HEAD_BYTES));
        let tag = *tag.ok_or(Nonsense)?;
        let rest = bin.rest(self.layout, position)?;
        if self.layout.delta {
            let hashed = Hashed::read(*rest.first_chunk().ok_or(Nonsense)?);
            let spot = hashed.spot(self.layout.shard_bits, self.geometry);
            let word = match spot.first(self.geometry) == number {
                true => spot.word(),
                false => spot.word().in_second(),
            };
            return match word.tag() == tag {
                true => Ok((Stored::Hash(hashed), word)),
                false => Err(Nonsense),
            };
        }
        let rest = u32::from_le_bytes(*rest.first_chunk().ok_or(Nonsense)?);
        let word = u64::from(rest) << u8::BITS | u64::from(tag);
        let low = word >> FINGERPRINT_BITS & ((1 << CELL_LOW_BITS) - 1);
        let mut spot = Spot {
            cell: 0,
            fingerprint: word & ((1 << FINGERPRINT_BITS) - 1),
        };
        let word = Word(word);
        let first = match word.is_in_second() {
            false => number,
            true => spot.other(number, self.geometry),
        };
        spot.cell = self.geometry.cell(first, low as u16).ok_or(Nonsense)?;
        Ok((Stored::Spot(spot), word))
    }

    /// As [`each`](Self::each); in the end how many bytes the shard has. Ends in nonsense unless every bit is as
    /// [`super::ShardWriter`] writes it, as far as a lookup depends on it.
    pub(in super::super) fn verify(
        &self,
        shard: usize,
        mut each: impl FnMut(Stored, Bits<'a>) -> Result<Bits<'a>, Nonsense>,
    ) -> Result<usize, Nonsense> {
        let (layout, geometry) = (self.layout, self.geometry);
        let bins = usize::from(geometry.bins).wrapping_mul(layout.bins.bytes);
        // No more than there are bytes for.
        self.bytes.get(..bins).ok_or(Nonsense)?;
        let mut moved = vec![0u32; geometry.bins.into()];
        let mut tail = 0usize;
        for number in 0..geometry.bins {
            let bin = self.bin(number)?;
            let (lengths, mut sets) = bin.sets(layout)?;
            let says_some = bin.says_some_outside();
            if bin.outside() > bin.count() || says_some != (bin.outside() > 0) {
                return Err(Nonsense);
            }
            let mut before = None;
            for position in 0..bin.count() {
                let (stored, word) = self.stored(bin, number, position)?;
                let is_outside = position >= bin.inside();
                if before.is_some_and(|before| before >= (is_outside, word)) {
                    return Err(Nonsense);
                }
                before = Some((is_outside, word));
                let spot = match stored {
                    Stored::Spot(spot) => spot,
                    Stored::Hash(hashed) if hashed.shard(layout.shard_bits) == shard => {
                        hashed.spot(layout.shard_bits, geometry)
                    }
                    _ => return Err(Nonsense),
                };
                if word.is_in_second() {
                    let first = spot.first(geometry);
                    if spot.other(first, geometry) != number {
                        return Err(Nonsense);
                    }
                    let own = moved.get_mut(usize::from(first)).ok_or(Nonsense)?;
                    *own |= word.moved_bit();
                }
                if is_outside {
                    if bin.place(layout, position)? != tail {
                        return Err(Nonsense);
                    }
                    let mut bits = each(stored, self.in_tail(tail)?)?;
                    if bits.fill_up(u8::BITS) > 0 || bits.is_past() {
                        return Err(Nonsense);
                    }
                    tail = tail.wrapping_add(bits.position() >> 3);
                } else {
                    let start = sets.position();
                    sets = each(stored, sets)?;
                    if sets.fill_up(layout.bins.unit) > 0 || sets.is_past() {
                        return Err(Nonsense);
                    }
                    let said = length_at(lengths, layout.bins.length_bits, position);
                    let said = said.wrapping_mul(layout.bins.unit) as usize;
                    let took = sets.position().wrapping_sub(start);
                    if layout.bins.length_bits > 0 && took != said {
                        return Err(Nonsense);
                    }
                }
            }
            let half_a_byte = layout.bins.length_bits == 4 && bin.inside() % 2 == 1;
            if half_a_byte && length_at(lengths, 4, bin.inside()) != 0 {
                return Err(Nonsense);
            }
            if !sets.are_zeros_left() {
                return Err(Nonsense);
            }
        }
        let filters = (0..geometry.bins).zip(&moved);
        for (number, moved) in filters {
            if self.bin(number)?.moved() != *moved {
                return Err(Nonsense);
            }
        }
        let end = bins.checked_add(tail).ok_or(Nonsense)?;
        let whole = end.next_multiple_of(LINE);
        let padding = self.bytes.get(end..whole).ok_or(Nonsense)?;
        match padding.iter().all(|byte| *byte == 0) {
            true => Ok(whole),
            false => Err(Nonsense),
        }
    }
}
