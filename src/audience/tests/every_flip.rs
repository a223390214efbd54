//! Damage at length: whole files flipped byte by byte, cut at every byte, and a million flips of a large one.
//!
//! Too long for every day; what runs there is `damage.rs`. A file of a megabyte is opened anew for each flip, on all cores. Of one of
//! a hundred megabytes that would take a day, since opening reads all of it. But opening is a header, the checksums, and then one
//! block after the other, each held against its own checksum ([`Frame`]): a flip is found if and when the part that it is in
//! is refused. So of most flips only those parts are read, by the functions with which opening reads them, and of some thousands the
//! whole file.

#![expect(clippy::print_stderr, reason = "a campaign tells how far it came")]

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::audience::format::{BLOCK_BYTES, HEADER_BYTES};
use crate::audience::reader::verify::Frame;
use crate::audience::{Flaw, Version};

const FLIPS: u64 = 1_000_000;
/// Of so many flips the whole file is opened.
const OPENED: u64 = 4_000;
const LARGE_IDS: u64 = 8_500_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// What a byte is changed by: not nothing.
    fn change(&mut self) -> u8 {
        1 + (self.next() % 255) as u8
    }
}

/// People in up to twenty of 300 segments; `expires` where some memberships do.
fn rows(ids: u64, expires: bool) -> String {
    let mut random = Random(1);
    let mut text = String::new();
    for id in 0..ids {
        let first = random.below(8);
        let _ = write!(text, "ifa,u{id},s{first}");
        // A quarter has one of eight sets, which the file's dictionary holds once.
        if random.below(4) == 0 {
            for nth in 1..6 {
                let _ = write!(text, "|s{}", first + 40 * nth);
            }
        } else {
            for _ in 0..random.below(20) {
                let last = random.below(292);
                let _ = write!(text, "|s{}", 8 + random.below(last + 1));
            }
        }
        let until = match random.below(50) {
            0 if expires => "2031-05-06T07:08:09Z",
            _ => "",
        };
        let _ = writeln!(text, ",{until}");
    }
    text
}

fn full(ids: u64, expires: bool) -> Vec<u8> {
    build_csv(&rows(ids, expires)).0
}

fn delta(ids: u64) -> Vec<u8> {
    let mut text = "source,id,add,remove,delete\n".to_owned();
    let mut random = Random(2);
    for id in 0..ids {
        let _ = match random.below(20) {
            0 => writeln!(text, "ifa,u{id},,,true"),
            _ => writeln!(
                text,
                "ifa,u{id},s{},s{},",
                random.below(150),
                150 + random.below(150)
            ),
        };
    }
    let made = VersionMeta {
        base: Some(1),
        ..meta(2)
    };
    let mut builder = Builder::delta(made, 1, keyer()).expect("a delta");
    builder
        .read_rows(&RowFormat::Csv, text.as_bytes(), &mut |_| {})
        .expect("readable");
    let mut file = Vec::new();
    builder.finish(&mut file).expect("good rows");
    file
}

fn filter(ids: u64) -> Vec<u8> {
    let lines: String = (0..ids).map(|id| format!("u{id}\n")).collect();
    let made = VersionMeta {
        kind: Kind::Filter,
        ..meta(1)
    };
    let format = RowFormat::Text {
        source: "ifa".to_owned(),
        segment: "list".parse().expect("a name"),
    };
    build(made, &format, lines.as_bytes()).0
}

fn graph(ids: u64) -> Vec<u8> {
    let rows: String = (0..ids)
        .map(|id| format!("s{},u{id},p{}\n", id % 7, id / 3))
        .collect();
    let made = VersionMeta {
        kind: Kind::Identity,
        ..meta(1)
    };
    let rows = format!("source,id,person\n{rows}");
    build(made, &RowFormat::Csv, rows.as_bytes()).0
}

