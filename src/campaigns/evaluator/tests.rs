//! The evaluator against truth tables, against an interpreter so simple that it is unlikely to be wrong, and against
//! the a-tree crate, whose language this is.

#![allow(clippy::indexing_slicing)]

use a_tree::{ATree, AttributeDefinition};
use proptest::prelude::*;
use proptest::sample::select;

use super::super::attributes::Type;
use super::super::compile;
use super::*;

const ZONE: &str = "America/St_Johns";

/// A book with one line item `it` of that targeting, in [`ZONE`], and one that names `named` segments.
fn book(targeting: &str, named: usize) -> Book {
    let names: Vec<_> = (0..named).map(|n| format!("'d/s{n:02}'")).collect();
    let others = match named {
        0 => "test".to_owned(),
        _ => format!("segments one of [{}]", names.join(",")),
    };
    let line_item = |id: &str, targeting: &str| serde_json::json!({"id": id, "creatives": ["c"], "targeting": targeting, "price": {"cpm": 1, "currency": "EUR"}});
    let document = serde_json::json!({
        "advertisers": [{"id": "a", "domain": "a.example", "time_zone": ZONE}],
        "creatives": [{"id": "c", "advertiser": "a", "type": "banner", "w": 1, "h": 1, "adm": "x"}],
        "line_items": [line_item("it", targeting), line_item("others", &others)],
    });
    compile(document.to_string().as_bytes())
        .unwrap_or_else(|errors| panic!("{targeting}: {}", errors[0]))
}

fn answer(book: &Book, facts: &Facts<'_>, imp: &ImpFacts<'_>) -> Option<bool> {
    let mut resolved = Resolved::default();
    book.resolve(facts, &mut resolved);
    let line_item = book.line_item("it").expect("the line item");
    let answer = book.matches(line_item, &resolved, imp);
    let mut candidates = Candidates::default();
    book.candidates(&resolved, &mut candidates);
    book.candidates_of_slots(&[1], &mut candidates);
    let found = candidates.of(book).any(|one| one.id == line_item.id);
    assert!(
        found || answer != Some(true),
        "the index drops one that matches"
    );
    if found {
        let left = book.candidate_matches(line_item, &resolved, imp);
        assert_eq!(
            left == Some(true),
            answer == Some(true),
            "what is left to ask"
        );
    }
    answer
}

fn facts() -> Facts<'static> {
    Facts::new("demo", Timestamp::from_unix_ms(0))
}

const WORDS: [(&str, Option<bool>); 3] = [
    ("secure", Some(true)),
    ("rewarded", Some(false)),
    ("interstitial", None),
];

#[test]
fn the_truth_tables_of_and_or_and_not_are_kleenes() {
    let imp = ImpFacts {
        secure: Some(true),
        rewarded: Some(false),
        interstitial: None,
        ..ImpFacts::default()
    };
    let (t, f, n) = (Some(true), Some(false), None);
    let rows = [
        // a, b, a and b, a or b
        (0, 0, t, t),
        (0, 1, f, t),
        (0, 2, n, t),
        (1, 0, f, t),
        (1, 1, f, f),
        (1, 2, f, n),
        (2, 0, n, t),
        (2, 1, f, n),
        (2, 2, n, n),
    ];
    for (a, b, and, or) in rows {
        let (a, b) = (WORDS[a].0, WORDS[b].0);
        for (text, want) in [(format!("{a} and {b}"), and), (format!("{a} or {b}"), or)] {
            assert_eq!(answer(&book(&text, 0), &facts(), &imp), want, "{text}");
        }
    }
    for (word, value) in WORDS {
        let got = |text: &str| answer(&book(text, 0), &facts(), &imp);
        assert_eq!(got(&format!("not {word}")), value.map(|v| !v), "{word}");
        assert_eq!(got(&format!("{word} is null")), Some(value.is_none()));
        assert_eq!(got(&format!("{word} is not null")), Some(value.is_some()));
    }
}

