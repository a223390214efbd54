//! The view of a bid request: the fields a bidder reads, under the specification's own names.
//!
//! Section numbers are those of OpenRTB 2.6-202606. Every slice borrows from the body or from the reader's arena.

use super::fields::{Field, FieldSet};
use super::formats::{Banner, DurationFloors, Media};
use super::kept::{SupplyChain, UserAgent, UserData};
use super::native::Native;
use super::signals::Signals;
use crate::money::{Currency, Multiplier, Price};

/// A list of strings. `Absent` when not sent or empty; `Unreadable` when it is no list, or none of its elements
/// could be read. Single bad elements are dropped.
pub type Strings<'a> = Field<&'a [&'a str]>;

/// §3.2.1: one bid request.
#[derive(Debug, Clone, Default)]
pub struct Request<'a> {
    /// Unique id, to be echoed.
    pub id: &'a str,
    /// The impressions on offer, in order; those that are no objects left out.
    pub imp: &'a [Imp<'a>],
    /// Whether several of site, app and dooh are there, which no request may have.
    pub placement: Placement,
    /// The site or app.
    pub site: Site<'a>,
    /// The device.
    pub device: Device<'a>,
    /// The person.
    pub user: User<'a>,
    /// Privacy signals from all their homes.
    pub signals: Signals<'a>,
    /// Milliseconds in which the exchange wants an answer, network included.
    pub tmax_ms: Option<i64>,
    /// Auction type; 2 when not said.
    pub at: AuctionType,
    /// A test: answered in full, booked nowhere.
    pub test: bool,
    /// Currencies allowed for bids.
    pub cur: Strings<'a>,
    /// Seats allowed to bid.
    pub wseat: Strings<'a>,
    /// Seats not allowed to bid.
    pub bseat: Strings<'a>,
    /// Blocked advertiser categories.
    pub bcat: Strings<'a>,
    /// Allowed advertiser categories.
    pub acat: Strings<'a>,
    /// Taxonomy of `bcat` and `acat`; 1 when not said.
    pub cattax: Field<i64>,
    /// Blocked advertiser domains.
    pub badv: Strings<'a>,
    /// Blocked apps, by bundle.
    pub bapp: Strings<'a>,
    /// Allowed creative languages.
    pub wlang: Strings<'a>,
    /// Allowed creative languages, as BCP 47 tags.
    pub wlangb: Strings<'a>,
    /// What the Digital Services Act asks of bids, from `regs.dsa` or `regs.ext.dsa`; of two the strictest.
    pub dsa: Dsa,
    /// Who sold the request on.
    pub schain: SupplyChain<'a>,
    /// What was sent and could not be read.
    pub unreadable: FieldSet,
}

/// Which of `site`, `app` and `dooh` a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// None of them; still served.
    #[default]
    Unknown,
    /// A website.
    Site,
    /// An application.
    App,
    /// A screen out of home.
    Dooh,
    /// More than one: not a valid request.
    Several,
}

/// `at`, of a request or a deal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuctionType {
    /// 1: the winner pays its bid.
    First,
    /// 2: the winner pays the second price.
    #[default]
    Second,
    /// 3, deals only: the deal's floor is the price.
    Fixed,
    /// Exchange-specific, over 500, or unknown.
    Other,
}

impl AuctionType {
    pub(super) fn from_code(code: i64) -> Self {
        match code {
            1 => Self::First,
            2 => Self::Second,
            3 => Self::Fixed,
            _ => Self::Other,
        }
    }
}

/// A floor and its currency, as sent. USD when only the amount is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Floor {
    /// CPM; absent means none.
    pub amount: Field<Price>,
    /// Its currency; absent means USD.
    pub currency: Field<Currency>,
}

/// §3.2.4: one slot on offer.
#[derive(Debug, Clone, Default)]
pub struct Imp<'a> {
    /// Its id; without one there is no bid.
    pub id: Field<&'a str>,
    /// Banner, when offered.
    pub banner: Option<&'a Banner<'a>>,
    /// Video, when offered.
    pub video: Option<&'a Media<'a>>,
    /// Audio, when offered.
    pub audio: Option<&'a Media<'a>>,
    /// Native, when offered.
    pub native: Option<&'a Native<'a>>,
    /// `bidfloor`, `bidfloorcur`
    pub floor: Floor,
    /// Whether markup must be HTTPS.
    pub secure: Field<bool>,
    /// `instl`
    pub instl: Option<bool>,
    /// `rwdd`
    pub rwdd: Option<bool>,
    /// `pmp.private_auction`, or unreadable where the whole of `pmp` is.
    pub private_auction: Field<bool>,
    /// `pmp.deals` with a readable id, in order.
    pub deals: &'a [Deal<'a>],
    /// Seconds that may go by between the auction and the impression.
    pub exp: Field<i64>,
    /// `qty.multiplier`; one impression when not said.
    pub multiplier: Field<Multiplier>,
}

