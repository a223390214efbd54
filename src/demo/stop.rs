//! Ctrl-C and SIGTERM, from the demo's first moment on: its folder and its service go away in order, whenever it is told.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::DemoError;

/// Knows whether we were told to stop.
#[derive(Debug)]
pub(super) struct Stop {
    told: Arc<AtomicBool>,
    /// Its other end is dropped when we are told.
    until_told: mpsc::Receiver<()>,
    /// Dropping it ends the thread that listens.
    _listening: oneshot::Sender<()>,
}

impl Stop {
    /// Begins to listen, on a thread of its own.
    pub(super) fn listen() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            )
        };
        let told = Arc::new(AtomicBool::new(false));
        let (telling, until_told) = mpsc::channel::<()>();
        let (listening, over) = oneshot::channel();
        let tell = Arc::clone(&told);
        thread::Builder::new()
            .name("kith-demo-stop".to_owned())
            .spawn(move || {
                let _telling = telling;
                runtime.block_on(async {
                    tokio::select! {
                        _ = interrupt.recv() => tell.store(true, Relaxed),
                        _ = terminate.recv() => tell.store(true, Relaxed),
                        _ = over => {}
                    }
                });
            })?;
        Ok(Self {
            told,
            until_told,
            _listening: listening,
        })
    }

    /// An error once we were told.
    pub(super) fn check(&self) -> Result<(), DemoError> {
        if self.told.load(Relaxed) {
            Err(DemoError::Interrupted)
        } else {
            Ok(())
        }
    }

    /// Waits so long, or less when we are told to stop.
    pub(super) fn pause(&self, length: Duration) -> Result<(), DemoError> {
        let _ = self.until_told.recv_timeout(length);
        self.check()
    }

    /// Waits until we are told.
    pub(super) fn wait(&self) {
        let _ = self.until_told.recv();
    }
}
