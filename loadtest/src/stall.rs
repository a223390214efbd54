//! `loadtest stall-demo`: the same stalling server, measured by an open loop and by a closed one, side by side.
//!
//! The server answers at once, but stands still for a while every now and then, as a garbage collector, a lock or a
//! swap done wrong makes it. Whatever is due while it stands still waits until it goes on. The open loop asks on and
//! sees all of these requests; the closed loop has one request a connection caught in the stall, asks nothing more until
//! it is over, and makes up its percentiles from the many that it sends in between.

use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::engine::{Limits, Live};
use crate::rehearsal::{Rehearsal, Reply};
use crate::report::Report;
use crate::run::{Plan, RunError, Traffic, run};
use crate::schedule::Stage;
use crate::target::TargetError;

/// What is shown.
#[derive(Clone, Copy, Debug)]
pub struct StallDemo {
    /// The server stands still for so long…
    pub stall: Duration,
    /// …once in so long.
    pub every: Duration,
    /// Requests a second of the open loop.
    pub rate: f64,
    /// Connections of either.
    pub connections: usize,
    /// How long either measures.
    pub lasts: Duration,
}

impl Default for StallDemo {
    fn default() -> Self {
        Self {
            stall: Duration::from_millis(100),
            every: Duration::from_secs(2),
            rate: 1000.0,
            connections: 4,
            lasts: Duration::from_secs(4),
        }
    }
}

/// What either loop says of the same server.
#[derive(Clone, Debug, Serialize)]
pub struct SideBySide {
    /// By the schedule.
    pub open: Report,
    /// When a connection is free.
    pub closed: Report,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No server.
    #[error("no server on loopback: {0}")]
    Server(#[from] io::Error),
    /// No run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// No address.
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl StallDemo {
    /// Measures the server with either loop, one after the other.
    ///
    /// # Errors
    ///
    /// Where loopback gives no port.
    pub fn run(&self) -> Result<SideBySide, DemoError> {
        let (begin, stall, every) = (Instant::now(), self.stall, self.every);
        let server = Rehearsal::start(move |asked| {
            // It stands still in the last part of each period.
            let into = (asked.at - begin).as_nanos() % every.as_nanos().max(1);
            let left =
                Duration::from_nanos(u64::try_from(every.as_nanos() - into).unwrap_or_default());
            Reply::no_bid(if left <= stall { left } else { Duration::ZERO })
        })?;
        let mut plan = Plan {
            traffic: vec![Traffic {
                target: server.url("/bid/demo").parse()?,
                connections: self.connections,
                stages: vec![Stage::constant(self.rate, self.lasts)],
                shift: 0.0,
            }],
            bodies: [br#"{"id":"1","imp":[{"id":"1"}]}"#.to_vec()].into(),
            headers: Vec::new(),
            limits: Limits::default(),
            threads: 1,
            closed_loop: false,
        };
        let open = Report::new(&plan, &run(&plan, &Live::default(), |_| ())?);
        plan.closed_loop = true;
        let closed = Report::new(&plan, &run(&plan, &Live::default(), |_| ())?);
        Ok(SideBySide { open, closed })
    }

    /// Both columns.
    #[must_use]
    pub fn text(&self, sides: &SideBySide) -> String {
        let (open, closed) = (&sides.open.figures, &sides.closed.figures);
        let mut text = format!(
            "The server answers at once, and stands still for {} ms every {} ms. {} connections.\n\n{:<12}{:>16}{:>16}\n",
            self.stall.as_millis(),
            self.every.as_millis(),
            self.connections,
            "",
            "open loop",
            "closed loop"
        );
        let mut row = |name: &str, open: f64, closed: f64, digits: usize| {
            let _ = writeln!(text, "{name:<12}{open:>16.digits$}{closed:>16.digits$}");
        };
        row("requests/s", open.achieved_rate, closed.achieved_rate, 0);
        for (name, open, closed) in [
            ("p50 ms", open.latency_us.p50, closed.latency_us.p50),
            ("p90 ms", open.latency_us.p90, closed.latency_us.p90),
            ("p99 ms", open.latency_us.p99, closed.latency_us.p99),
            ("p99.9 ms", open.latency_us.p99_9, closed.latency_us.p99_9),
            (
                "p99.99 ms",
                open.latency_us.p99_99,
                closed.latency_us.p99_99,
            ),
            ("max ms", open.latency_us.max, closed.latency_us.max),
        ] {
            row(name, open / 1000.0, closed / 1000.0, 2);
        }
        let share = 100.0 * self.stall.as_secs_f64() / self.every.as_secs_f64().max(1e-9);
        let _ = writeln!(
            text,
            "\n{share:.1} % of the time the server stood still, and so that part of what an exchange asks waits. \
             The open loop says so; the closed loop did not ask meanwhile."
        );
        text
    }
}
