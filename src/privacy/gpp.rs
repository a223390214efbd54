//! GPP strings (IAB Tech Lab, "Global Privacy Platform" 1.0): which sections there are, and what each says to us.
//!
//! The crate that the field takes for this, `iab_gpp`, is the oracle of the tests and not on the bid path: it expands
//! ranges (a legal string of 22 KB asks for 268 million ids), refuses a whole string for a section it does not know,
//! and takes a value that no field may have for "not applicable". Here a section that is not understood counts as denied, the
//! others as what they say.

use super::bits::Bits;
use super::purposes::Purposes;
use super::tcf::TcString;
use super::{Policy, us};

/// GPP's own number of the header, and the version that is read.
const HEADER: (u32, u32) = (3, 1);
/// Highest number of a section that is told apart; there are 27 so far.
const SECTION_MAX: u32 = 63;

/// The section of the European TC string.
pub(super) const TCF_EU: u8 = 2;
/// The section of the Canadian TC string.
pub(super) const TCF_CA: u8 = 5;
const US_PRIVACY: u8 = 6;

/// What a GPP string says to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Gpp {
    /// A bit a section: it is there.
    present: u64,
    /// A bit a section: it denies, or cannot be read. The two TC strings are told apart.
    denied: u64,
    /// What the European section grants.
    pub(super) eu: Purposes,
    /// What the Canadian section grants.
    pub(super) ca: Purposes,
}

impl Gpp {
    /// Takes a string apart; nothing where its header cannot be read or does not fit the sections that follow.
    pub(super) fn read(text: &str, policy: &Policy) -> Option<Self> {
        let mut parts = text.split('~');
        let mut header = Bits::of(parts.next()?)?;
        if (header.take(6)?, header.take(6)?) != HEADER {
            return None;
        }
        let mut gpp = Self::default();
        let mut last: u32 = 0;
        for _ in 0..header.take(12)? {
            let is_range = header.flag()?;
            let first = last.checked_add(header.fibonacci()?)?;
            last = first;
            if is_range {
                last = first.checked_add(header.fibonacci()?)?;
            }
            if last > SECTION_MAX {
                return None;
            }
            for section in first..=last {
                gpp.add(u8::try_from(section).ok()?, parts.next()?, policy);
            }
        }
        parts.next().is_none().then_some(gpp)
    }

    fn add(&mut self, section: u8, text: &str, policy: &Policy) {
        let bit = bit(section);
        self.present |= bit;
        let denied = match section {
            TCF_EU => {
                let tc = TcString::read(text, policy.vendor_id);
                self.eu = tc.map_or(Purposes::NONE, |tc| policy.granted(&tc));
                false
            }
            TCF_CA => {
                let tc = TcString::read_canadian(text, policy.vendor_id);
                self.ca = tc.map_or(Purposes::NONE, |tc| policy.granted_in_canada(&tc));
                false
            }
            US_PRIVACY => us::has_opted_out(text),
            other => us::section_opts_out(other, text),
        };
        if denied {
            self.denied |= bit;
        }
    }

    /// The sections that are there.
    pub(super) fn sections(&self) -> impl Iterator<Item = u8> {
        let present = self.present;
        (0..=63u8).filter(move |section| present & bit(*section) != 0)
    }

    /// Whether a section denies, cannot be read or is not there.
    pub(super) fn denies(&self, section: u8) -> bool {
        let bit = bit(section);
        self.present & bit == 0 || self.denied & bit != 0
    }
}

fn bit(section: u8) -> u64 {
    1u64.rotate_left(u32::from(section))
}
