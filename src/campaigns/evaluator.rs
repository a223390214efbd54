//! Asks line items whether they want a request: runs compiled expressions over its facts, in three-valued logic.
//!
//! Once a request, [`Book::resolve`] turns the facts into numbers (a string into its number in the book, segments into
//! bits), once an imp [`Book::resolve_deals`] does so for its deals; then every expression is a run over a few
//! 16-byte operations. Answers lie on two stacks of bits, one for "true" and one for "false"; an answer on neither is
//! null. So `and`, `or` and `not` are a few bit operations each and nothing recurses.
//!
//! Invariants: no allocation once the scratch has grown to the book; no panic and no endless loop whatever the facts; a
//! segment outside the bit sets handed in is null, never "not in it".
//! Cost, optimised, on a busy two-core VM (`what_it_costs` in the tests of `campaigns`): 45 to 200 ns to resolve a request,
//! then 55 to 75 ns a line item with four tests, most of it mispredicted branches.

#![deny(clippy::indexing_slicing)]

use std::cell::Cell;

use super::attributes::{Attribute, LISTS, TEXTS};
use super::index::{Candidates, ones};
use super::program::{Expression, Op, Program, Range, StringId};
use super::targeting::{Compare, Quantity};
use super::{Book, Format, LineItem};
use crate::clock::Timestamp;
use crate::money::Price;

/// What is known of a request: the attributes of `docs/targeting.md`, borrowed. `None` is null.
///
/// Whoever fills it in applies the privacy gate: closed means `None` for `segments`, `request_segments`, all `user_`
/// attributes and all places finer than a country. Strings are compared byte by byte.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // the names are those of docs/targeting.md
pub struct Facts<'a> {
    /// `None` while the gate is closed.
    pub segments: Option<SegmentFacts<'a>>,
    /// As `<segtax>:<id>`, or `<data.id>:<id>`.
    pub request_segments: Option<&'a [&'a str]>,
    pub user_age: Option<i64>,
    /// `M`, `F` or `O`.
    pub user_gender: Option<&'a str>,
    pub user_keywords: Option<&'a [&'a str]>,
    /// ISO 3166 alpha-3, upper case.
    pub country: Option<&'a str>,
    pub region: Option<&'a str>,
    pub city: Option<&'a str>,
    pub metro: Option<&'a str>,
    pub zip: Option<&'a str>,
    /// A word of [`device_type`](super::device_type).
    pub device_type: Option<&'a str>,
    pub os: Option<&'a str>,
    pub os_version: Option<&'a str>,
    pub browser: Option<&'a str>,
    pub language: Option<&'a str>,
    /// A word of [`connection`](super::connection).
    pub connection: Option<&'a str>,
    pub carrier: Option<&'a str>,
    pub site_domain: Option<&'a str>,
    pub app_bundle: Option<&'a str>,
    pub publisher: Option<&'a str>,
    pub categories: &'a [&'a str],
    pub keywords: &'a [&'a str],
    /// Its configured name.
    pub exchange: &'a str,
    /// When the request is decided, for `hour` and `weekday`.
    pub now: Timestamp,
    pub test: bool,
}

impl<'a> Facts<'a> {
    /// A request of which nothing is known but where it came from and when.
    pub fn new(exchange: &'a str, now: Timestamp) -> Self {
        Self {
            segments: None,
            request_segments: None,
            user_age: None,
            user_gender: None,
            user_keywords: None,
            country: None,
            region: None,
            city: None,
            metro: None,
            zip: None,
            device_type: None,
            os: None,
            os_version: None,
            browser: None,
            language: None,
            connection: None,
            carrier: None,
            site_domain: None,
            app_bundle: None,
            publisher: None,
            categories: &[],
            keywords: &[],
            exchange,
            now,
            test: false,
        }
    }

    fn text(&self, attribute: Attribute) -> Option<&'a str> {
        match attribute {
            Attribute::UserGender => self.user_gender,
            Attribute::Country => self.country,
            Attribute::Region => self.region,
            Attribute::City => self.city,
            Attribute::Metro => self.metro,
            Attribute::Zip => self.zip,
            Attribute::DeviceType => self.device_type,
            Attribute::Os => self.os,
            Attribute::OsVersion => self.os_version,
            Attribute::Browser => self.browser,
            Attribute::Language => self.language,
            Attribute::Connection => self.connection,
            Attribute::Carrier => self.carrier,
            Attribute::SiteDomain => self.site_domain,
            Attribute::AppBundle => self.app_bundle,
            Attribute::Publisher => self.publisher,
            Attribute::Exchange => Some(self.exchange),
            _ => None,
        }
    }

    fn list(&self, attribute: Attribute) -> Option<&'a [&'a str]> {
        match attribute {
            Attribute::RequestSegments => self.request_segments,
            Attribute::UserKeywords => self.user_keywords,
            Attribute::Categories => Some(self.categories),
            Attribute::Keywords => Some(self.keywords),
            _ => None,
        }
    }
}

