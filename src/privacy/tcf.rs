//! TC strings of the Transparency and Consent Framework 2: what one grants to one vendor.
//!
//! A string says for each of thousands of vendors what it may do; we want to know of one. So nothing is expanded: a bit
//! field is asked for our bit, a list of ranges is walked once. Time is bounded by the string's length and memory is
//! none, whatever the ranges claim ("Transparency and Consent String with Global Vendor & CMP List Formats" v2.3). The
//! Canadian string of GPP has nearly the same layout and is read here too.
//!
//! A string that is cut short, has a range that ends before it begins or characters of another alphabet is
//! [no string](TcString::read): what is not there grants nothing.

use super::bits::Bits;
use super::purposes::Purposes;

/// The first three bits of a segment that is not the core.
const DISCLOSED_VENDORS: u32 = 1;

/// What a TC string says to one vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TcString {
    /// Who asked the person.
    pub(super) cmp_id: u16,
    /// Whether it is for this publisher only. A Canadian string always is.
    pub(super) service_specific: bool,
    pub(super) consents: Purposes,
    /// Legitimate interest, or implied consent in Canada.
    pub(super) legitimate_interests: Purposes,
    /// Purpose 1 was not asked for, as the publisher's country does not want it asked.
    pub(super) purpose_one_undisclosed: bool,
    /// Two letters.
    pub(super) publisher_country: [u8; 2],
    pub(super) vendor_consent: bool,
    pub(super) vendor_legitimate_interest: bool,
    /// The publisher's restrictions on this vendor.
    pub(super) forbidden: Purposes,
    pub(super) consent_required: Purposes,
    pub(super) legitimate_interest_required: Purposes,
    /// Whether the vendor was shown to the person, where the string says who was.
    pub(super) disclosed: Option<bool>,
}

/// Which layout a core segment has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Version 2.
    Europe,
    /// Version 1 of GPP's section 5.
    Canada,
}

impl TcString {
    /// What a European string says to a vendor; its segments may come in any order.
    pub(super) fn read(text: &str, vendor: u16) -> Option<Self> {
        Self::read_as(Layout::Europe, text, vendor)
    }

    /// What a Canadian string says to a vendor.
    pub(super) fn read_canadian(text: &str, vendor: u16) -> Option<Self> {
        Self::read_as(Layout::Canada, text, vendor)
    }

    fn read_as(layout: Layout, text: &str, vendor: u16) -> Option<Self> {
        let mut core = None;
        let mut disclosed = None;
        for segment in text.split('.') {
            let mut bits = Bits::of(segment)?;
            let mut ahead = bits;
            match ahead.take(3)? {
                0 if core.is_some() => return None,
                0 => core = Some(read_core(layout, &mut bits, vendor)?),
                DISCLOSED_VENDORS => {
                    let is_in = in_vendors(&mut ahead, vendor)?;
                    disclosed = Some(is_in && disclosed.unwrap_or(true));
                }
                _ => {}
            }
        }
        core.map(|core| Self { disclosed, ..core })
    }

    /// The purposes for which it grants something: by consent, and by legitimate interest where that is `ours`.
    pub(super) fn by_consent(&self) -> Purposes {
        if self.vendor_consent {
            self.consents
        } else {
            Purposes::NONE
        }
    }

    /// The purposes for which legitimate interest was not objected to. Purposes 1 and 3 to 6 take consent (TCF 2.2).
    pub(super) fn by_legitimate_interest(&self) -> Purposes {
        if self.vendor_legitimate_interest {
            self.legitimate_interests
                .and(Purposes::of(&[2, 7, 8, 9, 10, 11]))
        } else {
            Purposes::NONE
        }
    }
}

fn read_core(layout: Layout, bits: &mut Bits<'_>, vendor: u16) -> Option<TcString> {
    let version = match layout {
        Layout::Europe => 2,
        Layout::Canada => 1,
    };
    if bits.take(6)? != version {
        return None;
    }
    // Created, last updated: tenths of a second.
    bits.skip(36 + 36)?;
    let cmp_id = u16::try_from(bits.take(12)?).ok()?;
    // The prompt's version, screen and language; versions of the vendor list and of the policy.
    bits.skip(12 + 6 + 12 + 12 + 6)?;
    let service_specific = match layout {
        Layout::Europe => bits.flag()?,
        Layout::Canada => true,
    };
    // Own texts, special features.
    bits.skip(1 + 12)?;
    let consents = Purposes::of_field(bits.take(24)?);
    let legitimate_interests = Purposes::of_field(bits.take(24)?);
    let (purpose_one_undisclosed, publisher_country) = match layout {
        Layout::Europe => (bits.flag()?, [letter(bits.take(6)?), letter(bits.take(6)?)]),
        Layout::Canada => (false, [0, 0]),
    };
    let mut tc = TcString {
        cmp_id,
        service_specific,
        consents,
        legitimate_interests,
        purpose_one_undisclosed,
        publisher_country,
        vendor_consent: in_vendors(bits, vendor)?,
        vendor_legitimate_interest: in_vendors(bits, vendor)?,
        forbidden: Purposes::NONE,
        consent_required: Purposes::NONE,
        legitimate_interest_required: Purposes::NONE,
        disclosed: None,
    };
    match layout {
        Layout::Europe => read_restrictions(bits, vendor, &mut tc)?,
        // They came with version 1.1 of the section, which is told by nothing but that they are there.
        Layout::Canada if bits.left() < 12 => {}
        Layout::Canada => read_restrictions(bits, vendor, &mut tc)?,
    }
    Some(tc)
}

/// A letter of a country; beyond Z there is none, and no country that anybody lists.
fn letter(number: u32) -> u8 {
    u8::try_from(number).map_or(b'?', |number| b'A'.wrapping_add(number))
}

/// Whether the vendor is in a set that is a bit field or a list of ranges, whichever was shorter.
fn in_vendors(bits: &mut Bits<'_>, vendor: u16) -> Option<bool> {
    let highest = bits.number()?;
    if bits.flag()? {
        return in_ranges(bits, vendor);
    }
    if vendor == 0 || vendor > highest {
        bits.skip(usize::from(highest))?;
        return Some(false);
    }
    bits.skip(usize::from(vendor.wrapping_sub(1)))?;
    let is_in = bits.flag()?;
    bits.skip(usize::from(highest.wrapping_sub(vendor)))?;
    Some(is_in)
}

fn in_ranges(bits: &mut Bits<'_>, vendor: u16) -> Option<bool> {
    let mut is_in = false;
    for _ in 0..bits.take(12)? {
        let is_range = bits.flag()?;
        let first = bits.number()?;
        let last = if is_range { bits.number()? } else { first };
        if last < first {
            return None;
        }
        is_in |= (first..=last).contains(&vendor);
    }
    Some(is_in)
}

fn read_restrictions(bits: &mut Bits<'_>, vendor: u16, tc: &mut TcString) -> Option<()> {
    for _ in 0..bits.take(12)? {
        let purpose = Purposes::of(&[u8::try_from(bits.take(6)?).ok()?]);
        let kind = bits.take(2)?;
        if !in_ranges(bits, vendor)? {
            continue;
        }
        let set = match kind {
            1 => &mut tc.consent_required,
            2 => &mut tc.legitimate_interest_required,
            // 3 is not defined: it counts as the strictest.
            _ => &mut tc.forbidden,
        };
        *set = set.or(purpose);
    }
    Some(())
}
