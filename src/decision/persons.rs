//! From the ids of a request to the persons behind them: all their ids, and what was said of them since the versions were made.
//!
//! Ids that a link or an identity dataset says are one person's are a *group*, and are looked up as one; an id of which nobody knows
//! whose it is is a group of its own. A change of an id counts for its group: the latest for (group, segment) stands above what any of the
//! group's ids has in a version. The person of a request is the union of the groups.
//!
//! An erased id is left out, as if it had not come; where one of a group opted out, or its person, the whole request is of somebody who
//! does not want to be known. For that all links and graphs are asked, also those that may not be read otherwise: consent that is
//! missing must not undo an objection.
//!
//! Cost: where nothing is known of anybody, one load. Else the bucket and the place in the graph of each id, and for each person her
//! group and the buckets of her and of those of her ids that did not come with the request. All of these are loads from memory, asked for
//! a step ahead ([`Persons::begin`], [`Persons::approach`], [`Persons::gather`]): what is done between two steps costs no time.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use arrayvec::ArrayVec;

use crate::audience::{GraphApproach, GraphProbe};
use crate::clock::Timestamp;
use crate::generation::{Generation, LiveDataset, Meaning};
use crate::identity::IDS_MAX;
use crate::ids::UserKey;
use crate::people::{Approached, Change, Known, Reader, Standing};
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

/// An id that came, while it is being looked for.
#[derive(Debug, Clone, Copy)]
struct Sought {
    key: UserKey,
    said: Approached,
    probe: Option<GraphProbe>,
    approach: Option<GraphApproach>,
}

