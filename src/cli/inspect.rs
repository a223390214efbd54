//! `kith inspect`: what a version file holds, once every byte of it was verified.

use std::path::PathBuf;

use super::text::{count, counted, percent, table};
use super::{Failure, print, print_json};
use crate::audience::{
    self, FilterInspection, GraphInspection, Inspection, SetSizes, SetStatistics,
};

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
    if let Some(filter) = &seen.filter {
        text.push_str(&told_of_a_filter(filter));
    }
    if let Some(graph) = &seen.graph {
        text.push_str(&told_of_a_graph(graph));
    }
    text.push_str("parts, in bytes\n");
    let part = |(name, bytes): (&&str, &u64)| {
        let per_id = *bytes as f64 / seen.ids.max(1) as f64;
        [
            (*name).to_owned(),
            count(*bytes),
            format!("{per_id:.3} an id"),
        ]
    };
    text.push_str(&table(
        "  ",
        &seen.parts.iter().map(part).collect::<Vec<_>>(),
    ));
    if let Some(sets) = &seen.sets {
        text.push_str(&told_of_sets(sets, seen.ids));
    }
    if seen.graph.is_none() {
        text.push_str("largest segments, in ids\n");
        let segment = |s: &audience::SegmentSize| [s.name.clone(), count(s.ids)];
        let largest: Vec<_> = seen.largest_segments.iter().map(segment).collect();
        text.push_str(&table("  ", &largest));
    }
    text
}

fn told_of_a_graph(graph: &GraphInspection) -> String {
    let mut text = format!(
        "persons: {}, with {:.2} ids each\nlargest sources, in ids\n",
        count(graph.persons),
        graph.ids_per_person
    );
    let source = |s: &audience::SourceSize| [s.source.clone(), count(s.ids)];
    let largest: Vec<_> = graph.largest_sources.iter().map(source).collect();
    text.push_str(&table("  ", &largest));
    text
}

fn told_of_a_filter(filter: &FilterInspection) -> String {
    let rows = [
        ["declared", &percent(filter.declared_rate)],
        ["by its bits", &percent(filter.expected_rate)],
        ["ids by its bits", &count(filter.estimated_ids)],
    ]
    .map(|row| row.map(str::to_owned));
    let head = "ids that are not in it and that it says are, as a share\n";
    format!("{head}{}", table("  ", &rows))
}

fn told_of_sets(sets: &SetStatistics, ids: u64) -> String {
    let of_all = |part: u64| percent(part as f64 / ids.max(1) as f64);
    let range = |sizes: &SetSizes| {
        let range = match (sizes.from, sizes.to) {
            (1, 1) => "1 segment".to_owned(),
            (from, to) if from == to => format!("{from} segments"),
            (from, to) => format!("{from} to {to} segments"),
        };
        [range, count(sizes.ids), of_all(sizes.ids)]
    };
    let ranges: Vec<_> = sets.sizes.iter().map(range).collect();
    let mut text = format!(
        "sets: {:.2} segments an id, {} at most\n{}",
        sets.mean,
        count(sets.max),
        table("  ", &ranges)
    );
    if sets.shared_sets > 0 {
        text.push_str(&format!(
            "  {} stand once for all; {} ({}) have one of them\n",
            counted(sets.shared_sets, "set"),
            counted(sets.shared_by, "id"),
            of_all(sets.shared_by)
        ));
    }
    if sets.expiring > 0 {
        text.push_str(&format!(
            "  {} may expire\n",
            counted(sets.expiring, "membership")
        ));
    }
    text
}
