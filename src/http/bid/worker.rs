//! One worker: a thread, its runtime, its connections, its bidder.
//!
//! Everything here is of one thread, in `Rc`s and `Cell`s. This file asks the bidder or sheds, survives panics and lends
//! buffers; [`batch`] decides on several requests together; [`sweep`] serves connections, keeps their deadlines, and ends them; [`probe`] measures the thread's queue.
#![deny(clippy::indexing_slicing)]

mod batch;
mod probe;
mod sweep;

use std::cell::{Cell, RefCell};
use std::net::TcpStream as StdStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::{Notify, oneshot};

pub(super) use sweep::WorkerLimits;

use batch::Batch;

use super::connection::{Connection, Question, Told};
use super::gzip::{Gunzip, GunzipError};
use super::overload::Overload;
use super::request::Gathered;
use super::route::Coding;
use super::{Answer, Bidder, NoticeAnswer, NoticeAsked, NoticeReply, Refused};
use crate::config::{Exchange, Exchanges};

/// Buffers kept for the next body in pieces, and the largest that is kept: 8 × 64 KiB a worker.
const SPARE_MAX: usize = 8;
const SPARE_BYTES_MAX: usize = 64 << 10;
/// The answer's buffer is let go when a giant answer has grown it past this.
const OUT_BYTES_MAX: usize = 256 << 10;
/// What the acceptor tells a worker.
pub(super) enum Deal {
    Connection(StdStream),
    /// Finish what has begun, within this long.
    Drain(Duration),
}

/// What all threads of a listener share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Open connections of each worker, raised by the acceptor at dealing.
    pub(super) open: Box<[AtomicUsize]>,
    /// Connections turned away for their number and not counted yet.
    pub(super) turned_away: AtomicUsize,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// Connections open when the drain began.
    pub(super) open: usize,
    /// Of those, the ones cut off.
    pub(super) cut: usize,
}

/// Makes a worker's bidder, at start and after a panic.
pub(super) type Factory<B> = dyn Fn(usize) -> B + Send + Sync;

pub(super) struct Worker<B: Bidder> {
    index: usize,
    pub(super) exchanges: Arc<Exchanges>,
    pub(super) limits: WorkerLimits,
    pub(super) in_flight: Cell<usize>,
    pub(super) draining: Cell<bool>,
    shared: Arc<Shared>,
    factory: Arc<Factory<B>>,
    /// Nothing only after the factory itself has panicked: every answer is a no-bid until a tick can make one.
    bidder: RefCell<Option<B>>,
    overload: RefCell<Overload>,
    batch: Batch<B>,
    /// Wakes the probe.
    probe: Notify,
    /// The runtime's busy time at the last tick.
    busy_before: Cell<Duration>,
    gunzip: RefCell<Gunzip>,
    out: RefCell<Vec<u8>>,
    spares: RefCell<Vec<Vec<u8>>>,
    held_bytes: Cell<usize>,
    sweeps: Rc<Cell<u32>>,
    connections: RefCell<Vec<Option<Rc<Connection>>>>,
    vacant: RefCell<Vec<usize>>,
}

impl<B: Bidder> Worker<B> {
    pub(super) fn new(
        index: usize,
        limits: WorkerLimits,
        exchanges: Arc<Exchanges>,
        shared: Arc<Shared>,
        factory: Arc<Factory<B>>,
    ) -> Self {
        let overload = Overload::new(
            limits.queue_target,
            exchanges.iter().map(Exchange::answer_within),
        );
        let worker = Self {
            index,
            exchanges,
            limits,
            in_flight: Cell::new(0),
            draining: Cell::new(false),
            shared,
            factory,
            bidder: RefCell::new(None),
            overload: RefCell::new(overload),
            batch: Batch::default(),
            probe: Notify::new(),
            busy_before: Cell::default(),
            gunzip: RefCell::new(Gunzip::new()),
            out: RefCell::default(),
            spares: RefCell::default(),
            held_bytes: Cell::new(0),
            sweeps: Rc::default(),
            connections: RefCell::default(),
            vacant: RefCell::default(),
        };
        worker.remake_bidder();
        worker
    }

    pub(super) fn has_bidder(&self) -> bool {
        self.bidder.borrow().is_some()
    }

    fn remake_bidder(&self) {
        let made = catch_unwind(AssertUnwindSafe(|| (self.factory)(self.index))).ok();
        *self.bidder.borrow_mut() = made;
    }

    /// Calls the bidder; nothing where it panicked, and then it is another one.
    fn with_bidder<T>(&self, call: impl FnOnce(&mut B) -> T) -> Option<T> {
        let called = {
            let mut bidder = self.bidder.borrow_mut();
            let bidder = bidder.as_mut()?;
            catch_unwind(AssertUnwindSafe(|| call(bidder)))
        };
        match called {
            Ok(answer) => Some(answer),
            Err(_) => {
                let broken = self.bidder.borrow_mut().take();
                // Dropping what has panicked may panic again.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
                self.remake_bidder();
                None
            }
        }
    }

