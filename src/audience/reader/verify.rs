//! What must hold before a version is served: all of it is checked here, once, at opening.
//!
//! First the bytes (length, header, every block, every section), then what they say (offsets, fingerprints,
//! sets, counts), since matching checksums prove only that the file is what some program wrote. Nothing is
//! allocated by a length that the file merely claims: memory is bounded by the length the file really has, and each block
//! is checked before the next is read, so a sparse file of a terabyte ends at its first hole.

use std::io;
use std::ops::Range;

use crate::ids::Name;

use super::super::bucket::{Bucket, Nonsense};
use super::super::format::{
    BLOCK_BYTES, Fields, HEADER_BYTES, Header, OFFSET_BYTES, SECTION_NAMES, SEGMENT_ENTRY_BYTES,
    read_name,
};
use super::super::memory::{self, Memory};
use super::{Audience, Flaw, Segments};

type ReadAt<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// Reads the file; every byte returned is covered by a checksum that matched.
pub(super) fn read(length: u64, read_at: ReadAt<'_>) -> Result<(Header, Memory), Flaw> {
    if length < HEADER_BYTES as u64 {
        return Err(too_short(length, read_at));
    }
    let mut bytes = [0; HEADER_BYTES];
    read_at(&mut bytes, 0)?;
    let header = Header::decode(&bytes, length)?;

    let places = ranges(&header)?;
    let [.., sums_at] = places.clone();
    let [.., sums_section] = header.sections;
    let mut sums = vec![0; sums_at.len()];
    read_at(&mut sums, sums_at.start as u64)?;
    if crc32fast::hash(&sums) != sums_section.crc {
        return Err(damaged(&places, sums_at.start));
    }

    let mut memory = memory::zeroed(usize::try_from(length).map_err(too_large)?)?;
    let (first, rest) = memory
        .split_first_chunk_mut::<HEADER_BYTES>()
        .ok_or(Flaw::NotKith)?;
    *first = bytes;
    let (blocks, last) = rest
        .split_at_mut_checked(sums_at.start.saturating_sub(HEADER_BYTES))
        .ok_or(Flaw::NotKith)?;
    last.copy_from_slice(&sums);
    let mut at = HEADER_BYTES;
    for (block, sum) in blocks.chunks_mut(BLOCK_BYTES).zip(sums.chunks_exact(4)) {
        read_at(block, at as u64)?;
        if crc32fast::hash(block).to_le_bytes() != sum {
            return Err(damaged(&places, at));
        }
        at = at.saturating_add(block.len());
    }
    for (place, section) in places.iter().zip(header.sections) {
        if crc32fast::hash(memory.get(place.clone()).unwrap_or_default()) != section.crc {
            return Err(damaged(&places, place.start));
        }
    }
    Ok((header, Memory::freeze(memory)?))
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

fn damaged(places: &[Range<usize>; 4], at: usize) -> Flaw {
    let part = SECTION_NAMES
        .into_iter()
        .zip(places)
        .find(|(_, place)| place.contains(&at));
    Flaw::Damaged {
        part: part.map_or("sections", |(name, _)| name),
        at: at as u64,
    }
}

/// Where the sections lie in memory.
pub(super) fn ranges(header: &Header) -> Result<[Range<usize>; 4], Flaw> {
    let lies = Flaw::Contradiction("the section table");
    let Some(places) = header.places() else {
        return Err(lies);
    };
    let mut ranges = [0..0, 0..0, 0..0, 0..0];
    for (range, (offset, length)) in ranges.iter_mut().zip(places) {
        let end = offset.checked_add(length);
        let (Ok(start), Some(Ok(end))) = (usize::try_from(offset), end.map(usize::try_from)) else {
            return Err(lies);
        };
        *range = start..end;
    }
    Ok(ranges)
}

/// Unpacks the segment table: names ascending, ranks a permutation.
pub(super) fn segments(header: &Header, table: &[u8]) -> Result<Segments, Flaw> {
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

/// Walks every bucket, with the code that lookups use, and counts what is there.
pub(super) fn records(audience: &Audience) -> Result<(), Flaw> {
    let lies = |_: Nonsense| Flaw::Contradiction("a record");
    let mut ids = 0u64;
    let mut memberships = 0u64;
    let mut in_segment = vec![0u64; audience.segments.ids.len()];
    let mut bytes = 0u64;
    for number in 0..audience.buckets {
        let bucket = audience.bucket_bytes(number).map_err(lies)?;
        bytes = bytes.saturating_add(bucket.len() as u64);
        let bucket = Bucket::parse(bucket, audience.header.expiry).map_err(lies)?;
        if !bucket.fingerprints().is_sorted_by(|a, b| a < b) {
            return Err(Flaw::Contradiction("the order of fingerprints"));
        }
        for set in bucket.sets().map_err(lies)? {
            ids = ids.saturating_add(1);
            for membership in set.map_err(lies)? {
                let index = audience
                    .index_of(membership.map_err(lies)?.rank)
                    .map_err(lies)?;
                memberships = memberships.saturating_add(1);
                let count = usize::try_from(index)
                    .ok()
                    .and_then(|i| in_segment.get_mut(i));
                let count = count.ok_or(Flaw::Contradiction("a record"))?;
                *count = count.saturating_add(1);
            }
        }
    }
    let header = &audience.header;
    let claims = [
        // Offsets ascend, or a bucket would be nonsense; so buckets that fill the records begin at 0, end at their
        // end, and leave no byte between them.
        (
            bytes == audience.records.len() as u64 && first_offset(audience) == Some(0),
            "the directory",
        ),
        (ids == header.ids, "the count of ids"),
        (
            memberships == header.memberships,
            "the count of memberships",
        ),
        (
            *in_segment == *audience.segments.ids,
            "the sizes of the segments",
        ),
    ];
    match claims.into_iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err(Flaw::Contradiction(what)),
        None => Ok(()),
    }
}

fn first_offset(audience: &Audience) -> Option<u64> {
    let directory = audience.memory.get(audience.directory.clone())?;
    let [a, b, c, d, e] = *directory.first_chunk::<OFFSET_BYTES>()?;
    Some(u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]))
}
