//! Which requests a bid thread decides on, and which it answers 204 unread, when it is asked for more than it can do.
//!
//! **What is measured.** A bid thread serves its readable sockets in turn. A *lap* is one round: from a moment until all
//! that waited at that moment has been served. It is what a socket that became readable then waits, before a byte of it
//! is read; neither the kernel nor a clock at the first byte shows it. A probe task runs laps (`worker/probe.rs`), only
//! while there is work worth measuring. A request's wait is taken to be the last lap, or the age of the present one where
//! that is longer; its time of arrival is moved back by it.
//!
//! **What is decided.** A lap has a budget of deciding time. What comes when it is spent is *shed*: answered 204
//! without being read. A lap so lasts about the budget and the price of the 204s, whatever is asked for. With `r`
//! requests a second at `s` for a 204, laps settle where budget = lap × (1 − r·s) or so: the thread never idles, so
//! bids go on at all the rate that answering everybody leaves. There is no share to be controlled, hence nothing to tune
//! and nothing that oscillates; the reaction takes one lap.
//!
//! There are two budgets. The *burst* budget is a quarter of the tightest exchange's time, so that a burst or a stalled
//! machine sheds only what would be late. When every lap for [`SUSTAINED`] was longer than `limits.queue_target_ms`, the
//! queue is a standing one, which serves nobody (the insight of CoDel, RFC 8289, which drops where we answer): the budget is
//! the target until nothing has been shed for [`CALM`].
//!
//! **Fairness.** Exchanges that ask in a lap share its budget in equal parts of *time*; what one leaves is the others'
//! (max-min, by the demand of the lap before). One that asks for less than its part is not shed because another asks
//! for more: parts not used are credit for [`CREDIT_LAPS`] laps, what was used over a part is owed.
//!
//! **What it cannot see.** A client with few connections queues in itself: 64 connections at 15 µs a decision are a
//! lap of 1 ms, at any rate asked for. That is not shed. It costs each request 1 ms, and from here it looks exactly like a
//! closed-loop benchmark, which would be answered 204 for nothing. `kith_bid_busy_seconds_total` shows such a thread.
//! To be answered in time at `r` requests a second a client needs about `r` × lap connections.
//!
//! **Cost.** Two clock reads and some integer arithmetic a request, 50 ns; a probe for each quarter of a target of
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

/// How long every lap must have been over the target for the queue to be a standing one. A machine that stalls for some
/// milliseconds catches up within this.
const SUSTAINED: Duration = Duration::from_millis(100);
/// How long nothing must have been shed for the overload to be over.
const CALM: Duration = Duration::from_millis(100);
/// An exchange that has asked for little may use so many laps' parts at once; one that has used more than its part owes no
/// more than this.
const CREDIT_LAPS: i64 = 8;
/// A decision's cost is averaged over about this many.
const COST_WINDOW: i64 = 16;

/// A decision counts for at most so many times the usual cost. More than that is mostly a thread that was not on its core,
/// which is no reason to decide less.
const COST_TIMES_MAX: i64 = 8;

