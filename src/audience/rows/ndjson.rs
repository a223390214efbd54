//! NDJSON rows: one object a line, its texts borrowed from the line where they hold no escapes.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::error::Category;

use super::super::builder::Collected;
use super::{Refused, Row, quoted};

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
    // Only what names a field may be quoted: an error of type quotes the value, and the value may be an id.
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    let names_field = ["unknown field", "missing field", "duplicate field"]
        .iter()
        .any(|start| said.starts_with(start));
    Refused::Shape(if names_field {
        quoted(said.split(',').next().unwrap_or_default())
    } else {
        format!("a value at column {} has the wrong type", error.column())
    })
}
