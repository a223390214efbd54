//! The inner loops of reading JSON: given the place where something begins, where does it end?
//!
//! Free functions over bytes and a position, so that both stay in registers. Strings and white space are searched sixteen
//! bytes at a time; nothing is looked at twice but the block in which an escape ends, so that any text costs time in
//! proportion to its length. Invariant: what is passed over is RFC 8259 JSON, except that a lone surrogate escape is let
//! through; an error is the place where JSON ended. Cost: about a fifth of reading a request goes into what is passed over here.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use wide::u8x16;

use super::DEPTH_MAX;

/// Where something ends, or else where the text is not JSON.
pub(super) type Scan<T> = Result<T, usize>;

/// Bytes searched at a time.
pub(super) const BLOCK: usize = 16;

/// One bit for each byte that ends a run of plain text in a string: quote, backslash or control character.
#[inline(always)]
pub(super) fn stops(block: &[u8; BLOCK]) -> u32 {
    let bytes = u8x16::new(*block);
    // With its second bit flipped the quote, 0x22, comes to stand right above the control characters.
    let flipped = bytes ^ u8x16::splat(0x02);
    let quotes_and_controls = flipped.min(u8x16::splat(0x20)).simd_eq(flipped);
    let backslashes = bytes.simd_eq(u8x16::splat(b'\\'));
    (quotes_and_controls | backslashes).to_bitmask()
}

#[inline(always)]
fn block_at(bytes: &[u8], at: usize) -> Option<&[u8; BLOCK]> {
    bytes.get(at..)?.first_chunk()
}

/// Index of the lowest bit set.
#[inline(always)]
fn lowest(bits: u32) -> usize {
    bits.trailing_zeros() as usize
}

/// The first byte at or behind `at` that is no white space.
#[inline(always)]
pub(super) fn space(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'\0'..=b' ') => long_space(bytes, at),
        _ => at,
    }
}

#[inline(never)]
fn long_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(block) = block_at(bytes, at) {
        let block = u8x16::new(*block);
        let is = |byte| block.simd_eq(u8x16::splat(byte));
        let spaces = (is(b' ') | is(b'\n') | is(b'\r') | is(b'\t')).to_bitmask();
        let run = lowest(!spaces);
        at = at.wrapping_add(run);
        if run < BLOCK {
            return at;
        }
    }
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at = at.wrapping_add(1);
    }
    at
}

/// From behind the opening quote to the closing one, and whether there was an escape on the way.
#[inline(always)]
pub(super) fn string(bytes: &[u8], at: usize) -> Scan<(usize, bool)> {
    let end = plain(bytes, at);
    match bytes.get(end) {
        Some(b'"') => Ok((end, false)),
        _ => Ok((escaped_string(bytes, end)?, true)),
    }
}

/// From the first byte in a string that is not plain to the closing quote.
#[inline(never)]
fn escaped_string(bytes: &[u8], mut at: usize) -> Scan<usize> {
    loop {
        match bytes.get(at) {
            Some(b'"') => return Ok(at),
            Some(b'\\') => at = plain(bytes, escape(bytes, at.wrapping_add(1))?),
            _ => return Err(at),
        }
    }
}

/// The first byte that is not plain text, or the end. Most strings end in the first block.
#[inline(always)]
pub(super) fn plain(bytes: &[u8], at: usize) -> usize {
    match block_at(bytes, at).map(stops) {
        Some(0) => long_plain(bytes, at.wrapping_add(BLOCK)),
        Some(stops) => at.wrapping_add(lowest(stops)),
        None => plain_tail(bytes, at),
    }
}

#[inline(never)]
fn long_plain(bytes: &[u8], mut at: usize) -> usize {
    while let Some(block) = block_at(bytes, at) {
        let stops = stops(block);
        if stops != 0 {
            return at.wrapping_add(lowest(stops));
        }
        at = at.wrapping_add(BLOCK);
    }
    plain_tail(bytes, at)
}

#[inline(never)]
fn plain_tail(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at)
        && !matches!(byte, b'"' | b'\\' | 0..=0x1f)
    {
        at = at.wrapping_add(1);
    }
    at
}

