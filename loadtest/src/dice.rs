//! Seeded randomness: one generator, of an algorithm that is the same on every machine and in every release.
//!
//! Two kinds of use. A [`Dice`] is drawn from in order. [`mixed`] is a pure function of its input, for what must be
//! found again without remembering it: the id of the 8,000,000th row.

use rand::{RngExt as _, SeedableRng as _};

/// A seeded generator.
pub(crate) struct Dice(rand::rngs::ChaCha8Rng);

impl Dice {
    /// `stream` keeps apart what is made of one seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(rand::rngs::ChaCha8Rng::seed_from_u64(mixed(
            seed ^ mixed(stream),
        )))
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.0.random_bool(share.clamp(0.0, 1.0))
    }

    /// Below `end`; 0 if that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        if end == 0 {
            0
        } else {
            self.0.random_range(0..end)
        }
    }

    pub(crate) fn within(&mut self, bounds: std::ops::RangeInclusive<i64>) -> i64 {
        self.0.random_range(bounds)
    }

    /// From 0 up to 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.0.random()
    }

    pub(crate) fn bits(&mut self) -> u128 {
        self.0.random()
    }

    pub(crate) fn sample<T>(&mut self, distribution: impl rand_distr::Distribution<T>) -> T {
        distribution.sample(&mut self.0)
    }

    /// One of a table's entries, each as likely.
    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, table: &[T; N]) -> T {
        const { assert!(N > 0, "nothing to pick from") }
        table[self.below(N)]
    }

    /// One of a table's entries, by weight.
    pub(crate) fn weighted<T: Copy, const N: usize>(&mut self, table: &[(T, u32); N]) -> T {
        const { assert!(N > 0, "nothing to pick from") }
        let total: u32 = table.iter().map(|(_, weight)| weight).sum();
        let mut left = self.below(total as usize) as u32;
        for (entry, weight) in table {
            if left < *weight {
                return *entry;
            }
            left -= weight;
        }
        table[0].0
    }
}

impl std::fmt::Debug for Dice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dice")
    }
}

/// SplitMix64's finaliser: 64 bits that look random, from 64 that need not.
pub(crate) fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
