//! Bodies that are not UTF-8. Some exchanges send a page title or an id in Latin-1; only the strings concerned are
//! lost. The body is checked once with SIMD; the one in a million that fails is copied, and every string that holds
//! an invalid byte becomes a lone surrogate escape, which is JSON and which no field can read.

use bumpalo::Bump;

/// A body's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text<'a> {
    /// It is UTF-8, and this is it, without a byte order mark.
    Valid(&'a str),
    /// It was not; this is a copy in which the strings concerned are unreadable.
    Repaired(&'a str),
}

const UNREADABLE: &str = "\\udfff";

/// The body as text, or nothing when a byte outside any string is invalid.
pub fn readable<'a>(body: &'a [u8], arena: &'a Bump) -> Option<Text<'a>> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match simdutf8::basic::from_utf8(body) {
        Ok(text) => Some(Text::Valid(text)),
        Err(_) => repair(body, arena).map(Text::Repaired),
    }
}

fn repair<'a>(body: &[u8], arena: &'a Bump) -> Option<&'a str> {
    let mut text = bumpalo::collections::String::with_capacity_in(body.len(), arena);
    let mut rest = body;
    while let Some(quote) = memchr::memchr(b'"', rest) {
        let (outside, string) = (rest.get(..=quote)?, rest.get(quote.checked_add(1)?..)?);
        text.push_str(std::str::from_utf8(outside).ok()?);
        let length = closing_quote(string)?;
        match string.get(..length).map(std::str::from_utf8)? {
            Ok(inside) => text.push_str(inside),
            Err(_) => text.push_str(UNREADABLE),
        }
        text.push('"');
        rest = string.get(length.checked_add(1)?..)?;
    }
    text.push_str(std::str::from_utf8(rest).ok()?);
    Some(text.into_bump_str())
}

/// How far it is to the quote that ends the string.
fn closing_quote(string: &[u8]) -> Option<usize> {
    let mut escaped = false;
    string.iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &[u8], want: Option<&str>) {
        let arena = Bump::new();
        let got = readable(body, &arena).map(|text| match text {
            Text::Valid(text) | Text::Repaired(text) => text.to_owned(),
        });
        assert_eq!(got.as_deref(), want);
    }

    #[test]
    fn only_the_strings_concerned_are_lost() {
        check(
            b"{\"a\":\"\xff\\\"\",\"b\":\"\xc3\xa9\",\"\xfe\":1}",
            Some("{\"a\":\"\\udfff\",\"b\":\"é\",\"\\udfff\":1}"),
        );
    }

    #[test]
    fn outside_a_string_nothing_is_mended() {
        check(b"{\"a\":\xff}", None);
        check(b"{\"a\":\"\xff", None);
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        check(b"\xef\xbb\xbf{}", Some("{}"));
        check("{\"é\":1}".as_bytes(), Some("{\"é\":1}"));
    }
}
