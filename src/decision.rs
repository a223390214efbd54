//! `decide`: from a frozen generation and a request to the bids we propose, or the reason why there are none.
//!
//! It reads and computes; it does no I/O, asks no clock, takes no lock and cannot fail. What it proposes is not
//! booked: the ledger commits it or refuses. An explanation is the same code with a [`Recorder`] that listens, so it
//! cannot tell another story than the one that happened.
//!
//! The order is the privacy rule made visible: limits of the request, then the gate, then, only through an open gate,
//! ids and lookups, then targeting. Per imp at most one bid in the open auction and one for each offered deal; the
//! highest price wins within each, and of equal prices the line item whose id comes first.
//!
//! Cost: some words of 64 line items a request and imp to find the candidates, and each of those that may still win asked in
//! full; no allocation once the scratch has grown (`bench`, docs/performance.md).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod again;
mod audience;
mod bits;
mod blocks;
mod explain;
mod facts;
mod filters;
mod fit;
mod floors;
mod layers;
mod macros;
mod native;
mod persons;
mod pods;
mod reasons;
mod tally;
mod traffic;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

use self::bits::Bits;
use self::blocks::Blocks;
use self::fit::{Fit, Slots};
use self::pods::Left;
use crate::campaigns;
use crate::campaigns::{
    Book, CLICK_MACRO, Candidates, Creative, CreativeTerms, Deals, ImpFacts, LineItem, Resolved,
    SegmentFacts, Status, Step, Transparency,
};
use crate::clock::Timestamp;
use crate::config::{Billing, Exchange};
use crate::generation::Generation;
use crate::identity::{self, IdOutcome};
use crate::ids::UserKey;
use crate::ledger::Allowances;
use crate::money::{Currency, Multiplier, Price, Round};
use crate::openrtb::{
    AuctionType, BidId, BidOut, Deal, Field, Imp, NativeAsk, Placement, Request, Size,
};
use crate::privacy::{self, Closed, Consents, Gate, Purposes};

pub use again::{decide_again, is_sampled, seen};
pub use audience::{LookupCounts, Membership};
pub use explain::{Explanation, explain};
pub use layers::{Layer, Layered, layers, persons_behind};
pub use persons::{Opinion, Persons};
pub use reasons::{NoBid, Refusal};
pub use tally::Tally;

/// Longest time we take for a request, whatever its `tmax` says, in milliseconds.
pub const ANSWER_MS_MAX: i64 = 5_000;

/// Longest answer, in bytes. Whoever offers many imps and deals is not sent markup and his own ids by the hundred megabytes.
pub const ANSWER_BYTES_MAX: usize = 2 << 20;

/// What a URL with a bid's token takes, about; and those of its notices.
const URL_BYTES: usize = 400;
const NOTICES_BYTES: usize = 3 * URL_BYTES;

/// What a bid thread reuses from request to request.
#[derive(Debug, Default)]
pub struct Scratch {
    consents: Consents,
    membership: Membership,
    resolved: Resolved,
    deals: Deals,
    blocks: Blocks,
    slots: Bits,
    candidates: Candidates,
    /// What the ledger allows; by default everything.
    pub allowances: Allowances,
}

impl Scratch {
    /// Which asks the ledger.
    pub fn that_asks(allowances: Allowances) -> Self {
        Self {
            allowances,
            ..Self::default()
        }
    }

    /// Those of these slots in whose segments the person of the last decision is.
    pub fn in_segments(&self, slots: &[u32]) -> impl Iterator<Item = u32> {
        let Membership {
            member, unreadable, ..
        } = &self.membership;
        let slots = slots.iter().copied();
        slots.filter(|slot| member.contains(*slot) && !unreadable.contains(*slot))
    }

    /// Lookups of the last decision, by the dataset's place in its generation. All zero where the gate was closed.
    pub fn lookups(&self) -> &[LookupCounts] {
        &self.membership.lookups
    }
}

/// What was decided.
#[derive(Debug)]
pub struct Decision<'a> {
    /// What the privacy gate said.
    pub gate: Gate,
    /// The currency of the proposals' prices.
    pub currency: Currency,
    /// At least one proposal, or why there is none.
    pub outcome: Result<&'a [Proposal<'a>], NoBid>,
}

/// One bid we would make.
#[derive(Debug, Clone, Copy)]
pub struct Proposal<'a> {
    /// The imp's place in the request.
    pub imp: usize,
    /// The imp's id.
    pub impid: &'a str,
    /// Who bids.
    pub line_item: &'a LineItem,
    /// What is shown.
    pub creative: &'a Creative,
    /// Its place in the book.
    pub creative_place: u32,
    /// The size it is shown in, where it has one: a banner's, a video's or its player's.
    pub size: Option<Size>,
    /// Its markup, escaped for JSON.
    pub adm: &'a str,
    /// For which seat.
    pub seat: &'a str,
    /// CPM in the decision's currency.
    pub price: Price,
    /// Through which deal; the open auction where none.
    pub deal: Option<&'a str>,
    /// Who pays for it, where the request wants to know.
    pub dsa: Option<&'a Transparency>,
    /// How many impressions it counts for: what is spent is the price times this.
    pub multiplier: Multiplier,
    /// What that is, in nano units of the line item's budgets; 0 where no books are kept.
    pub nano: i64,
    /// Where in a dynamic pod it wants to be.
    pub slotinpod: Option<i64>,
    /// Seconds that it may wait for its impression.
    pub exp: Option<u32>,
    /// The proportions, where it answers those and not a size.
    pub flex: Option<(i64, i64)>,
    /// What a native ad answers, until that is its markup.
    native: Option<&'a NativeAsk<'a>>,
}

