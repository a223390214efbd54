//! What lies on disk and in memory is verified again, now and then: a thread at the lowest priority, and at a bounded speed.
//!
//! A file that nobody reads rots unseen, and is found rotten when it is to be gone back to. So each kept version's turn comes
//! once in `data.scrub_every`: its files are read from the disk (what the system has of them in memory is dropped before) and held
//! against their checksums; what is live is verified in memory too. What was found whole is said in the manifest, so that a
//! restart does not begin anew; what was found damaged goes to [`mend`](super::mend).
//!
//! Only damage is damage: bytes that are not those that were written, a file that is gone, a disk that cannot read it. Whatever may
//! pass (no descriptor, no memory, no permission, the wrong key file, a file of a newer Kith) is told and tried again, and nothing is moved.
//!
//! Cost: nobody waits. No lock is held and the datasets are not kept alive while a file is read; what is live is held for as
//! long as its memory takes, and let go of once nobody else has it.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use sha2::{Digest as _, Sha256};

use super::activation::Effect;
use super::housekeeping::Chores;
use super::manifest::{Version, compacted_file, version_file};
use super::measures::Scrubbed;
use super::{Datasets, Snapshot};
use crate::audience::{self, Audience, Filter, Flaw, Graph, Pace};
use crate::clock::Timestamp;
use crate::ids::{Hex, KeyId, Kind, Name};
use crate::storage::open_to_read;

/// How often it is asked whose turn it is.
const POLL: Duration = Duration::from_secs(60);
/// After how long what could not be finished is tried again.
const AGAIN_MS: i64 = 600_000;
/// How much memory is verified a second: at full speed it would take bandwidth that lookups want.
const MEMORY_BYTES_PER_SECOND: u64 = 256 << 20;
/// Rests shorter than this are saved up.
const REST_MIN: Duration = Duration::from_millis(20);

/// Which of a version's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// That of its upload.
    Own,
    /// The full version that was made of it and all below it.
    Compacted,
}

/// A file, and what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) dataset: Name,
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) part: Part,
    /// Inside the data directory.
    pub(super) file: PathBuf,
    pub(super) bytes: u64,
    /// Of a delta's own file, the version that it changes.
    pub(super) base: Option<u64>,
    /// Of campaigns, the digest of the document.
    sha256: String,
}

/// What a file was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// As it was written.
    Whole,
    /// Not as it was written, and how.
    Damaged(String),
    /// It could not be read for a reason that is not its own.
    Unread(String),
}

/// What is live, in memory.
#[derive(Debug, Clone)]
pub(super) enum Held {
    Audience(Arc<Audience>),
    Filter(Arc<Filter>),
    Graph(Arc<Graph>),
    /// A campaigns document.
    Document(Arc<[u8]>),
}

/// A version's turn.
#[derive(Debug)]
struct Turn {
    name: Name,
    number: u64,
    pieces: Vec<Piece>,
    /// Where it is live.
    held: Option<Held>,
}

/// Verifies again what is kept, for a thread of its own.
#[derive(Debug)]
pub struct Scrubbing {
    chores: Chores,
    datasets: Weak<Datasets>,
    dir: PathBuf,
    key_id: KeyId,
    bytes_per_second: u64,
    poll: Duration,
}

impl Scrubbing {
    /// Works until the datasets are dropped.
    pub fn run(self, now: fn() -> Timestamp) {
        let mut tried = BTreeMap::new();
        loop {
            let Some(datasets) = self.datasets.upgrade() else {
                return;
            };
            let turn = datasets.turn(&mut tried, now());
            drop(datasets);
            let going_on = match turn {
                None => self.chores.rest(self.poll, true),
                Some(turn) => self.take(&turn, now),
            };
            if !going_on {
                return;
            }
        }
    }

