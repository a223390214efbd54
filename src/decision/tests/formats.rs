//! Formats, floors, pods: which creative may be shown in which slot, and at what price.

use super::*;

/// A campaign with a creative of each format, and what a line item adds.
pub(super) fn document(line_items: Value) -> Value {
    let vast = |id: &str, changes: Value| {
        let mut creative = json!({"id": id, "advertiser": "acme", "type": "video", "secure": true,
            "adm": "<VAST version=\"4.0\"><![CDATA[${KITH_CLICK_URL}]]></VAST>",
            "duration": 15, "mimes": ["video/mp4", "video/webm"], "protocols": [7]});
        merge(&mut creative, &changes);
        creative
    };
    let banner = |id: &str, changes: Value| {
        let mut creative = json!({"id": id, "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "<a>", "secure": true});
        merge(&mut creative, &changes);
        creative
    };
    json!({
        "advertisers": [{"id": "acme", "domain": "acme.example"}],
        "creatives": [
            banner("banner", json!({})),
            banner("typed", json!({"mimes": ["text/html"]})),
            banner("mraid", json!({"api": [5, 7]})),
            banner("app", json!({"bundle": "com.example.Shop"})),
            banner("french", json!({"langb": "fr-CA"})),
            vast("video", json!({})),
            vast("thirty", json!({"duration": 30})),
            vast("sized", json!({"w": 640, "h": 360, "bitrate": 800, "api": [7], "skippable": true, "attr": [6]})),
            vast("overlay", json!({"linearity": 2})),
            vast("plain", json!({"secure": false})),
            vast("audio", json!({"type": "audio", "mimes": ["audio/mpeg"], "protocols": [7, 11]})),
            {"id": "native", "advertiser": "acme", "type": "native", "secure": true, "attr": [9], "api": [7],
             "assets": [
                {"title": {"text": "Boots for the long way home, in all the colours of an October hedge"}},
                {"title": {"text": "Boots for long ways"}},
                {"img": {"type": 3, "url": "https://cdn.acme.example/wide.jpg", "w": 1200, "h": 627}},
                {"img": {"type": 1, "url": "https://cdn.acme.example/icon", "w": 80, "h": 80}},
                {"data": {"type": 1, "value": "Acme"}},
                {"data": {"type": 12, "value": "Buy \"now\""}},
                {"video": {"vasttag": "<VAST></VAST>", "duration": 20, "mimes": ["video/mp4"], "protocols": [2]}}],
             "link": {"clicktrackers": ["https://t.acme.example/c"]},
             "eventtrackers": [{"event": 1, "method": 1, "url": "https://t.acme.example/i"},
                               {"event": 2, "method": 1, "url": "https://t.acme.example/v"},
                               {"event": 1, "method": 2, "url": "https://t.acme.example/js"}],
             "privacy": "https://acme.example/privacy"}],
        "line_items": line_items})
}

fn world(line_items: Value) -> World {
    let document = document(line_items).to_string();
    let book = compile(document.as_bytes()).unwrap_or_else(|errors| panic!("{errors:#?}"));
    World::with_book(book, &[])
}

/// One line item that pays 2 dollars with these creatives.
fn showing(creatives: &[&str]) -> World {
    world(json!([item("li", "2", json!({"creatives": creatives}))]))
}

/// An imp that offers only this.
fn offering(format: &str, slot: Value) -> Value {
    json!({"imp": [{"id": "1", format: slot}]})
}

/// A video slot that takes what we have, with changes.
pub(super) fn video(changes: Value) -> Value {
    let mut video = json!({"mimes": ["video/mp4"], "protocols": [2, 7], "minduration": 5, "maxduration": 30, "w": 640, "h": 480});
    merge(&mut video, &changes);
    video
}

const BID: &str = "1 li @ 2";

#[test]
fn a_bid_is_of_a_format_that_the_imp_offers() {
    let slots = [
        ("banner", json!({"w": 300, "h": 250})),
        ("video", video(json!({}))),
        ("audio", json!({"mimes": ["audio/mpeg"]})),
        (
            "native",
            json!({"api": [7], "request": {"assets": [{"id": 1, "title": {"len": 90}}]}}),
        ),
    ];
    for (ours, _) in &slots {
        let world = showing(&[ours]);
        for (theirs, slot) in &slots {
            let want = if ours == theirs { BID } else { "format" };
            world.check(offering(theirs, slot.clone()), &[want]);
        }
        let mut all = json!({"id": "1"});
        slots
            .iter()
            .for_each(|(format, slot)| all[*format] = slot.clone());
        world.check(json!({"imp": [all]}), &[BID]);
        world.check(json!({"imp": [{"id": "1"}]}), &["format"]);
        // What is no object offers nothing.
        world.check(offering(ours, json!("x")), &["format"]);
    }
}

#[test]
fn targeting_sees_format_and_size_of_every_format() {
    let sees = |creative: &str, targeting: &str| {
        world(json!([item(
            "li",
            "2",
            json!({"creatives": [creative], "targeting": targeting})
        )]))
    };
    let player = offering("video", video(json!({"api": [7], "pos": 3})));
    sees(
        "video",
        "format = 'video' and width = 640 and height = 480 and position = 3",
    )
    .check(player.clone(), &[BID]);
    sees("sized", "width = 640 and height = 360").check(player, &[BID]);
    let audio = offering("audio", json!({"mimes": ["audio/mpeg"]}));
    sees("audio", "format = 'audio' and width is null").check(audio, &[BID]);
    let native = offering(
        "native",
        json!({"api": [7], "request": {"assets": [{"id": 1, "title": {"len": 90}}]}}),
    );
    sees("native", "format = 'native' and width is null").check(native, &[BID]);
}

#[test]
fn sizes_may_be_proportions() {
    let world = showing(&["banner"]);
    let banner = |banner: Value| offering("banner", banner);
    for (flex, want) in [
        (json!({"wratio": 6, "hratio": 5}), BID),
        (json!({"wratio": 12, "hratio": 10, "wmin": 300}), BID),
        (json!({"wratio": "6", "hratio": 5.0, "wmin": 1}), BID),
        (json!({"wratio": 6, "hratio": 5, "wmin": 301}), "size"),
        (json!({"wratio": 6, "hratio": 5, "wmin": "?"}), "size"),
        (json!({"wratio": 16, "hratio": 9}), "size"),
        (json!({"wratio": 0, "hratio": 0}), "size"),
        (json!({"wratio": -6, "hratio": -5}), "size"),
        (json!({"wratio": 6}), "size"),
    ] {
        world.check(banner(json!({"format": [flex]})), &[want]);
    }
    world.check(
        banner(json!({"format": [{"w": 728, "h": 90}, {"wratio": 6, "hratio": 5}]})),
        &[BID],
    );
    world.decide(
        &banner(json!({"format": [{"wratio": 12, "hratio": 10}]})),
        |decision, _| {
            assert_eq!(decision.outcome.expect("a bid")[0].flex, Some((12, 10)));
        },
    );
    // Two products that are both too large are not the same.
    let huge = json!([{"wratio": 9_000_000_000_000_000_000i64, "hratio": 8_000_000_000_000_000_000i64}, {"wratio": 6, "hratio": 5}]);
    world.decide(&banner(json!({"format": huge})), |decision, _| {
        assert_eq!(decision.outcome.expect("a bid")[0].flex, Some((6, 5)));
    });
    // A size that is asked for as such is answered as such.
    let both = json!({"w": 300, "h": 250, "format": [{"wratio": 12, "hratio": 10}]});
    world.decide(&banner(both), |decision, _| {
        assert_eq!(decision.outcome.expect("a bid")[0].flex, None);
    });
}

#[test]
fn a_banners_types_limit_those_that_declare_theirs() {
    let slot = |mimes: Value| offering("banner", json!({"w": 300, "h": 250, "mimes": mimes}));
    let typed = showing(&["typed"]);
    typed.check(slot(json!(["image/png", "Text/HTML"])), &[BID]);
    typed.check(slot(json!(null)), &[BID]);
    typed.check(slot(json!(["image/png"])), &["media"]);
    typed.check(slot(json!("text/html")), &["media"]);
    showing(&["banner"]).check(slot(json!(["image/png"])), &[BID]);
}

#[test]
fn a_framework_that_is_not_listed_is_not_there() {
    let slot = |api: Value| offering("banner", json!({"w": 300, "h": 250, "api": api}));
    let world = showing(&["mraid"]);
    world.check(slot(json!([7, 5, 99])), &[BID]);
    world.check(slot(json!(["7", 5.0])), &[BID]);
    for api in [json!([5]), json!([]), json!(null), json!("5"), json!([{}])] {
        world.check(slot(api), &["api"]);
    }
    showing(&["banner"]).check(slot(json!("?")), &[BID]);
    showing(&["sized"]).check(offering("video", video(json!({"api": [7]}))), &[BID]);
    showing(&["sized"]).check(offering("video", video(json!({"api": [1, 2]}))), &["api"]);
    let native = |api: Value| {
        offering(
            "native",
            json!({"api": api, "request": {"assets": [{"id": 1, "title": {"len": 90}}]}}),
        )
    };
    showing(&["native"]).check(native(json!([7])), &[BID]);
    showing(&["native"]).check(native(json!([1])), &["api"]);
}

#[test]
fn a_player_plays_only_what_it_lists() {
    let world = showing(&["video"]);
    for (changes, want) in [
        (json!({}), BID),
        (
            json!({"mimes": ["application/javascript", "VIDEO/WEBM"]}),
            BID,
        ),
        (json!({"mimes": ["video/3gpp"]}), "media"),
        (json!({"protocols": [2, 3, 5, 6]}), "media"),
        (json!({"protocols": "7"}), "media"),
        (json!({"protocols": null}), BID),
        (json!({"protocols": []}), BID),
        // The deprecated field counts where the other is not sent.
        (json!({"protocols": null, "protocol": 7}), BID),
        (json!({"protocols": null, "protocol": 2}), "media"),
        (json!({"protocols": null, "protocol": {}}), "media"),
        (json!({"protocols": [7], "protocol": 2}), BID),
        // A list that is held against every creative is a short one.
        (json!({"mimes": vec!["video/mp4"; 32]}), BID),
        (json!({"mimes": vec!["video/mp4"; 33]}), "format"),
        (json!({"protocols": vec![7; 257]}), "media"),
        (json!({"linearity": 1}), BID),
        (json!({"linearity": 2}), "media"),
        (json!({"linearity": "?"}), "media"),
        (json!({"minbitrate": 900, "maxbitrate": 1000}), BID),
        (
            json!({"playbackmethod": [1], "skip": 0, "plcmt": 2, "placement": "x", "startdelay": -2}),
            BID,
        ),
    ] {
        world.check(offering("video", video(changes)), &[want]);
    }
    showing(&["overlay"]).check(offering("video", video(json!({"linearity": 2}))), &[BID]);
    let sized = showing(&["sized"]);
    for (changes, want) in [
        (json!({"minbitrate": 300, "maxbitrate": 1500}), BID),
        (json!({"minbitrate": 801}), "media"),
        (json!({"maxbitrate": 799}), "media"),
        (json!({"maxbitrate": "?"}), "media"),
    ] {
        let mut slot = video(changes);
        slot["api"] = json!([7]);
        sized.check(offering("video", slot), &[want]);
    }
}

#[test]
fn without_mimes_there_is_no_video_but_there_may_be_a_banner() {
    let world = showing(&["video", "banner"]);
    for mimes in [
        json!(null),
        json!([]),
        json!("video/mp4"),
        json!([{}]),
        json!(7),
    ] {
        world.check(
            offering("video", video(json!({"mimes": mimes.clone()}))),
            &["format"],
        );
        let both = json!({"imp": [{"id": "1", "video": video(json!({"mimes": mimes})), "banner": {"w": 300, "h": 250}}]});
        world.decide(&both, |decision, _| {
            assert_eq!(&*decision.outcome.expect("a bid")[0].creative.id, "banner");
        });
    }
}

#[test]
fn lengths_are_within_bounds_or_one_of_those_required() {
    let world = showing(&["video"]);
    for (changes, want) in [
        (json!({"minduration": 15, "maxduration": 15}), BID),
        (json!({"minduration": 16}), "duration"),
        (json!({"maxduration": 14}), "duration"),
        (json!({"minduration": null, "maxduration": null}), BID),
        (json!({"minduration": "?"}), "duration"),
        (json!({"maxduration": [30]}), "duration"),
        (json!({"maxduration": ""}), BID),
        (
            json!({"minduration": null, "maxduration": null, "rqddurs": [10, 15]}),
            BID,
        ),
        (
            json!({"minduration": null, "maxduration": null, "rqddurs": [10, 14, 16]}),
            "duration",
        ),
        (json!({"rqddurs": "15"}), "duration"),
        // Both, which no request may send: the precise lengths count.
        (json!({"minduration": 20, "rqddurs": [15]}), BID),
        (json!({"minduration": 5, "rqddurs": [30]}), "duration"),
        (json!({"minduration": "?", "rqddurs": [15]}), BID),
    ] {
        world.check(offering("video", video(changes)), &[want]);
    }
    // The first creative that fits is shown.
    let both = showing(&["video", "thirty"]);
    both.decide(
        &offering("video", video(json!({"rqddurs": [30]}))),
        |decision, _| {
            assert_eq!(&*decision.outcome.expect("a bid")[0].creative.id, "thirty");
        },
    );
    let audio = showing(&["audio"]);
    audio.check(
        offering("audio", json!({"mimes": ["audio/mpeg"], "maxduration": 10})),
        &["duration"],
    );
    audio.check(
        offering("audio", json!({"mimes": ["audio/mpeg"], "protocols": [9]})),
        &["media"],
    );
}

#[test]
fn each_format_blocks_attributes_of_its_own() {
    let sized = showing(&["sized"]);
    let slot = |battr: Value| video(json!({"api": [7], "battr": battr}));
    sized.check(offering("video", slot(json!([1, 2]))), &[BID]);
    sized.check(offering("video", slot(json!([6]))), &["blocked_attribute"]);
    // Who wants no skippable ads blocks attribute 16, which `skippable` stands for.
    sized.check(offering("video", slot(json!([16]))), &["blocked_attribute"]);
    sized.check(offering("video", slot(json!("?"))), &["blocked_attribute"]);
    // Another format's list, and its types, do not matter.
    let beside = json!({"imp": [{"id": "1", "video": slot(json!([])), "banner": {"w": 1, "h": 1, "battr": [6], "btype": [2]}}]});
    sized.check(beside, &[BID]);
    let native = |battr: Value| {
        offering(
            "native",
            json!({"api": [7], "battr": battr, "request": {"assets": [{"id": 1, "title": {"len": 90}}]}}),
        )
    };
    showing(&["native"]).check(native(json!([9])), &["blocked_attribute"]);
    showing(&["native"]).check(native(json!([6])), &[BID]);
}

#[test]
fn secure_imps_take_secure_creatives_of_every_format() {
    let slot = json!({"imp": [{"id": "1", "secure": 1, "video": video(json!({}))}]});
    showing(&["video"]).check(slot.clone(), &[BID]);
    showing(&["plain"]).check(slot, &["secure"]);
    showing(&["plain"]).check(offering("video", video(json!({}))), &[BID]);
}

#[test]
fn blocked_apps_are_not_advertised() {
    let world = showing(&["app"]);
    let banner = |fields: Value| {
        let mut request = offering("banner", json!({"w": 300, "h": 250}));
        merge(&mut request, &fields);
        request
    };
    world.check(banner(json!({})), &[BID]);
    world.check(banner(json!({"bapp": ["com.example.other"]})), &[BID]);
    world.check(
        banner(json!({"bapp": ["com.example.shop"]})),
        &["blocked_app"],
    );
    world.check(banner(json!({"bapp": 7})), &["unreadable_limit"]);
    showing(&["banner"]).check(banner(json!({"bapp": ["com.example.shop"]})), &[BID]);
}

#[test]
fn a_language_tag_is_allowed_by_its_language() {
    let world = showing(&["french"]);
    for (fields, want) in [
        (json!({"wlang": ["fr"]}), BID),
        (json!({"wlangb": ["FR"]}), BID),
        (json!({"wlangb": ["fr-ca"]}), BID),
        (json!({"wlangb": ["fr_CA"]}), BID),
        (json!({"wlang": ["fr_BE"]}), "language"),
        (json!({"wlangb": ["x".repeat(300)]}), "language"),
        // It says less than what is asked for, and may be all of it.
        (json!({"wlangb": ["fr-CA-x-old"]}), BID),
        (json!({"wlangb": ["fr-BE"]}), "language"),
        (json!({"wlangb": ["f"]}), "language"),
        (json!({"wlang": ["en"]}), "language"),
    ] {
        let mut request = offering("banner", json!({"w": 300, "h": 250}));
        merge(&mut request, &fields);
        world.check(request, &[want]);
    }
}

#[test]
fn floors_may_depend_on_the_length() {
    // 15 seconds at 2 dollars.
    let world = showing(&["video"]);
    let slot = |changes: Value, floor: Value| json!({"imp": [{"id": "1", "bidfloor": floor, "video": video(changes)}]});
    for (changes, imp_floor, want) in [
        // For each second; before the imp's floor, be that higher or lower.
        (json!({"mincpmpersec": 0.133333}), 9.0, BID),
        (json!({"mincpmpersec": 0.133334}), 0.0, "floor"),
        (json!({"mincpmpersec": 0}), 2.5, "floor"),
        (json!({"mincpmpersec": "?"}), 0.0, "currency"),
        (json!({"mincpmpersec": 1000000}), 0.0, "currency"),
        // Ranges, both ends in them.
        (
            json!({"durfloors": [{"mindur": 15, "maxdur": 15, "bidfloor": 2.01}]}),
            0.0,
            "floor",
        ),
        (
            json!({"durfloors": [{"mindur": 15, "maxdur": 15, "bidfloor": 2}]}),
            9.0,
            BID,
        ),
        (
            json!({"durfloors": [{"mindur": 1, "maxdur": 15, "bidfloor": 3}]}),
            0.0,
            "floor",
        ),
        (
            json!({"durfloors": [{"mindur": 15, "bidfloor": 3}]}),
            0.0,
            "floor",
        ),
        (
            json!({"durfloors": [{"maxdur": 15, "bidfloor": 3}]}),
            0.0,
            "floor",
        ),
        (json!({"durfloors": [{"bidfloor": 3}]}), 0.0, "floor"),
        // Outside of all of them the imp's floor holds.
        (
            json!({"durfloors": [{"mindur": 16, "bidfloor": 3}, {"maxdur": 14, "bidfloor": 1}]}),
            2.5,
            "floor",
        ),
        (
            json!({"durfloors": [{"mindur": 16, "bidfloor": 3}, {"maxdur": 14, "bidfloor": 3}]}),
            1.0,
            BID,
        ),
        // Of several that hold, the highest.
        (
            json!({"durfloors": [{"maxdur": 20, "bidfloor": 1}, {"mindur": 10, "bidfloor": 2.5}]}),
            0.0,
            "floor",
        ),
        (
            json!({"durfloors": [{"maxdur": 20, "bidfloor": 1}], "mincpmpersec": 1}),
            0.0,
            "floor",
        ),
        // No floor said in a range is none.
        (json!({"durfloors": [{"maxdur": 20}]}), 9.0, BID),
        // What cannot be read is as wide and as high as it could be.
        (
            json!({"durfloors": [{"mindur": 10, "maxdur": 20, "bidfloor": "?"}]}),
            0.0,
            "currency",
        ),
        (
            json!({"durfloors": [{"mindur": 16, "maxdur": 20, "bidfloor": "?"}]}),
            0.0,
            BID,
        ),
        (
            json!({"durfloors": [{"mindur": "?", "maxdur": 20, "bidfloor": 3}]}),
            0.0,
            "floor",
        ),
        (
            json!({"durfloors": [7, {"maxdur": 20, "bidfloor": 1}]}),
            0.0,
            "currency",
        ),
        (json!({"durfloors": 7}), 0.0, "currency"),
        (json!({"durfloors": []}), 1.0, BID),
    ] {
        world.check(slot(changes, json!(imp_floor)), &[want]);
    }
    // They are in the imp's currency.
    let euros = |per_second: f64| json!({"imp": [{"id": "1", "bidfloorcur": "EUR", "video": video(json!({"mincpmpersec": per_second}))}]});
    world.check(euros(0.06), &[BID]);
    world.check(euros(0.07), &["floor"]);
    // A banner in the same imp has the imp's.
    let banner = json!({"imp": [{"id": "1", "bidfloor": 1, "banner": {"w": 300, "h": 250}, "video": video(json!({"mincpmpersec": 1}))}]});
    showing(&["banner"]).check(banner, &[BID]);
    // Targeting sees the floor that holds.
    let targeting = json!({"creatives": ["video"], "targeting": "floor > 1.49 and floor < 1.51"});
    self::world(json!([item("li", "2", targeting)]))
        .check(slot(json!({"mincpmpersec": 0.1}), json!(0.01)), &[BID]);
}

#[test]
fn where_one_creative_is_under_its_floor_the_next_is_tried() {
    let slot = video(json!({"mincpmpersec": 0.1}));
    // Thirty seconds cost three dollars, fifteen one and a half.
    showing(&["thirty", "video"]).check(offering("video", slot.clone()), &[BID]);
    showing(&["thirty"]).check(offering("video", slot), &["floor"]);
    let either = json!({"imp": [{"id": "1", "bidfloor": 1, "banner": {"w": 300, "h": 250},
        "video": video(json!({"mincpmpersec": 0.2}))}]});
    showing(&["video", "banner"]).check(either, &[BID]);
    // A floor that nobody can read is one of those.
    let unreadable = json!({"imp": [{"id": "1", "bidfloor": 1, "banner": {"w": 300, "h": 250},
        "video": video(json!({"mincpmpersec": "?"}))}]});
    showing(&["video"]).check(unreadable.clone(), &["currency"]);
    showing(&["video", "banner"]).check(unreadable, &[BID]);
}

#[test]
fn an_answer_is_no_longer_than_it_may_be() {
    let long = "x".repeat(200 << 10);
    let mut book = document(json!([
        item("li", "2", json!({"creatives": ["banner"]})),
        item("short", "1", json!({"creatives": ["app"], "deals": ["d"]}))
    ]));
    book["creatives"][0]["adm"] = json!(long);
    let book = compile(book.to_string().as_bytes()).expect("a good document");
    let world = World::with_book(book, &[]);
    let deal = json!({"deals": [{"id": "d"}]});
    let imps: Vec<Value> = (0..14)
        .map(|id| imp(json!({"id": id.to_string(), "pmp": deal})))
        .collect();
    let fields = json!({"imp": imps});
    let bids = world.bids(fields.clone());
    // Ten of the long ones fit; of an imp nothing is taken behind what does not.
    assert_eq!(bids.iter().filter(|bid| bid.contains(" li ")).count(), 10);
    assert_eq!(bids.first().map(String::as_str), Some("0 li @ 2"));
    let story = explained(&world, fields);
    assert!(story["response"].to_string().len() < ANSWER_BYTES_MAX + 1000);
    // URLs that a click is counted by are longer than what stands for them.
    let clicks = "${KITH_CLICK_URL}".repeat(4_000);
    let mut book = document(json!([item("li", "2", json!({"creatives": ["banner"]}))]));
    book["creatives"][0]["adm"] = json!(clicks);
    let book = compile(book.to_string().as_bytes()).expect("a good document");
    let imps = json!({"imp": [imp(json!({"id": "1"})), imp(json!({"id": "2"}))]});
    assert_eq!(World::with_book(book, &[]).bids(imps), ["1 li @ 2"]);
    // The exchange's own ids count too.
    let id = "i".repeat(700 << 10);
    let long = World::new(
        json!([
            item("open", "1", json!({})),
            item("deal", "1", json!({"deals": ["d", "e"]}))
        ]),
        &[],
    );
    let imp = imp(json!({"id": id, "pmp": {"deals": [{"id": "d"}, {"id": "e"}]}}));
    assert_eq!(long.bids(json!({"imp": [imp]})).len(), 2);
    let last = story["imps"][13]["line_items"][0].clone();
    assert_eq!(
        (last["id"].as_str(), last["reason"].as_str()),
        (Some("li"), Some("answer_size"))
    );
}

#[test]
fn a_deals_floors_come_before_those_of_the_slot() {
    let world = world(json!([item(
        "li",
        "2",
        json!({"creatives": ["video", "banner"], "deals": ["d"]})
    )]));
    let slot = |deal: Value, media: Value| {
        let mut offered = json!({"id": "d"});
        merge(&mut offered, &deal);
        json!({"imp": [{"id": "1", "bidfloor": 0.5, "video": video(media), "pmp": {"private_auction": 1, "deals": [offered]}}]})
    };
    const DEAL: &str = "1 li @ 2 d";
    for (deal, media, want) in [
        (json!({"bidfloor": 2}), json!({"mincpmpersec": 1}), DEAL),
        (
            json!({"mincpmpersec": 0.1}),
            json!({"mincpmpersec": 1}),
            DEAL,
        ),
        (json!({"mincpmpersec": 0.2}), json!({}), "floor"),
        (
            json!({"durfloors": [{"maxdur": 15, "bidfloor": 2.5}]}),
            json!({}),
            "floor",
        ),
        (
            json!({"durfloors": [{"maxdur": 15, "bidfloor": 1.5}]}),
            json!({"mincpmpersec": 1}),
            DEAL,
        ),
        // Several in one deal: the highest.
        (
            json!({"bidfloor": 1, "mincpmpersec": 0.2}),
            json!({}),
            "floor",
        ),
        // Its ranges leave this length out: the imp's floor.
        (
            json!({"durfloors": [{"maxdur": 10, "bidfloor": 2.5}]}),
            json!({"mincpmpersec": 1}),
            DEAL,
        ),
        // None of its own: the slot's.
        (json!({}), json!({"mincpmpersec": 1}), "floor"),
        (json!({}), json!({"mincpmpersec": 0.1}), DEAL),
        (json!({"durfloors": "?"}), json!({}), "currency"),
        // Its currency is its own: dollars where none is said.
        (
            json!({"bidfloorcur": "EUR", "mincpmpersec": 0.06}),
            json!({}),
            DEAL,
        ),
        (
            json!({"bidfloorcur": "EUR", "mincpmpersec": 0.07}),
            json!({}),
            "floor",
        ),
        // The agreed price is the floor, by length too.
        (
            json!({"at": 3, "mincpmpersec": 0.1}),
            json!({}),
            "1 li @ 1.5 d",
        ),
    ] {
        world.check(slot(deal, media), &[want]);
    }
    // Floors by length do not concern a banner.
    let banner = json!({"imp": [{"id": "1", "bidfloor": 1, "banner": {"w": 300, "h": 250},
        "pmp": {"deals": [{"id": "d", "mincpmpersec": 9, "durfloors": [{"bidfloor": 9}]}]}}]});
    world.check(banner, &[DEAL]);
}

#[test]
fn guaranteed_deals_are_refused_and_said_to_be() {
    let world = world(json!([item(
        "li",
        "2",
        json!({"creatives": ["banner"], "deals": ["d", "e"]})
    )]));
    let slot = |deals: Value| json!({"imp": [imp(json!({"pmp": {"deals": deals}}))]});
    world.check(slot(json!([{"id": "d", "guar": 1}])), &["guaranteed_deal"]);
    world.check(
        slot(json!([{"id": "d", "guar": "?"}])),
        &["guaranteed_deal"],
    );
    world.check(slot(json!([{"id": "d", "guar": 0}])), &["1 li @ 2 d"]);
    world.check(
        slot(json!([{"id": "d", "guar": 1}, {"id": "e"}])),
        &["1 li @ 2 e"],
    );
}

#[test]
fn deals_that_nobody_knows_are_not_answered() {
    let world = world(json!([
        item(
            "deal",
            "9",
            json!({"creatives": ["banner"], "deals": ["d"]})
        ),
        item("open", "2", json!({"creatives": ["banner"]}))
    ]));
    world.check(
        json!({"imp": [imp(json!({"pmp": {"deals": [{"id": "x"}, {"id": "D"}]}}))]}),
        &["1 open @ 2"],
    );
}

#[test]
fn an_impression_may_not_come_later_than_its_notice_is_taken() {
    let world = showing(&["banner"]);
    let slot = |exp: Value| json!({"imp": [imp(json!({"exp": exp}))]});
    for (exp, want) in [
        (json!(3600), BID),
        (json!(0), BID),
        (json!(-1), BID),
        (json!(3601), "expiry"),
        (json!(1e15), "expiry"),
        // What cannot be read may be any time.
        (json!("soon"), "expiry"),
        (Value::Null, BID),
    ] {
        world.check(slot(exp), &[want]);
    }
    let exp_of = |fields: Value| {
        let mut exp = None;
        world.decide(&fields, |decision, _| {
            exp = decision.outcome.expect("a bid")[0].exp
        });
        exp
    };
    assert_eq!(exp_of(slot(json!(60))), Some(3600));
    assert_eq!(exp_of(json!({"imp": [imp(json!({}))]})), None);
    // Nobody else comes nearer then.
    let other = self::world(json!([
        item("a", "2", json!({"creatives": ["banner"]})),
        item("b", "2", json!({"creatives": ["video"]}))
    ]));
    other.check(slot(json!(4000)), &["expiry"]);
}

#[test]
fn a_showing_may_count_for_many_impressions() {
    let world = showing(&["banner"]);
    let slot = |qty: Value| json!({"imp": [imp(json!({"qty": qty}))]});
    let multiplier = |qty: Value| {
        let mut found = 0;
        world.decide(&slot(qty), |decision, _| {
            found = decision.outcome.expect("a bid")[0].multiplier.millionths();
        });
        found
    };
    assert_eq!(multiplier(json!(null)), 1_000_000);
    assert_eq!(multiplier(json!({})), 1_000_000);
    assert_eq!(
        multiplier(json!({"multiplier": 14.2, "sourcetype": 1, "vendor": "x"})),
        14_200_000
    );
    assert_eq!(multiplier(json!({"multiplier": "0.25"})), 250_000);
    for unreadable in [
        json!({"multiplier": 0}),
        json!({"multiplier": -1}),
        json!({"multiplier": "many"}),
        json!({"multiplier": 1e9}),
        json!(7),
    ] {
        world.check(slot(unreadable), &["no_usable_imp"]);
    }
}

#[test]
fn a_screen_out_of_home_needs_neither_person_nor_device() {
    let world = showing(&["banner", "video"]);
    let imp = json!({"id": "1", "secure": 1, "banner": {"w": 300, "h": 250, "mimes": ["image/png"]}, "dt": 1647010095000.5,
        "qty": {"multiplier": 14.2}, "exp": 360, "instl": 1, "rwdd": 0, "ssai": 3});
    world.check(json!({"imp": [imp], "dooh": {"id": "15790", "venuetypetax": 1, "publisher": {"id": "G1"}}}), &[BID]);
}

#[test]
fn pods_are_not_overfilled() {
    let deals = |id: &str, cpm: &str, creative: &str, deal: Option<&str>| {
        let deals: Vec<_> = deal.into_iter().collect();
        item(id, cpm, json!({"creatives": [creative], "deals": deals}))
    };
    // 15 seconds in the open auction, 30 in each of two deals.
    let world = world(json!([
        deals("open", "2", "video", None),
        deals("one", "5", "thirty", Some("d1")),
        deals("two", "4", "thirty", Some("d2")),
    ]));
    let slot = |id: &str, pod: Value| json!({"id": id, "video": video(pod), "pmp": {"deals": [{"id": "d1"}, {"id": "d2"}]}});
    let pod = |pod: Value| json!({"imp": [slot("1", pod)]});
    let all = ["1 one @ 5 d1", "1 open @ 2", "1 two @ 4 d2"];
    world.check(pod(json!({})), &all);
    world.check(pod(json!({"poddur": 75, "maxseq": 3})), &all);
    // What pays most stays, and what still fits beside it.
    world.check(
        pod(json!({"poddur": 74})),
        &["1 one @ 5 d1", "1 two @ 4 d2"],
    );
    world.check(pod(json!({"poddur": 59})), &["1 one @ 5 d1", "1 open @ 2"]);
    world.check(pod(json!({"poddur": 44})), &["1 one @ 5 d1"]);
    world.check(pod(json!({"poddur": 29})), &["1 open @ 2"]);
    world.check(pod(json!({"poddur": 14})), &["duration"]);
    world.check(pod(json!({"maxseq": 2})), &["1 one @ 5 d1", "1 two @ 4 d2"]);
    world.check(pod(json!({"maxseq": 0})), &["pod"]);
    world.check(pod(json!({"maxseq": "?"})), &["pod"]);
    world.check(pod(json!({"poddur": "?"})), &["duration"]);
    // Imps of one pod share it; another pod, and a structured slot, have their own.
    let dynamic = json!({"podid": "p", "poddur": 60});
    let shared = |second: Value| json!({"imp": [slot("1", dynamic.clone()), slot("2", second)]});
    world.check(shared(dynamic.clone()), &["1 one @ 5 d1", "1 two @ 4 d2"]);
    world.check(
        shared(json!({"podid": "p", "poddur": 75})),
        &["1 one @ 5 d1", "1 two @ 4 d2", "2 open @ 2"],
    );
    let second = ["2 one @ 5 d1", "2 open @ 2", "2 two @ 4 d2"];
    for other in [
        json!({"podid": "q", "poddur": 75}),
        json!({"podid": "p"}),
        json!({"poddur": 75}),
    ] {
        let want: Vec<&str> = ["1 one @ 5 d1", "1 two @ 4 d2"]
            .into_iter()
            .chain(second)
            .collect();
        world.check(shared(other), &want);
    }
}

#[test]
fn a_position_in_a_pod_is_bought_where_it_is_guaranteed() {
    let first = world(json!([item(
        "li",
        "2",
        json!({"creatives": ["video", "banner"], "slotinpod": "first"})
    )]));
    let slot = |changes: Value| offering("video", video(changes));
    let answered = |changes: Value| {
        let mut answered = None;
        first.decide(&slot(changes), |decision, _| {
            answered = Some(decision.outcome.map(|bids| bids[0].slotinpod));
        });
        answered.expect("a decision")
    };
    // Said only in answer to a dynamic pod: a structured slot is what its imp says it is.
    assert_eq!(
        answered(json!({"podid": "p", "poddur": 60, "slotinpod": 1})),
        Ok(Some(1))
    );
    assert_eq!(
        answered(json!({"podid": "p", "poddur": 60, "slotinpod": 2})),
        Ok(Some(1))
    );
    assert_eq!(answered(json!({"podid": "p", "slotinpod": 1})), Ok(None));
    for changes in [
        json!({"podid": "p", "poddur": 60, "slotinpod": -1}),
        json!({"podid": "p", "poddur": 60}),
        json!({"podid": "p", "slotinpod": 2}),
        json!({}),
    ] {
        first.check(slot(changes), &["pod"]);
    }
    first.check(offering("banner", json!({"w": 300, "h": 250})), &["pod"]);
    // Who wants none is put anywhere.
    showing(&["video"]).decide(
        &slot(json!({"poddur": 60, "slotinpod": 2})),
        |decision, _| {
            assert_eq!(decision.outcome.expect("a bid")[0].slotinpod, None);
        },
    );
}

#[test]
fn every_imp_is_bid_on_in_its_own_format() {
    let world = world(json!([
        item("b", "1", json!({"creatives": ["banner"]})),
        item("v", "3", json!({"creatives": ["video"]})),
        item("a", "2", json!({"creatives": ["audio"]})),
    ]));
    let imps = json!([
        {"id": "1", "banner": {"w": 300, "h": 250}, "instl": 1},
        {"id": "2", "video": video(json!({})), "banner": {"w": 300, "h": 250}, "rwdd": 1},
        {"id": "3", "audio": {"mimes": ["audio/mpeg"]}},
    ]);
    world.check(json!({"imp": imps}), &["1 b @ 1", "2 v @ 3", "3 a @ 2"]);
    let told = explained(&world, json!({"imp": imps}));
    let formats: Vec<&Value> = (0..3)
        .map(|imp| &told["imps"][imp]["bids"][0]["format"])
        .collect();
    assert_eq!(formats, ["banner", "video", "audio"]);
}

/// A native request with these assets, and what else.
fn native(assets: Value, changes: Value) -> Value {
    let mut request = json!({"ver": "1.2", "assets": assets});
    merge(&mut request, &changes);
    offering(
        "native",
        json!({"api": [7], "request": request.to_string()}),
    )
}

/// The document that a native request is answered with.
fn answered(request: Value) -> Value {
    let told = explained(&showing(&["native"]), request);
    let adm = told["response"]["seatbid"][0]["bid"][0]["adm"].as_str();
    serde_json::from_str(adm.unwrap_or_else(|| panic!("{told:#}"))).expect("a native document")
}

#[test]
fn native_assets_are_answered_by_their_ids() {
    let assets = json!([
        {"id": 7, "required": 1, "title": {"len": 25}},
        {"id": 2, "img": {"type": 3, "wmin": 600, "hmin": 300}},
        {"id": 3, "required": 0, "img": {"type": 1, "w": 50, "h": 50}},
        {"id": 4, "data": {"type": 1, "len": 25}, "img": null},
        {"id": 0, "data": {"type": 12}},
        {"id": 6, "data": {"type": 2, "len": 140}},
        {"id": 8, "video": {"mimes": ["video/mp4"], "minduration": 5, "maxduration": 30, "protocols": [2, 3]}},
        {"id": 9, "title": {"len": 140}},
    ]);
    let events = json!({"privacy": 1, "eventtrackers": [{"event": 1, "methods": [1, 2]}]});
    assert_eq!(
        answered(native(assets, events)),
        json!({"ver": "1.2", "assets": [
            {"id": 7, "required": 1, "title": {"text": "Boots for long ways"}},
            {"id": 2, "img": {"url": "https://cdn.acme.example/wide.jpg", "w": 1200, "h": 627}},
            {"id": 4, "data": {"value": "Acme"}},
            {"id": 0, "data": {"value": "Buy \"now\""}},
            {"id": 8, "video": {"vasttag": "<VAST></VAST>"}},
            {"id": 9, "title": {"text": "Boots for the long way home, in all the colours of an October hedge"}}],
            "link": {"url": "${KITH_CLICK_URL}", "clicktrackers": ["https://t.acme.example/c"]},
            "eventtrackers": [{"event": 1, "method": 1, "url": "https://t.acme.example/i"},
                              {"event": 1, "method": 2, "url": "https://t.acme.example/js"}],
            "privacy": "https://acme.example/privacy"})
    );
}

#[test]
fn a_native_request_has_many_forms() {
    let title = json!([{"id": 1, "title": {"len": 90}}]);
    let world = showing(&["native"]);
    let bare = json!({"ver": "1.1", "assets": title});
    let rooted = json!({"native": {"ver": "1.0", "assets": title}});
    for (name, ver, request) in [
        ("request", "1.1", json!(bare.to_string())),
        ("request", "1.1", bare.clone()),
        ("request_native", "1.1", bare.clone()),
        ("request", "1.0", json!(rooted.to_string())),
        ("request", "1.0", rooted.clone()),
    ] {
        let slot = offering("native", json!({"api": [7], name: request}));
        world.check(slot.clone(), &[BID]);
        let answer = answered(slot);
        let document = if ver == "1.0" {
            &answer["native"]
        } else {
            &answer
        };
        // Answered in the form and version of the question; what is not asked for in trackers is an old one.
        assert_eq!(document["ver"], ver, "{answer}");
        assert_eq!(document["imptrackers"], json!(["https://t.acme.example/i"]));
        assert_eq!(
            document.get("eventtrackers").or(document.get("privacy")),
            None
        );
    }
    // The version may stand beside the document, and one that nobody knows is answered with ours.
    let beside = |ver: &str| {
        offering(
            "native",
            json!({"api": [7], "ver": ver, "request": {"assets": title}}),
        )
    };
    assert_eq!(answered(beside("1.1"))["ver"], "1.1");
    assert_eq!(answered(beside("2.7"))["ver"], "1.2");
    for broken in [
        json!("{native: \"request\"}"),
        json!("{} x"),
        json!("[]"),
        json!(""),
        json!(null),
        json!(7),
        json!({}),
        json!({"assets": []}),
        json!({"assets": 7}),
        json!("\u{0}"),
        json!({"assets": vec![title[0].clone(); 65]}),
    ] {
        world.check(
            offering("native", json!({"api": [7], "request": broken})),
            &["format"],
        );
    }
}

#[test]
fn required_native_assets_must_be_answered_in_full() {
    let world = showing(&["native"]);
    let asset = |asset: Value, required: u8| {
        let mut asked = json!({"id": 1, "required": required});
        merge(&mut asked, &asset);
        native(json!([asked, {"id": 2, "data": {"type": 1}}]), json!({}))
    };
    for (what, fits) in [
        (json!({"title": {"len": 19}}), true),
        // A text is never cut.
        (json!({"title": {"len": 18}}), false),
        (json!({"title": {"len": "?"}}), false),
        (json!({"title": {}}), true),
        (json!({"title": {}, "img": {}}), false),
        (json!({"title": "?"}), false),
        (json!({}), false),
        (json!({"id": null, "title": {"len": 90}}), false),
        (json!({"id": "one", "title": {"len": 90}}), false),
        (json!({"img": {"type": 1, "w": 80, "h": 80}}), true),
        (json!({"img": {"type": 1, "w": 81, "h": 80}}), false),
        (
            json!({"img": {"type": 1, "w": 50, "wmin": 40, "h": 50, "hmin": 0}}),
            true,
        ),
        (json!({"img": {"type": 1, "wmin": 81}}), false),
        (json!({"img": {"type": 1, "wmin": "?"}}), false),
        (json!({"img": {"type": 2}}), false),
        (json!({"img": {"type": "x"}}), false),
        (json!({"img": {}}), true),
        (json!({"img": {"type": 3, "mimes": ["image/jpg"]}}), true),
        (json!({"img": {"type": 3, "mimes": ["IMAGE/JPEG"]}}), true),
        (json!({"img": {"type": 3, "mimes": ["image/png"]}}), false),
        (json!({"img": {"type": 3, "mimes": "image/jpeg"}}), false),
        // A picture whose type nobody declares fits no list.
        (json!({"img": {"type": 1, "mimes": ["image/png"]}}), false),
        (json!({"data": {"type": 12, "len": 9}}), true),
        (json!({"data": {"type": 12, "len": 8}}), false),
        (json!({"data": {"type": 2}}), false),
        (json!({"data": {}}), false),
        (
            json!({"video": {"mimes": ["video/mp4"], "protocols": [2], "minduration": 20, "maxduration": 20}}),
            true,
        ),
        (
            json!({"video": {"mimes": ["video/mp4"], "protocols": [7]}}),
            false,
        ),
        (
            json!({"video": {"mimes": ["video/mp4"], "maxduration": 19}}),
            false,
        ),
        (json!({"video": {"protocols": [2]}}), false),
    ] {
        let shown = what.to_string();
        let got = world.bids(asset(what.clone(), 1));
        assert_eq!(got, [if fits { BID } else { "assets" }], "required {shown}");
        assert_eq!(world.bids(asset(what, 0)), [BID], "optional {shown}");
    }
    // Each part answers one asset, and those that are required choose first.
    let icons = |required: u8| {
        native(
            json!([{"id": 1, "img": {"type": 1}}, {"id": 2, "required": required, "img": {"type": 1}}]),
            json!({}),
        )
    };
    assert_eq!(answered(icons(1))["assets"][0]["id"], 2);
    let two = native(
        json!([{"id": 1, "required": 1, "img": {"type": 1}}, {"id": 2, "required": "yes", "img": {"type": 1}}]),
        json!({}),
    );
    world.check(two, &["assets"]);
}

mod same_story {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn line_item() -> impl Strategy<Value = Value> {
        let creatives = select(vec![
            json!(["banner"]),
            json!(["video"]),
            json!(["thirty", "audio"]),
            json!(["sized", "banner"]),
            json!(["native"]),
            json!(["overlay", "native"]),
            json!(["app"]),
        ]);
        let targeting = select(vec![
            "not test or test",
            "format = 'video'",
            "country = 'FRA'",
            "width is null",
        ]);
        let deals = select(vec![
            json!([]),
            json!([]),
            json!(["d1"]),
            json!(["d1", "d2"]),
        ]);
        let slot = select(vec![None, None, None, Some("first")]);
        (creatives, targeting, deals, slot, 1..5u32).prop_map(|(creatives, targeting, deals, slot, cpm)| {
            json!({"creatives": creatives, "targeting": targeting, "deals": deals, "slotinpod": slot,
                "price": {"cpm": cpm, "currency": "USD"}})
        })
    }

    fn slot() -> impl Strategy<Value = Value> {
        let title = json!([{"id": 1, "required": 1, "title": {"len": 20}}]);
        let slots = select(vec![
            json!({"video": video(json!({}))}),
            json!({"video": video(json!({"podid": "p", "poddur": 45, "slotinpod": 1}))}),
            json!({"video": video(json!({"podid": "p", "maxseq": 1})), "banner": {"w": 300, "h": 250}}),
            json!({"video": video(json!({"maxduration": 20, "api": [7], "mincpmpersec": 0.1}))}),
            json!({"video": {}, "banner": {"w": 1, "h": 1}}),
            json!({"audio": {"mimes": ["audio/mpeg"], "durfloors": [{"mindur": 10, "bidfloor": 2}]}}),
            json!({"banner": {"format": [{"wratio": 6, "hratio": 5}]}, "exp": 60}),
            json!({"banner": {"w": 300, "h": 250}, "exp": 6000}),
            json!({"native": {"api": [7], "request": {"assets": title}}}),
            json!({"native": {"api": [7], "request": "?"}}),
            json!({}),
        ]);
        let deals = select(vec![
            json!({}),
            json!({"deals": [{"id": "d1"}, {"id": "d2", "guar": 1}]}),
            json!({"private_auction": 1, "deals": [{"id": "d2", "mincpmpersec": 0.1}, {"id": "d1"}]}),
        ]);
        (slots, deals).prop_map(|(mut slot, deals)| {
            slot["pmp"] = deals;
            slot
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Who asks only those that may want a slot decides as who asks everybody, whatever the formats.
        #[test]
        fn asking_candidates_decides_as_asking_everybody(
            line_items in proptest::collection::vec(line_item(), 1..10),
            requests in proptest::collection::vec(proptest::collection::vec(slot(), 1..4), 6),
        ) {
            let named = |(n, mut item): (usize, Value)| {
                item["id"] = format!("li{n:02}").into();
                item
            };
            let line_items: Vec<Value> = line_items.into_iter().enumerate().map(named).collect();
            let world = world(json!(line_items));
            for imps in requests {
                let imps: Vec<Value> = imps.into_iter().enumerate().map(named).collect();
                let request = json!({"imp": imps, "device": {"geo": {"country": "FRA"}}, "bapp": ["com.example.shop"]});
                let few = world.told(&request, &mut Silent);
                let all = world.told(&request, &mut Attentive);
                prop_assert_eq!(few, all, "{} {}", json!(line_items), request);
            }
        }
    }
}
