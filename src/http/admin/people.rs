//! People on the admin listener: updates, links, opt-outs, erasure, and the journal for segment jobs.

use std::io::{self, Write};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::access::Caller;
use super::body::{BodyReader, pipe};
use super::encoding::{Coding, CopyFailed, Longest, copy_decoded, too_long};
use super::routes::{Answer, Asked, json as json_answer, query, text_as};
use super::switches::blocking;
use super::{AdminState, Problem};
use crate::config::Role;
use crate::generation::Generation;
use crate::ids::{Name, UserKey};
use crate::people::{
    Done, FeedError, Kind, LINE_BYTES_MAX, People, PostedId, Ready, Refused, Rejection,
};
use crate::priority;

/// Rows that are handed over at once.
const ROWS_AT_ONCE: usize = 4_096;
/// Or so many bytes of them.
const BYTES_AT_ONCE: usize = 1 << 20;
/// Refused rows that are listed.
const LISTED_MAX: usize = 1_000;
/// Rows in an answer of the journal where nothing is said, and at most.
const PAGE_ROWS: usize = 10_000;
const PAGE_ROWS_MAX: usize = 100_000;

/// Who keeps people, or 404; 503 while it is not known what was held.
pub(super) fn people(asked: &Asked<'_>) -> Result<People, Problem> {
    let people = asked.shared.state.people.clone();
    let people =
        people.ok_or_else(|| Problem::new(404, "no_people", "this service keeps no people"))?;
    match people.recovered() {
        Some(Ok(())) => Ok(people),
        _ => Err(refused(Refused::Starting)),
    }
}

fn refused(refused: Refused) -> Problem {
    match refused {
        Refused::Starting => Problem::new(503, "starting", refused.to_string()),
        Refused::Busy => Problem::new(429, "busy", refused.to_string()),
        Refused::Unwritable => Problem::new(503, "storage", refused.to_string()),
        Refused::Stopped => Problem::new(503, "stopping", refused.to_string()),
    }
}

/// `POST /v1/users` and `POST /v1/links`: a row a line.
pub(super) async fn rows(asked: &mut Asked<'_>, kind: Kind) -> Result<Answer, Problem> {
    match kind {
        // Which datasets is seen row by row.
        Kind::Updates => asked.caller.may_somewhere(Role::Upload)?,
        Kind::Links => asked.caller.may_everywhere(Role::Upload)?,
    }
    let coding = Coding::of(&asked.head.headers)?;
    let limits = asked.shared.state.limits;
    let longest = Longest {
        bytes: limits.upload_bytes,
        limit: "limits.upload_bytes".to_owned(),
    };
    let taker = Taker {
        kind,
        people: people(asked)?,
        caller: asked.caller.clone(),
        line: Vec::new(),
        number: 0,
        ready: Vec::new(),
        ready_bytes: 0,
        lines: Vec::new(),
        done: Taken::default(),
        refused: None,
    };
    let (pump, reader) = pipe();
    let (done, when_done) = oneshot::channel();
    let thread = std::thread::Builder::new().name("kith-rows".to_owned());
    let spawned = thread.spawn(move || {
        // Thousands of rows take some milliseconds to read. Not of the idle class: where nothing is idle it would wait with a lock in hand.
        priority::lower(priority::WORKING);
        let _ = done.send(taker.take_all(reader, coding, &longest));
    });
    spawned.map_err(|e| Problem::new(503, "threads", format!("no thread for the rows: {e}")))?;
    let stall = Duration::from_millis(limits.upload_stall_timeout_ms);
    pump.run(asked.body, stall).await;
    let panicked = |_| Problem::new(500, "panic", "this failed inside kith and was logged");
    when_done.await.map_err(panicked)?
}

/// What became of a call's rows so far.
#[derive(Debug, Default)]
struct Taken {
    accepted: usize,
    rejected: usize,
    listed: Vec<Value>,
    sequence: u64,
    /// Rows that there was no room for.
    full: usize,
}

/// Takes a body's lines, some at a time.
struct Taker {
    kind: Kind,
    people: People,
    caller: Caller,
    line: Vec<u8>,
    number: u64,
    ready: Vec<Ready>,
    ready_bytes: usize,
    /// The line of each that is ready.
    lines: Vec<u64>,
    done: Taken,
    refused: Option<Refused>,
}

