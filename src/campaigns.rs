//! Campaigns: from the document that people write to the compiled [`Book`] that decisions read.
//!
//! A campaigns document (`DESIGN.md` §7, `docs/targeting.md`) is checked as a whole: [`compile()`] gives the book or every
//! mistake by its path. The book is plain data, sorted by id, without a word of any request in it; what depends on the
//! rest of the deployment (which segments are uploaded, which currencies have rates) is asked of it afterwards by
//! [`Book::warnings`], so that nothing need be compiled again when a dataset changes.
//!
//! A bid then goes: [`Book::resolve`] and [`Book::candidates`] once, [`Book::resolve_deals`] and [`Book::candidates_of_slots`] for
//! each imp, [`Book::matches`] for each candidate.
//!
//! Invariants: every index in a book points into it; the same document gives the same book. Cost: about 60 µs a
//! line item to compile, under 100 ns to match (`what_it_costs` in the tests measures both).

mod attributes;
mod compile;
mod document;
mod evaluator;
mod formats;
mod index;
mod markup;
pub(crate) mod nearest;
mod pricing;
mod program;
mod scores;
mod targeting;
mod terms;
mod warnings;

pub use attributes::{Attribute, BROWSERS, Type, connection, device_type};
pub use compile::{
    ADVERTISERS_MAX, CAMPAIGNS_MAX, CAPS_MAX, CREATIVES_MAX, CREATIVES_PER_LINE_ITEM_MAX,
    DEALS_PER_LINE_ITEM_MAX, LINE_ITEMS_MAX, SEGMENTS_MAX, compile,
};
pub use document::{DocumentError, ERRORS_MAX};
pub use evaluator::{Deals, Facts, ImpFacts, Resolved, SegmentFacts};
pub use formats::{MediaAd, NativeAd, NativeAsset, NativeAssetKind};
pub use index::{Candidates, Ranked};
pub use markup::{CLICK_MACRO, Markup, PrivacyMacro, filled, json_inside};
pub use pricing::{FACTORS_MAX, Factor, Pricing, Score, Step};
pub use program::Expression;
pub use scores::{Scores, TiedScores};
pub use targeting::{EXPRESSION_BYTES_MAX, NESTING_MAX};
pub use terms::{CreativeTerms, LineItemTerms, Terms};
pub use warnings::{Surroundings, WARNINGS_MAX, Warning};

use crate::clock::Timestamp;
use crate::ids::{Name, SegmentRef};
use crate::money::Currency;

/// A compiled campaigns document.
#[derive(Debug, Default)]
pub struct Book {
    /// Sorted by id.
    pub line_items: Box<[LineItem]>,
    /// Sorted by id; a line item's `creatives` are places in it.
    pub creatives: Box<[Creative]>,
    /// Sorted by id; a line item's and a creative's `advertiser` is a place in it.
    pub advertisers: Box<[Advertiser]>,
    /// The campaigns that the document lists, sorted by id. A line item may name one that is not listed.
    pub campaigns: Box<[Campaign]>,
    /// The segments that targeting names, sorted: a segment's place is its *slot*, its bit in [`SegmentFacts`].
    pub segments: Box<[SegmentRef]>,
    /// The datasets whose scores prices name.
    pub scores: Box<[Name]>,
    /// What requests name back to us.
    pub terms: Terms,
    program: program::Program,
    index: index::Index,
    /// The numbers of the formats' names, by format.
    formats: Box<[program::StringId]>,
    /// The time zones of advertisers, each once.
    zones: Box<[jiff::tz::TimeZone]>,
    notes: warnings::Notes,
}

/// What we buy with: who may see what, when, at which price.
#[derive(Debug)]
pub struct LineItem {
    /// Unique in the document.
    pub id: Box<str>,
    /// Its place in [`Book::line_items`].
    pub index: u32,
    /// What groups it (`cid`); its own id where the document names none.
    pub campaign: Box<str>,
    /// Place in [`Book::advertisers`]: of all its creatives.
    pub advertiser: u32,
    /// The seat it bids for; `None` for the exchange's.
    pub seat: Option<Box<str>>,
    /// Places in [`Book::creatives`], in the document's order; at least one.
    pub creatives: Box<[u32]>,
    /// What it pays for a thousand impressions.
    pub pricing: Pricing,
    /// The price's currency.
    pub currency: Currency,
    /// When it runs.
    pub flight: Flight,
    /// The deals it buys through, sorted; empty: the open auction only.
    pub deals: Box<[Box<str>]>,
    /// The only position in a pod that it buys: 1 the first, -1 the last.
    pub slotinpod: Option<i64>,
    /// Whether it bids at all.
    pub status: Status,
    /// Its targeting; [`Book::matches`] evaluates it.
    pub expression: Expression,
    /// What it may spend.
    pub budget: Budget,
    /// How it spends it over time; `None` where the document says nothing.
    pub pacing: Option<Pacing>,
    /// How often it may show something to one person.
    pub caps: Box<[Cap]>,
    /// Whether it bids on nobody in particular though it is capped.
    pub uncapped_without_id: bool,
    /// Segments that its targeting asks somebody to be in: their slots.
    pub wants: Box<[u32]>,
    /// What all its bids say, as they say it in a response.
    pub bid_json: Box<str>,
    /// Place of its advertiser's time zone in the book.
    zone: u32,
}

