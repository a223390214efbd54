//! One bucket, however full and however alike its fingerprints are.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::code::{Expiry, Sample, Shape};
use super::*;

/// A layout whose code was made for sets of one of three segments.
fn layout(lengths: bool) -> Layout {
    let shape = Shape {
        segments: 3,
        may_be_empty: false,
        expiry: Expiry::Unused,
    };
    let mut sample = Sample::default();
    for rank in [0, 0, 0, 1, 1, 2] {
        sample.push(&[Membership {
            rank,
            expires: None,
        }]);
    }
    let (code, _) = sample.plan(shape, 6).expect("a code");
    Layout {
        code,
        lengths,
        delta: false,
        shard_bits: 0,
    }
}

/// The bucket with these fingerprints, the one at place *i* in segment *i* modulo 3, and what else there is in memory.
fn bucket(layout: &Layout, fingerprints: &BTreeSet<u64>, behind: usize) -> (Vec<u8>, usize) {
    let memberships = [0, 1, 2].map(|rank| Membership {
        rank,
        expires: None,
    });
    let ids: Vec<Placed> = (0..fingerprints.len())
        .map(|at| Placed {
            hashed: Hashed {
                spread: 0,
                check: 0,
            },
            set: at % 3..at % 3 + 1,
            removed: 0..0,
            deleted: false,
        })
        .collect();
    let mut out = Vec::new();
    let places = fingerprints.iter().map(|fingerprint| (0, *fingerprint));
    let written = ShardWriter::default();
    let entry = { written }
        .write_placed(layout, (1, 0), places, &ids, &memberships, &mut out)
        .expect("written");
    out.drain(..entry.directory_bytes());
    let length = out.len();
    out.extend(std::iter::repeat_n(0xa5, behind));
    (out, length)
}

proptest! {
    #[test]
    fn an_id_is_found_in_a_bucket_of_any_size(
        of in prop::collection::btree_set((0u64..4, 0u64..200).prop_map(|(tag, rest)| rest << 8 | tag), 1..=255),
        lengths: bool,
        behind in 0usize..40,
    ) {
        let layout = layout(lengths);
        let (bytes, length) = bucket(&layout, &of, behind);
        let bucket = Bucket::parse(&layout, &bytes, length).expect("a bucket");
        for fingerprint in (0..4).flat_map(|tag| (0..200).map(move |rest| rest << 8 | tag)) {
            let hashed = Hashed { spread: 0, check: fingerprint << NOT_FINGERPRINT_BITS };
            let found = bucket.find(&layout, hashed, 0).expect("sense");
            let place = of.iter().position(|own| *own == fingerprint);
            prop_assert_eq!(found.is_some(), place.is_some());
            if let (Some(Found(mut bits)), Some(place)) = (found, place) {
                let mut ranks = Vec::new();
                layout.code.walk(&mut bits, |rank, _| ranks.push(rank)).expect("sense");
                prop_assert_eq!(ranks, [place as u32 % 3]);
            }
        }
        bucket.verify(&layout, |_, mut bits| {
            layout.code.walk(&mut bits, |_, _| {})?;
            Ok(bits)
        }).expect("as it is written");
    }
}
