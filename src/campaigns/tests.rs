//! The module as its users see it: documents in, books, errors, warnings and matches out.

use super::*;

mod formats;

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

fn json(document: serde_json::Value) -> Result<Book, Vec<DocumentError>> {
    compile(document.to_string().as_bytes())
}

/// A good document with one of each, to break.
fn good() -> serde_json::Value {
    serde_json::json!({
        "advertisers": [{"id": "acme", "domain": "acme.example", "currency": "EUR"}],
        "creatives": [{"id": "c", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "<a href='${KITH_CLICK_URL}'>x</a>"}],
        "line_items": [{"id": "li", "creatives": ["c"], "targeting": "test", "price": {"cpm": "1"}}],
    })
}

fn shown(errors: &[DocumentError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_document_may_be_empty() {
    for text in [
        "{}",
        " {\n}",
        "",
        "# nothing yet\n",
        "{\"line_items\": []}",
        "{\"line_items\": null}",
    ] {
        let book = book(text);
        assert!(book.line_items.is_empty() && book.segments.is_empty());
    }
    assert!(Book::empty().line_item("x").is_none());
}

#[test]
fn a_shared_budget_is_in_one_currency() {
    let errors = |budgets: [bool; 2], own: Option<&str>| {
        let mut document = good();
        document["advertisers"][0]["currency"] = own.into();
        document["campaigns"] = serde_json::json!([{"id": "all", "advertiser": "acme"}]);
        for (list, has) in ["campaigns", "advertisers"].into_iter().zip(budgets) {
            if has {
                document[list][0]["budget"] = serde_json::json!({"day": "5"});
            }
        }
        let item = |id, currency| {
            let mut item = document["line_items"][0].clone();
            item["id"] = serde_json::Value::from(id);
            item["campaign"] = "all".into();
            item["price"]["currency"] = serde_json::Value::from(currency);
            item
        };
        document["line_items"] = serde_json::json!([item("a", "EUR"), item("b", "USD")]);
        json(document).err().map(|errors| shown(&errors))
    };
    let told = |of: &str| {
        format!(
            "line_items[1].price.currency (b): is USD, and line item `a` has EUR: the budget of {of} is in one currency; give the advertiser a `currency`"
        )
    };
    assert_eq!(
        errors([true, true], None),
        Some(vec![told("campaign `all`"), told("advertiser `acme`")])
    );
    assert_eq!(
        errors([false, true], None),
        Some(vec![told("advertiser `acme`")])
    );
    assert_eq!(errors([false, false], None), None);
    assert_eq!(errors([true, true], Some("CHF")), None);
}

#[test]
fn what_is_left_out_has_its_default() {
    let book = book(&good().to_string());
    let line_item = &book.line_items[0];
    assert_eq!(&*line_item.campaign, "li");
    assert_eq!(line_item.seat, None);
    assert_eq!(line_item.flight, Flight::default());
    assert_eq!(line_item.status, Status::Active);
    assert_eq!(line_item.currency.as_str(), "EUR");
    assert_eq!(line_item.pacing, None);
    assert_eq!(line_item.budget, Budget::default());
    assert!(line_item.deals.is_empty() && line_item.caps.is_empty());
    let creative = &book.creatives[0];
    assert_eq!(&*creative.click_url, "https://acme.example/");
    assert!(!creative.secure);
    assert_eq!(creative.cattax, 1);
    assert_eq!(&*book.advertisers[0].time_zone, "UTC");
}

#[test]
fn what_is_there_is_kept() {
    let mut document = good();
    document["campaigns"] =
        serde_json::json!([{"id": "spring", "advertiser": "acme", "budget": {"total": 20000}}]);
    document["creatives"][0]["click_url"] = "https://acme.example/landing?a=1&b=2".into();
    document["creatives"][0]["attr"] = serde_json::json!([16, 3, 3]);
    document["creatives"][0]["categories"] = serde_json::json!(["IAB1"]);
    document["creatives"][0]["language"] = "FR".into();
    let line_item = &mut document["line_items"][0];
    line_item["campaign"] = "spring".into();
    line_item["seat"] = "s1".into();
    line_item["price"] = serde_json::json!({"cpm": 4.2, "currency": "usd"});
    line_item["deals"] = serde_json::json!(["d2", "d1", "d2"]);
    line_item["flight"] =
        serde_json::json!({"start": "2026-11-01T00:00:00+01:00", "end": "2026-11-02T00:00:00Z"});
    line_item["budget"] = serde_json::json!({"day": "500.50", "total": "10000"});
    line_item["caps"] = serde_json::json!([{"count": 5, "per": "30m"}, {"count": 9, "per": "7d"}]);
    line_item["pacing"] = "ahead".into();
    line_item["status"] = "paused".into();
    let book = book(&document.to_string());
    let line_item = &book.line_items[0];
    assert_eq!(
        (&*line_item.campaign, line_item.seat.as_deref()),
        ("spring", Some("s1"))
    );
    assert_eq!(line_item.pricing.base.micros(), 4_200_000);
    assert_eq!(line_item.currency, Currency::USD);
    let deals: Vec<_> = line_item.deals.iter().map(|d| &**d).collect();
    assert_eq!(deals, ["d1", "d2"]);
    assert_eq!(
        line_item.budget.day,
        Some(Amount {
            nanos: 500_500_000_000
        })
    );
    let caps: Vec<_> = line_item
        .caps
        .iter()
        .map(|c| (c.count, c.seconds))
        .collect();
    assert_eq!(caps, [(5, 1800), (9, 604_800)]);
    assert_eq!(line_item.pacing, Some(Pacing::Ahead));
    assert!(!line_item.runs("2026-11-01T12:00:00Z".parse().expect("a time")));
    for (time, covered) in [
        ("2026-10-31T22:59:59Z", false),
        ("2026-10-31T23:00:00Z", true),
        ("2026-11-01T23:59:59Z", true),
        ("2026-11-02T00:00:00Z", false),
    ] {
        assert_eq!(
            line_item.flight.covers(time.parse().expect("a time")),
            covered
        );
    }
    let creative = &book.creatives[0];
    assert_eq!(*creative.attr, [3, 16]);
    assert_eq!(creative.language.as_deref(), Some("fr"));
    assert_eq!(creative.cattax, 1);
    let adm: String = serde_json::from_str(&format!(
        "\"{}\"",
        creative.adm.as_ref().expect("markup").escaped
    ))
    .expect("JSON");
    assert_eq!(adm, "<a href='${KITH_CLICK_URL}'>x</a>${KITH_PIXEL_HTML}");
    assert_eq!(&*creative.click_url, "https://acme.example/landing?a=1&b=2");
    assert_eq!(book.advertiser_of(line_item).map(|a| &*a.id), Some("acme"));
    assert_eq!(book.creatives_of(line_item).count(), 1);
}

/// One break of the good document each: where (a JSON pointer), what is put there, and the one error.
#[test]
fn every_rule_has_its_error() {
    use serde_json::{Value, json};
    let nothing = Value::Null;
    for (pointer, value, want) in [
        ("", json!([]), "not TOML"),
        (
            "/line_items",
            json!({}),
            "line_items: expected a list, found an object",
        ),
        (
            "/line_items/0",
            json!(3),
            "line_items[0]: expected an object, found a number",
        ),
        (
            "/line_item",
            json!([]),
            "line_item: there is no key `line_item`; did you mean `line_items`?",
        ),
        (
            "/line_items/0/id",
            nothing.clone(),
            "line_items[0].id: is required",
        ),
        (
            "/line_items/0/id",
            json!(5),
            "line_items[0].id: expected a string, found a number",
        ),
        (
            "/line_items/0/id",
            json!(" li"),
            "line_items[0].id ( li): has control characters, or spaces",
        ),
        (
            "/line_items/0/id",
            json!("x".repeat(129)),
            "has over 128 bytes",
        ),
        (
            "/line_items/0/targetting",
            json!("test"),
            "line_items[0].targetting (li): there is no key `targetting`; did you mean `targeting`?",
        ),
        (
            "/line_items/0/foo",
            json!(1),
            "line_items[0].foo (li): there is no key `foo`; there are id, campaign, seat, creatives",
        ),
        (
            "/line_items/0/targeting",
            nothing.clone(),
            "line_items[0].targeting (li): is required, like \"country = 'FRA'\"",
        ),
        (
            "/line_items/0/targeting",
            json!("contry = 'FRA'"),
            "line_items[0].targeting (li): column 1: there is no attribute `contry`; did you mean `country`?",
        ),
        (
            "/line_items/0/creatives",
            nothing.clone(),
            "line_items[0].creatives (li): is required",
        ),
        (
            "/line_items/0/creatives",
            json!([]),
            "line_items[0].creatives (li): name at least one creative",
        ),
        (
            "/line_items/0/creatives",
            json!(["d"]),
            "line_items[0].creatives[0] (li): there is no creative `d`: add it under `creatives`",
        ),
        (
            "/line_items/0/creatives",
            json!(["c", "c"]),
            "line_items[0].creatives[1] (li): `c` is named twice",
        ),
        (
            "/line_items/0/creatives",
            json!(vec!["c"; 101]),
            "line_items[0].creatives (li): has 101 entries, at most 100 are taken",
        ),
        (
            "/line_items/0/price",
            nothing.clone(),
            "line_items[0].price (li): is required",
        ),
        (
            "/line_items/0/price",
            json!({}),
            "line_items[0].price.cpm (li): is required",
        ),
        (
            "/line_items/0/price/cpm",
            json!("0"),
            "line_items[0].price.cpm (li): expected a decimal over 0 and up to 1000000",
        ),
        (
            "/line_items/0/price/cpm",
            json!(-1),
            "line_items[0].price.cpm (li): expected a decimal over 0",
        ),
        (
            "/line_items/0/price/cpm",
            json!("4,20"),
            "line_items[0].price.cpm (li): expected a decimal over 0",
        ),
        (
            "/line_items/0/price/cpm",
            json!(true),
            "line_items[0].price.cpm (li): expected a decimal over 0",
        ),
        (
            "/line_items/0/price/currency",
            json!("EURO"),
            "line_items[0].price.currency (li): `EURO`: a currency is an ISO 4217 code",
        ),
        (
            "/advertisers/0/currency",
            nothing.clone(),
            "line_items[0].price.currency (li): is required, like \"EUR\", for the advertiser has none",
        ),
        (
            "/line_items/0/flight",
            json!({"start": "tomorrow"}),
            "line_items[0].flight.start (li): `tomorrow`: a time is written as RFC 3339",
        ),
        (
            "/line_items/0/flight",
            json!({"start": "2026-11-02T00:00:00Z", "end": "2026-11-02T00:00:00Z"}),
            "line_items[0].flight.end (li): is not after the start, 2026-11-02T00:00:00Z",
        ),
        (
            "/line_items/0/flight",
            json!({"from": "x"}),
            "line_items[0].flight.from (li): there is no key `from`; there are start, end",
        ),
        (
            "/line_items/0/status",
            json!("stopped"),
            "line_items[0].status (li): `stopped` is none of active, paused",
        ),
        (
            "/line_items/0/pacing",
            json!("fast"),
            "line_items[0].pacing (li): `fast` is none of even, asap, ahead",
        ),
        (
            "/line_items/0/budget",
            json!({"day": "1e3"}),
            "line_items[0].budget.day (li): expected an amount over 0",
        ),
        (
            "/line_items/0/budget",
            json!({"total": 0}),
            "line_items[0].budget.total (li): expected an amount over 0",
        ),
        (
            "/line_items/0/budget",
            json!({"daily": 1}),
            "line_items[0].budget.daily (li): there is no key `daily`",
        ),
        (
            "/line_items/0/caps",
            json!([{"count": 0, "per": "24h"}]),
            "line_items[0].caps[0].count (li): expected a whole number from 1",
        ),
        (
            "/line_items/0/caps",
            json!([{"count": 1, "per": "24 h"}]),
            "line_items[0].caps[0].per (li): expected a window like 30m, 24h or 7d",
        ),
        (
            "/line_items/0/caps",
            json!([{"count": 1}]),
            "line_items[0].caps[0].per (li): is required",
        ),
        (
            "/line_items/0/caps",
            json!([{"count": 1, "per": "367d"}]),
            "line_items[0].caps[0].per (li): expected a window",
        ),
        (
            "/line_items/0/deals",
            json!([""]),
            "line_items[0].deals[0] (li): is empty",
        ),
        (
            "/line_items/0/deals",
            json!("d"),
            "line_items[0].deals (li): expected a list, found a string",
        ),
        (
            "/creatives/0/advertiser",
            json!("acm"),
            "creatives[0].advertiser (c): there is no advertiser `acm`: add it under `advertisers`",
        ),
        (
            "/creatives/0/advertiser",
            nothing.clone(),
            "creatives[0].advertiser (c): is required",
        ),
        (
            "/creatives/0/type",
            json!("flash"),
            "creatives[0].type (c): `flash` is none of banner, video, audio, native",
        ),
        (
            "/creatives/0/type",
            nothing.clone(),
            "creatives[0].type (c): is required",
        ),
        (
            "/creatives/0/w",
            nothing.clone(),
            "creatives[0].w (c): is required, like 300",
        ),
        (
            "/creatives/0/h",
            json!("250"),
            "creatives[0].h (c): expected a whole number from 1 to 20000",
        ),
        (
            "/creatives/0/w",
            json!(300.5),
            "creatives[0].w (c): expected a whole number from 1 to 20000",
        ),
        (
            "/creatives/0/adm",
            nothing.clone(),
            "creatives[0].adm (c): is required",
        ),
        (
            "/creatives/0/adm",
            json!(" "),
            "creatives[0].adm (c): is empty",
        ),
        (
            "/creatives/0/adm",
            json!("x".repeat(300_000)),
            "creatives[0].adm (c): has over 262144 bytes",
        ),
        (
            "/creatives/0/secure",
            json!("yes"),
            "creatives[0].secure (c): expected true or false, found a string",
        ),
        (
            "/creatives/0/click_url",
            json!("acme.example"),
            "creatives[0].click_url (c): expected a URL with https://",
        ),
        (
            "/creatives/0/click_url",
            json!("https://acme.example/\"onclick"),
            "creatives[0].click_url (c): expected a URL",
        ),
        (
            "/creatives/0/click_url",
            json!("javascript:alert(1)"),
            "creatives[0].click_url (c): expected a URL",
        ),
        (
            "/creatives/0/iurl",
            json!("https:///x"),
            "creatives[0].iurl (c): expected a URL",
        ),
        (
            "/creatives/0/attr",
            json!([0]),
            "creatives[0].attr[0] (c): expected a whole number from 1",
        ),
        (
            "/creatives/0/cattax",
            json!(6),
            "creatives[0].cattax (c): is the taxonomy of `categories`: give both or neither",
        ),
        (
            "/creatives/0/language",
            json!("french"),
            "creatives[0].language (c): expected two letters",
        ),
        (
            "/advertisers/0/domain",
            nothing,
            "advertisers[0].domain (acme): is required",
        ),
        (
            "/advertisers/0/domain",
            json!("https://acme.example/"),
            "advertisers[0].domain (acme): `https://acme.example/` is no domain",
        ),
        (
            "/advertisers/0/time_zone",
            json!("Paris"),
            "advertisers[0].time_zone (acme): `Paris` is no time zone: write an IANA name",
        ),
        (
            "/advertisers/0/categories",
            json!([596]),
            "advertisers[0].categories[0] (acme): expected a string, found a number",
        ),
        (
            "/campaigns",
            json!([{"id": "x", "advertiser": "b"}]),
            "campaigns[0].advertiser (x): there is no advertiser `b`",
        ),
    ] {
        let mut document = good();
        match document.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => {
                let (parent, key) = pointer.rsplit_once('/').expect("a key");
                document.pointer_mut(parent).expect("a parent")[key] = value;
            }
        }
        let errors = shown(&json(document).expect_err(want));
        assert_eq!(errors.len(), 1, "{want}: {errors:#?}");
        assert!(errors[0].contains(want), "{}\n{want}", errors[0]);
    }
}

#[test]
fn all_errors_of_a_document_are_told_each_by_its_path() {
    let errors = json(serde_json::json!({
        "advertisers": [{"id": "a", "domain": "a.example", "time_zone": "Mars/Base"}, {"id": "b", "domain": "b.example"}, {"id": "a", "domain": "c.example"}],
        "campaigns": [{"id": "b-spring", "advertiser": "b"}],
        "creatives": [
            {"id": "ca", "advertiser": "a", "type": "banner", "w": 0, "h": 250, "adm": "x"},
            {"id": "cb", "advertiser": "b", "type": "banner", "w": 1, "h": 1, "adm": "x"}],
        "line_items": [
            {"id": "one", "creatives": ["ca", "cb"], "targeting": "hour = 'x' or weather", "price": {"cpm": 1, "currency": "EUR"}},
            {"id": "two", "creatives": ["ca"], "campaign": "b-spring", "targeting": "test", "price": {"cpm": "x", "currency": "EUR"}},
            {"creatives": []}],
    }))
    .expect_err("errors");
    let mut paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "advertisers[0].time_zone",
            "advertisers[2].id",
            "creatives[0].w",
            "line_items[0].creatives[1]",
            "line_items[0].targeting",
            "line_items[0].targeting",
            "line_items[1].campaign",
            "line_items[1].price.cpm",
            "line_items[2].id",
        ]
    );
}

