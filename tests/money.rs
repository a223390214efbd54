//! Money over real sockets: bids, notices, the report, switches, and what a restart remembers.

#![allow(clippy::disallowed_methods, reason = "a test may wait")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kith::config::Config;
use kith::service::Service;
use serde_json::{Value, json};

/// What a Kith is asked.
struct Asked {
    bid: SocketAddr,
    admin: SocketAddr,
    agent: ureq::Agent,
}

/// A service that bids on two exchanges, billed by burl and by nurl.
struct Kith {
    service: Service,
    asked: Asked,
}

impl std::ops::Deref for Kith {
    type Target = Asked;

    fn deref(&self) -> &Asked {
        &self.asked
    }
}

impl Kith {
    fn start(dir: &Path, more: &str) -> Self {
        let toml = format!(
            "[bid]\nlisten = \"127.0.0.1:0\"\nthreads = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[data]\ndir = {:?}\n\
             [limits]\nqueue_target_ms = 20000\n[exchanges.demo]\ndefault_tmax_ms = 60000\n\
             [exchanges.second]\ndefault_tmax_ms = 60000\nbilling = \"nurl\"\nprice_macro = \"%%WINNING_PRICE%%\"\n{more}",
            dir.display().to_string()
        );
        let config = Config::from_toml(&toml, "test").expect("a configuration");
        let service = Service::start(config).expect("a service");
        let asked = Asked::at(service.bid_addr(), service.admin_addr()).expect("ready");
        Self { service, asked }
    }
}

impl Asked {
    /// Returns when it is ready; nothing where it ends before.
    fn at(bid: SocketAddr, admin: SocketAddr) -> Option<Self> {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = config.max_redirects(0).build().into();
        let asked = Self { bid, admin, agent };
        let deadline = Instant::now() + Duration::from_secs(30);
        while asked
            .agent
            .get(asked.admin("/readyz"))
            .call()
            .ok()?
            .status()
            != 200
        {
            assert!(Instant::now() < deadline, "never ready");
            thread::sleep(Duration::from_millis(5));
        }
        Some(asked)
    }

    fn admin(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    fn get(&self, url: &str) -> (u16, String) {
        let mut answer = self.agent.get(url).call().expect("an answer");
        let text = answer.body_mut().read_to_string().expect("a text");
        (answer.status().as_u16(), text)
    }

    fn post(&self, url: &str, body: &str) -> (u16, String) {
        self.try_post(url, body).expect("an answer")
    }

    fn try_post(&self, url: &str, body: &str) -> Option<(u16, String)> {
        let request = self
            .agent
            .post(url)
            .header("content-type", "application/json");
        let mut answer = request.send(body).ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        Some((answer.status().as_u16(), text))
    }

    /// Makes line items live: what each is beside its id.
    fn campaigns(&self, version: u32, line_items: &[(&str, Value)]) {
        let items: Vec<Value> = line_items
            .iter()
            .map(|(id, more)| {
                let mut item = json!({"id": id, "creatives": ["box"], "targeting": "country = 'USA'",
                    "price": {"cpm": "5", "currency": "USD"}});
                for (key, value) in more.as_object().expect("an object") {
                    item[key] = value.clone();
                }
                item
            })
            .collect();
        let document = json!({
            "advertisers": [{"id": "acme", "domain": "acme.example", "currency": "USD"}],
            "creatives": [{"id": "box", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "secure": true,
                "adm": "<a href='${KITH_CLICK_URL}'>x</a>"}],
            "line_items": items,
        });
        let url = self.admin(&format!("/v1/datasets/campaigns/versions/{version}"));
        let request = self
            .agent
            .put(&url)
            .header("content-type", "application/json");
        let mut answer = request.send(&document.to_string()).expect("an answer");
        let text = answer.body_mut().read_to_string().expect("a text");
        assert_eq!(answer.status(), 201, "{text}");
    }

    /// The bid for a person, if there is one.
    fn bid(&self, exchange: &str, person: &str) -> Option<Value> {
        self.try_bid(exchange, person).expect("an answer")
    }

    /// Nothing where nobody answers.
    fn try_bid(&self, exchange: &str, person: &str) -> Option<Option<Value>> {
        let request = json!({"id": "r", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}],
            "device": {"geo": {"country": "USA"}}, "user": {"buyeruid": person}});
        let url = format!("http://{}/bid/{exchange}", self.bid);
        let (status, text) = self.try_post(&url, &request.to_string())?;
        Some(match status {
            204 => None,
            200 => {
                let answer: Value = serde_json::from_str(&text).expect("JSON");
                Some(answer["seatbid"][0]["bid"][0].clone())
            }
            other => panic!("{other}: {text}"),
        })
    }

    /// Waits until the metrics have a line: they are as of the ledger's last tick.
    fn until_shown(&self, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let (_, metrics) = self.get(&self.admin("/metrics"));
            if metrics.lines().any(|shown| shown == line) {
                return;
            }
            assert!(Instant::now() < deadline, "no {line} in {metrics}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn report(&self, by: &str) -> Vec<Value> {
        let (status, text) = self.get(&self.admin(&format!("/v1/report?by={by}")));
        assert_eq!(status, 200, "{text}");
        let report: Value = serde_json::from_str(&text).expect("JSON");
        report["rows"].as_array().expect("rows").clone()
    }
}

fn url<'b>(bid: &'b Value, notice: &str) -> &'b str {
    bid[notice].as_str().expect("a URL")
}

fn paid(bid: &Value, notice: &str, price: &str) -> String {
    let url = url(bid, notice).replace("%%WINNING_PRICE%%", price);
    url.replace("${AUCTION_PRICE}", price)
        .replace("${AUCTION_CURRENCY}", "USD")
        .replace("${AUCTION_LOSS}", "102")
}

