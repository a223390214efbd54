//! A bid thread's side of the ledger: takes what was decided on, or refuses, and seals the token that its notices will bring.
//!
//! Takes the money from each purse, then the person's place under the caps, then tells the ledger's thread; whatever fails gives
//! back what was taken before it. Nothing here waits, but for another bid thread that is within a shard of histories.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};

use arrayvec::ArrayVec;

use super::account::Purse;
use super::allowances::{Allowances, Refused};
use super::contacts::{Contact, Scopes};
use super::frequency::NotHeld;
use super::plan::{Line, Plan, WHOLE_HOLD};
use super::settled::Kind;
use super::token::{ACCOUNTS_MAX, BidNumber, SEGMENTS_MAX, Token, TokenKey, TokenKeys, TokenText};
use crate::campaigns::Book;
use crate::money::{Currency, Price};
use crate::openrtb::BidId;

/// A bid, proposed.
#[derive(Debug, Clone)]
pub struct Proposed {
    /// The line item's place in its book.
    pub line_item: u32,
    /// The creative's place in its book.
    pub creative: u32,
    /// The exchange's index.
    pub exchange: usize,
    /// CPM.
    pub price: Price,
    /// Of the price.
    pub currency: Currency,
    /// What one impression at that price costs, in nano units of the line item's budgets.
    pub nano: i64,
    /// A test: nothing is spent.
    pub test: bool,
    /// Slots of segments that the line item wants and the person is in: the first few.
    pub segments: ArrayVec<u32, SEGMENTS_MAX>,
}

/// A bid was opened: what the ledger's thread is told.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) at: u32,
    pub(super) exchange: u32,
    pub(super) scopes: Scopes,
    pub(super) creative: u32,
    pub(super) spends: Currency,
    /// What it costs when it is won, and how much of that is held.
    pub(super) nano: i64,
    pub(super) held: i64,
    pub(super) accounts: ArrayVec<u32, ACCOUNTS_MAX>,
    pub(super) segments: ArrayVec<u32, SEGMENTS_MAX>,
}

/// What a desk tells the ledger's thread.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// A bid was opened.
    Opened(Opened),
    /// So many requests were decided on.
    Requests(u64),
    /// What became of imps.
    Tallied(Box<Tallied>),
    /// What is lent of an account did not hold so much.
    Wanted { account: u32, nano: i64 },
}

/// What became of the imps of an exchange, in one hour and under one plan.
#[derive(Debug, Clone)]
pub(super) struct Tallied {
    pub(super) plan: Arc<Plan>,
    /// The number of its name.
    pub(super) exchange: u32,
    /// Since 1970.
    pub(super) hour: u32,
    pub(super) imps: u64,
    pub(super) rows: Vec<TallyRow>,
}

