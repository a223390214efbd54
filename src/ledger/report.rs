//! What was delivered, and what was not and why: rows by hour, line item, creative and exchange, and sums of them by what is asked
//! for.
//!
//! Rows are by the hour for three days, then by the day (of UTC): a quarter of a year of hours of each line item, creative
//! and exchange would be gigabytes.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, BTreeSet};

use super::frequency::Scopes;
use crate::money::Currency;

/// How long rows are kept, in hours: a quarter of a year.
const HOURS_KEPT: u32 = 92 * 24;
/// How long of that by the hour.
const HOURS_APART: u32 = 3 * 24;
/// The reason that stands for all imps, and the one that stands for bids.
pub(super) const IMPS: &str = "";
pub(super) const BID: &str = "bid";

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

impl Key {
    /// The least of an hour.
    fn first_of(hour: u32) -> Self {
        Self {
            hour,
            scopes: Scopes::default(),
            creative: 0,
            exchange: 0,
            currency: Currency::LEAST,
        }
    }
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

/// What is counted of no creative.
pub(super) const NO_CREATIVE: u32 = u32::MAX;

/// All rows.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: BTreeMap<Key, Counts>,
    /// Imps by what became of them, the number of a name; of no creative.
    reasons: BTreeMap<(Key, u32), u64>,
    /// What was delivered to people in segments that the line items wanted; of no creative. Whoever was in several counts in each.
    segments: BTreeMap<(Key, u32), Counts>,
    /// Rows with bids that the journal does not hold yet.
    unsaved: BTreeSet<Key>,
    unsaved_segments: BTreeSet<(Key, u32)>,
    unsaved_reasons: BTreeSet<(Key, u32)>,
    /// Rows of hours before this one are by the day.
    rolled: u32,
}

impl Report {
    /// A key as rows of its time have it.
    fn rolled(&self, key: Key) -> Key {
        let hour = match key.hour < self.rolled {
            true => day_of(key.hour),
            false => key.hour,
        };
        Key { hour, ..key }
    }

    /// The row, to be counted in.
    pub(super) fn row(&mut self, key: Key) -> &mut Counts {
        self.rows.entry(self.rolled(key)).or_default()
    }

    fn of_segment(&self, key: Key, segment: u32) -> (Key, u32) {
        let key = Key {
            creative: NO_CREATIVE,
            ..self.rolled(key)
        };
        (key, segment)
    }

    /// The row of people in a segment, to be counted in.
    pub(super) fn segment(&mut self, key: Key, segment: u32) -> &mut Counts {
        let of = self.of_segment(key, segment);
        self.segments.entry(of).or_default()
    }

    /// Counts a bid for somebody in these segments; the journal is told of bids now and then.
    pub(super) fn bid(&mut self, key: Key, segments: &[u32]) {
        let row = self.row(key);
        row.bids = row.bids.saturating_add(1);
        self.unsaved.insert(self.rolled(key));
        for segment in segments {
            let row = self.segment(key, *segment);
            row.bids = row.bids.saturating_add(1);
            self.unsaved_segments.insert(self.of_segment(key, *segment));
        }
    }

    /// Rows of segments that the journal is to be told of, as they are now.
    pub(super) fn take_unsaved_segments(&mut self) -> Vec<(Key, u32, Counts)> {
        let unsaved = std::mem::take(&mut self.unsaved_segments);
        let row = |of: (Key, u32)| Some((of.0, of.1, *self.segments.get(&of)?));
        unsaved.into_iter().filter_map(row).collect()
    }

    /// Sets a row of a segment as a journal has it.
    pub(super) fn set_segment(&mut self, key: Key, segment: u32, counts: Counts) {
        self.segments.insert((key, segment), counts);
    }

    /// All rows of segments.
    pub(super) fn segments(&self) -> impl Iterator<Item = (Key, u32, Counts)> {
        let rows = self.segments.iter();
        rows.map(|((key, segment), counts)| (*key, *segment, *counts))
    }

    /// Counts imps by what became of them; the journal is told of them now and then.
    pub(super) fn tally(&mut self, key: Key, reason: u32, imps: u64) {
        let of = (self.rolled(key), reason);
        let sum = self.reasons.entry(of).or_default();
        *sum = sum.saturating_add(imps);
        self.unsaved_reasons.insert(of);
    }

    /// Counts of imps that the journal is to be told of, as they are now.
    pub(super) fn take_unsaved_reasons(&mut self) -> Vec<(Key, u32, u64)> {
        let unsaved = std::mem::take(&mut self.unsaved_reasons);
        let count = |of: (Key, u32)| Some((of.0, of.1, *self.reasons.get(&of)?));
        unsaved.into_iter().filter_map(count).collect()
    }

