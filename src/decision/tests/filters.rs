//! Filters in a decision: suppression lists, onboarded lists, and what confirms them.

use super::*;
use crate::audience::{Builder, FalsePositiveRate, Filter, RowFormat, VersionMeta};
use crate::ids::Kind;

/// A filter's dataset, its ids as `source,id` and who confirms it. Its one segment is `list`.
type Listed<'t> = (&'t str, &'t [&'t str], Option<&'t str>);

fn filter(dataset: &str, keyer: &Keyer, ids: &[&str]) -> Filter {
    let meta = VersionMeta {
        kind: Kind::Filter,
        dataset: dataset.parse().expect("a name"),
        version: 1,
        base: None,
        as_of: None,
    };
    let builder = Builder::new(meta, keyer.clone()).expect("a filter");
    let mut builder = builder.with_false_positive_rate(FalsePositiveRate::MIN);
    let rows = ids.iter().map(|id| format!("{id},list\n"));
    // Somebody must be on a list.
    let rows = format!(
        "source,id,segments\ncustomer,nobody,list\n{}",
        rows.collect::<String>()
    );
    builder
        .read_rows(&RowFormat::Csv, rows.as_bytes(), &mut |_| {})
        .expect("rows");
    let mut file = Vec::new();
    builder.finish(&mut file).expect("a version");
    Filter::from_bytes(&file).expect("sound")
}

/// A world with these datasets and filters, under these purposes; line items `li` at 2 with that targeting, `else` at
/// 1.
fn world(targeting: &str, exact: &[(&str, &str)], filters: &[Listed<'_>], config: &str) -> World {
    let keyer = Keyer::new(&SecretKey::from_bytes([7; 32]));
    let config = Config::from_toml(config, "kith.toml").expect("a good configuration");
    let name = |name: &str| -> crate::ids::Name { name.parse().expect("a name") };
    let exact = exact.iter().map(|(dataset, rows)| {
        let audience = Arc::new(audience(dataset, rows, &keyer));
        (name(dataset), Members::Exact(audience))
    });
    let filters = filters.iter().map(|(dataset, ids, confirm)| {
        let filter = Arc::new(filter(dataset, &keyer, ids));
        let confirm = confirm.map(name);
        (name(dataset), Members::Approximate { filter, confirm })
    });
    let mut members: Vec<_> = exact.chain(filters).collect();
    // As the service hands them over.
    members.sort_by(|a, b| a.0.cmp(&b.0));
    let live = (0usize..)
        .zip(members)
        .map(|(ordinal, (name, members))| LiveVersion {
            purposes: Purposes::of(&config.datasets.get_or_default(&name).purposes),
            covers: 0,
            ordinal,
            version: 1,
            name,
            members,
        });
    let live = live.collect();
    let items = json!([
        item("li", "2", json!({"targeting": targeting})),
        item(
            "else",
            "1",
            json!({"targeting": format!("not ({targeting})")})
        )
    ]);
    World::assembled(config, keyer, book(items), live)
}

fn person(buyeruid: &str, ifa: &str) -> Value {
    json!({"user": {"buyeruid": buyeruid}, "device": {"ifa": ifa}})
}

const IN: &[&str] = &["1 li @ 2"];
const OUT: &[&str] = &["1 else @ 1"];
/// Null: neither the targeting nor its opposite is true.
const NULL: &[&str] = &["targeting"];

#[test]
fn a_suppression_list_keeps_people_out() {
    let targeting = "segments one of ['crm/vip'] and segments none of ['optout/list']";
    let optout: Listed<'_> = ("optout", &["buyeruid,u2", "ifa,f9"], None);
    let exact = ("crm", "buyeruid,u1,vip\nbuyeruid,u2,vip\n");
    let world = world(targeting, &[exact], &[optout], "");
    world.check(person("u1", "f1"), IN);
    world.check(person("u2", "f1"), OUT);
    // By any of her ids.
    world.check(person("u1", "f9"), OUT);
    world.check(person("u3", "f1"), OUT);
}

#[test]
fn an_onboarded_list_lets_people_in() {
    let onboarded: Listed<'_> = ("onboarded", &["buyeruid,u1", "ifa,f2"], None);
    let one = world("segments one of ['onboarded/list']", &[], &[onboarded], "");
    one.check(person("u1", "f1"), IN);
    one.check(person("u3", "f2"), IN);
    one.check(person("u3", "f3"), OUT);
    one.check(json!({}), OUT);
    one.decide(&person("u1", "f3"), |_, scratch| {
        let counts = LookupCounts {
            found: 1,
            absent: 1,
            damaged: 0,
        };
        assert_eq!(scratch.lookups(), [counts]);
    });
    // A segment that the filter has not is empty, and who is in the filter is in something.
    let other = world(
        "segments one of ['onboarded/others']",
        &[],
        &[onboarded],
        "",
    );
    other.check(person("u1", "f2"), OUT);
    let known = world("segments is not empty", &[], &[onboarded], "");
    known.check(person("u1", "f1"), IN);
    known.check(person("u3", "f1"), OUT);
}

/// The confirming dataset comes after the filter by name, and before it.
#[test]
fn a_confirmed_filter_has_only_whom_the_other_has_too() {
    for confirming in ["zz", "aa"] {
        let listed: Listed<'_> = (
            "list",
            &["buyeruid,u1", "buyeruid,u2", "ifa,f3", "buyeruid,u4"],
            Some(confirming),
        );
        let rows = "buyeruid,u1,x\nbuyeruid,u5,x\nifa,f3,x\nbuyeruid,u4,x,2026-11-21T11:59:59Z\n";
        let world = world(
            "segments one of ['list/list']",
            &[(confirming, rows)],
            &[listed],
            "",
        );
        world.check(person("u1", "f1"), IN);
        world.check(person("u2", "f3"), IN);
        // An error of the filter, as it were.
        world.check(person("u2", "f1"), OUT);
        // Another of her ids does not confirm.
        world.check(person("u2", "f1").clone(), OUT);
        let two = json!({"user": {"buyeruid": "u2", "eids": [{"source": "x.com", "uids": [{"id": "u1"}]}]}});
        world.check(two, OUT);
        world.check(person("u5", "f1"), OUT);
        // What has expired there confirms nothing.
        world.check(person("u4", "f1"), OUT);
        world.decide(&person("u2", "f3"), |_, scratch| {
            let place = usize::from(confirming == "aa");
            let counts = LookupCounts {
                found: 1,
                absent: 1,
                damaged: 0,
            };
            assert_eq!(scratch.lookups()[place], counts);
        });
    }
}

