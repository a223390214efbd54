//! From a request's fields to the attributes of the targeting language: which field each comes from, in which spelling,
//! and what the closed gate hides.
//!
//! What an exchange tells of the person takes the same purposes as a dataset that declares none.
//!
//! Spelling: `country` upper case; `os`, `browser`, `language`, `site_domain` lower case; codes as words; the rest as
//! sent. A closed gate hides everything of the person, and every place finer than the country.

use bumpalo::Bump;

use crate::campaigns::{Attribute, Book, Facts, connection, device_type};
use crate::clock::Timestamp;
use crate::openrtb::Request;
use crate::privacy::{Gate, Purposes};

/// Most segments of the exchange's `user.data` shown to targeting.
const REQUEST_SEGMENTS_MAX: usize = 1024;

/// All of them but the segments, which are still being looked up.
pub(super) fn facts<'a>(
    request: &Request<'a>,
    gate: Gate,
    book: &Book,
    exchange: &'a str,
    now: Timestamp,
    arena: &'a Bump,
) -> Facts<'a> {
    let open = gate.is_ok_and(|leave| leave.may(Purposes::PROFILE));
    let device = &request.device;
    let geo = &device.geo;
    let user = &request.user;
    let placed = |place: Option<&'a str>| place.filter(|_| open);
    let reads_os = book.reads(Attribute::Os) || book.reads(Attribute::OsVersion);
    let platform = match device.os {
        None if reads_os => device.sua.platform(arena),
        _ => None,
    };
    let lower = |text: Option<&'a str>| text.map(|text| lower(text, arena));
    let upper = |text: Option<&'a str>| text.map(|text| upper(text, arena));
    Facts {
        request_segments: if open && book.reads(Attribute::RequestSegments) {
            request_segments(request, arena)
        } else {
            None
        },
        user_age: user
            .yob
            .filter(|_| open && book.reads(Attribute::UserAge))
            .and_then(|born| age(born, now)),
        user_gender: placed(upper(user.gender)),
        user_keywords: user.keywords.filter(|_| open),
        country: upper(geo.country),
        region: placed(geo.region),
        city: placed(geo.city),
        metro: placed(geo.metro),
        zip: placed(geo.zip),
        device_type: device.devicetype.and_then(device_type),
        os: lower(device.os.or(platform.map(|platform| platform.brand))),
        os_version: device
            .osv
            .or(platform.and_then(|platform| platform.version)),
        browser: if book.reads(Attribute::Browser) {
            browser_of(request, arena)
        } else {
            None
        },
        language: lower(device.language),
        connection: device.connectiontype.and_then(connection),
        carrier: device.carrier,
        site_domain: lower(
            request
                .site
                .domain
                .map(|domain| domain.trim_end_matches('.')),
        ),
        app_bundle: request.site.bundle,
        publisher: request.site.publisher,
        categories: request.site.cat,
        keywords: request.site.keywords,
        test: request.test,
        ..Facts::new(exchange, now)
    }
}

/// The exchange's segments of the person.
pub(super) fn request_segments<'a>(
    request: &Request<'a>,
    arena: &'a Bump,
) -> Option<&'a [&'a str]> {
    request.user.data.segments(arena, REQUEST_SEGMENTS_MAX)
}

/// The browser. The user agent in parts is what the browser says; the long text is made to look like others'.
pub(super) fn browser_of(request: &Request<'_>, arena: &Bump) -> Option<&'static str> {
    let parts = request.device.sua.browser(arena, branded);
    parts.or_else(|| request.device.ua.and_then(browser))
}

/// A user agent with the mark of that browser and of no other.
pub(super) fn mark_of(word: &str) -> Option<&'static str> {
    let known = MARKS.iter().find(|(_, name)| *name == word);
    known.map(|(mark, _)| *mark)
}

/// The operating system and its version, as [`facts`] has them where some targeting asks.
pub(super) fn system<'a>(
    request: &Request<'a>,
    arena: &'a Bump,
) -> (Option<&'a str>, Option<&'a str>) {
    let device = &request.device;
    let platform = match device.os {
        None => device.sua.platform(arena),
        Some(_) => None,
    };
    let os = device.os.or(platform.map(|platform| platform.brand));
    let version = platform.and_then(|platform| platform.version);
    (os, device.osv.or(version))
}

