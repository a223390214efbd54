//! Files that are not what was written, by accident and on purpose.

use proptest::prelude::*;

use super::*;
use crate::audience::{Flaw, Lookup};

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

#[test]
fn every_flipped_byte_of_several_blocks_is_found() {
    let rows: String = (0..9000)
        .map(|i| format!("ifa,u{i},a|b|c|s{},\n", i % 90))
        .collect();
    let mut file = build_csv(&rows).0;
    assert!((100_000..140_000).contains(&file.len()), "{}", file.len());
    assert!(refused(&file).is_none());
    // A prime step visits each byte of the frame's neighbourhood over runs of the loop, and each block often.
    let frame = 512 + 93 * 80;
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
#[ignore = "takes ten seconds unoptimised: every byte of a 100 KB file, where the test above takes every seventh: scripts/long-tests damage"]
fn every_flipped_byte_of_several_blocks_is_found_without_gaps() {
    let rows: String = (0..9000)
        .map(|i| format!("ifa,u{i},a|b|c|s{},\n", i % 90))
        .collect();
    let mut file = build_csv(&rows).0;
    for at in 0..file.len() {
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
        file[at] ^= 1;
        refused(&file).expect("damaged").to_string()
    };
    assert!(flaw(100).contains("damaged in its header"), "{}", flaw(100));
    assert!(
        flaw(600).contains("damaged in its segments"),
        "{}",
        flaw(600)
    );
    let last = file.len() - 1;
    assert!(
        flaw(last).contains("damaged in its checksums"),
        "{}",
        flaw(last)
    );
    assert!(flaw(0).contains("not a Kith version file"));
    assert!(flaw(8).contains("has format 0") || flaw(8).contains("damaged"));
    assert!(
        flaw(9).contains("has format 257, and this Kith reads up to 1"),
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

/// Makes all checksums true again, as someone would who writes files of their own.
fn reseal(file: &mut [u8]) {
    let header_end = 512;
    let sections: Vec<(usize, usize)> = (0..4)
        .map(|i| {
            let entry = 256 + 24 * i;
            (
                u64_at(file, entry + 8) as usize,
                u64_at(file, entry + 16) as usize,
            )
        })
        .collect();
    let (sums_at, sums_length) = sections[3];
    if let Some(blocks) = file.get(header_end..sums_at) {
        let sums: Vec<u8> = blocks
            .chunks(65_536)
            .flat_map(|block| crc32fast::hash(block).to_le_bytes())
            .collect();
        if sums.len() == sums_length {
            file[sums_at..sums_at + sums_length].copy_from_slice(&sums);
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
            // What the sections cannot contradict is a change, not a lie: as_of (a kind that exists), key id, a higher
            // count of rows, the first expiry, from which the others are counted. Checksums were mended by resealing.
            let may_change = match at {
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
    for at in [16, 88, 96, 104, 120, 264, 272, 288, 296, 312, 320, 336, 344] {
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
fn with_parts(file: &[u8], change: impl Fn(&mut [Vec<u8>; 3])) -> Vec<u8> {
    let entry = |i: usize| 256 + 24 * i;
    let mut parts = [0, 1, 2].map(|i| {
        let at = u64_at(file, entry(i) + 8) as usize;
        file[at..at + u64_at(file, entry(i) + 16) as usize].to_vec()
    });
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
fn check_contradiction(part: &str, change: impl Fn(&mut [Vec<u8>; 3])) {
    let file = small_file();
    assert!(with_parts(&file, |_| {}) == file);
    match refused(&with_parts(&file, change)) {
        Some(Flaw::Contradiction(what)) => assert!(what.contains(part), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn sections_that_contradict_are_refused() {
    check_contradiction("segment table", |[segments, ..]| {
        let second = segments[80..160].to_vec();
        segments.copy_within(0..80, 80);
        segments[..80].copy_from_slice(&second);
    });
    check_contradiction("segment table", |[segments, ..]| segments[8] ^= 1);
    check_contradiction("segment table", |[segments, ..]| segments[16] = b'/');
    check_contradiction("segment table", |[segments, ..]| segments[79] = 1);
    check_contradiction("sizes of the segments", |[segments, ..]| segments[0] -= 1);
    // Bytes that no bucket has: after the last, and before the first.
    check_contradiction("directory", |[_, _, records]| records.push(0));
    check_contradiction("directory", |[_, directory, records]| {
        records.insert(0, 0);
        for offset in directory.chunks_mut(5) {
            let moved = u16::from_le_bytes([offset[0], offset[1]]) + 1;
            offset[..2].copy_from_slice(&moved.to_le_bytes());
        }
    });
    check_contradiction("a record", |[_, directory, _]| directory[0] = 255);
    // The first bucket's first two fingerprints, in the wrong order and then the same.
    check_contradiction("order of fingerprints", |[_, _, records]| {
        let first = records[1..6].to_vec();
        records.copy_within(6..11, 1);
        records[6..11].copy_from_slice(&first);
    });
    check_contradiction("order of fingerprints", |[_, _, records]| {
        records.copy_within(1..6, 6);
    });
}

/// Each checksum is looked at for itself, though another covers the same bytes.
#[test]
fn each_checksum_counts() {
    let file = small_file();
    let sums_at = u64_at(&file, 256 + 24 * 3 + 8) as usize;
    let mut block = file.clone();
    block[sums_at] ^= 1;
    let crc = crc32fast::hash(&block[sums_at..]).to_le_bytes();
    block[256 + 24 * 3 + 4..256 + 24 * 3 + 8].copy_from_slice(&crc);
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
        now in any::<i64>(),
    ) {
        let mut file = small_file();
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
