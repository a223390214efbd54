//! More than the server can do, between two spells of calm: how much of it is answered in time, and how soon all is
//! well again.
//!
//! One schedule of three stages on the same connections, so that what the overload leaves behind meets the calm after
//! it. *Recovered* is where the first of [`WINDOWS`] windows in a row begins in which every request was answered within
//! the deadline and the p99 is at most twice that of the calm before. Windows go by due time, so a request that was due
//! in the calm and had to wait behind the overload's counts against it.

use std::time::Duration;

use serde::Serialize;

use crate::report::{Figures, Report, UrlFigures};
use crate::run::{Outcomes, Plan};
use crate::schedule::{Nanos, Stage, nanos};
use crate::tally::Outcome;
use crate::watch::{Ended, Watch};

/// The length of a window.
const WINDOW: Nanos = 100_000_000;
/// So many good windows in a row are back to normal.
const WINDOWS: usize = 3;
/// A p99 below this is calm, whatever it was before.
const CALM: Nanos = 2_000_000;
/// The calm's part of the base rate.
const CALM_SHARE: f64 = 0.5;

/// What each stage is called.
const NAMES: [&str; 3] = ["calm", "overload", "after"];

/// The shape of an overload.
#[derive(Clone, Copy, Debug)]
pub struct Overload {
    /// Times the base rate.
    pub times: f64,
    /// How long the overload lasts.
    pub lasts: Duration,
    /// How long each calm lasts.
    pub calm: Duration,
}

impl Overload {
    /// The stages of a URL whose share of the base rate is `base`.
    #[must_use]
    pub fn stages(&self, base: f64) -> Vec<Stage> {
        vec![
            Stage::constant(base * CALM_SHARE, self.calm),
            Stage::constant(base * self.times, self.lasts),
            Stage::constant(base * CALM_SHARE, self.calm),
        ]
    }

    /// The stages of a URL that goes on at its own rate meanwhile.
    #[must_use]
    pub fn steady(&self, rate: f64) -> Vec<Stage> {
        [self.calm, self.lasts, self.calm]
            .map(|lasts| Stage::constant(rate, lasts))
            .to_vec()
    }

    /// The report: of the overload, with what was before and after.
    #[must_use]
    pub fn report(&self, plan: &Plan, outcomes: &Outcomes<Trace>, capacity: f64) -> OverloadReport {
        let begins = [Duration::ZERO, self.calm, self.calm + self.lasts].map(nanos);
        let asked = |stage: usize| {
            plan.traffic
                .iter()
                .filter_map(move |traffic| traffic.stages.get(stage))
        };
        let phases: Vec<Phase> = NAMES
            .iter()
            .zip(begins)
            .enumerate()
            .map(|(stage, (name, begins))| {
                let rate = asked(stage).map(Stage::mean_rate).sum();
                let lasts = asked(stage)
                    .map(|stage| stage.lasts)
                    .max()
                    .unwrap_or_default();
                let until = outcomes.stopped.map_or(u64::MAX, nanos);
                let lasts = lasts.min(Duration::from_nanos(until.saturating_sub(begins)));
                Phase {
                    phase: name,
                    figures: Figures::new(&outcomes.stage(stage), rate, begins, lasts),
                    urls: plan
                        .traffic
                        .iter()
                        .zip(&outcomes.tallies)
                        .filter_map(|(traffic, tallies)| {
                            let rate = traffic.stages.get(stage)?.mean_rate();
                            Some(UrlFigures {
                                url: traffic.target.url.clone(),
                                connections: traffic.connections,
                                figures: Figures::new(tallies.get(stage)?, rate, begins, lasts),
                            })
                        })
                        .collect(),
                }
            })
            .collect();
        let samples: Vec<Sample> = outcomes
            .watches
            .iter()
            .flat_map(|trace| trace.samples.iter().copied())
            .collect();
        let ended = nanos(self.calm + self.lasts);
        let calm_p99 = outcomes
            .stage(0)
            .latency
            .histogram()
            .value_at_quantile(0.99);
        let recovered = recovered(samples, ended, calm_p99);
        let mut whole = Report::new(plan, outcomes);
        if let Some(overload) = phases.get(1) {
            whole.figures = overload.figures.clone();
            whole.urls.clone_from(&overload.urls);
        }
        OverloadReport {
            report: whole,
            overload: self.times,
            capacity,
            recovered_ms: recovered.map(|nanos| Duration::from_nanos(nanos).as_secs_f64() * 1000.0),
            phases,
        }
    }
}

/// A run with an overload in it. The figures at its top are those of the overload.
#[derive(Clone, Debug, Serialize)]
pub struct OverloadReport {
    /// Of the overload; `generator` is of the whole run.
    #[serde(flatten)]
    pub report: Report,
    /// Times the capacity.
    pub overload: f64,
    /// What the server is taken to be able to do, requests a second.
    pub capacity: f64,
    /// From the overload's end until all is as before; none where that did not come within the calm after it.
    pub recovered_ms: Option<f64>,
    /// Calm, overload, after.
    pub phases: Vec<Phase>,
}

