//! A bid thread's way through one request: read, gate, look up, decide, commit, write, count.
//!
//! Everything here is the thread's own (arena, scratch, desk, counters), so nothing waits for another thread. The
//! generation is loaded once a request and let go of at the next tick, busy or idle.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

use super::bid::{Answer, Bidder, Load, NoticeAnswer, NoticeAsked, NoticeReply, Refused};
use crate::clock::{Guarded, Timestamp};
use crate::config::{Exchange, NoBidForm};
use crate::datasets::LiveReader;
use crate::decision::{
    self, NoBid, Refusal, Scratch, Tally, answer_within_ms, decide, is_sampled, seen,
};
use crate::generation::Generation;
use crate::ledger::{
    Allowances, Answered, Desk, Kind, Ledger, Outcome as Taken, Plan, PriceKey, Proposed,
    SEGMENTS_MAX, Said, TokenText, read_currency, read_price,
};
use crate::metrics::{BidCounters, Outcome};
use crate::openrtb::{self, NoticeTokens, NoticeUrls, Request, abridge, write_bids, write_no_bid};
use crate::privacy::Open;
use crate::shadow::{Sampler, Wanted};

/// An arena that a hostile request has grown beyond this is given back, not kept.
const ARENA_KEPT_BYTES_MAX: usize = 1 << 20;

/// What bid threads share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Whether all that was live is live again. Until then every request is a no-bid.
    pub ready: Arc<AtomicBool>,
    /// Most imps looked at in one request.
    pub imps_max: usize,
    /// Keeps the books; none, and bids carry no notices.
    pub books: Option<Books>,
}

/// Where notices go.
#[derive(Debug, Clone)]
pub struct Books {
    /// Who keeps them.
    pub ledger: Ledger,
    /// What the notices of an exchange are sent to, by its index.
    pub urls: Arc<[NoticeUrls]>,
    /// What it encrypts their prices with, by its index.
    pub price_keys: Arc<[Vec<PriceKey>]>,
}

/// One bid thread's worth of Kith.
#[derive(Debug)]
pub struct KithBidder {
    shared: Shared,
    live: LiveReader,
    arena: Bump,
    scratch: Scratch,
    desk: Desk,
    tallies: Tallies,
    /// Room for a bid's tokens.
    token: TokenText,
    counters: Arc<BidCounters>,
    /// Read now and then, and told by the steady clock in between: reading both for each request costs time. Guarded as the
    /// ledger's is, by which bids are stopped while it doubts.
    wall: Guarded,
    /// Where requests are kept for shadow validation; none, and none are.
    sampler: Option<Sampler>,
}

impl KithBidder {
    /// A bidder that reads from `live` and counts into `counters`.
    pub fn new(shared: Shared, live: LiveReader, desk: Desk, counters: Arc<BidCounters>) -> Self {
        Self {
            shared,
            live,
            arena: Bump::new(),
            scratch: Scratch::that_asks(Allowances::seeded(0)),
            token: TokenText::default(),
            desk,
            tallies: Tallies::default(),
            counters,
            wall: Guarded::new(Timestamp::now(), Instant::now()),
            sampler: None,
        }
    }

    /// The same, which draws other numbers than the others do.
    pub fn drawing(mut self, seed: u64) -> Self {
        self.scratch = Scratch::that_asks(Allowances::seeded(seed));
        self
    }

    /// The same, which now and then keeps a request for shadow validation.
    pub fn with_sampler(mut self, sampler: Option<Sampler>) -> Self {
        self.sampler = sampler;
        self
    }

