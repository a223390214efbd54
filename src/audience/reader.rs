//! An open version: read, verified to the last byte, and asked.
//!
//! [`AudienceFile::open`] reads the file once into [memory of ours](super::memory), each block checked as it arrives, then
//! walks every record: after it, all counts, offsets and sets are known to be what the format says, and every page has
//! been touched. A lookup trusts none of that: it goes through checked slices and answers
//! [`Lookup::Damaged`] rather than panic, whatever the bytes have become.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod changes;
mod reverify;
mod sets;
pub(super) mod verify;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::ids::{KeyId, Kind, Name, UserKey};

use super::bits::{Bits, Nonsense};
use super::bucket;
use super::filter::FilterFlaw;
use super::format::{Header, OFFSET_BYTES};
use super::memory::{self, Memory};
use super::remix::{Remix, bucket_of, fingerprint};
use super::shard::{self, ENTRY_BYTES, Entry, Hashed};
use super::{Lookup, VersionMeta};

pub(super) use changes::{Change, Changes, Shard};
pub use reverify::{Pace, Stated};
pub use sets::{SetSizes, SetStatistics};

/// An open, verified version file: a full version, or a delta. Immutable, `Send` and `Sync`.
pub struct AudienceFile {
    header: Header,
    memory: Memory,
    remix: Remix,
    arena: Arena,
    segments: Segments,
}

/// Where ids stand in memory, by the file's format.
#[expect(
    clippy::large_enum_variant,
    reason = "one for each open version, and asked on the bid path"
)]
enum Arena {
    /// Format 1: one directory over all buckets.
    One {
        buckets: u64,
        directory: Range<usize>,
        records: Range<usize>,
        expiry: bucket::Expiry,
    },
    /// Format 2: an index of shards.
    Two {
        layout: shard::Layout,
        index: Range<usize>,
        records: Range<usize>,
    },
}

/// Where in a file's memory stands where the bucket of a hash is: a lookup in it after its first step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Where the bucket's two offsets stand.
    offsets: usize,
    /// Where they count from.
    origin: usize,
    /// How many bytes each has.
    width: u8,
    mixing: u8,
}

impl Place {
    /// Where nothing stands: a place that no memory has.
    pub(super) const NOWHERE: Self = Self {
        offsets: usize::MAX,
        origin: 0,
        width: 0,
        mixing: 0,
    };
}

/// Where that bucket's bytes are: after its second step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located {
    start: usize,
    end: usize,
    mixing: u8,
}

impl Located {
    /// Of [`Place::NOWHERE`]: no bytes.
    pub(super) const NOWHERE: Self = Self {
        start: 0,
        end: 0,
        mixing: 0,
    };
}

/// Lines of the cache that are asked for of a bucket at most.
const PREFETCH_LINES: usize = 4;
/// Bytes of one.
const LINE: usize = 64;

/// The segment table, unpacked.
pub(super) struct Segments {
    /// Sorted by name; the position is the local index.
    pub(super) names: Box<[Name]>,
    /// How many ids are in each, by local index.
    pub(super) ids: Box<[u64]>,
    /// The local index of each rank.
    of_rank: Box<[u32]>,
}

