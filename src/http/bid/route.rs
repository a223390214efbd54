//! What a request's head says, judged by pure functions: whose path it is, and in what form the body comes.
#![deny(clippy::indexing_slicing)]

use std::net::IpAddr;

use hyper::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING,
};
use hyper::{Method, StatusCode, Version};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Refused;
use crate::config::{Exchange, Exchanges};
use crate::ledger::Kind;

/// How a body is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
}

/// A request that will not be asked about: whose it is where known, the status, and what is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) exchange: Option<usize>,
    pub(super) status: StatusCode,
    pub(super) why: Refused,
}

/// The exchange (by index) that may be asked, and how its body is coded.
pub(super) fn route(
    exchanges: &Exchanges,
    caller: IpAddr,
    method: &Method,
    path: &str,
    said: &Said,
) -> Result<(usize, Coding), Refusal> {
    let refuse = |exchange, status, why| Refusal {
        exchange,
        status,
        why,
    };
    let unknown = refuse(None, StatusCode::NOT_FOUND, Refused::Path);
    let (name, key) = bid_path(path).ok_or(unknown)?;
    let exchange = exchanges.get(name).ok_or(unknown)?;
    let whose = Some(exchange.index);
    if !key_fits(exchange, key) {
        return Err(refuse(whose, StatusCode::NOT_FOUND, Refused::Key));
    }
    if !exchange.allow.is_empty() && !exchange.allow.iter().any(|net| net.contains(&caller)) {
        return Err(refuse(whose, StatusCode::FORBIDDEN, Refused::Caller));
    }
    if method != Method::POST {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(refuse(whose, status, Refused::Method));
    }
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    if !said.json {
        return Err(refuse(whose, status, Refused::ContentType));
    }
    let coding = said
        .coding
        .ok_or(refuse(whose, status, Refused::ContentEncoding))?;
    Ok((exchange.index, coding))
}

/// Name and key of `/bid/{exchange}` or `/bid/{exchange}/{key}`, taken literally: names need no percent-decoding.
fn bid_path(path: &str) -> Option<(&str, Option<&str>)> {
    let rest = path.strip_prefix("/bid/")?;
    Some(match rest.split_once('/') {
        Some((name, key)) => (name, Some(key)),
        None => (rest, None),
    })
}

/// Kind and token of `/n/{win|bill|loss}/{token}` or `/c/{token}`.
pub(super) fn notice_path(path: &str) -> Option<(Kind, &str)> {
    if let Some(token) = path.strip_prefix("/c/") {
        return Some((Kind::Click, token));
    }
    let (word, token) = path.strip_prefix("/n/")?.split_once('/')?;
    let mut kinds = [Kind::Win, Kind::Bill, Kind::Loss].into_iter();
    Some((kinds.find(|kind| kind.as_str() == word)?, token))
}

