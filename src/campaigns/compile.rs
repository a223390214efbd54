//! From the document's tree to the book: every rule of a campaigns document that is not of the targeting language.
//!
//! Goes through advertisers, campaigns, creatives and line items in this order and notes every mistake. What is wrong in
//! one thing is told once: a creative with a bad size still counts as there for the line items that name it.
//!
//! Invariant: a book is made only of a document without a mistake, so placeholders for what could not be
//! read never leave this module.

mod creatives;
mod line_items;
mod media;
mod native;
mod transparency;
mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use self::values::{AMOUNT_MAX, amount, check_text, window};
use super::attributes::Attribute;
use super::document::{DocumentError, Errors, Fields, Node, read};
use super::index::Index;
use super::program::{Compiler, Full};
use super::targeting::{Expr, Test};
use super::terms::Terms;
use super::warnings::Notes;
use super::{Advertiser, Book, Budget, Campaign, Cap, Creative, Format, LineItem};
use crate::ids::{Name, SegmentRef};

/// Most line items of a document.
pub const LINE_ITEMS_MAX: usize = 100_000;
/// Most creatives of a document.
pub const CREATIVES_MAX: usize = 100_000;
/// Most campaigns of a document.
pub const CAMPAIGNS_MAX: usize = 100_000;
/// Most advertisers of a document.
pub const ADVERTISERS_MAX: usize = 10_000;
/// Most creatives of one line item: a bid tries each against the imp's sizes.
pub const CREATIVES_PER_LINE_ITEM_MAX: usize = 100;
/// Most deals of one line item.
pub const DEALS_PER_LINE_ITEM_MAX: usize = 1000;
/// Most caps of one line item or campaign.
pub const CAPS_MAX: usize = 8;
/// Most segments that targeting names in all: a request's set of them is then at most 8 KiB.
pub const SEGMENTS_MAX: usize = 65_536;

/// Most categories, attributes or APIs of one thing.
const CODES_MAX: usize = 64;

/// Compiles a campaigns document, JSON or TOML: the book, or everything that is wrong with it.
pub fn compile(document: &[u8]) -> Result<Book, Vec<DocumentError>> {
    let root = read(document).map_err(|error| vec![error])?;
    let mut work = Work::default();
    let Some(root) = Fields::open(
        &root,
        String::new(),
        None,
        &["advertisers", "campaigns", "creatives", "line_items"],
        &mut work.errors,
    ) else {
        return Err(work.failed());
    };
    work.advertisers(&root);
    work.campaigns(&root);
    work.creatives(&root);
    work.line_items(&root);
    work.finish()
}

#[derive(Default)]
struct Work {
    errors: Errors,
    notes: Notes,
    advertisers: Vec<Advertiser>,
    campaigns: Vec<Campaign>,
    creatives: Vec<Creative>,
    line_items: Vec<Draft>,
    /// Places by id. What has an id has a place, be the rest of it right or wrong.
    advertiser_places: HashMap<String, u32>,
    campaign_places: HashMap<String, u32>,
    creative_places: HashMap<String, u32>,
    zones: Vec<jiff::tz::TimeZone>,
    zone_places: HashMap<Box<str>, u32>,
    /// By advertiser.
    advertiser_zones: Vec<u32>,
    /// Datasets of scores, in the order in which they are named.
    scores: BTreeMap<Name, u32>,
}

/// A line item before segments have slots.
struct Draft {
    line_item: LineItem,
    place: usize,
    expr: Expr,
    /// When its price's factors apply.
    factors: Vec<Expr>,
}

impl Work {
    fn failed(self) -> Vec<DocumentError> {
        self.errors.finish().err().unwrap_or_default()
    }