#[test]
fn a_notice_books_once_by_get_or_post_and_by_the_exchanges_billing() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    kith.campaigns(1, &[("one", json!({}))]);
    let bid = kith.bid("demo", "a").expect("a bid");
    assert!(
        url(&bid, "burl").ends_with("?p=${AUCTION_PRICE}&c=${AUCTION_CURRENCY}"),
        "{bid}"
    );
    assert!(
        url(&bid, "lurl").ends_with("?p=${AUCTION_PRICE}&l=${AUCTION_LOSS}"),
        "{bid}"
    );
    // By GET or POST, again and again: an impression.
    for _ in 0..4 {
        assert_eq!(kith.get(&paid(&bid, "burl", "2.5")).0, 204);
        assert_eq!(kith.post(&paid(&bid, "burl", "9"), "").0, 204);
        assert_eq!(kith.get(&paid(&bid, "nurl", "2.5")).0, 204);
    }
    let rows = kith.report("line_item,creative");
    assert_eq!(
        rows,
        [
            json!({"line_item": "one", "creative": "box", "bids": 1, "wins": 1, "impressions": 1, "clicks": 0, "spend": "0.0025",
            "currency": "USD", "ecpm": 2.5, "ecpc": null, "win_rate": 1.0})
        ]
    );
    // A price over the bid, one that was left as it was, a loss with a code that nobody knows.
    let over = kith.bid("demo", "a").expect("a bid");
    assert_eq!(kith.get(&paid(&over, "burl", "7")).0, 204);
    // A currency that is none: nobody knows what the number is of.
    let yen = kith.bid("second", "a").expect("a bid");
    let in_yen = paid(&yen, "nurl", "1").replace("c=USD", "c=JPYY");
    assert_eq!(kith.get(&in_yen).0, 204);
    assert_eq!(kith.report("exchange")[1]["spend"], "0.005");
    kith.until_shown("kith_notice_prices_total{what=\"currency\"} 1");
    let literal = kith.bid("demo", "a").expect("a bid");
    assert_eq!(
        kith.get(&paid(&literal, "burl", "%24%7BAUCTION_PRICE%7D"))
            .0,
        204
    );
    let lost = kith.bid("demo", "a").expect("a bid");
    assert_eq!(
        kith.get(&paid(&lost, "lurl", "").replace("l=102", "l=9999"))
            .0,
        204
    );
    // Where the win notice bills, the billing notice does not.
    let second = kith.bid("second", "a").expect("a bid");
    assert!(
        url(&second, "nurl").contains("?p=%%WINNING_PRICE%%&"),
        "{second}"
    );
    assert_eq!(kith.get(&paid(&second, "burl", "1")).0, 204);
    assert_eq!(kith.get(&paid(&second, "nurl", "4")).0, 204);
    let of = |rows: &[Value]| -> Vec<(String, String)> {
        let shown = |row: &Value, key: &str| row[key].as_str().expect("a text").to_owned();
        rows.iter()
            .map(|row| (shown(row, "exchange"), shown(row, "spend")))
            .collect()
    };
    let rows = kith.report("exchange");
    assert_eq!(
        of(&rows),
        [
            ("demo".into(), "0.0125".into()),
            ("second".into(), "0.009".into())
        ]
    );
    // Of four bids on the one exchange three were won, on the other all three, as one notice or both say: by whatever it is added up.
    let wins = |by: &str| -> u64 {
        let rows = kith.report(by);
        rows.iter().filter_map(|row| row["wins"].as_u64()).sum()
    };
    let silent = kith.bid("second", "a").expect("a bid");
    assert_eq!(kith.get(&paid(&silent, "burl", "1")).0, 204);
    for by in [
        "exchange",
        "line_item",
        "exchange,creative",
        "hour",
        "advertiser",
    ] {
        assert_eq!(wins(by), 6, "by {by}");
    }
    // Tokens that are none of ours.
    let burl = url(&bid, "burl");
    let (base, rest) = burl.split_at(burl.find("/n/bill/").expect("a path") + "/n/bill/".len());
    let forged: String = rest.chars().rev().collect();
    for bad in [
        format!("{base}x"),
        format!("{base}{}", forged.replace('?', "")),
        base.to_owned(),
    ] {
        assert_eq!(kith.get(&bad).0, 404, "{bad}");
    }
    let (_, metrics) = kith.get(&kith.admin("/metrics"));
    assert!(metrics.contains("kith_notices_total{outcome=\"forged\"}"));
    // What is not understood is said.
    for (query, says) in [
        ("by=colour", "none of line_item"),
        ("form=csv", "no parameter"),
        ("from=today", "RFC 3339"),
    ] {
        let (status, text) = kith.get(&kith.admin(&format!("/v1/report?{query}")));
        assert_eq!((status, text.contains(says)), (400, true), "{text}");
    }
    let (_, csv) = kith.get(&kith.admin("/v1/report?by=creative&format=csv"));
    assert_eq!(
        csv.lines().next(),
        Some("creative,bids,wins,impressions,clicks,spend,currency,ecpm,ecpc,win_rate")
    );
    assert_eq!(csv.lines().count(), 2, "{csv}");
    // The markup's link counts a click and goes where the creative says.
    let adm = bid["adm"].as_str().expect("markup");
    let click = adm.split('\'').nth(1).expect("a link");
    assert!(click.contains("/c/"), "{adm}");
    for _ in 0..2 {
        let answer = kith.agent.get(click).call().expect("an answer");
        let location = answer.headers().get("location");
        let location = location.and_then(|value| value.to_str().ok());
        let want = (302, Some("https://acme.example/"));
        assert_eq!((answer.status().as_u16(), location), want);
    }
    let clicks = || kith.report("exchange")[0]["clicks"].clone();
    let deadline = Instant::now() + Duration::from_secs(10);
    while clicks() != json!(1) {
        assert!(Instant::now() < deadline, "{}", clicks());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whoever sees an ad can read the URLs in its markup: a click's, and a pixel's. They settle nothing but a click and an impression.
#[test]
fn what_the_markup_shows_settles_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let pixel = "[exchanges.pixel]\ndefault_tmax_ms = 60000\nbilling = \"impression\"\n";
    let kith = Kith::start(dir.path(), pixel);
    kith.campaigns(1, &[("one", json!({"budget": {"total": "100"}}))]);
    let routes = ["/n/win/", "/n/bill/", "/n/loss/", "/c/"];
    for exchange in ["demo", "second", "pixel"] {
        let bid = kith.bid(exchange, "a").expect("a bid");
        let adm = bid["adm"].as_str().expect("markup");
        let members = ["nurl", "burl", "lurl"].map(|notice| bid[notice].as_str());
        let urls = members.into_iter().flatten().chain(adm.split(['\'', '"']));
        // What the bid has, each with the route that it is for.
        let tokens: Vec<(&str, &str)> = urls
            .filter_map(|url| {
                let path = url.split_once("://")?.1;
                let route = routes.into_iter().find(|route| path.contains(route))?;
                let token = path.split_once(route)?.1;
                Some((route, token.split('?').next().unwrap_or(token)))
            })
            .collect();
        assert_eq!(tokens.len(), 4, "{bid}");
        for (route, token) in &tokens {
            for other in routes.iter().filter(|other| *other != route) {
                let path = format!("http://{}{other}{token}?p=0&c=USD", kith.bid);
                assert_eq!(kith.get(&path).0, 404, "{exchange}: {route} as {other}");
                assert_eq!(kith.post(&path, "").0, 404, "{exchange}: {route}");
            }
        }
        let standing = || {
            let rows = kith.report("exchange");
            let row = rows.into_iter().find(|row| row["exchange"] == exchange);
            row.expect("a row")
        };
        let row = standing();
        assert_eq!((&row["wins"], &row["clicks"]), (&json!(0), &json!(0)));
        let bills = match exchange {
            "second" => "/n/win/",
            _ => "/n/bill/",
        };
        // Each on its own route is taken, and the genuine one books.
        for (route, token) in tokens {
            let path = format!("http://{}{route}{token}?p=2&c=USD", kith.bid);
            let taken = if route == "/c/" { 302 } else { 204 };
            assert_eq!(kith.get(&path).0, taken, "{exchange}: {route}");
            let booked = if route == bills { "0.002" } else { "0" };
            if route == bills || standing()["impressions"] == json!(0) {
                assert_eq!(standing()["spend"], *booked, "{exchange}: {route}");
            }
        }
        assert_eq!(standing()["impressions"], json!(1));
    }
    kith.until_shown("kith_notices_total{outcome=\"forged\"} 72");
}

