use super::*;
use crate::money::{Price, Round};
use proptest::prelude::*;

fn accepts(text: &str) -> bool {
    let arena = Bump::new();
    let mut cursor = Cursor::new(text, &arena);
    cursor.value().is_ok() && cursor.end().is_ok()
}

/// The same verdict through the walking methods, which the reader uses for what it knows.
fn walks(text: &str) -> bool {
    fn walk(cursor: &mut Cursor<'_>, depth: usize) -> Result<(), NotJson> {
        if depth < 40 && cursor.at_object() {
            cursor.object(|c, _| walk(c, depth + 1))
        } else if depth < 40 && cursor.at_array() {
            cursor.array(|c| walk(c, depth + 1))
        } else if cursor.small_integer().is_some() {
            Ok(())
        } else {
            cursor.value().map(drop)
        }
    }
    let arena = Bump::new();
    let mut cursor = Cursor::new(text, &arena);
    walk(&mut cursor, 0).is_ok() && cursor.end().is_ok()
}

/// serde_json's opinion, by a reader that looks at nothing.
fn oracle(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

#[test]
fn strict_like_the_oracle() {
    let long = format!("\"{}\"", "plain text ".repeat(9));
    for text in [
        "{}",
        "[]",
        "0",
        "-0",
        "1e999",
        "-1.5E+3",
        "\"\"",
        "null",
        "true",
        " { \"a\" : [ 1 , {} ] } ",
        "\"\\ud800\"",
        "\"é\\u00e9\\\"\"",
        &long,
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{,}",
        "[,1]",
        "{\"a\"}",
        "{\"a\":}",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "-",
        "nul",
        "truth",
        "\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"a\nb\"",
        "[1}",
        "{\"a\":1]",
        "1 2",
        "\u{feff}1",
        "{\"a\":1 \"b\":2}",
        "[1 2]",
        "'a'",
        "{a:1}",
        "[\"\\u00\"]",
        "NaN",
        "\"\u{7f}\"",
        "\"tab\there\"",
    ] {
        assert_eq!(accepts(text), oracle(text), "{text:?}");
        assert_eq!(walks(text), oracle(text), "walking {text:?}");
    }
}

#[test]
fn nesting_is_bounded_and_does_not_recurse() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(accepts(&nested(DEPTH_MAX)));
    assert!(
        accepts(&nested(DEPTH_MAX + 1)),
        "an empty innermost array opens nothing"
    );
    assert!(!accepts(&nested(DEPTH_MAX + 2)));
    assert!(!accepts(&"[".repeat(100_000)));
    assert!(!accepts(&nested(100_000)));
    assert!(accepts(&format!(
        "{}1{}",
        "[{\"a\":".repeat(200),
        "}]".repeat(200)
    )));
}

#[test]
fn strings_resolve_their_escapes_or_say_so() {
    let arena = Bump::new();
    let read = |text: &'static str| {
        Cursor::new(text, &arena)
            .value()
            .expect("JSON")
            .string(&arena)
    };
    assert_eq!(read(r#""a\/b\u0041\n""#), Some("a/bA\n"));
    assert_eq!(read(r#""\ud83d\ude00""#), Some("😀"));
    assert_eq!(read(r#""\ud83d""#), None);
    assert_eq!(read(r#""\ud83dx""#), None);
    assert_eq!(read(r#""\ud83d\u0041""#), None);
    assert_eq!(read(r#""\ude00""#), None);
    assert_eq!(read("12"), None);
}

#[test]
fn plain_numbers_take_the_short_way() {
    let arena = Bump::new();
    let cursor = |text| Cursor::new(text, &arena);
    assert_eq!(cursor("250,").small_integer(), Some(250));
    assert_eq!(cursor("0}").small_integer(), Some(0));
    assert_eq!(
        cursor("999999999999999999").small_integer(),
        Some(999_999_999_999_999_999)
    );
    for text in ["1000000000000000000", "01", "1.0", "1e3", "-1", "", "x"] {
        assert_eq!(cursor(text).small_integer(), None, "{text}");
    }
    assert_eq!(cursor("0.35,").small_decimal(), Some(350_000));
    assert_eq!(cursor("2").small_decimal(), Some(2_000_000));
    assert_eq!(
        cursor("9999999.999999").small_decimal(),
        Some(9_999_999_999_999)
    );
    for text in [
        "10000000",
        "0.1234567",
        "1.",
        ".5",
        "00.5",
        "1e1",
        "1.5e1",
        "1.2.3",
        "-1",
    ] {
        assert_eq!(cursor(text).small_decimal(), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_gets_the_oracles_verdict(text in r#"[\[\]{}:,"\\u0-9a-f eE+\-.tn\x00-\x20é]{0,24}"#) {
        prop_assert_eq!(accepts(&text), oracle(&text));
        prop_assert_eq!(walks(&text), oracle(&text));
    }

    #[test]
    fn a_string_reads_as_the_oracle_reads_it(text in any::<String>(), escape in any::<bool>()) {
        let json = serde_json::to_string(&text).expect("text");
        let json = if escape {
            let units = text.encode_utf16().map(|u| format!("\\u{u:04x}")).collect::<String>();
            format!("\"{units}\"")
        } else {
            json
        };
        let arena = Bump::new();
        let read = Cursor::new(arena.alloc_str(&json), &arena).value().expect("JSON").string(&arena);
        prop_assert_eq!(read, Some(text.as_str()));
    }

    /// The short ways read what the long way reads, or nothing.
    #[test]
    fn small_numbers_are_exact(text in r"(0|[1-9][0-9]{0,20}|[0-9]{1,9}|-1)(\.[0-9]{0,8})?([eE][0-9])?[ ,x]?") {
        let arena = Bump::new();
        let cursor = || Cursor::new(&text, &arena);
        let (mut short, mut long) = (cursor(), cursor());
        let whole = short.small_integer();
        if let Some(number) = whole {
            prop_assert_eq!(long.value().map(|raw| raw.text().parse()), Ok(Ok(number)));
            prop_assert_eq!(short.at(), long.at());
        } else {
            prop_assert_eq!(short.at(), 0);
        }
        let (mut short, mut long) = (cursor(), cursor());
        if let Some(micros) = short.small_decimal() {
            let raw = long.value().expect("a number");
            prop_assert_eq!(Price::from_micros(micros), Price::parse(raw.text(), Round::Up));
            prop_assert_eq!(short.at(), long.at());
        } else {
            prop_assert_eq!(short.at(), 0);
        }
    }

    #[test]
    fn cut_anywhere_it_is_no_longer_json(cut in 0usize..60) {
        let text = r#"{"id":"a\u00e9","imp":[{"id":"1","x":[true,null]}],"n":1.5e3}"#;
        if let Some(part) = text.get(..cut) {
            prop_assert!(!accepts(part));
        }
    }
}
