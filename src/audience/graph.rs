//! Identity graphs: which ids are one person's, kept in immutable version files.
//!
//! Asked for an id's key, or for the person's own, a graph answers with the person: her key and the keys of all her ids, each with
//! the name of its source. A person's key is the user key of the source `person` and the person as uploads name her, so it is the same
//! in every version and dataset.
//!
//! Unlike other kinds a graph keeps whole user keys, not remixed fingerprints: what it answers with is looked up in other
//! datasets, under their salts, which takes the key itself. The keys are hashes under the deployment's secret, so the
//! file still names nobody; but two files of one deployment can be joined by them. So a hit is exact: it is held against all 128 bits.
//!
//! Two parts ([`layout`]): groups, one a person, and a table from keys to groups, whose lines are lines of the cache. A miss reads one
//! of these, one time in six two; a hit reads the group too.
//!
//! Invariants: what was uploaded and not refused is found, and nothing else; the same rows in any order make the same bytes; no byte
//! is served that was not verified, and none, whatever it holds, makes a lookup panic, search on without end or allocate.
//!
//! Cost: 44 bytes an id where a person has three: 27 of group, 17 of table.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub(super) mod layout;
mod verify;

use std::fmt;
use std::ops::Range;
use std::path::Path;

use super::VersionMeta;
use super::format::{Body, Header};
use super::memory::{self, Memory};
use super::reader::{Flaw, OpenError, open_bytes, open_file, settled, verify as frame};
use crate::ids::{KeyId, Kind, UserKey};

use layout::{Entry, Group, LINE, STEPS_MAX, Source, home, spread};
pub use layout::{IDS_PER_PERSON_MAX, PERSON_SOURCE, SOURCES_MAX};

/// An open, verified version of an identity dataset. Immutable, `Send` and `Sync`.
pub struct Graph {
    header: Header,
    memory: Memory,
    /// Where in the memory the groups are, and the table.
    groups: Range<usize>,
    table: Range<usize>,
    /// Lines of the table that keys are at home in.
    homes: u64,
    /// How many persons it has.
    persons: u64,
    /// Sorted by name; ids have their place.
    sources: Box<[Source]>,
}

/// A lookup after its first step: a key, and where in the table it is at home.
#[derive(Debug, Clone, Copy)]
pub struct GraphProbe {
    key: UserKey,
    /// Where its home begins among the table's bytes.
    at: usize,
}

/// A lookup after its second step.
#[derive(Debug, Clone, Copy)]
pub struct GraphApproach {
    probe: GraphProbe,
    /// Where among the groups it may be.
    group: Option<usize>,
}

impl GraphApproach {
    /// Whether it is known already that the key is nobody's.
    #[inline]
    pub fn is_nobodys(&self) -> bool {
        self.group.is_none()
    }
}

/// A person: her key and her ids.
#[derive(Clone, Copy)]
pub struct Person<'g> {
    graph: &'g Graph,
    group: Group<'g>,
}

