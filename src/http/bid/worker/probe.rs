//! The task that measures how long sockets wait for their turn.
//!
//! `yield_now` puts a task behind everything that is ready: the runtime first polls the sockets, queues the tasks of those
//! that are readable, and then this one. So between a yield and its return, all that waited at the yield has been
//! served: a lap (`bid/overload.rs`). Nothing is asked of the kernel for it.
//!
//! It runs only while a lap is under way. The first begins within a request, so it sees only what this runtime has queued;
//! where that is little, it is the last, and a quiet thread never pays for a yield, which would be an `epoll_wait`.
#![deny(clippy::indexing_slicing)]

use std::rc::Rc;
use std::time::Instant;

use super::Worker;
use crate::http::bid::{Bidder, Load};

/// Runs laps for as long as the worker lives.
pub(super) async fn run<B: Bidder>(worker: Rc<Worker<B>>) {
    loop {
        worker.probe.notified().await;
        while worker.overload.borrow_mut().lap_ended(Instant::now()) {
            tokio::task::yield_now().await;
        }
    }
}

impl<B: Bidder> Worker<B> {
    /// How busy this thread is, for the bidder's tick.
    pub(super) fn load(&self) -> Load {
        let now = Instant::now();
        let metrics = tokio::runtime::Handle::current().metrics();
        let busy = metrics.worker_total_busy_duration(0);
        let mut overload = self.overload.borrow_mut();
        Load {
            in_flight: self.in_flight.get(),
            queue_delay: overload.take_longest_lap(now),
            shedding: overload.is_shedding(now),
            busy: busy.saturating_sub(self.busy_before.replace(busy)),
        }
    }
}
