//! What is known of every dataset and version, in one small file that is replaced as a whole.
//!
//! The manifest is the truth: a version file that it does not name is a leftover, a version that it calls live is
//! live again after a restart. It is JSON in one line, `{"format":2,"sha256":"<64 hex>","manifest":{…}}`; the digest
//! covers the bytes of the inner object as they stand, so that a flipped bit is found and never served.
//!
//! Cost: rewritten at every change, some 150 bytes an event and 2 to 10 KB a version, with a thousand segments 40 KB more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::guards::Profile;
use crate::clock::Timestamp;
use crate::ids::{Hex, Kind, Name};

/// The file's name inside the data directory.
pub(super) const FILE: &str = "manifest.json";
/// The folder of the version files, one folder a dataset in it.
pub(super) const VERSIONS: &str = "datasets";
/// The format written, and the newest read.
const FORMAT: u32 = 2;
/// The oldest read: it has no profiles of versions.
const FORMAT_OLDEST: u32 = 1;
/// Events kept of each dataset: months of daily uploads, 30 KB.
const HISTORY_MAX: usize = 200;

/// All that survives a restart, except the version files themselves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The number of the last generation put in force.
    pub(super) generation: u64,
    pub(super) datasets: BTreeMap<Name, Dataset>,
    /// What was found damaged and is kept to be looked at, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) quarantine: Vec<Quarantined>,
}

/// One dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dataset {
    pub(super) kind: Kind,
    pub(super) live: Option<u64>,
    /// What was live before it: where a rollback leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<u64>,
    pub(super) pinned: bool,
    /// The highest number ever taken, kept when its version is deleted.
    pub(super) newest: Option<u64>,
    /// Up to which row of people's journal all versions that were kept together had read: nothing before it counts ever again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) forgotten: u64,
    pub(super) versions: BTreeMap<u64, Version>,
    pub(super) history: VecDeque<Event>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Dataset {
    /// Notes up to where all versions that are kept have read.
    pub(super) fn forget(&mut self) {
        // What waits or is held covers nothing: without a live version all that was heard counts.
        if self.live.is_none() {
            return;
        }
        let all = self.versions.values();
        let least = all.map(|version| version.covers.unwrap_or(0)).min();
        self.forgotten = self.forgotten.max(least.unwrap_or(0));
    }
}

/// One version: what was uploaded, what was made of it, what was thought of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Version {
    pub(super) standing: Standing,
    /// SHA-256 of the decoded body, in hex.
    pub(super) body_sha256: String,
    /// How the body was to be read: media type and query, in one spelling.
    pub(super) query: String,
    pub(super) as_of: Option<String>,
    /// Up to which row of people's journal its input had been read, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) covers: Option<u64>,
    /// Of a delta, the version it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<u64>,
    /// Of a delta, the full version under whose salt its ids are hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<u64>,
    /// Of a delta, the length of the full version's file that has been made of it and all below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) compacted: Option<u64>,
    /// Of a delta, how many ids it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) changed_ids: Option<u64>,
    pub(super) bytes: u64,
    pub(super) rows: Rows,
    pub(super) checks: Vec<Check>,
    /// What guards hold later versions against. Older manifests, and versions that were not opened, have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) profile: Option<Profile>,
    pub(super) warnings: Vec<Notice>,
    pub(super) uploaded_at: Timestamp,
    pub(super) activated_at: Option<Timestamp>,
    pub(super) build_seconds: f64,
    pub(super) activate_seconds: f64,
    /// When all its files were last known to be as they were written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) verified_at: Option<Timestamp>,
    /// What its file was found to have, where nothing could be put in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) damage: Option<Damage>,
}

/// A file that was found damaged and could not be written again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// When that was found.
    pub at: Timestamp,
    /// The file, inside the data directory.
    pub file: String,
    /// What was wrong with it.
    pub reason: String,
}

/// A damaged file that was moved aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// When.
    pub at: Timestamp,
    /// The dataset that it was of.
    pub dataset: Name,
    /// The version that it was of.
    pub version: u64,
    /// Where it lies now, inside the data directory.
    pub file: String,
    /// How long it is.
    pub bytes: u64,
    /// What was wrong with it.
    pub reason: String,
}

/// Where a version stands that is not live. Which one is live, the dataset says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Standing {
    /// Ready to be activated, never was.
    Staged,
    /// Failed a check; served only when an operator says so, each time.
    Held,
    /// Passed, and was live, or is.
    Retired,
}

impl Version {
    /// The version that has to be there to open this one.
    fn rests_on(&self) -> Option<u64> {
        self.base.filter(|_| self.compacted.is_none())
    }

