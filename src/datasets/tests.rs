//! Lives of versions on real directories, with time handed in.

mod deltas;
mod filters;
mod graphs;
mod guarded;
mod scrubbing;
mod settling;

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::audience::{AsOf, RowFormat};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::ids::{Keyer, Kind, SecretKey};
use crate::storage::Faults;

pub(crate) const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

/// A frame under key `7…`, from a configuration.
pub(crate) fn frame(config: &Config) -> Frame {
    Frame::of(config, Keyer::new(&SecretKey::from_bytes([7; 32])))
}

struct Kit {
    datasets: Arc<Datasets>,
    live: Live,
    registry: prometheus::Registry,
}

const CONFIG: &str = "[data]\nkeep_versions = 2\n[datasets.site]\npurposes = [1, 3]\n";

fn open_as(dir: &Path, config: &str, faults: Arc<Faults>) -> Result<Kit, OpenFailed> {
    let config = Config::from_toml(config, "test").expect("a good configuration");
    let storage = Storage::start_with(dir, faults)?;
    let registry = prometheus::Registry::new();
    let settings = Settings::of(&config, frame(&config));
    let (datasets, live) = Datasets::open(settings, storage, &registry)?;
    Ok(Kit {
        datasets,
        live,
        registry,
    })
}

fn start(dir: &Path) -> Kit {
    let kit = open_as(dir, CONFIG, Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    kit
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn csv(dataset: &str, version: u64) -> Upload {
    Upload {
        dataset: name(dataset),
        version,
        kind: None,
        mode: Mode::Full,
        base: None,
        as_of: None,
        activate: true,
        format: Format::Rows(RowFormat::Csv),
    }
}

fn rows(ids: &[&str]) -> String {
    let mut text = "source,id,segments\n".to_owned();
    for id in ids {
        text.push_str(&format!("ifa,{id},vip\n"));
    }
    text
}

impl Kit {
    fn put(&self, upload: &Upload, body: &str) -> Result<Published, Refused> {
        let mut spool = self.datasets.spool()?;
        spool.write_all(body.as_bytes())?;
        self.datasets.publish(upload, spool, "a test", NOW)
    }

    /// A version of `crm` with one id, named after its number.
    fn crm(&self, version: u64) -> Published {
        self.put(&csv("crm", version), &rows(&[&format!("id-{version}")]))
            .expect("taken")
    }

    fn activate(&self, version: u64, force: bool) -> Result<Activated, Refused> {
        self.datasets
            .activate(&name("crm"), version, force, "a test", NOW)
    }

    fn serves(&self) -> Option<u64> {
        let generation = self.live.load();
        let crm = generation
            .datasets
            .iter()
            .find(|d| d.name.as_str() == "crm");
        crm.map(|d| d.version)
    }

    fn states(&self) -> Vec<(u64, State)> {
        let view = self.datasets.dataset(&name("crm")).expect("known");
        view.versions.iter().map(|v| (v.version, v.state)).collect()
    }

    fn number(&self) -> u64 {
        self.live.load().number
    }

    fn metric(&self, line: &str) -> String {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("encodes");
        let found = text.lines().find_map(|l| l.strip_prefix(line));
        found.unwrap_or("absent").trim().to_owned()
    }
}

fn version_files(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir.join("datasets/crm")) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into())
        .collect();
    names.sort();
    names
}

#[test]
fn a_fresh_directory_is_ready_with_an_empty_generation() {
    let dir = folder();
    let kit = open_as(dir.path(), CONFIG, Arc::default()).expect("opened");
    assert_eq!(kit.datasets.readiness(), Err(NotReady::Recovering));
    assert!(matches!(
        kit.put(&csv("crm", 1), &rows(&["a"])),
        Err(Refused::Recovering)
    ));
    kit.datasets.recover(NOW).expect("ready");
    assert_eq!((kit.number(), kit.serves()), (0, None));
    let names: Vec<String> = kit
        .datasets
        .list(|_| true)
        .iter()
        .map(|d| format!("{} {}", d.name, d.kind))
        .collect();
    assert_eq!(names, ["campaigns campaigns", "site audience"]);
    assert_eq!(kit.metric("kith_dataset_version{dataset=\"site\"}"), "0");
    assert_eq!(
        kit.metric("kith_activations_total{dataset=\"site\",result=\"held\"}"),
        "0"
    );
}

