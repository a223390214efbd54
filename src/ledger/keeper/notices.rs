//! What a notice does to the books.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::*;
use crate::ledger::contacts::Contact;
use crate::ledger::price::Unreadable;
use crate::ledger::records::Notice;
use crate::ledger::report::Counts;
use crate::ledger::token::Token;
use crate::money::{Price, Round};

/// What a notice says beside its token.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// The price of the impression, CPM.
    pub price: Result<Price, Unreadable>,
    /// Its currency, where one is said.
    pub currency: Result<Option<Currency>, Unreadable>,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            price: Err(Unreadable::Absent),
            currency: Ok(None),
        }
    }
}

/// What became of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It booked an impression.
    Booked,
    /// It booked one after its window: what was held for it had been released.
    Late,
    /// It was counted; money moves by another notice.
    Counted,
    /// It was taken before.
    Repeated,
    /// It is of a test, which books nothing.
    Test,
    /// Its token is too old.
    Expired,
    /// Its token is none of ours.
    Forged,
}

impl Outcome {
    /// All of them, each at its own number.
    pub const ALL: [Self; 7] = [
        Self::Booked,
        Self::Late,
        Self::Counted,
        Self::Repeated,
        Self::Test,
        Self::Expired,
        Self::Forged,
    ];

    /// Its word in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Booked => "booked",
            Self::Late => "late",
            Self::Counted => "counted",
            Self::Repeated => "repeated",
            Self::Test => "test",
            Self::Expired => "expired",
            Self::Forged => "forged",
        }
    }

    /// Whether the sender is told that all is well.
    pub const fn is_taken(self) -> bool {
        !matches!(self, Self::Expired | Self::Forged)
    }
}

/// What a notice booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Booked {
    /// What became of it.
    pub outcome: Outcome,
    /// Nano units.
    pub nano: i64,
}

impl Keeper {
    /// Takes a notice. What it changes is in the journal's next bytes; the sender may be told once they are written.
    pub fn notice(&mut self, kind: Kind, token: &Token, said: Said, now: Timestamp) -> Booked {
        self.clock(now);
        let (outcome, nano) = self.take_notice(kind, token, said);
        self.count(outcome);
        Booked { outcome, nano }
    }

    /// Counts a notice that never came to be looked at.
    pub fn count(&mut self, outcome: Outcome) {
        if let Some(count) = self.counters.notices.get_mut(outcome as usize) {
            *count = count.saturating_add(1);
        }
    }

    fn take_notice(&mut self, kind: Kind, token: &Token, said: Said) -> (Outcome, i64) {
        let window = self.window(token.exchange);
        let valid = window.saturating_add(TOKEN_SECONDS);
        if token.at.saturating_add(valid) < self.now || self.settled.has_forgotten(token.at) {
            return (Outcome::Expired, 0);
        }
        if token.test {
            return (Outcome::Test, 0);
        }
        if !self.settled.note(kind, token.bid, token.at) {
            return (Outcome::Repeated, 0);
        }
        let books = kind == token.bills;
        if kind == Kind::Loss {
            self.release_bid(token);
            return (Outcome::Counted, 0);
        }
        let late = token.at.saturating_add(window) < self.now;
        let booked = books.then(|| self.charge(token, said));
        let notice = Notice {
            kind,
            bid: token.bid,
            bid_at: token.at,
            at: self.now,
            row: row_of(token),
            booked,
            reserved: token.nano,
            late,
            accounts: match books {
                true => self.accounts_of(token),
                false => Vec::new(),
            },
            keys: match books {
                true => token.keys.to_vec(),
                false => Vec::new(),
            },
            remembered: token.remembered,
            segments: token.segments.to_vec(),
        };
        self.write(&Record::Notice(notice.clone()));
        if let Some(nano) = booked {
            self.let_go_of(token, nano);
        }
        self.book(&notice);
        match booked {
            Some(nano) if late => {
                self.counters.late_nano = self.counters.late_nano.saturating_add(nano);
                (Outcome::Late, nano)
            }
            Some(nano) => (Outcome::Booked, nano),
            None => (Outcome::Counted, 0),
        }
    }

    /// What an impression costs: the notice's price where it can be read, in the bid's currency and no more than was bid.
    fn charge(&mut self, token: &Token, said: Said) -> i64 {
        let bid = token.price_micros.max(1);
        let said = said.price.and_then(|price| Ok((price, said.currency?)));
        let price = match said {
            Ok((price, currency)) => {
                let from = currency.unwrap_or(token.currency);
                let rates = &self.terms.rates;
                rates.convert(price, from, token.currency, Round::Up)
            }
            Err(why) => {
                let count = self.counters.prices_unreadable.get_mut(why as usize);
                if let Some(count) = count {
                    *count = count.saturating_add(1);
                }
                return token.nano;
            }
        };
        let Some(price) = price.map(Price::micros) else {
            self.counters.prices_unconverted = self.counters.prices_unconverted.saturating_add(1);
            return token.nano;
        };
        if price > bid {
            self.counters.prices_over = self.counters.prices_over.saturating_add(1);
            return token.nano;
        }
        let scaled = i128::from(token.nano).saturating_mul(price.into());
        let up = scaled
            .saturating_add(i128::from(bid).saturating_sub(1))
            .checked_div(bid.into());
        up.and_then(|nano| i64::try_from(nano).ok())
            .unwrap_or(token.nano)
    }

