//! Judges the rows of an identity upload and writes an identity graph of them.
//!
//! All rows are sorted by ids first: an id that several persons claim is nobody's. What is left is sorted by persons, and of each
//! the ids beyond what one may have are left out, those with the highest keys; keys are hashes, so which they are is as good as
//! drawn by lot, and the same whatever the order of the rows. Then each person's group is written, and of all keys the table that leads to
//! them.
//!
//! Cost: two sorts of all rows on one core, and the memory that [`ROW_BYTES`](super::claims::ROW_BYTES) says; nothing is put on disk.

use super::super::format::{Body, Header};
use super::super::graph::layout::{
    Entry, Group, LINE, SLOTS, STEPS_MAX, Source, home, homes_for, spread,
};
use super::super::rows::{REJECTED_KEPT_MAX, Refused, RejectedRow};
use super::claims::Claim;
use super::collector::Tally;
use super::output::{HeadLast, Sections};
use super::{BuildError, RowReport, VersionMeta};
use crate::ids::KeyId;

/// Parts that progress is told of: two sorts, the groups, the table.
const PARTS: u64 = 4;
/// Rejected rows that are kept until the first of them are chosen.
const REJECTED_AT_ONCE: usize = 64 * REJECTED_KEPT_MAX;
/// How often the table is made larger until no key is too far from home. By chance, never.
const TABLES_TRIED: u32 = 8;

/// Most ids of one person.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdsMax {
    pub(super) in_all: usize,
    pub(super) of_source: usize,
}

/// What was read.
pub(super) struct Gathered {
    pub(super) key_id: KeyId,
    pub(super) claims: Vec<Claim>,
    /// Names of sources, by the numbers that claims have.
    pub(super) sources: Vec<Box<str>>,
    pub(super) tally: Tally,
    pub(super) ids_max: IdsMax,
}

/// Rows that turned out bad.
#[derive(Default)]
struct Rejections {
    rows: u64,
    first: Vec<(u32, u64, Refused)>,
}

impl Rejections {
    fn put(&mut self, claims: &[Claim], why: &Refused) {
        self.rows += claims.len() as u64;
        for claim in claims {
            self.first.push((claim.input, claim.line, why.clone()));
            if self.first.len() >= REJECTED_AT_ONCE {
                self.choose();
            }
        }
    }

    fn choose(&mut self) {
        self.first.sort_by_key(|(input, line, _)| (*input, *line));
        self.first.truncate(REJECTED_KEPT_MAX);
    }

    /// Adds them to what was found bad while rows were read.
    fn told(mut self, tally: &mut Tally) {
        self.choose();
        tally.rejected_rows += self.rows;
        let told = self
            .first
            .into_iter()
            .map(|(input, line, why)| RejectedRow {
                input,
                line,
                reason: why.to_string(),
            });
        tally.rejected.extend(told);
        tally.keep_first_rejected();
    }
}

