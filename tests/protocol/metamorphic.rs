//! What may be changed of a request without changing the decision, and what may not: over the corpus, and over requests of our
//! own where the corpus is absent.
//!
//! Compared is the whole way: the gate, each id, the verdict on each line item for each imp, the bids, what was unreadable.

use serde_json::{Value, json};

use crate::rewritten::Rewrite;
use crate::world::{Told, VENDOR_ID, World, corpus, ids_in};

/// A TC string of CMP 10 that grants our vendor id all purposes, or none, by consent (core segment, vendors as bits).
pub(crate) fn tc_string(grants: bool) -> String {
    let mut bits: Vec<bool> = Vec::new();
    let mut put = |value: u64, count: u32| {
        bits.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    };
    let purposes = if grants { 0xff_ffff } else { 0 };
    put(2, 6);
    put(17_000_000_000, 36);
    put(17_000_000_000, 36);
    for (value, count) in [
        (10, 12),
        (1, 12),
        (1, 6),
        (4, 6),
        (13, 6),
        (100, 12),
        (5, 6),
    ] {
        put(value, count);
    }
    for (value, count) in [
        (1, 1),
        (0, 1),
        (0, 12),
        (purposes, 24),
        (0, 24),
        (0, 1),
        (5, 6),
        (17, 6),
    ] {
        put(value, count);
    }
    put(u64::from(VENDOR_ID), 16);
    put(0, 1);
    put(1, u32::from(VENDOR_ID));
    put(0, 16 + 1 + 12);
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let character = |six: &[bool]| {
        let filled = six.iter().copied().chain(std::iter::repeat(false)).take(6);
        let value = filled.fold(0usize, |value, bit| value << 1 | usize::from(bit));
        char::from(alphabet[value])
    };
    bits.chunks(6).map(character).collect()
}

/// Requests of our own that together say everything that is read.
pub(crate) fn own_requests() -> Vec<Value> {
    let rich = json!({
        "id": "r/1 \"é\" 😀", "at": 1, "tmax": 250, "test": 1, "cur": ["USD", "EUR"], "bcat": ["IAB25-1", "IAB26"], "badv": ["x.example"],
        "wseat": ["kith", "s1"], "bseat": [], "acat": [], "wlang": ["fr", "en"], "cattax": 1,
        "imp": [
            {"id": "1", "bidfloor": 0.5, "bidfloorcur": "USD", "secure": 1, "instl": 0, "rwdd": 1,
             "banner": {"w": 300, "h": 250, "pos": 1, "battr": [1, 2], "btype": [1],
                        "format": [{"w": 728, "h": 90}, {"w": 970, "h": 250}, {"wratio": 4, "hratio": 3, "wmin": 100}]},
             "pmp": {"private_auction": 0, "deals": [{"id": "d1", "bidfloor": 2, "bidfloorcur": "EUR", "at": 3, "wseat": ["kith"]},
                                                     {"id": "d2", "wadomain": ["acme.example"]}]}},
            {"id": "2", "instl": 1, "banner": {"format": [{"w": 320, "h": 480}, {"w": 300, "h": 600}]}, "bidfloor": 1,
             "pmp": {"private_auction": 1, "deals": [{"id": "some-deal-id", "bidfloor": 1.25}]}},
            {"id": "3", "qty": {"multiplier": 2.5}, "exp": 600, "video": {"mimes": ["video/mp4"], "minduration": 5, "maxduration": 30,
             "protocols": [2, 3], "w": 640, "h": 480, "api": [1, 7], "battr": [17], "linearity": 1, "maxbitrate": 2000, "pos": 1,
             "mincpmpersec": 0.1, "durfloors": [{"mindur": 10, "maxdur": 20, "bidfloor": 1}]}},
            {"id": "4", "audio": {"mimes": ["audio/mp4"], "rqddurs": [20, 30], "podid": "p", "poddur": 60, "maxseq": 2, "slotinpod": 1}},
            {"id": "5", "native": {"ver": "1.2", "request": "{\"native\":{\"ver\":\"1.1\",\"assets\":[{\"id\":1,\"required\":1,\"title\":{\"len\":90}},{\"id\":2,\"img\":{\"type\":3,\"wmin\":100}}],\"eventtrackers\":[{\"event\":1,\"methods\":[1]}]}}"}},
            {"id": "6", "native": {"request": {"assets": [{"id": 3, "data": {"type": 2, "len": 140}}]}}}],
        "site": {"domain": "News.Example", "cat": ["IAB1", "IAB17-2"], "keywords": "tea, coffee", "publisher": {"id": "p-1"}, "ext": {"amp": 0}},
        "device": {"ua": "Mozilla/5.0 (iPhone) Version/17.0 Mobile Safari/604.1", "ifa": "AB-CD", "os": "iOS", "osv": "17.0", "lmt": 0, "dnt": 0,
                   "devicetype": 4, "connectiontype": 2, "language": "fr", "carrier": "c", "geo": {"country": "USA", "region": "ma", "city": "Boston", "zip": "02114"}},
        "user": {"id": "x1", "buyeruid": "u/1", "yob": 1990, "gender": "F", "keywords": "a,b", "consent": "",
                 "data": [{"id": "d", "ext": {"segtax": 4}, "segment": [{"id": "9"}, {"id": "10"}]}, {"name": "n", "segment": [{"id": "1"}]}],
                 "ext": {"eids": [{"source": "UidApi.com", "uids": [{"id": "e/1", "atype": 3}, {"id": "e2"}]}]}},
        "regs": {"coppa": 0, "ext": {"gdpr": 0, "us_privacy": "1YNN"}}, "ext": {"any": [1, {"a": null}]}});
    let app = json!({
        "id": "a", "imp": [{"id": "1", "banner": {"w": 320, "h": 50}, "secure": 0, "bidfloor": 3}, {"id": "2", "banner": {"w": 300, "h": 250}}],
        "app": {"bundle": "com.acme", "cat": ["IAB1-1"], "publisher": {"id": "7"}},
        "device": {"ifa": "ffff-1", "os": "android", "geo": {"country": "DEU"}},
        "user": {"buyeruid": "u2", "eids": [{"source": "uidapi.com", "uids": [{"id": "e3"}]}], "ext": {"consent": tc_string(true)}},
        "regs": {"ext": {"gdpr": 1, "gpp_sid": [-1]}}});
    let with = |base: &Value, changes: Value| {
        let mut request = base.clone();
        for (key, value) in changes.as_object().expect("an object") {
            request[key] = value.clone();
        }
        request
    };
    vec![
        with(
            &app,
            json!({"user": {"buyeruid": "u2", "consent": tc_string(false)}, "regs": {"gdpr": 1}}),
        ),
        with(
            &app,
            json!({"regs": {"gdpr": 0, "gpp_sid": [7], "gpp": "DBABLA~BVQqAAAAAgA.QA"}}),
        ),
        with(&app, json!({"device": {"lmt": 1, "ifa": "ffff-1"}})),
        with(&app, json!({"regs": {"coppa": 1}})),
        with(&app, json!({"device": {"dnt": 1, "ifa": "ffff-1"}})),
        with(&app, json!({"regs": {"ext": {"gpc": 1, "gdpr": 0}}})),
        with(
            &app,
            json!({"regs": {"ext": {"gdpr": 0, "dsa": {"dsarequired": 3}}}}),
        ),
        with(&app, json!({"regs": {"us_privacy": "1YYN"}})),
        with(&rich, json!({"bcat": ["IAB3"], "cur": ["EUR"]})),
        with(&rich, json!({"badv": ["acme.example"], "test": 0})),
        with(&rich, json!({"wlang": ["de"], "regs": {}})),
        with(&rich, json!({"tmax": 5})),
        with(&rich, json!({"acat": ["IAB3"], "wseat": ["s1"]})),
        rich,
        app,
    ]
}

