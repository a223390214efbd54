//! Identity graphs: rows to persons, against an oracle of plain maps; and files that must be refused.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::damage::{reseal, sections, with_parts};
use super::*;
use crate::audience::{
    BuildError, Filter, Flaw, Graph, IDS_PER_PERSON, IDS_PER_SOURCE, MEMORY_MIN, Person, ReadError,
    Version,
};

const FIXTURE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/fixtures/format-v3-identity.kith"
);

fn links_meta(version: u64) -> VersionMeta {
    VersionMeta {
        kind: Kind::Identity,
        dataset: "graph".parse().expect("a name"),
        ..meta(version)
    }
}

fn of(source: &str, id: &str) -> UserKey {
    keyer().user_key(source, id).expect("a good id")
}

fn whole(rows: &str) -> Vec<u8> {
    build_links(rows).0
}

fn build_links(rows: &str) -> (Vec<u8>, RowReport) {
    let text = format!("source,id,person\n{rows}");
    build(links_meta(1), &RowFormat::Csv, text.as_bytes())
}

fn graph(rows: &str) -> Graph {
    Graph::from_bytes(&whole(rows)).expect("sound")
}

fn refused(file: &[u8]) -> Option<Flaw> {
    Graph::from_bytes(file).err().map(|e| e.flaw)
}

/// What a graph says of a person: her key and her ids, with their sources.
fn said(person: Person<'_>) -> (UserKey, Vec<(UserKey, String)>) {
    let ids = person.ids().map(|(key, source)| (key, source.to_owned()));
    (person.key(), ids.collect())
}

/// So many persons, of one to six ids each.
fn people(persons: u32) -> String {
    let ids = (0..persons).flat_map(|person| (0..=person % 6).map(move |id| (person, id)));
    let source = |id| ["ifa", "email", "uidapi.com"][id as usize % 3];
    ids.map(|(person, id)| format!("{},u{person}-{id},p{person}\n", source(id)))
        .collect()
}

#[test]
fn rows_become_persons() {
    let rows = "ifa,ABC,anna\n\
                email, a@example.com ,anna\n\
                IFA,abc,anna\n\
                uidapi.com,u1,ben\n";
    let (file, report) = build_links(rows);
    assert_eq!((report.rows, report.ids, report.merged), (4, 3, 1));
    assert_eq!((report.segments, report.rejected_rows), (0, 0));
    let graph = Graph::from_bytes(&file).expect("sound");
    assert_eq!((graph.ids(), graph.rows(), graph.persons()), (3, 4, 2));
    assert_eq!(graph.meta(), &links_meta(1));
    assert_eq!(graph.bytes(), file.len() as u64);
    let sources: Vec<_> = graph.sources().collect();
    assert_eq!(sources, [("email", 1), ("ifa", 1), ("uidapi.com", 1)]);
    let mut anna = vec![
        (of("ifa", "abc"), "ifa".to_owned()),
        (of("email", "a@example.com"), "email".to_owned()),
    ];
    anna.sort();
    let key = of("person", "anna");
    for asked in [anna[0].0, anna[1].0, key] {
        let person = graph.person(asked).expect("anna");
        assert_eq!(said(person), (key, anna.clone()));
    }
    let ben = graph.person(of("uidapi.com", "u1")).expect("ben");
    assert_eq!(ben.key(), of("person", "ben"));
    assert!(graph.person(of("ifa", "u1")).is_none());
    assert!(graph.person(of("customer", "anna")).is_none());
    // Where it is opened as what it is, and as what it is not.
    assert!(matches!(Version::from_bytes(&file), Ok(Version::Graph(_))));
    let told = Filter::from_bytes(&file).expect_err("a graph").flaw;
    assert_eq!(
        told.to_string(),
        "holds a dataset of kind identity, not of kind filter"
    );
    let told = refused(&build_csv("ifa,a,vip,\n").0).expect("an audience");
    assert_eq!(
        told.to_string(),
        "holds a dataset of kind audience, not of kind identity"
    );
    // Lines of the table are lines of the cache where the file begins at one.
    let parts = sections(&file);
    assert_eq!((parts[0].0 % 64, parts[1].0 % 64), (0, 0));
}