    /// Enters a notice into the books, now or when the journal is read.
    pub(super) fn book(&mut self, notice: &Notice) {
        // A notice that bills nothing on this exchange is no impression beside the one that does.
        let is_impression = notice.booked.is_some();
        // Won is a bid once, whichever of its notices says so first: a sum over bids is right whatever it is by.
        let other = match notice.kind {
            Kind::Win => Some(Kind::Bill),
            Kind::Bill => Some(Kind::Win),
            Kind::Loss | Kind::Click => None,
        };
        let is_won = other.is_some_and(|other| !self.settled.has(other, notice.bid, notice.bid_at));
        let counts = Counts {
            bids: 0,
            wins: u64::from(is_won),
            impressions: u64::from(is_impression),
            clicks: u64::from(notice.kind == Kind::Click),
            spend: notice.booked.unwrap_or(0),
        };
        self.report.row(notice.row).add(&counts);
        for segment in &notice.segments {
            self.report.segment(notice.row, *segment).add(&counts);
        }
        let Some(nano) = notice.booked else {
            return;
        };
        let spent = self.spent.entry(notice.row.currency).or_default();
        *spent = spent.saturating_add(nano);
        for number in &notice.accounts {
            if let Some(account) = self.accounts.get_mut(number) {
                account.spent = account.spent.saturating_add(nano);
                if notice.late {
                    // It was nowhere held any more: what open bids hold must stay covered.
                    account.level = account.level.saturating_add(nano);
                }
                account.change(*number, nano);
            }
        }
        let until = notice.bid_at.saturating_add(notice.remembered);
        let contact = Contact::settled(notice.bid_at, until, notice.row.scopes);
        for key in &notice.keys {
            self.frequency.settle(
                *key,
                Some(notice.bid.short()),
                contact,
                self.now.max(notice.at),
            );
        }
    }

    /// A loss notice: what was held for the bid is free, unless it was booked or its window is over.
    fn release_bid(&mut self, token: &Token) {
        let is_settled = [Kind::Bill, Kind::Win]
            .iter()
            .any(|kind| self.settled.has(*kind, token.bid, token.at));
        // Of an earlier run's bids only the sum is known; it stays held.
        if is_settled || token.bid.start != self.start {
            return;
        }
        self.flow_out(token, None);
        self.let_go_of_slices(token);
        for key in &token.keys {
            self.frequency.let_go(*key, token.bid.short());
        }
    }

    /// What was held for a bid is not needed any more: it is booked.
    fn let_go_of(&mut self, token: &Token, nano: i64) {
        if token.bid.start == self.start {
            if !self.settled.has(Kind::Loss, token.bid, token.at) {
                self.flow_out(token, Some(nano));
                self.let_go_of_slices(token);
            }
            return;
        }
        for number in &token.accounts {
            if let Some(account) = self.accounts.get_mut(number) {
                // What was spent of it; what the bid held beyond that stays held as long as the rest.
                let part = account.before.min(nano);
                account.before = account.before.saturating_sub(part);
                account.change(*number, part.saturating_neg());
            }
        }
    }

    fn let_go_of_slices(&mut self, token: &Token) {
        let wanted = self.slice_number(token.exchange, token.at);
        for number in &token.accounts {
            let Some(account) = self.accounts.get_mut(number) else {
                continue;
            };
            let Some(slices) = account.slices_of(token.exchange) else {
                continue;
            };
            let Ok(at) = slices.binary_search_by_key(&wanted, |slice| slice.number) else {
                continue;
            };
            let Some(slice) = slices.get_mut(at) else {
                continue;
            };
            let share = share_of(slice.held, token.nano, slice.open);
            slice.open = slice.open.saturating_sub(token.nano).max(0);
            slice.held = slice.held.saturating_sub(share);
            account.release(*number, share);
        }
    }

    /// A contact that another channel reports: for whom, when, of what.
    pub fn exposure(&mut self, key: u64, at: u32, scopes: Scopes, remembered: u32, now: Timestamp) {
        self.clock(now);
        let until = at.saturating_add(remembered);
        self.write(&Record::Contact {
            key,
            at,
            until,
            scopes,
        });
        self.frequency
            .settle(key, None, Contact::settled(at, until, scopes), self.now);
    }
}

fn row_of(token: &Token) -> Key {
    Key {
        hour: token.at / 3600,
        scopes: token.scopes,
        creative: token.creative,
        exchange: token.exchange,
        currency: token.spends,
    }
}
