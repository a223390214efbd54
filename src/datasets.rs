//! The life of a version: stage, validate, warm, activate, retire; pin and hold; and the generation that comes of it.
//!
//! One upload, step by step, in [`upload`]; one activation in [`activation`], by which a restart too brings versions
//! back. The [`manifest`] is what survives; the version files lie beside it; [`live`] is where bid threads see the outcome.
//!
//! Order of a change, always: version file durable, manifest durable, swap visible, then acknowledged. A crash between
//! any two leaves the old state or the new, and at most a file that the manifest does not name.
//!
//! Locks. `building` (one a dataset) is held while a version is made: a second upload to the same dataset waits, and is
//! then judged against what the first left (it gets 409, or 200 when it brought the same). `changes` is held over one
//! manifest write and swap. `state` is held to copy a pointer. Readers take `state` only, so a listing or a rollback
//! never waits for a build.
//!
//! This module and its parts are the only ones that name ArcSwap.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::audience::{Audience, Graph};
use crate::campaigns::Book;
use crate::config;
use crate::generation::{Frame, Generation, LiveGraph, LiveVersion, Members};
use crate::ids::Name;
use crate::ledger::Ledger;
use crate::privacy::Purposes;
use crate::shadow::Sample;
use crate::storage::Storage;

mod activation;
mod build;
mod guards;
mod housekeeping;
mod listing;
mod live;
mod manifest;
mod measures;
mod mend;
mod recovery;
mod refused;
mod scrub;
mod settling;
mod upload;
mod validation;

#[cfg(test)]
pub(crate) mod tests;

pub use activation::Activated;
use activation::LiveScores;
pub use housekeeping::Housekeeping;
pub use listing::{DatasetView, State, VersionView};
pub use live::{Live, LiveReader};
pub use manifest::{Check, Damage, Event, ManifestError, Notice, Quarantined, Rejected, Rows};
pub use recovery::{NotReady, OpenFailed};
pub use refused::Refused;
pub use scrub::Scrubbing;
pub use upload::{Format, Mode, Published, Spool, Upload};

use guards::Measured;
use housekeeping::Chores;
use live::Retired;
use manifest::Manifest;
use measures::Measures;

pub use config::CAMPAIGNS;

/// What the configuration says about datasets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Newest versions kept of each dataset, beside the live one.
    pub keep_versions: usize,
    /// How often each kept version is verified again; none: never.
    pub scrub_every: Option<Duration>,
    /// How much of a file is read a second for that, bytes.
    pub scrub_bytes_per_second: u64,
    /// How much of what was found damaged is kept, bytes.
    pub quarantine_bytes: u64,
    /// What is configured of single datasets, and what holds for all others.
    pub datasets: config::Datasets,
    /// Most datasets there may be (`limits.datasets`); metrics have a series for each.
    pub datasets_max: usize,
    /// Most segments of one dataset (`limits.segments_per_dataset`).
    pub segments_max: usize,
    /// Memory for making a version of rows, bytes (`limits.build_memory_bytes`).
    pub build_memory: u64,
    /// Most ids of one person (`limits.ids_per_person`).
    pub ids_per_person: usize,
    /// Most of them from one source (`limits.ids_per_source`).
    pub ids_per_source: usize,
    /// Longest campaigns document, bytes (`limits.campaigns_bytes`).
    pub campaigns_bytes: u64,
    /// The configured exchanges, which campaigns may name.
    pub exchanges: Vec<Name>,
    /// What of every generation comes from the configuration.
    pub frame: Frame,
    /// Recent requests that versions are tried on.
    pub sample: Arc<Sample>,
    /// Keeps the books of what is live; none: everything is allowed.
    pub ledger: Option<Ledger>,
}

impl Settings {
    /// The settings of a configuration.
    pub fn of(config: &config::Config, frame: Frame) -> Settings {
        Settings {
            keep_versions: config.data.keep_versions,
            scrub_every: config.data.scrub_every,
            scrub_bytes_per_second: config.data.scrub_bytes_per_second,
            quarantine_bytes: config.data.quarantine_bytes,
            datasets: config.datasets.clone(),
            datasets_max: config.limits.datasets,
            segments_max: config.limits.segments_per_dataset,
            build_memory: config.limits.build_memory_bytes,
            ids_per_person: config.limits.ids_per_person,
            ids_per_source: config.limits.ids_per_source,
            campaigns_bytes: config.limits.campaigns_bytes as u64,
            exchanges: config.exchanges.iter().map(|e| e.name.clone()).collect(),
            frame,
            ledger: None,
            sample: Arc::new(Sample::new(
                config.shadow.requests,
                config.bid.thread_count(),
            )),
        }
    }
}

