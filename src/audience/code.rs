//! How a set of segments is written: close to its entropy, and read back with one table look-up a membership.
//!
//! A set is its ranks in ascending order, each as the gap to the lowest rank that it could have, and an end. A gap is a
//! symbol (its order of magnitude and the bit behind) and the rest of its bits; symbols have Huffman codes of at most nine
//! bits. Which code is in force depends on the rank from which the gap counts: near rank 0, where the popular
//! segments are, gaps are small and ends are rare. The codes come from the version's own sets, so whatever the shape of an audience,
//! nobody has to guess a parameter. Where many ids are in exactly the same segments, the set stands once in a
//! dictionary, and a symbol of its own with an index stands for it.
//!
//! A dataset of one segment has no choice of symbols, and its sets take no bits.
//!
//! Cost: docs/scale.md. Reading trusts nothing: any bits give ascending ranks below the number of segments, or
//! [`Nonsense`].

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod huffman;
mod plan;

use std::sync::OnceLock;

use super::bits::{AT_ONCE, BitWriter, Bits, Nonsense};

pub(super) use plan::Sample;

/// Gaps up to this one have a symbol each.
const SMALL_GAPS: u32 = 8;
/// Symbols of gaps: eight small ones, then two for each order of magnitude up to 2¹⁵.
const GAP_SYMBOLS: usize = 34;
const END: usize = 34;
const SHARED: usize = 35;
const SYMBOLS: usize = 36;
/// By the length in bits of the rank that a gap counts from, 0 to 16, and one for indexes of the dictionary.
const CONTEXTS: usize = 18;
const INDEX_CONTEXT: usize = 17;
/// Longest code of a symbol, in bits.
const CODE_BITS: u32 = 9;
const TABLE: usize = 1 << CODE_BITS;
/// What the tables of all contexts have room for: a power of two, so that no place has to be compared with the end.
const TABLES: usize = TABLE * CONTEXTS.next_power_of_two();
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
        /// Bits of the distance from it, 1 to [`AT_ONCE`].
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

/// A gap's bits, and how many there are.
#[derive(Debug, Clone, Copy, Default)]
struct Short {
    bits: u32,
    length: u32,
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

/// What the next bits mean: bits 0 to 5 how many of them are taken, 6 to 11 how many of those are the code, 12 to 27 the
/// least gap, 28 the end, 29 a set of the dictionary. A shift by the word as it is, or by what is left of it from bit 6 on,
/// is one by the number in its lowest six bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Entry(u32);

const ENTRY_END: u32 = 1 << 28;
const ENTRY_SHARED: u32 = 1 << 29;
/// Most bits that an entry takes: a code, and what follows of the largest gaps.
const TAKEN_MAX: u32 = CODE_BITS + 14;

impl Entry {
    fn of(symbol: usize, length: u8) -> Self {
        let (least, extra) = gap_of(symbol);
        let kind = match symbol {
            END => ENTRY_END,
            SHARED => ENTRY_SHARED,
            _ => 0,
        };
        let length = u32::from(length);
        Self(kind | least << 12 | length << 6 | extra.saturating_add(length))
    }

    /// How many bits it takes, of the code and of what follows.
    #[inline(always)]
    fn taken(self) -> u32 {
        self.0 & 0x3f
    }

    /// What follows in the word.
    #[inline(always)]
    fn behind(self, word: u64) -> u64 {
        word.wrapping_shr(self.0)
    }

    /// The gap, or the index, that the bits say; nothing of use where it is neither.
    #[inline(always)]
    fn gap(self, word: u64) -> u32 {
        let own = word & !u64::MAX.wrapping_shl(self.0);
        (self.0 >> 12).wrapping_add(own.wrapping_shr(self.0 >> 6) as u32)
    }

