//! A full version and its layer become a full version again.
//!
//! Of the ids of a full version only their places are known, not their hashes: so what is written keeps the salt of
//! the full version (its *root*), its shards, and of each shard its mixing and its cells, from which follows where an id stands
//! in more bins or fewer. Shard by shard, what the layer says of an id takes the place of what the full version said. Names
//! that nobody has any more are left out, ranks and codes are made anew.
//!
//! If an id of a delta and one of the full version are in one cell with one fingerprint, which happens once in 2³⁵ pairs of a
//! cell, compacting fails and the layer stays, which is as right; so it does where the full version has a format that says less
//! of its ids. A full upload makes it new.
//!
//! Cost: a pass over all of it, held a shard at a time; what is written goes out as it comes.

use std::cmp::Reverse;
use std::io;

use crate::ids::Name;

use super::super::VersionMeta;
use super::super::bits::Nonsense;
use super::super::builder::arrange::segment_table;
use super::super::builder::output::{HeadLast, Sections};
use super::super::code::{Contexts, Expiry, Membership, Sample, Shape};
use super::super::format::{Body, Header, RECORDS_BYTES_MAX};
use super::super::reader::{AudienceFile, Changes, Shard};
use super::super::shard::{Entry, Geometry, Layout, Placed, ShardWriter, Spot};
use super::build::Expiries;
use super::{Audience, Layer};

/// Why an audience could not be written as a full version.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// There is nothing to compact.
    #[error("there are no deltas over it")]
    NoDeltas,
    /// Nobody is left, and a full version has somebody.
    #[error("its deltas have taken the last id out of it")]
    Empty,
    /// Two of its ids cannot be told apart by their places, or it has outgrown those of the full version.
    #[error("its ids no longer have room in the places of the full version; upload a full version")]
    Crowded,
    /// The full version says too little of where its ids belong.
    #[error(
        "its full version has file format {0}, and only from format 3 on can one be made of it and its deltas; upload a full version"
    )]
    OldFormat(u32),
    /// Bytes that were verified make no sense any more.
    #[error("what was read and verified makes no sense any more; restart the service")]
    Damaged,
    /// It could not be written.
    #[error("it could not be written: {0}")]
    Io(#[from] io::Error),
}

impl From<Nonsense> for CompactError {
    fn from(Nonsense: Nonsense) -> Self {
        Self::Damaged
    }
}

impl Audience {
    /// Writes a full version that says of everybody what this audience says.
    ///
    /// # Errors
    /// Where there are no deltas, or what they left cannot be written so.
    pub fn compact(&self, out: &mut dyn HeadLast) -> Result<(), CompactError> {
        let layer = self.layer.as_deref().ok_or(CompactError::NoDeltas)?;
        if layer.ids == 0 {
            return Err(CompactError::Empty);
        }
        let old = || CompactError::OldFormat(self.base.format());
        let shard_bits = self.base.shard_bits().ok_or_else(old)?;
        let shards = 1usize << shard_bits;
        let ranks = Ranks::of(self)?;

        let some_expire = [&*self.base, &layer.changed]
            .iter()
            .any(|file| file.expiry().is_some());
        let mut sample = Sample::default();
        let mut expiries = Expiries::default();
        let mut merge = Merge::of(&self.base, layer, &ranks, shard_bits);
        for shard in 0..shards {
            merge.load(shard)?;
            if !sample.is_full() {
                for id in &merge.ids {
                    sample.push(merge.memberships.get(id.set.clone()).ok_or(Nonsense)?);
                }
            } else if !some_expire {
                break;
            }
            expiries.see(&merge.memberships);
        }
        let shape = Shape {
            segments: ranks.names.len() as u32,
            may_be_empty: false,
            expiry: expiries.expiry().ok_or(CompactError::Crowded)?,
            contexts: Contexts::ByState,
        };
        let (code, bits) = sample.plan(shape, layer.ids).ok_or(CompactError::Damaged)?;
        let layout = Layout::of(code, bits, false, shard_bits);

        let mut file = Sections::begin(out)?;
        let mut bytes = Vec::new();
        let mut index = Vec::new();
        let mut writer = ShardWriter::default();
        let mut merge = Merge::of(&self.base, layer, &ranks, shard_bits);
        for shard in 0..shards {
            merge.load(shard)?;
            bytes.clear();
            let start = file.length();
            if start > RECORDS_BYTES_MAX {
                return Err(CompactError::Crowded);
            }
            let entry = merge.write(&layout, &mut writer, &mut bytes)?;
            index.extend(Entry { start, ..entry }.encode());
            file.write(&bytes)?;
        }
        index.extend(Entry::end(file.length()).encode());
        file.end_section();
        bytes.clear();
        layout.code.encode(&mut bytes);
        for part in [&index, &bytes] {
            file.write(part)?;
            file.end_section();
        }
        let in_order: Vec<u16> = (0u16..).take(ranks.names.len()).collect();
        file.write(&segment_table(&ranks.names, &in_order, &ranks.ids))?;
        file.end_section();
        let (first_expiry, expiry_bits) = match layout.code.expiry() {
            Expiry::Unused => (None, 0),
            Expiry::Since { first, bits } => (Some(first), bits),
        };
        file.finish(|sections| {
            let header = Header {
                meta: VersionMeta {
                    base: None,
                    ..layer.meta.clone()
                },
                key_id: self.base.key_id(),
                ids: layer.ids,
                rows: self.rows().max(layer.ids),
                memberships: layer.memberships,
                segments: ranks.names.len() as u32,
                first_expiry,
                body: Body::Sharded {
                    shard_bits,
                    expiry_bits,
                    lengths: layout.lengths,
                    root: self.base.root(),
                    removed: 0,
                    bins: layout.bins,
                },
                sections,
            };
            header.encode().ok_or(CompactError::Crowded)
        })
    }
}

