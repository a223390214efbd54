//! What a delta says, id by id in the order of hashes, so that deltas can be merged.
//!
//! A shard is taken apart as a whole and sorted; the shards are in the order of hashes already. So what is held at a
//! time is some two thousand ids, whatever the delta's size.

use std::ops::Range;

use super::super::bits::Nonsense;
use super::super::code::Membership;
use super::super::shard::{Bucket, Entry, Hashed, Layout, Stored};
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
        let Arena::Two {
            layout,
            index,
            records,
        } = &self.file.arena
        else {
            return Err(Nonsense);
        };
        self.loaded.clear();
        self.memberships.clear();
        self.at = 0;
        if !layout.delta || self.next >> layout.shard_bits > 0 {
            return Ok(false);
        }
        let entry = self.file.entry(index, self.next).ok_or(Nonsense)?;
        self.next = self.next.saturating_add(1);
        for bucket in 0..entry.buckets {
            let bucket = bucket_of(self.file, layout, records, entry, bucket)?;
            bucket.each(layout, |stored, mut bits| {
                let Stored::Hash(hashed) = stored else {
                    return Err(Nonsense);
                };
                let deleted = bits.take(1) == 1;
                let mut walk = || {
                    let from = self.memberships.len();
                    layout.code.walk(&mut bits, |rank, expires| {
                        self.memberships.push(Membership { rank, expires });
                    })?;
                    Ok(from..self.memberships.len())
                };
                let added = walk()?;
                let removed = match deleted {
                    true => added.end..added.end,
                    false => walk()?,
                };
                self.loaded.push(Loaded {
                    hashed,
                    deleted,
                    added,
                    removed,
                });
                Ok(bits)
            })?;
        }
        self.loaded.sort_unstable_by_key(|change| change.hashed);
        Ok(true)
    }
}

/// A shard of a full version, taken apart: what [`AudienceFile::shard`] gives.
#[derive(Debug, Default)]
pub(in super::super) struct Shard {
    pub(in super::super) buckets: u16,
    pub(in super::super) mixing: u8,
    /// The bucket and fingerprint of each id, and its part of the memberships.
    pub(in super::super) ids: Vec<(u16, u64, Range<usize>)>,
    pub(in super::super) memberships: Vec<Membership>,
}

impl AudienceFile {
    /// How many bits of a hash name the shard; nothing in the first format, which has none.
    pub(in super::super) fn shard_bits(&self) -> Option<u32> {
        match &self.arena {
            Arena::Two { layout, .. } => Some(layout.shard_bits),
            Arena::One { .. } => None,
        }
    }

    /// Takes a shard of a full version apart.
    pub(in super::super) fn shard(&self, number: usize, into: &mut Shard) -> Result<(), Nonsense> {
        let Arena::Two {
            layout,
            index,
            records,
        } = &self.arena
        else {
            return Err(Nonsense);
        };
        into.ids.clear();
        into.memberships.clear();
        let entry = self.entry(index, number).ok_or(Nonsense)?;
        into.buckets = entry.buckets;
        into.mixing = entry.mixing;
        for bucket in 0..entry.buckets {
            let own = bucket_of(self, layout, records, entry, bucket)?;
            own.each(layout, |stored, mut bits| {
                let from = into.memberships.len();
                layout.code.walk(&mut bits, |rank, expires| {
                    into.memberships.push(Membership { rank, expires });
                })?;
                let Stored::Fingerprint(fingerprint) = stored else {
                    return Err(Nonsense);
                };
                let set = from..into.memberships.len();
                into.ids.push((bucket, fingerprint, set));
                Ok(bits)
            })?;
        }
        Ok(())
    }
}

/// A bucket of a shard.
pub(super) fn bucket_of<'f>(
    file: &'f AudienceFile,
    layout: &Layout,
    records: &Range<usize>,
    entry: Entry,
    bucket: u16,
) -> Result<Bucket<'f>, Nonsense> {
    let start = usize::try_from(entry.start).map_err(|_| Nonsense)?;
    let records = file.memory.get(records.start..).ok_or(Nonsense)?;
    let shard = records.get(start..).ok_or(Nonsense)?;
    let directory = entry.directory_bytes();
    let offset = |bucket: usize| {
        let at = bucket.checked_mul(entry.width.into())?;
        entry.offset(shard.get(at..directory)?)
    };
    let bucket = usize::from(bucket);
    let start = offset(bucket).ok_or(Nonsense)?;
    let end = bucket.checked_add(1).and_then(offset).ok_or(Nonsense)?;
    let length = end.checked_sub(start).ok_or(Nonsense)?;
    let bytes = shard.get(directory.saturating_add(start)..);
    Bucket::parse(layout, bytes.ok_or(Nonsense)?, length)
}
