//! The bits of a text in base64url, read from the front without a copy.
//!
//! Consent strings number their bits from the most significant one of the first character, six to a character; padding
//! (`=`) at the end says nothing. Everything here is bounded by the text's length.

/// A place among the bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Bits<'t> {
    /// The bits of a text; nothing where a character is not of base64url.
    pub(super) fn of(text: &'t str) -> Option<Self> {
        let text = text.trim_end_matches('=').as_bytes();
        // Gathered, not searched: without a way out early the compiler looks at many characters at once.
        let is_known = |byte: &u8| byte.is_ascii_alphanumeric() | (*byte == b'-') | (*byte == b'_');
        let known = text.iter().map(|byte| u8::from(!is_known(byte)));
        (known.fold(0, |any, one| any | one) == 0).then_some(Self { text, at: 0 })
    }

    /// The next `count` bits, at most 32, as a number.
    pub(super) fn take(&mut self, count: usize) -> Option<u32> {
        let mut number: u32 = 0;
        let mut left = count;
        while left > 0 {
            let six = u32::from(sextet(*self.text.get(self.at / 6)?));
            let unread = 6usize.saturating_sub(self.at % 6);
            let now = left.min(unread);
            let shifted = six >> unread.saturating_sub(now);
            let mask = (1u32 << now).wrapping_sub(1);
            number = number << now | (shifted & mask);
            self.at = self.at.saturating_add(now);
            left = left.saturating_sub(now);
        }
        Some(number)
    }

    /// The next 16 bits.
    pub(super) fn number(&mut self) -> Option<u16> {
        self.take(16).and_then(|number| u16::try_from(number).ok())
    }

    /// The next bit.
    pub(super) fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }

    /// How many bits there are from here.
    pub(super) fn left(&self) -> usize {
        self.text.len().saturating_mul(6).saturating_sub(self.at)
    }

    /// Goes `count` bits on; nothing where there are not so many.
    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        let at = self.at.saturating_add(count);
        (at <= self.text.len().saturating_mul(6)).then(|| self.at = at)
    }

    /// The next number in Fibonacci coding (GPP, "Fibonacci Encoding to Deal with Integers"): over zero, at most 2^16.
    pub(super) fn fibonacci(&mut self) -> Option<u32> {
        let (mut number, mut small, mut large) = (0u32, 1u32, 2u32);
        let mut one_before = false;
        loop {
            let one = self.flag()?;
            if one && one_before {
                return Some(number);
            }
            if one {
                number = number.checked_add(small)?;
            }
            one_before = one;
            if small > 1 << 16 {
                return None;
            }
            (small, large) = (large, small.saturating_add(large));
        }
    }
}

/// A character's six bits. Only called for those that [`Bits::of`] let pass.
fn sextet(character: u8) -> u8 {
    match character {
        b'A'..=b'Z' => character.wrapping_sub(b'A'),
        b'a'..=b'z' => character.wrapping_sub(b'a').wrapping_add(26),
        b'0'..=b'9' => character.wrapping_sub(b'0').wrapping_add(52),
        b'-' => 62,
        _ => 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_in_order_and_end() {
        // C = 2, then p = 41 = 101001.
        let mut bits = Bits::of("Cp").expect("base64url");
        assert_eq!(bits.take(6), Some(2));
        assert_eq!(bits.flag(), Some(true));
        assert_eq!(bits.take(5), Some(0b01001));
        assert_eq!(bits.take(1), None);
        let mut bits = Bits::of("____-A==").expect("base64url");
        assert_eq!(bits.take(32), Some(0xffff_fff8));
        assert!(bits.skip(4).is_some() && bits.skip(1).is_none());
    }

    #[test]
    fn other_characters_are_refused() {
        for text in ["a b", "a+b", "a/b", "é", "a=b", "a\0"] {
            assert!(Bits::of(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn fibonacci_numbers() {
        // 011 = 2, 11 = 1, 0011 = 3, 1011 = 4; in six-bit characters.
        let mut bits = Bits::of("bM").expect("base64url");
        // b = 27 = 011011, M = 12 = 001100.
        assert_eq!((bits.fibonacci(), bits.fibonacci()), (Some(2), Some(2)));
        assert_eq!((bits.fibonacci(), bits.fibonacci()), (Some(3), None));
        assert_eq!(Bits::of("AAAAAAAAAA").expect("base64url").fibonacci(), None);
    }
}
