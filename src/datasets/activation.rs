//! From a version file on disk to its being served: the one path that uploads, rollbacks and restarts share.
//!
//! Opening verifies every byte and touches every page, so that what is swapped in is whole and warm. Nothing is locked
//! meanwhile. Only then comes the change: manifest durable, swap, done.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

use super::guards::Measured;
use super::manifest::{self, Dataset, Standing, Version, compacted_file, version_file};
use super::measures::{Outcome, Served};
use super::settling::MAPPED_FROM_BYTES;
use super::{Datasets, Refused, Snapshot, lock};
use crate::audience::{self, AsOf, Audience, AudienceFile, Flaw, Graph};
use crate::campaigns::{self, Book, DocumentError, Scores};
use crate::clock::Timestamp;
use crate::ids::{Hex, Kind, Name};
use crate::storage::open_to_read;

/// A version, open and verified.
#[derive(Debug, Clone)]
pub(super) enum Opened {
    Audience(Arc<Audience>),
    Filter(Measured),
    Graph(Arc<Graph>),
    /// And what it was compiled from.
    Book(Arc<Book>, Arc<[u8]>),
    Scores(LiveScores),
}

/// Scores, and the document that they were read from.
#[derive(Debug, Clone)]
pub(super) struct LiveScores {
    pub(super) version: u64,
    pub(super) scores: Arc<Scores>,
    pub(super) document: Arc<[u8]>,
}

/// What a change asks for beyond the manifest.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// Put a new generation in force.
    pub(super) swap: bool,
    /// Files that nothing names any more.
    pub(super) gone: Vec<PathBuf>,
    /// Those are what was asked to go: on a full disk they may go before the manifest forgets them, to make room for it.
    pub(super) freeing: bool,
}

/// The answer to an activation.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Activated {
    /// The dataset.
    pub dataset: Name,
    /// What it serves now.
    pub version: u64,
    /// What it served before.
    pub previous: Option<u64>,
    /// The generation in force.
    pub generation: u64,
    /// How long it took.
    pub activate_seconds: f64,
}

impl Datasets {
    /// Serves a staged, older or (with `force`) held version. With `force` a pin gives way too, and stays.
    ///
    /// Activating what is live already changes nothing. `by` is who asked, for the history.
    pub fn activate(
        &self,
        name: &Name,
        number: u64,
        force: bool,
        by: &str,
        now: Timestamp,
    ) -> Result<Activated, Refused> {
        let started = Instant::now();
        let before = self.ready_snapshot()?;
        let dataset = known(&before, name)?;
        may_activate(dataset, name, number, force)?;
        if dataset.live == Some(number) && !before.unreadable.contains_key(name) {
            return Ok(Activated {
                dataset: name.clone(),
                version: number,
                previous: Some(number),
                generation: before.manifest.generation,
                activate_seconds: 0.0,
            });
        }
        if let Some(version) = dataset.versions.get(&number).filter(|_| !force) {
            let bytes = before.opening_bytes(name, number, version);
            self.room(name, dataset.kind, bytes).or_refused(
                name,
                number,
                "activate it with force",
            )?;
        }
        let opened = self.open_version(name, number, &before).map_err(|reason| {
            self.measures.ended(name, Outcome::Failed);
            self.chores.suspect(name, number);
            Refused::Unreadable {
                dataset: name.clone(),
                version: number,
                reason,
            }
        })?;
        let activated = self.change(|next| {
            let dataset = known_mut(next, name)?;
            may_activate(dataset, name, number, force)?;
            let previous = dataset.live;
            let event = match (previous, dataset.versions.get(&number)) {
                (_, Some(v)) if v.held() => "forced",
                (Some(live), Some(v)) if live > number && v.activated_at.is_some() => "rolled_back",
                _ => "activated",
            };
            dataset.note(now, event, Some(number), by);
            let effect = self.serve(next, name, number, opened, now)?;
            let activated = Activated {
                dataset: name.clone(),
                version: number,
                previous,
                generation: next.manifest.generation.saturating_add(1),
                activate_seconds: started.elapsed().as_secs_f64(),
            };
            Ok((activated, effect))
        });
        match &activated {
            Ok(done) => self.served(name, done.activate_seconds),
            Err(_) => self.measures.ended(name, Outcome::Failed),
        }
        activated
    }

