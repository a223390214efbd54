//! The policy under a simulated thread: one server, a first-come queue, a probe that queues like everybody else.

use std::collections::VecDeque;

use super::*;

const TARGET: Duration = Duration::from_millis(30);
const ALLOWED: Duration = Duration::from_millis(90);

/// What one exchange sends: requests a second while `from_ms..to_ms`, and what a decision on one costs.
struct Stream {
    per_second: f64,
    from_ms: u64,
    to_ms: u64,
    cost: Duration,
}

enum Waiting {
    Request { stream: usize, arrived: Duration },
    Probe,
}

/// How one request went.
struct Answered {
    stream: usize,
    arrived: Duration,
    took: Duration,
    decided: bool,
    /// What the policy took its wait to be, less what it was.
    error: Duration,
}

/// A pseudo-random number in 0..1 (SplitMix64): the arrivals of a Poisson process, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    }
}

/// Runs the streams through one thread; `shed_cost` is the price of a 204, `stall` a time at which the machine stops,
/// and for how long.
fn run(
    streams: &[Stream],
    shed_cost: Duration,
    stall: Option<(Duration, Duration)>,
) -> Vec<Answered> {
    let mut dice = Dice(7);
    let mut arrivals: Vec<(Duration, usize)> = Vec::new();
    for (stream, s) in streams.iter().enumerate() {
        let mut at = s.from_ms as f64 / 1e3;
        while at < s.to_ms as f64 / 1e3 {
            arrivals.push((Duration::from_secs_f64(at), stream));
            at -= (1.0 - dice.roll()).max(1e-12).ln() / s.per_second;
        }
    }
    arrivals.sort();
    let mut coming = arrivals.into_iter().peekable();
    let start = Instant::now();
    let mut policy = Overload::new(TARGET, streams.iter().map(|_| ALLOWED));
    let (mut queue, mut answered) = (VecDeque::new(), Vec::new());
    let mut clock = Duration::ZERO;
    let mut stall = stall;
    loop {
        if let Some((_, length)) = stall.take_if(|(at, _)| clock >= *at) {
            clock += length;
        }
        while let Some((arrived, stream)) = coming.next_if(|(at, _)| *at <= clock) {
            queue.push_back(Waiting::Request { stream, arrived });
        }
        match queue.pop_front() {
            Some(Waiting::Probe) => {
                if policy.lap_ended(start + clock) {
                    queue.push_back(Waiting::Probe);
                }
            }
            Some(Waiting::Request { stream, arrived }) => {
                let now = start + clock;
                let waited = policy.waited(now);
                let error = waited.abs_diff(clock - arrived);
                let decided = policy.admits(stream, now.checked_sub(waited).expect("a time"), now);
                clock += if decided {
                    streams[stream].cost
                } else {
                    shed_cost
                };
                // What a 204 costs, a request that is decided on costs too: reading it and writing an answer.
                let deciding = streams[stream].cost.saturating_sub(shed_cost);
                if decided && policy.decided(stream, deciding) {
                    policy.lap_begins(start + clock);
                    queue.push_back(Waiting::Probe);
                }
                answered.push(Answered {
                    stream,
                    arrived,
                    took: clock - arrived,
                    decided,
                    error,
                });
            }
            None => match coming.peek() {
                Some((at, _)) => clock = *at,
                None => return answered,
            },
        }
    }
}

fn steady(per_second: f64, cost_us: u64) -> Stream {
    Stream {
        per_second,
        from_ms: 0,
        to_ms: 2_000,
        cost: Duration::from_micros(cost_us),
    }
}

fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

/// Decisions on a stream's requests that arrived within, and its requests then.
fn decided(answered: &[Answered], stream: usize, ms: std::ops::Range<u64>) -> (usize, usize) {
    let within = Duration::from_millis(ms.start)..Duration::from_millis(ms.end);
    let of = answered
        .iter()
        .filter(|a| a.stream == stream && within.contains(&a.arrived));
    let (mut yes, mut all) = (0, 0);
    for one in of {
        yes += usize::from(one.decided);
        all += 1;
    }
    (yes, all)
}

fn longest(answered: &[Answered]) -> Duration {
    answered.iter().map(|a| a.took).max().expect("some")
}

