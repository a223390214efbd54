//! Asking a running Kith: HTTP to its admin listener.
//!
//! Plain HTTP only. No proxy of the environment is used and no redirect followed, because a token goes along.
//! What comes back is JSON, bounded; a refusal's `detail` becomes the [`Failure`], since it says what to do.

use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, SendBody};

use super::Failure;
use super::text::plain;

const DEFAULT_URL: &str = "http://127.0.0.1:9090";
const URL_VARIABLE: &str = "KITH_ADMIN_URL";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For questions. An upload is built before it is answered, which takes what it takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer: a report of all rejected rows and a thousand errors is far below.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// From this length on we ask before sending, so that a refusal comes before the bytes go.
const ASK_FIRST_BYTES: u64 = 1 << 20;

/// Which Kith, and who asks.
#[derive(Debug, clap::Args)]
pub(super) struct Admin {
    /// Where Kith's admin listener answers [default: $KITH_ADMIN_URL, else http://127.0.0.1:9090]
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// A file that holds the token, where Kith wants one
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A way to one admin listener.
pub(super) struct Client {
    agent: Agent,
    base: String,
    token: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `Null` where the body is not JSON.
    pub(super) body: Value,
    text: String,
}

/// What a body is, for those who take it.
#[derive(Debug, Default)]
pub(super) struct BodyHeaders {
    pub(super) media_type: &'static str,
    pub(super) coding: Option<&'static str>,
    /// SHA-256 of the body as it is sent, in base64.
    pub(super) digest: Option<String>,
    /// Bytes; sent in chunks where not known.
    pub(super) length: Option<u64>,
}

impl Client {
    pub(super) fn new(admin: &Admin) -> Result<Self, Failure> {
        let said = admin.to.clone().or_else(from_environment);
        let base = base(said.as_deref().unwrap_or(DEFAULT_URL))?;
        let token = match &admin.token_file {
            None => None,
            Some(path) => Some(token(path)?),
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent(concat!("kith/", env!("CARGO_PKG_VERSION")));
        Ok(Self {
            agent: config.build().new_agent(),
            base,
            token,
        })
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer, Failure> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        let request = request.config().timeout_global(Some(ANSWER_TIMEOUT));
        self.answer(request.build().call())
    }

    pub(super) fn post(
        &self,
        path: &str,
        media_type: &str,
        body: &[u8],
    ) -> Result<Answer, Failure> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        let request = request.content_type(media_type).config();
        let request = request.timeout_global(Some(ANSWER_TIMEOUT));
        self.answer(request.build().send(body))
    }

    /// Sends a body while it is read, and waits as long as the answer takes.
    pub(super) fn put(
        &self,
        path: &str,
        headers: &BodyHeaders,
        body: &mut dyn Read,
    ) -> Result<Answer, Failure> {
        let mut request = self.agent.put(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        request = request.content_type(headers.media_type);
        if let Some(coding) = headers.coding {
            request = request.header("content-encoding", coding);
        }
        if let Some(digest) = &headers.digest {
            request = request.header("content-digest", format!("sha-256=:{digest}:"));
        }
        if let Some(length) = headers.length {
            request = request.header("content-length", length.to_string());
        }
        if headers
            .length
            .is_none_or(|length| length >= ASK_FIRST_BYTES)
        {
            request = request.header("expect", "100-continue");
        }
        self.answer(request.send(SendBody::from_reader(body)))
    }

    fn answer(&self, answered: Result<Response<Body>, ureq::Error>) -> Result<Answer, Failure> {
        let mut response = answered.map_err(|e| self.unanswered(e))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        let bytes = body.read_to_vec().map_err(|e| self.unanswered(e))?;
        Ok(Answer {
            status,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        })
    }

    fn unanswered(&self, error: ureq::Error) -> Failure {
        let base = &self.base;
        let elsewhere = "start one with `kith serve`, or say with --to where its admin listener is";
        match error {
            ureq::Error::Io(e) => match e.kind() {
                ErrorKind::ConnectionRefused => Failure::new(format!(
                    "no Kith answers at {base} (connection refused): {elsewhere}"
                )),
                ErrorKind::BrokenPipe
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted => Failure::new(format!(
                    "{base} closed the connection before it answered ({e}): see the log of the Kith there for why, then try again"
                )),
                _ => Failure::new(format!("asking {base} failed: {e}")),
            },
            ureq::Error::HostNotFound => {
                Failure::new(format!("the host of {base} is not known: {elsewhere}"))
            }
            ureq::Error::ConnectionFailed => {
                Failure::new(format!("no Kith answers at {base}: {elsewhere}"))
            }
            ureq::Error::Timeout(_) => Failure::new(format!(
                "{base} did not answer in time: ask its /healthz, or see its log"
            )),
            other => Failure::new(format!(
                "asking {base} failed: {other}; is that Kith's admin listener?"
            )),
        }
    }
}

impl Answer {
    /// The body of a 2xx; otherwise why not.
    pub(super) fn ok(self) -> Result<Value, Failure> {
        match self.status {
            200..=299 if !self.body.is_null() => Ok(self.body),
            _ => Err(self.refusal()),
        }
    }