impl Graph {
    /// Opens a version file: reads it whole into memory and verifies every byte and every claim, each key by looking it
    /// up. The file may be changed or deleted afterwards.
    ///
    /// # Errors
    /// Where it cannot be read, is no version file, is damaged, or holds no identity graph.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        open_file(path, Self::of)
    }

    /// Opens a version held in memory, which is copied: for tests, fuzzers and tools.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(file: &[u8]) -> Result<Self, OpenError> {
        open_bytes(file, Self::of)
    }

    /// The graph in a file all of whose bytes are known to be as they were written.
    pub(super) fn of(header: Header, memory: Memory) -> Result<Self, Flaw> {
        let Body::Graph { homes, persons } = header.body else {
            return Err(Flaw::OtherKind {
                found: header.meta.kind,
                wanted: Kind::Identity,
            });
        };
        let places = frame::ranges(&header)?;
        let [groups, table, sources, _] = places.as_slice() else {
            return Err(Flaw::Contradiction("the section table"));
        };
        let names = memory.get(sources.clone()).unwrap_or_default();
        let graph = Self {
            sources: verify::sources(names)?,
            groups: groups.clone(),
            table: table.clone(),
            homes,
            persons,
            memory,
            header,
        };
        verify::groups(&graph)?;
        match graph.memory.is_whole() {
            true => Ok(graph),
            false => Err(frame::was_cut()),
        }
    }

    /// What the version says of itself.
    pub fn meta(&self) -> &VersionMeta {
        &self.header.meta
    }

    /// The public name of the key it was made under. Under another key every lookup would miss: compare before use.
    pub fn key_id(&self) -> KeyId {
        self.header.key_id
    }

    /// How many different ids it holds, persons' own keys not counted.
    pub fn ids(&self) -> u64 {
        self.header.ids
    }

    /// How many good rows it was built from.
    pub fn rows(&self) -> u64 {
        self.header.rows
    }

    /// How many persons it holds.
    pub fn persons(&self) -> u64 {
        self.persons
    }

    /// The sources of its ids in normal form, in the order of names, each with how many ids are from it.
    pub fn sources(&self) -> impl ExactSizeIterator<Item = (&str, u64)> {
        self.sources
            .iter()
            .map(|source| (&*source.name, source.ids))
    }

    /// The file's length, which is also what it occupies in memory.
    pub fn bytes(&self) -> u64 {
        self.header.file_bytes().unwrap_or(0)
    }

    /// The same version in memory of its own, as [`AudienceFile::settled`](super::AudienceFile::settled).
    ///
    /// # Errors
    /// Where its mapped file could not be read or has changed, or there is no memory.
    pub fn settled(&self) -> Result<Self, OpenError> {
        settled(&self.memory, Self::of)
    }

    /// Whether it is read where it lies on disk.
    pub fn is_mapped(&self) -> bool {
        self.memory.is_mapped()
    }

    /// Whether all of it could be read so far: else it is lost, and nobody is found in it any more.
    pub fn is_whole(&self) -> bool {
        self.memory.is_whole()
    }

    /// The file's bytes, as they are held.
    pub(super) fn held(&self) -> &[u8] {
        &self.memory
    }

    /// All the file's header says.
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Whose key this is: both steps of a lookup.
    pub fn person(&self, key: UserKey) -> Option<Person<'_>> {
        self.person_at(self.approach(self.probe(key)))
    }

    /// The first of a lookup's three steps: starts fetching the key's line of the table and returns at once. Take all keys of a
    /// request through it before the [second](Self::approach), and their loads overlap.
    #[inline]
    pub fn probe(&self, key: UserKey) -> GraphProbe {
        let line = usize::try_from(home(spread(key.0), self.homes)).unwrap_or(usize::MAX);
        let at = line.saturating_mul(LINE);
        memory::prefetch(&self.memory, self.table.start.saturating_add(at));
        GraphProbe { key, at }
    }

    /// The second step: starts fetching the group that the key may be in.
    #[inline]
    pub fn approach(&self, probe: GraphProbe) -> GraphApproach {
        let group = self.first_entry(probe).and_then(Entry::at);
        if let Some(at) = group {
            let at = self.groups.start.saturating_add(at);
            memory::prefetch(&self.memory, at);
            memory::prefetch(&self.memory, at.saturating_add(LINE));
        }
        GraphApproach { probe, group }
    }

    /// The third step: the person whose id has the key, or whose own it is. `None` where nobody's is known to be it, where the
    /// probe is another graph's, and where a mapped file could not be read.
    #[inline]
    pub fn person_at(&self, approach: GraphApproach) -> Option<Person<'_>> {
        let GraphApproach { probe, group } = approach;
        let first = self.group(group?).filter(|group| group.has(probe.key));
        // Two keys in 2^31 have the same of them in the table.
        let group = first.or_else(|| Some(self.find(probe)?.1))?;
        let person = Person { graph: self, group };
        // What could not be read was read as zeros.
        self.memory.is_whole().then_some(person)
    }

    /// Where a person is who was just found there: her own key's second step.
    #[inline]
    pub fn toward(&self, found: GraphApproach, person: Person<'_>) -> GraphApproach {
        GraphApproach {
            probe: self.probe(person.key()),
            group: found.group,
        }
    }

    /// The first entry that may be a key's: as `entries` finds it, with fewer instructions, for nearly all keys are in none.
    #[inline]
    fn first_entry(&self, probe: GraphProbe) -> Option<Entry> {
        let lines = self.table_bytes().get(probe.at..)?;
        let (lines, _) = lines.as_chunks::<LINE>();
        for line in lines.iter().take(STEPS_MAX) {
            let (slots, _) = line.as_chunks();
            for slot in slots {
                let entry = Entry::read(*slot);
                if entry.is_of(probe.key.0) {
                    // One that is empty is of no key, whatever the key is.
                    return Some(entry).filter(|entry| !entry.is_empty());
                }
                if entry.is_empty() {
                    return None;
                }
            }
        }
        None
    }

    /// The entries from a key's home on, up to the first that is empty.
    #[inline]
    fn entries(&self, probe: GraphProbe) -> impl Iterator<Item = Entry> {
        let lines = self.table_bytes().get(probe.at..).unwrap_or_default();
        let (lines, _) = lines.as_chunks::<LINE>();
        let slots = lines.iter().take(STEPS_MAX).flat_map(|line| {
            let (slots, _) = line.as_chunks();
            slots.iter().map(|slot| Entry::read(*slot))
        });
        slots.take_while(|entry| !entry.is_empty())
    }

    /// A key's group, and where among the groups it begins.
    fn find(&self, probe: GraphProbe) -> Option<(usize, Group<'_>)> {
        let mut own = self.entries(probe).filter(|of| of.is_of(probe.key.0));
        own.find_map(|entry| {
            let at = entry.at()?;
            let group = self.group(at)?;
            group.has(probe.key).then_some((at, group))
        })
    }

    /// The group that begins at this byte of the groups.
    #[inline]
    fn group(&self, at: usize) -> Option<Group<'_>> {
        Group::read(self.group_bytes().get(at..)?)
    }

    fn group_bytes(&self) -> &[u8] {
        self.memory.get(self.groups.clone()).unwrap_or_default()
    }

    #[inline]
    fn table_bytes(&self) -> &[u8] {
        self.memory.get(self.table.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("meta", &self.header.meta)
            .field("ids", &self.header.ids)
            .field("persons", &self.persons)
            .finish_non_exhaustive()
    }
}

impl<'g> Person<'g> {
    /// Her own key: the user key of the source [`person`](PERSON_SOURCE) and what uploads name her by.
    pub fn key(self) -> UserKey {
        self.group.person
    }

    /// Her ids, 1 to [`IDS_PER_PERSON_MAX`], ascending by key, each with the name of its source. Of a mapped file that breaks
    /// meanwhile those before.
    pub fn ids(self) -> impl Iterator<Item = (UserKey, &'g str)> {
        let graph = self.graph;
        self.group.ids().map_while(move |(key, source)| {
            let source = graph.sources.get(usize::from(source))?;
            // After the key was read, so that zeros in its place are not believed.
            graph.memory.is_whole().then_some((key, &*source.name))
        })
    }
}

impl fmt::Debug for Person<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Person").finish_non_exhaustive()
    }
}
