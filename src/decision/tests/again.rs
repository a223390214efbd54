//! A second decision on what is kept of a request is the first one. Every test of decisions asks for it ([`check`]).

use super::*;
use crate::openrtb::{abridge, abridged};

/// What is compared of a bid. Markup is not where the request brings strings that it repeats.
fn shown(bid: &Proposal<'_>, with_markup: bool) -> String {
    let (line_item, creative) = (&bid.line_item.id, &bid.creative.id);
    let markup = if with_markup { bid.adm } else { "" };
    format!(
        "{} {line_item} {creative} {} {} {:?} {:?} {:?} {:?} {:?} {:?} {} {markup}",
        bid.imp,
        bid.seat,
        bid.price,
        bid.deal,
        bid.size,
        bid.slotinpod,
        bid.exp,
        bid.flex,
        bid.multiplier,
        bid.dsa.is_some(),
    )
}

/// Decides on a request again as it would be kept, and compares.
pub(super) fn check(
    generation: &Generation,
    exchange: &Exchange,
    request: &Request<'_>,
    decision: &Decision<'_>,
    scratch: &Scratch,
) {
    let Some(leave) = is_sampled(decision, request, scratch) else {
        return;
    };
    let arena = Bump::new();
    let (keys, seen) = seen(generation, exchange, request, leave, &arena);
    let mut room = vec![0; 1 << 16];
    let length = abridge(request, &seen, &mut room, &arena).expect("room");
    let kept = abridged(&room[..length], &arena).expect("readable");
    let again = decide_again(
        generation,
        exchange,
        &kept,
        leave,
        &keys,
        NOW.parse().expect("a time"),
        &arena,
        &mut Scratch::default(),
    );
    let signals = &request.signals;
    let with_markup = !signals.consent.is_present() && !signals.gpp.is_present();
    let all = |of: &Decision<'_>| {
        let bids = of.outcome.map(|bids| {
            let shown = bids.iter().map(|bid| shown(bid, with_markup));
            shown.collect::<Vec<_>>()
        });
        (of.currency, bids)
    };
    assert_eq!(all(&again), all(decision));
    for length in 0..length {
        assert!(
            abridged(&room[..length], &arena).is_none(),
            "cut at {length}"
        );
    }
    let few = room.get_mut(..length - 1).expect("less");
    assert_eq!(abridge(request, &seen, few, &arena), None);
}

fn item(id: &str, targeting: &str) -> Value {
    json!({"id": id, "targeting": targeting, "creatives": ["box"], "price": {"cpm": "2", "currency": "USD"}})
}

/// What of a request says who it was: each must be gone.
const IDS: [&str; 24] = [
    "request-id-0000",
    "imp-id-0000",
    "user-id-0000",
    "buyer-uid-0000",
    "eid-uid-0000",
    "eid-ext-0000",
    "uidapi.com",
    "inserter.example",
    "11111111-2222-3333-4444-555555555555",
    "did-sha1-0000",
    "198.51.100.77",
    "2001:db8::77",
    "SM-G991B-0000",
    "model-0000",
    "CPXxRfAPXxRfA",
    "DBABMA",
    "1YNN-0000",
    "seller-0000",
    "52.5200",
    "Kreuzberg-0000",
    "10997",
    "transaction-0000",
    "page.example/?email=",
    "kw-0000",
];

#[test]
fn nothing_of_the_person_is_kept() {
    let fields = json!({
        "id": IDS[0],
        "imp": [{"id": IDS[1], "banner": {"w": 300, "h": 250}, "ext": {"tid": IDS[21]}}],
        "user": {"id": IDS[2], "buyeruid": IDS[3], "yob": 1971, "gender": "F", "keywords": "kw-0000,boots",
            "eids": [{"source": IDS[6], "inserter": IDS[7], "uids": [{"id": IDS[4], "atype": 3}]}],
            "data": [{"id": "eid-uid-0000", "segment": [{"id": "kw-0000"}]}],
            "ext": {"eids": [{"source": IDS[6], "uids": [{"id": IDS[5]}]}], "other": IDS[2]}},
        "device": {"ifa": IDS[8], "didsha1": IDS[9], "ip": IDS[10], "ipv6": IDS[11], "model": IDS[13],
            "ua": format!("Mozilla/5.0 (Linux; Android 14; {}) Chrome/120.0 Safari/537.36", IDS[12]),
            "geo": {"country": "DEU", "city": IDS[19], "zip": IDS[20], "lat": 52.5200, "lon": 13.4},
            "sua": {"browsers": [{"brand": "Google Chrome", "version": ["120", IDS[13]]}], "model": IDS[13]}},
        "site": {"domain": "news.example", "page": "https://page.example/?email=a@b.example", "ref": IDS[2]},
        "regs": {"gdpr": 0, "us_privacy": "1---", "ext": {"x": IDS[16]}},
        "source": {"tid": IDS[21], "schain": {"complete": 1, "nodes": [{"asi": "x.example", "sid": IDS[17]}]}},
        "ext": {"ids": IDS},
    });
    let kept = |targeting: &str| {
        let world = World::new(
            json!([item("a", targeting)]),
            &[("crm", "source,id,segments\nbuyeruid,buyer-uid-0000,vip\n")],
        );
        let exchange = world.config.exchanges.get("demo").expect("the exchange");
        let arena = Bump::new();
        let body = fields.to_string();
        let request = crate::openrtb::read(body.as_bytes(), &arena, 16).expect("a request");
        let mut scratch = Scratch::default();
        let (generation, now) = (&world.generation, NOW.parse().expect("a time"));
        let decision = decide(
            generation,
            exchange,
            request,
            now,
            &arena,
            &mut scratch,
            &mut Silent,
        );
        let leave = is_sampled(&decision, request, &scratch).expect("sampled");
        check(generation, exchange, request, &decision, &scratch);
        let (keys, seen) = seen(generation, exchange, request, leave, &arena);
        assert_eq!(keys.len(), 5);
        let mut room = vec![0; 1 << 16];
        let length = abridge(request, &seen, &mut room, &arena).expect("room");
        room.truncate(length);
        String::from_utf8_lossy(&room).into_owned()
    };
    let bytes = kept("segments one of ['crm/vip'] and browser = 'chrome'");
    for id in IDS {
        assert!(!bytes.contains(id), "{id}");
    }
    for kept in ["news.example", "DEU", "CriOS/"] {
        assert!(bytes.contains(kept), "{kept}: {bytes:?}");
    }
    // What the person tells is kept where targeting asks for it.
    let bytes =
        kept("city = 'Kreuzberg-0000' and user_keywords one of ['kw-0000'] or user_age > 3");
    assert!(bytes.contains("Kreuzberg-0000") && bytes.contains("kw-0000"));
    assert!(!bytes.contains("10997"));
}