/// Which segments the person is in, as sets of bits over the slots of [`Book::segments`]: slot `s` is bit `s % 64` of
/// word `s / 64`.
#[derive(Debug, Clone, Copy)]
pub struct SegmentFacts<'a> {
    /// The segments the person is in.
    pub member: &'a [u64],
    /// Those that may not or cannot be read: null, whatever `member` says. So is a slot beyond either set.
    pub unreadable: &'a [u64],
    /// Whether the person is in any segment at all, for `is empty`; `None` where that is not known.
    pub any: Option<bool>,
}

/// What is known of an imp and the creative tried for it. `None` is null.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImpFacts<'a> {
    /// What the creative is.
    pub format: Option<Format>,
    /// Width of the size the creative fits.
    pub width: Option<i64>,
    /// Height of the size the creative fits.
    pub height: Option<i64>,
    /// OpenRTB `pos`.
    pub position: Option<i64>,
    /// OpenRTB `instl`.
    pub interstitial: Option<bool>,
    /// OpenRTB `rwdd`.
    pub rewarded: Option<bool>,
    /// OpenRTB `secure`.
    pub secure: Option<bool>,
    /// The floor, in the line item's currency.
    pub floor: Option<Price>,
    /// The deals offered, from [`Book::resolve_deals`]; `None` counts as an empty list, for `deals` is never null.
    pub deals: Option<&'a Deals>,
}

/// An imp's deals as numbers; scratch, reused from imp to imp.
#[derive(Debug)]
pub struct Deals(List);

impl Default for Deals {
    fn default() -> Self {
        Self(List {
            state: ListState::Empty,
            ids: Vec::new(),
        })
    }
}

/// A request's facts as numbers; scratch, reused from request to request.
#[derive(Debug)]
pub struct Resolved {
    texts: [StringId; TEXTS],
    lists: [List; LISTS],
    user_age: Option<i64>,
    test: bool,
    now: Timestamp,
    /// Local hour and weekday by the book's zones, when first asked for.
    local: Vec<Cell<Option<Local>>>,
    gate_open: bool,
    member: Vec<u64>,
    unreadable: Vec<u64>,
    any: Option<bool>,
}

impl Default for Resolved {
    fn default() -> Self {
        Self {
            texts: [StringId::NULL; TEXTS],
            lists: Default::default(),
            user_age: None,
            test: false,
            now: Timestamp::default(),
            local: Vec::new(),
            gate_open: false,
            member: Vec::new(),
            unreadable: Vec::new(),
            any: None,
        }
    }
}

#[derive(Debug, Default)]
struct List {
    state: ListState,
    /// Of its values that the book names: sorted, once each.
    ids: Vec<StringId>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ListState {
    #[default]
    Null,
    Empty,
    Some,
}

impl List {
    fn fill(&mut self, program: &Program, values: Option<&[&str]>) {
        self.ids.clear();
        let Some(values) = values else {
            self.state = ListState::Null;
            return;
        };
        self.state = if values.is_empty() {
            ListState::Empty
        } else {
            ListState::Some
        };
        let named = values.iter().map(|value| program.id(value));
        self.ids.extend(named.filter(|id| *id != StringId::UNNAMED));
        self.ids.sort_unstable();
        self.ids.dedup();
    }

    fn holds(&self, quantity: Quantity, wanted: &[StringId]) -> Option<bool> {
        if self.state == ListState::Null {
            return None;
        }
        let has = |id: &StringId| self.ids.binary_search(id).is_ok();
        Some(match quantity {
            Quantity::All => wanted.len() <= self.ids.len() && wanted.iter().all(has),
            // Both are sorted: look the shorter up in the longer.
            Quantity::One if wanted.len() <= self.ids.len() => wanted.iter().any(has),
            Quantity::One => self.ids.iter().any(|id| wanted.binary_search(id).is_ok()),
        })
    }

