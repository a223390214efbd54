//! What the stream promises, read by Kith itself.

use super::*;
use bumpalo::Bump;
use std::collections::{BTreeSet, HashMap};

use kith::openrtb::Placement;
use kith::privacy::{Consents, Policy, gate};

const COUNT: usize = 1000;

fn bodies(profile: Profile, seed: u64) -> Vec<String> {
    Stream::new(profile, seed).take(COUNT).collect()
}

/// Hands each body to `look` as Kith reads it.
fn read(bodies: &[String], mut look: impl FnMut(&str, &kith::openrtb::Request<'_>, &Bump)) {
    for body in bodies {
        let arena = Bump::new();
        let request = kith::openrtb::read(body.as_bytes(), &arena, 128).expect(body);
        look(body, request, &arena);
    }
}

#[test]
fn a_seed_repeats() {
    for profile in Profile::ALL {
        let some = |seed| Stream::new(profile, seed).take(100).collect::<Vec<_>>();
        let first = some(7);
        assert_eq!(first, some(7));
        assert_ne!(first, some(8));
        let different: BTreeSet<&String> = first.iter().collect();
        assert_eq!(different.len(), first.len(), "no request comes twice");
    }
}

#[test]
fn the_bytes_of_a_seed_never_change() {
    let digest = |text: &str| {
        text.bytes()
            .fold(0, |hash, byte| crate::dice::mixed(hash ^ u64::from(byte)))
    };
    let got =
        Profile::ALL.map(|profile| digest(&Stream::new(profile, 1).take(20).collect::<String>()));
    assert_eq!(
        got,
        [
            10720470345488624318,
            8303568612408491229,
            8683472996218232616,
            7440521918423081437
        ],
        "measurements are compared across commits: a change here needs saying"
    );
}

#[test]
fn every_field_can_be_read() {
    for profile in Profile::ALL {
        let mut parts: HashMap<&str, usize> = HashMap::new();
        read(&bodies(profile, 1), |body, request, arena| {
            let unreadable: Vec<_> = request.unreadable.iter().collect();
            assert!(
                unreadable.is_empty() && !request.signals.broken,
                "{unreadable:?} in {body}"
            );
            assert!(
                !body.contains('\n') && serde_json::from_str::<serde_json::Value>(body).is_ok(),
                "{body}"
            );
            let eids = request.user.eids.into_iter().flatten().count();
            let mut has = |part, is: bool| *parts.entry(part).or_default() += usize::from(is);
            has("site", request.placement == Placement::Site);
            has("app", request.placement == Placement::App);
            has("imps", request.imp.len() > 1);
            has("video", request.imp.iter().any(|imp| imp.video.is_some()));
            has("native", request.imp.iter().any(|imp| imp.native.is_some()));
            has(
                "formats",
                request
                    .imp
                    .iter()
                    .any(|imp| imp.banner.is_some_and(|banner| banner.sizes.len() > 1)),
            );
            has("deals", request.imp.iter().any(|imp| !imp.deals.is_empty()));
            has("eids", eids > 0);
            has("data", request.user.data.segments(arena, 100).is_some());
            has("ifa", request.device.ifa.is_some());
            has("buyeruid", request.user.buyeruid.is_some());
            has("user.id", request.user.id.is_some());
            has("gpp", request.signals.gpp.is_present());
            has("consent", request.signals.consent.is_present());
            has("us_privacy", request.signals.us_privacy.is_present());
            has("badv", request.badv.value().is_some());
            has("bcat", request.bcat.value().is_some());
            has("\\/", body.contains("\\/"));
            has(
                "\\u003d",
                body.contains("\\u003d") || body.contains("\\u0026"),
            );
        });
        assert_eq!(parts["site"] + parts["app"], COUNT);
        for (part, count) in parts {
            assert!(
                count > 3,
                "{part} in {count} of {COUNT} requests of {}",
                profile.as_str()
            );
        }
    }
}

#[test]
fn sizes_are_as_said() {
    for profile in Profile::ALL {
        let (from, to) = profile.bytes();
        let bodies = bodies(profile, 3);
        for body in &bodies {
            assert!(
                body.len() + 25 >= from && body.len() <= to + 150,
                "{} bytes: {body}",
                body.len()
            );
        }
        let mean = bodies.iter().map(String::len).sum::<usize>() / bodies.len();
        let want = if profile == Profile::Mix {
            2800
        } else {
            (from + to) / 2
        };
        assert!(
            mean.abs_diff(want) < want / 30,
            "{}: a mean of {mean} bytes",
            profile.as_str()
        );
        let imps: Vec<usize> = {
            let mut imps = Vec::new();
            read(&bodies, |_, request, _| imps.push(request.imp.len()));
            imps
        };
        assert!(imps.iter().all(|count| (1..=10).contains(count)));
        let most = imps.iter().max();
        match profile {
            Profile::Heavy => assert!(most >= Some(&8), "{most:?}"),
            Profile::Mix => assert!(
                most >= Some(&5) && imps.iter().filter(|count| **count == 1).count() > COUNT / 3
            ),
            Profile::Small | Profile::Medium => {}
        }
    }
}

#[test]
fn the_gate_opens_for_the_share_said() {
    let mut open = 0;
    let mut reasons: HashMap<&str, usize> = HashMap::new();
    read(&bodies(Profile::Mix, 4), |_, request, _| {
        match gate(request, &Policy::default(), &mut Consents::default()) {
            Ok(_) => open += 1,
            Err(closed) => *reasons.entry(closed.as_str()).or_default() += 1,
        }
    });
    let share = open as f64 / COUNT as f64;
    assert!((share - OPEN_SHARE).abs() < 0.03, "{share}");
    let all = ["coppa", "dnt", "gdpr", "gpc", "gpp", "lmt", "us_privacy"];
    assert_eq!(
        reasons.into_keys().collect::<BTreeSet<_>>(),
        all.into_iter().collect()
    );
}

/// A request is about somebody of the audience as often as asked, from a made audience and from its file alike.
#[test]
fn the_hit_rate_is_as_said() {
    let keyer = kith::ids::Keyer::new(&kith::ids::SecretKey::from_bytes([1; 32]));
    let mut file = Vec::new();
    audience::write(&mut file, 5000, 100, 6).expect("written");
    let text = String::from_utf8(file).expect("text");
    let known: BTreeSet<_> = text
        .lines()
        .skip(1)
        .map(|line| {
            let mut columns = line.split(',');
            let (source, id) = (
                columns.next().expect("a source"),
                columns.next().expect("an id"),
            );
            keyer.user_key(source, id).expect("a good id")
        })
        .collect();
    let sampled = Audience::read(text.as_bytes(), 1).expect("a file");
    for audience in [
        Audience::Made {
            count: 5000,
            seed: 6,
        },
        sampled,
    ]
    .map(Arc::new)
    {
        for hit_rate in [0.0, 0.6, 1.0] {
            let stream =
                Stream::new(Profile::Mix, 5).with_audience(Arc::clone(&audience), hit_rate);
            let bodies: Vec<_> = stream.take(COUNT).collect();
            let (mut hits, mut ids, mut found) = (0, 0, 0);
            let mut by_source: HashMap<String, usize> = HashMap::new();
            read(&bodies, |_, request, _| {
                let mut hit = false;
                let mut look = |source: &str, id: Option<&str>| {
                    let key = id.and_then(|id| keyer.user_key(source, id).ok());
                    ids += usize::from(key.is_some());
                    if key.is_some_and(|key| known.contains(&key)) {
                        hit = true;
                        found += 1;
                        *by_source.entry(source.to_owned()).or_default() += 1;
                    }
                };
                look("ifa", request.device.ifa);
                look("buyeruid", request.user.buyeruid);
                for eid in request.user.eids.into_iter().flatten() {
                    for id in eid.uids {
                        look(eid.source, Some(id.id));
                    }
                }
                hits += usize::from(hit);
            });
            let share = hits as f64 / COUNT as f64;
            assert!(
                (share - hit_rate).abs() < 0.05,
                "asked for {hit_rate}, got {share}"
            );
            if hit_rate == 1.0 {
                assert!(
                    found > COUNT * 5 / 4 && found < ids,
                    "{found} of {ids} ids are known"
                );
                for source in [
                    "ifa",
                    "buyeruid",
                    "uidapi.com",
                    "idgraph.example",
                    "sharedid.example",
                    "connect.example",
                ] {
                    assert!(
                        by_source
                            .get(source)
                            .is_some_and(|count| *count > COUNT / 50),
                        "{source}: {by_source:?}"
                    );
                }
            }
        }
    }
}
