//! From the mapped file to memory, whatever comes between.

use std::time::{Duration, Instant};

use super::*;

const CONFIG: &str = "[guards]\nenabled = false\n";

fn begin(dir: &Path) -> Kit {
    let kit = open_as(dir, CONFIG, Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    kit
}

/// So many people that the file is mapped.
fn many(from: u32) -> String {
    let ids: Vec<String> = (from..from + 400).map(|n| format!("id-{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    rows(&ids)
}

impl Kit {
    fn is_mapped(&self) -> bool {
        let state = self.datasets.snapshot();
        state.audiences[&name("crm")].base().is_mapped()
    }

    /// Whether the one is in the live version.
    fn knows(&self, id: u32) -> bool {
        let generation = self.live.load();
        let key = generation
            .frame
            .keyer
            .user_key("ifa", &format!("id-{id}"))
            .expect("a good id");
        let mut of = generation.datasets.iter();
        of.any(|dataset| !dataset.memberships(key).is_empty())
    }

    fn settle(&self) -> bool {
        self.datasets.settle(&name("crm")).expect("settled")
    }
}

#[test]
fn what_takes_the_place_of_another_is_mapped_and_then_copied() {
    let dir = folder();
    let kit = begin(dir.path());
    kit.put(&csv("crm", 1), &many(0)).expect("taken");
    assert!(!kit.is_mapped(), "nothing is replaced");
    assert!(!kit.settle());
    kit.put(&csv("crm", 2), &many(100)).expect("taken");
    assert!(kit.is_mapped());
    assert!(kit.knows(450) && !kit.knows(50));
    let number = kit.number();
    assert!(kit.settle() && !kit.is_mapped());
    assert_eq!((kit.number(), kit.serves()), (number + 1, Some(2)));
    assert!(kit.knows(450) && !kit.knows(50));
    assert!(!kit.settle(), "once is enough");
    // A rollback is a swap too, and what is not served is not copied.
    kit.activate(1, false).expect("there");
    assert!(kit.is_mapped() && kit.knows(50));
    kit.activate(2, false).expect("there");
    assert!(kit.is_mapped() && kit.knows(450));
    drop(kit);
    let kit = begin(dir.path());
    assert!(
        !kit.is_mapped() && kit.knows(450),
        "a start replaces nothing"
    );
}

#[test]
fn the_background_waits_for_what_is_replaced() {
    let dir = folder();
    let kit = begin(dir.path());
    let housekeeping = kit.datasets.housekeeping();
    let worker = std::thread::spawn(move || housekeeping.run(|| NOW));
    kit.put(&csv("crm", 1), &many(0)).expect("taken");
    let reader = kit.live.load();
    kit.put(&csv("crm", 2), &many(100)).expect("taken");
    std::thread::sleep(Duration::from_millis(400));
    assert!(kit.is_mapped(), "version 1 is still read");
    drop(reader);
    let patience = Instant::now() + Duration::from_secs(30);
    while kit.is_mapped() {
        assert!(Instant::now() < patience, "never copied");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(kit.knows(450) && !kit.knows(50));
    drop(kit);
    worker.join().expect("ended");
}

#[test]
fn deltas_that_come_meanwhile_are_kept() {
    let dir = folder();
    let kit = begin(dir.path());
    kit.put(&csv("crm", 1), &many(0)).expect("taken");
    kit.put(&csv("crm", 2), &many(100)).expect("taken");
    let delta = Upload {
        mode: Mode::Delta,
        base: Some(2),
        ..csv("crm", 3)
    };
    let changes = "source,id,add,remove,delete\nifa,id-9999,vip,,\nifa,id-450,,,true\n";
    kit.put(&delta, changes).expect("taken");
    assert!(kit.is_mapped() && kit.knows(9999) && !kit.knows(450));
    assert!(kit.settle() && !kit.is_mapped());
    assert_eq!(kit.serves(), Some(3));
    assert!(kit.knows(9999) && !kit.knows(450) && kit.knows(451));
    kit.activate(2, false).expect("there");
    assert!(kit.is_mapped() && kit.knows(450));
    assert!(kit.settle() && kit.knows(450) && !kit.knows(9999));
}

#[test]
fn a_file_that_was_cut_meanwhile_answers_nothing_and_is_not_copied() {
    let dir = folder();
    let kit = begin(dir.path());
    kit.put(&csv("crm", 1), &many(0)).expect("taken");
    kit.put(&csv("crm", 2), &many(100)).expect("taken");
    let file = dir.path().join("datasets/crm/2.kith");
    let file = std::fs::OpenOptions::new().write(true).open(file);
    let file = file.expect("there");
    file.set_len(0).expect("cut");
    assert!(!kit.knows(450));
    let refused = kit.datasets.settle(&name("crm")).expect_err("cut");
    assert!(refused.contains("could not be read"), "{refused}");
    // The scrub has heard of it, retires it and goes back to what was served before.
    kit.datasets.scrub(|| NOW);
    assert_eq!(kit.serves(), Some(1));
    assert!(kit.knows(50) && !kit.knows(450));
    assert_eq!(kit.states(), [(2, State::Damaged), (1, State::Active)]);
    kit.put(&csv("crm", 2), &many(100)).expect("the same again");
    assert!(kit.settle() || !kit.is_mapped());
}
