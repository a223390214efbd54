//! Who swaps: uploads versions, activates staged ones, rolls back, and notes when each change was asked and acknowledged.
//!
//! With uploads, three ways to change what is live take turns: an upload that activates; an upload that only stages and an
//! activation after it (which narrows the time in which two versions may be live to that of the activation); and a rollback to
//! the version before. Else versions that were uploaded before the load are activated in turns.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::inside::Durations;
use super::judge::Change;
use super::versions::{self, Rows};
use super::{Kind, Scenario, SwapError, Swapped};

/// A server that does not answer within this has failed.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How often the stage of the run is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A further change begins only if this many times the longest so far is left of its window.
const ROOM: f64 = 1.3;

/// Full versions that are there before, where no other is uploaded.
const FULL_VERSIONS: u64 = 10;
/// How many updates are posted, where it is they.
const UPDATES_A_SECOND: u32 = 10_000;
const UPDATES_A_CALL: u32 = 1_000;
/// Deltas over one, where they are swapped.
const DELTAS: u64 = 2;

/// A call that was not answered as it should.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no answer.
    #[error("{what}: no answer: {why}")]
    NoAnswer {
        /// The call.
        what: String,
        /// Why.
        why: String,
    },
    /// Not the answer that was wanted.
    #[error("{what}: answered {status}: {body}")]
    Status {
        /// The call.
        what: String,
        /// The status.
        status: u16,
        /// The answer.
        body: String,
    },
}

/// How the live version was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// An upload that activates.
    Uploaded,
    /// An activation of a version uploaded before.
    Activated,
    /// An activation of an older version than the live one.
    RolledBack,
}

/// The one who swaps.
#[derive(Debug)]
pub struct Operator {
    agent: ureq::Agent,
    admin: SocketAddr,
    rows: Rows,
    swapped: Swapped,
    newest: u64,
    /// Every change of the live version, the first one included.
    pub changes: Vec<Change>,
    /// How each was made.
    pub hows: Vec<How>,
    /// How many of them before the load.
    pub before: usize,
    /// Of each window the 99th percentile of the time inside the server, in microseconds.
    pub inside: Vec<(Kind, f64)>,
    /// Changes that ended after their window.
    pub overran: usize,
    /// Updates that were posted.
    pub(super) updates: u64,
    /// How long the longest change took, staging and making of the rows included.
    longest: Duration,
}

