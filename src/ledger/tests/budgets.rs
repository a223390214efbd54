//! Money: what is lent, held, spent and released.

use super::*;

const FIFTY: &str = r#", "budget": {"total": "0.25"}"#;

fn spent(world: &mut World, token: &Token) -> i64 {
    let booked = world.notice(Kind::Bill, token);
    assert!(
        matches!(booked.outcome, Outcome::Booked | Outcome::Late),
        "{booked:?}"
    );
    booked.nano
}

#[test]
fn a_strict_budget_is_held_until_a_loss_or_the_window_s_end() {
    let mut world = World::new(BudgetMode::Strict, &book(&[FIFTY], "", ""));
    let tokens = world.bids(0, 1_000);
    assert_eq!(tokens.len(), 50, "0.25 at 0.005 each");
    assert_eq!(
        world.notice(Kind::Loss, &tokens[0]).outcome,
        Outcome::Counted
    );
    assert_eq!(
        world.notice(Kind::Loss, &tokens[0]).outcome,
        Outcome::Repeated
    );
    assert_eq!(world.bids(0, 1_000).len(), 1, "one lost, one bid");
    let total: i64 = tokens[1..11]
        .iter()
        .map(|token| spent(&mut world, token))
        .sum();
    assert_eq!(total, 10 * COST);
    assert_eq!(
        world.bids(0, 1_000).len(),
        0,
        "what is spent is not held twice, and not free"
    );
    world.pass(59 * 60 * SECOND);
    assert_eq!(world.bids(0, 1_000).len(), 0);
    world.pass(3 * 60 * SECOND);
    assert_eq!(world.bids(0, 1_000).len(), 40, "the rest came back");
}

#[test]
fn what_was_paid_less_than_bid_can_be_spent_again() {
    let mut world = World::new(BudgetMode::Strict, &book(&[FIFTY], "", ""));
    let tokens = world.bids(0, 1_000);
    for token in &tokens {
        assert_eq!(world.notice_at(Kind::Bill, token, "2.5").nano, COST / 2);
    }
    assert_eq!(world.bids(0, 1_000).len(), 25);
}

