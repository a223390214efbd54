//! Rows on their way from reading to writing: in partitions by their hashes, in memory up to a bound, the rest in a
//! scratch file.
//!
//! A row is a few bytes, put into the chunk that its thread has open for its partition. Full chunks go to the partition; one
//! that has its share of the memory writes all of its chunks to the scratch file as one extent. So writes are long, memory
//! is bounded whatever comes, and nobody waits for anybody who works on another partition. Chunks that were written are
//! filled again, so that the memory stays what it is.
//!
//! ```text
//! row := spread:u64  check:u64  head:u8  [added:u32]  [removed:u32]  [expires:i64]  number:u16 × (added + removed)
//! head := bit 0 expires, bit 1 deleted, bit 2 removes some, bits 3 to 7 how many it adds; 31: `added` says it
//! ```
//!
//! The scratch file has no name from the moment it is made, so that it goes with the process, and holds hashes, no ids. It is
//! written past the storage thread: nothing of it has to survive.
//!
//! Cost: 17 bytes a row and 2 for each segment it names.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::super::shard::Hashed;

/// Bits of the hash that name the partition.
pub(super) const PARTITION_BITS: u32 = 10;
pub(super) const PARTITIONS: usize = 1 << PARTITION_BITS;
/// Bytes of a chunk: so many that a write of several is long, and so few that one a partition and thread is no burden.
const CHUNK_BYTES_MAX: usize = 64 << 10;
const CHUNK_BYTES_MIN: usize = 512;
const CHUNK_BYTES_AT_FIRST: usize = 256;

/// Later than any time that can be written, so that it wins where the later expiry is kept.
pub(super) const NEVER: i64 = i64::MAX;

const EXPIRES: u8 = 1;
const DELETED: u8 = 2;
const REMOVES: u8 = 4;
const ADDED_SHIFT: u32 = 3;
const ADDED_LONG: u8 = 31;

/// How much memory a build may take, and where it puts what is more.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) bytes: u64,
    pub(super) folder: PathBuf,
}

/// How many threads can each have a chunk open for every partition in so many bytes; at least one.
pub(super) fn threads_max(bytes: u64) -> usize {
    let each = (PARTITIONS * CHUNK_BYTES_MIN) as u64;
    usize::try_from(bytes / each).unwrap_or(usize::MAX).max(1)
}

/// A row as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row<'a> {
    pub(super) hashed: Hashed,
    pub(super) deleted: bool,
    /// The second at which what it adds expires, or [`NEVER`].
    pub(super) expires: i64,
    /// Numbers, two bytes each.
    pub(super) added: &'a [[u8; 2]],
    pub(super) removed: &'a [[u8; 2]],
}

/// Longest that a row is without its numbers.
const ROW_HEAD_MAX: usize = 16 + 1 + 4 + 4 + 8;

impl<'a> Row<'a> {
    /// Takes one off the front of some rows; nothing at their end, or where they are no rows.
    #[inline]
    fn take(bytes: &mut &'a [u8]) -> Option<Self> {
        fn field<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (field, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(*field)
        }
        let mut rest = *bytes;
        let hashed = Hashed {
            spread: u64::from_le_bytes(field(&mut rest)?),
            check: u64::from_le_bytes(field(&mut rest)?),
        };
        let [head] = field(&mut rest)?;
        let added = match head >> ADDED_SHIFT {
            ADDED_LONG => u32::from_le_bytes(field(&mut rest)?),
            few => few.into(),
        };
        let removed = match head & REMOVES {
            0 => 0,
            _ => u32::from_le_bytes(field(&mut rest)?),
        };
        let expires = match head & EXPIRES {
            0 => NEVER,
            _ => i64::from_le_bytes(field(&mut rest)?),
        };
        let (added, removed) = (added as usize, removed as usize);
        let (numbers, after) = rest.split_at_checked(2 * (added + removed))?;
        *bytes = after;
        let (added, removed) = numbers.as_chunks().0.split_at(added);
        Some(Self {
            hashed,
            deleted: head & DELETED != 0,
            expires,
            added,
            removed,
        })
    }

    /// The row at an offset of rows that were taken once already.
    #[inline]
    pub(super) fn at(bytes: &'a [u8], offset: usize) -> Option<Self> {
        Self::take(&mut bytes.get(offset..)?)
    }
}

