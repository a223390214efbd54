//! What one thread makes of the rows it is given: counts, a sample, and the rows themselves, put where they will be sorted.
//!
//! Nothing is shared but the [`Dictionary`] and the [`Store`], so threads wait for each other only where one has a full
//! chunk or a new name. What they have is put together when all rows are read, and none of it tells who read which.
//!
//! Cost: no allocation for a good row whose segments are known.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::ids::{Keyer, Name, UserKey};

use super::super::remix::Remix;
use super::super::rows::{NotKept, REJECTED_KEPT_MAX, ReadError, Refused, RejectedRow, Says};
use super::super::sample::Sample;
use super::claims::{Claim, Claims, Register};
use super::names::{Cache, Dictionary};
use super::store::{NEVER, Open, Store};

/// From here on numbers are of names that the row is the first to name.
const NEW: u32 = 1 << 16;

/// What all threads read under.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) keyer: Keyer,
    /// What rows say.
    pub(super) says: Says,
    /// Whether all rows must name one and the same segment, and none may expire: they become a filter.
    pub(super) one_list: bool,
    pub(super) remix: Remix,
    pub(super) dictionary: Arc<Dictionary>,
    pub(super) store: Arc<Store>,
    /// Where rows say whose ids are.
    pub(super) register: Arc<Register>,
}

/// All that one thread was given so far.
#[derive(Debug)]
pub(in super::super) struct Collector {
    shared: Shared,
    cache: Cache,
    open: Open,
    claims: Claims,
    /// Why a row could not be kept; what is read after that is lost.
    failed: Option<ReadError>,
    input: u32,
    /// Of the row that is being read.
    number: u64,
    line: Line,
    pub(super) tally: Tally,
}

/// The row being read.
#[derive(Debug, Default)]
struct Line {
    /// What it adds and then what it removes.
    named: Vec<u32>,
    removed_from: Option<usize>,
    new: Vec<Name>,
    new_numbers: HashMap<Name, u32>,
    numbers: Vec<u16>,
}

/// What is known of rows without looking at them again.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) rows: u64,
    pub(super) rejected_rows: u64,
    /// The first of them.
    pub(super) rejected: Vec<RejectedRow>,
    /// How often each segment was named, by its number.
    pub(super) named: Vec<u64>,
    /// The first and the last second at which something expires that ever does.
    pub(super) expiries: Option<(i64, i64)>,
    pub(super) sample: Sample,
}

impl Collector {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            cache: Cache::default(),
            open: Open::default(),
            claims: Claims::new(Arc::clone(&shared.register)),
            failed: None,
            input: 0,
            number: 0,
            line: Line::default(),
            tally: Tally::default(),
            shared,
        }
    }

    pub(in super::super) fn keyer(&self) -> &Keyer {
        &self.shared.keyer
    }

    pub(in super::super) fn says(&self) -> Says {
        self.shared.says
    }

    pub(in super::super) fn is_delta(&self) -> bool {
        self.shared.says == Says::Changes
    }

    pub(in super::super) fn is_one_list(&self) -> bool {
        self.shared.one_list
    }

    /// Whether which segment the list is has still to be found out: it is the first good row's, so that who reads what
    /// makes no difference.
    pub(super) fn has_to_find_the_list(&self) -> bool {
        self.shared.one_list && self.shared.dictionary.names().is_empty()
    }

    /// Good and bad rows so far.
    pub(super) fn rows_seen(&self) -> u64 {
        self.tally.rows + self.tally.rejected_rows
    }

    pub(super) fn begin_input(&mut self, input: u32) {
        self.input = input;
    }

    pub(super) fn failed(&mut self) -> Result<(), ReadError> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Hands over what is left of the rows.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.open.close(&self.shared.store)
    }

    /// The line that is read next.
    pub(in super::super) fn at_line(&mut self, number: u64) {
        self.number = number;
    }

    /// Keeps a good row that says whose an id is.
    pub(in super::super) fn claim(&mut self, source: &str, id: UserKey, person: UserKey) {
        self.tally.rows += 1;
        // What it is in is not asked of it: being there is all.
        self.tally.sample.person(id, &[0], None);
        let kept = self.claims.put(source, id, person, self.input, self.number);
        if let Err(failed) = kept {
            self.failed.get_or_insert(failed);
        }
    }

    /// How many of these it has.
    pub(super) fn claimed(&self) -> u64 {
        self.claims.len()
    }

    pub(super) fn take_claims(&mut self) -> Vec<Claim> {
        self.claims.take()
    }

    /// A thread is given rows in their order, so that its first bad ones are those to keep.
    pub(in super::super) fn reject(&mut self, line: u64, refused: &Refused) {
        self.tally.rejected_rows += 1;
        if self.tally.rejected.len() < REJECTED_KEPT_MAX {
            self.tally.rejected.push(RejectedRow {
                input: self.input,
                line,
                reason: refused.to_string(),
            });
        }
    }

    /// Lines of this input that came to nobody's eyes.
    pub(super) fn reject_these(&mut self, lines: Vec<(u64, Refused)>) {
        let input = self.input;
        self.tally.rejected_rows += lines.len() as u64;
        let rows = lines.into_iter().map(|(line, refused)| RejectedRow {
            input,
            line,
            reason: refused.to_string(),
        });
        self.tally.rejected.extend(rows.take(REJECTED_KEPT_MAX));
        self.tally.keep_first_rejected();
    }

    /// Takes note of a good row's source.
    pub(in super::super) fn source(&mut self, source: &str) {
        self.tally.sample.source(source);
    }

    /// Begins a row; what it names is kept only if it turns out good.
    pub(in super::super) fn draft(&mut self) -> Draft<'_> {
        self.line.named.clear();
        self.line.removed_from = None;
        self.line.new.clear();
        Draft { into: self }
    }
}

