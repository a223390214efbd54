//! A worker's connections: their coming, their deadlines, their going.
//!
//! Four times a second (more often where a deadline is short) the sweep looks over the connections, closes those
//! past their phase's limit, and ticks the bidder. It pauses every [`SWEEP_RUN`] connections, so that ten thousand idle
//! ones do not hold up a bid.
#![deny(clippy::indexing_slicing)]

use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::MissedTickBehavior;

use super::{Deal, Ended, Worker, batch, probe};
use crate::config::Limits;
use crate::http::bid::connection::{Connection, LINGER, Phase, Serve};
use crate::http::bid::{Bidder, Refused};

/// How often the bidder is ticked, and the longest between two sweeps.
const TICK: Duration = Duration::from_millis(250);
/// The shortest between two sweeps, whatever the limits.
const SWEEP_MIN: Duration = Duration::from_millis(10);
/// Connections looked at before other tasks have their turn; each is one or two cache misses.
const SWEEP_RUN: usize = 512;
/// What bodies that came in pieces may hold on one worker, in bodies of the largest size: 128 MiB of them by default,
/// or 40,000 of 3 KB.
const HELD_BODIES_MAX: usize = 128;
/// At drain, how long idle connections may still bring a request, which is then answered with `connection: close`.
/// A busy exchange uses each of its connections many times in this span.
const DRAIN_GRACE: Duration = Duration::from_millis(500);
/// hyper refuses a smaller read buffer. The head's own limit holds below it too.
const READ_BUFFER_MIN: usize = 8192;

/// The limits in the forms in which they are used.
#[derive(Debug, Clone)]
pub(in crate::http::bid) struct WorkerLimits {
    pub(in crate::http::bid) body_bytes: usize,
    pub(in crate::http::bid) queue_target: Duration,
    pub(in crate::http::bid) held_bytes: usize,
    header_bytes: usize,
    sweep_every: Duration,
    idle: u32,
    head: u32,
    body: u32,
    writing: u32,
    lingering: u32,
}

impl WorkerLimits {
    pub(in crate::http::bid) fn new(limits: &Limits) -> Self {
        let ms = |ms| Duration::from_millis(ms);
        let idle = ms(limits.idle_timeout_ms);
        let head = ms(limits.header_timeout_ms);
        let body = ms(limits.body_timeout_ms);
        let writing = ms(limits.write_timeout_ms);
        let shortest = idle.min(head).min(body).min(writing);
        let sweep_every = (shortest / 4).clamp(SWEEP_MIN, TICK);
        // One more: the sweep in which a phase began was already under way.
        let sweeps = |limit: Duration| {
            let whole = limit.as_millis().div_ceil(sweep_every.as_millis().max(1));
            u32::try_from(whole).unwrap_or(u32::MAX).saturating_add(1)
        };
        Self {
            body_bytes: limits.bid_body_bytes,
            queue_target: ms(limits.queue_target_ms),
            held_bytes: limits.bid_body_bytes.saturating_mul(HELD_BODIES_MAX),
            header_bytes: limits.bid_header_bytes,
            sweep_every,
            idle: sweeps(idle),
            head: sweeps(head),
            body: sweeps(body),
            writing: sweeps(writing),
            lingering: sweeps(LINGER.min(writing)),
        }
    }

    fn of(&self, phase: Phase) -> u32 {
        match phase {
            Phase::Idle => self.idle,
            Phase::Head => self.head,
            Phase::Body => self.body,
            Phase::Writing => self.writing,
            Phase::Lingering => self.lingering,
        }
    }
}

/// Connections: their coming, their deadlines, their going.
impl<B: Bidder> Worker<B> {
    /// Serves dealt connections until told to drain, or until the server is dropped, and returns how that went.
    pub(in crate::http::bid) async fn run(
        self: Rc<Self>,
        mut deals: UnboundedReceiver<Deal>,
    ) -> Ended {
        let mut http = http1::Builder::new();
        http.half_close(true)
            .keep_alive(true)
            .writev(false)
            .max_buf_size(self.limits.header_bytes.max(READ_BUFFER_MIN))
            .max_header_size(self.limits.header_bytes);
        let mut sweep = tokio::time::interval(self.limits.sweep_every);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::task::spawn_local(probe::run(Rc::clone(&self)));
        tokio::task::spawn_local(batch::close(Rc::clone(&self)));
        let mut since_tick = Duration::ZERO;
        let mut drain = None;
        loop {
            tokio::select! {
                deal = deals.recv(), if drain.is_none() => match deal {
                    Some(Deal::Connection(stream)) => self.serve(&http, stream),
                    Some(Deal::Drain(timeout)) => drain = Some(Drain::begin(&self, timeout)),
                    None => return Ended::default(),
                },
                _ = sweep.tick() => {
                    self.sweep().await;
                    since_tick = since_tick.saturating_add(self.limits.sweep_every);
                    if since_tick >= TICK {
                        since_tick = Duration::ZERO;
                        self.tick();
                    }
                }
                () = Drain::next(&drain) => {
                    if let Some(ended) = drain.as_mut().and_then(|d| d.advance(&self)) {
                        // The bidder's last chance to flush.
                        self.tick();
                        return ended;
                    }
                }
            }
        }
    }

