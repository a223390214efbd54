//! Deciding on a request a second time, when nobody is in it any more: shadow validation asks what another generation would
//! have answered.
//!
//! What is kept of a request is [`crate::openrtb::abridge`]d: ids are gone, and the person's keys, which the first decision
//! looked up, are handed in. The leave that the privacy gate gave then is kept with it, for the consent strings are gone too.
//! What the person tells of herself is kept as far as some targeting of the book reads it *and* the leave covers it. So a
//! second decision on the same generation is the first one's, but for markup that repeats consent strings.

use bumpalo::Bump;

use super::{Asked, Decision, NoBid, Scratch, Silent, decide_behind, facts, ids_of};
use crate::campaigns::Attribute;
use crate::clock::Timestamp;
use crate::config::Exchange;
use crate::generation::Generation;
use crate::identity::Ids;
use crate::ids::UserKey;
use crate::openrtb::{Geo, Request, Seen};
use crate::privacy::{Open, Purposes};

/// The leave under which a decision looked the person up, if it is one that another version could change: the gate was open,
/// some dataset could be read, and line items were asked.
pub fn is_sampled(
    decision: &Decision<'_>,
    request: &Request<'_>,
    scratch: &Scratch,
) -> Option<Open> {
    let leave = decision.gate.ok()?;
    let was_asked = matches!(
        decision.outcome,
        Ok(_) | Err(NoBid::Refused(_) | NoBid::UnknownPerson)
    );
    let was_read = scratch.membership.readable.contains(&true);
    (was_asked && was_read && !request.test).then_some(leave)
}

/// The person's keys, and what else of her may be kept and is asked for.
pub fn seen<'a>(
    generation: &Generation,
    exchange: &'a Exchange,
    request: &Request<'a>,
    leave: Open,
    arena: &'a Bump,
) -> (Ids, Seen<'a>) {
    let ids = ids_of(
        generation,
        exchange,
        request,
        leave,
        |_, _| {},
        None::<fn(UserKey)>,
    );
    let may = leave.may(Purposes::PROFILE);
    let reads = |attribute| may && generation.book.reads(attribute);
    let (user, geo) = (&request.user, &request.device.geo);
    let system = facts::system(request, arena);
    let seen = Seen {
        ua: facts::browser_of(request, arena).and_then(facts::mark_of),
        os: system.0,
        osv: system.1,
        geo: Geo {
            country: geo.country,
            region: geo.region.filter(|_| reads(Attribute::Region)),
            city: geo.city.filter(|_| reads(Attribute::City)),
            metro: geo.metro.filter(|_| reads(Attribute::Metro)),
            zip: geo.zip.filter(|_| reads(Attribute::Zip)),
        },
        yob: user.yob.filter(|_| reads(Attribute::UserAge)),
        gender: user.gender.filter(|_| reads(Attribute::UserGender)),
        keywords: user.keywords.filter(|_| reads(Attribute::UserKeywords)),
        segments: reads(Attribute::RequestSegments)
            .then(|| facts::request_segments(request, arena))
            .flatten(),
    };
    (ids, seen)
}

/// As [`decide`](super::decide), on an abridged request of the person with these keys.
#[expect(clippy::too_many_arguments, reason = "`decide`, and who the person is")]
pub fn decide_again<'a>(
    generation: &'a Generation,
    exchange: &'a Exchange,
    request: &Request<'a>,
    leave: Open,
    keys: &[UserKey],
    now: Timestamp,
    arena: &'a Bump,
    scratch: &mut Scratch,
) -> Decision<'a> {
    let asked = Asked {
        request,
        gate: Ok(leave),
        known: Some(keys),
    };
    decide_behind(
        generation,
        exchange,
        &asked,
        now,
        arena,
        scratch,
        &mut Silent,
    )
}
