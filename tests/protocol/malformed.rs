//! JSONTestSuite: what is not JSON is never taken for a request, wherever it stands; what is JSON never hurts its neighbours.

use base64::Engine as _;
use bumpalo::Bump;
use kith::openrtb::{BadRequest, read};
use serde_json::Value;

use crate::world::corpus;

struct Case {
    name: String,
    expect: String,
    bytes: Vec<u8>,
}

impl Case {
    fn is_text(&self) -> bool {
        std::str::from_utf8(&self.bytes).is_ok()
    }
}

/// The suite; without it some of the same kind, so that this runs everywhere.
fn cases() -> Vec<Case> {
    let own = [
        ("y_array_empty", &b"[]"[..]),
        ("y_string_escapes", br#"["\"\\\/\b\f\n\r\t\u00e9"]"#),
        ("y_object_twice", br#"{"a":1,"a":2}"#),
        ("n_array_comma", b"[1,]"),
        ("n_number_leading_zero", b"[012]"),
        ("n_string_control", b"[\"a\x01\"]"),
        ("n_structure_open", b"[{\"a\":"),
        ("n_single_quote", b"['a']"),
        ("n_trailing", b"{\"a\":1}}"),
        ("n_invalid_utf8_outside", b"[\xff]"),
        ("i_lone_surrogate", br#"["\ud800"]"#),
        ("i_huge_number", b"[1e9999]"),
    ];
    let expect = |name: &str| match name.as_bytes().first() {
        Some(b'y') => "accept",
        Some(b'n') => "reject",
        _ => "implementation-defined",
    };
    let mut cases: Vec<Case> = own
        .iter()
        .map(|(name, bytes)| Case {
            name: (*name).to_owned(),
            expect: expect(name).to_owned(),
            bytes: bytes.to_vec(),
        })
        .collect();
    for line in corpus("json_malformed.jsonl").unwrap_or_default() {
        let case: Value = serde_json::from_str(&line).expect("JSON");
        let text = |key: &str| case[key].as_str().expect("text").to_owned();
        cases.push(Case {
            name: text("name"),
            expect: text("expect"),
            bytes: base64::prelude::BASE64_STANDARD
                .decode(text("base64"))
                .expect("base64"),
        });
    }
    cases
}

/// What is not JSON and still leaves the request readable: the documented exceptions of `docs/conformance.md`.
fn is_lost_alone(case: &Case) -> bool {
    // A string that is not UTF-8 is unreadable, and nothing else.
    !case.is_text()
}

#[test]
fn as_a_body_none_is_a_request_and_what_is_json_is_known_as_json() {
    for case in cases() {
        let arena = Bump::new();
        let reason = read(&case.bytes, &arena, 8).err();
        let is_no_json = matches!(
            reason,
            Some(BadRequest::NotJson { .. } | BadRequest::NotText)
        );
        match case.expect.as_str() {
            "accept" => assert!(reason.is_some() && !is_no_json, "{}: {reason:?}", case.name),
            "reject" if !is_lost_alone(&case) => assert!(is_no_json, "{}: {reason:?}", case.name),
            _ => assert!(reason.is_some(), "{}", case.name),
        }
    }
}

/// Where it is put: a field that nobody reads, or one that is read, of each kind; `#` is where it goes.
const UNREAD: [&str; 3] = [
    r##"{"id":"r","imp":[{"id":"1","ext":#}],"user":{"id":"u"},"tmax":99}"##,
    r##"{"id":"r","imp":[{"id":"1"}],"ext":{"deep":[{"er":#}]},"user":{"id":"u"},"tmax":99}"##,
    r##"{"id":"r","imp":[{"id":"1"}],"allimps":#,"user":{"id":"u"},"tmax":99}"##,
];
const READ: [&str; 12] = [
    r##"{"id":"r","imp":[{"id":"1"}],"user":{"id":"u","buyeruid":#},"tmax":99}"##,
    r##"{"id":"r","imp":[{"id":"1"}],"user":{"id":"u","keywords":#},"tmax":99}"##,
    r##"{"id":"r","imp":[{"id":"1"}],"user":{"id":"u","eids":#},"tmax":99}"##,
    r##"{"id":"r","imp":[{"id":"1"}],"user":{"id":"u","data":#},"tmax":99}"##,
    r##"{"id":"r","imp":[{"id":"1"}],"user":{"id":"u","consent":#},"tmax":99}"##,
    r##"{"id":"r","imp":[{"id":"1","bidfloor":#}],"user":{"id":"u"},"tmax":99}"##,
    r##"{"id":"r","imp":[{"id":"1","secure":#}],"user":{"id":"u"},"tmax":99}"##,
    r##"{"id":"r","imp":[{"id":"1","banner":{"w":#}}],"user":{"id":"u"},"tmax":99}"##,
    r##"{"id":"r","imp":[{"id":"1","pmp":{"deals":#}}],"user":{"id":"u"},"tmax":99}"##,
    r##"{"id":"r","imp":[{"id":"1"}],"bcat":#,"user":{"id":"u"},"tmax":99}"##,
    r##"{"id":"r","imp":[{"id":"1"}],"regs":{"gpp_sid":#},"user":{"id":"u"},"tmax":99}"##,
    r##"{"id":"r","imp":[{"id":"1"}],"device":{"geo":#},"user":{"id":"u"},"tmax":99}"##,
];

#[test]
fn within_a_field_it_is_that_field_or_no_request() {
    let cases = cases();
    for place in UNREAD.iter().chain(&READ) {
        let (before, after) = place.split_once('#').expect("a place");
        for case in &cases {
            let body = [before.as_bytes(), &case.bytes, after.as_bytes()].concat();
            let arena = Bump::new();
            let what = format!("{} in {place}", case.name);
            let request = match read(&body, &arena, 8) {
                Ok(request) => request,
                Err(reason) => {
                    assert_ne!(case.expect, "accept", "{what}: {reason}");
                    continue;
                }
            };
            assert!(case.expect != "reject" || is_lost_alone(case), "{what}");
            // Its neighbours are read as ever.
            assert_eq!((request.id, request.user.id), ("r", Some("u")), "{what}");
            assert_eq!(
                (request.imp.len(), request.tmax_ms),
                (1, Some(99)),
                "{what}"
            );
            if UNREAD.contains(place) {
                assert!(request.unreadable.is_empty(), "{what}");
            }
            // Every case is a list or an object, but for a few bare values: no text, number or flag comes of it.
            if matches!(case.bytes.first(), Some(b'[' | b'{')) {
                let imp = &request.imp[0];
                let absent = (
                    request.user.buyeruid,
                    imp.floor.amount.value(),
                    imp.secure.value(),
                );
                assert_eq!(absent, (None, None, None), "{what}");
            }
        }
    }
}
