//! Which code fits a version: from a sample of its sets, and from the bytes that say it in a file.
//!
//! The sample is the version's first ids in the order of their hashes, so that it is a fair one, and the same whatever the order
//! of the rows. What the sample does not have can still be written: every symbol that can come has a code.

use std::collections::HashMap;

use super::super::bits::{BitWriter, Bits, Nonsense};
use super::{
    CONTEXTS, Code, END, Expiry, INDEX_CONTEXT, Membership, SHARED, SHARED_MAX, SYMBOLS, Shape,
    Shared, huffman, next_state, symbol_of,
};

/// Ids of which a code is made.
pub(in super::super) const SAMPLE_IDS: usize = 1 << 18;
/// Memberships after which a sample is large enough in any case.
const SAMPLE_MEMBERSHIPS: usize = 8 << 20;

/// Sets to make a code of.
#[derive(Debug, Default)]
pub(in super::super) struct Sample {
    ranks: Vec<u16>,
    ends: Vec<u32>,
    expiring: u64,
}

/// How often each symbol comes in each context.
type Counts = [[u64; SYMBOLS]; CONTEXTS];

impl Sample {
    pub(in super::super) fn is_full(&self) -> bool {
        self.ends.len() >= SAMPLE_IDS || self.ranks.len() >= SAMPLE_MEMBERSHIPS
    }

    /// Takes in a set: ascending ranks below 2¹⁶.
    pub(in super::super) fn push(&mut self, set: &[Membership]) {
        self.expiring = self
            .expiring
            .saturating_add(set.iter().any(|m| m.expires.is_some()).into());
        self.ranks.extend(set.iter().map(|m| m.rank as u16));
        self.ends.push(self.ranks.len() as u32);
    }

    fn sets(&self) -> impl Iterator<Item = &[u16]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges = starts.zip(self.ends.iter().copied());
        ranges.map(|(start, end)| {
            self.ranks
                .get(start as usize..end as usize)
                .unwrap_or_default()
        })
    }

    /// The code for a version of `ids` ids of which these are a sample, and how many bits a set takes on average.
    pub(in super::super) fn plan(&self, shape: Shape, ids: u64) -> Option<(Code, f64)> {
        let plain = Code::new(
            shape.clone(),
            self.lengths(&shape, &Shared::default()),
            Shared::default(),
        )?;
        let shared = self.worth_sharing(&plain, ids);
        let lengths = self.lengths(&shape, &shared);
        let code = Code::new(shape, lengths, shared)?;
        let mut writer = BitWriter::default();
        let mut all = 0u64;
        let mut set = Vec::new();
        for ranks in self.sets() {
            set.clear();
            set.extend(ranks.iter().map(|rank| Membership {
                rank: u32::from(*rank),
                expires: None,
            }));
            code.put(&mut writer, &set);
            all = all.saturating_add(writer.len());
            writer = BitWriter::default();
        }
        let sets = self.ends.len().max(1);
        Some((code, all as f64 / sets as f64))
    }

    fn lengths(&self, shape: &Shape, shared: &Shared) -> [[u8; SYMBOLS]; CONTEXTS] {
        let mut counts: Counts = [[0; SYMBOLS]; CONTEXTS];
        for ((context, counts), lowest) in counts.iter_mut().enumerate().zip(shape.lowest()) {
            for symbol in shape.symbols(context, lowest, shared.ends.len()) {
                if let Some(count) = counts.get_mut(symbol) {
                    *count = 1;
                }
            }
        }
        let mut count = |context: usize, symbol: usize| {
            let own = counts.get_mut(context).and_then(|c| c.get_mut(symbol));
            if let Some(count) = own {
                // One against many: what was not seen is to take next to nothing from what was.
                *count = count.saturating_add(64);
            }
        };
        for ranks in self.sets() {
            if let Some(place) = shared.places.get(ranks) {
                count(0, SHARED);
                count(INDEX_CONTEXT, symbol_of(*place));
                continue;
            }
            let (mut next, mut state) = (0u32, 0);
            for rank in ranks {
                let rank = u32::from(*rank);
                let symbol = symbol_of(rank.saturating_sub(next));
                count(state as usize, symbol);
                state = next_state(state, symbol);
                next = rank.saturating_add(1);
            }
            if next < shape.segments {
                count(state as usize, END);
            }
        }
        counts.map(|counts| huffman::lengths(&counts))
    }

    /// The sets that come so often that they are better written once.
    fn worth_sharing(&self, plain: &Code, ids: u64) -> Shared {
        let mut shared = Shared::default();
        // A set that expires is not shared, and which of the sample do is not kept.
        if self.expiring.saturating_mul(2) > self.ends.len() as u64 {
            return shared;
        }
        let mut often: HashMap<&[u16], u64> = HashMap::new();
        for set in self.sets() {
            let count = often.entry(set).or_default();
            *count = count.saturating_add(1);
        }
        let sampled = self.ends.len().max(1) as u64;
        let mut worth: Vec<(u64, &[u16])> = often
            .into_iter()
            .filter_map(|(set, count)| {
                // What its own symbol and index take: about the logarithm of how seldom it comes.
                let index = u64::from(sampled.checked_div(count)?.max(1).ilog2()).saturating_add(1);
                let saved = plain.bits_of(set).checked_sub(index)?;
                let in_sample = u128::from(saved).saturating_mul(count.into());
                let all = in_sample
                    .saturating_mul(ids.into())
                    .checked_div(sampled.into())?;
                let stored = plain.bits_of(set).saturating_add(64);
                let gain = u64::try_from(all).ok()?.checked_sub(stored)?;
                (count > 1 && saved > 0).then_some((gain, set))
            })
            .collect();
        // Of equal gain by what is in them, so that equal rows give equal bytes.
        worth.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        worth.truncate(SHARED_MAX);
        for (_, set) in worth {
            shared.push(set);
        }
        shared
    }
}