/// A line item's place in its book, why it did not bid (nothing: it bid), on how many imps.
pub type TallyRow = (u32, Option<&'static str>, u32);

/// How many tallies wait for a ledger's thread that is behind: of all exchanges, each time the plan or the hour changes while it is.
const UNSENT_MAX: usize = 1_024;

/// Keys for tokens, as all threads share them.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedKeys(Arc<Mutex<Arc<TokenKeys>>>);

impl SharedKeys {
    pub(super) fn set(&self, keys: TokenKeys) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    pub(super) fn get(&self) -> Arc<TokenKeys> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One bid thread's desk.
#[derive(Debug)]
pub struct Desk {
    start: u32,
    number: u16,
    next: u64,
    requests: u64,
    unsent: Vec<Tallied>,
    told: Option<SyncSender<Told>>,
    keys: SharedKeys,
    own_keys: Arc<TokenKeys>,
}

/// With room for fewer bids than this in a budget, each is held in full, whatever the mode.
pub(super) const FULL_HOLD_BIDS: i64 = 1_000;

/// How far apart a bid thread's clock and the ledger's may be, and the second that is cut off.
pub(super) const CLOCKS_APART_SECONDS: u32 = 2;

/// Sequence numbers of a desk.
const SEQUENCES: u64 = 1 << 48;

impl Desk {
    pub(super) fn new(start: u32, number: u16, told: SyncSender<Told>, keys: SharedKeys) -> Self {
        let own_keys = keys.get();
        Self {
            start,
            number,
            next: 0,
            requests: 0,
            unsent: Vec::new(),
            told: Some(told),
            keys,
            own_keys,
        }
    }

    /// Of a service that keeps no books: bids have ids of their own, and no notices.
    pub fn alone(seed: u64) -> Self {
        Self {
            start: (seed >> 32) as u32,
            number: seed as u16,
            next: 0,
            requests: 0,
            unsent: Vec::new(),
            told: None,
            keys: SharedKeys::default(),
            own_keys: Arc::default(),
        }
    }

    /// Counts a request that was decided on: by them the shape of traffic is learned.
    pub fn request(&mut self) {
        self.requests = self.requests.saturating_add(1);
    }

    /// Looks for new keys, and tells of requests: now and then.
    pub fn tick(&mut self) {
        let requests = std::mem::take(&mut self.requests);
        if requests > 0 && self.tell(Told::Requests(requests)).is_err() {
            self.requests = requests;
        }
        while let Some(tallied) = self.unsent.pop() {
            if let Err(tallied) = self.send_tally(tallied) {
                self.unsent.push(tallied);
                break;
            }
        }
        self.own_keys = self.keys.get();
    }

    /// Whether anybody wants to know what becomes of imps.
    pub fn keeps_tallies(&self) -> bool {
        self.told.is_some()
    }

    /// Whether tallies wait to be told: no more should be taken before they are.
    pub fn has_unsent_tallies(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Tells what became of so many imps of an exchange, which were decided on under a plan, in an hour since 1970. Off the bid
    /// path: now and then, and when the plan or the hour is over.
    pub fn tally(
        &mut self,
        plan: &Arc<Plan>,
        exchange: usize,
        hour: u32,
        imps: u64,
        rows: Vec<TallyRow>,
    ) {
        let Some(of) = plan.exchanges.get(exchange) else {
            return;
        };
        let tallied = Tallied {
            plan: Arc::clone(plan),
            exchange: of.number,
            hour,
            imps,
            rows,
        };
        if let Err(tallied) = self.send_tally(tallied)
            && self.unsent.len() < UNSENT_MAX
        {
            self.unsent.push(tallied);
        }
    }

    fn send_tally(&self, tallied: Tallied) -> Result<(), Tallied> {
        let Some(to) = &self.told else { return Ok(()) };
        match to.try_send(Told::Tallied(Box::new(tallied))) {
            Err(TrySendError::Full(Told::Tallied(tallied))) => Err(*tallied),
            // Sent; or the ledger is gone, and nobody asks any more.
            _ => Ok(()),
        }
    }

    /// Reads a token of a kind of notice.
    pub fn open(&mut self, kind: Kind, text: &str) -> Result<Token, super::token::BadToken> {
        if self.own_keys.lacks(text) {
            self.tick();
        }
        self.own_keys.open(kind, text)
    }

    /// Takes a bid, and gives it its id and its tokens, which are empty where no books are kept.
    pub fn commit(
        &mut self,
        plan: &Plan,
        book: &Book,
        allowances: &mut Allowances,
        proposed: &Proposed,
        token: &mut TokenText,
    ) -> Result<BidId, Refused> {
        token.clear();
        let number = self.number();
        let id = BidId(scramble(number.short()));
        if self.told.is_none() || !plan.is_kept() {
            return Ok(id);
        }
        let line = plan.line(proposed.line_item).ok_or(Refused::Stopped)?;
        let exchange = plan
            .exchanges
            .get(proposed.exchange)
            .ok_or(Refused::Stopped)?;
        let key = Arc::clone(&self.own_keys);
        let key = key.newest().ok_or(Refused::Stopped)?;
        let mut sealed = Token {
            bid: number,
            at: allowances.now(),
            test: proposed.test,
            is_capped: !line.caps.is_empty(),
            bills: exchange.bills,
            exchange: exchange.number,
            scopes: line.scopes,
            creative: usize::try_from(proposed.creative)
                .ok()
                .and_then(|place| plan.creatives.get(place).copied())
                .ok_or(Refused::Stopped)?,
            price_micros: proposed.price.micros(),
            currency: proposed.currency,
            nano: proposed.nano,
            spends: line.currency,
            remembered: line.remembered,
            accounts: ArrayVec::new(),
            keys: ArrayVec::new(),
            segments: proposed
                .segments
                .iter()
                .filter_map(|slot| plan.segments.get(usize::try_from(*slot).ok()?).copied())
                .collect(),
        };
        if proposed.test {
            return seal(key, &sealed, token).map(|()| id);
        }
        let share = match has_plenty(line, book, allowances, proposed.nano) {
            true => exchange.hold.load(Relaxed),
            false => WHOLE_HOLD,
        };
        let held = held_of(proposed.nano, share);
        let mut taken = Taken::default();
        self.take(line, book, allowances, held, &mut taken)?;
        let entered = enter(plan, line, allowances, exchange.window, number.short());
        let told = entered.and_then(|()| {
            sealed.accounts = taken.0.iter().map(|purse| purse.account()).collect();
            if sealed.is_capped {
                sealed.keys = allowances.keys().iter().copied().collect();
            }
            seal(key, &sealed, token)?;
            let opened = Opened {
                at: sealed.at,
                exchange: sealed.exchange,
                scopes: sealed.scopes,
                creative: sealed.creative,
                spends: sealed.spends,
                nano: sealed.nano,
                held,
                accounts: sealed.accounts.clone(),
                segments: sealed.segments.clone(),
            };
            self.tell(Told::Opened(opened)).inspect_err(|_| {
                leave(plan, line, allowances.keys(), number.short());
            })
        });
        match told {
            Ok(()) => Ok(id),
            Err(refused) => {
                taken.give_back(held);
                token.clear();
                Err(refused)
            }
        }
    }

    /// Tells the ledger's thread where more should be lent. After each decision.
    pub fn ask_for_more(&self, allowances: &mut Allowances) {
        if let Some((account, nano)) = allowances.take_wanted() {
            let _ = self.tell(Told::Wanted { account, nano });
        }
    }

    fn number(&mut self) -> BidNumber {
        let sequence = self.next;
        self.next = self.next.wrapping_add(1) % SEQUENCES;
        BidNumber {
            start: self.start,
            desk: self.number,
            sequence,
        }
    }

    fn tell(&self, told: Told) -> Result<(), Refused> {
        let Some(to) = &self.told else {
            return Ok(());
        };
        match to.try_send(told) {
            Ok(()) => Ok(()),
            // The ledger's thread is behind, or gone: nobody would know of the bid.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Refused::Stopped),
        }
    }

    /// Takes an amount from each purse, or from none.
    fn take<'p>(
        &self,
        line: &'p Line,
        book: &Book,
        allowances: &mut Allowances,
        nano: i64,
        taken: &mut Taken<'p>,
    ) -> Result<(), Refused> {
        if line.limits.is_empty() {
            return Ok(());
        }
        let day = allowances.day(line, book).ok_or(Refused::Budget)?;
        for limit in &line.limits {
            let purse = limit.purses.on(day);
            match purse {
                Some(purse) if purse.take(nano, limit.nano) => taken.0.push(purse),
                other => {
                    if let Some(purse) = other {
                        let account = purse.account();
                        let _ = self.tell(Told::Wanted { account, nano });
                    }
                    taken.give_back(nano);
                    taken.0.clear();
                    return Err(Refused::Budget);
                }
            }
        }
        Ok(())
    }
}

/// Whether every budget has room for so many bids more that it does not matter whether one or the other is won.
fn has_plenty(line: &Line, book: &Book, allowances: &mut Allowances, nano: i64) -> bool {
    let day = allowances.day(line, book);
    let least = nano.saturating_mul(FULL_HOLD_BIDS);
    line.limits.iter().all(|limit| {
        let purse = day.and_then(|day| limit.purses.on(day));
        purse.is_some_and(|purse| limit.nano.saturating_sub(purse.used()) >= least)
    })
}

/// How much of a price is held, rounded up.
pub(super) fn held_of(nano: i64, share: u32) -> i64 {
    if share >= WHOLE_HOLD {
        return nano;
    }
    let part = i128::from(nano).saturating_mul(share.into());
    let whole = i128::from(WHOLE_HOLD);
    let up = part
        .saturating_add(whole.saturating_sub(1))
        .checked_div(whole);
    up.and_then(|up| i64::try_from(up).ok())
        .unwrap_or(nano)
        .min(nano)
}

fn seal(key: &TokenKey, token: &Token, text: &mut TokenText) -> Result<(), Refused> {
    key.seal(token, text).ok_or(Refused::Stopped)
}

/// Purses that an amount was taken from.
#[derive(Default)]
struct Taken<'p>(ArrayVec<&'p Arc<Purse>, ACCOUNTS_MAX>);

impl Taken<'_> {
    fn give_back(&self, nano: i64) {
        for purse in &self.0 {
            purse.change(nano.saturating_neg());
        }
    }
}