impl AudienceFile {
    /// Opens a version file: reads it whole into memory and verifies every byte and every claim.
    ///
    /// Takes about 0.2 µs an id, nearly all of it walking the records. The file may be changed or deleted afterwards.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        open_file(path, Self::of)
    }

    /// As [`open`](Self::open), but that the file stays where it is and is mapped: to be [settled](Self::settled) once there is
    /// memory for it. Must not be changed meanwhile; if it is cut, lookups answer [`Lookup::Damaged`].
    pub fn open_mapped(path: &Path) -> Result<Self, OpenError> {
        map_file(path, Self::of)
    }

    /// Opens a version held in memory, which is copied: for tests, fuzzers and tools.
    pub fn from_bytes(file: &[u8]) -> Result<Self, OpenError> {
        open_bytes(file, Self::of)
    }

    /// The same version in memory of its own, copied from the mapped file and verified again.
    pub fn settled(&self) -> Result<Self, OpenError> {
        settled(&self.memory, Self::of)
    }

    /// Whether it is read where it lies on disk.
    pub fn is_mapped(&self) -> bool {
        self.memory.is_mapped()
    }

    /// Whether all of it could be read so far: else it is lost, and all lookups answer [`Lookup::Damaged`].
    pub fn is_whole(&self) -> bool {
        self.memory.is_whole()
    }

    /// The audience in a file all of whose bytes are known to be as they were written.
    pub(super) fn of(header: Header, memory: Memory) -> Result<Self, Flaw> {
        if header.meta.kind != Kind::Audience {
            return Err(Flaw::OtherKind {
                found: header.meta.kind,
                wanted: Kind::Audience,
            });
        }
        let places = verify::ranges(&header)?;
        let (arena, segments) = verify::arena(&header, &places, &memory)?;
        let file = Self {
            remix: Remix::new(&header.salt()),
            header,
            memory,
            arena,
            segments,
        };
        verify::records(&file)?;
        match file.memory.is_whole() {
            true => Ok(file),
            false => Err(verify::was_cut()),
        }
    }

    /// What the version says of itself.
    pub fn meta(&self) -> &VersionMeta {
        &self.header.meta
    }

    /// The version at the bottom, under whose salt its ids are hashed: its own number unless it is a delta, or was made of
    /// one.
    pub fn root(&self) -> u64 {
        self.header.root()
    }

    /// The public name of the key it was made under. Under another key every lookup would miss: compare before use.
    pub fn key_id(&self) -> KeyId {
        self.header.key_id
    }

    /// How many different ids it holds.
    pub fn ids(&self) -> u64 {
        self.header.ids
    }

    /// How many good rows it was built from.
    pub fn rows(&self) -> u64 {
        self.header.rows
    }

    /// How many (id, segment) pairs it holds, those included that have expired.
    pub fn membership_count(&self) -> u64 {
        self.header.memberships
    }

    /// The number of the file's format.
    pub fn format(&self) -> u32 {
        self.header.format()
    }

    /// The file's length, which is also what it occupies in memory, but for the segment names.
    pub fn bytes(&self) -> u64 {
        self.memory.len() as u64
    }

    /// The segments' names in the order of their local index, which is the order of names.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &str> {
        self.segments.names.iter().map(Name::as_str)
    }

    /// The same, as names.
    pub(super) fn names(&self) -> &[Name] {
        &self.segments.names
    }

    /// How many ids are in each segment, by local index, those included whose membership has expired. Of a delta, how many
    /// are put into it.
    pub fn segment_ids(&self) -> &[u64] {
        &self.segments.ids
    }

    /// The local index of each segment by rank: its place among the segments, those named most first.
    pub(super) fn indexes_by_rank(&self) -> &[u32] {
        &self.segments.of_rank
    }

    /// When memberships expire: the first second and how many bits say how much later, where any does.
    pub(super) fn expiry(&self) -> Option<(i64, u32)> {
        self.header
            .first_expiry
            .map(|first| (first, self.header.expiry_bits()))
    }

    /// The key as this file and all with the same root see it.
    #[inline(always)]
    pub(super) fn hash(&self, key: UserKey) -> Hashed {
        self.remix.mix(key)
    }

    /// The first of a lookup's three steps: where the hash would stand. Starts fetching what [`locate`](Self::locate)
    /// reads, and returns at once.
    #[inline(always)]
    pub(super) fn place(&self, hashed: Hashed) -> Place {
        let mut place = Place::NOWHERE;
        match &self.arena {
            Arena::One {
                buckets,
                directory,
                records,
                ..
            } => {
                let bucket = bucket_of(hashed.spread, *buckets) as usize;
                place.offsets = bucket
                    .wrapping_mul(OFFSET_BYTES)
                    .wrapping_add(directory.start);
                place.origin = records.start;
                place.width = OFFSET_BYTES as u8;
            }
            Arena::Two {
                layout,
                index,
                records,
            } => {
                let shard = hashed.shard(layout.shard_bits);
                if let Some(entry) = self.entry(index, shard)
                    && let Some(offsets) = entry.offsets_of(hashed, layout.shard_bits)
                {
                    let start = records.start.wrapping_add(entry.start as usize);
                    place.offsets = start.wrapping_add(offsets);
                    place.origin = start.wrapping_add(entry.directory_bytes());
                    place.width = entry.width;
                    place.mixing = entry.mixing;
                }
            }
        }
        memory::prefetch(&self.memory, place.offsets);
        place
    }

    /// The second step: finds the bucket's bytes, starts fetching them, and returns at once.
    #[inline(always)]
    pub(super) fn locate(&self, place: Place) -> Located {
        let (start, end) = self.bucket_range(place);
        // A bucket of eight ids in a dozen segments each takes three lines. What is asked for twice is fetched once.
        for line in 0..PREFETCH_LINES {
            let at = start.wrapping_add(line.wrapping_mul(LINE));
            memory::prefetch(&self.memory, at.min(end));
        }
        Located {
            start,
            end,
            mixing: place.mixing,
        }
    }

    /// The last step, of a full version: `member` is called with the rank of each segment that the id is in, and the second at
    /// which that is over. After [`Lookup::Damaged`] what it was told must be thrown away, and may be no rank.
    #[inline(always)]
    pub(super) fn each(
        &self,
        hashed: Hashed,
        located: Located,
        member: impl FnMut(u32, Option<i64>),
    ) -> Lookup {
        let walk = || -> Result<Lookup, Nonsense> {
            match &self.arena {
                Arena::Two { layout, .. } => {
                    let Some(mut bits) = self.found(layout, hashed, located)? else {
                        return Ok(Lookup::Absent);
                    };
                    layout.code.walk(&mut bits, member)?;
                }
                Arena::One { expiry, .. } => {
                    let Located { start, end, .. } = located;
                    let bytes = self.memory.get(start..end).ok_or(Nonsense)?;
                    let bucket = bucket::Bucket::parse(bytes, *expiry)?;
                    let Some(set) = bucket.find(fingerprint(hashed))? else {
                        return Ok(Lookup::Absent);
                    };
                    if set.walk(member)? > self.segments.of_rank.len() as u64 {
                        return Err(Nonsense);
                    }
                }
            }
            Ok(Lookup::Found)
        };
        let told = walk();
        match self.memory.is_whole() {
            true => told.unwrap_or(Lookup::Damaged),
            false => Lookup::Damaged,
        }
    }

    /// The last step, of a delta that says of each of its ids all that holds from now on: `None` where it says nothing of
    /// the id.
    #[inline(never)]
    pub(super) fn each_of_layer(
        &self,
        hashed: Hashed,
        located: Located,
        mut member: impl FnMut(u32, Option<i64>),
    ) -> Option<Lookup> {
        let mut walk = || -> Result<Option<Lookup>, Nonsense> {
            let Arena::Two { layout, .. } = &self.arena else {
                return Err(Nonsense);
            };
            let Some(mut bits) = self.found(layout, hashed, located)? else {
                return Ok(None);
            };
            if bits.take(1) == 0 {
                return Err(Nonsense);
            }
            let mut any = false;
            layout.code.walk(&mut bits, |rank, expires| {
                any = true;
                member(rank, expires);
            })?;
            Ok(Some(if any { Lookup::Found } else { Lookup::Absent }))
        };
        let told = walk();
        match self.memory.is_whole() {
            true => told.unwrap_or(Some(Lookup::Damaged)),
            false => Some(Lookup::Damaged),
        }
    }

    /// The bits of an id in a file of format 2.
    #[inline(always)]
    fn found<'f>(
        &'f self,
        layout: &shard::Layout,
        hashed: Hashed,
        located: Located,
    ) -> Result<Option<Bits<'f>>, Nonsense> {
        let Located { start, end, mixing } = located;
        let length = end.checked_sub(start).ok_or(Nonsense)?;
        let bytes = self.memory.get(start..).ok_or(Nonsense)?;
        let bucket = shard::Bucket::parse(layout, bytes, length)?;
        let found = bucket.find(layout, hashed, mixing)?;
        Ok(found.map(|found| found.0))
    }

    fn index_of(&self, rank: u32) -> Result<u32, Nonsense> {
        let rank = usize::try_from(rank).map_err(|_| Nonsense)?;
        self.segments.of_rank.get(rank).copied().ok_or(Nonsense)
    }

    /// A shard's entry of the index.
    #[inline(always)]
    fn entry(&self, index: &Range<usize>, shard: usize) -> Option<Entry> {
        let at = shard.wrapping_mul(ENTRY_BYTES).wrapping_add(index.start);
        let bytes = self.memory.get(at..)?.first_chunk()?;
        Some(Entry::decode(*bytes))
    }

    /// Where a bucket begins and ends in memory. An empty range where there is none, and one that no memory has where the
    /// directory is damaged.
    #[inline(always)]
    fn bucket_range(&self, place: Place) -> (usize, usize) {
        if place.width == 0 {
            return (0, 0);
        }
        let offsets = self.memory.get(place.offsets..).unwrap_or_default();
        let bits = u32::from(place.width).wrapping_mul(8);
        let mask = !u64::MAX.wrapping_shl(bits);
        let (first, second) = match (offsets.first_chunk(), place.width) {
            // Both in one word.
            (Some(word), 0..=4) => {
                let word = u64::from_le_bytes(*word);
                (word, word.wrapping_shr(bits))
            }
            (Some(word), width) => {
                let behind = offsets.get(usize::from(width)..).unwrap_or_default();
                let Some(behind) = behind.first_chunk() else {
                    return (1, 0);
                };
                (u64::from_le_bytes(*word), u64::from_le_bytes(*behind))
            }
            (None, _) => return (1, 0),
        };
        let at = |offset: u64| place.origin.wrapping_add((offset & mask) as usize);
        (at(first), at(second))
    }

    /// All the file's header says.
    pub(super) fn header(&self) -> &Header {
        &self.header
    }
}

