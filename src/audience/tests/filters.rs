//! Filter versions: rows to lookups, and files that must be refused.

use std::collections::HashSet;

use proptest::prelude::*;

use super::damage::{reseal, sections, with_parts};
use super::*;
use crate::audience::{BuildError, FalsePositiveRate, Filter, Flaw, Lookup, Version};

const FIXTURE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/fixtures/format-v2-filter.kith"
);

fn list_meta(version: u64) -> VersionMeta {
    VersionMeta {
        kind: Kind::Filter,
        dataset: "optout".parse().expect("a name"),
        ..meta(version)
    }
}

fn text() -> RowFormat {
    RowFormat::Text {
        source: "ifa".to_owned(),
        segment: "list".parse().expect("a name"),
    }
}

fn lines<'a>(ids: impl IntoIterator<Item = &'a u32>) -> String {
    ids.into_iter().map(|id| format!("u{id}\n")).collect()
}

fn list(ids: std::ops::Range<u32>) -> Vec<u8> {
    let ids: Vec<u32> = ids.collect();
    build(list_meta(1), &text(), lines(&ids).as_bytes()).0
}

fn refused(file: &[u8]) -> Option<Flaw> {
    Filter::from_bytes(file).err().map(|e| e.flaw)
}

#[test]
fn a_list_becomes_a_filter() {
    let file = list(0..1000);
    let filter = Filter::from_bytes(&file).expect("sound");
    assert_eq!((filter.ids(), filter.rows()), (1000, 1000));
    assert_eq!(filter.segment().as_str(), "list");
    assert_eq!(filter.meta(), &list_meta(1));
    assert_eq!(filter.set().shape().rate(), FalsePositiveRate::DEFAULT);
    assert_eq!(filter.bytes(), file.len() as u64);
    let of = |id: &str| filter.lookup(key(id));
    assert!((0..1000).all(|n| of(&format!("u{n}")) == Lookup::Found));
    let wrong = (0..10_000).filter(|n| of(&format!("other{n}")) == Lookup::Found);
    assert!(wrong.count() < 150);
    // Blocks are on lines of the cache where the file begins at one.
    let (at, length) = sections(&file)[0];
    assert_eq!((at % 64, length % 64), (0, 0));
    // Where it is opened as what it is, and as what it is not.
    assert!(matches!(Version::from_bytes(&file), Ok(Version::Filter(_))));
    let told = Audience::from_bytes(&file).expect_err("a filter").flaw;
    assert_eq!(
        told.to_string(),
        "holds a dataset of kind filter, not of kind audience"
    );
    let audience = build_csv("ifa,a,vip,\n").0;
    let told = refused(&audience).expect("an audience").to_string();
    assert_eq!(told, "holds a dataset of kind audience, not of kind filter");
}

/// Under another dataset's or version's salt nothing is found, and under a stricter rate the file is larger.
#[test]
fn salt_and_rate_decide() {
    let with = |meta: VersionMeta, rate| {
        let mut builder = Builder::new(meta, keyer())
            .expect("a filter")
            .with_false_positive_rate(rate);
        let ids: Vec<u32> = (0..500).collect();
        builder
            .read_rows(&text(), lines(&ids).as_bytes(), &mut |_| {})
            .expect("readable");
        let mut file = Vec::new();
        builder.finish(&mut file).expect("good rows");
        file
    };
    let (loose, strict) = (FalsePositiveRate::DEFAULT, FalsePositiveRate::MIN);
    let one = with(list_meta(1), loose);
    assert!(with(list_meta(1), strict).len() > one.len() + 600);
    assert!(with(list_meta(2), loose)[640..] != one[640..]);
    let strict = Filter::from_bytes(&with(list_meta(1), strict)).expect("sound");
    assert_eq!(strict.set().shape().rate(), FalsePositiveRate::MIN);
}

