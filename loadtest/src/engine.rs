//! The loop of one thread: send what is due, read what has come, sleep until the next of either.
//!
//! Why an own loop over epoll: the generator shares its cores with what it measures, and timers of async runtimes tick in
//! milliseconds. A request costs one `write`, one `read` and a share of one `epoll_pwait2`, whose time-out in nanoseconds
//! is also the timer. Four ways to wait were compared by the lag that a run reports, at 1,000 requests a second beside
//! other work: time-outs in whole milliseconds send half a millisecond late in the median; in nanoseconds with the
//! kernel's usual timer slack, as much late as that slack (50 µs) and some; with the least slack, a fraction of it; with
//! a spin before each due time, not late, but at more than twice the CPU time. It is the third that is built: spinning
//! takes the core that the server's side of the kernel works on. What lag is left is reported by every run.
//!
//! Two delays are told apart. *Waiting* is the server's: a request was due and every connection had an answer
//! outstanding. *Lag* is ours: a request was due, a connection was free, and it was sent later. A request waits in
//! order of due times for at most [`Limits::wait`]; then it is unsent.
//!
//! Invariant: each due request ends once, in `Lane::end` or as unsent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::connection::{Connection, Flight, Read, State};
use crate::feed::{Feed, Next};
use crate::schedule::{Due, Nanos, nanos};
use crate::tally::{Effort, ErrorKind, LATE, Outcome, Tally};
use crate::watch::{Ended, Limits, Live, Watch};
use crate::wire::{Broken, Head};

/// Events taken in one look. Few, because due requests are sent between them, and one look costs little.
const EVENTS_MAX: usize = 64;
/// How often time-outs are looked for: a time-out is late by at most this.
const SWEEP: Nanos = 10_000_000;
/// After a connection that was refused, or accepted and closed before anything was answered on it, the next attempt is this
/// much later: a server that turns connections away is not to be stormed with new ones.
const RECONNECT_AFTER: Nanos = 20_000_000;
/// So many requests are given up before the connections are looked at again.
const GIVEN_UP_MAX: usize = 1024;
/// An attempt to connect is given up after this.
const CONNECT_TIMEOUT: Nanos = 1_000_000_000;

/// Time as the engine counts it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(pub(crate) Instant);

impl Clock {
    fn now(self) -> Nanos {
        nanos(self.0.elapsed())
    }

    fn instant(self, at: Nanos) -> Instant {
        self.0 + Duration::from_nanos(at)
    }

    /// The end of a request that was never sent.
    fn unsent(self, target: usize, due: Due, now: Nanos) -> Ended<'static> {
        Ended {
            target,
            stage: due.stage,
            number: due.number,
            start: self.0,
            due: self.instant(due.at),
            sent: None,
            ended: self.instant(now),
            outcome: Outcome::Unsent,
            status: None,
            body: &[],
        }
    }
}

/// One URL's requests, connections and counts on one thread.
#[derive(Debug)]
pub(crate) struct Lane<F> {
    pub(crate) target: usize,
    address: SocketAddr,
    feed: F,
    connections: Vec<Connection>,
    /// Free connections, longest free first, so that all of them are used in turns.
    ring: VecDeque<usize>,
    /// One of each stage.
    pub(crate) tallies: Vec<Tally>,
    over: bool,
    busy: usize,
}

impl<F: Feed> Lane<F> {
    pub(crate) fn new(
        target: usize,
        address: SocketAddr,
        feed: F,
        connections: usize,
        stages: usize,
    ) -> Self {
        Self {
            target,
            address,
            feed,
            connections: (0..connections).map(|_| Connection::new()).collect(),
            ring: VecDeque::with_capacity(connections),
            tallies: vec![Tally::default(); stages.max(1)],
            over: false,
            busy: 0,
        }
    }

    fn take_idle(&mut self) -> Option<usize> {
        while let Some(index) = self.ring.pop_front() {
            let connection = self.connections.get_mut(index)?;
            connection.in_ring = false;
            if matches!(connection.state, State::Idle { .. }) {
                return Some(index);
            }
        }
        None
    }

