//! The handle to the people thread: what others may ask of it, and how it answers.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::acts::{Act, Rejection};
use super::feed::{self, Page};
use super::office::Office;
use super::register::{Counts, Register, Room};
use super::rows::{PostedId, Reading, Row, Unread};
use super::{Known, Standing};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::ids::{Keyer, Name, UserKey};
use crate::storage::{Storage, StorageError};

/// Calls that may wait to be taken.
const INBOX_MAX: usize = 1_024;
/// Rows that may wait; suppression, erasure and opt-out may have as many again.
const WAITING_MAX: usize = 200_000;
/// And bytes of them; twice as many of suppression, erasure and opt-outs.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// What people are kept by.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How rows are read.
    pub reading: Reading,
    /// How much there may be.
    pub room: Room,
    /// How long journals in clear are kept, in seconds; 0: as short as a restart allows.
    pub retention: i64,
    /// Rows since the last checkpoint, in bytes of journal, before the next is written.
    pub checkpoint_bytes: u64,
    /// The highest number that some version has read up to: the next row's is above it, even where the journal is gone.
    pub begin_after: u64,
}

impl Terms {
    /// What a configuration says.
    pub fn of(config: &Config, keyer: Keyer) -> Self {
        let seconds = |of: Duration| u32::try_from(of.as_secs()).unwrap_or(u32::MAX).max(1);
        let people = &config.people;
        let suppression = config.datasets.iter().filter(|dataset| dataset.suppression);
        Self {
            reading: Reading {
                keyer,
                ttl_default: seconds(people.ttl.min(people.ttl_max)),
                ttl_max: seconds(people.ttl_max),
                suppression: suppression.map(|dataset| dataset.name.clone()).collect(),
            },
            room: Room {
                ids: people.ids,
                ids_per_person: config.limits.ids_per_person,
                ids_per_source: config.limits.ids_per_source,
                order_seconds: i64::from(seconds(people.order_window)),
            },
            retention: i64::from(seconds(people.retention)),
            checkpoint_bytes: people.checkpoint_bytes,
            begin_after: 0,
        }
    }
}

/// Asks which ids versions say are a person's, with their sources.
pub type GraphIds = Box<dyn Fn(UserKey) -> Vec<(UserKey, Box<str>)> + Send + Sync>;

/// What kind of rows a call has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of `POST /v1/users`.
    Updates,
    /// Of `POST /v1/links`.
    Links,
}

/// What became of a call's rows, once they are durable and visible.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Done {
    /// Rows that were taken.
    pub accepted: usize,
    /// Rows that were not, by their places.
    pub rejected: Vec<(usize, Rejection)>,
    /// Of the last row of all that were taken.
    pub sequence: u64,
}

/// Why nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The journal is being replayed.
    #[error("starting: the journal is being replayed; try again when /readyz says yes")]
    Starting,
    /// There is more than the disk can keep up with.
    #[error("more rows wait for the disk than may; send them again in a second")]
    Busy,
    /// It cannot be written.
    #[error(
        "the journal cannot be written, so nothing was taken; see the log and kith_people_writes, make room on the disk or mend it, then send it again"
    )]
    Unwritable,
    /// The thread has ended.
    #[error("kith is stopping; send it again when it is back")]
    Stopped,
}

/// Why people cannot be brought back.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The data directory.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// A file.
    #[error(
        "{path}: {reason}; what people asked for stands in it, so Kith does not start without: bring the file back from a backup, or move it away to go on without what it held"
    )]
    File {
        /// Which.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is less room than what is held takes.
    #[error(
        "people.ids is too small for the updates, links and erasures that are held; raise it and start again"
    )]
    Room,
    /// Memory or a thread.
    #[error("starting to keep people failed: {0}")]
    System(#[from] std::io::Error),
}

pub(super) enum Message {
    Rows {
        rows: Vec<Row>,
        reply: SyncSender<Result<Done, Refused>>,
    },
    Ask(Box<dyn FnOnce(&Register) + Send>),
    Stop,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message(..)")
    }
}

/// What there is, in figures.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// What is held.
    pub counts: Counts,
    /// Keys of which something is held.
    pub keys: usize,
    /// Rows taken, refused by rule, and calls refused.
    pub accepted: u64,
    /// Rows refused, with a reason.
    pub rejected: u64,
    /// Links refused because a person has enough ids.
    pub refused_links: u64,
    /// When the oldest opinion that is neither over nor thrown away was received: seconds since 1970.
    pub oldest: i64,
    /// Bytes of journal that a restart would replay.
    pub replay_bytes: u64,
    /// How long the replay at start took.
    pub replay_seconds: f64,
}

/// An opinion, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewedOpinion {
    /// The segment, or `dataset/*`.
    pub segment: String,
    /// Into it.
    pub add: bool,
    /// When it is over.
    pub expires: Timestamp,
    /// Who said so, and his number.
    pub writer: Option<(String, u64)>,
    /// When it was received, among all rows.
    pub sequence: u64,
}

