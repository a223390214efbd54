//! From the ids of a request to the persons behind them: all their ids, and what was said of them since the versions were made.
//!
//! Ids that a link or an identity dataset says are one person's are a *group*, and are looked up as one; an id of which nobody knows
//! whose it is is a group of its own. A change of an id counts for its group: the latest for (group, segment) stands above what any of the
//! group's ids has in a version. The person of a request is the union of the groups.
//!
//! An erased id is left out, as if it had not come; where one of a group opted out, or its person, the whole request is of somebody who
//! does not want to be known.
//!
//! Cost: where nothing is known of anybody, one load; else one load from memory an id, asked for ahead, and for each id of a person that
//! did not come with the request another.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use arrayvec::ArrayVec;

use crate::clock::Timestamp;
use crate::generation::{Generation, LiveDataset, Meaning};
use crate::identity::IDS_MAX;
use crate::ids::UserKey;
use crate::people::{Change, Known, Reader, Standing};
use crate::privacy::Purposes;

/// A change as it was heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Heard {
    group: u8,
    number: u32,
    /// Later ones first.
    before: u64,
    add: bool,
}

/// What a group's ids are said to be in, or out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opinion {
    /// Whose.
    pub group: u8,
    /// Of a segment, or of a dataset as a whole.
    pub number: u32,
    /// Into it.
    pub add: bool,
    /// Of the row that said so.
    pub sequence: u64,
}

/// The persons behind a request. Scratch.
#[derive(Debug, Clone, Default)]
pub struct Persons {
    keys: ArrayVec<UserKey, IDS_MAX>,
    /// Of each key.
    groups: ArrayVec<u8, IDS_MAX>,
    /// Of each group, where it is known who that is.
    people: ArrayVec<Option<UserKey>, IDS_MAX>,
    opinions: Vec<Opinion>,
    /// A bit a key that some opinion puts out of something.
    out: u64,
    /// Whether any opinion puts somebody into something.
    has_adds: bool,
    /// Ids that were erased.
    pub(super) erased: u32,
    /// Whether the person does not want to be known.
    pub(super) opted_out: bool,
    heard: Vec<Heard>,
    /// Of the key that is read.
    record: Record,
}

/// What is said of one key.
#[derive(Debug, Clone, Default)]
struct Record {
    now: u32,
    changes: Vec<Change>,
    person: Option<UserKey>,
    members: Vec<UserKey>,
}

impl Reader for Record {
    fn begin(&mut self) {
        self.changes.clear();
        self.members.clear();
        self.person = None;
    }

    fn change(&mut self, change: Change) {
        if change.expires > self.now {
            self.changes.push(change);
        }
    }

    fn person(&mut self, person: UserKey, expires: u32) {
        self.person = (expires > self.now).then_some(person);
    }

    fn member(&mut self, id: UserKey, expires: u32) {
        if expires > self.now {
            self.members.push(id);
        }
    }
}

impl Record {
    fn read(&mut self, known: &Known, key: UserKey) -> Standing {
        let standing = known.read(key, self);
        if standing.is_none() {
            self.begin();
        }
        standing.unwrap_or_default()
    }
}

impl Persons {
    /// All keys to be looked up.
    pub fn keys(&self) -> &[UserKey] {
        &self.keys
    }

    /// The keys under which contacts are counted: those of the persons first, by which their other ids count too.
    pub(super) fn counted<'p>(&'p self, ids: &'p [UserKey]) -> impl Iterator<Item = UserKey> + 'p {
        let people = self.people.iter().flatten().copied();
        let came = ids.iter().copied();
        people.chain(came.filter(|id| self.keys.contains(id)))
    }

    /// What was said of them, and counts.
    pub fn opinions(&self) -> &[Opinion] {
        &self.opinions
    }

    /// Whether the person does not want to be known.
    pub fn has_opted_out(&self) -> bool {
        self.opted_out
    }

    /// Whether somebody was put into a segment.
    pub(super) fn has_adds(&self) -> bool {
        self.has_adds
    }

    /// Finds out who is behind these ids, by links and graphs that may be read for these purposes.
    pub(super) fn gather(
        &mut self,
        generation: &Generation,
        ids: &[UserKey],
        may: impl Fn(Purposes) -> bool,
        now: Timestamp,
    ) {
        self.clear();
        let known = &*generation.frame.people;
        if known.is_empty() && !generation.has_graphs() {
            self.keys.extend(ids.iter().copied().take(IDS_MAX));
            return;
        }
        for id in ids {
            known.prefetch(*id);
        }
        self.record.now = u32::try_from(now.unix_seconds()).unwrap_or(0);
        let mut probes: ArrayVec<_, IDS_MAX> = ArrayVec::new();
        probes.extend(
            ids.iter()
                .take(IDS_MAX)
                .map(|id| generation.probe_person(*id)),
        );
        for (id, probe) in ids.iter().zip(probes) {
            let standing = self.record.read(known, *id);
            if standing.erased {
                self.erased = self.erased.saturating_add(1);
                continue;
            }
            self.opted_out |= standing.opted_out;
            let linked = self.record.person.filter(|_| may(Purposes::PROFILE));
            let person = linked.or_else(|| generation.person_at(probe, &may));
            let group = self.group_of(person);
            self.add(*id, group);
        }
        for place in 0..self.people.len() {
            let person = self.people.get(place).copied().flatten();
            if let Some(person) = person {
                self.expand(generation, person, place, &may);
            }
        }
        self.resolve(generation);
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.groups.clear();
        self.people.clear();
        self.opinions.clear();
        self.heard.clear();
        self.out = 0;
        self.has_adds = false;
        self.erased = 0;
        self.opted_out = false;
    }

