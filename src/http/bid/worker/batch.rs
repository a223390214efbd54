//! Requests that are ready together are decided on together.
//!
//! **Why.** To read a socket, to decide and to write an answer are three programs, each of them about as long as a core's
//! instruction cache, and two of them are mostly the kernel's. One request after the other goes through all three and finds
//! each of them driven out by the two others. So the worker first reads up to [`BATCH_MAX`] requests, then decides on all of
//! them, then writes all answers: the same instructions, and at full load about an eighth less time
//! (`docs/performance.md`).
//!
//! **How.** A connection that [asks](Worker::asked_by) waits. When enough of them wait, the task of the one that came last
//! decides on all; where fewer do, the *closer* does, a task that is woken by the first of them and so has its turn behind
//! all connections that were ready then. Either then goes on with each connection itself, which costs no turn of the
//! runtime. A request that comes alone is answered at once, but for one turn of a task.
//!
//! **Bounds.** One request of a connection a turn: whoever has sent its next one already waits for the others' turns. For
//! the batch's sake an answer is held back while fewer than [`BATCH_MAX`] other requests are read, and for [`DECIDING_MAX`] of
//! deciding and the decision under way then: slow decisions are not heaped up.
#![deny(clippy::indexing_slicing)]

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::Worker;
use crate::http::bid::connection::{Connection, Driven};
use crate::http::bid::{Answer, Bidder};

/// Requests that wait for each other. Twice as many save little more.
const BATCH_MAX: usize = 16;
/// After so much deciding the answers are sent before more is decided.
const DECIDING_MAX: Duration = Duration::from_micros(250);

/// The connections that wait for a decision.
pub(super) struct Batch<B: Bidder> {
    waiting: RefCell<Vec<Rc<Driven<B>>>>,
    /// An empty one, to take its place.
    spare: Cell<Vec<Rc<Driven<B>>>>,
    /// What was decided and not yet counted: exchange, answer, when the request arrived.
    decided: RefCell<Vec<(usize, Answer, Instant)>>,
    closer: RefCell<Option<Waker>>,
}

impl<B: Bidder> Default for Batch<B> {
    fn default() -> Self {
        Self {
            waiting: RefCell::default(),
            spare: Cell::default(),
            decided: RefCell::default(),
            closer: RefCell::default(),
        }
    }
}

/// The closer: decides on those that wait when all connections that were ready have had their turn.
pub(super) async fn close<B: Bidder>(worker: Rc<Worker<B>>) -> Infallible {
    poll_fn(|cx| {
        worker
            .batch
            .closer
            .borrow_mut()
            .get_or_insert_with(|| cx.waker().clone());
        // Without a closer small batches would wait for ever.
        let _ = catch_unwind(AssertUnwindSafe(|| worker.decide_all()));
        Poll::Pending
    })
    .await
}

impl<B: Bidder> Worker<B> {
    /// A connection has a question.
    pub(in crate::http::bid) fn asked_by(&self, connection: Rc<Driven<B>>) {
        let mut waiting = self.batch.waiting.borrow_mut();
        if waiting.is_empty()
            && let Some(closer) = self.batch.closer.borrow().as_ref()
        {
            closer.wake_by_ref();
        }
        waiting.push(connection);
    }

    /// Decides when enough wait.
    pub(in crate::http::bid) fn decide_if_many(&self) {
        if self.batch.waiting.borrow().len() >= BATCH_MAX {
            self.decide_all();
        }
    }

    /// Decides on all that wait, and sends the answers.
    fn decide_all(&self) {
        if self.batch.waiting.borrow().is_empty() {
            return;
        }
        let mut batch = self.batch.waiting.replace(self.batch.spare.take());
        let mut now = Instant::now();
        let mut rest = batch.as_slice();
        while !rest.is_empty() {
            let until = now.checked_add(DECIDING_MAX).unwrap_or(now);
            let mut decided: usize = 0;
            for connection in rest {
                now = self.decide_on(connection.connection(), now);
                decided = decided.saturating_add(1);
                if now >= until {
                    break;
                }
            }
            let (done, more) = rest.split_at(decided);
            rest = more;
            self.count(now);
            for connection in done {
                if catch_unwind(AssertUnwindSafe(|| connection.resume(self))).is_err() {
                    connection.connection().close();
                }
            }
            if !rest.is_empty() {
                now = Instant::now();
            }
        }
        batch.clear();
        self.batch.spare.set(batch);
    }

    /// Decides on what a connection asks, where it still asks. What time it is then. A panic costs this connection, not those
    /// that wait with it; the bidder's own do not come here.
    fn decide_on(&self, connection: &Connection, now: Instant) -> Instant {
        let Some(question) = connection.question() else {
            return now;
        };
        if connection.is_closing() {
            self.let_go(question.body);
            return now;
        }
        let decided = catch_unwind(AssertUnwindSafe(|| self.decide(&question, now)));
        self.let_go(question.body);
        let Ok((told, answer, ended)) = decided else {
            connection.close();
            return now;
        };
        if let Some(answer) = answer {
            let entry = (question.exchange, answer, question.arrived);
            self.batch.decided.borrow_mut().push(entry);
        }
        connection.tell(told);
        ended
    }

    /// Counts what was decided: the answers are on their way now.
    fn count(&self, now: Instant) {
        let mut decided = self.batch.decided.borrow_mut();
        for (exchange, answer, arrived) in decided.drain(..) {
            if let Some(exchange) = self.exchange(exchange) {
                let took = now.saturating_duration_since(arrived);
                let _ = self.with_bidder(|bidder| bidder.answered(exchange, answer, took));
            }
        }
    }
}
