//! How far one connection is, and the task that drives it.
//!
//! A [`Connection`] is a handful of cells shared by the wire, the service and the sweep of its worker: the phase it is
//! in and since which sweep. The sweep counts itself, so a phase's age is in sweeps that really ran: a machine that
//! stalls, or a process that was stopped, charges no client for the time. A deadline fires between its length and
//! two sweeps more.
//!
//! | phase | from | to | limit |
//! |---|---|---|---|
//! | `Idle` | accepted, or the answer flushed | the next byte | `idle_timeout_ms` |
//! | `Head` | the first byte | the end of the head | `header_timeout_ms` |
//! | `Body` | the end of the head | the answer | `body_timeout_ms` |
//! | `Writing` | the answer | all of it taken by the socket | `write_timeout_ms` |
//! | `Lingering` | our half is closed | the client's half is | [`LINGER`] |
#![deny(clippy::indexing_slicing)]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::mem;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use super::request::{Exchanger, Gathered};
use super::route::Coding;
use super::wire::{HeadCheck, Wire};
use super::worker::Worker;
use super::{Bidder, Refused};

/// How long what a refused client still sends is read and thrown away. Closing at once would reset the connection,
/// and the reset can overtake the answer.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// Most bytes so thrown away.
const LINGER_BYTES_MAX: usize = 8 << 20;

/// Where a connection is between two requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Head,
    Body,
    Writing,
    Lingering,
}

/// What the worker wants of a connection's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Serve,
    /// Answer what has begun, then close.
    Finish,
    Close,
}

/// A request that waits for its worker to decide on it.
pub(super) struct Question {
    /// Whose, by index.
    pub(super) exchange: usize,
    pub(super) coding: Coding,
    pub(super) body: Gathered,
    pub(super) arrived: Instant,
}

/// What its worker tells it.
pub(super) struct Told {
    pub(super) status: StatusCode,
    pub(super) content: Bytes,
    /// Where a click leads.
    pub(super) location: Option<HeaderValue>,
}

impl Told {
    pub(super) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            content: Bytes::new(),
            location: None,
        }
    }
}

/// How far a connection's one request is with the worker.
#[derive(Default)]
enum Asked {
    #[default]
    Nothing,
    /// Asked, and not yet known to the worker.
    Anew(Question),
    Waiting(Question),
    Told(Told),
}

/// One connection's state, for all who touch it on its thread.
pub(super) struct Connection {
    /// The caller; an IPv4 address mapped into IPv6 is taken as what it is.
    pub(super) peer: IpAddr,
    sweeps: Rc<Cell<u32>>,
    phase: Cell<Phase>,
    since: Cell<u32>,
    /// When this request's first byte was read.
    read: Cell<Instant>,
    head: RefCell<HeadCheck>,
    /// Whether `head` has seen this request from its first byte. Not so for one whose beginning came with the request
    /// before it: hyper holds those bytes already.
    checked: Cell<bool>,
    /// Bytes read since the first of this request.
    read_bytes: Cell<usize>,
    /// How long this request is, head and body, where that can be known.
    request_bytes: Cell<Option<usize>>,
    /// The exchange whose request is being served, by index.
    exchange: Cell<Option<usize>>,
    /// Bytes of a refused request may still come: linger instead of closing at once.
    linger: Cell<bool>,
    asked: Cell<Asked>,
    order: Cell<Order>,
    task: RefCell<Option<Waker>>,
}

