//! Which ids a request carries, as user keys: bounded, each once, and none without the gate's leave.
//!
//! `user.id` is the exchange's own namespace (`exchange:<name>`), `user.buyeruid` is ours (`buyeruid`), `device.ifa` is
//! `ifa`, and every extended id belongs to its source domain. An extended id cannot claim one of our own
//! namespaces: a `source` of `ifa` in `user.eids` is refused, or any exchange could speak for every device.
//! A request's segments are the union over all its ids. What an exchange says of how an id came about (`mm`, `matcher`,
//! `inserter`, `atype`) is asked only where its [`Policy`] refuses something.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::ids::{IdRefused, Keyer, UserKey, trimmed};
use crate::openrtb::{Eid, Field, Request, Uid};
use crate::privacy::Open;
use arrayvec::ArrayVec;

/// Most ids looked up for one request. Real requests carry 1 to 20.
pub const IDS_MAX: usize = 64;
/// Most ids looked at for one request, junk and repeats included: bounds the work of a hostile one.
pub const CANDIDATES_MAX: usize = 1024;

/// Which extended ids of an exchange are not used. By default all are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// AdCOM "ID Match Methods" that are refused; with any, also what cannot be read.
    pub refused_match_methods: Box<[i64]>,
    /// AdCOM "Agent Types" that are refused; with any, also what cannot be read.
    pub refused_agent_types: Box<[i64]>,
    /// Where not empty: domains, lower case, of those whose matching (method 3 and above) is trusted.
    pub matchers: Box<[String]>,
    /// Where not empty: domains, lower case, of those who may put ids into a request, if they are named.
    pub inserters: Box<[String]>,
    /// The domain under which our own ids come as extended ones: what it says of its matching is said of `buyeruid` too
    /// (§7.12.1).
    pub own_source: Box<str>,
}

impl Policy {
    fn refuses_nothing(&self) -> bool {
        self.refused_match_methods.is_empty()
            && self.refused_agent_types.is_empty()
            && self.matchers.is_empty()
            && self.inserters.is_empty()
    }

    fn refuses(&self, eid: &Eid<'_>, uid: &Uid<'_>) -> Option<IdOutcome> {
        if is_refused(&self.refused_agent_types, uid.atype) {
            return Some(IdOutcome::AgentType);
        }
        if is_refused(&self.refused_match_methods, eid.mm) {
            return Some(IdOutcome::MatchMethod);
        }
        // What was synchronised by cookies (2) or not matched at all (1) needs nobody who did it; who is named must be
        // trusted.
        let is_matched =
            eid.matcher != Field::Absent || !matches!(eid.mm, Field::Absent | Field::Value(0..=2));
        let matcher = match eid.matcher {
            Field::Absent => Field::Value(eid.source),
            said => said,
        };
        if is_matched && !is_listed(&self.matchers, matcher) {
            return Some(IdOutcome::Matcher);
        }
        if eid.inserter != Field::Absent && !is_listed(&self.inserters, eid.inserter) {
            return Some(IdOutcome::Inserter);
        }
        None
    }

    /// How `buyeruid` was matched, where an extended id of ours tells.
    fn buyeruid_refused(&self, request: &Request<'_>) -> bool {
        if self.own_source.is_empty() {
            return false;
        }
        let is_ours = |eid: &&Eid<'_>| trimmed(eid.source).eq_ignore_ascii_case(&self.own_source);
        let mut ours = request.user.eids.into_iter().flatten().filter(is_ours);
        let inherited = |mm: Field<i64>| !matches!(mm, Field::Value(1 | 2));
        ours.any(|eid| inherited(eid.mm) && is_refused(&self.refused_match_methods, eid.mm))
    }
}

/// Whether a code is among those refused; one that cannot be read may be.
fn is_refused(refused: &[i64], code: Field<i64>) -> bool {
    match code {
        Field::Absent => refused.contains(&0),
        Field::Unreadable => !refused.is_empty(),
        Field::Value(code) => refused.contains(&code),
    }
}

