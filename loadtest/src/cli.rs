//! The command line: arguments to a plan, a run, a report.

pub(crate) mod args;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use self::args::{RunArgs, Shape, count, millis, seconds};
use crate::notices::{Notices, NoticesReport, play};
use crate::overload::Trace;
use crate::people;
use crate::progress::Progress;
use crate::report::{Generator, Report};
use crate::run::{Outcomes, Plan, RunError, run};
use crate::scene;
use crate::search::{Found, Search};
use crate::stall::{DemoError, StallDemo};
use crate::swap;
use crate::target::number_of_rate;
use crate::timeline::{self, Row, Timeline};
use crate::watch::{Live, Watch};

/// An open-loop load generator for bid endpoints: latency counts from when a request was due
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
#[command(after_help = "\
Examples:
  loadtest --url http://127.0.0.1:8080/bid/demo --rate 4000 --duration 15 --requests r.jsonl
  loadtest --url http://127.0.0.1:8080/bid/demo --search --p99-ms 5 --requests r.jsonl
  loadtest --url http://127.0.0.1:8080/bid/demo --ramp 0:50000 --duration 60 --requests r.jsonl
  loadtest --url http://127.0.0.1:8080/bid/a --url http://127.0.0.1:8080/bid/b,rate=500,connections=8 \\
           --overload 5 --duration 60 --connections 256 --requests r.jsonl --json")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<RunArgs>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    StallDemo(StallDemoArgs),
    SwapUnderLoad(swap::command::SwapArgs),
    People(people::PeopleArgs),
    #[command(flatten)]
    Scene(scene::Command),
}

/// Show what a closed loop hides: a stalling server, measured both ways
#[derive(Debug, clap::Args)]
struct StallDemoArgs {
    /// How long the server stands still
    #[arg(long, value_name = "MS", default_value = "100", value_parser = millis)]
    stall_ms: Duration,
    /// Once in how long
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = millis)]
    every_ms: Duration,
    /// Requests a second of the open loop
    #[arg(long, value_name = "N", default_value = "1000", value_parser = number_of_rate)]
    rate: f64,
    /// Connections of either loop
    #[arg(long, value_name = "C", default_value_t = 4, value_parser = count)]
    connections: usize,
    /// How long either measures, in seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    duration: Duration,
    /// Print both reports as JSON
    #[arg(long)]
    json: bool,
}

