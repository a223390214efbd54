//! What was delivered, and what was not and why: rows by hour, line item, creative and exchange, and sums of them by what is asked
//! for.
//!
//! Rows are by the hour for three days, or as long as notices may change them, then by the day (of UTC), and sooner where there are
//! more than `limits.report_rows`: a quarter of a year of hours of each line item, creative and exchange would be gigabytes. An hour
//! stays one until it is in its file ([`Keeping::filed`]), which is what is left of it. Rows are of what happened to a line
//! item; the imps that it merely might have bid on, which are the same for all that were live, are in [`Seen`].
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use arrayvec::ArrayVec;

use super::contacts::Scopes;
use super::seen::{Epoch, Seen};
use crate::money::Currency;

/// How long rows are kept, in hours: a quarter of a year.
const HOURS_KEPT: u32 = 92 * 24;
/// How long of that by the hour, at least.
const HOURS_APART: u32 = 3 * 24;
/// For so many hours beyond a bid's window a notice may change what an hour delivered: a day that its token is valid, and the hour
/// itself.
const CHANGING_HOURS: u32 = 25;
/// Hours that are not in files yet become days all the same where there are so many times the rows that there may be: their files
/// cannot be written, and memory is bounded.
const UNFILED_TIMES: usize = 2;

/// For how many hours an hour's delivery may change, where notices come within so many seconds.
pub fn changing_hours(window: u32) -> u32 {
    window.div_ceil(3600).saturating_add(CHANGING_HOURS)
}

/// How much is kept, and how finely.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keeping {
    /// Rows, before hours become days sooner.
    pub(super) most: usize,
    /// How long hours stay hours.
    pub(super) apart: u32,
    /// Hours before this one are in their files.
    pub(super) filed: u32,
}

impl Keeping {
    /// Where notices come within so many seconds: what may change stays apart, and an hour more, in which its file is written last.
    pub(super) fn of(most: usize, window: u32, filed: u32) -> Self {
        Self {
            most,
            apart: HOURS_APART.max(changing_hours(window).saturating_add(1)),
            filed,
        }
    }

    /// Hours before this one have been kept apart long enough.
    fn due(self, hour: u32) -> u32 {
        hour.saturating_sub(self.apart).min(self.filed)
    }
}
/// The reason that stands for bids.
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
    /// Of those, the ones that were won: a notice of the win came, or a billing notice, or both.
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

/// What can be added up.
trait Sum: Copy + Default {
    fn plus(&mut self, other: &Self);
}

impl Sum for Counts {
    fn plus(&mut self, other: &Self) {
        self.add(other);
    }
}

impl Sum for u64 {
    fn plus(&mut self, other: &Self) {
        *self = self.saturating_add(*other);
    }
}

/// Rows of one kind, each by its key and what else tells it from others.
#[derive(Debug)]
pub(super) struct Rows<T, V> {
    all: BTreeMap<(Key, T), Kept<V>>,
    /// Of which row the journal is to be told.
    unsaved: Vec<(Key, T)>,
}

/// A row.
#[derive(Debug, Default)]
struct Kept<V> {
    row: V,
    /// Whether it is among the unsaved.
    is_unsaved: bool,
}

impl<T, V> Default for Rows<T, V> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            unsaved: Vec::new(),
        }
    }
}

#[allow(private_bounds, reason = "what rows hold is decided here")]
impl<T: Ord + Copy + Default, V: Sum> Rows<T, V> {
    fn count(&mut self, of: (Key, T), by: &V) {
        let kept = self.all.entry(of).or_default();
        kept.row.plus(by);
        if !std::mem::replace(&mut kept.is_unsaved, true) {
            self.unsaved.push(of);
        }
    }