impl Taker {
    fn take_all(
        mut self,
        mut reader: BodyReader,
        coding: Coding,
        longest: &Longest,
    ) -> Result<Answer, Problem> {
        let copied = copy_decoded(&mut reader, coding, longest, None, &mut self);
        if copied.is_ok() && !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.take_line(&line);
        }
        // What came whole before a body broke off is taken: it would be the same when it came again.
        if self.refused.is_none() {
            self.hand_over();
        }
        let problem = match (self.refused, copied) {
            (Some(why), _) => Some(refused(why)),
            (None, Ok(_)) => None,
            (None, Err(CopyFailed::TooLong(longest))) => {
                Some(too_long(longest.bytes, &longest.limit))
            }
            (None, Err(CopyFailed::Read(error))) => {
                let broken = reader.problem();
                let malformed = || {
                    let detail = format!("the body cannot be decoded: {error}");
                    Problem::new(400, "encoding", detail)
                };
                Some(broken.unwrap_or_else(malformed))
            }
            (None, Err(other)) => Some(Problem::new(400, "body", format!("{other:?}"))),
        };
        let Taken {
            accepted,
            rejected,
            listed,
            sequence,
            full,
        } = self.done;
        let problem = problem.or_else(|| {
            let detail = format!(
                "{full} rows found no room: send those again later, or raise people.ids; suppression and erasure are still taken"
            );
            (full > 0).then(|| Problem::new(429, "full", detail))
        });
        if let Some(problem) = problem {
            return Err(problem
                .with("accepted", accepted)
                .with("rejected_rows", rejected)
                .with("rejected", listed)
                .with("sequence", sequence));
        }
        let mut answer = json!({"accepted": accepted, "rejected": listed, "sequence": sequence});
        if rejected > LISTED_MAX {
            answer["rejected_rows"] = rejected.into();
        }
        Ok(json_answer(StatusCode::OK, &answer))
    }

    fn take_line(&mut self, line: &[u8]) {
        self.number += 1;
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        if line.len() > LINE_BYTES_MAX {
            self.people.count_unread();
            return self.reject(self.number, "the line is longer than 64 KiB".to_owned());
        }
        let may = |dataset: &Name| self.caller.may(Role::Upload, dataset).is_ok();
        match self.people.read_row(self.kind, line, &may) {
            Ok(row) => {
                self.ready_bytes += row.bytes();
                self.ready.push(row);
                self.lines.push(self.number);
            }
            Err(why) => {
                self.people.count_unread();
                self.reject(self.number, why.to_string());
            }
        }
    }

    fn reject(&mut self, line: u64, reason: String) {
        self.done.rejected += 1;
        if self.done.listed.len() < LISTED_MAX {
            let listed = json!({"line": line, "reason": reason});
            self.done.listed.push(listed);
        }
    }

    /// Waits until what is ready is durable and visible.
    fn hand_over(&mut self) {
        self.ready_bytes = 0;
        let (rows, lines) = (
            std::mem::take(&mut self.ready),
            std::mem::take(&mut self.lines),
        );
        match self.people.take(rows) {
            Ok(Done {
                accepted,
                rejected,
                sequence,
            }) => {
                self.done.accepted += accepted;
                self.done.sequence = sequence;
                for (place, why) in rejected {
                    self.done.full += usize::from(why == Rejection::Full);
                    self.reject(lines.get(place).copied().unwrap_or(0), why.to_string());
                }
            }
            Err(why) => self.refused = Some(why),
        }
    }
}

impl Write for Taker {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len();
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (own, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.take_line(own);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(own);
                self.take_line(&line);
                line.clear();
                self.line = line;
            }
            if self.ready.len() >= ROWS_AT_ONCE || self.ready_bytes >= BYTES_AT_ONCE {
                self.hand_over();
            }
            if self.refused.is_some() {
                return Err(io::Error::other("refused"));
            }
        }
        // Of a line that is too long enough is kept to see that it is.
        let room = (LINE_BYTES_MAX + 1).saturating_sub(self.line.len());
        self.line
            .extend_from_slice(rest.get(..room).unwrap_or(rest));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `POST /v1/optouts`: `{"source", "id"}`, a list of them, or one a line.
pub(super) async fn opt_outs(asked: &mut Asked<'_>) -> Result<Answer, Problem> {
    asked.caller.may_everywhere(Role::Upload)?;
    let people = people(asked)?;
    if !matches!(Coding::of(&asked.head.headers)?, Coding::Identity) {
        let detail = "opt-outs are taken as they are, not compressed";
        return Err(Problem::new(415, "encoding", detail));
    }
    let text = super::switches::lines(asked).await?;
    let takes = "{\"source\": …, \"id\": …}, a list of such, or one a line";
    let bad = |line: usize, error: &dyn std::fmt::Display| {
        let detail = format!("line {line}: {error}; the body is {takes}; nobody was opted out");
        Problem::new(422, "body", detail)
    };
    let mut ids: Vec<PostedId> = Vec::new();
    if let Ok(one) = serde_json::from_str(&text) {
        // One that is written over several lines, perhaps.
        ids.push(one);
    } else if text.trim_start().starts_with('[') {
        ids = serde_json::from_str(&text).map_err(|error| bad(error.line(), &error))?;
    } else {
        for (line, text) in (1..)
            .zip(text.lines())
            .filter(|(_, text)| !text.trim().is_empty())
        {
            ids.push(serde_json::from_str(text).map_err(|error| bad(line, &error))?);
        }
    }
    // All or nobody: who asked for many must not have to find out for whom it went wrong.
    for (place, id) in (1..).zip(&ids) {
        let key = people.reading().keyer.user_key(&id.source, &id.id);
        key.map_err(|error| bad(place, &error))?;
    }
    let by = asked.caller.name.clone();
    let done = blocking(asked, move |state| -> Result<Done, Problem> {
        let generation = state.datasets.live().load();
        let all = ids.into_iter().map(|id| {
            let key = people.reading().keyer.user_key(&id.source, &id.id);
            let keys = key.map_or(Vec::new(), |key| person_of(&generation, &people, key));
            (id, keys)
        });
        let all: Vec<_> = all.collect();
        tracing::info!(count = all.len(), by, "opt-outs");
        people.opt_out(all).map_err(refused)
    })
    .await?;
    let told = json!({"accepted": done.accepted, "sequence": done.sequence});
    Ok(json_answer(StatusCode::OK, &told))
}

