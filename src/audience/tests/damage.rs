//! Files that are not what was written, by accident and on purpose.

use proptest::prelude::*;

use super::*;
use crate::audience::{Flaw, Lookup};

const FIXTURE_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format-v1.kith");

fn refused(file: &[u8]) -> Option<Flaw> {
    Audience::from_bytes(file).err().map(|e| e.flaw)
}

fn small_file() -> Vec<u8> {
    let rows: String = (0..40)
        .map(|i| {
            format!(
                "ifa,u{i},a|b{},{}\n",
                i % 9,
                if i == 3 { "2030-01-01T00:00:00Z" } else { "" }
            )
        })
        .collect();
    build_csv(&rows).0
}

#[test]
fn every_flipped_bit_is_found() {
    let mut file = small_file();
    assert!((1500..4000).contains(&file.len()), "{}", file.len());
    assert!(refused(&file).is_none());
    for at in 0..file.len() {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            assert!(refused(&file).is_some(), "bit {bit} of byte {at}");
            file[at] ^= 1 << bit;
        }
    }
}

fn refused_again(file: &[u8]) -> Option<Flaw> {
    let mut on_disk = tempfile::tempfile().expect("a file");
    std::io::Write::write_all(&mut on_disk, file).expect("written");
    crate::audience::Version::reverify(&on_disk, &mut |_| true).err()
}

#[test]
fn every_flipped_byte_and_cut_is_found_once_more_on_disk() {
    let mut file = small_file();
    assert!(refused_again(&file).is_none());
    for at in 0..file.len() {
        let bit = 1 << (at % 8);
        file[at] ^= bit;
        let flaw = refused_again(&file);
        let is_damage = matches!(
            flaw,
            Some(Flaw::NotKith | Flaw::Length { .. } | Flaw::Damaged { .. })
        );
        // Never what a newer Kith may have written: that would be left where it is.
        assert!(is_damage, "byte {at}: {flaw:?}");
        file[at] ^= bit;
        assert!(refused_again(&file[..at]).is_some(), "cut at {at}");
    }
}

#[test]
fn every_flipped_byte_is_found_once_more_in_memory() {
    let file = small_file();
    let open = || crate::audience::AudienceFile::from_bytes(&file).expect("whole");
    assert!(open().reverify(&mut |_| true).expect("whole"));
    for at in 0..file.len() {
        let flipped = open().with_flipped_bit(at, (at % 8) as u8);
        assert!(flipped.reverify(&mut |_| true).is_err(), "byte {at}");
    }
    let mut blocks = 0;
    let ended = open().reverify(&mut |_| {
        blocks += 1;
        false
    });
    assert!(!ended.expect("not known"), "{blocks}");
    assert_eq!(blocks, 1);
}

#[test]
fn every_flipped_byte_of_several_blocks_is_found() {
    let rows: String = (0..9000)
        .map(|i| format!("ifa,u{i},a|b|c|s{},\n", i % 90))
        .collect();
    let mut file = build_csv(&rows).0;
    assert!((66_000..140_000).contains(&file.len()), "{}", file.len());
    assert!(refused(&file).is_none());
    // A prime step visits each byte of the frame's neighbourhood over runs of the loop, and each block often.
    let frame = 512 + 400;
    let last = file.len() - 64;
    for at in (0..frame)
        .chain((frame..last).step_by(7))
        .chain(last..file.len())
    {
        file[at] ^= 0xff;
        assert!(refused(&file).is_some(), "byte {at}");
        file[at] ^= 0xff;
    }
}

#[test]
fn every_cut_and_every_addition_is_found() {
    let file = small_file();
    for length in 0..file.len() {
        assert!(refused(&file[..length]).is_some(), "cut to {length}");
    }
    for byte in 0..=255 {
        let longer = [&file[..], &[byte]].concat();
        assert!(matches!(refused(&longer), Some(Flaw::Length { .. })));
    }
    assert!(refused(&file[1..]).is_some());
}

