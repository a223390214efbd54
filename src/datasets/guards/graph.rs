//! What is asked of an identity graph before it is served: what is asked of an audience, as far as it makes sense of one.
//!
//! A graph has no segments, and nothing in it expires. That too many ids are one person's, or one id several persons', is found when it
//! is built, and shows here as rejected rows.
//!
//! Cost: 4,096 lookups.

use super::inputs::{self, Known};
use super::profile::{Baseline, Profile};
use super::{Candidate, MEND, by_chance, check, first, memory, passed, percent, swing};
use crate::audience::{Graph, Seen};
use crate::clock::Timestamp;
use crate::config::Guards;
use crate::datasets::Format;
use crate::datasets::manifest::Check;
use crate::ids::Name;

/// What a graph is held against.
pub(in crate::datasets) struct OfGraph<'a> {
    /// The live version, where it is open.
    pub(in crate::datasets) live: Option<&'a Graph>,
    pub(in crate::datasets) baseline: Option<&'a Baseline<'a>>,
    pub(in crate::datasets) exchanges: &'a [Name],
}

/// Looks at a built identity graph.
pub(in crate::datasets) fn checks_of_a_graph(
    guards: &Guards,
    of: &Candidate<'_>,
    against: &OfGraph<'_>,
    now: Timestamp,
) -> Vec<Check> {
    if !guards.enabled {
        return Vec::new();
    }
    let baseline = against.baseline;
    let known = baseline.map(|b| Known {
        exchanges: against.exchanges,
        earlier: b.sources.as_ref(),
    });
    vec![
        match of.format {
            Format::Snapshot => inputs::rejected_rows_of_a_file(),
            Format::Rows(_) | Format::Document => inputs::rejected_rows(guards, of.rows),
        },
        swing::ids(guards, of.rows.ids, baseline.map(|b| b.ids)),
        overlap(guards, of.seen, of.rows.ids, against),
        inputs::sources(guards, of.seen.map(|s| &s.sources), known.as_ref()),
        inputs::age(guards, of.as_of, baseline.and_then(|b| b.as_of), now),
        memory::memory(of.room),
    ]
}

/// What is remembered of a graph from now on.
pub(in crate::datasets) fn profile_of_a_graph(
    graph: &Graph,
    seen: Option<&Seen>,
    body_bytes: u64,
) -> Profile {
    Profile {
        lasting: graph.ids(),
        segments: [].into(),
        sources: seen.map(|seen| inputs::remembered(&seen.sources)),
        body_bytes,
    }
}

/// Ids that the live version does not know come from another id space.
fn overlap(guards: &Guards, seen: Option<&Seen>, ids: u64, against: &OfGraph<'_>) -> Check {
    const NAME: &str = "overlap";
    if against.baseline.is_none() {
        return first(NAME);
    }
    let Some(seen) = seen else {
        return passed(
            NAME,
            "not known: the ids of a version file are not looked up",
        );
    };
    let Some(live) = against.live else {
        return passed(NAME, "not known: the live version could not be read");
    };
    let is_in = |key| live.person(key).is_some();
    let found = seen.people.iter().filter(|person| is_in(person.key));
    let (asked, known) = (seen.people.len() as f64, found.count() as f64);
    let expected = asked * (live.ids() as f64 / ids.max(1) as f64).min(1.0);
    let strangers = known < guards.min_overlap * expected && !by_chance(expected - known, asked);
    check(
        NAME,
        !strangers,
        format!(
            "the live version has {known} of {asked} ids looked up, {} of those which it could have (at least {} should be)",
            percent(known / expected.max(1.0)),
            percent(guards.min_overlap)
        ),
        &format!("check from which source, in which spelling or hash, the ids are; {MEND}"),
    )
}
