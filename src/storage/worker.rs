//! The storage thread itself: commands in, system calls out.
//!
//! Files are opened with `O_NOFOLLOW` and never by a name that came from outside. An unfinished file is kept open from
//! creation to commit, so that what is synced is what was written.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock};

use super::{Command, Fault, INCOMING, StorageError};

/// Room that is kept for small files on a disk that is otherwise full: some hundred manifests of three versions a dataset.
const RESERVE_BYTES: u64 = 1 << 20;
/// The file that keeps it.
const RESERVE: &str = "reserve";

const NOFOLLOW: i32 = OFlags::NOFOLLOW.bits() as i32;

/// Makes the directory and its folders, locks it and removes unfinished files. The lock lasts as long as the file.
pub(super) fn prepare(dir: &Path, disk: &Disk) -> Result<File, StorageError> {
    if !dir.is_dir() {
        make_folder(dir).map_err(failed(dir))?;
        // What is acknowledged in a folder that a power cut takes away was not durable.
        let dir = std::path::absolute(dir).map_err(failed(dir))?;
        for above in dir.ancestors().skip(1) {
            // A folder above that we may not read was not made by us.
            match disk.sync_folder(above) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => break,
                other => other.map_err(failed(above))?,
            }
        }
    }
    let path = dir.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(NOFOLLOW)
        .open(&path)
        .map_err(failed(&path))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(StorageError::Locked {
                dir: dir.display().to_string(),
            });
        }
        Err(errno) => return Err(failed(&path)(errno.into())),
    }
    let incoming = dir.join(INCOMING);
    make_folder(&incoming).map_err(failed(&incoming))?;
    remove_unfinished(&incoming).map_err(failed(&incoming))?;
    Ok(lock)
}

/// Removes `*.part` and nothing else: what is not ours by its name is left alone.
fn remove_unfinished(incoming: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(incoming)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "part") {
            tracing::info!(file = %path.display(), "removing an unfinished file of an earlier run");
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Opens a file by name to read it, refusing a symbolic link in its place.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(NOFOLLOW)
        .open(path)
}

fn make_folder(path: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
    {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> StorageError + use<> {
    let path = path.display().to_string();
    move |source| StorageError::Io {
        path: path.clone(),
        source,
    }
}

/// The system calls that a test may want to see fail.
#[derive(Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    faults: Option<Arc<Faults>>,
}

/// What a test makes fail, from now on.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Writes answer "no space left".
    pub(crate) write: std::sync::atomic::AtomicBool,
    /// Syncs answer an I/O error.
    pub(crate) sync: std::sync::atomic::AtomicBool,
    /// The disk is full: writes answer "no space left" until the reserve, or a file, is given up.
    pub(crate) full: std::sync::atomic::AtomicBool,
}

#[cfg(test)]
impl Disk {
    pub(super) fn failing(faults: Arc<Faults>) -> Disk {
        Disk {
            faults: Some(faults),
        }
    }
}

