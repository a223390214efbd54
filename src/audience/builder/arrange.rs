//! Puts collected rows in their places and writes the file.
//!
//! Rows are sorted by their hashes: ids come out shard by shard, all rows of one id side by side. The first of them are the
//! sample from which the code of the sets is made.

use std::io::Write;

use crate::ids::Name;

use super::super::code::{Expiry, Membership, Sample, Shape};
use super::super::format::{
    BLOCK_BYTES, Body, Header, RECORDS_BYTES_MAX, SEGMENT_ENTRY_BYTES, Section,
};
use super::super::shard::{Layout, Placed, ShardWriter, shard_bits_for};
use super::{BuildError, Collected, KeptRow, NEVER, RowReport, VersionMeta};

/// From so many bits a set on, lengths stand before the sets.
pub(in super::super) const LENGTHS_FROM_BITS: f64 = 24.0;

/// Arranges, writes, reports.
pub(super) fn write(
    meta: VersionMeta,
    root: u64,
    mut collected: Collected,
    out: &mut dyn Write,
) -> Result<RowReport, BuildError> {
    let ranks = Ranks::of(&collected);
    collected.rows.sort_unstable_by_key(|row| row.hashed);
    let arranged = arrange(&collected, &ranks)?;
    let segments = segment_table(&collected.names, &ranks.of_number, &arranged.in_rank);
    let mut code = Vec::new();
    arranged.layout.code.encode(&mut code);
    let parts = [&*code, &*arranged.records, &*arranged.index, &*segments];

    let checksums = block_sums(parts);
    let section = |bytes: &[u8]| Section {
        length: bytes.len() as u64,
        crc: crc32fast::hash(bytes),
    };
    let (first_expiry, expiry_bits) = match arranged.layout.code.expiry() {
        Expiry::Unused => (None, 0),
        Expiry::Since { first, bits } => (Some(first), bits),
    };
    let header = Header {
        key_id: collected.key_id(),
        ids: arranged.ids,
        rows: collected.rows.len() as u64,
        memberships: arranged.in_rank.iter().sum(),
        segments: collected.names.len() as u32,
        first_expiry,
        body: Body::Two {
            shard_bits: arranged.layout.shard_bits,
            expiry_bits,
            lengths: arranged.layout.lengths,
            root,
            removed: arranged.removed,
        },
        meta,
        sections: parts
            .into_iter()
            .chain([&*checksums])
            .map(section)
            .collect(),
    };
    out.write_all(&header.encode().ok_or(BuildError::TooLarge)?)?;
    for part in parts {
        out.write_all(part)?;
    }
    out.write_all(&checksums)?;
    out.flush()?;

    let rows = header.rows;
    Ok(RowReport {
        rows,
        ids: header.ids,
        segments: header.segments.into(),
        merged: rows - header.ids,
        ..collected.report
    })
}

/// The rank of each segment: the most named first, so that most gaps are small; then by name. Counted over rows,
/// duplicates included, which is as good for its purpose and known before anything is merged.
struct Ranks {
    of_number: Vec<u32>,
}

impl Ranks {
    fn of(collected: &Collected) -> Self {
        let mut named = vec![0u64; collected.names.len()];
        for &number in &collected.named {
            named[usize::from(number)] += 1;
        }
        let mut order: Vec<usize> = (0..named.len()).collect();
        order.sort_unstable_by(|&a, &b| {
            named[b]
                .cmp(&named[a])
                .then_with(|| collected.names[a].cmp(&collected.names[b]))
        });
        let mut of_number = vec![0; named.len()];
        for (rank, number) in (0u32..).zip(order) {
            of_number[number] = rank;
        }
        Self { of_number }
    }
}

/// The records, and where in them each shard is.
struct Arranged {
    layout: Layout,
    ids: u64,
    records: Vec<u8>,
    index: Vec<u8>,
    /// Memberships of each rank.
    in_rank: Vec<u64>,
    /// Of a delta: pairs that it takes away.
    removed: u64,
}

