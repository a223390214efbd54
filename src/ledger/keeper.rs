//! The books: what is spent, what is held for open bids, what is lent to bid threads. A state machine without I/O, threads or a
//! clock: it is told what happened and at what time, changes purses, and hands out the bytes that the journal must hold
//! before what they say counts.
//!
//! **Money of a bid.** When it is opened its price (or, in bounded mode, the part of it that such bids come to) is taken from its
//! accounts' purses by the bid thread. It is *held* until its notice books it, a loss notice releases it, or the
//! exchange's billing window is over. Held amounts are kept as sums over slices of time, so that a bid costs no memory of
//! its own: its token says what it was.
//!
//! **After a crash** nobody knows which bids were open. But no more was ever used of an account than the journal allowed
//! ([`Record::Level`]), so that the difference to what was spent is held until the last window that can be open is over.
//!
//! **Order.** A level is in the journal before bid threads may take from it ([`Keeper::written`]); a notice is in the journal
//! before it is answered.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod accounts;
mod delivery;
mod figures;
mod holds;
mod notices;
mod pacing;
mod replay;
mod switching;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use self::accounts::day_in;
use self::delivery::Imps;
use self::holds::{Flow, Past, part_seconds, share_of};
use self::pacing::{Pace, Paced, Shape};
use super::account::{Day, NANOS_MAX, NO_DAY, Purse, Purses};
use super::contacts::{Contact, Scope, ScopedCap, Scopes};
use super::desk::{CLOCKS_APART_SECONDS, Opened, SharedKeys, Told, held_of};
use super::frequency::Frequency;
use super::plan::{ExchangeDesk, Limit, Line, LineState, Plan, WHOLE_HOLD};
use super::price::Unreadable;
use super::records::{NameKind, Record, write};
use super::report::{Key, Report};
use super::settled::{Kind, Settled};
use super::switches::Switch;
use super::token::TokenKeys;
use crate::campaigns::{Advertiser, Book, Budget, Cap, LineItem};
use crate::clock::{STEP_MS, Timestamp};
use crate::config::{Billing, BudgetMode, Config, Exchange};
use crate::money::{Currency, Rates};

pub use figures::{Figures, Sums};
pub use notices::{Booked, Outcome, Said};
pub use switching::Standing;

/// How long after its window a token is still taken, in seconds.
pub const TOKEN_SECONDS: u32 = 24 * 3600;
/// How long a bid holds its place under caps, in seconds, in bounded mode.
pub const CAP_HOLD_SECONDS: u32 = 30;
/// Into how many slices a billing window is cut.
const SLICES: u32 = 60;
/// Bits of a run's number that count runs, as far as they are known; the others are random.
const RUNS_COUNTED: u32 = 0xfff;
/// How often a new key is made, in seconds; and one at each start.
const KEY_SECONDS: u32 = 24 * 3600;
/// How long before it begins a day's accounts are opened, in milliseconds.
const DAY_AHEAD_MS: i64 = 12 * 3600 * 1000;
/// How often shares of requests are found out anew, in milliseconds.
const PACE_MS: i64 = 1_000;
/// How often the journal is told of bids that the report counts, in seconds.
const REPORT_SECONDS: u32 = 10;

/// An exchange, as the ledger goes by it.
#[derive(Debug, Clone)]
pub struct ExchangeTerms {
    /// Its name.
    pub name: Box<str>,
    /// How long after a bid its notice may come, in seconds.
    pub window: u32,
    /// Which notice bills.
    pub billing: Billing,
}

/// What of the configuration the ledger goes by.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How exactly budgets are kept.
    pub mode: BudgetMode,
    /// By their index.
    pub exchanges: Vec<ExchangeTerms>,
    /// Of how many keys contacts are kept.
    pub frequency_keys: usize,
    /// Of the journal, before it is begun anew.
    pub journal_bytes: usize,
    /// Rows of the report, before hours become days, or the oldest days go.
    pub report_rows: usize,
    /// For prices in other currencies.
    pub rates: Arc<Rates>,
}