/// A row whose segments are being read.
pub(in super::super) struct Draft<'a> {
    into: &'a mut Collector,
}

impl Draft<'_> {
    #[inline]
    pub(in super::super) fn segment(&mut self, text: &str) -> Result<(), NotKept> {
        let number = match self.into.cache.get(text.as_bytes()) {
            Some(number) => number.into(),
            None => self.new_segment(text)?,
        };
        self.into.line.named.push(number);
        Ok(())
    }

    #[cold]
    fn new_segment(&mut self, text: &str) -> Result<u32, NotKept> {
        let name: Name = text.parse().map_err(|_| NotKept::NotAName)?;
        let line = &mut self.into.line;
        if line.new.is_empty() {
            line.new_numbers.clear();
        }
        if let Some(number) = line.new_numbers.get(&name) {
            return Ok(*number);
        }
        let number = NEW + line.new.len() as u32;
        line.new.push(name.clone());
        line.new_numbers.insert(name, number);
        Ok(number)
    }

    /// What is named from here on is removed.
    pub(in super::super) fn removals_follow(&mut self) {
        self.into.line.removed_from = Some(self.into.line.named.len());
    }

    fn added_and_removed(&self) -> (&[u32], &[u32]) {
        let line = &self.into.line;
        line.named
            .split_at(line.removed_from.unwrap_or(line.named.len()))
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.into.line.named.is_empty()
    }

    pub(in super::super) fn adds_nothing(&self) -> bool {
        self.added_and_removed().0.is_empty()
    }

    pub(in super::super) fn adds_and_removes_one(&self) -> bool {
        let (added, removed) = self.added_and_removed();
        if added.is_empty() || removed.is_empty() {
            return false;
        }
        let mut added = added.to_vec();
        added.sort_unstable();
        let is_added = |number| added.binary_search(number).is_ok();
        removed.iter().any(is_added)
    }

    /// Takes the row in, if there is room for the segments that it is the first to name.
    pub(in super::super) fn keep(
        self,
        key: UserKey,
        delete: bool,
        expires: Option<i64>,
    ) -> Result<(), NotKept> {
        let added = self.added_and_removed().0.len();
        let into = self.into;
        let line = &mut into.line;
        let mut new = Vec::new();
        if !line.new.is_empty() {
            let numbers = into.shared.dictionary.numbers(&line.new);
            new = numbers.map_err(|e| match into.shared.one_list {
                true => NotKept::SecondSegment,
                false => NotKept::TooMany(e.0),
            })?;
            for (name, number) in line.new.iter().zip(&new) {
                into.cache.insert(name.as_str().as_bytes(), *number);
            }
        }
        let number = |number: &u32| match number.checked_sub(NEW) {
            None => *number as u16,
            Some(at) => new[at as usize],
        };
        line.numbers.clear();
        line.numbers.extend(line.named.iter().map(number));
        let tally = &mut into.tally;
        for number in &line.numbers {
            let number = usize::from(*number);
            if number >= tally.named.len() {
                tally.named.resize(number + 1, 0);
            }
            tally.named[number] += 1;
        }
        if let Some(at) = expires {
            let (first, last) = tally.expiries.unwrap_or((at, at));
            tally.expiries = Some((first.min(at), last.max(at)));
        }
        tally.rows += 1;
        tally.sample.person(key, &line.numbers[..added], expires);
        let kept = into.open.put(
            &into.shared.store,
            into.shared.remix.mix(key),
            delete,
            expires.unwrap_or(NEVER),
            &line.numbers,
            added,
        );
        if let Err(failed) = kept {
            into.failed.get_or_insert(ReadError::Scratch(failed));
        }
        Ok(())
    }
}

impl Tally {
    /// Adds what another thread has.
    pub(super) fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.rejected_rows += other.rejected_rows;
        self.rejected.extend(other.rejected);
        self.keep_first_rejected();
        if self.named.len() < other.named.len() {
            self.named.resize(other.named.len(), 0);
        }
        for (own, more) in self.named.iter_mut().zip(other.named) {
            *own += more;
        }
        self.expiries = match (self.expiries, other.expiries) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (one, None) | (None, one) => one,
        };
        self.sample.merge(other.sample);
    }

    pub(super) fn keep_first_rejected(&mut self) {
        self.rejected.sort_by_key(|row| (row.input, row.line));
        self.rejected.truncate(REJECTED_KEPT_MAX);
    }
}