#[test]
fn damage_is_named() {
    let file = small_file();
    let flaw = |at: usize| {
        let mut file = file.clone();
        file[at] ^= 4;
        refused(&file).expect("damaged").to_string()
    };
    assert!(flaw(100).contains("damaged in its header"), "{}", flaw(100));
    let records = flaw(600);
    assert!(records.contains("damaged in its records"), "{records}");
    let last = file.len() - 1;
    assert!(
        flaw(last).contains("damaged in its checksums"),
        "{}",
        flaw(last)
    );
    assert!(flaw(0).contains("not a Kith version file"));
    assert!(flaw(8).contains("has format 7"), "{}", flaw(8));
    assert!(
        flaw(9).contains("has format 1027, and this Kith reads up to 3"),
        "{}",
        flaw(9)
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("v.kith");
    std::fs::write(&path, &file[..700]).expect("written");
    let told = Audience::open(&path).expect_err("cut").to_string();
    assert!(
        told.contains("v.kith: 700 bytes long, but written with"),
        "{told}"
    );
    let gone = Audience::open(&folder.path().join("gone")).expect_err("gone");
    assert!(matches!(gone.flaw, Flaw::Io(_)));
}

fn u64_at(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().expect("eight"))
}

/// Offset and length of each section, as the table says.
pub(super) fn sections(file: &[u8]) -> Vec<(usize, usize)> {
    let count = usize::from(file[140]).min(5);
    let entry = |i: usize| 256 + 24 * i;
    let number = |at: usize| u64_at(file, at) as usize;
    (0..count)
        .map(|i| (number(entry(i) + 8), number(entry(i) + 16)))
        .collect()
}

/// Makes all checksums true again, as someone would who writes files of their own.
pub(super) fn reseal(file: &mut [u8]) {
    let header_end = 512;
    let sections = sections(file);
    if let Some((sums_at, sums_length)) = sections.last().copied()
        && let Some(blocks) = file.get(header_end..sums_at)
    {
        let sums: Vec<u8> = blocks
            .chunks(65_536)
            .flat_map(|block| crc32fast::hash(block).to_le_bytes())
            .collect();
        // An edited directory may put the sums past the end of the file.
        if let Some(stored) = sums_at
            .checked_add(sums_length)
            .and_then(|end| file.get_mut(sums_at..end))
            && stored.len() == sums.len()
        {
            stored.copy_from_slice(&sums);
        }
    }
    for (i, (at, length)) in sections.into_iter().enumerate() {
        if let Some(section) = at.checked_add(length).and_then(|end| file.get(at..end)) {
            let crc = crc32fast::hash(section).to_le_bytes();
            file[256 + 24 * i + 4..256 + 24 * i + 8].copy_from_slice(&crc);
        }
    }
    let crc = crc32fast::hash(&file[..508]).to_le_bytes();
    file[508..512].copy_from_slice(&crc);
}

#[test]
fn resealing_a_sound_file_changes_nothing() {
    let file = small_file();
    let mut sealed = file.clone();
    reseal(&mut sealed);
    assert!(file == sealed);
}

#[test]
fn a_header_that_lies_is_refused() {
    let file = small_file();
    let sound = open(&file);
    for at in 0..508 {
        for value in [0, 1, 0x7f, 0xff] {
            if file[at] == value {
                continue;
            }
            let mut changed = file.clone();
            changed[at] = value;
            reseal(&mut changed);
            // What the sections cannot contradict is a change, not a lie: a version above the root (as if it were made of
            // deltas), as_of (a kind that exists), key id, a higher count of rows, the first expiry, from which the others
            // are counted. Checksums were mended by resealing.
            let may_change = match at {
                32..40 => value > 0,
                48 => value == 1,
                64..72 | 96..104 | 128..136 => true,
                _ => false,
            };
            match Audience::from_bytes(&changed) {
                Err(_) => assert!(!may_change || at >= 96, "byte {at} = {value}"),
                Ok(_) if changed == file => {}
                Ok(other) => {
                    assert!(may_change, "byte {at} = {value}");
                    assert!(other.rows() >= sound.ids());
                }
            }
        }
    }
}

