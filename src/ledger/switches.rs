//! Switches: what an operator has stopped from bidding, until it is taken back. They survive restarts.

use super::records::NameKind;

/// What can be switched off.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Switch {
    /// All bidding.
    Everything,
    /// Bids to an exchange.
    Exchange(Box<str>),
    /// Bids of an advertiser's line items.
    Advertiser(Box<str>),
    /// Bids of a campaign's line items.
    Campaign(Box<str>),
    /// Bids of a line item.
    LineItem(Box<str>),
}

impl Switch {
    /// The words for what has a name.
    pub const WORDS: [&'static str; 4] = ["exchange", "advertiser", "campaign", "line_item"];

    /// What one of the words and a name stand for.
    pub fn of(word: &str, name: &str) -> Option<Self> {
        match word {
            "exchange" => Some(Self::Exchange(name.into())),
            "advertiser" => Some(Self::Advertiser(name.into())),
            "campaign" => Some(Self::Campaign(name.into())),
            "line_item" => Some(Self::LineItem(name.into())),
            _ => None,
        }
    }

    /// Its word, and the name of what is off.
    pub fn told(&self) -> (&'static str, &str) {
        match self {
            Self::Everything => ("everything", ""),
            Self::Exchange(name) => ("exchange", name),
            Self::Advertiser(name) => ("advertiser", name),
            Self::Campaign(name) => ("campaign", name),
            Self::LineItem(name) => ("line_item", name),
        }
    }

    pub(super) fn named(&self) -> Option<(NameKind, &str)> {
        match self {
            Self::Everything => None,
            Self::Exchange(name) => Some((NameKind::Exchange, name)),
            Self::Advertiser(name) => Some((NameKind::Advertiser, name)),
            Self::Campaign(name) => Some((NameKind::Campaign, name)),
            Self::LineItem(name) => Some((NameKind::LineItem, name)),
        }
    }

    /// As the journal has it.
    pub(super) fn number(&self) -> u8 {
        match self {
            Self::Everything => 0,
            Self::Exchange(_) => 1,
            Self::Advertiser(_) => 2,
            Self::Campaign(_) => 3,
            Self::LineItem(_) => 4,
        }
    }

    pub(super) fn numbered(number: u8, name: Box<str>) -> Option<Self> {
        match number {
            0 => Some(Self::Everything),
            1 => Some(Self::Exchange(name)),
            2 => Some(Self::Advertiser(name)),
            3 => Some(Self::Campaign(name)),
            4 => Some(Self::LineItem(name)),
            _ => None,
        }
    }
}
