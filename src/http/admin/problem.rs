//! A refusal as `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, and `code` for scripts.
//!
//! The detail tells what to do. It is the client's text: what an operator should know beyond it goes to the log.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::datasets::Refused;
use crate::storage::StorageError;

/// What a refused request is answered with.
#[derive(Debug, Clone)]
pub struct Problem {
    status: u16,
    code: &'static str,
    detail: String,
    more: Map<String, Value>,
    allow: Option<&'static str>,
}

impl Problem {
    /// A refusal. `code` is a stable word for scripts, `detail` a sentence that says what to do.
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem {
            status,
            code,
            detail: detail.into(),
            more: Map::new(),
            allow: None,
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The stable word.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// With one more member.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Problem {
        self.more.insert(member.to_owned(), value.into());
        self
    }

    pub(super) fn unauthorized(detail: &str) -> Problem {
        Problem::new(401, "unauthorized", detail)
    }

    pub(super) fn method(allow: &'static str) -> Problem {
        let detail = format!("this resource takes {allow}");
        Problem {
            allow: Some(allow),
            ..Problem::new(405, "method_not_allowed", detail)
        }
    }

    /// As JSON.
    pub(super) fn to_json(&self) -> Value {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut members = self.more.clone();
        members.insert("type".to_owned(), json!("about:blank"));
        members.insert("title".to_owned(), json!(status.canonical_reason()));
        members.insert("status".to_owned(), json!(status.as_u16()));
        members.insert("code".to_owned(), json!(self.code));
        members.insert("detail".to_owned(), json!(self.detail));
        Value::Object(members)
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.to_json().to_string())));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.status == 401 {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.status, 429 | 503) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        let (status, code) = match &refused {
            Refused::Recovering => (503, "recovering"),
            Refused::UnknownDataset(_) => (404, "unknown_dataset"),
            Refused::UnknownVersion { .. } => (404, "unknown_version"),
            Refused::VersionNumber => (422, "version_number"),
            Refused::BelowNewest { .. } => (409, "below_newest"),
            Refused::Deleted { .. } => (409, "deleted"),
            Refused::OtherBytes { .. } => (409, "other_bytes"),
            Refused::OtherQuery { .. } => (409, "other_parameters"),
            Refused::OtherKind { .. } => (409, "other_kind"),
            Refused::CampaignsElsewhere => (422, "campaigns_elsewhere"),
            Refused::Base => (422, "base"),
            Refused::BaseNotLive { .. } => (409, "base_not_live"),
            Refused::BaseUnreadable { .. } => (409, "base_unreadable"),
            Refused::NoDeltas(_) | Refused::NoDeltasOfPersons => (422, "no_deltas"),
            Refused::Delta(_) => (422, "delta"),
            Refused::OtherMode { .. } => (422, "other_mode"),
            Refused::Needed { .. } => (409, "needed"),
            Refused::FormatOfKind { .. } => (415, "format_of_kind"),
            Refused::TooManyDatasets(_) => (422, "too_many_datasets"),
            Refused::AsOfFuture(_) => (422, "as_of_future"),
            Refused::AsOfDiffers { .. } => (422, "as_of_differs"),
            Refused::Rows(_) => (422, "rows_unreadable"),
            Refused::NoGoodRow(_) => (422, "no_good_row"),
            Refused::TooManySegments { .. } => (422, "too_many_segments"),
            Refused::Snapshot(_) => (422, "snapshot_unreadable"),
            Refused::OtherKey { .. } => (422, "other_key"),
            Refused::OtherVersion { .. } => (422, "other_version"),
            Refused::Document(_) => (422, "document"),
            Refused::DocumentTooLong(_) => (413, "too_long"),
            Refused::Pinned { .. } => (409, "pinned"),
            Refused::Held { .. } => (409, "held"),
            Refused::NothingLive(_) => (409, "nothing_live"),
            Refused::NotLive { .. } => (409, "not_live"),
            Refused::Live { .. } => (409, "live"),
            Refused::Unreadable { .. } => (500, "version_unreadable"),
            Refused::Memory { .. } => (507, "memory"),
            Refused::Storage(error) if error.is_full() => (507, "storage_full"),
            Refused::Storage(_) => (503, "storage"),
            Refused::Io(error) if crate::storage::is_full(error) => (507, "storage_full"),
            Refused::Io(_) => (503, "storage"),
            Refused::Build(_) => (500, "build"),
        };
        let problem = Problem::new(status, code, detail(&refused));
        match refused {
            Refused::Document(errors) => problem.with("errors", listed(&errors)),
            Refused::OtherBytes { known, given, .. } => {
                problem.with("expected", known).with("actual", given)
            }
            Refused::NoGoodRow(rows) => problem
                .with("rejected_rows", rows.rejected_rows)
                .with("rejected", listed(&rows.rejected)),
            _ => problem,
        }
    }
}

/// What the client is told. Where things lie on the server is not its business, and is in the log.
fn detail(refused: &Refused) -> String {
    let cause = match refused {
        Refused::Storage(StorageError::Io { source, .. }) | Refused::Io(source) => source,
        other => return other.to_string(),
    };
    if crate::storage::is_full(cause) {
        return "the disk that data.dir is on is full; delete versions that nobody needs or free space otherwise, then send it again".to_owned();
    }
    format!(
        "the disk failed ({cause}) and nothing has changed; check the disk that data.dir is on, then send it again"
    )
}

/// Errors as a member; what is listed serialises.
fn listed(errors: &[impl serde::Serialize]) -> Value {
    serde_json::to_value(errors).unwrap_or_default()
}
