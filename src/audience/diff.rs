//! What changed from one version of a dataset to another: the answer of `kith diff --json`.
//!
//! From what the files say: header, segment tables, parts. Not id by id. A file has only fingerprints, remixed under a salt that
//! follows from dataset and version, just so that no two files can be joined; who came and who went is not in them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::inspect::{Inspection, SegmentSize};
use super::{OpenError, Version};

/// Two versions, compared.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// The first file.
    pub before: Inspection,
    /// The second.
    pub after: Inspection,
    /// Which of dataset, kind, version, format, as of and key are not the same, by their names in the two.
    pub changed: Vec<&'static str>,
    /// What became of the segments.
    pub segments: SegmentsDiffer,
    /// Whether the two files' bytes could be joined id by id: only where both are under one salt.
    pub same_salt: bool,
}

/// What became of the segments of a version in another one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SegmentsDiffer {
    /// Those that only the second has, largest first.
    pub added: Vec<SegmentSize>,
    /// Those that only the first had, largest first.
    pub removed: Vec<SegmentSize>,
    /// Those of another size, the largest change first.
    pub resized: Vec<Resized>,
    /// How many have as many ids as before. Not necessarily the same ones.
    pub same_size: u64,
}

/// A segment that both have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resized {
    /// Its name within the dataset.
    pub name: String,
    /// Its ids in the first file.
    pub before: u64,
    /// Its ids in the second.
    pub after: u64,
}

/// What of a version is compared.
struct Summary {
    inspection: Inspection,
    segments: Vec<SegmentSize>,
    salt: [u8; 16],
}

impl Summary {
    fn of(path: &Path) -> Result<Self, OpenError> {
        let version = Version::open(path)?;
        Ok(Self {
            inspection: Inspection::of(&version),
            segments: version.segments(),
            salt: version.salt(),
        })
    }
}

/// Opens two version files, one after the other, and compares them: memory for the larger is enough.
///
/// # Errors
/// Where one of them cannot be read, is no version file, or is damaged.
pub fn diff(before: &Path, after: &Path) -> Result<Difference, OpenError> {
    let (one, other) = (Summary::of(before)?, Summary::of(after)?);
    let (before, after) = (one.inspection, other.inspection);
    let facts = [
        ("dataset", before.dataset != after.dataset),
        ("kind", before.kind != after.kind),
        ("version", before.version != after.version),
        ("format", before.format != after.format),
        ("as_of", before.as_of != after.as_of),
        ("key_id", before.key_id != after.key_id),
    ];
    let changed = facts.into_iter().filter(|(_, differs)| *differs);
    Ok(Difference {
        changed: changed.map(|(name, _)| name).collect(),
        before,
        after,
        segments: segments(one.segments, other.segments),
        same_salt: one.salt == other.salt,
    })
}

fn segments(before: Vec<SegmentSize>, after: Vec<SegmentSize>) -> SegmentsDiffer {
    let mut left: BTreeMap<String, u64> = before.into_iter().map(|s| (s.name, s.ids)).collect();
    let mut differ = SegmentsDiffer::default();
    for segment in after {
        match left.remove(&segment.name) {
            None => differ.added.push(segment),
            Some(ids) if ids == segment.ids => {
                differ.same_size = differ.same_size.saturating_add(1)
            }
            Some(ids) => differ.resized.push(Resized {
                name: segment.name,
                before: ids,
                after: segment.ids,
            }),
        }
    }
    let gone = left
        .into_iter()
        .map(|(name, ids)| SegmentSize { name, ids });
    differ.removed = gone.collect();
    for list in [&mut differ.added, &mut differ.removed] {
        list.sort_by(|a, b| b.ids.cmp(&a.ids).then_with(|| a.name.cmp(&b.name)));
    }
    let change = |of: &Resized| of.before.abs_diff(of.after);
    differ
        .resized
        .sort_by(|a, b| (Reverse(change(a)), &a.name).cmp(&(Reverse(change(b)), &b.name)));
    differ
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_most_comes_first() {
        let list = |of: &[(&str, u64)]| {
            let sized = of.iter().map(|(name, ids)| SegmentSize {
                name: (*name).to_owned(),
                ids: *ids,
            });
            sized.collect::<Vec<_>>()
        };
        let before = list(&[("a", 10), ("b", 20), ("c", 5), ("gone", 1), ("went", 7)]);
        let after = list(&[
            ("a", 11),
            ("b", 2),
            ("c", 5),
            ("d", 6),
            ("new", 3),
            ("x", 6),
        ]);
        let differ = segments(before, after);
        assert_eq!(differ.added, list(&[("d", 6), ("x", 6), ("new", 3)]));
        assert_eq!(differ.removed, list(&[("went", 7), ("gone", 1)]));
        let resized: Vec<_> = differ
            .resized
            .iter()
            .map(|s| (s.name.as_str(), s.before, s.after))
            .collect();
        assert_eq!(resized, [("b", 20, 2), ("a", 10, 11)]);
        assert_eq!(differ.same_size, 1);
    }
}
