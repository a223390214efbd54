//! Why there is no bid: two closed lists, one for a request and one for a line item.
//!
//! Each has one bounded metric label, and each no-bid an OpenRTB code (`nbr`; the list of OpenRTB 3.0, and from 500
//! our own, as that list allows).

use crate::ledger;

/// Why a line item does not bid on an imp, in the order in which it is asked: a later reason is a nearer miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// It is paused.
    Paused,
    /// Its flight has not begun or is over.
    Flight,
    /// Its seat is not among those allowed, or is blocked.
    Seat,
    /// The impression may come later than its notice would be taken.
    Expiry,
    /// The imp offers no format of which it has a creative.
    Format,
    /// No creative has a size that the imp takes.
    Size,
    /// The slot does not play it: MIME type, protocol, linearity or bit rate.
    Media,
    /// It is too short or too long for the slot, or for what is left of the pod.
    Duration,
    /// The pod has no place left, or not the position that the line item wants.
    Pod,
    /// A required asset has no part of the creative that fits it.
    Assets,
    /// The imp wants HTTPS and the creative is not declared secure.
    Secure,
    /// The imp blocks an attribute of the creative.
    BlockedAttribute,
    /// It needs an API framework that is not listed.
    Api,
    /// Its targeting is not true for this request.
    Targeting,
    /// The creative's language is not among those allowed.
    Language,
    /// The request blocks a category of the creative, or allows others only.
    BlockedCategory,
    /// The request blocks the advertiser's domain.
    BlockedAdvertiser,
    /// The request blocks the app that the creative advertises.
    BlockedApp,
    /// The request wants to be told who pays, and the advertiser's `dsa` does not, or not as the publisher can show it.
    Dsa,
    /// It buys in deals only, and none of its deals is offered to it here.
    NoDeal,
    /// The deal is guaranteed: whoever takes it must always bid.
    Guaranteed,
    /// The imp takes bids in deals only.
    PrivateAuction,
    /// There is no exchange rate from its currency, or from the floor's.
    Currency,
    /// Its price is under the floor.
    Floor,
    /// Another line item bids more.
    Outbid,
    /// It, its campaign, its advertiser, the exchange or everything is switched off, or the ledger cannot write.
    Stopped,
    /// What is left of a budget does not hold the price.
    Budget,
    /// Its pacing leaves this request out.
    Paced,
    /// It is capped, and there is no permitted id to count under.
    Nobody,
    /// It is capped, and how often the person was shown something cannot be told now.
    CapUnknown,
    /// The person was shown as much as a cap allows.
    Capped,
    /// The answer is as long as it may be.
    AnswerSize,
}

/// Why a request as a whole gets no bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoBid {
    /// The service is not ready yet: what was live before the start is not live again.
    NotReady,
    /// It could not be answered in time.
    Shed,
    /// `tmax` leaves no time at all.
    TmaxTooShort,
    /// Several of site, app and dooh, or two imps with one id.
    Invalid,
    /// A list or a flag that limits us was sent and cannot be read.
    UnreadableLimit,
    /// No currency that the request allows is one we have a rate for.
    Currency,
    /// No imp has an id and limits that can be read.
    NoUsableImp,
    /// There is no line item at all.
    NoLineItem,
    /// The decision failed in a way that it never should.
    Failed,
    /// A crawler that says so.
    Crawler,
    /// A user agent that is no person's.
    NonHuman,
    /// The device is in a data centre or behind a proxy.
    DataCentre,
    /// The exchange's requests from such devices are refused.
    Device,
    /// The site, app or publisher is refused.
    Inventory,
    /// No dataset knows the person.
    UnknownPerson,
    /// The supply chain is missing, incomplete or unreadable.
    Chain,
    /// The supply chain has a seller that is refused.
    Seller,
    /// Line items were considered; this is how far the nearest came.
    Refused(Refusal),
}

macro_rules! labels {
    ($type:ident: $($variant:ident $label:literal $nbr:literal $why:literal,)*) => {
        impl $type {
            /// Every reason without a payload.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            fn row(self) -> (&'static str, u16, &'static str) {
                #[allow(unreachable_patterns, reason = "one list has a variant with a payload")]
                match self { $(Self::$variant => ($label, $nbr, $why),)* _ => ("refused", 500, "") }
            }
        }
    };
}

labels! { Refusal:
    Paused "paused" 500 "the line item is paused",
    Flight "flight" 500 "now is outside the line item's flight",
    Seat "seat" 503 "the request allows other seats only, or blocks this one",
    Expiry "expiry" 500 "the impression may come later than the billing window (imp.exp)",
    Format "format" 500 "the imp offers no format that the creatives have",
    Size "size" 500 "no creative has a size that the imp takes",
    Media "media" 500 "the slot does not play the creative: MIME type, protocol, linearity or bit rate",
    Duration "duration" 500 "the creative is too short or too long for the slot, or for what is left of its pod",
    Pod "pod" 500 "the pod has no place left, or does not grant the position that the line item wants",
    Assets "assets" 500 "an asset is required that no part of the creative fits",
    Secure "secure" 500 "the imp wants https markup and the creative is not declared secure",
    BlockedAttribute "blocked_attribute" 500 "the imp blocks an attribute of the creative (battr)",
    Api "api" 500 "the creative needs an API framework that the slot does not list",
    Targeting "targeting" 500 "the targeting is not true for this request",
    Language "language" 500 "the creative's language is not among those allowed (wlang)",
    BlockedCategory "blocked_category" 500 "the request blocks the creative's category, or allows others only",
    BlockedAdvertiser "blocked_advertiser" 500 "the request blocks the advertiser's domain (badv)",
    BlockedApp "blocked_app" 500 "the request blocks the app that the creative advertises (bapp)",
    Dsa "dsa" 504 "the request wants DSA transparency (dsarequired), and the advertiser's `dsa` is missing or would be shown twice or by nobody",
    NoDeal "no_deal" 500 "the line item buys in deals only, and none of its deals is offered to it here",
    Guaranteed "guaranteed_deal" 500 "the deal is guaranteed, and whoever takes one must always bid",
    PrivateAuction "private_auction" 500 "the imp takes bids in deals only",
    Currency "currency" 502 "an exchange rate is missing between the price's, the floor's and the response's currency",
    Floor "floor" 501 "the price is under the floor",
    Outbid "outbid" 500 "another line item bids more",
    Stopped "stopped" 500 "the line item, its campaign, its advertiser, the exchange or everything is switched off, or the ledger cannot write",
    Budget "budget" 500 "what is left of a budget, or lent of it just now, does not hold the price",
    Paced "paced" 500 "its pacing leaves this request out, so that the budget lasts",
    Nobody "nobody" 500 "it has a frequency cap and the request no id that may be used to count under (uncapped_without_id)",
    CapUnknown "cap_unknown" 500 "it has a frequency cap, and how often the person was shown something cannot be told at this moment",
    Capped "capped" 9 "the person was shown it as often as a frequency cap allows",
    AnswerSize "answer_size" 500 "the bids before it make the answer as long as it may be (2 MiB)",
}