#[test]
fn rows_of_another_segment_or_with_an_expiry_are_bad() {
    let rows = "source,id,segments,expires\n\
                ifa,a,list,\n\
                ifa,b,list|other,\n\
                ifa,c,other,\n\
                ifa,d,list,2030-01-01T00:00:00Z\n\
                ifa,e, list |list,\n";
    let (file, report) = build(list_meta(1), &RowFormat::Csv, rows.as_bytes());
    let told: Vec<(u64, &str)> = report
        .rejected
        .iter()
        .map(|row| (row.line, row.reason.split(';').next().expect("some")))
        .collect();
    let another = "names a second segment, and a filter is one list";
    let expiry = "has an expiry, and an id cannot be taken out of a filter when its time comes";
    assert_eq!(told, [(3, another), (4, another), (5, expiry)]);
    assert_eq!((report.rows, report.ids, report.segments), (2, 2, 1));
    let filter = Filter::from_bytes(&file).expect("sound");
    let of = |id: &str| filter.lookup(key(id));
    assert_eq!((of("a"), of("e")), (Lookup::Found, Lookup::Found));
    assert_eq!((of("b"), of("d")), (Lookup::Absent, Lookup::Absent));
    let ndjson = br#"{"source":"ifa","id":"a","segments":["list"]}
{"source":"ifa","id":"b","segments":["list"],"expires":"2030-01-01T00:00:00Z"}"#;
    let (_, report) = build(list_meta(1), &RowFormat::Ndjson, ndjson);
    assert_eq!((report.rows, report.rejected_rows), (1, 1));
    let mut builder = Builder::new(list_meta(1), keyer()).expect("a filter");
    builder
        .read_rows(&text(), &b"\n"[..], &mut |_| {})
        .expect("readable");
    let empty = builder.finish(&mut Vec::new()).expect_err("no row");
    assert!(matches!(empty, BuildError::Empty { .. }));
}

#[test]
fn every_flipped_byte_is_found() {
    let mut file = list(0..20);
    assert!((1200..2000).contains(&file.len()), "{}", file.len());
    for at in 0..file.len() {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            assert!(refused(&file).is_some(), "bit {bit} of byte {at}");
            file[at] ^= 1 << bit;
        }
    }
    assert!(refused(&file).is_none());
    // Of several blocks.
    let mut file = list(0..80_000);
    assert!(file.len() > 90_000, "{}", file.len());
    let last = file.len() - 120;
    for at in (0..700)
        .chain((700..last).step_by(97))
        .chain(last..file.len())
    {
        file[at] ^= 0xff;
        assert!(refused(&file).is_some(), "byte {at}");
        file[at] ^= 0xff;
    }
    assert!(refused(&file).is_none());
}

#[test]
fn every_cut_and_every_addition_is_found() {
    let file = list(0..20);
    for length in 0..file.len() {
        assert!(refused(&file[..length]).is_some(), "cut to {length}");
    }
    let longer = [&file[..], &[0]].concat();
    assert!(matches!(refused(&longer), Some(Flaw::Length { .. })));
}

#[test]
fn a_header_that_lies_is_refused() {
    let file = list(0..20);
    for at in 0..508 {
        for value in [0, 1, 0x7f, 0xff] {
            if file[at] == value {
                continue;
            }
            let mut changed = file.clone();
            changed[at] = value;
            reseal(&mut changed);
            // What nothing contradicts is a change and no lie: as_of, key id, a higher count of rows. Checksums were mended
            // by resealing.
            let may_change = match at {
                48 => value == 1,
                64..72 | 96..104 => true,
                _ => false,
            };
            match Filter::from_bytes(&changed) {
                Err(_) => assert!(!may_change || at >= 96, "byte {at} = {value}"),
                Ok(_) => assert!(may_change || changed == file, "byte {at} = {value}"),
            }
        }
    }
}