impl Connection {
    pub(super) fn new(peer: IpAddr, sweeps: Rc<Cell<u32>>) -> Self {
        Self {
            peer: peer.to_canonical(),
            since: Cell::new(sweeps.get()),
            sweeps,
            phase: Cell::new(Phase::Idle),
            read: Cell::new(Instant::now()),
            head: RefCell::default(),
            checked: Cell::new(true),
            read_bytes: Cell::new(0),
            request_bytes: Cell::new(None),
            exchange: Cell::new(None),
            linger: Cell::new(false),
            asked: Cell::default(),
            order: Cell::new(Order::Serve),
            task: RefCell::new(None),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(super) fn exchange(&self) -> Option<usize> {
        self.exchange.get()
    }

    /// Sweeps since the phase began.
    pub(super) fn age_sweeps(&self) -> u32 {
        self.sweeps.get().wrapping_sub(self.since.get())
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.sweeps.get());
    }

    /// Bytes came off the socket.
    pub(super) fn has_read(&self, bytes: &[u8]) {
        match self.phase.get() {
            Phase::Idle => {
                self.read.set(Instant::now());
                let mut head = HeadCheck::default();
                head.feed(bytes);
                self.head.replace(head);
                self.read_bytes.set(0);
                self.enter(Phase::Head);
            }
            Phase::Head => self.head.borrow_mut().feed(bytes),
            // Some of them may be the next request's.
            Phase::Body | Phase::Writing => self.read.set(Instant::now()),
            Phase::Lingering => {}
        }
        self.read_bytes
            .set(self.read_bytes.get().saturating_add(bytes.len()));
    }

    /// A request's head is complete, and announces a body of so many bytes (`None`: chunked). When the request was first
    /// read, and whether its head was fit.
    pub(super) fn has_head(&self, announced: Option<u64>) -> (Instant, bool) {
        let seen = self.phase.get() == Phase::Head && self.checked.get();
        let fit = !seen || self.head.borrow().passed();
        let head_bytes = self.head.borrow().length().filter(|_| seen);
        let body_bytes = announced.and_then(|bytes| usize::try_from(bytes).ok());
        let request_bytes = head_bytes
            .zip(body_bytes)
            .map(|(head, body)| head.saturating_add(body));
        self.request_bytes.set(request_bytes);
        self.enter(Phase::Body);
        self.exchange.set(None);
        (self.read.get(), fit)
    }

    pub(super) fn serves(&self, exchange: usize) {
        self.exchange.set(Some(exchange));
    }

    /// The answer is on its way; `linger` when the request was not read to its end.
    pub(super) fn has_answer(&self, linger: bool) {
        self.enter(Phase::Writing);
        self.linger.set(linger);
    }

    /// All that was to be written is in the socket.
    pub(super) fn has_flushed(&self) {
        if self.phase.get() != Phase::Writing {
            return;
        }
        // What was read beyond this request is the next one's beginning: that one is under way, and its head is half
        // seen. Behind a chunked body nobody can tell, and behind a request whose own beginning we did not see.
        let beyond = match self.request_bytes.get() {
            Some(bytes) => Some(self.read_bytes.get() > bytes),
            None => self.checked.get().then_some(false),
        };
        self.checked.set(beyond == Some(false));
        self.enter(if beyond == Some(true) {
            Phase::Head
        } else {
            Phase::Idle
        });
    }

    /// Puts the request before the worker.
    pub(super) fn ask(&self, question: Question) {
        self.asked.set(Asked::Anew(question));
    }

    /// Whether there is a question that the worker does not know of. From now on it does.
    fn asks_anew(&self) -> bool {
        match self.asked.take() {
            Asked::Anew(question) => {
                self.asked.set(Asked::Waiting(question));
                true
            }
            other => {
                self.asked.set(other);
                false
            }
        }
    }

    /// Whether there is a question.
    fn asks(&self) -> bool {
        let asked = self.asked.take();
        let asks = matches!(asked, Asked::Anew(_) | Asked::Waiting(_));
        self.asked.set(asked);
        asks
    }

    /// Whether it is to be closed, whatever is under way.
    pub(super) fn is_closing(&self) -> bool {
        self.order.get() == Order::Close
    }

    /// Takes the question back, where it has not been answered.
    pub(super) fn question(&self) -> Option<Question> {
        match self.asked.take() {
            Asked::Anew(question) | Asked::Waiting(question) => Some(question),
            Asked::Nothing | Asked::Told(_) => None,
        }
    }

    /// Answers the question.
    pub(super) fn tell(&self, told: Told) {
        self.asked.set(Asked::Told(told));
    }

    /// Takes the answer, if there is one.
    pub(super) fn told(&self) -> Option<Told> {
        match self.asked.take() {
            Asked::Told(told) => Some(told),
            other => {
                self.asked.set(other);
                None
            }
        }
    }

    /// Finish what has begun, then close.
    pub(super) fn finish(&self) {
        if self.order.get() == Order::Serve {
            self.give(Order::Finish);
        }
    }

    /// Close now, whatever is under way.
    pub(super) fn close(&self) {
        self.give(Order::Close);
    }

    fn give(&self, order: Order) {
        self.order.set(order);
        if let Some(task) = self.task.borrow().as_ref() {
            task.wake_by_ref();
        }
    }

    fn listen(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        match task.as_mut() {
            Some(known) => known.clone_from(waker),
            None => *task = Some(waker.clone()),
        }
    }
}

type Http<B> = http1::Connection<TokioIo<Wire>, Exchanger<B>>;

#[expect(
    clippy::large_enum_variant,
    reason = "a connection is in the large one all its life, and it is on the heap as it is"
)]
enum Stage<B: Bidder> {
    Serving(Http<B>),
    Lingering {
        stream: TcpStream,
        thrown_away: usize,
    },
    Over,
}

