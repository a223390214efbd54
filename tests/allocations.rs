//! A decision allocates nothing once its thread is warm: counted, not claimed.
//!
//! The whole way of a request is counted, from the body's bytes to the response's: read, gate, ids, lookups, targeting
//! over 1,000 line items, auction, commit, write, metrics.

#![allow(unsafe_code, reason = "a counting allocator is one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use kith::audience::{Audience, Builder, Filter, RowFormat, VersionMeta};
use kith::campaigns::compile;
use kith::config::Config;
use kith::datasets::Live;
use kith::generation::{Frame, Generation, LiveVersion, Members};
use kith::http::bid::{Answer, Bidder as _, Load};
use kith::http::bidder::{KithBidder, Shared};
use kith::ids::{Keyer, Kind, SecretKey};
use kith::ledger::Desk;
use kith::metrics::BidThreads;
use kith::privacy::Purposes;
use kith::shadow::Sample;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to the system's allocator unchanged; counting touches a thread's own cell only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the pointer came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

const LINE_ITEMS: usize = 1_000;

fn generation(config: &Config) -> Generation {
    let keyer = Keyer::new(&SecretKey::from_bytes([7; 32]));
    let mut items = String::new();
    for n in 0..LINE_ITEMS {
        let comma = if n > 0 { "," } else { "" };
        let targeting = format!(
            "segments one of ['crm/s{}'] and country in ['USA', 'CAN'] and not (hour = 25)",
            n % 50
        );
        write!(
            items,
            r#"{comma}{{"id":"li-{n}","creatives":["box"],"targeting":"{targeting}","price":{{"cpm":"{}.5","currency":"USD"}},"deals":{}}}"#,
            n % 7 + 1,
            if n % 10 == 0 { r#"["d1"]"# } else { "[]" },
        )
        .expect("text");
    }
    let document = format!(
        r#"{{"advertisers":[{{"id":"acme","domain":"acme.example"}}],
            "creatives":[{{"id":"box","advertiser":"acme","type":"banner","w":300,"h":250,"adm":"<a href=\"${{KITH_CLICK_URL}}\">"}},
                {{"id":"spot","advertiser":"acme","type":"video","duration":15,"mimes":["video/mp4"],"protocols":[7],"adm":"<VAST></VAST>"}},
                {{"id":"feed","advertiser":"acme","type":"native","assets":[{{"title":{{"text":"Boots"}}}},{{"data":{{"type":2,"value":"Good \"boots\""}}}}],
                  "eventtrackers":[{{"event":1,"method":1,"url":"https://t.acme.example/i"}}]}}],
            "line_items":[{items},
                {{"id":"spots","creatives":["spot"],"targeting":"not test","price":{{"cpm":"9","currency":"USD"}}}},
                {{"id":"spots-deal","creatives":["spot"],"targeting":"not test","price":{{"cpm":"9","currency":"USD"}},"deals":["d9"]}},
                {{"id":"feeds","creatives":["feed"],"targeting":"not test","price":{{"cpm":"9","currency":"USD"}}}}]}}"#
    );
    let book = compile(document.as_bytes()).expect("a good document");
    let meta = VersionMeta {
        kind: Kind::Audience,
        dataset: "crm".parse().expect("a name"),
        version: 1,
        base: None,
        as_of: None,
    };
    let mut builder = Builder::new(meta, keyer.clone()).expect("a builder");
    let mut rows = String::from("source,id,segments\n");
    for n in 0..1_000 {
        writeln!(rows, "buyeruid,u{n},s{}|s{}|other", n % 50, (n + 3) % 50).expect("text");
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
    // A filter too, which the audience confirms.
    let list = VersionMeta {
        kind: Kind::Filter,
        dataset: "optout".parse().expect("a name"),
        version: 1,
        base: None,
        as_of: None,
    };
    let mut builder = Builder::new(list, keyer.clone()).expect("a builder");
    let text = RowFormat::Text {
        source: "buyeruid".to_owned(),
        segment: "list".parse().expect("a name"),
    };
    let rows: String = (0..1_000).map(|n| format!("u{n}\n")).collect();
    builder
        .read_rows(&text, rows.as_bytes(), &mut |_| {})
        .expect("rows");
    let mut file = Vec::new();
    builder.finish(&mut file).expect("a version");
    let filter = Arc::new(Filter::from_bytes(&file).expect("readable"));
    let optout = LiveVersion {
        name: "optout".parse().expect("a name"),
        ordinal: 1,
        version: 1,
        members: Members::Approximate {
            filter,
            confirm: Some("crm".parse().expect("a name")),
        },
        purposes: Purposes::PROFILE,
        covers: 0,
    };
    Generation::assemble(
        1,
        Arc::new(book),
        Some(1),
        vec![live, optout],
        Frame::of(config, keyer),
    )
}

