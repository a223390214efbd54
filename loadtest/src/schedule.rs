//! When each request is due: a pure function of its number.
//!
//! An open loop sends by the clock, whatever the server does. So the schedule is fixed before the first byte is sent,
//! and nothing that happens later moves it. It is not a list: request `n` of a stage that goes from `a` to `b` requests
//! a second in `d` seconds is due when `n` have accumulated, `a·t + (b − a)·t²/2d = n`, which solves to
//! `t = 2n / (a + √(a² + 2(b − a)·n/d))`. A constant rate is the case `a = b`.
//!
//! Invariant: due times never fall, and the same plan gives the same times. That is also what makes waiting free:
//! the requests that wait for a connection are a range of numbers, not a queue.
//! Cost: a square root and a division a request.

use std::time::Duration;

/// Nanoseconds since the run began.
pub type Nanos = u64;

/// A span of the schedule in which the rate goes evenly from one value to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Requests a second at its beginning.
    pub from: f64,
    /// Requests a second at its end.
    pub to: f64,
    /// How long it lasts.
    pub lasts: Duration,
}

impl Stage {
    /// A stage of one rate.
    #[must_use]
    pub fn constant(rate: f64, lasts: Duration) -> Self {
        Self {
            from: rate,
            to: rate,
            lasts,
        }
    }

    /// The same stage with its rates multiplied.
    #[must_use]
    pub fn scaled(self, by: f64) -> Self {
        Self {
            from: self.from * by,
            to: self.to * by,
            ..self
        }
    }

    /// Requests a second, over its whole length.
    #[must_use]
    pub fn mean_rate(&self) -> f64 {
        f64::midpoint(self.from, self.to)
    }

    /// How many requests have accumulated at its end.
    fn total(&self) -> f64 {
        self.mean_rate() * self.lasts.as_secs_f64()
    }

    /// What it is of its first part, where it is cut off after `lasts`.
    #[must_use]
    pub fn cut(self, lasts: Duration) -> Self {
        if lasts >= self.lasts {
            return self;
        }
        let part = lasts.as_secs_f64() / self.lasts.as_secs_f64();
        Self {
            to: self.from + (self.to - self.from) * part,
            lasts,
            ..self
        }
    }

    /// Seconds from its beginning until `n` requests have accumulated.
    fn due(&self, n: f64) -> f64 {
        let slope = (self.to - self.from) / self.lasts.as_secs_f64();
        // A stage that slows to nothing can come out a rounding error below zero.
        let root = (self.from * self.from + 2.0 * slope * n).max(0.0).sqrt();
        let sum = self.from + root;
        if n <= 0.0 { 0.0 } else { 2.0 * n / sum }
    }
}

/// How long stages last together.
pub(crate) fn length(stages: &[Stage]) -> Duration {
    stages.iter().map(|stage| stage.lasts).sum()
}

/// A stage in place: where it begins in time and in number.
#[derive(Clone, Copy, Debug)]
struct Placed {
    stage: Stage,
    begins: Nanos,
    /// Requests that accumulated before it.
    before: f64,
}

/// One connection group's due times: numbers `first`, `first + step`, … of the stages' sequence.
#[derive(Clone, Debug)]
pub struct Schedule {
    placed: Vec<Placed>,
    total: f64,
    number: u64,
    step: u64,
    /// Requests are due this part of an interval later than their number says; it interleaves several URLs.
    shift: f64,
    at: usize,
    next: Option<Due>,
}

impl Schedule {
    /// Stages one after the other. Of `step` workers, this is the one that sends `first`, `first + step`, …; `shift`
    /// (0 to 1) puts each request that part of an interval later.
    #[must_use]
    pub fn new(stages: &[Stage], first: u64, step: u64, shift: f64) -> Self {
        let (mut begins, mut before) = (0, 0.0);
        let placed = stages
            .iter()
            .map(|&stage| {
                let placed = Placed {
                    stage,
                    begins,
                    before,
                };
                begins += nanos(stage.lasts);
                before += stage.total();
                placed
            })
            .collect();
        let mut schedule = Self {
            placed,
            total: before,
            number: first,
            step: step.max(1),
            shift,
            at: 0,
            next: None,
        };
        schedule.next = schedule.place();
        schedule
    }

