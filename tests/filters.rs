//! A suppression list as a bidder sees it: uploaded as a filter, swapped, rolled back, held when it is worse than declared, brought
//! back after a restart.

#![allow(clippy::disallowed_methods, reason = "a test may wait")]

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kith::audience::{Builder, FalsePositiveRate, RowFormat, VersionMeta};
use kith::config::Config;
use kith::ids::{Keyer, Kind, SecretKey};
use kith::service::Service;
use serde_json::{Value, json};

/// A running service, and how to ask it.
struct Kith {
    agent: ureq::Agent,
    service: Service,
}

impl Kith {
    fn start(dir: &Path) -> Self {
        let toml = format!(
            "[bid]\nlisten = \"127.0.0.1:0\"\nthreads = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[data]\ndir = {:?}\n\
             [limits]\nqueue_target_ms = 20000\n[exchanges.demo]\ndefault_tmax_ms = 60000\n\
             [datasets.optout]\nkind = \"filter\"\nfalse_positive_rate = 0.001\n",
            dir.display().to_string()
        );
        let config = Config::from_toml(&toml, "test").expect("a configuration");
        assert_eq!(config.warnings().len(), 0, "{:?}", config.warnings());
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        let service = Service::start(config).expect("a service");
        let kith = Self { agent, service };
        let deadline = Instant::now() + Duration::from_secs(30);
        while kith.get("/readyz").0 != 200 {
            assert!(Instant::now() < deadline, "never ready");
            thread::sleep(Duration::from_millis(5));
        }
        kith
    }

    fn admin(&self, path: &str) -> String {
        format!("http://{}{path}", self.service.admin_addr())
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut answer = self.agent.get(self.admin(path)).call().expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        (answer.status().as_u16(), text)
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).1).expect("JSON")
    }

    fn put(&self, version: &str, kind: &str, body: &[u8]) -> Value {
        let url = self.admin(&format!("/v1/datasets/{version}"));
        let answer = self.agent.put(url).content_type(kind).send(body);
        let text = answer.expect("an answer").body_mut().read_to_string();
        serde_json::from_str(&text.expect("text")).expect("JSON")
    }

    #[track_caller]
    fn upload(&self, version: &str, kind: &str, body: &[u8]) {
        let report = self.put(version, kind, body);
        assert_eq!(report["state"], "active", "{report:#}");
    }

    fn activate(&self, version: u64, force: bool) -> u16 {
        let url = self.admin("/v1/datasets/optout/activate");
        let body = json!({"version": version, "force": force}).to_string();
        let answer = self.agent.post(url).content_type("application/json");
        answer.send(body).expect("an answer").status().as_u16()
    }

    /// Whether it bids for this person.
    fn bids(&self, user: &str) -> bool {
        let request = request(user).to_string();
        let url = format!("http://{}/bid/demo", self.service.bid_addr());
        let answer = self.agent.post(url).send(request).expect("an answer");
        match answer.status().as_u16() {
            200 => true,
            204 => false,
            other => panic!("a bid request was answered {other}"),
        }
    }
}

fn request(user: &str) -> Value {
    json!({"id": "r", "at": 1, "tmax": 5000, "imp": [{"id": "1", "banner": {"w": 300, "h": 250}, "bidfloor": 0.01}],
        "site": {"domain": "news.example"}, "user": {"buyeruid": user}})
}

fn campaigns() -> Vec<u8> {
    json!({
        "advertisers": [{"id": "acme", "domain": "acme.example"}],
        "creatives": [{"id": "cr", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "<a>", "secure": true}],
        "line_items": [{"id": "vip", "creatives": ["cr"], "price": {"cpm": "4.20", "currency": "USD"}, "seat": "s",
            "targeting": "segments one of ['crm/vip'] and segments none of ['optout/list']"}]})
    .to_string()
    .into_bytes()
}

fn people(ids: std::ops::Range<u32>) -> Vec<u8> {
    let lines: String = ids.map(|n| format!("u{n}\n")).collect();
    lines.into_bytes()
}

/// A version file of the list, made offline under the service's key.
fn file(dir: &Path, version: u64, ids: std::ops::Range<u32>) -> Vec<u8> {
    let key = SecretKey::load(&dir.join("key")).expect("the key");
    let meta = VersionMeta {
        kind: Kind::Filter,
        dataset: "optout".parse().expect("a name"),
        version,
        base: None,
        as_of: None,
    };
    let rate = FalsePositiveRate::of_share(0.001).expect("a rate");
    let builder = Builder::new(meta, Keyer::new(&key)).expect("a filter");
    let mut builder = builder.with_false_positive_rate(rate);
    let format = RowFormat::Text {
        source: "buyeruid".to_owned(),
        segment: "list".parse().expect("a name"),
    };
    builder
        .read_rows(&format, &people(ids)[..], &mut |_| {})
        .expect("rows");
    let mut file = Vec::new();
    builder.finish(&mut file).expect("a version");
    file
}