    /// Marks a version live in `next` and puts its file among what is open. Retention is decided here.
    pub(super) fn serve(
        &self,
        next: &mut Snapshot,
        name: &Name,
        number: u64,
        opened: Opened,
        now: Timestamp,
    ) -> Result<Effect, Refused> {
        let dataset = known_mut(next, name)?;
        let version = dataset
            .versions
            .get_mut(&number)
            .ok_or_else(|| unknown_version(name, number))?;
        // What was forced once stays held: each time it takes someone who may say so.
        if version.standing == Standing::Staged {
            version.standing = Standing::Retired;
        }
        version.activated_at = Some(now);
        // Opening verifies every byte that it reads.
        version.verified_at = Some(now);
        if version.compacted.is_none() {
            version.damage = None;
        }
        if dataset.live != Some(number) {
            dataset.previous = dataset.live;
        }
        dataset.live = Some(number);
        let effect = Effect {
            swap: true,
            gone: self.retire(name, dataset, now),
            freeing: false,
        };
        next.hold_open(name, number, opened);
        Ok(effect)
    }

    /// Applies retention; the files that nothing names any more.
    pub(super) fn retire(
        &self,
        name: &Name,
        dataset: &mut Dataset,
        now: Timestamp,
    ) -> Vec<PathBuf> {
        let kind = dataset.kind;
        let gone = dataset.retain(self.settings.keep_versions.max(1), now);
        gone.iter()
            .flat_map(|(number, version)| files_of(name, kind, *number, version))
            .collect()
    }

    /// One change: manifest durable, then visible, then the files that it let go of are removed.
    pub(super) fn change<R>(
        &self,
        edit: impl FnOnce(&mut Snapshot) -> Result<(R, Effect), Refused>,
    ) -> Result<R, Refused> {
        let _one_at_a_time = lock(&self.changes);
        let mut next = Snapshot::clone(&self.snapshot());
        let (answer, effect) = edit(&mut next)?;
        if effect.swap {
            next.manifest.generation = next.manifest.generation.saturating_add(1);
        }
        for dataset in next.manifest.datasets.values_mut() {
            dataset.forget();
        }
        let bytes = next.manifest.encode().map_err(std::io::Error::from)?;
        let manifest = std::path::Path::new(manifest::FILE);
        match self.storage.write_atomic(manifest, bytes.clone()) {
            Err(full) if full.is_full() && effect.freeing => {
                for file in &effect.gone {
                    self.storage.remove(file)?;
                }
                self.storage.write_atomic(manifest, bytes)?;
            }
            other => other?,
        }
        if effect.swap {
            self.swap(&next);
        }
        self.replace(next);
        for file in &effect.gone {
            // What stays behind is removed at the next start: the manifest does not name it.
            if let Err(error) = self.storage.remove(file) {
                tracing::warn!(%error, "an old version file could not be removed");
            }
        }
        Ok(answer)
    }

    /// Opens a stored version and verifies that it is what the manifest says; else says what is wrong.
    pub(super) fn open_version(
        &self,
        name: &Name,
        number: u64,
        against: &Snapshot,
    ) -> Result<Opened, String> {
        let record = against
            .manifest
            .datasets
            .get(name)
            .and_then(|d| Some((d.kind, d.versions.get(&number)?)));
        let (kind, version) = record.ok_or("the manifest does not name it")?;
        let opened = self.open_file(name, kind, number, version, against);
        // Where that is known, what was found is said rather than that the file is gone since.
        opened.map_err(|reason| {
            let dataset = against.manifest.datasets.get(name);
            match dataset.and_then(|dataset| dataset.lost(number)) {
                Some((lost, found)) if lost == number => found,
                Some((lost, found)) => {
                    format!("it rests on version {lost}: {found}; upload that one again first")
                }
                None => reason,
            }
        })
    }

