//! Rows of people: what is posted, a line of JSON each, and what the journal keeps of it, a line of JSON each as well.
//!
//! A line of the journal is the row in its normal form, behind its sequence number and the time at which it was received. It has the id
//! in clear, for it is what segment jobs are fed with; it goes when its hour is older than `people.retention`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

use super::Known;
use super::acts::{Act, Link, Update};
use crate::clock::Timestamp;
use crate::ids::{IdRefused, Keyer, Name, SegmentRef, UserKey, normal_form};

/// Longest line that is read, in bytes.
pub const LINE_BYTES_MAX: usize = 64 << 10;
/// Most segments that one row names.
const NAMED_MAX: usize = 64;

/// How rows are read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Turns ids into keys.
    pub keyer: Keyer,
    /// Of rows that say none, in seconds.
    pub ttl_default: u32,
    /// The longest that may be said.
    pub ttl_max: u32,
    /// Datasets of people who are not wanted: to come into one of these suppresses, to leave another does.
    pub suppression: Vec<Name>,
}

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// It is no such JSON.
    #[error("{0}")]
    Json(String),
    /// The id.
    #[error("{0}")]
    Id(#[from] IdRefused),
    /// A name.
    #[error("`{0}` is no segment: write dataset/segment, each 1 to 64 of a-z A-Z 0-9 . _ -")]
    Segment(String),
    /// A dataset's name.
    #[error("`{0}` is no dataset's name: 1 to 64 of a-z A-Z 0-9 . _ -")]
    Dataset(String),
    /// Into it and out of it.
    #[error("the id both comes into {0} and leaves it")]
    Both(String),
    /// Nothing.
    #[error("say at least one of `add`, `remove` and `set`")]
    Nothing,
    /// How long.
    #[error("ttl: `{0}` is no duration like 45m, 24h or 30d, of at least a second")]
    Ttl(String),
    /// Too long.
    #[error("ttl: longer than people.ttl_max")]
    TtlTooLong,
    /// A writer's name.
    #[error("writer: `{0}` is no name: 1 to 64 of a-z A-Z 0-9 . _ -")]
    Writer(String),
    /// Too many.
    #[error("more than 64 segments and datasets in one row")]
    TooManyNames,
    /// Too many different ones.
    #[error(
        "rows have named too many different segments or writers of this dataset already; is an id in the segment's or the writer's name?"
    )]
    NoNumber,
    /// A number without anybody whose it is.
    #[error("`seq` needs a `writer`, whose number it is")]
    NoWriter,
    /// A dataset that the caller's token is not for.
    #[error("your token is not for dataset `{0}`")]
    NotCovered(Name),
}

/// A row, ready to be taken.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) act: Act,
    /// What the journal keeps of it, but for what stands before: its number and when it was received.
    pub(super) tail: Vec<u8>,
}

impl Row {
    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.tail.len() + ROW_BYTES
    }
}

/// What a row takes beside its line.
const ROW_BYTES: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Posted<'a> {
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    add: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    remove: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    set: BTreeMap<Cow<'a, str>, Vec<Cow<'a, str>>>,
    #[serde(borrow, default)]
    ttl: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    writer: Option<Cow<'a, str>>,
    #[serde(default)]
    seq: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostedLink<'a> {
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    /// Nobody's, where there is none.
    #[serde(borrow, default)]
    person: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    ttl: Option<Cow<'a, str>>,
}

/// An id, as `POST /v1/optouts` takes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostedId {
    /// Its namespace.
    pub source: String,
    /// In whatever form.
    pub id: String,
}

/// A line of the journal, but for its number and its time.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    add: Vec<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    remove: Vec<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    set: BTreeMap<Cow<'a, str>, Vec<Cow<'a, str>>>,
    #[serde(default, skip_serializing_if = "is_false")]
    link: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    unlink: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    erase: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    opt_out: bool,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    person: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    ttl_seconds: u32,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    writer: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[derive(Debug, Deserialize)]
struct Numbered<'a> {
    sequence: u64,
    at: Timestamp,
    #[serde(flatten, borrow)]
    line: Line<'a>,
}