    /// The group of a person, or one more.
    fn group_of(&mut self, person: Option<UserKey>) -> u8 {
        let is_hers = |of: &Option<UserKey>| person.is_some() && *of == person;
        let place = self.people.iter().position(is_hers).unwrap_or_else(|| {
            let _ = self.people.try_push(person);
            self.people.len().saturating_sub(1)
        });
        u8::try_from(place).unwrap_or(u8::MAX)
    }

    /// Takes a key into a group, with what was just read of it.
    fn add(&mut self, key: UserKey, group: u8) {
        if self.keys.contains(&key) || self.keys.try_push(key).is_err() {
            return;
        }
        let _ = self.groups.try_push(group);
        self.hear(group);
    }

    fn hear(&mut self, group: u8) {
        let heard = self.record.changes.iter().map(|change| Heard {
            group,
            number: change.number,
            before: u64::MAX.saturating_sub(change.rank),
            add: change.add,
        });
        self.heard.extend(heard);
    }

    /// Takes in what else is known of a person: her other ids, and what is said of all of them.
    fn expand(
        &mut self,
        generation: &Generation,
        person: UserKey,
        place: usize,
        may: &impl Fn(Purposes) -> bool,
    ) {
        let known = &*generation.frame.people;
        let group = u8::try_from(place).unwrap_or(u8::MAX);
        let standing = self.record.read(known, person);
        self.opted_out |= standing.opted_out;
        if standing.erased {
            // Nobody, then: her ids are on their own.
            if let Some(of) = self.people.get_mut(place) {
                *of = None;
            }
            return;
        }
        let mut others: ArrayVec<UserKey, IDS_MAX> = ArrayVec::new();
        let live = std::mem::take(&mut self.record.members);
        let room = others.remaining_capacity();
        let live_may = may(Purposes::PROFILE);
        others.extend(live.iter().copied().take(room).filter(|_| live_may));
        self.record.members = live;
        self.add(person, group);
        generation.ids_of(person, may, |id, _| {
            if !others.contains(&id) {
                let _ = others.try_push(id);
            }
        });
        others.retain(|id| !self.keys.contains(id));
        for id in &others {
            known.prefetch(*id);
        }
        for id in others {
            let standing = self.record.read(known, id);
            let is_elsewhere = self.record.person.is_some_and(|of| of != person);
            if standing.erased || is_elsewhere {
                continue;
            }
            self.opted_out |= standing.opted_out;
            self.add(id, group);
        }
    }

    /// Of all that was heard, what counts: what the live versions do not cover, and of that the latest.
    fn resolve(&mut self, generation: &Generation) {
        if self.heard.is_empty() {
            return;
        }
        let counts = |heard: &Heard| {
            let sequence = u64::MAX.saturating_sub(heard.before);
            let meaning = generation.meaning(heard.number);
            meaning.is_none_or(|meaning| sequence > meaning.covers)
        };
        self.heard.retain(counts);
        self.heard.sort_unstable();
        self.heard.dedup_by_key(|heard| (heard.group, heard.number));
        for heard in &self.heard {
            let meaning = generation.meaning(heard.number);
            let whole = meaning.map_or(heard.number, |meaning| meaning.whole);
            let set = self.find(heard.group, whole);
            let is_later = set.is_some_and(|set| set.before < heard.before);
            if whole != heard.number && is_later {
                continue;
            }
            self.opinions.push(Opinion {
                group: heard.group,
                number: heard.number,
                add: heard.add,
                sequence: u64::MAX.saturating_sub(heard.before),
            });
        }
        for opinion in &self.opinions {
            if opinion.add {
                self.has_adds = true;
                continue;
            }
            for (bit, group) in (0u32..).zip(&self.groups) {
                if *group == opinion.group {
                    self.out |= 1u64.rotate_left(bit);
                }
            }
        }
    }

    fn find(&self, group: u8, number: u32) -> Option<&Heard> {
        let at = self
            .heard
            .binary_search_by_key(&(group, number), |heard| (heard.group, heard.number));
        self.heard.get(at.ok()?)
    }

    /// Whether some opinion puts this key, by its place, out of anything.
    #[inline]
    pub(super) fn may_be_out(&self, bit: u32) -> bool {
        self.out.rotate_right(bit) & 1 == 1
    }

    /// Whether this key, by its place, is not in a segment of a dataset, whatever the version says.
    pub(super) fn is_out(&self, bit: u32, dataset: &LiveDataset, number: u32) -> bool {
        let place = usize::try_from(bit).unwrap_or(usize::MAX);
        let Some(group) = self.groups.get(place).copied() else {
            return false;
        };
        let said = |number: u32| {
            let of = |opinion: &Opinion| (opinion.group, opinion.number);
            let at = self.opinions.binary_search_by_key(&(group, number), of);
            self.opinions.get(at.ok()?).map(|opinion| opinion.add)
        };
        said(number).or_else(|| said(dataset.whole)) == Some(false)
    }

    /// A bit for each key of a group.
    fn bits_of(&self, group: u8) -> u64 {
        let groups = (0u32..).zip(&self.groups);
        let own = groups.filter(|(_, of)| **of == group);
        own.fold(0, |bits, (bit, _)| bits | 1u64.rotate_left(bit))
    }

    /// What somebody was put into, with what that is in this generation (nothing: no live dataset has it, and no targeting names it) and
    /// a bit for each key of whom.
    pub(super) fn adds<'p>(
        &'p self,
        generation: &'p Generation,
    ) -> impl Iterator<Item = (Option<&'p Meaning>, u64)> {
        let adds = self.opinions.iter().filter(|opinion| opinion.add);
        adds.map(|of| (generation.meaning(of.number), self.bits_of(of.group)))
    }
}
