//! The gate: from what a request says about privacy to what may be read of the person.
//!
//! It comes before identity, and the types see to it: ids are collected only by someone who holds an [`Open`], and only
//! [`gate`] makes one. When signals conflict the strictest counts; what cannot be read counts as the strictest value
//! it could have had.
//!
//! Consent strings are not decoded yet: wherever one would have to grant something (GDPR applies, any GPP
//! section), the gate is closed.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::openrtb::{Flag, Request, Signals};

/// When GDPR applies to a request that does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GdprWhenAbsent {
    /// Where the device or the person is in the EEA, the United Kingdom or Switzerland, or a consent string is there.
    #[default]
    ByCountry,
    /// Always.
    Applies,
    /// Never.
    Not,
}

/// The deployment's choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When GDPR applies to a request that does not say.
    pub gdpr_when_absent: GdprWhenAbsent,
    /// Whether `device.dnt` closes the gate as `device.lmt` does.
    pub honor_dnt: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            gdpr_when_absent: GdprWhenAbsent::ByCountry,
            honor_dnt: true,
        }
    }
}

/// Leave to look at the person. Made by [`gate`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open(());

/// What the gate says.
pub type Gate = Result<Open, Closed>;

/// Why the gate is closed. The first that applies, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The person is a child.
    Coppa,
    /// The device limits tracking.
    Lmt,
    /// The browser asks not to be tracked.
    Dnt,
    /// Global Privacy Control.
    Gpc,
    /// `us_privacy` says opted out, or cannot be read.
    UsPrivacy,
    /// A GPP section applies, or may.
    Gpp,
    /// GDPR applies.
    Gdpr,
    /// `regs`, `user`, `device` or an `ext` of theirs cannot be read.
    Unreadable,
}

impl Closed {
    /// Every reason, in the order in which they are tried.
    pub const ALL: [Self; 8] = [
        Self::Coppa,
        Self::Lmt,
        Self::Dnt,
        Self::Gpc,
        Self::UsPrivacy,
        Self::Gpp,
        Self::Gdpr,
        Self::Unreadable,
    ];

    /// The reason's metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coppa => "coppa",
            Self::Lmt => "lmt",
            Self::Dnt => "dnt",
            Self::Gpc => "gpc",
            Self::UsPrivacy => "us_privacy",
            Self::Gpp => "gpp",
            Self::Gdpr => "gdpr",
            Self::Unreadable => "unreadable",
        }
    }

    /// The reason in a sentence, for an explanation.
    pub fn why(self) -> &'static str {
        match self {
            Self::Coppa => "regs.coppa is 1: a child's data is not used",
            Self::Lmt => "device.lmt is 1",
            Self::Dnt => "device.dnt is 1 and privacy.honor_dnt is on",
            Self::Gpc => "Global Privacy Control is set",
            Self::UsPrivacy => "us_privacy says opted out of sale, or cannot be read",
            Self::Gpp => "a GPP string or section is given, and GPP is not decoded yet",
            Self::Gdpr => "GDPR applies, and consent strings are not decoded yet",
            Self::Unreadable => {
                "regs, user or device cannot be read, so what they say about privacy is unknown"
            }
        }
    }
}

/// Whether the person behind a request may be looked at.
pub fn gate(request: &Request<'_>, policy: Policy) -> Gate {
    let signals = &request.signals;
    let closed = Closed::ALL.into_iter().find(|reason| match reason {
        Closed::Coppa => signals.coppa == Flag::Yes,
        Closed::Lmt => signals.lmt == Flag::Yes,
        Closed::Dnt => policy.honor_dnt && signals.dnt == Flag::Yes,
        Closed::Gpc => signals.gpc == Flag::Yes,
        Closed::UsPrivacy => {
            signals.us_privacy.unreadable || signals.us_privacy.iter().any(opted_out)
        }
        Closed::Gpp => signals.gpp.is_present() || signals.gpp_sid.is_present(),
        Closed::Gdpr => gdpr_applies(signals, policy),
        Closed::Unreadable => signals.broken,
    });
    closed.map_or(Ok(Open(())), Err)
}

