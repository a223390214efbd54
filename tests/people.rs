//! People in real time over real sockets: updates, links, erasure and opt-out, and what is left of them after a restart.

#![allow(clippy::disallowed_methods, reason = "a test may wait")]

#[path = "people/disks.rs"]
mod disks;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use kith::config::Config;
use kith::service::Service;
use serde_json::{Value, json};

/// A running Kith, by its addresses.
struct Client {
    bid: SocketAddr,
    admin: SocketAddr,
    agent: ureq::Agent,
    token: Option<&'static str>,
}

impl Client {
    /// Returns when it is ready; nothing where it ends before.
    fn at(bid: SocketAddr, admin: SocketAddr) -> Option<Self> {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = config.build().into();
        let client = Self {
            bid,
            admin,
            agent,
            token: None,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = client.agent.get(format!("http://{admin}/readyz")).call();
            if answer.ok()?.status() == 200 {
                return Some(client);
            }
            assert!(Instant::now() < deadline, "never ready");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &str) -> Option<(u16, String)> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.admin))
            .header("content-type", kind)
            .header(
                "authorization",
                format!("Bearer {}", self.token.unwrap_or("none")),
            );
        let request = request.body(body.to_owned()).expect("a request");
        let mut answer = self.agent.run(request).ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        Some((answer.status().as_u16(), text))
    }

    fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = self
            .send(method, path, "application/json", body)
            .expect("an answer");
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    /// Posts rows all of which are taken.
    fn rows(&self, path: &str, rows: &[Value]) -> u64 {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let (status, answer) = self.call("POST", path, &text);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["rejected"], json!([]), "{answer}");
        assert_eq!(answer["accepted"], json!(rows.len()), "{answer}");
        answer["sequence"].as_u64().expect("a number")
    }

    fn updates(&self, rows: &[Value]) -> u64 {
        self.rows("/v1/users", rows)
    }

    fn upload(&self, path: &str, kind: &str, body: &str) {
        let (status, text) = self
            .send("PUT", &format!("/v1/datasets/{path}"), kind, body)
            .expect("an answer");
        assert_eq!(status, 201, "{text}");
        assert!(text.contains("\"state\":\"active\""), "{text}");
    }

    fn csv(&self, path: &str, rows: &str) {
        self.upload(path, "text/csv", rows);
    }

    /// A line item `cart` for who is in `site/cart` and has not bought, and what else there is.
    fn campaigns(&self, more: &[Value]) {
        let mut items = vec![
            json!({"id": "cart", "creatives": ["box"], "price": {"cpm": "5", "currency": "USD"},
            "targeting": "segments one of ['site/cart'] and segments none of ['site/buyers']"}),
        ];
        items.extend(more.iter().cloned());
        let document = json!({"advertisers": [{"id": "acme", "domain": "acme.example", "currency": "USD"}],
            "creatives": [{"id": "box", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "<p>"}],
            "line_items": items});
        self.upload(
            "campaigns/versions/1",
            "application/json",
            &document.to_string(),
        );
    }

    /// Who bids for whoever has these ids.
    fn bids(&self, ids: &[(&str, &str)]) -> Vec<String> {
        self.try_bids(ids).expect("an answer")
    }

    fn bid(&self, ids: &[(&str, &str)]) -> Option<Value> {
        let (mut user, mut device, mut eids) = (json!({}), json!({}), Vec::new());
        for (source, id) in ids {
            match *source {
                "ifa" => device["ifa"] = json!(id),
                "buyeruid" => user["buyeruid"] = json!(id),
                other => eids.push(json!({"source": other, "uids": [{"id": id}]})),
            }
        }
        user["eids"] = json!(eids);
        let request = json!({"id": "r", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}], "user": user, "device": device});
        let url = format!("http://{}/bid/demo", self.bid);
        let sent = self
            .agent
            .post(&url)
            .header("content-type", "application/json");
        let mut answer = sent.send(&request.to_string()).ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        match answer.status().as_u16() {
            204 => Some(Value::Null),
            200 => Some(serde_json::from_str(&text).expect("JSON")),
            other => panic!("{other}"),
        }
    }

    fn try_bids(&self, ids: &[(&str, &str)]) -> Option<Vec<String>> {
        let answer = self.bid(ids)?;
        let seats = answer["seatbid"].as_array().cloned().unwrap_or_default();
        let bids = seats
            .iter()
            .flat_map(|seat| seat["bid"].as_array().cloned().unwrap_or_default());
        Some(
            bids.map(|bid| bid["cid"].as_str().expect("a campaign").to_owned())
                .collect(),
        )
    }

    fn is_wanted(&self, id: &str) -> bool {
        !self.bids(&[("ifa", id)]).is_empty()
    }
}

/// A Kith within this process.
struct Kith {
    service: Option<Service>,
    client: Client,
}

impl std::ops::Deref for Kith {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Kith {
    /// `more`: limits, and tables after them.
    fn start(dir: &Path, more: &str) -> Self {
        let (limits, more) = more.split_at(more.find('[').unwrap_or(more.len()));
        let toml = format!(
            "[bid]\nlisten = \"127.0.0.1:0\"\nthreads = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[data]\ndir = {:?}\n\
             [limits]\nqueue_target_ms = 20000\n{limits}[exchanges.demo]\ndefault_tmax_ms = 60000\n[guards]\nenabled = false\n{more}",
            dir.display().to_string()
        );
        let config = Config::from_toml(&toml, "test").expect("a configuration");
        let service = Service::start(config).expect("a service");
        let client = Client::at(service.bid_addr(), service.admin_addr()).expect("ready");
        Self {
            service: Some(service),
            client,
        }
    }

