//! Other people's decoders and vectors say the same.
//!
//! `iab_gpp` and `lib_tcstring` expand what they read, so that each vendor can be looked up in what they found; ours is asked
//! for one vendor after the other. Mutated strings are where decoders differ: each difference that is allowed is listed.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use iab_gpp::sections::tcfeuv2::TcfEuV2;
use serde_json::Value;

use super::super::gpp::Gpp;
use super::super::tcf::TcString;
use super::super::us;
use super::encode::{Tc, Vendors, canadian, gpp, us_section};
use super::*;

/// Vendors asked for in each string, beside those that it names.
const VENDORS: std::ops::RangeInclusive<u16> = 1..=800;

/// What two decoders must agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    cmp_id: u16,
    service_specific: bool,
    consents: Vec<u8>,
    interests: Vec<u8>,
    one_undisclosed: bool,
    vendors: BTreeSet<u16>,
    interest_vendors: BTreeSet<u16>,
    /// Vendor, purpose, kind; kinds 0 and 3 both forbid.
    restrictions: BTreeSet<(u16, u8, u8)>,
    disclosed: Option<BTreeSet<u16>>,
}

fn ours(text: &str) -> Option<Facts> {
    let one = TcString::read(text, 1)?;
    let mut facts = Facts {
        cmp_id: one.cmp_id,
        service_specific: one.service_specific,
        consents: one.consents.iter().collect(),
        interests: one.legitimate_interests.iter().collect(),
        one_undisclosed: one.purpose_one_undisclosed,
        vendors: BTreeSet::new(),
        interest_vendors: BTreeSet::new(),
        restrictions: BTreeSet::new(),
        disclosed: one.disclosed.map(|_| BTreeSet::new()),
    };
    for vendor in VENDORS {
        let tc = TcString::read(text, vendor).expect("it was read for another vendor");
        if tc.vendor_consent {
            facts.vendors.insert(vendor);
        }
        if tc.vendor_legitimate_interest {
            facts.interest_vendors.insert(vendor);
        }
        if tc.disclosed == Some(true) {
            facts.disclosed.get_or_insert_default().insert(vendor);
        }
        for (kind, purposes) in [
            (0, tc.forbidden),
            (1, tc.consent_required),
            (2, tc.legitimate_interest_required),
        ] {
            facts
                .restrictions
                .extend(purposes.iter().map(|purpose| (vendor, purpose, kind)));
        }
    }
    Some(facts)
}

fn within(ids: impl IntoIterator<Item = u16>) -> BTreeSet<u16> {
    ids.into_iter().filter(|id| VENDORS.contains(id)).collect()
}

fn purposes(ids: impl IntoIterator<Item = u16>) -> Vec<u8> {
    ids.into_iter()
        .filter_map(|id| u8::try_from(id).ok())
        .collect()
}

fn restricted(list: impl IntoIterator<Item = (u8, u8, Vec<u16>)>) -> BTreeSet<(u16, u8, u8)> {
    let of = |(purpose, kind, vendors): (u8, u8, Vec<u16>)| {
        let kind = if kind == 3 { 0 } else { kind };
        let vendors = within(vendors).into_iter();
        vendors.map(move |vendor| (vendor, purpose, kind))
    };
    let known = list
        .into_iter()
        .filter(|(purpose, ..)| (1..=24).contains(purpose));
    known.flat_map(of).collect()
}

fn by_iab_gpp(text: &str) -> Option<Facts> {
    // In a debug build it panics where sums overflow.
    let read = catch_unwind(AssertUnwindSafe(|| text.parse::<TcfEuV2>().ok()));
    let theirs = read.ok().flatten()?;
    let core = theirs.core;
    Some(Facts {
        cmp_id: core.cmp_id,
        service_specific: core.is_service_specific,
        consents: purposes(core.purpose_consents),
        interests: purposes(core.purpose_legitimate_interests),
        one_undisclosed: core.purpose_one_treatment,
        vendors: within(core.vendor_consents),
        interest_vendors: within(core.vendor_legitimate_interests),
        // It expects a highest vendor and a kind of list before a restriction's ranges, where the specification has neither
        // (section "PubRestrictions"; the vectors agree).
        restrictions: BTreeSet::new(),
        disclosed: theirs.disclosed_vendors.map(within),
    })
}

