//! `kith diff`: what changed from one version file of a dataset to another.

use std::path::PathBuf;

use super::text::{count, counted, percent, table};
use super::{Failure, print, print_json};
use crate::audience::{self, Difference, Inspection};

/// Segments that are shown; `--json` has all.
const SHOWN_MAX: usize = 40;

/// Show what changed from one version file of a dataset to another
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Both files are verified to the last byte. Compared is what they say: header, counts, and the size of each segment. Who came
and who went is in neither: each version has fingerprints of its own.

Exit code 0 when they could be compared, whatever is different.

Examples:
  kith diff crm-7.kith crm-8.kith
  kith diff crm-7.kith crm-8.kith --json | jq '.segments.removed[].name'")]
pub(super) struct Diff {
    /// The version file before
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The version file after
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Diff) -> Result<(), Failure> {
    let difference = audience::diff(&args.before, &args.after)?;
    let (before, after) = (&difference.before, &difference.after);
    if before.dataset != after.dataset {
        return Err(Failure::new(format!(
            "{} is a version of {}, {} of {}; two versions of one dataset can be compared",
            args.before.display(),
            before.dataset,
            args.after.display(),
            after.dataset
        )));
    }
    if args.json {
        return print_json(&difference);
    }
    print(&told(&difference))
}

fn told(difference: &Difference) -> String {
    let (before, after) = (&difference.before, &difference.after);
    let mut text = format!(
        "{}: version {} and version {}\n",
        before.dataset, before.version, after.version
    );
    let head = ["", "BEFORE", "AFTER", "CHANGE"].map(str::to_owned);
    let rows = std::iter::once(head)
        .chain(facts(before, after))
        .chain(counts(before, after));
    text.push_str(&table("  ", &rows.collect::<Vec<_>>()));
    text.push_str(&segments(difference));
    text.push_str(match difference.same_salt {
        true => "Both were built under one number: which ids differ is not compared.\n",
        false => {
            "Which ids came and went cannot be told: each version has fingerprints under a salt of its own, so that files cannot be \
             joined.\n"
        }
    });
    text
}

/// What a header says, where the two do not say the same.
fn facts(before: &Inspection, after: &Inspection) -> impl Iterator<Item = [String; 4]> {
    let as_of = |of: &Inspection| of.as_of.map_or("not said".to_owned(), |at| at.to_string());
    let fact =
        |name: &str, of: &dyn Fn(&Inspection) -> String| (name.to_owned(), of(before), of(after));
    let declared = |of: &Inspection| of.filter.as_ref().map(|f| percent(f.declared_rate));
    let expected = |of: &Inspection| of.filter.as_ref().map(|f| percent(f.expected_rate));
    [
        fact("kind", &|of| of.kind.to_string()),
        fact("version", &|of| of.version.to_string()),
        fact("format", &|of| of.format.to_string()),
        fact("as of", &as_of),
        fact("made under key", &|of| of.key_id.clone()),
        fact("errors declared", &|of| declared(of).unwrap_or_default()),
        fact("errors by its bits", &|of| expected(of).unwrap_or_default()),
    ]
    .into_iter()
    .filter(|(_, before, after)| before != after)
    .map(|(name, before, after)| [name, before, after, String::new()])
}

fn counts(before: &Inspection, after: &Inspection) -> Vec<[String; 4]> {
    let all = [
        ("ids", before.ids, after.ids),
        ("rows", before.rows, after.rows),
        ("memberships", before.memberships, after.memberships),
        ("segments", before.segments, after.segments),
        ("bytes", before.bytes, after.bytes),
    ];
    let mut rows: Vec<_> = all
        .into_iter()
        .map(|(name, before, after)| row(name, before, after))
        .collect();
    let per_id = |of: &Inspection| format!("{:.2}", of.bytes_per_id);
    rows.push([
        "bytes an id".to_owned(),
        per_id(before),
        per_id(after),
        String::new(),
    ]);
    rows
}

fn row(name: &str, before: u64, after: u64) -> [String; 4] {
    [
        name.to_owned(),
        count(before),
        count(after),
        change(before, after),
    ]
}

/// By how much a count is another one: `+1,200 (+3.4 %)`; nothing where it is the same.
fn change(before: u64, after: u64) -> String {
    let sign = match after.cmp(&before) {
        std::cmp::Ordering::Equal => return String::new(),
        std::cmp::Ordering::Less => '-',
        std::cmp::Ordering::Greater => '+',
    };
    let by = after.abs_diff(before);
    if before == 0 {
        return format!("{sign}{}", count(by));
    }
    let share = 100.0 * by as f64 / before as f64;
    format!("{sign}{} ({sign}{share:.1} %)", count(by))
}

fn segments(difference: &Difference) -> String {
    let of = &difference.segments;
    let mut text = format!(
        "{} added, {} removed, {} of another size, {} of the same\n",
        counted(of.added.len() as u64, "segment"),
        of.removed.len(),
        of.resized.len(),
        of.same_size
    );
    let mut rows: Vec<(u64, [String; 4])> = Vec::new();
    for segment in &of.added {
        rows.push((
            segment.ids,
            [
                segment.name.clone(),
                "none".to_owned(),
                count(segment.ids),
                "added".to_owned(),
            ],
        ));
    }
    for segment in &of.removed {
        rows.push((
            segment.ids,
            [
                segment.name.clone(),
                count(segment.ids),
                "none".to_owned(),
                "removed".to_owned(),
            ],
        ));
    }
    for segment in &of.resized {
        let by = segment.before.abs_diff(segment.after);
        rows.push((by, row(&segment.name, segment.before, segment.after)));
    }
    if rows.is_empty() {
        return text;
    }
    // The largest changes first, whatever they are; equal ones by name.
    rows.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let more = rows.len().saturating_sub(SHOWN_MAX);
    let head = ["SEGMENT", "BEFORE", "AFTER", "CHANGE"].map(str::to_owned);
    let shown = rows.into_iter().map(|(_, row)| row).take(SHOWN_MAX);
    let shown: Vec<_> = std::iter::once(head).chain(shown).collect();
    text.push_str(&table("  ", &shown));
    if more > 0 {
        text.push_str(&format!(
            "  and {}; --json has all\n",
            counted(more as u64, "more segment")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::change;

    #[test]
    fn changes_have_a_sign_and_a_share() {
        let shown = [(5, 5), (1000, 2200), (3, 2), (0, 7)].map(|(a, b)| change(a, b));
        assert_eq!(shown, ["", "+1,200 (+120.0 %)", "-1 (-33.3 %)", "+7"]);
    }
}
