//! What a version file holds, for people and scripts: the answer of `kith inspect --json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::ids::{Kind, Name};

use super::{AsOf, OpenError, Version};

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
    /// (id, segment) pairs, expired ones included.
    pub memberships: u64,
    /// The ten largest segments, largest first.
    pub largest_segments: Vec<SegmentSize>,
    /// The file's length.
    pub bytes: u64,
    /// That length over the ids.
    pub bytes_per_id: f64,
    /// The length of each part of the file.
    pub parts: BTreeMap<&'static str, u64>,
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

/// Opens a version file, which verifies every byte, and describes it.
pub fn inspect(path: &Path) -> Result<Inspection, OpenError> {
    let version = Version::open(path)?;
    let mut largest = version.segments();
    let segments = largest.len() as u64;
    largest.sort_by(|a, b| b.ids.cmp(&a.ids).then_with(|| a.name.cmp(&b.name)));
    largest.truncate(LARGEST_LISTED);
    let meta = version.meta();
    Ok(Inspection {
        dataset: meta.dataset.clone(),
        kind: meta.kind,
        version: meta.version,
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
        verified: true,
    })
}
