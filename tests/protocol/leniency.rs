//! Section B of the checklist: what exchanges send that is not what the specification says, and what becomes of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::metamorphic::{base_requests, world_of};
use crate::world::{World, one};

/// A request with one banner, and these fields.
fn request(changes: &Value) -> Value {
    let mut request =
        json!({"id": "r", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}], "tmax": 100});
    for (key, value) in changes.as_object().expect("an object") {
        request[key] = value.clone();
    }
    request
}

/// The same as text, where what is put in is not what serde_json would write: at `#`, in the imp where `imp:` comes before.
fn raw(place: &str, value: &str) -> String {
    let (before, after) = place.split_once('#').expect("a place");
    let around = r#"{"id":"r","tmax":100,"imp":[{"id":"1","banner":{"w":300,"h":250}#imp}]#top}"#;
    let (imp, top) = match before.strip_prefix("imp:") {
        Some(before) => (format!(",{before}{value}{after}"), String::new()),
        None => (String::new(), format!(",{before}{value}{after}")),
    };
    around.replace("#imp", &imp).replace("#top", &top)
}

/// Where there is a member of an object, at any depth: pointers as serde_json takes them.
fn members(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = format!("{at}/{key}");
                out.push(path.clone());
                members(value, &path, out);
            }
        }
        Value::Array(list) => {
            for (place, value) in list.iter().enumerate() {
                members(value, &format!("{at}/{place}"), out);
            }
        }
        _ => {}
    }
}

fn every_member(request: &Value) -> Vec<String> {
    let mut all = Vec::new();
    members(request, "", &mut all);
    all.retain(|path| path != "/id" && path != "/imp");
    all
}

fn without(request: &Value, path: &str) -> Value {
    let (owner, key) = path.rsplit_once('/').expect("a path");
    let mut changed = request.clone();
    let owner = changed
        .pointer_mut(owner)
        .and_then(Value::as_object_mut)
        .expect("an object");
    owner.remove(key);
    changed
}

fn with(request: &Value, path: &str, value: &Value) -> Value {
    let mut changed = request.clone();
    *changed.pointer_mut(path).expect("a member") = value.clone();
    changed
}

#[test]
fn null_is_absent_whatever_the_field() {
    let requests = base_requests();
    let world = world_of(&requests);
    for request in &requests {
        for path in every_member(request) {
            let absent = world.told(without(request, &path).to_string());
            let null = world.told(with(request, &path, &Value::Null).to_string());
            assert_eq!(null, absent, "{path} {request}");
        }
    }
}

#[test]
fn an_empty_text_is_absent_whatever_the_field() {
    let requests = base_requests();
    let world = world_of(&requests);
    for request in &requests {
        for path in every_member(request) {
            if request.pointer(&path).is_some_and(Value::is_string) {
                let absent = world.told(without(request, &path).to_string());
                let mut empty = world.told(with(request, &path, &json!("")).to_string());
                // Of a list's element it is noted that it could not be read, which says no more.
                if let (Ok(empty), Ok(absent)) = (&mut empty, &absent) {
                    empty.unreadable.clone_from(&absent.unreadable);
                }
                assert_eq!(empty, absent, "{path} {request}");
            }
        }
    }
}

#[test]
fn an_ext_may_be_anything() {
    let requests = base_requests();
    let world = world_of(&requests);
    let odd = [
        json!("x"),
        json!(7),
        json!([1]),
        json!(true),
        json!([[{}]]),
        json!("\u{1}"),
    ];
    for request in &requests {
        let mut owners = every_member(request);
        owners.push(String::new());
        for owner in owners {
            if !request.pointer(&owner).is_some_and(Value::is_object) || owner.ends_with("ext") {
                continue;
            }
            let with_ext = |value: &Value| {
                let mut changed = request.clone();
                let object = changed.pointer_mut(&owner).expect("an object");
                object["ext"] = value.clone();
                changed
            };
            let absent =
                world.told(without(&with_ext(&Value::Null), &format!("{owner}/ext")).to_string());
            for nothing in [json!(null), json!(""), json!([]), json!({})] {
                let told = world.told(with_ext(&nothing).to_string());
                assert_eq!(told, absent, "{owner}/ext = {nothing}");
            }
            for value in &odd {
                let told = world.told(with_ext(value).to_string()).expect("a request");
                if owner == "/regs" || owner == "/user" {
                    assert!(
                        told.gate != "open" && told.lookups == 0,
                        "{owner}/ext = {value}"
                    );
                } else {
                    assert_eq!(Ok(told), absent, "{owner}/ext = {value}");
                }
            }
        }
    }
}

