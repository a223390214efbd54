//! The rules file and its tests, as text: as much of YAML as they are written in.
//!
//! What [`expressions`] reads is compared with what Prometheus reads wherever there is one.

use super::rig::file;

/// The rules file.
pub fn text() -> String {
    file("grafana/prometheus/alerts.yml")
}

/// The files of unit tests, one after the other.
pub fn tests() -> String {
    ["alerts_test.yml", "alerts_days_test.yml"]
        .map(|name| file(&format!("grafana/prometheus/{name}")))
        .concat()
}

/// Each alert's name and expression. Folded lines (`>-`) are joined.
pub fn expressions() -> Vec<(String, String)> {
    let mut rules: Vec<(String, String)> = Vec::new();
    // How far the key of a folded expression is indented.
    let mut folded = None;
    for line in text().lines() {
        let trimmed = line.trim();
        let indent = line.len() - line.trim_start().len();
        if let Some(name) = trimmed.strip_prefix("- alert: ") {
            rules.push((name.to_owned(), String::new()));
        }
        let Some((_, expr)) = rules.last_mut() else {
            continue;
        };
        if let Some(begun) = trimmed.strip_prefix("expr: ") {
            folded = (begun == ">-").then_some(indent);
            if folded.is_none() {
                *expr = begun.to_owned();
            }
        } else if folded.is_some_and(|key| indent > key) {
            *expr = format!("{expr} {trimmed}");
        } else {
            folded = None;
        }
    }
    rules
}

/// Every `series: '…'` of the unit tests.
pub fn tested_series() -> Vec<String> {
    let text = tests();
    let series = text.split("series: '").skip(1);
    series
        .map(|rest| rest.split('\'').next().unwrap_or(rest).to_owned())
        .collect()
}
