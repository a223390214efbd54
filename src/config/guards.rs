//! `[guards]` and `[datasets.<name>.guards]`: by how much a version may differ from the live one. Why the defaults are
//! what they are, docs/guards.md says.

use std::time::Duration;

use super::forms::{self, Form};
use super::sheet::Sheet;

/// Checks that can hold a version before activation. Shares are from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guards {
    /// Whether they are asked at all.
    pub enabled: bool,
    /// More bad rows than this share hold the version.
    pub max_rejected_share: f64,
    /// Share of the live version's ids that may be gone.
    pub max_ids_lost: f64,
    /// How many times the live version's ids may have been added to them.
    pub max_ids_gained: f64,
    /// Share of its ids that a segment may lose.
    pub max_segment_lost: f64,
    /// How many times its ids a segment may gain, if that makes it a large one.
    pub max_segment_gained: f64,
    /// The share of all ids from which a segment is large.
    pub large_segment_share: f64,
    /// The share of all ids that no segment may suddenly hold.
    pub max_segment_share: f64,
    /// Share of the segments that may be gone.
    pub max_segments_gone: f64,
    /// Share of the memberships that segments may lose, all together.
    pub max_memberships_lost: f64,
    /// Least share of the people that the live version knows.
    pub min_overlap: f64,
    /// Least agreement of people's segments with those that they have in the live version.
    pub min_agreement: f64,
    /// Share of the rows that may be of sources not seen before.
    pub max_unknown_sources: f64,
    /// How far back `as_of` may lie.
    pub max_age: Option<Duration>,
    /// Share of the sampled requests with a bid that may get none any more.
    pub max_bids_lost: f64,
    /// How many times the sampled requests with a bid may have been added to them.
    pub max_bids_gained: f64,
    /// Share of what the sampled requests' bids would spend that may be gone.
    pub max_spend_lost: f64,
    /// How many times what the sampled requests' bids would spend may have been added to it.
    pub max_spend_gained: f64,
    /// Share of the sampled requests with a bid that may get another or none.
    pub max_bids_changed: f64,
    /// Memory that must be left when a version is opened beside the live one, bytes.
    pub spare_memory: u64,
}

