//! From rows to a version file.
//!
//! Rows are read on every core (`team`), kept in partitions by where their ids will stand, in memory or on disk (`store`), and
//! then sorted, merged and written partition by partition (`arrange`). The sort is by remixed key, so neither the order in
//! which rows came nor who read them leaves a trace, and no table of ids is ever held.
//!
//! Memory: without a bound 17 bytes a row and 2 a segment that it names. With one ([`Builder::with_memory`]) a quarter of
//! it is for chunks that are being filled, half for full ones, and a quarter for sorting; beside it stand a few MiB a thread
//! for blocks of input, the sample of guards and of codes, and 8 bytes for each two thousand rows. Rows of one shard are sorted
//! together whatever they take, so an id of which there are many millions of rows needs room for them. Cost: docs/scale.md.
//!
//! Rows of an identity graph all stay in memory (`claims`), 80 bytes each; what does not fit is refused.

pub(super) mod arrange;
mod claims;
mod collector;
mod filter;
mod graph;
mod names;
pub(super) mod output;
mod store;
mod team;

#[cfg(test)]
mod tests;

use std::io::{self, BufRead};
use std::path::PathBuf;
use std::sync::Arc;

use crate::ids::{Keyer, Kind};

use super::VersionMeta;
use super::filter::FalsePositiveRate;
use super::format::SEGMENTS_MAX;
use super::graph::IDS_PER_PERSON_MAX;
use super::remix::{Remix, salt};
use super::rows::{BLOCK_BYTES, Blocks, ReadError, RowFormat, RowReport, Says};
use super::sample::Seen;
use claims::Register;
use collector::{Shared, Tally};
use names::Dictionary;
use store::{Bound, Store};

pub(super) use collector::{Collector, Draft};
pub use output::HeadLast;

/// Least memory that a build may be bounded to; with less it would write to disk row by row.
pub const MEMORY_MIN: u64 = 16 << 20;
/// Most ids of one person in an identity graph, where nobody says.
pub const IDS_PER_PERSON: usize = 32;
/// Most of them from one source.
pub const IDS_PER_SOURCE: usize = 8;

/// Collects rows and makes one version file of them.
#[derive(Debug)]
pub struct Builder {
    meta: VersionMeta,
    root: u64,
    /// Of a filter.
    rate: FalsePositiveRate,
    /// Of an identity graph.
    ids_max: graph::IdsMax,
    keyer: Keyer,
    segments_max: usize,
    threads: usize,
    bound: Option<Bound>,
    block_bytes: usize,
    inputs: u32,
    /// What every thread has, from the first input on.
    collectors: Vec<Collector>,
    shared: Option<Shared>,
}

impl Builder {
    /// A builder of a version of an audience, a filter or an identity graph, whose ids are hashed under `keyer`'s key: of an audience's delta
    /// where `meta` names a base, which then is a full version.
    ///
    /// Other kinds are refused here, before anything is read.
    pub fn new(meta: VersionMeta, keyer: Keyer) -> Result<Self, BuildError> {
        let root = meta.base.unwrap_or(meta.version);
        Self::rooted(meta, root, keyer)
    }

    /// A builder of a delta: the base that `meta` names may be a delta itself, and `root` is the full version at the
    /// bottom, whose salt all of them have.
    pub fn delta(meta: VersionMeta, root: u64, keyer: Keyer) -> Result<Self, BuildError> {
        match meta.base {
            Some(_) => Self::rooted(meta, root, keyer),
            None => Err(BuildError::Base),
        }
    }

    fn rooted(meta: VersionMeta, root: u64, keyer: Keyer) -> Result<Self, BuildError> {
        match (meta.kind, meta.base) {
            (Kind::Audience, _) | (Kind::Filter | Kind::Identity, None) => {}
            (Kind::Filter | Kind::Identity, Some(_)) => {
                return Err(BuildError::NoDeltas(meta.kind));
            }
            (Kind::Campaigns | Kind::Scores, _) => return Err(BuildError::NoRows(meta.kind)),
        }
        if let Some(base) = meta.base
            && !(root <= base && base < meta.version)
        {
            return Err(BuildError::Base);
        }
        Ok(Self {
            meta,
            root,
            rate: FalsePositiveRate::DEFAULT,
            ids_max: graph::IdsMax {
                in_all: IDS_PER_PERSON,
                of_source: IDS_PER_SOURCE,
            },
            keyer,
            segments_max: SEGMENTS_MAX as usize,
            threads: std::thread::available_parallelism().map_or(1, Into::into),
            bound: None,
            block_bytes: BLOCK_BYTES,
            inputs: 0,
            collectors: Vec::new(),
            shared: None,
        })
    }

