//! The swap scenario, tiny, against a service in this process: that it works, and that it sees what is wrong.

use std::time::{Duration, Instant};

use kith::config::Config;
use kith::service::Service;
use loadtest::Live;
use loadtest::swap::judge::{Says, read};
use loadtest::swap::{Scenario, Subject, Swapped, against, server, versions};

/// A service in this process, configured as the scenario's own, until the test ends.
struct Kith {
    service: Service,
    subject: Subject,
    _dir: tempfile::TempDir,
}

fn start() -> Kith {
    let dir = tempfile::tempdir().expect("a folder");
    let config = server::config(dir.path(), 2);
    let config = Config::from_toml(&config, "test").expect("a configuration");
    let service = Service::start(config).expect("a service");
    let kith = Kith {
        subject: Subject {
            bid: service.bid_addr(),
            admin: service.admin_addr(),
            pid: std::process::id(),
        },
        service,
        _dir: dir,
    };
    assert!(kith.subject.wait_until_ready(Duration::from_secs(10)));
    kith
}

#[test]
fn every_answer_is_from_a_version_that_was_live() {
    let kith = start();
    let subject = kith.subject;
    let begun = Instant::now();
    let report = against(&Scenario::tiny(), subject, &Live::default(), &|_| ()).expect("a report");
    assert!(begun.elapsed() < Duration::from_secs(30));
    let text = report.text();
    assert!(report.passed(), "{text}");
    // 300 a second for 2.75 seconds.
    assert_eq!(report.verdict.answers, 825, "{text}");
    let swaps = report.swaps;
    assert!(
        swaps.total >= 2 && swaps.uploaded >= 1 && swaps.activated >= 1,
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
    kith.service.drain();
}

/// What was uploaded before is swapped as well: full versions, and deltas over one.
#[test]
fn versions_that_are_there_are_activated_in_turns() {
    for swapped in [Swapped::Full, Swapped::Deltas] {
        let kith = start();
        let scenario = Scenario {
            swapped,
            ..Scenario::tiny()
        };
        let report = against(&scenario, kith.subject, &Live::default(), &|_| ());
        let report = report.expect("a report");
        let text = report.text();
        assert!(report.passed(), "{text}");
        assert_eq!(report.verdict.answers, 825, "{text}");
        let swaps = report.swaps;
        assert!(swaps.activated >= 1 && swaps.rolled_back >= 1, "{text}");
        assert_eq!(swaps.uploaded, 0, "{text}");
        for windows in [&report.quiet, &report.swapping] {
            // A swap that takes longer than its window, on a busy machine, leaves the next one unmeasured.
            assert!(!windows.p99_inside_us.is_empty(), "{text}");
            assert!(windows.p99_inside_us.iter().all(|p99| *p99 > 0.0), "{text}");
        }
        kith.service.drain();
    }
}

/// What the operator does not know of shows as wrong answers: here somebody else changes prices under it.
#[test]
fn an_answer_from_something_else_is_wrong() {
    let kith = start();
    let subject = kith.subject;
    let rogue = versions::campaigns().replace("\"cpm\":\"3\"", "\"cpm\":\"30\"");
    let report = std::thread::scope(|scope| {
        let (begun, begins) = std::sync::mpsc::channel::<()>();
        let rogue = &rogue;
        scope.spawn(move || {
            begins.recv().expect("the first window");
            put(
                subject,
                "campaigns/versions/2",
                "application/json",
                rogue.as_bytes(),
            );
        });
        let begun = std::sync::Mutex::new(begun);
        let say = move |line: &str| {
            if line.contains("window 1 ") {
                begun
                    .lock()
                    .expect("a lock")
                    .send(())
                    .expect("somebody waits");
            }
        };
        against(&Scenario::tiny(), subject, &Live::default(), &say).expect("a report")
    });
    // Version 2 puts everybody in the segment whose price was changed.
    let text = report.text();
    assert!(!report.passed(), "{text}");
    assert!(
        report.verdict.wrong > 0 && report.verdict.right > 0,
        "{text}"
    );
    assert!(
        text.contains("FAILED") && !report.verdict.examples.is_empty(),
        "{text}"
    );
    kith.service.drain();
}

/// A decision that read one id in one version and another in the next would be told from both.
#[test]
fn a_mixture_of_two_versions_shows() {
    let kith = start();
    let subject = kith.subject;
    put(
        subject,
        "campaigns/versions/1",
        "application/json",
        versions::campaigns().as_bytes(),
    );
    let rows = versions::Rows::new(20).of(7).to_vec();
    put(subject, "crm/versions/1", "text/csv", &rows);
    assert_eq!(ask(subject), Says::Segment(7));
    let rows = String::from_utf8(rows).expect("text");
    let (first, second) = rows.split_at(rows.find("uidapi.com").expect("extended ids"));
    let mixed = format!("{first}{}", second.replace("v7", "v8"));
    put(subject, "crm/versions/2", "text/csv", mixed.as_bytes());
    assert_eq!(ask(subject), Says::Mixed);
    kith.service.drain();
}

fn put(subject: Subject, path: &str, media_type: &str, body: &[u8]) {
    let url = format!("http://{}/v1/datasets/{path}", subject.admin);
    let answer = ureq::put(url)
        .content_type(media_type)
        .send(body)
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), 201);
}

/// What the answer to the first request says.
fn ask(subject: Subject) -> Says {
    let url = format!("http://{}/bid/demo", subject.bid);
    let request = versions::requests(20).swap_remove(0);
    let mut answer = ureq::post(url)
        .content_type("application/json")
        .send(request)
        .expect("an answer");
    read(&answer.body_mut().read_to_vec().expect("a body"))
}