/// A budget that is set when something was spent already counts that, of the day and in all, also after a crash.
#[test]
fn a_budget_that_is_set_later_counts_what_was_spent_before() {
    for (line_item, campaign, advertiser) in [
        (r#", "budget": {"total": "0.25"}, "pacing": "asap""#, "", ""),
        (r#", "budget": {"day": "0.25"}, "pacing": "asap""#, "", ""),
        (
            r#", "pacing": "asap""#,
            r#", "budget": {"day": "0.25"}"#,
            "",
        ),
        (
            r#", "pacing": "asap""#,
            "",
            r#", "budget": {"total": "0.25"}"#,
        ),
    ] {
        let mut world = World::new(BudgetMode::Strict, &book(&[""], "", ""));
        let tokens = world.bids(0, 30);
        assert_eq!(tokens.len(), 30);
        for token in &tokens[..20] {
            spent(&mut world, token);
        }
        world.crash();
        world.set(&book(&[line_item], campaign, advertiser));
        assert_eq!(world.bids(0, 1_000).len(), 30, "{line_item}{campaign}");
        // Bids that were open then are booked on it as well.
        spent(&mut world, &tokens[20]);
        let budget = world.keeper.standings();
        assert!(budget.iter().any(|of| of.spent == 21 * COST), "{budget:?}");
        // Without it all is bid on; with it again nothing is forgotten.
        world.set(&book(&[""], "", ""));
        assert_eq!(world.bids(0, 10).len(), 10);
        world.set(&book(&[line_item], campaign, advertiser));
        assert_eq!(world.bids(0, 1_000).len(), 0);
    }
}

/// What was spent in one currency is so much of another.
#[test]
fn a_budget_in_another_currency_counts_what_was_spent_before() {
    let (in_usd, in_eur) = (book(&[FIFTY], "", ""), book_in("EUR", &[FIFTY], "", ""));
    let mut without = World::new(BudgetMode::Strict, &in_usd);
    let tokens = without.bids(0, 10);
    tokens.iter().for_each(|token| {
        spent(&mut without, token);
    });
    without.set(&in_eur);
    assert_eq!(without.bids(0, 10).len(), 0, "there is no rate");
    without.set(&in_usd);
    assert_eq!(without.bids(0, 100).len(), 40);

    let rates = Rates::new(Currency::USD, [("EUR".parse().expect("a currency"), 0.5)]);
    let terms = Terms {
        rates: Arc::new(rates.expect("rates")),
        ..terms(BudgetMode::Strict)
    };
    let mut world = World::from(terms, &in_usd, records::MAGIC.to_vec(), NOON_MS);
    let tokens = world.bids(0, 20);
    for token in &tokens[..10] {
        spent(&mut world, token);
    }
    world.set(&in_eur);
    // Twenty dollars' worth of bids are ten euros' worth.
    assert_eq!(world.bids(0, 100).len(), 40);
    world.crash();
    assert_eq!(world.keeper.standings()[0].spent, 10 * COST);
    // What was bid in dollars is booked in dollars, and once.
    spent(&mut world, &tokens[10]);
    assert_eq!(world.keeper.standings()[0].spent, 10 * COST);
    let dollars = world.keeper.figures().sums[&Currency::USD].spent;
    assert_eq!(dollars, 11 * COST);
}

#[test]
fn notices_come_in_any_order_and_book_once() {
    let mut world = World::new(BudgetMode::Strict, &book(&[FIFTY], "", ""));
    let tokens = world.bids(0, 3);
    let [a, b, c] = tokens.as_slice() else {
        panic!("three")
    };
    assert_eq!(world.notice(Kind::Bill, a).outcome, Outcome::Booked);
    assert_eq!(world.notice(Kind::Win, a).outcome, Outcome::Counted);
    for _ in 0..7 {
        assert_eq!(world.notice(Kind::Bill, a).outcome, Outcome::Repeated);
    }
    // A loss after the bill changes nothing; a bill after the loss is booked all the same.
    assert_eq!(world.notice(Kind::Loss, a).outcome, Outcome::Counted);
    assert_eq!(world.notice(Kind::Loss, b).outcome, Outcome::Counted);
    assert_eq!(world.notice(Kind::Bill, b).outcome, Outcome::Booked);
    assert_eq!(world.notice(Kind::Click, c).outcome, Outcome::Counted);
    assert_eq!(world.bids(0, 1_000).len(), 47);
}

/// What bills a bid was settled when it was made: its exchange may be billed by something else by now, or be gone.
#[test]
fn a_changed_billing_books_no_bid_twice_and_none_never() {
    for before in [Billing::Burl, Billing::Nurl, Billing::Impression] {
        for after in [
            Some(Billing::Burl),
            Some(Billing::Nurl),
            Some(Billing::Impression),
            None,
        ] {
            let mut world = World::new(BudgetMode::Bounded, &book(&[""], "", ""));
            world.terms.exchanges[0].billing = before;
            world.crash();
            let tokens = world.bids(0, 4);
            let (bills, counts) = match before {
                Billing::Nurl => (Kind::Win, Kind::Bill),
                Billing::Burl | Billing::Impression => (Kind::Bill, Kind::Win),
            };
            assert_eq!(world.notice(bills, &tokens[0]).outcome, Outcome::Booked);
            assert_eq!(world.notice(counts, &tokens[1]).outcome, Outcome::Counted);
            match after {
                Some(after) => world.terms.exchanges[0].billing = after,
                None => {
                    world.terms.exchanges[0].name = "another".into();
                }
            }
            world.crash();
            for (n, token) in tokens.iter().enumerate() {
                let outcomes = [counts, bills].map(|kind| world.notice(kind, token).outcome);
                let expected = [
                    match n {
                        1 => Outcome::Repeated,
                        _ => Outcome::Counted,
                    },
                    match n {
                        0 => Outcome::Repeated,
                        _ => Outcome::Booked,
                    },
                ];
                assert_eq!(outcomes, expected, "{before:?}, {after:?}: bid {n}");
            }
            let spent = world.keeper.figures().sums[&Currency::USD].spent;
            assert_eq!(spent, 4 * COST, "{before:?}, {after:?}");
        }
    }
}

#[test]
fn a_price_is_capped_and_a_price_that_cannot_be_read_is_the_bid() {
    let mut world = World::new(BudgetMode::Strict, &book(&[FIFTY], "", ""));
    let tokens = world.bids(0, 4);
    for (token, price, nano) in [
        (&tokens[0], "7", COST),
        (&tokens[1], "AUDIT", COST),
        (&tokens[2], "0", 0),
        (&tokens[3], "0.0000001", 1),
    ] {
        assert_eq!(
            world.notice_at(Kind::Bill, token, price).nano,
            nano,
            "{price}"
        );
    }
    let counters = world.keeper.counters();
    let unreadable = counters.prices_unreadable[Unreadable::Audit as usize];
    assert_eq!((counters.prices_over, unreadable), (1, 1));
}

#[test]
fn a_late_notice_is_booked_and_told_apart_and_an_old_one_refused() {
    let mut world = World::new(BudgetMode::Strict, &book(&[FIFTY], "", ""));
    let tokens = world.bids(0, 2);
    world.pass(2 * HOUR);
    assert_eq!(world.notice(Kind::Bill, &tokens[0]).outcome, Outcome::Late);
    assert_eq!(world.keeper.counters().late_nano, COST);
    assert_eq!(world.bids(0, 1_000).len(), 49);
    world.pass(23 * HOUR + 60 * SECOND);
    assert_eq!(
        world.notice(Kind::Bill, &tokens[1]).outcome,
        Outcome::Expired
    );
    assert_eq!(
        world.notice(Kind::Bill, &tokens[0]).outcome,
        Outcome::Expired,
        "nor is it booked twice"
    );
}

/// A crash forgets which bids were open, and holds all that may have been promised until no notice of them can come.
#[test]
fn after_a_crash_what_may_be_promised_stays_held() {
    let mut world = World::new(BudgetMode::Strict, &book(&[FIFTY], "", ""));
    let tokens = world.bids(0, 20);
    spent(&mut world, &tokens[0]);
    world.crash();
    assert_eq!(
        world.bids(0, 1_000).len(),
        0,
        "the lease was the whole of so small a budget"
    );
    // Notices of bids before the crash book once, whatever was taken before it.
    assert_eq!(
        world.notice(Kind::Bill, &tokens[0]).outcome,
        Outcome::Repeated
    );
    spent(&mut world, &tokens[1]);
    world.crash();
    assert_eq!(
        world.notice(Kind::Bill, &tokens[1]).outcome,
        Outcome::Repeated
    );
    world.pass(HOUR + 60 * SECOND);
    assert_eq!(world.bids(0, 1_000).len(), 48);
}

/// After a stop everything is known to the unit.
#[test]
fn after_a_stop_only_what_is_open_stays_held() {
    let mut world = World::new(BudgetMode::Strict, &book(&[FIFTY], "", ""));
    let tokens = world.bids(0, 20);
    spent(&mut world, &tokens[0]);
    world.keeper.close();
    world.write();
    world.crash();
    assert_eq!(world.bids(0, 1_000).len(), 30);
}

#[test]
fn the_smallest_of_all_budgets_decides() {
    let line = r#", "budget": {"total": "0.25", "day": "0.2"}"#;
    for (campaign, advertiser, most) in [
        ("", "", 40),
        (r#", "budget": {"day": "0.15"}"#, "", 30),
        (
            r#", "budget": {"day": "0.15"}"#,
            r#", "budget": {"total": "0.05"}"#,
            10,
        ),
    ] {
        let book = book(&[line, ""], campaign, advertiser);
        let mut world = World::new(BudgetMode::Strict, &book);
        assert_eq!(world.bids(0, 1_000).len(), most);
        if most < 40 {
            assert_eq!(
                world.bids(1, 10).len(),
                0,
                "shared with all of the campaign"
            );
        } else {
            assert_eq!(world.bids(1, 10).len(), 10);
        }
    }
}

#[test]
fn a_day_s_budget_begins_anew_at_midnight_of_the_advertiser() {
    let line_item = r#", "budget": {"day": "0.05"}, "pacing": "asap""#;
    let book = book(&[line_item], "", "");
    let mut world = World::new(BudgetMode::Strict, &book);
    let tokens = world.bids(0, 100);
    assert_eq!(tokens.len(), 10);
    world.pass(12 * HOUR - 60 * SECOND);
    for token in &tokens[..5] {
        spent(&mut world, token);
    }
    assert_eq!(
        world.bids(0, 100).len(),
        5,
        "windows are over, it is the same day"
    );
    world.pass(60 * SECOND);
    assert_eq!(world.bids(0, 100).len(), 10, "a new day");
    // A bid of yesterday is booked on yesterday.
    spent(&mut world, &tokens[6]);
    world.pass(HOUR + 60 * SECOND);
    assert_eq!(world.bids(0, 100).len(), 10);
    for _ in 0..3 {
        world.pass(24 * HOUR);
        assert_eq!(world.bids(0, 100).len(), 10);
    }
    world.crash();
    world.pass(24 * HOUR);
    assert_eq!(world.bids(0, 100).len(), 10);
}

/// A journal that was begun anew leads to the same books.
#[test]
fn a_journal_begun_anew_says_the_same() {
    let book = book(
        &[r#", "budget": {"total": "0.25", "day": "0.2"}, "caps": [{"count": 2, "per": "24h"}]"#],
        "",
        "",
    );
    let mut world = World::new(BudgetMode::Strict, &book);
    let tokens: Vec<Token> = (0..4)
        .map(|n| world.bid(0, &[n / 2]).expect("a bid"))
        .collect();
    for token in &tokens {
        spent(&mut world, token);
    }
    assert_eq!(world.bid(0, &[0]), Err(Refused::Capped));
    world.journal = world.keeper.journal();
    world.crash();
    world.pass(2 * HOUR);
    assert_eq!(world.bid(0, &[0]), Err(Refused::Capped));
    assert_eq!(
        world.notice(Kind::Bill, &tokens[1]).outcome,
        Outcome::Repeated
    );
    let again = world.keeper.journal();
    let mut other = Keeper::new(world.terms.clone()).expect("memory");
    records::read(&again, |record| assert!(other.replay(record))).expect("a journal");
    assert_eq!(other.journal(), again);
    assert_eq!(
        (
            world.bid(0, &[7]).is_ok(),
            world.bid(0, &[7]).is_ok(),
            world.bid(0, &[7])
        ),
        (true, true, Err(Refused::Capped))
    );
}

/// What the journal cannot be told of does not count: nothing is lent that it does not hold.
#[test]
fn nothing_is_lent_before_the_journal_holds_it() {
    let book = book(&[r#", "budget": {"total": "1000"}"#], "", "");
    let mut world = World::new(BudgetMode::Strict, &book);
    let mut bids = 0;
    while world.bid(0, &[]).is_ok() {
        bids += 1;
        assert!(bids < 100_000);
    }
    for told in world.told.try_iter() {
        world.keeper.told(told);
    }
    world.keeper.tick(world.now());
    assert_eq!(
        world.bid(0, &[]),
        Err(Refused::Budget),
        "asked for, not written"
    );
    world.write();
    assert!(world.bid(0, &[]).is_ok());
}