fn by_lib_tcstring(text: &str) -> Option<Facts> {
    let read = catch_unwind(AssertUnwindSafe(|| {
        lib_tcstring::TcModelV2::try_from(text).ok()
    }));
    let theirs = read.ok().flatten()?;
    let restrictions = theirs
        .publisher_restrictions
        .into_iter()
        .map(|restriction| {
            let kind = restriction.restriction_type as u8;
            (restriction.purpose_id, kind, restriction.vendor_list)
        });
    Some(Facts {
        cmp_id: theirs.cmp_id,
        service_specific: theirs.is_service_specific,
        consents: theirs.purposes_consent,
        interests: theirs.purposes_li_transparency,
        one_undisclosed: theirs.purpose_one_treatment,
        vendors: within(theirs.vendors_consent),
        interest_vendors: within(theirs.vendors_li_consent),
        restrictions: restricted(restrictions),
        // It cannot tell a segment that is not there from an empty one.
        disclosed: Some(within(theirs.disclosed_vendors)),
    })
}

/// How often each of three decoders read a string, and how often one of them saw other facts.
#[derive(Debug, Default)]
struct Tally {
    strings: u32,
    read: [u32; 3],
    /// Ours did not read what both others did.
    only_we_refuse: Vec<String>,
    /// Ours read what neither of the others did.
    only_we_read: Vec<String>,
}

fn compare(text: &str, tally: &mut Tally) {
    let (ours, first, second) = (ours(text), by_iab_gpp(text), by_lib_tcstring(text));
    tally.strings += 1;
    for (count, read) in tally.read.iter_mut().zip([&ours, &first, &second]) {
        *count += u32::from(read.is_some());
    }
    match (&ours, &first, &second) {
        (None, Some(_), Some(_)) => tally.only_we_refuse.push(text.to_owned()),
        (Some(_), None, None) => tally.only_we_read.push(text.to_owned()),
        _ => {}
    }
    let Some(ours) = ours else { return };
    if let Some(second) = second {
        let ours = Facts {
            disclosed: Some(ours.disclosed.clone().unwrap_or_default()),
            ..ours.clone()
        };
        assert_eq!(ours, second, "lib_tcstring: {text}");
    }
    if let Some(first) = first {
        let ours = Facts {
            restrictions: BTreeSet::new(),
            ..ours
        };
        assert_eq!(ours, first, "iab_gpp: {text}");
    }
}

/// Strings of every shape that there is.
fn seeds() -> Vec<String> {
    let mut seeds = Vec::new();
    for (vendors, interest_vendors) in [
        (Vendors::Bits(vec![3, 7, 700]), Vendors::Bits(vec![])),
        (
            Vendors::Ranges(vec![(2, 9), (40, 40), (90, 400)]),
            Vendors::Bits(vec![7]),
        ),
        (
            Vendors::Bits(vec![]),
            Vendors::Ranges(vec![(7, 7), (700, 65_535)]),
        ),
    ] {
        for restrictions in [
            vec![],
            vec![
                (1, 0, vec![(7, 7)]),
                (2, 1, vec![(1, 30), (33, 33)]),
                (10, 2, vec![]),
            ],
            vec![(24, 3, vec![(5, 80)])],
        ] {
            for disclosed in [
                None,
                Some(Vendors::Bits(vec![1, 7])),
                Some(Vendors::Ranges(vec![(7, 90)])),
            ] {
                let tc = Tc {
                    interests: vec![2, 7, 24],
                    one_undisclosed: disclosed.is_none(),
                    vendors: vendors.clone(),
                    interest_vendors: interest_vendors.clone(),
                    restrictions: restrictions.clone(),
                    disclosed,
                    ..Tc::to(&[1, 3, 4, 12])
                };
                seeds.push(tc.text());
            }
        }
    }
    seeds
}