/// The two of them that the others are made of: for what is done to every member of a request.
pub(crate) fn base_requests() -> Vec<Value> {
    own_requests().split_off(13)
}

/// Our own requests, and those of the corpus.
fn requests() -> Vec<Value> {
    let lines = corpus("requests.jsonl").unwrap_or_default();
    let theirs = lines
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    own_requests().into_iter().chain(theirs).collect()
}

/// A world that knows everybody in these requests.
pub(crate) fn world_of(requests: &[Value]) -> World {
    let people: Vec<_> = requests.iter().flat_map(ids_in).collect();
    World::new(&people, None)
}

#[test]
fn no_other_spelling_changes_a_decision() {
    let requests = requests();
    let world = world_of(&requests);
    let (mut bids, mut lookups, mut closed) = (0, 0, 0);
    for request in &requests {
        let plain = request.to_string();
        let want = world.told(&plain).expect("a request");
        bids += want.bids.len();
        lookups += usize::from(want.lookups > 0);
        closed += usize::from(want.gate != "open");
        for how in Rewrite::ALL {
            let body = how.of(request);
            let told = world.told(&body);
            assert_eq!(told.as_ref(), Ok(&want), "{how:?}\n{plain}\n{body}");
        }
    }
    assert!(
        bids > 20 && lookups > 6 && closed > 5,
        "{bids} bids, {lookups} looked up, {closed} closed"
    );
}

/// A native request is the text of a document, or the document itself.
#[test]
fn a_native_request_may_be_a_text_or_an_object() {
    let requests = requests();
    let world = world_of(&requests);
    let (mut texts, mut answered) = (0, 0);
    for request in &requests {
        let mut opened = request.clone();
        let mut any = false;
        for imp in opened["imp"].as_array_mut().expect("imps") {
            let Some(document) = imp.pointer_mut("/native/request") else {
                continue;
            };
            let object: Option<Value> = document
                .as_str()
                .and_then(|text| serde_json::from_str(text).ok());
            if let Some(object) = object.filter(Value::is_object) {
                *document = object;
                any = true;
            }
        }
        if any {
            texts += 1;
            let (plain, body) = (request.to_string(), opened.to_string());
            let want = world.told(&plain).expect("a request");
            answered += usize::from(want.bids.iter().any(|bid| bid.contains(" natives @")));
            assert_eq!(world.told(&body).as_ref(), Ok(&want), "{plain}\n{body}");
            // And what is in the document may be spelt in any way too.
            for how in Rewrite::ALL {
                assert_eq!(
                    world.told(how.of(&opened)).as_ref(),
                    Ok(&want),
                    "{how:?} {body}"
                );
            }
        }
    }
    assert!(
        texts > 0 && answered > 0,
        "{texts} texts, {answered} answered"
    );
}

