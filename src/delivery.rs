//! The report, told: rows as JSON and CSV, and each hour as a file that a segment job can read.
//!
//! A file is `reports/<hour>.ndjson.gz` in the data directory, a JSON object a line, of three kinds:
//!
//! - what was delivered, by exchange, line item and creative (`bids`, `wins`, `impressions`, `clicks`, `spend`, …);
//! - the same of people in a segment that the line item wanted (`segment` instead of `creative`); who was in two counts in both;
//! - what became of imps, by exchange and line item (`imps`, `matched`, `no_bids`).
//!
//! It is written a minute after the hour is over, and again as long as notices change it: for a day beyond the billing window. It replaces
//! what was there in one step, so that whoever reads sees a whole file. After a start all hours that the report has are looked at: those
//! that were over while nothing ran, or changed before it stopped, are written then. An hour becomes part of a day in the report only when
//! its file is written, and from then on the file stays as it is.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::decision::{NoBid, Refusal};
use crate::ledger::{Dimension, Imps, Ledger, Place, Query, Row, changing_hours};
use crate::money::{Currency, Nanos};
use crate::priority;
use crate::storage::Storage;

/// Nano units as a decimal text.
pub fn decimal(nano: i64) -> String {
    Nanos(nano).to_string()
}

/// A quotient with six places, or nothing where nothing is divided by.
fn per(amount: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| (amount / count as f64 * 1e6).round() / 1e6)
}

/// What is worked out of a row's counts: eCPM, eCPC, win rate.
fn rates(row: &Row) -> [(&'static str, Option<f64>); 3] {
    let counts = &row.counts;
    let spend = counts.spend as f64 / 1e9;
    [
        ("ecpm", per(spend * 1000.0, counts.impressions)),
        ("ecpc", per(spend, counts.clicks)),
        ("win_rate", per(counts.wins as f64, counts.bids)),
    ]
}

fn counts(row: &Row) -> [(&'static str, u64); 4] {
    let counts = &row.counts;
    [
        ("bids", counts.bids),
        ("wins", counts.wins),
        ("impressions", counts.impressions),
        ("clicks", counts.clicks),
    ]
}

/// Most rows of an answer.
pub const ROWS_MAX: usize = 200_000;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// The ledger's thread is gone.
    Gone,
    /// It would have more than [`ROWS_MAX`] rows.
    TooManyRows,
    /// It begins or ends within a day of which only the sum is kept.
    WithinADay(WithinADay),
}

/// Hours since 1970 of a question that can only be answered for whole days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WithinADay {
    /// Hours before this one are by the day.
    pub before: u32,
    /// From when on it can be answered, and until when, that is least different.
    pub from: u32,
    /// None: without end.
    pub until: Option<u32>,
}

/// The first hour of an hour's day.
fn day_of(hour: u32) -> u32 {
    hour.saturating_sub(hour % 24)
}

/// Whether all that a query asks for is kept by what it asks for. Of hours before `rolled` there is one sum a day; `kept`: hours, and
/// such days, of which there is something.
fn whole_days(query: &Query, kept: &[u32], rolled: u32) -> Result<(), Unanswered> {
    let is_within =
        |hour: u32| hour < rolled && day_of(hour) != hour && kept.contains(&day_of(hour));
    let widened = WithinADay {
        before: rolled,
        from: match is_within(query.from) {
            true => day_of(query.from),
            false => query.from,
        },
        // What is left of the last such day is by the hour.
        until: query.until.map(|until| match is_within(until) {
            true => day_of(until).saturating_add(24).min(rolled),
            false => until,
        }),
    };
    match (widened.from, widened.until) == (query.from, query.until) {
        true => Ok(()),
        false => Err(Unanswered::WithinADay(widened)),
    }
}

/// So often rows that were moved while they were read are read again.
const TRIES: usize = 3;

/// So many rows are read at a time, so that the ledger's thread, which bids wait for, is never long at it: some five milliseconds.
const PART_ROWS: usize = 10_000;

/// Rows by what they are of.
type Summed = BTreeMap<(Vec<String>, Currency), Row>;

