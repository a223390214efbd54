//! Kith's filter beside others: bits a key, real false-positive rate, time of a lookup, time and memory of a build.
//!
//! All rows of a run hold the same keys and are asked the same. Keys are 64-bit hashes that are mixed already, as Kith
//! has them. A *dependent* lookup asks for what the answer before decided on, so that it waits for its memory; a
//! *batch* asks for four together, as a request with four ids does, and the next four depend on their answers. Where a
//! crate lets nobody ask for memory in advance, its four are asked one after the other, and the processor overlaps what
//! it can. The row `a load` is one dependent load from as much memory as Kith's filter for 1 % has: what no structure
//! beats.
//!
//! All times are CPU time of the one thread. Build memory is what was allocated at the peak, and mapped; the keys are
//! not in it.
//!
//! Holds `unsafe` for `sbbf-rs`, which works on a buffer of the caller's.

#![allow(unsafe_code)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io;

use kith::audience::{FalsePositiveRate, FilterBuilder, FilterSet, Shape};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use xorf::Filter as _;

/// Lookups whose answers are not timed but counted, for the false-positive rate.
const RATE_PROBES: u64 = 10_000_000;
/// Keys of which it is checked that they are in.
const KEYS_CHECKED: usize = 1_000_000;
/// The share for which a filter is declared, in the rows that can choose.
const DECLARED: [f64; 3] = [0.01, 0.001, 0.0001];

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Keys in each filter.
    pub keys: u64,
    /// Lookups of a timing.
    pub lookups: u64,
    /// Timings, of which the median is told.
    pub rounds: usize,
}

impl Effort {
    /// What figures are published from.
    pub const FULL: Self = Self {
        keys: 10_000_000,
        lookups: 1_000_000,
        rounds: 5,
    };
    /// What tests run.
    pub const TINY: Self = Self {
        keys: 2_000,
        lookups: 1_000,
        rounds: 1,
    };
}

/// What was measured, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Keys in each filter.
    pub keys: u64,
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
}

/// One structure.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Whose it is, and which.
    pub name: String,
    /// The rate it was asked for; none where it has but one.
    pub declared: Option<f64>,
    /// Bits a key.
    pub bits: f64,
    /// The share of keys that are in though they were not put in.
    pub false_rate: f64,
    /// Of a dependent lookup that misses, in ns.
    pub miss_ns: f64,
    /// Of a dependent lookup that hits.
    pub hit_ns: f64,
    /// Of one of four misses asked together.
    pub batch_ns: f64,
    /// CPU seconds to build it.
    pub build_seconds: f64,
    /// Bytes a key at the peak of building it.
    pub build_bytes: f64,
}

/// Something that answers.
trait Contestant {
    fn contains(&self, key: u64) -> bool;
    fn bits(&self) -> usize;
    /// Bytes of it that no allocator knows of.
    fn mapped(&self) -> usize {
        0
    }
    /// How many of four are in.
    fn four(&self, keys: [u64; 4]) -> u64 {
        keys.map(|key| u64::from(self.contains(key))).iter().sum()
    }
}

