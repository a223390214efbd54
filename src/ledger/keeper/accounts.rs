//! From a book's budgets to accounts, purses and leases.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::*;
use crate::campaigns::Pacing;
use crate::ledger::plan::ALWAYS;
use crate::ledger::token::Token;

/// A lease holds at least this part of the limit.
const LEASE_PARTS: i64 = 256;
/// And what so many seconds take of late.
const LEASE_SECONDS: i64 = 10;
/// And so many of the largest bids.
const LEASE_BIDS: i64 = 64;

impl Keeper {
    /// The ledger's side of a book that is to be live: opens what accounts it needs. The first leases are in the journal's
    /// next bytes.
    pub fn plan(&mut self, book: &Book, now: Timestamp) -> Plan {
        self.clock(now);
        self.plans = self.plans.saturating_add(1);
        // What the new book does not name is limited by nothing, and lends nothing.
        for open in self.open.values_mut() {
            open.limit = 0;
            open.largest = 0;
            open.until_ms = Some(i64::MIN);
        }
        let advertisers: Vec<u32> = book
            .advertisers
            .iter()
            .map(|of| self.name(NameKind::Advertiser, &of.id))
            .collect();
        let creatives = book
            .creatives
            .iter()
            .map(|of| self.name(NameKind::Creative, &of.id))
            .collect();
        let segments = book
            .segments
            .iter()
            .map(|of| self.name(NameKind::Segment, &of.to_string()))
            .collect();
        self.paced.clear();
        self.zones.clear();
        let lines: Box<[Line]> = book
            .line_items
            .iter()
            .map(|line_item| self.line(book, line_item, &advertisers))
            .collect();
        let live: std::collections::HashSet<u32> =
            lines.iter().map(|line| line.scopes.line_item).collect();
        self.lines.retain(|line_item, _| live.contains(line_item));
        self.see_from(self.plans, &lines);
        self.apply_switches();
        self.open_days();
        self.pace(1.0);
        self.renew_leases();
        let has_caps = lines.iter().any(|line| !line.caps.is_empty());
        if has_caps {
            self.frequency.get_ready();
        }
        Plan {
            number: self.plans,
            has_caps,
            lines,
            creatives,
            segments,
            exchanges: self.exchanges.iter().map(Arc::clone).collect(),
            caps_unknown_until: self.caps_unknown_until,
            frequency: Arc::clone(&self.frequency),
            stopped: Arc::clone(&self.stopped),
            halted: Arc::clone(&self.halted),
            hold_seconds: match self.terms.mode {
                BudgetMode::Bounded => Some(CAP_HOLD_SECONDS),
                BudgetMode::Strict => None,
            },
        }
    }

