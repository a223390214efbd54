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

use bumpalo::Bump;

/// Deepest nesting read, in arrays and objects. Real requests stay under 20; IAB's deepest object under 12.
pub const DEPTH_MAX: usize = 512;

/// The text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not JSON at byte {at}")]
pub struct NotJson {
    /// Offset in bytes where reading stopped.
    pub at: usize,
}

/// One JSON value as the slice of the text that it is: validated, trimmed, not yet interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a>(&'a str);

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
    /// The JSON text of the value, as it was sent.
    pub fn text(self) -> &'a str {
        self.0
    }

    /// What it is.
    pub fn shape(self) -> Shape {
        match self.0.as_bytes().first() {
            Some(b'{') => Shape::Object,
            Some(b'[') => Shape::Array,
            Some(b'"') => Shape::String,
            Some(b't' | b'f') => Shape::Bool,
            Some(b'n') | None => Shape::Null,
            Some(_) => Shape::Number,
        }
    }

    /// Whether it says nothing at all: `null`, `""`, `[]` or `{}`.
    pub fn is_empty(self) -> bool {
        match self.shape() {
            Shape::Null => true,
            Shape::String => self.0.len() == 2,
            Shape::Array | Shape::Object => {
                let inside = self.0.get(1..self.0.len().saturating_sub(1)).unwrap_or("");
                inside.bytes().all(is_space)
            }
            Shape::Number | Shape::Bool => false,
        }
    }

    /// The content of a string, escapes resolved; `None` when it is no string or holds a lone surrogate.
    pub fn string(self, arena: &'a Bump) -> Option<&'a str> {
        let inside = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
            return Some(inside);
        }
        unescape(inside, arena)
    }

    /// A cursor over the value.
    pub fn cursor(self, arena: &'a Bump) -> Cursor<'a> {
        Cursor::new(self.0, arena)
    }
}

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

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// A position in JSON text. Every method leaves it just behind what it has read.
#[derive(Debug)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
    arena: &'a Bump,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `text`; strings with escapes are resolved into `arena`.
    pub fn new(text: &'a str, arena: &'a Bump) -> Self {
        Self { text, at: 0, arena }
    }

    /// Where strings are resolved to.
    pub fn arena(&self) -> &'a Bump {
        self.arena
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn fail<T>(&self) -> Result<T, NotJson> {
        Err(NotJson { at: self.at })
    }

    fn byte(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn skip_space(&mut self) {
        while self.byte().is_some_and(is_space) {
            self.step();
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.byte() != Some(byte) {
            return self.fail();
        }
        self.step();
        Ok(())
    }

    /// The shape of the value ahead, without reading it.
    pub fn peek(&mut self) -> Result<Shape, NotJson> {
        self.skip_space();
        match self.byte() {
            Some(b'{') => Ok(Shape::Object),
            Some(b'[') => Ok(Shape::Array),
            Some(b'"') => Ok(Shape::String),
            Some(b't' | b'f') => Ok(Shape::Bool),
            Some(b'n') => Ok(Shape::Null),
            Some(b'-' | b'0'..=b'9') => Ok(Shape::Number),
            _ => self.fail(),
        }
    }

    /// Checks that nothing but white space is left.
    pub fn end(&mut self) -> Result<(), NotJson> {
        self.skip_space();
        if self.byte().is_some() {
            self.fail()
        } else {
            Ok(())
        }
    }

    /// Reads one value of any kind and returns its slice.
    pub fn value(&mut self) -> Result<Raw<'a>, NotJson> {
        self.skip_space();
        let start = self.at;
        self.skip_value()?;
        self.text
            .get(start..self.at)
            .map(Raw)
            .ok_or(NotJson { at: start })
    }

    /// Walks an object: `each` is called with every key, escapes resolved, and must read exactly the value.
    pub fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, &str) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        self.skip_space();
        self.take(b'{')?;
        self.skip_space();
        if self.byte() == Some(b'}') {
            self.step();
            return Ok(());
        }
        loop {
            self.skip_space();
            let start = self.at;
            self.skip_string()?;
            let key = Raw(self.text.get(start..self.at).unwrap_or("\"\""));
            self.skip_space();
            self.take(b':')?;
            self.skip_space();
            // A key with a lone surrogate is a key we do not know.
            each(self, key.string(self.arena).unwrap_or(""))?;
            self.skip_space();
            match self.byte() {
                Some(b',') => self.step(),
                Some(b'}') => {
                    self.step();
                    return Ok(());
                }
                _ => return self.fail(),
            }
        }
    }

    /// Walks an array: `each` must read exactly one value.
    pub fn array(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        self.skip_space();
        self.take(b'[')?;
        self.skip_space();
        if self.byte() == Some(b']') {
            self.step();
            return Ok(());
        }
        loop {
            self.skip_space();
            each(self)?;
            self.skip_space();
            match self.byte() {
                Some(b',') => self.step(),
                Some(b']') => {
                    self.step();
                    return Ok(());
                }
                _ => return self.fail(),
            }
        }
    }

    /// Reads over one value, checking it, without recursion.
    fn skip_value(&mut self) -> Result<(), NotJson> {
        let mut open = Nesting::default();
        loop {
            self.skip_space();
            match self.byte() {
                Some(b'"') => self.skip_string()?,
                Some(b'{') => {
                    self.step();
                    self.skip_space();
                    if self.byte() != Some(b'}') {
                        open.push(true).ok_or(NotJson { at: self.at })?;
                        self.skip_key()?;
                        continue;
                    }
                    self.step();
                }
                Some(b'[') => {
                    self.step();
                    self.skip_space();
                    if self.byte() != Some(b']') {
                        open.push(false).ok_or(NotJson { at: self.at })?;
                        continue;
                    }
                    self.step();
                }
                Some(b't') => self.skip_word(b"true")?,
                Some(b'f') => self.skip_word(b"false")?,
                Some(b'n') => self.skip_word(b"null")?,
                Some(b'-' | b'0'..=b'9') => self.skip_number()?,
                _ => return self.fail(),
            }
            // A value is complete: go on in the innermost open container, or be done.
            loop {
                let Some(in_object) = open.last() else {
                    return Ok(());
                };
                self.skip_space();
                match (self.byte(), in_object) {
                    (Some(b','), true) => {
                        self.step();
                        self.skip_space();
                        self.skip_key()?;
                        break;
                    }
                    (Some(b','), false) => {
                        self.step();
                        break;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.step();
                        open.pop();
                    }
                    _ => return self.fail(),
                }
            }
        }
    }

    fn skip_key(&mut self) -> Result<(), NotJson> {
        self.skip_string()?;
        self.skip_space();
        self.take(b':')
    }

    fn skip_word(&mut self, word: &[u8]) -> Result<(), NotJson> {
        let end = self.at.saturating_add(word.len());
        if self.bytes().get(self.at..end) != Some(word) {
            return self.fail();
        }
        self.at = end;
        Ok(())
    }

    fn skip_digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        while self.byte().is_some_and(|b| b.is_ascii_digit()) {
            self.step();
        }
        if self.at == start {
            self.fail()
        } else {
            Ok(())
        }
    }

    fn skip_number(&mut self) -> Result<(), NotJson> {
        if self.byte() == Some(b'-') {
            self.step();
        }
        if self.byte() == Some(b'0') {
            self.step();
        } else {
            self.skip_digits()?;
        }
        if self.byte() == Some(b'.') {
            self.step();
            self.skip_digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.step();
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.step();
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    fn skip_string(&mut self) -> Result<(), NotJson> {
        self.take(b'"')?;
        loop {
            self.at = self
                .at
                .saturating_add(plain_run(self.bytes().get(self.at..).unwrap_or(&[])));
            match self.byte() {
                Some(b'"') => {
                    self.step();
                    return Ok(());
                }
                Some(b'\\') => {
                    self.step();
                    match self.byte() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.step(),
                        Some(b'u') => {
                            self.step();
                            for _ in 0..4 {
                                if !self.byte().is_some_and(|b| b.is_ascii_hexdigit()) {
                                    return self.fail();
                                }
                                self.step();
                            }
                        }
                        _ => return self.fail(),
                    }
                }
                _ => return self.fail(),
            }
        }
    }
}