    fn stop(mut self) {
        if let Some(service) = self.service.take() {
            service.drain();
        }
    }
}

fn id(text: &str) -> Value {
    json!({"source": "ifa", "id": text})
}

fn with(text: &str, more: Value) -> Value {
    let mut row = id(text);
    for (key, value) in more.as_object().expect("an object") {
        row[key] = value.clone();
    }
    row
}

const CART: &str = "source,id,segments\nifa,a,cart\nifa,b,cart\nbuyeruid,laptop,cart\n";

#[test]
fn an_update_counts_for_the_next_bid_and_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    kith.campaigns(&[]);
    kith.csv("site/versions/1", CART);
    assert!(kith.is_wanted("a") && !kith.is_wanted("new"));
    // Two thousand of them, each seen by the very next bid.
    for n in 0..1_000 {
        let name = format!("shopper-{n}");
        kith.updates(&[with(&name, json!({"add": ["site/cart"]}))]);
        assert!(kith.is_wanted(&name), "{n}");
        kith.updates(&[with(&name, json!({"add": ["site/buyers"], "ttl": "1h"}))]);
        assert!(!kith.is_wanted(&name), "{n}");
    }
    // A writer's rows count in the order of his numbers, and again is as good as once.
    let cart = |add: bool, seq: u64| {
        let word = if add { "add" } else { "remove" };
        with(
            "b",
            json!({word: ["site/cart"], "writer": "shop", "seq": seq}),
        )
    };
    for (row, wanted) in [
        (cart(false, 5), false),
        (cart(true, 4), false),
        (cart(true, 6), true),
        (cart(false, 5), true),
    ] {
        kith.updates(&[row]);
        assert_eq!(kith.is_wanted("b"), wanted);
    }
    // What is set takes the place of all.
    kith.updates(&[with("a", json!({"set": {"site": ["lookers"]}}))]);
    assert!(!kith.is_wanted("a"));
    kith.updates(&[with("a", json!({"add": ["site/cart"], "ttl": "1s"}))]);
    assert!(kith.is_wanted("a"));
    thread::sleep(Duration::from_millis(2_100));
    assert!(
        !kith.is_wanted("a"),
        "after its ttl what was set counts again"
    );
    kith.stop();
    let kith = Kith::start(dir.path(), "");
    assert!(!kith.is_wanted("a") && kith.is_wanted("b") && !kith.is_wanted("shopper-7"));
    let (_, explained) = kith.call(
        "POST",
        "/v1/explain/demo",
        r#"{"id":"r","imp":[{"id":"1","banner":{"w":300,"h":250}}],"device":{"ifa":"shopper-7"}}"#,
    );
    assert_eq!(
        explained["segments"],
        json!(["site/buyers", "site/cart"]),
        "{explained}"
    );
    assert_eq!(explained["layers"][0]["layer"], "update");
    let (_, metrics) = kith.call("GET", "/metrics", "");
    let metrics = metrics.as_str().expect("a text").to_owned();
    let of = |name: &str| -> f64 {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name}"))
            .split(' ')
            .nth(1)
            .expect("a value")
            .parse()
            .expect("a number")
    };
    // Two a shopper, one of b, one that sets a and one that is over.
    assert!((2_002.0..=2_003.0).contains(&of("kith_overlay_entries")));
    assert_eq!(of("kith_people_sequence"), 2_006.0);
    assert!(
        of("kith_people_replay_bytes") > 100_000.0
            && of("kith_overlay_oldest_timestamp_seconds") > 1.7e9
    );
}

#[test]
fn rows_that_are_wrong_are_named_and_the_others_taken() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    kith.campaigns(&[]);
    let rows = [
        (json!({"source": "ifa", "id": "a", "add": ["site/cart"]}).to_string(), ""),
        ("{".to_owned(), "EOF"),
        (json!({"source": "ifa", "id": "00000000-0000-0000-0000-000000000000", "add": ["site/cart"]}).to_string(), "all zeros"),
        (json!({"source": "ifa", "id": "a"}).to_string(), "at least one"),
        (json!({"source": "ifa", "id": "a", "add": ["cart"]}).to_string(), "dataset/segment"),
        (json!({"source": "ifa", "id": "a", "add": ["site/*"]}).to_string(), "dataset/segment"),
        (json!({"source": "ifa", "id": "a", "set": {"site/x": []}}).to_string(), "dataset's name"),
        (json!({"source": "ifa", "id": "a", "add": ["site/x"], "remove": ["site/x"]}).to_string(), "comes into"),
        (json!({"source": "ifa", "id": "a", "add": ["site/x"], "ttl": "forever"}).to_string(), "duration"),
        (json!({"source": "ifa", "id": "a", "add": ["site/x"], "ttl": "0s"}).to_string(), "duration"),
        (json!({"source": "ifa", "id": "a", "add": ["site/x"], "ttl": "401d"}).to_string(), "people.ttl_max"),
        (json!({"source": "ifa", "id": "a", "add": ["site/x"], "seq": 1}).to_string(), "writer"),
        (json!({"source": "ifa", "id": "a", "add": ["site/x"], "writer": "a b", "seq": 1}).to_string(), "no name"),
        (json!({"source": "ifa", "id": "a", "add": ["site/x"], "sge": 1}).to_string(), "unknown field"),
        (json!({"source": "ifa", "id": "b", "remove": ["site/cart"]}).to_string(), ""),
        (format!("{{\"source\":\"ifa\",\"id\":\"{}\"}}", "x".repeat(70_000)), "64 KiB"),
    ];
    let text: Vec<&str> = rows.iter().map(|(row, _)| row.as_str()).collect();
    let (status, answer) = kith.call("POST", "/v1/users", &text.join("\n"));
    assert_eq!((status, &answer["accepted"]), (200, &json!(2)), "{answer}");
    let told: BTreeMap<u64, String> = answer["rejected"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| {
            (
                row["line"].as_u64().expect("a line"),
                row["reason"].to_string(),
            )
        })
        .collect();
    for (line, (row, why)) in (1..).zip(&rows) {
        let said = told.get(&line).map_or("", String::as_str);
        assert!(
            said.contains(why) && why.is_empty() == said.is_empty(),
            "{row:.100}: {said}, not {why}"
        );
    }
    assert!(kith.is_wanted("a"));
    for (method, path, status) in [
        ("GET", "/v1/users", 405),
        ("PUT", "/v1/users/ifa/a", 405),
        ("DELETE", "/v1/users/ifa/null", 422),
        ("DELETE", "/v1/users/ifa/a?persons=true", 400),
        ("GET", "/v1/journal?since=1", 400),
        ("GET", "/v1/journal?after=x", 400),
    ] {
        assert_eq!(kith.call(method, path, "").0, status, "{method} {path}");
    }
    let (status, answer) = kith.call(
        "POST",
        "/v1/optouts",
        "{\"source\":\"ifa\",\"id\":\"a\"}\n{\"source\":\"ifa\",\"id\":\"null\"}\n",
    );
    assert_eq!(status, 422, "{answer}");
    assert!(kith.is_wanted("a"), "all or nobody");
}

