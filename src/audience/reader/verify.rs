//! What must hold before a version is served: all of it is checked here, once, at opening.
//!
//! First the bytes (length, header, every block, every section), then what they say (offsets, fingerprints,
//! sets, counts), since matching checksums prove only that the file is what some program wrote. Nothing is
//! allocated by a length that the file merely claims: memory is bounded by the length the file really has, and each block
//! is checked before the next is read, so a sparse file of a terabyte ends at its first hole.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use crate::ids::Name;

use super::super::bits::{Bits, Nonsense};
use super::super::bucket;
use super::super::code::{Code, Contexts, Expiry, Shape};
use super::super::format::{
    BLOCK_BYTES, Body, Fields, HEADER_BYTES, Header, OFFSET_BYTES, SEGMENT_ENTRY_BYTES, read_name,
};
use super::super::memory::{self, Memory};
use super::super::remix::buckets_for;
use super::super::second;
use super::super::shard::{BinShape, Entry, Layout};
use super::{Arena, AudienceFile, Flaw, Segments, Shards};

pub(super) type ReadAt<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// What a file is held against: its header, and a checksum of each block of what follows.
pub(in super::super) struct Frame {
    pub(in super::super) header: Header,
    places: Vec<Range<usize>>,
    /// Where the checksums begin.
    pub(super) sums_at: usize,
    sums: Vec<u8>,
}

impl Frame {
    /// Reads the header and the checksums, each covered by a checksum that matched.
    pub(in super::super) fn read(length: u64, read_at: ReadAt<'_>) -> Result<Self, Flaw> {
        if length < HEADER_BYTES as u64 {
            return Err(too_short(length, read_at));
        }
        let mut bytes = [0; HEADER_BYTES];
        read_at(&mut bytes, 0)?;
        let header = Header::decode(&bytes, length)?;
        let places = ranges(&header)?;
        let (Some(sums_at), Some(sums_section)) = (places.last(), header.sections.last()) else {
            return Err(Flaw::NotKith);
        };
        let mut sums = vec![0; sums_at.len()];
        read_at(&mut sums, sums_at.start as u64)?;
        if crc32fast::hash(&sums) != sums_section.crc {
            return Err(damaged(&header, &places, sums_at.start));
        }
        Ok(Self {
            sums_at: sums_at.start,
            header,
            places,
            sums,
        })
    }

    /// The header's bytes: writing it again gives those that were read.
    fn head(&self) -> Result<[u8; HEADER_BYTES], Flaw> {
        self.header.encode().ok_or(Flaw::NotKith)
    }

    /// Whether a block, by its number, is as it was written. The last may be shorter.
    pub(in super::super) fn check(&self, number: usize, block: &[u8]) -> Result<(), Flaw> {
        let from = number.saturating_mul(4);
        let sum = self.sums.get(from..).and_then(|sums| sums.first_chunk());
        if sum == Some(&crc32fast::hash(block).to_le_bytes()) {
            return Ok(());
        }
        let at = number.saturating_mul(BLOCK_BYTES);
        let at = at.saturating_add(HEADER_BYTES);
        Err(damaged(&self.header, &self.places, at))
    }

    /// Whether all sections are.
    fn check_sections(&self, file: &[u8]) -> Result<(), Flaw> {
        for (place, section) in self.places.iter().zip(&self.header.sections) {
            if crc32fast::hash(file.get(place.clone()).unwrap_or_default()) != section.crc {
                return Err(damaged(&self.header, &self.places, place.start));
            }
        }
        Ok(())
    }
}

/// Reads the file; every byte returned is covered by a checksum that matched.
pub(in super::super) fn read(length: u64, read_at: ReadAt<'_>) -> Result<(Header, Memory), Flaw> {
    let frame = Frame::read(length, read_at)?;
    let mut memory = memory::zeroed(usize::try_from(length).map_err(too_large)?)?;
    let (first, rest) = memory
        .split_first_chunk_mut::<HEADER_BYTES>()
        .ok_or(Flaw::NotKith)?;
    *first = frame.head()?;
    let (blocks, last) = rest
        .split_at_mut_checked(frame.sums_at.saturating_sub(HEADER_BYTES))
        .ok_or(Flaw::NotKith)?;
    last.copy_from_slice(&frame.sums);
    for (number, block) in blocks.chunks_mut(BLOCK_BYTES).enumerate() {
        let at = number.saturating_mul(BLOCK_BYTES);
        read_at(block, at.saturating_add(HEADER_BYTES) as u64)?;
        frame.check(number, block)?;
    }
    frame.check_sections(&memory)?;
    Ok((frame.header, Memory::freeze(memory)?))
}

