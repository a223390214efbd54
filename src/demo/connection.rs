//! An exchange's side of one kept-alive connection to the bid listener.
//!
//! By hand, because the demo wants to know what a client library hides: whether the connection was still there, and
//! when it was closed. It speaks as much HTTP/1.1 as the bid listener answers with: a status, `Content-Length`, and
//! nothing else in the way of bodies.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::EXCHANGE;

/// Longest wait for an answer, far over any `tmax`.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer read.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// One connection; opened when it is needed.
#[derive(Debug)]
pub(super) struct Connection {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
    message: Vec<u8>,
}

impl Connection {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            message: Vec::new(),
        }
    }

    /// Asks for a bid. An error means that there was no answer; the next call opens a new connection.
    pub(super) fn bid(&mut self, request: &[u8]) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open()?,
        };
        // Head and body in one write: one segment on the wire, as exchanges send it.
        self.message.clear();
        write!(
            self.message,
            "POST /bid/{EXCHANGE} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nx-openrtb-version: 2.6\r\nContent-Length: {}\r\n\r\n",
            self.address,
            request.len()
        )?;
        self.message.extend_from_slice(request);
        // A refusal can come before the body is through, and counts as an answer then.
        let sent = stream.get_mut().write_all(&self.message);
        let (answer, stays) = read(&mut stream).map_err(|e| sent.err().unwrap_or(e))?;
        if stays {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    fn open(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(BufReader::new(stream))
    }
}

/// The answer, and whether the connection stays.
fn read(stream: &mut BufReader<TcpStream>) -> io::Result<(Answer, bool)> {
    let malformed = || io::Error::new(ErrorKind::InvalidData, "the answer is not HTTP/1.1");
    let mut line = String::new();
    head_line(stream, &mut line)?;
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(malformed)?;
    let (mut length, mut stays) = (0, true);
    loop {
        head_line(stream, &mut line)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(malformed)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().map_err(|_| malformed())?;
        } else if name.eq_ignore_ascii_case("connection") {
            stays = !value.eq_ignore_ascii_case("close");
        }
    }
    if length > BODY_BYTES_MAX {
        return Err(malformed());
    }
    let mut body = Vec::new();
    stream.by_ref().take(length).read_to_end(&mut body)?;
    if body.len() as u64 == length {
        Ok((Answer { status, body }, stays))
    } else {
        Err(io::Error::from(ErrorKind::UnexpectedEof))
    }
}

/// One line of the head, without its end.
fn head_line(stream: &mut BufReader<TcpStream>, line: &mut String) -> io::Result<()> {
    const LINE_BYTES_MAX: u64 = 8 << 10;
    line.clear();
    stream.by_ref().take(LINE_BYTES_MAX).read_line(line)?;
    match line.strip_suffix("\r\n") {
        Some(text) => {
            line.truncate(text.len());
            Ok(())
        }
        None if line.is_empty() => Err(io::Error::new(
            ErrorKind::ConnectionAborted,
            "the connection was closed without an answer",
        )),
        None => Err(ErrorKind::UnexpectedEof.into()),
    }
}