    fn tick(&self) {
        if !self.has_bidder() {
            self.remake_bidder();
        }
        let load = self.load();
        let _ = self.with_bidder(|bidder| bidder.tick(load));
    }

    fn serve(self: &Rc<Self>, http: &http1::Builder, stream: StdStream) {
        let opened = stream.peer_addr().and_then(|peer| {
            let stream = TcpStream::from_std(stream)?;
            stream.set_nodelay(true)?;
            Ok((peer.ip(), stream))
        });
        let Ok((peer, stream)) = opened else {
            // Gone before we came to it.
            self.count_out();
            return;
        };
        let connection = Rc::new(Connection::new(peer, Rc::clone(&self.sweeps)));
        let slot = self.enrol(&connection);
        let serve = Serve::new(http, stream, slot, connection, Rc::clone(self));
        tokio::task::spawn_local(serve);
    }

    fn enrol(&self, connection: &Rc<Connection>) -> usize {
        let mut connections = self.connections.borrow_mut();
        let entry = Some(Rc::clone(connection));
        if let Some(slot) = self.vacant.borrow_mut().pop()
            && let Some(place) = connections.get_mut(slot)
        {
            *place = entry;
            return slot;
        }
        connections.push(entry);
        connections.len().saturating_sub(1)
    }

    /// A connection's task has ended.
    pub(in crate::http::bid) fn leave(&self, slot: usize) {
        if let Some(place) = self.connections.borrow_mut().get_mut(slot) {
            *place = None;
            self.vacant.borrow_mut().push(slot);
        }
        self.count_out();
    }

    fn count_out(&self) {
        if let Some(open) = self.shared.open.get(self.index) {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn open(&self) -> usize {
        let connections = self.connections.borrow().len();
        connections.saturating_sub(self.vacant.borrow().len())
    }

    /// Closes what overstays.
    async fn sweep(&self) {
        self.sweeps.set(self.sweeps.get().wrapping_add(1));
        for _ in 0..self.shared.turned_away.swap(0, Ordering::Relaxed) {
            self.refused(None, Refused::Connections);
        }
        let mut slot: usize = 0;
        loop {
            let run_ends = slot.saturating_add(SWEEP_RUN);
            while slot < run_ends {
                let connection = match self.connections.borrow().get(slot) {
                    None => return,
                    Some(place) => place.clone(),
                };
                if let Some(connection) = connection {
                    self.sweep_one(&connection);
                }
                slot = slot.saturating_add(1);
            }
            tokio::task::yield_now().await;
        }
    }

    fn sweep_one(&self, connection: &Connection) {
        let phase = connection.phase();
        if connection.age_sweeps() <= self.limits.of(phase) {
            return;
        }
        let exchange = connection.exchange();
        match phase {
            Phase::Head => self.refused(None, Refused::HeadTimeout),
            Phase::Body => self.refused(exchange, Refused::BodyTimeout),
            Phase::Writing => self.refused(exchange, Refused::WriteTimeout),
            Phase::Idle | Phase::Lingering => {}
        }
        connection.close();
    }

    fn each(&self, order: impl Fn(&Connection)) {
        for connection in self.connections.borrow().iter().flatten() {
            order(connection);
        }
    }
}

/// The end in steps: answers carry `connection: close`; after a grace the idle are closed; what is left has until the
/// deadline.
struct Drain {
    open: usize,
    grace_over: Option<Instant>,
    deadline: Instant,
}

/// A longer drain is taken as this long, which no operator will wait for.
const DRAIN_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often a drain looks whether it is done.
const DRAIN_STEP: Duration = Duration::from_millis(5);

impl Drain {
    fn begin<B: Bidder>(worker: &Worker<B>, timeout: Duration) -> Self {
        worker.draining.set(true);
        let now = Instant::now();
        let timeout = timeout.min(DRAIN_MAX);
        Self {
            open: worker.open(),
            grace_over: Some(now + DRAIN_GRACE.min(timeout / 2)),
            deadline: now + timeout,
        }
    }

    /// The next moment to look; never, while there is no drain.
    async fn next(drain: &Option<Self>) {
        match drain {
            Some(_) => tokio::time::sleep(DRAIN_STEP).await,
            None => std::future::pending().await,
        }
    }

    fn advance<B: Bidder>(&mut self, worker: &Worker<B>) -> Option<Ended> {
        let now = Instant::now();
        let left = worker.open();
        if left == 0 || now >= self.deadline {
            return Some(Ended {
                open: self.open,
                cut: left,
            });
        }
        if self.grace_over.is_some_and(|over| now >= over) {
            self.grace_over = None;
            worker.each(Connection::finish);
        }
        None
    }
}
