//! Imps that line items might have bid on: an imp is seen by all that are live, and counted once.
//!
//! Which line items are live is told by *epochs*: each time the set changes a new one begins, and a line item was live in ranges of
//! them. So a hundred thousand line items cost as much an hour as one, and what each of them saw is added up when somebody asks.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::contacts::Scopes;
use super::report::{Key, NO_CREATIVE, day_of};
use crate::money::Currency;

/// The number of a set of line items; each has a greater one than the set before it.
pub(super) type Epoch = u32;

/// A line item of which imps are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Live {
    pub(super) scopes: Scopes,
    pub(super) currency: Currency,
}

/// Imps of an exchange in an hour (since 1970) and an epoch.
pub(super) type SeenKey = (u32, u32, Epoch);

/// Imps seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The last one; 0: none has begun.
    epoch: Epoch,
    /// In which epochs each was live; the last range ends at `Epoch::MAX` while it is.
    lives: BTreeMap<Live, Vec<Range<Epoch>>>,
    imps: BTreeMap<SeenKey, u64>,
    unsaved: BTreeSet<SeenKey>,
}

impl Seen {
    /// The last epoch.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How another set differs from the one that is live: who comes, who goes.
    pub(super) fn differs(&self, set: &BTreeSet<Live>) -> (Vec<Live>, Vec<Live>) {
        let came = set.iter().filter(|live| !self.is_live(live));
        let went = self
            .lives
            .keys()
            .filter(|live| self.is_live(live) && !set.contains(live));
        (came.copied().collect(), went.copied().collect())
    }

    fn is_live(&self, live: &Live) -> bool {
        let last = self.lives.get(live).and_then(|ranges| ranges.last());
        last.is_some_and(|range| range.end == Epoch::MAX)
    }

    /// An epoch begins with these come and those gone.
    pub(super) fn change(&mut self, epoch: Epoch, came: &[Live], went: &[Live]) {
        self.epoch = epoch;
        for live in went {
            if let Some(last) = self
                .lives
                .get_mut(live)
                .and_then(|ranges| ranges.last_mut())
            {
                last.end = last.end.min(epoch);
            }
        }
        for live in came {
            self.lives.entry(*live).or_default().push(epoch..Epoch::MAX);
        }
    }

    pub(super) fn count(&mut self, hour: u32, exchange: u32, epoch: Epoch, imps: u64) {
        let of = (hour, exchange, epoch);
        let sum = self.imps.entry(of).or_default();
        *sum = sum.saturating_add(imps);
        self.unsaved.insert(of);
    }

    /// What changed since it was last taken, as it is now.
    pub(super) fn take_unsaved(&mut self) -> impl Iterator<Item = (SeenKey, u64)> {
        let unsaved = std::mem::take(&mut self.unsaved);
        let count = |of: SeenKey| Some((of, *self.imps.get(&of)?));
        unsaved.into_iter().filter_map(count)
    }

    /// Sets a count as a journal has it.
    pub(super) fn set(&mut self, of: SeenKey, imps: u64) {
        self.imps.insert(of, imps);
    }

    /// All counts.
    pub(super) fn all(&self) -> impl Iterator<Item = (SeenKey, u64)> {
        self.imps.iter().map(|(of, imps)| (*of, *imps))
    }

    /// By epochs, from the first: who came and who went. What leads another to these ranges.
    pub(super) fn changes(&self) -> BTreeMap<Epoch, (Vec<Live>, Vec<Live>)> {
        let mut changes: BTreeMap<Epoch, (Vec<Live>, Vec<Live>)> = BTreeMap::new();
        // So that the last one is known though nobody came or went in it that is still known of.
        if self.epoch > 0 {
            changes.entry(self.epoch).or_default();
        }
        for (live, ranges) in &self.lives {
            for range in ranges {
                changes.entry(range.start).or_default().0.push(*live);
                if range.end != Epoch::MAX {
                    changes.entry(range.end).or_default().1.push(*live);
                }
            }
        }
        changes
    }

    /// The first hour from one on in which any were seen.
    pub(super) fn first_hour(&self, from: u32) -> Option<u32> {
        let mut rest = self.imps.range((from, 0, 0)..);
        rest.next().map(|((hour, ..), _)| *hour)
    }

    /// Adds up hours before one, a day each.
    pub(super) fn roll(&mut self, before: u32) {
        let apart: Vec<SeenKey> = self
            .imps
            .range(..(before, 0, 0))
            .map(|(of, _)| *of)
            .filter(|(hour, ..)| *hour != day_of(*hour))
            .collect();
        for of in apart {
            let (hour, exchange, epoch) = of;
            let imps = self.imps.remove(&of).unwrap_or(0);
            let day = self.imps.entry((day_of(hour), exchange, epoch));
            let sum = day.or_default();
            *sum = sum.saturating_add(imps);
        }
    }

    /// Forgets hours before one, and line items that were live in no epoch that is left.
    pub(super) fn forget_before(&mut self, hour: u32) {
        if self
            .imps
            .first_key_value()
            .is_none_or(|((first, ..), _)| *first >= hour)
        {
            return;
        }
        self.imps = self.imps.split_off(&(hour, 0, 0));
        let oldest = self.imps.keys().map(|(.., epoch)| *epoch).min();
        let oldest = oldest.unwrap_or(self.epoch);
        self.lives.retain(|_, ranges| {
            ranges.retain(|range| range.end > oldest);
            !ranges.is_empty()
        });
    }

