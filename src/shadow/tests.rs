//! What is put into the sample, what leaves it, and what a comparison counts.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::*;
use crate::audience::{Audience, Builder, RowFormat, VersionMeta};
use crate::campaigns::compile;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::datasets::Live;
use crate::generation::{Frame, Generation, LiveVersion, Members};
use crate::http::bid::{Answer, Bidder as _, Load};
use crate::http::bidder::{KithBidder, Shared};
use crate::ids::{Keyer, Kind, SecretKey, UserKey};
use crate::ledger::Desk;
use crate::metrics::BidThreads;
use crate::privacy::Purposes;

/// At which nothing is old yet.
const LONG_AGO: Timestamp = Timestamp::from_unix_ms(0);

fn keyer() -> Keyer {
    Keyer::new(&SecretKey::from_bytes([7; 32]))
}

fn key(person: u32) -> UserKey {
    let id = format!("person-{person}");
    keyer().user_key("buyeruid", &id).expect("an id")
}

/// A generation in which these people are vips; who wants them pays 4, who wants anybody in Canada pays 1.
fn generation(config: &Config, vips: std::ops::Range<u32>) -> Generation {
    let document = r#"{"advertisers":[{"id":"acme","domain":"acme.example"}],
        "creatives":[{"id":"box","advertiser":"acme","type":"banner","w":300,"h":250,"adm":"x"}],
        "line_items":[
            {"id":"vips","targeting":"segments one of ['crm/vip']","creatives":["box"],"price":{"cpm":"4","currency":"USD"}},
            {"id":"canadians","targeting":"country = 'CAN'","creatives":["box"],"price":{"cpm":"1","currency":"USD"}}]}"#;
    let meta = VersionMeta {
        kind: Kind::Audience,
        dataset: "crm".parse().expect("a name"),
        version: 1,
        base: None,
        as_of: None,
    };
    let mut builder = Builder::new(meta, keyer()).expect("a builder");
    let mut rows = String::from("source,id,segments\nbuyeruid,somebody,vip\n");
    for person in vips {
        writeln!(rows, "buyeruid,person-{person},vip").expect("text");
    }
    builder
        .read_rows(&RowFormat::Csv, rows.as_bytes(), &mut |_| {})
        .expect("rows");
    let mut file = Vec::new();
    builder.finish(&mut file).expect("a version");
    let live = LiveVersion {
        name: "crm".parse().expect("a name"),
        ordinal: 0,
        version: 1,
        members: Members::Exact(Arc::new(Audience::from_bytes(&file).expect("readable"))),
        purposes: Purposes::PROFILE,
        covers: 0,
    };
    let book = Arc::new(compile(document.as_bytes()).expect("a good document"));
    Generation::assemble(1, book, Some(1), vec![live], Frame::of(config, keyer()))
}

/// A bid thread that keeps every request, as each comes in a slice of its own.
struct Thread {
    config: Config,
    sample: Arc<Sample>,
    bidder: KithBidder,
    now: Instant,
    live: Live,
}

impl Thread {
    fn new(places: usize) -> Self {
        let config = Config::default();
        let sample = Arc::new(Sample::new(places, 1));
        let exchanges = Arc::new(config.exchanges.clone());
        let live = Live::new(Arc::new(generation(&config, 0..40)));
        let threads = BidThreads::new(Arc::clone(&exchanges), 4);
        let shared = Shared {
            ready: Arc::new(AtomicBool::new(true)),
            imps_max: 128,
            books: None,
        };
        let bidder = KithBidder::new(shared, live.reader(), Desk::alone(1), threads.enlist())
            .with_sampler(sample.sampler(0));
        Self {
            config,
            sample,
            bidder,
            now: Instant::now(),
            live,
        }
    }