    fn answer(
        &mut self,
        exchange: &Exchange,
        body: &[u8],
        arrived: Instant,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Answer {
        let Ok(request) = openrtb::read(body, &self.arena, self.shared.imps_max) else {
            return Answer::Malformed;
        };
        self.counters.unreadable(request.unreadable);
        let outcome = if self.shared.ready.load(Relaxed) {
            in_time(request, exchange, arrived, now)
        } else {
            Err(NoBid::NotReady)
        };
        let outcome = outcome.and_then(|()| {
            let generation = self.live.load();
            let scratch = &mut self.scratch;
            let at = self.wall.at(now);
            let tally = self.tallies.of(&mut self.desk, generation, exchange, at);
            // What a test came to is in nobody's report.
            let mut aside = Tally::default();
            let tally = tally.filter(|_| !request.test).unwrap_or(&mut aside);
            let decision = decide(
                generation,
                exchange,
                request,
                at,
                &self.arena,
                scratch,
                tally,
            );
            self.counters.gate(exchange.index, decision.gate);
            for (dataset, counts) in generation.datasets.iter().zip(scratch.lookups()) {
                self.counters.lookups(dataset.ordinal, *counts);
            }
            if let Some(sampler) = &mut self.sampler
                && let Some(leave) = is_sampled(&decision, request, scratch)
                && let Some(wanted) = sampler.wants(now)
            {
                let taken = Kept {
                    generation,
                    exchange,
                    request,
                    leave,
                    at,
                };
                taken.put(sampler, wanted, &self.arena);
            }
            self.desk.request();
            self.desk.ask_for_more(&mut scratch.allowances);
            let proposals = decision.outcome?;
            // An answer that comes late is never a bid.
            in_time(request, exchange, arrived, Instant::now()).inspect_err(|_| {
                for proposal in proposals {
                    tally.late(proposal.imp, proposal.line_item.index);
                }
            })?;
            let mut bids = ArenaVec::with_capacity_in(proposals.len(), &self.arena);
            let mut refused = None;
            let books = self.shared.books.as_ref();
            let urls = books.and_then(|books| books.urls.get(exchange.index));
            for proposal in proposals {
                let proposed = Proposed {
                    line_item: proposal.line_item.index,
                    creative: proposal.creative_place,
                    exchange: exchange.index,
                    price: proposal.price,
                    currency: decision.currency,
                    nano: proposal.nano,
                    test: request.test,
                    segments: scratch
                        .in_segments(&proposal.line_item.wants)
                        .take(SEGMENTS_MAX)
                        .collect(),
                };
                let committed = self.desk.commit(
                    &generation.plan,
                    &generation.book,
                    &mut scratch.allowances,
                    &proposed,
                    &mut self.token,
                );
                let outcome = committed.map(|_| ()).map_err(Refusal::from);
                tally.settle(proposal.imp, proposal.line_item.index, outcome);
                match committed {
                    Ok(id) => {
                        let mut bid = proposal.bid_out(id);
                        let token = self.token.as_str();
                        if !token.is_empty() {
                            let token: &str = self.arena.alloc_str(token);
                            bid.notices = urls.zip(notice_tokens(token));
                        }
                        bids.push(bid);
                    }
                    Err(why) => refused = Some(NoBid::Refused(why.into())),
                }
            }
            if bids.is_empty() {
                return Err(refused.unwrap_or(NoBid::Failed));
            }
            write_bids(out, request.id, decision.currency, &bids);
            self.counters.bids(exchange.index, bids.len());
            Ok(())
        });
        match outcome {
            Ok(()) => Answer::Bid,
            Err(reason) => {
                self.counters.no_bid(exchange.index, reason);
                no_bid(exchange, request, reason, out)
            }
        }
    }
}

/// What became of imps under one plan and in one hour, by the exchange's index.
#[derive(Debug, Default)]
struct Tallies {
    /// Of which plan, and which hour since 1970.
    of: Option<(Arc<Plan>, u32)>,
    tallies: Vec<Option<Tally>>,
    /// When they are to be told next.
    due: Option<Instant>,
}

/// So many rows of tallies a second a bid thread tells the ledger's; where there are more, it tells them less often, but each minute.
const TALLY_ROWS_A_SECOND: u32 = 10_000;
const TALLY_SECONDS_MAX: u32 = 60;

impl Tallies {
    /// The one to count a request in, where books are kept.
    fn of(
        &mut self,
        desk: &mut Desk,
        generation: &Generation,
        exchange: &Exchange,
        at: Timestamp,
    ) -> Option<&mut Tally> {
        if !desk.keeps_tallies() {
            return None;
        }
        let hour = u32::try_from(at.unix_seconds() / 3600).unwrap_or(0);
        let is_same = |(plan, of): &(Arc<Plan>, u32)| {
            plan.number() == generation.plan.number() && *of == hour
        };
        if !self.of.as_ref().is_some_and(is_same) {
            self.tell(desk);
            self.tallies.clear();
            self.of = Some((Arc::clone(&generation.plan), hour));
        }
        if self.tallies.len() <= exchange.index {
            let exchanges = exchange.index.saturating_add(1);
            self.tallies.resize_with(exchanges, || None);
        }
        let tally = self.tallies.get_mut(exchange.index)?;
        let tally = tally.get_or_insert_with(|| Tally::of(&generation.book));
        tally.begin();
        Some(tally)
    }