impl Terms {
    /// What a configuration says.
    pub fn of(config: &Config) -> Self {
        let terms = |exchange: &Exchange| ExchangeTerms {
            name: exchange.name.as_str().into(),
            window: u32::try_from(exchange.billing_window.as_secs()).unwrap_or(u32::MAX / 4),
            billing: exchange.billing,
        };
        Self {
            mode: config.budget.mode,
            exchanges: config.exchanges.iter().map(terms).collect(),
            frequency_keys: config.limits.frequency_keys,
            journal_bytes: config.limits.journal_bytes,
            report_rows: config.limits.report_rows,
            rates: Arc::new(config.currency.rates.clone()),
        }
    }

    /// The longest window of an exchange, in seconds.
    pub fn longest_window(&self) -> u32 {
        let windows = self.exchanges.iter().map(|exchange| exchange.window);
        windows.max().unwrap_or(0)
    }
}

/// One account.
#[derive(Debug)]
struct Account {
    /// The number of the name of whose it is.
    of: u32,
    day: Day,
    spent: i64,
    /// For bids of this run.
    held: i64,
    /// For bids of runs before, until that second.
    before: i64,
    before_until: u32,
    /// What the journal allows.
    level: i64,
    /// Taken since the last tick, and what a second takes of late.
    taken: i64,
    pace: i64,
    /// What open bids are expected to come to, and what those that were opened since the last look.
    expected: i64,
    expected_taken: i64,
    /// The largest amount that was asked for.
    largest: i64,
    purse: Option<Arc<Purse>>,
    /// Open bids of this run, by the number of the exchange's name.
    slices: Vec<(u32, VecDeque<Slice>)>,
}

/// A budget's purses, as long as some plan is in force that names it.
#[derive(Debug)]
struct Open {
    purses: Purses,
    /// Of the live plan.
    limit: i64,
    /// The most that one bid of the live plan's line items can be, multipliers apart.
    largest: i64,
    zone: jiff::tz::TimeZone,
    currency: Currency,
    /// Of a total: the end of the last flight, where all of them end.
    until_ms: Option<i64>,
    pace: Pace,
}

/// Bids of one slice of time: what they cost if all are won, and how much of that is held.
#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    number: u32,
    open: i64,
    held: i64,
}

/// What is counted for metrics since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Notices by outcome, at [`Outcome`]'s numbers.
    pub notices: [u64; Outcome::ALL.len()],
    /// Prices over the bid, which was booked instead.
    pub prices_over: u64,
    /// Prices that could not be read, for which the bid was booked, at [`Unreadable`]'s numbers.
    pub prices_unreadable: [u64; Unreadable::ALL.len()],
    /// Prices in a currency without a rate, for which the bid was booked.
    pub prices_unconverted: u64,
    /// Nano units booked after their windows, whatever their currency.
    pub late_nano: i64,
}

