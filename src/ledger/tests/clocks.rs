//! Clocks that leap: what was promised stays promised, and nothing is booked or budgeted twice.

use std::time::{Duration, Instant};

use super::simulator::Random;
use super::*;
use crate::clock::Guarded;

const TEN_A_DAY: &str = r#", "budget": {"day": "0.05"}, "pacing": "asap""#;

/// The wall clock leaps by days, for less than a minute each time: by the guarded time that the books go by a day's budget is never
/// exceeded, and no notice that comes in time is refused or late.
#[test]
fn leaps_that_do_not_last_change_nothing() {
    for seed in 0..simulator::number("KITH_SIM_SEEDS", 8) {
        let mut random = Random(seed);
        let mut world = World::new(BudgetMode::Strict, &book(&[TEN_A_DAY], "", ""));
        let (begun, begin_ms) = (Instant::now(), world.now_ms);
        let mut guarded = Guarded::new(world.now(), begun);
        // Of the true time: now, and until when the wall clock is off by how much.
        let (mut passed_ms, mut off_until, mut off_ms) = (0, 0, 0);
        let mut open: Vec<(i64, Token)> = Vec::new();
        let mut spent = std::collections::HashMap::new();
        let mut leaps = 0;
        while passed_ms < 30 * HOUR {
            passed_ms += 200 + random.below(20_000) as i64;
            if passed_ms >= off_until {
                off_ms = 0;
                if random.is(0.05) {
                    leaps += 1;
                    off_until = passed_ms + 1 + random.below(55_000) as i64;
                    off_ms = random.below(6 * 86_400_000) as i64 - 3 * 86_400_000;
                }
            }
            let wall = Timestamp::from_unix_ms(begin_ms + passed_ms + off_ms);
            let now = begun + Duration::from_millis(passed_ms.unsigned_abs());
            world.now_ms = guarded.read(wall, now).unix_ms;
            world.turn();
            world.keeper.tick(world.now());
            world.write();
            if random.is(0.3) && guarded.is_sure(now) {
                let due = passed_ms + random.below(3_500_000) as i64;
                open.extend(world.bid(0, &[]).ok().map(|token| (due, token)));
            }
            let (due, rest) = open.into_iter().partition(|(due, _)| *due <= passed_ms);
            open = rest;
            for (_, token) in due {
                let kind = if random.is(0.5) {
                    Kind::Bill
                } else {
                    Kind::Loss
                };
                let booked = world.notice(kind, &token);
                let is_taken = matches!(booked.outcome, Outcome::Booked | Outcome::Counted);
                assert!(is_taken, "seed {seed}: {booked:?}");
                // Midnight of the advertiser is twelve hours after the beginning.
                let day = (i64::from(token.at) * 1_000 - begin_ms + 12 * HOUR) / (24 * HOUR);
                *spent.entry(day).or_insert(0) += booked.nano;
            }
        }
        assert!(leaps > 100, "{leaps}");
        assert_eq!(
            spent.values().max(),
            Some(&(10 * COST)),
            "seed {seed}: {spent:?}"
        );
    }
}

/// A clock that was days ahead for so long that it was believed, and is put right.
#[test]
fn a_clock_that_is_put_back_gives_no_day_and_no_notice_twice() {
    for days in [2, 10] {
        let mut world = World::new(BudgetMode::Strict, &book(&[TEN_A_DAY], "", ""));
        let tokens = world.bids(0, 100);
        assert_eq!(tokens.len(), 10);
        for token in &tokens {
            assert_eq!(world.notice(Kind::Bill, token).outcome, Outcome::Booked);
        }
        world.now_ms += days * 24 * HOUR;
        world.pass(20 * SECOND);
        assert_eq!(
            world.bids(0, 100).len(),
            10,
            "of the day that it is taken to be"
        );
        world.now_ms -= days * 24 * HOUR;
        world.pass(20 * SECOND);
        assert_eq!(world.bids(0, 100).len(), 0, "its day's budget is spent");
        let again = world.notice(Kind::Bill, &tokens[0]).outcome;
        assert!(
            matches!(again, Outcome::Repeated | Outcome::Expired),
            "{again:?}"
        );
        world.pass(12 * HOUR);
        let tokens = world.bids(0, 100);
        assert_eq!(tokens.len(), 10, "the day after is another one");
        assert_eq!(
            world.notice(Kind::Bill, &tokens[0]).outcome,
            Outcome::Booked
        );
    }
}
