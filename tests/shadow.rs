//! Shadow validation over real sockets: requests flow, versions come, and what they would change decides.

#![allow(clippy::disallowed_methods, reason = "a test may wait")]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use kith::config::Config;
use kith::service::Service;
use serde_json::{Value, json};

/// A keep-alive connection, just enough of one.
struct Client(BufReader<TcpStream>);

impl Client {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        let patience = Some(Duration::from_secs(120));
        stream.set_read_timeout(patience).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: kith\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        let message = head + body;
        self.0
            .get_mut()
            .write_all(message.as_bytes())
            .expect("sent");
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).expect("a head"), 0, "dropped");
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(code) = line.strip_prefix("http/1.1 ") {
                status = code[..3].parse().expect("a status");
            } else if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a body");
        (status, String::from_utf8(body).expect("text"))
    }
}

const CONFIG: &str = r#"
[bid]
listen = "127.0.0.1:0"
threads = 2
[admin]
listen = "127.0.0.1:0"
"#;

struct Kith {
    service: Service,
    bids: Client,
    admin: Client,
}

impl Kith {
    fn start(dir: &Path, more: &str) -> Kith {
        let data = dir.display();
        let text = format!("{CONFIG}[data]\ndir = \"{data}\"\nkey_file = \"{data}/key\"\n{more}");
        let config = Config::from_toml(&text, "test").expect("a good configuration");
        let service = Service::start(config).expect("started");
        let mut kith = Kith {
            bids: Client::to(service.bid_addr()),
            admin: Client::to(service.admin_addr()),
            service,
        };
        let patience = Instant::now() + Duration::from_secs(60);
        while kith.admin.ask("GET", "/readyz", "", "").0 != 200 {
            assert!(Instant::now() < patience, "not ready");
            std::thread::sleep(Duration::from_millis(10));
        }
        kith
    }

    fn stop(self) {
        drop((self.bids, self.admin));
        self.service.drain();
    }

    fn put(&mut self, dataset: &str, version: u64, kind: &str, body: &str) -> Value {
        self.put_with(dataset, &version.to_string(), kind, body)
    }

    /// `version` may have a query.
    fn put_with(&mut self, dataset: &str, version: &str, kind: &str, body: &str) -> Value {
        let path = format!("/v1/datasets/{dataset}/versions/{version}");
        let (status, answer) =
            self.admin
                .ask("PUT", &path, &format!("content-type: {kind}\r\n"), body);
        assert_eq!(status, 201, "{answer}");
        serde_json::from_str(&answer).expect("JSON")
    }

    fn metric(&mut self, name: &str) -> f64 {
        let (_, metrics) = self.admin.ask("GET", "/metrics", "", "");
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no series {name}"));
        value.parse().expect("a number")
    }

    /// The lines of what bids count, but for times.
    fn counts(&mut self) -> Vec<String> {
        let (_, metrics) = self.admin.ask("GET", "/metrics", "", "");
        let counted = ["kith_bid", "kith_no_bid", "kith_lookups", "kith_privacy"];
        let is_counted = |line: &&str| {
            counted.iter().any(|name| line.starts_with(name)) && line.contains("_total")
        };
        let lines = metrics.lines().filter(is_counted);
        lines
            .filter(|line| !line.contains("seconds"))
            .map(str::to_owned)
            .collect()
    }

    /// Whether the person's request gets a bid.
    fn bid(&mut self, person: u32, more: &Value) -> bool {
        let mut request = json!({"id": format!("r-{person}"), "tmax": 5000,
            "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}],
            "user": {"buyeruid": format!("person-{person:05}")}, "device": {"geo": {"country": "USA"}}});
        for (key, value) in more.as_object().into_iter().flatten() {
            request[key] = value.clone();
        }
        let body = request.to_string();
        let headers = "content-type: application/json\r\n";
        let (status, answer) = self.bids.ask("POST", "/bid/demo", headers, &body);
        assert!(status == 200 || status == 204, "{status} {answer}");
        status == 200
    }

    /// Traffic of people 0 to 400, until so many requests are kept.
    fn traffic(&mut self, wanted: f64) {
        let patience = Instant::now() + Duration::from_secs(60);
        while self.metric("kith_shadow_requests") < wanted {
            assert!(Instant::now() < patience, "too few are kept");
            for person in 0..400 {
                self.bid(person, &Value::Null);
            }
        }
    }
}

