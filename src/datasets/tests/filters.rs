//! The life of filter versions: uploaded, held, served, rolled back, brought back.

use super::*;
use crate::audience::{Builder, FalsePositiveRate, VersionMeta};

const FILTERS: &str = "[data]\nkeep_versions = 2\n[datasets.optout]\nkind = \"filter\"\nfalse_positive_rate = 0.001\nconfirm = \"crm\"\n";

fn text(dataset: &str, version: u64, segment: &str) -> Upload {
    Upload {
        kind: Some(Kind::Filter),
        format: Format::Rows(RowFormat::Text {
            source: "ifa".to_owned(),
            segment: name(segment),
        }),
        ..csv(dataset, version)
    }
}

fn people(ids: std::ops::Range<u32>) -> String {
    ids.map(|n| format!("p-{n}\n")).collect()
}

fn start(dir: &Path) -> Kit {
    let kit = open_as(dir, FILTERS, Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    kit
}

fn failed(published: &Published) -> Vec<&str> {
    let checks = published.version.checks.iter();
    checks.filter(|c| !c.ok).map(|c| c.name.as_str()).collect()
}

impl Kit {
    /// Which version of the list is live, and who of these is on it.
    fn listed(&self, ids: &[u32]) -> (u64, Vec<u32>) {
        let generation = self.live.load();
        let dataset = generation
            .datasets
            .iter()
            .find(|d| d.name.as_str() == "optout");
        let dataset = dataset.expect("live");
        let keyer = &generation.frame.keyer;
        let is_on = |id: &u32| {
            let key = keyer.user_key("ifa", &format!("p-{id}"));
            !dataset.memberships(key.expect("a good id")).is_empty()
        };
        (dataset.version, ids.iter().copied().filter(is_on).collect())
    }

    fn rate(&self, kind: &str) -> f64 {
        let line = format!("kith_filter_false_positive_rate{{dataset=\"optout\",kind=\"{kind}\"}}");
        self.metric(&line).parse().expect("a number")
    }
}

#[test]
fn a_list_is_served_rolled_back_and_brought_back() {
    let dir = folder();
    let kit = start(dir.path());
    assert_eq!((kit.rate("declared"), kit.rate("measured")), (0.0, 0.0));
    let first = kit.put(&text("optout", 1, "list"), &people(0..500));
    let first = first.expect("taken").version;
    assert_eq!(first.state, State::Active, "{:?}", first.checks);
    assert_eq!((first.rows, first.ids, first.segments), (500, 500, 1));
    let names: Vec<&str> = first.checks.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "false_positives",
            "declared_rate",
            "rejected_rows",
            "ids",
            "segments",
            "overlap",
            "sources",
            "empty",
            "age",
            "memory",
            "shadow"
        ]
    );
    assert_eq!(kit.listed(&[0, 499, 500]), (1, vec![0, 499]));
    assert_eq!(kit.rate("declared"), 0.001);
    assert!(kit.rate("measured") <= 0.001);
    let second = kit.put(&text("optout", 2, "list"), &people(10..510));
    assert_eq!(second.expect("taken").version.state, State::Active);
    assert_eq!(kit.listed(&[0, 499, 500]), (2, vec![499, 500]));
    // What is configured of it is with it.
    let generation = kit.live.load();
    let Members::Approximate { confirm, .. } = &generation.datasets[0].members else {
        panic!("a filter");
    };
    assert_eq!(confirm.as_ref().map(Name::as_str), Some("crm"));
    drop(generation);
    kit.datasets
        .activate(&name("optout"), 1, false, "a test", NOW)
        .expect("rolled back");
    assert_eq!(kit.listed(&[0, 499, 500]), (1, vec![0, 499]));
    drop(kit);
    let kit = start(dir.path());
    assert_eq!(kit.listed(&[0, 499, 500]), (1, vec![0, 499]));
    assert_eq!(kit.rate("declared"), 0.001);
    kit.datasets
        .delete(&name("optout"), 2, "a test", NOW)
        .expect("deleted");
    assert_eq!(
        std::fs::read_dir(dir.path().join("datasets/optout"))
            .expect("there")
            .count(),
        1
    );
    // Beside audiences, in the order of names.
    kit.crm(1);
    kit.put(&csv("zone", 1), &rows(&["a"])).expect("taken");
    let generation = kit.live.load();
    let names: Vec<&str> = generation
        .datasets
        .iter()
        .map(|d| d.name.as_str())
        .collect();
    assert_eq!(names, ["crm", "optout", "zone"]);
}

/// A version file of a list, made for that rate.
fn file(version: u64, rate: f64, ids: std::ops::Range<u32>) -> Vec<u8> {
    let meta = VersionMeta {
        kind: Kind::Filter,
        dataset: name("optout"),
        version,
        base: None,
        as_of: None,
    };
    let keyer = Keyer::new(&SecretKey::from_bytes([7; 32]));
    let rate = FalsePositiveRate::of_share(rate).expect("a rate");
    let builder = Builder::new(meta, keyer).expect("a filter");
    let mut builder = builder.with_false_positive_rate(rate);
    let Format::Rows(format) = text("optout", 1, "list").format else {
        panic!("rows");
    };
    builder
        .read_rows(&format, people(ids).as_bytes(), &mut |_| {})
        .expect("rows");
    let mut file = Vec::new();
    builder.finish(&mut file).expect("a version");
    file
}

