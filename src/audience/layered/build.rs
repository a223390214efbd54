//! Deltas over an audience become its layer.
//!
//! What the layer below and the new deltas say is merged id by id, in the order of hashes, and applied to what the audience
//! says of the id: the whole set that comes of it is what the new layer has. This is gone through twice, first for a
//! sample of sets to make a code of, then to write; what is held meanwhile is a shard of each delta.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ids::Name;

use super::super::Lookup;
use super::super::bits::{AT_ONCE, Nonsense};
use super::super::builder::arrange::segment_table;
use super::super::builder::output::Sections;
use super::super::code::{Contexts, Expiry, Membership, Sample, Shape};
use super::super::format::{Body, Header, SEGMENTS_MAX};
use super::super::reader::{AudienceFile, Change, Changes, OpenError};
use super::super::shard::{Entry, Hashed, Layout, Placed, ShardWriter, shard_bits_for};
use super::{Audience, Layer};

/// Why deltas cannot be laid over an audience.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It changes another version than the one below.
    #[error("version {version} changes version {base}, not version {below}")]
    OtherBase {
        /// The delta's.
        version: u64,
        /// The one it changes.
        base: u64,
        /// The one that is there.
        below: u64,
    },
    /// It was made over another full version, or under another key.
    #[error(
        "version {version} has its ids hashed for full version {root}, the versions below it for {below}; build it with --root {below}"
    )]
    OtherRoot {
        /// The delta's number.
        version: u64,
        /// Its root.
        root: u64,
        /// That of what lies below.
        below: u64,
    },
    /// Not a delta of this dataset under this key.
    #[error("version {0} is not a delta of this dataset under this key")]
    Foreign(u64),
    /// The full version is of the first format, in which no id can be found by its hash alone.
    #[error(
        "the full version below has file format 1, over which there are no deltas; upload a full version"
    )]
    FirstFormat,
    /// Together they name more segments than a file can have.
    #[error(
        "with its deltas the dataset has more than {SEGMENTS_MAX} segments; upload a full version"
    )]
    TooManySegments,
    /// Bytes that were verified make no sense any more.
    #[error("what was read and verified makes no sense any more; restart the service")]
    Damaged,
    /// What expires does so too far apart.
    #[error(
        "memberships would expire more than 2⁵⁶ seconds apart; check the times in `expires` and upload a full version"
    )]
    TooFarApart,
    /// More than a file can hold.
    #[error("too much for one layer; upload a full version")]
    TooLarge,
    /// The layer that was made does not verify.
    #[error(transparent)]
    Unsound(#[from] OpenError),
    /// There is no memory for it.
    #[error("there is no room for it: {0}")]
    Io(#[from] std::io::Error),
}

impl From<Nonsense> for LayerError {
    fn from(Nonsense: Nonsense) -> Self {
        Self::Damaged
    }
}

impl Audience {
    /// This audience changed by deltas, each over the one before it and the first over this version.
    ///
    /// # Errors
    /// Where they do not belong here, or do not fit.
    pub fn changed_by(&self, deltas: &[AudienceFile]) -> Result<Audience, LayerError> {
        let Some(last) = deltas.last() else {
            return Ok(self.clone());
        };
        self.belong(deltas)?;
        let segments = Segments::of(self, deltas)?;
        let mut merge = Merge::of(self, deltas, &segments);
        let entries = merge.streams.iter().map(|stream| stream.file.ids());
        let entries = entries.fold(0, u64::saturating_add);

        let files = merge.streams.iter().map(|stream| stream.file);
        let some_expire = files
            .chain([&**self.base()])
            .any(|file| file.expiry().is_some());
        let mut sample = Sample::default();
        let mut expiries = Expiries::default();
        while let Some((_, _, after)) = merge.next()? {
            if !sample.is_full() {
                sample.push(after);
            } else if !some_expire {
                break;
            }
            expiries.see(after);
        }
        let shape = Shape {
            segments: segments.names.len() as u32,
            may_be_empty: true,
            expiry: expiries.expiry().ok_or(LayerError::TooFarApart)?,
            contexts: Contexts::ByState,
        };
        let (code, bits) = sample.plan(shape, entries).ok_or(LayerError::TooLarge)?;
        let layout = Layout::of(code, bits, true, shard_bits_for(entries));
        let mut written = Written::new(self, &segments, layout)?;
        let mut merge = Merge::of(self, deltas, &segments);
        while let Some((hashed, before, after)) = merge.next()? {
            written.put(hashed, before, after)?;
        }
        written.finish(self, &segments, last, merge.rows())
    }

    /// Whether any delta can be laid over it.
    ///
    /// # Errors
    /// Where its full version is of the first format.
    pub fn may_be_changed(&self) -> Result<(), LayerError> {
        if self.base.format() < 2 {
            return Err(LayerError::FirstFormat);
        }
        Ok(())
    }

    /// Whether each of the deltas is one over what lies below it.
    fn belong(&self, deltas: &[AudienceFile]) -> Result<(), LayerError> {
        self.may_be_changed()?;
        let mut below = self.meta().version;
        for delta in deltas {
            let (meta, root) = (delta.meta(), delta.root());
            let version = meta.version;
            let ours = meta.dataset == self.meta().dataset && delta.key_id() == self.key_id();
            let Some(base) = meta.base.filter(|_| ours) else {
                return Err(LayerError::Foreign(version));
            };
            if base != below {
                return Err(LayerError::OtherBase {
                    version,
                    base,
                    below,
                });
            }
            if root != self.base.root() {
                return Err(LayerError::OtherRoot {
                    version,
                    root,
                    below: self.base.root(),
                });
            }
            below = version;
        }
        Ok(())
    }
}

/// All segments of an audience and of deltas over it.
struct Segments {
    /// By rank: those of the audience by theirs, then those that only the deltas name.
    names: Vec<Name>,
    /// For each delta, its ranks in these; [`UNKNOWN`] where it only takes ids out of a segment that there is not.
    of_delta: Vec<Vec<u32>>,
}

const UNKNOWN: u32 = u32::MAX;

impl Segments {
    fn of(audience: &Audience, deltas: &[AudienceFile]) -> Result<Self, LayerError> {
        let top = audience.top();
        let named = |rank: &u32| top.names().get(*rank as usize).cloned();
        let names: Option<Vec<Name>> = top.indexes_by_rank().iter().map(named).collect();
        let mut names = names.ok_or(LayerError::Damaged)?;
        let ranks = (0u32..)
            .zip(&names)
            .map(|(rank, name)| (name.clone(), rank));
        let mut ranks: HashMap<Name, u32> = ranks.collect();
        let mut of_delta = Vec::with_capacity(deltas.len());
        for delta in deltas {
            let mut by_index = Vec::with_capacity(delta.names().len());
            for (name, put_into) in delta.names().iter().zip(delta.segment_ids()) {
                let rank = match ranks.get(name) {
                    Some(rank) => *rank,
                    None if *put_into == 0 => UNKNOWN,
                    None => {
                        let rank = names.len() as u32;
                        ranks.insert(name.clone(), rank);
                        names.push(name.clone());
                        rank
                    }
                };
                by_index.push(rank);
            }
            let by_rank = delta.indexes_by_rank().iter();
            let by_rank = by_rank.map(|index| by_index.get(*index as usize).copied());
            of_delta.push(by_rank.collect::<Option<_>>().ok_or(LayerError::Damaged)?);
        }
        if names.len() > SEGMENTS_MAX as usize {
            return Err(LayerError::TooManySegments);
        }
        Ok(Self { names, of_delta })
    }
}

/// The ids of a layer and of deltas over it in the order of hashes, each with its set before and after.
struct Merge<'a> {
    audience: &'a Audience,
    /// First, where there is one, the layer's: its ids stay in the layer, whatever the deltas say of them.
    streams: Vec<Stream<'a>>,
    before: Vec<Membership>,
    after: Vec<Membership>,
}