/// A field of `ext`, and where 2.6 has it.
const HOMES: [(&str, &str); 6] = [
    ("regs", "gdpr"),
    ("regs", "us_privacy"),
    ("regs", "gpp"),
    ("regs", "gpp_sid"),
    ("user", "consent"),
    ("user", "eids"),
];

/// The request with the fields of [`HOMES`] moved out of `ext`, or into it, where only one home is in use.
fn moved(request: &Value, out_of_ext: bool) -> Option<Value> {
    let mut moved = request.clone();
    let mut any = false;
    for (object, field) in HOMES {
        let Some(owner) = moved.get_mut(object).and_then(Value::as_object_mut) else {
            continue;
        };
        let said = |value: Option<&Value>| value.is_some_and(|value| !value.is_null());
        let inside = said(owner.get("ext").and_then(|ext| ext.get(field)));
        let outside = said(owner.get(field));
        if out_of_ext && inside && !outside {
            let ext = owner.get_mut("ext").and_then(Value::as_object_mut)?;
            let value = ext.remove(field)?;
            owner.insert(field.to_owned(), value);
            any = true;
        } else if !out_of_ext && outside && !inside {
            let ext = owner.entry("ext").or_insert_with(|| json!({}));
            if ext.is_null() {
                *ext = json!({});
            }
            let Some(ext) = ext.as_object_mut() else {
                continue;
            };
            ext.insert(field.to_owned(), Value::Null);
            let value = owner.remove(field)?;
            owner["ext"][field] = value;
            any = true;
        }
    }
    any.then_some(moved)
}

#[test]
fn a_field_may_stand_in_its_old_home_or_its_new_one() {
    let requests = requests();
    let world = world_of(&requests);
    let mut moves = [0, 0];
    for request in &requests {
        let plain = request.to_string();
        let want = world.told(&plain).expect("a request");
        for (count, out_of_ext) in moves.iter_mut().zip([true, false]) {
            if let Some(moved) = moved(request, out_of_ext) {
                *count += 1;
                let body = moved.to_string();
                assert_eq!(world.told(&body).as_ref(), Ok(&want), "{plain}\n{body}");
            }
        }
    }
    assert!(moves.iter().all(|count| *count > 4), "{moves:?}");
}

/// Whether a line item bids that depends on the person.
fn knows_the_person(told: &Told) -> bool {
    let personal = ["vips", "others", "fans", "told", "young"];
    told.bids.iter().any(|bid| {
        let line_item = bid.rsplit(" @ ").nth(1).unwrap_or_default();
        personal
            .iter()
            .any(|name| line_item.ends_with(&format!(" {name}")))
    })
}

#[test]
fn without_consent_under_gdpr_nobody_is_looked_up() {
    let requests = requests();
    let world = world_of(&requests);
    let (mut looked_up, mut known) = (0, 0);
    for request in &requests {
        let mut without = request.clone();
        for object in ["user", "regs"] {
            // An `ext` that is no object closes the gate by itself, and is left as it is.
            if !without[object].is_object() {
                without[object] = json!({});
            }
            let owner = without[object].as_object_mut().expect("an object");
            for field in ["consent", "gpp", "gpp_sid", "gdpr"] {
                owner.remove(field);
                owner
                    .get_mut("ext")
                    .and_then(Value::as_object_mut)
                    .map(|ext| ext.remove(field));
            }
        }
        without["regs"]["gdpr"] = json!(1);
        let mut granted = without.clone();
        granted["user"]["consent"] = json!(tc_string(true));
        let mut refused = without.clone();
        refused["user"]["consent"] = json!(tc_string(false));
        let mut junk = without.clone();
        junk["user"]["ext"]["consent"] = json!("CONSENT_STRING");

        let told = world.told(granted.to_string()).expect("a request");
        looked_up += usize::from(told.lookups > 0);
        known += usize::from(knows_the_person(&told));
        for request in [without, refused, junk] {
            let body = request.to_string();
            let told = world.told(&body).expect("a request");
            assert_ne!(told.gate, "open", "{body}");
            assert_eq!(told.lookups, 0, "{body}");
            assert!(!knows_the_person(&told), "{:?} {body}", told.bids);
        }
    }
    // With consent it does look, so that the above can fail.
    assert!(
        looked_up > 5 && known > 2,
        "{looked_up} looked up, {known} known"
    );
}