/// Opens it as what it says it is.
fn refused(file: &[u8]) -> Option<Flaw> {
    Version::from_bytes(file).err().map(|e| e.flaw)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// Each byte to a random other, then each with one bit flipped: the lowest of the first, the next of the second, and so on. Then
/// each cut.
fn check_every_byte(what: &str, file: &[u8]) {
    assert!(refused(file).is_none(), "{what} is sound");
    let cores = cores();
    thread::scope(|scope| {
        for core in 0..cores {
            scope.spawn(move || {
                let mut copy = file.to_vec();
                let mut random = Random(core as u64);
                for at in (core..file.len()).step_by(cores) {
                    for change in [random.change(), 1 << (at % 8)] {
                        copy[at] ^= change;
                        assert!(refused(&copy).is_some(), "{what}: byte {at} by {change}");
                        copy[at] ^= change;
                    }
                    assert!(refused(&file[..at]).is_some(), "{what}: cut to {at}");
                }
                assert!(copy == file && refused(&copy).is_none());
            });
        }
    });
    eprintln!(
        "{what}, {} bytes: {} flips and {} cuts, all refused",
        file.len(),
        2 * file.len(),
        file.len()
    );
}

#[test]
#[ignore = "takes minutes: scripts/long-tests damage"]
fn every_flip_and_every_cut_of_a_megabyte_is_found() {
    let large = full(85_000, true);
    assert!(large.len() >= 1_000_000, "{}", large.len());
    let (code_at, _) = super::damage::sections(&large)[0];
    assert_ne!(large[code_at], 0, "the dictionary has sets");
    check_every_byte("a full version with expiry and shared sets", &large);
    let small = delta(5_000);
    assert!(small.len() >= 100_000, "{}", small.len());
    check_every_byte("a delta", &small);
    let list = filter(80_000);
    assert!(list.len() >= 100_000, "{}", list.len());
    check_every_byte("a filter", &list);
    let links = graph(3_000);
    assert!(links.len() >= 100_000, "{}", links.len());
    check_every_byte("an identity graph", &links);
}

/// One to four bytes: anywhere, or, half the time, next to each other.
fn flips(random: &mut Random, length: usize) -> Vec<(usize, u8)> {
    let count = 1 + random.below(4);
    let first = random.below(length - count);
    let together = random.below(2) == 0;
    let mut flips: Vec<(usize, u8)> = Vec::with_capacity(count);
    while flips.len() < count {
        let at = match (flips.len(), together) {
            (0, _) => first,
            (nth, true) => first + nth,
            (_, false) => random.below(length),
        };
        // Two of the same byte could undo each other.
        if flips.iter().all(|(other, _)| *other != at) {
            flips.push((at, random.change()));
        }
    }
    flips
}

/// What opening says of a file with these flips, though only the parts that they are in are read. Opening refuses when it comes to
/// the first of them; here each block must be refused for itself.
fn told(file: &[u8], flips: &[(usize, u8)]) -> Vec<Flaw> {
    let flipped = |bytes: &mut [u8], at: usize| {
        bytes.copy_from_slice(&file[at..at + bytes.len()]);
        for (flip, change) in flips {
            if let Some(byte) = flip.checked_sub(at).and_then(|at| bytes.get_mut(at)) {
                *byte ^= change;
            }
        }
    };
    let read_at = |bytes: &mut [u8], at: u64| {
        flipped(bytes, at as usize);
        Ok(())
    };
    let frame = match Frame::read(file.len() as u64, &read_at) {
        Ok(frame) => frame,
        Err(flaw) => return vec![flaw],
    };
    let (sums_at, _) = frame
        .header
        .places()
        .and_then(|all| all.last().copied())
        .expect("places");
    let mut numbers: Vec<usize> = flips
        .iter()
        .filter_map(|(at, _)| Some(at.checked_sub(HEADER_BYTES)? / BLOCK_BYTES))
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let told = numbers.into_iter().map(|number| {
        let at = HEADER_BYTES + number * BLOCK_BYTES;
        block.resize(BLOCK_BYTES.min(sums_at as usize - at), 0);
        flipped(&mut block, at);
        frame
            .check(number, &block)
            .expect_err("a flip that is not found")
    });
    told.collect()
}

/// That so many flips are found, of which some by opening the whole file.
fn check_flips(file: &[u8], count: u64, opened: u64) {
    assert!(refused(file).is_none());
    let cores = cores() as u64;
    let found = [const { AtomicU64::new(0) }; 2];
    thread::scope(|scope| {
        for core in 0..cores {
            let found = &found;
            scope.spawn(move || {
                let mut copy = file.to_vec();
                for turn in count * core / cores..count * (core + 1) / cores {
                    let mut random = Random(turn << 8);
                    // By chance few would be where the header and the checksums are.
                    let flips = match turn % 16 {
                        0 => flips(&mut random, HEADER_BYTES),
                        1 => flips(&mut random, 4096)
                            .into_iter()
                            .map(|(at, change)| (file.len() - 1 - at, change))
                            .collect(),
                        _ => flips(&mut random, file.len()),
                    };
                    let flaws = told(file, &flips);
                    let in_body = |flaw: &Flaw| matches!(flaw, Flaw::Damaged { at, .. } if *at > 0);
                    let first = flaws.first().expect("a flip that is not found");
                    found[usize::from(in_body(first))].fetch_add(1, Ordering::Relaxed);
                    if turn % (count / opened) == 0 {
                        flips.iter().for_each(|(at, change)| copy[*at] ^= change);
                        let whole = refused(&copy).expect("a flip that is not found");
                        assert_eq!(whole.to_string(), first.to_string(), "{flips:?}");
                        flips.iter().for_each(|(at, change)| copy[*at] ^= change);
                    }
                }
                assert!(copy == file);
            });
        }
    });
    let [header, body] = found.map(AtomicU64::into_inner);
    assert_eq!(header + body, count);
    eprintln!(
        "{} bytes, {count} flips of 1 to 4 bytes: {header} refused by the header, {body} by a checksum of what follows; {opened} of \
         them by opening the whole file, in the same words",
        file.len()
    );
}

#[test]
fn some_flips_are_found_by_their_parts_and_by_opening_alike() {
    let file = full(20_000, true);
    assert!(file.len() > 3 * BLOCK_BYTES, "{}", file.len());
    check_flips(&file, 200, 200);
}

#[test]
#[ignore = "takes minutes, 2 GB: scripts/long-tests flips"]
fn a_million_flips_of_a_large_version_are_found() {
    let file = full(LARGE_IDS, true);
    assert!(file.len() >= 100_000_000, "{}", file.len());
    check_flips(&file, FLIPS, OPENED);
}