    /// What changed since it was last taken, as it is now.
    pub(super) fn take_unsaved(&mut self) -> impl Iterator<Item = (Key, T, V)> {
        let mut unsaved = std::mem::take(&mut self.unsaved);
        unsaved.sort_unstable();
        let row = |of: (Key, T)| {
            let kept = self.all.get_mut(&of)?;
            kept.is_unsaved = false;
            Some((of.0, of.1, kept.row))
        };
        unsaved.into_iter().filter_map(row)
    }

    /// How many changed since.
    pub(super) fn unsaved(&self) -> usize {
        self.unsaved.len()
    }

    /// Sets a row as a journal has it; gives back what it was.
    pub(super) fn set(&mut self, key: Key, of: T, to: V) -> V {
        let kept = self.all.entry((key, of)).or_default();
        std::mem::replace(&mut kept.row, to)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = (Key, T, V)> {
        let all = self.all.iter();
        all.map(|((key, of), kept)| (*key, *of, kept.row))
    }

    fn from(&self, hour: u32) -> impl Iterator<Item = (Key, T, V)> {
        let rows = self.all.range((Key::first_of(hour), T::default())..);
        rows.map(|((key, of), kept)| (*key, *of, kept.row))
    }

    /// Reads rows from one on, while their hours are asked for and some are left to read; the next to read, where there is one.
    fn read(
        &self,
        from: (Key, T),
        is_asked: impl Fn(u32) -> bool,
        left: &mut usize,
        mut tell: impl FnMut(Key, T, V),
    ) -> Option<(Key, T)> {
        for ((key, of), kept) in self.all.range(from..) {
            if !is_asked(key.hour) {
                return None;
            }
            let Some(fewer) = left.checked_sub(1) else {
                return Some((*key, *of));
            };
            *left = fewer;
            tell(*key, *of, kept.row);
        }
        None
    }

    /// Adds up hours, from one to before another, a day each.
    fn roll(&mut self, from: u32, before: u32) {
        let is_apart = |key: &Key| key.hour != day_of(key.hour);
        let rolled: Vec<(Key, T, V)> = self
            .from(from)
            .take_while(|(key, ..)| key.hour < before)
            .filter(|(key, ..)| is_apart(key))
            .collect();
        for (key, of, row) in rolled {
            self.all.remove(&(key, of));
            let hour = day_of(key.hour);
            let day = self.all.entry((Key { hour, ..key }, of));
            day.or_default().row.plus(&row);
        }
    }

    fn forget_before(&mut self, hour: u32) {
        while let Some(first) = self.all.first_entry() {
            if first.key().0.hour >= hour {
                break;
            }
            first.remove();
        }
    }
}

/// All rows.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What was delivered.
    pub(super) delivered: Rows<(), Counts>,
    /// Imps that a line item was a candidate for, by what became of them, the number of a name; of no creative.
    pub(super) reasons: Rows<u32, u64>,
    /// What was delivered to people in segments that the line items wanted; of no creative. Whoever was in several counts in each.
    pub(super) segments: Rows<u32, Counts>,
    /// All imps that line items might have bid on.
    pub(super) seen: Seen,
    /// Rows of hours before this one are by the day.
    rolled: u32,
}

impl Report {
    /// A key as rows of its time have it.
    fn rolled(&self, key: Key) -> Key {
        let hour = self.hour(key.hour);
        Key { hour, ..key }
    }

    fn hour(&self, hour: u32) -> u32 {
        match hour < self.rolled {
            true => day_of(hour),
            false => hour,
        }
    }

    /// The row, to be counted in.
    pub(super) fn row(&mut self, key: Key) -> &mut Counts {
        let key = self.rolled(key);
        &mut self.delivered.all.entry((key, ())).or_default().row
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
        &mut self.segments.all.entry(of).or_default().row
    }

    /// Counts a bid for somebody in these segments; the journal is told of bids now and then.
    pub(super) fn bid(&mut self, key: Key, segments: &[u32]) {
        let one = Counts {
            bids: 1,
            ..Counts::default()
        };
        let row = self.rolled(key);
        self.delivered.count((row, ()), &one);
        for segment in segments {
            let row = self.of_segment(key, *segment);
            self.segments.count(row, &one);
        }
    }

