//! Rows as jobs send them, of segments and of whose ids are: CSV, NDJSON, or one id a line.
//!
//! All three are read line by line, so a line that makes no sense costs that line and never the rest: it is counted,
//! and of the first hundred the line and a reason are kept, in words that tell the job's owner what to change. A reason
//! names the field and what is expected there, and never quotes what was: where columns are swapped, an id stands in any of them. Since neither ids nor names hold line breaks, a quoted CSV field that
//! spans lines is a bad row, and a forgotten quote cannot swallow the file.
//!
//! Cost: docs/scale.md; no allocation for a good row of CSV or text.

mod csv;
mod lines;
mod ndjson;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead};

use serde::Serialize;

use crate::ids::{IdRefused, Name, SegmentRef, trimmed};

use super::builder::{Collector, Draft};
use super::graph::{PERSON_SOURCE, SOURCES_MAX};

pub use lines::LINE_BYTES_MAX;
pub(super) use lines::{BLOCK_BYTES, Block, Blocks};

/// How many bad rows are kept with their reason; all are counted.
pub const REJECTED_KEPT_MAX: usize = 100;

/// How rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowFormat {
    /// RFC 4180 with a header: `source,id,segments[,expires]` in any order, segments split by `|`; of a delta
    /// `source,id,add,remove[,expires][,delete]`; of an identity graph `source,id,person`.
    Csv,
    /// One JSON object a line: `{"source","id","segments":[…],"expires":…}`; of a delta with `add`, `remove` and
    /// `delete` in place of `segments`, of an identity graph with `person`.
    Ndjson,
    /// One id a line; all of one source, all in one segment. A delta adds them to it; an identity graph has none.
    Text {
        /// The source of every id.
        source: String,
        /// The segment every id is in.
        segment: Name,
    },
}

/// What came of the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RowReport {
    /// Good rows.
    pub rows: u64,
    /// Different ids in them.
    pub ids: u64,
    /// Segments they name.
    pub segments: u64,
    /// Good rows whose id another row had already: their segments were merged, or they said the same. `rows - ids`.
    pub merged: u64,
    /// Bad rows.
    pub rejected_rows: u64,
    /// The first [`REJECTED_KEPT_MAX`] of them.
    pub rejected: Vec<RejectedRow>,
}

/// A bad row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectedRow {
    /// Which input, counted from 0; left out of reports for the first, which is usually the only one.
    #[serde(skip_serializing_if = "is_first")]
    pub input: u32,
    /// Its line there, counted from 1, the header and blank lines included.
    pub line: u64,
    /// What is wrong and what to do.
    pub reason: String,
}

fn is_first(input: &u32) -> bool {
    *input == 0
}

/// Why reading rows stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The input failed, or whoever feeds it gave up.
    #[error("the rows could not be read: {0}")]
    Io(#[from] io::Error),
    /// What exceeds the memory for building could not be put on disk.
    #[error("no room on disk for rows that are to be sorted: {0}")]
    Scratch(io::Error),
    /// A CSV does not begin with a header that says where to find what.
    #[error("no readable CSV header: {problem}; expected is {expected}, in any order")]
    NoHeader {
        /// The columns that rows of this version have.
        expected: &'static str,
        /// What is wrong with it. Without a header the first line is a row, so it is quoted only where it is surely one.
        problem: String,
    },
    /// One id a line, where rows are to say whose they are.
    #[error(
        "one id a line does not say whose it is; rows of an identity dataset are CSV or NDJSON with source, id and person"
    )]
    NoPersons,
    /// More rows of an identity graph than fit into the memory for building.
    #[error(
        "more than {rows_max} rows, {row_bytes} bytes of memory each, do not fit into the {bytes_max} bytes for building; raise limits.build_memory_bytes (of `kith build`: --memory)"
    )]
    TooManyRows {
        /// How many do.
        rows_max: u64,
        /// What each takes.
        row_bytes: u64,
        /// The memory there is.
        bytes_max: u64,
    },
    /// More sources than an identity graph may have.
    #[error(
        "more than {SOURCES_MAX} different sources; check that the column source holds where ids are from, such as ifa or uidapi.com, and not the ids"
    )]
    TooManySources,
}

