//! A closed loop that keeps one server thread busy from another core, and never sleeps.
//!
//! A client that sleeps until its answer comes has to be woken, by the server's own `send`, on the server's account; one
//! that has fallen behind the server has not. Measured so, a slower server would pay for more than it does. So this one
//! asks its sockets again and again: it has a core to itself, and exchanges are on other machines.
//!
//! It measures no latency (`loadtest` does, in an open loop); it is here so that the server always has work, and the same
//! work for every server. Connections are served in turns: read an answer, send the next request; the server has up to
//! as many requests waiting meanwhile.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A server that says nothing for this long is broken.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The longest answer taken.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How often each status was answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answers {
    /// 200.
    pub bids: usize,
    /// 204.
    pub no_bids: usize,
    /// Anything else.
    pub others: usize,
}

/// Requests as they go onto the wire, head and body in one piece.
pub fn wire(path: &str, bodies: &[String]) -> Vec<Vec<u8>> {
    bodies
        .iter()
        .map(|body| {
            let mut request = format!(
                "POST {path} HTTP/1.1\r\nhost: bidder.example\r\ncontent-type: application/json\r\nx-openrtb-version: 2.6\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )
            .into_bytes();
            request.extend_from_slice(body.as_bytes());
            request
        })
        .collect()
}

/// Connections to one server.
#[derive(Debug)]
pub struct Load {
    connections: Vec<TcpStream>,
    buffer: Vec<u8>,
}

impl Load {
    /// Opens so many connections.
    ///
    /// # Errors
    /// Where the server does not take the connections.
    pub fn connect(address: SocketAddr, connections: usize) -> io::Result<Self> {
        let connections = (0..connections)
            .map(|_| {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Ok(stream)
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            connections,
            buffer: vec![0; ANSWER_BYTES_MAX],
        })
    }

    /// Sends `count` requests, taking the given ones in turns from `first` on, and reads all answers.
    ///
    /// # Errors
    /// Where a connection breaks or an answer is not HTTP.
    pub fn run(&mut self, requests: &[Vec<u8>], first: usize, count: usize) -> io::Result<Answers> {
        let mut answers = Answers::default();
        let mut todo = requests
            .iter()
            .cycle()
            .skip(first % requests.len().max(1))
            .take(count);
        let mut waiting = 0;
        for connection in &mut self.connections {
            if let Some(request) = todo.next() {
                send(connection, request)?;
                waiting += 1;
            }
        }
        let mut turn = 0;
        while waiting > 0 {
            // While requests are left every connection has one under way; the last answers come in the same order.
            let connections = self.connections.len();
            let connection = &mut self.connections[turn % connections];
            turn += 1;
            match status(connection, &mut self.buffer)? {
                200 => answers.bids += 1,
                204 => answers.no_bids += 1,
                _ => answers.others += 1,
            }
            match todo.next() {
                Some(request) => send(connection, request)?,
                None => waiting -= 1,
            }
        }
        Ok(answers)
    }
}

fn send(stream: &mut TcpStream, request: &[u8]) -> io::Result<()> {
    let mut rest = request;
    while !rest.is_empty() {
        let written = awake(|| stream.write(rest))?;
        rest = &rest[written..];
    }
    Ok(())
}

/// Tries until there is an answer, without sleeping.
fn awake(mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let mut since = None;
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        let since = *since.get_or_insert_with(Instant::now);
        if since.elapsed() > SILENCE_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::hint::spin_loop();
    }
}

/// Reads one answer to its end and returns its status.
fn status(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<u16> {
    let mut filled = 0;
    loop {
        let read = awake(|| stream.read(&mut buffer[filled..]))?;
        filled += read;
        let bytes = &buffer[..filled];
        if let Some(head) = find(bytes, b"\r\n\r\n") {
            let status = bytes
                .get(9..12)
                .and_then(|digits| std::str::from_utf8(digits).ok());
            let status = status.and_then(|digits| digits.parse().ok());
            let length = content_length(&bytes[..head]).unwrap_or(0);
            if filled >= head + 4 + length {
                return status.ok_or_else(|| io::Error::other("an answer without a status"));
            }
        }
        if read == 0 || filled == buffer.len() {
            return Err(io::Error::other("an answer that does not end"));
        }
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    let name = b"\r\ncontent-length: ";
    let start = find(head, name)? + name.len();
    let digits = head[start..].split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