#[test]
fn below_capacity_nothing_is_shed() {
    // 100 µs a decision: 10,000 a second.
    for load in [0.1, 0.5, 0.9] {
        let answered = run(&[steady(10_000.0 * load, 100)], us(10), None);
        assert!(answered.iter().all(|a| a.decided), "at {load}");
    }
    // Nor where a decision is a fifteenth of the target: few in a lap are no queue.
    let answered = run(&[steady(350.0, 2_000)], us(10), None);
    assert!(answered.iter().all(|a| a.decided));
}

#[test]
fn above_capacity_all_is_answered_in_time_and_bids_go_on() {
    // (times the capacity, µs a decision, µs a 204)
    for (times, cost, shed) in [
        (1.2, 100, 10),
        (2.0, 100, 10),
        (5.0, 100, 10),
        (5.0, 1_000, 20),
        (1.6, 12, 6),
    ] {
        let capacity = 1e6 / cost as f64;
        let rate = capacity * times;
        let answered = run(&[steady(rate, cost)], us(shed), None);
        assert!(
            longest(&answered) < ALLOWED,
            "{times}: {:?}",
            longest(&answered)
        );
        // What remains when all that are shed are paid for, per second.
        let possible = (1e6 - rate * shed as f64) / (cost - shed) as f64;
        for second in [0..1_000, 1_000..2_000] {
            let (decided, _) = decided(&answered, 0, second);
            let share = decided as f64 / possible;
            assert!((0.9..1.25).contains(&share), "{times} × {cost} µs: {share}");
        }
        // No stretch of 50 ms without its bids, once laps have found their length.
        for at in (400..1_950).step_by(50) {
            let stretch = Duration::from_millis(at)..Duration::from_millis(at + 50);
            let bids = answered
                .iter()
                .filter(|a| a.decided && stretch.contains(&(a.arrived + a.took)))
                .count();
            let share = bids as f64 / possible * 20.0;
            assert!(share > 0.5, "{times} × {cost} µs at {at} ms: {share}");
        }
        // The queue is as long as it is meant to be.
        let mut late: Vec<_> = answered
            .iter()
            .filter(|a| a.arrived > Duration::from_millis(300))
            .map(|a| a.took)
            .collect();
        late.sort();
        let median = late[late.len() / 2];
        assert!(median < TARGET * 3 / 2, "{times}: {median:?}");
    }
}

/// So many connections, each of which sends its next request as soon as it has its answer: how many decisions and answers
/// a second.
fn closed(connections: usize, cost: Duration, shed_cost: Duration) -> (f64, f64) {
    let start = Instant::now();
    let mut policy = Overload::new(TARGET, [ALLOWED].into_iter());
    let mut queue: VecDeque<bool> = (0..connections).map(|_| true).collect();
    let (mut clock, mut decisions, mut answers) = (Duration::ZERO, 0, 0);
    while clock < Duration::from_secs(2) {
        if queue.pop_front() == Some(false) {
            if policy.lap_ended(start + clock) {
                queue.push_back(false);
            }
            continue;
        }
        let now = start + clock;
        let waited = policy.waited(now);
        let decided = policy.admits(0, now.checked_sub(waited).expect("a time"), now);
        clock += if decided { cost } else { shed_cost };
        queue.push_back(true);
        answers += 1;
        decisions += usize::from(decided);
        if decided && policy.decided(0, cost.saturating_sub(shed_cost)) {
            policy.lap_begins(start + clock);
            queue.push_back(false);
        }
    }
    let seconds = clock.as_secs_f64();
    (decisions as f64 / seconds, answers as f64 / seconds)
}

#[test]
fn clients_that_wait_for_their_answers_are_shed_only_as_far_as_they_are_too_many() {
    // A lap of 64 decisions is far from late.
    let (decisions, answers) = closed(64, us(100), us(16));
    assert_eq!(decisions, answers);
    // A thousand at once are three times too many, and 204s alone take 16 ms: what is left for decisions is the least
    // part of the target, or whoever stands behind them at the client would be late.
    let (decisions, answers) = closed(1_000, us(100), us(16));
    let least = TARGET.as_secs_f64() / BUDGET_PART_MIN as f64;
    let possible = least / (0.016 + least) / 84e-6;
    assert!(
        decisions > 0.9 * possible && answers > 50_000.0,
        "{decisions} of {possible}, {answers}"
    );
}

