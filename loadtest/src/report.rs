//! What a run is reported as: one set of figures, printed as JSON or as a table.
//!
//! Rates are over the time that sending took: the schedule's length, or longer where a backlog was still being sent
//! after it. So a rate that was asked and not achieved cannot look achieved.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::run::{Outcomes, Plan};
use crate::schedule::{Nanos, Stage, nanos};
use crate::tally::{Effort, ErrorKind, LatencyUs, Tally};

/// More of the requests than this sent late by the generator's fault: it did not keep up. A virtual machine that stalls
/// for milliseconds twice a second makes one in a hundred late, whatever runs on it.
const LATE_SHARE_MAX: f64 = 0.03;
/// Busy for more of the time than this: it did not keep up, or would not at a little more.
const BUSY_SHARE_MAX: f64 = 0.95;

/// The figures of some requests: of a run, a URL or a phase.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Requests a second that the schedule holds.
    pub asked_rate: f64,
    /// Requests a second that were written.
    pub achieved_rate: f64,
    /// Requests a second that were answered 200 or 204 within the deadline.
    pub goodput: f64,
    /// The part of the due requests that were.
    pub goodput_share: f64,
    /// Requests that became due.
    pub due: u64,
    /// Requests written.
    pub sent: u64,
    /// Answers with a bid.
    pub bids: u64,
    /// Answers without.
    pub no_bids: u64,
    /// Errors of all kinds.
    pub errors: u64,
    /// By kind; failed attempts to connect belong to no request.
    pub errors_by_kind: BTreeMap<&'static str, u64>,
    /// Requests that waited for a connection longer than the bound and were never sent.
    pub unsent: u64,
    /// Connections that the server closed while idle, or with an answer.
    pub connections_closed: u64,
    /// How long sending took.
    pub seconds: f64,
    /// From due to answered, or given up.
    pub latency_us: LatencyUs,
    /// From written to answered, without what a request waited before: what a closed loop would call latency.
    pub service_us: LatencyUs,
    /// Requests that found every connection taken, and how long they waited for one.
    pub waited: Waited,
}

/// Waiting for a connection: the server's slowness, seen from before it.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Waited {
    pub requests: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// What the generator says of itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Generator {
    /// It kept up: what was measured is the server.
    pub kept_up: bool,
    /// Requests sent more than a millisecond later than they could have been.
    pub late: u64,
    /// Their part of those sent.
    pub late_share: f64,
    /// How much later than it could have been a request was sent.
    pub lag_p50_us: f64,
    /// The same, of 99 in 100.
    pub lag_p99_us: f64,
    /// The same, of all.
    pub lag_max_us: f64,
    /// No answer was read later than this after it had come.
    pub turn_max_us: f64,
    /// Part of the time that its threads did not sleep.
    pub busy_share: f64,
    /// Its CPU time for each request sent.
    pub cpu_us_per_request: f64,
}

impl Figures {
    /// The figures of requests that were due from `begins` on for `lasts`.
    #[must_use]
    pub fn new(tally: &Tally, asked_rate: f64, begins: Nanos, lasts: Duration) -> Self {
        let sending = nanos(lasts).max(tally.last_sent.saturating_sub(begins));
        let seconds = Duration::from_nanos(sending).as_secs_f64().max(1e-9);
        Self {
            asked_rate: rounded(asked_rate),
            achieved_rate: rounded(count(tally.sent) / seconds),
            goodput: rounded(count(tally.in_time) / seconds),
            goodput_share: share(tally.in_time, tally.due()),
            due: tally.due(),
            sent: tally.sent,
            bids: tally.bids,
            no_bids: tally.no_bids,
            errors: tally.errors_total(),
            errors_by_kind: ErrorKind::ALL
                .iter()
                .zip(tally.errors)
                .map(|((_, name), errors)| (*name, errors))
                .collect(),
            unsent: tally.unsent,
            connections_closed: tally.closed_by_server,
            seconds: (seconds * 1000.0).round() / 1000.0,
            latency_us: tally.latency.latency(),
            service_us: tally.service.latency(),
            waited: Waited {
                requests: tally.waited.count(),
                p50_us: tally.waited.quantile_us(0.5),
                p99_us: tally.waited.quantile_us(0.99),
                max_us: tally.waited.max_us(),
            },
        }
    }
}

impl Generator {
    /// What `tally` and `effort` say of it.
    #[must_use]
    pub fn new(tally: &Tally, effort: &Effort) -> Self {
        let late_share = share(tally.late, tally.sent);
        let busy_share = share(effort.busy, effort.wall);
        Self {
            kept_up: late_share <= LATE_SHARE_MAX && busy_share <= BUSY_SHARE_MAX,
            late: tally.late,
            late_share,
            lag_p50_us: tally.lag.quantile_us(0.5),
            lag_p99_us: tally.lag.quantile_us(0.99),
            lag_max_us: tally.lag.max_us(),
            turn_max_us: rounded(count(effort.turn_max) / 1000.0),
            busy_share,
            cpu_us_per_request: (100.0 * count(effort.cpu) / count(tally.sent.max(1)) / 1000.0)
                .round()
                / 100.0,
        }
    }

