//! An open version: read, verified to the last byte, and asked.
//!
//! [`AudienceFile::open`] reads the file once into [memory of ours](super::memory), each block checked as it arrives, then
//! walks every record: after it, all counts, offsets and sets are known to be what the format says, and every page has
//! been touched. A lookup trusts none of that: it goes through checked slices and answers
//! [`Lookup::Damaged`] rather than panic, whatever the bytes have become.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod changes;
mod flaw;
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
use super::format::{Header, OFFSET_BYTES};
use super::memory::{self, Memory};
use super::remix::{Remix, bucket_of, fingerprint};
use super::second;
use super::shard::{self, ENTRY_BYTES, Hashed, LINE, Seen};
use super::{Lookup, VersionMeta};

pub(super) use changes::{Change, Changes, Shard};
pub use flaw::{Flaw, OpenError};
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
enum Arena {
    /// Format 1: one directory over all buckets.
    One {
        buckets: u64,
        directory: Range<usize>,
        records: Range<usize>,
        expiry: bucket::Expiry,
    },
    /// Format 2: an index of shards, which have buckets.
    Two(Shards),
    /// Format 3: an index of shards, which have bins.
    Three(Shards),
}

/// Where an index and its shards lie.
struct Shards {
    layout: shard::Layout,
    index: Range<usize>,
    records: Range<usize>,
}

/// Where a hash would stand in a file's memory: a lookup in it after its first step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// There is nothing.
    Nowhere,
    /// Format 3.
    Bin(Sought),
    /// Formats 1 and 2: where the bucket's two offsets stand, where they count from, and how many bytes each has.
    Offsets {
        at: usize,
        origin: usize,
        width: u8,
        mixing: u8,
    },
}

/// Where that is: after its second step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Located {
    Nowhere,
    Bin(Sought),
    /// Where the bucket's bytes begin and end.
    Bucket {
        start: usize,
        end: usize,
        mixing: u8,
    },
}

/// What is sought in which bin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sought {
    /// Where the first bin begins.
    first: usize,
    /// Where the second does.
    second: usize,
    /// What is looked for in the first.
    word: shard::Word,
}

