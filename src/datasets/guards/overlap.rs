//! Whether a version speaks of the same people as the live one, and says the same of them.
//!
//! Counts cannot tell a version whose ids come from another space, or whose segment names have been swapped round: all
//! of them are as they were. So [the people kept](crate::audience::Seen) while rows were read are looked up in the
//! live version. *Overlap* is the share that it knows. *Agreement* is how far, of those it knows, the sets are the
//! same, with what chance alone would give taken out (Cohen's κ over person and segment): 1 is as before, 0 as if
//! every segment's members had been drawn anew. A plain share of equal memberships would not do: where most people are
//! in most segments, it is high for any two versions.
//!
//! Two segments swapped among two hundred change the agreement by a hundredth. They are found by where their members
//! are now: a round of names in which the members of each are now those of the next.

use std::collections::BTreeMap;

use super::super::manifest::Check;
use super::{MEND, by_chance, check, first, passed, percent};
use crate::audience::{Audience, Lookup, Seen};
use crate::clock::Timestamp;
use crate::config::Guards;

/// Where chance alone makes fewer disagreements than this, their number says nothing.
const BY_CHANCE_MIN: f64 = 16.0;
/// Members of a segment among the people compared from which they can be followed.
const MEMBERS_MIN: u32 = 20;
/// Segments that are followed, the largest: a table of 4 MiB.
const FOLLOWED_MAX: usize = 1024;
/// Agreement below which a segment's members are others than before.
const OTHERS: f64 = 0.5;
/// Agreement with another segment from which it has this one's members.
const SAME: f64 = 0.7;

/// What came of looking people up in the live version.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Compared {
    /// People looked up.
    pub(super) asked: u64,
    /// Those whom the live version knows.
    pub(super) found: u64,
    /// The share of this version's ids that it could know, having fewer.
    pub(super) possible: f64,
    /// How far the sets of those agree; `None` where too little was compared.
    pub(super) agreement: Option<f64>,
    /// Segments whose members are now those of the next in the round.
    pub(super) swapped: Vec<Vec<String>>,
}

/// Who is in a segment that both versions have, among the people compared.
#[derive(Debug, Clone, Copy, Default)]
struct Members {
    live: u32,
    this: u32,
    both: u32,
}

impl Members {
    /// Disagreements found among `people`, and those that chance would make.
    fn disagreements(self, people: f64) -> (f64, f64) {
        let (live, this, both) = (
            f64::from(self.live),
            f64::from(self.this),
            f64::from(self.both),
        );
        let by_chance = (live * (people - this) + this * (people - live)) / people.max(1.0);
        (live + this - 2.0 * both, by_chance)
    }

    fn agreement(self, people: f64) -> f64 {
        let (found, by_chance) = self.disagreements(people);
        if by_chance > 0.0 {
            1.0 - found / by_chance
        } else {
            1.0
        }
    }
}

/// The segments of one person in both versions, by a number that both share.
struct Both {
    live: Vec<u32>,
    this: Vec<u32>,
}

/// Looks the people of an upload up in the live version.
pub(super) fn compare(seen: &Seen, live: &Audience, ids: u64, now: Timestamp) -> Compared {
    // Segments that only one of the two has are for another check to judge.
    let names: Vec<&str> = live.segments().collect();
    let number: Vec<Option<u32>> = seen
        .segments
        .iter()
        .map(|n| live.segment_index(n.as_str()))
        .collect();
    let mut in_this = vec![false; names.len()];
    for at in number.iter().flatten() {
        if let Some(is) = in_this.get_mut(*at as usize) {
            *is = true;
        }
    }
    let is_common = |at: u32| in_this.get(at as usize).copied().unwrap_or(false);
    let seconds = now.unix_seconds();
    let (mut found, mut people) = (0, Vec::new());
    for person in &seen.people {
        let (mut before, mut any_before) = (Vec::new(), false);
        let lookup = live.lookup(person.key, now, |at| {
            any_before = true;
            if is_common(at) {
                before.push(at);
            }
        });
        if lookup != Lookup::Found {
            continue;
        }
        found += 1;
        let lasting = person
            .memberships
            .iter()
            .filter(|(_, expires)| *expires > seconds);
        let lasting: Vec<u32> = lasting.map(|(segment, _)| *segment).collect();
        // Whose memberships have all expired is in nothing, whatever it was.
        if any_before && !lasting.is_empty() {
            let after = lasting.iter().filter_map(|at| *number.get(*at as usize)?);
            people.push(Both {
                live: before,
                this: after.collect(),
            });
        }
    }
    let members = members(&people, names.len());
    let count = people.len() as f64;
    let (mut disagreements, mut by_chance) = (0.0, 0.0);
    for of in &members {
        let (found, expected) = of.disagreements(count);
        disagreements += found;
        by_chance += expected;
    }
    let rounds = rounds(&people, &members);
    let named = |round: Vec<u32>| {
        round
            .iter()
            .filter_map(|at| Some((*names.get(*at as usize)?).to_owned()))
            .collect()
    };
    Compared {
        asked: seen.people.len() as u64,
        found,
        possible: (live.ids() as f64 / ids.max(1) as f64).min(1.0),
        agreement: (by_chance >= BY_CHANCE_MIN).then_some(1.0 - disagreements / by_chance),
        swapped: rounds.into_iter().map(named).collect(),
    }
}

