#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn shape(segments: u32, may_be_empty: bool) -> Shape {
    Shape {
        segments,
        may_be_empty,
        expiry: Expiry::Unused,
        contexts: Contexts::ByState,
    }
}

fn plain(ranks: &[u32]) -> Vec<Membership> {
    let never = |rank: &u32| Membership {
        rank: *rank,
        expires: None,
    };
    ranks.iter().map(never).collect()
}

fn code(shape: Shape, sets: &[Vec<Membership>]) -> Code {
    let mut sample = Sample::default();
    sets.iter().for_each(|set| sample.push(set));
    sample.plan(shape, sets.len() as u64).expect("a code").0
}

/// All sets through the code and back, by way of the bytes that say the code.
fn there_and_back(shape: &Shape, sets: &[Vec<Membership>], code: &Code) -> u64 {
    let mut said = Vec::new();
    code.encode(&mut said);
    let read = Code::decode(&said, shape.clone()).expect("what was written");
    let mut writer = BitWriter::default();
    sets.iter().for_each(|set| code.put(&mut writer, set));
    let length = writer.len();
    let mut bytes = Vec::new();
    writer.take(&mut bytes);
    let mut bits = Bits::new(&bytes);
    for set in sets {
        let mut found = Vec::new();
        let walked = read.walk(&mut bits, |rank, expires| {
            found.push(Membership { rank, expires })
        });
        assert_eq!((walked, &found), (Ok(()), set));
    }
    assert!(bits.is_at_end());
    length
}

#[test]
fn symbols_share_out_all_gaps() {
    let mut expected = 0;
    for symbol in 0..GAP_SYMBOLS {
        let (least, _) = gap_of(symbol);
        assert_eq!(least, expected, "symbol {symbol}");
        let largest = plan::largest_gap(symbol);
        assert_eq!((symbol_of(least), symbol_of(largest)), (symbol, symbol));
        expected = largest + 1;
    }
    assert_eq!(expected, 1 << 16);
}

#[test]
fn of_one_segment_a_set_takes_no_bits() {
    let sets = vec![plain(&[0]); 100];
    let code = code(shape(1, false), &sets);
    assert_eq!(there_and_back(&shape(1, false), &sets, &code), 0);
}

#[test]
fn a_set_that_many_have_is_written_once() {
    let long: Vec<u32> = (0..40).map(|n| n * 13).collect();
    let mut sets: Vec<Vec<Membership>> =
        (0..4000).map(|n| plain(&[n % 600, 600 + n % 91])).collect();
    sets.extend(vec![plain(&long); 4000]);
    let shape = shape(1000, false);
    let code = code(shape.clone(), &sets);
    assert!(code.shared_sets() > 0);
    let bits = there_and_back(&shape, &sets, &code);
    // Nine in ten of the memberships stand in the long one: it must not cost more than the short ones.
    assert!(bits < 8000 * 20, "{bits}");
}

#[test]
fn lengths_that_are_no_code_are_refused() {
    let sets: Vec<_> = (0..300).map(|n| plain(&[n % 7, 9 + n % 50])).collect();
    let shape = shape(100, false);
    let good = code(shape.clone(), &sets);
    let mut said = Vec::new();
    good.encode(&mut said);
    assert!(Code::decode(&said, shape.clone()).is_ok());
    let mut refused = 0;
    for at in 0..said.len() {
        for bit in 0..8 {
            let mut other = said.clone();
            other[at] ^= 1 << bit;
            refused += u32::from(Code::decode(&other, shape.clone()).is_err());
        }
    }
    // Every bit counts.
    assert_eq!(refused, said.len() as u32 * 8);
    assert!(Code::decode(&said[..said.len() - 1], shape.clone()).is_err());
    said.push(0);
    assert!(Code::decode(&said, shape).is_err());
}

fn sets(segments: u32, expiring: bool) -> impl Strategy<Value = Vec<Vec<Membership>>> {
    let rank = prop_oneof![3 => 0..segments.min(20), 1 => 0..segments];
    let expires =
        prop_oneof![3 => Just(None), i64::from(expiring) as u32 => (0i64..1 << 30).prop_map(Some)];
    let expires = expires.prop_map(move |at| at.filter(|_| expiring));
    let set = prop::collection::btree_map(rank, expires, 1..30.min(segments as usize + 1));
    let set = set.prop_map(|set: BTreeMap<u32, Option<i64>>| {
        set.into_iter()
            .map(|(rank, expires)| Membership { rank, expires })
            .collect()
    });
    prop::collection::vec(set, 1..60)
}

proptest! {
    /// A code made of some sets writes any others too.
    #[test]
    fn any_sets_are_read_as_they_were_written(
        (segments, sets, others, expiring) in (1u32..=65_535, any::<bool>())
            .prop_flat_map(|(segments, expiring)| (Just(segments), sets(segments, expiring), sets(segments, expiring), Just(expiring)))
    ) {
        let shape = Shape {
            expiry: if expiring { Expiry::Since { first: 0, bits: 30 } } else { Expiry::Unused },
            ..shape(segments, false)
        };
        let code = code(shape.clone(), &sets);
        there_and_back(&shape, &sets, &code);
        there_and_back(&shape, &others, &code);
    }

    /// Any bits at all: ascending ranks that there are, or nonsense; never a panic, never for ever.
    #[test]
    fn any_bits_are_a_set_or_nonsense(bytes in prop::collection::vec(any::<u8>(), 0..64), segments in 1u32..5000, sets in sets(50, false)) {
        let segments = segments.max(50);
        let code = code(shape(segments, true), &sets);
        let mut bits = Bits::new(&bytes);
        for _ in 0..64 {
            let mut ranks = Vec::new();
            if code.walk(&mut bits, |rank, _| ranks.push(rank)).is_err() {
                break;
            }
            prop_assert!(ranks.is_sorted_by(|a, b| a < b));
            prop_assert!(ranks.iter().all(|rank| *rank < segments));
        }
    }
}
