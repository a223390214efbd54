//! From the bytes of an upload to its rows: content codings undone and digests checked while streaming.
//!
//! Limits hold on decoded bytes, because a kilobyte of gzip can be a megabyte of zeros: memory is one chunk, disk is the
//! limit. gzip may have several members, as `cat a.gz b.gz` makes them. zstd is exactly one frame, with a window of at
//! most [`ZSTD_WINDOW_LOG_MAX`].

use std::io::{self, BufRead as _, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::MultiGzDecoder;
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use sha2::{Digest as _, Sha256};

use super::Problem;
use crate::datasets::Refused;

/// Bytes decoded at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// log₂ of the largest zstd window, 8 MiB: what RFC 8878 asks of every decoder and all levels but `--ultra` and `--long` stay in.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

impl Coding {
    /// What the headers say; 415 for what we do not know and for several at once.
    pub(super) fn of(headers: &HeaderMap) -> Result<Coding, Problem> {
        let mut all = headers.get_all(CONTENT_ENCODING).iter();
        let coding = match (all.next(), all.next()) {
            (None, _) => Some(Coding::Identity),
            (Some(one), None) => match one
                .to_str()
                .map(|v| v.trim().to_ascii_lowercase())
                .as_deref()
            {
                Ok("" | "identity") => Some(Coding::Identity),
                Ok("gzip" | "x-gzip") => Some(Coding::Gzip),
                Ok("zstd") => Some(Coding::Zstd),
                _ => None,
            },
            _ => None,
        };
        coding.ok_or_else(|| {
            let detail = "Content-Encoding may be gzip or zstd, one of them, or be left out";
            Problem::new(415, "content_encoding", detail)
        })
    }
}

/// The SHA-256 that `Content-Digest` (RFC 9530) says the encoded body has, if it says so. It is a dictionary (RFC 8941):
/// of two members of one name the last counts, and one that is malformed must not pass as one that is absent.
pub(super) fn content_digest(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Problem> {
    let malformed = || {
        let detail = "Content-Digest is written sha-256=:<base64 of 32 bytes>:, colons included";
        Problem::new(400, "content_digest", detail)
    };
    let mut found = None;
    for header in headers.get_all("content-digest") {
        let text = header.to_str().map_err(|_| malformed())?;
        for member in text.split(',').map(str::trim) {
            let end = member
                .find(|c: char| matches!(c, '=' | ':' | ';') || c.is_whitespace())
                .unwrap_or(member.len());
            let (algorithm, value) = member.split_at(end);
            // Other algorithms are not ours to check; RFC 9530 lets a recipient ignore them.
            if !algorithm.eq_ignore_ascii_case("sha-256") {
                continue;
            }
            let digest = value
                .strip_prefix("=:")
                .and_then(|v| v.split_once(':'))
                .filter(|(_, rest)| rest.is_empty() || rest.starts_with(';'))
                .and_then(|(v, _)| STANDARD.decode(v).ok())
                .and_then(|v| <[u8; 32]>::try_from(v).ok());
            found = Some(digest.ok_or_else(malformed)?);
        }
    }
    Ok(found)
}

/// How long a body may be, and which limit says so.
#[derive(Debug, Clone)]
pub(super) struct Longest {
    pub(super) bytes: u64,
    pub(super) limit: String,
}

/// Copies a body to `out` decoded, as much of it as may be, and checks its digest.
///
/// An error of the body's own reader comes back as [`CopyFailed::Read`]; the caller knows what it means.
pub(super) fn copy_decoded(
    body: &mut dyn Read,
    coding: Coding,
    longest: &Longest,
    digest: Option<[u8; 32]>,
    out: &mut dyn Write,
) -> Result<u64, CopyFailed> {
    let mut encoded = Digesting {
        inner: body,
        digest: Sha256::new(),
    };
    let copied = match coding {
        Coding::Identity => copy(&mut encoded, longest, out)?,
        Coding::Gzip => copy(&mut MultiGzDecoder::new(&mut encoded), longest, out)?,
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(&mut encoded)
                .map_err(CopyFailed::Read)?
                .single_frame();
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(CopyFailed::Read)?;
            let copied = copy(&mut decoder, longest, out)?;
            let mut rest = decoder.finish();
            if !rest.fill_buf().map_err(CopyFailed::Read)?.is_empty() {
                return Err(CopyFailed::Read(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "bytes after the zstd frame; a body is exactly one frame",
                )));
            }
            copied
        }
    };
    let actual: [u8; 32] = encoded.digest.finalize().into();
    match digest {
        Some(expected) if expected != actual => Err(CopyFailed::Digest { expected, actual }),
        _ => Ok(copied),
    }
}