impl Kit {
    fn put_file(&self, version: u64, file: &[u8]) -> Result<Published, Refused> {
        let upload = Upload {
            format: Format::Snapshot,
            ..csv("optout", version)
        };
        let mut spool = self.datasets.spool()?;
        spool.write_all(file)?;
        self.datasets.publish(&upload, spool, "a test", NOW)
    }
}

#[test]
fn a_file_that_declares_more_errors_than_the_dataset_may_have_is_held() {
    let dir = folder();
    let kit = start(dir.path());
    let good = kit.put_file(1, &file(1, 0.0005, 0..500)).expect("taken");
    assert_eq!(
        good.version.state,
        State::Active,
        "{:?}",
        good.version.checks
    );
    let loose = kit.put_file(2, &file(2, 0.01, 0..500)).expect("taken");
    assert_eq!(
        (loose.version.state, failed(&loose)),
        (State::Held, vec!["declared_rate"])
    );
    assert_eq!(kit.listed(&[0]).0, 1);
    // Held is not lost.
    kit.datasets
        .activate(&name("optout"), 2, true, "a test", NOW)
        .expect("forced");
    assert_eq!(kit.rate("declared"), 0.01);
    // An audience's file is none.
    let refused = kit.put_file(3, &std::fs::read("fixtures/format-v2.kith").expect("there"));
    assert!(
        matches!(refused, Err(Refused::OtherVersion { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_list_that_is_not_the_one_before_is_held() {
    let dir = folder();
    let kit = start(dir.path());
    let put = |version, segment: &str, body: &str| {
        let published = kit
            .put(&text("optout", version, segment), body)
            .expect("taken");
        let failed: Vec<String> = failed(&published).into_iter().map(str::to_owned).collect();
        (published.version.state, failed.join(" "))
    };
    assert_eq!(
        put(1, "list", &people(0..3000)),
        (State::Active, String::new())
    );
    let held = |checks: &str| (State::Held, checks.to_owned());
    // Half an export, another segment, others' ids, and too many rows that are none.
    assert_eq!(put(2, "list", &people(0..300)), held("ids"));
    assert_eq!(put(3, "optouts", &people(0..3000)), held("segments"));
    assert_eq!(put(4, "list", &people(5000..8000)), held("overlap"));
    let bad = format!("{}{}", people(0..3000), "null\n".repeat(300));
    assert_eq!(put(5, "list", &bad), held("rejected_rows"));
    assert_eq!(
        put(6, "list", &people(100..3200)),
        (State::Active, String::new())
    );
}

/// Also where an upload has made the dataset, and nothing is configured of it: its errors leave people out.
#[test]
fn campaigns_that_use_a_list_against_its_direction_are_warned() {
    let dir = folder();
    let kit = start(dir.path());
    kit.put(&text("onboarded", 1, "list"), &people(0..100))
        .expect("taken");
    let document = |targeting: &str| {
        serde_json::json!({
            "advertisers": [{"id": "a", "domain": "a.example"}],
            "creatives": [{"id": "c", "advertiser": "a", "type": "banner", "w": 1, "h": 1, "adm": "<a href=\"${KITH_CLICK_URL}\">"}],
            "line_items": [{"id": "l", "creatives": ["c"], "targeting": targeting, "price": {"cpm": "1", "currency": "USD"}}],
        })
        .to_string()
    };
    let warned = |version, targeting: &str| {
        let upload = Upload {
            format: Format::Document,
            ..csv(CAMPAIGNS, version)
        };
        let published = kit.put(&upload, &document(targeting)).expect("taken");
        let messages = published.warnings.into_iter().map(|w| w.message);
        messages.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(warned(1, "segments none of ['onboarded/list']"), "");
    let against = warned(2, "segments one of ['onboarded/list']");
    assert!(against.contains("approximate"), "{against}");
    // A segment that the list has not.
    let never = warned(3, "segments none of ['onboarded/other']");
    assert!(never.contains("onboarded/other"), "{never}");
}

/// With guards off, what was declared is still looked at.
#[test]
fn a_rate_is_checked_without_guards_too() {
    let dir = folder();
    let config = format!("{FILTERS}[guards]\nenabled = false\n");
    let kit = open_as(dir.path(), &config, Arc::default()).expect("opened");
    kit.datasets.recover(NOW).expect("ready");
    let loose = kit.put_file(1, &file(1, 0.01, 0..500)).expect("taken");
    assert_eq!(failed(&loose), ["declared_rate"]);
    assert_eq!(loose.version.checks.len(), 2);
}

#[test]
fn rows_of_a_document_are_no_list() {
    let dir = folder();
    let kit = start(dir.path());
    let document = Upload {
        format: Format::Document,
        ..csv("optout", 1)
    };
    let refused = kit.put(&document, "{}");
    assert!(
        matches!(refused, Err(Refused::FormatOfKind { .. })),
        "{refused:?}"
    );
    let other = Upload {
        kind: Some(Kind::Audience),
        ..csv("optout", 1)
    };
    let refused = kit.put(&other, &rows(&["a"]));
    assert!(
        matches!(refused, Err(Refused::OtherKind { .. })),
        "{refused:?}"
    );
}
