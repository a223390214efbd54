//! Writes shards: how much room each id takes, which bin it gets, and the bytes.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ops::Range;

use super::super::bits::{AT_ONCE, BitWriter, Bits};
use super::super::code::Membership;
use super::placing::Placing;
use super::{
    CELL_BITS_MAX, Entry, Geometry, Hashed, LINE, Layout, MIXINGS_MAX, PLACE_BYTES, SOME_OUTSIDE,
    Spot, Word,
};

/// An id of a shard that is to be written, with its parts of a list of memberships.
#[derive(Debug, Clone)]
pub(in super::super) struct Placed {
    pub(in super::super) hashed: Hashed,
    pub(in super::super) set: Range<usize>,
    /// Of a delta: what is taken from it; nothing where it is deleted.
    pub(in super::super) removed: Range<usize>,
    /// Of a delta: whether all that lies below is taken from it.
    pub(in super::super) deleted: bool,
}

/// Under no mixing do a shard's ids stay apart, or it is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Crowded;

/// Writes shards; what it needs is kept from one to the next.
#[derive(Debug, Default)]
pub(in super::super) struct ShardWriter {
    /// The sets of all ids, each from its own byte on, and how many bits each has.
    sets: Vec<u8>,
    lengths: Vec<(usize, u64)>,
    spots: Vec<Spot>,
    /// By fingerprint and cell: what is one in coarser cells too stands side by side.
    order: Vec<u32>,
    /// Bits that each id takes of a bin.
    sizes: Vec<u32>,
    placing: Placing,
    bits: BitWriter,
    own: Vec<(bool, Word, u32)>,
    tail: Vec<u8>,
}

impl ShardWriter {
    /// Appends a shard to `out`; its entry, but for the start. No two ids may have the same hash.
    pub(in super::super) fn write(
        &mut self,
        layout: &Layout,
        ids: &[Placed],
        memberships: &[Membership],
        out: &mut Vec<u8>,
    ) -> Result<Entry, Crowded> {
        self.sizes(layout, ids, memberships)?;
        for mixing in 0..MIXINGS_MAX {
            let known = Geometry::of(u16::MAX, CELL_BITS_MAX, mixing);
            let spots = ids
                .iter()
                .map(|id| id.hashed.spot(layout.shard_bits, known));
            self.spots.clear();
            self.spots.extend(spots);
            match self.place(layout, known) {
                Some(geometry) => return self.emit(layout, geometry, ids, out),
                None => continue,
            }
        }
        Err(Crowded)
    }

    /// As [`write`](Self::write), of a full version of whose ids only the spots are known, under a geometry's cells and mixing;
    /// their hashes are not looked at.
    pub(in super::super) fn write_spots(
        &mut self,
        layout: &Layout,
        known: Geometry,
        spots: impl Iterator<Item = Spot>,
        ids: &[Placed],
        memberships: &[Membership],
        out: &mut Vec<u8>,
    ) -> Result<Entry, Crowded> {
        self.sizes(layout, ids, memberships)?;
        self.spots.clear();
        self.spots.extend(spots);
        let geometry = self.place(layout, known).ok_or(Crowded)?;
        self.emit(layout, geometry, ids, out)
    }

    /// Writes each id's set for itself, and says how much room it takes.
    fn sizes(
        &mut self,
        layout: &Layout,
        ids: &[Placed],
        memberships: &[Membership],
    ) -> Result<(), Crowded> {
        let (max, id_bits) = (
            layout.bins.set_bits_max(),
            layout.bins.id_bits(layout.delta),
        );
        self.sets.clear();
        self.lengths.clear();
        self.sizes.clear();
        for id in ids {
            let set = memberships.get(id.set.clone()).ok_or(Crowded)?;
            if layout.delta {
                self.bits.put(id.deleted.into(), 1);
            }
            layout.code.put(&mut self.bits, set);
            if layout.delta && !id.deleted {
                let removed = memberships.get(id.removed.clone()).ok_or(Crowded)?;
                layout.code.put(&mut self.bits, removed);
            }
            let bits = self.bits.len();
            self.lengths.push((self.sets.len(), bits));
            self.bits.take(&mut self.sets);
            let own = match layout.bins.filled_up(bits) {
                inside if inside <= max => inside,
                // Its place, and how many there are.
                _ => (PLACE_BYTES as u64).saturating_add(1).saturating_mul(8),
            };
            self.sizes.push(own.saturating_add(id_bits) as u32);
        }
        Ok(())
    }

    /// Finds bins for all; nothing where two ids are one by what is known of them.
    fn place(&mut self, layout: &Layout, known: Geometry) -> Option<Geometry> {
        let (room, spots) = (layout.bins.room(), &self.spots);
        self.order.clear();
        self.order.extend((0u32..).take(spots.len()));
        let spot = |at: &u32| spots.get(*at as usize);
        self.order
            .sort_unstable_by_key(|at| spot(at).map(|spot| (spot.fingerprint, spot.cell)));
        if spots.is_empty() {
            return Some(Geometry::of(0, known.cell_bits, known.mixing));
        }
        let all: u64 = self.sizes.iter().map(|size| u64::from(*size)).sum();
        let mut bins = Placing::fewest(all, room);
        for _ in 0..Placing::TRIES {
            let geometry = Geometry::of(bins, known.cell_bits, known.mixing);
            let coarser = |spot: &Spot| spot.with_cell_bits(known.cell_bits, geometry.cell_bits);
            let apart = |pair: &[u32]| match pair {
                [a, b] => spot(a).map(coarser) != spot(b).map(coarser),
                _ => true,
            };
            if !self.order.windows(2).all(apart) {
                return None;
            }
            let spots = self.order.iter().filter_map(|at| {
                let (at, size) = (*at as usize, self.sizes.get(*at as usize)?);
                Some((coarser(spots.get(at)?), *size))
            });
            if self.placing.place(geometry, room as u32, spots) {
                return Some(geometry);
            }
            bins = bins.checked_add(bins / 256)?.checked_add(1)?;
        }
        None
    }

