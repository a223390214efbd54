//! How long each part of a decision takes, one core, one thread: `cargo bench -p bench --bench times`.
//!
//! An iteration is a part's pass over its hundred requests; the column of items is requests a second. Under `cargo bench` the scene is
//! that of published figures (a million people, which takes a while to build); anywhere else, as in the tests, it is small and each part
//! runs once.
#![allow(missing_docs, reason = "a bench target has no interface")]

use std::cell::RefCell;

use bench::parts::{Bench, PARTS, REQUESTS};
use bench::scene::Size;
use divan::Bencher;
use divan::counter::ItemsCount;

thread_local! {
    // Built once for all parts, on the thread that divan runs benches on.
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

fn main() {
    divan::main();
}

/// Cargo says which of its commands runs us by this argument alone.
fn size() -> Size {
    if std::env::args().any(|arg| arg == "--bench") {
        Size::FULL
    } else {
        // nextest builds it anew for each part.
        Size {
            people: 200,
            line_items: 50,
        }
    }
}

#[divan::bench(args = PARTS.map(|(name, _)| name))]
fn part(bencher: Bencher<'_, '_>, name: &str) {
    let (_, part) = PARTS
        .into_iter()
        .find(|(other, _)| *other == name)
        .expect("one of the parts");
    BENCH.with_borrow_mut(|bench| {
        let bench = bench.get_or_insert_with(|| Bench::new(size()).expect("the scene"));
        bencher
            .counter(ItemsCount::new(REQUESTS))
            .bench_local(|| part(bench));
    });
}