#[test]
fn every_test_of_a_null_attribute_is_null() {
    for text in [
        "country = 'FRA'",
        "country <> 'FRA'",
        "country in ['FRA','BEL']",
        "country not in ['FRA','BEL']",
        "user_age > 18",
        "user_age <> 18",
        "user_age in [1,2]",
        "width not in [1,2]",
        "floor < 1",
        "floor <> 1",
        "format <> 'video'",
        "secure",
        "not secure",
        "user_keywords one of ['a']",
        "user_keywords none of ['a']",
        "user_keywords all of ['a']",
        "user_keywords is empty",
        "user_keywords is not empty",
        "segments one of ['d/s']",
        "segments none of ['d/s']",
        "segments all of ['d/s']",
        "segments is empty",
    ] {
        let book = book(text, 0);
        assert_eq!(
            answer(&book, &facts(), &ImpFacts::default()),
            None,
            "{text}"
        );
    }
}

#[test]
fn what_is_never_null_answers_when_nothing_is_known() {
    for (text, want) in [
        ("categories is empty", true),
        ("categories is null", false),
        ("keywords none of ['a']", true),
        ("deals one of ['a']", false),
        ("deals is empty", true),
        ("deals is null", false),
        ("exchange = 'demo'", true),
        ("test", false),
        ("segments is null", true),
        ("request_segments is null", true),
        ("floor is null and width is null and format is null", true),
        // 1970-01-01 00:00 UTC was Wednesday, 20:30, in Newfoundland.
        ("hour = 20 and weekday = 3", true),
    ] {
        for deals in [None, Some(&Deals::default())] {
            let imp = ImpFacts {
                deals,
                ..ImpFacts::default()
            };
            assert_eq!(answer(&book(text, 0), &facts(), &imp), Some(want), "{text}");
        }
    }
}

#[test]
fn a_segment_can_be_null_by_itself() {
    // Slots: d/in 0, d/null 1, d/out 2.
    let (t, f, n) = (Some(true), Some(false), None);
    for (list, one, all) in [
        ("'d/in'", t, t),
        ("'d/out'", f, f),
        ("'d/null'", n, n),
        ("'d/in','d/out'", t, f),
        ("'d/in','d/null'", t, n),
        ("'d/null','d/out'", n, f),
        ("'d/in','d/null','d/out'", t, f),
    ] {
        for (operator, want) in [
            ("one of", one),
            ("none of", one.map(|v| !v)),
            ("all of", all),
        ] {
            let text = format!(
                "segments {operator} [{list}] and not (test and segments one of ['d/in','d/null','d/out'])"
            );
            let segments = |member, unreadable| {
                Some(SegmentFacts {
                    member,
                    unreadable,
                    any: None,
                })
            };
            let mut facts = facts();
            // A member bit of an unreadable segment says nothing.
            for member in [&[0b001], &[0b011]] {
                facts.segments = segments(member, &[0b010]);
                let got = answer(&book(&text, 0), &facts, &ImpFacts::default());
                assert_eq!(got, want, "{text}");
            }
            facts.segments = segments(&[], &[]);
            let got = answer(&book(&text, 0), &facts, &ImpFacts::default());
            assert_eq!(got, None, "sets that are too short say nothing: {text}");
        }
    }
}

#[test]
fn is_empty_of_segments_takes_the_word_of_whoever_looked() {
    let book = book("segments is empty", 2);
    for (member, unreadable, any, want) in [
        (0b00, 0b00, Some(false), Some(true)),
        (0b00, 0b00, Some(true), Some(false)),
        (0b00, 0b00, None, None),
        (0b01, 0b00, None, Some(false)),
        (0b01, 0b01, None, None),
    ] {
        let (member, unreadable) = ([member], [unreadable]);
        let mut facts = facts();
        facts.segments = Some(SegmentFacts {
            member: &member,
            unreadable: &unreadable,
            any,
        });
        assert_eq!(answer(&book, &facts, &ImpFacts::default()), want);
    }
}

#[test]
fn the_deepest_expression_keeps_all_its_open_answers() {
    // Each level leaves a false before an `or` and a true before an `and` open; the innermost word decides.
    let levels = super::super::NESTING_MAX;
    for (word, want) in WORDS {
        let text = format!(
            "{}rewarded or secure and {word}{}",
            "rewarded or secure and (".repeat(levels),
            ")".repeat(levels)
        );
        let imp = ImpFacts {
            secure: Some(true),
            rewarded: Some(false),
            ..ImpFacts::default()
        };
        assert_eq!(answer(&book(&text, 0), &facts(), &imp), want, "{text}");
    }
}

