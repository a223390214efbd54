//! Sorts what was collected and writes the file: task by task, each a run of shards, on every thread.
//!
//! A task loads the rows of its shards, sorts them by their hashes, merges those of an id and writes the shards. Threads take
//! the tasks in turn and the caller puts what they made together in the order of the shards, so that neither threads nor
//! memory leave a trace in the file. The first ids are the sample from which the code of the sets is made.

use std::io;
use std::ops::Range;
use std::sync::mpsc::sync_channel;
use std::thread;

use crate::ids::{KeyId, Name};

use super::super::code::{Contexts, Expiry, Membership, Sample, Shape};
use super::super::format::{Body, Header, RECORDS_BYTES_MAX, SEGMENT_ENTRY_BYTES};
use super::super::shard::{Entry, Layout, Placed, ShardWriter, shard_bits_for};
use super::collector::Tally;
use super::output::{HeadLast, Sections};
use super::store::{NEVER, PARTITION_BITS, PARTITIONS, SameId, Sorted, Store};
use super::{BuildError, RowReport, VersionMeta};

/// Bytes that a row takes besides its own while it is sorted.
const SORTED_BYTES: u64 = 24;
/// Fewer rows are not worth a thread.
const ROWS_A_THREAD: u64 = 8192;

/// All that was read.
pub(super) struct Gathered<'a> {
    pub(super) key_id: KeyId,
    pub(super) delta: bool,
    /// Segments by their numbers.
    pub(super) names: Vec<Name>,
    pub(super) tally: Tally,
    pub(super) store: &'a Store,
    pub(super) threads: usize,
    /// Bytes of rows that may be loaded at once.
    pub(super) load_bytes: u64,
}

/// Arranges, writes, reports. `progress` is told how many of how many parts are written.
pub(super) fn write(
    meta: VersionMeta,
    root: u64,
    gathered: Gathered<'_>,
    out: &mut dyn HeadLast,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RowReport, BuildError> {
    let rows = gathered.tally.rows;
    let shard_bits = shard_bits_for(rows);
    let threads = (rows / ROWS_A_THREAD).clamp(1, gathered.threads.max(1) as u64) as usize;
    let tasks = Task::all(
        gathered.store,
        shard_bits,
        gathered.load_bytes / threads as u64,
    );
    let ranks = Ranks::of(&gathered);
    let layout = plan(&gathered, &ranks, &tasks, shard_bits)?;

    let mut file = Sections::begin(out)?;
    let mut index = Vec::new();
    let mut done = 0;
    let counted = {
        let work = Work {
            gathered: &gathered,
            ranks: &ranks,
            layout: &layout,
        };
        work.all(&tasks, threads, &mut |task, shards| {
            for mut entry in shards.entries {
                entry.start += file.length();
                index.extend(entry.encode());
            }
            file.write(&shards.records)?;
            if file.length() > RECORDS_BYTES_MAX {
                return Err(BuildError::TooLarge);
            }
            if task.is_last {
                gathered.store.discard(task.partitions.clone());
            }
            done += 1;
            progress(done, tasks.len() as u64);
            Ok(())
        })?
    };
    index.extend(Entry::end(file.length()).encode());
    file.end_section();
    let mut code = Vec::new();
    layout.code.encode(&mut code);
    for part in [
        index,
        code,
        segment_table(&gathered.names, &ranks.of_number, &counted.in_rank),
    ] {
        file.write(&part)?;
        file.end_section();
    }

    let (first_expiry, expiry_bits) = match layout.code.expiry() {
        Expiry::Unused => (None, 0),
        Expiry::Since { first, bits } => (Some(first), bits),
    };
    let segments = gathered.names.len();
    file.finish(|sections| {
        let header = Header {
            key_id: gathered.key_id,
            ids: counted.ids,
            rows,
            memberships: counted.in_rank.iter().sum(),
            segments: segments as u32,
            first_expiry,
            body: Body::Sharded {
                shard_bits,
                expiry_bits,
                lengths: layout.lengths,
                root,
                removed: counted.removed,
                bins: layout.bins,
            },
            meta,
            sections,
        };
        header.encode().ok_or(BuildError::TooLarge)
    })?;
    Ok(RowReport {
        rows,
        ids: counted.ids,
        segments: segments as u64,
        merged: rows - counted.ids,
        rejected_rows: gathered.tally.rejected_rows,
        rejected: gathered.tally.rejected,
    })
}

/// The rank of each segment: the most named first, so that most gaps are small; then by name. Counted over rows,
/// duplicates included, which is as good for its purpose and known before anything is merged.
struct Ranks {
    of_number: Vec<u16>,
}

impl Ranks {
    fn of(gathered: &Gathered<'_>) -> Self {
        let names = &gathered.names;
        let named = |number: usize| gathered.tally.named.get(number).copied().unwrap_or(0);
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_unstable_by(|&a, &b| {
            named(b)
                .cmp(&named(a))
                .then_with(|| names[a].cmp(&names[b]))
        });
        let mut of_number = vec![0; names.len()];
        for (rank, number) in order.into_iter().enumerate() {
            of_number[number] = rank as u16;
        }
        Self { of_number }
    }

    #[inline]
    fn of_number(&self, number: [u8; 2]) -> u16 {
        self.of_number[usize::from(u16::from_le_bytes(number))]
    }
}

/// Some shards, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Task {
    shards: Range<usize>,
    pub(super) partitions: Range<usize>,
    /// Whether nothing of these partitions is left to do after it.
    pub(super) is_last: bool,
}