    /// Counts imps of a line item by what became of them; the journal is told of them now and then.
    pub(super) fn tally(&mut self, key: Key, reason: u32, imps: u64) {
        self.reasons.count((self.rolled(key), reason), &imps);
    }

    /// Counts imps that all line items of an epoch might have bid on.
    pub(super) fn see(&mut self, hour: u32, exchange: u32, epoch: Epoch, imps: u64) {
        self.seen.count(self.hour(hour), exchange, epoch, imps);
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        let (delivered, reasons) = (self.delivered.all.len(), self.reasons.all.len());
        let all = delivered.saturating_add(reasons);
        all.saturating_add(self.segments.all.len())
    }

    /// Hours that have rows, among those that are asked for.
    pub(super) fn hours(&self, query: &Query) -> Vec<u32> {
        let (mut hours, mut from) = (Vec::new(), query.from);
        let until = query.until.unwrap_or(u32::MAX);
        while let Some(hour) = self.first_hour(from)
            && hour < until
        {
            hours.push(hour);
            from = hour.saturating_add(1);
        }
        hours
    }

    /// The hour before which rows are by the day.
    pub(super) fn rolled_before(&self) -> u32 {
        self.rolled
    }

    /// Adds up the rows of hours before this one, a day each. The journal must hold what it was to be told.
    pub(super) fn roll(&mut self, before: u32) {
        let from = self.rolled;
        self.rolled = from.max(before);
        self.delivered.roll(from, before);
        self.segments.roll(from, before);
        self.reasons.roll(from, before);
        self.seen.roll(before);
    }

    /// Whether something is to be done about what is old, or too many.
    pub(super) fn is_due(&self, hour: u32, keeping: Keeping) -> bool {
        keeping.due(hour) > self.rolled || self.len() > keeping.most
    }

    /// At this hour: rows of hours that are three days old become rows of days, and what is older than rows are kept is forgotten.
    /// Where there are more rows than there may be, hours become days sooner; where that does not do, the oldest days are forgotten.
    /// Hours that are not over stay, and those that are not in their files.
    pub(super) fn tend(&mut self, hour: u32, keeping: Keeping) {
        let mut most = keeping.most;
        let due = keeping.due(hour);
        if due > self.rolled {
            self.roll(due);
        }
        while self.len() > most && self.rolled < hour {
            let next = self.first_hour(self.rolled).unwrap_or(hour);
            let before = next.saturating_add(1).min(hour);
            if before > keeping.filed {
                most = keeping.most.saturating_mul(UNFILED_TIMES);
                if self.len() <= most {
                    break;
                }
            }
            self.roll(before);
        }
        self.forget_before(hour.saturating_sub(HOURS_KEPT));
        while self.len() > most
            && let Some(first) = self.first_hour(0)
            && first < day_of(hour).min(self.rolled)
        {
            let day_ends = day_of(first).saturating_add(24);
            self.forget_before(day_ends.min(self.rolled));
        }
    }

    /// The first hour from one on that has a row.
    fn first_hour(&self, from: u32) -> Option<u32> {
        let firsts = [
            self.delivered.from(from).next().map(|(key, ..)| key.hour),
            self.segments.from(from).next().map(|(key, ..)| key.hour),
            self.reasons.from(from).next().map(|(key, ..)| key.hour),
            self.seen.first_hour(from),
        ];
        firsts.into_iter().flatten().min()
    }

