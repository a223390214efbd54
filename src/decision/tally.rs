//! What became of each line item at each imp: the counts behind a report's "why not".
//!
//! Counted are the line items that the index leaves as candidates and whose targeting is true; those that it rules out are not
//! touched one by one, so that "not targeted" is the remainder: all imps less what is counted here. A candidate that could only be
//! outbid is not asked the rest of its targeting, so it counts as outbid; of these there are many a request, and they are
//! counted 64 at a time.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use arrayvec::ArrayVec;

use super::{NoBid, Recorder, Refusal};
use crate::campaigns::{Book, LineItem};

/// The reasons, a place for bids, and one for those that were decided on too late to be sent.
const KINDS: usize = Refusal::ALL.len() + 2;
const BID: usize = Refusal::ALL.len();
const LATE: usize = Refusal::ALL.len() + 1;

/// So many bids of a request are told apart; what came of more of them stays counted as outbid.
const SETTLED_MAX: usize = 64;

/// 64 counters: each word has a bit of every counter, the lowest first.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counters64([u64; 16]);

impl Counters64 {
    /// Counts one more in each that has its bit; those that ran over 65,535 begin again at 0, and are told.
    fn add(&mut self, ones: u64) -> u64 {
        let mut carry = ones;
        for word in &mut self.0 {
            (*word, carry) = (*word ^ carry, *word & carry);
            if carry == 0 {
                break;
            }
        }
        carry
    }

    fn get(&self, counter: u32) -> u32 {
        let bits = self.0.iter().zip(0u32..);
        bits.fold(0, |sum, (word, bit)| {
            sum | ((word.wrapping_shr(counter) & 1) as u32).wrapping_shl(bit)
        })
    }
}

/// Counts since they were last taken, of one book's line items. One by default counts nothing.
#[derive(Debug, Default)]
pub struct Tally {
    imps: u64,
    /// By the line item's place in its book.
    counts: Vec<[u32; KINDS]>,
    /// A bit for each line item that anything is counted of.
    counted: Vec<u64>,
    /// Line items by their ranks, and of each rank how often it could only be outbid.
    order: Box<[u32]>,
    left_out: Vec<Counters64>,
    /// What was settled of the request at hand: an imp, a line item, and what it counts as now.
    settled: ArrayVec<(usize, u32, usize), SETTLED_MAX>,
}

impl Tally {
    /// Of a book's line items.
    pub fn of(book: &Book) -> Self {
        let words = book.line_items.len().div_ceil(64);
        Self {
            imps: 0,
            counts: vec![[0; KINDS]; book.line_items.len()],
            counted: vec![0; words],
            order: book.ranks().into(),
            left_out: vec![Counters64::default(); words],
            settled: ArrayVec::new(),
        }
    }

    /// Begins a request.
    pub fn begin(&mut self) {
        self.settled.clear();
    }

    fn change(&mut self, line_item: u32, kind: usize, by: i32) {
        let place = line_item as usize;
        let count = self.counts.get_mut(place).and_then(|of| of.get_mut(kind));
        if let (Some(count), Some(word)) = (count, self.counted.get_mut(place / 64)) {
            // Bids are told apart from those that were outbid later than both are counted: the sum is right in the end.
            *count = count.wrapping_add_signed(by);
            *word |= 1u64.wrapping_shl(line_item);
        }
    }

    /// What came of a bid that was decided on; it counted as outbid until now. Bids of one line item on one imp, in several
    /// deals, count as one: as a bid, where one was made.
    pub fn settle(&mut self, imp: usize, line_item: u32, outcome: Result<(), Refusal>) {
        let kind = outcome.map_or_else(|refusal| refusal as usize, |()| BID);
        self.settle_as(imp, line_item, kind);
    }

    /// The same of a bid that is not sent, because it was decided on too late.
    pub fn late(&mut self, imp: usize, line_item: u32) {
        self.settle_as(imp, line_item, LATE);
    }

    fn settle_as(&mut self, imp: usize, line_item: u32, kind: usize) {
        let mut known = self.settled.iter_mut();
        let known = known.find(|(at, of, _)| (*at, *of) == (imp, line_item));
        let before = match known {
            Some((.., BID)) => return,
            Some((.., now)) => std::mem::replace(now, kind),
            None => match self.settled.try_push((imp, line_item, kind)) {
                Ok(()) => Refusal::Outbid as usize,
                Err(_) => return,
            },
        };
        self.change(line_item, before, -1);
        self.change(line_item, kind, 1);
    }

    /// Imps that line items were asked for.
    pub fn imps(&self) -> u64 {
        self.imps
    }

