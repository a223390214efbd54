//! Audiences: which segments an id is in, kept in immutable version files.
//!
//! A segment job's rows go through a [`Builder`] into one `.kith` file; opened and verified it is an [`AudienceFile`], a full
//! version or a delta. An [`Audience`] is a full version and what deltas have changed of it since ([`layered`]), and answers
//! lookups. The two sides share nothing but the format, whose bytes are told field by field in `docs/snapshot-format.md`.
//!
//! A version is of one of three kinds: an audience has segments, exact; a [`Filter`] has one, approximate, in a quarter to three
//! fifths of the bytes; a [`Graph`] says which ids are one person's. A [`Version`] is any of them. What follows is about audiences;
//! [`filter`] and [`graph`] tell of the others.
//!
//! The shape is an arena of bins of one size, a few lines of the cache each: a key is remixed under the file's public salt into
//! a shard, a bin in it and a word of 40 bits ([`shard`]); in the bin stand the words followed by the sets, in a code made for
//! just this version ([`code`]). No pointers, so a file is as good in memory as on disk, and dropping a hundred million people
//! is one `munmap`. Files of the second format, which has buckets behind a directory ([`second`]), and of the first, whose
//! sets are bytes ([`bucket`]), are read beside it.
//!
//! Invariants: an id that was uploaded answers exactly (a shard in which two ids clash is mixed anew); one that was not
//! answers [`Lookup::Absent`] but for at most 2⁻³² of them, 2⁻³⁴ on average; the same rows in any order make the same bytes; no byte is served that was not verified, and none, whatever it holds, makes a
//! lookup panic, loop or allocate.
//!
//! Cost: 6.7 bytes an id, and its set near its entropy (17 bytes in all at 12.6 segments of 2,000, docs/scale.md); one memory
//! load a lookup, for one in five hits and one in ten misses two.

mod bits;
mod bucket;
mod builder;
mod code;
mod diff;
mod filter;
mod format;
mod graph;
mod inspect;
mod layered;
mod memory;
mod reader;
mod remix;
mod rows;
mod sample;
mod second;
mod shard;
mod version;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use crate::clock::Timestamp;
use crate::ids::{Kind, Name};

pub use builder::{BuildError, Builder, HeadLast, IDS_PER_PERSON, IDS_PER_SOURCE, MEMORY_MIN};
pub use diff::{Difference, Resized, SegmentsDiffer, diff};
pub use filter::{
    Errors, FalsePositiveRate, Filter, FilterBuilder, FilterFlaw, FilterProbe, FilterSet, PROBES,
    Shape, ShapeRefused,
};
pub use format::{SEGMENTS_MAX, VERSION_FILE_FORMAT};
pub use graph::{
    Graph, GraphApproach, GraphProbe, IDS_PER_PERSON_MAX, PERSON_SOURCE, Person, SOURCES_MAX,
};
pub use inspect::{
    FilterInspection, GraphInspection, Inspection, SegmentSize, SourceSize, inspect,
};
pub use layered::{Approach, Audience, CompactError, LayerError, Probe};
pub use reader::{AudienceFile, Flaw, OpenError, Pace, SetSizes, SetStatistics, Stated};
pub use rows::{LINE_BYTES_MAX, REJECTED_KEPT_MAX, ReadError, RejectedRow, RowFormat, RowReport};
pub use sample::{PEOPLE_MAX, Seen, SeenPerson, Sources};
pub use version::Version;

/// What a version file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionMeta {
    /// What the dataset holds.
    pub kind: Kind,
    /// The dataset it is a version of.
    pub dataset: Name,
    /// Its number, which only grows within a dataset.
    pub version: u64,
    /// For a delta, the version it changes; `None` for a full version.
    pub base: Option<u64>,
    /// Up to where its input had been read.
    pub as_of: Option<AsOf>,
}

/// Up to where a version's input had been read: it covers what the overlay received before.
///
/// As text an RFC 3339 time, or `seq:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// A receipt time.
    Time(Timestamp),
    /// A position in the journal.
    Position(u64),
}

impl FromStr for AsOf {
    type Err = AsOfRefused;

    fn from_str(text: &str) -> Result<Self, AsOfRefused> {
        let text = text.trim();
        match text.strip_prefix("seq:") {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map(Self::Position).map_err(|_| AsOfRefused)
            }
            Some(_) => Err(AsOfRefused),
            None => text.parse().map(Self::Time).map_err(|_| AsOfRefused),
        }
    }
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => time.fmt(f),
            Self::Position(position) => write!(f, "seq:{position}"),
        }
    }
}

impl serde::Serialize for AsOf {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for AsOf {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse()
            .map_err(|e| serde::de::Error::custom(format!("`{text}`: {e}")))
    }
}

/// The text is not an `as_of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an as_of is a time like 2026-11-01T00:00:00Z, or a journal position like seq:42")]
pub struct AsOfRefused;

/// What a version knows of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The id was uploaded, though perhaps all it was in has expired.
    Found,
    /// The id was not uploaded.
    Absent,
    /// The version's bytes make no sense here: what was reported of this id must be thrown away, the version retired.
    Damaged,
}
