//! Deltas over a full version, against maps that are changed row by row.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::audience::{AudienceFile, CompactError, LayerError, Lookup};

/// What holds of each id: its segments with the second at which each is over.
type People = BTreeMap<u32, BTreeMap<u16, Option<i64>>>;

/// What a delta says of an id, once.
#[derive(Debug, Clone)]
struct Said {
    id: u32,
    add: Vec<u16>,
    remove: Vec<u16>,
    delete: bool,
    expires: Option<i64>,
}

fn any_said(ids: u32) -> impl Strategy<Value = Said> {
    (
        0..ids,
        prop::collection::vec(0u16..30, 0..6),
        prop::collection::vec(0u16..30, 0..4),
        prop::bool::weighted(0.15),
        prop::option::weighted(0.3, 0i64..200),
    )
        .prop_map(|(id, add, mut remove, delete, expires)| {
            remove.retain(|segment| !add.contains(segment));
            Said {
                id,
                expires: expires.filter(|_| !add.is_empty()),
                // A row has to say something.
                delete: delete || add.is_empty() && remove.is_empty(),
                add,
                remove,
            }
        })
}

fn any_delta(ids: u32) -> impl Strategy<Value = Vec<Said>> {
    let rows = prop::collection::vec(any_said(ids), 1..25);
    // One row an id: how rows of one id merge is `delta_rows`'s to show.
    rows.prop_map(|rows| {
        let by_id: BTreeMap<u32, Said> = rows.into_iter().map(|said| (said.id, said)).collect();
        by_id.into_values().collect()
    })
}

fn change(people: &mut People, delta: &[Said]) {
    for said in delta {
        let person = people.entry(said.id).or_default();
        if said.delete {
            person.clear();
        }
        for segment in &said.remove {
            person.remove(segment);
        }
        for segment in &said.add {
            person.insert(*segment, said.expires);
        }
        if person.is_empty() {
            people.remove(&said.id);
        }
    }
}

fn delta(version: u64, base: u64, rows: &[Said]) -> AudienceFile {
    let names = |of: &[u16]| {
        let names: Vec<String> = of.iter().map(|s| format!("s{s}")).collect();
        names.join("|")
    };
    let mut text = String::from("source,id,add,remove,expires,delete\n");
    for said in rows {
        let expires = said
            .expires
            .map_or(String::new(), |at_| at(at_).to_string());
        let (add, remove) = (names(&said.add), names(&said.remove));
        text += &format!(
            "ifa,u{},{add},{remove},{expires},{}\n",
            said.id, said.delete
        );
    }
    let meta = VersionMeta {
        base: Some(base),
        ..meta(version)
    };
    let mut builder = Builder::delta(meta, 1, keyer()).expect("a delta");
    builder
        .read_rows(&RowFormat::Csv, text.as_bytes(), &mut |_| {})
        .expect("readable");
    let mut file = Vec::new();
    let report = builder.finish(&mut file).expect("good rows");
    assert_eq!(report.rejected_rows, 0, "{report:?}");
    AudienceFile::from_bytes(&file).expect("sound")
}

fn full(people: &People) -> (Vec<u8>, RowReport) {
    let mut rows = String::new();
    for (id, segments) in people {
        for (segment, expires) in segments {
            let expires = expires.map_or(String::new(), |at_| at(at_).to_string());
            rows += &format!("ifa,u{id},s{segment},{expires}\n");
        }
    }
    build_csv(&rows)
}

