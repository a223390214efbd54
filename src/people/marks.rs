//! The log of erasures and opt-outs, in two files of the same bytes: what stands in it must outlive whatever happens to one of them.
//!
//! `people/erased` and `people/erased.copy` begin with a frame that names the key under which ids are hashed, for under another nobody
//! would be found again. After it come frames of marks: 17 bytes each, what and of whom. Nothing ever shortens them. A mark is acknowledged
//! once the first file has it, and its copy gets it at once or as soon as it can; so the copy is the same or shorter.
//!
//! At a start the longer of the two counts, and the other is made like it. Where neither is whole, or there is less than the checkpoint has
//! vouched for, Kith does not get ready: rather nobody is bid for than somebody who said no.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::path::Path;

use super::acts::Act;
use super::frames::{self, Fields};
use super::handle::PeopleError;
use super::register::Register;
use crate::ids::{KeyId, UserKey};
use crate::storage::{Log, Storage, StorageError};

const FILES: [&str; 2] = ["people/erased", "people/erased.copy"];
const MAGIC: &[u8; 8] = b"KITHPER2";
/// Bytes of one mark: which, and of whom.
const MARK_BYTES: usize = 17;
const ERASE: u8 = 0;
const OPT_OUT: u8 = 1;
/// Not a mark: the frame names a key.
const KEY: u8 = 2;
/// Marks in a frame.
const FRAME_MARKS: usize = 60_000;
/// Room on disk that is kept behind the end of each: a million marks.
const RESERVE_BYTES: u64 = 32 << 20;

/// Appends the marks of an erasure or an opt-out; nothing of any other act.
pub(super) fn put(act: &Act, body: &mut Vec<u8>) {
    let (kind, keys) = match act {
        Act::Erase { keys } => (ERASE, keys),
        Act::OptOut { keys } => (OPT_OUT, keys),
        Act::Update(_) | Act::Link(_) | Act::Unlink { .. } => return,
    };
    for key in keys {
        body.push(kind);
        body.extend(key.0.to_le_bytes());
    }
}

/// Enters a frame's marks.
pub(super) fn enter(body: &[u8], register: &mut Register) -> Option<()> {
    let mut fields = Fields(body);
    while !fields.is_empty() {
        let (kind, key) = (fields.u8()?, UserKey(fields.u128()?));
        let keys = vec![key];
        match kind {
            ERASE => register.apply(&Act::Erase { keys }, 0, 0),
            OPT_OUT => register.apply(&Act::OptOut { keys }, 0, 0),
            _ => return None,
        }
    }
    Some(())
}

/// Both files, open.
#[derive(Debug)]
pub(super) struct Marks {
    first: Log,
    copy: Log,
    /// What the copy does not have yet.
    behind: Vec<u8>,
}

