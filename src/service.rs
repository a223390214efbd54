//! The whole of Kith as one value: storage, datasets, the two listeners, in the order in which they start and stop.
//!
//! Both listeners are bound before anything is brought back, so that health can be asked at once; until all that was
//! live is live again, `/readyz` says no and bids are answered 204. `serve` and `demo` both run this and nothing else.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use prometheus::{IntGauge, Registry};
use rustix::fs::StatVfs;

use crate::clock::{Guarded, Timestamp};
use crate::config::{Billing, Config, Exchange, Exchanges};
use crate::datasets::{Datasets, Live, OpenFailed, Settings};
use crate::delivery::{Archive, Reports};
use crate::generation::Frame;
use crate::http::admin::{AdminServer, AdminState, Lenses};
use crate::http::bid::{BidListener, BidServer, BidThread};
use crate::http::bidder::{Books, KithBidder, Shared};
use crate::http::lenses;
use crate::ids::{KeyFileError, Keyer, SecretKey};
use crate::ledger::{Ledger, LedgerError, Terms};
use crate::metrics::{self, Asked, AskedCounts, BidMetrics, BidThreads, MoneyMetrics};
use crate::openrtb::NoticeUrls;
use crate::people::{self, Known, People, PeopleError};
use crate::priority;
use crate::shadow::Sample;
use crate::storage::{Storage, StorageError};

