//! The one thread that writes and syncs files.
//!
//! Everything that must survive a crash goes through here: version files, the manifest, later the journals. One
//! thread, because then the order of writes is the order of commands, a crash test can stop at every durable
//! system call in turn, and a slow disk has one queue with one bound instead of many.
//!
//! A caller holds a [`Storage`] (cheap to clone) and streams through a [`StorageWriter`]; both block when the queue
//! is full, which is the back-pressure of an upload. Nothing here is called from a bid thread.
//!
//! Invariants. What [`StorageWriter::commit`] or [`Storage::write_atomic`] answered `Ok` for is on the disk under its
//! name, whole, whatever happens next: `fdatasync`, `rename`, `fsync` of the folder. A write that fails (no space)
//! costs that file only. A sync that fails stops all writing for good, because the kernel marks the page clean and a
//! second try would lie: [`Storage::healthy`] turns false and only a restart helps.
//!
//! Cost: one copy of the data into 256 KiB chunks; at most [`QUEUE_COMMANDS_MAX`] of them wait.

use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

mod worker;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use worker::Faults;
pub(crate) use worker::open_to_read;

/// Bytes a writer gathers before it hands them over.
const CHUNK_BYTES: usize = 256 << 10;
/// Commands that may wait: 32 chunks of 256 KiB are 8 MiB in flight, whatever the number of uploads.
pub const QUEUE_COMMANDS_MAX: usize = 32;
/// The folder of files that are not finished yet; what a crash leaves in it is removed at start.
pub const INCOMING: &str = "incoming";

/// A handle to the storage thread of one data directory. Clones share the thread; the last one to go ends it.
#[derive(Debug, Clone)]
pub struct Storage {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    commands: Option<SyncSender<Command>>,
    next_file: AtomicU64,
    stopped: Arc<OnceLock<String>>,
    thread: Option<JoinHandle<()>>,
}

/// What the storage thread is asked to do. Paths are inside the data directory and checked.
enum Command {
    Create {
        file: u64,
        path: PathBuf,
        fault: Arc<Fault>,
        reply: SyncSender<Result<(), StorageError>>,
    },
    Append {
        file: u64,
        bytes: Vec<u8>,
    },
    WriteHead {
        file: u64,
        bytes: Vec<u8>,
    },
    Flush {
        file: u64,
        reply: SyncSender<Result<(), StorageError>>,
    },
    Commit {
        file: u64,
        to: PathBuf,
        reply: SyncSender<Result<(), StorageError>>,
    },
    Abort {
        file: u64,
    },
    WriteAtomic {
        to: PathBuf,
        bytes: Vec<u8>,
        reply: SyncSender<Result<(), StorageError>>,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        reply: SyncSender<Result<(), StorageError>>,
    },
    Remove {
        path: PathBuf,
        reply: SyncSender<Result<(), StorageError>>,
    },
    OpenLog {
        file: u64,
        path: PathBuf,
        length: u64,
        reply: SyncSender<Result<(), StorageError>>,
    },
    AppendLog {
        file: u64,
        bytes: Vec<u8>,
        reply: SyncSender<Result<(), StorageError>>,
    },
    ReserveLog {
        file: u64,
        bytes: u64,
        reply: SyncSender<Result<(), StorageError>>,
    },
    CloseLog {
        file: u64,
    },
}

/// The first failed write of one file, seen by its writer at its next call.
#[derive(Debug, Default)]
struct Fault(OnceLock<(io::ErrorKind, String)>);

impl Fault {
    fn get(&self) -> Option<io::Error> {
        self.0
            .get()
            .map(|(kind, text)| io::Error::new(*kind, text.clone()))
    }
}

/// Why something was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// This file could not be written; others still can.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder, inside the data directory.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A sync failed earlier, or the thread is gone: nothing is written any more.
    #[error(
        "storage has stopped writing: {reason}; check the disk, then restart, and what was acknowledged will be there"
    )]
    Stopped {
        /// What happened first.
        reason: String,
    },
    /// Another process holds the directory.
    #[error("{dir} is in use by another process; stop it, or set data.dir to another folder")]
    Locked {
        /// The data directory.
        dir: String,
    },
    /// A path that is not plainly inside the data directory: a bug of the caller.
    #[error("`{0}` is not a path inside the data directory")]
    Path(String),
}

impl StorageError {
    /// Whether the disk (or a quota) is full, which a client may wait out.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }
}

/// Whether an I/O error says that there is no space left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl From<StorageError> for io::Error {
    fn from(error: StorageError) -> Self {
        let kind = match &error {
            StorageError::Io { source, .. } => source.kind(),
            StorageError::Stopped { .. } | StorageError::Locked { .. } | StorageError::Path(_) => {
                io::ErrorKind::Other
            }
        };
        io::Error::new(kind, error)
    }
}