    /// Takes what was counted: a line item's place in its book, why it did not bid (nothing: it bid), how often.
    pub fn take(&mut self, mut each: impl FnMut(u32, Option<&'static str>, u32)) {
        self.imps = 0;
        for word in 0..self.left_out.len() {
            let counters = self.left_out.get_mut(word).map(std::mem::take);
            let Some(counters) = counters.filter(|counters| *counters != Counters64::default())
            else {
                continue;
            };
            for counter in 0..64 {
                let count = counters.get(counter);
                self.outbid(word, counter, count.cast_signed());
            }
        }
        for (word, first) in self.counted.iter_mut().zip((0u32..).step_by(64)) {
            while *word != 0 {
                let place = first.saturating_add(word.trailing_zeros());
                *word &= word.saturating_sub(1);
                let Some(counts) = self.counts.get_mut(place as usize) else {
                    continue;
                };
                let refusals = Refusal::ALL.iter().map(|refusal| Some(refusal.as_str()));
                let kinds = refusals.chain([None, Some(NoBid::Shed.as_str())]);
                for (count, kind) in counts.iter_mut().zip(kinds) {
                    if *count > 0 {
                        each(place, kind, std::mem::take(count));
                    }
                }
            }
        }
    }

    fn outbid(&mut self, word: usize, counter: u32, count: i32) {
        let rank = word.saturating_mul(64).saturating_add(counter as usize);
        if let Some(place) = self.order.get(rank).copied().filter(|_| count > 0) {
            self.change(place, Refusal::Outbid as usize, count);
        }
    }
}

impl Recorder for Tally {
    const HEARS_ALL: bool = false;
    const COUNTS: bool = true;

    fn offered(&mut self) {
        self.imps = self.imps.saturating_add(1);
    }

    fn line_item(&mut self, _imp: usize, line_item: &LineItem, verdict: Result<(), Refusal>) {
        // Whoever is in the auction has yet to win it.
        let kind = verdict.err().unwrap_or(Refusal::Outbid);
        if kind != Refusal::Targeting {
            self.change(line_item.index, kind as usize, 1);
        }
    }

    fn left_out(&mut self, word: usize, ranks: u64) {
        let Some(counters) = self.left_out.get_mut(word) else {
            return;
        };
        let mut over = counters.add(ranks);
        while over != 0 {
            self.outbid(word, over.trailing_zeros(), 1 << 16);
            over &= over.saturating_sub(1);
        }
    }

    fn dropped(&mut self, imp: usize, line_item: &LineItem, refusal: Refusal) {
        self.settle(imp, line_item.index, Err(refusal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_count_as_one_by_one() {
        let mut counters = Counters64::default();
        let mut plain = [0u32; 64];
        let mut ones = 1u64;
        for _ in 0..70_000 {
            ones = ones.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(7) | 2;
            let over = counters.add(ones);
            for (bit, count) in plain.iter_mut().enumerate() {
                *count += u32::from(ones >> bit & 1 == 1);
                if over >> bit & 1 == 1 {
                    *count -= 1 << 16;
                }
            }
        }
        let counted: Vec<u32> = (0..64).map(|counter| counters.get(counter)).collect();
        assert_eq!(counted, plain);
        assert_eq!(counted.get(1), Some(&(70_000 - 65_536)));
    }

    /// In several deals a line item has several bids on an imp, which are dropped and settled in any order between those of others.
    #[test]
    fn bids_of_one_line_item_on_one_imp_count_as_one() {
        let document = br#"{"advertisers": [{"id": "acme", "domain": "acme.example"}],
            "creatives": [{"id": "box", "advertiser": "acme", "type": "banner", "w": 1, "h": 1, "adm": "<p>"}],
            "line_items": [{"id": "one", "creatives": ["box"], "targeting": "test", "price": {"cpm": "5", "currency": "USD"}}]}"#;
        let book = crate::campaigns::compile(document).expect("a document");
        let one = book.line_items.first().expect("a line item");
        let mut tally = Tally::of(&book);
        tally.begin();
        for imp in [0, 1] {
            tally.offered();
            tally.line_item(imp, one, Ok(()));
            tally.dropped(imp, one, Refusal::Pod);
        }
        tally.settle(0, 0, Ok(()));
        tally.settle(0, 0, Err(Refusal::Capped));
        tally.settle(1, 0, Err(Refusal::Capped));
        let mut counted = Vec::new();
        assert_eq!(tally.imps(), 2);
        tally.take(|line_item, refusal, count| counted.push((line_item, refusal, count)));
        assert_eq!(counted, [(0, Some("capped"), 1), (0, None, 1)]);
        tally.begin();
        tally.offered();
        tally.line_item(0, one, Ok(()));
        tally.late(0, 0);
        counted.clear();
        tally.take(|line_item, refusal, count| counted.push((line_item, refusal, count)));
        assert_eq!(counted, [(0, Some("shed"), 1)]);
    }
}
