//! An audience as it is served: a full version, and what deltas have changed of it since.
//!
//! All deltas over a full version are taken together, when the last of them is activated, into one *layer*: a delta
//! held in memory that has, for each id any of them names, the whole set that holds from now on. So a lookup asks two
//! places however many deltas there are, in the same three steps and at the same time, and never adds or takes away
//! anything: an id that the layer knows is answered by the layer alone, any other by the full version.
//!
//! A delta and its layer have the whole hash of each id, under the salt of the full version at the bottom, the *root*:
//! what a full version answers of ids that are not in it by chance, a layer answers of nobody.
//!
//! Cost: a second lookup in a far smaller place; 27 bytes an id changed, of twelve segments. Making a layer looks up
//! each of its ids in the full version.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod build;
mod compact;

use std::path::Path;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::ids::{KeyId, UserKey};

use super::reader::{AudienceFile, Flaw, Located, OpenError, Place};
use super::shard::Hashed;
use super::{Lookup, VersionMeta};

pub use build::LayerError;
pub use compact::CompactError;

/// Who is in which segments of a dataset, by one of its versions. Immutable, `Send` and `Sync`.
#[derive(Debug, Clone)]
pub struct Audience {
    base: Arc<AudienceFile>,
    layer: Option<Arc<Layer>>,
}

/// What deltas changed, all together.
#[derive(Debug)]
struct Layer {
    /// For each id that a delta names, its whole set: to be read by [`AudienceFile::each_of_layer`]. Its segments are those of
    /// the full version, by the same ranks, and behind them those that only deltas name.
    changed: AudienceFile,
    /// The version that the last of the deltas is.
    meta: VersionMeta,
    /// Of base and layer together, as [`Audience`] tells them.
    ids: u64,
    memberships: u64,
    segment_ids: Box<[u64]>,
}

/// A lookup after its first step: where the id would stand, in the full version and in the layer.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    hashed: Hashed,
    base: Place,
    layer: Place,
}

/// A lookup after its second step.
#[derive(Debug, Clone, Copy)]
pub struct Approach {
    hashed: Hashed,
    base: Located,
    layer: Located,
}

impl From<AudienceFile> for Audience {
    /// Of a full version.
    fn from(base: AudienceFile) -> Self {
        Self {
            base: Arc::new(base),
            layer: None,
        }
    }
}