struct Stream<'a> {
    file: &'a AudienceFile,
    changes: Changes<'a>,
    /// Of a delta, its ranks among all segments; nothing of the layer below, which is in the audience already.
    ranks: Option<&'a [u32]>,
}

impl<'a> Merge<'a> {
    fn of(audience: &'a Audience, deltas: &'a [AudienceFile], segments: &'a Segments) -> Self {
        let stream = |(file, ranks)| Stream {
            file,
            changes: Changes::of(file),
            ranks,
        };
        let below = audience.layer.iter().map(|layer| (&layer.changed, None));
        let ranks = segments.of_delta.iter().map(|ranks| Some(&**ranks));
        Self {
            audience,
            streams: below.chain(deltas.iter().zip(ranks)).map(stream).collect(),
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    /// Good rows that all of them were built from.
    fn rows(&self) -> u64 {
        let rows = self.streams.iter().map(|stream| stream.file.rows());
        rows.fold(0, u64::saturating_add)
    }

    #[expect(
        clippy::type_complexity,
        reason = "an id, its set before, its set after"
    )]
    fn next(&mut self) -> Result<Option<(Hashed, &[Membership], &[Membership])>, LayerError> {
        let mut first: Option<Hashed> = None;
        for stream in &mut self.streams {
            if let Some(change) = stream.changes.peek()? {
                first = Some(first.map_or(change.hashed, |first| first.min(change.hashed)));
            }
        }
        let Some(hashed) = first else {
            return Ok(None);
        };
        let (audience, before) = (self.audience, &mut self.before);
        before.clear();
        let approach = audience.approach(audience.probe_hash(hashed));
        let lookup = audience.each(approach, |rank, expires| {
            before.push(Membership { rank, expires });
        });
        if lookup == Lookup::Damaged {
            return Err(LayerError::Damaged);
        }
        self.after.clone_from(before);
        for stream in &mut self.streams {
            let Some(change) = stream.changes.peek()?.filter(|c| c.hashed == hashed) else {
                continue;
            };
            if let Some(ranks) = stream.ranks {
                apply(&mut self.after, change, ranks)?;
            }
            stream.changes.advance();
        }
        Ok(Some((hashed, &self.before, &self.after)))
    }
}

