//! The admin listener: jobs upload, operators switch, Prometheus scrapes.
//!
//! It has two threads of its own, at lower priority than the bid threads, and every upload has one more; so nothing that
//! happens here can delay a bid beyond what the kernel's scheduler lets through. A request goes: [`routes`] finds out what
//! is asked, [`access`] who asks and whether they may, then the body is read within its limits ([`body`], [`encoding`]),
//! then `datasets` does it. Refusals are [`Problem`]s.
//!
//! Invariant: who may not do a thing is told so before a byte of the body is read; and who is told so early still gets to
//! read it, because the rest of the body is taken in and thrown away for [`body::DRAIN_MS_MAX`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::clock::Timestamp;
use crate::config::{AdminToken, Limits};
use crate::datasets::Datasets;
use crate::ledger::Ledger;
use crate::people::People;
use crate::priority;

mod access;
mod body;
mod encoding;
mod money;
mod patience;
mod people;
mod problem;
mod put;
mod routes;
mod switches;

#[cfg(test)]
mod tests;

pub use problem::Problem;

use patience::{Patient, Requests};

/// Threads that serve admin connections.
const THREADS: usize = 2;
/// How long to wait when there are no file descriptors left to accept with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a person is shown of the running service, supplied by whoever can decide.
pub struct Lenses {
    /// What is known of (source, id).
    #[expect(clippy::type_complexity, reason = "one function, named by its field")]
    pub user: Box<dyn Fn(&str, &str) -> serde_json::Value + Send + Sync>,
    /// Why a bid request (decoded body) to an exchange is answered as it is.
    #[expect(clippy::type_complexity, reason = "one function, named by its field")]
    pub explain: Box<dyn Fn(&str, &[u8]) -> Result<serde_json::Value, Problem> + Send + Sync>,
}

impl std::fmt::Debug for Lenses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lenses(..)")
    }
}

/// All that the admin listener acts on.
pub struct AdminState {
    /// The datasets.
    pub datasets: Arc<Datasets>,
    /// What `/metrics` shows.
    pub registry: prometheus::Registry,
    /// Who may do what. Empty: everything is allowed, which the configuration permits on loopback only.
    pub tokens: Vec<AdminToken>,
    /// Named limits.
    pub limits: Limits,
    /// The ledger; none, and there is no report.
    pub books: Option<Ledger>,
    /// Who keeps people; none, and there are no updates.
    pub people: Option<People>,
    /// Functions behind `GET /v1/users` and `POST /v1/explain`.
    pub lenses: Lenses,
    /// Further conditions of readiness, beside those of the datasets: draining, journals.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// The clock.
    pub now: fn() -> Timestamp,
}

impl std::fmt::Debug for AdminState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminState").finish_non_exhaustive()
    }
}

/// The state and what only the listener needs.
#[derive(Debug)]
struct Shared {
    state: Arc<AdminState>,
    /// One permit an upload under way.
    uploads: Arc<Semaphore>,
    turns: Arc<put::Turns>,
    jobs: put::Jobs,
}

/// A running admin listener.
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
    runtime: Option<Runtime>,
    stop: watch::Sender<bool>,
    connections: Arc<Semaphore>,
    connections_max: u32,
    drain: Duration,
}

impl AdminServer {
    /// Binds and serves, on threads of its own.
    pub fn start(address: SocketAddr, state: Arc<AdminState>) -> io::Result<AdminServer> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("kith-admin")
            .on_thread_start(|| priority::lower(priority::ANSWERING))
            .enable_all()
            .build()?;
        let limits = &state.limits;
        let connections_max = u32::try_from(limits.admin_connections).unwrap_or(u32::MAX);
        let connections = Arc::new(Semaphore::new(limits.admin_connections));
        let drain = Duration::from_millis(limits.drain_timeout_ms);
        let (stop, stopping) = watch::channel(false);
        let shared = Arc::new(Shared {
            uploads: Arc::new(Semaphore::new(limits.uploads)),
            turns: Arc::default(),
            jobs: put::Jobs::default(),
            state,
        });
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        runtime.spawn(accept(listener, shared, Arc::clone(&connections), stopping));
        Ok(AdminServer {
            address,
            runtime: Some(runtime),
            stop,
            connections,
            connections_max,
            drain,
        })
    }

    /// Where it listens, with the port it was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets requests under way finish within `limits.drain_timeout_ms`, then cuts them.
    ///
    /// Blocks; not to be called on one of the listener's own threads.
    pub fn shutdown(self) {
        let within = self.drain;
        self.shutdown_within(within);
    }

    /// As [`AdminServer::shutdown`], when some of the time has been spent.
    pub fn shutdown_within(mut self, within: Duration) {
        self.stop.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            let all = Arc::clone(&self.connections).acquire_many_owned(self.connections_max);
            runtime.block_on(async {
                let _ = tokio::time::timeout(within, all).await;
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    connections: Arc<Semaphore>,
    mut stopping: watch::Receiver<bool>,
) {
    let stop = stopping.clone();
    loop {
        // A place first, then a connection: what is over the limit waits in the kernel's backlog.
        let next = async {
            let place = Arc::clone(&connections).acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let next = tokio::select! {
            next = next => next,
            () = stopped(&mut stopping) => return,
        };
        match next {
            Some((place, Ok((stream, _)))) => {
                tokio::spawn(connection(stream, Arc::clone(&shared), stop.clone(), place));
            }
            Some((_, Err(error))) => {
                tracing::warn!(%error, "accepting an admin connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None => return,
        }
    }
}

async fn connection(
    stream: TcpStream,
    shared: Arc<Shared>,
    mut stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let limits = &shared.state.limits;
    let header_timeout = Duration::from_millis(limits.header_timeout_ms);
    let idle_timeout = Duration::from_millis(limits.idle_timeout_ms);
    let write_timeout = Duration::from_millis(limits.write_timeout_ms);
    let requests = Arc::<Requests>::default();
    let stream = Patient::new(stream, write_timeout, header_timeout, Arc::clone(&requests));
    let service = service_fn(move |request| {
        requests.begin();
        let (requests, shared) = (Arc::clone(&requests), Arc::clone(&shared));
        async move {
            let answer = routes::answer(shared, request).await;
            requests.answer();
            answer
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        // For the first byte of a request; from there on the stream counts.
        .header_read_timeout(idle_timeout.max(header_timeout))
        // Who has cut a body short may still read that it was refused.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stopped(&mut stopping) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

/// Waits for the stop, and gives its lock back at once.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}
