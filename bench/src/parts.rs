//! The parts of a decision, each alone, over the same requests: what `benches/` times and counts.
//!
//! Each part works through all requests of the [`Bench`] once and returns something that depends on all of its answers, so that nothing of
//! it can be left out by the compiler.

use std::sync::Arc;

use bumpalo::Bump;
use kith::campaigns::{Book, Candidates, Deals, Facts, ImpFacts, Resolved, SegmentFacts};
use kith::clock::Timestamp;
use kith::config::Exchange;
use kith::decision::{Scratch, Silent, decide};
use kith::generation::{Generation, Members};
use kith::ids::UserKey;
use kith::openrtb::{self, BidId, Request, write_bids};
use kith::privacy::{self, Consents};

use crate::bodies::{Weight, Who, bodies};
use crate::scene::{self, SOURCES, Size, id};

/// Requests that each part works through.
pub const REQUESTS: usize = 100;

/// A part's name and its work.
pub type Part = (&'static str, fn(&mut Bench) -> u64);

/// Every part, in the order of a request's way.
pub const PARTS: [Part; 7] = [
    ("read", read),
    ("gate", gate),
    ("lookup", lookup),
    ("targeting", targeting),
    ("decide", decide_bid),
    ("decide_no_bid", decide_no_bid),
    ("respond", respond),
];

/// What parts work on. Lives to the end of the process: requests borrow from it.
#[derive(Debug)]
pub struct Bench {
    generation: &'static Generation,
    exchange: &'static Exchange,
    bodies: &'static [String],
    wanted: Vec<&'static Request<'static>>,
    unwanted: Vec<&'static Request<'static>>,
    keys: Vec<[UserKey; SOURCES.len()]>,
    member: Vec<u64>,
    arena: Bump,
    scratch: Scratch,
    consents: Consents,
    resolved: Resolved,
    candidates: Candidates,
    deals: Deals,
    out: Vec<u8>,
    now: Timestamp,
}

fn forever<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

impl Bench {
    /// Builds the scene, and works through everything once, so that all scratch has grown.
    ///
    /// # Errors
    /// Where the scene itself is wrong.
    pub fn new(size: Size) -> Result<Self, String> {
        let config = forever(scene::config()?);
        let generation = forever(Arc::new(scene::generation(size, config)?));
        let exchange = config.exchanges.get("demo").ok_or("no exchange demo")?;
        let read = |bodies: &'static [String]| {
            let arena: &'static Bump = forever(Bump::new());
            bodies
                .iter()
                .map(|body| openrtb::read(body.as_bytes(), arena, IMPS_MAX))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|malformed| format!("{malformed:?}"))
        };
        let wanted = forever(bodies(Weight::Heavy, Who::Wanted, size.people, REQUESTS));
        let unwanted = forever(bodies(Weight::Heavy, Who::Unwanted, size.people, REQUESTS));
        let keyer = &generation.frame.keyer;
        let keys = (0..REQUESTS)
            .map(|n| {
                let key = |source| keyer.user_key(source, &id(source, n * 7 % size.people));
                let [a, b, c, d] = SOURCES.map(key);
                Ok([a?, b?, c?, d?])
            })
            .collect::<Result<_, kith::ids::IdRefused>>()
            .map_err(|refused| refused.to_string())?;
        // About ten of the segments that the book names, as a person has.
        let member = (0..generation.book.segments.len().div_ceil(64))
            .map(|word| {
                if word % 2 == 0 {
                    1 << 7 | 1 << 40
                } else {
                    1 << 21
                }
            })
            .collect();
        let mut bench = Self {
            generation,
            exchange,
            bodies: wanted,
            wanted: read(wanted)?,
            unwanted: read(unwanted)?,
            keys,
            member,
            arena: Bump::new(),
            scratch: Scratch::default(),
            consents: Consents::default(),
            resolved: Resolved::default(),
            candidates: Candidates::default(),
            deals: Deals::default(),
            out: Vec::new(),
            now: "2026-11-21T12:00:00Z".parse().map_err(|e| format!("{e}"))?,
        };
        for (_, part) in PARTS {
            part(&mut bench);
        }
        Ok(bench)
    }

    fn book(&self) -> &'static Book {
        &self.generation.book
    }
}

const IMPS_MAX: usize = 128;

/// A body's bytes to the request view, and every signal of privacy folded. Returns how many imps there were.
pub fn read(bench: &mut Bench) -> u64 {
    let mut imps = 0;
    for body in bench.bodies {
        if let Ok(request) = openrtb::read(body.as_bytes(), &bench.arena, IMPS_MAX) {
            imps += request.imp.len() as u64;
        }
        bench.arena.reset();
    }
    imps
}