fn members(people: &[Both], segments: usize) -> Vec<Members> {
    let mut members = vec![Members::default(); segments];
    let mut is_before = vec![false; segments];
    for person in people {
        for &at in &person.live {
            if let (Some(of), Some(is)) =
                (members.get_mut(at as usize), is_before.get_mut(at as usize))
            {
                of.live += 1;
                *is = true;
            }
        }
        for &at in &person.this {
            if let Some(of) = members.get_mut(at as usize) {
                of.this += 1;
                of.both += u32::from(is_before.get(at as usize).copied().unwrap_or(false));
            }
        }
        for &at in &person.live {
            if let Some(is) = is_before.get_mut(at as usize) {
                *is = false;
            }
        }
    }
    members
}

/// The rounds in which segments have been swapped.
///
/// A round, and not a mere step from one name to another: where segments are "a day ago" and "two days ago", each day's
/// members honestly move on to the next name.
fn rounds(people: &[Both], members: &[Members]) -> Vec<Vec<u32>> {
    let count = people.len() as f64;
    let moved = |at: &u32| {
        members.get(*at as usize).is_some_and(|of| {
            of.live >= MEMBERS_MIN && of.this >= MEMBERS_MIN && of.agreement(count) < OTHERS
        })
    };
    let mut others: Vec<u32> = (0u32..).take(members.len()).filter(moved).collect();
    if others.len() > FOLLOWED_MAX {
        let size = |at: &u32| members.get(*at as usize).map_or(0, |of| of.live);
        others.sort_by_key(|at| (std::cmp::Reverse(size(at)), *at));
        others.truncate(FOLLOWED_MAX);
        others.sort_unstable();
    }
    let place = |at: &u32| others.binary_search(at).ok();
    // How many members of one, a row, are now in another, a column.
    let mut now_in = vec![0u32; others.len() * others.len()];
    for person in people {
        let columns: Vec<usize> = person.this.iter().filter_map(place).collect();
        for row in person.live.iter().filter_map(place) {
            for column in &columns {
                if let Some(both) = now_in.get_mut(row * others.len() + column) {
                    *both += 1;
                }
            }
        }
    }
    // Of each: where most of its members are.
    let mut follows: BTreeMap<u32, u32> = BTreeMap::new();
    for (from, row) in others.iter().zip(now_in.chunks(others.len().max(1))) {
        let live = members.get(*from as usize).map_or(0, |of| of.live);
        let across = others.iter().zip(row).map(|(to, &both)| {
            let this = members.get(*to as usize).map_or(0, |of| of.this);
            let agreement = Members { live, this, both }.agreement(count);
            (*to, agreement)
        });
        let (to, agreement) = across
            .filter(|(to, _)| to != from)
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or((*from, 0.0));
        if agreement >= SAME {
            follows.insert(*from, to);
        }
    }
    let mut rounds = Vec::new();
    for &start in follows.keys() {
        let mut round = vec![start];
        let mut at = start;
        while let Some(&next) = follows.get(&at) {
            if next == start {
                // Each round once: told from its first name on.
                if round.iter().min() == Some(&start) {
                    rounds.push(round);
                }
                break;
            }
            if round.len() > follows.len() {
                break;
            }
            round.push(next);
            at = next;
        }
    }
    rounds
}

/// People whom the live version does not know come from another id space; people of whom it says something else, from
/// segments that have been renamed.
pub(super) fn overlap(guards: &Guards, compared: Option<&Result<Compared, &str>>) -> Check {
    const NAME: &str = "overlap";
    let compared = match compared {
        None => return first(NAME),
        Some(Err(why)) => return passed(NAME, &format!("not known: {why}")),
        Some(Ok(compared)) if compared.asked == 0 => {
            return passed(
                NAME,
                "not known: no person has few enough segments to be compared",
            );
        }
        Some(Ok(compared)) => compared,
    };
    let (asked, found) = (compared.asked as f64, compared.found as f64);
    let expected = compared.possible * asked;
    let strangers = found < guards.min_overlap * expected && !by_chance(expected - found, asked);
    let asked_for = guards.min_agreement > 0.0;
    let agreement = compared.agreement.filter(|_| asked_for);
    let differs = agreement.is_some_and(|a| a < guards.min_agreement);
    let mut told = vec![format!(
        "the live version knows {} of {} people looked up, {} of those whom it could know (at least {} should be)",
        compared.found,
        compared.asked,
        percent(found / expected.max(1.0)),
        percent(guards.min_overlap)
    )];
    told.push(match compared.agreement {
        Some(agreement) => format!(
            "their segments agree to {agreement:.2} (1 is as before, 0 as if dealt anew; at least {:.2} should be)",
            guards.min_agreement
        ),
        None => "too few of their segments can be compared".to_owned(),
    });
    let swapped = asked_for && !compared.swapped.is_empty();
    if swapped {
        let round = |round: &Vec<String>| {
            let names: Vec<String> = round
                .iter()
                .chain(round.first())
                .map(|n| format!("`{n}`"))
                .collect();
            names.join(" are now in ")
        };
        let rounds: Vec<String> = compared.swapped.iter().take(3).map(round).collect();
        told.push(format!(
            "segments have been swapped round: the members of {}",
            rounds.join("; of ")
        ));
    }
    let advice = if strangers {
        format!("check from which source, in which spelling or hash, the ids are; {MEND}")
    } else {
        format!("check which name each segment is exported under; {MEND}")
    };
    check(
        NAME,
        !(strangers || differs || swapped),
        told.join("; "),
        &advice,
    )
}
