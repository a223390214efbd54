//! How long each bid thread has run on a CPU.
//!
//! The CPU time of the process does not tell whether bids are near their limit: building a version keeps other threads
//! busy, and one bid thread can be full while another idles. Linux keeps the figure for every thread; it is read when
//! somebody scrapes, so bid threads pay nothing.

use std::path::PathBuf;

/// One thread of this process, as the system knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OsThread {
    /// The name it was started with, as `top -H` shows it.
    pub(super) name: String,
    id: i32,
}

impl OsThread {
    /// The thread that calls.
    pub(super) fn this() -> Self {
        Self {
            name: std::thread::current()
                .name()
                .unwrap_or("unnamed")
                .to_owned(),
            id: rustix::thread::gettid().as_raw_nonzero().get(),
        }
    }

    /// Seconds on a CPU since it started; nothing where the system does not tell, or once it has ended.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        let path: PathBuf = ["/proc/self/task", &self.id.to_string(), "schedstat"]
            .iter()
            .collect();
        let text = std::fs::read_to_string(path).ok()?;
        let nanos: u64 = text.split_ascii_whitespace().next()?.parse().ok()?;
        Some(nanos as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_busy_thread_grows() {
        let this = OsThread::this();
        let before = this.cpu_seconds().expect("told");
        let begun = Instant::now();
        // The figure is brought up to date at each tick of the scheduler.
        while this.cpu_seconds() <= Some(before) {
            assert!(begun.elapsed() < Duration::from_secs(10), "it stands still");
        }
    }
}
