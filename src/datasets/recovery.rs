//! From a data directory to a running set of datasets: what was live is live again, or the service is not ready.
//!
//! Recovery opens each live version by the path every activation takes. A version that cannot be read back is named,
//! logged and left as it is: no other version is chosen in its place, because an older audience may target people who
//! have been removed since. An operator activates or uploads one, and the service becomes ready.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::housekeeping::Chores;
use super::live::Retired;
use super::manifest::{self, Dataset, Manifest, ManifestError, VERSIONS};
use super::measures::Measures;
use super::{Datasets, Live, Settings, Snapshot, lock};
use crate::campaigns::Book;
use crate::clock::Timestamp;
use crate::generation::Generation;
use crate::ids::{Kind, Name};
use crate::storage::{Storage, StorageError, open_to_read};

/// Why the datasets of a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenFailed {
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Reading or writing.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Reading.
    #[error("reading the data directory failed: {0}")]
    Io(#[from] std::io::Error),
    /// The configuration contradicts what is stored.
    #[error(
        "dataset `{dataset}` holds kind {stored}, the configuration says {configured}; correct datasets.{dataset}.kind, or use another name"
    )]
    Kind {
        /// The dataset.
        dataset: Name,
        /// In the manifest.
        stored: Kind,
        /// In the configuration.
        configured: Kind,
    },
    /// Two series of one name: a bug.
    #[error("registering metrics failed: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Why the service is not ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Start-up.
    #[error("bringing back what was live before the restart")]
    Recovering,
    /// A live version could not be brought back.
    #[error(
        "the live version of dataset `{dataset}` could not be brought back ({reason}); upload the same body again, restore its file and activate it, activate another version, or upload a new one"
    )]
    Unreadable {
        /// The dataset.
        dataset: Name,
        /// What is wrong.
        reason: String,
    },
    /// A sync failed.
    #[error("storage has stopped writing: {0}; check the disk and restart")]
    Storage(String),
}

impl Datasets {
    /// Reads what is known of a directory. Nothing is served until [`Datasets::recover`].
    pub fn open(
        settings: Settings,
        storage: Storage,
        registry: &prometheus::Registry,
    ) -> Result<(Arc<Datasets>, Live), OpenFailed> {
        let mut manifest = load(&storage)?;
        add_configured(&mut manifest, &settings)?;
        let measures = Measures::register(registry)?;
        let mut ordinals = BTreeMap::new();
        for (ordinal, (name, dataset)) in manifest.datasets.iter().enumerate() {
            measures.begin(name, dataset.kind);
            ordinals.insert(name.clone(), ordinal);
        }
        let book = Arc::new(Book::empty());
        let first = Generation::assemble(
            0,
            Arc::clone(&book),
            None,
            Vec::new(),
            settings.frame.clone(),
        );
        let live = Live::new(Arc::new(first));
        let datasets = Datasets {
            settings,
            storage,
            live: live.clone(),
            retired: Retired::start()?,
            measures,
            chores: Chores::default(),
            recovered: AtomicBool::new(false),
            changes: Mutex::default(),
            state: Mutex::new(Arc::new(Snapshot {
                manifest,
                audiences: BTreeMap::new(),
                filters: BTreeMap::new(),
                graphs: BTreeMap::new(),
                scores: BTreeMap::new(),
                book,
                campaigns_version: None,
                document: Arc::default(),
                ordinals,
                unreadable: BTreeMap::new(),
            })),
            building: Mutex::default(),
        };
        Ok((Arc::new(datasets), live))
    }

    /// Makes live again what was live. Blocks while every byte of it is verified. Once; again changes nothing. What cannot be
    /// opened because its files are damaged goes to the quarantine.
    pub fn recover(&self, now: Timestamp) -> Result<(), NotReady> {
        if !self.recovered() {
            let one_at_a_time = lock(&self.changes);
            let mut next = Snapshot::clone(&self.snapshot());
            self.remove_leftovers(&next.manifest);
            let names: Vec<Name> = next.manifest.datasets.keys().cloned().collect();
            let mut back = Vec::new();
            for name in names {
                let started = Instant::now();
                let live = next.manifest.datasets.get(&name).and_then(|d| d.live);
                let Some(number) = live else { continue };
                match self.open_version(&name, number, &next) {
                    Ok(opened) => {
                        next.hold_open(&name, number, opened);
                        back.push((name, started.elapsed().as_secs_f64()));
                    }
                    Err(reason) => {
                        tracing::error!(dataset = %name, version = number, %reason, "a live version could not be brought back; the service will not be ready");
                        let reason = format!("version {number}: {reason}");
                        next.unreadable.insert(name, reason);
                    }
                }
            }
            self.swap(&next);
            self.replace(next);
            for (name, seconds) in back {
                self.served(&name, seconds);
            }
            drop(one_at_a_time);
            self.mend_unreadable(now);
            self.recovered.store(true, Ordering::Release);
        }
        self.readiness()
    }

    /// Removes version files that the manifest does not name: a crash came between the file and the manifest.
    fn remove_leftovers(&self, manifest: &Manifest) {
        let versions = self.storage.dir().join(VERSIONS);
        for folder in folder_names(&versions) {
            let Ok(name) = folder.parse::<Name>() else {
                continue;
            };
            for file in folder_names(&versions.join(&folder)) {
                let compacted = file.strip_suffix(".full.kith");
                let number = compacted
                    .or_else(|| file.strip_suffix(".kith"))
                    .or_else(|| file.strip_suffix(".json"))
                    .and_then(|n| n.parse::<u64>().ok());
                let Some(number) = number else { continue };
                let dataset = manifest.datasets.get(&name);
                let version = dataset.and_then(|dataset| dataset.versions.get(&number));
                let named = version.is_some_and(|v| compacted.is_none() || v.compacted.is_some());
                if !named {
                    let path = Path::new(VERSIONS).join(&folder).join(&file);
                    tracing::info!(file = %path.display(), "removing a version file that was never acknowledged");
                    if let Err(error) = self.storage.remove(&path) {
                        tracing::warn!(%error, "it could not be removed");
                    }
                }
            }
        }
    }
}

/// The manifest, or a first one when the directory is fresh.
fn load(storage: &Storage) -> Result<Manifest, OpenFailed> {
    let mut file = match open_to_read(&storage.dir().join(manifest::FILE)) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if storage.dir().join(VERSIONS).exists() {
                return Err(ManifestError::Missing.into());
            }
            let first = Manifest::default();
            let bytes = first.encode().map_err(std::io::Error::from)?;
            storage.write_atomic(Path::new(manifest::FILE), bytes)?;
            return Ok(first);
        }
        Err(e) => return Err(e.into()),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Manifest::decode(&bytes)?)
}

/// Datasets of the configuration exist from the start, and so does `campaigns`.
fn add_configured(manifest: &mut Manifest, settings: &Settings) -> Result<(), OpenFailed> {
    for configured in settings.datasets.iter() {
        let (name, kind) = (configured.name.clone(), configured.kind);
        let dataset = manifest
            .datasets
            .entry(name.clone())
            .or_insert_with(|| Dataset::new(kind));
        if dataset.kind != kind {
            return Err(OpenFailed::Kind {
                dataset: name,
                stored: dataset.kind,
                configured: kind,
            });
        }
    }
    Ok(())
}

fn folder_names(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect()
}