/// That an audience says of everybody what a map says, and counts as it does.
fn assert_same(audience: &Audience, people: &People, ids: u32) {
    let names: Vec<String> = audience.segments().map(str::to_owned).collect();
    assert!(names.is_sorted());
    for id in 0..ids {
        let key = key(&format!("u{id}"));
        let said: BTreeMap<String, Option<i64>> = audience
            .memberships(key)
            .into_iter()
            .map(|(i, e)| (names[i as usize].clone(), e.map(Timestamp::unix_seconds)))
            .collect();
        let expected = people.get(&id);
        let named = expected.into_iter().flatten();
        let named = named.map(|(segment, e)| (format!("s{segment}"), *e));
        assert_eq!(said, named.collect::<BTreeMap<_, _>>(), "u{id}");
        for now in [-1, 50, 199, 1000] {
            let live = expected.map(|segments| {
                let live = segments.iter().filter(|(_, e)| e.is_none_or(|e| e > now));
                let mut live: Vec<String> = live.map(|(s, _)| format!("s{s}")).collect();
                live.sort();
                live
            });
            assert_eq!(look_up(audience, key, at(now)), live, "u{id} at {now}");
        }
    }
    assert_eq!(audience.ids(), people.len() as u64);
    let all = people.values().map(BTreeMap::len).sum::<usize>();
    assert_eq!(audience.membership_count(), all as u64);
    for (index, (name, count)) in audience.segments().zip(audience.segment_ids()).enumerate() {
        assert_eq!(audience.segment_index(name), Some(index as u32));
        let own: u16 = name[1..].parse().expect("a number");
        let expected = people.values().filter(|p| p.contains_key(&own)).count();
        assert_eq!(*count, expected as u64, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// One after the other or all at once, made a full version again or not: the same, and what the map says.
    #[test]
    fn deltas_change_what_a_map_changes(
        base in prop::collection::btree_map(
            0u32..40,
            prop::collection::btree_map(0u16..25, prop::option::weighted(0.2, 0i64..200), 1..8),
            1..40,
        ),
        deltas in prop::collection::vec(any_delta(60), 1..7),
        compacted_after in prop::collection::vec(prop::bool::weighted(0.3), 7),
    ) {
        let mut people = base;
        let bottom = open(&full(&people).0);
        let mut audience = bottom.clone();
        let mut compacted = bottom.clone();
        let mut files = Vec::new();
        for ((version, rows), compact) in (2u64..).zip(&deltas).zip(compacted_after) {
            change(&mut people, rows);
            let file = delta(version, version - 1, rows);
            audience = audience.changed_by(std::slice::from_ref(&file)).expect("fits");
            prop_assert_eq!(audience.meta(), file.meta());
            assert_same(&audience, &people, 62);
            compacted = compacted.changed_by(std::slice::from_ref(&file)).expect("fits");
            if compact && !people.is_empty() {
                let mut whole = Vec::new();
                compacted.compact(&mut whole).expect("has room");
                let rows = compacted.rows();
                compacted = open(&whole);
                prop_assert_eq!((compacted.changed_ids(), compacted.base().root()), (0, 1));
                prop_assert_eq!(compacted.rows(), rows);
                prop_assert_eq!(compacted.meta().version, version);
                let named = people.values().flat_map(|p| p.keys().copied());
                let named: std::collections::BTreeSet<u16> = named.collect();
                prop_assert_eq!(compacted.segments().len(), named.len());
            }
            assert_same(&compacted, &people, 62);
            files.push(file);
        }
        let at_once = bottom.changed_by(&files).expect("fit");
        assert_same(&at_once, &people, 62);
        prop_assert_eq!(at_once.changed_ids(), audience.changed_ids());
        prop_assert_eq!(at_once.rows(), audience.rows());
    }
}

#[test]
fn a_layer_of_many_shards_leaves_all_others_alone() {
    let ids = 20_000u32;
    let set = |id: u32| {
        (0..25)
            .filter(move |s| (id + s * 37) % 11 < 3)
            .map(|s| (s as u16, None))
    };
    let mut people: People = (0..ids).map(|id| (id, set(id).collect())).collect();
    people.retain(|_, segments| !segments.is_empty());
    let rows: Vec<Said> = (0..ids + 3000)
        .step_by(3)
        .map(|id| Said {
            id,
            add: vec![(id % 28) as u16, 29],
            remove: vec![28],
            delete: id % 5 == 0,
            expires: None,
        })
        .collect();
    let bottom = open(&full(&people).0);
    change(&mut people, &rows);
    let audience = bottom.changed_by(&[delta(2, 1, &rows)]).expect("fits");
    assert_eq!(audience.changed_ids(), rows.len() as u64);
    assert_same(&audience, &people, ids + 3001);
    let mut whole = Vec::new();
    audience.compact(&mut whole).expect("has room");
    let compacted = open(&whole);
    assert_same(&compacted, &people, ids + 3001);
    // Written by other places, and not much larger than what is built of the same rows.
    let anew = full(&people).0.len() as f64;
    assert!(
        (whole.len() as f64) < anew * 1.02,
        "{} of {anew}",
        whole.len()
    );
    // And what the version below said of everybody is as it was.
    assert_eq!(bottom.changed_ids(), 0);
    assert_eq!(bottom.ids(), u64::from(ids));
}

#[test]
fn only_deltas_over_what_lies_below_are_taken() {
    let people: People = [(1, [(1, None)].into())].into();
    let bottom = open(&full(&people).0);
    let said = [Said {
        id: 1,
        add: vec![2],
        remove: vec![],
        delete: false,
        expires: None,
    }];
    let refused = |deltas: &[AudienceFile]| bottom.changed_by(deltas).expect_err("does not fit");
    assert!(matches!(
        refused(&[delta(3, 2, &said)]),
        LayerError::OtherBase {
            version: 3,
            base: 2,
            below: 1
        }
    ));
    assert!(matches!(
        refused(&[delta(2, 1, &said), delta(4, 3, &said)]),
        LayerError::OtherBase {
            version: 4,
            base: 3,
            below: 2
        }
    ));
    // Over a version 2 that is full, what was hashed for version 1 as root means nothing.
    let second = build(meta(2), &RowFormat::Csv, b"source,id,segments\nifa,u1,s1\n");
    let other = open(&second.0).changed_by(&[delta(3, 2, &said)]);
    assert!(matches!(
        other.expect_err("another root"),
        LayerError::OtherRoot {
            version: 3,
            root: 1,
            below: 2
        }
    ));
    // A full version is no delta, and a delta no version by itself.
    let full = AudienceFile::from_bytes(&second.0).expect("sound");
    assert!(matches!(refused(&[full]), LayerError::Foreign(2)));
    assert_eq!(bottom.changed_by(&[]).expect("nothing").changed_ids(), 0);
    let nothing = bottom.compact(&mut Vec::new()).expect_err("no deltas");
    assert!(matches!(nothing, CompactError::NoDeltas));
    let last = Said {
        add: vec![],
        delete: true,
        ..said[0].clone()
    };
    let nobody = bottom.changed_by(&[delta(2, 1, &[last])]).expect("fits");
    assert_eq!(nobody.ids(), 0);
    let empty = nobody.compact(&mut Vec::new()).expect_err("nobody");
    assert!(matches!(empty, CompactError::Empty));
    let alone = bottom.changed_by(&[delta(2, 1, &said)]).expect("fits");
    assert_eq!(alone.lookup(key("u2"), at(0), |_| {}), Lookup::Absent);
}
