//! Rows that are good, bad, or not rows.

use std::io::{self, Read};

use super::*;
use crate::audience::{BuildError, LINE_BYTES_MAX, ReadError};

fn text() -> RowFormat {
    RowFormat::Text {
        source: "ifa".to_owned(),
        segment: "vip".parse().expect("a name"),
    }
}

/// Reads `input` after one good row, and checks the line and the beginning of the reason of each bad row.
#[track_caller]
pub(super) fn check(format: &RowFormat, input: impl AsRef<[u8]>, expected: &[(u64, &str)]) {
    let mut builder = Builder::new(meta(1), keyer()).expect("an audience");
    builder
        .read_rows(format, input.as_ref(), &mut |_| {})
        .expect("readable");
    let report = match builder.finish(&mut io::sink()) {
        Ok(report) => report,
        Err(BuildError::Empty { report }) => *report,
        Err(e) => panic!("{e}"),
    };
    let told: Vec<(u64, &str)> = report
        .rejected
        .iter()
        .map(|row| (row.line, row.reason.as_str()))
        .collect();
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert_eq!(told.0, expected.0, "{told:?}");
        assert!(told.1.contains(expected.1), "{told:?}, not {expected:?}");
    }
}

#[track_caller]
fn check_csv(rows: &str, expected: &[(u64, &str)]) {
    check(
        &RowFormat::Csv,
        format!("source,id,segments,expires\n{rows}"),
        expected,
    );
}

#[test]
fn csv_rows() {
    check_csv("ifa,a,vip,\nifa,b,vip|cart,2026-11-01T00:00:00Z\n", &[]);
    check_csv("ifa,a,vip,9999-12-31T23:59:59Z\n", &[]);
    check_csv("ifa,a,||vip||,", &[]);
    check_csv("ifa,\"a,\"\"b\"\"\",\"vip|cart\",\"\"\n", &[]);
    check_csv(
        "ifa,,vip,\n",
        &[(2, "the id is empty; leave such rows out")],
    );
    check_csv(
        "ifa,00000000-0000-0000-0000-000000000000,vip,\n",
        &[(2, "all zeros")],
    );
    check_csv("ifa,NULL,vip,\n", &[(2, "placeholder")]);
    check_csv(",a,vip,\n", &[(2, "the source is empty; name where")]);
    check_csv("a b,a,vip,\n", &[(2, "the source holds a space")]);
    check_csv(
        &format!("ifa,{},vip,\n", "x".repeat(257)),
        &[(2, "longer than 256")],
    );
    check_csv(
        "ifa,a,,\nifa,b,||,\n",
        &[(2, "names no segment"), (3, "names no segment")],
    );
    check_csv(
        "ifa,a,ok|v p,\n",
        &[(2, "a segment is not a name; use 1 to 64")],
    );
    check_csv("ifa,a,crm/vip,\n", &[(2, "within the dataset write only")]);
    check_csv("ifa,a,vip,2026-11-01\n", &[(2, "expires is not a time")]);
    check_csv("ifa,a,vip\n", &[(2, "3 fields where the header has 4")]);
    check_csv("ifa,a,vip,,\n", &[(2, "5 fields where the header has 4")]);
    check_csv(
        "ifa,a,\"vip,\nifa,b,vip,\n",
        &[(2, "does not end on its line")],
    );
    check_csv("ifa,a\"b,vip,\n", &[(2, "a quote inside a field")]);
    check_csv("ifa,a,vip,\n\n  \r\nifa,,vip,\n", &[(5, "the id is empty")]);
}

#[test]
fn a_bad_row_leaves_nothing_behind() {
    let (file, report) = build_csv("ifa,a,new|v p,\nifa,b,vip,\nifa,c,newer,never\nifa,,newest,\n");
    assert_eq!(
        (report.rows, report.rejected_rows, report.segments),
        (1, 3, 1)
    );
    assert_eq!(open(&file).segments().collect::<Vec<_>>(), ["vip"]);
}

