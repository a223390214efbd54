//! What is done about what was found damaged.
//!
//! A file on disk ([`Datasets::mend`]) is looked at once more, so that a passing fault of a cable moves nothing. It is then moved to
//! `quarantine/`, under a name that says when and what it was, and written again where its bytes are whole in memory: a live full
//! version, filter, identity graph or campaigns document. Else, where the version can be opened without it (a compacted file whose deltas are there,
//! a delta that has been compacted), nothing is lost. Else the version is: the manifest says so, it is not activated any more,
//! nor are deltas over it, until the same body is uploaded again. A live version that rests on a lost delta is compacted, as
//! what it says is still whole in memory.
//!
//! What is live and was found changed in memory ([`Datasets::mend_memory`]) is opened again from its files. Where these are
//! not whole either, the newest version that has been served before takes its place, loudly; and where there is none, the
//! dataset has none, as after a first start.
//!
//! Order: aside, written again, manifest. A crash between leaves a file that is gone and of which the manifest says nothing,
//! and the next scrub, or start, finds that.
//!
//! Cost: nothing while all is well. A damaged file is read twice; uploads to its dataset wait meanwhile.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::activation::{Effect, Opened, known_mut, unknown_version};
use super::manifest::{Damage, Quarantined, Standing};
use super::measures::Scrubbed;
use super::scrub::{Held, Look, Part, Piece, at_once};
use super::{Datasets, Refused, Snapshot, lock};
use crate::clock::Timestamp;
use crate::ids::{Kind, Name};

/// The folder of files that were found damaged.
pub(super) const QUARANTINE: &str = "quarantine";
/// Most files in it: more are no more telling.
pub(super) const QUARANTINE_FILES_MAX: usize = 16;

/// Where a damaged file went.
#[derive(Debug, Default)]
struct Aside {
    /// Its new name inside the data directory; nothing where it was gone, or too large to keep.
    file: Option<PathBuf>,
    bytes: u64,
}

/// What became of a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Rewritten,
    NotNeeded,
    Lost,
}

impl Datasets {
    /// Moves a damaged file aside and puts a whole one in its place, if there is one to be had.
    pub(super) fn mend(&self, piece: &Piece, now: Timestamp) {
        let (name, number) = (&piece.dataset, piece.number);
        match self.mend_alone(piece, now) {
            Ok(None) => {}
            Ok(Some(Outcome::Lost)) => {
                self.measures.scrubbed(name, Scrubbed::Lost);
                self.keep_what_is_live(name);
            }
            Ok(Some(Outcome::Rewritten | Outcome::NotNeeded)) => {
                self.measures.scrubbed(name, Scrubbed::Mended);
                // What is served of a delta may have been all that was whole of it.
                self.keep_what_is_live(name);
            }
            Err(error) => {
                tracing::error!(dataset = %name, version = number, file = %piece.file.display(), %error, "a damaged file could not be dealt with; it is tried again");
                self.measures.scrubbed(name, Scrubbed::Unread);
            }
        }
    }

    /// Has the live version written anew where it is whole only in memory.
    fn keep_what_is_live(&self, name: &Name) {
        let state = self.snapshot();
        let dataset = state.manifest.datasets.get(name);
        let live = dataset.and_then(|dataset| dataset.lost(dataset.live?));
        if live.is_some() && state.audiences.contains_key(name) {
            self.chores.ask(name);
        }
    }

