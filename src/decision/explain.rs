//! Why a request is answered as it is: a decision with a recorder that listens.
//!
//! Ids are shown by source and a keyed short hash only. Nothing is booked.

use std::collections::{BTreeMap, BTreeSet};

use bumpalo::Bump;
use serde_json::{Value, json};

use super::{Layer, Layered, NoBid, Persons, Recorder, Refusal, Scratch, decide, layers};
use crate::campaigns::{Book, CLICK_MACRO, LineItem, Step};
use crate::clock::Timestamp;
use crate::config::Exchange;
use crate::generation::{Generation, LiveDataset};
use crate::identity::IdOutcome;
use crate::ids::UserKey;
use crate::ledger::{Allowances, Scope, State};
use crate::money::{Nanos, Price};
use crate::openrtb::{BidId, BidOut, Request, write_bids};
use crate::privacy::{Gate, Purposes};

/// An explanation, ready to be shown.
#[derive(Debug)]
pub struct Explanation {
    /// The document of `POST /v1/explain/{exchange}`.
    pub document: Value,
}

/// A line item that was considered for an imp.
struct Considered {
    imp: usize,
    index: u32,
    id: Box<str>,
    verdict: Result<(), Refusal>,
}

struct Listener<'k> {
    generation: &'k Generation,
    now: Timestamp,
    gate: Option<Gate>,
    ids: Vec<Value>,
    persons: Persons,
    unusable: Vec<(usize, &'static str)>,
    considered: Vec<Considered>,
    dropped: Vec<(usize, Box<str>, Refusal)>,
    /// How the price that is being found came about so far.
    steps: Vec<Value>,
    /// The last price that a line item found for an imp.
    prices: BTreeMap<(usize, u32), Value>,
}

impl<'k> Listener<'k> {
    /// The datasets for which there is leave: nothing else of the person is shown either.
    fn readable(&self) -> impl Iterator<Item = &'k LiveDataset> {
        let may = self.may();
        self.generation.datasets.iter().filter(move |of| may(of))
    }

    fn may(&self) -> impl Fn(&LiveDataset) -> bool + use<> {
        let leave = self.gate.and_then(Result::ok);
        move |dataset| leave.is_some_and(|leave| leave.may(dataset.purposes))
    }

    /// All segments the person is in, named by targeting or not, and which layer says so.
    fn layers(&self) -> Vec<Layered> {
        let leave = self.gate.and_then(Result::ok);
        let may = |dataset: Option<&LiveDataset>| {
            let purposes = dataset.map_or(Purposes::PROFILE, |dataset| dataset.purposes);
            leave.is_some_and(|leave| leave.may(purposes))
        };
        let mut all = layers(self.generation, &self.persons, self.now, may);
        all.retain(|of| of.expires.is_none_or(|at| at > self.now));
        all
    }

    /// In which datasets the id is.
    fn found_in(&self, key: UserKey) -> String {
        let known = |dataset: &&'k LiveDataset| {
            let all = self
                .generation
                .confirmed(dataset, key, self.now, self.may());
            !all.is_empty()
        };
        let names: Vec<&str> = self
            .readable()
            .filter(known)
            .map(|dataset| dataset.name.as_str())
            .collect();
        if names.is_empty() {
            "looked up: in no dataset".to_owned()
        } else {
            format!("looked up: in {}", names.join(", "))
        }
    }
}