/// A snapshot covers what was received before its input was read, and nothing after; one that is activated again covers less.
#[test]
fn a_purchase_after_the_cut_survives_the_swap() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    kith.campaigns(&[]);
    kith.csv("site/versions/1", CART);
    let removed = kith.updates(&[with("a", json!({"remove": ["site/cart"]}))]);
    assert!(!kith.is_wanted("a"));
    kith.updates(&[with("b", json!({"add": ["site/buyers"]}))]);
    // It has read the first row and puts a into the cart again; of the second it knows nothing.
    kith.csv(&format!("site/versions/2?as_of=seq:{removed}"), CART);
    assert!(kith.is_wanted("a") && !kith.is_wanted("b"));
    // It has read both: b did not buy after all.
    let both = removed + 1;
    kith.csv(&format!("site/versions/3?as_of=seq:{both}"), CART);
    assert!(kith.is_wanted("a") && kith.is_wanted("b"));
    kith.call("POST", "/v1/datasets/site/activate", r#"{"version": 2}"#);
    assert!(
        kith.is_wanted("a") && !kith.is_wanted("b"),
        "the rollback uncovers"
    );
    kith.call("POST", "/v1/datasets/site/activate", r#"{"version": 1}"#);
    assert!(!kith.is_wanted("a") && !kith.is_wanted("b"));
    // By time: a version whose input was read now has read all that was received before this second.
    thread::sleep(Duration::from_millis(1_100));
    let now = kith::clock::Timestamp::now();
    kith.csv(&format!("site/versions/4?as_of={now}"), CART);
    assert!(kith.is_wanted("a") && kith.is_wanted("b"));
    let (status, answer) = kith
        .send(
            "PUT",
            "/v1/datasets/site/versions/5?as_of=seq:1000",
            "text/csv",
            CART,
        )
        .expect("an answer");
    assert_eq!(status, 422, "{answer}");
    // A delta that does not say has read what the version below it has.
    kith.csv(
        "site/versions/5?mode=delta&base=4",
        "source,id,add,remove\nifa,c,cart,\n",
    );
    assert!(kith.is_wanted("a") && kith.is_wanted("b") && kith.is_wanted("c"));
    kith.stop();
    let kith = Kith::start(dir.path(), "");
    assert!(kith.is_wanted("a") && kith.is_wanted("b") && kith.is_wanted("c"));
    let (_, user) = kith.call("GET", "/v1/users/ifa/b", "");
    // All versions that are kept have read it, so it may be gone.
    let updates = user["updates"].as_array().expect("a list");
    assert!(
        updates.iter().all(|of| of["covered"] == json!(true)),
        "{user}"
    );
}

#[test]
fn ids_of_one_person_share_segments_updates_and_caps() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    let capped = json!({"id": "capped", "creatives": ["box"], "price": {"cpm": "9", "currency": "USD"},
        "targeting": "segments one of ['crm/vip']", "caps": [{"count": 1, "per": "24h"}]});
    kith.campaigns(&[capped]);
    kith.csv("site/versions/1", CART);
    kith.csv("crm/versions/1", "source,id,segments\ncustomer,c-1,vip\n");
    let (laptop, phone, tv) = (
        ("buyeruid", "laptop"),
        ("ifa", "phone"),
        ("tv.example", "t"),
    );
    assert_eq!(kith.bids(&[phone]), [""; 0]);
    let link = |source: &str, id: &str, person: Option<&str>| json!({"source": source, "id": id, "person": person});
    kith.rows(
        "/v1/links",
        &[
            link("buyeruid", "laptop", Some("p1")),
            link("ifa", "phone", Some("p1")),
            link("tv.example", "t", Some("p1")),
            link("customer", "c-1", Some("p1")),
        ],
    );
    // What one of her ids is in, all are.
    assert_eq!(kith.bids(&[tv]), ["capped"]);
    // What was shown to one counts for all.
    let shown = kith.bid(&[phone]).expect("an answer");
    let burl = shown["seatbid"][0]["bid"][0]["burl"]
        .as_str()
        .expect("a URL")
        .replace("${AUCTION_PRICE}", "9");
    assert_eq!(
        kith.agent.get(&burl).call().expect("an answer").status(),
        204
    );
    assert_eq!(kith.bids(&[laptop]), ["cart"], "capped on her laptop too");
    assert_eq!(kith.bids(&[tv]), ["cart"]);
    // What she buys on one, she has bought.
    kith.updates(&[json!({"source": "tv.example", "id": "t", "add": ["site/buyers"]})]);
    assert_eq!(kith.bids(&[laptop]), [""; 0]);
    // The laptop is another's now.
    kith.rows("/v1/links", &[link("buyeruid", "laptop", Some("p2"))]);
    assert_eq!(kith.bids(&[laptop]), ["cart"]);
    kith.rows("/v1/links", &[link("buyeruid", "laptop", None)]);
    assert_eq!(kith.bids(&[laptop]), ["cart"]);
    let (_, user) = kith.call("GET", "/v1/users/ifa/phone", "");
    assert_eq!(
        user["person"]["ids"].as_array().map(Vec::len),
        Some(3),
        "{user}"
    );
    // So many ids a person has, and no more.
    let many: Vec<Value> = (0..9)
        .map(|n| link("ifa", &format!("device-{n}"), Some("p3")))
        .collect();
    let text: String = many.iter().map(|row| format!("{row}\n")).collect();
    let (status, answer) = kith.call("POST", "/v1/links", &text);
    assert_eq!((status, &answer["accepted"]), (200, &json!(8)), "{answer}");
    assert!(
        answer["rejected"][0]["reason"]
            .to_string()
            .contains("ids_per_source"),
        "{answer}"
    );
    kith.stop();
    let kith = Kith::start(dir.path(), "");
    assert_eq!(kith.bids(&[laptop]), ["cart"]);
    assert_eq!(kith.bids(&[phone]), [""; 0]);
}

