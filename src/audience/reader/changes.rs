//! What a delta says, id by id in the order of hashes, so that deltas can be merged.
//!
//! A shard is taken apart as a whole and sorted; the shards are in the order of hashes already. So what is held at a
//! time is some two thousand ids, whatever the delta's size.

use std::ops::Range;

use super::super::bits::Nonsense;
use super::super::code::Membership;
use super::super::shard::{Geometry, Hashed, Spot, Stored};
use super::{Arena, AudienceFile};

/// What a delta says of one id.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Change<'c> {
    pub(in super::super) hashed: Hashed,
    /// Whether nothing of what lies below holds any more.
    pub(in super::super) deleted: bool,
    /// What the id is put into, by the delta's own ranks, ascending.
    pub(in super::super) added: &'c [Membership],
    /// What it is taken out of.
    pub(in super::super) removed: &'c [Membership],
}

/// A delta's changes, to be taken one after the other.
pub(in super::super) struct Changes<'f> {
    file: &'f AudienceFile,
    /// The shard that is loaded next.
    next: usize,
    loaded: Vec<Loaded>,
    memberships: Vec<Membership>,
    /// Of those loaded, the one whose turn it is.
    at: usize,
}

/// A change with its parts of the memberships.
struct Loaded {
    hashed: Hashed,
    deleted: bool,
    added: Range<usize>,
    removed: Range<usize>,
}

impl<'f> Changes<'f> {
    pub(in super::super) fn of(file: &'f AudienceFile) -> Self {
        Self {
            file,
            next: 0,
            loaded: Vec::new(),
            memberships: Vec::new(),
            at: 0,
        }
    }

    /// The change whose turn it is; nothing after the last.
    pub(in super::super) fn peek(&mut self) -> Result<Option<Change<'_>>, Nonsense> {
        while self.at >= self.loaded.len() {
            if !self.load()? {
                return Ok(None);
            }
        }
        let change = self.loaded.get(self.at).ok_or(Nonsense)?;
        let part = |range: &Range<usize>| self.memberships.get(range.clone()).ok_or(Nonsense);
        Ok(Some(Change {
            hashed: change.hashed,
            deleted: change.deleted,
            added: part(&change.added)?,
            removed: part(&change.removed)?,
        }))
    }

    /// Goes on to the next one.
    pub(in super::super) fn advance(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// Takes the next shard apart; whether there is one.
    fn load(&mut self) -> Result<bool, Nonsense> {
        let layout = self.file.layout().ok_or(Nonsense)?;
        self.loaded.clear();
        self.memberships.clear();
        self.at = 0;
        if !layout.delta || self.next >> layout.shard_bits > 0 {
            return Ok(false);
        }
        let (loaded, memberships) = (&mut self.loaded, &mut self.memberships);
        self.file.each_of_shard(self.next, |stored, mut bits| {
            let Stored::Hash(hashed) = stored else {
                return Err(Nonsense);
            };
            let deleted = bits.take(1) == 1;
            let mut walk = || {
                let from = memberships.len();
                layout.code.walk(&mut bits, |rank, expires| {
                    memberships.push(Membership { rank, expires });
                })?;
                Ok(from..memberships.len())
            };
            let added = walk()?;
            let removed = match deleted {
                true => added.end..added.end,
                false => walk()?,
            };
            loaded.push(Loaded {
                hashed,
                deleted,
                added,
                removed,
            });
            Ok(bits)
        })?;
        self.next = self.next.saturating_add(1);
        self.loaded.sort_unstable_by_key(|change| change.hashed);
        Ok(true)
    }
}

/// A shard of a full version, taken apart: what [`AudienceFile::shard`] gives.
#[derive(Debug)]
pub(in super::super) struct Shard {
    pub(in super::super) geometry: Geometry,
    /// Where each id stands, and its part of the memberships.
    pub(in super::super) ids: Vec<(Spot, Range<usize>)>,
    pub(in super::super) memberships: Vec<Membership>,
}

impl AudienceFile {
    /// How many bits of a hash name the shard; nothing in formats before the third, whose shards cannot be
    /// [taken apart](Self::shard).
    pub(in super::super) fn shard_bits(&self) -> Option<u32> {
        match &self.arena {
            Arena::Three(shards) => Some(shards.layout.shard_bits),
            Arena::One { .. } | Arena::Two(_) => None,
        }
    }

    /// Takes a shard of a full version apart.
    pub(in super::super) fn shard(&self, number: usize, into: &mut Shard) -> Result<(), Nonsense> {
        let Arena::Three(shards) = &self.arena else {
            return Err(Nonsense);
        };
        into.ids.clear();
        into.memberships.clear();
        into.geometry = self.entry_at(shards, number).ok_or(Nonsense)?.geometry;
        let (ids, memberships) = (&mut into.ids, &mut into.memberships);
        self.each_of_shard(number, |stored, mut bits| {
            let from = memberships.len();
            shards.layout.code.walk(&mut bits, |rank, expires| {
                memberships.push(Membership { rank, expires });
            })?;
            let Stored::Spot(spot) = stored else {
                return Err(Nonsense);
            };
            ids.push((spot, from..memberships.len()));
            Ok(bits)
        })
    }
}
