//! The bid listener: bytes from exchanges to one decoded body, and the answer back. Nothing here knows what a bid is.
//!
//! **Shape.** One current-thread runtime a core, each on a thread of its own, so that a request is read, decided and
//! answered by one thread without a lock, and a [`Bidder`] need not be `Send`. An acceptor thread deals each new
//! connection to the worker with the fewest. HTTP/1.1 is hyper's; around it stand a `wire` that notes how far
//! a connection is, a service that routes and gathers the body, and a sweep that closes what overstays. Requests that are
//! ready together are read, then decided on, then answered, a few at a time: `bid/worker/batch.rs` says why.
//!
//! **Invariants.** Nothing a caller sends makes a 5xx, a panic that leaves its request, or two requests out of one.
//! Every wait has a named deadline and every buffer a named bound. A connection is closed only where its framing can
//! no longer be trusted, a deadline passed, or we drain; a no-bid or a malformed body never closes it.
//!
//! **Cost.** A request whose body comes in one piece is handed over without a copy; the answer costs one allocation
//! of its size, a no-bid none of ours. Deadlines cost one `Instant::now` a read and no timers: phases are stamped in
//! sweeps (see `bid/connection.rs`). What an overloaded thread answers without deciding is in `bid/overload.rs`.
#![deny(clippy::indexing_slicing)]

mod connection;
mod gzip;
mod overload;
mod request;
mod route;
mod server;
mod wire;
mod worker;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;

use std::time::{Duration, Instant};

pub use server::{BidListener, BidServer, BidThread, DrainReport};

use tokio::sync::oneshot;

use crate::config::Exchange;
use crate::ledger::Kind;

/// Who decides. One a worker thread, made on it by the factory given to [`BidListener::start`], so it may be full of
/// `Rc` and `Cell`; called between awaits, so it must not block.
///
/// A panic in any of the calls costs the one request: it is caught, the bidder is dropped and made anew.
pub trait Bidder: 'static {
    /// Decides on one body, already decoded and within `limits.bid_body_bytes` (perhaps empty). Writes the response's
    /// bytes into `out` (empty when called) for [`Answer::Bid`] and [`Answer::Reason`].
    ///
    /// `arrived`: when the request's first byte could be read from its socket, as near as the thread's queue is known: the
    /// moment at which it was read, less the time that sockets were waiting for their turn then. For a pipelined request, which
    /// came with an earlier one's bytes: that of the last read before it. `now`: the moment of asking, for a clock costs time
    /// to read.
    fn bid(
        &mut self,
        exchange: &Exchange,
        body: &[u8],
        arrived: Instant,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Answer;

    /// A request is answered 204 without being decided on, because its thread is asked for more than it can do.
    fn shed(&mut self, exchange: &Exchange);

    /// A notice or a click has come. `reply` is told at once or later, from any thread.
    fn notice(&mut self, _asked: &NoticeAsked<'_>, reply: NoticeReply) {
        reply.send(NoticeAnswer::Unknown);
    }

    /// The answer to a request, decided on or shed, is on its way, so long after the request arrived.
    fn answered(&mut self, exchange: &Exchange, answer: Answer, took: Duration);

    /// Called about four times a second, busy or idle: the moment to let go of old generations and to flush.
    fn tick(&mut self, load: Load);

    /// A request or connection ended before `bid` could answer it. `exchange` where it is known.
    fn refused(&mut self, exchange: Option<&Exchange>, why: Refused);
}

/// How busy a worker is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests whose head has been read and that are not yet answered.
    pub in_flight: usize,
    /// The longest that sockets have waited for their turn since the last tick.
    pub queue_delay: Duration,
    /// Whether requests are being shed, or were a moment ago.
    pub shedding: bool,
    /// How long the thread has been busy since the last tick.
    pub busy: Duration,
}

/// What a [`Bidder`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 200 with `out` as JSON. An empty `out` is sent as a no-bid: exchanges choke on 200 without a body.
    Bid,
    /// 200 with `out` as JSON, which says why there is no bid.
    Reason,
    /// 204.
    NoBid,
    /// 400 without content.
    Malformed,
}

/// A notice, as its URL says it.
#[derive(Debug, Clone, Copy)]
pub struct NoticeAsked<'a> {
    /// What it says.
    pub kind: Kind,
    /// The token, as it came.
    pub token: &'a str,
    /// What stands behind the `?`.
    pub query: &'a str,
}

/// What the sender of a notice is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeAnswer {
    /// 204: it is taken, now or before.
    Taken,
    /// 404: its token is none of ours, or too old.
    Unknown,
    /// 302: where the ad that was clicked on leads.
    Leads(String),
    /// 503: it cannot be kept now, and must come again.
    TryAgain,
}

/// Where the answer to a notice goes. Dropped, it says "try again".
#[derive(Debug)]
pub struct NoticeReply(oneshot::Sender<NoticeAnswer>);

impl NoticeReply {
    /// Answers.
    pub fn send(self, answer: NoticeAnswer) {
        // Whoever asked may be gone.
        let _ = self.0.send(answer);
    }
}

/// Why a request was not asked about, or a connection ended: a closed list, fit for a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// 404: no such path or exchange.
    Path,
    /// 404: the path's key is missing, wrong, or not expected.
    Key,
    /// 403: the caller is not in the exchange's `allow`.
    Caller,
    /// 405.
    Method,
    /// 415: a `Content-Type` that is not JSON.
    ContentType,
    /// 415: a `Content-Encoding` other than gzip.
    ContentEncoding,
    /// 413: over `limits.bid_body_bytes`, on the wire or decoded.
    TooLarge,
    /// 400: the gzip body is cut, damaged, or followed by something.
    Gzip,
    /// 400, 414 or 431 and closed: what was sent is not strict HTTP/1.1, or ended within a request.
    Framing,
    /// 204: this worker holds too many half-received bodies.
    Overloaded,
    /// 204: the bidder panicked.
    Panicked,
    /// Closed: the head did not end within `limits.header_timeout_ms`.
    HeadTimeout,
    /// Closed: the body did not end within `limits.body_timeout_ms`.
    BodyTimeout,
    /// Closed: the client did not take the answer within `limits.write_timeout_ms`.
    WriteTimeout,
    /// Closed on arrival: `limits.bid_connections` were open.
    Connections,
}

impl Refused {
    /// All of them, for a metric that exists at 0 from the start.
    pub const ALL: [Self; 15] = [
        Self::Path,
        Self::Key,
        Self::Caller,
        Self::Method,
        Self::ContentType,
        Self::ContentEncoding,
        Self::TooLarge,
        Self::Gzip,
        Self::Framing,
        Self::Overloaded,
        Self::Panicked,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::WriteTimeout,
        Self::Connections,
    ];

    /// As a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Key => "key",
            Self::Caller => "caller",
            Self::Method => "method",
            Self::ContentType => "content_type",
            Self::ContentEncoding => "content_encoding",
            Self::TooLarge => "too_large",
            Self::Gzip => "gzip",
            Self::Framing => "framing",
            Self::Overloaded => "overloaded",
            Self::Panicked => "panicked",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::Connections => "connections",
        }
    }
}
