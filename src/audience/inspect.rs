//! What a version file holds, for people and scripts: the answer of `kith inspect --json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::ids::{Kind, Name};

use super::{AsOf, Graph, OpenError, SetStatistics, Version};

/// Most segments listed by size.
const LARGEST_LISTED: usize = 10;

/// A verified version file, described.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// The dataset it is a version of.
    pub dataset: Name,
    /// What the dataset holds.
    pub kind: Kind,
    /// Its number.
    pub version: u64,
    /// Of a delta, the version it changes; `ids` and `memberships` are then those that it names and adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
    /// The version under whose salt its ids are hashed, where it is not its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<u64>,
    /// Of a delta, (id, segment) pairs that it takes away, those of deleted ids not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed: Option<u64>,
    /// The file format's number.
    pub format: u32,
    /// Up to where its input had been read; null where nobody said.
    pub as_of: Option<AsOf>,
    /// The public name of the key it was made under, 16 hex digits.
    pub key_id: String,
    /// Different ids.
    pub ids: u64,
    /// Good rows it was built from.
    pub rows: u64,
    /// Segments.
    pub segments: u64,
    /// (id, segment) pairs, expired ones included; of an identity graph (id, person) pairs, as many as ids.
    pub memberships: u64,
    /// The ten largest segments, largest first.
    pub largest_segments: Vec<SegmentSize>,
    /// The file's length.
    pub bytes: u64,
    /// That length over the ids.
    pub bytes_per_id: f64,
    /// The length of each part of the file.
    pub parts: BTreeMap<&'static str, u64>,
    /// Of an audience, where all of it was looked at: what its sets are like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sets: Option<SetStatistics>,
    /// Of a filter: how good it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<FilterInspection>,
    /// Of an identity graph: whose ids there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<GraphInspection>,
    /// Always true: a file that does not verify is an error, not an inspection.
    pub verified: bool,
}

/// A segment and how many ids are in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentSize {
    /// Its name within the dataset.
    pub name: String,
    /// Ids in it, expired memberships included.
    pub ids: u64,
}

/// What an inspection tells of a filter alone.
#[derive(Debug, Clone, Serialize)]
pub struct FilterInspection {
    /// The largest share of ids not in it that it should say are in, as its file declares.
    pub declared_rate: f64,
    /// That share as its bits make it.
    pub expected_rate: f64,
    /// How many ids it seems to hold, by how many bits are set.
    pub estimated_ids: u64,
}

/// What an inspection tells of an identity graph alone.
#[derive(Debug, Clone, Serialize)]
pub struct GraphInspection {
    /// How many persons it has.
    pub persons: u64,
    /// Ids a person, on average.
    pub ids_per_person: f64,
    /// The ten sources with most ids, the largest first.
    pub largest_sources: Vec<SourceSize>,
}

/// A source and how many ids are from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceSize {
    /// The source in normal form.
    pub source: String,
    /// Ids from it.
    pub ids: u64,
}

impl GraphInspection {
    fn of(graph: &Graph) -> Self {
        let sized = graph.sources().map(|(source, ids)| SourceSize {
            source: source.to_owned(),
            ids,
        });
        let mut largest: Vec<SourceSize> = sized.collect();
        largest.sort_by(|a, b| b.ids.cmp(&a.ids).then_with(|| a.source.cmp(&b.source)));
        largest.truncate(LARGEST_LISTED);
        Self {
            persons: graph.persons(),
            ids_per_person: graph.ids() as f64 / graph.persons() as f64,
            largest_sources: largest,
        }
    }
}

impl Inspection {
    /// Of a version that is open. An audience's sets are not looked at.
    pub(super) fn of(version: &Version) -> Self {
        let mut largest = version.segments();
        let segments = largest.len() as u64;
        largest.sort_by(|a, b| b.ids.cmp(&a.ids).then_with(|| a.name.cmp(&b.name)));
        largest.truncate(LARGEST_LISTED);
        let meta = version.meta();
        Self {
            dataset: meta.dataset.clone(),
            kind: meta.kind,
            version: meta.version,
            base: meta.base,
            root: Some(version.root()).filter(|root| *root != meta.version),
            removed: meta.base.map(|_| version.removed_count()),
            format: version.format(),
            as_of: meta.as_of,
            key_id: version.key_id().to_string(),
            ids: version.ids(),
            rows: version.rows(),
            segments,
            memberships: version.membership_count(),
            largest_segments: largest,
            bytes: version.bytes(),
            bytes_per_id: version.bytes() as f64 / version.ids() as f64,
            parts: version.parts().collect(),
            sets: None,
            filter: match version {
                Version::Audience(_) | Version::Graph(_) => None,
                Version::Filter(filter) => Some(FilterInspection {
                    declared_rate: filter.set().shape().rate().share(),
                    expected_rate: filter.set().expected_rate(),
                    estimated_ids: filter.set().estimated_ids().round() as u64,
                }),
            },
            graph: match version {
                Version::Graph(graph) => Some(GraphInspection::of(graph)),
                Version::Audience(_) | Version::Filter(_) => None,
            },
            verified: true,
        }
    }
}

/// Opens a version file, which verifies every byte, and describes it.
pub fn inspect(path: &Path) -> Result<Inspection, OpenError> {
    let version = Version::open(path)?;
    let sets = match &version {
        Version::Audience(audience) => Some(audience.set_statistics()),
        Version::Filter(_) | Version::Graph(_) => None,
    };
    Ok(Inspection {
        sets,
        ..Inspection::of(&version)
    })
}