#[test]
fn what_cannot_be_confirmed_is_null() {
    let listed: Listed<'_> = ("list", &["buyeruid,u1"], Some("crm"));
    for targeting in [
        "segments one of ['list/list']",
        "segments none of ['list/list']",
    ] {
        // Not there at all, and a filter, which confirms nothing.
        for filters in [&[listed][..], &[("crm", &["buyeruid,u1"], None), listed]] {
            let world = world(targeting, &[], filters, "");
            world.check(person("u1", "f1"), NULL);
            let without = if targeting.contains("none") { IN } else { OUT };
            world.check(person("u2", "f1"), without);
        }
    }
}

/// Who may be on a list is perhaps in some segment, and perhaps in none.
#[test]
fn whether_a_person_is_in_any_segment_is_null_where_that_hangs_on_a_confirmation() {
    let listed: Listed<'_> = ("list", &["buyeruid,u1"], Some("gone"));
    let exact = ("crm", "ifa,f2,x\n");
    let world = world("segments is empty", &[exact], &[listed], "");
    world.check(person("u1", "f1"), NULL);
    world.check(person("u1", "f2"), OUT);
    world.check(person("u2", "f1"), IN);
}

/// A dataset that may not be read is not asked, neither by itself nor to confirm.
#[test]
fn a_confirmation_takes_its_own_purposes() {
    use crate::privacy::tests::encode::Tc;
    let config = "[privacy]\nvendor_id = 7\n[datasets.list]\nkind = \"filter\"\npurposes = [1]\n[datasets.crm]\npurposes = [1, 4]\n";
    let listed: Listed<'_> = ("list", &["buyeruid,u1"], Some("crm"));
    let exact = ("crm", "buyeruid,u1,x\nbuyeruid,u2,x\n");
    let world = world("segments one of ['list/list']", &[exact], &[listed], config);
    let asked = |buyeruid: &str, purposes: &[u8]| {
        let mut fields = person(buyeruid, "f1");
        fields["regs"] = json!({"gdpr": 1});
        fields["user"]["consent"] = json!(Tc::to(purposes).text());
        fields
    };
    world.check(asked("u1", &[1, 4]), IN);
    world.check(asked("u2", &[1, 4]), OUT);
    world.check(asked("u1", &[1]), NULL);
    world.check(asked("u2", &[1]), OUT);
    world.check(asked("u1", &[4]), NULL);
    world.decide(&asked("u1", &[1]), |_, scratch| {
        let [crm, list] = scratch.lookups() else {
            panic!("two datasets");
        };
        assert_eq!((crm.found, crm.absent), (0, 0));
        assert_eq!((list.found, list.absent), (1, 1));
    });
}

#[test]
fn a_closed_gate_means_no_lookup_in_a_filter() {
    let listed: Listed<'_> = ("list", &["buyeruid,u1"], None);
    for targeting in [
        "segments one of ['list/list']",
        "segments none of ['list/list']",
    ] {
        let world = world(targeting, &[], &[listed], "");
        for who in ["u1", "u2"] {
            let mut fields = person(who, "f1");
            fields["regs"] = json!({"coppa": 1});
            world.check(fields.clone(), NULL);
            world.decide(&fields, |decision, scratch| {
                assert!(decision.gate.is_err());
                assert_eq!(scratch.lookups(), [LookupCounts::default()]);
            });
        }
    }
}

#[test]
fn an_explanation_says_what_the_decision_saw() {
    let listed: Listed<'_> = ("list", &["buyeruid,u1", "buyeruid,u2"], Some("crm"));
    let world = world(
        "segments one of ['list/list']",
        &[("crm", "buyeruid,u1,x\n")],
        &[listed],
        "",
    );
    let told = |buyeruid: &str| {
        let body =
            json!({"id": "r", "imp": [imp(json!({}))], "user": {"buyeruid": buyeruid}}).to_string();
        let arena = Bump::new();
        let request = crate::openrtb::read(body.as_bytes(), &arena, 16).expect("a request");
        let exchange = world.config.exchanges.get("demo").expect("the exchange");
        let now = NOW.parse().expect("a time");
        explain(&world.generation, exchange, request, now).document
    };
    let (first, second) = (told("u1"), told("u2"));
    assert_eq!(first["segments"], json!(["crm/x", "list/list"]));
    assert_eq!(first["ids"][0]["why"], "looked up: in crm, list");
    assert_eq!(
        first["datasets"],
        json!({"campaigns": 1, "crm": 1, "list": 1})
    );
    assert_eq!(second["segments"], json!([]));
    assert_eq!(second["ids"][0]["why"], "looked up: in no dataset");
    let keyer = &world.generation.frame.keyer;
    let key = keyer.user_key("buyeruid", "u1").expect("a good id");
    let segments = world
        .generation
        .datasets
        .iter()
        .map(|dataset| dataset.memberships(key).len());
    assert_eq!(segments.sum::<usize>(), 2);
}
