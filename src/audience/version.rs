//! A version file of any kind, open: for whoever is handed a file and has to see what it holds.

use std::path::Path;
use std::sync::Arc;

use super::format::{HEADER_BYTES, Header};
use super::inspect::SegmentSize;
use super::reader::{Flaw, OpenError, map_file, open_bytes, open_file};
use super::{AudienceFile, Filter, Graph, VersionMeta};
use crate::ids::{KeyId, Kind};

/// An open, verified version.
#[derive(Debug)]
pub enum Version {
    /// Segments of ids, exact: a full version or a delta.
    Audience(Box<AudienceFile>),
    /// One segment, approximate.
    Filter(Arc<Filter>),
    /// Which ids are one person's.
    Graph(Arc<Graph>),
}

impl Version {
    /// Opens a version file of whatever kind, as [`AudienceFile::open`] and [`Filter::open`] do.
    ///
    /// # Errors
    /// Where it cannot be read, is no version file, or is damaged.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        open_file(path, Self::of)
    }

    /// As [`open`](Self::open), but that the file is mapped where it lies, as [`AudienceFile::open_mapped`].
    ///
    /// # Errors
    /// As [`open`](Self::open), and where too many files are mapped.
    pub fn open_mapped(path: &Path) -> Result<Self, OpenError> {
        map_file(path, Self::of)
    }

    /// Opens a version held in memory, which is copied: for tests, fuzzers and tools.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(file: &[u8]) -> Result<Self, OpenError> {
        open_bytes(file, Self::of)
    }

    fn of(header: Header, memory: super::memory::Memory) -> Result<Self, Flaw> {
        match header.meta.kind {
            Kind::Filter => Filter::of(header, memory).map(|f| Self::Filter(Arc::new(f))),
            Kind::Identity => Graph::of(header, memory).map(|g| Self::Graph(Arc::new(g))),
            _ => AudienceFile::of(header, memory).map(|a| Self::Audience(Box::new(a))),
        }
    }

    fn header(&self) -> &Header {
        match self {
            Self::Audience(audience) => audience.header(),
            Self::Filter(filter) => filter.header(),
            Self::Graph(graph) => graph.header(),
        }
    }

    /// What it says of itself.
    pub fn meta(&self) -> &VersionMeta {
        &self.header().meta
    }

    /// The version under whose salt its ids are hashed.
    pub fn root(&self) -> u64 {
        self.header().root()
    }

    /// Of a delta: how many (id, segment) pairs it takes away, those of deleted ids not counted.
    pub(super) fn removed_count(&self) -> u64 {
        self.header().removed()
    }

    /// The public name of the key it was made under.
    pub fn key_id(&self) -> KeyId {
        self.header().key_id
    }

    /// The number of the file's format.
    pub fn format(&self) -> u32 {
        self.header().format()
    }

    /// How many different ids it holds.
    pub fn ids(&self) -> u64 {
        self.header().ids
    }

    /// How many good rows it was built from.
    pub fn rows(&self) -> u64 {
        self.header().rows
    }

    /// How many (id, segment) pairs it holds, those included that have expired; of a graph (id, person) pairs.
    pub fn membership_count(&self) -> u64 {
        self.header().memberships
    }

    /// The file's length.
    pub fn bytes(&self) -> u64 {
        self.header().file_bytes().unwrap_or(0)
    }

    /// Its public salt: where two files have different ones, nothing of an id in one can be found in the other.
    pub(super) fn salt(&self) -> [u8; 16] {
        self.header().salt()
    }

    /// Its segments in the order of names, each with how many ids are in it; a graph has none.
    pub fn segments(&self) -> Vec<SegmentSize> {
        match self {
            Self::Audience(audience) => {
                let sizes = audience.segments().zip(audience.segment_ids());
                let sized = sizes.map(|(name, ids)| SegmentSize {
                    name: name.to_owned(),
                    ids: *ids,
                });
                sized.collect()
            }
            Self::Filter(filter) => vec![SegmentSize {
                name: filter.segment().to_string(),
                ids: filter.ids(),
            }],
            Self::Graph(_) => Vec::new(),
        }
    }

    /// The bytes of each part of the file, in the order of the file.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let header = self.header();
        let sections = header.section_names().iter().zip(&header.sections);
        let lengths = sections.map(|(name, section)| (*name, section.length));
        std::iter::once(("header", HEADER_BYTES as u64)).chain(lengths)
    }
}