/// The books.
#[derive(Debug)]
pub struct Keeper {
    terms: Terms,
    /// Which start of the service this is; 0 until [`Keeper::begin`].
    start: u32,
    now: u32,
    now_ms: i64,
    names: HashMap<(NameKind, Box<str>), u32>,
    texts: Vec<(NameKind, Box<str>)>,
    accounts: BTreeMap<u32, Account>,
    /// The day after the last of which an account was forgotten that was used.
    oldest_day: i64,
    /// The number of the next account.
    next_account: u32,
    by_key: HashMap<(u32, Day), u32>,
    /// By whose they are: what their accounts are in.
    currencies: BTreeMap<u32, Currency>,
    /// By advertiser, of the live plan: in which its days begin.
    zones: HashMap<u32, jiff::tz::TimeZone>,
    /// By whose they are, and whether they are of days.
    open: HashMap<(u32, bool), Open>,
    /// By exchange and currency.
    flows: BTreeMap<(u32, Currency), VecDeque<Flow>>,
    pasts: HashMap<u32, Past>,
    /// All that was ever booked.
    spent: BTreeMap<Currency, i64>,
    /// By exchange: what of a bid is to come, in millionths, when it is new.
    to_come: HashMap<u32, u32>,
    shape: Shape,
    paced: Vec<Paced>,
    paced_at: i64,
    settled: Settled,
    report: Report,
    imps: Imps,
    reported_at: u32,
    keys: TokenKeys,
    key_made: Vec<u32>,
    shared_keys: SharedKeys,
    frequency: Arc<Frequency>,
    swept: usize,
    lines: HashMap<u32, (Scopes, Arc<LineState>)>,
    /// What is switched off.
    off: std::collections::BTreeSet<Switch>,
    halted: Arc<AtomicBool>,
    exchanges: Vec<Arc<ExchangeDesk>>,
    stopped: Arc<AtomicBool>,
    plans: u64,
    /// Whether the last run ended with [`Keeper::close`].
    was_closed: bool,
    /// Until when it is not known what bids of a run before hold under caps.
    caps_unknown_until: u32,
    /// Levels that are in `out` and not yet allowed.
    raised: Vec<u32>,
    out: Vec<u8>,
    counters: Counters,
}

impl Keeper {
    /// Books without an entry. The error is the system's: it has not the memory that frequency caps need.
    pub fn new(terms: Terms) -> std::io::Result<Self> {
        let frequency = Arc::new(Frequency::new(terms.frequency_keys)?);
        Ok(Self {
            terms,
            start: 0,
            now: 0,
            now_ms: 0,
            names: HashMap::new(),
            texts: Vec::new(),
            accounts: BTreeMap::new(),
            oldest_day: i64::MIN,
            next_account: 0,
            by_key: HashMap::new(),
            currencies: BTreeMap::new(),
            zones: HashMap::new(),
            open: HashMap::new(),
            flows: BTreeMap::new(),
            pasts: HashMap::new(),
            spent: BTreeMap::new(),
            to_come: HashMap::new(),
            shape: Shape::default(),
            paced: Vec::new(),
            paced_at: 0,
            settled: Settled::default(),
            report: Report::default(),
            imps: Imps::default(),
            reported_at: 0,
            keys: TokenKeys::default(),
            key_made: Vec::new(),
            shared_keys: SharedKeys::default(),
            frequency,
            swept: 0,
            lines: HashMap::new(),
            off: std::collections::BTreeSet::new(),
            halted: Arc::default(),
            exchanges: Vec::new(),
            stopped: Arc::default(),
            plans: 0,
            was_closed: true,
            caps_unknown_until: 0,
            raised: Vec::new(),
            out: Vec::new(),
            counters: Counters::default(),
        })
    }

    /// After the journal was read: opens for business. `secret` and `run` are random, for a token key and the number of this run.
    pub fn begin(&mut self, now: Timestamp, secret: [u8; 32], run: u32) {
        self.clock(now);
        // Two runs may read the same journal: a backup that is brought back, a copy. The key and the number of neither are the other's.
        let count = self.start.wrapping_add(1) & RUNS_COUNTED;
        self.start = run & !RUNS_COUNTED | count;
        self.write(&Record::Start { start: self.start });
        let until = self.now.saturating_add(self.terms.longest_window());
        if !self.was_closed && self.terms.mode == BudgetMode::Strict {
            self.caps_unknown_until = until.saturating_add(CLOCKS_APART_SECONDS);
        }
        self.was_closed = false;
        for account in self.accounts.values_mut() {
            account.before = account.level.saturating_sub(account.spent).max(0);
            account.before_until = until;
        }
        for place in 0..self.terms.exchanges.len() {
            let of = self.terms.exchanges.get(place);
            let Some((name, window, billing)) =
                of.map(|of| (of.name.clone(), of.window, of.billing))
            else {
                continue;
            };
            let number = self.name(NameKind::Exchange, &name);
            self.exchanges.push(Arc::new(ExchangeDesk {
                number,
                window,
                bills: match billing {
                    Billing::Nurl => Kind::Win,
                    Billing::Burl | Billing::Impression => Kind::Bill,
                },
                hold: std::sync::atomic::AtomicU32::new(WHOLE_HOLD),
                stopped: AtomicBool::new(false),
            }));
        }
        self.add_new_key(secret);
        self.apply_switches();
    }

