//! `loadtest swap-under-load`: the scenario against a server of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::report::Report;
use super::server::{NotServing, Server};
use super::{Scenario, SwapError, Swapped, against};
use crate::cli::args::{count, millis, seconds};
use crate::target::number_of_rate;
use crate::watch::Live;

/// Swap versions under load, hold every answer against the versions that were live, and compare latency and memory with
/// windows without swaps
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 1 where an answer was wrong or missing.
Examples:
  loadtest swap-under-load
  loadtest swap-under-load --tiny
  loadtest swap-under-load --swaps deltas --rounds 20 --window 6
  loadtest swap-under-load --rows 5000000 --window 30 --rounds 3 --json")]
pub(crate) struct SwapArgs {
    /// The `kith` to start; the one beside this binary if left out
    #[arg(long, value_name = "FILE")]
    kith: Option<PathBuf>,
    /// What is swapped for what: what is uploaded meanwhile, or what was uploaded before
    #[arg(long, value_enum, default_value_t)]
    swaps: Swapped,
    /// Small and quick: 4,000 rows, windows of half a second
    #[arg(long)]
    tiny: bool,
    /// Rows of each version [default: 1000000]
    #[arg(long, value_name = "N", value_parser = count_of_rows)]
    rows: Option<usize>,
    /// Requests a second [default: 4000]
    #[arg(long, value_name = "N", value_parser = number_of_rate)]
    rate: Option<f64>,
    /// Connections [default: 16]
    #[arg(long, value_name = "C", value_parser = count)]
    connections: Option<usize>,
    /// Seconds of each window [default: 10]
    #[arg(long, value_name = "S", value_parser = seconds)]
    window: Option<Duration>,
    /// Seconds between windows, which count for neither kind [default: 2]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pause: Option<Duration>,
    /// Windows of each kind [default: 4]
    #[arg(long, value_name = "N", value_parser = count)]
    rounds: Option<usize>,
    /// From one swap to the next [default: 200]
    #[arg(long, value_name = "MS", value_parser = millis)]
    between_ms: Option<Duration>,
    /// Bid threads of the server; 0 is one a core
    #[arg(long, value_name = "N", default_value_t = 1)]
    bid_threads: usize,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl SwapArgs {
    /// What the arguments ask for.
    fn scenario(&self) -> Scenario {
        let base = if self.tiny {
            Scenario::tiny()
        } else {
            Scenario::default()
        };
        Scenario {
            swapped: self.swaps,
            rows: self.rows.unwrap_or(base.rows),
            rate: self.rate.unwrap_or(base.rate),
            connections: self.connections.unwrap_or(base.connections),
            window: self.window.unwrap_or(base.window),
            rounds: self.rounds.unwrap_or(base.rounds),
            pause: self.pause.unwrap_or(base.pause),
            between: self.between_ms.unwrap_or(base.between),
        }
    }

    /// Starts a server and runs the scenario against it.
    pub(crate) fn run(
        &self,
        stop: &Arc<AtomicBool>,
        say: &(dyn Fn(&str) + Sync),
    ) -> Result<Report, SwapError> {
        let kith = match &self.kith {
            Some(path) => path.clone(),
            None => beside().map_err(|why| NotServing::Start("kith".to_owned(), why))?,
        };
        let server = Server::start(&kith, self.bid_threads)?;
        against(&self.scenario(), server.subject, &Live::until(stop), say)
    }
}

/// The `kith` in this binary's folder.
pub(crate) fn beside() -> std::io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("kith"))
}

fn count_of_rows(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(rows @ 2..=100_000_000) => Ok(rows),
        _ => Err("not a number from 2 to 100000000".to_owned()),
    }
}
