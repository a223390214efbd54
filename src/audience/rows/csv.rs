//! CSV rows: RFC 4180, but for line breaks inside quotes, which no field of ours can hold.

use std::borrow::Cow;

use super::super::builder::Collector;
use super::{
    CHANGES_IN_FULL, Field, NOT_OF_PERSONS, PERSON_IN_SEGMENTS, ReadError, Refused, Row,
    SEGMENTS_IN_DELTA, Says,
};

const SOURCE: usize = 0;
const ID: usize = 1;
const SEGMENTS: usize = 2;
const EXPIRES: usize = 3;
const ADD: usize = 4;
const REMOVE: usize = 5;
const DELETE: usize = 6;
const PERSON: usize = 7;
/// The columns, each at the position its constant says.
const COLUMNS: [&str; 8] = [
    "source", "id", "segments", "expires", "add", "remove", "delete", "person",
];
/// What changes an id: a delta's rows have at least one of them.
const CHANGES: [usize; 3] = [ADD, REMOVE, DELETE];
/// What rows that say whose ids are have nothing of.
const OF_SEGMENTS: [usize; 5] = [SEGMENTS, EXPIRES, ADD, REMOVE, DELETE];

/// How much of an unknown column's name is shown, in characters.
const COLUMN_CHARS_MAX: usize = 80;

/// Which column stands where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Columns(Vec<usize>);

/// Reads the header, which is the first line that is not blank.
///
/// Without a header the first line is a row and holds an id, so its columns are named in complaints only where one of
/// them is a column of ours.
pub(super) fn header(
    line: Option<Result<&str, Refused>>,
    says: Says,
) -> Result<Columns, ReadError> {
    let expected = match says {
        Says::Segments => "source,id,segments and perhaps expires",
        Says::Changes => "source,id,add,remove and perhaps expires and delete",
        Says::Persons => "source,id,person",
    };
    let wrong = |problem: String| ReadError::NoHeader { problem, expected };
    let line = match line {
        None => return Err(wrong("there is no line".to_owned())),
        Some(Err(refused)) => return Err(wrong(refused.to_string())),
        Some(Ok(line)) => line,
    };
    let mut unknown = Vec::new();
    let mut columns = Vec::new();
    let mut rest = Some(line);
    while let Some(field) = next_field(&mut rest).map_err(|e| wrong(e.to_string()))? {
        let name = field.trim();
        match COLUMNS.iter().position(|column| *column == name) {
            None => unknown.push(shortened(name)),
            Some(column) if columns.contains(&column) => {
                return Err(wrong(format!("column {name:?} stands there twice")));
            }
            Some(column) => columns.push(column),
        }
    }
    if columns.is_empty() {
        return Err(wrong(format!(
            "the first line has {} separated by commas, none of them named like a column of rows",
            match unknown.len() {
                1 => "1 field".to_owned(),
                fields => format!("{fields} fields"),
            }
        )));
    }
    let has = |column: &usize| columns.contains(column);
    let mut missing: Vec<&str> = [SOURCE, ID]
        .into_iter()
        .filter(|column| !has(column))
        .map(|column| COLUMNS[column])
        .collect();
    let refused = |why: &str| Err(wrong(why.to_owned()));
    match says {
        Says::Persons if OF_SEGMENTS.iter().any(has) => return refused(NOT_OF_PERSONS),
        Says::Persons if !has(&PERSON) => missing.push(COLUMNS[PERSON]),
        Says::Persons => {}
        Says::Segments | Says::Changes if has(&PERSON) => return refused(PERSON_IN_SEGMENTS),
        Says::Changes if has(&SEGMENTS) => return refused(SEGMENTS_IN_DELTA),
        Says::Changes if !CHANGES.iter().any(has) => missing.push("add or remove"),
        Says::Segments if CHANGES.iter().any(has) => return refused(CHANGES_IN_FULL),
        Says::Segments if !has(&SEGMENTS) => missing.push(COLUMNS[SEGMENTS]),
        Says::Segments | Says::Changes => {}
    }
    let unknown = unknown.join(", ");
    match (missing.join(", "), unknown) {
        (missing, unknown) if missing.is_empty() && unknown.is_empty() => Ok(Columns(columns)),
        (missing, unknown) if missing.is_empty() => {
            Err(wrong(format!("unknown column {unknown}; leave it out")))
        }
        (missing, unknown) if unknown.is_empty() => Err(wrong(format!("no column {missing}"))),
        (missing, unknown) => Err(wrong(format!("no column {missing}, but {unknown}"))),
    }
}

fn shortened(name: &str) -> String {
    let mut short: String = name.chars().take(COLUMN_CHARS_MAX).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    short
}