/// Adds an hour's rows, or a day's where they are by the day, to others. The hour before which rows are by the day, as of when the last
/// was read; nothing where the ledger is gone. More than `most` sums are more than anybody asks for, and end it.
fn add_hour(
    ledger: &Ledger,
    by: &[Dimension],
    hour: u32,
    most: usize,
    sums: &mut Summed,
) -> Option<u32> {
    let query = Query {
        by: by.to_vec(),
        from: hour,
        until: Some(hour.saturating_add(1)),
    };
    let mut from = Place::first(&query);
    loop {
        let asked = query.clone();
        let (rows, next, rolled) = ledger.ask(move |keeper| {
            let (rows, next) = keeper.rows_from(&asked, from, PART_ROWS);
            (rows, next, keeper.rolled_before())
        })?;
        for row in rows {
            match sums.entry((row.of.clone(), row.currency)) {
                Entry::Vacant(place) => {
                    place.insert(row);
                }
                Entry::Occupied(mut sum) => sum.get_mut().add(&row),
            }
        }
        match next {
            Some(next) if sums.len() <= most => from = next,
            _ => return Some(rolled),
        }
    }
}

/// What is asked of the report.
pub fn rows(ledger: &Ledger, query: &Query) -> Result<Vec<Row>, Unanswered> {
    for _ in 0..TRIES {
        // From the first day on, of which there may be a sum.
        let asked = Query {
            from: day_of(query.from),
            ..query.clone()
        };
        let now = query.clone();
        let of = ledger.ask(move |keeper| keeper.hours(&asked));
        let (mut hours, rolled) = of.ok_or(Unanswered::Gone)?;
        whole_days(query, &hours, rolled)?;
        hours.retain(|hour| *hour >= query.from);
        let mut sums = Summed::new();
        for hour in hours {
            add_hour(ledger, &query.by, hour, ROWS_MAX, &mut sums).ok_or(Unanswered::Gone)?;
            if sums.len() > ROWS_MAX {
                return Err(Unanswered::TooManyRows);
            }
        }
        let of = ledger.ask(move |keeper| keeper.hours(&now));
        let (_, rolled_now) = of.ok_or(Unanswered::Gone)?;
        if rolled == rolled_now {
            return Ok(sums.into_values().collect());
        }
    }
    // Hours become days once an hour; that often in a row only a clock that runs away makes it so.
    Err(Unanswered::Gone)
}

/// A row as a JSON object.
pub fn row_json(by: &[Dimension], row: &Row) -> Value {
    let mut shown = serde_json::Map::new();
    for (dimension, name) in by.iter().zip(&row.of) {
        shown.insert(dimension.as_str().into(), name.as_str().into());
    }
    for (name, count) in counts(row) {
        shown.insert(name.into(), count.into());
    }
    shown.insert("spend".into(), decimal(row.counts.spend).into());
    shown.insert("currency".into(), row.currency.as_str().into());
    for (name, rate) in rates(row) {
        shown.insert(name.into(), rate.into());
    }
    if let Some(imps) = &row.imps {
        shown.insert("imps".into(), imps.all.into());
        shown.insert("matched".into(), matched(imps).into());
        let mut why: serde_json::Map<String, Value> = imps
            .refused
            .iter()
            .map(|(reason, count)| (reason.clone(), (*count).into()))
            .collect();
        why.insert(NOT_TARGETED.into(), imps.not_targeted().into());
        shown.insert("no_bids".into(), why.into());
    }
    Value::Object(shown)
}

/// What remains of all imps beside bids and the reasons that were counted.
const NOT_TARGETED: &str = "not_targeted";

/// Imps that a line item's targeting was true for, whether or not it then bid.
fn matched(imps: &Imps) -> u64 {
    let reasons = Refusal::ALL
        .iter()
        .filter(|refusal| **refusal > Refusal::Targeting)
        .map(|refusal| refusal.as_str())
        .chain([NoBid::Shed.as_str()])
        .filter_map(|reason| imps.refused.get(reason));
    reasons.fold(imps.bid, |sum, count| sum.saturating_add(*count))
}