/// The privacy gate. Returns how many were open.
pub fn gate(bench: &mut Bench) -> u64 {
    let policy = &bench.generation.frame.policy;
    let consents = &mut bench.consents;
    let open = |request: &&&Request<'_>| privacy::gate(request, policy, consents).is_ok();
    bench.wanted.iter().filter(open).count() as u64
}

/// Four ids of a person, in one dataset, together. Returns the sum of the segments' indexes.
pub fn lookup(bench: &mut Bench) -> u64 {
    let mut sum = 0;
    for keys in &bench.keys {
        for dataset in &bench.generation.datasets {
            let Members::Exact(audience) = &dataset.members else {
                continue;
            };
            let probes = keys.map(|key| audience.probe(key));
            let approaches = probes.map(|probe| audience.approach(probe));
            for approach in approaches {
                audience.lookup_at(approach, bench.now, |index| sum += u64::from(index) + 1);
            }
        }
    }
    sum
}

/// A request's facts against the whole book: resolve, find the candidates, ask them. Returns how many match.
pub fn targeting(bench: &mut Bench) -> u64 {
    let book = bench.book();
    let unreadable = [0; 64];
    let mut matched = 0;
    for request in &bench.wanted {
        let mut facts = Facts::new("demo", bench.now);
        facts.country = Some("USA");
        facts.device_type = Some("phone");
        facts.os = Some("ios");
        facts.categories = request.site.cat;
        facts.segments = Some(SegmentFacts {
            member: &bench.member,
            unreadable: &unreadable,
            any: Some(true),
        });
        book.resolve(&facts, &mut bench.resolved);
        book.candidates(&bench.resolved, &mut bench.candidates);
        let size = book.terms.size(300, 250).unwrap_or(0);
        book.candidates_of_slots(&[1 << size], &mut bench.candidates);
        book.resolve_deals(&[], &mut bench.deals);
        let imp = ImpFacts {
            width: Some(300),
            height: Some(250),
            deals: Some(&bench.deals),
            ..ImpFacts::default()
        };
        for line_item in bench.candidates.of(book) {
            matched += u64::from(book.matches(line_item, &bench.resolved, &imp) == Some(true));
        }
    }
    matched
}

/// The whole decision, from the request view to proposals, for people who are wanted. Returns how many proposals.
pub fn decide_bid(bench: &mut Bench) -> u64 {
    let requests = std::mem::take(&mut bench.wanted);
    let proposals = decide_all(bench, &requests);
    bench.wanted = requests;
    proposals
}

/// The same for people who are known and not wanted. Returns how many proposals.
pub fn decide_no_bid(bench: &mut Bench) -> u64 {
    let requests = std::mem::take(&mut bench.unwanted);
    let proposals = decide_all(bench, &requests);
    bench.unwanted = requests;
    proposals
}

fn decide_all(bench: &mut Bench, requests: &[&Request<'static>]) -> u64 {
    let mut proposals = 0;
    for request in requests {
        let decision = decide(
            bench.generation,
            bench.exchange,
            request,
            bench.now,
            &bench.arena,
            &mut bench.scratch,
            &mut Silent,
        );
        proposals += decision.outcome.map_or(0, <[_]>::len) as u64;
        bench.arena.reset();
    }
    proposals
}

/// A response of two bids. Returns how many bytes.
pub fn respond(bench: &mut Bench) -> u64 {
    let arena = Bump::new();
    let Some(request) = bench.wanted.first() else {
        return 0;
    };
    let decision = decide(
        bench.generation,
        bench.exchange,
        request,
        bench.now,
        &arena,
        &mut bench.scratch,
        &mut Silent,
    );
    let bids: Vec<_> = decision
        .outcome
        .unwrap_or(&[])
        .iter()
        .map(|proposal| proposal.bid_out(BidId(7)))
        .collect();
    let mut bytes = 0;
    for _ in 0..REQUESTS {
        bench.out.clear();
        write_bids(&mut bench.out, request.id, decision.currency, &bids);
        bytes += bench.out.len() as u64;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_does_its_work() {
        let mut bench = Bench::new(Size::TINY).expect("a scene");
        let requests = REQUESTS as u64;
        assert_eq!(read(&mut bench), 2 * requests, "two imps each");
        assert_eq!(gate(&mut bench), requests, "all gates are open");
        assert!(lookup(&mut bench) > 4 * requests, "all ids are known");
        assert!(targeting(&mut bench) > requests, "some line items match");
        assert!(decide_bid(&mut bench) >= 2 * requests, "a bid for each imp");
        assert_eq!(decide_no_bid(&mut bench), 0);
        assert!(
            respond(&mut bench) > 500 * requests,
            "a response with markup"
        );
    }
}
