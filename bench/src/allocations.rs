//! Heap allocations of a decision, counted by an allocator of the crate `allocation-counter`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use kith::config::Config;
use kith::datasets::Live;
use kith::generation::Generation;
use kith::http::bid::Bidder as _;
use kith::http::bidder::{KithBidder, Shared};
use kith::ledger::Desk;
use kith::metrics::BidThreads;

use crate::bodies::{Weight, Who, bodies};
use crate::compare::Effort;

/// Requests that warm the thread before counting: the largest of them has grown its arena.
const WARMED_BY: usize = 100;

/// A bidder of one thread over a generation, as a bid thread has it.
pub fn bidder(config: &Config, generation: &Arc<Generation>) -> KithBidder {
    let threads = BidThreads::new(Arc::new(config.exchanges.clone()), 4);
    let shared = Shared {
        ready: Arc::new(AtomicBool::new(true)),
        imps_max: config.limits.imps_per_request,
        books: None,
    };
    let live = Live::new(Arc::clone(generation));
    KithBidder::new(shared, live.reader(), Desk::alone(1), threads.enlist())
}

/// Mean number of allocations from a body to its response, over mixed requests.
///
/// # Errors
/// Where the exchange is not there.
pub fn per_decision(
    config: &Config,
    generation: &Arc<Generation>,
    effort: Effort,
) -> io::Result<f64> {
    let mut bidder = bidder(config, generation);
    let exchange = config
        .exchanges
        .get("demo")
        .ok_or_else(|| io::Error::other("no exchange demo"))?;
    let bodies = bodies(Weight::Heavy, Who::Mixed(83), effort.size.people, WARMED_BY);
    let mut out = Vec::with_capacity(64 << 10);
    let mut ask = || {
        for body in &bodies {
            out.clear();
            let now = Instant::now();
            bidder.bid(exchange, body.as_bytes(), now, now, &mut out);
        }
    };
    ask();
    let counted = allocation_counter::measure(ask);
    Ok(counted.count_total as f64 / bodies.len() as f64)
}