    fn line(&mut self, book: &Book, line_item: &LineItem, advertisers: &[u32]) -> Line {
        let advertiser = place(line_item.advertiser).and_then(|place| book.advertisers.get(place));
        let scopes = Scopes {
            line_item: self.name(NameKind::LineItem, &line_item.id),
            campaign: self.name(NameKind::Campaign, &line_item.campaign),
            advertiser: place(line_item.advertiser)
                .and_then(|place| advertisers.get(place).copied())
                .unwrap_or(u32::MAX),
        };
        let campaign = book.campaign_of(line_item);
        let levels: [(u32, Budget, &[Cap], Scope); 3] = [
            (
                scopes.line_item,
                line_item.budget,
                &line_item.caps,
                Scope::LineItem,
            ),
            (
                scopes.campaign,
                campaign.map_or_else(Budget::default, |of| of.budget),
                campaign.map_or(&[], |of| &of.caps),
                Scope::Campaign,
            ),
            (
                scopes.advertiser,
                advertiser.map_or_else(Budget::default, |of| of.budget),
                advertiser.map_or(&[], |of| &of.caps),
                Scope::Advertiser,
            ),
        ];
        self.zones
            .insert(scopes.advertiser, book.zone_of(line_item).clone());
        let largest = line_item.pricing.most().micros();
        let currency = currency_of(line_item, advertiser);
        let mut limits = arrayvec::ArrayVec::new();
        let mut caps = Vec::new();
        let mut budgets = Vec::new();
        let until = line_item.flight.end.map(|end| end.unix_ms);
        for (of, budget, own, scope) in levels {
            for (limit, is_day) in [(budget.day, true), (budget.total, false)] {
                if let Some(limit) = limit {
                    // What cannot be counted in another currency has nothing to spend.
                    let nano = match self.is_counted_in(of, currency) {
                        true => limit.nanos.min(NANOS_MAX),
                        false => 0,
                    };
                    let purses = self.purses(
                        of,
                        is_day,
                        nano,
                        (book.zone_of(line_item), currency),
                        largest,
                        until,
                    );
                    budgets.push((of, is_day));
                    limits.push(Limit {
                        of: scope,
                        nano,
                        purses,
                    });
                }
            }
            caps.extend(own.iter().map(|cap| ScopedCap {
                count: cap.count,
                seconds: cap.seconds,
                scope,
            }));
        }
        let remembered = caps.iter().map(|cap| cap.seconds).max().unwrap_or(0);
        let (_, state) = self
            .lines
            .entry(scopes.line_item)
            .and_modify(|(known, _)| *known = scopes)
            .or_insert_with(|| (scopes, Arc::default()));
        let state = Arc::clone(state);
        state
            .share
            .store(ALWAYS, std::sync::atomic::Ordering::Relaxed);
        let pacing = line_item.pacing.unwrap_or(Pacing::Even);
        if !budgets.is_empty() && pacing != Pacing::Asap {
            self.paced.push(Paced {
                state: Arc::clone(&state),
                pacing,
                budgets,
            });
        }
        Line {
            scopes,
            zone: line_item.zone(),
            currency,
            limits,
            caps: caps.into(),
            remembered,
            uncapped_without_id: line_item.uncapped_without_id,
            is_active: line_item.status == crate::campaigns::Status::Active,
            state,
        }
    }

    /// The accounts that a billed bid is booked on: those that it was taken from, and those of whom it is that had no budget then,
    /// so that one that is set later knows what was spent before.
    pub(super) fn accounts_of(&mut self, token: &Token) -> Vec<u32> {
        let mut all = token.accounts.to_vec();
        let Scopes {
            line_item,
            campaign,
            advertiser,
        } = token.scopes;
        let zone = self.zones.get(&advertiser);
        let day = zone.and_then(|zone| day_in(zone, i64::from(token.at).saturating_mul(1_000)));
        for of in [line_item, campaign, advertiser] {
            for day in [Some(NO_DAY), day].into_iter().flatten() {
                let mut taken = token.accounts.iter();
                let has_its_own = taken.any(|number| {
                    let account = self.accounts.get(number);
                    account.is_some_and(|account| {
                        account.of == of && (account.day == NO_DAY) == (day == NO_DAY)
                    })
                });
                let is_own = || *self.currencies.get(&of).unwrap_or(&token.spends) == token.spends;
                if of != u32::MAX && !has_its_own && is_own() {
                    self.set_currency(of, token.spends);
                    all.push(self.account(of, day));
                }
            }
        }
        all
    }

    fn set_currency(&mut self, of: u32, currency: Currency) {
        if self.currencies.insert(of, currency) != Some(currency) {
            self.write(&Record::Currency { of, currency });
        }
    }

    /// Whether somebody's accounts are in this currency, or can be: what was spent in another is converted once, at the rate of
    /// then, and what is open in it is counted as spent.
    fn is_counted_in(&mut self, of: u32, currency: Currency) -> bool {
        let before = *self.currencies.get(&of).unwrap_or(&currency);
        if before != currency {
            let own = self.by_key.iter().filter(|((whose, _), _)| *whose == of);
            let own = own.map(|((_, day), number)| {
                let used = self.accounts.get(number).map_or(0, Account::used);
                let used = self.terms.rates.convert_amount(used, before, currency);
                Some((*day, used?))
            });
            let Some(mut own) = own.collect::<Option<Vec<_>>>() else {
                let whose = self.text(of);
                tracing::error!(
                    whose,
                    %before,
                    now = %currency,
                    "a budget's currency has changed, and there is no rate to convert what was spent: nothing is bid on it until one is added under [currency]"
                );
                return false;
            };
            own.sort_unstable();
            for (day, spent) in own {
                let number = self.new_account(of, day);
                self.write(&Record::Spent {
                    account: number,
                    nano: spent,
                });
                if let Some(account) = self.accounts.get_mut(&number) {
                    account.spent = spent;
                }
            }
            // Their purses are those of the accounts before.
            self.open.remove(&(of, true));
            self.open.remove(&(of, false));
        }
        self.set_currency(of, currency);
        true
    }

