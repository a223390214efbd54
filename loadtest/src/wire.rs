//! The bytes: requests made once, answers read where they lie.
//!
//! A generator that shares its machine with the server must not take the server's time. So each request is made
//! before the run, head and body in one piece, and sending is one `write` of a slice; an answer is read into its
//! connection's buffer by one `read` and judged there. What an answer means is decided by its status, and of a 200 by one
//! pass over its body and two searches of it. Nothing here allocates.
//! Memory: the requests' file once for every URL.

use std::ops::Range;

use memchr::memmem;
use serde::de::IgnoredAny;

/// Header lines of an answer that are read; more is a malformed answer.
const HEADERS_MAX: usize = 64;
/// Bytes of one answer, head and body; more is a malformed answer.
pub(crate) const ANSWER_BYTES_MAX: usize = 4 << 20;

/// All requests to one URL, ready to be written.
#[derive(Debug)]
pub(crate) struct Requests {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Requests {
    /// POST requests with each of `bodies`, to `path` at `host`.
    pub(crate) fn new(path: &str, host: &str, headers: &[String], bodies: &[Vec<u8>]) -> Self {
        let mut bytes = Vec::new();
        let mut lines = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nx-openrtb-version: 2.6\r\n"
        );
        for header in headers {
            lines.push_str(header);
            lines.push_str("\r\n");
        }
        let ranges = bodies
            .iter()
            .map(|body| {
                let begins = bytes.len();
                bytes.extend_from_slice(lines.as_bytes());
                bytes.extend_from_slice(
                    format!("content-length: {}\r\n\r\n", body.len()).as_bytes(),
                );
                bytes.extend_from_slice(body);
                begins..bytes.len()
            })
            .collect();
        Self { bytes, ranges }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Request number `line`.
    pub(crate) fn get(&self, line: usize) -> &[u8] {
        self.ranges
            .get(line)
            .and_then(|range| self.bytes.get(range.clone()))
            .unwrap_or_default()
    }
}

/// What can be said of the bytes that have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// More has to come.
    Partial,
    /// A whole answer.
    Whole(Head),
    /// Not an answer that can be read.
    Broken(Broken),
}

/// An answer's head: all that matters of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Where the body begins.
    pub(crate) body: usize,
    /// Where it ends.
    pub(crate) end: usize,
    /// The server closes the connection after it.
    pub(crate) closes: bool,
}

/// Why an answer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Not HTTP, no length, or more bytes than were announced.
    Malformed,
    /// Chunked. A bid fits one buffer and has a length; an exchange may refuse what has none, and this does.
    Chunked,
}

/// Reads the head of an answer; `Whole` only once its body is there too.
pub(crate) fn read(bytes: &[u8]) -> Reading {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let body = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= ANSWER_BYTES_MAX => {
            return Reading::Broken(Broken::Malformed);
        }
        Ok(httparse::Status::Partial) => return Reading::Partial,
        Err(_) => return Reading::Broken(Broken::Malformed),
    };
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Reading::Broken(Broken::Malformed);
    };
    let mut length = None;
    let mut closes = minor == 0;
    for header in response.headers.iter() {
        let name = header.name;
        if name.eq_ignore_ascii_case("content-length") {
            let parsed = std::str::from_utf8(header.value)
                .ok()
                .and_then(|value| value.trim().parse::<usize>().ok());
            match parsed {
                Some(bytes) if bytes <= ANSWER_BYTES_MAX && length.is_none_or(|l| l == bytes) => {
                    length = Some(bytes);
                }
                _ => return Reading::Broken(Broken::Malformed),
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Reading::Broken(Broken::Chunked);
        } else if name.eq_ignore_ascii_case("connection") {
            if header.value.eq_ignore_ascii_case(b"close") {
                closes = true;
            } else if header.value.eq_ignore_ascii_case(b"keep-alive") {
                closes = false;
            }
        }
    }
    // A 204 has no body, whatever else it says (RFC 9110, 15.3.5).
    let length = if status == 204 { Some(0) } else { length };
    let Some(length) = length else {
        return Reading::Broken(Broken::Malformed);
    };
    let end = body + length;
    match bytes.len().cmp(&end) {
        std::cmp::Ordering::Less => Reading::Partial,
        std::cmp::Ordering::Equal => Reading::Whole(Head {
            status,
            body,
            end,
            closes,
        }),
        std::cmp::Ordering::Greater => Reading::Broken(Broken::Malformed),
    }
}

/// What a 200's body says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    Bid,
    NoBid,
    /// Not an object.
    Nonsense,
}

