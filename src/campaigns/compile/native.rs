//! Native creatives: assets, link, trackers. Written as they are answered (Native 1.2 §5), without the ids, which are the
//! request's.
//!
//! All that a response says of them is made ready here: JSON, with the landing page in it, and escaped once more, for a
//! native answer is JSON in a JSON string. A URL has nothing in it to escape: [`url`] sees to that.

use serde_json::{Map, Value, json};

use super::super::document::Fields;
use super::super::markup::{CLICK_MACRO, Markup};
use super::super::{NativeAd, NativeAsset, NativeAssetKind};
use super::creatives::{https, is_plain, is_url, url, vast};
use super::{CODES_MAX, Work};
use crate::openrtb::{ImageType, TrackerOut};

/// Most assets of one creative.
const ASSETS_MAX: usize = 64;
/// Longest title or text, in characters.
const CHARS_MAX: usize = 1000;
/// Endings of URLs, and the types that they tell.
const ENDINGS: [(&str, ImageType); 7] = [
    ("jpg", ImageType::Jpeg),
    ("jpeg", ImageType::Jpeg),
    ("png", ImageType::Png),
    ("gif", ImageType::Gif),
    ("webp", ImageType::Webp),
    ("avif", ImageType::Avif),
    ("svg", ImageType::Svg),
];

impl Work {
    pub(super) fn native(&mut self, fields: &Fields<'_>, landing: &str, secure: bool) -> NativeAd {
        let list: Vec<_> = fields
            .list("assets", ASSETS_MAX, &mut self.errors)
            .collect();
        if list.is_empty() && fields.is_empty_list("assets") {
            fields.wrong("assets", "give at least one asset", &mut self.errors);
        }
        let mut assets = Vec::with_capacity(list.len());
        for (key, node) in list {
            let path = fields.at(&key);
            let known = ["title", "img", "data", "video"];
            let Some(asset) = Fields::open(node, path, fields.id(), &known, &mut self.errors)
            else {
                continue;
            };
            let mut kinds = known.into_iter().filter(|kind| asset.get(kind).is_some());
            let (Some(kind), None) = (kinds.next(), kinds.next()) else {
                let message = "an asset is one of title, img, data and video";
                fields.wrong(&key, message, &mut self.errors);
                continue;
            };
            assets.extend(self.asset(&asset, kind, landing, secure));
        }
        let link = self.link(fields, landing, secure);
        let trackers = self.trackers(fields, secure);
        let privacy = url(fields, "privacy", &mut self.errors);
        if secure {
            https(fields, "privacy", privacy, &mut self.errors);
        }
        NativeAd {
            assets: assets.into(),
            link,
            trackers,
            privacy: privacy.map(Into::into),
        }
    }

    fn asset(
        &mut self,
        asset: &Fields<'_>,
        kind: &str,
        landing: &str,
        secure: bool,
    ) -> Option<NativeAsset> {
        let known: &[&str] = match kind {
            "title" => &["text"],
            "img" => &["type", "url", "w", "h", "mime"],
            "data" => &["type", "value"],
            _ => &["vasttag", "duration", "mimes", "protocols", "bitrate"],
        };
        let node = asset.get(kind)?;
        let fields = Fields::open(node, asset.at(kind), asset.id(), known, &mut self.errors)?;
        let (read, said) = match kind {
            "title" => self.title(&fields)?,
            "img" => self.image(&fields, secure)?,
            "data" => self.data(&fields)?,
            _ => self.video(&fields, secure)?,
        };
        let mut members = Map::new();
        members.insert(kind.to_owned(), said);
        Some(NativeAsset {
            kind: read,
            markup: members_of(members, landing),
        })
    }

    fn title(&mut self, fields: &Fields<'_>) -> Option<(NativeAssetKind, Value)> {
        let text = self.shown(fields, "text")?;
        let chars = text.chars().count();
        Some((NativeAssetKind::Title { chars }, json!({"text": text})))
    }

    fn data(&mut self, fields: &Fields<'_>) -> Option<(NativeAssetKind, Value)> {
        fields.required("type", "2, a description", &mut self.errors);
        let kind = fields.integer("type", 1..=9999, &mut self.errors);
        let value = self.shown(fields, "value")?;
        let data = NativeAssetKind::Data {
            kind: kind?,
            chars: value.chars().count(),
        };
        Some((data, json!({"value": value})))
    }

