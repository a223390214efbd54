//! Pacing: budgets are spent as the day's traffic comes, by leaving some requests out, not by bidding less.
//!
//! What is left of a budget is spread over what is left of its time (the day; of a total, the flight), in the shape of the traffic:
//! the requests of each hour of the week, learned from our own counts. From that follows how much should be spent now. How much
//! *would* be spent if every request were taken is what was taken of late over the share that was let through. The quotient of
//! the two is the share of requests that line items with this budget take part in. A line item goes by the smallest of
//! its budgets' shares; `ahead` by a quarter more.
//!
//! What is left counts open bids as what such bids come to, in strict mode too, so that holds are not mistaken for spend.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::campaigns::Pacing;
use crate::ledger::plan::ALWAYS;

/// Hours in a week.
pub(super) const WEEK_HOURS: usize = 168;
const HOUR_MS: i64 = 3_600_000;
/// 1970-01-01 was a Thursday: weeks are counted from then on.
const WEEK_MS: i64 = 168 * HOUR_MS;
/// Seconds over which what is taken is averaged.
const AVERAGE_SECONDS: f64 = 30.0;
/// How much faster `ahead` spends.
const AHEAD: f64 = 1.25;
/// What a new week weighs against those before.
const NEW_WEEK: f64 = 0.3;

/// The shape of traffic over a week: how much of it comes in each hour.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Requests of each hour, averaged over weeks; nothing where none was seen whole.
    hours: [Option<f64>; WEEK_HOURS],
    /// Sums up to each hour, with what is guessed of hours that were not seen.
    sums: [f64; WEEK_HOURS + 1],
    /// The hour that is being counted, since 1970; whether it was seen from its beginning; its requests.
    hour: i64,
    is_whole: bool,
    requests: u64,
}

impl Default for Shape {
    fn default() -> Self {
        let mut shape = Self {
            hours: [None; WEEK_HOURS],
            sums: [0.0; WEEK_HOURS + 1],
            hour: 0,
            is_whole: false,
            requests: 0,
        };
        shape.add_up();
        shape
    }
}

impl Shape {
    /// Counts requests at a time; an hour that is over and was seen whole, with its requests.
    pub(super) fn count(&mut self, requests: u64, now_ms: i64) -> Option<(i64, u64)> {
        let hour = now_ms.div_euclid(HOUR_MS);
        let mut over = None;
        if hour != self.hour {
            if self.is_whole {
                over = Some((self.hour, self.requests));
                self.learn(self.hour, self.requests);
            }
            let begins = now_ms.rem_euclid(HOUR_MS) < 60_000;
            self.is_whole = begins;
            self.hour = hour;
            self.requests = 0;
        }
        self.requests = self.requests.saturating_add(requests);
        over
    }

    /// Takes in an hour's requests.
    pub(super) fn learn(&mut self, hour: i64, requests: u64) {
        let place = usize::try_from(hour.rem_euclid(WEEK_HOURS as i64)).unwrap_or(0);
        if let Some(known) = self.hours.get_mut(place) {
            let new = requests as f64;
            *known = Some(known.map_or(new, |old| old * (1.0 - NEW_WEEK) + new * NEW_WEEK));
        }
        self.add_up();
    }

    /// The hours of the week that are known, as hours since 1970.
    pub(super) fn known(&self) -> impl Iterator<Item = (i64, u64)> {
        let hours = (0i64..).zip(self.hours);
        hours.filter_map(|(hour, known)| Some((hour, known? as u64)))
    }

