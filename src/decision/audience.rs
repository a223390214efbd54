//! From user keys to the segments that line items ask about: a lookup of every id in every live dataset, gathered into
//! two sets of bits over the book's slots.
//!
//! A person's segments are the union over ids and datasets. A dataset whose bytes turn out damaged makes every segment of
//! it unreadable, which is null to targeting, never "not in it".

use super::bits::Bits;
use crate::audience::{Approach, Lookup, Probe};
use crate::clock::Timestamp;
use crate::generation::{Generation, NO_SLOT};
use crate::ids::UserKey;

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
    /// Lookups by the dataset's place in the generation.
    pub lookups: Vec<LookupCounts>,
    /// One for each dataset and id, in that order.
    probes: Vec<Probe>,
    /// The same, a step further.
    approaches: Vec<Approach>,
    /// How many ids.
    ids: usize,
}

impl Membership {
    /// Forgets the last request and makes room for this generation's slots.
    pub(super) fn clear(&mut self, generation: &Generation) {
        let slots = generation.book.segments.len();
        self.member.clear(slots);
        self.unreadable.clear(slots);
        self.any = false;
        self.probes.clear();
        self.ids = 0;
        self.lookups.clear();
        self.lookups
            .resize(generation.datasets.len(), LookupCounts::default());
    }

    /// Begins to look up every id in every dataset. Each of the three steps of a lookup waits for a load from memory that the
    /// step before has asked for: what is done between two steps costs no time.
    pub(super) fn probe(&mut self, generation: &Generation, ids: &[UserKey]) {
        self.probes.clear();
        for dataset in &generation.datasets {
            let probes = ids.iter().map(|key| dataset.audience.probe(*key));
            self.probes.extend(probes);
        }
        self.ids = ids.len();
    }

    /// The second step.
    pub(super) fn approach(&mut self, generation: &Generation) {
        self.approaches.clear();
        let mut probes = self.probes.iter();
        for dataset in &generation.datasets {
            let own = probes.by_ref().take(self.ids);
            self.approaches
                .extend(own.map(|probe| dataset.audience.approach(*probe)));
        }
    }

    /// The last step: gathers what is found.
    pub(super) fn look_up(&mut self, generation: &Generation, now: Timestamp) {
        let mut approaches = self.approaches.iter();
        for (dataset, counts) in generation.datasets.iter().zip(&mut self.lookups) {
            for approach in approaches.by_ref().take(self.ids) {
                let member = &mut self.member;
                let mut in_some = false;
                let lookup = dataset.audience.lookup_at(*approach, now, |rank| {
                    in_some = true;
                    let slot = usize::try_from(rank)
                        .ok()
                        .and_then(|rank| dataset.slots.get(rank));
                    // Where there is none, nothing is put in.
                    member.insert(slot.copied().unwrap_or(NO_SLOT));
                });
                match lookup {
                    Lookup::Found => {
                        self.any |= in_some;
                        counts.found = counts.found.saturating_add(1);
                    }
                    Lookup::Absent => counts.absent = counts.absent.saturating_add(1),
                    Lookup::Damaged => {
                        counts.damaged = counts.damaged.saturating_add(1);
                        for slot in &dataset.slots {
                            self.unreadable.insert(*slot);
                        }
                    }
                }
            }
        }
    }
}
