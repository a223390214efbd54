//! The command as scripts use it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use loadtest::rehearsal::{Rehearsal, Reply};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(arguments)
        .output()
        .expect("it runs")
}

fn json(output: &Output) -> Value {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn requests() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"{\"id\":\"1\"}\n\n{\"id\":\"2\"}\r\n")
        .expect("written");
    file
}

fn server() -> Rehearsal {
    Rehearsal::start(|_| {
        Reply::ok(
            Duration::ZERO,
            r#"{"id":"1","seatbid":[{"bid":[{"price":1}]}]}"#,
        )
    })
    .expect("a server")
}

#[test]
fn a_run_has_all_figures_and_a_histogram() {
    let (server, requests) = (server(), requests());
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("latency.hlog");
    let (file, log) = (
        requests.path().to_str().expect("a name"),
        log.to_str().expect("a name"),
    );
    let output = loadtest(&[
        "--url",
        &server.url("/bid/a"),
        "--rate",
        "200",
        "--duration",
        "1.5",
        "--connections",
        "4",
        "--requests",
        file,
        "--json",
        "--histogram",
        log,
    ]);
    let report = json(&output);
    for (name, expect) in [
        ("sent", 300),
        ("due", 300),
        ("bids", 300),
        ("no_bids", 0),
        ("errors", 0),
        ("unsent", 0),
    ] {
        assert_eq!(report[name], expect, "{name}");
    }
    assert_eq!(report["asked_rate"], 200.0);
    assert!(
        report["achieved_rate"]
            .as_f64()
            .is_some_and(|rate| rate > 150.0),
        "{report}"
    );
    for percentile in ["p50", "p90", "p99", "p99_9", "p99_99", "max"] {
        assert!(
            report["latency_us"][percentile]
                .as_f64()
                .is_some_and(|us| us > 0.0),
            "{percentile}"
        );
    }
    assert!(report["errors_by_kind"]["timeout"].is_u64() && report["generator_late"].is_u64());
    let text = std::fs::read_to_string(log).expect("a log");
    let mut sum = 0;
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        if let LogEntry::Interval(interval) = entry.expect("a readable entry") {
            sum += decoded(interval.encoded_histogram()).len();
        }
    }
    assert_eq!(sum, 300);
}

fn decoded(encoded: &str) -> Histogram<u64> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .expect("base64");
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .expect("a histogram")
}

#[test]
fn a_search_finds_where_the_server_ends() {
    // One connection at 10 ms: a hundred a second.
    let server = Rehearsal::start(|_| Reply::no_bid(Duration::from_millis(10))).expect("a server");
    let requests = requests();
    let file = requests.path().to_str().expect("a name");
    let output = loadtest(&[
        "--url",
        &server.url("/"),
        "--search",
        "--p99-ms",
        "60",
        "--search-from",
        "40",
        "--trial",
        "0.4",
        "--connections",
        "1",
        "--requests",
        file,
        "--json",
    ]);
    let report = json(&output);
    let rate = report["search"]["rate"].as_f64().expect("a rate");
    assert!((40.0..=115.0).contains(&rate), "{report}");
    assert!(
        report["search"]["trials"]
            .as_array()
            .is_some_and(|trials| trials.len() > 3)
    );
}

