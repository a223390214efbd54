//! The view of a bid request: the fields a bidder reads, under the specification's own names.
//!
//! Section numbers are those of OpenRTB 2.6-202606. Every slice borrows from the body or from the reader's arena.

use bumpalo::Bump;

use super::fields::{self, Field, FieldSet};
use super::formats::{Banner, DurationFloors, Media};
use super::json::{NotJson, Raw, Shape};
use super::keys;
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
    /// Whether only bids with DSA transparency are taken (`regs.dsa.dsarequired`).
    pub dsa_required: bool,
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
    pub exp: Option<i64>,
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
    /// `uids[].id`, at least one.
    pub uids: &'a [&'a str],
}

/// `user.data`, unread until the privacy gate has opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserData<'a>(pub(super) Option<Raw<'a>>);

impl<'a> UserData<'a> {
    /// The exchange's segments as `<segtax>:<id>`, or `<data.id>:<id>` where no taxonomy is named (else
    /// `<data.name>:<id>`). `None` when there is no `data` at all. At most `max` of them.
    pub fn segments(&self, arena: &'a Bump, max: usize) -> Option<&'a [&'a str]> {
        let raw = self.0?;
        let mut segments = bumpalo::collections::Vec::new_in(arena);
        let _ = walk_objects(raw, arena, &mut |data| {
            let (mut id, mut name, mut segtax, mut list) = (None, None, None, None);
            data.object(|c, key| {
                match key {
                    keys::ID => id = fields::text(c.value()?, arena).value(),
                    keys::NAME => name = fields::text(c.value()?, arena).value(),
                    keys::SEGMENT => list = Some(c.value()?),
                    keys::EXT if c.at_object() => c.object(|c, key| {
                        let raw = c.value()?;
                        if key == keys::SEGTAX {
                            segtax = fields::integer(raw, arena).value();
                        }
                        Ok(())
                    })?,
                    _ => c.skip()?,
                }
                Ok(())
            })?;
            let Some(list) = list else { return Ok(()) };
            walk_objects(list, arena, &mut |segment| {
                let mut segment_id = None;
                segment.object(|c, key| {
                    let raw = c.value()?;
                    if key == keys::ID {
                        segment_id = fields::text(raw, arena).value();
                    }
                    Ok(())
                })?;
                let Some(segment_id) = segment_id else {
                    return Ok(());
                };
                if segments.len() < max {
                    let text = match (segtax, id.or(name)) {
                        (Some(segtax), _) => {
                            bumpalo::format!(in arena, "{}:{}", segtax, segment_id)
                        }
                        (None, Some(owner)) => {
                            bumpalo::format!(in arena, "{}:{}", owner, segment_id)
                        }
                        (None, None) => return Ok(()),
                    };
                    segments.push(text.into_bump_str());
                }
                Ok(())
            })
        });
        Some(segments.into_bump_slice())
    }
}

/// Walks an array, entering only the elements that are objects.
fn walk_objects<'a>(
    raw: Raw<'a>,
    arena: &'a Bump,
    each: &mut dyn FnMut(&mut super::json::Cursor<'a>) -> Result<(), NotJson>,
) -> Result<(), NotJson> {
    if raw.shape() != Shape::Array {
        return Ok(());
    }
    raw.cursor(arena)
        .array(|c| if c.at_object() { each(c) } else { c.skip() })
}