/// Why the command did not do its work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}: {1}")]
    File(String, String),
    #[error("no rate kept the p99 under the bound: nothing to overload by")]
    NoCapacity,
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error(transparent)]
    Scene(#[from] scene::Failed),
    #[error(transparent)]
    Swap(#[from] swap::SwapError),
    #[error(transparent)]
    People(#[from] people::PeopleError),
    #[error("not every answer was right")]
    Wrong,
    #[error("cannot listen to signals: {0}")]
    Signals(io::Error),
    #[error("stopped before the search for a rate to overload by was over")]
    Stopped,
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    #[error("cannot print: {0}")]
    Json(#[from] serde_json::Error),
}

/// Runs the command that the arguments of this process name.
#[must_use]
pub fn main() -> ExitCode {
    raise_file_limit();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let done = match (&cli.command, &cli.run) {
        (Some(Command::StallDemo(args)), _) => stall_demo(args),
        (Some(Command::SwapUnderLoad(args)), _) => swap_under_load(args),
        (Some(Command::People(args)), _) => people_in_real_time(args),
        (Some(Command::Scene(command)), _) => scene::run(command).map_err(Failure::from),
        (None, Some(args)) => measure(args),
        (None, None) => Err(Failure::Usage(
            "--url and --requests are missing; --help tells more".to_owned(),
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("loadtest: {failure}"));
            ExitCode::from(if matches!(failure, Failure::Usage(_)) {
                2
            } else {
                1
            })
        }
    }
}

/// A connection is a file; thousands of them are more than the usual soft limit lets one have.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused: then connections are, and are counted.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Set by the first SIGINT or SIGTERM, so that a run that is ended by hand still tells what it has seen; the second one ends
/// the process.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first one finds it not set yet.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(Failure::Signals)?;
    }
    Ok(stop)
}

fn measure(args: &RunArgs) -> Result<(), Failure> {
    let bodies = args.bodies()?;
    let stop = stop_on_signals()?;
    match args.overload {
        Some(times) => overload(args, times, &bodies, &stop),
        None if args.search => search_only(args, &bodies, &stop),
        None => steady(args, &bodies, &stop),
    }
}

/// A run's report, and how it went over time.
#[derive(Serialize)]
struct Timed<R> {
    #[serde(flatten)]
    report: R,
    #[serde(skip_serializing_if = "Option::is_none")]
    notices: Option<NoticesReport>,
    timeline: Vec<Row>,
}

impl<R: Serialize> Timed<R> {
    /// The notices are told below the report.
    fn tell(&self, json: bool, mut text: String) -> Result<(), Failure> {
        if let Some(notices) = &self.notices {
            text.push_str(&notices.text());
        }
        tell(json, self, &text)
    }
}

/// What a search found, under the figures of its best trial.
#[derive(Serialize)]
struct Searched {
    #[serde(flatten)]
    report: Option<Report>,
    search: Found,
}

fn steady(args: &RunArgs, bodies: &Arc<[Vec<u8>]>, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let plan = args.plan(args.shape()?, args.duration, bodies);
    let log = HistogramLog::create(args.histogram.as_deref())?;
    let (outcomes, notices) =
        watched(&plan, args.notices.as_ref(), stop, |_| Timeline::new(&plan))?;
    let report = Report::new(&plan, &outcomes);
    let timeline = merged(&plan, &outcomes.watches);
    warn(&report.generator);
    let mut text = report.text();
    if args.ramp.is_some() {
        text.insert_str(0, &timeline::text(&timeline.rows()));
    }
    Timed {
        report,
        notices,
        timeline: timeline.rows(),
    }
    .tell(args.json, text)?;
    log.map_or(Ok(()), |log| log.write(&timeline))
}

fn overload(
    args: &RunArgs,
    times: f64,
    bodies: &Arc<[Vec<u8>]>,
    stop: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let log = HistogramLog::create(args.histogram.as_deref())?;
    let capacity = match args.rate {
        Some(rate) => rate,
        None => {
            let found = search(args, bodies, stop)?;
            if found.stopped {
                say(&found.text());
                return Err(Failure::Stopped);
            }
            found
                .best
                .as_ref()
                .map(|_| found.rate)
                .ok_or(Failure::NoCapacity)?
        }
    };
    let overload = args.overload_of(times);
    let plan = args.plan(Shape::Overload(capacity, overload), args.duration, bodies);
    let (outcomes, notices) = watched(&plan, args.notices.as_ref(), stop, |_| {
        (Trace::new(&plan), Timeline::new(&plan))
    })?;
    let mut timelines = Vec::new();
    let outcomes = outcomes.map_watches(|(trace, timeline)| {
        timelines.push(timeline);
        trace
    });
    let timeline = merged(&plan, &timelines);
    let report = overload.report(&plan, &outcomes, capacity);
    warn(&report.report.generator);
    let text = report.text();
    Timed {
        report,
        notices,
        timeline: timeline.rows(),
    }
    .tell(args.json, text)?;
    log.map_or(Ok(()), |log| log.write(&timeline))
}

fn search_only(
    args: &RunArgs,
    bodies: &Arc<[Vec<u8>]>,
    stop: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let mut found = search(args, bodies, stop)?;
    let report = found.best.take();
    let mut text = report.as_ref().map(Report::text).unwrap_or_default();
    text.push_str(&found.text());
    tell(
        args.json,
        &Searched {
            report,
            search: found,
        },
        &text,
    )
}

fn search(
    args: &RunArgs,
    bodies: &Arc<[Vec<u8>]>,
    stop: &Arc<AtomicBool>,
) -> Result<Found, Failure> {
    let search = Search {
        p99: args.p99_ms,
        from: args.search_from,
        trial: args.trial,
    };
    let plan = |rate, lasts| args.plan(Shape::Steady(rate), lasts, bodies);
    let found = search.find(plan, |plan| {
        let outcomes = run(plan, &Live::until(stop), |_| ())?;
        let report = Report::new(plan, &outcomes);
        if io::stderr().is_terminal() {
            let figures = &report.figures;
            say(&format!(
                "{:>10.0} requests/s: p99 {:.1} ms, {} errors",
                figures.asked_rate,
                figures.latency_us.p99 / 1000.0,
                figures.errors
            ));
        }
        Ok(report)
    })?;
    Ok(found)
}

fn stall_demo(args: &StallDemoArgs) -> Result<(), Failure> {
    let demo = StallDemo {
        stall: args.stall_ms,
        every: args.every_ms,
        rate: args.rate,
        connections: args.connections,
        lasts: args.duration,
    };
    let sides = demo.run()?;
    tell(args.json, &sides, &demo.text(&sides))
}

fn swap_under_load(args: &swap::command::SwapArgs) -> Result<(), Failure> {
    let report = args.run(&stop_on_signals()?, &say)?;
    tell(args.json, &report, &report.text())?;
    if report.passed() {
        Ok(())
    } else {
        Err(Failure::Wrong)
    }
}

fn people_in_real_time(args: &people::PeopleArgs) -> Result<(), Failure> {
    let report = args.run(&*stop_on_signals()?, &say)?;
    tell(args.json, &report, &report.text())?;
    if report.passed() {
        Ok(())
    } else {
        Err(Failure::Wrong)
    }
}

/// A run with its progress on a terminal.
fn watched<W: Watch + Send>(
    plan: &Plan,
    notices: Option<&Notices>,
    stop: &Arc<AtomicBool>,
    watch: impl FnMut(usize) -> W + Send,
) -> Result<(Outcomes<W>, Option<NoticesReport>), RunError> {
    let live = Live::until(stop);
    let (done, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        if io::stderr().is_terminal() {
            let live = &live;
            scope.spawn(move || {
                let mut progress = Progress::new();
                while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                    say(&progress.line(live));
                }
            });
        }
        let outcomes = match notices {
            None => run(plan, &live, watch).map(|outcomes| (outcomes, None)),
            Some(notices) => {
                play(plan, notices, &live, watch).map(|(outcomes, report)| (outcomes, Some(report)))
            }
        };
        drop(done);
        outcomes
    })
}