/// As if twice as many ids had been put in as it was made for, by somebody who gets every checksum right.
fn overfull(file: &mut [u8], other: &[u8]) {
    let number = |file: &[u8], at: usize| {
        let bytes = file[at..at + 8].try_into().expect("eight");
        usize::try_from(u64::from_le_bytes(bytes)).expect("in memory")
    };
    let (filter, sums) = (512..512 + number(file, 272), number(file, 312));
    // Behind the filter's own head; the bits of another list of the same length are as good as any.
    let blocks = filter.start + 64..filter.end;
    for (byte, also) in file[blocks.clone()].iter_mut().zip(&other[blocks]) {
        *byte |= also;
    }
    let crc = |bytes: &[u8]| crc32fast::hash(bytes).to_le_bytes();
    let section = crc(&file[filter]);
    file[260..264].copy_from_slice(&section);
    let of_blocks: Vec<u8> = file[512..sums].chunks(1 << 16).flat_map(crc).collect();
    file[sums..].copy_from_slice(&of_blocks);
    file[308..312].copy_from_slice(&crc(&of_blocks));
    let header = crc(&file[..508]);
    file[508..512].copy_from_slice(&header);
}

#[test]
fn a_suppression_list_is_obeyed_swapped_held_and_brought_back() {
    const TEXT: &str = "text/plain";
    const FILE: &str = "application/vnd.kith.snapshot";
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let kith = Kith::start(dir);
    kith.upload("campaigns/versions/1", "application/json", &campaigns());
    let crm: String = (0..600).map(|n| format!("buyeruid,u{n},vip\n")).collect();
    let crm = format!("source,id,segments\n{crm}");
    kith.upload("crm/versions/1", "text/csv", crm.as_bytes());
    assert!(kith.bids("u7") && kith.bids("u500"));

    let list = |version: u64| format!("optout/versions/{version}?source=buyeruid&segment=list");
    kith.upload(&list(1), TEXT, &people(400..550));
    assert!(kith.bids("u7") && !kith.bids("u500"));
    kith.upload(&list(2), TEXT, &[&people(400..549)[..], b"u7\n"].concat());
    assert!(!kith.bids("u7") && !kith.bids("u500") && kith.bids("u549"));

    // Whoever asks is told.
    let known = kith.json("/v1/users/buyeruid/u7");
    let on = json!({"segment": "optout/list", "layer": "version", "version": 2, "expires": null, "expired": false, "false_positive_rate": 0.001});
    assert_eq!(known["segments"][1], on, "{known:#}");
    let url = kith.admin("/v1/explain/demo");
    let answer = kith.agent.post(url).send(request("u7").to_string());
    let answer = answer.expect("an answer").body_mut().read_to_string();
    let told: Value = serde_json::from_str(&answer.expect("text")).expect("JSON");
    assert_eq!(told["datasets"]["optout"], 2, "{told:#}");
    assert_eq!(
        told["segments"],
        json!(["crm/vip", "optout/list"]),
        "{told:#}"
    );
    assert_eq!(
        told["imps"][0]["line_items"][0]["reason"], "targeting",
        "{told:#}"
    );

    assert_eq!(kith.activate(1, false), 200);
    assert!(kith.bids("u7"), "rolled back");

    // One worse than it declares, by somebody's hand.
    let mut worse = file(dir, 3, 400..550);
    overfull(&mut worse, &file(dir, 3, 1400..1550));
    overfull(&mut worse, &file(dir, 3, 2400..2550));
    overfull(&mut worse, &file(dir, 3, 3400..3550));
    let held = kith.put("optout/versions/3", FILE, &worse);
    assert_eq!(held["state"], "held", "{held:#}");
    let checks = held["checks"].as_array().expect("checks");
    let failed: Vec<&Value> = checks.iter().filter(|c| c["ok"] == false).collect();
    assert_eq!(failed.len(), 1, "{held:#}");
    assert_eq!(failed[0]["name"], "false_positives");
    let detail = failed[0]["detail"].as_str().expect("a detail");
    assert!(
        detail.contains("0.1 % was declared; it was made for 150 ids and seems to hold"),
        "{detail}"
    );
    assert_eq!(kith.activate(3, false), 409);
    assert!(kith.bids("u7") && !kith.bids("u500"));

    // The honest file is served, and so it is after a restart.
    kith.upload("optout/versions/4", FILE, &file(dir, 4, 401..551));
    assert!(kith.bids("u7") && kith.bids("u400") && !kith.bids("u550"));
    let metrics = kith.get("/metrics").1;
    for line in [
        "kith_filter_false_positive_rate{dataset=\"optout\",kind=\"declared\"} 0.001",
        "kith_dataset_ids{dataset=\"optout\"} 150",
        "kith_dataset_held_versions{dataset=\"optout\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    kith.service.drain();
    let kith = Kith::start(dir);
    assert!(kith.bids("u7") && kith.bids("u400") && !kith.bids("u550"));
    let view = kith.json("/v1/datasets/optout");
    assert_eq!(
        (&view["kind"], &view["live"]),
        (&json!("filter"), &json!(4))
    );
    kith.service.drain();
}