    fn forget_before(&mut self, hour: u32) {
        self.delivered.forget_before(hour);
        self.segments.forget_before(hour);
        self.reasons.forget_before(hour);
        self.seen.forget_before(hour);
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

/// Where a question goes on that is answered in parts: by what is read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// What was delivered, from a row on.
    Delivered(Key, u32),
    /// What became of imps, from a row on.
    Reasons(Key, u32),
    /// All imps: added up from few numbers, so in one part.
    Seen,
}

impl Place {
    /// Where a question begins.
    pub fn first(query: &Query) -> Self {
        Self::Delivered(Key::first_of(query.from), 0)
    }
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

impl Row {
    /// Adds another's sums, of the same.
    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        if let (Some(imps), Some(more)) = (&mut self.imps, &other.imps) {
            imps.all = imps.all.saturating_add(more.all);
            imps.bid = imps.bid.saturating_add(more.bid);
            for (reason, count) in &more.refused {
                let sum = imps.refused.entry(reason.clone()).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
    }
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
pub(super) fn day_of(hour: u32) -> u32 {
    hour.saturating_sub(hour % 24)
}

/// Rows added up, by numbers.
#[derive(Default)]
struct Added {
    counts: Counts,
    imps: u64,
    /// By the number of the reason's name.
    reasons: Vec<(u32, u64)>,
}

impl Added {
    fn reason(&mut self, reason: u32, imps: u64) {
        match self.reasons.iter_mut().find(|(of, _)| *of == reason) {
            Some((_, sum)) => sum.plus(&imps),
            None => self.reasons.push((reason, imps)),
        }
    }
}

impl Report {
    /// Rows added up, in order; `name` tells the names behind numbers.
    pub(super) fn ask<'n>(&self, query: &Query, name: impl Fn(u32) -> &'n str) -> Vec<Row> {
        self.part(query, Place::first(query), usize::MAX, name).0
    }

    /// Some of them, of at most so many that are kept, and where the rest begins. The parts' rows added up are the answer.
    pub(super) fn part<'n>(
        &self,
        query: &Query,
        from: Place,
        most: usize,
        name: impl Fn(u32) -> &'n str,
    ) -> (Vec<Row>, Option<Place>) {
        type Of = (ArrayVec<u32, { Dimension::ALL.len() }>, Currency);
        let mut sums: BTreeMap<Of, Added> = BTreeMap::new();
        let is_asked =
            |hour: u32| hour >= query.from && query.until.is_none_or(|until| hour < until);
        let of = |key: &Key, segment: u32| {
            let dimensions = query.by.iter().take(Dimension::ALL.len());
            let of = dimensions.map(|dimension| dimension.of(key, segment));
            (of.collect(), key.currency)
        };
        let has = |dimension| query.by.contains(&dimension);
        let by_segment = has(Dimension::Segment);
        let has_imps = !by_segment && !has(Dimension::Creative);
        let (mut left, mut place) = (most, Some(from));
        while let Some(at) = place
            && left > 0
        {
            place = match at {
                Place::Delivered(key, segment) if by_segment => {
                    let next = self.segments.read(
                        (key, segment),
                        is_asked,
                        &mut left,
                        |key, segment, counts| {
                            let sum = sums.entry(of(&key, segment)).or_default();
                            sum.counts.add(&counts);
                        },
                    );
                    next.map(|(key, segment)| Place::Delivered(key, segment))
                }
                Place::Delivered(key, _) => {
                    let next =
                        self.delivered
                            .read((key, ()), is_asked, &mut left, |key, (), counts| {
                                let sum = sums.entry(of(&key, 0)).or_default();
                                sum.counts.add(&counts);
                            });
                    let reasons = Place::Reasons(Key::first_of(query.from), 0);
                    let next = next.map(|(key, ())| Place::Delivered(key, 0));
                    next.or(has_imps.then_some(reasons))
                }
                Place::Reasons(key, reason) => {
                    let next = self.reasons.read(
                        (key, reason),
                        is_asked,
                        &mut left,
                        |key, reason, imps| {
                            let sum = sums.entry(of(&key, 0)).or_default();
                            sum.reason(reason, imps);
                        },
                    );
                    let next = next.map(|(key, reason)| Place::Reasons(key, reason));
                    next.or(Some(Place::Seen))
                }
                Place::Seen => {
                    let apart = (has(Dimension::Hour), has(Dimension::Exchange));
                    self.seen.each(is_asked, apart, |key, imps| {
                        sums.entry(of(&key, 0)).or_default().imps.plus(&imps);
                    });
                    None
                }
            };
        }
        let told = |(dimension, number): (&Dimension, u32)| match dimension {
            Dimension::Hour => {
                let begins = i64::from(number).saturating_mul(3600);
                crate::clock::Timestamp::from_unix_seconds(begins).to_string()
            }
            _ => name(number).to_owned(),
        };
        let rows = sums.into_iter().map(|((of, currency), added)| {
            let mut imps = Imps {
                all: added.imps,
                ..Imps::default()
            };
            for (reason, count) in added.reasons {
                match name(reason) {
                    BID => imps.bid = imps.bid.saturating_add(count),
                    refused => imps
                        .refused
                        .entry(refused.to_owned())
                        .or_default()
                        .plus(&count),
                }
            }
            Row {
                of: query.by.iter().zip(of).map(told).collect(),
                currency,
                counts: added.counts,
                imps: has_imps.then_some(imps),
            }
        });
        let mut rows: Vec<Row> = rows.collect();
        rows.sort_by(|a, b| (&a.of, a.currency).cmp(&(&b.of, b.currency)));
        (rows, place)
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::super::seen::Live;
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
        report.ask(&query, name)
    }