#[test]
fn huge_claims_allocate_nothing() {
    let file = small_file();
    for at in [
        16, 88, 96, 104, 120, 216, 224, 264, 272, 288, 296, 312, 320, 336, 344, 360, 368,
    ] {
        for value in [u64::MAX, 1 << 63, 1 << 40, u64::MAX - 511] {
            let mut lying = file.clone();
            lying[at..at + 8].copy_from_slice(&value.to_le_bytes());
            reseal(&mut lying);
            let told = refused(&lying);
            if at != 96 || value == 0 {
                assert!(told.is_some(), "{value} at {at}");
            }
        }
    }
}

/// A file's sections, to be put together again with some of them changed; checksums and lengths are made to fit.
pub(super) fn with_parts(file: &[u8], change: impl Fn(&mut [Vec<u8>])) -> Vec<u8> {
    let entry = |i: usize| 256 + 24 * i;
    let mut sections = sections(file);
    sections.pop();
    let of_file = |(at, length): &(usize, usize)| file[*at..at + length].to_vec();
    let mut parts: Vec<Vec<u8>> = sections.iter().map(of_file).collect();
    change(&mut parts);
    let mut changed = file[..512].to_vec();
    let data: usize = parts.iter().map(Vec::len).sum();
    let sums = vec![0; 4 * data.div_ceil(65_536)];
    for (i, part) in parts.iter().chain([&sums]).enumerate() {
        let (at, length) = (changed.len() as u64, part.len() as u64);
        changed[entry(i) + 8..entry(i) + 16].copy_from_slice(&at.to_le_bytes());
        changed[entry(i) + 16..entry(i) + 24].copy_from_slice(&length.to_le_bytes());
        changed.extend(part);
    }
    let length = changed.len() as u64;
    changed[16..24].copy_from_slice(&length.to_le_bytes());
    reseal(&mut changed);
    changed
}

/// The sections are changed in a way that only their meaning betrays.
#[track_caller]
fn check_contradiction(file: &[u8], part: &str, change: impl Fn(&mut [Vec<u8>])) {
    assert!(with_parts(file, |_| {}) == file);
    match refused(&with_parts(file, change)) {
        Some(Flaw::Contradiction(what)) => assert!(what.contains(part), "{what}"),
        other => panic!("{other:?}"),
    }
}

fn check_segment_table(file: &[u8], place: usize) {
    let check = |part: &str, change: &dyn Fn(&mut Vec<u8>)| {
        check_contradiction(file, part, |parts| change(&mut parts[place]));
    };
    check("segment table", &|segments| {
        let second = segments[80..160].to_vec();
        segments.copy_within(0..80, 80);
        segments[..80].copy_from_slice(&second);
    });
    check("segment table", &|segments| segments[8] ^= 1);
    check("segment table", &|segments| segments[16] = b'/');
    check("segment table", &|segments| segments[79] = 1);
    check("sizes of the segments", &|segments| segments[0] -= 1);
}

#[test]
fn sections_that_contradict_are_refused() {
    let file = small_file();
    check_segment_table(&file, 3);
    let check = |part: &str, change: &dyn Fn(&mut [Vec<u8>])| {
        check_contradiction(&file, part, change);
    };
    const RECORDS: usize = 0;
    const INDEX: usize = 1;
    const CODE: usize = 2;
    check("the code", &|parts| parts[CODE][4] ^= 1);
    check("the code", &|parts| parts[CODE].push(0));
    check("the code", &|parts| {
        parts[CODE].pop();
    });
    // Bytes that no bin has: after the last, and before the first.
    check("the records begin and end", &|parts| parts[RECORDS].push(0));
    check("a record", &|parts| parts[RECORDS].insert(0, 0));
    check("a record", &|parts| parts[RECORDS][0] = 255);
    // The only shard: where it begins, its bins, the bits of its cells.
    for (at, value) in [(0, 1), (5, 1), (6, 1), (7, 1 << 4), (7, 1 << 6)] {
        check("record", &|parts| parts[INDEX][at] ^= value);
    }
    check("record", &|parts| parts[INDEX][8] ^= 1);
    // The first bin's head, tags and what else there is of the words.
    let count = usize::from(file[512]);
    assert!(count > 1, "the first bin has several ids");
    let rest = 4 + count;
    check("a record", &|parts| {
        parts[RECORDS].swap(4, 5);
        for byte in rest..rest + 4 {
            parts[RECORDS].swap(byte, byte + 4);
        }
    });
    check("a record", &|parts| {
        parts[RECORDS].copy_within(4..5, 5);
        parts[RECORDS].copy_within(rest..rest + 4, rest + 4);
    });
    // Who may be in a second bin, where nobody is.
    check("a record", &|parts| parts[RECORDS][1] ^= 1);
    // A bin's worth more than there are bins.
    check("the records begin and end", &|parts| {
        parts[RECORDS].extend([0; 64])
    });
}

