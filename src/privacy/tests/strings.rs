//! What strings grant, from one rule of theirs to the next.

use super::encode::{Tc, Vendors, canadian, gpp, us_section};
use super::*;

fn ours() -> Policy {
    Policy {
        vendor_id: 7,
        ..Policy::default()
    }
}

/// What a request under GDPR with this TC string grants; none where the gate is closed.
fn granted(text: &str, policy: &Policy) -> Vec<u8> {
    let fields = format!(r#""regs":{{"gdpr":1}},"user":{{"consent":"{text}"}}"#);
    let open = verdict(&fields, policy.clone());
    open.map_or(Vec::new(), |open| open.granted().iter().collect())
}

fn grants(tc: &Tc, policy: &Policy) -> Vec<u8> {
    granted(&tc.text(), policy)
}

#[test]
fn consent_takes_our_vendor_bit_and_the_purpose() {
    assert_eq!(grants(&Tc::to(&[1, 3, 4, 24]), &ours()), [1, 3, 4, 24]);
    assert!(grants(&Tc::to(&[]), &ours()).is_empty());
    let others = Tc {
        vendors: Vendors::Bits(vec![6, 8]),
        ..Tc::to(&[1, 3, 4])
    };
    assert!(grants(&others, &ours()).is_empty());
    for vendor_id in [0, 8, 65_535] {
        let policy = Policy {
            vendor_id,
            ..Policy::default()
        };
        assert!(
            grants(&Tc::to(&[1, 3, 4]), &policy).is_empty(),
            "{vendor_id}"
        );
    }
}

#[test]
fn vendors_are_found_in_fields_and_in_ranges() {
    for (ranges, want) in [
        (vec![(7, 7)], true),
        (vec![(1, 65_535)], true),
        (vec![(1, 6), (8, 9)], false),
        (vec![(1, 2), (5, 7)], true),
        (vec![(5, 9), (1, 7), (7, 7)], true),
        (vec![], false),
    ] {
        let tc = Tc {
            vendors: Vendors::Ranges(ranges.clone()),
            ..Tc::to(&[1])
        };
        assert_eq!(!grants(&tc, &ours()).is_empty(), want, "{ranges:?}");
    }
    // A range that ends before it begins makes the whole string one that cannot be read.
    let backwards = Tc {
        vendors: Vendors::Ranges(vec![(7, 7), (9, 8)]),
        ..Tc::to(&[1])
    };
    assert!(grants(&backwards, &ours()).is_empty());
}

#[test]
fn publishers_restrict_purposes() {
    let everything: Vec<u8> = (1..=10).collect();
    let restricted = |kind| Tc {
        interests: everything.clone(),
        interest_vendors: Vendors::Bits(vec![7]),
        restrictions: vec![(2, kind, vec![(7, 7)]), (4, kind, vec![(1, 6), (8, 9)])],
        ..Tc::to(&everything)
    };
    let without_two = [1, 3, 4, 5, 6, 7, 8, 9, 10];
    // Without a vendor list: 0 forbids, 1 asks for the consent that is there, 2 for an interest that we do not claim.
    assert_eq!(grants(&restricted(0), &ours()), without_two);
    assert_eq!(grants(&restricted(1), &ours()), everything);
    assert_eq!(grants(&restricted(2), &ours()), without_two);
    // 3 is not defined.
    assert_eq!(grants(&restricted(3), &ours()), without_two);
}

#[test]
fn a_registration_decides_on_which_ground() {
    let registered = |consent: &[u8], interest: &[u8], flexible: &[u8]| Policy {
        registration: Some(Registration {
            consent: Purposes::of(consent),
            legitimate_interest: Purposes::of(interest),
            flexible: Purposes::of(flexible),
        }),
        ..ours()
    };
    let said = |consents: &[u8], interests: &[u8], restriction: Option<(u8, u8)>| Tc {
        interests: interests.to_vec(),
        interest_vendors: Vendors::Bits(vec![7]),
        restrictions: restriction
            .into_iter()
            .map(|(purpose, kind)| (purpose, kind, vec![(7, 7)]))
            .collect(),
        ..Tc::to(consents)
    };
    // (registered for consent, interest, flexible), (consents, interests, restriction), granted
    type Case = (
        [&'static [u8]; 3],
        (&'static [u8], &'static [u8], Option<(u8, u8)>),
        &'static [u8],
    );
    let cases: [Case; 15] = [
        ([&[1, 2], &[], &[]], (&[1, 2, 3], &[], None), &[1, 2]),
        ([&[1], &[2, 7], &[]], (&[1], &[2, 7], None), &[1, 2, 7]),
        ([&[1], &[2], &[]], (&[1, 2], &[], None), &[1]),
        // Interest is never a ground for 1 and 3 to 6.
        (
            [&[], &[1, 2, 3, 4, 5, 6, 7], &[]],
            (&[], &[1, 2, 3, 4, 5, 6, 7], None),
            &[2, 7],
        ),
        // Restricted to consent.
        ([&[1], &[2], &[]], (&[1, 2], &[2], Some((2, 1))), &[1]),
        ([&[1], &[2], &[2]], (&[1, 2], &[2], Some((2, 1))), &[1, 2]),
        ([&[1], &[2], &[2]], (&[1], &[2], Some((2, 1))), &[1]),
        ([&[1, 2], &[], &[2]], (&[1, 2], &[2], Some((2, 1))), &[1, 2]),
        // Restricted to interest.
        ([&[1, 2], &[], &[]], (&[1, 2], &[2], Some((2, 2))), &[1]),
        ([&[1, 2], &[], &[2]], (&[1, 2], &[2], Some((2, 2))), &[1, 2]),
        ([&[1, 2], &[], &[2]], (&[1, 2], &[], Some((2, 2))), &[1]),
        ([&[1], &[2], &[]], (&[1], &[2], Some((2, 2))), &[1, 2]),
        ([&[1, 3], &[], &[3]], (&[1, 3], &[3], Some((3, 2))), &[1]),
        // Forbidden, on whichever ground.
        ([&[1], &[2], &[2]], (&[1, 2], &[2], Some((2, 0))), &[1]),
        ([&[1, 2], &[], &[2]], (&[1, 2], &[2], Some((2, 0))), &[1]),
    ];
    for ([consent, interest, flexible], (consents, interests, restriction), want) in cases {
        let policy = registered(consent, interest, flexible);
        let tc = said(consents, interests, restriction);
        assert_eq!(grants(&tc, &policy), want, "{policy:?} {restriction:?}");
    }
    let both = Tc {
        restrictions: vec![(2, 1, vec![(7, 7)]), (2, 2, vec![(7, 7)])],
        ..said(&[1, 2], &[2], None)
    };
    assert_eq!(grants(&both, &registered(&[1, 2], &[], &[2])), [1]);
}

#[test]
fn purpose_one_where_it_was_not_asked_for() {
    let tc = Tc {
        one_undisclosed: true,
        country: *b"DE",
        ..Tc::to(&[1, 3])
    };
    assert_eq!(grants(&tc, &ours()), [3]);
    let in_germany = Policy {
        purpose_one_undisclosed: Box::new([*b"DE"]),
        ..ours()
    };
    assert_eq!(grants(&tc, &in_germany), [1, 3]);
    let elsewhere = Tc {
        country: *b"FR",
        ..tc
    };
    assert_eq!(grants(&elsewhere, &in_germany), [3]);
}

#[test]
fn the_rules_of_2_3_are_behind_a_switch() {
    let strict = Policy {
        tcf_strict: true,
        ..ours()
    };
    let shown = |disclosed: Option<Vec<u16>>, service_specific| Tc {
        disclosed: disclosed.map(Vendors::Bits),
        service_specific,
        ..Tc::to(&[1])
    };
    for (tc, by_default, strictly) in [
        (shown(Some(vec![7]), true), true, true),
        (shown(Some(vec![7]), false), true, false),
        (shown(None, true), true, false),
        // It says to whom it was disclosed, and it was not to us.
        (shown(Some(vec![6]), true), false, false),
    ] {
        assert_eq!(!grants(&tc, &ours()).is_empty(), by_default);
        assert_eq!(!grants(&tc, &strict).is_empty(), strictly);
    }
}

#[test]
fn segments_come_in_any_order_and_with_padding() {
    let tc = Tc {
        disclosed: Some(Vendors::Ranges(vec![(7, 7)])),
        ..Tc::to(&[1])
    };
    let strict = Policy {
        tcf_strict: true,
        ..ours()
    };
    let mut segments = tc.segments();
    assert_eq!(granted(&segments.join("."), &strict), [1]);
    segments.reverse();
    assert_eq!(granted(&segments.join("."), &strict), [1]);
    assert_eq!(granted(&format!("{}==", tc.segments()[0]), &ours()), [1]);
    let twice = format!("{0}.{0}", tc.segments()[0]);
    assert!(granted(&twice, &ours()).is_empty());
}

#[test]
fn what_is_no_tc_string_grants_nothing() {
    let good = Tc::to(&[1, 3, 4]).text();
    assert_eq!(granted(&good, &ours()), [1, 3, 4]);
    for length in 0..good.len() {
        let cut = granted(&good[..length], &ours());
        // Only bits that fill the last character may go.
        assert!(cut.is_empty() || length + 1 >= good.len(), "{length}");
    }
    let old = Tc {
        version: 1,
        ..Tc::to(&[1, 3, 4])
    };
    assert!(grants(&old, &ours()).is_empty());
    for cmp_id in [0, 1] {
        let tc = Tc {
            cmp_id,
            ..Tc::to(&[1, 3, 4])
        };
        assert!(grants(&tc, &ours()).is_empty(), "{cmp_id}");
    }
    for text in [
        "abcdef",
        "CONSENT_STRING",
        "BOEFEAyOEFEAyAHABDENAI4AAAB9vABAASA",
        "D",
        ".",
        "..",
        "C",
        " ",
        "CPé",
        "DBACNY~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA~1YNN",
    ] {
        assert!(granted(text, &ours()).is_empty(), "{text}");
        assert!(granted(&format!("{good}.{text}"), &ours()).len() <= 3);
    }
}

#[test]
fn of_two_strings_both_count() {
    let one = Tc::to(&[1, 3, 4]).text();
    let other = Tc::to(&[1, 2, 3]).text();
    let fields = |a: &str, b: &str| {
        format!(r#""regs":{{"gdpr":1}},"user":{{"consent":"{a}","ext":{{"consent":"{b}"}}}}"#)
    };
    let open = verdict(&fields(&one, &other), ours()).expect("open");
    assert_eq!(open.granted().iter().collect::<Vec<_>>(), [1, 3]);
    let open = verdict(&fields(&one, &one), ours()).expect("open");
    assert!(open.is_limited() && open.may(Purposes::PROFILE));
    for bad in ["x", "CONSENT_STRING"] {
        let closed = verdict(&fields(&one, bad), ours());
        assert_eq!(closed.err(), Some(Closed::Gdpr), "{bad}");
    }
    let not = verdict(r#""regs":{"gdpr":0},"user":{"consent":"x"}"#, ours());
    assert!(not.is_ok_and(|open| !open.is_limited()));
}

fn with_gpp(text: &str, sids: &str) -> Gate {
    let sids = match sids {
        "" => String::new(),
        sids => format!(r#","gpp_sid":{sids}"#),
    };
    verdict(&format!(r#""regs":{{"gpp":"{text}"{sids}}}"#), ours())
}

#[test]
fn only_sections_that_apply_count() {
    let text = gpp(&[
        (2, Tc::to(&[1, 4]).text()),
        (5, canadian(&[1, 2])),
        (6, "1YYN".to_owned()),
        (7, us_section(1, 27, &[(6, 2)], None)),
    ]);
    let granted = |sids| -> Result<Vec<u8>, Closed> {
        with_gpp(&text, sids).map(|open| open.granted().iter().collect())
    };
    assert_eq!(granted("[2]"), Ok(vec![1, 4]));
    assert_eq!(granted("[5]"), Ok(vec![1, 2]));
    assert_eq!(granted("[5,0]"), Ok(vec![1, 2]));
    assert_eq!(granted("[2,5]"), Ok(vec![1]));
    assert_eq!(granted("[6]"), Err(Closed::Gpp));
    assert_eq!(granted("[7]"), Ok((1..=24).collect()));
    assert_eq!(granted("[-1]"), Ok((1..=24).collect()));
    assert_eq!(granted("[7,-1]"), Ok((1..=24).collect()));
    // Listed and not there; not known; unreadable.
    for sids in ["[8]", "[1]", "[3]", "[40]", "[64]", "[\"x\"]", "\"x\""] {
        assert_eq!(granted(sids), Err(Closed::Gpp), "{sids}");
    }
    // Nobody says which apply, or says it before it is known: all that are there.
    assert_eq!(granted("[0]"), Err(Closed::Gpp));
    assert_eq!(granted(""), Err(Closed::Gpp));
    let open = gpp(&[
        (2, Tc::to(&[1, 4]).text()),
        (7, us_section(1, 27, &[], None)),
    ]);
    let open = with_gpp(&open, "").expect("open");
    assert_eq!(open.granted(), Purposes::of(&[1, 4]));
}

#[test]
fn the_european_section_is_the_consent() {
    let text = gpp(&[(2, Tc::to(&[1, 3, 4]).text())]);
    let with = |sid: &str, gdpr: &str, consent: &str| {
        verdict(
            &format!(
                r#""regs":{{"gpp":"{text}","gpp_sid":{sid}{gdpr}}},"user":{{"consent":"{consent}"}}"#
            ),
            ours(),
        )
        .map(|open| open.granted().iter().collect::<Vec<_>>())
    };
    assert_eq!(with("[2]", "", ""), Ok(vec![1, 3, 4]));
    // It applies whatever the flag says, and another string counts too.
    assert_eq!(with("[2]", r#","gdpr":0"#, ""), Ok(vec![1, 3, 4]));
    let other = Tc::to(&[1, 2]).text();
    assert_eq!(with("[2]", r#","gdpr":1"#, &other), Ok(vec![1]));
    assert_eq!(with("[2]", "", "nonsense"), Err(Closed::Gdpr));
    // The flag without the section: the string's section grants nothing, and takes away.
    assert_eq!(with("[-1]", r#","gdpr":1"#, ""), Err(Closed::Gdpr));
    assert_eq!(with("[-1]", r#","gdpr":1"#, &other), Ok(vec![1]));
}

#[test]
fn purpose_one_is_not_asked_for_in_canada() {
    let granted = |purposes: &[u8]| -> Result<Vec<u8>, Closed> {
        with_gpp(&gpp(&[(5, canadian(purposes))]), "[5]")
            .map(|open| open.granted().iter().collect())
    };
    assert_eq!(granted(&[3, 4]), Ok(vec![1, 3, 4]));
    // Nor is it an answer to anything else.
    assert_eq!(granted(&[1]), Err(Closed::Gpp));
    assert_eq!(granted(&[]), Err(Closed::Gpp));
}

#[test]
fn a_canadian_string_that_is_cut_short_is_none() {
    let whole = canadian(&[1, 3]);
    let is_open = |text: &str| with_gpp(&gpp(&[(5, text.to_owned())]), "[5]").is_ok();
    assert!(is_open(&whole));
    // Without its restrictions it is one of version 1.0.
    assert!(is_open(&whole[..whole.len() - 2]));
    // Two restrictions are announced, and there are none.
    let cut = format!("{}{}", &whole[..whole.len() - 1], "C");
    assert!(!is_open(&cut), "{cut}");
}

#[test]
fn a_gpp_string_that_cannot_be_read_closes_the_gate() {
    let good = gpp(&[(6, "1YNN".to_owned())]);
    assert!(with_gpp(&good, "[6]").is_ok());
    for text in [
        "x",
        "~",
        "é",
        &good[..5],
        &format!("{good}~1YNN"),
        &Tc::to(&[1]).text(),
        "DBABrw~BVVVVVVVVWA.AA~1YNN~x",
    ] {
        assert_eq!(with_gpp(text, "[6]").err(), Some(Closed::Gpp), "{text}");
        assert_eq!(with_gpp(text, "[-1]").err(), Some(Closed::Gpp), "{text}");
    }
    let two = format!(
        r#""regs":{{"gpp":"{good}","gpp_sid":[6],"ext":{{"gpp":"{}"}}}}"#,
        gpp(&[(6, "1YYN".to_owned())])
    );
    assert_eq!(verdict(&two, ours()).err(), Some(Closed::Gpp));
}

#[test]
fn each_us_section_is_asked_for_opt_outs() {
    // Section, version, fields, opt-outs, children.
    type Row = (u8, u8, usize, &'static [usize], &'static [usize]);
    let table: [Row; 18] = [
        (7, 1, 27, &[6, 7, 8], &[21, 22]),
        (7, 2, 32, &[6, 7, 8], &[25, 26, 27]),
        (8, 1, 20, &[3, 4], &[14, 15]),
        (9, 1, 17, &[3, 4], &[13]),
        (10, 1, 16, &[3, 4], &[12]),
        (11, 1, 18, &[4, 5], &[14]),
        (12, 1, 19, &[3, 4], &[13, 14, 15]),
        (13, 1, 20, &[3, 4], &[13, 14, 15]),
        (14, 1, 20, &[3, 4], &[13, 14, 15]),
        (15, 1, 23, &[3, 4], &[16, 17, 18]),
        (16, 1, 18, &[3, 4], &[13]),
        (17, 1, 23, &[3, 4], &[14, 15, 16, 17, 18]),
        (18, 1, 18, &[4, 5], &[14]),
        (19, 1, 18, &[3, 4], &[13]),
        (20, 1, 20, &[3, 4], &[13, 14, 15]),
        (21, 1, 24, &[3, 4], &[15, 16, 17, 18, 19]),
        (22, 1, 18, &[3, 4], &[13]),
        (23, 1, 18, &[3, 4], &[13]),
    ];
    for (section, version, fields, opt_outs, children) in table {
        let is_open = |set: &[(usize, u8)], gpc| {
            let text = gpp(&[(section, us_section(version, fields, set, gpc))]);
            with_gpp(&text, &format!("[{section}]")).is_ok()
        };
        assert!(is_open(&[], None) && is_open(&[], Some(false)), "{section}");
        assert!(!is_open(&[], Some(true)), "{section}");
        for place in 0..fields {
            let closes = opt_outs.contains(&place) || children.contains(&place);
            assert_eq!(is_open(&[(place, 1)], None), !closes, "{section}: {place}");
            assert_eq!(is_open(&[(place, 3)], None), !closes, "{section}: {place}");
            assert!(is_open(&[(place, 2)], None), "{section}: {place}");
        }
        // Cut short, or of a version that nobody knows.
        let whole = us_section(version, fields, &[], None);
        let cut = gpp(&[(section, whole[..whole.len() - 2].to_owned())]);
        assert!(with_gpp(&cut, &format!("[{section}]")).is_err());
        let unknown = gpp(&[(section, us_section(9, fields, &[], None))]);
        assert!(with_gpp(&unknown, &format!("[{section}]")).is_err());
    }
    let later = gpp(&[(24, us_section(1, 20, &[], None))]);
    assert_eq!(with_gpp(&later, "[24]").err(), Some(Closed::Gpp));
}

#[test]
fn ranges_cost_their_length_and_nothing_more() {
    // Every range is all vendors: 268 million ids, were they written out.
    let wide = Tc {
        vendors: Vendors::Ranges(vec![(1, 65_535); 4_095]),
        interest_vendors: Vendors::Ranges(vec![(1, 65_535); 4_095]),
        restrictions: (0..200)
            .map(|n| (n % 24 + 1, 1, vec![(1, 65_535); 20]))
            .collect(),
        ..Tc::to(&[1, 3])
    };
    let text = wide.text();
    let begun = std::time::Instant::now();
    assert_eq!(granted(&text, &ours()), [1, 3]);
    assert!(
        begun.elapsed() < std::time::Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_string_is_decoded_once() {
    let mut consents = Consents::default();
    let policy = ours();
    let text = Tc::to(&[1, 3, 4]).text();
    let all = gpp(&[(2, text.clone())]);
    for _ in 0..3 {
        assert_eq!(consents.tcf(&text, &policy), Purposes::PROFILE);
        assert!(consents.gpp(&all, &policy).is_some());
        assert!(consents.gpp(&text, &policy).is_none());
        assert_eq!(consents.tcf("nonsense", &policy), Purposes::NONE);
    }
    assert_eq!(consents.decoded(), 4);
    // Under another policy the same string says something else.
    assert_eq!(consents.tcf(&text, &Policy::default()), Purposes::NONE);
    assert_eq!(consents.tcf(&text, &policy), Purposes::PROFILE);
    // Thousands of others take its place, one that is too long never has one, and every answer is right.
    for round in 0..2 {
        for n in 0..5_000u16 {
            let tc = Tc {
                vendors: Vendors::Ranges(vec![(n % 13, n % 13 + 1), (20, n + 20)]),
                ..Tc::to(&[1])
            };
            let want = (n % 13..=n % 13 + 1).contains(&7);
            assert_eq!(
                !consents.tcf(&tc.text(), &policy).is_empty(),
                want,
                "{round} {n}"
            );
        }
    }
    let long = Tc {
        vendors: Vendors::Bits(vec![7, 60_000]),
        ..Tc::to(&[1])
    };
    let before = consents.decoded();
    for _ in 0..2 {
        assert_eq!(consents.tcf(&long.text(), &policy), Purposes::of(&[1]));
    }
    assert_eq!(consents.decoded(), before + 2);
}