impl Storage {
    /// Makes the directory if need be, locks it, removes what a crash left unfinished, and starts the thread.
    pub fn start(dir: &Path) -> Result<Storage, StorageError> {
        Self::start_as(dir, worker::Disk::default())
    }

    /// As [`Storage::start`], on a disk that fails when told to.
    #[cfg(test)]
    pub(crate) fn start_with(dir: &Path, faults: Arc<Faults>) -> Result<Storage, StorageError> {
        Self::start_as(dir, worker::Disk::failing(faults))
    }

    fn start_as(dir: &Path, disk: worker::Disk) -> Result<Storage, StorageError> {
        let stopped = Arc::new(OnceLock::new());
        let (commands, queue) = sync_channel(QUEUE_COMMANDS_MAX);
        let thread = spawn(dir, queue, disk, Arc::clone(&stopped))?;
        Ok(Storage {
            shared: Arc::new(Shared {
                dir: dir.to_owned(),
                commands: Some(commands),
                next_file: AtomicU64::new(0),
                stopped,
                thread: Some(thread),
            }),
        })
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// False once a sync has failed: nothing is written any more.
    pub fn healthy(&self) -> bool {
        self.shared.stopped.get().is_none()
    }

    /// Why nothing is written any more, if so.
    pub fn stopped_because(&self) -> Option<&str> {
        self.shared.stopped.get().map(String::as_str)
    }

    /// Starts an unfinished file. It has no name that anyone looks for until it is committed.
    pub fn create(&self) -> Result<StorageWriter, StorageError> {
        let file = self.shared.next_file.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(INCOMING).join(format!("{file}.part"));
        let fault = Arc::new(Fault::default());
        self.ask(|reply| Command::Create {
            file,
            path: path.clone(),
            fault: Arc::clone(&fault),
            reply,
        })?;
        Ok(StorageWriter {
            path: self.shared.dir.join(path),
            storage: self.clone(),
            file,
            chunk: Vec::new(),
            bytes: 0,
            fault,
            open: true,
        })
    }

    /// Replaces a small file as a whole: after a crash it holds the old bytes or the new, never a mixture.
    pub fn write_atomic(&self, to: &Path, bytes: Vec<u8>) -> Result<(), StorageError> {
        let to = inside(to)?;
        self.ask(|reply| Command::WriteAtomic { to, bytes, reply })
    }

    /// Gives a file another name, durably, as it is. The new one's folder is made if need be.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        let (from, to) = (inside(from)?, inside(to)?);
        self.ask(|reply| Command::Rename { from, to, reply })
    }

    /// Bytes that can still be written here; nothing where the system does not tell.
    pub fn free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(self.dir()).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Opens a journal to be written on from `length` on, cutting off what is behind that; made empty where it is not there.
    pub fn open_log(&self, path: &Path, length: u64) -> Result<Log, StorageError> {
        let path = inside(path)?;
        let file = self.shared.next_file.fetch_add(1, Ordering::Relaxed);
        self.ask(|reply| Command::OpenLog {
            file,
            path,
            length,
            reply,
        })?;
        Ok(Log {
            storage: self.clone(),
            file,
            length,
            reserved: length,
        })
    }

    /// Removes a file; that it is not there is no error. Not synced: whoever removes must not mind its return.
    pub fn remove(&self, path: &Path) -> Result<(), StorageError> {
        let path = inside(path)?;
        self.ask(|reply| Command::Remove { path, reply })
    }

    fn ask(
        &self,
        command: impl FnOnce(SyncSender<Result<(), StorageError>>) -> Command,
    ) -> Result<(), StorageError> {
        let (reply, answer) = sync_channel(1);
        self.send(command(reply))?;
        answer.recv().map_err(|_| self.gone())?
    }

    fn send(&self, command: Command) -> Result<(), StorageError> {
        if let Some(reason) = self.shared.stopped.get() {
            return Err(StorageError::Stopped {
                reason: reason.clone(),
            });
        }
        let commands = self.shared.commands.as_ref().ok_or_else(|| self.gone())?;
        commands.send(command).map_err(|_| self.gone())
    }