/// ASCII letters in lower case. Nearly always they are.
#[inline(never)]
fn lower<'a>(text: &'a str, arena: &'a Bump) -> &'a str {
    if !text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return text;
    }
    let copy = arena.alloc_str(text);
    copy.make_ascii_lowercase();
    copy
}

/// ASCII letters in upper case. Nearly always they are.
#[inline(never)]
fn upper<'a>(text: &'a str, arena: &'a Bump) -> &'a str {
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return text;
    }
    let copy = arena.alloc_str(text);
    copy.make_ascii_uppercase();
    copy
}

/// Full years a person born in `born` can have had by the end of this year; nothing where that is no age.
fn age(born: i64, now: Timestamp) -> Option<i64> {
    let year = jiff::Timestamp::from_millisecond(now.unix_ms)
        .ok()?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .year();
    let age = i64::from(year).checked_sub(born)?;
    (0..=130).contains(&age).then_some(age)
}

/// Marks in user agents. The order matters: most name those they imitate as well.
const MARKS: [(&str, &str); 11] = [
    ("Edg", "edge"),
    ("OPR/", "opera"),
    ("SamsungBrowser/", "samsung"),
    ("YaBrowser/", "yandex"),
    ("UCBrowser/", "uc"),
    ("Firefox/", "firefox"),
    ("FxiOS/", "firefox"),
    ("CriOS/", "chrome"),
    ("Chrome/", "chrome"),
    ("Trident/", "ie"),
    ("Safari/", "safari"),
];

/// Brands that browsers send in `sua.browsers`, in lower case. Chromium, which most of them name too, is none.
const BRANDS: [(&str, &str); 9] = [
    ("google chrome", "chrome"),
    ("chrome", "chrome"),
    ("microsoft edge", "edge"),
    ("opera", "opera"),
    ("samsung internet", "samsung"),
    ("yandex", "yandex"),
    ("firefox", "firefox"),
    ("safari", "safari"),
    ("uc browser", "uc"),
];

/// The browser by a brand of its.
fn branded(brand: &str) -> Option<&'static str> {
    let known = |(name, _): &&(&str, &str)| brand.eq_ignore_ascii_case(name);
    BRANDS.iter().find(known).map(|(_, word)| *word)
}

/// The browser by its own mark in the user agent.
fn browser(ua: &str) -> Option<&'static str> {
    MARKS
        .iter()
        .find(|(mark, _)| memchr::memmem::find(ua.as_bytes(), mark.as_bytes()).is_some())
        .map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_told_apart() {
        for (ua, want) in [
            (
                "Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36",
                Some("chrome"),
            ),
            (
                "Mozilla/5.0 (X11) AppleWebKit/537.36 Chrome/120.0 Safari/537.36 Edg/120.0",
                Some("edge"),
            ),
            (
                "Mozilla/5.0 (Macintosh) AppleWebKit/605.1 Version/17.0 Safari/605.1",
                Some("safari"),
            ),
            (
                "Mozilla/5.0 (iPhone) AppleWebKit/605.1 CriOS/120.0 Mobile Safari/604.1",
                Some("chrome"),
            ),
            (
                "Mozilla/5.0 (X11; rv:120.0) Gecko/20100101 Firefox/120.0",
                Some("firefox"),
            ),
            ("curl/8", None),
        ] {
            assert_eq!(browser(ua), want, "{ua}");
        }
    }

    #[test]
    fn a_mark_alone_is_of_the_same_browser() {
        for (_, name) in MARKS.into_iter().chain(BRANDS) {
            assert_eq!(mark_of(name).and_then(browser), Some(name));
        }
    }

    #[test]
    fn a_browser_has_a_word_that_documents_may_use() {
        for (mark, name) in MARKS.into_iter().chain(BRANDS) {
            assert!(crate::campaigns::BROWSERS.contains(&name), "{mark}");
        }
    }

    #[test]
    fn ages_are_ages_or_nothing() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().expect("a time");
        assert_eq!(age(1990, now), Some(36));
        for born in [2027, 1800, i64::MIN, i64::MAX] {
            assert_eq!(age(born, now), None, "{born}");
        }
    }
}