    fn is_empty(&self) -> Option<bool> {
        match self.state {
            ListState::Null => None,
            state => Some(state == ListState::Empty),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Local {
    hour: i8,
    weekday: i8,
}

/// Answers, the newest in bit 0 of both words: a bit in `yes` is true, in `no` false, in neither null.
#[derive(Default)]
struct Answers {
    yes: u64,
    no: u64,
}

impl Answers {
    #[inline]
    fn push(&mut self, answer: Option<bool>) {
        self.yes = self.yes << 1 | u64::from(answer == Some(true));
        self.no = self.no << 1 | u64::from(answer == Some(false));
    }

    #[inline]
    fn and(&mut self) {
        let (yes, no) = (self.yes & 1, self.no & 1);
        self.yes = self.yes >> 1 & (!1 | yes);
        self.no = self.no >> 1 | no;
    }

    #[inline]
    fn or(&mut self) {
        let (yes, no) = (self.yes & 1, self.no & 1);
        self.yes = self.yes >> 1 | yes;
        self.no = self.no >> 1 & (!1 | no);
    }

    #[inline]
    fn not(&mut self) {
        let differ = (self.yes ^ self.no) & 1;
        self.yes ^= differ;
        self.no ^= differ;
    }

    #[inline]
    fn top(&self) -> Option<bool> {
        match (self.yes & 1, self.no & 1) {
            (1, _) => Some(true),
            (_, 1) => Some(false),
            _ => None,
        }
    }
}

impl Book {
    /// Turns a request's facts into numbers of this book. Attributes that no expression reads are left out.
    pub fn resolve(&self, facts: &Facts<'_>, resolved: &mut Resolved) {
        let read = |attribute: &Attribute| self.program.reads & attribute.bit() != 0;
        for attribute in Attribute::all().filter(read) {
            let place = attribute as usize;
            if let Some(text) = resolved.texts.get_mut(place) {
                *text = facts
                    .text(attribute)
                    .map_or(StringId::NULL, |value| self.program.id(value));
            } else if let Some(list) = resolved.lists.get_mut(place - TEXTS) {
                list.fill(&self.program, facts.list(attribute));
            }
        }
        resolved.user_age = facts.user_age;
        resolved.test = facts.test;
        resolved.now = facts.now;
        resolved.local.clear();
        resolved.local.resize(self.zones.len(), Cell::new(None));
        resolved.set_segments(facts.segments);
    }

    /// Turns an imp's deals into numbers of this book.
    pub fn resolve_deals(&self, ids: &[&str], deals: &mut Deals) {
        deals.0.fill(&self.program, Some(ids));
    }

    /// Finds the line items that may want the request; those that do are among them.
    pub fn candidates(&self, request: &Resolved, candidates: &mut Candidates) {
        self.index.of_request(request, candidates);
    }

    /// Line items' places by their ranks: who can pay most first.
    pub fn ranks(&self) -> &[u32] {
        self.index.ranks()
    }

    /// Narrows them to those that have a creative for one of these slots: a set of bits over the numbers of [`Terms`].
    ///
    /// [`Terms`]: super::Terms
    pub fn candidates_of_slots(&self, slots: &[u64], candidates: &mut Candidates) {
        self.index.of_slots(slots, candidates);
    }

    /// Whether a line item of this book wants the imp: true, false, or null. Only `Some(true)` is a match.
    ///
    /// Looks at the expression alone, not at status, flight, deals or price.
    pub fn matches(
        &self,
        line_item: &LineItem,
        request: &Resolved,
        imp: &ImpFacts<'_>,
    ) -> Option<bool> {
        self.answer(&line_item.expression, line_item, request, imp)
    }

    /// The same for one of the request's [candidates](Self::candidates), which spares what the index has answered.
    pub fn candidate_matches(
        &self,
        line_item: &LineItem,
        request: &Resolved,
        imp: &ImpFacts<'_>,
    ) -> Option<bool> {
        match line_item.expression.left {
            Some(left) => self.run(left, line_item, request, imp),
            None => Some(true),
        }
    }

    /// What an expression of a line item says of the imp.
    pub(super) fn answer(
        &self,
        expression: &Expression,
        line_item: &LineItem,
        request: &Resolved,
        imp: &ImpFacts<'_>,
    ) -> Option<bool> {
        self.run(expression.code, line_item, request, imp)
    }

    fn run(
        &self,
        code: Range,
        line_item: &LineItem,
        request: &Resolved,
        imp: &ImpFacts<'_>,
    ) -> Option<bool> {
        let code = code.of(&self.program.code);
        let mut answers = Answers::default();
        let mut at = 0usize;
        while let Some(op) = code.get(at) {
            at += 1;
            let answer = match *op {
                Op::And => {
                    answers.and();
                    continue;
                }
                Op::Or => {
                    answers.or();
                    continue;
                }
                Op::Not => {
                    answers.not();
                    continue;
                }
                Op::SkipIfFalse(on) => {
                    at += (on as usize) * usize::from(answers.no & 1 == 1);
                    continue;
                }
                Op::SkipIfTrue(on) => {
                    at += (on as usize) * usize::from(answers.yes & 1 == 1);
                    continue;
                }
                Op::TextIs(attribute, wanted) => {
                    let id = self.text(attribute, request, imp);
                    (id != StringId::NULL).then_some(id == wanted)
                }
                Op::TextIn(attribute, wanted) => {
                    let id = self.text(attribute, request, imp);
                    let wanted = wanted.of(&self.program.strings);
                    (id != StringId::NULL).then(|| wanted.binary_search(&id).is_ok())
                }
                Op::Bool(attribute) => boolean(attribute, request, imp),
                Op::Integer(attribute, compare, value) => self
                    .integer(attribute, line_item, request, imp)
                    .map(|number| holds(compare, number, value)),
                Op::IntegerIn(attribute, wanted) => {
                    let wanted = wanted.of(&self.program.integers);
                    self.integer(attribute, line_item, request, imp)
                        .map(|number| wanted.binary_search(&number).is_ok())
                }
                Op::Floor(compare, micros) => imp
                    .floor
                    .map(|floor| holds(compare, floor.micros(), micros)),
                Op::Texts(attribute, quantity, wanted) => {
                    let wanted = wanted.of(&self.program.strings);
                    match list(attribute, request, imp) {
                        Some(list) => list.holds(quantity, wanted),
                        None => Some(false),
                    }
                }
                Op::Segments(quantity, slots) => {
                    request.in_segments(quantity, slots.of(&self.program.slots))
                }
                Op::IsNull(attribute) => Some(self.is_null(attribute, line_item, request, imp)),
                Op::IsEmpty(Attribute::Segments) => request.in_no_segment(),
                Op::IsEmpty(attribute) => match list(attribute, request, imp) {
                    Some(list) => list.is_empty(),
                    None => Some(true),
                },
            };
            answers.push(answer);
        }
        answers.top()
    }

    #[inline]
    fn text(&self, attribute: Attribute, request: &Resolved, imp: &ImpFacts<'_>) -> StringId {
        match request.texts.get(attribute as usize) {
            Some(id) => *id,
            // The only string that is not the request's.
            None => match imp.format {
                Some(format) => self.formats.get(format as usize).copied(),
                None => None,
            }
            .unwrap_or(StringId::NULL),
        }
    }

    #[inline]
    fn integer(
        &self,
        attribute: Attribute,
        line_item: &LineItem,
        request: &Resolved,
        imp: &ImpFacts<'_>,
    ) -> Option<i64> {
        match attribute {
            Attribute::UserAge => request.user_age,
            Attribute::Hour => self
                .local(line_item, request)
                .map(|local| i64::from(local.hour)),
            Attribute::Weekday => self
                .local(line_item, request)
                .map(|local| i64::from(local.weekday)),
            Attribute::Width => imp.width,
            Attribute::Height => imp.height,
            Attribute::Position => imp.position,
            _ => None,
        }
    }

    /// Hour and weekday in the zone of the line item's advertiser; null only for a time out of the calendar.
    fn local(&self, line_item: &LineItem, request: &Resolved) -> Option<Local> {
        let place = line_item.zone as usize;
        let cell = request.local.get(place)?;
        if let Some(local) = cell.get() {
            return Some(local);
        }
        let now = jiff::Timestamp::from_millisecond(request.now.unix_ms).ok()?;
        let there = self.zones.get(place)?.to_datetime(now);
        let local = Local {
            hour: there.hour(),
            weekday: there.weekday().to_monday_one_offset(),
        };
        cell.set(Some(local));
        Some(local)
    }

    fn is_null(
        &self,
        attribute: Attribute,
        line_item: &LineItem,
        request: &Resolved,
        imp: &ImpFacts<'_>,
    ) -> bool {
        use super::attributes::Type;
        match attribute.kind() {
            Type::Text => self.text(attribute, request, imp) == StringId::NULL,
            Type::Texts => {
                list(attribute, request, imp).is_some_and(|list| list.state == ListState::Null)
            }
            Type::Segments => !request.gate_open,
            Type::Integer => self.integer(attribute, line_item, request, imp).is_none(),
            Type::Decimal => imp.floor.is_none(),
            Type::Boolean => boolean(attribute, request, imp).is_none(),
        }
    }
}

impl Resolved {
    /// Sets which segments the person is in, where that was not known yet at [`Book::resolve`]; `None` while the gate is
    /// closed.
    pub fn set_segments(&mut self, segments: Option<SegmentFacts<'_>>) {
        self.member.clear();
        self.unreadable.clear();
        self.gate_open = segments.is_some();
        self.any = None;
        if let Some(segments) = segments {
            self.member.extend_from_slice(segments.member);
            self.unreadable.extend_from_slice(segments.unreadable);
            self.any = segments.any;
        }
    }

    /// Bits beyond a set that is too short count as unreadable: who does not know must not say "not in it".
    #[inline]
    fn in_segment(&self, slot: u32) -> Option<bool> {
        let word = slot as usize / 64;
        let bit = 1u64 << (slot % 64);
        let unreadable = self.unreadable.get(word)?;
        let member = self.member.get(word)?;
        (unreadable & bit == 0).then_some(member & bit != 0)
    }

    /// Every value that the attribute has, as its number: what [`Demands`](super::index::Demands) are in.
    pub(super) fn each_value(&self, attribute: Attribute, mut visit: impl FnMut(u32)) {
        if attribute == Attribute::Segments {
            if self.gate_open {
                // Of what cannot be read nobody knows that they are in it.
                for (number, word) in self.member.iter().enumerate() {
                    let unreadable = self.unreadable.get(number).copied().unwrap_or(u64::MAX);
                    ones(&[word & !unreadable]).for_each(|bit| {
                        visit((number as u32).wrapping_mul(64).wrapping_add(bit));
                    });
                }
            }
        } else if let Some(text) = self.texts.get(attribute as usize) {
            visit(text.number());
        } else if let Some(list) = self.lists.get((attribute as usize).wrapping_sub(TEXTS)) {
            list.ids.iter().for_each(|id| visit(id.number()));
        }
    }

    /// Whether the person is known to be in it.
    pub(super) fn is_in(&self, slot: u32) -> bool {
        self.gate_open && self.in_segment(slot) == Some(true)
    }

    #[inline]
    fn in_segments(&self, quantity: Quantity, slots: &[u32]) -> Option<bool> {
        if !self.gate_open {
            return None;
        }
        let settles = quantity == Quantity::One;
        let mut answer = Some(!settles);
        for slot in slots {
            match self.in_segment(*slot) {
                Some(is) if is == settles => return Some(settles),
                Some(_) => {}
                None => answer = None,
            }
        }
        answer
    }

    /// A segment that one can see them in answers for all; else whoever looked says so.
    fn in_no_segment(&self) -> Option<bool> {
        if !self.gate_open {
            return None;
        }
        let mut seen = self.member.iter().zip(&self.unreadable);
        if seen.any(|(member, unreadable)| member & !unreadable != 0) {
            return Some(false);
        }
        self.any.map(|any| !any)
    }
}

/// `None` where deals were not resolved, which is an empty list.
#[inline]
fn list<'a>(attribute: Attribute, request: &'a Resolved, imp: &ImpFacts<'a>) -> Option<&'a List> {
    if attribute == Attribute::Deals {
        return imp.deals.map(|deals| &deals.0);
    }
    request.lists.get((attribute as usize).wrapping_sub(TEXTS))
}

#[inline]
fn boolean(attribute: Attribute, request: &Resolved, imp: &ImpFacts<'_>) -> Option<bool> {
    match attribute {
        Attribute::Test => Some(request.test),
        Attribute::Interstitial => imp.interstitial,
        Attribute::Rewarded => imp.rewarded,
        Attribute::Secure => imp.secure,
        _ => None,
    }
}

#[inline]
fn holds(compare: Compare, number: i64, literal: i64) -> bool {
    match compare {
        Compare::Equal => number == literal,
        Compare::Less => number < literal,
        Compare::AtMost => number <= literal,
        Compare::More => number > literal,
        Compare::AtLeast => number >= literal,
    }
}

#[cfg(test)]
mod tests;
