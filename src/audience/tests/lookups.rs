//! What was uploaded is what is found.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::audience::{AsOf, AudienceFile, BuildError, Lookup, inspect};

type Oracle = BTreeMap<String, BTreeMap<String, Option<i64>>>;

#[derive(Debug, Clone)]
struct TestRow {
    id: u32,
    segments: Vec<u16>,
    expires: Option<i64>,
}

fn any_row() -> impl Strategy<Value = TestRow> {
    (
        0u32..60,
        prop::collection::vec(prop_oneof![0u16..6, 0u16..400], 1..12),
        prop::option::weighted(0.3, -10i64..200),
    )
        .prop_map(|(id, segments, expires)| TestRow {
            id,
            segments,
            expires,
        })
}

fn as_csv(rows: &[TestRow]) -> String {
    let mut text = String::new();
    for row in rows {
        let segments: Vec<String> = row.segments.iter().map(|s| format!("s{s}")).collect();
        let expires = row.expires.map_or(String::new(), |e| at(e).to_string());
        text += &format!("ifa,user-{},{},{expires}\n", row.id, segments.join("|"));
    }
    text
}

/// The later expiry wins, none is the latest of all.
fn oracle(rows: &[TestRow]) -> Oracle {
    let mut all = Oracle::new();
    for row in rows {
        let user = all.entry(format!("user-{}", row.id)).or_default();
        for segment in &row.segments {
            let known = user.entry(format!("s{segment}")).or_insert(row.expires);
            *known = match (*known, row.expires) {
                (Some(a), Some(b)) => Some(a.max(b)),
                _ => None,
            };
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn lookups_are_those_of_a_map(rows in prop::collection::vec(any_row(), 1..120), now in -20i64..210) {
        let (file, report) = build_csv(&as_csv(&rows));
        let audience = open(&file);
        let oracle = oracle(&rows);
        prop_assert_eq!(report.rows, rows.len() as u64);
        prop_assert_eq!(report.ids, oracle.len() as u64);
        prop_assert_eq!(report.merged, report.rows - report.ids);
        prop_assert_eq!(audience.ids(), report.ids);
        prop_assert_eq!(audience.segments().len() as u64, report.segments);
        prop_assert!(audience.segments().is_sorted());
        let names: Vec<String> = audience.segments().map(str::to_owned).collect();
        for id in 0..70 {
            let id = format!("user-{id}");
            let expected = oracle.get(&id);
            let live = expected.map(|user| {
                let live = user.iter().filter(|(_, e)| e.is_none_or(|e| e > now));
                live.map(|(name, _)| name.clone()).collect::<Vec<_>>()
            });
            prop_assert_eq!(look_up(&audience, key(&id), at(now)), live);
            let all: BTreeMap<String, Option<i64>> = audience
                .memberships(key(&id))
                .into_iter()
                .map(|(i, e)| (names[i as usize].clone(), e.map(Timestamp::unix_seconds)))
                .collect();
            prop_assert_eq!(all, expected.cloned().unwrap_or_default());
        }
        for (index, (name, ids)) in audience.segments().zip(audience.segment_ids()).enumerate() {
            prop_assert_eq!(audience.segment_index(name), Some(index as u32));
            let expected = oracle.values().filter(|user| user.contains_key(name)).count();
            prop_assert_eq!(*ids, expected as u64);
        }
        prop_assert_eq!(audience.segment_index("nothing"), None);
    }

    #[test]
    fn the_order_of_rows_leaves_no_trace(
        (rows, shuffled) in prop::collection::vec(any_row(), 1..120)
            .prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle()))
    ) {
        prop_assert_eq!(build_csv(&as_csv(&rows)).0, build_csv(&as_csv(&shuffled)).0);
    }
}

#[test]
fn a_membership_is_over_at_the_second_it_expires() {
    let (file, _) = build_csv("ifa,a,x,1970-01-01T00:01:40.999Z\n");
    let audience = open(&file);
    let now = |ms| Timestamp::from_unix_ms(ms);
    assert_eq!(
        look_up(&audience, key("a"), now(99_999)),
        Some(vec!["x".to_owned()])
    );
    assert_eq!(look_up(&audience, key("a"), now(100_000)), Some(vec![]));
}