    /// Sets a count of imps as a journal has it.
    pub(super) fn set_reason(&mut self, key: Key, reason: u32, imps: u64) {
        self.reasons.insert((key, reason), imps);
    }

    /// All counts of imps.
    pub(super) fn reasons(&self) -> impl Iterator<Item = (Key, u32, u64)> {
        self.reasons
            .iter()
            .map(|((key, reason), imps)| (*key, *reason, *imps))
    }

    /// The hour before which rows are by the day; and the one before which they are to be by now.
    pub(super) fn to_roll(&self, now: u32) -> (u32, u32) {
        (self.rolled, day_of(now.saturating_sub(HOURS_APART)))
    }

    /// Adds up the rows of hours before this one, a day each.
    pub(super) fn roll(&mut self, before: u32) {
        self.rolled = self.rolled.max(before);
        let is_apart = |hour: u32| hour < before && hour != day_of(hour);
        let whole = |key: Key| Key {
            hour: day_of(key.hour),
            ..key
        };
        let rows: Vec<Key> = self
            .rows
            .keys()
            .take_while(|key| key.hour < before)
            .filter(|key| is_apart(key.hour))
            .copied()
            .collect();
        for key in rows {
            if let Some(counts) = self.rows.remove(&key) {
                self.rows.entry(whole(key)).or_default().add(&counts);
            }
        }
        let segments: Vec<(Key, u32)> = self
            .segments
            .keys()
            .take_while(|(key, _)| key.hour < before)
            .filter(|(key, _)| is_apart(key.hour))
            .copied()
            .collect();
        for (key, segment) in segments {
            if let Some(counts) = self.segments.remove(&(key, segment)) {
                let sum = self.segments.entry((whole(key), segment)).or_default();
                sum.add(&counts);
            }
        }
        let reasons: Vec<(Key, u32)> = self
            .reasons
            .keys()
            .take_while(|(key, _)| key.hour < before)
            .filter(|(key, _)| is_apart(key.hour))
            .copied()
            .collect();
        for (key, reason) in reasons {
            if let Some(imps) = self.reasons.remove(&(key, reason)) {
                let sum = self.reasons.entry((whole(key), reason)).or_default();
                *sum = sum.saturating_add(imps);
            }
        }
    }

