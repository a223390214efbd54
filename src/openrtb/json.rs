//! A strict, borrowing JSON cursor: the reader walks an object once, takes the fields it knows in place and skips
//! the rest, validated, without building anything.
//!
//! Why not serde: the contract asks for things that a derived `Deserialize` cannot say without a second pass over
//! every nested object. A field of the wrong type, or a number like `1e999`, must make that field unreadable and
//! nothing else; a numeric id must keep its digits; of duplicate keys the last wins, but of privacy keys the
//! strictest. Here every value is first a validated slice of the body ([`Raw`]), and what it means is
//! decided afterwards. `serde_json` is the oracle: the tests hold the two to the same verdict on every input.
//!
//! Invariant: what is accepted is RFC 8259 JSON, skipped parts included, except that a lone surrogate escape is
//! let through as raw text (it makes a value unreadable when read). Nesting is bounded by [`DEPTH_MAX`] and skipping
//! does not recurse. Cost: strings are scanned eight bytes at a time; no allocation but for strings with escapes.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod key;
mod scan;

pub use key::Key;

use bumpalo::Bump;

/// Deepest nesting read, in arrays and objects. Real requests stay under 20; IAB's deepest object under 12.
pub const DEPTH_MAX: usize = 512;

/// The text is not JSON, where the cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not JSON")]
pub struct NotJson;

/// One JSON value: validated, not yet interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a> {
    shape: Shape,
    /// A string has escapes.
    escaped: bool,
    /// As it was sent; of a string what is between the quotes.
    text: &'a str,
}

/// What kind of value a slice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number.
    Number,
    /// `true` or `false`
    Bool,
    /// `null`
    Null,
}

impl<'a> Raw<'a> {
    /// The JSON text of the value, as it was sent; of a string what is between its quotes.
    pub fn text(self) -> &'a str {
        self.text
    }

    /// What it is.
    pub fn shape(self) -> Shape {
        self.shape
    }

    /// Whether it says nothing at all: `null`, `""`, `[]` or `{}`.
    pub fn is_empty(self) -> bool {
        let bytes = self.text.as_bytes();
        match self.shape {
            Shape::Null => true,
            Shape::String => bytes.is_empty(),
            // Behind the bracket that opens it comes the one that closes it.
            Shape::Array | Shape::Object => scan::space(bytes, 1) == bytes.len().saturating_sub(1),
            Shape::Number | Shape::Bool => false,
        }
    }

    /// The content of a string, escapes resolved; `None` when it is no string or holds a lone surrogate.
    #[inline]
    pub fn string(self, arena: &'a Bump) -> Option<&'a str> {
        match (self.shape, self.escaped) {
            (Shape::String, false) => Some(self.text),
            (Shape::String, true) => unescape(self.text, arena),
            _ => None,
        }
    }

    /// A cursor over the value, which is no string.
    pub fn cursor(self, arena: &'a Bump) -> Cursor<'a> {
        Cursor::new(self.text, arena)
    }
}

#[inline(never)]
fn unescape<'a>(inside: &str, arena: &'a Bump) -> Option<&'a str> {
    let mut text = bumpalo::collections::String::with_capacity_in(inside.len(), arena);
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        text.push_str(rest.get(..at)?);
        rest = rest.get(at.checked_add(1)?..)?;
        let escape = *rest.as_bytes().first()?;
        rest = rest.get(1..)?;
        let plain = match escape {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let first = hex4(rest.get(..4)?)?;
                rest = rest.get(4..)?;
                if (0xd800..0xdc00).contains(&first) {
                    let low = hex4(rest.strip_prefix("\\u")?.get(..4)?)?;
                    rest = rest.get(6..)?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return None;
                    }
                    let high_bits = first.checked_sub(0xd800)?.checked_shl(10)?;
                    let scalar = high_bits
                        .checked_add(low.checked_sub(0xdc00)?)?
                        .checked_add(0x1_0000)?;
                    char::from_u32(scalar)?
                } else {
                    char::from_u32(first)?
                }
            }
            other => char::from(other),
        };
        text.push(plain);
    }
    text.push_str(rest);
    Some(text.into_bump_str())
}