/// Three thousand people, all in `all`, a third in `other`, and these in `vip`.
fn people(vips: Range<u32>) -> String {
    let mut rows = "source,id,segments\n".to_owned();
    for person in 0..3_000 {
        let other = if person % 3 == 0 { "|other" } else { "" };
        let vip = if vips.contains(&person) { "|vip" } else { "" };
        writeln!(rows, "buyeruid,person-{person:05},all{other}{vip}").expect("text");
    }
    rows
}

fn campaigns(cpm: &str) -> String {
    json!({
        "advertisers": [{"id": "acme", "domain": "acme.example"}],
        "creatives": [{"id": "box", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "x"}],
        "line_items": [{"id": "acme-vip", "targeting": "segments one of ['crm/vip']", "creatives": ["box"],
            "price": {"cpm": cpm, "currency": "USD"}}],
    })
    .to_string()
}

fn check<'a>(report: &'a Value, name: &str) -> (bool, &'a str) {
    let checks = report["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("no check {name}: {report:#}"));
    let detail = check["detail"].as_str().expect("a text");
    (check["ok"].as_bool().expect("a flag"), detail)
}

fn failed(report: &Value) -> Vec<&str> {
    let checks = report["checks"].as_array().expect("checks");
    let failed = checks.iter().filter(|check| check["ok"] == false);
    failed.filter_map(|check| check["name"].as_str()).collect()
}

const CSV: &str = "text/csv";
const JSON: &str = "application/json";

#[test]
fn what_would_take_away_most_bids_is_held() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut kith = Kith::start(dir.path(), "");
    kith.put("campaigns", 1, JSON, &campaigns("4"));
    let first = kith.put("crm", 1, CSV, &people(0..300));
    let (ok, detail) = check(&first, "shadow");
    assert!(
        ok && detail.starts_with("no recent request is kept"),
        "{detail}"
    );

    // Closed gates and tests leave nothing behind.
    for closed in [
        json!({"regs": {"coppa": 1}}),
        json!({"regs": {"us_privacy": "1YYN"}}),
        json!({"test": 1}),
    ] {
        for person in 0..20 {
            kith.bid(person, &closed);
        }
    }
    assert_eq!(kith.metric("kith_shadow_requests"), 0.0);

    // Few requests decide nothing: this would be held otherwise.
    kith.bid(1, &Value::Null);
    let early = kith.put("crm", 2, CSV, &people(301..601));
    let (ok, detail) = check(&early, "shadow");
    assert!(ok && detail.contains("decide nothing"), "{detail}");
    kith.put("crm", 3, CSV, &people(0..300));

    kith.traffic(400.0);
    let counts = kith.counts();
    assert!(!counts.is_empty());

    // An honest day: some come, some go.
    let honest = kith.put("crm", 4, CSV, &people(30..330));
    assert_eq!(honest["state"], "active", "{honest:#}");
    let (ok, detail) = check(&honest, "shadow");
    assert!(ok && detail.contains("answered differently"), "{detail}");

    // As many people, as many vips, as many memberships: but not those who come by.
    let poison = kith.put("crm", 5, CSV, &people(2_000..2_300));
    assert_eq!(poison["state"], "held", "{poison:#}");
    assert_eq!(failed(&poison), ["shadow"]);
    let (_, detail) = check(&poison, "shadow");
    for part in [
        "fewer requests get a bid (at most 50.0 %)",
        "spend -100.0 %",
        "`acme-vip`",
        "bids fewer",
        "would get none for `targeting`",
        "with force",
    ] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    assert!(kith.bid(200, &Value::Null), "the live version stays live");

    // What was only tried counted nowhere but where that last bid did.
    let differ = kith.counts();
    let changed = counts.iter().zip(&differ).filter(|(was, is)| was != is);
    let changed: Vec<_> = changed.map(|(was, is)| format!("{was} -> {is}")).collect();
    assert_eq!(counts.len(), differ.len());
    let of_one = |line: &String| {
        let (was, is) = line.split_once(" -> ").expect("two");
        let value = |text: &str| text.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok());
        value(is)
            .zip(value(was))
            .is_some_and(|(is, was)| is - was == 1.0)
    };
    assert!(changed.iter().all(of_one), "{changed:#?}");

    // A document of campaigns is told of, and never held.
    let document = kith.put("campaigns", 2, JSON, &campaigns("1"));
    let (ok, detail) = check(&document, "shadow");
    assert!(ok && detail.contains("spend -75.0 %"), "{detail}");
    assert_eq!(document["state"], "active");
}

