//! What the next bits of a set mean, and which code is in force behind them.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::super::bits::AT_ONCE;
use super::{
    CODE_BITS, CONTEXTS, END, INDEX_CONTEXT, SECOND_CODE_BITS, SECOND_INDEX_SLOT, SHARED, TABLES,
    gap_of, next_state,
};

/// What the next bits mean: bits 0 to 5 how many of them are taken, 6 to 10 how many of those are the code, 11 to 15 the state
/// behind, or [`END_STATE`] or [`SHARED_STATE`], 16 to 31 the least gap that it may be. A shift by the word as it is, or of half
/// as many bits by what is left of it from bit 6 on, is one by the number in its lowest bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u32);

const CODE_SHIFT: u32 = 6;
const STATE_SHIFT: u32 = 11;
const STATE: u32 = 0x1f << STATE_SHIFT;
const LEAST_SHIFT: u32 = 16;
/// Behind which there is a set of the dictionary.
const SHARED_STATE: u32 = 30;
/// Behind which there is nothing.
const END_STATE: u32 = 31;
const _: () = assert!(SHARED_STATE as usize >= CONTEXTS);
/// Most bits that an entry takes: a code, and what follows of the largest gaps. Two fit a word.
const TAKEN_MAX: u32 = SECOND_CODE_BITS + 14;
const _: () = assert!(2 * TAKEN_MAX <= AT_ONCE);

impl Entry {
    /// Of nothing: what ends a set.
    pub(super) const END: Self = Self(END_STATE << STATE_SHIFT);

    pub(super) fn of(symbol: usize, length: u8, state: u32) -> Self {
        let (least, extra) = gap_of(symbol);
        let next = match symbol {
            END => END_STATE,
            SHARED => SHARED_STATE,
            _ => next_state(state, symbol),
        };
        let length = u32::from(length);
        let taken = extra.saturating_add(length);
        Self(least << LEAST_SHIFT | next << STATE_SHIFT | length << CODE_SHIFT | taken)
    }

    /// How many bits it takes, of the code and of what follows.
    #[inline(always)]
    pub(super) fn taken(self) -> u32 {
        self.0 & 0x3f
    }

    /// What follows in the word.
    #[inline(always)]
    pub(super) fn behind(self, word: u64) -> u64 {
        word.wrapping_shr(self.0)
    }

    /// The gap, or the index, that the bits say; nothing of use where it is neither.
    #[inline(always)]
    pub(super) fn gap(self, word: u64) -> u32 {
        let own = word & !u64::MAX.wrapping_shl(self.0);
        let more = (own as u32).wrapping_shr(self.0 >> CODE_SHIFT);
        (self.0 >> LEAST_SHIFT).wrapping_add(more)
    }

    #[inline(always)]
    pub(super) fn is_gap(self) -> bool {
        self.0 & STATE < SHARED_STATE << STATE_SHIFT
    }

    #[inline(always)]
    pub(super) fn is_shared(self) -> bool {
        self.0 & STATE == SHARED_STATE << STATE_SHIFT
    }
}

/// Which code is in force, on the way through a set.
pub(super) trait Track: Copy {
    const START: Self;
    const INDEX: Self;
    /// What the next bits mean.
    fn entry(self, table: &[Entry; TABLES], word: u64) -> Entry;
    /// Behind an entry, where the next gap counts from this rank.
    fn behind(entry: Entry, next: u32) -> Self;
}

/// By the state, as an entry has it.
#[derive(Clone, Copy)]
pub(super) struct ByState(u32);

/// By the rank.
#[derive(Clone, Copy)]
pub(super) struct ByRank(u32);

impl Track for ByState {
    const START: Self = Self(0);
    const INDEX: Self = Self((INDEX_CONTEXT as u32) << STATE_SHIFT);

    #[inline(always)]
    fn entry(self, table: &[Entry; TABLES], word: u64) -> Entry {
        let own = self.0 >> (STATE_SHIFT - CODE_BITS);
        entry(table, own as usize | word as usize & ((1 << CODE_BITS) - 1))
    }

    #[inline(always)]
    fn behind(entry: Entry, _: u32) -> Self {
        Self(entry.0 & STATE)
    }
}

impl Track for ByRank {
    const START: Self = Self(0);
    // The highest bit of a number with so many zeros before it.
    const INDEX: Self = Self(1 << (31 - SECOND_INDEX_SLOT));

    #[inline(always)]
    fn entry(self, table: &[Entry; TABLES], word: u64) -> Entry {
        let own = (self.0.leading_zeros() as usize) << SECOND_CODE_BITS;
        entry(table, own | word as usize & ((1 << SECOND_CODE_BITS) - 1))
    }

    #[inline(always)]
    fn behind(_: Entry, next: u32) -> Self {
        Self(next)
    }
}

#[inline(always)]
fn entry(table: &[Entry; TABLES], at: usize) -> Entry {
    // Every place below `TABLES` is there.
    let entry = table.get(at & (TABLES - 1));
    entry.copied().unwrap_or(Entry::END)
}