    /// Whether there is no whole file that says what it is.
    pub(super) fn is_lost(&self) -> bool {
        self.damage.is_some() && self.compacted.is_none()
    }

    /// Whether it failed a check.
    pub(super) fn held(&self) -> bool {
        self.standing == Standing::Held || self.checks.iter().any(|c| !c.ok)
    }
}

/// The row report of a version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Good rows; line items of campaigns.
    pub rows: u64,
    /// Distinct ids.
    pub ids: u64,
    /// Distinct segments.
    pub segments: u64,
    /// Good rows whose id another row had already.
    pub merged: u64,
    /// Rows refused.
    pub rejected_rows: u64,
    /// The first of them.
    pub rejected: Vec<Rejected>,
}

/// One refused row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The line in the decoded body, from 1.
    pub line: u64,
    /// What was wrong with it.
    pub reason: String,
}

/// One validation of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// Whether it was well.
    pub ok: bool,
    /// What was found, and what to do where it was not well.
    pub detail: String,
}

/// Something about a document that deserves a look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Where in the document.
    pub path: String,
    /// The id of what is there, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What.
    pub message: String,
}

/// One line of a dataset's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// `staged`, `held`, `activated`, `rolled_back`, `forced`, `restored`, `compacted`, `pinned`, `unpinned`, `deleted`, `removed`,
    /// `quarantined`, `rewritten`, `found_whole`, `reopened`, `fell_back` or `withdrawn`.
    pub event: String,
    /// The version concerned.
    pub version: Option<u64>,
    /// Why, or by whom.
    pub reason: String,
}

impl Dataset {
    pub(super) fn new(kind: Kind) -> Dataset {
        Dataset {
            kind,
            live: None,
            previous: None,
            pinned: false,
            newest: None,
            forgotten: 0,
            versions: BTreeMap::new(),
            history: VecDeque::new(),
        }
    }

    pub(super) fn note(&mut self, at: Timestamp, event: &str, version: Option<u64>, reason: &str) {
        if self.history.len() >= HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Event {
            at,
            event: event.to_owned(),
            version,
            reason: reason.to_owned(),
        });
    }

    /// What a version is opened from: a full version, or what was compacted to one, and the deltas over it up to the version
    /// itself. Nothing where it is not known, or where something below it is missing.
    pub(super) fn chain(&self, number: u64) -> Option<Vec<u64>> {
        let mut chain = vec![number];
        let mut next = number;
        // Bases have lower numbers, so this ends.
        while let Some(base) = self.versions.get(&next)?.rests_on() {
            if base >= next {
                return None;
            }
            chain.push(base);
            next = base;
        }
        chain.reverse();
        Some(chain)
    }

    /// Why a version cannot be opened, as far as files were found damaged: which of those that it is opened from is lost, itself
    /// or one below it, and how.
    pub(super) fn lost(&self, number: u64) -> Option<(u64, String)> {
        let mut next = number;
        loop {
            let Some(version) = self.versions.get(&next) else {
                return Some((next, format!("version {next} is not kept any more")));
            };
            if let Some(damage) = version.damage.as_ref().filter(|_| version.is_lost()) {
                let Damage { at, file, reason } = damage;
                return Some((next, format!("{file}, found damaged at {at}, {reason}")));
            }
            // Bases have lower numbers, so this ends.
            match version.rests_on() {
                Some(base) if base < next => next = base,
                _ => return None,
            }
        }
    }

    /// A version that is a delta over this one, perhaps by way of others.
    pub(super) fn needed_by(&self, number: u64) -> Option<u64> {
        let mut others = self.versions.keys().filter(|other| **other != number);
        let rests = |other: &&u64| self.chain(**other).is_some_and(|c| c.contains(&number));
        others.find(rests).copied()
    }

    /// Forgets what is neither live nor among the newest `keep` once served, `keep` staged or `keep` held ones: what waits
    /// or is held must not push out what one would roll back to. Of those once served, the live version and the one that
    /// it replaced come first, however old their numbers. Returns what was forgotten.
    pub(super) fn retain(&mut self, keep: usize, at: Timestamp) -> Vec<(u64, Version)> {
        let back = self.previous.filter(|_| keep > 1);
        let stays = |number| self.live == Some(number) || back == Some(number);
        let mut served = self.versions.keys().filter(|n| stays(**n)).count();
        let (mut staged, mut held, mut lost) = (0, 0, 0);
        let mut gone = Vec::new();
        for (&number, version) in self.versions.iter().rev() {
            if stays(number) {
                continue;
            }
            let kept = match version.standing {
                // What cannot be opened must not push out what can.
                _ if self.lost(number).is_some() => &mut lost,
                Standing::Retired => &mut served,
                Standing::Staged => &mut staged,
                Standing::Held => &mut held,
            };
            *kept += 1;
            if *kept > keep {
                gone.push(number);
            }
        }
        // What a kept delta rests on stays, however old.
        let kept = self.versions.keys().filter(|number| !gone.contains(number));
        let chains: BTreeSet<u64> = kept
            .filter_map(|number| self.chain(*number))
            .flatten()
            .collect();
        gone.retain(|number| !chains.contains(number));
        let mut removed = Vec::with_capacity(gone.len());
        for number in gone {
            if let Some(version) = self.versions.remove(&number) {
                removed.push((number, version));
            }
            self.note(at, "removed", Some(number), "data.keep_versions");
        }
        removed
    }
}

