//! What a person or script is shown of datasets, and the small switches: pin, unpin, delete.

use super::activation::{Effect, files_of, known, known_mut, unknown_version};
use super::manifest::{Check, Damage, Dataset, Event, Manifest, Quarantined, Standing, Version};
use super::upload::Published;
use super::{Datasets, Refused};
use crate::clock::Timestamp;
use crate::ids::{Kind, Name};

/// One dataset, as `GET /v1/datasets` shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct DatasetView {
    /// Its name.
    pub name: Name,
    /// What it holds.
    pub kind: Kind,
    /// The version in force.
    pub live: Option<u64>,
    /// True: uploads are staged and do not displace the live version.
    pub pinned: bool,
    /// What is wrong with the live version, when it could not be brought back at start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Files of its versions that were found damaged and are kept to be looked at, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<Quarantined>,
    /// Newest first.
    pub versions: Vec<VersionView>,
    /// Oldest first, the last 200.
    pub history: Vec<Event>,
}

/// One version.
#[derive(Debug, Clone, serde::Serialize)]
pub struct VersionView {
    /// Its number.
    pub version: u64,
    /// Where it is in its life.
    pub state: State,
    /// Of a delta, the version it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
    /// Of a delta, the full version under whose salt its ids are hashed: the `--root` of deltas over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<u64>,
    /// Of a delta, the bytes of the full version that it and all below it have been made into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compacted_bytes: Option<u64>,
    /// Of a delta, how many ids it names; `ids` and `segments` are of the whole that comes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_ids: Option<u64>,
    /// What its file was found to have, where nothing could be put in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<Damage>,
    /// Of a delta, the version below it that is lost, so that it cannot be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rests_on_damaged: Option<u64>,
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
    /// Bytes of the version file.
    pub bytes: u64,
    /// Up to where the input had been read.
    pub as_of: Option<String>,
    /// What was validated.
    pub checks: Vec<Check>,
    /// When the upload was complete.
    pub uploaded_at: Timestamp,
    /// When it last became live.
    pub activated_at: Option<Timestamp>,
    /// When its files were last verified and found as they were written.
    pub verified_at: Option<Timestamp>,
    /// From a spooled body to a durable version file.
    pub build_seconds: f64,
    /// From there to being served.
    pub activate_seconds: f64,
}

/// Where a version is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Served.
    Active,
    /// Would be served, but its file could not be read back; uploading the same again restores it.
    Unreadable,
    /// Its file, or one that it rests on, was found damaged, so that it cannot be activated; uploading the same again restores
    /// it.
    Damaged,
    /// Ready to be.
    Staged,
    /// Failed a check.
    Held,
    /// Was served, kept for a rollback.
    Retired,
}

/// `unreadable` is about the live version, whichever that is.
pub(super) fn version_view(
    number: u64,
    version: &Version,
    dataset: &Dataset,
    unreadable: bool,
) -> VersionView {
    let live = dataset.live;
    let lost = dataset.lost(number);
    let state = match version.standing {
        _ if live == Some(number) && unreadable => State::Unreadable,
        _ if live == Some(number) => State::Active,
        _ if lost.is_some() => State::Damaged,
        Standing::Staged => State::Staged,
        Standing::Held => State::Held,
        Standing::Retired => State::Retired,
    };
    VersionView {
        version: number,
        state,
        base: version.base,
        root: version.root,
        compacted_bytes: version.compacted,
        changed_ids: version.changed_ids,
        damage: version.damage.clone(),
        rests_on_damaged: lost.map(|lost| lost.0).filter(|lost| *lost != number),
        rows: version.rows.rows,
        ids: version.rows.ids,
        segments: version.rows.segments,
        merged: version.rows.merged,
        rejected_rows: version.rows.rejected_rows,
        bytes: version.bytes,
        as_of: version.as_of.clone(),
        checks: version.checks.clone(),
        uploaded_at: version.uploaded_at,
        activated_at: version.activated_at,
        verified_at: version.verified_at,
        build_seconds: version.build_seconds,
        activate_seconds: version.activate_seconds,
    }
}

