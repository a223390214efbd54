//! What a run is bounded by, and what is seen of it: every request that ends ([`Watch`]), and how it goes ([`Live`]).
//!
//! A watch runs on the thread that sends, between two requests, so that it needs no lock; what it takes, the generator
//! does not have, and the lag tells. Live counts are for people: stored a hundred times a second, not for each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use crate::tally::Outcome;

/// The bounds of a run.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// An answer within this of its due time is in time.
    pub deadline: Duration,
    /// A request that waits longer for a connection is unsent.
    pub wait: Duration,
    /// A sent request that is not answered within this has failed.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(100),
            wait: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        }
    }
}

/// A request that has ended, as it is shown to a [`Watch`].
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// Which URL of the plan.
    pub target: usize,
    /// Which stage of the plan.
    pub stage: usize,
    /// Its number among the URL's requests; the line of the requests' file is this modulo their count.
    pub number: u64,
    /// When the run began.
    pub start: Instant,
    /// When it was due.
    pub due: Instant,
    /// When it was written; none when it never was.
    pub sent: Option<Instant>,
    /// When it was answered or given up.
    pub ended: Instant,
    /// How it ended.
    pub outcome: Outcome,
    /// The answer's status, where there is one.
    pub status: Option<u16>,
    /// The answer's body; empty where there is none.
    pub body: &'a [u8],
}

impl Ended<'_> {
    /// From due to ended: the latency that is reported.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.ended.saturating_duration_since(self.due)
    }
}

/// Looks at every request that ends, on the thread that sent it; what it takes the generator does not have.
pub trait Watch {
    /// A request has ended.
    fn ended(&mut self, ended: &Ended<'_>);
}

impl Watch for () {
    fn ended(&mut self, _: &Ended<'_>) {}
}

impl<F: FnMut(&Ended<'_>)> Watch for F {
    fn ended(&mut self, ended: &Ended<'_>) {
        self(ended);
    }
}

impl<A: Watch, B: Watch> Watch for (A, B) {
    fn ended(&mut self, ended: &Ended<'_>) {
        self.0.ended(ended);
        self.1.ended(ended);
    }
}

impl<W: Watch> Watch for Option<W> {
    fn ended(&mut self, ended: &Ended<'_>) {
        if let Some(watch) = self {
            watch.ended(ended);
        }
    }
}

/// What others see of a run while it goes on. Stored once a sweep.
#[derive(Debug, Default)]
pub struct Live {
    /// Requests written.
    pub sent: AtomicU64,
    /// Answered in time.
    pub in_time: AtomicU64,
    /// Ended, in any way.
    pub ended: AtomicU64,
    /// Errors.
    pub errors: AtomicU64,
    /// Set by others to end the run before its time: nothing more becomes due, what is due still ends.
    pub stop: Arc<AtomicBool>,
}

impl Live {
    /// A run that this ends, and others with it.
    #[must_use]
    pub fn until(stop: &Arc<AtomicBool>) -> Self {
        Self {
            stop: Arc::clone(stop),
            ..Self::default()
        }
    }
}
