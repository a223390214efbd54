//! What is answered, to the byte: every format's response as others read it, and texts that somebody wrote to break it.

use super::formats::{document, video};
use super::*;
use crate::openrtb::write_bids;

/// A book of the formats' creatives, changed, and a line item for each.
fn world(change: impl FnOnce(&mut Value)) -> World {
    let items: Vec<Value> = ["banner", "video", "audio", "native"]
        .map(|id| item(id, "1.5", json!({"creatives": [id]})))
        .into();
    let mut document = document(json!(items));
    change(&mut document);
    let book =
        compile(document.to_string().as_bytes()).unwrap_or_else(|errors| panic!("{errors:#?}"));
    World::with_book(book, &[])
}

/// A creative of the document.
fn creative<'d>(document: &'d mut Value, id: &str) -> &'d mut Value {
    let all = document["creatives"].as_array_mut().expect("a list");
    all.iter_mut()
        .find(|creative| creative["id"] == id)
        .expect("the creative")
}

/// An imp for each format.
fn imps() -> Value {
    json!([
        {"id": "b", "banner": {"w": 300, "h": 250}},
        {"id": "v", "video": video(json!({}))},
        {"id": "a", "audio": {"mimes": ["audio/mpeg"]}},
        {"id": "n", "native": {"api": [7], "request": {"assets": [{"id": 5, "title": {"len": 90}}]}}},
    ])
}