    /// Opens each table of a list of the document and reads its id; in the order of the ids, so that equal documents
    /// give equal books.
    fn tables<'a>(
        &mut self,
        root: &Fields<'a>,
        key: &str,
        most: usize,
        known: &[&str],
    ) -> Vec<(usize, &'a str, Fields<'a>)> {
        let mut seen = HashSet::new();
        let mut tables = Vec::new();
        let list: Vec<_> = root.list(key, most, &mut self.errors).collect();
        for (place, (path, node)) in list.into_iter().enumerate() {
            let Some(fields) = Fields::open(node, path, None, known, &mut self.errors) else {
                continue;
            };
            let example = "\"acme-spring\"";
            let Some(node) = fields.required("id", example, &mut self.errors) else {
                continue;
            };
            let Some(id) = fields.text_of("id", node, &mut self.errors) else {
                continue;
            };
            if let Err(message) = check_text(id) {
                fields.wrong("id", message, &mut self.errors);
            }
            if !seen.insert(id) {
                let message = format!("`{id}` is the id of an earlier one too: ids must differ");
                fields.wrong("id", message, &mut self.errors);
                continue;
            }
            tables.push((place, id, fields));
        }
        tables.sort_by_key(|(_, id, _)| *id);
        tables
    }

    fn advertisers(&mut self, root: &Fields<'_>) {
        let known = [
            "id",
            "domain",
            "categories",
            "cattax",
            "time_zone",
            "budget",
            "caps",
            "currency",
            "dsa",
        ];
        for (_, id, fields) in self.tables(root, "advertisers", ADVERTISERS_MAX, &known) {
            let domain = self.domain(&fields);
            let time_zone = fields.text("time_zone", &mut self.errors).unwrap_or("UTC");
            let zone = self.zone(&fields, time_zone);
            let advertiser = Advertiser {
                id: id.into(),
                domain,
                categories: self.categories(&fields),
                cattax: fields
                    .integer("cattax", 1..=9999, &mut self.errors)
                    .unwrap_or(1),
                time_zone: time_zone.into(),
                currency: fields.parsed("currency", &mut self.errors),
                dsa: self.dsa(&fields),
                budget: self.budget(&fields),
                caps: self.caps(&fields),
            };
            self.advertiser_places
                .insert(id.to_owned(), count(&self.advertisers));
            self.advertisers.push(advertiser);
            self.advertiser_zones.push(zone);
        }
    }

    fn domain(&mut self, fields: &Fields<'_>) -> Box<str> {
        let Some(node) = fields.required("domain", "\"acme.example\"", &mut self.errors) else {
            return "".into();
        };
        let text = fields
            .text_of("domain", node, &mut self.errors)
            .unwrap_or("");
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let plausible = text.len() <= 253 && text.contains('.') && text.split('.').all(label);
        if matches!(node, Node::Text(_)) && !plausible {
            let message = format!(
                "`{text}` is no domain: write it like acme.example, without https:// and path"
            );
            fields.wrong("domain", message, &mut self.errors);
        }
        text.to_ascii_lowercase().into()
    }

    fn zone(&mut self, fields: &Fields<'_>, name: &str) -> u32 {
        if let Some(place) = self.zone_places.get(name) {
            return *place;
        }
        let Ok(zone) = jiff::tz::TimeZone::get(name) else {
            let message =
                format!("`{name}` is no time zone: write an IANA name like Europe/Paris, or UTC");
            fields.wrong("time_zone", message, &mut self.errors);
            return 0;
        };
        let place = count(&self.zones);
        self.zones.push(zone);
        self.zone_places.insert(name.into(), place);
        place
    }

    fn categories(&mut self, fields: &Fields<'_>) -> Box<[Box<str>]> {
        let list = fields.texts("categories", CODES_MAX, &mut self.errors);
        for (key, text) in &list {
            if let Err(message) = check_text(text) {
                fields.wrong(key, message, &mut self.errors);
            }
        }
        list.into_iter().map(|(_, text)| text.into()).collect()
    }

    /// The place of the advertiser that a table names, which it must.
    fn advertiser_of(&mut self, fields: &Fields<'_>) -> u32 {
        let Some(node) = fields.required("advertiser", "\"acme\"", &mut self.errors) else {
            return u32::MAX;
        };
        let Some(id) = fields.text_of("advertiser", node, &mut self.errors) else {
            return u32::MAX;
        };
        match self.advertiser_places.get(id) {
            Some(place) => *place,
            None => {
                let message = format!("there is no advertiser `{id}`: add it under `advertisers`");
                fields.wrong("advertiser", message, &mut self.errors);
                u32::MAX
            }
        }
    }

    fn campaigns(&mut self, root: &Fields<'_>) {
        let known = ["id", "advertiser", "budget", "caps"];
        for (_, id, fields) in self.tables(root, "campaigns", CAMPAIGNS_MAX, &known) {
            let campaign = Campaign {
                id: id.into(),
                advertiser: self.advertiser_of(&fields),
                budget: self.budget(&fields),
                caps: self.caps(&fields),
            };
            self.campaign_places
                .insert(id.to_owned(), count(&self.campaigns));
            self.campaigns.push(campaign);
        }
    }

    fn budget(&mut self, fields: &Fields<'_>) -> Budget {
        let Some(node) = fields.get("budget") else {
            return Budget::default();
        };
        let path = fields.at("budget");
        let known = ["day", "total"];
        let Some(budget) = Fields::open(node, path, fields.id(), &known, &mut self.errors) else {
            return Budget::default();
        };
        let mut amount = |key| {
            let node: &Node = budget.get(key)?;
            let amount = node.decimal().as_deref().and_then(amount);
            if amount.is_none() {
                let message = format!(
                    "expected an amount over 0 and up to {AMOUNT_MAX}, with at most 9 decimals, like \"500\" or \"12.50\""
                );
                budget.wrong(key, message, &mut self.errors);
            }
            amount
        };
        Budget {
            day: amount("day"),
            total: amount("total"),
        }
    }

    fn caps(&mut self, fields: &Fields<'_>) -> Box<[Cap]> {
        let list: Vec<_> = fields.list("caps", CAPS_MAX, &mut self.errors).collect();
        let mut caps = Vec::with_capacity(list.len());
        for (key, node) in list {
            let path = fields.at(&key);
            let known = ["count", "per"];
            let Some(cap) = Fields::open(node, path, fields.id(), &known, &mut self.errors) else {
                continue;
            };
            cap.required("count", "5", &mut self.errors);
            cap.required("per", "\"24h\"", &mut self.errors);
            let count = cap.integer("count", 1..=1_000_000, &mut self.errors);
            let seconds = cap.text("per", &mut self.errors).map(window);
            if seconds == Some(None) {
                let message = "expected a window like 30m, 24h or 7d, up to 366 days";
                cap.wrong("per", message, &mut self.errors);
            }
            if let (Some(count), Some(Some(seconds))) = (count, seconds) {
                caps.push(Cap { count, seconds });
            }
        }
        caps.into()
    }

    fn finish(mut self) -> Result<Book, Vec<DocumentError>> {
        let drafts = std::mem::take(&mut self.line_items);
        let mut slots: BTreeMap<SegmentRef, u32> = BTreeMap::new();
        for draft in &drafts {
            for expr in std::iter::once(&draft.expr).chain(&draft.factors) {
                each_test(expr, true, &mut |test, _| {
                    if let Test::Segments(_, segments) = test {
                        for segment in segments {
                            if !slots.contains_key(segment) {
                                slots.insert(segment.clone(), 0);
                            }
                        }
                    }
                });
            }
        }
        if slots.len() > SEGMENTS_MAX {
            let message = format!(
                "targeting names {} segments in all, at most {SEGMENTS_MAX} are taken",
                slots.len()
            );
            self.errors.add("line_items".into(), None, message);
        }
        std::mem::take(&mut self.errors).finish()?;
        for (slot, place) in slots.values_mut().zip(0..) {
            *slot = place;
        }
        self.notes.segments = vec![Default::default(); slots.len()];
        let full = |Full| {
            vec![DocumentError {
                path: "line_items".into(),
                id: None,
                message: "targeting is too much in all: split the document".into(),
            }]
        };
        let mut compiler = Compiler::default();
        let mut line_items = Vec::with_capacity(drafts.len());
        let mut demands = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let Draft {
                mut line_item,
                place,
                expr,
                factors,
            } = draft;
            let path = || format!("line_items[{place}].targeting");
            let ends = [true, false];
            note_users(&mut self.notes, &slots, path, &line_item.id, &expr, &ends);
            let (expression, demanded) = compiler.add_indexed(&expr, &slots).map_err(full)?;
            line_item.expression = expression;
            line_item.wants = wanted(&expr, &slots).into_iter().collect();
            if let Some(score) = &line_item.pricing.score {
                let path = || format!("line_items[{place}].price.score");
                let users = self.notes.scores.entry(score.dataset.clone()).or_default();
                users.add(path, &line_item.id);
                if line_item.wants.is_empty() {
                    let message =
                        "does nothing: the targeting asks for no segment that could have a score";
                    self.notes.warn(path(), Some(&line_item.id), message);
                }
            }
            demands.push(demanded);
            for (number, (expr, factor)) in factors
                .iter()
                .zip(&mut line_item.pricing.factors)
                .enumerate()
            {
                let path = || format!("line_items[{place}].price.multipliers[{number}].when");
                note_users(&mut self.notes, &slots, path, &line_item.id, expr, &[]);
                factor.when = compiler.add(expr, &slots).map_err(full)?;
            }
            line_items.push(line_item);
        }
        let formats = Format::ALL
            .iter()
            .map(|format| compiler.intern(format.as_str()))
            .collect::<Result<_, _>>()
            .map_err(full)?;
        let mut scores: Vec<(u32, Name)> = Vec::with_capacity(self.scores.len());
        scores.extend(self.scores.into_iter().map(|(name, place)| (place, name)));
        scores.sort_unstable();
        let scores = scores.into_iter().map(|(_, name)| name).collect();
        let terms = Terms::of(&line_items, &self.creatives, &self.advertisers);
        Ok(Book {
            index: Index::of(&line_items, &demands, &terms),
            terms,
            line_items: line_items.into(),
            creatives: self.creatives.into(),
            advertisers: self.advertisers.into(),
            campaigns: self.campaigns.into(),
            segments: slots.into_keys().collect(),
            scores,
            program: compiler.finish(),
            formats,
            zones: self.zones.into(),
            notes: self.notes,
        })
    }
}

