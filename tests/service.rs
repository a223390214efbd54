//! The whole service over real sockets: the life of versions as a bidder sees it, `kill -9`, swaps under load, hostile bodies.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test may wait, and says what it leaves out"
)]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kith::config::Config;
use kith::service::Service;
use serde_json::{Value, json};

/// A keep-alive HTTP/1.1 connection, just enough of one.
struct Client {
    stream: BufReader<TcpStream>,
}

struct Reply {
    status: u16,
    body: Vec<u8>,
    closes: bool,
}

impl Client {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self {
            stream: BufReader::new(stream),
        }
    }

    fn ask(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: kith\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        let stream = self.stream.get_mut();
        stream
            .write_all(&[head.as_bytes(), body].concat())
            .expect("sent");
        let mut reply = Reply {
            status: 0,
            body: Vec::new(),
            closes: false,
        };
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert_ne!(
                self.stream.read_line(&mut line).expect("a head"),
                0,
                "the connection was dropped"
            );
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(status) = line.strip_prefix("http/1.1 ") {
                reply.status = status
                    .get(..3)
                    .and_then(|code| code.parse().ok())
                    .expect("a status");
            } else if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            } else if line == "connection: close" {
                reply.closes = true;
            } else if line.is_empty() {
                break;
            }
        }
        reply.body.resize(length, 0);
        self.stream.read_exact(&mut reply.body).expect("a body");
        reply
    }

    fn json(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, Value) {
        let reply = self.ask(method, path, &format!("content-type: {kind}\r\n"), body);
        (
            reply.status,
            serde_json::from_slice(&reply.body).unwrap_or(Value::Null),
        )
    }

    fn upload(&mut self, dataset: &str, version: u64, kind: &str, body: &[u8]) -> Value {
        let (status, report) = self.json(
            "PUT",
            &format!("/v1/datasets/{dataset}/versions/{version}"),
            kind,
            body,
        );
        assert_eq!(status, 201, "{report:#}");
        assert_eq!(report["state"], "active", "{report:#}");
        report
    }

    fn activate(&mut self, dataset: &str, version: u64) {
        let body = json!({"version": version}).to_string();
        let (status, answer) = self.json(
            "POST",
            &format!("/v1/datasets/{dataset}/activate"),
            "application/json",
            body.as_bytes(),
        );
        assert_eq!(status, 200, "{answer:#}");
    }

    fn ready(&mut self) -> bool {
        self.ask("GET", "/readyz", "", b"").status == 200
    }

    /// The only bid's price in a bid response, or nothing for 204.
    fn price(&mut self, user: &str) -> Option<f64> {
        let reply = self.ask("POST", "/bid/demo", "", request(user).as_bytes());
        match reply.status {
            204 => None,
            200 => {
                let response: Value = serde_json::from_slice(&reply.body).expect("JSON");
                let bids = response["seatbid"][0]["bid"].as_array().expect("bids");
                assert_eq!(bids.len(), 1, "{response:#}");
                bids[0]["price"].as_f64()
            }
            other => panic!("a bid request was answered {other}"),
        }
    }
}

fn request(user: &str) -> String {
    json!({
        "id": format!("r-{user}"), "at": 1, "tmax": 5000,
        "imp": [{"id": "1", "banner": {"w": 300, "h": 250}, "bidfloor": 0.01}],
        "site": {"domain": "news.example"}, "device": {"geo": {"country": "USA"}}, "user": {"buyeruid": user}})
    .to_string()
}

fn campaigns(line_items: &[(&str, &str, &str)]) -> Vec<u8> {
    let items: Vec<Value> = line_items
        .iter()
        .map(|(id, targeting, cpm)| {
            json!({"id": id, "creatives": ["cr"], "targeting": targeting, "price": {"cpm": cpm, "currency": "USD"}, "seat": "seat-1"})
        })
        .collect();
    json!({
        "advertisers": [{"id": "acme", "domain": "acme.example"}],
        "creatives": [{"id": "cr", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "<a>", "secure": true}],
        "line_items": items})
    .to_string()
    .into_bytes()
}