/// Whatever stands in a field, only `id` and `imp` can make a request malformed.
#[test]
fn no_value_of_any_type_makes_a_request_malformed() {
    let requests = base_requests();
    let world = world_of(&requests);
    let odd = [
        json!({"x": [1]}),
        json!([{"x": 1}, [], "x"]),
        json!("?"),
        json!(-1.5e300),
        json!(true),
        json!(u64::MAX),
    ];
    for request in &requests {
        for path in every_member(request) {
            for value in &odd {
                let body = with(request, &path, value).to_string();
                if let Err(reason) = world.told(&body) {
                    panic!("{path} = {value}: {reason}");
                }
            }
        }
    }
}

#[test]
fn codes_that_nobody_knows_are_unknown_codes() {
    let world = one(&json!({}));
    let odd = json!({"at": 777, "device": {"devicetype": 9, "connectiontype": 99}, "imp": [{
        "id": "1", "video": {"protocols": [40], "api": [99], "mimes": ["x/y"], "plcmt": 77, "playbackmethod": [55]},
        "banner": {"w": 300, "h": 250, "pos": 42, "api": [99], "battr": [777], "btype": [77], "expdir": [9]}, "pmp": {"deals": [{"id": "x", "at": 777}]}}],
        "user": {"eids": [{"source": "a.com", "mm": 501, "uids": [{"id": "x", "atype": 600}]}]}});
    let told = world.told(request(&odd).to_string()).expect("a request");
    assert_eq!(told.bids, ["1 li @ 2"]);
    assert_eq!(told.unreadable, [""; 0]);
    // Nor is a targeting on them true.
    let phones = one(&json!({"targeting": "device_type = 'phone' or connection = 'wifi'"}));
    assert_eq!(phones.answer(request(&odd).to_string()), ["targeting"]);
}

#[test]
fn what_is_not_sent_has_its_default() {
    let limited = json!({"bcat": ["IAB25"], "acat": ["IAB3"], "imp": [{"id": "1", "bidfloor": 1.5, "banner": {"w": 300, "h": 250},
        "pmp": {"deals": [{"id": "d1", "bidfloor": 1}]}}]});
    let base = request(&limited);
    let requests = [base.clone()];
    let world = world_of(&requests);
    let want = world.told(base.to_string()).expect("a request");
    assert!(!want.bids.is_empty());
    for (path, key, default) in [
        ("", "test", json!(0)),
        ("", "at", json!(2)),
        ("", "allimps", json!(0)),
        ("", "cattax", json!(1)),
        ("/imp/0", "bidfloorcur", json!("USD")),
        ("/imp/0", "ssai", json!(0)),
        ("/imp/0/pmp", "private_auction", json!(0)),
        ("/imp/0/pmp/deals/0", "bidfloorcur", json!("USD")),
        ("/imp/0/pmp/deals/0", "guar", json!(0)),
    ] {
        let mut said = base.clone();
        said.pointer_mut(path).expect("an object")[key] = default;
        assert_eq!(
            world.told(said.to_string()).as_ref(),
            Ok(&want),
            "{path}/{key}"
        );
    }
    // No floor is a floor of 0; no currencies are dollars, if the exchange does not say otherwise.
    let plain = one(&json!({}));
    for floor in [
        json!({}),
        json!({"bidfloor": 0}),
        json!({"bidfloor": 0.0, "bidfloorcur": "USD"}),
    ] {
        let mut imp = floor;
        imp["id"] = json!("1");
        imp["banner"] = json!({"w": 300, "h": 250});
        assert_eq!(
            plain.answer(request(&json!({"imp": [imp]})).to_string()),
            ["1 li @ 2"]
        );
    }
    // What targeting asks about is unknown where it was not sent, whatever the specification's default (docs/targeting.md).
    for (targeting, sent) in [("not interstitial", "instl"), ("not rewarded", "rwdd")] {
        let world = one(&json!({"targeting": targeting}));
        assert_eq!(world.answer(request(&json!({})).to_string()), ["targeting"]);
        let imp = json!({"id": "1", sent: 0, "banner": {"w": 300, "h": 250}});
        assert_eq!(
            world.answer(request(&json!({"imp": [imp]})).to_string()),
            ["1 li @ 2"]
        );
    }
}