#[test]
fn an_upload_is_served_and_survives_a_restart() {
    let dir = folder();
    {
        let kit = start(dir.path());
        let first = kit.crm(1);
        assert!(first.fresh);
        assert_eq!(first.version.state, State::Active);
        assert_eq!((first.version.rows, first.version.ids), (1, 1));
        assert_eq!((kit.serves(), kit.number()), (Some(1), 1));
        kit.crm(2);
        assert_eq!(kit.serves(), Some(2));
        assert_eq!(kit.metric("kith_dataset_version{dataset=\"crm\"}"), "2");
        assert_eq!(kit.metric("kith_generation "), "2");
    }
    let kit = start(dir.path());
    assert_eq!((kit.serves(), kit.number()), (Some(2), 2));
    assert_eq!(kit.states(), [(2, State::Active), (1, State::Retired)]);
    let key = Keyer::new(&SecretKey::from_bytes([7; 32]))
        .user_key("ifa", "id-2")
        .expect("a good id");
    let generation = kit.live.load();
    let crm = generation.datasets.first().expect("live");
    assert_eq!(crm.memberships(key).len(), 1);
    assert_eq!(kit.metric("kith_dataset_version{dataset=\"crm\"}"), "2");
    let uploaded = kit.metric("kith_dataset_uploaded_seconds{dataset=\"crm\"}");
    assert_eq!(uploaded, NOW.unix_seconds().to_string());
}

#[test]
fn the_same_upload_again_changes_nothing() {
    let dir = folder();
    let kit = start(dir.path());
    kit.crm(1);
    let manifest = std::fs::read(dir.path().join("manifest.json")).expect("there");
    let again = kit.crm(1);
    assert!(!again.fresh);
    assert_eq!(again.version.state, State::Active);
    assert_eq!(kit.number(), 1, "no second swap");
    assert_eq!(
        std::fs::read(dir.path().join("manifest.json")).expect("there"),
        manifest
    );
    // An older one is known too, while it is kept.
    kit.crm(2);
    assert!(!kit.crm(1).fresh);
    assert_eq!(kit.serves(), Some(2));
}

#[test]
fn a_number_is_taken_once() {
    let dir = folder();
    let kit = start(dir.path());
    kit.crm(5);
    let refused = |upload: &Upload, ids: &[&str]| kit.put(upload, &rows(ids)).expect_err("refused");
    assert!(matches!(
        refused(&csv("crm", 5), &["other"]),
        Refused::OtherBytes { .. }
    ));
    assert!(matches!(
        refused(&csv("crm", 4), &["other"]),
        Refused::BelowNewest { newest: 5, .. }
    ));
    let staged = Upload {
        activate: false,
        ..csv("crm", 5)
    };
    assert!(matches!(
        refused(&staged, &["id-5"]),
        Refused::OtherQuery { .. }
    ));
    assert!(matches!(
        refused(&csv("crm", 0), &["x"]),
        Refused::VersionNumber
    ));
    assert_eq!((kit.serves(), kit.number()), (Some(5), 1));
}