/// What an exchange encrypts is believed of nobody who does not: a plain number can be written by anybody on the way.
#[test]
fn a_plain_price_is_not_believed_where_prices_are_encrypted() {
    let dir = tempfile::tempdir().expect("a folder");
    // The example of Authorized Buyers' documentation: a price of 100 micros.
    let file = |name: &str, key: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, key).expect("written");
        path.display().to_string()
    };
    let keys = format!(
        "[[exchanges.demo.price_keys]]\nencryption = {:?}\nintegrity = {:?}\n",
        file("e", "skU7Ax_NL5pPAFyKdkfZjZz2-VhIN8bjj1rVFOaJ_5o="),
        file("i", "arO23ykdNqUQ5LEoQ0FVmPkBd7xB5CO89PDZlSjpFxo="),
    );
    let kith = Kith::start(&dir.path().join("data"), &keys);
    kith.campaigns(1, &[("one", json!({}))]);
    let spend = |exchange: &str| {
        let rows = kith.report("exchange");
        let row = rows.into_iter().find(|row| row["exchange"] == exchange);
        row.map(|row| row["spend"].clone())
    };
    for (exchange, notice, price, spent) in [
        ("demo", "burl", "0", "0.005"),
        ("demo", "burl", "1.5", "0.01"),
        // A ten-thousandth of a dollar for a thousand.
        (
            "demo",
            "burl",
            "YWJjMTIzZGVmNDU2Z2hpN7fhCuPemCce_6msaw",
            "0.0100001",
        ),
        ("second", "nurl", "1.5", "0.0015"),
    ] {
        let bid = kith.bid(exchange, "a").expect("a bid");
        assert_eq!(kith.get(&paid(&bid, notice, price)).0, 204);
        assert_eq!(spend(exchange), Some(json!(spent)), "{exchange} {price}");
    }
    kith.until_shown("kith_notice_prices_total{what=\"plain\"} 2");
}