    /// Looks at one version; whether to go on.
    fn take(&self, turn: &Turn, now: fn() -> Timestamp) -> bool {
        let mut looks = Vec::with_capacity(turn.pieces.len());
        for piece in &turn.pieces {
            let mut paced = Paced::new(self.bytes_per_second);
            let look = piece.look(&self.dir, self.key_id, &mut |bytes| {
                paced.step(bytes, &self.chores)
            });
            match look {
                Some(look) => looks.push(look),
                None => return false,
            }
        }
        let mut paced = Paced::new(MEMORY_BYTES_PER_SECOND);
        let memory = turn.held.as_ref().map(|held| {
            held.verify(&mut |bytes| !held.is_let_go() && paced.step(bytes, &self.chores))
        });
        let Some(datasets) = self.datasets.upgrade() else {
            return false;
        };
        datasets.conclude(
            turn,
            &looks,
            memory.is_some_and(|found| found.is_err()),
            now(),
        );
        self.chores.rest(Duration::ZERO, false)
    }
}

/// So many bytes a second.
struct Paced {
    bytes_per_second: u64,
    began: Instant,
    done: u64,
}

impl Paced {
    fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            began: Instant::now(),
            done: 0,
        }
    }

    /// After so many bytes more: rests where that is too many; whether to go on.
    fn step(&mut self, bytes: usize, chores: &Chores) -> bool {
        self.done = self.done.saturating_add(bytes as u64);
        let ahead = self.ahead(self.began.elapsed());
        chores.rest(
            if ahead < REST_MIN {
                Duration::ZERO
            } else {
                ahead
            },
            false,
        )
    }

    /// How much sooner than it should be all that was done, so long after the beginning.
    fn ahead(&self, elapsed: Duration) -> Duration {
        let due = self.done as f64 / self.bytes_per_second as f64;
        Duration::from_secs_f64(due).saturating_sub(elapsed)
    }
}

/// As fast as it goes, to the end.
pub(super) fn at_once(_: usize) -> bool {
    true
}

impl Piece {
    /// The file of a version's upload.
    fn own(name: &Name, kind: Kind, number: u64, version: &Version) -> Self {
        Self {
            dataset: name.clone(),
            kind,
            number,
            part: Part::Own,
            file: version_file(name, kind, number),
            bytes: version.bytes,
            base: version.base,
            sha256: version.body_sha256.clone(),
        }
    }

    /// Holds the file against its checksums and against what the manifest says of it; nothing where `pace` ended it.
    pub(super) fn look(&self, dir: &Path, ours: KeyId, pace: Pace<'_>) -> Option<Look> {
        match self.found(dir, ours, pace) {
            Ok(true) => Some(Look::Whole),
            Ok(false) => None,
            Err(look) => Some(look),
        }
    }

    fn found(&self, dir: &Path, ours: KeyId, pace: Pace<'_>) -> Result<bool, Look> {
        let file = open_to_read(&dir.join(&self.file)).map_err(of_the_system)?;
        let length = file.metadata().map_err(of_the_system)?.len();
        if length != self.bytes {
            let whole = self.bytes;
            return Err(Look::Damaged(format!("has {length} bytes, not {whole}")));
        }
        // What the system has in memory of it says nothing of the disk. Where it will not drop that, that is read.
        let forget = || rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        let _ = forget();
        let found = match self.kind {
            Kind::Campaigns | Kind::Scores => self.document(&file, pace)?,
            Kind::Audience | Kind::Filter | Kind::Identity => {
                let stated = audience::Version::reverify(&file, pace).map_err(of_the_bytes)?;
                if let Some(stated) = &stated {
                    self.is_stated(stated, ours)?;
                }
                stated.is_some()
            }
        };
        let _ = forget();
        Ok(found)
    }

    fn document(&self, mut file: &std::fs::File, pace: Pace<'_>) -> Result<bool, Look> {
        let mut digest = Sha256::new();
        let mut block = vec![0; 64 << 10];
        loop {
            let read = file.read(&mut block).map_err(of_the_system)?;
            if read == 0 {
                break;
            }
            digest.update(block.get(..read).unwrap_or_default());
            if !pace(read) {
                return Ok(false);
            }
        }
        if Hex(&digest.finalize()).to_string() == self.sha256 {
            Ok(true)
        } else {
            Err(Look::Damaged(
                "is not the document that was uploaded".to_owned(),
            ))
        }
    }