#[test]
fn a_refused_upload_leaves_its_number_free_and_no_trace() {
    let dir = folder();
    let kit = start(dir.path());
    let refused = |upload: &Upload, body: &str| kit.put(upload, body).expect_err("refused");
    assert!(matches!(
        refused(&csv("crm", 1), "no,header,here\n"),
        Refused::Rows(_)
    ));
    assert!(matches!(refused(&csv("crm", 1), ""), Refused::Rows(_)));
    let Refused::NoGoodRow(report) = refused(&csv("crm", 1), &rows(&["null"])) else {
        panic!("no good row");
    };
    assert_eq!(report.rejected_rows, 1);
    assert_eq!(report.rejected[0].line, 2);
    let ahead = AsOf::Time(Timestamp::from_unix_ms(NOW.unix_ms + 60_001));
    let ahead = Upload {
        as_of: Some(ahead),
        ..csv("crm", 1)
    };
    assert!(matches!(
        refused(&ahead, &rows(&["a"])),
        Refused::AsOfFuture(_)
    ));
    let delta = Upload {
        mode: Mode::Delta,
        base: Some(0),
        ..csv("crm", 1)
    };
    assert!(matches!(
        refused(&delta, &rows(&["a"])),
        Refused::BaseNotLive { .. }
    ));
    assert!(matches!(
        kit.datasets.dataset(&name("crm")),
        Err(Refused::UnknownDataset(_))
    ));
    kit.crm(1);
    assert_eq!(version_files(dir.path()), ["1.kith"]);
    let incoming = std::fs::read_dir(dir.path().join("incoming")).expect("there");
    assert_eq!(incoming.count(), 0);
}

#[test]
fn bad_rows_hold_a_version_until_it_is_forced() {
    let dir = folder();
    let kit = start(dir.path());
    kit.crm(1);
    let held = kit
        .put(&csv("crm", 2), &rows(&["a", "b", "null"]))
        .expect("held is taken");
    assert_eq!(held.version.state, State::Held);
    assert_eq!(held.rejected[0].line, 4);
    let check = held.version.checks.iter().find(|c| !c.ok).expect("failed");
    assert!(check.detail.contains("force"), "{}", check.detail);
    assert_eq!(kit.serves(), Some(1));
    assert!(matches!(kit.activate(2, false), Err(Refused::Held { .. })));
    assert_eq!(
        kit.metric("kith_activations_total{dataset=\"crm\",result=\"held\"}"),
        "1"
    );
    assert_eq!(
        kit.metric("kith_upload_rows_total{dataset=\"crm\",result=\"rejected\"}"),
        "1"
    );
    drop(kit);
    let kit = start(dir.path());
    let waiting = |kit: &Kit| kit.metric("kith_dataset_held_versions{dataset=\"crm\"}");
    assert_eq!(waiting(&kit), "1");
    assert!(matches!(kit.activate(2, false), Err(Refused::Held { .. })));
    assert_eq!(kit.activate(2, true).expect("forced").previous, Some(1));
    assert_eq!(waiting(&kit), "0", "its data is served");
    assert_eq!(kit.serves(), Some(2));
    // Forced once is not free for all.
    kit.activate(1, false).expect("rolled back");
    assert!(matches!(kit.activate(2, false), Err(Refused::Held { .. })));
    assert_eq!(kit.states(), [(2, State::Held), (1, State::Active)]);
    assert_eq!(waiting(&kit), "1");
    kit.activate(2, true).expect("forced again");
    kit.crm(3);
    assert_eq!(waiting(&kit), "0", "something newer is live");
}

