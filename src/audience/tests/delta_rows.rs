//! Rows of a delta: which are good, how they merge, and what of them stands in the file.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::bits::Bits;
use super::super::code::{Code, Contexts, Expiry, Shape};
use super::super::format::{Body, HEADER_BYTES, Header, SEGMENT_ENTRY_BYTES};
use super::super::remix::{Remix, salt};
use super::super::shard::{ENTRY_BYTES, Entry, Layout, Shard};
use super::*;
use crate::audience::{AudienceFile, BuildError, ReadError};

/// What a delta says of an id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Change {
    deleted: bool,
    /// The second at which what is added expires, [`i64::MAX`] where never.
    added: BTreeMap<String, i64>,
    removed: BTreeSet<String>,
}

/// A delta's file, read without the reader.
struct Delta {
    header: Header,
    layout: Layout,
    /// Segments by rank, and how many ids are added to each.
    segments: BTreeMap<u32, (String, u64)>,
    remix: Remix,
    file: Vec<u8>,
}

impl Delta {
    fn read(file: &[u8]) -> Self {
        let first: &[u8; HEADER_BYTES] = file.first_chunk().expect("a header");
        let header = Header::decode(first, file.len() as u64).expect("sound");
        let Body::Sharded {
            shard_bits,
            expiry_bits,
            lengths,
            root,
            bins,
            ..
        } = header.body
        else {
            panic!("one with shards");
        };
        let shape = Shape {
            segments: header.segments,
            may_be_empty: true,
            expiry: header.first_expiry.map_or(Expiry::Unused, |first| {
                let bits = expiry_bits;
                Expiry::Since { first, bits }
            }),
            contexts: Contexts::ByState,
        };
        let section = |at: usize| {
            let (offset, length) = header.places().expect("places")[at];
            &file[offset as usize..][..length as usize]
        };
        let code = Code::decode(section(2), shape).expect("a code");
        let segments = section(3).chunks_exact(SEGMENT_ENTRY_BYTES).map(|entry| {
            let word = |at: usize| u32::from_le_bytes(*entry[at..].first_chunk().expect("4"));
            let name = &entry[16..][..word(12) as usize];
            let name = String::from_utf8(name.to_vec()).expect("text");
            (word(8), (name, word(0).into()))
        });
        Self {
            segments: segments.collect(),
            remix: Remix::new(&salt(&header.meta.dataset, root, 0)),
            layout: Layout {
                code,
                lengths,
                delta: true,
                shard_bits,
                bins,
            },
            header,
            file: file.to_vec(),
        }
    }

    fn removed(&self) -> u64 {
        self.header.removed()
    }

    fn find(&self, id: &str) -> Option<Change> {
        let places = self.header.places().expect("places");
        let (records, index) = (places[0].0 as usize, places[1].0 as usize);
        let hashed = self.remix.mix(key(id));
        let shard = hashed.shard(self.layout.shard_bits);
        let entry = &self.file[index + shard * ENTRY_BYTES..];
        let entry = Entry::decode(*entry.first_chunk().expect("an entry"));
        let bytes = &self.file[records + entry.start as usize..];
        let shard = Shard {
            layout: &self.layout,
            geometry: entry.geometry,
            bytes,
        };
        let mut bits: Bits<'_> = shard.find(hashed).expect("sound")?;
        let mut change = Change {
            deleted: bits.take(1) == 1,
            ..Change::default()
        };
        let name = |rank: u32| self.segments[&rank].0.clone();
        let code = &self.layout.code;
        code.walk(&mut bits, |rank, expires| {
            change.added.insert(name(rank), expires.unwrap_or(i64::MAX));
        })
        .expect("a set");
        if !change.deleted {
            code.walk(&mut bits, |rank, expires| {
                assert_eq!(expires, None);
                change.removed.insert(name(rank));
            })
            .expect("a set");
        }
        Some(change)
    }
}

fn delta_meta(version: u64, base: u64) -> VersionMeta {
    VersionMeta {
        base: Some(base),
        ..meta(version)
    }
}

fn delta_csv(rows: &str) -> (Vec<u8>, RowReport) {
    let rows = format!("source,id,add,remove,expires,delete\n{rows}");
    build(delta_meta(9, 7), &RowFormat::Csv, rows.as_bytes())
}

#[track_caller]
fn check(format: &RowFormat, rows: &str, expected: &[(u64, &str)]) {
    let mut builder = Builder::new(delta_meta(2, 1), keyer()).expect("a delta");
    builder
        .read_rows(format, rows.as_bytes(), &mut |_| {})
        .expect("readable");
    let report = match builder.finish(&mut std::io::sink()) {
        Ok(report) => report,
        Err(BuildError::Empty { report }) => *report,
        Err(e) => panic!("{e}"),
    };
    let told = report.rejected.iter().map(|row| (row.line, &*row.reason));
    let told: Vec<(u64, &str)> = told.collect();
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert_eq!(told.0, expected.0, "{told:?}");
        assert!(told.1.contains(expected.1), "{told:?}, not {expected:?}");
    }
}

