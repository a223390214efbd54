//! What is counted, and how it adds up over threads, URLs and stages.
//!
//! Every request that became due ends in exactly one place: bid, no-bid, one kind of error, or unsent. All of them are
//! in the latency histogram, the failed and unsent ones with the time until they were given up, so that no slow
//! request can leave the percentiles by failing. Latency counts from the due time.
//!
//! Histograms count nanoseconds in HDR form with three digits; the resolution is half a microsecond.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::schedule::Nanos;

/// Longest time that is told apart; longer ones count as this.
const NANOS_MAX: u64 = 120_000_000_000;
/// Sent this much later than possible, a request is late by the generator's fault.
pub(crate) const LATE: Nanos = 1_000_000;

/// Why a request has no answer that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A connection could not be made. It counts attempts, which belong to no request.
    Connect,
    /// The server closed the connection after the request was sent and before it was answered.
    Closed,
    /// No whole answer within the time-out.
    Timeout,
    /// A 4xx.
    Status4xx,
    /// A 5xx.
    Status5xx,
    /// Any status but 200, 204, 4xx, 5xx.
    StatusOther,
    /// Not HTTP, no length, or a 200 whose body is no JSON object.
    Malformed,
    /// An answer in chunks, which no exchange has to take.
    Chunked,
}

impl ErrorKind {
    /// All of them, in the order of reports.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Connect, "connect"),
        (Self::Closed, "closed"),
        (Self::Timeout, "timeout"),
        (Self::Status4xx, "status_4xx"),
        (Self::Status5xx, "status_5xx"),
        (Self::StatusOther, "status_other"),
        (Self::Malformed, "malformed"),
        (Self::Chunked, "chunked"),
    ];
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 200 with a bid.
    Bid,
    /// 204, or 200 without a bid in it.
    NoBid,
    /// Sent, but no answer that counts.
    Failed(ErrorKind),
    /// It waited for a connection longer than the bound.
    Unsent,
}

/// A histogram of nanoseconds.
#[derive(Clone)]
pub struct Times(Histogram<u64>);

impl std::fmt::Debug for Times {
    /// Its thousands of buckets tell a reader nothing.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} times, {:?}", self.count(), self.latency())
    }
}

impl Default for Times {
    fn default() -> Self {
        // These bounds are within what the library takes; without a histogram there is nothing to report.
        Self(Histogram::new_with_bounds(1_000, NANOS_MAX, 3).expect("constant bounds"))
    }
}

impl Times {
    pub(crate) fn record(&mut self, nanos: Nanos) {
        self.0.saturating_record(nanos);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // Same bounds, so it cannot fail.
        let _ = self.0.add(&other.0);
    }

    /// How many were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time within which this part (0 to 1) ended, in microseconds with one digit; 0 of none.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        us(self.0.value_at_quantile(quantile))
    }

    /// The longest, in microseconds.
    #[must_use]
    pub fn max_us(&self) -> f64 {
        us(self.0.max())
    }

    /// The histogram itself.
    #[must_use]
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    pub(crate) fn latency(&self) -> LatencyUs {
        LatencyUs {
            p50: self.quantile_us(0.5),
            p90: self.quantile_us(0.9),
            p99: self.quantile_us(0.99),
            p99_9: self.quantile_us(0.999),
            p99_99: self.quantile_us(0.9999),
            max: self.max_us(),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "minutes in tenths of microseconds"
)]
fn us(nanos: u64) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct LatencyUs {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub max: f64,
}

/// The counts of one URL in one stage, or of several added up.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests written.
    pub sent: u64,
    /// Answered with a bid.
    pub bids: u64,
    /// Answered without.
    pub no_bids: u64,
    /// By kind, in the order of [`ErrorKind::ALL`].
    pub errors: [u64; ErrorKind::ALL.len()],
    /// Never sent: they waited for a connection longer than the bound.
    pub unsent: u64,
    /// Answered with bid or no-bid within the deadline.
    pub in_time: u64,
    /// Connections that the server closed, with or after an answer or while idle.
    pub closed_by_server: u64,
    /// From due to answered or given up.
    pub latency: Times,
    /// From written to answered or given up, of those sent: the server's part.
    pub service: Times,
    /// Those that waited for a free connection: how long.
    pub waited: Times,
    /// Sent later than they could have been: by how much, for each request.
    pub lag: Times,
    /// Of these, by more than a millisecond.
    pub late: u64,
    /// When the last one was written.
    pub last_sent: Nanos,
}

impl Tally {
    pub(crate) fn count_error(&mut self, kind: ErrorKind) {
        if let Some(count) = self.errors.get_mut(kind as usize) {
            *count += 1;
        }
    }

    /// Counts the end of a request that was due `nanos` before.
    pub(crate) fn count(&mut self, outcome: Outcome, nanos: Nanos, deadline: Nanos) {
        self.latency.record(nanos);
        match outcome {
            Outcome::Bid => self.bids += 1,
            Outcome::NoBid => self.no_bids += 1,
            Outcome::Failed(kind) => self.count_error(kind),
            Outcome::Unsent => self.unsent += 1,
        }
        let answered = matches!(outcome, Outcome::Bid | Outcome::NoBid);
        self.in_time += u64::from(answered && nanos <= deadline);
    }

    /// All errors.
    #[must_use]
    pub fn errors_total(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Requests that became due and ended, one way or another.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.latency.count()
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.bids += other.bids;
        self.no_bids += other.no_bids;
        for (count, more) in self.errors.iter_mut().zip(other.errors) {
            *count += more;
        }
        self.unsent += other.unsent;
        self.in_time += other.in_time;
        self.closed_by_server += other.closed_by_server;
        self.latency.add(&other.latency);
        self.service.add(&other.service);
        self.waited.add(&other.waited);
        self.lag.add(&other.lag);
        self.late += other.late;
        self.last_sent = self.last_sent.max(other.last_sent);
    }
}

/// How busy the generator's threads were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effort {
    /// CPU time.
    pub cpu: Nanos,
    /// Time not spent asleep, whether or not a processor was given.
    pub busy: Nanos,
    /// Time in all.
    pub wall: Nanos,
    /// The longest time between two looks at the connections: no answer was read later than this after it came.
    pub turn_max: Nanos,
}

impl Effort {
    pub(crate) fn add(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.busy += other.busy;
        self.wall += other.wall;
        self.turn_max = self.turn_max.max(other.turn_max);
    }
}