    /// What must be said aloud, if anything.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        (!self.kept_up).then(|| {
            format!(
                "the generator did not keep up: {:.2} % of the requests were sent over 1 ms late by its own fault \
                 (worst {:.1} ms), its threads were busy {:.0} % of the time. These figures are of the generator as \
                 much as of the server: ask for less, or give it more --threads",
                100.0 * self.late_share,
                self.lag_max_us / 1000.0,
                100.0 * self.busy_share,
            )
        })
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "generator   {} late by over 1 ms ({:.3} %); lag p50 {:.0} µs, p99 {:.0} µs, max {:.0} µs; \
             busy {:.0} %, {:.1} µs CPU a request\n",
            self.late,
            100.0 * self.late_share,
            self.lag_p50_us,
            self.lag_p99_us,
            self.lag_max_us,
            100.0 * self.busy_share,
            self.cpu_us_per_request
        )
    }
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of all requests, or of those of the phase that the run is about.
    #[serde(flatten)]
    pub figures: Figures,
    /// What counts as in time.
    pub deadline_ms: f64,
    /// After so many seconds it was stopped, before its time; the figures are of what was due until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_after_seconds: Option<f64>,
    /// Requests sent late by the generator's fault; more of it under `generator`.
    pub generator_late: u64,
    /// How the generator did.
    pub generator: Generator,
    /// By URL, in the order given.
    pub urls: Vec<UrlFigures>,
}

/// One URL's figures.
#[derive(Clone, Debug, Serialize)]
pub struct UrlFigures {
    /// Which.
    pub url: String,
    /// On how many connections.
    pub connections: usize,
    /// Its own.
    #[serde(flatten)]
    pub figures: Figures,
}

impl Report {
    /// The report of all stages of a run together.
    #[must_use]
    pub fn new<W>(plan: &Plan, outcomes: &Outcomes<W>) -> Self {
        let lasts = outcomes.stopped.unwrap_or_else(|| plan.lasts());
        let all = outcomes.all();
        let asked = |stages: &[Stage]| {
            let mut left = lasts;
            let due: f64 = stages
                .iter()
                .map(|stage| {
                    let stage = stage.cut(left);
                    left = left.saturating_sub(stage.lasts);
                    stage.mean_rate() * stage.lasts.as_secs_f64()
                })
                .sum();
            due / (lasts - left).as_secs_f64().max(1e-9)
        };
        let generator = Generator::new(&all, &outcomes.effort);
        let rate = plan
            .traffic
            .iter()
            .map(|traffic| asked(&traffic.stages))
            .sum();
        // A closed loop asks for no rate.
        let rate = if plan.closed_loop { 0.0 } else { rate };
        Self {
            figures: Figures::new(&all, rate, 0, lasts),
            deadline_ms: plan.limits.deadline.as_secs_f64() * 1000.0,
            stopped_after_seconds: outcomes
                .stopped
                .map(|after| (after.as_secs_f64() * 1000.0).round() / 1000.0),
            generator_late: generator.late,
            generator,
            urls: plan
                .traffic
                .iter()
                .enumerate()
                .map(|(url, traffic)| UrlFigures {
                    url: traffic.target.url.clone(),
                    connections: traffic.connections,
                    figures: Figures::new(&outcomes.url(url), asked(&traffic.stages), 0, lasts),
                })
                .collect(),
        }
    }

    /// For a person.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut columns: Vec<(&str, &Figures)> = vec![("all", &self.figures)];
        if self.urls.len() > 1 {
            columns.extend(self.urls.iter().map(|url| (url.url.as_str(), &url.figures)));
        }
        for (name, figures) in columns {
            if self.urls.len() > 1 {
                let _ = writeln!(text, "{name}");
            }
            text.push_str(&figures.text(self.deadline_ms));
        }
        text.push_str(&self.end());
        text
    }

    /// The last lines of a report: how the generator did, and whether it was stopped.
    pub(crate) fn end(&self) -> String {
        let mut text = self.generator.text();
        if let Some(seconds) = self.stopped_after_seconds {
            let _ = writeln!(text, "stopped     after {seconds:.1} s, before its time");
        }
        text
    }
}

impl Figures {
    pub(crate) fn text(&self, deadline_ms: f64) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<11} {value}");
        };
        line(
            "rate",
            format!(
                "{:.1} requests/s of {:.1} asked, {:.3} s",
                self.achieved_rate, self.asked_rate, self.seconds
            ),
        );
        line(
            "goodput",
            format!(
                "{:.1} requests/s answered within {deadline_ms} ms of being due ({:.3} %)",
                self.goodput,
                100.0 * self.goodput_share
            ),
        );
        line(
            "answers",
            format!(
                "{} sent, {} bids, {} no-bids, {} errors, {} unsent",
                self.sent, self.bids, self.no_bids, self.errors, self.unsent
            ),
        );
        let kinds: Vec<String> = self
            .errors_by_kind
            .iter()
            .filter(|(_, errors)| **errors > 0)
            .map(|(kind, errors)| format!("{errors} {kind}"))
            .collect();
        if !kinds.is_empty() {
            line("errors", kinds.join(", "));
        }
        let percentiles = |l: &LatencyUs| {
            format!(
                "p50 {:.0}, p90 {:.0}, p99 {:.0}, p99.9 {:.0}, p99.99 {:.0}, max {:.0}",
                l.p50, l.p90, l.p99, l.p99_9, l.p99_99, l.max
            )
        };
        line("latency µs", percentiles(&self.latency_us));
        let service = percentiles(&self.service_us);
        line("server µs", format!("{service} from sent to answered"));
        if self.waited.requests > 0 {
            let w = &self.waited;
            line(
                "waited µs",
                format!(
                    "{} found no free connection: p50 {:.0}, p99 {:.0}, max {:.0}",
                    w.requests, w.p50_us, w.p99_us, w.max_us
                ),
            );
        }
        if self.connections_closed > 0 {
            line(
                "closed",
                format!("{} connections, by the server", self.connections_closed),
            );
        }
        text
    }
}
#[expect(
    clippy::cast_precision_loss,
    reason = "counts and nanoseconds of a run are far below 2^53"
)]
pub(crate) fn count(n: u64) -> f64 {
    n as f64
}

pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        (1e6 * count(part) / count(whole)).round() / 1e6
    }
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