impl<'a> Proposal<'a> {
    /// The bid as it is written into a response, under the id that the ledger gave it.
    pub fn bid_out(&self, id: BidId) -> BidOut<'a> {
        BidOut {
            id,
            seat: self.seat,
            impid: self.impid,
            price: self.price,
            line_item_json: &self.line_item.bid_json,
            adm_json: self.adm,
            landing: &self.creative.click_url,
            creative_json: &self.creative.bid_json,
            dealid: self.deal,
            slotinpod: self.slotinpod,
            exp: self.exp,
            flex: self.flex,
            dsa_json: self.dsa.map_or("", |dsa| &dsa.bid_json),
            notices: None,
        }
    }

    /// How long its ad is; 0 where it has no length.
    fn seconds(&self) -> u32 {
        self.creative.seconds().unwrap_or(0)
    }
}

/// Listens to a decision as it is made. Bids are decided with [`Silent`], which costs nothing.
pub trait Recorder {
    /// Whether it wants to hear of every line item, also of those whose answer does not matter any more.
    const HEARS_ALL: bool = true;
    /// Whether it wants to hear of candidates that can only be outbid and are not asked.
    const COUNTS: bool = false;

    /// The gate was asked.
    fn gate(&mut self, _gate: Gate) {}
    /// Who is behind the ids was found out.
    fn persons(&mut self, _persons: &Persons) {}
    /// An id was seen.
    fn id(&mut self, _source: &str, _outcome: IdOutcome) {}
    /// Nobody can bid on an imp, for what it says or does not say.
    fn unusable(&mut self, _imp: usize, _why: &'static str) {}
    /// Line items are asked for an imp.
    fn offered(&mut self) {}
    /// A line item's targeting is true with a creative, and its price is being found: a step, and the price behind it, in the line
    /// item's currency.
    fn step(&mut self, _book: &Book, _step: Step<'_>, _price: Price) {}
    /// The price that was found, after its bounds. A line item may come several times for one imp, with several creatives.
    fn price(&mut self, _imp: usize, _line_item: &LineItem, _price: Price) {}
    /// A line item was considered for an imp; `Ok` where it went into the auction.
    fn line_item(&mut self, _imp: usize, _line_item: &LineItem, _verdict: Result<(), Refusal>) {}
    /// Candidates that can only be outbid, by their ranks: a word of 64, and those of it.
    fn left_out(&mut self, _word: usize, _ranks: u64) {}
    /// A bid of the auction was taken out again.
    fn dropped(&mut self, _imp: usize, _line_item: &LineItem, _refusal: Refusal) {}
}

/// Listens to nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Recorder for Silent {
    const HEARS_ALL: bool = false;
}

/// How many milliseconds after its arrival a request must have been answered.
///
/// `tmax` where it is sent, else the exchange's own; less the time that the network takes; at most [`ANSWER_MS_MAX`].
pub fn answer_within_ms(request: &Request<'_>, exchange: &Exchange) -> Result<u32, NoBid> {
    let tmax = request
        .tmax_ms
        .unwrap_or(i64::from(exchange.default_tmax_ms));
    let left = tmax
        .saturating_sub(i64::from(exchange.margin_ms))
        .min(ANSWER_MS_MAX);
    u32::try_from(left)
        .ok()
        .filter(|left| *left > 0)
        .ok_or(NoBid::TmaxTooShort)
}

/// Decides on a request. Everything that it returns borrows from the generation, the exchange or the arena.
pub fn decide<'a>(
    generation: &'a Generation,
    exchange: &'a Exchange,
    request: &Request<'a>,
    now: Timestamp,
    arena: &'a Bump,
    scratch: &mut Scratch,
    recorder: &mut impl Recorder,
) -> Decision<'a> {
    let gate = privacy::gate(request, &generation.frame.policy, &mut scratch.consents);
    recorder.gate(gate);
    let asked = Asked {
        request,
        gate,
        known: None,
    };
    decide_behind(generation, exchange, &asked, now, arena, scratch, recorder)
}

/// A request behind the gate.
struct Asked<'a, 'r> {
    request: &'r Request<'a>,
    gate: Gate,
    /// The person's keys, where the request was decided on before and its ids are gone. It was not refused as a whole then, and
    /// what that was asked of may be gone too.
    known: Option<&'r [UserKey]>,
}