#[test]
fn a_name_first_seen_in_a_bad_row_is_as_good_as_new() {
    let (file, report) = build_csv("ifa,a,new|newer|v p,\nifa,b,vip|new,\nifa,c,newer,\n");
    assert_eq!((report.rows, report.segments), (2, 3));
    let audience = open(&file);
    let found = |id| look_up(&audience, key(id), at(0)).expect("there").join(" ");
    assert_eq!(
        (found("b"), found("c")),
        ("new vip".to_owned(), "newer".to_owned())
    );
}

#[test]
fn columns_come_in_any_order_and_expires_may_be_missing() {
    let (a, _) = build(meta(1), &RowFormat::Csv, b"id,segments,source\nx,vip,ifa\n");
    let (b, _) = build_csv("ifa,x,vip,\n");
    assert!(a == b);
}

#[test]
fn marks_line_ends_and_blank_lines_do_not_matter() {
    let plain = build_csv("ifa,x,vip,\n").0;
    let dressed = b"\xef\xbb\xbf\"source\", id ,segments,expires\r\n\r\nifa,x,vip,\r\n\n";
    assert!(build(meta(1), &RowFormat::Csv, dressed).0 == plain);
}

#[test]
fn no_header() {
    let problem = |input: &[u8]| {
        let mut builder = Builder::new(meta(1), keyer()).expect("an audience");
        match builder.read_rows(&RowFormat::Csv, input, &mut |_| {}) {
            Err(e @ ReadError::NoHeader { .. }) => e.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let check = |input: &[u8], part: &str| {
        let told = problem(input);
        assert!(told.contains(part), "{told}");
        assert!(told.contains("source,id,segments"), "{told}");
    };
    check(b"", "there is no line");
    check(b"ifa,a,vip\n", "the first line has 3 fields");
    check(
        b"source,key,segment\n",
        "no column id, segments, but key, segment",
    );
    check(b"source,id\n", "no column segments");
    check(
        b"source,id,segments,age,shoe size\n",
        "unknown column age, shoe size",
    );
    check(
        b"source,id,id,segments\n",
        "column \"id\" stands there twice",
    );
    check(b"\x1f\x8b\x08\0\n", "not UTF-8");
    check(
        b"source;id;segments\n",
        "the first line has 1 field separated by commas",
    );
}

#[test]
fn ndjson_rows() {
    let check = |rows: &str, expected: &[(u64, &str)]| check(&RowFormat::Ndjson, rows, expected);
    check(r#"{"source":"ifa","id":"a","segments":["vip"]}"#, &[]);
    check(
        r#"{"id":"a","segments":["vip",""],"source":"ifa","expires":null}"#,
        &[],
    );
    check(
        r#"{"source":"ifa","id":"a","segments":["vip"],"ttl":3}"#,
        &[(1, "unknown field at column 49; a row is")],
    );
    check(
        r#"{"source":"ifa","segments":["vip"]}"#,
        &[(1, "missing field `id`; a row is")],
    );
    check(
        r#"{"source":"ifa","id":"a","id":"b","segments":["vip"]}"#,
        &[(1, "a field a second time at column")],
    );
    check(
        r#"{"source":"ifa","id":"a","segments":[]}"#,
        &[(1, "names no segment")],
    );
    check(
        r#"{"source":"ifa","id":"a","segments":["a|b"]}"#,
        &[(1, "a segment is not a name")],
    );
    check(
        r#"{"source":"ifa","id":"a","segments":["a"],"expires":"soon"}"#,
        &[(1, "expires is not a time")],
    );
    check(
        r#"{"source":"ifa","id":"a","segments":"vip"}"#,
        &[(1, "wrong type")],
    );
    check(
        r#"{"source":"ifa","id":"a","segments":["a"]"#,
        &[(1, "not JSON at column")],
    );
    check(
        r#"{"source":"ifa","id":"a","segments":["a"]} {}"#,
        &[(1, "not JSON at column")],
    );
    check(
        r#"["ifa","a",["vip"],null]"#,
        &[(1, "not JSON at column 1")],
    );
    check(&"[".repeat(100_000), &[(1, "not JSON")]);
    check(
        "{\"source\":\"ifa\",\"id\":\"a\\u0000\",\"segments\":[\"a\"]}",
        &[(1, "control character")],
    );
}

#[test]
fn a_reason_never_quotes_an_id() {
    let secrets = [
        r#"{"source":"ifa","id":987654321,"segments":["a"]}"#,
        r#"{"source":"ifa","id":["secret-id"],"segments":["a"]}"#,
        r#"{"source":"ifa","id":"secret-id","segments":"secret-id"}"#,
    ];
    let mut builder = Builder::new(meta(1), keyer()).expect("an audience");
    builder
        .read_rows(
            &RowFormat::Ndjson,
            secrets.join("\n").as_bytes(),
            &mut |_| {},
        )
        .expect("readable");
    let told = builder.finish(&mut io::sink()).expect_err("no row is good");
    let BuildError::Empty { report } = told else {
        panic!("{told}");
    };
    assert_eq!(report.rejected_rows, 3);
    for row in report.rejected {
        assert!(
            !row.reason.contains("secret") && !row.reason.contains("987"),
            "{row:?}"
        );
    }
}

#[test]
fn what_stands_in_the_wrong_column_is_not_quoted() {
    let told = |format: &RowFormat, rows: &str| {
        let mut builder = Builder::new(meta(1), keyer()).expect("an audience");
        let read = builder.read_rows(format, rows.as_bytes(), &mut |_| {});
        match (read, builder.finish(&mut io::sink())) {
            (Err(e), _) => format!("{e} {e:?}"),
            (_, Err(e)) => format!("{e} {e:?}"),
            (_, Ok(report)) => panic!("a good row: {report:?}"),
        }
    };
    let header = "source,id,segments,expires\n";
    for row in [
        "buyeruid,vip,secret@x,",
        "buyeruid,vip,crm/secret,",
        "buyeruid,a,vip,secret",
        "secret @x,a,vip,",
        "buyeruid,a,\"secret,",
        "buyeruid,secret",
    ] {
        let told = told(&RowFormat::Csv, &format!("{header}{row}\n"));
        assert!(!told.contains("secret"), "{row}: {told}");
    }
    for first in [
        "buyeruid,secret,vip",
        "secret",
        "buyeruid,\"secret,vip",
        "buyeruid,sec\"ret,vip",
    ] {
        let told = told(&RowFormat::Csv, &format!("{first}\nifa,a,vip\n"));
        assert!(!told.contains("sec"), "{first}: {told}");
    }
    for row in [
        r#"{"source":"ifa","id":"a","segments":["secret@x"]}"#,
        r#"{"source":"ifa","id":"a","segments":["vip"],"expires":"secret"}"#,
        r#"{"source":"ifa","secret":["vip"]}"#,
        r#"{"source":"ifa","segments":["vip"],"missing field `secret":1}"#,
        r#"secret"#,
    ] {
        let told = told(&RowFormat::Ndjson, row);
        assert!(!told.contains("secret"), "{row}: {told}");
    }
}

#[test]
fn text_rows_are_ids_whatever_they_look_like() {
    let (file, report) = build(meta(1), &text(), b"# a\nb,c\n\n b,c \n");
    assert_eq!((report.rows, report.ids, report.merged), (3, 2, 1));
    let audience = open(&file);
    assert!(look_up(&audience, key("# a"), at(0)).is_some());
    assert!(look_up(&audience, key("b,c"), at(0)).is_some());
    check(&text(), "null\nok\n", &[(1, "placeholder")]);
}

#[test]
fn bytes_that_are_not_text_cost_their_line() {
    check(&text(), b"a\n\xff\xfe\nb\n", &[(2, "not UTF-8")]);
}

#[test]
fn only_the_first_hundred_are_kept() {
    let (_, report) = build(
        meta(1),
        &text(),
        format!("{}ok\n", "null\n".repeat(250)).as_bytes(),
    );
    assert_eq!((report.rejected_rows, report.rejected.len()), (250, 100));
    assert_eq!(report.rejected[99].line, 100);
}

#[test]
fn a_line_is_bounded() {
    let line = |bytes: usize| format!("{}\nok\n", "x".repeat(bytes));
    check(
        &text(),
        line(LINE_BYTES_MAX),
        &[(1, "the id is longer than 256")],
    );
    check(
        &text(),
        line(LINE_BYTES_MAX + 1),
        &[(1, "longer than 1048576 bytes")],
    );
    check(
        &text(),
        format!("ok\r\n{}\r\n", "x".repeat(LINE_BYTES_MAX)),
        &[(2, "the id is longer")],
    );
    check(
        &text(),
        line(10 * LINE_BYTES_MAX),
        &[(1, "longer than 1048576 bytes")],
    );
    check(
        &text(),
        "y".repeat(3 * LINE_BYTES_MAX),
        &[(1, "longer than 1048576 bytes")],
    );
}

#[test]
fn segments_are_bounded() {
    let mut rows: String = (0..65_535).map(|i| format!("ifa,a,s{i},\n")).collect();
    rows += "ifa,a,s1,\nifa,a,one-more,\nifa,b,s2,\n";
    let (file, report) = build_csv(&rows);
    assert_eq!(report.segments, 65_535);
    assert_eq!(report.rejected_rows, 1);
    assert!(
        report.rejected[0]
            .reason
            .contains("more than 65535 segments")
    );
    assert_eq!(open(&file).memberships(key("a")).len(), 65_535);
}

#[test]
fn fewer_segments_may_be_taken() {
    let rows = b"source,id,segments\nifa,a,one|two\nifa,b,three\nifa,c,two\n";
    let mut builder = Builder::new(meta(1), keyer())
        .expect("an audience")
        .with_segments_max(2);
    builder
        .read_rows(&RowFormat::Csv, &rows[..], &mut |_| {})
        .expect("readable");
    let report = builder.finish(&mut io::sink()).expect("good rows");
    assert_eq!((report.rows, report.segments), (2, 2));
    assert_eq!(report.rejected[0].line, 3);
    let reason = &report.rejected[0].reason;
    assert!(reason.contains("more than 2 segments"), "{reason}");
}

#[test]
fn a_failing_input_ends_the_reading() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
    let mut builder = Builder::new(meta(1), keyer()).expect("an audience");
    let input = io::BufReader::new(b"a\nb\n".chain(Broken));
    let told = builder.read_rows(&text(), input, &mut |_| {});
    assert!(matches!(told, Err(ReadError::Io(_))), "{told:?}");
}

#[test]
fn several_inputs_make_one_version() {
    let mut builder = Builder::new(meta(1), keyer()).expect("an audience");
    let mut seen = Vec::new();
    for input in ["a\nnull\n", "b\n\nnull\n"] {
        builder
            .read_rows(&text(), input.as_bytes(), &mut |rows| seen.push(rows))
            .expect("readable");
    }
    assert_eq!(seen, [2, 4]);
    let report = builder.finish(&mut io::sink()).expect("two good rows");
    assert_eq!(report.ids, 2);
    let told = serde_json::to_value(&report.rejected).expect("JSON");
    assert_eq!(told[0]["line"], 2);
    assert_eq!(told[0]["input"], serde_json::Value::Null);
    assert_eq!(
        (&told[1]["line"], &told[1]["input"]),
        (&3.into(), &1.into())
    );
}
