//! `bench`: measurements of Kith beside a bare HTTP server.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line prints"
)]

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use bench::beside;
use bench::build;
use bench::compare::{self, Effort};
use bench::counts::{self, Comparison, Record};
use bench::filters;
use bench::rows::People;
use bench::{servers, store, targeting};
use clap::builder::RangedI64ValueParser;
use clap::{Parser, Subcommand, value_parser};

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
        #[arg(long, value_parser = count(2))]
        rounds: Option<u32>,
        /// Only this row and the bare ones, to profile it.
        #[arg(long, value_parser = compare::ROWS)]
        only: Option<String>,
        /// Requests of each row in a round.
        #[arg(long, value_parser = count(1))]
        requests: Option<u32>,
        /// Connections that each have a request under way. With few, a server finds few that are ready together.
        #[arg(long, value_parser = count(1))]
        connections: Option<u32>,
    },
    /// The bare server alone, until its standard input ends: what load does any HTTP server stand?
    Bare,
    /// Kith's filter beside bloomfilter, fastbloom, sbbf-rs and xorf: bits, false positives, times.
    Filters {
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
        /// Keys in each filter.
        #[arg(long, default_value_t = filters::Effort::FULL.keys, value_parser = value_parser!(u64).range(1_000..=1 << 32))]
        keys: u64,
    },
    /// Rows of people that there are not, as CSV on standard output.
    Rows {
        #[command(flatten)]
        people: PeopleArgs,
    },
    /// A version built of such rows: rows a second, CPU time, memory.
    Build {
        #[command(flatten)]
        people: PeopleArgs,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
        /// Threads that build; one a core by default.
        #[arg(long, value_parser = count(1))]
        threads: Option<u32>,
        /// MiB of memory for rows.
        #[arg(long, default_value_t = 2048, value_parser = count(16))]
        memory_mib: u32,
        /// Where the rows and the version lie meanwhile.
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        folder: PathBuf,
    },
    /// Lookups beside one random access to as much memory, under none, one and ten deltas of a hundredth; what a delta takes.
    Store {
        #[command(flatten)]
        people: PeopleArgs,
        /// Only the lookups of this name, to profile them.
        #[arg(long)]
        only: Option<String>,
        /// Rounds, of which the first warms up.
        #[arg(long, value_parser = count(2), default_value_t = 7)]
        rounds: u32,
        /// Only lookups, in this version that `kith build` made of the same people.
        #[arg(long, requires = "key_file")]
        version_file: Option<PathBuf>,
        /// The key it was made under.
        #[arg(long, requires = "version_file")]
        key_file: Option<PathBuf>,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Lookups beside maps in memory, redb and Redis over loopback, all filled with the same people. `scripts/beside` fetches Redis.
    Beside {
        #[command(flatten)]
        people: PeopleArgs,
        /// Rounds, of which the first warms up.
        #[arg(long, value_parser = count(2), default_value_t = 9)]
        rounds: u32,
        /// Lookups of each kind in a round; of Redis a twentieth.
        #[arg(long, value_parser = count(4), default_value_t = 500_000)]
        lookups: u32,
        /// Where files lie meanwhile.
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        folder: PathBuf,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
        /// Only this store, in this process, beside the version in this file.
        #[arg(long, hide = true, requires = "version_file", value_parser = beside::NAMES)]
        store: Option<String>,
        #[arg(long, hide = true)]
        version_file: Option<PathBuf>,
    },
    /// The index of 1,000, 10,000 and 100,000 line items beside the a-tree crate, and beside asking every line item.
    Targeting {
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
        /// Only so many line items.
        #[arg(long, value_parser = count(1))]
        line_items: Option<u32>,
    },
    /// Instructions that each part of a decision takes, beside those recorded. Wants valgrind, and no quiet machine.
    Counts {
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
        /// Add them to bench/record/instructions.tsv.
        #[arg(long)]
        record: bool,
        /// Fail where a part takes over 3 % more than recorded.
        #[arg(long, conflicts_with = "record")]
        check: bool,
    },
}

