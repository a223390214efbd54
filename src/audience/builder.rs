//! From rows to a version file.
//!
//! Rows are kept as they come, 40 bytes each and two for each segment they name; [`Builder::finish`] sorts them by
//! where their ids will stand, merges those of one id, and writes. The sort is by remixed key, so the order in which
//! rows came leaves no trace, and no table of ids is ever held.
//!
//! Cost: 64 bytes a row of twelve segments while reading, and the file itself besides while finishing. A million rows of
//! CSV with 11 segments each: 1.8 s to read and 0.8 s to finish, CPU time on a busy machine (`tests/measure.rs`).

pub(super) mod arrange;
mod filter;
pub(super) mod output;

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

use crate::ids::{KeyId, Keyer, Kind, Name, UserKey};

pub use output::HeadLast;

use super::VersionMeta;
use super::filter::FalsePositiveRate;
use super::format::SEGMENTS_MAX;
use super::remix::{Remix, salt};
use super::rows::{
    self, NotKept, REJECTED_KEPT_MAX, ReadError, Refused, RejectedRow, RowFormat, RowReport,
};
use super::sample::{Sample, Seen};
use super::shard::Hashed;

/// Collects rows and makes one version file of them.
#[derive(Debug)]
pub struct Builder {
    meta: VersionMeta,
    root: u64,
    /// Of a filter.
    rate: FalsePositiveRate,
    collected: Collected,
}

impl Builder {
    /// A builder of a version of an audience or a filter, whose ids are hashed under `keyer`'s key: of an audience's delta
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
        let has_deltas = meta.kind == Kind::Audience;
        if !has_deltas && (meta.kind != Kind::Filter || meta.base.is_some()) {
            return Err(BuildError::KindNotBuiltYet(meta.kind));
        }
        if let Some(base) = meta.base
            && !(root <= base && base < meta.version)
        {
            return Err(BuildError::Base);
        }
        let remix = Remix::new(&salt(&meta.dataset, root, 0));
        let mut collected = Collected::new(keyer, remix, meta.base.is_some());
        collected.one_list = meta.kind == Kind::Filter;
        Ok(Self {
            meta,
            root,
            rate: FalsePositiveRate::DEFAULT,
            collected,
        })
    }

    /// Of a filter: the rate that it declares, and is large enough for. [`FalsePositiveRate::DEFAULT`] where nobody says.
    #[must_use]
    pub fn with_false_positive_rate(mut self, rate: FalsePositiveRate) -> Self {
        self.rate = rate;
        self
    }

    /// With fewer segments than the format can hold; a row that names one more is bad.
    #[must_use]
    pub fn with_segments_max(mut self, segments: usize) -> Self {
        self.collected.segments_max = segments.min(SEGMENTS_MAX as usize);
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
        rows::read(&mut self.collected, format, input, progress)
    }

    /// What guards want to know of the rows read so far; asked once, before [`finish`](Self::finish).
    pub fn take_seen(&mut self) -> Seen {
        std::mem::take(&mut self.collected.sample).into_seen(&self.collected.names)
    }

    /// Writes the version file to `out` in one forward pass, and tells what became of the rows.
    pub fn finish(self, out: &mut dyn Write) -> Result<RowReport, BuildError> {
        if self.collected.rows.is_empty() {
            return Err(BuildError::Empty {
                report: Box::new(self.collected.report),
            });
        }
        match self.meta.kind {
            Kind::Filter => filter::write(self.meta, self.rate, self.collected, out),
            _ => arrange::write(self.meta, self.root, self.collected, out),
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
    /// A kind of a later milestone.
    #[error(
        "versions of kind {0} cannot be built yet; this Kith builds versions of audiences and filters"
    )]
    KindNotBuiltYet(Kind),
    /// A delta over nothing that could be its base.
    #[error("a delta has a base below its own number, and its root is not above its base")]
    Base,
    /// The records would be longer than a directory can point into, or a count overflows.
    #[error("too much for one version file; spread the ids over several datasets")]
    TooLarge,
    /// Under every mixing tried two ids would have been one. Does not happen by chance.
    #[error("nothing keeps the ids of this version apart; build it under another version number")]
    NoMixing,
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

/// A row as it is kept.
#[derive(Debug, Clone, Copy)]
struct KeptRow {
    /// Where its id will stand.
    hashed: Hashed,
    /// What it adds, and then what it removes.
    segments: Span,
    /// How many of these it adds.
    added: u32,
    deleted: bool,
    /// The second at which what it adds expires, or [`NEVER`].
    expires: i64,
}

/// Later than any time that can be written, so that it wins where the later expiry is kept.
const NEVER: i64 = i64::MAX;

/// A part of `named`: 40 bits of start and 24 of length, which a line of 1 MiB cannot exceed.
#[derive(Debug, Clone, Copy)]
struct Span(u64);

impl Span {
    const LENGTH_BITS: u32 = 24;