#[test]
fn expiry_costs_nothing_where_it_is_not_used() {
    let rows = |expires: &str| -> String {
        (0..20_000)
            .map(|i| {
                let named = |k: u32| format!("s{}", i * 7 * k % 300);
                let segments: Vec<String> = (1..12).map(named).collect();
                let expires = if i == 0 { expires } else { "" };
                format!("ifa,u{i},{},{expires}\n", segments.join("|"))
            })
            .collect()
    };
    let without = build_csv(&rows("")).0.len();
    let with = build_csv(&rows("2026-11-01T00:00:00Z")).0.len();
    // At most a bit a set, which what sets are filled up with may have room for, and next to nothing for one id's; what bins leave free
    // differs by a few in a thousand.
    assert!(with < without + 4000, "{with} of {without}");
}

#[test]
fn the_header_comes_back() {
    for as_of in ["seq:18446744073709551615", "2026-11-01T00:00:00.25Z"] {
        let as_of: AsOf = as_of.parse().expect("an as_of");
        let told = VersionMeta {
            as_of: Some(as_of),
            ..meta(u64::MAX)
        };
        let text = RowFormat::Text {
            source: "ifa".to_owned(),
            segment: "vip".parse().expect("a name"),
        };
        let (file, _) = build(told.clone(), &text, b"a\nb\na\n");
        let audience = open(&file);
        assert_eq!(audience.meta(), &told);
        assert_eq!(audience.key_id(), keyer().key_id());
        assert_eq!(
            (audience.ids(), audience.rows(), audience.membership_count()),
            (2, 3, 2)
        );
        assert_eq!(audience.bytes(), file.len() as u64);
    }
    assert!("seq:-1".parse::<AsOf>().is_err());
    assert!("seq:+1".parse::<AsOf>().is_err());
    assert!("yesterday".parse::<AsOf>().is_err());
}

#[test]
fn ids_that_were_not_uploaded_are_not_found() {
    let rows: String = (0..20_000)
        .map(|i| format!("ifa,u{i},s{},\n", i % 7))
        .collect();
    let (file, _) = build_csv(&rows);
    let audience = open(&file);
    for i in 0..20_000 {
        let expected = Some(vec![format!("s{}", i % 7)]);
        assert_eq!(look_up(&audience, key(&format!("u{i}")), at(0)), expected);
    }
    // 1.1 × 2⁻³⁷ a probe: these would find one in 100,000 runs.
    let found = (0..1_000_000u64)
        .filter(|i| {
            let unknown = UserKey(u128::from(*i) << 64 | 0x5eed);
            audience.lookup(unknown, at(0), |_| {}) != Lookup::Absent
        })
        .count();
    assert_eq!(found, 0);
}

/// Several shards, sets long enough to have lengths before them, buckets without ids, a dictionary.
#[test]
fn a_version_of_many_shards_answers_for_each_id() {
    let member =
        |id: u32, segment: u32| !id.is_multiple_of(5) && (id * 7919 + segment * 104_729) % 1009 < 9;
    let ids = 30_000;
    let rows: String = (0..ids)
        .map(|id| {
            let names = (0..1000).filter(|segment| member(id, *segment));
            let names: Vec<String> = names.map(|segment| format!("|s{segment}")).collect();
            format!("ifa,u{id},all{},\n", names.concat())
        })
        .collect();
    let (file, _) = build_csv(&rows);
    let audience = open(&file);
    let now = at(0);
    let names: Vec<&str> = audience.segments().collect();
    for id in (0..ids).step_by(7) {
        let mut found: Vec<&str> = Vec::new();
        audience.lookup(key(&format!("u{id}")), now, |index| {
            found.push(names[index as usize])
        });
        found.sort_unstable();
        let mut expected: Vec<String> = (0..1000)
            .filter(|segment| member(id, *segment))
            .map(|segment| format!("s{segment}"))
            .collect();
        expected.push("all".to_owned());
        expected.sort_unstable();
        assert_eq!(found, expected, "u{id}");
    }
}

#[test]
fn versions_share_no_fingerprints() {
    let text = RowFormat::Text {
        source: "ifa".to_owned(),
        segment: "vip".parse().expect("a name"),
    };
    let file = |version| build(meta(version), &text, b"a\n").0;
    let (one, two) = (file(1), file(2));
    let bin = |file: &[u8]| file[512..512 + 9].to_vec();
    assert_eq!(bin(&one)[..4], [1, 0, 0, 0], "a bin of one id begins here");
    assert_ne!(bin(&one)[4..], bin(&two)[4..]);
}

