//! The command line: what is asked, and how it ended.
//!
//! Every command is a struct of arguments and a function from it to `Result<(), Failure>`. Answers go to standard output,
//! whole and once; everything else goes to standard error. A [`Failure`] is one line that says what to do, and more
//! only where they help: never a `Debug` dump. Exit code 0: done; 1: it could not be, or Kith said no; 2: asked wrongly.
//!
//! A reader that goes away (`kith inspect FILE | head -1`) is no failure.

mod build;
mod check;
mod client;
mod diff;
mod explain;
mod input;
mod inspect;
mod lookup;
mod progress;
mod rows;
pub mod serve;
mod text;
mod upload;

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  kith demo --once                                         see it work, on this machine, in a minute
  kith serve --config kith.toml                            run the service
  kith upload --dataset crm crm.csv                        put a new version into force
  kith explain demo request.json                           why a request is answered as it is

Exit codes: 0 done, 1 failed or refused, 2 asked wrongly.";

/// The audience brain of a real-time bidder: which segments is this person in, and do we want this impression?
#[derive(Debug, Parser)]
#[command(name = "kith", version, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(Demo),
    Serve(serve::Serve),
    Build(build::Build),
    Inspect(inspect::Inspect),
    Diff(diff::Diff),
    Upload(upload::Upload),
    Lookup(lookup::Lookup),
    Explain(explain::Explain),
    Check(check::Check),
    Completions(Completions),
}

/// Show Kith at work: a service on free loopback ports, fixture audiences and campaigns, bids and why
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kith demo                                stays up, so that you can try the URLs it prints
  kith demo --once                         ends when all was shown
  kith demo --requests my-requests.jsonl   with bid requests of your own, one a line")]
struct Demo {
    /// End when all was shown
    #[arg(long)]
    once: bool,
    /// Bid requests to send, one JSON object a line
    #[arg(long, value_name = "FILE")]
    requests: Option<PathBuf>,
}

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kith completions bash > ~/.local/share/bash-completion/completions/kith
  kith completions zsh > \"${fpath[1]}/_kith\"
  kith completions fish > ~/.config/fish/completions/kith.fish")]
struct Completions {
    /// For which shell
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

/// Does what the process's arguments ask.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked) => {
            // Help and version come this way too. Who closed the pipe does not want them.
            let _ = asked.print();
            return exit_code(asked.exit_code());
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => Ok(crate::demo::run(&crate::demo::Options {
            once: args.once,
            requests: args.requests,
        })?),
        Command::Serve(args) => serve::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Upload(args) => upload::run(&args),
        Command::Lookup(args) => lookup::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Completions(args) => completions(&args),
    }
}

fn completions(args: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kith", &mut script);
    print(&String::from_utf8_lossy(&script))
}

fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    /// The first says what is wrong and what to do.
    lines: Vec<String>,
}

impl Failure {
    /// It was asked rightly and could not be done: exit code 1.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            code: 1,
            lines: vec![what.into()],
        }
    }

    /// It was asked wrongly: exit code 2.
    pub fn usage(what: impl Into<String>) -> Self {
        Self {
            code: 2,
            lines: vec![what.into()],
        }
    }

    /// One problem, or how many there are and each below. Exit code 1.
    fn all(problems: Vec<String>) -> Self {
        match problems.as_slice() {
            [one] => Self::new(one),
            all => Self::new(text::counted(all.len() as u64, "problem")).with(problems),
        }
    }

    /// With one more line, shown below and indented.
    #[must_use]
    pub fn and(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// With more lines, shown below and indented.
    #[must_use]
    pub fn with(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.lines.extend(lines);
        self
    }

    /// What is wrong and what to do, without the lines that help.
    fn first_line(&self) -> &str {
        self.lines.first().map_or("", String::as_str)
    }

    fn tell(&self) {
        for (place, line) in self.lines.iter().enumerate() {
            note_as(if place == 0 { "error: " } else { "  " }, line);
        }
    }
}

/// Any error of ours says what to do in its own text.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// Writes an answer to standard output.
fn print(answer: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(answer.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Writes an answer to standard output as indented JSON.
fn print_json(answer: &impl serde::Serialize) -> Result<(), Failure> {
    print(&format!("{}\n", serde_json::to_string_pretty(answer)?))
}

/// Tells on standard error what is worth knowing and no failure.
fn note(line: &str) {
    note_as("note: ", line);
}

fn note_as(prefix: &str, line: &str) {
    // Where standard error is gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "{prefix}{}", text::plain(line));
}