impl Audience {
    /// Opens the file of a full version, as [`AudienceFile::open`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::full(AudienceFile::open(path)?, || path.display().to_string())
    }

    /// Opens a full version held in memory, which is copied: for tests, fuzzers and tools.
    pub fn from_bytes(file: &[u8]) -> Result<Self, OpenError> {
        Self::full(AudienceFile::from_bytes(file)?, || {
            "version in memory".to_owned()
        })
    }

    fn full(file: AudienceFile, path: impl Fn() -> String) -> Result<Self, OpenError> {
        match file.meta().base {
            None => Ok(file.into()),
            Some(base) => Err(OpenError {
                path: path(),
                flaw: Flaw::OnlyADelta { base },
            }),
        }
    }

    /// What its version says of itself; of one with deltas what the last of them says.
    pub fn meta(&self) -> &VersionMeta {
        match &self.layer {
            Some(layer) => &layer.meta,
            None => self.base.meta(),
        }
    }

    /// The full version below.
    pub fn base(&self) -> &Arc<AudienceFile> {
        &self.base
    }

    /// The full version below by itself, without what deltas changed.
    #[must_use]
    pub fn bottom(&self) -> Audience {
        Audience {
            base: Arc::clone(&self.base),
            layer: None,
        }
    }

    /// The same over the same full version, opened once more.
    #[must_use]
    pub fn with_base(&self, base: Arc<AudienceFile>) -> Self {
        Self {
            base,
            layer: self.layer.clone(),
        }
    }

    /// What deltas changed of it, as it is held.
    pub(super) fn changed(&self) -> Option<&AudienceFile> {
        self.layer.as_ref().map(|layer| &layer.changed)
    }

    /// The same with one bit of its layer the other way, as failing memory would have it.
    #[cfg(test)]
    pub(crate) fn with_flipped_layer(&self, at: usize) -> Audience {
        let layer = self.layer.as_deref().expect("a layer");
        let whole = AudienceFile::from_bytes(layer.changed.file()).expect("whole");
        let layer = Layer {
            changed: whole.with_flipped_bit(at, 3),
            meta: layer.meta.clone(),
            segment_ids: layer.segment_ids.clone(),
            ..*layer
        };
        Audience {
            base: Arc::clone(&self.base),
            layer: Some(Arc::new(layer)),
        }
    }

    /// How many ids deltas have changed of it.
    pub fn changed_ids(&self) -> u64 {
        self.layer.as_ref().map_or(0, |layer| layer.changed.ids())
    }

    /// The public name of the key it was made under. Under another key every lookup would miss: compare before use.
    pub fn key_id(&self) -> KeyId {
        self.base.key_id()
    }

    /// How many different ids it holds.
    pub fn ids(&self) -> u64 {
        self.layer
            .as_ref()
            .map_or_else(|| self.base.ids(), |layer| layer.ids)
    }

    /// How many good rows it was built from, those of its deltas included.
    pub fn rows(&self) -> u64 {
        let rows = self.layer.as_ref().map_or(0, |layer| layer.changed.rows());
        self.base.rows().saturating_add(rows)
    }

    /// How many (id, segment) pairs it holds, those included that have expired.
    pub fn membership_count(&self) -> u64 {
        self.layer
            .as_ref()
            .map_or_else(|| self.base.membership_count(), |layer| layer.memberships)
    }

    /// The number of its file's format.
    pub fn format(&self) -> u32 {
        self.base.format()
    }

    /// What it occupies in memory, but for the segment names.
    pub fn bytes(&self) -> u64 {
        let layer = self.layer.as_ref().map_or(0, |layer| layer.changed.bytes());
        self.base.bytes().saturating_add(layer)
    }

    /// The segments' names in the order of their local index, which is the order of names.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &str> {
        self.top().segments()
    }

    /// How many ids are in each segment, by local index, those included whose membership has expired.
    pub fn segment_ids(&self) -> &[u64] {
        match &self.layer {
            Some(layer) => &layer.segment_ids,
            None => self.base.segment_ids(),
        }
    }

    /// The local index of a segment.
    pub fn segment_index(&self, name: &str) -> Option<u32> {
        let names = self.top().names();
        let position = names.binary_search_by(|n| n.as_str().cmp(name));
        u32::try_from(position.ok()?).ok()
    }

    /// The local index of each segment by rank: its place among the segments, those named most first.
    pub fn indexes_by_rank(&self) -> &[u32] {
        self.top().indexes_by_rank()
    }

    /// The file that knows all segments.
    fn top(&self) -> &AudienceFile {
        match &self.layer {
            Some(layer) => &layer.changed,
            None => &self.base,
        }
    }

    /// Calls `member` with the local index of each segment the id is in at `now`, in no particular order, each once.
    ///
    /// A membership that expires at a second is over from that second on. Allocates nothing. After [`Lookup::Damaged`] what
    /// `member` was told must be thrown away. Where several ids are looked up, [probe](Self::probe) them together.
    pub fn lookup(&self, key: UserKey, now: Timestamp, mut member: impl FnMut(u32)) -> Lookup {
        let of_rank = self.indexes_by_rank();
        self.lookup_at(self.approach(self.probe(key)), now, |rank| {
            if let Some(index) = of_rank.get(rank as usize) {
                member(*index);
            }
        })
    }

    /// The first of a lookup's three steps: where the key would stand. Starts fetching what [`approach`](Self::approach)
    /// reads, and returns at once.
    ///
    /// Each step of a lookup waits for one load from memory, unless it was asked for in time: take a request's ids through each
    /// step together, in every dataset, and their loads overlap.
    #[inline(always)]
    pub fn probe(&self, key: UserKey) -> Probe {
        self.probe_hash(self.base.hash(key))
    }

    #[inline(always)]
    fn probe_hash(&self, hashed: Hashed) -> Probe {
        Probe {
            hashed,
            base: self.base.place(hashed),
            layer: match &self.layer {
                Some(layer) => layer.changed.place(hashed),
                None => Place::Nowhere,
            },
        }
    }

    /// The second step, which versions of older formats need: finds the bucket's bytes, starts fetching them, and returns at
    /// once.
    #[inline(always)]
    pub fn approach(&self, probe: Probe) -> Approach {
        Approach {
            hashed: probe.hashed,
            base: self.base.locate(probe.base),
            layer: match &self.layer {
                Some(layer) => layer.changed.locate(probe.layer),
                None => Located::Nowhere,
            },
        }
    }

    /// The last step: [`lookup`](Self::lookup) of the key, but that `member` is called with *ranks*: what is kept
    /// by rank has what is asked for most close together. After [`Lookup::Damaged`] what it was told must be thrown away, and may
    /// be no rank.
    #[inline(always)]
    pub fn lookup_at(
        &self,
        approach: Approach,
        now: Timestamp,
        mut member: impl FnMut(u32),
    ) -> Lookup {
        let now = now.unix_seconds();
        self.each(approach, |rank, expires| {
            if expires.is_none_or(|at| at > now) {
                member(rank);
            }
        })
    }

    /// All memberships of an id with the time they expire at, by local index, for people to read. What of a damaged
    /// record can still be read is given.
    pub fn memberships(&self, key: UserKey) -> Vec<(u32, Option<Timestamp>)> {
        let mut all = Vec::new();
        let of_rank = self.indexes_by_rank();
        self.each(self.approach(self.probe(key)), |rank, expires| {
            if let Some(index) = of_rank.get(rank as usize) {
                all.push((*index, expires.map(Timestamp::from_unix_seconds)));
            }
        });
        all.sort_unstable();
        all
    }

    #[inline(always)]
    fn each(&self, approach: Approach, mut member: impl FnMut(u32, Option<i64>)) -> Lookup {
        if let Some(layer) = &self.layer {
            let changed = &layer.changed;
            let told = changed.each_of_layer(approach.hashed, approach.layer, &mut member);
            if let Some(told) = told {
                return told;
            }
        }
        self.base.each(approach.hashed, approach.base, member)
    }
}
