//! What a decision may ask of the ledger: may this line item bid that much, for this person, now? It only reads.
//!
//! Whoever is told yes may still be refused when the bid is committed, for others bid meanwhile; whoever is told no is
//! out. One is in each bid thread's scratch, with the person's recent contacts in it, copied once a request when a
//! capped line item first asks.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use arrayvec::ArrayVec;
use std::sync::atomic::Ordering::Relaxed;

use super::account::{Day, Purses};
use super::contacts::{Contact, Count, Scope, counted};
use super::frequency::{FrequencyKey, key_of};
use super::plan::{Line, Plan};
use super::token::KEYS_MAX;
use crate::campaigns::Book;
use crate::clock::Timestamp;
use crate::ids::UserKey;

/// Why a line item may not bid now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It, what it belongs to, the exchange or everything is switched off, or the ledger cannot write.
    Stopped,
    /// Its budget, or what is lent of it, does not hold the price.
    Budget,
    /// Its pacing leaves this request to others.
    Paced,
    /// The person was shown as much as a cap allows.
    Capped,
    /// It is capped, and there is no permitted id to count under.
    Nobody,
    /// It is capped, and how often the person was shown something cannot be told now.
    Unknown,
}

/// A person's history under one key: where in the copy.
#[derive(Debug, Clone, Copy)]
struct History {
    from: usize,
    until: usize,
}

/// What was asked so far, and what is drawn. Scratch of a bid thread. One by default allows everything, for whoever asks what
/// would be bid and is not going to.
#[derive(Debug, Default)]
pub struct Allowances {
    /// Whether anything is asked; otherwise everything is allowed.
    asks: bool,
    /// Whether the smallest number is drawn every time.
    explains: bool,
    plan: u64,
    now: u32,
    now_ms: i64,
    drawn: u32,
    random: u64,
    keys: ArrayVec<FrequencyKey, KEYS_MAX>,
    contacts: Vec<Contact>,
    histories: ArrayVec<History, KEYS_MAX>,
    is_copied: bool,
    unknown: bool,
    /// What is lent of this account did not hold so much.
    wanted: Option<(u32, i64)>,
    /// By zone: the day, from when to when, in milliseconds.
    days: Vec<Option<(Day, i64, i64)>>,
}

impl Allowances {
    /// Which draws its numbers from that seed.
    pub fn seeded(seed: u64) -> Self {
        Self {
            asks: true,
            random: seed,
            ..Self::default()
        }
    }

    /// Which takes part in every request that its pacing leaves anything of: for explanations.
    pub fn explaining() -> Self {
        Self {
            asks: true,
            explains: true,
            ..Self::default()
        }
    }

    /// Begins a request: nobody is known yet.
    pub fn begin(&mut self, plan: &Plan, now: Timestamp) {
        if self.plan != plan.number {
            self.plan = plan.number;
            self.days.clear();
        }
        self.now_ms = now.unix_ms;
        self.now = u32::try_from(now.unix_seconds()).unwrap_or(0);
        self.keys.clear();
        self.is_copied = false;
        self.unknown = false;
        // SplitMix64: one number a request, so that imps of a request are paced together.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = self.random;
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.drawn = if self.explains { 0 } else { (x >> 32) as u32 };
    }

    /// The person, by what may be used of the request's ids.
    pub fn counts_under(&mut self, plan: &Plan, keys: impl Iterator<Item = UserKey>) {
        self.keys.clear();
        self.keys.extend(keys.take(KEYS_MAX).map(key_of));
        // Asked for when line items are found and priced, a while from now.
        for key in &self.keys {
            plan.frequency.prefetch(*key);
        }
    }

    pub(super) fn keys(&self) -> &[FrequencyKey] {
        &self.keys
    }

    /// Seconds since 1970.
    pub(super) fn now(&self) -> u32 {
        self.now
    }

    /// Whether a line item may bid so much, in nano units of its budgets. `beside`: places of line items that bid for other imps
    /// of the request, one for each of their bids.
    pub fn allow(
        &mut self,
        plan: &Plan,
        book: &Book,
        line_item: u32,
        exchange: usize,
        nano: i64,
        beside: impl Iterator<Item = u32> + Clone,
    ) -> Result<(), Refused> {
        if !self.asks || !plan.is_kept() {
            return Ok(());
        }
        let line = plan.line(line_item).ok_or(Refused::Stopped)?;
        let is_stopped = plan.stopped.load(Relaxed)
            || plan.halted.load(Relaxed)
            || line.state.stopped.load(Relaxed)
            || plan
                .exchanges
                .get(exchange)
                .is_none_or(|exchange| exchange.stopped.load(Relaxed));
        if is_stopped {
            return Err(Refused::Stopped);
        }
        if !self.has_room(line, book, nano) {
            return Err(Refused::Budget);
        }
        if !line.state.takes_part(self.drawn) {
            return Err(Refused::Paced);
        }
        if line.caps.is_empty() {
            return Ok(());
        }
        self.under_caps(plan, line, beside)
    }

