//! The commands that make a scene for a run: `generate` requests, an `audience`, `campaigns`.
//!
//! All three with the same `--seed` and `--segments` fit together: the requests are about people of the audience, and the
//! campaigns want segments that these are in.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crate::audience::{self, Audience};
use crate::campaigns;
use crate::requests::{Profile, Stream};

/// Which part of a scene to make.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Write bid requests, one a line.
    Generate(Generate),
    /// Write an audience as CSV: `kith upload --dataset crm FILE`.
    Audience(MakeAudience),
    /// Write a campaigns document that wants segments of such an audience.
    Campaigns(MakeCampaigns),
}

/// What all of them take.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// The same seed gives the same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to; standard output if left out.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// `loadtest generate`
#[derive(Debug, clap::Args)]
pub struct Generate {
    /// How many requests.
    #[arg(long)]
    count: u64,
    /// CSV whose first columns are `source,id`: the people to ask about.
    #[arg(long, value_name = "FILE")]
    audience: Option<PathBuf>,
    /// The share of requests that carry an id of the audience.
    #[arg(long, default_value_t = 0.6, value_parser = share, requires = "audience")]
    hit_rate: f64,
    /// mix (0.6 to 6 KB), small (1.5 KB), medium (2.8 KB) or heavy (5 to 6 KB, many imps).
    #[arg(long, default_value = "mix")]
    profile: Profile,
    #[command(flatten)]
    common: Common,
}

/// `loadtest audience`
#[derive(Debug, clap::Args)]
pub struct MakeAudience {
    /// How many ids.
    #[arg(long)]
    count: u64,
    /// How many segments there are in all.
    #[arg(long, default_value_t = 2000)]
    segments: usize,
    #[command(flatten)]
    common: Common,
}

/// `loadtest campaigns`
#[derive(Debug, clap::Args)]
pub struct MakeCampaigns {
    /// How many line items.
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// The dataset that the audience is uploaded as.
    #[arg(long, default_value = "crm")]
    dataset: String,
    /// How many segments the audience has.
    #[arg(long, default_value_t = 2000)]
    segments: usize,
    #[command(flatten)]
    common: Common,
}

/// Why a scene could not be made.
#[derive(Debug)]
pub struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text
        .parse()
        .map_err(|_| "expected a number from 0 to 1, like 0.6".to_owned())?;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("expected a number from 0 to 1".to_owned())
    }
}

/// Makes it. A reader that has seen enough and closes the pipe is no failure.
pub fn run(command: &Command) -> Result<(), Failed> {
    match command {
        Command::Generate(args) => {
            let mut stream = Stream::new(args.profile, args.common.seed);
            if let Some(path) = &args.audience {
                let named =
                    |error: &dyn std::fmt::Display| Failed(format!("{}: {error}", path.display()));
                let file = File::open(path).map_err(|error| named(&error))?;
                let audience = Audience::read(io::BufReader::new(file), args.common.seed)
                    .map_err(|error| named(&error))?;
                if audience.is_empty() {
                    return Err(named(
                        &"has no id that a request can carry: the columns are source,id,segments",
                    ));
                }
                stream = stream.with_audience(Arc::new(audience), args.hit_rate);
            }
            written(&args.common.out, |out| {
                (0..args.count)
                    .try_for_each(|_| writeln!(out, "{}", stream.next().unwrap_or_default()))
            })
        }
        Command::Audience(args) => written(&args.common.out, |out| {
            audience::write(out, args.count, args.segments, args.common.seed).map(drop)
        }),
        Command::Campaigns(args) => written(&args.common.out, |out| {
            let document =
                campaigns::document(args.count, &args.dataset, args.segments, args.common.seed);
            serde_json::to_writer_pretty(&mut *out, &document)?;
            writeln!(out)
        }),
    }
}

fn written(
    path: &Option<PathBuf>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failed> {
    let done = match path {
        Some(path) => File::create(path).and_then(|file| {
            let mut out = BufWriter::new(file);
            write(&mut out)?;
            out.flush()
        }),
        None => {
            let mut out = BufWriter::new(io::stdout().lock());
            write(&mut out).and_then(|()| out.flush())
        }
    };
    match done {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            let place = path.as_ref().map_or("standard output".to_owned(), |path| {
                path.display().to_string()
            });
            Err(Failed(format!("{place}: {error}")))
        }
        Ok(()) => Ok(()),
    }
}