impl LineItem {
    /// Whether it reads the floor, which then is to be had in its currency.
    pub fn reads_floor(&self) -> bool {
        self.expression.reads_floor() || self.pricing.reads_floor()
    }

    /// The time zone of its advertiser, by its place in the book.
    pub fn zone(&self) -> u32 {
        self.zone
    }

    /// Whether it is active and in its flight.
    pub fn runs(&self, now: Timestamp) -> bool {
        self.status == Status::Active && self.flight.covers(now)
    }
}

/// An ad.
#[derive(Debug)]
pub struct Creative {
    /// Unique in the document (`crid`).
    pub id: Box<str>,
    /// Place in [`Book::advertisers`].
    pub advertiser: u32,
    /// What it is.
    pub format: Format,
    /// Width in density-independent pixels; there for a banner, and perhaps for a video.
    pub w: Option<u32>,
    /// Height in density-independent pixels; there where the width is.
    pub h: Option<u32>,
    /// Its markup; there for all but native.
    pub adm: Option<Markup>,
    /// MIME types of a banner's markup, lower case; empty where the document does not say.
    pub mimes: Box<[Box<str>]>,
    /// There for video and audio.
    pub media: Option<MediaAd>,
    /// There for native.
    pub native: Option<NativeAd>,
    /// Where a click leads: its own landing page, else its advertiser's domain.
    pub click_url: Box<str>,
    /// A picture of it, for an exchange to look at.
    pub iurl: Option<Box<str>>,
    /// Attributes (AdCOM list "Creative Attributes"), sorted.
    pub attr: Box<[u32]>,
    /// APIs it needs (AdCOM list "API Frameworks"), sorted.
    pub api: Box<[u32]>,
    /// Categories, its own or its advertiser's.
    pub categories: Box<[Box<str>]>,
    /// The taxonomy of the categories (AdCOM list "Category Taxonomies").
    pub cattax: u32,
    /// ISO 639-1, lower case.
    pub language: Option<Box<str>>,
    /// BCP 47, where there is no `language`.
    pub langb: Option<Box<str>>,
    /// The app that it advertises.
    pub bundle: Option<Box<str>>,
    /// Whether all that it loads comes over HTTPS.
    pub secure: bool,
    /// What all bids with it say, as they say it in a response.
    pub bid_json: Box<str>,
}

impl Creative {
    /// How long it is, where it has a length.
    pub fn seconds(&self) -> Option<u32> {
        self.media.as_ref().map(|media| media.duration)
    }
}

/// Who advertises.
#[derive(Debug)]
pub struct Advertiser {
    /// Unique in the document.
    pub id: Box<str>,
    /// What it advertises from (`adomain`), lower case.
    pub domain: Box<str>,
    /// Categories of its ads (`cat`).
    pub categories: Box<[Box<str>]>,
    /// The taxonomy of the categories; 1, IAB Content Category Taxonomy 1.0, where the document says nothing.
    pub cattax: u32,
    /// IANA name; `UTC` where the document says nothing. `hour` and `weekday` are told in it.
    pub time_zone: Box<str>,
    /// The currency of its budgets, and of prices that name none.
    pub currency: Option<Currency>,
    /// Who pays for its ads, for requests under the Digital Services Act.
    pub dsa: Option<Transparency>,
    /// What all its line items may spend together.
    pub budget: Budget,
    /// How often they may show something to one person, together.
    pub caps: Box<[Cap]>,
}

/// What an ad says of who pays for it.
#[derive(Debug)]
pub struct Transparency {
    /// Whether the ad itself shows it.
    pub adrender: bool,
    /// As a bid says it in a response.
    pub bid_json: Box<str>,
}

