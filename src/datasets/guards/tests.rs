//! Each check at its bounds.

use super::inputs::{Earlier, Known};
use super::overlap::Compared;
use super::swing::Sizes;
use super::*;
use crate::audience::{Builder, RowFormat, SeenPerson, Sources, VersionMeta};
use crate::config::{Config, Guards};
use crate::ids::{Keyer, Kind, SecretKey};

const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

fn defaults() -> Guards {
    Config::default().guards
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// What failed, if it did: its detail, which must say what to do.
#[track_caller]
fn failed(check: &Check) -> Option<&str> {
    let does_something = |word| check.detail.contains(word);
    assert!(
        check.ok || does_something("force") && does_something("; "),
        "{check:?}"
    );
    (!check.ok).then_some(check.detail.as_str())
}

#[track_caller]
fn holds(check: &Check, expect: bool) {
    assert_eq!(failed(check).is_some(), expect, "{check:?}");
}

#[test]
fn one_in_a_hundred_rows_may_be_bad_and_no_more() {
    for (rejected_rows, all, held) in [
        (0, 10, false),
        (1, 100, false),
        (1, 99, true),
        (2, 100, true),
        (0, 0, false),
    ] {
        let rows = Rows {
            rows: all - rejected_rows,
            rejected_rows,
            ..Rows::default()
        };
        holds(&inputs::rejected_rows(&defaults(), &rows), held);
    }
    let file = inputs::rejected_rows_of_a_file();
    assert!(file.ok && file.detail.contains("not known"));
}

#[test]
fn ids_may_fall_by_three_tenths_and_double() {
    for (before, now, held) in [
        (1000, 1000, false),
        (1000, 700, false),
        (1000, 699, true),
        (1000, 100, true),
        (1000, 2000, false),
        (1000, 2001, true),
        // Of so few chance may take what it likes.
        (16, 1, false),
        (20, 1, true),
        // A trial before the real thing.
        (99, 1_000_000, false),
        (100, 1_000_000, true),
    ] {
        let check = swing::ids(&defaults(), now, Some(before));
        assert_eq!(!check.ok, held, "{before} {now} {check:?}");
    }
    let first = swing::ids(&defaults(), 5, None);
    assert!(first.ok && first.detail.starts_with("nothing to compare"));
    let off = Guards {
        max_ids_lost: 1.0,
        max_ids_gained: 1000.0,
        ..defaults()
    };
    holds(&swing::ids(&off, 1, Some(100_000)), false);
    holds(&swing::ids(&off, 100_000, Some(100)), false);
}

fn sizes(ids: u64, segments: &[(&str, u64)]) -> Sizes {
    Sizes {
        ids,
        segments: segments.iter().map(|(n, ids)| (name(n), *ids)).collect(),
    }
}

/// Ten segments of a twentieth each, so that no single one decides about all, and what else is said.
fn among_others(segments: &[(&str, u64)]) -> Sizes {
    let names: Vec<String> = (0..10).map(|n| format!("other-{n}")).collect();
    let mut all: Vec<(&str, u64)> = names.iter().map(|n| (n.as_str(), 500)).collect();
    all.extend_from_slice(segments);
    sizes(10_000, &all)
}

#[test]
fn segments_are_held_to_what_they_were() {
    for (before, now, expect) in [
        // A segment that is still there may lose half.
        (&[("a", 400)][..], &[("a", 200)][..], None),
        (&[("a", 400)], &[("a", 199)], Some("`a` has lost 50.2 %")),
        // One that ends does not matter unless it is a large one.
        (&[("a", 999)], &[], None),
        (&[("a", 1000)], &[], Some("`a` with 10.0 %")),
        // Small ones say nothing.
        (&[("a", 9)], &[("a", 1)], None),
        (&[("a", 20)], &[("a", 1)], Some("`a` has lost")),
        // Gains count where they make a segment large.
        (&[("a", 300)], &[("a", 600)], None),
        (&[("a", 300)], &[("a", 1500)], None),
        (&[("a", 300)], &[("a", 1501)], Some("`a` has 1501 ids")),
        (&[("a", 150)], &[("a", 999)], None),
        (&[("a", 99)], &[("a", 3000)], None),
        // A new one may be large, but not everyone.
        (&[], &[("a", 8999)], None),
        (&[], &[("a", 9000)], Some("`a` has 90.0 % of all ids, 0 %")),
        (&[("a", 6500)], &[("a", 9000)], None),
        (&[("a", 6400)], &[("a", 9000)], Some("64.0 % in the live")),
        (&[("a", 9000)], &[("a", 10_000)], None),
    ] {
        let before = Some(among_others(before));
        let check = swing::segments(&defaults(), Some(&among_others(now)), Some(&before));
        match (failed(&check), expect) {
            (None, None) => {}
            (Some(detail), Some(part)) if detail.contains(part) => {}
            _ => panic!("{expect:?}: {check:?}"),
        }
    }
}

#[test]
fn segments_are_held_together_too() {
    let guards = defaults();
    let eight: Vec<(String, u64)> = (0..8).map(|n| (format!("s{n}"), 500)).collect();
    let eight: Vec<(&str, u64)> = eight.iter().map(|(n, ids)| (n.as_str(), *ids)).collect();
    let before = Some(sizes(10_000, &eight));
    let check =
        |now: &[(&str, u64)]| swing::segments(&guards, Some(&sizes(10_000, now)), Some(&before));
    holds(&check(&eight[..6]), false);
    let gone = check(&eight[..5]);
    assert!(gone.detail.contains("3 of 8 segments"), "{gone:?}");
    let scaled = |by: u64| {
        let all = eight.iter().map(|(name, ids)| (*name, ids * by / 100));
        check(&all.collect::<Vec<_>>())
    };
    holds(&scaled(70), false);
    let less = scaled(69);
    assert!(less.detail.contains("31.0 %"), "{less:?}");
    // The only segment of two may end, both may not.
    let two = Some(sizes(10_000, &eight[..2]));
    let one = sizes(10_000, &[("new", 900), ("s0", 500)]);
    let lenient = Guards {
        max_memberships_lost: 1.0,
        ..guards
    };
    holds(&swing::segments(&lenient, Some(&one), Some(&two)), false);
    let none = sizes(10_000, &[("new", 900)]);
    holds(&swing::segments(&lenient, Some(&none), Some(&two)), true);
}

#[test]
fn segments_that_cannot_be_compared_pass() {
    let some = sizes(1, &[]);
    let first = swing::segments(&defaults(), Some(&some), None);
    assert!(first.ok && first.detail.starts_with("nothing to compare"));
    for (now, before) in [(None, Some(some.clone())), (Some(&some), None)] {
        let check = swing::segments(&defaults(), now, Some(&before));
        assert!(
            check.ok && check.detail.starts_with("not known"),
            "{check:?}"
        );
    }
}

fn compared(found: u64, possible: f64, agreement: Option<f64>) -> Check {
    let compared = Compared {
        asked: 4096,
        found,
        possible,
        agreement,
        swapped: Vec::new(),
    };
    overlap::overlap(&defaults(), Some(&Ok(compared)))
}

#[test]
fn six_in_ten_must_be_known_of_those_who_can_be() {
    holds(&compared(2458, 1.0, Some(1.0)), false);
    holds(&compared(2457, 1.0, Some(1.0)), true);
    holds(&compared(0, 1.0, None), true);
    // The version has doubled: half of it must be new.
    holds(&compared(2048, 0.5, Some(1.0)), false);
    holds(&compared(1229, 0.5, Some(1.0)), false);
    holds(&compared(1228, 0.5, Some(1.0)), true);
    // The live version has a hundredth of the people: whether chance finds some says nothing.
    holds(&compared(0, 0.01, None), false);
    holds(&compared(4096, 1.0, Some(0.5)), false);
    holds(&compared(4096, 1.0, Some(0.49)), true);
    let off = Guards {
        min_overlap: 0.0,
        min_agreement: 0.0,
        ..defaults()
    };
    let nobody = Compared {
        asked: 4096,
        possible: 1.0,
        agreement: Some(-1.0),
        swapped: vec![vec!["a".to_owned(), "b".to_owned()]],
        ..Compared::default()
    };
    holds(&overlap::overlap(&off, Some(&Ok(nobody))), false);
    let file = overlap::overlap(&defaults(), Some(&Err("a version file has no ids")));
    assert!(file.ok && file.detail.starts_with("not known"));
    assert!(overlap::overlap(&defaults(), None).ok);
}

/// A version of people in segments, and what was seen of its rows. Each row: a person, segments, expiry in days from
/// now.
fn version(rows: &[(u32, &str, Option<i64>)]) -> (crate::audience::Audience, Seen) {
    let meta = VersionMeta {
        kind: Kind::Audience,
        dataset: name("crm"),
        version: 1,
        base: None,
        as_of: None,
    };
    let keyer = Keyer::new(&SecretKey::from_bytes([7; 32]));
    let mut builder = Builder::new(meta, keyer).expect("an audience");
    let mut csv = "source,id,segments,expires\n".to_owned();
    for (person, segments, days) in rows {
        let day = |days: &i64| {
            Timestamp::from_unix_seconds(NOW.unix_seconds() + days * 86_400).to_string()
        };
        let expires = days.as_ref().map(day).unwrap_or_default();
        csv.push_str(&format!("ifa,u{person},{segments},{expires}\n"));
    }
    builder
        .read_rows(&RowFormat::Csv, csv.as_bytes(), &mut |_| {})
        .expect("rows");
    let seen = builder.take_seen();
    let mut file = Vec::new();
    builder.finish(&mut file).expect("built");
    let audience = crate::audience::Audience::from_bytes(&file).expect("opens");
    (audience, seen)
}

/// Five hundred people, each in two or three of ten segments, by a rule that `rename` may change.
fn people(rename: impl Fn(u32) -> u32) -> Vec<(u32, String, Option<i64>)> {
    let segments = |person: u32| {
        let own = [person % 10, person / 7 % 10, person * person % 10];
        let names: Vec<String> = own.iter().map(|s| format!("s{}", rename(*s))).collect();
        names.join("|")
    };
    (0..500).map(|p| (p, segments(p), None)).collect()
}

fn compare_with(
    live: &[(u32, String, Option<i64>)],
    this: &[(u32, String, Option<i64>)],
) -> Compared {
    let borrowed = |rows: &[(u32, String, Option<i64>)]| {
        let rows: Vec<(u32, &str, Option<i64>)> =
            rows.iter().map(|(p, s, e)| (*p, s.as_str(), *e)).collect();
        version(&rows)
    };
    let (live, _) = borrowed(live);
    let (opened, seen) = borrowed(this);
    compare(&seen, &live, opened.ids(), NOW)
}

#[test]
fn agreement_is_what_chance_does_not_explain() {
    let live = people(|s| s);
    let same = compare_with(&live, &live);
    assert_eq!((same.asked, same.found, same.possible), (500, 500, 1.0));
    assert_eq!(same.agreement, Some(1.0));
    assert!(same.swapped.is_empty());
    let turned = compare_with(&live, &people(|s| (s + 3) % 10));
    let agreement = turned.agreement.expect("enough");
    assert!(agreement < 0.2, "{agreement}");
    let other_names = compare_with(&live, &people(|s| s + 10));
    assert_eq!(other_names.agreement, None, "no segment in common");
    // A tenth of the people are in one more segment.
    let mut more = live.clone();
    for (person, segments, _) in &mut more {
        if *person % 10 == 0 {
            segments.push_str("|s5");
        }
    }
    let agreement = compare_with(&live, &more).agreement.expect("enough");
    assert!((0.85..1.0).contains(&agreement), "{agreement}");
}

#[test]
fn two_segments_swapped_among_many_are_named() {
    let swap = |s| match s {
        3 => 8,
        8 => 3,
        other => other,
    };
    let swapped = compare_with(&people(|s| s), &people(swap));
    let agreement = swapped.agreement.expect("enough");
    assert!(agreement > 0.6, "the rest hides them: {agreement}");
    assert_eq!(swapped.swapped, [["s3", "s8"]]);
    let check = overlap::overlap(&defaults(), Some(&Ok(swapped)));
    let detail = failed(&check).expect("held");
    assert!(
        detail.contains("`s3` are now in `s8` are now in `s3`"),
        "{detail}"
    );
}

#[test]
fn members_who_move_on_to_the_next_name_are_honest() {
    // The day of a visit, seven names: yesterday's "0" are today's "1"; a new day comes in.
    let visited = |today: u32| -> Vec<(u32, String, Option<i64>)> {
        let row = |p: u32| (p, format!("base|visit-{}", (p % 8 + today) % 8), None);
        (0..800)
            .map(row)
            .filter(|(_, s, _)| !s.ends_with('7'))
            .collect()
    };
    let moved = compare_with(&visited(0), &visited(1));
    assert!(moved.swapped.is_empty(), "{:?}", moved.swapped);
}

#[test]
fn only_what_has_not_expired_is_compared() {
    let live = people(|s| s);
    let mut this = people(|s| s);
    for (_, _, expires) in &mut this {
        *expires = Some(-1);
    }
    let compared = compare_with(&live, &this);
    assert_eq!((compared.found, compared.agreement), (500, None));
    // Of half the people one membership has expired, which the new version leaves out.
    let mut live = Vec::new();
    let mut this = Vec::new();
    for p in 0..500u32 {
        let (old, new) = (format!("s{}", p % 5), format!("s{}", (p + 1) % 5));
        live.push((p, old, Some(-1).filter(|_| p % 2 == 0)));
        live.push((p, new.clone(), None));
        this.push((p, new, None));
        if p % 2 == 1 {
            this.push((p, format!("s{}", p % 5), None));
        }
    }
    assert_eq!(compare_with(&live, &this).agreement, Some(1.0));
}

#[test]
fn ids_are_counted_while_something_of_them_holds() {
    let rows: Vec<(u32, &str, Option<i64>)> = (0..100)
        .map(|p| (p, "s", Some(if p < 25 { -1 } else { 1 })))
        .collect();
    let (audience, seen) = version(&rows);
    assert_eq!(profile::lasting_of(audience.ids(), Some(&seen), NOW), 75);
    assert_eq!(profile::lasting_of(100, None, NOW), 100);
}

fn sources(named: &[(&str, u64)], others: u64) -> Sources {
    Sources {
        named: named
            .iter()
            .map(|(n, rows)| ((*n).to_owned(), *rows))
            .collect(),
        others,
    }
}

#[test]
fn sources_are_built_in_configured_or_had_before() {
    let exchanges = [name("Demo")];
    let earlier = Earlier {
        named: ["uidapi.com".to_owned()].into(),
        others: 0.0,
    };
    let check = |seen: &Sources| {
        let known = Known {
            exchanges: &exchanges,
            earlier: Some(&earlier),
        };
        inputs::sources(&defaults(), Some(seen), Some(&known))
    };
    for (named, others, held) in [
        (
            &[("ifa", 50), ("uidapi.com", 25), ("exchange:demo", 25)][..],
            0,
            false,
        ),
        (&[("ifa", 950), ("idfa", 50)], 0, false),
        (&[("ifa", 949), ("idfa", 51)], 0, true),
        (&[("exchange:other", 100)], 0, true),
        (&[("ifa", 949)], 51, true),
        (
            &[("ifa", 1), ("exchange:demo", 1), ("uidapi.com", 1)],
            0,
            false,
        ),
    ] {
        holds(&check(&sources(named, others)), held);
    }
    let told = check(&sources(&[("ifa", 500), ("idfa", 500)], 0)).detail;
    assert!(
        told.contains("50.0 %") && told.contains("`idfa` (500 rows)"),
        "{told}"
    );
}

#[test]
fn an_id_in_the_column_of_sources_is_neither_told_nor_remembered() {
    let secret = "somebody@example.com";
    let few_rows = sources(&[("ifa", 1000), (secret, 19)], 500);
    let small_part = sources(&[("ifa", 1000), (secret, 39)], 2961);
    let swapped = sources(
        &[("ifa", 1000), (secret, 19), ("other@example.com", 1)],
        980,
    );
    let known = Known {
        exchanges: &[],
        earlier: Some(&Earlier::default()),
    };
    for seen in [&few_rows, &small_part, &swapped] {
        let check = inputs::sources(&defaults(), Some(seen), Some(&known));
        assert!(!check.ok && !check.detail.contains('@'), "{check:?}");
        let kept = inputs::remembered(seen);
        let rows = seen.named.iter().map(|(_, rows)| rows).sum::<u64>() + seen.others;
        assert_eq!((kept.named.len(), kept.others), (1, rows - 1000));
    }
    // What was rare before may be rare again.
    let rare = Earlier {
        others: 0.5,
        ..Earlier::default()
    };
    let known = Known {
        exchanges: &[],
        earlier: Some(&rare),
    };
    holds(
        &inputs::sources(&defaults(), Some(&swapped), Some(&known)),
        false,
    );
}

#[test]
fn sources_that_cannot_be_compared_pass() {
    let seen = sources(&[("idfa", 100)], 0);
    let unknown = Known {
        exchanges: &[],
        earlier: None,
    };
    for (seen, known, detail) in [
        (None, Some(&unknown), "not known"),
        (Some(&seen), None, "nothing to compare"),
        (Some(&seen), Some(&unknown), "nothing to compare"),
    ] {
        let check = inputs::sources(&defaults(), seen, known);
        assert!(check.ok && check.detail.starts_with(detail), "{check:?}");
    }
}

#[test]
fn a_version_whose_every_membership_is_over_is_empty() {
    let now = NOW.unix_seconds();
    holds(&inputs::empty(Some(now + 1), NOW), false);
    holds(&inputs::empty(Some(i64::MAX), NOW), false);
    holds(&inputs::empty(Some(now), NOW), true);
    assert!(inputs::empty(None, NOW).detail.starts_with("not known"));
}

#[test]
fn an_older_cut_is_held_and_one_beyond_the_configured_age() {
    let at =
        |seconds_ago: i64| AsOf::Time(Timestamp::from_unix_ms(NOW.unix_ms - 1000 * seconds_ago));
    let day = 86_400;
    let within = Guards {
        max_age: Some(Duration::from_secs(86_400)),
        ..defaults()
    };
    for (guards, as_of, live, held) in [
        (defaults(), None, Some(at(5)), false),
        (defaults(), Some(at(400 * day)), None, false),
        (defaults(), Some(at(5)), Some(at(5)), false),
        (defaults(), Some(at(6)), Some(at(5)), true),
        (
            defaults(),
            Some(AsOf::Position(7)),
            Some(AsOf::Position(7)),
            false,
        ),
        (
            defaults(),
            Some(AsOf::Position(6)),
            Some(AsOf::Position(7)),
            true,
        ),
        (defaults(), Some(AsOf::Position(6)), Some(at(5)), false),
        (defaults(), Some(at(5)), Some(AsOf::Position(6)), false),
        (within, Some(at(day)), None, false),
        (within, Some(at(day + 1)), None, true),
        (within, Some(at(-30)), Some(at(0)), false),
    ] {
        holds(&inputs::age(&guards, as_of, live, NOW), held);
    }
}

fn room(available: Option<u64>) -> Room {
    Room {
        needed: 1,
        spare: 1,
        available,
    }
}

#[test]
fn every_check_is_told_in_order_and_none_where_guards_are_off() {
    let (live, _) = version(&[(1, "a", None)]);
    let (opened, seen) = version(&[(1, "a", None)]);
    let rows = Rows {
        rows: 1,
        ids: 1,
        segments: 1,
        ..Rows::default()
    };
    let candidate = Candidate {
        rows: &rows,
        format: &Format::Rows(RowFormat::Csv),
        as_of: None,
        seen: Some(&seen),
        is_delta: false,
        opened: Some(&opened),
        room: &room(Some(2)),
    };
    let baseline = Baseline {
        ids: 1,
        sizes: Some(Sizes::of(&live)),
        sources: None,
        as_of: None,
        open: Some(&live),
        bytes_a_byte: None,
    };
    let told = checks(&defaults(), &candidate, Some(&baseline), &[], NOW);
    let names: Vec<&str> = told.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "rejected_rows",
            "ids",
            "segments",
            "overlap",
            "sources",
            "empty",
            "age",
            "memory"
        ]
    );
    assert!(told.iter().all(|c| c.ok), "{told:?}");
    let tight = Candidate {
        opened: None,
        room: &room(Some(1)),
        ..candidate
    };
    let told = checks(&defaults(), &tight, None, &[], NOW);
    let held: Vec<&str> = told
        .iter()
        .filter(|c| !c.ok)
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(held, ["memory"]);
    let off = Guards {
        enabled: false,
        ..defaults()
    };
    assert!(checks(&off, &tight, Some(&baseline), &[], NOW).is_empty());
}

#[test]
fn a_person_in_no_common_segment_is_no_evidence() {
    let (live, _) = version(&[(1, "a", None)]);
    let seen = Seen {
        people: vec![SeenPerson {
            key: crate::ids::UserKey(1),
            memberships: vec![(9, i64::MAX)],
        }],
        ..Seen::default()
    };
    let compared = compare(&seen, &live, 1, NOW);
    assert_eq!((compared.asked, compared.found), (1, 0));
}