/// IAB US Privacy String 1: version, notice, opt-out, LSPA, each `Y`, `N` or `-`.
fn opted_out(text: &str) -> bool {
    let [b'1', rest @ ..] = text.as_bytes() else {
        return true;
    };
    let [notice, opt_out, lspa] = rest else {
        return true;
    };
    let known = [notice, opt_out, lspa]
        .into_iter()
        .all(|b| matches!(b, b'Y' | b'N' | b'-' | b'y' | b'n'));
    !known || matches!(opt_out, b'Y' | b'y')
}

fn gdpr_applies(signals: &Signals<'_>, policy: Policy) -> bool {
    match (signals.gdpr, policy.gdpr_when_absent) {
        (Flag::Yes, _) | (Flag::Absent, GdprWhenAbsent::Applies) => true,
        (Flag::No, _) | (Flag::Absent, GdprWhenAbsent::Not) => false,
        (Flag::Absent, GdprWhenAbsent::ByCountry) => {
            signals.consent.is_present()
                || signals.country.unreadable
                || signals.country.iter().any(under_gdpr)
        }
    }
}

/// EEA, United Kingdom and Switzerland, and the parts of them with codes of their own, as alpha-3 and alpha-2.
const UNDER_GDPR: [(&str, &str); 39] = [
    ("AUT", "AT"),
    ("BEL", "BE"),
    ("BGR", "BG"),
    ("HRV", "HR"),
    ("CYP", "CY"),
    ("CZE", "CZ"),
    ("DNK", "DK"),
    ("EST", "EE"),
    ("FIN", "FI"),
    ("FRA", "FR"),
    ("DEU", "DE"),
    ("GRC", "GR"),
    ("HUN", "HU"),
    ("IRL", "IE"),
    ("ITA", "IT"),
    ("LVA", "LV"),
    ("LTU", "LT"),
    ("LUX", "LU"),
    ("MLT", "MT"),
    ("NLD", "NL"),
    ("POL", "PL"),
    ("PRT", "PT"),
    ("ROU", "RO"),
    ("SVK", "SK"),
    ("SVN", "SI"),
    ("ESP", "ES"),
    ("SWE", "SE"),
    ("ISL", "IS"),
    ("LIE", "LI"),
    ("NOR", "NO"),
    ("GBR", "GB"),
    ("CHE", "CH"),
    // Outermost regions and Åland, where EU law applies.
    ("GUF", "GF"),
    ("GLP", "GP"),
    ("MTQ", "MQ"),
    ("MYT", "YT"),
    ("REU", "RE"),
    ("MAF", "MF"),
    ("ALA", "AX"),
];

