//! Listing, activating, pinning, deleting.

use std::time::Duration;

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::routes::{Answer, Asked, json as json_answer, shown};
use tokio::sync::oneshot;

use super::{Problem, body};
use crate::config::Role;
use crate::ids::Name;
use crate::priority;

/// Every dataset that the caller's token covers.
pub(super) fn list(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let datasets = &asked.shared.state.datasets;
    shown(
        StatusCode::OK,
        &datasets.list(|name| asked.caller.covers(name)),
    )
}

/// One dataset.
pub(super) fn one(asked: &Asked<'_>, name: &Name) -> Result<Answer, Problem> {
    asked.caller.may(Role::Read, name)?;
    shown(StatusCode::OK, &asked.shared.state.datasets.dataset(name)?)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Activate {
    version: u64,
    #[serde(default)]
    force: bool,
}

/// `{"version": n, "force": true}`.
pub(super) async fn activate(asked: &mut Asked<'_>, name: Name) -> Result<Answer, Problem> {
    asked.caller.may(Role::Upload, &name)?;
    let Activate { version, force } = document(
        asked,
        "{\"version\": n}, with \"force\": true where need be",
    )
    .await?;
    if force {
        asked.caller.may(Role::Operate, &name)?;
    }
    let by = asked.caller.name.clone();
    let done = blocking(asked, move |state| {
        state
            .datasets
            .activate(&name, version, force, &by, (state.now)())
    })
    .await?;
    let mut answer = serde_json::to_value(done).map_err(|e| {
        Problem::new(
            500,
            "answer",
            format!("the answer could not be written: {e}"),
        )
    })?;
    answer["state"] = json!("active");
    Ok(json_answer(StatusCode::OK, &answer))
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Pin {
    version: Option<u64>,
}

/// Perhaps `{"version": n}`, which must be live.
pub(super) async fn pin(asked: &mut Asked<'_>, name: Name) -> Result<Answer, Problem> {
    asked.caller.may(Role::Operate, &name)?;
    let Pin { version } = document(asked, "nothing, or {\"version\": n}").await?;
    let by = asked.caller.name.clone();
    let dataset = blocking(asked, move |state| {
        state.datasets.pin(&name, version, &by, (state.now)())?;
        state.datasets.dataset(&name)
    })
    .await?;
    shown(StatusCode::OK, &dataset)
}

/// No body.
pub(super) async fn unpin(asked: &Asked<'_>, name: Name) -> Result<Answer, Problem> {
    asked.caller.may(Role::Operate, &name)?;
    let by = asked.caller.name.clone();
    let dataset = blocking(asked, move |state| {
        state.datasets.unpin(&name, &by, (state.now)())?;
        state.datasets.dataset(&name)
    })
    .await?;
    shown(StatusCode::OK, &dataset)
}

/// Removes a version that is not live.
pub(super) async fn delete(asked: &Asked<'_>, name: Name, number: u64) -> Result<Answer, Problem> {
    asked.caller.may(Role::Operate, &name)?;
    let by = asked.caller.name.clone();
    let dataset = blocking(asked, move |state| {
        state.datasets.delete(&name, number, &by, (state.now)())?;
        state.datasets.dataset(&name)
    })
    .await?;
    shown(StatusCode::OK, &dataset)
}

/// A small JSON document; an empty body is `{}`.
pub(super) async fn document<T: DeserializeOwned>(
    asked: &mut Asked<'_>,
    takes: &str,
) -> Result<T, Problem> {
    let limits = &asked.shared.state.limits;
    let within = Duration::from_millis(limits.body_timeout_ms);
    let bytes_max = limits.admin_body_bytes;
    let sent = body::collect(asked.body, bytes_max, "limits.admin_body_bytes", within).await?;
    let text = if sent.is_empty() {
        b"{}"
    } else {
        sent.as_slice()
    };
    serde_json::from_slice(text)
        .map_err(|e| Problem::new(422, "body", format!("the body is {takes}: {e}")))
}

/// A text of lines.
pub(super) async fn lines(asked: &mut Asked<'_>) -> Result<String, Problem> {
    let limits = &asked.shared.state.limits;
    let within = Duration::from_millis(limits.body_timeout_ms);
    let bytes_max = limits.admin_body_bytes;
    let sent = body::collect(asked.body, bytes_max, "limits.admin_body_bytes", within).await?;
    let not_utf8 = |_| Problem::new(422, "body", "the body is not UTF-8");
    String::from_utf8(sent).map_err(not_utf8)
}

/// Runs what waits for the disk where it may wait.
pub(super) async fn blocking<R: Send + 'static, E: Into<Problem> + Send + 'static>(
    asked: &Asked<'_>,
    work: impl FnOnce(&super::AdminState) -> Result<R, E> + Send + 'static,
) -> Result<R, Problem> {
    let state = std::sync::Arc::clone(&asked.shared.state);
    let (done, when_done) = oneshot::channel();
    // A thread of its own, for it does not come back from where it gives way to.
    let thread = std::thread::Builder::new().name("kith-switch".to_owned());
    let spawned = thread.spawn(move || {
        priority::give_way();
        let _ = done.send(work(&state));
    });
    spawned.map_err(|e| Problem::new(503, "threads", format!("no thread for the call: {e}")))?;
    match when_done.await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => {
            tracing::error!("an admin call panicked");
            Err(Problem::new(
                500,
                "panic",
                "this failed inside kith and was logged; nothing has changed",
            ))
        }
    }
}