#[test]
fn csv_rows_of_a_delta() {
    let all = "id,remove,source,delete,add,expires\n";
    let check = |rows: &str, expected: &[_]| {
        check(&RowFormat::Csv, &format!("{all}{rows}"), expected);
    };
    check(
        "a,,ifa,,vip|cart,\nb,vip,ifa,false,,\nc,,ifa,true,,\nd,a|b,ifa,true,c,2030-01-01T00:00:00Z\n",
        &[],
    );
    check(
        "a,,ifa,,,\nb,||,ifa,false,,\nc,|,ifa,true,|,\n",
        &[(2, "changes nothing"), (3, "changes nothing")],
    );
    check("a,vip|cart,ifa,,old|cart,\n", &[(2, "both add and remove")]);
    check(
        "a,vip,ifa,,,2030-01-01T00:00:00Z\nb,,ifa,true,,2030-01-01T00:00:00Z\n",
        &[(2, "nothing is added"), (3, "nothing is added")],
    );
    check("a,,ifa,yes,vip,\n", &[(2, "neither true nor false")]);
    check(
        "a,crm/vip,ifa,,,\n",
        &[(2, "within the dataset write only")],
    );
    check("a,v p,ifa,,,\n", &[(2, "a segment is not a name")]);
    for some in ["source,id,add", "source,id,remove", "source,id,delete"] {
        super::delta_rows::check(&RowFormat::Csv, &format!("{some}\nifa,a,true\n"), &[]);
    }
}

