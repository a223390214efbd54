//! NDJSON rows: one object a line, its texts borrowed from the line where they hold no escapes.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::error::Category;

use super::super::builder::Collector;
use super::{Refused, Row, Says, Shape};

/// A text that is borrowed where it can be. Under serde a bare `Cow` inside another type never is.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRow<'a> {
    #[serde(borrow)]
    source: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    segments: Vec<Text<'a>>,
    #[serde(borrow, default)]
    expires: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonChange<'a> {
    #[serde(borrow)]
    source: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow, default)]
    add: Option<Vec<Text<'a>>>,
    #[serde(borrow, default)]
    remove: Option<Vec<Text<'a>>>,
    #[serde(default)]
    delete: Option<bool>,
    #[serde(borrow, default)]
    expires: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonClaim<'a> {
    #[serde(borrow)]
    source: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    person: Text<'a>,
}

/// The members a row must have, as serde names those that are missing.
const FIELDS: [&str; 4] = ["source", "id", "segments", "person"];
/// What a row of the other kind of version has.
const CHANGES: [&str; 3] = ["add", "remove", "delete"];
const SEGMENTS: &str = "segments";
const PERSON: &str = "person";

const IDENTITY_ROW: &str = r#"{"source":"…","id":"…","person":"…"}"#;
const FULL_ROW: &str =
    r#"{"source":"…","id":"…","segments":["…"],"expires":"…"}, expires optional"#;
const DELTA_ROW: &str = r#"{"source":"…","id":"…","add":["…"],"remove":["…"],"expires":"…"}, or {"source":"…","id":"…","delete":true}"#;

/// Takes one line apart and adds the row.
pub(super) fn take(into: &mut Collector, line: &str) -> Result<(), Refused> {
    // serde would also read the object's values from an array.
    if !line.trim_start().starts_with('{') {
        return Err(Refused::NotJson { column: 1 });
    }
    let says = into.says();
    let refused = |e: serde_json::Error| refused(&e, says);
    if says == Says::Persons {
        let row: JsonClaim<'_> = serde_json::from_str(line).map_err(refused)?;
        return into.add_claim(&row.source.0, &row.id.0, &row.person.0);
    }
    if says == Says::Changes {
        let row: JsonChange<'_> = serde_json::from_str(line).map_err(refused)?;
        return into.add(Row {
            source: &row.source.0,
            id: &row.id.0,
            add: row.add.iter().flatten().map(|name| name.0.as_ref()),
            remove: row.remove.iter().flatten().map(|name| name.0.as_ref()),
            delete: row.delete == Some(true),
            expires: row.expires.as_ref().map(|text| text.0.as_ref()),
        });
    }
    let row: JsonRow<'_> = serde_json::from_str(line).map_err(refused)?;
    into.add(Row {
        source: &row.source.0,
        id: &row.id.0,
        add: row.segments.iter().map(|segment| segment.0.as_ref()),
        remove: std::iter::empty(),
        delete: false,
        expires: row.expires.as_ref().map(|text| text.0.as_ref()),
    })
}

fn refused(error: &serde_json::Error, says: Says) -> Refused {
    if error.classify() != Category::Data {
        return Refused::NotJson {
            column: error.column(),
        };
    }
    // serde's words quote keys and values, and either may be an id: of them only what kind of error it is is taken.
    let said = error.to_string();
    let column = error.column();
    let unknown = |names: &[&str]| {
        let rest = said.strip_prefix("unknown field `");
        rest.is_some_and(|rest| {
            names
                .iter()
                .any(|n| rest.strip_prefix(n).is_some_and(|r| r.starts_with('`')))
        })
    };
    let told = match says {
        Says::Persons if unknown(&CHANGES) || unknown(&[SEGMENTS]) => Some(Refused::NotOfPersons),
        Says::Changes if unknown(&[SEGMENTS]) => Some(Refused::SegmentsInDelta),
        Says::Segments if unknown(&CHANGES) => Some(Refused::ChangesInFull),
        Says::Segments | Says::Changes if unknown(&[PERSON]) => Some(Refused::PersonInSegments),
        _ => None,
    };
    if let Some(told) = told {
        return told;
    }
    let what = if let Some(rest) = said.strip_prefix("missing field `") {
        let known = FIELDS.iter().find(|field| rest.starts_with(**field));
        Shape::Missing(known.unwrap_or(&"id"))
    } else if said.starts_with("unknown field") {
        Shape::Unknown { column }
    } else if said.starts_with("duplicate field") {
        Shape::Twice { column }
    } else {
        Shape::WrongType { column }
    };
    let row = match says {
        Says::Segments => FULL_ROW,
        Says::Changes => DELTA_ROW,
        Says::Persons => IDENTITY_ROW,
    };
    Refused::Shape { what, row }
}