    /// As [`Datasets::open_version`], for a record that the manifest does not hold yet.
    pub(super) fn open_file(
        &self,
        name: &Name,
        kind: Kind,
        number: u64,
        version: &Version,
        against: &Snapshot,
    ) -> Result<Opened, String> {
        if let Some(base) = version.base {
            let opened = self.open_delta(name, number, version, base, against);
            return opened.map(|audience| Opened::Audience(Arc::new(audience)));
        }
        let file = version_file(name, kind, number);
        let path = self.storage.dir().join(&file);
        let unread = |e: std::io::Error| format!("{}: {e}", file.display());
        let mut stored = open_to_read(&path).map_err(unread)?;
        let found = stored.metadata().map_err(unread)?.len();
        if found != version.bytes {
            return Err(format!(
                "{} has {found} bytes, not {}",
                file.display(),
                version.bytes
            ));
        }
        match kind {
            Kind::Campaigns | Kind::Scores => {
                let mut document = Vec::new();
                stored.read_to_end(&mut document).map_err(unread)?;
                if Hex(&Sha256::digest(&document)).to_string() != version.body_sha256 {
                    return Err(format!("{} is damaged", file.display()));
                }
                let no_more = |e: Vec<DocumentError>| first_error(name, &e);
                if kind == Kind::Campaigns {
                    let book = campaigns::compile(&document).map_err(no_more)?;
                    return Ok(Opened::Book(Arc::new(book), document.into()));
                }
                let scores = Scores::read(&document).map_err(no_more)?;
                Ok(Opened::Scores(LiveScores {
                    version: number,
                    scores: Arc::new(scores),
                    document: document.into(),
                }))
            }
            Kind::Audience | Kind::Filter | Kind::Identity => Ok(
                match self.read_version(name, kind, number, Some(against))? {
                    audience::Version::Audience(file) => Opened::Audience(Arc::new((*file).into())),
                    audience::Version::Filter(filter) => Opened::Filter(Measured::of(filter)),
                    audience::Version::Graph(graph) => Opened::Graph(graph),
                },
            ),
        }
    }

    /// Opens a version file and looks whether it is the one that its name says. Where it is to be served, `against` says whether
    /// it takes the place of another: then it is mapped.
    fn read_version(
        &self,
        name: &Name,
        kind: Kind,
        number: u64,
        against: Option<&Snapshot>,
    ) -> Result<audience::Version, String> {
        let file = version_file(name, kind, number);
        self.read_file(&file, name, kind, number, against)
    }

    fn read_file(
        &self,
        file: &Path,
        name: &Name,
        kind: Kind,
        number: u64,
        against: Option<&Snapshot>,
    ) -> Result<audience::Version, String> {
        let path = self.storage.dir().join(file);
        let replaces = against.is_some_and(|against| against.replaces(name));
        let is_large = || std::fs::metadata(&path).is_ok_and(|m| m.len() >= MAPPED_FROM_BYTES);
        let open = || audience::Version::open(&path);
        let stored = if replaces && is_large() {
            // So many files may be mapped; the next one takes memory.
            audience::Version::open_mapped(&path).or_else(|_| open())
        } else {
            open()
        };
        let stored = stored.map_err(|e| format!("{} {}", file.display(), what(&e.flaw)))?;
        let meta = stored.meta();
        if meta.dataset != *name || meta.version != number || meta.kind != kind {
            return Err(format!(
                "{} holds {}/{}, of kind {}",
                file.display(),
                meta.dataset,
                meta.version,
                meta.kind
            ));
        }
        if stored.key_id() != self.settings.frame.keyer.key_id() {
            return Err(format!(
                "{} was made under key {}, the service has {}; restore the key file",
                file.display(),
                stored.key_id(),
                self.settings.frame.keyer.key_id()
            ));
        }
        Ok(stored)
    }

    /// The full version that has been made of a delta and all below it.
    pub(super) fn read_compacted(
        &self,
        name: &Name,
        number: u64,
        against: &Snapshot,
    ) -> Result<AudienceFile, String> {
        let file = compacted_file(name, number);
        match self.read_file(&file, name, Kind::Audience, number, Some(against))? {
            audience::Version::Audience(stored) if stored.meta().base.is_none() => Ok(*stored),
            _ => Err(format!("{} is no full version", file.display())),
        }
    }

    /// As [`read_version`](Self::read_version), of an audience.
    pub(super) fn read_audience(
        &self,
        name: &Name,
        number: u64,
        against: Option<&Snapshot>,
    ) -> Result<AudienceFile, String> {
        match self.read_version(name, Kind::Audience, number, against)? {
            audience::Version::Audience(file) => Ok(*file),
            audience::Version::Filter(_) | audience::Version::Graph(_) => {
                Err(format!("version {number} is no audience"))
            }
        }
    }