fn hex4(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_hexdigit()) {
        u32::from_str_radix(text, 16).ok()
    } else {
        None
    }
}

/// A position in JSON text, never on white space. Every method leaves it just behind what it has read, or where it
/// turned out not to be JSON.
#[derive(Debug)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
    arena: &'a Bump,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `text`; strings with escapes are resolved into `arena`.
    pub fn new(text: &'a str, arena: &'a Bump) -> Self {
        let at = scan::space(text.as_bytes(), 0);
        Self { text, at, arena }
    }

    /// Offset in bytes of where it stands.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Where strings are resolved to.
    pub fn arena(&self) -> &'a Bump {
        self.arena
    }

    #[inline(always)]
    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    #[inline(always)]
    fn byte(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    /// Goes over `length` bytes and the white space behind them.
    #[inline(always)]
    fn step(&mut self, length: usize) {
        self.at = scan::space(self.bytes(), self.at.wrapping_add(length));
    }

    /// Goes to where something ends, or stays where it turned out not to be JSON.
    #[inline(always)]
    fn go(&mut self, end: scan::Scan<usize>) -> Result<(), NotJson> {
        match end {
            Ok(at) => {
                self.at = at;
                Ok(())
            }
            Err(at) => {
                self.at = at;
                Err(NotJson)
            }
        }
    }

    /// Whether an object is ahead.
    #[inline(always)]
    pub fn at_object(&self) -> bool {
        self.byte() == Some(b'{')
    }

    /// Whether an array is ahead.
    #[inline(always)]
    pub fn at_array(&self) -> bool {
        self.byte() == Some(b'[')
    }

    /// Checks that nothing but white space is left.
    pub fn end(&mut self) -> Result<(), NotJson> {
        self.step(0);
        if self.byte().is_some() {
            Err(NotJson)
        } else {
            Ok(())
        }
    }

    /// Reads one value of any kind.
    #[inline]
    pub fn value(&mut self) -> Result<Raw<'a>, NotJson> {
        match self.byte() {
            Some(b'"') => self.string(),
            _ => self.no_string(),
        }
    }

    /// Reads over one value of any kind.
    #[inline]
    pub fn skip(&mut self) -> Result<(), NotJson> {
        self.go(scan::value(self.bytes(), self.at))
    }

    /// A number from 0 to 10^18 − 1 that is written in digits alone, if that is what is ahead; else nothing is read.
    #[inline]
    pub fn small_integer(&mut self) -> Option<i64> {
        let mut at = self.at;
        let mut number = 0i64;
        let end = loop {
            let byte = self.bytes().get(at).copied().unwrap_or_default();
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break byte;
            }
            number = number.wrapping_mul(10).wrapping_add(i64::from(digit));
            at = at.wrapping_add(1);
        };
        let digits = at.wrapping_sub(self.at);
        let has_more = matches!(end, b'.' | b'e' | b'E');
        if has_more || !(1..=18).contains(&digits) || (digits > 1 && self.byte() == Some(b'0')) {
            return None;
        }
        self.at = at;
        Some(number)
    }

    /// A number of at most seven digits and six behind the point, in millionths, if that is what is ahead; else nothing
    /// is read.
    #[inline]
    pub fn small_decimal(&mut self) -> Option<i64> {
        let mut at = self.at;
        let mut number = 0i64;
        let mut point = None;
        loop {
            let byte = self.bytes().get(at).copied().unwrap_or_default();
            let digit = byte.wrapping_sub(b'0');
            if digit <= 9 {
                number = number.wrapping_mul(10).wrapping_add(i64::from(digit));
            } else if byte == b'.' && point.is_none() {
                point = Some(at);
            } else if matches!(byte, b'.' | b'e' | b'E') {
                return None;
            } else {
                break;
            }
            at = at.wrapping_add(1);
        }
        let whole = point.unwrap_or(at).wrapping_sub(self.at);
        let fraction = point.map_or(0, |point| at.wrapping_sub(point).wrapping_sub(1));
        let has_leading_zero = whole > 1 && self.byte() == Some(b'0');
        if !(1..=7).contains(&whole) || has_leading_zero || (point.is_some() && fraction == 0) {
            return None;
        }
        let unit = *[1_000_000, 100_000, 10_000, 1_000, 100, 10, 1].get(fraction)?;
        self.at = at;
        Some(number.wrapping_mul(unit))
    }

    /// Reads a string, which is ahead.
    #[inline(always)]
    fn string(&mut self) -> Result<Raw<'a>, NotJson> {
        let start = self.at.wrapping_add(1);
        match scan::string(self.bytes(), start) {
            Ok((end, escaped)) => {
                self.at = end.wrapping_add(1);
                Ok(Raw {
                    shape: Shape::String,
                    escaped,
                    text: self.text.get(start..end).ok_or(NotJson)?,
                })
            }
            Err(at) => {
                self.at = at;
                Err(NotJson)
            }
        }
    }

    #[inline(never)]
    fn no_string(&mut self) -> Result<Raw<'a>, NotJson> {
        let shape = match self.byte() {
            Some(b'{') => Shape::Object,
            Some(b'[') => Shape::Array,
            Some(b't' | b'f') => Shape::Bool,
            Some(b'n') => Shape::Null,
            _ => Shape::Number,
        };
        let start = self.at;
        self.skip()?;
        Ok(Raw {
            shape,
            escaped: false,
            text: self.text.get(start..self.at).ok_or(NotJson)?,
        })
    }

    /// Walks an object: `each` is called with every key, escapes resolved, and must read exactly the value.
    #[inline(always)]
    pub fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, Key) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        let mut next = self.first_key()?;
        while let Some(key) = next {
            each(self, key)?;
            next = self.next_key()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn first_key(&mut self) -> Result<Option<Key>, NotJson> {
        match self.quick_key(b'{') {
            None => self.any_first_key(),
            key => Ok(key),
        }
    }

    #[inline(always)]
    fn next_key(&mut self) -> Result<Option<Key>, NotJson> {
        match self.quick_key(b',') {
            None if self.byte() == Some(b'}') => {
                self.at = self.at.wrapping_add(1);
                Ok(None)
            }
            None => self.any_next_key(),
            key => Ok(key),
        }
    }

    #[inline(always)]
    fn quick_key(&mut self, before: u8) -> Option<Key> {
        let (block, length) = scan::quick_key(self.bytes(), self.at, before)?;
        let key = Key::from_block(block, length)?;
        self.at = self.at.wrapping_add(length).wrapping_add(scan::QUICK_KEY);
        Some(key)
    }

    #[inline(never)]
    fn any_first_key(&mut self) -> Result<Option<Key>, NotJson> {
        if self.byte() != Some(b'{') {
            return Err(NotJson);
        }
        self.step(1);
        if self.byte() == Some(b'}') {
            self.at = self.at.wrapping_add(1);
            return Ok(None);
        }
        self.any_key().map(Some)
    }

    #[inline(never)]
    fn any_next_key(&mut self) -> Result<Option<Key>, NotJson> {
        self.step(0);
        match self.byte() {
            Some(b',') => {
                self.step(1);
                self.any_key().map(Some)
            }
            Some(b'}') => {
                self.at = self.at.wrapping_add(1);
                Ok(None)
            }
            _ => Err(NotJson),
        }
    }

    /// A key and its colon, up to the value.
    fn any_key(&mut self) -> Result<Key, NotJson> {
        if self.byte() != Some(b'"') {
            return Err(NotJson);
        }
        let start = self.at.wrapping_add(1);
        let key = self.string()?;
        let length = key.text.len();
        self.go(scan::colon(self.bytes(), self.at))?;
        if !key.escaped
            && let Some(block) = self.bytes().get(start..).and_then(<[u8]>::first_chunk)
            && let Some(key) = Key::from_block(block, length)
        {
            return Ok(key);
        }
        // A key with a lone surrogate is a key we do not know.
        Ok(key.string(self.arena).map_or(Key::OTHER, Key::new))
    }

    /// Walks an array: `each` must read exactly one value.
    #[inline(always)]
    pub fn array(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        if self.byte() != Some(b'[') {
            return Err(NotJson);
        }
        self.step(1);
        if self.byte() == Some(b']') {
            self.at = self.at.wrapping_add(1);
            return Ok(());
        }
        loop {
            each(self)?;
            if !matches!(self.byte(), Some(b',' | b']')) {
                self.step(0);
            }
            match self.byte() {
                Some(b',') => self.step(1),
                Some(b']') => {
                    self.at = self.at.wrapping_add(1);
                    return Ok(());
                }
                _ => return Err(NotJson),
            }
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
    use super::*;
    use crate::money::{Price, Round};
    use proptest::prelude::*;

    fn accepts(text: &str) -> bool {
        let arena = Bump::new();
        let mut cursor = Cursor::new(text, &arena);
        cursor.value().is_ok() && cursor.end().is_ok()
    }

    /// The same verdict through the walking methods, which the reader uses for what it knows.
    fn walks(text: &str) -> bool {
        fn walk(cursor: &mut Cursor<'_>, depth: usize) -> Result<(), NotJson> {
            if depth < 40 && cursor.at_object() {
                cursor.object(|c, _| walk(c, depth + 1))
            } else if depth < 40 && cursor.at_array() {
                cursor.array(|c| walk(c, depth + 1))
            } else if cursor.small_integer().is_some() {
                Ok(())
            } else {
                cursor.value().map(drop)
            }
        }
        let arena = Bump::new();
        let mut cursor = Cursor::new(text, &arena);
        walk(&mut cursor, 0).is_ok() && cursor.end().is_ok()
    }

    /// serde_json's opinion, by a reader that looks at nothing.
    fn oracle(text: &str) -> bool {
        serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    }

    #[test]
    fn strict_like_the_oracle() {
        let long = format!("\"{}\"", "plain text ".repeat(9));
        for text in [
            "{}",
            "[]",
            "0",
            "-0",
            "1e999",
            "-1.5E+3",
            "\"\"",
            "null",
            "true",
            " { \"a\" : [ 1 , {} ] } ",
            "\"\\ud800\"",
            "\"é\\u00e9\\\"\"",
            &long,
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{,}",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "nul",
            "truth",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"a\nb\"",
            "[1}",
            "{\"a\":1]",
            "1 2",
            "\u{feff}1",
            "{\"a\":1 \"b\":2}",
            "[1 2]",
            "'a'",
            "{a:1}",
            "[\"\\u00\"]",
            "NaN",
            "\"\u{7f}\"",
            "\"tab\there\"",
        ] {
            assert_eq!(accepts(text), oracle(text), "{text:?}");
            assert_eq!(walks(text), oracle(text), "walking {text:?}");
        }
    }

    #[test]
    fn nesting_is_bounded_and_does_not_recurse() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(accepts(&nested(DEPTH_MAX)));
        assert!(
            accepts(&nested(DEPTH_MAX + 1)),
            "an empty innermost array opens nothing"
        );
        assert!(!accepts(&nested(DEPTH_MAX + 2)));
        assert!(!accepts(&"[".repeat(100_000)));
        assert!(!accepts(&nested(100_000)));
        assert!(accepts(&format!(
            "{}1{}",
            "[{\"a\":".repeat(200),
            "}]".repeat(200)
        )));
    }

    #[test]
    fn strings_resolve_their_escapes_or_say_so() {
        let arena = Bump::new();
        let read = |text: &'static str| {
            Cursor::new(text, &arena)
                .value()
                .expect("JSON")
                .string(&arena)
        };
        assert_eq!(read(r#""a\/b\u0041\n""#), Some("a/bA\n"));
        assert_eq!(read(r#""\ud83d\ude00""#), Some("😀"));
        assert_eq!(read(r#""\ud83d""#), None);
        assert_eq!(read(r#""\ud83dx""#), None);
        assert_eq!(read(r#""\ud83d\u0041""#), None);
        assert_eq!(read(r#""\ude00""#), None);
        assert_eq!(read("12"), None);
    }

    #[test]
    fn plain_numbers_take_the_short_way() {
        let arena = Bump::new();
        let cursor = |text| Cursor::new(text, &arena);
        assert_eq!(cursor("250,").small_integer(), Some(250));
        assert_eq!(cursor("0}").small_integer(), Some(0));
        assert_eq!(
            cursor("999999999999999999").small_integer(),
            Some(999_999_999_999_999_999)
        );
        for text in ["1000000000000000000", "01", "1.0", "1e3", "-1", "", "x"] {
            assert_eq!(cursor(text).small_integer(), None, "{text}");
        }
        assert_eq!(cursor("0.35,").small_decimal(), Some(350_000));
        assert_eq!(cursor("2").small_decimal(), Some(2_000_000));
        assert_eq!(
            cursor("9999999.999999").small_decimal(),
            Some(9_999_999_999_999)
        );
        for text in [
            "10000000",
            "0.1234567",
            "1.",
            ".5",
            "00.5",
            "1e1",
            "1.5e1",
            "1.2.3",
            "-1",
        ] {
            assert_eq!(cursor(text).small_decimal(), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gets_the_oracles_verdict(text in r#"[\[\]{}:,"\\u0-9a-f eE+\-.tn\x00-\x20é]{0,24}"#) {
            prop_assert_eq!(accepts(&text), oracle(&text));
            prop_assert_eq!(walks(&text), oracle(&text));
        }

        #[test]
        fn a_string_reads_as_the_oracle_reads_it(text in any::<String>(), escape in any::<bool>()) {
            let json = serde_json::to_string(&text).expect("text");
            let json = if escape {
                let units = text.encode_utf16().map(|u| format!("\\u{u:04x}")).collect::<String>();
                format!("\"{units}\"")
            } else {
                json
            };
            let arena = Bump::new();
            let read = Cursor::new(arena.alloc_str(&json), &arena).value().expect("JSON").string(&arena);
            prop_assert_eq!(read, Some(text.as_str()));
        }

        /// The short ways read what the long way reads, or nothing.
        #[test]
        fn small_numbers_are_exact(text in r"(0|[1-9][0-9]{0,20}|[0-9]{1,9}|-1)(\.[0-9]{0,8})?([eE][0-9])?[ ,x]?") {
            let arena = Bump::new();
            let cursor = || Cursor::new(&text, &arena);
            let (mut short, mut long) = (cursor(), cursor());
            let whole = short.small_integer();
            if let Some(number) = whole {
                prop_assert_eq!(long.value().map(|raw| raw.text().parse()), Ok(Ok(number)));
                prop_assert_eq!(short.at(), long.at());
            } else {
                prop_assert_eq!(short.at(), 0);
            }
            let (mut short, mut long) = (cursor(), cursor());
            if let Some(micros) = short.small_decimal() {
                let raw = long.value().expect("a number");
                prop_assert_eq!(Price::from_micros(micros), Price::parse(raw.text(), Round::Up));
                prop_assert_eq!(short.at(), long.at());
            } else {
                prop_assert_eq!(short.at(), 0);
            }
        }

        #[test]
        fn cut_anywhere_it_is_no_longer_json(cut in 0usize..60) {
            let text = r#"{"id":"a\u00e9","imp":[{"id":"1","x":[true,null]}],"n":1.5e3}"#;
            if let Some(part) = text.get(..cut) {
                prop_assert!(!accepts(part));
            }
        }
    }
}
