//! A run: a plan, spread over threads, and the counts of all of them.
//!
//! Each thread has connections and a share of the due times of every URL, and shares nothing with the others while it
//! runs; the schedule divides by number, so that no two threads need to agree on anything but the start.

use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use crate::engine::{Engine, Lane};
use crate::feed::{Closed, Feed, Open};
use crate::schedule::{Schedule, Stage, length, nanos};
use crate::tally::{Effort, Tally};
use crate::target::Target;
use crate::watch::{Limits, Live, Watch};
use crate::wire::Requests;

/// The traffic to one URL.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Where to.
    pub target: Target,
    /// On how many connections.
    pub connections: usize,
    /// At which rates, one stage after the other; all URLs have as many.
    pub stages: Vec<Stage>,
    /// This part of an interval (0 to 1) later than the first URL of the same rate.
    pub shift: f64,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One a URL.
    pub traffic: Vec<Traffic>,
    /// Request bodies, used in turns.
    pub bodies: Arc<[Vec<u8>]>,
    /// More header lines, `name: value`.
    pub headers: Vec<String>,
    /// The bounds.
    pub limits: Limits,
    /// Threads, each with a share of every URL's connections.
    pub threads: usize,
    /// Send whenever a connection is free instead of by the schedule. Misleading; for comparison.
    pub closed_loop: bool,
}

impl Plan {
    /// How long its longest traffic lasts.
    pub(crate) fn lasts(&self) -> Duration {
        let traffic = self.traffic.iter();
        let lasts = traffic.map(|traffic| length(&traffic.stages));
        lasts.max().unwrap_or_default()
    }
}

