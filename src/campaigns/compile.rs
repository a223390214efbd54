//! From the document's tree to the book: every rule of a campaigns document that is not of the targeting language.
//!
//! Goes through advertisers, campaigns, creatives and line items in this order and notes every mistake. What is wrong in
//! one thing is told once: a creative with a bad size still counts as there for the line items that name it.
//!
//! Invariant: a book is made only of a document without a mistake, so placeholders for what could not be
//! read never leave this module.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::attributes::Attribute;
use super::document::{DocumentError, Errors, Fields, Node, read};
use super::markup::{CLICK_MACRO, Markup};
use super::program::{Compiler, Full};
use super::targeting::{self, Expr, Test};
use super::warnings::Notes;
use super::{
    Advertiser, Amount, Book, Budget, Campaign, Cap, Creative, Flight, Format, LineItem, Pacing,
    Status,
};
use crate::clock::Timestamp;
use crate::ids::SegmentRef;
use crate::money::{Currency, Price, Round};

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

/// Longest id of anything, seat or deal, in bytes.
const TEXT_BYTES_MAX: usize = 128;
/// Longest markup in bytes. Exchanges refuse far shorter.
const MARKUP_BYTES_MAX: usize = 256 * 1024;
/// Longest URL in bytes.
const URL_BYTES_MAX: usize = 4096;
/// Most categories, attributes or APIs of one thing.
const CODES_MAX: usize = 64;
/// Longest window of a cap, in seconds: 366 days.
const CAP_SECONDS_MAX: u32 = 366 * 86_400;
/// Largest budget in whole units: what nano units in an `i64` hold, rounded down.
const AMOUNT_MAX: i64 = 9_000_000_000;
const NANOS: i64 = 1_000_000_000;

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
}