fn decide_behind<'a>(
    generation: &'a Generation,
    exchange: &'a Exchange,
    asked: &Asked<'a, '_>,
    now: Timestamp,
    arena: &'a Bump,
    scratch: &mut Scratch,
    recorder: &mut impl Recorder,
) -> Decision<'a> {
    let Asked {
        request,
        mut gate,
        known,
    } = *asked;
    let Scratch {
        consents: _,
        membership,
        resolved,
        deals,
        blocks,
        slots,
        candidates,
        allowances,
    } = scratch;
    membership.clear(generation);
    allowances.begin(&generation.plan, now);
    let (currency, usable) = match usable(generation, exchange, asked, arena) {
        Ok(currency) => (currency, Ok(())),
        Err(reason) => (exchange.currency, Err(reason)),
    };
    // Where nothing can be bid nobody is looked up.
    let outcome = usable.and_then(|()| {
        // What is asked of memory is asked here, and answered while something else is done.
        let (mut is_read, mut is_counted) = (false, false);
        let people = &*generation.frame.people;
        let own;
        let mut ids = known.unwrap_or_default();
        if let Ok(leave) = gate {
            is_read = membership.admit(generation, leave);
            is_counted = generation.plan.has_caps() && leave.may(Purposes::FREQUENCY);
            // Who opted out is left alone, also where nothing of her would be read.
            if is_read || is_counted || !people.is_empty() {
                let mut opted_out = false;
                if known.is_none() {
                    let seen = |source: &str, outcome| recorder.id(source, outcome);
                    let unused = |key| opted_out |= people.standing(key).opted_out;
                    let unused = (!people.is_empty()).then_some(unused);
                    own = ids_of(generation, exchange, request, leave, seen, unused);
                    ids = &own;
                }
                membership.persons.begin(generation, ids);
                membership.persons.opted_out = opted_out;
            }
            is_counted &= known.is_none();
            if is_read {
                membership.probe(generation);
            }
            if is_counted && !membership.persons.is_sought() {
                allowances.counts_under(&generation.plan, ids.iter().copied());
            }
        }
        let book = &*generation.book;
        let name = exchange.name.as_str();
        let mut facts = facts::facts(request, gate, book, name, now, arena);
        membership.persons.approach(generation);
        membership.approach(generation);
        blocks.begin(request, &exchange.seat, &book.terms);
        if let Ok(leave) = gate {
            let persons = &mut membership.persons;
            let is_more = persons.is_sought();
            persons.gather(generation, |purposes| leave.may(purposes), now);
            if persons.opted_out {
                gate = Err(Closed::OptedOut);
                facts = facts::facts(request, gate, book, name, now, arena);
            } else if is_more {
                if is_counted {
                    allowances.counts_under(&generation.plan, persons.counted(ids));
                }
                match is_read {
                    true => membership.probe_more(generation),
                    false => persons.clear(),
                }
            }
        }
        recorder.persons(&membership.persons);
        if membership.persons.opted_out {
            recorder.gate(gate);
            membership.clear(generation);
            allowances.counts_under(&generation.plan, std::iter::empty());
        }
        book.resolve(&facts, resolved);
        membership.approach(generation);
        membership.look_up(generation, now);
        if exchange.refuse.unknown_people && !membership.is_known() {
            return Err(NoBid::UnknownPerson);
        }
        resolved.set_segments(gate.ok().map(|_| SegmentFacts {
            member: membership.member.words(),
            unreadable: membership.unreadable.words(),
            any: membership.any(),
        }));
        book.candidates(resolved, candidates);
        let mut auction = Auction {
            blocks,
            allowances,
            generation,
            exchange,
            request,
            currency,
            now,
            resolved,
            proposals: ArenaVec::new_in(arena),
            room: ANSWER_BYTES_MAX,
            nearest: NoBid::NoUsableImp,
        };
        for (place, imp) in request.imp.iter().enumerate() {
            let scratch = ImpScratch {
                deals,
                slots,
                candidates,
            };
            auction.imp(place, imp, arena, scratch, recorder);
        }
        if auction.proposals.is_empty() {
            Err(auction.nearest)
        } else {
            Ok(auction.proposals.into_bump_slice())
        }
    });
    Decision {
        gate,
        currency,
        outcome,
    }
}

/// The ids of a request by which the person is looked up.
fn ids_of<'a>(
    generation: &Generation,
    exchange: &'a Exchange,
    request: &Request<'a>,
    leave: privacy::Open,
    seen: impl FnMut(&'a str, IdOutcome),
    unused: Option<impl FnMut(UserKey)>,
) -> identity::Ids {
    let frame = &generation.frame;
    let terms = identity::Terms {
        source: &exchange.id_source,
        policy: &exchange.ids,
        ids_max: frame.ids_max,
    };
    identity::collect(leave, request, terms, &frame.keyer, seen, unused)
}