    /// A text that is shown, and so not empty.
    fn shown<'a>(&mut self, fields: &Fields<'a>, key: &str) -> Option<&'a str> {
        fields.required(key, "\"Boots for the long way home\"", &mut self.errors);
        let text = fields.text(key, &mut self.errors)?;
        if text.trim().is_empty() || text.chars().count() > CHARS_MAX {
            let message = format!("expected a text of up to {CHARS_MAX} characters");
            fields.wrong(key, message, &mut self.errors);
        }
        Some(text)
    }

    fn image(&mut self, fields: &Fields<'_>, secure: bool) -> Option<(NativeAssetKind, Value)> {
        let errors = &mut self.errors;
        fields.required("type", "3, the main picture", errors);
        fields.required("url", "\"https://cdn.acme.example/a.png\"", errors);
        fields.required("w", "1200", errors);
        fields.required("h", "627", errors);
        let kind = fields.integer("type", 1..=9999, errors);
        let link = url(fields, "url", errors);
        let w = fields.integer("w", 1..=20_000, errors);
        let h = fields.integer("h", 1..=20_000, errors);
        let mime = fields.text("mime", errors);
        let declared = mime.and_then(ImageType::of_mime);
        if mime.is_some() && declared.is_none() {
            let message = "expected image/jpeg, png, gif, webp, avif or svg+xml";
            fields.wrong("mime", message, errors);
        }
        if secure {
            https(fields, "url", link, errors);
        }
        let (link, w, h) = (link?, w?, h?);
        let told = ENDINGS.iter().find(|(ending, _)| {
            let path = link.split(['?', '#']).next().unwrap_or("");
            path.rsplit_once('.')
                .is_some_and(|(_, found)| found.eq_ignore_ascii_case(ending))
        });
        let image = NativeAssetKind::Image {
            kind: kind?,
            w,
            h,
            mime: declared.or(told.map(|(_, told)| *told)),
        };
        Some((image, json!({"url": link, "w": w, "h": h})))
    }

    fn video(&mut self, fields: &Fields<'_>, secure: bool) -> Option<(NativeAssetKind, Value)> {
        for (key, example) in [
            ("vasttag", "\"<VAST version=\\\"4.0\\\">…</VAST>\""),
            ("duration", "15"),
            ("mimes", "[\"video/mp4\"]"),
            ("protocols", "[7]"),
        ] {
            fields.required(key, example, &mut self.errors);
        }
        let media = self.media(fields);
        let tag = fields.text("vasttag", &mut self.errors)?;
        vast(fields, "vasttag", tag, &mut self.errors);
        if secure {
            https(fields, "vasttag", Some(tag), &mut self.errors);
        }
        Some((NativeAssetKind::Video(media), json!({"vasttag": tag})))
    }

    /// Where a click leads: the click URL, unless the document says a link of its own, as into an app.
    fn link(&mut self, fields: &Fields<'_>, landing: &str, secure: bool) -> Markup {
        let mut members = Map::new();
        members.insert("url".into(), CLICK_MACRO.into());
        let own = fields.get("link").and_then(|node| {
            let known = ["url", "clicktrackers", "fallback"];
            let path = fields.at("link");
            Fields::open(node, path, fields.id(), &known, &mut self.errors)
        });
        if let Some(link) = own {
            if let Some(text) = link.text("url", &mut self.errors) {
                let has_scheme = text.split_once(':').is_some_and(|(scheme, rest)| {
                    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !rest.is_empty()
                });
                if text != CLICK_MACRO && (!has_scheme || !is_plain(text)) {
                    let message =
                        format!("expected {CLICK_MACRO}, a URL or a deep link like acme://shop/1");
                    link.wrong("url", message, &mut self.errors);
                }
                members.insert("url".into(), text.into());
            }
            let trackers = link.texts("clicktrackers", CODES_MAX, &mut self.errors);
            for (key, tracker) in &trackers {
                is_url(&link, key, tracker, &mut self.errors);
                if secure {
                    https(&link, key, Some(tracker), &mut self.errors);
                }
            }
            if !trackers.is_empty() {
                let urls: Vec<&str> = trackers.iter().map(|(_, url)| *url).collect();
                members.insert("clicktrackers".into(), urls.into());
            }
            if let Some(fallback) = url(&link, "fallback", &mut self.errors) {
                members.insert("fallback".into(), fallback.into());
            }
        }
        let counted = members.values().any(|value| value == CLICK_MACRO);
        if !counted {
            self.notes.warn(
                fields.at("link.url"),
                fields.id(),
                format!("is not {CLICK_MACRO}: its clicks will not be counted"),
            );
        }
        members_of(members, landing)
    }

    fn trackers(&mut self, fields: &Fields<'_>, secure: bool) -> Box<[TrackerOut]> {
        let list: Vec<_> = fields
            .list("eventtrackers", CODES_MAX, &mut self.errors)
            .collect();
        let mut trackers = Vec::with_capacity(list.len());
        for (key, node) in list {
            let (path, known) = (fields.at(&key), ["event", "method", "url"]);
            let Some(tracker) = Fields::open(node, path, fields.id(), &known, &mut self.errors)
            else {
                continue;
            };
            let errors = &mut self.errors;
            tracker.required("event", "1, the impression", errors);
            tracker.required("method", "1, a picture", errors);
            tracker.required("url", "\"https://pixel.acme.example/i\"", errors);
            let event = tracker.integer("event", 1..=9999, errors);
            let method = tracker.integer("method", 1..=9999, errors);
            let loaded = url(&tracker, "url", errors);
            if secure {
                https(&tracker, "url", loaded, errors);
            }
            if let (Some(event), Some(method), Some(url)) = (event, method, loaded) {
                trackers.push(TrackerOut {
                    event,
                    method,
                    url: url.into(),
                });
            }
        }
        trackers.into()
    }
}

/// The members of an object, without the braces, ready for `adm`.
fn members_of(members: Map<String, Value>, landing: &str) -> Markup {
    let text = Value::from(members).to_string();
    let inside = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'));
    Markup::new(inside.unwrap_or_default(), landing)
}