/// A line item before segments have slots.
struct Draft {
    line_item: LineItem,
    place: usize,
    expr: Expr,
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
            "currency",
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
            self.inactive(&fields, &["budget", "caps"]);
            self.campaign_places
                .insert(id.to_owned(), count(&self.campaigns));
            self.campaigns.push(campaign);
        }
    }

    /// Warns once of what is accepted but does nothing yet.
    fn inactive(&mut self, fields: &Fields<'_>, keys: &[&str]) {
        let there: Vec<_> = keys
            .iter()
            .copied()
            .filter(|key| fields.get(key).is_some())
            .collect();
        if let Some(first) = there.first() {
            self.notes.warn(
                fields.at(first),
                fields.id(),
                format!(
                    "{}: accepted, but nothing is limited by it yet",
                    there.join(", ")
                ),
            );
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

    fn creatives(&mut self, root: &Fields<'_>) {
        let known = [
            "id",
            "advertiser",
            "type",
            "w",
            "h",
            "adm",
            "secure",
            "click_url",
            "iurl",
            "attr",
            "api",
            "categories",
            "cattax",
            "language",
        ];
        for (_, id, fields) in self.tables(root, "creatives", CREATIVES_MAX, &known) {
            let creative = self.creative(id, &fields);
            self.creative_places
                .insert(id.to_owned(), count(&self.creatives));
            self.creatives.push(creative);
        }
    }

    fn creative(&mut self, id: &str, fields: &Fields<'_>) -> Creative {
        let place = self.advertiser_of(fields);
        let errors = &mut self.errors;
        fields.required("type", "\"banner\"", errors);
        let words = Format::ALL.map(|format| (format.as_str(), format));
        let format = fields.word("type", &words, errors);
        match format {
            Some(Format::Banner) => {
                fields.required("w", "300", errors);
                fields.required("h", "250", errors);
                fields.required("adm", "\"<a href=\\\"${KITH_CLICK_URL}\\\">…</a>\"", errors);
            }
            Some(other) => self.notes.warn(
                fields.at("type"),
                fields.id(),
                format!(
                    "{} creatives are accepted, but do not bid yet",
                    other.as_str()
                ),
            ),
            None => {}
        }
        let secure = fields.flag("secure", errors).unwrap_or(false);
        let adm = fields.text("adm", errors);
        if adm.is_some_and(|adm| adm.len() > MARKUP_BYTES_MAX) {
            let message = format!("has over {MARKUP_BYTES_MAX} bytes: load the rest from a server");
            fields.wrong("adm", message, errors);
        }
        if adm.is_some_and(|adm| adm.trim().is_empty()) {
            fields.wrong("adm", "is empty: write the ad's markup", errors);
        }
        let click_url = url(fields, "click_url", errors);
        let iurl = url(fields, "iurl", errors);
        if secure {
            let insecure = [("adm", adm.is_some_and(loads_insecurely))];
            let insecure = insecure
                .into_iter()
                .chain([("iurl", iurl.is_some_and(loads_insecurely))]);
            for (key, _) in insecure.filter(|(_, is)| *is) {
                let message = "loads over http:// although `secure` is true: use https://, or leave `secure` out";
                fields.wrong(key, message, errors);
            }
        }
        let language = fields.text("language", errors);
        if language
            .is_some_and(|code| code.len() != 2 || !code.bytes().all(|b| b.is_ascii_alphabetic()))
        {
            fields.wrong(
                "language",
                "expected two letters of ISO 639-1, like fr",
                errors,
            );
        }
        let w = fields.integer("w", 1..=20_000, errors);
        let h = fields.integer("h", 1..=20_000, errors);
        let attr = fields.codes("attr", CODES_MAX, errors);
        let api = fields.codes("api", CODES_MAX, errors);
        let own_cattax = fields.integer("cattax", 1..=9999, errors);
        let own_categories = self.categories(fields);
        let advertiser = self.advertisers.get(place as usize);
        let landing: Box<str> = match (click_url, advertiser) {
            (Some(url), _) => url.into(),
            (None, Some(advertiser)) => format!("https://{}/", advertiser.domain).into(),
            (None, None) => "".into(),
        };
        let (categories, cattax) = match advertiser {
            Some(advertiser) if fields.get("categories").is_none() => {
                (advertiser.categories.clone(), advertiser.cattax)
            }
            _ => (own_categories, 1),
        };
        if fields.get("categories").is_none() && own_cattax.is_some() {
            fields.wrong(
                "cattax",
                "is the taxonomy of `categories`: give both or neither",
                &mut self.errors,
            );
        }
        if adm.is_some_and(|adm| !adm.contains(CLICK_MACRO)) && format == Some(Format::Banner) {
            self.notes.warn(
                fields.at("adm"),
                fields.id(),
                format!("has no {CLICK_MACRO}: its clicks will not be counted"),
            );
        }
        Creative {
            id: id.into(),
            advertiser: place,
            format: format.unwrap_or(Format::Banner),
            w,
            h,
            adm: adm.map(|adm| Markup::new(adm, &landing)),
            click_url: landing,
            iurl: iurl.map(Into::into),
            attr,
            api,
            categories,
            cattax: own_cattax.unwrap_or(cattax),
            language: language.map(|code| code.to_ascii_lowercase().into()),
            secure,
        }
    }

    fn line_items(&mut self, root: &Fields<'_>) {
        let known = [
            "id",
            "campaign",
            "seat",
            "creatives",
            "targeting",
            "price",
            "flight",
            "deals",
            "budget",
            "pacing",
            "caps",
            "status",
        ];
        for (place, id, fields) in self.tables(root, "line_items", LINE_ITEMS_MAX, &known) {
            let draft = self.line_item(place, id, &fields);
            self.line_items.extend(draft);
        }
    }

    /// A line item; `None` where no expression could be read, which then is among the errors.
    fn line_item(&mut self, place: usize, id: &str, fields: &Fields<'_>) -> Option<Draft> {
        let (creatives, advertiser) = self.creatives_of(fields);
        let campaign = self.campaign_of(id, fields, advertiser);
        let (price, currency) = self.price(fields, advertiser);
        if let Some(currency) = currency {
            let users = self.notes.currencies.entry(currency).or_default();
            users.add(|| fields.at("price.currency"), id);
        }
        let flight = self.flight(fields);
        let deals = self.deals(fields);
        let budget = self.budget(fields);
        let caps = self.caps(fields);
        let pacing = [
            ("even", Pacing::Even),
            ("asap", Pacing::Asap),
            ("ahead", Pacing::Ahead),
        ];
        let pacing = fields.word("pacing", &pacing, &mut self.errors);
        let status = [("active", Status::Active), ("paused", Status::Paused)];
        let status = fields.word("status", &status, &mut self.errors);
        let seat = self.short_text(fields, "seat");
        self.inactive(fields, &["budget", "pacing", "caps"]);
        let expr = self.targeting(fields)?;
        Some(Draft {
            line_item: LineItem {
                id: id.into(),
                index: count(&self.line_items),
                campaign,
                advertiser: advertiser.unwrap_or(u32::MAX),
                seat,
                creatives,
                price: price.unwrap_or(Price::ZERO),
                currency: currency.unwrap_or(Currency::USD),
                flight,
                deals,
                status: status.unwrap_or(Status::Active),
                expression: super::Expression::none(),
                budget,
                pacing,
                caps,
                zone: advertiser
                    .and_then(|place| self.advertiser_zones.get(place as usize).copied())
                    .unwrap_or(0),
            },
            place,
            expr,
        })
    }

    /// A line item's creatives and the one advertiser that they have.
    fn creatives_of(&mut self, fields: &Fields<'_>) -> (Box<[u32]>, Option<u32>) {
        let example = "[\"acme-300x250\"]";
        fields.required("creatives", example, &mut self.errors);
        let most = CREATIVES_PER_LINE_ITEM_MAX;
        let list = fields.texts("creatives", most, &mut self.errors);
        if matches!(fields.get("creatives"), Some(Node::List(list)) if list.is_empty()) {
            fields.wrong("creatives", "name at least one creative", &mut self.errors);
        }
        let mut places = Vec::with_capacity(list.len());
        let mut first: Option<u32> = None;
        for (key, id) in list {
            let Some(place) = self.creative_places.get(id).copied() else {
                let message = format!("there is no creative `{id}`: add it under `creatives`");
                fields.wrong(&key, message, &mut self.errors);
                continue;
            };
            if places.contains(&place) {
                let message = format!("`{id}` is named twice");
                fields.wrong(&key, message, &mut self.errors);
                continue;
            }
            places.push(place);
            let advertiser = self
                .creatives
                .get(place as usize)
                .map(|creative| creative.advertiser)
                .filter(|advertiser| *advertiser != u32::MAX);
            match (first, advertiser) {
                (Some(first), Some(other)) if first != other => {
                    let name = |place: u32| {
                        self.advertisers
                            .get(place as usize)
                            .map_or("", |advertiser| &*advertiser.id)
                    };
                    let message = format!(
                        "`{id}` is of advertiser `{}`, the creatives before it of `{}`: a line item has one advertiser",
                        name(other),
                        name(first)
                    );
                    fields.wrong(&key, message, &mut self.errors);
                }
                (None, advertiser) => first = advertiser,
                _ => {}
            }
        }
        (places.into(), first)
    }

    fn campaign_of(&mut self, own: &str, fields: &Fields<'_>, advertiser: Option<u32>) -> Box<str> {
        let Some(id) = self.short_text(fields, "campaign") else {
            return own.into();
        };
        let listed = self
            .campaign_places
            .get(&*id)
            .and_then(|place| self.campaigns.get(*place as usize));
        if let (Some(campaign), Some(advertiser)) = (listed, advertiser)
            && campaign.advertiser != advertiser
            && campaign.advertiser != u32::MAX
        {
            let message = format!("campaign `{id}` is of another advertiser than the creatives");
            fields.wrong("campaign", message, &mut self.errors);
        }
        id
    }

    fn price(
        &mut self,
        fields: &Fields<'_>,
        advertiser: Option<u32>,
    ) -> (Option<Price>, Option<Currency>) {
        let example = "{\"cpm\": \"4.20\", \"currency\": \"EUR\"}";
        let Some(node) = fields.required("price", example, &mut self.errors) else {
            return (None, None);
        };
        let path = fields.at("price");
        let known = ["cpm", "currency"];
        let Some(price) = Fields::open(node, path, fields.id(), &known, &mut self.errors) else {
            return (None, None);
        };
        let cpm = price
            .required("cpm", "\"4.20\"", &mut self.errors)
            .and_then(|node| {
                let text = node.decimal();
                let cpm = text.and_then(|text| Price::parse(&text, Round::Down));
                let cpm = cpm.filter(|cpm| *cpm > Price::ZERO);
                if cpm.is_none() {
                    let message = "expected a decimal over 0 and up to 1000000, like \"4.20\"";
                    price.wrong("cpm", message, &mut self.errors);
                }
                cpm
            });
        if price.get("currency").is_some() {
            return (cpm, price.parsed("currency", &mut self.errors));
        }
        let currency = advertiser
            .and_then(|place| self.advertisers.get(place as usize))
            .and_then(|advertiser| advertiser.currency);
        // Without a known advertiser its currency is unknown too; that error is enough.
        if currency.is_none() && advertiser.is_some() {
            let message = "is required, like \"EUR\", for the advertiser has none";
            price.wrong("currency", message, &mut self.errors);
        }
        (cpm, currency)
    }

    fn flight(&mut self, fields: &Fields<'_>) -> Flight {
        let Some(node) = fields.get("flight") else {
            return Flight::default();
        };
        let path = fields.at("flight");
        let known = ["start", "end"];
        let Some(flight) = Fields::open(node, path, fields.id(), &known, &mut self.errors) else {
            return Flight::default();
        };
        let start: Option<Timestamp> = flight.parsed("start", &mut self.errors);
        let end: Option<Timestamp> = flight.parsed("end", &mut self.errors);
        if let (Some(start), Some(end)) = (start, end)
            && end <= start
        {
            let message = format!("is not after the start, {start}");
            flight.wrong("end", message, &mut self.errors);
        }
        Flight { start, end }
    }

    fn deals(&mut self, fields: &Fields<'_>) -> Box<[Box<str>]> {
        let list = fields.texts("deals", DEALS_PER_LINE_ITEM_MAX, &mut self.errors);
        let mut deals: Vec<Box<str>> = Vec::with_capacity(list.len());
        for (key, id) in list {
            if let Err(message) = check_text(id) {
                fields.wrong(&key, message, &mut self.errors);
            }
            deals.push(id.into());
        }
        deals.sort_unstable();
        deals.dedup();
        deals.into()
    }

    fn short_text(&mut self, fields: &Fields<'_>, key: &str) -> Option<Box<str>> {
        let text = fields.text(key, &mut self.errors)?;
        if let Err(message) = check_text(text) {
            fields.wrong(key, message, &mut self.errors);
        }
        Some(text.into())
    }

    fn targeting(&mut self, fields: &Fields<'_>) -> Option<Expr> {
        let example = "\"country = 'FRA'\"";
        let node = fields.required("targeting", example, &mut self.errors)?;
        let text = fields.text_of("targeting", node, &mut self.errors)?;
        match targeting::parse(text) {
            Ok(parsed) => {
                for doubt in parsed.doubts {
                    self.notes.warn(fields.at("targeting"), fields.id(), doubt);
                }
                Some(parsed.expr)
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    fields.wrong("targeting", mistake.to_string(), &mut self.errors);
                }
                None
            }
        }
    }

    fn finish(mut self) -> Result<Book, Vec<DocumentError>> {
        let drafts = std::mem::take(&mut self.line_items);
        let mut slots: BTreeMap<SegmentRef, u32> = BTreeMap::new();
        for draft in &drafts {
            each_test(&draft.expr, &mut |test| {
                if let Test::Segments(_, segments) = test {
                    for segment in segments {
                        if !slots.contains_key(segment) {
                            slots.insert(segment.clone(), 0);
                        }
                    }
                }
            });
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
        for draft in drafts {
            let Draft {
                mut line_item,
                place,
                expr,
            } = draft;
            note_users(&mut self.notes, &slots, place, &line_item.id, &expr);
            line_item.expression = compiler.add(&expr, &slots).map_err(full)?;
            line_items.push(line_item);
        }
        let formats = Format::ALL
            .iter()
            .map(|format| compiler.intern(format.as_str()))
            .collect::<Result<_, _>>()
            .map_err(full)?;
        Ok(Book {
            line_items: line_items.into(),
            creatives: self.creatives.into(),
            advertisers: self.advertisers.into(),
            campaigns: self.campaigns.into(),
            segments: slots.into_keys().collect(),
            program: compiler.finish(),
            formats,
            zones: self.zones.into(),
            notes: self.notes,
        })
    }
}

/// Notes down which segments and exchanges a line item names, for warnings.
fn note_users(
    notes: &mut Notes,
    slots: &BTreeMap<SegmentRef, u32>,
    place: usize,
    id: &str,
    expr: &Expr,
) {
    let path = || format!("line_items[{place}].targeting");
    let mut named = HashSet::new();
    each_test(expr, &mut |test| match test {
        Test::Segments(_, segments) => {
            for slot in segments.iter().filter_map(|segment| slots.get(segment)) {
                if named.insert(*slot)
                    && let Some(users) = notes.segments.get_mut(*slot as usize)
                {
                    users.add(path, id);
                }
            }
        }
        Test::TextIn(Attribute::Exchange, names) => {
            for name in names {
                notes
                    .exchanges
                    .entry(name.as_str().into())
                    .or_default()
                    .add(path, id);
            }
        }
        _ => {}
    });
}

/// Recurses as deep as the expression, which its parser bounds.
fn each_test<'e>(expr: &'e Expr, visit: &mut impl FnMut(&'e Test)) {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => {
            for part in parts {
                each_test(part, visit);
            }
        }
        Expr::Not(inner) => each_test(inner, visit),
        Expr::Test(test) => visit(test),
    }
}