    /// Opens a delta over what is open already, as far as that is below it, and over the files of what is not.
    fn open_delta(
        &self,
        name: &Name,
        number: u64,
        version: &Version,
        base: u64,
        against: &Snapshot,
    ) -> Result<Audience, String> {
        let dataset = against.manifest.datasets.get(name);
        let compacted = |number: u64| dataset?.versions.get(&number)?.compacted;
        let lost = match version
            .compacted
            .map(|_| self.read_compacted(name, number, against))
        {
            Some(Ok(whole)) => return Ok(whole.into()),
            Some(Err(reason)) => Some(reason),
            None => None,
        };
        let mut chain = dataset
            .and_then(|dataset| dataset.chain(base))
            .ok_or_else(|| {
                let gone = format!("version {base}, over which it is a delta, is not there");
                lost.unwrap_or(gone)
            })?;
        chain.push(number);
        let open = against.audiences.get(name);
        let at = |wanted: u64| chain.iter().position(|number| *number == wanted);
        let over_open = open.and_then(|open| Some((at(open.meta().version)?, (**open).clone())));
        let over_bottom = || {
            let bottom = open?.bottom();
            Some((at(bottom.meta().version)?, bottom))
        };
        let (place, below) = match over_open.or_else(over_bottom) {
            Some(below) => below,
            None => {
                let bottom = chain.first().copied().unwrap_or(base);
                let file = match compacted(bottom) {
                    Some(_) => self.read_compacted(name, bottom, against)?,
                    None => self.read_audience(name, bottom, Some(against))?,
                };
                (0, file.into())
            }
        };
        let above = chain.get(place.saturating_add(1)..).unwrap_or_default();
        let mut deltas = Vec::with_capacity(above.len());
        for number in above {
            deltas.push(self.read_audience(name, *number, None)?);
        }
        let expected = deltas.last().map_or(version.bytes, AudienceFile::bytes);
        if expected != version.bytes {
            let file = version_file(name, Kind::Audience, number);
            let whole = version.bytes;
            return Err(format!(
                "{} has {expected} bytes, not {whole}",
                file.display()
            ));
        }
        below.changed_by(&deltas).map_err(|e| e.to_string())
    }

    /// Reports what a dataset serves now.
    pub(super) fn served(&self, name: &Name, seconds: f64) {
        let now = self.snapshot();
        let Some(dataset) = now.manifest.datasets.get(name) else {
            return;
        };
        let version = dataset
            .live
            .and_then(|n| Some((n, dataset.versions.get(&n)?)));
        if let Some((number, version)) = version {
            let as_of = version.as_of.as_deref().and_then(|t| t.parse().ok());
            let open = now.audiences.get(name);
            let served = Served {
                version: number,
                as_of_seconds: match as_of {
                    Some(AsOf::Time(time)) => since_epoch(time),
                    Some(AsOf::Position(_)) | None => 0,
                },
                covers: version.covers.unwrap_or(0).max(dataset.forgotten),
                uploaded_seconds: since_epoch(version.uploaded_at),
                ids: version.rows.ids,
                bytes: open.map_or(version.bytes, |open| open.bytes()),
                changed_ids: open.map_or(0, |open| open.changed_ids()),
            };
            self.measures.served(name, served, seconds);
            if let Some(measured) = now.filters.get(name) {
                let declared = measured.filter.set().shape().rate().share();
                self.measures
                    .false_positives(name, declared, measured.rate());
            }
            self.measures.ended(name, Outcome::Activated);
        }
        self.compact_if_worth(name, &now);
    }

    /// The state, unless it is not complete yet.
    pub(super) fn ready_snapshot(&self) -> Result<Arc<Snapshot>, Refused> {
        if self.recovered() {
            Ok(self.snapshot())
        } else {
            Err(Refused::Recovering)
        }
    }
}