    /// The purses of a budget; opened where they are not.
    fn purses(
        &mut self,
        of: u32,
        is_day: bool,
        limit: i64,
        (zone, currency): (&jiff::tz::TimeZone, Currency),
        largest: i64,
        until: Option<i64>,
    ) -> Purses {
        if let Some(open) = self.open.get_mut(&(of, is_day)) {
            // The zone may be another one since: the days that are open stay, the next is the new zone's.
            open.limit = limit;
            open.largest = open.largest.max(largest);
            open.zone = zone.clone();
            open.currency = currency;
            // As late as the latest; without end where one has none.
            open.until_ms = open.until_ms.zip(until).map(|(one, other)| one.max(other));
        } else {
            let purses = match is_day {
                false => {
                    let account = self.account(of, NO_DAY);
                    Purses::Total(self.purse(account))
                }
                true => Purses::Day([0, 1].map(|_| Arc::new(Purse::new(u32::MAX, NO_DAY)))),
            };
            let zone = zone.clone();
            self.open.insert(
                (of, is_day),
                Open {
                    purses,
                    limit,
                    largest,
                    zone,
                    currency,
                    until_ms: until,
                    pace: Pace::default(),
                },
            );
        }
        let open = self.open.get(&(of, is_day));
        let purses = open.map(|open| open.purses.clone());
        purses.unwrap_or_else(|| Purses::Total(Arc::new(Purse::new(u32::MAX, NO_DAY))))
    }

    /// The account of somebody, of a day or in all; made where it is not there.
    fn account(&mut self, of: u32, day: Day) -> u32 {
        if let Some(number) = self.by_key.get(&(of, day)) {
            return *number;
        }
        self.new_account(of, day)
    }

    /// Another one, in place of that which is there.
    fn new_account(&mut self, of: u32, day: Day) -> u32 {
        let number = self.next_account;
        self.write(&Record::Account { number, of, day });
        self.add_account(number, of, day);
        number
    }

    pub(super) fn add_account(&mut self, number: u32, of: u32, day: Day) {
        self.next_account = number.saturating_add(1);
        self.by_key.insert((of, day), number);
        let account = Account {
            of,
            day,
            spent: 0,
            held: 0,
            before: 0,
            before_until: 0,
            level: 0,
            taken: 0,
            pace: 0,
            expected: 0,
            expected_taken: 0,
            largest: 0,
            purse: None,
            slices: Vec::new(),
        };
        self.accounts.insert(number, account);
    }

    /// Forgets the accounts of days of which no notice can come any more.
    pub(super) fn forget_days(&mut self) {
        let valid = self.terms.longest_window().saturating_add(TOKEN_SECONDS);
        // A day more on each side: zones.
        let oldest = i64::from(self.now.saturating_sub(valid) / 86_400).saturating_sub(2);
        let (by_key, oldest_day) = (&mut self.by_key, &mut self.oldest_day);
        self.accounts.retain(|number, account| {
            let is_over = account.day != NO_DAY && i64::from(account.day) < oldest;
            let goes = is_over
                && account
                    .purse
                    .as_ref()
                    .is_none_or(|purse| purse.account() != *number);
            if goes {
                if account.used() != 0 {
                    *oldest_day = (*oldest_day).max(i64::from(account.day).saturating_add(1));
                }
                let key = (account.of, account.day);
                if by_key.get(&key) == Some(number) {
                    by_key.remove(&key);
                }
            }
            !goes
        });
    }