#[test]
fn only_decisions_that_a_version_could_change_are_sampled() {
    let world = World::new(
        json!([item("a", "segments one of ['crm/vip']")]),
        &[("crm", "source,id,segments\nbuyeruid,u-1,vip\n")],
    );
    let sampled = |fields: Value| {
        let mut sampled = false;
        let mut closed = false;
        let arena = Bump::new();
        let mut request =
            json!({"id": "r", "imp": [imp(json!({}))], "tmax": 100, "user": {"buyeruid": "u-1"}});
        merge(&mut request, &fields);
        let body = request.to_string();
        let request = crate::openrtb::read(body.as_bytes(), &arena, 16).expect("a request");
        let exchange = world.config.exchanges.get("demo").expect("the exchange");
        world.decide(&fields, |_, _| {});
        let mut scratch = Scratch::default();
        let now = NOW.parse().expect("a time");
        let decision = decide(
            &world.generation,
            exchange,
            request,
            now,
            &arena,
            &mut scratch,
            &mut Silent,
        );
        closed |= decision.gate.is_err();
        sampled |= is_sampled(&decision, request, &scratch).is_some();
        (sampled, closed)
    };
    assert_eq!(sampled(json!({})), (true, false));
    assert_eq!(sampled(json!({"user": {"buyeruid": "u-2"}})), (true, false));
    for closed in [
        json!({"regs": {"coppa": 1}}),
        json!({"device": {"lmt": 1}}),
        json!({"regs": {"us_privacy": "1YYN"}}),
        json!({"regs": {"gdpr": 1}}),
    ] {
        assert_eq!(sampled(closed), (false, true));
    }
    for unasked in [
        json!({"test": 1}),
        json!({"tmax": 1}),
        json!({"cur": ["JPY"]}),
        json!({"bcat": 7}),
        json!({"imp": [{}]}),
    ] {
        assert_eq!(sampled(unasked), (false, false));
    }
}

#[test]
fn what_consent_does_not_cover_is_not_kept() {
    use crate::privacy::tests::encode::Tc;
    let targeting = "city = 'Lyon-0000' or user_keywords one of ['kw-0000'] or user_age > 3";
    let world = |config: &str| {
        let rows = "source,id,segments\nbuyeruid,u-1,vip\n";
        World::under(
            &format!("[privacy]\nvendor_id = 7\n{config}"),
            json!([item("a", targeting)]),
            &[("crm", rows)],
        )
    };
    let kept = |world: &World, purposes: &[u8]| {
        let fields = json!({"id": "r", "imp": [imp(json!({}))], "tmax": 100,
            "regs": {"gdpr": 1}, "device": {"geo": {"country": "FRA", "city": "Lyon-0000"}},
            "user": {"buyeruid": "u-1", "consent": Tc::to(purposes).text(), "keywords": "kw-0000", "yob": 1971}});
        let arena = Bump::new();
        let body = fields.to_string();
        let request = crate::openrtb::read(body.as_bytes(), &arena, 16).expect("a request");
        let exchange = world.config.exchanges.get("demo").expect("the exchange");
        let (generation, now) = (&world.generation, NOW.parse().expect("a time"));
        let mut scratch = Scratch::default();
        let decision = decide(
            generation,
            exchange,
            request,
            now,
            &arena,
            &mut scratch,
            &mut Silent,
        );
        assert!(decision.gate.is_ok());
        check(generation, exchange, request, &decision, &scratch);
        let leave = is_sampled(&decision, request, &scratch)?;
        let (keys, seen) = seen(generation, exchange, request, leave, &arena);
        Some((keys.len(), seen.geo.city, seen.keywords.is_some(), seen.yob))
            .map(|(keys, city, keywords, yob)| (keys, city.is_some(), keywords, yob.is_some()))
    };
    let usual = world("");
    assert_eq!(kept(&usual, &[1, 3, 4]), Some((1, true, true, true)));
    // No dataset may be read: nobody is looked up, and nothing is kept.
    assert_eq!(kept(&usual, &[1]), None);
    // One may, which takes less than what the person tells.
    let less = world("[datasets.crm]\npurposes = [1]\n");
    assert_eq!(kept(&less, &[1]), Some((1, false, false, false)));
}
