//! What a version file holds, for people and scripts: the answer of `kith inspect --json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::ids::{Kind, Name};

use super::{AsOf, Audience, OpenError};

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
    let audience = Audience::open(path)?;
    let mut largest: Vec<SegmentSize> = audience
        .segments()
        .zip(audience.segment_ids())
        .map(|(name, &ids)| SegmentSize {
            name: name.to_owned(),
            ids,
        })
        .collect();
    largest.sort_by(|a, b| b.ids.cmp(&a.ids).then_with(|| a.name.cmp(&b.name)));
    largest.truncate(LARGEST_LISTED);
    let meta = audience.meta();
    Ok(Inspection {
        dataset: meta.dataset.clone(),
        kind: meta.kind,
        version: meta.version,
        format: audience.format(),
        as_of: meta.as_of,
        key_id: audience.key_id().to_string(),
        ids: audience.ids(),
        rows: audience.rows(),
        segments: audience.segment_ids().len() as u64,
        memberships: audience.membership_count(),
        largest_segments: largest,
        bytes: audience.bytes(),
        bytes_per_id: audience.bytes() as f64 / audience.ids() as f64,
        parts: audience.parts().collect(),
        verified: true,
    })
}
