//! A creative's markup, made ready to be written into a response.
//!
//! A bid's `adm` is a JSON string that differs between bids only where macros stand. The template is escaped for JSON at compile
//! time. What is filled in for each request are the privacy macros of TCF and GPP ("URL-based services"): `${GDPR}`,
//! `${GDPR_CONSENT_<vendor>}`, `${GPP_STRING_<vendor>}`, `${GPP_SID}`; most markup has none. URLs that carry a bid's token, the click's
//! ([`CLICK_MACRO`]) and the impression's pixel, are filled in when the bid is written, and stay as macros until then. All other
//! `${…}` are the exchange's and stay as they are.

use bumpalo::Bump;

use super::Format;

pub use crate::openrtb::CLICK_MACRO;
use crate::openrtb::{PIXEL_HTML_MACRO, PIXEL_VAST_MACRO};

/// A macro that says what the request says about privacy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivacyMacro {
    /// `${GDPR}`: whether it applies, 0 or 1.
    Gdpr,
    /// `${GDPR_CONSENT_7}`: the TC string, for the vendor that is named.
    GdprConsent,
    /// `${GPP_STRING_7}`: the GPP string, for the vendor that is named.
    GppString,
    /// `${GPP_SID}`: the sections that apply.
    GppSid,
}

impl PrivacyMacro {
    /// The macro that a text begins with, and how long it is.
    fn at_start(text: &str) -> Option<(Self, usize)> {
        let (name, _) = text.strip_prefix("${")?.split_once('}')?;
        let names_vendor = |prefix: &str| {
            let vendor = name.strip_prefix(prefix);
            vendor.is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
        };
        let found = match name {
            "GDPR" => Self::Gdpr,
            "GPP_SID" => Self::GppSid,
            _ if names_vendor("GDPR_CONSENT_") => Self::GdprConsent,
            _ if names_vendor("GPP_STRING_") => Self::GppString,
            _ => return None,
        };
        Some((found, "${}".len() + name.len()))
    }
}

/// Markup, escaped as the inside of a JSON string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markup {
    /// All of it, without quotes around it.
    pub escaped: Box<str>,
    /// Where there are privacy macros: what stands before each, and it. Their texts and what is behind the last make up `escaped`
    /// without them.
    privacy: Box<[(Box<str>, PrivacyMacro)]>,
    behind: Box<str>,
    /// How often it has [`CLICK_MACRO`].
    pub clicks: usize,
}

impl Markup {
    /// Prepares a template whose clicks lead to `landing`.
    pub(super) fn new(template: &str, landing: &str) -> Self {
        let mut has_privacy = false;
        split_at_macros(landing, |_, _| has_privacy = true);
        // What such a landing page says is the request's: nobody knows it any more when somebody clicks.
        let escaped: Box<str> = match has_privacy {
            true => json_inside(&template.replace(CLICK_MACRO, landing)).into(),
            false => json_inside(template).into(),
        };
        let mut privacy = Vec::new();
        // Nothing in a macro's name is escaped, so that they can be looked for in what is.
        let behind = split_at_macros(&escaped, |before, which| {
            privacy.push((before.into(), which))
        });
        Self {
            behind: behind.into(),
            clicks: escaped.matches(CLICK_MACRO).count(),
            escaped,
            privacy: privacy.into(),
        }
    }

    /// The same with a place for the impression's pixel: an element of HTML at its end, or one of VAST beside those that it has.
    pub(super) fn with_pixel(template: &str, landing: &str, format: Format) -> Self {
        let at = match format {
            Format::Banner => Some((template.len(), PIXEL_HTML_MACRO)),
            Format::Video | Format::Audio => {
                place_for_pixel(template).map(|at| (at, PIXEL_VAST_MACRO))
            }
            Format::Native => None,
        };
        let Some((at, pixel)) = at else {
            return Self::new(template, landing);
        };
        let (before, behind) = template.split_at_checked(at).unwrap_or((template, ""));
        Self::new(&format!("{before}{pixel}{behind}"), landing)
    }

