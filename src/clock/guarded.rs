//! Time that a step of the wall clock does not move at once.
//!
//! A clock that leaps by days and back, because somebody set it or a time server was wrong for a moment, must not end what
//! was promised until then: budgets, windows, tokens. So the wall clock is held against the steady one. While both go at the same
//! rate the wall clock is believed. Where it has leapt, the time is told by the steady clock from where both agreed last, until
//! what the wall clock shows has lasted: then the step was meant, forwards or backwards. Meanwhile nobody knows which of the
//! two is right, and whoever promises something by the time should not ([`Guarded::is_sure`]).
//!
//! Invariant: what is told never goes back, but for a step back that was believed; and never follows one that did not last.

use std::time::{Duration, Instant};

use super::Timestamp;

/// What the wall clock may be away from the steady one between two readings: leap seconds, and what time servers put right at once.
pub const STEP_MS: i64 = 2_000;
/// How long a step must last to be believed.
pub const LASTING: Duration = Duration::from_secs(60);
/// How long after that others may still go by the time before it.
const SETTLING: Duration = Duration::from_secs(2);

/// The wall clock, held against the steady one at each reading.
#[derive(Debug, Clone, Copy)]
pub struct Guarded {
    /// How long a step must last.
    lasting: Duration,
    told: Timestamp,
    /// What the wall clock showed when it was believed last, and when that was.
    agreed: (Timestamp, Instant),
    doubted: Option<Doubted>,
    believed: Option<Instant>,
}

/// A step that is not believed yet.
#[derive(Debug, Clone, Copy)]
struct Doubted {
    since: Instant,
    ahead_ms: i64,
}

impl Guarded {
    /// Believes what the wall clock shows at the start.
    pub const fn new(wall: Timestamp, now: Instant) -> Self {
        Self::after(LASTING, wall, now)
    }

    /// The same, which believes steps that have lasted so long.
    pub const fn after(lasting: Duration, wall: Timestamp, now: Instant) -> Self {
        Self {
            lasting,
            told: wall,
            agreed: (wall, now),
            doubted: None,
            believed: None,
        }
    }

    /// The time, the wall clock showing this at that moment.
    pub fn read(&mut self, wall: Timestamp, now: Instant) -> Timestamp {
        let steady = self.at(now);
        let ahead_ms = wall.unix_ms.saturating_sub(steady.unix_ms);
        if ahead_ms.saturating_abs() <= STEP_MS {
            self.doubted = None;
            self.agreed = (wall, now);
            self.told = self.told.max(wall);
            return self.told;
        }
        let is_same = |doubted: &Doubted| doubted.ahead_ms.abs_diff(ahead_ms) <= STEP_MS as u64;
        let doubted = self.doubted.filter(is_same).unwrap_or(Doubted {
            since: now,
            ahead_ms,
        });
        if now.saturating_duration_since(doubted.since) >= self.lasting {
            self.doubted = None;
            self.believed = Some(now);
            self.agreed = (wall, now);
            self.told = wall;
        } else {
            self.doubted = Some(doubted);
            self.told = self.told.max(steady);
        }
        self.told
    }

    /// The time at a moment since the last reading.
    pub fn at(&self, now: Instant) -> Timestamp {
        let (wall, read) = self.agreed;
        let since = now.saturating_duration_since(read).as_millis();
        let since = i64::try_from(since).unwrap_or(i64::MAX);
        Timestamp::from_unix_ms(wall.unix_ms.saturating_add(since))
    }

    /// Whether both clocks agree, and everybody has had time to see so.
    pub fn is_sure(&self, now: Instant) -> bool {
        let settling = SETTLING.min(self.lasting);
        let is_settled = |believed| now.saturating_duration_since(believed) >= settling;
        self.doubted.is_none() && self.believed.is_none_or(is_settled)
    }

    /// How far the wall clock is ahead of the time that is told; 0 while it is believed.
    pub fn ahead_ms(&self) -> i64 {
        self.doubted.map_or(0, |doubted| doubted.ahead_ms)
    }
}

#[cfg(test)]
mod tests;
