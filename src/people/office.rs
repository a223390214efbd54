//! The people thread: takes rows, keeps the register, and has the journal written before anybody is told.
//!
//! One turn: take what has come in, enter it, write the journal once for all of it (the log of erasures first), show it to bid threads, then
//! answer. While the journal cannot be written updates are refused; erasures and opt-outs are not, whose log has room of its own.
//!
//! Between turns it writes checkpoints a slice at a time, closes the hour's file for [`feed`] to compress, and throws away what
//! is over.
//!
//! Cost: a turn every [`TURN`] while nothing happens; a call waits for one sync of the disk that it shares with all that came with it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Known;
use super::acts::{Act, Link, Rejection};
use super::checkpoint::{self, Author};
use super::feed::{self, JOURNAL_MAGIC, Piece};
use super::frames;
use super::handle::{Clock, Done, Figures, GraphIds, Message, PeopleError, Refused, Terms, lock};
use super::marks::{self, Marks};
use super::register::Register;
use super::rows::{Reading, Row, owner, write_line};
use crate::clock::Timestamp;
use crate::ids::UserKey;
use crate::storage::{Log, Storage, StorageError, StorageWriter, open_to_read};

/// How long a turn waits for something to happen.
const TURN: Duration = Duration::from_millis(20);
/// How often what is over is looked for, and figures are taken.
const TICK: Duration = Duration::from_millis(200);
/// Rows of one turn, about: what is written with one sync.
const TURN_ROWS_MAX: usize = 50_000;
/// Places looked at in one turn, for what is over and for a checkpoint.
const SLICE: usize = 4_096;
/// A journal's file is closed when it is longer.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// And bytes of them.
const TURN_BYTES_MAX: usize = 16 << 20;
/// How long a file is left alone that could not be compressed.
const COMPRESS_AGAIN: Duration = Duration::from_secs(60);

/// Rows, and who waits for them.
type Call = (Vec<Row>, SyncSender<Result<Done, Refused>>);

/// A checkpoint that is being written.
struct Writing {
    out: StorageWriter,
    author: Author,
    sequence: u64,
}

pub(super) struct Office {
    known: Arc<Known>,
    terms: Terms,
    register: Register,
    storage: Storage,
    clock: Clock,
    graph: GraphIds,
    marks: Marks,
    log: Log,
    /// The hour in which the journal's file was begun that is written on.
    hour: i64,
    /// What the journal could not take.
    unwritten: Vec<u8>,
    /// The last receipt time: it never goes back.
    last: Timestamp,
    pub(super) writes: Arc<AtomicBool>,
    pub(super) figures: Arc<Mutex<Figures>>,
    pub(super) told: Figures,
    writing: Option<Writing>,
    /// The row up to which the last checkpoint holds all.
    checkpointed: u64,
    since: u64,
    ticked: Option<Instant>,
    compressing: Option<JoinHandle<bool>>,
    /// When it may be tried again.
    compress_after: Option<Instant>,
}