/// The persons behind a request. Scratch.
#[derive(Debug, Clone, Default)]
pub struct Persons {
    keys: ArrayVec<UserKey, IDS_MAX>,
    /// Of each key.
    groups: ArrayVec<u8, IDS_MAX>,
    /// Of each group, where it is known who that is.
    people: ArrayVec<Option<UserKey>, IDS_MAX>,
    /// What came and is not found yet.
    sought: Vec<Sought>,
    /// By group: ids of her that did not come with the request.
    others: Vec<(u8, UserKey)>,
    opinions: Vec<Opinion>,
    /// A bit a key that some opinion puts out of something.
    out: u64,
    /// Whether any opinion puts somebody into something.
    has_adds: bool,
    /// Ids that were erased.
    pub(super) erased: u32,
    /// Whether the person does not want to be known.
    pub(super) opted_out: bool,
    /// Whether she has more ids than are looked up.
    pub(super) is_cut: bool,
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
        self.read_at(known, key, known.approach(key))
    }

    fn read_at(&mut self, known: &Known, key: UserKey, said: Approached) -> Standing {
        let standing = known.read_at(key, said, self);
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

    /// The keys under which contacts are counted: those of the persons first, then the ids that came, then their others, which may have been
    /// counted before it was known whose they are.
    pub fn counted<'p>(&'p self, came: &'p [UserKey]) -> impl Iterator<Item = UserKey> + 'p {
        let people = self.people.iter().flatten();
        let used = came
            .iter()
            .filter(|id| self.erased == 0 || self.keys.contains(id));
        let is_other = |id: &&UserKey| !came.contains(id) && !self.people.contains(&Some(**id));
        let others = self.keys.iter().filter(is_other);
        people.chain(used).chain(others).copied()
    }

    /// How many of the ids were erased.
    pub fn erased(&self) -> u32 {
        self.erased
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

    /// Begins to find out who is behind these ids, at most [`IDS_MAX`]. Until [`gather`](Self::gather) they are taken for themselves.
    pub(super) fn begin(&mut self, generation: &Generation, ids: &[UserKey]) {
        self.clear();
        self.keys.extend(ids.iter().copied().take(IDS_MAX));
        let known = &*generation.frame.people;
        if known.is_empty() && !generation.has_graphs() {
            return;
        }
        for key in self.keys.iter().copied() {
            known.prefetch(key);
            self.sought.push(Sought {
                key,
                said: Approached::default(),
                probe: generation.probe_person(key),
                approach: None,
            });
        }
    }

    /// Whether that is not found out yet.
    #[inline]
    pub(super) fn is_sought(&self) -> bool {
        !self.sought.is_empty()
    }

    /// The second step.
    pub(super) fn approach(&mut self, generation: &Generation) {
        let known = &*generation.frame.people;
        for sought in &mut self.sought {
            sought.said = known.approach(sought.key);
            sought.approach = generation.approach_person(sought.probe);
        }
    }

    /// The last step: who they are, by links and graphs that may be read for these purposes.
    pub(super) fn gather(
        &mut self,
        generation: &Generation,
        may: impl Fn(Purposes) -> bool,
        now: Timestamp,
    ) {
        if self.sought.is_empty() {
            return;
        }
        self.record.now = u32::try_from(now.unix_seconds()).unwrap_or(0);
        let mut graphs = generation.graphs.iter();
        let sees_all = may(Purposes::PROFILE) && graphs.all(|live| may(live.purposes));
        if !sees_all && !generation.frame.people.is_empty() {
            self.walk(generation, &|_| true);
        }
        if !self.opted_out {
            self.walk(generation, &may);
            self.resolve(generation);
        }
        self.sought.clear();
    }

    /// Finds the persons behind what is sought, and what is said of all their ids.
    fn walk(&mut self, generation: &Generation, may: &impl Fn(Purposes) -> bool) {
        let known = &*generation.frame.people;
        self.forget();
        for at in 0..self.sought.len() {
            let Some(of) = self.sought.get(at).copied() else {
                continue;
            };
            if of.said.is_nothing() && generation.is_nobodys(of.approach.as_ref()) {
                // As nearly all are: nobody knows whose it is.
                let group = u8::try_from(self.people.len()).unwrap_or(u8::MAX);
                let _ = self.people.try_push(None);
                let _ = self.keys.try_push(of.key);
                let _ = self.groups.try_push(group);
                continue;
            }
            let standing = self.record.read_at(known, of.key, of.said);
            // Also of one that was erased: that was asked for besides, not instead.
            self.opted_out |= standing.opted_out;
            if standing.erased {
                self.erased = self.erased.saturating_add(1);
                continue;
            }
            let linked = self.record.person.filter(|_| may(Purposes::PROFILE));
            let person = match linked {
                Some(person) => Some((person, None)),
                None => generation.person_at(of.key, of.approach, may),
            };
            let group = self.group_of(generation, person, may);
            self.add(of.key, group);
        }
        for place in 0..self.people.len() {
            let person = self.people.get(place).copied().flatten();
            if let Some(person) = person {
                self.expand(known, person, place, may);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.forget();
        self.sought.clear();
        self.opted_out = false;
    }

    /// All that was found so far, but that somebody opted out.
    fn forget(&mut self) {
        self.keys.clear();
        self.groups.clear();
        self.people.clear();
        self.others.clear();
        self.opinions.clear();
        self.heard.clear();
        self.out = 0;
        self.has_adds = false;
        self.erased = 0;
        self.is_cut = false;
    }

    /// The group of a person, or one more. Of a new one her bucket and those of her ids are asked for.
    fn group_of(
        &mut self,
        generation: &Generation,
        person: Option<(UserKey, Option<GraphApproach>)>,
        may: &impl Fn(Purposes) -> bool,
    ) -> u8 {
        let key = person.map(|(key, _)| key);
        if let Some(place) = self
            .people
            .iter()
            .position(|of| *of == key && key.is_some())
        {
            return u8::try_from(place).unwrap_or(u8::MAX);
        }
        let group = u8::try_from(self.people.len()).unwrap_or(u8::MAX);
        let _ = self.people.try_push(key);
        if let Some((person, approach)) = person {
            let known = &*generation.frame.people;
            known.prefetch(person);
            let (others, sought) = (&mut self.others, &self.sought);
            generation.ids_at(person, approach, may, |id, _| {
                if !sought.iter().any(|of| of.key == id) {
                    known.prefetch(id);
                    others.push((group, id));
                }
            });
        }
        group
    }

    /// Takes a key into a group, with what was just read of it.
    fn add(&mut self, key: UserKey, group: u8) {
        if self.keys.contains(&key) {
            return;
        }
        if self.keys.try_push(key).is_err() {
            self.is_cut = true;
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

    /// Takes in what else is known of a person: her other ids, by links and by graphs, and what is said of all of them.
    fn expand(
        &mut self,
        known: &Known,
        person: UserKey,
        place: usize,
        may: &impl Fn(Purposes) -> bool,
    ) {
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
        let mut live = std::mem::take(&mut self.record.members);
        if !may(Purposes::PROFILE) {
            live.clear();
        }
        self.add(person, group);
        for id in &live {
            known.prefetch(*id);
        }
        for id in &live {
            self.add_other(known, *id, person, group);
        }
        self.record.members = live;
        for at in 0..self.others.len() {
            if let Some((_, id)) = self.others.get(at).filter(|(of, _)| *of == group) {
                self.add_other(known, *id, person, group);
            }
        }
    }

    /// Takes in an id of a person that did not come with the request, unless it is somebody else's by now.
    fn add_other(&mut self, known: &Known, id: UserKey, person: UserKey, group: u8) {
        if self.keys.contains(&id) {
            return;
        }
        let standing = self.record.read(known, id);
        let is_elsewhere = self.record.person.is_some_and(|of| of != person);
        self.opted_out |= standing.opted_out && !is_elsewhere;
        if !standing.erased && !is_elsewhere {
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
