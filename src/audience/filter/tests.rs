#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]

use proptest::prelude::*;

use super::shape::rate_at;
use super::*;

fn rate(share: f64) -> FalsePositiveRate {
    FalsePositiveRate::of_share(share).expect("a rate")
}

/// The hashes of so many ids under a seed.
fn hashes(seed: u64, ids: u64) -> impl Iterator<Item = u64> {
    // Not the sequence that rates are measured on: that one counts in steps of `SPREAD`.
    (0..ids).map(move |n| mixed(mixed(seed) ^ n))
}

fn builder(shape: Shape, hashes: impl IntoIterator<Item = u64>) -> FilterBuilder {
    let mut builder = FilterBuilder::new(shape).expect("memory");
    builder.extend(hashes);
    builder
}

fn filter(ids: u64, share: f64, seed: u64) -> FilterSet {
    let shape = Shape::for_ids(ids, rate(share)).expect("a shape");
    builder(shape, hashes(seed, ids))
        .finish()
        .expect("a filter")
}

#[test]
fn all_that_were_inserted_are_in() {
    for (ids, share) in [(1, 0.0001), (2, 0.1), (1_000, 0.01), (100_000, 0.001)] {
        let filter = filter(ids, share, 1);
        assert!(hashes(1, ids).all(|hash| filter.contains(hash)), "{ids}");
    }
}

/// Of every size and rate the real rate is at most the declared one. It is measured on few probes here, since this is
/// not optimised: what is counted may be five deviations over what the declared rate gives, which by chance alone
/// happens once in three and a half million. Seeds are fixed, so that the test never fails by chance.
#[test]
fn no_rate_is_worse_than_declared() {
    let probes = 50_000;
    for share in [0.1, 0.01, 0.001, 0.0001] {
        for ids in [1, 3, 40, 500, 6_000, 100_000] {
            let found = filter(ids, share, 7).false_positives_among(probes, 3) as f64;
            let declared = share * probes as f64;
            let most = declared + 5.0 * declared.sqrt();
            assert!(found <= most, "{ids} ids at {share}: {found} of {probes}");
        }
    }
}

/// As activation measures it, on a million probes and without any allowance.
#[test]
fn an_honest_filter_is_measured_no_worse_than_declared() {
    for (ids, share) in [(2_000, 0.01), (200_000, 0.001)] {
        let measured = filter(ids, share, 5).measured_rate(1);
        assert!(measured <= share, "{ids} ids at {share}: {measured}");
    }
}

/// The formula is what filters do, to five deviations of the count and two hundredths for what loads are by luck.
#[test]
fn the_measured_rate_is_the_computed_one() {
    let (ids, probes) = (200_000, 200_000);
    for share in [0.1, 0.01, 0.001] {
        let filter = filter(ids, share, 11);
        let computed = rate_at(ids as f64 / filter.shape().blocks() as f64);
        let expected = computed * probes as f64;
        let found = filter.false_positives_among(probes, 5) as f64;
        let apart = (found - expected).abs();
        assert!(
            apart < 5.0 * expected.sqrt() + 0.02 * expected,
            "{share}: {found}, not {expected}"
        );
        assert!(computed < share, "{share}");
    }
}

/// What the docs say a filter takes.
#[test]
fn bits_an_id() {
    let bits = |share: f64| {
        let ids = 100_000_000;
        let shape = Shape::for_ids(ids, rate(share)).expect("a shape");
        (shape.bytes() as f64 * 80.0 / ids as f64).round() / 10.0
    };
    let all = [0.1, 0.01, 0.001, 0.0001].map(bits);
    assert_eq!(all, [5.9, 10.2, 16.2, 25.8]);
}

#[test]
fn how_many_ids_went_in_can_be_told() {
    for (ids, share) in [(100_000, 0.01), (300_000, 0.0001)] {
        let estimated = filter(ids, share, 2).estimated_ids();
        let off = estimated / ids as f64 - 1.0;
        assert!(off.abs() < 0.005, "{ids}: {estimated}");
    }
    let shape = Shape::for_ids(10, rate(0.01)).expect("a shape");
    let empty = builder(shape, []).finish().expect("a filter");
    assert_eq!(empty.estimated_ids(), 0.0);
    // Ten times as many ids as it was made for: found by both.
    let shape = Shape::for_ids(10_000, rate(0.01)).expect("a shape");
    let overfull = builder(shape, hashes(1, 100_000))
        .finish()
        .expect("a filter");
    assert!(overfull.measured_rate(1) > 0.5);
    assert!(overfull.estimated_ids() > 90_000.0);
}

#[test]
fn rates_out_of_range_are_none() {
    for share in [0.0, -0.01, 0.000_09, 0.11, 1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(FalsePositiveRate::of_share(share), None, "{share}");
    }
    let shown = [0.1, 0.01, 0.001, 0.0001, 0.0025].map(|share| rate(share).to_string());
    assert_eq!(shown, ["10 %", "1 %", "0.1 %", "0.01 %", "0.25 %"]);
    for ids in [0, (1 << 40) + 1] {
        assert_eq!(
            Shape::for_ids(ids, FalsePositiveRate::MIN),
            Err(ShapeRefused { ids })
        );
    }
    let largest = Shape::for_ids(1 << 40, FalsePositiveRate::MIN).expect("a shape");
    assert!(largest.bytes() > 1 << 41, "{largest:?}");
}

