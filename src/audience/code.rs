//! How a set of segments is written: close to its entropy, and read back with one table look-up a membership.
//!
//! A set is its ranks in ascending order, each as the gap to the lowest rank that it could have, and an end. A gap is a
//! symbol (its order of magnitude and the bit behind) and the rest of its bits; symbols have Huffman codes of at most eight
//! bits. Which code is in force depends on about where the gap counts from: near rank 0, where the popular segments are, gaps
//! are small and ends are rare. About where is a *state*, which follows from the state before and the symbol alone: so the
//! processor need not know the rank before it looks up the next symbol, which is most of what taking a set apart waits for.
//! The codes come from the version's own sets, so whatever the shape of an audience, nobody has to guess a parameter. Where
//! many ids are in exactly the same segments, the set stands once in a dictionary, and a symbol of its own with an index
//! stands for it.
//!
//! A dataset of one segment has no choice of symbols, and its sets take no bits.
//!
//! Cost: docs/scale.md. Reading trusts nothing: any bits give ascending ranks below the number of segments, or
//! [`Nonsense`].

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod huffman;
mod plan;
mod track;

use std::sync::OnceLock;

use super::bits::{BitWriter, Bits, Nonsense};

use track::{ByRank, ByState, Entry, Track};

pub(super) use plan::Sample;

/// Gaps up to this one have a symbol each.
const SMALL_GAPS: u32 = 8;
/// Symbols of gaps: eight small ones, then two for each order of magnitude up to 2¹⁵.
const GAP_SYMBOLS: usize = 34;
const END: usize = 34;
const SHARED: usize = 35;
const SYMBOLS: usize = 36;
/// States 0 to 16, or in format 2 the length in bits of the rank that a gap counts from, and one for indexes of the dictionary.
const CONTEXTS: usize = 18;
const INDEX_CONTEXT: usize = 17;
/// The last state.
const STATE_MAX: u32 = 16;
/// Longest code of a symbol, in bits.
const CODE_BITS: u32 = 8;
/// The same in format 2.
const SECOND_CODE_BITS: u32 = 9;
/// What the tables of all contexts have room for: a power of two, so that no place has to be compared with the end.
const TABLES: usize = SLOTS << SECOND_CODE_BITS;
/// In format 2 a context's slot is the number of zeros before the rank that it counts from, in 32 bits, of which 32 are none.
const SLOTS: usize = 32;
/// There the slot of a rank that nothing counts from.
const SECOND_INDEX_SLOT: usize = 1;
/// Most sets that the dictionary holds.
pub(super) const SHARED_MAX: usize = 4096;

/// A membership as stored: the segment's rank, and the second it expires at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) rank: u32,
    pub(super) expires: Option<i64>,
}

/// When memberships expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Expiry {
    /// None ever does.
    #[default]
    Unused,
    /// Some do, so many seconds after the first of them as fit these bits.
    Since {
        /// Unix seconds of the first.
        first: i64,
        /// Bits of the distance from it, 1 to `track::AT_ONCE`.
        bits: u32,
    },
}

/// What of a code can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// How many segments there are, at least 1.
    pub(super) segments: u32,
    /// Whether a set may be empty, as in a delta.
    pub(super) may_be_empty: bool,
    pub(super) expiry: Expiry,
    /// What decides which code is in force.
    pub(super) contexts: Contexts,
}

/// What decides which code is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contexts {
    /// Format 2, which is not written any more: the length in bits of the rank.
    ByRank,
    /// Format 3: the state.
    ByState,
}

/// A code, ready for both directions.
#[derive(Debug)]
pub(super) struct Code {
    shape: Shape,
    /// By context: the length of each symbol's code; 0 where the symbol cannot come.
    lengths: [[u8; SYMBOLS]; CONTEXTS],
    /// By context: each symbol's code as it is written.
    codes: Box<[[u16; SYMBOLS]; CONTEXTS]>,
    /// By context and the next bits, one context after the other.
    table: Box<[Entry; TABLES]>,
    /// By context: how each gap below [`SHORT`] is written; made when first written.
    short: OnceLock<Box<[[Short; SHORT]; CONTEXTS]>>,
    shared: Shared,
}

