//! What an exchange's configuration refuses: whole requests, and ids.

use super::*;

fn refusing(keys: &str) -> World {
    let config = format!("[exchanges.demo]\n[exchanges.demo.refuse]\n{keys}\n");
    World::under(
        &config,
        json!([item("li", "2", json!({}))]),
        &[("crm", "buyeruid,u1,vip\n")],
    )
}

#[track_caller]
fn check(keys: &str, fields: Value, want: &str) {
    // Where nothing is refused every request is bid on.
    refusing("").check(fields.clone(), &["1 li @ 2"]);
    let want = if want.is_empty() { "1 li @ 2" } else { want };
    refusing(keys).check(fields, &[want]);
}

#[test]
fn crawlers_and_other_agents() {
    let ua = |text: &str| json!({"device": {"ua": text}});
    for text in ["Googlebot/2.1", "A CRAWLER", "Baiduspider"] {
        check("crawlers = true", ua(text), "crawler");
    }
    check("crawlers = true", ua("Mozilla/5.0 (iPhone)"), "");
    // Phones of that name, and a crawler that says it comes from one.
    check("crawlers = true", ua("Mozilla/5.0 (Linux; CUBOT X30)"), "");
    check("crawlers = true", ua("CUBOT X30; Googlebot"), "crawler");
    check("crawlers = true", json!({}), "");
    check(
        "agents = ['Headless']",
        ua("Mozilla headlessChrome"),
        "non_human",
    );
    check("agents = ['headless']", ua("Mozilla"), "");
    assert_eq!((NoBid::Crawler.nbr(), NoBid::NonHuman.nbr()), (3, 4));
}

#[test]
fn networks_and_devices() {
    let networks = "networks = ['203.0.113.0/24', '2001:db8::/32']";
    for (device, want) in [
        (json!({"ip": "203.0.113.9"}), "data_centre"),
        (json!({"ipv6": "::ffff:203.0.113.9"}), "data_centre"),
        (json!({"ipv6": "2001:db8::1"}), "data_centre"),
        (json!({"ip": "198.51.100.1", "ipv6": "junk"}), ""),
        (json!({}), ""),
    ] {
        check(networks, json!({"device": device}), want);
    }
    check(
        "device_types = ['tv']",
        json!({"device": {"devicetype": 3}}),
        "device",
    );
    check(
        "device_types = ['tv']",
        json!({"device": {"devicetype": 4}}),
        "",
    );
    check(
        "device_types = ['tv']",
        json!({"device": {"devicetype": 99}}),
        "",
    );
    assert_eq!((NoBid::DataCentre.nbr(), NoBid::Device.nbr()), (5, 6));
}

#[test]
fn sites_apps_and_publishers() {
    let keys = "domains = ['Bad.example']\nbundles = ['com.bad']\npublishers = ['p1']";
    for (fields, want) in [
        (json!({"site": {"domain": "bad.example"}}), "inventory"),
        (json!({"site": {"domain": "WWW.Bad.example."}}), "inventory"),
        (json!({"site": {"domain": "notbad.example"}}), ""),
        (json!({"app": {"bundle": "com.bad"}}), "inventory"),
        (json!({"app": {"bundle": "com.bad.not"}}), ""),
        (json!({"site": {"publisher": {"id": "p1"}}}), "inventory"),
        (json!({"site": {"publisher": {"id": "p2"}}}), ""),
    ] {
        check(keys, fields, want);
    }
    assert_eq!(NoBid::Inventory.nbr(), 7);
}

#[test]
fn people_whom_nobody_knows() {
    let user = |id: &str| json!({"user": {"buyeruid": id}});
    check("unknown_people = true", user("u1"), "");
    check("unknown_people = true", user("u2"), "unknown_person");
    check(
        "unknown_people = true",
        json!({"regs": {"coppa": 1}, "user": {"buyeruid": "u1"}}),
        "unknown_person",
    );
    assert_eq!(NoBid::UnknownPerson.nbr(), 8);
}

#[test]
fn supply_chains() {
    let chain = |complete: u8, asi: &str, sid: &str| json!({"source": {"schain": {"complete": complete, "nodes": [{"asi": "ok.example", "sid": "1"}, {"asi": asi, "sid": sid}]}}});
    let whole = "incomplete_chains = true";
    check(whole, chain(1, "ssp.example", "7"), "");
    check(whole, chain(0, "ssp.example", "7"), "chain");
    check(whole, chain(1, "ssp.example", ""), "chain");
    check(whole, json!({}), "chain");
    check(
        whole,
        json!({"ext": {"schain": {"complete": 1, "nodes": [{"asi": "a", "sid": "b"}]}}}),
        "",
    );
    let sellers = "sellers = ['bad.example', 'ssp.example/7']";
    check(sellers, chain(0, "BAD.example", "1"), "seller");
    check(sellers, chain(1, "ssp.example", "7"), "seller");
    check(sellers, chain(1, "ssp.example", "8"), "");
    check(sellers, json!({}), "");
    check(sellers, json!({"source": {"schain": "x"}}), "seller");
    check(sellers, chain(1, "x.example", ""), "seller");
    assert_eq!((NoBid::Chain.nbr(), NoBid::Seller.nbr()), (16, 17));
}

