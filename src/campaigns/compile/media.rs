//! Video and audio: the facts of a VAST document that requests ask for.

use super::super::MediaAd;
use super::super::document::Fields;
use super::{CODES_MAX, Work};

/// Longest ad in seconds: an hour.
const SECONDS_MAX: u32 = 3600;
/// Greatest bit rate in kbit/s.
const BITRATE_MAX: u32 = 1_000_000;

impl Work {
    /// What a table says of a VAST document. That it is all there the caller has seen to.
    pub(super) fn media(&mut self, fields: &Fields<'_>) -> MediaAd {
        let mimes = self.mimes(fields);
        let errors = &mut self.errors;
        let protocols = fields.codes("protocols", CODES_MAX, errors);
        let duration = fields.integer("duration", 1..=SECONDS_MAX, errors);
        let bitrate = fields.integer("bitrate", 1..=BITRATE_MAX, errors);
        let linearity = fields.integer("linearity", 1..=2, errors);
        for (key, empty, example) in [
            ("mimes", mimes.is_empty(), "video/mp4"),
            ("protocols", protocols.is_empty(), "7 for VAST 4.0"),
        ] {
            if empty && fields.is_empty_list(key) {
                fields.wrong(key, format!("name at least one, like {example}"), errors);
            }
        }
        MediaAd {
            mimes,
            protocols,
            duration: duration.unwrap_or(SECONDS_MAX),
            bitrate,
            linearity: linearity.unwrap_or(1),
        }
    }

    /// A list of MIME types, in lower case.
    pub(super) fn mimes(&mut self, fields: &Fields<'_>) -> Box<[Box<str>]> {
        let list = fields.texts("mimes", CODES_MAX, &mut self.errors);
        for (key, text) in &list {
            if !is_mime(text) {
                let message = "expected a MIME type like video/mp4";
                fields.wrong(key, message, &mut self.errors);
            }
        }
        list.into_iter()
            .map(|(_, text)| text.to_ascii_lowercase().into())
            .collect()
    }
}

/// Whether a text is `type/subtype`.
pub(super) fn is_mime(text: &str) -> bool {
    let token = |part: &str| {
        (1..=64).contains(&part.len())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    text.split_once('/')
        .is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}