impl Operator {
    /// Has changed nothing yet.
    #[must_use]
    pub fn new(admin: SocketAddr, rows: Rows, swapped: Swapped) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_global(Some(TIMEOUT));
        Self {
            agent: config.build().new_agent(),
            admin,
            rows,
            swapped,
            newest: 0,
            changes: Vec::new(),
            hows: Vec::new(),
            before: 0,
            inside: Vec::new(),
            overran: 0,
            updates: 0,
            longest: Duration::ZERO,
        }
    }

    /// Uploads the campaigns and what is there before the load.
    pub(super) fn prepare(&mut self) -> Result<(), Refused> {
        let path = "/v1/datasets/campaigns/versions/1";
        let body = versions::campaigns();
        let (status, text) = self.put(path, "application/json", body.as_bytes())?;
        expect("the campaigns", status, &text, 201, Some("active"))?;
        let versions = match self.swapped {
            Swapped::Uploads | Swapped::Updates => 1,
            Swapped::Full => FULL_VERSIONS,
            Swapped::Deltas => 1 + DELTAS,
        };
        for version in 1..=versions {
            self.change(How::Uploaded, version)?;
        }
        self.before = self.changes.len();
        self.longest = Duration::ZERO;
        Ok(())
    }

    /// Swaps in every window that is for it, until `over` is closed.
    pub(super) fn work(
        &mut self,
        scenario: &Scenario,
        stage: &AtomicUsize,
        over: &Receiver<()>,
        say: &(dyn Fn(&str) + Sync),
    ) -> Result<(), SwapError> {
        let is_over = |wait| over.recv_timeout(wait) != Err(RecvTimeoutError::Timeout);
        let mut at = 0;
        let mut begun: Option<(Kind, Durations)> = None;
        while !is_over(LOOK_EVERY) {
            let now = stage.load(Ordering::Relaxed);
            if now == at {
                continue;
            }
            at = now;
            let durations = Durations::now(&self.agent, self.admin);
            if let Some((kind, before)) = begun.take() {
                self.inside.push((kind, durations.since(&before).p99_us()));
            }
            begun = Some(Kind::of(at))
                .filter(|kind| *kind != Kind::Pause)
                .map(|kind| (kind, durations));
            match Kind::of(at) {
                Kind::Pause => {}
                Kind::Quiet => say(&format!(
                    "window {} of {}: quiet",
                    at.div_ceil(2),
                    scenario.rounds * 2
                )),
                Kind::Swapping => {
                    say(&format!(
                        "window {} of {}: swapping",
                        at.div_ceil(2),
                        scenario.rounds * 2
                    ));
                    let ends = Instant::now() + scenario.window;
                    if self.swapped == Swapped::Updates {
                        self.update(ends)?;
                        continue;
                    }
                    // One at least, however slow the machine is.
                    loop {
                        let (how, version) = self.next();
                        self.change(how, version)?;
                        if is_over(scenario.between) {
                            return Ok(());
                        }
                        let left = ends.saturating_duration_since(Instant::now());
                        if left <= self.longest.mul_f64(ROOM) {
                            break;
                        }
                    }
                    let last = self.changes.last().map(|change| change.acknowledged);
                    self.overran += usize::from(last > Some(ends + scenario.pause));
                }
            }
        }
        Ok(())
    }

    /// Posts updates of people whom nobody asks for until then, at [`UPDATES_A_SECOND`].
    fn update(&mut self, ends: Instant) -> Result<(), Refused> {
        let each = Duration::from_secs(1) * UPDATES_A_CALL / UPDATES_A_SECOND;
        let mut due = Instant::now();
        while due < ends {
            std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
            let mut body = String::new();
            for _ in 0..UPDATES_A_CALL {
                self.updates += 1;
                let id = self.updates % 200_000;
                body.push_str(&format!(
                    "{{\"source\":\"updated.example\",\"id\":\"someone-{id}\",\"add\":[\"site/s{}\"]}}\n",
                    id % 20
                ));
            }
            let request = self.agent.post(format!("http://{}/v1/users", self.admin));
            let request = request.content_type("application/x-ndjson");
            let (status, text) = answer("updates", request.send(body.as_bytes()))?;
            expect("updates", status, &text, 200, None)?;
            due += each;
        }
        Ok(())
    }

    fn live(&self) -> u64 {
        self.changes.last().map_or(0, |change| change.version)
    }

    /// What comes next: with uploads each way of changing in turns, rollbacks a quarter of them; else the versions that are there.
    fn next(&self) -> (How, u64) {
        let (live, newest) = (self.live(), self.newest);
        match (self.swapped, self.hows.len() % 4) {
            (Swapped::Uploads, 1) => (How::Activated, newest + 1),
            (Swapped::Uploads, 3) => (How::RolledBack, live.saturating_sub(1)),
            (Swapped::Uploads, _) => (How::Uploaded, newest + 1),
            (Swapped::Full | Swapped::Deltas | Swapped::Updates, _) => {
                match live % newest.max(1) + 1 {
                    older if older < live => (How::RolledBack, older),
                    newer => (How::Activated, newer),
                }
            }
        }
    }

    fn change(&mut self, how: How, version: u64) -> Result<(), Refused> {
        let begun = Instant::now();
        if version > self.newest {
            // Made before the clock runs.
            self.rows.of(version);
            if how == How::Activated {
                self.upload(version, false)?;
            }
        }
        let asked = Instant::now();
        match how {
            How::Uploaded => self.upload(version, true)?,
            How::Activated | How::RolledBack => self.activate(version)?,
        }
        self.changes.push(Change {
            version,
            asked,
            acknowledged: Instant::now(),
        });
        self.hows.push(how);
        self.longest = self.longest.max(begun.elapsed());
        Ok(())
    }

    fn upload(&mut self, version: u64, activate: bool) -> Result<(), Refused> {
        let mut path = format!("/v1/datasets/crm/versions/{version}?activate={activate}");
        let delta;
        let body = match (self.swapped, version) {
            (Swapped::Deltas, 2..) => {
                path += &format!("&mode=delta&base={}", version - 1);
                delta = self.rows.delta(version);
                delta.as_bytes()
            }
            _ => self.rows.of(version),
        };
        let (status, text) = put(&self.agent, self.admin, &path, "text/csv", body)?;
        let state = if activate { "active" } else { "staged" };
        expect(
            &format!("version {version}"),
            status,
            &text,
            201,
            Some(state),
        )?;
        self.newest = version;
        Ok(())
    }

    fn activate(&self, version: u64) -> Result<(), Refused> {
        let what = format!("activating version {version}");
        let request = self
            .agent
            .post(format!("http://{}/v1/datasets/crm/activate", self.admin));
        let answered = request
            .content_type("application/json")
            .send(format!("{{\"version\":{version}}}"));
        let (status, text) = answer(&what, answered)?;
        expect(&what, status, &text, 200, None)
    }

    fn put(&self, path: &str, media_type: &str, body: &[u8]) -> Result<(u16, String), Refused> {
        put(&self.agent, self.admin, path, media_type, body)
    }
}

type Answered = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

fn put(
    agent: &ureq::Agent,
    admin: SocketAddr,
    path: &str,
    media_type: &str,
    body: &[u8],
) -> Result<(u16, String), Refused> {
    let request = agent.put(format!("http://{admin}{path}"));
    answer(path, request.content_type(media_type).send(body))
}

fn answer(what: &str, answered: Answered) -> Result<(u16, String), Refused> {
    let none = |why: ureq::Error| Refused::NoAnswer {
        what: what.to_owned(),
        why: why.to_string(),
    };
    let mut response = answered.map_err(none)?;
    let text = response.body_mut().read_to_string().map_err(none)?;
    Ok((response.status().as_u16(), text))
}

/// Refuses another status, or another state of a version.
fn expect(
    what: &str,
    status: u16,
    text: &str,
    wanted: u16,
    state: Option<&str>,
) -> Result<(), Refused> {
    let said: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    if status == wanted && state.is_none_or(|state| said["state"] == state) {
        return Ok(());
    }
    let body = text.chars().take(400).collect();
    Err(Refused::Status {
        what: what.to_owned(),
        status,
        body,
    })
}
