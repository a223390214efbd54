//! How often somebody is shown something.

use super::*;

const TWO: &str = r#", "caps": [{"count": 2, "per": "1h"}]"#;

#[test]
fn a_person_is_capped_by_any_of_her_ids() {
    let mut world = World::new(BudgetMode::Bounded, &book(&[TWO], "", ""));
    for keys in [[1, 2], [2, 3]] {
        let token = world.bid(0, &keys).expect("a bid");
        world.notice(Kind::Bill, &token);
    }
    assert_eq!(
        world.bid(0, &[2, 9]),
        Err(Refused::Capped),
        "two under the id in the middle"
    );
    assert!(world.bid(0, &[1, 3]).is_ok(), "one under each");
    assert_eq!(world.bid(0, &[]), Err(Refused::Nobody));
}

#[test]
fn who_has_no_id_is_bid_on_where_the_line_item_says_so() {
    let book = book(
        &[r#", "caps": [{"count": 1, "per": "1h"}], "uncapped_without_id": true"#],
        "",
        "",
    );
    let mut world = World::new(BudgetMode::Bounded, &book);
    assert!(world.bid(0, &[]).is_ok() && world.bid(0, &[]).is_ok());
    assert!(world.bid(0, &[1]).is_ok());
    assert_eq!(world.bid(0, &[1]), Err(Refused::Capped));
}

#[test]
fn a_bid_holds_its_place_for_half_a_minute_or_in_strict_mode_for_its_window() {
    for (mode, seconds) in [(BudgetMode::Bounded, 30), (BudgetMode::Strict, 3_600)] {
        let mut world = World::new(mode, &book(&[TWO], "", ""));
        assert!(world.bid(0, &[1]).is_ok() && world.bid(0, &[1]).is_ok());
        assert_eq!(world.bid(0, &[1]), Err(Refused::Capped));
        world.pass((seconds - 1) * SECOND);
        assert_eq!(world.bid(0, &[1]), Err(Refused::Capped), "{mode:?}");
        world.pass(SECOND);
        assert!(world.bid(0, &[1]).is_ok(), "{mode:?}");
    }
}

#[test]
fn a_lost_bid_gives_its_place_back() {
    let mut world = World::new(BudgetMode::Strict, &book(&[TWO], "", ""));
    let token = world.bid(0, &[1]).expect("a bid");
    world.bid(0, &[1]).expect("another");
    world.notice(Kind::Loss, &token);
    assert!(world.bid(0, &[1]).is_ok());
    assert_eq!(world.bid(0, &[1]), Err(Refused::Capped));
}

#[test]
fn several_imps_of_a_request_count_together() {
    let book = book(&[TWO, ""], r#", "caps": [{"count": 3, "per": "1h"}]"#, "");
    let mut world = World::new(BudgetMode::Bounded, &book);
    assert_eq!(world.allow(0, &[1], &[0]), Ok(()));
    assert_eq!(
        world.allow(0, &[1], &[0, 0]),
        Err(Refused::Capped),
        "two of the line item"
    );
    assert_eq!(world.allow(1, &[1], &[0, 0]), Ok(()));
    assert_eq!(
        world.allow(1, &[1], &[0, 0, 1]),
        Err(Refused::Capped),
        "three of the campaign"
    );
    // Told apart or not, no more are committed than the cap allows.
    world.allow(0, &[1], &[]).expect("allowed");
    let committed = (0..5).filter(|_| world.commit(0, false).is_ok()).count();
    assert_eq!(committed, 2);
}

#[test]
fn windows_slide_and_several_count_at_once() {
    let caps = r#", "caps": [{"count": 1, "per": "1m"}, {"count": 2, "per": "1h"}]"#;
    let mut world = World::new(BudgetMode::Bounded, &book(&[caps], "", ""));
    let show = |world: &mut World| {
        let token = world.bid(0, &[1])?;
        world.notice(Kind::Bill, &token);
        Ok::<_, Refused>(())
    };
    assert!(show(&mut world).is_ok());
    assert_eq!(show(&mut world), Err(Refused::Capped));
    world.pass(60 * SECOND);
    assert!(show(&mut world).is_ok());
    world.pass(120 * SECOND);
    assert_eq!(show(&mut world), Err(Refused::Capped), "two in the hour");
    world.pass(57 * 60 * SECOND);
    assert!(show(&mut world).is_ok(), "the first is an hour ago");
    assert_eq!(show(&mut world), Err(Refused::Capped));
}

#[test]
fn an_advertiser_s_cap_counts_all_campaigns_and_survives_a_crash() {
    let book = book(&["", ""], "", r#", "caps": [{"count": 2, "per": "24h"}]"#);
    let mut world = World::new(BudgetMode::Bounded, &book);
    for line_item in [0, 1] {
        let token = world.bid(line_item, &[1]).expect("a bid");
        world.notice(Kind::Bill, &token);
    }
    assert_eq!(world.bid(0, &[1]), Err(Refused::Capped));
    world.crash();
    world.pass(HOUR);
    assert_eq!(world.bid(1, &[1]), Err(Refused::Capped));
    assert!(world.bid(1, &[2]).is_ok());
}
