//! An open-loop load generator for bid endpoints.

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: loadtest::scene::Command,
}

#[expect(clippy::print_stderr, reason = "the outermost layer")]
fn main() -> ExitCode {
    match loadtest::scene::run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("{failed}");
            ExitCode::FAILURE
        }
    }
}