#[test]
fn disabled_guards_hold_nothing() {
    let dir = folder();
    let off = "[datasets.crm.guards]\nenabled = false\n";
    let kit = open_as(dir.path(), off, Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    kit.put(&csv("crm", 1), &rows(&["a", "null"]))
        .expect("taken");
    assert_eq!(kit.serves(), Some(1));
}

#[test]
fn rollback_pin_and_delete() {
    let dir = folder();
    let kit = start(dir.path());
    kit.crm(1);
    kit.crm(2);
    let back = kit.activate(1, false).expect("rolled back");
    assert_eq!((back.version, back.previous), (1, Some(2)));
    assert_eq!((kit.serves(), kit.number()), (Some(1), 3));
    kit.activate(1, false).expect("already");
    assert_eq!(kit.number(), 3, "nothing to swap");

    kit.datasets
        .pin(&name("crm"), None, "a test", NOW)
        .expect("pinned");
    let pinned = || kit.metric("kith_dataset_pinned{dataset=\"crm\"}");
    assert_eq!(pinned(), "1");
    assert_eq!(kit.crm(3).version.state, State::Staged);
    assert!(matches!(
        kit.activate(3, false),
        Err(Refused::Pinned { live: 1, .. })
    ));
    assert_eq!(kit.serves(), Some(1));
    kit.datasets
        .unpin(&name("crm"), "a test", NOW)
        .expect("unpinned");
    assert_eq!(pinned(), "0");
    kit.activate(3, false).expect("activated");
    assert!(matches!(
        kit.datasets.delete(&name("crm"), 3, "a test", NOW),
        Err(Refused::Live { .. })
    ));
    kit.datasets
        .delete(&name("crm"), 1, "a test", NOW)
        .expect("deleted");
    assert_eq!(kit.states(), [(3, State::Active)]);
    let view = kit.datasets.dataset(&name("crm")).expect("known");
    let events: Vec<&str> = view.history.iter().map(|e| e.event.as_str()).collect();
    assert_eq!(
        events,
        [
            "staged",
            "activated",
            "staged",
            "activated",
            "rolled_back",
            "pinned",
            "staged",
            "unpinned",
            "activated",
            "removed",
            "deleted"
        ]
    );
}

#[test]
fn a_deleted_number_stays_taken() {
    let dir = folder();
    let kit = start(dir.path());
    kit.crm(1);
    let staged = Upload {
        activate: false,
        ..csv("crm", 2)
    };
    kit.put(&staged, &rows(&["b"])).expect("staged");
    assert_eq!(kit.serves(), Some(1));
    kit.datasets
        .delete(&name("crm"), 2, "a test", NOW)
        .expect("deleted");
    assert!(matches!(
        kit.put(&staged, &rows(&["b"])),
        Err(Refused::Deleted { .. })
    ));
    assert_eq!(version_files(dir.path()), ["1.kith"]);
}

#[test]
fn retention_keeps_the_newest_and_the_live() {
    let dir = folder();
    let kit = start(dir.path());
    for version in 1..=4 {
        kit.crm(version);
    }
    assert_eq!(kit.states(), [(4, State::Active), (3, State::Retired)]);
    kit.activate(3, false).expect("rolled back");
    kit.datasets
        .pin(&name("crm"), Some(3), "a test", NOW)
        .expect("pinned");
    for version in 5..=8 {
        kit.crm(version);
    }
    assert_eq!(
        kit.states(),
        [
            (8, State::Staged),
            (7, State::Staged),
            (4, State::Retired),
            (3, State::Active)
        ]
    );
    assert_eq!(
        version_files(dir.path()),
        ["3.kith", "4.kith", "7.kith", "8.kith"]
    );
}

#[test]
fn held_versions_do_not_push_out_what_one_would_roll_back_to() {
    let dir = folder();
    let kit = start(dir.path());
    kit.crm(1);
    kit.crm(2);
    for version in 3..=6 {
        kit.put(&csv("crm", version), &rows(&["a", "null"]))
            .expect("held");
    }
    let kept: Vec<u64> = kit.states().iter().map(|(n, _)| *n).collect();
    assert_eq!(kept, [6, 5, 2, 1]);
}

#[test]
fn a_damaged_live_version_is_named_and_not_replaced() {
    for damage in [true, false] {
        let dir = folder();
        {
            let kit = start(dir.path());
            kit.crm(1);
            kit.crm(2);
        }
        let file = dir.path().join("datasets/crm/2.kith");
        if damage {
            let mut bytes = std::fs::read(&file).expect("there");
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            std::fs::write(&file, bytes).expect("written");
        } else {
            std::fs::remove_file(&file).expect("removed");
        }
        let kit = open_as(dir.path(), CONFIG, Arc::default()).expect("opened");
        let reason = kit.datasets.recover(NOW).expect_err("not ready");
        assert!(reason.to_string().contains("`crm`"), "{reason}");
        assert_eq!(kit.serves(), None);
        let view = kit.datasets.dataset(&name("crm")).expect("known");
        assert!(view.unreadable.is_some());
        kit.activate(1, false).expect("an operator chose");
        assert_eq!(kit.serves(), Some(1));
        kit.datasets.readiness().expect("ready now");
    }
}

#[test]
fn what_a_crash_left_is_removed_and_the_number_is_free() {
    let dir = folder();
    {
        let kit = start(dir.path());
        kit.crm(1);
    }
    let folder = dir.path().join("datasets/crm");
    // Between version file and manifest; between spool and version file.
    std::fs::copy(folder.join("1.kith"), folder.join("2.kith")).expect("copied");
    std::fs::write(folder.join("notes.txt"), "a person's").expect("written");
    std::fs::write(dir.path().join("incoming/9.part"), "half").expect("written");
    let kit = start(dir.path());
    assert_eq!(version_files(dir.path()), ["1.kith", "notes.txt"]);
    assert!(!dir.path().join("incoming/9.part").exists());
    assert_eq!(kit.serves(), Some(1));
    kit.crm(2);
}

#[test]
fn a_damaged_or_missing_manifest_is_refused_and_nothing_is_removed() {
    let dir = folder();
    {
        let kit = start(dir.path());
        kit.crm(1);
    }
    let path = dir.path().join("manifest.json");
    let good = std::fs::read_to_string(&path).expect("there");
    std::fs::write(&path, good.replace("\"live\":1", "\"live\":2")).expect("written");
    let refused = open_as(dir.path(), CONFIG, Arc::default()).err();
    assert!(matches!(
        refused,
        Some(OpenFailed::Manifest(ManifestError::Damaged))
    ));
    std::fs::remove_file(&path).expect("removed");
    let refused = open_as(dir.path(), CONFIG, Arc::default()).err();
    assert!(matches!(
        refused,
        Some(OpenFailed::Manifest(ManifestError::Missing))
    ));
    assert_eq!(version_files(dir.path()), ["1.kith"]);
    std::fs::write(&path, good).expect("restored");
    assert_eq!(start(dir.path()).serves(), Some(1));
}

#[test]
fn a_second_process_is_refused() {
    let dir = folder();
    let _kit = start(dir.path());
    let refused = open_as(dir.path(), CONFIG, Arc::default()).err();
    let text = refused.map(|e| e.to_string()).unwrap_or_default();
    assert!(text.contains("in use by another process"), "{text}");
}

#[test]
fn two_uploads_at_once_come_out_as_one_after_the_other() {
    let dir = folder();
    let kit = start(dir.path());
    for round in 0..20u64 {
        let version = round + 1;
        let results: Vec<_> = std::thread::scope(|scope| {
            let put = |id: &'static str| {
                let kit = &kit;
                scope.spawn(move || kit.put(&csv("crm", version), &rows(&[id])))
            };
            let all = [put("a"), put("b"), put("a")];
            all.map(|t| t.join().expect("no panic"))
                .into_iter()
                .collect()
        });
        let fresh = results.iter().filter(|r| r.as_ref().is_ok_and(|p| p.fresh));
        assert_eq!(fresh.count(), 1, "{results:?}");
        let refused = results.iter().filter(|r| r.is_err()).count();
        let took_a = results[0].is_ok();
        assert_eq!(refused, if took_a { 1 } else { 2 }, "{results:?}");
        assert_eq!(kit.number(), version);
    }
}

