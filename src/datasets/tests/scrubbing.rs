//! Files and memory that rot under a running service: whatever is damaged, no answer is wrong, and nothing whole is lost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const CONFIG: &str =
    "[data]\nkeep_versions = 6\n[guards]\nenabled = false\n[datasets.optout]\nkind = \"filter\"\n";
/// A day and an hour after all was uploaded: everything is due.
const LATER: Timestamp = Timestamp::from_unix_ms(NOW.unix_ms + 25 * 3_600_000);

const FILES: [&str; 8] = [
    "crm/1.kith",
    "crm/2.kith",
    "crm/3.kith",
    "crm/4.kith",
    "crm/4.full.kith",
    "crm/5.kith",
    "campaigns/1.json",
    "campaigns/2.json",
];

fn document(segment: &str) -> String {
    format!(
        r#"{{"advertisers":[{{"id":"acme","domain":"acme.example"}}],
        "creatives":[{{"id":"c1","advertiser":"acme","type":"banner","w":300,"h":250,"adm":"<b>x</b>"}}],
        "line_items":[{{"id":"l1","creatives":["c1"],"targeting":"segments one of ['{segment}']",
        "price":{{"cpm":"4.20","currency":"EUR"}}}}]}}"#
    )
}

/// All that is uploaded: five versions of an audience (two full, three deltas), two of campaigns. A filter is left out: a million probes
/// each time that one is opened take long in a test.
fn uploads() -> Vec<(Upload, String)> {
    let delta = |version: u64| {
        let upload = Upload {
            mode: Mode::Delta,
            base: Some(version - 1),
            ..csv("crm", version)
        };
        (upload, format!("source,id,add\nifa,id-{version},vip\n"))
    };
    let book = |version: u64, segment: &str| {
        let upload = Upload {
            format: Format::Document,
            ..csv(CAMPAIGNS, version)
        };
        (upload, document(segment))
    };
    let full = |version: u64| (csv("crm", version), rows(&[&format!("id-{version}")]));
    vec![
        full(1),
        full(2),
        delta(3),
        delta(4),
        delta(5),
        book(1, "crm/vip"),
        book(2, "crm/other"),
    ]
}

fn open(dir: &Path) -> Kit {
    open_as(dir, CONFIG, Arc::default()).expect("opened")
}

/// A directory in which version 4 was compacted before 5 came, so that 5 is laid over what was compacted.
fn filled(dir: &Path) {
    let kit = open(dir);
    kit.datasets.recover(NOW).expect("ready");
    for (upload, body) in uploads() {
        kit.put(&upload, &body).expect("taken");
        if upload.dataset.as_str() == "crm" && upload.version == 4 {
            assert_eq!(kit.datasets.compact(&name("crm"), NOW), Ok(true));
        }
    }
    for file in FILES {
        assert!(dir.join("datasets").join(file).exists(), "{file}");
    }
}

impl Kit {
    /// What is live and what it says of everybody, by dataset.
    fn answers(&self) -> BTreeMap<String, (u64, Vec<bool>)> {
        let generation = self.live.load();
        let keyer = &generation.frame.keyer;
        let keys: Vec<_> = (0..9)
            .map(|n| keyer.user_key("ifa", &format!("id-{n}")).expect("an id"))
            .collect();
        let datasets = generation.datasets.iter().map(|dataset| {
            let says = keys.iter().map(|key| !dataset.memberships(*key).is_empty());
            (dataset.name.to_string(), (dataset.version, says.collect()))
        });
        let mut all: BTreeMap<_, _> = datasets.collect();
        if let Some(version) = generation.campaigns_version {
            let items = generation.book.line_items.len();
            all.insert(CAMPAIGNS.to_owned(), (version, vec![true; items]));
        }
        all
    }

    fn lost(&self) -> Vec<String> {
        let datasets = self.datasets.list(|_| true);
        let versions = datasets
            .iter()
            .flat_map(|d| d.versions.iter().map(move |v| (d, v)));
        let lost = versions.filter(|(_, v)| {
            matches!(v.state, State::Damaged | State::Unreadable)
                || v.rests_on_damaged.is_some()
                || (v.damage.is_some() && v.compacted_bytes.is_none())
        });
        lost.map(|(d, v)| format!("{}/{}", d.name, v.version))
            .collect()
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        let datasets = self.datasets.list(|_| true);
        datasets.into_iter().flat_map(|d| d.quarantine).collect()
    }

