//! The demo's fixtures speak of each other: whoever renames a segment, a deal or an id in one file is told here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

type Segments = BTreeMap<(String, String), BTreeSet<String>>;

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name);
    std::fs::read_to_string(path).expect(name)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn crm() -> Segments {
    let text = text("crm.csv");
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    let mut all = Segments::new();
    for row in rows.records() {
        let row = row.expect("a row of four fields");
        let field = |at| row.get(at).expect("four fields").to_owned();
        let segments = field(2).split('|').map(str::to_owned).collect();
        let twice = all.insert((field(0), field(1)), segments);
        assert!(twice.is_none(), "{} is there twice", field(1));
    }
    all
}

fn site(name: &str) -> Segments {
    let string = |v: &Value| v.as_str().expect("a string").to_owned();
    let row = |line: &str| {
        let row = json(line);
        let segments = row["segments"].as_array().expect("a list");
        (
            (string(&row["source"]), string(&row["id"])),
            segments.iter().map(string).collect(),
        )
    };
    text(name).lines().map(row).collect()
}

fn requests() -> BTreeMap<String, Value> {
    let all: BTreeMap<String, Value> = text("requests.jsonl")
        .lines()
        .map(|line| {
            let request = json(line);
            (request["id"].as_str().expect("an id").to_owned(), request)
        })
        .collect();
    assert_eq!(all.len(), text("requests.jsonl").lines().count());
    all
}

fn segments_in(targeting: &str) -> Vec<(&str, &str)> {
    let quoted = targeting.split('\'').skip(1).step_by(2);
    quoted.filter_map(|text| text.split_once('/')).collect()
}

#[test]
fn every_segment_that_is_targeted_is_in_the_audiences() {
    let (crm, site) = (crm(), site("site.ndjson"));
    let campaigns = json(&text("campaigns.json"));
    let mut targeted = 0;
    for line_item in campaigns["line_items"].as_array().expect("a list") {
        let targeting = line_item["targeting"].as_str().expect("text");
        for (dataset, segment) in segments_in(targeting) {
            let audience = match dataset {
                "crm" => &crm,
                "site" => &site,
                other => panic!("no fixture for {other}"),
            };
            let members = audience.values().filter(|s| s.contains(segment)).count();
            assert!(members > 0, "{dataset}/{segment} is empty");
            targeted += 1;
        }
    }
    assert!(targeted >= 5);
}

#[test]
fn the_people_of_the_requests_are_in_the_audiences_as_their_names_say() {
    let (crm, site) = (crm(), site("site.ndjson"));
    let requests = requests();
    let has = |audience: &Segments, source: &str, id: &str, segment: &str| {
        let key = (source.to_owned(), id.to_owned());
        audience.get(&key).is_some_and(|s| s.contains(segment))
    };
    let at = |request: &str, pointer: &str| {
        let value = requests.get(request).and_then(|r| r.pointer(pointer));
        let text = value.and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("{request} has no {pointer}"))
            .to_owned()
    };
    for vip in [
        "vip-customer",
        "two-imps",
        "coppa",
        "gdpr-no-consent",
        "us-opted-out",
        "blocked-category",
        "floor-too-high",
        "wrong-size",
        "audio-only",
    ] {
        assert!(
            has(&crm, "buyeruid", &at(vip, "/user/buyeruid"), "vip"),
            "{vip}"
        );
    }
    let extended = at("extended-id-2.5", "/user/ext/eids/0/uids/0/id");
    assert!(has(&crm, "uidapi.com", &extended, "vip"));
    let fan = at("private-deal", "/user/buyeruid");
    assert!(has(&site, "buyeruid", &fan, "sports-fans"));
    let deal = at("private-deal", "/imp/0/pmp/deals/0/id");
    assert!(text("campaigns.json").contains(&format!("\"deals\": [\"{deal}\"]")));
    let stranger = (
        "buyeruid".to_owned(),
        at("unknown-person", "/user/buyeruid"),
    );
    assert!(!crm.contains_key(&stranger) && !site.contains_key(&stranger));
    let upper = at("ios-ifa-upper-case", "/device/ifa");
    assert_ne!(upper, upper.to_lowercase());
    assert!(has(&site, "ifa", &upper.to_lowercase(), "cart"));
}

#[test]
fn the_second_version_of_site_is_the_first_with_a_purchase() {
    let (first, second) = (site("site.ndjson"), site("site-2.ndjson"));
    let requests = requests();
    let shopper = requests
        .get("cart-abandoner")
        .and_then(|r| r.pointer("/device/ifa")?.as_str())
        .expect("an ifa");
    let changed: Vec<&str> = first
        .iter()
        .filter(|(key, segments)| second.get(*key) != Some(segments))
        .map(|((_, id), _)| id.as_str())
        .collect();
    assert_eq!(changed, [shopper]);
    let key = ("ifa".to_owned(), shopper.to_owned());
    let gained = &second[&key] - &first[&key];
    assert_eq!(gained, BTreeSet::from(["buyers".to_owned()]));
    assert!(first[&key].contains("cart"));
}
