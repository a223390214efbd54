//! What bid threads see of an account: a purse of three atomics.
//!
//! An *account* is what may be spent of one budget: that of a line item, a campaign or an advertiser, in all or on one day of the
//! advertiser's. Its purse says how much of it is *used* (spent, and held for bids that are still open) and how much is
//! *allowed*: the lease, which the journal holds before it is allowed here, so that after a crash everything that may have been
//! promised is known. A bid takes from the purse or is refused; nobody waits.
//!
//! Invariant: `used <= allowed` but for what is booked past its window, and every `allowed` that a bid thread could have taken
//! from is in the journal. Cost: one compare-and-swap a purse and bid.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, Ordering::SeqCst};

/// A day as a number: days since 1970-01-01, in the advertiser's calendar.
pub type Day = i32;

/// The day of a purse that is of no day: a total's.
pub(super) const NO_DAY: Day = i32::MIN;

/// The largest amount that an account can hold: sums of several stay far from the ends of an `i64`.
pub(super) const NANOS_MAX: i64 = i64::MAX / 8;

/// One account's money as bid threads see it, in nano units.
#[derive(Debug)]
pub(super) struct Purse {
    /// The account's number in the journal.
    account: AtomicU32,
    day: AtomicI32,
    used: AtomicI64,
    allowed: AtomicI64,
}

impl Purse {
    /// Of an account, empty: nothing is allowed yet.
    pub(super) fn new(account: u32, day: Day) -> Self {
        Self {
            account: AtomicU32::new(account),
            day: AtomicI32::new(day),
            used: AtomicI64::new(0),
            allowed: AtomicI64::new(0),
        }
    }

    pub(super) fn account(&self) -> u32 {
        self.account.load(SeqCst)
    }

    pub(super) fn day(&self) -> Day {
        self.day.load(SeqCst)
    }

    pub(super) fn used(&self) -> i64 {
        self.used.load(SeqCst)
    }

    pub(super) fn allowed(&self) -> i64 {
        self.allowed.load(SeqCst)
    }

    /// What could be taken now under a limit.
    pub(super) fn room(&self, limit: i64) -> i64 {
        limit.min(self.allowed()).saturating_sub(self.used())
    }

    /// Takes an amount where it is there.
    pub(super) fn take(&self, nano: i64, limit: i64) -> bool {
        let most = limit.min(self.allowed());
        let taken = self.used.fetch_update(SeqCst, SeqCst, |used| {
            used.checked_add(nano).filter(|after| *after <= most)
        });
        let Ok(before) = taken else {
            return false;
        };
        // The lease may have been cut meanwhile; whoever cuts it looks at `used` afterwards, so that one of the two sees the other.
        if before.saturating_add(nano) > self.allowed() {
            self.change(nano.saturating_neg());
            return false;
        }
        true
    }

    /// Adds to what is used; the ledger's own thread may take it past what is allowed.
    pub(super) fn change(&self, nano: i64) {
        let _ = self.used.fetch_update(SeqCst, SeqCst, |used| {
            Some(used.saturating_add(nano).clamp(-NANOS_MAX, NANOS_MAX))
        });
    }

    /// Allows more, which the journal holds by now.
    pub(super) fn allow(&self, level: i64) {
        self.allowed.store(level, SeqCst);
    }

    /// Becomes another day's. Nobody takes from it: its own day is over since hours, the other has not begun.
    pub(super) fn turn(&self, account: u32, day: Day, used: i64) {
        self.day.store(NO_DAY, SeqCst);
        self.allowed.store(0, SeqCst);
        self.account.store(account, SeqCst);
        self.used.store(used, SeqCst);
        self.day.store(day, SeqCst);
    }
}

/// The purses of one budget.
#[derive(Debug, Clone)]
pub(super) enum Purses {
    /// Of the total.
    Total(Arc<Purse>),
    /// Of days, even and odd: while one is spent from, the next is got ready.
    Day([Arc<Purse>; 2]),
}

impl Purses {
    /// The one to take from on that day; none before it is ready.
    pub(super) fn on(&self, day: Day) -> Option<&Arc<Purse>> {
        match self {
            Self::Total(purse) => Some(purse),
            Self::Day([even, odd]) => {
                let purse = if day & 1 == 0 { even } else { odd };
                (purse.day() == day).then_some(purse)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purse_gives_what_is_allowed_and_no_more() {
        let purse = Purse::new(7, NO_DAY);
        assert!(!purse.take(1, 100), "nothing is allowed yet");
        purse.allow(50);
        assert!(purse.take(30, 100));
        assert!(!purse.take(21, 100), "the lease");
        assert!(!purse.take(20, 49), "the limit");
        assert!(purse.take(20, 100));
        assert_eq!((purse.used(), purse.room(100)), (50, 0));
        purse.change(-50);
        purse.allow(i64::MAX);
        assert!(!purse.take(i64::MAX, 100));
        assert!(purse.take(100, 100));
        assert!(!purse.take(i64::MAX, i64::MAX), "no overflow");
    }

    #[test]
    fn threads_together_take_no_more_than_is_allowed() {
        let purse = Purse::new(0, NO_DAY);
        purse.allow(10_000);
        let taken: i64 = std::thread::scope(|threads| {
            let takers = [3, 7, 11].map(|nano| {
                let purse = &purse;
                threads.spawn(move || {
                    let mut taken = 0;
                    for _ in 0..5_000 {
                        taken += i64::from(purse.take(nano, i64::MAX)) * nano;
                        if taken % 2 == 1 {
                            purse.change(-nano);
                            taken -= nano;
                        }
                    }
                    taken
                })
            });
            takers
                .into_iter()
                .map(|taker| taker.join().expect("no panic"))
                .sum()
        });
        assert_eq!(purse.used(), taken);
        assert!(taken <= 10_000);
    }

    #[test]
    fn a_purse_of_another_day_is_not_there() {
        let purses = Purses::Day([Arc::new(Purse::new(1, 20)), Arc::new(Purse::new(2, 21))]);
        assert_eq!(purses.on(20).map(|purse| purse.account()), Some(1));
        assert_eq!(purses.on(21).map(|purse| purse.account()), Some(2));
        assert!(purses.on(22).is_none() && purses.on(-20).is_none());
        purses.on(20).expect("there").turn(3, 22, 5);
        let purse = purses.on(22).expect("turned");
        assert_eq!((purse.account(), purse.used(), purse.allowed()), (3, 5, 0));
        assert!(purses.on(20).is_none());
    }
}
