//! Values come back as they were; bytes that are none of ours are nothing, and take no memory.
//!
//! That what comes back is decided on as the request was, every test of decisions asks (`decision/tests/again.rs`).

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]

use proptest::prelude::*;

use super::*;

fn back<T: for<'a> Part<'a> + PartialEq + std::fmt::Debug>(value: T) {
    let arena = Bump::new();
    let mut room = [0; 64];
    let mut sink = Sink {
        left: &mut room,
        full: false,
        arena: &arena,
    };
    value.write(&mut sink);
    assert!(!sink.full);
    let length = 64 - sink.left.len();
    let mut source = Source {
        left: &room[..length],
        arena: &arena,
    };
    assert_eq!(T::read(&mut source), Some(value));
    assert!(source.left.is_empty());
}

#[test]
fn values_come_back() {
    for number in [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN] {
        back(number);
        back(Field::Value(number));
    }
    back(Field::<i64>::Unreadable);
    back(Option::<bool>::None);
    back(Some(true));
    back(Some(Currency::USD));
    for at in [
        AuctionType::First,
        AuctionType::Second,
        AuctionType::Fixed,
        AuctionType::Other,
    ] {
        back(at);
    }
    for placement in [
        Placement::Unknown,
        Placement::Site,
        Placement::App,
        Placement::Dooh,
    ] {
        back(placement);
    }
}

#[test]
fn small_numbers_are_short() {
    let arena = Bump::new();
    for (number, bytes) in [(0, 1), (-1, 1), (63, 1), (-64, 1), (64, 2), (i64::MIN, 10)] {
        let mut room = [0; 16];
        let mut sink = Sink {
            left: &mut room,
            full: false,
            arena: &arena,
        };
        number.write(&mut sink);
        assert_eq!(16 - sink.left.len(), bytes, "{number}");
    }
}

proptest! {
    #[test]
    fn any_number_comes_back(number: i64) {
        back(number);
    }

    #[test]
    fn any_bytes_are_read_in_bounds(bytes: Vec<u8>) {
        let arena = Bump::new();
        let _ = abridged(&bytes, &arena);
        // The most that a byte asks for is an imp.
        prop_assert!(arena.allocated_bytes() <= 4096 + bytes.len() * 4 * size_of::<Imp<'_>>());
    }
}