#[test]
fn ndjson_rows_of_a_delta() {
    let check = |rows: &str, expected: &[_]| check(&RowFormat::Ndjson, rows, expected);
    check(
        r#"{"source":"ifa","id":"a","add":["vip"],"remove":["cart"],"expires":"2030-01-01T00:00:00Z"}"#,
        &[],
    );
    check(r#"{"source":"ifa","id":"a","delete":true,"add":null}"#, &[]);
    check(
        r#"{"source":"ifa","id":"a","delete":true,"add":["vip"]}"#,
        &[],
    );
    check(
        r#"{"source":"ifa","id":"a","delete":false}"#,
        &[(1, "changes nothing")],
    );
    check(
        r#"{"source":"ifa","id":"a","delete":1}"#,
        &[(
            1,
            "wrong type; a row is {\"source\":\"…\",\"id\":\"…\",\"add\"",
        )],
    );
    check(
        r#"{"source":"ifa","id":"a","segments":["vip"]}"#,
        &[(1, "names them in add or remove")],
    );
}

#[test]
fn an_id_a_line_is_added_to_its_segment() {
    let text = RowFormat::Text {
        source: "ifa".to_owned(),
        segment: "vip".parse().expect("a name"),
    };
    let delta = Delta::read(&build(delta_meta(2, 1), &text, b"a\n").0);
    let change = delta.find("a").expect("there");
    assert_eq!(change.added.keys().collect::<Vec<_>>(), ["vip"]);
}

#[test]
fn rows_of_the_other_mode_are_told_which() {
    let told = |meta: VersionMeta, rows: &str| {
        let mut builder = Builder::new(meta, keyer()).expect("an audience");
        match builder.read_rows(&RowFormat::Csv, rows.as_bytes(), &mut |_| {}) {
            Err(e @ ReadError::NoHeader { .. }) => e.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let delta = told(delta_meta(2, 1), "source,id,segments\n");
    assert!(delta.contains("names them in add or remove"), "{delta}");
    assert!(
        delta.contains("expected is source,id,add,remove"),
        "{delta}"
    );
    let none = told(delta_meta(2, 1), "source,id,expires\n");
    assert!(none.contains("no column add or remove"), "{none}");
    for column in ["add", "remove", "delete"] {
        let full = told(meta(1), &format!("source,id,{column}\n"));
        assert!(full.contains("mode=delta"), "{full}");
        assert!(full.contains("expected is source,id,segments"), "{full}");
    }
    let row = r#"{"source":"ifa","id":"a","remove":["vip"]}"#;
    super::row_reports::check(&RowFormat::Ndjson, row, &[(1, "mode=delta")]);
}

#[test]
fn counts_are_of_what_changes() {
    let (file, report) = delta_csv(
        "ifa,a,vip|cart,,,\nifa,a,,old,,\nifa,b,vip,gone,2030-01-01T00:00:00Z,\nifa,c,,,,true\nifa,a,vip,,,\n",
    );
    assert_eq!((report.rows, report.ids, report.merged), (5, 3, 2));
    let delta = Delta::read(&file);
    assert_eq!(delta.header.meta.base, Some(7));
    assert_eq!((delta.header.memberships, delta.removed()), (3, 2));
    let mut segments: Vec<_> = delta.segments.values().cloned().collect();
    segments.sort();
    let expected = [("cart", 1), ("gone", 0), ("old", 0), ("vip", 2)];
    assert_eq!(segments, expected.map(|(n, c)| (n.to_owned(), c)));
    assert_eq!(delta.segments[&0].0, "vip", "the most named");
    assert!(delta.find("c").expect("there").deleted);
    assert_eq!(delta.find("d"), None);
    AudienceFile::from_bytes(&file).expect("sound");
}

#[test]
fn a_delta_may_only_delete() {
    let (file, _) = delta_csv("ifa,a,,,,true\nifa,b,,,,true\n");
    let delta = Delta::read(&file);
    assert_eq!((delta.header.segments, delta.header.memberships), (0, 0));
    let deleted = Change {
        deleted: true,
        ..Change::default()
    };
    assert_eq!(delta.find("a"), Some(deleted));
    AudienceFile::from_bytes(&file).expect("sound");
}

#[test]
fn its_salt_is_that_of_the_root() {
    let rows = b"source,id,add\nifa,a,vip\n";
    let built = |root| {
        let mut builder = Builder::delta(delta_meta(9, 7), root, keyer()).expect("a delta");
        let read = builder.read_rows(&RowFormat::Csv, &rows[..], &mut |_| {});
        read.expect("readable");
        let mut file = Vec::new();
        builder.finish(&mut file).expect("a row");
        Delta::read(&file)
    };
    for root in [7, 3] {
        let delta = built(root);
        assert_eq!(
            delta.header.salt(),
            salt(&delta.header.meta.dataset, root, 0)
        );
        assert!(delta.find("a").is_some());
    }
}

/// A row of the property below: id, added, removed, deleted, expiry.
type Changed = (u8, BTreeSet<u8>, BTreeSet<u8>, bool, Option<u8>);

fn spelled((id, add, remove, delete, expires): &Changed) -> String {
    let names = |all: &BTreeSet<u8>| {
        let all: Vec<String> = all.iter().map(|n| format!("s{n}")).collect();
        all.join("|")
    };
    let expires = match expires.filter(|_| !add.is_empty()) {
        Some(second) => at(second.into()).to_string(),
        None => String::new(),
    };
    let remove: BTreeSet<u8> = remove.difference(add).copied().collect();
    let (add, remove) = (names(add), names(&remove));
    format!("ifa,u{id},{add},{remove},{expires},{delete}\n")
}

fn naive(rows: &[Changed]) -> BTreeMap<u8, Change> {
    let mut all: BTreeMap<u8, Change> = BTreeMap::new();
    for (id, add, remove, delete, expires) in rows {
        if add.is_empty() && remove.is_empty() && !delete {
            continue;
        }
        let change = all.entry(*id).or_default();
        change.deleted |= delete;
        for name in add {
            let at = expires.map_or(i64::MAX, i64::from);
            let kept = change.added.entry(format!("s{name}")).or_insert(at);
            *kept = at.max(*kept);
        }
        change
            .removed
            .extend(remove.difference(add).map(|n| format!("s{n}")));
    }
    for change in all.values_mut() {
        change
            .added
            .retain(|name, _| !change.removed.contains(name));
        if change.deleted {
            change.removed.clear();
        }
    }
    all
}

proptest! {
    #[test]
    fn rows_of_an_id_merge_as_in_a_naive_map_in_any_order(
        rows in prop::collection::vec((
            0u8..20,
            prop::collection::btree_set(0u8..6, 0..4),
            prop::collection::btree_set(0u8..6, 0..3),
            prop::bool::weighted(0.2),
            prop::option::of(0u8..5),
        ), 1..60),
        turn in 0usize..60,
    ) {
        let expected = naive(&rows);
        prop_assume!(!expected.is_empty());
        let text: String = rows.iter().map(spelled).collect();
        let (file, report) = delta_csv(&text);
        let delta = Delta::read(&file);
        prop_assert_eq!(report.ids, expected.len() as u64);
        let added: usize = expected.values().map(|change| change.added.len()).sum();
        let removed: usize = expected.values().map(|change| change.removed.len()).sum();
        prop_assert_eq!(delta.header.memberships, added as u64);
        prop_assert_eq!(delta.removed(), removed as u64);
        for id in 0u8..20 {
            prop_assert_eq!(delta.find(&format!("u{id}")), expected.get(&id).cloned());
        }
        AudienceFile::from_bytes(&file).expect("sound");
        let mut turned = rows.clone();
        turned.rotate_left(turn % rows.len());
        let text: String = turned.iter().map(spelled).collect();
        prop_assert!(delta_csv(&text).0 == file);
    }
}