impl Recorder for Listener<'_> {
    fn persons(&mut self, persons: &Persons) {
        self.persons = persons.clone();
    }

    fn gate(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    fn id(&mut self, source: &str, outcome: IdOutcome) {
        let (used, why, key) = match outcome {
            IdOutcome::Used(key) if self.generation.frame.people.standing(key).erased => {
                (false, "it was erased".to_owned(), Some(key))
            }
            IdOutcome::Used(key) => (true, self.found_in(key), Some(key)),
            IdOutcome::Repeated => (false, "the same id was there already".to_owned(), None),
            IdOutcome::Refused(refused) => (false, refused.to_string(), None),
            IdOutcome::ReservedSource => (
                false,
                "an extended id may not claim this source".to_owned(),
                None,
            ),
            IdOutcome::MatchMethod => (
                false,
                "how it was matched (mm) is refused for this exchange".to_owned(),
                None,
            ),
            IdOutcome::Matcher => (
                false,
                "who matched it is not among the exchange's matchers".to_owned(),
                None,
            ),
            IdOutcome::Inserter => (
                false,
                "who put it into the request is not among the exchange's inserters".to_owned(),
                None,
            ),
            IdOutcome::AgentType => (
                false,
                "what it is the id of (atype) is refused for this exchange".to_owned(),
                None,
            ),
            IdOutcome::OverLimit => (
                false,
                "as many ids as may be looked up were there already".to_owned(),
                None,
            ),
        };
        let mut shown = json!({"source": source, "used": used, "why": why});
        if let (Some(key), Some(shown)) = (key, shown.as_object_mut()) {
            shown.insert(
                "hash".into(),
                self.generation.frame.keyer.short_hash(key).into(),
            );
        }
        self.ids.push(shown);
    }

    fn line_item(&mut self, imp: usize, line_item: &LineItem, verdict: Result<(), Refusal>) {
        self.considered.push(Considered {
            imp,
            index: line_item.index,
            id: line_item.id.clone(),
            verdict,
        });
    }

    fn step(&mut self, book: &Book, step: Step<'_>, price: Price) {
        let price = in_micros(price.micros());
        self.steps.push(match step {
            Step::Score(score, best) => {
                let segment = best.and_then(|(slot, _)| book.segments.get(slot as usize));
                json!({
                    "score": best.map(|(_, millionths)| in_micros(millionths.into())),
                    "of": score.dataset,
                    "segment": segment.map(ToString::to_string),
                    "price": price,
                })
            }
            Step::Factor(factor, applies) => json!({
                "when": factor.text,
                "factor": in_micros(factor.millionths),
                "applies": applies,
                "price": price,
            }),
        });
    }

    fn price(&mut self, imp: usize, line_item: &LineItem, price: Price) {
        let pricing = &line_item.pricing;
        let bound = |bound: Option<Price>| bound.map(|bound| in_micros(bound.micros()));
        let told = json!({
            "cpm": in_micros(pricing.base.micros()),
            "currency": line_item.currency.as_str(),
            "steps": std::mem::take(&mut self.steps),
            "min": bound(pricing.min),
            "max": bound(pricing.max),
            "price": in_micros(price.micros()),
        });
        self.prices.insert((imp, line_item.index), told);
    }

    fn unusable(&mut self, imp: usize, why: &'static str) {
        self.unusable.push((imp, why));
    }

    fn dropped(&mut self, imp: usize, line_item: &LineItem, refusal: Refusal) {
        self.dropped.push((imp, line_item.id.clone(), refusal));
    }
}