/// Maps the file; every byte of it was covered by a checksum that matched.
pub(in super::super) fn map(file: &File) -> Result<(Header, Memory), Flaw> {
    let length = file.metadata()?.len();
    let frame = Frame::read(length, &|bytes, at| file.read_exact_at(bytes, at))?;
    let memory = Memory::map(file)?;
    let found = || -> Result<(), Flaw> {
        let (Some(head), Some(blocks)) = (
            memory.first_chunk(),
            memory.get(HEADER_BYTES..frame.sums_at),
        ) else {
            return Err(was_cut());
        };
        for (number, block) in blocks.chunks(BLOCK_BYTES).enumerate() {
            frame.check(number, block)?;
        }
        frame.check_sections(&memory)?;
        match frame.head()? == *head {
            true => Ok(()),
            false => Err(was_cut()),
        }
    };
    let found = found();
    // What could not be read has been read as zeros.
    match memory.is_whole() {
        true => found.map(|()| (frame.header, memory)),
        false => Err(was_cut()),
    }
}

/// A mapped file of which something could not be read.
pub(in super::super) fn was_cut() -> Flaw {
    let text =
        "a part of the file could not be read while it was in use: it was cut, or its disk fails";
    Flaw::Io(io::Error::new(io::ErrorKind::UnexpectedEof, text))
}

/// A file too short for a header is a cut one if it begins like one.
fn too_short(length: u64, read_at: ReadAt<'_>) -> Flaw {
    let mut start = [0; 5];
    match read_at(&mut start, 0) {
        Ok(()) if &start == b"\x89KITH" => Flaw::Length {
            recorded: HEADER_BYTES as u64,
            found: length,
        },
        _ => Flaw::NotKith,
    }
}

fn too_large(_: std::num::TryFromIntError) -> Flaw {
    Flaw::Io(io::ErrorKind::OutOfMemory.into())
}

fn damaged(header: &Header, places: &[Range<usize>], at: usize) -> Flaw {
    let mut parts = header.section_names().iter().zip(places);
    Flaw::Damaged {
        part: parts
            .find(|(_, place)| place.contains(&at))
            .map_or("sections", |(name, _)| name),
        at: at as u64,
    }
}

/// Where the sections lie in memory.
pub(in super::super) fn ranges(header: &Header) -> Result<Vec<Range<usize>>, Flaw> {
    let lies = || Flaw::Contradiction("the section table");
    let range = |(offset, length): (u64, u64)| {
        let end = usize::try_from(offset.checked_add(length)?).ok()?;
        Some(usize::try_from(offset).ok()?..end)
    };
    let places = header.places().ok_or_else(lies)?;
    places
        .into_iter()
        .map(|place| range(place).ok_or_else(lies))
        .collect()
}

/// What a lookup needs to know of where things are, and the segments.
pub(super) fn arena(
    header: &Header,
    places: &[Range<usize>],
    memory: &[u8],
) -> Result<(Arena, Segments), Flaw> {
    let at = |place: usize| places.get(place).cloned().unwrap_or_default();
    let bytes = |range: Range<usize>| memory.get(range).unwrap_or_default();
    match header.body {
        Body::One { .. } => {
            let arena = Arena::One {
                buckets: buckets_for(header.ids),
                directory: at(1),
                records: at(2),
                expiry: header
                    .first_expiry
                    .map_or(bucket::Expiry::Unused, bucket::Expiry::Since),
            };
            Ok((arena, segments(header, bytes(at(0)))?))
        }
        Body::Sharded {
            shard_bits,
            expiry_bits,
            lengths,
            bins,
            ..
        } => {
            let delta = header.meta.base.is_some();
            let shape = Shape {
                segments: header.segments,
                may_be_empty: delta,
                expiry: header
                    .first_expiry
                    .map_or(Expiry::Unused, |first| Expiry::Since {
                        first,
                        bits: expiry_bits,
                    }),
                contexts: match bins {
                    BinShape::NONE => Contexts::ByRank,
                    _ => Contexts::ByState,
                },
            };
            let records = header.records_at();
            let code = if bins == BinShape::NONE { 0 } else { 2 };
            let code = Code::decode(bytes(at(code)), shape)
                .map_err(|Nonsense| Flaw::Contradiction("the code"))?;
            let shards = Shards {
                layout: Layout {
                    code,
                    lengths,
                    delta,
                    shard_bits,
                    bins,
                },
                index: at(records.saturating_add(1)),
                records: at(records),
            };
            let arena = match bins {
                BinShape::NONE => Arena::Two(shards),
                _ => Arena::Three(shards),
            };
            Ok((arena, segments(header, bytes(at(3)))?))
        }
        Body::Filter | Body::Graph { .. } => Err(Flaw::Contradiction("the kind")),
    }
}