/// The test vectors that lie beside a checkout; none where they do not.
fn vectors() -> Vec<Value> {
    let folder = std::env::var("KITH_CORPUS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/corpus").to_owned());
    let text = std::fs::read_to_string(format!("{folder}/consent_vectors.jsonl"));
    let text = text.unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a vector"))
        .collect()
}

fn string_of(vector: &Value) -> &str {
    vector["string"].as_str().expect("a string")
}

#[test]
fn three_decoders_agree_on_tc_strings_and_on_broken_ones() {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+";
    let mut texts = seeds();
    let is_tc = |vector: &&Value| vector["kind"] == "tcf" || vector["section"] == "TcfEuV2";
    texts.extend(
        vectors()
            .iter()
            .filter(is_tc)
            .map(|vector| string_of(vector).to_owned()),
    );
    let mut tally = Tally::default();
    for text in &texts {
        compare(text, &mut tally);
    }
    assert!(tally.only_we_refuse.is_empty(), "{tally:?}");
    assert!(tally.read[0] as usize >= seeds().len(), "{tally:?}");
    let mut random = fastrand_like(1);
    for _ in 0..4 {
        for text in &texts {
            let mut bytes = text.clone().into_bytes();
            match random() % 3 {
                0 => bytes.truncate(random() as usize % bytes.len()),
                _ => {
                    for _ in 0..=random() % 3 {
                        let at = random() as usize % bytes.len();
                        bytes[at] = ALPHABET[random() as usize % ALPHABET.len()];
                    }
                }
            }
            compare(&String::from_utf8(bytes).expect("ASCII"), &mut tally);
        }
    }
    // A range that ends before it begins is empty to them and the end of the string to us. What follows a core that cannot be
    // told apart, they read on.
    let strings = tally.strings as usize;
    assert!(tally.only_we_refuse.len() < strings / 10, "{tally:?}");
    // The strings made here have more ranges to break than those of the corpus.
    let at_most = if vectors().is_empty() { 4 } else { 10 };
    assert!(tally.only_we_read.len() < strings / at_most, "{tally:?}");
}

/// A small generator of numbers, the same in each run.
fn fastrand_like(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    }
}

/// Whether iab_gpp's section says, in its own words, that somebody has opted out.
fn says_opted_out(debug: &str) -> bool {
    let child = debug
        .split_once("known_child_sensitive_data_consents: ")
        .map_or("", |(_, rest)| {
            let end = match rest.find(['{', ',']) {
                Some(at) if rest.as_bytes()[at] == b'{' => rest.find('}'),
                at => at,
            };
            &rest[..end.unwrap_or(rest.len())]
        });
    [
        "sale_opt_out",
        "sharing_opt_out",
        "targeted_advertising_opt_out",
    ]
    .iter()
    .any(|field| debug.contains(&format!(" {field}: OptedOut")))
        || debug.contains("gpc: Some(true)")
        || child.contains("NoConsent")
}