/// From behind a backslash to behind the escape.
#[inline(always)]
fn escape(bytes: &[u8], at: usize) -> Scan<usize> {
    match bytes.get(at) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at.wrapping_add(1)),
        Some(b'u') => {
            let mut at = at.wrapping_add(1);
            for _ in 0..4 {
                if !bytes.get(at).is_some_and(u8::is_ascii_hexdigit) {
                    return Err(at);
                }
                at = at.wrapping_add(1);
            }
            Ok(at)
        }
        _ => Err(at),
    }
}

#[inline(always)]
fn digits(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b'0'..=b'9') = bytes.get(at) {
        at = at.wrapping_add(1);
    }
    at
}

#[inline(always)]
fn some_digits(bytes: &[u8], at: usize) -> Scan<usize> {
    let end = digits(bytes, at);
    if end == at { Err(at) } else { Ok(end) }
}

/// Over a number.
#[inline(always)]
pub(super) fn number(bytes: &[u8], mut at: usize) -> Scan<usize> {
    if bytes.get(at) == Some(&b'-') {
        at = at.wrapping_add(1);
    }
    at = match bytes.get(at) {
        Some(b'0') => at.wrapping_add(1),
        _ => some_digits(bytes, at)?,
    };
    match bytes.get(at) {
        Some(b'.' | b'e' | b'E') => number_tail(bytes, at),
        _ => Ok(at),
    }
}

fn number_tail(bytes: &[u8], mut at: usize) -> Scan<usize> {
    if bytes.get(at) == Some(&b'.') {
        at = some_digits(bytes, at.wrapping_add(1))?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at = at.wrapping_add(1);
        if let Some(b'+' | b'-') = bytes.get(at) {
            at = at.wrapping_add(1);
        }
        at = some_digits(bytes, at)?;
    }
    Ok(at)
}

/// Over `true`, `false` or `null`.
pub(super) fn word(bytes: &[u8], at: usize) -> Scan<usize> {
    let rest = bytes.get(at..).unwrap_or_default();
    for word in [&b"true"[..], b"false", b"null"] {
        if rest.starts_with(word) {
            return Ok(at.wrapping_add(word.len()));
        }
    }
    Err(at)
}

/// The form that nearly all keys have: `before` and the quote, under 16 bytes without escapes, `":`, and the value at once.
/// Gives the block that the key begins and its length; the value is [`QUICK_KEY`] bytes and the length further.
#[inline(always)]
pub(super) fn quick_key(bytes: &[u8], at: usize, before: u8) -> Option<(&[u8; BLOCK], usize)> {
    // One look at all of it, so that nothing below has to ask whether the text goes on.
    let window: &[u8; QUICK_KEY + BLOCK] = bytes.get(at..)?.first_chunk()?;
    if window.first_chunk() != Some(&[before, b'"']) {
        return None;
    }
    let block: &[u8; BLOCK] = window.get(2..)?.first_chunk()?;
    let length = lowest(stops(block));
    let fits = length < BLOCK
        && window.get(length.wrapping_add(2)..)?.first_chunk() == Some(b"\":")
        && window.get(length.wrapping_add(QUICK_KEY)) > Some(&b' ');
    fits.then_some((block, length))
}

/// The bytes of a quick key beside the key itself.
pub(super) const QUICK_KEY: usize = 4;

/// Over the comma or brace before a key, the key and its colon, to the value.
#[inline(always)]
fn key(bytes: &[u8], at: usize, before: u8) -> Scan<usize> {
    match quick_key(bytes, at, before) {
        Some((_, length)) => Ok(at.wrapping_add(length).wrapping_add(QUICK_KEY)),
        None => any_key(bytes, space(bytes, at.wrapping_add(1))),
    }
}

#[inline(never)]
fn any_key(bytes: &[u8], at: usize) -> Scan<usize> {
    if bytes.get(at) != Some(&b'"') {
        return Err(at);
    }
    let (end, _) = string(bytes, at.wrapping_add(1))?;
    colon(bytes, end.wrapping_add(1))
}