impl Manifest {
    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let inner = serde_json::to_string(self)?;
        let digest = Sha256::digest(inner.as_bytes());
        let digest = Hex(&digest);
        Ok(
            format!("{{\"format\":{FORMAT},\"sha256\":\"{digest}\",\"manifest\":{inner}}}\n")
                .into_bytes(),
        )
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let text = std::str::from_utf8(bytes).map_err(|_| ManifestError::Damaged)?;
        let head: Head = serde_json::from_str(text).map_err(|_| ManifestError::Damaged)?;
        if !(FORMAT_OLDEST..=FORMAT).contains(&head.format) {
            return Err(ManifestError::Format {
                found: head.format,
                read: FORMAT,
            });
        }
        let inner = (|| {
            let opening = format!("{{\"format\":{},\"sha256\":\"", head.format);
            let rest = text.strip_prefix(opening.as_str())?;
            let (digest, rest) = rest.split_at_checked(64)?;
            let inner = rest.strip_prefix("\",\"manifest\":")?.strip_suffix("}\n")?;
            let found = Hex(&Sha256::digest(inner.as_bytes())).to_string();
            (found == digest).then_some(inner)
        })();
        let inner = inner.ok_or(ManifestError::Damaged)?;
        serde_json::from_str(inner).map_err(|_| ManifestError::Damaged)
    }
}

/// Where the full version lies that has been made of a delta and all below it.
pub(super) fn compacted_file(dataset: &Name, version: u64) -> PathBuf {
    Path::new(VERSIONS)
        .join(dataset.as_str())
        .join(format!("{version}.full.kith"))
}

/// Where a version's file lies inside the data directory.
pub(super) fn version_file(dataset: &Name, kind: Kind, version: u64) -> PathBuf {
    let ending = match kind {
        Kind::Campaigns | Kind::Scores => "json",
        Kind::Audience | Kind::Filter | Kind::Identity => "kith",
    };
    Path::new(VERSIONS)
        .join(dataset.as_str())
        .join(format!("{version}.{ending}"))
}

/// Why the manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Its bytes are not those that were written.
    #[error(
        "manifest.json is damaged; restore it from a backup, or move the data directory away and upload again"
    )]
    Damaged,
    /// Another version of Kith wrote it.
    #[error(
        "manifest.json has format {found}, this version of kith reads format {read}; run the version that wrote it"
    )]
    Format {
        /// In the file.
        found: u32,
        /// What can be read.
        read: u32,
    },
    /// Version files without a manifest.
    #[error(
        "manifest.json is missing but there are version files in datasets/; restore it from a backup, or move the data directory away"
    )]
    Missing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let mut manifest = Manifest::default();
        let mut dataset = Dataset::new(Kind::Audience);
        dataset.note(Timestamp::from_unix_ms(1), "staged", Some(1), "\"quoted\"");
        manifest
            .datasets
            .insert("crm".parse().expect("a name"), dataset);
        manifest
    }

    #[test]
    fn text_and_back() {
        let bytes = sample().encode().expect("encodes");
        assert_eq!(Manifest::decode(&bytes), Ok(sample()));
        serde_json::from_slice::<serde_json::Value>(&bytes).expect("is JSON");
    }

    #[test]
    fn every_flipped_bit_and_cut_byte_is_found() {
        let bytes = sample().encode().expect("encodes");
        for at in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(Manifest::decode(&flipped).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let error = Manifest::decode(b"{\"format\":3,\"other\":1}").expect_err("newer");
        assert_eq!(error, ManifestError::Format { found: 3, read: 2 });
    }

    #[test]
    fn history_is_bounded() {
        let mut dataset = Dataset::new(Kind::Audience);
        for n in 0..500 {
            dataset.note(Timestamp::from_unix_ms(0), "staged", Some(n), "");
        }
        assert_eq!(dataset.history.len(), HISTORY_MAX);
        assert_eq!(dataset.history.back().and_then(|e| e.version), Some(499));
    }
}