#[test]
fn what_is_secure_loads_nothing_over_http() {
    for (adm, wrong) in [
        ("<img src='http://cdn.example/a.png'>", true),
        ("<img src='HTTP://cdn.example/a.png'>", true),
        (r"fetch('http:\/\/cdn.example')", true),
        ("<img src='https://cdn.example/a.png'>", false),
        ("<svg xmlns='http://www.w3.org/2000/svg'></svg>", false),
    ] {
        for secure in [true, false] {
            let mut document = good();
            document["creatives"][0]["adm"] = adm.into();
            document["creatives"][0]["secure"] = secure.into();
            assert_eq!(json(document).is_err(), wrong && secure, "{adm}");
        }
    }
}

#[test]
fn a_key_that_comes_twice_is_an_error() {
    let text = good().to_string().replacen(
        "\"targeting\":",
        "\"targeting\":\"secure\",\"targeting\":",
        1,
    );
    let errors = compile(text.as_bytes()).expect_err("twice");
    assert_eq!(
        shown(&errors),
        ["line_items[0].targeting (li): this key comes twice: keep one"]
    );
    assert!(compile(b"line_items = []\nline_items = []").is_err());
}

#[test]
fn what_is_no_document_is_told_so() {
    for (text, want) in [
        (
            &b"{\"line_items\": [}"[..],
            "not JSON: expected value at line 1 column 17",
        ),
        (b"{} {}", "not JSON: trailing characters"),
        (b"line_items = [", "not TOML"),
        (b"\xff", "not UTF-8 from byte 0"),
    ] {
        let errors = shown(&compile(text).expect_err(want));
        assert!(errors.len() == 1 && errors[0].contains(want), "{errors:?}");
    }
    let deep = format!("{{\"line_items\": {}", "[".repeat(200_000));
    assert!(compile(deep.as_bytes()).is_err());
    let deep = format!("line_items = {}", "[".repeat(200_000));
    assert!(compile(deep.as_bytes()).is_err());
}

