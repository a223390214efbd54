//! A progress bar on standard error, for whoever waits longer than a second at a terminal; otherwise nothing.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::text::count;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// What is done sooner shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(200);

/// Bytes on their way. Gone from the terminal when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
    since: Instant,
    shown: Rc<Cell<bool>>,
}

impl Progress {
    /// Of `total` bytes, where that is known.
    pub(super) fn new(what: &'static str, total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let template = match total {
            Some(_) => "{msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {eta} left",
            None => "{spinner} {msg} {binary_bytes} in {elapsed}",
        };
        bar.set_style(style(template));
        bar.set_message(what);
        Self {
            bar: bar.with_finish(ProgressFinish::AndClear),
            since: Instant::now(),
            shown: Rc::default(),
        }
    }

    /// That many more bytes have passed.
    pub(super) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        if !self.shown.get() && self.since.elapsed() >= PATIENCE {
            self.show();
        }
    }

    /// All bytes have passed, and now something else takes its time.
    pub(super) fn wait_for(&self, what: &'static str) {
        if self.shown.get() || self.since.elapsed() >= PATIENCE {
            self.show();
            self.bar.set_style(style("{spinner} {msg}, {elapsed}"));
            self.bar.set_message(what);
            self.bar.enable_steady_tick(TICK);
        }
    }

    /// So many rows were read so far.
    pub(super) fn tell_rows(&self, rows: u64) {
        if self.shown.get() {
            let rate = rows as f64 / self.since.elapsed().as_secs_f64();
            self.bar.set_message(format!(
                "{} rows, {} a second",
                count(rows),
                count(rate as u64)
            ));
        }
    }

    /// So much of what is waited for is done.
    pub(super) fn tell_share(&self, done: u64, all: u64) {
        if self.shown.get() {
            let share = 100 * done / all.max(1);
            self.bar
                .set_message(format!("sorting and writing, {share} %"));
        }
    }

    /// A reader that tells of what is read through it.
    pub(super) fn of<R: Read>(&self, input: R) -> Tracked<R> {
        Tracked {
            input,
            progress: self.clone(),
        }
    }

    fn show(&self) {
        // Stays hidden where standard error is no terminal.
        if !self.shown.replace(true) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// A reader whose bytes are counted.
pub(super) struct Tracked<R> {
    input: R,
    progress: Progress,
}

impl<R: Read> Read for Tracked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.progress.advance(read as u64);
        Ok(read)
    }
}
