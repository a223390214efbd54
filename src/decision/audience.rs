//! From user keys to the segments that line items ask about: a lookup of every id in every live dataset, gathered into
//! two sets of bits over the book's slots.
//!
//! A person's segments are the union over ids and datasets. A dataset whose bytes turn out damaged makes every segment of
//! it unreadable, which is null to targeting, never "not in it". So is every segment of a dataset whose purposes are not
//! granted, and nothing is looked up in it.
//!
//! Filters come after the exact datasets, which may have to confirm them: `filters`.

use super::bits::Bits;
use super::persons::Persons;
use crate::audience::{Approach, Audience, FilterProbe, Lookup, Probe};
use crate::clock::Timestamp;
use crate::generation::{Generation, LiveDataset, Members, NO_SLOT};
use crate::ids::UserKey;
use crate::privacy::{Open, Purposes};

/// What lookups answered, by dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LookupCounts {
    /// The id was in the version.
    pub found: u32,
    /// It was not.
    pub absent: u32,
    /// The version's bytes made no sense.
    pub damaged: u32,
}

/// The segments of the person behind a request. Scratch: grown to the book once and then reused.
#[derive(Debug, Default)]
pub struct Membership {
    /// A bit a slot: the person is in it.
    pub member: Bits,
    /// A bit a slot: it cannot be read.
    pub unreadable: Bits,
    /// Whether the person is in any segment of any dataset, named by targeting or not.
    pub any: bool,
    /// Who is behind the request.
    pub(super) persons: Persons,
    /// Whether the purposes are granted that datasets need of which nothing else is known.
    pub(super) may_profile: bool,
    /// Whether some dataset could not tell whether the person is in a segment of it.
    pub(super) in_doubt: bool,
    /// Lookups by the dataset's place in the generation.
    pub lookups: Vec<LookupCounts>,
    /// Lookups of the ids that came with the request, and of others that turned out to be the same person's.
    pub(super) batches: [Batch; 2],
    /// By the dataset's place in the generation: whether it may be read.
    pub(super) readable: Vec<bool>,
    /// By the dataset's place in the generation: a bit an id that is in some segment of it. `None` where that cannot be
    /// told.
    pub(super) holds: Vec<Option<u64>>,
}

/// Lookups of some of the keys in all datasets that may be read, under way.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The place of the first key, and how many there are.
    from: usize,
    pub(super) count: usize,
    /// One for each dataset and key, in that order.
    probes: Vec<Probe>,
    /// The same, a step further.
    approaches: Vec<Approach>,
    /// As `probes`, of the filters.
    pub(super) filter_probes: Vec<FilterProbe>,
}

impl Batch {
    fn clear(&mut self) {
        (self.from, self.count) = (0, 0);
        self.probes.clear();
        self.approaches.clear();
        self.filter_probes.clear();
    }

    /// The bits of its keys: there are no more than 64 in all.
    pub(super) fn bits(&self) -> impl Iterator<Item = u32> + use<> {
        let from = u32::try_from(self.from).unwrap_or(u32::MAX);
        from..64
    }

    /// Of as many to a dataset as there are keys, those of one.
    pub(super) fn of<'b, T>(&self, all: &'b [T], place: usize) -> &'b [T] {
        let rest = all.get(place.saturating_mul(self.count)..);
        let rest = rest.unwrap_or_default();
        rest.get(..self.count).unwrap_or(rest)
    }
}

impl Membership {
    /// Forgets the last request and makes room for this generation's slots.
    pub(super) fn clear(&mut self, generation: &Generation) {
        let slots = generation.book.segments.len();
        self.member.clear(slots);
        self.unreadable.clear(slots);
        self.any = false;
        self.in_doubt = false;
        self.batches.iter_mut().for_each(Batch::clear);
        self.readable.clear();
        self.may_profile = false;
        self.persons.clear();
        self.holds.clear();
        self.holds.resize(generation.datasets.len(), None);
        self.lookups.clear();
        self.lookups
            .resize(generation.datasets.len(), LookupCounts::default());
    }

    /// Which datasets may be read under this leave: those of which every purpose is granted. Whether any may.
    pub(super) fn admit(&mut self, generation: &Generation, leave: Open) -> bool {
        let readable = |dataset: &LiveDataset| leave.may(dataset.purposes);
        self.readable
            .extend(generation.datasets.iter().map(readable));
        self.may_profile = leave.may(Purposes::PROFILE);
        if !leave.may(Purposes::ALL) {
            for (slot, needed) in (0u32..).zip(&generation.slot_purposes) {
                if !leave.may(*needed) {
                    self.unreadable.insert(slot);
                }
            }
        }
        let has_people = !generation.frame.people.is_empty() && self.may_profile;
        self.readable.contains(&true) || has_people
    }

    /// Begins to look up every id that came in every dataset that may be read. Each of the three steps of a lookup waits for a load from
    /// memory that the step before has asked for: what is done between two steps costs no time.
    pub(super) fn probe(&mut self, generation: &Generation) {
        let [first, _] = &mut self.batches;
        probe(generation, &self.readable, self.persons.keys(), first);
    }

    /// Begins to look up what else is the person's, now that it is known who that is.
    pub(super) fn probe_more(&mut self, generation: &Generation) {
        let [first, more] = &mut self.batches;
        if self.persons.erased > 0 {
            // The places of those that came are others by now.
            first.clear();
        }
        more.from = first.count;
        let keys = self.persons.keys().get(first.count..);
        probe(generation, &self.readable, keys.unwrap_or_default(), more);
    }