#[test]
fn a_warm_thread_decides_without_allocating() {
    let config = Config::default();
    let exchanges = Arc::new(config.exchanges.clone());
    let live = Live::new(Arc::new(generation(&config)));
    let threads = BidThreads::new(Arc::clone(&exchanges), 4);
    let shared = Shared {
        ready: Arc::new(AtomicBool::new(true)),
        imps_max: 128,
        books: None,
    };
    let sample = Sample::new(64, 1);
    let mut bidder = KithBidder::new(shared, live.reader(), Desk::alone(1), threads.enlist())
        .with_sampler(sample.sampler(0));
    let start = Instant::now();
    let mut slices = 0;
    let exchange = exchanges.get("demo").expect("the exchange");
    let body = |user: &str, extra: &str| {
        format!(
            r#"{{"id":"r","at":1,"tmax":5000,"cur":["USD","EUR"],"bcat":["IAB25","IAB26"],"badv":["x.example","y.example"],
            "imp":[{{"id":"1","bidfloor":0.5,"banner":{{"w":300,"h":250,"format":[{{"w":300,"h":250}},{{"w":728,"h":90}}]}},
                "pmp":{{"deals":[{{"id":"d1","bidfloor":1.0}},{{"id":"d2"}}]}}}},{{"id":"2","video":{{}}}}],
            "site":{{"domain":"News.Example","page":"https:\/\/news.example\/a","cat":["IAB1"],"publisher":{{"id":"p"}}}},
            "device":{{"ua":"Mozilla/5.0","ifa":"AB-CD","os":"iOS","geo":{{"country":"usa"}}}},
            "user":{{"id":"x{user}","buyeruid":"{user}","eids":[{{"source":"Uidapi.com","uids":[{{"id":"e{user}"}}]}}]}}{extra}}}"#
        )
    };
    let formats = r#"{"id":"r","tmax":5000,"imp":[
        {"id":"1","exp":60,"qty":{"multiplier":2.5},"video":{"mimes":["video\/mp4"],"protocols":[2,7],"podid":"p","poddur":30,"maxseq":2,
            "durfloors":[{"mindur":1,"maxdur":20,"bidfloor":1}],"api":[7]},"pmp":{"deals":[{"id":"d9","mincpmpersec":0.1}]}},
        {"id":"2","video":{"mimes":["video/mp4"],"podid":"p","poddur":30}},
        {"id":"3","banner":{"format":[{"wratio":6,"hratio":5,"wmin":100}],"mimes":["text/html"]},"audio":{"mimes":["audio/mpeg"]}},
        {"id":"4","native":{"ver":"1.2","request":"{\"native\":{\"assets\":[{\"id\":1,\"required\":1,\"title\":{\"len\":25}},{\"id\":2,\"data\":{\"type\":2}}]}}"}},
        {"id":"5","native":{"request":"?"}}]}"#;
    let cases = [
        ("a bid", body("u7", ""), Answer::Bid),
        ("bids of every format", formats.to_owned(), Answer::Bid),
        ("nobody known", body("nobody", ""), Answer::NoBid),
        (
            "a closed gate",
            body("u7", r#","regs":{"coppa":1}"#),
            Answer::NoBid,
        ),
        ("no bid request", "{\"id\":".to_owned(), Answer::Malformed),
    ];
    let mut out = Vec::with_capacity(16 << 10);
    for (what, body, want) in &cases {
        let mut ask = || {
            out.clear();
            // Later than any slice of the sample: each request that may be is kept.
            slices += 1;
            let now = start + Duration::from_secs(1000) * slices;
            let answer = bidder.bid(exchange, body.as_bytes(), now, now, &mut out);
            assert_eq!(answer, *want, "{what}");
            if what.contains("every format") {
                let has =
                    |member: &str| out.windows(member.len()).any(|at| at == member.as_bytes());
                assert!(has("\"mtype\":2") && has("\"mtype\":4") && has("\"dealid\":\"d9\""));
            }
            bidder.tick(Load::default());
        };
        for _ in 0..8 {
            ask();
        }
        let counted = allocations(|| (0..100).for_each(|_| ask()));
        assert_eq!(counted, 0, "{what}: allocations in 100 decisions");
    }
    assert_eq!((sample.held(), sample.dropped_long()), (64, 0));
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 9]))), 1);
}
