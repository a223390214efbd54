//! Files that are served where they lie: they answer as others do, and when they break under our feet the version is lost
//! and nothing else.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::audience::{AudienceFile, Filter, Lookup, Version};

/// How many people are in the file: it has some twenty pages.
const PEOPLE: u32 = 6000;

fn file(dir: &Path) -> PathBuf {
    let rows: String = (0..PEOPLE)
        .map(|n| format!("ifa,u{n},s{}|s{},\n", n % 7, 7 + n % 13))
        .collect();
    let path = dir.join("crm-1.kith");
    std::fs::write(&path, build_csv(&rows).0).expect("written");
    path
}

fn mapped(path: &Path) -> Audience {
    AudienceFile::open_mapped(path)
        .expect("a sound file")
        .into()
}

fn cut(path: &Path, length: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("there");
    file.set_len(length).expect("cut");
}

fn everybody() -> impl Iterator<Item = UserKey> {
    (0..PEOPLE + 100).map(|n| key(&format!("u{n}")))
}

#[test]
fn it_answers_as_one_in_memory_and_settles_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = file(dir.path());
    let (one, other) = (Audience::open(&path).expect("sound"), mapped(&path));
    assert!(other.base().is_mapped() && !one.base().is_mapped());
    let settled = other.base().settled().expect("whole");
    assert!(!settled.is_mapped());
    let settled = other.with_base(settled.into());
    drop(other);
    // From here on the file is nobody's business.
    cut(&path, 0);
    let other = settled;
    for key in everybody() {
        assert_eq!(look_up(&one, key, at(0)), look_up(&other, key, at(0)));
    }
}

#[test]
fn a_cut_file_is_found_by_whoever_reads_it_and_never_believed() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = file(dir.path());
    let sound = Audience::open(&path).expect("sound");
    let length = sound.bytes();
    // At the edge of a page: within one the system fills up with zeros and tells nobody.
    let cuts = [0, 4096, length / 2 / 4096 * 4096];
    for to in cuts {
        let path = file(dir.path());
        let audience = mapped(&path);
        let twin = mapped(&path);
        cut(&path, to);
        let mut damaged = 0u32;
        for key in everybody() {
            let mut found = Vec::new();
            match audience.lookup(key, at(0), |index| found.push(index)) {
                Lookup::Damaged => damaged += 1,
                told => {
                    let mut right = Vec::new();
                    assert_eq!(told, sound.lookup(key, at(0), |index| right.push(index)));
                    assert_eq!(found, right);
                }
            }
        }
        assert!(damaged > PEOPLE / 4 && !audience.base().is_whole(), "{to}");
        assert!(twin.base().is_whole(), "nobody has read it yet");
        let refused = twin.base().settled().expect_err("it is cut").to_string();
        assert!(refused.contains("could not be read"), "{refused}");
        // And after all of it reads as zeros.
        assert_eq!(audience.lookup(key("u1"), at(0), |_| {}), Lookup::Damaged);
        let refused = AudienceFile::open_mapped(&path).expect_err("it is cut");
        assert!(refused.to_string().starts_with(&*path.to_string_lossy()));
    }
}

#[test]
fn many_threads_may_read_while_it_is_cut() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = file(dir.path());
    let audience = mapped(&path);
    let sound = Audience::open(&path).expect("sound");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    for key in everybody().step_by(7) {
                        let told = audience.lookup(key, at(0), |_| {});
                        let right = sound.lookup(key, at(0), |_| {});
                        assert!(told == right || told == Lookup::Damaged);
                    }
                }
            });
        }
        std::thread::sleep(std::time::Duration::from_millis(30));
        cut(&path, 0);
        std::thread::sleep(std::time::Duration::from_millis(30));
        ended.store(true, Ordering::Relaxed);
    });
    assert!(!audience.base().is_whole());
}

#[test]
fn what_changed_on_disk_does_not_settle() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = file(dir.path());
    let audience = mapped(&path);
    let mut bytes = std::fs::read(&path).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    use std::os::unix::fs::FileExt as _;
    let file = OpenOptions::new().write(true).open(&path).expect("there");
    file.write_all_at(&bytes, 0).expect("written");
    let refused = audience.base().settled().expect_err("changed").to_string();
    assert!(refused.contains("damaged in its "), "{refused}");
}

#[test]
fn each_place_is_given_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = file(dir.path());
    // More than are watched at a time.
    for _ in 0..100 {
        assert!(mapped(&path).base().is_whole());
    }
}

#[test]
fn filters_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("f.kith");
    let meta = VersionMeta {
        kind: Kind::Filter,
        ..meta(1)
    };
    let rows: String = (0..PEOPLE).map(|n| format!("u{n}\n")).collect();
    let text = RowFormat::Text {
        source: "ifa".to_owned(),
        segment: "list".parse().expect("a name"),
    };
    std::fs::write(&path, build(meta, &text, rows.as_bytes()).0).expect("written");
    let Version::Filter(filter) = Version::open_mapped(&path).expect("sound") else {
        panic!("a filter");
    };
    let settled: Filter = filter.settled().expect("whole");
    assert!(filter.is_mapped() && !settled.is_mapped());
    cut(&path, 0);
    assert!(everybody().all(|key| filter.lookup(key) == Lookup::Damaged));
    assert!(!filter.is_whole() && settled.is_whole());
    let found = everybody().filter(|key| settled.lookup(*key) == Lookup::Found);
    assert!(found.count() >= PEOPLE as usize);
}