/// Rows as CSV with a head (RFC 4180). Each reason has a column where some row has it.
pub fn csv(by: &[Dimension], rows: &[Row]) -> String {
    let quoted = |text: &str| match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    };
    let mut head: Vec<&str> = by.iter().map(|dimension| dimension.as_str()).collect();
    head.extend([
        "bids",
        "wins",
        "impressions",
        "clicks",
        "spend",
        "currency",
        "ecpm",
        "ecpc",
        "win_rate",
    ]);
    let has_imps = rows.iter().all(|row| row.imps.is_some());
    let counted = rows.iter().filter_map(|row| row.imps.as_ref());
    let reasons: BTreeSet<&str> = counted
        .flat_map(|imps| imps.refused.keys().map(String::as_str))
        .collect();
    let mut text = head.join(",");
    if has_imps {
        text += ",imps,matched,no_bid_";
        text += NOT_TARGETED;
    }
    for reason in &reasons {
        text += ",no_bid_";
        text += reason;
    }
    text += "\r\n";
    for row in rows {
        let mut cells: Vec<String> = row.of.iter().map(|name| quoted(name)).collect();
        cells.extend(counts(row).map(|(_, count)| count.to_string()));
        cells.push(decimal(row.counts.spend));
        cells.push(row.currency.to_string());
        cells.extend(
            rates(row).map(|(_, rate)| rate.map_or(String::new(), |rate| rate.to_string())),
        );
        if let Some(imps) = row.imps.as_ref().filter(|_| has_imps) {
            cells.extend([imps.all, matched(imps), imps.not_targeted()].map(|n| n.to_string()));
            let of = |reason: &&str| imps.refused.get(*reason).copied().unwrap_or(0);
            cells.extend(reasons.iter().map(|reason| of(reason).to_string()));
        }
        text += &cells.join(",");
        text += "\r\n";
    }
    text
}

/// Where hours are kept, in the data directory.
const FOLDER: &str = "reports";
/// Files of hours older than this are removed: a quarter of a year.
const KEPT_HOURS: u32 = 92 * 24;
/// How long after an hour its file is written: by then bid threads and the ledger have told all.
const SETTLES_SECONDS: i64 = 60;
/// How often it is looked whether an hour is over.
const POLL: Duration = Duration::from_secs(5);

/// Writes hours into files.
#[derive(Debug)]
pub struct Archive {
    ledger: Ledger,
    storage: Storage,
    /// For so many hours an hour may change.
    changing: u32,
    /// The hour that was the last to be over.
    done: u32,
    /// By the hour: what its file has, as a hash.
    written: BTreeMap<u32, u64>,
}

impl Archive {
    /// Of a ledger's report, into a data directory. `window`: the longest in which notices may come, in seconds.
    pub fn new(ledger: Ledger, storage: Storage, window: u32) -> Self {
        Self {
            ledger,
            storage,
            changing: changing_hours(window),
            done: 0,
            written: BTreeMap::new(),
        }
    }