impl Datasets {
    /// Every dataset that `visible` lets through, by name.
    pub fn list(&self, visible: impl Fn(&Name) -> bool) -> Vec<DatasetView> {
        let state = self.snapshot();
        let shown = state.manifest.datasets.iter().filter(|(n, _)| visible(n));
        shown
            .map(|(n, d)| view(n, d, &state.manifest, state.unreadable.get(n)))
            .collect()
    }

    /// One dataset.
    pub fn dataset(&self, name: &Name) -> Result<DatasetView, Refused> {
        let state = self.snapshot();
        let dataset = known(&state, name)?;
        let unreadable = state.unreadable.get(name);
        Ok(view(name, dataset, &state.manifest, unreadable))
    }

    /// One version, as its upload was answered.
    pub fn version(&self, name: &Name, number: u64) -> Result<Published, Refused> {
        let state = self.snapshot();
        let dataset = known(&state, name)?;
        let version = dataset
            .versions
            .get(&number)
            .ok_or_else(|| unknown_version(name, number))?;
        Ok(Published {
            fresh: false,
            dataset: name.clone(),
            version: version_view(
                number,
                version,
                dataset,
                state.unreadable.contains_key(name),
            ),
            rejected: version.rows.rejected.clone(),
            warnings: version.warnings.clone(),
        })
    }

    /// Holds a dataset at its live version (which must be `number`, where given). Again changes nothing.
    pub fn pin(
        &self,
        name: &Name,
        number: Option<u64>,
        by: &str,
        now: Timestamp,
    ) -> Result<(), Refused> {
        self.ready_snapshot()?;
        self.change(|next| {
            let dataset = known_mut(next, name)?;
            let live = dataset
                .live
                .ok_or_else(|| Refused::NothingLive(name.clone()))?;
            if let Some(version) = number.filter(|n| *n != live) {
                return Err(Refused::NotLive {
                    dataset: name.clone(),
                    version,
                });
            }
            if !dataset.pinned {
                dataset.pinned = true;
                dataset.note(now, "pinned", Some(live), by);
            }
            Ok(((), Effect::default()))
        })
    }

    /// Lets uploads displace the live version again. What was staged meanwhile stays staged.
    pub fn unpin(&self, name: &Name, by: &str, now: Timestamp) -> Result<(), Refused> {
        self.ready_snapshot()?;
        self.change(|next| {
            let dataset = known_mut(next, name)?;
            if dataset.pinned {
                dataset.pinned = false;
                let live = dataset.live;
                dataset.note(now, "unpinned", live, by);
            }
            Ok(((), Effect::default()))
        })
    }

    /// Removes a version that is not live. Its number stays taken if it was the newest.
    pub fn delete(
        &self,
        name: &Name,
        number: u64,
        by: &str,
        now: Timestamp,
    ) -> Result<(), Refused> {
        self.ready_snapshot()?;
        self.change(|next| {
            let dataset = known_mut(next, name)?;
            if !dataset.versions.contains_key(&number) {
                return Err(unknown_version(name, number));
            }
            if dataset.live == Some(number) {
                return Err(Refused::Live {
                    dataset: name.clone(),
                    version: number,
                });
            }
            if let Some(by) = dataset.needed_by(number) {
                return Err(Refused::Needed {
                    dataset: name.clone(),
                    version: number,
                    by,
                });
            }
            let removed = dataset.versions.remove(&number);
            dataset.note(now, "deleted", Some(number), by);
            let kind = dataset.kind;
            let gone = removed.map(|version| files_of(name, kind, number, &version));
            let effect = Effect {
                swap: false,
                gone: gone.unwrap_or_default(),
                freeing: true,
            };
            Ok(((), effect))
        })
    }
}

fn view(
    name: &Name,
    dataset: &Dataset,
    manifest: &Manifest,
    unreadable: Option<&String>,
) -> DatasetView {
    let quarantine = manifest.quarantine.iter();
    let versions = dataset.versions.iter().rev();
    DatasetView {
        name: name.clone(),
        kind: dataset.kind,
        live: dataset.live,
        pinned: dataset.pinned,
        unreadable: unreadable.cloned(),
        quarantine: quarantine.filter(|q| q.dataset == *name).cloned().collect(),
        versions: versions
            .map(|(n, v)| version_view(*n, v, dataset, unreadable.is_some()))
            .collect(),
        history: dataset.history.iter().cloned().collect(),
    }
}