/// Whether a domain is listed, or there is no list; one that cannot be read is in none.
fn is_listed(domains: &[String], domain: Field<&str>) -> bool {
    let is_known = |domain: &str| {
        let domain = trimmed(domain);
        let mut known = domains.iter();
        known.any(|known| known.eq_ignore_ascii_case(domain))
    };
    domains.is_empty() || domain.value().is_some_and(is_known)
}

/// What became of one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdOutcome {
    /// It is looked up.
    Used(UserKey),
    /// It is there already.
    Repeated,
    /// It is junk.
    Refused(IdRefused),
    /// An extended id whose source is one of our own namespaces.
    ReservedSource,
    /// The exchange's policy refuses how it was matched.
    MatchMethod,
    /// The exchange's policy does not trust who matched it.
    Matcher,
    /// The exchange's policy does not trust who put it into the request.
    Inserter,
    /// The exchange's policy refuses what it is the id of.
    AgentType,
    /// There are as many already as may be looked up.
    OverLimit,
}

/// The ids of a request that are to be looked up.
pub type Ids = ArrayVec<UserKey, IDS_MAX>;

/// By what the ids of an exchange's requests are taken.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The namespace of its own ids.
    pub source: &'a str,
    /// What is refused.
    pub policy: &'a Policy,
    /// Most ids of a request; never more than [`IDS_MAX`].
    pub ids_max: usize,
}

/// Collects the ids of a request, by these terms. `seen` is told of each and what became of it, in order; it is how an explanation is made.
/// `unused`, where there is one, is told the keys of those that are not used, for they may be of somebody who opted out.
pub fn collect<'a>(
    _leave: Open,
    request: &Request<'a>,
    terms: Terms<'a>,
    keyer: &Keyer,
    mut seen: impl FnMut(&'a str, IdOutcome),
    mut unused: Option<impl FnMut(UserKey)>,
) -> Ids {
    let Terms {
        source: exchange_source,
        policy,
        ids_max,
    } = terms;
    let mut ids = Ids::new();
    let mut add = |source: &'a str, id: &str, refused: Option<IdOutcome>| {
        if let (Some(unused), Some(why)) = (&mut unused, refused)
            && why != IdOutcome::ReservedSource
            && let Ok(key) = keyer.user_key(source, id)
        {
            unused(key);
        }
        let outcome = refused.unwrap_or_else(|| match keyer.user_key(source, id) {
            Err(refused) => IdOutcome::Refused(refused),
            Ok(key) if ids.contains(&key) => IdOutcome::Repeated,
            Ok(key) if ids.len() >= ids_max.min(IDS_MAX) => {
                if let Some(unused) = &mut unused {
                    unused(key);
                }
                IdOutcome::OverLimit
            }
            Ok(key) => {
                ids.push(key);
                IdOutcome::Used(key)
            }
        });
        seen(source, outcome);
    };
    let of_ours = policy
        .buyeruid_refused(request)
        .then_some(IdOutcome::MatchMethod);
    let own = [
        (exchange_source, request.user.id, None),
        ("buyeruid", request.user.buyeruid, of_ours),
        ("ifa", request.device.ifa, None),
    ];
    for (source, id, refused) in own {
        if let Some(id) = id {
            add(source, id, refused);
        }
    }
    let all_are_used = policy.refuses_nothing();
    let eids = request.user.eids.into_iter().flatten();
    let extended = eids.flat_map(|eid| eid.uids.iter().map(move |uid| (eid, uid)));
    for (eid, uid) in extended.take(CANDIDATES_MAX) {
        let refused = if is_reserved(eid.source) {
            Some(IdOutcome::ReservedSource)
        } else if all_are_used {
            None
        } else {
            policy.refuses(eid, uid)
        };
        add(eid.source, uid.id, refused);
    }
    ids
}