/// Who is in the rows.
#[derive(Debug, Clone, Copy, clap::Args)]
struct PeopleArgs {
    /// How many ids.
    #[arg(long, default_value_t = 10_000_000, value_parser = value_parser!(u64).range(1..))]
    ids: u64,
    /// Segments there are.
    #[arg(long, default_value_t = 2000, value_parser = value_parser!(u32).range(1..=65_535))]
    segments: u32,
    /// Segments drawn for an id, on average; those that are drawn twice count once.
    #[arg(long, default_value_t = 14.5)]
    mean: f64,
    /// Where the drawing begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl From<PeopleArgs> for People {
    fn from(args: PeopleArgs) -> Self {
        Self {
            ids: args.ids,
            segments: args.segments,
            mean: args.mean,
            seed: args.seed,
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// With fewer there is nothing to divide by, or to leave out.
fn count(least: i64) -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(least..)
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
    match cli.command {
        Command::Compare {
            json,
            tiny,
            rounds,
            requests,
            connections,
            only,
        } => {
            let mut effort = if tiny { Effort::TINY } else { Effort::FULL };
            effort.rounds = rounds.map_or(effort.rounds, |rounds| rounds as usize);
            effort.requests = requests.map_or(effort.requests, |requests| requests as usize);
            effort.connections = connections.map_or(effort.connections, |some| some as usize);
            let report = compare::run(effort, only.as_deref())?;
            if json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                println!("{}", report.table());
            }
            Ok(())
        }
        Command::Bare => {
            let server = servers::bare()?;
            println!("http://{}{}", server.address, server.path);
            io::copy(&mut io::stdin(), &mut io::sink())?;
            Ok(())
        }
        Command::Filters { json, keys } => {
            let effort = filters::Effort {
                keys,
                ..filters::Effort::FULL
            };
            let report = filters::run(effort)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                print!("{}", report.table());
            }
            Ok(())
        }
        Command::Rows { people } => {
            let mut out = io::stdout().lock();
            match People::from(people).write(&mut out, cores()) {
                // Who reads has enough.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                other => other,
            }
        }
        Command::Build {
            people,
            json,
            threads,
            memory_mib,
            folder,
        } => {
            let threads = threads.map_or_else(cores, |threads| threads as usize);
            let memory = u64::from(memory_mib) << 20;
            let report = build::run(people.into(), threads, memory, &folder)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                print!("{}", report.table());
            }
            Ok(())
        }
        Command::Store {
            people,
            only,
            rounds,
            version_file,
            key_file,
            json,
        } => {
            let effort = store::Effort {
                people: people.into(),
                rounds: rounds as usize,
                lookups: 500_000,
                only,
            };
            let report = match (version_file, key_file) {
                (Some(file), Some(key)) => store::run_on(&effort, &file, &key)?,
                _ => store::run(&effort)?,
            };
            if json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                print!("{}", report.table());
            }
            Ok(())
        }
        Command::Beside {
            people,
            rounds,
            lookups,
            folder,
            json,
            store,
            version_file,
        } => {
            let effort = beside::Effort {
                people: people.into(),
                rounds: rounds as usize,
                lookups: lookups as usize,
                folder,
            };
            if let (Some(store), Some(file)) = (store, version_file) {
                let row = beside::measure(&effort, &store, &file)?;
                println!("{}", serde_json::to_string(&row)?);
                return Ok(());
            }
            let report = beside::run(effort, &std::env::current_exe()?)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                print!("{}", report.table());
            }
            Ok(())
        }
        Command::Targeting { json, line_items } => {
            let mut effort = targeting::Effort::full();
            if let Some(count) = line_items {
                effort.line_items = vec![count as usize];
            }
            let report = targeting::run(&effort)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                print!("{}", report.table());
            }
            Ok(())
        }
        Command::Counts {
            json,
            record,
            check,
        } => counts(json, record, check),
    }
}

fn counts(json: bool, record: bool, check: bool) -> io::Result<()> {
    let counts = counts::run()?;
    let file = counts::record_file();
    let mut recorded = Record::read(&file)?;
    let comparison = recorded
        .latest(&counts.machine)
        .map(|latest| Comparison::new(&counts, &latest.parts));
    if json {
        println!("{}", serde_json::to_string_pretty(&counts)?);
    } else if let Some(comparison) = &comparison {
        print!("{}", comparison.table());
    } else {
        print!("{}", counts.table());
    }
    if record {
        recorded.add(counts);
        recorded.write(&file)?;
        eprintln!("recorded in {}", file.display());
        return Ok(());
    }
    match comparison {
        None => eprintln!(
            "not compared: nothing is recorded of {}{}",
            counts.machine,
            recorded.last().map_or_else(String::new, |last| format!(
                "; the last is of {}",
                last.machine
            ))
        ),
        Some(comparison) if check && comparison.is_worse() => {
            return Err(io::Error::other(
                "a part takes more instructions than recorded; where that is meant, \
                 record it (`bench counts --record`) and say why in the commit",
            ));
        }
        Some(comparison) if comparison.is_outdated() => {
            eprintln!("the record is out of date: `bench counts --record`, and commit it");
        }
        Some(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row that there is not was measured as none, and no request at all as NaN.
    #[test]
    fn what_cannot_be_measured_is_refused() {
        let refused = |arguments: [&str; 2]| {
            let all = ["bench", "compare"].into_iter().chain(arguments);
            Cli::try_parse_from(all).is_err()
        };
        for (name, bad, good) in [
            ("--only", "bid", "bid-1.5k"),
            ("--requests", "0", "1"),
            ("--rounds", "1", "2"),
        ] {
            assert!(refused([name, bad]), "{name} {bad}");
            assert!(!refused([name, good]), "{name} {good}");
        }
    }
}