    /// An hour that was never seen is like the same hour of other days, else like all hours.
    fn add_up(&mut self) {
        let mean = |all: &mut dyn Iterator<Item = f64>| {
            let (sum, count) = all.fold((0.0, 0.0), |(sum, count), one| (sum + one, count + 1.0));
            (count > 0.0).then(|| sum / count)
        };
        let all = mean(&mut self.hours.iter().flatten().copied()).unwrap_or(1.0);
        let mut sum = 0.0;
        for (place, known) in self.hours.iter().enumerate() {
            let of_day = place % 24;
            let weight = known.unwrap_or_else(|| {
                let others = self.hours.iter().skip(of_day).step_by(24).flatten();
                mean(&mut others.copied()).unwrap_or(all)
            });
            // No hour is without any traffic: what is left must be spendable.
            sum += weight.max(all / 1_000.0).max(1e-9);
            if let Some(known) = self.sums.get_mut(place.saturating_add(1)) {
                *known = sum;
            }
        }
    }

    /// The traffic from the beginning of its week up to a time.
    fn up_to(&self, at_ms: i64) -> f64 {
        let within = at_ms.rem_euclid(WEEK_MS);
        let place = usize::try_from(within / HOUR_MS).unwrap_or(0);
        let before = self.sums.get(place).copied().unwrap_or(0.0);
        let after = self
            .sums
            .get(place.saturating_add(1))
            .copied()
            .unwrap_or(before);
        before + (after - before) * ((within % HOUR_MS) as f64 / HOUR_MS as f64)
    }

    /// The traffic between two times.
    fn between(&self, from_ms: i64, until_ms: i64) -> f64 {
        let weeks = until_ms
            .div_euclid(WEEK_MS)
            .saturating_sub(from_ms.div_euclid(WEEK_MS));
        let week = self.sums.last().copied().unwrap_or(1.0);
        weeks as f64 * week + self.up_to(until_ms) - self.up_to(from_ms)
    }

    /// The part of the traffic up to `until_ms` that comes in the next second.
    pub(super) fn next_second(&self, now_ms: i64, until_ms: i64) -> f64 {
        let second = now_ms.saturating_add(1_000);
        let left = self.between(now_ms, until_ms.max(second));
        if left <= 0.0 {
            return 1.0;
        }
        (self.between(now_ms, second) / left).clamp(0.0, 1.0)
    }
}

/// How a budget is being spent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Taken a second, and the share of requests that was let through, averaged.
    taken: f64,
    offered: f64,
    share: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            taken: 0.0,
            offered: 0.0,
            share: 1.0,
        }
    }
}

impl Pace {
    /// After some seconds in which so much was taken: the share by which `wanted` a second is taken.
    fn next(&mut self, seconds: f64, taken: f64, wanted: f64) -> f64 {
        let weight = 1.0 - (-seconds / AVERAGE_SECONDS).exp();
        self.taken += weight * (taken / seconds - self.taken);
        self.offered += weight * (self.share - self.offered);
        let all = self.taken / self.offered.max(1e-9);
        self.share = match (wanted > 0.0, all > 0.0) {
            (false, _) => 0.0,
            (true, false) => 1.0,
            (true, true) => (wanted / all).clamp(1e-6, 1.0),
        };
        self.share
    }
}

/// A line item that is paced.
#[derive(Debug, Clone)]
pub(super) struct Paced {
    pub(super) state: Arc<LineState>,
    pub(super) pacing: Pacing,
    /// Its budgets.
    pub(super) budgets: Vec<(u32, bool)>,
}

impl Keeper {
    /// Requests were answered.
    pub(super) fn requests(&mut self, requests: u64) {
        if let Some((hour, requests)) = self.shape.count(requests, self.now_ms) {
            self.write(&Record::Hour { hour, requests });
        }
    }

