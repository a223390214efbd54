//! What metrics say of the books, as of the last tick.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::*;

/// Money of one currency, in nano units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Booked.
    pub spent: i64,
    /// Held for open bids.
    pub reserved: i64,
    /// What open bids would cost beyond what is held for them, if all were won: more than that no budget is overspent by bids
    /// whose notices come within their windows.
    pub bound: i64,
    /// Spent beyond live budgets, line items', campaigns' and advertisers' added up.
    pub overspent: i64,
}

/// The books in figures.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// By currency.
    pub sums: BTreeMap<Currency, Sums>,
    /// What was counted since the start.
    pub counters: Counters,
    /// Contacts that are remembered for frequency caps: one for each id of whom was shown something.
    pub contacts: usize,
    /// Contacts that were paid for and had no room.
    pub contacts_forgotten: u64,
    /// Notices that are remembered so as not to count them twice.
    pub notices_remembered: u64,
    /// Accounts.
    pub accounts: usize,
    /// Rows of the report.
    pub report_rows: usize,
    /// How far the system's clock is ahead of the ledger's time; 0 while it is believed.
    pub clock_ahead_ms: i64,
}

impl Keeper {
    /// The books in figures.
    pub fn figures(&self) -> Figures {
        let known = self.terms.rates.currencies();
        let mut sums: BTreeMap<Currency, Sums> =
            known.map(|currency| (currency, Sums::default())).collect();
        for (currency, spent) in &self.spent {
            sums.entry(*currency).or_default().spent = *spent;
        }
        for ((_, currency), flows) in &self.flows {
            let sum = sums.entry(*currency).or_default();
            for flow in flows {
                sum.reserved = sum.reserved.saturating_add(flow.held);
                sum.bound = sum
                    .bound
                    .saturating_add(flow.open.saturating_sub(flow.held));
            }
        }
        for open in self.open.values().filter(|open| open.limit > 0) {
            let purses: &[Arc<Purse>] = match &open.purses {
                Purses::Total(purse) => std::slice::from_ref(purse),
                Purses::Day(days) => days,
            };
            for account in purses
                .iter()
                .filter_map(|purse| self.accounts.get(&purse.account()))
            {
                let over = account.spent.saturating_sub(open.limit).max(0);
                let sum = sums.entry(open.currency).or_default();
                sum.overspent = sum.overspent.saturating_add(over);
            }
        }
        Figures {
            sums,
            counters: self.counters,
            contacts: self.frequency.contacts(),
            contacts_forgotten: self.frequency.forgotten(),
            notices_remembered: self.settled.len(),
            accounts: self.accounts.len(),
            report_rows: self.report.len(),
            clock_ahead_ms: 0,
        }
    }
}
