//! What versions are held against, and what becomes of those for which there is no memory.

use super::*;
use crate::datasets::manifest::Manifest;

/// Two hundred people from `first` on, in halves that overlap.
fn people(first: u32) -> String {
    let mut text = "source,id,segments\n".to_owned();
    for person in first..first + 200 {
        let segments = ["a", "b", "a|b"][person as usize % 3];
        text.push_str(&format!("uidapi.com,p-{person},{segments}\n"));
    }
    text
}

fn failed(published: &Published) -> Vec<&str> {
    let checks = published.version.checks.iter();
    checks.filter(|c| !c.ok).map(|c| c.name.as_str()).collect()
}

fn detail<'a>(published: &'a Published, name: &str) -> &'a str {
    let checks = &published.version.checks;
    let check = checks.iter().find(|c| c.name == name).expect("told");
    &check.detail
}

#[test]
fn a_first_version_differs_from_nothing() {
    let dir = folder();
    let kit = start(dir.path());
    let first = kit.put(&csv("crm", 1), &people(0)).expect("taken");
    assert_eq!(first.version.state, State::Active);
    for name in ["ids", "segments", "overlap", "sources"] {
        let detail = detail(&first, name);
        assert!(detail.starts_with("nothing to compare with"), "{detail}");
    }
    // The upload's answer and the listing say the same.
    let shown = kit.datasets.dataset(&name("crm")).expect("known");
    assert_eq!(shown.versions[0].checks, first.version.checks);
}

/// The manifest as the release before this wrote it.
fn without_profiles(path: &Path) {
    let file = path.join("manifest.json");
    let mut manifest = Manifest::decode(&std::fs::read(&file).expect("there")).expect("whole");
    for dataset in manifest.datasets.values_mut() {
        for version in dataset.versions.values_mut() {
            assert!(version.profile.take().is_some());
        }
    }
    let older = manifest.encode().expect("encodes");
    let older = String::from_utf8(older).expect("text");
    assert!(older.starts_with("{\"format\":2,") && !older.contains("profile"));
    std::fs::write(&file, older.replacen("2", "1", 1)).expect("written");
}

#[test]
fn a_manifest_without_profiles_is_read_and_the_live_version_asked() {
    let dir = folder();
    start(dir.path())
        .put(&csv("crm", 1), &people(0))
        .expect("taken");
    without_profiles(dir.path());
    let kit = start(dir.path());
    let other = people(1000).replace(",a", ",c");
    let held = kit.put(&csv("crm", 2), &other).expect("taken");
    assert_eq!(failed(&held), ["segments", "overlap"]);
    assert!(detail(&held, "sources").starts_with("nothing to compare"));
    let fewer: String = people(0)
        .lines()
        .take(50)
        .map(|l| format!("{l}\n"))
        .collect();
    let held = kit.put(&csv("crm", 3), &fewer).expect("taken");
    assert_eq!(failed(&held), ["ids", "segments"]);
    assert_eq!(kit.serves(), Some(1));
}