impl Marks {
    /// Reads what stands there into the register, and opens it. The error says which file is wrong and what to do.
    pub(super) fn recover(
        storage: &Storage,
        key: KeyId,
        register: &mut Register,
    ) -> Result<Self, PeopleError> {
        let [first, copy] = FILES.map(|path| found(storage.dir(), path, key));
        let best = match (first, copy) {
            (Ok(first), Ok(copy)) if first.starts_with(&copy) => first,
            (Ok(first), Ok(copy)) if copy.starts_with(&first) => copy,
            (Ok(_), Ok(_)) => {
                let [path, other] = FILES;
                return Err(wrong(
                    storage.dir(),
                    path,
                    &format!(
                        "it and {other} say different things; bring both back from one backup"
                    ),
                ));
            }
            (Ok(whole), Err(error)) | (Err(error), Ok(whole)) if !whole.is_empty() => {
                tracing::warn!(%error, "it is made anew from its copy");
                whole
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let mut entered = Some(());
        if !best.is_empty() {
            let read = frames::read(best.as_slice(), MAGIC, |body| {
                entered = match body {
                    [KEY, ..] => Some(()),
                    marks => enter(marks, register),
                };
                entered.is_some()
            });
            let [path, _] = FILES;
            read.map_err(|error| wrong(storage.dir(), path, &error.to_string()))?;
        }
        let [first, copy] = FILES.map(|path| open(storage, path, &best));
        let mut marks = Self {
            first: first?,
            copy: copy?,
            behind: Vec::new(),
        };
        if best.is_empty() {
            let mut begin = MAGIC.to_vec();
            frames::write(&[&[KEY][..], &key.0].concat(), &mut begin);
            marks.append_bytes(begin)?;
        }
        marks.reserve();
        Ok(marks)
    }

    /// Bytes of it: what a checkpoint vouches for.
    pub(super) fn length(&self) -> u64 {
        self.first.length()
    }

    /// That there is at least so much of it.
    pub(super) fn vouched(&self, length: u64, dir: &Path) -> Result<(), PeopleError> {
        let [path, _] = FILES;
        let told = format!(
            "it has {} bytes, and had {length} when people/checkpoint was written: erasures and opt-outs are missing; bring it back from a backup that has them",
            self.length()
        );
        match self.length() >= length {
            true => Ok(()),
            false => Err(wrong(dir, path, &told)),
        }
    }

    /// Adds marks, durably.
    pub(super) fn append(&mut self, marks: &[u8]) -> Result<(), StorageError> {
        let mut bytes = Vec::new();
        for part in marks.chunks(MARK_BYTES.saturating_mul(FRAME_MARKS)) {
            frames::write(part, &mut bytes);
        }
        let done = self.append_bytes(bytes);
        self.reserve();
        done
    }

    fn append_bytes(&mut self, bytes: Vec<u8>) -> Result<(), StorageError> {
        self.first.append(bytes.clone())?;
        self.behind.extend(bytes);
        match self.copy.append(self.behind.clone()) {
            Ok(()) => self.behind.clear(),
            Err(error) => tracing::warn!(%error, "the copy of people/erased is behind"),
        }
        Ok(())
    }

    fn reserve(&mut self) {
        for log in [&mut self.first, &mut self.copy] {
            let _ = log.reserve(RESERVE_BYTES);
        }
    }
}

fn wrong(dir: &Path, path: &str, reason: &str) -> PeopleError {
    PeopleError::File {
        path: dir.join(path).display().to_string(),
        reason: reason.to_owned(),
    }
}

/// What is whole of a file; nothing of one that is not there, or that a crash cut before it named its key.
fn found(dir: &Path, path: &str, key: KeyId) -> Result<Vec<u8>, PeopleError> {
    let mut bytes = match std::fs::read(dir.join(path)) {
        Ok(bytes) => bytes,
        // Its copy has all of it, or the checkpoint misses it, or there never was anything.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(dir, path, &error.to_string())),
    };
    let mut other = None;
    let mut is_first = true;
    let whole = frames::read(bytes.as_slice(), MAGIC, |body| {
        let names_key = body.strip_prefix(&[KEY]);
        if is_first && names_key != Some(&key.0[..]) {
            other = names_key.map(<[u8]>::to_vec);
            return false;
        }
        is_first = false;
        names_key.is_some() || body.len().is_multiple_of(MARK_BYTES)
    });
    if let Some(other) = other {
        let other = crate::ids::Hex(&other).to_string();
        let told = format!(
            "it was written under the key {other}, and data/key is now {key}: nobody in it would be found; bring that key file back"
        );
        return Err(wrong(dir, path, &told));
    }
    let whole = whole.map_err(|error| wrong(dir, path, &error.to_string()))?;
    let whole = usize::try_from(whole).unwrap_or(usize::MAX);
    if whole < bytes.len() {
        let cut = bytes.len().saturating_sub(whole);
        tracing::warn!(
            path,
            bytes = cut,
            "its end was not written whole, and is cut off"
        );
    }
    bytes.truncate(if whole > MAGIC.len() { whole } else { 0 });
    Ok(bytes)
}

/// Opens a file that is to be as `best` is.
fn open(storage: &Storage, path: &str, best: &[u8]) -> Result<Log, PeopleError> {
    let own = std::fs::read(storage.dir().join(path)).unwrap_or_default();
    let same = own.iter().zip(best).take_while(|(own, best)| own == best);
    let same = same.count();
    if same == own.len().min(best.len()) {
        let mut log = storage.open_log(Path::new(path), same as u64)?;
        let rest = best.get(same..).unwrap_or_default();
        if !rest.is_empty() {
            log.append(rest.to_vec())?;
        }
        return Ok(log);
    }
    storage.write_atomic(Path::new(path), best.to_vec())?;
    Ok(storage.open_log(Path::new(path), best.len() as u64)?)
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::people::Known;
    use crate::people::register::Room;

    const KEY_ID: KeyId = KeyId([7; 8]);

    fn register() -> Register {
        let room = Room {
            ids: 1_000,
            ids_per_person: 8,
            ids_per_source: 8,
            order_seconds: 1,
        };
        Register::new(Arc::new(Known::with_room(1_000).expect("memory")), room)
    }

    /// Who is marked after a start, or why there is none.
    fn start(dir: &Path, key: KeyId) -> Result<(Marks, Vec<u128>), String> {
        let storage = Storage::start(dir).expect("storage");
        let mut register = register();
        let marks =
            Marks::recover(&storage, key, &mut register).map_err(|error| error.to_string())?;
        let is_out = |key: &u128| {
            let held = register.held(UserKey(*key));
            held.is_some_and(|held| held.standing.opted_out)
        };
        Ok((marks, (1..100).filter(is_out).collect()))
    }

    fn opt_out(marks: &mut Marks, keys: std::ops::Range<u128>) {
        let mut body = Vec::new();
        let keys = keys.map(UserKey).collect();
        put(&Act::OptOut { keys }, &mut body);
        marks.append(&body).expect("written");
    }

    /// Killed at any moment of the very first start, it starts the next time, and keeps what it is told from then on.
    #[test]
    fn a_first_start_that_was_cut_short_is_begun_again() {
        let whole = tempfile::tempdir().expect("a folder");
        drop(start(whole.path(), KEY_ID).expect("new"));
        let bytes = std::fs::read(whole.path().join(FILES[0])).expect("there");
        let mut states = vec![(Some(0), None), (Some(0), Some(0))];
        states.extend((0..=bytes.len()).map(|length| (Some(length), Some(0))));
        states.extend((0..=bytes.len()).map(|length| (Some(bytes.len()), Some(length))));
        states.push((None, Some(0)));
        for state in states {
            let dir = tempfile::tempdir().expect("a folder");
            let (first, copy) = state;
            for (path, length) in FILES.iter().zip([first, copy]) {
                let path = dir.path().join(path);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                if let Some(length) = length {
                    std::fs::write(path, &bytes[..length]).expect("written");
                }
            }
            let (mut marks, none) = start(dir.path(), KEY_ID).expect("begun");
            assert_eq!(none, [0u128; 0], "{state:?}");
            opt_out(&mut marks, 1..3);
            drop(marks);
            let (_, found) = start(dir.path(), KEY_ID).expect("again");
            assert_eq!(found, [1, 2], "{state:?}");
        }
    }

    #[test]
    fn whatever_happens_to_one_file_nobody_is_forgotten() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |place: usize| dir.path().join(FILES[place]);
        let (mut marks, none) = start(dir.path(), KEY_ID).expect("new");
        assert_eq!(none, [0u128; 0]);
        opt_out(&mut marks, 1..4);
        opt_out(&mut marks, 4..7);
        drop(marks);
        let all: Vec<u128> = (1..7).collect();
        let bytes = std::fs::read(path(0)).expect("there");
        assert_eq!(std::fs::read(path(1)).expect("there"), bytes);
        for place in [0, 1] {
            // Gone, empty, each byte flipped, cut anywhere.
            let mut harms = vec![None, Some(Vec::new())];
            harms.extend((0..bytes.len()).map(|at| {
                let mut harmed = bytes.clone();
                harmed[at] ^= 4;
                Some(harmed)
            }));
            harms.extend((0..bytes.len()).map(|length| Some(bytes[..length].to_vec())));
            for (n, harm) in harms.into_iter().enumerate() {
                match &harm {
                    None => std::fs::remove_file(path(place)).expect("removed"),
                    Some(harm) => std::fs::write(path(place), harm).expect("written"),
                }
                let (_, found) = start(dir.path(), KEY_ID).expect("the other has all of it");
                assert_eq!(found, all, "file {place}, harm {n}");
                for place in [0, 1] {
                    assert_eq!(
                        std::fs::read(path(place)).expect("there"),
                        bytes,
                        "harm {n}"
                    );
                }
            }
        }
        let told = start(dir.path(), KeyId([8; 8])).expect_err("another key");
        assert!(told.contains("bring that key file back"), "{told}");
        // Both: it does not start, or knows that something is missing.
        let (marks, _) = start(dir.path(), KEY_ID).expect("whole");
        let length = marks.length();
        marks.vouched(length, dir.path()).expect("all of it");
        drop(marks);
        for place in [0, 1] {
            std::fs::write(path(place), &bytes[..bytes.len() - 20]).expect("written");
        }
        let (marks, _) = start(dir.path(), KEY_ID).expect("a cut end");
        let told = marks
            .vouched(length, dir.path())
            .expect_err("less")
            .to_string();
        assert!(
            told.contains("people/erased: ") && told.contains("backup"),
            "{told}"
        );
        drop(marks);
        for place in [0, 1] {
            let mut harmed = bytes.clone();
            harmed[40] ^= 1;
            std::fs::write(path(place), &harmed).expect("written");
        }
        assert!(start(dir.path(), KEY_ID).is_err());
    }
}