impl Task {
    /// All shards: a partition's together, or several partitions where a shard has several, or part of a partition's where
    /// they would take more than `bytes`.
    pub(super) fn all(store: &Store, shard_bits: u32, bytes: u64) -> Vec<Self> {
        let runs = 1usize << shard_bits.min(PARTITION_BITS);
        let shards = (1usize << shard_bits) / runs;
        let partitions = PARTITIONS / runs;
        let mut all = Vec::new();
        for run in 0..runs {
            let partitions = run * partitions..(run + 1) * partitions;
            let (rows, row_bytes) = store.size(partitions.clone());
            let size = row_bytes + rows * SORTED_BYTES;
            let parts = (size / bytes.max(1) + 1) as usize;
            let step = shards.div_ceil(parts.min(shards));
            let end = (run + 1) * shards;
            for from in (run * shards..end).step_by(step) {
                let to = (from + step).min(end);
                all.push(Self {
                    shards: from..to,
                    partitions: partitions.clone(),
                    is_last: to == end,
                });
            }
        }
        all
    }

    pub(super) fn load(
        &self,
        store: &Store,
        shard_bits: u32,
        into: &mut Sorted,
    ) -> Result<(), BuildError> {
        let wanted = |hashed: super::super::shard::Hashed| {
            let shard = hashed.shard(shard_bits);
            self.shards.contains(&shard)
        };
        into.load(store, self.partitions.clone(), wanted)
            .map_err(BuildError::Scratch)
    }
}

/// Makes the code from the first ids.
fn plan(
    gathered: &Gathered<'_>,
    ranks: &Ranks,
    tasks: &[Task],
    shard_bits: u32,
) -> Result<Layout, BuildError> {
    let mut merged = Merged::default();
    let mut sample = Sample::default();
    let mut sorted = Sorted::default();
    let (mut ids, mut rows) = (0u64, 0u64);
    for task in tasks {
        if sample.is_full() {
            break;
        }
        task.load(gathered.store, shard_bits, &mut sorted)?;
        for (_, same) in sorted.ids() {
            if sample.is_full() {
                break;
            }
            merged.merge(same, ranks);
            sample.push(&merged.set);
            if gathered.delta {
                sample.push(&merged.removed);
            }
            ids += 1;
            rows += same.len() as u64;
        }
    }
    // How many ids there are in all is not known before all are merged; the sample's share of the rows tells it.
    let all = u128::from(ids) * u128::from(gathered.tally.rows) / u128::from(rows.max(1));
    let shape = Shape {
        segments: gathered.names.len() as u32,
        may_be_empty: gathered.delta,
        expiry: expiry_of(gathered.tally.expiries),
        contexts: Contexts::ByState,
    };
    let sets_an_id = if gathered.delta { 2 } else { 1 };
    let (code, mean_bits) = sample
        .plan(shape, all as u64 * sets_an_id)
        .ok_or(BuildError::TooLarge)?;
    Ok(Layout::of(
        code,
        mean_bits * sets_an_id as f64,
        gathered.delta,
        shard_bits,
    ))
}

fn expiry_of(expiries: Option<(i64, i64)>) -> Expiry {
    let Some((first, last)) = expiries else {
        return Expiry::Unused;
    };
    let distance = last.abs_diff(first);
    Expiry::Since {
        first,
        bits: (u64::BITS - distance.leading_zeros()).max(1),
    }
}