    fn ask(&mut self, person: u32, country: &str, more: &str) -> Answer {
        let body = format!(
            r#"{{"id":"request-{person}","tmax":5000,"imp":[{{"id":"imp-{person}","banner":{{"w":300,"h":250}}}}],
            "user":{{"buyeruid":"person-{person}"}},"device":{{"ip":"198.51.100.{person}","geo":{{"country":"{country}"}}}}{more}}}"#
        );
        // Later than any slice, and no later than it was.
        self.now += Duration::from_secs(1000);
        let exchange = self.config.exchanges.get("demo").expect("the exchange");
        let mut out = Vec::new();
        self.bidder
            .bid(exchange, body.as_bytes(), self.now, self.now, &mut out)
    }

    fn keys(&self) -> Vec<UserKey> {
        let mut keys = Vec::new();
        self.sample.each(LONG_AGO, |taken| {
            keys.extend(&taken.keys);
            true
        });
        keys
    }
}

#[test]
fn requests_are_kept_without_ids() {
    let mut thread = Thread::new(100);
    for person in 0..60 {
        let want = if person < 40 {
            Answer::Bid
        } else {
            Answer::NoBid
        };
        assert_eq!(thread.ask(person, "usa", ""), want);
    }
    assert_eq!(thread.sample.held(), 60);
    assert_eq!(thread.keys(), (0..60).map(key).collect::<Vec<_>>());
    let kept = thread.sample.bytes();
    assert!(find(&kept, b"usa").is_some());
    for id in ["person-", "request-", "imp-", "198.51", "buyeruid"] {
        assert_eq!(find(&kept, id.as_bytes()), None, "{id}");
    }
    assert!(!format!("{:?}", thread.sample).contains("usa"));
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, what)
}

