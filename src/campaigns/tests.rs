//! The module as its users see it: documents in, books, errors, warnings and matches out.

use super::*;

/// DESIGN §7's example.
const EXAMPLE: &str = r#"{"advertisers":[{"id":"acme","domain":"acme.example","categories":["596"],"cattax":7,"time_zone":"Europe/Paris","currency":"EUR"}],
 "campaigns":[{"id":"acme-spring","advertiser":"acme","budget":{"total":"20000"},"caps":[{"count":10,"per":"7d"}]}],
 "creatives":[{"id":"acme-300x250","advertiser":"acme","type":"banner","w":300,"h":250,
   "adm":"<a href=\"${KITH_CLICK_URL}\"><img src=\"https://cdn.acme.example/a.png\"></a>","secure":true}],
 "line_items":[{"id":"acme-vip","campaign":"acme-spring","seat":"acme","creatives":["acme-300x250"],
   "targeting":"segments one of ['crm/vip', 'site/cart'] and segments none of ['site/buyers'] and country in ['FRA', 'BEL']",
   "price":{"cpm":"4.20","currency":"EUR"},"flight":{"start":"2026-11-01T00:00:00Z","end":"2026-12-31T00:00:00Z"},
   "deals":[],"budget":{"day":"500","total":"10000"},"pacing":"even",
   "caps":[{"count":5,"per":"24h"}],"status":"active"}]}"#;

fn book(document: &str) -> Book {
    compile(document.as_bytes()).unwrap_or_else(|errors| {
        let shown: Vec<_> = errors.iter().map(ToString::to_string).collect();
        panic!("{}", shown.join("\n"))
    })
}

fn now() -> Timestamp {
    "2026-11-05T12:00:00Z".parse().expect("a time")
}

#[test]
fn the_example_compiles_and_matches() {
    let book = book(EXAMPLE);
    let names: Vec<_> = book.segments.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["crm/vip", "site/buyers", "site/cart"]);
    let line_item = book.line_item("acme-vip").expect("the line item");
    assert!(line_item.runs(now()));
    assert!(line_item.expression.depends_on_person());
    let mut resolved = Resolved::default();
    let mut answer = |member: u64, unreadable: u64, country| {
        let (member, unreadable) = ([member], [unreadable]);
        let mut facts = Facts::new("demo", now());
        facts.country = country;
        facts.segments = Some(SegmentFacts {
            member: &member,
            unreadable: &unreadable,
            any: None,
        });
        book.resolve(&facts, &mut resolved);
        book.matches(line_item, &resolved, &ImpFacts::default())
    };
    assert_eq!(answer(0b001, 0, Some("FRA")), Some(true));
    assert_eq!(answer(0b100, 0, Some("BEL")), Some(true));
    assert_eq!(answer(0b001, 0, Some("DEU")), Some(false));
    assert_eq!(answer(0b011, 0, Some("FRA")), Some(false));
    assert_eq!(answer(0b001, 0b010, Some("FRA")), None);
    assert_eq!(answer(0b001, 0b100, Some("FRA")), Some(true));
    assert_eq!(answer(0b001, 0, None), None);
    assert_eq!(answer(0b000, 0, Some("FRA")), Some(false));
}
