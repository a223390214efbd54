//! The life of identity versions: uploaded, held, served, rolled back, brought back, verified again.

use super::*;
use crate::audience::{Builder, VersionMeta};

const GRAPHS: &str =
    "[data]\nkeep_versions = 2\n[datasets.graph]\nkind = \"identity\"\npurposes = [1, 5]\n";
const LATER: Timestamp = Timestamp::from_unix_ms(NOW.unix_ms + 2 * 86_400_000);

fn start(dir: &Path) -> Kit {
    let kit = open_as(dir, GRAPHS, Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    kit
}

/// Two ids each of some persons.
fn links(persons: std::ops::Range<u32>) -> String {
    let rows = persons.map(|n| format!("ifa,i-{n},p-{n}\nemail,e-{n},p-{n}\n"));
    format!("source,id,person\n{}", rows.collect::<String>())
}

fn failed(published: &Published) -> Vec<&str> {
    let checks = published.version.checks.iter();
    checks.filter(|c| !c.ok).map(|c| c.name.as_str()).collect()
}

impl Kit {
    /// Which version is live, and which of these persons it knows by their first id, with her other one.
    fn related(&self, persons: &[u32]) -> (u64, Vec<u32>) {
        let generation = self.live.load();
        let live = generation.graphs.iter();
        let live = live.clone().find(|g| g.name.as_str() == "graph");
        let live = live.expect("live");
        let keyer = &generation.frame.keyer;
        let key = |source: &str, id: String| keyer.user_key(source, &id).expect("a good id");
        let is_known = |n: &u32| {
            let person = live.graph.person(key("ifa", format!("i-{n}")));
            person.is_some_and(|person| {
                let other = key("email", format!("e-{n}"));
                person.key() == key("person", format!("p-{n}"))
                    && person.ids().any(|id| id == (other, "email"))
            })
        };
        let known = persons.iter().copied().filter(is_known).collect();
        (live.version, known)
    }

    fn roll(&self, version: u64) -> Result<Activated, Refused> {
        self.datasets
            .activate(&name("graph"), version, false, "a test", NOW)
    }

    fn gauge(&self, metric: &str) -> String {
        self.metric(&format!("kith_dataset_{metric}{{dataset=\"graph\"}}"))
    }
}

#[test]
fn a_graph_is_served_rolled_back_and_brought_back() {
    let dir = folder();
    let kit = start(dir.path());
    assert!(kit.live.load().graphs.is_empty());
    assert_eq!(kit.gauge("version"), "0");
    let first = kit.put(&csv("graph", 1), &links(0..500)).expect("taken");
    let first = first.version;
    assert_eq!(first.state, State::Active, "{:?}", first.checks);
    assert_eq!((first.rows, first.ids, first.segments), (1000, 1000, 0));
    let names: Vec<&str> = first.checks.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "rejected_rows",
            "ids",
            "overlap",
            "sources",
            "age",
            "memory",
            "shadow"
        ]
    );
    assert_eq!(kit.related(&[0, 499, 500]), (1, vec![0, 499]));
    assert_eq!(
        (kit.gauge("version"), kit.gauge("ids")),
        ("1".into(), "1000".into())
    );
    assert_eq!(kit.gauge("bytes"), first.bytes.to_string());
    let second = kit.put(&csv("graph", 2), &links(10..510)).expect("taken");
    assert_eq!(second.version.state, State::Active);
    assert_eq!(kit.related(&[0, 499, 500]), (2, vec![499, 500]));
    // Nothing of it is among what has segments, and what is configured is with it.
    let generation = kit.live.load();
    assert!(generation.datasets.is_empty());
    assert_eq!(generation.graphs[0].purposes, Purposes::of(&[1, 5]));
    drop(generation);
    kit.roll(1).expect("rolled back");
    assert_eq!(kit.related(&[0, 499, 500]), (1, vec![0, 499]));
    drop(kit);
    let kit = start(dir.path());
    assert_eq!(kit.related(&[0, 499, 500]), (1, vec![0, 499]));
    assert_eq!(kit.gauge("version"), "1");
    let graph = name("graph");
    kit.datasets
        .pin(&graph, Some(1), "a test", NOW)
        .expect("pinned");
    let staged = kit.put(&csv("graph", 3), &links(0..505)).expect("taken");
    assert_eq!(staged.version.state, State::Staged);
    assert!(matches!(kit.roll(3), Err(Refused::Pinned { .. })));
    kit.datasets.unpin(&graph, "a test", NOW).expect("unpinned");
    kit.roll(3).expect("served");
    assert_eq!(kit.related(&[0, 504, 505]), (3, vec![0, 504]));
    // Of what is neither live nor among the newest nothing is kept.
    kit.put(&csv("graph", 4), &links(0..505)).expect("taken");
    kit.put(&csv("graph", 5), &links(0..505)).expect("taken");
    let kept = std::fs::read_dir(dir.path().join("datasets/graph")).expect("there");
    assert!(kept.count() <= 3);
    // Beside others, in the order of names.
    kit.crm(1);
    let other = Upload {
        kind: Some(Kind::Identity),
        ..csv("a-graph", 1)
    };
    kit.put(&other, &links(0..3)).expect("taken");
    let generation = kit.live.load();
    let names: Vec<&str> = generation.graphs.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(names, ["a-graph", "graph"]);
    assert_ne!(generation.graphs[0].ordinal, generation.graphs[1].ordinal);
}