/// Gaps that are looked up when they are written; nearly all are.
const SHORT: usize = 256;

/// A gap's bits, how many there are, and the state behind it.
#[derive(Debug, Clone, Copy, Default)]
struct Short {
    bits: u32,
    length: u32,
    next: usize,
}

/// The sets of the dictionary, one after the other.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shared {
    ranks: Vec<u16>,
    /// Where each ends.
    ends: Vec<u32>,
    places: std::collections::HashMap<Box<[u16]>, u32>,
    /// How many ranks the longest of them has.
    longest: usize,
}

/// The least gap of a symbol, and how many bits say how much more it is.
const fn gap_of(symbol: usize) -> (u32, u32) {
    let Some(beyond) = (symbol as u32).checked_sub(SMALL_GAPS) else {
        return (symbol as u32, 0);
    };
    if symbol >= GAP_SYMBOLS {
        return (0, 0);
    }
    let magnitude = (beyond >> 1).saturating_add(3);
    let extra = magnitude.saturating_sub(1);
    let least = (2 | beyond & 1) << extra;
    (least, extra)
}

/// The symbol of a gap, below 2¹⁶.
fn symbol_of(gap: u32) -> usize {
    let Some(magnitude) = gap.checked_ilog2().filter(|_| gap >= SMALL_GAPS) else {
        return gap as usize;
    };
    let half = gap >> magnitude.saturating_sub(1) & 1;
    let beyond = magnitude.saturating_sub(3).saturating_mul(2);
    SMALL_GAPS.saturating_add(beyond).saturating_add(half) as usize
}

/// The context of a gap that counts from this rank, in format 2: the rank's length in bits.
fn length_of(next: u32) -> u32 {
    u32::BITS.saturating_sub(next.leading_zeros())
}

/// The state behind a symbol: the length in bits of about the rank that comes next, if the state before stands for the least
/// rank of its length and the gap is the middle one of its symbol's.
fn next_state(state: u32, symbol: usize) -> u32 {
    let (least, extra) = gap_of(symbol);
    let from = 1u32.wrapping_shl(state) >> 1;
    let gap = least.saturating_add(1u32.wrapping_shl(extra) >> 1);
    length_of(from.saturating_add(gap).saturating_add(1)).min(STATE_MAX)
}

/// The lowest rank that a gap can count from in each state.
fn lowest_ranks() -> [u32; CONTEXTS] {
    let mut lowest = [u32::MAX; CONTEXTS];
    lowest[0] = 0;
    // No state comes before one that it follows.
    for state in 0..=STATE_MAX {
        let Some(from) = lowest.get(state as usize).copied() else {
            continue;
        };
        for symbol in 0..GAP_SYMBOLS {
            let rank = from.saturating_add(gap_of(symbol).0).saturating_add(1);
            if let Some(own) = lowest.get_mut(next_state(state, symbol) as usize) {
                *own = rank.min(*own);
            }
        }
    }
    lowest
}

impl Contexts {
    /// Longest code.
    fn code_bits(self) -> u32 {
        match self {
            Self::ByRank => SECOND_CODE_BITS,
            Self::ByState => CODE_BITS,
        }
    }

    /// Where a context's table begins.
    fn table_at(self, context: usize) -> usize {
        match self {
            Self::ByState => context << CODE_BITS,
            Self::ByRank => {
                let slot = match context {
                    INDEX_CONTEXT => SECOND_INDEX_SLOT,
                    bits => u32::BITS.saturating_sub(bits as u32) as usize % SLOTS,
                };
                slot << SECOND_CODE_BITS
            }
        }
    }
}

impl Shape {
    /// The lowest rank from which a gap can count in each context.
    fn lowest(&self) -> [u32; CONTEXTS] {
        match self.contexts {
            Contexts::ByState => lowest_ranks(),
            Contexts::ByRank => std::array::from_fn(|bits| 1u32.wrapping_shl(bits as u32) >> 1),
        }
    }

