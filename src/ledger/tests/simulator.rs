//! Days of auctions with everything that goes wrong: traffic that swings, notices that are lost, late, doubled, out of order and
//! forged, and crashes. What is told of the books is held against a plain count of what was booked.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::*;

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = self.0;
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn is(&mut self, share: f64) -> bool {
        self.share() < share
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// One run.
struct Run {
    mode: BudgetMode,
    seed: u64,
    auctions: u64,
    days: u64,
    /// Of the line item a day, in impressions at the full price.
    budget: i64,
    crashes: u64,
    /// Of auctions that are won.
    win_rate: f64,
    caps: bool,
    pacing: &'static str,
    /// Seconds until most notices come, on average.
    notice_seconds: f64,
}

/// Mostly they come at once; where they take long, many bids are open when a crash forgets which.
fn notice_seconds_of(seed: u64) -> f64 {
    if seed % 4 == 1 { 900.0 } else { 5.0 }
}

/// As soon as possible is what tries a budget hardest; evenly hides that it would be exceeded.
fn pacing_of(seed: u64) -> &'static str {
    ["asap", "even", "ahead"][(seed / 2 % 3) as usize]
}

/// A notice on its way.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Sent {
    at_ms: i64,
    number: u64,
    kind: u8,
    bid: usize,
    price_millionths: i64,
}

/// What came of a run.
#[derive(Default, Debug)]
struct Result {
    /// By day: booked within windows, and after them.
    days: HashMap<i64, (i64, i64)>,
    /// By hour of the last day.
    hours: [i64; 24],
    /// Requests by hour of the last day.
    requests: [u64; 24],
    /// The largest bound that was declared.
    bound: i64,
    bids: u64,
    booked: u64,
}

const PEOPLE: u64 = 400;
const CAP: u64 = 3;
const CAP_SECONDS: i64 = 6 * 3_600;

/// Traffic at an hour of the day: five times as much at the peak as in the trough.
fn traffic(hour: f64) -> f64 {
    3.0 - 2.0 * ((hour - 4.0) / 24.0 * std::f64::consts::TAU).cos()
}

