//! Requests of public test suites: each has one defined answer, which follows from a few rules alone.

use serde_json::Value;

use crate::metamorphic::world_of;
use crate::world::corpus;

/// What becomes of a body as a whole.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// 400.
    Malformed,
    /// A no-bid because of what the request is.
    Invalid,
    /// It is decided on; who bids is for the line items to say.
    Served,
}

/// The rules of `docs/http.md` and `docs/decision.md`, read off a tree that serde_json made.
fn expected(request: &Value) -> Answer {
    let has_id = match &request["id"] {
        Value::String(id) => !id.is_empty(),
        Value::Number(_) => true,
        _ => false,
    };
    let Some(imps) = request["imp"]
        .as_array()
        .filter(|imps| has_id && !imps.is_empty())
    else {
        return Answer::Malformed;
    };
    let places = ["site", "app", "dooh"].iter();
    let is_there = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    let several = places.filter(|place| is_there(&request[**place])).count() > 1;
    let ids: Vec<String> = imps
        .iter()
        .filter_map(|imp| match &imp["id"] {
            Value::String(id) if !id.is_empty() => Some(id.clone()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        })
        .collect();
    let repeated = (1..)
        .zip(&ids)
        .any(|(next, id)| ids.iter().skip(next).any(|other| other == id));
    if several || repeated {
        Answer::Invalid
    } else {
        Answer::Served
    }
}

/// Asks about each, and says how many were answered how.
fn check(requests: &[Value]) -> [usize; 3] {
    let world = world_of(requests);
    let mut counts = [0; 3];
    for request in requests {
        let body = request.to_string();
        let answer = match world.told(&body) {
            Err(_) => Answer::Malformed,
            Ok(told) if told.outcome == "invalid" => Answer::Invalid,
            Ok(told) => {
                let imps = request["imp"].as_array().expect("imps");
                let ids: Vec<_> = imps.iter().filter_map(|imp| imp["id"].as_str()).collect();
                for bid in &told.bids {
                    assert!(
                        ids.iter().any(|id| bid.starts_with(&format!("{id} "))),
                        "{bid}: {body}"
                    );
                }
                Answer::Served
            }
        };
        assert_eq!(answer, expected(request), "{body}");
        counts[answer as usize] += 1;
    }
    counts
}

fn lines(file: &str) -> Option<Vec<Value>> {
    let lines = corpus(file)?;
    Some(
        lines
            .iter()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect(),
    )
}

#[test]
fn every_real_request_has_its_answer() {
    if let Some(requests) = lines("requests.jsonl") {
        let [malformed, _, served] = check(&requests);
        assert_eq!(malformed, 0);
        assert!(served > 2_000, "{served}");
    }
}

#[test]
fn a_request_without_id_or_imp_is_malformed_and_no_other() {
    if let Some(requests) = lines("requests_nonconforming.jsonl") {
        let [malformed, invalid, served] = check(&requests);
        assert!(
            malformed > 0 && served > 0 && invalid == 0,
            "{malformed} {invalid} {served}"
        );
    }
}

#[test]
fn what_an_exchange_refuses_a_bidder_may_serve() {
    let Some(cases) = lines("validation_cases.jsonl") else {
        return;
    };
    let requests: Vec<Value> = cases.iter().map(|case| case["request"].clone()).collect();
    let [malformed, invalid, _] = check(&requests);
    assert!(malformed > 0 && invalid > 0);
    let world = world_of(&requests);
    let of = |file: &str| {
        let case = cases.iter().find(|case| case["file"] == file);
        &case.expect(file)["request"]
    };
    for file in [
        "regs-ext-malformed.json",
        "regs-gdpr-invalid.json",
        "user-ext-consent-int.json",
        "user-gdpr-consent-invalid.json",
    ] {
        let told = world.told(of(file).to_string()).expect("a request");
        assert!(
            told.gate != "open" && told.lookups == 0,
            "{file}: {}",
            told.gate
        );
    }
    for file in [
        "banner-no-size.json",
        "banner-w-negative.json",
        "format-empty-object.json",
        "video-empty.json",
        "native-empty.json",
    ] {
        let told = world.told(of(file).to_string()).expect("a request");
        assert!(
            ["size", "format"].contains(&told.outcome),
            "{file}: {}",
            told.outcome
        );
    }
    for (file, want) in [
        ("null.json", Answer::Malformed),
        ("site-dooh-both.json", Answer::Invalid),
        ("no-site-or-app-or-dooh.json", Answer::Served),
    ] {
        assert_eq!(expected(of(file)), want, "{file}");
    }
    // What it takes is never malformed to us.
    for case in cases
        .iter()
        .filter(|case| case["expectedReturnCode"] == 200)
    {
        assert_ne!(expected(&case["request"]), Answer::Malformed, "{case}");
    }
}
