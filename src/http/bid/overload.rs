//! Which requests a bid thread decides on, and which it answers 204 unread, when it is asked for more than it can do.
//!
//! **What is measured.** A bid thread serves its readable sockets in turn. A *lap* is one round: from a moment until all
//! that waited at that moment has been served. It is what a socket that became readable then waits, before a byte of it
//! is read; neither the kernel nor a clock at the first byte shows it. A probe task runs laps (`worker/probe.rs`), only
//! while there is work worth measuring. A request's wait is taken to be the last lap, or the age of the present one where
//! that is longer; its time of arrival is moved back by it.
//!
//! **What is decided.** A lap has a budget of deciding time. What comes when it is spent is *shed*: answered 204 without
//! being read, which has its price too. The budget is what keeps the next lap at its length when that price is paid for as
//! many requests as are to be expected: those of this lap, times how much longer or shorter this lap was than the one
//! before, for that is how long they had to come in. So the thread never idles, and the time that answering everybody
//! leaves goes into bids. It reacts within a few laps, in both directions; there is no share to be tuned.
//!
//! **How long a lap.** At most `limits.queue_target_ms`, and a third of what the tightest exchange allows: a burst or a
//! machine that stalls for less costs nobody a bid. Where K times as much is asked for as the thread can decide on, a lap
//! is a Kth of that: it then holds as many requests as a full one decides on, so that a client needs no more connections
//! than without overload. A longer lap would decide more, but what waits at the client for a free connection is late unseen
//! (`docs/performance.md`). Clients of many connections that each wait for an answer look the same from here, and get fewer
//! bids than they could: in doubt it answers sooner. Where the 204s alone take nearly all the time, a lap is longer than
//! that, for the least part still goes into decisions.
//!
//! **Fairness.** Exchanges that ask in a lap share its budget in equal parts of *time*; what one leaves is the others'
//! (max-min, by the demand of the lap before). One that asks for less than its part is not shed because another asks
//! for more: what it left of its parts is credit, up to a part of a full lap, and it is served from that also where the
//! lap's budget is spent. A decision that was longer than what there was is owed in the laps that follow.
//!
//! **What it cannot see.** A client with few connections queues in itself: with 64 of them a lap is 64 requests at most,
//! at any rate asked for. That is not shed. From here it looks exactly like a closed-loop benchmark, which would be
//! answered 204 for nothing. `kith_bid_busy_seconds_total` shows such a thread. To be answered in time at `r` requests a
//! second a client needs more than `r` × lap connections.
//!
//! **Cost.** A clock read a decision and some integer arithmetic a request; a probe for each [`QUANTUM_PART`]th of a target of
//! deciding; 56 bytes an exchange and thread. Pure: time is handed in.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::{Duration, Instant};

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests;

/// How long nothing must have been shed for the overload to be over.
const CALM: Duration = Duration::from_millis(100);
/// A decision's cost is averaged over about this many.
const COST_WINDOW: i64 = 16;
/// The price of answering a request without deciding is the least of so many laps: a stall makes one lap dear, not the
/// next.
const PRICE_LAPS: usize = 3;
/// Even where nothing can answer all that come, this part of the target goes into decisions.
const BUDGET_PART_MIN: i64 = 32;

/// Less work than this part of the target is not measured.
const QUANTUM_PART: i64 = 24;

/// The state of one thread.
#[derive(Debug)]
pub(super) struct Overload {
    target_ns: i64,
    /// Deciding time of the present lap.
    budget_ns: i64,
    last_shed: Option<Instant>,
    /// When the present lap began; nothing while there is too little work to measure.
    began: Option<Instant>,
    last_lap: Duration,
    longest_lap: Duration,
    laps: u64,
    /// What was used before this lap is forgiven.
    settled_lap: u64,
    /// Deciding time used in this lap.
    spent_ns: i64,
    /// Requests in this lap.
    requests: i64,
    /// What a request cost in each of the last laps, deciding left out.
    prices_ns: [i64; PRICE_LAPS],
    /// The most that one exchange may use in a lap: what others leave is in it.
    level_ns: i64,
    lanes: Box<[Lane]>,
    /// The exchanges that asked in this lap, and how many did in the last.
    asking: Vec<usize>,
    asked_before: usize,
}

/// One exchange.
#[derive(Debug, Default)]
struct Lane {
    allowed: Duration,
    /// The lap that `asked` and `spent_ns` are of.
    lap: u64,
    asked: i64,
    /// Deciding time used in this lap, with what is owed.
    spent_ns: i64,
    /// What it left of its parts of the laps before.
    credit_ns: i64,
    /// Its part of that lap, and what it might use then: of its part and credit, and of what others leave.
    part_ns: i64,
    may_ns: i64,
    cost_ns: i64,
}