/// §3.2.12: a deal on offer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deal<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its own floor; the currency does not come from the imp.
    pub floor: Floor,
    /// Its own floors by an ad's length, in the currency of its floor.
    pub duration_floors: DurationFloors<'a>,
    /// Whether whoever takes it must bid.
    pub guar: Field<bool>,
    /// Its own auction type, if it has one.
    pub at: Option<AuctionType>,
    /// Seats allowed.
    pub wseat: Strings<'a>,
    /// Advertiser domains allowed.
    pub wadomain: Strings<'a>,
}

/// §3.2.13, §3.2.14: where the slot is: a site or an app.
#[derive(Debug, Clone, Copy, Default)]
pub struct Site<'a> {
    /// Domain of the site (or of the app's developer).
    pub domain: Option<&'a str>,
    /// Bundle of the app.
    pub bundle: Option<&'a str>,
    /// `publisher.id`
    pub publisher: Option<&'a str>,
    /// `cat`
    pub cat: &'a [&'a str],
    /// `keywords`, split at commas, or `kwarray`.
    pub keywords: &'a [&'a str],
}

/// §3.2.18: the device.
#[derive(Debug, Clone, Copy, Default)]
pub struct Device<'a> {
    /// Advertising id.
    pub ifa: Option<&'a str>,
    /// User agent.
    pub ua: Option<&'a str>,
    /// `sua`: the user agent in parts.
    pub sua: UserAgent<'a>,
    /// `ip`
    pub ip: Option<&'a str>,
    /// `ipv6`
    pub ipv6: Option<&'a str>,
    /// `devicetype`
    pub devicetype: Option<i64>,
    /// Operating system.
    pub os: Option<&'a str>,
    /// Its version.
    pub osv: Option<&'a str>,
    /// Language.
    pub language: Option<&'a str>,
    /// `connectiontype`
    pub connectiontype: Option<i64>,
    /// Carrier.
    pub carrier: Option<&'a str>,
    /// Where the device is.
    pub geo: Geo<'a>,
}

/// §3.2.19: a place.
#[derive(Debug, Clone, Copy, Default)]
pub struct Geo<'a> {
    /// ISO 3166-1 alpha-3.
    pub country: Option<&'a str>,
    /// ISO 3166-2.
    pub region: Option<&'a str>,
    /// City.
    pub city: Option<&'a str>,
    /// Metro code.
    pub metro: Option<&'a str>,
    /// Postal code.
    pub zip: Option<&'a str>,
}

/// §3.2.20: the person.
#[derive(Debug, Clone, Copy, Default)]
pub struct User<'a> {
    /// The exchange's id.
    pub id: Option<&'a str>,
    /// Our own id, kept by the exchange.
    pub buyeruid: Option<&'a str>,
    /// Year of birth.
    pub yob: Option<i64>,
    /// `M`, `F`, `O`
    pub gender: Option<&'a str>,
    /// `keywords` split at commas, or `kwarray`; absent when neither is sent.
    pub keywords: Option<&'a [&'a str]>,
    /// `user.eids` and `user.ext.eids`: those with a source and an id that can be read.
    pub eids: [&'a [Eid<'a>]; 2],
    /// `user.data`
    pub data: UserData<'a>,
}

/// §3.2.27: the extended ids of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eid<'a> {
    /// Source domain, as sent.
    pub source: &'a str,
    /// Domain of who put it into the request.
    pub inserter: Field<&'a str>,
    /// Domain of who matched it; the source itself where none is named.
    pub matcher: Field<&'a str>,
    /// How it was matched (AdCOM list "ID Match Methods").
    pub mm: Field<i64>,
    /// At least one.
    pub uids: &'a [Uid<'a>],
}

/// §3.2.28: one extended id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uid<'a> {
    /// The id.
    pub id: &'a str,
    /// What it is the id of (AdCOM list "Agent Types").
    pub atype: Field<i64>,
}

/// What `dsa` asks (IAB "DSA Transparency Extensions" 1.0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dsa {
    /// `dsarequired`: 2 or 3, or unreadable.
    pub required: bool,
    /// Whether it was sent at all.
    pub is_there: bool,
    /// `pubrender`: whether the publisher shows who advertises.
    pub pubrender: Field<i64>,
}