fn rows(count: usize, segment: &str, but: &str) -> Vec<u8> {
    let mut rows = String::from("source,id,segments\n");
    for n in 0..count {
        if format!("u{n}") != but {
            writeln!(rows, "buyeruid,u{n},{segment}").expect("text");
        }
    }
    rows.into_bytes()
}

/// However busy the machine is, nothing is shed, and whatever versions hold, none is held: these are about what is decided.
fn start(dir: &Path) -> Service {
    let toml = format!(
        "[bid]\nlisten = \"127.0.0.1:0\"\nthreads = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n[data]\ndir = {:?}\n\
         [guards]\nenabled = false\n[limits]\nqueue_target_ms = 20000\n[exchanges.demo]\ndefault_tmax_ms = 60000\n",
        dir.display().to_string()
    );
    let service = Service::start(Config::from_toml(&toml, "test").expect("a configuration"))
        .expect("a service");
    let mut admin = Client::to(service.admin_addr());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !admin.ready() {
        assert!(Instant::now() < deadline, "never ready");
        thread::sleep(Duration::from_millis(5));
    }
    service
}

#[test]
fn a_version_lives_its_whole_life_as_a_bidder_sees_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let service = start(dir.path());
    let mut admin = Client::to(service.admin_addr());
    let mut exchange = Client::to(service.bid_addr());
    assert_eq!(
        exchange.price("u7"),
        None,
        "a fresh service bids on nothing"
    );
    admin.upload(
        "campaigns",
        1,
        "application/json",
        &campaigns(&[("vip", "segments one of ['crm/vip']", "4.20")]),
    );
    let report = admin.upload("crm", 1, "text/csv", &rows(20_000, "vip", ""));
    assert_eq!(
        (&report["ids"], &report["rows"]),
        (&json!(20_000), &json!(20_000))
    );

    let reply = exchange.ask("POST", "/bid/demo", "", request("u7").as_bytes());
    let response: Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!(response["id"], "r-u7");
    assert_eq!(response["seatbid"][0]["seat"], "seat-1");
    let bid = &response["seatbid"][0]["bid"][0];
    assert_eq!(
        (&bid["price"], &bid["crid"], &bid["adomain"]),
        (&json!(4.2), &json!("cr"), &json!(["acme.example"]))
    );

    assert_eq!(exchange.price("stranger"), None);
    admin.upload("crm", 2, "text/csv", &rows(20_000, "vip", "u7"));
    assert_eq!(exchange.price("u7"), None, "version 2 is without this id");
    assert_eq!(exchange.price("u8"), Some(4.2));
    admin.activate("crm", 1);
    assert_eq!(exchange.price("u7"), Some(4.2), "rolled back");

    let metrics = admin.ask("GET", "/metrics", "", b"");
    let metrics = String::from_utf8(metrics.body).expect("text");
    for line in [
        "kith_dataset_version{dataset=\"crm\"} 1",
        "kith_bids_total{exchange=\"demo\"} 3",
        "kith_no_bids_total{exchange=\"demo\",reason=\"targeting\"} 2",
        "kith_bid_requests_total{exchange=\"demo\",outcome=\"bid\"} 3",
        "kith_overlay_entries 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains("u7"));
    lint_metrics(&metrics);
    service.drain();
    // The same answers from the directory alone.
    let service = start(dir.path());
    assert_eq!(Client::to(service.bid_addr()).price("u7"), Some(4.2));
    service.drain();
}

/// `promtool check metrics` finds nothing to say. `scripts/test` puts promtool on the path.
fn lint_metrics(metrics: &str) {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI has promtool: scripts/test fetches it"
        );
        eprintln!("left out: promtool is not here");
        return;
    };
    child
        .stdin
        .take()
        .expect("its input")
        .write_all(metrics.as_bytes())
        .expect("written");
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