/// All datasets of one data directory.
#[derive(Debug)]
pub struct Datasets {
    settings: Settings,
    storage: Storage,
    live: Live,
    retired: Arc<Retired>,
    measures: Measures,
    chores: Chores,
    recovered: AtomicBool,
    /// Held over one manifest write and swap.
    changes: Mutex<()>,
    /// Held to copy or replace the pointer.
    state: Mutex<Arc<Snapshot>>,
    building: Mutex<BTreeMap<Name, Arc<Mutex<()>>>>,
}

/// What is known and open now. Replaced as a whole by whoever holds `changes`.
#[derive(Debug, Clone)]
struct Snapshot {
    manifest: Manifest,
    audiences: BTreeMap<Name, Arc<Audience>>,
    filters: BTreeMap<Name, Measured>,
    graphs: BTreeMap<Name, Arc<Graph>>,
    scores: BTreeMap<Name, LiveScores>,
    book: Arc<Book>,
    campaigns_version: Option<u64>,
    /// What the book was compiled from.
    document: Arc<[u8]>,
    /// The place of each dataset in this process's metrics: order of first appearance.
    ordinals: BTreeMap<Name, usize>,
    /// Live in the manifest, but could not be opened at start: name and why.
    unreadable: BTreeMap<Name, String>,
}

impl Snapshot {
    fn ordinal(&mut self, name: &Name) -> usize {
        let next = self.ordinals.len();
        *self.ordinals.entry(name.clone()).or_insert(next)
    }
}

impl Snapshot {
    /// Lets go of what is open of a dataset.
    fn let_go(&mut self, name: &Name) {
        self.audiences.remove(name);
        self.filters.remove(name);
        self.graphs.remove(name);
    }

    /// Up to which row of people's journal the input of a version had been read.
    fn covers(&self, name: &Name, number: u64) -> u64 {
        let dataset = self.manifest.datasets.get(name);
        let version = dataset.and_then(|dataset| dataset.versions.get(&number));
        let own = version.and_then(|version| version.covers).unwrap_or(0);
        own.max(dataset.map_or(0, |dataset| dataset.forgotten))
    }

    /// Up to which row all versions of each dataset have read theirs.
    fn covered(&self) -> BTreeMap<Name, u64> {
        let datasets = self.manifest.datasets.iter();
        datasets
            .map(|(name, dataset)| (name.clone(), dataset.forgotten))
            .collect()
    }
}

impl Datasets {
    /// Whether [`Datasets::recover`] has run through: until then bids are answered 204.
    pub fn recovered(&self) -> bool {
        self.recovered.load(Ordering::Acquire)
    }

    /// Why the service is not ready as far as datasets go; `Ok` when all that was live is live.
    pub fn readiness(&self) -> Result<(), NotReady> {
        if !self.recovered() {
            return Err(NotReady::Recovering);
        }
        if let Some((dataset, reason)) = self.snapshot().unreadable.first_key_value() {
            return Err(NotReady::Unreadable {
                dataset: dataset.clone(),
                reason: reason.clone(),
            });
        }
        match self.storage.stopped_because() {
            Some(reason) => Err(NotReady::Storage(reason.to_owned())),
            None => Ok(()),
        }
    }

    /// The highest row of people's journal that any version has read: numbers go on from there.
    pub fn covers_most(&self) -> u64 {
        let now = self.snapshot();
        let versions = now.manifest.datasets.values().flat_map(|dataset| {
            let all = dataset.versions.values();
            all.map(|version| version.covers.unwrap_or(0))
                .chain([dataset.forgotten])
        });
        versions.max().unwrap_or(0)
    }

    /// Whether what is uploaded can still be written: false once a sync has failed, until a restart.
    pub fn writes(&self) -> bool {
        self.storage.healthy()
    }