/// What a sample says and what the bits say are the same, also of a filter that is worse than declared.
#[test]
fn the_expected_rate_is_the_measured_one() {
    let shape = Shape::for_ids(20_000, rate(0.01)).expect("a shape");
    for ids in [100, 20_000, 60_000] {
        let set = builder(shape, hashes(3, ids)).finish().expect("a filter");
        let (probes, expected) = (200_000, set.expected_rate());
        let found = set.false_positives_among(probes, 9) as f64;
        let expected = expected * probes as f64;
        assert!(
            (found - expected).abs() <= 5.0 * expected.sqrt() + 1.0,
            "{ids}: {found}, not {expected}"
        );
    }
}

/// A probe of another set: no block, no answer, no panic.
#[test]
fn a_strange_probe_finds_nothing() {
    let (small, large) = (filter(1, 0.1, 1), filter(100_000, 0.0001, 1));
    assert_eq!(small.contains_at(large.probe(u64::MAX)), None);
}

#[test]
fn what_is_no_filter_is_refused() {
    let shape = Shape::for_ids(1_000, rate(0.01)).expect("a shape");
    let good = builder(shape, hashes(1, 1_000)).as_bytes().to_vec();
    assert_eq!(
        FilterSet::from_bytes(&good).expect("a filter").shape(),
        shape
    );
    let told = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        FilterSet::from_bytes(&bytes)
            .expect_err("no filter")
            .to_string()
    };
    let blocks = "contradicts itself: the number of blocks cannot be true";
    assert_eq!(
        told(&|b| b.truncate(63)),
        "is shorter than the head of a filter"
    );
    assert_eq!(told(&|b| b.truncate(64)), blocks);
    assert_eq!(told(&|b| b.push(0)), blocks);
    assert_eq!(
        told(&|b| b[0] = 2),
        "has structure 2, and this Kith reads 1"
    );
    assert_eq!(
        told(&|b| b[4..8].fill(255)),
        "contradicts itself: the rate cannot be true"
    );
    assert_eq!(told(&|b| b[8..16].fill(255)), blocks);
    assert_eq!(told(&|b| b[8..16].fill(0)), blocks);
    assert_eq!(
        told(&|b| b[16..24].fill(0)),
        "contradicts itself: the number of ids cannot be true"
    );
    for at in 24..64 {
        let reserved = told(&|b| b[at] = 1);
        assert_eq!(
            reserved, "contradicts itself: what is reserved cannot be true",
            "{at}"
        );
    }
    // A head without blocks, which says so.
    let mut none = good[..64].to_vec();
    none[8..16].fill(0);
    assert_eq!(
        FilterSet::from_bytes(&none)
            .expect_err("no block")
            .to_string(),
        blocks
    );
}

proptest! {
    /// Whatever is inserted, in whatever order and however often, is found, and makes the same bytes.
    #[test]
    fn order_and_repetition_leave_no_trace(
        ids in prop::collection::vec(any::<u64>(), 1..200),
        share in prop_oneof![Just(0.1), Just(0.01), Just(0.0001)],
        turn in any::<prop::sample::Index>(),
    ) {
        let shape = Shape::for_ids(ids.len() as u64, rate(share)).expect("a shape");
        let first = builder(shape, ids.iter().copied());
        let mut turned = ids.clone();
        turned.rotate_left(turn.index(ids.len()));
        let again = builder(shape, turned.iter().rev().chain(&ids).copied());
        prop_assert_eq!(first.as_bytes(), again.as_bytes());
        let read = FilterSet::from_bytes(first.as_bytes()).expect("a filter");
        prop_assert!(ids.iter().all(|hash| read.contains(*hash)));
    }

    /// Any bytes, and a good filter with any of its bytes changed or cut: an answer or a refusal.
    #[test]
    fn no_bytes_can_panic(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        put in prop::collection::vec(any::<u8>(), 0..9),
        cut in prop::option::of(any::<prop::sample::Index>()),
        asked in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let shape = Shape::for_ids(30, rate(0.01)).expect("a shape");
        let mut changed = builder(shape, hashes(1, 30)).as_bytes().to_vec();
        // Half of the changes where they tell most, in the head.
        let begin = match put.len() % 2 {
            0 => at.index(64),
            _ => at.index(changed.len()),
        };
        for (place, byte) in changed.iter_mut().skip(begin).zip(&put) {
            *place = *byte;
        }
        if let Some(cut) = cut {
            changed.truncate(cut.index(changed.len()));
        }
        for bytes in [noise, changed] {
            if let Ok(filter) = FilterSet::from_bytes(&bytes) {
                let answers = asked.iter().filter(|hash| filter.contains(**hash)).count();
                prop_assert!(answers <= asked.len());
                prop_assert!(filter.estimated_ids() >= 0.0);
            }
        }
    }
}