/// Reads the section; that of a dataset takes over what `general` says.
pub(super) fn read(s: &mut Sheet<'_>, general: Option<Guards>) -> Guards {
    let g = general.as_ref();
    let guards = Guards {
        enabled: key(
            s,
            "enabled",
            &forms::switch(),
            "true",
            "whether checks can hold a version before activation",
            g.map(|g| g.enabled),
        ),
        max_rejected_share: key(
            s,
            "max_rejected_share",
            &forms::share(),
            "0.01",
            "more bad rows than this share hold the version",
            g.map(|g| g.max_rejected_share),
        ),
        max_ids_lost: key(
            s,
            "max_ids_lost",
            &forms::share(),
            "0.3",
            "more than this share fewer ids than the live version has hold it; 1: never",
            g.map(|g| g.max_ids_lost),
        ),
        max_ids_gained: key(
            s,
            "max_ids_gained",
            &forms::times(),
            "1.0",
            "more ids than the live version has and so many times as many again hold it; 1: over twice as many",
            g.map(|g| g.max_ids_gained),
        ),
        max_segment_lost: key(
            s,
            "max_segment_lost",
            &forms::share(),
            "0.5",
            "a segment that is still there and has lost more than this share of its ids holds the version; 1: never",
            g.map(|g| g.max_segment_lost),
        ),
        max_segment_gained: key(
            s,
            "max_segment_gained",
            &forms::times(),
            "4.0",
            "a segment that has gained more than so many times its ids and is now large holds the version",
            g.map(|g| g.max_segment_gained),
        ),
        large_segment_share: key(
            s,
            "large_segment_share",
            &forms::share(),
            "0.1",
            "the share of a version's ids from which a segment is large; one that has vanished holds the version",
            g.map(|g| g.large_segment_share),
        ),
        max_segment_share: key(
            s,
            "max_segment_share",
            &forms::share(),
            "0.9",
            "a segment that suddenly has this share of a version's ids or more holds it",
            g.map(|g| g.max_segment_share),
        ),
        max_segments_gone: key(
            s,
            "max_segments_gone",
            &forms::share(),
            "0.25",
            "more vanished segments than this share, and at least two, hold the version; 1: never",
            g.map(|g| g.max_segments_gone),
        ),
        max_memberships_lost: key(
            s,
            "max_memberships_lost",
            &forms::share(),
            "0.3",
            "what segments have lost, all together, as a share of all memberships: more holds the version; 1: never",
            g.map(|g| g.max_memberships_lost),
        ),
        min_overlap: key(
            s,
            "min_overlap",
            &forms::share(),
            "0.6",
            "fewer people than this share whom the live version knows hold it, of those who can be known; 0: never",
            g.map(|g| g.min_overlap),
        ),
        min_agreement: key(
            s,
            "min_agreement",
            &forms::share(),
            "0.5",
            "less agreement of people's segments with those that they have in the live version holds it: 1 is as before, \
             0 as if segments had been dealt anew; 0: never",
            g.map(|g| g.min_agreement),
        ),
        max_unknown_sources: key(
            s,
            "max_unknown_sources",
            &forms::share(),
            "0.05",
            "more rows than this share that are of sources which no earlier version had hold it; 1: never",
            g.map(|g| g.max_unknown_sources),
        ),
        max_age: key(
            s,
            "max_age",
            &forms::duration().or_none(),
            "\"\"",
            "an as_of further back than this holds the version; none: any time not before the live version's",
            g.map(|g| g.max_age),
        ),
        max_bids_lost: key(
            s,
            "max_bids_lost",
            &forms::share(),
            "0.5",
            "of recent requests that get a bid, so large a share fewer with the new version hold it; 1: never",
            g.map(|g| g.max_bids_lost),
        ),
        max_bids_gained: key(
            s,
            "max_bids_gained",
            &forms::times(),
            "4.0",
            "recent requests that get a bid, and so many times as many again with the new version, hold it",
            g.map(|g| g.max_bids_gained),
        ),
        max_spend_lost: key(
            s,
            "max_spend_lost",
            &forms::share(),
            "0.5",
            "what bids on recent requests would cost, less by more than this share with the new version, holds it; 1: never",
            g.map(|g| g.max_spend_lost),
        ),
        max_spend_gained: key(
            s,
            "max_spend_gained",
            &forms::times(),
            "4.0",
            "what bids on recent requests would cost, and so many times as much again with the new version, holds it",
            g.map(|g| g.max_spend_gained),
        ),
        max_bids_changed: key(
            s,
            "max_bids_changed",
            &forms::share(),
            "0.8",
            "of recent requests that get a bid, more than this share that get another or none hold the version; 1: never",
            g.map(|g| g.max_bids_changed),
        ),
        spare_memory: key(
            s,
            "spare_memory",
            &forms::size(0, 64 << 40),
            "\"64 MiB\"",
            "what must be left of the system's memory, or of the control group's, when a version is opened beside the live one",
            g.map(|g| g.spare_memory),
        ),
    };
    let contradicts = |g: &Guards| g.large_segment_share >= g.max_segment_share;
    // What is inherited was complained about where it stands.
    if contradicts(&guards) && !g.is_some_and(contradicts) {
        let text = format!(
            "{} is not below max_segment_share ({}): a segment is large before it has nearly everyone",
            guards.large_segment_share, guards.max_segment_share
        );
        s.problem(Some("large_segment_share"), &text);
    }
    guards
}

/// A key with its default in `[guards]`; of a dataset, with what is said there.
fn key<T: 'static>(
    s: &mut Sheet<'_>,
    name: &'static str,
    form: &Form<T>,
    default: &'static str,
    meaning: &'static str,
    general: Option<T>,
) -> T {
    match general {
        None => s.get(name, form, default, meaning),
        Some(general) => s.inherit(
            name,
            form,
            general,
            "that of [guards]",
            "as there, for this dataset",
        ),
    }
}
