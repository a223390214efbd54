//! The thread and its files: what a full disk refuses and what it does not, and what is left of an erased id.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::clock::Timestamp;
use crate::config::Config;
use crate::ids::{Keyer, SecretKey};
use crate::people::{Kind, Known, People, PostedId, Refused, Terms};
use crate::storage::{Faults, Storage};

const BEGIN: i64 = 1_800_000_000;

fn noon() -> Timestamp {
    Timestamp::from_unix_seconds(BEGIN)
}

fn keyer() -> Keyer {
    Keyer::new(&SecretKey::from_bytes([3; 32]))
}

fn start(dir: &Path, faults: &Arc<Faults>, clock: fn() -> Timestamp, config: &str) -> People {
    let storage = Storage::start_with(dir, Arc::clone(faults)).expect("storage");
    let config = Config::from_toml(config, "kith.toml").expect("good");
    let known = Arc::new(Known::with_room(config.people.ids).expect("memory"));
    let terms = Terms::of(&config, keyer());
    let people = People::start(terms, known, storage, clock, Box::new(|_| Vec::new()));
    let people = people.expect("a thread");
    until(|| people.recovered().is_some());
    people.recovered().expect("an end").expect("brought back");
    people
}

fn until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn add(people: &People, id: &str) -> Result<usize, Refused> {
    let line = format!(r#"{{"source":"ifa","id":"{id}","add":["site/cart"]}}"#);
    let row = people
        .read_row(Kind::Updates, line.as_bytes(), &|_| true)
        .expect("a row");
    people.take(vec![row]).map(|done| done.accepted)
}

fn posted(id: &str) -> PostedId {
    PostedId {
        source: "ifa".to_owned(),
        id: id.to_owned(),
    }
}

fn erase(people: &People, id: &str) -> Result<usize, Refused> {
    let key = keyer().user_key("ifa", id).expect("an id");
    people
        .erase(&posted(id), vec![key])
        .map(|done| done.accepted)
}

fn holds(people: &People, id: &str) -> (usize, bool) {
    let key = keyer().user_key("ifa", id).expect("an id");
    let view = people.view(key).expect("an answer");
    (view.opinions.len(), view.standing.erased)
}

/// Nothing is acknowledged that is not written, erasures have room of their own, and it goes on by itself.
#[test]
fn a_full_disk_refuses_updates_and_takes_erasures() {
    let dir = tempfile::tempdir().expect("a folder");
    let faults = Arc::new(Faults::default());
    let people = start(dir.path(), &faults, noon, "");
    assert_eq!(add(&people, "before"), Ok(1));
    faults.full.store(true, Relaxed);
    assert_eq!(add(&people, "refused"), Err(Refused::Unwritable));
    assert!(!people.writes());
    assert_eq!(erase(&people, "before"), Ok(1));
    assert!(
        people
            .known()
            .standing(keyer().user_key("ifa", "before").expect("an id"))
            .erased
    );
    assert_eq!(add(&people, "refused too"), Err(Refused::Unwritable));
    // As a crash would: what was acknowledged is in the copy.
    let copy = tempfile::tempdir().expect("a folder");
    copy_all(dir.path(), copy.path());
    let again = start(copy.path(), &Arc::default(), noon, "");
    assert_eq!(holds(&again, "before"), (0, true));
    drop(again);
    faults.full.store(false, Relaxed);
    until(|| people.writes());
    assert_eq!(add(&people, "after"), Ok(1));
    drop(people);
    let people = start(dir.path(), &Arc::default(), noon, "");
    assert_eq!(holds(&people, "before"), (0, true));
    assert_eq!(holds(&people, "after"), (1, false));
}

/// A sync that fails stops all writing; what was acknowledged is there after a restart.
#[test]
fn a_failed_sync_stops_everything_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let faults = Arc::new(Faults::default());
    let people = start(dir.path(), &faults, noon, "");
    assert_eq!(add(&people, "before"), Ok(1));
    faults.sync.store(true, Relaxed);
    assert_eq!(add(&people, "lost"), Err(Refused::Unwritable));
    assert_eq!(erase(&people, "before"), Err(Refused::Unwritable));
    faults.sync.store(false, Relaxed);
    assert_eq!(add(&people, "still"), Err(Refused::Unwritable));
    drop(people);
    let people = start(dir.path(), &Arc::default(), noon, "");
    assert_eq!(holds(&people, "before"), (1, false));
}

