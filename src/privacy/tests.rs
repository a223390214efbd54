//! The gate, over strings written here: [`encode`] is the other direction of what the module reads.

pub(crate) mod encode;
mod oracles;
mod strings;

use super::*;
use bumpalo::Bump;

fn verdict(fields: &str, policy: Policy) -> Gate {
    let arena = Bump::new();
    let body = arena.alloc_str(&format!(r#"{{"id":"r","imp":[{{"id":"1"}}],{fields}}}"#));
    let request = crate::openrtb::read(body.as_bytes(), &arena, 1).expect("a request");
    gate(request, &policy, &mut Consents::default())
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
    check(r#""regs":{"gpp":"x"}"#, Some(Closed::Gpp));
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
    for country in ["USA", "XK", "XKX", "QAT", "ABW", "ZAF"] {
        let fields = format!(r#""device":{{"geo":{{"country":"{country}"}}}}"#);
        check(&fields, None);
    }
    check(r#""regs":{"ext":{"coppa":1}}"#, Some(Closed::Coppa));
    check(r#""device":{"geo":"FRA"}"#, Some(Closed::Gdpr));
    // What is no code may be any country.
    for country in [
        r#""UK""#,
        r#""EL""#,
        r#""eu""#,
        r#""GIB""#,
        r#""ZZ""#,
        r#""xxx""#,
        r#""QM""#,
        r#""AAA""#,
        r#""France""#,
        "250",
        r#""F""#,
    ] {
        let fields = format!(r#""device":{{"geo":{{"country":{country}}}}}"#);
        check(&fields, Some(Closed::Gdpr));
    }
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
    assert!(verdict(r#""device":{"dnt":1}"#, policy.clone()).is_ok());
    assert!(verdict(r#""device":{"dnt":1,"lmt":1}"#, policy).is_err());
}