    fn is_stated(&self, stated: &audience::Stated, ours: KeyId) -> Result<(), Look> {
        let meta = &stated.meta;
        if meta.dataset != self.dataset
            || meta.version != self.number
            || meta.kind != self.kind
            || meta.base != self.base
        {
            let (name, version, kind) = (&meta.dataset, meta.version, meta.kind);
            return Err(Look::Damaged(format!(
                "holds {name}/{version}, of kind {kind}"
            )));
        }
        if stated.key_id != ours {
            let theirs = stated.key_id;
            return Err(Look::Unread(format!(
                "was made under key {theirs}, the service has {ours}; restore the key file"
            )));
        }
        Ok(())
    }
}

/// What an error of the system says of a file: that it is gone, shorter than it was, or on a bad place of the disk is damage.
fn of_the_system(error: io::Error) -> Look {
    use rustix::io::Errno;
    let damage = [Errno::IO, Errno::BADMSG, Errno::UCLEAN, Errno::NODATA];
    let errno = error.raw_os_error();
    match error.kind() {
        io::ErrorKind::NotFound => Look::Damaged("is gone".to_owned()),
        io::ErrorKind::UnexpectedEof => Look::Damaged("is shorter than it was".to_owned()),
        _ if damage.iter().any(|e| Some(e.raw_os_error()) == errno) => {
            Look::Damaged(format!("cannot be read: {error}"))
        }
        _ => Look::Unread(format!("cannot be read now: {error}")),
    }
}

fn of_the_bytes(flaw: Flaw) -> Look {
    let text = super::activation::what(&flaw);
    match flaw {
        Flaw::Io(error) => of_the_system(error),
        Flaw::NotKith | Flaw::Length { .. } | Flaw::Damaged { .. } => Look::Damaged(text),
        // Checksums match: what another Kith wrote, perhaps a newer one.
        Flaw::NewerFormat { .. }
        | Flaw::Contradiction(_)
        | Flaw::OtherKind { .. }
        | Flaw::Filter(_)
        | Flaw::KindNotReadYet(_)
        | Flaw::OnlyADelta { .. } => Look::Unread(text),
    }
}

impl Held {
    /// Whether the bytes are as they were read. A document is only held to be written again, and its digest is known.
    pub(super) fn verify(&self, pace: Pace<'_>) -> Result<bool, Flaw> {
        match self {
            Held::Audience(audience) => audience.reverify(pace),
            Held::Filter(filter) => filter.reverify(pace),
            Held::Graph(graph) => graph.reverify(pace),
            Held::Document(_) => Ok(true),
        }
    }

    /// Whether nobody else has it any more.
    fn is_let_go(&self) -> bool {
        match self {
            Held::Audience(audience) => Arc::strong_count(audience) == 1,
            Held::Filter(filter) => Arc::strong_count(filter) == 1,
            Held::Graph(graph) => Arc::strong_count(graph) == 1,
            Held::Document(document) => Arc::strong_count(document) == 1,
        }
    }
}

impl Snapshot {
    /// The files of a version that should be there.
    pub(super) fn pieces(&self, name: &Name, number: u64) -> Vec<Piece> {
        let of = self.manifest.datasets.get(name);
        let Some((kind, version)) = of.and_then(|d| Some((d.kind, d.versions.get(&number)?)))
        else {
            return Vec::new();
        };
        let own = Piece::own(name, kind, number, version);
        let compacted = version.compacted.map(|bytes| Piece {
            part: Part::Compacted,
            file: compacted_file(name, number),
            bytes,
            base: None,
            ..own.clone()
        });
        std::iter::once(own).chain(compacted).collect()
    }

    /// What is open of a dataset, where it is of this version.
    pub(super) fn held(&self, name: &Name, number: u64) -> Option<Held> {
        if let Some(audience) = self.audiences.get(name) {
            let is = audience.meta().version == number;
            return is.then(|| Held::Audience(Arc::clone(audience)));
        }
        if let Some(measured) = self.filters.get(name) {
            let is = measured.filter.meta().version == number;
            return is.then(|| Held::Filter(Arc::clone(&measured.filter)));
        }
        if let Some(graph) = self.graphs.get(name) {
            let is = graph.meta().version == number;
            return is.then(|| Held::Graph(Arc::clone(graph)));
        }
        if let Some(scores) = self.scores.get(name) {
            let is = scores.version == number;
            return is.then(|| Held::Document(Arc::clone(&scores.document)));
        }
        let is = name.as_str() == super::CAMPAIGNS && self.campaigns_version == Some(number);
        is.then(|| Held::Document(Arc::clone(&self.document)))
    }
}

