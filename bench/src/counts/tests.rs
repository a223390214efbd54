//! Counts without running valgrind: the runner's report as it prints it, and what is said of a change.

use std::collections::BTreeSet;

use super::*;

fn count(part: &str, figure: f64) -> Count {
    Count {
        part: part.to_owned(),
        instructions_per_request: figure,
    }
}

fn counts(parts: &[(&str, f64)]) -> Counts {
    Counts {
        machine: Machine::here().expect("a compiler"),
        parts: parts.iter().map(|(part, f)| count(part, *f)).collect(),
    }
}

#[test]
fn each_verdict_has_its_bound() {
    let verdict = |recorded, now| {
        let part = "read".to_owned();
        Change {
            part,
            recorded,
            now,
        }
        .verdict()
    };
    assert_eq!(verdict(Some(100.0), Some(100.0)), Verdict::Kept);
    assert_eq!(verdict(Some(100.0), Some(102.9)), Verdict::Kept);
    assert_eq!(verdict(Some(100.0), Some(97.1)), Verdict::Kept);
    assert_eq!(verdict(Some(100.0), Some(103.1)), Verdict::More);
    assert_eq!(verdict(Some(100.0), Some(96.9)), Verdict::Less);
    assert_eq!(verdict(None, Some(1.0)), Verdict::New);
    assert_eq!(verdict(Some(1.0), None), Verdict::Gone);
}

#[test]
fn one_part_that_takes_more_is_enough() {
    let recorded = [count("read", 1000.0), count("gate", 10.0)];
    let kept = Comparison::new(&counts(&[("read", 1010.0), ("gate", 10.0)]), &recorded);
    assert!(!kept.is_worse() && !kept.is_outdated());
    let worse = Comparison::new(&counts(&[("read", 100.0), ("gate", 11.0)]), &recorded);
    assert!(worse.is_worse() && worse.is_outdated());
    let table = worse.table();
    let line = |part: &str| {
        let line = table.lines().find(|line| line.starts_with(part));
        line.expect("the part's line").to_owned()
    };
    assert!(line("gate").contains("+10.00 %  MORE"), "{table}");
    assert!(line("read").ends_with("-90.00 %  less"), "{table}");
}

#[test]
fn a_part_that_came_or_went_is_told_and_forgiven() {
    let now = counts(&[("read", 1000.0), ("gate", 10.0)]);
    let comparison = Comparison::new(&now, &[count("read", 1000.0), count("old", 5.0)]);
    assert!(!comparison.is_worse() && comparison.is_outdated());
    let table = comparison.table();
    assert!(table.contains("  new\n") && table.contains("  gone\n"));
}

#[test]
fn the_record_in_the_tree_can_be_read() {
    let record = Record::read(&record_file()).expect("a record");
    let last = record.last().expect("something recorded");
    // Their order in the file is that in which they came to be.
    let recorded: BTreeSet<&str> = last.parts.iter().map(|count| count.part.as_str()).collect();
    let parts: BTreeSet<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(recorded, parts, "record again: bench counts --record");
}

/// A line of the runner's report, without what is not read.
fn reported(part: &str, values: &str) -> String {
    format!(
        r#"{{"baselines":[null,null],"description":"(warm(\"{part}\"))","function_name":"part","id":"{part}","kind":"LibraryBenchmark","profiles":[{{"data":{{"parts":[],"total":{{"metrics":{{"Ir":{{"values":{values}}}}},"regressions":[]}}}},"tool":"Callgrind"}}],"version":"7"}}"#
    ) + "\n"
}

#[test]
fn the_runners_report_is_read_first_time_and_later() {
    let first = r#"{"new":20630}"#;
    let later = r#"{"new":20630,"old":7}"#;
    let report: String = PARTS
        .iter()
        .rev()
        .map(|(name, _)| match *name {
            "gate" => reported(name, later),
            _ => reported(name, first),
        })
        .collect();
    let counted = parse(&format!("noise\n{report}")).expect("a report");
    let names: Vec<&str> = counted.iter().map(|count| count.part.as_str()).collect();
    assert_eq!(names, PARTS.map(|(name, _)| name), "in the order of parts");
    assert!(counted.iter().all(|c| c.instructions_per_request == 206.30));
}

#[test]
fn a_report_that_lacks_something_is_refused() {
    let report = reported("read", r#"{"new":1}"#);
    for (report, told) in [
        (String::new(), "no part \"read\""),
        (report.clone(), "no part \"gate\""),
        (
            reported("read", r#"{"old":1}"#),
            "no instructions of \"read\"",
        ),
        (report.replace(']', ""), "the runner's report: "),
    ] {
        let error = parse(&report).expect_err(told);
        assert!(error.contains(told), "{error}");
    }
}
