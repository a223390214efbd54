//! The generation in force: swapped by the datasets, read by bid threads, dropped by neither's wait.
//!
//! A bid thread holds one [`LiveReader`]; loading costs about a nanosecond while nothing has changed, because the
//! reader keeps its own pointer and compares one atomic word. That pointer also keeps the old generation alive, so an
//! idle thread must load on a tick, at least once a second.
//!
//! Invariant: the last reference to a replaced generation is dropped on the janitor's thread (or on the thread that
//! closes the datasets), never on a bid thread: [`Retired`] holds one until it holds the only one.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};

use crate::generation::Generation;

/// How often the janitor looks whether a replaced generation is still read. Readers let go within a second.
const JANITOR_PERIOD: Duration = Duration::from_millis(250);

/// The generation in force. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live(Arc<ArcSwap<Generation>>);

impl Live {
    /// Puts a first generation in force.
    pub fn new(first: Arc<Generation>) -> Live {
        Live(Arc::new(ArcSwap::new(first)))
    }

    /// A reader for one thread.
    pub fn reader(&self) -> LiveReader {
        LiveReader(Cache::new(Arc::clone(&self.0)))
    }

    /// The generation now, for whoever asks seldom. About 25 ns.
    pub fn load(&self) -> Arc<Generation> {
        self.0.load_full()
    }

    /// Puts the next one in force and returns the one before.
    pub(super) fn swap(&self, next: Arc<Generation>) -> Arc<Generation> {
        self.0.swap(next)
    }
}

/// One thread's view of the generation in force.
#[derive(Debug, Clone)]
pub struct LiveReader(Cache<Arc<ArcSwap<Generation>>, Arc<Generation>>);

impl LiveReader {
    /// The generation now; the one before is let go of. Call it once a request, and on a tick when idle.
    pub fn load(&mut self) -> &Arc<Generation> {
        self.0.load()
    }
}

/// Replaced generations that someone may still read.
#[derive(Debug, Default)]
pub(super) struct Retired {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    generations: Vec<Arc<Generation>>,
    closed: bool,
}

impl Retired {
    /// Starts the janitor; it ends when [`Retired::close`] is called.
    pub(super) fn start() -> std::io::Result<Arc<Retired>> {
        let retired = Arc::new(Retired::default());
        let own = Arc::clone(&retired);
        std::thread::Builder::new()
            .name("kith-janitor".to_owned())
            .spawn(move || own.run())?;
        Ok(retired)
    }

    pub(super) fn put(&self, generation: Arc<Generation>) {
        self.lock().generations.push(generation);
        self.changed.notify_one();
    }

    /// How many replaced generations are still read.
    pub(super) fn count(&self) -> usize {
        self.lock().generations.len()
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    fn run(&self) {
        let mut waiting = self.lock();
        while !waiting.closed {
            if waiting.generations.is_empty() {
                waiting = self
                    .changed
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (unread, read) = std::mem::take(&mut waiting.generations)
                .into_iter()
                .partition::<Vec<_>, _>(|g| Arc::strong_count(g) == 1);
            waiting.generations = read;
            // Unmapping takes milliseconds: not while the lock is held.
            drop(waiting);
            drop(unread);
            waiting = self
                .changed
                .wait_timeout(self.lock(), JANITOR_PERIOD)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
