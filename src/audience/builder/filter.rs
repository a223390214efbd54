//! Writes collected rows of one segment as a filter version.
//!
//! The filter is made for just as many ids as there are, so they are counted first: sorted by their hashes, task by task,
//! which puts the rows of one id side by side. Setting bits in that order also goes through the filter from its beginning to its end.
//!
//! Cost: what sorting takes, twice, and the filter itself, which is all there is of the file until it is written.

use super::super::filter::{FalsePositiveRate, FilterBuilder, Shape};
use super::super::format::{Body, Header};
use super::super::shard::shard_bits_for;
use super::arrange::{Gathered, Task, segment_table};
use super::output::{HeadLast, Sections};
use super::store::Sorted;
use super::{BuildError, RowReport, VersionMeta};

/// Puts the ids in, writes, reports. `progress` is told how many of how many parts are done.
pub(super) fn write(
    meta: VersionMeta,
    rate: FalsePositiveRate,
    gathered: Gathered<'_>,
    out: &mut dyn HeadLast,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RowReport, BuildError> {
    let rows = gathered.tally.rows;
    let shard_bits = shard_bits_for(rows);
    let tasks = Task::all(gathered.store, shard_bits, gathered.load_bytes);
    let parts = 2 * tasks.len() as u64;
    let mut sorted = Sorted::default();
    let mut ids = 0;
    for (done, task) in (1u64..).zip(&tasks) {
        task.load(gathered.store, shard_bits, &mut sorted)?;
        ids += sorted.ids().count() as u64;
        progress(done, parts);
    }
    // Every good row names the one segment.
    let segment = gathered.names.first().ok_or(BuildError::TooLarge)?;
    let shape = Shape::for_ids(ids, rate).map_err(|_| BuildError::TooLarge)?;
    let mut filter = FilterBuilder::new(shape)?;
    for (done, task) in (tasks.len() as u64 + 1..).zip(&tasks) {
        task.load(gathered.store, shard_bits, &mut sorted)?;
        filter.extend(sorted.ids().map(|(hashed, _)| hashed.spread));
        if task.is_last {
            gathered.store.discard(task.partitions.clone());
        }
        progress(done, parts);
    }

    let mut file = Sections::begin(out)?;
    file.write(filter.as_bytes())?;
    file.end_section();
    file.write(&segment_table(std::slice::from_ref(segment), &[0], &[ids]))?;
    file.end_section();
    file.finish(|sections| {
        let header = Header {
            key_id: gathered.key_id,
            ids,
            rows,
            memberships: ids,
            segments: 1,
            first_expiry: None,
            body: Body::Filter,
            meta,
            sections,
        };
        header.encode().ok_or(BuildError::TooLarge)
    })?;
    Ok(RowReport {
        rows,
        ids,
        segments: 1,
        merged: rows - ids,
        rejected_rows: gathered.tally.rejected_rows,
        rejected: gathered.tally.rejected,
    })
}
