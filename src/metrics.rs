//! What the bid path counts: per thread, merged when somebody scrapes.
//!
//! Each bid thread owns one [`BidCounters`] and is its only writer, so that counting is a load, an add and a store, without
//! a locked instruction and without sharing a cache line. [`BidMetrics`] adds the threads up at scrape time.
//! Labels come from the configuration and from closed enums; every series that a configuration implies is there from
//! the start, at 0. Datasets count by their *ordinal*, a small integer that outlives versions; their series appear
//! when the dataset does.
//!
//! Cost: about 1 ns a count; 30 KiB a thread and exchange.

mod asked;
mod cpu;
mod money;
mod people;
mod render;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::Exchanges;
use crate::decision::{LookupCounts, NoBid};
use crate::http::bid::{Load, Refused};
use crate::openrtb::{FieldName, FieldSet};
use crate::privacy::{Closed, Gate};

pub use asked::{Ask, Asked, AskedCounts};
pub use money::MoneyMetrics;
pub use people::register as register_people;
pub use render::BidMetrics;

use cpu::OsThread;

/// Upper bounds of `kith_bid_duration_seconds`, in microseconds: fine from 50 µs to 100 ms.
pub const DURATION_BUCKETS_US: [u64; 22] = [
    25, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500,
    10_000, 20_000, 30_000, 50_000, 75_000, 100_000,
];

/// How a bid request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 200 with a bid.
    Bid,
    /// 204, or 200 with `nbr`.
    NoBid,
    /// 400: no bid request.
    Malformed,
    /// Ended before it could be read: an HTTP error, or a time-out.
    Refused(Refused),
}

impl Outcome {
    const COUNT: usize = 3 + Refused::ALL.len();

    /// Every outcome, at its index.
    fn every() -> impl Iterator<Item = Self> {
        [Self::Bid, Self::NoBid, Self::Malformed]
            .into_iter()
            .chain(Refused::ALL.iter().copied().map(Self::Refused))
    }

    fn index(self) -> usize {
        match self {
            Self::Bid => 0,
            Self::NoBid => 1,
            Self::Malformed => 2,
            Self::Refused(why) => 3 + why as usize,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Bid => "bid",
            Self::NoBid => "no_bid",
            Self::Malformed => "malformed",
            Self::Refused(why) => why.as_str(),
        }
    }
}

/// A count that one thread adds to and others read.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    /// Adds; only the owning thread may.
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug)]
struct ExchangeCounts {
    outcomes: [Count; Outcome::COUNT],
    no_bids: [Count; NoBid::COUNT],
    bids: Count,
    /// Open first, then the closed verdicts.
    privacy: [Count; Closed::ALL.len() + 1],
    shed: Count,
    /// One a bucket, and one for what is slower than all.
    durations: [Count; DURATION_BUCKETS_US.len() + 1],
    duration_sum_us: Count,
}

impl Default for ExchangeCounts {
    fn default() -> Self {
        Self {
            outcomes: std::array::from_fn(|_| Count::default()),
            no_bids: std::array::from_fn(|_| Count::default()),
            bids: Count::default(),
            privacy: Default::default(),
            shed: Count::default(),
            durations: Default::default(),
            duration_sum_us: Count::default(),
        }
    }
}

#[derive(Debug, Default)]
struct LookupTotals {
    found: Count,
    absent: Count,
    damaged: Count,
}

/// One bid thread's counts.
#[derive(Debug)]
pub struct BidCounters {
    thread: OsThread,
    /// By the exchange's index, and at the end those of callers that named none of ours.
    exchanges: Box<[ExchangeCounts]>,
    unreadable: Box<[Count]>,
    /// By the dataset's ordinal.
    lookups: Box<[LookupTotals]>,
    in_flight: Count,
    queue_delay_us: Count,
    shedding: Count,
    busy_us: Count,
}

impl BidCounters {
    fn new(exchanges: usize, datasets_max: usize) -> Self {
        Self {
            thread: OsThread::this(),
            exchanges: (0..=exchanges).map(|_| ExchangeCounts::default()).collect(),
            unreadable: FieldName::ALL.iter().map(|_| Count::default()).collect(),
            lookups: (0..datasets_max).map(|_| LookupTotals::default()).collect(),
            in_flight: Count::default(),
            queue_delay_us: Count::default(),
            shedding: Count::default(),
            busy_us: Count::default(),
        }
    }

