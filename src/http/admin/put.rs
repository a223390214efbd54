//! `PUT /v1/datasets/{name}/versions/{n}`: from a streaming body to a version, and how it is going.
//!
//! Each upload has a thread of its own, at low priority, that undoes the coding, spools, builds, validates and activates;
//! the connection's task only moves bytes to it. When the client goes away before the end of the body, the thread sees a
//! cut body and leaves nothing; when it goes away later, the upload goes through, and sending it again is answered 200.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Body as _;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::body::{BodyReader, pipe};
use super::encoding::{Coding, Longest, content_digest, copy_decoded, too_long};
use super::routes::{Answer, Asked, json as json_answer, query, shown};
use super::{AdminState, Problem};
use crate::audience::RowFormat;
use crate::config::Role;
use crate::datasets::{Format, Mode, Published, Refused, Spool, Upload};
use crate::ids::Name;
use crate::priority;

/// Ends of asynchronous uploads kept for whoever asks.
const JOBS_MAX: usize = 256;
const SUPPORTED: &str = "application/vnd.kith.snapshot, text/csv, text/plain (with ?source=&segment=), application/x-ndjson and, for campaigns, application/json and application/toml";

/// Takes an upload in.
pub(super) async fn upload(
    asked: &mut Asked<'_>,
    dataset: Name,
    version: u64,
) -> Result<Answer, Problem> {
    asked.caller.may(Role::Upload, &dataset)?;
    let headers = &asked.head.headers;
    let coding = Coding::of(headers)?;
    let digest = content_digest(headers)?;
    let respond_async = prefers_async(headers);
    let upload = parse(dataset, version, headers, asked.head.uri.query())?;
    let state = &asked.shared.state;
    state.datasets.admit(&upload, (state.now)())?;
    let limits = &state.limits;
    let own_max = state.datasets.upload_bytes_max(&upload);
    let (bytes, limit) =
        own_max.unwrap_or_else(|| (limits.upload_bytes, "limits.upload_bytes".to_owned()));
    let longest = Longest { bytes, limit };
    let announced = asked.body.size_hint().exact();
    if coding == Coding::Identity && announced.is_some_and(|a| a > longest.bytes) {
        return Err(too_long(longest.bytes, &longest.limit));
    }
    let turn = asked.shared.turns.take(&upload.dataset)?;
    let place = Arc::clone(&asked.shared.uploads)
        .try_acquire_owned()
        .map_err(|_| {
            let detail = format!(
                "{} uploads are under way, which is limits.uploads; try again in some seconds",
                limits.uploads
            );
            Problem::new(429, "too_many_uploads", detail)
        })?;
    let spool = state.datasets.spool()?;
    let (pump, reader) = pipe();
    let (received, when_received) = oneshot::channel();
    let (done, when_done) = oneshot::channel();
    let work = Work {
        state: Arc::clone(state),
        by: asked.caller.name.clone(),
        coding,
        digest,
        longest,
        upload: upload.clone(),
    };
    let shared = Arc::clone(&asked.shared.clone());
    let key = (upload.dataset.clone(), upload.version);
    let thread = std::thread::Builder::new().name("kith-upload".to_owned());
    let spawned = thread.spawn(move || {
        priority::give_way();
        let ended = work.spool(reader, spool).and_then(|spool| {
            if respond_async {
                shared.jobs.begin(&key);
            }
            let _ = received.send(());
            // What a panic leaves behind is whole: the datasets replace values, they never change them in place.
            catch_unwind(AssertUnwindSafe(|| work.publish(spool)))
                .unwrap_or_else(|_| Err(panicked()))
        });
        if respond_async {
            shared.jobs.end(&key, ended.as_ref().err());
        } else if ended.is_ok() {
            // A refusal told of earlier is overtaken.
            shared.jobs.end(&key, None);
        }
        // Free before the answer: who reads it may upload the next one at once.
        drop((place, turn));
        let _ = done.send(ended);
    });
    spawned.map_err(|e| Problem::new(503, "threads", format!("no thread for the upload: {e}")))?;
    let stall = Duration::from_millis(limits.upload_stall_timeout_ms);
    pump.run(asked.body, stall).await;
    if respond_async && when_received.await.is_ok() {
        return accepted(&upload);
    }
    let published = when_done.await.unwrap_or_else(|_| Err(panicked()))?;
    let status = if published.fresh {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    shown(status, &published)
}

/// What became of a version, or is becoming.
pub(super) fn status(asked: &Asked<'_>, dataset: &Name, number: u64) -> Result<Answer, Problem> {
    asked.caller.may(Role::Read, dataset)?;
    let key = (dataset.clone(), number);
    let stored = asked.shared.state.datasets.version(dataset, number);
    match (asked.shared.jobs.get(&key), stored) {
        (Some(Job::Building), _) => Ok(json_answer(
            StatusCode::OK,
            &json!({"dataset": dataset, "version": number, "state": "building"}),
        )),
        // Before what is stored: the number may be taken by another upload, which is why this one was refused.
        (Some(Job::Refused(problem)), stored) => {
            let mut answer = json!({"dataset": dataset, "version": number, "state": "refused", "problem": problem});
            if let Ok(published) = stored {
                answer["stored"] = serde_json::to_value(published).unwrap_or_default();
            }
            Ok(json_answer(StatusCode::OK, &answer))
        }
        (None, Ok(published)) => shown(StatusCode::OK, &published),
        (None, Err(refused)) => Err(refused.into()),
    }
}

fn panicked() -> Problem {
    tracing::error!("an upload panicked");
    Problem::new(
        500,
        "panic",
        "the upload failed inside kith and was logged; the number stays free",
    )
}

fn accepted(upload: &Upload) -> Result<Answer, Problem> {
    let Upload {
        dataset, version, ..
    } = upload;
    let status = format!("/v1/datasets/{dataset}/versions/{version}");
    let body =
        json!({"dataset": dataset, "version": version, "state": "building", "status": status});
    let mut answer = json_answer(StatusCode::ACCEPTED, &body);
    if let Ok(location) = HeaderValue::from_str(&status) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer.headers_mut().insert(
        "preference-applied",
        HeaderValue::from_static("respond-async"),
    );
    Ok(answer)
}

/// Uploads to one dataset are made one after the other. One may wait for another; more would hold, waiting, the places of
/// uploads to other datasets.
const TURNS: usize = 2;

/// How many uploads to each dataset are under way.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<Name, usize>>);

/// One of them. Dropped, it is over.
#[derive(Debug)]
struct Turn(Arc<Turns>, Name);

impl Turns {
    fn take(self: &Arc<Self>, dataset: &Name) -> Result<Turn, Problem> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = turns.entry(dataset.clone()).or_default();
        if *under_way >= TURNS {
            let detail = format!(
                "{TURNS} uploads to dataset `{dataset}` are under way, one behind the other; try again in some seconds"
            );
            return Err(Problem::new(429, "too_many_uploads", detail));
        }
        *under_way += 1;
        Ok(Turn(Arc::clone(self), dataset.clone()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = turns.get_mut(&self.1) {
            *under_way = under_way.saturating_sub(1);
            if *under_way == 0 {
                turns.remove(&self.1);
            }
        }
    }
}

/// What the upload's thread does.
struct Work {
    state: Arc<AdminState>,
    by: String,
    coding: Coding,
    digest: Option<[u8; 32]>,
    longest: Longest,
    upload: Upload,
}

impl Work {
    fn spool(&self, mut body: BodyReader, mut spool: Spool) -> Result<Spool, Problem> {
        let copied = copy_decoded(
            &mut body,
            self.coding,
            &self.longest,
            self.digest,
            &mut spool,
        );
        match copied {
            Ok(_) => Ok(spool),
            Err(failed) => Err(body.problem().unwrap_or_else(|| failed.into())),
        }
    }

    fn publish(&self, spool: Spool) -> Result<Published, Problem> {
        let now = (self.state.now)();
        let published = self
            .state
            .datasets
            .publish(&self.upload, spool, &self.by, now);
        let (dataset, version, by) = (&self.upload.dataset, self.upload.version, &self.by);
        match published {
            Ok(done) => {
                tracing::info!(%dataset, version, %by, state = ?done.version.state, fresh = done.fresh, "uploaded");
                Ok(done)
            }
            Err(refused) => {
                // What the disk says has nothing of the upload in it; every other text may quote a row, and so an id.
                if let Refused::Storage(_) | Refused::Io(_) = &refused {
                    tracing::error!(%dataset, version, error = %refused, "an upload could not be stored");
                }
                let problem = Problem::from(refused);
                tracing::warn!(%dataset, version, %by, code = problem.code(), "an upload was refused");
                Err(problem)
            }
        }
    }
}

/// Reads what the headers and the query say about the body.
fn parse(
    dataset: Name,
    version: u64,
    headers: &HeaderMap,
    text: Option<&str>,
) -> Result<Upload, Problem> {
    let mut upload = Upload {
        dataset,
        version,
        kind: None,
        mode: Mode::Full,
        base: None,
        as_of: None,
        activate: true,
        format: Format::Document,
    };
    let (mut source, mut segment) = (None, None);
    let mut seen = Vec::new();
    for (key, value) in query(text)? {
        let refused = |takes: &str| {
            Problem::new(
                422,
                "query",
                format!("`{key}={value}` is not understood: {takes}"),
            )
        };
        match key.as_str() {
            "kind" => {
                upload.kind = Some(
                    value
                        .parse()
                        .map_err(|e: crate::ids::KindUnknown| refused(&e.to_string()))?,
                );
            }
            "mode" => {
                upload.mode = match value.as_str() {
                    "full" => Mode::Full,
                    "delta" => Mode::Delta,
                    _ => return Err(refused("mode is full or delta")),
                };
            }
            "base" => {
                let number = value.parse().map_err(|_| refused("base is a version"))?;
                upload.base = Some(number);
            }
            "as_of" => {
                let takes = "as_of is an RFC 3339 time with its offset, or seq:<number>";
                upload.as_of = Some(value.parse().map_err(|_| refused(takes))?);
            }
            "activate" => {
                upload.activate = match value.as_str() {
                    "true" => true,
                    "false" => false,
                    _ => return Err(refused("activate is true or false")),
                };
            }
            "source" => source = Some(value.clone()),
            "segment" => {
                segment = Some(value.parse::<Name>().map_err(|e| refused(&e.to_string()))?);
            }
            _ => {
                return Err(refused(
                    "an upload takes kind, mode, base, as_of, activate, and with text/plain source and segment",
                ));
            }
        }
        if seen.contains(&key) {
            return Err(refused("it is there twice"));
        }
        seen.push(key);
    }
    let media = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .map(|v| v.split(';').next().unwrap_or(v).trim().to_ascii_lowercase());
    upload.format = match (media.as_deref(), source, segment) {
        (Some("text/plain"), Some(source), Some(segment)) => {
            Format::Rows(RowFormat::Text { source, segment })
        }
        (Some("text/plain"), ..) => {
            return Err(Problem::new(
                422,
                "query",
                "text/plain is one id a line; say whose ids and which segment: ?source=ifa&segment=vip",
            ));
        }
        (_, Some(_), _) | (_, _, Some(_)) => {
            return Err(Problem::new(
                422,
                "query",
                "`source` and `segment` belong to text/plain; other formats have them in their rows",
            ));
        }
        (Some("application/vnd.kith.snapshot"), ..) => Format::Snapshot,
        (Some("text/csv"), ..) => Format::Rows(RowFormat::Csv),
        (Some("application/x-ndjson"), ..) => Format::Rows(RowFormat::Ndjson),
        (Some("application/json" | "application/toml"), ..) => Format::Document,
        _ => {
            return Err(Problem::new(
                415,
                "content_type",
                format!("say what the body is by Content-Type: {SUPPORTED}"),
            ));
        }
    };
    Ok(upload)
}

fn prefers_async(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all("prefer").iter();
    all.any(|v| {
        let preferences = v.to_str().unwrap_or_default().split(',');
        preferences
            .map(|p| p.split(';').next().unwrap_or(p).trim())
            .any(|p| p.eq_ignore_ascii_case("respond-async"))
    })
}

/// Asynchronous uploads under way or refused. What became a version is in the manifest, not here.
#[derive(Debug, Default)]
pub(super) struct Jobs(Mutex<VecDeque<(JobKey, Job)>>);

type JobKey = (Name, u64);

#[derive(Debug, Clone)]
enum Job {
    Building,
    Refused(Value),
}

impl Jobs {
    fn begin(&self, key: &JobKey) {
        self.set(key, Some(Job::Building));
    }

    fn end(&self, key: &JobKey, refused: Option<&Problem>) {
        self.set(key, refused.map(|p| Job::Refused(p.to_json())));
    }

    fn get(&self, key: &JobKey) -> Option<Job> {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(jobs.iter().find(|(k, _)| k == key)?.1.clone())
    }

    fn set(&self, key: &JobKey, job: Option<Job>) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|(k, _)| k != key);
        if let Some(job) = job {
            if jobs.len() >= JOBS_MAX {
                jobs.pop_front();
            }
            jobs.push_back((key.clone(), job));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::super::tests::serve;
    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("whole").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_id_in_a_refused_upload_is_not_logged() {
        let service = serve("");
        let work = Work {
            state: Arc::clone(&service.state),
            by: "job".to_owned(),
            coding: Coding::Identity,
            digest: None,
            longest: Longest {
                bytes: 1000,
                limit: String::new(),
            },
            upload: Upload {
                dataset: "crm".parse().expect("a name"),
                version: 1,
                kind: None,
                mode: Mode::Full,
                base: None,
                as_of: None,
                activate: true,
                format: Format::Rows(RowFormat::Csv),
            },
        };
        let mut spool = service.state.datasets.spool().expect("a place");
        spool.write_all(b"ifa,somebodys-id,vip\n").expect("written");
        let log = Log::default();
        let own = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || own.clone())
            .finish();
        let refused = tracing::subscriber::with_default(subscriber, || work.publish(spool));
        assert_eq!(refused.map(|_| ()).expect_err("no header").status(), 422);
        let bytes = log.0.lock().expect("whole").clone();
        let text = String::from_utf8(bytes).expect("text");
        assert!(text.contains("rows_unreadable"), "{text}");
        assert!(!text.contains("somebodys"), "{text}");
    }
}