#[test]
fn a_full_disk_refuses_the_upload_and_a_failed_sync_stops_writing() {
    use std::sync::atomic::Ordering::Relaxed;
    let dir = folder();
    let faults: Arc<Faults> = Arc::default();
    let kit = open_as(dir.path(), CONFIG, Arc::clone(&faults)).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    kit.crm(1);
    faults.write.store(true, Relaxed);
    let refused = kit.put(&csv("crm", 2), &rows(&["b"])).expect_err("full");
    assert!(
        matches!(&refused, Refused::Storage(e) if e.is_full()),
        "{refused:?}"
    );
    faults.write.store(false, Relaxed);
    kit.crm(2);
    assert!(kit.datasets.writes(), "a full disk may be emptied");
    faults.sync.store(true, Relaxed);
    let refused = kit.put(&csv("crm", 3), &rows(&["c"])).expect_err("stopped");
    assert!(matches!(refused, Refused::Storage(_)), "{refused:?}");
    faults.sync.store(false, Relaxed);
    assert!(matches!(
        kit.datasets.readiness(),
        Err(NotReady::Storage(_))
    ));
    assert!(!kit.datasets.writes());
    kit.activate(1, false).expect_err("no manifest, no swap");
    assert_eq!(kit.serves(), Some(2));
    drop(kit);
    assert_eq!(start(dir.path()).serves(), Some(2));
}

