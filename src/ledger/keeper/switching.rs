//! What is switched off, and what the books are asked.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::ledger::plan::ALWAYS;
use crate::ledger::switches::Switch;

/// How a budget stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whose it is: `line_item`, `campaign` or `advertiser`, and its name.
    pub of: (&'static str, String),
    /// The day, in days since 1970; nothing for a total.
    pub day: Option<Day>,
    /// Of all amounts, which are nano units.
    pub currency: Currency,
    /// What may be spent.
    pub limit: i64,
    /// What is.
    pub spent: i64,
    /// What is held for open bids.
    pub reserved: i64,
    /// What of `reserved` is held because a crash forgot which bids were open.
    pub forgotten: i64,
    /// What bid threads may take without asking.
    pub lent: i64,
}

impl Keeper {
    /// Switches something off, or on again. True where that changes anything.
    pub fn switch(&mut self, switch: Switch, off: bool) -> bool {
        let changes = match off {
            true => self.off.insert(switch.clone()),
            false => self.off.remove(&switch),
        };
        if changes {
            let name = switch.told().1.into();
            self.write(&Record::Switch {
                kind: switch.number(),
                name,
                off,
            });
            self.apply_switches();
        }
        changes
    }

    /// What is off.
    pub fn off(&self) -> impl Iterator<Item = &Switch> {
        self.off.iter()
    }

    /// The names of exchanges that are configured.
    pub fn exchanges(&self) -> impl Iterator<Item = &str> {
        self.terms.exchanges.iter().map(|of| &*of.name)
    }

    /// Tells bid threads what is off.
    pub(super) fn apply_switches(&self) {
        let named = self.off.iter().filter_map(Switch::named);
        let numbers = named.filter_map(|(kind, name)| self.names.get(&(kind, name.into())));
        let numbers: std::collections::HashSet<u32> = numbers.copied().collect();
        self.halted
            .store(self.off.contains(&Switch::Everything), SeqCst);
        for exchange in &self.exchanges {
            exchange
                .stopped
                .store(numbers.contains(&exchange.number), SeqCst);
        }
        for (scopes, state) in self.lines.values() {
            let levels = [scopes.line_item, scopes.campaign, scopes.advertiser];
            let is_off = levels.iter().any(|number| numbers.contains(number));
            state.stopped.store(is_off, SeqCst);
        }
    }

    /// Each line item that is paced or stopped now, in the order of names: in which share of its requests it takes part, and whether
    /// it is switched off.
    pub fn paces(&self) -> Vec<(String, f64, bool)> {
        let lines = self.lines.values().map(|(scopes, state)| {
            let share = f64::from(state.share.load(SeqCst)) / f64::from(ALWAYS);
            let name = self.text(scopes.line_item).to_owned();
            (name, share, state.stopped.load(SeqCst))
        });
        let mut all: Vec<_> = lines
            .filter(|(_, share, stopped)| *share < 1.0 || *stopped)
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// How each live budget stands, in the order of names; a day's only while it is open.
    pub fn standings(&self) -> Vec<Standing> {
        let mut all = Vec::new();
        for open in self.open.values().filter(|open| open.limit > 0) {
            let purses: &[Arc<Purse>] = match &open.purses {
                Purses::Total(purse) => std::slice::from_ref(purse),
                Purses::Day(days) => days,
            };
            let today = day_in(&open.zone, self.now_ms);
            for purse in purses {
                let Some(account) = self.accounts.get(&purse.account()) else {
                    continue;
                };
                if account.day != NO_DAY && Some(account.day) != today {
                    continue;
                }
                let kind = place(account.of).and_then(|place| self.texts.get(place));
                let word = match kind {
                    Some((NameKind::LineItem, _)) => "line_item",
                    Some((NameKind::Campaign, _)) => "campaign",
                    _ => "advertiser",
                };
                all.push(Standing {
                    of: (word, self.text(account.of).to_owned()),
                    day: (account.day != NO_DAY).then_some(account.day),
                    currency: open.currency,
                    limit: open.limit,
                    spent: account.spent,
                    reserved: account.held.saturating_add(account.before),
                    forgotten: account.before,
                    lent: purse.allowed().saturating_sub(purse.used()),
                });
            }
        }
        all.sort_by(|a, b| (&a.of, a.day).cmp(&(&b.of, b.day)));
        all
    }
}