#[test]
fn what_is_wrong_is_told() {
    let requests = requests();
    let file = requests.path().to_str().expect("a name");
    for (arguments, code, why) in [
        (
            vec![
                "--url",
                "http://127.0.0.1:1/",
                "--rate",
                "10",
                "--requests",
                file,
            ],
            1,
            "nothing listens there",
        ),
        (
            vec!["--url", "http://127.0.0.1:1/", "--requests", file],
            2,
            "how many requests a second",
        ),
        (
            vec![
                "--url",
                "http://127.0.0.1:1/",
                "--rate",
                "0",
                "--requests",
                file,
            ],
            2,
            "more than 0",
        ),
        (
            vec![
                "--url",
                "http://127.0.0.1:1/",
                "--rate",
                "1",
                "--requests",
                "gone",
            ],
            1,
            "gone",
        ),
        (
            vec![
                "--url",
                "https://127.0.0.1:1/",
                "--rate",
                "1",
                "--requests",
                file,
            ],
            2,
            "only http://",
        ),
        (vec!["--rate", "1"], 2, "--url"),
        // Told before the run, not after it: nothing listens there, and that is not what is complained of.
        (
            vec![
                "--url",
                "http://127.0.0.1:1/",
                "--rate",
                "1",
                "--requests",
                file,
                "--histogram",
                "/nowhere/latency.hlog",
            ],
            1,
            "/nowhere/latency.hlog",
        ),
        (
            vec![
                "--url",
                "http://127.0.0.1:1/",
                "--search",
                "--requests",
                file,
                "--histogram",
                "latency.hlog",
            ],
            2,
            "--histogram",
        ),
    ] {
        let output = loadtest(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
}

#[test]
fn a_file_that_is_not_what_it_was_taken_for_is_told() {
    let server = server();
    let run = |bytes: &[u8]| {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("written");
        let name = file.path().to_str().expect("a name");
        let (url, rate) = (server.url("/bid/a"), "50");
        let output = loadtest(&[
            "--url",
            &url,
            "--rate",
            rate,
            "--duration",
            "0.1",
            "--requests",
            name,
        ]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = run(&[0x1f, 0x8b, 8, 0, b'\n', 1]);
    assert!(code == Some(1) && said.contains("unpack it"), "{said}");
    // One request on several lines, as a person keeps it.
    let (code, said) = run(b"{\"id\":\"1\"}\n\n{\n \"id\":\n\"2\"}\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("3 of 4 lines hold no JSON object, line 3 is"),
        "{said}"
    );
    let (_, said) = run(b"{\"id\":\"1\"}\n");
    assert!(!said.contains("JSON"), "{said}");
}

/// A server that says on a channel whenever it is asked.
fn telling_server() -> (Rehearsal, Receiver<()>) {
    let (told, asked) = channel();
    let told = Mutex::new(told);
    let server = Rehearsal::start(move |_| {
        let _ = told.lock().expect("not poisoned").send(());
        Reply::no_bid(Duration::ZERO)
    });
    (server.expect("a server"), asked)
}

/// Starts a command that would take minutes, and sends it a signal after the server was asked some times.
fn ended_by(signal: Signal, arguments: &[&str]) -> Output {
    let ((server, asked), requests) = (telling_server(), requests());
    let url = server.url("/bid/a");
    let file = requests.path().to_str().expect("a name");
    let child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["--url", &url, "--requests", file, "--json"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    for _ in 0..60 {
        asked
            .recv_timeout(Duration::from_secs(20))
            .expect("a request");
    }
    kill_process(Pid::from_child(&child), signal).expect("a signal");
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_run_that_is_ended_by_hand_tells_what_it_has_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("latency.hlog");
    let name = log.to_str().expect("a name");
    let steady = ["--rate", "200", "--duration", "300", "--histogram", name];
    let report = json(&ended_by(Signal::INT, &steady));
    let sent = report["sent"].as_u64().expect("a count");
    assert!((60..10_000).contains(&sent), "{report}");
    assert_eq!(report["due"], sent, "{report}");
    assert_eq!(report["asked_rate"], 200.0);
    // Rates are over the time until then.
    let seconds = report["stopped_after_seconds"].as_f64().expect("a time");
    let rate = report["achieved_rate"].as_f64().expect("a rate");
    assert!((rate * seconds / sent as f64 - 1.0).abs() < 0.1, "{report}");
    assert!(
        std::fs::read_to_string(&log)
            .expect("a log")
            .contains("HISTF")
    );

    let overload = ["--overload", "5", "--rate", "200", "--duration", "300"];
    let report = json(&ended_by(Signal::TERM, &overload));
    assert!(
        report["phases"][0]["sent"]
            .as_u64()
            .is_some_and(|sent| sent > 10)
    );

    let search = ["--search", "--search-from", "100", "--trial", "0.2"];
    let report = json(&ended_by(Signal::INT, &search));
    assert_eq!(report["search"]["stopped"], true, "{report}");
}

#[test]
fn a_search_whose_server_goes_away_tells_what_it_found() {
    let requests = requests();
    let file = requests.path().to_str().expect("a name");
    let (server, asked) = telling_server();
    let url = server.url("/");
    let child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["--url", &url, "--requests", file, "--json", "--search"])
        .args(["--search-from", "50", "--trial", "0.4", "--p99-ms", "60000"])
        .args(["--timeout-ms", "2000", "--wait-ms", "1000"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    // In the second trial.
    for _ in 0..25 {
        asked
            .recv_timeout(Duration::from_secs(20))
            .expect("a request");
    }
    drop(server);
    let report = json(&child.wait_with_output().expect("it ends"));
    assert_eq!(report["search"]["limited_by"], "connect", "{report}");
    let trials = report["search"]["trials"].as_array().expect("trials");
    assert!(!trials.is_empty(), "{report}");
}
