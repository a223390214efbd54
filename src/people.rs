//! People in real time: updates that the next bid sees, links between a person's ids, erasure and opt-out; all durable before they are
//! acknowledged.
//!
//! ```text
//!   POST /v1/users, links, optouts            the people thread                    bid threads
//!   rows ── read, keyed ──► People ──────────► register ──► journal ──► table ◄── read, without waiting
//!                                                 │   (then, and only then)
//!                                                 └──► checkpoint, hours of NDJSON for segment jobs
//! ```
//!
//! A snapshot is hours old; what came since stands in the *overlay*: opinions of an id and a segment, which stand above what
//! versions say until they expire or the live version covers them by its `as_of`. What is held, and by which rules, is in [`register`];
//! what bid threads read of it is the [`table`]; [`office`] is the thread. The rules for users are in `docs/people.md`.
//!
//! Invariants: acknowledged is durable and visible; what is erased or opted out stays so, for that stands in a log of its own which
//! nothing ever shortens, with room on disk that nothing else gets; nothing here makes a bid thread wait.

mod acts;
mod checkpoint;
mod feed;
mod frames;
mod handle;
mod marks;
mod numbers;
mod office;
mod register;
mod rows;
mod table;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use crate::audience::AsOf;
use crate::clock::Timestamp;
use crate::ids::{Name, SegmentRef, UserKey};

use numbers::{Numbers, whole};
use table::Table;
pub(crate) use table::{Approached, Reader};

pub use acts::Rejection;
pub use feed::{FeedError, Page};
pub(crate) use handle::Ready;
pub use handle::{
    Done, Figures, GraphIds, Kind, People, PeopleError, Refused, Terms, View, ViewedOpinion,
};
pub use register::{Counts, Room};
pub use rows::{LINE_BYTES_MAX, PostedId, Reading, Unread};
pub use table::{Change, Standing};

/// Leaves of the table for so many ids.
fn leaves_for(ids: usize) -> usize {
    ids.saturating_add(ids / 2).saturating_add(1 << 14)
}

/// Most different segments, writers or sources.
const NAMES_MAX: usize = 1 << 22;
/// Of them, most that rows may bring up in one dataset: who may write to one must not use up those of all.
const ROW_SEGMENTS_MAX: u32 = 1 << 17;
const ROW_WRITERS_MAX: u32 = 1 << 16;

/// Names that rows have brought up in one dataset.
#[derive(Debug, Clone, Copy, Default)]
struct Brought {
    segments: u32,
    writers: u32,
}

/// What everybody may read of people: shared by bid threads and by the one thread that changes it.
#[derive(Debug)]
pub struct Known {
    table: Table,
    /// Segments, and datasets as a whole.
    segments: Numbers,
    /// The number of the dataset of each.
    datasets: RwLock<Vec<u32>>,
    writers: Numbers,
    sources: Numbers,
    /// By the dataset's number.
    brought: Mutex<HashMap<u32, Brought>>,
    times: Times,
    /// The last row that is durable and visible.
    sequence: AtomicU64,
    /// Up to which row all versions that are kept of a dataset have read.
    covered: Mutex<BTreeMap<u32, u64>>,
}

impl Known {
    /// Of nobody, for ever.
    pub fn none() -> Self {
        Self::over(Table::none())
    }

    /// Of nobody yet, with room for so many ids. The error is the system's: it has not that much memory.
    pub fn with_room(ids: usize) -> io::Result<Self> {
        Ok(Self::over(Table::new(ids, leaves_for(ids))?))
    }

    fn over(table: Table) -> Self {
        let writers = Numbers::new(NAMES_MAX);
        // Who names nobody has the first number.
        let nobody = writers.number("");
        debug_assert_eq!(nobody, Some(register::NOBODY));
        Self {
            table,
            segments: Numbers::new(NAMES_MAX),
            datasets: RwLock::default(),
            writers,
            sources: Numbers::new(NAMES_MAX),
            brought: Mutex::default(),
            times: Times::default(),
            sequence: AtomicU64::new(0),
            covered: Mutex::default(),
        }
    }

