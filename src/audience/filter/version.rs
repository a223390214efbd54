//! A filter version, open: a version file whose one large section is a filter, verified and asked.
//!
//! The file is read as an audience's is, into memory of ours with every block checked as it arrives, and the filter stays where
//! it stands in it: the section begins 512 bytes into the file, so that each block is one line of the cache. Ids are hashed
//! as in an audience, under the salt of dataset and version; the filter's hash is the half that would name the shard
//! there. So rows become one kind of version or the other in the same pass.
//!
//! Invariant: an open filter has exactly one segment, with as many ids as the filter says it was made for. Whether its
//! blocks hold just these cannot be read off them: that is what is [measured](FilterSet::false_positives) before it is served.
//!
//! Cost: beyond the filter 512 bytes of header, 80 of segment and 4 of checksum each 64 KiB.

use std::fmt;
use std::path::Path;

use super::super::format::Header;
use super::super::memory::Memory;
use super::super::reader::{Flaw, OpenError, open_bytes, open_file, settled, verify};
use super::super::remix::Remix;
use super::super::{Lookup, VersionMeta};
use super::{FilterFlaw, FilterProbe, FilterSet};
use crate::ids::{KeyId, Kind, Name, UserKey};

/// An open, verified version of a filter dataset: its one segment, as an approximate set of user keys. Immutable, `Send`
/// and `Sync`.
pub struct Filter {
    header: Header,
    segment: Name,
    remix: Remix,
    set: FilterSet,
}

impl Filter {
    /// Opens a version file: reads it whole into memory and verifies every byte and every claim. The file may be changed or
    /// deleted afterwards.
    ///
    /// # Errors
    /// Where it cannot be read, is no version file, is damaged, or holds no filter.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        open_file(path, Self::of)
    }

    /// Opens a version held in memory, which is copied: for tests, fuzzers and tools.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(file: &[u8]) -> Result<Self, OpenError> {
        open_bytes(file, Self::of)
    }

    /// The filter in a file all of whose bytes are known to be as they were written.
    pub(in super::super) fn of(header: Header, memory: Memory) -> Result<Self, Flaw> {
        if header.meta.kind != Kind::Filter {
            return Err(Flaw::OtherKind {
                found: header.meta.kind,
                wanted: Kind::Filter,
            });
        }
        let places = verify::ranges(&header)?;
        let [filter, segments, _] = places.as_slice() else {
            return Err(Flaw::Contradiction("the section table"));
        };
        let table = memory.get(segments.clone()).unwrap_or_default();
        let segments = verify::segments(&header, table)?;
        let ([segment], [ids]) = (&*segments.names, &*segments.ids) else {
            return Err(Flaw::Contradiction("the count of segments"));
        };
        if *ids != header.ids {
            return Err(Flaw::Contradiction("the sizes of the segments"));
        }
        let set = FilterSet::within(memory, filter.clone()).map_err(|flaw| match flaw {
            FilterFlaw::Io(disk) => Flaw::Io(disk),
            other => Flaw::Filter(other),
        })?;
        if set.shape().ids() != header.ids {
            return Err(Flaw::Contradiction("the count of ids"));
        }
        Ok(Self {
            segment: segment.clone(),
            remix: Remix::new(&header.salt()),
            set,
            header,
        })
    }

    /// What the version says of itself.
    pub fn meta(&self) -> &VersionMeta {
        &self.header.meta
    }

    /// The public name of the key it was made under. Under another key every lookup would miss: compare before use.
    pub fn key_id(&self) -> KeyId {
        self.header.key_id
    }

    /// How many different ids were put in, as the file says.
    pub fn ids(&self) -> u64 {
        self.header.ids
    }

    /// The same version in memory of its own, as [`AudienceFile::settled`](super::super::AudienceFile::settled).
    ///
    /// # Errors
    /// Where its mapped file could not be read or has changed, or there is no memory.
    pub fn settled(&self) -> Result<Self, OpenError> {
        settled(self.set.memory(), Self::of)
    }

    /// Whether it is read where it lies on disk.
    pub fn is_mapped(&self) -> bool {
        self.set.memory().is_mapped()
    }

    /// Whether all of it could be read so far: else it is lost, and all lookups answer [`Lookup::Damaged`].
    pub fn is_whole(&self) -> bool {
        self.set.memory().is_whole()
    }

    /// How many good rows it was built from.
    pub fn rows(&self) -> u64 {
        self.header.rows
    }

    /// The file's length, which is also what it occupies in memory.
    pub fn bytes(&self) -> u64 {
        self.header.file_bytes().unwrap_or(0)
    }

    /// The one segment, by its name in the dataset.
    pub fn segment(&self) -> &Name {
        &self.segment
    }

    /// The set itself.
    pub fn set(&self) -> &FilterSet {
        &self.set
    }

    /// All the file's header says.
    pub(in super::super) fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the id is in: [`Lookup::Found`] for all that were uploaded, and for a share of the others.
    pub fn lookup(&self, key: UserKey) -> Lookup {
        self.lookup_at(self.probe(key))
    }

    /// The first of a lookup's two steps, as [`FilterSet::probe`].
    pub fn probe(&self, key: UserKey) -> FilterProbe {
        self.set.probe(self.remix.mix(key).spread)
    }

    /// The second step.
    pub fn lookup_at(&self, probe: FilterProbe) -> Lookup {
        match self.set.contains_at(probe) {
            Some(true) => Lookup::Found,
            Some(false) => Lookup::Absent,
            None => Lookup::Damaged,
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("meta", &self.header.meta)
            .field("ids", &self.header.ids)
            .field("segment", &self.segment)
            .finish_non_exhaustive()
    }
}
