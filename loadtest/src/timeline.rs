//! A run second by second: what a ramp is read by, and what the histogram file holds.
//!
//! The file is an HDR interval log (V2, compressed, base64), one histogram an interval, in nanoseconds, as
//! HistogramLogProcessor and the HDR plotters read it. Intervals go by due time.
//! Memory: about 150 KB an interval and thread; a long run has longer intervals, at most [`INTERVALS_MAX`] of them.

use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError};
use serde::Serialize;

use crate::report::count;
use crate::run::Plan;
use crate::schedule::nanos;
use crate::tally::{Outcome, Times};
use crate::watch::{Ended, Watch};

/// Intervals of a run.
const INTERVALS_MAX: u64 = 120;

/// Watches a run by intervals.
#[derive(Debug)]
pub struct Timeline {
    interval: Duration,
    deadline: Duration,
    intervals: Vec<Interval>,
}

#[derive(Clone, Debug, Default)]
struct Interval {
    sent: u64,
    in_time: u64,
    latency: Times,
}

/// What happened to the requests that were due in an interval.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Row {
    pub from_seconds: f64,
    pub due_rate: f64,
    pub sent: u64,
    pub in_time: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

impl Timeline {
    /// For a run of this plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let lasts = plan.lasts();
        let seconds = lasts.as_secs().div_ceil(INTERVALS_MAX).max(1);
        let intervals = nanos(lasts).div_ceil(seconds * 1_000_000_000).max(1);
        Self {
            interval: Duration::from_secs(seconds),
            deadline: plan.limits.deadline,
            intervals: vec![Interval::default(); usize::try_from(intervals).unwrap_or(1)],
        }
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.intervals.iter_mut().zip(&other.intervals) {
            sum.sent += more.sent;
            sum.in_time += more.in_time;
            sum.latency.add(&more.latency);
        }
    }

    /// One row an interval.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let seconds = self.interval.as_secs_f64();
        (0..)
            .zip(&self.intervals)
            .map(|(at, interval)| Row {
                from_seconds: count(at) * seconds,
                due_rate: count(interval.latency.count()) / seconds,
                sent: interval.sent,
                in_time: interval.in_time,
                p50_us: interval.latency.quantile_us(0.5),
                p99_us: interval.latency.quantile_us(0.99),
                max_us: interval.latency.max_us(),
            })
            .collect()
    }

    /// Writes the interval log.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_log(&self, mut out: impl io::Write, began: SystemTime) -> io::Result<()> {
        let failed = |error: IntervalLogWriterError<_>| match error {
            IntervalLogWriterError::IoError(error) => error,
            other => io::Error::other(format!("{other:?}")),
        };
        let mut serializer = V2DeflateSerializer::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder
            .add_comment("latency from due to answered or given up, in nanoseconds, by due time")
            .with_start_time(began)
            .with_base_time(began)
            .with_max_value_divisor(1_000_000.0);
        let mut log = builder.begin_log_with(&mut out, &mut serializer)?;
        for (at, interval) in (0..).zip(&self.intervals) {
            let histogram: &Histogram<u64> = interval.latency.histogram();
            log.write_histogram(histogram, self.interval * at, self.interval, None)
                .map_err(failed)?;
        }
        out.flush()
    }
}

impl Watch for Timeline {
    fn ended(&mut self, ended: &Ended<'_>) {
        let since = ended.due.saturating_duration_since(ended.start);
        let at = nanos(since) / nanos(self.interval).max(1);
        let Some(interval) = usize::try_from(at)
            .ok()
            .and_then(|at| self.intervals.get_mut(at))
        else {
            return;
        };
        let latency = ended.latency();
        let answered = matches!(ended.outcome, Outcome::Bid | Outcome::NoBid);
        interval.sent += u64::from(ended.sent.is_some());
        interval.in_time += u64::from(answered && latency <= self.deadline);
        interval.latency.record(nanos(latency));
    }
}

/// Rows for a person.
#[must_use]
pub fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "{:>8} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
        "second", "due/s", "sent", "in time", "p50 µs", "p99 µs", "max µs"
    );
    for row in rows {
        text.push_str(&format!(
            "{:>8} {:>10.0} {:>10} {:>10} {:>10.0} {:>10.0} {:>10.0}\n",
            row.from_seconds,
            row.due_rate,
            row.sent,
            row.in_time,
            row.p50_us,
            row.p99_us,
            row.max_us
        ));
    }
    text
}
