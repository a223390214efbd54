//! Poisoned uploads are held, honest ones are not: whole lives of a dataset over the public [`Datasets`], with time
//! handed in.
//!
//! A poison is a way to spoil an honest export. Each is uploaded over the same live version twice: while the process
//! runs, and as the first thing after a restart. The honest year is two hundred days of an export that changes as
//! exports do.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use kith::audience::{AsOf, Builder, RowFormat, VersionMeta};
use kith::clock::Timestamp;
use kith::config::Config;
use kith::datasets::{Datasets, Format, Mode, Published, Refused, Settings, State, Upload};
use kith::generation::Frame;
use kith::ids::{Keyer, Kind, Name, SecretKey};
use kith::storage::Storage;

const START: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);
const DAY_MS: i64 = 86_400_000;
const IDS: u32 = 3_000;
/// The `n`-th largest of them holds about a part in `n` + 2 of the people.
const SEGMENTS: u32 = 20;

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn keyer() -> Keyer {
    Keyer::new(&SecretKey::from_bytes([7; 32]))
}

fn day(days: i64) -> Timestamp {
    Timestamp::from_unix_ms(START.unix_ms + days * DAY_MS)
}

/// A fixed mixture of its two arguments: a lot drawn, the same in each run.
fn lot(a: u32, b: u32) -> u64 {
    // SplitMix64's finalizer.
    let mut x = (u64::from(a) << 32 | u64::from(b)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Whether a lot falls among `parts` of a million.
fn falls(a: u32, b: u32, parts: u64) -> bool {
    lot(a, b) % 1_000_000 < parts
}

/// One row of an export.
#[derive(Clone, Debug)]
struct Row {
    source: String,
    id: String,
    segments: Vec<String>,
    expires: Option<Timestamp>,
}

/// An export as a job has it before it is written.
#[derive(Clone, Debug)]
struct Export {
    rows: Vec<Row>,
    as_of: Option<Timestamp>,
    /// What is wrong with the file itself.
    bad_rows: usize,
}

impl Export {
    /// What the job exports on an ordinary day: ids of three sources, segments by falling size, two days old at most.
    fn honest() -> Export {
        let rows = (0..IDS).map(|person| {
            let mut segments: Vec<String> = (0..SEGMENTS)
                .filter(|s| falls(person, *s, 700_000 / (u64::from(*s) + 2)))
                .map(|s| format!("seg-{s}"))
                .collect();
            if segments.is_empty() {
                segments.push(format!("seg-{}", lot(person, 99) % u64::from(SEGMENTS)));
            }
            let source = match person % 5 {
                0 => "uidapi.com",
                1 | 2 => "buyeruid",
                _ => "ifa",
            };
            Row {
                source: source.to_owned(),
                id: format!("person-{person:06}"),
                segments,
                expires: (person % 4 == 0).then(|| day(30)),
            }
        });
        Export {
            rows: rows.collect(),
            as_of: Some(day(0)),
            bad_rows: 0,
        }
    }

    fn body(&self) -> String {
        let mut text = "source,id,segments,expires\n".to_owned();
        for row in &self.rows {
            let expires = row.expires.map(|t| t.to_string()).unwrap_or_default();
            let segments = row.segments.join("|");
            text.push_str(&format!("{},{},{segments},{expires}\n", row.source, row.id));
        }
        text.push_str(&"ifa,null,seg-1,\n".repeat(self.bad_rows));
        text
    }

    fn each(mut self, change: impl Fn(u32, &mut Row)) -> Export {
        for (n, row) in (0..).zip(&mut self.rows) {
            change(n, row);
        }
        self
    }

    fn only(mut self, keep: impl Fn(u32, &Row) -> bool) -> Export {
        let rows = (0..).zip(self.rows).filter(|(n, row)| keep(*n, row));
        self.rows = rows.map(|(_, row)| row).collect();
        self
    }

    /// Every segment under another name, by number.
    fn renamed(self, rename: impl Fn(u32) -> u32) -> Export {
        self.each(|_, row| {
            for segment in &mut row.segments {
                let number: u32 = segment["seg-".len()..].parse().expect("a number");
                *segment = format!("seg-{}", rename(number));
            }
        })
    }

    /// Without some of the memberships; who is in nothing any more is left out.
    fn keeping(self, keep: impl Fn(u32, u32) -> bool) -> Export {
        let number = |segment: &str| segment["seg-".len()..].parse().expect("a number");
        self.each(|n, row| row.segments.retain(|s| keep(n, number(s))))
            .only(|_, row| !row.segments.is_empty())
    }

    fn with_sources(self, rename: impl Fn(&str) -> String) -> Export {
        self.each(|_, row| row.source = rename(&row.source))
    }
}

struct Kit {
    datasets: Arc<Datasets>,
}

impl Kit {
    fn start(dir: &Path, config: &str) -> Kit {
        let config = Config::from_toml(config, "test").expect("a good configuration");
        let storage = Storage::start(dir).expect("a directory of our own");
        let settings = Settings::of(&config, Frame::of(&config, keyer()));
        let registry = prometheus::Registry::new();
        let (datasets, _live) = Datasets::open(settings, storage, &registry).expect("opened");
        datasets.recover(Timestamp::now()).expect("ready");
        Kit { datasets }
    }

    fn put(&self, version: u64, export: &Export, now: Timestamp) -> Published {
        let upload = upload(version, export.as_of, Format::Rows(RowFormat::Csv));
        self.send(&upload, export.body().as_bytes(), now)
            .unwrap_or_else(|refused| panic!("version {version}: {refused}"))
    }

    /// The same as a version file, built elsewhere.
    fn put_file(&self, version: u64, export: &Export, now: Timestamp) -> Published {
        let meta = VersionMeta {
            kind: Kind::Audience,
            dataset: name("crm"),
            version,
            base: None,
            as_of: export.as_of.map(AsOf::Time),
        };
        let mut builder = Builder::new(meta, keyer()).expect("an audience");
        builder
            .read_rows(&RowFormat::Csv, export.body().as_bytes(), &mut |_| {})
            .expect("rows");
        let mut file = Vec::new();
        builder.finish(&mut file).expect("built");
        self.send(&upload(version, None, Format::Snapshot), &file, now)
            .unwrap_or_else(|refused| panic!("version {version}: {refused}"))
    }

    fn send(&self, upload: &Upload, body: &[u8], now: Timestamp) -> Result<Published, Refused> {
        let mut spool = self.datasets.spool()?;
        spool.write_all(body)?;
        self.datasets.publish(upload, spool, "a test", now)
    }

    fn live(&self) -> Option<u64> {
        self.datasets.dataset(&name("crm")).expect("known").live
    }
}

fn upload(version: u64, as_of: Option<Timestamp>, format: Format) -> Upload {
    Upload {
        dataset: name("crm"),
        version,
        kind: None,
        mode: Mode::Full,
        base: None,
        as_of: as_of.map(AsOf::Time),
        activate: true,
        format,
    }
}

/// A spoiled export and the check that must hold it; perhaps others do too.
struct Poison {
    what: String,
    check: &'static str,
    export: Export,
    as_file: bool,
}

fn poisons() -> Vec<Poison> {
    let next = Export {
        as_of: Some(day(1)),
        ..Export::honest()
    };
    let honest = || next.clone();
    let mut all = Vec::new();
    let mut add = |what: &str, check: &'static str, export: Export| {
        all.push(Poison {
            what: what.to_owned(),
            check,
            export,
            as_file: false,
        });
    };
    // Fewer people, or more.
    for percent in [1u32, 10, 25, 40, 60] {
        let left = IDS * percent / 100;
        add(
            &format!("cut to {percent} %"),
            "ids",
            honest().only(|n, _| n < left),
        );
        let drawn = honest().only(|n, _| falls(n, 7, u64::from(percent) * 10_000));
        add(&format!("{percent} % drawn"), "ids", drawn);
    }
    add(
        "truncated in the middle",
        "ids",
        honest().only(|n, _| n < IDS / 2),
    );
    for times in [3u32, 10] {
        let mut export = honest();
        let rows = export.rows.clone();
        for copy in 1..times {
            export.rows.extend(rows.iter().cloned().map(|row| Row {
                id: format!("{}-{copy}", row.id),
                ..row
            }));
        }
        add(
            &format!("a join that gives {times} times as many"),
            "ids",
            export,
        );
    }
    // Ids of another space.
    add(
        "ids with a prefix",
        "overlap",
        honest().each(|_, row| row.id.insert_str(0, "u:")),
    );
    add(
        "ids cut short",
        "ids",
        honest().each(|_, row| row.id.truncate(9)),
    );
    add(
        "ids in another case",
        "overlap",
        honest().each(|_, row| {
            row.source = "buyeruid".to_owned();
            row.id.make_ascii_uppercase();
        }),
    );
    add(
        "ids hashed",
        "overlap",
        honest().each(|n, row| row.id = format!("{:016x}", lot(n, 3))),
    );
    add(
        "ids of half the people hashed",
        "overlap",
        honest().each(|n, row| {
            if n % 2 == 0 {
                row.id = format!("{:016x}", lot(n, 3));
            }
        }),
    );
    add(
        "ids counted anew",
        "overlap",
        honest().each(|n, row| {
            row.id = format!("person-{:06}", n + IDS);
        }),
    );
    add("ids shifted by a row", "overlap", {
        let ids: Vec<String> = honest().rows.iter().map(|r| r.id.clone()).collect();
        honest().each(|n, row| row.id.clone_from(&ids[(n as usize + 1) % ids.len()]))
    });
    // Sources of the wrong name.
    add(
        "ifa misspelt",
        "sources",
        honest().with_sources(|s| s.replace("ifa", "idfa")),
    );
    add(
        "all sources misspelt",
        "sources",
        honest().with_sources(|s| format!("{s}s")),
    );
    add(
        "a domain misspelt",
        "sources",
        honest().with_sources(|s| s.replace("uidapi", "uid2api")),
    );
    add("an exchange that is not configured", "sources", {
        honest().with_sources(|s| s.replace("buyeruid", "exchange:nobody"))
    });
    add(
        "sources and ids swapped",
        "sources",
        honest().each(|_, row| {
            std::mem::swap(&mut row.source, &mut row.id);
        }),
    );
    // Segments under other names.
    for by in [1, 7, 10] {
        let turned = honest().renamed(|s| (s + by) % SEGMENTS);
        add(&format!("segment names turned by {by}"), "overlap", turned);
    }
    add(
        "segment names in reverse",
        "overlap",
        honest().renamed(|s| SEGMENTS - 1 - s),
    );
    for (a, b) in [(0, 1), (4, 5), (1, 18)] {
        let swapped = honest().renamed(|s| match s {
            s if s == a => b,
            s if s == b => a,
            s => s,
        });
        add(&format!("segments {a} and {b} swapped"), "overlap", swapped);
    }
    add(
        "segments in pairs swapped",
        "overlap",
        honest().renamed(|s| s ^ 1),
    );
    add(
        "three segments swapped round",
        "overlap",
        honest().renamed(|s| match s {
            2 => 3,
            3 => 4,
            4 => 2,
            s => s,
        }),
    );
    add(
        "segments under new names",
        "segments",
        honest().renamed(|s| s + 100),
    );
    add("sets dealt to other people", "overlap", {
        let sets: Vec<Vec<String>> = honest().rows.iter().map(|r| r.segments.clone()).collect();
        honest().each(|n, row| {
            row.segments
                .clone_from(&sets[(n as usize + 997) % sets.len()])
        })
    });
    // Segments that are gone, or have lost most of theirs.
    add(
        "half of the segments gone",
        "segments",
        honest().keeping(|_, s| s % 2 == 0),
    );
    add(
        "the smaller half gone",
        "segments",
        honest().keeping(|_, s| s < SEGMENTS / 2),
    );
    add(
        "the larger half gone",
        "segments",
        honest().keeping(|_, s| s >= SEGMENTS / 2),
    );
    add(
        "the largest gone",
        "segments",
        honest().each(|_, row| {
            row.segments.retain(|s| s != "seg-0");
            row.segments.push("seg-1".to_owned());
        }),
    );
    add(
        "a large one gone",
        "segments",
        honest().keeping(|_, s| s != 3),
    );
    add(
        "half of the memberships gone",
        "segments",
        honest().keeping(|n, s| falls(n, s + 50, 500_000)),
    );
    add(
        "a small segment nearly gone",
        "segments",
        honest().keeping(|n, s| s != 12 || n % 10 == 0),
    );
    add(
        "only the largest left",
        "segments",
        honest().each(|_, row| {
            row.segments = vec!["seg-0".to_owned()];
        }),
    );
    // One segment for everyone.
    for segment in ["seg-0", "seg-5", "everyone"] {
        let export = honest().each(|_, row| row.segments = vec![segment.to_owned()]);
        add(
            &format!("nothing but {segment} for everyone"),
            "segments",
            export,
        );
        let export = honest().each(|_, row| row.segments.push(segment.to_owned()));
        add(&format!("{segment} for everyone too"), "segments", export);
    }
    add(
        "all segments for everyone",
        "segments",
        honest().each(|_, row| {
            row.segments = (0..SEGMENTS).map(|s| format!("seg-{s}")).collect();
        }),
    );
    // An old cut.
    for days in [-1, -30] {
        let old = Export {
            as_of: Some(day(days)),
            ..honest()
        };
        add(&format!("a cut of day {days}"), "age", old);
    }
    // Nothing that still holds.
    add(
        "all expired",
        "empty",
        honest().each(|_, row| row.expires = Some(day(-1))),
    );
    add(
        "all expired a moment ago",
        "empty",
        honest().each(|_, row| {
            row.expires = Some(day(1));
        }),
    );
    add(
        "all but a few expired",
        "ids",
        honest().each(|n, row| {
            row.expires = (n % 20 > 0).then(|| day(-1));
        }),
    );
    // Bad rows.
    for (parts, of) in [(2, 100), (30, 100), (3, 1)] {
        let bad = Export {
            bad_rows: IDS as usize * parts / of,
            ..honest()
        };
        add(
            &format!("{parts} bad rows to {of} good ones"),
            "rejected_rows",
            bad,
        );
    }
    // As version files.
    for (what, check, export) in [
        (
            "a tenth, as a file",
            "ids",
            honest().only(|n, _| n % 10 == 0),
        ),
        (
            "half of the segments gone, as a file",
            "segments",
            honest().keeping(|_, s| s % 2 == 0),
        ),
        (
            "an old cut, as a file",
            "age",
            Export {
                as_of: Some(day(-2)),
                ..honest()
            },
        ),
    ] {
        all.push(Poison {
            what: what.to_owned(),
            check,
            export,
            as_file: true,
        });
    }
    all
}

fn put_poison(kit: &Kit, version: u64, poison: &Poison) -> Published {
    let now = day(1);
    if poison.as_file {
        kit.put_file(version, &poison.export, now)
    } else {
        kit.put(version, &poison.export, now)
    }
}

/// What an upload of the poison must be answered with; or what is wrong.
fn judge(poison: &Poison, answer: &Published) -> Result<(), String> {
    let failed: Vec<&str> = answer
        .version
        .checks
        .iter()
        .filter(|c| !c.ok)
        .map(|c| c.name.as_str())
        .collect();
    let says_what_to_do = |detail: &str| detail.contains("upload") && detail.contains("force");
    if answer.version.state != State::Held || !failed.contains(&poison.check) {
        return Err(format!(
            "{}: {:?}, by {failed:?}",
            poison.what, answer.version.state
        ));
    }
    let silent = answer
        .version
        .checks
        .iter()
        .find(|c| !c.ok && !says_what_to_do(&c.detail));
    match silent {
        Some(check) => Err(format!(
            "{}: does not say what to do: {check:?}",
            poison.what
        )),
        None => Ok(()),
    }
}

const CONFIG: &str = "[data]\nkeep_versions = 2\n[exchanges.demo]\n";

#[test]
fn poisoned_uploads_are_held() {
    let dir = tempfile::tempdir().expect("a folder");
    let kit = Kit::start(dir.path(), CONFIG);
    kit.put(1, &Export::honest(), day(0));
    assert_eq!(kit.live(), Some(1));
    let poisons = poisons();
    assert!(poisons.len() >= 50, "{}", poisons.len());
    let mut wrong = Vec::new();
    for (version, poison) in (2..).zip(&poisons) {
        wrong.extend(judge(poison, &put_poison(&kit, version, poison)).err());
        assert_eq!(kit.live(), Some(1), "{}", poison.what);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // And the honest one of that day goes through.
    let honest = Export {
        as_of: Some(day(1)),
        ..Export::honest()
    };
    let answer = kit.put(1000, &honest, day(1));
    assert_eq!(
        answer.version.state,
        State::Active,
        "{:#?}",
        answer.version.checks
    );
}

#[test]
fn poisoned_uploads_are_held_as_the_first_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    Kit::start(dir.path(), CONFIG).put(1, &Export::honest(), day(0));
    let mut wrong = Vec::new();
    for (version, poison) in (2..).zip(&poisons()) {
        let kit = Kit::start(dir.path(), CONFIG);
        wrong.extend(judge(poison, &put_poison(&kit, version, poison)).err());
        assert_eq!(kit.live(), Some(1), "{}", poison.what);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// An export that lives: people come and go, segments are recomputed, campaigns begin, grow and end.
struct Year {
    seed: u32,
    /// Who is there: a number that is never given twice.
    people: Vec<u32>,
    next: u32,
    /// The first person of day 100.
    new_from: Option<u32>,
}

impl Year {
    const SEGMENTS: u32 = 16;
    const FIRST: u32 = 2_000;

    fn new(seed: u32) -> Year {
        Year {
            seed,
            people: (0..Self::FIRST).collect(),
            next: Self::FIRST,
            new_from: None,
        }
    }

    /// A person's segments on a day. Each membership is drawn for a stretch of days, so that a few in a hundred change
    /// a day.
    fn segments(&self, person: u32, today: u32) -> Vec<String> {
        let mut segments = Vec::new();
        for segment in 0..Self::SEGMENTS {
            let stretch = (today + (lot(person, segment) % 30) as u32) / 30;
            let share = 600_000 / (u64::from(segment) + 2);
            if falls(person ^ self.seed, segment * 1000 + stretch, share) {
                segments.push(format!("interest-{segment}"));
            }
        }
        // A campaign every ten days: for fifteen days, doubled on the fifth, of 3 % of the people.
        for campaign in 0..20 {
            let begin = campaign * 10;
            let share = match today.checked_sub(begin) {
                Some(0..5) => 30_000,
                Some(5..15) => 60_000,
                _ => 0,
            };
            if falls(person ^ self.seed, 50_000 + campaign, share) {
                segments.push(format!("campaign-{campaign}"));
            }
        }
        // From day 100 on who is new is in a segment of its own, which so grows from nothing to nearly everyone.
        if self.new_from.is_some_and(|from| person >= from) {
            segments.push("newcomers".to_owned());
        }
        if segments.is_empty() {
            segments.push("rest".to_owned());
        }
        segments
    }

    /// The next day's export: 2 to 6 % of the people leave, a few more come; one in eight is away on a weekend.
    fn export(&mut self, today: u32) -> Export {
        let leaving = 20_000 + lot(self.seed, today) % 40_000;
        let seed = self.seed;
        if today == 100 {
            self.new_from = Some(self.next);
        }
        let before = self.people.len();
        self.people
            .retain(|p| !falls(*p ^ seed, 90_000 + today, leaving));
        let come = before - self.people.len() + before / 400;
        self.people.extend(self.next..self.next + come as u32);
        self.next += come as u32;
        let weekend = today % 7 >= 5;
        let there = self
            .people
            .iter()
            .filter(|p| !(weekend && falls(**p, 80_000 + today, 125_000)));
        let rows = there.map(|&p| Row {
            source: if p % 3 == 0 { "buyeruid" } else { "ifa" }.to_owned(),
            id: format!("person-{p:06}"),
            segments: self.segments(p, today),
            expires: (p % 3 == 1).then(|| day(i64::from(today) + 1 + i64::from(p % 30))),
        });
        Export {
            rows: rows.collect(),
            as_of: Some(day(i64::from(today))),
            bad_rows: (lot(seed, today + 1000) % 18) as usize,
        }
    }
}

#[test]
fn two_hundred_honest_days_are_served() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut kit = Kit::start(dir.path(), CONFIG);
    let mut year = Year::new(4711);
    let mut held = Vec::new();
    for today in 0..200u32 {
        if today % 50 == 49 {
            drop(kit);
            kit = Kit::start(dir.path(), CONFIG);
        }
        let answer = kit.put(
            u64::from(today) + 1,
            &year.export(today),
            day(i64::from(today)),
        );
        if answer.version.state != State::Active {
            let failed = answer.version.checks.into_iter().filter(|c| !c.ok);
            held.push((today, failed.collect::<Vec<_>>()));
        }
    }
    assert!(held.len() <= 1, "{held:#?}");
}
