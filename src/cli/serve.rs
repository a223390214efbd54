//! `kith serve`: the service.

use std::path::PathBuf;

use super::Failure;

/// Run the service
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kith serve                         bids on 127.0.0.1:8080, admin on 127.0.0.1:9090, data in ./data
  kith serve --config kith.toml      `kith check --config kith.toml` says beforehand what is wrong with it
  KITH__BID__LISTEN=0.0.0.0:80 kith serve --config kith.toml")]
pub struct Serve {
    /// The configuration; without one, safe defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Serves until it is told to stop.
pub fn run(args: &Serve) -> Result<(), Failure> {
    let _ = &args.config;
    Err(Failure::new("this build cannot serve yet"))
}
