//! What is wrong with a version file, in words for who has to do something about it.

use std::io;

use super::super::filter::FilterFlaw;
use crate::ids::Kind;

/// A version file that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {flaw}")]
pub struct OpenError {
    /// The file.
    pub path: String,
    /// What is wrong with it.
    #[source]
    pub flaw: Flaw,
}

/// What is wrong with a version file.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// The system could not read it.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It does not begin as a version file does.
    #[error("not a Kith version file; make one with `kith build`")]
    NotKith,
    /// A later Kith wrote it.
    #[error(
        "has format {found}, and this Kith reads up to {known}; build it with this Kith or serve it with a newer"
    )]
    NewerFormat {
        /// The file's format.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// It is shorter or longer than when it was written.
    #[error(
        "{found} bytes long, but written with {recorded}; it was cut or added to: transfer or build it again"
    )]
    Length {
        /// What the header says.
        recorded: u64,
        /// What is there.
        found: u64,
    },
    /// A checksum does not match.
    #[error("damaged in its {part}, at or after byte {at}; transfer or build it again")]
    Damaged {
        /// Which part of the file.
        part: &'static str,
        /// Where what the checksum covers begins, in bytes from the start of the file.
        at: u64,
    },
    /// The checksums match, but what they cover is not a version: no Kith wrote it.
    #[error("contradicts itself: {0} cannot be true; build it again")]
    Contradiction(&'static str),
    /// It is of another kind than it was opened as.
    #[error("holds a dataset of kind {found}, not of kind {wanted}")]
    OtherKind {
        /// What it holds.
        found: Kind,
        /// What was asked for.
        wanted: Kind,
    },
    /// The part that is a filter is none.
    #[error("holds a filter that {0}")]
    Filter(FilterFlaw),
    /// A kind of a later milestone.
    #[error("holds a dataset of kind {0}, which this Kith does not read yet")]
    KindNotReadYet(Kind),
    /// A delta where a full version is needed.
    #[error("is a delta, which says only what changes of version {base}; give a full version")]
    OnlyADelta {
        /// The version it changes.
        base: u64,
    },
}
