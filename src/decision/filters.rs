//! What filters say of the person behind a request, after the exact datasets have answered.
//!
//! A filter has one segment. An id that it does not have is in it for certain not; one that it has is, and where the
//! filter names a dataset that confirms, only if that one has the id as well: in some segment, at this moment. Where
//! the confirming dataset cannot be asked (nothing of it is live, its purposes are not granted, it is damaged) such an
//! id is neither in nor out, and the segment is null unless another of the person's ids is in it.
//!
//! Cost: one load from memory an id and filter, asked for with those of all other lookups; a confirmation is a bit.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::audience::{LookupCounts, Membership};
use crate::audience::Lookup;
use crate::generation::{Confirm, Generation, Members, NO_SLOT};

impl Membership {
    /// Gathers what the filters that may be read say.
    pub(super) fn look_up_filters(&mut self, generation: &Generation) {
        let mut before = 0usize;
        let datasets = generation.datasets.iter().zip(&self.readable);
        let persons = &self.persons;
        for ((dataset, readable), counts) in datasets.zip(&mut self.lookups) {
            let Members::Approximate { filter, .. } = &dataset.members else {
                continue;
            };
            if !readable {
                continue;
            }
            let confirming = match dataset.confirm {
                Confirm::Nobody => Some(u64::MAX),
                Confirm::By(place) => self.holds.get(place).copied().flatten(),
                Confirm::Missing => None,
            };
            let LookupCounts {
                found,
                absent,
                damaged,
            } = counts;
            let (mut is_in, mut in_doubt) = (false, false);
            let number = dataset.numbers.first().copied().unwrap_or(u32::MAX);
            let nth = before;
            let batches = self.batches.iter();
            let own =
                batches.flat_map(|batch| batch.bits().zip(batch.of(&batch.filter_probes, nth)));
            before = before.saturating_add(1);
            for (bit, probe) in own {
                let confirmed = confirming.map(|holds| holds.rotate_right(bit) & 1 == 1);
                let is_out = persons.may_be_out(bit) && persons.is_out(bit, dataset, number);
                let count = match (filter.lookup_at(*probe), confirmed) {
                    (Lookup::Found, _) if is_out => &mut *found,
                    (Lookup::Found, Some(true)) => {
                        is_in = true;
                        &mut *found
                    }
                    (Lookup::Found, None) => {
                        in_doubt = true;
                        &mut *found
                    }
                    (Lookup::Found, Some(false)) | (Lookup::Absent, _) => &mut *absent,
                    (Lookup::Damaged, _) => {
                        in_doubt = true;
                        &mut *damaged
                    }
                };
                *count = count.saturating_add(1);
            }
            let slot = dataset.slots.first().copied().unwrap_or(NO_SLOT);
            if is_in {
                self.member.insert(slot);
                self.any = true;
            } else if in_doubt {
                self.unreadable.insert(slot);
                self.in_doubt = true;
            }
        }
    }
}
