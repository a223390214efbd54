//! Sets of TCF purposes.

use std::fmt;

/// Some of the purposes 1 to 24 of the Transparency and Consent Framework.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Purposes(u32);

impl Purposes {
    /// None.
    pub const NONE: Self = Self(0);
    /// All 24.
    pub const ALL: Self = Self(0x01ff_fffe);
    /// The eleven that TCF 2.2 defines.
    pub const DEFINED: Self = Self(0x0ffe);
    /// What reading and using a person's profile takes where nothing else is declared: to store and read (1), to make a
    /// profile (3), to choose advertising by it (4).
    pub const PROFILE: Self = Self(1 << 1 | 1 << 3 | 1 << 4);
    /// What counting how often somebody was shown something takes: keeping it (1) and choosing ads by it (2, whose text in the
    /// TCF names frequency capping).
    pub const FREQUENCY: Self = Self(1 << 1 | 1 << 2);

    /// These purposes; numbers outside 1 to 24 are left out.
    pub fn of(purposes: &[u8]) -> Self {
        let known = purposes
            .iter()
            .filter(|purpose| (1..=24).contains(*purpose));
        Self(known.fold(0, |bits, purpose| {
            bits | 1u32.rotate_left(u32::from(*purpose))
        }))
    }

    /// From the 24 bits of a consent string, purpose 1 the most significant.
    pub(super) fn of_field(bits: u32) -> Self {
        Self(bits.reverse_bits() >> 7 & Self::ALL.0)
    }

    /// Whether none is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `others` are in it.
    pub fn covers(self, others: Self) -> bool {
        others.without(self).is_empty()
    }

    /// Those in both.
    pub fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Those in either.
    pub fn or(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Those that are not in `others`.
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// In ascending order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (1..=24u8).filter(move |purpose| self.covers(Self::of(&[*purpose])))
    }
}

impl fmt::Debug for Purposes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_begins_with_purpose_one() {
        assert_eq!(Purposes::of_field(1 << 23), Purposes::of(&[1]));
        assert_eq!(Purposes::of_field(1), Purposes::of(&[24]));
        assert_eq!(Purposes::of_field(0x00ff_ffff), Purposes::ALL);
        assert_eq!(Purposes::of(&[0, 25, 255]), Purposes::NONE);
        let some = Purposes::of(&[4, 1, 3]);
        assert_eq!(some, Purposes::PROFILE);
        assert_eq!(some.iter().collect::<Vec<_>>(), [1, 3, 4]);
        assert!(Purposes::ALL.covers(some) && !some.covers(Purposes::of(&[2])));
        assert!(Purposes::NONE.covers(Purposes::NONE));
    }
}
