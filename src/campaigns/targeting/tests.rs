use super::*;
use proptest::prelude::*;

fn expr(text: &str) -> Expr {
    match parse(text) {
        Ok(parsed) => parsed.expr,
        Err(mistakes) => panic!("{text}: {}", mistakes[0]),
    }
}

#[test]
fn mistakes_are_told_with_their_column_and_what_to_do() {
    const TEXT: &str = "`country` is a string: use =, <>, in or not in with strings in quotes";
    const INTEGER: &str =
        "`hour` is a whole number: use =, <>, <, <=, >, >=, in or not in with whole numbers";
    const NEXT: &str = "expected `and` or `or`, an operator (=, <>, <, <=, >, >=, in, not in, one of, none of, all of, is null, is empty), the end";
    for (text, want) in [
        (
            "",
            "column 1: the expression is empty: write what the line item wants, such as country = 'FRA'",
        ),
        (
            "contry = 'FRA'",
            "column 1: there is no attribute `contry`; did you mean `country`?",
        ),
        (
            "weather = 'rain'",
            "column 1: there is no attribute `weather`; docs/targeting.md lists them",
        ),
        ("country = FRA", "column 11: put strings in quotes: 'FRA'"),
        (
            "country == 'FRA'",
            "column 10: write a single = for `equal`",
        ),
        ("country != 'FRA'", "column 9: write <> for `not equal`"),
        (
            "country = 'FRA' AND test",
            "column 17: keywords are in lower case: write `and`",
        ),
        (
            "country = 'FRA",
            "column 11: the string that opens here is never closed: end it with '",
        ),
        (
            "country = \u{2018}FRA\u{2019}",
            "column 11: write straight quotes, ' or \"",
        ),
        (
            "country in 'FRA'",
            "column 12: expected a list in brackets, like ['a', 'b']",
        ),
        (
            "country in []",
            "column 12: the list is empty: name at least one value",
        ),
        (
            "country in ['FRA',]",
            "column 19: did not expect `]`; expected a string or a number",
        ),
        ("country in ['FRA', 3]", &format!("column 20: {TEXT}")),
        ("country one of ['FRA']", &format!("column 9: {TEXT}")),
        ("country", &format!("column 1: {TEXT}")),
        ("country = 3", &format!("column 11: {TEXT}")),
        ("country < 'FRA'", &format!("column 11: {TEXT}")),
        ("hour = 'ten'", &format!("column 8: {INTEGER}")),
        ("hour > 1.5", &format!("column 8: {INTEGER}")),
        ("1.5 < hour", &format!("column 1: {INTEGER}")),
        (
            "hour = 99999999999999999999",
            "column 8: 99999999999999999999 is out of the range of whole numbers",
        ),
        (
            "hour is empty",
            "column 6: `hour` is no list: ask `is null` or `is not null`",
        ),
        (
            "test = true",
            "column 8: `test` is true or false: write it alone, or with `not` before it",
        ),
        (
            "test and",
            "column 9: the expression ends here; expected an attribute",
        ),
        (
            "test or or secure",
            "column 9: did not expect `or`; expected an attribute",
        ),
        ("(test", "column 6: a ( is never closed"),
        ("test)", "column 5: this ) closes nothing"),
        (
            "test secure",
            &format!("column 6: did not expect `secure`; {NEXT}"),
        ),
        (
            "site_domain 'x'",
            &format!("column 13: did not expect `'x'`; {NEXT}"),
        ),
        ("segments any of ['crm/vip']", "column 10: write `one of`"),
        (
            "segments one of ['vip']",
            "column 18: 'vip' names no segment: a segment is written dataset/segment, each 1 to 64 of a-z A-Z 0-9 . _ -",
        ),
        (
            "segments = 'crm/vip'",
            "column 12: `segments` is a list of segments: use one of, none of or all of with segments like 'crm/vip'",
        ),
        (
            "categories in ['a']",
            "column 12: `categories` is a list of strings: use one of, none of or all of with strings in quotes",
        ),
        (
            "floor one of [1.0]",
            "column 7: `floor` is a decimal number: use =, <>, <, <=, > or >= with a number",
        ),
        (
            r"country = 'a\b'",
            r"column 11: write \\ for a backslash in a string",
        ),
    ] {
        let mistakes = parse(text).expect_err(text);
        assert_eq!(mistakes[0].to_string(), want, "{text}");
    }
}

#[test]
fn all_mistakes_of_type_are_told_at_once() {
    let mistakes =
        parse("test and\n  contry = 'FRA' and (hour = 'x' or not secure = 1)").expect_err("three");
    let lines: Vec<_> = mistakes.iter().map(|m| (m.line, m.column)).collect();
    assert_eq!(lines, [(2, 3), (2, 30), (2, 50)]);
    let many = format!("country in [{}]", vec!["1"; 10_000].join(","));
    assert_eq!(parse(&many).expect_err("wrong").len(), MISTAKES_MAX);
}

#[test]
fn and_binds_tighter_than_or_and_not_tightest() {
    let a = || Expr::Test(Test::True(Attribute::Test));
    let b = || Expr::Test(Test::True(Attribute::Secure));
    for (text, want) in [
        (
            "test or secure and test",
            Expr::Or(vec![a(), Expr::And(vec![b(), a()])]),
        ),
        ("not test and secure", Expr::And(vec![negate(a()), b()])),
        ("not (test or secure)", negate(Expr::Or(vec![a(), b()]))),
        ("not not test", a()),
        ("not not not (test)", negate(a())),
        (
            "!test && (secure || test)",
            Expr::And(vec![negate(a()), Expr::Or(vec![b(), a()])]),
        ),
    ] {
        assert_eq!(expr(text), want, "{text}");
    }
}

