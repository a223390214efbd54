//! Whatever threads, memory and blocks there are, the file is the one that a naive builder writes.

use std::collections::BTreeMap;
use std::io::{self, Read};

use proptest::prelude::*;

use super::super::code::{Contexts, Membership, Sample, Shape};
use super::super::format::{Body, Header, SEGMENT_ENTRY_BYTES};
use super::super::shard::{Entry, Hashed, Layout, Placed, ShardWriter, shard_bits_for};
use super::output::Sections;
use super::*;
use crate::audience::code::Expiry;
use crate::audience::{Audience, RowReport};
use crate::ids::{Name, SecretKey};

fn keyer() -> Keyer {
    Keyer::new(&SecretKey::from_bytes([7; 32]))
}

fn meta(base: Option<u64>) -> VersionMeta {
    VersionMeta {
        kind: Kind::Audience,
        dataset: "crm".parse().expect("a name"),
        version: 9,
        base,
        as_of: None,
    }
}

/// What may not make a difference.
#[derive(Debug, Clone, Copy)]
struct Means {
    threads: usize,
    /// Bytes of memory; it is let go below what callers may say.
    memory: Option<u64>,
    block: usize,
}

const PLAIN: Means = Means {
    threads: 1,
    memory: None,
    block: BLOCK_BYTES,
};

struct Built {
    file: Vec<u8>,
    report: RowReport,
    held_most: usize,
    spilled: u64,
}

fn build(means: Means, base: Option<u64>, inputs: &[&str]) -> Built {
    let folder = tempfile::tempdir().expect("a folder");
    let mut builder = Builder::new(meta(base), keyer())
        .expect("an audience")
        .with_threads(means.threads);
    builder.block_bytes = means.block;
    builder.bound = means.memory.map(|bytes| Bound {
        bytes,
        folder: folder.path().to_owned(),
    });
    for input in inputs {
        let read = builder.read_rows(&RowFormat::Csv, input.as_bytes(), &mut |_| {});
        read.expect("readable");
    }
    let store = Arc::clone(&builder.shared.as_ref().expect("an input").store);
    let mut file = Vec::new();
    let report = builder.finish(&mut file).expect("some good row");
    Built {
        file,
        report,
        held_most: store.held_most(),
        spilled: store.spilled(),
    }
}

/// A good row, as the naive builder wants it.
#[derive(Debug, Clone)]
struct Plain {
    id: u32,
    added: Vec<u16>,
    removed: Vec<u16>,
    deleted: bool,
    expires: Option<i64>,
}

fn name(segment: u16) -> Name {
    format!("s{segment}").parse().expect("a name")
}

fn line(row: &Plain, delta: bool) -> String {
    let names = |all: &[u16]| {
        let all: Vec<String> = all.iter().map(|n| name(*n).to_string()).collect();
        all.join("|")
    };
    let expires = row.expires.map_or(String::new(), |at| {
        crate::clock::Timestamp::from_unix_seconds(at).to_string()
    });
    let added = names(&row.added);
    let id = row.id;
    match delta {
        false => format!("ifa,u{id},{added},{expires}\n"),
        true => {
            let (removed, deleted) = (names(&row.removed), row.deleted);
            format!("ifa,u{id},{added},{expires},{removed},{deleted}\n")
        }
    }
}

fn text(rows: &[Plain], delta: bool) -> String {
    let head = match delta {
        false => "source,id,segments,expires\n",
        true => "source,id,add,expires,remove,delete\n",
    };
    let lines: String = rows.iter().map(|row| line(row, delta)).collect();
    format!("{head}{lines}")
}

/// An id's deletion, expiries by segment, and removals.
type Change = (bool, BTreeMap<u16, i64>, Vec<u16>);

