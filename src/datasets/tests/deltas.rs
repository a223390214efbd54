//! Deltas from upload to rollback, in any order with everything else, against maps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const CONFIG: &str = "[data]\nkeep_versions = 2\n[guards]\nenabled = false\n";

type People = BTreeMap<u8, BTreeSet<u8>>;

fn delta(version: u64, base: u64) -> Upload {
    Upload {
        mode: Mode::Delta,
        base: Some(base),
        ..csv("crm", version)
    }
}

fn unguarded(dir: &Path) -> Kit {
    let kit = open_as(dir, CONFIG, Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    kit
}

impl Kit {
    fn says(&self) -> People {
        let keyer = Keyer::new(&SecretKey::from_bytes([7; 32]));
        let generation = self.live.load();
        let mut people = People::new();
        for id in 0..30u8 {
            let key = keyer.user_key("ifa", &format!("u{id}")).expect("an id");
            for dataset in &generation.datasets {
                for (segment, _) in dataset.memberships(key) {
                    let segment = segment[1..].parse().expect("a number");
                    people.entry(id).or_default().insert(segment);
                }
            }
        }
        people
    }
}

/// What somebody does.
#[derive(Debug, Clone)]
enum Step {
    Full(People),
    /// What is added and what removed; an id in neither is deleted.
    Delta(BTreeMap<u8, (BTreeSet<u8>, BTreeSet<u8>)>),
    /// Of the versions there are, the one at this place.
    Activate(usize),
    Delete(usize),
    Compact,
    Restart,
}

fn any_set(least: usize) -> impl Strategy<Value = BTreeSet<u8>> {
    prop::collection::btree_set(0u8..9, least..4)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => prop::collection::btree_map(0u8..25, any_set(1), 1..20).prop_map(Step::Full),
        6 => prop::collection::btree_map(0u8..30, (any_set(0), any_set(0)), 1..6).prop_map(Step::Delta),
        2 => any::<prop::sample::Index>().prop_map(|i| Step::Activate(i.index(1000))),
        1 => any::<prop::sample::Index>().prop_map(|i| Step::Delete(i.index(1000))),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ]
}

fn listed(set: &BTreeSet<u8>) -> String {
    let names: Vec<String> = set.iter().map(|s| format!("s{s}")).collect();
    names.join("|")
}

