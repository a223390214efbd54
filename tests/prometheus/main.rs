//! The dashboard and the alerts of `grafana/` show what Kith exports, and nothing else: no metric can be renamed,
//! relabelled or added without a word here.
//!
//! Two ways. Against Kith's own `/metrics`, always: every metric, label and value that a query names is there. Against a
//! real Prometheus that scrapes a Kith under load, where the program is found: every panel has data, every alert
//! is evaluated over series that meet. `scripts/test` fetches Prometheus and sets `KITH_TEST_PROMETHEUS=required`, by
//! which a missing one is a failure.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test may wait and read its switch, and says what it leaves out"
)]

mod dashboard;
mod exposition;
mod promql;
mod rig;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use exposition::{ADDED, Exposition};
use promql::{selectors, template_labels, unconditional};
use rig::{Kith, Prometheus, file, program, until};
use serde_json::Value;

/// Long enough for some scrapes of the test's Prometheus, short enough to be full soon.
const WINDOW: &str = "3s";
/// Data for everything is there within some two seconds; a machine may stall.
const DATA_WITHIN: Duration = Duration::from_secs(20);

/// What DESIGN §10 promises, without the prefix.
const PROMISED: [&str; 21] = [
    "bid_requests_total",
    "bid_duration_seconds",
    "no_bids_total",
    "bids_total",
    "lookups_total",
    "privacy_total",
    "unreadable_fields_total",
    "dataset_version",
    "dataset_as_of_seconds",
    "dataset_ids",
    "dataset_changed_ids",
    "compactions_total",
    "dataset_bytes",
    "activations_total",
    "activation_duration_seconds",
    "upload_rows_total",
    "generation",
    "overlay_entries",
    "in_flight",
    "shed_total",
    "build_info",
];

/// Exported and in no panel and no alert, because.
const NOT_SHOWN: [(&str, &str); 5] = [
    (
        "kith_dataset_covers_sequence",
        "counts rows, not time; how old a dataset's data is is shown",
    ),
    (
        "kith_ledger_kept",
        "grows and falls with traffic; memory as a whole is shown",
    ),
    (
        "kith_dataset_changed_ids",
        "grows and falls by itself; what is to be known is whether compacting fails, and that is an alert",
    ),
    (
        "kith_people_replay_seconds",
        "is of the last start; how much there is to replay is shown",
    ),
    (
        "process_virtual_memory_bytes",
        "address space that is reserved and not used says nothing; resident memory does",
    ),
];

#[test]
fn the_dashboard_is_one_that_grafana_can_show() {
    let flaws = dashboard::flaws(&dashboard::read());
    assert!(flaws.is_empty(), "\n{}\n", flaws.join("\n"));
}

#[test]
fn a_flaw_of_the_dashboard_is_found() {
    type Break = fn(&mut Value);
    let breaks: [(&str, Break); 7] = [
        ("another panel's", |d| {
            d["panels"][2]["id"] = d["panels"][1]["id"].clone()
        }),
        ("overlaps", |d| {
            d["panels"][2]["gridPos"] = d["panels"][1]["gridPos"].clone()
        }),
        ("outside", |d| d["panels"][1]["gridPos"]["w"] = 25.into()),
        ("no unit", |d| {
            d["panels"][1]["fieldConfig"]["defaults"]["unit"] = "".into()
        }),
        ("description", |d| {
            d["panels"][1]["description"] = "p99".into()
        }),
        ("without expr", |d| {
            d["panels"][1]["targets"][0]["expr"] = "".into()
        }),
        ("variable nowhere", |d| {
            d["panels"][1]["targets"][0]["expr"] = "up{a=\"$nowhere\"}".into()
        }),
    ];
    for (flaw, change) in breaks {
        let mut dashboard = dashboard::read();
        change(&mut dashboard);
        let flaws = dashboard::flaws(&dashboard);
        assert!(
            flaws.iter().any(|found| found.contains(flaw)),
            "{flaw}: {flaws:?}"
        );
    }
}

