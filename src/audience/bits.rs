//! Bits within bytes, the lowest of a byte first.
//!
//! Reading never fails where the bits end: whoever reads looks afterwards whether it went
//! [too far](Bits::is_past). So the loop that takes a set apart has one check a set, not one a symbol.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// The bytes are not what the format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nonsense;

/// Most bits that can be put or taken at once.
pub(super) const AT_ONCE: u32 = 56;

/// Bits that are written at once.
const HALF: u32 = 32;

/// Appends bits to bytes.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    word: u64,
    used: u32,
}

impl BitWriter {
    /// Appends the low `bits` of `value`, at most [`AT_ONCE`]; the others must be 0.
    #[inline]
    pub(super) fn put(&mut self, value: u64, bits: u32) {
        debug_assert!(bits <= AT_ONCE && value.checked_shr(bits).unwrap_or(0) == 0);
        if bits > HALF {
            self.put_half(value & u64::from(u32::MAX), HALF);
            self.put_half(value >> HALF, bits.wrapping_sub(HALF));
        } else {
            self.put_half(value, bits);
        }
    }

    /// Appends up to [`HALF`] bits: they fit besides those of the word that are not yet written, which are fewer.
    #[inline]
    fn put_half(&mut self, value: u64, bits: u32) {
        self.word |= value.wrapping_shl(self.used);
        self.used = self.used.wrapping_add(bits);
        if self.used >= HALF {
            self.bytes
                .extend_from_slice(&(self.word as u32).to_le_bytes());
            self.word >>= HALF;
            self.used = self.used.wrapping_sub(HALF);
        }
    }

    /// How many bits were put since the last [`take`](Self::take).
    pub(super) fn len(&self) -> u64 {
        let whole = (self.bytes.len() as u64).saturating_mul(8);
        whole.saturating_add(u64::from(self.used))
    }

    /// The bytes, the last one filled up with zeros; the writer is empty again.
    pub(super) fn take(&mut self, into: &mut Vec<u8>) {
        into.append(&mut self.bytes);
        let last = self.word.to_le_bytes();
        into.extend(last.iter().take(self.used.div_ceil(8) as usize));
        (self.word, self.used) = (0, 0);
    }
}

/// Bits being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// Where they end, in bits; the bytes may go on.
    end: usize,
    /// The next bit.
    at: usize,
}

impl<'a> Bits<'a> {
    /// The bits of the first `length` bytes. What stands behind them may be looked at and is never told: a whole word
    /// is read sooner than the bytes of one.
    #[inline(always)]
    pub(super) fn within(bytes: &'a [u8], length: usize) -> Self {
        Self {
            bytes,
            end: length.min(bytes.len()).saturating_mul(8),
            at: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self::within(bytes, bytes.len())
    }

    /// The next bits, at least [`AT_ONCE`] of them; behind the end anything.
    #[inline(always)]
    pub(super) fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.at >> 3..);
        let word = match rest.and_then(<[u8]>::first_chunk) {
            Some(word) => u64::from_le_bytes(*word),
            None => last_word(rest.unwrap_or_default()),
        };
        word >> (self.at & 7)
    }

    #[inline(always)]
    pub(super) fn skip(&mut self, bits: u32) {
        self.at = self.at.wrapping_add(bits as usize);
    }

    /// Goes on by that many bits, however many; past all bytes where they are too many.
    #[inline(always)]
    pub(super) fn skip_far(&mut self, bits: u64) {
        let bits = usize::try_from(bits).unwrap_or(usize::MAX);
        self.at = self.at.saturating_add(bits).min(usize::MAX >> 1);
    }

    /// Takes up to [`AT_ONCE`] bits.
    #[inline(always)]
    pub(super) fn take(&mut self, bits: u32) -> u64 {
        let value = self.peek() & !u64::MAX.checked_shl(bits).unwrap_or(0);
        self.skip(bits);
        value
    }

    /// How many bits were read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Whether more was read than there is.
    #[inline(always)]
    pub(super) fn is_past(&self) -> bool {
        self.at > self.end
    }

    /// Goes on to a multiple of so many bits, at most eight, from where it began; what stood there.
    #[inline(always)]
    pub(super) fn fill_up(&mut self, unit: u32) -> u64 {
        let over = self.at as u32 & unit.wrapping_sub(1);
        match over {
            0 => 0,
            over => self.take(unit.wrapping_sub(over)),
        }
    }

    /// Whether nothing but zeros is left to read.
    pub(super) fn are_zeros_left(mut self) -> bool {
        let mut any = 0;
        while let Some(left) = self.end.checked_sub(self.at).filter(|left| *left > 0) {
            any |= self.take(AT_ONCE.min(left as u32));
        }
        any == 0 && !self.is_past()
    }

    /// Whether all was read but for zeros that fill up the last byte.
    pub(super) fn is_at_end(&self) -> bool {
        let left = self.end.checked_sub(self.at);
        left.is_some_and(|left| left < 8 && self.peek() & !(u64::MAX << left) == 0)
    }
}

#[cold]
fn last_word(rest: &[u8]) -> u64 {
    let last = rest.iter().rev();
    last.fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test may panic")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_put_is_taken(fields in prop::collection::vec((any::<u64>(), 0..=AT_ONCE), 0..60)) {
            let mut writer = BitWriter::default();
            let mut all = 0u64;
            let kept = |value: u64, bits: u32| value & !u64::MAX.checked_shl(bits).unwrap_or(0);
            for (value, bits) in &fields {
                writer.put(kept(*value, *bits), *bits);
                all += u64::from(*bits);
                prop_assert_eq!(writer.len(), all);
            }
            let mut bytes = Vec::new();
            writer.take(&mut bytes);
            prop_assert_eq!(writer.len(), 0);
            let mut bits = Bits::new(&bytes);
            for (value, width) in &fields {
                prop_assert_eq!(bits.take(*width), kept(*value, *width));
            }
            prop_assert!(bits.is_at_end() && !bits.is_past());
            bits.skip(8);
            prop_assert!(bits.is_past());
        }
    }

    #[test]
    fn behind_the_end_are_zeros() {
        let mut bits = Bits::new(&[0xff]);
        assert_eq!(bits.take(20), 0xff);
        assert!(bits.is_past() && !bits.is_at_end());
        assert_eq!(bits.take(AT_ONCE), 0);
        let mut bits = Bits::within(&[1, 0xff], 1);
        assert!(!bits.is_at_end());
        assert_eq!(bits.take(1), 1);
        assert!(bits.is_at_end());
        bits.skip(8);
        assert!(bits.is_past() && !bits.is_at_end());
        let mut bits = Bits::new(&[0xff]);
        bits.skip_far(u64::MAX);
        assert!(bits.is_past());
        assert_eq!(bits.peek(), 0);
    }
}
