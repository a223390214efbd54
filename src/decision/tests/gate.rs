//! The gate before everything of the person: for each combination of signals, who is looked up and what may match.

use super::*;
use crate::privacy::tests::encode::{Tc, gpp, us_section};

const VENDOR: &str = "[privacy]\nvendor_id = 7\n";

/// One way in which a signal comes: its place, its value, and whether it closes the gate.
type Way = (&'static str, Value, bool);

/// Whether somebody is looked at, asked in every way in which line items can depend on the person.
const PERSONAL: [&str; 17] = [
    "segments one of ['crm/vip']",
    "segments none of ['crm/vip']",
    "segments all of ['crm/vip']",
    "not segments one of ['crm/vip']",
    "segments is empty",
    "segments is not empty",
    "not (segments is empty)",
    "user_age > 17",
    "user_age <= 17",
    "user_gender = 'F'",
    "not (user_gender = 'F')",
    "request_segments none of ['x']",
    "user_keywords one of ['k']",
    "user_keywords none of ['k']",
    "city = 'Paris'",
    "not (city = 'Paris')",
    "segments one of ['crm/vip'] or segments none of ['crm/vip']",
];

fn personal_items() -> Value {
    let targetings = PERSONAL.iter().enumerate();
    let mut items: Vec<Value> = targetings
        .map(|(n, targeting)| item(&format!("p{n}"), "5", json!({"targeting": targeting})))
        .collect();
    items.push(item(
        "nobody",
        "2",
        json!({"targeting": "segments is null"}),
    ));
    items.push(item("anybody", "1", json!({})));
    Value::Array(items)
}

/// Notes which line items' targeting was true.
#[derive(Default)]
struct Matched(Vec<String>);

impl Recorder for Matched {
    fn line_item(&mut self, _: usize, line_item: &LineItem, verdict: Result<(), Refusal>) {
        if verdict.is_ok() || verdict == Err(Refusal::Outbid) {
            self.0.push(line_item.id.to_string());
        }
    }
}

/// Puts a value at a path like `regs.ext.gdpr`.
fn put(into: &mut Value, path: &str, value: &Value) {
    let place = path.split('.').fold(into, |place, key| &mut place[key]);
    *place = value.clone();
}

#[test]
fn no_combination_of_signals_lets_anybody_be_looked_at_who_may_not() {
    let full = Tc::to(&[1, 2, 3, 4, 7, 9, 10]).text();
    let none = Tc::to(&[]).text();
    let us = |set: &[(usize, u8)]| gpp(&[(7, us_section(1, 27, set, None))]);
    let no: Way = ("", Value::Null, false);
    let signals: [Vec<Way>; 7] = [
        vec![
            no.clone(),
            ("regs.coppa", json!(0), false),
            ("regs.coppa", json!("1"), true),
        ],
        vec![
            no.clone(),
            ("device.lmt", json!(0), false),
            ("device.lmt", json!(1), true),
        ],
        vec![no.clone(), ("device.dnt", json!(true), true)],
        vec![no.clone(), ("regs.ext.gpc", json!("1"), true)],
        vec![
            no.clone(),
            ("regs.us_privacy", json!("1YNN"), false),
            ("regs.ext.us_privacy", json!("1YYN"), true),
            ("regs.us_privacy", json!("2"), true),
        ],
        vec![
            no.clone(),
            ("regs.gpp", json!(us(&[])), false),
            ("regs.gpp", json!(us(&[(6, 1)])), true),
            ("regs.ext.gpp", json!("nonsense"), true),
        ],
        vec![
            no.clone(),
            ("regs.gdpr", json!(0), false),
            ("regs.gdpr", json!(1), true),
            ("device.geo.country", json!("FRA"), true),
            ("user.consent", json!(full), false),
            ("user.ext.consent", json!(none), true),
            ("user.consent", json!("CONSENT_STRING"), true),
            ("user.ext", json!([1]), true),
        ],
    ];
    let world = World::under(
        VENDOR,
        personal_items(),
        &[("crm", "buyeruid,u1,vip\nifa,f1,vip\n")],
    );
    let combinations: usize = signals.iter().map(Vec::len).product();
    let (mut open, mut closed) = (0, 0);
    for mut number in 0..combinations {
        let mut fields = json!({
            "user": {"buyeruid": "u1", "yob": 1990, "gender": "F", "keywords": "k",
                     "data": [{"id": "d", "segment": [{"id": "1"}]}]},
            "device": {"ifa": "f1", "geo": {"city": "Paris", "country": "USA"}}, "regs": {}});
        let mut closes = false;
        for ways in &signals {
            let (path, value, way_closes) = &ways[number % ways.len()];
            number /= ways.len();
            closes |= way_closes;
            if !path.is_empty() {
                put(&mut fields, path, value);
            }
        }
        let mut matched = Matched::default();
        world.decide_before(&fields, &mut matched, |decision, scratch| {
            assert_eq!(decision.gate.is_err(), closes, "{fields}");
            let counts = scratch.lookups()[0];
            let lookups = counts.found + counts.absent + counts.damaged;
            assert_eq!(lookups, if closes { 0 } else { 2 }, "{fields}");
        });
        if closes {
            closed += 1;
            assert_eq!(matched.0, ["anybody", "nobody"], "{fields}");
        } else {
            open += 1;
            assert!(matched.0.len() > 5, "{fields}: {:?}", matched.0);
            assert!(!matched.0.contains(&"nobody".to_owned()), "{fields}");
        }
    }
    assert!(open > 20 && closed > 1_000, "{open} open, {closed} closed");
}

#[test]
fn each_dataset_is_read_for_its_own_purposes() {
    let config = format!(
        "{VENDOR}[datasets.measured]\npurposes = [7, 9]\n[datasets.basic]\npurposes = [2]\n"
    );
    let items = json!([
        item(
            "crm",
            "1",
            json!({"targeting": "segments one of ['crm/vip']"})
        ),
        item(
            "not_crm",
            "1",
            json!({"targeting": "segments none of ['crm/vip']"})
        ),
        item(
            "basic",
            "1",
            json!({"targeting": "segments one of ['basic/a']"})
        ),
        item(
            "not_basic",
            "1",
            json!({"targeting": "segments none of ['basic/b']"})
        ),
        item(
            "measured",
            "1",
            json!({"targeting": "segments all of ['measured/m']"})
        ),
        item(
            "not_measured",
            "1",
            json!({"targeting": "not segments one of ['measured/n']"})
        ),
        item(
            "both",
            "1",
            json!({"targeting": "segments one of ['crm/vip', 'basic/a']"})
        ),
        item(
            "never_uploaded",
            "1",
            json!({"targeting": "segments none of ['later/x']"})
        ),
        item("in_none", "1", json!({"targeting": "segments is empty"})),
        item(
            "in_some",
            "1",
            json!({"targeting": "segments is not empty"})
        ),
        item("old", "1", json!({"targeting": "user_age > 1"})),
        item("paris", "1", json!({"targeting": "city = 'Paris'"})),
        item("france", "1", json!({"targeting": "country = 'FRA'"})),
    ]);
    let world = World::under(
        &config,
        items,
        &[
            ("basic", "buyeruid,u1,a\n"),
            ("crm", "buyeruid,u1,vip\n"),
            ("measured", "buyeruid,u1,m\n"),
        ],
    );
    let check = |consented: &[u8], looked_up: [u32; 3], want: &[&str]| {
        let fields = json!({
            "regs": {"gdpr": 1},
            "user": {"buyeruid": "u1", "yob": 1990, "consent": Tc::to(consented).text()},
            "device": {"geo": {"country": "FRA", "city": "Paris"}}});
        let mut matched = Matched::default();
        world.decide_before(&fields, &mut matched, |_, scratch| {
            let found = scratch.lookups().iter().map(|counts| counts.found);
            assert_eq!(found.collect::<Vec<_>>(), looked_up, "{consented:?}");
        });
        matched.0.sort();
        let mut want: Vec<&str> = want.to_vec();
        want.push("france");
        want.sort_unstable();
        assert_eq!(matched.0, want, "{consented:?}");
    };
    check(&[], [0, 0, 0], &[]);
    check(&[1, 3], [0, 0, 0], &[]);
    check(&[2], [1, 0, 0], &["basic", "not_basic", "both", "in_some"]);
    check(&[7, 9], [0, 0, 1], &["measured", "not_measured", "in_some"]);
    check(
        &[1, 3, 4],
        [0, 1, 0],
        &["crm", "both", "never_uploaded", "in_some", "old", "paris"],
    );
    check(
        &[1, 2, 3, 4, 7, 9],
        [1, 1, 1],
        &[
            "basic",
            "both",
            "crm",
            "in_some",
            "measured",
            "never_uploaded",
            "not_basic",
            "not_measured",
            "old",
            "paris",
        ],
    );
}

#[test]
fn who_consents_to_all_that_there_is_has_no_limits() {
    let items = json!([item(
        "nobody's",
        "1",
        json!({"targeting": "segments is empty"})
    )]);
    let world = World::under(VENDOR, items, &[("crm", "buyeruid,u1,vip\n")]);
    let with = |purposes: &[u8]| json!({"regs": {"gdpr": 1}, "user": {"buyeruid": "u2", "consent": Tc::to(purposes).text()}});
    let all: Vec<u8> = (1..=11).collect();
    world.check(with(&all), &["1 nobody's @ 1"]);
    assert_eq!(explained(&world, with(&all))["privacy"]["verdict"], "open");
    world.check(with(&[2]), &["targeting"]);
}

#[test]
fn privacy_macros_in_markup_say_what_the_request_says() {
    let adm = "<img src=\"https://t.example/?a=${GDPR}&b=${GDPR_CONSENT_755}&c=${GPP_STRING_755}&d=${GPP_SID}&e=${AUCTION_PRICE}\">";
    let document = json!({
        "advertisers": [{"id": "acme", "domain": "acme.example"}],
        "creatives": [{"id": "box", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": adm}],
        "line_items": [item("li", "2", json!({}))]});
    let book = compile(document.to_string().as_bytes()).expect("a good document");
    let mut world = World::under(VENDOR, json!([]), &[]);
    let frame = world.generation.frame.clone();
    world.generation = Generation::assemble(2, Arc::new(book), Some(2), vec![], frame);
    let tc = Tc::to(&[1]).text();
    let all = gpp(&[(2, tc.clone()), (10, us_section(1, 16, &[], None))]);
    for (fields, want) in [
        (json!({}), "a=&b=&c=&d=".to_owned()),
        (json!({"regs": {"gdpr": 0}}), "a=0&b=&c=&d=".to_owned()),
        (
            json!({"regs": {"ext": {"gdpr": 1}}, "user": {"ext": {"consent": tc}}}),
            format!("a=1&b={tc}&c=&d="),
        ),
        (
            json!({"regs": {"gpp": all, "gpp_sid": [2, 10]}}),
            format!("a=&b=&c={all}&d=2_10"),
        ),
        // What homes say otherwise, or is too long for such a string, is not passed on.
        (
            json!({"regs": {"gdpr": 1}, "user": {"consent": tc, "ext": {"consent": "CPother"}}}),
            "a=1&b=&c=&d=".to_owned(),
        ),
        (
            json!({"regs": {"gdpr": 0}, "user": {"consent": "A".repeat(4_097)}}),
            "a=0&b=&c=&d=".to_owned(),
        ),
        // What is no such string is not put into a page.
        (
            json!({"regs": {"gdpr": 1, "gpp": "\"><script>"}, "user": {"consent": "'x"}}),
            "a=1&b=&c=&d=".to_owned(),
        ),
    ] {
        let told = explained(&world, fields.clone());
        let adm = told["response"]["seatbid"][0]["bid"][0]["adm"]
            .as_str()
            .expect("markup");
        let want = format!("<img src=\"https://t.example/?{want}&e=${{AUCTION_PRICE}}\">");
        assert_eq!(adm, want, "{fields}");
    }
}

#[test]
fn an_explanation_shows_no_more_than_the_decision_read() {
    let config = format!("{VENDOR}[datasets.basic]\npurposes = [2]\n");
    let world = World::under(
        &config,
        json!([item("li", "1", json!({}))]),
        &[("basic", "buyeruid,u1,a\n"), ("crm", "buyeruid,u1,vip\n")],
    );
    let told = |consented: &[u8]| {
        let consent = Tc::to(consented).text();
        explained(
            &world,
            json!({"regs": {"gdpr": 1}, "user": {"buyeruid": "u1", "consent": consent}}),
        )
    };
    let limited = told(&[2]);
    assert_eq!(limited["privacy"]["verdict"], "limited");
    assert_eq!(limited["privacy"]["purposes"], json!([2]));
    assert_eq!(limited["privacy"]["datasets"], json!(["basic"]));
    assert_eq!(limited["segments"], json!(["basic/a"]));
    assert_eq!(limited["ids"][0]["why"], "looked up: in basic");
    let denied = told(&[]);
    assert_eq!(denied["privacy"]["verdict"], "closed");
    assert_eq!(denied["privacy"]["signal"], "gdpr");
    assert_eq!(
        (&denied["segments"], &denied["ids"]),
        (&json!([]), &json!([]))
    );
    assert!(
        !denied.to_string().contains(&Tc::to(&[]).text()),
        "a consent string is shown"
    );
}
