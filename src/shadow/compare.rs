//! What another generation would answer to the sample: bids, money, and whose bids.
//!
//! Both generations are asked at the same time and about the same requests, so that what differs is the version. Prices are
//! brought into the base of the exchange rates, as the desk would; that they are won at is not known, so the sum is what would
//! be spent if all were won at their price.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bumpalo::Bump;

use super::sample::{Sample, Taken};
use crate::clock::Timestamp;
use crate::config::{Exchange, Exchanges};
use crate::decision::{Decision, NoBid, Scratch, decide_again};
use crate::generation::Generation;
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
    /// Sum of the squares of what single requests change in spend: what chance does to the sum of the changes.
    pub spend_variance: f64,
    /// Bids by line item, live and then: those where the two differ.
    pub line_items: BTreeMap<String, (u64, u64)>,
    /// Why the candidate does not bid where the live generation does.
    pub reasons: BTreeMap<&'static str, u64>,
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
    sample.each(now, |taken| {
        if started.elapsed() >= TIME_MAX {
            compared.cut_short = true;
            return false;
        }
        compared.request(taken, [live, candidate], now, &arena, &mut scratch);
        arena.reset();
        true
    });
    compared.line_items.retain(|_, (live, then)| live != then);
    compared
}

impl Comparison {
    fn request(
        &mut self,
        taken: &Taken,
        generations: [&Generation; 2],
        now: Timestamp,
        arena: &Bump,
        [of_live, of_candidate]: &mut [Scratch; 2],
    ) {
        let [live, candidate] = generations;
        let exchanges: &Exchanges = &live.frame.exchanges;
        let known = exchanges.by_index(taken.exchange);
        let Some((exchange, request)) = known.zip(abridged(&taken.request, arena)) else {
            return;
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
        let bids = |answer: &Result<Vec<Bid<'_>>, NoBid>| answer.is_ok();
        match (bids(&before), bids(&after)) {
            (true, false) => self.lost += 1,
            (false, true) => self.gained += 1,
            _ => {}
        }
        if let (Ok(_), Err(reason)) = (&before, &after) {
            *self.reasons.entry(reason.as_str()).or_default() += 1;
        }
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        self.changed += u64::from(before != after);
        let change = self.candidate.add(&after) - self.live.add(&before);
        self.spend_variance += change * change;
        for bid in &before {
            self.of_line_item(bid.line_item).0 += 1;
        }
        for bid in &after {
            self.of_line_item(bid.line_item).1 += 1;
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