#[test]
fn a_request_under_the_digital_services_act_is_told_who_pays() {
    let world = |dsa: Value| {
        let document = json!({
            "advertisers": [{"id": "acme", "domain": "acme.example", "dsa": dsa}],
            "creatives": [{"id": "box", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "<a>"}],
            "line_items": [item("li", "2", json!({}))]});
        let book = compile(document.to_string().as_bytes()).expect("a good document");
        let mut world = World::new(json!([]), &[]);
        let frame = world.generation.frame.clone();
        world.generation = Generation::assemble(2, Arc::new(book), Some(2), vec![], frame);
        world
    };
    let ours = |adrender: u8| {
        world(
            json!({"behalf": "Acme \"A\" Ltd", "paid": "Agency", "adrender": adrender,
            "transparency": [{"domain": "data.example", "dsaparams": [2, 1]}]}),
        )
    };
    let asked = |required: Value, pubrender: Value| json!({"regs": {"ext": {"dsa": {"dsarequired": required, "pubrender": pubrender, "datatopub": 1}}}});
    for (required, pubrender, adrender, want) in [
        (json!(2), json!(1), 0, "1 li @ 2"),
        (json!("3"), json!(1), 1, "1 li @ 2"),
        (json!(2), json!(0), 0, "dsa"),
        (json!(2), json!(0), 1, "1 li @ 2"),
        (json!(2), json!(2), 1, "dsa"),
        (json!(2), json!(2), 0, "1 li @ 2"),
        (json!(2), json!({}), 0, "dsa"),
        (json!({}), json!(0), 0, "dsa"),
        (json!(1), json!(0), 0, "1 li @ 2"),
    ] {
        ours(adrender).check(asked(required, pubrender), &[want]);
    }
    world(Value::Null).check(asked(json!(2), json!(1)), &["dsa"]);
    world(Value::Null).check(asked(json!(1), json!(1)), &["1 li @ 2"]);
    assert_eq!(NoBid::Refused(Refusal::Dsa).nbr(), 504);
    // In the newer home too, and where both are there the stricter counts.
    let homes = json!({"regs": {"dsa": {"dsarequired": 0}, "ext": {"dsa": {"dsarequired": 2}}}});
    world(Value::Null).check(homes, &["dsa"]);
    let homes = json!({"regs": {"dsa": {"dsarequired": 3, "pubrender": 0}, "ext": {"dsa": {"pubrender": 1}}}});
    ours(0).check(homes, &["dsa"]);
    let told = |fields: Value| {
        explained(&ours(0), fields)["response"]["seatbid"][0]["bid"][0]["ext"].clone()
    };
    let want = json!({"dsa": {"behalf": "Acme \"A\" Ltd", "paid": "Agency", "adrender": 0,
        "transparency": [{"domain": "data.example", "dsaparams": [1, 2]}]}});
    assert_eq!(told(asked(json!(2), json!(1))), want);
    assert_eq!(told(asked(json!(0), json!(1))), want);
    assert_eq!(told(json!({})), Value::Null);
}

/// A world with one line item for whom `a.com` knows as `x`.
fn with_ids(keys: &str) -> World {
    let config = format!("[exchanges.demo]\n[exchanges.demo.ids]\n{keys}\n");
    let targeting = json!({"targeting": "segments one of ['crm/vip']"});
    World::under(
        &config,
        json!([item("li", "2", targeting)]),
        &[("crm", "a.com,x,vip\nbuyeruid,b,vip\n")],
    )
}