/// When a version was last tried that could not be finished.
type Tried = BTreeMap<(Name, u64), Timestamp>;

impl Datasets {
    /// What verifies again what is kept, to be run in the background.
    pub fn scrubbing(self: &Arc<Self>) -> Scrubbing {
        Scrubbing {
            chores: self.chores.clone(),
            datasets: Arc::downgrade(self),
            dir: self.storage.dir().to_owned(),
            key_id: self.settings.frame.keyer.key_id(),
            bytes_per_second: self.settings.scrub_bytes_per_second,
            poll: self
                .settings
                .scrub_every
                .map_or(POLL, |every| every.min(POLL)),
        }
    }

    /// Whose turn it is: what is suspected, else what was verified longest ago, where that is long enough.
    fn turn(&self, tried: &mut Tried, now: Timestamp) -> Option<Turn> {
        if !self.recovered() {
            return None;
        }
        let snapshot = self.snapshot();
        let state = &*snapshot;
        let every = self.settings.scrub_every;
        let every = every.map(|every| i64::try_from(every.as_millis()).unwrap_or(i64::MAX));
        let again = every.unwrap_or(AGAIN_MS).min(AGAIN_MS);
        tried.retain(|_, at| (0..again).contains(&now.unix_ms.saturating_sub(at.unix_ms)));
        let due = || {
            let every = every?;
            let datasets = state.manifest.datasets.iter();
            let versions = datasets.flat_map(|(name, dataset)| {
                let of = dataset.versions.iter();
                let kind = dataset.kind;
                let of = of.filter(move |(number, v)| {
                    let own = || Piece::own(name, kind, **number, v);
                    v.compacted.is_some()
                        || v.damage.is_none()
                        || !self.is_known_gone(&own(), v, state)
                });
                of.map(move |(number, v)| (v.verified_at.unwrap_or(v.uploaded_at), name, *number))
            });
            // A time that lies ahead is that of a clock which was wrong.
            let due = versions.filter(|(at, ..)| {
                at.unix_ms > now.unix_ms || now.unix_ms.saturating_sub(at.unix_ms) >= every
            });
            let due =
                due.filter(|(_, name, number)| !tried.contains_key(&((*name).clone(), *number)));
            let first = due.min_by_key(|(at, ..)| at.unix_ms);
            first.map(|(_, name, number)| (name.clone(), number))
        };
        let (name, number) = self.chores.next_suspect().or_else(due)?;
        tried.insert((name.clone(), number), now);
        let held = state.held(&name, number);
        let dataset = state.manifest.datasets.get(&name);
        let version = dataset.and_then(|dataset| dataset.versions.get(&number));
        let mut pieces = state.pieces(&name, number);
        pieces.retain(|piece| !version.is_some_and(|v| self.is_known_gone(piece, v, state)));
        Some(Turn {
            name,
            number,
            pieces,
            held,
        })
    }

    /// Whether a file is not there that was found damaged: nobody has put one in its place, and there is nothing to write it again
    /// from.
    fn is_known_gone(&self, piece: &Piece, version: &Version, state: &Snapshot) -> bool {
        version.damage.is_some()
            && piece.part == Part::Own
            && !self.storage.dir().join(&piece.file).exists()
            && state.held_as(piece).is_none()
    }

    /// Whether a file of a version is damaged, read as fast as it goes and without taking memory for it.
    pub(super) fn is_damaged(&self, name: &Name, number: u64, state: &Snapshot) -> bool {
        let mut pieces = state.pieces(name, number).into_iter();
        pieces.any(|piece| matches!(self.look(&piece), Some(Look::Damaged(_))))
    }

    /// Whether the full version is damaged that was made of a delta and all below it.
    pub(super) fn is_compacted_damaged(&self, name: &Name, number: u64, state: &Snapshot) -> bool {
        let pieces = state.pieces(name, number).into_iter();
        let mut compacted = pieces.filter(|piece| piece.part == Part::Compacted);
        compacted.any(|piece| matches!(self.look(&piece), Some(Look::Damaged(_))))
    }