impl Office {
    pub(super) fn recover(
        terms: Terms,
        known: Arc<Known>,
        storage: Storage,
        mut clock: Clock,
        graph: GraphIds,
        replayed: &AtomicU64,
    ) -> Result<Self, PeopleError> {
        let dir = storage.dir().to_owned();
        let mut register = Register::new(Arc::clone(&known), terms.room);
        let marks = Marks::recover(&storage, terms.reading.keyer.key_id(), &mut register)?;
        let checkpoint = dir.join(feed::CHECKPOINT);
        let checkpointed = read(&checkpoint, |file| {
            checkpoint::read(file, &mut register, &known)
        })?;
        let checkpoint::Head {
            sequence: checkpointed,
            marks_bytes,
        } = checkpointed.unwrap_or_default();
        marks.vouched(marks_bytes, &dir)?;
        register.came_to(checkpointed);
        let files = feed::journals(&dir)?;
        let mut end = 0;
        for (place, piece) in files.iter().enumerate() {
            let is_last = place.saturating_add(1) == files.len();
            let path = dir.join(&piece.path);
            let next = files.get(place.saturating_add(1));
            if next.is_some_and(|next| next.first.saturating_sub(1) <= checkpointed) {
                // The checkpoint has all of it.
                continue;
            }
            let found = read(&path, |file| {
                frames::read(
                    std::io::BufReader::with_capacity(1 << 18, file),
                    JOURNAL_MAGIC,
                    |body| {
                        let done =
                            replay(body, checkpointed, &terms.reading, &known, &mut register);
                        replayed.fetch_add(done.unwrap_or(0), Relaxed);
                        done.is_some()
                    },
                )
            })?;
            end = found.unwrap_or(0);
            let bytes = std::fs::metadata(&path).map_or(0, |of| of.len());
            if end < bytes && !is_last {
                return Err(PeopleError::File {
                    path: path.display().to_string(),
                    reason: format!("it is cut after byte {end}, and there is a later file"),
                });
            }
        }
        register.came_to(terms.begin_after);
        let now = clock();
        // What was held had room before, unless there is less now.
        if register.publish(now).is_err() {
            return Err(PeopleError::Room);
        }
        known.sequence.store(register.sequence(), Relaxed);
        let next = register.sequence().saturating_add(1);
        let hour = now.unix_seconds().div_euclid(3600);
        let fresh = || (feed::journal_file(next, hour), hour);
        let (path, hour) = files
            .last()
            .map_or_else(fresh, |of| (of.path.clone(), of.hour));
        let mut log = storage.open_log(&path, end)?;
        if log.length() == 0 {
            log.append(JOURNAL_MAGIC.to_vec())?;
        }
        let since = log.length();
        Ok(Self {
            known,
            register,
            marks,
            log,
            hour,
            unwritten: Vec::new(),
            last: now,
            writes: Arc::default(),
            figures: Arc::default(),
            told: Figures::default(),
            writing: None,
            checkpointed,
            since,
            ticked: None,
            compressing: None,
            compress_after: None,
            terms,
            storage,
            clock,
            graph,
        })
    }

    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let mut batch = Vec::new();
            match messages.recv_timeout(self.patience()) {
                Ok(message) => batch.push(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let (mut rows, mut bytes) = (0usize, 0usize);
            for message in messages.try_iter() {
                if let Message::Rows { rows: own, .. } = &message {
                    rows = rows.saturating_add(own.len());
                    let own = own.iter().map(Row::bytes);
                    bytes = bytes.saturating_add(own.sum());
                }
                batch.push(message);
                if rows >= TURN_ROWS_MAX || bytes >= TURN_BYTES_MAX {
                    break;
                }
            }
            if !self.turn(batch) {
                return;
            }
        }
    }

    /// While a checkpoint is being written there is always something to do.
    fn patience(&self) -> Duration {
        match self.writing.is_some() {
            true => Duration::from_millis(1),
            false => TURN,
        }
    }

    fn now(&mut self) -> Timestamp {
        self.last = self.last.max((self.clock)());
        self.last
    }

    /// One turn; false when it was the last.
    fn turn(&mut self, batch: Vec<Message>) -> bool {
        let now = self.now();
        let mut goes_on = true;
        let mut calls = Vec::new();
        let mut asked = Vec::new();
        for message in batch {
            match message {
                Message::Rows { rows, reply } => calls.push((rows, reply)),
                Message::Ask(ask) => asked.push(ask),
                Message::Stop => goes_on = false,
            }
        }
        if !calls.is_empty() || !self.unwritten.is_empty() {
            self.take(calls, now);
        }
        for ask in asked {
            ask(&self.register);
        }
        self.look_after(now);
        goes_on
    }