#[test]
fn who_is_erased_or_opts_out_stays_so_whatever_comes() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    kith.campaigns(&[]);
    kith.csv("site/versions/1", CART);
    kith.rows(
        "/v1/links",
        &[
            json!({"source": "ifa", "id": "b", "person": "p"}),
            json!({"source": "ifa", "id": "phone", "person": "p"}),
        ],
    );
    assert!(kith.is_wanted("a") && kith.is_wanted("b") && kith.is_wanted("phone"));
    assert_eq!(kith.call("DELETE", "/v1/users/ifa/a", "").0, 200);
    assert!(!kith.is_wanted("a"));
    let (status, answer) = kith.call("POST", "/v1/optouts", &json!([id("phone")]).to_string());
    assert_eq!(status, 200, "{answer}");
    let nobody = |kith: &Kith, when: &str| {
        for id in ["a", "b", "phone"] {
            assert!(!kith.is_wanted(id), "{id} {when}");
        }
        assert!(
            kith.bids(&[("buyeruid", "laptop"), ("ifa", "phone")])
                .is_empty(),
            "{when}"
        );
        // An erased id is as if it had not come; others are who they are.
        assert_eq!(
            kith.bids(&[("buyeruid", "laptop"), ("ifa", "a")]),
            ["cart"],
            "{when}"
        );
    };
    nobody(&kith, "at once");
    let (status, answer) = kith.call(
        "POST",
        "/v1/users",
        &with("a", json!({"add": ["site/cart"]})).to_string(),
    );
    assert_eq!(status, 200);
    assert!(
        answer["rejected"][0]["reason"]
            .to_string()
            .contains("erased"),
        "{answer}"
    );
    kith.csv("site/versions/2", CART);
    nobody(&kith, "after an upload");
    kith.csv(
        "site/versions/3?mode=delta&base=2",
        "source,id,add,remove\nifa,a,cart,\nifa,phone,cart,\n",
    );
    nobody(&kith, "after a delta");
    kith.call("POST", "/v1/datasets/site/activate", r#"{"version": 1}"#);
    nobody(&kith, "after a rollback");
    kith.call("POST", "/v1/datasets/site/pin", "");
    kith.rows(
        "/v1/links",
        &[json!({"source": "ifa", "id": "b", "person": null})],
    );
    nobody(&kith, "after a pin, and unlinked");
    kith.stop();
    let kith = Kith::start(dir.path(), "");
    nobody(&kith, "after a restart");
    // An id that turns out to be hers later has opted out too.
    assert!(kith.bids(&[("buyeruid", "laptop")]) == ["cart"]);
    kith.rows(
        "/v1/links",
        &[json!({"source": "buyeruid", "id": "laptop", "person": "p"})],
    );
    assert_eq!(kith.bids(&[("buyeruid", "laptop")]), [""; 0]);
    let (_, user) = kith.call("GET", "/v1/users/ifa/a", "");
    assert_eq!(
        (&user["erased"], &user["segments"]),
        (&json!(true), &json!([])),
        "{user}"
    );
    let (_, metrics) = kith.call("GET", "/metrics", "");
    assert!(
        metrics
            .as_str()
            .expect("a text")
            .contains("kith_people_erased 1\n")
    );
}

#[test]
fn all_ids_of_a_person_go_together() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    kith.campaigns(&[]);
    kith.csv("site/versions/1", CART);
    let link = |id: &str| json!({"source": "ifa", "id": id, "person": "p"});
    kith.rows("/v1/links", &[link("a"), link("b"), link("c")]);
    let (status, answer) = kith.call("DELETE", "/v1/users/ifa/c?person=true", "");
    assert_eq!(
        (status, &answer["erased"]),
        (200, &json!(4)),
        "three ids and she: {answer}"
    );
    assert!(!kith.is_wanted("a") && !kith.is_wanted("b"));
    let (_, answer) = kith.call(
        "POST",
        "/v1/links",
        &json!({"source": "ifa", "id": "d", "person": "p"}).to_string(),
    );
    assert!(
        answer["rejected"][0]["reason"]
            .to_string()
            .contains("erased"),
        "{answer}"
    );
}

