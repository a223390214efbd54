use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn files(dir: &Path, folder: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir.join(folder)) else {
        return Vec::new();
    };
    entries.map(|e| e.expect("an entry").path()).collect()
}

#[test]
fn a_committed_file_is_whole_and_nothing_else_is_left() {
    let dir = folder();
    let storage = Storage::start(dir.path()).expect("started");
    let mut writer = storage.create().expect("created");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    writer.write_all(&bytes).expect("written");
    writer.flush().expect("flushed");
    assert_eq!(std::fs::read(writer.path()).expect("read back"), bytes);
    let target = Path::new("datasets/crm/1.kith");
    assert_eq!(writer.commit(target).expect("committed"), 3_000_000);
    assert_eq!(std::fs::read(dir.path().join(target)).expect("read"), bytes);
    assert!(files(dir.path(), INCOMING).is_empty());
}

#[test]
fn an_abandoned_file_is_removed() {
    let dir = folder();
    let storage = Storage::start(dir.path()).expect("started");
    let mut writer = storage.create().expect("created");
    writer.write_all(b"half").expect("written");
    writer.flush().expect("flushed");
    assert_eq!(files(dir.path(), INCOMING).len(), 1);
    drop(writer);
    // Commands are done in order, so whatever comes next has waited for the removal.
    storage
        .write_atomic(Path::new("x"), b"1".to_vec())
        .expect("written");
    assert!(files(dir.path(), INCOMING).is_empty());
}

#[test]
fn what_a_crash_left_is_removed_at_start_and_nothing_else() {
    let dir = folder();
    drop(Storage::start(dir.path()).expect("started"));
    std::fs::write(dir.path().join("incoming/7.part"), "half").expect("written");
    std::fs::write(dir.path().join("incoming/notes.txt"), "a person's").expect("written");
    let _storage = Storage::start(dir.path()).expect("started again");
    assert_eq!(
        files(dir.path(), INCOMING),
        [dir.path().join("incoming/notes.txt")]
    );
}

#[test]
fn a_second_owner_is_told_so() {
    let dir = folder();
    let first = Storage::start(dir.path()).expect("started");
    let second = Storage::start(dir.path()).expect_err("locked");
    assert!(second.to_string().contains("in use by another process"));
    drop(first);
    Storage::start(dir.path()).expect("free again");
}

#[test]
fn a_full_disk_costs_one_file_only() {
    let dir = folder();
    let faults = Arc::new(Faults::default());
    let storage = Storage::start_with(dir.path(), Arc::clone(&faults)).expect("started");
    let mut writer = storage.create().expect("created");
    writer.write_all(b"some").expect("gathered");
    writer.flush().expect("written");
    writer.write_all(b"more").expect("gathered");
    faults.write.store(true, Ordering::Relaxed);
    let error = writer.flush().expect_err("no space");
    assert!(is_full(&error), "{error}");
    let left = std::fs::metadata(writer.path()).expect("still open");
    assert_eq!(left.len(), 0, "the space is given back at once");
    faults.write.store(false, Ordering::Relaxed);
    assert!(
        writer
            .commit(Path::new("late"))
            .expect_err("stays failed")
            .is_full()
    );
    assert!(storage.healthy());
    storage
        .write_atomic(Path::new("x"), b"1".to_vec())
        .expect("others go on");
    assert!(files(dir.path(), INCOMING).is_empty());
    assert!(!dir.path().join("late").exists());
}

#[test]
fn a_failed_sync_stops_all_writing_for_good() {
    let dir = folder();
    let faults = Arc::new(Faults::default());
    let storage = Storage::start_with(dir.path(), Arc::clone(&faults)).expect("started");
    faults.sync.store(true, Ordering::Relaxed);
    storage
        .write_atomic(Path::new("x"), b"1".to_vec())
        .expect_err("the sync failed");
    faults.sync.store(false, Ordering::Relaxed);
    assert!(!storage.healthy());
    for refused in [
        storage.write_atomic(Path::new("x"), b"1".to_vec()).err(),
        storage.create().err(),
        storage.remove(Path::new("x")).err(),
    ] {
        assert!(matches!(refused, Some(StorageError::Stopped { .. })));
    }
    assert!(!dir.path().join("x").exists());
}

#[test]
fn no_path_leads_outside() {
    let dir = folder();
    let storage = Storage::start(dir.path()).expect("started");
    for bad in ["../x", "/etc/x", "a/../../x", "", "."] {
        let refused = storage.write_atomic(Path::new(bad), Vec::new());
        assert!(matches!(refused, Err(StorageError::Path(_))), "{bad:?}");
    }
}

#[test]
fn no_symbolic_link_is_followed() {
    let dir = folder();
    let outside = folder();
    let target = outside.path().join("elsewhere");
    std::os::unix::fs::symlink(&target, dir.path().join("lock")).expect("linked");
    Storage::start(dir.path()).expect_err("the lock is a link");
    assert!(!target.exists());
}

#[test]
fn a_directory_is_made_with_those_above_it() {
    let dir = folder();
    let nested = dir.path().join("a/b/data");
    let storage = Storage::start(&nested).expect("started");
    storage
        .write_atomic(Path::new("x"), b"1".to_vec())
        .expect("written");
    assert!(nested.join("x").exists());
}

#[test]
fn a_full_disk_still_takes_small_files_from_the_reserve() {
    let dir = folder();
    let faults = Arc::new(Faults::default());
    let storage = Storage::start_with(dir.path(), Arc::clone(&faults)).expect("started");
    let reserve = dir.path().join("reserve");
    assert_eq!(std::fs::metadata(&reserve).expect("there").len(), 1 << 20);
    let mut writer = storage.create().expect("created");
    faults.full.store(true, Ordering::Relaxed);
    writer.write_all(b"an upload").expect("gathered");
    assert!(is_full(&writer.flush().expect_err("no space")));
    assert!(reserve.exists(), "uploads do not get at it");
    storage
        .write_atomic(Path::new("x"), b"1".to_vec())
        .expect("written from the reserve");
    assert!(dir.path().join("x").exists());
    assert!(reserve.exists(), "made again while there is room");
    // An earlier run's is taken over.
    drop((writer, storage));
    let _storage = Storage::start(dir.path()).expect("started");
    assert_eq!(std::fs::metadata(&reserve).expect("there").len(), 1 << 20);
}