impl Columns {
    /// Takes one line apart and adds the row.
    pub(super) fn take(&self, into: &mut Collector, line: &str) -> Result<(), Refused> {
        let mut fields: [Field<'_>; COLUMNS.len()] = [const { Cow::Borrowed("") }; COLUMNS.len()];
        let mut found = 0;
        let mut rest = Some(line);
        while let Some(field) = next_field(&mut rest)? {
            if let Some(&column) = self.0.get(found) {
                fields[column] = field;
            }
            found += 1;
        }
        if found != self.0.len() {
            return Err(Refused::Fields {
                found,
                expected: self.0.len(),
            });
        }
        let add = match into.says() {
            Says::Persons => return into.add_claim(&fields[SOURCE], &fields[ID], &fields[PERSON]),
            Says::Changes => ADD,
            Says::Segments => SEGMENTS,
        };
        into.add(Row {
            source: &fields[SOURCE],
            id: &fields[ID],
            add: Split(Some(&fields[add])),
            remove: Split(Some(&fields[REMOVE])),
            delete: match fields[DELETE].trim() {
                "true" => true,
                "false" | "" => false,
                _ => return Err(Refused::Delete),
            },
            expires: Some(&fields[EXPIRES]),
        })
    }
}

/// The names of a list.
struct Split<'a>(Option<&'a str>);

impl<'a> Iterator for Split<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0?;
        let Some(end) = find_bar(rest.as_bytes()) else {
            self.0 = None;
            return Some(rest);
        };
        self.0 = rest.get(end + 1..);
        rest.get(..end)
    }
}

/// Where the first `|` stands, which is mostly near: eight bytes at a time without a call.
#[inline]
fn find_bar(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        // A byte that is a bar becomes 0, and the lowest that is 0 shows as the lowest high bit.
        let word = u64::from_le_bytes(*word) ^ (LOW * b'|' as u64);
        let found = word.wrapping_sub(LOW) & !word & (LOW << 7);
        if found != 0 {
            return Some(8 * at + found.trailing_zeros() as usize / 8);
        }
    }
    let found = rest.iter().position(|byte| *byte == b'|')?;
    Some(bytes.len() - rest.len() + found)
}

/// Takes the next field off a line; nothing after the last. `rest` is `None` once the last was taken.
fn next_field<'a>(rest: &mut Option<&'a str>) -> Result<Option<Field<'a>>, Refused> {
    let Some(text) = *rest else {
        return Ok(None);
    };
    let Some(inside) = text.strip_prefix('"') else {
        let end = memchr::memchr2(b',', b'"', text.as_bytes());
        let field = match end {
            Some(at) if text.as_bytes()[at] == b'"' => return Err(Refused::StrayQuote),
            Some(at) => {
                *rest = Some(&text[at + 1..]);
                &text[..at]
            }
            None => {
                *rest = None;
                text
            }
        };
        return Ok(Some(Cow::Borrowed(field)));
    };
    let mut end = 0;
    let mut doubled = false;
    loop {
        let quote = memchr::memchr(b'"', &inside.as_bytes()[end..]).ok_or(Refused::OpenQuote)?;
        end += quote;
        match inside.as_bytes().get(end + 1) {
            Some(b'"') => {
                doubled = true;
                end += 2;
            }
            Some(b',') => {
                *rest = Some(&inside[end + 2..]);
                break;
            }
            Some(_) => return Err(Refused::StrayQuote),
            None => {
                *rest = None;
                break;
            }
        }
    }
    let field = &inside[..end];
    Ok(Some(if doubled {
        Cow::Owned(field.replace("\"\"", "\""))
    } else {
        Cow::Borrowed(field)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(line: &str) -> Result<Vec<String>, Refused> {
        let mut rest = Some(line);
        let mut all = Vec::new();
        while let Some(field) = next_field(&mut rest)? {
            all.push(field.into_owned());
        }
        Ok(all)
    }

    #[test]
    fn what_is_not_rfc_4180_is_refused_not_guessed() {
        assert_eq!(fields(r#"a"b,c"#), Err(Refused::StrayQuote));
        assert_eq!(fields(r#" "a",c"#), Err(Refused::StrayQuote));
        assert_eq!(fields(r#""a"b,c"#), Err(Refused::StrayQuote));
        assert_eq!(fields(r#"a,"b"#), Err(Refused::OpenQuote));
        assert_eq!(fields(r#"a,"b"""#), Err(Refused::OpenQuote));
        assert_eq!(fields(r##"a,"b,c",""""##), Err(Refused::OpenQuote));
        assert_eq!(fields(r#""a""b","#).expect("fine"), [r#"a"b"#, ""]);
    }

    proptest! {
        #[test]
        fn lists_are_split_at_bars(list in "[a{|}\u{7f}\u{e9}]{0,40}") {
            let split: Vec<&str> = Split(Some(&list)).collect();
            prop_assert_eq!(split, list.split('|').collect::<Vec<_>>());
        }

        /// The csv crate is the oracle for all that is well-formed.
        #[test]
        fn fields_are_those_of_the_csv_crate(fields_in in prop::collection::vec("[a,\"é| ]{0,6}", 2..6)) {
            let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
            writer.write_record(&fields_in).expect("to memory");
            let text = String::from_utf8(writer.into_inner().expect("flushed")).expect("UTF-8");
            prop_assert_eq!(fields(text.trim_end_matches('\n')).expect("well-formed"), fields_in);
        }
    }
}