fn key_fits(exchange: &Exchange, key: Option<&str>) -> bool {
    match (&exchange.path_key_sha256, key) {
        (None, None) => true,
        (Some(want), Some(key)) => {
            let given = Sha256::digest(key.as_bytes());
            bool::from(given.as_slice().ct_eq(want.as_slice()))
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// What the header lines say that a request is judged by, gathered in one walk: a look into the map for each costs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    hosts: usize,
    transfer_codings: usize,
    /// The last transfer coding is `chunked`.
    chunked: bool,
    /// No `Content-Type`, or only ones of JSON.
    json: bool,
    /// Nothing where the body's coding is one that we do not read.
    coding: Option<Coding>,
}

impl Said {
    pub(super) fn by(headers: &HeaderMap) -> Self {
        let mut said = Self {
            hosts: 0,
            transfer_codings: 0,
            chunked: false,
            json: true,
            coding: Some(Coding::Identity),
        };
        for (name, value) in headers {
            if name == HOST {
                said.hosts = said.hosts.saturating_add(1);
            } else if name == CONTENT_TYPE {
                said.json &= is_json(value);
            } else if name == CONTENT_ENCODING {
                said.coding = said.coding.and_then(|before| coding(before, value));
            } else if name == TRANSFER_ENCODING {
                said.transfer_codings = said.transfer_codings.saturating_add(1);
                said.chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
            }
        }
        said
    }

    /// What RFC 9112 wants of a head and hyper lets pass: one `Host` in HTTP/1.1 (§3.2), and no transfer coding but one
    /// `chunked` (§6.1; its 501 for others is a 400 here, as we answer no 5xx).
    pub(super) fn framing_is_strict(&self, version: Version, chunked: bool) -> bool {
        (version != Version::HTTP_11 || self.hosts == 1)
            && (!chunked || self.transfer_codings == 1 && self.chunked)
    }
}

/// Empty, `application/json` or `application/*+json`, whatever its parameters.
fn is_json(value: &HeaderValue) -> bool {
    // As nearly all say it.
    if value == "application/json" {
        return true;
    }
    let Ok(text) = value.to_str() else {
        return false;
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    essence.is_empty() || is_json_type(essence.as_bytes())
}

fn is_json_type(essence: &[u8]) -> bool {
    const APPLICATION: &[u8] = b"application/";
    let Some((kind, name)) = essence.split_at_checked(APPLICATION.len()) else {
        return false;
    };
    kind.eq_ignore_ascii_case(APPLICATION)
        && (name.eq_ignore_ascii_case(b"json")
            || name
                .split_last_chunk::<5>()
                .is_some_and(|(_, end)| end.eq_ignore_ascii_case(b"+json")))
}

/// Nothing or `identity`, or gzip once; `x-gzip` is its older name (RFC 9110 §8.4.1.3). What this line adds to those before.
fn coding(before: Coding, value: &HeaderValue) -> Option<Coding> {
    let mut found = before;
    for token in value.to_str().ok()?.split(',').map(str::trim) {
        if token.is_empty() || token.eq_ignore_ascii_case("identity") {
            continue;
        }
        let gzip = token.eq_ignore_ascii_case("gzip") || token.eq_ignore_ascii_case("x-gzip");
        if !gzip || found == Coding::Gzip {
            return None;
        }
        found = Coding::Gzip;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: hyper::header::HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn content_types() {
        for good in [
            &[][..],
            &[""],
            &["application/json"],
            &["Application/JSON ; charset=UTF-8"],
            &["application/json;charset=utf-8"],
            &["  application/json  "],
            &["application/openrtb+json"],
            &["application/vnd.x+JSON;v=1"],
        ] {
            assert!(Said::by(&with(CONTENT_TYPE, good)).json, "{good:?}");
        }
        for bad in [
            &["application/x-protobuf"][..],
            &["avro/binary"],
            &["text/plain"],
            &["application/jsonp"],
            &["application/"],
            &["json"],
            &["application/json, text/plain"],
            &["application/json", "application/x-protobuf"],
        ] {
            assert!(!Said::by(&with(CONTENT_TYPE, bad)).json, "{bad:?}");
        }
    }

    #[test]
    fn content_encodings() {
        for (values, want) in [
            (&[][..], Some(Coding::Identity)),
            (&[""], Some(Coding::Identity)),
            (&["Identity"], Some(Coding::Identity)),
            (&["gzip"], Some(Coding::Gzip)),
            (&[" GZip "], Some(Coding::Gzip)),
            (&["x-gzip"], Some(Coding::Gzip)),
            (&["identity, gzip"], Some(Coding::Gzip)),
            (&["gzip, gzip"], None),
            (&["gzip", "gzip"], None),
            (&["br"], None),
            (&["deflate"], None),
            (&["gzip, br"], None),
        ] {
            let said = Said::by(&with(CONTENT_ENCODING, values));
            assert_eq!(said.coding, want, "{values:?}");
        }
    }

    #[test]
    fn paths() {
        assert_eq!(bid_path("/bid/demo"), Some(("demo", None)));
        assert_eq!(bid_path("/bid/demo/"), Some(("demo", Some(""))));
        assert_eq!(bid_path("/bid/demo/k/x"), Some(("demo", Some("k/x"))));
        for bad in ["/bid", "/", "", "/Bid/demo", "/bids/demo", "bid/demo"] {
            assert_eq!(bid_path(bad), None, "{bad:?}");
            assert_eq!(notice_path(bad), None, "{bad:?}");
        }
        assert_eq!(notice_path("/n/win/a-b_"), Some((Kind::Win, "a-b_")));
        assert_eq!(notice_path("/n/bill/"), Some((Kind::Bill, "")));
        assert_eq!(notice_path("/n/loss/a/b"), Some((Kind::Loss, "a/b")));
        assert_eq!(notice_path("/c/x"), Some((Kind::Click, "x")));
        for bad in ["/n", "/n/win", "/n/Win/x", "/n/click/x", "/c", "/n/won/x"] {
            assert_eq!(notice_path(bad), None, "{bad:?}");
        }
    }
}
