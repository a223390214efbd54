//! Every due request ends once, in the right place: errors by kind, time-outs, unsent ones, several URLs and threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loadtest::overload::{Overload, Trace};
use loadtest::rehearsal::{Asked, Rehearsal, Reply};
use loadtest::report::Report;
use loadtest::run::{Outcomes, Plan, RunError, Traffic, run};
use loadtest::schedule::Stage;
use loadtest::tally::{ErrorKind, Outcome, Tally};
use loadtest::{Ended, Limits, Live};

fn plan(urls: &[String], rate: f64, seconds: f64, connections: usize) -> Plan {
    let traffic = |url: &String| Traffic {
        target: url.parse().expect("a URL"),
        connections,
        stages: vec![Stage::constant(rate, Duration::from_secs_f64(seconds))],
        shift: 0.0,
    };
    Plan {
        traffic: urls.iter().map(traffic).collect(),
        bodies: (0..5)
            .map(|n| format!("{{\"id\":\"{n}\"}}").into_bytes())
            .collect(),
        headers: Vec::new(),
        limits: Limits::default(),
        threads: 1,
        closed_loop: false,
    }
}

fn errors(tally: &Tally, kind: ErrorKind) -> u64 {
    *tally
        .errors
        .get(kind as usize)
        .expect("a count of each kind")
}

