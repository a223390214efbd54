//! Rows of an identity upload, kept in memory until all are read: whose each id is said to be.
//!
//! Whether a row is good shows only when all are known (an id that two persons claim is nobody's), so rows are kept with their lines and
//! judged at the end (`graph`). Each thread keeps its own.
//!
//! Cost: [`ROW_BYTES`] a row, of which 48 while rows are read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::graph::SOURCES_MAX;
use super::super::rows::ReadError;
use crate::ids::{UserKey, trimmed};

/// What a row takes at most: itself, and 16 bytes each for the entries of its id and of its person in the table.
pub(super) const ROW_BYTES: u64 = size_of::<Claim>() as u64 + 2 * 16;
/// Rows after which a thread looks how many there are in all.
const COUNTED: usize = 4096;

/// A row that says whose an id is. In the order of persons, then of ids, then of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) person: u128,
    pub(super) id: u128,
    pub(super) input: u32,
    /// The number of its source among the [`Register`]'s.
    pub(super) source: u16,
    pub(super) line: u64,
}

/// What all threads know.
#[derive(Debug)]
pub(super) struct Register {
    /// Sources by name, numbered as they came.
    sources: Mutex<HashMap<Box<str>, u16>>,
    /// Whole [`COUNTED`]s of rows.
    rows: AtomicU64,
    bytes_max: u64,
}

impl Register {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            sources: Mutex::default(),
            rows: AtomicU64::new(0),
            bytes_max,
        }
    }

    /// Whether so many rows fit into the memory there is.
    pub(super) fn room_for(&self, rows: u64) -> Result<(), ReadError> {
        let rows_max = self.bytes_max / ROW_BYTES;
        match rows <= rows_max {
            true => Ok(()),
            false => Err(ReadError::TooManyRows {
                rows_max,
                row_bytes: ROW_BYTES,
                bytes_max: self.bytes_max,
            }),
        }
    }

    fn number(&self, source: &str) -> Result<u16, ReadError> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = sources.get(source) {
            return Ok(*number);
        }
        let number = u16::try_from(sources.len()).ok();
        let number = number.filter(|number| usize::from(*number) < SOURCES_MAX);
        let number = number.ok_or(ReadError::TooManySources)?;
        sources.insert(source.into(), number);
        Ok(number)
    }

    /// The sources by their numbers.
    pub(super) fn sources(&self) -> Vec<Box<str>> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named: Vec<_> = sources.iter().map(|(name, n)| (*n, name.clone())).collect();
        named.sort_unstable();
        named.into_iter().map(|(_, name)| name).collect()
    }
}

/// What one thread was given.
#[derive(Debug)]
pub(super) struct Claims {
    register: Arc<Register>,
    rows: Vec<Claim>,
    /// The sources that it has come upon, as rows write them.
    known: HashMap<Box<str>, u16>,
    last: Option<(Box<str>, u16)>,
}

impl Claims {
    pub(super) fn new(register: Arc<Register>) -> Self {
        Self {
            register,
            rows: Vec::new(),
            known: HashMap::new(),
            last: None,
        }
    }

    /// Keeps a row.
    ///
    /// # Errors
    /// Where there is no room for more, or no number for its source.
    pub(super) fn put(
        &mut self,
        source: &str,
        id: UserKey,
        person: UserKey,
        input: u32,
        line: u64,
    ) -> Result<(), ReadError> {
        let source = self.source(source)?;
        self.rows.push(Claim {
            person: person.0,
            id: id.0,
            input,
            source,
            line,
        });
        if self.rows.len().is_multiple_of(COUNTED) {
            let more = COUNTED as u64;
            let before = self.register.rows.fetch_add(more, Ordering::Relaxed);
            self.register.room_for(before.saturating_add(more))?;
        }
        Ok(())
    }

    fn source(&mut self, text: &str) -> Result<u16, ReadError> {
        // Rows of one source mostly come together.
        if let Some((_, number)) = self.last.as_ref().filter(|(last, _)| **last == *text) {
            return Ok(*number);
        }
        let number = match self.known.get(text) {
            Some(number) => *number,
            None => {
                let number = self.register.number(&trimmed(text).to_ascii_lowercase())?;
                // However often one source is spelled anew, what is remembered of that is bounded.
                if self.known.len() < SOURCES_MAX {
                    self.known.insert(text.into(), number);
                }
                number
            }
        };
        self.last = Some((text.into(), number));
        Ok(number)
    }

    pub(super) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    pub(super) fn take(&mut self) -> Vec<Claim> {
        std::mem::take(&mut self.rows)
    }
}