    fn mend_alone(&self, piece: &Piece, now: Timestamp) -> Result<Option<Outcome>, Refused> {
        let (name, number) = (&piece.dataset, piece.number);
        let building = self.building(name);
        let _nothing_comes = lock(&building);
        let state = self.snapshot();
        if !state.pieces(name, number).contains(piece) {
            return Ok(None);
        }
        let Some(Look::Damaged(reason)) = self.look(piece) else {
            tracing::warn!(dataset = %name, version = number, file = %piece.file.display(), "a file was found damaged, and whole when it was read again: look at the disk and its cables");
            return Ok(None);
        };
        let copy = state.copy_of(piece);
        let aside = self.put_aside(piece, now)?;
        let rewritten = match copy.as_ref().and_then(|copy| copy_bytes(copy)) {
            None => false,
            Some(bytes) => match self.write_again(piece, bytes, &aside) {
                Ok(()) => true,
                Err(reason) => {
                    tracing::warn!(dataset = %name, version = number, %reason, "a damaged file could not be written again from memory");
                    false
                }
            },
        };
        let known = state.manifest.datasets.get(name);
        let known = known.and_then(|dataset| dataset.versions.get(&number));
        let is_known = known.is_some_and(|version| version.damage.is_some());
        if is_known && aside.file.is_none() && !rewritten && piece.part == Part::Own {
            // Nothing new: it could not be written again this time either.
            return Ok(None);
        }
        let dir = self.storage.dir().to_owned();
        let outcome = self.change(|next| {
            let kept = &mut next.manifest.quarantine;
            if let Some(file) = &aside.file {
                // One of the same name was of the same moment, and is no more.
                kept.retain(|kept| Path::new(&kept.file) != file);
                kept.push(Quarantined {
                    at: now,
                    dataset: name.clone(),
                    version: number,
                    file: file.display().to_string(),
                    bytes: aside.bytes,
                    reason: reason.clone(),
                });
            }
            kept.retain(|kept| dir.join(&kept.file).exists());
            let dataset = known_mut(next, name)?;
            let file = piece.file.display().to_string();
            let found = format!("{file} {reason}");
            dataset.note(now, "quarantined", Some(number), &found);
            let version = dataset
                .versions
                .get_mut(&number)
                .ok_or_else(|| unknown_version(name, number))?;
            if rewritten {
                version.damage = None;
                version.verified_at = Some(now);
                dataset.note(
                    now,
                    "rewritten",
                    Some(number),
                    "from what is live in memory",
                );
                return Ok((Outcome::Rewritten, Effect::default()));
            }
            let damage = Damage {
                at: now,
                file,
                reason: reason.clone(),
            };
            match piece.part {
                Part::Own => version.damage = Some(damage),
                Part::Compacted => {
                    version.compacted = None;
                    // Then it is opened from its deltas, if they are there.
                    if dataset.lost(number).is_some()
                        && let Some(version) = dataset.versions.get_mut(&number)
                    {
                        version.damage.get_or_insert(damage);
                    }
                }
            }
            let outcome = match dataset.lost(number) {
                Some(_) => Outcome::Lost,
                None => Outcome::NotNeeded,
            };
            Ok((outcome, Effect::default()))
        })?;
        let file = piece.file.display();
        let to = aside
            .file
            .map_or_else(|| "nowhere".to_owned(), |to| to.display().to_string());
        match outcome {
            Outcome::Rewritten => {
                tracing::error!(dataset = %name, version = number, %file, %reason, %to, "a file was damaged; it was moved aside and written again from what is live in memory: look at the disk");
            }
            Outcome::NotNeeded => {
                tracing::error!(dataset = %name, version = number, %file, %reason, %to, "a file was damaged; it was moved aside, and its version can be opened without it: look at the disk");
            }
            Outcome::Lost => {
                tracing::error!(dataset = %name, version = number, %file, %reason, %to, "a version is damaged and cannot be activated any more: upload the same body again, and look at the disk");
            }
        }
        Ok(Some(outcome))
    }

    /// Looks at a file, as fast as it goes.
    pub(super) fn look(&self, piece: &Piece) -> Option<Look> {
        let ours = self.settings.frame.keyer.key_id();
        piece.look(self.storage.dir(), ours, &mut at_once)
    }

