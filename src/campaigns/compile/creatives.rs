//! Creatives: what an ad must have, and that it can be written into a page as it is.

use super::super::document::{Errors, Fields};
use super::super::markup::{CLICK_MACRO, Markup, has_place_for_pixel};
use super::super::{Creative, Format};
use super::values::check_text;
use super::{CODES_MAX, CREATIVES_MAX, Work, count};
use crate::openrtb::{CreativeOut, Mtype};

/// Longest markup in bytes. Exchanges refuse far shorter.
const MARKUP_BYTES_MAX: usize = 256 * 1024;
/// Longest URL in bytes.
const URL_BYTES_MAX: usize = 4096;
/// AdCOM list "Creative Attributes": a skip button.
const ATTR_SKIPPABLE: u32 = 16;

/// Keys of every creative.
const KNOWN: [&str; 14] = [
    "id",
    "advertiser",
    "type",
    "secure",
    "click_url",
    "iurl",
    "attr",
    "api",
    "categories",
    "cattax",
    "language",
    "langb",
    "bundle",
    "adm",
];
/// Keys of some formats, and of which.
const OF_FORMATS: [(&str, &[Format]); 12] = [
    ("w", &[Format::Banner, Format::Video]),
    ("h", &[Format::Banner, Format::Video]),
    ("mimes", &[Format::Banner, Format::Video, Format::Audio]),
    ("duration", &[Format::Video, Format::Audio]),
    ("protocols", &[Format::Video, Format::Audio]),
    ("bitrate", &[Format::Video, Format::Audio]),
    ("linearity", &[Format::Video]),
    ("skippable", &[Format::Video, Format::Audio]),
    ("assets", &[Format::Native]),
    ("link", &[Format::Native]),
    ("eventtrackers", &[Format::Native]),
    ("privacy", &[Format::Native]),
];

impl Work {
    pub(super) fn creatives(&mut self, root: &Fields<'_>) {
        let known: Vec<&str> = KNOWN
            .into_iter()
            .chain(OF_FORMATS.iter().map(|(key, _)| *key))
            .collect();
        for (_, id, fields) in self.tables(root, "creatives", CREATIVES_MAX, &known) {
            let creative = self.creative(id, &fields);
            self.creative_places
                .insert(id.to_owned(), count(&self.creatives));
            self.creatives.push(creative);
        }
    }

    fn creative(&mut self, id: &str, fields: &Fields<'_>) -> Creative {
        let place = self.advertiser_of(fields);
        let format = self.format(fields);
        let secure = fields.flag("secure", &mut self.errors).unwrap_or(false);
        let adm = self.markup(fields, format);
        let errors = &mut self.errors;
        let click_url = url(fields, "click_url", errors);
        let iurl = url(fields, "iurl", errors);
        if secure {
            https(fields, "adm", adm, errors);
            https(fields, "iurl", iurl, errors);
        }
        let (language, langb) = languages(fields, errors);
        let bundle = fields.text("bundle", errors);
        if let Some(Err(message)) = bundle.map(check_text) {
            fields.wrong("bundle", message, errors);
        }
        let w = fields.integer("w", 1..=20_000, errors);
        let h = fields.integer("h", 1..=20_000, errors);
        if w.is_some() != h.is_some() && format == Some(Format::Video) {
            let missing = if w.is_some() { "h" } else { "w" };
            fields.wrong(missing, "give both `w` and `h`, or neither", errors);
        }
        let attr = attributes(fields, errors);
        let api = fields.codes("api", CODES_MAX, errors);
        let advertiser = self.advertisers.get(place as usize);
        let landing: Box<str> = match (click_url, advertiser) {
            (Some(url), _) => url.into(),
            (None, Some(advertiser)) => format!("https://{}/", advertiser.domain).into(),
            (None, None) => "".into(),
        };
        let (media, mimes) = match format {
            Some(Format::Video | Format::Audio) => (Some(self.media(fields)), Box::default()),
            Some(Format::Banner) => (None, self.mimes(fields)),
            _ => (None, Box::default()),
        };
        let native =
            (format == Some(Format::Native)).then(|| self.native(fields, &landing, secure));
        let (categories, cattax) = self.categories_of(fields, place);
        let advertiser = self.advertisers.get(place as usize);
        let format = format.unwrap_or(Format::Banner);
        let said = CreativeOut {
            mtype: match format {
                Format::Banner => Mtype::Banner,
                Format::Video => Mtype::Video,
                Format::Audio => Mtype::Audio,
                Format::Native => Mtype::Native,
            },
            adomain: advertiser.map_or("", |advertiser| &advertiser.domain),
            crid: id,
            cat: &categories,
            cattax,
            attr: &attr,
            apis: &api,
            size: w.zip(h),
            bundle,
            iurl,
            language: language.as_deref(),
            langb: langb.as_deref(),
            dur: media.as_ref().map(|media| media.duration),
            protocol: match media.as_ref().map(|media| &*media.protocols) {
                Some([protocol]) => Some(*protocol),
                _ => None,
            },
        };
        Creative {
            id: id.into(),
            bid_json: said.part(),
            advertiser: place,
            format,
            w,
            h,
            adm: adm.map(|adm| Markup::with_pixel(adm, &landing, format)),
            mimes,
            media,
            native,
            click_url: landing,
            iurl: iurl.map(Into::into),
            attr,
            api,
            categories,
            cattax,
            language,
            langb,
            bundle: bundle.map(Into::into),
            secure,
        }
    }