    #[inline(always)]
    fn is_gap(self) -> bool {
        self.0 < ENTRY_END
    }
}

/// The least gap of a symbol, and how many bits say how much more it is.
fn gap_of(symbol: usize) -> (u32, u32) {
    let symbol = symbol as u32;
    let Some(beyond) = symbol.checked_sub(SMALL_GAPS) else {
        return (symbol, 0);
    };
    if symbol as usize >= GAP_SYMBOLS {
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

/// The context of a gap that counts from this rank: the rank's length in bits.
#[inline(always)]
fn context_of(next: u32) -> usize {
    // Never 0, which has no logarithm.
    (next.wrapping_shl(1) | 1).ilog2() as usize
}

/// What the next bits mean in a context.
#[inline(always)]
fn entry(table: &[Entry; TABLES], context: usize, word: u64) -> Entry {
    let at = context << CODE_BITS | word as usize & (TABLE - 1);
    // Every place below `TABLES` is there.
    table.get(at & (TABLES - 1)).copied().unwrap_or_default()
}

impl Shape {
    /// Whether a symbol can come in a context; `shared` is how many sets the dictionary has.
    fn can_come(&self, context: usize, symbol: usize, shared: usize) -> bool {
        if context == INDEX_CONTEXT {
            return symbol < GAP_SYMBOLS && (gap_of(symbol).0 as usize) < shared;
        }
        // The lowest rank from which this context counts.
        let from = (1u32 << context) >> 1;
        let Some(largest) = self
            .segments
            .checked_sub(1)
            .and_then(|last| last.checked_sub(from))
        else {
            return false;
        };
        match symbol {
            END => context > 0 || self.may_be_empty,
            SHARED => context == 0 && shared > 0,
            _ => gap_of(symbol).0 <= largest,
        }
    }

    /// The symbols that can come in a context.
    fn symbols(&self, context: usize, shared: usize) -> impl Iterator<Item = usize> {
        (0..SYMBOLS).filter(move |symbol| self.can_come(context, *symbol, shared))
    }
}

impl Code {
    /// A code of these lengths; nothing where they are not those of a whole code for just the symbols that can come.
    fn new(shape: Shape, lengths: [[u8; SYMBOLS]; CONTEXTS], shared: Shared) -> Option<Self> {
        let mut codes = Box::new([[0; SYMBOLS]; CONTEXTS]);
        let mut table: Box<[Entry; TABLES]> = vec![Entry(0); TABLES].try_into().ok()?;
        let (tables, _) = table.as_chunks_mut::<TABLE>();
        let rows = lengths.iter().zip(codes.iter_mut()).zip(tables);
        for (context, ((lengths, codes), table)) in rows.enumerate() {
            let mut possible = shape.symbols(context, shared.ends.len());
            let only = (possible.next(), possible.next());
            let is_right = |(symbol, length): (usize, &u8)| {
                (*length > 0) == shape.can_come(context, symbol, shared.ends.len())
            };
            match only {
                // What is certain takes no bits.
                (Some(symbol), None) if lengths.iter().all(|length| *length == 0) => {
                    table.fill(Entry::of(symbol, 0));
                }
                (Some(_), None) => return None,
                (None, _) if lengths.iter().all(|length| *length == 0) => {}
                _ if lengths.iter().enumerate().all(is_right) => {
                    huffman::fill(lengths, codes, table)?;
                }
                _ => return None,
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

    /// What the next bits mean in a context.
    #[inline(always)]
    fn entry(&self, context: usize, word: u64) -> Entry {
        entry(&self.table, context, word)
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
            self.put_gap(out, INDEX_CONTEXT, place);
            return;
        }
        let mut next = 0u32;
        let short = self.short.get_or_init(|| self.short());
        for membership in set {
            let (context, gap) = (context_of(next), membership.rank.saturating_sub(next));
            match short.get(context).and_then(|gaps| gaps.get(gap as usize)) {
                Some(short) => out.put(short.bits.into(), short.length),
                None => self.put_gap(out, context, gap),
            }
            next = membership.rank.saturating_add(1);
            if let Some((first, bits)) = expires {
                out.put(membership.expires.is_some().into(), 1);
                if let Some(at) = membership.expires {
                    out.put(at.saturating_sub(first).unsigned_abs(), bits);
                }
            }
        }
        if next < self.shape.segments {
            self.put_symbol(out, context_of(next), END);
        }
    }

    fn put_gap(&self, out: &mut BitWriter, context: usize, gap: u32) {
        let short = self.gap_bits(context, gap);
        out.put(short.bits.into(), short.length);
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

    /// A symbol's code and what follows it, 23 bits at most.
    fn gap_bits(&self, context: usize, gap: u32) -> Short {
        let symbol = symbol_of(gap);
        let (code, length) = self.code_of(context, symbol);
        let (least, extra) = gap_of(symbol);
        Short {
            bits: code as u32 | gap.saturating_sub(least).wrapping_shl(length),
            length: length.saturating_add(extra),
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
        let mut next = 0u32;
        let mut bits = 0u64;
        let length = |context: usize, symbol: usize| {
            let lengths = self.lengths.get(context);
            u64::from(
                lengths
                    .and_then(|lengths| lengths.get(symbol))
                    .copied()
                    .unwrap_or(0),
            )
        };
        for rank in ranks {
            let symbol = symbol_of(u32::from(*rank).saturating_sub(next));
            let extra = u64::from(gap_of(symbol).1);
            bits = bits
                .saturating_add(length(context_of(next), symbol))
                .saturating_add(extra);
            next = u32::from(*rank).saturating_add(1);
        }
        if next < self.shape.segments {
            bits = bits.saturating_add(length(context_of(next), END));
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
        mut each: impl FnMut(u32, Option<i64>),
    ) -> Result<(), Nonsense> {
        if let Expiry::Since { first, bits: width } = self.shape.expiry
            && bits.take(1) == 1
        {
            return self.walk_expiring(bits, first, width, each);
        }
        let (table, segments) = (&*self.table, self.shape.segments);
        let mut next = 0u32;
        // Several symbols from one word.
        let (mut word, mut left) = (bits.peek(), AT_ONCE);
        while next < segments {
            if left < TAKEN_MAX {
                bits.skip(AT_ONCE.wrapping_sub(left));
                (word, left) = (bits.peek(), AT_ONCE);
            }
            let entry = entry(table, context_of(next), word);
            let rank = next.wrapping_add(entry.gap(word));
            word = entry.behind(word);
            left = left.wrapping_sub(entry.taken());
            if !entry.is_gap() {
                if entry.0 & ENTRY_SHARED != 0 {
                    bits.skip(AT_ONCE.wrapping_sub(left));
                    return self.walk_shared(bits, each);
                }
                break;
            }
            each(rank, None);
            next = rank.wrapping_add(1);
        }
        bits.skip(AT_ONCE.wrapping_sub(left));
        if bits.is_past() || next > segments {
            Err(Nonsense)
        } else {
            Ok(())
        }
    }

    /// Goes past that many sets.
    #[inline(always)]
    pub(super) fn skip(&self, bits: &mut Bits<'_>, sets: usize) -> Result<(), Nonsense> {
        if self.shape.expiry == Expiry::Unused {
            return self.skip_lasting(bits, sets);
        }
        (0..sets).try_for_each(|_| self.walk(bits, |_, _| {}))
    }

    /// The same where nothing expires: one word after the other, whatever sets it holds.
    fn skip_lasting(&self, bits: &mut Bits<'_>, sets: usize) -> Result<(), Nonsense> {
        let segments = self.shape.segments;
        let (mut word, mut left) = (bits.peek(), AT_ONCE);
        for _ in 0..sets {
            let (mut next, mut context) = (0u32, 0);
            while next < segments {
                if left < TAKEN_MAX {
                    bits.skip(AT_ONCE.wrapping_sub(left));
                    // Behind the end there is no end of sets either.
                    if bits.is_past() {
                        return Err(Nonsense);
                    }
                    (word, left) = (bits.peek(), AT_ONCE);
                }
                let entry = self.entry(context, word);
                let gap = entry.gap(word);
                word = entry.behind(word);
                left = left.wrapping_sub(entry.taken());
                if entry.is_gap() {
                    // An index of the dictionary is followed by nothing.
                    if context == INDEX_CONTEXT {
                        break;
                    }
                    next = next.wrapping_add(gap).wrapping_add(1);
                    context = context_of(next);
                } else if entry.0 & ENTRY_SHARED != 0 {
                    context = INDEX_CONTEXT;
                } else {
                    break;
                }
            }
        }
        bits.skip(AT_ONCE.wrapping_sub(left));
        Ok(())
    }

    #[inline(never)]
    fn walk_shared(
        &self,
        bits: &mut Bits<'_>,
        mut each: impl FnMut(u32, Option<i64>),
    ) -> Result<(), Nonsense> {
        let word = bits.peek();
        let entry = self.entry(INDEX_CONTEXT, word);
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
    fn walk_expiring(
        &self,
        bits: &mut Bits<'_>,
        first: i64,
        width: u32,
        mut each: impl FnMut(u32, Option<i64>),
    ) -> Result<(), Nonsense> {
        let segments = self.shape.segments;
        let (mut next, mut any) = (0u32, false);
        while next < segments {
            let word = bits.peek();
            let entry = self.entry(context_of(next), word);
            bits.skip(entry.taken());
            if !entry.is_gap() {
                if entry.0 & ENTRY_SHARED != 0 {
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