#[test]
fn scratch_keeps_nothing_of_the_request_before() {
    let book = book(
        "segments one of ['d/a'] or country = 'FRA' or user_keywords one of ['x'] or user_age = 5 or test or hour = 20",
        0,
    );
    let line_item = book.line_item("it").expect("the line item");
    let mut resolved = Resolved::default();
    let mut full = facts();
    full.segments = Some(SegmentFacts {
        member: &[1],
        unreadable: &[0],
        any: Some(true),
    });
    full.country = Some("FRA");
    full.user_keywords = Some(&["x"]);
    full.user_age = Some(5);
    full.test = true;
    book.resolve(&full, &mut resolved);
    let imp = ImpFacts::default();
    assert_eq!(book.matches(line_item, &resolved, &imp), Some(true));
    book.resolve(
        &Facts::new("demo", Timestamp::from_unix_seconds(7200)),
        &mut resolved,
    );
    assert_eq!(book.matches(line_item, &resolved, &imp), None);
    // Nor does it matter for which book it was filled.
    let other = super::Book::empty();
    other.resolve(&full, &mut resolved);
    let _ = book.matches(line_item, &resolved, &imp);
}

#[test]
fn an_expression_says_what_it_reads() {
    for (text, person, size, floor) in [
        ("country = 'FRA'", false, false, false),
        ("not (test or segments is null)", true, false, false),
        ("width = 300", false, true, false),
        (
            "user_age > 18 and height > 1 and floor < 2",
            true,
            true,
            true,
        ),
    ] {
        let book = book(text, 3);
        let expression = &book.line_item("it").expect("the line item").expression;
        assert_eq!(expression.depends_on_person(), person, "{text}");
        assert_eq!(expression.reads_size(), size, "{text}");
        assert_eq!(expression.reads_floor(), floor, "{text}");
        assert!(book.reads(Attribute::Segments));
    }
}

// ---- random expressions over random requests ----

/// Segments named: over 64, so that sets have two words.
const SEGMENTS: usize = 70;
/// The a-tree crate cannot read every string with quotes or backslashes: those are the parser's tests.
const VALUES: [&str; 4] = ["a", "b and (c", "00e9", "never named"];

#[derive(Debug, Clone)]
enum Tree {
    And(Vec<Tree>),
    Or(Vec<Tree>),
    Not(Box<Tree>),
    Leaf(Leaf),
}

