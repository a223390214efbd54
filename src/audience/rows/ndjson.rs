//! NDJSON rows: one object a line, its texts borrowed from the line where they hold no escapes.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::error::Category;

use super::super::builder::Collected;
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

/// The members a row must have, as serde names those that are missing.
const FIELDS: [&str; 3] = ["source", "id", "segments"];

/// Takes one line apart and adds the row.
pub(super) fn take(into: &mut Collected, line: &str) -> Result<(), Refused> {
    // serde would also read the object's values from an array.
    if !line.trim_start().starts_with('{') {
        return Err(Refused::NotJson { column: 1 });
    }
    let row: JsonRow<'_> = serde_json::from_str(line).map_err(|e| refused(&e))?;
    into.add(Row {
        source: &row.source.0,
        id: &row.id.0,
        segments: row.segments.iter().map(|segment| segment.0.as_ref()),
        expires: row.expires.as_ref().map(|text| text.0.as_ref()),
    })
}

fn refused(error: &serde_json::Error) -> Refused {
    if error.classify() != Category::Data {
        return Refused::NotJson {
            column: error.column(),
        };
    }
    // serde's words quote keys and values, and either may be an id: of them only what kind of error it is is taken.
    let said = error.to_string();
    let column = error.column();
    Refused::Shape(if let Some(rest) = said.strip_prefix("missing field `") {
        let known = FIELDS.iter().find(|field| rest.starts_with(**field));
        Shape::Missing(known.unwrap_or(&"id"))
    } else if said.starts_with("unknown field") {
        Shape::Unknown { column }
    } else if said.starts_with("duplicate field") {
        Shape::Twice { column }
    } else {
        Shape::WrongType { column }
    })
}
