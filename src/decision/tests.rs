#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]

use std::sync::Arc;

use serde_json::{Value, json};

mod again;
mod filters;
mod gate;
mod traffic;

use super::*;
use crate::audience::{Audience, Builder, RowFormat, VersionMeta};
use crate::campaigns::{Book, compile};
use crate::config::Config;
use crate::generation::{Frame, LiveVersion, Members};
use crate::ids::{Keyer, Kind, Name, SecretKey};
use crate::money::Rates;
use crate::privacy::Purposes;

mod formats;
mod responses;

const NOW: &str = "2026-11-21T12:00:00Z";

/// A small deployment: line items, CSV rows by dataset, an exchange.
struct World {
    generation: Generation,
    config: Config,
}

impl World {
    fn new(line_items: Value, datasets: &[(&str, &str)]) -> Self {
        Self::under("", line_items, datasets)
    }

    /// The same under a configuration.
    fn under(config: &str, line_items: Value, datasets: &[(&str, &str)]) -> Self {
        Self::of(config, book(line_items), datasets)
    }

    fn with_book(book: Book, datasets: &[(&str, &str)]) -> Self {
        Self::of("", book, datasets)
    }

    fn of(config: &str, book: Book, datasets: &[(&str, &str)]) -> Self {
        let config = Config::from_toml(config, "kith.toml").expect("a good configuration");
        let keyer = Keyer::new(&SecretKey::from_bytes([7; 32]));
        let audiences = datasets
            .iter()
            .enumerate()
            .map(|(ordinal, (name, rows))| LiveVersion {
                name: name.parse().expect("a name"),
                ordinal,
                version: 1,
                covers: 0,
                members: Members::Exact(Arc::new(audience(name, rows, &keyer))),
                purposes: Purposes::of(
                    &config
                        .datasets
                        .get_or_default(&name.parse().expect("a name"))
                        .purposes,
                ),
            })
            .collect();
        Self::assembled(config, keyer, book, audiences)
    }

    fn assembled(config: Config, keyer: Keyer, book: Book, live: Vec<LiveVersion>) -> Self {
        let rates =
            Rates::new(Currency::USD, [("EUR".parse().expect("a code"), 0.5)]).expect("rates");
        let frame = Frame {
            rates: Arc::new(rates),
            ..Frame::of(&config, keyer)
        };
        let generation = Generation::assemble(1, Arc::new(book), Some(1), live, frame);
        Self { generation, config }
    }