/// Unpacks the segment table: names ascending, ranks a permutation.
pub(in super::super) fn segments(header: &Header, table: &[u8]) -> Result<Segments, Flaw> {
    let lies = || Flaw::Contradiction("the segment table");
    let count = table.len().checked_div(SEGMENT_ENTRY_BYTES).unwrap_or(0);
    let mut names: Vec<Name> = Vec::with_capacity(count);
    let mut ids = Vec::with_capacity(count);
    let mut of_rank = vec![u32::MAX; count];
    for (index, entry) in (0u32..).zip(table.chunks_exact(SEGMENT_ENTRY_BYTES)) {
        let mut fields = Fields(entry);
        let in_it = fields.u64()?;
        let rank = fields.u32()?;
        let name_bytes = fields.u32()?;
        let name = read_name(&fields.array()?, name_bytes).ok_or_else(lies)?;
        let place = usize::try_from(rank).ok().and_then(|r| of_rank.get_mut(r));
        match place {
            Some(place) if *place == u32::MAX => *place = index,
            _ => return Err(lies()),
        }
        if names.last().is_some_and(|before| *before >= name) || in_it > header.ids {
            return Err(lies());
        }
        names.push(name);
        ids.push(in_it);
    }
    Ok(Segments {
        names: names.into(),
        ids: ids.into(),
        of_rank: of_rank.into(),
    })
}

/// What was counted on a walk through the records.
struct Counted {
    ids: u64,
    memberships: u64,
    /// Of a delta: pairs that it takes away.
    removed: u64,
    in_rank: Vec<u64>,
    /// Bytes of records that were walked.
    bytes: u64,
}

impl Counted {
    fn new(segments: usize) -> Self {
        Self {
            ids: 0,
            memberships: 0,
            removed: 0,
            in_rank: vec![0; segments],
            bytes: 0,
        }
    }

    fn id(&mut self) {
        self.ids = self.ids.saturating_add(1);
    }

    fn member(&mut self, rank: u32) -> Result<(), Nonsense> {
        let count = usize::try_from(rank)
            .ok()
            .and_then(|rank| self.in_rank.get_mut(rank));
        let count = count.ok_or(Nonsense)?;
        *count = count.saturating_add(1);
        self.memberships = self.memberships.saturating_add(1);
        Ok(())
    }
}

/// Walks every bucket, with the code that lookups use, and counts what is there.
pub(super) fn records(file: &AudienceFile) -> Result<(), Flaw> {
    let lies = |Nonsense| Flaw::Contradiction("a record");
    let mut counted = Counted::new(file.segments.ids.len());
    let records = match &file.arena {
        Arena::One {
            buckets,
            directory,
            records,
            expiry,
        } => {
            for number in 0..*buckets {
                first_format(file, directory, records, *expiry, number, &mut counted)
                    .map_err(lies)?;
            }
            records
        }
        Arena::Two(shards) => {
            for shard in 0..1usize << shards.layout.shard_bits {
                second_format(file, shards, shard, &mut counted).map_err(lies)?;
            }
            &shards.records
        }
        Arena::Three(shards) => {
            for shard in 0..1usize << shards.layout.shard_bits {
                third_format(file, shards, shard, &mut counted).map_err(lies)?;
            }
            let end = file.entry_at(shards, 1usize << shards.layout.shard_bits);
            if end != Some(Entry::end(counted.bytes)) {
                return Err(lies(Nonsense));
            }
            &shards.records
        }
    };
    let header = &file.header;
    let mut in_segment = vec![0u64; counted.in_rank.len()];
    for (rank, count) in (0u32..).zip(&counted.in_rank) {
        let index = file.index_of(rank).map_err(lies)?;
        let own = usize::try_from(index)
            .ok()
            .and_then(|i| in_segment.get_mut(i));
        *own.ok_or(Flaw::Contradiction("the segment table"))? = *count;
    }
    let claims = [
        // Each part begins where the one before ends: what was walked is all there is, and leaves no byte between.
        (
            counted.bytes == records.len() as u64,
            "where the records begin and end",
        ),
        (counted.ids == header.ids, "the count of ids"),
        (
            counted.memberships == header.memberships,
            "the count of memberships",
        ),
        (
            counted.removed == header.removed(),
            "the count of what is removed",
        ),
        (
            *in_segment == *file.segments.ids,
            "the sizes of the segments",
        ),
    ];
    match claims.into_iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err(Flaw::Contradiction(what)),
        None => Ok(()),
    }
}

