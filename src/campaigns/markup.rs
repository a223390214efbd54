//! A creative's markup, made ready to be written into a response.
//!
//! A bid's `adm` is a JSON string that differs between bids only where macros stand. So the template is split at the
//! macros that Kith fills in itself and the pieces are escaped for JSON at compile time; writing a bid copies them. All
//! other `${…}` are the exchange's and stay as they are.
//!
//! Filled in are the click URL, and for each request the privacy macros of TCF and GPP ("URL-based services"): `${GDPR}`,
//! `${GDPR_CONSENT_<vendor>}`, `${GPP_STRING_<vendor>}`, `${GPP_SID}`. Most markup has none, and is copied as a whole.

use bumpalo::Bump;

/// The macro that becomes the click URL.
pub const CLICK_MACRO: &str = "${KITH_CLICK_URL}";

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

/// Markup in pieces, each already escaped as the inside of a JSON string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markup {
    /// What stands before, between and behind the click macros: one more than there are macros.
    pub pieces: Box<[Box<str>]>,
    /// All of it, with the creative's landing page for the click macros; without quotes around it.
    pub escaped: Box<str>,
    /// Where there are privacy macros: what stands before each, and it. Their texts and what is behind the last make up `escaped`
    /// without them.
    privacy: Box<[(Box<str>, PrivacyMacro)]>,
    behind: Box<str>,
}

impl Markup {
    /// Prepares a template whose clicks go to `landing`.
    pub(super) fn new(template: &str, landing: &str) -> Self {
        let pieces: Box<[Box<str>]> = template
            .split(CLICK_MACRO)
            .map(|piece| json_inside(piece).into())
            .collect();
        let escaped: Box<str> = pieces.join(json_inside(landing).as_str()).into();
        let mut privacy = Vec::new();
        // Nothing in a macro's name is escaped, so that they can be looked for in what is.
        let behind = split_at_macros(&escaped, |before, which| {
            privacy.push((before.into(), which))
        });
        Self {
            behind: behind.into(),
            pieces,
            escaped,
            privacy: privacy.into(),
        }
    }

    /// The pieces between which a click's URL stands, where there are some, and no privacy macro that the request fills in.
    pub fn clicks(&self) -> Option<&[Box<str>]> {
        (self.pieces.len() > 1 && self.privacy.is_empty()).then_some(&self.pieces)
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
    fn the_click_macro_alone_is_filled_in() {
        let markup = Markup::new(
            "<a href=\"${KITH_CLICK_URL}\">${AUCTION_PRICE}</a><script>\u{2028}'${KITH_CLICK_URL}'</script>\n",
            "https://acme.example/?a=1&b=2",
        );
        assert_eq!(markup.pieces.len(), 3);
        assert_eq!(
            read(&markup.escaped),
            "<a href=\"https://acme.example/?a=1&b=2\">${AUCTION_PRICE}</a><script>\u{2028}'https://acme.example/?a=1&b=2'</script>\n"
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

    proptest! {
        #[test]
        fn any_text_survives(text in "\\PC*|[\\x00-\\x7f\"\\\\]*") {
            prop_assert_eq!(read(&json_inside(&text)), text.clone());
            let markup = Markup::new(&text, "https://acme.example/");
            prop_assert_eq!(read(&markup.escaped), text.replace(CLICK_MACRO, "https://acme.example/"));
        }
    }
}