/// Notes down which segments and exchanges an expression of a line item names, for warnings; and of segments whether it wants
/// or does not want the people in them, as far as that is among its `ends`.
fn note_users(
    notes: &mut Notes,
    slots: &BTreeMap<SegmentRef, u32>,
    path: impl Fn() -> String,
    id: &str,
    expr: &Expr,
    ends: &[bool],
) {
    let (mut seen, mut seen_so) = (HashSet::new(), HashSet::new());
    each_test(expr, true, &mut |test, wanted| match test {
        Test::Segments(_, segments) => {
            for slot in segments.iter().filter_map(|segment| slots.get(segment)) {
                let Some(named) = notes.segments.get_mut(*slot as usize) else {
                    continue;
                };
                if seen.insert(*slot) {
                    named.by.add(&path, id);
                }
                if ends.contains(&wanted) && seen_so.insert((*slot, wanted)) {
                    let so = match wanted {
                        true => &mut named.wanting,
                        false => &mut named.unwanting,
                    };
                    so.add(&path, id);
                }
            }
        }
        Test::TextIn(Attribute::Exchange, names) => {
            for name in names {
                notes
                    .exchanges
                    .entry(name.as_str().into())
                    .or_default()
                    .add(&path, id);
            }
        }
        _ => {}
    });
}

/// Every test, and whether the expression is the sooner true where it is: `wanted` for the whole. Recurses as deep as
/// the expression, which its parser bounds.
fn each_test<'e>(expr: &'e Expr, wanted: bool, visit: &mut impl FnMut(&'e Test, bool)) {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => {
            for part in parts {
                each_test(part, wanted, visit);
            }
        }
        Expr::Not(inner) => each_test(inner, !wanted, visit),
        Expr::Test(test) => visit(test, wanted),
    }
}

/// How many there are, as the place of the next; limits keep it far below 2³².
fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

/// The slots of segments that an expression asks somebody to be in. Recurses as deep as the expression, which its parser bounds.
fn wanted(expr: &Expr, slots: &BTreeMap<SegmentRef, u32>) -> BTreeSet<u32> {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => {
            parts.iter().flat_map(|part| wanted(part, slots)).collect()
        }
        Expr::Test(Test::Segments(_, segments)) => {
            let slots = segments.iter().filter_map(|segment| slots.get(segment));
            slots.copied().collect()
        }
        Expr::Not(_) | Expr::Test(_) => BTreeSet::new(),
    }
}