    /// Time goes on, or stands. It goes back only where it was wrong before, by a step that lasted: what is over then stays over.
    fn clock(&mut self, now: Timestamp) {
        if self.now_ms.saturating_sub(now.unix_ms) > STEP_MS {
            self.paced_at = self.paced_at.min(now.unix_ms);
            self.reported_at = 0;
            self.now_ms = now.unix_ms;
        }
        self.now_ms = self.now_ms.max(now.unix_ms);
        let seconds = self.now_ms.div_euclid(1000);
        self.now = u32::try_from(seconds).unwrap_or(0);
    }

    fn write(&mut self, record: &Record) {
        write(record, &mut self.out);
    }

    /// What the journal must hold next. After it does: [`Keeper::written`].
    pub fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The journal holds what was taken out: what it allows is allowed.
    pub fn written(&mut self) {
        for number in std::mem::take(&mut self.raised) {
            if let Some(account) = self.accounts.get(&number)
                && let Some(purse) = &account.purse
                && purse.account() == number
            {
                purse.allow(account.level);
            }
        }
    }

    /// Whether a new key for tokens is due.
    pub fn wants_key(&self) -> bool {
        let newest = self.key_made.last();
        newest.is_none_or(|made| self.now >= made.saturating_add(KEY_SECONDS))
    }

    /// Makes a key of random bytes, where one is due, and forgets those of which no token is valid any more.
    pub fn make_key(&mut self, secret: [u8; 32]) {
        if self.wants_key() {
            self.add_new_key(secret);
        }
    }

    fn add_new_key(&mut self, secret: [u8; 32]) {
        let id = self.keys.newest().map_or(0, |key| key.id.wrapping_add(1));
        let at = self.now;
        self.write(&Record::Key { id, at, secret });
        self.add_key(id, at, secret);
        self.shared_keys.set(self.keys.clone());
    }

    fn add_key(&mut self, id: u8, at: u32, secret: [u8; 32]) {
        self.keys.0.push(super::token::TokenKey::new(id, secret));
        self.key_made.push(at);
        let valid = self.terms.longest_window().saturating_add(TOKEN_SECONDS);
        // A key is used until the next was made, and its tokens come for as long as they are valid.
        while let [_, second, ..] = self.key_made.as_slice()
            && second.saturating_add(valid).saturating_add(KEY_SECONDS) < self.now
        {
            self.key_made.remove(0);
            self.keys.0.remove(0);
        }
    }

    /// The last turn: nobody takes anything any more, so that the journal is told what is used to the unit.
    pub fn close(&mut self) {
        let mut levels = Vec::new();
        for (number, account) in &mut self.accounts {
            let used = account
                .purse
                .as_ref()
                .filter(|purse| purse.account() == *number);
            let used = used.map_or(account.used(), |purse| purse.used());
            if used < account.level {
                account.level = used;
                levels.push((*number, used));
            }
        }
        for (account, nano) in levels {
            self.write(&Record::Level { account, nano });
        }
        self.save_report();
        // Held places are kept as if they had been billed, for as long as they would have been held.
        let mut held = Vec::new();
        let mut keep = |key: u64, contact: &Contact| held.push((key, *contact));
        self.frequency.each(false, &mut keep);
        for (
            key,
            Contact {
                at, until, scopes, ..
            },
        ) in held
        {
            self.write(&Record::Contact {
                key,
                at,
                until,
                scopes,
            });
        }
        self.write(&Record::Closed);
    }

    /// Which start this is, for desks.
    pub(super) fn start(&self) -> u32 {
        self.start
    }