#[test]
fn a_graph_crosses_threads_and_does_not_show_keys() {
    fn check<T: Send + Sync>() {}
    check::<Graph>();
    let graph = graph("ifa,a,anna\n");
    let shown = format!("{graph:?} {:?}", graph.person(of("ifa", "a")));
    assert!(!shown.contains(&of("ifa", "a").0.to_string()), "{shown}");
}

/// What an entry of the table keeps of a key is not all of it: a key that has the same of it and the same home is another's all the
/// same.
#[test]
fn a_key_that_differs_in_any_bit_is_nobodys() {
    let graph = graph(&people(300));
    for known in [of("person", "p7"), of("ifa", "u7-0")] {
        assert!(graph.person(known).is_some());
        for bit in 0..128 {
            let other = UserKey(known.0 ^ 1 << bit);
            assert!(graph.person(other).is_none(), "bit {bit}");
        }
    }
}

#[test]
fn a_probe_of_another_graph_finds_nothing() {
    let (small, large) = (graph("ifa,a,anna\n"), graph(&people(3000)));
    let found = (0..3000).filter(|n| {
        let probe = large.probe(of("ifa", &format!("u{n}-0")));
        let approach = large.approach(probe);
        assert!(large.person_at(approach).is_some());
        small.person_at(approach).is_some() || small.person_at(small.approach(probe)).is_some()
    });
    assert_eq!(found.count(), 0);
}

fn told(report: &RowReport) -> Vec<(u64, &str)> {
    let told = report.rejected.iter();
    told.map(|row| (row.line, row.reason.split([';', ',']).next().expect("some")))
        .collect()
}