/// The file of some rows, made in the plainest way: a map of ids, and all of it in memory.
fn naive(rows: &[Plain], base: Option<u64>) -> Vec<u8> {
    let meta = meta(base);
    let root = base.unwrap_or(meta.version);
    let remix = Remix::new(&salt(&meta.dataset, root, 0));
    let mut ids: BTreeMap<Hashed, Change> = BTreeMap::new();
    let mut named: BTreeMap<u16, u64> = BTreeMap::new();
    for row in rows {
        let key = keyer().user_key("ifa", &format!("u{}", row.id));
        let change = ids.entry(remix.mix(key.expect("an id"))).or_default();
        change.0 |= row.deleted;
        for segment in &row.added {
            *named.entry(*segment).or_default() += 1;
            let at = row.expires.unwrap_or(i64::MAX);
            let kept = change.1.entry(*segment).or_insert(at);
            *kept = at.max(*kept);
        }
        for segment in &row.removed {
            *named.entry(*segment).or_default() += 1;
            change.2.push(*segment);
        }
    }
    for (deleted, added, removed) in ids.values_mut() {
        removed.sort_unstable();
        removed.dedup();
        added.retain(|segment, _| !removed.contains(segment));
        if *deleted {
            removed.clear();
        }
    }
    let mut order: Vec<(u16, u64)> = named.into_iter().collect();
    order.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| name(a.0).cmp(&name(b.0))));
    let rank = |segment: u16| {
        order
            .iter()
            .position(|(s, _)| *s == segment)
            .expect("named") as u32
    };
    let sets = |change: &Change| -> (Vec<Membership>, Vec<Membership>) {
        let mut added: Vec<Membership> = change
            .1
            .iter()
            .map(|(segment, at)| Membership {
                rank: rank(*segment),
                expires: Some(*at).filter(|at| *at != i64::MAX),
            })
            .collect();
        let mut removed: Vec<Membership> = change
            .2
            .iter()
            .map(|segment| Membership {
                rank: rank(*segment),
                expires: None,
            })
            .collect();
        added.sort_by_key(|m| m.rank);
        removed.sort_by_key(|m| m.rank);
        (added, removed)
    };
    let delta = base.is_some();
    let mut sample = Sample::default();
    for change in ids.values() {
        let (added, removed) = sets(change);
        sample.push(&added);
        if delta {
            sample.push(&removed);
        }
    }
    let expiring = rows.iter().filter_map(|row| row.expires);
    let expiry = match (expiring.clone().min(), expiring.max()) {
        (Some(first), Some(last)) => Expiry::Since {
            first,
            bits: (u64::BITS - last.abs_diff(first).leading_zeros()).max(1),
        },
        _ => Expiry::Unused,
    };
    let shape = Shape {
        segments: order.len() as u32,
        may_be_empty: delta,
        expiry,
        contexts: Contexts::ByState,
    };
    let sets_an_id = if delta { 2 } else { 1 };
    let (code, mean) = sample
        .plan(shape, ids.len() as u64 * sets_an_id)
        .expect("a code");
    let shard_bits = shard_bits_for(rows.len() as u64);
    let layout = Layout::of(code, mean * sets_an_id as f64, delta, shard_bits);
    let mut file = Vec::new();
    let mut sections = Sections::begin(&mut file).expect("to memory");
    let mut bytes = Vec::new();
    layout.code.encode(&mut bytes);
    let (mut records, mut index) = (Vec::new(), Vec::new());
    let mut in_rank = vec![0u64; order.len()];
    let mut removals = 0;
    for shard in 0..1usize << layout.shard_bits {
        let (mut placed, mut all) = (Vec::new(), Vec::new());
        for (hashed, change) in &ids {
            if hashed.shard(layout.shard_bits) != shard {
                continue;
            }
            let (added, removed) = sets(change);
            for membership in &added {
                in_rank[membership.rank as usize] += 1;
            }
            removals += removed.len() as u64;
            let from = all.len();
            all.extend(added);
            let to = all.len();
            all.extend(removed);
            placed.push(Placed {
                hashed: *hashed,
                set: from..to,
                removed: to..all.len(),
                deleted: change.0,
            });
        }
        let start = records.len() as u64;
        let mut entry = ShardWriter::default()
            .write(&layout, &placed, &all, &mut records)
            .expect("apart");
        entry.start = start;
        index.extend(entry.encode());
    }
    index.extend(Entry::end(records.len() as u64).encode());
    let mut names: Vec<(Name, u32)> = order.iter().map(|(s, _)| (name(*s), rank(*s))).collect();
    names.sort();
    let mut table = Vec::new();
    for (name, rank) in names {
        let end = table.len() + SEGMENT_ENTRY_BYTES;
        table.extend(in_rank[rank as usize].to_le_bytes());
        table.extend(rank.to_le_bytes());
        table.extend((name.as_str().len() as u32).to_le_bytes());
        table.extend(name.as_str().as_bytes());
        table.resize(end, 0);
    }
    for part in [records, index, bytes, table] {
        sections.write(&part).expect("to memory");
        sections.end_section();
    }
    let (first_expiry, expiry_bits) = match expiry {
        Expiry::Unused => (None, 0),
        Expiry::Since { first, bits } => (Some(first), bits),
    };
    sections
        .finish(|sections| {
            let header = Header {
                meta,
                key_id: keyer().key_id(),
                ids: ids.len() as u64,
                rows: rows.len() as u64,
                memberships: in_rank.iter().sum(),
                segments: order.len() as u32,
                first_expiry,
                body: Body::Sharded {
                    shard_bits: layout.shard_bits,
                    expiry_bits,
                    lengths: layout.lengths,
                    root,
                    removed: removals,
                    bins: layout.bins,
                },
                sections,
            };
            Ok::<_, io::Error>(header.encode().expect("fits"))
        })
        .expect("to memory");
    file
}