/// Bits that a code's length takes in a file.
const LENGTH_BITS: u32 = 4;
/// Bits of the number of shared sets, and of the size of each.
const SHARED_BITS: u32 = 16;

impl Code {
    /// Appends what a reader needs besides the [`Shape`].
    pub(in super::super) fn encode(&self, out: &mut Vec<u8>) {
        let mut bits = BitWriter::default();
        bits.put(self.shared.ends.len() as u64, SHARED_BITS);
        for lengths in &self.lengths {
            for length in lengths {
                bits.put(u64::from(*length), LENGTH_BITS);
            }
        }
        for place in 0..self.shared.ends.len() {
            let ranks = self.shared.set(place).unwrap_or_default();
            bits.put(ranks.len() as u64, SHARED_BITS);
            for rank in ranks {
                bits.put(u64::from(*rank), SHARED_BITS);
            }
        }
        bits.take(out);
    }

    /// Reads what [`encode`](Self::encode) wrote, to the end of the bytes.
    pub(in super::super) fn decode(bytes: &[u8], shape: Shape) -> Result<Self, Nonsense> {
        let mut bits = Bits::within(bytes, bytes.len());
        let sets = bits.take(SHARED_BITS) as usize;
        if sets > SHARED_MAX {
            return Err(Nonsense);
        }
        let mut lengths = [[0u8; SYMBOLS]; CONTEXTS];
        for length in lengths.iter_mut().flatten() {
            *length = bits.take(LENGTH_BITS) as u8;
        }
        let mut shared = Shared::default();
        let mut ranks = Vec::new();
        for _ in 0..sets {
            ranks.clear();
            let size = bits.take(SHARED_BITS);
            for _ in 0..size {
                let rank = bits.take(SHARED_BITS);
                let ascends = ranks.last().is_none_or(|last| u64::from(*last) < rank);
                if !ascends || rank >= u64::from(shape.segments) || bits.is_past() {
                    return Err(Nonsense);
                }
                ranks.push(rank as u16);
            }
            let is_allowed = !ranks.is_empty() || shape.may_be_empty;
            if !is_allowed || shared.places.contains_key(&*ranks) {
                return Err(Nonsense);
            }
            shared.push(&ranks);
        }
        if !bits.is_at_end() {
            return Err(Nonsense);
        }
        Self::new(shape, lengths, shared).ok_or(Nonsense)
    }

    pub(in super::super) fn expiry(&self) -> Expiry {
        self.shape.expiry
    }
}

/// The largest gap that a symbol can say.
#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test may panic")]
pub(super) fn largest_gap(symbol: usize) -> u32 {
    let (least, extra) = super::gap_of(symbol);
    least + (1 << extra) - 1
}