#[test]
fn what_one_core_cannot_even_refuse_still_gets_bids() {
    // 5 × the capacity at half a decision's cost for a 204: nothing can answer that. Without a bound of connections
    // the queue grows; what is decided must not vanish with it.
    let stream = Stream {
        to_ms: 300,
        ..steady(5.0 * 1e6 / 12.0, 12)
    };
    let answered = run(&[stream], us(6), None);
    let (decided, all) = decided(&answered, 0, 0..2_000);
    assert!(all > 100_000 && decided > 1_000, "{decided} of {all}");
}

#[test]
fn the_estimate_of_the_wait_is_near() {
    let answered = run(&[steady(30_000.0, 100)], us(10), None);
    let mut errors: Vec<_> = answered.iter().skip(3_000).map(|a| a.error).collect();
    errors.sort();
    assert!(
        errors[errors.len() / 2] < TARGET,
        "{:?}",
        errors[errors.len() / 2]
    );
    let idle = run(&[steady(1_000.0, 100)], us(10), None);
    assert!(idle.iter().all(|a| a.error < Duration::from_millis(1)));
}

#[test]
fn after_a_burst_all_is_normal() {
    let burst = Stream {
        per_second: 50_000.0,
        from_ms: 500,
        to_ms: 1_000,
        cost: us(100),
    };
    let answered = run(&[steady(5_000.0, 100), burst], us(10), None);
    assert!(longest(&answered) < ALLOWED);
    let (bids, all) = decided(&answered, 0, 1_150..2_000);
    assert_eq!(bids, all);
    let after = answered
        .iter()
        .filter(|a| a.arrived > Duration::from_millis(1_150));
    let slowest = after.map(|a| a.took).max().expect("some");
    assert!(slowest < Duration::from_millis(3), "{slowest:?}");
}

#[test]
fn a_stall_is_no_overload() {
    for (load, stall_ms) in [(0.5, 7), (0.7, 7), (0.2, 60)] {
        let stall = (Duration::from_millis(700), Duration::from_millis(stall_ms));
        let answered = run(&[steady(10_000.0 * load, 100)], us(10), Some(stall));
        let shed = answered.iter().filter(|a| !a.decided).count();
        assert_eq!(shed, 0, "at {load}, {stall_ms} ms");
    }
}

#[test]
fn an_exchange_below_its_part_is_not_shed_for_another() {
    // (small: requests a second, µs a decision; the other asks for five times the capacity)
    for (rate, cost) in [
        (200.0, 100),
        (2_000.0, 100),
        (2_400.0, 100),
        (100.0, 1_000),
        (60.0, 2_000),
    ] {
        let answered = run(&[steady(50_000.0, 100), steady(rate, cost)], us(10), None);
        let (bids, all) = decided(&answered, 1, 200..2_000);
        // A decision that is longer than the part of a lap has to wait for credit.
        let least = 99;
        assert!(
            bids * 100 >= all * least,
            "{rate} × {cost} µs: {bids} of {all}"
        );
        // What it leaves is the other's.
        let left = (1e6 - 50_000.0 * 10.0 - rate * cost as f64) / 90.0;
        let (bids, _) = decided(&answered, 0, 1_000..2_000);
        assert!(bids as f64 > 0.9 * left, "{rate}: {bids} of {left}");
    }
}

#[test]
fn exchanges_that_ask_for_too_much_get_equal_time() {
    // One asks for ten times as much as the other, whose requests cost three times as much.
    let answered = run(&[steady(40_000.0, 100), steady(4_000.0, 300)], us(10), None);
    let time = |stream, cost| decided(&answered, stream, 300..2_000).0 as f64 * cost;
    let ratio = time(0, 100.0) / time(1, 300.0);
    assert!((0.9..1.1).contains(&ratio), "{ratio}");
    // A third that asks for little, next to both.
    let answered = run(
        &[
            steady(40_000.0, 100),
            steady(4_000.0, 300),
            steady(500.0, 100),
        ],
        us(10),
        None,
    );
    let (bids, all) = decided(&answered, 2, 200..2_000);
    assert!(bids * 100 >= all * 98, "{bids} of {all}");
}

#[test]
fn a_burst_of_one_leaves_the_other_its_part() {
    let burst = Stream {
        per_second: 200_000.0,
        from_ms: 500,
        to_ms: 600,
        cost: us(1_000),
    };
    let answered = run(&[burst, steady(100.0, 1_000)], us(1), None);
    let (bids, all) = decided(&answered, 1, 450..800);
    assert!(bids == all, "{bids} of {all}");
}
