//! The socket as hyper sees it: every read and flush also tells the [`Connection`] how far it is.
//!
//! The head of a request is looked over as it passes, for what hyper tolerates and we do not: a line that ends in a
//! bare LF, and both `Content-Length` and `Transfer-Encoding` (hyper drops the former before we could see it). The
//! check only ever refuses; what a request is stays hyper's judgement alone, so the two cannot disagree into a second
//! request. A pipelined head arrives among an earlier request's bytes and is not looked over: there hyper's own rule
//! holds, which for the two lengths is RFC 9112 §6.3: chunked wins, and the connection closes.
//!
//! Cost: one walk over the head, sixteen bytes at a time.
#![deny(clippy::indexing_slicing)]

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use arrayvec::ArrayVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use wide::u8x16;

use super::connection::Connection;

/// A socket that reports to its connection.
pub(super) struct Wire {
    stream: TcpStream,
    connection: Rc<Connection>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, connection: Rc<Connection>) -> Self {
        Self { stream, connection }
    }

    /// The bare socket, to close it politely.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        if !fresh.is_empty() {
            this.connection.has_read(fresh);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        // hyper flushes the socket only when it has written all that it had.
        this.connection.has_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

const TRANSFER_ENCODING: &[u8; 18] = b"transfer-encoding:";
const CONTENT_LENGTH: &[u8; 15] = b"content-length:";
/// The longest empty line, with its line feed.
const EMPTY_LINE_MAX: usize = 2;

/// Looks over the lines of one head, in whatever pieces it comes.
#[derive(Debug, Default)]
pub(super) struct HeadCheck {
    /// The beginning of a line that is not complete yet, as much as is needed to know its name.
    name: ArrayVec<u8, { TRANSFER_ENCODING.len() }>,
    /// The last byte of that line so far.
    last: Option<u8>,
    started: bool,
    ended: bool,
    bare_line_feed: bool,
    content_length: bool,
    transfer_encoding: bool,
    /// Bytes up to the head's end, once that is seen.
    length: usize,
}

impl HeadCheck {
    /// Takes the next bytes; those after the head's end are ignored.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.ended {
            return;
        }
        if self.length == 0 && self.feed_whole(bytes) {
            return;
        }
        let mut from = 0;
        for at in memchr::memchr_iter(b'\n', bytes) {
            self.take(bytes.get(from..at).unwrap_or_default());
            self.end_line();
            from = at.saturating_add(1);
            if self.ended {
                self.length = self.length.saturating_add(from);
                return;
            }
        }
        self.take(bytes.get(from..).unwrap_or_default());
        self.length = self.length.saturating_add(bytes.len());
    }

    /// The usual way: a head that comes in one piece, without an empty line before it. Where it is anything else, nothing is
    /// taken. Lines are short, so that to start a `memchr` for each would take longer than the search.
    fn feed_whole(&mut self, bytes: &[u8]) -> bool {
        const BLOCK: usize = 16;
        let mut head = Self {
            started: true,
            ..Self::default()
        };
        let mut from = 0;
        let (blocks, tail) = bytes.as_chunks::<BLOCK>();
        let feeds = u8x16::splat(b'\n');
        let mut start = 0usize;
        for block in blocks {
            let mut found = u8x16::new(*block).simd_eq(feeds).to_bitmask();
            while found != 0 {
                let at = start.saturating_add(found.trailing_zeros() as usize);
                found &= found.wrapping_sub(1);
                head.line(bytes.get(from..at).unwrap_or_default());
                from = at.saturating_add(1);
                if head.ended {
                    return self.replace(head, from);
                }
            }
            start = start.saturating_add(BLOCK);
        }
        for byte in tail {
            if *byte == b'\n' {
                head.line(bytes.get(from..start).unwrap_or_default());
                from = start.saturating_add(1);
                if head.ended {
                    return self.replace(head, from);
                }
            }
            start = start.saturating_add(1);
        }
        false
    }

    /// Takes the place of what was known, where the head was no empty line alone.
    fn replace(&mut self, head: Self, length: usize) -> bool {
        if length <= EMPTY_LINE_MAX {
            return false;
        }
        *self = Self { length, ..head };
        true
    }

    /// A whole line of a head, without its line feed.
    #[inline(always)]
    fn line(&mut self, line: &[u8]) {
        match line {
            [] => {
                self.bare_line_feed = true;
                self.ended = true;
            }
            [b'\r'] => self.ended = true,
            [first, .., last] => {
                self.bare_line_feed |= *last != b'\r';
                match first {
                    b'T' | b't' => self.transfer_encoding |= begins_with(line, TRANSFER_ENCODING),
                    b'C' | b'c' => self.content_length |= begins_with(line, CONTENT_LENGTH),
                    _ => {}
                }
            }
            [_] => self.bare_line_feed = true,
        }
    }

    /// How long the head is, empty lines before it included; `None` while it goes on.
    pub(super) fn length(&self) -> Option<usize> {
        self.ended.then_some(self.length)
    }

    /// Whether nothing was seen that must be refused.
    pub(super) fn passed(&self) -> bool {
        !(self.bare_line_feed || self.content_length && self.transfer_encoding)
    }

    fn take(&mut self, part: &[u8]) {
        let room = self.name.remaining_capacity().min(part.len());
        self.name.extend(part.iter().take(room).copied());
        self.last = part.last().copied().or(self.last);
    }

    fn end_line(&mut self) {
        self.bare_line_feed |= self.last != Some(b'\r');
        match self.name.as_slice() {
            // Empty lines before the request line are skipped (RFC 9112 §2.2); after it, one ends the head.
            b"" | b"\r" => self.ended = self.started,
            line => {
                self.started = true;
                self.transfer_encoding |= begins_with(line, TRANSFER_ENCODING);
                self.content_length |= begins_with(line, CONTENT_LENGTH);
            }
        }
        self.name.clear();
        self.last = None;
    }
}

/// Whether a line begins with that name, which is in lower case. Letters are folded with a bit that also makes a few
/// other bytes look alike, of which none may stand in a name: what holds one is refused either way.
fn begins_with<const LENGTH: usize>(line: &[u8], name: &[u8; LENGTH]) -> bool {
    line.first_chunk::<LENGTH>()
        .is_some_and(|start| start.map(|byte| byte | 0x20) == *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In one piece, byte by byte, and in every two pieces.
    fn passes(head: &[u8]) -> bool {
        let fed = |parts: &[&[u8]]| {
            let mut check = HeadCheck::default();
            parts.iter().for_each(|part| check.feed(part));
            check.passed()
        };
        let whole = fed(&[head]);
        assert_eq!(fed(&head.chunks(1).collect::<Vec<_>>()), whole);
        for at in 0..head.len() {
            let (a, b) = head.split_at(at);
            assert_eq!(fed(&[a, b]), whole, "cut at {at}");
        }
        whole
    }

    #[test]
    fn what_is_let_pass() {
        for good in [
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n\n\nTransfer-Encoding: x\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 2\r\nX-Transfer-Encoding: y\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encodings: y\r\n\r\n",
            "POST / HTTP/1.1\r\nx: content-length:\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(passes(good.as_bytes()), "{good:?}");
        }
    }

    #[test]
    fn what_is_refused() {
        for bad in [
            "POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-ENCODING:chunked\r\nh: x\r\ncontent-LENGTH:2\r\n\r\n",
            "POST / HTTP/1.1\nHost: x\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\n\n",
            "\nPOST / HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            assert!(!passes(bad.as_bytes()), "{bad:?}");
        }
    }
}