    fn take(&mut self, calls: Vec<Call>, now: Timestamp) {
        let at = now.to_string();
        let second = now.unix_seconds();
        let was_stuck = !self.unwritten.is_empty();
        let mut lines = Vec::new();
        let mut body = Vec::new();
        let mut marked = Vec::new();
        let mut reached = Vec::new();
        let mut answers = Vec::new();
        for (rows, reply) in &calls {
            let mut done = Done::default();
            let (mut writes, mut is_marked) = (false, false);
            for (place, row) in rows.iter().enumerate() {
                match &row.act {
                    Act::Erase { .. } | Act::OptOut { .. } => {
                        is_marked = true;
                        done.accepted = done.accepted.saturating_add(1);
                        marks::put(&row.act, &mut body);
                        marked.push(row);
                    }
                    _ if was_stuck => writes = true,
                    act => match self.check(act, second) {
                        Ok(()) => {
                            writes = true;
                            let sequence = self.enter(row, &at, second, &mut lines);
                            done.sequence = sequence;
                            done.accepted = done.accepted.saturating_add(1);
                            if let Act::Link(link) = act
                                && let Some(row) = self.reached(row, link, second)
                            {
                                is_marked = true;
                                reached.push(row);
                            }
                        }
                        Err(why) => done.rejected.push((place, why)),
                    },
                }
            }
            answers.push((reply, done, writes, is_marked));
        }
        for row in &reached {
            marks::put(&row.act, &mut body);
            marked.push(row);
        }
        let erased = self.mark(&body, &marked, &at, second, now, &mut lines);
        let written = self.write(lines) && !was_stuck;
        let visible = match self.writes.load(SeqCst) {
            true => self.register.publish(now).is_ok(),
            false => false,
        };
        if visible {
            self.known.sequence.store(self.register.sequence(), Relaxed);
        }
        // The position of the journal: what is not in it has none yet that anybody could go by.
        let sequence = self.known.sequence();
        for (reply, mut done, writes, is_marked) in answers {
            let failed = is_marked && !erased || writes && !(written && visible);
            if done.sequence == 0 {
                done.sequence = sequence;
            }
            let Figures {
                accepted,
                rejected,
                refused_links,
                ..
            } = &mut self.told;
            *rejected = rejected.saturating_add(done.rejected.len() as u64);
            let of_link = |(_, why): &&(usize, Rejection)| {
                matches!(why, Rejection::PersonFull | Rejection::SourceFull)
            };
            let links = done.rejected.iter().filter(of_link).count();
            *refused_links = refused_links.saturating_add(links as u64);
            let _ = reply.send(match failed {
                true => Err(Refused::Unwritable),
                false => {
                    *accepted = accepted.saturating_add(done.accepted as u64);
                    Ok(done)
                }
            });
        }
    }

    fn check(&self, act: &Act, now: i64) -> Result<(), Rejection> {
        self.register.check(act, &|of| self.ids_of(of), now)
    }

    /// A person's ids, by what the live versions say.
    fn ids_of(&self, person: UserKey) -> Vec<(UserKey, u32)> {
        let ids = (self.graph)(person).into_iter();
        let ids = ids.filter_map(|(id, source)| {
            // A source that has no number has no live link.
            Some((id, self.known.sources.number(&source)?))
        });
        ids.collect()
    }

    /// A row by which those opt out whom a link has just made one with somebody who did.
    fn reached(&self, row: &Row, link: &Link, now: i64) -> Option<Row> {
        let keys = self.register.reached(link, &|of| self.ids_of(of), now);
        (!keys.is_empty()).then(|| Reading::opt_out_with(row, keys))
    }

    /// Enters a row under the next number, which is returned.
    fn enter(&mut self, row: &Row, at: &str, second: i64, lines: &mut Vec<u8>) -> u64 {
        let sequence = self.register.sequence().saturating_add(1);
        self.known.times.note(second, sequence);
        write_line(&row.tail, sequence, at, lines);
        self.register.apply(&row.act, sequence, second);
        sequence
    }

    /// Writes what was erased or opted out into its own log, then enters it and shows it; whether that could be.
    fn mark(
        &mut self,
        body: &[u8],
        marked: &[&Row],
        at: &str,
        second: i64,
        now: Timestamp,
        lines: &mut Vec<u8>,
    ) -> bool {
        if marked.is_empty() {
            return true;
        }
        if !body.is_empty()
            && let Err(error) = self.marks.append(body)
        {
            tracing::error!(%error, "erasures and opt-outs cannot be written");
            return false;
        }
        let mut told = true;
        for row in marked {
            self.enter(row, at, second, lines);
            if let Act::Erase { keys } | Act::OptOut { keys } = &row.act {
                told &= self.register.publish_only(keys, now).is_ok();
            }
        }
        told
    }