#[test]
fn what_can_be_written_in_two_ways_is_the_same() {
    for (one, other) in [
        (
            "country in ['FRA', 'BEL']",
            "country in (\"BEL\",'FRA','BEL')",
        ),
        ("country in ['FRA']", "country = 'FRA'"),
        ("country not in ['FRA']", "country <> 'FRA'"),
        ("country\tnot\n in ['FRA']", "not country = 'FRA'"),
        ("5 < hour", "hour > 5"),
        ("5 >= hour", "hour<=5"),
        ("'FRA' = country", "country='FRA'"),
        ("keywords none of ['a']", "not keywords one of ['a']"),
        ("country is not null", "not country is null"),
        ("deals is   not\nempty", "not deals is empty"),
        ("floor >= 1", "floor >= 1.000"),
        ("floor = 1.0000001", "floor = -1"),
        (r"city = 'L\'Isle'", "city = \"L'Isle\""),
    ] {
        assert_eq!(expr(one), expr(other), "{one} | {other}");
    }
    assert_eq!(
        expr(r"city = 'a\\b'"),
        Expr::Test(Test::TextIn(Attribute::City, vec![r"a\b".into()]))
    );
}

#[test]
fn what_can_never_be_true_is_doubted() {
    for (text, doubts) in [
        ("country = 'FR'", 1),
        ("country in ['fra', 'FRA', 'France']", 2),
        ("format = 'bannner'", 1),
        ("hour in [23, 24]", 1),
        ("weekday = 0", 1),
        (
            "device_type = 'phone' and connection = 'wifi' and user_gender = 'F'",
            0,
        ),
        ("device_type = 'iphone'", 1),
    ] {
        let parsed = parse(text).expect(text);
        assert_eq!(parsed.doubts.len(), doubts, "{text}: {:?}", parsed.doubts);
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |depth| format!("{}test{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(NESTING_MAX)).is_ok());
    for depth in [NESTING_MAX + 1, 100_000] {
        let mistakes = parse(&nested(depth)).expect_err("too deep");
        assert_eq!(mistakes[0].column, NESTING_MAX + 1);
    }
    assert!(parse(&"(".repeat(100_000)).is_err());
    assert!(parse(&format!("city = '{}'", "(".repeat(100_000))).is_ok());
    let nots = format!("{}test", "not ".repeat(50_001));
    assert_eq!(expr(&nots), negate(Expr::Test(Test::True(Attribute::Test))));
    let chain = vec!["test"; 20_000].join(" and ");
    assert!(matches!(expr(&chain), Expr::And(parts) if parts.len() == 20_000));
    let long = format!("city = '{}'", "x".repeat(EXPRESSION_BYTES_MAX));
    assert!(
        parse(&long).expect_err("too long")[0]
            .message
            .contains("split it")
    );
}

#[test]
fn a_floor_is_compared_with_any_decimal_exactly() {
    let literals = [
        "-1",
        "-0.0000001",
        "-0",
        "0",
        "0.0000001",
        "0.000001",
        "0.0000019",
        "1",
        "1.5",
        "1.500001",
        "1000000",
        "1000000.0000001",
        "99999999999999999999999.5",
    ];
    // In ten-millionths, wide enough for all of the above.
    let exact = |text: &str| {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let magnitude: i128 = format!("{}{fraction:0<7}", whole.trim_start_matches('-'))
            .parse()
            .expect("digits");
        if text.starts_with('-') {
            -magnitude
        } else {
            magnitude
        }
    };
    for literal in literals {
        for micros in [
            0,
            1,
            2,
            999_999,
            1_000_000,
            1_500_000,
            1_500_001,
            PRICE_MICROS_MAX,
        ] {
            let (price, value) = (i128::from(micros) * 10, exact(literal));
            for (compare, want) in [
                (Compare::Equal, price == value),
                (Compare::Less, price < value),
                (Compare::AtMost, price <= value),
                (Compare::More, price > value),
                (Compare::AtLeast, price >= value),
            ] {
                let (compiled, bound) = floor(compare, literal);
                let got = match compiled {
                    Compare::Equal => micros == bound,
                    Compare::Less => micros < bound,
                    Compare::AtMost => micros <= bound,
                    Compare::More => micros > bound,
                    Compare::AtLeast => micros >= bound,
                };
                assert_eq!(got, want, "{micros} {compare:?} {literal}");
            }
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn nothing_like_an_expression_makes_it_panic(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "country", "hour", "segments", "test", "floor", "=", "<>", "<", "in", "not", "one", "of", "is", "null",
                "empty", "and", "or", "(", ")", "[", "]", ",", "'a'", "'d/s'", "5", "-1.5", "'", "\"", "\\", "!", "é", "\n",
            ]),
            0..12,
        ),
        glue in proptest::sample::select(vec!["", " "]),
    ) {
        if let Err(mistakes) = parse(&parts.join(glue)) {
            prop_assert!(!mistakes.is_empty());
        }
    }
}
