//! The gate: from what a request says about privacy to what may be read of the person.
//!
//! It comes before identity, and the types see to it: ids are collected only by someone who holds an [`Open`], and only
//! [`gate`] makes one. When signals conflict the strictest counts; what cannot be read counts as the strictest value
//! it could have had.
//!
//! Where nothing speaks against it the gate is open for all purposes. Where GDPR applies it is open for the purposes
//! that the TC string grants to our vendor id, and datasets say which they need (`[datasets.x] purposes`); in the
//! United States an opt-out closes it, in Canada its own TC string says. Each consent string is decoded once and
//! remembered ([`Consents`]).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod bits;
mod consents;
mod gpp;
mod purposes;
mod tcf;
mod us;
mod vendors;

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
pub(crate) mod tests;

pub use consents::Consents;
pub use purposes::Purposes;
pub use vendors::{Registration, VendorListError};

use crate::openrtb::{Flag, Request, Signals};
use tcf::TcString;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// When GDPR applies to a request that does not say.
    pub gdpr_when_absent: GdprWhenAbsent,
    /// Whether `device.dnt` closes the gate as `device.lmt` does.
    pub honor_dnt: bool,
    /// Ours in the Global Vendor List; 0: no string can grant us anything.
    pub vendor_id: u16,
    /// What we have registered there. Unknown: consent for every purpose, and legitimate interest for none.
    pub registration: Option<Registration>,
    /// TCF 2.3: a string must be for this publisher, and say that we were disclosed.
    pub tcf_strict: bool,
    /// Countries of publishers, upper case, in which purpose 1 need not be asked for where it was not disclosed.
    pub purpose_one_undisclosed: Box<[[u8; 2]]>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            gdpr_when_absent: GdprWhenAbsent::ByCountry,
            honor_dnt: true,
            vendor_id: 0,
            registration: None,
            tcf_strict: false,
            purpose_one_undisclosed: Box::default(),
        }
    }
}

impl Policy {
    /// What a European TC string grants us: for each purpose the ground that we have registered, or the publisher asks
    /// for where we are flexible (TCF 2.2, "Publisher restrictions").
    fn granted(&self, tc: &TcString) -> Purposes {
        // 0 and 1 are no consent management platforms: test strings, and strings made by hand.
        let is_of_a_platform = tc.cmp_id > 1;
        let is_ours = self.vendor_id != 0;
        // A string that says to whom it was disclosed, and not to us, does not mean us with what else it says.
        let is_disclosed = match tc.disclosed {
            Some(disclosed) => disclosed && (tc.service_specific || !self.tcf_strict),
            None => !self.tcf_strict,
        };
        if !(is_of_a_platform && is_ours && is_disclosed) {
            return Purposes::NONE;
        }
        let one = Purposes::of(&[1]);
        let mut consented = tc.by_consent();
        if tc.purpose_one_undisclosed {
            consented = consented.without(one);
            let country = &tc.publisher_country;
            if tc.vendor_consent && self.purpose_one_undisclosed.contains(country) {
                consented = consented.or(one);
            }
        }
        let (consent, interest) = self.grounds(tc);
        let by_consent = consent.and(consented);
        let by_interest = interest.and(tc.by_legitimate_interest());
        by_consent.or(by_interest).without(tc.forbidden)
    }

    /// The purposes that need consent, and those that legitimate interest is claimed for, under the publisher's
    /// restrictions. One that is restricted to both has no ground.
    fn grounds(&self, tc: &TcString) -> (Purposes, Purposes) {
        let to_consent = tc.consent_required;
        let to_interest = tc.legitimate_interest_required;
        let Some(ours) = self.registration else {
            return (Purposes::ALL.without(to_interest), Purposes::NONE);
        };
        let flexible = ours.legitimate_interest.or(ours.consent).and(ours.flexible);
        let consent = ours.consent.without(to_interest);
        let interest = ours.legitimate_interest.without(to_consent);
        let both = to_consent.and(to_interest);
        (
            consent.or(flexible.and(to_consent)).without(both),
            interest.or(flexible.and(to_interest)).without(both),
        )
    }