#[test]
fn one_person_who_asks_a_thousand_times_holds_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut kith = Kith::start(dir.path(), "");
    kith.put("campaigns", 1, JSON, &campaigns("4"));
    kith.put("crm", 1, CSV, &people(0..300));
    let patience = Instant::now() + Duration::from_secs(60);
    while kith.metric("kith_shadow_requests") < 150.0 {
        assert!(Instant::now() < patience, "too few are kept");
        for _ in 0..400 {
            assert!(kith.bid(7, &Value::Null));
        }
    }
    // Twelve are no longer vips, she among them.
    let then = kith.put("crm", 2, CSV, &people(12..312));
    let (ok, told) = check(&then, "shadow");
    assert!(ok && told.contains("100.0 % to 0 %"), "{told}");
    assert_eq!(then["state"], "active", "{then}");
    kith.stop();
}

#[test]
fn a_service_that_has_just_started_knows_nothing_and_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut kith = Kith::start(dir.path(), "");
    kith.put("campaigns", 1, JSON, &campaigns("4"));
    kith.put("crm", 1, CSV, &people(0..300));
    kith.traffic(150.0);
    kith.stop();
    let mut kith = Kith::start(dir.path(), "");
    assert_eq!(kith.metric("kith_shadow_requests"), 0.0);
    let next = kith.put("crm", 2, CSV, &people(2_000..2_300));
    let (ok, detail) = check(&next, "shadow");
    assert!(
        ok && detail.starts_with("no recent request is kept"),
        "{detail}"
    );
    assert_eq!(next["state"], "active");
}

#[test]
fn a_dataset_has_its_own_limits_and_all_of_it_can_be_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let own =
        "[datasets.crm.guards]\nmax_bids_lost = 1\nmax_spend_lost = 1\nmax_bids_changed = 1\n";
    let mut kith = Kith::start(dir.path(), own);
    kith.put("campaigns", 1, JSON, &campaigns("4"));
    kith.put("crm", 1, CSV, &people(0..300));
    kith.traffic(150.0);
    let all = kith.put("crm", 2, CSV, &people(2_000..2_300));
    assert_eq!(all["state"], "active", "{all:#}");
    assert!(check(&all, "shadow").1.contains("spend -100.0 %"));
    kith.stop();

    let mut kith = Kith::start(dir.path(), "[shadow]\nrequests = 0\n");
    for person in 0..50 {
        kith.bid(person, &Value::Null);
    }
    assert_eq!(kith.metric("kith_shadow_requests"), 0.0);
    assert_eq!(
        kith.metric("kith_shadow_dropped_total{reason=\"busy\"}"),
        0.0
    );
    let off = kith.put("crm", 3, CSV, &people(0..300));
    assert!(check(&off, "shadow").1.contains("[shadow] requests is 0"));
}

#[test]
fn deltas_and_filters_are_tried_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut kith = Kith::start(dir.path(), "");
    let wanted = "segments one of ['crm/vip'] and not segments one of ['optout/list']";
    let document = campaigns("4").replace("segments one of ['crm/vip']", wanted);
    kith.put("campaigns", 1, JSON, &document);
    kith.put("crm", 1, CSV, &people(0..300));
    let list = |people: Range<u32>| -> String {
        people
            .map(|person| format!("person-{person:05}\n"))
            .collect()
    };
    let query = "kind=filter&source=buyeruid&segment=list";
    let first = kith.put_with(
        "optout",
        &format!("1?{query}"),
        "text/plain",
        &list(400..3_000),
    );
    assert_eq!(first["state"], "active", "{first:#}");
    kith.traffic(200.0);

    // A tenth more people opted out: just those who come by.
    let all = kith.put_with(
        "optout",
        &format!("2?{query}"),
        "text/plain",
        &list(0..3_000),
    );
    assert_eq!(all["state"], "held", "{all:#}");
    assert_eq!(failed(&all), ["shadow"]);

    // The vips are named elsewhere now.
    let mut delta = "source,id,add,remove\n".to_owned();
    for person in 0..300 {
        writeln!(delta, "buyeruid,person-{person:05},,vip").expect("text");
        writeln!(delta, "buyeruid,person-{:05},vip,", person + 1_000).expect("text");
    }
    let moved = kith.put_with("crm", "2?mode=delta&base=1", CSV, &delta);
    assert_eq!(moved["state"], "held", "{moved:#}");
    assert_eq!(failed(&moved), ["shadow"]);
}