#[test]
fn a_budget_is_kept_over_restarts_and_told_of() {
    let dir = tempfile::tempdir().expect("a folder");
    let strict = "[budget]\nmode = \"strict\"\n";
    let kith = Kith::start(dir.path(), strict);
    kith.campaigns(
        1,
        &[(
            "one",
            json!({"budget": {"total": "0.05"}, "pacing": "asap"}),
        )],
    );
    let bids: Vec<Value> = (0..20)
        .map_while(|n| kith.bid("demo", &format!("p{n}")))
        .collect();
    assert_eq!(bids.len(), 10);
    assert_eq!(kith.get(&paid(&bids[0], "burl", "5")).0, 204);
    assert_eq!(kith.get(&paid(&bids[1], "lurl", "")).0, 204);
    assert!(kith.bid("demo", "x").is_some(), "one was lost");
    assert!(kith.bid("demo", "x").is_none());
    kith.service.drain();
    let kith = Kith::start(dir.path(), strict);
    assert!(kith.bid("demo", "x").is_none());
    // A notice of a bid before the stop, sent to where the service is now.
    let here = |url: String| {
        let path = url
            .find("/n/")
            .map(|at| url[at..].to_owned())
            .expect("a path");
        format!("http://{}{path}", kith.asked.bid)
    };
    assert_eq!(
        kith.get(&here(paid(&bids[0], "burl", "5"))).0,
        204,
        "taken before"
    );
    assert_eq!(kith.get(&here(paid(&bids[2], "burl", "2"))).0, 204);
    let rows = kith.report("line_item");
    assert_eq!(
        (&rows[0]["impressions"], &rows[0]["spend"], &rows[0]["bids"]),
        (&json!(2), &json!("0.007"), &json!(11))
    );
    let (_, budgets) = kith.get(&kith.admin("/v1/budgets"));
    let budgets: Value = serde_json::from_str(&budgets).expect("JSON");
    assert_eq!(
        budgets["budgets"],
        json!([{"line_item": "one", "per": "total", "currency": "USD", "limit": "0.05", "spent": "0.007", "reserved": "0.043",
            "forgotten": "0.043", "lent": "0", "overspent": "0"}])
    );
}

#[test]
fn switches_stop_bids_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    kith.campaigns(1, &[("one", json!({}))]);
    let switches = kith.admin("/v1/switches");
    for what in [
        json!({"line_item": "one"}),
        json!({"advertiser": "acme"}),
        json!({"campaign": "one"}),
        json!({"exchange": "demo"}),
        json!({}),
    ] {
        let mut off = what.clone();
        off["off"] = true.into();
        let (status, text) = kith.post(&switches, &off.to_string());
        assert_eq!(status, 200, "{text}");
        assert!(kith.bid("demo", "a").is_none(), "{what}");
        assert_eq!(
            kith.bid("second", "a").is_some(),
            what.get("exchange").is_some(),
            "{what}"
        );
        off["off"] = false.into();
        assert_eq!(kith.post(&switches, &off.to_string()).0, 200);
        assert!(kith.bid("demo", "a").is_some(), "{what}");
    }
    let long = format!(r#"{{"off": true, "line_item": "{}"}}"#, "x".repeat(100_000));
    for (bad, status, says) in [
        ("{}", 422, "missing field `off`"),
        (
            r#"{"off": true, "colour": "red"}"#,
            422,
            "unknown field `colour`",
        ),
        (
            r#"{"off": false, "off": true}"#,
            422,
            "duplicate field `off`",
        ),
        (
            r#"{"off": true, "line_item": "one", "line_item": "two"}"#,
            422,
            "duplicate field `line_item`",
        ),
        (
            r#"{"off": true, "line_item": null}"#,
            422,
            "expected a string",
        ),
        (
            r#"{"off": true, "line_item": "one", "exchange": "demo"}"#,
            422,
            "more than one",
        ),
        (
            r#"{"off": true, "line_item": "onr"}"#,
            404,
            "did you mean `one`?",
        ),
        (
            r#"{"off": true, "campaign": "elsewhere"}"#,
            404,
            "the live campaigns have no campaign",
        ),
        (
            r#"{"off": true, "advertiser": ""}"#,
            404,
            "no advertiser of that name",
        ),
        (
            r#"{"off": true, "exchange": "demos"}"#,
            404,
            "did you mean `demo`?",
        ),
        (
            r#"{"off": false, "exchange": "elsewhere"}"#,
            404,
            "no exchange of that name is configured",
        ),
        (&long, 404, "no line item of that name"),
    ] {
        let (told, text) = kith.post(&switches, bad);
        assert_eq!((told, text.contains(says)), (status, true), "{text}");
        assert!(text.len() < 1_000, "{}", text.len());
    }
    let (_, text) = kith.get(&switches);
    assert_eq!(text, r#"{"off":[]}"#, "none of these is one");
    // What went from the campaigns is switched on all the same.
    let off = r#"{"off": true, "line_item": "one"}"#;
    assert_eq!(kith.post(&switches, off).0, 200);
    kith.campaigns(2, &[("two", json!({}))]);
    assert!(kith.bid("demo", "a").is_some());
    assert_eq!(kith.post(&switches, off).0, 200, "off it is");
    let on = r#"{"off": false, "line_item": "one"}"#;
    assert_eq!(kith.post(&switches, on).0, 200);
    assert_eq!(kith.post(&switches, on).0, 404);
    assert_eq!(
        kith.post(&switches, r#"{"off": true, "exchange": "demo"}"#)
            .0,
        200
    );
    kith.service.drain();
    let kith = Kith::start(dir.path(), "");
    assert!(kith.bid("demo", "a").is_none() && kith.bid("second", "a").is_some());
    let (_, text) = kith.get(&kith.admin("/v1/switches"));
    assert_eq!(text, r#"{"off":[{"exchange":"demo"}]}"#);
}

#[test]
fn contacts_of_other_channels_count() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    kith.campaigns(1, &[("one", json!({"caps": [{"count": 2, "per": "24h"}]}))]);
    let exposures = kith.admin("/v1/exposures");
    let rows = [
        r#"{"source": "buyeruid", "id": "a", "line_item": "one"}"#,
        r#"{"source": "buyeruid", "id": "a", "line_item": "one", "at": "2026-01-01T00:00:00Z"}"#,
        r#"{"source": "buyeruid", "id": "a", "line_item": "two"}"#,
        r#"{"source": "buyeruid", "id": "a"}"#,
        "nonsense",
    ];
    let (status, text) = kith.post(&exposures, &rows.join("\n"));
    let told: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((status, &told["accepted"]), (200, &json!(2)), "{text}");
    let lines: Vec<&Value> = told["rejected"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| &row["line"])
        .collect();
    assert_eq!(lines, [&json!(3), &json!(4), &json!(5)]);
    assert!(
        kith.bid("demo", "a").is_some(),
        "one contact, the other is long ago"
    );
    assert!(kith.bid("demo", "a").is_none(), "a contact and an open bid");
    assert!(kith.bid("demo", "b").is_some());
    // An explanation says so, and how the line item stands.
    let request = json!({"id": "r", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}],
        "device": {"geo": {"country": "USA"}}, "user": {"buyeruid": "a"}});
    let (status, text) = kith.post(&kith.admin("/v1/explain/demo"), &request.to_string());
    let told: Value = serde_json::from_str(&text).expect("JSON");
    let one = &told["imps"][0]["line_items"][0];
    assert_eq!((status, &one["reason"]), (200, &json!("capped")), "{one:#}");
    assert_eq!(
        one["ledger"],
        json!({"budgets": [], "pacing_share": 1.0, "stopped": false,
            "caps": [{"of": "line_item", "count": 2, "per_seconds": 86400, "shown": 2}]})
    );
}