/// Over the colon behind a key, to the value.
#[inline(always)]
pub(super) fn colon(bytes: &[u8], at: usize) -> Scan<usize> {
    let at = space(bytes, at);
    if bytes.get(at) != Some(&b':') {
        return Err(at);
    }
    Ok(space(bytes, at.wrapping_add(1)))
}

/// Over a value of any kind, without recursion.
#[inline(never)]
pub(super) fn value(bytes: &[u8], at: usize) -> Scan<usize> {
    match bytes.get(at) {
        Some(b'{' | b'[') => container(bytes, at),
        _ => scalar(bytes, at),
    }
}

#[inline(always)]
fn scalar(bytes: &[u8], at: usize) -> Scan<usize> {
    match bytes.get(at) {
        Some(b'"') => Ok(string(bytes, at.wrapping_add(1))?.0.wrapping_add(1)),
        Some(b'-' | b'0'..=b'9') => number(bytes, at),
        _ => word(bytes, at),
    }
}

/// Over an object or an array. Apart from the rest, which needs none of its room.
#[inline(never)]
fn container(bytes: &[u8], mut at: usize) -> Scan<usize> {
    let mut open = Nesting::default();
    loop {
        match bytes.get(at) {
            Some(b'{') => {
                if let Some((_, length)) = quick_key(bytes, at, b'{') {
                    open.push(true).ok_or(at.wrapping_add(1))?;
                    at = at.wrapping_add(length).wrapping_add(QUICK_KEY);
                    continue;
                }
                at = space(bytes, at.wrapping_add(1));
                if bytes.get(at) != Some(&b'}') {
                    open.push(true).ok_or(at)?;
                    at = any_key(bytes, at)?;
                    continue;
                }
                at = at.wrapping_add(1);
            }
            Some(b'[') => {
                at = space(bytes, at.wrapping_add(1));
                if bytes.get(at) != Some(&b']') {
                    open.push(false).ok_or(at)?;
                    continue;
                }
                at = at.wrapping_add(1);
            }
            _ => at = scalar(bytes, at)?,
        }
        // A value is complete: go on in the innermost open container, or be done.
        loop {
            let Some(in_object) = open.last() else {
                return Ok(at);
            };
            match (bytes.get(at), in_object) {
                (Some(b','), true) => {
                    at = key(bytes, at, b',')?;
                    break;
                }
                (Some(b','), false) => {
                    at = space(bytes, at.wrapping_add(1));
                    break;
                }
                (Some(b' ' | b'\n' | b'\r' | b'\t'), _) => at = long_space(bytes, at),
                (Some(b'}'), true) | (Some(b']'), false) => {
                    at = at.wrapping_add(1);
                    open.pop();
                }
                _ => return Err(at),
            }
        }
    }
}

/// The open containers while skipping, one bit each, 1 for an object: the innermost 64 at hand, the others put away.
#[derive(Default)]
struct Nesting {
    depth: usize,
    innermost: u64,
    outer: [u64; DEPTH_MAX / 64],
}

impl Nesting {
    #[inline(always)]
    fn push(&mut self, object: bool) -> Option<()> {
        if self.depth.is_multiple_of(64) {
            *self.outer.get_mut(self.depth / 64)? = self.innermost;
        }
        self.innermost = self.innermost << 1 | u64::from(object);
        self.depth = self.depth.wrapping_add(1);
        Some(())
    }