#[test]
fn numbers_where_texts_belong_keep_their_digits() {
    let people = [
        ("buyeruid", "9007199254740993"),
        ("exchange:demo", "12345"),
        ("a.com", "7"),
    ];
    let people = people.map(|(source, id)| (source.to_owned(), id.to_owned()));
    let item = |targeting: &str| {
        World::new(
            &people,
            Some(
                json!([{"id": "li", "targeting": targeting, "creatives": ["acme-300x250"],
            "price": {"cpm": "2", "currency": "USD"}}]),
            ),
        )
    };
    let web = item("segments one of ['web/fan']");
    for (user, want) in [
        (r#"{"buyeruid":9007199254740993}"#, "1 li @ 2"),
        (r#"{"buyeruid":9007199254740992}"#, "targeting"),
        (r#"{"id":12345}"#, "1 li @ 2"),
        (r#"{"id":12345.0}"#, "targeting"),
        (
            r#"{"eids":[{"source":"a.com","uids":[{"id":7}]}]}"#,
            "1 li @ 2",
        ),
    ] {
        assert_eq!(web.answer(raw(r#""user":#"#, user)), [want], "{user}");
    }
    let context = item("carrier = '0' and categories one of ['12']");
    let body = raw(r#""device":{"carrier":0},"site":{"cat":#}"#, "[12]");
    assert_eq!(context.answer(body), ["1 li @ 2"]);
    let blocked = one(&json!({}));
    assert_eq!(
        blocked.answer(raw(r#""wseat":#"#, "[12, \"kith\"]")),
        ["1 li @ 2"]
    );
}

#[test]
fn a_bad_element_is_dropped_alone_and_counted() {
    let world = one(&json!({}));
    for (place, list, want, field) in [
        (
            r#""bcat":#"#,
            r#"[null,{},"IAB3"]"#,
            "blocked_category",
            "bcat",
        ),
        (r#""bcat":#"#, r#"[null,12,"IAB9"]"#, "1 li @ 2", "bcat"),
        (
            r#""badv":#"#,
            r#"[7,[],"ACME.example."]"#,
            "blocked_advertiser",
            "badv",
        ),
        (r#""badv":#"#, r#"[{},"x.example"]"#, "1 li @ 2", "badv"),
        (r#""cur":#"#, r#"[null,"USD"]"#, "1 li @ 2", "cur"),
        (r#""wseat":#"#, r#"["kith",{}]"#, "1 li @ 2", "wseat"),
        (r#""wseat":#"#, r#"["a",{}]"#, "seat", "wseat"),
        (
            r#"imp:"pmp":#"#,
            r#"{"deals":[7,{"id":"d"},{}]}"#,
            "1 li @ 2",
            "imp.pmp.deals",
        ),
    ] {
        let body = raw(place, list);
        let told = world.told(&body).expect("a request");
        assert_eq!(world.answer(&body), [want], "{body}");
        assert_eq!(told.unreadable, [field], "{body}");
    }
}

#[test]
fn what_cannot_be_read_limits_or_is_absent() {
    let world = one(&json!({}));
    // What limits us: no bid for what it limits.
    for value in [r#""?""#, "1e999", "[{}]", "{\"a\":1}", "true"] {
        for (place, want) in [
            ("imp:\"bidfloor\":#", "no_usable_imp"),
            ("imp:\"bidfloor\":1,\"bidfloorcur\":#", "no_usable_imp"),
            ("imp:\"pmp\":{\"private_auction\":#}", "no_usable_imp"),
            ("imp:\"secure\":#", "no_usable_imp"),
            ("\"cur\":#", "unreadable_limit"),
            ("\"wseat\":#", "unreadable_limit"),
            ("\"bseat\":#", "unreadable_limit"),
            ("\"bcat\":#", "unreadable_limit"),
            ("\"acat\":#", "unreadable_limit"),
            ("\"badv\":#", "unreadable_limit"),
            ("\"bapp\":#", "unreadable_limit"),
            ("\"wlang\":#", "unreadable_limit"),
            ("\"wlangb\":#", "unreadable_limit"),
            ("\"bcat\":[\"IAB9\"],\"cattax\":#", "unreadable_limit"),
        ] {
            let is_flag = place.contains("secure") || place.contains("private_auction");
            if is_flag && value == "true" {
                continue;
            }
            let body = raw(place, value);
            assert_eq!(world.answer(&body), [want], "{body}");
            assert!(
                !world.told(&body).expect("a request").unreadable.is_empty(),
                "{body}"
            );
        }
        // What does not limit us: as if it were not there, and counted.
        for place in [
            "\"tmax\":#",
            "\"at\":#",
            "\"site\":{\"cat\":#}",
            "\"device\":{\"devicetype\":#}",
            "\"device\":{\"geo\":{\"metro\":\"1\"},\"connectiontype\":#}",
            "\"user\":{\"yob\":#}",
            "\"user\":{\"eids\":#}",
            "imp:\"instl\":#",
            "imp:\"rwdd\":#",
        ] {
            if value == "true" && place.starts_with("imp:") {
                continue;
            }
            let body = raw(place, value);
            assert_eq!(world.answer(&body), ["1 li @ 2"], "{body}");
            assert_eq!(
                world.told(&body).expect("a request").unreadable.len(),
                1,
                "{body}"
            );
        }
        // Privacy: the strictest it could be.
        for place in [
            "\"regs\":{\"coppa\":#}",
            "\"regs\":{\"gdpr\":#}",
            "\"device\":{\"lmt\":#}",
            "\"regs\":{\"ext\":{\"gpc\":#}}",
        ] {
            let body = raw(place, value);
            assert_ne!(world.told(&body).expect("a request").gate, "open", "{body}");
        }
    }
    // And where nobody looks, nothing.
    for place in [
        "\"allimps\":#",
        "\"source\":{\"fd\":#}",
        "\"site\":{\"page\":#}",
        "imp:\"tagid\":#",
        "\"device\":{\"ppi\":#}",
    ] {
        for value in [
            "\"\\ud800\"",
            "1e999",
            "[[[]]]",
            "{\"a\":{}}",
            "-0",
            "1E-320",
        ] {
            let told = world.told(raw(place, value)).expect("a request");
            assert_eq!(
                (&told.bids[..], told.unreadable.len()),
                (&["1 li @ 2".to_owned()][..], 0),
                "{place} {value}"
            );
        }
    }
}

#[test]
fn numbers_of_any_size_are_read_or_refused() {
    let world = one(&json!({}));
    for (place, value, want) in [
        ("imp:\"bidfloor\":#", "1e400", "no_usable_imp"),
        (
            "imp:\"bidfloor\":#",
            "10000000000000000000000000000000000000000",
            "no_usable_imp",
        ),
        ("imp:\"bidfloor\":#", "-0", "1 li @ 2"),
        ("imp:\"bidfloor\":#", "1E-320", "1 li @ 2"),
        ("imp:\"bidfloor\":#", "2.0000001", "floor"),
        ("imp:\"bidfloor\":#", "0.2e1", "1 li @ 2"),
        ("\"at\":#", "1e400", "1 li @ 2"),
        ("\"at\":#", "-0", "1 li @ 2"),
        ("imp:\"banner\":{\"h\":250,\"w\":#}", "3e2", "1 li @ 2"),
        ("imp:\"banner\":{\"h\":250,\"w\":#}", "300.9", "size"),
        ("imp:\"banner\":{\"h\":250,\"w\":#}", "1e40", "size"),
        ("\"test\":#", "1e400", "1 li @ 2"),
    ] {
        assert_eq!(world.answer(raw(place, value)), [want], "{place} {value}");
    }
    let tmax = |value: &str| world.answer(raw("\"x\":1,\"tmax\":#", value));
    assert_eq!(tmax("933.33"), ["1 li @ 2"]);
    assert_eq!(tmax("10.99"), ["tmax"], "the margin is 10");
    assert_eq!(tmax("1e400"), ["1 li @ 2"]);
    assert_eq!(
        tmax("-1e300"),
        ["1 li @ 2"],
        "no number of milliseconds: as if it were not there"
    );
}

/// What is not text is nobody: neither looked up, nor looked up as its replacement character.
#[test]
fn an_id_that_is_no_text_is_no_id() {
    let people = [
        ("buyeruid".to_owned(), "\u{fffd}".to_owned()),
        ("ifa".to_owned(), "f".to_owned()),
    ];
    let world = World::new(&people, None);
    let ask = |id: &[u8]| {
        let head = br#"{"id":"r","imp":[{"id":"1","banner":{"w":300,"h":250}}],"site":{"page":""#;
        let body = [
            head,
            id,
            br#""},"device":{"ifa":"f"},"user":{"buyeruid":""#,
            id,
            br#""}}"#,
        ]
        .concat();
        world.told(body).expect("a request")
    };
    for broken in [
        &b"\xff"[..],
        b"\xed\xa0\x80",
        b"\\ud800",
        b"\\udc00\\ud800",
        b"a\\ud83d",
    ] {
        let told = ask(broken);
        assert_eq!(told.unreadable, ["user.buyeruid"], "{broken:?}");
        // The device's id, in two datasets.
        assert_eq!((told.outcome, told.lookups), ("bid", 2), "{broken:?}");
    }
    assert_eq!(ask("\u{fffd}".as_bytes()).lookups, 4);
    assert_eq!(ask(b"\\ud83d\\ude00").lookups, 4);
}

#[test]
fn a_hundred_thousand_brackets_take_no_time() {
    let world = one(&json!({}));
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for value in [
            open.repeat(100_000),
            open.repeat(100_000) + "1" + &close.repeat(100_000),
        ] {
            let body = raw("\"ext\":#", &value);
            let begun = Instant::now();
            assert!(world.told(&body).is_err());
            // Unoptimised, and on a busy machine.
            assert!(begun.elapsed() < Duration::from_millis(500));
        }
    }
}

/// `keywords` and `kwarray` may not both be there; where they are, their order says nothing.
#[test]
fn of_keywords_and_kwarray_the_list_counts_whatever_the_order() {
    let said = [r#""keywords":"coffee""#, r#""kwarray":["tea"]"#];
    let turned = [said[1], said[0]];
    for (place, targeting) in [
        ("site", "keywords"),
        ("app", "keywords"),
        ("user", "user_keywords"),
    ] {
        let world = one(&json!({"targeting": format!("{targeting} one of ['tea']")}));
        for order in [said, turned] {
            let body = raw(
                &format!("\"{place}\":#"),
                &format!("{{{}}}", order.join(",")),
            );
            assert_eq!(world.answer(&body), ["1 li @ 2"], "{body}");
        }
    }
}

#[test]
fn unknown_keys_are_told_by_their_case() {
    let people = [("buyeruid".to_owned(), "u".to_owned())];
    let world = World::new(&people, None);
    let told = world
        .told(raw("\"user\":#", r#"{"buyerUid":"u","BUYERUID":"u"}"#))
        .expect("a request");
    assert_eq!(told.lookups, 0);
    let phones = one(&json!({"targeting": "device_type is null"}));
    assert_eq!(
        phones.answer(raw("\"device\":#", r#"{"deviceType":4}"#)),
        ["1 li @ 2"]
    );
}