    /// Its format, and what that wants and does not have.
    fn format(&mut self, fields: &Fields<'_>) -> Option<Format> {
        let errors = &mut self.errors;
        fields.required("type", "\"banner\"", errors);
        let words = Format::ALL.map(|format| (format.as_str(), format));
        let format = fields.word("type", &words, errors)?;
        let adm = match format {
            Format::Banner => "\"<a href=\\\"${KITH_CLICK_URL}\\\">…</a>\"",
            _ => "\"<VAST version=\\\"4.0\\\">…</VAST>\"",
        };
        let required: &[(&str, &str)] = match format {
            Format::Banner => &[("w", "300"), ("h", "250"), ("adm", adm)],
            Format::Video => &[
                ("adm", adm),
                ("duration", "15"),
                ("mimes", "[\"video/mp4\"]"),
                ("protocols", "[7]"),
            ],
            Format::Audio => &[
                ("adm", adm),
                ("duration", "15"),
                ("mimes", "[\"audio/mpeg\"]"),
                ("protocols", "[7]"),
            ],
            Format::Native => &[("assets", "[{\"title\": {\"text\": \"…\"}}]")],
        };
        for (key, example) in required {
            fields.required(key, example, errors);
        }
        for (key, formats) in OF_FORMATS {
            if fields.get(key).is_some() && !formats.contains(&format) {
                let message = format!("is of no use where `type` is {}", format.as_str());
                fields.wrong(key, message, errors);
            }
        }
        if format == Format::Native && fields.get("adm").is_some() {
            let message = "a native creative's markup is made of its `assets`";
            fields.wrong("adm", message, errors);
        }
        Some(format)
    }

    /// The markup of what has one.
    fn markup<'a>(&mut self, fields: &Fields<'a>, format: Option<Format>) -> Option<&'a str> {
        let adm = fields.text("adm", &mut self.errors)?;
        if adm.len() > MARKUP_BYTES_MAX {
            let message = format!("has over {MARKUP_BYTES_MAX} bytes: load the rest from a server");
            fields.wrong("adm", message, &mut self.errors);
        }
        if adm.trim().is_empty() {
            fields.wrong("adm", "is empty: write the ad's markup", &mut self.errors);
        } else if matches!(format, Some(Format::Video | Format::Audio)) {
            vast(fields, "adm", adm, &mut self.errors);
        }
        if matches!(format, Some(Format::Video | Format::Audio)) && !has_place_for_pixel(adm) {
            self.notes.warn(
                fields.at("adm"),
                fields.id(),
                "has no <Impression>, </AdTitle> or </AdSystem>: where an exchange's `billing` is \"impression\", nothing it shows is booked",
            );
        }
        let clicked = matches!(format, Some(Format::Banner | Format::Video));
        if clicked && !adm.contains(CLICK_MACRO) {
            self.notes.warn(
                fields.at("adm"),
                fields.id(),
                format!("has no {CLICK_MACRO}: its clicks will not be counted"),
            );
        }
        Some(adm)
    }

    /// Its own categories and their taxonomy, else its advertiser's.
    fn categories_of(&mut self, fields: &Fields<'_>, advertiser: u32) -> (Box<[Box<str>]>, u32) {
        let own_cattax = fields.integer("cattax", 1..=9999, &mut self.errors);
        let own_categories = self.categories(fields);
        if fields.get("categories").is_some() {
            return (own_categories, own_cattax.unwrap_or(1));
        }
        if own_cattax.is_some() {
            fields.wrong(
                "cattax",
                "is the taxonomy of `categories`: give both or neither",
                &mut self.errors,
            );
        }
        let advertiser = self.advertisers.get(advertiser as usize);
        advertiser.map_or((own_categories, 1), |advertiser| {
            (advertiser.categories.clone(), advertiser.cattax)
        })
    }
}

