//! The command line: arguments to a plan, a run, a report.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use clap::Parser;

use crate::engine::{Limits, Live, Watch};
use crate::progress::Progress;
use crate::report::Report;
use crate::run::{Outcomes, Plan, RunError, Traffic, run};
use crate::scene;
use crate::schedule::Stage;
use crate::stall::{DemoError, StallDemo};
use crate::swap;
use crate::target::{TargetArg, number_of_rate};

/// An open-loop load generator for bid endpoints: latency counts from when a request was due
#[derive(Debug, Parser)]
#[command(
    name = "loadtest",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
#[command(after_help = "\
Examples:
  loadtest --url http://127.0.0.1:8080/bid/demo --rate 4000 --duration 15 --connections 16 --requests fixtures/requests.jsonl")]
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
    #[arg(long, value_name = "MS", default_value = "2000", value_parser = millis)]
    every_ms: Duration,
    /// Requests a second of the open loop
    #[arg(long, value_name = "N", default_value = "1000", value_parser = number_of_rate)]
    rate: f64,
    /// Connections of either loop
    #[arg(long, value_name = "C", default_value_t = 4, value_parser = count)]
    connections: usize,
    /// How long either measures, in seconds
    #[arg(long, value_name = "S", default_value = "4", value_parser = seconds)]
    duration: Duration,
    /// Print both reports as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// What to load; several are used in turns. May have its own share: URL,rate=N,connections=C
    #[arg(long = "url", value_name = "URL", required = true)]
    urls: Vec<TargetArg>,
    /// Requests a second, over all URLs that have no rate of their own
    #[arg(long, value_name = "N", value_parser = number_of_rate)]
    rate: Option<f64>,
    /// How long, in seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    duration: Duration,
    /// Connections, over all URLs that have no number of their own
    #[arg(long, value_name = "C", default_value_t = 16, value_parser = count)]
    connections: usize,
    /// OpenRTB requests, one a line, used in turns
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
    /// One more header line of every request, "name: value"
    #[arg(long = "header", value_name = "LINE", value_parser = header)]
    headers: Vec<String>,
    /// An answer counts as good when it comes within this of when its request was due
    #[arg(long, value_name = "MS", default_value = "100", value_parser = millis)]
    deadline_ms: Duration,
    /// A sent request that is not answered within this has failed
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = millis)]
    timeout_ms: Duration,
    /// A due request that finds no free connection within this is not sent
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = millis)]
    wait_ms: Duration,
    /// Threads that send
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = count)]
    threads: usize,
    /// Send whenever a connection is free instead of by a schedule. It hides stalls; for comparison only
    #[arg(long, conflicts_with = "rate")]
    closed: bool,
    /// Print the report as JSON
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
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error(transparent)]
    Scene(#[from] scene::Failed),
    #[error(transparent)]
    Swap(#[from] swap::SwapError),
    #[error("not every answer was right")]
    Wrong,
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    #[error("cannot print: {0}")]
    Json(#[from] serde_json::Error),
}

/// Runs the command that the arguments of this process name.
#[must_use]
pub fn main() -> ExitCode {
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
        (Some(Command::Scene(command)), _) => scene::run(command).map_err(Failure::from),
        (None, Some(args)) => go(args),
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

fn go(args: &RunArgs) -> Result<(), Failure> {
    let plan = plan(args)?;
    let outcomes = watched(&plan, |_| ())?;
    let report = Report::new(&plan, &outcomes);
    if let Some(warning) = report.generator.warning() {
        say(&format!("loadtest: WARNING: {warning}"));
    }
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        out.write_all(report.text().as_bytes())?;
    }
    Ok(())
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
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &sides)?;
        writeln!(out)?;
    } else {
        out.write_all(demo.text(&sides).as_bytes())?;
    }
    Ok(())
}

fn swap_under_load(args: &swap::command::SwapArgs) -> Result<(), Failure> {
    let report = args.run(&say)?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        out.write_all(report.text().as_bytes())?;
    }
    if report.passed() {
        Ok(())
    } else {
        Err(Failure::Wrong)
    }
}

/// A run with its progress on a terminal.
fn watched<W: Watch + Send>(
    plan: &Plan,
    watch: impl FnMut(usize) -> W + Send,
) -> Result<Outcomes<W>, RunError> {
    let live = Live::default();
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
        let outcomes = run(plan, &live, watch);
        drop(done);
        outcomes
    })
}

fn plan(args: &RunArgs) -> Result<Plan, Failure> {
    let sharing = args.urls.iter().filter(|url| url.rate.is_none()).count();
    if sharing > 0 && args.rate.is_none() && !args.closed {
        return Err(Failure::Usage(
            "--rate is missing: how many requests a second?".to_owned(),
        ));
    }
    let unconnected = args
        .urls
        .iter()
        .filter(|url| url.connections.is_none())
        .count();
    let mut shared = 0;
    let traffic = args
        .urls
        .iter()
        .map(|url| {
            let (rate, shift) = match (url.rate, args.rate) {
                (Some(own), _) => (own, 0.0),
                #[expect(clippy::cast_precision_loss, reason = "a handful of URLs")]
                (None, rate) => {
                    let turn = shared as f64 / sharing as f64;
                    shared += 1;
                    (rate.unwrap_or(1.0) / sharing as f64, turn)
                }
            };
            let even = (args.connections / unconnected.max(1)).max(args.threads);
            Traffic {
                target: url.target.clone(),
                connections: url.connections.unwrap_or(even),
                stages: vec![Stage::constant(rate, args.duration)],
                shift,
            }
        })
        .collect();
    Ok(Plan {
        traffic,
        bodies: bodies(&args.requests)?,
        headers: args.headers.clone(),
        limits: Limits {
            deadline: args.deadline_ms,
            wait: args.wait_ms,
            timeout: args.timeout_ms,
        },
        threads: args.threads,
        closed_loop: args.closed,
    })
}

/// The lines of a requests' file; empty ones are none.
fn bodies(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let bytes =
        fs::read(path).map_err(|why| Failure::File(path.display().to_string(), why.to_string()))?;
    let bodies: Vec<Vec<u8>> = bytes
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    if bodies.is_empty() {
        return Err(Failure::File(
            path.display().to_string(),
            "holds no request".to_owned(),
        ));
    }
    Ok(bodies)
}

fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if seconds > 0.0 && seconds <= 86_400.0 {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("not more than 0 and at most a day".to_owned())
    }
}

pub(crate) fn millis(text: &str) -> Result<Duration, String> {
    let millis: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if millis > 0.0 && millis <= 60_000.0 {
        Ok(Duration::from_secs_f64(millis / 1000.0))
    } else {
        Err("not more than 0 and at most a minute".to_owned())
    }
}

pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=100_000) => Ok(count),
        _ => Err("not a number from 1 to 100000".to_owned()),
    }
}

fn header(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once(':').ok_or("not \"name: value\"")?;
    let token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    if name.is_empty()
        || !name.bytes().all(token)
        || !value.bytes().all(|b| (b' '..=b'~').contains(&b))
    {
        return Err("not \"name: value\"".to_owned());
    }
    Ok(text.to_owned())
}
