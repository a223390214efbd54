//! Which notices were taken already: of each bid and kind of notice once, however often it is sent.
//!
//! Sets of sequence numbers, compressed as Roaring bitmaps (Lemire et al. 2016), in a group for each desk and hour of bids; a
//! group goes when no token of its hour is valid any more. Cost: two bytes a bid of which a notice came, or a bit a bid
//! made where most have one.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use roaring::RoaringTreemap;

use super::token::BidNumber;

/// What a notice says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The auction was won.
    Win,
    /// It is to be billed: the ad was shown.
    Bill,
    /// The auction was lost.
    Loss,
    /// Somebody clicked.
    Click,
}

impl Kind {
    /// All of them, each at its own number.
    pub const ALL: [Self; 4] = [Self::Win, Self::Bill, Self::Loss, Self::Click];

    /// Its word in a URL and in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Win => "win",
            Self::Bill => "bill",
            Self::Loss => "loss",
            Self::Click => "click",
        }
    }
}

/// Hour, start, desk, kind: the hour first, so that the oldest come first.
type Group = (u32, u32, u16, Kind);

/// The bids of which a notice was taken.
#[derive(Debug, Default)]
pub(super) struct Settled {
    groups: BTreeMap<Group, RoaringTreemap>,
    /// The hour after the last of which bids were forgotten.
    forgotten: u32,
}

fn group(kind: Kind, bid: BidNumber, at: u32) -> Group {
    (hour(at), bid.start, bid.desk, kind)
}

fn hour(at: u32) -> u32 {
    at / 3600
}

impl Settled {
    /// Notes a notice; whether it is the first of its kind for that bid, made at `at`.
    pub(super) fn note(&mut self, kind: Kind, bid: BidNumber, at: u32) -> bool {
        let bids = self.groups.entry(group(kind, bid, at)).or_default();
        bids.insert(bid.sequence)
    }

    /// Whether such a notice was taken.
    pub(super) fn has(&self, kind: Kind, bid: BidNumber, at: u32) -> bool {
        let bids = self.groups.get(&group(kind, bid, at));
        bids.is_some_and(|bids| bids.contains(bid.sequence))
    }

    /// Forgets bids made in hours that were over before `at`.
    pub(super) fn forget_before(&mut self, at: u32) {
        let kept = self.groups.split_off(&(hour(at), 0, 0, Kind::Win));
        if let Some(((newest, ..), _)) = self.groups.last_key_value() {
            self.forgotten = self.forgotten.max(newest.saturating_add(1));
        }
        self.groups = kept;
    }

    /// Whether it is not known any more which notices of bids made at `at` were taken.
    pub(super) fn has_forgotten(&self, at: u32) -> bool {
        hour(at) < self.forgotten
    }

    /// How many notices are remembered.
    pub(super) fn len(&self) -> u64 {
        let lens = self.groups.values().map(RoaringTreemap::len);
        lens.fold(0, u64::saturating_add)
    }

    /// All groups that a journal must begin anew with: start, desk, hour, kind, and the bids. Losses are of this run only.
    pub(super) fn each(&self, mut each: impl FnMut(u32, u16, u32, Kind, Vec<u8>)) {
        for ((hour, start, desk, kind), bids) in &self.groups {
            let mut bytes = Vec::new();
            if *kind != Kind::Loss && bids.serialize_into(&mut bytes).is_ok() {
                each(*start, *desk, *hour, *kind, bytes);
            }
        }
    }

    /// Takes in a group of a journal; whether it could be read.
    pub(super) fn take_in(
        &mut self,
        start: u32,
        desk: u16,
        hour: u32,
        kind: Kind,
        bids: &[u8],
    ) -> bool {
        let Ok(bids) = RoaringTreemap::deserialize_from(bids) else {
            return false;
        };
        *self.groups.entry((hour, start, desk, kind)).or_default() |= bids;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bid(start: u32, sequence: u64) -> BidNumber {
        BidNumber {
            start,
            desk: 3,
            sequence,
        }
    }

    #[test]
    fn each_notice_counts_once_until_its_hour_is_forgotten() {
        let mut settled = Settled::default();
        assert!(settled.note(Kind::Bill, bid(1, 1 << 40), 7200));
        assert!(!settled.note(Kind::Bill, bid(1, 1 << 40), 7200));
        assert!(settled.note(Kind::Win, bid(1, 1 << 40), 7200));
        assert!(settled.note(Kind::Bill, bid(2, 1 << 40), 7200));
        assert!(settled.note(Kind::Bill, bid(1, 2), 10_799));
        assert!(settled.note(Kind::Bill, bid(1, 3), 10_800));
        assert_eq!(settled.len(), 5);
        settled.forget_before(10_799);
        assert_eq!(settled.len(), 5, "its hour is not over");
        settled.forget_before(10_800);
        assert_eq!(settled.len(), 1);
        assert!(settled.has(Kind::Bill, bid(1, 3), 10_800));
        assert!(!settled.has(Kind::Bill, bid(1, 2), 10_799));
    }

    #[test]
    fn a_journal_that_begins_anew_remembers_them() {
        let mut settled = Settled::default();
        for sequence in (0..100_000).step_by(7) {
            settled.note(Kind::Bill, bid(1, sequence), 3600);
        }
        settled.note(Kind::Loss, bid(1, 1), 3600);
        let mut again = Settled::default();
        settled.each(|start, desk, hour, kind, bids| {
            assert!(again.take_in(start, desk, hour, kind, &bids));
        });
        assert_eq!(again.len() + 1, settled.len());
        assert!(
            again.has(Kind::Bill, bid(1, 700), 3600) && !again.has(Kind::Bill, bid(1, 701), 3600)
        );
        assert!(!again.take_in(0, 0, 0, Kind::Bill, b"nonsense"));
    }
}
