//! The scenario's figures: what was proven, then windows with swaps against those without.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::judge::{Answers, Verdict, judge};
use super::memory::Samples;
use super::operator::{How, Operator};
use super::{Kind, Scenario, Swapped};
use crate::report::Generator;
use crate::run::Outcomes;
use crate::tally::{LatencyUs, Tally};

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was swapped for what.
    pub swapped: Swapped,
    /// Rows of each version.
    pub rows: usize,
    /// Requests a second.
    pub rate: f64,
    /// Seconds of each window.
    pub window_seconds: f64,
    /// Changes of the live version under load.
    pub swaps: Swaps,
    /// Updates of people that were acknowledged, where it is they that stand for swaps.
    pub updates: u64,
    /// What became of every request, pauses included.
    pub verdict: Verdict,
    /// Windows without swaps.
    pub quiet: Windows,
    /// Windows with swaps.
    pub swapping: Windows,
    /// The server's anonymous memory.
    pub memory: Memory,
    /// Whether the generator kept up.
    pub generator: Generator,
}

/// How often and how the live version changed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Swaps {
    /// All of them.
    pub total: usize,
    /// By uploads that activate.
    pub uploaded: usize,
    /// By activation of a staged version.
    pub activated: usize,
    /// By activation of an older version.
    pub rolled_back: usize,
    /// That ended after the pause that follows their window: the quiet window after it was not quiet.
    pub overran: usize,
    /// An upload until acknowledged, half of them; building included.
    pub upload_p50_ms: f64,
    /// The longest.
    pub upload_max_ms: f64,
    /// An activation or rollback until acknowledged, half of them.
    pub activation_p50_ms: f64,
    /// The longest.
    pub activation_max_ms: f64,
}

/// The windows of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Windows {
    /// Requests that were due in them.
    pub due: u64,
    /// From due to answered, over all of them.
    pub latency_us: LatencyUs,
    /// The same of each.
    pub windows: Vec<LatencyUs>,
    /// Least and most over the windows.
    pub spread_us: Spread,
    /// The median of the windows' p99.
    pub p99_median_us: f64,
    /// Of each window the p99 of the time inside the server, by its own histogram.
    pub p99_inside_us: Vec<f64>,
    /// Their median.
    pub p99_inside_median_us: f64,
}

/// Least and most of a percentile over windows.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Spread {
    pub p50: [f64; 2],
    pub p99: [f64; 2],
    pub p99_9: [f64; 2],
}

/// Anonymous resident memory of the server's process, in bytes; 0 where it could not be read.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    /// The most in windows without swaps.
    pub quiet_peak_bytes: u64,
    /// The least in windows without swaps.
    pub quiet_least_bytes: u64,
    /// The most in windows with swaps.
    pub swapping_peak_bytes: u64,
    /// Over the quiet peak.
    pub ratio: f64,
    /// The most in the last window without swaps, by that in the first.
    pub growth: f64,
}

impl Report {
    pub(super) fn new(
        scenario: &Scenario,
        operator: &Operator,
        outcomes: Outcomes<Answers<'_>>,
        samples: &Samples,
    ) -> Self {
        let stages = outcomes.tallies.first().map_or(0, Vec::len);
        let tallies = |kind| {
            (0..stages)
                .filter(move |stage| Kind::of(*stage) == kind)
                .map(|stage| outcomes.stage(stage))
        };
        let inside = |kind| {
            let of = operator.inside.iter().filter(|(of, _)| *of == kind);
            of.map(|(_, p99_us)| *p99_us).collect()
        };
        let noted = outcomes.watches.iter().flat_map(|watch| &watch.noted);
        let bounds = |kind| {
            samples
                .bounds(|stage| Kind::of(stage) == kind)
                .unwrap_or_default()
        };
        let (quiet, swapping) = (bounds(Kind::Quiet), bounds(Kind::Swapping));
        let quiet_stages = || (0..stages).filter(|stage| Kind::of(*stage) == Kind::Quiet);
        let peak = |stage| samples.bounds(|of| Some(of) == stage).unwrap_or_default().1;
        let (first, last) = (
            peak(quiet_stages().next()),
            peak(quiet_stages().next_back()),
        );
        let ratio = |of: u64, by: u64| match by {
            0 => 0.0,
            by => (1000.0 * of as f64 / by as f64).round() / 1000.0,
        };
        Self {
            swapped: scenario.swapped,
            rows: scenario.rows,
            rate: scenario.rate,
            window_seconds: scenario.window.as_secs_f64(),
            swaps: Swaps::new(operator),
            updates: operator.updates,
            verdict: judge(&operator.changes, noted),
            quiet: Windows::new(tallies(Kind::Quiet), inside(Kind::Quiet)),
            swapping: Windows::new(tallies(Kind::Swapping), inside(Kind::Swapping)),
            memory: Memory {
                quiet_peak_bytes: quiet.1,
                quiet_least_bytes: quiet.0,
                swapping_peak_bytes: swapping.1,
                ratio: ratio(swapping.1, quiet.1),
                growth: ratio(last, first),
            },
            generator: Generator::new(&outcomes.all(), &outcomes.effort),
        }
    }

