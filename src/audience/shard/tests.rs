//! Shards of any ids, however many, however alike and however long their sets are.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]

use proptest::prelude::*;

use super::super::bits::{Bits, Nonsense};
use super::super::code::{Contexts, Expiry, Membership, Sample, Shape};
use super::bin::{length_at, sum_of, sum_of_nibbles};
use super::*;

const SEGMENTS: u32 = 3000;

fn code(delta: bool) -> Code {
    let shape = Shape {
        segments: SEGMENTS,
        may_be_empty: delta,
        expiry: Expiry::Unused,
        contexts: Contexts::ByState,
    };
    let mut sample = Sample::default();
    sample.push(&set(3, 0));
    sample.push(&set(1, 7));
    sample.plan(shape, 6).expect("a code").0
}

/// So many segments, from this one on.
fn set(count: u32, from: u32) -> Vec<Membership> {
    let ranks = (0..count).map(|n| (from + 3 * n) % SEGMENTS);
    let mut set: Vec<Membership> = ranks
        .map(|rank| Membership {
            rank,
            expires: None,
        })
        .collect();
    set.sort_unstable_by_key(|membership| membership.rank);
    set
}

/// A hash that depends on all of the number.
fn hashed(number: u64) -> Hashed {
    Hashed {
        spread: mixed(number, 1),
        check: mixed(number, 2),
    }
}

/// Ids with their sets, to be written.
fn placed(ids: &[(Hashed, Vec<Membership>)], delta: bool) -> (Vec<Placed>, Vec<Membership>) {
    let mut all = Vec::new();
    let ids = ids.iter().map(|(hashed, set)| {
        let from = all.len();
        all.extend_from_slice(set);
        let to = all.len();
        let deleted = delta && hashed.check & 1 == 0;
        if delta && !deleted {
            all.extend_from_slice(set);
        }
        Placed {
            hashed: *hashed,
            set: from..to,
            removed: to..all.len(),
            deleted,
        }
    });
    (ids.collect(), all)
}

fn ranks(layout: &Layout, mut bits: Bits<'_>) -> Vec<u32> {
    let mut ranks = Vec::new();
    if layout.delta {
        bits.take(1);
    }
    layout
        .code
        .walk(&mut bits, |rank, _| ranks.push(rank))
        .expect("a set");
    ranks
}

/// Goes past what a delta, or a full version, has of an id.
fn pass<'a>(layout: &Layout, mut bits: Bits<'a>) -> Result<Bits<'a>, Nonsense> {
    let sets = match layout.delta && bits.take(1) == 0 {
        true => 2,
        false => 1,
    };
    layout.code.skip(&mut bits, sets)?;
    Ok(bits)
}

fn check(layout: &Layout, geometry: Geometry, bytes: &[u8], ids: &[(Hashed, Vec<Membership>)]) {
    let shard = Shard {
        layout,
        geometry,
        bytes,
    };
    let mut count = 0;
    let length = shard.verify(0, |_, bits| {
        count += 1;
        pass(layout, bits)
    });
    assert_eq!(length, Ok(bytes.len()));
    assert_eq!(count, ids.len());
    for (hashed, set) in ids {
        let bits = shard.find(*hashed).expect("sense").expect("it is there");
        let wanted: Vec<u32> = set.iter().map(|membership| membership.rank).collect();
        assert_eq!(ranks(layout, bits), wanted);
        // The short way gives the same, or says that there is more to know.
        let bins = Bins::of(layout, geometry, *hashed).expect("bins");
        let (mut at, word) = (bins.first, bins.word);
        let mut seen = see(layout, &bytes[at..], word, *hashed).expect("sense");
        if seen == Seen::Elsewhere {
            at = bins.second;
            seen = see(layout, &bytes[at..], word.in_second(), *hashed).expect("sense");
        }
        match seen {
            Seen::At(position) => {
                let bits = bits_at(layout, &bytes[at..], position).expect("sense");
                assert_eq!(ranks(layout, bits), wanted);
            }
            Seen::Outside => {}
            Seen::Elsewhere | Seen::Absent => panic!("it is there"),
        }
    }
    for other in 0..200 {
        let hashed = hashed(u64::MAX - other);
        assert!(matches!(shard.find(hashed), Ok(None)));
    }
}