/// Line items with a budget and caps in common.
#[derive(Debug)]
pub struct Campaign {
    /// Unique in the document.
    pub id: Box<str>,
    /// Place in [`Book::advertisers`].
    pub advertiser: u32,
    /// What its line items may spend together.
    pub budget: Budget,
    /// How often they may show something to one person, together.
    pub caps: Box<[Cap]>,
}

/// What a creative is, and the `format` attribute of an imp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Markup in a rectangle.
    Banner,
    /// A video.
    Video,
    /// Sound.
    Audio,
    /// Parts that the publisher lays out.
    Native,
}

impl Format {
    /// All of them, each at its own number.
    pub const ALL: [Self; 4] = [Self::Banner, Self::Video, Self::Audio, Self::Native];

    /// Its word in documents and targeting.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Banner => "banner",
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Native => "native",
        }
    }
}

/// Whether a line item bids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It bids.
    Active,
    /// It does not.
    Paused,
}

/// From when (inclusive) to when (exclusive) a line item runs; open where there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flight {
    /// First moment.
    pub start: Option<Timestamp>,
    /// First moment after it.
    pub end: Option<Timestamp>,
}

impl Flight {
    /// Whether `now` is in it.
    pub fn covers(&self, now: Timestamp) -> bool {
        self.start.is_none_or(|start| start <= now) && self.end.is_none_or(|end| now < end)
    }
}

/// An amount of money in nano units (10⁻⁹) of its currency, over zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    /// Nano units.
    pub nanos: i64,
}

/// What may be spent, in the advertiser's currency, else the price's; unlimited where there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// In a day of the advertiser's time zone.
    pub day: Option<Amount>,
    /// In all.
    pub total: Option<Amount>,
}

/// How a budget is spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pacing {
    /// As time goes.
    Even,
    /// As fast as it can be spent.
    Asap,
    /// Somewhat ahead of time.
    Ahead,
}

/// At most so many impressions for one person in a sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// Impressions; at least 1.
    pub count: u32,
    /// The window.
    pub seconds: u32,
}

impl Book {
    /// A book without line items: what a fresh deployment has.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The line item of that id.
    pub fn line_item(&self, id: &str) -> Option<&LineItem> {
        let place = self
            .line_items
            .binary_search_by(|line_item| (*line_item.id).cmp(id));
        self.line_items.get(place.ok()?)
    }

    /// A line item's creatives.
    pub fn creatives_of(&self, line_item: &LineItem) -> impl Iterator<Item = &Creative> {
        line_item
            .creatives
            .iter()
            .filter_map(|place| self.creatives.get(*place as usize))
    }

    /// A line item's advertiser.
    pub fn advertiser_of(&self, line_item: &LineItem) -> Option<&Advertiser> {
        self.advertisers.get(line_item.advertiser as usize)
    }

    /// The campaign that groups a line item, where the document lists it.
    pub fn campaign_of(&self, line_item: &LineItem) -> Option<&Campaign> {
        let place = self
            .campaigns
            .binary_search_by(|campaign| campaign.id.cmp(&line_item.campaign));
        self.campaigns.get(place.ok()?)
    }

    /// The time zone of a line item's advertiser.
    pub fn zone_of(&self, line_item: &LineItem) -> &jiff::tz::TimeZone {
        static UTC: jiff::tz::TimeZone = jiff::tz::TimeZone::UTC;
        self.zones.get(line_item.zone as usize).unwrap_or(&UTC)
    }

    /// The day that it is in one of the book's time zones, in days since 1970-01-01, and from when to when it lasts, in
    /// milliseconds. Takes some microseconds.
    pub fn local_day(&self, zone: u32, now: Timestamp) -> Option<(i32, i64, i64)> {
        let zone = self.zones.get(zone as usize)?;
        let date = zone
            .to_datetime(jiff::Timestamp::from_millisecond(now.unix_ms).ok()?)
            .date();
        let begins = |date: jiff::civil::Date| {
            let midnight = zone.to_zoned(date.at(0, 0, 0, 0)).ok()?;
            Some(midnight.timestamp().as_millisecond())
        };
        let day = day_number(date)?;
        Some((day, begins(date)?, begins(date.tomorrow().ok()?)?))
    }

    /// Whether any expression reads that attribute; what none reads need not be looked up.
    pub fn reads(&self, attribute: Attribute) -> bool {
        self.program.reads & attribute.bit() != 0
    }
}

/// A date as days since 1970-01-01.
pub fn day_number(date: jiff::civil::Date) -> Option<i32> {
    let first = jiff::civil::date(1970, 1, 1);
    let span = first.until(date).ok()?;
    Some(span.get_days())
}

#[cfg(test)]
mod tests;