/// `attr`, with the one that says that an ad can be skipped where `skippable` does.
fn attributes(fields: &Fields<'_>, errors: &mut Errors) -> Box<[u32]> {
    let attr = fields.codes("attr", CODES_MAX, errors);
    if fields.flag("skippable", errors) != Some(true) || attr.contains(&ATTR_SKIPPABLE) {
        return attr;
    }
    let mut attr = attr.into_vec();
    attr.push(ATTR_SKIPPABLE);
    attr.sort_unstable();
    attr.into()
}

/// `language`, two letters, or `langb`, a tag; lower case the one, as written the other.
fn languages(fields: &Fields<'_>, errors: &mut Errors) -> (Option<Box<str>>, Option<Box<str>>) {
    let language = fields.text("language", errors);
    if language
        .is_some_and(|code| code.len() != 2 || !code.bytes().all(|b| b.is_ascii_alphabetic()))
    {
        let message = "expected two letters of ISO 639-1, like fr";
        fields.wrong("language", message, errors);
    }
    let langb = fields.text("langb", errors);
    let subtag = |part: &str| {
        (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let is_tag = |tag: &str| {
        let primary = tag.split('-').next().unwrap_or("");
        (2..=3).contains(&primary.len())
            && primary.bytes().all(|b| b.is_ascii_alphabetic())
            && tag.len() <= 35
            && tag.split('-').all(subtag)
    };
    if langb.is_some_and(|tag| !is_tag(tag)) {
        fields.wrong("langb", "expected a tag of BCP 47, like fr-CA", errors);
    }
    if language.is_some() && langb.is_some() {
        fields.wrong("langb", "give `language` or `langb`, not both", errors);
    }
    let language = language.map(|code| code.to_ascii_lowercase().into());
    (language, langb.map(Into::into))
}

/// That a text can be a VAST document, in which the click URL may stand as it is.
pub(super) fn vast(fields: &Fields<'_>, key: &str, text: &str, errors: &mut Errors) {
    if !text.trim_start().starts_with('<') || !text.contains("<VAST") {
        fields.wrong(key, "expected a VAST document: <VAST …>…</VAST>", errors);
    }
    let outside = text.match_indices(CLICK_MACRO).any(|(place, _)| {
        let before = text.get(..place).unwrap_or("");
        before.rfind("<![CDATA[") <= before.rfind("]]>")
    });
    if outside {
        let message =
            format!("{CLICK_MACRO} stands outside <![CDATA[…]]>, where a URL's & is no text");
        fields.wrong(key, message, errors);
    }
}

/// A URL that can stand in an attribute of HTML and in JavaScript alike without quoting.
pub(super) fn url<'a>(fields: &Fields<'a>, key: &str, errors: &mut Errors) -> Option<&'a str> {
    let text = fields.text(key, errors)?;
    is_url(fields, key, text, errors).then_some(text)
}

/// That a text is such a URL.
pub(super) fn is_url(fields: &Fields<'_>, key: &str, text: &str, errors: &mut Errors) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let hosted = host.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
    let good = hosted && is_plain(text);
    if !good {
        let message = format!(
            "expected a URL with https:// or http://, up to {URL_BYTES_MAX} bytes, its spaces, quotes and letters beyond ASCII percent-encoded"
        );
        fields.wrong(key, message, errors);
    }
    good
}

/// Whether a text can stand anywhere without quoting, and is no longer than a URL may be.
pub(super) fn is_plain(text: &str) -> bool {
    let plain =
        |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'<' | b'>' | b'\\' | b'`');
    text.bytes().all(plain) && text.len() <= URL_BYTES_MAX
}

/// Notes a text that loads over HTTP although its creative says that nothing does.
pub(super) fn https(fields: &Fields<'_>, key: &str, text: Option<&str>, errors: &mut Errors) {
    if text.is_some_and(loads_insecurely) {
        let message =
            "loads over http:// although `secure` is true: use https://, or leave `secure` out";
        fields.wrong(key, message, errors);
    }
}

/// Whether markup or a URL has `http://` in it, but for XML namespaces, which nothing loads.
fn loads_insecurely(text: &str) -> bool {
    let lower = text.to_ascii_lowercase().replace("\\/", "/");
    lower.match_indices("http://").any(|(place, found)| {
        let rest = lower.get(place + found.len()..).unwrap_or("");
        !rest.starts_with("www.w3.org/")
    })
}