/// `DELETE /v1/users/{source}/{id}[?person=true]`.
pub(super) async fn erase(asked: &Asked<'_>, source: &str, id: &str) -> Result<Answer, Problem> {
    asked.caller.may_everywhere(Role::Operate)?;
    let mut whole = false;
    for (key, value) in query(asked.head.uri.query())? {
        whole = match (key.as_str(), value.as_str()) {
            ("person", "true") => true,
            ("person", "false") => false,
            _ => {
                let detail = format!("`{key}={value}` is not understood; there is person=true");
                return Err(Problem::new(400, "query", detail));
            }
        };
    }
    let people = people(asked)?;
    let id = PostedId {
        source: source.to_owned(),
        id: id.to_owned(),
    };
    let key = people.reading().keyer.user_key(&id.source, &id.id);
    let key = key.map_err(|error| Problem::new(422, "id", error.to_string()))?;
    let by = asked.caller.name.clone();
    let (done, count) = blocking(asked, move |state| -> Result<_, Problem> {
        let generation = state.datasets.live().load();
        let keys = match whole {
            true => person_of(&generation, &people, key),
            false => vec![key],
        };
        let count = keys.len();
        tracing::info!(keys = count, by, "erasure");
        people
            .erase(&id, keys)
            .map(|done| (done, count))
            .map_err(refused)
    })
    .await?;
    let told = json!({"erased": count, "sequence": done.sequence});
    Ok(json_answer(StatusCode::OK, &told))
}

/// An id's key, and all others of her whose it is, she herself included.
fn person_of(generation: &Generation, people: &People, key: UserKey) -> Vec<UserKey> {
    let mut keys = vec![key];
    let person_by_link = |key: UserKey| people.view(key).and_then(|view| view.person);
    let linked = person_by_link(key).map(|(person, _)| person);
    let person = linked.or_else(|| generation.person_of(key)).unwrap_or(key);
    let mut others = people.members(person).unwrap_or_default();
    generation.ids_of(person, |_| true, |id, _| others.push(id));
    others.retain(|id| person_by_link(*id).is_none_or(|(of, _)| of == person));
    if person != key || !others.is_empty() {
        keys.push(person);
    }
    keys.extend(others);
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// `GET /v1/journal?after=N[&limit=M]`: rows after that one, a line of JSON each; the header `x-kith-last` says from where to go on.
pub(super) async fn journal(asked: &Asked<'_>) -> Result<Answer, Problem> {
    asked.caller.may_everywhere(Role::Read)?;
    let (mut after, mut limit) = (0u64, PAGE_ROWS);
    for (key, value) in query(asked.head.uri.query())? {
        let bad = |_| {
            let detail = format!("{key}: `{value}` is no whole number");
            Problem::new(400, "query", detail)
        };
        match key.as_str() {
            "after" => after = value.trim_start_matches("seq:").parse().map_err(bad)?,
            "limit" => limit = value.parse().map_err(bad)?,
            _ => {
                let detail = format!("there is no parameter `{key}`; there are after, limit");
                return Err(Problem::new(400, "query", detail));
            }
        }
    }
    let people = people(asked)?;
    let limit = limit.clamp(1, PAGE_ROWS_MAX);
    let page = blocking(asked, move |_: &AdminState| {
        people.feed(after, limit).map_err(|error| match error {
            FeedError::Gone { gone } => {
                Problem::new(410, "gone", error.to_string()).with("gone", gone)
            }
            FeedError::Ahead { last } => {
                Problem::new(409, "ahead", error.to_string()).with("last", last)
            }
            FeedError::Io(_) => Problem::new(503, "storage", error.to_string()),
        })
    })
    .await?;
    let text = String::from_utf8(page.lines).unwrap_or_default();
    let mut answer = text_as("application/x-ndjson", text);
    let last = HeaderValue::from(page.last);
    answer.headers_mut().insert("x-kith-last", last);
    Ok(answer)
}