    /// Has the journal written; whether all of it is.
    fn write(&mut self, lines: Vec<u8>) -> bool {
        frames::write_lines(&lines, frames::PART_BYTES, &mut self.unwritten);
        if self.unwritten.is_empty() {
            return true;
        }
        match self.log.append(self.unwritten.clone()) {
            Ok(()) => {
                self.since = self.since.saturating_add(self.unwritten.len() as u64);
                self.unwritten.clear();
                if !self.writes.swap(true, SeqCst) {
                    tracing::info!("the people journal is written again");
                }
                true
            }
            Err(error) => {
                if self.writes.swap(false, SeqCst) {
                    tracing::error!(%error, "the people journal cannot be written: updates are refused until it can");
                }
                false
            }
        }
    }

    /// Whatever is not about a call.
    fn look_after(&mut self, now: Timestamp) {
        self.go_on_writing();
        if self.ticked.is_some_and(|at| at.elapsed() < TICK) {
            return;
        }
        self.ticked = Some(Instant::now());
        let second = now.unix_seconds();
        self.register.turn(second);
        let covered = self.known.covered();
        self.register.sweep(SLICE, &covered, second);
        if self.writes.load(SeqCst) {
            let _ = self.register.publish(now);
        }
        self.close_file(now);
        if self.since > self.terms.checkpoint_bytes {
            self.begin_checkpoint();
        }
        self.forget(now);
        self.tell();
    }

    pub(super) fn tell(&mut self) {
        self.told.counts = self.register.counts();
        self.told.keys = self.register.keys();
        self.told.oldest = self
            .register
            .oldest()
            .map_or(0, |of| self.known.times.second_of(of));
        self.told.replay_bytes = self.since;
        *lock(&self.figures) = self.told;
    }

    /// Closes the journal's file at the end of the hour, or when it is long: the next rows go into another.
    fn close_file(&mut self, now: Timestamp) {
        let hour = now.unix_seconds().div_euclid(3600);
        let is_begun = self.log.length() > JOURNAL_MAGIC.len() as u64;
        let is_over = hour != self.hour && is_begun || self.log.length() > FILE_BYTES_MAX;
        if !is_over || !self.unwritten.is_empty() {
            return;
        }
        let first = self.register.sequence().saturating_add(1);
        let opened = self.storage.open_log(&feed::journal_file(first, hour), 0);
        let begun = opened.and_then(|mut log| {
            log.append(JOURNAL_MAGIC.to_vec())?;
            Ok(log)
        });
        match begun {
            Ok(log) => {
                self.log = log;
                self.hour = hour;
                // So that what is over is not kept for the sake of a restart.
                self.begin_checkpoint();
            }
            Err(error) => {
                tracing::warn!(%error, "the next file of the people journal could not be begun")
            }
        }
    }

    fn begin_checkpoint(&mut self) {
        if self.writing.is_some() || !self.unwritten.is_empty() {
            return;
        }
        let (sequence, marked) = (self.register.sequence(), self.marks.length());
        let begun = self.storage.create().and_then(|mut out| {
            std::io::Write::write_all(&mut out, &Author::begin(sequence, marked)).map_err(
                |source| StorageError::Io {
                    path: feed::CHECKPOINT.to_owned(),
                    source,
                },
            )?;
            Ok(out)
        });
        match begun {
            Ok(out) => {
                self.since = 0;
                self.writing = Some(Writing {
                    out,
                    author: Author::default(),
                    sequence,
                });
            }
            Err(error) => tracing::warn!(%error, "a checkpoint of people could not be begun"),
        }
    }

    /// The next slice of a checkpoint, and its end.
    fn go_on_writing(&mut self) {
        let Some(writing) = &mut self.writing else {
            return;
        };
        let (bytes, is_last) = writing.author.slice(&self.register, &self.known, SLICE);
        let mut done = std::io::Write::write_all(&mut writing.out, &bytes);
        if is_last && done.is_ok() {
            let end = writing.author.end(&self.register, &self.known);
            done = std::io::Write::write_all(&mut writing.out, &end);
        }
        if let Err(error) = done {
            tracing::warn!(%error, "a checkpoint of people could not be written; the journal is kept");
            self.writing = None;
            return;
        }
        // What stands in a checkpoint must not be later than the journal.
        if is_last
            && self.unwritten.is_empty()
            && let Some(writing) = self.writing.take()
        {
            match writing.out.commit(Path::new(feed::CHECKPOINT)) {
                Ok(_) => self.checkpointed = writing.sequence,
                Err(error) => tracing::warn!(%error, "a checkpoint of people could not be kept"),
            }
        }
    }

