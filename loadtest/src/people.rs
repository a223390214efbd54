//! People in real time against a server of its own: is every acknowledged update seen by the very next bid, and how many are taken a
//! second?
//!
//! *Pairs*: writers post one row and then ask at once for a bid of the same person, in and out of what is wanted in turns; an
//! answer that does not know yet is stale. *Throughput*: writers post calls of many rows, each of another person, as fast as they are
//! acknowledged, which is when they are on disk. Both are closed loops: a writer waits for its answer, as writers do.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use crate::cli::args::{count, many, seconds};
use crate::swap::Subject;
use crate::swap::server::{NotServing, Server};

/// Whether each acknowledged update is seen by the next bid, and how many are durable a second
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 1 where a decision was stale or a row was not taken.
Examples:
  loadtest people
  loadtest people --pairs 1000000 --writers 64
  loadtest people --pairs 1 --seconds 30 --writers 4 --rows 1000 --json")]
pub(crate) struct PeopleArgs {
    /// The `kith` to start; the one beside this binary if left out
    #[arg(long, value_name = "FILE")]
    kith: Option<PathBuf>,
    /// Updates that are each followed by a bid
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = many)]
    pairs: usize,
    /// How long calls of many rows are posted
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// Writers at once, each with a connection
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count)]
    writers: usize,
    /// Rows of a call
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = count)]
    rows: usize,
    /// Bid threads of the server; 0 is one a core
    #[arg(long, value_name = "N", default_value_t = 1)]
    bid_threads: usize,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Of whom rows are, in turn.
const PEOPLE: u64 = 1_000_000;

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The server did not start.
    #[error(transparent)]
    Server(#[from] NotServing),
    /// A call was not answered as it should.
    #[error("{0}")]
    Answer(String),
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Updates that were each followed by a bid.
    pub pairs: u64,
    /// Bids that did not know of the update before them.
    pub stale: u64,
    /// How long the pairs took.
    pub pairs_seconds: f64,
    /// Rows that were acknowledged, in calls of `rows`.
    pub rows_taken: u64,
    /// Rows of a call.
    pub rows: usize,
    /// Writers at once.
    pub writers: usize,
    /// Acknowledged rows a second.
    pub rows_per_second: f64,
    /// How long a call took, half of them.
    pub call_p50_ms: f64,
    /// The slowest of a hundred.
    pub call_p99_ms: f64,
}

impl Report {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "{} acknowledged updates, each with a bid after it: {} stale ({:.1} s)\n\
             {} rows in calls of {} by {} writers: {:.0} durable rows/s, a call {:.1} ms at the median, {:.1} ms at p99",
            self.pairs,
            self.stale,
            self.pairs_seconds,
            self.rows_taken,
            self.rows,
            self.writers,
            self.rows_per_second,
            self.call_p50_ms,
            self.call_p99_ms,
        )
    }

    /// Whether all is as it should be.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.stale == 0 && self.rows_taken > 0
    }
}