#[test]
fn errors_are_counted_beyond_a_limit() {
    let items: Vec<_> = (0..ERRORS_MAX + 5).map(|_| serde_json::json!(1)).collect();
    let errors = json(serde_json::json!({"line_items": items})).expect_err("errors");
    assert_eq!(errors.len(), ERRORS_MAX + 1);
    assert!(errors[ERRORS_MAX].message.contains("and 5 more"));
    let keys: serde_json::Map<_, _> = (0..100_000).map(|n| (format!("k{n}"), 1.into())).collect();
    assert_eq!(json(keys.into()).expect_err("keys").len(), 1);
}

#[test]
fn toml_says_the_same_as_json() {
    let toml = r#"
        [[advertisers]]
        id = "acme"
        domain = "acme.example"
        time_zone = "Europe/Paris"
        currency = "EUR"

        [[creatives]]
        id = "c"
        advertiser = "acme"
        type = "banner"
        w = 300
        h = 250
        adm = "<a href='${KITH_CLICK_URL}'>x</a>"

        [[line_items]]
        id = "li"
        creatives = ["c"]
        targeting = "segments one of ['crm/vip']"
        price = { cpm = 4.2 }
        flight = { start = 2026-11-01T00:00:00Z, end = "2026-12-31T00:00:00Z" }
    "#;
    let book = book(toml);
    let line_item = &book.line_items[0];
    assert_eq!(line_item.pricing.base.micros(), 4_200_000);
    assert_eq!(
        line_item.flight.start,
        Some(Timestamp::from_unix_seconds(1_793_491_200))
    );
    assert!(line_item.flight.end.is_some());
    let errors = compile(toml.replace("4.2", "0").as_bytes()).expect_err("a price of 0");
    assert_eq!(errors[0].path, "line_items[0].price.cpm");
}

