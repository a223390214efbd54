//! `kith demo`: the real service in this process, fed over HTTP, and told why it does what it does.
//!
//! Nothing here is a mock: [`Service::start`] is what `serve` runs, the audiences come in through the admin listener as
//! a segment job's would, bid requests through the bid listener as an exchange's would. Only the data is invented
//! (`fixtures/`, compiled in, so that the binary works from anywhere) and it lives in a folder of its own that is removed.
//!
//! The demo is a test of itself: what the bid listener answers is held against what `/v1/explain` says, and whatever
//! does not fit is printed and makes [`run`] fail.

mod connection;
mod folder;
mod operator;
mod page;
mod replay;
mod stop;
mod story;
mod swap;

use std::io::{self, IsTerminal as _, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use self::folder::Folder;
use self::operator::Operator;
use self::page::Page;
use self::stop::Stop;
use crate::config::Config;
use crate::service::{Service, StartError};

const CAMPAIGNS: &str = include_str!("../fixtures/campaigns.json");
const CRM: &str = include_str!("../fixtures/crm.csv");
const SITE: &str = include_str!("../fixtures/site.ndjson");
const SITE_2: &str = include_str!("../fixtures/site-2.ndjson");
const REQUESTS: &str = include_str!("../fixtures/requests.jsonl");

/// The exchange that is configured where nothing is.
const EXCHANGE: &str = "demo";
/// A request for the reader to send: someone in `crm/vip`.
const TRY_THIS: &str = r#"{"id":"mine","imp":[{"id":"1","banner":{"w":300,"h":250},"bidfloor":1.0}],"site":{"domain":"news.example"},"device":{"geo":{"country":"USA"}},"user":{"buyeruid":"u-0001"}}"#;

/// What to show.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// End when all is shown, instead of staying up until Ctrl-C.
    pub once: bool,
    /// A file of bid requests, one a line, to send instead of the fixtures.
    pub requests: Option<PathBuf>,
}