    /// What a Canadian TC string grants us: express consent alone. Its bit for purpose 1 is not used (GPP, "IAB Canada TCF",
    /// `PurposesExpressConsent`): who consents to any purpose is not asked about that one, and the publisher may still forbid
    /// it.
    fn granted_in_canada(&self, tc: &TcString) -> Purposes {
        if self.vendor_id == 0 || tc.cmp_id <= 1 {
            return Purposes::NONE;
        }
        let without_restricted = |purposes: Purposes| {
            purposes
                .without(tc.forbidden)
                .without(tc.legitimate_interest_required)
        };
        let one = Purposes::of(&[1]);
        let consented = without_restricted(tc.by_consent().without(one));
        if consented == Purposes::NONE {
            return Purposes::NONE;
        }
        consented.or(without_restricted(one))
    }
}

/// Leave to look at the person, for some purposes, at least one. Made by [`gate`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    granted: Purposes,
}

impl Open {
    /// The purposes that are granted.
    pub fn granted(self) -> Purposes {
        self.granted
    }

    /// Whether something may be read that needs these purposes.
    pub fn may(self, needed: Purposes) -> bool {
        self.granted.covers(needed)
    }

    /// Whether some purpose that there is was not granted.
    pub fn is_limited(self) -> bool {
        !self.may(Purposes::DEFINED)
    }
}

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
    /// `regs`, `user`, `device`, `regs.ext` or `user.ext` cannot be read.
    Unreadable,
    /// A GPP section that applies denies or is missing, or the string cannot be read.
    Gpp,
    /// GDPR applies, and nothing is granted.
    Gdpr,
    /// The person told us.
    OptedOut,
}

impl Closed {
    /// Every reason, in the order in which they are tried.
    pub const ALL: [Self; 9] = [
        Self::Coppa,
        Self::Lmt,
        Self::Dnt,
        Self::Gpc,
        Self::UsPrivacy,
        Self::Unreadable,
        Self::Gpp,
        Self::Gdpr,
        Self::OptedOut,
    ];

    /// The reason's metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coppa => "coppa",
            Self::Lmt => "lmt",
            Self::Dnt => "dnt",
            Self::Gpc => "gpc",
            Self::UsPrivacy => "us_privacy",
            Self::Unreadable => "unreadable",
            Self::Gpp => "gpp",
            Self::Gdpr => "gdpr",
            Self::OptedOut => "opted_out",
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
            Self::Unreadable => {
                "regs, user or device cannot be read, so what they say about privacy is unknown"
            }
            Self::Gpp => {
                "a GPP section that applies says opted out, grants us nothing or is missing, or the GPP string cannot be read"
            }
            Self::Gdpr => {
                "GDPR applies, and no TC string is there that can be read and grants our vendor id (privacy.vendor_id) a purpose"
            }
            Self::OptedOut => "the person opted out here (POST /v1/optouts)",
        }
    }
}

/// For what the person behind a request may be looked at.
pub fn gate(request: &Request<'_>, policy: &Policy, consents: &mut Consents) -> Gate {
    let signals = &request.signals;
    let says = |flag: Flag| flag == Flag::Yes;
    let opted_out =
        || signals.us_privacy.unreadable || signals.us_privacy.iter().any(us::has_opted_out);
    for (closed, reason) in [
        (says(signals.coppa), Closed::Coppa),
        (says(signals.lmt), Closed::Lmt),
        (policy.honor_dnt && says(signals.dnt), Closed::Dnt),
        (says(signals.gpc), Closed::Gpc),
        (opted_out(), Closed::UsPrivacy),
        (signals.broken, Closed::Unreadable),
    ] {
        if closed {
            return Err(reason);
        }
    }
    let gpp = read_gpp(signals, policy, consents)?;
    let mut granted = Purposes::ALL;
    if gpp.eu_applies || gdpr_applies(signals, policy) {
        granted = by_tc_strings(signals, policy, consents, gpp.eu).and(gpp.eu_at_most);
        if granted.is_empty() {
            return Err(Closed::Gdpr);
        }
    }
    granted = granted.and(gpp.ca);
    if granted.is_empty() {
        return Err(Closed::Gpp);
    }
    Ok(Open { granted })
}

/// What the GPP sections that apply say, where none of them closes the gate.
struct GppSays {
    /// The European section applies.
    eu_applies: bool,
    /// What it grants where it applies.
    eu: Option<Purposes>,
    /// Where GDPR applies for another reason, no more than it grants where it is there.
    eu_at_most: Purposes,
    /// What the Canadian section grants; everything where it does not apply.
    ca: Purposes,
}

