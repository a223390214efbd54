//! What is done in the background, on a thread of its own at the lowest priority: deltas are compacted.
//!
//! A live version of many deltas starts slowly, keeps all their files, and has a large layer in memory. So once its layer is a
//! tenth as large as the full version below, or its deltas are [`DELTAS_MAX`], they are made into a full version: a file
//! beside the delta's own, of which the same version is then opened. Nobody notices: it says of everybody what it said, under the same
//! number. The versions below stay as they are, to go back to, until retention removes them.
//!
//! Order, as of every change: file durable, manifest durable, swap. Where anything fails the layer stays in force, and the
//! next delta asks again.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use super::activation::{Effect, Opened, known, known_mut, unknown_version};
use super::manifest::{Dataset, compacted_file};
use super::{Datasets, Snapshot, lock};
use crate::audience::Audience;
use crate::clock::Timestamp;
use crate::ids::{Kind, Name};

/// Of how many deltas a live version is made at most before it is compacted: at a start each is a file to read.
const DELTAS_MAX: usize = 32;
/// A layer smaller than this is not worth the writing, however small the full version below.
const LAYER_BYTES_MIN: u64 = 1 << 20;
/// How many times as large the full version may be as a layer that is worth it.
const LAYER_SHARE: u64 = 10;

/// What waits to be done. Not part of the datasets, so that who waits for it does not keep them alive, and with them the lock on their
/// directory.
#[derive(Debug, Clone, Default)]
pub(super) struct Chores(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    compact: BTreeSet<Name>,
    closed: bool,
}

impl Chores {
    fn ask(&self, name: &Name) {
        lock(&self.0.waiting).compact.insert(name.clone());
        self.0.changed.notify_one();
    }

    /// Ends whoever waits.
    pub(super) fn close(&self) {
        lock(&self.0.waiting).closed = true;
        self.0.changed.notify_all();
    }

    /// The next dataset to compact; nothing once all is to end.
    fn next(&self) -> Option<Name> {
        let mut waiting = lock(&self.0.waiting);
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(name) = waiting.compact.pop_first() {
                return Some(name);
            }
            let changed = &self.0.changed;
            waiting = changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Why a version was not compacted.
type Reason = String;

/// Does what there is to do in the background, for a thread of its own.
#[derive(Debug)]
pub struct Housekeeping {
    chores: Chores,
    datasets: Weak<Datasets>,
}

impl Housekeeping {
    /// Works until the datasets are dropped.
    pub fn run(self, now: fn() -> Timestamp) {
        while let Some(name) = self.chores.next() {
            let Some(datasets) = self.datasets.upgrade() else {
                return;
            };
            match datasets.compact(&name, now()) {
                Ok(false) => {}
                Ok(true) => datasets.measures.compacted(&name, true),
                Err(reason) => {
                    tracing::warn!(dataset = %name, %reason, "deltas could not be compacted and are served as they are");
                    datasets.measures.compacted(&name, false);
                }
            }
        }
    }
}

impl Datasets {
    /// What is to be run in the background.
    pub fn housekeeping(self: &Arc<Self>) -> Housekeeping {
        Housekeeping {
            chores: self.chores.clone(),
            datasets: Arc::downgrade(self),
        }
    }

    /// Asks for what is live of a dataset to be compacted, where that is worth it.
    pub(super) fn compact_if_worth(&self, name: &Name, state: &Snapshot) {
        if is_worth(name, state) {
            self.chores.ask(name);
        }
    }

    /// Makes a full version of what is live of a dataset and its deltas, and serves it from that. Whether there was anything to
    /// make it of.
    pub(super) fn compact(&self, name: &Name, now: Timestamp) -> Result<bool, Reason> {
        let before = self.snapshot();
        let open = before.audiences.get(name);
        let Some(audience) = open.filter(|audience| audience.changed_ids() > 0) else {
            return Ok(false);
        };
        let number = audience.meta().version;
        // It will be about as large; asked before it is written, and again when its size is known.
        self.room_to_compact(name, audience.bytes())?;
        let file = compacted_file(name, number);
        let mut out = self.storage.create().map_err(|e| e.to_string())?;
        audience.compact(&mut out).map_err(|e| e.to_string())?;
        let bytes = out.commit(&file).map_err(|e| e.to_string())?;
        let done = self.serve_compacted(name, number, bytes, now);
        if done.is_err()
            && let Err(error) = self.storage.remove(&file)
        {
            tracing::warn!(%error, "a file that nothing names could not be removed");
        }
        done.map(|()| true)
    }

    fn room_to_compact(&self, name: &Name, bytes: u64) -> Result<(), Reason> {
        match self.room(name, Kind::Audience, bytes).enough() {
            true => Ok(()),
            false => Err("there is not enough memory to open it beside the live one".to_owned()),
        }
    }

    /// Makes the compacted file the one that a version is opened from.
    fn serve_compacted(
        &self,
        name: &Name,
        number: u64,
        bytes: u64,
        now: Timestamp,
    ) -> Result<(), Reason> {
        self.room_to_compact(name, bytes)?;
        let base = Audience::from(self.read_compacted(name, number)?);
        // While no upload is on its way, which would be laid over what is in force now and be put in its place.
        let building = self.building(name);
        let _nothing_comes = lock(&building);
        // Deltas may have come meanwhile, which are over the same version.
        let state = self.snapshot();
        let dataset = known(&state, name).map_err(|e| e.to_string())?;
        let live = dataset.live.ok_or("nothing is live any more")?;
        let above = above(dataset, live, number).ok_or("another version has become live")?;
        let deltas: Result<Vec<_>, _> = above
            .iter()
            .map(|number| self.read_audience(name, *number))
            .collect();
        let served = base.changed_by(&deltas?).map_err(|e| e.to_string())?;
        let swapped = self.change(|next| {
            let dataset = known_mut(next, name)?;
            let still = dataset.live == Some(live);
            let version = dataset
                .versions
                .get_mut(&number)
                .ok_or_else(|| unknown_version(name, number))?;
            version.compacted = Some(bytes);
            dataset.note(
                now,
                "compacted",
                Some(number),
                "its deltas, in the background",
            );
            // What only older deltas rested on may go now.
            let gone = self.retire(name, dataset, now);
            if still {
                next.hold_open(name, live, Opened::Audience(served.into()));
            }
            let effect = Effect {
                swap: still,
                gone,
                freeing: false,
            };
            Ok(((), effect))
        });
        swapped.map_err(|e| e.to_string())
    }
}

/// The deltas from a version up to the live one, without that version; nothing where the live one does not rest on it.
fn above(dataset: &Dataset, live: u64, number: u64) -> Option<Vec<u64>> {
    let chain = dataset.chain(live)?;
    let at = chain.iter().position(|link| *link == number)?;
    Some(chain.get(at.checked_add(1)?..)?.to_vec())
}

fn is_worth(name: &Name, state: &Snapshot) -> bool {
    let open = state.audiences.get(name);
    let Some(audience) = open.filter(|audience| audience.changed_ids() > 0) else {
        return false;
    };
    let below = audience.base().bytes();
    let layer = audience.bytes().saturating_sub(below);
    let dataset = state.manifest.datasets.get(name);
    let chain = dataset.and_then(|dataset| dataset.chain(dataset.live?));
    layer > LAYER_BYTES_MIN.max(below / LAYER_SHARE)
        || chain.is_some_and(|chain| chain.len() > DELTAS_MAX)
}
