//! Which requests are taken: one of each slice of time, each of a slice with the same chance.
//!
//! Algorithm L (Li 1994) for a reservoir of one: the first request of a slice is taken, and then the next that displaces it is
//! known beforehand, so that a request that is not taken costs a countdown. Of *n* requests about ln *n* are taken in turn;
//! the last one stays.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    Pass,
    /// Take it: a new slice begins.
    First,
    /// Take it in the place of the one that was taken before.
    Instead,
}

/// One thread's draw.
#[derive(Debug)]
pub(super) struct Reservoir {
    random: u64,
    /// When the slice ends; none has begun where there is none.
    ends: Option<Instant>,
    /// How many requests are passed over before the next one is taken.
    pass: u64,
    /// The greatest of the lots of those taken, in Algorithm L's terms.
    weight: f64,
}

impl Reservoir {
    pub(super) fn new() -> Self {
        Self::seeded(RandomState::new().hash_one(0u8))
    }

    pub(super) fn seeded(random: u64) -> Self {
        Self {
            random,
            ends: None,
            pass: 0,
            weight: 1.0,
        }
    }

    /// What to do with a request that comes now, where slices are so long.
    #[inline]
    pub(super) fn turn(&mut self, now: Instant, slice: Duration) -> Turn {
        if self.ends.is_some_and(|ends| now < ends) {
            if let Some(pass) = self.pass.checked_sub(1) {
                self.pass = pass;
                return Turn::Pass;
            }
            self.draw();
            return Turn::Instead;
        }
        self.ends = now.checked_add(slice);
        self.weight = 1.0;
        self.draw();
        Turn::First
    }

    /// How many are passed over, now that one was taken.
    #[cold]
    fn draw(&mut self) {
        self.weight *= self.lot();
        let passed = self.lot().ln() / (-self.weight).ln_1p();
        // What is too much for the type, or no number, is more than a slice has.
        self.pass = if passed.is_finite() {
            passed as u64
        } else {
            u64::MAX
        };
    }

    /// Over 0 and below 1.
    fn lot(&mut self) -> f64 {
        let bits = self.random() >> 12;
        (bits as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// SplitMix64.
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
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

    const SLICE: Duration = Duration::from_secs(1);

    #[test]
    fn each_request_of_a_slice_has_the_same_chance() {
        let start = Instant::now();
        let mut reservoir = Reservoir::seeded(7);
        let (requests, slices) = (20usize, 20_000u32);
        let mut kept = vec![0u32; requests];
        let mut turns = 0u32;
        for slice in 0..slices {
            let mut last = None;
            for request in 0..requests {
                let now = start + SLICE * slice + Duration::from_millis(request as u64);
                match reservoir.turn(now, SLICE) {
                    Turn::Pass => {}
                    Turn::First | Turn::Instead => {
                        turns += 1;
                        last = Some(request);
                    }
                }
            }
            kept[last.expect("one of each slice")] += 1;
        }
        let expected = slices / requests as u32;
        for (request, kept) in kept.iter().enumerate() {
            // Six standard deviations of a count of a thousand.
            assert!(kept.abs_diff(expected) < 190, "{request}: {kept}");
        }
        // The harmonic sum of 20 is 3.6.
        assert!((3.4..3.8).contains(&(f64::from(turns) / f64::from(slices))));
    }
}
