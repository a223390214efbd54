//! The generator is right: what it measures of a server that waits as it is told is what a queue computes.
//!
//! The queue is computed from the schedule and from how long the server really slept, so a machine that lets it sleep
//! longer does not make the generator wrong. Tolerances are for a machine that is shared: waits of a few milliseconds may come in anywhere, so times to be found
//! are tens of milliseconds, and a measurement that a stall of the machine spoilt is made again, at most
//! [`ATTEMPTS`] times. A generator that is wrong is wrong each time.

use std::collections::HashMap;
use std::time::Duration;

use loadtest::rehearsal::{Rehearsal, Reply, Served};
use loadtest::report::Report;
use loadtest::run::{Plan, Traffic, run};
use loadtest::schedule::{Schedule, Stage};
use loadtest::stall::StallDemo;
use loadtest::{Limits, Live};

const ATTEMPTS: usize = 4;

fn plan(url: &str, connections: usize, stages: Vec<Stage>, bodies: usize) -> Plan {
    Plan {
        traffic: vec![Traffic {
            target: url.parse().expect("a URL"),
            connections,
            stages,
            shift: 0.0,
        }],
        bodies: (0..bodies)
            .map(|n| format!("{{\"id\":\"{n}\"}}").into_bytes())
            .collect(),
        headers: Vec::new(),
        limits: Limits {
            wait: Duration::from_secs(3),
            ..Limits::default()
        },
        threads: 1,
        closed_loop: false,
    }
}

fn number(body: &[u8]) -> u64 {
    let digits: String = String::from_utf8_lossy(body)
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().expect("a number")
}

/// How long the server takes for request `n`: most are quick, some slow, in a fixed order.
fn service_ms(n: u64) -> u64 {
    match n % 20 {
        7 => 120,
        13 => 60,
        _ => 15 + n % 3,
    }
}

/// Milliseconds from due to answered, by request, of a queue with `servers` servers, first come, first served, each
/// request taking as long as the server says it took.
fn computed(stages: &[Stage], servers: usize, served: &[Served]) -> Vec<f64> {
    let took: HashMap<u64, f64> = served
        .iter()
        .map(|served| (number(&served.body), served.took.as_secs_f64() * 1e3))
        .collect();
    let mut schedule = Schedule::new(stages, 0, 1, 0.0);
    let mut free = vec![0.0_f64; servers];
    let mut all = Vec::new();
    while let Some(due) = schedule.peek() {
        let at = due.at as f64 / 1e6;
        let first = free
            .iter_mut()
            .min_by(|a, b| a.total_cmp(b))
            .expect("a server");
        *first = first.max(at) + took.get(&due.number).expect("each request was served");
        all.push(*first - at);
        schedule.advance();
    }
    all.sort_by(f64::total_cmp);
    all
}

fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    *sorted.get(rank.saturating_sub(1)).expect("not empty")
}

/// Within 12 ms and a tenth: more than the machine's usual stalls, less than any two percentiles lie apart.
fn near(measured: f64, computed: f64) -> bool {
    measured >= computed - 1.0 && measured <= computed * 1.1 + 12.0
}

fn check_against_the_model(stages: &[Stage], connections: usize) {
    let server = Rehearsal::start(|asked| {
        Reply::no_bid(Duration::from_millis(service_ms(number(&asked.body))))
    })
    .expect("a server");
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        let plan = plan(&server.url("/"), connections, stages.to_vec(), 20_000);
        let outcomes = run(&plan, &Live::default(), |_| ()).expect("a run");
        let all = outcomes.all();
        let expect = computed(stages, connections, &server.served());
        assert_eq!(
            all.due(),
            expect.len() as u64,
            "every due request ends once"
        );
        assert_eq!(
            (all.no_bids, all.errors_total(), all.unsent),
            (all.due(), 0, 0)
        );
        let rows: Vec<(f64, f64)> = [0.5, 0.75, 0.9, 0.99]
            .map(|q| (all.latency.quantile_us(q) / 1000.0, quantile(&expect, q)))
            .to_vec();
        if rows
            .iter()
            .all(|(measured, computed)| near(*measured, *computed))
        {
            return;
        }
        seen.push(rows);
    }
    panic!("(measured, computed) ms of p50, p75, p90, p99, in each attempt: {seen:?}");
}

#[test]
fn without_a_queue_percentiles_are_the_service_times() {
    check_against_the_model(&[Stage::constant(100.0, Duration::from_secs(2))], 16);
}

#[test]
fn with_a_queue_they_are_those_of_the_queue() {
    // Three servers of 24 ms on average can do 124 a second: slow ones make the others wait.
    check_against_the_model(&[Stage::constant(110.0, Duration::from_secs(2))], 3);
}

#[test]
fn a_ramp_into_overload_is_as_computed() {
    let ramp = Stage {
        from: 20.0,
        to: 180.0,
        lasts: Duration::from_secs(2),
    };
    check_against_the_model(&[ramp], 3);
}

#[test]
fn an_open_loop_sees_the_stall_that_a_closed_one_hides() {
    let demo = StallDemo {
        lasts: Duration::from_secs(2),
        every: Duration::from_secs(1),
        ..StallDemo::default()
    };
    let mut seen = String::new();
    for _ in 0..ATTEMPTS {
        let sides = demo.run().expect("both runs");
        let (open, closed) = (
            sides.open.figures.latency_us,
            sides.closed.figures.latency_us,
        );
        // A tenth of the requests wait for up to 100 ms: the slowest hundredth of all for over 85.
        assert!(open.p99 > 80_000.0, "{open:?}");
        assert!(
            closed.max > 50_000.0,
            "the closed loop met it too: {closed:?}"
        );
        if closed.p99 < 10_000.0 && open.p99_9 > 90_000.0 && open.p99 < 130_000.0 {
            return;
        }
        seen = demo.text(&sides);
    }
    panic!("{seen}");
}

#[test]
fn waiting_is_the_servers_and_lag_is_ours() {
    let server = Rehearsal::start(|_| Reply::no_bid(Duration::from_millis(40))).expect("a server");
    // One connection can do 25 a second.
    let plan = plan(
        &server.url("/"),
        1,
        vec![Stage::constant(50.0, Duration::from_secs(1))],
        1,
    );
    let outcomes = run(&plan, &Live::default(), |_| ()).expect("a run");
    let report = Report::new(&plan, &outcomes);
    let figures = &report.figures;
    assert_eq!((figures.sent, figures.unsent), (50, 0));
    assert!(figures.waited.requests > 40, "{figures:?}");
    assert!(figures.waited.max_us > 800_000.0, "{figures:?}");
    assert!(report.generator.lag_p50_us < 5_000.0, "{report:?}");
    assert!(figures.achieved_rate < 27.0, "{figures:?}");
    assert!(figures.goodput_share < 0.2, "{figures:?}");
}
