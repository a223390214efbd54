//! Which of its two bins each id of a shard stands in.
//!
//! All begin in their first. From a bin that is too full the id goes to its other bin that finds most room there; where none
//! finds enough, the one that leaves the least too much goes all the same, and that bin is seen to in turn. So bins of sixteen
//! ids fill to 98 parts of a hundred, as in cuckoo hashing with large buckets (Dietzfelbinger and Weidling, 2007), though
//! their ids are of different sizes. What is done depends on the ids alone.

use std::cmp::Reverse;

use super::{Geometry, Spot};

/// Tried first: how much of all bins is filled.
const FILLED: f64 = 0.98;
/// Moves for each bin, before it is said that there are too few bins.
const MOVES_PER_BIN: usize = 24;

/// Ids with their bins; kept from one shard to the next.
#[derive(Debug, Default)]
pub(super) struct Placing {
    items: Vec<Item>,
    /// By bin: the place of each of its ids in the order they were given, and whether the bin is its second.
    bins: Vec<Vec<(u32, bool)>>,
    loads: Vec<u32>,
    moved: Vec<u32>,
    too_full: Vec<u16>,
}

#[derive(Debug)]
struct Item {
    spot: Spot,
    bits: u32,
    /// How often it was moved: who was moved before is moved later.
    moves: u32,
}

impl Placing {
    /// How often more bins are tried.
    pub(super) const TRIES: usize = 64;

    /// How many bins of so much room to begin with, for ids that take so much in all.
    pub(super) fn fewest(bits: u64, room: u64) -> u16 {
        let bins = (bits as f64 / (room as f64 * FILLED)).ceil();
        (bins as u64).clamp(1, u16::MAX.into()) as u16
    }

    /// Places all ids, each by its spot and the bits that it takes; whether it could.
    pub(super) fn place(
        &mut self,
        geometry: Geometry,
        room: u32,
        ids: impl Iterator<Item = (Spot, u32)>,
    ) -> bool {
        let count = usize::from(geometry.bins);
        for bin in &mut self.bins {
            bin.clear();
        }
        self.bins.resize_with(count.max(self.bins.len()), Vec::new);
        self.loads.clear();
        self.loads.resize(count, 0);
        self.moved.clear();
        self.moved.resize(count, 0);
        self.items.clear();
        for ((spot, bits), at) in ids.zip(0u32..) {
            let first = spot.first(geometry);
            self.put(first, at, bits, false);
            let moves = 0;
            self.items.push(Item { spot, bits, moves });
        }
        self.too_full.clear();
        let loads = (0u16..).zip(&self.loads);
        let too_full = loads.filter(|(_, load)| **load > room).map(|(bin, _)| bin);
        self.too_full.extend(too_full);
        let mut left = MOVES_PER_BIN.saturating_mul(count);
        while let Some(bin) = self.too_full.pop() {
            while self.load(bin) > room {
                let (Some(more), Some(place)) =
                    (left.checked_sub(1), self.best(bin, geometry, room))
                else {
                    return false;
                };
                left = more;
                let other = self.move_out(bin, place, geometry);
                if self.load(other) > room {
                    self.too_full.push(other);
                }
            }
        }
        for bin in self.bins.iter().take(count) {
            for (at, _) in bin.iter().filter(|(_, in_second)| *in_second) {
                let Some(item) = self.items.get(*at as usize) else {
                    continue;
                };
                let first = usize::from(item.spot.first(geometry));
                if let Some(moved) = self.moved.get_mut(first) {
                    *moved |= item.spot.word().moved_bit();
                }
            }
        }
        true
    }

    /// The ids of a bin: their place in the order they were given, and whether it is their second.
    pub(super) fn bin(&self, number: u16) -> &[(u32, bool)] {
        self.bins
            .get(usize::from(number))
            .map_or(&[], Vec::as_slice)
    }

    /// Where an id stands, as it was given.
    pub(super) fn spot(&self, place: u32) -> Option<&Spot> {
        self.items.get(place as usize).map(|item| &item.spot)
    }

    /// What a bin says of those that are in their second.
    pub(super) fn moved(&self, number: u16) -> u32 {
        self.moved.get(usize::from(number)).copied().unwrap_or(0)
    }

    fn load(&self, bin: u16) -> u32 {
        self.loads.get(usize::from(bin)).copied().unwrap_or(0)
    }

    fn put(&mut self, bin: u16, at: u32, bits: u32, in_second: bool) {
        let number = usize::from(bin);
        if let (Some(load), Some(bin)) = (self.loads.get_mut(number), self.bins.get_mut(number)) {
            *load = load.saturating_add(bits);
            bin.push((at, in_second));
        }
    }

    /// Which id of a bin best goes to its other.
    fn best(&self, bin: u16, geometry: Geometry, room: u32) -> Option<usize> {
        let others = self.bin(bin).iter().enumerate();
        let choices = others.filter_map(|(place, (at, _))| {
            let item = self.items.get(*at as usize)?;
            let other = item.spot.other(bin, geometry);
            let after = self.load(other).saturating_add(item.bits);
            let beyond = after.saturating_sub(room);
            let left = room.saturating_sub(after);
            // Nobody moves from a bin to the same.
            (other != bin).then_some(((beyond > 0, item.moves, beyond, Reverse(left), *at), place))
        });
        choices.min().map(|(_, place)| place)
    }

    /// Moves one out of its bin; to which.
    fn move_out(&mut self, bin: u16, place: usize, geometry: Geometry) -> u16 {
        let number = usize::from(bin);
        let Some(own) = self.bins.get_mut(number) else {
            return bin;
        };
        let (at, in_second) = own.swap_remove(place);
        let Some(item) = self.items.get_mut(at as usize) else {
            return bin;
        };
        item.moves = item.moves.saturating_add(1);
        let (bits, other) = (item.bits, item.spot.other(bin, geometry));
        if let Some(load) = self.loads.get_mut(number) {
            *load = load.saturating_sub(bits);
        }
        self.put(other, at, bits, !in_second);
        other
    }
}
