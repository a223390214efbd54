//! Swaps under load: versions alternate while an open loop asks, and every answer is held against the versions that were
//! live when it was asked or answered.
//!
//! Windows with and without swaps take turns within one run of one process, so that a slow minute of the machine hits
//! both. Between them is a pause that counts for neither: retired versions are let go there. What is compared is
//! latency and the server's memory in the two kinds of window; what is proven is that no answer was wrong.
//!
//! Parts: [`versions`] makes audiences that an answer gives away, [`operator`] swaps them, [`judge`] decides which
//! answers could have been, [`memory`], `inside` and [`report`] tell the figures, [`server`] runs a `kith serve` to do it to.

pub(crate) mod command;
mod inside;
pub mod judge;
pub mod memory;
pub mod operator;
pub mod report;
pub mod server;
pub mod versions;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::run::{Plan, RunError, Traffic, run};
use crate::schedule::Stage;
use crate::target::{Target, TargetError};
use crate::watch::{Limits, Live};

use self::judge::Answers;
use self::memory::Samples;
use self::operator::{Operator, Refused};
use self::report::Report;
use self::versions::Rows;

/// A request that is not sent or answered within this has failed. Long, for a machine that stalls is not what is looked for
/// here: being slow shows in the latency.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is swapped for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Swapped {
    /// Versions that are uploaded meanwhile, so that building them counts too, and older ones.
    #[default]
    Uploads,
    /// Ten full versions uploaded before.
    Full,
    /// A full version and two deltas over it, each of some thousands of the rows, all uploaded before.
    Deltas,
    /// No version: updates of other people, ten calls of a thousand rows a second.
    Updates,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What is swapped for what.
    pub swapped: Swapped,
    /// Rows of each version; half as many people, for each has two ids.
    pub rows: usize,
    /// Requests a second.
    pub rate: f64,
    /// Connections.
    pub connections: usize,
    /// How long each window is.
    pub window: Duration,
    /// Windows of each kind.
    pub rounds: usize,
    /// Between windows, and before the first.
    pub pause: Duration,
    /// From one swap to the next within a window.
    pub between: Duration,
}

impl Default for Scenario {
    /// A million rows, a minute and a half.
    fn default() -> Self {
        Self {
            swapped: Swapped::default(),
            rows: 1_000_000,
            rate: 4_000.0,
            connections: 16,
            window: Duration::from_secs(10),
            rounds: 4,
            pause: Duration::from_secs(2),
            between: Duration::from_millis(200),
        }
    }
}

impl Scenario {
    /// Small and short enough for a test in the dev profile.
    #[must_use]
    pub fn tiny() -> Self {
        Self {
            swapped: Swapped::default(),
            rows: 4_000,
            rate: 300.0,
            connections: 8,
            window: Duration::from_millis(500),
            rounds: 2,
            pause: Duration::from_millis(150),
            between: Duration::ZERO,
        }
    }

    /// A pause, then windows without and with swaps in turns, with a pause after each.
    fn stages(&self) -> Vec<Stage> {
        let stage = |lasts| Stage::constant(self.rate, lasts);
        let mut stages = vec![stage(self.pause)];
        for _ in 0..self.rounds * 2 {
            stages.push(stage(self.window));
            stages.push(stage(self.pause));
        }
        stages
    }
}

/// What a stage of the run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Counts for nothing.
    Pause,
    /// A window without swaps.
    Quiet,
    /// A window with swaps.
    Swapping,
}

impl Kind {
    /// What stage number `stage` of a scenario is for.
    #[must_use]
    pub fn of(stage: usize) -> Self {
        match stage % 4 {
            1 => Self::Quiet,
            3 => Self::Swapping,
            _ => Self::Pause,
        }
    }
}

/// A running Kith with an empty data directory, one exchange `demo` and no guards.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its bid listener.
    pub bid: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
    /// Its process.
    pub pid: u32,
}

impl Subject {
    /// Waits until it takes uploads, which it does not while it brings back what was live, be that nothing. Whether it does.
    pub fn wait_until_ready(self, at_most: Duration) -> bool {
        let url = format!("http://{}/readyz", self.admin);
        let begun = Instant::now();
        let ask = || {
            let asked = ureq::get(&url).config().timeout_global(Some(at_most));
            asked.build().call()
        };
        while ask().is_err() {
            if begun.elapsed() > at_most {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        true
    }
}

/// Why the scenario could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// A version or activation was not taken.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No load could be sent.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The bid listener's address makes no URL.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The server did not start.
    #[error(transparent)]
    Server(#[from] server::NotServing),
    /// A part of it proves nothing.
    #[error("stopped after {0:.1?}, before its end")]
    Stopped(Duration),
    /// The operator's thread is gone.
    #[error("the operator's thread panicked")]
    Panicked,
}

/// Runs the scenario against `subject`. `say` is told how it goes, `live` can end it.
///
/// # Errors
///
/// Where it could not be run to its end. Wrong answers are no error but the report's subject.
pub fn against(
    scenario: &Scenario,
    subject: Subject,
    live: &Live,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Report, SwapError> {
    let rows = Rows::new(scenario.rows);
    let mut operator = Operator::new(subject.admin, rows, scenario.swapped);
    say(&format!(
        "uploading campaigns and what is there before, of {} rows",
        scenario.rows
    ));
    operator.prepare()?;
    let plan = plan(scenario, subject.bid)?;
    let stage = AtomicUsize::new(0);
    let (load_is_over, over) = mpsc::channel::<()>();
    let (sampling_is_over, sampled) = mpsc::channel::<()>();
    let (outcomes, operated, samples) = std::thread::scope(|scope| {
        let (operator, stage) = (&mut operator, &stage);
        let operating = scope.spawn(move || {
            let done = operator.work(scenario, stage, &over, say);
            if done.is_err() {
                live.stop.store(true, Ordering::Relaxed);
            }
            done
        });
        let sampling = scope.spawn(move || Samples::taken(subject.pid, stage, &sampled));
        let outcomes = run(&plan, live, |_| Answers::new(stage));
        drop((load_is_over, sampling_is_over));
        let operated = operating.join().unwrap_or(Err(SwapError::Panicked));
        (outcomes, operated, sampling.join().unwrap_or_default())
    });
    operated?;
    let outcomes = outcomes?;
    if let Some(after) = outcomes.stopped {
        return Err(SwapError::Stopped(after));
    }
    Ok(Report::new(scenario, &operator, outcomes, &samples))
}

fn plan(scenario: &Scenario, bid: SocketAddr) -> Result<Plan, TargetError> {
    let target: Target = format!("http://{bid}/bid/demo").parse()?;
    Ok(Plan {
        traffic: vec![Traffic {
            target,
            connections: scenario.connections,
            stages: scenario.stages(),
            shift: 0.0,
        }],
        bodies: versions::requests(scenario.rows).into(),
        headers: Vec::new(),
        limits: Limits {
            wait: PATIENCE,
            timeout: PATIENCE,
            ..Limits::default()
        },
        threads: 1,
        closed_loop: false,
    })
}