fn under_gdpr(country: &str) -> bool {
    let country = country.trim();
    UNDER_GDPR.iter().any(|(long, short)| {
        country.eq_ignore_ascii_case(long) || country.eq_ignore_ascii_case(short)
    })
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
    use super::*;
    use bumpalo::Bump;

    fn verdict(fields: &str, policy: Policy) -> Gate {
        let arena = Bump::new();
        let body = arena.alloc_str(&format!(r#"{{"id":"r","imp":[{{"id":"1"}}],{fields}}}"#));
        gate(
            crate::openrtb::read(body.as_bytes(), &arena, 1).expect("a request"),
            policy,
        )
    }

    fn check(fields: &str, want: Option<Closed>) {
        assert_eq!(verdict(fields, Policy::default()).err(), want, "{fields}");
    }

    #[test]
    fn each_signal_closes_the_gate() {
        check(r#""x":1"#, None);
        check(
            r#""regs":{"coppa":0,"gdpr":0,"us_privacy":"1YNN","gpp":"","gpp_sid":[-1]}"#,
            None,
        );
        check(r#""regs":{"coppa":1}"#, Some(Closed::Coppa));
        check(r#""device":{"lmt":"1"}"#, Some(Closed::Lmt));
        check(r#""device":{"dnt":1}"#, Some(Closed::Dnt));
        check(r#""regs":{"ext":{"gpc":"1"}}"#, Some(Closed::Gpc));
        check(r#""regs":{"gpp_sid":[7]}"#, Some(Closed::Gpp));
        check(r#""regs":{"gpp":"DBAA"}"#, Some(Closed::Gpp));
        check(r#""regs":{"gdpr":1}"#, Some(Closed::Gdpr));
        check(r#""regs":{"ext":{"gdpr":true}}"#, Some(Closed::Gdpr));
        check(r#""regs":{"gdpr":0,"ext":{"gdpr":1}}"#, Some(Closed::Gdpr));
        check(r#""regs":"coppa""#, Some(Closed::Unreadable));
    }

    #[test]
    fn us_privacy_that_cannot_be_read_is_an_opt_out() {
        for (text, out) in [
            ("1YNN", false),
            ("1---", false),
            ("1YN-", false),
            ("1YYN", true),
            ("1-Y-", true),
            ("1yyn", true),
            ("1--", true),
            ("1YNNN", true),
            ("2YNN", true),
            ("1YXN", true),
            ("1Y N", true),
            ("é1Y", true),
        ] {
            check(
                &format!(r#""regs":{{"us_privacy":"{text}"}}"#),
                out.then_some(Closed::UsPrivacy),
            );
        }
        check(r#""regs":{"us_privacy":{}}"#, Some(Closed::UsPrivacy));
        check(
            r#""regs":{"us_privacy":"1YNN","ext":{"us_privacy":"1YYN"}}"#,
            Some(Closed::UsPrivacy),
        );
    }

    #[test]
    fn gdpr_unsaid_goes_by_country_or_by_a_consent_string() {
        check(r#""device":{"geo":{"country":"FRA"}}"#, Some(Closed::Gdpr));
        check(r#""device":{"geo":{"country":"gb"}}"#, Some(Closed::Gdpr));
        check(
            r#""device":{"geo":{"country":"USA"}},"user":{"geo":{"country":"CHE"}}"#,
            Some(Closed::Gdpr),
        );
        check(r#""device":{"geo":{"country":"USA"}}"#, None);
        check(r#""device":{"geo":"FRA"}"#, Some(Closed::Gdpr));
        check(
            r#""device":{"geo":{"country":["FRA"]}}"#,
            Some(Closed::Gdpr),
        );
        check(
            r#""device":{"geo":{"country":"FRA"}},"device":{"geo":{"country":"USA"}}"#,
            Some(Closed::Gdpr),
        );
        check(r#""user":{"ext":{"consent":"CP"}}"#, Some(Closed::Gdpr));
        check(r#""user":{"consent":""}"#, None);
        check(
            r#""regs":{"gdpr":0},"user":{"consent":"CP"},"device":{"geo":{"country":"FRA"}}"#,
            None,
        );
        let not = Policy {
            gdpr_when_absent: GdprWhenAbsent::Not,
            ..Policy::default()
        };
        assert!(verdict(r#""device":{"geo":{"country":"FRA"}}"#, not).is_ok());
        let applies = Policy {
            gdpr_when_absent: GdprWhenAbsent::Applies,
            ..Policy::default()
        };
        assert_eq!(verdict(r#""x":1"#, applies).err(), Some(Closed::Gdpr));
    }

    #[test]
    fn dnt_can_be_left_unhonoured() {
        let policy = Policy {
            honor_dnt: false,
            ..Policy::default()
        };
        assert!(verdict(r#""device":{"dnt":1}"#, policy).is_ok());
        assert!(verdict(r#""device":{"dnt":1,"lmt":1}"#, policy).is_err());
    }
}