/// Why the demo did not go through.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The service.
    #[error("the service did not start: {0}")]
    Start(#[from] StartError),
    /// The folder of the demo's data.
    #[error("no folder for the demo's data ({path}): {source}; TMPDIR says where it is made")]
    Folder {
        /// Where it was to be.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file of requests.
    #[error("the file of requests {path} cannot be read: {source}")]
    Requests {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The output.
    #[error("writing the output failed: {0}")]
    Output(#[from] io::Error),
    /// No answer from the admin listener.
    #[error("{call} had no answer: {source}")]
    Unanswered {
        /// Method and path.
        call: String,
        /// What went wrong on the way.
        #[source]
        source: Box<ureq::Error>,
    },
    /// Another answer from the admin listener than there should be.
    #[error("{call} was answered {status}: {detail}")]
    Refused {
        /// Method and path.
        call: String,
        /// The status.
        status: u16,
        /// What the answer says.
        detail: String,
    },
    /// A thread, or signals.
    #[error("starting failed: {0}")]
    System(#[source] io::Error),
    /// Something was answered wrongly. Each thing is in the output as well.
    #[error("{} not as it should be:\n{}", counted(findings.len(), "thing is", "things are"), findings.join("\n"))]
    Wrong {
        /// What, a line each.
        findings: Vec<String>,
    },
    /// Ctrl-C or SIGTERM before all was shown.
    #[error("stopped before the end")]
    Interrupted,
}

fn counted(number: usize, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}

/// Shows it on standard output; in colour on a terminal, unless `NO_COLOR` is set.
pub fn run(options: &Options) -> Result<(), DemoError> {
    let mut out = io::stdout().lock();
    #[expect(
        clippy::disallowed_methods,
        reason = "NO_COLOR is a convention of terminals, not a setting of ours"
    )]
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    match show(options, &mut out, colour) {
        // Who has seen enough closes the pipe: `kith demo | head`.
        Err(DemoError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Shows it on `out`.
pub fn show(options: &Options, out: &mut dyn Write, colour: bool) -> Result<(), DemoError> {
    let stop = Stop::listen().map_err(DemoError::System)?;
    // Before the service, so that it outlives it.
    let folder = Folder::fresh()?;
    let service = Service::start(config(&folder))?;
    let mut page = Page::new(out, colour);
    let shown = show_all(options, &service, &mut page, &stop);
    if shown.is_ok() && !options.once {
        page.line("  It stays up until Ctrl-C.")?;
        page.flush()?;
        stop.wait();
    }
    service.drain();
    shown
}

fn config(folder: &Folder) -> Config {
    let free_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config = Config::default();
    config.bid.listen = free_port;
    config.admin.listen = free_port;
    config.data.dir = folder.path().join("data");
    config.data.key_file = config.data.dir.join("key");
    config
}

fn show_all(
    options: &Options,
    service: &Service,
    page: &mut Page<'_>,
    stop: &Stop,
) -> Result<(), DemoError> {
    let operator = Operator::new(service.admin_addr());
    operator.wait_until_ready(stop)?;
    page.heading("Kith at work: the whole service in this process, asked over HTTP on loopback")?;
    uploads(&operator, page)?;
    let findings = match &options.requests {
        Some(path) => replay::replay(path, service.bid_addr(), &operator, page, stop)?,
        None => {
            let mut findings = story::tell(service.bid_addr(), &operator, page, stop)?;
            findings.extend(swap::show(service.bid_addr(), &operator, page, stop)?);
            findings
        }
    };
    urls(service, page)?;
    if findings.is_empty() {
        return Ok(());
    }
    for finding in &findings {
        page.wrong(finding)?;
    }
    page.flush()?;
    Err(DemoError::Wrong { findings })
}

/// What segment jobs and the campaign desk do before anybody asks for a bid.
fn uploads(operator: &Operator, page: &mut Page<'_>) -> Result<(), DemoError> {
    page.section("Audiences and campaigns are uploaded")?;
    let mut upload = |dataset: &str, media_type, body: &str| {
        let done = operator.upload(dataset, 1, media_type, body)?;
        page.line(&format!(
            "  PUT {:<36} {}",
            format!("/v1/datasets/{dataset}/versions/1"),
            page.dim(&format!(
                "{}; {} after {}",
                done.contents(),
                done.state,
                page::seconds(done.took)
            ))
        ))?;
        Ok::<_, DemoError>(())
    };
    upload("crm", "text/csv", CRM)?;
    upload("site", "application/x-ndjson", SITE)?;
    upload("campaigns", "application/json", CAMPAIGNS)
}

fn urls(service: &Service, page: &mut Page<'_>) -> Result<(), DemoError> {
    let (bid, admin) = (service.bid_addr(), service.admin_addr());
    page.section("Try it yourself")?;
    for (what, url) in [
        ("bid requests", format!("http://{bid}/bid/{EXCHANGE}")),
        ("datasets", format!("http://{admin}/v1/datasets")),
        ("metrics", format!("http://{admin}/metrics")),
        ("readiness", format!("http://{admin}/readyz")),
        ("all calls", format!("http://{admin}/")),
    ] {
        page.line(&format!("  {what:<13} {}", page.bold(&url)))?;
    }
    page.line("")?;
    for (what, command) in [
        (
            "a bid, for somebody in crm/vip",
            format!(
                "curl -s -H 'Content-Type: application/json' http://{bid}/bid/{EXCHANGE} -d '{TRY_THIS}'"
            ),
        ),
        (
            "why",
            format!("curl -s http://{admin}/v1/explain/{EXCHANGE} -d '{TRY_THIS}'"),
        ),
        (
            "an audience of your own; mine.csv begins with the line source,id,segments",
            format!(
                "curl -s -T mine.csv -H 'Content-Type: text/csv' http://{admin}/v1/datasets/mine/versions/1"
            ),
        ),
    ] {
        page.line(&page.dim(&format!("  # {what}")))?;
        page.line(&format!("  {command}"))?;
    }
    page.line("")?;
    page.flush()
}