#[test]
fn the_order_of_the_document_does_not_matter() {
    let mut document = good();
    let mut second = document["line_items"][0].clone();
    second["id"] = "a-first".into();
    second["targeting"] = "segments one of ['z/z', 'a/a']".into();
    document["line_items"]
        .as_array_mut()
        .expect("a list")
        .push(second);
    let one = book(&document.to_string());
    document["line_items"]
        .as_array_mut()
        .expect("a list")
        .reverse();
    let other = book(&document.to_string());
    let ids = |book: &Book| -> Vec<_> {
        book.line_items
            .iter()
            .map(|li| (li.id.to_string(), li.index))
            .collect()
    };
    assert_eq!(ids(&one), [("a-first".to_owned(), 0), ("li".to_owned(), 1)]);
    assert_eq!(ids(&one), ids(&other));
    assert_eq!(one.segments, other.segments);
    assert_eq!(
        format!("{:?}", one.program.code),
        format!("{:?}", other.program.code)
    );
}

#[test]
fn warnings_tell_what_may_not_do_what_was_meant() {
    let mut document: serde_json::Value = serde_json::from_str(EXAMPLE).expect("JSON");
    let mut second = document["line_items"][0].clone();
    second["id"] = "second".into();
    second["targeting"] =
        "segments one of ['crm/vip'] and country = 'fr' and exchange in ['demo', 'exx']".into();
    second["budget"] = serde_json::Value::Null;
    second["pacing"] = serde_json::Value::Null;
    second["caps"] = serde_json::Value::Null;
    document["line_items"]
        .as_array_mut()
        .expect("a list")
        .push(second);
    document["creatives"].as_array_mut().expect("a list").push(
        serde_json::json!({"id": "v", "advertiser": "acme", "type": "video", "adm": "<VAST></VAST>",
            "duration": 15, "mimes": ["video/mp4"], "protocols": [7]}),
    );
    let book = book(&document.to_string());
    let warned = |segments: &dyn Fn(&SegmentRef) -> bool,
                  currencies: &dyn Fn(Currency) -> bool|
     -> Vec<String> {
        let surroundings = Surroundings {
            segments,
            errors: &|_| None,
            scores: &|_| false,
            currencies,
            exchanges: &["demo"],
        };
        book.warnings(&surroundings)
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let always = [
        "creatives[1].adm (v): has no <Impression>, </AdTitle> or </AdSystem>: where an exchange's `billing` is \"impression\", nothing it shows is booked",
        "creatives[1].adm (v): has no ${KITH_CLICK_URL}: its clicks will not be counted",
        "line_items[1].targeting (second): `country` is never 'fr': it is an ISO 3166 code of three capital letters, like 'FRA'",
    ];
    let exchange =
        "line_items[1].targeting (second): exchange 'exx' is not configured: there are demo";
    let all_well = warned(&|_| true, &|_| true);
    assert_eq!(all_well[..3], always);
    assert_eq!(all_well[3..], [exchange]);
    let nothing_well = warned(&|segment| segment.segment.as_str() == "cart", &|_| false);
    assert_eq!(nothing_well[..3], always);
    assert_eq!(
        nothing_well[3..],
        [
            "line_items[0].targeting (acme-vip): segment 'crm/vip' is in no live version: it counts as empty until it is uploaded (so for 2 line items)",
            "line_items[0].targeting (acme-vip): segment 'site/buyers' is in no live version: it counts as empty until it is uploaded",
            "line_items[0].price.currency (acme-vip): there is no rate for EUR: it bids only where the exchange takes EUR; add one under [currency] (so for 2 line items)",
            exchange,
        ]
    );
}

/// A list that may wrongly exclude is told of where it is wanted, and the other way round; `not` turns it.
#[test]
fn a_filter_is_told_of_where_its_errors_go_the_wrong_way() {
    use crate::audience::Errors;
    let warned = |targeting: &str, errors: Errors| -> Vec<String> {
        let mut document: serde_json::Value = serde_json::from_str(EXAMPLE).expect("JSON");
        document["line_items"][0]["targeting"] = targeting.into();
        let errors = |name: &crate::ids::Name| (name.as_str() == "list").then_some(errors);
        let surroundings = Surroundings {
            segments: &|_| true,
            errors: &errors,
            scores: &|_| false,
            currencies: &|_| true,
            exchanges: &[],
        };
        let warnings = book(&document.to_string()).warnings(&surroundings);
        let all = warnings.iter().map(|warning| warning.message.clone());
        all.filter(|message| message.contains("approximate"))
            .collect()
    };
    let (excluded, included) = (Errors::WronglyExcluded, Errors::WronglyIncluded);
    for (targeting, wants) in [
        ("segments one of ['list/a', 'crm/vip']", true),
        ("segments none of ['list/a']", false),
        ("not segments all of ['list/a'] and country = 'FRA'", false),
        ("not (segments none of ['list/a'] or test)", true),
    ] {
        let (wrong, right) = if wants {
            (excluded, included)
        } else {
            (included, excluded)
        };
        assert_eq!(warned(targeting, right), [""; 0], "{targeting}");
        let told = warned(targeting, wrong);
        let does = if wants {
            "this wants 'list/a'"
        } else {
            "this excludes 'list/a'"
        };
        assert!(
            told.len() == 1 && told[0].starts_with(does),
            "{targeting}: {told:?}"
        );
    }
    // Both at once, once each way.
    let both = "segments one of ['list/a'] or segments none of ['list/a'] and test";
    assert_eq!(
        (warned(both, excluded).len(), warned(both, included).len()),
        (1, 1)
    );
}

mod junk {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = compile(&bytes);
        }

        #[test]
        fn no_slip_in_a_document_makes_it_panic(place in 0..EXAMPLE.len(), length in 0usize..20, slip in "[\\PC\"{}\\[\\],:0-9]{0,4}") {
            let mut text = EXAMPLE.to_owned();
            let end = (place + length).min(text.len());
            if text.is_char_boundary(place) && text.is_char_boundary(end) {
                text.replace_range(place..end, &slip);
                if let Err(errors) = compile(text.as_bytes()) {
                    prop_assert!(!errors.is_empty());
                }
            }
        }
    }
}

