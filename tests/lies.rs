//! A version file that lies gets nothing for it: whatever its header, its section table and the heads of its sections claim, with
//! all checksums made right again, opening takes no more memory than opening the sound file does.
//!
//! Heap is counted by an allocator, at its peak; what is mapped by the kernel's own account of the process. What a lie is told, and
//! that none is believed, is `src/audience/tests/damage.rs`.

#![allow(unsafe_code, reason = "a counting allocator is one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use kith::audience::{Audience, AudienceFile, Builder, RowFormat, Version, VersionMeta};
use kith::ids::{Keyer, Kind, SecretKey};

struct Counting;

thread_local! {
    /// Bytes that are allocated now, and the most that ever were.
    static BYTES: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(more: isize) {
    let _ = BYTES.try_with(|bytes| {
        let now = bytes.get().0 + more;
        bytes.set((now, bytes.get().1.max(now)));
    });
}

// SAFETY: every call is handed on to the system's allocator unchanged; counting touches a thread's own cell only. Growing
// and zeroing are the trait's own, which call these two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that were allocated meanwhile, beyond those before.
fn peak(work: impl FnOnce()) -> usize {
    let before = BYTES.get().0;
    BYTES.set((before, before));
    work();
    (BYTES.get().1 - before) as usize
}

/// Whatever a lie says, what is told of it must fit in here: names of parts, a path.
const TOLD_BYTES_MAX: usize = 4096;
const HEADER_BYTES: usize = 512;
const TABLE_AT: usize = 256;
const ENTRY_BYTES: usize = 24;
const BLOCK_BYTES: usize = 65_536;

fn meta(kind: Kind, version: u64) -> VersionMeta {
    VersionMeta {
        kind,
        dataset: "crm".parse().expect("a name"),
        version,
        base: (version > 1).then(|| version - 1),
        as_of: None,
    }
}

fn keyer() -> Keyer {
    Keyer::new(&SecretKey::from_bytes([7; 32]))
}

fn finish(mut builder: Builder, format: &RowFormat, rows: &str) -> Vec<u8> {
    builder
        .read_rows(format, rows.as_bytes(), &mut |_| {})
        .expect("readable");
    let mut file = Vec::new();
    builder.finish(&mut file).expect("good rows");
    file
}

/// Sets that are shared and some that expire.
fn full() -> Vec<u8> {
    let mut rows = "source,id,segments,expires\n".to_owned();
    for id in 0..1_500 {
        let until = if id % 9 == 0 {
            "2030-01-01T00:00:00Z"
        } else {
            ""
        };
        let first = id % 7;
        let _ = write!(rows, "ifa,u{id},s{first}|s{}|s{}", first + 10, first + 20);
        let _ = writeln!(rows, "|t{},{until}", if id % 2 == 0 { 0 } else { id % 90 });
    }
    let builder = Builder::new(meta(Kind::Audience, 1), keyer()).expect("an audience");
    finish(builder, &RowFormat::Csv, &rows)
}

fn delta() -> Vec<u8> {
    let mut rows = "source,id,add,remove,delete\n".to_owned();
    for id in 0..500 {
        let _ = writeln!(rows, "ifa,u{id},s{},t{},", id % 7, id % 90);
    }
    let builder = Builder::delta(meta(Kind::Audience, 2), 1, keyer()).expect("a delta");
    finish(builder, &RowFormat::Csv, &rows)
}

fn filter() -> Vec<u8> {
    let rows: String = (0..3_000).map(|id| format!("u{id}\n")).collect();
    let format = RowFormat::Text {
        source: "ifa".to_owned(),
        segment: "list".parse().expect("a name"),
    };
    let builder = Builder::new(meta(Kind::Filter, 1), keyer()).expect("a filter");
    finish(builder, &format, &rows)
}

fn graph() -> Vec<u8> {
    let mut rows = "source,id,person\n".to_owned();
    for id in 0..3_000 {
        let _ = writeln!(rows, "s{},u{id},p{}", id % 7, id / 3);
    }
    let builder = Builder::new(meta(Kind::Identity, 1), keyer()).expect("a graph");
    finish(builder, &RowFormat::Csv, &rows)
}

fn u64_at(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*file[at..].first_chunk().expect("eight"))
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// How many sections there are.
fn sections(file: &[u8]) -> usize {
    let number = |place: usize| usize::from(file[TABLE_AT + ENTRY_BYTES * place]);
    (0..5)
        .take_while(|place| number(*place) == place + 1)
        .count()
}

/// Offset and length, as the table says.
fn section(file: &[u8], place: usize) -> (usize, usize) {
    let entry = TABLE_AT + ENTRY_BYTES * place;
    let (at, length) = (u64_at(file, entry + 8), u64_at(file, entry + 16));
    (at as usize, length as usize)
}

/// Makes the checksums right of whatever the table says that there is.
fn reseal(file: &mut [u8], count: usize) {
    let (sums_at, sums_length) = section(file, count - 1);
    if let Some(blocks) = file.get(HEADER_BYTES..sums_at) {
        let sums: Vec<u8> = blocks
            .chunks(BLOCK_BYTES)
            .flat_map(|block| crc32fast::hash(block).to_le_bytes())
            .collect();
        let there = sums_at
            .checked_add(sums_length)
            .and_then(|end| file.get_mut(sums_at..end));
        if let Some(there) = there
            && there.len() == sums.len()
        {
            there.copy_from_slice(&sums);
        }
    }
    for place in 0..count {
        let (at, length) = section(file, place);
        let crc = at
            .checked_add(length)
            .and_then(|end| file.get(at..end))
            .map(crc32fast::hash);
        if let Some(crc) = crc {
            put(file, TABLE_AT + ENTRY_BYTES * place + 4, &crc.to_le_bytes());
        }
    }
    let crc = crc32fast::hash(&file[..HEADER_BYTES - 4]);
    put(file, HEADER_BYTES - 4, &crc.to_le_bytes());
}

/// What a number of the file may claim to be: nothing, nearly what it is, all there is, and too much.
fn claims(own: u64, length: u64) -> [u64; 16] {
    [
        0,
        1,
        own.wrapping_sub(1),
        own.wrapping_add(1),
        own.wrapping_mul(2),
        length,
        length + 1,
        0xffff,
        1 << 24,
        1 << 31,
        u64::from(u32::MAX),
        1 << 40,
        1 << 56,
        1 << 63,
        u64::MAX - 511,
        u64::MAX,
    ]
}

/// Every lie about one or two numbers of the file.
fn each_lie(file: &[u8], mut told: impl FnMut(&str, &[u8])) {
    let length = file.len() as u64;
    let count = sections(file);
    let entries = TABLE_AT + ENTRY_BYTES * count;
    let mut copy = file.to_vec();
    let mut tell = |what: &str, change: &dyn Fn(&mut [u8])| {
        change(&mut copy);
        reseal(&mut copy, count);
        told(what, &copy);
        copy.copy_from_slice(file);
    };
    // Every word of the header, as 32 bits and as 64, is more than its fields are.
    for at in (8..entries).step_by(4) {
        for claim in claims(u64_at(file, at), length) {
            tell("a number", &|file| put(file, at, &claim.to_le_bytes()));
            tell("a short number", &|file| {
                put(file, at, &(claim as u32).to_le_bytes())
            });
        }
    }
    // Counts that agree with each other.
    for claim in claims(u64_at(file, 88), length) {
        tell("ids, rows and memberships", &|file| {
            for at in [88, 96, 104] {
                put(file, at, &claim.to_le_bytes());
            }
        });
        tell("segments and the length of their table", &|file| {
            put(file, 112, &(claim as u32).to_le_bytes());
            let entry = TABLE_AT + ENTRY_BYTES * (count - 2);
            put(file, entry + 16, &claim.wrapping_mul(80).to_le_bytes());
        });
        tell("the file's length and the last section's", &|file| {
            put(file, 16, &claim.to_le_bytes());
            let (at, _) = section(file, count - 1);
            let last = claim.wrapping_sub(at as u64);
            put(
                file,
                TABLE_AT + ENTRY_BYTES * (count - 1) + 16,
                &last.to_le_bytes(),
            );
        });
    }
    for bits in 0..=64u64 {
        tell("shards, and the length of their index", &|file| {
            put(file, 120, &bits.to_le_bytes());
            let index = 1u64.checked_shl(bits as u32).unwrap_or(0);
            let index = index.wrapping_add(1).wrapping_mul(8);
            put(file, TABLE_AT + ENTRY_BYTES * 2 + 16, &index.to_le_bytes());
        });
    }
    // One section at the expense of another, so that the sum is right; and at the place of another.
    for from in 0..count {
        for to in 0..count {
            let ((from_at, own), (to_at, _)) = (section(file, from), section(file, to));
            for bytes in claims(own as u64, own as u64) {
                tell("lengths", &|file| {
                    for (place, change) in [(from, bytes.wrapping_neg()), (to, bytes)] {
                        let entry = TABLE_AT + ENTRY_BYTES * place;
                        let length = u64_at(file, entry + 16).wrapping_add(change);
                        put(file, entry + 16, &length.to_le_bytes());
                    }
                    // Each where the one before ends, as a good table has it.
                    let mut at = HEADER_BYTES as u64;
                    for place in 0..count {
                        let entry = TABLE_AT + ENTRY_BYTES * place;
                        put(file, entry + 8, &at.to_le_bytes());
                        at = at.wrapping_add(u64_at(file, entry + 16));
                    }
                });
            }
            tell("an overlap", &|file| {
                let entry = TABLE_AT + ENTRY_BYTES * from;
                put(file, entry + 8, &(to_at as u64).to_le_bytes());
            });
            tell("two places exchanged", &|file| {
                for (place, at) in [(from, to_at), (to, from_at)] {
                    let entry = TABLE_AT + ENTRY_BYTES * place;
                    put(file, entry + 8, &(at as u64).to_le_bytes());
                }
            });
        }
    }
    // How sections begin: sizes of dictionaries, names and shards, a filter's shape.
    for place in 0..count - 1 {
        let (at, length) = section(file, place);
        for at in (at..at + length.min(96).saturating_sub(8)).step_by(2) {
            for claim in claims(u64_at(file, at), length as u64) {
                tell("the head of a section", &|file| {
                    put(file, at, &claim.to_le_bytes())
                });
            }
        }
    }
}

fn status(field: &str) -> usize {
    let text = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok());
    1024 * kib.expect("a number of kB")
}