/// The segments that somebody is in, ranked anew.
struct Ranks {
    /// By new rank: those with the most ids first, then by name.
    names: Vec<Name>,
    ids: Vec<u64>,
    /// The new rank of each rank of the layer.
    of_layer: Vec<u32>,
}

impl Ranks {
    fn of(audience: &Audience) -> Result<Self, CompactError> {
        let (names, sizes) = (audience.top().names(), audience.segment_ids());
        let mut by_size: Vec<(Reverse<u64>, &Name, usize)> = Vec::new();
        for (rank, index) in audience.indexes_by_rank().iter().enumerate() {
            let index = *index as usize;
            let (name, size) = names.get(index).zip(sizes.get(index)).ok_or(Nonsense)?;
            if *size > 0 {
                by_size.push((Reverse(*size), name, rank));
            }
        }
        by_size.sort_unstable();
        // Nobody is in the others, so theirs is asked for nowhere.
        let mut of_layer = vec![u32::MAX; sizes.len()];
        for (new, (_, _, old)) in (0u32..).zip(&by_size) {
            *of_layer.get_mut(*old).ok_or(Nonsense)? = new;
        }
        Ok(Self {
            names: by_size.iter().map(|(_, name, _)| (*name).clone()).collect(),
            ids: by_size.iter().map(|(size, ..)| size.0).collect(),
            of_layer,
        })
    }
}

/// The shards of the full version, each with what the layer says of its ids.
struct Merge<'a> {
    base: &'a AudienceFile,
    changes: Changes<'a>,
    ranks: &'a Ranks,
    shard_bits: u32,
    shard: Shard,
    /// Of the shard that is loaded: each id that is left.
    ids: Vec<Placed>,
    spots: Vec<Spot>,
    memberships: Vec<Membership>,
    /// Those of them that are the layer's, to be found quickly.
    changed: Vec<Spot>,
    /// Whether all of them are: then they can be arranged anew.
    only_changed: bool,
}

impl<'a> Merge<'a> {
    fn of(base: &'a AudienceFile, layer: &'a Layer, ranks: &'a Ranks, shard_bits: u32) -> Self {
        Self {
            base,
            changes: Changes::of(&layer.changed),
            ranks,
            shard_bits,
            shard: Shard {
                geometry: Geometry::NONE,
                ids: Vec::new(),
                memberships: Vec::new(),
            },
            ids: Vec::new(),
            spots: Vec::new(),
            memberships: Vec::new(),
            changed: Vec::new(),
            only_changed: false,
        }
    }

    /// Takes the next shard: they are to be loaded one after the other, from the first.
    fn load(&mut self, number: usize) -> Result<(), CompactError> {
        self.base.shard(number, &mut self.shard)?;
        let geometry = self.shard.geometry;
        self.ids.clear();
        self.spots.clear();
        self.memberships.clear();
        self.changed.clear();
        self.only_changed = geometry.bins == 0;
        while let Some(change) = self.changes.peek()? {
            let hashed = change.hashed;
            if hashed.shard(self.shard_bits) > number {
                break;
            }
            let spot = hashed.spot(self.shard_bits, geometry);
            self.changed.push(spot);
            let from = self.memberships.len();
            put(&mut self.memberships, change.added, self.ranks)?;
            if self.memberships.len() > from {
                self.spots.push(spot);
                self.ids.push(Placed {
                    hashed,
                    set: from..self.memberships.len(),
                    removed: 0..0,
                    deleted: false,
                });
            }
            self.changes.advance();
        }
        self.changed.sort_unstable();
        for (spot, set) in &self.shard.ids {
            if self.changed.binary_search(spot).is_ok() {
                continue;
            }
            let set = self.shard.memberships.get(set.clone()).ok_or(Nonsense)?;
            let from = self.memberships.len();
            put(&mut self.memberships, set, self.ranks)?;
            self.spots.push(*spot);
            self.ids.push(Placed {
                // Not known, and not asked for.
                hashed: super::Hashed {
                    spread: 0,
                    check: 0,
                },
                set: from..self.memberships.len(),
                removed: 0..0,
                deleted: false,
            });
        }
        Ok(())
    }

    /// Appends the shard that is loaded; its entry, but for the start.
    fn write(
        &self,
        layout: &Layout,
        writer: &mut ShardWriter,
        out: &mut Vec<u8>,
    ) -> Result<Entry, CompactError> {
        let written = if self.only_changed {
            writer.write(layout, &self.ids, &self.memberships, out)
        } else {
            let (known, spots) = (self.shard.geometry, self.spots.iter().copied());
            writer.write_spots(layout, known, spots, &self.ids, &self.memberships, out)
        };
        written.map_err(|_| CompactError::Crowded)
    }
}

/// Appends a set by its new ranks, ascending.
fn put(into: &mut Vec<Membership>, set: &[Membership], ranks: &Ranks) -> Result<(), Nonsense> {
    let from = into.len();
    for membership in set {
        let rank = ranks.of_layer.get(membership.rank as usize);
        into.push(Membership {
            rank: rank
                .copied()
                .filter(|rank| *rank != u32::MAX)
                .ok_or(Nonsense)?,
            ..*membership
        });
    }
    let own = into.get_mut(from..).ok_or(Nonsense)?;
    own.sort_unstable_by_key(|membership| membership.rank);
    Ok(())
}
