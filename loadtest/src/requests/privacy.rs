//! What a request says about privacy, in every home and form that exchanges use.
//!
//! Most say that the person may be looked at; a small share says no, in each of the ways there are. Strings are
//! well formed: TCF 2.3 with the disclosed-vendors segment, GPP with the sections of US states, us_privacy.
//! A GDPR request always carries a string that refuses, so that it closes a gate whether or not strings are decoded.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::text::Text;
use crate::dice::Dice;

/// The share of requests whose person may be looked at.
pub const OPEN_SHARE: f64 = 0.9;

/// How the request says what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signals {
    /// Nothing but `coppa: 0`.
    Quiet,
    /// us_privacy: did not opt out.
    UsNoOptOut,
    /// GDPR does not apply, and the string is sent all the same.
    GdprNot,
    /// GPP: no section applies.
    GppNone,
    Coppa,
    Lmt,
    Dnt,
    Gpc,
    UsOptOut,
    GppOptOut,
    GdprRefused,
}

impl Signals {
    pub(super) fn drawn(dice: &mut Dice) -> Self {
        if dice.chance(OPEN_SHARE) {
            dice.weighted(&[
                (Self::Quiet, 25),
                (Self::UsNoOptOut, 35),
                (Self::GdprNot, 25),
                (Self::GppNone, 15),
            ])
        } else {
            dice.weighted(&[
                (Self::Coppa, 5),
                (Self::Lmt, 25),
                (Self::Dnt, 8),
                (Self::Gpc, 7),
                (Self::UsOptOut, 15),
                (Self::GppOptOut, 15),
                (Self::GdprRefused, 25),
            ])
        }
    }

    /// `regs`. Before 2.6 all but coppa was in `ext`; some send both.
    pub(super) fn regs(self, t: &mut Text, old: bool, dice: &mut Dice) {
        let both = dice.chance(0.1);
        t.object("regs", |t| {
            t.int("coppa", i64::from(self == Self::Coppa));
            if !old || both {
                self.members(t);
            }
            if old || both || self == Self::Gpc {
                t.object("ext", |t| {
                    if old || both {
                        self.members(t);
                    }
                    if self == Self::Gpc {
                        t.text("gpc", "1");
                    }
                });
            }
        });
    }

    fn members(self, t: &mut Text) {
        match self {
            Self::UsNoOptOut => t.text("us_privacy", "1YNN"),
            Self::UsOptOut => t.text("us_privacy", "1YYN"),
            Self::GdprNot => t.int("gdpr", 0),
            Self::GdprRefused => t.int("gdpr", 1),
            Self::GppNone => {
                t.text("gpp", "");
                t.numbers("gpp_sid", &[-1]);
            }
            Self::GppOptOut => {
                t.text("gpp", &gpp_us_national());
                t.numbers("gpp_sid", &[7]);
            }
            Self::Quiet | Self::Coppa | Self::Lmt | Self::Dnt | Self::Gpc => {}
        }
    }

    /// The consent string that goes with it, for `user.consent` or `user.ext.consent`.
    pub(super) fn consent(self, dice: &mut Dice) -> Option<String> {
        match self {
            Self::GdprNot if dice.chance(0.5) => Some(tc_string(true, dice)),
            Self::GdprRefused => Some(tc_string(false, dice)),
            _ => None,
        }
    }
}

/// Bits, most significant first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    fn put(&mut self, value: u64, width: u32) {
        for place in (0..width).rev() {
            if self.len.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> place & 1) as u8) << (7 - self.len % 8);
            }
            self.len += 1;
        }
    }

    /// Two letters, six bits each.
    fn letters(&mut self, text: &str) {
        text.bytes()
            .for_each(|b| self.put(u64::from(b.to_ascii_uppercase().saturating_sub(b'A')), 6));
    }

    fn text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(&self.bytes)
    }
}

/// A TC string: IAB Europe's Transparency and Consent String v2, core and disclosed vendors. Grants all to everybody, or
/// nothing to anybody.
fn tc_string(grants: bool, dice: &mut Dice) -> String {
    const VENDORS: u32 = 96;
    // In tenths of a second: a day from spring to summer 2026.
    let day = 17_675_712_000 + dice.within(60..=180) as u64 * 864_000;
    let all = |width: u32| if grants { (1u64 << width) - 1 } else { 0 };
    let mut core = Bits::default();
    core.put(2, 6);
    core.put(day, 36);
    core.put(day, 36);
    core.put(dice.below(400) as u64 + 2, 12);
    core.put(1, 12);
    core.put(1, 6);
    core.letters("EN");
    core.put(180, 12);
    core.put(5, 6);
    core.put(1, 1);
    core.put(0, 1);
    core.put(if grants { 0b11 << 10 } else { 0 }, 12);
    // Eleven purposes of 24.
    core.put(all(11) << 13, 24);
    core.put(if grants { 0b01_0000_1111 << 14 } else { 0 }, 24);
    core.put(0, 1);
    core.letters("FR");
    let vendors = |bits: &mut Bits, set: bool| {
        bits.put(u64::from(VENDORS), 16);
        bits.put(0, 1);
        (0..VENDORS).for_each(|_| bits.put(u64::from(set), 1));
    };
    vendors(&mut core, grants);
    vendors(&mut core, grants);
    core.put(0, 12);
    let mut disclosed = Bits::default();
    disclosed.put(1, 3);
    vendors(&mut disclosed, true);
    format!("{}.{}", core.text(), disclosed.text())
}

/// A GPP string with the US national section: opted out of sale, sharing and targeted advertising.
fn gpp_us_national() -> String {
    let mut core = Bits::default();
    core.put(1, 6);
    // Notices given; opted out; sensitive data not applicable; no child; covered, by opt-out.
    [1, 1, 1, 1, 0, 0, 1, 1, 1]
        .into_iter()
        .for_each(|value| core.put(value, 2));
    core.put(0, 24);
    core.put(0, 4);
    [0, 1, 1, 2]
        .into_iter()
        .for_each(|value| core.put(value, 2));
    // `DBABLA` is the header that names section 7 alone; `QA` the segment that says: no Global Privacy Control.
    format!("DBABLA~{}.QA", core.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Read by a library that is not ours.
    #[test]
    fn strings_are_read_by_others() {
        use iab_gpp::sections::{Section, SectionId, tcfeuv2::TcfEuV2};
        let mut dice = Dice::new(1, 1);
        for grants in [true, false] {
            let tc: TcfEuV2 = tc_string(grants, &mut dice).parse().expect("a TC string");
            assert_eq!(tc.core.policy_version, 5);
            assert_eq!(tc.core.purpose_consents.len(), if grants { 11 } else { 0 });
            assert_eq!(tc.core.vendor_consents.len(), if grants { 96 } else { 0 });
            assert_eq!(tc.disclosed_vendors.map(|vendors| vendors.len()), Some(96));
        }
        let gpp: iab_gpp::v1::GPPString = gpp_us_national().parse().expect("a GPP string");
        assert_eq!(
            gpp.section_ids().copied().collect::<Vec<_>>(),
            [SectionId::UsNat]
        );
        let Ok(Section::UsNat(us)) = gpp.decode_section(SectionId::UsNat) else {
            unreachable!("the section is read");
        };
        assert!(
            format!("{us:?}").contains("sale_opt_out: OptedOut"),
            "{us:?}"
        );
    }
}