    fn name(number: u32) -> &'static str {
        let names = [
            "one", "two", "", "", "", "", "", "a", "b", "c", "", BID, "floor",
        ];
        names.get(number as usize).copied().unwrap_or_default()
    }

    /// All hours are in their files.
    fn keeping(most: usize) -> Keeping {
        Keeping::of(most, 3_600, u32::MAX)
    }

    /// Hours 480 to 529, line items 0 and 1 in turns.
    fn fifty_hours() -> Report {
        let mut report = Report::default();
        let of = |line_item| Live {
            scopes: key(0, line_item).scopes,
            currency: Currency::USD,
        };
        report.seen.change(1, &[of(0), of(1)], &[]);
        for hour in 480..530 {
            report.bid(key(hour, hour % 2), &[12]);
            report.see(hour, 9, 1, 5);
            report.tally(key(hour, hour % 2), 11, 1);
            report.tally(key(hour, hour % 2), 12, 3);
        }
        report
    }

    #[test]
    fn old_hours_become_days_and_sums_stay() {
        let mut report = fifty_hours();
        let before = sum(&report, Dimension::LineItem);
        assert_eq!(before[0].of, ["one"]);
        assert_eq!(before[0].counts.bids, 25);
        let imps = before[1].imps.clone().expect("counted");
        assert_eq!((imps.all, imps.bid, imps.not_targeted()), (250, 25, 150));
        assert_eq!(sum(&report, Dimension::Hour).len(), 50);
        let of_segment = sum(&report, Dimension::Segment);
        assert_eq!(of_segment[0].counts.bids, 50);
        assert!(of_segment[0].of == ["floor"] && of_segment[0].imps.is_none());
        report.tend(528 + 72, keeping(1_000));
        assert_eq!(report.rolled_before(), 528);
        assert_eq!(sum(&report, Dimension::Segment), of_segment);
        assert_eq!(sum(&report, Dimension::LineItem), before);
        assert_eq!(
            sum(&report, Dimension::Hour).len(),
            4,
            "two days, two hours"
        );
        // Who comes late is counted in the day.
        report.bid(key(500, 0), &[]);
        report.see(500, 9, 1, 5);
        assert_eq!(sum(&report, Dimension::Hour).len(), 4);
        let unsaved: Vec<u32> = report
            .delivered
            .take_unsaved()
            .map(|row| row.0.hour)
            .collect();
        assert_eq!(unsaved, [480, 504, 528, 529], "as they are by now");
        report.tend(528 + HOURS_KEPT, keeping(1_000));
        assert_eq!(sum(&report, Dimension::Hour).len(), 1, "the last day");
    }

