//! The servers that are compared, each on one thread that is pinned to one core: a bare hyper one, and Kith's own listener.
//!
//! Both run in this process, so that the CPU time of exactly one thread can be read: nothing else is on the account of
//! either.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kith::clock::Timestamp;
use kith::config::Config;
use kith::datasets::Live;
use kith::generation::Generation;
use kith::http::bid::{BidListener, BidServer};
use kith::http::bidder::{Books, KithBidder, Shared};
use kith::ledger::{Desk, Ledger, Terms};
use kith::metrics::{BidMetrics, BidThreads};
use kith::openrtb::NoticeUrls;
use kith::storage::Storage;
use prometheus::core::Collector as _;

/// The core that servers run on, and the one that the load comes from.
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// Keeps the calling thread, and those it starts from now on, on the servers' core.
pub fn on_server_core() {
    pin(SERVER_CORE);
}

/// Keeps the calling thread on the other core.
pub fn on_load_core() {
    pin(LOAD_CORE);
}

/// Where there is only one core, or a container allows others, everything stays where it is; the ratio then is as fair,
/// only noisier.
fn pin(core: usize) {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    let _ = rustix::thread::sched_setaffinity(None, &cores);
}

/// A server under measurement.
#[derive(Debug)]
pub struct Measured {
    /// Where it listens.
    pub address: SocketAddr,
    /// The path that is asked.
    pub path: &'static str,
    /// The kernel's numbers of its working threads: one, and with it the ledger's where books are kept.
    threads: Vec<u32>,
    kith: Option<(BidServer, Arc<BidThreads>)>,
    /// The folder of the books.
    _books: Option<tempfile::TempDir>,
}

impl Measured {
    /// CPU time that its threads have used so far, in nanoseconds, user and kernel.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        let used = |thread: &u32| {
            let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))?;
            let first = text.split_whitespace().next();
            let used: Option<u64> = first.and_then(|word| word.parse().ok());
            used.ok_or_else(|| io::Error::other("the kernel's schedstat has another form"))
        };
        self.threads.iter().map(used).sum()
    }

    /// Requests that it answered without a decision, for want of time.
    ///
    /// # Errors
    /// Where its counts cannot be read.
    pub fn shed(&self) -> io::Result<u64> {
        self.kith
            .as_ref()
            .map_or(Ok(0), |(_, threads)| shed(threads))
    }
}

fn shed(threads: &Arc<BidThreads>) -> io::Result<u64> {
    let metrics = BidMetrics::new(Arc::clone(threads), Box::new(Vec::new));
    let families = metrics.map_err(io::Error::other)?.collect();
    let family = families
        .iter()
        .find(|family| family.name() == "kith_shed_total")
        .ok_or_else(|| io::Error::other("no metric kith_shed_total"))?;
    let counts = family.get_metric().iter();
    Ok(counts.map(|of| of.get_counter().get_value() as u64).sum())
}

/// A bare hyper server: collects the body, answers 204.
///
/// # Errors
/// Where no port or thread is to be had.
pub fn bare() -> io::Result<Measured> {
    let (tell, told) = mpsc::channel();
    thread::Builder::new()
        .name("bare-hyper".to_owned())
        .spawn(move || {
            let ended = serve_bare(&tell);
            if let Err(error) = ended {
                let _ = tell.send(Err(error));
            }
        })?;
    let (address, thread) = told
        .recv()
        .map_err(|_| io::Error::other("the bare server ended at its start"))??;
    Ok(Measured {
        address,
        path: "/bid/demo",
        threads: vec![thread],
        kith: None,
        _books: None,
    })
}

type Told = io::Result<(SocketAddr, u32)>;

fn serve_bare(tell: &mpsc::Sender<Told>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let thread = rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        let _ = tell.send(Ok((listener.local_addr()?, thread)));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| async {
                    let status = match request.into_body().collect().await {
                        Ok(_) => StatusCode::NO_CONTENT,
                        Err(_) => StatusCode::BAD_REQUEST,
                    };
                    let mut response = Response::new(Empty::<Bytes>::new());
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                });
                // The load closes its connections whenever it has enough.
                let _ = http1::Builder::new()
                    .writev(false)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