#[test]
fn a_closed_gate_and_a_test_are_not_kept() {
    let mut thread = Thread::new(100);
    for more in [
        r#","regs":{"coppa":1}"#,
        r#","regs":{"gpc":1}"#,
        r#","regs":{"gdpr":1}"#,
        r#","test":1"#,
    ] {
        thread.ask(1, "usa", more);
        assert_eq!(thread.sample.held(), 0, "{more}");
    }
    // A short `tmax` leaves nothing to decide.
    thread.ask(1, "usa", r#","tmax":1"#);
    assert_eq!(thread.sample.held(), 0);
    thread.ask(1, "usa", "");
    assert_eq!(thread.sample.held(), 1);
}

#[test]
fn who_is_forgotten_leaves_no_byte() {
    let mut thread = Thread::new(100);
    for person in [1, 2, 1, 3] {
        thread.ask(person, "usa", "");
    }
    let of = |person| key(person).0.to_le_bytes();
    assert!(find(&thread.sample.bytes(), &of(1)).is_some());
    assert_eq!(thread.sample.forget(&[key(1), key(9)]), 2);
    assert_eq!(thread.sample.held(), 2);
    assert_eq!(thread.keys(), [key(2), key(3)]);
    assert_eq!(find(&thread.sample.bytes(), &of(1)), None);
    assert_eq!(thread.sample.forget(&[key(2), key(3)]), 2);
    assert!(thread.sample.bytes().iter().all(|byte| *byte == 0));
    // What was freed is filled again.
    thread.ask(5, "usa", "");
    assert_eq!(thread.keys(), [key(5)]);
}

#[test]
fn what_is_old_is_not_shown_and_then_gone() {
    let mut thread = Thread::new(100);
    thread.ask(1, "usa", "");
    let shown = |thread: &Thread, now: Timestamp| {
        let mut shown = 0;
        thread.sample.each(now, |_| {
            shown += 1;
            true
        });
        shown
    };
    let mut at = LONG_AGO;
    thread.sample.each(LONG_AGO, |taken| {
        at = taken.at;
        true
    });
    let later = Timestamp::from_unix_ms(at.unix_ms + 3_600_000);
    let just_before = Timestamp::from_unix_ms(later.unix_ms - 1);
    assert_eq!(shown(&thread, just_before), 1);
    assert_eq!(shown(&thread, later), 0);
    thread.bidder.tick(Load::default());
    assert_eq!(thread.sample.held(), 1, "still young");
    let mut sampler = thread.sample.sampler(0).expect("on");
    for _ in 0..2 {
        sampler.tick(later);
    }
    assert_eq!(thread.sample.held(), 0);
    assert!(thread.sample.bytes().iter().all(|byte| *byte == 0));
}

#[test]
fn the_number_is_bounded_and_the_newest_come_in() {
    let mut thread = Thread::new(10);
    for person in 0..40 {
        thread.ask(person, "usa", "");
    }
    assert_eq!(thread.sample.held(), 10);
    let keys = thread.keys();
    assert_eq!(keys.len(), 10);
    assert!(keys.contains(&key(39)), "the last one is there");
    let first = (0..10).filter(|person| keys.contains(&key(*person)));
    assert!(first.count() < 10, "the first ones are not all there");
    let off = Sample::new(0, 4);
    assert!(!off.is_on() && off.sampler(0).is_none());
}

#[test]
fn nobody_waits_and_what_is_dropped_is_counted() {
    let mut thread = Thread::new(10);
    let sample = Arc::clone(&thread.sample);
    thread.ask(1, "usa", "");
    {
        let _held = sample.locked();
        assert_eq!(thread.ask(2, "usa", ""), Answer::Bid);
        thread.bidder.tick(Load::default());
    }
    assert_eq!((sample.held(), sample.dropped_busy()), (1, 1));
    let long = format!(r#","badv":["{}"]"#, "x".repeat(REQUEST_BYTES));
    assert_eq!(thread.ask(3, "usa", &long), Answer::Bid);
    assert_eq!((sample.held(), sample.dropped_long()), (1, 1));
    assert_eq!(thread.keys(), [key(1)]);
}

#[test]
fn a_comparison_counts_what_differs() {
    let mut thread = Thread::new(200);
    // Forty vips and forty others abroad; twenty vips and twenty others in Canada.
    for person in 0..80 {
        thread.ask(person, "usa", "");
    }
    for person in 20..60 {
        thread.ask(person, "can", "");
    }
    let live = thread.live.load();
    let now = LONG_AGO;
    let same = compare(
        &thread.sample,
        &live,
        &generation(&thread.config, 0..40),
        now,
    );
    assert_eq!(
        (same.requests, same.changed, same.live),
        (120, 0, same.candidate)
    );
    assert_eq!(same.live.bidding, 80);
    assert_eq!(same.live.spend, 40.0 * 4.0 + 20.0 * 4.0 + 20.0);
    assert!(same.line_items.is_empty() && same.reasons.is_empty() && !same.cut_short);

    // Others are vips: 30..70.
    let other = compare(
        &thread.sample,
        &live,
        &generation(&thread.config, 30..70),
        now,
    );
    assert_eq!(other.requests, 120);
    assert_eq!((other.lost, other.gained), (30, 30));
    // In Canada somebody else bids for ten, and for twenty.
    assert_eq!(other.changed, 30 + 30 + 10 + 20);
    assert_eq!((other.live.bidding, other.candidate.bidding), (80, 80));
    assert_eq!(other.candidate.spend, 40.0 * 4.0 + 30.0 * 4.0 + 10.0);
    assert_eq!(other.line_items["vips"], (60, 70));
    assert_eq!(other.line_items["canadians"], (20, 10));
    assert_eq!(other.reasons["targeting"], 30);
    // People vary, with all that they ask: thirty have two requests that change, at 4 and at 3; thirty have one.
    let Variance {
        bids,
        spend,
        bidding,
    } = other.variance;
    assert_eq!(bids, 60.0);
    assert_eq!(spend, 30.0 * 7.0 * 7.0 + 30.0 * 4.0 * 4.0);
    assert_eq!(bidding, 40.0 * 1.0 + 20.0 * 4.0);
}