    /// Hands a notice to the bidder, whose answer may come later.
    pub(super) fn notice(&self, asked: &NoticeAsked<'_>) -> oneshot::Receiver<NoticeAnswer> {
        let (reply, answer) = oneshot::channel();
        let reply = NoticeReply(reply);
        // Where it panics the answer is dropped, which is "try again".
        let _ = self.with_bidder(|bidder| bidder.notice(asked, reply));
        answer
    }

    fn exchange(&self, index: usize) -> Option<&Exchange> {
        self.exchanges.iter().nth(index)
    }

    /// Counts a refusal.
    pub(super) fn refused(&self, exchange: Option<usize>, why: Refused) {
        let exchange = exchange.and_then(|index| self.exchange(index));
        let _ = self.with_bidder(|bidder| bidder.refused(exchange, why));
    }

    /// When the first byte of what was read at `read` could be read.
    pub(super) fn arrived(&self, read: Instant) -> Instant {
        let waited = self.overload.borrow().waited(read);
        read.checked_sub(waited).unwrap_or(read)
    }

    /// Asks the bidder, or sheds: the body is not looked at before that is known. What to tell the client, what to count
    /// when it is on its way, and the time, which is `now` where nothing was decided.
    fn decide(&self, question: &Question, now: Instant) -> (Told, Option<Answer>, Instant) {
        let (index, arrived) = (question.exchange, question.arrived);
        let Some(exchange) = self.exchange(index) else {
            return (Told::empty(StatusCode::NOT_FOUND), None, now);
        };
        if !self.overload.borrow_mut().admits(index, arrived, now) {
            let _ = self.with_bidder(|bidder| bidder.shed(exchange));
            let told = Told::empty(StatusCode::NO_CONTENT);
            return (told, Some(Answer::NoBid), now);
        }
        let (told, answer) = self.ask(exchange, question, now);
        let ended = Instant::now();
        let mut overload = self.overload.borrow_mut();
        if overload.decided(index, ended.saturating_duration_since(now)) {
            overload.lap_begins(ended);
            self.probe.notify_one();
        }
        (told, answer, ended)
    }

    /// Decodes the body and asks the bidder.
    fn ask(
        &self,
        exchange: &Exchange,
        question: &Question,
        now: Instant,
    ) -> (Told, Option<Answer>) {
        let whose = Some(exchange.index);
        let mut gunzip = self.gunzip.borrow_mut();
        let body = question.body.as_slice();
        let body = match question.coding {
            Coding::Identity => body,
            Coding::Gzip => match gunzip.decode(body, self.limits.body_bytes) {
                Ok(decoded) => decoded,
                Err(GunzipError::Corrupt) => {
                    self.refused(whose, Refused::Gzip);
                    return (Told::empty(StatusCode::BAD_REQUEST), None);
                }
                Err(GunzipError::TooLarge) => {
                    self.refused(whose, Refused::TooLarge);
                    return (Told::empty(StatusCode::PAYLOAD_TOO_LARGE), None);
                }
            },
        };
        let mut out = self.out.borrow_mut();
        out.clear();
        let arrived = question.arrived;
        let answer = self.with_bidder(|bidder| bidder.bid(exchange, body, arrived, now, &mut out));
        let told = match answer {
            Some(Answer::Bid | Answer::Reason) if !out.is_empty() => {
                let content = Bytes::copy_from_slice(&out);
                if out.capacity() > OUT_BYTES_MAX {
                    *out = Vec::new();
                }
                Told {
                    status: StatusCode::OK,
                    content,
                    location: None,
                }
            }
            Some(Answer::Bid | Answer::Reason | Answer::NoBid) => {
                Told::empty(StatusCode::NO_CONTENT)
            }
            Some(Answer::Malformed) => Told::empty(StatusCode::BAD_REQUEST),
            None => {
                self.refused(whose, Refused::Panicked);
                Told::empty(StatusCode::NO_CONTENT)
            }
        };
        (told, answer)
    }
}

/// Buffers for bodies that come in pieces.
impl<B: Bidder> Worker<B> {
    /// Whether so many more bytes may be held; they are then on the account until [given back](Self::give_back).
    pub(super) fn hold(&self, bytes: usize) -> bool {
        let held = self.held_bytes.get().saturating_add(bytes);
        if held > self.limits.held_bytes {
            return false;
        }
        self.held_bytes.set(held);
        true
    }

    /// An empty buffer, perhaps with room.
    pub(super) fn spare(&self) -> Vec<u8> {
        self.spares.borrow_mut().pop().unwrap_or_default()
    }

    /// Lets a body go, and what it held off the account.
    pub(super) fn let_go(&self, body: Gathered) {
        if let Gathered::Many(buffer) = body {
            self.give_back(buffer);
        }
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        let held = self.held_bytes.get().saturating_sub(buffer.len());
        self.held_bytes.set(held);
        buffer.clear();
        let mut spares = self.spares.borrow_mut();
        if spares.len() < SPARE_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            spares.push(buffer);
        }
    }
}
