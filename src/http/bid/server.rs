//! Start, deal, drain: the threads of the listener and the one that feeds them.
//!
//! The acceptor has a thread of its own, so that a burst of new connections delays no bid. It knows each
//! worker's number of open connections and deals to the smallest; connections live long, so that is the load that
//! matters.
#![deny(clippy::indexing_slicing)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{self, LocalOptions, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::Bidder;
use super::worker::{Deal, Ended, Factory, Shared, Worker, WorkerLimits};
use crate::config::{Exchanges, Limits};

/// Connections the kernel holds for us while the acceptor is busy or waits for a core: an exchange that reconnects with all it
/// has. Linux cuts it to `net.core.somaxconn`, 4096 unless set.
const BACKLOG: u32 = 4096;
/// After an accept that failed (no file descriptors, mostly): the first pause, and the longest it doubles to.
const BACK_OFF_MIN: Duration = Duration::from_millis(5);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// At most one log line about failing accepts in this long.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// At drain: the backlog is empty when it gives nothing for this long.
const BACKLOG_EMPTY_AFTER: Duration = Duration::from_millis(2);

/// Where to listen, and with how many threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BidListener {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Worker threads; 0: one a core.
    pub threads: usize,
}

/// Which thread a bidder is made for.
#[derive(Debug, Clone, Copy)]
pub struct BidThread {
    /// Its place among them.
    pub index: usize,
    /// Where all of them listen.
    pub listens: SocketAddr,
}

impl BidListener {
    /// Binds, starts the threads, and returns when all of them serve. `factory` makes the
    /// [`Bidder`] of the worker of that number, on that worker's thread, and again after a panic.
    ///
    /// # Errors
    /// Where the address cannot be bound, a thread or its runtime not be started, or the factory panics.
    pub fn start<B: Bidder>(
        self,
        limits: &Limits,
        exchanges: Arc<Exchanges>,
        factory: impl Fn(BidThread) -> B + Send + Sync + 'static,
    ) -> io::Result<BidServer> {
        let threads = match self.threads {
            0 => thread::available_parallelism()?.get(),
            some => some,
        };
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = bind(&runtime, self.listen)?;
        let local_addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            open: (0..threads).map(|_| AtomicUsize::new(0)).collect(),
            turned_away: AtomicUsize::new(0),
        });
        let worker_limits = WorkerLimits::new(limits);
        let on = move |index| {
            factory(BidThread {
                index,
                listens: local_addr,
            })
        };
        let factory: Arc<Factory<B>> = Arc::new(on);

        let mut workers = Vec::with_capacity(threads);
        let mut dealers = Vec::with_capacity(threads);
        let (ready, started) = mpsc::channel();
        for index in 0..threads {
            let (dealer, deals) = unbounded_channel();
            let (limits, ready) = (worker_limits.clone(), ready.clone());
            let (exchanges, shared) = (Arc::clone(&exchanges), Arc::clone(&shared));
            let factory = Arc::clone(&factory);
            let work = move || {
                let make = || Worker::new(index, limits, exchanges, shared, factory);
                work(make, deals, &ready)
            };
            let name = format!("kith-bid-{index}");
            workers.push(thread::Builder::new().name(name).spawn(work)?);
            dealers.push(dealer);
        }
        drop(ready);
        for _ in 0..threads {
            started
                .recv()
                .unwrap_or_else(|_| Err(io::Error::other("a bid thread ended at its start")))?;
        }

        let (stop, stopped) = oneshot::channel();
        let acceptor = Acceptor {
            listener,
            dealers,
            shared,
            connections_max: limits.bid_connections,
            logged: None,
        };
        let acceptor = thread::Builder::new()
            .name("kith-bid-accept".to_owned())
            .spawn(move || runtime.block_on(acceptor.run(stopped)))?;
        tracing::info!(%local_addr, threads, "bid listener started");
        Ok(BidServer {
            local_addr,
            stop,
            acceptor,
            workers,
        })
    }
}

fn bind(runtime: &Runtime, address: SocketAddr) -> io::Result<TcpListener> {
    let _inside = runtime.enter();
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A worker thread, from its start to its end.
fn work<B: Bidder>(
    make: impl FnOnce() -> Worker<B>,
    deals: UnboundedReceiver<Deal>,
    ready: &mpsc::Sender<io::Result<()>>,
) -> Ended {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            let _ = ready.send(Err(e));
            return Ended::default();
        }
    };
    let worker = std::rc::Rc::new(make());
    let fit = if worker.has_bidder() {
        Ok(())
    } else {
        Err(io::Error::other("a bid thread's bidder could not be made"))
    };
    let _ = ready.send(fit);
    // Dropping the runtime at the end drops its tasks, and with them their sockets.
    runtime.block_on(worker.run(deals))
}