    /// All of it with the privacy macros filled in. A value must be of letters, digits and `-_.~=` only.
    pub fn filled<'a>(
        &'a self,
        arena: &'a Bump,
        value: impl Fn(PrivacyMacro) -> &'a str,
    ) -> &'a str {
        if self.privacy.is_empty() {
            return &self.escaped;
        }
        let mut text = bumpalo::collections::String::new_in(arena);
        for (before, which) in &self.privacy {
            text.push_str(before);
            text.push_str(value(*which));
        }
        text.push_str(&self.behind);
        text.into_bump_str()
    }
}

/// Whether a VAST document has a place for the impression's pixel.
pub(super) fn has_place_for_pixel(vast: &str) -> bool {
    place_for_pixel(vast).is_some()
}

/// Where in a VAST document an `<Impression>` may stand: before the first, else behind the title, else behind the ad system's name.
fn place_for_pixel(vast: &str) -> Option<usize> {
    let behind = |tag: &str| tag_in(vast, tag).map(|at| at.saturating_add(tag.len()));
    tag_in(vast, "<Impression")
        .or_else(|| behind("</AdTitle>"))
        .or_else(|| behind("</AdSystem>"))
}

/// Where a tag stands in XML, comments and CDATA apart.
fn tag_in(xml: &str, tag: &str) -> Option<usize> {
    let mut at = 0usize;
    loop {
        let rest = xml.get(at..)?;
        let found = rest.find('<')?;
        let here = rest.get(found..)?;
        if here.starts_with(tag) {
            return Some(at.saturating_add(found));
        }
        let skipped = [("<!--", "-->"), ("<![CDATA[", "]]>")]
            .into_iter()
            .find_map(|(begin, end)| {
                let inside = here.strip_prefix(begin)?;
                let length = inside.find(end).unwrap_or(inside.len());
                Some(begin.len().saturating_add(length))
            });
        at = at
            .saturating_add(found)
            .saturating_add(skipped.unwrap_or(1));
    }
}

/// Tells of each privacy macro with the text before it, and gives back what is behind the last.
fn split_at_macros<'t>(text: &'t str, mut found: impl FnMut(&'t str, PrivacyMacro)) -> &'t str {
    let (mut begun, mut at) = (0, 0);
    while let Some(next) = text.get(at..).and_then(|rest| rest.find("${")) {
        at += next;
        match PrivacyMacro::at_start(text.get(at..).unwrap_or("")) {
            Some((which, length)) => {
                found(text.get(begun..at).unwrap_or(""), which);
                at += length;
                begun = at;
            }
            None => at += "${".len(),
        }
    }
    text.get(begun..).unwrap_or("")
}

/// The same as [`Markup::filled`] for markup that was put together for one request.
pub fn filled<'a>(
    text: &'a str,
    arena: &'a Bump,
    value: impl Fn(PrivacyMacro) -> &'a str,
) -> &'a str {
    if !text.contains("${G") {
        return text;
    }
    let mut all = bumpalo::collections::String::new_in(arena);
    let behind = split_at_macros(text, |before, which| {
        all.push_str(before);
        all.push_str(value(which));
    });
    all.push_str(behind);
    all.into_bump_str()
}

