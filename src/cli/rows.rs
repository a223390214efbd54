//! What became of a version's rows, for people.

use serde_json::Value;

use super::text::{count, plain, table};

/// Bad rows that are shown; a script reads all that were kept with `--json`.
const SHOWN_MAX: usize = 20;

/// Numbers of a row report, one a line, and then the bad rows. `inputs` names the files, by number.
pub(super) fn told(report: &Value, inputs: &[String]) -> String {
    let number = |key: &str| report.get(key).and_then(Value::as_u64);
    let counts: Vec<[String; 2]> = [
        ("rows", "rows"),
        ("ids", "ids"),
        ("segments", "segments"),
        ("merged", "merged"),
        ("rejected", "rejected_rows"),
        ("bytes", "bytes"),
    ]
    .into_iter()
    .filter_map(|(what, key)| Some([what.to_owned(), count(number(key)?)]))
    .collect();
    let mut text = table("  ", &counts);
    text.push_str(&rejected(report, inputs));
    text
}

/// The bad rows, each with its line and what to do.
pub(super) fn rejected(report: &Value, inputs: &[String]) -> String {
    let rows = report.get("rejected").and_then(Value::as_array);
    let rows = rows.map(Vec::as_slice).unwrap_or_default();
    let mut text = String::new();
    for row in rows.iter().take(SHOWN_MAX) {
        let input = row.get("input").and_then(Value::as_u64).unwrap_or(0);
        let input = usize::try_from(input).ok().and_then(|at| inputs.get(at));
        let file = match input {
            Some(name) if inputs.len() > 1 => format!("{name} "),
            _ => String::new(),
        };
        let line = row.get("line").and_then(Value::as_u64).unwrap_or(0);
        let reason = row.get("reason").and_then(Value::as_str).unwrap_or("");
        text.push_str(&format!("  {file}line {line}: {}\n", plain(reason)));
    }
    let all = report
        .get("rejected_rows")
        .and_then(Value::as_u64)
        .unwrap_or(rows.len() as u64);
    let more = all.saturating_sub(rows.len().min(SHOWN_MAX) as u64);
    if more > 0 && !rows.is_empty() {
        text.push_str(&format!("  and {} more\n", count(more)));
    }
    text
}