/// Changes a set as a delta says.
fn apply(set: &mut Vec<Membership>, change: Change<'_>, ranks: &[u32]) -> Result<(), Nonsense> {
    let rank_of = |own: &Membership| ranks.get(own.rank as usize).copied().ok_or(Nonsense);
    if change.deleted {
        set.clear();
    }
    for removed in change.removed {
        let rank = rank_of(removed)?;
        if let Ok(at) = set.binary_search_by_key(&rank, |m| m.rank) {
            set.remove(at);
        }
    }
    for added in change.added {
        let membership = Membership {
            rank: rank_of(added)?,
            ..*added
        };
        match set.binary_search_by_key(&membership.rank, |m| m.rank) {
            Ok(at) => *set.get_mut(at).ok_or(Nonsense)? = membership,
            Err(at) => set.insert(at, membership),
        }
    }
    Ok(())
}

/// The first and the last second at which something expires that was seen.
#[derive(Debug, Default)]
pub(super) struct Expiries(Option<(i64, i64)>);

impl Expiries {
    pub(super) fn see(&mut self, set: &[Membership]) {
        for at in set.iter().filter_map(|membership| membership.expires) {
            let (first, last) = self.0.unwrap_or((at, at));
            self.0 = Some((first.min(at), last.max(at)));
        }
    }

    /// How they are written; nothing where they lie too far apart for that.
    pub(super) fn expiry(&self) -> Option<Expiry> {
        let Some((first, last)) = self.0 else {
            return Some(Expiry::Unused);
        };
        let distance = last.abs_diff(first);
        let bits = u64::BITS.saturating_sub(distance.leading_zeros()).max(1);
        (bits <= AT_ONCE).then_some(Expiry::Since { first, bits })
    }
}

/// A layer being written.
struct Written {
    layout: Layout,
    writer: ShardWriter,
    records: Vec<u8>,
    index: Vec<u8>,
    /// The ids of the shard being filled, and their sets.
    placed: Vec<Placed>,
    sets: Vec<Membership>,
    /// How many shards are written.
    shards: usize,
    entries: u64,
    /// Memberships in the layer, by rank.
    in_layer: Vec<u64>,
    /// Of base and layer together.
    ids: u64,
    memberships: u64,
    in_rank: Vec<u64>,
}

impl Written {
    fn new(audience: &Audience, segments: &Segments, layout: Layout) -> Result<Self, LayerError> {
        let sizes = audience.segment_ids();
        let by_rank = audience.indexes_by_rank().iter();
        let by_rank = by_rank.map(|index| sizes.get(*index as usize).copied());
        let in_rank: Option<Vec<u64>> = by_rank.collect();
        let mut in_rank = in_rank.ok_or(LayerError::Damaged)?;
        in_rank.resize(segments.names.len(), 0);
        Ok(Self {
            layout,
            writer: ShardWriter::default(),
            records: Vec::new(),
            index: Vec::new(),
            placed: Vec::new(),
            sets: Vec::new(),
            shards: 0,
            entries: 0,
            in_layer: vec![0; segments.names.len()],
            ids: audience.ids(),
            memberships: audience.membership_count(),
            in_rank,
        })
    }

