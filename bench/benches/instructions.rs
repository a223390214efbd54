//! How many instructions each part of a decision takes, counted by callgrind: what `bench counts` runs and reads.
//!
//! Valgrind runs every instruction on a processor of its own, so that the same program over the same requests gives the same
//! count on a busy machine as on a quiet one. Each part runs in a process of its own; building the scene, and the first
//! pass of every part, which grows the scratch, lie before the count.
#![allow(missing_docs, reason = "a bench target has no interface")]
#![allow(clippy::disallowed_methods, reason = "gungraun's main exits")]

use bench::parts::{Bench, PARTS};
use bench::scene::Size;
use gungraun::{
    Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};

type Work = fn(&mut Bench) -> u64;

/// Before the count: the scene, warm, and which part is asked for.
fn warm(name: &str) -> (Work, &'static mut Bench) {
    let (_, work) = PARTS
        .into_iter()
        .find(|(other, _)| *other == name)
        .expect("one of the parts");
    let bench = Bench::new(Size::TINY).expect("the scene");
    // Leaked, so that freeing it is not counted.
    (work, Box::leak(Box::new(bench)))
}

// The ids are the names that `bench counts` reports; it misses a part that is not here.
#[library_benchmark(setup = warm)]
#[bench::read("read")]
#[bench::gate("gate")]
#[bench::lookup("lookup")]
#[bench::targeting("targeting")]
#[bench::decide("decide")]
#[bench::decide_no_bid("decide_no_bid")]
#[bench::respond("respond")]
fn part((work, bench): (Work, &'static mut Bench)) -> u64 {
    work(bench)
}

library_benchmark_group!(name = parts, benchmarks = part);

// Instructions alone: simulated caches are none that a request ever runs on.
main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = parts
);