    /// Finds out which share of requests each line item takes part in. `seconds` since the last time.
    pub(super) fn pace(&mut self, seconds: f64) {
        let mut shares: HashMap<(u32, bool), f64> = HashMap::new();
        for (key, open) in &mut self.open {
            if open.limit == 0 {
                continue;
            }
            let (number, until) = match &open.purses {
                Purses::Total(purse) => (Some(purse.account()), open.until_ms),
                Purses::Day(_) => {
                    let day = day_in(&open.zone, self.now_ms);
                    let purse = day.and_then(|day| open.purses.on(day));
                    // On a flight's last day nothing can be spent any more when it is over.
                    let flight_end = open.until_ms.filter(|end| *end > self.now_ms);
                    let end = day_end(&open.zone, self.now_ms);
                    let end = end.map(|end| flight_end.map_or(end, |own| end.min(own)));
                    (purse.map(|purse| purse.account()), end)
                }
            };
            let account = number.and_then(|number| self.accounts.get_mut(&number));
            let (Some(account), Some(until)) = (account, until) else {
                continue;
            };
            let taken = std::mem::take(&mut account.expected_taken);
            let left = open
                .limit
                .saturating_sub(account.spent)
                .saturating_sub(account.expected)
                .saturating_sub(account.before);
            let wanted = left.max(0) as f64 * self.shape.next_second(self.now_ms, until);
            shares.insert(*key, open.pace.next(seconds, taken as f64, wanted));
        }
        for paced in &self.paced {
            let own = paced.budgets.iter().filter_map(|key| shares.get(key));
            let least = own.copied().fold(1.0, f64::min);
            let share = match paced.pacing {
                Pacing::Asap => 1.0,
                Pacing::Even => least,
                Pacing::Ahead => (least * AHEAD).min(1.0),
            };
            let share = if share >= 1.0 {
                ALWAYS
            } else {
                (share * f64::from(ALWAYS)) as u32
            };
            paced.state.share.store(share, Relaxed);
        }
    }
}

/// The end of a day, in milliseconds.
fn day_end(zone: &jiff::tz::TimeZone, at_ms: i64) -> Option<i64> {
    let at = jiff::Timestamp::from_millisecond(at_ms).ok()?;
    let tomorrow = zone.to_datetime(at).date().tomorrow().ok()?;
    let midnight = zone.to_zoned(tomorrow.at(0, 0, 0, 0)).ok()?;
    Some(midnight.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_week_is_flat_and_a_known_day_stands_for_the_others() {
        let mut shape = Shape::default();
        let (day, hour) = (24 * HOUR_MS, HOUR_MS);
        let part = |shape: &Shape, from: i64, until: i64| {
            shape.between(from, until) / shape.between(0, WEEK_MS)
        };
        assert!((part(&shape, 0, day) - 1.0 / 7.0).abs() < 1e-9);
        assert!((part(&shape, day, day + 2 * WEEK_MS) - 2.0).abs() < 1e-9);
        for of_day in 0..24 {
            shape.learn(of_day, if of_day < 12 { 100 } else { 300 });
        }
        let third = 3 * day;
        let morning = shape.between(third, third + 12 * hour);
        let evening = shape.between(third + 12 * hour, third + day);
        assert!((evening / morning - 3.0).abs() < 1e-6);
        let second = shape.next_second(third + 12 * hour, third + day);
        assert!((second * 12.0 * 3600.0 - 1.0).abs() < 1e-6, "{second}");
        assert_eq!(shape.next_second(day, day), 1.0, "the last second");
    }

    #[test]
    fn only_hours_that_were_seen_whole_are_learnt() {
        let mut shape = Shape::default();
        let minute = 60_000;
        assert_eq!(shape.count(5, 30 * minute), None);
        assert_eq!(shape.count(7, 60 * minute), None, "half of an hour");
        assert_eq!(shape.count(8, 61 * minute), None);
        assert_eq!(shape.count(1, 120 * minute), Some((1, 15)));
        assert_eq!(shape.count(1, 300 * minute + 30 * minute), Some((2, 1)));
    }

    #[test]
    fn the_share_follows_what_is_wanted() {
        let mut pace = Pace::default();
        let mut share = 1.0;
        // A thousand a second would be taken, a hundred are wanted.
        for _ in 0..300 {
            share = pace.next(1.0, 1000.0 * share, 100.0);
        }
        assert!((share - 0.1).abs() < 0.005, "{share}");
        assert_eq!(pace.next(1.0, 0.0, 0.0), 0.0);
    }
}