impl fmt::Debug for AudienceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AudienceFile")
            .field("meta", &self.header.meta)
            .field("ids", &self.header.ids)
            .field("segments", &self.header.segments)
            .finish_non_exhaustive()
    }
}

/// The way into a version file of any kind: reads it whole, verifies every byte, and then `of` what the bytes say.
pub(super) fn open_file<T>(
    path: &Path,
    of: impl FnOnce(Header, Memory) -> Result<T, Flaw>,
) -> Result<T, OpenError> {
    from_file(path, of, |file| {
        let length = file.metadata()?.len();
        verify::read(length, &|bytes, at| file.read_exact_at(bytes, at))
    })
}

/// The same way, but that the file is mapped where it lies.
pub(super) fn map_file<T>(
    path: &Path,
    of: impl FnOnce(Header, Memory) -> Result<T, Flaw>,
) -> Result<T, OpenError> {
    from_file(path, of, verify::map)
}

fn from_file<T>(
    path: &Path,
    of: impl FnOnce(Header, Memory) -> Result<T, Flaw>,
    read: impl FnOnce(&File) -> Result<(Header, Memory), Flaw>,
) -> Result<T, OpenError> {
    let opened = || {
        let (header, memory) = read(&File::open(path)?)?;
        of(header, memory)
    };
    opened().map_err(|flaw| OpenError {
        path: path.display().to_string(),
        flaw,
    })
}