/// Decides on a request and tells the whole story.
pub fn explain(
    generation: &Generation,
    exchange: &Exchange,
    request: &Request<'_>,
    now: Timestamp,
) -> Explanation {
    let arena = Bump::new();
    let mut scratch = Scratch::that_asks(Allowances::explaining());
    let mut listener = Listener {
        generation,
        now,
        gate: None,
        ids: Vec::new(),
        persons: Persons::default(),
        unusable: Vec::new(),
        considered: Vec::new(),
        dropped: Vec::new(),
        steps: Vec::new(),
        prices: BTreeMap::new(),
    };
    let decision = decide(
        generation,
        exchange,
        request,
        now,
        &arena,
        &mut scratch,
        &mut listener,
    );
    let proposals = decision.outcome.unwrap_or(&[]);
    let (plan, book) = (&generation.plan, &generation.book);
    let places = listener
        .considered
        .iter()
        .map(|considered| considered.index);
    let standings: BTreeMap<u32, Value> = places
        .collect::<BTreeSet<u32>>()
        .into_iter()
        .filter_map(|place| {
            let state = scratch.allowances.state(plan, book, place)?;
            Some((place, standing(&state)))
        })
        .collect();
    let imps: Vec<Value> = request
        .imp
        .iter()
        .enumerate()
        .map(|(place, imp)| {
            let line_items: Vec<Value> = listener
                .considered
                .iter()
                .filter(|considered| considered.imp == place)
                .map(|Considered { index, id, verdict, .. }| {
                    let price = listener.prices.get(&(place, *index));
                    let ledger = standings.get(index);
                    let bids = proposals.iter().any(|bid| bid.imp == place && bid.line_item.id == *id);
                    match verdict {
                        Ok(()) if bids => json!({"id": id, "outcome": "bid", "reason": null, "price": price, "ledger": ledger}),
                        other => {
                            let dropped = || {
                                let mut dropped = listener.dropped.iter();
                                dropped.find(|(at, dropped, _)| *at == place && dropped == id)
                            };
                            let refusal = other
                                .err()
                                .or_else(|| dropped().map(|(.., refusal)| *refusal))
                                .unwrap_or(Refusal::Outbid);
                            json!({"id": id, "outcome": "refused", "reason": refusal.as_str(), "why": refusal.why(), "price": price, "ledger": ledger})
                        }
                    }
                })
                .collect();
            let bids: Vec<Value> = proposals
                .iter()
                .filter(|bid| bid.imp == place)
                .map(|bid| {
                    json!({"line_item": bid.line_item.id, "creative": bid.creative.id, "seat": bid.seat,
                        "price": number(&bid.price.to_string()), "currency": decision.currency.as_str(),
                        "deal": bid.deal, "format": bid.creative.format.as_str(),
                        "w": bid.size.map(|size| size.w), "h": bid.size.map(|size| size.h)})
                })
                .collect();
            let why = listener.unusable.iter().find(|(at, _)| *at == place);
            json!({"id": imp.id.value(), "line_items": line_items, "bids": bids, "why": why.map(|(_, why)| *why)})
        })
        .collect();
    let (verdict, why) = match decision.gate {
        Ok(leave) if leave.is_limited() => (
            "limited",
            "consent is given for some purposes only: datasets that need others are not read",
        ),
        Ok(_) => ("open", "no signal forbids reading the person's segments"),
        Err(closed) => ("closed", closed.why()),
    };
    let reason: Option<NoBid> = decision.outcome.err();
    let layered = listener.layers();
    let datasets: serde_json::Map<String, Value> = generation
        .datasets
        .iter()
        .map(|dataset| (dataset.name.to_string(), dataset.version.into()))
        .chain(
            generation
                .graphs
                .iter()
                .map(|graph| (graph.name.to_string(), graph.version.into())),
        )
        .chain(
            generation
                .campaigns_version
                .map(|version| ("campaigns".to_owned(), version.into())),
        )
        .collect();
    let document = json!({
        "generation": generation.number,
        "datasets": datasets,
        "privacy": {
            "verdict": verdict,
            "signal": decision.gate.err().map(|closed| closed.as_str()),
            "why": why,
            "purposes": decision.gate.map_or(Vec::new(), |leave| leave.granted().iter().collect()),
            "datasets": listener.readable().map(|dataset| dataset.name.as_str()).collect::<Vec<_>>(),
        },
        "ids": listener.ids,
        "segments": layered.iter().map(|of| of.segment.as_str()).collect::<BTreeSet<_>>(),
        "layers": layered.iter().map(|of| match of.layer {
            Layer::Version(version, key) => {
                let id = generation.frame.keyer.short_hash(key);
                json!({"segment": of.segment, "layer": "version", "version": version, "id": id})
            }
            Layer::Update(sequence) => json!({"segment": of.segment, "layer": "update", "sequence": sequence}),
        }).collect::<Vec<_>>(),
        "unreadable": request.unreadable.iter().map(|field| field.as_str()).collect::<Vec<_>>(),
        "imps": imps,
        "decision": if reason.is_none() { "bid" } else { "no_bid" },
        "reason": reason.map(NoBid::as_str),
        "why": reason.map(NoBid::why),
        "response": response(request, decision.currency, proposals),
    });
    Explanation { document }
}

fn response(
    request: &Request<'_>,
    currency: crate::money::Currency,
    proposals: &[super::Proposal<'_>],
) -> Value {
    if proposals.is_empty() {
        return Value::Null;
    }
    let bids: Vec<BidOut<'_>> = (1u64..)
        .zip(proposals)
        .map(|(id, proposal)| {
            let mut bid = proposal.bid_out(BidId(id));
            // What a click's URL is, only a bid that is made knows.
            bid.landing = CLICK_MACRO;
            bid
        })
        .collect();
    let mut out = Vec::new();
    write_bids(&mut out, request.id, currency, &bids);
    serde_json::from_slice(&out).unwrap_or(Value::Null)
}

/// How a line item stands with the ledger: its budgets, how much of its traffic pacing lets through, its caps.
fn standing(state: &State) -> Value {
    let units = |nano: i64| number(&Nanos(nano).to_string());
    let budgets = state.budgets.iter().map(|budget| {
        json!({
            "of": word(budget.of),
            "per": if budget.is_day { "day" } else { "total" },
            "limit": units(budget.limit),
            "used": budget.used.map(units),
            "lent": budget.lent.map(units),
        })
    });
    let caps = state.caps.iter().map(|(cap, shown)| {
        json!({
            "of": word(cap.scope),
            "count": cap.count,
            "per_seconds": cap.seconds,
            "shown": shown,
        })
    });
    json!({
        "budgets": budgets.collect::<Vec<_>>(),
        "pacing_share": state.share,
        "caps": caps.collect::<Vec<_>>(),
        "stopped": state.stopped,
    })
}

fn word(scope: Scope) -> &'static str {
    match scope {
        Scope::LineItem => "line_item",
        Scope::Campaign => "campaign",
        Scope::Advertiser => "advertiser",
    }
}

/// So many millionths as a JSON number.
fn in_micros(micros: i64) -> Value {
    Price::from_micros(micros).map_or(Value::Null, |price| number(&price.to_string()))
}

/// A decimal text as a JSON number.
fn number(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}