#[test]
fn where_the_live_version_cannot_be_read_the_manifest_knows_what_it_held() {
    let dir = folder();
    start(dir.path())
        .put(&csv("crm", 1), &people(0))
        .expect("taken");
    std::fs::remove_file(dir.path().join("datasets/crm/1.kith")).expect("there");
    let kit = open_as(dir.path(), CONFIG, Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect_err("not ready");
    let fewer: String = people(0)
        .lines()
        .take(50)
        .map(|l| format!("{l}\n"))
        .collect();
    let held = kit.put(&csv("crm", 2), &fewer).expect("taken");
    assert_eq!(failed(&held), ["ids", "segments"]);
    assert!(detail(&held, "overlap").contains("could not be read"));
    let renamed = people(0).replace("uidapi.com", "uid2api.com");
    let held = kit.put(&csv("crm", 3), &renamed).expect("taken");
    assert_eq!(failed(&held), ["sources"]);
    let honest = kit.put(&csv("crm", 4), &people(3)).expect("taken");
    assert_eq!(honest.version.state, State::Active);
    kit.datasets.readiness().expect("ready again");
}

#[test]
fn a_source_is_known_while_a_version_is_kept_that_was_live_with_it() {
    let dir = folder();
    let kit = start(dir.path());
    let as_source = |source: &str| people(0).replace("uidapi.com", source);
    kit.put(&csv("crm", 1), &as_source("one.example"))
        .expect("taken");
    let both = people(0).replacen("uidapi.com", "one.example", 150);
    let both = both.replace("uidapi.com", "two.example");
    let held = kit.put(&csv("crm", 2), &both).expect("taken");
    assert!(failed(&held).contains(&"sources"));
    // Held is not live: it is as unknown as before.
    let held = kit
        .put(&csv("crm", 3), &both.replace("p-1,", "p-x,"))
        .expect("taken");
    assert!(failed(&held).contains(&"sources"));
    kit.activate(3, true).expect("forced");
    kit.activate(1, false).expect("rolled back");
    let again = kit
        .put(&csv("crm", 4), &both.replace("p-1,", "p-y,"))
        .expect("taken");
    assert!(
        !failed(&again).contains(&"sources"),
        "{:?}",
        again.version.checks
    );
}

const TIGHT: &str = "[guards]\nspare_memory = \"64 TiB\"\n[data]\nkeep_versions = 3\n";

#[test]
fn a_version_for_which_there_is_no_memory_is_held_and_can_be_forced() {
    let dir = folder();
    let kit = open_as(dir.path(), TIGHT, Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    let held = kit.put(&csv("crm", 1), &people(0)).expect("taken");
    assert_eq!(
        (held.version.state, failed(&held)),
        (State::Held, vec!["memory"])
    );
    assert_eq!(version_files(dir.path()), ["1.kith"]);
    assert!(matches!(kit.activate(1, false), Err(Refused::Held { .. })));
    kit.activate(1, true).expect("forced");
    assert_eq!(kit.serves(), Some(1));
    // A document is small, and bidding stands still without one.
    let campaigns = Upload {
        format: Format::Document,
        ..csv(CAMPAIGNS, 1)
    };
    let taken = kit.put(&campaigns, "{\"line_items\":[]}").expect("taken");
    assert_eq!(taken.version.state, State::Active);
    drop(kit);
    // A restart brings back what was live, whatever the memory.
    let kit = open_as(dir.path(), TIGHT, Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    assert_eq!(kit.serves(), Some(1));
}

#[test]
fn what_would_not_fit_is_refused_before_it_is_built_and_before_it_is_opened_again() {
    let dir = folder();
    {
        let kit = start(dir.path());
        kit.put(&csv("crm", 1), &people(0)).expect("taken");
        kit.put(&csv("crm", 2), &people(3)).expect("taken");
    }
    let kit = open_as(dir.path(), TIGHT, Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    let refused = kit.put(&csv("crm", 3), &people(6)).expect_err("no room");
    assert!(
        matches!(refused, Refused::Memory { version: 3, .. }),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("guards.spare_memory"),
        "{refused}"
    );
    assert_eq!(version_files(dir.path()), ["1.kith", "2.kith"]);
    let refused = kit.activate(1, false).expect_err("no room");
    assert!(refused.to_string().contains("with force"), "{refused}");
    assert_eq!(kit.serves(), Some(2));
    kit.activate(1, true).expect("forced");
    assert_eq!(kit.serves(), Some(1));
}

#[test]
fn what_was_held_is_known_to_be_held_after_a_restart() {
    let dir = folder();
    {
        let kit = start(dir.path());
        kit.put(&csv("crm", 1), &people(0)).expect("taken");
        let held = kit.put(&csv("crm", 2), &people(1000)).expect("taken");
        assert_eq!(failed(&held), ["overlap"]);
    }
    let kit = start(dir.path());
    let Err(Refused::Held { why, .. }) = kit.activate(2, false) else {
        panic!("held");
    };
    assert!(why.contains("from which source"), "{why}");
    // It is the live version that the next one is held against, not what was held.
    let held = kit.put(&csv("crm", 3), &people(1003)).expect("taken");
    assert_eq!(failed(&held), ["overlap"]);
    kit.activate(3, true).expect("forced");
    let next = kit.put(&csv("crm", 4), &people(1006)).expect("taken");
    assert_eq!(next.version.state, State::Active);
}