#[test]
fn us_sections_stand_where_another_decoder_finds_them() {
    use iab_gpp::v1::GPPString;
    // Section, version, fields, and the place of `mspa_covered_transaction`, which must be 1 or 2 for iab_gpp.
    for (section, version, fields, covered) in [
        (7, 1, 27, 24),
        (7, 2, 32, 29),
        (8, 1, 20, 17),
        (9, 1, 17, 14),
        (10, 1, 16, 13),
        (11, 1, 18, 15),
        (12, 1, 19, 16),
        (13, 1, 20, 17),
        (14, 1, 20, 17),
        (15, 1, 23, 20),
        (16, 1, 18, 15),
        (17, 1, 23, 20),
        (18, 1, 18, 15),
        (19, 1, 18, 15),
        (20, 1, 20, 17),
        (21, 1, 24, 21),
        (22, 1, 18, 15),
        (23, 1, 18, 15),
    ] {
        for place in 0..fields {
            for gpc in [None, Some(false), Some(true)] {
                let mut set = vec![(covered, 2)];
                if place != covered {
                    set.push((place, 1));
                }
                // Virginia, Utah and Florida have no segment for Global Privacy Control.
                let gpc = gpc.filter(|_| ![9, 11, 13].contains(&section));
                let text = us_section(version, fields, &set, gpc);
                let whole = gpp(&[(section, text.clone())]);
                let theirs = GPPString::parse_str(&whole).expect("a header");
                let theirs = theirs.decode_all_sections().remove(0).expect("a section");
                let want = says_opted_out(&format!("{theirs:?}"));
                assert_eq!(
                    us::section_opts_out(section, &text),
                    want,
                    "{section} {place} {gpc:?}"
                );
            }
        }
    }
}

#[test]
fn the_vectors_decode_to_their_facts() {
    let vectors = vectors();
    for vector in &vectors {
        let (text, facts) = (string_of(vector), &vector["facts"]);
        match vector["kind"].as_str() {
            Some("tcf") => check_tc(text, facts),
            Some("gpp") => check_gpp(text, facts),
            Some("gpp_section") => check_section(text, vector),
            Some("us_privacy") => {
                let out = facts["opt_out_sale"] == "Y";
                assert_eq!(us::has_opted_out(text), out, "{text}");
            }
            kind => panic!("{kind:?}"),
        }
    }
}

fn numbers(list: &Value) -> Vec<u16> {
    let numbers = list.as_array().into_iter().flatten();
    numbers
        .filter_map(Value::as_u64)
        .filter_map(|n| u16::try_from(n).ok())
        .collect()
}

fn check_tc(text: &str, facts: &Value) {
    let Some(read) = ours(text) else {
        panic!("{text}");
    };
    assert_eq!(facts["cmpId"], read.cmp_id);
    assert_eq!(facts["isServiceSpecific"], read.service_specific);
    assert_eq!(facts["purposeOneTreatment"], read.one_undisclosed);
    assert_eq!(purposes(numbers(&facts["purposeConsents"])), read.consents);
    assert_eq!(
        purposes(numbers(&facts["purposeLegitimateInterests"])),
        read.interests
    );
    assert_eq!(
        within(numbers(&facts["vendorConsents"])),
        read.vendors,
        "{text}"
    );
    assert_eq!(
        within(numbers(&facts["vendorLegitimateInterests"])),
        read.interest_vendors
    );
    assert_eq!(
        within(numbers(&facts["vendorsDisclosed"])),
        read.disclosed.unwrap_or_default()
    );
    let list = facts["pubRestrictions"].as_array().into_iter().flatten();
    let list = list.map(|restriction| {
        let number = |key: &str| {
            restriction[key]
                .as_u64()
                .and_then(|n| u8::try_from(n).ok())
                .expect("a number")
        };
        (
            number("purpose"),
            number("type"),
            numbers(&restriction["vendors"]),
        )
    });
    assert_eq!(restricted(list), read.restrictions, "{text}");
}

/// Purposes as a list of flags.
fn flagged(list: &Value) -> Option<Vec<u8>> {
    let list = list.as_array()?;
    let flags: Option<Vec<bool>> = list.iter().map(Value::as_bool).collect();
    Some(
        (1..)
            .zip(flags?)
            .filter_map(|(purpose, is_in)| is_in.then_some(purpose))
            .collect(),
    )
}

fn check_tc_section(text: &str, facts: &Value) {
    let read = ours(text).unwrap_or_else(|| panic!("{text}"));
    if let Some(consents) = flagged(&facts["PurposeConsents"]) {
        assert_eq!(consents, read.consents, "{text}");
        assert_eq!(
            flagged(&facts["PurposeLegitimateInterests"]),
            Some(read.interests)
        );
        assert_eq!(
            within(numbers(&facts["VendorConsents"])),
            read.vendors,
            "{text}"
        );
        assert_eq!(facts["CmpId"], read.cmp_id);
    }
}

