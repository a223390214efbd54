//! The ledger's own thread: hears desks and notices, keeps the books, and has the journal written before anybody is told.
//!
//! One turn: take what has come in, first what desks told (a bid is opened before its notice is looked at), enter it, write the
//! journal once for all of it, then answer. While the journal cannot be written nobody bids on anything, notices are answered
//! "try again", and what was to be written is tried again; nothing of it is lost. While the system's clock has leapt and it is not
//! known whether that was meant, nobody bids either, and the books go by the time before ([`Guarded`]).
//!
//! Cost: a turn every [`TURN`] while nothing happens; a notice waits for one sync of the disk that it shares with all that came
//! with it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::contacts::Scopes;
use super::desk::{Desk, SharedKeys, Told};
use super::keeper::{Booked, Figures, Keeper, Outcome, Said, Terms};
use super::plan::Plan;
use super::records;
use super::settled::Kind;
use super::switches::Switch;
use super::token::Token;
use crate::campaigns::Book;
use crate::clock::{Guarded, LASTING, Timestamp};
use crate::ids::UserKey;
use crate::storage::{Log, Storage, StorageError, open_to_read};

/// The journal's file, in the data directory.
const JOURNAL: &str = "ledger/journal";
/// How long a turn waits for something to happen.
const TURN: Duration = Duration::from_millis(20);
/// How often windows, days and leases are looked after.
const TICK: Duration = Duration::from_millis(200);
/// Bids that a desk may be ahead of the ledger; further ones are refused. At 50,000 a second, 0.6 s.
const DESK_AHEAD_MAX: usize = 32_768;
/// Notices and questions that may wait.
const INBOX_MAX: usize = 8_192;
/// Most of them in one turn.
const TURN_MESSAGES_MAX: usize = 4_096;

/// What a notice is answered with, when it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// It was looked at, and what it did is in the journal.
    Booked(Booked),
    /// The journal cannot be written now: it must come again.
    TryAgain,
}

/// Hears how a notice was answered, on the ledger's thread: must not block.
pub type Hearer = Box<dyn FnOnce(Answered) + Send>;

enum Message {
    Desk(Receiver<Told>),
    Plan {
        book: Arc<Book>,
        reply: SyncSender<Arc<Plan>>,
    },
    Notice {
        kind: Kind,
        token: Box<Token>,
        said: Said,
        hearer: Hearer,
    },
    Count(Outcome),
    Exposures {
        all: Vec<Exposure>,
        reply: SyncSender<bool>,
    },
    Switch {
        switch: Switch,
        off: bool,
        reply: SyncSender<bool>,
    },
    Filed(u32),
    Ask(Box<dyn FnOnce(&Keeper) + Send>),
    Stop,
}

/// A contact that another channel reports.
#[derive(Debug, Clone, Copy)]
pub struct Exposure {
    /// Of whom.
    pub key: UserKey,
    /// When, in seconds since 1970.
    pub at: u32,
    /// Of what.
    pub scopes: Scopes,
    /// How long it counts for some cap, in seconds.
    pub remembered: u32,
}

/// Why the ledger could not start.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The journal's file.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// What the journal holds.
    #[error(
        "{path}: {reason}; money was counted in it, so Kith does not start without: bring the file back from a backup, or move it away to begin with nothing spent"
    )]
    Journal {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Randomness, or a thread.
    #[error("starting the ledger failed: {0}")]
    System(#[from] std::io::Error),
}

/// A handle to the ledger. Clones share it; the last one to go ends its thread.
#[derive(Debug, Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inbox: SyncSender<Message>,
    desks: AtomicU16,
    start: u32,
    keys: SharedKeys,
    writes: Arc<AtomicBool>,
    figures: Arc<Mutex<Figures>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message(..)")
    }
}

impl Ledger {
    /// Reads the journal and opens for business. `clock` is asked on the ledger's own thread.
    pub fn start(
        terms: Terms,
        storage: Storage,
        clock: fn() -> Timestamp,
    ) -> Result<Self, LedgerError> {
        Self::start_believing(terms, storage, clock, LASTING)
    }