/// Kith's bid listener over a generation, one thread.
///
/// # Errors
/// Where no port or thread is to be had.
pub fn kith(config: &Config, generation: Arc<Generation>) -> io::Result<Measured> {
    serve(config, generation, None)
}

/// The same, and its books are kept: in a folder that goes with it.
///
/// # Errors
/// Where no port, thread or folder is to be had.
pub fn kith_with_books(config: &Config, mut generation: Generation) -> io::Result<Measured> {
    let folder = tempfile::tempdir()?;
    let storage = Storage::start(folder.path()).map_err(io::Error::other)?;
    let mut terms = Terms::of(config);
    for exchange in &mut terms.exchanges {
        // The load's people come back four times a second, which nobody does: what is held for them is let go as fast.
        exchange.window = 1;
    }
    let ledger = Ledger::start(terms, storage, Timestamp::now);
    let ledger = ledger.map_err(io::Error::other)?;
    generation.plan = ledger.plan(&generation.book);
    serve(config, Arc::new(generation), Some((ledger, folder)))
}

fn serve(
    config: &Config,
    generation: Arc<Generation>,
    books: Option<(Ledger, tempfile::TempDir)>,
) -> io::Result<Measured> {
    let exchanges = Arc::new(config.exchanges.clone());
    let live = Live::new(generation);
    let threads = Arc::new(BidThreads::new(Arc::clone(&exchanges), 4));
    let shared = Shared {
        ready: Arc::new(AtomicBool::new(true)),
        imps_max: config.limits.imps_per_request,
        books: books.as_ref().map(|(ledger, _)| Books {
            ledger: ledger.clone(),
            urls: Arc::new([NoticeUrls::new(
                "https://bid.kith.example",
                "${AUCTION_PRICE}",
            )]),
            price_keys: Arc::new([Vec::new()]),
        }),
    };
    let listener = BidListener {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        threads: 1,
    };
    // Made on the bid thread itself, which so tells its number.
    let told = Arc::new(AtomicU32::new(0));
    let tell = Arc::clone(&told);
    let enlisted = Arc::clone(&threads);
    let server = listener.start(&config.limits, exchanges, move |_| {
        tell.store(this_thread(), Ordering::Relaxed);
        let desk = match &shared.books {
            Some(books) => books.ledger.desk(),
            None => Desk::alone(1),
        };
        KithBidder::new(shared.clone(), live.reader(), desk, enlisted.enlist())
    })?;
    let mut own = vec![told.load(Ordering::Relaxed)];
    if books.is_some() {
        own.push(thread_named("kith-ledger")?);
    }
    Ok(Measured {
        address: server.local_addr(),
        path: "/bid/demo",
        threads: own,
        kith: Some((server, threads)),
        _books: books.map(|(_, folder)| folder),
    })
}

/// The kernel's number of this process's newest thread of that name.
fn thread_named(name: &str) -> io::Result<u32> {
    let mut newest = None;
    for task in fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if fs::read_to_string(path.join("comm"))?.trim() == name {
            let number = path.file_name().and_then(|number| number.to_str());
            newest = newest.max(number.and_then(|number| number.parse().ok()));
        }
    }
    newest.ok_or_else(|| io::Error::other(format!("no thread is called {name}")))
}

/// The kernel's number of the calling thread.
fn this_thread() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs()
}

#[cfg(test)]
mod tests {
    use kith::decision::NoBid;

    use super::*;

    #[test]
    fn what_was_shed_is_counted() {
        let exchanges = Arc::new(Config::default().exchanges);
        let threads = Arc::new(BidThreads::new(exchanges, 1));
        let counters = threads.enlist();
        counters.no_bid(0, NoBid::NotReady);
        assert_eq!(shed(&threads).expect("counts"), 0);
        counters.no_bid(0, NoBid::Shed);
        assert_eq!(shed(&threads).expect("counts"), 1);
    }
}