    /// Of a filter: the rate that it declares, and is large enough for. [`FalsePositiveRate::DEFAULT`] where nobody says.
    #[must_use]
    pub fn with_false_positive_rate(mut self, rate: FalsePositiveRate) -> Self {
        self.rate = rate;
        self
    }

    /// Of an identity graph: how many ids one person may have, 1 to [`IDS_PER_PERSON_MAX`], and how many of them of one source.
    /// [`IDS_PER_PERSON`] and [`IDS_PER_SOURCE`] where nobody says.
    #[must_use]
    pub fn with_ids_per_person(mut self, in_all: usize, of_source: usize) -> Self {
        self.ids_max = graph::IdsMax {
            in_all: in_all.clamp(1, IDS_PER_PERSON_MAX),
            of_source: of_source.clamp(1, IDS_PER_PERSON_MAX),
        };
        self
    }

    /// With fewer segments than the format can hold; a row that names one more is bad. To be said before rows are read,
    /// like all that follows.
    #[must_use]
    pub fn with_segments_max(mut self, segments: usize) -> Self {
        self.segments_max = segments.min(SEGMENTS_MAX as usize);
        self
    }

    /// With so many threads, not one a core. They inherit the caller's priority.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Within so many bytes of memory, at least [`MEMORY_MIN`], and a few MiB a thread besides. What is more goes to a
    /// file without a name in `folder`; of an identity graph it is refused.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64, folder: PathBuf) -> Self {
        let bytes = bytes.max(MEMORY_MIN);
        self.bound = Some(Bound { bytes, folder });
        self
    }

    /// Reads rows to the end of `input`; may be called again for the next input.
    ///
    /// Bad rows are counted and reported, and do not end the reading; a CSV without a readable header and a failing input
    /// do. To cancel, let the input fail. `progress` is told how many rows, good and bad, were seen so far over
    /// all inputs, now and then and at the end.
    pub fn read_rows(
        &mut self,
        format: &RowFormat,
        input: impl BufRead,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ReadError> {
        let threads = self.reading_threads();
        let shared = self.shared.get_or_insert_with(|| Shared {
            keyer: self.keyer.clone(),
            says: match self.meta.kind {
                Kind::Identity => Says::Persons,
                _ if self.meta.base.is_some() => Says::Changes,
                _ => Says::Segments,
            },
            one_list: self.meta.kind == Kind::Filter,
            remix: Remix::new(&salt(&self.meta.dataset, self.root, 0)),
            dictionary: Arc::new(Dictionary::new(match self.meta.kind {
                Kind::Filter => 1,
                _ => self.segments_max,
            })),
            store: Arc::new(Store::new(threads, self.bound.clone())),
            register: Arc::new(Register::new(
                self.bound.as_ref().map_or(u64::MAX, |bound| bound.bytes),
            )),
        });
        let register = Arc::clone(&shared.register);
        self.collectors
            .resize_with(threads, || Collector::new(shared.clone()));
        for collector in &mut self.collectors {
            collector.begin_input(self.inputs);
        }
        self.inputs = self.inputs.saturating_add(1);
        let blocks = Blocks::new(input, self.block_bytes);
        team::read(&mut self.collectors, format, blocks, progress)?;
        register.room_for(self.collectors.iter().map(Collector::claimed).sum())
    }

    /// As many as can have chunks open within a quarter of the memory.
    fn reading_threads(&self) -> usize {
        let bound = self.bound.as_ref();
        let most = bound.map_or(usize::MAX, |b| {
            store::threads_max(b.bytes.max(MEMORY_MIN) / 4)
        });
        self.threads.min(most)
    }

    /// What guards want to know of the rows read so far; asked once, before [`finish`](Self::finish).
    pub fn take_seen(&mut self) -> Seen {
        let mut all = Tally::default();
        for collector in &mut self.collectors {
            all.sample
                .merge(std::mem::take(&mut collector.tally.sample));
        }
        let shared = self.shared.as_ref();
        let names = shared.map(|shared| shared.dictionary.names());
        all.sample.into_seen(&names.unwrap_or_default())
    }

    /// Writes the version file to `out`, and tells what became of the rows.
    pub fn finish(self, out: &mut dyn HeadLast) -> Result<RowReport, BuildError> {
        self.finish_telling(out, &mut |_, _| {})
    }

    /// As [`finish`](Self::finish); `progress` is told how many of how many parts are written.
    pub fn finish_telling(
        self,
        out: &mut dyn HeadLast,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<RowReport, BuildError> {
        let mut tally = Tally::default();
        let mut closed = Ok(());
        let mut claims = Vec::new();
        for mut collector in self.collectors {
            closed = closed.and(collector.close());
            let mut own = collector.take_claims();
            if claims.is_empty() {
                std::mem::swap(&mut claims, &mut own);
            }
            claims.append(&mut own);
            tally.merge(collector.tally);
        }
        let shared = self.shared.filter(|_| tally.rows > 0);
        let Some(shared) = shared else {
            let report = Box::new(RowReport {
                rejected_rows: tally.rejected_rows,
                rejected: tally.rejected,
                ..RowReport::default()
            });
            return Err(BuildError::Empty { report });
        };
        closed.map_err(BuildError::Scratch)?;
        if self.meta.kind == Kind::Identity {
            let gathered = graph::Gathered {
                key_id: shared.keyer.key_id(),
                claims,
                sources: shared.register.sources(),
                tally,
                ids_max: self.ids_max,
            };
            return graph::write(self.meta, gathered, out, progress);
        }
        shared.store.end_filling();
        let gathered = arrange::Gathered {
            key_id: shared.keyer.key_id(),
            delta: shared.says == Says::Changes,
            names: shared.dictionary.names(),
            tally,
            store: &shared.store,
            threads: self.threads,
            load_bytes: self.bound.map_or(u64::MAX, |bound| bound.bytes / 4),
        };
        match self.meta.kind {
            Kind::Filter => filter::write(self.meta, self.rate, gathered, out, progress),
            _ => arrange::write(self.meta, self.root, gathered, out, progress),
        }
    }
}

/// Why there is no version file.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No good row was read.
    #[error("no good row among {}; {}", .report.rejected_rows, first_reason(.report))]
    Empty {
        /// What was wrong with those that were.
        report: Box<RowReport>,
    },
    /// A kind that is not made of rows.
    #[error("a version of kind {0} is a document, not made of rows; upload it as it is")]
    NoRows(Kind),
    /// A kind that has no deltas.
    #[error("a version of kind {0} has no base: it has no deltas; build all of it anew")]
    NoDeltas(Kind),
    /// A delta over nothing that could be its base.
    #[error("a delta has a base below its own number, and its root is not above its base")]
    Base,
    /// The records would be longer than a directory can point into, or a count overflows.
    #[error("too much for one version file; spread the ids over several datasets")]
    TooLarge,
    /// Under every mixing tried two ids would have been one. Does not happen by chance.
    #[error("nothing keeps the ids of this version apart; build it under another version number")]
    NoMixing,
    /// What was put on disk to be sorted could not be read again, or the disk is full.
    #[error("rows that were to be sorted are lost: {0}")]
    Scratch(io::Error),
    /// A mistake in Kith.
    #[error("a thread that sorts rows has panicked; this is a mistake in Kith")]
    Panicked,
    /// `out` failed.
    #[error("the version file could not be written: {0}")]
    Io(#[from] io::Error),
}

fn first_reason(report: &RowReport) -> String {
    match report.rejected.first() {
        Some(row) => format!("line {}: {}", row.line, row.reason),
        None => "the input is empty".to_owned(),
    }
}