    /// A total's purse. What was used before its account was read from the journal is in it.
    fn purse(&mut self, number: u32) -> Arc<Purse> {
        let Some(account) = self.accounts.get_mut(&number) else {
            return Arc::new(Purse::new(number, NO_DAY));
        };
        let purse = account
            .purse
            .get_or_insert_with(|| Arc::new(Purse::new(number, NO_DAY)));
        let purse = Arc::clone(purse);
        purse.change(account.used().saturating_sub(purse.used()));
        purse
    }

    /// Opens the accounts of days that have begun or soon will.
    pub(super) fn open_days(&mut self) {
        let mut due = Vec::new();
        for ((of, _), open) in &self.open {
            let Purses::Day([even, odd]) = &open.purses else {
                continue;
            };
            if open.limit == 0 {
                continue;
            }
            for at in [self.now_ms, self.now_ms.saturating_add(DAY_AHEAD_MS)] {
                let Some(day) = day_in(&open.zone, at) else {
                    continue;
                };
                let purse = if day & 1 == 0 { even } else { odd };
                // A clock that was wrong for long: what was spent on that day is not known any more, so nobody bids on it.
                if i64::from(day) < self.oldest_day {
                    continue;
                }
                // A clock that stood still for a day finds the purse of the day before yesterday, or none.
                if purse.day() != day {
                    due.push((*of, day, Arc::clone(purse)));
                }
            }
        }
        for (of, day, purse) in due {
            if purse.day() == day {
                continue;
            }
            let largest = self.accounts.get_mut(&purse.account()).map(|account| {
                account.purse = None;
                account.largest
            });
            let number = self.account(of, day);
            if let Some(account) = self.accounts.get_mut(&number) {
                account.largest = account.largest.max(largest.unwrap_or(0));
                purse.turn(number, day, account.used());
                // What an earlier purse of it allowed is in the journal.
                account.purse = Some(purse);
            }
        }
    }

    /// Lends bid threads what they may soon need, and takes back what they do not.
    pub(super) fn renew_leases(&mut self) {
        let mut raised = Vec::new();
        for open in self.open.values() {
            let limit = open.limit;
            let both: &[Arc<Purse>] = match &open.purses {
                Purses::Total(purse) => std::slice::from_ref(purse),
                Purses::Day(days) => days,
            };
            for purse in both {
                let number = purse.account();
                let Some(account) = self.accounts.get_mut(&number) else {
                    continue;
                };
                let taken = std::mem::take(&mut account.taken);
                account.pace = account.pace.saturating_mul(7).saturating_add(taken) / 8;
                let lease = (limit / LEASE_PARTS)
                    .max(account.pace.saturating_mul(LEASE_SECONDS))
                    .max(account.largest.max(open.largest).saturating_mul(LEASE_BIDS));
                let used = purse.used();
                let wanted = used.saturating_add(lease).min(limit).max(0);
                let left = account.level.min(limit).saturating_sub(used);
                let is_short = left < lease / 2 && wanted > account.level;
                let is_long = account.level.saturating_sub(used) > lease.saturating_mul(3)
                    && account.level > wanted;
                if is_short {
                    account.level = wanted;
                } else if is_long {
                    // First less is allowed, then what was taken meanwhile is looked at.
                    purse.allow(wanted);
                    account.level = wanted.max(purse.used());
                }
                if is_short || is_long || purse.allowed() != account.level {
                    raised.push((number, account.level));
                }
            }
        }
        for (account, nano) in raised {
            self.write(&Record::Level { account, nano });
            self.raised.push(account);
        }
    }
}

/// The day at a time, in milliseconds, in a zone.
pub(super) fn day_in(zone: &jiff::tz::TimeZone, at_ms: i64) -> Option<Day> {
    let at = jiff::Timestamp::from_millisecond(at_ms).ok()?;
    crate::campaigns::day_number(zone.to_datetime(at).date())
}

/// A budget is in the advertiser's currency, else the price's.
fn currency_of(line_item: &LineItem, advertiser: Option<&Advertiser>) -> Currency {
    let own = advertiser.and_then(|of| of.currency);
    own.unwrap_or(line_item.currency)
}