/// How many there are, as the place of the next; limits keep it far below 2³².
fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

fn check_text(text: &str) -> Result<(), &'static str> {
    if text.trim().is_empty() {
        Err("is empty")
    } else if text.len() > TEXT_BYTES_MAX {
        Err("has over 128 bytes")
    } else if text.trim() != text || text.chars().any(char::is_control) {
        Err("has control characters, or spaces at an end")
    } else {
        Ok(())
    }
}

/// A URL that can stand in an attribute of HTML and in JavaScript alike without quoting.
fn url<'a>(fields: &Fields<'a>, key: &str, errors: &mut Errors) -> Option<&'a str> {
    let text = fields.text(key, errors)?;
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'<' | b'>' | b'\\' | b'`'));
    let hosted = host.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
    if !hosted || !plain || text.len() > URL_BYTES_MAX {
        let message = format!(
            "expected a URL with https:// or http://, up to {URL_BYTES_MAX} bytes, its spaces, quotes and letters beyond ASCII percent-encoded"
        );
        fields.wrong(key, message, errors);
        return None;
    }
    Some(text)
}

/// Whether markup or a URL has `http://` in it, but for XML namespaces, which nothing loads.
fn loads_insecurely(text: &str) -> bool {
    let lower = text.to_ascii_lowercase().replace("\\/", "/");
    lower.match_indices("http://").any(|(place, found)| {
        let rest = lower.get(place + found.len()..).unwrap_or("");
        !rest.starts_with("www.w3.org/")
    })
}

/// `30m`, `24h` or `7d` in seconds.
fn window(text: &str) -> Option<u32> {
    let unit = match text.as_bytes().last()? {
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => return None,
    };
    let digits = text.get(..text.len() - 1)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds = digits.parse::<u32>().ok()?.checked_mul(unit)?;
    (1..=CAP_SECONDS_MAX).contains(&seconds).then_some(seconds)
}

/// A decimal over 0 as nano units, exactly.
fn amount(text: &str) -> Option<Amount> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole = whole.parse::<i64>().ok().filter(|n| *n <= AMOUNT_MAX)?;
    let fraction = format!("{fraction:0<9}").parse::<i64>().ok()?;
    let nanos = whole.checked_mul(NANOS)?.checked_add(fraction)?;
    (nanos > 0).then_some(Amount { nanos })
}