/// Whether the request as a whole can be bid on, and in which currency.
fn usable<'a>(
    generation: &Generation,
    exchange: &Exchange,
    asked: &Asked<'a, '_>,
    arena: &'a Bump,
) -> Result<Currency, NoBid> {
    let request = asked.request;
    answer_within_ms(request, exchange)?;
    if request.placement == Placement::Several || has_repeated_imp(request.imp) {
        return Err(NoBid::Invalid);
    }
    if asked.known.is_none()
        && let Some(reason) = traffic::refused(&exchange.refuse, request, arena)
    {
        return Err(reason);
    }
    if blocks::has_unreadable_limit(request) {
        return Err(NoBid::UnreadableLimit);
    }
    if generation.book.line_items.is_empty() {
        return Err(NoBid::NoLineItem);
    }
    bid_currency(generation, exchange, request).ok_or(NoBid::Currency)
}

fn has_repeated_imp(imps: &[Imp<'_>]) -> bool {
    imps.iter().enumerate().any(|(place, imp)| {
        let earlier = imps.get(..place).unwrap_or(&[]);
        imp.id
            .value()
            .is_some_and(|id| earlier.iter().any(|other| other.id == Field::Value(id)))
    })
}

/// The exchange's own currency where the request allows it, else the first that it allows and we have a rate for.
fn bid_currency(
    generation: &Generation,
    exchange: &Exchange,
    request: &Request<'_>,
) -> Option<Currency> {
    let Some(allowed) = request.cur.value() else {
        return Some(exchange.currency);
    };
    if allowed.contains(&exchange.currency.as_str()) {
        return Some(exchange.currency);
    }
    let codes = || {
        allowed
            .iter()
            .filter_map(|code| code.parse::<Currency>().ok())
    };
    if codes().any(|code| code == exchange.currency) {
        return Some(exchange.currency);
    }
    codes().find(|code| generation.frame.rates.knows(*code))
}

/// One request's auction among our own line items.
struct Auction<'a, 'r> {
    generation: &'a Generation,
    exchange: &'a Exchange,
    request: &'r Request<'a>,
    currency: Currency,
    now: Timestamp,
    resolved: &'r Resolved,
    blocks: &'r mut Blocks,
    allowances: &'r mut Allowances,
    proposals: ArenaVec<'a, Proposal<'a>>,
    /// Bytes that the answer may still have.
    room: usize,
    /// How far the nearest line item came.
    nearest: NoBid,
}

/// What an imp offers and asks for, once that is known to be readable.
struct Offer<'a, 'r> {
    place: usize,
    id: &'a str,
    imp: &'r Imp<'a>,
    slots: Slots<'a, 'r>,
    secure: bool,
    private: bool,
    /// Whether its impression may come later than we wait for it.
    late: bool,
    multiplier: Multiplier,
    /// The imp's own floor in the bid's currency; `None` where there is no rate for it.
    floor: Option<Price>,
    /// The deals offered, of those that line items buy through, by their numbers and each once.
    deals: ArenaVec<'a, (u32, &'a Deal<'a>)>,
    /// The same for targeting.
    deal_ids: &'r Deals,
    /// Where this imp's proposals begin.
    first: usize,
}

/// How much of a line item's targeting is asked.
#[derive(Debug, Clone, Copy)]
enum Asks {
    /// All of it.
    All,
    /// What the index has not answered.
    Candidate,
}

/// What an imp's auction reuses from imp to imp.
struct ImpScratch<'r> {
    deals: &'r mut Deals,
    slots: &'r mut Bits,
    candidates: &'r mut Candidates,
}