    /// Holds the file of a version that was just written against what is to be said of it.
    pub(super) fn verify_own(
        &self,
        name: &Name,
        kind: Kind,
        number: u64,
        version: &Version,
    ) -> Result<(), String> {
        let piece = Piece::own(name, kind, number, version);
        match self.look(&piece) {
            Some(Look::Whole) => Ok(()),
            Some(Look::Damaged(reason) | Look::Unread(reason)) => {
                Err(format!("{} {reason}", piece.file.display()))
            }
            None => Err("it was not looked at".to_owned()),
        }
    }

    /// Does what follows from what was found.
    fn conclude(&self, turn: &Turn, looks: &[Look], memory_damaged: bool, now: Timestamp) {
        let (name, number) = (&turn.name, turn.number);
        let mut whole = true;
        for (piece, look) in turn.pieces.iter().zip(looks) {
            whole &= *look == Look::Whole;
            match look {
                Look::Whole => self.measures.scrubbed(name, Scrubbed::Whole),
                Look::Unread(reason) => {
                    tracing::warn!(dataset = %name, version = number, file = %piece.file.display(), %reason, "a version could not be verified again; it is tried again later");
                    self.measures.scrubbed(name, Scrubbed::Unread);
                }
                Look::Damaged(_) => self.mend(piece, now),
            }
        }
        if memory_damaged {
            whole = false;
            self.measures.scrubbed(name, Scrubbed::Memory);
            self.mend_memory(name, number, now);
        }
        if whole {
            self.found_whole(turn, now);
        }
    }

    fn found_whole(&self, turn: &Turn, now: Timestamp) {
        let (name, number) = (&turn.name, turn.number);
        let told = self.change(|next| {
            // Unless it has gone meanwhile, or has become another: then nothing is said of it.
            let known = next.pieces(name, number);
            let is_same = turn.pieces.iter().all(|piece| known.contains(piece));
            if is_same
                && !turn.pieces.is_empty()
                && let Some(dataset) = next.manifest.datasets.get_mut(name)
                && let Some(version) = dataset.versions.get_mut(&number)
            {
                version.verified_at = Some(now);
                let own = turn.pieces.iter().any(|piece| piece.part == Part::Own);
                if own && version.damage.take().is_some() {
                    dataset.note(now, "found_whole", Some(number), "its file is there again");
                }
            }
            Ok(((), Effect::default()))
        });
        if let Err(error) = told {
            tracing::warn!(dataset = %name, version = number, %error, "that a version was verified could not be written");
        }
    }

    /// Verifies what is kept of all that is due, here and now, as [`Scrubbing`] does at its leisure.
    #[cfg(test)]
    pub(super) fn scrub(self: &Arc<Self>, now: fn() -> Timestamp) {
        let mut scrubbing = self.scrubbing();
        scrubbing.bytes_per_second = u64::MAX;
        let mut tried = Tried::new();
        while let Some(turn) = self.turn(&mut tried, now()) {
            scrubbing.take(&turn, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_as_fast_as_it_may() {
        let mut paced = Paced::new(1000);
        paced.done = 1500;
        assert_eq!(
            paced.ahead(Duration::from_secs(1)),
            Duration::from_millis(500)
        );
        assert_eq!(paced.ahead(Duration::from_secs(2)), Duration::ZERO);
    }

    #[test]
    fn what_may_pass_is_no_damage() {
        use rustix::io::Errno;
        for errno in [Errno::NOENT, Errno::IO, Errno::BADMSG, Errno::UCLEAN] {
            let look = of_the_system(errno.into());
            assert!(matches!(look, Look::Damaged(_)), "{errno}: {look:?}");
        }
        for errno in [
            Errno::NOMEM,
            Errno::MFILE,
            Errno::NFILE,
            Errno::ACCESS,
            Errno::INTR,
        ] {
            let look = of_the_system(errno.into());
            assert!(matches!(look, Look::Unread(_)), "{errno}: {look:?}");
        }
    }
}