impl Lane {
    /// What deciding on all that it asked in its lap would have taken.
    fn demand_ns(&self) -> i64 {
        self.asked.saturating_mul(self.cost_ns)
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Overload {
    /// `allowed`: the time that each exchange gives for an answer, by its index.
    pub(super) fn new(target: Duration, allowed: impl Iterator<Item = Duration>) -> Self {
        let lanes: Box<[Lane]> = allowed
            .map(|allowed| Lane {
                allowed,
                ..Lane::default()
            })
            .collect();
        let tightest = lanes.iter().map(|lane| lane.allowed).min();
        let target_ns = tightest.map_or(0, nanos).saturating_div(3);
        let target_ns = nanos(target).min(target_ns).max(1);
        Self {
            target_ns,
            budget_ns: target_ns,
            last_shed: None,
            began: None,
            last_lap: Duration::ZERO,
            longest_lap: Duration::ZERO,
            laps: 1,
            settled_lap: 1,
            spent_ns: 0,
            requests: 0,
            prices_ns: [0; PRICE_LAPS],
            level_ns: target_ns,
            asking: Vec::with_capacity(lanes.len()),
            asked_before: 0,
            lanes,
        }
    }

    /// How long what is read now has waited to be read.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        let age = self.began.map(|began| now.saturating_duration_since(began));
        age.map_or(Duration::ZERO, |age| age.max(self.last_lap))
    }

    /// Whether anything was shed of late.
    pub(super) fn is_shedding(&self, now: Instant) -> bool {
        let late = |at| now.saturating_duration_since(at) < CALM;
        self.last_shed.is_some_and(late)
    }

    /// The longest lap since this was last asked.
    pub(super) fn take_longest_lap(&mut self, now: Instant) -> Duration {
        let longest = self.longest_lap.max(self.waited(now));
        self.longest_lap = Duration::ZERO;
        longest
    }

    /// Whether a request of this exchange, which arrived then, is decided on; else it is shed.
    pub(super) fn admits(&mut self, exchange: usize, arrived: Instant, now: Instant) -> bool {
        self.requests = self.requests.saturating_add(1);
        let shedding = self.is_shedding(now);
        let budget = self.budget_ns;
        let (laps, level, spent) = (self.laps, self.level_ns.min(budget), self.spent_ns);
        let Some(lane) = self.lanes.get_mut(exchange) else {
            return true;
        };
        if lane.lap != laps {
            self.asking.push(exchange);
        }
        let sharers = self.asking.len().max(self.asked_before).max(1);
        let sharers = i64::try_from(sharers).unwrap_or(i64::MAX);
        let part = budget.checked_div(sharers).unwrap_or(budget);
        if lane.lap != laps {
            let missed = i64::try_from(laps.saturating_sub(lane.lap)).unwrap_or(i64::MAX);
            // Of credit, and of what is owed.
            let most = self.target_ns.checked_div(sharers).unwrap_or(0);
            let unused = lane.part_ns.saturating_sub(lane.spent_ns);
            lane.credit_ns = lane
                .credit_ns
                .saturating_add(unused)
                .saturating_add(part.saturating_mul(missed.saturating_sub(1)))
                .clamp(0, most);
            let over = lane.spent_ns.saturating_sub(lane.may_ns);
            lane.spent_ns = if lane.lap < self.settled_lap {
                0
            } else {
                over.clamp(0, most)
            };
            lane.part_ns = part;
            lane.may_ns = level.max(part).max(lane.credit_ns);
            lane.lap = laps;
            lane.asked = 0;
        }
        lane.asked = lane.asked.saturating_add(1);
        let within_its_part = lane.spent_ns < lane.part_ns.max(lane.credit_ns)
            && spent < budget.saturating_add(self.target_ns);
        let within_the_rest = lane.spent_ns < level && spent < budget;
        let overdue = shedding && now.saturating_duration_since(arrived) >= lane.allowed;
        let admitted = (within_its_part || within_the_rest) && !overdue;
        if !admitted {
            self.last_shed = Some(now);
        }
        admitted
    }

    /// A decision took so long. Whether a lap is to be begun.
    pub(super) fn decided(&mut self, exchange: usize, took: Duration) -> bool {
        let took = nanos(took);
        if let Some(lane) = self.lanes.get_mut(exchange) {
            lane.spent_ns = lane.spent_ns.saturating_add(took);
            let step = took
                .saturating_sub(lane.cost_ns)
                .saturating_div(COST_WINDOW);
            lane.cost_ns = match lane.cost_ns {
                0 => took,
                known => known.saturating_add(step),
            };
        }
        self.spent_ns = self.spent_ns.saturating_add(took);
        self.began.is_none() && self.spent_ns >= self.quantum_ns()
    }

    /// All that waited before now will have been served when the lap [ends](Self::lap_ended).
    pub(super) fn lap_begins(&mut self, now: Instant) {
        self.began = Some(now);
    }

    /// The lap is over. Whether the next begins with this, for there is work worth measuring.
    pub(super) fn lap_ended(&mut self, now: Instant) -> bool {
        let Some(began) = self.began else {
            return false;
        };
        let lap = now.saturating_duration_since(began);
        self.longest_lap = self.longest_lap.max(lap);
        self.budget_ns = self.next_budget_ns(nanos(lap));
        self.level_ns = self.water_level_ns();
        self.asked_before = self.asking.len();
        self.asking.clear();
        self.spent_ns = 0;
        self.requests = 0;
        self.laps = self.laps.saturating_add(1);
        let goes_on = nanos(lap) >= self.quantum_ns();
        if goes_on {
            self.last_lap = lap;
            self.began = Some(now);
        } else {
            self.last_lap = Duration::ZERO;
            self.began = None;
            self.budget_ns = self.target_ns;
            self.level_ns = self.target_ns;
            // An idle thread is owed nothing.
            self.settled_lap = self.laps;
        }
        goes_on
    }

    /// What may be decided in the next lap, for it to be as long as the target.
    fn next_budget_ns(&mut self, lap_ns: i64) -> i64 {
        let others = lap_ns.saturating_sub(self.spent_ns).max(0);
        if let (Some(price), Some(place)) = (
            others.checked_div(self.requests),
            usize::try_from(self.laps).ok(),
        ) && let Some(slot) = self.prices_ns.get_mut(place.wrapping_rem(PRICE_LAPS))
        {
            *slot = price;
        }
        let price = self
            .prices_ns
            .iter()
            .copied()
            .filter(|price| *price > 0)
            .min();
        let before = match nanos(self.last_lap) {
            0 => lap_ns,
            before => before,
        };
        // No more than twice as many at once: the first laps of an overload grow many times, and not for long.
        let lap_ns = lap_ns.clamp(before.saturating_div(2), before.saturating_mul(2));
        let expected = i128::from(self.requests)
            .saturating_mul(i128::from(lap_ns))
            .checked_div(i128::from(before));
        let expected = expected.and_then(|n| i64::try_from(n).ok()).unwrap_or(0);
        let price = price.unwrap_or(0);
        let answering = expected.saturating_mul(price);
        let demand = self
            .demand_ns()
            .saturating_add(self.requests.saturating_mul(price));
        let least = self.target_ns.saturating_div(BUDGET_PART_MIN);
        self.length_ns(demand, before)
            .saturating_sub(answering)
            .max(least)
    }

    /// How long a lap may be where `demand` nanoseconds of work come within `lap`: as many requests as the thread could
    /// decide on in a lap of the target.
    fn length_ns(&self, demand_ns: i64, lap_ns: i64) -> i64 {
        let length = i128::from(self.target_ns)
            .saturating_mul(i128::from(lap_ns))
            .checked_div(i128::from(demand_ns));
        let length = length.and_then(|ns| i64::try_from(ns).ok());
        length.unwrap_or(i64::MAX).min(self.target_ns)
    }

    /// What deciding on all requests of this lap would have taken.
    fn demand_ns(&self) -> i64 {
        let of = |exchange: &usize| self.lanes.get(*exchange).map_or(0, Lane::demand_ns);
        self.asking.iter().map(of).fold(0, i64::saturating_add)
    }

    /// Less work than this is not worth a probe.
    fn quantum_ns(&self) -> i64 {
        self.target_ns.saturating_div(QUANTUM_PART).max(1)
    }

    /// The level at which the budget would have sufficed for this lap's demands, each cut off at it (max-min).
    fn water_level_ns(&mut self) -> i64 {
        let lanes = &self.lanes;
        let demand = |exchange: &usize| lanes.get(*exchange).map_or(0, Lane::demand_ns);
        self.asking.sort_unstable_by_key(demand);
        let mut left = self.budget_ns;
        let mut sharers = i64::try_from(self.asking.len()).unwrap_or(i64::MAX);
        for exchange in &self.asking {
            let part = left.checked_div(sharers).unwrap_or(left);
            let wanted = demand(exchange);
            if wanted > part {
                return part;
            }
            left = left.saturating_sub(wanted);
            sharers = sharers.saturating_sub(1);
        }
        self.budget_ns
    }
}