/// Namespaces that are not domains and that only we, not a request's `eids`, may fill.
fn is_reserved(source: &str) -> bool {
    let source = trimmed(source);
    let is = |name: &str| source.eq_ignore_ascii_case(name);
    is("ifa")
        || is("buyeruid")
        || is("email")
        || is("phone")
        || is("customer")
        || is("person")
        || source
            .get(..9)
            .is_some_and(|start| start.eq_ignore_ascii_case("exchange:"))
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
    use bumpalo::Bump;

    use super::*;
    use crate::ids::SecretKey;
    use crate::privacy::{self, Consents, gate};

    fn collected(user: &str, device: &str) -> (Ids, Vec<(String, IdOutcome)>) {
        collected_under(&super::Policy::default(), user, device)
    }

    fn collected_under(
        policy: &super::Policy,
        user: &str,
        device: &str,
    ) -> (Ids, Vec<(String, IdOutcome)>) {
        let arena = Bump::new();
        let body = arena.alloc_str(&format!(
            r#"{{"id":"r","imp":[{{"id":"1"}}],"user":{user},"device":{device}}}"#
        ));
        let request = crate::openrtb::read(body.as_bytes(), &arena, 1).expect("a request");
        let leave = gate(
            request,
            &privacy::Policy::default(),
            &mut Consents::default(),
        )
        .expect("an open gate");
        let mut seen = Vec::new();
        let ids = collect(
            leave,
            request,
            Terms {
                source: "exchange:demo",
                policy,
                ids_max: IDS_MAX,
            },
            &keyer(),
            |source, outcome| {
                seen.push((source.to_owned(), outcome));
            },
            None::<fn(UserKey)>,
        );
        (ids, seen)
    }

    fn keyer() -> Keyer {
        Keyer::new(&SecretKey::from_bytes([7; 32]))
    }

    fn key(source: &str, id: &str) -> UserKey {
        keyer().user_key(source, id).expect("a good id")
    }

    #[test]
    fn every_id_has_its_namespace() {
        let (ids, _) = collected(
            r#"{"id":"a","buyeruid":"b","eids":[{"source":"UidApi.com","uids":[{"id":"c"}]}],
                "ext":{"eids":[{"source":"liveramp.com","uids":[{"id":"d"},{"id":"e"}]}]}}"#,
            r#"{"ifa":"F-1"}"#,
        );
        let want = [
            key("exchange:demo", "a"),
            key("buyeruid", "b"),
            key("ifa", "f-1"),
            key("uidapi.com", "c"),
            key("liveramp.com", "d"),
            key("liveramp.com", "e"),
        ];
        assert_eq!(ids.as_slice(), want);
    }

    #[test]
    fn junk_repeats_and_pretenders_are_left_out() {
        let (ids, seen) = collected(
            r#"{"buyeruid":"0000-000-000-0000","eids":[{"source":"a.com","uids":[{"id":"x"},{"id":"x"},{"id":"null"}]},
                {"source":"IFA","uids":[{"id":"stolen"}]},{"source":"exchange:other","uids":[{"id":"stolen"}]}]}"#,
            "{}",
        );
        assert_eq!(ids.as_slice(), [key("a.com", "x")]);
        let outcomes: Vec<_> = seen.iter().map(|(_, outcome)| *outcome).collect();
        assert_eq!(
            outcomes,
            [
                IdOutcome::Refused(IdRefused::AllZero),
                IdOutcome::Used(key("a.com", "x")),
                IdOutcome::Repeated,
                IdOutcome::Refused(IdRefused::Placeholder),
                IdOutcome::ReservedSource,
                IdOutcome::ReservedSource,
            ]
        );
    }

    #[test]
    fn a_flood_of_ids_is_cut() {
        let uids = (0..5000)
            .map(|n| format!(r#"{{"id":"{n}x"}}"#))
            .collect::<Vec<_>>()
            .join(",");
        let (ids, seen) = collected(
            &format!(r#"{{"eids":[{{"source":"a.com","uids":[{uids}]}}]}}"#),
            "{}",
        );
        assert_eq!(ids.len(), IDS_MAX);
        assert_eq!(seen.len(), CANDIDATES_MAX);
        assert_eq!(ids[0], key("a.com", "0x"), "the first ones are kept");
    }
}