#[test]
fn extended_ids_are_used_as_the_exchanges_policy_says() {
    let eid = |more: Value, atype: Value| {
        let mut eid = json!({"source": "A.com", "uids": [{"id": "x", "atype": atype}]});
        merge(&mut eid, &more);
        json!({"user": {"eids": [eid]}})
    };
    let mm = |mm: Value| eid(json!({"mm": mm}), json!(1));
    for (keys, fields, is_used) in [
        ("", mm(json!(5)), true),
        ("", mm(json!("what")), true),
        ("refused_match_methods = [5]", mm(json!(5)), false),
        ("refused_match_methods = [5]", mm(json!("5")), false),
        ("refused_match_methods = [5]", mm(json!({})), false),
        ("refused_match_methods = [5]", mm(json!(3)), true),
        ("refused_match_methods = [5]", mm(json!(777)), true),
        ("refused_match_methods = [5]", mm(Value::Null), true),
        ("refused_match_methods = [0]", mm(Value::Null), false),
        ("refused_agent_types = [3]", eid(json!({}), json!(3)), false),
        (
            "refused_agent_types = [3]",
            eid(json!({}), json!("3")),
            false,
        ),
        (
            "refused_agent_types = [3]",
            eid(json!({}), json!(600)),
            true,
        ),
        (
            "refused_agent_types = [3]",
            eid(json!({}), Value::Null),
            true,
        ),
        (
            "refused_agent_types = [0]",
            eid(json!({}), Value::Null),
            false,
        ),
        // Who matched it; where nobody is named, the source itself.
        (
            "matchers = ['m.com']",
            eid(json!({"mm": 3, "matcher": "M.com"}), json!(1)),
            true,
        ),
        (
            "matchers = ['m.com']",
            eid(json!({"mm": 3, "matcher": "n.com"}), json!(1)),
            false,
        ),
        ("matchers = ['m.com']", mm(json!(3)), false),
        ("matchers = ['a.com']", mm(json!(3)), true),
        ("matchers = ['m.com']", mm(json!(2)), true),
        // Saying less of how it was done makes nobody trusted.
        (
            "matchers = ['m.com']",
            eid(json!({"matcher": "n.com"}), json!(1)),
            false,
        ),
        ("matchers = ['m.com']", mm(Value::Null), true),
        (
            "inserters = ['i.com']",
            eid(json!({"inserter": "I.com"}), json!(1)),
            true,
        ),
        (
            "inserters = ['i.com']",
            eid(json!({"inserter": "j.com"}), json!(1)),
            false,
        ),
        ("inserters = ['i.com']", eid(json!({}), json!(1)), true),
        (
            "inserters = ['i.com']",
            eid(json!({"inserter": ["i.com"]}), json!(1)),
            false,
        ),
        (
            "matchers = ['a.com']",
            eid(json!({"mm": 3, "matcher": {}}), json!(1)),
            false,
        ),
    ] {
        let want = if is_used { "1 li @ 2" } else { "targeting" };
        let told = with_ids(keys).bids(fields.clone());
        assert_eq!(told, [want], "{keys}: {fields}");
    }
}

#[test]
fn our_own_id_is_matched_as_its_extended_twin_says() {
    let keys = "refused_match_methods = [0, 5]\nown_source = 'Us.example'";
    let with = |eid: Value| json!({"user": {"buyeruid": "b", "eids": [eid]}});
    let twin = |source: &str, mm: Value| json!({"source": source, "mm": mm, "uids": [{"id": "b"}]});
    for (fields, want) in [
        (with(twin("us.example", json!(5))), "targeting"),
        (with(twin("US.example", json!("5"))), "targeting"),
        (with(twin("us.example", json!(3))), "1 li @ 2"),
        // 1 and 2 are no matching that another could inherit.
        (with(twin("us.example", json!(2))), "1 li @ 2"),
        (with(twin("other.example", json!(5))), "1 li @ 2"),
        (json!({"user": {"buyeruid": "b"}}), "1 li @ 2"),
    ] {
        with_ids(keys).check(fields, &[want]);
    }
    with_ids("refused_match_methods = [5]")
        .check(with(twin("us.example", json!(5))), &["1 li @ 2"]);
}

#[test]
fn hashes_of_hardware_ids_are_not_read() {
    let keys = [
        "didsha1", "didmd5", "dpidsha1", "dpidmd5", "macsha1", "macmd5",
    ];
    let rows: String = keys.iter().map(|key| format!("{key},h,vip\n")).collect();
    let rows = format!("{rows}ifa,h,other\nbuyeruid,h,other\n");
    let targeting = json!({"targeting": "segments one of ['crm/vip']"});
    let world = World::new(json!([item("li", "2", targeting)]), &[("crm", &rows)]);
    let mut device = json!({"ifa": "x"});
    for key in keys {
        device[key] = json!("h");
    }
    world.decide(&json!({"device": device}), |decision, scratch| {
        assert_eq!(
            decision.outcome.err(),
            Some(NoBid::Refused(Refusal::Targeting))
        );
        let counts = scratch.lookups()[0];
        assert_eq!((counts.found, counts.absent), (0, 1));
    });
}

#[test]
fn the_user_agent_in_parts_comes_before_the_long_text() {
    let world =
        one(json!({"targeting": "browser = 'edge' and os = 'windows' and os_version = '10.0'"}));
    let sua = json!({"browsers": [{"brand": "Chromium", "version": ["1"]}, {"brand": "Microsoft Edge", "version": ["1"]}],
                     "platform": {"brand": "Windows", "version": ["10", "0"]}});
    let ua = "Mozilla/5.0 (X11) Chrome/120.0 Safari/537.36";
    world.check(json!({"device": {"ua": ua, "sua": sua}}), &["1 li @ 2"]);
    world.check(json!({"device": {"ua": ua}}), &["targeting"]);
    world.check(
        json!({"device": {"ua": ua, "os": "Linux", "sua": sua}}),
        &["targeting"],
    );
    let chrome = one(json!({"targeting": "browser = 'chrome'"}));
    chrome.check(
        json!({"device": {"ua": ua, "sua": {"browsers": [{"brand": "Brave"}]}}}),
        &["1 li @ 2"],
    );
}