    /// Tells the ledger what was counted, unless it is too soon.
    fn tell_in_time(&mut self, desk: &mut Desk, now: Instant) {
        if self.due.is_none_or(|due| now >= due) && !desk.has_unsent_tallies() {
            let told = u32::try_from(self.tell(desk)).unwrap_or(u32::MAX);
            let most = TALLY_SECONDS_MAX.saturating_mul(1_000);
            let wait_ms = told / (TALLY_ROWS_A_SECOND / 1_000);
            self.due = now.checked_add(Duration::from_millis(wait_ms.min(most).into()));
        }
    }

    /// Tells the ledger what was counted, and begins anew; how many rows it was.
    fn tell(&mut self, desk: &mut Desk) -> usize {
        let mut told = 0usize;
        let Some((plan, hour)) = &self.of else {
            return told;
        };
        for (exchange, tally) in self.tallies.iter_mut().enumerate() {
            let Some(tally) = tally else { continue };
            let (imps, mut rows) = (tally.imps(), Vec::new());
            if imps > 0 {
                tally.take(|line_item, refusal, count| {
                    rows.push((line_item, refusal, count));
                });
                told = told.saturating_add(rows.len());
                desk.tally(plan, exchange, *hour, imps, rows);
            }
        }
        told
    }
}

/// A request that is to be kept for shadow validation, and what was decided on it with.
struct Kept<'a, 'r> {
    generation: &'r Generation,
    exchange: &'a Exchange,
    request: &'r Request<'a>,
    leave: Open,
    at: Timestamp,
}

impl<'a> Kept<'a, '_> {
    /// Puts it into the sample, abridged. What it takes meanwhile is the arena's.
    #[cold]
    fn put(self, sampler: &mut Sampler, wanted: Wanted, arena: &'a Bump) {
        let Self {
            generation,
            exchange,
            request,
            leave,
            at,
        } = self;
        let (keys, seen) = seen(generation, exchange, request, leave, arena);
        sampler.put(wanted, at, exchange.index, leave, &keys, |room| {
            abridge(request, &seen, room, arena)
        });
    }
}

/// Whether there is still time to decide. An answer that comes late costs both sides and earns nothing.
fn in_time(
    request: &Request<'_>,
    exchange: &Exchange,
    arrived: Instant,
    now: Instant,
) -> Result<(), NoBid> {
    let within = Duration::from_millis(u64::from(answer_within_ms(request, exchange)?));
    if now.saturating_duration_since(arrived) < within {
        Ok(())
    } else {
        Err(NoBid::Shed)
    }
}

fn no_bid(exchange: &Exchange, request: &Request<'_>, reason: NoBid, out: &mut Vec<u8>) -> Answer {
    match exchange.no_bid {
        NoBidForm::Status204 => Answer::NoBid,
        NoBidForm::Reason => {
            out.clear();
            write_no_bid(out, request.id, reason.nbr());
            Answer::Reason
        }
    }
}

/// What the URLs of a bid carry.
fn notice_tokens(text: &str) -> Option<NoticeTokens<'_>> {
    let (begins, rest) = TokenText::parts(text)?;
    let begins = |kind: Kind| begins.get(kind as usize).copied();
    Some(NoticeTokens {
        win: begins(Kind::Win)?,
        bill: begins(Kind::Bill)?,
        loss: begins(Kind::Loss)?,
        click: begins(Kind::Click)?,
        rest,
    })
}

