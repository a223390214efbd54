//! What the next bits of a set mean, and which code is in force behind them.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::super::bits::AT_ONCE;
use super::{
    CODE_BITS, END, GAP_SYMBOLS, INDEX_CONTEXT, SECOND_CODE_BITS, SECOND_INDEX_SLOT, SHARED,
    TABLES, gap_of, next_state,
};

/// What the next bits mean: bits 0 to 5 how many of them are taken, 6 to 10 the state behind, 11 the end, 12 a set of the
/// dictionary, 13 to 18 how many of the bits taken are the code, 19 to 24 the symbol. A shift by the word as it is, or by what
/// is left of it from bit 13 on, is one by the number in its lowest six bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u32);

const ENTRY_STATE_SHIFT: u32 = 6;
const ENTRY_STATE: u32 = 0x1f << ENTRY_STATE_SHIFT;
const ENTRY_END: u32 = 1 << 11;
const ENTRY_SHARED: u32 = 1 << 12;
/// Most bits that an entry takes: a code, and what follows of the largest gaps. Two fit a word.
const TAKEN_MAX: u32 = SECOND_CODE_BITS + 14;
const _: () = assert!(2 * TAKEN_MAX <= AT_ONCE);

/// The least gap of each symbol.
static LEAST: [u32; 64] = {
    let mut least = [0; 64];
    let mut symbol = 0;
    while symbol < GAP_SYMBOLS {
        #[allow(clippy::indexing_slicing, reason = "it is compiled or it is not")]
        {
            least[symbol] = gap_of(symbol).0;
        }
        symbol = symbol.wrapping_add(1);
    }
    least
};

impl Entry {
    /// Of nothing: what ends a set.
    pub(super) const END: Self = Self(ENTRY_END);

    pub(super) fn of(symbol: usize, length: u8, state: u32) -> Self {
        let (_, extra) = gap_of(symbol);
        let kind = match symbol {
            END => ENTRY_END,
            SHARED => ENTRY_SHARED,
            _ => 0,
        };
        let length = u32::from(length);
        let next = next_state(state, symbol) << ENTRY_STATE_SHIFT;
        Self((symbol as u32) << 19 | length << 13 | kind | next | extra.saturating_add(length))
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
        let least = LEAST.get((self.0 >> 19) as usize & 63);
        let least = least.copied().unwrap_or(0);
        least.wrapping_add(own.wrapping_shr(self.0 >> 13) as u32)
    }

    #[inline(always)]
    pub(super) fn is_gap(self) -> bool {
        self.0 & (ENTRY_END | ENTRY_SHARED) == 0
    }

    #[inline(always)]
    pub(super) fn is_shared(self) -> bool {
        self.0 & ENTRY_SHARED != 0
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
    const INDEX: Self = Self((INDEX_CONTEXT as u32) << ENTRY_STATE_SHIFT);

    #[inline(always)]
    fn entry(self, table: &[Entry; TABLES], word: u64) -> Entry {
        let own = self.0 << (CODE_BITS - ENTRY_STATE_SHIFT);
        entry(table, own as usize | word as usize & ((1 << CODE_BITS) - 1))
    }

    #[inline(always)]
    fn behind(entry: Entry, _: u32) -> Self {
        Self(entry.0 & ENTRY_STATE)
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
