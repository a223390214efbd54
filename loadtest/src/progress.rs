//! The line that a person sees each second while a run goes on.

use std::sync::atomic::Ordering;

use crate::engine::Live;

/// What had happened when the last line was made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    second: u64,
    sent: u64,
    in_time: u64,
    ended: u64,
    errors: u64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What happened since the last line.
    pub(crate) fn line(&mut self, live: &Live) -> String {
        let now = Self {
            second: self.second + 1,
            sent: live.sent.load(Ordering::Relaxed),
            in_time: live.in_time.load(Ordering::Relaxed),
            ended: live.ended.load(Ordering::Relaxed),
            errors: live.errors.load(Ordering::Relaxed),
        };
        let line = format!(
            "{:>4} s  {:>7} sent  {:>7} in time  {:>6} late or failed  {:>5} errors",
            now.second,
            now.sent - self.sent,
            now.in_time - self.in_time,
            (now.ended - self.ended).saturating_sub(now.in_time - self.in_time),
            now.errors - self.errors,
        );
        *self = now;
        line
    }
}