    /// The symbols that can come in a context, of which this is the lowest rank; `shared` is how many sets the dictionary has.
    fn symbols(
        &self,
        context: usize,
        lowest: u32,
        shared: usize,
    ) -> impl Iterator<Item = usize> + Clone {
        let largest = match context {
            INDEX_CONTEXT => (shared as u32).checked_sub(1),
            _ => self
                .segments
                .checked_sub(1)
                .and_then(|last| last.checked_sub(lowest)),
        };
        let may_be_empty = self.may_be_empty;
        let can_come = move |largest: u32, symbol: usize| match symbol {
            END => context != INDEX_CONTEXT && (context > 0 || may_be_empty),
            SHARED => context == 0 && shared > 0,
            _ => gap_of(symbol).0 <= largest,
        };
        (0..SYMBOLS).filter(move |symbol| largest.is_some_and(|largest| can_come(largest, *symbol)))
    }
}

impl Code {
    /// A code of these lengths; nothing where they are not those of a whole code for just the symbols that can come.
    fn new(shape: Shape, lengths: [[u8; SYMBOLS]; CONTEXTS], shared: Shared) -> Option<Self> {
        let mut codes = Box::new([[0; SYMBOLS]; CONTEXTS]);
        // Where nothing can come, a set ends.
        let end = vec![Entry::END; TABLES];
        let mut table: Box<[Entry; TABLES]> = end.try_into().ok()?;
        let room = 1usize << shape.contexts.code_bits();
        let rows = lengths.iter().zip(codes.iter_mut()).zip(shape.lowest());
        for (context, ((lengths, codes), lowest)) in rows.enumerate() {
            let at = shape.contexts.table_at(context);
            let table = table.get_mut(at..at.saturating_add(room))?;
            let possible = shape.symbols(context, lowest, shared.ends.len());
            let mut few = possible.clone();
            let only = (few.next(), few.next());
            match only {
                // What is certain takes no bits.
                (Some(symbol), None) if lengths.iter().all(|length| *length == 0) => {
                    table.fill(Entry::of(symbol, 0, context as u32));
                }
                (Some(_), None) => return None,
                (None, _) if lengths.iter().all(|length| *length == 0) => {}
                _ => {
                    let coded = lengths.iter().enumerate();
                    let coded = coded.filter(|(_, length)| **length > 0);
                    if !coded.map(|(symbol, _)| symbol).eq(possible) {
                        return None;
                    }
                    huffman::fill(context, lengths, codes, table)?;
                }
            }
        }
        Some(Self {
            shape,
            lengths,
            codes,
            table,
            short: OnceLock::new(),
            shared,
        })
    }

    /// Appends a set: ascending ranks, each a segment's.
    pub(super) fn put(&self, out: &mut BitWriter, set: &[Membership]) {
        let expires = match self.shape.expiry {
            Expiry::Unused => None,
            Expiry::Since { first, bits } => {
                let any = set.iter().any(|membership| membership.expires.is_some());
                out.put(any.into(), 1);
                any.then_some((first, bits))
            }
        };
        if expires.is_none()
            && let Some(place) = self.shared.place_of(set)
        {
            self.put_symbol(out, 0, SHARED);
            let index = self.gap_bits(INDEX_CONTEXT, place);
            out.put(index.bits.into(), index.length);
            return;
        }
        let (mut next, mut state) = (0u32, 0);
        let short = self.short.get_or_init(|| self.short());
        for membership in set {
            let gap = membership.rank.saturating_sub(next);
            let known = short.get(state).and_then(|gaps| gaps.get(gap as usize));
            let short = known.copied();
            let short = short.unwrap_or_else(|| self.gap_bits(state, gap));
            out.put(short.bits.into(), short.length);
            state = short.next;
            next = membership.rank.saturating_add(1);
            if let Some((first, bits)) = expires {
                out.put(membership.expires.is_some().into(), 1);
                if let Some(at) = membership.expires {
                    out.put(at.saturating_sub(first).unsigned_abs(), bits);
                }
            }
        }
        if next < self.shape.segments {
            self.put_symbol(out, state, END);
        }
    }

    fn short(&self) -> Box<[[Short; SHORT]; CONTEXTS]> {
        let mut short = Box::new([[Short::default(); SHORT]; CONTEXTS]);
        for (context, gaps) in short.iter_mut().enumerate() {
            for (gap, short) in (0u32..).zip(gaps) {
                *short = self.gap_bits(context, gap);
            }
        }
        short
    }