    /// Moves a file to the quarantine, from which the oldest go to make room.
    fn put_aside(&self, piece: &Piece, now: Timestamp) -> Result<Aside, Refused> {
        let path = self.storage.dir().join(&piece.file);
        let bytes = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Aside::default()),
            Err(e) => return Err(e.into()),
        };
        let most = self.settings.quarantine_bytes;
        if bytes > most {
            self.storage.remove(&piece.file)?;
            return Ok(Aside::default());
        }
        let mut kept = quarantined(self.storage.dir());
        let mut total = kept
            .iter()
            .fold(bytes, |sum, file| sum.saturating_add(file.1));
        while total > most || kept.len() >= QUARANTINE_FILES_MAX {
            if kept.is_empty() {
                break;
            }
            let (oldest, bytes) = kept.remove(0);
            self.storage.remove(&oldest)?;
            total = total.saturating_sub(bytes);
        }
        let file = piece.file.file_name().unwrap_or_default().to_string_lossy();
        let at = now.to_string().replace(':', "-");
        let to = Path::new(QUARANTINE).join(format!("{at}_{}_{file}", piece.dataset));
        self.storage.rename(&piece.file, &to)?;
        let file = Some(to);
        Ok(Aside { file, bytes })
    }

    /// Writes a file's bytes under its name. On a full disk what was put aside makes room.
    fn write_again(&self, piece: &Piece, bytes: &[u8], aside: &Aside) -> Result<(), String> {
        let length = bytes.len() as u64;
        if let (Err(_), Some(damaged)) = (self.disk_for(length), &aside.file) {
            self.storage.remove(damaged).map_err(|e| e.to_string())?;
        }
        let mut out = self.storage.create().map_err(|e| e.to_string())?;
        out.write_all(bytes).map_err(|e| e.to_string())?;
        out.commit(&piece.file).map_err(|e| e.to_string())?;
        match self.look(piece) {
            Some(Look::Whole) => Ok(()),
            other => Err(format!("what was written was found to be {other:?}")),
        }
    }

    /// After a start that could not open what was live: deals with those of its files that are damaged, and opens it where it can
    /// be opened without them.
    pub(super) fn mend_unreadable(&self, now: Timestamp) {
        let unreadable = self.snapshot().unreadable.clone();
        for name in unreadable.keys() {
            let state = self.snapshot();
            let dataset = state.manifest.datasets.get(name);
            let Some(number) = dataset.and_then(|dataset| dataset.live) else {
                continue;
            };
            if !self.mend_files(name, number, now) {
                continue;
            }
            if let Ok(opened) = self.open_version(name, number, &self.snapshot())
                && let Err(error) = self.reopened(name, number, opened, now)
            {
                tracing::error!(dataset = %name, version = number, %error, "a version could be opened again and not be put in place");
            }
        }
    }

    /// Deals with all files that a version is opened from and that are damaged, as far as that is not known yet; whether there
    /// were any.
    fn mend_files(&self, name: &Name, number: u64, now: Timestamp) -> bool {
        let state = self.snapshot();
        let dataset = state.manifest.datasets.get(name);
        let chain = dataset.and_then(|dataset| dataset.chain(number));
        let mut any = false;
        for number in chain.unwrap_or_default() {
            let known = dataset.and_then(|dataset| dataset.versions.get(&number));
            let is_known = known.is_some_and(|version| version.damage.is_some());
            for piece in state.pieces(name, number) {
                let is_known = is_known && piece.part == Part::Own;
                if !is_known && matches!(self.look(&piece), Some(Look::Damaged(_))) {
                    self.mend(&piece, now);
                    any = true;
                }
            }
        }
        any
    }

    /// Puts something whole in the place of what is live and has changed in memory.
    pub(super) fn mend_memory(&self, name: &Name, number: u64, now: Timestamp) {
        self.mend_files(name, number, now);
        let building = self.building(name);
        let nothing_comes = lock(&building);
        if let Err(error) = self.mend_memory_alone(name, number, now) {
            tracing::error!(dataset = %name, version = number, %error, "what is live has changed in memory and could not be replaced; it is tried again");
        }
        drop(nothing_comes);
    }

    fn mend_memory_alone(&self, name: &Name, number: u64, now: Timestamp) -> Result<(), Refused> {
        let state = self.snapshot();
        let held = state.held(name, number);
        let changed = held
            .as_ref()
            .and_then(|held| held.verify(&mut at_once).err());
        let (Some(flaw), Some(dataset)) = (changed, state.manifest.datasets.get(name)) else {
            return Ok(());
        };
        tracing::error!(dataset = %name, version = number, %flaw, "memory changed under what is live: take the machine out and test its memory");
        drop(held);
        // Nothing may be laid over what is damaged.
        let mut whole = Snapshot::clone(&state);
        whole.let_go(name);
        let record = dataset.versions.get(&number);
        let bytes = record.map_or(0, |version| whole.opening_bytes(name, number, version));
        if !self.room(name, dataset.kind, bytes).enough() {
            // Then not both at once: for a moment nobody is found in it.
            self.change(|next| {
                next.let_go(name);
                let why = format!("version {number}: memory changed under it");
                next.unreadable.insert(name.clone(), why);
                Ok(((), swapping()))
            })?;
        }
        let reason = match self.open_version(name, number, &whole) {
            Ok(opened) => {
                return self.reopened(name, number, opened, now);
            }
            Err(reason) => reason,
        };
        let before = dataset.versions.iter().rev();
        let mut before = before.filter(|(other, version)| {
            **other != number && version.standing == Standing::Retired && !version.held()
        });
        let found = before.find_map(|(other, _)| {
            let opened = self.open_version(name, *other, &whole).ok()?;
            Some((*other, opened))
        });
        match found {
            Some((other, opened)) => self.fallen_back(name, number, other, opened, &reason, now),
            None => self.withdrawn(name, number, &reason, now),
        }
    }

    fn reopened(
        &self,
        name: &Name,
        number: u64,
        opened: Opened,
        now: Timestamp,
    ) -> Result<(), Refused> {
        self.change(|next| {
            let dataset = known_mut(next, name)?;
            let why = "what was damaged was dealt with";
            dataset.note(now, "reopened", Some(number), why);
            next.hold_open(name, number, opened);
            Ok(((), swapping()))
        })?;
        tracing::error!(dataset = %name, version = number, "it was opened again from what is whole of its files");
        self.served(name, 0.0);
        Ok(())
    }

    fn fallen_back(
        &self,
        name: &Name,
        number: u64,
        to: u64,
        opened: Opened,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), Refused> {
        self.change(|next| {
            let dataset = known_mut(next, name)?;
            let why = format!("memory changed under version {number}, and {reason}");
            dataset.note(now, "fell_back", Some(to), &why);
            let effect = self.serve(next, name, to, opened, now)?;
            Ok(((), effect))
        })?;
        tracing::error!(dataset = %name, version = number, serves = to, %reason, "its files are damaged too; the newest whole version that was served before is live now: upload the same body again and activate it");
        self.served(name, 0.0);
        Ok(())
    }

    fn withdrawn(
        &self,
        name: &Name,
        number: u64,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), Refused> {
        self.change(|next| {
            next.let_go(name);
            next.unreadable.remove(name);
            let dataset = known_mut(next, name)?;
            dataset.live = None;
            let why = format!("memory changed under it, and {reason}");
            dataset.note(now, "withdrawn", Some(number), &why);
            Ok(((), swapping()))
        })?;
        tracing::error!(dataset = %name, version = number, %reason, "its files are damaged too, and there is no other whole version; the dataset has none now: upload the same body again and activate it");
        self.measures.withdrawn(name);
        Ok(())
    }
}