/// What is behind a shard in memory.
fn with_more(mut bytes: Vec<u8>) -> (Vec<u8>, usize) {
    let length = bytes.len();
    bytes.extend([0xa5; 64]);
    (bytes, length)
}

fn ids(sizes: &[u32], alike: u32) -> Vec<(Hashed, Vec<Membership>)> {
    let numbers = sizes.iter().zip(0u64..);
    let ids = numbers.map(|(size, number)| {
        let mut hashed = hashed(number);
        // The fewer bits differ, the more ids share cells, bins and tags.
        hashed.spread &= !0u64.checked_shr(alike).unwrap_or(0);
        (hashed, set(*size, number as u32 % SEGMENTS))
    });
    let mut ids: Vec<_> = ids.collect();
    ids.sort_by_key(|(hashed, _)| *hashed);
    ids
}

proptest! {
    #[test]
    fn an_id_is_found_in_a_shard_of_any_size(
        sizes in prop::collection::vec(prop_oneof![8 => 1u32..30, 1 => 100u32..600], 1..700),
        mean in prop_oneof![Just(2.0), Just(40.0), Just(90.0), Just(400.0), Just(5000.0)],
        delta: bool,
        alike in 6u32..64,
    ) {
        let layout = Layout::of(code(delta), mean, delta, 0);
        let ids = ids(&sizes, alike);
        let (placed, all) = placed(&ids, delta);
        let mut bytes = Vec::new();
        let entry = ShardWriter::default().write(&layout, &placed, &all, &mut bytes).expect("room");
        prop_assert!(entry.is_sound());
        prop_assert_eq!(Entry::decode(entry.encode()), entry);
        check(&layout, entry.geometry, &bytes, &ids);
        let (bytes, length) = with_more(bytes);
        let shard = Shard { layout: &layout, geometry: entry.geometry, bytes: &bytes };
        prop_assert_eq!(shard.verify(0, |_, bits| pass(&layout, bits)), Ok(length));
    }

    /// What a shard has of its ids is enough to lay them out anew, some of them gone and others longer.
    #[test]
    fn a_shard_is_laid_out_anew_from_what_it_has(
        sizes in prop::collection::vec(1u32..30, 20..600),
        keep in 1usize..5,
        longer in 0u32..60,
    ) {
        let layout = Layout::of(code(false), 80.0, false, 0);
        let ids = ids(&sizes, 64);
        let (placed_ids, all) = placed(&ids, false);
        let mut bytes = Vec::new();
        let mut writer = ShardWriter::default();
        let entry = writer.write(&layout, &placed_ids, &all, &mut bytes).expect("room");
        let shard = Shard { layout: &layout, geometry: entry.geometry, bytes: &bytes };
        let mut spots = Vec::new();
        shard.each(|stored, bits| {
            let Stored::Spot(spot) = stored else { panic!("a full version") };
            spots.push(spot);
            pass(&layout, bits)
        }).expect("sense");
        let mut known: Vec<Spot> = ids.iter().map(|(hashed, _)| hashed.spot(0, entry.geometry)).collect();
        known.sort_unstable();
        spots.sort_unstable();
        prop_assert_eq!(&spots, &known);
        // One in `keep` stays, with more segments.
        let kept: Vec<(Hashed, Vec<Membership>)> = ids.iter().step_by(keep)
            .map(|(hashed, own)| (*hashed, set(own.len() as u32 + longer, 1)))
            .collect();
        let spots = kept.iter().map(|(hashed, _)| hashed.spot(0, entry.geometry));
        let (placed_ids, all) = placed(&kept, false);
        let mut bytes = Vec::new();
        let anew = writer.write_spots(&layout, entry.geometry, spots, &placed_ids, &all, &mut bytes).expect("room");
        prop_assert!(anew.is_sound());
        check(&layout, anew.geometry, &bytes, &kept);
    }
}