    /// A symbol's code and what follows it, 22 bits at most.
    fn gap_bits(&self, context: usize, gap: u32) -> Short {
        let symbol = symbol_of(gap);
        let (code, length) = self.code_of(context, symbol);
        let (least, extra) = gap_of(symbol);
        Short {
            bits: code as u32 | gap.saturating_sub(least).wrapping_shl(length),
            length: length.saturating_add(extra),
            next: next_state(context as u32, symbol) as usize,
        }
    }

    fn put_symbol(&self, out: &mut BitWriter, context: usize, symbol: usize) {
        let (code, length) = self.code_of(context, symbol);
        out.put(code, length);
    }

    /// A symbol's code and its length.
    #[inline]
    fn code_of(&self, context: usize, symbol: usize) -> (u64, u32) {
        let of = |table: Option<&[u8; SYMBOLS]>| table?.get(symbol).copied();
        let length = of(self.lengths.get(context)).unwrap_or(0);
        let code = self.codes.get(context).and_then(|codes| codes.get(symbol));
        (code.copied().unwrap_or(0).into(), length.into())
    }

    /// How many bits a set takes that does not expire and is not in the dictionary.
    fn bits_of(&self, ranks: &[u16]) -> u64 {
        let (mut next, mut state) = (0u32, 0);
        let mut bits = 0u64;
        for rank in ranks {
            let gap = self.gap_bits(state, u32::from(*rank).saturating_sub(next));
            bits = bits.saturating_add(gap.length.into());
            state = gap.next;
            next = u32::from(*rank).saturating_add(1);
        }
        if next < self.shape.segments {
            bits = bits.saturating_add(self.code_of(state, END).1.into());
        }
        bits
    }

    /// How many sets stand in the dictionary.
    pub(super) fn shared_sets(&self) -> u64 {
        self.shared.ends.len() as u64
    }

    /// Whether a set of a version is one of those, and so written as its index.
    pub(super) fn shares(&self, set: &[Membership]) -> bool {
        let expires = set.iter().any(|membership| membership.expires.is_some());
        !expires && self.shared.place_of(set).is_some()
    }

    /// Takes a set off the front of the bits; `each` is told every rank and the second it expires at. After
    /// [`Nonsense`] what it was told must be thrown away, and may be no rank.
    #[inline(always)]
    pub(super) fn walk(
        &self,
        bits: &mut Bits<'_>,
        each: impl FnMut(u32, Option<i64>),
    ) -> Result<(), Nonsense> {
        match self.shape.contexts {
            Contexts::ByState => self.walk_by::<ByState>(bits, each),
            Contexts::ByRank => self.walk_by_rank(bits, each),
        }
    }

    #[cold]
    #[inline(never)]
    fn walk_by_rank(
        &self,
        bits: &mut Bits<'_>,
        each: impl FnMut(u32, Option<i64>),
    ) -> Result<(), Nonsense> {
        self.walk_by::<ByRank>(bits, each)
    }

    #[inline(always)]
    fn walk_by<T: Track>(
        &self,
        bits: &mut Bits<'_>,
        mut each: impl FnMut(u32, Option<i64>),
    ) -> Result<(), Nonsense> {
        if let Expiry::Since { first, bits: width } = self.shape.expiry
            && bits.take(1) == 1
        {
            return self.walk_expiring::<T>(bits, first, width, each);
        }
        let (table, segments) = (&*self.table, self.shape.segments);
        let (mut next, mut track) = (0u32, T::START);
        let mut word = bits.peek();
        while next < segments {
            let entry = track.entry(table, word);
            // Loaded while the entry is: what is left of it behind the entry is enough for one more.
            let ahead = bits.peek();
            bits.skip(entry.taken());
            if !entry.is_gap() {
                if entry.is_shared() {
                    return self.walk_shared::<T>(bits, each);
                }
                break;
            }
            let rank = next.wrapping_add(entry.gap(word));
            each(rank, None);
            word = entry.behind(ahead);
            next = rank.wrapping_add(1);
            track = T::behind(entry, next);
        }
        if bits.is_past() || next > segments {
            Err(Nonsense)
        } else {
            Ok(())
        }
    }