fn copy(from: &mut dyn Read, longest: &Longest, out: &mut dyn Write) -> Result<u64, CopyFailed> {
    let mut chunk = vec![0u8; CHUNK_BYTES];
    let mut copied = 0u64;
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => return Ok(copied),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(CopyFailed::Read(e)),
        };
        copied = copied.saturating_add(read as u64);
        if copied > longest.bytes {
            return Err(CopyFailed::TooLong(longest.clone()));
        }
        out.write_all(chunk.get(..read).unwrap_or_default())
            .map_err(CopyFailed::Write)?;
    }
}

/// Why a body was not copied.
#[derive(Debug)]
pub(super) enum CopyFailed {
    /// The body's reader failed, or its coding is malformed.
    Read(io::Error),
    /// It could not be written.
    Write(io::Error),
    /// More decoded bytes than allowed.
    TooLong(Longest),
    /// Other bytes than announced.
    Digest {
        expected: [u8; 32],
        actual: [u8; 32],
    },
}

impl From<CopyFailed> for Problem {
    fn from(failed: CopyFailed) -> Problem {
        match failed {
            CopyFailed::Read(error) => Problem::new(
                400,
                "body_unreadable",
                format!("the body does not decode: {error}; send it again as its Content-Encoding says"),
            ),
            CopyFailed::Write(error) => Refused::from(error).into(),
            CopyFailed::TooLong(longest) => too_long(longest.bytes, &longest.limit),
            CopyFailed::Digest { expected, actual } => Problem::new(
                422,
                "content_digest",
                "the body is not the one that Content-Digest announces (over the bytes as sent, encoded); send it again",
            )
            .with("expected", STANDARD.encode(expected))
            .with("actual", STANDARD.encode(actual)),
        }
    }
}

/// 413, naming the limit.
pub(super) fn too_long(bytes_max: u64, limit: &str) -> Problem {
    Problem::new(
        413,
        "too_long",
        format!(
            "the body is over {bytes_max} bytes (decoded), which is {limit}; split it, or raise the limit"
        ),
    )
}

struct Digesting<'a> {
    inner: &'a mut dyn Read,
    digest: Sha256,
}

impl Read for Digesting<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.digest.update(out.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[&str], expected: Result<Option<u8>, u16>) {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append("content-digest", header.parse().expect("a header"));
        }
        let found = content_digest(&map).map_err(|p| p.status());
        let found = found.map(|d| d.map(|d| d[0]));
        assert_eq!(found, expected, "{headers:?}");
    }

    #[test]
    fn a_malformed_digest_is_not_an_absent_one() {
        let of = |byte: u8| STANDARD.encode([byte; 32]);
        let (one, two) = (of(1), of(2));
        check(&[], Ok(None));
        check(&["sha-512=:AAAA:, unixsum=:AA==:"], Ok(None));
        check(&[&format!("sha-256=:{one}:")], Ok(Some(1)));
        check(
            &[&format!("sha-512=:AAAA:, SHA-256=:{one}:;p=1")],
            Ok(Some(1)),
        );
        check(&[&format!("sha-256=:{one}:,sha-256=:{two}:")], Ok(Some(2)));
        check(
            &[&format!("sha-256=:{one}:"), &format!("sha-256=:{two}:")],
            Ok(Some(2)),
        );
        for bad in [
            "sha-256".to_owned(),
            "sha-256=".to_owned(),
            "sha-256;p=1".to_owned(),
            format!("sha-256:{one}"),
            format!("sha-256:{one}:"),
            format!("sha-256={one}"),
            format!("sha-256=:{one}"),
            format!("sha-256=:{one}:junk"),
            format!("sha-256 =:{one}:"),
            format!("sha-256=:{one}:, sha-256"),
            "sha-256=:AAAA:".to_owned(),
        ] {
            check(&[&bad], Err(400));
        }
    }
}
