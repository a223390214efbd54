//! Stand-in, discarded on merge.
#![allow(missing_docs, clippy::type_complexity)]
use crate::clock::Timestamp;
use crate::ids::{KeyId, Keyer, Kind, Name, UserKey};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufRead, Write};
use std::path::Path;
use std::str::FromStr;

#[derive(Debug, Clone, PartialEq)]
pub struct VersionMeta {
    pub kind: Kind,
    pub dataset: Name,
    pub version: u64,
    pub base: Option<u64>,
    pub as_of: Option<AsOf>,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    Time(Timestamp),
    Position(u64),
}
impl FromStr for AsOf {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.strip_prefix("seq:") {
            Some(n) => n.parse().map(AsOf::Position).map_err(|e| format!("{e}")),
            None => s.parse().map(AsOf::Time).map_err(|e| format!("{e}")),
        }
    }
}
impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AsOf::Time(t) => t.fmt(f),
            AsOf::Position(n) => write!(f, "seq:{n}"),
        }
    }
}
#[derive(Debug, Clone)]
pub enum RowFormat {
    Csv,
    Ndjson,
    Text { source: String, segment: Name },
}
#[derive(Debug, Clone, serde::Serialize, Default)]
pub struct RowReport {
    pub rows: u64,
    pub ids: u64,
    pub segments: u64,
    pub merged: u64,
    pub rejected_rows: u64,
    pub rejected: Vec<RejectedRow>,
}
#[derive(Debug, Clone, serde::Serialize)]
pub struct RejectedRow {
    pub line: u64,
    pub reason: String,
}
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no header")]
    Header,
}
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("no good row")]
    Empty,
    #[error("{0}")]
    Io(#[from] std::io::Error),
}
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(String);
#[derive(Debug)]
pub struct Builder {
    meta: VersionMeta,
    keyer: Keyer,
    rows: BTreeMap<u128, BTreeSet<String>>,
    report: RowReport,
}
impl Builder {
    pub fn new(meta: VersionMeta, keyer: Keyer) -> Builder {
        Builder {
            meta,
            keyer,
            rows: BTreeMap::new(),
            report: RowReport::default(),
        }
    }
    pub fn read_rows(
        &mut self,
        format: &RowFormat,
        input: impl BufRead,
        _p: &mut dyn FnMut(u64),
    ) -> Result<(), ReadError> {
        for (n, line) in input.lines().enumerate() {
            let line = line?;
            if matches!(format, RowFormat::Csv) && n == 0 {
                if line != "source,id,segments" {
                    return Err(ReadError::Header);
                }
                continue;
            }
            self.report.rows += 1;
            let parts: Vec<&str> = line.split(',').collect();
            let row = match (format, parts.as_slice()) {
                (RowFormat::Text { source, segment }, _) => {
                    Some((source.as_str(), line.as_str(), segment.as_str()))
                }
                (_, [a, b, c]) => Some((*a, *b, *c)),
                _ => None,
            };
            match row
                .and_then(|(s, i, g)| self.keyer.user_key(s, i).ok().map(|k| (k, g.to_owned())))
            {
                Some((k, g)) => {
                    self.rows
                        .entry(k.0)
                        .or_default()
                        .extend(g.split('|').map(str::to_owned));
                }
                None => {
                    self.report.rejected_rows += 1;
                    self.report.rejected.push(RejectedRow {
                        line: n as u64 + 1,
                        reason: "bad".into(),
                    });
                }
            }
        }
        Ok(())
    }
    pub fn finish(mut self, out: &mut dyn Write) -> Result<RowReport, BuildError> {
        if self.rows.is_empty() {
            return Err(BuildError::Empty);
        }
        let segments: BTreeSet<String> = self.rows.values().flatten().cloned().collect();
        self.report.ids = self.rows.len() as u64;
        self.report.segments = segments.len() as u64;
        let rows: BTreeMap<String, &BTreeSet<String>> =
            self.rows.iter().map(|(k, v)| (k.to_string(), v)).collect();
        let body = serde_json::json!({"dataset": self.meta.dataset, "version": self.meta.version, "as_of": self.meta.as_of.map(|a| a.to_string()),
            "key": self.keyer.key_id().0, "segments": segments, "rows": rows, "n": self.report.rows}).to_string();
        writeln!(out, "{:08x}{body}", crc32fast::hash(body.as_bytes()))?;
        Ok(self.report)
    }
}
#[derive(Debug)]
pub struct Audience {
    meta: VersionMeta,
    key: KeyId,
    segments: Vec<String>,
    rows: BTreeMap<u128, Vec<String>>,
    n: u64,
    bytes: u64,
}
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Lookup {
    Found,
    Absent,
    Damaged,
}
impl Audience {
    pub fn open(path: &Path) -> Result<Audience, OpenError> {
        let e = |m: String| OpenError(m);
        let text = std::fs::read_to_string(path).map_err(|x| e(x.to_string()))?;
        let body = text.trim_end().get(8..).ok_or_else(|| e("short".into()))?;
        if format!("{:08x}", crc32fast::hash(body.as_bytes())) != text.get(..8).unwrap_or("") {
            return Err(e("checksum".into()));
        }
        let v: serde_json::Value = serde_json::from_str(body).map_err(|x| e(x.to_string()))?;
        Ok(Audience {
            meta: VersionMeta {
                kind: Kind::Audience,
                dataset: serde_json::from_value(v["dataset"].clone())
                    .map_err(|x| e(x.to_string()))?,
                version: v["version"].as_u64().unwrap_or(0),
                base: None,
                as_of: v["as_of"].as_str().and_then(|s| s.parse().ok()),
            },
            key: KeyId(serde_json::from_value(v["key"].clone()).map_err(|x| e(x.to_string()))?),
            segments: serde_json::from_value(v["segments"].clone())
                .map_err(|x| e(x.to_string()))?,
            rows: serde_json::from_value::<BTreeMap<String, Vec<String>>>(v["rows"].clone())
                .map_err(|x| e(x.to_string()))?
                .into_iter()
                .map(|(k, v)| (k.parse().unwrap_or(0), v))
                .collect(),
            n: v["n"].as_u64().unwrap_or(0),
            bytes: text.len() as u64,
        })
    }
    pub fn meta(&self) -> &VersionMeta {
        &self.meta
    }
    pub fn key_id(&self) -> KeyId {
        self.key
    }
    pub fn ids(&self) -> u64 {
        self.rows.len() as u64
    }
    pub fn rows(&self) -> u64 {
        self.n
    }
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &str> {
        self.segments.iter().map(String::as_str)
    }
    pub fn segment_index(&self, name: &str) -> Option<u32> {
        self.segments
            .iter()
            .position(|s| s == name)
            .map(|i| i as u32)
    }
    pub fn lookup(&self, key: UserKey, _now: Timestamp, mut member: impl FnMut(u32)) -> Lookup {
        match self.rows.get(&key.0) {
            None => Lookup::Absent,
            Some(v) => {
                v.iter()
                    .filter_map(|s| self.segment_index(s))
                    .for_each(&mut member);
                Lookup::Found
            }
        }
    }
}
