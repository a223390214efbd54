//! The sets of an open version as numbers: how many segments ids are in, how far equal sets are shared, what expires.
//!
//! For people who look at a file. A walk over all records, with the code that lookups use, as opening has done once already;
//! nothing of it happens on a bid thread. Cost: some 0.2 µs an id.

use serde::Serialize;

use super::super::bits::Nonsense;
use super::super::bucket;
use super::super::code::Membership;
use super::super::format::OFFSET_BYTES;
use super::super::shard::Layout;
use super::{Arena, AudienceFile};

/// What the sets of a version look like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SetStatistics {
    /// Segments an id is in, on average.
    pub mean: f64,
    /// Segments that the id in most of them is in.
    pub max: u64,
    /// How many ids are in so many segments; ranges without ids are left out.
    pub sizes: Vec<SetSizes>,
    /// Sets that stand in the file once for all ids that have them.
    pub shared_sets: u64,
    /// Ids whose set is one of those.
    pub shared_by: u64,
    /// Memberships that expire, or have.
    pub expiring: u64,
}

/// A range of sizes, each twice as far as the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SetSizes {
    /// The smallest size.
    pub from: u64,
    /// The largest.
    pub to: u64,
    /// Ids with a set of such a size.
    pub ids: u64,
}

#[derive(Default)]
struct Counted {
    ids: u64,
    memberships: u64,
    max: u64,
    /// By the logarithm of what is one below the size, rounded up: 1, 2, 3 to 4, 5 to 8, and so on.
    sizes: [u64; 17],
    shared_by: u64,
    expiring: u64,
}

impl Counted {
    fn set(&mut self, set: &[Membership], is_shared: bool) {
        let size = set.len() as u64;
        // A delta that only takes from an id has no set of it.
        if size == 0 {
            return;
        }
        self.ids = self.ids.saturating_add(1);
        self.memberships = self.memberships.saturating_add(size);
        self.max = self.max.max(size);
        let range = size.max(1).next_power_of_two().trailing_zeros() as usize;
        if let Some(of_range) = self.sizes.get_mut(range) {
            *of_range = of_range.saturating_add(1);
        }
        self.shared_by = self.shared_by.saturating_add(is_shared.into());
        let expiring = set.iter().filter(|membership| membership.expires.is_some());
        self.expiring = self.expiring.saturating_add(expiring.count() as u64);
    }
}

impl AudienceFile {
    /// Counts them all. What cannot be read any more is left out: opening has read all of it.
    pub(in super::super) fn set_statistics(&self) -> SetStatistics {
        let mut counted = Counted::default();
        let mut shared_sets = 0;
        match &self.arena {
            Arena::One {
                buckets, expiry, ..
            } => {
                for number in 0..*buckets {
                    let _ = self.count_bucket(number, *expiry, &mut counted);
                }
            }
            Arena::Two(shards) | Arena::Three(shards) => {
                let layout = &shards.layout;
                shared_sets = layout.code.shared_sets();
                for number in 0..1usize << layout.shard_bits {
                    let _ = self.count_shard(number, layout, &mut counted);
                }
            }
        }
        let ranges = (0u32..).zip(counted.sizes);
        let sizes = ranges.filter(|(_, ids)| *ids > 0).map(|(range, ids)| {
            let to = 1u64.wrapping_shl(range);
            let from = (to / 2).saturating_add(1);
            SetSizes { from, to, ids }
        });
        SetStatistics {
            mean: counted.memberships as f64 / counted.ids.max(1) as f64,
            max: counted.max,
            sizes: sizes.collect(),
            shared_sets,
            shared_by: counted.shared_by,
            expiring: counted.expiring,
        }
    }

    fn count_bucket(
        &self,
        number: u64,
        expiry: bucket::Expiry,
        counted: &mut Counted,
    ) -> Result<(), Nonsense> {
        let Arena::One {
            directory, records, ..
        } = &self.arena
        else {
            return Err(Nonsense);
        };
        let at = usize::try_from(number).map_err(|_| Nonsense)?;
        let at = at.checked_mul(OFFSET_BYTES).ok_or(Nonsense)?;
        let directory = self.memory.get(directory.clone()).ok_or(Nonsense)?;
        let both = directory.get(at..).and_then(<[u8]>::first_chunk);
        let [a, b, c, d, e, f, g, h, i, j] = *both.ok_or(Nonsense)?;
        let start = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]) as usize;
        let end = u64::from_le_bytes([f, g, h, i, j, 0, 0, 0]) as usize;
        let records = self.memory.get(records.clone()).ok_or(Nonsense)?;
        let bytes = records.get(start..end).ok_or(Nonsense)?;
        for set in bucket::Bucket::parse(bytes, expiry)?.sets()? {
            let set: Vec<Membership> = set?.collect::<Result<_, Nonsense>>()?;
            counted.set(&set, false);
        }
        Ok(())
    }

    fn count_shard(
        &self,
        number: usize,
        layout: &Layout,
        counted: &mut Counted,
    ) -> Result<(), Nonsense> {
        let mut set = Vec::new();
        self.each_of_shard(number, |_, mut bits| {
            let deleted = layout.delta && bits.take(1) == 1;
            set.clear();
            layout.code.walk(&mut bits, |rank, expires| {
                set.push(Membership { rank, expires });
            })?;
            counted.set(&set, layout.code.shares(&set));
            if layout.delta && !deleted {
                layout.code.walk(&mut bits, |_, _| {})?;
            }
            Ok(bits)
        })
    }
}