    fn new(start: usize, end: usize) -> Self {
        Self((start as u64) << Self::LENGTH_BITS | (end - start) as u64)
    }

    fn range(self) -> std::ops::Range<usize> {
        let start = (self.0 >> Self::LENGTH_BITS) as usize;
        start..start + (self.0 & ((1 << Self::LENGTH_BITS) - 1)) as usize
    }
}

/// All that was read so far.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) keyer: Keyer,
    /// Whether rows say what changes, not what is.
    pub(super) delta: bool,
    remix: Remix,
    rows: Vec<KeptRow>,
    /// The segments of all rows, one row's after the other's, by the number they got when first seen.
    named: Vec<u16>,
    segments_max: usize,
    /// Whether all rows must name one and the same segment, and none may expire: they become a filter.
    pub(super) one_list: bool,
    names: Vec<Name>,
    numbers: HashMap<Name, u16>,
    input: u32,
    report: RowReport,
    pub(super) sample: Sample,
}

impl Collected {
    fn new(keyer: Keyer, remix: Remix, delta: bool) -> Self {
        Self {
            keyer,
            delta,
            remix,
            rows: Vec::new(),
            named: Vec::new(),
            segments_max: SEGMENTS_MAX as usize,
            one_list: false,
            names: Vec::new(),
            numbers: HashMap::new(),
            input: 0,
            report: RowReport::default(),
            sample: Sample::default(),
        }
    }

    fn key_id(&self) -> KeyId {
        self.keyer.key_id()
    }

    /// Good and bad rows so far.
    pub(super) fn rows_seen(&self) -> u64 {
        self.rows.len() as u64 + self.report.rejected_rows
    }

    pub(super) fn end_input(&mut self) {
        self.input = self.input.saturating_add(1);
    }

    pub(super) fn reject(&mut self, line: u64, refused: &Refused) {
        self.report.rejected_rows += 1;
        if self.report.rejected.len() < REJECTED_KEPT_MAX {
            self.report.rejected.push(RejectedRow {
                input: self.input,
                line,
                reason: refused.to_string(),
            });
        }
    }

    /// Begins a row; what it names is kept only if it turns out good.
    pub(super) fn draft(&mut self) -> Draft<'_> {
        Draft {
            named_before: self.named.len(),
            removed_from: None,
            names_before: self.names.len(),
            into: self,
        }
    }
}

/// A row whose segments are being read.
pub(super) struct Draft<'a> {
    into: &'a mut Collected,
    named_before: usize,
    /// Where among what is named that begins which is removed.
    removed_from: Option<usize>,
    names_before: usize,
}

impl Draft<'_> {
    pub(super) fn segment(&mut self, text: &str) -> Result<(), NotKept> {
        let into = &mut *self.into;
        let number = match into.numbers.get(text) {
            Some(&number) => number,
            None => {
                let name: Name = text.parse().map_err(|_| NotKept::NotAName)?;
                let number = into.names.len();
                if into.one_list && number > 0 {
                    return Err(NotKept::SecondSegment);
                }
                if number >= into.segments_max {
                    return Err(NotKept::TooMany(into.segments_max));
                }
                into.names.push(name.clone());
                into.numbers.insert(name, number as u16);
                number as u16
            }
        };
        into.named.push(number);
        Ok(())
    }

    /// What is named from here on is removed.
    pub(super) fn removals_follow(&mut self) {
        self.removed_from = Some(self.into.named.len());
    }

    fn added_and_removed(&self) -> (&[u16], &[u16]) {
        let named = &self.into.named[self.named_before..];
        let added = self.removed_from.map(|at| at - self.named_before);
        named.split_at(added.unwrap_or(named.len()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.into.named.len() == self.named_before
    }

    pub(super) fn adds_nothing(&self) -> bool {
        self.added_and_removed().0.is_empty()
    }

    pub(super) fn adds_and_removes_one(&self) -> bool {
        let (added, removed) = self.added_and_removed();
        if added.is_empty() || removed.is_empty() {
            return false;
        }
        let mut added = added.to_vec();
        added.sort_unstable();
        let is_added = |number| added.binary_search(number).is_ok();
        removed.iter().any(is_added)
    }

    pub(super) fn discard(self) {
        self.into.named.truncate(self.named_before);
        for name in self.into.names.drain(self.names_before..) {
            self.into.numbers.remove(&name);
        }
    }

    pub(super) fn keep(self, key: UserKey, delete: bool, expires: Option<i64>) {
        let added = self.added_and_removed().0.len();
        let named = &self.into.named[self.named_before..][..added];
        self.into.sample.person(key, named, expires);
        self.into.rows.push(KeptRow {
            hashed: self.into.remix.mix(key),
            segments: Span::new(self.named_before, self.into.named.len()),
            added: added as u32,
            deleted: delete,
            expires: expires.unwrap_or(NEVER),
        });
    }
}