    /// Whether nothing is known of anybody, so that nobody needs to be looked for.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.table.keys() == 0
    }

    /// Keys of which something is known.
    pub fn keys(&self) -> usize {
        self.table.keys()
    }

    /// Has what is known of a key at hand soon.
    #[inline]
    pub(crate) fn prefetch(&self, key: UserKey) {
        self.table.prefetch(key);
    }

    /// The first step of reading what is known of a key: what it leads to is at hand soon.
    #[inline]
    pub(crate) fn approach(&self, key: UserKey) -> Approached {
        self.table.approach(key)
    }

    /// The second step: as [`read`](Self::read).
    #[inline]
    pub(crate) fn read_at(
        &self,
        key: UserKey,
        approached: Approached,
        reader: &mut impl Reader,
    ) -> Option<Standing> {
        self.table.read_at(key, approached, reader)
    }

    /// What is known of a key; nothing where that is nothing. The reader hears the rest of it.
    #[inline]
    pub(crate) fn read(&self, key: UserKey, reader: &mut impl Reader) -> Option<Standing> {
        self.table.read(key, reader)
    }

    /// Whether a key was erased or opted out.
    pub fn standing(&self, key: UserKey) -> Standing {
        self.read(key, &mut Nothing).unwrap_or_default()
    }

    /// The last row that is durable and visible: the journal's position.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Relaxed)
    }

    /// The number of a segment, for all time of this process; nothing where there are too many.
    pub(crate) fn segment_number(&self, segment: &SegmentRef) -> Option<u32> {
        self.number_of_name(&segment.to_string())
    }

    /// The number of a segment that a row names; nothing where rows have brought up too many of its dataset.
    fn number_for_row(&self, segment: &SegmentRef) -> Option<u32> {
        let name = segment.to_string();
        if self.segments.find(&name).is_none() {
            let dataset = self.dataset_number(&segment.dataset)?;
            self.bring(dataset, |of| (&mut of.segments, ROW_SEGMENTS_MAX))?;
        }
        self.number_of_name(&name)
    }

    /// The number of a writer that a row of this dataset names.
    fn writer_for_row(&self, writer: &str, dataset: u32) -> Option<u32> {
        if self.writers.find(writer).is_none() {
            self.bring(dataset, |of| (&mut of.writers, ROW_WRITERS_MAX))?;
        }
        self.writers.number(writer)
    }

    fn bring(&self, dataset: u32, of: impl FnOnce(&mut Brought) -> (&mut u32, u32)) -> Option<()> {
        let mut all = self.brought.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, most) = of(all.entry(dataset).or_default());
        *count = count.checked_add(1).filter(|count| *count <= most)?;
        Some(())
    }

    /// The number of a dataset as a whole.
    pub(crate) fn dataset_number(&self, dataset: &Name) -> Option<u32> {
        self.number_of_name(&whole(dataset.as_str()))
    }

    fn number_of_name(&self, name: &str) -> Option<u32> {
        let (dataset, _) = name.split_once('/')?;
        let dataset = self.segments.number(&whole(dataset))?;
        let number = self.segments.number(name)?;
        let mut datasets = self
            .datasets
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Two threads may number names at once: each fills in what it knows.
        for of in [dataset, number] {
            let place = usize::try_from(of).ok()?;
            if datasets.len() <= place {
                datasets.resize(place.saturating_add(1), u32::MAX);
            }
            if let Some(known) = datasets.get_mut(place) {
                *known = dataset;
            }
        }
        Some(number)
    }

    /// The number of the dataset of a number.
    fn dataset_of(&self, number: u32) -> u32 {
        let datasets = self.datasets.read().unwrap_or_else(PoisonError::into_inner);
        let place = usize::try_from(number).ok();
        let known = place.and_then(|place| datasets.get(place));
        known.copied().unwrap_or(u32::MAX)
    }

    /// How a segment, or a dataset as a whole (`crm/*`), is called.
    pub(crate) fn segment_name(&self, number: u32) -> Option<std::sync::Arc<str>> {
        self.segments.name(number)
    }

    /// Up to which row all versions that are kept of these datasets have read. Others cover nothing.
    pub fn cover(&self, datasets: &BTreeMap<Name, u64>) {
        let all = datasets.iter();
        let numbered =
            all.filter_map(|(name, position)| Some((self.dataset_number(name)?, *position)));
        *self.covered.lock().unwrap_or_else(PoisonError::into_inner) = numbered.collect();
    }

    fn covered(&self) -> BTreeMap<u32, u64> {
        let covered = self.covered.lock();
        covered.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn times(&self) -> &Times {
        &self.times
    }

    /// Up to which row a version has read its input: all before that time, or up to that row. One in the future has not.
    pub fn position(&self, as_of: AsOf) -> u64 {
        match as_of {
            AsOf::Position(position) => position,
            AsOf::Time(time) => self.times.before(time, self.sequence()),
        }
    }
}

/// Nothing but what stands before the leaves is asked for.
struct Nothing;

impl Reader for Nothing {
    fn begin(&mut self) {}
    fn change(&mut self, _: Change) {}
    fn person(&mut self, _: UserKey, _: u32) {}
    fn member(&mut self, _: UserKey, _: u32) {}
}

/// How many seconds it is remembered which row was the first of each: with rows in every second eleven days.
const TIMES_MAX: usize = 1 << 20;

/// Which row was the first of each second.
#[derive(Debug, Default)]
struct Times {
    first: Mutex<std::collections::VecDeque<(i64, u64)>>,
}

impl Times {
    fn first(&self) -> MutexGuard<'_, std::collections::VecDeque<(i64, u64)>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row came in that second.
    fn note(&self, second: i64, sequence: u64) {
        let mut first = self.first();
        if first
            .back()
            .is_none_or(|(last, number)| *last < second && *number < sequence)
        {
            first.push_back((second, sequence));
        }
        if first.len() > TIMES_MAX {
            first.pop_front();
        }
    }

    /// The last row before that second, of so many; none where that is longer ago than is remembered.
    fn before(&self, time: Timestamp, sequence: u64) -> u64 {
        let second = time.unix_seconds();
        let first = self.first();
        let place = first.partition_point(|(at, _)| *at < second);
        match (place, first.get(place)) {
            // What came before the first is forgotten, and may be later than that.
            (0, _) => 0,
            (_, Some((_, next))) => next.saturating_sub(1),
            (_, None) => sequence,
        }
    }

    /// The second in which a row came; the first that is remembered, where that was earlier.
    fn second_of(&self, sequence: u64) -> i64 {
        let first = self.first();
        let place = first.partition_point(|(_, number)| *number <= sequence);
        let at = first.get(place.saturating_sub(1));
        at.map_or(0, |(second, _)| *second)
    }

    fn all(&self) -> Vec<(i64, u64)> {
        self.first().iter().copied().collect()
    }
}