fn run(run: &Run) -> Result {
    let mut random = Random(run.seed);
    let caps = match run.caps {
        true => r#", "caps": [{"count": 3, "per": "6h"}]"#,
        false => "",
    };
    let budget = run.budget as f64 * COST as f64 / 1e9;
    let pacing = run.pacing;
    let line = format!(r#", "pacing": "{pacing}", "budget": {{"day": "{budget}"}}{caps}"#);
    let book = book(&[&line], "", "");
    let mut world = World::new(run.mode, &book);
    // Midnight in Paris.
    world.now_ms = NOON_MS + 12 * HOUR;
    let begin = world.now_ms;
    world.turn();
    world.keeper.tick(world.now());
    world.write();
    let mut result = Result::default();
    let mut tokens: Vec<(Token, u64)> = Vec::new();
    let mut queue: BinaryHeap<Reverse<Sent>> = BinaryHeap::new();
    let mut shown: HashMap<u64, Vec<i64>> = HashMap::new();
    let mut sent = 0;
    let total = 24 * HOUR * run.days as i64;
    // The mean of the traffic is 3.
    let mean_gap = total as f64 / run.auctions as f64 * 3.0;
    let mut crashes_left = run.crashes;
    let mut is_used_up = false;
    let mut requests = 0;
    let mut ticked = 0;
    while world.now_ms < begin + total {
        let since = world.now_ms - begin;
        let hour = (since % (24 * HOUR)) as f64 / HOUR as f64;
        let gap = mean_gap / traffic(hour) * -(1.0 - random.share()).ln();
        let next = world.now_ms + (gap as i64).max(1);
        while queue.peek().is_some_and(|Reverse(sent)| sent.at_ms <= next) {
            let Some(Reverse(notice)) = queue.pop() else {
                break;
            };
            world.now_ms = world.now_ms.max(notice.at_ms);
            let (token, person) = &tokens[notice.bid];
            let kind = [Kind::Win, Kind::Bill, Kind::Loss][usize::from(notice.kind)];
            let price = format!("{}", 5.0 * notice.price_millionths as f64 / 1e6);
            let booked = world.notice_at(kind, token, &price);
            if matches!(booked.outcome, Outcome::Booked | Outcome::Late) {
                let day = (i64::from(token.at) * 1000 - begin).div_euclid(24 * HOUR);
                let of_day = result.days.entry(day).or_default();
                let late = booked.outcome == Outcome::Late;
                *(if late { &mut of_day.1 } else { &mut of_day.0 }) += booked.nano;
                result.booked += 1;
                if !late {
                    shown.entry(*person).or_default().push(i64::from(token.at));
                }
                if day == run.days as i64 - 1 {
                    let hour = (i64::from(token.at) * 1000 - begin) % (24 * HOUR) / HOUR;
                    result.hours[hour as usize] += booked.nano;
                }
            }
        }
        world.now_ms = next;
        if next - ticked >= 200 {
            ticked = next;
            world.desk.tick();
            world.turn();
            world.keeper.tick(world.now());
            world.write();
            let sums = world.keeper.figures().sums;
            result.bound = sums
                .values()
                .map(|sum| sum.bound)
                .fold(result.bound, i64::max);
        }
        // Mostly soon after a budget is promised whole: that is when forgetting a promise costs most.
        let likely = if is_used_up {
            0.2
        } else {
            0.5 * run.crashes as f64 / run.auctions as f64
        };
        if crashes_left > 0 && random.is(likely) {
            crashes_left -= 1;
            world.crash();
        }
        requests += 1;
        world.desk.request();
        if (next - begin) / (24 * HOUR) == run.days as i64 - 1 {
            result.requests[((next - begin) % (24 * HOUR) / HOUR) as usize] += 1;
        }
        let person = random.below(PEOPLE);
        let bid = world.bid(0, &[u128::from(person) << 64 | 7]);
        is_used_up = bid == Err(Refused::Budget);
        let Ok(token) = bid else {
            continue;
        };
        result.bids += 1;
        let bid = tokens.len();
        tokens.push((token, person));
        let mut send = |random: &mut Random, kind: u8, delay_ms: f64, price: i64| {
            // Now and then one is sent again and again, as exchanges do until they hear an answer.
            let times = if random.is(0.1) {
                1 + random.below(6)
            } else {
                1
            };
            for again in 0..times {
                let at_ms = next + delay_ms as i64 + again as i64 * 10_000;
                sent += 1;
                queue.push(Reverse(Sent {
                    at_ms,
                    number: sent,
                    kind,
                    bid,
                    price_millionths: price,
                }));
            }
        };
        let delay = |random: &mut Random| match random.below(100) {
            0 => random.share() * 2.0 * HOUR as f64,
            1..=4 => random.share() * 600.0 * SECOND as f64,
            _ => -(1.0 - random.share()).ln() * run.notice_seconds * SECOND as f64,
        };
        if random.is(run.win_rate) {
            let price = 500_000 + random.below(500_001) as i64;
            let (win, bill) = (delay(&mut random), delay(&mut random));
            send(&mut random, 0, win, price);
            if !random.is(0.02) {
                send(&mut random, 1, bill, price);
            }
        } else if random.is(0.5) {
            let loss = delay(&mut random);
            send(&mut random, 2, loss, 0);
        }
        if random.is(0.01) {
            // Forged: a bit of a good one is another.
            let text = "AExEfaJv87j9_8y9nPJOlbHPJdxxSPDaG-xgogoFt6fRTh_jnlvwQSShNWO6GMY7OtEWd0Ynk12Ke3bhN_N6R0W8";
            for kind in Kind::ALL {
                assert!(world.desk.open(kind, text).is_err());
            }
        }
    }
    assert!(
        requests > run.auctions * 8 / 10,
        "{requests} of {}",
        run.auctions
    );
    if run.caps && run.mode == BudgetMode::Strict {
        for (person, mut times) in shown {
            times.sort_unstable();
            for window in times.windows(CAP as usize + 1) {
                let within = window[CAP as usize] - window[0] < CAP_SECONDS;
                assert!(
                    !within,
                    "seed {}: person {person} was shown {window:?}",
                    run.seed
                );
            }
        }
    }
    result
}

/// A number from the environment.
pub(super) fn number(name: &str, usual: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(usual, |text| text.parse().expect(name))
}

fn seeds() -> (u64, u64) {
    (number("KITH_SIM_FROM", 0), number("KITH_SIM_SEEDS", 8))
}

#[test]
fn strict_budgets_and_caps_are_never_exceeded() {
    let (from, count) = seeds();
    for seed in from..from + count {
        let budget = 20 + (seed % 7) as i64 * 60;
        let result = run(&Run {
            mode: BudgetMode::Strict,
            seed,
            auctions: 20_000,
            days: 2,
            budget,
            crashes: seed % 5,
            win_rate: 0.05 + (seed % 10) as f64 * 0.09,
            caps: seed % 2 == 0,
            pacing: pacing_of(seed),
            notice_seconds: notice_seconds_of(seed),
        });
        for (day, (within, late)) in &result.days {
            assert!(
                *within <= budget * COST,
                "seed {seed}, day {day}: {within} and {late} late of {}",
                budget * COST
            );
        }
        assert!(result.booked > 0, "seed {seed}: {result:?}");
    }
}

#[test]
fn bounded_budgets_keep_their_declared_bound() {
    let (from, count) = seeds();
    for seed in from..from + count {
        keeps_its_bound(seed);
    }
}

/// Half of its bids are billed later than after ten minutes, when what they come to was once only guessed.
#[test]
fn bids_that_are_billed_late_in_their_window_are_held_for() {
    keeps_its_bound(8_617);
}

fn keeps_its_bound(seed: u64) {
    let budget = 100 + (seed % 7) as i64 * 300;
    let result = run(&Run {
        mode: BudgetMode::Bounded,
        seed,
        auctions: 20_000,
        days: 2,
        budget,
        crashes: seed % 5,
        win_rate: 0.05 + (seed % 10) as f64 * 0.09,
        caps: false,
        pacing: pacing_of(seed),
        notice_seconds: notice_seconds_of(seed),
    });
    let limit = budget * COST;
    for (day, (within, late)) in &result.days {
        let over = within - limit;
        assert!(
            over <= result.bound.min(limit / 100),
            "seed {seed}, day {day}: {over} over {limit}, bound {}, {late} late",
            result.bound
        );
    }
}

/// A day whose traffic is known ends within a hundredth of its budget, and each hour within a tenth of its share of the traffic.
#[test]
#[ignore = "takes minutes; scripts/long-tests runs it"]
#[expect(clippy::print_stderr, reason = "what it came to is to be looked at")]
fn an_even_day_ends_within_a_hundredth_of_its_budget() {
    let (from, count) = seeds();
    for seed in from..from + count {
        let budget = 40_000;
        let win_rate = 0.1 + (seed % 4) as f64 * 0.1;
        let result = run(&Run {
            mode: BudgetMode::Bounded,
            seed,
            auctions: 3_000_000,
            days: 3,
            budget,
            crashes: 0,
            win_rate,
            caps: false,
            pacing: "even",
            notice_seconds: 5.0,
        });
        let limit = budget * COST;
        let (within, late) = result.days[&2];
        let share = (within + late) as f64 / limit as f64;
        let requests: u64 = result.requests.iter().sum();
        let errors: Vec<f64> = result
            .hours
            .iter()
            .zip(result.requests)
            .map(|(spent, count)| {
                *spent as f64 / (limit as f64 * count as f64 / requests as f64) - 1.0
            })
            .collect();
        let worst = errors.iter().map(|error| error.abs()).fold(0.0, f64::max);
        eprintln!(
            "seed {seed}, win rate {win_rate}: {share:.4} of the budget, worst hour {worst:.3}, bound {:.4}, hours {errors:.2?}",
            result.bound as f64 / limit as f64
        );
        assert!((0.99..=1.01).contains(&share), "seed {seed}: {share}");
        assert!(worst < 0.1, "seed {seed}: {errors:?}");
    }
}
