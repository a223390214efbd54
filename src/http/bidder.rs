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

use super::bid::{Answer, Bidder, Load, Refused};
use crate::clock::Timestamp;
use crate::config::{Exchange, NoBidForm};
use crate::datasets::LiveReader;
use crate::decision::{self, NoBid, Scratch, Silent, answer_within_ms, decide, is_sampled, seen};
use crate::generation::Generation;
use crate::ledger::{Desk, Reservation};
use crate::metrics::{BidCounters, Outcome};
use crate::openrtb::{self, Request, abridge, write_bids, write_no_bid};
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
}

/// One bid thread's worth of Kith.
#[derive(Debug)]
pub struct KithBidder {
    shared: Shared,
    live: LiveReader,
    arena: Bump,
    scratch: Scratch,
    desk: Desk,
    counters: Arc<BidCounters>,
    wall: WallClock,
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
            scratch: Scratch::default(),
            desk,
            counters,
            wall: WallClock::read(),
            sampler: None,
        }
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
            let decision = decide(
                generation,
                exchange,
                request,
                self.wall.at(now),
                &self.arena,
                scratch,
                &mut Silent,
            );
            self.counters.gate(exchange.index, decision.gate);
            for (dataset, counts) in generation.datasets.iter().zip(scratch.lookups()) {
                self.counters.lookups(dataset.ordinal, *counts);
            }
            if let Some(sampler) = &mut self.sampler
                && let Some(leave) = is_sampled(&decision, request, scratch)
                && let Some(wanted) = sampler.wants(now)
            {
                let at = self.wall.at(now);
                let taken = Kept {
                    generation,
                    exchange,
                    request,
                    leave,
                    at,
                };
                taken.put(sampler, wanted, &self.arena);
            }
            let proposals = decision.outcome?;
            // An answer that comes late is never a bid.
            in_time(request, exchange, arrived, Instant::now())?;
            let mut bids = ArenaVec::with_capacity_in(proposals.len(), &self.arena);
            for proposal in proposals {
                let reservation = Reservation {
                    price: proposal.price,
                    test: request.test,
                };
                if let Ok(id) = self.desk.commit(reservation) {
                    bids.push(proposal.bid_out(id));
                }
            }
            if bids.is_empty() {
                return Err(NoBid::Failed);
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

/// The wall clock, read now and then, and told by the steady one in between: reading both for each request costs time, and
/// a step of the wall clock is seen soon enough.
#[derive(Debug, Clone, Copy)]
struct WallClock {
    read: Instant,
    showed: Timestamp,
}

impl WallClock {
    fn read() -> Self {
        Self {
            read: Instant::now(),
            showed: Timestamp::now(),
        }
    }

    fn at(self, now: Instant) -> Timestamp {
        let since = now.saturating_duration_since(self.read).as_millis();
        let since = i64::try_from(since).unwrap_or(i64::MAX);
        Timestamp::from_unix_ms(self.showed.unix_ms.saturating_add(since))
    }
}

impl Drop for KithBidder {
    /// Its thread ends, or has another one after a panic: what these gauges said is over.
    fn drop(&mut self) {
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
        self.wall = WallClock::read();
        if let Some(sampler) = &mut self.sampler {
            sampler.tick(self.wall.showed);
        }
        self.counters.set_load(load);
    }

    fn refused(&mut self, exchange: Option<&Exchange>, why: Refused) {
        let index = exchange.map(|exchange| exchange.index);
        if let (Refused::Panicked, Some(index)) = (why, index) {
            self.counters.no_bid(index, decision::NoBid::Failed);
        }
        self.counters.refused(index, why);
    }
}
