//! Figures, not checks: what a version costs to build, open and ask, in CPU time.

#![expect(clippy::print_stderr, reason = "a measurement is for reading")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use super::super::{Approach, Graph, GraphProbe, Probe};
use super::*;

/// CPU time of this thread, which other work on the machine lengthens less than the clock on the wall.
fn cpu() -> Duration {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let spent = spent.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(spent.expect("nanoseconds"))
}

/// A small generator of numbers, the same on every machine.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 11
    }

    fn unit(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 53) as f64
    }
}

/// `ids` rows with a mean of 11.7 of 2,000 segments each, the popular ones first as in Zipf's law.
fn rows(ids: u64) -> String {
    let mut random = Lcg(1);
    let mut text = "source,id,segments\n".to_owned();
    for id in 0..ids {
        let _ = write!(text, "ifa,{},", uuid(id));
        let mut drawn = std::collections::BTreeSet::new();
        let count = 1.0 - random.unit().ln() * 10.7;
        while (drawn.len() as f64) < count.floor() && drawn.len() < 200 {
            drawn.insert(2000f64.powf(random.unit()) as u32);
        }
        for (i, segment) in drawn.iter().enumerate() {
            let _ = write!(
                text,
                "{}segment-{}",
                if i == 0 { "" } else { "|" },
                segment * 7919 % 2003
            );
        }
        text.push('\n');
    }
    text
}

fn uuid(id: u64) -> String {
    let mixed = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    format!("{:08x}-0000-4000-8000-{:012x}", mixed >> 32, id + 1)
}

#[test]
#[ignore = "measures: scripts/long-tests audience"]
fn measure_building_opening_and_asking() {
    let ids: u64 = std::env::var("IDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000_000);
    let text = rows(ids);
    eprintln!("{ids} rows, {:.0} MB of CSV", text.len() as f64 / 1e6);

    let begin = cpu();
    // All on this thread, whose time is taken.
    let mut builder = Builder::new(meta(1), keyer())
        .expect("an audience")
        .with_threads(1);
    builder
        .read_rows(&RowFormat::Csv, text.as_bytes(), &mut |_| {})
        .expect("readable");
    let read = cpu() - begin;
    let mut file = Vec::new();
    let report = builder.finish(&mut file).expect("good rows");
    eprintln!("read {read:.2?}, finished after {:.2?}", (cpu() - begin));
    drop(text);

    let begin = cpu();
    let audience = open(&file);
    let all = audience.membership_count();
    eprintln!(
        "opened in {:.2?}; {:.1} MB, {:.2} bytes an id, {:.2} segments an id",
        (cpu() - begin),
        file.len() as f64 / 1e6,
        file.len() as f64 / ids as f64,
        all as f64 / report.ids as f64,
    );
    drop(file);

    let mut random = Lcg(2);
    let keys: Vec<UserKey> = (0..2_000_000)
        .map(|_| key(&uuid(random.next() % ids)))
        .collect();
    let unknown: Vec<UserKey> = (0..2_000_000u64)
        .map(|i| key(&format!("unknown-{i}")))
        .collect();
    let now = at(0);
    let mut members = 0u64;
    let mut time = |what: &str, keys: &[UserKey], batch: usize| {
        let begin = cpu();
        for batch in keys.chunks(batch) {
            let probes: Vec<Probe> = batch.iter().map(|&key| audience.probe(key)).collect();
            let approaches = probes.iter().map(|&probe| audience.approach(probe));
            let approaches: Vec<Approach> = approaches.collect();
            for approach in approaches {
                // The next key waits for this answer, as the rest of a decision does.
                black_box(audience.lookup_at(approach, now, |index| members += u64::from(index)));
            }
        }
        eprintln!(
            "{what}: {:.0} ns an id",
            (cpu() - begin).as_nanos() as f64 / keys.len() as f64
        );
    };
    time("hit", &keys, 1);
    time("hit, four together", &keys, 4);
    time("miss", &unknown, 1);
    time("miss, four together", &unknown, 4);
    black_box(members);
}

#[test]
#[ignore = "measures: scripts/long-tests graph"]
fn measure_building_opening_and_asking_a_graph() {
    let ids: u64 = std::env::var("IDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3_000_000);
    let mut text = "source,id,person\n".to_owned();
    for id in 0..ids {
        let source = ["ifa", "email", "uidapi.com"][(id % 3) as usize];
        let _ = writeln!(text, "{source},{},c-{}", uuid(id), id / 3);
    }
    let made = VersionMeta {
        kind: Kind::Identity,
        ..meta(1)
    };
    let begin = cpu();
    let mut builder = Builder::new(made, keyer())
        .expect("a graph")
        .with_threads(1);
    builder
        .read_rows(&RowFormat::Csv, text.as_bytes(), &mut |_| {})
        .expect("readable");
    let read = cpu() - begin;
    let mut file = Vec::new();
    let report = builder.finish(&mut file).expect("good rows");
    eprintln!(
        "{ids} rows: read {read:.2?}, finished after {:.2?}",
        (cpu() - begin)
    );
    drop(text);
    let begin = cpu();
    let graph = Graph::from_bytes(&file).expect("sound");
    eprintln!(
        "opened in {:.2?}; {:.1} MB, {:.2} bytes an id",
        (cpu() - begin),
        file.len() as f64 / 1e6,
        file.len() as f64 / report.ids as f64,
    );
    drop(file);
    let mut random = Lcg(2);
    let hits = std::iter::repeat_with(|| key(&uuid(3 * (random.next() % (ids / 3)))));
    let known: Vec<UserKey> = hits.take(2_000_000).collect();
    let unknown: Vec<UserKey> = (0..2_000_000u64)
        .map(|i| key(&format!("unknown-{i}")))
        .collect();
    let mut found = 0u64;
    let mut time = |what: &str, keys: &[UserKey], batch: usize| {
        let begin = cpu();
        for batch in keys.chunks(batch) {
            let probes: Vec<GraphProbe> = batch.iter().map(|&key| graph.probe(key)).collect();
            let approach = |probe| graph.approach(probe);
            let approaches: Vec<_> = probes.into_iter().map(approach).collect();
            for approach in approaches {
                let person = graph.person_at(approach);
                found += black_box(person).map_or(0, |person| person.ids().count() as u64);
            }
        }
        eprintln!(
            "{what}: {:.0} ns an id",
            (cpu() - begin).as_nanos() as f64 / keys.len() as f64
        );
    };
    time("hit, with all ids", &known, 1);
    time("hit, four together", &known, 4);
    time("miss", &unknown, 1);
    time("miss, four together", &unknown, 4);
    assert_eq!(found, 2 * 3 * 2_000_000);
}
