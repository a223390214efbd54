//! The swap scenario, tiny, against a service in this process: that it works, and that it sees what is wrong.

use std::time::{Duration, Instant};

use kith::config::Config;
use kith::service::Service;
use loadtest::swap::{Scenario, Subject, against};

fn start(dir: &std::path::Path) -> Service {
    let toml = format!(
        "[bid]\nlisten = \"127.0.0.1:0\"\nthreads = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n[data]\ndir = {:?}\n\
         [guards]\nenabled = false\n[exchanges.demo]\ncurrency = \"USD\"\n",
        dir.display().to_string()
    );
    Service::start(Config::from_toml(&toml, "test").expect("a configuration")).expect("a service")
}

#[test]
fn every_answer_is_from_a_version_that_was_live() {
    let dir = tempfile::tempdir().expect("a folder");
    let service = start(dir.path());
    let subject = Subject {
        bid: service.bid_addr(),
        admin: service.admin_addr(),
        pid: std::process::id(),
    };
    let begun = Instant::now();
    let report = against(&Scenario::tiny(), subject, &|_| ()).expect("a report");
    assert!(begun.elapsed() < Duration::from_secs(30));
    let text = report.text();
    assert!(report.passed(), "{text}");
    // 300 a second for 2.75 seconds.
    assert_eq!(report.verdict.answers, 825, "{text}");
    let swaps = report.swaps;
    assert!(
        swaps.total >= 4 && swaps.uploaded >= 1 && swaps.activated >= 1,
        "{text}"
    );
    assert_eq!(
        (report.quiet.windows.len(), report.swapping.windows.len()),
        (2, 2)
    );
    assert_eq!((report.quiet.due, report.swapping.due), (300, 300));
    assert!(
        report.memory.quiet_peak_bytes > 0 && report.memory.swapping_peak_bytes > 0,
        "{text}"
    );
    let json = serde_json::to_value(&report).expect("JSON");
    for key in ["swaps", "verdict", "quiet", "swapping", "memory"] {
        assert!(json[key].is_object(), "{key}");
    }
    service.drain();
}