/// Enters the bid into the histories of all of the person's keys, or of none.
fn enter(
    plan: &Plan,
    line: &Line,
    allowances: &mut Allowances,
    window: u32,
    bid: u64,
) -> Result<(), Refused> {
    if line.caps.is_empty() {
        return Ok(());
    }
    let at = allowances.now();
    // Its notice is in time up to the window's last second, by another thread's clock.
    let whole = window.saturating_add(CLOCKS_APART_SECONDS);
    let held = plan.hold_seconds.map_or(whole, |held| held.min(window));
    let until = at.saturating_add(held);
    let contact = Contact::held(at, until, line.scopes, bid);
    let keys = allowances.keys();
    for (place, key) in keys.iter().enumerate() {
        if let Err(why) = plan.frequency.hold(*key, &line.caps, contact) {
            leave(plan, line, keys.get(..place).unwrap_or(&[]), bid);
            return Err(match why {
                NotHeld::Capped => Refused::Capped,
                NotHeld::Unknown => Refused::Unknown,
            });
        }
    }
    Ok(())
}

fn leave(plan: &Plan, line: &Line, keys: &[u64], bid: u64) {
    if !line.caps.is_empty() {
        for key in keys {
            plan.frequency.let_go(*key, bid);
        }
    }
}

/// SplitMix64's finaliser: one-to-one, so ids stay unique, and an outsider cannot count our bids by them.
fn scramble(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