/// What rows say of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// Which segments each is in.
    Segments,
    /// What changes of that.
    Changes,
    /// Whose each is.
    Persons,
}

/// Why a row is bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    Id(IdRefused),
    NoSegments,
    SegmentNotAName,
    SegmentWithDataset,
    TooManySegments(usize),
    SecondSegment,
    Expires,
    ExpiresInFilter,
    TooLong,
    NotUtf8,
    Fields { found: usize, expected: usize },
    OpenQuote,
    StrayQuote,
    NotJson { column: usize },
    Shape { what: Shape, row: &'static str },
    NothingChanged,
    AddedAndRemoved,
    ExpiresNothing,
    Delete,
    SegmentsInDelta,
    ChangesInFull,
    Person(IdRefused),
    PersonAsSource,
    SecondPerson,
    TooManyIds(usize),
    TooManyOfSource(usize),
    NotOfPersons,
    PersonInSegments,
}

/// What is wrong with the members of an NDJSON row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Unknown { column: usize },
    Missing(&'static str),
    Twice { column: usize },
    WrongType { column: usize },
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { column } => write!(f, "unknown field at column {column}"),
            Self::Missing(field) => write!(f, "missing field `{field}`"),
            Self::Twice { column } => write!(f, "a field a second time at column {column}"),
            Self::WrongType { column } => {
                write!(f, "a value at column {column} has the wrong type")
            }
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(refused) | Self::Person(refused) => {
                let advice = match refused {
                    IdRefused::Empty | IdRefused::AllZero | IdRefused::Placeholder => {
                        "leave such rows out, they would be everyone who withholds an id"
                    }
                    IdRefused::TooLong => "check that the column holds the id",
                    IdRefused::ControlCharacter => "take it out",
                    IdRefused::NoSource => "name where the id is from, such as ifa or uidapi.com",
                    IdRefused::SourceTooLong | IdRefused::SourceMalformed => {
                        "a source is a short word or a domain, such as ifa or uidapi.com"
                    }
                };
                let whose = match self {
                    Self::Person(_) => "in the field person, whose text is kept to the rules of an id, ",
                    _ => "",
                };
                write!(f, "{whose}{refused}; {advice}")
            }
            Self::NoSegments => f.write_str(
                "names no segment; leave the row out, an id absent from a full version is in none",
            ),
            Self::SegmentWithDataset => f.write_str(
                "a segment carries its dataset's name; within the dataset write only what follows the /",
            ),
            Self::SegmentNotAName => f.write_str(
                "a segment is not a name; use 1 to 64 of a-z A-Z 0-9 . _ - and check that the column holds segments",
            ),
            Self::TooManySegments(most) => write!(
                f,
                "more than {most} segments in one dataset; spread them over several datasets"
            ),
            Self::Expires => f.write_str(
                "expires is not a time; write RFC 3339 with an offset, like 2026-11-01T00:00:00Z, or leave it empty",
            ),
            Self::SecondSegment => f.write_str(
                "names a second segment, and a filter is one list; upload each segment to a dataset of its own, or use kind audience",
            ),
            Self::ExpiresInFilter => f.write_str(
                "has an expiry, and an id cannot be taken out of a filter when its time comes; leave expires empty and upload the list again without it, or use kind audience",
            ),
            Self::TooLong => write!(
                f,
                "longer than {LINE_BYTES_MAX} bytes; split the row, an id's rows are merged"
            ),
            Self::NotUtf8 => f.write_str("not UTF-8; export the file as UTF-8"),
            Self::Fields { found, expected } => write!(
                f,
                "{found} fields where the header has {expected}; quote a field that holds a comma"
            ),
            Self::OpenQuote => f.write_str(
                "a quoted field does not end on its line; close it, fields cannot hold line breaks",
            ),
            Self::StrayQuote => f.write_str(
                "a quote inside a field; quote the whole field and double the quotes in it",
            ),
            Self::NotJson { column } => write!(
                f,
                "not JSON at column {column}; write one complete object a line"
            ),
            Self::Shape { what, row } => write!(f, "{what}; a row is {row}"),
            Self::NothingChanged => f.write_str(
                "changes nothing; name segments in add or remove, or say delete, or leave the row out",
            ),
            Self::AddedAndRemoved => f.write_str(
                "a segment stands in both add and remove; leave it out of one of them",
            ),
            Self::ExpiresNothing => {
                f.write_str("expires where nothing is added; it is when what the row adds is over")
            }
            Self::Delete => f.write_str("delete is neither true nor false; leave it empty, or out"),
            Self::SegmentsInDelta => f.write_str(SEGMENTS_IN_DELTA),
            Self::ChangesInFull => f.write_str(CHANGES_IN_FULL),
            Self::PersonAsSource => f.write_str(
                "the source is person, and a person is nobody's id; put where the id is from in source, and whose it is in person",
            ),
            Self::SecondPerson => f.write_str(
                "two or more persons claim the id, so it is nobody's; leave out the rows that are wrong, or all of an id that is shared",
            ),
            Self::TooManyIds(most) => write!(
                f,
                "the person has more than {most} ids, which is limits.ids_per_person, and this is one of those left out; look whether it is one person, or raise it"
            ),
            Self::TooManyOfSource(most) => write!(
                f,
                "the person has more than {most} ids of this source, which is limits.ids_per_source, and this is one of those left out; look whether it is one person, or raise it"
            ),
            Self::NotOfPersons => f.write_str(NOT_OF_PERSONS),
            Self::PersonInSegments => f.write_str(PERSON_IN_SEGMENTS),
        }
    }
}