    /// What each line item saw, of hours that are asked for; hours and exchanges apart, or all of them as hour 0 and exchange 0.
    pub(super) fn each(
        &self,
        is_asked: impl Fn(u32) -> bool,
        (hours_apart, exchanges_apart): (bool, bool),
        mut tell: impl FnMut(Key, u64),
    ) {
        let mut groups: BTreeMap<(u32, u32), BTreeMap<Epoch, u64>> = BTreeMap::new();
        for ((hour, exchange, epoch), imps) in self.all().filter(|((hour, ..), _)| is_asked(*hour))
        {
            let hour = if hours_apart { hour } else { 0 };
            let exchange = if exchanges_apart { exchange } else { 0 };
            let group = groups.entry((hour, exchange)).or_default();
            let sum = group.entry(epoch).or_default();
            *sum = sum.saturating_add(imps);
        }
        for ((hour, exchange), by_epoch) in groups {
            // Each epoch with all imps up to it.
            let sums: Vec<(Epoch, u64)> = by_epoch
                .into_iter()
                .scan(0u64, |sum, (epoch, imps)| {
                    *sum = sum.saturating_add(imps);
                    Some((epoch, *sum))
                })
                .collect();
            let before = |end: Epoch| {
                let next = sums.partition_point(|(epoch, _)| *epoch < end);
                let last = next.checked_sub(1).and_then(|last| sums.get(last));
                last.map_or(0, |(_, sum)| *sum)
            };
            for (live, ranges) in &self.lives {
                let imps = ranges.iter().fold(0u64, |imps, range| {
                    let seen = before(range.end).saturating_sub(before(range.start));
                    imps.saturating_add(seen)
                });
                if imps > 0 {
                    let key = Key {
                        hour,
                        scopes: live.scopes,
                        creative: NO_CREATIVE,
                        exchange,
                        currency: live.currency,
                    };
                    tell(key, imps);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(line_item: u32) -> Live {
        Live {
            scopes: Scopes {
                line_item,
                ..Scopes::default()
            },
            currency: Currency::USD,
        }
    }

    fn told(seen: &Seen, apart: (bool, bool)) -> Vec<(u32, u32, u32, u64)> {
        let mut all = Vec::new();
        seen.each(
            |_| true,
            apart,
            |key, imps| all.push((key.hour, key.exchange, key.scopes.line_item, imps)),
        );
        all
    }

    /// Against plain books: each line item that is live counts each imp. Line items come and go and come again, hours roll.
    #[test]
    fn ranges_count_as_one_by_one() {
        let mut seen = Seen::default();
        let mut plain: BTreeMap<(u32, u32, u32), u64> = BTreeMap::new();
        let mut now: BTreeSet<u32> = BTreeSet::new();
        let mut random = 7u64;
        for step in 0..600u32 {
            random = random.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(11);
            let (hour, exchange) = (480 + step / 10, step % 3);
            if random >> 60 < 6 {
                let who = (random >> 40) as u32 % 9;
                if !now.remove(&who) {
                    now.insert(who);
                }
                let set = now.iter().map(|who| live(*who)).collect();
                let (came, went) = seen.differs(&set);
                assert_eq!(came.len() + went.len(), 1);
                seen.change(seen.epoch() + 1, &came, &went);
            }
            seen.count(hour, exchange, seen.epoch(), u64::from(step) + 1);
            for who in &now {
                *plain.entry((hour, exchange, *who)).or_default() += u64::from(step) + 1;
            }
        }
        let all = |plain: &BTreeMap<(u32, u32, u32), u64>| -> Vec<_> {
            plain
                .iter()
                .map(|((a, b, c), n)| (*a, *b, *c, *n))
                .collect()
        };
        assert_eq!(told(&seen, (true, true)), all(&plain));
        // What leads another one here leads it to the same.
        let mut again = Seen::default();
        for (epoch, (came, went)) in seen.changes() {
            again.change(epoch, &came, &went);
        }
        seen.all().for_each(|(of, imps)| again.set(of, imps));
        assert_eq!(again.epoch(), seen.epoch());
        assert_eq!(told(&again, (true, true)), all(&plain));
        seen.roll(520);
        let mut days: BTreeMap<(u32, u32, u32), u64> = BTreeMap::new();
        for ((hour, exchange, who), imps) in &plain {
            let hour = if *hour < 520 { day_of(*hour) } else { *hour };
            *days.entry((hour, *exchange, *who)).or_default() += imps;
        }
        assert_eq!(told(&seen, (true, true)), all(&days));
        let mut whole: BTreeMap<(u32, u32, u32), u64> = BTreeMap::new();
        for ((.., who), imps) in &plain {
            *whole.entry((0, 0, *who)).or_default() += imps;
        }
        assert_eq!(told(&seen, (false, false)), all(&whole));
        seen.forget_before(504);
        days.retain(|(hour, ..), _| *hour >= 504);
        assert_eq!(told(&seen, (true, true)), all(&days));
        seen.forget_before(u32::MAX);
        assert!(
            seen.lives
                .values()
                .flatten()
                .all(|range| range.end == Epoch::MAX)
        );
    }
}