    fn exchange(&self, exchange: Option<usize>) -> Option<&ExchangeCounts> {
        exchange
            .and_then(|index| self.exchanges.get(index))
            .or_else(|| self.exchanges.last())
    }

    /// A request ended before it could be read. How long that took says nothing of us, so it is not observed.
    pub fn refused(&self, exchange: Option<usize>, why: Refused) {
        self.ended(exchange, Outcome::Refused(why));
    }

    fn ended(&self, exchange: Option<usize>, outcome: Outcome) {
        let counts = self.exchange(exchange);
        if let Some(count) = counts.and_then(|counts| counts.outcomes.get(outcome.index())) {
            count.add(1);
        }
    }

    /// A request is answered, so long after it arrived.
    pub fn finished(&self, exchange: usize, outcome: Outcome, took: Duration) {
        self.ended(Some(exchange), outcome);
        let Some(counts) = self.exchange(Some(exchange)) else {
            return;
        };
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BUCKETS_US.partition_point(|bound| *bound < us);
        if let Some(count) = counts.durations.get(bucket) {
            count.add(1);
        }
        counts.duration_sum_us.add(us);
    }

    /// The gate was asked.
    pub fn gate(&self, exchange: usize, gate: Gate) {
        let place = match gate {
            Ok(leave) => usize::from(leave.is_limited()),
            Err(closed) => 2 + closed as usize,
        };
        if let Some(count) = self
            .exchange(Some(exchange))
            .and_then(|counts| counts.privacy.get(place))
        {
            count.add(1);
        }
    }

    /// So many bids were made.
    pub fn bids(&self, exchange: usize, bids: usize) {
        if let Some(counts) = self.exchange(Some(exchange)) {
            counts.bids.add(bids as u64);
        }
    }

    /// There was no bid.
    pub fn no_bid(&self, exchange: usize, reason: NoBid) {
        let Some(counts) = self.exchange(Some(exchange)) else {
            return;
        };
        if let Some(count) = counts.no_bids.get(reason.index()) {
            count.add(1);
        }
        if reason == NoBid::Shed {
            counts.shed.add(1);
        }
    }

    /// Fields that could not be read.
    pub fn unreadable(&self, fields: FieldSet) {
        if fields.is_empty() {
            return;
        }
        for field in fields.iter() {
            if let Some(count) = self.unreadable.get(field as usize) {
                count.add(1);
            }
        }
    }

    /// Lookups in the dataset of that ordinal.
    pub fn lookups(&self, ordinal: usize, counts: LookupCounts) {
        let Some(totals) = self.lookups.get(ordinal) else {
            return;
        };
        totals.found.add(u64::from(counts.found));
        totals.absent.add(u64::from(counts.absent));
        totals.damaged.add(u64::from(counts.damaged));
    }

    /// How busy the thread is now, and was since this was last told.
    pub fn set_load(&self, load: Load) {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.in_flight.0.store(load.in_flight as u64, Relaxed);
        self.queue_delay_us.0.store(us(load.queue_delay), Relaxed);
        self.shedding.0.store(u64::from(load.shedding), Relaxed);
        self.busy_us.add(us(load.busy));
    }
}

/// The counters of all bid threads.
#[derive(Debug)]
pub struct BidThreads {
    exchanges: Arc<Exchanges>,
    datasets_max: usize,
    threads: Mutex<Vec<Arc<BidCounters>>>,
}

impl BidThreads {
    /// No thread yet.
    pub fn new(exchanges: Arc<Exchanges>, datasets_max: usize) -> Self {
        Self {
            exchanges,
            datasets_max,
            threads: Mutex::default(),
        }
    }

    /// Counters for the thread that calls.
    pub fn enlist(&self) -> Arc<BidCounters> {
        let counters = Arc::new(BidCounters::new(self.exchanges.len(), self.datasets_max));
        self.threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&counters));
        counters
    }

    fn all(&self) -> Vec<Arc<BidCounters>> {
        self.threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
