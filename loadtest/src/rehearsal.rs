//! A server whose every answer is decided beforehand: when, and what.
//!
//! It is what the generator is checked against (the tests) and what the difference between an open and a closed loop
//! is shown on ([`crate::stall`]). One thread a connection, which waits as long as it is told and answers; so with `c`
//! connections it is a queue with `c` servers, whose percentiles can be computed.
//!
//! Only on loopback, on a free port, until it is dropped.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Body bytes that are taken.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long it waits for the next request before it looks whether it is dropped.
const LOOK: Duration = Duration::from_millis(50);

/// A request as the script sees it.
#[derive(Debug)]
pub struct Asked {
    /// `POST /bid/a HTTP/1.1`.
    pub line: String,
    /// The body.
    pub body: Vec<u8>,
    /// When it had been read.
    pub at: Instant,
}

/// What the script has it do.
#[derive(Clone, Debug)]
pub struct Reply {
    /// So long after the request was read.
    pub after: Duration,
    /// These bytes.
    pub bytes: Vec<u8>,
    /// And close the connection.
    pub close: bool,
}

impl Reply {
    /// A no-bid.
    #[must_use]
    pub fn no_bid(after: Duration) -> Self {
        Self {
            after,
            bytes: b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            close: false,
        }
    }

    /// A 200 with this body.
    #[must_use]
    pub fn ok(after: Duration, body: &str) -> Self {
        let length = body.len();
        Self {
            after,
            bytes: format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
                .into_bytes(),
            close: false,
        }
    }
}

/// An answer that was given.
#[derive(Clone, Debug)]
pub struct Served {
    /// The body that asked.
    pub body: Vec<u8>,
    /// From when the request was read until the answer was handed to the kernel: as long as it was told, and as much
    /// longer as the machine let it sleep.
    pub took: Duration,
}

/// The server.
#[derive(Debug)]
pub struct Rehearsal {
    served: Arc<Mutex<Vec<Served>>>,
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Rehearsal {
    /// Starts it; `script` decides about each request.
    ///
    /// # Errors
    ///
    /// Without a free port.
    pub fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let ends = Arc::new(AtomicBool::new(false));
        let script = Arc::new(script);
        let seen = Arc::clone(&ends);
        let served = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&served);
        let acceptor = std::thread::spawn(move || {
            let mut threads = Vec::new();
            for stream in listener.incoming() {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (script, ends) = (Arc::clone(&script), Arc::clone(&seen));
                let log = Arc::clone(&log);
                threads.push(std::thread::spawn(move || {
                    // A connection that breaks is over; the generator counts it.
                    let _ = serve(&stream, &*script, &log, &ends);
                }));
            }
            for thread in threads {
                let _ = thread.join();
            }
        });
        Ok(Self {
            served,
            address,
            ends,
            acceptor: Some(acceptor),
        })
    }

    /// The answers since the last call, in the order given.
    #[must_use]
    pub fn served(&self) -> Vec<Served> {
        std::mem::take(&mut *self.served.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `http://127.0.0.1:PORT` and `path`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn serve(
    stream: &TcpStream,
    script: &dyn Fn(&Asked) -> Reply,
    log: &Mutex<Vec<Served>>,
    ends: &AtomicBool,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK))?;
    let mut reader = BufReader::new(stream);
    // Nobody sends: a wait that a channel bounds.
    let (_keep, never) = mpsc::channel::<()>();
    while !ends.load(Ordering::Relaxed) {
        let asked = match asked(&mut reader, ends) {
            Ok(Some(asked)) => asked,
            Ok(None) => return Ok(()),
            Err(error) => return Err(error),
        };
        let reply = script(&asked);
        let until = asked.at + reply.after;
        let _ = never.recv_timeout(until.saturating_duration_since(Instant::now()));
        let mut out = stream;
        let took = asked.at.elapsed();
        // Before it is sent: who has all answers finds all of them here.
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Served {
                body: asked.body,
                took,
            });
        out.write_all(&reply.bytes)?;
        if reply.close {
            return Ok(());
        }
    }
    Ok(())
}

/// The next request; none at the connection's end.
fn asked(reader: &mut BufReader<&TcpStream>, ends: &AtomicBool) -> io::Result<Option<Asked>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        match reader.read_line(&mut head) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if is_pause(&error) && !ends.load(Ordering::Relaxed) => {}
            Err(error) => return Err(error),
        }
    }
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.parse().ok())
        .unwrap_or_default();
    let mut body = vec![0; length.min(BODY_BYTES_MAX)];
    let mut filled = 0;
    while let Some(room) = body.get_mut(filled..)
        && !room.is_empty()
    {
        match reader.read(room) {
            Ok(0) => return Ok(None),
            Ok(bytes) => filled += bytes,
            Err(error) if is_pause(&error) && !ends.load(Ordering::Relaxed) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(Asked {
        line: head.lines().next().unwrap_or_default().to_owned(),
        body,
        at: Instant::now(),
    }))
}

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