impl Disk {
    fn write_head(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.seek(SeekFrom::Start(0))?;
        self.write(file, bytes)?;
        file.seek(SeekFrom::End(0)).map(drop)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if self.told(|f| &f.write) || self.told(|f| &f.full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all(bytes)
    }

    /// Where there is room already.
    fn write_reserved(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if self.told(|f| &f.write) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all(bytes)
    }

    /// Takes space behind a file's end, which stays where it is.
    fn allocate_behind(&self, file: &File, end: u64, bytes: u64) -> io::Result<()> {
        #[cfg(test)]
        if self.told(|f| &f.write) || self.told(|f| &f.full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match fallocate(file, FallocateFlags::KEEP_SIZE, end, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Removes a file, and with it its need of space.
    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)?;
        #[cfg(test)]
        if let Some(faults) = &self.faults {
            faults
                .full
                .store(false, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes space for a file that holds nothing. Where the file system cannot, the file stays empty and keeps nothing.
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        #[cfg(test)]
        if self.told(|f| &f.write) || self.told(|f| &f.full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            other => Ok(other?),
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        if self.told(|f| &f.sync) {
            return Err(io::Error::from_raw_os_error(5));
        }
        file.sync_data()
    }

    /// A rename can be rolled back by a power cut until its folder is synced.
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let folder = open_to_read(folder)?;
        #[cfg(test)]
        if self.told(|f| &f.sync) {
            return Err(io::Error::from_raw_os_error(5));
        }
        folder.sync_all()
    }

    #[cfg(test)]
    fn told(&self, which: impl Fn(&Faults) -> &std::sync::atomic::AtomicBool) -> bool {
        self.faults
            .as_ref()
            .is_some_and(|f| which(f).load(std::sync::atomic::Ordering::Relaxed))
    }
}

struct Unfinished {
    file: File,
    path: PathBuf,
    fault: Arc<Fault>,
}

/// A journal that is open, and how long it is.
struct OpenLog {
    file: File,
    path: PathBuf,
    length: u64,
    /// Up to here it has room, even on a full disk.
    reserved: u64,
}

pub(super) struct Worker {
    dir: PathBuf,
    disk: Disk,
    open: HashMap<u64, Unfinished>,
    logs: HashMap<u64, OpenLog>,
    stopped: Arc<OnceLock<String>>,
    atomic_writes: u64,
    /// Whether the reserve is there.
    reserved: bool,
    _lock: File,
}

impl Worker {
    pub(super) fn new(
        dir: PathBuf,
        disk: Disk,
        stopped: Arc<OnceLock<String>>,
        lock: File,
    ) -> Worker {
        let mut worker = Worker {
            dir,
            disk,
            open: HashMap::new(),
            logs: HashMap::new(),
            stopped,
            atomic_writes: 0,
            reserved: false,
            _lock: lock,
        };
        // One of an earlier run may be there, whole or not.
        let _ = std::fs::remove_file(worker.dir.join(RESERVE));
        worker.reserve();
        worker
    }

    /// Keeps room for small files, where there is some.
    fn reserve(&mut self) {
        if self.reserved {
            return;
        }
        let path = Path::new(RESERVE);
        let made = self
            .open_new(path)
            .and_then(|file| self.disk.allocate(&file, RESERVE_BYTES));
        self.reserved = made.is_ok();
        if !self.reserved {
            let _ = std::fs::remove_file(self.dir.join(path));
        }
    }

    /// Gives that room up; whether there was some.
    fn give_up_reserve(&mut self) -> bool {
        let kept = std::mem::take(&mut self.reserved);
        kept && self.disk.remove(&self.dir.join(RESERVE)).is_ok()
    }

    pub(super) fn run(mut self, queue: &Receiver<Command>) {
        while let Ok(command) = queue.recv() {
            match command {
                Command::Create {
                    file,
                    path,
                    fault,
                    reply,
                } => {
                    let _ = reply.send(self.create(file, path, fault));
                }
                Command::Append { file, bytes } => {
                    self.write(file, |disk, to| disk.write(to, &bytes));
                }
                Command::WriteHead { file, bytes } => {
                    self.write(file, |disk, to| disk.write_head(to, &bytes));
                }
                Command::Flush { file, reply } => {
                    let _ = reply.send(self.flush(file));
                }
                Command::Commit { file, to, reply } => {
                    let _ = reply.send(self.commit(file, &to));
                }
                Command::Abort { file } => self.abort(file),
                Command::WriteAtomic { to, bytes, reply } => {
                    let _ = reply.send(self.write_atomic(&to, &bytes));
                }
                Command::Rename { from, to, reply } => {
                    let _ = reply.send(self.rename(&from, &to));
                }
                Command::Remove { path, reply } => {
                    let _ = reply.send(self.remove(&path));
                }
                Command::OpenLog {
                    file,
                    path,
                    length,
                    reply,
                } => {
                    let _ = reply.send(self.open_log(file, path, length));
                }
                Command::AppendLog { file, bytes, reply } => {
                    let _ = reply.send(self.append_log(file, &bytes));
                }
                Command::ReserveLog { file, bytes, reply } => {
                    let _ = reply.send(self.reserve_log(file, bytes));
                }
                Command::CloseLog { file } => {
                    self.logs.remove(&file);
                }
            }
        }
        for file in self.open.keys().copied().collect::<Vec<_>>() {
            self.abort(file);
        }
    }

    fn create(&mut self, file: u64, path: PathBuf, fault: Arc<Fault>) -> Result<(), StorageError> {
        self.writing()?;
        let opened = self.open_new(&path).map_err(failed(&path))?;
        let unfinished = Unfinished {
            file: opened,
            path,
            fault,
        };
        self.open.insert(file, unfinished);
        Ok(())
    }

    fn open_new(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(NOFOLLOW)
            .open(self.dir.join(path))
    }

    fn write(&mut self, file: u64, write: impl FnOnce(&Disk, &mut File) -> io::Result<()>) {
        let Some(unfinished) = self.open.get_mut(&file) else {
            return;
        };
        if unfinished.fault.0.get().is_some() {
            return;
        }
        if let Err(error) = write(&self.disk, &mut unfinished.file) {
            tracing::warn!(%error, "an upload could not be written; the file is given up");
            let _ = unfinished.fault.0.set((error.kind(), error.to_string()));
            // Give the space back at once: a full disk must not stay full until the writer notices.
            let _ = unfinished.file.set_len(0);
        }
    }

    fn flush(&mut self, file: u64) -> Result<(), StorageError> {
        self.writing()?;
        self.unfinished(file).map(|_| ())
    }

    /// The file, if every byte handed over was written.
    fn unfinished(&self, file: u64) -> Result<&Unfinished, StorageError> {
        let unfinished = self
            .open
            .get(&file)
            .ok_or_else(|| StorageError::Path(format!("unfinished file {file}")))?;
        match unfinished.fault.get() {
            Some(source) => Err(failed(&unfinished.path)(source)),
            None => Ok(unfinished),
        }
    }

    fn commit(&mut self, file: u64, to: &Path) -> Result<(), StorageError> {
        self.writing()?;
        self.unfinished(file)?;
        let Some(unfinished) = self.open.remove(&file) else {
            return Err(StorageError::Path(format!("unfinished file {file}")));
        };
        let done = self.put_in_place(&unfinished.file, &unfinished.path, to);
        if done.is_err() {
            let _ = std::fs::remove_file(self.dir.join(&unfinished.path));
        }
        done
    }

    /// Small files are written on a full disk too, from the reserve: what an operator switches must be kept.
    fn write_atomic(&mut self, to: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        self.writing()?;
        let done = match self.write_whole(to, bytes) {
            Err(e) if e.is_full() && self.give_up_reserve() => {
                tracing::warn!("the disk is full; the reserve is used for small files");
                self.write_whole(to, bytes)
            }
            other => other,
        };
        self.reserve();
        done
    }

    fn write_whole(&mut self, to: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        self.atomic_writes += 1;
        let beside = Path::new(INCOMING).join(format!("atomic-{}.part", self.atomic_writes));
        let done = (|| {
            let mut file = self.open_new(&beside).map_err(failed(&beside))?;
            self.disk.write(&mut file, bytes).map_err(failed(to))?;
            self.put_in_place(&file, &beside, to)
        })();
        if done.is_err() {
            let _ = std::fs::remove_file(self.dir.join(&beside));
        }
        done
    }

    /// The numbered steps that make a file durable under its name.
    fn put_in_place(&self, file: &File, from: &Path, to: &Path) -> Result<(), StorageError> {
        let target = self.dir.join(to);
        // 1. The folder exists, durably.
        let folder = self.folder_of(to)?;
        // 2. The bytes are on the disk before the name is.
        self.disk.sync(file).map_err(|e| self.stop(to, &e))?;
        // 3. The name, in one step.
        std::fs::rename(self.dir.join(from), &target).map_err(failed(to))?;
        // 4. The name is on the disk.
        self.disk
            .sync_folder(&folder)
            .map_err(|e| self.stop(to, &e))
    }

    /// The folder of a file, which is there from now on.
    fn folder_of(&self, file: &Path) -> Result<PathBuf, StorageError> {
        let target = self.dir.join(file);
        let folder = target.parent().unwrap_or(&self.dir).to_owned();
        if !folder.is_dir() {
            make_folder(&folder).map_err(failed(file))?;
            for made in folder
                .ancestors()
                .skip(1)
                .take_while(|a| a.starts_with(&self.dir))
            {
                self.disk
                    .sync_folder(made)
                    .map_err(|e| self.stop(file, &e))?;
            }
        }
        Ok(folder)
    }

    /// The new name is on the disk before the old one's absence is: a crash leaves one of them, or both.
    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), StorageError> {
        self.writing()?;
        let folder = self.folder_of(to)?;
        let before = self.dir.join(from);
        std::fs::rename(&before, self.dir.join(to)).map_err(failed(from))?;
        for folder in [Some(folder.as_path()), before.parent()]
            .into_iter()
            .flatten()
        {
            self.disk
                .sync_folder(folder)
                .map_err(|e| self.stop(to, &e))?;
        }
        Ok(())
    }

    fn abort(&mut self, file: u64) {
        if let Some(unfinished) = self.open.remove(&file) {
            let _ = std::fs::remove_file(self.dir.join(&unfinished.path));
        }
    }

    fn remove(&mut self, path: &Path) -> Result<(), StorageError> {
        self.writing()?;
        match self.disk.remove(&self.dir.join(path)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(failed(path))?,
        }
        self.reserve();
        Ok(())
    }

    /// The name is durable before anything in the file is.
    fn open_log(&mut self, file: u64, path: PathBuf, length: u64) -> Result<(), StorageError> {
        self.writing()?;
        let folder = self.folder_of(&path)?;
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NOFOLLOW)
            .open(self.dir.join(&path))
            .map_err(failed(&path))?;
        opened.set_len(length).map_err(failed(&path))?;
        self.disk
            .sync(&opened)
            .and_then(|()| self.disk.sync_folder(&folder))
            .map_err(|e| self.stop(&path, &e))?;
        let log = OpenLog {
            file: opened,
            path,
            length,
            reserved: length,
        };
        self.logs.insert(file, log);
        Ok(())
    }

    fn append_log(&mut self, file: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.writing()?;
        let unknown = || StorageError::Path(format!("journal {file}"));
        let log = self.logs.get_mut(&file).ok_or_else(unknown)?;
        let path = log.path.clone();
        let written = log.file.seek(SeekFrom::Start(log.length)).and_then(|_| {
            let end = log.length.saturating_add(bytes.len() as u64);
            match end <= log.reserved {
                true => self.disk.write_reserved(&mut log.file, bytes),
                false => self.disk.write(&mut log.file, bytes),
            }
        });
        if let Err(error) = written {
            // Half of it must not stay: the next bytes begin where these did.
            let cut = log.file.set_len(log.length);
            cut.map_err(|e| self.stop(&path, &e))?;
            return Err(failed(&path)(error));
        }
        let synced = self.disk.sync(&log.file);
        if synced.is_ok() {
            log.length += bytes.len() as u64;
        }
        synced.map_err(|e| self.stop(&path, &e))
    }

    fn reserve_log(&mut self, file: u64, bytes: u64) -> Result<(), StorageError> {
        self.writing()?;
        let unknown = || StorageError::Path(format!("journal {file}"));
        let log = self.logs.get_mut(&file).ok_or_else(unknown)?;
        let kept = self.disk.allocate_behind(&log.file, log.length, bytes);
        kept.map_err(failed(&log.path))?;
        log.reserved = log.length.saturating_add(bytes);
        Ok(())
    }

    fn writing(&self) -> Result<(), StorageError> {
        match self.stopped.get() {
            None => Ok(()),
            Some(reason) => Err(StorageError::Stopped {
                reason: reason.clone(),
            }),
        }
    }

    fn stop(&self, path: &Path, error: &io::Error) -> StorageError {
        let reason = format!("syncing {} failed: {error}", path.display());
        tracing::error!(%reason, "storage stops writing; restart after checking the disk");
        let _ = self.stopped.set(reason.clone());
        StorageError::Stopped { reason }
    }
}