/// The same way, for a version in memory.
pub(super) fn open_bytes<T>(
    file: &[u8],
    of: impl FnOnce(Header, Memory) -> Result<T, Flaw>,
) -> Result<T, OpenError> {
    from_memory(file, of, || true)
}

/// The same way, from a mapped file into memory of its own.
pub(super) fn settled<T>(
    memory: &Memory,
    of: impl FnOnce(Header, Memory) -> Result<T, Flaw>,
) -> Result<T, OpenError> {
    from_memory(memory, of, || memory.is_whole())
}

fn from_memory<T>(
    file: &[u8],
    of: impl FnOnce(Header, Memory) -> Result<T, Flaw>,
    is_whole: impl Fn() -> bool,
) -> Result<T, OpenError> {
    let read_at = |bytes: &mut [u8], at: u64| {
        let from = usize::try_from(at)
            .ok()
            .and_then(|at| file.get(at..)?.get(..bytes.len()));
        bytes.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    let opened = || {
        let read = verify::read(file.len() as u64, &read_at);
        if !is_whole() {
            return Err(verify::was_cut());
        }
        let (header, memory) = read?;
        of(header, memory)
    };
    opened().map_err(|flaw| OpenError {
        path: "version in memory".to_owned(),
        flaw,
    })
}

/// A version file that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {flaw}")]
pub struct OpenError {
    /// The file.
    pub path: String,
    /// What is wrong with it.
    #[source]
    pub flaw: Flaw,
}

/// What is wrong with a version file.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// The system could not read it.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It does not begin as a version file does.
    #[error("not a Kith version file; make one with `kith build`")]
    NotKith,
    /// A later Kith wrote it.
    #[error(
        "has format {found}, and this Kith reads up to {known}; build it with this Kith or serve it with a newer"
    )]
    NewerFormat {
        /// The file's format.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// It is shorter or longer than when it was written.
    #[error(
        "{found} bytes long, but written with {recorded}; it was cut or added to: transfer or build it again"
    )]
    Length {
        /// What the header says.
        recorded: u64,
        /// What is there.
        found: u64,
    },
    /// A checksum does not match.
    #[error("damaged in its {part}, at or after byte {at}; transfer or build it again")]
    Damaged {
        /// Which part of the file.
        part: &'static str,
        /// Where what the checksum covers begins, in bytes from the start of the file.
        at: u64,
    },
    /// The checksums match, but what they cover is not a version: no Kith wrote it.
    #[error("contradicts itself: {0} cannot be true; build it again")]
    Contradiction(&'static str),
    /// It is of another kind than it was opened as.
    #[error("holds a dataset of kind {found}, not of kind {wanted}")]
    OtherKind {
        /// What it holds.
        found: Kind,
        /// What was asked for.
        wanted: Kind,
    },
    /// The part that is a filter is none.
    #[error("holds a filter that {0}")]
    Filter(FilterFlaw),
    /// A kind of a later milestone.
    #[error("holds a dataset of kind {0}, which this Kith does not read yet")]
    KindNotReadYet(Kind),
    /// A delta where a full version is needed.
    #[error("is a delta, which says only what changes of version {base}; give a full version")]
    OnlyADelta {
        /// The version it changes.
        base: u64,
    },
}
