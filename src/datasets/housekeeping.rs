//! What is done in the background, on a thread of its own at the lowest priority: deltas are compacted, and mapped versions
//! copied into memory ([`settling`](super::settling)).
//!
//! A live version of many deltas starts slowly, keeps all their files, and has a large layer in memory. So once its layer is a
//! tenth as large as the full version below, or its deltas are [`DELTAS_MAX`], they are made into a full version: a file
//! beside the delta's own, of which the same version is then opened. Nobody notices: it says of everybody what it said, under the same
//! number. The versions below stay as they are, to go back to, until retention removes them.
//!
//! Order, as of every change: file durable, manifest durable, swap. Where anything fails the layer stays in force, and it is
//! tried again a minute later, then after twice as long and so on, up to a day: what fails lastingly must not read and write
//! gigabytes with each delta.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::activation::{Effect, Opened, known, known_mut, unknown_version};
use super::guards::shown;
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
/// How long after a first failure compacting is tried again; after each further one twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(60);
/// The longest that it waits.
const RETRY_LAST: Duration = Duration::from_secs(86_400);
/// What is to be left on the disk when a file has been written that nobody has asked for, so that an upload still fits.
const DISK_SPARE: u64 = 64 << 20;

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
    /// When each is to be done.
    compact: BTreeMap<Name, Instant>,
    /// How often in a row compacting has failed, and before when it is not tried again.
    failed: BTreeMap<Name, (u32, Instant)>,
    /// Versions to be verified without waiting for their turn.
    suspects: BTreeSet<(Name, u64)>,
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

/// How long to wait after so many failures in a row.
fn retry_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_LAST)
}

impl Chores {
    pub(super) fn ask(&self, name: &Name) {
        self.ask_at(name, Instant::now());
    }

    fn ask_at(&self, name: &Name, now: Instant) {
        let mut waiting = lock(&self.0.waiting);
        let due = waiting
            .failed
            .get(name)
            .map_or(now, |failed| failed.1.max(now));
        waiting.compact.entry(name.clone()).or_insert(due);
        drop(waiting);
        self.0.changed.notify_all();
    }

    /// What became of a dataset that was to be compacted: what failed is asked for again, later.
    fn ended(&self, name: &Name, well: bool, now: Instant) {
        let mut waiting = lock(&self.0.waiting);
        if well {
            waiting.failed.remove(name);
            return;
        }
        let failures = waiting.failed.get(name).map_or(0, |failed| failed.0);
        let failures = failures.saturating_add(1);
        let due = now.checked_add(retry_after(failures)).unwrap_or(now);
        waiting.failed.insert(name.clone(), (failures, due));
        waiting.compact.insert(name.clone(), due);
    }

    /// Asks for a version to be verified soon: it could not be opened.
    pub(super) fn suspect(&self, name: &Name, number: u64) {
        lock(&self.0.waiting)
            .suspects
            .insert((name.clone(), number));
        self.0.changed.notify_all();
    }

    /// One that is suspected.
    pub(super) fn next_suspect(&self) -> Option<(Name, u64)> {
        lock(&self.0.waiting).suspects.pop_first()
    }

    /// Waits so long; or, where `for_suspects`, until one is. False once all is to end.
    pub(super) fn rest(&self, time: Duration, for_suspects: bool) -> bool {
        let began = Instant::now();
        let mut waiting = lock(&self.0.waiting);
        loop {
            let left = time.saturating_sub(began.elapsed());
            let woken = for_suspects && !waiting.suspects.is_empty();
            if waiting.closed || left.is_zero() || woken {
                return !waiting.closed;
            }
            let changed = &self.0.changed;
            let waited = changed.wait_timeout(waiting, left);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
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
        self.0.changed.notify_all();
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
            let now = Instant::now();
            // First what gives memory back that a compaction may need.
            let ready = waiting
                .settle
                .iter()
                .find(|(_, (remains, at))| *at <= now && remains.iter().all(Remains::is_gone));
            if let Some(name) = ready.map(|(name, _)| name.clone()) {
                waiting.settle.remove(&name);
                return Some(Chore::Settle(name));
            }
            let first = waiting.compact.iter().min_by_key(|(_, due)| **due);
            let first = first.map(|(name, due)| (name.clone(), due.saturating_duration_since(now)));
            let left = match first {
                Some((name, left)) if left.is_zero() => {
                    waiting.compact.remove(&name);
                    return Some(Chore::Compact(name));
                }
                first => first.map(|(_, left)| left),
            };
            let look = (!waiting.settle.is_empty()).then_some(SETTLE_LOOK);
            let changed = &self.0.changed;
            waiting = match [left, look].into_iter().flatten().min() {
                Some(time) => {
                    let waited = changed.wait_timeout(waiting, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => changed
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
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
            let compacted = datasets.compact(&name, now());
            self.chores.ended(&name, compacted.is_ok(), Instant::now());
            match compacted {
                Ok(false) => {}
                Ok(true) => datasets.measures.compacted(&name, true),
                Err(reason) => {
                    tracing::warn!(dataset = %name, %reason, "deltas could not be compacted and are served as they are; it is tried again later, less and less often");
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
        self.disk_for(audience.bytes())?;
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

    /// Whether so much may be written that nobody has asked for.
    pub(super) fn disk_for(&self, bytes: u64) -> Result<(), Reason> {
        let needed = bytes.saturating_add(DISK_SPARE);
        match self.storage.free_bytes() {
            Some(free) if free < needed => Err(format!(
                "it takes {} of disk and {} are to be left, but {} are free; delete versions, or enlarge the disk",
                shown(bytes),
                shown(DISK_SPARE),
                shown(free)
            )),
            _ => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_after_twice_as_long_up_to_a_day() {
        let minutes = |failures| retry_after(failures).as_secs() / 60;
        let waits: Vec<u64> = (1..=13).map(minutes).collect();
        assert_eq!(
            waits,
            [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440]
        );
        assert_eq!(minutes(u32::MAX), 1440);
    }

    #[test]
    fn a_delta_does_not_bring_forward_what_has_failed_and_a_success_forgets_it() {
        let chores = Chores::default();
        let name: Name = "crm".parse().expect("a name");
        let due = |chores: &Chores| lock(&chores.0.waiting).compact.get(&name).copied();
        let began = Instant::now();
        chores.ask_at(&name, began);
        assert_eq!(chores.next(), Some(Chore::Compact(name.clone())));
        assert_eq!(due(&chores), None);
        chores.ended(&name, false, began);
        let minute = began + Duration::from_secs(60);
        assert_eq!(due(&chores), Some(minute), "asked for again");
        chores.ask_at(&name, began);
        assert_eq!(due(&chores), Some(minute), "no sooner for a delta");
        chores.ended(&name, false, minute);
        assert_eq!(due(&chores), Some(minute + Duration::from_secs(120)));
        lock(&chores.0.waiting).compact.clear();
        chores.ended(&name, true, minute);
        chores.ask_at(&name, minute);
        assert_eq!(due(&chores), Some(minute));
    }
}