    /// Why not, in the words of whoever refused.
    pub(super) fn refusal(&self) -> Failure {
        let text = |key: &str| self.body.get(key).and_then(Value::as_str);
        let status = self.status;
        let failure = match text("detail").or_else(|| text("title")) {
            Some(detail) => Failure::new(format!("{} ({status})", plain(detail))),
            None => {
                let start: String = plain(self.text.trim()).chars().take(200).collect();
                Failure::new(format!(
                    "the answer is {status} and not one of Kith's: is that its admin listener? {start}"
                ))
            }
        };
        if status == 401 {
            return failure.and("give the token with --token-file FILE");
        }
        failure
    }
}

/// The one variable of the environment that the command line itself reads.
#[expect(
    clippy::disallowed_methods,
    reason = "no setting of the service: it says which service to ask"
)]
fn from_environment() -> Option<String> {
    let url = std::env::var_os(URL_VARIABLE)?;
    Some(url.to_string_lossy().into_owned()).filter(|url| !url.is_empty())
}

/// A URL to put paths behind.
fn base(url: &str) -> Result<String, Failure> {
    let wrong = |why: &str| Failure::usage(format!("{}: {why}", plain(url)));
    let uri: Uri = url
        .trim()
        .trim_end_matches('/')
        .parse()
        .map_err(|_| wrong("is no URL; write it like http://127.0.0.1:9090"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(wrong(
                "kith speaks no TLS; use http to Kith itself, or to a tunnel (ssh -L, a sidecar) on this machine",
            ));
        }
        _ => return Err(wrong("must begin with http://, like http://127.0.0.1:9090")),
    }
    let authority = uri.authority().map_or("", |a| a.as_str());
    if authority.is_empty() || authority.contains('@') || uri.query().is_some() {
        return Err(wrong(
            "must be only http://, a host, a port and perhaps a path",
        ));
    }
    Ok(format!(
        "http://{authority}{}",
        uri.path().trim_end_matches('/')
    ))
}

/// The `Authorization` of a token file, which holds the token and perhaps a line end.
fn token(path: &std::path::Path) -> Result<String, Failure> {
    let told = |e: io::Error| Failure::new(format!("token file {}: {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(told)?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Failure::new(format!(
            "token file {} must hold the token and nothing else",
            path.display()
        )));
    }
    Ok(format!("Bearer {token}"))
}

/// One part of a path, with everything escaped that could mean something there (RFC 3986).
pub(super) fn escaped(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_http_and_nothing_behind_its_path() {
        for (url, want) in [
            ("http://127.0.0.1:9090", Some("http://127.0.0.1:9090")),
            ("http://[::1]:9090/", Some("http://[::1]:9090")),
            ("http://host/kith/", Some("http://host/kith")),
            ("https://host", None),
            ("127.0.0.1:9090", None),
            ("host", None),
            ("http://user:pass@host", None),
            ("http://host/?a=b", None),
            ("", None),
        ] {
            assert_eq!(base(url).ok().as_deref(), want, "{url}");
        }
    }

    #[test]
    fn parts_of_a_path_stay_one_part() {
        assert_eq!(escaped("exchange:a/b c%é"), "exchange%3Aa%2Fb%20c%25%C3%A9");
        assert_eq!(escaped("uidapi.com"), "uidapi.com");
    }
}