/// Appends a row that adds the first `added` of the numbers and removes the others.
#[inline]
fn put_row(
    out: &mut Vec<u8>,
    hashed: Hashed,
    deleted: bool,
    expires: i64,
    numbers: &[u16],
    added: usize,
) {
    let removed = numbers.len() - added;
    let few = u8::try_from(added).ok().filter(|few| *few < ADDED_LONG);
    let flag = |flag, is: bool| if is { flag } else { 0 };
    let head = few.unwrap_or(ADDED_LONG) << ADDED_SHIFT
        | flag(EXPIRES, expires != NEVER)
        | flag(DELETED, deleted)
        | flag(REMOVES, removed > 0);
    let mut first = [0; 17];
    first[..8].copy_from_slice(&hashed.spread.to_le_bytes());
    first[8..16].copy_from_slice(&hashed.check.to_le_bytes());
    first[16] = head;
    out.extend_from_slice(&first);
    if few.is_none() {
        out.extend_from_slice(&(added as u32).to_le_bytes());
    }
    if removed > 0 {
        out.extend_from_slice(&(removed as u32).to_le_bytes());
    }
    if expires != NEVER {
        out.extend_from_slice(&expires.to_le_bytes());
    }
    // In one piece: a row has many of them.
    let from = out.len();
    out.resize(from + 2 * numbers.len(), 0);
    let places = out[from..].as_chunks_mut::<2>().0;
    for (place, number) in places.iter_mut().zip(numbers) {
        *place = number.to_le_bytes();
    }
}

/// All rows of a version.
#[derive(Debug)]
pub(super) struct Store {
    partitions: Vec<Mutex<Partition>>,
    /// Chunks to be filled again.
    spare: Mutex<Vec<Vec<u8>>>,
    chunk_bytes: usize,
    /// From so many bytes on a partition goes to the scratch file.
    partition_bytes: usize,
    scratch: Option<Scratch>,
    /// Bytes of all chunks that there are, open, full or spare, and the most there ever were.
    held: AtomicUsize,
    held_most: AtomicUsize,
}

#[derive(Debug, Default)]
struct Partition {
    chunks: Vec<Vec<u8>>,
    /// Bytes that the chunks take, filled or not.
    held: usize,
    extents: Vec<Extent>,
    rows: u64,
    bytes: u64,
}

/// A part of the scratch file.
#[derive(Debug, Clone, Copy)]
struct Extent {
    offset: u64,
    length: u64,
    /// CRC-32 of what it holds.
    crc: u32,
}

impl Store {
    /// For so many threads that put rows in.
    pub(super) fn new(threads: usize, bound: Option<Bound>) -> Self {
        let share = |parts: u64, of: usize| {
            let bytes = bound.as_ref().map(|bound| bound.bytes / parts);
            bytes.map_or(usize::MAX, |bytes| bytes as usize / of)
        };
        // A quarter for what is open, half for what is full; the last quarter is for finishing.
        let open = share(4, PARTITIONS * threads);
        let chunk_bytes = open.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        Self {
            partitions: std::iter::repeat_with(Mutex::default)
                .take(PARTITIONS)
                .collect(),
            spare: Mutex::default(),
            chunk_bytes,
            partition_bytes: share(2, PARTITIONS),
            scratch: bound.map(|bound| Scratch::new(bound.folder)),
            held: AtomicUsize::new(0),
            held_most: AtomicUsize::new(0),
        }
    }

    /// How many rows some partitions have, and how many bytes these take.
    pub(super) fn size(&self, partitions: std::ops::Range<usize>) -> (u64, u64) {
        self.partitions[partitions].iter().fold((0, 0), |sum, own| {
            let own = lock(own);
            (sum.0 + own.rows, sum.1 + own.bytes)
        })
    }

    /// Most bytes that chunks ever took.
    #[cfg(test)]
    pub(super) fn held_most(&self) -> usize {
        self.held_most.load(Ordering::Relaxed)
    }

    /// Bytes that the scratch file got.
    #[cfg(test)]
    pub(super) fn spilled(&self) -> u64 {
        let scratch = self.scratch.as_ref();
        scratch.map_or(0, |scratch| scratch.end.load(Ordering::Relaxed))
    }

    fn hold(&self, bytes: usize) {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.held_most.fetch_max(held, Ordering::Relaxed);
    }