    /// The second step, of those that have taken the first.
    pub(super) fn approach(&mut self, generation: &Generation) {
        for batch in &mut self.batches {
            if !batch.approaches.is_empty() || batch.count == 0 {
                continue;
            }
            for (place, (_, _, audience)) in exact(generation, &self.readable).enumerate() {
                let own = batch.of(&batch.probes, place).iter();
                let own = own.map(|probe| audience.approach(*probe));
                batch.approaches.extend(own);
            }
        }
    }

    /// Whether the person is in any segment: not known where she is in none of those that could tell, and others could not
    /// or may not.
    pub(super) fn any(&self) -> Option<bool> {
        let all_told = !self.in_doubt && !self.readable.contains(&false);
        (self.any || all_told).then_some(self.any)
    }

    /// Whether any dataset knows any of the ids.
    pub(super) fn is_known(&self) -> bool {
        self.persons.has_adds() || self.lookups.iter().any(|counts| counts.found > 0)
    }

    /// The last step: gathers what is found.
    pub(super) fn look_up(&mut self, generation: &Generation, now: Timestamp) {
        for (nth, (place, dataset, audience)) in exact(generation, &self.readable).enumerate() {
            let mut none = LookupCounts::default();
            let counts = self.lookups.get_mut(place).unwrap_or(&mut none);
            let mut holds = Some(0u64);
            let batches = self.batches.iter();
            let own = batches.flat_map(|batch| batch.bits().zip(batch.of(&batch.approaches, nth)));
            for (bit, approach) in own {
                let member = &mut self.member;
                let mut in_some = false;
                let persons = &self.persons;
                let may_be_out = persons.may_be_out(bit);
                let lookup = audience.lookup_at(*approach, now, |rank| {
                    let rank = usize::try_from(rank).unwrap_or(usize::MAX);
                    if may_be_out
                        && let Some(number) = dataset.numbers.get(rank)
                        && persons.is_out(bit, dataset, *number)
                    {
                        return;
                    }
                    in_some = true;
                    let slot = dataset.slots.get(rank);
                    // Where there is none, nothing is put in.
                    member.insert(slot.copied().unwrap_or(NO_SLOT));
                });
                match lookup {
                    Lookup::Found => {
                        self.any |= in_some;
                        counts.found = counts.found.saturating_add(1);
                        let own = u64::from(in_some).rotate_left(bit);
                        holds = holds.map(|holds| holds | own);
                    }
                    Lookup::Absent => counts.absent = counts.absent.saturating_add(1),
                    Lookup::Damaged => {
                        counts.damaged = counts.damaged.saturating_add(1);
                        holds = None;
                        self.in_doubt = true;
                        for slot in &dataset.slots {
                            self.unreadable.insert(*slot);
                        }
                    }
                }
            }
            if let Some(place) = self.holds.get_mut(place) {
                *place = holds;
            }
        }
        if self.persons.has_adds() {
            self.hold_what_was_added(generation);
        }
        self.look_up_filters(generation);
        if self.persons.has_adds() {
            self.put_into_what_was_added(generation);
        }
        if self.persons.is_cut {
            // What is known of the ids that were left out is not known of her now.
            self.in_doubt = true;
            let slots = u32::try_from(generation.book.segments.len()).unwrap_or(u32::MAX);
            for slot in (0..slots).filter(|slot| !self.member.contains(*slot)) {
                self.unreadable.insert(slot);
            }
        }
    }

    /// Who was put into some segment of a dataset is in it, for filters that it confirms.
    fn hold_what_was_added(&mut self, generation: &Generation) {
        for (meaning, keys) in self.persons.adds(generation) {
            let place = meaning.and_then(|meaning| usize::try_from(meaning.dataset?).ok());
            if let Some(holds) = place.and_then(|place| self.holds.get_mut(place)) {
                *holds = holds.map(|holds| holds | keys);
            }
        }
    }

    fn put_into_what_was_added(&mut self, generation: &Generation) {
        for (meaning, _) in self.persons.adds(generation) {
            let place = meaning.and_then(|meaning| usize::try_from(meaning.dataset?).ok());
            let may = match place {
                Some(place) => self.readable.get(place).copied().unwrap_or(false),
                None => self.may_profile,
            };
            if may {
                self.any = true;
                self.member
                    .insert(meaning.map_or(NO_SLOT, |meaning| meaning.slot));
            }
        }
    }
}

/// The first step of looking up these keys.
fn probe(generation: &Generation, may: &[bool], keys: &[UserKey], batch: &mut Batch) {
    batch.count = keys.len();
    for dataset in readable(generation, may) {
        match &dataset.members {
            Members::Exact(audience) => {
                let probes = keys.iter().map(|key| audience.probe(*key));
                batch.probes.extend(probes);
            }
            Members::Approximate { filter, .. } => {
                let probes = keys.iter().map(|key| filter.probe(*key));
                batch.filter_probes.extend(probes);
            }
        }
    }
}

/// The datasets that may be read, in their order.
fn readable<'g>(
    generation: &'g Generation,
    readable: &[bool],
) -> impl Iterator<Item = &'g LiveDataset> {
    let both = generation.datasets.iter().zip(readable);
    both.filter_map(|(dataset, readable)| readable.then_some(dataset))
}

/// Of those the exact ones, each with its place in the generation.
fn exact<'g>(
    generation: &'g Generation,
    readable: &[bool],
) -> impl Iterator<Item = (usize, &'g LiveDataset, &'g Audience)> {
    let all = generation.datasets.iter().zip(readable).enumerate();
    all.filter_map(|(place, (dataset, readable))| match &dataset.members {
        Members::Exact(audience) if *readable => Some((place, dataset, &**audience)),
        Members::Exact(_) | Members::Approximate { .. } => None,
    })
}