/// Of two different strings both count. Where nobody says which sections apply, those do that are there.
fn read_gpp(
    signals: &Signals<'_>,
    policy: &Policy,
    consents: &mut Consents,
) -> Result<GppSays, Closed> {
    let mut says = GppSays {
        eu_applies: false,
        eu: None,
        eu_at_most: Purposes::ALL,
        ca: Purposes::ALL,
    };
    let listed = &signals.gpp_sid;
    if signals.gpp.unreadable || listed.unreadable {
        return Err(Closed::Gpp);
    }
    let mut strings: usize = 0;
    for text in signals.gpp.iter() {
        strings = strings.saturating_add(1);
        let gpp = consents.gpp(text, policy).ok_or(Closed::Gpp)?;
        if gpp.sections().any(|section| section == gpp::TCF_EU) {
            says.eu_at_most = says.eu_at_most.and(gpp.eu);
        }
        let said: &mut dyn Iterator<Item = u8> = if listed.are_known() {
            &mut listed.iter()
        } else {
            &mut gpp.sections()
        };
        for section in said {
            match section {
                gpp::TCF_EU => {
                    says.eu_applies = true;
                    let before = says.eu.unwrap_or(Purposes::ALL);
                    says.eu = Some(before.and(gpp.eu));
                }
                gpp::TCF_CA => says.ca = says.ca.and(gpp.ca),
                other if gpp.denies(other) => return Err(Closed::Gpp),
                _ => {}
            }
        }
    }
    // What is said to apply and was not sent at all.
    if strings == 0 && listed.is_present() {
        return Err(Closed::Gpp);
    }
    Ok(says)
}

/// What all TC strings of a request grant, wherever they stand; nothing where there is none.
fn by_tc_strings(
    signals: &Signals<'_>,
    policy: &Policy,
    consents: &mut Consents,
    in_gpp: Option<Purposes>,
) -> Purposes {
    if signals.consent.unreadable {
        return Purposes::NONE;
    }
    let mut granted = in_gpp;
    for text in signals.consent.iter() {
        let before = granted.unwrap_or(Purposes::ALL);
        granted = Some(before.and(consents.tcf(text, policy)));
    }
    granted.unwrap_or(Purposes::NONE)
}

fn gdpr_applies(signals: &Signals<'_>, policy: &Policy) -> bool {
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
const UNDER_GDPR: [(&str, &str); 43] = [
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
    // Where the same law applies, or one of the same text.
    ("BLM", "BL"),
    ("GIB", "GI"),
    ("SJM", "SJ"),
    ("FXX", "FX"),
];

/// Codes that are none, and are sent for the United Kingdom, Greece and all of the union.
const UNDER_GDPR_BESIDES: [&str; 3] = ["UK", "EL", "EU"];

/// Whether a country is one of them. What is no code may be any country.
fn under_gdpr(country: &str) -> bool {
    let country = country.trim();
    let is_code =
        (2..=3).contains(&country.len()) && country.bytes().all(|b| b.is_ascii_alphabetic());
    let mut besides = UNDER_GDPR_BESIDES.iter();
    if !is_code || besides.any(|code| country.eq_ignore_ascii_case(code)) {
        return true;
    }
    let is_listed = UNDER_GDPR.iter().any(|(long, short)| {
        country.eq_ignore_ascii_case(long) || country.eq_ignore_ascii_case(short)
    });
    is_listed || is_nobodys(country)
}

/// Whether a code is one that ISO 3166 gives to no country, so that `ZZ`, say, stands for an unknown one. Kosovo is not
/// unknown.
fn is_nobodys(code: &str) -> bool {
    if ["XK", "XKX"]
        .iter()
        .any(|kosovo| code.eq_ignore_ascii_case(kosovo))
    {
        return false;
    }
    let mut letters = code.bytes().map(|letter| letter.to_ascii_uppercase());
    matches!(
        (letters.next(), letters.next()),
        (Some(b'A'), Some(b'A'))
            | (Some(b'Q'), Some(b'M'..=b'Z'))
            | (Some(b'X'), Some(_))
            | (Some(b'Z'), Some(b'Z'))
    )
}