impl Line<'_> {
    fn tail(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Appends a row's line, with its number and the time at which it was received.
pub(super) fn write_line(row_tail: &[u8], sequence: u64, at: &str, into: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write!(into, "{{\"sequence\":{sequence},\"at\":\"{at}\",");
    into.extend_from_slice(row_tail.get(1..).unwrap_or_default());
    into.push(b'\n');
}

impl Reading {
    /// Reads a line of `POST /v1/users`. `may` says for which datasets the caller may write.
    pub(super) fn update(
        &self,
        line: &[u8],
        known: &Known,
        may: &dyn Fn(&Name) -> bool,
    ) -> Result<Row, Unread> {
        let posted: Posted<'_> = json(line)?;
        let Posted {
            source,
            id,
            add,
            remove,
            set,
            ttl,
            writer,
            seq,
        } = posted;
        let ttl_seconds = self.ttl(ttl.as_deref())?;
        let (source, id) = normal_form(&source, &id)?;
        let line = Line {
            source: source.into(),
            id: id.into(),
            add,
            remove,
            set,
            ttl_seconds,
            writer,
            seq,
            ..Line::default()
        };
        let update = self.update_of(&line, known, Some(may))?;
        Ok(Row {
            act: Act::Update(update),
            tail: line.tail(),
        })
    }

    /// What a line says. `may`: for which datasets it may; where there is none it was taken before, and is taken again.
    fn update_of(
        &self,
        line: &Line<'_>,
        known: &Known,
        may: Option<&dyn Fn(&Name) -> bool>,
    ) -> Result<Update, Unread> {
        let is_covered = |name: &Name| may.is_none_or(|may| may(name));
        let key = self.keyer.user_key(&line.source, &line.id)?;
        let in_sets = line.set.values().map(Vec::len).sum::<usize>();
        let named = in_sets + line.add.len() + line.remove.len() + line.set.len();
        if named == 0 {
            return Err(Unread::Nothing);
        }
        if named > NAMED_MAX {
            return Err(Unread::TooManyNames);
        }
        let mut suppresses = line.set.is_empty();
        let mut changes: Vec<(u32, bool)> = Vec::new();
        let mut change = |text: &str, add: bool| {
            let segment: SegmentRef = text.parse().map_err(|_| Unread::Segment(text.to_owned()))?;
            if !is_covered(&segment.dataset) {
                return Err(Unread::NotCovered(segment.dataset));
            }
            suppresses &= self.suppression.contains(&segment.dataset) == add;
            let number = match may.is_some() {
                true => known.number_for_row(&segment),
                false => known.segment_number(&segment),
            };
            let number = number.ok_or(Unread::NoNumber)?;
            match changes.iter().find(|(known, _)| *known == number) {
                Some((_, before)) if *before != add => Err(Unread::Both(text.to_owned())),
                Some(_) => Ok(()),
                None => {
                    changes.push((number, add));
                    Ok(())
                }
            }
        };
        for text in &line.add {
            change(text, true)?;
        }
        for text in &line.remove {
            change(text, false)?;
        }
        let mut sets = Vec::new();
        for (dataset, segments) in &line.set {
            let name: Name = dataset
                .parse()
                .map_err(|_| Unread::Dataset(dataset.to_string()))?;
            if !is_covered(&name) {
                return Err(Unread::NotCovered(name));
            }
            for segment in segments {
                change(&format!("{dataset}/{segment}"), true)?;
            }
            sets.push(known.dataset_number(&name).ok_or(Unread::NoNumber)?);
        }
        let first = changes.iter().map(|(number, _)| known.dataset_of(*number));
        let dataset = first.chain(sets.iter().copied()).next();
        let writer = |name: &str| {
            let _: Name = name.parse().map_err(|_| Unread::Writer(name.to_owned()))?;
            let number = match may.is_some() {
                true => dataset.and_then(|dataset| known.writer_for_row(name, dataset)),
                false => known.writers.number(name),
            };
            number.ok_or(Unread::NoNumber)
        };
        let order = match (&line.writer, line.seq) {
            (Some(name), Some(seq)) => Some((writer(name)?, seq)),
            (None, Some(_)) => return Err(Unread::NoWriter),
            (_, None) => None,
        };
        Ok(Update {
            key,
            changes,
            sets,
            ttl: line.ttl_seconds,
            order,
            suppresses,
        })
    }

    /// Reads a line of `POST /v1/links`.
    pub(super) fn link(&self, line: &[u8], known: &Known) -> Result<Row, Unread> {
        let posted: PostedLink<'_> = json(line)?;
        let (source, id) = normal_form(&posted.source, &posted.id)?;
        let person = posted.person.map(|person| normal_form("person", &person));
        let person = person.transpose()?.map(|(_, person)| person.into());
        let line = Line {
            ttl_seconds: match person.is_some() {
                true => self.ttl_or(posted.ttl.as_deref(), self.ttl_max)?,
                false => 0,
            },
            source: source.into(),
            id: id.into(),
            link: person.is_some(),
            unlink: person.is_none(),
            person,
            ..Line::default()
        };
        let act = self.link_of(&line, known)?;
        Ok(Row {
            act,
            tail: line.tail(),
        })
    }

    fn link_of(&self, line: &Line<'_>, known: &Known) -> Result<Act, Unread> {
        let key = self.keyer.user_key(&line.source, &line.id)?;
        let Some(person) = &line.person else {
            return Ok(Act::Unlink { key });
        };
        let source = line.source.trim().to_ascii_lowercase();
        if source == "person" {
            let text = "source: a person is no id of a person; link the ids to it".to_owned();
            return Err(Unread::Json(text));
        }
        Ok(Act::Link(Link {
            key,
            source: known.sources.number(&source).ok_or(Unread::NoNumber)?,
            person: self.keyer.user_key("person", person)?,
            ttl: line.ttl_seconds,
        }))
    }

    /// A row that erases these keys, asked for by that id.
    pub(super) fn erase(id: &PostedId, keys: Vec<UserKey>) -> Row {
        // An id that has no normal form has no key either, and does not come here.
        let (source, id) = normal_form(&id.source, &id.id).unwrap_or_default();
        let line = Line {
            source: source.into(),
            id: id.into(),
            erase: true,
            ..Line::default()
        };
        let tail = line.tail();
        let act = Act::Erase { keys };
        Row { act, tail }
    }

    /// A row by which these keys opt out, asked for by that id.
    pub(super) fn opt_out(id: &PostedId, keys: Vec<UserKey>) -> Row {
        // An id that has no normal form has no key either, and does not come here.
        let (source, id) = normal_form(&id.source, &id.id).unwrap_or_default();
        let line = Line {
            source: source.into(),
            id: id.into(),
            opt_out: true,
            ..Line::default()
        };
        let tail = line.tail();
        let act = Act::OptOut { keys };
        Row { act, tail }
    }

    /// A row by which these keys opt out, because that link is with somebody who did.
    pub(super) fn opt_out_with(link: &Row, keys: Vec<UserKey>) -> Row {
        let linked: Line<'_> = serde_json::from_slice(&link.tail).unwrap_or_default();
        let line = Line {
            source: linked.source,
            id: linked.id,
            opt_out: true,
            ..Line::default()
        };
        let tail = line.tail();
        let act = Act::OptOut { keys };
        Row { act, tail }
    }

    /// Reads a line of the journal: its number, when it was received, and what is to be done; nothing where that stands elsewhere.
    pub(super) fn journalled(
        &self,
        line: &[u8],
        known: &Known,
    ) -> Result<(u64, Timestamp, Option<Act>), Unread> {
        let Numbered { sequence, at, line } = json(line)?;
        let act = match &line {
            line if line.erase || line.opt_out => None,
            line if line.link || line.unlink => Some(self.link_of(line, known)?),
            line => Some(Act::Update(self.update_of(line, known, None)?)),
        };
        Ok((sequence, at, act))
    }

    fn ttl(&self, text: Option<&str>) -> Result<u32, Unread> {
        self.ttl_or(text, self.ttl_default)
    }

    fn ttl_or(&self, text: Option<&str>, default: u32) -> Result<u32, Unread> {
        let Some(text) = text else {
            return Ok(default);
        };
        let seconds = duration(text.trim()).ok_or_else(|| Unread::Ttl(text.to_owned()))?;
        if seconds > self.ttl_max {
            return Err(Unread::TtlTooLong);
        }
        Ok(seconds)
    }
}

/// The key of whose line it is, as far as it can be read, and whether it says that it is erased.
pub(super) fn owner(line: &[u8], keyer: &Keyer) -> Option<(UserKey, bool)> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        source: Cow<'a, str>,
        #[serde(borrow)]
        id: Cow<'a, str>,
        #[serde(default)]
        erase: bool,
    }
    let head: Head<'_> = serde_json::from_slice(line).ok()?;
    Some((keyer.user_key(&head.source, &head.id).ok()?, head.erase))
}

fn json<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, Unread> {
    serde_json::from_slice(line).map_err(|error| Unread::Json(error.to_string()))
}

/// Seconds of `45m` and the like.
fn duration(text: &str) -> Option<u32> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(at);
    let seconds: u32 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let count: u32 = count.parse().ok().filter(|count| *count > 0)?;
    count.checked_mul(seconds)
}
