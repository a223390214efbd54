//! What was delivered: rows by hour, line item, creative and exchange, and sums of them by what is asked for.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use super::frequency::Scopes;
use crate::money::Currency;

/// How long rows are kept, in hours: a quarter of a year.
const HOURS_KEPT: u32 = 92 * 24;

/// What a row is about. Names are numbers of the ledger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Hours since 1970: of the bid.
    pub hour: u32,
    /// Who bid.
    pub scopes: Scopes,
    /// With which creative.
    pub creative: u32,
    /// Where.
    pub exchange: u32,
    /// Of `spend`.
    pub currency: Currency,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Bids sent.
    pub bids: u64,
    /// Of those, the ones that a win notice came for.
    pub wins: u64,
    /// Impressions billed.
    pub impressions: u64,
    /// Impressions clicked on.
    pub clicks: u64,
    /// Nano units of the row's currency.
    pub spend: i64,
}

impl Counts {
    /// Adds another row's.
    pub fn add(&mut self, other: &Self) {
        self.bids = self.bids.saturating_add(other.bids);
        self.wins = self.wins.saturating_add(other.wins);
        self.impressions = self.impressions.saturating_add(other.impressions);
        self.clicks = self.clicks.saturating_add(other.clicks);
        self.spend = self.spend.saturating_add(other.spend);
    }
}

/// All rows.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: BTreeMap<Key, Counts>,
    /// Rows with bids that the journal does not hold yet.
    unsaved: BTreeMap<Key, ()>,
}

impl Report {
    /// The row, to be counted in.
    pub(super) fn row(&mut self, key: Key) -> &mut Counts {
        self.rows.entry(key).or_default()
    }

    /// Counts bids; the journal is told of them now and then.
    pub(super) fn bid(&mut self, key: Key) {
        let row = self.row(key);
        row.bids = row.bids.saturating_add(1);
        self.unsaved.insert(key, ());
    }

    /// Rows that the journal is to be told of, as they are now.
    pub(super) fn take_unsaved(&mut self) -> Vec<(Key, Counts)> {
        let keys = std::mem::take(&mut self.unsaved);
        let row = |(key, ()): (Key, ())| Some((key, *self.rows.get(&key)?));
        keys.into_iter().filter_map(row).collect()
    }

    /// Sets a row as a journal has it.
    pub(super) fn set(&mut self, key: Key, counts: Counts) {
        self.rows.insert(key, counts);
    }

    /// Forgets what is older than rows are kept.
    pub(super) fn forget_before(&mut self, hour: u32) {
        let oldest = hour.saturating_sub(HOURS_KEPT);
        while let Some(first) = self.rows.first_entry() {
            if first.key().hour >= oldest {
                break;
            }
            first.remove();
        }
    }

    /// All of them.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Key, &Counts)> {
        self.rows.iter()
    }
}

/// By what rows are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// The line item.
    LineItem,
    /// Its campaign.
    Campaign,
    /// Its advertiser.
    Advertiser,
    /// What was shown.
    Creative,
    /// Where.
    Exchange,
    /// In which hour the bid was made.
    Hour,
}

impl Dimension {
    /// All of them, in the order in which a row has them.
    pub const ALL: [Self; 6] = [
        Self::LineItem,
        Self::Campaign,
        Self::Advertiser,
        Self::Creative,
        Self::Exchange,
        Self::Hour,
    ];

    /// Its word in queries and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LineItem => "line_item",
            Self::Campaign => "campaign",
            Self::Advertiser => "advertiser",
            Self::Creative => "creative",
            Self::Exchange => "exchange",
            Self::Hour => "hour",
        }
    }

    fn of(self, key: &Key) -> u32 {
        match self {
            Self::LineItem => key.scopes.line_item,
            Self::Campaign => key.scopes.campaign,
            Self::Advertiser => key.scopes.advertiser,
            Self::Creative => key.creative,
            Self::Exchange => key.exchange,
            Self::Hour => key.hour,
        }
    }
}

/// What is asked of the report.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// By what, each once and in order.
    pub by: Vec<Dimension>,
    /// From this hour on, in hours since 1970.
    pub from: u32,
    /// Before this hour; none: without end.
    pub until: Option<u32>,
}

/// Some rows added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Of what, in the query's order.
    pub of: Vec<String>,
    /// Of the spend.
    pub currency: Currency,
    /// The sums.
    pub counts: Counts,
}

impl Report {
    /// Rows added up, in order; `name` tells the names behind numbers.
    pub(super) fn ask<'n>(&self, query: &Query, name: impl Fn(u32) -> &'n str) -> Vec<Row> {
        let mut sums: BTreeMap<(Vec<String>, Currency), Counts> = BTreeMap::new();
        for (key, counts) in &self.rows {
            if key.hour < query.from || query.until.is_some_and(|until| key.hour >= until) {
                continue;
            }
            let of = query
                .by
                .iter()
                .map(|dimension| match (dimension, dimension.of(key)) {
                    (Dimension::Hour, hour) => {
                        let begins = i64::from(hour).saturating_mul(3600);
                        crate::clock::Timestamp::from_unix_seconds(begins).to_string()
                    }
                    (_, number) => name(number).to_owned(),
                });
            sums.entry((of.collect(), key.currency))
                .or_default()
                .add(counts);
        }
        let rows = sums.into_iter();
        rows.map(|((of, currency), counts)| Row {
            of,
            currency,
            counts,
        })
        .collect()
    }
}
