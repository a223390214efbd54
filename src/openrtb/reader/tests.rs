#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use super::*;
use crate::openrtb::Eid;
use serde_json::{Value, json};

mod formats;

fn check<F>(body: impl AsRef<[u8]>, look: F)
where
    F: for<'a> FnOnce(Result<&'a Request<'a>, BadRequest>, &'a Bump),
{
    let arena = Bump::new();
    let body = arena.alloc_slice_copy(body.as_ref());
    look(read(body, &arena, 128), &arena);
}

fn good<F>(body: impl AsRef<[u8]>, look: F)
where
    F: for<'a> FnOnce(&'a Request<'a>, &'a Bump),
{
    check(body, |request, arena| {
        look(request.expect("a request"), arena)
    });
}

/// A request whose `field` has the given JSON value.
fn with(field: &str, value: &str) -> String {
    format!(r#"{{"id":"r","imp":[{{"id":"1"}}],"{field}":{value}}}"#)
}

/// A request whose only imp has the given field.
fn with_imp(field: &str, value: &str) -> String {
    format!(r#"{{"id":"r","imp":[{{"id":"1","{field}":{value}}}]}}"#)
}

#[test]
fn what_is_no_bid_request() {
    for (body, want) in [
        ("", "not JSON at byte 0"),
        ("[]", "the body is not a JSON object"),
        ("null", "the body is not a JSON object"),
        ("{\"id\":\"r\",\"imp\":[{}]", "not JSON at byte 20"),
        ("{\"id\":\"r\",\"imp\":[{}]} x", "not JSON at byte 22"),
        ("{\"imp\":[{}]}", "the request has no usable `id`"),
        (
            "{\"id\":\"\",\"imp\":[{}]}",
            "the request has no usable `id`",
        ),
        ("{\"id\":{},\"imp\":[{}]}", "the request has no usable `id`"),
        (
            "{\"id\":\"\\ud800\",\"imp\":[{}]}",
            "the request has no usable `id`",
        ),
        (
            "{\"id\":\"r\"}",
            "the request's `imp` is not a non-empty array",
        ),
        (
            "{\"id\":\"r\",\"imp\":[]}",
            "the request's `imp` is not a non-empty array",
        ),
        (
            "{\"id\":\"r\",\"imp\":{}}",
            "the request's `imp` is not a non-empty array",
        ),
        (
            "{\"id\":\"r\",\"imp\":[\n{\"id\":\"a\nb\"}]}",
            "not JSON at byte 26",
        ),
    ] {
        check(body, |request, _| {
            assert_eq!(request.expect_err(body).to_string(), want, "{body}")
        });
    }
    check(b"{\"id\":\"r\",\xff\"imp\":[{}]}", |request, _| {
        assert_eq!(request.err(), Some(BadRequest::NotText))
    });
}

#[test]
fn numeric_ids_keep_their_digits() {
    good(
        r#"{"id":9007199254740993,"imp":[{"id":1}]}"#,
        |request, _| {
            assert_eq!(request.id, "9007199254740993");
            assert_eq!(request.imp[0].id, Field::Value("1"));
        },
    );
}

#[test]
fn escaped_keys_and_values_are_their_plain_form() {
    good(
        r#"{"\u0069d":"a\/b","imp":[{"i\u0064":"\u0031"}]}"#,
        |request, _| {
            assert_eq!((request.id, request.imp[0].id), ("a/b", Field::Value("1")));
        },
    );
    good(
        r#"{"id":"r","ID":"x","Imp":[],"imp":[{"id":"1"}],"user":{"buyerUid":"no"}}"#,
        |request, _| {
            assert_eq!((request.id, request.user.buyeruid), ("r", None));
        },
    );
}

#[test]
fn a_key_is_known_by_all_its_bytes() {
    let body = r#"{"id":"r","id\u0000":"x","id ":"x","i":"x","idid":"x","imp":[{"id":"1","bidfloo":9,"bidfloor":1,"bidfloorcurr":"EUR","private_auction":1,
        "pmp":{"private_auction":0,"private_auctionx":1,"private_auctio":1,"private_auctionxx":1,"deals":[]}}]}"#;
    good(body, |request, _| {
        assert_eq!(request.id, "r");
        let imp = &request.imp[0];
        assert_eq!(
            imp.floor.amount.value().map(|p| p.micros()),
            Some(1_000_000)
        );
        assert_eq!(imp.floor.currency, Field::Absent);
        assert_eq!(imp.private_auction, Field::Value(false));
    });
}