/// How often a service that could not bring everything back looks whether an operator has mended it.
const RECOVERY_POLL: Duration = Duration::from_millis(100);

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// The key file.
    #[error("{0}")]
    Key(#[from] KeyFileError),
    /// What the directory holds.
    #[error("{0}")]
    Datasets(#[from] OpenFailed),
    /// What was spent.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// What people asked for.
    #[error("{0}")]
    People(#[from] PeopleError),
    /// A series registered twice: a defect.
    #[error("registering metrics failed: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The vendor list: which file, and what to do.
    #[error("{0}")]
    VendorList(String),
    /// An exchange's keys: which file, and what to do.
    #[error("{0}")]
    KeyFiles(String),
    /// A listener's address.
    #[error("cannot listen on {address} ([{section}] listen): {source}; is another Kith running?")]
    Listen {
        /// The configuration's section.
        section: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A thread, or randomness.
    #[error("starting failed: {0}")]
    System(#[from] io::Error),
}

/// A running Kith. Dropping it stops it without waiting; [`Service::drain`] stops it politely.
#[derive(Debug)]
pub struct Service {
    bid: BidServer,
    admin: AdminServer,
    datasets: Arc<Datasets>,
    draining: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    recovery: JoinHandle<()>,
    drain_timeout: Duration,
    ledger: Ledger,
    people: People,
    reports: Reports,
}

impl Service {
    /// Starts everything. Returns when both listeners serve; readiness may come later.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let storage = Storage::start(&config.data.dir)?;
        // Where there are versions there was a key: a new one would only hide that it is lost.
        let key = match config.data.dir.join("manifest.json").exists() {
            true => SecretKey::load(&config.data.key_file)?,
            false => SecretKey::load_or_create(&config.data.key_file)?,
        };
        let keyer = Keyer::new(&key);
        let mut frame = Frame::of(&config, keyer.clone());
        let known = Arc::new(Known::with_room(config.people.ids)?);
        frame.people = Arc::clone(&known);
        frame.policy.registration = config
            .privacy
            .registration()
            .map_err(StartError::VendorList)?;
        let exchanges = Arc::clone(&frame.exchanges);
        let registry = registry()?;
        let terms = Terms::of(&config);
        let window = terms.longest_window();
        let ledger = Ledger::start(terms, storage.clone(), Timestamp::now)?;
        let mut settings = Settings::of(&config, frame);
        settings.ledger = Some(ledger.clone());
        let archive = Archive::new(ledger.clone(), storage.clone(), window);
        let (datasets, live) = Datasets::open(settings, storage.clone(), &registry)?;
        let graph = live.clone();
        let graph = Box::new(move |person| {
            let mut ids = Vec::new();
            let generation = graph.load();
            generation.ids_of(person, |_| true, |id, source| ids.push((id, source.into())));
            ids
        });
        let terms = people::Terms {
            begin_after: datasets.covers_most(),
            ..people::Terms::of(&config, keyer)
        };
        let people = People::start(terms, known, storage, guarded_clock(), graph)?;
        let threads = Arc::new(BidThreads::new(
            Arc::clone(&exchanges),
            // A limit lowered since leaves more datasets than it allows, and each is counted.
            config.limits.datasets.max(datasets.ordinals().len()),
        ));
        let ordinals = Arc::clone(&datasets);
        let names = Box::new(move || ordinals.ordinals());
        registry.register(Box::new(BidMetrics::new(Arc::clone(&threads), names)?))?;

        let of = ledger.clone();
        registry.register(Box::new(MoneyMetrics::new(move || of.figures())?))?;
        let of = ledger.clone();
        registry.register(Box::new(Asked::whether(
            "kith_ledger_writes",
            "0 while the ledger's journal cannot be written, and nothing is bid.",
            move || of.writes(),
        )?))?;
        let of = ledger.clone();
        registry.register(Box::new(Asked::new(
            "kith_ledger_clock_ahead_seconds",
            "How far the system's clock has leapt from the ledger's time, forwards or backwards; 0 while it is believed. Else nothing is bid.",
            move || of.figures().clock_ahead_ms.unsigned_abs() as f64 / 1e3,
        )?))?;
        metrics::register_people(&registry, &people)?;
        let ready = Arc::new(AtomicBool::new(false));
        let draining = Arc::new(AtomicBool::new(false));
        register_states(&registry, &datasets, &config.data.dir, &ready, &draining)?;
        let sample = Arc::clone(datasets.sample());
        let bid = start_bids(&config, &exchanges, &live, threads, &ready, sample, &ledger)?;
        let admin = start_admin(
            &config, &exchanges, &datasets, registry, &ready, &draining, &ledger, &people,
        )?;
        let stopping = Arc::new(AtomicBool::new(false));
        let recovery = start_recovery(&datasets, people.clone(), ready, &stopping)?;
        start_housekeeping(&datasets)?;
        start_scrubbing(&datasets)?;
        let reports = Reports::start(archive, Timestamp::now)?;
        let drain_timeout = Duration::from_millis(config.limits.drain_timeout_ms);
        Ok(Self {
            bid,
            admin,
            datasets,
            draining,
            stopping,
            recovery,
            drain_timeout,
            ledger,
            people,
            reports,
        })
    }

    /// Where exchanges call.
    pub fn bid_addr(&self) -> SocketAddr {
        self.bid.local_addr()
    }

    /// Where jobs and operators call.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.address()
    }

    /// The datasets, for an embedded service.
    pub fn datasets(&self) -> &Arc<Datasets> {
        &self.datasets
    }

    /// Stops politely: not ready, no new connections, requests under way answered, then everything else.
    pub fn drain(self) {
        let began = Instant::now();
        self.draining.store(true, Relaxed);
        let report = self.bid.drain(self.drain_timeout);
        tracing::info!(?report, "bid listener drained");
        drop(self.reports);
        self.ledger.close();
        self.people.close();
        self.stopping.store(true, Relaxed);
        let _ = self.recovery.join();
        // One bound for both listeners; this one goes last, so that probes hear of the stop.
        self.admin
            .shutdown_within(self.drain_timeout.saturating_sub(began.elapsed()));
    }
}

fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    registry.register(Box::new(
        prometheus::process_collector::ProcessCollector::for_self(),
    ))?;
    let labels = [("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())].into();
    let build = IntGauge::with_opts(
        prometheus::Opts::new("kith_build_info", "The build that runs.").const_labels(labels),
    )?;
    build.set(1);
    registry.register(Box::new(build))?;
    Ok(registry)
}

/// Gauges of what Kith is now, asked for at each scrape.
fn register_states(
    registry: &Registry,
    datasets: &Arc<Datasets>,
    dir: &Path,
    ready: &Arc<AtomicBool>,
    draining: &Arc<AtomicBool>,
) -> Result<(), prometheus::Error> {
    let (of, ready, draining) = (
        Arc::clone(datasets),
        Arc::clone(ready),
        Arc::clone(draining),
    );
    registry.register(Box::new(Asked::whether(
        "kith_ready",
        "1 while /readyz says yes: all that was live is live, what is uploaded can be written, no stop has begun.",
        move || of.readiness().is_ok() && ready.load(Relaxed) && !draining.load(Relaxed),
    )?))?;
    let of = Arc::clone(datasets);
    registry.register(Box::new(Asked::whether(
        "kith_storage_writes",
        "0 once a sync of the data directory has failed: nothing is written any more until a restart.",
        move || of.writes(),
    )?))?;
    let of = Arc::clone(datasets);
    registry.register(Box::new(Asked::new(
        "kith_retired_generations",
        "Replaced generations that are still in memory because somebody reads them.",
        move || of.retired_generations() as f64,
    )?))?;
    let of = Arc::clone(datasets.sample());
    registry.register(Box::new(Asked::new(
        "kith_shadow_requests",
        "Recent bid requests kept in memory, without ids, to try versions on before they are activated.",
        move || of.held() as f64,
    )?))?;
    let (busy, long) = (Arc::clone(datasets.sample()), Arc::clone(datasets.sample()));
    registry.register(Box::new(AskedCounts::new(
        "kith_shadow_dropped_total",
        "Bid requests that were to be kept for that and were not: somebody was reading what is kept, or they were too long.",
        "reason",
        vec![
            ("busy", Box::new(move || busy.dropped_busy() as f64)),
            ("too_long", Box::new(move || long.dropped_long() as f64)),
        ],
    )?))?;
    let free = dir.to_owned();
    registry.register(Box::new(Asked::new(
        "kith_data_free_bytes",
        "Bytes that can still be written where the data directory is; NaN where the system does not tell.",
        move || disk_bytes(&free, |disk| disk.f_bavail),
    )?))?;
    let all = dir.to_owned();
    registry.register(Box::new(Asked::new(
        "kith_data_disk_bytes",
        "Bytes of the file system that the data directory is on; NaN where the system does not tell.",
        move || disk_bytes(&all, |disk| disk.f_blocks),
    )?))
}

/// Some blocks of the file system below a folder, in bytes.
fn disk_bytes(dir: &Path, blocks: impl Fn(&StatVfs) -> u64) -> f64 {
    rustix::fs::statvfs(dir).map_or(f64::NAN, |disk| blocks(&disk) as f64 * disk.f_frsize as f64)
}

fn start_bids(
    config: &Config,
    exchanges: &Arc<Exchanges>,
    live: &Live,
    threads: Arc<BidThreads>,
    ready: &Arc<AtomicBool>,
    sample: Arc<Sample>,
    ledger: &Ledger,
) -> Result<BidServer, StartError> {
    let address = config.bid.listen;
    let shared = Shared {
        ready: Arc::clone(ready),
        imps_max: config.limits.imps_per_request,
        books: None,
    };
    let (live, ledger, of) = (live.clone(), ledger.clone(), Arc::clone(exchanges));
    let bid = config.bid.clone();
    let urls = OnceLock::new();
    let price_keys: Result<Vec<_>, String> = of.iter().map(Exchange::price_keys).collect();
    let price_keys: Arc<[_]> = price_keys.map_err(StartError::KeyFiles)?.into();
    // Each thread draws numbers of its own, another run others.
    let mut seed = [0u8; 8];
    getrandom::fill(&mut seed).map_err(|e| io::Error::other(e.to_string()))?;
    let seed = u64::from_le_bytes(seed);
    let drawn = AtomicU64::new(0);
    let factory = move |thread: BidThread| {
        let base = || bid.public_url(thread.listens);
        let urls = urls.get_or_init(|| {
            let of = of.iter().map(|exchange| {
                let urls = NoticeUrls::new(&base(), &exchange.price_macro);
                match exchange.billing {
                    Billing::Impression => urls.billed_by_pixel(),
                    Billing::Burl | Billing::Nurl => urls,
                }
            });
            of.collect::<Arc<[_]>>()
        });
        let mut shared = shared.clone();
        shared.books = Some(Books {
            ledger: ledger.clone(),
            urls: Arc::clone(urls),
            price_keys: Arc::clone(&price_keys),
        });
        let seed = seed.wrapping_add(drawn.fetch_add(1, Relaxed) << 44);
        KithBidder::new(shared, live.reader(), ledger.desk(), threads.enlist())
            .drawing(seed)
            .with_sampler(sample.sampler(thread.index))
    };
    BidListener {
        listen: address,
        threads: config.bid.threads,
    }
    .start(&config.limits, Arc::clone(exchanges), factory)
    .map_err(|source| StartError::Listen {
        section: "bid",
        address,
        source,
    })
}

#[expect(clippy::too_many_arguments, reason = "all that it acts on")]
fn start_admin(
    config: &Config,
    exchanges: &Arc<Exchanges>,
    datasets: &Arc<Datasets>,
    registry: Registry,
    ready: &Arc<AtomicBool>,
    draining: &Arc<AtomicBool>,
    ledger: &Ledger,
    people: &People,
) -> Result<AdminServer, StartError> {
    let (live, imps_max) = (datasets.live().clone(), config.limits.imps_per_request);
    let (user_live, held, recovering) = (live.clone(), people.clone(), people.clone());
    let exchanges = Arc::clone(exchanges);
    let (ready, draining) = (Arc::clone(ready), Arc::clone(draining));
    let state = AdminState {
        datasets: Arc::clone(datasets),
        registry,
        tokens: config.admin.tokens.clone(),
        limits: config.limits,
        books: Some(ledger.clone()),
        people: Some(people.clone()),
        lenses: Lenses {
            user: Box::new(move |source, id| {
                lenses::user(&user_live.load(), Some(&held), source, id, Timestamp::now())
            }),
            explain: Box::new(move |exchange, body| {
                lenses::explanation(
                    &live.load(),
                    &exchanges,
                    imps_max,
                    exchange,
                    body,
                    Timestamp::now(),
                )
            }),
        },
        // The flag that bid threads read: a probe never hears "ready" before a bid would be answered.
        ready: Box::new(
            move || match (ready.load(Relaxed), draining.load(Relaxed)) {
                (true, false) => Ok(()),
                (_, true) => Err("stopping: requests under way are answered".into()),
                (false, _) => Err(starting(&recovering)),
            },
        ),
        now: Timestamp::now,
    };
    let address = config.admin.listen;
    AdminServer::start(address, Arc::new(state)).map_err(|source| StartError::Listen {
        section: "admin",
        address,
        source,
    })
}

/// Why it is not ready yet.
fn starting(people: &People) -> String {
    match people.recovered() {
        Some(Err(error)) => error.to_string(),
        Some(Ok(())) => "starting: what was live is being brought back".into(),
        None => format!(
            "starting: {} rows of people's journal are replayed so far",
            people.replayed()
        ),
    }
}

/// A clock that tells the system's time, but for leaps that do not last.
fn guarded_clock() -> impl FnMut() -> Timestamp + Send + 'static {
    let mut guarded = Guarded::new(Timestamp::now(), Instant::now());
    move || guarded.read(Timestamp::now(), Instant::now())
}

/// Compacts deltas and the like, behind everybody else, until the datasets are dropped.
fn start_housekeeping(datasets: &Arc<Datasets>) -> io::Result<()> {
    let housekeeping = datasets.housekeeping();
    let started = thread::Builder::new()
        .name("kith-housekeeping".to_owned())
        .spawn(move || {
            priority::stand_back();
            housekeeping.run(Timestamp::now);
        });
    started.map(drop)
}

/// Verifies again what is kept, behind everybody else, until the datasets are dropped.
fn start_scrubbing(datasets: &Arc<Datasets>) -> io::Result<()> {
    let scrubbing = datasets.scrubbing();
    let started = thread::Builder::new()
        .name("kith-scrub".to_owned())
        .spawn(move || {
            priority::stand_back();
            scrubbing.run(Timestamp::now);
        });
    started.map(drop)
}

/// Brings back what was live. Where that fails, waits for an operator to activate or upload what is missing.
fn start_recovery(
    datasets: &Arc<Datasets>,
    people: People,
    ready: Arc<AtomicBool>,
    stopping: &Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    let (datasets, stopping) = (Arc::clone(datasets), Arc::clone(stopping));
    thread::Builder::new()
        .name("kith-recovery".to_owned())
        .spawn(move || {
            if let Err(not_ready) = datasets.recover(Timestamp::now()) {
                tracing::error!(%not_ready, "not ready");
            }
            // Who was erased or bought must be known before the first bid.
            let is_ready =
                || datasets.readiness().is_ok() && matches!(people.recovered(), Some(Ok(())));
            while !is_ready() && !stopping.load(Relaxed) {
                thread::park_timeout(RECOVERY_POLL);
            }
            // A stop while something is missing is not readiness.
            if is_ready() {
                ready.store(true, Relaxed);
                tracing::info!("ready");
            }
        })
}