#[test]
fn campaigns_are_a_version_like_any_other() {
    let dir = folder();
    let kit = start(dir.path());
    let document = |segment: &str| {
        format!(
            r#"{{"advertisers":[{{"id":"acme","domain":"acme.example"}}],
            "creatives":[{{"id":"c1","advertiser":"acme","type":"banner","w":300,"h":250,"adm":"<b>x</b>"}}],
            "line_items":[{{"id":"l1","creatives":["c1"],"targeting":"segments one of ['{segment}']",
            "price":{{"cpm":"4.20","currency":"EUR"}}}}]}}"#
        )
    };
    let upload = |version| Upload {
        format: Format::Document,
        ..csv(CAMPAIGNS, version)
    };
    let Refused::Document(errors) = kit
        .put(&upload(1), "{\"line_items\":[{\"id\":\"l1\"}]}")
        .expect_err("bad")
    else {
        panic!("a document's errors");
    };
    assert!(errors.len() > 1, "all of them: {errors:?}");
    let first = kit.put(&upload(1), &document("crm/vip")).expect("taken");
    assert_eq!(first.version.state, State::Active);
    assert!(
        first.warnings.iter().any(|w| w.message.contains("crm/vip")),
        "{:?}",
        first.warnings
    );
    assert_eq!(kit.live.load().campaigns_version, Some(1));
    // The audience comes later; its slots are computed against the book that is there.
    kit.crm(1);
    let generation = kit.live.load();
    assert_eq!(generation.datasets[0].slots.as_ref(), [0]);
    let second = kit.put(&upload(2), &document("crm/other")).expect("taken");
    assert!(
        !second
            .warnings
            .iter()
            .any(|w| w.message.contains("crm/vip"))
    );
    let generation = kit.live.load();
    assert_eq!(
        generation.datasets[0].slots.as_ref(),
        [crate::generation::NO_SLOT]
    );
    drop((kit, generation));
    let kit = start(dir.path());
    assert_eq!(kit.live.load().campaigns_version, Some(2));
    assert_eq!(kit.live.load().book.line_items.len(), 1);
    let elsewhere = Upload {
        kind: Some(Kind::Campaigns),
        format: Format::Document,
        ..csv("other", 1)
    };
    assert!(matches!(
        kit.put(&elsewhere, "{}"),
        Err(Refused::CampaignsElsewhere)
    ));
    let rows_for_campaigns = csv(CAMPAIGNS, 3);
    assert!(matches!(
        kit.put(&rows_for_campaigns, "x"),
        Err(Refused::FormatOfKind { .. })
    ));
}