    #[test]
    fn too_many_rows_become_days_sooner_then_are_forgotten() {
        let mut report = fifty_hours();
        let before = sum(&report, Dimension::LineItem);
        assert_eq!(report.len(), 200);
        report.tend(530, keeping(150));
        // 22 hours of four rows became one of eight.
        assert!(
            report.len() <= 150 && report.len() > 140,
            "{}",
            report.len()
        );
        assert_eq!(sum(&report, Dimension::LineItem), before);
        report.tend(530, keeping(20));
        assert_eq!(report.len(), 16, "of two days the second, and hours");
        assert_eq!(
            sum(&report, Dimension::Hour)[0].of,
            ["1970-01-22T00:00:00Z"]
        );
        report.tend(530, keeping(0));
        assert_eq!(report.len(), 8, "the day that is not over stays");
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let mut report = fifty_hours();
        report.tend(528 + 72, keeping(1_000));
        for by in [
            vec![],
            vec![Dimension::LineItem],
            vec![Dimension::Hour, Dimension::Exchange],
            vec![Dimension::Segment],
            vec![Dimension::Creative],
        ] {
            let query = Query {
                by,
                from: 480,
                until: Some(529),
            };
            let whole = report.ask(&query, name);
            for most in [1, 3, 1_000] {
                let mut sums: BTreeMap<Vec<String>, Row> = BTreeMap::new();
                let (mut place, mut parts) = (Some(Place::first(&query)), 0);
                while let Some(from) = place {
                    let (rows, next) = report.part(&query, from, most, name);
                    assert!(rows.len() <= most || from == Place::Seen, "{}", rows.len());
                    for row in rows {
                        match sums.get_mut(&row.of) {
                            Some(sum) => sum.add(&row),
                            None => {
                                sums.insert(row.of.clone(), row);
                            }
                        }
                    }
                    (place, parts) = (next, parts + 1);
                }
                let sums: Vec<Row> = sums.into_values().collect();
                assert_eq!(sums, whole, "{most} at a time");
                assert!(most < 1_000 && parts > 1 || parts == 1, "{parts}");
            }
        }
    }

    #[test]
    fn an_hour_stays_one_until_it_is_in_its_file_and_cannot_change() {
        let filed = |filed| Keeping {
            filed,
            ..keeping(150)
        };
        let mut report = fifty_hours();
        for (hours, expected) in [(480, 458), (485, 485), (530, 495)] {
            report.tend(530, filed(hours));
            assert_eq!(report.rolled_before(), expected, "in files before {hours}");
        }
        // Twice as many rows as there may be: what has no file becomes days too.
        let mut report = fifty_hours();
        report.tend(530, filed(0));
        assert_eq!((report.rolled_before(), report.len()), (0, 200));
        let few = Keeping {
            most: 80,
            ..filed(0)
        };
        report.tend(530, few);
        assert!(
            report.len() <= 160 && report.len() > 150,
            "{}",
            report.len()
        );
        // No day is forgotten for hours that wait.
        report.tend(530, Keeping { most: 76, ..few });
        assert_eq!(sum(&report, Dimension::Hour).len(), 37);
        assert_eq!(sum(&report, Dimension::LineItem)[0].counts.bids, 25);
        // A week in which notices may come: another day, and two hours.
        let mut report = fifty_hours();
        let week = Keeping::of(1_000, 7 * 24 * 3_600, u32::MAX);
        report.tend(480 + 7 * 24 + 26, week);
        assert_eq!(report.rolled_before(), 480);
        report.tend(482 + 7 * 24 + 26, week);
        assert_eq!(report.rolled_before(), 482);
    }
}