struct Acceptor {
    listener: TcpListener,
    dealers: Vec<UnboundedSender<Deal>>,
    shared: Arc<Shared>,
    connections_max: usize,
    logged: Option<Instant>,
}

impl Acceptor {
    /// Accepts until told to stop; then takes what the kernel has already accepted for us, closes, and tells the workers.
    async fn run(mut self, mut stopped: oneshot::Receiver<Duration>) {
        let mut back_off = BACK_OFF_MIN;
        let timeout = loop {
            tokio::select! {
                biased;
                timeout = &mut stopped => break timeout,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        back_off = BACK_OFF_MIN;
                        self.deal(stream);
                    }
                    Err(error) => {
                        self.log(&error);
                        tokio::select! {
                            timeout = &mut stopped => break timeout,
                            () = tokio::time::sleep(back_off) => {}
                        }
                        back_off = BACK_OFF_MAX.min(back_off.saturating_mul(2));
                    }
                },
            }
        };
        // The server was dropped, not drained: the workers end when their dealers do.
        let Ok(timeout) = timeout else { return };
        while let Ok(Ok((stream, _))) =
            tokio::time::timeout(BACKLOG_EMPTY_AFTER, self.listener.accept()).await
        {
            self.deal(stream);
        }
        drop(self.listener);
        for dealer in self.dealers {
            let _ = dealer.send(Deal::Drain(timeout));
        }
    }

    /// To the worker with the fewest; to nobody where there are too many.
    fn deal(&self, stream: tokio::net::TcpStream) {
        let load = |open: &AtomicUsize| open.load(Ordering::Relaxed);
        let all: usize = self.shared.open.iter().map(load).sum();
        if all >= self.connections_max {
            self.shared.turned_away.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let counted = self.shared.open.iter().zip(&self.dealers);
        let alive = counted.filter(|(_, dealer)| !dealer.is_closed());
        let least = alive.min_by_key(|(open, _)| load(open));
        if let (Some((open, dealer)), Ok(stream)) = (least, stream.into_std()) {
            open.fetch_add(1, Ordering::Relaxed);
            let _ = dealer.send(Deal::Connection(stream));
        }
    }

    fn log(&mut self, error: &io::Error) {
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            tracing::warn!(%error, "a bid connection could not be accepted");
        }
    }
}

/// A running bid listener. Dropped without a [drain](Self::drain), it closes all connections at once.
#[derive(Debug)]
pub struct BidServer {
    local_addr: SocketAddr,
    stop: oneshot::Sender<Duration>,
    acceptor: JoinHandle<()>,
    workers: Vec<JoinHandle<Ended>>,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that were open when it began.
    pub open: usize,
    /// Of those, the ones that were still open at the deadline and were cut.
    pub cut: usize,
    /// How long it took.
    pub took: Duration,
}

impl BidServer {
    /// Where it listens, with the port that it really has.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting, answers what has begun, closes, and joins the threads; at the latest after `timeout`.
    ///
    /// From now on every answer says `connection: close`. Connections with no request under way
    /// stay open for half a second more (or half of `timeout`), so that a request that is already on its way is
    /// answered and not cut.
    pub fn drain(self, timeout: Duration) -> DrainReport {
        let began = Instant::now();
        let _ = self.stop.send(timeout);
        let mut panicked = self.acceptor.join().is_err();
        let mut report = DrainReport {
            open: 0,
            cut: 0,
            took: Duration::ZERO,
        };
        for worker in self.workers {
            match worker.join() {
                Ok(ended) => {
                    report.open = report.open.saturating_add(ended.open);
                    report.cut = report.cut.saturating_add(ended.cut);
                }
                Err(_) => panicked = true,
            }
        }
        report.took = began.elapsed();
        if panicked {
            tracing::error!("a thread of the bid listener had panicked");
        }
        tracing::info!(
            open = report.open,
            cut = report.cut,
            took_ms = report.took.as_millis(),
            "bid listener stopped"
        );
        report
    }
}
