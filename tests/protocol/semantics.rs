//! Section C of the checklist, as far as it is about a request as a whole: what it must have, how long it waits, what it
//! forbids.

use bumpalo::Bump;
use kith::config::Config;
use kith::decision::answer_within_ms;
use kith::openrtb::read;
use serde_json::{Value, json};

use crate::world::{World, one};

/// A request with one banner, and these fields.
fn request(changes: &Value) -> String {
    let mut request = json!({"id": "r", "imp": [imp("1")], "tmax": 100});
    for (key, value) in changes.as_object().expect("an object") {
        request[key] = value.clone();
    }
    request.to_string()
}

fn imp(id: &str) -> Value {
    json!({"id": id, "banner": {"w": 300, "h": 250}})
}

#[track_caller]
fn check(world: &World, changes: &Value, want: &[&str]) {
    assert_eq!(world.answer(request(changes)), want, "{changes}");
}

#[test]
fn without_id_or_imp_it_is_malformed_and_nothing_else_is() {
    let world = one(&json!({}));
    let no_id = ["400: the request has no usable `id`"];
    let no_imp = ["400: the request's `imp` is not a non-empty array"];
    for id in [json!(null), json!(""), json!({}), json!([]), json!(true)] {
        check(&world, &json!({"id": id}), &no_id);
    }
    for imps in [
        json!(null),
        json!([]),
        json!({}),
        json!("1"),
        json!({"id": "1"}),
    ] {
        check(&world, &json!({"imp": imps}), &no_imp);
    }
    // An array of what is no imp is one still: there is nothing to bid on.
    for imps in [json!([null]), json!(["1"]), json!([{}]), json!([[]])] {
        check(&world, &json!({"imp": imps}), &["no_usable_imp"]);
    }
}

#[test]
fn an_imp_without_id_gets_no_bid_and_the_others_do() {
    let world = one(&json!({}));
    let nameless = [
        json!({}),
        json!({"id": ""}),
        json!({"id": null}),
        json!({"id": {}}),
    ];
    for changes in nameless {
        let mut without = imp("x");
        without.as_object_mut().expect("an object").remove("id");
        for (key, value) in changes.as_object().expect("an object") {
            without[key] = value.clone();
        }
        // Two without an id do not have the same.
        let imps = json!([without, imp("2"), without, imp("3")]);
        check(&world, &json!({"imp": imps}), &["2 li @ 2", "3 li @ 2"]);
        check(&world, &json!({"imp": [without]}), &["no_usable_imp"]);
    }
}

#[test]
fn what_no_request_may_have_is_a_no_bid() {
    let world = one(&json!({}));
    check(
        &world,
        &json!({"imp": [imp("1"), imp("2"), imp("1")]}),
        &["invalid"],
    );
    check(
        &world,
        &json!({"imp": [imp("1"), json!({"id": 1})]}),
        &["invalid"],
    );
    for places in [["site", "app"], ["site", "dooh"], ["app", "dooh"]] {
        let [one, other] = places;
        check(
            &world,
            &json!({one: {"id": "1"}, other: {"id": "2"}}),
            &["invalid"],
        );
        check(&world, &json!({one: {}, other: {}}), &["invalid"]);
        check(
            &world,
            &json!({one: {"id": "1"}, other: null}),
            &["1 li @ 2"],
        );
    }
    check(
        &world,
        &json!({"site": {}, "app": {}, "dooh": {}}),
        &["invalid"],
    );
}

#[test]
fn a_request_from_nowhere_in_particular_is_served() {
    let world = one(&json!({}));
    check(&world, &json!({}), &["1 li @ 2"]);
    for place in ["site", "app", "dooh"] {
        check(&world, &json!({place: {}}), &["1 li @ 2"]);
    }
    // A screen has neither user nor device, and its imps say when they will be shown.
    let mut screen = imp("1");
    screen["dt"] = json!(1_800_000_000_123.5);
    screen["qty"] = json!({"multiplier": 1});
    check(
        &world,
        &json!({"dooh": {"id": "s", "venuetype": ["airport"]}, "imp": [screen]}),
        &["1 li @ 2"],
    );
}