    /// Appends a shard whose ids have their bins.
    fn emit(
        &mut self,
        layout: &Layout,
        geometry: Geometry,
        ids: &[Placed],
        out: &mut Vec<u8>,
    ) -> Result<Entry, Crowded> {
        let from = out.len();
        let mut tail = std::mem::take(&mut self.tail);
        tail.clear();
        for bin in 0..geometry.bins {
            self.bin(layout, bin, ids, out, &mut tail)?;
        }
        out.append(&mut tail);
        self.tail = tail;
        let length = out.len().saturating_sub(from);
        out.resize(from.saturating_add(length.next_multiple_of(LINE)), 0);
        Ok(Entry { start: 0, geometry })
    }

    fn bin(
        &mut self,
        layout: &Layout,
        bin: u16,
        ids: &[Placed],
        out: &mut Vec<u8>,
        tail: &mut Vec<u8>,
    ) -> Result<(), Crowded> {
        let (max, unit) = (layout.bins.set_bits_max(), layout.bins.unit);
        let mut own = std::mem::take(&mut self.own);
        own.clear();
        for (place, in_second) in self.placing.bin(bin) {
            let at = *self.order.get(*place as usize).ok_or(Crowded)?;
            let spot = *self.placing.spot(*place).ok_or(Crowded)?;
            let (_, bits) = self.lengths.get(at as usize).ok_or(Crowded)?;
            let outside = layout.bins.filled_up(*bits) > max;
            let word = match in_second {
                true => spot.word().in_second(),
                false => spot.word(),
            };
            own.push((outside, word, at));
        }
        own.sort_unstable();
        let from = out.len();
        let outside = own.iter().filter(|(outside, ..)| *outside).count();
        let count = u8::try_from(own.len()).map_err(|_| Crowded)?;
        if count >= SOME_OUTSIDE {
            return Err(Crowded);
        }
        let some = if outside > 0 { SOME_OUTSIDE } else { 0 };
        let moved = self.placing.moved(bin) << u8::BITS;
        out.extend((moved | u32::from(count | some)).to_le_bytes());
        out.extend(own.iter().map(|(_, word, _)| word.tag()));
        for (_, word, at) in &own {
            if layout.delta {
                let id = ids.get(*at as usize).ok_or(Crowded)?;
                out.extend(id.hashed.bytes());
            } else {
                out.extend(word.rest().to_le_bytes());
            }
        }
        let inside = own.iter().filter(|(outside, ..)| !outside);
        let lengths = inside.clone().filter_map(|(_, _, at)| {
            let (_, bits) = self.lengths.get(*at as usize)?;
            layout.bins.filled_up(*bits).checked_div(unit.into())
        });
        if layout.bins.length_bits > 0 {
            for length in lengths {
                self.bits.put(length, layout.bins.length_bits);
            }
            self.bits.take(out);
        }
        for (_, _, at) in inside {
            let (start, length) = *self.lengths.get(*at as usize).ok_or(Crowded)?;
            let set = self.sets.get(start..).ok_or(Crowded)?;
            let mut bits = Bits::within(set, set.len());
            let mut left = length;
            while left > 0 {
                let part = left.min(u64::from(AT_ONCE)) as u32;
                self.bits.put(bits.take(part), part);
                left = left.saturating_sub(part.into());
            }
            let padding = layout.bins.filled_up(length).saturating_sub(length);
            self.bits.put(0, padding as u32);
        }
        self.bits.take(out);
        let places = match outside {
            0 => 0,
            some => some.saturating_mul(PLACE_BYTES).saturating_add(1),
        };
        let end = from.saturating_add(layout.bins.bytes);
        let zeros_to = end.checked_sub(places).ok_or(Crowded)?;
        if out.len() > zeros_to {
            return Err(Crowded);
        }
        out.resize(zeros_to, 0);
        for (_, _, at) in own.iter().filter(|(outside, ..)| *outside) {
            let (start, bits) = *self.lengths.get(*at as usize).ok_or(Crowded)?;
            let bytes = usize::try_from(bits.div_ceil(8)).map_err(|_| Crowded)?;
            let place = u32::try_from(tail.len()).map_err(|_| Crowded)?;
            out.extend(place.to_le_bytes());
            let set = self.sets.get(start..).and_then(|set| set.get(..bytes));
            tail.extend_from_slice(set.ok_or(Crowded)?);
        }
        if outside > 0 {
            out.push(outside as u8);
        }
        self.own = own;
        Ok(())
    }
}
