//! A set of small numbers, reused from request to request.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Bits over numbers 0 to some count. Numbers beyond are never in it.
#[derive(Debug, Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Empties it and makes room for `count` numbers.
    pub(super) fn clear(&mut self, count: usize) {
        self.0.clear();
        self.0.resize(count.div_ceil(64), 0);
    }

    pub(super) fn insert(&mut self, number: u32) {
        if let Some(word) = usize::try_from(number / 64)
            .ok()
            .and_then(|word| self.0.get_mut(word))
        {
            *word |= 1u64.rotate_left(number % 64);
        }
    }

    pub(super) fn remove(&mut self, number: u32) {
        if let Some(word) = usize::try_from(number / 64)
            .ok()
            .and_then(|word| self.0.get_mut(word))
        {
            *word &= !1u64.rotate_left(number % 64);
        }
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        let word = usize::try_from(number / 64)
            .ok()
            .and_then(|word| self.0.get(word));
        word.is_some_and(|word| word & 1u64.rotate_left(number % 64) != 0)
    }

    /// Puts every number in.
    pub(super) fn fill(&mut self) {
        self.0.fill(u64::MAX);
    }

    /// The bits, number `n` in word `n / 64`.
    pub fn words(&self) -> &[u64] {
        &self.0
    }
}
