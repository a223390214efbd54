//! `kith serve`: the service, until it is told to stop.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::config::{Config, ConfigError, environment};
use crate::service::Service;

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

/// Serves until SIGTERM or SIGINT, then answers what is under way and ends.
pub fn run(args: &Serve) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref(), &environment).map_err(|e| match e {
        ConfigError::Refused { problems } => Failure::all(problems),
        other => other.into(),
    })?;
    tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    // Signals are caught before anything starts, so that one that comes early still drains.
    let signals = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = signals.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        )
    };
    let service = Service::start(config)?;
    tracing::info!(bid = %service.bid_addr(), admin = %service.admin_addr(), "serving");
    signals.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    tracing::info!("stopping: requests under way are answered");
    service.drain();
    Ok(())
}