/// Why a run did not take place.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No connection of a URL came about.
    #[error("{0}: no connection: nothing listens there, or it does not accept")]
    Connect(String),
    /// The plan cannot be run.
    #[error("{0}")]
    Plan(String),
    /// The system refuses.
    #[error("epoll: {0}")]
    System(#[from] std::io::Error),
    /// A thread panicked.
    #[error("a load thread panicked")]
    Panicked,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcomes<W> {
    /// By URL, then by stage.
    pub tallies: Vec<Vec<Tally>>,
    /// What it took.
    pub effort: Effort,
    /// When it began.
    pub start: Instant,
    /// From the start until the last answer.
    pub lasted: Duration,
    /// After how long it was told to stop, where that was before its time.
    pub stopped: Option<Duration>,
    /// The watches, one a thread.
    pub watches: Vec<W>,
}

impl<W> Outcomes<W> {
    /// The same with other watches.
    #[must_use]
    pub fn map_watches<V>(self, map: impl FnMut(W) -> V) -> Outcomes<V> {
        Outcomes {
            tallies: self.tallies,
            effort: self.effort,
            start: self.start,
            lasted: self.lasted,
            stopped: self.stopped,
            watches: self.watches.into_iter().map(map).collect(),
        }
    }

    /// All counts of a stage.
    #[must_use]
    pub fn stage(&self, stage: usize) -> Tally {
        let mut sum = Tally::default();
        for tally in self.tallies.iter().filter_map(|url| url.get(stage)) {
            sum.add(tally);
        }
        sum
    }

    /// All counts of a URL.
    #[must_use]
    pub fn url(&self, url: usize) -> Tally {
        let mut sum = Tally::default();
        for tally in self.tallies.get(url).into_iter().flatten() {
            sum.add(tally);
        }
        sum
    }

    /// All counts.
    #[must_use]
    pub fn all(&self) -> Tally {
        let mut sum = Tally::default();
        for tally in self.tallies.iter().flatten() {
            sum.add(tally);
        }
        sum
    }
}

/// Runs `plan` to its end on threads of its own; `watch` makes each thread's [`Watch`]. `live` tells how it goes and
/// can stop it.
///
/// # Errors
///
/// A plan that cannot be run, a URL that takes no connection at the beginning. A server that goes away later is no
/// error of the run: it is what the counts tell.
pub fn run<W: Watch + Send>(
    plan: &Plan,
    live: &Live,
    mut watch: impl FnMut(usize) -> W,
) -> Result<Outcomes<W>, RunError> {
    check(plan)?;
    let requests: Vec<Requests> = plan
        .traffic
        .iter()
        .map(|traffic| {
            let target = &traffic.target;
            Requests::new(&target.path, &target.host, &plan.headers, &plan.bodies)
        })
        .collect();
    let watches: Vec<W> = (0..plan.threads).map(&mut watch).collect();
    if plan.closed_loop {
        spread(plan, live, watches, |thread, url, traffic| {
            let stages: Duration = traffic.stages.iter().map(|stage| stage.lasts).sum();
            Some(Closed {
                until: nanos(stages),
                number: thread as u64,
                step: plan.threads as u64,
                requests: requests.get(url)?,
            })
        })
    } else {
        spread(plan, live, watches, |thread, url, traffic| {
            let threads = plan.threads as u64;
            Some(Open {
                schedule: Schedule::new(&traffic.stages, thread as u64, threads, traffic.shift),
                requests: requests.get(url)?,
                stopped: None,
            })
        })
    }
}

fn check(plan: &Plan) -> Result<(), RunError> {
    let fails = |why: &str| Err(RunError::Plan(why.to_owned()));
    if plan.traffic.is_empty() {
        return fails("no URL");
    }
    if plan.bodies.is_empty() {
        return fails("no request to send");
    }
    if plan.threads == 0
        || plan
            .traffic
            .iter()
            .any(|traffic| traffic.connections < plan.threads)
    {
        return fails(
            "each thread needs a connection to every URL: more --connections or fewer --threads",
        );
    }
    Ok(())
}

fn spread<'p, W: Watch + Send, F: Feed + Send>(
    plan: &'p Plan,
    live: &Live,
    watches: Vec<W>,
    feed: impl Fn(usize, usize, &'p Traffic) -> Option<F>,
) -> Result<Outcomes<W>, RunError> {
    let together = Barrier::new(plan.threads);
    let start = OnceLock::new();
    let failed = OnceLock::new();
    let stages = plan
        .traffic
        .iter()
        .map(|traffic| traffic.stages.len())
        .max()
        .unwrap_or(1);
    let one =
        |thread: usize, watch: W, lanes: Vec<Lane<F>>| -> Result<Engine<'_, F, W>, RunError> {
            let engine = Engine::new(lanes, plan.limits, watch, live).map_err(std::io::Error::from);
            let engine = engine.map(|mut engine| {
                if let Err((url, _)) = engine.connect() {
                    let _ = failed.set(url);
                }
                engine
            });
            together.wait();
            let mut engine = engine?;
            let _ = thread;
            if let Some(&url) = failed.get() {
                let url = plan
                    .traffic
                    .get(url)
                    .map(|traffic| traffic.target.url.clone());
                return Err(RunError::Connect(url.unwrap_or_default()));
            }
            engine.run(*start.get_or_init(Instant::now));
            Ok(engine)
        };
    let engines = std::thread::scope(|scope| {
        let threads: Vec<_> = watches
            .into_iter()
            .enumerate()
            .map(|(thread, watch)| {
                let lanes = plan
                    .traffic
                    .iter()
                    .enumerate()
                    .filter_map(|(url, traffic)| {
                        let feed = feed(thread, url, traffic)?;
                        let connections = share(traffic.connections, plan.threads, thread);
                        Some(Lane::new(
                            url,
                            traffic.target.address,
                            feed,
                            connections,
                            stages,
                        ))
                    })
                    .collect();
                let one = &one;
                scope.spawn(move || one(thread, watch, lanes))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| RunError::Panicked)?)
            .collect::<Result<Vec<_>, _>>()
    })?;
    let start = start.get().copied().unwrap_or_else(Instant::now);
    let mut outcomes = Outcomes {
        tallies: vec![vec![Tally::default(); stages]; plan.traffic.len()],
        effort: Effort::default(),
        start,
        lasted: start.elapsed(),
        stopped: None,
        watches: Vec::new(),
    };
    for engine in engines {
        outcomes.effort.add(&engine.effort);
        if let Some(stopped) = engine.stopped.map(Duration::from_nanos)
            && stopped < plan.lasts()
        {
            outcomes.stopped = Some(outcomes.stopped.map_or(stopped, |at| at.min(stopped)));
        }
        for lane in &engine.lanes {
            let url = outcomes.tallies.get_mut(lane.target).into_iter().flatten();
            for (sum, tally) in url.zip(&lane.tallies) {
                sum.add(tally);
            }
        }
        outcomes.watches.push(engine.watch);
    }
    Ok(outcomes)
}

/// `whole` in `parts` as even as can be: the size of part `at`.
pub(crate) fn share(whole: usize, parts: usize, at: usize) -> usize {
    whole / parts + usize::from(at < whole % parts)
}