/// A text as the inside of a JSON string, without the quotes around it.
pub fn json_inside(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(inside: &str) -> String {
        serde_json::from_str(&format!("\"{inside}\"")).expect("the inside of a JSON string")
    }

    #[test]
    fn text_survives_and_the_click_macro_waits() {
        let markup = Markup::new(
            "<a href=\"${KITH_CLICK_URL}\">${AUCTION_PRICE}</a><script>\u{2028}'${KITH_CLICK_URL}'</script>\n",
            "https://acme.example/?a=1&b=2",
        );
        // It waits for the bid.
        assert_eq!(
            read(&markup.escaped),
            "<a href=\"${KITH_CLICK_URL}\">${AUCTION_PRICE}</a><script>\u{2028}'${KITH_CLICK_URL}'</script>\n"
        );
    }

    #[test]
    fn privacy_macros_are_filled_in_for_each_request() {
        let arena = Bump::new();
        let filled = |template: &str| {
            let markup = Markup::new(template, "https://acme.example/${GDPR}");
            let markup = arena.alloc(markup);
            let text = markup.filled(&arena, |which| match which {
                PrivacyMacro::Gdpr => "1",
                PrivacyMacro::GdprConsent => "CP-x.y",
                PrivacyMacro::GppString => "DB~CP",
                PrivacyMacro::GppSid => "2_6",
            });
            assert_eq!(
                text,
                super::filled(&markup.escaped, &arena, |which| match which {
                    PrivacyMacro::Gdpr => "1",
                    PrivacyMacro::GdprConsent => "CP-x.y",
                    PrivacyMacro::GppString => "DB~CP",
                    PrivacyMacro::GppSid => "2_6",
                })
            );
            read(text)
        };
        for (template, want) in [
            (
                "<img src=\"https://t.example/?g=${GDPR}&c=${GDPR_CONSENT_755}\">",
                "<img src=\"https://t.example/?g=1&c=CP-x.y\">",
            ),
            ("${GPP_STRING_7}${GPP_SID}", "DB~CP2_6"),
            ("${KITH_CLICK_URL}", "https://acme.example/1"),
            // Others are the exchange's, or nobody's.
            (
                "${AUCTION_PRICE}${GDPR_CONSENT_}",
                "${AUCTION_PRICE}${GDPR_CONSENT_}",
            ),
            (
                "${GDPR_CONSENT_x1}${GPP_STRING}${GDPR",
                "${GDPR_CONSENT_x1}${GPP_STRING}${GDPR",
            ),
            ("${${GDPR}}\u{2028}\"", "${1}\u{2028}\""),
            ("", ""),
        ] {
            assert_eq!(filled(template), want, "{template}");
        }
        assert!(Markup::new("<a>${AUCTION_ID}", "x").privacy.is_empty());
    }

    #[test]
    fn a_pixel_stands_where_its_format_wants_it() {
        let placed =
            |template: &str, format| read(&Markup::with_pixel(template, "x", format).escaped);
        assert_eq!(placed("<p>", Format::Banner), "<p>${KITH_PIXEL_HTML}");
        assert_eq!(
            placed(
                "<InLine><AdTitle/><Impression>a</Impression></InLine>",
                Format::Video
            ),
            "<InLine><AdTitle/>${KITH_PIXEL_VAST}<Impression>a</Impression></InLine>"
        );
        assert_eq!(
            placed(
                "<Wrapper><AdSystem>k</AdSystem><VASTAdTagURI>",
                Format::Audio
            ),
            "<Wrapper><AdSystem>k</AdSystem>${KITH_PIXEL_VAST}<VASTAdTagURI>"
        );
        assert_eq!(placed("<VAST></VAST>", Format::Video), "<VAST></VAST>");
        assert_eq!(
            placed(
                "<!-- <Impression> --><![CDATA[</AdTitle>]]><AdSystem>k</AdSystem><!-- <Impression>",
                Format::Video
            ),
            "<!-- <Impression> --><![CDATA[</AdTitle>]]><AdSystem>k</AdSystem>${KITH_PIXEL_VAST}<!-- <Impression>"
        );
    }

    proptest! {
        #[test]
        fn any_text_survives(text in "\\PC*|[\\x00-\\x7f\"\\\\]*") {
            prop_assert_eq!(read(&json_inside(&text)), text.clone());
            let markup = Markup::new(&text, "https://acme.example/");
            prop_assert_eq!(read(&markup.escaped), text);
        }
    }
}