    /// The same, which believes steps of the clock that have lasted so long.
    pub(crate) fn start_believing(
        terms: Terms,
        storage: Storage,
        clock: fn() -> Timestamp,
        lasting: Duration,
    ) -> Result<Self, LedgerError> {
        let longest = u64::try_from(terms.journal_bytes).unwrap_or(u64::MAX);
        let mut keeper = Keeper::new(terms)?;
        let path = Path::new(JOURNAL);
        let length = recover(&mut keeper, &storage.dir().join(path))?;
        keeper.files_are_before(0);
        let [a, b, c, d, ..] = random()?;
        let time = Guarded::after(lasting, clock(), Instant::now());
        let now = time.at(Instant::now());
        keeper.begin(now, random()?, u32::from_be_bytes([a, b, c, d]));
        let mut log = storage.open_log(path, length)?;
        let mut first = match length {
            0 => records::MAGIC.to_vec(),
            _ => Vec::new(),
        };
        first.extend(keeper.take_out());
        log.append(first)?;
        keeper.written();
        let (inbox, messages) = sync_channel(INBOX_MAX);
        let (start, keys) = (keeper.start(), keeper.shared_keys().clone());
        let writes = Arc::new(AtomicBool::new(true));
        let figures = Arc::new(Mutex::new(keeper.figures()));
        let office = Office {
            keeper,
            storage,
            begun_with: 0,
            replaced: None,
            longest,
            log,
            clock,
            desks: Vec::new(),
            unwritten: Vec::new(),
            writes: Arc::clone(&writes),
            figures: Arc::clone(&figures),
            time,
            is_sure: true,
            ticked: None,
            plan: None,
        };
        let thread = std::thread::Builder::new()
            .name("kith-ledger".to_owned())
            .spawn(move || office.run(&messages))?;
        Ok(Self {
            shared: Arc::new(Shared {
                inbox,
                desks: AtomicU16::new(0),
                start,
                keys,
                writes,
                figures,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// A desk for one more bid thread.
    pub fn desk(&self) -> Desk {
        let (told, hears) = sync_channel(DESK_AHEAD_MAX);
        let _ = self.shared.inbox.send(Message::Desk(hears));
        let number = self.shared.desks.fetch_add(1, SeqCst);
        Desk::new(self.shared.start, number, told, self.shared.keys.clone())
    }

    /// The ledger's side of a book that is to be live. Waits until its first leases are durable.
    pub fn plan(&self, book: &Arc<Book>) -> Arc<Plan> {
        let (reply, answer) = sync_channel(1);
        let book = Arc::clone(book);
        let asked = self.shared.inbox.send(Message::Plan { book, reply });
        let plan = asked.ok().and_then(|()| answer.recv().ok());
        // The thread has ended: nothing may be bid.
        plan.unwrap_or_else(|| Arc::new(Plan::stopped()))
    }

    /// Hands in a notice; never waits. `hearer` is told when it is durable.
    pub fn notice(&self, kind: Kind, token: Token, said: Said, hearer: Hearer) {
        let token = Box::new(token);
        let message = Message::Notice {
            kind,
            token,
            said,
            hearer,
        };
        match self.shared.inbox.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                if let Message::Notice { hearer, .. } = message {
                    hearer(Answered::TryAgain);
                }
            }
        }
    }

    /// Counts a notice whose token is none of ours.
    pub fn count(&self, outcome: Outcome) {
        let _ = self.shared.inbox.try_send(Message::Count(outcome));
    }

    /// Counts contacts of other channels; true once they are durable.
    pub fn exposures(&self, all: Vec<Exposure>) -> bool {
        let (reply, answer) = sync_channel(1);
        let asked = self.shared.inbox.send(Message::Exposures { all, reply });
        asked.is_ok() && answer.recv() == Ok(true)
    }

    /// Switches something off, or on again; true once that is durable.
    pub fn switch(&self, switch: Switch, off: bool) -> bool {
        let (reply, answer) = sync_channel(1);
        let asked = self
            .shared
            .inbox
            .send(Message::Switch { switch, off, reply });
        asked.is_ok() && answer.recv() == Ok(true)
    }

    /// Asks the books something, between two turns.
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Keeper) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = sync_channel(1);
        let ask = Box::new(move |keeper: &Keeper| {
            let _ = reply.send(question(keeper));
        });
        self.shared.inbox.send(Message::Ask(ask)).ok()?;
        answer.recv().ok()
    }

    /// Says that hours, since 1970, before this one are in their files. The report keeps an hour apart until it is.
    pub fn files_are_before(&self, hour: u32) {
        let _ = self.shared.inbox.send(Message::Filed(hour));
    }

    /// The books in figures, as of the last tick.
    pub fn figures(&self) -> Figures {
        let figures = self.shared.figures.lock();
        figures.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// False while the journal cannot be written, and nothing is bid.
    pub fn writes(&self) -> bool {
        self.shared.writes.load(SeqCst)
    }

    /// Closes the books: what is held is known exactly at the next start.
    pub fn close(&self) {
        let _ = self.shared.inbox.send(Message::Stop);
        let mut thread = self
            .shared
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.inbox.send(Message::Stop);
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads the journal into the books; the length of what is whole.
fn recover(keeper: &mut Keeper, path: &Path) -> Result<u64, LedgerError> {
    let damaged = |reason: String| LedgerError::Journal {
        path: path.display().to_string(),
        reason,
    };
    let bytes = match open_to_read(path) {
        Ok(mut file) => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut bytes)
                .map_err(|error| damaged(error.to_string()))?;
            bytes
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(damaged(error.to_string())),
    };
    let mut fits = true;
    let end = records::read(&bytes, |record| fits &= keeper.replay(record));
    let end = end.map_err(|error| damaged(error.to_string()))?;
    if !fits {
        return Err(damaged("its records contradict each other".to_owned()));
    }
    if end < bytes.len() {
        tracing::warn!(
            bytes = bytes.len().saturating_sub(end),
            "the ledger's journal ends within a record, as a crash leaves it; what was acknowledged is whole"
        );
    }
    Ok(end as u64)
}

fn random() -> Result<[u8; 32], std::io::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(secret)
}

struct Office {
    keeper: Keeper,
    storage: Storage,
    log: Log,
    /// Length of the journal when it was begun.
    begun_with: u64,
    /// Another file of this length has taken the journal's place, and is to be opened before anything is written.
    replaced: Option<u64>,
    /// It is begun anew when it is longer than this, and than four times what it was begun with.
    longest: u64,
    clock: fn() -> Timestamp,
    desks: Vec<Receiver<Told>>,
    /// What the journal could not take.
    unwritten: Vec<u8>,
    writes: Arc<AtomicBool>,
    figures: Arc<Mutex<Figures>>,
    time: Guarded,
    /// Whether the system's clock is believed.
    is_sure: bool,
    ticked: Option<Instant>,
    /// The last plan, for as long as its book is live.
    plan: Option<(Arc<Book>, Arc<Plan>)>,
}

/// What is told when the journal is written.
enum After {
    Plan(SyncSender<Arc<Plan>>, Arc<Plan>),
    Notice(Hearer, Booked),
    Done(SyncSender<bool>),
}

impl Office {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let mut batch = Vec::new();
            match messages.recv_timeout(TURN) {
                Ok(message) => batch.push(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            batch.extend(messages.try_iter().take(TURN_MESSAGES_MAX));
            if !self.turn(batch) {
                return;
            }
        }
    }

    /// One turn; false when it was the last.
    fn turn(&mut self, batch: Vec<Message>) -> bool {
        for desk in &self.desks {
            for told in desk.try_iter().take(DESK_AHEAD_MAX) {
                self.keeper.told(told);
            }
        }
        let now = self.now();
        let mut goes_on = true;
        let mut after = Vec::new();
        for message in batch {
            match message {
                Message::Desk(desk) => self.desks.push(desk),
                Message::Plan { book, reply } => {
                    let plan = self.plan(book, now);
                    after.push(After::Plan(reply, plan));
                }
                Message::Notice {
                    kind,
                    token,
                    said,
                    hearer,
                } => {
                    let booked = self.keeper.notice(kind, &token, said, now);
                    after.push(After::Notice(hearer, booked));
                }
                Message::Count(outcome) => self.keeper.count(outcome),
                Message::Exposures { all, reply } => {
                    for of in &all {
                        let key = super::frequency::key_of(of.key);
                        self.keeper
                            .exposure(key, of.at, of.scopes, of.remembered, now);
                    }
                    after.push(After::Done(reply));
                }
                Message::Switch { switch, off, reply } => {
                    self.keeper.switch(switch, off);
                    after.push(After::Done(reply));
                }
                Message::Filed(hour) => self.keeper.files_are_before(hour),
                Message::Ask(ask) => ask(&self.keeper),
                Message::Stop => goes_on = false,
            }
        }
        if self.ticked.is_none_or(|at| at.elapsed() >= TICK) {
            self.ticked = Some(Instant::now());
            self.keeper.tick(now);
            let mut figures = self.keeper.figures();
            figures.clock_ahead_ms = self.time.ahead_ms();
            *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
            if self.keeper.wants_key()
                && let Ok(secret) = random()
            {
                self.keeper.make_key(secret);
            }
        }
        if !goes_on {
            self.keeper.close();
        }
        let written = self.write();
        for after in after {
            match after {
                After::Plan(reply, plan) => {
                    let _ = reply.send(plan);
                }
                After::Done(reply) => {
                    let _ = reply.send(written);
                }
                After::Notice(hearer, booked) => hearer(match written {
                    true => Answered::Booked(booked),
                    false => Answered::TryAgain,
                }),
            }
        }
        goes_on
    }

    /// The time. Stops bidding before anything is done by one that is not sure.
    fn now(&mut self) -> Timestamp {
        let at = Instant::now();
        let now = self.time.read((self.clock)(), at);
        let is_sure = self.time.is_sure(at);
        if is_sure != self.is_sure {
            self.is_sure = is_sure;
            match is_sure {
                true => tracing::info!(time = %now, "the system's clock is believed"),
                false => tracing::error!(
                    time = %now,
                    ahead_seconds = self.time.ahead_ms() / 1_000,
                    "the system's clock has leapt: no bids until it is back, or has stayed there for a minute"
                ),
            }
            self.apply_stop();
        }
        now
    }

    /// Lets bids go on only where they can be written, and it is known when they are made.
    fn apply_stop(&self) {
        let goes_on = self.is_sure && self.writes.load(SeqCst);
        self.keeper.stop_switch().store(!goes_on, SeqCst);
    }

    fn plan(&mut self, book: Arc<Book>, now: Timestamp) -> Arc<Plan> {
        if let Some((live, plan)) = &self.plan
            && Arc::ptr_eq(live, &book)
        {
            return Arc::clone(plan);
        }
        let plan = Arc::new(self.keeper.plan(&book, now));
        self.plan = Some((book, Arc::clone(&plan)));
        plan
    }

    /// Appends to the journal; to the one that took its place, if it could not be opened then.
    fn append(&mut self) -> Result<(), StorageError> {
        if let Some(length) = self.replaced {
            self.log = self.storage.open_log(Path::new(JOURNAL), length)?;
            self.replaced = None;
        }
        self.log.append(self.unwritten.clone())
    }

    /// Has the journal written; whether all of it is.
    fn write(&mut self) -> bool {
        self.unwritten.extend(self.keeper.take_out());
        if !self.unwritten.is_empty() {
            match self.append() {
                Ok(()) => self.unwritten.clear(),
                Err(error) => {
                    if self.writes.swap(false, SeqCst) {
                        tracing::error!(%error, "the ledger's journal cannot be written: no bids until it can");
                    }
                    self.apply_stop();
                    return false;
                }
            }
        }
        self.keeper.written();
        if !self.writes.swap(true, SeqCst) {
            tracing::info!("the ledger's journal is written again");
            self.apply_stop();
        }
        self.begin_anew();
        true
    }

    /// Replaces a journal that has grown long.
    fn begin_anew(&mut self) {
        let longest = self.longest.max(self.begun_with.saturating_mul(4));
        if self.replaced.is_some() || self.log.length() <= longest {
            return;
        }
        let bytes = self.keeper.journal();
        let length = bytes.len() as u64;
        let path = Path::new(JOURNAL);
        match self.storage.write_atomic(path, bytes) {
            // What is written from now on belongs into the new file, and nowhere else.
            Ok(()) => self.replaced = Some(length),
            Err(error) => {
                tracing::warn!(%error, "the ledger's journal could not be begun anew; it grows on");
            }
        }
        self.begun_with = length;
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
    use std::sync::mpsc::channel;

    use super::*;
    use crate::config::{Billing, BudgetMode};
    use crate::ledger::{Allowances, ExchangeTerms, Proposed, Refused, TokenText};
    use crate::money::{Currency, Price, Rates};
    use crate::storage::Faults;

    fn book() -> Arc<Book> {
        let document = br#"{"advertisers": [{"id": "acme", "domain": "acme.example"}],
            "creatives": [{"id": "box", "advertiser": "acme", "type": "banner", "w": 1, "h": 1, "adm": "<p>"}],
            "line_items": [{"id": "one", "creatives": ["box"], "targeting": "test", "budget": {"total": "10"},
                "pacing": "asap", "price": {"cpm": "5", "currency": "USD"}}]}"#;
        Arc::new(crate::campaigns::compile(document).expect("a document"))
    }

    /// A clock that stands still: what these tests wait for is not told by it.
    fn noon() -> Timestamp {
        Timestamp::from_unix_seconds(1_800_014_400)
    }

    fn terms() -> Terms {
        Terms {
            mode: BudgetMode::Strict,
            exchanges: vec![ExchangeTerms {
                name: "demo".into(),
                window: 3_600,
                billing: Billing::Burl,
            }],
            frequency_keys: 1_000,
            journal_bytes: 1 << 20,
            report_rows: 100_000,
            rates: Arc::new(Rates::none(Currency::USD)),
        }
    }

    fn start(dir: &Path, faults: &Arc<Faults>) -> Result<Ledger, LedgerError> {
        let storage = Storage::start_with(dir, Arc::clone(faults)).expect("storage");
        Ledger::start(terms(), storage, noon)
    }

    fn bid(desk: &mut Desk, plan: &Plan, book: &Book) -> Result<Token, Refused> {
        let mut allowances = Allowances::seeded(0);
        allowances.begin(plan, noon());
        allowances.allow(plan, book, 0, 0, 5_000_000, std::iter::empty())?;
        let proposed = Proposed {
            line_item: 0,
            creative: 0,
            exchange: 0,
            price: Price::from_micros(5_000_000).expect("a price"),
            currency: Currency::USD,
            nano: 5_000_000,
            test: false,
            segments: Default::default(),
        };
        let mut text = TokenText::default();
        desk.tick();
        desk.commit(plan, book, &mut allowances, &proposed, &mut text)?;
        Ok(desk.open(Kind::Bill, &text.of(Kind::Bill)).expect("ours"))
    }

    fn answer(ledger: &Ledger, token: &Token) -> Answered {
        let (tell, told) = channel();
        let hearer = Box::new(move |answered| tell.send(answered).expect("somebody hears"));
        ledger.notice(Kind::Bill, token.clone(), Said::default(), hearer);
        told.recv().expect("an answer")
    }

    fn until(what: impl Fn() -> bool) {
        let begun = Instant::now();
        while !what() {
            assert!(begun.elapsed() < Duration::from_secs(20), "never");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Nobody is told that a notice is booked before the journal holds it, and nothing is bid meanwhile; what could not be written is
    /// written when it can be.
    #[test]
    fn a_full_disk_stops_bids_and_loses_no_notice() {
        let dir = tempfile::tempdir().expect("a folder");
        let faults = Arc::new(Faults::default());
        let (ledger, book) = (start(dir.path(), &faults).expect("started"), book());
        let (plan, mut desk) = (ledger.plan(&book), ledger.desk());
        let tokens: Vec<Token> = (0..3)
            .map(|_| bid(&mut desk, &plan, &book).expect("a bid"))
            .collect();
        let booked = |answered| match answered {
            Answered::Booked(booked) => Some(booked.outcome),
            Answered::TryAgain => None,
        };
        assert_eq!(booked(answer(&ledger, &tokens[0])), Some(Outcome::Booked));
        faults.write.store(true, Relaxed);
        assert_eq!(booked(answer(&ledger, &tokens[1])), None);
        assert!(!ledger.writes());
        assert_eq!(bid(&mut desk, &plan, &book), Err(Refused::Stopped));
        assert_eq!(booked(answer(&ledger, &tokens[1])), None, "sent again");
        faults.write.store(false, Relaxed);
        until(|| ledger.writes());
        assert!(bid(&mut desk, &plan, &book).is_ok());
        assert_eq!(booked(answer(&ledger, &tokens[1])), Some(Outcome::Repeated));
        assert_eq!(booked(answer(&ledger, &tokens[2])), Some(Outcome::Booked));
        // As a crash would: nothing is closed.
        let copy = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(copy.path().join("ledger")).expect("made");
        std::fs::copy(dir.path().join(JOURNAL), copy.path().join(JOURNAL)).expect("copied");
        let again = start(copy.path(), &Arc::default()).expect("started");
        for token in &tokens {
            assert_eq!(booked(answer(&again, token)), Some(Outcome::Repeated));
        }
        let spent = again.ask(|keeper| keeper.standings()).expect("an answer");
        assert!(spent.is_empty(), "no plan yet");
        again.plan(&book);
        let spent = again.ask(|keeper| keeper.standings()).expect("an answer");
        assert_eq!(spent[0].spent, 15_000_000);
    }

    static LEAP_SECONDS: AtomicI64 = AtomicI64::new(0);

    /// A clock leaps by two days and back: nothing is bid meanwhile, no hold is let go, and no notice is refused.
    #[test]
    fn a_leap_of_the_clock_stops_bids_and_ends_nothing() {
        let leaping =
            || Timestamp::from_unix_seconds(noon().unix_seconds() + LEAP_SECONDS.load(SeqCst));
        let dir = tempfile::tempdir().expect("a folder");
        let storage = Storage::start_with(dir.path(), Arc::default()).expect("storage");
        let book = book();
        let ledger = Ledger::start(terms(), storage, leaping).expect("started");
        let (plan, mut desk) = (ledger.plan(&book), ledger.desk());
        let token = bid(&mut desk, &plan, &book).expect("a bid");
        let used = || ledger.ask(|keeper| keeper.standings()[0].reserved);
        until(|| used() == Some(5_000_000));
        LEAP_SECONDS.store(2 * 86_400, SeqCst);
        until(|| ledger.figures().clock_ahead_ms > 86_400_000);
        assert_eq!(bid(&mut desk, &plan, &book), Err(Refused::Stopped));
        assert_eq!(used(), Some(5_000_000), "its window is not over");
        let answered = answer(&ledger, &token);
        let booked = Answered::Booked(Booked {
            outcome: Outcome::Booked,
            nano: 5_000_000,
        });
        assert_eq!(answered, booked);
        LEAP_SECONDS.store(0, SeqCst);
        until(|| ledger.figures().clock_ahead_ms == 0);
        assert!(bid(&mut desk, &plan, &book).is_ok());
    }

    #[test]
    fn a_damaged_journal_is_no_start() {
        let dir = tempfile::tempdir().expect("a folder");
        drop(start(dir.path(), &Arc::default()).expect("started"));
        let path = dir.path().join(JOURNAL);
        let mut bytes = std::fs::read(&path).expect("a journal");
        bytes[12] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        let told = start(dir.path(), &Arc::default()).expect_err("damaged");
        assert!(
            told.to_string().contains("begin with nothing spent"),
            "{told}"
        );
        // What a crash leaves at its end is cut off.
        bytes[12] ^= 1;
        bytes.extend([9, 0, 0, 0, 1]);
        std::fs::write(&path, &bytes).expect("written");
        drop(start(dir.path(), &Arc::default()).expect("started"));
        drop(start(dir.path(), &Arc::default()).expect("and again"));
    }
}
