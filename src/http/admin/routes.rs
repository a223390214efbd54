//! From a request line to what is asked: paths, methods, queries, each piece checked once.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, EXPECT, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use prometheus::{Encoder as _, TextEncoder};
use serde_json::Value;

use super::access::Caller;
use super::encoding::{Coding, Longest, copy_decoded};
use super::{Problem, Shared, body, money, people, put, switches};
use crate::config::Role;
use crate::ids::Name;
use crate::people::Kind;

pub(super) type Answer = Response<Full<Bytes>>;

/// What every route gets.
pub(super) struct Asked<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) head: &'a Parts,
    pub(super) body: &'a mut Incoming,
    pub(super) caller: Caller,
}

/// Answers one request.
pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let (head, mut body) = request.into_parts();
    let answer = route(&shared, &head, &mut body).await;
    // Who waits for a 100 has sent nothing, and after a final status never will.
    if !head.headers.contains_key(EXPECT) {
        body::drain(body);
    }
    Ok(answer.unwrap_or_else(Problem::into_response))
}

async fn route(shared: &Arc<Shared>, head: &Parts, body: &mut Incoming) -> Result<Answer, Problem> {
    let method = match head.method {
        Method::HEAD => &Method::GET,
        ref other => other,
    };
    let path = path(head.uri.path())?;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let open = match path.as_slice() {
        [""] => Some(front as fn(&Shared) -> Answer),
        ["healthz"] => Some((|_| text("ok\n")) as fn(&Shared) -> Answer),
        ["readyz"] => Some(ready as fn(&Shared) -> Answer),
        ["metrics"] => Some(metrics as fn(&Shared) -> Answer),
        _ => None,
    };
    if let Some(open) = open {
        only(method, &Method::GET, "GET, HEAD")?;
        return Ok(open(shared));
    }
    let mut asked = Asked {
        caller: Caller::of(&shared.state.tokens, &head.headers)?,
        shared,
        head,
        body,
    };
    match path.as_slice() {
        ["v1", "datasets"] => {
            only(method, &Method::GET, "GET, HEAD")?;
            switches::list(&asked)
        }
        ["v1", "datasets", dataset] => {
            only(method, &Method::GET, "GET, HEAD")?;
            switches::one(&asked, &name(dataset)?)
        }
        ["v1", "datasets", dataset, "versions", number] => {
            let (dataset, number) = (name(dataset)?, version(number)?);
            match *method {
                Method::GET => put::status(&asked, &dataset, number),
                Method::PUT => put::upload(&mut asked, dataset, number).await,
                Method::DELETE => switches::delete(&asked, dataset, number).await,
                _ => Err(Problem::method("GET, HEAD, PUT, DELETE")),
            }
        }
        [
            "v1",
            "datasets",
            dataset,
            switch @ ("activate" | "pin" | "unpin"),
        ] => {
            only(method, &Method::POST, "POST")?;
            let dataset = name(dataset)?;
            match *switch {
                "activate" => switches::activate(&mut asked, dataset).await,
                "pin" => switches::pin(&mut asked, dataset).await,
                _ => switches::unpin(&asked, dataset).await,
            }
        }
        ["v1", "users", source, id] => match *method {
            Method::GET => {
                asked.caller.may_everywhere(Role::Read)?;
                if asked.shared.state.people.is_some() {
                    people::people(&asked)?;
                }
                let (source, id) = ((*source).to_owned(), (*id).to_owned());
                let shown = switches::blocking(&asked, move |state| -> Result<Value, Problem> {
                    Ok((state.lenses.user)(&source, &id))
                });
                Ok(json(StatusCode::OK, &shown.await?))
            }
            Method::DELETE => people::erase(&asked, source, id).await,
            _ => Err(Problem::method("GET, HEAD, DELETE")),
        },
        ["v1", rows @ ("users" | "links")] => {
            only(method, &Method::POST, "POST")?;
            let kind = match *rows {
                "users" => Kind::Updates,
                _ => Kind::Links,
            };
            people::rows(&mut asked, kind).await
        }
        ["v1", "optouts"] => {
            only(method, &Method::POST, "POST")?;
            people::opt_outs(&mut asked).await
        }
        ["v1", "journal"] => {
            only(method, &Method::GET, "GET, HEAD")?;
            people::journal(&asked).await
        }
        ["v1", "explain", exchange] => {
            only(method, &Method::POST, "POST")?;
            explain(&mut asked, exchange).await
        }
        ["v1", "report"] => {
            only(method, &Method::GET, "GET, HEAD")?;
            money::report(&asked).await
        }
        ["v1", "budgets"] => {
            only(method, &Method::GET, "GET, HEAD")?;
            money::budgets(&asked).await
        }
        ["v1", "switches"] => money::switches(&mut asked, method).await,
        ["v1", "exposures"] => {
            only(method, &Method::POST, "POST")?;
            money::exposures(&mut asked).await
        }
        _ => Err(Problem::new(
            404,
            "no_such_resource",
            "there is nothing under this path; GET / lists what there is",
        )),
    }
}