/// An objection stands whatever the request lets us know, beside an erasure, after the link it came over, and by ids that are not used.
#[test]
fn an_opt_out_is_undone_by_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let more = "ids_per_request = 2\n[datasets.site]\npurposes = [1]\n";
    let kith = Kith::start(dir.path(), more);
    kith.campaigns(&[]);
    kith.csv(
        "site/versions/1",
        "source,id,segments\nifa,a,cart\nifa,b,cart\nifa,c,cart\nifa,d,cart\nbuyeruid,x,cart\n",
    );
    let link = |id: &str, person: Option<&str>, ttl: &str| match person {
        Some(person) => with(id, json!({"person": person, "ttl": ttl})),
        None => crate::id(id),
    };
    let opt_out = |id: &str| {
        let (status, answer) = kith.call("POST", "/v1/optouts", &crate::id(id).to_string());
        assert_eq!(status, 200, "{answer}");
    };
    for id in ["a", "b", "c", "d"] {
        assert!(kith.is_wanted(id), "{id}");
    }
    // Whoever is linked to her opted out as well, and stays so when the link ends; on either side.
    kith.rows("/v1/links", &[link("a", Some("p1"), "30d")]);
    opt_out("a");
    kith.rows("/v1/links", &[link("b", Some("p1"), "1s")]);
    assert!(!kith.is_wanted("b"));
    kith.rows(
        "/v1/links",
        &[link("b", Some("p2"), "30d"), link("a", None, "")],
    );
    assert!(!kith.is_wanted("b") && !kith.is_wanted("a"));
    kith.rows("/v1/links", &[link("c", Some("p2"), "30d")]);
    kith.rows("/v1/links", &[link("c", None, "")]);
    assert!(!kith.is_wanted("c"), "over the one who was linked to her");
    // Erased besides, and beside an id that is nobody's.
    assert!(!kith.bids(&[("buyeruid", "x")]).is_empty());
    assert_eq!(
        kith.call("DELETE", "/v1/users/ifa/a?person=true", "").0,
        200
    );
    assert_eq!(kith.bids(&[("buyeruid", "x"), ("ifa", "a")]), [""; 0]);
    // The third id of a request that may have two.
    opt_out("d");
    kith.rows(
        "/v1/links",
        &[json!({"source": "crm.example", "id": "k", "person": "p9"})],
    );
    let (status, _) = kith.call(
        "POST",
        "/v1/optouts",
        r#"{"source": "crm.example", "id": "k"}"#,
    );
    assert_eq!(status, 200);
    let three = [("buyeruid", "x"), ("ifa", "new"), ("crm.example", "k")];
    assert_eq!(kith.bids(&three), [""; 0]);
    assert!(!kith.bids(&three[..2]).is_empty());
    kith.stop();
    let kith = Kith::start(dir.path(), more);
    assert!(!kith.is_wanted("b") && !kith.is_wanted("c") && !kith.is_wanted("d"));
    assert_eq!(kith.bids(&[("buyeruid", "x"), ("ifa", "a")]), [""; 0]);
}

/// A TC string of version 2 that grants vendor 7 these purposes, bit 23 being the first, by consent (core segment, vendors as bits).
fn tc_string(purposes: u64) -> String {
    let mut bits: Vec<bool> = Vec::new();
    let mut put = |value: u64, count: u32| {
        bits.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    };
    let head = [
        (2, 6),
        (17_000_000_000, 36),
        (17_000_000_000, 36),
        (10, 12),
        (1, 12),
        (1, 6),
        (4, 6),
    ];
    let terms = [
        (13, 6),
        (100, 12),
        (5, 6),
        (1, 1),
        (0, 1),
        (0, 12),
        (purposes, 24),
        (0, 24),
        (0, 1),
    ];
    let end = [(5, 6), (17, 6), (7, 16), (0, 1), (1, 7), (0, 29)];
    for (value, count) in head.into_iter().chain(terms).chain(end) {
        put(value, count);
    }
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let character = |six: &[bool]| {
        let filled = six.iter().copied().chain(std::iter::repeat(false)).take(6);
        let value = filled.fold(0usize, |value, bit| value << 1 | usize::from(bit));
        char::from(alphabet[value])
    };
    bits.chunks(6).map(character).collect()
}

/// Links are read for some purposes only, and an opt-out over them for all: less consent is not more targeting.
#[test]
fn less_consent_undoes_no_objection() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(
        dir.path(),
        "[datasets.site]\npurposes = [1]\n[privacy]\nvendor_id = 7\n",
    );
    kith.campaigns(&[]);
    kith.csv("site/versions/1", CART);
    let is_wanted = |id: &str, purposes: u64| {
        let request = json!({"id": "r", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}], "device": {"ifa": id},
            "user": {"consent": tc_string(purposes)}, "regs": {"gdpr": 1}});
        let url = format!("http://{}/bid/demo", kith.bid);
        let answer = kith.agent.post(&url).send(&request.to_string());
        answer.expect("an answer").status() == 200
    };
    let (all, first) = (0xff_ffff, 1 << 23);
    assert!(is_wanted("a", all) && is_wanted("a", first) && !is_wanted("a", 0));
    kith.rows(
        "/v1/links",
        &["a", "b"].map(|of| with(of, json!({"person": "p1"}))),
    );
    let told = json!({"source": "person", "id": "p1"});
    let (status, answer) = kith.call("POST", "/v1/optouts", &told.to_string());
    assert_eq!(status, 200, "{answer}");
    kith.rows("/v1/links", &[with("new", json!({"person": "p1"}))]);
    for id in ["a", "b", "new"] {
        assert!(!is_wanted(id, all) && !is_wanted(id, first), "{id}");
    }
}