labels! { NoBid:
    NotReady "not_ready" 1 "the service is not ready: what was live before the start is not live again yet",
    Shed "shed" 15 "the request had waited too long to be answered in time",
    TmaxTooShort "tmax" 15 "tmax less the exchange's margin leaves no time",
    Invalid "invalid" 2 "the request has several of site, app and dooh, or two imps with one id",
    UnreadableLimit "unreadable_limit" 2 "a list that limits bids was sent and cannot be read",
    Currency "currency" 502 "the request allows no currency that there is a rate for",
    NoUsableImp "no_usable_imp" 2 "no imp has an id and limits that can be read",
    NoLineItem "no_line_item" 500 "there are no line items: upload a campaigns document",
    Failed "failed" 1 "the decision failed; this is a defect of ours",
    Crawler "crawler" 3 "the user agent says that it is a crawler (refuse.crawlers)",
    NonHuman "non_human" 4 "the user agent is one of those refused (refuse.agents)",
    DataCentre "data_centre" 5 "the device's address is in a network that is refused (refuse.networks)",
    Device "device" 6 "devices of this type are refused (refuse.device_types)",
    Inventory "inventory" 7 "the site, app or publisher is refused (refuse.domains, bundles, publishers)",
    UnknownPerson "unknown_person" 8 "no dataset that may be read knows the person (refuse.unknown_people)",
    Chain "chain" 16 "the supply chain is missing, incomplete or unreadable (refuse.incomplete_chains)",
    Seller "seller" 17 "the supply chain has a seller that is refused (refuse.sellers)",
}

impl From<ledger::Refused> for Refusal {
    fn from(refused: ledger::Refused) -> Self {
        match refused {
            ledger::Refused::Stopped => Self::Stopped,
            ledger::Refused::Budget => Self::Budget,
            ledger::Refused::Paced => Self::Paced,
            ledger::Refused::Nobody => Self::Nobody,
            ledger::Refused::Unknown => Self::CapUnknown,
            ledger::Refused::Capped => Self::Capped,
        }
    }
}

impl Refusal {
    /// The reason's metric label.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The reason in a sentence.
    pub fn why(self) -> &'static str {
        self.row().2
    }
}

impl NoBid {
    /// How many different reasons there are.
    pub const COUNT: usize = Self::ALL.len() + Refusal::ALL.len();

    /// Every reason, at its [`index`](Self::index).
    pub fn every() -> impl Iterator<Item = Self> {
        Self::ALL
            .iter()
            .copied()
            .chain(Refusal::ALL.iter().copied().map(Self::Refused))
    }

    /// The reason's place among [`every`](Self::every), under [`COUNT`](Self::COUNT).
    pub fn index(self) -> usize {
        match self {
            Self::Refused(refusal) => Self::ALL.len().saturating_add(refusal as usize),
            Self::NotReady => 0,
            Self::Shed => 1,
            Self::TmaxTooShort => 2,
            Self::Invalid => 3,
            Self::UnreadableLimit => 4,
            Self::Currency => 5,
            Self::NoUsableImp => 6,
            Self::NoLineItem => 7,
            Self::Failed => 8,
            Self::Crawler => 9,
            Self::NonHuman => 10,
            Self::DataCentre => 11,
            Self::Device => 12,
            Self::Inventory => 13,
            Self::UnknownPerson => 14,
            Self::Chain => 15,
            Self::Seller => 16,
        }
    }

    /// The reason's metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.as_str(),
            // The one word that both lists have: here it is the whole request that has no currency.
            Self::Currency => "no_currency",
            other => other.row().0,
        }
    }

    /// The reason in a sentence.
    pub fn why(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.why(),
            other => other.row().2,
        }
    }

    /// OpenRTB's code for it.
    pub fn nbr(self) -> u16 {
        match self {
            Self::Refused(refusal) => refusal.row().1,
            other => other.row().1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place_and_a_label_of_its_own() {
        let labels: std::collections::BTreeSet<_> = NoBid::every().map(NoBid::as_str).collect();
        assert_eq!(labels.len(), NoBid::COUNT);
        for (place, reason) in NoBid::every().enumerate() {
            assert_eq!(reason.index(), place, "{reason:?}");
            assert!(!reason.why().is_empty(), "{reason:?}");
            assert!(reason.nbr() <= 17 || reason.nbr() >= 500, "{reason:?}");
        }
    }
}
