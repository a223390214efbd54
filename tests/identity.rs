//! An identity dataset as a bidder sees it: people are known by ids that only the graph relates, until it is rolled back, and again
//! after a restart.

#![allow(clippy::disallowed_methods, reason = "a test may wait")]

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kith::config::Config;
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
             [datasets.graph]\nkind = \"identity\"\n",
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

    fn activate(&self, version: u64) -> u16 {
        let url = self.admin("/v1/datasets/graph/activate");
        let body = json!({"version": version}).to_string();
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
            "targeting": "segments one of ['crm/vip']"}]})
    .to_string()
    .into_bytes()
}

/// The cookie and the address of some persons, each of whom is a customer.
fn links(persons: std::ops::Range<u32>) -> String {
    let rows = persons.map(|n| format!("buyeruid,u{n},c{n}\nemail,e{n}@example.com,c{n}\n"));
    format!("source,id,person\n{}", rows.collect::<String>())
}

#[test]
fn people_are_known_by_all_ids_that_a_graph_relates() {
    const CSV: &str = "text/csv";
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let kith = Kith::start(dir);
    kith.upload("campaigns/versions/1", "application/json", &campaigns());
    // By address, as an upload of the shop's has it, and by customer.
    let crm = "source,id,segments\nemail,e7@example.com,vip\nperson,c9,vip\n";
    kith.upload("crm/versions/1", CSV, crm.as_bytes());
    let bids = |kith: &Kith| [7, 8, 9].map(|n| kith.bids(&format!("u{n}")));
    assert_eq!(bids(&kith), [false, false, false]);

    kith.upload("graph/versions/1", CSV, links(0..200).as_bytes());
    assert_eq!(bids(&kith), [true, false, true]);
    let url = kith.admin("/v1/explain/demo");
    let answer = kith.agent.post(url).send(request("u7").to_string());
    let answer = answer.expect("an answer").body_mut().read_to_string();
    let told: Value = serde_json::from_str(&answer.expect("text")).expect("JSON");
    assert_eq!(told["datasets"]["graph"], 1, "{told:#}");
    assert_eq!(told["segments"], json!(["crm/vip"]), "{told:#}");

    // The next one knows them no more; the one before is a call away.
    kith.upload("graph/versions/2", CSV, links(10..205).as_bytes());
    assert_eq!(bids(&kith), [false, false, false]);
    assert_eq!(kith.activate(1), 200);
    assert_eq!(bids(&kith), [true, false, true]);

    // A join that went wrong: every tenth cookie is two persons'.
    let shared: String = (0..20)
        .map(|n| format!("buyeruid,u{},c{}\n", 10 * n, n + 1))
        .collect();
    let held = kith.put(
        "graph/versions/3",
        CSV,
        format!("{}{shared}", links(0..200)).as_bytes(),
    );
    assert_eq!(held["state"], "held", "{held:#}");
    assert_eq!(held["rejected"][0]["line"], 2, "{held:#}");
    let reason = held["rejected"][0]["reason"].as_str().expect("a reason");
    assert!(
        reason.starts_with("two or more persons claim the id"),
        "{reason}"
    );
    assert_eq!(kith.activate(3), 409);

    let delta = kith.put("graph/versions/4?mode=delta&base=1", CSV, b"");
    let detail = delta["detail"].as_str().expect("a detail");
    assert!(detail.contains("POST /v1/links"), "{detail}");

    let metrics = kith.get("/metrics").1;
    for line in [
        "kith_dataset_version{dataset=\"graph\"} 1",
        "kith_dataset_ids{dataset=\"graph\"} 400",
        "kith_dataset_held_versions{dataset=\"graph\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    kith.service.drain();
    let kith = Kith::start(dir);
    assert_eq!(bids(&kith), [true, false, true]);
    let view = kith.json("/v1/datasets/graph");
    assert_eq!(
        (&view["kind"], &view["live"]),
        (&json!("identity"), &json!(1))
    );
    kith.service.drain();
}