/// Each segment has what was delivered to people in it whom a line item wanted for that: somebody in two counts in both.
#[test]
fn the_report_knows_segments() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    let rows = "source,id,segments\nbuyeruid,one,vip\nbuyeruid,both,vip|new\nbuyeruid,other,old\n";
    let url = kith.admin("/v1/datasets/crm/versions/1");
    let upload = kith.agent.put(&url).header("content-type", "text/csv");
    assert_eq!(upload.send(rows).expect("an answer").status(), 201);
    let targeting = "segments one of ['crm/vip', 'crm/new'] and segments none of ['crm/old']";
    kith.campaigns(
        1,
        &[
            ("wanted", json!({"targeting": targeting})),
            ("anybody", json!({"price": {"cpm": "1", "currency": "USD"}})),
        ],
    );
    for (person, clicks) in [
        ("one", true),
        ("both", false),
        ("both", false),
        ("other", false),
    ] {
        let bid = kith.bid("demo", person).expect("a bid");
        assert_eq!(kith.get(&paid(&bid, "burl", "1")).0, 204);
        if clicks {
            let markup = bid["adm"].as_str().expect("markup");
            let from = markup.find("/c/").expect("a click's URL");
            let path = markup[from..].split('\'').next().expect("an end");
            assert_eq!(kith.get(&format!("http://{}{path}", kith.bid)).0, 302);
        }
    }
    let check = |kith: &Asked| {
        let begun = Instant::now();
        loop {
            let rows = kith.report("segment");
            if rows.len() == 2 && rows[1]["bids"] == 3 && rows[1]["clicks"] == 1 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{rows:?}");
            thread::sleep(Duration::from_millis(20));
        }
        let rows = kith.report("segment,line_item");
        let shown: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!([
                    row["segment"],
                    row["line_item"],
                    row["bids"],
                    row["impressions"],
                    row["clicks"],
                    row["spend"]
                ])
            })
            .collect();
        assert_eq!(
            shown,
            [
                json!(["crm/new", "wanted", 2, 2, 0, "0.002"]),
                json!(["crm/vip", "wanted", 3, 3, 1, "0.003"]),
            ]
        );
        assert!(rows[0].get("no_bids").is_none());
    };
    check(&kith);
    kith.service.drain();
    check(&Kith::start(dir.path(), ""));
}