/// What was shown to one of her ids, on whatever channel and before anybody knew that it is hers, counts for all.
#[test]
fn contacts_of_all_her_ids_count() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    let capped = json!({"id": "capped", "creatives": ["box"], "price": {"cpm": "9", "currency": "USD"},
        "targeting": "country is null", "caps": [{"count": 1, "per": "24h"}]});
    kith.campaigns(&[capped]);
    let shown = |id: &str| -> (u16, Value) {
        let row = with(id, json!({"line_item": "capped"}));
        kith.call("POST", "/v1/exposures", &row.to_string())
    };
    let link = |id: &str| with(id, json!({"person": "p1"}));
    assert_eq!(shown("tv").1["accepted"], 1);
    assert!(!kith.is_wanted("tv") && kith.is_wanted("stranger"));
    kith.rows("/v1/links", &[link("tv"), link("phone"), link("laptop")]);
    assert!(!kith.is_wanted("phone"), "before they were linked");
    let other = |id: &str| with(id, json!({"person": "p2"}));
    kith.rows("/v1/links", &[other("one"), other("two")]);
    assert_eq!(shown("one").1["accepted"], 1);
    assert!(!kith.is_wanted("two"), "by what another channel says");
    for (path, id, word) in [("/v1/optouts", "left", "opted out"), ("", "gone", "erased")] {
        let done = match path {
            "" => kith.call("DELETE", &format!("/v1/users/ifa/{id}"), ""),
            path => kith.call("POST", path, &crate::id(id).to_string()),
        };
        assert_eq!(done.0, 200);
        let (_, answer) = shown(id);
        let reason = answer["rejected"][0]["reason"].to_string();
        assert!(reason.contains(word), "{answer}");
    }
}

/// A version that waits covers nothing while none is live.
#[test]
fn a_version_that_waits_covers_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    let free = json!({"id": "free", "creatives": ["box"], "price": {"cpm": "1", "currency": "USD"},
        "targeting": "segments none of ['shop/buyers'] and segments one of ['site/cart']"});
    kith.campaigns(&[free]);
    kith.csv("site/versions/1", CART);
    let sequence = kith.updates(&[with("a", json!({"add": ["shop/buyers"]}))]);
    assert_eq!(kith.bids(&[("ifa", "a")]), ["cart"]);
    let path = format!("/v1/datasets/shop/versions/1?activate=false&as_of=seq:{sequence}");
    let (status, answer) = kith
        .send(
            "PUT",
            &path,
            "text/csv",
            "source,id,segments\nifa,z,buyers\n",
        )
        .expect("an answer");
    assert_eq!(status, 201, "{answer}");
    thread::sleep(Duration::from_millis(700));
    assert_eq!(kith.bids(&[("ifa", "a")]), ["cart"], "it is only staged");
    assert_eq!(
        kith.call("POST", "/v1/datasets/shop/activate", r#"{"version": 1}"#)
            .0,
        200
    );
    assert_eq!(kith.bids(&[("ifa", "a")]).len(), 1);
}

/// Segment jobs read what came, from where they were, and nothing of whom was erased since.
#[test]
fn the_journal_is_read_on_from_where_one_was() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    let rows: Vec<Value> = (0..25)
        .map(|n| {
            with(
                &format!("u{n}"),
                json!({"add": ["site/cart"], "writer": "w", "seq": n + 1}),
            )
        })
        .collect();
    kith.updates(&rows);
    let mut after = "0".to_owned();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let url = format!("http://{}/v1/journal?after={after}&limit=10", kith.admin);
        let mut page = kith.agent.get(&url).call().expect("an answer");
        after = page.headers()["x-kith-last"]
            .to_str()
            .expect("a text")
            .to_owned();
        let text = page.body_mut().read_to_string().expect("a text");
        seen.extend(
            text.lines()
                .map(|line| serde_json::from_str::<Value>(line).expect("JSON")),
        );
    }
    assert_eq!(after, "25");
    assert_eq!(seen.len(), 25);
    for (n, row) in (1u64..).zip(&seen) {
        assert_eq!(
            (&row["sequence"], &row["seq"], &row["writer"]),
            (&json!(n), &json!(n), &json!("w"))
        );
        assert_eq!(
            (&row["id"], &row["add"]),
            (&json!(format!("u{}", n - 1)), &json!(["site/cart"]))
        );
    }
    kith.call("DELETE", "/v1/users/ifa/u3", "");
    let (_, text) = kith.call("GET", "/v1/journal?after=0", "");
    let text = text.as_str().expect("a text").to_owned();
    assert!(
        !text.contains("\"u3\",\"add\"")
            && text.contains("\"u3\",\"erase\":true")
            && text.contains("\"u4\""),
        "{text}"
    );
}