/// What is held of an id, for people to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Whether it was erased, or opted out.
    pub standing: Standing,
    /// What was said of it.
    pub opinions: Vec<ViewedOpinion>,
    /// Whose id it is by a live link, and until when.
    pub person: Option<(UserKey, Timestamp)>,
}

#[derive(Debug)]
struct Shared {
    known: Arc<Known>,
    inbox: SyncSender<Message>,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    reading: Reading,
    storage: Storage,
    writes: Arc<AtomicBool>,
    figures: Arc<Mutex<Figures>>,
    /// Rows that could not be read, or name what the caller may not write to.
    unread: AtomicU64,
    /// Rows replayed so far.
    replayed: Arc<AtomicU64>,
    outcome: Arc<OnceLock<Result<(), PeopleError>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A handle to the people thread. Clones share it; the last one to go ends it.
#[derive(Debug, Clone)]
pub struct People {
    shared: Arc<Shared>,
}

/// Tells the time. By it what is over is thrown away, so it must not leap for a moment: [`Guarded`](crate::clock::Guarded).
pub(super) type Clock = Box<dyn FnMut() -> Timestamp + Send>;

impl People {
    /// Starts the thread, which first brings back what was held: [`People::recovered`] says when, or why not. `clock` is asked on that
    /// thread, and `graph` which ids the live versions say are a person's.
    pub fn start(
        terms: Terms,
        known: Arc<Known>,
        storage: Storage,
        clock: impl FnMut() -> Timestamp + Send + 'static,
        graph: GraphIds,
    ) -> Result<Self, PeopleError> {
        let (inbox, messages) = sync_channel(INBOX_MAX);
        let shared = Arc::new(Shared {
            known: Arc::clone(&known),
            inbox,
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            reading: terms.reading.clone(),
            storage: storage.clone(),
            writes: Arc::new(AtomicBool::new(true)),
            figures: Arc::default(),
            unread: AtomicU64::new(0),
            replayed: Arc::default(),
            outcome: Arc::default(),
            thread: Mutex::default(),
        });
        let (writes, figures) = (Arc::clone(&shared.writes), Arc::clone(&shared.figures));
        let (replayed, outcome) = (Arc::clone(&shared.replayed), Arc::clone(&shared.outcome));
        let begin = move || {
            let begun = Instant::now();
            crate::priority::lower(crate::priority::TAKING);
            let clock = Box::new(clock);
            let office = Office::recover(terms, known, storage, clock, graph, &replayed);
            match office {
                Ok(mut office) => {
                    office.writes = writes;
                    office.figures = figures;
                    office.told.replay_seconds = begun.elapsed().as_secs_f64();
                    office.tell();
                    let _ = outcome.set(Ok(()));
                    office.run(&messages);
                }
                Err(error) => {
                    tracing::error!(%error, "people cannot be brought back");
                    let _ = outcome.set(Err(error));
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("kith-people".to_owned())
            .spawn(begin)?;
        *lock(&shared.thread) = Some(thread);
        Ok(Self { shared })
    }

    /// What everybody may read.
    pub fn known(&self) -> &Arc<Known> {
        &self.shared.known
    }

    /// How rows are read.
    pub fn reading(&self) -> &Reading {
        &self.shared.reading
    }

    /// Whether what was held is there again; nothing while it is being brought back.
    pub fn recovered(&self) -> Option<Result<(), &PeopleError>> {
        self.shared
            .outcome
            .get()
            .map(Result::as_ref)
            .map(|of| of.map(|_| ()))
    }

    /// Counts a row that could not be read.
    pub fn count_unread(&self) {
        self.shared.unread.fetch_add(1, Relaxed);
    }

    /// Rows that could not be read.
    pub fn unread(&self) -> u64 {
        self.shared.unread.load(Relaxed)
    }

    /// Rows replayed so far.
    pub fn replayed(&self) -> u64 {
        self.shared.replayed.load(Relaxed)
    }

    /// False while the journal cannot be written.
    pub fn writes(&self) -> bool {
        self.shared.writes.load(SeqCst)
    }

    /// What there is, as of the last tick.
    pub fn figures(&self) -> Figures {
        *lock(&self.shared.figures)
    }

    /// Reads a call's line.
    pub(crate) fn read_row(
        &self,
        kind: Kind,
        line: &[u8],
        may: &dyn Fn(&Name) -> bool,
    ) -> Result<Ready, Unread> {
        let Shared { known, reading, .. } = &*self.shared;
        let row = match kind {
            Kind::Updates => reading.update(line, known, may),
            Kind::Links => reading.link(line, known),
        };
        row.map(Ready)
    }

    /// Takes rows: waits until those that may be are durable and seen by the next bid.
    pub(crate) fn take(&self, rows: Vec<Ready>) -> Result<Done, Refused> {
        let count = rows.len();
        let shared = &*self.shared;
        let suppresses = |Ready(row): &Ready| match &row.act {
            Act::Update(update) => update.suppresses,
            Act::Erase { .. } | Act::OptOut { .. } => true,
            Act::Link(_) | Act::Unlink { .. } => false,
        };
        let most = match rows.iter().all(suppresses) {
            true => WAITING_MAX.saturating_mul(2),
            false => WAITING_MAX,
        };
        if shared.outcome.get().is_none() {
            return Err(Refused::Starting);
        }
        let bytes: usize = rows.iter().map(Ready::bytes).sum();
        let bytes_most = match most > WAITING_MAX {
            true => WAITING_BYTES_MAX.saturating_mul(2),
            false => WAITING_BYTES_MAX,
        };
        let waiting = shared.waiting.fetch_add(count, SeqCst);
        let waiting_bytes = shared.waiting_bytes.fetch_add(bytes, SeqCst);
        let goes = || {
            shared.waiting.fetch_sub(count, SeqCst);
            shared.waiting_bytes.fetch_sub(bytes, SeqCst);
        };
        if waiting > most || waiting_bytes > bytes_most {
            goes();
            return Err(Refused::Busy);
        }
        let (reply, answer) = sync_channel(1);
        let rows = rows.into_iter().map(|Ready(row)| row).collect();
        let sent = shared.inbox.send(Message::Rows { rows, reply });
        let answer = sent.ok().and_then(|()| answer.recv().ok());
        goes();
        answer.unwrap_or(Err(Refused::Stopped))
    }

    /// Takes the lines of a text, for whoever has Kith within: what became of those that could be read, and how many could not.
    ///
    /// # Errors
    /// Where nothing could be taken.
    pub fn take_lines(&self, kind: Kind, text: &[u8]) -> Result<(Done, usize), Refused> {
        let lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let read: Vec<_> = lines
            .map(|line| self.read_row(kind, line, &|_| true))
            .collect();
        let all = read.len();
        let rows: Vec<Ready> = read.into_iter().filter_map(Result::ok).collect();
        let unread = all.saturating_sub(rows.len());
        Ok((self.take(rows)?, unread))
    }

    /// Erases these keys, asked for by that id.
    pub fn erase(&self, id: &PostedId, keys: Vec<UserKey>) -> Result<Done, Refused> {
        self.take(vec![Ready(Reading::erase(id, keys))])
    }

    /// Has those opt out who have these keys, asked for by those ids.
    pub fn opt_out(&self, all: Vec<(PostedId, Vec<UserKey>)>) -> Result<Done, Refused> {
        let rows = all.into_iter();
        let rows = rows.map(|(id, keys)| Ready(Reading::opt_out(&id, keys)));
        self.take(rows.collect())
    }

    /// Rows after a position, for segment jobs.
    pub fn feed(&self, after: u64, rows_max: usize) -> Result<Page, feed::FeedError> {
        let Shared {
            known,
            storage,
            reading,
            ..
        } = &*self.shared;
        feed::page(storage.dir(), known, &reading.keyer, after, rows_max)
    }

    /// What is held of an id.
    pub fn view(&self, key: UserKey) -> Option<View> {
        let known = Arc::clone(&self.shared.known);
        self.ask(move |register| view(register, &known, key))
    }

    /// The ids that live links say are a person's.
    pub fn members(&self, person: UserKey) -> Option<Vec<UserKey>> {
        self.ask(move |register| register.held(person).map(|held| held.members.clone()))
            .map(Option::unwrap_or_default)
    }

    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Register) -> T + Send + 'static,
    ) -> Option<T> {
        self.shared.outcome.get()?;
        let (reply, answer) = sync_channel(1);
        let ask = Box::new(move |register: &Register| {
            let _ = reply.send(question(register));
        });
        self.shared.inbox.send(Message::Ask(ask)).ok()?;
        answer.recv().ok()
    }

    /// Ends the thread, when all that it was handed is written.
    pub fn close(&self) {
        let _ = self.shared.inbox.send(Message::Stop);
        if let Some(thread) = lock(&self.shared.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.inbox.send(Message::Stop);
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

/// A row that was read and may be taken.
#[derive(Debug)]
pub(crate) struct Ready(Row);

impl Ready {
    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn view(register: &Register, known: &Known, key: UserKey) -> View {
    let Some(held) = register.held(key) else {
        return View::default();
    };
    let time = |second: u32| Timestamp::from_unix_seconds(i64::from(second));
    let opinions = held.opinions.iter().filter_map(|of| {
        let writer = known.writers.name(of.writer)?;
        Some(ViewedOpinion {
            segment: known.segment_name(of.number)?.to_string(),
            add: of.add,
            expires: time(of.expires),
            writer: (!writer.is_empty()).then(|| (writer.to_string(), of.seq)),
            sequence: of.rank,
        })
    });
    View {
        standing: held.standing,
        opinions: opinions.collect(),
        person: held.link.map(|link| (link.person, time(link.expires))),
    }
}