    #[inline(always)]
    fn last(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.innermost & 1 != 0)
    }

    #[inline(always)]
    fn pop(&mut self) {
        self.depth = self.depth.wrapping_sub(1);
        self.innermost >>= 1;
        if self.depth.is_multiple_of(64) {
            self.innermost = self.outer.get(self.depth / 64).copied().unwrap_or(0);
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
    use crate::openrtb::json::Key;
    use proptest::prelude::*;

    fn is_stop(byte: u8) -> bool {
        matches!(byte, b'"' | b'\\' | 0..=0x1f)
    }

    /// One byte after the other, as the grammar says it.
    fn naive_string(bytes: &[u8], mut at: usize) -> Scan<(usize, bool)> {
        let mut escaped = false;
        loop {
            match bytes.get(at) {
                Some(b'"') => return Ok((at, escaped)),
                Some(b'\\') => {
                    escaped = true;
                    at = escape(bytes, at + 1)?;
                }
                Some(byte) if !is_stop(*byte) => at += 1,
                _ => return Err(at),
            }
        }
    }

    fn naive_space(bytes: &[u8], at: usize) -> usize {
        let rest = bytes.get(at..).unwrap_or_default();
        let run = rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        at + run.count()
    }

    /// Text in which everything that matters is frequent, and runs reach over blocks.
    fn soup() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => "[a-z ]{0,20}",
            1 => r#"[\\"/bfnrtu0-9a-fx\x00-\x20é]{1,3}"#,
            1 => Just("\\u00e9".to_owned()),
            1 => Just("   \n\t\r      ".to_owned()),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn a_block_has_a_bit_for_every_stop(block in any::<[u8; BLOCK]>()) {
            let want = (0..BLOCK).fold(0, |bits, n| bits | u32::from(is_stop(block[n])) << n);
            prop_assert_eq!(stops(&block), want);
        }

        #[test]
        fn strings_and_spaces_end_where_the_naive_way_ends_them(text in soup(), at in 0usize..40) {
            prop_assert_eq!(space(&text, at), naive_space(&text, at));
            let (ours, naive) = (string(&text, at), naive_string(&text, at));
            // Where the string is broken, an escape before that says nothing.
            prop_assert_eq!(ours, naive);
        }

        #[test]
        fn a_quick_key_is_what_the_slow_way_reads(
            before in prop_oneof![Just(","), Just("{"), Just(", ")],
            name in r#"[a-z_é"\\\x00]{0,18}"#,
            colon in prop_oneof![4 => Just(":"), 1 => Just(" :"), 1 => Just(": ")],
            rest in "[0-9,\" ]{0,18}",
        ) {
            let text = format!("{before}\"{name}\"{colon}{rest}");
            let bytes = text.as_bytes();
            if let Some((block, length)) = quick_key(bytes, 0, bytes[0]) {
                prop_assert_eq!(any_key(bytes, 1), Ok(length + QUICK_KEY));
                let name = std::str::from_utf8(&bytes[2..2 + length]).expect("text");
                prop_assert_eq!(Key::from_block(block, length), Some(Key::new(name)));
            }
        }

        /// Brackets nested over the 64 that are at hand, closed rightly or with one bracket wrong.
        #[test]
        fn brackets_match_at_any_depth(
            objects in prop::collection::vec(any::<bool>(), 1..300),
            wrong in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut text: String = objects.iter().map(|o| if *o { "{\"a\":" } else { "[" }).collect();
            text.push('1');
            let wrong = wrong.map(|index| index.index(objects.len()));
            for (n, object) in objects.iter().enumerate().rev() {
                // A closed neighbour on the way out has to be remembered over, too.
                text.push_str(if *object { ",\"b\":[{}]" } else { ",{\"b\":[]}" });
                text.push(if *object != (wrong == Some(n)) { '}' } else { ']' });
            }
            let end = value(text.as_bytes(), 0);
            prop_assert_eq!(end.is_ok(), wrong.is_none());
            prop_assert_eq!(end.is_err() || end == Ok(text.len()), true);
        }
    }

    /// What looks at a byte more than a few times would not come back from this.
    #[test]
    fn hostile_texts_take_time_in_proportion() {
        const LENGTH: usize = 1 << 18;
        for piece in [
            "[", "{\"a\":", "\"", "\\\"", "\"\\\\", "\\u00e9", " ", ",", "[[],", "1", "{}",
        ] {
            let text = piece.repeat(LENGTH / piece.len());
            for opening in ["", "\"", "[", "{", "[\"", "{\""] {
                let text = format!("{opening}{text}");
                let _ = value(text.as_bytes(), 0);
            }
        }
    }
}
