//! `kith inspect`: what a version file holds, once every byte of it was verified.

use std::path::PathBuf;

use super::text::{count, table};
use super::{Failure, print, print_json};
use crate::audience::{self, Inspection};

/// Show what a version file holds; verifies every checksum
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 1 when the file is damaged, cut or no version file, with what is wrong.

Examples:
  kith inspect crm-7.kith
  kith inspect crm-7.kith --json | jq .ids")]
pub(super) struct Inspect {
    /// A version file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Inspect) -> Result<(), Failure> {
    let inspection = audience::inspect(&args.file)?;
    if args.json {
        return print_json(&inspection);
    }
    print(&told(&args.file.display().to_string(), &inspection))
}

fn told(file: &str, seen: &Inspection) -> String {
    let as_of = seen
        .as_of
        .map_or("not said".to_owned(), |at| at.to_string());
    let bytes = format!("{} ({:.2} an id)", count(seen.bytes), seen.bytes_per_id);
    let rows = [
        ["dataset", seen.dataset.as_str()],
        ["kind", seen.kind.as_str()],
        ["version", &seen.version.to_string()],
        ["as of", &as_of],
        ["made under key", &seen.key_id],
        ["format", &seen.format.to_string()],
        ["ids", &count(seen.ids)],
        ["rows", &count(seen.rows)],
        ["segments", &count(seen.segments)],
        ["memberships", &count(seen.memberships)],
        ["bytes", &bytes],
    ]
    .map(|row| row.map(str::to_owned));
    let mut text = format!("{file}: every checksum is right\n");
    text.push_str(&table("  ", &rows));
    text.push_str("parts, in bytes\n");
    let part = |(name, bytes): (&&str, &u64)| [(*name).to_owned(), count(*bytes)];
    text.push_str(&table(
        "  ",
        &seen.parts.iter().map(part).collect::<Vec<_>>(),
    ));
    text.push_str("largest segments, in ids\n");
    let segment = |s: &audience::SegmentSize| [s.name.clone(), count(s.ids)];
    let largest: Vec<_> = seen.largest_segments.iter().map(segment).collect();
    text.push_str(&table("  ", &largest));
    text
}