/// Both formats, against what went in.
#[test]
fn sets_are_counted() {
    use crate::audience::{SetSizes, SetStatistics};
    let mut rows = String::new();
    for n in 0..3000 {
        let set = match n % 3 {
            0 => "a|b|c|d",
            1 => "a",
            _ => ["a|b|c|e", "a|f", "b|c|d"][n / 3 % 3],
        };
        rows.push_str(&format!("ifa,u{n},{set},\n"));
    }
    let sets = open(&build_csv(&rows).0).base().set_statistics();
    let of = |from, to, ids| SetSizes { from, to, ids };
    // Two thirds of the last thousand are in three and four.
    assert_eq!(sets.sizes, [of(1, 1, 1000), of(2, 2, 333), of(3, 4, 1667)]);
    assert_eq!((sets.max, sets.expiring), (4, 0));
    assert!(sets.shared_sets > 0 && sets.shared_by >= 1000, "{sets:?}");
    let mean = (4.0 * 1000.0 + 1000.0 + 4.0 * 334.0 + 2.0 * 333.0 + 3.0 * 333.0) / 3000.0;
    assert!((sets.mean - mean).abs() < 1e-9, "{sets:?}");
    for (path, shares) in [(FIXTURES[0], false), (NEWEST, true)] {
        let audience = Audience::open(path.as_ref()).expect("the fixture");
        let SetStatistics {
            mean,
            shared_sets,
            sizes,
            ..
        } = audience.base().set_statistics();
        let all = audience.membership_count() as f64;
        assert!((mean * audience.ids() as f64 - all).abs() < 1e-6);
        assert_eq!(sizes.iter().map(|s| s.ids).sum::<u64>(), audience.ids());
        assert!(shares || shared_sets == 0);
    }
}

#[test]
fn what_is_not_made_of_rows_is_refused_before_reading() {
    for kind in [Kind::Scores, Kind::Campaigns] {
        let refused = Builder::new(VersionMeta { kind, ..meta(1) }, keyer());
        let refused = refused.expect_err("a document");
        assert!(matches!(refused, BuildError::NoRows(k) if k == kind));
    }
    let delta = |version, base| VersionMeta {
        base: Some(base),
        ..meta(version)
    };
    let refused = [
        Builder::new(delta(2, 2), keyer()),
        Builder::delta(delta(3, 1), 2, keyer()),
        Builder::delta(meta(3), 3, keyer()),
    ];
    for refused in refused {
        let refused = refused.expect_err("nothing to change");
        assert!(matches!(refused, BuildError::Base));
    }
}

#[test]
fn an_audience_crosses_threads() {
    fn check<T: Send + Sync>() {}
    check::<Audience>();
}

#[test]
fn inspect_describes_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("v.kith");
    let (file, _) = build_csv("ifa,a,vip|cart,\nifa,b,vip,\n");
    std::fs::write(&path, &file).expect("written");
    let told = serde_json::to_value(inspect(&path).expect("sound")).expect("JSON");
    assert_eq!(told["dataset"], "crm");
    assert_eq!(told["kind"], "audience");
    assert_eq!(told["format"], 3);
    assert_eq!(told["ids"], 2);
    assert_eq!(told["as_of"], serde_json::Value::Null);
    assert_eq!(told["largest_segments"][0]["name"], "vip");
    assert_eq!(told["largest_segments"][0]["ids"], 2);
    let parts = told["parts"].as_object().expect("an object");
    let sum: u64 = parts.values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(sum, file.len() as u64);
    assert_eq!(told["verified"], true);
}

const FIXTURES: [&str; 3] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format-v1.kith"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format-v2.kith"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format-v3.kith"),
];
/// The one of the format that is written.
const NEWEST: &str = FIXTURES[2];

/// Some of everything the format has: duplicates, expiry, gaps over a byte, several buckets.
fn fixture_rows() -> String {
    let mut rows = "ifa,vip-1,vip|cart,\nifa,vip-1,vip,2030-01-01T00:00:00Z\nuidapi.com,vip-1,cart,2030-01-01T00:00:00Z\n".to_owned();
    for i in 0..60 {
        rows += &format!("ifa,user-{i},s{}|s{},\n", i % 5, i + 5);
    }
    for i in 0..200 {
        rows += &format!("ifa,collector,t{i},2030-01-01T00:00:{:02}Z\n", i % 60);
    }
    rows
}

fn fixture_file() -> Vec<u8> {
    let told = VersionMeta {
        as_of: Some(AsOf::Position(42)),
        ..meta(7)
    };
    let text = format!("source,id,segments,expires\n{}", fixture_rows());
    build(told, &RowFormat::Csv, text.as_bytes()).0
}

#[test]
#[ignore = "writes fixtures/format-v3.kith; only for making the fixture of a new format"]
fn make_the_fixture() {
    std::fs::write(NEWEST, fixture_file()).expect("written");
}