/// What tasks are done with.
struct Work<'a> {
    gathered: &'a Gathered<'a>,
    ranks: &'a Ranks,
    layout: &'a Layout,
}

/// Some shards as they stand in the file, their entries counted from the first of them.
struct Shards {
    records: Vec<u8>,
    entries: Vec<Entry>,
}

/// What was written so far.
struct Counted {
    ids: u64,
    /// Memberships of each rank.
    in_rank: Vec<u64>,
    /// Of a delta: pairs that it takes away.
    removed: u64,
}

/// One thread's tools, kept from one task to the next.
struct Hand<'a> {
    work: &'a Work<'a>,
    sorted: Sorted,
    merged: Merged,
    writer: ShardWriter,
    placed: Vec<Placed>,
    all: Vec<Membership>,
    counted: Counted,
}

impl Work<'_> {
    /// Does all tasks; `each` is given what came of them in their order.
    fn all(
        &self,
        tasks: &[Task],
        threads: usize,
        each: &mut dyn FnMut(&Task, Shards) -> Result<(), BuildError>,
    ) -> Result<Counted, BuildError> {
        if threads <= 1 {
            let mut hand = self.hand();
            for task in tasks {
                each(task, hand.shards(task)?)?;
            }
            return Ok(hand.counted);
        }
        thread::scope(|scope| {
            let mut lanes = Vec::new();
            let mut work = Vec::new();
            for number in 0..threads {
                let (give, take) = sync_channel(1);
                let labour = move || {
                    let mut hand = self.hand();
                    for task in tasks.iter().skip(number).step_by(threads) {
                        // Nobody wants it where another one failed.
                        if give.send(hand.shards(task)?).is_err() {
                            break;
                        }
                    }
                    Ok(hand.counted)
                };
                let name = format!("kith-build-{number}");
                let started = thread::Builder::new()
                    .name(name)
                    .spawn_scoped(scope, labour);
                work.push(started.map_err(BuildError::Io)?);
                lanes.push(take);
            }
            let mut written = Ok(());
            for (task, lane) in tasks.iter().zip((0..threads).cycle()) {
                let Ok(shards) = lanes[lane].recv() else {
                    // Why is told when the thread is joined.
                    break;
                };
                written = each(task, shards);
                if written.is_err() {
                    break;
                }
            }
            drop(lanes);
            let mut counted = self.hand().counted;
            for work in work {
                let own = work.join().unwrap_or(Err(BuildError::Panicked));
                written = written.and(own.map(|own| counted.add(&own)));
            }
            written.map(|()| counted)
        })
    }

    fn hand(&self) -> Hand<'_> {
        Hand {
            work: self,
            sorted: Sorted::default(),
            merged: Merged::default(),
            writer: ShardWriter::default(),
            placed: Vec::new(),
            all: Vec::new(),
            counted: Counted {
                ids: 0,
                in_rank: vec![0; self.gathered.names.len()],
                removed: 0,
            },
        }
    }
}

impl Counted {
    fn add(&mut self, other: &Self) {
        self.ids += other.ids;
        self.removed += other.removed;
        for (own, more) in self.in_rank.iter_mut().zip(&other.in_rank) {
            *own += more;
        }
    }
}

impl Hand<'_> {
    fn shards(&mut self, task: &Task) -> Result<Shards, BuildError> {
        let Work {
            gathered,
            ranks,
            layout,
        } = self.work;
        task.load(gathered.store, layout.shard_bits, &mut self.sorted)?;
        let mut shards = Shards {
            records: Vec::new(),
            entries: Vec::with_capacity(task.shards.len()),
        };
        let mut ids = self.sorted.ids().peekable();
        for shard in task.shards.clone() {
            self.placed.clear();
            self.all.clear();
            let is_own =
                |id: &(super::super::shard::Hashed, _)| id.0.shard(layout.shard_bits) == shard;
            while let Some((hashed, rows)) = ids.next_if(is_own) {
                self.merged.merge(rows, ranks);
                for membership in &self.merged.set {
                    self.counted.in_rank[membership.rank as usize] += 1;
                }
                self.counted.removed += self.merged.removed.len() as u64;
                let from = self.all.len();
                self.all.append(&mut self.merged.set);
                let to = self.all.len();
                self.all.append(&mut self.merged.removed);
                self.placed.push(Placed {
                    hashed,
                    set: from..to,
                    removed: to..self.all.len(),
                    deleted: self.merged.deleted,
                });
            }
            self.counted.ids += self.placed.len() as u64;
            let start = shards.records.len() as u64;
            let mut entry = self
                .writer
                .write(layout, &self.placed, &self.all, &mut shards.records)
                .map_err(|_| BuildError::NoMixing)?;
            entry.start = start;
            shards.entries.push(entry);
        }
        match ids.next() {
            None => Ok(shards),
            Some(_) => Err(BuildError::Scratch(io::ErrorKind::InvalidData.into())),
        }
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
    never: RankSet,
}