#[test]
fn scores_are_uploaded_changed_rolled_back_and_there_after_a_restart() {
    let dir = folder();
    let mut kit = start(dir.path());
    let of = |dataset: &str, version| Upload {
        kind: Some(Kind::Scores),
        format: Format::Document,
        ..csv(dataset, version)
    };
    let scores = |score: &str| format!("[[scores]]\nsegment = 'crm/vip'\nscore = {score}");
    let campaigns = |version| Upload {
        kind: None,
        ..of(CAMPAIGNS, version)
    };
    let document = serde_json::json!({
        "advertisers": [{"id": "acme", "domain": "acme.example"}],
        "creatives": [{"id": "box", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "<p>"}],
        "line_items": [{"id": "li", "creatives": ["box"], "targeting": "segments one of ['crm/vip']",
            "price": {"cpm": "1", "currency": "EUR", "score": "worth", "max": "50"}}]})
    .to_string();
    let warns = |kit: &Kit, version| {
        let published = kit.put(&campaigns(version), &document).expect("taken");
        let mut warned = published.warnings.iter();
        warned.any(|w| w.path == "line_items[0].price.score" && w.message.contains("'worth'"))
    };
    assert!(warns(&kit, 1));
    let first = kit.put(&of("worth", 1), &scores("2")).expect("taken");
    assert_eq!((first.version.rows, first.version.segments), (1, 1));
    assert!(!warns(&kit, 2));
    let live = |kit: &Kit| kit.live.load().scores.of(0, 0);
    assert_eq!(live(&kit), Some(2_000_000));
    kit.put(&of("worth", 2), &scores("3")).expect("taken");
    assert_eq!(live(&kit), Some(3_000_000));
    kit.datasets
        .activate(&name("worth"), 1, false, "a test", NOW)
        .expect("rolled back");
    assert_eq!(live(&kit), Some(2_000_000));
    drop(kit);
    kit = start(dir.path());
    assert_eq!(live(&kit), Some(2_000_000));
    // What is wrong leaves the number free.
    assert!(matches!(
        kit.put(&of("worth", 3), &scores("0")),
        Err(Refused::Document(_))
    ));
    let rows = Upload {
        kind: None,
        ..csv("worth", 3)
    };
    assert!(matches!(
        kit.put(&rows, "segment,score"),
        Err(Refused::FormatOfKind { .. })
    ));
    kit.put(&of("worth", 3), &scores("4")).expect("taken");
    assert_eq!(live(&kit), Some(4_000_000));
}

#[test]
fn readers_follow_and_old_generations_are_dropped_by_the_janitor() {
    let dir = folder();
    let kit = start(dir.path());
    let mut reader = kit.live.reader();
    let held = Arc::clone(reader.load());
    let weak = Arc::downgrade(&held);
    kit.crm(1);
    assert_eq!(reader.load().number, 1);
    assert!(kit.datasets.retired_generations() >= 1);
    drop(held);
    let (_never, wait) = std::sync::mpsc::channel::<()>();
    for _ in 0..40 {
        if weak.upgrade().is_none() {
            assert_eq!(kit.datasets.retired_generations(), 0);
            return;
        }
        let _ = wait.recv_timeout(std::time::Duration::from_millis(50));
    }
    panic!("the old generation is still there");
}

#[test]
fn what_was_replaced_is_there_to_go_back_to() {
    let dir = folder();
    let kit = start(dir.path());
    kit.crm(1);
    kit.datasets
        .pin(&name("crm"), None, "a test", NOW)
        .expect("pinned");
    for version in 2..=4 {
        kit.crm(version);
    }
    kit.datasets
        .unpin(&name("crm"), "a test", NOW)
        .expect("unpinned");
    kit.activate(3, false).expect("activated");
    kit.activate(1, false).expect("rolled back");
    assert_eq!(kit.serves(), Some(1));
    let history = kit.datasets.dataset(&name("crm")).expect("known").history;
    let last: Vec<&str> = history.iter().rev().map(|e| e.event.as_str()).collect();
    assert_eq!(last[..2], ["rolled_back", "activated"]);
}