fn response(world: &World, fields: &Value) -> String {
    let mut text = String::new();
    let id = fields["id"].as_str().unwrap_or("r").to_owned();
    world.decide(fields, |decision, _| {
        let proposals = decision.outcome.expect("bids");
        let bids: Vec<_> = (1u64..)
            .zip(proposals)
            .map(|(id, proposal)| proposal.bid_out(BidId(id)))
            .collect();
        let mut out = Vec::new();
        write_bids(&mut out, &id, decision.currency, &bids);
        text = String::from_utf8(out).expect("UTF-8");
    });
    text
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn bids(response: &Value) -> Vec<Value> {
    let seats = response["seatbid"].as_array().expect("seats");
    let bids = seats
        .iter()
        .map(|seat| seat["bid"].as_array().expect("bids").clone());
    bids.flatten().collect()
}

#[test]
fn every_format_says_what_its_creative_is() {
    let world = world(|document| {
        merge(
            creative(document, "banner"),
            &json!({"api": [5], "language": "FR", "bundle": "com.example.shop",
            "iurl": "https://cdn.acme.example/i.png", "attr": [3, 1], "categories": ["596"], "cattax": 7}),
        );
        merge(
            creative(document, "video"),
            &json!({"w": 640, "h": 360, "skippable": true, "langb": "fr-CA"}),
        );
    });
    let mut fields = json!({"imp": imps()});
    fields["imp"][0]["banner"]["api"] = json!([5]);
    let text = response(&world, &fields);
    let shown = bids(&parsed(&text));
    let without = |bid: &Value| {
        let mut bid = bid.clone();
        let members = bid.as_object_mut().expect("an object");
        for common in ["id", "price", "adid", "cid", "adomain", "crid"] {
            members.remove(common).expect(common);
        }
        bid
    };
    let shown: Vec<Value> = shown.iter().map(without).collect();
    assert_eq!(
        shown,
        [
            json!({"impid": "b", "adm": "<a>", "cat": ["596"], "cattax": 7, "attr": [1, 3], "apis": [5], "bundle": "com.example.shop",
                "iurl": "https://cdn.acme.example/i.png", "language": "fr", "w": 300, "h": 250, "mtype": 1}),
            json!({"impid": "v", "adm": "<VAST version=\"4.0\"><![CDATA[https://acme.example/]]></VAST>", "attr": [16], "langb": "fr-CA",
                "w": 640, "h": 360, "dur": 15, "protocol": 7, "mtype": 2}),
            json!({"impid": "a", "adm": "<VAST version=\"4.0\"><![CDATA[https://acme.example/]]></VAST>", "dur": 15, "mtype": 3}),
            json!({"impid": "n", "adm": "{\"ver\":\"1.2\",\"assets\":[{\"id\":5,\"title\":{\"text\":\"Boots for the long way home, in all the colours of an October hedge\"}}],\"link\":{\"clicktrackers\":[\"https://t.acme.example/c\"],\"url\":\"https://acme.example/\"},\"imptrackers\":[\"https://t.acme.example/i\"]}",
                "attr": [9], "apis": [7], "mtype": 4}),
        ]
    );
    assert!(!text.contains("null"), "{text}");
}

/// The response types of two other crates read all formats, down to what they make of the fields.
#[test]
fn other_readers_agree_on_every_format() {
    let mut fields = json!({"imp": imps()});
    fields["imp"][1]["exp"] = 60.into();
    let text = response(&world(|_| ()), &fields);
    let theirs: ::openrtb::current::BidResponse =
        serde_json::from_str(&text).expect("openrtb reads it");
    let iab: ::iab::openrtb2::BidResponse = serde_json::from_str(&text).expect("iab reads it");
    let seats = iab.seatbid.expect("seats");
    assert_eq!(seats.iter().map(|seat| seat.bid.len()).sum::<usize>(), 4);
    let _ = theirs;
}

#[test]
fn every_response_keeps_to_the_rules() {
    let world = world(|_| ());
    let deals = json!({"deals": [{"id": "nobody's"}]});
    for cur in [json!(["USD"]), json!(["EUR"])] {
        let mut fields = json!({"imp": imps(), "cur": cur, "wseat": ["kith"]});
        fields["imp"][0]["pmp"] = deals.clone();
        let said = parsed(&response(&world, &fields));
        let mut ids = std::collections::BTreeSet::new();
        for seat in said["seatbid"].as_array().expect("seats") {
            assert_eq!(seat["seat"], "kith");
            assert!(!seat["bid"].as_array().expect("bids").is_empty());
        }
        for bid in bids(&said) {
            assert!(ids.insert(bid["id"].to_string()), "{bid}");
            assert!(["b", "v", "a", "n"].contains(&bid["impid"].as_str().expect("an id")));
            assert!(bid["price"].as_f64().expect("a number") > 0.0);
            assert!(
                bid["adm"].is_string() && bid.get("nurl").is_none() && bid.get("dealid").is_none()
            );
            assert!(bid.get("language").is_none() || bid.get("langb").is_none());
        }
        assert_eq!(said.get("cur").is_some(), cur[0] != "USD");
    }
}

#[test]
fn prices_read_back_as_the_same_micros() {
    for micros in [
        1,
        7,
        100_000,
        300_000,
        1_100_000,
        999_999,
        12_345_678,
        123_456_789_012,
    ] {
        let price = Price::from_micros(micros).expect("a price").to_string();
        let world = super::one(json!({"price": {"cpm": price, "currency": "USD"}}));
        let text = response(&world, &json!({}));
        let from = text.find("\"price\":").expect("a price") + 8;
        let printed: String = text[from..].chars().take_while(|c| *c != ',').collect();
        assert_eq!(
            Price::parse(&printed, Round::Down).map(Price::micros),
            Some(micros),
            "{printed}"
        );
        assert_eq!(
            (bids(&parsed(&text))[0]["price"].as_f64().expect("a number") * 1e6).round() as i64,
            micros
        );
    }
}

#[test]
fn any_request_id_comes_back_as_it_was() {
    let world = world(|_| ());
    for piece in [
        "a",
        "é",
        "猫",
        "🐈",
        "\u{2028}",
        "\"\\/\u{7f}",
        "\u{1}\n\t",
        "</script>",
        "ﷺ\u{202e}",
    ] {
        let id: String = piece
            .chars()
            .cycle()
            .take(1024 / piece.chars().next().map_or(1, char::len_utf8))
            .collect();
        let mut fields = json!({"id": id, "imp": imps()});
        fields["imp"][0]["id"] = id.clone().into();
        fields["imp"][0]["pmp"] = json!({"deals": [{"id": id}]});
        let said = parsed(&response(&world, &fields));
        assert_eq!(
            (said["id"].as_str(), bids(&said)[0]["impid"].as_str()),
            (Some(&*id), Some(&*id))
        );
    }
}

const HOSTILE: [&str; 6] = [
    "</script><script>alert(1)</script>",
    "\u{2028}\u{2029}\u{0}\u{7f}\r\n\t",
    "\"'`\\\\\"\\u0022",
    "]]><![CDATA[",
    "\",\"price\":999,\"x\":\"",
    "${AUCTION_PRICE:B64}{{}}{}%s😀",
];

#[test]
fn hostile_texts_come_through_whole_and_change_nothing_else() {
    for text in HOSTILE {
        let vast = format!("<VAST version=\"4.0\">{text}</VAST>");
        let world = world(|document| {
            creative(document, "banner")["adm"] = text.into();
            creative(document, "video")["adm"] = vast.clone().into();
            creative(document, "audio")["adm"] = vast.clone().into();
            creative(document, "native")["assets"] = json!([{"title": {"text": text}}, {"data": {"type": 2, "value": text}},
                {"video": {"vasttag": vast, "duration": 5, "mimes": ["video/mp4"], "protocols": [2]}}]);
        });
        let mut imps = imps();
        imps[3]["native"]["request"] = json!({"native": {"assets": [{"id": 1, "title": {}}, {"id": 2, "data": {"type": 2}},
            {"id": -3, "video": {"mimes": ["video/mp4"]}}]}});
        let said = response(&world, &json!({"imp": imps}));
        let shown = bids(&parsed(&said));
        assert_eq!(shown.len(), 4);
        let adm = |place: usize| shown[place]["adm"].as_str().expect("markup");
        assert_eq!([adm(0), adm(1), adm(2)], [text, &*vast, &*vast]);
        let native = parsed(adm(3));
        assert_eq!(
            native["native"]["assets"],
            json!([{"id": 1, "title": {"text": text}}, {"id": 2, "data": {"value": text}}, {"id": -3, "video": {"vasttag": vast}}])
        );
        for bid in shown {
            assert_eq!(bid["price"], 1.5);
        }
    }
}

#[test]
fn the_exchanges_macros_stay_as_they_are_in_every_format() {
    let macros: String = [
        "ID",
        "BID_ID",
        "IMP_ID",
        "SEAT_ID",
        "AD_ID",
        "PRICE",
        "CURRENCY",
        "MBR",
        "LOSS",
        "MIN_TO_WIN",
        "MULTIPLIER",
        "IMP_TS",
        "DISCOUNT_PCT",
        "DISCOUNT_CPM",
        "PRICE:B64",
        "PRICE:X",
    ]
    .map(|name| format!("${{AUCTION_{name}}}&"))
    .concat();
    let vast = format!("<VAST><![CDATA[{macros}${{KITH_CLICK_URL}}${{KITH_CLICK_URL}}]]></VAST>");
    let world = world(|document| {
        creative(document, "banner")["adm"] = format!("{macros}${{KITH_CLICK_URL}}").into();
        creative(document, "video")["adm"] = vast.clone().into();
        merge(
            creative(document, "native"),
            &json!({"eventtrackers": [{"event": 1, "method": 1, "url": "https://t.example/?p=${AUCTION_PRICE}"}],
            "click_url": "https://acme.example/?a=1&b=${AUCTION_ID}"}),
        );
    });
    let said = bids(&parsed(&response(&world, &json!({"imp": imps()}))));
    assert_eq!(said[0]["adm"], format!("{macros}https://acme.example/"));
    assert_eq!(
        said[1]["adm"],
        format!("<VAST><![CDATA[{macros}https://acme.example/https://acme.example/]]></VAST>")
    );
    let native = parsed(said[3]["adm"].as_str().expect("markup"));
    assert_eq!(
        native["imptrackers"],
        json!(["https://t.example/?p=${AUCTION_PRICE}"])
    );
    assert_eq!(
        native["link"]["url"],
        "https://acme.example/?a=1&b=${AUCTION_ID}"
    );
}

#[test]
fn what_depends_on_the_request_is_said_in_answer_to_it() {
    let items = json!([item(
        "li",
        "2",
        json!({"creatives": ["banner", "video"], "slotinpod": "last"})
    )]);
    let book = compile(document(items).to_string().as_bytes()).expect("a good document");
    let pod = json!({"imp": [{"id": "1", "exp": 90, "video": video(json!({"podid": "p", "poddur": 60, "slotinpod": -1}))}]});
    let bid = &bids(&parsed(&response(&World::with_book(book, &[]), &pod)))[0];
    assert_eq!(
        (&bid["slotinpod"], &bid["exp"], bid.get("wratio")),
        (&json!(-1), &json!(3600), None)
    );
    let flex = json!({"imp": [{"id": "1", "banner": {"format": [{"wratio": 12, "hratio": 10}]}}]});
    let bid = &bids(&parsed(&response(&world(|_| ()), &flex)))[0];
    assert_eq!(
        (&bid["wratio"], &bid["hratio"], &bid["w"]),
        (&json!(12), &json!(10), &json!(300))
    );
    assert_eq!((bid.get("slotinpod"), bid.get("exp")), (None, None));
}