    /// Rows that the journal is to be told of, as they are now.
    pub(super) fn take_unsaved(&mut self) -> Vec<(Key, Counts)> {
        let keys = std::mem::take(&mut self.unsaved);
        let row = |key: Key| Some((key, *self.rows.get(&key)?));
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
        while let Some(first) = self.segments.first_entry() {
            if first.key().0.hour >= oldest {
                break;
            }
            first.remove();
        }
        while let Some(first) = self.reasons.first_entry() {
            if first.key().0.hour >= oldest {
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
    /// In which segment, of those that the line item wanted, the person was.
    Segment,
}

impl Dimension {
    /// All of them, in the order in which a row has them.
    pub const ALL: [Self; 7] = [
        Self::LineItem,
        Self::Campaign,
        Self::Advertiser,
        Self::Creative,
        Self::Exchange,
        Self::Hour,
        Self::Segment,
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
            Self::Segment => "segment",
        }
    }

    fn of(self, key: &Key, segment: u32) -> u32 {
        match self {
            Self::LineItem => key.scopes.line_item,
            Self::Campaign => key.scopes.campaign,
            Self::Advertiser => key.scopes.advertiser,
            Self::Creative => key.creative,
            Self::Exchange => key.exchange,
            Self::Hour => key.hour,
            Self::Segment => segment,
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
    /// What became of the imps; nothing where it is asked for by creative or segment, which only a bid has.
    pub imps: Option<Imps>,
}

/// The imps that line items might have bid on while they were live and active, one for each line item, and what became of
/// them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imps {
    /// All of them.
    pub all: u64,
    /// Bid on.
    pub bid: u64,
    /// Not bid on, by the reason's word.
    pub refused: BTreeMap<String, u64>,
}

impl Imps {
    /// What no line item of the row was a candidate for: its targeting, its flight or its creatives' sizes did not fit. What
    /// remains.
    pub fn not_targeted(&self) -> u64 {
        let refused = self
            .refused
            .values()
            .fold(0u64, |sum, imps| sum.saturating_add(*imps));
        self.all.saturating_sub(self.bid).saturating_sub(refused)
    }
}

/// The first hour of an hour's day.
fn day_of(hour: u32) -> u32 {
    hour.saturating_sub(hour % 24)
}

impl Report {
    /// Rows added up, in order; `name` tells the names behind numbers. `pending`: imps that are not in the rows yet.
    pub(super) fn ask<'n>(
        &self,
        query: &Query,
        pending: impl Iterator<Item = (Key, u64)>,
        name: impl Fn(u32) -> &'n str,
    ) -> Vec<Row> {
        let mut sums: BTreeMap<(Vec<String>, Currency), (Counts, Imps)> = BTreeMap::new();
        let from = Key::first_of(query.from);
        let is_asked =
            |key: &Key| key.hour >= query.from && query.until.is_none_or(|until| key.hour < until);
        let of =
            |key: &Key, segment: u32| {
                let of = query.by.iter().map(|dimension| {
                    match (dimension, dimension.of(key, segment)) {
                        (Dimension::Hour, hour) => {
                            let begins = i64::from(hour).saturating_mul(3600);
                            crate::clock::Timestamp::from_unix_seconds(begins).to_string()
                        }
                        (_, number) => name(number).to_owned(),
                    }
                });
                (of.collect(), key.currency)
            };
        let by_segment = query.by.contains(&Dimension::Segment);
        if by_segment {
            let rows = self.segments.range((from, 0)..);
            for ((key, segment), counts) in rows.take_while(|((key, _), _)| is_asked(key)) {
                sums.entry(of(key, *segment)).or_default().0.add(counts);
            }
        } else {
            let rows = self.rows.range(from..);
            for (key, counts) in rows.take_while(|(key, _)| is_asked(key)) {
                sums.entry(of(key, 0)).or_default().0.add(counts);
            }
        }
        let has_imps = !by_segment && !query.by.contains(&Dimension::Creative);
        if has_imps {
            let counted = self.reasons.range((from, 0)..);
            let counted = counted.take_while(|((key, _), _)| is_asked(key));
            let counted = counted.map(|((key, reason), imps)| (*key, name(*reason), *imps));
            let pending = pending.map(|(key, imps)| (self.rolled(key), IMPS, imps));
            for (key, reason, imps) in counted.chain(pending).filter(|(key, ..)| is_asked(key)) {
                let (_, sum) = sums.entry(of(&key, 0)).or_default();
                let sum = match reason {
                    IMPS => &mut sum.all,
                    BID => &mut sum.bid,
                    refused => sum.refused.entry(refused.to_owned()).or_default(),
                };
                *sum = sum.saturating_add(imps);
            }
        }
        let rows = sums.into_iter();
        rows.map(|((of, currency), (counts, imps))| Row {
            of,
            currency,
            counts,
            imps: has_imps.then_some(imps),
        })
        .collect()
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn key(hour: u32, line_item: u32) -> Key {
        Key {
            hour,
            scopes: Scopes {
                line_item,
                campaign: 7,
                advertiser: 8,
            },
            creative: NO_CREATIVE,
            exchange: 9,
            currency: Currency::USD,
        }
    }

    fn sum(report: &Report, by: Dimension) -> Vec<Row> {
        let query = Query {
            by: vec![by],
            ..Query::default()
        };
        let names = |number| {
            [
                "one", "two", "", "", "", "", "", "a", "b", "c", IMPS, BID, "floor",
            ][number as usize]
        };
        report.ask(&query, std::iter::once((key(500, 1), 5)), names)
    }

    #[test]
    fn old_hours_become_days_and_sums_stay() {
        let mut report = Report::default();
        for hour in 480..530 {
            report.bid(key(hour, hour % 2), &[12]);
            report.tally(key(hour, hour % 2), 10, 10);
            report.tally(key(hour, hour % 2), 11, 1);
            report.tally(key(hour, hour % 2), 12, 3);
        }
        let before = sum(&report, Dimension::LineItem);
        assert_eq!(before[0].of, ["one"]);
        assert_eq!(before[0].counts.bids, 25);
        let imps = before[1].imps.clone().expect("counted");
        assert_eq!((imps.all, imps.bid, imps.not_targeted()), (255, 25, 155));
        assert_eq!(sum(&report, Dimension::Hour).len(), 50);
        assert_eq!(report.to_roll(528 + 72), (0, 528));
        let of_segment = sum(&report, Dimension::Segment);
        assert_eq!(of_segment[0].counts.bids, 50);
        assert!(of_segment[0].of == ["floor"] && of_segment[0].imps.is_none());
        report.roll(528);
        assert_eq!(sum(&report, Dimension::Segment), of_segment);
        assert_eq!(sum(&report, Dimension::LineItem), before);
        assert_eq!(
            sum(&report, Dimension::Hour).len(),
            4,
            "two days, two hours"
        );
        // Who comes late is counted in the day.
        report.bid(key(500, 0), &[]);
        assert_eq!(sum(&report, Dimension::Hour).len(), 4);
        assert_eq!(
            report.take_unsaved().last().map(|(key, _)| key.hour),
            Some(529)
        );
        report.forget_before(528 + HOURS_KEPT);
        assert_eq!(
            sum(&report, Dimension::Hour).len(),
            3,
            "two hours, and what is pending"
        );
    }
}