#[test]
#[ignore = "measures and checks nothing: scripts/long-tests campaigns"]
#[allow(clippy::print_stdout)]
fn what_it_costs() {
    const LINE_ITEMS: usize = 10_000;
    let countries = ["FRA", "BEL", "DEU", "USA", "ESP"];
    let mut document = good();
    document["line_items"] = (0..LINE_ITEMS)
        .map(|n| {
            let (a, b, c) = (n % 2000, n * 7 % 2000, n * 13 % 2000);
            let targeting = format!(
                "segments one of ['d/s{a}', 'd/s{b}'] and segments none of ['d/s{c}'] and country in ['{}', 'ITA'] and device_type = 'phone'",
                countries[n % 5]
            );
            serde_json::json!({"id": format!("li{n}"), "creatives": ["c"], "targeting": targeting, "price": {"cpm": "1"}})
        })
        .collect();
    let text = document.to_string();
    // Time on the processor, so that what else the machine does is left out.
    let clock = || -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
        let first = text.split(' ').next().expect("a number");
        first.parse().expect("a number")
    };
    let start = clock();
    let book = book(&text);
    println!(
        "compile {LINE_ITEMS} line items: {} ms",
        (clock() - start) / 1_000_000
    );
    let member: Vec<u64> = (0..book.segments.len().div_ceil(64))
        .map(|n| 0x0101_0040_0000_1001u64.rotate_left(n as u32))
        .collect();
    let unreadable = vec![0; member.len()];
    let mut facts = Facts::new("demo", now());
    facts.segments = Some(SegmentFacts {
        member: &member,
        unreadable: &unreadable,
        any: None,
    });
    facts.country = Some("FRA");
    facts.device_type = Some("phone");
    let mut resolved = Resolved::default();
    const ROUNDS: u64 = 500;
    let start = clock();
    for _ in 0..ROUNDS * 100 {
        book.resolve(std::hint::black_box(&facts), &mut resolved);
    }
    println!("resolve: {} ns", (clock() - start) / ROUNDS / 100);
    let imp = ImpFacts::default();
    let mut matched = 0;
    let start = clock();
    for _ in 0..ROUNDS {
        for line_item in &book.line_items {
            matched += u64::from(book.matches(line_item, &resolved, &imp) == Some(true));
        }
    }
    println!(
        "match: {} ns each, {} of {LINE_ITEMS}",
        (clock() - start) / ROUNDS / LINE_ITEMS as u64,
        matched / ROUNDS
    );
}

#[test]
fn mistakes_in_a_dsa_are_told_by_path() {
    let with = |dsa: serde_json::Value| {
        let document = serde_json::json!({
            "advertisers": [{"id": "acme", "domain": "acme.example", "dsa": dsa}]});
        json(document).expect_err("mistakes")
    };
    let told = |dsa| -> Vec<String> {
        let errors = with(dsa);
        errors.into_iter().map(|error| error.path).collect()
    };
    assert_eq!(
        told(
            serde_json::json!({"behalf": " ", "adrender": 2, "payed": "x",
            "transparency": [{"domain": "no", "dsaparams": [0]}, 7]})
        ),
        [
            "advertisers[0].dsa.payed",
            "advertisers[0].dsa.paid",
            "advertisers[0].dsa.behalf",
            "advertisers[0].dsa.adrender",
            "advertisers[0].dsa.transparency[0].domain",
            "advertisers[0].dsa.transparency[0].dsaparams[0]",
            "advertisers[0].dsa.transparency[1]",
        ]
    );
    assert_eq!(told(serde_json::json!([])), ["advertisers[0].dsa"]);
}