#[test]
fn tokens_say_who_may_write_what() {
    let dir = tempfile::tempdir().expect("a folder");
    let sha = |token: &str| {
        let digest = <sha2::Sha256 as sha2::Digest>::digest(token.as_bytes());
        digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let token = |name: &str, datasets: &str, role: &str| {
        format!(
            "{{ name = {name:?}, sha256 = {:?}, datasets = [{datasets:?}], role = {role:?} }}",
            sha(name)
        )
    };
    let tokens = [
        token("shop", "site", "upload"),
        token("look", "*", "read"),
        token("all", "*", "upload"),
        token("boss", "*", "operate"),
    ];
    let toml = format!(
        "[bid]\nlisten = \"127.0.0.1:0\"\nthreads = 1\n[admin]\nlisten = \"127.0.0.1:0\"\ntokens = [{}]\n[data]\ndir = {:?}\n",
        tokens.join(", "),
        dir.path().display().to_string()
    );
    let service =
        Service::start(Config::from_toml(&toml, "test").expect("good")).expect("a service");
    let mut client = Client::at(service.bid_addr(), service.admin_addr()).expect("ready");
    let mixed = format!(
        "{}\n{}\n",
        with("a", json!({"add": ["site/x"]})),
        with("a", json!({"add": ["crm/x"]}))
    );
    let one = with("a", json!({"add": ["site/x"]})).to_string();
    let link = json!({"source": "ifa", "id": "a", "person": "p"}).to_string();
    for (token, users, links, optouts, erase, look, journal) in [
        ("shop", 200, 403, 403, 403, 403, 403),
        ("look", 403, 403, 403, 403, 200, 200),
        ("all", 200, 200, 200, 403, 200, 200),
        ("boss", 200, 200, 200, 200, 200, 200),
        ("none", 401, 401, 401, 401, 401, 401),
    ] {
        client.token = Some(token);
        let got = [
            client.call("POST", "/v1/users", &one).0,
            client.call("POST", "/v1/links", &link).0,
            client.call("POST", "/v1/optouts", &id("z").to_string()).0,
            client.call("DELETE", "/v1/users/ifa/z", "").0,
            client.call("GET", "/v1/users/ifa/a", "").0,
            client.call("GET", "/v1/journal", "").0,
        ];
        assert_eq!(
            got,
            [users, links, optouts, erase, look, journal],
            "{token}"
        );
    }
    client.token = Some("shop");
    let (status, answer) = client.call("POST", "/v1/users", &mixed);
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)), "{answer}");
    assert!(
        answer["rejected"][0]["reason"]
            .to_string()
            .contains("not for dataset `crm`"),
        "{answer}"
    );
    service.drain();
}

/// Where there is no room, writers are told to wait; who is not wanted any more, erased or opted out is still taken.
#[test]
fn a_full_overlay_takes_suppression_and_erasure() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(
        dir.path(),
        "[people]\nids = 100\n[datasets.bought]\nsuppression = true\n",
    );
    let rows: String = (0..300)
        .map(|n| {
            format!(
                "{}\n",
                with(&format!("u{n}"), json!({"add": ["site/cart"]}))
            )
        })
        .collect();
    let (status, answer) = kith.call("POST", "/v1/users", &rows);
    assert_eq!((status, &answer["code"]), (429, &json!("full")), "{answer}");
    assert_eq!(answer["accepted"], json!(90), "{answer}");
    assert!(
        answer["rejected"][0]["reason"]
            .to_string()
            .contains("people.ids"),
        "{answer}"
    );
    kith.updates(&[with(
        "late",
        json!({"add": ["bought/shoes"], "remove": ["site/cart"]}),
    )]);
    assert_eq!(
        kith.call(
            "POST",
            "/v1/users",
            &with("later", json!({"add": ["site/cart"]})).to_string()
        )
        .0,
        429
    );
    let many: Vec<Value> = (0..500).map(|n| id(&format!("gone-{n}"))).collect();
    let (status, answer) = kith.call("POST", "/v1/optouts", &json!(many).to_string());
    assert_eq!(status, 200, "{answer}");
    assert_eq!(kith.call("DELETE", "/v1/users/ifa/u1", "").0, 200);
    kith.stop();
    let kith = Kith::start(dir.path(), "[people]\nids = 100\n");
    let (_, user) = kith.call("GET", "/v1/users/ifa/gone-499", "");
    assert_eq!(user["opted_out"], json!(true), "{user}");
}

/// A Kith of its own, to be killed.
struct Process(Child);

impl Process {
    /// Under strace, where `inject` says what it does to which of its calls; nothing where that ended it before it listened.
    fn run(dir: &Path, inject: Option<&str>) -> Option<(Self, Client)> {
        let mut command = match inject {
            None => Command::new(env!("CARGO_BIN_EXE_kith")),
            Some(inject) => {
                let mut strace = Command::new("strace");
                strace.args(["--quiet=all", "-f", "-o", "/dev/null", "-e", inject]);
                let mut paths: Vec<_> = [
                    "people",
                    "people/journal",
                    "people/erased",
                    "people/erased.copy",
                    "people/checkpoint",
                    "incoming",
                ]
                .map(|path| dir.join(path))
                .into();
                paths.extend((0..24).map(|n| dir.join(format!("incoming/{n}.part"))));
                let files = std::fs::read_dir(dir.join("people/journal"))
                    .into_iter()
                    .flatten();
                paths.extend(files.flatten().map(|file| file.path()));
                for path in paths {
                    strace.arg("-P").arg(path);
                }
                strace.arg(env!("CARGO_BIN_EXE_kith"));
                strace
            }
        };
        let mut child = command
            .arg("serve")
            .env("KITH__BID__LISTEN", "127.0.0.1:0")
            .env("KITH__ADMIN__LISTEN", "127.0.0.1:0")
            .env("KITH__DATA__DIR", dir)
            .env("KITH__PEOPLE__CHECKPOINT_BYTES", "64 KiB")
            .stderr(Stdio::piped())
            .spawn()
            .expect("kith runs");
        let mut lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let address = |line: &str, name: &str| -> Option<SocketAddr> {
            let (_, rest) = line.split_once(&format!("{name}="))?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let said = lines.by_ref().map_while(Result::ok);
        let found = said
            .map(|line| Some((address(&line, " bid")?, address(&line, " admin")?)))
            .find_map(|found| found);
        let Some((bid, admin)) = found else {
            child.wait().expect("it ended");
            return None;
        };
        thread::spawn(move || lines.for_each(drop));
        let process = Self(child);
        Some((process, Client::at(bid, admin)?))
    }

    /// Stops it as an operator does; whether it was killed before it had ended.
    fn stopped(&mut self) -> bool {
        self.signal("-TERM");
        self.0.wait().expect("an end").code() != Some(0)
    }

    /// What strace runs outlives it, unless it is told.
    fn signal(&self, signal: &str) {
        let own = self.0.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            let kill = Command::new("kill")
                .args([signal, child])
                .stderr(Stdio::null())
                .status();
            drop(kill);
        }
    }
}