#[test]
fn a_damaged_journal_is_no_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let people = start(dir.path(), &Arc::default(), noon, "");
    (0..3).for_each(|n| assert_eq!(add(&people, &format!("u{n}")), Ok(1)));
    drop(people);
    let files: Vec<_> = std::fs::read_dir(dir.path().join("people/journal"))
        .expect("a folder")
        .collect();
    let path = files
        .into_iter()
        .next()
        .expect("a file")
        .expect("an entry")
        .path();
    let whole = std::fs::read(&path).expect("a journal");
    let begin = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        let storage = Storage::start(dir.path()).expect("storage");
        let known = Arc::new(Known::with_room(1_000).expect("memory"));
        let terms = Terms::of(&Config::default(), keyer());
        let people =
            People::start(terms, known, storage, noon, Box::new(|_| Vec::new())).expect("a thread");
        until(|| people.recovered().is_some());
        let told = people
            .recovered()
            .expect("an end")
            .map_err(ToString::to_string);
        (told, people.known().sequence())
    };
    let mut bad = whole.clone();
    bad[60] ^= 1;
    let told = begin(&bad).0.expect_err("damaged");
    assert!(told.contains("bring the file back from a backup"), "{told}");
    // What a crash leaves at its end is cut off: it was not acknowledged.
    let (told, sequence) = begin(&whole[..whole.len() - 5]);
    assert_eq!((told, sequence), (Ok(()), 2));
}

/// Rows as wide as they may be, more at once than a frame holds, with more names than one holds: all of them are there after a start, from
/// the journal and from a checkpoint, and are read on.
#[test]
fn wide_rows_are_read_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = "[people]\ncheckpoint_bytes = \"64 KiB\"\n";
    let people = start(dir.path(), &Arc::default(), noon, config);
    let wide = |n: usize| {
        let named = (0..60).map(|at| format!("\"{:a<64}/{:b<64}\"", n % 200, format!("{n}-{at}")));
        let named: Vec<String> = named.collect();
        format!(
            r#"{{"source":" ifa ","id":"   wide-{n}  ","add":[{}]}}"#,
            named.join(",")
        )
    };
    let rows = (0..1_200).map(wide).collect::<Vec<_>>().join("\n");
    let (done, unread) = people
        .take_lines(Kind::Updates, rows.as_bytes())
        .expect("taken");
    assert_eq!((done.accepted, unread), (1_200, 0));
    assert!(rows.len() > 8 << 20);
    let checkpoint = dir.path().join("people/checkpoint");
    until(|| checkpoint.exists());
    drop(people);
    for with_checkpoint in [true, false] {
        if !with_checkpoint {
            std::fs::remove_file(&checkpoint).expect("removed");
        }
        let people = start(dir.path(), &Arc::default(), noon, "");
        for n in [0, 1, 600, 1_199] {
            assert_eq!(holds(&people, &format!("wide-{n}")), (60, false), "{n}");
        }
        let mut after = 0;
        while after < 1_200 {
            let page = people.feed(after, 500).expect("readable");
            let text = String::from_utf8(page.lines).expect("text");
            let begins = format!("{{\"sequence\":{},", after + 1);
            let first = text.lines().next().unwrap_or_default();
            let normal = format!(r#""source":"ifa","id":"wide-{after}","#);
            assert!(
                first.starts_with(&begins) && first.contains(&normal),
                "{first:.200}"
            );
            assert!(page.last > after);
            after = page.last;
        }
        assert_eq!(people.feed(1_200, 5).expect("the end").rows, 0);
        let told = people.feed(1_201, 5).expect_err("ahead").to_string();
        assert!(told.contains("last row is 1200"), "{told}");
    }
}