impl<'a> Auction<'a, '_> {
    fn imp<R: Recorder>(
        &mut self,
        place: usize,
        imp: &Imp<'a>,
        arena: &'a Bump,
        scratch: ImpScratch<'_>,
        recorder: &mut R,
    ) {
        let ImpScratch {
            deals,
            slots,
            candidates,
        } = scratch;
        let offer = match self.offer(place, imp, arena, deals, slots) {
            Ok(offer) => offer,
            Err(why) => return recorder.unusable(place, why),
        };
        recorder.offered();
        let book: &'a Book = &self.generation.book;
        if R::HEARS_ALL {
            for line_item in &book.line_items {
                let verdict = self.consider(&offer, line_item, Asks::All, recorder);
                recorder.line_item(place, line_item, verdict);
                self.came(verdict);
            }
            self.finish(&offer, arena, recorder);
            return;
        }
        book.candidates_of_slots(offer.slots.open.words(), candidates);
        let mut asked = candidates.of(book);
        while let Some(line_item) = asked.next() {
            if self.is_outbid(&offer, line_item) {
                recorder.line_item(place, line_item, Err(Refusal::Outbid));
                continue;
            }
            let verdict = self.consider(&offer, line_item, Asks::Candidate, recorder);
            recorder.line_item(place, line_item, verdict);
            self.came(verdict);
            // In another currency two prices may be rounded to one.
            let bids_its_price = line_item.currency == self.currency;
            if verdict.is_ok()
                && line_item.deals.is_empty()
                && bids_its_price
                && self.leader(&offer).is_some_and(|leader| {
                    leader.line_item.index == line_item.index
                        && leader.price == line_item.pricing.most()
                })
            {
                asked.leads();
            }
        }
        if R::COUNTS {
            for (word, ranks) in asked.left_out() {
                recorder.left_out(word, ranks);
            }
        }
        if self.proposals.is_empty() {
            self.ask_the_rest(&offer, candidates, recorder);
        }
        self.finish(&offer, arena, recorder);
    }

    /// An imp's bids are those that its pod and the answer have room for, in the order of their line items' ids, then of
    /// deals, whoever was asked first.
    fn finish<R: Recorder>(&mut self, offer: &Offer<'a, '_>, arena: &'a Bump, recorder: &mut R) {
        pods::keep_what_fits(&mut self.proposals, offer.first, &offer.slots, |proposal| {
            recorder.dropped(offer.place, proposal.line_item, Refusal::Pod);
        });
        let Some(own) = self.proposals.get_mut(offer.first..) else {
            return;
        };
        own.sort_unstable_by_key(|proposal| (proposal.line_item.index, proposal.deal));
        let signals = &self.request.signals;
        let said = |which| macros::value(which, signals, arena);
        let mut fitting = 0usize;
        for proposal in own {
            let native = proposal.native.zip(proposal.creative.native.as_ref());
            proposal.adm = match (native, &proposal.creative.adm) {
                (Some((ask, ad)), _) => {
                    let pixel = self.exchange.billing == Billing::Impression;
                    campaigns::filled(native::markup(ask, ad, pixel, arena), arena, said)
                }
                (None, Some(markup)) => markup.filled(arena, said),
                (None, None) => "",
            };
            let clicks = match (native, &proposal.creative.adm) {
                (None, Some(markup)) => markup.clicks,
                _ => proposal.adm.matches(CLICK_MACRO).count(),
            };
            let bytes = proposal
                .bid_out(BidId(0))
                .bytes()
                .saturating_add(NOTICES_BYTES)
                .saturating_add(clicks.saturating_mul(URL_BYTES));
            match self.room.checked_sub(bytes) {
                Some(room) => self.room = room,
                None => break,
            }
            fitting = fitting.saturating_add(1);
        }
        let kept = offer.first.saturating_add(fitting);
        for proposal in self.proposals.get(kept..).unwrap_or(&[]) {
            recorder.dropped(offer.place, proposal.line_item, Refusal::AnswerSize);
        }
        self.proposals.truncate(kept);
    }

    /// Notes how far a line item came.
    fn came(&mut self, verdict: Result<(), Refusal>) {
        let reached = NoBid::Refused(verdict.err().unwrap_or(Refusal::Outbid));
        if self.nearest == NoBid::NoUsableImp || reached > self.nearest {
            self.nearest = reached;
        }
    }

    /// Who leads the open auction of an imp.
    fn leader(&self, offer: &Offer<'a, '_>) -> Option<&Proposal<'a>> {
        let mut own = self.proposals.iter().skip(offer.first);
        own.find(|proposal| proposal.deal.is_none())
    }

    /// Whether a line item of the open auction could only lose here: who leads bids as much as it ever can, and came first.
    fn is_outbid(&self, offer: &Offer<'a, '_>, line_item: &LineItem) -> bool {
        line_item.deals.is_empty()
            && self.leader(offer).is_some_and(|leader| {
                self.converted(line_item.pricing.most(), line_item)
                    .is_none_or(|most| !leads(most, line_item, leader))
            })
    }

    /// Nobody who may want the imp bids: how near would the others have come? Their targeting is not true, so none gets
    /// further than that, nor than the imp lets anybody; the first to get so far ends the search.
    fn ask_the_rest(
        &mut self,
        offer: &Offer<'a, '_>,
        candidates: &Candidates,
        recorder: &mut impl Recorder,
    ) {
        let book: &'a Book = &self.generation.book;
        let furthest = if offer.late {
            Refusal::Expiry
        } else if offer.slots.is_empty() {
            Refusal::Format
        } else if candidates.sized(book).next().is_some() {
            Refusal::Targeting
        } else if offer.slots.has_banner() {
            Refusal::Size
        } else {
            Refusal::Format
        };
        for line_item in candidates.sized(book).chain(&book.line_items) {
            if self.nearest != NoBid::NoUsableImp && self.nearest >= NoBid::Refused(furthest) {
                return;
            }
            let verdict = self.consider(offer, line_item, Asks::All, recorder);
            self.came(verdict);
        }
    }

    /// A line item's price in the bid's currency; nothing where there is no rate, or nothing is left of it.
    fn converted(&self, price: Price, line_item: &LineItem) -> Option<Price> {
        let rates = &self.generation.frame.rates;
        rates
            .convert(price, line_item.currency, self.currency, Round::Down)
            .filter(|price| *price > Price::ZERO)
    }

    /// What the imp offers; or why nobody can bid on it.
    fn offer<'r>(
        &self,
        place: usize,
        imp: &'r Imp<'a>,
        arena: &'a Bump,
        deal_ids: &'r mut Deals,
        open: &'r mut Bits,
    ) -> Result<Offer<'a, 'r>, &'static str> {
        let id = imp.id.value().ok_or("the imp has no id that can be read")?;
        let floor = imp.floor;
        let unreadable = floor.amount.is_unreadable()
            || floor.currency.is_unreadable()
            || imp.secure.is_unreadable()
            || imp.private_auction.is_unreadable()
            || imp.multiplier.is_unreadable();
        if unreadable {
            return Err(
                "the imp's floor, its currency, `secure`, `private_auction` or `qty` cannot be read",
            );
        }
        let terms = &self.generation.book.terms;
        let left = |media: &_| Left::of(media, self.request.imp, &self.proposals);
        let slots = Slots::of(imp, terms, left, open, arena);
        let window = self.exchange.billing_window.as_secs();
        let mut deals: ArenaVec<'a, (u32, &'a Deal<'a>)> = ArenaVec::new_in(arena);
        for deal in imp.deals {
            if let Some(number) = terms.deal(deal.id)
                && !deals.iter().any(|(known, _)| *known == number)
            {
                deals.push((number, deal));
            }
        }
        let ids = ArenaVec::from_iter_in(imp.deals.iter().map(|deal| deal.id), arena);
        self.generation.book.resolve_deals(&ids, deal_ids);
        Ok(Offer {
            place,
            id,
            imp,
            slots,
            secure: imp.secure == Field::Value(true),
            private: imp.private_auction == Field::Value(true),
            late: match imp.exp {
                Field::Absent => false,
                Field::Unreadable => true,
                Field::Value(exp) => u64::try_from(exp).is_ok_and(|exp| exp > window),
            },
            multiplier: imp.multiplier.value().unwrap_or(Multiplier::ONE),
            floor: floors::converted(floor, self.currency, &self.generation.frame.rates),
            deals,
            deal_ids,
            first: self.proposals.len(),
        })
    }

    /// Takes a line item through everything that can refuse it, cheapest first, and into the auction.
    fn consider(
        &mut self,
        offer: &Offer<'a, '_>,
        line_item: &'a LineItem,
        asks: Asks,
        recorder: &mut impl Recorder,
    ) -> Result<(), Refusal> {
        if line_item.status != Status::Active {
            return Err(Refusal::Paused);
        }
        if !line_item.flight.covers(self.now) {
            return Err(Refusal::Flight);
        }
        let terms = self
            .generation
            .book
            .terms
            .line_item(line_item.index)
            .ok_or(Refusal::Seat)?;
        if !self.blocks.seat_allowed(terms.seat) {
            return Err(Refusal::Seat);
        }
        if offer.late {
            return Err(Refusal::Expiry);
        }
        // The first of its creatives with which it bids. Where there is none, the reason is that of the creative that came
        // nearest.
        let book: &'a Book = &self.generation.book;
        let mut nearest = Refusal::Format;
        let mut refused: Option<(u32, bool, Refusal)> = None;
        for place in &line_item.creatives {
            let creative = usize::try_from(*place)
                .ok()
                .and_then(|place| book.creatives.get(place));
            let (Some(creative), Some(of_creative)) = (creative, book.terms.creative(*place))
            else {
                continue;
            };
            // Once one fitted and was refused, only one of another advertiser can fare better, or where that was for the price
            // one with another floor or another price.
            let is_priced_apart = offer.slots.media(creative.format).is_some()
                || line_item.pricing.depends_on_creative();
            let fares_alike = refused.is_some_and(|(advertiser, was_priced_apart, refusal)| {
                advertiser == creative.advertiser
                    && (refusal < Refusal::Currency || !(is_priced_apart || was_priced_apart))
            });
            if fares_alike {
                continue;
            }
            let fits = self.fit(offer, line_item, creative, of_creative, asks, recorder);
            let verdict = match fits {
                Err(refusal) => Err(refusal),
                Ok((fit, price)) => {
                    let verdict = self.propose(
                        offer,
                        line_item,
                        &terms.deals,
                        price,
                        (*place, creative),
                        fit,
                    );
                    refused = verdict
                        .err()
                        .map(|refusal| (creative.advertiser, is_priced_apart, refusal));
                    verdict
                }
            };
            match verdict {
                Ok(()) => return Ok(()),
                Err(refusal) => nearest = nearest.max(refusal),
            }
        }
        Err(nearest)
    }

    /// Enters the line item into the auction, with the numbers of its deals and what it pays, and a creative that may be shown.
    fn propose(
        &mut self,
        offer: &Offer<'a, '_>,
        line_item: &'a LineItem,
        deals: &[u32],
        price: Price,
        (creative_place, creative): (u32, &'a Creative),
        fit: Fit<'a>,
    ) -> Result<(), Refusal> {
        let buys_open = deals.is_empty();
        let dsa = self.transparency(creative)?;
        if buys_open && offer.private {
            return Err(Refusal::PrivateAuction);
        }
        let price = self.converted(price, line_item).ok_or(Refusal::Currency)?;
        let proposal = Proposal {
            imp: offer.place,
            impid: offer.id,
            line_item,
            creative,
            creative_place,
            size: fit.size,
            adm: "",
            seat: line_item.seat.as_deref().unwrap_or(&self.exchange.seat),
            price,
            deal: None,
            dsa,
            multiplier: offer.multiplier,
            nano: 0,
            slotinpod: line_item.slotinpod.filter(|_| {
                let slot = offer.slots.media(creative.format);
                slot.is_some_and(|slot| slot.media.pod.is_dynamic())
            }),
            exp: offer.imp.exp.value().map(|_| {
                let window = self.exchange.billing_window.as_secs();
                u32::try_from(window).unwrap_or(u32::MAX)
            }),
            flex: fit.flex,
            native: fit.native,
        };
        if buys_open {
            self.open_bid(offer, proposal)
        } else {
            self.deal_bids(offer, deals, proposal)
        }
    }

    /// Who pays, where the request wants to know; refused where it must be told and cannot be, or would be shown by both
    /// or by nobody ("DSA Transparency Extensions", `pubrender` and `adrender`).
    fn transparency(&self, creative: &Creative) -> Result<Option<&'a Transparency>, Refusal> {
        let asked = &self.request.dsa;
        if !asked.is_there {
            return Ok(None);
        }
        let book: &'a Book = &self.generation.book;
        let place = usize::try_from(creative.advertiser).ok();
        let advertiser = place.and_then(|place| book.advertisers.get(place));
        let ours = advertiser.and_then(|advertiser| advertiser.dsa.as_ref());
        let is_shown_once = ours.is_some_and(|ours| match asked.pubrender {
            Field::Value(0) => ours.adrender,
            Field::Value(2) => !ours.adrender,
            Field::Absent | Field::Value(1) => true,
            Field::Value(_) | Field::Unreadable => false,
        });
        if asked.required && !is_shown_once {
            return Err(Refusal::Dsa);
        }
        Ok(ours)
    }

    /// Whether a creative may be shown here, the line item's targeting is true with it; how it is shown, and what the line item
    /// pays for it, in its own currency.
    fn fit(
        &mut self,
        offer: &Offer<'a, '_>,
        line_item: &LineItem,
        creative: &'a Creative,
        terms: &CreativeTerms,
        asks: Asks,
        recorder: &mut impl Recorder,
    ) -> Result<(Fit<'a>, Price), Refusal> {
        let fit = offer.slots.fit(creative, terms)?;
        if let Some(wanted) = line_item.slotinpod {
            let slot = offer.slots.media(creative.format).ok_or(Refusal::Pod)?;
            slot.media
                .pod
                .grants(wanted)
                .then_some(())
                .ok_or(Refusal::Pod)?;
        }
        if offer.secure && !creative.secure {
            return Err(Refusal::Secure);
        }
        if offer.slots.blocks_attribute(creative, terms) {
            return Err(Refusal::BlockedAttribute);
        }
        if !offer.slots.has_api(creative) {
            return Err(Refusal::Api);
        }
        let facts = ImpFacts {
            format: Some(creative.format),
            width: fit.size.map(|size| size.w),
            height: fit.size.map(|size| size.h),
            position: fit.position,
            interstitial: offer.imp.instl,
            rewarded: offer.imp.rwdd,
            secure: offer.imp.secure.value(),
            floor: if line_item.reads_floor() {
                let floor = floors::of_slot(offer.imp.floor, &offer.slots, creative);
                floors::said_in(floor, line_item.currency, &self.generation.frame.rates)
            } else {
                None
            },
            deals: Some(offer.deal_ids),
        };
        let book = &self.generation.book;
        let matches = match asks {
            Asks::All => book.matches(line_item, self.resolved, &facts),
            Asks::Candidate => book.candidate_matches(line_item, self.resolved, &facts),
        };
        if matches != Some(true) {
            return Err(Refusal::Targeting);
        }
        if !self
            .blocks
            .language_allowed(self.request, &book.terms, terms)
        {
            return Err(Refusal::Language);
        }
        if !self
            .blocks
            .categories_allowed(self.request, &book.terms, terms)
        {
            return Err(Refusal::BlockedCategory);
        }
        if self
            .blocks
            .advertiser_blocked(self.request, &book.terms, terms)
        {
            return Err(Refusal::BlockedAdvertiser);
        }
        if self.blocks.app_blocked(self.request, &book.terms, terms) {
            return Err(Refusal::BlockedApp);
        }
        let scores = &self.generation.scores;
        let price = book.price(line_item, self.resolved, &facts, scores, |step, price| {
            recorder.step(book, step, price);
        });
        recorder.price(offer.place, line_item, price);
        Ok((fit, price))
    }

    /// The open auction's floor for a creative, in the bid's currency.
    fn open_floor(&self, offer: &Offer<'a, '_>, creative: &Creative) -> Result<Price, Refusal> {
        let floor = match offer.slots.media(creative.format) {
            None => offer.floor,
            Some(_) => floors::converted(
                floors::of_slot(offer.imp.floor, &offer.slots, creative),
                self.currency,
                &self.generation.frame.rates,
            ),
        };
        floor.ok_or(Refusal::Currency)
    }

    fn open_bid(&mut self, offer: &Offer<'a, '_>, proposal: Proposal<'a>) -> Result<(), Refusal> {
        if proposal.price < self.open_floor(offer, proposal.creative)? {
            return Err(Refusal::Floor);
        }
        self.enter(offer.first, proposal)
    }

    /// Enters the line item for each offered deal that it buys through. Refused where none takes it, for the reason of
    /// the deal that came nearest.
    fn deal_bids(
        &mut self,
        offer: &Offer<'a, '_>,
        ours: &[u32],
        proposal: Proposal<'a>,
    ) -> Result<(), Refusal> {
        let mut nearest = Err(Refusal::NoDeal);
        for (number, deal) in &offer.deals {
            if ours.binary_search(number).is_err() || !self.deal_admits(deal, &proposal) {
                continue;
            }
            let verdict = self.deal_price(offer, deal, &proposal).and_then(|price| {
                self.enter(
                    offer.first,
                    Proposal {
                        price,
                        deal: Some(deal.id),
                        ..proposal
                    },
                )
            });
            nearest = match (nearest, verdict) {
                (Ok(()), _) | (_, Ok(())) => Ok(()),
                (Err(before), Err(now)) => Err(before.max(now)),
            };
        }
        nearest
    }

    fn deal_admits(&self, deal: &Deal<'a>, proposal: &Proposal<'a>) -> bool {
        let place = usize::try_from(proposal.creative.advertiser).ok();
        let advertiser = place.and_then(|place| self.generation.book.advertisers.get(place));
        let domain = advertiser.map_or("", |advertiser| &advertiser.domain);
        let domain_allowed = match deal.wadomain {
            Field::Absent => true,
            Field::Unreadable => false,
            Field::Value(allowed) => allowed
                .iter()
                .any(|listed| blocks::domain_within(domain, listed)),
        };
        domain_allowed
            && !deal.wseat.is_unreadable()
            && blocks::seat_allowed(proposal.seat, deal.wseat, Field::Absent)
    }

    /// What is bid in a deal: our price over its floor (or the slot's, where it has none), or just its floor where that is
    /// the agreed price (`at` 3). A guaranteed deal asks for a bid each time, which nobody here can promise.
    fn deal_price(
        &self,
        offer: &Offer<'a, '_>,
        deal: &Deal<'a>,
        proposal: &Proposal<'a>,
    ) -> Result<Price, Refusal> {
        if deal.guar.is_unreadable() || deal.guar == Field::Value(true) {
            return Err(Refusal::Guaranteed);
        }
        let rates = &self.generation.frame.rates;
        let floor = match floors::of_deal(deal, offer.imp.floor, proposal.creative) {
            Some(own) => floors::converted(own, self.currency, rates).ok_or(Refusal::Currency)?,
            None => self.open_floor(offer, proposal.creative)?,
        };
        if proposal.price < floor {
            return Err(Refusal::Floor);
        }
        let fixed = deal.at == Some(AuctionType::Fixed) && floor > Price::ZERO;
        Ok(if fixed { floor } else { proposal.price })
    }

    /// Puts a bid among this imp's proposals, unless one for the same deal leads or the ledger does not allow it.
    fn enter(&mut self, first: usize, mut proposal: Proposal<'a>) -> Result<(), Refusal> {
        let own = self.proposals.iter().skip(first);
        let rival = own
            .enumerate()
            .find(|(_, rival)| rival.deal == proposal.deal)
            .map(|(place, rival)| (place.saturating_add(first), rival));
        if let Some((_, rival)) = rival
            && !leads(proposal.price, proposal.line_item, rival)
        {
            return Err(Refusal::Outbid);
        }
        let place = rival.map(|(place, _)| place);
        self.allow(&mut proposal, first)?;
        match place.and_then(|place| self.proposals.get_mut(place)) {
            None => self.proposals.push(proposal),
            Some(rival) => *rival = proposal,
        }
        Ok(())
    }

    /// Whether the ledger allows a bid, and what it costs its budgets.
    fn allow(&mut self, proposal: &mut Proposal<'a>, first: usize) -> Result<(), Refusal> {
        let plan = &self.generation.plan;
        let index = proposal.line_item.index;
        if let Some(spends) = plan.spends(index) {
            let rates = &self.generation.frame.rates;
            let price = rates.convert(proposal.price, self.currency, spends, Round::Up);
            let price = price.ok_or(Refusal::Currency)?;
            proposal.nano = proposal.multiplier.nanos_of(price).ok_or(Refusal::Budget)?;
        }
        let beside = self.proposals.get(..first).unwrap_or(&[]);
        let beside = beside.iter().map(|other| other.line_item.index);
        let book = &self.generation.book;
        let exchange = self.exchange.index;
        let allowed = self
            .allowances
            .allow(plan, book, index, exchange, proposal.nano, beside);
        allowed.map_err(Refusal::from)
    }
}

/// Whether a line item at that price comes before a rival: it pays more, or as much and its id comes first.
fn leads(price: Price, line_item: &LineItem, rival: &Proposal<'_>) -> bool {
    (Reverse(price), line_item.index) < (Reverse(rival.price), rival.line_item.index)
}