    pub(super) fn shared_keys(&self) -> &SharedKeys {
        &self.shared_keys
    }

    /// Set to stop all bidding at once.
    pub(super) fn stop_switch(&self) -> &Arc<AtomicBool> {
        &self.stopped
    }

    /// What is counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The name behind a number; empty where there is none.
    pub(super) fn text(&self, number: u32) -> &str {
        let text = place(number).and_then(|place| self.texts.get(place));
        text.map_or("", |(_, text)| text)
    }

    /// The number of a name, which is given one where it has none.
    fn name(&mut self, kind: NameKind, name: &str) -> u32 {
        if let Some(number) = self.names.get(&(kind, name.into())) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let name: Box<str> = name.into();
        self.write(&Record::Name {
            number,
            kind,
            name: name.clone(),
        });
        self.add_name(kind, name);
        number
    }

    fn add_name(&mut self, kind: NameKind, name: Box<str>) {
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.names.insert((kind, name.clone()), number);
        self.texts.push((kind, name));
    }

    /// What desks told.
    pub(super) fn told(&mut self, told: Told) {
        match told {
            Told::Opened(opened) => self.opened(opened),
            Told::Requests(requests) => self.requests(requests),
            Told::Tallied(tallied) => self.tallied(&tallied),
            Told::Wanted { account, nano } => {
                if let Some(account) = self.accounts.get_mut(&account) {
                    account.largest = account.largest.max(nano);
                }
            }
        }
    }

    fn opened(&mut self, opened: Opened) {
        let number = self.slice_number(opened.exchange, opened.at);
        self.flow_in(&opened);
        let to_come = self.to_come.get(&opened.exchange);
        let expected = held_of(opened.nano, to_come.copied().unwrap_or(WHOLE_HOLD));
        for of in &opened.accounts {
            if let Some(account) = self.accounts.get_mut(of) {
                account.held = account.held.saturating_add(opened.held);
                account.taken = account.taken.saturating_add(opened.held);
                account.expected = account.expected.saturating_add(expected);
                account.expected_taken = account.expected_taken.saturating_add(expected);
                account.largest = account.largest.max(opened.nano);
                if let Some(slice) = account.slice_of(opened.exchange, number) {
                    slice.open = slice.open.saturating_add(opened.nano);
                    slice.held = slice.held.saturating_add(opened.held);
                }
            }
        }
        let key = Key {
            hour: opened.at / 3600,
            scopes: opened.scopes,
            creative: opened.creative,
            exchange: opened.exchange,
            currency: opened.spends,
        };
        self.report.bid(key, &opened.segments);
    }

    fn terms_of(&self, exchange: u32) -> Option<&ExchangeTerms> {
        let place = self
            .exchanges
            .iter()
            .position(|desk| desk.number == exchange);
        self.terms.exchanges.get(place?)
    }

    fn window(&self, exchange: u32) -> u32 {
        let terms = self.terms_of(exchange);
        terms.map_or_else(|| self.terms.longest_window(), |terms| terms.window)
    }

    fn slice_number(&self, exchange: u32, at: u32) -> u32 {
        at.checked_div(slice_seconds(self.window(exchange)))
            .unwrap_or(0)
    }

    /// Time has passed: windows close, days begin, leases are renewed.
    pub fn tick(&mut self, now: Timestamp) {
        self.clock(now);
        self.close_slices();
        self.reprice();
        self.release_what_was_before();
        self.open_days();
        self.requests(0);
        let since = self.now_ms.saturating_sub(self.paced_at);
        if since >= PACE_MS {
            self.paced_at = self.now_ms;
            self.pace((since as f64 / 1_000.0).min(60.0));
        }
        self.renew_leases();
        if self.now >= self.reported_at.saturating_add(REPORT_SECONDS) {
            self.reported_at = self.now;
            self.tend_report();
            self.forget_days();
            let valid = self.terms.longest_window().saturating_add(TOKEN_SECONDS);
            self.settled.forget_before(self.now.saturating_sub(valid));
        }
        self.swept = self.swept.wrapping_add(1);
        self.frequency.sweep(self.swept, self.now);
    }