    /// Takes in the next id, by its set before and after.
    fn put(
        &mut self,
        hashed: Hashed,
        before: &[Membership],
        after: &[Membership],
    ) -> Result<(), LayerError> {
        while self.shards < hashed.shard(self.layout.shard_bits) {
            self.end_shard()?;
        }
        let from = self.sets.len();
        self.sets.extend_from_slice(after);
        self.placed.push(Placed {
            hashed,
            set: from..self.sets.len(),
            removed: 0..0,
            deleted: true,
        });
        self.entries = self.entries.saturating_add(1);
        self.ids = self
            .ids
            .saturating_sub((!before.is_empty()).into())
            .saturating_add((!after.is_empty()).into());
        self.memberships = self
            .memberships
            .saturating_sub(before.len() as u64)
            .saturating_add(after.len() as u64);
        for membership in before {
            let count = self.in_rank.get_mut(membership.rank as usize);
            let count = count.ok_or(Nonsense)?;
            *count = count.saturating_sub(1);
        }
        for membership in after {
            for counts in [&mut self.in_rank, &mut self.in_layer] {
                let count = counts.get_mut(membership.rank as usize).ok_or(Nonsense)?;
                *count = count.saturating_add(1);
            }
        }
        Ok(())
    }

    fn end_shard(&mut self) -> Result<(), LayerError> {
        let start = self.records.len() as u64;
        let written = self
            .writer
            .write(&self.layout, &self.placed, &self.sets, &mut self.records);
        let entry = written.map_err(|_| LayerError::TooLarge)?;
        self.index.extend(Entry { start, ..entry }.encode());
        self.placed.clear();
        self.sets.clear();
        self.shards = self.shards.saturating_add(1);
        Ok(())
    }

    fn finish(
        mut self,
        below: &Audience,
        segments: &Segments,
        last: &AudienceFile,
        rows: u64,
    ) -> Result<Audience, LayerError> {
        while self.shards < 1usize << self.layout.shard_bits {
            self.end_shard()?;
        }
        let end = Entry::end(self.records.len() as u64);
        self.index.extend(end.encode());
        let mut image = Vec::new();
        let mut file = Sections::begin(&mut image)?;
        let mut code = Vec::new();
        self.layout.code.encode(&mut code);
        let ranks: Vec<u16> = (0u16..).take(segments.names.len()).collect();
        let table = segment_table(&segments.names, &ranks, &self.in_layer);
        for part in [&*self.records, &*self.index, &*code, &*table] {
            file.write(part)?;
            file.end_section();
        }
        let (first_expiry, expiry_bits) = match self.layout.code.expiry() {
            Expiry::Unused => (None, 0),
            Expiry::Since { first, bits } => (Some(first), bits),
        };
        let memberships = self.in_layer.iter();
        file.finish(|sections| {
            let header = Header {
                meta: last.meta().clone(),
                key_id: below.key_id(),
                ids: self.entries,
                rows,
                memberships: memberships.fold(0, |sum, n| sum.saturating_add(*n)),
                segments: segments.names.len() as u32,
                first_expiry,
                body: Body::Sharded {
                    shard_bits: self.layout.shard_bits,
                    expiry_bits,
                    lengths: self.layout.lengths,
                    root: below.base.root(),
                    removed: 0,
                    bins: self.layout.bins,
                },
                sections,
            };
            header.encode().ok_or(LayerError::TooLarge)
        })?;
        drop((self.records, self.index));
        let changed = AudienceFile::from_bytes(&image)?;
        // By the layer's own indexes: names in order.
        let of_rank = changed.indexes_by_rank().iter().zip(&self.in_rank);
        let mut segment_ids = vec![0; segments.names.len()];
        for (index, count) in of_rank {
            *segment_ids.get_mut(*index as usize).ok_or(Nonsense)? = *count;
        }
        Ok(Audience {
            base: Arc::clone(&below.base),
            layer: Some(Arc::new(Layer {
                meta: changed.meta().clone(),
                changed,
                ids: self.ids,
                memberships: self.memberships,
                segment_ids: segment_ids.into(),
            })),
        })
    }
}
