//! Writes collected rows of one segment as a filter version.
//!
//! The filter is made for just as many ids as there are, so they are counted first: sorted by their hashes, which puts the
//! rows of one id side by side. Setting bits in that order also goes through the filter from its beginning to its end.
//!
//! Cost: beside the rows the filter itself, which is all there is of the file until it is written.

use std::io::Write;

use super::super::filter::{FalsePositiveRate, FilterBuilder, Shape};
use super::super::format::{BLOCK_BYTES, Body, Header, SEGMENT_ENTRY_BYTES, Section};
use super::{BuildError, Collected, RowReport, VersionMeta};
use crate::ids::Name;

/// Puts the ids in, writes, reports.
pub(super) fn write(
    meta: VersionMeta,
    rate: FalsePositiveRate,
    mut collected: Collected,
    out: &mut dyn Write,
) -> Result<RowReport, BuildError> {
    collected.rows.sort_unstable_by_key(|row| row.hashed);
    let different = || collected.rows.chunk_by(|a, b| a.hashed == b.hashed);
    let ids = different().count() as u64;
    // Every good row names the one segment.
    let segment = collected.names.first().ok_or(BuildError::TooLarge)?;
    let shape = Shape::for_ids(ids, rate).map_err(|_| BuildError::TooLarge)?;
    let mut filter = FilterBuilder::new(shape)?;
    filter.extend(different().filter_map(|rows| Some(rows.first()?.hashed.spread)));

    let table = segment_table(segment, ids);
    let parts = [filter.as_bytes(), &table];
    let checksums = block_sums(parts);
    let section = |bytes: &[u8]| Section {
        length: bytes.len() as u64,
        crc: crc32fast::hash(bytes),
    };
    let header = Header {
        key_id: collected.key_id(),
        ids,
        rows: collected.rows.len() as u64,
        memberships: ids,
        segments: 1,
        first_expiry: None,
        body: Body::Filter,
        meta,
        sections: parts
            .into_iter()
            .chain([&*checksums])
            .map(section)
            .collect(),
    };
    out.write_all(&header.encode().ok_or(BuildError::TooLarge)?)?;
    for part in parts.into_iter().chain([&*checksums]) {
        out.write_all(part)?;
    }
    out.flush()?;
    Ok(RowReport {
        rows: header.rows,
        ids,
        segments: 1,
        merged: header.rows - ids,
        ..collected.report
    })
}

/// A segment table of one.
fn segment_table(segment: &Name, ids: u64) -> Vec<u8> {
    let name = segment.as_str().as_bytes();
    let mut table = Vec::with_capacity(SEGMENT_ENTRY_BYTES);
    table.extend(ids.to_le_bytes());
    // Its rank: the only one.
    table.extend(0u32.to_le_bytes());
    table.extend((name.len() as u32).to_le_bytes());
    table.extend(name);
    table.resize(SEGMENT_ENTRY_BYTES, 0);
    table
}

/// The CRC-32 of each block of the parts, taken as one text.
fn block_sums(parts: [&[u8]; 2]) -> Vec<u8> {
    let mut sums = Vec::new();
    let mut hasher = crc32fast::Hasher::new();
    let mut room = BLOCK_BYTES;
    for mut part in parts {
        while !part.is_empty() {
            let (block, rest) = part.split_at(part.len().min(room));
            hasher.update(block);
            room -= block.len();
            part = rest;
            if room == 0 {
                sums.extend(std::mem::take(&mut hasher).finalize().to_le_bytes());
                room = BLOCK_BYTES;
            }
        }
    }
    if room < BLOCK_BYTES {
        sums.extend(hasher.finalize().to_le_bytes());
    }
    sums
}