#[test]
fn what_an_upload_of_links_is_refused_for() {
    let dir = folder();
    let kit = start(dir.path());
    let refused = |upload: &Upload, body: &str| kit.put(upload, body).expect_err("refused");
    let segments = refused(&csv("graph", 1), &rows(&["a"]));
    assert!(matches!(&segments, Refused::Rows(_)), "{segments}");
    let delta = Upload {
        mode: Mode::Delta,
        base: Some(1),
        ..csv("graph", 2)
    };
    let told = refused(&delta, &links(0..1)).to_string();
    assert!(told.contains("POST /v1/links"), "{told}");
    for format in [
        Format::Document,
        Format::Rows(RowFormat::Text {
            source: "ifa".to_owned(),
            segment: name("list"),
        }),
    ] {
        let upload = Upload {
            format,
            ..csv("graph", 1)
        };
        let told = refused(&upload, "{}");
        assert!(matches!(told, Refused::FormatOfKind { .. }), "{told}");
    }
    let contested = "source,id,person\nifa,a,anna\nifa,a,ben\n";
    match refused(&csv("graph", 1), contested) {
        Refused::NoGoodRow(rows) => {
            assert_eq!(rows.rejected_rows, 2);
            let lines: Vec<u64> = rows.rejected.iter().map(|row| row.line).collect();
            assert_eq!(lines, [2, 3]);
        }
        other => panic!("{other}"),
    }
    let other = refused(
        &Upload {
            kind: Some(Kind::Audience),
            ..csv("graph", 1)
        },
        &rows(&["a"]),
    );
    assert!(matches!(other, Refused::OtherKind { .. }), "{other}");
    // The number is free.
    kit.put(&csv("graph", 1), &links(0..1)).expect("taken");
}

#[test]
fn limits_hold_and_can_be_raised() {
    let ids: String = (0..10).map(|n| format!("ifa,i-{n},anna\n")).collect();
    let body = format!("source,id,person\n{ids}");
    for (limits, ids) in [
        ("", 8),
        ("[limits]\nids_per_source = 10\nids_per_person = 9\n", 9),
    ] {
        let dir = folder();
        let config = format!("{GRAPHS}[guards]\nenabled = false\n{limits}");
        let kit = open_as(dir.path(), &config, Arc::default()).expect("opened");
        kit.datasets.recover(NOW).expect("ready");
        let put = kit.put(&csv("graph", 1), &body).expect("taken");
        assert_eq!(put.version.ids, ids, "{limits}");
    }
}

#[test]
fn a_graph_that_is_not_the_one_before_is_held() {
    let dir = folder();
    let kit = start(dir.path());
    let put = |version, body: &str| {
        let published = kit.put(&csv("graph", version), body).expect("taken");
        (published.version.state, failed(&published).join(" "))
    };
    let held = |checks: &str| (State::Held, checks.to_owned());
    assert_eq!(put(1, &links(0..3000)), (State::Active, String::new()));
    // Half an export, others' ids, and too many ids that are several persons'.
    assert_eq!(put(2, &links(0..300)), held("ids"));
    assert_eq!(put(3, &links(5000..8000)), held("overlap"));
    let contested: String = (0..100).map(|n| format!("ifa,i-{n},other\n")).collect();
    let contested = format!("{}{contested}", links(0..3000));
    assert_eq!(put(4, &contested), held("rejected_rows"));
    assert_eq!(kit.related(&[0]).0, 1);
    assert_eq!(put(5, &links(50..3100)), (State::Active, String::new()));
    // Held is not lost.
    assert!(matches!(kit.roll(4), Err(Refused::Held { .. })));
    kit.datasets
        .activate(&name("graph"), 4, true, "a test", NOW)
        .expect("forced");
    assert_eq!(kit.related(&[0, 100]), (4, vec![100]));
}