impl Drop for Process {
    /// As `kill -9` does.
    fn drop(&mut self) {
        self.signal("-KILL");
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

/// What was acknowledged: ids that are wanted, and those that are not known any more.
#[derive(Default)]
struct Acknowledged {
    wanted: Vec<String>,
    gone: Vec<String>,
    /// Whether what is answered from here on does not count.
    is_lost: Arc<AtomicBool>,
}

impl Acknowledged {
    /// Sends some of everything, until nobody answers.
    fn send(&mut self, client: &Client, round: &str) {
        let is_lost = Arc::clone(&self.is_lost);
        let post = |path: &str, body: &str| {
            let answer = client.send("POST", path, "application/json", body);
            let is_taken = answer.is_some_and(|(status, text)| {
                status == 200 && text.contains("\"rejected\":[]")
                    || text.contains("\"accepted\":1,")
            });
            is_taken && !is_lost.load(SeqCst)
        };
        for n in 0..8 {
            // Enough for a checkpoint now and then.
            let names: Vec<String> = (0..100).map(|at| format!("{round}-{n}-{at}")).collect();
            let rows: String = names
                .iter()
                .map(|name| format!("{}\n", with(name, json!({"add": ["site/cart"]}))))
                .collect();
            if !post("/v1/users", &rows) {
                return;
            }
            self.wanted.extend([names[0].clone(), names[99].clone()]);
            // Linked to somebody who is wanted.
            let linked = format!("{round}-{n}-linked");
            let person = format!("{round}-{n}");
            let link = |id: &str| json!({"source": "ifa", "id": id, "person": person});
            if !post(
                "/v1/links",
                &format!("{}\n{}\n", link(&names[0]), link(&linked)),
            ) {
                return;
            }
            self.wanted.push(linked);
            let erased = names[50].clone();
            match client.send(
                "DELETE",
                &format!("/v1/users/ifa/{erased}"),
                "application/json",
                "",
            ) {
                Some((200, _)) if !self.is_lost.load(SeqCst) => self.gone.push(erased),
                _ => return,
            }
            if !post("/v1/optouts", &id(&names[51]).to_string()) {
                return;
            }
            self.gone.push(names[51].clone());
        }
    }

    fn check(&self, client: &Client, when: &str) {
        for id in &self.wanted {
            if !client.is_wanted(id) {
                let (_, held) = client.call("GET", &format!("/v1/users/ifa/{id}"), "");
                panic!("{when}: {id} is lost: {held}");
            }
        }
        for id in &self.gone {
            assert!(!client.is_wanted(id), "{when}: {id} is back");
        }
    }
}

/// At the first, the second and so on of each of the calls that make people durable the process is killed before the call is made, and
/// again while it recovers: whatever was acknowledged is there.
#[test]
#[ignore = "takes minutes, and strace; scripts/long-tests runs it"]
#[expect(clippy::print_stdout, reason = "what it came to is to be looked at")]
fn a_kill_at_every_durable_call_loses_nothing_of_people() {
    let template = tempfile::tempdir().expect("a folder");
    let mut before = Acknowledged::default();
    let (process, client) = Process::run(template.path(), None).expect("it runs");
    client.campaigns(&[]);
    client.csv("site/versions/1", CART);
    before.send(&client, "before");
    drop(process);
    for call in [
        "write",
        "fdatasync",
        "fsync",
        "rename",
        "openat",
        "unlink",
        "ftruncate",
        "fallocate",
    ] {
        let (mut kills, mut nested) = (0, 0);
        for n in 1.. {
            let dir = tempfile::tempdir().expect("a folder");
            copy_all(template.path(), dir.path());
            let inject = format!("inject={call}:signal=KILL:when={n}");
            let mut sent = Acknowledged::default();
            let is_killed = match Process::run(dir.path(), Some(&inject)) {
                None => true,
                Some((mut process, client)) => {
                    sent.send(&client, "traced");
                    process.stopped()
                }
            };
            // Killed again while it comes back, at the first call and at the second.
            for again in 1..=2 {
                let inject = format!("inject={call}:signal=KILL:when={again}");
                match Process::run(dir.path(), Some(&inject)) {
                    None => nested += 1,
                    Some((mut process, _)) => drop(process.stopped()),
                }
            }
            let (process, client) = Process::run(dir.path(), None).expect("it runs");
            before.check(&client, &format!("{call} {n}, before"));
            sent.check(&client, &format!("{call} {n}"));
            drop(process);
            if !is_killed {
                break;
            }
            kills += 1;
        }
        println!("{call}: killed at each of {kills} calls, and {nested} times while coming back");
    }
}