#[test]
fn rows_that_cannot_be_are_told_by_line() {
    let long = "x".repeat(257);
    let rows = format!(
        "ifa,a,anna\n\
         Person,anna,ben\n\
         ifa,b,\n\
         ifa,c,{long}\n\
         ifa,null,anna\n\
         ifa,d,anna,more\n"
    );
    let (_, report) = build_links(&rows);
    assert_eq!(
        told(&report),
        [
            (3, "the source is person"),
            (4, "in the field person"),
            (5, "in the field person"),
            (6, "the id is a placeholder"),
            (7, "4 fields where the header has 3"),
        ]
    );
    let ndjson = br#"{"source":"ifa","id":"a","person":"anna"}
{"source":"ifa","id":"a"}
{"source":"ifa","id":"a","person":"anna","segments":["vip"]}
{"source":"ifa","id":"a","person":"anna","colour":"red"}
{"source":"ifa","id":"a","person":7}
"#;
    let (_, report) = build(links_meta(1), &RowFormat::Ndjson, ndjson);
    assert_eq!(
        told(&report),
        [
            (2, "missing field `person`"),
            (3, "segments"),
            (4, "unknown field at column 49"),
            (5, "a value at column 35 has the wrong type"),
        ]
    );
    assert!(report.rejected[0].reason.contains(r#""person":"…"}"#));
    // Persons in rows of segments.
    let (_, report) = build(
        meta(1),
        &RowFormat::Ndjson,
        br#"{"source":"ifa","id":"a","segments":["vip"]}
{"source":"ifa","id":"a","person":"anna"}"#,
    );
    assert!(report.rejected[0].reason.contains("kind=identity"));
}

#[test]
fn headers_of_other_kinds_are_refused() {
    let read = |meta: VersionMeta, header: &str| {
        let mut builder = Builder::new(meta, keyer()).expect("built");
        let read = builder.read_rows(&RowFormat::Csv, header.as_bytes(), &mut |_| {});
        read.err().map_or_else(String::new, |e| e.to_string())
    };
    assert_eq!(read(links_meta(1), "person,source,id\n"), "");
    let of_links = |header| read(links_meta(1), header);
    assert!(of_links("source,id\n").contains("no column person; expected is source,id,person"));
    assert!(of_links("source,id,segments\n").contains("has source, id and person"));
    assert!(of_links("source,id,person,expires\n").contains("has source, id and person"));
    assert!(of_links("a,b,c\n").contains("expected is source,id,person"));
    let of_segments = read(meta(1), "source,id,person\n");
    assert!(of_segments.contains("kind=identity"), "{of_segments}");
    let format = RowFormat::Text {
        source: "ifa".to_owned(),
        segment: "vip".parse().expect("a name"),
    };
    let mut builder = Builder::new(links_meta(1), keyer()).expect("built");
    let refused = builder.read_rows(&format, &b"a\n"[..], &mut |_| {});
    assert!(matches!(refused, Err(ReadError::NoPersons)));
    let delta = VersionMeta {
        base: Some(1),
        ..links_meta(2)
    };
    let refused = Builder::new(delta, keyer()).expect_err("no deltas");
    assert!(matches!(refused, BuildError::NoDeltas(Kind::Identity)));
}

#[test]
fn an_id_of_two_persons_is_nobodys() {
    let rows = "ifa,a,anna\nifa,b,anna\nifa,b,ben\nifa,a,anna\nIFA,B,anna\nifa,c,ben\n";
    let (file, report) = build_links(rows);
    let claimed = "two or more persons claim the id";
    assert_eq!(told(&report), [(3, claimed), (4, claimed), (6, claimed)]);
    assert_eq!((report.rows, report.ids, report.rejected_rows), (3, 2, 3));
    let graph = Graph::from_bytes(&file).expect("sound");
    assert!(graph.person(of("ifa", "b")).is_none());
    let anna = graph.person(of("ifa", "a")).expect("anna");
    assert_eq!(anna.ids().count(), 1);
    // Nothing is left.
    let mut builder = Builder::new(links_meta(1), keyer()).expect("built");
    let rows = "source,id,person\nifa,b,anna\nifa,b,ben\n";
    builder
        .read_rows(&RowFormat::Csv, rows.as_bytes(), &mut |_| {})
        .expect("readable");
    match builder.finish(&mut Vec::new()) {
        Err(BuildError::Empty { report }) => {
            assert_eq!(told(&report), [(2, claimed), (3, claimed)])
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_person_has_no_more_ids_than_one_may_have() {
    let ifas: String = (0..20).map(|n| format!("ifa,a{n},anna\n")).collect();
    let (file, report) = build_links(&ifas);
    assert_eq!((report.ids, report.rejected_rows), (8, 12));
    assert!(report.rejected[0].reason.contains("limits.ids_per_source"));
    let anna = Graph::from_bytes(&file).expect("sound");
    let anna = anna.person(of("person", "anna")).expect("anna");
    let mut keys: Vec<UserKey> = (0..20).map(|n| of("ifa", &format!("a{n}"))).collect();
    keys.sort();
    keys.truncate(IDS_PER_SOURCE);
    let kept: Vec<UserKey> = anna.ids().map(|(key, _)| key).collect();
    assert_eq!(kept, keys);
    // Many sources, and of each id two rows, both of which are left out with it.
    let all: String = (0..40)
        .map(|n| format!("s{n},a,anna\ns{n},a,anna\n"))
        .collect();
    let (_, report) = build_links(&all);
    assert_eq!(report.ids, IDS_PER_PERSON as u64);
    assert_eq!((report.rows, report.merged), (64, 32));
    assert_eq!(report.rejected_rows, 16);
    assert!(report.rejected[0].reason.contains("limits.ids_per_person"));
    // What the format can hold is the most that can be said.
    let many: String = (0..300)
        .map(|n| format!("s{},a{n},anna\n", n % 9))
        .collect();
    let mut builder = Builder::new(links_meta(1), keyer())
        .expect("built")
        .with_ids_per_person(1000, 1000);
    let rows = format!("source,id,person\n{many}");
    builder
        .read_rows(&RowFormat::Csv, rows.as_bytes(), &mut |_| {})
        .expect("readable");
    let mut file = Vec::new();
    let report = builder.finish(&mut file).expect("good rows");
    assert_eq!((report.ids, report.rejected_rows), (64, 236));
    assert_eq!(report.rejected.len(), 100);
    assert!(report.rejected.is_sorted_by_key(|row| row.line));
    let anna = Graph::from_bytes(&file).expect("sound");
    let anna = anna.person(of("person", "anna")).expect("anna");
    assert_eq!(anna.ids().count(), 64);
}

#[test]
fn rows_that_do_not_fit_into_memory_are_refused() {
    let rows_max = MEMORY_MIN / 80;
    let build = |rows: u64, threads| {
        let text = (0..rows).map(|n| format!("ifa,a{n},p{}\n", n / 2));
        let text = format!("source,id,person\n{}", text.collect::<String>());
        let mut builder = Builder::new(links_meta(1), keyer())
            .expect("built")
            .with_threads(threads)
            .with_memory(MEMORY_MIN, std::env::temp_dir());
        builder.read_rows(&RowFormat::Csv, text.as_bytes(), &mut |_| {})?;
        Ok::<_, ReadError>(builder.finish(&mut std::io::sink()).expect("built").ids)
    };
    assert_eq!(build(rows_max, 2).expect("room"), rows_max);
    for threads in [1, 3] {
        let refused = build(rows_max + 1, threads).expect_err("no room");
        let ReadError::TooManyRows { rows_max: most, .. } = refused else {
            panic!("{refused}");
        };
        assert_eq!(most, rows_max);
        assert!(refused.to_string().contains("limits.build_memory_bytes"));
    }
}

#[test]
fn sources_are_bounded() {
    let rows: String = (0..4097).map(|n| format!("s{n},a,p{n}\n")).collect();
    let mut builder = Builder::new(links_meta(1), keyer()).expect("built");
    let rows = format!("source,id,person\n{rows}");
    let refused = builder.read_rows(&RowFormat::Csv, rows.as_bytes(), &mut |_| {});
    assert!(matches!(refused, Err(ReadError::TooManySources)));
    let rows: String = (0..4096).map(|n| format!("s{n},a,p{n}\n")).collect();
    assert_eq!(graph(&rows).sources().len(), 4096);
}

/// A large one, in which homes are full: all are found, and strangers are not.
#[test]
fn everybody_is_found_whatever_the_number_of_threads() {
    let rows = people(20_000);
    let text = format!("source,id,person\n{rows}");
    let with = |threads: usize| {
        let mut builder = Builder::new(links_meta(1), keyer())
            .expect("built")
            .with_threads(threads);
        // In two inputs.
        let (first, second) = text.split_at(text.len() / 2);
        let (line, rest) = second.split_once('\n').expect("rows");
        let second = format!("source,id,person\n{rest}");
        for input in [format!("{first}{line}\n"), second] {
            builder
                .read_rows(&RowFormat::Csv, input.as_bytes(), &mut |_| {})
                .expect("readable");
        }
        let mut file = Vec::new();
        let report = builder.finish(&mut file).expect("good rows");
        (file, report)
    };
    let (file, report) = with(1);
    assert!(with(4) == (file.clone(), report));
    let graph = Graph::from_bytes(&file).expect("sound");
    assert_eq!(graph.persons(), 20_000);
    for row in rows.lines().step_by(7) {
        let fields: Vec<&str> = row.split(',').collect();
        let person = graph.person(of(fields[0], fields[1])).expect("known");
        assert_eq!(person.key(), of("person", fields[2]));
    }
    let strangers = (0..20_000).filter(|n| graph.person(of("ifa", &format!("x{n}"))).is_some());
    assert_eq!(strangers.count(), 0);
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let mut file = whole(&people(8));
    assert!((2000..4500).contains(&file.len()), "{}", file.len());
    for at in 0..file.len() {
        assert!(refused(&file[..at]).is_some(), "cut to {at}");
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            assert!(refused(&file).is_some(), "bit {bit} of byte {at}");
            file[at] ^= 1 << bit;
        }
    }
    assert!(refused(&file).is_none());
    let longer = [&file[..], &[0]].concat();
    assert!(matches!(refused(&longer), Some(Flaw::Length { .. })));
    // Of several blocks.
    let mut file = whole(&people(800));
    assert!(file.len() > 100_000, "{}", file.len());
    let last = file.len() - 120;
    for at in (0..700)
        .chain((700..last).step_by(997))
        .chain(last..file.len())
    {
        file[at] ^= 0xff;
        assert!(refused(&file).is_some(), "byte {at}");
        file[at] ^= 0xff;
    }
    assert!(refused(&file).is_none());
}

#[test]
fn a_header_that_lies_is_refused() {
    let file = whole(&people(8));
    for at in 0..508 {
        for value in [0, 1, 0x7f, 0xff] {
            if file[at] == value {
                continue;
            }
            let mut changed = file.clone();
            changed[at] = value;
            reseal(&mut changed);
            // What nothing contradicts is a change and no lie: as_of, key id, a higher count of rows.
            let may_change = match at {
                48 => value == 1,
                64..72 | 96..104 => true,
                _ => false,
            };
            match Graph::from_bytes(&changed) {
                Err(_) => assert!(!may_change || at >= 96, "byte {at} = {value}"),
                Ok(_) => assert!(may_change || changed == file, "byte {at} = {value}"),
            }
        }
    }
}

#[test]
fn huge_claims_allocate_nothing() {
    let file = whole(&people(8));
    // File length, ids, memberships, homes, persons, and offset and length of each section.
    for at in [
        16, 88, 104, 120, 236, 264, 272, 288, 296, 312, 320, 336, 344,
    ] {
        for value in [u64::MAX, 1 << 63, 1 << 40, u64::MAX - 511] {
            let mut lying = file.clone();
            lying[at..at + 8].copy_from_slice(&value.to_le_bytes());
            reseal(&mut lying);
            assert!(refused(&lying).is_some(), "{value} at {at}");
        }
    }
}

#[test]
fn sections_that_contradict_are_refused() {
    // One person of two ids of one source: a group of 64 bytes; and three keys.
    let file = whole("ifa,a,anna\nifa,b,anna\n");
    assert!(with_parts(&file, |_| {}) == file);
    let check = |part: &str, change: &dyn Fn(&mut [Vec<u8>])| {
        let told = refused(&with_parts(&file, change)).expect("refused");
        assert!(told.to_string().contains(part), "{told}");
    };
    const GROUPS: usize = 0;
    const TABLE: usize = 1;
    const SOURCES: usize = 2;
    assert_eq!(with_parts(&file, |_| {}).len(), file.len());
    // The person's key, the count, a source, what is reserved, an id's key.
    check("where a key is found", &|p| p[GROUPS][0] ^= 1);
    for count in [0, 3, 65, 255] {
        check("a person's ids", &|p| p[GROUPS][16] = count);
    }
    check("cannot be true", &|p| p[GROUPS][16] = 1);
    check("a person's ids", &|p| p[GROUPS][18] = 1);
    check("a person's ids", &|p| p[GROUPS][22] = 1);
    check("where a key is found", &|p| p[GROUPS][32] ^= 1);
    check("a person's ids", &|p| {
        let second: [u8; 16] = p[GROUPS][48..64].try_into().expect("a key");
        p[GROUPS][32..48].copy_from_slice(&second);
    });
    check("the length of the groups", &|p| p[GROUPS].push(0));
    check("where the persons end", &|p| p[GROUPS].extend([0; 64]));
    check("the length of the groups", &|p| p[TABLE].extend([0; 64]));
    check("the length of the groups", &|p| p[SOURCES].push(0));
    check("the length of the groups", &|p| p[SOURCES].clear());
    // An entry more: as another's, as one that leads nowhere, as one behind all that is there.
    let first = |table: &[u8]| table.chunks(8).position(|slot| slot != [0; 8]);
    check("cannot be true", &|p| {
        let at = 8 * first(&p[TABLE]).expect("an entry");
        p[TABLE][at..at + 8].fill(0);
    });
    check("the count of keys", &|p| {
        let at = 8 * first(&p[TABLE]).expect("an entry");
        let entry: [u8; 8] = p[TABLE][at..at + 8].try_into().expect("eight");
        let end = p[TABLE].len();
        p[TABLE][end - 8..].copy_from_slice(&entry);
    });
    check("where a key leads", &|p| {
        let end = p[TABLE].len();
        p[TABLE][end - 8..].copy_from_slice(&u64::MAX.to_le_bytes());
    });
    check("the sizes of the sources", &|p| p[SOURCES][0] += 1);
    let named = |name: &'static str| {
        move |p: &mut [Vec<u8>]| {
            p[SOURCES][8] = name.len() as u8;
            p[SOURCES][10..].fill(0);
            p[SOURCES][10..10 + name.len()].copy_from_slice(name.as_bytes());
        }
    };
    let sound = with_parts(&file, named("phone"));
    assert!(refused(&sound).is_none(), "another source is no lie");
    for name in ["", "IFA", "a b", "person", " ifa", "a\u{7f}"] {
        check("the table of sources", &named(name));
    }
    check("the table of sources", &|p| p[SOURCES][20] = 1);
    check("the table of sources", &|p| p[SOURCES][9] = 1);
    check("the table of sources", &|p| p[SOURCES][10] = 0xff);
    // The same source twice.
    check("the table of sources", &|p| {
        let again = p[SOURCES].clone();
        p[SOURCES].extend(again);
    });
}

/// Two people whose groups have changed places.
#[test]
fn persons_stand_in_their_order() {
    let file = whole("ifa,a,anna\nifa,b,ben\n");
    let told = refused(&with_parts(&file, |p| {
        let (one, other) = p[0].split_at_mut(48);
        one.swap_with_slice(&mut other[..48]);
    }));
    let told = told.expect("refused").to_string();
    assert!(told.contains("cannot be true"), "{told}");
}

/// A mapped file that is cut: nobody is found in it, and what was found before goes on with nothing.
#[test]
fn a_file_that_is_cut_while_it_is_mapped_is_not_believed() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("graph-1.kith");
    std::fs::write(&path, whole(&people(3000))).expect("written");
    let mapped = || match Version::open_mapped(&path) {
        Ok(Version::Graph(graph)) => graph,
        other => panic!("{other:?}"),
    };
    let graph = mapped();
    assert!(graph.is_mapped() && graph.is_whole());
    let settled = graph.settled().expect("whole");
    assert!(!settled.is_mapped());
    let known = (0..3000).map(|n| of("person", &format!("p{n}")));
    let found: Vec<Person<'_>> = known.clone().filter_map(|key| graph.person(key)).collect();
    assert_eq!(found.len(), 3000);
    let file = std::fs::OpenOptions::new().write(true).open(&path);
    file.expect("there").set_len(4096).expect("cut");
    // It is known to be broken once somebody has read what is not there.
    let after = known.clone().filter(|key| graph.person(*key).is_some());
    let after = after.count();
    assert!(after < 3000 && !graph.is_whole(), "{after}");
    assert!(known.clone().all(|key| graph.person(key).is_none()));
    assert!(found.iter().all(|person| person.ids().count() == 0));
    assert!(graph.settled().is_err());
    assert!(known.clone().all(|key| settled.person(key).is_some()));
}

#[test]
fn every_flipped_byte_is_found_once_more_in_memory_and_on_disk() {
    let file = whole(&people(8));
    let graph = Graph::from_bytes(&file).expect("sound");
    assert!(graph.file() == file);
    assert!(graph.reverify(&mut |_| true).expect("whole"));
    assert!(!graph.reverify(&mut |_| false).expect("not known"));
    for at in (0..file.len()).step_by(5) {
        let mut on_disk = tempfile::tempfile().expect("a file");
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        std::io::Write::write_all(&mut on_disk, &flipped).expect("written");
        let flaw = Version::reverify(&on_disk, &mut |_| true).err();
        let is_damage = matches!(
            flaw,
            Some(Flaw::NotKith | Flaw::Length { .. } | Flaw::Damaged { .. })
        );
        assert!(is_damage, "byte {at}: {flaw:?}");
    }
}

#[test]
fn inspecting_tells_persons_and_sources() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("graph-1.kith");
    let file = whole(&people(60));
    std::fs::write(&path, &file).expect("written");
    let told = crate::audience::inspect(&path).expect("sound");
    let told = serde_json::to_value(told).expect("JSON");
    assert_eq!(told["kind"], "identity");
    assert_eq!(told["format"], 3);
    assert_eq!((&told["ids"], &told["segments"]), (&210.into(), &0.into()));
    assert_eq!(told["graph"]["persons"], 60);
    assert_eq!(told["graph"]["ids_per_person"], 3.5);
    let largest = &told["graph"]["largest_sources"][0];
    assert_eq!(
        (&largest["source"], &largest["ids"]),
        (&"ifa".into(), &90.into())
    );
    let parts = told["parts"].as_object().expect("an object");
    let sum: u64 = parts.values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(sum, file.len() as u64);
}

/// Duplicates, ids that are nobody's, ids that are too many, one id and many, several sources.
fn fixture() -> Vec<u8> {
    let meta = VersionMeta {
        as_of: Some("seq:42".parse().expect("an as_of")),
        ..links_meta(7)
    };
    let many: String = (0..12)
        .map(|n| format!("ifa,m{n},max\ns{n},m,max\n"))
        .collect();
    let rows = format!(
        "source,id,person\n{}{many}ifa,u1-0,p1\nifa,shared,p1\nifa,shared,p2\n",
        people(20)
    );
    build(meta, &RowFormat::Csv, rows.as_bytes()).0
}

#[test]
#[ignore = "writes fixtures/format-v3-identity.kith; only for making the fixture of a new format"]
fn make_the_fixture() {
    std::fs::write(FIXTURE, fixture()).expect("written");
}

#[test]
fn the_fixture_stays_readable() {
    let file = std::fs::read(FIXTURE).expect("the fixture");
    let graph = Graph::from_bytes(&file).expect("sound");
    assert_eq!(
        graph.meta().as_of,
        Some("seq:42".parse().expect("an as_of"))
    );
    assert_eq!((graph.persons(), graph.ids(), graph.rows()), (21, 86, 87));
    assert_eq!(graph.key_id(), keyer().key_id());
    for person in 0..20 {
        let key = of("person", &format!("p{person}"));
        for id in 0..=person % 6 {
            let source = ["ifa", "email", "uidapi.com"][id % 3];
            let found = graph.person(of(source, &format!("u{person}-{id}")));
            assert_eq!(found.map(|found| found.key()), Some(key));
        }
    }
    assert!(graph.person(of("ifa", "shared")).is_none());
    let max = graph.person(of("person", "max")).expect("max");
    assert_eq!(max.ids().filter(|(_, source)| *source == "ifa").count(), 8);
    // It is what is written today; who changes what is written makes a fixture of the next format.
    assert!(fixture() == file);
}

/// What a graph of some rows must say, by maps: of each key that is known, the person and her ids; and how many rows are refused.
type Known = BTreeMap<UserKey, (UserKey, Vec<(UserKey, String)>)>;

fn oracle(rows: &[(u8, u8, u8)], in_all: usize, of_source: usize) -> (Known, u64) {
    let source = |row: &(u8, u8, u8)| format!("s{}", row.0);
    let id = |row: &(u8, u8, u8)| of(&source(row), &format!("i{}", row.1));
    let person = |row: &(u8, u8, u8)| of("person", &format!("p{}", row.2));
    let mut claimants: BTreeMap<UserKey, BTreeSet<UserKey>> = BTreeMap::new();
    for row in rows {
        claimants.entry(id(row)).or_default().insert(person(row));
    }
    let mut hers: BTreeMap<UserKey, BTreeMap<UserKey, String>> = BTreeMap::new();
    for row in rows.iter().filter(|row| claimants[&id(row)].len() == 1) {
        hers.entry(person(row))
            .or_default()
            .insert(id(row), source(row));
    }
    let mut known = Known::new();
    for (person, ids) in hers {
        let mut kept: Vec<(UserKey, String)> = Vec::new();
        for (id, source) in ids {
            let same = kept.iter().filter(|(_, other)| *other == source).count();
            if same < of_source && kept.len() < in_all {
                kept.push((id, source));
            }
        }
        for (id, _) in &kept {
            known.insert(*id, (person, kept.clone()));
        }
        known.insert(person, (person, kept));
    }
    let refused = rows.iter().filter(|row| !known.contains_key(&id(row)));
    let refused = refused.count() as u64;
    (known, refused)
}

fn build_rows(
    rows: &[(u8, u8, u8)],
    in_all: usize,
    of_source: usize,
) -> Option<(Vec<u8>, RowReport)> {
    let lines = rows.iter().map(|(s, i, p)| format!("s{s},i{i},p{p}\n"));
    let text = format!("source,id,person\n{}", lines.collect::<String>());
    let mut builder = Builder::new(links_meta(3), keyer())
        .expect("built")
        .with_ids_per_person(in_all, of_source);
    builder
        .read_rows(&RowFormat::Csv, text.as_bytes(), &mut |_| {})
        .expect("readable");
    let mut file = Vec::new();
    let report = builder.finish(&mut file).ok()?;
    Some((file, report))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A graph says what the maps say, of everybody; and the same rows in any order make the same bytes and the same refusals.
    #[test]
    fn it_says_what_the_oracle_says(
        rows in prop::collection::vec((0u8..4, 0u8..30, 0u8..12), 1..120),
        in_all in 1usize..9,
        of_source in 1usize..5,
        turn in any::<prop::sample::Index>(),
    ) {
        let (known, refused) = oracle(&rows, in_all, of_source);
        let built = build_rows(&rows, in_all, of_source);
        prop_assert_eq!(built.is_none(), known.is_empty());
        let Some((file, report)) = built else {
            return Ok(());
        };
        prop_assert_eq!(report.rejected_rows, refused);
        prop_assert_eq!(report.rows + refused, rows.len() as u64);
        prop_assert_eq!(report.merged, report.rows - report.ids);
        let lines: Vec<u64> = (2u64..).zip(&rows).filter(|(_, (s, i, _))| {
            !known.contains_key(&of(&format!("s{s}"), &format!("i{i}")))
        }).map(|(line, _)| line).take(100).collect();
        prop_assert_eq!(report.rejected.iter().map(|row| row.line).collect::<Vec<_>>(), lines);
        let graph = Graph::from_bytes(&file).expect("sound");
        prop_assert_eq!(graph.ids() + graph.persons(), known.len() as u64);
        let ids = (0..4).flat_map(|s| (0..30).map(move |i| of(&format!("s{s}"), &format!("i{i}"))));
        let persons = (0..12).map(|p| of("person", &format!("p{p}")));
        for key in ids.chain(persons) {
            prop_assert_eq!(graph.person(key).map(said), known.get(&key).cloned());
        }
        let mut turned = rows.clone();
        turned.rotate_left(turn.index(rows.len()));
        turned.reverse();
        let (again, other) = build_rows(&turned, in_all, of_source).expect("the same");
        prop_assert!(again == file);
        prop_assert_eq!((other.rows, other.rejected_rows), (report.rows, report.rejected_rows));
    }

    /// Whatever well-sealed bytes say: they are refused, or every lookup answers.
    #[test]
    fn sealed_nonsense_is_refused_or_harmless(
        edits in prop::collection::vec((0usize..4500, any::<u8>()), 1..6),
    ) {
        let mut file = whole(&people(8));
        let length = file.len();
        for (at, value) in edits {
            file[at % length] = value;
        }
        reseal(&mut file);
        if let Ok(graph) = Graph::from_bytes(&file) {
            for n in 0..8 {
                let found = graph.person(of("person", &format!("p{n}")));
                prop_assert!(found.is_none_or(|person| person.ids().count() <= 64));
            }
        }
    }
}