/// Said of a header and of a row.
const SEGMENTS_IN_DELTA: &str =
    "segments are of a full version; a row of a delta names them in add or remove";
const CHANGES_IN_FULL: &str = "add, remove and delete are of a delta: upload it with mode=delta and its base, or build it with --base; \
     a row of a full version names its segments in segments";

const NOT_OF_PERSONS: &str = "segments, and what changes of them, are of an audience; a row of an identity dataset has source, id and person";
const PERSON_IN_SEGMENTS: &str = "person is of an identity dataset: upload it with kind=identity, or build it with --kind identity; \
     or leave person out";

/// A row taken apart, not yet checked.
struct Row<'a, A, R> {
    source: &'a str,
    id: &'a str,
    /// What the id is to be in.
    add: A,
    /// Of a delta: what it is to be in no longer.
    remove: R,
    /// Of a delta: whether all that is known of it goes.
    delete: bool,
    expires: Option<&'a str>,
}

/// How the rows of one input are written, once its header is known.
pub(super) enum Dialect<'a> {
    Csv(csv::Columns),
    Ndjson,
    Text { source: &'a str, segment: &'a Name },
}

impl<'a> Dialect<'a> {
    /// Begins an input; with the first block of rows.
    pub(super) fn begin(
        format: &'a RowFormat,
        says: Says,
        blocks: &mut Blocks<impl BufRead>,
    ) -> Result<(Self, Block), ReadError> {
        let mut block = blocks.next(Vec::new())?;
        let dialect = match format {
            RowFormat::Csv => {
                while let Some(blank) = block.take_if(|block| block.lines().next().is_none()) {
                    block = blocks.next(blank.emptied())?;
                }
                let mut lines = block.as_ref().map(Block::lines);
                let line = match blocks.refused() {
                    Some(refused) => Some(Err(refused)),
                    None => lines.as_mut().and_then(|lines| Some(lines.next()?.1)),
                };
                let columns = csv::header(line, says)?;
                let taken = lines.map(|lines| lines.taken());
                if let (Some(block), Some(taken)) = (&mut block, taken) {
                    block.begin_at(taken);
                }
                Self::Csv(columns)
            }
            RowFormat::Ndjson => Self::Ndjson,
            RowFormat::Text { .. } if says == Says::Persons => return Err(ReadError::NoPersons),
            RowFormat::Text { source, segment } => Self::Text { source, segment },
        };
        Ok((dialect, block.unwrap_or_default()))
    }