/// How many bytes from the start are neither quote, backslash nor control character.
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let zero_bytes = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
    let mut length = 0usize;
    for chunk in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or([0; 8]));
        let quotes = zero_bytes(word ^ (ONES.wrapping_mul(0x22)));
        let backslashes = zero_bytes(word ^ (ONES.wrapping_mul(0x5c)));
        let controls = word.wrapping_sub(ONES.wrapping_mul(0x20)) & !word & HIGHS;
        let stops = quotes | backslashes | controls;
        if stops != 0 {
            // A borrow can only raise false marks above the first true one, and only the first is used.
            return length.saturating_add(usize::try_from(stops.trailing_zeros() / 8).unwrap_or(0));
        }
        length = length.saturating_add(8);
    }
    let tail = bytes.get(length..).unwrap_or(&[]);
    length.saturating_add(
        tail.iter()
            .take_while(|b| !matches!(b, b'"' | b'\\' | 0..=0x1f))
            .count(),
    )
}

/// The open containers while skipping, one bit each: object or array.
#[derive(Default)]
struct Nesting {
    depth: usize,
    objects: [u64; DEPTH_MAX / 64],
}

impl Nesting {
    fn place(depth: usize) -> (usize, u64) {
        (
            depth / 64,
            1u64.rotate_left(u32::try_from(depth % 64).unwrap_or(0)),
        )
    }

    fn push(&mut self, object: bool) -> Option<()> {
        let (word, bit) = Self::place(self.depth);
        let word = self.objects.get_mut(word)?;
        if object {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        self.depth = self.depth.saturating_add(1);
        Some(())
    }

    fn last(&self) -> Option<bool> {
        let (word, bit) = Self::place(self.depth.checked_sub(1)?);
        self.objects.get(word).map(|word| word & bit != 0)
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
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
    use proptest::prelude::*;

    fn accepts(text: &str) -> bool {
        let arena = Bump::new();
        let mut cursor = Cursor::new(text, &arena);
        cursor.value().is_ok() && cursor.end().is_ok()
    }

    /// The same verdict through the walking methods, which the reader uses for what it knows.
    fn walks(text: &str) -> bool {
        fn walk(cursor: &mut Cursor<'_>, depth: usize) -> Result<(), NotJson> {
            match cursor.peek()? {
                Shape::Object if depth < 40 => cursor.object(|c, _| walk(c, depth + 1)),
                Shape::Array if depth < 40 => cursor.array(|c| walk(c, depth + 1)),
                _ => cursor.value().map(drop),
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

        #[test]
        fn cut_anywhere_it_is_no_longer_json(cut in 0usize..60) {
            let text = r#"{"id":"a\u00e9","imp":[{"id":"1","x":[true,null]}],"n":1.5e3}"#;
            if let Some(part) = text.get(..cut) {
                prop_assert!(!accepts(part));
            }
        }
    }
}