/// One test, since what is mapped is the whole process's.
#[test]
fn a_lie_allocates_nothing() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format-v1.kith");
    let old = fs::read(fixture).expect("the fixture");
    let mut lies = 0;
    for (name, file) in [
        ("a full version", full()),
        ("a delta", delta()),
        ("a filter", filter()),
        ("an identity graph", graph()),
        ("one of format 1", old),
    ] {
        let mut resealed = file.clone();
        reseal(&mut resealed, sections(&file));
        assert!(resealed == file, "{name}");
        let open = |file: &[u8]| Version::from_bytes(file).is_ok();
        let sound = peak(|| assert!(open(&file), "{name}"));
        let mapped = status("VmPeak:");
        each_lie(&file, |what, lying| {
            let took = peak(|| {
                let _ = open(lying);
            });
            lies += 1;
            assert!(
                took <= sound + TOLD_BYTES_MAX,
                "{name}: {what}: {took} bytes, where the sound one takes {sound}"
            );
        });
        let more = status("VmPeak:").saturating_sub(mapped);
        assert!(more < 16 << 20, "{name}: {more} bytes more were mapped");
    }
    assert!(lies > 10_000, "{lies}");
    a_sparse_file_ends_at_its_first_hole();
}

/// A file whose length is true, and costs its author nothing: 64 GiB of holes behind a good header.
fn a_sparse_file_ends_at_its_first_hole() {
    const BLOCKS: u64 = 1 << 20;
    const SUMS: u64 = 4 * BLOCKS;
    const LENGTH: u64 = HEADER_BYTES as u64 + BLOCKS * BLOCK_BYTES as u64 + SUMS;
    let mut file = full();
    let others = [1, 2, 3].map(|place| section(&file, place).1 as u64);
    let records = BLOCKS * BLOCK_BYTES as u64 - others.iter().sum::<u64>();
    put(&mut file, 16, &LENGTH.to_le_bytes());
    for (place, length) in [(0, records), (4, SUMS)] {
        put(
            &mut file,
            TABLE_AT + ENTRY_BYTES * place + 16,
            &length.to_le_bytes(),
        );
    }
    let mut at = HEADER_BYTES as u64;
    for place in 0..5 {
        let entry = TABLE_AT + ENTRY_BYTES * place;
        put(&mut file, entry + 8, &at.to_le_bytes());
        at += u64_at(&file, entry + 16);
    }
    let holes = crc32fast::hash(&vec![0; SUMS as usize]);
    put(
        &mut file,
        TABLE_AT + ENTRY_BYTES * 4 + 4,
        &holes.to_le_bytes(),
    );
    let crc = crc32fast::hash(&file[..HEADER_BYTES - 4]);
    put(&mut file, HEADER_BYTES - 4, &crc.to_le_bytes());

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sparse.kith");
    let sparse = File::create(&path).expect("a file");
    sparse
        .write_all_at(&file[..HEADER_BYTES], 0)
        .expect("written");
    sparse.set_len(LENGTH).expect("a file system with holes");
    let resident = status("VmRSS:");
    let mut told = String::new();
    let took = peak(|| told = Audience::open(&path).expect_err("holes").to_string());
    // Where the kernel does not promise so much memory, that is what is told.
    assert!(
        told.contains("damaged in its records") || told.contains("cannot be read"),
        "{told}"
    );
    assert!(took as u64 <= SUMS + (1 << 20), "{took}");
    let more = status("VmRSS:").saturating_sub(resident);
    assert!(more < 16 << 20, "{more} bytes more are resident");
    assert!(AudienceFile::open(&path).is_err());
}