/// What a checkpoint has vouched for must be there, or nobody is bid for.
#[test]
fn without_its_opt_outs_it_does_not_get_ready() {
    let dir = tempfile::tempdir().expect("a folder");
    let people = start(dir.path(), &Arc::default(), later, "");
    assert_eq!((add(&people, "a"), erase(&people, "b")), (Ok(1), Ok(1)));
    drop(people);
    // Said in the journal, and not there.
    for name in ["erased", "erased.copy"] {
        std::fs::remove_file(dir.path().join("people").join(name)).expect("removed");
    }
    let storage = Storage::start(dir.path()).expect("storage");
    let terms = Terms::of(&Config::default(), keyer());
    let known = Arc::new(Known::with_room(1_000).expect("memory"));
    let people = People::start(terms, known, storage, later, Box::new(|_| Vec::new()));
    let people = people.expect("a thread");
    until(|| people.recovered().is_some());
    assert!(people.recovered().expect("an end").is_err());
}

static HOUR: AtomicI64 = AtomicI64::new(0);

fn later() -> Timestamp {
    Timestamp::from_unix_seconds(BEGIN + HOUR.load(Relaxed) * 3_600)
}

/// Once its hours are older than is kept, no byte of the data directory knows an erased id, in clear or by its hash.
#[test]
fn nothing_is_left_of_an_erased_id() {
    let dir = tempfile::tempdir().expect("a folder");
    let people = start(
        dir.path(),
        &Arc::default(),
        later,
        "[people]\nretention = \"2h\"\n",
    );
    let (secret, other) = ("a-shopper-who-wants-to-go", "another-who-stays");
    assert_eq!((add(&people, secret), add(&people, other)), (Ok(1), Ok(1)));
    assert!(
        has_trace(dir.path(), secret),
        "while segment jobs may read it"
    );
    HOUR.store(1, Relaxed);
    // The hour is closed and compressed, with what was in it.
    let packed = || std::fs::read_dir(dir.path().join("people/feed")).map_or(0, Iterator::count);
    until(|| packed() == 1);
    let all = people.feed(0, 10).expect("readable");
    assert_eq!(all.rows, 2);
    assert_eq!(erase(&people, secret), Ok(1));
    assert_eq!(
        people.feed(0, 10).expect("readable").rows,
        2,
        "the other, and the erasure"
    );
    HOUR.store(5, Relaxed);
    until(|| packed() == 0 && !has_trace(dir.path(), secret));
    assert_eq!(holds(&people, secret), (0, true));
    assert_eq!(
        holds(&people, other),
        (1, false),
        "an update lives as long as it says"
    );
    assert!(people.feed(0, 10).is_err(), "what is gone is said to be");
    assert_eq!(people.feed(3, 10).expect("readable").rows, 0);
    drop(people);
    let people = start(dir.path(), &Arc::default(), later, "");
    assert_eq!(
        (holds(&people, secret), holds(&people, other)),
        ((0, true), (1, false))
    );
    assert!(!has_trace(dir.path(), secret));
}

fn has_trace(dir: &Path, id: &str) -> bool {
    let digest = <sha2::Sha256 as sha2::Digest>::digest(id.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let traces = [id.as_bytes(), &digest, hex.as_bytes()];
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| match entry.path() {
        path if path.is_dir() => has_trace(&path, id),
        path => {
            let mut bytes = std::fs::read(&path).unwrap_or_default();
            if path.extension().is_some_and(|end| end == "gz") {
                let mut all = Vec::new();
                let mut unpacked = flate2::read::MultiGzDecoder::new(&bytes[..]);
                let _ = std::io::Read::read_to_end(&mut unpacked, &mut all);
                bytes.append(&mut all);
            }
            let has = |trace: &&[u8]| memchr::memmem::find(&bytes, trace).is_some();
            traces.iter().any(has)
        }
    })
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copied")),
        }
    }
}