/// What the public test suites hold, answered by the listener as the explanation says: same bids, same prices, same 400s.
#[test]
fn the_corpus_is_answered_as_it_is_explained() {
    let corpus = std::env::var_os("KITH_CORPUS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"),
        PathBuf::from,
    );
    let lines = |file: &str| std::fs::read_to_string(corpus.join(file)).unwrap_or_default();
    let mut requests: Vec<String> = ["requests.jsonl", "requests_nonconforming.jsonl"]
        .iter()
        .flat_map(|file| lines(file).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    for case in lines("validation_cases.jsonl").lines() {
        let case: Value = serde_json::from_str(case).expect("JSON");
        requests.push(case["request"].to_string());
    }
    if requests.is_empty() {
        eprintln!("left out: the corpus is not here");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let service = start(dir.path());
    let mut admin = Client::to(service.admin_addr());
    let mut exchange = Client::to(service.bid_addr());
    let fixture = |file: &str| std::fs::read(Path::new("fixtures").join(file)).expect("a fixture");
    admin.upload("crm", 1, "text/csv", &fixture("crm.csv"));
    admin.upload("site", 1, "application/x-ndjson", &fixture("site.ndjson"));
    admin.upload(
        "campaigns",
        1,
        "application/json",
        &fixture("campaigns.json"),
    );
    let mut bids = 0;
    for request in &requests {
        let answer = exchange.ask(
            "POST",
            "/bid/demo",
            "content-type: application/json\r\n",
            request.as_bytes(),
        );
        let (status, told) = admin.json(
            "POST",
            "/v1/explain/demo",
            "application/json",
            request.as_bytes(),
        );
        match answer.status {
            400 => assert_eq!(status, 400, "{request}"),
            204 => assert_eq!(told["decision"], "no_bid", "{told:#} {request}"),
            200 => {
                let response: Value = serde_json::from_slice(&answer.body).expect("JSON");
                let shown = |response: &Value| -> Vec<Value> {
                    let seats = response["seatbid"].as_array().cloned().unwrap_or_default();
                    let bids = seats
                        .iter()
                        .flat_map(|seat| seat["bid"].as_array().cloned().unwrap_or_default());
                    bids.map(|mut bid| {
                        let own = bid.as_object_mut().expect("a bid");
                        own.retain(|key, _| {
                            !["id", "nurl", "burl", "lurl"].contains(&key.as_str())
                        });
                        // A click's URL is the bid's own, too.
                        let adm = bid["adm"].as_str().unwrap_or_default();
                        if let Some((before, after)) = adm.split_once("/c/") {
                            let at = before.rfind("http").expect("a URL");
                            let rest = after.trim_start_matches(|c: char| {
                                c.is_ascii_alphanumeric() || "-_".contains(c)
                            });
                            let adm = format!("{}${{KITH_CLICK_URL}}{rest}", &adm[..at]);
                            bid["adm"] = adm.into();
                        }
                        bid
                    })
                    .collect()
                };
                assert_eq!(shown(&response), shown(&told["response"]), "{request}");
                bids += shown(&response).len();
            }
            other => panic!("answered {other}: {request}"),
        }
        assert!(!answer.closes, "{request}");
    }
    assert!(bids > 100, "the fixtures bid on next to nothing");
    service.drain();
}

/// Legal requests that are as large as they may be cost a bounded multiple of a normal one, whatever list is long.
#[test]
fn no_list_of_a_request_buys_much_of_our_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let service = start(dir.path());
    let mut admin = Client::to(service.admin_addr());
    let items: Vec<String> = (0..200).map(|n| format!("li-{n:03}")).collect();
    let mut document: Value = serde_json::from_slice(&campaigns(&[])).expect("JSON");
    document["advertisers"][0]["categories"] = json!(["IAB3-1"]);
    document["creatives"][0]["language"] = json!("en");
    document["line_items"] = items
        .iter()
        .map(|id| {
            let deals: Vec<String> = (0..20).map(|deal| format!("{id}-deal-{deal}")).collect();
            let deals = if id.ends_with('7') { deals } else { vec![] };
            json!({"id": id, "creatives": ["cr"], "targeting": "country in ['USA']", "price": {"cpm": "1", "currency": "USD"}, "deals": deals})
        })
        .collect();
    admin.upload(
        "campaigns",
        1,
        "application/json",
        document.to_string().as_bytes(),
    );
    let texts =
        |count: usize, of: &dyn Fn(usize) -> String| -> Value { (0..count).map(of).collect() };
    let many = 40_000;
    let long = [
        (
            "badv",
            json!({"badv": texts(many, &|n| format!("b{n}.example"))}),
        ),
        (
            "bcat",
            json!({"bcat": texts(many, &|n| format!("IAB9-{n}"))}),
        ),
        ("wlang", json!({"wlang": texts(many, &|n| format!("x{n}"))})),
        ("wseat", json!({"wseat": texts(many, &|n| format!("s{n}"))})),
        ("cur", json!({"cur": texts(many, &|n| format!("{n}"))})),
        (
            "eids",
            json!({"user": {"eids": [{"source": "a.com", "uids": (0..many / 2).map(|n| json!({"id": format!("u{n}")})).collect::<Vec<_>>()}]}}),
        ),
    ];
    let mut exchange = Client::to(service.bid_addr());
    let mut ask = |fields: &Value, imps: usize, deals: usize| -> Duration {
        let deals: Vec<Value> = (0..deals).map(|n| json!({"id": format!("d{n}")})).collect();
        let imps: Vec<Value> = (0..imps)
            .map(|n| json!({"id": n.to_string(), "banner": {"w": 300, "h": 250}, "pmp": {"deals": deals}}))
            .collect();
        let mut request =
            json!({"id": "r", "tmax": 5000, "imp": imps, "device": {"geo": {"country": "USA"}}});
        for (key, value) in fields.as_object().expect("an object") {
            request[key] = value.clone();
        }
        let body = request.to_string();
        assert!(body.len() < 1 << 20, "{} bytes", body.len());
        let begun = Instant::now();
        let reply = exchange.ask("POST", "/bid/demo", "", body.as_bytes());
        assert!(matches!(reply.status, 200 | 204), "{}", reply.status);
        begun.elapsed()
    };
    // A machine that is busy with other tests is slow at anything: the plain request of as many imps is the measure, and
    // reading a megabyte unoptimised takes a while. Comparing every pair would take minutes.
    let imps = 128;
    let plain = (0..3)
        .map(|_| ask(&json!({}), imps, 0))
        .max()
        .expect("three");
    let bound = plain * 20 + Duration::from_secs(2);
    for (what, fields) in &long {
        let took = ask(fields, imps, 0);
        assert!(took < bound, "{what}: {took:?}, a plain one {plain:?}");
    }
    let took = ask(&json!({}), 16, 2_000);
    assert!(took < bound, "deals: {took:?}, a plain one {plain:?}");
    service.drain();
}

