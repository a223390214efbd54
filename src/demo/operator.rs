//! What jobs and operators do: the admin listener's calls, as far as the demo makes them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};
use ureq::Agent;
use ureq::http::Response;

use super::stop::Stop;
use super::{DemoError, EXCHANGE};

/// Longest wait for one call. The admin listener gives way to everything else, and on a busy machine that takes its time.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait for a service to be ready that has nothing to bring back.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of the admin listener.
#[derive(Debug)]
pub(super) struct Operator {
    agent: Agent,
    base: String,
}

/// An accepted upload.
#[derive(Debug, Deserialize)]
pub(super) struct Uploaded {
    pub(super) state: String,
    dataset: String,
    rows: Option<u64>,
    ids: Option<u64>,
    segments: Option<u64>,
    /// From the call to the answer.
    #[serde(skip)]
    pub(super) took: Duration,
}

impl Uploaded {
    /// What is in it, for people.
    pub(super) fn contents(&self) -> String {
        let counts = if self.dataset == "campaigns" {
            [
                (self.rows, "line items"),
                (self.segments, "segments targeted"),
                (None, ""),
            ]
        } else {
            [
                (self.rows, "rows"),
                (self.ids, "ids"),
                (self.segments, "segments"),
            ]
        };
        let counts: Vec<String> = counts
            .into_iter()
            .filter_map(|(count, what)| Some(format!("{} {what}", count?)))
            .collect();
        counts.join(", ")
    }
}

/// Why a request is answered as it is.
#[derive(Debug, Deserialize)]
pub(super) struct Explained {
    pub(super) datasets: BTreeMap<String, u64>,
    pub(super) privacy: Verdict,
    pub(super) ids: Vec<SeenId>,
    pub(super) segments: Vec<String>,
    pub(super) imps: Vec<ExplainedImp>,
    pub(super) decision: String,
    pub(super) reason: Option<String>,
    pub(super) why: Option<String>,
    pub(super) response: Value,
}

#[derive(Debug, Deserialize)]
pub(super) struct Verdict {
    pub(super) verdict: String,
    pub(super) why: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct SeenId {
    pub(super) source: String,
    pub(super) used: bool,
    pub(super) why: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ExplainedImp {
    pub(super) id: Option<String>,
    pub(super) line_items: Vec<Considered>,
    pub(super) bids: Vec<Proposed>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Considered {
    pub(super) id: String,
    pub(super) reason: Option<String>,
    pub(super) why: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Proposed {
    pub(super) line_item: String,
    pub(super) creative: String,
    pub(super) seat: String,
    pub(super) price: Number,
    pub(super) currency: String,
    pub(super) deal: Option<String>,
    pub(super) format: String,
    pub(super) w: Option<u32>,
    pub(super) h: Option<u32>,
}

impl Operator {
    pub(super) fn new(address: SocketAddr) -> Self {
        // No proxy of the environment: we ask ourselves.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_global(Some(TIMEOUT));
        Self {
            agent: config.build().new_agent(),
            base: format!("http://{address}"),
        }
    }

    pub(super) fn wait_until_ready(&self, stop: &Stop) -> Result<(), DemoError> {
        let since = Instant::now();
        loop {
            match self.get("/readyz") {
                Err(not_yet @ DemoError::Refused { .. }) if since.elapsed() < READY_TIMEOUT => {
                    tracing::debug!(%not_yet);
                    stop.pause(Duration::from_millis(10))?;
                }
                other => return other.map(drop),
            }
        }
    }

    pub(super) fn upload(
        &self,
        dataset: &str,
        version: u64,
        media_type: &str,
        body: &str,
    ) -> Result<Uploaded, DemoError> {
        let path = format!("/v1/datasets/{dataset}/versions/{version}");
        let since = Instant::now();
        let request = self.agent.put(format!("{}{path}", self.base));
        let call = format!("PUT {path}");
        let text = answer(&call, request.content_type(media_type).send(body))?;
        let mut uploaded: Uploaded = parsed(&call, &text)?;
        uploaded.took = since.elapsed();
        if uploaded.state == "active" {
            Ok(uploaded)
        } else {
            Err(refused(&call, 201, text))
        }
    }

    /// Makes a version live that was before: how long it took.
    pub(super) fn activate(&self, dataset: &str, version: u64) -> Result<Duration, DemoError> {
        let since = Instant::now();
        let body = format!("{{\"version\":{version}}}");
        self.post(&format!("/v1/datasets/{dataset}/activate"), body.as_bytes())?;
        Ok(since.elapsed())
    }

    pub(super) fn explain(&self, request: &[u8]) -> Result<Explained, DemoError> {
        let path = format!("/v1/explain/{EXCHANGE}");
        parsed(&format!("POST {path}"), &self.post(&path, request)?)
    }

    /// Every series of `/metrics` by its text up to the value.
    pub(super) fn metrics(&self) -> Result<BTreeMap<String, f64>, DemoError> {
        let page = self.get("/metrics")?;
        let series = page.lines().filter(|line| !line.starts_with('#'));
        Ok(series
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect())
    }

    fn get(&self, path: &str) -> Result<String, DemoError> {
        let asked = self.agent.get(format!("{}{path}", self.base)).call();
        answer(&format!("GET {path}"), asked)
    }

    fn post(&self, path: &str, body: &[u8]) -> Result<String, DemoError> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let asked = request.content_type("application/json").send(body);
        answer(&format!("POST {path}"), asked)
    }
}

fn answer(
    call: &str,
    answered: Result<Response<ureq::Body>, ureq::Error>,
) -> Result<String, DemoError> {
    let read = |mut response: Response<ureq::Body>| {
        let text = response.body_mut().read_to_string()?;
        Ok((response.status(), text))
    };
    let (status, text) = answered
        .and_then(read)
        .map_err(|source| DemoError::Unanswered {
            call: call.to_owned(),
            source: Box::new(source),
        })?;
    if status.is_success() {
        Ok(text)
    } else {
        Err(refused(call, status.as_u16(), text))
    }
}

fn parsed<T: DeserializeOwned>(call: &str, text: &str) -> Result<T, DemoError> {
    serde_json::from_str(text).map_err(|e| refused(call, 200, format!("{e} in {text}")))
}

fn refused(call: &str, status: u16, detail: String) -> DemoError {
    DemoError::Refused {
        call: call.to_owned(),
        status,
        detail,
    }
}