    /// The generation in force.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The datasets by the place that each has in this process's metrics.
    pub fn ordinals(&self) -> Vec<(usize, String)> {
        let snapshot = self.snapshot();
        snapshot
            .ordinals
            .iter()
            .map(|(name, ordinal)| (*ordinal, name.to_string()))
            .collect()
    }

    /// Recent requests that versions are tried on: bid threads fill it.
    pub fn sample(&self) -> &Arc<Sample> {
        &self.settings.sample
    }

    /// How many replaced generations are still read by someone.
    pub fn retired_generations(&self) -> usize {
        self.retired.count()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&lock(&self.state))
    }

    fn replace(&self, next: Snapshot) {
        self.measures.waiting(&next.manifest);
        self.settings.frame.people.cover(&next.covered());
        let next = Arc::new(next);
        let before = std::mem::replace(&mut *lock(&self.state), Arc::clone(&next));
        self.settle_after(&before, &next);
    }

    /// The largest body of an upload, decoded, and which limit says so, where it is not the general one.
    pub fn upload_bytes_max(&self, upload: &Upload) -> Option<(u64, String)> {
        let name = &upload.dataset;
        let own = self.settings.datasets.get_or_default(name).max_bytes;
        let own = own.map(|bytes| (bytes, format!("max_bytes of [datasets.{name}]")));
        match upload.format {
            Format::Document => {
                let document = self.settings.campaigns_bytes;
                let document = (document, "limits.campaigns_bytes".to_owned());
                Some(own.filter(|o| o.0 < document.0).unwrap_or(document))
            }
            Format::Snapshot | Format::Rows(_) => own,
        }
    }

    /// The lock under which versions of one dataset are made, one at a time.
    fn building(&self, name: &Name) -> Arc<Mutex<()>> {
        Arc::clone(lock(&self.building).entry(name.clone()).or_default())
    }

    /// Puts what `next` holds in force as the generation its manifest names.
    fn swap(&self, next: &Snapshot) {
        let mut generation = self.assemble(next);
        if let Some(ledger) = &self.settings.ledger {
            generation.plan = ledger.plan(&generation.book);
        }
        let generation = Arc::new(generation);
        self.retired.put(self.live.swap(generation));
        self.measures.generation.set(next.manifest.generation);
    }

    /// The generation of what `next` holds.
    fn assemble(&self, next: &Snapshot) -> Generation {
        let configured = |name: &Name| self.settings.datasets.get_or_default(name);
        let exact = next.audiences.iter().map(|(name, audience)| {
            let members = Members::Exact(Arc::clone(audience));
            (name, audience.meta().version, members)
        });
        let approximate = next.filters.iter().map(|(name, measured)| {
            let members = Members::Approximate {
                filter: Arc::clone(&measured.filter),
                confirm: configured(name).filter.confirm,
            };
            (name, measured.filter.meta().version, members)
        });
        let versions = exact.chain(approximate);
        let mut live: Vec<LiveVersion> = versions
            .map(|(name, version, members)| LiveVersion {
                name: name.clone(),
                ordinal: next.ordinals.get(name).copied().unwrap_or_default(),
                version,
                members,
                purposes: Purposes::of(&configured(name).purposes),
                covers: next.covers(name, version),
            })
            .collect();
        live.sort_by(|a, b| a.name.cmp(&b.name));
        // A map's order is that of names.
        let graphs = next.graphs.iter().map(|(name, graph)| LiveGraph {
            name: name.clone(),
            ordinal: next.ordinals.get(name).copied().unwrap_or_default(),
            version: graph.meta().version,
            graph: Arc::clone(graph),
            purposes: Purposes::of(&configured(name).purposes),
        });
        let scores = |name: &Name| Some(&*next.scores.get(name)?.scores);
        Generation {
            graphs: graphs.collect(),
            scores: next.book.tie_scores(scores),
            ..Generation::assemble(
                next.manifest.generation,
                Arc::clone(&next.book),
                next.campaigns_version,
                live,
                self.settings.frame.clone(),
            )
        }
    }
}

impl Drop for Datasets {
    fn drop(&mut self) {
        self.retired.close();
        self.chores.close();
    }
}

/// Locks; what a panic left behind is whole, because values are replaced, never changed in place.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