    /// Goes past that many sets.
    #[inline(always)]
    pub(super) fn skip(&self, bits: &mut Bits<'_>, sets: usize) -> Result<(), Nonsense> {
        match (self.shape.expiry, self.shape.contexts) {
            (Expiry::Unused, Contexts::ByState) => self.skip_lasting::<ByState>(bits, sets),
            (Expiry::Unused, Contexts::ByRank) => self.skip_lasting::<ByRank>(bits, sets),
            _ => (0..sets).try_for_each(|_| self.walk(bits, |_, _| {})),
        }
    }

    /// The same where nothing expires: whatever is in the words.
    fn skip_lasting<T: Track>(&self, bits: &mut Bits<'_>, sets: usize) -> Result<(), Nonsense> {
        let (table, segments) = (&*self.table, self.shape.segments);
        for _ in 0..sets {
            let (mut next, mut track) = (0u32, T::START);
            while next < segments {
                let word = bits.peek();
                let entry = track.entry(table, word);
                bits.skip(entry.taken());
                if !entry.is_gap() {
                    if entry.is_shared() {
                        let index = T::INDEX.entry(table, entry.behind(word));
                        bits.skip(index.taken());
                    }
                    break;
                }
                next = next.wrapping_add(entry.gap(word)).wrapping_add(1);
                track = T::behind(entry, next);
            }
            // Behind the end there is no end of sets either.
            if bits.is_past() {
                return Err(Nonsense);
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn walk_shared<T: Track>(
        &self,
        bits: &mut Bits<'_>,
        mut each: impl FnMut(u32, Option<i64>),
    ) -> Result<(), Nonsense> {
        let word = bits.peek();
        let entry = T::INDEX.entry(&self.table, word);
        bits.skip(entry.taken());
        let place = entry.gap(word);
        if bits.is_past() {
            return Err(Nonsense);
        }
        let ranks = self
            .shared
            .set(usize::try_from(place).map_err(|_| Nonsense)?);
        for rank in ranks.ok_or(Nonsense)? {
            each(u32::from(*rank), None);
        }
        Ok(())
    }

    #[inline(never)]
    fn walk_expiring<T: Track>(
        &self,
        bits: &mut Bits<'_>,
        first: i64,
        width: u32,
        mut each: impl FnMut(u32, Option<i64>),
    ) -> Result<(), Nonsense> {
        let segments = self.shape.segments;
        let (mut next, mut track, mut any) = (0u32, T::START, false);
        while next < segments {
            let word = bits.peek();
            let entry = track.entry(&self.table, word);
            bits.skip(entry.taken());
            if !entry.is_gap() {
                if entry.is_shared() {
                    return Err(Nonsense);
                }
                break;
            }
            let rank = next.wrapping_add(entry.gap(word));
            if rank >= segments {
                return Err(Nonsense);
            }
            let expires = if bits.take(1) == 1 {
                any = true;
                let after = bits.take(width);
                Some(first.checked_add_unsigned(after).ok_or(Nonsense)?)
            } else {
                None
            };
            each(rank, expires);
            next = rank.wrapping_add(1);
            track = T::behind(entry, next);
        }
        // There is one way to write a set: that one expires is said only where one does.
        if bits.is_past() || !any {
            return Err(Nonsense);
        }
        Ok(())
    }
}

impl Shared {
    fn place_of(&self, set: &[Membership]) -> Option<u32> {
        if set.len() > self.longest {
            return None;
        }
        let ranks: Vec<u16> = set
            .iter()
            .map(|membership| membership.rank as u16)
            .collect();
        self.places.get(&*ranks).copied()
    }

    fn set(&self, place: usize) -> Option<&[u16]> {
        let end = *self.ends.get(place)? as usize;
        let start = match place.checked_sub(1) {
            None => 0,
            Some(before) => *self.ends.get(before)? as usize,
        };
        self.ranks.get(start..end)
    }

    fn push(&mut self, ranks: &[u16]) {
        let place = self.ends.len() as u32;
        self.ranks.extend_from_slice(ranks);
        self.ends.push(self.ranks.len() as u32);
        self.places.insert(ranks.into(), place);
        self.longest = self.longest.max(ranks.len());
    }
}

#[cfg(test)]
mod tests;