fn merged(plan: &Plan, timelines: &[Timeline]) -> Timeline {
    let mut all = Timeline::new(plan);
    for timeline in timelines {
        all.add(timeline);
    }
    all
}

/// The histogram's file. Made before the run: a name that cannot be written to must not cost an hour's figures.
struct HistogramLog {
    name: String,
    file: File,
    began: SystemTime,
}

impl HistogramLog {
    fn create(path: Option<&Path>) -> Result<Option<Self>, Failure> {
        let create = |path: &Path| {
            let name = path.display().to_string();
            match File::create(path) {
                Ok(file) => Ok(Self {
                    name,
                    file,
                    began: began(),
                }),
                Err(why) => Err(Failure::File(name, why.to_string())),
            }
        };
        path.map(create).transpose()
    }

    fn write(self, timeline: &Timeline) -> Result<(), Failure> {
        timeline
            .write_log(BufWriter::new(self.file), self.began)
            .map_err(|why| Failure::File(self.name, why.to_string()))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the outermost layer of a tool; a log file names its day"
)]
fn began() -> SystemTime {
    SystemTime::now()
}

fn tell(json: bool, report: &impl Serialize, text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

fn warn(generator: &Generator) {
    if let Some(warning) = generator.warning() {
        say(&format!("loadtest: WARNING: {warning}"));
    }
}

fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