    fn let_go(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn fresh_chunk(&self) -> Vec<u8> {
        lock(&self.spare).pop().unwrap_or_else(|| {
            self.hold(self.chunk_bytes);
            Vec::with_capacity(self.chunk_bytes)
        })
    }

    /// Takes over a chunk; `rows` is how many rows are in it.
    fn push(&self, partition: usize, chunk: Vec<u8>, rows: u64) -> io::Result<()> {
        let mut own = lock(&self.partitions[partition]);
        own.rows += rows;
        own.bytes += chunk.len() as u64;
        own.held += chunk.capacity();
        own.chunks.push(chunk);
        match &self.scratch {
            Some(scratch) if own.held >= self.partition_bytes => self.spill(&mut own, scratch),
            _ => Ok(()),
        }
    }

    fn spill(&self, own: &mut Partition, scratch: &Scratch) -> io::Result<()> {
        own.extents.push(scratch.write(&own.chunks)?);
        own.held = 0;
        let mut spare = lock(&self.spare);
        for mut chunk in own.chunks.drain(..) {
            if chunk.capacity() == self.chunk_bytes {
                chunk.clear();
                spare.push(chunk);
            } else {
                self.let_go(chunk.capacity());
            }
        }
        Ok(())
    }

    /// Lets go of chunks that nobody will fill.
    pub(super) fn end_filling(&self) {
        let spare = std::mem::take(&mut *lock(&self.spare));
        self.let_go(spare.iter().map(Vec::capacity).sum());
    }

    /// Gives `each` the bytes of some partitions' rows, part after part; only whole rows are in a part.
    fn each_part(
        &self,
        partitions: std::ops::Range<usize>,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        for own in &self.partitions[partitions] {
            let own = lock(own);
            for chunk in &own.chunks {
                each(chunk)?;
            }
            for extent in &own.extents {
                let scratch = self.scratch.as_ref().ok_or(ErrorKind::NotFound)?;
                scratch.read(*extent, &mut buffer)?;
                each(&buffer)?;
            }
        }
        Ok(())
    }

    /// Lets go of some partitions' rows, in memory and on disk.
    pub(super) fn discard(&self, partitions: std::ops::Range<usize>) {
        for own in &self.partitions[partitions] {
            let own = std::mem::take(&mut *lock(own));
            self.let_go(own.held);
            for extent in own.extents {
                if let Some(scratch) = &self.scratch {
                    scratch.discard(extent);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The chunks that one thread has open.
#[derive(Debug)]
pub(super) struct Open {
    chunks: Vec<(Vec<u8>, u64)>,
}

impl Default for Open {
    fn default() -> Self {
        let empty = std::iter::repeat_with(Default::default);
        Self {
            chunks: empty.take(PARTITIONS).collect(),
        }
    }
}

impl Open {
    /// Keeps a row that adds the first `added` of the numbers and removes the others.
    #[inline]
    pub(super) fn put(
        &mut self,
        store: &Store,
        hashed: Hashed,
        deleted: bool,
        expires: i64,
        numbers: &[u16],
        added: usize,
    ) -> io::Result<()> {
        let partition = hashed.shard(PARTITION_BITS);
        let (chunk, rows) = &mut self.chunks[partition];
        let most = ROW_HEAD_MAX + 2 * numbers.len();
        if chunk.capacity() - chunk.len() < most {
            if most > store.chunk_bytes {
                let mut own = Vec::with_capacity(most);
                store.hold(own.capacity());
                put_row(&mut own, hashed, deleted, expires, numbers, added);
                return store.push(partition, own, 1);
            }
            let grown = (2 * chunk.capacity()).max(CHUNK_BYTES_AT_FIRST).max(most);
            if grown <= store.chunk_bytes && chunk.capacity() < store.chunk_bytes {
                // The first chunk grows: a version of few rows takes little memory.
                let before = chunk.capacity();
                chunk.reserve_exact(grown - chunk.len());
                store.hold(chunk.capacity() - before);
            } else {
                let full = std::mem::replace(chunk, store.fresh_chunk());
                let rows = std::mem::take(rows);
                if !full.is_empty() {
                    store.push(partition, full, rows)?;
                }
            }
        }
        put_row(chunk, hashed, deleted, expires, numbers, added);
        *rows += 1;
        Ok(())
    }

    /// Hands over all that is not empty.
    pub(super) fn close(&mut self, store: &Store) -> io::Result<()> {
        for (partition, (chunk, rows)) in self.chunks.iter_mut().enumerate() {
            let (chunk, rows) = (std::mem::take(chunk), std::mem::take(rows));
            if rows > 0 {
                store.push(partition, chunk, rows)?;
            } else {
                store.let_go(chunk.capacity());
            }
        }
        Ok(())
    }
}

/// Rows of some shards, in the order of their hashes; kept from one load to the next.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    bytes: Vec<u8>,
    rows: Vec<(Hashed, usize)>,
}

impl Sorted {
    /// Loads the rows of some partitions that `wanted` says are, and sorts them.
    pub(super) fn load(
        &mut self,
        store: &Store,
        partitions: std::ops::Range<usize>,
        wanted: impl Fn(Hashed) -> bool,
    ) -> io::Result<()> {
        self.bytes.clear();
        self.rows.clear();
        store.each_part(partitions, |mut part| {
            while !part.is_empty() {
                let before = part;
                let row = Row::take(&mut part).ok_or(ErrorKind::InvalidData)?;
                if wanted(row.hashed) {
                    self.rows.push((row.hashed, self.bytes.len()));
                    let own = &before[..before.len() - part.len()];
                    self.bytes.extend_from_slice(own);
                }
            }
            Ok(())
        })?;
        self.rows.sort_unstable_by_key(|(hashed, _)| *hashed);
        Ok(())
    }

    /// Each id with all of its rows, in the order of the hashes.
    pub(super) fn ids(&self) -> impl Iterator<Item = (Hashed, SameId<'_>)> {
        let same = |a: &(Hashed, usize), b: &(Hashed, usize)| a.0 == b.0;
        self.rows.chunk_by(same).filter_map(|rows| {
            let (hashed, _) = rows.first()?;
            let bytes = &*self.bytes;
            Some((*hashed, SameId { bytes, rows }))
        })
    }
}

/// The rows of one id.
#[derive(Debug, Clone, Copy)]
pub(super) struct SameId<'a> {
    bytes: &'a [u8],
    rows: &'a [(Hashed, usize)],
}

impl<'a> SameId<'a> {
    pub(super) fn len(self) -> usize {
        self.rows.len()
    }

    #[inline]
    pub(super) fn rows(self) -> impl Iterator<Item = Row<'a>> {
        let row = move |(_, at): &(Hashed, usize)| Row::at(self.bytes, *at);
        self.rows.iter().filter_map(row)
    }
}

/// A file without a name, made when first needed.
#[derive(Debug)]
struct Scratch {
    folder: PathBuf,
    file: OnceLock<File>,
    making: Mutex<()>,
    end: AtomicU64,
}

impl Scratch {
    fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            file: OnceLock::new(),
            making: Mutex::default(),
            end: AtomicU64::new(0),
        }
    }

    fn file(&self) -> io::Result<&File> {
        let _alone = lock(&self.making);
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = nameless(&self.folder)?;
        Ok(self.file.get_or_init(|| file))
    }

    fn write(&self, chunks: &[Vec<u8>]) -> io::Result<Extent> {
        let file = self.file()?;
        let length: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let offset = self.end.fetch_add(length, Ordering::Relaxed);
        let mut at = offset;
        let mut crc = crc32fast::Hasher::new();
        for chunk in chunks {
            file.write_all_at(chunk, at)?;
            at += chunk.len() as u64;
            crc.update(chunk);
        }
        Ok(Extent {
            offset,
            length,
            crc: crc.finalize(),
        })
    }

    fn read(&self, extent: Extent, into: &mut Vec<u8>) -> io::Result<()> {
        into.resize(extent.length as usize, 0);
        self.file()?.read_exact_at(into, extent.offset)?;
        match crc32fast::hash(into) == extent.crc {
            true => Ok(()),
            false => Err(io::Error::new(
                ErrorKind::InvalidData,
                "the disk gave back other bytes than it was given",
            )),
        }
    }

    /// Gives the space back, where the file system can.
    fn discard(&self, extent: Extent) {
        use rustix::fs::{FallocateFlags, fallocate};
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Some(file) = self.file.get() {
            let _ = fallocate(file, hole, extent.offset, extent.length);
        }
    }
}

/// Makes a file in a folder and takes its name away.
fn nameless(folder: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".kith-rows.{}.{number}", std::process::id()));
        match options.open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            // Left over by a process of the same number that was killed just then.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}
