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
//! does not recurse. Cost: about ten instructions a byte of a real request, whether read or skipped; no allocation but for
//! strings with escapes.
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
    /// Where it was not JSON, once nobody was told: then it stands at the end.
    broken: Option<usize>,
    arena: &'a Bump,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `text`; strings with escapes are resolved into `arena`.
    pub fn new(text: &'a str, arena: &'a Bump) -> Self {
        let at = scan::space(text.as_bytes(), 0);
        Self {
            text,
            at,
            broken: None,
            arena,
        }
    }

    /// Offset in bytes of where it stands.
    pub fn at(&self) -> usize {
        self.broken.unwrap_or(self.at)
    }

    /// What it stands at is not JSON: from here on nothing can be read, and whoever tries next is told so. For readers within
    /// an object or array, which cannot be complete then.
    pub fn break_off(&mut self) {
        self.broken.get_or_insert(self.at);
        self.at = self.text.len();
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

    /// A string without escapes, if that is what is ahead; else nothing is read.
    #[inline(always)]
    pub fn plain_string(&mut self) -> Option<&'a str> {
        if self.byte() != Some(b'"') {
            return None;
        }
        let start = self.at.wrapping_add(1);
        let end = scan::plain(self.bytes(), start);
        if self.bytes().get(end) != Some(&b'"') {
            return None;
        }
        let text = self.text.get(start..end)?;
        self.at = end.wrapping_add(1);
        Some(text)
    }

    /// A single digit that is the whole number, if that is what is ahead; else nothing is read.
    #[inline(always)]
    pub fn digit(&mut self) -> Option<u8> {
        let [byte, behind] = *self.bytes().get(self.at..)?.first_chunk()?;
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 || matches!(behind, b'0'..=b'9' | b'.' | b'e' | b'E') {
            return None;
        }
        self.at = self.at.wrapping_add(1);
        Some(digit)
    }

    /// A number from 0 to 10^18 − 1 that is written in digits alone, if that is what is ahead; else nothing is read.
    #[inline(always)]
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
    #[inline(always)]
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
        let mut key = self.key(b'{');
        while key.is_key() {
            each(self, key)?;
            key = self.key(b',');
        }
        if key == Key::END {
            Ok(())
        } else {
            Err(NotJson)
        }
    }

    /// The next key, or that there is none: from the brace or comma before it up to its value. One for all objects: a copy
    /// in each would drive out of the processor's cache what is needed next.
    #[inline(never)]
    fn key(&mut self, before: u8) -> Key {
        if let Some(key) = self.quick_key(before) {
            return key;
        }
        if before == b',' && self.byte() == Some(b'}') {
            self.at = self.at.wrapping_add(1);
            return Key::END;
        }
        self.any_form_of_key(before)
    }

    #[inline(never)]
    fn any_form_of_key(&mut self, before: u8) -> Key {
        let key = match before {
            b'{' => self.any_first_key(),
            _ => self.any_next_key(),
        };
        match key {
            Ok(Some(key)) => key,
            Ok(None) => Key::END,
            Err(NotJson) => Key::BROKEN,
        }
    }

    #[inline(always)]
    fn quick_key(&mut self, before: u8) -> Option<Key> {
        let (block, length) = scan::quick_key(self.bytes(), self.at, before)?;
        let key = Key::from_block(block, length)?;
        self.at = self.at.wrapping_add(length).wrapping_add(scan::QUICK_KEY);
        Some(key)
    }

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
        // Behind white space it may still have the usual form.
        let start = self.at;
        self.at = start.wrapping_sub(1);
        if let Some(before) = self.byte()
            && let Some(key) = self.quick_key(before)
        {
            return Ok(key);
        }
        self.at = start;
        let key = self.string()?;
        self.go(scan::colon(self.bytes(), self.at))?;
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
            if !self.next_element()? {
                return Ok(());
            }
        }
    }

    /// Whether another element is ahead.
    #[inline(always)]
    fn next_element(&mut self) -> Result<bool, NotJson> {
        match self.byte() {
            Some(b',') => {
                self.step(1);
                Ok(true)
            }
            Some(b']') => {
                self.at = self.at.wrapping_add(1);
                Ok(false)
            }
            _ => self.any_next_element(),
        }
    }

    #[inline(never)]
    fn any_next_element(&mut self) -> Result<bool, NotJson> {
        self.step(0);
        match self.byte() {
            Some(b',' | b']') => self.next_element(),
            _ => Err(NotJson),
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests;