fn full_rows(people: &People) -> String {
    let rows = people
        .iter()
        .map(|(id, set)| format!("ifa,u{id},{}\n", listed(set)));
    format!("source,id,segments\n{}", rows.collect::<String>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whatever_is_done_what_is_live_is_what_a_map_says(steps in prop::collection::vec(any_step(), 1..25)) {
        let dir = folder();
        let mut kit = unguarded(dir.path());
        // What each version holds, whether it is kept or not.
        let mut holds: BTreeMap<u64, People> = BTreeMap::new();
        let mut live: Option<u64> = None;
        for (number, step) in (1u64..).zip(steps) {
            let there: Vec<u64> = match holds.is_empty() {
                true => Vec::new(),
                false => kit.states().into_iter().map(|(version, _)| version).collect(),
            };
            match step {
                Step::Full(people) => {
                    kit.put(&csv("crm", number), &full_rows(&people)).expect("taken");
                    holds.insert(number, people);
                    live = Some(number);
                }
                Step::Delta(changes) => {
                    let Some(base) = live else { continue };
                    let mut people = holds[&base].clone();
                    let mut rows = String::from("source,id,add,remove,delete\n");
                    for (id, (added, removed)) in &changes {
                        let removed: BTreeSet<u8> = removed.difference(added).copied().collect();
                        let delete = added.is_empty() && removed.is_empty();
                        let (add, remove) = (listed(added), listed(&removed));
                        rows += &format!("ifa,u{id},{add},{remove},{delete}\n");
                        let person = people.entry(*id).or_default();
                        if delete {
                            person.clear();
                        }
                        person.retain(|segment| !removed.contains(segment));
                        person.extend(added);
                        if person.is_empty() {
                            people.remove(id);
                        }
                    }
                    let published = kit.put(&delta(number, base), &rows).expect("taken");
                    prop_assert_eq!(published.version.base, Some(base));
                    prop_assert_eq!(published.version.changed_ids, Some(changes.len() as u64));
                    prop_assert_eq!(published.version.ids, people.len() as u64);
                    holds.insert(number, people);
                    live = Some(number);
                }
                Step::Activate(place) if !there.is_empty() => {
                    let number = there[place % there.len()];
                    kit.activate(number, false).expect("kept, so it can be served");
                    live = Some(number);
                }
                Step::Delete(place) if !there.is_empty() => {
                    let number = there[place % there.len()];
                    let deleted = kit.datasets.delete(&name("crm"), number, "a test", NOW);
                    match deleted {
                        Ok(()) => {}
                        Err(Refused::Live { .. } | Refused::Needed { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
                Step::Compact => {
                    let nobody = live.is_none_or(|live| holds[&live].is_empty());
                    match kit.datasets.compact(&name("crm"), NOW) {
                        Ok(_) => {}
                        Err(reason) => prop_assert!(nobody, "{}", reason),
                    }
                }
                Step::Restart => {
                    drop(kit);
                    kit = unguarded(dir.path());
                }
                Step::Activate(_) | Step::Delete(_) => {}
            }
            let expected = live.map(|live| holds[&live].clone()).unwrap_or_default();
            prop_assert_eq!(kit.says(), expected);
        }
        // All that is kept can be gone back to, after a restart too.
        if !holds.is_empty() {
            drop(kit);
            let kit = unguarded(dir.path());
            for (number, _) in kit.states() {
                kit.activate(number, false).expect("kept, so it can be served");
                prop_assert_eq!(kit.says(), holds[&number].clone());
            }
        }
    }
}

#[test]
fn a_delta_is_over_the_live_version_or_refused() {
    let dir = folder();
    let kit = unguarded(dir.path());
    let changes = "source,id,add,remove\nifa,id-9,vip,\n";
    let refused = |upload: &Upload| kit.put(upload, changes).expect_err("refused");
    assert!(matches!(
        refused(&delta(1, 0)),
        Refused::BaseNotLive { live: None, .. }
    ));
    kit.crm(1);
    kit.crm(2);
    assert!(matches!(
        refused(&delta(3, 1)),
        Refused::BaseNotLive { live: Some(2), .. }
    ));
    let taken = kit.put(&delta(3, 2), changes).expect("taken");
    assert_eq!((taken.version.ids, kit.serves()), (2, Some(3)));
    // The same again, though its base is no longer live.
    let again = kit.put(&delta(3, 2), changes).expect("known");
    assert!(!again.fresh);
    // What it rests on stays, though two newer versions are kept.
    kit.put(&delta(4, 3), changes).expect("taken");
    kit.put(&delta(5, 4), changes).expect("taken");
    let kept: Vec<u64> = kit.states().into_iter().map(|(v, _)| v).collect();
    assert_eq!(kept, [5, 4, 3, 2]);
    assert!(matches!(
        kit.datasets.delete(&name("crm"), 2, "a test", NOW),
        Err(Refused::Needed { version: 2, .. })
    ));
    // A full version lets go of all of it but what one would go back to.
    kit.crm(6);
    kit.crm(7);
    let kept: Vec<u64> = kit.states().into_iter().map(|(v, _)| v).collect();
    assert_eq!(kept, [7, 6]);
    assert_eq!(version_files(dir.path()), ["6.kith", "7.kith"]);
    let campaigns = Upload {
        dataset: name("campaigns"),
        format: Format::Document,
        ..delta(1, 0)
    };
    assert!(matches!(refused(&campaigns), Refused::NoDeltas(_)));
}

#[test]
fn a_lost_delta_is_named_and_made_again_from_the_same_upload() {
    let dir = folder();
    let changes = "source,id,add,remove\nifa,id-9,vip,\n";
    {
        let kit = unguarded(dir.path());
        kit.crm(1);
        kit.put(&delta(2, 1), changes).expect("taken");
        kit.put(&delta(3, 2), "source,id,add\nifa,id-8,vip\n")
            .expect("taken");
    }
    std::fs::remove_file(dir.path().join("datasets/crm/2.kith")).expect("there");
    let kit = open_as(dir.path(), CONFIG, Arc::default()).expect("opened");
    let told = kit
        .datasets
        .recover(NOW)
        .expect_err("not ready")
        .to_string();
    assert!(told.contains("2.kith"), "{told}");
    // Nothing can be laid over what cannot be read.
    assert!(matches!(
        kit.put(&delta(4, 3), changes),
        Err(Refused::BaseUnreadable { base: 3, .. })
    ));
    let again = kit.put(&delta(2, 1), changes).expect("known");
    assert!(!again.fresh);
    kit.activate(3, false).expect("whole again");
    assert_eq!(kit.datasets.readiness(), Ok(()));
    assert_eq!(kit.serves(), Some(3));
}

#[test]
fn what_is_compacted_rests_on_nothing_and_is_gone_back_from_and_to() {
    let dir = folder();
    let kit = unguarded(dir.path());
    kit.crm(1);
    let changes = |id: u32| format!("source,id,add\nifa,id-{id},vip\n");
    for version in 2..6 {
        kit.put(&delta(version, version - 1), &changes(version as u32 + 10))
            .expect("taken");
    }
    assert_eq!(kit.datasets.compact(&name("crm"), NOW), Ok(true));
    assert_eq!(kit.datasets.compact(&name("crm"), NOW), Ok(false), "once");
    let kept = || -> Vec<u64> { kit.states().into_iter().map(|(v, _)| v).collect() };
    // One stays to go back to, and all that it rests on.
    assert_eq!(kept(), [5, 4, 3, 2, 1]);
    kit.put(&delta(6, 5), &changes(20)).expect("over it");
    assert_eq!(kept(), [6, 5], "nobody rests on the older ones any more");
    assert_eq!(
        version_files(dir.path()),
        ["5.full.kith", "5.kith", "6.kith"]
    );
    kit.activate(5, false).expect("back");
    kit.activate(6, false).expect("and forth");
    drop(kit);
    let kit = unguarded(dir.path());
    assert_eq!(kit.serves(), Some(6));
    let said = kit.live.load();
    let keyer = Keyer::new(&SecretKey::from_bytes([7; 32]));
    for id in ["id-1", "id-12", "id-13", "id-14", "id-15", "id-20"] {
        let key = keyer.user_key("ifa", id).expect("an id");
        assert_eq!(said.datasets[0].memberships(key).len(), 1, "{id}");
    }
    kit.crm(7);
    kit.crm(8);
    assert_eq!(version_files(dir.path()), ["7.kith", "8.kith"]);
}

#[test]
fn many_deltas_are_compacted_in_the_background() {
    let dir = folder();
    let kit = unguarded(dir.path());
    let housekeeping = kit.datasets.housekeeping();
    let housekeeping = std::thread::spawn(move || housekeeping.run(|| NOW));
    kit.crm(1);
    for version in 2..40u64 {
        let rows = format!("source,id,add\nifa,more-{version},vip\n");
        kit.put(&delta(version, version - 1), &rows).expect("taken");
    }
    let done = || kit.metric("kith_compactions_total{dataset=\"crm\",result=\"done\"}");
    for _ in 0..2000 {
        if done() != "0" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_ne!(done(), "0");
    let live = kit.live.load();
    let crm = live.datasets.first().expect("live");
    assert_eq!(crm.version, 39);
    let Members::Exact(audience) = &crm.members else {
        panic!("an audience");
    };
    assert_eq!(audience.ids(), 39);
    assert!(audience.changed_ids() < 38);
    drop(kit);
    housekeeping.join().expect("ended with the datasets");
}

#[test]
fn earlier_and_earlier_ends_leave_room_for_more_deltas() {
    let dir = folder();
    let kit = unguarded(dir.path());
    kit.crm(1);
    for version in 2..80u64 {
        let until = Timestamp::from_unix_seconds(1_900_000_000 - version as i64);
        let rows = format!("source,id,add,expires\nifa,id-1,vip,{until}\n");
        kit.put(&delta(version, version - 1), &rows).expect("taken");
        if version % 20 == 0 {
            assert_eq!(kit.datasets.compact(&name("crm"), NOW), Ok(true));
        }
    }
    assert_eq!(kit.serves(), Some(79));
}

#[test]
fn a_delta_over_what_was_compacted_is_made_again_under_the_same_root() {
    let dir = folder();
    let rows = |id: u32| format!("source,id,add\nifa,id-{id},vip\n");
    {
        let kit = unguarded(dir.path());
        kit.crm(1);
        kit.put(&delta(2, 1), &rows(2)).expect("taken");
        assert_eq!(kit.datasets.compact(&name("crm"), NOW), Ok(true));
        let third = kit.put(&delta(3, 2), &rows(3)).expect("taken");
        assert_eq!(third.version.root, Some(1));
    }
    let path = dir.path().join("datasets/crm/3.kith");
    let good = std::fs::read(&path).expect("there");
    let mut bad = good.clone();
    *bad.last_mut().expect("bytes") ^= 1;
    std::fs::write(&path, bad).expect("written");
    let kit = open_as(dir.path(), CONFIG, Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect_err("not ready");
    assert!(!kit.put(&delta(3, 2), &rows(3)).expect("known").fresh);
    assert_eq!(kit.datasets.readiness(), Ok(()));
    assert_eq!(std::fs::read(&path).expect("there"), good);
}

#[test]
fn a_compacted_file_that_is_lost_is_not_missed_while_its_deltas_are_there() {
    let dir = folder();
    {
        let kit = unguarded(dir.path());
        kit.crm(1);
        kit.put(&delta(2, 1), "source,id,add\nifa,id-2,vip\n")
            .expect("taken");
        assert_eq!(kit.datasets.compact(&name("crm"), NOW), Ok(true));
    }
    std::fs::remove_file(dir.path().join("datasets/crm/2.full.kith")).expect("there");
    let kit = unguarded(dir.path());
    assert_eq!(kit.serves(), Some(2));
    assert_eq!(kit.datasets.readiness(), Ok(()));
}
