//! Checks between a built version and its activation: a version that fails one is held, never served by itself.
//!
//! Each check is a plain function from what is known to a [`Check`], whose detail says what was found and, where it is
//! not well, what to do. What a version is held against is its [`Baseline`]: what the manifest remembers of the live
//! version, and that version itself where it is open. Both are there after a restart before anything is uploaded, so
//! the first upload after one is judged like any other. Without a live version there is nothing to differ from, and
//! the checks that compare pass and say so.
//!
//! A limit is broken only by what chance would not do to so few: see [`by_chance`]. docs/guards.md says why each
//! limit is what it is.
//!
//! Cost: a walk over the segment tables and 4,096 lookups, some milliseconds a version.

mod filter;
mod graph;
mod inputs;
mod memory;
mod overlap;
mod profile;
mod shadow;
mod swing;

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::Format;
use super::manifest::{Check, Rows};
use crate::audience::{AsOf, Audience, Seen};
use crate::clock::Timestamp;
use crate::config;
use crate::ids::Name;

pub(super) use filter::{Measured, OfFilter, checks_of_a_filter, profile_of_a_filter};
pub(super) use graph::{OfGraph, checks_of_a_graph, profile_of_a_graph};
use inputs::Known;
pub(super) use memory::{Room, room, shown};
use overlap::compare;
pub(super) use profile::{Baseline, Profile, SourceRows, lasting, profile};
pub(super) use shadow::{Unasked, shadow, shadow_of_campaigns};
use swing::Sizes;

/// A live version that had fewer ids was a trial: by how much the next one is larger says nothing.
const TRIAL_IDS: u64 = 100;
/// What chance does to a count: four standard deviations, which it exceeds once in 15,000 times.
const DEVIATIONS: f64 = 4.0;
/// What to do about a version that was made of the wrong input, or of the right one.
const MEND: &str = "if that is not meant, mend the job and upload again under a higher number; if it is, activate this version with force";

/// What is known of a version that has been built.
pub(super) struct Candidate<'a> {
    pub(super) rows: &'a Rows,
    pub(super) format: &'a Format,
    pub(super) as_of: Option<AsOf>,
    /// What was seen of its rows; a version file has none.
    pub(super) seen: Option<&'a Seen>,
    /// Whether the rows say only what changes; what is counted and open is the whole that comes of it.
    pub(super) is_delta: bool,
    /// The version, unless memory did not allow to open it.
    pub(super) opened: Option<&'a Audience>,
    /// Whether there is memory for it.
    pub(super) room: &'a Room,
}

/// Looks at a built audience version.
pub(super) fn checks(
    guards: &config::Guards,
    of: &Candidate<'_>,
    baseline: Option<&Baseline<'_>>,
    exchanges: &[Name],
    now: Timestamp,
) -> Vec<Check> {
    if !guards.enabled {
        return Vec::new();
    }
    let compared = baseline.map(|baseline| match (of.seen, baseline.open) {
        _ if of.is_delta => Err("a delta leaves all ids as they are that it does not name"),
        (Some(seen), Some(live)) => Ok(compare(seen, live, of.rows.ids, now)),
        (None, _) => Err("a version file has no ids to look up"),
        (_, None) => Err("the live version could not be read"),
    });
    let sizes = of.opened.map(Sizes::of);
    let before = baseline.map(|baseline| &baseline.sizes);
    let ids = lasting(of, baseline, now);
    let known = baseline.map(|b| Known {
        exchanges,
        earlier: b.sources.as_ref(),
    });
    vec![
        match of.format {
            Format::Snapshot => inputs::rejected_rows_of_a_file(),
            Format::Rows(_) | Format::Document => inputs::rejected_rows(guards, of.rows),
        },
        swing::ids(guards, ids, baseline.map(|b| b.ids)),
        swing::segments(guards, sizes.as_ref(), before),
        overlap::overlap(guards, compared.as_ref()),
        inputs::sources(guards, of.seen.map(|s| &s.sources), known.as_ref()),
        match of.is_delta {
            false => inputs::empty(of.seen.and_then(|s| s.last_expiry), now),
            true => inputs::emptied(of.rows.ids),
        },
        inputs::age(guards, of.as_of, baseline.and_then(|b| b.as_of), now),
        memory::memory(of.room),
    ]
}

/// A check by what was found; what to do is told where it is not well.
fn check(name: &str, ok: bool, found: impl Into<String>, advice: &str) -> Check {
    let found = found.into();
    Check {
        name: name.to_owned(),
        ok,
        detail: if ok {
            found
        } else {
            format!("{found}; {advice}")
        },
    }
}

fn passed(name: &str, detail: &str) -> Check {
    check(name, true, detail, "")
}

/// What a check says that compares, where there is nothing to compare with.
fn first(name: &str) -> Check {
    passed(
        name,
        "nothing to compare with: the dataset has no live version yet",
    )
}

/// Whether chance could have changed a count of `of` by so many. A count of *n* that is drawn anew varies by √n.
fn by_chance(change: f64, of: f64) -> bool {
    change <= DEVIATIONS * of.max(0.0).sqrt()
}

/// A share as people read it. An estimate to compare and print, not money: a float will do.
fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    match percent {
        0.0 => "0 %".to_owned(),
        _ if percent.abs() < 9.95 => format!("{percent:.2} %"),
        _ => format!("{percent:.1} %"),
    }
}

/// A length of time as people read it.
fn lasted(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    match (minutes / 1440, minutes / 60) {
        (0, 0) => format!("{minutes} min"),
        (0, hours) => format!("{hours} h"),
        (days, hours) => format!("{days} d {} h", hours % 24),
    }
}