    /// The next request's place; none when all are taken.
    #[must_use]
    pub fn peek(&self) -> Option<Due> {
        self.next
    }

    /// Goes on to the next request.
    pub fn advance(&mut self) {
        self.number += self.step;
        self.next = self.place();
    }

    fn place(&mut self) -> Option<Due> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "2^53 requests take a thousand years"
        )]
        let n = self.number as f64 + self.shift;
        // A rounding error must not add a request to a stage of whole seconds and whole rates.
        if n >= self.total - 1e-6 {
            return None;
        }
        while let Some(next) = self.placed.get(self.at + 1)
            && n >= next.before
        {
            self.at += 1;
        }
        let placed = self.placed.get(self.at)?;
        let seconds = placed.stage.due(n - placed.before);
        Some(Due {
            at: placed.begins + nanos(Duration::from_secs_f64(seconds)),
            stage: self.at,
            number: self.number,
        })
    }
}

/// A request's place in the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// When it is due.
    pub at: Nanos,
    /// In which stage.
    pub stage: usize,
    /// Its number in the schedule of its URL.
    pub number: u64,
}

/// Whole nanoseconds; a duration of centuries is the largest number.
#[must_use]
pub fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(mut schedule: Schedule) -> Vec<Nanos> {
        let mut all = Vec::new();
        while let Some(due) = schedule.peek() {
            all.push(due.at);
            schedule.advance();
        }
        all
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_constant_rate_is_evenly_spaced() {
        let all = times(Schedule::new(&[Stage::constant(4.0, SECOND)], 0, 1, 0.0));
        assert_eq!(all, [0, 250_000_000, 500_000_000, 750_000_000]);
    }

    #[test]
    fn workers_share_the_numbers_and_urls_interleave() {
        let stages = [Stage::constant(1000.0, SECOND)];
        let whole = times(Schedule::new(&stages, 0, 1, 0.0));
        let mut shared = times(Schedule::new(&stages, 0, 2, 0.0));
        shared.extend(times(Schedule::new(&stages, 1, 2, 0.0)));
        shared.sort_unstable();
        assert_eq!(whole, shared);
        let half = times(Schedule::new(&stages, 0, 1, 0.5));
        assert_eq!(half.first(), Some(&500_000));
        assert_eq!(half.len(), 1000);
    }

    #[test]
    fn a_ramp_accumulates_as_its_integral_says() {
        let ramp = Stage {
            from: 0.0,
            to: 2000.0,
            lasts: SECOND,
        };
        let all = times(Schedule::new(&[ramp], 0, 1, 0.0));
        assert_eq!(all.len(), 1000);
        assert!(all.is_sorted());
        // A quarter of the requests in the first half of the time.
        let first_half = all.iter().filter(|&&at| at < 500_000_000).count();
        assert_eq!(first_half, 250);
        let down = Stage {
            from: 2000.0,
            to: 0.0,
            lasts: SECOND,
        };
        let all = times(Schedule::new(&[down], 0, 1, 0.0));
        assert_eq!(all.iter().filter(|&&at| at < 500_000_000).count(), 750);
    }

    #[test]
    fn stages_follow_each_other_without_a_gap() {
        let stages = [
            Stage::constant(100.0, SECOND),
            Stage::constant(500.0, SECOND),
            Stage::constant(100.0, SECOND),
        ];
        let mut schedule = Schedule::new(&stages, 0, 1, 0.0);
        let mut counts = [0; 3];
        let mut last = 0;
        while let Some(due) = schedule.peek() {
            let begins = 1_000_000_000 * due.stage as u64;
            assert!((begins..begins + 1_000_000_000).contains(&due.at));
            assert!(due.at >= last);
            last = due.at;
            if let Some(count) = counts.get_mut(due.stage) {
                *count += 1;
            }
            schedule.advance();
        }
        assert_eq!(counts, [100, 500, 100]);
    }
}