#[test]
fn ids_that_are_one_in_their_shard_are_mixed_anew() {
    let layout = Layout::of(code(false), 20.0, false, 0);
    // Below the bits of cells and fingerprints they differ.
    let twins = [1u64, 2].map(|low| {
        let hashed = Hashed {
            spread: 7 << 60 | low,
            check: 9 << 60 | low,
        };
        (hashed, set(1, low as u32))
    });
    let (placed, all) = placed(&twins, false);
    let mut bytes = Vec::new();
    let entry = ShardWriter::default().write(&layout, &placed, &all, &mut bytes);
    let entry = entry.expect("apart");
    assert_eq!(entry.geometry.mixing, 1);
    check(&layout, entry.geometry, &bytes, &twins);
}

#[test]
fn every_bit_of_a_shard_counts() {
    for (mean_bits, length_bits) in [(3.0, 0), (16.0, 4), (80.0, 8)] {
        let layout = Layout::of(code(false), mean_bits, false, 0);
        assert_eq!(layout.bins.length_bits, length_bits);
        every_bit_counts(&layout);
    }
}

fn every_bit_counts(layout: &Layout) {
    let sizes: Vec<u32> = (0..60)
        .map(|n| if n % 20 == 0 { 300 } else { n % 25 + 1 })
        .collect();
    let ids = ids(&sizes, 64);
    let (placed, all) = placed(&ids, false);
    let mut bytes = Vec::new();
    let entry = ShardWriter::default().write(layout, &placed, &all, &mut bytes);
    let geometry = entry.expect("room").geometry;
    let described = |bytes: &[u8]| {
        let shard = Shard {
            layout,
            geometry,
            bytes,
        };
        let mut all = Vec::new();
        let length = shard.verify(0, |stored, bits| {
            let mut end = bits;
            let mut ranks = Vec::new();
            layout.code.walk(&mut end, |rank, _| ranks.push(rank))?;
            all.push((format!("{stored:?}"), ranks));
            Ok(end)
        });
        length.map(|length| (length, all))
    };
    let sound = described(&bytes).expect("as it was written");
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            // Another version, which a checksum tells, or none; never the same twice.
            if let Ok(other) = described(&bytes) {
                assert_ne!(other, sound, "byte {at} bit {bit}");
            }
            bytes[at] ^= 1 << bit;
        }
    }
}

#[test]
fn sums_of_lengths() {
    let lengths: Vec<u8> = (0..40).map(|n| 255 - n * 3).collect();
    for count in 0..=40 {
        let sum = lengths[..count]
            .iter()
            .map(|length| u32::from(*length))
            .sum::<u32>();
        assert_eq!(sum_of(&lengths, count), sum);
    }
    assert_eq!(sum_of(&[255; 16], 16), 255 * 16);
    assert_eq!(sum_of(&[1, 2, 3], 2), 3);
}

#[test]
fn sums_of_nibbles() {
    let lengths: Vec<u8> = (0..40).map(|n| 255 - n * 6).collect();
    for count in 0..=80 {
        let sum = (0..count).map(|at| u32::from(lengths[at / 2]) >> (4 * (at % 2)) & 0xf);
        assert_eq!(sum_of_nibbles(&lengths, count), sum.sum::<u32>());
    }
    assert_eq!(sum_of_nibbles(&[255; 16], 32), 15 * 32);
    assert_eq!(sum_of_nibbles(&[0x21, 0x43], 3), 6);
    assert_eq!(length_at(&[0x21, 0x43], 4, 2), 3);
    assert_eq!(length_at(&[0x21, 0x43], 8, 1), 0x43);
}