    fn counted(&self, dataset: &str, result: &str) -> u64 {
        let line = format!("kith_scrubbed_total{{dataset=\"{dataset}\",result=\"{result}\"}}");
        self.metric(&line).parse().expect("a count")
    }
}

/// What a version says, by dataset and number: each activated once.
fn expected(dir: &Path) -> BTreeMap<(String, u64), (u64, Vec<bool>)> {
    let kit = open(dir);
    kit.datasets.recover(NOW).expect("ready");
    let mut all = BTreeMap::new();
    for dataset in ["crm", CAMPAIGNS] {
        for version in kit
            .datasets
            .dataset(&name(dataset))
            .expect("known")
            .versions
            .iter()
            .rev()
        {
            let activated =
                kit.datasets
                    .activate(&name(dataset), version.version, false, "a test", NOW);
            activated.expect("whole");
            all.insert(
                (dataset.to_owned(), version.version),
                kit.answers()[dataset].clone(),
            );
        }
    }
    all
}

fn copied(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).expect("made");
            copied(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Harm {
    Flip(usize),
    Cut,
    Gone,
}

impl Harm {
    fn done_to(self, dir: &Path, file: &str) {
        let path = dir.join("datasets").join(file);
        let mut bytes = std::fs::read(&path).expect("there");
        match self {
            Harm::Flip(at) => {
                let at = at % bytes.len();
                bytes[at] ^= 1 << (at % 8);
                std::fs::write(path, bytes).expect("written");
            }
            Harm::Cut => std::fs::write(path, &bytes[..bytes.len() - 1]).expect("written"),
            Harm::Gone => std::fs::remove_file(path).expect("removed"),
        }
    }
}

/// Every version says what it said or is refused, and what `lost` does not name is not refused.
fn check_versions(
    kit: &Kit,
    expected: &BTreeMap<(String, u64), (u64, Vec<bool>)>,
    lost: &[String],
) {
    for ((dataset, version), says) in expected {
        let of = name(dataset);
        let activated = kit.datasets.activate(&of, *version, false, "a test", LATER);
        let is_lost = lost.contains(&format!("{dataset}/{version}"));
        match activated {
            Ok(_) => assert_eq!(
                kit.answers().get(dataset),
                Some(says),
                "{dataset}/{version}"
            ),
            Err(Refused::Unreadable { reason, .. }) => {
                assert!(is_lost, "{dataset}/{version}: {reason}");
                assert!(reason.contains("found damaged"), "{reason}");
            }
            Err(other) => panic!("{dataset}/{version}: {other}"),
        }
    }
}

fn same_again(kit: &Kit) {
    for (upload, body) in uploads() {
        assert!(!kit.put(&upload, &body).expect("known").fresh);
    }
}

#[test]
fn whatever_file_rots_under_a_running_service_no_answer_changes_and_nothing_whole_is_lost() {
    let template = folder();
    filled(template.path());
    let all = folder();
    copied(template.path(), all.path());
    let expected = expected(all.path());
    for file in FILES {
        let lost: &[&str] = match file {
            "crm/1.kith" => &["crm/1"],
            "crm/2.kith" => &["crm/3", "crm/2"],
            "crm/3.kith" => &["crm/3"],
            "campaigns/1.json" => &["campaigns/1"],
            // Written again from memory, or compacted, or not needed.
            _ => &[],
        };
        for harm in [Harm::Flip(0), Harm::Flip(700), Harm::Cut, Harm::Gone] {
            let case = format!("{harm:?} of {file}");
            let dir = folder();
            copied(template.path(), dir.path());
            let kit = open(dir.path());
            kit.datasets.recover(NOW).expect("ready");
            let before = kit.answers();
            harm.done_to(dir.path(), file);
            kit.datasets.scrub(|| LATER);
            assert_eq!(kit.answers(), before, "{case}");
            if file == "crm/5.kith" {
                assert_eq!(kit.lost(), ["crm/5"], "{case}");
                // What the housekeeping is asked to do.
                assert_eq!(kit.datasets.compact(&name("crm"), LATER), Ok(true));
            }
            assert_eq!(kit.lost(), lost, "{case}");
            let aside = kit.quarantined();
            assert_eq!(
                aside.len(),
                usize::from(!matches!(harm, Harm::Gone)),
                "{case}"
            );
            for file in aside {
                assert!(dir.path().join(&file.file).exists(), "{case}: {file:?}");
            }
            let of = file.split('/').next().expect("a dataset");
            assert_eq!(
                kit.counted(of, "mended") + kit.counted(of, "lost"),
                1,
                "{case}"
            );
            let gauge = format!("kith_dataset_damaged_versions{{dataset=\"{of}\"}}");
            assert_eq!(kit.metric(&gauge), lost.len().to_string(), "{case}");
            // Once more finds nothing new.
            kit.datasets
                .scrub(|| Timestamp::from_unix_ms(LATER.unix_ms * 2));
            assert_eq!(
                kit.counted(of, "mended") + kit.counted(of, "lost"),
                1,
                "{case}"
            );
            drop(kit);

            let kit = open(dir.path());
            kit.datasets.recover(LATER).expect("ready");
            assert_eq!(kit.answers(), before, "{case}");
            assert_eq!(kit.lost(), lost, "{case}, after a restart");
            let lost = kit.lost();
            check_versions(&kit, &expected, &lost);
            same_again(&kit);
            assert_eq!(kit.lost(), [""; 0], "{case}");
            check_versions(&kit, &expected, &[]);
        }
    }
}

#[test]
fn whatever_file_rots_before_a_start_it_is_right_or_not_ready_until_the_same_is_uploaded() {
    let template = folder();
    filled(template.path());
    let before = {
        let kit = open(template.path());
        kit.datasets.recover(NOW).expect("ready");
        kit.answers()
    };
    for file in FILES {
        for harm in [Harm::Flip(0), Harm::Flip(700), Harm::Cut, Harm::Gone] {
            let case = format!("{harm:?} of {file}");
            let dir = folder();
            copied(template.path(), dir.path());
            harm.done_to(dir.path(), file);
            let of = file.split('/').next().expect("a dataset");
            for _ in 0..2 {
                let kit = open(dir.path());
                let needed = ["crm/5.kith", "campaigns/2.json"];
                let ready = kit.datasets.recover(NOW);
                assert_eq!(ready.is_ok(), !needed.contains(&file), "{case}: {ready:?}");
                let mut expected = before.clone();
                if ready.is_err() {
                    expected.remove(of);
                    assert_eq!(kit.lost().len(), 1, "{case}");
                    let aside = usize::from(!matches!(harm, Harm::Gone));
                    assert_eq!(kit.quarantined().len(), aside, "{case}");
                }
                assert_eq!(kit.answers(), expected, "{case}");
            }
            let kit = open(dir.path());
            let _ = kit.datasets.recover(NOW);
            same_again(&kit);
            kit.datasets.readiness().expect("ready");
            assert_eq!(kit.answers(), before, "{case}");
            drop(kit);
            let kit = open(dir.path());
            kit.datasets.recover(NOW).expect("ready");
            assert_eq!(
                (kit.answers(), kit.lost()),
                (before.clone(), vec![]),
                "{case}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 16, ..ProptestConfig::default() })]
    #[test]
    fn however_many_files_rot_no_answer_is_wrong_and_nothing_whole_is_lost(
        harms in prop::collection::vec((0..FILES.len(), 0usize..4000), 1..5),
        scrubbed in any::<bool>(),
    ) {
        let dir = folder();
        filled(dir.path());
        let all = folder();
        copied(dir.path(), all.path());
        let expected = expected(all.path());
        let kit = open(dir.path());
        kit.datasets.recover(NOW).expect("ready");
        let before = kit.answers();
        let mut harmed = Vec::new();
        for (file, at) in harms {
            if !harmed.contains(&FILES[file]) {
                harmed.push(FILES[file]);
                Harm::Flip(at).done_to(dir.path(), FILES[file]);
            }
        }
        if scrubbed {
            kit.datasets.scrub(|| LATER);
            prop_assert_eq!(kit.answers(), before.clone());
            let _ = kit.datasets.compact(&name("crm"), LATER);
        }
        drop(kit);
        let kit = open(dir.path());
        let ready = kit.datasets.recover(LATER);
        if scrubbed {
            prop_assert_eq!(ready, Ok(()));
        }
        for (dataset, says) in kit.answers() {
            prop_assert_eq!(&says, &before[&dataset]);
        }
        kit.datasets.scrub(|| Timestamp::from_unix_ms(LATER.unix_ms * 2));
        let lost = kit.lost();
        for of in &lost {
            let own = format!("{of}.");
            let rests = of.starts_with("crm/") && of.as_str() > "crm/2";
            prop_assert!(rests || harmed.iter().any(|f| f.starts_with(&own)), "{:?}: {}", harmed, of);
        }
        check_versions(&kit, &expected, &lost);
        same_again(&kit);
        same_again(&kit);
        prop_assert_eq!(kit.lost(), Vec::<String>::new());
        check_versions(&kit, &expected, &[]);
    }
}

/// Puts what is live of `crm` in place with a flipped bit in memory.
fn flip_in_memory(kit: &Kit, at: usize) {
    let mut next = Snapshot::clone(&kit.datasets.snapshot());
    let open = next.audiences.get(&name("crm")).expect("live");
    let (number, bytes) = (open.meta().version, open.base().file().to_vec());
    let file = crate::audience::AudienceFile::from_bytes(&bytes).expect("whole");
    let flipped = file.with_flipped_bit(at % bytes.len(), (at % 8) as u8);
    let opened = super::activation::Opened::Audience(Arc::new(flipped.into()));
    next.hold_open(&name("crm"), number, opened);
    kit.datasets.swap(&next);
    kit.datasets.replace(next);
}

fn two_full(dir: &Path) -> Kit {
    let kit = open(dir);
    kit.datasets.recover(NOW).expect("ready");
    kit.crm(1);
    kit.crm(2);
    kit
}

#[test]
fn what_changed_in_memory_is_opened_again_from_its_file() {
    let dir = folder();
    let kit = two_full(dir.path());
    let before = kit.answers();
    for at in [9, 300, 700, 1200] {
        flip_in_memory(&kit, at);
        kit.datasets.scrub(|| LATER);
        assert_eq!(kit.answers(), before);
        let held = kit.datasets.snapshot().held(&name("crm"), 2).expect("live");
        assert!(held.verify(&mut super::scrub::at_once).expect("whole"));
        let mut next = Snapshot::clone(&kit.datasets.snapshot());
        next.manifest
            .datasets
            .get_mut(&name("crm"))
            .expect("known")
            .versions
            .get_mut(&2)
            .expect("known")
            .verified_at = Some(NOW);
        kit.datasets.replace(next);
    }
    assert_eq!(kit.counted("crm", "memory"), 4);
    assert_eq!(kit.quarantined().len(), 0);
    let history = kit.datasets.dataset(&name("crm")).expect("known").history;
    assert_eq!(history.iter().filter(|e| e.event == "reopened").count(), 4);
}

#[test]
fn where_memory_and_file_are_damaged_the_newest_whole_version_takes_its_place_or_none() {
    for older in [true, false] {
        let dir = folder();
        let kit = two_full(dir.path());
        // Never served, so never served unasked.
        let staged = Upload {
            activate: false,
            ..csv("crm", 3)
        };
        kit.put(&staged, &rows(&["id-3"])).expect("staged");
        Harm::Cut.done_to(dir.path(), "crm/2.kith");
        if !older {
            Harm::Gone.done_to(dir.path(), "crm/1.kith");
        }
        flip_in_memory(&kit, 700);
        kit.datasets.scrub(|| LATER);
        assert_eq!(kit.serves(), older.then_some(1));
        let mut lost = vec!["crm/2".to_owned()];
        lost.extend((!older).then(|| "crm/1".to_owned()));
        assert_eq!(kit.lost(), lost);
        let live = kit.metric("kith_dataset_version{dataset=\"crm\"}");
        assert_eq!(live, if older { "1" } else { "0" });
        drop(kit);
        let kit = open(dir.path());
        kit.datasets.recover(NOW).expect("ready");
        assert_eq!(kit.serves(), older.then_some(1));
        kit.crm(2);
        kit.activate(2, false).expect("restored");
        assert_eq!(kit.serves(), Some(2));
    }
}

#[test]
fn a_layer_that_changed_in_memory_is_made_again() {
    let dir = folder();
    filled(dir.path());
    let kit = open(dir.path());
    kit.datasets.recover(NOW).expect("ready");
    let before = kit.answers();
    let state = kit.datasets.snapshot();
    let open = state.audiences.get(&name("crm")).expect("live");
    let mut next = Snapshot::clone(&state);
    let flipped = open.with_flipped_layer(600);
    next.hold_open(
        &name("crm"),
        5,
        super::activation::Opened::Audience(Arc::new(flipped)),
    );
    kit.datasets.swap(&next);
    kit.datasets.replace(next);
    kit.datasets.scrub(|| LATER);
    assert_eq!(kit.counted("crm", "memory"), 1);
    assert_eq!((kit.answers(), kit.lost()), (before, vec![]));
}

#[test]
fn what_may_pass_moves_nothing() {
    let dir = folder();
    let kit = two_full(dir.path());
    // Not read for a reason of its own: a link in the file's place is refused, and says nothing of the file.
    let (file, elsewhere) = (
        dir.path().join("datasets/crm/1.kith"),
        dir.path().join("1.kith"),
    );
    std::fs::rename(&file, &elsewhere).expect("moved");
    std::os::unix::fs::symlink(&elsewhere, &file).expect("linked");
    kit.datasets.scrub(|| LATER);
    assert_eq!(
        (kit.counted("crm", "unread"), kit.counted("crm", "whole")),
        (1, 1)
    );
    assert_eq!((kit.lost(), kit.quarantined()), (vec![], vec![]));
    assert!(
        !kit.crm(1).fresh,
        "and the same upload again does not make it anew"
    );
    assert!(file.is_symlink());
    std::fs::remove_file(&file).expect("removed");
    std::fs::rename(&elsewhere, &file).expect("back");
    kit.datasets.scrub(|| LATER);
    assert_eq!((kit.counted("crm", "whole"), kit.lost()), (2, vec![]));
}

#[test]
fn another_keys_or_a_newer_kiths_file_is_left_where_it_is() {
    let dir = folder();
    let kit = two_full(dir.path());
    let path = dir.path().join("datasets/crm/1.kith");
    let good = std::fs::read(&path).expect("there");
    let mut newer = good.clone();
    newer[8] = 77;
    let end = 508;
    // A header as a newer Kith would write it: its checksum is right.
    let sum = crc32fast::hash(&newer[..end]);
    newer[end..512].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(&path, &newer).expect("written");
    kit.datasets.scrub(|| LATER);
    assert_eq!((kit.counted("crm", "unread"), kit.lost()), (1, vec![]));
    // The same number, and the checksum of ours: a flipped byte.
    newer = good;
    newer[8] = 77;
    std::fs::write(&path, &newer).expect("written");
    kit.datasets.scrub(|| LATER);
    assert_eq!(
        (kit.counted("crm", "lost"), kit.lost()),
        (1, vec!["crm/1".to_owned()])
    );
}

#[test]
fn what_did_not_fit_on_the_disk_is_written_again_later() {
    let dir = folder();
    let faults: Arc<Faults> = Arc::default();
    let kit = open_as(dir.path(), CONFIG, Arc::clone(&faults)).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    kit.crm(1);
    kit.crm(2);
    let path = dir.path().join("datasets/crm/2.kith");
    let good = std::fs::read(&path).expect("there");
    let state = kit.datasets.snapshot();
    let piece = state.pieces(&name("crm"), 2).remove(0);
    for (fault, lost) in [(&faults.full, "1"), (&faults.write, "0")] {
        Harm::Flip(600).done_to(dir.path(), "crm/2.kith");
        fault.store(true, std::sync::atomic::Ordering::Relaxed);
        kit.datasets.mend(&piece, LATER);
        fault.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(!path.exists());
        // Where not even the manifest could be written, it says nothing of it.
        let damaged = kit.metric("kith_dataset_damaged_versions{dataset=\"crm\"}");
        assert_eq!((kit.serves(), damaged.as_str()), (Some(2), lost));
        kit.datasets.chores.suspect(&name("crm"), 2);
        kit.datasets.scrub(|| LATER);
        assert_eq!((kit.serves(), kit.lost()), (Some(2), vec![]));
        assert_eq!(std::fs::read(&path).expect("there"), good);
    }
    assert_eq!(
        (kit.counted("crm", "lost"), kit.counted("crm", "mended")),
        (1, 2)
    );
}

#[test]
fn a_file_that_somebody_puts_back_is_found() {
    let dir = folder();
    let kit = two_full(dir.path());
    let path = dir.path().join("datasets/crm/1.kith");
    let good = std::fs::read(&path).expect("there");
    Harm::Flip(600).done_to(dir.path(), "crm/1.kith");
    kit.datasets.scrub(|| LATER);
    assert_eq!(kit.lost(), ["crm/1"]);
    std::fs::write(&path, good).expect("put back");
    kit.datasets.scrub(|| LATER);
    assert_eq!(kit.lost(), [""; 0]);
    kit.activate(1, false).expect("whole");
}

#[test]
fn the_quarantine_is_bounded_in_number_and_bytes() {
    let dir = folder();
    let small = CONFIG.replace("[guards]", "quarantine_bytes = 4000\n[guards]");
    for (config, most) in [(CONFIG, super::mend::QUARANTINE_FILES_MAX), (&small, 3)] {
        let kit = open_as(dir.path(), config, Arc::default()).expect("opened");
        kit.datasets.recover(NOW).expect("ready");
        kit.crm(1);
        kit.crm(2);
        std::fs::create_dir_all(dir.path().join("quarantine")).expect("made");
        std::fs::write(dir.path().join("quarantine/notes.txt"), "a person's").expect("written");
        for n in 0..super::mend::QUARANTINE_FILES_MAX as i64 + 4 {
            Harm::Flip(600).done_to(dir.path(), "crm/1.kith");
            let state = kit.datasets.snapshot();
            let piece = state.pieces(&name("crm"), 1).remove(0);
            kit.datasets
                .mend(&piece, Timestamp::from_unix_ms(LATER.unix_ms + n * 1000));
            kit.crm(1);
        }
        let files: Vec<PathBuf> = std::fs::read_dir(dir.path().join("quarantine"))
            .expect("there")
            .map(|e| e.expect("an entry").path())
            .filter(|p| p.extension().is_some_and(|e| e == "kith"))
            .collect();
        let bytes: u64 = files
            .iter()
            .map(|f| f.metadata().expect("there").len())
            .sum();
        assert!(files.len() <= most && files.len() > 1, "{files:?}");
        assert!(most > 3 || bytes <= 4000, "{bytes}");
        assert_eq!(kit.quarantined().len(), files.len());
        assert!(dir.path().join("quarantine/notes.txt").exists());
    }
}

#[test]
fn it_goes_on_in_the_background_and_ends_with_the_datasets() {
    let dir = folder();
    let config = CONFIG.replace("[guards]", "scrub_every = \"20ms\"\n[guards]");
    let kit = open_as(dir.path(), &config, Arc::default()).expect("opened");
    let scrubbing = kit.datasets.scrubbing();
    let scrubbing = std::thread::spawn(move || scrubbing.run(Timestamp::now));
    kit.datasets.recover(NOW).expect("ready");
    kit.crm(1);
    kit.crm(2);
    Harm::Flip(600).done_to(dir.path(), "crm/2.kith");
    let until = |what: &dyn Fn() -> bool| {
        for _ in 0..2000 {
            if what() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("not within ten seconds");
    };
    until(&|| kit.counted("crm", "mended") == 1 && kit.counted("crm", "whole") > 3);
    let view = kit.datasets.dataset(&name("crm")).expect("known");
    assert!(
        view.versions
            .iter()
            .all(|v| v.verified_at > Some(NOW) || v.verified_at < Some(NOW))
    );
    drop(kit);
    scrubbing.join().expect("ended");
    assert_eq!(open(dir.path()).datasets.recover(NOW), Ok(()));
}

#[test]
fn what_could_not_be_activated_is_verified_at_once_even_where_nothing_is_scrubbed() {
    let dir = folder();
    let config = CONFIG.replace("[guards]", "scrub_every = 0\n[guards]");
    let kit = open_as(dir.path(), &config, Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    kit.crm(1);
    kit.crm(2);
    Harm::Flip(600).done_to(dir.path(), "crm/1.kith");
    kit.datasets.scrub(|| LATER);
    assert_eq!(kit.lost(), [""; 0], "it is off");
    kit.activate(1, false).expect_err("damaged");
    kit.datasets.scrub(|| LATER);
    assert_eq!(kit.lost(), ["crm/1"]);
    let Err(Refused::Unreadable { reason, .. }) = kit.activate(1, false) else {
        panic!("it says why");
    };
    assert!(reason.contains("found damaged at"), "{reason}");
}

#[test]
fn a_live_delta_whose_file_is_lost_is_compacted_in_the_background_or_made_again_from_its_upload() {
    for compacted in [true, false] {
        let dir = folder();
        filled(dir.path());
        let kit = open(dir.path());
        kit.datasets.recover(NOW).expect("ready");
        let before = kit.answers();
        Harm::Flip(600).done_to(dir.path(), "crm/5.kith");
        kit.datasets.scrub(|| LATER);
        assert_eq!(kit.lost(), ["crm/5"]);
        if compacted {
            let housekeeping = kit.datasets.housekeeping();
            let housekeeping = std::thread::spawn(move || housekeeping.run(|| LATER));
            for _ in 0..2000 {
                if kit.lost().is_empty() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(dir.path().join("datasets/crm/5.full.kith").exists());
            assert_eq!((kit.answers(), kit.lost()), (before.clone(), vec![]));
            drop(kit);
            housekeeping.join().expect("ended");
        } else {
            same_again(&kit);
            assert_eq!((kit.answers(), kit.lost()), (before.clone(), vec![]));
            assert!(!dir.path().join("datasets/crm/5.full.kith").exists());
            drop(kit);
        }
        let kit = open(dir.path());
        kit.datasets.recover(LATER).expect("ready");
        assert_eq!(kit.answers(), before);
    }
}

#[test]
fn a_live_filter_is_written_again_from_memory_and_one_that_is_kept_is_lost() {
    let dir = folder();
    let kit = open(dir.path());
    kit.datasets.recover(NOW).expect("ready");
    for version in [1, 2] {
        let format = Format::Rows(RowFormat::Text {
            source: "ifa".to_owned(),
            segment: name("list"),
        });
        let upload = Upload {
            format,
            ..csv("optout", version)
        };
        kit.put(&upload, &format!("id-{version}\n")).expect("taken");
    }
    // It has taken the place of another.
    kit.datasets.settle(&name("optout")).expect("whole");
    let before = kit.answers();
    assert!(before["optout"].1[2]);
    let path = dir.path().join("datasets/optout/2.kith");
    let good = std::fs::read(&path).expect("there");
    Harm::Flip(700).done_to(dir.path(), "optout/1.kith");
    Harm::Flip(700).done_to(dir.path(), "optout/2.kith");
    kit.datasets.scrub(|| LATER);
    assert_eq!(kit.lost(), ["optout/1"]);
    assert_eq!(std::fs::read(&path).expect("there"), good);
    assert_eq!((kit.answers(), kit.quarantined().len()), (before, 2));
}

#[test]
fn what_is_uploaded_says_what_these_tests_take_it_to_say() {
    let dir = folder();
    filled(dir.path());
    let kit = open(dir.path());
    kit.datasets.recover(NOW).expect("ready");
    let says = &kit.answers()["crm"].1;
    let people: Vec<usize> = (0..9).filter(|n| says[*n]).collect();
    assert_eq!(people, [2, 3, 4, 5]);
}