#[test]
fn sections_of_format_1_that_contradict_are_refused() {
    let file = std::fs::read(FIXTURE_1).expect("the fixture");
    check_segment_table(&file, 0);
    let check = |part: &str, change: &dyn Fn(&mut [Vec<u8>])| {
        check_contradiction(&file, part, change);
    };
    check("record", &|parts| parts[2].push(0));
    check("record", &|parts| {
        parts[2].insert(0, 0);
        for offset in parts[1].chunks_mut(5) {
            let moved = u16::from_le_bytes([offset[0], offset[1]]) + 1;
            offset[..2].copy_from_slice(&moved.to_le_bytes());
        }
    });
    check("a record", &|parts| parts[1][0] = 255);
    check("a record", &|parts| {
        let first = parts[2][1..6].to_vec();
        parts[2].copy_within(6..11, 1);
        parts[2][6..11].copy_from_slice(&first);
    });
    check("a record", &|parts| parts[2].copy_within(1..6, 6));
}

#[test]
fn every_flipped_byte_of_format_1_is_found() {
    let mut file = std::fs::read(FIXTURE_1).expect("the fixture");
    for at in (0..700).chain((700..file.len()).step_by(11)) {
        file[at] ^= 0xff;
        assert!(refused(&file).is_some(), "byte {at}");
        file[at] ^= 0xff;
    }
    assert!(refused(&file).is_none());
}

/// Each checksum is looked at for itself, though another covers the same bytes.
#[test]
fn each_checksum_counts() {
    let file = small_file();
    let (sums_at, _) = *sections(&file).last().expect("a section");
    let mut block = file.clone();
    block[sums_at] ^= 1;
    let crc = crc32fast::hash(&block[sums_at..]).to_le_bytes();
    block[256 + 24 * 4 + 4..256 + 24 * 4 + 8].copy_from_slice(&crc);
    let mut section = file;
    section[256 + 24 * 2 + 4] ^= 1;
    for mut changed in [block, section] {
        let crc = crc32fast::hash(&changed[..508]).to_le_bytes();
        changed[508..512].copy_from_slice(&crc);
        assert!(matches!(refused(&changed), Some(Flaw::Damaged { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever well-sealed bytes say: they are refused, or every lookup answers.
    #[test]
    fn sealed_nonsense_is_refused_or_harmless(
        edits in prop::collection::vec((512usize..3000, any::<u8>()), 1..6),
        older in prop::bool::weighted(0.2),
        now in any::<i64>(),
    ) {
        let mut file = match older {
            true => std::fs::read(FIXTURE_1).expect("the fixture"),
            false => small_file(),
        };
        let length = file.len();
        for (at, value) in edits {
            file[512 + (at - 512) % (length - 512)] = value;
        }
        reseal(&mut file);
        if let Ok(audience) = Audience::from_bytes(&file) {
            let count = audience.segments().len() as u32;
            let now = Timestamp::from_unix_ms(now);
            for i in 0..40 {
                let answer = audience.lookup(key(&format!("u{i}")), now, |index| assert!(index < count));
                prop_assert_ne!(answer, Lookup::Damaged, "open has walked every record");
            }
        }
    }
}
