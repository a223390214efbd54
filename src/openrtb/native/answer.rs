//! The document that answers a native request (Native 1.2 §5), as the inside of a bid's `adm`.
//!
//! `adm` is a JSON string that holds JSON: every quote of the document is escaped once more. So its parts are made ready when
//! the campaigns are compiled, and here only put together with what the request says: ids, version, root.

use std::sync::LazyLock;

use crate::openrtb::response::PIXEL_URL_MACRO;
use std::fmt::Write as _;

use bumpalo::Bump;
use bumpalo::collections::String as ArenaString;

use super::NativeAsk;

/// Event trackers: an impression, and a picture that is loaded for it.
const EVENT_IMPRESSION: u32 = 1;
const METHOD_IMAGE: u32 = 1;

/// An event to be tracked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerOut {
    /// AdCOM list "Event Types".
    pub event: u32,
    /// AdCOM list "Event Tracking Methods".
    pub method: u32,
    /// What to load: a URL without a character that JSON escapes.
    pub url: Box<str>,
}

/// The impression's pixel, whose URL is filled in when the bid is written.
pub fn pixel() -> &'static TrackerOut {
    static PIXEL: LazyLock<TrackerOut> = LazyLock::new(|| TrackerOut {
        event: EVENT_IMPRESSION,
        method: METHOD_IMAGE,
        url: PIXEL_URL_MACRO.into(),
    });
    &PIXEL
}

/// What a native ad says. All texts are escaped for `adm`.
#[derive(Debug, Clone, Copy)]
pub struct NativeAnswer<'a> {
    /// What is answered.
    pub ask: &'a NativeAsk<'a>,
    /// For each asset that is answered its place in `ask`, and the members that say what it is.
    pub assets: &'a [(usize, &'a str)],
    /// The members of `link`.
    pub link: &'a str,
    /// Trackers, of which only those are told that are asked for; a picture for the impression always may be.
    pub trackers: &'a [&'a TrackerOut],
    /// URL of a page about privacy, told where it is asked for; without a character that JSON escapes.
    pub privacy: Option<&'a str>,
}

impl NativeAnswer<'_> {
    /// The whole document, as the inside of a JSON string.
    pub fn markup<'a>(&self, arena: &'a Bump) -> &'a str {
        let mut out = ArenaString::new_in(arena);
        // Writing into the arena does not fail.
        let _ = self.write(&mut out);
        out.into_bump_str()
    }

    fn write(&self, out: &mut ArenaString<'_>) -> std::fmt::Result {
        if self.ask.rooted {
            out.push_str(r#"{\"native\":"#);
        }
        write!(out, r#"{{\"ver\":\"{}\",\"assets\":["#, self.ask.ver)?;
        let mut comma = "";
        for (place, members) in self.assets {
            let Some(asked) = self.ask.assets.get(*place) else {
                continue;
            };
            let required = if asked.required {
                r#"\"required\":1,"#
            } else {
                ""
            };
            let id = asked.id.unwrap_or_default();
            write!(out, r#"{comma}{{\"id\":{id},{required}{members}}}"#)?;
            comma = ",";
        }
        write!(out, r#"],\"link\":{{{}}}"#, self.link)?;
        self.trackers(out)?;
        if let Some(url) = self.privacy.filter(|_| self.ask.privacy) {
            write!(out, r#",\"privacy\":\"{url}\""#)?;
        }
        out.push('}');
        if self.ask.rooted {
            out.push('}');
        }
        Ok(())
    }

    fn trackers(&self, out: &mut ArenaString<'_>) -> std::fmt::Result {
        let asked =
            |tracker: &&TrackerOut| self.ask.tracks(tracker.event.into(), tracker.method.into());
        let mut opening = r#",\"eventtrackers\":["#;
        for tracker in self.trackers.iter().copied().filter(asked) {
            let TrackerOut { event, method, url } = tracker;
            write!(
                out,
                r#"{opening}{{\"event\":{event},\"method\":{method},\"url\":\"{url}\"}}"#
            )?;
            opening = ",";
        }
        if opening == "," {
            out.push(']');
        }
        let mut opening = r#",\"imptrackers\":["#;
        let pictures = self.trackers.iter().copied().filter(|tracker| {
            tracker.event == EVENT_IMPRESSION && tracker.method == METHOD_IMAGE && !asked(tracker)
        });
        for tracker in pictures {
            write!(out, r#"{opening}\"{}\""#, tracker.url)?;
            opening = ",";
        }
        if opening == "," {
            out.push(']');
        }
        Ok(())
    }
}