/// A bid is a `seatbid` whose first seat has a `bid` with something in it; any other object is a no-bid (OpenRTB 2.6,
/// 4.2.1: `{}` is one too). An exchange drops what is not JSON to its end, so that is no answer.
///
/// A name cannot be found inside of a string by mistake: there its quotes are escaped.
pub(crate) fn says(body: &[u8]) -> Says {
    let body = body.trim_ascii();
    if body.first() != Some(&b'{') || serde_json::from_slice::<IgnoredAny>(body).is_err() {
        return Says::Nonsense;
    }
    let bids = objects_of(body, b"\"seatbid\"").and_then(|seats| objects_of(seats, b"\"bid\""));
    bids.map_or(Says::NoBid, |_| Says::Bid)
}

/// What follows the key, where that is a list of objects.
fn objects_of<'b>(body: &'b [u8], key: &[u8]) -> Option<&'b [u8]> {
    memmem::find_iter(body, key).find_map(|at| {
        let rest = body.get(at + key.len()..)?;
        let mut next = rest.iter().filter(|byte| !byte.is_ascii_whitespace());
        // As a value it is followed by something else.
        let begins = [next.next(), next.next(), next.next()];
        (begins == [Some(&b':'), Some(&b'['), Some(&b'{')]).then_some(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_its_head_and_its_body() {
        let bodies = [b"{\"id\":\"1\"}".to_vec(), b"{}".to_vec()];
        let requests = Requests::new("/bid/a", "h:1", &["x-a: b".into()], &bodies);
        assert_eq!(requests.len(), 2);
        let second = std::str::from_utf8(requests.get(1)).expect("text");
        assert_eq!(
            second,
            "POST /bid/a HTTP/1.1\r\nhost: h:1\r\ncontent-type: application/json\r\nx-openrtb-version: 2.6\r\nx-a: b\r\ncontent-length: 2\r\n\r\n{}"
        );
        assert!(
            requests
                .get(0)
                .ends_with(b"content-length: 10\r\n\r\n{\"id\":\"1\"}")
        );
        assert!(requests.get(2).is_empty());
    }

    fn whole(status: u16, body: usize, end: usize, closes: bool) -> Reading {
        Reading::Whole(Head {
            status,
            body,
            end,
            closes,
        })
    }

    #[test]
    fn answers_are_framed() {
        const MALFORMED: Reading = Reading::Broken(Broken::Malformed);
        for (bytes, expect) in [
            ("", Reading::Partial),
            ("HTTP/1.1 204 No Content\r\n", Reading::Partial),
            ("HTTP/1.1 204 No Content\r\n\r\n", whole(204, 27, 27, false)),
            ("HTTP/1.0 204 No Content\r\n\r\n", whole(204, 27, 27, true)),
            (
                "HTTP/1.1 204 \r\nconnection: close\r\n\r\n",
                whole(204, 36, 36, true),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{",
                Reading::Partial,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
                whole(200, 38, 40, false),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}H", MALFORMED),
            ("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}", MALFORMED),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{}",
                MALFORMED,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
                MALFORMED,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n{}", MALFORMED),
            ("SSH-2.0-x\r\n\r\n", MALFORMED),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                Reading::Broken(Broken::Chunked),
            ),
        ] {
            assert_eq!(read(bytes.as_bytes()), expect, "{bytes:?}");
        }
    }

    #[test]
    fn bodies_say_bid_or_no_bid() {
        for (body, expect) in [
            (r#"{"id":"1","seatbid":[{"bid":[{"id":"1"}]}]}"#, Says::Bid),
            (
                "{\"seatbid\" : [ \n {\"seat\":\"s\",\"bid\":\n[ {}]}]}",
                Says::Bid,
            ),
            (r#"{"id":"1","seatbid":[{"bid":[]}]}"#, Says::NoBid),
            (r#"{"seatbid":[{}]}"#, Says::NoBid),
            (
                r#"{"id":"seatbid","seatbid":[{"seat":"bid","bid":[{}]}]}"#,
                Says::Bid,
            ),
            (r#"{"bid":[{}]}"#, Says::NoBid),
            // Cut off, with a length that fits.
            (r#"{"seatbid":[{"bid":[{"price":}"#, Says::Nonsense),
            (r#"{"nbr":2}}"#, Says::Nonsense),
            (r#"{"seatbid":[]}"#, Says::NoBid),
            (r#"{"id":"1","nbr":2}"#, Says::NoBid),
            ("{}", Says::NoBid),
            (r#"{"id":"\"seatbid\":[{"}"#, Says::NoBid),
            ("", Says::Nonsense),
            ("ok", Says::Nonsense),
        ] {
            assert_eq!(says(body.as_bytes()), expect, "{body}");
        }
    }
}