/// Where an ad leads, if its creative is in the live book still.
fn landing_page(plan: &Plan, generation: &Generation, creative: u32) -> Option<String> {
    let place = plan.creative(creative)?;
    let creative = generation.book.creatives.get(place)?;
    Some(creative.click_url.to_string())
}

/// What a notice's query says.
fn said(query: &str, keys: &[PriceKey]) -> Said {
    let mut said = Said::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "p" => said.price = read_price(Some(&value), keys),
            "c" => said.currency = read_currency(&value),
            _ => {}
        }
    }
    said
}

impl Drop for KithBidder {
    /// Its thread ends, or has another one after a panic: what these gauges said is over.
    fn drop(&mut self) {
        self.tallies.tell(&mut self.desk);
        self.counters.set_load(Load::default());
    }
}

impl Bidder for KithBidder {
    fn bid(
        &mut self,
        exchange: &Exchange,
        body: &[u8],
        arrived: Instant,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Answer {
        let answer = self.answer(exchange, body, arrived, now, out);
        if self.arena.allocated_bytes() > ARENA_KEPT_BYTES_MAX {
            self.arena = Bump::new();
        } else {
            self.arena.reset();
        }
        answer
    }

    fn shed(&mut self, exchange: &Exchange) {
        // The request's id is not known, so an exchange that wants reasons gets a plain 204 too.
        self.counters.no_bid(exchange.index, NoBid::Shed);
    }

    fn answered(&mut self, exchange: &Exchange, answer: Answer, took: Duration) {
        let outcome = match answer {
            Answer::Bid => Outcome::Bid,
            Answer::Reason | Answer::NoBid => Outcome::NoBid,
            Answer::Malformed => Outcome::Malformed,
        };
        self.counters.finished(exchange.index, outcome, took);
    }

    fn tick(&mut self, load: Load) {
        self.live.load();
        let now = Instant::now();
        let showed = self.wall.read(Timestamp::now(), now);
        self.desk.tick();
        self.tallies.tell_in_time(&mut self.desk, now);
        if let Some(sampler) = &mut self.sampler {
            sampler.tick(showed);
        }
        self.counters.set_load(load);
    }

    fn notice(&mut self, asked: &NoticeAsked<'_>, reply: NoticeReply) {
        let Some(books) = &self.shared.books else {
            return reply.send(NoticeAnswer::Unknown);
        };
        let (ledger, price_keys) = (&books.ledger, &books.price_keys);
        let Ok(token) = self.desk.open(asked.kind, asked.token) else {
            ledger.count(Taken::Forged);
            return reply.send(NoticeAnswer::Unknown);
        };
        if asked.kind == Kind::Click {
            let generation = self.live.load();
            let url = landing_page(&generation.plan, generation, token.creative);
            let answer = url.map_or(NoticeAnswer::Unknown, NoticeAnswer::Leads);
            ledger.notice(Kind::Click, token, Said::default(), Box::new(|_| {}));
            // Nobody who clicked waits for a disk.
            return reply.send(answer);
        }
        let place = self.live.load().plan.exchange(token.exchange);
        let keys = place.and_then(|place| price_keys.get(place));
        let said = said(asked.query, keys.map_or(&[], Vec::as_slice));
        let hearer = move |answered| {
            reply.send(match answered {
                Answered::Booked(booked) if booked.outcome.is_taken() => NoticeAnswer::Taken,
                Answered::Booked(_) => NoticeAnswer::Unknown,
                Answered::TryAgain => NoticeAnswer::TryAgain,
            });
        };
        ledger.notice(asked.kind, token, said, Box::new(hearer));
    }

    fn refused(&mut self, exchange: Option<&Exchange>, why: Refused) {
        let index = exchange.map(|exchange| exchange.index);
        if let (Refused::Panicked, Some(index)) = (why, index) {
            self.counters.no_bid(index, decision::NoBid::Failed);
        }
        self.counters.refused(index, why);
    }
}
