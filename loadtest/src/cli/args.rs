//! The arguments of a run, and the plan that they make.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Failure;
use crate::notices::Notices;
use crate::overload::Overload;
use crate::run::{Plan, Traffic};
use crate::schedule::Stage;
use crate::target::{TargetArg, number_of_rate};
use crate::watch::Limits;

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// What to load; several are used in turns. One may have rate and connections of its own:
    /// URL,rate=N,connections=C
    #[arg(long = "url", value_name = "URL", required = true)]
    urls: Vec<TargetArg>,
    /// OpenRTB requests, one a line, used in turns
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
    /// Requests a second, over all URLs that have no rate of their own
    #[arg(long, value_name = "N", value_parser = number_of_rate)]
    pub(super) rate: Option<f64>,
    /// How long, in seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub(super) duration: Duration,
    /// Connections, over all URLs that have no number of their own
    #[arg(long, value_name = "C", default_value_t = 16, value_parser = count)]
    connections: usize,
    /// Threads that send
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = count)]
    threads: usize,
    /// One more header line of every request, "name: value"
    #[arg(long = "header", value_name = "LINE", value_parser = header)]
    headers: Vec<String>,
    /// An answer is in time when it comes within this of when its request was due
    #[arg(long, value_name = "MS", default_value = "100", value_parser = millis)]
    deadline_ms: Duration,
    /// A sent request that is not answered within this has failed
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = millis)]
    timeout_ms: Duration,
    /// A due request that finds no free connection within this is not sent
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = millis)]
    wait_ms: Duration,
    /// Let the rate go evenly from one to another over the duration
    #[arg(long, value_name = "FROM:TO", value_parser = ramp, conflicts_with_all = ["rate", "search", "overload", "closed"])]
    pub(super) ramp: Option<(f64, f64)>,
    /// Ask K times what the server can do: --rate, or what a search finds; calm before and after
    #[arg(long, value_name = "K", value_parser = number_of_rate, conflicts_with_all = ["closed", "search"])]
    pub(super) overload: Option<f64>,
    /// How long each calm lasts, in seconds
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    calm: Duration,
    /// Search the highest rate that keeps the p99 under --p99-ms
    #[arg(long, conflicts_with_all = ["rate", "closed"])]
    pub(super) search: bool,
    /// The search's bound
    #[arg(long, value_name = "MS", default_value = "10", value_parser = millis)]
    pub(super) p99_ms: Duration,
    /// Where the search begins
    #[arg(long, value_name = "N", default_value = "1000", value_parser = number_of_rate)]
    pub(super) search_from: f64,
    /// How long each trial of the search is, in seconds
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    pub(super) trial: Duration,
    /// Send whenever a connection is free instead of by a schedule. It hides stalls; for comparison
    /// only
    #[arg(long, conflicts_with = "rate")]
    pub(super) closed: bool,
    /// Play the exchange: send win, billing and loss notices for the bids, only to the hosts of --url.
    /// Settings are as in the default; those left out keep it
    #[arg(
        long,
        value_name = "SETTINGS",
        num_args = 0..=1,
        default_missing_value = "win=0.2,bill=0.9,late=0.05,late_ms=2000,twice=0.02,never=0.01,after_ms=50,connections=4,seed=1",
        conflicts_with_all = ["search", "closed"]
    )]
    pub(super) notices: Option<Notices>,
    /// Write the latencies to this file, as an HDR interval log
    #[arg(long, value_name = "FILE", conflicts_with = "search")]
    pub(super) histogram: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// How the rate goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Steady(f64),
    Ramp(f64, f64),
    Overload(f64, Overload),
}

impl RunArgs {
    pub(super) fn overload_of(&self, times: f64) -> Overload {
        Overload {
            times,
            lasts: self.duration,
            calm: self.calm,
        }
    }

    /// Without a rate there must be something that says how fast.
    pub(super) fn shape(&self) -> Result<Shape, Failure> {
        let all_have_their_own = self.urls.iter().all(|url| url.rate.is_some());
        match (self.rate, self.ramp) {
            (_, Some((from, to))) => Ok(Shape::Ramp(from, to)),
            (Some(rate), _) => Ok(Shape::Steady(rate)),
            _ if self.closed || all_have_their_own => Ok(Shape::Steady(1.0)),
            _ => Err(Failure::Usage(
                "how many requests a second? --rate N, --ramp FROM:TO, or --search".to_owned(),
            )),
        }
    }