impl PeopleArgs {
    /// Starts a server and measures it.
    pub(crate) fn run(
        &self,
        stop: &AtomicBool,
        say: &(dyn Fn(&str) + Sync),
    ) -> Result<Report, PeopleError> {
        let kith = match &self.kith {
            Some(path) => path.clone(),
            None => crate::swap::command::beside()
                .map_err(|why| NotServing::Start("kith".to_owned(), why))?,
        };
        let server = Server::start(&kith, self.bid_threads)?;
        let writer = Writer::new(server.subject);
        writer.call(
            "PUT",
            "/v1/datasets/campaigns/versions/1",
            &campaigns(),
            201,
        )?;
        say(&format!("{} pairs of an update and a bid", self.pairs));
        let begun = Instant::now();
        let (left, stale) = (AtomicU64::new(self.pairs as u64), AtomicU64::new(0));
        each(self.writers, |own| {
            let writer = Writer::new(server.subject);
            let person = format!("pair-{own}");
            let mut wanted = false;
            while !stop.load(Relaxed) && take_one(&left) {
                wanted = !wanted;
                let word = if wanted { "add" } else { "remove" };
                let row = json!({"source": "ifa", "id": person, word: ["site/cart"]});
                writer.call("POST", "/v1/users", &format!("{row}\n"), 200)?;
                if writer.bids(&person)? != wanted {
                    stale.fetch_add(1, Relaxed);
                }
            }
            Ok(())
        })?;
        let pairs_seconds = begun.elapsed().as_secs_f64();
        say(&format!("calls of {} rows", self.rows));
        let begun = Instant::now();
        let times = std::sync::Mutex::new(Vec::new());
        let calls = AtomicU64::new(0);
        each(self.writers, |_| {
            let writer = Writer::new(server.subject);
            let mut own_times = Vec::new();
            let mut body = String::new();
            while !stop.load(Relaxed) && begun.elapsed() < self.seconds {
                let call = calls.fetch_add(1, Relaxed);
                body.clear();
                for row in 0..self.rows {
                    let id = (call * self.rows as u64 + row as u64) % PEOPLE;
                    body.push_str(&format!(
                        "{{\"source\":\"ifa\",\"id\":\"{id:08x}-0000-4000-8000-000000000000\",\"add\":[\"site/s{}\"],\"ttl\":\"1d\"}}\n",
                        id % 50
                    ));
                }
                let sent = Instant::now();
                let text = writer.call("POST", "/v1/users", &body, 200)?;
                own_times.push(sent.elapsed().as_secs_f64() * 1e3);
                if !text.contains(&format!("\"accepted\":{},", self.rows)) {
                    return Err(PeopleError::Answer(text));
                }
            }
            let mut all = times
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            all.append(&mut own_times);
            Ok(())
        })?;
        let lasted = begun.elapsed().as_secs_f64();
        let mut times = times.into_inner().unwrap_or_default();
        times.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (times.len() as f64 * share) as usize;
            times
                .get(place.min(times.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0.0)
        };
        let rows_taken = times.len() as u64 * self.rows as u64;
        Ok(Report {
            pairs: (self.pairs as u64).saturating_sub(left.load(Relaxed)),
            stale: stale.load(Relaxed),
            pairs_seconds,
            rows_taken,
            rows: self.rows,
            writers: self.writers,
            rows_per_second: rows_taken as f64 / lasted,
            call_p50_ms: at(0.5),
            call_p99_ms: at(0.99),
        })
    }
}

/// Takes one of what is left, if there is any.
fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
        .is_ok()
}

/// Has so many threads do the same, each with its number.
fn each(
    threads: usize,
    work: impl Fn(usize) -> Result<(), PeopleError> + Sync,
) -> Result<(), PeopleError> {
    std::thread::scope(|scope| {
        let work = &work;
        let all: Vec<_> = (0..threads)
            .map(|own| scope.spawn(move || work(own)))
            .collect();
        let gone = || PeopleError::Answer("a writer's thread panicked".to_owned());
        all.into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(gone())))
    })
}

/// One line item, for who is in the cart.
fn campaigns() -> String {
    json!({"advertisers": [{"id": "acme", "domain": "acme.example"}],
        "creatives": [{"id": "box", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "<p>"}],
        "line_items": [{"id": "cart", "creatives": ["box"], "targeting": "segments one of ['site/cart']",
            "price": {"cpm": "1", "currency": "USD"}}]})
    .to_string()
}

/// Somebody who posts and asks, over connections of its own.
struct Writer {
    subject: Subject,
    agent: ureq::Agent,
}

impl Writer {
    fn new(subject: Subject) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        Self {
            subject,
            agent: config.build().into(),
        }
    }

    fn send(&self, method: &str, url: String, body: &str) -> Result<(u16, String), PeopleError> {
        let failed =
            |why: &dyn std::fmt::Display| PeopleError::Answer(format!("{method} {url}: {why}"));
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(&url)
            .header("content-type", "application/json")
            .body(body.to_owned())
            .map_err(|why| failed(&why))?;
        let mut answer = self.agent.run(request).map_err(|why| failed(&why))?;
        let text = answer
            .body_mut()
            .read_to_string()
            .map_err(|why| failed(&why))?;
        Ok((answer.status().as_u16(), text))
    }

    fn call(
        &self,
        method: &str,
        path: &str,
        body: &str,
        wanted: u16,
    ) -> Result<String, PeopleError> {
        let url = format!("http://{}{path}", self.subject.admin);
        match self.send(method, url, body)? {
            (status, text) if status == wanted => Ok(text),
            (status, text) => Err(PeopleError::Answer(format!(
                "{method} {path}: {status}: {text}"
            ))),
        }
    }

    fn bids(&self, person: &str) -> Result<bool, PeopleError> {
        let url = format!("http://{}/bid/demo", self.subject.bid);
        let request = json!({"id": "r", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}], "device": {"ifa": person}});
        match self.send("POST", url, &request.to_string())? {
            (200, _) => Ok(true),
            (204, _) => Ok(false),
            (status, text) => Err(PeopleError::Answer(format!("a bid: {status}: {text}"))),
        }
    }
}
