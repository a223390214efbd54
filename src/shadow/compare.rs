//! What another generation would answer to the sample: bids, money, and whose bids.
//!
//! Both generations are asked at the same time and about the same requests, so that what differs is the version. Prices are
//! brought into the base of the exchange rates, as the desk would; that they are won at is not known, so the sum is what would
//! be spent if all were won at their price.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bumpalo::Bump;

use super::sample::{Sample, Taken};
use crate::clock::Timestamp;
use crate::config::{Exchange, Exchanges};
use crate::decision::{Decision, NoBid, Scratch, decide_again};
use crate::generation::Generation;
use crate::ids::UserKey;
use crate::money::{MICROS, Round};
use crate::openrtb::{Request, abridged};

/// What a comparison may take; then it says what it has seen so far.
pub const TIME_MAX: Duration = Duration::from_secs(2);

/// What one generation would do.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Side {
    /// Requests that it would bid on.
    pub bidding: u64,
    /// CPM of its bids times the impressions that each counts for, all together, in the base currency. An estimate to
    /// compare, not money: a float will do.
    pub spend: f64,
}

/// The sample, decided on twice.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Comparison {
    /// How many requests.
    pub requests: u64,
    /// How long ago the oldest was.
    pub oldest: Duration,
    /// Whether time was up before all were decided on.
    pub cut_short: bool,
    /// With what is live.
    pub live: Side,
    /// With what would be.
    pub candidate: Side,
    /// Requests that only the live generation bids on.
    pub lost: u64,
    /// Requests that only the candidate bids on.
    pub gained: u64,
    /// Requests with other bids: those, and where others bid or at another price.
    pub changed: u64,
    /// What chance does to the sums above. A person whose requests change changes in all of them, so people are what
    /// varies, not requests.
    pub variance: Variance,
    /// Bids by line item, live and then: those where the two differ.
    pub line_items: BTreeMap<String, (u64, u64)>,
    /// Why the candidate does not bid where the live generation does.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// Sums over people, of the squares of what each person's requests come to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Variance {
    /// Of requests that only one of the two generations bids on.
    pub bids: f64,
    /// Of what is spent.
    pub spend: f64,
    /// Of requests that the live generation bids on.
    pub bidding: f64,
}

/// What the requests of one person come to: those gained less those lost, what more would be spent, those with a live bid.
#[derive(Debug, Clone, Copy, Default)]
struct Person {
    bids: f64,
    spend: f64,
    bidding: f64,
}

/// A bid, as far as it is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bid<'a> {
    imp: usize,
    line_item: &'a str,
    deal: Option<&'a str>,
    spend: f64,
}

/// Decides on each request of the sample with both generations.
pub fn compare(
    sample: &Sample,
    live: &Generation,
    candidate: &Generation,
    now: Timestamp,
) -> Comparison {
    let started = Instant::now();
    let mut arena = Bump::new();
    let mut scratch = [Scratch::default(), Scratch::default()];
    let mut compared = Comparison::default();
    let mut people: HashMap<Option<UserKey>, Person> = HashMap::new();
    sample.each(now, |taken| {
        if started.elapsed() >= TIME_MAX {
            compared.cut_short = true;
            return false;
        }
        let change = compared.request(taken, [live, candidate], now, &arena, &mut scratch);
        // Who has several ids has the same one first in most requests.
        let person = people.entry(taken.keys.first().copied()).or_default();
        person.bids += change.bids;
        person.spend += change.spend;
        person.bidding += change.bidding;
        arena.reset();
        true
    });
    compared.line_items.retain(|_, (live, then)| live != then);
    for person in people.values() {
        compared.variance.bids += person.bids * person.bids;
        compared.variance.spend += person.spend * person.spend;
        compared.variance.bidding += person.bidding * person.bidding;
    }
    compared
}

impl Comparison {
    /// Decides on one request; what it changes.
    fn request(
        &mut self,
        taken: &Taken,
        generations: [&Generation; 2],
        now: Timestamp,
        arena: &Bump,
        [of_live, of_candidate]: &mut [Scratch; 2],
    ) -> Person {
        let [live, candidate] = generations;
        let exchanges: &Exchanges = &live.frame.exchanges;
        let known = exchanges.by_index(taken.exchange);
        let Some((exchange, request)) = known.zip(abridged(&taken.request, arena)) else {
            return Person::default();
        };
        let before = answer(live, exchange, &request, taken, now, arena, of_live);
        let after = answer(
            candidate,
            exchange,
            &request,
            taken,
            now,
            arena,
            of_candidate,
        );
        self.requests += 1;
        let age = u64::try_from(now.unix_ms.saturating_sub(taken.at.unix_ms)).unwrap_or(0);
        self.oldest = self.oldest.max(Duration::from_millis(age));
        let (had, has) = (u64::from(before.is_ok()), u64::from(after.is_ok()));
        self.lost += had.saturating_sub(has);
        self.gained += has.saturating_sub(had);
        if let (Ok(_), Err(reason)) = (&before, &after) {
            *self.reasons.entry(reason.as_str()).or_default() += 1;
        }
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        self.changed += u64::from(before != after);
        let spend = self.candidate.add(&after) - self.live.add(&before);
        for bid in &before {
            self.of_line_item(bid.line_item).0 += 1;
        }
        for bid in &after {
            self.of_line_item(bid.line_item).1 += 1;
        }
        Person {
            bids: has as f64 - had as f64,
            spend,
            bidding: had as f64,
        }
    }

    fn of_line_item(&mut self, id: &str) -> &mut (u64, u64) {
        if !self.line_items.contains_key(id) {
            self.line_items.insert(id.to_owned(), (0, 0));
        }
        self.line_items.entry(id.to_owned()).or_default()
    }
}

impl Side {
    /// Adds a request's bids; what they would spend.
    fn add(&mut self, bids: &[Bid<'_>]) -> f64 {
        let spend = bids.iter().map(|bid| bid.spend).sum();
        self.bidding += u64::from(!bids.is_empty());
        self.spend += spend;
        spend
    }
}

fn answer<'a>(
    generation: &'a Generation,
    exchange: &'a Exchange,
    request: &Request<'a>,
    taken: &Taken,
    now: Timestamp,
    arena: &'a Bump,
    scratch: &mut Scratch,
) -> Result<Vec<Bid<'a>>, NoBid> {
    let Decision {
        currency, outcome, ..
    } = decide_again(
        generation,
        exchange,
        request,
        taken.leave,
        &taken.keys,
        now,
        arena,
        scratch,
    );
    let rates = &generation.frame.rates;
    let bid = |bid: &crate::decision::Proposal<'a>| {
        let price = rates.convert(bid.price, currency, rates.base(), Round::Down);
        let micros = price.map_or(0, |price| price.micros()) as f64;
        Bid {
            imp: bid.imp,
            line_item: &bid.line_item.id,
            deal: bid.deal,
            spend: micros / MICROS as f64 * (bid.multiplier.millionths() as f64 / MICROS as f64),
        }
    };
    outcome.map(|bids| bids.iter().map(bid).collect())
}