    fn gone(&self) -> StorageError {
        let reason = self.stopped_because().unwrap_or("its thread has ended");
        StorageError::Stopped {
            reason: reason.to_owned(),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts the thread, and waits until it has the directory: locking and clearing up are its work too.
fn spawn(
    dir: &Path,
    queue: Receiver<Command>,
    disk: worker::Disk,
    stopped: Arc<OnceLock<String>>,
) -> Result<JoinHandle<()>, StorageError> {
    let dir = dir.to_owned();
    let (prepared, ready) = sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("kith-storage".to_owned())
        .spawn(move || {
            let lock = match worker::prepare(&dir, &disk) {
                Ok(lock) => lock,
                Err(error) => {
                    let _ = prepared.send(Err(error));
                    return;
                }
            };
            let worker = worker::Worker::new(dir, disk, stopped, lock);
            let _ = prepared.send(Ok(()));
            worker.run(&queue);
        })
        .map_err(|source| StorageError::Io {
            path: "storage thread".to_owned(),
            source,
        })?;
    match ready.recv() {
        Ok(prepared) => prepared.map(|()| thread),
        Err(_) => Err(StorageError::Stopped {
            reason: "its thread has ended".to_owned(),
        }),
    }
}

/// A path of plain names below the data directory, or nothing.
fn inside(path: &Path) -> Result<PathBuf, StorageError> {
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    if plain && path.file_name().is_some() {
        Ok(path.to_owned())
    } else {
        Err(StorageError::Path(path.display().to_string()))
    }
}

/// A journal that is written on. One writer a file.
#[derive(Debug)]
pub struct Log {
    storage: Storage,
    file: u64,
    length: u64,
    /// Up to here the disk has given room.
    reserved: u64,
}

impl Log {
    /// Bytes in it.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends bytes, durably: `Ok` once they are synced. After a failed write (no space) the journal is as long as before, and
    /// the same bytes may be tried again.
    pub fn append(&mut self, bytes: Vec<u8>) -> Result<(), StorageError> {
        let (file, count) = (self.file, bytes.len() as u64);
        self.storage
            .ask(|reply| Command::AppendLog { file, bytes, reply })?;
        self.length += count;
        Ok(())
    }

    /// Has the disk keep room for so many bytes more than there are, of which nobody else gets any; asked for again when half of it is
    /// used. Where the file system cannot, nothing is kept.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), StorageError> {
        let (file, left) = (self.file, self.reserved.saturating_sub(self.length));
        if left >= bytes / 2 {
            return Ok(());
        }
        self.storage
            .ask(|reply| Command::ReserveLog { file, bytes, reply })?;
        self.reserved = self.length.saturating_add(bytes);
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = self.storage.send(Command::CloseLog { file: self.file });
    }
}

/// An unfinished file. Dropped without [`commit`](StorageWriter::commit), it is removed.
#[derive(Debug)]
pub struct StorageWriter {
    storage: Storage,
    file: u64,
    path: PathBuf,
    chunk: Vec<u8>,
    bytes: u64,
    fault: Arc<Fault>,
    open: bool,
}

impl StorageWriter {
    /// Where the unfinished file lies, to read it back after a [`flush`](Write::flush).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the file durable under its name (inside the data directory), replacing what was there. The folder is
    /// made if need be. Returns its length in bytes.
    pub fn commit(mut self, to: &Path) -> Result<u64, StorageError> {
        let to = inside(to)?;
        self.hand_over()?;
        let file = self.file;
        let storage = self.storage.clone();
        storage.ask(|reply| Command::Commit { file, to, reply })?;
        self.open = false;
        Ok(self.bytes)
    }

    /// Replaces the first bytes of what was written, without changing where the next ones go.
    pub fn write_head(&mut self, head: &[u8]) -> io::Result<()> {
        self.hand_over()?;
        let bytes = head.to_vec();
        let file = self.file;
        Ok(self.storage.send(Command::WriteHead { file, bytes })?)
    }

    fn hand_over(&mut self) -> Result<(), StorageError> {
        if let Some(source) = self.fault.get() {
            let path = format!("{INCOMING}/{}.part", self.file);
            return Err(StorageError::Io { path, source });
        }
        if !self.chunk.is_empty() {
            let bytes = std::mem::take(&mut self.chunk);
            self.storage.send(Command::Append {
                file: self.file,
                bytes,
            })?;
        }
        Ok(())
    }
}

impl Write for StorageWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.capacity() == 0 {
            self.chunk.reserve_exact(CHUNK_BYTES);
        }
        let room = CHUNK_BYTES.saturating_sub(self.chunk.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.chunk.extend_from_slice(taken);
        if self.chunk.len() >= CHUNK_BYTES {
            self.hand_over()?;
        }
        self.bytes += taken.len() as u64;
        Ok(taken.len())
    }

    /// Waits until all that was written can be read back from [`path`](StorageWriter::path). Not durable yet.
    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()?;
        let file = self.file;
        Ok(self.storage.ask(|reply| Command::Flush { file, reply })?)
    }
}

impl Drop for StorageWriter {
    fn drop(&mut self) {
        if self.open {
            let _ = self.storage.send(Command::Abort { file: self.file });
        }
    }
}