#[test]
fn huge_claims_allocate_nothing() {
    let file = list(0..20);
    // File length, ids, memberships, and offset and length of each section; then what the filter says of itself.
    for at in [16, 88, 104, 264, 272, 288, 296, 312, 320, 520, 528] {
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
    let file = list(0..20);
    assert!(with_parts(&file, |_| {}) == file);
    let check = |part: &str, change: &dyn Fn(&mut [Vec<u8>])| {
        let told = refused(&with_parts(&file, change)).expect("refused");
        assert!(told.to_string().contains(part), "{told}");
    };
    const FILTER: usize = 0;
    const SEGMENTS: usize = 1;
    check("holds a filter that has structure 2", &|p| p[FILTER][0] = 2);
    check("the rate cannot be true", &|p| p[FILTER][4..8].fill(0));
    check("the number of blocks", &|p| p[FILTER][8] ^= 1);
    check("the count of ids", &|p| p[FILTER][16] ^= 1);
    check("what is reserved", &|p| p[FILTER][63] = 1);
    check("the length of the filter", &|p| p[FILTER].push(0));
    check("the length of the filter", &|p| p[FILTER].truncate(64));
    check("the number of blocks", &|p| {
        let length = p[FILTER].len() - 64;
        p[FILTER].truncate(length);
    });
    check("the sizes of the segments", &|p| p[SEGMENTS][0] -= 1);
    check("the segment table", &|p| p[SEGMENTS][0] += 1);
    check("the segment table", &|p| p[SEGMENTS][8] ^= 1);
    check("the segment table", &|p| p[SEGMENTS][16] = b'/');
    check("the segment table", &|p| p[SEGMENTS][79] = 1);
    check("the length of the segment table", &|p| {
        p[SEGMENTS].extend([0; 80]);
    });
}

#[test]
fn the_fixture_stays_readable() {
    let file = std::fs::read(FIXTURE).expect("the fixture");
    let filter = Filter::from_bytes(&file).expect("sound");
    assert_eq!(
        filter.meta().as_of,
        Some("seq:42".parse().expect("an as_of"))
    );
    assert_eq!((filter.ids(), filter.rows()), (30, 31));
    assert_eq!(filter.key_id(), keyer().key_id());
    assert_eq!(filter.set().shape().rate().share(), 0.001);
    let found = (0..30).filter(|n| filter.lookup(key(&format!("u{n}"))) == Lookup::Found);
    assert_eq!(found.count(), 30);
    let others = (30..1030).filter(|n| filter.lookup(key(&format!("u{n}"))) == Lookup::Found);
    assert_eq!(others.count(), 0);
    // It is what is written today; who changes what is written makes a fixture of the next format.
    assert!(fixture() == file);
}

fn fixture() -> Vec<u8> {
    let meta = VersionMeta {
        as_of: Some("seq:42".parse().expect("an as_of")),
        ..list_meta(7)
    };
    let mut builder = Builder::new(meta, keyer())
        .expect("a filter")
        .with_false_positive_rate(FalsePositiveRate::of_share(0.001).expect("a rate"));
    let ids: Vec<u32> = (0..30).chain([3]).collect();
    builder
        .read_rows(&text(), lines(&ids).as_bytes(), &mut |_| {})
        .expect("readable");
    let mut file = Vec::new();
    builder.finish(&mut file).expect("good rows");
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The same rows in any order make the same bytes, and all that were uploaded are found.
    #[test]
    fn order_leaves_no_trace(
        ids in prop::collection::vec(0u32..400, 1..200),
        turn in any::<prop::sample::Index>(),
    ) {
        let (file, report) = build(list_meta(3), &text(), lines(&ids).as_bytes());
        let different: HashSet<u32> = ids.iter().copied().collect();
        prop_assert_eq!(report.ids, different.len() as u64);
        prop_assert_eq!(report.merged, (ids.len() - different.len()) as u64);
        let mut turned = ids.clone();
        turned.rotate_left(turn.index(ids.len()));
        turned.reverse();
        let (again, _) = build(list_meta(3), &text(), lines(&turned).as_bytes());
        prop_assert!(file == again);
        let filter = Filter::from_bytes(&file).expect("sound");
        for id in different {
            prop_assert_eq!(filter.lookup(key(&format!("u{id}"))), Lookup::Found);
        }
    }

    /// Whatever well-sealed bytes say: they are refused, or every lookup answers.
    #[test]
    fn sealed_nonsense_is_refused_or_harmless(
        edits in prop::collection::vec((0usize..3000, any::<u8>()), 1..6),
    ) {
        let mut file = list(0..20);
        let length = file.len();
        for (at, value) in edits {
            // The checksum sections last: what is told of them is mended.
            file[at % length] = value;
        }
        reseal(&mut file);
        if let Ok(filter) = Filter::from_bytes(&file) {
            for i in 0..40 {
                prop_assert_ne!(filter.lookup(key(&format!("u{i}"))), Lookup::Damaged);
            }
            prop_assert!(filter.set().expected_rate() <= 1.0);
        }
    }
}
