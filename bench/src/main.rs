//! `bench`: measurements of Kith beside a bare HTTP server.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line prints"
)]

use std::io;
use std::process::ExitCode;

use bench::compare::{self, Effort};
use clap::{Parser, Subcommand};

/// Measures Kith. Wants a quiet machine and a release build: `cargo run --release -p bench -- compare`.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// CPU time a request beside a bare hyper server: same bodies, one core each, in turns.
    Compare {
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
        /// Few people, few requests: whether it works, not how fast.
        #[arg(long)]
        tiny: bool,
        /// Rounds, of which the first warms up.
        #[arg(long)]
        rounds: Option<usize>,
        /// Requests of each row in a round.
        #[arg(long)]
        requests: Option<usize>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> io::Result<()> {
    let Command::Compare {
        json,
        tiny,
        rounds,
        requests,
    } = cli.command;
    let mut effort = if tiny { Effort::TINY } else { Effort::FULL };
    effort.rounds = rounds.unwrap_or(effort.rounds);
    effort.requests = requests.unwrap_or(effort.requests);
    let report = compare::run(effort)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.table());
    }
    Ok(())
}