/// Some ranks: put in in any order, any number of times, taken out in theirs.
#[derive(Default)]
struct RankSet {
    /// A bit for each rank.
    words: Vec<u64>,
    /// A bit for each of these words that is not 0.
    filled: Vec<u64>,
}

impl RankSet {
    fn insert(&mut self, rank: u16) {
        let (word, bit) = (usize::from(rank / 64), rank % 64);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
            self.filled.resize(word / 64 + 1, 0);
        }
        self.words[word] |= 1 << bit;
        self.filled[word / 64] |= 1 << (word % 64);
    }

    /// Tells all ranks, and forgets them.
    fn drain(&mut self, mut each: impl FnMut(u16)) {
        for (group, filled) in self.filled.iter_mut().enumerate() {
            let mut filled = std::mem::take(filled);
            while filled > 0 {
                let at = 64 * group + filled.trailing_zeros() as usize;
                filled &= filled - 1;
                let mut word = std::mem::take(&mut self.words[at]);
                while word > 0 {
                    each((64 * at) as u16 + word.trailing_zeros() as u16);
                    word &= word - 1;
                }
            }
        }
    }
}

impl Merged {
    /// Whatever the order of the rows: what one of them removes is removed though another adds it, and where one of
    /// them deletes there is nothing left to remove.
    fn merge(&mut self, rows: SameId<'_>, ranks: &Ranks) {
        self.set.clear();
        self.removed.clear();
        self.deleted = false;
        let plain = |rank: u16| Membership {
            rank: u32::from(rank),
            expires: None,
        };
        for row in rows.rows() {
            self.deleted |= row.deleted;
            let added = row.added.iter().map(|number| ranks.of_number(*number));
            if row.expires == NEVER {
                added.for_each(|rank| self.never.insert(rank));
            } else {
                self.set.extend(added.map(|rank| Membership {
                    rank: u32::from(rank),
                    expires: Some(row.expires),
                }));
            }
            let removed = row.removed.iter().map(|number| ranks.of_number(*number));
            self.removed.extend(removed.map(plain));
        }
        let some_expire = !self.set.is_empty();
        self.never.drain(|rank| self.set.push(plain(rank)));
        if some_expire {
            // The latest first, and it is the first that stays.
            let latest = |m: &Membership| std::cmp::Reverse(m.expires.unwrap_or(NEVER));
            self.set.sort_unstable_by_key(|m| (m.rank, latest(m)));
            self.set.dedup_by_key(|m| m.rank);
        }
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
pub(in super::super) fn segment_table(names: &[Name], ranks: &[u16], in_rank: &[u64]) -> Vec<u8> {
    let mut by_name: Vec<(&Name, u16)> = names.iter().zip(ranks.iter().copied()).collect();
    by_name.sort_unstable();
    let mut table = Vec::with_capacity(names.len() * SEGMENT_ENTRY_BYTES);
    for (name, rank) in by_name {
        let end = table.len() + SEGMENT_ENTRY_BYTES;
        let name = name.as_str().as_bytes();
        table.extend(in_rank[usize::from(rank)].to_le_bytes());
        table.extend(u32::from(rank).to_le_bytes());
        table.extend((name.len() as u32).to_le_bytes());
        table.extend(name);
        table.resize(end, 0);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranks_come_out_in_order_and_once(ranks in prop::collection::vec(any::<u16>(), 0..80)) {
            let mut set = RankSet::default();
            for _ in 0..2 {
                let mut out = Vec::new();
                ranks.iter().for_each(|rank| set.insert(*rank));
                set.drain(|rank| out.push(rank));
                let naive: BTreeSet<u16> = ranks.iter().copied().collect();
                prop_assert_eq!(out, Vec::from_iter(naive));
            }
        }
    }
}