/// The state of one thread.
#[derive(Debug)]
pub(super) struct Overload {
    target_ns: i64,
    burst_ns: i64,
    shedding: bool,
    last_shed: Option<Instant>,
    /// Since when every lap has been over the target.
    standing: Option<Instant>,
    /// When the present lap began; nothing while there is too little work to measure.
    began: Option<Instant>,
    last_lap: Duration,
    longest_lap: Duration,
    laps: u64,
    /// What was used before this lap is forgiven.
    settled_lap: u64,
    /// Deciding time in this lap.
    spent_ns: i64,
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
    /// Deciding time used in this lap, with what is owed; below zero with credit.
    spent_ns: i64,
    cost_ns: i64,
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
        let target_ns = nanos(target).max(1);
        let burst_ns = tightest.map_or(0, nanos).saturating_div(4).max(target_ns);
        Self {
            target_ns,
            burst_ns,
            shedding: false,
            last_shed: None,
            standing: None,
            began: None,
            last_lap: Duration::ZERO,
            longest_lap: Duration::ZERO,
            laps: 1,
            settled_lap: 1,
            spent_ns: 0,
            level_ns: burst_ns,
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

    /// Whether a standing queue is being shed.
    pub(super) fn is_shedding(&mut self, now: Instant) -> bool {
        let calm = |at| now.saturating_duration_since(at) >= CALM;
        if self.shedding && self.last_shed.is_none_or(calm) {
            self.shedding = false;
            self.standing = None;
            self.level_ns = self.burst_ns;
        }
        self.shedding
    }

    /// The longest lap since this was last asked.
    pub(super) fn take_longest_lap(&mut self, now: Instant) -> Duration {
        let longest = self.longest_lap.max(self.waited(now));
        self.longest_lap = Duration::ZERO;
        longest
    }

    /// Whether a request of this exchange, which arrived then, is decided on; else it is shed.
    pub(super) fn admits(&mut self, exchange: usize, arrived: Instant, now: Instant) -> bool {
        let shedding = self.is_shedding(now);
        let budget = self.budget_ns();
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
            let earned = level.max(part).saturating_mul(missed);
            let credit_max = self
                .target_ns
                .saturating_mul(CREDIT_LAPS)
                .checked_div(sharers)
                .unwrap_or(0);
            let debt_max = if lane.lap < self.settled_lap {
                0
            } else {
                credit_max
            };
            lane.spent_ns = lane
                .spent_ns
                .saturating_sub(earned)
                .clamp(credit_max.saturating_neg(), debt_max);
            lane.lap = laps;
            lane.asked = 0;
        }
        lane.asked = lane.asked.saturating_add(1);
        let within_its_part = lane.spent_ns < part && spent < self.burst_ns.saturating_mul(2);
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
        let mut took = nanos(took);
        if let Some(lane) = self.lanes.get_mut(exchange) {
            if lane.cost_ns > 0 {
                took = took.min(lane.cost_ns.saturating_mul(COST_TIMES_MAX));
            }
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
        if nanos(lap) <= self.target_ns {
            self.standing = None;
        } else {
            let since = *self.standing.get_or_insert(began);
            if !self.shedding && now.saturating_duration_since(since) >= SUSTAINED {
                self.shedding = true;
                self.last_shed = Some(now);
                // What was used within the larger budget is not owed to the smaller.
                self.settled_lap = self.laps.saturating_add(1);
            }
        }
        self.level_ns = self.water_level_ns();
        self.asked_before = self.asking.len();
        self.asking.clear();
        self.spent_ns = 0;
        self.laps = self.laps.saturating_add(1);
        let goes_on = nanos(lap) >= self.quantum_ns();
        if goes_on {
            self.last_lap = lap;
            self.began = Some(now);
        } else {
            self.last_lap = Duration::ZERO;
            self.began = None;
            self.standing = None;
            // An idle thread is owed nothing.
            self.settled_lap = self.laps;
        }
        goes_on
    }

    fn budget_ns(&self) -> i64 {
        if self.shedding {
            self.target_ns
        } else {
            self.burst_ns
        }
    }

    /// Less work than this is not worth a probe.
    fn quantum_ns(&self) -> i64 {
        self.target_ns.saturating_div(4).max(1)
    }

    /// The level at which the budget would have sufficed for this lap's demands, each cut off at it (max-min).
    fn water_level_ns(&mut self) -> i64 {
        let lanes = &self.lanes;
        let demand = |exchange: &usize| {
            let lane = lanes.get(*exchange);
            lane.map_or(0, |lane| lane.asked.saturating_mul(lane.cost_ns))
        };
        self.asking.sort_unstable_by_key(demand);
        let mut left = self.budget_ns();
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
        self.budget_ns()
    }
}
