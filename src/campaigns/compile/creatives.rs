//! Creatives: what an ad must have, and that it can be written into a page as it is.

use super::super::document::{Errors, Fields};
use super::super::markup::{CLICK_MACRO, Markup};
use super::super::{Creative, Format};
use super::{CODES_MAX, CREATIVES_MAX, Work, count};
use crate::openrtb::CreativeOut;

/// Longest markup in bytes. Exchanges refuse far shorter.
const MARKUP_BYTES_MAX: usize = 256 * 1024;
/// Longest URL in bytes.
const URL_BYTES_MAX: usize = 4096;

impl Work {
    pub(super) fn creatives(&mut self, root: &Fields<'_>) {
        let known = [
            "id",
            "advertiser",
            "type",
            "w",
            "h",
            "adm",
            "secure",
            "click_url",
            "iurl",
            "attr",
            "api",
            "categories",
            "cattax",
            "language",
        ];
        for (_, id, fields) in self.tables(root, "creatives", CREATIVES_MAX, &known) {
            let creative = self.creative(id, &fields);
            self.creative_places
                .insert(id.to_owned(), count(&self.creatives));
            self.creatives.push(creative);
        }
    }

    fn creative(&mut self, id: &str, fields: &Fields<'_>) -> Creative {
        let place = self.advertiser_of(fields);
        let errors = &mut self.errors;
        fields.required("type", "\"banner\"", errors);
        let words = Format::ALL.map(|format| (format.as_str(), format));
        let format = fields.word("type", &words, errors);
        match format {
            Some(Format::Banner) => {
                fields.required("w", "300", errors);
                fields.required("h", "250", errors);
                fields.required("adm", "\"<a href=\\\"${KITH_CLICK_URL}\\\">…</a>\"", errors);
            }
            Some(other) => self.notes.warn(
                fields.at("type"),
                fields.id(),
                format!(
                    "{} creatives are accepted, but do not bid yet",
                    other.as_str()
                ),
            ),
            None => {}
        }
        let secure = fields.flag("secure", errors).unwrap_or(false);
        let adm = fields.text("adm", errors);
        if adm.is_some_and(|adm| adm.len() > MARKUP_BYTES_MAX) {
            let message = format!("has over {MARKUP_BYTES_MAX} bytes: load the rest from a server");
            fields.wrong("adm", message, errors);
        }
        if adm.is_some_and(|adm| adm.trim().is_empty()) {
            fields.wrong("adm", "is empty: write the ad's markup", errors);
        }
        let click_url = url(fields, "click_url", errors);
        let iurl = url(fields, "iurl", errors);
        if secure {
            let insecure = [("adm", adm.is_some_and(loads_insecurely))];
            let insecure = insecure
                .into_iter()
                .chain([("iurl", iurl.is_some_and(loads_insecurely))]);
            for (key, _) in insecure.filter(|(_, is)| *is) {
                let message = "loads over http:// although `secure` is true: use https://, or leave `secure` out";
                fields.wrong(key, message, errors);
            }
        }
        let language = fields.text("language", errors);
        if language
            .is_some_and(|code| code.len() != 2 || !code.bytes().all(|b| b.is_ascii_alphabetic()))
        {
            fields.wrong(
                "language",
                "expected two letters of ISO 639-1, like fr",
                errors,
            );
        }
        let w = fields.integer("w", 1..=20_000, errors);
        let h = fields.integer("h", 1..=20_000, errors);
        let attr = fields.codes("attr", CODES_MAX, errors);
        let api = fields.codes("api", CODES_MAX, errors);
        let own_cattax = fields.integer("cattax", 1..=9999, errors);
        let own_categories = self.categories(fields);
        let advertiser = self.advertisers.get(place as usize);
        let landing: Box<str> = match (click_url, advertiser) {
            (Some(url), _) => url.into(),
            (None, Some(advertiser)) => format!("https://{}/", advertiser.domain).into(),
            (None, None) => "".into(),
        };
        let (categories, cattax) = match advertiser {
            Some(advertiser) if fields.get("categories").is_none() => {
                (advertiser.categories.clone(), advertiser.cattax)
            }
            _ => (own_categories, 1),
        };
        if fields.get("categories").is_none() && own_cattax.is_some() {
            fields.wrong(
                "cattax",
                "is the taxonomy of `categories`: give both or neither",
                &mut self.errors,
            );
        }
        if adm.is_some_and(|adm| !adm.contains(CLICK_MACRO)) && format == Some(Format::Banner) {
            self.notes.warn(
                fields.at("adm"),
                fields.id(),
                format!("has no {CLICK_MACRO}: its clicks will not be counted"),
            );
        }
        let cattax = own_cattax.unwrap_or(cattax);
        let said = CreativeOut {
            adomain: advertiser.map_or("", |advertiser| &advertiser.domain),
            crid: id,
            cat: &categories,
            cattax,
            attr: &attr,
            size: w.zip(h),
        };
        Creative {
            id: id.into(),
            bid_json: said.part(),
            advertiser: place,
            format: format.unwrap_or(Format::Banner),
            w,
            h,
            adm: adm.map(|adm| Markup::new(adm, &landing)),
            click_url: landing,
            iurl: iurl.map(Into::into),
            attr,
            api,
            categories,
            cattax,
            language: language.map(|code| code.to_ascii_lowercase().into()),
            secure,
        }
    }
}

/// A URL that can stand in an attribute of HTML and in JavaScript alike without quoting.
fn url<'a>(fields: &Fields<'a>, key: &str, errors: &mut Errors) -> Option<&'a str> {
    let text = fields.text(key, errors)?;
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'<' | b'>' | b'\\' | b'`'));
    let hosted = host.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
    if !hosted || !plain || text.len() > URL_BYTES_MAX {
        let message = format!(
            "expected a URL with https:// or http://, up to {URL_BYTES_MAX} bytes, its spaces, quotes and letters beyond ASCII percent-encoded"
        );
        fields.wrong(key, message, errors);
        return None;
    }
    Some(text)
}

/// Whether markup or a URL has `http://` in it, but for XML namespaces, which nothing loads.
fn loads_insecurely(text: &str) -> bool {
    let lower = text.to_ascii_lowercase().replace("\\/", "/");
    lower.match_indices("http://").any(|(place, found)| {
        let rest = lower.get(place + found.len()..).unwrap_or("");
        !rest.starts_with("www.w3.org/")
    })
}
