//! What the fuzz targets do with some bytes. `fuzz/fuzz_targets/` hands them libFuzzer's, `tests/fuzz_targets.rs` the seeds and
//! cheap mutations of them, so that neither can rot.
//!
//! A target panics where a promise is broken, and takes whatever else comes.

use bumpalo::Bump;
use kith::audience::{Audience, Filter, Graph, IDS_PER_PERSON_MAX, Lookup, Version};
use kith::clock::Timestamp;
use kith::ids::{Keyer, SecretKey, UserKey};
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

/// A version file of any bytes, with its lengths and checksums made true, since no fuzzer would guess them: it is refused, or
/// every lookup answers. Memory is taken by the length that the bytes have, whatever they claim: libFuzzer's limit watches.
pub(crate) fn version(bytes: &[u8]) {
    let mut file = bytes.to_vec();
    for _ in 0..2 {
        if let Ok(version) = Version::from_bytes(&file) {
            asked_for(version);
        }
        let kinds = [
            Audience::from_bytes(&file).is_ok(),
            Filter::from_bytes(&file).is_ok(),
            Graph::from_bytes(&file).is_ok(),
        ];
        let is = kinds.into_iter().filter(|is| *is);
        assert!(is.count() < 2, "one file, two kinds");
        // First as it is, then sealed.
        seal(&mut file);
    }
}

/// What a delta among the seeds is over.
const BASE: &[u8] = include_bytes!("seeds/version/few.kith");

fn asked_for(version: Version) {
    let names = version.segments();
    assert!(names.is_sorted_by(|a, b| a.name < b.name));
    match version {
        Version::Audience(file) if file.meta().base.is_some() => {
            let base = Audience::from_bytes(BASE).expect("a seed");
            if let Ok(changed) = base.changed_by(&[*file]) {
                answers(&changed);
                let mut whole = Vec::new();
                if changed.compact(&mut whole).is_ok() {
                    let whole = Audience::from_bytes(&whole).expect("what Kith wrote");
                    assert_eq!(whole.membership_count(), changed.membership_count());
                }
            }
        }
        Version::Audience(file) => answers(&Audience::from(*file)),
        Version::Filter(filter) => {
            for key in keys() {
                assert_ne!(filter.lookup(key), Lookup::Damaged);
            }
            assert!((0.0..=1.0).contains(&filter.set().expected_rate()));
        }
        Version::Graph(graph) => {
            for key in keys() {
                let Some(person) = graph.person(key) else {
                    continue;
                };
                let ids: Vec<UserKey> = person.ids().map(|(id, _)| id).collect();
                assert!((1..=IDS_PER_PERSON_MAX).contains(&ids.len()));
                assert!(person.key() == key || ids.contains(&key));
                for other in ids.into_iter().chain([person.key()]) {
                    let same = graph.person(other).map(|person| person.key());
                    assert_eq!(same, Some(person.key()), "opening has looked up every key");
                }
            }
        }
    }
}

fn answers(audience: &Audience) {
    let segments = audience.segments().len();
    let in_range = |index: u32| assert!((index as usize) < segments);
    for key in keys() {
        for now in [i64::MIN, 0, i64::MAX] {
            let now = Timestamp::from_unix_ms(now);
            let answer = audience.lookup(key, now, in_range);
            assert_ne!(answer, Lookup::Damaged, "opening has walked every record");
        }
        for (index, _) in audience.memberships(key) {
            in_range(index);
        }
    }
}

fn keys() -> impl Iterator<Item = UserKey> {
    let keyer = Keyer::new(&SecretKey::from_bytes([7; 32]));
    (0..20).map(move |n| keyer.user_key("ifa", &format!("u{n}")).expect("a good id"))
}

/// Where the header has the number of sections and their table, and how long an entry and the header are.
const SECTIONS_AT: usize = 140;
const TABLE_AT: usize = 256;
const ENTRY: usize = 24;
const HEADER: usize = 512;
const BLOCK: usize = 1 << 16;

/// Makes the lengths in the header those of the bytes, as far as they leave a choice, and all checksums true: the last section has a
/// checksum for each block before it, and what bytes there are too many or too few are the longest section's.
pub(crate) fn seal(file: &mut [u8]) {
    let Some(body) = file.len().checked_sub(HEADER) else {
        return;
    };
    let sections = usize::from(file[SECTIONS_AT]).clamp(2, 5);
    let put = |file: &mut [u8], at: usize, number: usize| {
        file[at..at + 8].copy_from_slice(&(number as u64).to_le_bytes());
    };
    let entry = |section: usize| TABLE_AT + ENTRY * section;
    let blocks = body.div_ceil(BLOCK + 4);
    let data = body.saturating_sub(4 * blocks);
    let mut lengths: Vec<usize> = (0..sections - 1)
        .map(|section| {
            let bytes = file[entry(section) + 16..][..8].try_into().expect("eight");
            usize::try_from(u64::from_le_bytes(bytes))
                .unwrap_or(0)
                .min(data)
        })
        .collect();
    let longest = (0..lengths.len())
        .max_by_key(|at| lengths[*at])
        .unwrap_or(0);
    let others: usize = lengths.iter().sum::<usize>() - lengths[longest];
    lengths[longest] = data.saturating_sub(others);
    lengths.push(body - data);
    let length = file.len();
    put(file, 16, length);
    let sums: Vec<u8> = file[HEADER..HEADER + data]
        .chunks(BLOCK)
        .flat_map(|block| crc32fast::hash(block).to_le_bytes())
        .collect();
    let room = file[HEADER + data..].iter_mut();
    for (byte, sum) in room.zip(sums) {
        *byte = sum;
    }
    let mut at = HEADER;
    for (section, length) in lengths.into_iter().enumerate() {
        put(file, entry(section) + 8, at);
        put(file, entry(section) + 16, length);
        let end = (at + length).min(file.len());
        let crc = crc32fast::hash(&file[at.min(end)..end]);
        file[entry(section) + 4..][..4].copy_from_slice(&crc.to_le_bytes());
        at += length;
    }
    let crc = crc32fast::hash(&file[..HEADER - 4]);
    file[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
}