fn check_us_section(section: u8, text: &str, facts: &Value) {
    let opted_out = ["SaleOptOut", "SharingOptOut", "TargetedAdvertisingOptOut"]
        .iter()
        .any(|field| facts[field] == 1);
    let child = &facts["KnownChildSensitiveDataConsents"];
    let child = child == &Value::from(1) || numbers(child).contains(&1);
    let want = opted_out || child || facts["Gpc"] == true;
    assert_eq!(
        us::section_opts_out(section, text),
        want,
        "{section} {text} {facts}"
    );
}

const NAMES: [(&str, u8); 20] = [
    ("tcfeuv2", 2),
    ("tcfcav1", 5),
    ("uspv1", 6),
    ("usnat", 7),
    ("usca", 8),
    ("usva", 9),
    ("usco", 10),
    ("usut", 11),
    ("usct", 12),
    ("usfl", 13),
    ("usmt", 14),
    ("usor", 15),
    ("ustx", 16),
    ("usde", 17),
    ("usia", 18),
    ("usne", 19),
    ("usnh", 20),
    ("usnj", 21),
    ("ustn", 22),
    ("usmn", 23),
];

fn check_named(name: &str, text: &str, facts: &Value) {
    let (_, section) = NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a section");
    match section {
        2 => check_tc_section(text, facts),
        5 => {
            let read = TcString::read_canadian(text, 1).unwrap_or_else(|| panic!("{text}"));
            if let Some(consents) = flagged(&facts["PurposesExpressConsent"]) {
                assert_eq!(consents, read.consents.iter().collect::<Vec<_>>());
                for vendor in VENDORS {
                    let tc = TcString::read_canadian(text, vendor).expect("as before");
                    let listed = numbers(&facts["VendorExpressConsent"]).contains(&vendor);
                    assert_eq!(tc.vendor_consent, listed, "{text} {vendor}");
                }
            }
        }
        6 if facts["OptOutSale"].is_string() => {
            assert_eq!(
                us::has_opted_out(text),
                facts["OptOutSale"] == "Y",
                "{text}"
            );
        }
        6 => {}
        section => check_us_section(*section, text, facts),
    }
}

fn check_gpp(text: &str, facts: &Value) {
    let ids = numbers(&facts["section_ids"]);
    let Some(read) = Gpp::read(text, &Policy::default()) else {
        // A header of one section and a European string of version 1: their decoder gives up silently.
        assert!(ids.is_empty(), "{text}");
        return;
    };
    if !ids.is_empty() {
        assert!(read.sections().map(u16::from).eq(ids), "{text}");
    }
    let parts = text.split('~').skip(1);
    for (section, part) in read.sections().zip(parts) {
        let name = NAMES.iter().find(|(_, number)| *number == section);
        if let Some((name, _)) = name
            && let facts @ Value::Object(_) = &facts["sections"][name]
        {
            check_named(name, part, facts);
        }
    }
}

fn check_section(text: &str, vector: &Value) {
    let name = vector["section"]
        .as_str()
        .expect("a name")
        .to_ascii_lowercase();
    check_named(&name, text, &vector["facts"]);
}

#[test]
fn a_canadian_string_is_read_as_another_decoder_reads_it() {
    let text = canadian(&[1, 2, 9]);
    let theirs: iab_gpp::sections::tcfcav1::TcfCaV1 = text.parse().expect("a section");
    let ours = TcString::read_canadian(&text, 7).expect("a section");
    assert_eq!(
        purposes(theirs.core.purpose_express_consents),
        ours.consents.iter().collect::<Vec<_>>()
    );
    assert!(ours.vendor_consent && theirs.core.vendor_express_consents.contains(&7));
    assert!(TcString::read_canadian(&text, 6).is_some_and(|tc| !tc.vendor_consent));
}