/// Judges, writes, reports. `progress` is told how many of how many parts are done.
pub(super) fn write(
    meta: VersionMeta,
    gathered: Gathered,
    out: &mut dyn HeadLast,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RowReport, BuildError> {
    let Gathered {
        key_id,
        mut claims,
        sources,
        mut tally,
        ids_max,
    } = gathered;
    let mut rejections = Rejections::default();
    leave_out_contested(&mut claims, &mut rejections);
    progress(1, PARTS);
    let rows = leave_out_surplus(&mut claims, ids_max, sources.len(), &mut rejections);
    rejections.told(&mut tally);
    progress(2, PARTS);
    let mut report = RowReport {
        rows,
        ids: claims.len() as u64,
        segments: 0,
        merged: rows - claims.len() as u64,
        rejected_rows: tally.rejected_rows,
        rejected: tally.rejected,
    };
    if claims.is_empty() {
        let report = Box::new(std::mem::take(&mut report));
        return Err(BuildError::Empty { report });
    }
    let sources = in_order(&mut claims, sources);

    let mut file = Sections::begin(out)?;
    let (mut entries, persons) = groups(&claims, &mut file)?;
    drop(claims);
    progress(3, PARTS);
    entries.sort_unstable();
    let homes = homes(&entries)?;
    table(&entries, homes, &mut file)?;
    drop(entries);
    for source in &sources {
        file.write(&source.bytes().ok_or(BuildError::TooLarge)?)?;
    }
    file.end_section();
    progress(PARTS, PARTS);
    file.finish(|sections| {
        let header = Header {
            key_id,
            ids: report.ids,
            rows,
            memberships: report.ids,
            segments: 0,
            first_expiry: None,
            body: Body::Graph { homes, persons },
            meta,
            sections,
        };
        header.encode().ok_or(BuildError::TooLarge)
    })?;
    Ok(report)
}

/// An id of two persons is of neither.
fn leave_out_contested(claims: &mut Vec<Claim>, rejections: &mut Rejections) {
    claims.sort_unstable_by_key(|claim| (claim.id, claim.person));
    let (mut from, mut kept) = (0, 0);
    while from < claims.len() {
        let id = claims[from].id;
        let length = claims[from..].partition_point(|claim| claim.id == id);
        let run = from..from + length;
        // Sorted by person, too: where the first and the last agree all do.
        if claims[run.start].person == claims[run.end - 1].person {
            claims.copy_within(run.clone(), kept);
            kept += length;
        } else {
            rejections.put(&claims[run.clone()], &Refused::SecondPerson);
        }
        from = run.end;
    }
    claims.truncate(kept);
}

/// Leaves of each id one row, in the order of persons and of ids, and of each person no more ids than one may have. How many rows
/// they had.
fn leave_out_surplus(
    claims: &mut Vec<Claim>,
    ids_max: IdsMax,
    sources: usize,
    rejections: &mut Rejections,
) -> u64 {
    claims.sort_unstable();
    let mut of_source = vec![0usize; sources];
    let (mut from, mut kept, mut rows) = (0, 0, 0);
    while from < claims.len() {
        let person = claims[from].person;
        let of_person = claims[from..].partition_point(|claim| claim.person == person);
        let end = from + of_person;
        let first = kept;
        while from < end {
            let claim = claims[from];
            let length = claims[from..end].partition_point(|other| other.id == claim.id);
            let run = from..from + length;
            let same = &mut of_source[usize::from(claim.source)];
            let surplus = if *same >= ids_max.of_source {
                Some(Refused::TooManyOfSource(ids_max.of_source))
            } else if kept - first >= ids_max.in_all {
                Some(Refused::TooManyIds(ids_max.in_all))
            } else {
                None
            };
            match surplus {
                Some(why) => rejections.put(&claims[run.clone()], &why),
                None => {
                    *same += 1;
                    claims[kept] = claim;
                    kept += 1;
                    rows += length as u64;
                }
            }
            from = run.end;
        }
        for claim in &claims[first..kept] {
            of_source[usize::from(claim.source)] = 0;
        }
    }
    claims.truncate(kept);
    rows
}

/// Numbers sources in the order of names, those that are left, and counts their ids.
fn in_order(claims: &mut [Claim], names: Vec<Box<str>>) -> Vec<Source> {
    let mut counts = vec![0u64; names.len()];
    for claim in &*claims {
        counts[usize::from(claim.source)] += 1;
    }
    let counted = names.into_iter().zip(counts).enumerate();
    let mut left: Vec<(usize, Source)> = counted
        .map(|(number, (name, ids))| (number, Source { name, ids }))
        .filter(|(_, source)| source.ids > 0)
        .collect();
    left.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    let numbers = left.iter().map(|(number, _)| *number).max();
    let mut now = vec![0u16; numbers.map_or(0, |most| most + 1)];
    for (place, (number, _)) in (0u16..).zip(&left) {
        now[*number] = place;
    }
    for claim in claims {
        claim.source = now[usize::from(claim.source)];
    }
    left.into_iter().map(|(_, source)| source).collect()
}

/// Writes the groups; the entries of all keys, each with the bits that say where it is at home, and how many persons there are.
fn groups(
    claims: &[Claim],
    file: &mut Sections<'_>,
) -> Result<(Vec<(u64, Entry)>, u64), BuildError> {
    let persons = claims.chunk_by(|a, b| a.person == b.person);
    let count = persons.clone().count();
    let mut entries = Vec::with_capacity(claims.len() + count);
    let mut bytes = Vec::new();
    for group in persons {
        let at = file.length();
        let person = group.first().map_or(0, |claim| claim.person);
        bytes.clear();
        let ids = group.iter().map(|claim| (claim.id, claim.source));
        Group::write(&mut bytes, person, ids).ok_or(BuildError::TooLarge)?;
        file.write(&bytes)?;
        for key in std::iter::once(person).chain(group.iter().map(|claim| claim.id)) {
            let entry = Entry::new(key, at).ok_or(BuildError::TooLarge)?;
            entries.push((spread(key), entry));
        }
    }
    // The table begins on a line of the cache.
    let end = file.length().next_multiple_of(LINE as u64) - file.length();
    file.write(&[0; LINE][..end as usize])?;
    file.end_section();
    Ok((entries, count as u64))
}

/// How many homes there must be so that no key is too far from its own.
fn homes(entries: &[(u64, Entry)]) -> Result<u64, BuildError> {
    let mut homes = homes_for(entries.len() as u64);
    for _ in 0..TABLES_TRIED {
        let far = STEPS_MAX as u64;
        let mut placed = places(entries, homes);
        if placed.all(|(line, own, _)| line - own < far) {
            return Ok(homes);
        }
        homes = homes.checked_mul(2).ok_or(BuildError::TooLarge)?;
    }
    Err(BuildError::TooLarge)
}

/// Where each entry stands: its line, the line that it is at home in, and its place among all.
fn places(entries: &[(u64, Entry)], homes: u64) -> impl Iterator<Item = (u64, u64, u64)> + use<'_> {
    let slots = SLOTS as u64;
    let mut next = 0u64;
    entries.iter().map(move |(spread, _)| {
        let own = home(*spread, homes);
        let place = next.max(own * slots);
        next = place + 1;
        (place / slots, own, place)
    })
}

/// Writes the table.
fn table(entries: &[(u64, Entry)], homes: u64, file: &mut Sections<'_>) -> Result<(), BuildError> {
    let mut written = 0u64;
    for ((_, entry), (_, _, place)) in entries.iter().zip(places(entries, homes)) {
        for _ in written..place {
            file.write(&[0; 8])?;
        }
        file.write(&entry.bytes())?;
        written = place + 1;
    }
    let all = (homes + STEPS_MAX as u64 - 1) * SLOTS as u64;
    for _ in written..all {
        file.write(&[0; 8])?;
    }
    file.end_section();
    Ok(())
}
