//! What is done in the background, on a thread of its own at the lowest priority: deltas are compacted, and mapped versions
//! copied into memory ([`settling`](super::settling)).
//!
//! A live version of many deltas starts slowly, keeps all their files, and has a large layer in memory. So once its layer is a
//! tenth as large as the full version below, or its deltas are [`DELTAS_MAX`], they are made into a full version: a file
//! beside the delta's own, of which the same version is then opened. Nobody notices: it says of everybody what it said, under the same
//! number. The versions below stay as they are, to go back to, until retention removes them.
//!
//! Order, as of every change: file durable, manifest durable, swap. Where anything fails the layer stays in force, and the
//! next delta asks again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::activation::{Effect, Opened, known, known_mut, unknown_version};
use super::manifest::{Dataset, compacted_file};
use super::settling::Remains;
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
/// How often it is looked whether memory of a replaced version is given back. Readers let go within a second.
const SETTLE_LOOK: Duration = Duration::from_millis(100);
/// How long after a copy that failed the next one is tried.
const SETTLE_AGAIN: Duration = Duration::from_secs(30);

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
    /// Datasets that are served mapped, each with what has to be gone before it is copied and the time before which it is not
    /// tried.
    settle: BTreeMap<Name, (Vec<Remains>, Instant)>,
    closed: bool,
}

/// Something to do.
#[derive(Debug, PartialEq, Eq)]
enum Chore {
    Compact(Name),
    Settle(Name),
}

impl Chores {
    fn ask(&self, name: &Name) {
        lock(&self.0.waiting).compact.insert(name.clone());
        self.0.changed.notify_one();
    }

    /// Asks for what a dataset serves mapped to be copied once these are gone, and those of before.
    pub(super) fn settle(&self, name: &Name, remains: Vec<Remains>) {
        let mut waiting = lock(&self.0.waiting);
        let now = Instant::now();
        let waiting = waiting
            .settle
            .entry(name.clone())
            .or_insert_with(|| (Vec::new(), now));
        waiting.0.extend(remains);
        waiting.0.retain(|remains| !remains.is_gone());
        self.0.changed.notify_one();
    }

    fn settle_later(&self, name: Name) {
        let again = Instant::now() + SETTLE_AGAIN;
        lock(&self.0.waiting)
            .settle
            .entry(name)
            .or_insert_with(|| (Vec::new(), again));
    }

    /// Ends whoever waits.
    pub(super) fn close(&self) {
        lock(&self.0.waiting).closed = true;
        self.0.changed.notify_all();
    }

    /// What is to be done next; nothing once all is to end.
    fn next(&self) -> Option<Chore> {
        let mut waiting = lock(&self.0.waiting);
        loop {
            if waiting.closed {
                return None;
            }
            // First what gives memory back that a compaction may need.
            let now = Instant::now();
            let ready = waiting
                .settle
                .iter()
                .find(|(_, (remains, at))| *at <= now && remains.iter().all(Remains::is_gone));
            if let Some(name) = ready.map(|(name, _)| name.clone()) {
                waiting.settle.remove(&name);
                return Some(Chore::Settle(name));
            }
            if let Some(name) = waiting.compact.pop_first() {
                return Some(Chore::Compact(name));
            }
            let changed = &self.0.changed;
            waiting = match waiting.settle.is_empty() {
                true => changed
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
                false => {
                    changed
                        .wait_timeout(waiting, SETTLE_LOOK)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }
}

/// Why something was not done.
pub(super) type Reason = String;

/// Does what there is to do in the background, for a thread of its own.
#[derive(Debug)]
pub struct Housekeeping {
    chores: Chores,
    datasets: Weak<Datasets>,
}

impl Housekeeping {
    /// Works until the datasets are dropped.
    pub fn run(self, now: fn() -> Timestamp) {
        while let Some(chore) = self.chores.next() {
            let Some(datasets) = self.datasets.upgrade() else {
                return;
            };
            let name = match chore {
                Chore::Compact(name) => name,
                Chore::Settle(name) => {
                    if let Err(reason) = datasets.settle(&name) {
                        tracing::warn!(dataset = %name, %reason, "the live version could not be copied into memory");
                        self.chores.settle_later(name);
                    }
                    continue;
                }
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
        let base = Audience::from(self.read_compacted(name, number, &self.snapshot())?);
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
            .map(|number| self.read_audience(name, *number, None))
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