/// A `kith serve` of its own, to be killed.
struct Process {
    child: Child,
    bid: SocketAddr,
    admin: SocketAddr,
}

impl Process {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kith"))
            .arg("serve")
            .envs([
                ("KITH__BID__LISTEN", "127.0.0.1:0"),
                ("KITH__ADMIN__LISTEN", "127.0.0.1:0"),
            ])
            .env("KITH__DATA__DIR", dir)
            .stderr(Stdio::piped())
            .spawn()
            .expect("kith runs");
        let mut lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let address = |line: &str, name: &str| -> Option<SocketAddr> {
            let (_, rest) = line.split_once(&format!("{name}="))?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let (bid, admin) = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some((address(&line, " bid")?, address(&line, " admin")?)))
            .expect("kith says where it listens");
        // Keep the pipe from filling up.
        thread::spawn(move || lines.for_each(drop));
        Self { child, bid, admin }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn after_a_kill_the_same_versions_are_live_before_it_says_ready() {
    let dir = tempfile::tempdir().expect("a folder");
    let process = Process::start(dir.path());
    let mut admin = Client::to(process.admin);
    while !admin.ready() {
        thread::sleep(Duration::from_millis(5));
    }
    admin.upload(
        "campaigns",
        1,
        "application/json",
        &campaigns(&[("vip", "segments one of ['crm/vip']", "4.20")]),
    );
    admin.upload("crm", 1, "text/csv", &rows(20_000, "vip", ""));
    admin.upload("crm", 2, "text/csv", &rows(20_000, "vip", "u7"));
    admin.activate("crm", 1);
    drop(process);
    let process = Process::start(dir.path());
    let (mut admin, mut exchange) = (Client::to(process.admin), Client::to(process.bid));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let ready = admin.ready();
        let price = exchange.price("u7");
        if ready {
            assert_eq!(
                price,
                Some(4.2),
                "ready, and yet the live version is not live"
            );
            break;
        }
        assert!(Instant::now() < deadline, "never ready");
    }
    let (_, dataset) = admin.json("GET", "/v1/datasets/crm", "", b"");
    assert_eq!(dataset["live"], 1, "{dataset:#}");
}

