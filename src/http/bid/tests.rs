//! The listener over real sockets, asked by a client that says exactly the bytes it is told to.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::*;
use crate::config::{Config, Exchange, Exchanges, Limits};

mod batch;
mod deadlines;
mod requests;
mod service;
mod smuggling;

/// What the toy bidders of one listener have seen.
#[derive(Default)]
struct Seen {
    bodies: Mutex<Vec<String>>,
    refused: Mutex<Vec<(Option<String>, Refused)>>,
    calls: AtomicUsize,
    answered: AtomicUsize,
    made: AtomicUsize,
    ticks: AtomicUsize,
}

impl Seen {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn bodies(&self) -> Vec<String> {
        self.bodies.lock().expect("whole").clone()
    }

    fn counted(&self, why: Refused) -> usize {
        let refused = self.refused.lock().expect("whole");
        refused.iter().filter(|(_, w)| *w == why).count()
    }
}

/// Answers by the body's first word.
struct Toy {
    seen: Arc<Seen>,
    keeps_bodies: bool,
}

const BID: &str = r#"{"id":"1","seatbid":[]}"#;
const BIG_ANSWER_BYTES: usize = 32 << 20;

impl Bidder for Toy {
    fn bid(
        &mut self,
        _exchange: &Exchange,
        body: &[u8],
        arrived: Instant,
        _: Instant,
        out: &mut Vec<u8>,
    ) -> Answer {
        self.seen.calls.fetch_add(1, Ordering::SeqCst);
        assert!(out.is_empty(), "the buffer is handed over empty");
        let text = String::from_utf8_lossy(body);
        if self.keeps_bodies {
            self.seen
                .bodies
                .lock()
                .expect("whole")
                .push(text.to_string());
        }
        match text.split_whitespace().next() {
            Some("bid") => {
                out.extend_from_slice(BID.as_bytes());
                Answer::Bid
            }
            Some("big") => {
                out.resize(BIG_ANSWER_BYTES, b' ');
                Answer::Bid
            }
            Some("age") => {
                out.extend(arrived.elapsed().as_millis().to_string().bytes());
                Answer::Bid
            }
            Some("echo") => {
                let word = text.split_whitespace().nth(1).unwrap_or_default();
                out.extend_from_slice(word.as_bytes());
                Answer::Bid
            }
            Some("sleep") => {
                let ms = text
                    .split_whitespace()
                    .nth(1)
                    .and_then(|ms| ms.parse().ok());
                thread::sleep(Duration::from_millis(ms.unwrap_or_default()));
                out.extend_from_slice(BID.as_bytes());
                Answer::Bid
            }
            Some("empty") => Answer::Bid,
            Some("none") => Answer::NoBid,
            Some("panic") => {
                out.extend_from_slice(b"half an ans");
                // Not `panic!`, which prints a backtrace.
                std::panic::resume_unwind(Box::new("as asked"))
            }
            _ => Answer::Malformed,
        }
    }

    fn shed(&mut self, _exchange: &Exchange) {}

    fn answered(&mut self, _exchange: &Exchange, _answer: Answer, _took: Duration) {
        self.seen.answered.fetch_add(1, Ordering::SeqCst);
    }

    fn tick(&mut self, _load: Load) {
        self.seen.ticks.fetch_add(1, Ordering::SeqCst);
    }

    fn refused(&mut self, exchange: Option<&Exchange>, why: Refused) {
        let name = exchange.map(|e| e.name.to_string());
        self.seen.refused.lock().expect("whole").push((name, why));
    }
}

/// A listener with toy bidders and four exchanges: `demo`, open; `keyed`, with the key `k3y`; `near`, for
/// 127.0.0.0/8; `far`, for 203.0.113.0/24.
struct Rig {
    server: BidServer,
    seen: Arc<Seen>,
}

/// All about something else than overload: nothing is shed, however busy the machine is.
fn config() -> Config {
    let key = crate::ids::Hex(&Sha256::digest(b"k3y"));
    let tmax = "default_tmax_ms = 60000";
    let toml = format!(
        "[limits]\nqueue_target_ms = 20000\n\
         [exchanges.near]\n{tmax}\nallow = [\"10.0.0.0/8\", \"127.0.0.0/8\"]\n\
         [exchanges.keyed]\n{tmax}\npath_key_sha256 = \"{key}\"\n\
         [exchanges.far]\n{tmax}\nallow = [\"203.0.113.0/24\"]\n\
         [exchanges.demo]\n{tmax}\n"
    );
    Config::from_toml(&toml, "test").expect("a configuration")
}

fn exchanges() -> Arc<Exchanges> {
    Arc::new(config().exchanges)
}

impl Rig {
    fn start() -> Self {
        Self::with(1, |_| {})
    }

    fn with(threads: usize, change: impl FnOnce(&mut Limits)) -> Self {
        Self::at("127.0.0.1:0", threads, change)
    }

    fn at(listen: &str, threads: usize, change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = config().limits;
        change(&mut limits);
        let seen = Arc::new(Seen::default());
        let listener = BidListener {
            listen: listen.parse().expect("an address"),
            threads,
        };
        let bidders = Arc::clone(&seen);
        let factory = move |_| {
            bidders.made.fetch_add(1, Ordering::SeqCst);
            Toy {
                seen: Arc::clone(&bidders),
                keeps_bodies: true,
            }
        };
        let server = listener
            .start(&limits, exchanges(), factory)
            .expect("a free port");
        Self { server, seen }
    }

    fn client(&self) -> Client {
        Client::to(self.server.local_addr())
    }

    /// One request on a connection of its own.
    fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.client();
        client.send(request);
        client.reply()
    }
}

/// Polls until true; the listener's threads are not the test's.
fn soon(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < until, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A request with the usual head and these lines more.
fn post(path: &str, lines: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: kith\r\nContent-Length: {length}\r\n{lines}\r\n");
    [head.as_bytes(), body].concat()
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("listening");
        stream.set_nodelay(true).expect("a socket");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a socket");
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("sent");
    }

    /// The next reply, perhaps one that was never sent.
    fn try_reply(&mut self) -> Option<Reply> {
        let head_end = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more()?;
        };
        let head = String::from_utf8(self.buffer[..head_end].to_vec()).expect("text");
        let mut lines = head.split("\r\n");
        let status_line = lines.next().expect("a line");
        let status = status_line[9..12].parse().expect("a status");
        let headers: BTreeMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers
            .get("content-length")
            .map_or(0, |n| n.parse().expect("a length"));
        while self.buffer.len() < head_end + length {
            self.read_more()?;
        }
        let body = self.buffer[head_end..head_end + length].to_vec();
        self.buffer.drain(..head_end + length);
        Some(Reply {
            status,
            headers,
            body,
        })
    }

    fn reply(&mut self) -> Reply {
        self.try_reply().expect("a reply before the end")
    }

    fn read_more(&mut self) -> Option<()> {
        let mut chunk = [0u8; 65536];
        match self.stream.read(&mut chunk) {
            Ok(0) => None,
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                Some(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("no bytes for 10 s"),
            Err(_) => None,
        }
    }

    /// Whether the server closed, and sent nothing before.
    fn is_closed(&mut self) -> bool {
        assert!(self.buffer.is_empty(), "more than was expected");
        self.read_more().is_none()
    }

    /// Everything up to the server's close.
    fn rest(&mut self) -> String {
        while self.read_more().is_some() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    /// Checks that the connection still works.
    fn still_serves(&mut self) {
        self.send(post("/bid/demo", "", "bid again"));
        assert_eq!(self.reply().status, 200);
    }
}