/// Writes sorted rows, shard by shard.
fn arrange(collected: &Collected, ranks: &Ranks) -> Result<Arranged, BuildError> {
    let same_id = |a: &KeptRow, b: &KeptRow| a.hashed == b.hashed;
    let ids = collected.rows.chunk_by(same_id).count() as u64;
    let mut merged = Merged::default();
    let mut sample = Sample::default();
    let delta = collected.delta;
    for rows in collected.rows.chunk_by(same_id) {
        if sample.is_full() {
            break;
        }
        merged.merge(rows, &collected.named, ranks);
        sample.push(&merged.set);
        if delta {
            sample.push(&merged.removed);
        }
    }
    let shape = Shape {
        segments: collected.names.len() as u32,
        may_be_empty: delta,
        expiry: expiry_of(&collected.rows),
    };
    let sets_an_id = if delta { 2 } else { 1 };
    let (code, mean_bits) = sample
        .plan(shape, ids * sets_an_id)
        .ok_or(BuildError::TooLarge)?;
    let layout = Layout {
        code,
        lengths: mean_bits * sets_an_id as f64 >= LENGTHS_FROM_BITS,
        delta,
        shard_bits: shard_bits_for(collected.rows.len() as u64),
    };

    let mut records = Vec::new();
    let mut index = Vec::new();
    let mut in_rank = vec![0; collected.names.len()];
    let mut removed = 0;
    let mut writer = ShardWriter::default();
    let mut rest = collected.rows.as_slice();
    let mut placed = Vec::new();
    let mut all = Vec::new();
    for shard in 0..1usize << layout.shard_bits {
        let own = rest.partition_point(|row| row.hashed.shard(layout.shard_bits) <= shard);
        let (own, others) = rest.split_at(own);
        rest = others;
        placed.clear();
        all.clear();
        for rows in own.chunk_by(same_id) {
            let Some(first) = rows.first() else { continue };
            merged.merge(rows, &collected.named, ranks);
            for membership in &merged.set {
                in_rank[membership.rank as usize] += 1;
            }
            removed += merged.removed.len() as u64;
            let from = all.len();
            all.append(&mut merged.set);
            let to = all.len();
            all.append(&mut merged.removed);
            placed.push(Placed {
                hashed: first.hashed,
                set: from..to,
                removed: to..all.len(),
                deleted: merged.deleted,
            });
        }
        let start = records.len() as u64;
        if start > RECORDS_BYTES_MAX {
            return Err(BuildError::TooLarge);
        }
        let mut entry = writer
            .write(&layout, &placed, &all, &mut records)
            .map_err(|_| BuildError::NoMixing)?;
        entry.start = start;
        index.extend(entry.encode());
    }
    let end = super::super::shard::Entry {
        start: records.len() as u64,
        buckets: 0,
        mixing: 0,
        width: 2,
    };
    index.extend(end.encode());
    Ok(Arranged {
        layout,
        ids,
        records,
        index,
        in_rank,
        removed,
    })
}

fn expiry_of(rows: &[KeptRow]) -> Expiry {
    let expiring = || rows.iter().map(|row| row.expires).filter(|at| *at != NEVER);
    let (Some(first), Some(last)) = (expiring().min(), expiring().max()) else {
        return Expiry::Unused;
    };
    let distance = last.abs_diff(first);
    Expiry::Since {
        first,
        bits: (u64::BITS - distance.leading_zeros()).max(1),
    }
}

/// What the rows of one id come to.
#[derive(Default)]
struct Merged {
    /// Memberships by rank, each once, with the latest of its expiries.
    set: Vec<Membership>,
    /// Of a delta: what is taken from the id, by rank.
    removed: Vec<Membership>,
    /// Of a delta: whether all that lies below is.
    deleted: bool,
}

impl Merged {
    /// Whatever the order of the rows: what one of them removes is removed though another adds it, and where one of
    /// them deletes there is nothing left to remove.
    fn merge(&mut self, rows: &[KeptRow], named: &[u16], ranks: &Ranks) {
        self.set.clear();
        self.removed.clear();
        self.deleted = rows.iter().any(|row| row.deleted);
        for row in rows {
            let membership = |number: &u16, expires| Membership {
                rank: ranks.of_number[usize::from(*number)],
                expires,
            };
            let expires = (row.expires != NEVER).then_some(row.expires);
            let (added, removed) = named[row.segments.range()].split_at(row.added as usize);
            self.set
                .extend(added.iter().map(|n| membership(n, expires)));
            let removed = removed.iter().map(|n| membership(n, None));
            self.removed.extend(removed);
        }
        // The latest first, and it is the first that stays.
        let latest = |m: &Membership| std::cmp::Reverse(m.expires.unwrap_or(NEVER));
        self.set.sort_unstable_by_key(|m| (m.rank, latest(m)));
        self.set.dedup_by_key(|m| m.rank);
        if self.removed.is_empty() {
            return;
        }
        self.removed.sort_unstable_by_key(|m| m.rank);
        self.removed.dedup_by_key(|m| m.rank);
        let is_removed = |m: &Membership| self.removed.binary_search_by_key(&m.rank, |r| r.rank);
        self.set.retain(|m| is_removed(m).is_err());
        if self.deleted {
            self.removed.clear();
        }
    }
}

/// The segment table of names with their ranks.
pub(in super::super) fn segment_table(names: &[Name], ranks: &[u32], in_rank: &[u64]) -> Vec<u8> {
    let mut by_name: Vec<(&Name, u32)> = names.iter().zip(ranks.iter().copied()).collect();
    by_name.sort_unstable();
    let mut table = Vec::with_capacity(names.len() * SEGMENT_ENTRY_BYTES);
    for (name, rank) in by_name {
        let end = table.len() + SEGMENT_ENTRY_BYTES;
        let name = name.as_str().as_bytes();
        table.extend(in_rank[rank as usize].to_le_bytes());
        table.extend(rank.to_le_bytes());
        table.extend((name.len() as u32).to_le_bytes());
        table.extend(name);
        table.resize(end, 0);
    }
    table
}

/// The CRC-32 of each 64 KiB of the parts, taken as one text.
pub(in super::super) fn block_sums(parts: [&[u8]; 4]) -> Vec<u8> {
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
