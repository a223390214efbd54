//! NDJSON rows: one object a line, its texts borrowed from the line where they hold no escapes.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::error::Category;

use super::super::builder::Collector;
use super::{Refused, Row, Shape};

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

/// The members a row must have, as serde names those that are missing.
const FIELDS: [&str; 3] = ["source", "id", "segments"];
/// What a row of the other kind of version has.
const CHANGES: [&str; 3] = ["add", "remove", "delete"];
const SEGMENTS: &str = "segments";

const FULL_ROW: &str =
    r#"{"source":"…","id":"…","segments":["…"],"expires":"…"}, expires optional"#;
const DELTA_ROW: &str = r#"{"source":"…","id":"…","add":["…"],"remove":["…"],"expires":"…"}, or {"source":"…","id":"…","delete":true}"#;

/// Takes one line apart and adds the row.
pub(super) fn take(into: &mut Collector, line: &str) -> Result<(), Refused> {
    // serde would also read the object's values from an array.
    if !line.trim_start().starts_with('{') {
        return Err(Refused::NotJson { column: 1 });
    }
    let delta = into.is_delta();
    let refused = |e: serde_json::Error| refused(&e, delta);
    if delta {
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

fn refused(error: &serde_json::Error, delta: bool) -> Refused {
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
    if delta && unknown(&[SEGMENTS]) {
        return Refused::SegmentsInDelta;
    }
    if !delta && unknown(&CHANGES) {
        return Refused::ChangesInFull;
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
    let row = if delta { DELTA_ROW } else { FULL_ROW };
    Refused::Shape { what, row }
}