    fn close_slices(&mut self) {
        let now = self.now;
        let windows: HashMap<u32, u32> = self
            .exchanges
            .iter()
            .map(|desk| (desk.number, desk.window))
            .collect();
        let longest = self.terms.longest_window();
        let mut over = Vec::new();
        for ((exchange, _), flows) in &mut self.flows {
            let window = windows.get(exchange).copied().unwrap_or(longest);
            while let Some(first) = flows.front()
                && is_closed(first.number, part_seconds(window), window, now)
            {
                over.push((*exchange, *first));
                flows.pop_front();
            }
        }
        for (exchange, flow) in &over {
            self.flow_closed(*exchange, flow);
        }
        for (number, account) in &mut self.accounts {
            let mut closed = 0i64;
            account.slices.retain_mut(|(exchange, slices)| {
                let window = windows.get(exchange).copied().unwrap_or(longest);
                while let Some(first) = slices.front()
                    && is_closed(first.number, slice_seconds(window), window, now)
                {
                    closed = closed.saturating_add(first.held);
                    slices.pop_front();
                }
                !slices.is_empty()
            });
            if closed > 0 {
                account.release(*number, closed);
            }
        }
    }

    fn release_what_was_before(&mut self) {
        for (number, account) in &mut self.accounts {
            if account.before > 0 && account.before_until <= self.now {
                let before = std::mem::take(&mut account.before);
                account.change(*number, before.saturating_neg());
            }
        }
    }
}

impl Account {
    /// Adds to what is used, where its purse is still its own.
    fn change(&self, number: u32, nano: i64) {
        if let Some(purse) = self
            .purse
            .as_ref()
            .filter(|purse| purse.account() == number)
        {
            purse.change(nano);
        }
    }

    /// An exchange's open bids.
    fn slices_of(&mut self, exchange: u32) -> Option<&mut VecDeque<Slice>> {
        let mut all = self.slices.iter_mut();
        let (_, slices) = all.find(|(of, _)| *of == exchange)?;
        Some(slices)
    }

    /// The slice of that number of an exchange, made where it is not there.
    fn slice_of(&mut self, exchange: u32, number: u32) -> Option<&mut Slice> {
        if !self.slices.iter().any(|(of, _)| *of == exchange) {
            self.slices.push((exchange, VecDeque::new()));
        }
        slice_of(self.slices_of(exchange)?, number)
    }

    /// Lets go of what was held.
    fn release(&mut self, number: u32, nano: i64) {
        self.held = self.held.saturating_sub(nano);
        self.change(number, nano.saturating_neg());
    }

    /// All that is used, without what bid threads took and have not told yet.
    fn used(&self) -> i64 {
        self.spent
            .saturating_add(self.held)
            .saturating_add(self.before)
    }
}

fn place(number: u32) -> Option<usize> {
    usize::try_from(number).ok()
}

fn slice_seconds(window: u32) -> u32 {
    (window / SLICES).max(1)
}

/// Whether no notice of a slice's bids can come within its window any more: of the youngest, made at the end of it.
fn is_closed(number: u32, seconds: u32, window: u32, now: u32) -> bool {
    let end = number.saturating_add(1).saturating_mul(seconds);
    end.saturating_add(window) <= now
}

/// The slice of that number: nearly always the last, or the one after it.
fn slice_of(slices: &mut VecDeque<Slice>, number: u32) -> Option<&mut Slice> {
    if slices.back().is_some_and(|last| last.number == number) {
        return slices.back_mut();
    }
    let at = slices.partition_point(|slice| slice.number < number);
    if slices.get(at).is_none_or(|slice| slice.number != number) {
        slices.insert(
            at,
            Slice {
                number,
                ..Slice::default()
            },
        );
    }
    slices.get_mut(at)
}