#[test]
fn tmax_is_asked_before_what_is_configured() {
    let toml = "[exchanges.demo]\ndefault_tmax_ms = 80\nmargin_ms = 30\n";
    let config = Config::from_toml(toml, "test").expect("a configuration");
    let exchange = config.exchanges.get("demo").expect("the exchange");
    let within = |tmax: &str| {
        let arena = Bump::new();
        let body = format!(r#"{{"id":"r","imp":[{{"id":"1"}}]{tmax}}}"#);
        let request = read(body.as_bytes(), &arena, 1).expect("a request");
        answer_within_ms(request, exchange).ok()
    };
    for (tmax, want) in [
        ("", Some(50)),
        (r#","tmax":null"#, Some(50)),
        (r#","tmax":"soon""#, Some(50)),
        (r#","tmax":200"#, Some(170)),
        (r#","tmax":"200""#, Some(170)),
        (r#","tmax":40.9"#, Some(10)),
        (r#","tmax":31"#, Some(1)),
        (r#","tmax":30"#, None),
        (r#","tmax":1"#, None),
        (r#","tmax":0"#, None),
        (r#","tmax":-1"#, None),
        (r#","tmax":9000000000"#, Some(5_000)),
    ] {
        assert_eq!(within(tmax), want, "{tmax}");
    }
}

#[test]
fn seats_are_those_allowed_and_not_blocked() {
    let world = one(&json!({"seat": "s1"}));
    for (lists, bids) in [
        (json!({"wseat": ["s1", "s2"]}), true),
        (json!({"wseat": ["s2"]}), false),
        (json!({"wseat": ["S1"]}), false),
        (json!({"bseat": ["s2"]}), true),
        (json!({"bseat": ["s1"]}), false),
        (json!({"wseat": ["s1"], "bseat": ["s1"]}), false),
        (json!({"wseat": ["s1"], "bseat": ["s2"]}), true),
        (json!({"wseat": ["s2"], "bseat": ["s3"]}), false),
        (json!({"wseat": [], "bseat": null}), true),
    ] {
        check(&world, &lists, &[if bids { "1 li @ 2" } else { "seat" }]);
    }
}

/// The advertiser's category is `IAB3-1`, of taxonomy 1.
#[test]
fn categories_are_blocked_with_those_below_them_within_one_taxonomy() {
    let world = one(&json!({}));
    for (lists, bids) in [
        (json!({"bcat": ["IAB3-1"]}), false),
        (json!({"bcat": ["IAB3"]}), false),
        (json!({"bcat": ["iab3"]}), false),
        (json!({"bcat": ["IAB3-2", "IAB30", "IAB", "IAB3-10"]}), true),
        (json!({"bcat": ["IAB3"], "cattax": 1}), false),
        (json!({"bcat": ["IAB3"], "cattax": 7}), true),
        (json!({"bcat": ["anything"], "cattax": 4242}), false),
        (json!({"bcat": ["anything"], "cattax": -1}), false),
        (json!({"acat": ["IAB3"]}), true),
        (json!({"acat": ["IAB9"]}), false),
        (json!({"acat": ["IAB3"], "cattax": 7}), false),
        (json!({"acat": ["IAB3"], "bcat": ["IAB9"]}), true),
        (json!({"acat": ["IAB3"], "bcat": ["IAB3-1"]}), false),
    ] {
        check(
            &world,
            &lists,
            &[if bids { "1 li @ 2" } else { "blocked_category" }],
        );
    }
}

#[test]
fn advertisers_are_blocked_by_domain_in_any_spelling() {
    let world = one(&json!({}));
    for (listed, bids) in [
        ("acme.example", false),
        ("ACME.Example", false),
        ("acme.example.", false),
        (" acme.example ", false),
        ("example", false),
        ("me.example", true),
        ("www.acme.example", true),
        ("acme.example.com", true),
    ] {
        let want = if bids {
            "1 li @ 2"
        } else {
            "blocked_advertiser"
        };
        check(&world, &json!({"badv": ["x.example", listed]}), &[want]);
    }
}

/// `plain` is in French; the others say nothing of a language.
#[test]
fn creatives_are_in_a_language_that_is_allowed() {
    let french = one(&json!({"creatives": ["plain"]}));
    let silent = one(&json!({}));
    for (lists, bids) in [
        (json!({"wlang": ["fr"]}), true),
        (json!({"wlang": ["en", "FR"]}), true),
        (json!({"wlang": ["en"]}), false),
        (json!({"wlangb": ["fr-CA"]}), true),
        (json!({"wlangb": ["en-US"]}), false),
        (json!({"wlang": []}), true),
    ] {
        check(
            &french,
            &lists,
            &[if bids { "1 li @ 2" } else { "language" }],
        );
        check(&silent, &lists, &["1 li @ 2"]);
    }
}

#[test]
fn a_bid_is_in_a_currency_of_the_request() {
    let world = one(&json!({}));
    let told = |changes: &Value| world.told(request(changes)).expect("a request").story;
    for (cur, want, starts) in [
        (json!(null), "1 li @ 2", "USD"),
        (json!([]), "1 li @ 2", "USD"),
        (json!(["USD"]), "1 li @ 2", "USD"),
        (json!(["JPY", "EUR", "USD"]), "1 li @ 2", "USD"),
        (json!(["JPY", "EUR"]), "1 li @ 1", "EUR"),
        (json!(["JPY"]), "no_currency", "USD"),
        (json!(["dollars"]), "no_currency", "USD"),
    ] {
        check(&world, &json!({"cur": cur}), &[want]);
        assert!(told(&json!({"cur": cur})).starts_with(starts), "{cur}");
    }
}

#[test]
fn where_https_is_asked_for_only_what_is_declared_secure_is_shown() {
    let plain = one(&json!({"creatives": ["plain"]}));
    let secure = one(&json!({}));
    for (said, plain_bids) in [
        (json!(1), false),
        (json!("1"), false),
        (json!(true), false),
        (json!(1.0), false),
        (json!(0), true),
        (json!(false), true),
        (json!(null), true),
    ] {
        let mut imp = imp("1");
        imp["secure"] = said;
        let changes = json!({"imp": [imp]});
        check(
            &plain,
            &changes,
            &[if plain_bids { "1 li @ 2" } else { "secure" }],
        );
        check(&secure, &changes, &["1 li @ 2"]);
    }
}