    /// Takes in all rows of a block.
    pub(super) fn take_all(&self, into: &mut Collector, block: &Block) {
        let mut lines = block.lines();
        while let Some((number, line)) = lines.next() {
            into.at_line(number);
            let taken = line.and_then(|line| match self {
                Self::Csv(columns) => columns.take(into, line),
                Self::Ndjson => ndjson::take(into, line),
                Self::Text { source, segment } => into.add(Row {
                    source,
                    id: line,
                    add: std::iter::once(segment.as_str()),
                    remove: std::iter::empty(),
                    delete: false,
                    expires: None,
                }),
            });
            if let Err(refused) = taken {
                into.reject(number, &refused);
            }
        }
    }
}

impl Collector {
    /// Checks a row and keeps it, or keeps nothing of it.
    fn add<'a>(
        &mut self,
        row: Row<'a, impl Iterator<Item = &'a str>, impl Iterator<Item = &'a str>>,
    ) -> Result<(), Refused> {
        let key = self
            .keyer()
            .user_key(row.source, row.id)
            .map_err(Refused::Id)?;
        let expires = match row.expires.map(str::trim) {
            None | Some("") => None,
            Some(text) => match text.parse::<crate::clock::Timestamp>() {
                Ok(time) => Some(time.unix_seconds()),
                Err(_) => return Err(Refused::Expires),
            },
        };
        if self.is_one_list() && expires.is_some() {
            return Err(Refused::ExpiresInFilter);
        }
        let delta = self.is_delta();
        let mut draft = self.draft();
        let taken = draft.take(row.add, row.remove);
        let checked = taken.and_then(|()| match delta {
            false if draft.is_empty() => Err(Refused::NoSegments),
            true if draft.is_empty() && !row.delete => Err(Refused::NothingChanged),
            true if draft.adds_nothing() && expires.is_some() => Err(Refused::ExpiresNothing),
            true if draft.adds_and_removes_one() => Err(Refused::AddedAndRemoved),
            _ => Ok(()),
        });
        checked?;
        draft
            .keep(key, row.delete, expires)
            .map_err(|e| e.told(""))?;
        self.source(row.source);
        Ok(())
    }

    /// Checks a row that says whose an id is, and keeps it.
    fn add_claim(&mut self, source: &str, id: &str, person: &str) -> Result<(), Refused> {
        let key = self.keyer().user_key(source, id).map_err(Refused::Id)?;
        if trimmed(source).eq_ignore_ascii_case(PERSON_SOURCE) {
            return Err(Refused::PersonAsSource);
        }
        let person = self.keyer().user_key(PERSON_SOURCE, person);
        let person = person.map_err(Refused::Person)?;
        self.claim(source, key, person);
        self.source(source);
        Ok(())
    }
}

impl Draft<'_> {
    fn take<'a>(
        &mut self,
        add: impl Iterator<Item = &'a str>,
        remove: impl Iterator<Item = &'a str>,
    ) -> Result<(), Refused> {
        let names = |text: &'a str| Some(trimmed(text)).filter(|name| !name.is_empty());
        for name in add.filter_map(names) {
            self.segment(name).map_err(|e| e.told(name))?;
        }
        self.removals_follow();
        for name in remove.filter_map(names) {
            self.segment(name).map_err(|e| e.told(name))?;
        }
        Ok(())
    }
}

/// Why a segment of a row was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotKept {
    NotAName,
    /// More than so many different ones.
    TooMany(usize),
    /// Another one than the first row's, where there may be only one.
    SecondSegment,
}

impl NotKept {
    fn told(self, name: &str) -> Refused {
        match self {
            Self::NotAName if name.parse::<SegmentRef>().is_ok() => Refused::SegmentWithDataset,
            Self::NotAName => Refused::SegmentNotAName,
            Self::TooMany(most) => Refused::TooManySegments(most),
            Self::SecondSegment => Refused::SecondSegment,
        }
    }
}

/// A field without its quotes.
type Field<'a> = Cow<'a, str>;