/// One run of 50 requests against a server that answers each of them so.
fn answered_with(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Tally {
    let server = Rehearsal::start(reply).expect("a server");
    let mut plan = plan(&[server.url("/bid/a")], 250.0, 0.2, 16);
    plan.limits.wait = Duration::from_secs(10);
    plan.limits.timeout = Duration::from_millis(150);
    let all = run(&plan, &Live::default(), |_| ()).expect("a run").all();
    assert_eq!((all.due(), all.sent), (50, 50), "{all:?}");
    let ends = all.bids + all.no_bids + all.errors_total() - errors(&all, ErrorKind::Connect);
    assert_eq!(ends, 50, "{all:?}");
    all
}

fn raw(text: &str, close: bool) -> Reply {
    Reply {
        after: Duration::ZERO,
        bytes: text.as_bytes().to_vec(),
        close,
    }
}

#[test]
fn answers_are_told_apart() {
    let bid = answered_with(|_| {
        Reply::ok(
            Duration::ZERO,
            r#"{"id":"1","seatbid":[{"bid":[{"price":1}]}]}"#,
        )
    });
    assert_eq!(bid.bids, 50);
    let nbr = answered_with(|_| Reply::ok(Duration::ZERO, r#"{"id":"1","nbr":2}"#));
    assert_eq!(nbr.no_bids, 50);
    for (reply, close, kind) in [
        (
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
            false,
            ErrorKind::Status4xx,
        ),
        (
            "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
            false,
            ErrorKind::Status5xx,
        ),
        (
            "HTTP/1.1 301 Moved\r\ncontent-length: 0\r\n\r\n",
            false,
            ErrorKind::StatusOther,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            false,
            ErrorKind::Malformed,
        ),
        ("nonsense\r\n\r\n", false, ErrorKind::Malformed),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            false,
            ErrorKind::Chunked,
        ),
        ("", true, ErrorKind::Closed),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{",
            true,
            ErrorKind::Closed,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{",
            false,
            ErrorKind::Timeout,
        ),
    ] {
        let tally = answered_with(move |_| raw(reply, close));
        assert_eq!(errors(&tally, kind), 50, "{reply:?}: {tally:?}");
        assert_eq!(tally.in_time, 0);
    }
}

#[test]
fn a_connection_closed_after_its_answer_is_no_error_and_opened_again() {
    let all = answered_with(|_| raw("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n", true));
    assert_eq!((all.no_bids, all.closed_by_server), (50, 50));
    // Without saying so: the connection is found closed while it is free, or with the next request on it.
    let all = answered_with(|_| raw("HTTP/1.1 204 No Content\r\n\r\n", true));
    assert!(
        all.closed_by_server + errors(&all, ErrorKind::Closed) >= 46,
        "{all:?}"
    );
}

/// A server that accepts and closes, as one does that has too many connections: who storms it measures the storm.
#[test]
fn a_server_that_turns_connections_away_is_not_stormed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let over = std::sync::atomic::AtomicBool::new(false);
    let mut plan = plan(&[format!("http://{address}/")], 100.0, 0.4, 4);
    plan.limits.wait = Duration::from_millis(50);
    let (turned_away, all) = std::thread::scope(|scope| {
        let turning_away = scope.spawn(|| {
            let taken = listener.incoming();
            taken.take_while(|_| !over.load(Ordering::Relaxed)).count()
        });
        let all = run(&plan, &Live::default(), |_| ()).expect("a run").all();
        over.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(address);
        (turning_away.join().expect("a count"), all)
    });
    // Four at the beginning, then four each 20 ms; hundreds each 20 ms without a pause.
    assert!((8..=200).contains(&turned_away), "{turned_away}");
    assert_eq!(all.due(), 40, "{all:?}");
    assert_eq!(all.bids + all.no_bids, 0, "{all:?}");
}

/// Far more than can even be given up: answers are still read in time, and the generator says how busy it was.
#[test]
fn a_rate_beyond_the_generator_shows_and_is_not_blamed_on_the_server() {
    let server = Rehearsal::start(|_| Reply::no_bid(Duration::from_millis(1))).expect("a server");
    let mut plan = plan(&[server.url("/")], 6_000_000.0, 0.2, 2);
    plan.limits.wait = Duration::from_millis(20);
    plan.limits.timeout = Duration::from_millis(400);
    let outcomes = run(&plan, &Live::default(), |_| ()).expect("a run");
    let all = outcomes.all();
    assert_eq!(all.due(), 1_200_000, "{all:?}");
    assert_eq!(all.errors_total(), 0, "{all:?}");
    // All the time but when a machine that is shared was the others'.
    let generator = Report::new(&plan, &outcomes).generator;
    assert!(generator.busy_share > 0.6, "{generator:?}");
    assert!(generator.turn_max_us < 400_000.0, "{generator:?}");
}

#[test]
fn a_timeout_counts_with_the_time_it_took() {
    let all = answered_with(|_| Reply::no_bid(Duration::from_millis(300)));
    assert_eq!(errors(&all, ErrorKind::Timeout), 50);
    assert!(all.latency.quantile_us(0.5) >= 150_000.0, "{all:?}");
}

#[test]
fn what_finds_no_connection_in_time_is_unsent() {
    let server = Rehearsal::start(|_| Reply::no_bid(Duration::from_millis(50))).expect("a server");
    let mut plan = plan(&[server.url("/")], 100.0, 1.0, 1);
    plan.limits.wait = Duration::from_millis(120);
    let all = run(&plan, &Live::default(), |_| ()).expect("a run").all();
    assert_eq!((all.due(), all.sent + all.unsent), (100, 100), "{all:?}");
    // One connection answers 20 a second.
    assert!((60..=90).contains(&all.unsent), "{all:?}");
    assert_eq!(all.errors_total(), 0);
}

#[test]
fn urls_and_threads_share_and_are_counted_apart() {
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let server = Rehearsal::start(|asked| {
        let line = format!("{} {}", asked.line, String::from_utf8_lossy(&asked.body));
        LINES.lock().expect("not poisoned").push(line);
        Reply::no_bid(Duration::ZERO)
    })
    .expect("a server");
    let mut plan = plan(&[server.url("/bid/a"), server.url("/bid/b")], 200.0, 0.5, 4);
    plan.threads = 2;
    if let Some(second) = plan.traffic.get_mut(1) {
        second.stages = vec![Stage::constant(50.0, Duration::from_millis(500))];
    }
    let outcomes = run(&plan, &Live::default(), |_| ()).expect("a run");
    let report = Report::new(&plan, &outcomes);
    let sent: Vec<u64> = report.urls.iter().map(|url| url.figures.sent).collect();
    assert_eq!((report.figures.sent, sent), (125, vec![100, 25]));
    let mut lines = LINES.lock().expect("not poisoned").clone();
    lines.sort();
    // Each line of the file as often as any other, to each URL.
    let mut counts: Vec<usize> = lines.chunk_by(|a, b| a == b).map(<[String]>::len).collect();
    counts.sort_unstable();
    assert_eq!(counts, [5, 5, 5, 5, 5, 20, 20, 20, 20, 20], "{lines:?}");
}

#[test]
fn a_watch_sees_every_end_with_body_and_times() {
    let count = AtomicU64::new(0);
    let server = Rehearsal::start(|asked| {
        Reply::ok(
            Duration::from_millis(5),
            &format!(
                "{{\"seatbid\":[{{\"bid\":[{{}}]}}],\"echo\":{}}}",
                String::from_utf8_lossy(&asked.body)
            ),
        )
    })
    .expect("a server");
    let plan = plan(&[server.url("/")], 100.0, 0.3, 2);
    let outcomes = run(&plan, &Live::default(), |_| {
        |ended: &Ended<'_>| {
            let sent = ended.sent.expect("sent");
            assert!(ended.start <= ended.due && ended.due <= sent && sent < ended.ended);
            assert_eq!((ended.outcome, ended.status), (Outcome::Bid, Some(200)));
            let echo = format!("\"echo\":{{\"id\":\"{}\"}}}}", ended.number % 5);
            assert!(ended.body.ends_with(echo.as_bytes()));
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let outcomes: Outcomes<_> = outcomes.expect("a run");
    assert_eq!(
        (outcomes.all().bids, count.load(Ordering::Relaxed)),
        (30, 30)
    );
}

#[test]
fn a_run_ends_when_it_is_stopped() {
    let server = Rehearsal::start(|_| Reply::no_bid(Duration::ZERO)).expect("a server");
    let plan = plan(&[server.url("/")], 100.0, 60.0, 2);
    let live = Live::default();
    let outcomes = run(&plan, &live, |_| {
        |_: &Ended<'_>| live.stop.store(true, Ordering::Relaxed)
    })
    .expect("a run");
    assert!(outcomes.all().sent < 1000, "{:?}", outcomes.all());
}

#[test]
fn nothing_that_listens_is_an_error_of_the_run() {
    let gone = Rehearsal::start(|_| Reply::no_bid(Duration::ZERO))
        .expect("a server")
        .url("/");
    let plan = plan(&[gone], 100.0, 0.1, 2);
    let error = run(&plan, &Live::default(), |_| ()).expect_err("nobody listens");
    assert!(matches!(error, RunError::Connect(_)), "{error}");
}

#[test]
fn a_request_larger_than_the_sockets_buffers_arrives_whole() {
    let server = Rehearsal::start(|asked| {
        let whole = asked.body.len() == 900_000 && asked.body.ends_with(b"}");
        if whole {
            Reply::no_bid(Duration::ZERO)
        } else {
            raw("", true)
        }
    })
    .expect("a server");
    let mut plan = plan(&[server.url("/")], 40.0, 0.25, 2);
    plan.bodies = [format!("{{\"id\":\"{}\"}}", "x".repeat(900_000 - 9)).into_bytes()].into();
    let all = run(&plan, &Live::default(), |_| ()).expect("a run").all();
    assert_eq!((all.no_bids, all.errors_total()), (10, 0), "{all:?}");
}

#[test]
fn after_an_overload_it_takes_as_long_as_the_backlog() {
    // Four connections of 10 ms each answer 400 a second.
    let server = Rehearsal::start(|_| Reply::no_bid(Duration::from_millis(10))).expect("a server");
    let overload = Overload {
        times: 5.0,
        lasts: Duration::from_secs(1),
        calm: Duration::from_millis(1500),
    };
    let mut plan = plan(&[server.url("/bid/a"), server.url("/bid/b")], 0.0, 1.0, 4);
    plan.limits.wait = Duration::from_millis(300);
    let [loaded, steady] = plan.traffic.as_mut_slice() else {
        unreachable!("two URLs")
    };
    loaded.stages = overload.stages(300.0);
    steady.stages = overload.steady(40.0);
    let outcomes = run(&plan, &Live::default(), |_| Trace::new(&plan)).expect("a run");
    let report = overload.report(&plan, &outcomes, 300.0);
    let [calm, during, after] = report.phases.as_slice() else {
        panic!("three phases")
    };
    assert_eq!((calm.figures.sent, calm.figures.unsent), (225 + 60, 0));
    assert_eq!(during.figures.due, 1500 + 40);
    assert!(during.figures.unsent > 700, "{during:?}");
    assert_eq!(after.figures.errors, 0);
    // Up to 300 ms of backlog, drained at 250 a second more than comes in: some 480 ms.
    let recovered = report.recovered_ms.expect("within the calm");
    assert!((200.0..=1000.0).contains(&recovered), "{recovered} ms");
    // The URL beside it, with connections of its own, did not notice.
    let beside = during.urls.get(1).expect("the second URL");
    assert_eq!(
        (beside.figures.sent, beside.figures.waited.requests),
        (40, 0),
        "{beside:?}"
    );
    assert_eq!(report.report.figures.due, during.figures.due);
}
