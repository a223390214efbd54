//! Puts collected rows in their places and writes the file.
//!
//! Rows are sorted by spread, then key: ids come out bucket by bucket, all rows of one id side by side. If two ids of one
//! bucket have the same fingerprint, or a bucket is full, everything is arranged again under the next salt.

use std::io::Write;

use crate::ids::{Name, UserKey};

use super::super::bucket::{BucketWriter, Crowded, Expiry, Membership};
use super::super::format::{
    BLOCK_BYTES, Header, OFFSET_BYTES, RECORDS_BYTES_MAX, SALTS_MAX, SEGMENT_ENTRY_BYTES, Section,
};
use super::super::remix::{Mixed, Remix, bucket_of, buckets_for, salt};
use super::{BuildError, Collected, KeptRow, NEVER, RowReport, VersionMeta};

/// Arranges, writes, reports.
pub(super) fn write(
    meta: VersionMeta,
    mut collected: Collected,
    out: &mut dyn Write,
) -> Result<RowReport, BuildError> {
    let ranks = Ranks::of(&collected);
    let (salt_counter, arranged) = arrange(&mut collected, &ranks, |counter| {
        let remix = Remix::new(&salt(&meta.dataset, meta.version, counter));
        move |key| remix.mix(key)
    })?;
    let segments = segment_table(&collected.names, &ranks, &arranged.in_rank);
    let parts = [&*segments, &*arranged.directory, &*arranged.records];

    let checksums = block_sums(parts);
    let section = |bytes: &[u8]| Section {
        length: bytes.len() as u64,
        crc: crc32fast::hash(bytes),
    };
    let header = Header {
        meta,
        key_id: collected.key_id(),
        salt_counter,
        ids: arranged.ids,
        rows: collected.rows.len() as u64,
        memberships: arranged.in_rank.iter().sum(),
        segments: collected.names.len() as u32,
        expiry: arranged.expiry,
        sections: [
            section(parts[0]),
            section(parts[1]),
            section(parts[2]),
            section(&checksums),
        ],
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

/// The arena and its directory.
struct Arranged {
    ids: u64,
    expiry: Expiry,
    directory: Vec<u8>,
    records: Vec<u8>,
    /// Memberships of each rank.
    in_rank: Vec<u64>,
}

/// Arranges under the first salt that keeps all ids apart. `mixer` makes the remix of a salt counter.
fn arrange<M: Fn(UserKey) -> Mixed>(
    collected: &mut Collected,
    ranks: &Ranks,
    mixer: impl Fn(u32) -> M,
) -> Result<(u32, Arranged), BuildError> {
    let first_expiry = collected.rows.iter().map(|row| row.expires).min();
    let expiry = match first_expiry {
        Some(first) if first != NEVER => Expiry::Since(first),
        _ => Expiry::Unused,
    };
    for counter in 0..SALTS_MAX {
        let mix = mixer(counter);
        for row in &mut collected.rows {
            row.spread = mix(row.key()).spread;
        }
        collected
            .rows
            .sort_unstable_by_key(|row| (row.spread, row.key));
        match encode(collected, ranks, expiry, &mix) {
            Ok(arranged) if arranged.records.len() as u64 > RECORDS_BYTES_MAX => {
                return Err(BuildError::TooLarge);
            }
            Ok(arranged) => return Ok((counter, arranged)),
            Err(Crowded::Clash | Crowded::Full) => {}
        }
    }
    Err(BuildError::NoSalt)
}

/// Writes sorted rows, bucket by bucket.
fn encode(
    collected: &Collected,
    ranks: &Ranks,
    expiry: Expiry,
    mix: &impl Fn(UserKey) -> Mixed,
) -> Result<Arranged, Crowded> {
    let same_id = |a: &KeptRow, b: &KeptRow| a.key == b.key;
    let ids = collected.rows.chunk_by(same_id).count() as u64;
    let buckets = buckets_for(ids);
    let mut directory = Vec::with_capacity((buckets as usize + 1) * OFFSET_BYTES);
    let mut records = Vec::with_capacity(ids as usize * 8 + collected.named.len());
    let mut in_rank = vec![0; collected.names.len()];
    let mut bucket = BucketWriter::default();
    let mut begun = 0;
    let mut memberships = Vec::new();
    for rows in collected.rows.chunk_by(same_id) {
        let Some(first) = rows.first() else { continue };
        let here = bucket_of(first.spread, buckets);
        if here >= begun {
            bucket.flush(&mut records, expiry)?;
            for _ in begun..=here {
                put_offset(&mut directory, records.len());
            }
            begun = here + 1;
        }
        merge(rows, &collected.named, ranks, &mut memberships);
        for membership in &memberships {
            in_rank[membership.rank as usize] += 1;
        }
        bucket.add(mix(first.key()).fingerprint, &memberships, expiry);
    }
    bucket.flush(&mut records, expiry)?;
    for _ in begun..=buckets {
        put_offset(&mut directory, records.len());
    }
    Ok(Arranged {
        ids,
        expiry,
        directory,
        records,
        in_rank,
    })
}

/// The memberships of one id's rows: by rank, each once, with the latest of its expiries.
fn merge(rows: &[KeptRow], named: &[u16], ranks: &Ranks, into: &mut Vec<Membership>) {
    into.clear();
    for row in rows {
        let expires = (row.expires != NEVER).then_some(row.expires);
        into.extend(
            named[row.segments.range()]
                .iter()
                .map(|&number| Membership {
                    rank: ranks.of_number[usize::from(number)],
                    expires,
                }),
        );
    }
    // The latest first, and it is the first that stays.
    into.sort_unstable_by_key(|m| (m.rank, std::cmp::Reverse(m.expires.unwrap_or(NEVER))));
    into.dedup_by_key(|m| m.rank);
}

fn put_offset(directory: &mut Vec<u8>, offset: usize) {
    directory.extend_from_slice(&(offset as u64).to_le_bytes()[..OFFSET_BYTES]);
}

fn segment_table(names: &[Name], ranks: &Ranks, in_rank: &[u64]) -> Vec<u8> {
    let mut by_name: Vec<(&Name, u32)> =
        names.iter().zip(ranks.of_number.iter().copied()).collect();
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
fn block_sums(parts: [&[u8]; 3]) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Keyer, SecretKey};

    use super::super::super::rows::{RowFormat, read};

    fn collected(ids: usize) -> Collected {
        let mut collected = Collected::new(Keyer::new(&SecretKey::from_bytes([7; 32])));
        let format = RowFormat::Text {
            source: "ifa".to_owned(),
            segment: "vip".parse().expect("a name"),
        };
        let rows: String = (0..ids).map(|i| format!("u{i}\n")).collect();
        read(&mut collected, &format, rows.as_bytes(), &mut |_| {}).expect("readable");
        collected
    }

    fn honest(key: UserKey) -> Mixed {
        Remix::new(&[0; 16]).mix(key)
    }

    #[test]
    fn a_clash_moves_on_to_the_next_salt() {
        let mut collected = collected(100);
        let ranks = Ranks::of(&collected);
        let (counter, arranged) = arrange(&mut collected, &ranks, |counter| {
            move |key| Mixed {
                fingerprint: if counter < 3 {
                    5
                } else {
                    honest(key).fingerprint
                },
                ..honest(key)
            }
        })
        .expect("the fourth salt keeps them apart");
        assert_eq!(
            (counter, arranged.ids, &*arranged.in_rank),
            (3, 100, &[100][..])
        );
    }

    #[test]
    fn a_full_bucket_moves_on_to_the_next_salt() {
        let crowd = |counter| {
            move |key| Mixed {
                spread: if counter == 0 { 0 } else { honest(key).spread },
                ..honest(key)
            }
        };
        for (ids, expected) in [(255, 0), (256, 1)] {
            let mut collected = collected(ids);
            let ranks = Ranks::of(&collected);
            let (counter, _) = arrange(&mut collected, &ranks, crowd).expect("a salt");
            assert_eq!(counter, expected, "{ids} ids in one bucket");
        }
    }

    #[test]
    fn the_salts_end() {
        let mut collected = collected(2);
        let ranks = Ranks::of(&collected);
        let told = arrange(&mut collected, &ranks, |_| {
            |_| Mixed {
                spread: 0,
                fingerprint: 0,
            }
        });
        assert!(matches!(told.map(|_| ()), Err(BuildError::NoSalt)));
    }
}