/// A connection and the HTTP on it, driven by its task, and by its worker when that has answered it.
pub(super) struct Driven<B: Bidder> {
    connection: Rc<Connection>,
    stage: RefCell<Stage<B>>,
}

impl<B: Bidder> Driven<B> {
    /// Goes on as far as it goes; ready when the connection is over. Where it asks, the worker is let know.
    fn advance(self: &Rc<Self>, worker: &Worker<B>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.poll_stage(worker, cx);
        if self.connection.asks_anew() {
            worker.asked_by(Rc::clone(self));
        }
        polled
    }

    /// Goes on with the answer, in its own task's name.
    pub(super) fn resume(self: &Rc<Self>, worker: &Worker<B>) {
        let task = self.connection.task.borrow();
        let Some(task) = task.as_ref() else { return };
        let polled = self.poll_stage(worker, &mut Context::from_waker(task));
        // Whoever has its next request here already asks when its task has its turn again, behind those who wait for theirs.
        if polled.is_ready() || self.connection.asks() {
            task.wake_by_ref();
        }
    }

    /// The question that waits, and where its answer goes.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn poll_stage(&self, worker: &Worker<B>, cx: &mut Context<'_>) -> Poll<()> {
        let stage = &mut *self.stage.borrow_mut();
        loop {
            if self.connection.order.get() == Order::Close {
                return Poll::Ready(());
            }
            match stage {
                Stage::Serving(http) => {
                    let not_http = match self.poll_serving(http, cx) {
                        Poll::Ready(ended) => ended.is_err_and(|e| e.is_parse()),
                        Poll::Pending => return Poll::Pending,
                    };
                    if not_http {
                        worker.refused(None, Refused::Framing);
                    }
                    let served = mem::replace(stage, Stage::Over);
                    if let Stage::Serving(http) = served
                        && (not_http || self.connection.linger.get())
                    {
                        self.connection.enter(Phase::Lingering);
                        *stage = Stage::Lingering {
                            stream: http.into_parts().io.into_inner().into_stream(),
                            thrown_away: 0,
                        };
                    }
                }
                Stage::Lingering {
                    stream,
                    thrown_away,
                } => return poll_linger(stream, thrown_away, cx),
                Stage::Over => return Poll::Ready(()),
            }
        }
    }

    fn poll_serving(&self, http: &mut Http<B>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        // Once before the order is looked at: a request that already lies in the socket has begun.
        let mut polled = Pin::new(&mut *http).poll(cx);
        if polled.is_pending() && self.connection.order.get() == Order::Finish {
            Pin::new(&mut *http).graceful_shutdown();
            polled = Pin::new(http).poll(cx);
        }
        polled
    }
}

/// The task of one connection. However it ends, it leaves its worker's books.
pub(super) struct Serve<B: Bidder> {
    driven: Rc<Driven<B>>,
    slot: usize,
    worker: Rc<Worker<B>>,
}

impl<B: Bidder> Serve<B> {
    pub(super) fn new(
        http: &http1::Builder,
        stream: TcpStream,
        slot: usize,
        connection: Rc<Connection>,
        worker: Rc<Worker<B>>,
    ) -> Self {
        let wire = Wire::new(stream, Rc::clone(&connection));
        let exchanger = Exchanger::new(Rc::clone(&worker), Rc::clone(&connection));
        let http = http.serve_connection(TokioIo::new(wire), exchanger);
        Self {
            driven: Rc::new(Driven {
                connection,
                stage: RefCell::new(Stage::Serving(http)),
            }),
            slot,
            worker,
        }
    }
}

/// Reads to the client's end of stream, or as much as it is worth.
fn poll_linger(stream: &mut TcpStream, thrown_away: &mut usize, cx: &mut Context<'_>) -> Poll<()> {
    let mut waste = [0u8; 4096];
    // Our half was closed by hyper unless it gave up early; a second time does nothing.
    let _ = Pin::new(&mut *stream).poll_shutdown(cx);
    while *thrown_away < LINGER_BYTES_MAX {
        let mut buffer = ReadBuf::new(&mut waste);
        match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                *thrown_away = thrown_away.saturating_add(buffer.filled().len());
            }
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(())
}

impl<B: Bidder> Future for Serve<B> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.driven.connection.listen(cx.waker());
        let polled = this.driven.advance(&this.worker, cx);
        this.worker.decide_if_many();
        polled
    }
}

impl<B: Bidder> Drop for Serve<B> {
    fn drop(&mut self) {
        // The worker may hold it in a batch, and it holds the worker.
        drop(self.driven.stage.replace(Stage::Over));
        self.worker.leave(self.slot);
    }
}
