//! The plain account: everything that was ever said, looked through from the beginning whenever something is asked.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{Content, DATASETS, IDS, SEGMENTS};

/// A row that was taken.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) id: usize,
    /// Segments, and whether into it.
    pub(super) changes: Vec<(usize, bool)>,
    /// Datasets set as a whole.
    pub(super) sets: Vec<usize>,
    pub(super) writer: usize,
    pub(super) seq: u64,
    pub(super) sequence: u64,
    pub(super) until: i64,
}

impl Said {
    /// Whether a writer's row stands in place of another of his: of two with one number the first that came.
    fn beats(&self, other: &Self) -> bool {
        let at = |of: &Self| (of.seq, std::cmp::Reverse(of.sequence));
        at(self) > at(other)
    }
}

#[derive(Debug, Clone)]
struct Linked {
    id: usize,
    person: Option<usize>,
    until: i64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Version {
    pub(super) content: Content,
    pub(super) covers: u64,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    said: Vec<Said>,
    links: Vec<Linked>,
    pub(super) erased: BTreeSet<usize>,
    opted_out: BTreeSet<usize>,
    opted_out_people: BTreeSet<usize>,
    /// Of each dataset, those that are kept.
    pub(super) versions: [BTreeMap<u64, Version>; DATASETS],
    pub(super) live: [Option<u64>; DATASETS],
    /// Up to where all versions that were kept together had read.
    pub(super) forgotten: [u64; DATASETS],
}

impl Model {
    pub(super) fn said(&mut self, said: Said) {
        self.said.push(said);
    }

    pub(super) fn linked(&mut self, id: usize, person: Option<usize>, until: i64, now: i64) {
        self.links.push(Linked { id, person, until });
        // Who is linked to somebody who opted out has opted out, on either side, and for good.
        let Some(person) = person else { return };
        let hers = |other: &usize| self.person_of(*other, now) == Some(person);
        let group: Vec<usize> = (0..IDS).filter(hers).collect();
        let is_out = self.opted_out_people.contains(&person)
            || group.iter().any(|id| self.opted_out.contains(id));
        if is_out {
            self.opted_out_people.insert(person);
            self.opted_out.extend(group);
        }
    }

    pub(super) fn erase(&mut self, id: usize) {
        self.erased.insert(id);
    }

    pub(super) fn opt_out(&mut self, id: usize, now: i64) {
        self.opted_out.insert(id);
        if let Some(person) = self.person_of(id, now) {
            self.opted_out_people.insert(person);
            for other in 0..IDS {
                if self.person_of(other, now) == Some(person) {
                    self.opted_out.insert(other);
                }
            }
        }
    }

    pub(super) fn person_of(&self, id: usize, now: i64) -> Option<usize> {
        let last = self.links.iter().rfind(|link| link.id == id)?;
        let lasts = last.until > now && !self.erased.contains(&id);
        last.person.filter(|_| lasts)
    }

    /// When it counts as received: a writer's change stands above what was set by an earlier number, whenever that came.
    fn rank(&self, said: &Said) -> u64 {
        let Some((segment, _)) = said.changes.first() else {
            return said.sequence;
        };
        let dataset = SEGMENTS[*segment].0;
        let own = self
            .said
            .iter()
            .filter(|of| of.id == said.id && of.writer == said.writer);
        let sets = own.filter(|of| of.sets.contains(&dataset));
        let below = sets.clone().filter(|of| said.beats(of));
        // One that came after a later number's changed nothing.
        let counted = below.filter(|of| {
            let mut others = sets.clone();
            !others.any(|other| other.sequence < of.sequence && other.seq >= of.seq)
        });
        counted.map(|of| of.sequence).fold(said.sequence, u64::max)
    }

    /// What counts of an id and a segment: the rank of the latest, and whether into it.
    fn opinion(&self, id: usize, segment: usize, now: i64) -> Option<(u64, bool)> {
        let (dataset, _) = SEGMENTS[segment];
        let covers = self.live[dataset].map_or(0, |live| self.versions[dataset][&live].covers);
        let covers = covers.max(self.forgotten[dataset]);
        let mut best: Option<(u64, bool)> = None;
        for said in self.said.iter().filter(|said| said.id == id) {
            let own = || {
                self.said
                    .iter()
                    .filter(|of| of.id == id && of.writer == said.writer)
            };
            let is_later = |of: &&Said| of.beats(said);
            let set_later = own().filter(is_later).any(|of| of.sets.contains(&dataset));
            let change = said.changes.iter().find(|(of, _)| *of == segment);
            let changed_later = || {
                let of_it = |of: &Said| of.changes.iter().any(|(of, _)| *of == segment);
                own().filter(is_later).any(of_it)
            };
            let mut candidates = Vec::new();
            if let Some((_, add)) = change.filter(|_| !set_later && !changed_later()) {
                let of_it = Said {
                    changes: vec![(segment, *add)],
                    ..said.clone()
                };
                candidates.push((self.rank(&of_it), *add, true));
            }
            if said.sets.contains(&dataset) && !set_later {
                candidates.push((said.sequence, false, false));
            }
            for (rank, add, is_change) in candidates {
                let counts = said.until > now && rank > covers;
                // A change stands above a set of the same rank.
                let is_best =
                    best.is_none_or(|(other, _)| rank > other || rank == other && is_change);
                if counts && is_best {
                    best = Some((rank, add));
                }
            }
        }
        best
    }

    /// Whether whoever has these ids may be known at all.
    pub(super) fn may_be_known(&self, ids: &[usize], now: i64) -> bool {
        // Also of an id that was erased besides.
        !ids.iter().any(|id| {
            let person = self.person_of(*id, now);
            let others =
                (0..IDS).filter(|other| person.is_some() && self.person_of(*other, now) == person);
            self.opted_out.contains(id)
                || others
                    .into_iter()
                    .any(|other| self.opted_out.contains(&other))
                || person.is_some_and(|person| self.opted_out_people.contains(&person))
        })
    }

    /// Whether a request with these ids is of somebody in the segment.
    pub(super) fn is_in(&self, ids: &[usize], segment: usize, now: i64) -> bool {
        let (dataset, _) = SEGMENTS[segment];
        ids.iter().filter(|id| !self.erased.contains(id)).any(|id| {
            let person = self.person_of(*id, now);
            let hers = |other: &usize| {
                *other == *id || person.is_some() && self.person_of(*other, now) == person
            };
            let group: Vec<usize> = (0..IDS)
                .filter(hers)
                .filter(|id| !self.erased.contains(id))
                .collect();
            let opinions = group
                .iter()
                .filter_map(|id| self.opinion(*id, segment, now));
            match opinions.max_by_key(|(rank, _)| *rank) {
                Some((_, add)) => add,
                None => self.live[dataset].is_some_and(|live| {
                    let content = &self.versions[dataset][&live].content;
                    group.iter().any(|id| content.contains(&(*id, segment)))
                }),
            }
        })
    }
}