    /// Compresses files that are closed, and removes what nobody needs.
    fn forget(&mut self, now: Timestamp) {
        if self
            .compressing
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
        {
            return;
        }
        if let Some(thread) = self.compressing.take()
            && !thread.join().unwrap_or(false)
        {
            self.compress_after = Instant::now().checked_add(COMPRESS_AGAIN);
        }
        let oldest = now.unix_seconds().saturating_sub(self.terms.retention);
        let dir = self.storage.dir().to_owned();
        let Ok(files) = feed::journals(&dir) else {
            return;
        };
        let Ok(compressed) = feed::compressed(&dir) else {
            return;
        };
        let is_old = |piece: &Piece| piece.hour.saturating_add(1).saturating_mul(3600) <= oldest;
        let may_compress = self
            .compress_after
            .is_none_or(|after| Instant::now() >= after);
        let closed = files.iter().zip(files.iter().skip(1));
        for (piece, next) in closed {
            let is_in_checkpoint = next.first.saturating_sub(1) <= self.checkpointed;
            let is_compressed = compressed.iter().any(|of| of.first == piece.first);
            if is_in_checkpoint && (is_old(piece) || is_compressed) {
                let _ = self.storage.remove(&piece.path);
            } else if !is_compressed && !is_old(piece) && may_compress {
                let (storage, piece) = (self.storage.clone(), piece.clone());
                let (known, keyer) = (Arc::clone(&self.known), self.terms.reading.keyer.clone());
                let compress = move || {
                    crate::priority::give_way();
                    let done = feed::compress(&storage, &piece, &known, &keyer);
                    if let Err(error) = &done {
                        tracing::warn!(%error, "an hour of the people journal could not be compressed; it is tried again in a minute");
                    }
                    done.is_ok()
                };
                let thread = std::thread::Builder::new().name("kith-feed".to_owned());
                self.compressing = thread.spawn(compress).ok();
                break;
            }
        }
        for old in compressed.iter().filter(|piece| is_old(piece)) {
            let _ = self.storage.remove(&old.path);
        }
    }
}

/// Enters a frame of the journal, but for rows that a checkpoint has; how many.
pub(super) fn replay(
    body: &[u8],
    checkpointed: u64,
    reading: &Reading,
    known: &Known,
    register: &mut Register,
) -> Option<u64> {
    let mut rows = 0u64;
    for line in body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let (sequence, at, act) = reading.journalled(line, known).ok()?;
        known.times.note(at.unix_seconds(), sequence);
        let act_is_elsewhere = act.is_none();
        if sequence > checkpointed
            && let Some(act) = act
        {
            register.apply(&act, sequence, at.unix_seconds());
        }
        if act_is_elsewhere && !is_marked(line, reading, register) {
            return None;
        }
        register.came_to(sequence);
        rows = rows.saturating_add(1);
    }
    Some(rows)
}

/// Whether the log of erasures and opt-outs has what a line of the journal says.
fn is_marked(line: &[u8], reading: &Reading, register: &Register) -> bool {
    owner(line, &reading.keyer).is_some_and(|(key, erases)| {
        let standing = register.standing(key);
        match erases {
            true => standing.erased,
            false => standing.opted_out,
        }
    })
}

/// Reads a file, where it is there.
fn read<T>(
    path: &Path,
    read: impl FnOnce(std::fs::File) -> Result<T, frames::Unread>,
) -> Result<Option<T>, PeopleError> {
    let damaged = |reason: String| PeopleError::File {
        path: path.display().to_string(),
        reason,
    };
    match open_to_read(path) {
        Ok(file) => read(file)
            .map(Some)
            .map_err(|error| damaged(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(damaged(error.to_string())),
    }
}