impl Snapshot {
    /// About how much memory it takes to open a version beside what is open.
    pub(super) fn opening_bytes(&self, name: &Name, number: u64, version: &Version) -> u64 {
        let Some(base) = version.base else {
            return version.bytes;
        };
        if let Some(bytes) = version.compacted {
            return bytes;
        }
        let dataset = self.manifest.datasets.get(name);
        let chain = dataset
            .and_then(|dataset| dataset.chain(base))
            .unwrap_or_default();
        let open = self.audiences.get(name);
        let is_below = |version: u64| version == number || chain.contains(&version);
        // Its layer is made anew, in two copies, of what the one before has and of the delta.
        if let Some(open) = open.filter(|open| is_below(open.base().meta().version)) {
            let layer = open.bytes().saturating_sub(open.base().bytes());
            return layer.saturating_add(version.bytes).saturating_mul(2);
        }
        let stored = |number: &u64| {
            let version = dataset?.versions.get(number)?;
            Some(version.compacted.unwrap_or(version.bytes))
        };
        let below = chain.iter().filter_map(stored);
        below.fold(version.bytes, u64::saturating_add)
    }

    /// Puts an open version in place of what the dataset had open.
    pub(super) fn hold_open(&mut self, name: &Name, number: u64, opened: Opened) {
        self.unreadable.remove(name);
        self.ordinal(name);
        match opened {
            Opened::Audience(audience) => {
                self.audiences.insert(name.clone(), audience);
            }
            Opened::Filter(measured) => {
                self.filters.insert(name.clone(), measured);
            }
            Opened::Graph(graph) => {
                self.graphs.insert(name.clone(), graph);
            }
            Opened::Book(book, document) => {
                self.book = book;
                self.document = document;
                self.campaigns_version = Some(number);
            }
            Opened::Scores(scores) => {
                self.scores.insert(name.clone(), scores);
            }
        }
    }
}

pub(super) fn known<'a>(state: &'a Snapshot, name: &Name) -> Result<&'a Dataset, Refused> {
    let dataset = state.manifest.datasets.get(name);
    dataset.ok_or_else(|| Refused::UnknownDataset(name.clone()))
}

pub(super) fn known_mut<'a>(
    state: &'a mut Snapshot,
    name: &Name,
) -> Result<&'a mut Dataset, Refused> {
    let dataset = state.manifest.datasets.get_mut(name);
    dataset.ok_or_else(|| Refused::UnknownDataset(name.clone()))
}

pub(super) fn unknown_version(name: &Name, number: u64) -> Refused {
    Refused::UnknownVersion {
        dataset: name.clone(),
        version: number,
    }
}

fn may_activate(dataset: &Dataset, name: &Name, number: u64, force: bool) -> Result<(), Refused> {
    let version = dataset
        .versions
        .get(&number)
        .ok_or_else(|| unknown_version(name, number))?;
    if force || dataset.live == Some(number) {
        return Ok(());
    }
    match dataset.live {
        Some(live) if dataset.pinned => {
            return Err(Refused::Pinned {
                dataset: name.clone(),
                live,
            });
        }
        _ => {}
    }
    if version.held() {
        let failed = version.checks.iter().filter(|c| !c.ok);
        return Err(Refused::Held {
            dataset: name.clone(),
            version: number,
            why: failed
                .map(|c| c.detail.as_str())
                .collect::<Vec<_>>()
                .join("; "),
        });
    }
    Ok(())
}

/// All files of a version.
pub(super) fn files_of(name: &Name, kind: Kind, number: u64, version: &Version) -> Vec<PathBuf> {
    let compacted = version.compacted.map(|_| compacted_file(name, number));
    let own = version_file(name, kind, number);
    std::iter::once(own).chain(compacted).collect()
}

/// Unix time as a gauge has it; 0 for what lies before.
fn since_epoch(time: Timestamp) -> u64 {
    u64::try_from(time.unix_seconds()).unwrap_or(0)
}

/// What is wrong with a file of ours; what to do about it is not what one does about an upload.
pub(super) fn what(flaw: &Flaw) -> String {
    match flaw {
        Flaw::Length { recorded, found } => format!("has {found} bytes, not {recorded}"),
        Flaw::Damaged { part, at } => format!("is damaged in its {part}, at or after byte {at}"),
        other => other.to_string(),
    }
}

fn first_error(name: &Name, errors: &[DocumentError]) -> String {
    let first = errors.first().map(ToString::to_string).unwrap_or_default();
    format!(
        "{name} can no longer be read: {} error(s), first {first}",
        errors.len()
    )
}