    fn has_room(&mut self, line: &Line, book: &Book, nano: i64) -> bool {
        if line.limits.is_empty() {
            return true;
        }
        let Some(day) = self.day(line, book) else {
            return false;
        };
        for limit in &line.limits {
            let Some(purse) = limit.purses.on(day) else {
                return false;
            };
            if purse.room(limit.nano) < nano {
                if limit.nano.saturating_sub(purse.used()) >= nano {
                    self.wanted = Some((purse.account(), nano));
                }
                return false;
            }
        }
        true
    }

    /// An account of which more should be lent: it would have had room for so much.
    pub(super) fn take_wanted(&mut self) -> Option<(u32, i64)> {
        self.wanted.take()
    }

    /// The line item's day. Found out once a day and zone.
    pub(super) fn day(&mut self, line: &Line, book: &Book) -> Option<Day> {
        let zone = usize::try_from(line.zone).ok()?;
        if self.days.len() <= zone {
            self.days.resize(zone.saturating_add(1), None);
        }
        let known = self.days.get_mut(zone)?;
        if let Some((day, from, until)) = *known
            && (from..until).contains(&self.now_ms)
        {
            return Some(day);
        }
        *known = book.local_day(line.zone, Timestamp::from_unix_ms(self.now_ms));
        known.map(|(day, ..)| day)
    }

    fn copy(&mut self, plan: &Plan) {
        self.is_copied = true;
        self.contacts.clear();
        self.histories.clear();
        for key in &self.keys {
            let from = self.contacts.len();
            let copied = plan.frequency.copy(*key, self.now, &mut self.contacts);
            self.unknown |= copied.is_none();
            let until = self.contacts.len();
            self.histories.push(History { from, until });
        }
    }

    fn under_caps(
        &mut self,
        plan: &Plan,
        line: &Line,
        beside: impl Iterator<Item = u32> + Clone,
    ) -> Result<(), Refused> {
        if self.keys.is_empty() {
            return match line.uncapped_without_id {
                true => Ok(()),
                false => Err(Refused::Nobody),
            };
        }
        if self.now < plan.caps_unknown_until {
            return Err(Refused::Unknown);
        }
        if !self.is_copied {
            self.copy(plan);
        }
        if self.unknown {
            return Err(Refused::Unknown);
        }
        let is_alone = beside.clone().next().is_none();
        for history in &self.histories {
            let contacts = self.contacts.get(history.from..history.until);
            let contacts = contacts.unwrap_or(&[]);
            if contacts.is_empty() && is_alone {
                continue;
            }
            let mut count = Count::under(&line.caps, line.scopes, self.now);
            contacts.iter().for_each(|contact| count.add(contact));
            // The other imps' bids are not held yet.
            let others = beside.clone().filter_map(|other| plan.line(other));
            for other in others.filter(|other| !other.caps.is_empty()) {
                count.add_beside(&other.scopes);
            }
            if count.is_reached() {
                return Err(Refused::Capped);
            }
        }
        Ok(())
    }

    /// For people: each cap of a line item and how many contacts count under it, the largest of the person's histories; and each
    /// budget's limit and what is left to take.
    pub fn state(&mut self, plan: &Plan, book: &Book, line_item: u32) -> Option<State> {
        let line = plan.line(line_item).filter(|_| self.asks)?;
        if !self.is_copied {
            self.copy(plan);
        }
        let caps = line.caps.iter().map(|cap| {
            let shown = self.histories.iter().map(|history| {
                let contacts = self.contacts.get(history.from..history.until);
                counted(cap, &line.scopes, contacts.unwrap_or(&[]), self.now)
            });
            (*cap, shown.max())
        });
        let caps = caps.collect();
        let day = self.day(line, book);
        let budgets = line.limits.iter().map(|limit| {
            let purse = day.and_then(|day| limit.purses.on(day));
            BudgetState {
                of: limit.of,
                is_day: matches!(limit.purses, Purses::Day(_)),
                limit: limit.nano,
                used: purse.map(|purse| purse.used()),
                lent: purse.map(|purse| purse.room(limit.nano).max(0)),
            }
        });
        Some(State {
            budgets: budgets.collect(),
            share: f64::from(line.state.share.load(Relaxed)) / f64::from(super::plan::ALWAYS),
            stopped: line.state.stopped.load(Relaxed)
                || plan.stopped.load(Relaxed)
                || plan.halted.load(Relaxed),
            caps,
        })
    }
}

/// How a budget stands, in nano units.
#[derive(Debug, Clone, Copy)]
pub struct BudgetState {
    /// Whose it is.
    pub of: Scope,
    /// Whether it is of a day.
    pub is_day: bool,
    /// What may be spent.
    pub limit: i64,
    /// What is spent, or held for open bids; nothing while its day is not open.
    pub used: Option<i64>,
    /// What may be bid without asking further.
    pub lent: Option<i64>,
}

/// How a line item stands with the ledger.
#[derive(Debug)]
pub struct State {
    /// Its budgets.
    pub budgets: Vec<BudgetState>,
    /// With which probability it takes part.
    pub share: f64,
    /// Whether it is switched off.
    pub stopped: bool,
    /// Its caps, and how many contacts count; nothing where nobody is known.
    pub caps: Vec<(super::contacts::ScopedCap, Option<usize>)>,
}