#[test]
fn white_space_changes_nothing() {
    let tree = json!({"id": "r", "at": 1, "tmax": 120, "cur": ["USD", "EUR"], "bcat": [], "imp": [
        {"id": "1", "bidfloor": 0.25, "bidfloorcur": "USD", "secure": 1, "banner": {"w": 300, "h": 250, "battr": [1, 2],
         "format": [{"w": 728, "h": 90}, {}]}, "pmp": {"deals": [{"id": "d", "wseat": ["a", "b"]}]}, "ext": {"a": [{"b": {}}, []]}}],
        "site": {"domain": "a.example", "cat": ["IAB1"], "publisher": {"id": 7}}, "device": {"geo": {"country": "USA"}, "lmt": 0},
        "user": {"ext": {"consent": "C"}}, "regs": {"coppa": 0, "ext": {"gdpr": 1, "gpp_sid": [7, 8]}}});
    let compact = serde_json::to_string(&tree).expect("JSON");
    let pretty = serde_json::to_string_pretty(&tree).expect("JSON");
    let spaced = pretty.replace('\n', " \r\n\t                  ");
    let want = std::cell::RefCell::new(String::new());
    good(compact, |request, _| {
        *want.borrow_mut() = format!("{request:?}")
    });
    for body in [pretty, spaced] {
        good(body, |request, _| {
            assert_eq!(format!("{request:?}"), *want.borrow())
        });
    }
}

#[test]
fn of_duplicates_the_last_wins_but_for_privacy_the_strictest() {
    let body = r#"{"id":"a","id":"b","imp":[{"id":"1"}],"imp":[{"id":"2"}],
        "user":{"id":"u1","consent":"C1"},"user":{"buyeruid":"u2","ext":{"consent":"C2"}},
        "regs":{"coppa":1,"gdpr":0},"regs":{"coppa":0,"ext":{"gdpr":"1"}},"device":{"lmt":1},"device":null}"#;
    good(body, |request, _| {
        assert_eq!(request.id, "b");
        assert_eq!(request.imp[0].id, Field::Value("2"));
        assert_eq!((request.user.id, request.user.buyeruid), (None, Some("u2")));
        let signals = request.signals;
        assert_eq!(
            (signals.coppa, signals.gdpr, signals.lmt),
            (Flag::Yes, Flag::Yes, Flag::Yes)
        );
        assert_eq!(signals.consent.iter().collect::<Vec<_>>(), ["C1", "C2"]);
    });
}