fn file(version: u64, persons: std::ops::Range<u32>) -> Vec<u8> {
    let meta = VersionMeta {
        kind: Kind::Identity,
        dataset: name("graph"),
        version,
        base: None,
        as_of: None,
    };
    let keyer = Keyer::new(&SecretKey::from_bytes([7; 32]));
    let mut builder = Builder::new(meta, keyer).expect("a graph");
    builder
        .read_rows(&RowFormat::Csv, links(persons).as_bytes(), &mut |_| {})
        .expect("rows");
    let mut file = Vec::new();
    builder.finish(&mut file).expect("a version");
    file
}

#[test]
fn a_file_is_taken_as_rows_are() {
    let dir = folder();
    let kit = start(dir.path());
    let put = |version: u64, file: &[u8]| {
        let upload = Upload {
            format: Format::Snapshot,
            ..csv("graph", version)
        };
        let mut spool = kit.datasets.spool()?;
        spool.write_all(file)?;
        kit.datasets.publish(&upload, spool, "a test", NOW)
    };
    let published = put(1, &file(1, 0..40)).expect("taken").version;
    assert_eq!(published.state, State::Active, "{:?}", published.checks);
    assert_eq!((published.rows, published.ids), (80, 80));
    assert_eq!(kit.related(&[39, 40]), (1, vec![39]));
    // Of another kind, or cut.
    let audience = std::fs::read("fixtures/format-v3.kith").expect("there");
    let refused = put(2, &audience).expect_err("an audience");
    assert!(matches!(refused, Refused::OtherVersion { .. }), "{refused}");
    let cut = file(2, 0..40);
    let refused = put(2, &cut[..cut.len() - 1]).expect_err("cut");
    assert!(matches!(refused, Refused::Snapshot(_)), "{refused}");
}

#[test]
fn what_takes_the_place_of_another_is_mapped_and_then_copied() {
    let dir = folder();
    let kit = start(dir.path());
    let is_mapped = || kit.live.load().graphs[0].graph.is_mapped();
    kit.put(&csv("graph", 1), &links(0..500)).expect("taken");
    assert!(!is_mapped(), "nothing is replaced");
    kit.put(&csv("graph", 2), &links(10..510)).expect("taken");
    assert!(is_mapped());
    assert_ne!(kit.gauge("mapped_bytes"), "0");
    let number = kit.number();
    assert!(kit.datasets.settle(&name("graph")).expect("settled"));
    assert!(!is_mapped());
    assert_eq!(kit.gauge("mapped_bytes"), "0");
    assert_eq!(kit.number(), number + 1);
    assert_eq!(kit.related(&[0, 509]), (2, vec![509]));
    assert!(!kit.datasets.settle(&name("graph")).expect("settled"));
}

#[test]
fn a_live_graph_is_written_again_from_memory_and_one_that_is_kept_is_lost() {
    let dir = folder();
    let kit = start(dir.path());
    kit.put(&csv("graph", 1), &links(0..500)).expect("taken");
    kit.put(&csv("graph", 2), &links(10..510)).expect("taken");
    kit.datasets.settle(&name("graph")).expect("whole");
    let path = |version: u64| dir.path().join(format!("datasets/graph/{version}.kith"));
    let good = std::fs::read(path(2)).expect("there");
    for version in [1, 2] {
        let mut bytes = std::fs::read(path(version)).expect("there");
        bytes[700] ^= 4;
        std::fs::write(path(version), bytes).expect("written");
    }
    kit.datasets.scrub(|| LATER);
    assert_eq!(std::fs::read(path(2)).expect("there"), good);
    assert_eq!(kit.related(&[0, 509]), (2, vec![509]));
    assert!(matches!(kit.roll(1), Err(Refused::Unreadable { .. })));
    // The same body puts it back.
    kit.put(&csv("graph", 1), &links(0..500)).expect("restored");
    kit.roll(1).expect("whole again");
    assert_eq!(kit.related(&[0, 509]), (1, vec![0]));
}
