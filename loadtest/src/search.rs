//! The highest rate at which the server keeps its p99 under a bound.
//!
//! Trials, each a run of its own: the rate doubles until one fails, then the gap between the highest that passed and
//! the lowest that failed is halved until it is small. A trial that fails is made once more before it counts: a machine
//! that is shared stalls now and then, and a server that cannot keep up fails twice. It is a search and no measurement:
//! the rate found is right to [`GAP`], and every trial is reported.
//!
//! Cost: about 10 to 15 trials.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::report::Report;
use crate::run::{Plan, RunError};

/// The search ends when the lowest rate that failed is this much above the highest that passed.
const GAP: f64 = 1.04;
/// More trials are not made.
const TRIALS_MAX: usize = 40;
/// A trial with a larger part of errors and unsent requests than this has failed.
const FAILED_SHARE_MAX: f64 = 0.001;
/// A trial that achieved a smaller part of the asked rate than this has failed.
const ACHIEVED_SHARE_MIN: f64 = 0.99;

/// What to search.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// The bound of the p99.
    pub p99: Duration,
    /// Where to begin.
    pub from: f64,
    /// How long a trial is.
    pub trial: Duration,
}

/// One trial.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Trial {
    /// Requests a second asked.
    pub rate: f64,
    /// Requests a second sent.
    pub achieved_rate: f64,
    /// Its p99.
    pub p99_us: f64,
    /// Whether it passed.
    pub passed: bool,
    /// What it failed by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_by: Option<FailedBy>,
}

/// What a trial failed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailedBy {
    /// The generator could not send that much: the server may well do more.
    Generator,
    /// Errors, or requests that found no connection.
    Errors,
    /// Less was sent than asked.
    Rate,
    /// The p99 was above the bound.
    P99,
    /// The server took no connection any more.
    Connect,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The highest rate that passed; 0 where none did.
    pub rate: f64,
    /// The bound.
    pub p99_ms: f64,
    /// What the lowest rate above it failed by.
    pub limited_by: Option<FailedBy>,
    /// It was stopped before it had found the highest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// All trials, in order.
    pub trials: Vec<Trial>,
    /// The report of the best trial.
    #[serde(skip)]
    pub best: Option<Report>,
}

impl Found {
    /// For a person.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for trial in &self.trials {
            let what = match trial.failed_by {
                None => "passed".to_owned(),
                Some(by) => format!("failed by {by:?}").to_lowercase(),
            };
            let _ = writeln!(
                text,
                "trial       {:>9.0} requests/s: p99 {:>9.1} µs, {what}",
                trial.rate, trial.p99_us
            );
        }
        let _ = writeln!(
            text,
            "highest     {:.0} requests/s with p99 under {} ms",
            self.rate, self.p99_ms
        );
        if self.limited_by == Some(FailedBy::Connect) {
            text.push_str("ended       the server took no connection any more\n");
        }
        if self.stopped {
            text.push_str("stopped     before the highest was found\n");
        }
        text
    }
}

impl Search {
    /// Searches; `plan` makes the plan of a trial at a rate, `attempt` runs it.
    ///
    /// # Errors
    ///
    /// Those of the runs.
    pub fn find(
        &self,
        mut plan: impl FnMut(f64, Duration) -> Plan,
        mut attempt: impl FnMut(&Plan) -> Result<Report, RunError>,
    ) -> Result<Found, RunError> {
        let mut found = Found {
            rate: 0.0,
            p99_ms: self.p99.as_secs_f64() * 1000.0,
            limited_by: None,
            stopped: false,
            trials: Vec::new(),
            best: None,
        };
        let mut too_much: Option<f64> = None;
        let mut rate = self.from;
        while found.trials.len() < TRIALS_MAX {
            let mut failed = None;
            for _ in 0..2 {
                let report = match attempt(&plan(rate, self.trial)) {
                    Ok(report) => report,
                    // What was found before the server went away is worth telling.
                    Err(RunError::Connect(_)) if !found.trials.is_empty() => {
                        found.limited_by = Some(FailedBy::Connect);
                        return Ok(found);
                    }
                    Err(error) => return Err(error),
                };
                if report.stopped_after_seconds.is_some() {
                    found.stopped = true;
                    return Ok(found);
                }
                failed = self.judge(&report);
                found.trials.push(Trial {
                    rate,
                    achieved_rate: report.figures.achieved_rate,
                    p99_us: report.figures.latency_us.p99,
                    passed: failed.is_none(),
                    failed_by: failed,
                });
                if failed.is_none() {
                    found.best = Some(report);
                    break;
                }
            }
            if failed.is_none() {
                found.rate = rate;
            } else {
                too_much = Some(rate);
                found.limited_by = failed;
            }
            rate = match too_much {
                None => rate * 2.0,
                Some(high) if found.rate > 0.0 && high / found.rate <= GAP => break,
                Some(high) if found.rate > 0.0 => f64::midpoint(high, found.rate),
                // Not even the first: look below.
                Some(high) if high <= 1.0 => break,
                Some(high) => high / 4.0,
            };
        }
        Ok(found)
    }

    fn judge(&self, report: &Report) -> Option<FailedBy> {
        let figures = &report.figures;
        let failed = crate::report::share(figures.errors + figures.unsent, figures.due);
        let failed = if failed > FAILED_SHARE_MAX {
            FailedBy::Errors
        } else if figures.achieved_rate < ACHIEVED_SHARE_MIN * figures.asked_rate {
            FailedBy::Rate
        } else if figures.latency_us.p99 > self.p99.as_secs_f64() * 1e6 {
            FailedBy::P99
        } else {
            return None;
        };
        // A generator that did not keep up and met the bound all the same has proven it.
        Some(if report.generator.kept_up {
            failed
        } else {
            FailedBy::Generator
        })
    }
}
