//! The ledger: takes what decisions propose, or refuses it. `decide` only reads; whatever is promised is promised here.
//!
//! A bid is a *reservation* of the money that it would cost: one impression at a CPM of so many micros is as many nano
//! units of the currency. Each bid thread has a [`Desk`] of its own, so a commit waits for nobody. Budgets, pacing,
//! frequency caps and notices are not kept yet (a campaigns document that names them is told so); what a desk does
//! today is to give every bid an id that is unique across threads and restarts, and to count what it promised in
//! checked integers. A test request gets its id and counts nowhere.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::money::Price;
use crate::openrtb::BidId;

/// What a bid would cost, proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// CPM, and with it the nano units that one impression costs.
    pub price: Price,
    /// A test: nothing is spent.
    pub test: bool,
}

/// The ledger cannot take a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The count of what was promised would overflow.
    #[error("the ledger's count is full")]
    Full,
}

/// One bid thread's side of the ledger.
#[derive(Debug)]
pub struct Desk {
    next: u64,
    promised_nano: i64,
    promised_bids: u64,
}

impl Desk {
    /// A desk whose bid ids begin at `seed`: random, so that no two desks share a stretch of ids.
    pub fn new(seed: u64) -> Self {
        Self {
            next: seed,
            promised_nano: 0,
            promised_bids: 0,
        }
    }

    /// Takes a reservation, and gives the bid its id.
    pub fn commit(&mut self, reservation: Reservation) -> Result<BidId, Refused> {
        if !reservation.test {
            let nano = self.promised_nano.checked_add(reservation.price.micros());
            self.promised_nano = nano.ok_or(Refused::Full)?;
            self.promised_bids = self.promised_bids.saturating_add(1);
        }
        let id = BidId(scramble(self.next));
        self.next = self.next.wrapping_add(1);
        Ok(id)
    }

    /// How many bids were promised, tests left out.
    pub fn promised_bids(&self) -> u64 {
        self.promised_bids
    }

    /// What they would cost if all were won, in nano units, whatever their currencies.
    pub fn promised_nano(&self) -> i64 {
        self.promised_nano
    }
}

/// SplitMix64's finaliser: one-to-one, so ids stay unique, and an outsider cannot count our bids by them.
fn scramble(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reservation(micros: i64, test: bool) -> Reservation {
        Reservation {
            price: Price::from_micros(micros).expect("a price"),
            test,
        }
    }

    #[test]
    fn every_bid_has_an_id_of_its_own() {
        let mut desk = Desk::new(u64::MAX - 2);
        let ids: std::collections::HashSet<_> = (0..1000)
            .map(|_| desk.commit(reservation(1, false)).expect("taken"))
            .collect();
        assert_eq!(ids.len(), 1000);
        assert_eq!((desk.promised_bids(), desk.promised_nano()), (1000, 1000));
    }

    #[test]
    fn a_test_spends_nothing() {
        let mut desk = Desk::new(0);
        desk.commit(reservation(5_000_000, true)).expect("taken");
        assert_eq!((desk.promised_bids(), desk.promised_nano()), (0, 0));
    }

    #[test]
    fn a_full_count_refuses_instead_of_wrapping() {
        let mut desk = Desk {
            next: 0,
            promised_nano: i64::MAX,
            promised_bids: 0,
        };
        assert_eq!(desk.commit(reservation(1, false)), Err(Refused::Full));
        assert!(desk.commit(reservation(1, true)).is_ok());
    }
}
