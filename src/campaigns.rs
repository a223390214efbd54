//! Stand-in, discarded on merge.
#![allow(missing_docs)]
use crate::ids::SegmentRef;
#[derive(Debug, Default)]
pub struct Book {
    pub segments: Box<[SegmentRef]>,
    pub line_items: Box<[String]>,
}
impl Book {
    pub fn empty() -> Book {
        Book::default()
    }
}
#[derive(Debug, Clone, serde::Serialize)]
pub struct DocumentError {
    pub path: String,
    pub message: String,
}
#[derive(Debug, Clone, serde::Serialize)]
pub struct Warning {
    pub path: String,
    pub message: String,
}
#[derive(Debug)]
pub struct Compiled {
    pub book: Book,
    pub warnings: Vec<Warning>,
}
#[allow(missing_debug_implementations)]
pub struct Surroundings<'a> {
    pub has_segment: &'a dyn Fn(&SegmentRef) -> bool,
}
pub fn compile(
    document: &[u8],
    against: &Surroundings<'_>,
) -> Result<Compiled, Vec<DocumentError>> {
    let bad = |m: String| {
        vec![DocumentError {
            path: "".into(),
            message: m,
        }]
    };
    let v: serde_json::Value = serde_json::from_slice(document).map_err(|e| bad(e.to_string()))?;
    let mut warnings = Vec::new();
    let mut segments = Vec::new();
    for s in v["segments"]
        .as_array()
        .ok_or_else(|| bad("no segments".into()))?
    {
        let s: SegmentRef = s
            .as_str()
            .unwrap_or("")
            .parse()
            .map_err(|_| bad("segment".into()))?;
        if !(against.has_segment)(&s) {
            warnings.push(Warning {
                path: "segments".into(),
                message: format!("{s} unknown"),
            });
        }
        segments.push(s);
    }
    Ok(Compiled {
        book: Book {
            segments: segments.into(),
            line_items: Box::default(),
        },
        warnings,
    })
}
