//! What is remembered of a version so that later ones can be held against it.
//!
//! The manifest keeps a [`Profile`] of each version. A [`Baseline`] is the live version as the checks see it: from its
//! profile, and from the version itself where it is open, which knows every segment and can be asked about people.
//!
//! Cost: some 30 bytes a segment and source in the manifest, 40 KB a version at most.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Candidate;
use super::inputs::{self, Earlier};
use super::swing::Sizes;
use crate::audience::{AsOf, Audience, Seen};
use crate::clock::Timestamp;
use crate::ids::Name;

use super::super::manifest::Dataset;

/// Segments of a version that the manifest remembers, the largest.
const SEGMENTS_MAX: usize = 1024;

/// What the manifest remembers of a version for its successors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Profile {
    /// About how many ids had a membership that had not expired.
    pub(in super::super) lasting: u64,
    /// The largest segments and their ids.
    pub(in super::super) segments: BTreeMap<Name, u64>,
    /// Where the ids are from; unknown of a version file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in super::super) sources: Option<SourceRows>,
    /// Length of the body that it was made of, decoded.
    pub(in super::super) body_bytes: u64,
}

/// How many rows each source has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct SourceRows {
    /// Those that many rows share.
    pub(in super::super) named: BTreeMap<String, u64>,
    /// Rows of all others: their sources may be ids, where columns are swapped, and are not kept.
    pub(in super::super) others: u64,
}

/// What is remembered of a version from now on.
pub(in super::super) fn profile(
    audience: &Audience,
    seen: Option<&Seen>,
    lasting: u64,
    body_bytes: u64,
) -> Profile {
    let mut sizes: Vec<(&str, u64)> = audience
        .segments()
        .zip(audience.segment_ids().iter().copied())
        .collect();
    sizes.sort_by_key(|(name, ids)| (Reverse(*ids), *name));
    sizes.truncate(SEGMENTS_MAX);
    let named = sizes
        .into_iter()
        .filter_map(|(name, ids)| Some((name.parse().ok()?, ids)));
    Profile {
        lasting,
        segments: named.collect(),
        sources: seen.map(|seen| inputs::remembered(&seen.sources)),
        body_bytes,
    }
}

/// About how many ids of a candidate are in anything that has not expired.
pub(in super::super) fn lasting(
    of: &Candidate<'_>,
    baseline: Option<&Baseline<'_>>,
    now: Timestamp,
) -> u64 {
    let ids = of.rows.ids;
    if of.is_delta {
        // As many as before, and those that it brings or takes: its rows say nothing of all the others.
        let before = baseline.map_or(ids, |b| b.ids);
        let open = baseline.and_then(|b| b.open).map_or(ids, Audience::ids);
        return before.saturating_add_signed(ids.cast_signed().saturating_sub_unsigned(open));
    }
    lasting_of(ids, of.seen, now)
}

/// About how many of the ids, by what was seen of their rows.
pub(super) fn lasting_of(ids: u64, seen: Option<&Seen>, now: Timestamp) -> u64 {
    let Some(seen) = seen.filter(|seen| !seen.people.is_empty()) else {
        return ids;
    };
    let now = now.unix_seconds();
    let last = seen
        .people
        .iter()
        .filter(|p| p.memberships.iter().any(|(_, expires)| *expires > now));
    let share = last.count() as f64 / seen.people.len() as f64;
    (share * ids as f64).round() as u64
}

/// The live version as the next one is held against it.
pub(in super::super) struct Baseline<'a> {
    /// About how many of its ids were in something when it was uploaded.
    pub(super) ids: u64,
    /// Unknown where it was uploaded before this was remembered, and cannot be read.
    pub(super) sizes: Option<Sizes>,
    /// The sources of all versions that were live, where those of this one are known.
    pub(super) sources: Option<Earlier>,
    pub(super) as_of: Option<AsOf>,
    /// The version itself, where it could be read.
    pub(super) open: Option<&'a Audience>,
    /// How many bytes of version file came of a byte of its body.
    pub(in super::super) bytes_a_byte: Option<f64>,
}

impl<'a> Baseline<'a> {
    /// The live version of a dataset, if it has one; `open` is that version.
    pub(in super::super) fn of(dataset: &Dataset, open: Option<&'a Audience>) -> Option<Self> {
        let live = dataset.versions.get(&dataset.live?)?;
        let profile = live.profile.as_ref();
        let remembered = |profile: &Profile| Sizes {
            ids: live.rows.ids,
            segments: profile.segments.clone(),
        };
        Some(Self {
            ids: profile.map_or(live.rows.ids, |p| p.lasting),
            sizes: open.map(Sizes::of).or_else(|| profile.map(remembered)),
            sources: profile
                .and_then(|p| p.sources.as_ref())
                .map(|_| earlier(dataset)),
            as_of: live.as_of.as_deref().and_then(|text| text.parse().ok()),
            open,
            bytes_a_byte: profile
                .filter(|p| p.body_bytes > 0)
                .map(|p| live.bytes as f64 / p.body_bytes as f64),
        })
    }
}

/// The sources of all kept versions that were live.
fn earlier(dataset: &Dataset) -> Earlier {
    let (mut named, mut others) = (BTreeSet::new(), 0.0f64);
    let served = dataset
        .versions
        .values()
        .filter(|v| v.activated_at.is_some());
    for sources in served.filter_map(|v| v.profile.as_ref()?.sources.as_ref()) {
        named.extend(sources.named.keys().cloned());
        let rows = sources.named.values().sum::<u64>() + sources.others;
        others = others.max(sources.others as f64 / rows.max(1) as f64);
    }
    Earlier { named, others }
}