#[test]
fn swaps_under_load_fail_nothing_and_mix_nothing() {
    const SWAPS: u64 = 20;
    let dir = tempfile::tempdir().expect("a folder");
    let service = start(dir.path());
    let mut admin = Client::to(service.admin_addr());
    let items = [
        ("a", "segments one of ['crm/a']", "1"),
        ("b", "segments one of ['crm/b']", "2"),
    ];
    admin.upload("campaigns", 1, "application/json", &campaigns(&items));
    let (even, odd) = (rows(30_000, "b", ""), rows(30_000, "a", ""));
    admin.upload("crm", 1, "text/csv", &odd);
    // The versions that a request may have met: from the last one acknowledged before it was sent, to the last one
    // begun before its answer came.
    let (acknowledged, begun) = (AtomicU64::new(1), AtomicU64::new(1));
    let over = AtomicBool::new(false);
    let asked = AtomicU64::new(0);
    let mut memory = Vec::new();
    thread::scope(|scope| {
        for client in 0..2 {
            let (acknowledged, begun, over, asked) = (&acknowledged, &begun, &over, &asked);
            let mut exchange = Client::to(service.bid_addr());
            scope.spawn(move || {
                let deadline = Instant::now() + Duration::from_secs(60);
                for n in 0u64.. {
                    if over.load(Ordering::SeqCst) || Instant::now() > deadline {
                        break;
                    }
                    let before = acknowledged.load(Ordering::SeqCst);
                    let price = exchange.price(&format!("u{}", (n * 7 + client) % 30_000));
                    let after = begun.load(Ordering::SeqCst);
                    let possible = (before..=after)
                        .any(|version| price == Some(if version % 2 == 0 { 2.0 } else { 1.0 }));
                    assert!(
                        possible,
                        "price {price:?} between versions {before} and {after}"
                    );
                    asked.fetch_add(1, Ordering::SeqCst);
                    // Bids go before uploads: without a pause two of us would leave an upload a tenth of the machine.
                    thread::sleep(Duration::from_micros(500));
                }
            });
        }
        for version in 2..=1 + SWAPS {
            begun.store(version, Ordering::SeqCst);
            admin.upload(
                "crm",
                version,
                "text/csv",
                if version % 2 == 0 { &even } else { &odd },
            );
            acknowledged.store(version, Ordering::SeqCst);
            memory.push(anonymous_kib());
            thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(asked.load(Ordering::SeqCst) > 100, "there was no load");
    // The first swaps warm the allocator up; after that memory stays where it is.
    let (early, late) = memory.split_at(memory.len() / 2);
    let most = |half: &[u64]| half.iter().copied().max().unwrap_or(0);
    assert!(
        most(late) < most(early) + 16 * 1024,
        "anonymous memory grew: {memory:?} KiB"
    );
    service.drain();
}

fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .expect("RssAnon");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}

#[test]
fn hostile_bodies_get_their_status_and_keep_their_connection() {
    let dir = tempfile::tempdir().expect("a folder");
    let service = start(dir.path());
    let mut admin = Client::to(service.admin_addr());
    admin.upload(
        "campaigns",
        1,
        "application/json",
        &campaigns(&[("all", "country in ['USA']", "1")]),
    );
    let good = request("u1");
    let changed = |from: &str, to: &str| good.replace(from, to).into_bytes();
    let nested = |closed: &str| {
        format!(
            r#"{{"id":"r","imp":[{{"id":"1"}}],"ext":{}{closed}"#,
            "[".repeat(100_000)
        )
        .into_bytes()
    };
    let mut twice = good.clone();
    twice.insert_str(good.len() - 1, r#","regs":{"coppa":1},"regs":{"coppa":0}"#);
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("good", good.clone().into_bytes(), 200),
        ("empty", vec![], 400),
        ("array", b"[]".to_vec(), 400),
        ("null", b"null".to_vec(), 400),
        ("truncated", good.as_bytes()[..good.len() - 3].to_vec(), 400),
        ("trailing", format!("{good}x").into_bytes(), 400),
        ("100,000 arrays", nested(""), 400),
        (
            "100,000 arrays, closed",
            nested(&format!("{}}}", "]".repeat(100_000))),
            400,
        ),
        ("1e999 as a floor", changed("0.01", "1e999"), 204),
        ("a negative floor", changed("0.01", "-1"), 204),
        ("two regs", twice.into_bytes(), 200),
        (
            "byte order mark",
            [b"\xef\xbb\xbf", good.as_bytes()].concat(),
            200,
        ),
        (
            "gzip without the header",
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec(),
            400,
        ),
        (
            "invalid UTF-8 outside a string",
            b"{\"id\":\xff}".to_vec(),
            400,
        ),
        ("no id", changed("\"id\":\"r-u1\",", ""), 400),
        ("no imp", br#"{"id":"r","imp":[]}"#.to_vec(), 400),
    ];
    let mut exchange = Client::to(service.bid_addr());
    for (what, body, want) in cases {
        let reply = exchange.ask(
            "POST",
            "/bid/demo",
            "content-type: application/json\r\n",
            &body,
        );
        assert_eq!(reply.status, want, "{what}");
        assert!(
            want == 200 || reply.body.is_empty(),
            "{what}: a body with {want}"
        );
        assert!(!reply.closes, "{what}: the connection closes");
    }
    // An unreadable id is an absent id; the rest of the request stands.
    let body: Vec<u8> = good
        .replace("\"u1\"", "\"\u{1}\"")
        .bytes()
        .map(|b| if b == 1 { 0xff } else { b })
        .collect();
    assert_eq!(
        exchange.ask("POST", "/bid/demo", "", &body).status,
        200,
        "invalid UTF-8 in an id"
    );
    for (method, path, want) in [
        ("GET", "/bid/demo", 405),
        ("PUT", "/bid/demo", 405),
        ("POST", "/bid/nobody", 404),
        ("POST", "/v1/datasets", 404),
    ] {
        assert_eq!(
            exchange.ask(method, path, "", good.as_bytes()).status,
            want,
            "{method} {path}"
        );
    }
    assert_eq!(
        exchange.price("u1"),
        Some(1.0),
        "and then it bids as before"
    );
    service.drain();
}