/// Lines of the cache that are asked for of a first bin or a bucket.
const PREFETCH_LINES: usize = 4;
/// The same of a second bin, where one id in five is: what more would gain them, the others would lose.
const PREFETCH_LINES_OF_SECOND: usize = 2;

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
        match &self.arena {
            Arena::Three(shards) => {
                // Nothing needs to be located: what every lookup reads is asked for now.
                let Some(entry) = self.entry(shards, hashed) else {
                    return Place::Nowhere;
                };
                let bins = shard::Bins::of(&shards.layout, entry.geometry, hashed);
                let Some(bins) = bins else {
                    return Place::Nowhere;
                };
                let start = shards.records.start.wrapping_add(entry.start as usize);
                let first = start.wrapping_add(bins.first);
                let second = start.wrapping_add(bins.second);
                self.prefetch(first, PREFETCH_LINES);
                self.prefetch(second, PREFETCH_LINES_OF_SECOND);
                let word = bins.word;
                Place::Bin(Sought {
                    first,
                    second,
                    word,
                })
            }
            Arena::One {
                buckets,
                directory,
                records,
                ..
            } => {
                let bucket = bucket_of(hashed.spread, *buckets) as usize;
                let at = bucket.wrapping_mul(OFFSET_BYTES);
                let at = at.wrapping_add(directory.start);
                memory::prefetch(&self.memory, at);
                Place::Offsets {
                    at,
                    origin: records.start,
                    width: OFFSET_BYTES as u8,
                    mixing: 0,
                }
            }
            Arena::Two(shards) => {
                let shard = hashed.shard(shards.layout.shard_bits);
                let Some(entry) = self.second_entry(shards, shard) else {
                    return Place::Nowhere;
                };
                let Some(offsets) = entry.offsets_of(hashed, shards.layout.shard_bits) else {
                    return Place::Nowhere;
                };
                let start = shards.records.start.wrapping_add(entry.start as usize);
                let at = start.wrapping_add(offsets);
                memory::prefetch(&self.memory, at);
                Place::Offsets {
                    at,
                    origin: start.wrapping_add(entry.directory_bytes()),
                    width: entry.width,
                    mixing: entry.mixing,
                }
            }
        }
    }

    /// The second step, which formats before the third need: finds the bucket's bytes, starts fetching them, and returns at
    /// once.
    #[inline(always)]
    pub(super) fn locate(&self, place: Place) -> Located {
        match place {
            Place::Nowhere => Located::Nowhere,
            Place::Bin(sought) => Located::Bin(sought),
            Place::Offsets {
                at,
                origin,
                width,
                mixing,
            } => {
                let (start, end) = self.bucket_range(at, origin, width);
                self.prefetch(start, PREFETCH_LINES);
                Located::Bucket { start, end, mixing }
            }
        }
    }

    /// Asks for the lines of a bin or bucket, which one of a dozen ids in a dozen segments each has four of.
    #[inline(always)]
    fn prefetch(&self, at: usize, lines: usize) {
        for line in 0..lines {
            let line = line.wrapping_mul(LINE);
            memory::prefetch(&self.memory, at.wrapping_add(line));
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
                Arena::Three(shards) | Arena::Two(shards) => {
                    let Some(mut bits) = self.found(shards, hashed, located)? else {
                        return Ok(Lookup::Absent);
                    };
                    shards.layout.code.walk(&mut bits, member)?;
                }
                Arena::One { expiry, .. } => {
                    let Located::Bucket { start, end, .. } = located else {
                        return Err(Nonsense);
                    };
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
            let (Arena::Three(shards) | Arena::Two(shards)) = &self.arena else {
                return Err(Nonsense);
            };
            let Some(mut bits) = self.found(shards, hashed, located)? else {
                return Ok(None);
            };
            if bits.take(1) == 0 {
                return Err(Nonsense);
            }
            let mut any = false;
            shards.layout.code.walk(&mut bits, |rank, expires| {
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

    /// The bits of an id in a file that has shards.
    #[inline(always)]
    fn found<'f>(
        &'f self,
        shards: &'f Shards,
        hashed: Hashed,
        located: Located,
    ) -> Result<Option<Bits<'f>>, Nonsense> {
        let (start, end, mixing) = match located {
            Located::Bin(sought) => {
                let layout = &shards.layout;
                let mut bytes = self.memory.get(sought.first..).ok_or(Nonsense)?;
                let mut seen = shard::see(layout, bytes, sought.word, hashed)?;
                if seen == Seen::Elsewhere {
                    bytes = self.memory.get(sought.second..).ok_or(Nonsense)?;
                    seen = shard::see(layout, bytes, sought.word.in_second(), hashed)?;
                }
                return match seen {
                    Seen::At(position) => shard::bits_at(layout, bytes, position).map(Some),
                    Seen::Absent | Seen::Elsewhere => Ok(None),
                    Seen::Outside => self.found_outside(shards, hashed),
                };
            }
            Located::Bucket { start, end, mixing } => (start, end, mixing),
            Located::Nowhere => return Ok(None),
        };
        let length = end.checked_sub(start).ok_or(Nonsense)?;
        let bytes = self.memory.get(start..).ok_or(Nonsense)?;
        let bucket = second::Bucket::parse(&shards.layout, bytes, length)?;
        let found = bucket.find(&shards.layout, hashed, mixing)?;
        Ok(found.map(|found| found.0))
    }

    /// The bits of an id whose set is in its shard's tail.
    #[cold]
    #[inline(never)]
    fn found_outside<'f>(
        &'f self,
        shards: &'f Shards,
        hashed: Hashed,
    ) -> Result<Option<Bits<'f>>, Nonsense> {
        let entry = self.entry(shards, hashed).ok_or(Nonsense)?;
        self.shard_at(shards, entry)?.find(hashed)
    }

    /// The shard that an entry of format 3 is of.
    #[inline(always)]
    fn shard_at<'f>(
        &'f self,
        shards: &'f Shards,
        entry: shard::Entry,
    ) -> Result<shard::Shard<'f>, Nonsense> {
        let start = shards.records.start.wrapping_add(entry.start as usize);
        Ok(shard::Shard {
            layout: &shards.layout,
            geometry: entry.geometry,
            bytes: self.memory.get(start..).ok_or(Nonsense)?,
        })
    }

    /// Goes through the ids of a shard by its number, as [`shard::Shard::each`].
    fn each_of_shard<'f>(
        &'f self,
        number: usize,
        each: impl FnMut(shard::Stored, Bits<'f>) -> Result<Bits<'f>, Nonsense>,
    ) -> Result<(), Nonsense> {
        match &self.arena {
            Arena::One { .. } => Err(Nonsense),
            Arena::Two(shards) => {
                let entry = self.second_entry(shards, number).ok_or(Nonsense)?;
                let start = shards.records.start.wrapping_add(entry.start as usize);
                let shard = second::Shard {
                    layout: &shards.layout,
                    entry,
                    bytes: self.memory.get(start..).ok_or(Nonsense)?,
                };
                shard.each(each)
            }
            Arena::Three(shards) => {
                let entry = self.entry_at(shards, number).ok_or(Nonsense)?;
                self.shard_at(shards, entry)?.each(each)
            }
        }
    }

    /// How the shards are written; nothing in the first format, which has none.
    fn layout(&self) -> Option<&shard::Layout> {
        match &self.arena {
            Arena::Two(shards) | Arena::Three(shards) => Some(&shards.layout),
            Arena::One { .. } => None,
        }
    }

    fn index_of(&self, rank: u32) -> Result<u32, Nonsense> {
        let rank = usize::try_from(rank).map_err(|_| Nonsense)?;
        self.segments.of_rank.get(rank).copied().ok_or(Nonsense)
    }

    /// The entry of a hash's shard in an index of format 3.
    #[inline(always)]
    fn entry(&self, shards: &Shards, hashed: Hashed) -> Option<shard::Entry> {
        self.entry_at(shards, hashed.shard(shards.layout.shard_bits))
    }

    #[inline(always)]
    fn entry_at(&self, shards: &Shards, shard: usize) -> Option<shard::Entry> {
        self.index(shards, shard).map(shard::Entry::decode)
    }

    #[inline(always)]
    fn second_entry(&self, shards: &Shards, shard: usize) -> Option<second::Entry> {
        self.index(shards, shard).map(second::Entry::decode)
    }

    #[inline(always)]
    fn index(&self, shards: &Shards, shard: usize) -> Option<[u8; ENTRY_BYTES]> {
        let at = shard
            .wrapping_mul(ENTRY_BYTES)
            .wrapping_add(shards.index.start);
        self.memory.get(at..)?.first_chunk().copied()
    }

    /// Where a bucket begins and ends in memory. An empty range where there is none, and one that no memory has where the
    /// directory is damaged.
    #[inline(always)]
    fn bucket_range(&self, at: usize, origin: usize, width: u8) -> (usize, usize) {
        let offsets = self.memory.get(at..).unwrap_or_default();
        let bits = u32::from(width).wrapping_mul(8);
        let mask = !u64::MAX.wrapping_shl(bits);
        let behind = offsets.get(usize::from(width)..).unwrap_or_default();
        match (offsets.first_chunk(), behind.first_chunk()) {
            (Some(first), Some(second)) => {
                let at = |offset: [u8; 8]| {
                    let offset = u64::from_le_bytes(offset) & mask;
                    origin.wrapping_add(offset as usize)
                };
                (at(*first), at(*second))
            }
            _ => (1, 0),
        }
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
