//! What the fuzz targets do with some bytes. `fuzz/fuzz_targets/` hands them libFuzzer's, `tests/fuzz_targets.rs` the seeds and
//! cheap mutations of them, so that neither can rot.
//!
//! A target panics where a promise is broken, and takes whatever else comes.

use bumpalo::Bump;
use kith::openrtb::{ASSETS_MAX, BadRequest, Request, read};
use kith::privacy::{self, Consents, GdprWhenAbsent, Policy, Purposes, Registration};
use serde::de::IgnoredAny;
use serde_json::Value;

const IMPS_MAX: usize = 128;
/// The oracle gives up here, we at `openrtb::json::DEPTH_MAX`.
const ORACLE_DEPTH: usize = 127;
/// Most bytes of the arena for each byte of a body, and for an empty one. The shortest imp, `{},`, is the dearest.
const ARENA_PER_BYTE: usize = 512;
const ARENA_BASE: usize = 256 << 10;

/// The reader takes any bytes: it does not panic, knows JSON as serde_json does, and its memory is bounded by the body.
pub(crate) fn request(body: &[u8]) {
    let arena = Bump::new();
    let outcome = read(body, &arena, IMPS_MAX);
    let most = ARENA_BASE + body.len() * ARENA_PER_BYTE;
    assert!(
        arena.allocated_bytes() <= most,
        "{} bytes of arena",
        arena.allocated_bytes()
    );
    if let Ok(request) = outcome {
        look_at(request, &arena);
    }
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    if depth(text) > ORACLE_DEPTH {
        return;
    }
    let is_json = !matches!(
        outcome,
        Err(BadRequest::NotJson { .. } | BadRequest::NotText)
    );
    assert_eq!(
        is_json,
        serde_json::from_str::<IgnoredAny>(text).is_ok(),
        "whether it is JSON"
    );
    // Where serde_json can hold the whole (it takes no lone surrogate and no 1e999), it says what id and imp are.
    let Ok(tree) = serde_json::from_str::<Value>(text) else {
        return;
    };
    let has_id = match &tree["id"] {
        Value::String(id) => !id.is_empty(),
        other => other.is_number(),
    };
    let has_imp = tree["imp"].as_array().is_some_and(|imps| !imps.is_empty());
    assert_eq!(
        outcome.is_ok(),
        has_id && has_imp,
        "whether it is a request"
    );
    if let (Ok(request), Value::String(id)) = (outcome, &tree["id"]) {
        assert_eq!(request.id, id);
    }
}

fn look_at(request: &Request<'_>, arena: &Bump) {
    assert!(!request.id.is_empty() && request.imp.len() <= IMPS_MAX);
    assert!(request.unreadable.iter().count() <= 128);
    let segments = request.user.data.segments(arena, 16).unwrap_or(&[]);
    assert!(segments.len() <= 16);
}

/// A native request within a request: any bytes as its document. It is read or not without a panic, the same as a text or as an
/// object, and only where serde_json finds it JSON too.
pub(crate) fn native(document: &[u8]) {
    let text = String::from_utf8_lossy(document);
    if depth(&text) > ORACLE_DEPTH {
        return;
    }
    let as_text =
        asked(&Value::from(&*text).to_string()).expect("a text makes no request malformed");
    if as_text.is_some() {
        assert!(
            serde_json::from_str::<IgnoredAny>(&text).is_ok(),
            "asked for by what is no JSON"
        );
    }
    if text.trim_start().starts_with('{')
        && let Ok(as_object) = asked(&text)
    {
        assert_eq!(as_object, as_text);
    }
}

/// What a request with this `native.request` asks for, in words.
fn asked(document: &str) -> Result<Option<String>, BadRequest> {
    let arena = Bump::new();
    let body = format!(r#"{{"id":"r","imp":[{{"id":"1","native":{{"request":{document}}}}}]}}"#);
    let request = read(body.as_bytes(), &arena, 1)?;
    let native = request.imp.first().and_then(|imp| imp.native);
    Ok(native.and_then(|native| native.ask(&arena)).map(|ask| {
        assert!(!ask.assets.is_empty() && ask.assets.len() <= ASSETS_MAX);
        format!("{ask:?}")
    }))
}

/// How deep brackets go, strings left out.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut inside, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = inside,
            b'"' => inside = !inside,
            b'{' | b'[' if !inside => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !inside => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The gate takes any request: it does not panic, says the same with a warm cache, and a stricter policy opens it for nothing
/// more. What is no request is taken for consent strings, one a line: for `user.consent`, `regs.gpp`, `regs.us_privacy`.
pub(crate) fn gate(body: &[u8]) {
    let arena = Bump::new();
    if let Ok(request) = read(body, &arena, IMPS_MAX) {
        compare(request);
        return;
    }
    let text = String::from_utf8_lossy(body);
    let mut lines = text.lines();
    let mut next = || Value::from(lines.next().unwrap_or_default()).to_string();
    let (consent, gpp, us_privacy) = (next(), next(), next());
    for regs in [
        format!(r#"{{"gdpr":1,"gpp":{gpp},"us_privacy":{us_privacy}}}"#),
        format!(r#"{{"gpp":{gpp}}}"#),
        format!(r#"{{"gpp":{gpp},"gpp_sid":[2,5,7,8]}}"#),
    ] {
        let body = format!(
            r#"{{"id":"r","imp":[{{"id":"1"}}],"user":{{"consent":{consent}}},"regs":{regs}}}"#
        );
        let arena = Bump::new();
        compare(read(body.as_bytes(), &arena, 1).expect("a request"));
    }
}

/// Asks under each policy, and under one that is stricter in one point.
fn compare(request: &Request<'_>) {
    let all = Registration {
        consent: Purposes::ALL,
        legitimate_interest: Purposes::of(&[2, 7, 8, 9, 10]),
        flexible: Purposes::of(&[2, 7]),
    };
    let ours = Policy {
        vendor_id: 7,
        gdpr_when_absent: GdprWhenAbsent::Not,
        honor_dnt: false,
        purpose_one_undisclosed: Box::new([*b"DE"]),
        registration: Some(all),
        ..Policy::default()
    };
    let stricter = [
        Policy {
            vendor_id: 0,
            ..ours.clone()
        },
        Policy {
            tcf_strict: true,
            ..ours.clone()
        },
        Policy {
            honor_dnt: true,
            ..ours.clone()
        },
        Policy {
            gdpr_when_absent: GdprWhenAbsent::ByCountry,
            ..ours.clone()
        },
        Policy {
            gdpr_when_absent: GdprWhenAbsent::Applies,
            ..ours.clone()
        },
        Policy {
            purpose_one_undisclosed: Box::default(),
            ..ours.clone()
        },
    ];
    let mut consents = Consents::default();
    let opens_for = |policy: &Policy, consents: &mut Consents| {
        let cold = privacy::gate(request, policy, consents);
        assert_eq!(
            privacy::gate(request, policy, consents),
            cold,
            "asked twice"
        );
        cold.map_or(Purposes::NONE, |open| open.granted())
    };
    let most = opens_for(&ours, &mut consents);
    for policy in &stricter {
        let granted = opens_for(policy, &mut consents);
        assert!(
            most.covers(granted),
            "{granted:?} of {most:?} under {policy:?}"
        );
    }
}