/// Where an exchange bills by what was shown, the markup has a pixel, and there is no `burl`; clicks are counted in every format.
#[test]
fn impressions_are_billed_by_a_pixel_and_clicks_counted_in_every_format() {
    let dir = tempfile::tempdir().expect("a folder");
    let more = "[exchanges.shown]\ndefault_tmax_ms = 60000\nbilling = \"impression\"\n";
    let kith = Kith::start(dir.path(), more);
    let vast = "<VAST version='4.0'><Ad><InLine><AdSystem>k</AdSystem><AdTitle>t</AdTitle><Impression><![CDATA[https://a.example/i]]></Impression>\
        <Creatives><Creative><Linear><VideoClicks><ClickThrough><![CDATA[${KITH_CLICK_URL}]]></ClickThrough></VideoClicks></Linear></Creative></Creatives>\
        </InLine></Ad></VAST>";
    let document = json!({
        "advertisers": [{"id": "acme", "domain": "acme.example", "currency": "USD"}],
        "creatives": [
            {"id": "box", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "click_url": "https://acme.example/?a=1&b=2",
                "adm": "<a href='${KITH_CLICK_URL}'>x</a><img src='https://t.example/?g=${GDPR}'>"},
            {"id": "film", "advertiser": "acme", "type": "video", "w": 640, "h": 360, "duration": 15, "mimes": ["video/mp4"], "protocols": [7],
                "adm": vast},
            {"id": "text", "advertiser": "acme", "type": "native", "assets": [{"title": {"text": "Boots"}}]}],
        "line_items": [{"id": "one", "creatives": ["box", "film", "text"], "targeting": "country = 'USA'",
            "price": {"cpm": "5", "currency": "USD"}}],
    });
    let url = kith.admin("/v1/datasets/campaigns/versions/1");
    let upload = kith
        .agent
        .put(&url)
        .header("content-type", "application/json");
    let mut answer = upload.send(&document.to_string()).expect("an answer");
    let text = answer.body_mut().read_to_string().expect("a text");
    assert_eq!(answer.status(), 201, "{text}");
    let native = json!({"ver": "1.2", "assets": [{"id": 1, "required": 1, "title": {"len": 90}}]})
        .to_string();
    let formats = [
        ("banner", json!({"w": 300, "h": 250})),
        (
            "video",
            json!({"mimes": ["video/mp4"], "protocols": [7], "minduration": 5, "maxduration": 30, "w": 640, "h": 360}),
        ),
        ("native", json!({"ver": "1.2", "request": native})),
    ];
    let mut shown = 0;
    for exchange in ["shown", "demo"] {
        for (format, offer) in &formats {
            let request = json!({"id": "r", "imp": [{"id": "1", *format: offer}], "device": {"geo": {"country": "USA"}},
                "regs": {"gdpr": 0}});
            let url = format!("http://{}/bid/{exchange}", kith.bid);
            let (status, text) = kith.post(&url, &request.to_string());
            assert_eq!(status, 200, "{format}: {text}");
            let answer: Value = serde_json::from_str(&text).expect("JSON");
            let bid = &answer["seatbid"][0]["bid"][0];
            let markup = bid["adm"].as_str().expect("markup");
            assert!(!markup.contains("KITH_"), "{markup}");
            if *format == "native" {
                let native: Value = serde_json::from_str(markup).expect("JSON");
                assert_eq!(
                    native["imptrackers"].is_array(),
                    exchange == "shown",
                    "{native}"
                );
            }
            let path = |word: &str| {
                let from = markup.find(word)?;
                let length = markup[from..].find(['\'', '"', ']', '?'])?;
                Some(format!(
                    "http://{}{}",
                    kith.bid,
                    &markup[from..from + length]
                ))
            };
            let click = path("/c/").unwrap_or_else(|| panic!("{format}: {markup}"));
            assert_eq!(kith.get(&click).0, 302, "{format}");
            assert_eq!(bid.get("burl").is_some(), exchange == "demo", "{bid}");
            match path("/n/bill/") {
                Some(pixel) => {
                    assert_eq!(exchange, "shown", "{markup}");
                    assert!(
                        markup.contains("?p=${AUCTION_PRICE}&c=${AUCTION_CURRENCY}"),
                        "{markup}"
                    );
                    for _ in 0..2 {
                        assert_eq!(kith.get(&format!("{pixel}?p=2")).0, 204);
                    }
                    shown += 1;
                }
                None => assert_eq!(exchange, "demo", "{markup}"),
            }
        }
    }
    let rows = kith.report("exchange");
    let row = rows
        .iter()
        .find(|row| row["exchange"] == "shown")
        .expect("a row");
    assert_eq!(
        (&row["impressions"], &row["spend"]),
        (&json!(shown), &json!("0.006")),
        "{row}"
    );
    let clicks = || {
        kith.report("creative")
            .iter()
            .map(|row| row["clicks"].as_u64().expect("a count"))
            .collect::<Vec<_>>()
    };
    let begun = Instant::now();
    while clicks() != [2, 2, 2] {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", clicks());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Kith as a process of its own, which can be killed.
struct Process(Child);

impl Process {
    fn start(dir: &Path) -> (Self, Asked) {
        let kith = Command::new(env!("CARGO_BIN_EXE_kith"));
        Self::run(kith, dir).expect("kith says where it listens")
    }

    /// Under strace, which makes something of its system calls; nothing where that ended it before it listened.
    fn traced(dir: &Path, inject: &str) -> Option<(Self, Asked)> {
        let mut strace = Command::new("strace");
        // Calls of all files, but what goes to the terminal.
        strace.args(["--quiet=all", "-f", "-o", "/dev/null", "-e", inject]);
        strace.args(["-P", dir.join("ledger/journal").to_str()?]);
        strace.args(["-P", dir.join("ledger").to_str()?]);
        strace.args(["-P", dir.join("incoming/atomic-1.part").to_str()?]);
        strace.args(["-P", dir.join("incoming").to_str()?]);
        strace.arg(env!("CARGO_BIN_EXE_kith"));
        strace.env("KITH__LIMITS__JOURNAL_BYTES", SHORT_JOURNAL.to_string());
        Self::run(strace, dir)
    }

    fn run(mut command: Command, dir: &Path) -> Option<(Self, Asked)> {
        let mut child = command
            .arg("serve")
            .env("KITH__BID__LISTEN", "127.0.0.1:0")
            .env("KITH__ADMIN__LISTEN", "127.0.0.1:0")
            .env("KITH__DATA__DIR", dir)
            .env("KITH__BUDGET__MODE", "strict")
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
        Some((process, Asked::at(bid, admin)?))
    }

    /// Stops it as an operator does, and says whether it was killed before it had ended.
    fn stopped(&mut self) -> bool {
        self.signal_children("-TERM");
        self.0.wait().expect("an end").code() != Some(0)
    }

    /// What strace runs outlives it, unless it is told.
    fn signal_children(&self, signal: &str) {
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
        self.signal_children("-KILL");
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whatever moment it is killed at: a notice that was answered is booked, and none is booked twice.
#[test]
fn a_kill_at_any_moment_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut process, mut kith) = Process::start(dir.path());
    let budget = json!({"budget": {"total": "1000"}, "pacing": "asap"});
    kith.campaigns(1, &[("one", budget)]);
    let mut answered = 0u64;
    for round in 0..6 {
        let bids = (0..40).map_while(|n| kith.bid("demo", &format!("p{n}")));
        let urls: Vec<String> = bids.map(|bid| paid(&bid, "burl", "5")).collect();
        let path = |url: &String| url[url.find("/n/").expect("a path")..].to_owned();
        let paths: Vec<String> = urls.iter().map(path).collect();
        let over = AtomicBool::new(false);
        let told: Vec<(String, bool)> = thread::scope(|threads| {
            let senders = [0, 1].map(|half| {
                let (paths, kith, over) = (&paths, &kith, &over);
                threads.spawn(move || {
                    let own = paths.iter().skip(half).step_by(2);
                    own.map(|path| {
                        let url = format!("http://{}{path}", kith.bid);
                        let answer =
                            (!over.load(Ordering::Relaxed)).then(|| kith.agent.get(&url).call());
                        let taken = matches!(&answer, Some(Ok(answer)) if answer.status() == 204);
                        (path.clone(), taken)
                    })
                    .collect::<Vec<_>>()
                })
            });
            thread::sleep(Duration::from_millis(3 + round * 7));
            drop(process);
            over.store(true, Ordering::Relaxed);
            let all = senders.map(|sender| sender.join().expect("no panic"));
            all.into_iter().flatten().collect()
        });
        answered += told.iter().filter(|(_, taken)| *taken).count() as u64;
        (process, kith) = Process::start(dir.path());
        let booked = kith
            .report("line_item")
            .first()
            .map_or(0, |row| row["impressions"].as_u64().expect("a count"));
        let in_doubt: Vec<&String> = told
            .iter()
            .filter(|(_, taken)| !taken)
            .map(|(path, _)| path)
            .collect();
        let most = answered + in_doubt.len() as u64;
        assert!(
            (answered..=most).contains(&booked),
            "round {round}: {booked} of {answered} to {most}"
        );
        // All of them once more: what was booked is not booked again, the rest is.
        for (path, _) in &told {
            let url = format!("http://{}{path}", kith.bid);
            assert_eq!(kith.get(&url).0, 204);
        }
        answered += in_doubt.len() as u64;
        let rows = kith.report("line_item");
        assert_eq!(rows[0]["impressions"], json!(answered), "round {round}");
        let spend = format!("{}", answered as f64 * 0.005);
        let spend = spend.get(..7).unwrap_or(&spend);
        assert!(
            rows[0]["spend"]
                .as_str()
                .expect("a text")
                .starts_with(spend.trim_end_matches('0')),
            "{rows:?}"
        );
    }
    assert!(answered > 100, "{answered}");
}

/// Of each imp that a line item was live for, the report says what became of it, and it adds up: over hours, over versions of the
/// campaigns, and over a restart.
#[test]
fn the_report_says_why_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let kith = Kith::start(dir.path(), "");
    let price = |cpm: &str| json!({"cpm": cpm, "currency": "USD"});
    let line_items = [
        (
            "dear",
            json!({"price": price("9"), "budget": {"total": "0.02"}, "pacing": "asap"}),
        ),
        (
            "capped",
            json!({"price": price("8"), "caps": [{"count": 3, "per": "1d"}]}),
        ),
        ("cheap", json!({})),
        ("low", json!({"price": price("1")})),
        ("abroad", json!({"targeting": "country = 'FRA'"})),
        (
            "picky",
            json!({"targeting": "country = 'USA' and not(country = 'FRA')", "price": price("10")}),
        ),
        ("paused", json!({"status": "paused"})),
    ];
    kith.campaigns(1, &line_items);
    for _ in 0..10 {
        assert!(kith.bid("demo", "p").is_some());
    }
    // A test is in no report.
    let test = json!({"id": "r", "test": 1, "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}],
        "device": {"geo": {"country": "USA"}}, "user": {"buyeruid": "p"}});
    let url = format!("http://{}/bid/demo", kith.bid);
    assert_eq!(kith.post(&url, &test.to_string()).0, 200);
    let counted = |kith: &Asked, imps: u64| {
        let begun = Instant::now();
        loop {
            let rows = kith.report("line_item");
            let dear = rows.iter().find(|row| row["line_item"] == "dear");
            if dear.is_some_and(|dear| dear["imps"] == json!(imps)) {
                return rows;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{rows:?}");
            thread::sleep(Duration::from_millis(20));
        }
    };
    let check = |rows: &[Value], expected: &[(&str, u64, u64, Value)]| {
        let names: Vec<&Value> = rows.iter().map(|row| &row["line_item"]).collect();
        let mut wanted: Vec<&str> = expected.iter().map(|(name, ..)| *name).collect();
        wanted.sort_unstable();
        assert_eq!(names, wanted);
        for (name, bids, matched, why) in expected {
            let row = rows.iter().find(|row| row["line_item"] == *name);
            let row = row.expect("a row");
            assert_eq!(row["no_bids"], *why, "{name}: {row}");
            assert_eq!(row["bids"], json!(bids), "{name}");
            assert_eq!(row["matched"], json!(matched), "{name}");
            let reasons = row["no_bids"].as_object().expect("an object").values();
            let sum: u64 = reasons.map(|count| count.as_u64().expect("a count")).sum();
            assert_eq!(json!(sum + bids), row["imps"], "{name}");
        }
    };
    // The dearest of all is asked first and bids; the others that could only lose are not asked further.
    let expected = [
        ("picky", 10, 10, json!({"not_targeted": 0})),
        ("dear", 0, 10, json!({"outbid": 10, "not_targeted": 0})),
        ("capped", 0, 10, json!({"outbid": 10, "not_targeted": 0})),
        ("cheap", 0, 10, json!({"outbid": 10, "not_targeted": 0})),
        ("low", 0, 10, json!({"outbid": 10, "not_targeted": 0})),
        ("abroad", 0, 0, json!({"not_targeted": 10})),
    ];
    check(&counted(&kith, 10), &expected);
    // Without that one, the next in turn: two that the budget holds, three that the cap allows, then the cheap one.
    kith.campaigns(2, &line_items[..5]);
    for _ in 0..10 {
        assert!(kith.bid("demo", "p").is_some());
    }
    let expected = [
        ("picky", 10, 10, json!({"not_targeted": 0})),
        (
            "dear",
            2,
            20,
            json!({"outbid": 10, "budget": 8, "not_targeted": 0}),
        ),
        (
            "capped",
            3,
            20,
            json!({"outbid": 12, "capped": 5, "not_targeted": 0}),
        ),
        ("cheap", 5, 20, json!({"outbid": 15, "not_targeted": 0})),
        ("low", 0, 20, json!({"outbid": 20, "not_targeted": 0})),
        ("abroad", 0, 0, json!({"not_targeted": 20})),
    ];
    check(&counted(&kith, 20), &expected);
    let by_exchange = kith.report("exchange");
    assert_eq!(by_exchange[0]["imps"], json!(110), "{by_exchange:?}");
    let (_, csv) = kith.get(&kith.admin("/v1/report?by=line_item&format=csv"));
    let table: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let column = |name: &str| {
        let place = table[0].iter().position(|head| *head == name);
        place.unwrap_or_else(|| panic!("{name}: {csv}"))
    };
    assert_eq!(table[2][column("line_item")], "capped");
    assert_eq!(table[2][column("no_bid_outbid")], "12");
    assert_eq!(table[2][column("no_bid_budget")], "0");
    assert_eq!(table[2][column("matched")], "20");
    assert!(kith.report("segment").is_empty(), "nobody wants a segment");
    let by_creative = kith.report("creative");
    assert!(by_creative[0].get("imps").is_none(), "{by_creative:?}");
    kith.service.drain();
    let kith = Kith::start(dir.path(), "");
    check(&counted(&kith, 20), &expected);
}

/// System calls that make the ledger durable, and a few that come between. In each, at the first, the second and so on,
/// the process is killed before the call is made: a notice that was answered is booked, and none is booked twice.
#[test]
#[ignore = "takes minutes, and strace; scripts/long-tests runs it"]
#[expect(clippy::print_stdout, reason = "what it came to is to be looked at")]
fn a_kill_at_every_durable_call_loses_and_doubles_nothing() {
    let template = tempfile::tempdir().expect("a folder");
    let (process, kith) = Process::start(template.path());
    let line_item = json!({"budget": {"total": "1000"}, "pacing": "asap"});
    kith.campaigns(1, &[("one", line_item)]);
    let mut before = 0;
    // Enough that the journal is begun anew at the next write.
    for n in 0..40 {
        let bid = kith.bid("demo", &format!("b{n}")).expect("a bid");
        assert_eq!(kith.get(&paid(&bid, "burl", "5")).0, 204);
        before += 1;
    }
    drop(process);
    let journal = template.path().join("ledger/journal");
    assert!(std::fs::metadata(journal).expect("a journal").len() > SHORT_JOURNAL);
    for call in [
        "write",
        "fdatasync",
        "ftruncate",
        "fsync",
        "rename",
        "mkdir",
        "openat",
        "unlink",
    ] {
        let mut kills = 0;
        for n in 1.. {
            let dir = tempfile::tempdir().expect("a folder");
            copy_all(template.path(), dir.path());
            let inject = format!("inject={call}:signal=KILL:when={n}");
            let mut answered: u64 = before;
            let mut sent = Vec::new();
            let is_killed = match Process::traced(dir.path(), &inject) {
                None => true,
                Some((mut process, kith)) => {
                    for person in 0..12 {
                        let Some(bid) = kith.try_bid("demo", &format!("p{person}")) else {
                            break;
                        };
                        let url = paid(&bid.expect("a bid"), "burl", "5");
                        let path = url[url.find("/n/").expect("a path")..].to_owned();
                        let answer = kith.agent.get(&url).call();
                        let is_taken = matches!(&answer, Ok(answer) if answer.status() == 204);
                        answered += u64::from(is_taken);
                        sent.push(path);
                        if answer.is_err() {
                            break;
                        }
                    }
                    process.stopped()
                }
            };
            let (process, kith) = Process::start(dir.path());
            let booked = || {
                kith.report("line_item")[0]["impressions"]
                    .as_u64()
                    .expect("a count")
            };
            let most = before + sent.len() as u64;
            assert!(
                (answered..=most).contains(&booked()),
                "{call} {n}: {} of {answered} to {most}",
                booked()
            );
            for path in &sent {
                assert_eq!(
                    kith.get(&format!("http://{}{path}", kith.bid)).0,
                    204,
                    "{call} {n}"
                );
            }
            assert_eq!(booked(), most, "{call} {n}");
            let row = &kith.report("line_item")[0];
            let spend: f64 = row["spend"]
                .as_str()
                .expect("a text")
                .parse()
                .expect("a number");
            assert!(
                (spend - most as f64 * 0.005).abs() < 1e-9,
                "{call} {n}: {row}"
            );
            drop(process);
            if !is_killed {
                break;
            }
            kills += 1;
        }
        println!("{call}: killed at each of {kills} calls");
    }
}

/// Longer than this, a journal is begun anew.
const SHORT_JOURNAL: u64 = 1_024;

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            std::fs::create_dir_all(&target).expect("made");
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("copied");
        }
    }
}