async fn explain(asked: &mut Asked<'_>, exchange: &str) -> Result<Answer, Problem> {
    asked.caller.may_everywhere(Role::Read)?;
    let limits = &asked.shared.state.limits;
    let coding = Coding::of(&asked.head.headers)?;
    let within = Duration::from_millis(limits.body_timeout_ms);
    let bytes_max = limits.bid_body_bytes;
    let sent = body::collect(asked.body, bytes_max, "limits.bid_body_bytes", within).await?;
    let mut request = Vec::new();
    copy_decoded(
        &mut sent.as_slice(),
        coding,
        &Longest {
            bytes: bytes_max as u64,
            limit: "limits.bid_body_bytes".to_owned(),
        },
        None,
        &mut request,
    )?;
    let explained = (asked.shared.state.lenses.explain)(exchange, &request)?;
    Ok(json(StatusCode::OK, &explained))
}

fn ready(shared: &Shared) -> Answer {
    let state = &shared.state;
    let ready = state.datasets.readiness().map_err(|e| e.to_string());
    match ready.and_then(|()| (state.ready)()) {
        Ok(()) => text("ready\n"),
        Err(reason) => Problem::new(503, "not_ready", reason).into_response(),
    }
}

fn metrics(shared: &Shared) -> Answer {
    let encoder = TextEncoder::new();
    let mut page = Vec::new();
    if let Err(error) = encoder.encode(&shared.state.registry.gather(), &mut page) {
        return Problem::new(500, "metrics", error.to_string()).into_response();
    }
    typed(StatusCode::OK, "text/plain; version=0.0.4", page)
}

fn front(_: &Shared) -> Answer {
    const PAGE: &str = "<!doctype html><title>kith</title><h1>kith</h1><p>The audience brain of a bidder.<ul>\
<li><a href=\"/healthz\">/healthz</a> alive\
<li><a href=\"/readyz\">/readyz</a> ready\
<li><a href=\"/metrics\">/metrics</a> for Prometheus\
<li><a href=\"/v1/datasets\">/v1/datasets</a>, /v1/datasets/{name}, /v1/datasets/{name}/versions/{n}\
<li>PUT or DELETE /v1/datasets/{name}/versions/{n}\
<li>POST /v1/datasets/{name}/activate, pin, unpin\
<li>POST /v1/users, POST /v1/links, POST /v1/optouts\
<li>GET or DELETE /v1/users/{source}/{id}\
<li>GET /v1/journal?after=…\
<li>POST /v1/explain/{exchange}\
<li>GET /v1/report?by=line_item,hour&amp;from=…&amp;until=…&amp;format=csv\
<li>GET /v1/budgets, GET or POST /v1/switches\
<li>POST /v1/exposures\
</ul>\n";
    typed(
        StatusCode::OK,
        "text/html; charset=utf-8",
        PAGE.as_bytes().to_vec(),
    )
}

fn text(text: &str) -> Answer {
    typed(
        StatusCode::OK,
        "text/plain; charset=utf-8",
        text.as_bytes().to_vec(),
    )
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    typed(status, "application/json", value.to_string().into_bytes())
}

/// Something serialisable as a JSON answer.
pub(super) fn shown(status: StatusCode, value: &impl serde::Serialize) -> Result<Answer, Problem> {
    let value = serde_json::to_value(value).map_err(|e| {
        Problem::new(
            500,
            "answer",
            format!("the answer could not be written: {e}"),
        )
    })?;
    Ok(json(status, &value))
}

/// A text of some type.
pub(super) fn text_as(kind: &'static str, text: String) -> Answer {
    typed(StatusCode::OK, kind, text.into_bytes())
}

fn typed(status: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn only(method: &Method, takes: &Method, allow: &'static str) -> Result<(), Problem> {
    if method == takes {
        Ok(())
    } else {
        Err(Problem::method(allow))
    }
}

/// The pieces of a path, each decoded after splitting, so that an encoded `/` stays inside its piece.
fn path(path: &str) -> Result<Vec<String>, Problem> {
    let pieces = path.strip_prefix('/').unwrap_or(path).split('/');
    pieces.map(decoded).collect()
}

/// The parameters of a query, decoded. `+` means itself: times have one, and no value has spaces.
pub(super) fn query(query: Option<&str>) -> Result<Vec<(String, String)>, Problem> {
    let pairs = query
        .unwrap_or_default()
        .split('&')
        .filter(|p| !p.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(key)?, decoded(value)?))
        })
        .collect()
}

/// Undoes percent-encoding; 400 where it is malformed or not UTF-8.
fn decoded(piece: &str) -> Result<String, Problem> {
    let malformed = || Problem::new(400, "url", "the URL's percent-encoding is malformed");
    let mut bytes = Vec::with_capacity(piece.len());
    let mut rest = piece.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = digit().zip(digit()).ok_or_else(malformed)?;
            bytes.push(u8::try_from(high << 4 | low).map_err(|_| malformed())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

fn name(piece: &str) -> Result<Name, Problem> {
    piece
        .parse()
        .map_err(|e: crate::ids::NameRefused| Problem::new(422, "name", e.to_string()))
}

fn version(piece: &str) -> Result<u64, Problem> {
    let plain = !piece.is_empty() && piece.bytes().all(|b| b.is_ascii_digit());
    plain
        .then(|| piece.parse().ok())
        .flatten()
        .ok_or_else(|| crate::datasets::Refused::VersionNumber.into())
}