    /// Decides on a request with these fields, and hands decision and scratch to `look`.
    fn decide(&self, fields: &Value, look: impl FnOnce(&Decision<'_>, &Scratch)) {
        self.decide_before(fields, &mut Silent, look);
    }

    fn decide_before(
        &self,
        fields: &Value,
        recorder: &mut impl Recorder,
        look: impl FnOnce(&Decision<'_>, &Scratch),
    ) {
        let arena = Bump::new();
        let mut request = json!({"id": "r", "imp": [imp(json!({}))], "tmax": 100});
        merge(&mut request, fields);
        let body = arena.alloc_str(&request.to_string());
        let request = crate::openrtb::read(body.as_bytes(), &arena, 16).expect("a request");
        let exchange = self.config.exchanges.get("demo").expect("the exchange");
        let mut scratch = Scratch::default();
        let now = NOW.parse().expect("a time");
        let decision = decide(
            &self.generation,
            exchange,
            request,
            now,
            &arena,
            &mut scratch,
            recorder,
        );
        again::check(&self.generation, exchange, request, &decision, &scratch);
        look(&decision, &scratch);
    }

    /// The bids as `line item @ price [deal]`, or the no-bid's reason.
    fn bids(&self, fields: Value) -> Vec<String> {
        self.told(&fields, &mut Silent)
    }

    fn told(&self, fields: &Value, recorder: &mut impl Recorder) -> Vec<String> {
        let mut shown = Vec::new();
        self.decide_before(fields, recorder, |decision, _| match decision.outcome {
            Ok(bids) => {
                shown.extend(bids.iter().map(|bid| {
                    let deal = bid.deal.map(|deal| format!(" {deal}")).unwrap_or_default();
                    format!("{} {} @ {}{deal}", bid.impid, bid.line_item.id, bid.price)
                }));
            }
            Err(reason) => shown.push(reason.as_str().to_owned()),
        });
        shown
    }

    #[track_caller]
    fn check(&self, fields: Value, want: &[&str]) {
        let shown = fields.to_string();
        assert_eq!(self.bids(fields), want, "{shown}");
    }
}

fn audience(name: &str, rows: &str, keyer: &Keyer) -> Audience {
    let meta = VersionMeta {
        kind: Kind::Audience,
        dataset: name.parse().expect("a name"),
        version: 1,
        base: None,
        as_of: None,
    };
    let mut builder = Builder::new(meta, keyer.clone()).expect("a builder");
    let full = |row: &str| {
        if row.matches(',').count() == 2 {
            format!("{row},\n")
        } else {
            format!("{row}\n")
        }
    };
    let csv = format!(
        "source,id,segments,expires\n{}",
        rows.lines().map(full).collect::<String>()
    );
    builder
        .read_rows(&RowFormat::Csv, csv.as_bytes(), &mut |_| {})
        .expect("rows");
    let mut file = Vec::new();
    builder.finish(&mut file).expect("a version");
    Audience::from_bytes(&file).expect("readable")
}

fn book(line_items: Value) -> Book {
    let document = json!({
        "advertisers": [
            {"id": "acme", "domain": "acme.example", "categories": ["IAB3-1"]},
            {"id": "other", "domain": "other.example"}],
        "creatives": [
            {"id": "box", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "<a>", "secure": true},
            {"id": "plain", "advertiser": "other", "type": "banner", "w": 300, "h": 250, "adm": "<b>", "attr": [6], "language": "fr"},
            {"id": "wide", "advertiser": "acme", "type": "banner", "w": 728, "h": 90, "adm": "<c>", "secure": true}],
        "line_items": line_items});
    compile(document.to_string().as_bytes()).expect("a good document")
}

/// A line item with creative `box` at a price, targeting everybody, with changes.
fn item(id: &str, cpm: &str, changes: Value) -> Value {
    let mut item = json!({"id": id, "creatives": ["box"], "targeting": "not test or test", "price": {"cpm": cpm, "currency": "USD"}});
    merge(&mut item, &changes);
    item
}

fn imp(changes: Value) -> Value {
    let mut imp = json!({"id": "1", "banner": {"w": 300, "h": 250}});
    merge(&mut imp, &changes);
    imp
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().expect("an object") {
        into[key] = value.clone();
    }
}

/// One line item for everybody.
fn one(changes: Value) -> World {
    World::new(json!([item("li", "2", changes)]), &[])
}

#[test]
fn the_highest_price_wins_and_of_equals_the_first_id() {
    let world = World::new(
        json!([
            item("c", "3", json!({})),
            item("b", "3", json!({})),
            item("a", "1", json!({}))
        ]),
        &[],
    );
    world.check(json!({}), &["1 b @ 3"]);
    let turned = World::new(
        json!([
            item("b", "3", json!({})),
            item("a", "1", json!({})),
            item("c", "3", json!({}))
        ]),
        &[],
    );
    turned.check(json!({}), &["1 b @ 3"]);
}

#[test]
fn every_imp_is_an_auction_of_its_own() {
    let world = World::new(
        json!([
            item("a", "1", json!({})),
            item("w", "9", json!({"creatives": ["wide"]}))
        ]),
        &[],
    );
    let wide = imp(json!({"id": "2", "banner": {"format": [{"w": 728, "h": 90}]}}));
    let video = imp(json!({"id": "3", "banner": null, "video": {}}));
    world.check(
        json!({"imp": [imp(json!({})), wide, video]}),
        &["1 a @ 1", "2 w @ 9"],
    );
    world.check(json!({"imp": [video]}), &["format"]);
    world.check(
        json!({"imp": [imp(json!({"banner": {"w": 1, "h": 1}}))]}),
        &["size"],
    );
}

#[test]
fn a_person_is_in_the_union_of_all_her_ids_and_datasets() {
    let targeting = json!({"targeting": "segments all of ['crm/vip', 'site/cart'] and segments none of ['site/buyers']"});
    let world = World::new(
        json!([item("li", "2", targeting)]),
        &[
            ("crm", "buyeruid,u1,vip\nbuyeruid,u2,other\nifa,f9,vip\n"),
            (
                "site",
                "ifa,f1,cart\nuidapi.com,x,buyers\nbuyeruid,old,cart|buyers,2026-11-21T11:59:59Z\nbuyeruid,u2,cart\n",
            ),
        ],
    );
    world.check(
        json!({"user": {"buyeruid": "u1"}, "device": {"ifa": "F1"}}),
        &["1 li @ 2"],
    );
    world.check(json!({"user": {"buyeruid": "u1"}}), &["targeting"]);
    world.check(
        json!({"user": {"id": "u1"}, "device": {"ifa": "f1"}}),
        &["targeting"],
    );
    let buyer =
        json!({"buyeruid": "u1", "eids": [{"source": "UIDAPI.com", "uids": [{"id": "x"}]}]});
    world.check(
        json!({"user": buyer, "device": {"ifa": "f1"}}),
        &["targeting"],
    );
    // A membership that has expired is none.
    world.check(
        json!({"user": {"buyeruid": "old"}, "device": {"ifa": "f9"}}),
        &["targeting"],
    );
    world.check(
        json!({"user": {"buyeruid": "u2"}, "device": {"ifa": "f9"}}),
        &["1 li @ 2"],
    );
    world.check(json!({}), &["targeting"]);
}

/// Every signal that closes the gate, against line items that depend on the person for and against: no lookup, no match.
#[test]
fn a_closed_gate_means_no_lookup_and_no_match_either_way() {
    let targetings = [
        "segments one of ['crm/vip']",
        "segments none of ['crm/vip']",
        "not segments one of ['crm/vip']",
        "user_age > 17",
        "not (user_gender = 'F')",
        "request_segments none of ['x']",
        "user_keywords none of ['x']",
        "not (city = 'Paris')",
        "segments is empty",
        "segments is not empty",
    ];
    let items: Vec<Value> = targetings
        .iter()
        .enumerate()
        .map(|(n, targeting)| item(&format!("p{n}"), "5", json!({"targeting": targeting})))
        .collect();
    let world = World::new(json!(items), &[("crm", "buyeruid,u1,vip\nifa,f1,vip\n")]);
    let anonymous = World::new(
        json!([item(
            "anyone",
            "1",
            json!({"targeting": "segments is null"})
        )]),
        &[("crm", "buyeruid,u1,vip\n")],
    );
    let user = |more: Value| {
        let mut user = json!({"buyeruid": "u1", "id": "x", "yob": 1990, "gender": "F", "keywords": "k", "data": [{"id": "d", "segment": [{"id": "1"}]}]});
        merge(&mut user, &more);
        user
    };
    let closed = [
        json!({"regs": {"coppa": 1}}),
        json!({"device": {"ifa": "f1", "lmt": 1}}),
        json!({"device": {"ifa": "f1", "dnt": "1"}}),
        json!({"regs": {"ext": {"gpc": "1"}}}),
        json!({"regs": {"us_privacy": "1YYN"}}),
        json!({"regs": {"ext": {"us_privacy": "junk"}}}),
        json!({"regs": {"gpp": "DBABMA~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA"}}),
        json!({"regs": {"gpp_sid": [6]}}),
        json!({"regs": {"gdpr": 1}}),
        json!({"regs": {"ext": {"gdpr": 1}}, "user": user(json!({"consent": "CPXxRfAPXxRfAAfKABENB"}))}),
        json!({"device": {"geo": {"country": "DEU", "city": "Paris"}}}),
        json!({"user": user(json!({"ext": {"consent": "CPXxRfAPXxRfAAfKABENB"}}))}),
        json!({"user": user(json!({"ext": "unreadable"}))}),
        json!({"regs": [1]}),
        json!({"regs": {"coppa": "maybe"}}),
        json!({"regs": {"coppa": 1, "gdpr": 0}}),
    ];
    for signals in closed {
        let mut fields = json!({"user": user(json!({}))});
        merge(&mut fields, &signals);
        world.decide(&fields, |decision, scratch| {
            assert!(decision.gate.is_err(), "{signals}");
            assert_eq!(
                scratch.lookups(),
                [LookupCounts::default()],
                "{signals}: somebody was looked up"
            );
            assert_eq!(
                decision.outcome.err(),
                Some(NoBid::Refused(Refusal::Targeting)),
                "{signals}"
            );
        });
        anonymous.check(fields, &["1 anyone @ 1"]);
    }
    // And with the gate open the same deployment does look, so that the test above can fail.
    world.decide(
        &json!({"user": user(json!({})), "device": {"ifa": "f1"}}),
        |decision, scratch| {
            assert!(decision.gate.is_ok() && decision.outcome.is_ok());
            assert_eq!(
                scratch.lookups(),
                [LookupCounts {
                    found: 2,
                    absent: 1,
                    damaged: 0
                }]
            );
        },
    );
}

#[test]
fn floors_are_kept_in_whatever_currency() {
    let world = one(json!({}));
    let floor = |floor: Value| json!({"imp": [imp(floor)]});
    world.check(floor(json!({"bidfloor": 2})), &["1 li @ 2"]);
    world.check(floor(json!({"bidfloor": 2.000001})), &["floor"]);
    world.check(
        floor(json!({"bidfloor": 1, "bidfloorcur": "EUR"})),
        &["1 li @ 2"],
    );
    world.check(
        floor(json!({"bidfloor": 1.01, "bidfloorcur": "EUR"})),
        &["floor"],
    );
    world.check(
        floor(json!({"bidfloor": 1, "bidfloorcur": "JPY"})),
        &["currency"],
    );
    world.check(
        floor(json!({"bidfloor": 0, "bidfloorcur": "JPY"})),
        &["1 li @ 2"],
    );
    for unreadable in [
        json!({"bidfloor": "x"}),
        json!({"bidfloor": -1}),
        json!({"bidfloor": 1, "bidfloorcur": {}}),
    ] {
        world.check(floor(unreadable), &["no_usable_imp"]);
    }
}

#[test]
fn bids_are_in_a_currency_that_the_request_allows() {
    let world = one(json!({}));
    world.check(json!({"cur": ["EUR", "USD"]}), &["1 li @ 2"]);
    world.check(json!({"cur": ["eur"]}), &["1 li @ 1"]);
    world.check(json!({"cur": ["JPY", "EUR"]}), &["1 li @ 1"]);
    world.check(json!({"cur": ["JPY"]}), &["no_currency"]);
    world.check(json!({"cur": "USD"}), &["unreadable_limit"]);
    one(json!({"price": {"cpm": "2", "currency": "JPY"}})).check(json!({}), &["currency"]);
    world.decide(&json!({"cur": ["EUR"]}), |decision, _| {
        assert_eq!(decision.currency.as_str(), "EUR")
    });
}

#[test]
fn deals_and_the_open_auction_are_separate() {
    let world = World::new(
        json!([
            item("open", "2", json!({})),
            item("deal-a", "5", json!({"deals": ["d1", "d2"]})),
            item("deal-b", "7", json!({"deals": ["d2"]}))
        ]),
        &[],
    );
    let pmp = |pmp: Value| json!({"imp": [imp(json!({"bidfloor": 1, "pmp": pmp}))]});
    world.check(json!({}), &["1 open @ 2"]);
    world.check(
        pmp(json!({"deals": [{"id": "d1"}, {"id": "d2"}, {"id": "d3"}]})),
        &["1 deal-a @ 5 d1", "1 deal-b @ 7 d2", "1 open @ 2"],
    );
    world.check(
        pmp(json!({"private_auction": 1, "deals": [{"id": "d1"}]})),
        &["1 deal-a @ 5 d1"],
    );
    world.check(
        pmp(json!({"private_auction": 1, "deals": [{"id": "dx"}]})),
        &["private_auction"],
    );
    world.check(
        pmp(json!({"private_auction": "?", "deals": [{"id": "d1"}]})),
        &["no_usable_imp"],
    );
    // A deal's own floor stands before the imp's, in dollars unless it says otherwise.
    world.check(
        pmp(json!({"private_auction": 1, "deals": [{"id": "d1", "bidfloor": 5.5}]})),
        &["floor"],
    );
    world.check(
        pmp(json!({"private_auction": 1, "deals": [{"id": "d1", "bidfloor": 0.5}]})),
        &["1 deal-a @ 5 d1"],
    );
    world.check(pmp(json!({"private_auction": 1, "deals": [{"id": "d1", "bidfloor": 3, "bidfloorcur": "EUR"}]})), &["floor"]);
    world.check(
        pmp(json!({"private_auction": 1, "deals": [{"id": "d1", "bidfloor": "?"}]})),
        &["currency"],
    );
    // A fixed price is the deal's floor.
    world.check(
        pmp(json!({"private_auction": 1, "deals": [{"id": "d1", "bidfloor": 4.5, "at": 3}]})),
        &["1 deal-a @ 4.5 d1"],
    );
    world.check(
        pmp(json!({"private_auction": 1, "deals": [{"id": "d1", "wseat": ["nobody"]}]})),
        &["private_auction"],
    );
    world.check(
        pmp(json!({"private_auction": 1, "deals": [{"id": "d1", "wseat": ["kith"]}]})),
        &["1 deal-a @ 5 d1"],
    );
    world.check(
        pmp(json!({"private_auction": 1, "deals": [{"id": "d1", "wseat": 7}]})),
        &["private_auction"],
    );
    world.check(
        pmp(json!({"private_auction": 1, "deals": [{"id": "d1", "wadomain": ["other.example"]}]})),
        &["private_auction"],
    );
    world.check(
        pmp(json!({"private_auction": 1, "deals": [{"id": "d1", "wadomain": ["acme.example"]}]})),
        &["1 deal-a @ 5 d1"],
    );
}

#[test]
fn what_a_request_forbids_is_not_bid() {
    let world = one(json!({}));
    for (fields, want) in [
        (json!({"wseat": ["kith"]}), "1 li @ 2"),
        (json!({"wseat": ["acme"]}), "seat"),
        (json!({"bseat": ["kith"]}), "seat"),
        (json!({"bcat": ["IAB3"]}), "blocked_category"),
        (json!({"bcat": ["IAB4"]}), "1 li @ 2"),
        (json!({"acat": ["IAB4"]}), "blocked_category"),
        (json!({"badv": ["ACME.example"]}), "blocked_advertiser"),
        (json!({"badv": ["example"]}), "blocked_advertiser"),
        (json!({"bcat": "IAB3"}), "unreadable_limit"),
        // What is blank blocks nothing; an allow list of it allows nothing.
        (
            json!({"bcat": [""], "badv": [null], "bapp": ["", null], "bseat": [""]}),
            "1 li @ 2",
        ),
        (json!({"bcat": ["", 7.5, []]}), "1 li @ 2"),
        (json!({"bcat": ["", []]}), "unreadable_limit"),
        (json!({"wseat": [""]}), "unreadable_limit"),
        (json!({"badv": 7}), "unreadable_limit"),
        (json!({"wseat": [{}]}), "unreadable_limit"),
        (json!({"bcat": ["IAB4"], "cattax": []}), "unreadable_limit"),
        (json!({"tmax": 10}), "tmax"),
        (json!({"tmax": 0}), "tmax"),
        (json!({"tmax": -5}), "tmax"),
        (json!({"tmax": 1e9}), "1 li @ 2"),
        (json!({"tmax": "?"}), "1 li @ 2"),
        (json!({"site": {}, "app": {}}), "invalid"),
        (json!({"imp": [imp(json!({})), imp(json!({}))]}), "invalid"),
        (json!({"imp": [imp(json!({"id": null}))]}), "no_usable_imp"),
        (json!({"imp": [imp(json!({"secure": 1}))]}), "1 li @ 2"),
        (
            json!({"imp": [imp(json!({"secure": "?"}))]}),
            "no_usable_imp",
        ),
    ] {
        world.check(fields, &[want]);
    }
    let plain = one(json!({"creatives": ["plain"]}));
    plain.check(json!({"imp": [imp(json!({"secure": 0}))]}), &["1 li @ 2"]);
    plain.check(json!({"imp": [imp(json!({"secure": 1}))]}), &["secure"]);
    plain.check(
        json!({"imp": [imp(json!({"banner": {"w": 300, "h": 250, "battr": [6]}}))]}),
        &["blocked_attribute"],
    );
    plain.check(
        json!({"imp": [imp(json!({"banner": {"w": 300, "h": 250, "battr": "?"}}))]}),
        &["blocked_attribute"],
    );
    let btype = |blocked: Value| json!({"imp": [imp(json!({"banner": {"w": 300, "h": 250, "btype": blocked}}))]});
    plain.check(btype(json!([1, 3, 4])), &["1 li @ 2"]);
    plain.check(btype(json!([2])), &["blocked_attribute"]);
    plain.check(btype(json!("?")), &["blocked_attribute"]);
    plain.check(json!({"wlangb": ["en-US"]}), &["language"]);
    plain.check(json!({"wlangb": ["fr-CA"]}), &["1 li @ 2"]);
    plain.check(json!({"regs": {"dsa": {"dsarequired": 2}}}), &["dsa"]);
    plain.check(
        json!({"regs": {"ext": {"dsa": {"dsarequired": "3"}}}}),
        &["dsa"],
    );
    plain.check(json!({"regs": {"dsa": "?"}}), &["dsa"]);
    plain.check(json!({"regs": {"dsa": {"dsarequired": 1}}}), &["1 li @ 2"]);
    plain.check(json!({"wlang": ["en"]}), &["language"]);
    plain.check(json!({"wlang": ["FR"]}), &["1 li @ 2"]);
}

#[test]
fn line_items_run_when_they_should() {
    one(json!({"status": "paused"})).check(json!({}), &["paused"]);
    one(json!({"flight": {"start": "2026-11-21T12:00:01Z"}})).check(json!({}), &["flight"]);
    one(json!({"flight": {"end": "2026-11-21T12:00:00Z"}})).check(json!({}), &["flight"]);
    one(json!({"flight": {"start": "2026-11-21T12:00:00Z", "end": "2026-11-22T00:00:00Z"}}))
        .check(json!({}), &["1 li @ 2"]);
    World::new(json!([]), &[]).check(json!({}), &["no_line_item"]);
}

#[test]
fn the_first_creative_that_fits_is_shown_and_targeting_sees_its_size() {
    let world = one(json!({"creatives": ["wide", "box"], "targeting": "width = 300"}));
    world.decide(&json!({"imp": [imp(json!({"secure": 1, "banner": {"format": [{"w": 728, "h": 90}, {"w": 300, "h": 250}]}}))]}), |decision, _| {
        let bid = decision.outcome.expect("a bid")[0];
        assert_eq!((&*bid.creative.id, bid.size), ("box", Some(Size { w: 300, h: 250 })));
    });
}

#[test]
fn context_reaches_targeting_in_one_spelling() {
    let targeting = "country = 'USA' and os = 'ios' and browser = 'safari' and device_type = 'phone' and connection = 'wifi' \
        and site_domain = 'news.example' and categories one of ['IAB1'] and keywords one of ['a b'] and language = 'en' \
        and publisher = 'p' and exchange = 'demo' and format = 'banner' and position = 1 and floor < 0.6 and hour = 12 \
        and weekday = 6 and deals one of ['d'] and user_age > 30 and user_gender = 'F' and request_segments one of ['4:9', 'x:7'] \
        and city = 'Boston' and not interstitial and rewarded and secure and test";
    let world = one(json!({"targeting": targeting}));
    let fields = json!({
        "test": 1,
        "imp": [imp(json!({"bidfloor": 0.5, "instl": 0, "rwdd": 1, "secure": 1, "banner": {"w": 300, "h": 250, "pos": 1}, "pmp": {"deals": [{"id": "d"}]}}))],
        "site": {"domain": "News.Example", "cat": ["IAB1"], "keywords": "x,a b", "publisher": {"id": "p"}},
        "device": {"os": "iOS", "ua": "Mozilla/5.0 (iPhone) Version/17.0 Mobile Safari/604.1", "devicetype": 4, "connectiontype": 2,
            "language": "EN", "geo": {"country": "usa", "city": "Boston"}},
        "user": {"yob": 1990, "gender": "f", "data": [{"ext": {"segtax": 4}, "segment": [{"id": "9"}]}]}});
    world.check(fields.clone(), &["1 li @ 2"]);
    let explained = explained(&world, fields);
    assert_eq!(explained["decision"], "bid", "{explained:#}");
}

#[test]
fn a_price_is_multiplied_bounded_and_explained_step_by_step() {
    let world = World::new(
        json!([
            item("base", "2", json!({})),
            item(
                "scored",
                "1.5",
                json!({"price": {"cpm": "1.5", "currency": "USD", "max": "2.5", "multipliers": [
                    {"when": "segments one of ['crm/vip']", "factor": "2"},
                    {"when": "user_age > 17", "factor": "9"},
                    {"when": "width = 300", "factor": "0.9"}]}})
            )
        ]),
        &[("crm", "buyeruid,u1,vip\n")],
    );
    let known = json!({"user": {"buyeruid": "u1"}});
    world.check(known.clone(), &["1 scored @ 2.5"]);
    world.check(json!({"user": {"buyeruid": "u2"}}), &["1 base @ 2"]);
    let told = explained(&world, known);
    let price = &told["imps"][0]["line_items"][1]["price"];
    assert_eq!(
        *price,
        json!({"cpm": 1.5, "currency": "USD", "steps": [
            {"when": "segments one of ['crm/vip']", "factor": 2, "applies": true, "price": 3},
            {"when": "user_age > 17", "factor": 9, "applies": null, "price": 3},
            {"when": "width = 300", "factor": 0.9, "applies": true, "price": 2.7}],
            "min": null, "max": 2.5, "price": 2.5})
    );
    let told = &told["imps"][0]["line_items"][0];
    assert_eq!(
        (&told["reason"], &told["price"]["price"]),
        (&json!("outbid"), &json!(2))
    );
}

#[test]
fn a_price_goes_by_the_best_score_of_the_segments_it_wants() {
    let price = json!({"cpm": "2", "currency": "USD", "score": "worth", "max": "7",
        "multipliers": [{"when": "width = 300", "factor": "0.5"}]});
    let mut world = World::new(
        json!([item(
            "scored",
            "2",
            json!({"price": price, "targeting":
                "width = 300 and (segments one of ['crm/low', 'crm/high', 'crm/none', 'other/hidden'] or test) and segments none of ['crm/out']"})
        )]),
        &[(
            "crm",
            "buyeruid,low,low\nbuyeruid,both,low|high|rich\nbuyeruid,plain,none|rich\n",
        )],
    );
    let bids = |world: &World, who: &str| world.bids(json!({"user": {"buyeruid": who}}));
    // As long as there are no scores the price is what it is without.
    assert_eq!(bids(&world, "both"), ["1 scored @ 1"]);
    let scores = |high: &str| {
        let of = [
            ("crm/low", "0.5"),
            ("crm/high", high),
            ("crm/rich", "90"),
            ("crm/out", "80"),
            ("other/hidden", "70"),
        ];
        let rows = of.map(|(segment, score)| json!({"segment": segment, "score": score}));
        let document = json!({ "scores": rows }).to_string();
        crate::campaigns::Scores::read(document.as_bytes()).expect("scores")
    };
    let tie = |world: &mut World, scores: &crate::campaigns::Scores| {
        let live = |name: &Name| (name.as_str() == "worth").then_some(scores);
        world.generation.scores = world.generation.book.tie_scores(live);
    };
    tie(&mut world, &scores("3"));
    assert_eq!(bids(&world, "low"), ["1 scored @ 0.5"]);
    assert_eq!(bids(&world, "both"), ["1 scored @ 3"]);
    assert_eq!(bids(&world, "plain"), ["1 scored @ 1"]);
    let told = explained(&world, json!({"user": {"buyeruid": "both"}}));
    assert_eq!(
        told["imps"][0]["line_items"][0]["price"]["steps"],
        json!([
            {"score": 3, "of": "worth", "segment": "crm/high", "price": 6},
            {"when": "width = 300", "factor": 0.5, "applies": true, "price": 3}])
    );
    let told = explained(&world, json!({"user": {"buyeruid": "plain"}}));
    assert_eq!(
        told["imps"][0]["line_items"][0]["price"]["steps"][0],
        json!({"score": null, "of": "worth", "segment": null, "price": 2})
    );
    tie(&mut world, &scores("100"));
    assert_eq!(bids(&world, "both"), ["1 scored @ 7"], "never over its max");
}

#[test]
fn where_one_creative_is_priced_under_the_floor_the_next_is_tried() {
    let world = World::new(
        json!([item(
            "it",
            "2",
            json!({"creatives": ["box", "wide"], "price": {"cpm": "2", "currency": "USD",
            "multipliers": [{"when": "width = 300", "factor": "0.5"}]}})
        )]),
        &[],
    );
    let both =
        json!({"banner": {"format": [{"w": 300, "h": 250}, {"w": 728, "h": 90}]}, "bidfloor": 1.5});
    world.check(json!({"imp": [imp(both)]}), &["1 it @ 2"]);
}

fn explained(world: &World, fields: Value) -> Value {
    let arena = Bump::new();
    let mut request = json!({"id": "r", "imp": [imp(json!({}))], "tmax": 100});
    merge(&mut request, &fields);
    let body = request.to_string();
    let request = crate::openrtb::read(body.as_bytes(), &arena, 16).expect("a request");
    let exchange = world.config.exchanges.get("demo").expect("the exchange");
    explain(
        &world.generation,
        exchange,
        request,
        NOW.parse().expect("a time"),
    )
    .document
}

#[test]
fn an_explanation_tells_the_decisions_own_story() {
    let world = World::new(
        json!([
            item(
                "vip",
                "4.2",
                json!({"targeting": "segments one of ['crm/vip']"})
            ),
            item("cheap", "1", json!({})),
            item("paused", "9", json!({"status": "paused"}))
        ]),
        &[("crm", "buyeruid,u1,vip|sport\n")],
    );
    let told = explained(
        &world,
        json!({"user": {"buyeruid": "u1", "id": "0000", "eids": [{"source": "ifa", "uids": [{"id": "z"}]}]}}),
    );
    assert_eq!(told["segments"], json!(["crm/sport", "crm/vip"]));
    assert_eq!(told["decision"], "bid");
    assert_eq!(told["datasets"], json!({"crm": 1, "campaigns": 1}));
    let outcomes: Vec<_> = told["imps"][0]["line_items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|i| (i["id"].clone(), i["reason"].clone()))
        .collect();
    assert_eq!(
        outcomes,
        [
            (json!("cheap"), json!("outbid")),
            (json!("paused"), json!("paused")),
            (json!("vip"), json!(null))
        ]
    );
    assert_eq!(
        told["response"]["seatbid"][0]["bid"][0]["price"],
        json!(4.2)
    );
    let ids: Vec<_> = told["ids"]
        .as_array()
        .expect("ids")
        .iter()
        .map(|id| (id["source"].clone(), id["used"].clone()))
        .collect();
    assert_eq!(
        ids,
        [
            (json!("exchange:demo"), json!(false)),
            (json!("buyeruid"), json!(true)),
            (json!("ifa"), json!(false))
        ]
    );
    assert!(!told.to_string().contains("u1"), "an id is shown: {told}");
    let told = explained(
        &world,
        json!({"regs": {"coppa": 1}, "user": {"buyeruid": "u1"}}),
    );
    assert_eq!(
        (&told["privacy"]["verdict"], &told["ids"], &told["segments"]),
        (&json!("closed"), &json!([]), &json!([]))
    );
}

/// Listens to everything, as an explanation does, so that every line item is asked.
struct Attentive;

impl Recorder for Attentive {}

mod same_story {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn line_item() -> impl Strategy<Value = Value> {
        let targeting = select(vec![
            "not test or test",
            "segments one of ['crm/a', 'crm/b']",
            "segments one of ['crm/b'] and country = 'FRA'",
            "segments none of ['crm/a'] and country in ['FRA', 'BEL']",
            "segments all of ['crm/a', 'crm/c'] or country = 'BEL'",
            "width = 728 and categories one of ['IAB1']",
            "country <> 'FRA' and hour >= 0",
        ]);
        let creatives = select(vec![
            json!(["box"]),
            json!(["plain"]),
            json!(["wide", "box"]),
            json!(["wide"]),
        ]);
        let deals = select(vec![
            json!([]),
            json!([]),
            json!(["d1"]),
            json!(["d1", "d2"]),
        ]);
        let flight = select(vec![
            json!({}),
            json!({}),
            json!({"end": "2026-01-01T00:00:00Z"}),
        ]);
        let status = select(vec!["active", "active", "active", "paused"]);
        let price = select(vec![
            json!({}),
            json!({}),
            json!({"multipliers": [{"when": "segments one of ['crm/a', 'crm/d']", "factor": "1.5"}]}),
            json!({"multipliers": [{"when": "width = 300", "factor": 0.25}, {"when": "country = 'FRA'", "factor": 3}]}),
            json!({"multipliers": [{"when": "floor > 1", "factor": 2}], "min": 2, "max": 4}),
            json!({"multipliers": [{"when": "format <> 'banner' or hour >= 0", "factor": "0.000001"}]}),
        ]);
        let price = (1..6u32, select(vec!["USD", "EUR"]), price);
        let seat = select(vec![None, None, Some("s1")]);
        (targeting, creatives, deals, flight, status, price, seat).prop_map(
            |(targeting, creatives, deals, flight, status, (cpm, currency, more), seat)| {
                let mut item = json!({"targeting": targeting, "creatives": creatives, "deals": deals, "flight": flight,
                    "status": status, "price": {"cpm": cpm, "currency": currency}});
                merge(&mut item["price"], &more);
                if let Some(seat) = seat {
                    item["seat"] = seat.into();
                }
                item
            },
        )
    }

    fn request() -> impl Strategy<Value = Value> {
        let banner = select(vec![
            json!({"banner": {"w": 300, "h": 250}}),
            json!({"banner": {"format": [{"w": 300, "h": 250}, {"w": 728, "h": 90}]}}),
            json!({"banner": {"w": 728, "h": 90, "battr": [6]}}),
            json!({"banner": {"w": 1, "h": 1}}),
            json!({"video": {}, "banner": null}),
            json!({"secure": 1}),
            json!({"bidfloor": 3}),
            json!({"bidfloor": 2, "bidfloorcur": "EUR", "pmp": {"private_auction": 1, "deals": [{"id": "d1", "bidfloor": 1}]}}),
            json!({"pmp": {"deals": [{"id": "d2", "at": 3, "bidfloor": 1.5}, {"id": "d1"}]}}),
        ]);
        let imps = proptest::collection::vec(banner, 1..4);
        let others = select(vec![
            json!({}),
            json!({"wseat": ["s1"]}),
            json!({"bseat": ["s1"]}),
            json!({"badv": ["acme.example"]}),
            json!({"bcat": ["IAB3"]}),
            json!({"wlang": ["en"]}),
            json!({"cur": ["EUR"]}),
            json!({"regs": {"coppa": 1}}),
        ]);
        let user = select(vec!["nobody", "ua", "ub", "uac"]);
        let country = select(vec!["FRA", "BEL", "USA"]);
        (imps, others, user, country).prop_map(|(imps, others, user, country)| {
            let imps: Vec<Value> = (1..)
                .zip(imps)
                .map(|(id, changes)| {
                    let mut one = imp(changes);
                    one["id"] = id.to_string().into();
                    one
                })
                .collect();
            let mut request = json!({"imp": imps, "user": {"buyeruid": user},
                "device": {"geo": {"country": country}}, "site": {"cat": ["IAB1"]}});
            merge(&mut request, &others);
            request
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]

        /// Who asks only those that may want a request decides as who asks everybody, also on why there is no bid.
        #[test]
        fn asking_candidates_decides_as_asking_everybody(
            line_items in proptest::collection::vec(line_item(), 1..12),
            requests in proptest::collection::vec(request(), 8),
        ) {
            let line_items: Vec<Value> = line_items
                .into_iter()
                .enumerate()
                .map(|(n, mut item)| {
                    item["id"] = format!("li{n:02}").into();
                    item
                })
                .collect();
            let world = World::new(json!(line_items), &[("crm", "buyeruid,ua,a\nbuyeruid,ub,b\nbuyeruid,uac,a|c")]);
            for request in requests {
                let few = world.told(&request, &mut Silent);
                let all = world.told(&request, &mut Attentive);
                prop_assert_eq!(few, all, "{} {}", json!(line_items), request);
            }
        }
    }
}
