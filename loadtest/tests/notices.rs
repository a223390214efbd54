//! Playing the exchange against a server that writes down what it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use loadtest::notices::{Notices, NoticesReport, play};
use loadtest::rehearsal::{Rehearsal, Reply};
use loadtest::run::{Plan, Traffic};
use loadtest::schedule::Stage;
use loadtest::{Limits, Live};

/// Plays an auction of 100 bids; the report, and the lines of all notices, sorted.
fn played(settings: &str, host: Option<&str>) -> (NoticesReport, Vec<String>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (writes, host) = (Arc::clone(&heard), host.map(str::to_owned));
    let server = Rehearsal::start(move |asked| {
        if asked.line.starts_with("GET /n/") {
            writes.lock().expect("not poisoned").push(asked.line.clone());
            return Reply::no_bid(Duration::ZERO);
        }
        let body: serde_json::Value = serde_json::from_slice(&asked.body).expect("a request");
        let id = body["id"].as_str().expect("an id");
        let host = host.clone().unwrap_or_else(|| body["host"].as_str().unwrap_or_default().to_owned());
        let url = |kind: &str| {
            format!(
                "http://{host}/n/{kind}/{id}?p=${{AUCTION_PRICE}}&i=${{AUCTION_ID}}&imp=${{AUCTION_IMP_ID}}&l=${{AUCTION_LOSS}}&x=${{NONE}}"
            )
        };
        let bid = serde_json::json!({"impid": "imp 1", "price": 2.5, "nurl": url("win"), "burl": url("bill"), "lurl": url("loss")});
        let response = serde_json::json!({"id": id, "seatbid": [{"seat": "s", "bid": [bid.clone(), bid]}]});
        Reply::ok(Duration::ZERO, &response.to_string())
    })
    .expect("a server");
    let target: loadtest::target::Target = server.url("/bid/a").parse().expect("a URL");
    let plan = Plan {
        bodies: (0..100)
            .map(|n| format!("{{\"id\":\"r{n}\",\"host\":\"{}\"}}", target.host).into_bytes())
            .collect(),
        traffic: vec![Traffic {
            target,
            connections: 4,
            stages: vec![Stage::constant(500.0, Duration::from_millis(200))],
            shift: 0.0,
        }],
        headers: Vec::new(),
        limits: Limits::default(),
        threads: 2,
        closed_loop: false,
    };
    let notices: Notices = settings.parse().expect("settings");
    let (outcomes, report) = play(&plan, &notices, &Live::default(), |_| ()).expect("a run");
    assert_eq!(outcomes.all().bids, 100);
    let mut lines = heard.lock().expect("not poisoned").clone();
    lines.sort();
    (report, lines)
}

#[test]
fn all_win_and_are_billed_once() {
    let (report, lines) = played("win=1,bill=1,late=0,twice=0,never=0,after_ms=5", None);
    // Two bids for one imp: only one of them can win.
    assert_eq!((report.played.won, report.played.lost), (100, 100));
    assert_eq!(lines.len(), 300);
    let expect = |line: &str| {
        assert!(
            lines.contains(&line.to_owned()),
            "{line} is not in {lines:?}"
        )
    };
    expect("GET /n/win/r7?p=2.5&i=r7&imp=imp%201&l=0&x= HTTP/1.1");
    expect("GET /n/bill/r7?p=2.5&i=r7&imp=imp%201&l=0&x= HTTP/1.1");
    expect("GET /n/loss/r7?p=&i=r7&imp=imp%201&l=102&x= HTTP/1.1");
    for kind in ["win", "bill", "loss"] {
        let figures = report.kinds.get(kind).expect("each kind");
        assert_eq!(
            (figures.sent, figures.no_bids, figures.errors),
            (100, 100, 0),
            "{kind}"
        );
    }
}

#[test]
fn shares_hold_and_a_seed_plays_the_same_auction() {
    let settings = "win=0.3,bill=0.5,late=0.2,late_ms=100,twice=0.2,never=0.3,after_ms=5,seed=7";
    let (report, lines) = played(settings, None);
    let p = report.played;
    assert!((30..=70).contains(&p.won), "{p:?}");
    assert!(p.late > 10 && p.twice > 10 && p.never > 20, "{p:?}");
    let total: u64 = report.kinds.values().map(|figures| figures.sent).sum();
    assert_eq!(total, lines.len() as u64);
    let (again, same) = played(settings, None);
    assert_eq!((again.played, same), (p, lines));
    let (_, other) = played("win=0.3,bill=0.5,never=0.3,after_ms=5,late=0,seed=8", None);
    assert_ne!(other.len(), total as usize);
}

#[test]
fn nothing_is_sent_to_other_hosts() {
    let (report, lines) = played("win=1,bill=1,late=0,after_ms=5", Some("127.0.0.1:9"));
    assert!(lines.is_empty());
    assert_eq!(report.played.elsewhere, 300);
}

#[test]
fn settings_that_make_no_sense_are_told() {
    for (text, why) in [
        ("win=2", "share"),
        ("win", "name=value"),
        ("lose=1", "there are win"),
        ("late_ms=-1", "number"),
    ] {
        let error = text.parse::<Notices>().expect_err(text);
        assert!(error.contains(why), "{text}: {error}");
    }
}