fn first_format(
    file: &AudienceFile,
    directory: &Range<usize>,
    records: &Range<usize>,
    expiry: bucket::Expiry,
    number: u64,
    counted: &mut Counted,
) -> Result<(), Nonsense> {
    let at = usize::try_from(number)
        .ok()
        .and_then(|n| n.checked_mul(OFFSET_BYTES));
    let directory = file.memory.get(directory.clone()).ok_or(Nonsense)?;
    let both = at.and_then(|at| directory.get(at..)).ok_or(Nonsense)?;
    let [a, b, c, d, e, f, g, h, i, j] = *both.first_chunk().ok_or(Nonsense)?;
    let start = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]);
    let end = u64::from_le_bytes([f, g, h, i, j, 0, 0, 0]);
    if start != counted.bytes {
        return Err(Nonsense);
    }
    counted.bytes = end;
    let (start, end) = (start as usize, end as usize);
    let records = file.memory.get(records.clone()).ok_or(Nonsense)?;
    let bytes = records.get(start..end).ok_or(Nonsense)?;
    let bucket = bucket::Bucket::parse(bytes, expiry)?;
    if !bucket.fingerprints().is_sorted_by(|a, b| a < b) {
        return Err(Nonsense);
    }
    for set in bucket.sets()? {
        counted.id();
        for membership in set? {
            counted.member(membership?.rank)?;
        }
    }
    Ok(())
}

fn second_format(
    file: &AudienceFile,
    shards: &Shards,
    shard: usize,
    counted: &mut Counted,
) -> Result<(), Nonsense> {
    let entry = file.second_entry(shards, shard).ok_or(Nonsense)?;
    let next = shard
        .checked_add(1)
        .and_then(|next| file.second_entry(shards, next));
    let end = next.ok_or(Nonsense)?.start;
    if entry.start != counted.bytes {
        return Err(Nonsense);
    }
    counted.bytes = end;
    let records = file.memory.get(shards.records.start..).ok_or(Nonsense)?;
    let length = usize::try_from(end.checked_sub(entry.start).ok_or(Nonsense)?);
    let from = usize::try_from(entry.start).map_err(|_| Nonsense)?;
    let own = second::Shard {
        layout: &shards.layout,
        entry,
        bytes: records.get(from..).ok_or(Nonsense)?,
    };
    // What is made of a full version and deltas keeps the buckets of the full version.
    let remade = !shards.layout.delta && file.root() != file.meta().version;
    let length = length.map_err(|_| Nonsense)?;
    own.verify(shard, length, remade, |_, bits| {
        id(&shards.layout, bits, counted)
    })
}

fn third_format(
    file: &AudienceFile,
    shards: &Shards,
    shard: usize,
    counted: &mut Counted,
) -> Result<(), Nonsense> {
    let entry = file.entry_at(shards, shard).ok_or(Nonsense)?;
    if entry.start != counted.bytes || !entry.is_sound() {
        return Err(Nonsense);
    }
    let own = file.shard_at(shards, entry)?;
    let length = own.verify(shard, |_, bits| id(&shards.layout, bits, counted))?;
    counted.bytes = counted.bytes.saturating_add(length as u64);
    Ok(())
}

/// Counts an id's memberships and goes past them.
fn id<'a>(
    layout: &Layout,
    mut bits: Bits<'a>,
    counted: &mut Counted,
) -> Result<Bits<'a>, Nonsense> {
    counted.id();
    let deleted = layout.delta && bits.take(1) == 1;
    let mut members = Ok(());
    let mut any = false;
    layout.code.walk(&mut bits, |rank, _| {
        any = true;
        members = members.and(counted.member(rank));
    })?;
    if layout.delta {
        // A deleted id is in nothing that could be taken from it.
        if !deleted {
            layout.code.walk(&mut bits, |_, expires| {
                counted.removed = counted.removed.saturating_add(1);
                // What is taken away expires no more.
                if expires.is_some() {
                    members = Err(Nonsense);
                }
            })?;
        }
    } else if !any {
        return Err(Nonsense);
    }
    members.map(|()| bits)
}