#[test]
fn a_staged_version_below_the_live_one_is_activated_not_rolled_back() {
    let dir = folder();
    let kit = start(dir.path());
    let staged = Upload {
        activate: false,
        ..csv("crm", 1)
    };
    kit.put(&staged, &rows(&["a"])).expect("staged");
    kit.crm(2);
    kit.activate(1, false).expect("activated");
    let history = kit.datasets.dataset(&name("crm")).expect("known").history;
    assert_eq!(history.last().expect("one").event, "activated");
}

#[test]
fn the_same_upload_again_restores_a_damaged_version() {
    for live in [true, false] {
        let dir = folder();
        let number = if live { 2 } else { 1 };
        {
            let kit = start(dir.path());
            kit.crm(1);
            kit.crm(2);
        }
        let file = dir.path().join(format!("datasets/crm/{number}.kith"));
        let good = std::fs::read(&file).expect("there");
        std::fs::write(&file, &good[..good.len() - 1]).expect("cut");
        let kit = open_as(dir.path(), CONFIG, Arc::default()).expect("opened");
        assert_eq!(kit.datasets.recover(NOW).is_ok(), !live);
        if live {
            assert_eq!(kit.states(), [(2, State::Unreadable), (1, State::Retired)]);
            let shown = kit.datasets.version(&name("crm"), 2).expect("known");
            assert_eq!(shown.version.state, State::Unreadable);
        }
        kit.put(&csv("crm", number), &rows(&["other"]))
            .expect_err("other bytes restore nothing");
        let restored = kit.crm(number);
        assert!(!restored.fresh);
        kit.datasets.readiness().expect("ready");
        assert_eq!(kit.serves(), Some(2));
        assert_eq!(kit.states(), [(2, State::Active), (1, State::Retired)]);
        assert_eq!(std::fs::read(&file).expect("there"), good);
        drop(kit);
        assert_eq!(start(dir.path()).serves(), Some(2));
    }
}

#[test]
fn first_uploads_at_once_do_not_overrun_the_limit() {
    let dir = folder();
    let kit = open_as(dir.path(), "[limits]\ndatasets = 3\n", Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    let start = std::sync::Barrier::new(12);
    std::thread::scope(|scope| {
        for n in 0..12 {
            let (kit, start) = (&kit, &start);
            scope.spawn(move || {
                start.wait();
                let _ = kit.put(&csv(&format!("d{n}"), 1), &rows(&["a"]));
            });
        }
    });
    let names: Vec<Name> = kit
        .datasets
        .list(|_| true)
        .into_iter()
        .map(|d| d.name)
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let files = std::fs::read_dir(dir.path().join("datasets")).expect("there");
    let made = files.filter(|f| {
        let folder = f.as_ref().expect("an entry").path();
        std::fs::read_dir(folder).expect("a folder").count() > 0
    });
    assert_eq!(
        made.count(),
        2,
        "campaigns has none, and nothing is left behind"
    );
}

#[test]
fn a_full_disk_does_not_keep_an_operator_from_switching() {
    use std::sync::atomic::Ordering::Relaxed;
    let dir = folder();
    let faults: Arc<Faults> = Arc::default();
    let kit = open_as(dir.path(), CONFIG, Arc::clone(&faults)).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    kit.crm(1);
    kit.crm(2);
    faults.full.store(true, Relaxed);
    kit.put(&csv("crm", 3), &rows(&["c"])).expect_err("full");
    kit.activate(1, false).expect("rolled back");
    faults.full.store(true, Relaxed);
    kit.datasets
        .pin(&name("crm"), None, "a test", NOW)
        .expect("pinned");
    // And with the reserve gone, too, a deletion makes its own room.
    std::fs::remove_file(dir.path().join("reserve")).expect("there");
    faults.full.store(true, Relaxed);
    kit.datasets
        .delete(&name("crm"), 2, "a test", NOW)
        .expect("deleted");
    drop(kit);
    let kit = start(dir.path());
    assert_eq!(kit.serves(), Some(1));
    assert_eq!(kit.states(), [(1, State::Active)]);
}
