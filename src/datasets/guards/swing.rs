//! By how much the counts of a version differ from those of the live one: of ids, and of ids in each segment.

use std::collections::BTreeMap;

use super::super::manifest::Check;
use super::{MEND, TRIAL_IDS, by_chance, check, first, passed, percent};
use crate::audience::Audience;
use crate::config::Guards;
use crate::ids::Name;

/// A segment that has less than this share of the ids is too small to be looked at by itself.
const SMALL_SHARE: f64 = 0.001;
/// How much of all ids a segment must have gained to have nearly everyone suddenly.
const SUDDEN_SHARE: f64 = 0.25;
/// Vanished segments that are no news, however few there are in all.
const GONE_ANYWAY: usize = 1;
/// Segments named in a detail.
const SHOWN_MAX: usize = 5;

/// How many ids a version has, and how many each of its segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) ids: u64,
    pub(super) segments: BTreeMap<Name, u64>,
}

impl Sizes {
    pub(super) fn of(audience: &Audience) -> Self {
        let segments = audience.segments().zip(audience.segment_ids());
        let named = segments.filter_map(|(name, ids)| Some((name.parse().ok()?, *ids)));
        Self {
            ids: audience.ids(),
            segments: named.collect(),
        }
    }

    fn share(&self, ids: u64) -> f64 {
        ids as f64 / self.ids.max(1) as f64
    }
}

/// Fewer people by far are half an export; more by far, a join that went wrong.
pub(super) fn ids(guards: &Guards, now: u64, before: Option<u64>) -> Check {
    const NAME: &str = "ids";
    let Some(before) = before else {
        return first(NAME);
    };
    let (this, live) = (now as f64, before as f64);
    let change = this - live;
    let lost = -change > guards.max_ids_lost * live && !by_chance(-change, live);
    let gained = change > guards.max_ids_gained * live && before >= TRIAL_IDS;
    let word = if change < 0.0 { "fewer" } else { "more" };
    check(
        NAME,
        !lost && !gained,
        format!(
            "{now} ids that have not expired, {before} in the live version: {} {word} (at most {} fewer or {} more may be)",
            percent(change.abs() / live.max(1.0)),
            percent(guards.max_ids_lost),
            percent(guards.max_ids_gained)
        ),
        MEND,
    )
}

/// What may be wrong with segments while the number of ids is right.
pub(super) fn segments(
    guards: &Guards,
    now: Option<&Sizes>,
    before: Option<&Option<Sizes>>,
) -> Check {
    const NAME: &str = "segments";
    let Some(before) = before else {
        return first(NAME);
    };
    let (Some(now), Some(before)) = (now, before) else {
        return passed(
            NAME,
            "not known: this version or the live one has not been opened",
        );
    };
    let (losses, compared) = losses(guards, now, before);
    let mut wrong = [losses, gains(guards, now, before)].concat();
    if wrong.is_empty() {
        return passed(NAME, &compared);
    }
    wrong.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.text.cmp(&b.text)));
    let more = wrong.len().saturating_sub(SHOWN_MAX);
    let mut told: Vec<String> = wrong.into_iter().map(|w| w.text).take(SHOWN_MAX).collect();
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    check(NAME, false, told.join("; "), MEND)
}

/// Something wrong. The ids concerned decide what is told first.
#[derive(Debug, Clone)]
struct Wrong {
    weight: u64,
    text: String,
}

impl Wrong {
    /// About one segment.
    fn of(ids: u64, text: String) -> Self {
        Self { weight: ids, text }
    }

    /// About all of them, which is told before.
    fn of_all(text: String) -> Self {
        Self {
            weight: u64::MAX,
            text,
        }
    }
}

/// Segments that have lost too much, by themselves or together; and what was compared.
fn losses(guards: &Guards, now: &Sizes, before: &Sizes) -> (Vec<Wrong>, String) {
    let mut wrong = Vec::new();
    let (mut looked_at, mut gone, mut lost, mut all) = (0usize, 0usize, 0u64, 0u64);
    for (name, &live) in &before.segments {
        let this = now.segments.get(name).copied();
        let loss = live.saturating_sub(this.unwrap_or(0));
        (lost, all) = (lost.saturating_add(loss), all.saturating_add(live));
        let share = before.share(live);
        if share < SMALL_SHARE || by_chance(live as f64, live as f64) {
            continue;
        }
        looked_at += 1;
        let too_much = loss as f64 > guards.max_segment_lost * live as f64
            && !by_chance(loss as f64, live as f64);
        if this.is_none() {
            gone += 1;
            if share >= guards.large_segment_share {
                let had = percent(share);
                let text = format!("`{name}` with {had} of the live version's ids has vanished");
                wrong.push(Wrong::of(loss, text));
            }
        } else if too_much {
            let part = percent(loss as f64 / live as f64);
            let text = format!("`{name}` has lost {part} of its {live} ids");
            wrong.push(Wrong::of(loss, text));
        }
    }
    if gone > GONE_ANYWAY && gone as f64 > guards.max_segments_gone * looked_at as f64 {
        let most = percent(guards.max_segments_gone);
        let text = format!("{gone} of {looked_at} segments have vanished (at most {most} may)");
        wrong.push(Wrong::of_all(text));
    }
    let share = lost as f64 / all.max(1) as f64;
    let compared = format!(
        "all together segments have lost {} of their memberships (at most {} may be)",
        percent(share),
        percent(guards.max_memberships_lost)
    );
    if share > guards.max_memberships_lost && !by_chance(lost as f64, all as f64) {
        wrong.push(Wrong::of_all(compared.clone()));
    }
    (wrong, format!("{looked_at} segments compared; {compared}"))
}

/// Segments that have gained too much.
fn gains(guards: &Guards, now: &Sizes, before: &Sizes) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for (name, &ids) in &now.segments {
        let live = before.segments.get(name).copied().unwrap_or(0);
        let (share, was) = (now.share(ids), before.share(live));
        let gain = ids.saturating_sub(live);
        let by_luck = by_chance(ids as f64 - was * now.ids as f64, now.ids as f64);
        if share >= guards.max_segment_share && share - was > SUDDEN_SHARE && !by_luck {
            let (has, had) = (percent(share), percent(was));
            let text = format!("`{name}` has {has} of all ids, {had} in the live version");
            wrong.push(Wrong::of(gain, text));
        } else if live >= TRIAL_IDS
            && gain as f64 > guards.max_segment_gained * live as f64
            && share >= guards.large_segment_share
        {
            let text = format!("`{name}` has {ids} ids, {live} in the live version");
            wrong.push(Wrong::of(gain, text));
        }
    }
    wrong
}