fn swapping() -> Effect {
    Effect {
        swap: true,
        ..Effect::default()
    }
}

/// What is in the quarantine, the oldest first, each with its length.
fn quarantined(dir: &Path) -> Vec<(PathBuf, u64)> {
    let Ok(entries) = std::fs::read_dir(dir.join(QUARANTINE)) else {
        return Vec::new();
    };
    let files = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let ours = [".kith", ".json"];
        let text = name.to_str()?;
        let is_ours = text.contains("Z_") && ours.iter().any(|ending| text.ends_with(ending));
        let bytes = entry.metadata().ok()?.len();
        is_ours.then(|| (Path::new(QUARANTINE).join(&name), bytes))
    });
    // Names begin with the time.
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

fn copy_bytes(held: &Held) -> Option<&[u8]> {
    match held {
        Held::Audience(audience) => Some(audience.base().file()),
        Held::Filter(filter) => Some(filter.file()),
        Held::Graph(graph) => Some(graph.file()),
        Held::Document(document) => Some(document),
    }
}

impl Snapshot {
    /// What is live in memory of just this file's bytes, by all that it says of itself.
    pub(super) fn held_as(&self, piece: &Piece) -> Option<Held> {
        let name = &piece.dataset;
        let held = match piece.kind {
            Kind::Audience => {
                let open = self.audiences.get(name)?;
                // A layer lies over a file that may be that of an older version.
                let base = open.base();
                let is_full = piece.base.is_none() && base.meta().version == piece.number;
                is_full.then(|| Held::Audience(Arc::new(open.bottom())))?
            }
            Kind::Filter | Kind::Campaigns | Kind::Scores | Kind::Identity => {
                self.held(name, piece.number)?
            }
        };
        let is_long_enough = copy_bytes(&held)?.len() as u64 == piece.bytes;
        is_long_enough.then_some(held)
    }

    /// The same, verified now.
    fn copy_of(&self, piece: &Piece) -> Option<Held> {
        let held = self.held_as(piece)?;
        held.verify(&mut at_once).is_ok().then_some(held)
    }
}