/// One phase.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// Its name.
    pub phase: &'static str,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// By URL.
    pub urls: Vec<UrlFigures>,
}

impl OverloadReport {
    /// For a person.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for phase in &self.phases {
            let name = phase.phase;
            let times = if name == "overload" {
                format!(", {} times {:.0} requests/s", self.overload, self.capacity)
            } else {
                String::new()
            };
            text.push_str(&format!("-- {name}{times}\n"));
            text.push_str(&phase.figures.text(self.report.deadline_ms));
            if phase.urls.len() > 1 {
                for url in &phase.urls {
                    text.push_str(&format!(
                        "   {}\n{}",
                        url.url,
                        url.figures.text(self.report.deadline_ms)
                    ));
                }
            }
        }
        text.push_str("--\n");
        text.push_str(&match self.recovered_ms {
            Some(ms) => format!("recovered   {ms:.0} ms after the overload's end\n"),
            None => "recovered   not within the calm after it\n".to_owned(),
        });
        text.push_str(&self.report.end());
        text
    }
}

/// A request of the calm after the overload.
#[derive(Clone, Copy, Debug)]
struct Sample {
    due: Nanos,
    latency: Nanos,
    in_time: bool,
}

/// Keeps what recovery is judged by.
#[derive(Debug)]
pub struct Trace {
    deadline: Duration,
    samples: Vec<Sample>,
}

impl Trace {
    /// For a run of this plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let after = plan
            .traffic
            .iter()
            .filter_map(|traffic| traffic.stages.get(2));
        let expected: f64 = after
            .map(|stage| stage.mean_rate() * stage.lasts.as_secs_f64())
            .sum();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a hint"
        )]
        let room = (expected as usize).min(4_000_000);
        Self {
            deadline: plan.limits.deadline,
            samples: Vec::with_capacity(room),
        }
    }
}

impl Watch for Trace {
    fn ended(&mut self, ended: &Ended<'_>) {
        if ended.stage != 2 {
            return;
        }
        let answered = matches!(ended.outcome, Outcome::Bid | Outcome::NoBid);
        let latency = ended.latency();
        self.samples.push(Sample {
            due: nanos(ended.due.saturating_duration_since(ended.start)),
            latency: nanos(latency),
            in_time: answered && latency <= self.deadline,
        });
    }
}

/// Nanoseconds from `ended` until windows are as calm as before.
fn recovered(mut samples: Vec<Sample>, ended: Nanos, calm_p99: Nanos) -> Option<Nanos> {
    let bound = (2 * calm_p99).max(CALM);
    samples.sort_unstable_by_key(|sample| sample.due);
    let mut in_a_row = 0;
    for window in samples.chunk_by(|a, b| window_of(a, ended) == window_of(b, ended)) {
        let mut latencies: Vec<Nanos> = window.iter().map(|sample| sample.latency).collect();
        latencies.sort_unstable();
        let p99 = latencies.get((latencies.len() * 99).div_ceil(100).saturating_sub(1));
        let good =
            window.iter().all(|sample| sample.in_time) && p99.is_none_or(|p99| *p99 <= bound);
        in_a_row = if good { in_a_row + 1 } else { 0 };
        if in_a_row == WINDOWS {
            let last = window.first().map_or(0, |sample| window_of(sample, ended));
            return Some((last + 1).saturating_sub(WINDOWS as u64) * WINDOW);
        }
    }
    None
}

fn window_of(sample: &Sample, ended: Nanos) -> u64 {
    sample.due.saturating_sub(ended) / WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    /// One request each 10 ms for 2 s after the overload's end at 5 s.
    fn after(latency: impl Fn(Nanos) -> Nanos) -> Vec<Sample> {
        (0..200)
            .map(|n| {
                let latency = latency(n * 10);
                Sample {
                    due: 5_000 * MS + n * 10 * MS,
                    latency: latency * MS,
                    in_time: latency <= 100,
                }
            })
            .collect()
    }

    #[test]
    fn recovery_begins_with_the_first_of_three_calm_windows() {
        let check = |samples| recovered(samples, 5_000 * MS, 3 * MS).map(|nanos| nanos / MS);
        assert_eq!(check(after(|_| 1)), Some(0));
        // All windows until 400 ms hold one that is too slow or late.
        assert_eq!(check(after(|ms| if ms < 400 { 150 } else { 2 })), Some(400));
        assert_eq!(check(after(|ms| if ms < 350 { 20 } else { 2 })), Some(400));
        // Two calm windows are not enough.
        assert_eq!(check(after(|ms| if ms == 250 { 20 } else { 2 })), Some(300));
        assert_eq!(check(after(|_| 7)), None);
        assert_eq!(check(Vec::new()), None);
    }
}