#[derive(Debug, Clone)]
enum Leaf {
    Bool(Attribute),
    Text(Attribute, bool, &'static str),
    TextIn(Attribute, bool, Vec<&'static str>),
    Integer(Attribute, &'static str, i64),
    IntegerIn(Attribute, bool, Vec<i64>),
    Floor(&'static str, i64),
    Texts(Attribute, &'static str, Vec<&'static str>),
    Segments(&'static str, Vec<usize>),
    Null(Attribute, bool),
    Empty(Attribute, bool),
}

/// What is known, by attribute.
#[derive(Debug, Clone)]
struct World {
    texts: Vec<Option<&'static str>>,
    lists: Vec<Option<Vec<&'static str>>>,
    integers: Vec<Option<i64>>,
    booleans: Vec<Option<bool>>,
    format: Option<Format>,
    floor: Option<i64>,
    now_ms: i64,
    /// Members, unreadable ones, and whether any.
    segments: Option<(Vec<bool>, Vec<bool>, Option<bool>)>,
}

fn of(kind: Type) -> Vec<Attribute> {
    Attribute::all().filter(|a| a.kind() == kind).collect()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn list_of<T>(values: &[T], show: impl Fn(&T) -> String) -> String {
    let shown: Vec<_> = values.iter().map(show).collect();
    format!("[{}]", shown.join(", "))
}

impl Leaf {
    /// As text; `atree` in the dialect of the a-tree crate, where `all of` asks whether the attribute's values are all
    /// in the list.
    fn show(&self, atree: bool) -> String {
        let quote = |text: &&str| {
            if atree {
                format!("\"{text}\"")
            } else {
                quoted(text)
            }
        };
        let segment = |n: &usize| format!("'d/s{n:02}'");
        let not = |negated: &bool| if *negated { "not " } else { "" };
        let lists = |attribute: Attribute, operator: &str, values: Vec<String>| {
            let name = attribute.name();
            if atree && operator == "all of" {
                let each: Vec<_> = values
                    .iter()
                    .map(|v| format!("{name} one of [{v}]"))
                    .collect();
                return format!("({})", each.join(" and "));
            }
            format!("{name} {operator} [{}]", values.join(", "))
        };
        match self {
            Leaf::Bool(a) => a.name().to_owned(),
            Leaf::Text(a, negated, value) => {
                let operator = if *negated { "<>" } else { "=" };
                format!("{} {operator} {}", a.name(), quote(value))
            }
            Leaf::TextIn(a, negated, values) => {
                format!("{} {}in {}", a.name(), not(negated), list_of(values, quote))
            }
            Leaf::Integer(a, operator, value) => format!("{} {operator} {value}", a.name()),
            Leaf::IntegerIn(a, negated, values) => {
                let values = list_of(values, ToString::to_string);
                format!("{} {}in {values}", a.name(), not(negated))
            }
            Leaf::Floor(operator, micros) => {
                format!(
                    "floor {operator} {}.{:06}",
                    micros / 1_000_000,
                    micros % 1_000_000
                )
            }
            Leaf::Texts(a, operator, values) => {
                lists(*a, operator, values.iter().map(quote).collect())
            }
            Leaf::Segments(operator, values) => lists(
                Attribute::Segments,
                operator,
                values.iter().map(segment).collect(),
            ),
            Leaf::Null(a, negated) => format!("{} is {}null", a.name(), not(negated)),
            Leaf::Empty(a, negated) => format!("{} is {}empty", a.name(), not(negated)),
        }
    }

    fn interpret(&self, world: &World) -> Option<bool> {
        let compare = |operator: &str, a: i64, b: i64| match operator {
            "=" => a == b,
            "<>" => a != b,
            "<" => a < b,
            "<=" => a <= b,
            ">" => a > b,
            _ => a >= b,
        };
        let quantity = |operator: &str, members: Vec<Option<bool>>| match operator {
            "one of" => any(members),
            "none of" => any(members).map(|v| !v),
            _ => all(members),
        };
        match self {
            Leaf::Bool(a) => world.boolean(*a),
            Leaf::Text(a, negated, value) => world.text(*a).map(|v| (v == *value) != *negated),
            Leaf::TextIn(a, negated, values) => {
                world.text(*a).map(|v| values.contains(&v) != *negated)
            }
            Leaf::Integer(a, operator, value) => {
                world.integer(*a).map(|v| compare(operator, v, *value))
            }
            Leaf::IntegerIn(a, negated, values) => {
                world.integer(*a).map(|v| values.contains(&v) != *negated)
            }
            Leaf::Floor(operator, micros) => world.floor.map(|v| compare(operator, v, *micros)),
            Leaf::Texts(a, operator, values) => {
                let list = world.list(*a)?;
                let members = values.iter().map(|v| Some(list.contains(v))).collect();
                quantity(operator, members)
            }
            Leaf::Segments(operator, values) => {
                let (member, unreadable, _) = world.segments.as_ref()?;
                let one = |n: &usize| (!unreadable[*n]).then_some(member[*n]);
                quantity(operator, values.iter().map(one).collect())
            }
            Leaf::Null(a, negated) => {
                let null = match a.kind() {
                    Type::Text => world.text(*a).is_none(),
                    Type::Texts => world.list(*a).is_none(),
                    Type::Segments => world.segments.is_none(),
                    Type::Integer => world.integer(*a).is_none(),
                    Type::Decimal => world.floor.is_none(),
                    Type::Boolean => world.boolean(*a).is_none(),
                };
                Some(null != *negated)
            }
            Leaf::Empty(Attribute::Segments, negated) => {
                let (member, unreadable, any) = world.segments.as_ref()?;
                let seen = member.iter().zip(unreadable).any(|(m, u)| *m && !*u);
                let empty = if seen {
                    Some(false)
                } else {
                    any.map(|any| !any)
                };
                empty.map(|empty| empty != *negated)
            }
            Leaf::Empty(a, negated) => world.list(*a).map(|l| l.is_empty() != *negated),
        }
    }
}

fn all(parts: Vec<Option<bool>>) -> Option<bool> {
    if parts.contains(&Some(false)) {
        Some(false)
    } else if parts.contains(&None) {
        None
    } else {
        Some(true)
    }
}

fn any(parts: Vec<Option<bool>>) -> Option<bool> {
    let negated = parts.into_iter().map(|part| part.map(|v| !v)).collect();
    all(negated).map(|v| !v)
}

impl Tree {
    fn show(&self, atree: bool) -> String {
        let join = |parts: &[Tree], word: &str, wraps: fn(&Tree) -> bool| {
            let shown: Vec<_> = parts
                .iter()
                .map(|part| match part.show(atree) {
                    text if wraps(part) => format!("({text})"),
                    text => text,
                })
                .collect();
            shown.join(word)
        };
        match self {
            Tree::And(parts) => join(parts, " and ", |part| matches!(part, Tree::Or(_))),
            Tree::Or(parts) => join(parts, " or ", |_| false),
            Tree::Not(inner) => match **inner {
                Tree::And(_) | Tree::Or(_) => format!("not ({})", inner.show(atree)),
                // Its lexer reads `not interstitial` as `not in` and `terstitial`.
                _ if atree => format!("not ({})", inner.show(atree)),
                _ => format!("not {}", inner.show(atree)),
            },
            Tree::Leaf(leaf) => leaf.show(atree),
        }
    }

    fn interpret(&self, world: &World) -> Option<bool> {
        let each = |parts: &[Tree]| parts.iter().map(|part| part.interpret(world)).collect();
        match self {
            Tree::And(parts) => all(each(parts)),
            Tree::Or(parts) => any(each(parts)),
            Tree::Not(inner) => inner.interpret(world).map(|v| !v),
            Tree::Leaf(leaf) => leaf.interpret(world),
        }
    }
}

impl World {
    fn text(&self, attribute: Attribute) -> Option<&'static str> {
        match attribute {
            Attribute::Format => self.format.map(Format::as_str),
            Attribute::Exchange => Some(self.texts[attribute as usize].unwrap_or("demo")),
            other => self.texts[other as usize],
        }
    }

    fn list(&self, attribute: Attribute) -> Option<&[&'static str]> {
        let list = self.lists[attribute as usize - TEXTS].as_deref();
        let never_null = !matches!(
            attribute,
            Attribute::RequestSegments | Attribute::UserKeywords
        );
        if never_null {
            Some(list.unwrap_or(&[]))
        } else {
            list
        }
    }

    fn integer(&self, attribute: Attribute) -> Option<i64> {
        let there = jiff::Timestamp::from_millisecond(self.now_ms)
            .expect("a time")
            .in_tz(ZONE)
            .expect("a zone");
        match attribute {
            Attribute::Hour => Some(i64::from(there.hour())),
            Attribute::Weekday => Some(i64::from(there.weekday().to_monday_one_offset())),
            other => self.integers[other as usize % self.integers.len()],
        }
    }

    fn boolean(&self, attribute: Attribute) -> Option<bool> {
        let value = self.booleans[attribute as usize % self.booleans.len()];
        if attribute == Attribute::Test {
            Some(value == Some(true))
        } else {
            value
        }
    }

    fn evaluate(&self, book: &Book) -> Option<bool> {
        let words = |bits: &[bool]| {
            let mut words = vec![0u64; bits.len().div_ceil(64)];
            for (n, bit) in bits.iter().enumerate() {
                words[n / 64] |= u64::from(*bit) << (n % 64);
            }
            words
        };
        let sets = self
            .segments
            .as_ref()
            .map(|(member, unreadable, any)| (words(member), words(unreadable), *any));
        let facts = Facts {
            segments: sets.as_ref().map(|(member, unreadable, any)| SegmentFacts {
                member,
                unreadable,
                any: *any,
            }),
            request_segments: self.list(Attribute::RequestSegments),
            user_age: self.integer(Attribute::UserAge),
            user_gender: self.text(Attribute::UserGender),
            user_keywords: self.list(Attribute::UserKeywords),
            country: self.text(Attribute::Country),
            region: self.text(Attribute::Region),
            city: self.text(Attribute::City),
            metro: self.text(Attribute::Metro),
            zip: self.text(Attribute::Zip),
            device_type: self.text(Attribute::DeviceType),
            os: self.text(Attribute::Os),
            os_version: self.text(Attribute::OsVersion),
            browser: self.text(Attribute::Browser),
            language: self.text(Attribute::Language),
            connection: self.text(Attribute::Connection),
            carrier: self.text(Attribute::Carrier),
            site_domain: self.text(Attribute::SiteDomain),
            app_bundle: self.text(Attribute::AppBundle),
            publisher: self.text(Attribute::Publisher),
            categories: self.list(Attribute::Categories).unwrap_or(&[]),
            keywords: self.list(Attribute::Keywords).unwrap_or(&[]),
            exchange: self.text(Attribute::Exchange).unwrap_or(""),
            now: Timestamp::from_unix_ms(self.now_ms),
            test: self.boolean(Attribute::Test) == Some(true),
        };
        let mut deals = Deals::default();
        book.resolve_deals(self.list(Attribute::Deals).unwrap_or(&[]), &mut deals);
        let imp = ImpFacts {
            format: self.format,
            width: self.integer(Attribute::Width),
            height: self.integer(Attribute::Height),
            position: self.integer(Attribute::Position),
            interstitial: self.boolean(Attribute::Interstitial),
            rewarded: self.boolean(Attribute::Rewarded),
            secure: self.boolean(Attribute::Secure),
            floor: self.floor.and_then(Price::from_micros),
            deals: Some(&deals),
        };
        answer(book, &facts, &imp)
    }

    /// What the a-tree crate says: whether it matches.
    fn atree(&self, tree: &Tree) -> bool {
        let definitions: Vec<_> = Attribute::all()
            .map(|a| match a.kind() {
                Type::Text => AttributeDefinition::string(a.name()),
                Type::Texts | Type::Segments => AttributeDefinition::string_list(a.name()),
                Type::Integer => AttributeDefinition::integer(a.name()),
                Type::Decimal => AttributeDefinition::float(a.name()),
                Type::Boolean => AttributeDefinition::boolean(a.name()),
            })
            .collect();
        let mut oracle = ATree::<u64>::new(&definitions).expect("distinct names");
        let text = tree.show(true);
        oracle
            .insert(&1, &text)
            .unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let mut event = oracle.make_event();
        for a in Attribute::all() {
            let added = match a.kind() {
                Type::Text => self.text(a).map(|v| event.with_string(a.name(), v)),
                Type::Texts => self.list(a).map(|v| event.with_string_list(a.name(), v)),
                Type::Integer => self.integer(a).map(|v| event.with_integer(a.name(), v)),
                Type::Decimal => self.floor.map(|v| event.with_float(a.name(), v, 6)),
                Type::Boolean => self.boolean(a).map(|v| event.with_boolean(a.name(), v)),
                Type::Segments => self.segments.as_ref().map(|(member, _, _)| {
                    let names: Vec<_> = (0..SEGMENTS)
                        .filter(|n| member[*n])
                        .map(|n| format!("d/s{n:02}"))
                        .collect();
                    let names: Vec<_> = names.iter().map(String::as_str).collect();
                    event.with_string_list(a.name(), &names)
                }),
            };
            added.unwrap_or(Ok(())).expect("a value of its type");
        }
        let event = event.build().expect("an event");
        let report = oracle.search(&event).expect("an answer");
        !report.matches().is_empty()
    }
}

fn leaf(atree: bool) -> impl Strategy<Value = Leaf> {
    let named = || select(&VALUES[..3]);
    let some = || proptest::collection::vec(select(&VALUES[..3]), 1..4);
    let number = || select(vec![-1i64, 0, 1, 2, 11, 12, 20, i64::MAX]);
    let numbers = || proptest::collection::vec(select(vec![0i64, 1, 2, 11, 12, 20]), 1..4);
    let comparison = || select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let quantity = || select(vec!["one of", "none of", "all of"]);
    let lists = || {
        let mut lists = of(Type::Texts);
        lists.extend(of(Type::Segments));
        select(lists)
    };
    let nullable: Vec<_> = Attribute::all()
        .filter(|a| !(atree && matches!(a.kind(), Type::Texts | Type::Segments)))
        .collect();
    prop_oneof![
        select(of(Type::Boolean)).prop_map(Leaf::Bool),
        (select(of(Type::Text)), any_bool(), named()).prop_map(|(a, n, v)| Leaf::Text(a, n, v)),
        (select(of(Type::Text)), any_bool(), some()).prop_map(|(a, n, v)| Leaf::TextIn(a, n, v)),
        (select(of(Type::Integer)), comparison(), number())
            .prop_map(|(a, o, v)| Leaf::Integer(a, o, v)),
        (select(of(Type::Integer)), any_bool(), numbers())
            .prop_map(|(a, n, v)| Leaf::IntegerIn(a, n, v)),
        (comparison(), select(vec![0, 1, 999_999, 1_500_000])).prop_map(|(o, v)| Leaf::Floor(o, v)),
        (select(of(Type::Texts)), quantity(), some()).prop_map(|(a, o, v)| Leaf::Texts(a, o, v)),
        (
            quantity(),
            proptest::collection::vec(select(vec![0, 1, 2, 63, 64, 69]), 1..4)
        )
            .prop_map(|(o, v)| Leaf::Segments(o, v)),
        (select(nullable), any_bool()).prop_map(|(a, n)| Leaf::Null(a, n)),
        (lists(), any_bool()).prop_map(|(a, n)| Leaf::Empty(a, n)),
    ]
}

fn any_bool() -> impl Strategy<Value = bool> {
    proptest::bool::ANY
}

fn tree(atree: bool) -> impl Strategy<Value = Tree> {
    leaf(atree)
        .prop_map(Tree::Leaf)
        .prop_recursive(4, 24, 4, |inner| {
            let parts = proptest::collection::vec(inner.clone(), 2..4);
            prop_oneof![
                parts.clone().prop_map(Tree::And),
                parts.prop_map(Tree::Or),
                inner.prop_map(|inner| Tree::Not(Box::new(inner))),
            ]
        })
}

fn world(atree: bool) -> impl Strategy<Value = World> {
    let bits = || proptest::collection::vec(any_bool(), SEGMENTS);
    let unreadable = if atree {
        Just(vec![false; SEGMENTS]).boxed()
    } else {
        bits().boxed()
    };
    let segments = (bits(), unreadable, proptest::option::of(any_bool())).prop_map(
        move |(member, unreadable, any)| {
            let known = member.contains(&true);
            (member, unreadable, if atree { Some(known) } else { any })
        },
    );
    (
        proptest::collection::vec(proptest::option::weighted(0.8, select(&VALUES[..])), TEXTS),
        proptest::collection::vec(
            proptest::option::weighted(0.8, proptest::collection::vec(select(&VALUES[..]), 0..4)),
            LISTS + 1,
        ),
        proptest::collection::vec(
            proptest::option::weighted(0.8, select(vec![0i64, 1, 2, 3])),
            5,
        ),
        proptest::collection::vec(proptest::option::weighted(0.8, any_bool()), 3),
        proptest::option::of(select(&Format::ALL[..])),
        proptest::option::of(select(vec![0i64, 1, 999_999, 1_500_000])),
        0i64..4_000_000_000_000,
        proptest::option::weighted(0.8, segments),
    )
        .prop_map(
            |(texts, lists, integers, booleans, format, floor, now_ms, segments)| World {
                texts,
                lists,
                integers,
                booleans,
                format,
                floor,
                now_ms,
                segments,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn it_answers_as_the_naive_interpreter(tree in tree(false), worlds in proptest::collection::vec(world(false), 4)) {
        let text = tree.show(false);
        let book = book(&text, SEGMENTS);
        for world in worlds {
            prop_assert_eq!(world.evaluate(&book), tree.interpret(&world), "{}", text);
        }
    }

    #[test]
    fn it_matches_as_the_a_tree_crate(tree in tree(true), worlds in proptest::collection::vec(world(true), 4)) {
        let text = tree.show(false);
        let book = book(&text, SEGMENTS);
        for world in worlds {
            let matched = world.evaluate(&book) == Some(true);
            prop_assert_eq!(matched, world.atree(&tree), "{} | {}", text, tree.show(true));
        }
    }
}
