//! One connection and the request that is on it.
//!
//! HTTP/1.1 without pipelining, as exchanges speak it: at most one request is under way. The socket is non-blocking
//! from its first moment, connecting too, so that a server that does not accept delays nothing.
//!
//! Invariant: a request is on a connection only while that is `Busy`; whoever ends it takes the flight away.

use std::net::SocketAddr;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::schedule::{Due, Nanos};
use crate::wire::{ANSWER_BYTES_MAX, Broken, Reading};

/// What an answer's buffer begins with; it grows for larger ones and stays.
const BUFFER_BYTES: usize = 8 << 10;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// There is none; the next attempt is at this time.
    Down { again: Nanos },
    /// Asked for.
    Connecting { since: Nanos },
    /// Free since.
    Idle { since: Nanos },
    /// A request is under way.
    Busy,
}

/// The request that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub(crate) due: Due,
    pub(crate) sent: Nanos,
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: Option<OwnedFd>,
    pub(crate) state: State,
    pub(crate) flight: Option<Flight>,
    /// It is in its lane's ring of idle ones.
    pub(crate) in_ring: bool,
    /// Counts sockets, so that an event of one that is gone is not taken for one of its successor.
    pub(crate) life: u16,
    /// Something was answered on this socket.
    pub(crate) answered: bool,
    buffer: Vec<u8>,
    filled: usize,
    /// What could not be written at once.
    rest: Vec<u8>,
}

/// What reading found.
#[derive(Debug)]
pub(crate) enum Read {
    /// Nothing whole yet.
    Partial,
    /// A whole answer; its bytes are `Connection::answer`.
    Whole(crate::wire::Head),
    /// Bytes that are none.
    Broken(Broken),
    /// The server closed.
    Closed,
}

impl Connection {
    pub(crate) fn new() -> Self {
        Self {
            stream: None,
            state: State::Down { again: 0 },
            flight: None,
            in_ring: false,
            life: 0,
            answered: false,
            buffer: vec![0; BUFFER_BYTES],
            filled: 0,
            rest: Vec::new(),
        }
    }

    /// Asks for a new socket to `address` and registers it under the key that `key` makes of its life.
    pub(crate) fn open(
        &mut self,
        epoll: &OwnedFd,
        address: &SocketAddr,
        now: Nanos,
        key: impl FnOnce(u16) -> u64,
    ) -> Result<(), Errno> {
        self.stream = None;
        self.filled = 0;
        self.rest.clear();
        self.life = self.life.wrapping_add(1);
        self.answered = false;
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        // Requests go out in one piece; waiting for more of it would be waiting for nothing.
        rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
        epoll::add(epoll, &socket, EventData::new_u64(key(self.life)), wanted)?;
        self.stream = Some(socket);
        self.state = State::Connecting { since: now };
        Ok(())
    }

    /// Whether the connection that was asked for has come about.
    pub(crate) fn connected(&mut self) -> Result<(), Errno> {
        let socket = self.stream.as_ref().ok_or(Errno::NOTCONN)?;
        rustix::net::sockopt::socket_error(socket)??;
        Ok(())
    }

    /// Wants to be told of bytes to read, and of room to write where `writing`.
    pub(crate) fn wait(&self, epoll: &OwnedFd, key: u64, writing: bool) -> Result<(), Errno> {
        let socket = self.stream.as_ref().ok_or(Errno::NOTCONN)?;
        let mut wanted = EventFlags::IN | EventFlags::RDHUP;
        if writing {
            wanted |= EventFlags::OUT;
        }
        epoll::modify(epoll, socket, EventData::new_u64(key), wanted)
    }

    /// Writes a request; whether some of it must wait for room.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<bool, Errno> {
        self.filled = 0;
        let socket = self.stream.as_ref().ok_or(Errno::NOTCONN)?;
        let written = match rustix::io::write(socket, bytes) {
            Ok(written) => written,
            Err(Errno::AGAIN) => 0,
            Err(error) => return Err(error),
        };
        self.rest.clear();
        self.rest
            .extend_from_slice(bytes.get(written..).unwrap_or_default());
        Ok(!self.rest.is_empty())
    }

    /// Some of the request is not written yet.
    pub(crate) fn is_writing(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Writes more of it; whether some of it still must wait.
    pub(crate) fn send_rest(&mut self) -> Result<bool, Errno> {
        let socket = self.stream.as_ref().ok_or(Errno::NOTCONN)?;
        match rustix::io::write(socket, &self.rest) {
            Ok(written) => {
                self.rest.drain(..written.min(self.rest.len()));
            }
            Err(Errno::AGAIN) => {}
            Err(error) => return Err(error),
        }
        Ok(!self.rest.is_empty())
    }

    /// One read, and what has come by now.
    pub(crate) fn read(&mut self) -> Read {
        let Some(socket) = self.stream.as_ref() else {
            return Read::Closed;
        };
        if self.filled == self.buffer.len() {
            let more = (self.buffer.len() * 2).min(2 * ANSWER_BYTES_MAX);
            if more == self.buffer.len() {
                return Read::Broken(Broken::Malformed);
            }
            self.buffer.resize(more, 0);
        }
        let Some(room) = self.buffer.get_mut(self.filled..) else {
            return Read::Closed;
        };
        match rustix::io::read(socket, room) {
            Ok(0) => return Read::Closed,
            Ok(bytes) => self.filled += bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Read::Partial,
            Err(_) => return Read::Closed,
        }
        match crate::wire::read(self.buffer.get(..self.filled).unwrap_or_default()) {
            Reading::Partial => Read::Partial,
            Reading::Whole(head) => Read::Whole(head),
            Reading::Broken(broken) => Read::Broken(broken),
        }
    }

    /// The body of the answer that was read last.
    pub(crate) fn body(&self, head: crate::wire::Head) -> &[u8] {
        self.buffer.get(head.body..head.end).unwrap_or_default()
    }

    /// Closes the socket; the next attempt is at `again`.
    pub(crate) fn close(&mut self, again: Nanos) {
        self.stream = None;
        self.state = State::Down { again };
    }
}