    /// Works until whoever started it is gone.
    fn run(mut self, stopped: &Receiver<()>, now: fn() -> Timestamp) {
        loop {
            if let Err(reason) = self.turn(now()) {
                tracing::warn!(
                    reason,
                    "the report of an hour could not be written; it is tried again"
                );
            }
            if stopped.recv_timeout(POLL) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// Writes what is over and not written, and what has changed since; removes what is old. Of hours that are days by now there is
    /// nothing left to write: their files stay as they are.
    pub fn turn(&mut self, now: Timestamp) -> Result<(), String> {
        let settled = now.unix_seconds().saturating_sub(SETTLES_SECONDS);
        let hour = u32::try_from(settled / 3600).unwrap_or(0);
        if hour <= self.done {
            return Ok(());
        }
        const GONE: &str = "the ledger does not answer";
        let over = Query {
            until: Some(hour),
            ..Query::default()
        };
        let of = self.ledger.ask(move |keeper| keeper.hours(&over));
        let (hours, rolled) = of.ok_or(GONE)?;
        // The first time all of them: what was over, or changed, when the last run ended may not be in its file.
        let from = hour.saturating_sub(self.changing).min(self.done);
        for of in hours.into_iter().filter(|of| *of >= from.max(rolled)) {
            let text = self.text(of).ok_or(GONE)?;
            // Nothing, where it became part of a day meanwhile.
            let Some(text) = text.filter(|text| !text.is_empty()) else {
                continue;
            };
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            let hash = hasher.finish();
            if self.written.get(&of) == Some(&hash) {
                continue;
            }
            let packed = gzip(&text).map_err(|error| error.to_string())?;
            let file = file_of(of);
            let before = std::fs::read(self.storage.dir().join(&file));
            // As the last run wrote it: it stays.
            if before.is_ok_and(|before| before == packed) {
                self.written.insert(of, hash);
                continue;
            }
            let written = self.storage.write_atomic(&file, packed);
            written.map_err(|error| error.to_string())?;
            self.written.insert(of, hash);
        }
        if rolled > self.done && self.done > 0 {
            let hours = rolled.saturating_sub(self.done);
            tracing::warn!(
                hours,
                "the report has so many rows that hours became days before their files were written; see limits.report_rows"
            );
        }
        self.ledger.files_are_before(hour);
        self.written = self.written.split_off(&hour.saturating_sub(self.changing));
        self.forget(hour.saturating_sub(KEPT_HOURS));
        self.done = hour;
        Ok(())
    }

    /// An hour's rows, a line each; none where it is part of a day by now, nothing where the ledger is gone.
    fn text(&self, hour: u32) -> Option<Option<String>> {
        let by = |last: &[Dimension]| {
            let mut by = vec![
                Dimension::Hour,
                Dimension::Exchange,
                Dimension::Advertiser,
                Dimension::Campaign,
                Dimension::LineItem,
            ];
            by.extend(last);
            by
        };
        let mut text = String::new();
        for by in [
            by(&[Dimension::Creative]),
            by(&[Dimension::Segment]),
            by(&[]),
        ] {
            let mut rows = Summed::new();
            let rolled = add_hour(&self.ledger, &by, hour, usize::MAX, &mut rows)?;
            if rolled > hour {
                return Some(None);
            }
            let of_imps = by.len() == 5;
            for row in rows
                .values()
                .filter(|row| !of_imps || row.imps.as_ref().is_some_and(|imps| imps.all > 0))
            {
                let mut shown = row_json(&by, row);
                if of_imps && let Some(shown) = shown.as_object_mut() {
                    // The other lines have these.
                    shown.retain(|name, _| !DELIVERED.contains(&name.as_str()));
                }
                text += &shown.to_string();
                text.push('\n');
            }
        }
        Some(Some(text))
    }

    fn forget(&self, before: u32) {
        let files = std::fs::read_dir(self.storage.dir().join(FOLDER));
        for file in files.into_iter().flatten().flatten() {
            let path = Path::new(FOLDER).join(file.file_name());
            if path < file_of(before)
                && let Err(error) = self.storage.remove(&path)
            {
                tracing::warn!(path = %path.display(), %error, "an old report could not be removed");
            }
        }
    }
}

/// What lines of delivery have and those of imps have not.
const DELIVERED: [&str; 8] = [
    "bids",
    "wins",
    "impressions",
    "clicks",
    "spend",
    "ecpm",
    "ecpc",
    "win_rate",
];

/// `reports/2026-11-23T10.ndjson.gz`: names sort as their hours do.
fn file_of(hour: u32) -> PathBuf {
    let begins = Timestamp::from_unix_seconds(i64::from(hour).saturating_mul(3600)).to_string();
    let name = begins.get(..13).unwrap_or(&begins);
    Path::new(FOLDER).join(format!("{name}.ndjson.gz"))
}

fn gzip(text: &str) -> std::io::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(text.as_bytes())?;
    packed.finish()
}

/// The thread that writes hours. It ends, and is waited for, when this is dropped.
#[derive(Debug)]
pub struct Reports {
    goes_on: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reports {
    /// Starts it, behind everybody else.
    pub fn start(archive: Archive, now: fn() -> Timestamp) -> std::io::Result<Self> {
        let (goes_on, stopped) = channel();
        let thread = thread::Builder::new()
            .name("kith-reports".to_owned())
            .spawn(move || {
                priority::stand_back();
                archive.run(&stopped, now);
            })?;
        Ok(Self {
            goes_on: Some(goes_on),
            thread: Some(thread),
        })
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.goes_on = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

    use super::*;
    use crate::config::Config;
    use crate::ledger::{Allowances, Desk, Plan, Proposed, Terms, TokenText};
    use crate::money::Price;

    fn ten() -> Timestamp {
        "2026-11-23T10:30:00Z".parse().expect("a time")
    }

    fn bid(desk: &mut Desk, plan: &Plan, book: &crate::campaigns::Book) {
        let mut allowances = Allowances::seeded(0);
        allowances.begin(plan, ten());
        let proposed = Proposed {
            line_item: 0,
            creative: 0,
            exchange: 0,
            price: Price::from_micros(5_000_000).expect("a price"),
            currency: Currency::USD,
            nano: 5_000_000,
            test: false,
            segments: [0].into_iter().collect(),
        };
        desk.tick();
        desk.commit(
            plan,
            book,
            &mut allowances,
            &proposed,
            &mut TokenText::default(),
        )
        .expect("taken");
    }

    fn lines(dir: &Path) -> Vec<Value> {
        let packed = std::fs::read(dir.join("reports/2026-11-23T10.ndjson.gz")).expect("a file");
        let mut text = String::new();
        let mut unpacked = flate2::read::GzDecoder::new(&*packed);
        unpacked.read_to_string(&mut text).expect("whole");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    #[test]
    fn an_hour_is_written_when_it_is_over_and_again_when_it_changes() {
        let dir = tempfile::tempdir().expect("a folder");
        let storage = Storage::start(dir.path()).expect("storage");
        let old = dir.path().join("reports/2026-08-01T00.ndjson.gz");
        std::fs::create_dir(dir.path().join("reports")).expect("made");
        std::fs::write(&old, "").expect("written");
        let terms = Terms::of(&Config::default());
        static SINCE: AtomicI64 = AtomicI64::new(0);
        fn clock() -> Timestamp {
            Timestamp::from_unix_seconds(ten().unix_seconds() + SINCE.load(SeqCst))
        }
        let ledger = Ledger::start_believing(terms, storage.clone(), clock, Duration::ZERO)
            .expect("a ledger");
        let book = Arc::new(crate::campaigns::compile(DOCUMENT).expect("a document"));
        let (plan, mut desk) = (ledger.plan(&book), ledger.desk());
        bid(&mut desk, &plan, &book);
        let hour = u32::try_from(ten().unix_seconds() / 3600).expect("an hour");
        desk.tally(&plan, 0, hour, 7, vec![(0, None, 1), (0, Some("floor"), 2)]);
        let mut archive = Archive::new(ledger.clone(), storage, 3_600);
        let later = |seconds: i64| Timestamp::from_unix_seconds(ten().unix_seconds() + seconds);
        let begun = std::time::Instant::now();
        while ledger.ask(|keeper| keeper.rows(&Query::default()).is_empty()) != Some(false) {
            assert!(begun.elapsed() < Duration::from_secs(20));
            thread::park_timeout(Duration::from_millis(2));
        }
        archive.turn(later(30 * 60)).expect("nothing is over");
        let count = std::fs::read_dir(dir.path().join("reports"))
            .expect("it")
            .count();
        assert_eq!(
            count, 0,
            "what is old is gone, what is not over is not there"
        );
        archive.turn(later(31 * 60 + 1)).expect("written");
        let written = lines(dir.path());
        assert_eq!(written.len(), 3, "{written:?}");
        assert_eq!(
            written.first().map(|line| &line["creative"]),
            Some(&"box".into())
        );
        assert_eq!(
            written.get(1).map(|line| &line["segment"]),
            Some(&"crm/vip".into())
        );
        let imps = serde_json::json!({"hour": "2026-11-23T10:00:00Z", "exchange": "demo", "advertiser": "acme", "campaign": "one",
            "line_item": "one", "currency": "USD", "imps": 7, "matched": 3, "no_bids": {"floor": 2, "not_targeted": 4}});
        assert_eq!(written.last(), Some(&imps));
        bid(&mut desk, &plan, &book);
        while ledger.ask(|keeper| {
            keeper
                .rows(&Query::default())
                .first()
                .map(|row| row.counts.bids)
        }) != Some(Some(2))
        {
            assert!(begun.elapsed() < Duration::from_secs(20));
            thread::park_timeout(Duration::from_millis(2));
        }
        // What is older than three days is by the day.
        SINCE.store(60, SeqCst);
        while ledger.ask(|keeper| keeper.rolled_before()) != Some(hour - 72) {
            assert!(begun.elapsed() < Duration::from_secs(20));
            thread::park_timeout(Duration::from_millis(2));
        }
        // Read an hour at a time it is the same, also of hours that are days by now.
        desk.tally(&plan, 0, hour - 1, 5, vec![(0, Some("floor"), 1)]);
        desk.tally(&plan, 0, hour - 90, 5, vec![(0, Some("floor"), 3)]);
        while rows(&ledger, &Query::default()).map(|rows| rows.first().map(|row| row.imps.clone()))
            != Ok(Some(Some(Imps {
                all: 17,
                bid: 1,
                refused: [("floor".to_owned(), 6)].into(),
            })))
        {
            assert!(begun.elapsed() < Duration::from_secs(20));
            thread::park_timeout(Duration::from_millis(2));
        }
        // Of a day that is a sum there is no part.
        let part = |from: u32, until: Option<u32>| {
            let query = Query {
                by: vec![Dimension::Hour],
                from,
                until,
            };
            rows(&ledger, &query).map(|rows| rows.len())
        };
        let before = hour - 72;
        let within = |from: u32, until: Option<u32>| {
            Err(Unanswered::WithinADay(WithinADay {
                before,
                from,
                until,
            }))
        };
        let (sum, end) = (day_of(hour - 90), day_of(hour - 90) + 24);
        assert_eq!(part(sum, Some(end)), Ok(1));
        assert_eq!(part(sum, None), Ok(3));
        assert_eq!(part(sum + 1, None), within(sum, None));
        assert_eq!(part(sum, Some(end - 1)), within(sum, Some(end)));
        assert_eq!(part(sum + 1, Some(sum + 2)), within(sum, Some(end)));
        assert_eq!(
            part(0, Some(before - 1)),
            Ok(1),
            "nothing is in its last day"
        );
        assert_eq!(part(0, Some(before)), Ok(1));
        assert_eq!(part(before + 1, Some(before + 2)), Ok(0));
        for by in [
            vec![],
            vec![Dimension::LineItem, Dimension::Exchange],
            vec![Dimension::Hour],
        ] {
            let query = Query {
                by,
                from: hour - 50,
                until: None,
            };
            let asked = query.clone();
            let whole = ledger.ask(move |keeper| keeper.rows(&asked));
            assert_eq!(rows(&ledger, &query).ok(), whole);
        }
        archive.turn(later(40 * 60)).expect("nothing new is over");
        assert_eq!(lines(dir.path()), written);
        archive.turn(later(92 * 60)).expect("written");
        assert_eq!(
            lines(dir.path()).first().map(|line| line["bids"].clone()),
            Some(2.into())
        );
    }

    const DOCUMENT: &[u8] = br#"{"advertisers": [{"id": "acme", "domain": "acme.example"}],
        "creatives": [{"id": "box", "advertiser": "acme", "type": "banner", "w": 1, "h": 1, "adm": "<p>"}],
        "line_items": [{"id": "one", "creatives": ["box"], "targeting": "segments one of ['crm/vip']",
            "price": {"cpm": "5", "currency": "USD"}}]}"#;

    /// A service that stops and starts, by a clock that is set.
    struct Kept {
        ledger: Ledger,
        archive: Archive,
        desk: Desk,
        plan: Arc<Plan>,
        book: Arc<crate::campaigns::Book>,
    }

    impl Kept {
        fn start(dir: &Path, window: u32, rows: usize, clock: fn() -> Timestamp) -> Self {
            let storage = Storage::start(dir).expect("storage");
            let mut terms = Terms::of(&Config::default());
            terms.report_rows = rows;
            for exchange in &mut terms.exchanges {
                exchange.window = window;
            }
            let ledger = Ledger::start_believing(terms, storage.clone(), clock, Duration::ZERO)
                .expect("a ledger");
            let book = Arc::new(crate::campaigns::compile(DOCUMENT).expect("a document"));
            Self {
                archive: Archive::new(ledger.clone(), storage, window),
                desk: ledger.desk(),
                plan: ledger.plan(&book),
                ledger,
                book,
            }
        }

        fn bid(&mut self) {
            bid(&mut self.desk, &self.plan, &self.book);
        }

        /// Waits until the report is by the day before this hour.
        fn until_rolled(&self, hour: u32) {
            let begun = std::time::Instant::now();
            while self.ledger.ask(|keeper| keeper.rolled_before()) != Some(hour) {
                assert!(begun.elapsed() < Duration::from_secs(20), "never");
                thread::park_timeout(Duration::from_millis(2));
            }
        }

        /// Waits until the ledger has looked at the clock, some times.
        fn ticks(&self) {
            thread::park_timeout(Duration::from_millis(700));
        }
    }

    fn files(dir: &Path) -> Vec<String> {
        let files = std::fs::read_dir(dir.join("reports"));
        let names = files.into_iter().flatten().flatten();
        let mut names: Vec<String> = names
            .map(|file| file.file_name().display().to_string())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn no_hour_is_without_its_file_and_no_file_without_its_hour() {
        static NOW: AtomicI64 = AtomicI64::new(0);
        fn clock() -> Timestamp {
            Timestamp::from_unix_seconds(NOW.load(SeqCst))
        }
        let set = |hours: i64| {
            let seconds = ten().unix_seconds() + hours * 3_600;
            NOW.store(seconds, SeqCst);
            Timestamp::from_unix_seconds(seconds)
        };
        let hour = u32::try_from(ten().unix_seconds() / 3600).expect("an hour");
        let bids = |dir: &Path| lines(dir).first().map(|line| line["bids"].clone());
        let only = ["2026-11-23T10.ndjson.gz"];

        // Where notices may come for a week, hours stay hours for as long, and their files what they are.
        let dir = tempfile::tempdir().expect("a folder");
        set(0);
        let mut kept = Kept::start(dir.path(), 7 * 24 * 3_600, 1_000, clock);
        kept.bid();
        kept.ticks();
        kept.archive.turn(set(1)).expect("written");
        assert_eq!(bids(dir.path()), Some(1.into()));
        kept.archive.turn(set(100)).expect("nothing new is over");
        kept.until_rolled(hour + 100 - 194);
        kept.bid();
        kept.ticks();
        kept.archive.turn(set(101)).expect("it has changed");
        assert_eq!(
            (bids(dir.path()), files(dir.path())),
            (Some(2.into()), only.map(Into::into).into())
        );
        kept.archive.turn(set(300)).expect("nothing new is over");
        set(301);
        kept.until_rolled(hour + 301 - 194);
        kept.archive.turn(set(302)).expect("nothing new is over");
        assert_eq!(
            (bids(dir.path()), files(dir.path())),
            (Some(2.into()), only.map(Into::into).into())
        );
        drop(kept);

        // More rows than there may be: the hour waits for its file, which stays when it is a part of its day.
        let dir = tempfile::tempdir().expect("a folder");
        set(0);
        let mut kept = Kept::start(dir.path(), 3_600, 1, clock);
        kept.bid();
        kept.ticks();
        set(1);
        kept.ticks();
        kept.archive.turn(set(1)).expect("written");
        set(2);
        kept.until_rolled(hour + 1);
        kept.archive.turn(set(2)).expect("nothing new is over");
        kept.archive.turn(set(3)).expect("nothing new is over");
        assert_eq!(
            (bids(dir.path()), files(dir.path())),
            (Some(1.into()), only.map(Into::into).into())
        );
        drop(kept);

        // Stopped before the hour was over, and for long.
        let dir = tempfile::tempdir().expect("a folder");
        set(0);
        let mut kept = Kept::start(dir.path(), 3_600, 1_000, clock);
        kept.bid();
        kept.ticks();
        drop(kept);
        assert_eq!(files(dir.path()), [""; 0]);
        set(90);
        let mut kept = Kept::start(dir.path(), 3_600, 1_000, clock);
        kept.ticks();
        kept.archive.turn(set(90)).expect("written");
        assert_eq!(
            (bids(dir.path()), files(dir.path())),
            (Some(1.into()), only.map(Into::into).into())
        );
        set(91);
        kept.until_rolled(hour + 91 - 72);
    }
}