/// The `n`th key: numbers to what looks like chance.
fn key(n: u64) -> u64 {
    let n = (n.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The number from which on keys are in no filter.
const OTHERS: u64 = 1 << 40;

/// Builds every structure in turn, and asks it.
///
/// # Errors
/// Where a structure cannot be built.
pub fn run(effort: Effort) -> io::Result<Report> {
    let keys: Vec<u64> = (0..effort.keys).map(key).collect();
    let mut rows = vec![a_load(effort)];
    for share in DECLARED {
        let declared = Some(share);
        rows.push(row("bloomfilter", declared, effort, || {
            bloom(&keys, share)
        })?);
        rows.push(row("fastbloom", declared, effort, || fast(&keys, share))?);
        rows.push(row("sbbf-rs", declared, effort, || {
            Split::new(&keys, share)
        })?);
        rows.push(row("kith", declared, effort, || ours(&keys, share))?);
    }
    rows.push(row("xorf fuse 8", None, effort, || {
        xorf::BinaryFuse8::try_from(&keys).map_err(io::Error::other)
    })?);
    rows.push(row("xorf fuse 16", None, effort, || {
        xorf::BinaryFuse16::try_from(&keys).map_err(io::Error::other)
    })?);
    Ok(Report {
        keys: effort.keys,
        rows,
    })
}

fn row<C: Contestant>(
    name: &str,
    declared: Option<f64>,
    effort: Effort,
    build: impl FnOnce() -> io::Result<C>,
) -> io::Result<Row> {
    let mut built = Err(io::ErrorKind::Other.into());
    let began = cpu_seconds();
    let allocated = allocation_counter::measure(|| built = build());
    let build_seconds = cpu_seconds() - began;
    let built = built?;
    let peak = allocated.bytes_max as f64 + built.mapped() as f64;
    let mut some = (0..effort.keys).step_by(1 + effort.keys as usize / KEYS_CHECKED);
    if let Some(n) = some.find(|n| !built.contains(key(*n))) {
        return Err(io::Error::other(format!("{name} has lost key {n}")));
    }
    let probes = RATE_PROBES.min(effort.lookups.saturating_mul(10));
    let found = (0..probes).filter(|n| built.contains(key(OTHERS + n)));
    let found = found.count();
    Ok(Row {
        name: name.to_owned(),
        declared,
        bits: built.bits() as f64 / effort.keys as f64,
        false_rate: found as f64 / probes as f64,
        miss_ns: median(effort, |round| {
            let mut at = OTHERS * round;
            for _ in 0..effort.lookups {
                at += 1 + u64::from(built.contains(key(at)));
            }
            (at, effort.lookups)
        }),
        hit_ns: median(effort, |round| {
            let mut at = round * effort.lookups;
            for _ in 0..effort.lookups {
                at += u64::from(built.contains(key(at % effort.keys)));
            }
            (at, effort.lookups)
        }),
        batch_ns: median(effort, |round| {
            let mut at = OTHERS * (round + 100);
            for _ in 0..effort.lookups / 4 {
                at += 4 + built.four([0, 1, 2, 3].map(|n| key(at + n)));
            }
            (at, effort.lookups / 4 * 4)
        }),
        build_seconds,
        build_bytes: peak / effort.keys as f64,
    })
}

/// Nanoseconds of one of what `work` does: it says how many those were, and something that depends on all of them.
fn median(effort: Effort, work: impl Fn(u64) -> (u64, u64)) -> f64 {
    let timing = |round| {
        let began = cpu_seconds();
        let (answer, times) = work(round);
        black_box(answer);
        (cpu_seconds() - began) * 1e9 / times as f64
    };
    let mut all: Vec<f64> = (1..=effort.rounds.max(1) as u64).map(timing).collect();
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// CPU time of this thread: what others do on the machine is not in it, but for what they drive out of the caches.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn a_load(effort: Effort) -> Row {
    let memory: Vec<u64> = (0..effort.keys * 10 / 64 + 1).map(key).collect();
    let words = memory.len() as u64;
    let place = |at| ((u128::from(key(at)) * u128::from(words)) >> 64) as usize;
    let load = |at| memory.get(place(at)).map_or(0, |word| word & 1);
    let miss_ns = median(effort, |round| {
        let mut at = OTHERS * round;
        for _ in 0..effort.lookups {
            at += 1 + load(at);
        }
        (at, effort.lookups)
    });
    let batch_ns = median(effort, |round| {
        let mut at = OTHERS * (round + 100);
        for _ in 0..effort.lookups / 4 {
            at += 4 + [0, 1, 2, 3].map(|n| load(at + n)).iter().sum::<u64>();
        }
        (at, effort.lookups / 4 * 4)
    });
    Row {
        name: "a load".to_owned(),
        declared: None,
        bits: 10.0,
        false_rate: f64::NAN,
        miss_ns,
        hit_ns: miss_ns,
        batch_ns,
        build_seconds: f64::NAN,
        build_bytes: f64::NAN,
    }
}

fn bloom(keys: &[u64], share: f64) -> io::Result<bloomfilter::Bloom<u64>> {
    // Two keys in one: equal ones would make its two hashes equal, and a quarter of the answers wrong.
    let seed = std::array::from_fn(|n| n as u8);
    let built = bloomfilter::Bloom::new_for_fp_rate_with_seed(keys.len(), share, &seed);
    let mut built = built.map_err(io::Error::other)?;
    keys.iter().for_each(|key| built.set(key));
    Ok(built)
}

impl Contestant for bloomfilter::Bloom<u64> {
    fn contains(&self, key: u64) -> bool {
        self.check(&key)
    }

    fn bits(&self) -> usize {
        self.as_slice().len() * 8
    }
}

fn fast(keys: &[u64], share: f64) -> io::Result<fastbloom::BloomFilter> {
    let built = fastbloom::BloomFilter::with_false_pos(share).seed(&7);
    let mut built = built.expected_items(keys.len());
    for key in keys {
        built.insert_hash(*key);
    }
    Ok(built)
}

impl Contestant for fastbloom::BloomFilter {
    fn contains(&self, key: u64) -> bool {
        self.contains_hash(key)
    }

    fn bits(&self) -> usize {
        self.num_bits()
    }
}

/// Parquet's filter: blocks of 256 bits.
struct Split {
    blocks: Vec<Line>,
    ask: sbbf_rs::FilterFn,
}

/// Two of its blocks, on a line of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; 64]);

impl Split {
    fn new(keys: &[u64], share: f64) -> io::Result<Self> {
        // Bits a key as the rate of such a filter asks for: computed as Kith does for its own
        // (`audience/filter/shape.rs`).
        let bits = match share {
            0.01.. => 10.53,
            0.001.. => 16.89,
            _ => 26.34,
        };
        let bytes = (keys.len() as f64 * bits / 8.0).ceil() as usize;
        let mut split = Self {
            blocks: vec![Line([0; 64]); bytes.div_ceil(64)],
            ask: sbbf_rs::FilterFn::new(),
        };
        let (begin, count) = (split.blocks.as_mut_ptr(), split.count());
        for key in keys {
            // SAFETY: the buffer is on lines of 64 bytes, as the type of its elements says, and has `count` blocks of
            // 32.
            unsafe { split.ask.insert(begin.cast(), count, *key) };
        }
        Ok(split)
    }

    fn count(&self) -> usize {
        self.blocks.len() * 2
    }
}

impl Contestant for Split {
    fn contains(&self, key: u64) -> bool {
        // SAFETY: as where it was built.
        unsafe {
            self.ask
                .contains(self.blocks.as_ptr().cast(), self.count(), key)
        }
    }

    fn bits(&self) -> usize {
        self.blocks.iter().map(|line| line.0.len() * 8).sum()
    }
}

fn ours(keys: &[u64], share: f64) -> io::Result<FilterSet> {
    let rate = FalsePositiveRate::of_share(share);
    let rate = rate.ok_or(io::ErrorKind::InvalidInput)?;
    let shape = Shape::for_ids(keys.len() as u64, rate).map_err(io::Error::other)?;
    let mut builder = FilterBuilder::new(shape)?;
    builder.extend(keys.iter().copied());
    builder.finish()
}

impl Contestant for FilterSet {
    fn contains(&self, key: u64) -> bool {
        FilterSet::contains(self, key)
    }

    fn bits(&self) -> usize {
        self.shape().bytes() as usize * 8
    }

    fn mapped(&self) -> usize {
        self.shape().bytes() as usize
    }

    fn four(&self, keys: [u64; 4]) -> u64 {
        let probes = keys.map(|key| self.probe(key));
        let found = probes.map(|probe| self.contains_at(probe).map_or(0, u64::from));
        found.iter().sum()
    }
}

impl Contestant for xorf::BinaryFuse8 {
    fn contains(&self, key: u64) -> bool {
        xorf::Filter::contains(self, &key)
    }

    fn bits(&self) -> usize {
        self.len() * 8
    }
}

impl Contestant for xorf::BinaryFuse16 {
    fn contains(&self, key: u64) -> bool {
        xorf::Filter::contains(self, &key)
    }

    fn bits(&self) -> usize {
        self.len() * 16
    }
}

impl Report {
    /// As a table for people, in Markdown.
    pub fn table(&self) -> String {
        let mut out = format!("{} keys\n\n", self.keys);
        out.push_str("| structure | asked for | bits a key | false positives | miss ns | hit ns | batch of 4, ns each | build s | build bytes a key |\n");
        out.push_str("|---|---|---|---|---|---|---|---|---|\n");
        for row in &self.rows {
            let percent = |share: f64| format!("{:.4} %", share * 100.0);
            let measured = |value: f64, digits: usize| match value.is_nan() {
                true => String::new(),
                false => format!("{value:.digits$}"),
            };
            let asked = row.declared.map(|share| format!("{} %", share * 100.0));
            let _ = writeln!(
                out,
                "| {} | {} | {:.1} | {} | {:.0} | {:.0} | {:.0} | {} | {} |",
                row.name,
                asked.unwrap_or_default(),
                row.bits,
                if row.false_rate.is_nan() {
                    String::new()
                } else {
                    percent(row.false_rate)
                },
                row.miss_ns,
                row.hit_ns,
                row.batch_ns,
                measured(row.build_seconds, 2),
                measured(row.build_bytes, 1),
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_structure_is_measured() {
        let report = run(Effort::TINY).expect("a comparison");
        assert_eq!(report.rows.len(), 1 + 4 * DECLARED.len() + 2);
        for row in report.rows.iter().skip(1) {
            let told = format!("{row:?}");
            assert!(
                row.bits > 5.0 && row.miss_ns > 0.0 && row.batch_ns > 0.0,
                "{told}"
            );
            // Ten thousand probes of small filters: near enough.
            assert!(
                row.false_rate < 3.0 * row.declared.unwrap_or(0.01).max(0.001),
                "{told}"
            );
            if row.name == "kith" {
                assert!(
                    Some(row.false_rate) <= row.declared.map(|share| share.max(0.0005)),
                    "{told}"
                );
            }
        }
        assert!(report.table().lines().count() == report.rows.len() + 4);
    }
}