fn plain_rows(delta: bool, most: usize) -> impl Strategy<Value = Vec<Plain>> {
    let segments = |most: usize| prop::collection::btree_set(0u16..40, 0..most);
    let row = (
        0u32..400,
        segments(9),
        segments(3),
        prop::bool::weighted(0.1),
        prop::option::weighted(0.2, 0i64..1000),
    );
    let row = row.prop_filter_map(
        "adds something",
        move |(id, added, removed, deleted, at)| {
            let removed = removed.difference(&added).copied();
            let row = Plain {
                id,
                removed: if delta { removed.collect() } else { Vec::new() },
                deleted: delta && deleted,
                expires: at.filter(|_| !added.is_empty()),
                added: added.into_iter().collect(),
            };
            let changes = !row.removed.is_empty() || row.deleted;
            (changes || !row.added.is_empty()).then_some(row)
        },
    );
    prop::collection::vec(row, 1..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The same rows give the same bytes in any order, on any number of threads, with any memory, in one input or two.
    #[test]
    fn the_file_is_that_of_a_naive_builder(
        (delta, rows) in any::<bool>().prop_flat_map(|delta| (Just(delta), plain_rows(delta, 600))),
        threads in prop::sample::select(vec![1usize, 2, 5]),
        memory in prop::option::of(prop::sample::select(vec![1u64, 100 << 10, 64 << 20])),
        block in prop::sample::select(vec![60usize, 1000, BLOCK_BYTES]),
        turn in 0usize..600,
        cut in 0usize..600,
    ) {
        let base = delta.then_some(4);
        let expected = naive(&rows, base);
        prop_assert!(build(PLAIN, base, &[&text(&rows, delta)]).file == expected);
        let mut turned = rows.clone();
        turned.rotate_left(turn % rows.len());
        let (one, two) = turned.split_at(cut % rows.len());
        let means = Means { threads, memory, block };
        let built = build(means, base, &[&text(one, delta), &text(two, delta)]);
        prop_assert_eq!(built.report.rows, rows.len() as u64);
        prop_assert!(built.file == expected);
    }
}

/// So many rows of ids that mostly come once, in two segments.
fn many(rows: u32) -> Vec<Plain> {
    let row = |id: u32| Plain {
        id: id.wrapping_mul(2_654_435_761) % (2 * rows),
        added: vec![(id % 7) as u16, 10 + (id % 13) as u16],
        removed: Vec::new(),
        deleted: false,
        expires: None,
    };
    (0..rows).map(row).collect()
}

#[test]
fn a_version_of_many_shards_and_partitions_is_the_same_by_any_means() {
    let text = text(&many(60_000), false);
    let plain = build(PLAIN, None, &[&text]);
    assert_eq!(plain.spilled, 0);
    Audience::from_bytes(&plain.file).expect("sound");
    for (threads, memory) in [
        (2, None),
        (2, Some(1)),
        (5, Some(4 << 20)),
        (1, Some(2 << 20)),
    ] {
        let means = Means {
            threads,
            memory,
            block: 4096,
        };
        let built = build(means, None, &[&text]);
        assert!(built.file == plain.file, "{means:?}");
        assert_eq!(built.report, plain.report);
        assert_eq!(built.spilled > 0, memory.is_some(), "{means:?}");
    }
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let rows = many(300_000);
    let all: u64 = rows.iter().map(|row| 17 + 2 * row.added.len() as u64).sum();
    let memory = 4 << 20;
    let means = Means {
        threads: 2,
        memory: Some(memory),
        block: 64 << 10,
    };
    let built = build(means, None, &[&text(&rows, false)]);
    assert!(all > memory && built.spilled > all / 2, "{}", built.spilled);
    let held = built.held_most as u64;
    assert!(held <= memory, "{held} bytes held of {memory}");
}

#[test]
fn bad_rows_are_the_first_by_their_lines_whoever_read_them() {
    let mut text = "source,id,segments\n".to_owned();
    for line in 2..3000u32 {
        match line % 17 {
            0 => text += "ifa,,vip\n",
            1 => text += "\n",
            2 => text += "ifa,a,\"vip\n",
            3 if line > 2000 => text += "\u{0}ifa\n",
            _ => text += &format!("ifa,u{line},s{}\n", line % 60),
        }
    }
    let plain = build(PLAIN, None, &[&text, &text]);
    assert_eq!(plain.report.rejected.len(), 100);
    for threads in [2, 5] {
        let means = Means {
            threads,
            memory: None,
            block: 200,
        };
        let built = build(means, None, &[&text, &text]);
        assert_eq!(built.report, plain.report);
        assert!(built.file == plain.file);
    }
}

#[test]
fn guards_see_the_same_people_whoever_read_them() {
    let seen = |threads| {
        let mut builder = Builder::new(meta(None), keyer())
            .expect("an audience")
            .with_threads(threads);
        builder.block_bytes = 5000;
        let text = text(&many(20_000), false);
        let read = builder.read_rows(&RowFormat::Csv, text.as_bytes(), &mut |_| {});
        read.expect("readable");
        let seen = builder.take_seen();
        let names = |person: &crate::audience::SeenPerson| {
            let named = person.memberships.iter();
            let mut names: Vec<Name> = named
                .map(|(at, _)| seen.segments[*at as usize].clone())
                .collect();
            names.sort();
            (person.key, names)
        };
        let people: Vec<_> = seen.people.iter().map(names).collect();
        (people, seen.sources, seen.last_expiry)
    };
    assert_eq!(seen(1), seen(4));
}

#[test]
fn a_failing_input_ends_the_reading_on_all_threads() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
    let mut builder = Builder::new(meta(None), keyer())
        .expect("an audience")
        .with_threads(3);
    builder.block_bytes = 100;
    let text = text(&many(1000), false);
    let input = io::BufReader::new(text.as_bytes().chain(Broken));
    let told = builder.read_rows(&RowFormat::Csv, input, &mut |_| {});
    assert!(matches!(told, Err(ReadError::Io(_))), "{told:?}");
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let mut builder = Builder::new(meta(None), keyer()).expect("an audience");
    builder.bound = Some(Bound {
        bytes: 1,
        folder: "/nowhere/at/all".into(),
    });
    let text = text(&many(20_000), false);
    let told = builder.read_rows(&RowFormat::Csv, text.as_bytes(), &mut |_| {});
    assert!(matches!(told, Err(ReadError::Scratch(_))), "{told:?}");
}