    /// The plan of a run of this shape. URLs with a rate of their own keep it.
    pub(super) fn plan(&self, shape: Shape, lasts: Duration, bodies: &Arc<[Vec<u8>]>) -> Plan {
        let sharing = self
            .urls
            .iter()
            .filter(|url| url.rate.is_none())
            .count()
            .max(1);
        let unconnected = self
            .urls
            .iter()
            .filter(|url| url.connections.is_none())
            .count();
        #[expect(clippy::cast_precision_loss, reason = "a handful of URLs")]
        let part = 1.0 / sharing as f64;
        let (mut turn, mut connected) = (0.0, 0);
        let traffic = self
            .urls
            .iter()
            .map(|url| {
                let stages = match (url.rate, shape) {
                    (Some(own), Shape::Overload(_, overload)) => overload.steady(own),
                    (Some(own), _) => vec![Stage::constant(own, lasts)],
                    (None, Shape::Steady(rate)) => vec![Stage::constant(rate * part, lasts)],
                    (None, Shape::Ramp(from, to)) => vec![Stage {
                        from: from * part,
                        to: to * part,
                        lasts,
                    }],
                    (None, Shape::Overload(base, overload)) => overload.stages(base * part),
                };
                let shift = if url.rate.is_none() { turn } else { 0.0 };
                if url.rate.is_none() {
                    turn += part;
                }
                let connections = url.connections.unwrap_or_else(|| {
                    connected += 1;
                    let even = crate::run::share(self.connections, unconnected, connected - 1);
                    even.max(self.threads)
                });
                Traffic {
                    target: url.target.clone(),
                    connections,
                    stages,
                    shift,
                }
            })
            .collect();
        Plan {
            traffic,
            bodies: Arc::clone(bodies),
            headers: self.headers.clone(),
            limits: Limits {
                deadline: self.deadline_ms,
                wait: self.wait_ms,
                timeout: self.timeout_ms,
            },
            threads: self.threads,
            closed_loop: self.closed,
        }
    }

    pub(super) fn bodies(&self) -> Result<Arc<[Vec<u8>]>, Failure> {
        bodies(&self.requests)
    }
}

/// The lines of a requests' file; empty ones are none. What is no JSON object is sent too, for a server has to refuse
/// it well, but said aloud: mostly the file is not what it was taken for.
fn bodies(path: &Path) -> Result<Arc<[Vec<u8>]>, Failure> {
    let failed = |why: &str| Failure::File(path.display().to_string(), why.to_owned());
    let bytes = fs::read(path).map_err(|why| failed(&why.to_string()))?;
    if bytes.starts_with(&GZIP) {
        return Err(failed("is compressed with gzip: unpack it first"));
    }
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let requests = || {
        (1..)
            .zip(lines.clone())
            .filter(|(_, line)| !line.is_empty())
    };
    let bodies: Arc<[Vec<u8>]> = requests().map(|(_, line)| line.to_vec()).collect();
    if bodies.is_empty() {
        return Err(failed("holds no request"));
    }
    let mut strange = requests().filter(|(_, line)| !is_object(line));
    if let Some((first, _)) = strange.next() {
        super::say(&format!(
            "loadtest: WARNING: {}: {} of {} lines hold no JSON object, line {first} is the first; they are sent as they are. \
             A request is one line",
            path.display(),
            strange.count() + 1,
            bodies.len(),
        ));
    }
    Ok(bodies)
}

/// What a gzip file begins with (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

fn is_object(line: &[u8]) -> bool {
    line.starts_with(b"{") && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

fn ramp(text: &str) -> Result<(f64, f64), String> {
    let wrong = || "not FROM:TO, two rates of which one is more than 0".to_owned();
    let (from, to) = text.split_once(':').ok_or_else(wrong)?;
    let rate = |text: &str| {
        if text == "0" {
            Ok(0.0)
        } else {
            number_of_rate(text)
        }
    };
    match (rate(from)?, rate(to)?) {
        (from, to) if from + to > 0.0 => Ok((from, to)),
        _ => Err(wrong()),
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if seconds > 0.0 && seconds <= 86_400.0 {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("not more than 0 and at most a day".to_owned())
    }
}

pub(crate) fn millis(text: &str) -> Result<Duration, String> {
    let millis: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if millis > 0.0 && millis <= 60_000.0 {
        Ok(Duration::from_secs_f64(millis / 1000.0))
    } else {
        Err("not more than 0 and at most a minute".to_owned())
    }
}

pub(crate) fn count(text: &str) -> Result<usize, String> {
    up_to(100_000, text)
}

/// A count of what takes a while each.
pub(crate) fn many(text: &str) -> Result<usize, String> {
    up_to(100_000_000, text)
}

fn up_to(most: usize, text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=most).contains(count));
    count.ok_or_else(|| format!("not a number from 1 to {most}"))
}

fn header(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once(':').ok_or("not \"name: value\"")?;
    let token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    if name.is_empty()
        || !name.bytes().all(token)
        || !value.bytes().all(|b| (b' '..=b'~').contains(&b))
    {
        return Err("not \"name: value\"".to_owned());
    }
    Ok(text.to_owned())
}