#[test]
fn an_unreadable_privacy_field_is_the_strictest_it_could_be() {
    for value in ["\"x\"", "2", "[1]", "{}", "\"\\ud800\"", "1e999"] {
        good(
            format!(r#"{{"id":"r","imp":[{{}}],"regs":{{"coppa":{value}}}}}"#),
            |request, _| {
                assert_eq!(request.signals.coppa, Flag::Yes, "{value}");
                assert_eq!(
                    request.unreadable.iter().collect::<Vec<_>>(),
                    [FieldName::Coppa]
                );
            },
        );
    }
    for value in ["{}", "[]", "null", "\"\""] {
        good(with("regs", value), |request, _| {
            assert!(!request.signals.broken, "{value}")
        });
    }
    for field in ["regs", "user", "device"] {
        for value in ["1", "\"x\"", "[{}]", "true"] {
            good(with(field, value), |request, _| {
                assert!(request.signals.broken, "{field} {value}")
            });
        }
    }
    good(with("user", r#"{"ext":"x"}"#), |request, _| {
        assert!(request.signals.broken)
    });
    good(with("regs", r#"{"ext":[1]}"#), |request, _| {
        assert!(request.signals.broken)
    });
    good(with("site", r#"{"ext":"x"}"#), |request, _| {
        assert!(!request.signals.broken)
    });
}

#[test]
fn every_home_of_a_signal_is_read() {
    let body = with(
        "regs",
        r#"{"us_privacy":"1YNN","gpp":"D","gpp_sid":[-1],"ext":{"us_privacy":"1YYN","gpp":"D","gpp_sid":[7,"8"],"gpc":"1"}}"#,
    );
    good(body, |request, _| {
        let signals = request.signals;
        assert_eq!(
            signals.us_privacy.iter().collect::<Vec<_>>(),
            ["1YNN", "1YYN"]
        );
        assert_eq!(signals.gpp.iter().collect::<Vec<_>>(), ["D"]);
        assert!(signals.gpp_sid.iter().eq([7, 8]) && !signals.gpp_sid.unreadable);
        assert_eq!(signals.gpc, Flag::Yes);
    });
}

#[test]
fn what_limits_us_stays_unreadable() {
    for (value, want) in [
        ("[\"a\",null,\"b\"]", Field::Value(&["a", "b"][..])),
        ("[]", Field::Absent),
        ("null", Field::Absent),
        ("\"a\"", Field::Unreadable),
        ("[{}]", Field::Unreadable),
        ("7", Field::Unreadable),
    ] {
        for field in ["bcat", "badv", "wseat", "bseat", "cur", "acat"] {
            good(with(field, value), |request, _| {
                let list = match field {
                    "bcat" => request.bcat,
                    "badv" => request.badv,
                    "wseat" => request.wseat,
                    "bseat" => request.bseat,
                    "cur" => request.cur,
                    _ => request.acat,
                };
                assert_eq!(list, want, "{field} {value}");
            });
        }
    }
    for value in ["1e999", "-1", "\"x\"", "[]", "true"] {
        good(with_imp("bidfloor", value), |request, _| {
            assert!(request.imp[0].floor.amount.is_unreadable(), "{value}")
        });
    }
    good(with_imp("secure", "5"), |request, _| {
        assert!(request.imp[0].secure.is_unreadable())
    });
    good(with_imp("pmp", "5"), |request, _| {
        assert!(request.imp[0].private_auction.is_unreadable())
    });
    good(with_imp("bidfloorcur", "\"EURO\""), |request, _| {
        assert!(request.imp[0].floor.currency.is_unreadable())
    });
}

#[test]
fn sizes_come_from_format_and_from_w_and_h() {
    let sizes = |banner: &str, want: &[(i64, i64)]| {
        good(with_imp("banner", banner), |request, _| {
            let banner = request.imp[0].banner.expect("a banner");
            assert_eq!(
                banner.sizes.iter().map(|s| (s.w, s.h)).collect::<Vec<_>>(),
                want
            );
        });
    };
    sizes(r#"{"w":300,"h":250}"#, &[(300, 250)]);
    sizes(
        r#"{"w":"300","h":250.0,"format":[{"w":300,"h":250},{"w":"728","h":90},null,{"w":1}]}"#,
        &[(300, 250), (728, 90)],
    );
    sizes(
        r#"{"w":320,"h":50,"format":[{"w":300,"h":250}]}"#,
        &[(300, 250), (320, 50)],
    );
    sizes("{}", &[]);
    let many = |count: usize| {
        format!(
            r#"{{"format":[{}{{"w":1,"h":1}}]}}"#,
            r#"{"w":1,"h":1},"#.repeat(count - 1)
        )
    };
    sizes(&many(256), &[(1, 1); 256]);
    sizes(&many(257), &[]);
    good(with_imp("banner", "null"), |request, _| {
        assert!(request.imp[0].banner.is_none() && request.unreadable.is_empty())
    });
}

#[test]
fn deals_are_kept_where_they_have_an_id() {
    let pmp = r#"{"private_auction":"1","deals":[{"id":"d1","bidfloor":2,"bidfloorcur":"EUR","at":3,"wseat":["s"]},{"bidfloor":1},7]}"#;
    good(with_imp("pmp", pmp), |request, _| {
        let imp = &request.imp[0];
        assert_eq!(imp.private_auction, Field::Value(true));
        assert_eq!(imp.deals.len(), 1);
        assert_eq!(
            (imp.deals[0].id, imp.deals[0].at),
            ("d1", Some(AuctionType::Fixed))
        );
        assert_eq!(
            imp.deals[0].floor.currency,
            Field::Value("EUR".parse().expect("a code"))
        );
        assert_eq!(imp.deals[0].wseat, Field::Value(&["s"][..]));
    });
}

#[test]
fn several_placements_are_noticed() {
    for (body, want) in [
        (r#""site":{}"#, Placement::Site),
        (r#""app":{"bundle":"b"}"#, Placement::App),
        (r#""site":{},"app":null"#, Placement::Site),
        (r#""site":{},"app":{}"#, Placement::Several),
        (r#""x":1"#, Placement::Unknown),
    ] {
        good(
            format!(r#"{{"id":"r","imp":[{{}}],{body}}}"#),
            |request, _| assert_eq!(request.placement, want, "{body}"),
        );
    }
}

#[test]
fn eids_of_both_homes_are_read_and_junk_among_them_is_noted() {
    let body = with(
        "user",
        r#"{"eids":[{"source":"a.com","uids":[{"id":"1"},{"id":""},{"id":2},null]},{"source":"b.com"},{"uids":[{"id":"x"}]},7],
           "ext":{"eids":[{"source":"c.com","uids":[{"id":"3","atype":"1"}]},{"source":"d.com","uids":null}]}}"#,
    );
    good(body, |request, _| {
        let seen: Vec<_> = request.user.eids.into_iter().flatten().collect();
        let uids = |eid: &Eid<'_>| {
            eid.uids
                .iter()
                .map(|uid| uid.id.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            seen.iter()
                .map(|eid| (eid.source, uids(eid)))
                .collect::<Vec<_>>(),
            [
                ("a.com", vec!["1".to_owned(), "2".to_owned()]),
                ("c.com", vec!["3".to_owned()])
            ]
        );
        assert_eq!(seen[1].uids[0].atype, Field::Value(1));
        assert_eq!(
            request.unreadable.iter().collect::<Vec<_>>(),
            [FieldName::Eids]
        );
    });
    let body = with(
        "user",
        r#"{"eids":[{"uids":[{"atype":1,"id":"late"}],"source":"a.com","mm":"3","matcher":"m.com","inserter":"i.com","ext":{}}]}"#,
    );
    good(body, |request, _| {
        assert_eq!(
            request.user.eids[0],
            [Eid {
                source: "a.com",
                inserter: Field::Value("i.com"),
                matcher: Field::Value("m.com"),
                mm: Field::Value(3),
                uids: &[Uid {
                    id: "late",
                    atype: Field::Value(1)
                }]
            }]
        );
        assert!(request.unreadable.is_empty());
    });
}

#[test]
fn a_bad_string_is_lost_alone() {
    good(
        b"{\"id\":\"r\",\"imp\":[{\"id\":\"1\"}],\"user\":{\"id\":\"\xff\",\"buyeruid\":\"b\"}}",
        |request, _| {
            assert_eq!((request.user.id, request.user.buyeruid), (None, Some("b")));
            assert_eq!(
                request.unreadable.iter().collect::<Vec<_>>(),
                [FieldName::UserId]
            );
        },
    );
    good(
        r#"{"id":"r","imp":[{"id":"1"}],"x":"\ud800","user":{"id":"a\ud800"}}"#,
        |request, _| {
            assert_eq!(request.user.id, None);
        },
    );
}

#[test]
fn keywords_of_the_wrong_type_say_nothing() {
    good(
        with("site", r#"{"keywords":["a"],"kwarray":"b"}"#),
        |request, _| assert!(request.site.keywords.is_empty()),
    );
    good(with("site", r#"{"keywords":"a, b,,c"}"#), |request, _| {
        assert_eq!(request.site.keywords, ["a", "b", "c"])
    });
}

#[test]
fn a_flood_of_imps_is_cut() {
    let body = format!(
        r#"{{"id":"r","imp":[{}]}}"#,
        vec!["{\"id\":\"1\"}"; 1000].join(",")
    );
    good(body, |request, _| {
        assert_eq!(request.imp.len(), 128);
        assert!(!request.unreadable.is_empty());
    });
}

/// A file of the corpus, where it is here.
fn corpus(file: &str) -> Option<String> {
    let folder = std::env::var("KITH_CORPUS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/corpus").to_owned());
    let text = std::fs::read_to_string(format!("{folder}/{file}"));
    if text.is_err() {
        eprintln!("skipped: the corpus ({file}) is not here");
    }
    text.ok()
}

/// What serde_json makes of a value where we read a text.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// How many assets serde_json finds in the request of a native object, if any.
fn assets_of(native: &Value) -> Option<usize> {
    let homes = ["request", "request_native"].map(|home| &native[home]);
    let request = homes.into_iter().find(|home| !home.is_null())?;
    let request = match request {
        Value::String(text) => serde_json::from_str(text).ok()?,
        other => other.clone(),
    };
    let root = if request["native"].is_object() {
        &request["native"]
    } else {
        &request
    };
    let assets = root["assets"].as_array().map(Vec::len);
    assets.filter(|assets| *assets > 0)
}

/// Every request of the public test suites: read without error, and field by field as serde_json's tree has it.
#[test]
fn the_corpus_reads_as_the_oracle_reads_it() {
    let Some(lines) = corpus("requests.jsonl") else {
        return;
    };
    let (mut read_requests, mut natives) = (0, 0);
    for line in lines.lines() {
        let tree: Value = serde_json::from_str(line).expect("the corpus is JSON");
        good(line, |request, arena| {
            read_requests += 1;
            assert_eq!(Some(request.id.to_owned()), text_of(&tree["id"]), "{line}");
            let user = &tree["user"];
            assert_eq!(
                request.user.id.map(str::to_owned),
                text_of(&user["id"]),
                "{line}"
            );
            assert_eq!(
                request.user.buyeruid.map(str::to_owned),
                text_of(&user["buyeruid"]),
                "{line}"
            );
            assert_eq!(
                request.device.ifa.map(str::to_owned),
                text_of(&tree["device"]["ifa"]),
                "{line}"
            );
            assert_eq!(
                request.device.geo.country.map(str::to_owned),
                text_of(&tree["device"]["geo"]["country"]),
                "{line}"
            );
            let imps = tree["imp"].as_array().expect("imps");
            assert_eq!(
                request.imp.len(),
                imps.iter().filter(|imp| imp.is_object()).count(),
                "{line}"
            );
            for (imp, theirs) in request.imp.iter().zip(imps) {
                assert_eq!(
                    imp.id.value().map(str::to_owned),
                    text_of(&theirs["id"]),
                    "{line}"
                );
                assert_eq!(imp.banner.is_some(), theirs["banner"].is_object(), "{line}");
                assert_eq!(imp.video.is_some(), theirs["video"].is_object(), "{line}");
                assert_eq!(imp.native.is_some(), theirs["native"].is_object(), "{line}");
                if let Some(native) = imp.native {
                    let asked = native.ask(arena).map(|ask| ask.assets.len());
                    assert_eq!(asked, assets_of(&theirs["native"]), "{line}");
                    natives += usize::from(asked.is_some());
                }
                if let Some(floor) = theirs["bidfloor"].as_f64() {
                    let ours = imp.floor.amount.value().expect("a floor").as_f64();
                    assert!((ours - floor).abs() < 2e-6, "{ours} {floor}");
                }
            }
            let eids: usize = request
                .user
                .eids
                .into_iter()
                .flatten()
                .map(|eid| eid.uids.len())
                .sum();
            let theirs = [&user["eids"], &user["ext"]["eids"]]
                .into_iter()
                .filter_map(Value::as_array)
                .flatten()
                .filter(|eid| text_of(&eid["source"]).is_some())
                .filter_map(|eid| eid["uids"].as_array())
                .flatten()
                .filter(|uid| text_of(&uid["id"]).is_some())
                .count();
            assert_eq!(eids, theirs, "{line}");
        });
    }
    assert_eq!(read_requests, lines.lines().count());
    assert!(natives > 100, "{natives} native requests");
}

/// JSONTestSuite as bodies: nothing malformed is taken for a request, embedded in `ext` it never changes a field.
#[test]
fn json_test_suite() {
    use base64::Engine as _;
    let Some(lines) = corpus("json_malformed.jsonl") else {
        return;
    };
    for line in lines.lines() {
        let case: Value = serde_json::from_str(line).expect("the corpus is JSON");
        let bytes = base64::prelude::BASE64_STANDARD
            .decode(case["base64"].as_str().expect("base64"))
            .expect("base64");
        let name = case["name"].as_str().expect("a name");
        let rejects = case["expect"] == json!("reject");
        check(&bytes, |request, _| {
            assert!(request.is_err(), "{name} is no bid request")
        });
        let mut embedded = br#"{"id":"r","imp":[{"id":"1"}],"ext":"#.to_vec();
        embedded.extend_from_slice(&bytes);
        embedded.extend_from_slice(br#","user":{"id":"u"}}"#);
        check(&embedded, |request, _| match request {
            Ok(request) => {
                // Text that is not UTF-8 inside a string is our documented exception.
                assert!(
                    !rejects || std::str::from_utf8(&bytes).is_err(),
                    "{name} must be refused"
                );
                assert_eq!((request.id, request.user.id), ("r", Some("u")), "{name}");
            }
            Err(_) => assert!(case["expect"] != json!("accept"), "{name} must be taken"),
        });
    }
}

#[test]
fn a_supply_chain_is_read_from_the_first_home_that_has_one() {
    let chain = |fields: &str| {
        let arena = Bump::new();
        let body = format!(r#"{{"id":"r","imp":[{{}}],{fields}}}"#);
        let body = arena.alloc_str(&body);
        let request = read(body.as_bytes(), &arena, 1).expect("a request");
        let mut nodes = Vec::new();
        let chain = request
            .schain
            .read(&arena, |asi, sid| nodes.push(format!("{asi}/{sid}")));
        let chain = match chain {
            Field::Absent => None,
            Field::Unreadable => Some((false, false)),
            Field::Value(chain) => Some((chain.is_complete, chain.is_readable)),
        };
        (chain, nodes.join(" "))
    };
    let one = |asi: &str| {
        format!(r#"{{"complete":1,"ver":"1.0","nodes":[{{"asi":"{asi}","sid":7,"hp":1}}]}}"#)
    };
    let (a, b, c) = (one("a"), one("b"), one("c"));
    let whole = |asi: &str| (Some((true, true)), format!("{asi}/7"));
    for (fields, want) in [
        (
            format!(r#""source":{{"schain":{a},"ext":{{"schain":{b}}}}},"ext":{{"schain":{c}}}"#),
            whole("a"),
        ),
        (
            format!(r#""source":{{"schain":null,"ext":{{"schain":{b}}}}},"ext":{{"schain":{c}}}"#),
            whole("b"),
        ),
        (
            format!(r#""source":{{"ext":7}},"ext":{{"schain":{c}}}"#),
            whole("c"),
        ),
        (r#""ext":[],"source":"x""#.to_owned(), (None, String::new())),
        (
            format!(r#""source":{{"schain":"x"}},"ext":{{"schain":{c}}}"#),
            (Some((false, false)), String::new()),
        ),
        (
            r#""source":{"schain":{"complete":"1","nodes":[{"asi":"a","sid":"1"},{"asi":"b"},7]}}"#
                .to_owned(),
            (Some((true, false)), "a/1".to_owned()),
        ),
        (
            r#""source":{"schain":{"complete":0,"nodes":[]}}"#.to_owned(),
            (Some((false, false)), String::new()),
        ),
    ] {
        assert_eq!(chain(&fields), want, "{fields}");
    }
}

#[test]
fn a_user_agent_in_parts_names_browser_and_platform() {
    let body = with(
        "device",
        r#"{"sua":{"browsers":[{"brand":"Not A;Brand","version":["99"]},{"brand":"Google Chrome","version":["120",0]},7],
            "platform":{"brand":"Android","version":["13","0"]},"mobile":1,"source":0}}"#,
    );
    good(body, |request, arena| {
        let sua = request.device.sua;
        let browser = sua.browser(arena, |brand| (brand == "Google Chrome").then_some("it"));
        assert_eq!(browser, Some("it"));
        let platform = sua.platform(arena).expect("a platform");
        assert_eq!(
            (platform.brand, platform.version),
            ("Android", Some("13.0"))
        );
    });
    good(with("device", r#"{"sua":"Android"}"#), |request, arena| {
        assert!(request.device.sua.platform(arena).is_none());
        assert!(request.unreadable.iter().eq([FieldName::DeviceText]));
    });
}

#[test]
fn the_exchanges_segments_have_their_taxonomy_or_their_owner() {
    let body = with(
        "user",
        r#"{"data":[{"id":"d","name":"n","ext":{"segtax":"4"},"segment":[{"id":"1"},{"id":2,"name":7,"value":true},{"name":"x"},{"id":""},7]},
            {"name":"n","cids":["c1"],"segment":[{"id":"3"}]},
            {"id":"d","ext":7,"cids":["c2"]},
            {"segment":[{"id":"nobody's"}]}, null, {"id":5,"segment":[{"id":"9007199254740993"}],"ext":{"segtax":null}}]}"#,
    );
    good(body, |request, arena| {
        let segments = request.user.data.segments(arena, 100).expect("a list");
        assert_eq!(segments, ["4:1", "4:2", "n:3", "5:9007199254740993"]);
        assert_eq!(
            request.user.data.segments(arena, 2),
            Some(&["4:1", "4:2"][..])
        );
    });
    good(with("user", r#"{"data":"x"}"#), |request, arena| {
        assert_eq!(request.user.data.segments(arena, 100), None);
    });
    // Each segment is a copy of its owner: a long one would be a thousand long ones.
    let long = "x".repeat(257);
    let body = format!(
        r#"{{"data":[{{"id":"{long}","segment":[{{"id":"1"}}]}},{{"id":"d","segment":[{{"id":"{long}"}},{{"id":"2"}}]}}]}}"#
    );
    good(with("user", &body), |request, arena| {
        assert_eq!(request.user.data.segments(arena, 100), Some(&["d:2"][..]));
    });
}