    fn has_idle(&self) -> bool {
        self.ring.iter().any(|&index| {
            self.connections
                .get(index)
                .is_some_and(|connection| matches!(connection.state, State::Idle { .. }))
        })
    }

    /// The stage that errors without a request are counted in: that of the next one.
    fn tally_now(&mut self, now: Nanos) -> Option<&mut Tally> {
        let stage = match self.feed.peek(now) {
            Next::Due(due) => due.stage,
            Next::Ask(_) => 0,
            Next::Over => self.tallies.len().saturating_sub(1),
        };
        self.tallies.get_mut(stage)
    }
}

/// One thread's lanes and its loop.
#[derive(Debug)]
pub(crate) struct Engine<'l, F, W> {
    epoll: OwnedFd,
    clock: Clock,
    pub(crate) lanes: Vec<Lane<F>>,
    limits: Limits,
    pub(crate) watch: W,
    live: &'l Live,
    published: Published,
    pub(crate) effort: Effort,
    /// When it was told to stop.
    pub(crate) stopped: Option<Nanos>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Published {
    sent: u64,
    in_time: u64,
    ended: u64,
    errors: u64,
}

impl<'l, F: Feed, W: Watch> Engine<'l, F, W> {
    pub(crate) fn new(
        lanes: Vec<Lane<F>>,
        limits: Limits,
        watch: W,
        live: &'l Live,
    ) -> Result<Self, Errno> {
        let least = NonZeroU64::new(1);
        // Without it, due times are met 50 µs less well; the lag says so.
        let _ = rustix::thread::set_current_timer_slack(least);
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            clock: Clock(Instant::now()),
            lanes,
            limits,
            watch,
            live,
            published: Published::default(),
            effort: Effort::default(),
            stopped: None,
        })
    }

    /// Opens all connections; an error where one URL let none in.
    pub(crate) fn connect(&mut self) -> Result<(), (usize, ErrorKind)> {
        for lane in 0..self.lanes.len() {
            self.reopen(lane, 0);
        }
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let pending = |lane: &Lane<F>| {
            lane.connections
                .iter()
                .any(|c| matches!(c.state, State::Connecting { .. }))
        };
        while self.lanes.iter().any(pending) && self.clock.now() < CONNECT_TIMEOUT {
            self.sleep(&mut events, SWEEP);
            for at in 0..events.len() {
                let now = self.clock.now();
                if let Some(event) = events.get(at) {
                    self.handle(*event, now);
                }
            }
        }
        match self.lanes.iter().find(|lane| !lane.has_idle()) {
            Some(lane) => Err((lane.target, ErrorKind::Connect)),
            None => Ok(()),
        }
    }

    /// Runs until every feed is over and every request has ended. Time begins at `start`.
    pub(crate) fn run(&mut self, start: Instant) {
        self.clock = Clock(start);
        for lane in &mut self.lanes {
            for connection in &mut lane.connections {
                if let State::Idle { since } = &mut connection.state {
                    *since = 0;
                }
            }
        }
        let cpu_before = thread_cpu();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut sweep_at = SWEEP;
        let mut woke = self.clock.now();
        loop {
            let mut now = self.clock.now();
            let more = self.send_due(now);
            if now >= sweep_at {
                self.sweep(now);
                sweep_at = now + SWEEP;
            }
            let over = self.lanes.iter().all(|lane| lane.over && lane.busy == 0);
            let wake = if over || more {
                now
            } else {
                self.next_wake(now).min(sweep_at)
            };
            now = self.clock.now();
            self.effort.busy += now - woke;
            self.effort.turn_max = self.effort.turn_max.max(now - woke);
            if over {
                break;
            }
            self.sleep(&mut events, wake.saturating_sub(now));
            woke = self.clock.now();
            for at in 0..events.len() {
                now = self.clock.now();
                if let Some(event) = events.get(at) {
                    self.handle(*event, now);
                }
                now = self.clock.now();
                self.send_due(now);
            }
        }
        self.publish();
        self.effort.wall = self.clock.now();
        self.effort.cpu = thread_cpu().saturating_sub(cpu_before);
    }

    /// Waits for events for at most `nanos`.
    fn sleep(&self, events: &mut Vec<Event>, nanos: Nanos) {
        events.clear();
        let timeout = Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (nanos % 1_000_000_000).cast_signed(),
        };
        let room = rustix::buffer::spare_capacity(events);
        // Interrupted: as if nothing had come; the loop asks again.
        let _ = epoll::wait(&self.epoll, room, Some(&timeout));
    }

    /// When the next request is due that has a connection.
    fn next_wake(&mut self, now: Nanos) -> Nanos {
        let mut wake = Nanos::MAX;
        for lane in &mut self.lanes {
            match lane.feed.peek(now) {
                Next::Due(due) if lane.has_idle() => wake = wake.min(due.at),
                Next::Ask(at) => wake = wake.min(at),
                _ => {}
            }
        }
        wake
    }

    /// Sends what is due at `now` and after it while it lasts, as far as connections are free. Whether there is more to do
    /// at once.
    fn send_due(&mut self, now: Nanos) -> bool {
        let mut more = false;
        for at in 0..self.lanes.len() {
            more |= self.send_due_of(at, now);
        }
        more
    }

    fn send_due_of(&mut self, at: usize, mut now: Nanos) -> bool {
        let wait = nanos(self.limits.wait);
        let mut given_up = 0;
        loop {
            let Some(lane) = self.lanes.get_mut(at) else {
                return false;
            };
            let due = match lane.feed.peek(now) {
                Next::Due(due) if due.at <= now => due,
                Next::Over => {
                    lane.over = true;
                    return false;
                }
                _ => return false,
            };
            if now - due.at > wait {
                if given_up == GIVEN_UP_MAX {
                    return true;
                }
                given_up += 1;
                lane.feed.advance();
                self.unsent(at, due, now);
                continue;
            }
            let Some(index) = lane.take_idle() else {
                return false;
            };
            self.send(at, index, due, now);
            now = self.clock.now();
        }
    }

    fn send(&mut self, at: usize, index: usize, due: Due, now: Nanos) {
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        let Some(connection) = lane.connections.get_mut(index) else {
            return;
        };
        let free_since = match connection.state {
            State::Idle { since } => since,
            _ => now,
        };
        if let Some(tally) = lane.tallies.get_mut(due.stage) {
            tally.sent += 1;
            tally.last_sent = now;
            if free_since > due.at {
                tally.waited.record(free_since - due.at);
            }
            let lag = now - due.at.max(free_since).min(now);
            tally.lag.record(lag);
            tally.late += u64::from(lag > LATE);
        }
        connection.flight = Some(Flight { due, sent: now });
        connection.state = State::Busy;
        lane.busy += 1;
        let sent = connection.send(lane.feed.bytes(&due));
        lane.feed.advance();
        match sent {
            Ok(false) => {}
            Ok(true) => {
                let key = key(at, index, connection.life);
                if connection.wait(&self.epoll, key, true).is_err() {
                    self.fail(at, index, ErrorKind::Closed, now);
                }
            }
            Err(_) => self.fail(at, index, ErrorKind::Closed, now),
        }
    }

    fn handle(&mut self, event: Event, now: Nanos) {
        // By value: the kernel's struct is packed.
        let data: EventData = event.data;
        let flags: EventFlags = event.flags;
        let (at, index, life) = unkey(data.u64());
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        let Some(connection) = lane.connections.get_mut(index) else {
            return;
        };
        if connection.life != life {
            return;
        }
        match connection.state {
            State::Connecting { .. } => self.connected(at, index, now),
            State::Down { .. } => {}
            State::Idle { .. } => {
                // A free connection has nothing to say: the server closed it, or speaks out of turn.
                if let Some(tally) = lane.tally_now(now) {
                    tally.closed_by_server += 1;
                }
                self.closed(at, index, now);
            }
            State::Busy => {
                if flags.contains(EventFlags::OUT) && connection.is_writing() {
                    match connection.send_rest() {
                        Ok(true) => {}
                        Ok(false) => {
                            let key = key(at, index, life);
                            // It stays told of room to write, which costs time and nothing else.
                            let _ = connection.wait(&self.epoll, key, false);
                        }
                        Err(_) => return self.fail(at, index, ErrorKind::Closed, now),
                    }
                }
                let readable =
                    EventFlags::IN | EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP;
                if flags.intersects(readable) {
                    self.read(at, index);
                }
            }
        }
    }

    fn connected(&mut self, at: usize, index: usize, now: Nanos) {
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        let Some(connection) = lane.connections.get_mut(index) else {
            return;
        };
        let key = key(at, index, connection.life);
        let ready = connection
            .connected()
            .and_then(|()| connection.wait(&self.epoll, key, false));
        if ready.is_ok() {
            lane.idle(index, now);
        } else {
            self.refused(at, index, now);
        }
    }

    /// An attempt to connect failed.
    fn refused(&mut self, at: usize, index: usize, now: Nanos) {
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        if let Some(tally) = lane.tally_now(now) {
            tally.count_error(ErrorKind::Connect);
        }
        if let Some(connection) = lane.connections.get_mut(index) {
            connection.close(now + RECONNECT_AFTER);
        }
    }

    fn open(&mut self, at: usize, index: usize, now: Nanos) {
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        let Some(connection) = lane.connections.get_mut(index) else {
            return;
        };
        let opened = connection.open(&self.epoll, &lane.address, now, |life| key(at, index, life));
        if opened.is_err() {
            self.refused(at, index, now);
        }
    }

    /// Opens what is down and may be tried again.
    fn reopen(&mut self, at: usize, now: Nanos) {
        let count = self.lanes.get(at).map_or(0, |lane| lane.connections.len());
        for index in 0..count {
            let state = self
                .lanes
                .get(at)
                .and_then(|lane| lane.connections.get(index))
                .map(|c| c.state);
            if matches!(state, Some(State::Down { again }) if again <= now) {
                self.open(at, index, now);
            }
        }
    }

    fn read(&mut self, at: usize, index: usize) {
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        let Some(connection) = lane.connections.get_mut(index) else {
            return;
        };
        let found = connection.read();
        let now = self.clock.now();
        match found {
            Read::Partial => {}
            Read::Whole(head) => self.answered(at, index, head, now),
            Read::Broken(Broken::Malformed) => self.fail(at, index, ErrorKind::Malformed, now),
            Read::Broken(Broken::Chunked) => self.fail(at, index, ErrorKind::Chunked, now),
            Read::Closed => self.fail(at, index, ErrorKind::Closed, now),
        }
    }

    fn answered(&mut self, at: usize, index: usize, head: Head, now: Nanos) {
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        let Some(connection) = lane.connections.get_mut(index) else {
            return;
        };
        let outcome = lane.feed.judge(head.status, connection.body(head));
        connection.answered = true;
        // An answer that came before the request was out leaves the connection in the middle of it.
        let ends = head.closes || connection.is_writing();
        self.end(at, index, outcome, Some(head), now);
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        if ends {
            if let Some(tally) = lane.tally_now(now) {
                tally.closed_by_server += u64::from(head.closes);
            }
            self.open(at, index, now);
        } else {
            lane.idle(index, now);
        }
    }

    /// The request under way has no answer that counts, and its connection is of no more use.
    fn fail(&mut self, at: usize, index: usize, kind: ErrorKind, now: Nanos) {
        self.end(at, index, Outcome::Failed(kind), None, now);
        if kind == ErrorKind::Closed {
            self.closed(at, index, now);
        } else {
            self.open(at, index, now);
        }
    }

    /// The server closed a connection: another one, at once where it had served.
    fn closed(&mut self, at: usize, index: usize, now: Nanos) {
        let connection = self
            .lanes
            .get_mut(at)
            .and_then(|lane| lane.connections.get_mut(index));
        match connection {
            Some(connection) if !connection.answered => connection.close(now + RECONNECT_AFTER),
            _ => self.open(at, index, now),
        }
    }

    /// Takes the flight off its connection and counts it.
    fn end(&mut self, at: usize, index: usize, outcome: Outcome, head: Option<Head>, now: Nanos) {
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        let Some(connection) = lane.connections.get_mut(index) else {
            return;
        };
        let Some(flight) = connection.flight.take() else {
            return;
        };
        lane.busy -= 1;
        let due = flight.due;
        if let Some(tally) = lane.tallies.get_mut(due.stage) {
            tally.service.record(now.saturating_sub(flight.sent));
            tally.count(
                outcome,
                now.saturating_sub(due.at),
                nanos(self.limits.deadline),
            );
        }
        self.watch.ended(&Ended {
            sent: Some(self.clock.instant(flight.sent)),
            outcome,
            status: head.map(|head| head.status),
            body: head.map(|head| connection.body(head)).unwrap_or_default(),
            ..self.clock.unsent(lane.target, due, now)
        });
    }

    fn unsent(&mut self, at: usize, due: Due, now: Nanos) {
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        if let Some(tally) = lane.tallies.get_mut(due.stage) {
            tally.count(Outcome::Unsent, now - due.at, nanos(self.limits.deadline));
        }
        let ended = self.clock.unsent(lane.target, due, now);
        self.watch.ended(&ended);
    }

    /// What does not come as an event: time-outs, new attempts, being told to stop.
    fn sweep(&mut self, now: Nanos) {
        let timeout = nanos(self.limits.timeout);
        let stop = self.live.stop.load(Ordering::Relaxed);
        if stop {
            self.stopped.get_or_insert(now);
        }
        for at in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(at) else {
                return;
            };
            if stop {
                lane.feed.stop(now);
            }
            for index in 0..lane.connections.len() {
                let Some(lane) = self.lanes.get_mut(at) else {
                    return;
                };
                let Some(connection) = lane.connections.get_mut(index) else {
                    break;
                };
                match (connection.state, connection.flight) {
                    (State::Busy, Some(flight)) if now.saturating_sub(flight.sent) > timeout => {
                        self.fail(at, index, ErrorKind::Timeout, now);
                    }
                    (State::Connecting { since }, _)
                        if now.saturating_sub(since) > CONNECT_TIMEOUT =>
                    {
                        self.refused(at, index, now);
                    }
                    _ => {}
                }
            }
            self.reopen(at, now);
        }
        self.publish();
    }

    fn publish(&mut self) {
        let mut sum = Published::default();
        for tally in self.lanes.iter().flat_map(|lane| &lane.tallies) {
            sum.sent += tally.sent;
            sum.in_time += tally.in_time;
            sum.ended += tally.due();
            sum.errors += tally.errors_total();
        }
        let before = std::mem::replace(&mut self.published, sum);
        let add =
            |to: &AtomicU64, now: u64, before: u64| to.fetch_add(now - before, Ordering::Relaxed);
        add(&self.live.sent, sum.sent, before.sent);
        add(&self.live.in_time, sum.in_time, before.in_time);
        add(&self.live.ended, sum.ended, before.ended);
        add(&self.live.errors, sum.errors, before.errors);
    }
}

impl<F> Lane<F> {
    /// The connection is free from now on.
    fn idle(&mut self, index: usize, now: Nanos) {
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        connection.state = State::Idle { since: now };
        if !connection.in_ring {
            connection.in_ring = true;
            self.ring.push_back(index);
        }
    }
}

/// Lane, connection and its life in one number, for epoll.
fn key(lane: usize, index: usize, life: u16) -> u64 {
    (lane as u64) << 48 | (index as u64 & 0xffff_ffff) << 16 | u64::from(life)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "each part was cut to fit by key()"
)]
fn unkey(key: u64) -> (usize, usize, u16) {
    (
        (key >> 48) as usize,
        ((key >> 16) & 0xffff_ffff) as usize,
        key as u16,
    )
}

fn thread_cpu() -> Nanos {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