/// Every name in a panel, an alert or its test is one that Kith exports; every metric that it exports is shown somewhere.
#[test]
fn what_is_asked_for_is_exported_and_the_other_way_round() {
    let kith = Kith::start();
    let metrics = kith.metrics();
    for well in ["kith_ready 1", "kith_storage_writes 1"] {
        assert!(metrics.lines().any(|line| line == well), "{well}");
    }
    let exposition = Exposition::read(&metrics);
    let dashboard = dashboard::read();
    let panels = dashboard::queries(&dashboard);
    let mut asked: Vec<(String, String)> = panels
        .iter()
        .map(|query| (query.place.clone(), query.filled_in(WINDOW)))
        .collect();
    for (name, series, label) in dashboard::variables(&dashboard) {
        let metric = selectors(&series).remove(0).metric;
        let there = exposition.labels_of(&metric).contains(label.as_str())
            || ADDED.contains(&label.as_str());
        assert!(there, "variable {name}: {metric} has no label {label}");
    }
    let rules = rules::expressions();
    assert!(rules.len() > 20, "{rules:?}");
    asked.extend(rules.iter().cloned());

    let mut wrong = Vec::new();
    let mut shown = BTreeSet::new();
    for (place, query) in &asked {
        let selectors = selectors(query);
        assert!(
            !selectors.is_empty(),
            "{place} asks for nothing of Kith's: {query}"
        );
        for selector in &selectors {
            let missing = exposition.missing(selector);
            wrong.extend(missing.iter().map(|what| format!("{place}: {what}")));
            shown.extend(exposition.family_of(&selector.metric).map(str::to_owned));
        }
    }
    for series in rules::tested_series() {
        let selector = selectors(&series).remove(0);
        let missing = exposition.missing(&selector);
        // A test may be of an exchange or dataset of its own; its outcomes, reasons and the like are Kith's.
        let own = |what: &String| what.contains("exchange=\"") || what.contains("dataset=\"");
        wrong.extend(
            missing
                .into_iter()
                .filter(|what| !own(what))
                .map(|what| format!("rule test: {what}")),
        );
        let given: BTreeSet<&str> = selector
            .matchers
            .iter()
            .map(|(label, ..)| label.as_str())
            .collect();
        let mut exported = exposition.labels_of(&selector.metric);
        exported.extend(ADDED);
        if selector.metric != "up" && given != exported {
            wrong.push(format!(
                "rule test: {series} has not the labels {exported:?}"
            ));
        }
    }
    let but: BTreeSet<String> = NOT_SHOWN
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    for name in &exposition.families {
        if shown.contains(name) == but.contains(name) {
            wrong.push(format!("{name} belongs in a panel or an alert, or in NOT_SHOWN with the reason (and not in both)"));
        }
    }
    wrong.extend(
        but.difference(&exposition.families)
            .map(|name| format!("NOT_SHOWN names {name}, which is not exported")),
    );
    wrong.extend(
        PROMISED
            .iter()
            .filter(|name| !exposition.families.contains(&format!("kith_{name}")))
            .map(|name| format!("kith_{name} is promised and not exported")),
    );
    let readme = file("README.md");
    let table = readme
        .split("## Metrics")
        .nth(1)
        .expect("a table of metrics");
    wrong.extend(
        exposition
            .families
            .iter()
            .filter_map(|name| name.strip_prefix("kith_"))
            .filter(|name| !table.contains(&format!("`{name}`")))
            .map(|name| format!("README.md's table of metrics does not have `{name}`")),
    );
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Every alert is in `alerts_test.yml` as one that fires, and in the README with what to do.
#[test]
fn every_alert_is_tested_and_told_of() {
    let tests = rules::tests();
    let readme = file("grafana/README.md");
    for (name, _) in rules::expressions() {
        assert!(
            tests.contains(&format!("alertname=\"{name}\"")),
            "{name} never fires in a rule test"
        );
        assert!(
            readme.contains(&format!("| `{name}` |")),
            "grafana/README.md does not have {name}"
        );
    }
    for part in rules::text().split("- alert: ").skip(1) {
        for wanted in ["severity: ", "summary: ", "description: ", "# "] {
            assert!(part.contains(wanted), "no `{wanted}` in\n{part}");
        }
    }
}

/// Where both programs are, or nothing where they may be missing.
fn programs() -> Option<(PathBuf, PathBuf)> {
    let found = program("prometheus").zip(program("promtool"));
    if found.is_none() {
        let required = ["CI", "KITH_TEST_PROMETHEUS"]
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        assert!(
            !required,
            "prometheus or promtool is missing; scripts/test prometheus fetches both"
        );
        eprintln!("left out: prometheus is not here; scripts/test prometheus fetches it");
    }
    found
}

fn promtool(promtool: &Path, arguments: &[&str], input: &str) {
    let mut child = Command::new(promtool)
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    child
        .stdin
        .take()
        .expect("its input")
        .write_all(input.as_bytes())
        .expect("written");
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "promtool {arguments:?}\n{}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn promtool_finds_configuration_and_rules_well() {
    let Some((_, tool)) = programs() else { return };
    promtool(&tool, &["check", "config", "prometheus.yml"], "");
    promtool(&tool, &["check", "rules", "alerts.yml"], "");
}

#[test]
fn each_alert_fires_when_it_should_and_not_before() {
    let Some((_, tool)) = programs() else { return };
    promtool(
        &tool,
        &["test", "rules", "alerts_test.yml", "alerts_days_test.yml"],
        "",
    );
}

/// A number, and not one that a panel leaves out.
fn finite(series: &Value) -> bool {
    let value = series["value"][1]
        .as_str()
        .and_then(|text| text.parse::<f64>().ok());
    value.is_some_and(f64::is_finite)
}

/// Some series with a number, all of them with the labels that the legend or the alert's text names.
fn has_data(prometheus: &Prometheus, query: &str, labels: &[String]) -> Result<(), String> {
    let series = prometheus
        .query(query)
        .map_err(|e| format!("{e}: {query}"))?;
    if !series.iter().any(finite) {
        return Err(format!("no data: {query}"));
    }
    let lacks = |series: &Value, label: &String| series["metric"][label].as_str().is_none();
    match labels
        .iter()
        .find(|label| series.iter().any(|s| lacks(s, label)))
    {
        Some(label) => Err(format!("a series has no label {label}: {query}")),
        None => Ok(()),
    }
}

#[test]
fn a_real_prometheus_has_data_for_every_panel_and_alert() {
    let Some((server, tool)) = programs() else {
        return;
    };
    let mut kith = Kith::start();
    kith.load();
    let prometheus = Prometheus::start(&server, kith.admin_address());
    promtool(&tool, &["check", "metrics"], &kith.metrics());

    let rules = until("the rules have been evaluated", || {
        let rules = prometheus.rules()?;
        let waits = rules.iter().find(|rule| rule["health"] == "unknown");
        waits.map_or(Ok(rules.clone()), |rule| Err(rule["name"].to_string()))
    });
    // What the other tests read from the file is what Prometheus reads.
    let named = |(name, expr): (String, String)| (name, selectors(&expr));
    let read = rules.iter().map(|rule| {
        let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        named((text("name"), text("query")))
    });
    let written = rules::expressions().into_iter().map(named);
    assert_eq!(
        read.collect::<BTreeMap<_, _>>(),
        written.collect::<BTreeMap<_, _>>()
    );

    let mut questions = Vec::new();
    for query in dashboard::queries(&dashboard::read()) {
        let mut expr = query.filled_in(WINDOW);
        if query.may_be_empty {
            expr = unconditional(&expr, WINDOW);
        }
        questions.push((query.place, expr, template_labels(&query.legend)));
    }
    for rule in &rules {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&rule["name"]);
        assert_eq!(
            (&rule["health"], text(&rule["lastError"])),
            (&"ok".into(), String::new()),
            "{name}"
        );
        let expr = text(&rule["query"]);
        for selector in selectors(&expr) {
            questions.push((name.clone(), selector.to_string(), Vec::new()));
        }
        let annotations = rule["annotations"].as_object().expect("annotations");
        let told: String = annotations.values().map(text).collect();
        let labels = template_labels(&told);
        questions.push((name, unconditional(&expr, WINDOW), labels));
    }
    assert!(questions.len() > 100, "{}", questions.len());
    // Rates need some scrapes: what has no answer yet is asked again, and at the end all that is unanswered is told.
    let deadline = Instant::now() + DATA_WITHIN;
    let mut last = Vec::new();
    loop {
        questions.retain(|(place, query, labels)| {
            let found = has_data(&prometheus, query, labels);
            last.extend(found.as_ref().err().map(|why| format!("{place}: {why}")));
            found.is_err()
        });
        if questions.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "\n{}\n", last.join("\n"));
        last.clear();
        thread::sleep(Duration::from_millis(200));
    }
    // And the whole way once: what is wrong with this Kith, and only that, is noticed.
    until("the alerts of this Kith's state", || {
        let noticed = |rule: &&Value| rule["state"] != "inactive";
        let name = |rule: &Value| rule["name"].as_str().unwrap_or_default().to_owned();
        let noticed: BTreeSet<String> = prometheus
            .rules()?
            .iter()
            .filter(noticed)
            .map(name)
            .collect();
        let wanted = ["KithDatasetStale", "KithVersionHeld"];
        let not = [
            "KithDown",
            "KithNotReady",
            "KithStorageStopped",
            "KithPanicked",
            "KithActivationFailed",
        ];
        let right = wanted.iter().all(|n| noticed.contains(*n))
            && !not.iter().any(|n| noticed.contains(*n));
        if right {
            Ok(())
        } else {
            Err(format!("{noticed:?}"))
        }
    });
    kith.finish();
}