    /// Whether there were swaps, or updates where it is they, and every answer was right.
    #[must_use]
    pub fn passed(&self) -> bool {
        let changes = match self.swapped {
            Swapped::Updates => self.updates > 0,
            Swapped::Uploads | Swapped::Full | Swapped::Deltas => self.swaps.total > 0,
        };
        self.verdict.all_right() && changes
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, what: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:>10}  {what}");
        };
        let (swaps, verdict) = (&self.swaps, &self.verdict);
        line(
            "swaps",
            format!(
                "{} of {} rows under {} requests a second: {} uploads, {} activations, {} rollbacks",
                swaps.total,
                self.rows,
                self.rate,
                swaps.uploaded,
                swaps.activated,
                swaps.rolled_back
            ),
        );
        if self.swapped == Swapped::Updates {
            line("updates", format!("{} acknowledged", self.updates));
        }
        line(
            "took",
            format!(
                "uploads p50 {:.0} ms, max {:.0} ms; activations p50 {:.1} ms, max {:.1} ms",
                swaps.upload_p50_ms,
                swaps.upload_max_ms,
                swaps.activation_p50_ms,
                swaps.activation_max_ms
            ),
        );
        line(
            "answers",
            format!(
                "{}: {} right ({} during a swap), {} failed, {} mixed, {} wrong, {} without a bid, {} went back",
                verdict.answers,
                verdict.right,
                verdict.during_a_swap,
                verdict.failed,
                verdict.mixed,
                verdict.wrong,
                verdict.no_bids,
                verdict.went_back
            ),
        );
        for example in &verdict.examples {
            line("", example.clone());
        }
        for (name, windows) in [("quiet", &self.quiet), ("swapping", &self.swapping)] {
            let (all, spread) = (&windows.latency_us, &windows.spread_us);
            line(
                name,
                format!(
                    "{} windows of {} s: p50 {:.0} \u{b5}s ({:.0} to {:.0}), p99 {:.0} ({:.0} to {:.0}), p99.9 {:.0} ({:.0} to {:.0}), max {:.0}",
                    windows.windows.len(),
                    self.window_seconds,
                    all.p50,
                    spread.p50[0],
                    spread.p50[1],
                    all.p99,
                    spread.p99[0],
                    spread.p99[1],
                    all.p99_9,
                    spread.p99_9[0],
                    spread.p99_9[1],
                    all.max
                ),
            );
        }
        line(
            "p99",
            format!(
                "median of the windows: {:.0} \u{b5}s swapping, {:.0} quiet: {:.2} times; inside the server {:.0}, {:.0}: {:.2} times",
                self.swapping.p99_median_us,
                self.quiet.p99_median_us,
                self.swapping.p99_median_us / self.quiet.p99_median_us,
                self.swapping.p99_inside_median_us,
                self.quiet.p99_inside_median_us,
                self.swapping.p99_inside_median_us / self.quiet.p99_inside_median_us
            ),
        );
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        line(
            "memory",
            format!(
                "anonymous: {:.0} to {:.0} MiB quiet, at most {:.0} MiB while swapping: {:.3} times; the last quiet window {:.3} times the first",
                mib(self.memory.quiet_least_bytes),
                mib(self.memory.quiet_peak_bytes),
                mib(self.memory.swapping_peak_bytes),
                self.memory.ratio,
                self.memory.growth
            ),
        );
        if swaps.overran > 0 {
            line(
                "WARNING",
                format!(
                    "{} windows had a swap that ended in the quiet one after it: longer --window or --pause",
                    swaps.overran
                ),
            );
        }
        if let Some(warning) = self.generator.warning() {
            line("WARNING", warning);
        }
        line(
            "",
            if self.passed() {
                "passed".to_owned()
            } else {
                "FAILED".to_owned()
            },
        );
        text
    }
}

impl Swaps {
    fn new(operator: &Operator) -> Self {
        let all = || operator.hows.iter().zip(&operator.changes);
        let made = || all().skip(operator.before);
        let count = |wanted| made().filter(|(how, _)| **how == wanted).count();
        let took = |is: fn(How) -> bool| {
            let mut times: Vec<Duration> = made()
                .filter(|(how, _)| is(**how))
                .map(|(_, change)| change.acknowledged - change.asked)
                .collect();
            times.sort_unstable();
            let ms = |time: Option<&Duration>| {
                time.map_or(0.0, |time| (time.as_secs_f64() * 10_000.0).round() / 10.0)
            };
            (ms(times.get(times.len() / 2)), ms(times.last()))
        };
        let uploads = took(|how| how == How::Uploaded);
        let activations = took(|how| how != How::Uploaded);
        Self {
            total: made().count(),
            uploaded: count(How::Uploaded),
            activated: count(How::Activated),
            rolled_back: count(How::RolledBack),
            overran: operator.overran,
            upload_p50_ms: uploads.0,
            upload_max_ms: uploads.1,
            activation_p50_ms: activations.0,
            activation_max_ms: activations.1,
        }
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or_default()
}

impl Windows {
    fn new(tallies: impl Iterator<Item = Tally>, p99_inside_us: Vec<f64>) -> Self {
        let mut sum = Tally::default();
        let mut windows = Vec::new();
        for tally in tallies {
            windows.push(tally.latency.latency());
            sum.add(&tally);
        }
        let spread = |of: fn(&LatencyUs) -> f64| {
            let values = windows.iter().map(of);
            values.fold(None, |bounds: Option<[f64; 2]>, value| {
                let [least, most] = bounds.unwrap_or([value, value]);
                Some([least.min(value), most.max(value)])
            })
        };
        let spread_us = Spread {
            p50: spread(|l| l.p50).unwrap_or_default(),
            p99: spread(|l| l.p99).unwrap_or_default(),
            p99_9: spread(|l| l.p99_9).unwrap_or_default(),
        };
        Self {
            due: sum.due(),
            latency_us: sum.latency.latency(),
            p99_median_us: median(windows.iter().map(|window| window.p99).collect()),
            p99_inside_median_us: median(p99_inside_us.clone()),
            p99_inside_us,
            windows,
            spread_us,
        }
    }
}
