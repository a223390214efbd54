//! Creatives of all formats: what they must have, told by path, and what becomes of them.

use serde_json::{Value, json};

use super::*;

fn creative(kind: &str, changes: Value) -> Value {
    let mut creative = match kind {
        "native" => json!({"assets": [{"title": {"text": "Boots"}}]}),
        "banner" => json!({"w": 300, "h": 250, "adm": "${KITH_CLICK_URL}"}),
        _ => {
            json!({"adm": "<VAST><![CDATA[${KITH_CLICK_URL}]]></VAST>", "duration": 15, "mimes": ["video/mp4"], "protocols": [7]})
        }
    };
    creative["id"] = "c".into();
    creative["type"] = kind.into();
    creative["advertiser"] = "acme".into();
    for (key, value) in changes.as_object().expect("an object") {
        creative[key] = value.clone();
    }
    creative
}

fn compiled(kind: &str, changes: Value) -> Result<Book, Vec<String>> {
    let document = json!({
        "advertisers": [{"id": "acme", "domain": "acme.example"}],
        "creatives": [creative(kind, changes)],
        "line_items": [{"id": "li", "creatives": ["c"], "targeting": "test", "price": {"cpm": "1", "currency": "USD"}}]});
    json(document).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// The one mistake of a creative with these changes begins so.
#[track_caller]
fn check(kind: &str, changes: Value, want: &str) {
    let shown = changes.to_string();
    let errors = compiled(kind, changes).expect_err(&shown);
    assert!(
        errors.len() == 1 && errors[0].starts_with(&format!("creatives[0].{want}")),
        "{kind} {shown}: {errors:#?}"
    );
}

#[test]
fn mistakes_in_video_and_audio_are_told_by_path() {
    for kind in ["video", "audio"] {
        assert!(compiled(kind, json!({"bitrate": 800, "skippable": false})).is_ok());
        for (changes, want) in [
            (json!({"adm": null}), "adm (c): is required, like \"<VAST"),
            (
                json!({"adm": "https://vast.example/"}),
                "adm (c): expected a VAST document",
            ),
            (
                json!({"duration": null}),
                "duration (c): is required, like 15",
            ),
            (
                json!({"duration": 0}),
                "duration (c): expected a whole number from 1 to 3600",
            ),
            (
                json!({"duration": "15"}),
                "duration (c): expected a whole number",
            ),
            (json!({"mimes": null}), "mimes (c): is required"),
            (json!({"mimes": []}), "mimes (c): name at least one"),
            (
                json!({"mimes": ["mp4"]}),
                "mimes[0] (c): expected a MIME type",
            ),
            (
                json!({"mimes": ["video/mp4; codecs=x"]}),
                "mimes[0] (c): expected a MIME type",
            ),
            (
                json!({"protocols": null}),
                "protocols (c): is required, like [7]",
            ),
            (json!({"protocols": []}), "protocols (c): name at least one"),
            (
                json!({"protocols": ["4.0"]}),
                "protocols[0] (c): expected a whole number",
            ),
            (
                json!({"bitrate": 0}),
                "bitrate (c): expected a whole number",
            ),
            (
                json!({"skippable": 1}),
                "skippable (c): expected true or false",
            ),
            (
                json!({"secure": true, "adm": "<VAST>http://x.example/a.mp4</VAST>"}),
                "adm (c): loads over http://",
            ),
            (
                json!({"adm": "<VAST>${KITH_CLICK_URL}</VAST>"}),
                "adm (c): ${KITH_CLICK_URL} stands outside",
            ),
            (
                json!({"adm": "<VAST><![CDATA[x]]>${KITH_CLICK_URL}</VAST>"}),
                "adm (c): ${KITH_CLICK_URL} stands outside",
            ),
            (
                json!({"assets": []}),
                "assets (c): is of no use where `type` is ",
            ),
            (
                json!({"language": "fr", "langb": "fr-CA"}),
                "langb (c): give `language` or `langb`",
            ),
            (json!({"langb": "français"}), "langb (c): expected a tag"),
            (json!({"bundle": " "}), "bundle (c): is empty"),
        ] {
            check(kind, changes, want);
        }
    }
    check("video", json!({"w": 640}), "h (c): give both `w` and `h`");
    check(
        "video",
        json!({"linearity": 3}),
        "linearity (c): expected a whole number from 1 to 2",
    );
    check(
        "audio",
        json!({"linearity": 1}),
        "linearity (c): is of no use where `type` is audio",
    );
    check(
        "banner",
        json!({"duration": 15}),
        "duration (c): is of no use where `type` is banner",
    );
}

#[test]
fn mistakes_in_native_are_told_by_path() {
    let secure = |key: &str, value: Value| json!({"secure": true, key: value});
    for (changes, want) in [
        (json!({"assets": null}), "assets (c): is required"),
        (json!({"assets": []}), "assets (c): give at least one"),
        (json!({"assets": [7]}), "assets[0] (c): expected an object"),
        (
            json!({"assets": [{}]}),
            "assets[0] (c): an asset is one of title, img, data and video",
        ),
        (
            json!({"assets": [{"title": {"text": "a"}, "data": {"type": 1, "value": "a"}}]}),
            "assets[0] (c): an asset is one of",
        ),
        (
            json!({"assets": [{"title": {"text": " "}}]}),
            "assets[0].title.text (c): expected a text",
        ),
        (
            json!({"assets": [{"title": {"text": "x".repeat(1001)}}]}),
            "assets[0].title.text (c): expected a text",
        ),
        (
            json!({"assets": [{"title": {}}]}),
            "assets[0].title.text (c): is required",
        ),
        (
            json!({"assets": [{"data": {"value": "x"}}]}),
            "assets[0].data.type (c): is required",
        ),
        (
            json!({"assets": [{"img": {"type": 3, "url": "https://x.example/a", "w": 1}}]}),
            "assets[0].img.h (c): is required",
        ),
        (
            json!({"assets": [{"img": {"type": 3, "url": "cdn/a.png", "w": 1, "h": 1}}]}),
            "assets[0].img.url (c): expected a URL",
        ),
        (
            json!({"assets": [{"img": {"type": 3, "url": "https://x.example/a", "w": 1, "h": 1, "mime": "png"}}]}),
            "assets[0].img.mime (c): expected image/jpeg",
        ),
        (
            json!({"assets": [{"video": {"vasttag": "<VAST>", "duration": 9, "mimes": ["video/mp4"]}}]}),
            "assets[0].video.protocols (c): is required",
        ),
        (
            json!({"assets": [{"video": {"vasttag": "x", "duration": 9, "mimes": ["video/mp4"], "protocols": [7]}}]}),
            "assets[0].video.vasttag (c): expected a VAST",
        ),
        (
            json!({"adm": "{}"}),
            "adm (c): a native creative's markup is made of its `assets`",
        ),
        (
            json!({"link": {"url": "acme"}}),
            "link.url (c): expected ${KITH_CLICK_URL}",
        ),
        (
            json!({"link": {"fallback": "x"}}),
            "link.fallback (c): expected a URL",
        ),
        (
            json!({"link": {"clicktrackers": ["x"]}}),
            "link.clicktrackers[0] (c): expected a URL",
        ),
        (
            json!({"eventtrackers": [{"event": 1, "method": 1}]}),
            "eventtrackers[0].url (c): is required",
        ),
        (
            json!({"eventtrackers": [{"event": 0, "method": 1, "url": "https://x.example/"}]}),
            "eventtrackers[0].event (c): expected a whole",
        ),
        (json!({"privacy": true}), "privacy (c): expected a string"),
        (
            secure("privacy", json!("http://x.example/")),
            "privacy (c): loads over http://",
        ),
        (
            secure("link", json!({"clicktrackers": ["http://x.example/"]})),
            "link.clicktrackers[0] (c): loads over http://",
        ),
        (
            secure(
                "eventtrackers",
                json!([{"event": 1, "method": 1, "url": "http://x.example/"}]),
            ),
            "eventtrackers[0].url (c): loads over http://",
        ),
        (
            secure(
                "assets",
                json!([{"img": {"type": 1, "url": "http://x.example/a.png", "w": 1, "h": 1}}]),
            ),
            "assets[0].img.url (c): loads over http://",
        ),
    ] {
        check("native", changes, want);
    }
}

#[test]
fn a_native_creative_is_ready_to_be_written() {
    let book = compiled(
        "native",
        json!({"click_url": "https://acme.example/l?a=1&b=2", "assets": [
            {"title": {"text": "Sa \"botte\" ${KITH_CLICK_URL}"}},
            {"img": {"type": 3, "url": "https://cdn.acme.example/A.JPG?v=1", "w": 1200, "h": 627}},
            {"img": {"type": 1, "url": "https://cdn.acme.example/icon", "w": 80, "h": 80, "mime": "Image/PNG"}}],
            "link": {"url": "acme://shop/1", "fallback": "https://acme.example/"}}),
    )
    .expect("a good document");
    let native = book.creatives[0].native.as_ref().expect("native");
    assert_eq!(
        &*native.assets[0].markup.escaped,
        r#"\"title\":{\"text\":\"Sa \\\"botte\\\" ${KITH_CLICK_URL}\"}"#
    );
    let mime = |asset: &NativeAsset| match &asset.kind {
        NativeAssetKind::Image { mime, .. } => *mime,
        _ => None,
    };
    let mimes: Vec<_> = native.assets.iter().map(mime).collect();
    assert_eq!(
        mimes,
        [
            None,
            Some(crate::openrtb::ImageType::Jpeg),
            Some(crate::openrtb::ImageType::Png)
        ]
    );
    assert_eq!(
        &*native.link.escaped,
        r#"\"fallback\":\"https://acme.example/\",\"url\":\"acme://shop/1\""#
    );
    let surroundings = Surroundings {
        segments: &|_| true,
        errors: &|_| None,
        scores: &|_| true,
        currencies: &|_| true,
        exchanges: &[],
    };
    let warned: Vec<String> = book
        .warnings(&surroundings)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        warned,
        ["creatives[0].link.url (c): is not ${KITH_CLICK_URL}: its clicks will not be counted"]
    );
}

#[test]
fn what_can_be_skipped_says_so() {
    let attr = |changes: Value| {
        compiled("video", changes)
            .expect("a good document")
            .creatives[0]
            .attr
            .to_vec()
    };
    assert_eq!(
        attr(json!({"skippable": true, "attr": [17, 2]})),
        [2, 16, 17]
    );
    assert_eq!(attr(json!({"skippable": true, "attr": [16]})), [16]);
    assert_eq!(attr(json!({"attr": [2]})), [2]);
}
