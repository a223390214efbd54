//! The server's anonymous memory while it serves, by stage of the run.
//!
//! `RssAnon` of the process's status: what it holds itself, without the file pages that the kernel may take back. One read
//! costs microseconds; it is taken every 20 ms, so a peak that lasts as long as a version is built is seen.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(20);

/// The most and the least of each stage, in bytes.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    by_stage: Vec<Option<(u64, u64)>>,
}

impl Samples {
    /// Samples process `pid` until `over` is closed.
    pub(super) fn taken(pid: u32, stage: &AtomicUsize, over: &Receiver<()>) -> Self {
        let mut samples = Self::default();
        loop {
            if let Some(bytes) = anonymous_bytes(pid) {
                samples.add(stage.load(Ordering::Relaxed), bytes);
            }
            if over.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                return samples;
            }
        }
    }

    fn add(&mut self, stage: usize, bytes: u64) {
        if self.by_stage.len() <= stage {
            self.by_stage.resize(stage + 1, None);
        }
        if let Some(slot) = self.by_stage.get_mut(stage) {
            let (least, most) = slot.unwrap_or((bytes, bytes));
            *slot = Some((least.min(bytes), most.max(bytes)));
        }
    }

    /// Over all stages that `of` says yes to: least and most, where there is a sample.
    pub fn bounds(&self, of: impl Fn(usize) -> bool) -> Option<(u64, u64)> {
        let stages = self
            .by_stage
            .iter()
            .enumerate()
            .filter(|(stage, _)| of(*stage));
        stages
            .filter_map(|(_, bounds)| *bounds)
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}

/// Anonymous resident memory of a process.
fn anonymous_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_takes_is_seen() {
        let before = anonymous_bytes(std::process::id()).expect("a process");
        let taken = vec![1u8; 64 << 20];
        let after = anonymous_bytes(std::process::id()).expect("a process");
        assert!(
            after >= before + (60 << 20),
            "{before} {after} {}",
            taken.len()
        );
    }

    #[test]
    fn bounds_are_of_the_stages_asked_for() {
        let mut samples = Samples::default();
        for (stage, bytes) in [(1, 5), (1, 9), (3, 20), (3, 7)] {
            samples.add(stage, bytes);
        }
        assert_eq!(samples.bounds(|stage| stage == 1), Some((5, 9)));
        assert_eq!(samples.bounds(|_| true), Some((5, 20)));
        assert_eq!(samples.bounds(|stage| stage == 2), None);
    }
}
