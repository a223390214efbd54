//! Where due requests come from. What an open loop is, and what a closed one is, differ in nothing else.

use crate::schedule::{Due, Nanos, Schedule};
use crate::tally::{ErrorKind, Outcome};
use crate::wire::{Requests, Says, says};

/// The next request of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This one is due then.
    Due(Due),
    /// None is known yet; ask again at this time.
    Ask(Nanos),
    /// There will be none.
    Over,
}

/// A sequence of due requests and their bytes.
pub(crate) trait Feed {
    /// The next request. Asked again, it says the same until `advance`.
    fn peek(&mut self, now: Nanos) -> Next;
    /// Its bytes.
    fn bytes(&self, due: &Due) -> &[u8];
    /// Goes on to the one after it.
    fn advance(&mut self);
    /// Ends it here: nothing more becomes due.
    fn stop(&mut self, now: Nanos);

    /// What an answer to one of its requests is. Of a bid request, unless it says otherwise.
    fn judge(&self, status: u16, body: &[u8]) -> Outcome {
        match status {
            200 => match says(body) {
                Says::Bid => Outcome::Bid,
                Says::NoBid => Outcome::NoBid,
                Says::Nonsense => Outcome::Failed(ErrorKind::Malformed),
            },
            204 => Outcome::NoBid,
            400..=499 => Outcome::Failed(ErrorKind::Status4xx),
            500..=599 => Outcome::Failed(ErrorKind::Status5xx),
            _ => Outcome::Failed(ErrorKind::StatusOther),
        }
    }
}

/// Requests by a schedule: the open loop.
#[derive(Debug)]
pub(crate) struct Open<'r> {
    pub(crate) schedule: Schedule,
    pub(crate) requests: &'r Requests,
    pub(crate) stopped: Option<Nanos>,
}

impl Feed for Open<'_> {
    fn peek(&mut self, _: Nanos) -> Next {
        match self.schedule.peek() {
            Some(due) if self.stopped.is_none_or(|at| due.at <= at) => Next::Due(due),
            _ => Next::Over,
        }
    }

    fn bytes(&self, due: &Due) -> &[u8] {
        self.requests.get(line(due, self.requests))
    }

    fn advance(&mut self) {
        self.schedule.advance();
    }

    fn stop(&mut self, now: Nanos) {
        self.stopped.get_or_insert(now);
    }
}

/// A request whenever a connection is free: the closed loop, which never asks while the server stalls and so hardly
/// sees that it does. For comparison only.
#[derive(Debug)]
pub(crate) struct Closed<'r> {
    pub(crate) until: Nanos,
    pub(crate) number: u64,
    pub(crate) step: u64,
    pub(crate) requests: &'r Requests,
}

impl Feed for Closed<'_> {
    fn peek(&mut self, now: Nanos) -> Next {
        if now >= self.until {
            return Next::Over;
        }
        Next::Due(Due {
            at: now,
            stage: 0,
            number: self.number,
        })
    }

    fn bytes(&self, due: &Due) -> &[u8] {
        self.requests.get(line(due, self.requests))
    }

    fn advance(&mut self) {
        self.number += self.step;
    }

    fn stop(&mut self, now: Nanos) {
        self.until = self.until.min(now);
    }
}

/// The line of the requests' file that a number stands for: each in turn.
pub(crate) fn line(due: &Due, requests: &Requests) -> usize {
    usize::try_from(due.number % requests.len().max(1) as u64).unwrap_or_default()
}