#[test]
fn files_of_every_format_stay_readable() {
    for (format, fixture) in (1u32..).zip(FIXTURES) {
        let audience = Audience::open(fixture.as_ref()).expect("a sound file");
        assert_eq!(audience.format(), format);
        says_what_the_rows_said(&audience);
    }
}

fn says_what_the_rows_said(audience: &Audience) {
    assert_eq!(audience.meta().version, 7);
    assert_eq!(audience.meta().as_of, Some(AsOf::Position(42)));
    assert_eq!(audience.key_id(), keyer().key_id());
    let found = |source: &str, id: &str, now| {
        let key = keyer().user_key(source, id).expect("a good id");
        look_up(audience, key, at(now)).map(|names| names.join(" "))
    };
    let new_year_2030 = 1_893_456_000;
    assert_eq!(
        found("ifa", "vip-1", i64::MAX / 2000).as_deref(),
        Some("cart vip")
    );
    let sold = |now| found("uidapi.com", "vip-1", now);
    assert_eq!(sold(new_year_2030 - 1).as_deref(), Some("cart"));
    assert_eq!(sold(new_year_2030).as_deref(), Some(""));
    for i in 0..60 {
        let mut expected = [format!("s{}", i % 5), format!("s{}", i + 5)];
        expected.sort();
        assert_eq!(
            found("ifa", &format!("user-{i}"), 0),
            Some(expected.join(" "))
        );
    }
    let collector = audience.memberships(key("collector"));
    assert_eq!(collector.len(), 200);
    assert!(collector.iter().all(|(_, e)| e.is_some()));
    assert_eq!(found("ifa", "nobody", 0), None);
}

/// A data directory holds what earlier releases wrote: full versions and deltas, which go together from format 2 on.
#[test]
fn deltas_of_every_format_change_the_full_versions_they_may() {
    let mut rows = "source,id,add,remove,expires,delete\nifa,vip-1,s1,vip,,\n".to_owned();
    for i in (0..60).step_by(3) {
        rows += &format!("ifa,user-{i},late,s{},2030-01-01T00:00:00Z,\n", i % 5);
    }
    for i in (1..60).step_by(6) {
        rows += &format!("ifa,user-{i},,,,true\n");
    }
    for i in 1..=300 {
        rows += &format!("ifa,new-{i},late|s2,,,\n");
    }
    rows += "ifa,collector,late,t0|t1|t2,,\n";
    let told = VersionMeta {
        base: Some(7),
        ..meta(8)
    };
    let mut builder = Builder::delta(told, 7, keyer()).expect("a delta");
    builder
        .read_rows(&RowFormat::Csv, rows.as_bytes(), &mut |_| {})
        .expect("readable");
    let mut newest = Vec::new();
    builder.finish(&mut newest).expect("good rows");
    // Of the same rows, by the last commit that wrote format 2.
    let second = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format-v2-delta.kith");
    let second = std::fs::read(second).expect("the fixture");
    for (format, delta) in [(2, second), (3, newest)] {
        for fixture in &FIXTURES[1..] {
            let delta = AudienceFile::from_bytes(&delta).expect("sound");
            assert_eq!(delta.format(), format);
            let base = Audience::open(fixture.as_ref()).expect("a sound file");
            let audience = base.changed_by(&[delta]).expect("fits");
            assert_eq!(audience.changed_ids(), 332, "{fixture}");
            let found = |id: &str| look_up(&audience, key(id), at(0)).map(|names| names.join(" "));
            assert_eq!(found("vip-1").as_deref(), Some("cart s1"), "{fixture}");
            for i in 0..60 {
                let (low, high) = (format!("s{}", i % 5), format!("s{}", i + 5));
                let expected = match (i % 3, i % 6) {
                    (0, _) => Some(format!("late {high}")),
                    (1, 1) => None,
                    _ if low < high => Some(format!("{low} {high}")),
                    _ => Some(format!("{high} {low}")),
                };
                assert_eq!(found(&format!("user-{i}")), expected, "{fixture} {i}");
            }
            for i in 1..=300 {
                assert_eq!(found(&format!("new-{i}")).as_deref(), Some("late s2"));
            }
            assert_eq!(found("new-301"), None);
            assert_eq!(audience.memberships(key("collector")).len(), 198);
        }
    }
}

/// Goes when a format 4 is written; the test above stays.
#[test]
fn format_3_is_still_what_is_written() {
    assert!(fixture_file() == std::fs::read(NEWEST).expect("the fixture"));
}
