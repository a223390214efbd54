//! Keys of objects as two words, so that a `match` over known keys is a search among integers.
//!
//! A key is its bytes, padded with zeros; keys that are longer or hold a zero byte are none that anybody asks for, and
//! all look the same. Cost: two words; a `match` of 22 keys is about five comparisons.

use super::scan::BLOCK;

/// A key of at most 16 bytes, or [`Key::OTHER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    head: u64,
    tail: u64,
}

/// For each length, the bytes that belong to the key.
const MASKS: [u128; BLOCK] = {
    let mut masks = [0; BLOCK];
    let mut length = 1;
    #[allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "at compile time"
    )]
    while length < BLOCK {
        masks[length] = masks[length - 1] << 8 | 0xff;
        length += 1;
    }
    masks
};

impl Key {
    /// Any key that is longer than a known one can be. Its bytes are no text.
    pub const OTHER: Self = Self {
        head: u64::MAX,
        tail: u64::MAX,
    };

    /// No key: the object ended. A zero byte before others is in no key.
    pub(super) const END: Self = Self { head: 0, tail: 1 };

    /// No key: what is there is not JSON.
    pub(super) const BROKEN: Self = Self { head: 0, tail: 2 };

    /// Whether it is a key, and neither [`Key::END`] nor [`Key::BROKEN`].
    #[inline(always)]
    pub(super) fn is_key(self) -> bool {
        self.head != 0 || self.tail == 0
    }

    /// The key of that name; [`Key::OTHER`] when it is over 16 bytes or holds a zero byte.
    pub const fn new(name: &str) -> Self {
        let mut bytes = name.as_bytes();
        let mut bits = 0u128;
        if bytes.len() > BLOCK {
            return Self::OTHER;
        }
        while let Some((&last, rest)) = bytes.split_last() {
            if last == 0 {
                return Self::OTHER;
            }
            bits = bits << 8 | last as u128;
            bytes = rest;
        }
        Self::from_bits(bits)
    }

    /// The first `length` bytes of a block, under 16, none of which is zero.
    #[inline(always)]
    pub(super) fn from_block(block: &[u8; BLOCK], length: usize) -> Option<Self> {
        Some(Self::from_bits(
            u128::from_le_bytes(*block) & MASKS.get(length)?,
        ))
    }

    #[inline(always)]
    const fn from_bits(bits: u128) -> Self {
        Self {
            head: bits as u64,
            tail: (bits >> 64) as u64,
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_a_known_key_is_other() {
        assert_ne!(Key::new("private_auction"), Key::OTHER);
        assert_ne!(Key::new("sixteen_bytes_ok"), Key::OTHER);
        assert_eq!(Key::new("seventeen_bytes_x"), Key::OTHER);
        assert_eq!(Key::new("id\0"), Key::OTHER);
        assert_eq!(Key::from_block(b"0123456789abcdef", BLOCK), None);
    }

    proptest! {
        #[test]
        fn keys_are_equal_where_their_names_are(a in "[a-cé]{0,9}", b in "[a-cé]{0,9}", rest in any::<[u8; BLOCK]>()) {
            let known = |name: &str| name.len() <= BLOCK;
            prop_assume!(known(&a) && known(&b));
            prop_assert_eq!(Key::new(&a) == Key::new(&b), a == b);
            // What follows the key in the block does not matter.
            if a.len() < BLOCK {
                let mut block = rest;
                block[..a.len()].copy_from_slice(a.as_bytes());
                prop_assert_eq!(Key::from_block(&block, a.len()), Some(Key::new(&a)));
            }
        }
    }
}
