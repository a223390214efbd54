//! The bid listener at five times what one thread can decide: answered in time, nobody closed, nobody starved, and
//! over when it is over. An open loop over real sockets: what is late is counted from when it should have been sent.
//!
//! The machine of a test may stall for 100 ms, so the time allowed is 400 ms. Without shedding a lap around these
//! connections would last 1,600.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test may wait, and says what it saw"
)]

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use kith::config::{Config, Exchange};
use kith::http::bid::{Answer, BidListener, BidServer, Bidder, Load, Refused};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const DECISION: Duration = Duration::from_millis(4);
const CAPACITY: f64 = 250.0;
const ALLOWED: Duration = Duration::from_millis(400);

/// Blocks its thread for [`DECISION`], and bids. It sleeps, so that its capacity is the same on a busy machine.
struct Slow {
    shed: Arc<Shed>,
}

/// What was shed, and how long before that it had arrived by the server's reckoning.
#[derive(Default)]
struct Shed {
    requests: AtomicU64,
    waited_us: AtomicU64,
}

impl Bidder for Slow {
    fn bid(&mut self, _: &Exchange, _: &[u8], _: Instant, _: Instant, out: &mut Vec<u8>) -> Answer {
        thread::sleep(DECISION);
        out.extend_from_slice(b"{}");
        Answer::Bid
    }

    fn shed(&mut self, _: &Exchange) {
        self.shed.requests.fetch_add(1, Relaxed);
    }

    fn answered(&mut self, _: &Exchange, answer: Answer, took: Duration) {
        // Whatever is decided on gets a bid.
        if answer == Answer::NoBid {
            self.shed
                .waited_us
                .fetch_add(took.as_micros() as u64, Relaxed);
        }
    }

    fn tick(&mut self, _: Load) {}

    fn refused(&mut self, _: Option<&Exchange>, why: Refused) {
        panic!("{why:?} is not expected");
    }
}

fn server(shed: &Arc<Shed>) -> BidServer {
    // Two decisions and a half; the default would be half of one.
    let toml = "[limits]
queue_target_ms = 10
[exchanges.loud]
default_tmax_ms = 410
\
                [exchanges.quiet]
default_tmax_ms = 410
";
    let config = Config::from_toml(toml, "test").expect("a configuration");
    let listener = BidListener {
        listen: "127.0.0.1:0".parse().expect("an address"),
        threads: 1,
    };
    let shed = Arc::clone(shed);
    let slow = move |_| Slow {
        shed: Arc::clone(&shed),
    };
    listener
        .start(&config.limits, Arc::new(config.exchanges), slow)
        .expect("a free port")
}

/// Requests at even intervals in a span of time, over so many connections.
#[derive(Clone, Copy)]
struct Stream {
    exchange: &'static str,
    connections: usize,
    per_second: f64,
    from: Duration,
    to: Duration,
}

/// One answer: when its request was due, how long after that it came, and whether it is a bid.
#[derive(Clone, Copy)]
struct Answered {
    due: Duration,
    took: Duration,
    bid: bool,
}

/// Sends the stream; a connection that ends too early is an error.
async fn play(server: std::net::SocketAddr, start: Instant, stream: Stream) -> Vec<Answered> {
    let spacing = Duration::from_secs_f64(1.0 / stream.per_second);
    let mut senders = Vec::new();
    for first in 0..stream.connections {
        senders.push(tokio::spawn(async move {
            let mut socket = TcpStream::connect(server).await.expect("a connection");
            socket.set_nodelay(true).expect("a socket");
            let request = format!(
                "POST /bid/{} HTTP/1.1\r\nhost: kith\r\ncontent-length: 2\r\n\r\n{{}}",
                stream.exchange
            );
            let mut answers = Vec::new();
            let mut buffer = [0u8; 1024];
            let mut due = stream.from + spacing.mul_f64(first as f64);
            while due < stream.to {
                tokio::time::sleep_until((start + due).into()).await;
                socket.write_all(request.as_bytes()).await.expect("open");
                let mut filled = 0;
                let bid = loop {
                    let more = socket.read(&mut buffer[filled..]).await.expect("open");
                    assert!(more > 0, "closed");
                    filled += more;
                    let bid = buffer.starts_with(b"HTTP/1.1 200 ");
                    let end: &[u8] = if bid { b"\r\n\r\n{}" } else { b"\r\n\r\n" };
                    if buffer[..filled].ends_with(end) {
                        break bid;
                    }
                };
                assert!(bid || buffer.starts_with(b"HTTP/1.1 204 "));
                answers.push(Answered {
                    due,
                    took: (start + due).elapsed(),
                    bid,
                });
                due += spacing.mul_f64(stream.connections as f64);
            }
            answers
        }));
    }
    let mut all = Vec::new();
    for sender in senders {
        all.extend(sender.await.expect("all answered"));
    }
    all
}

/// Plays all streams on one thread.
fn play_all<const N: usize>(server: &BidServer, streams: [Stream; N]) -> [Vec<Answered>; N] {
    let address = server.local_addr();
    let player = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async move {
            let start = Instant::now() + Duration::from_millis(200);
            let playing = streams.map(|stream| tokio::spawn(play(address, start, stream)));
            let mut played = [const { Vec::new() }; N];
            for (all, stream) in played.iter_mut().zip(playing) {
                *all = stream.await.expect("played");
            }
            played
        })
    });
    player.join().expect("played")
}

fn share(answers: &[Answered], good: impl Fn(&Answered) -> bool) -> f64 {
    assert!(!answers.is_empty());
    answers.iter().filter(|a| good(a)).count() as f64 / answers.len() as f64
}

#[test]
fn five_times_too_much_is_answered_in_time_and_starves_nobody() {
    let shed = Arc::new(Shed::default());
    let server = server(&shed);
    let (begin, end) = (Duration::from_millis(500), Duration::from_millis(2_500));
    let loud = Stream {
        exchange: "loud",
        connections: 400,
        per_second: 5.0 * CAPACITY,
        from: begin,
        to: end,
    };
    let quiet = Stream {
        exchange: "quiet",
        connections: 16,
        per_second: 0.06 * CAPACITY,
        from: Duration::ZERO,
        to: end + Duration::from_millis(1_500),
    };
    let after = Stream {
        connections: 50,
        per_second: 0.4 * CAPACITY,
        from: end + Duration::from_millis(700),
        to: end + Duration::from_millis(1_500),
        ..loud
    };
    let [loud, quiet, after] = play_all(&server, [loud, quiet, after]);
    let report = server.drain(Duration::from_secs(5));
    assert_eq!(report.cut, 0);

    let in_time = |a: &Answered| a.took < ALLOWED;
    let bid = |a: &Answered| a.bid;
    let bids = loud.iter().filter(|a| a.bid).count();
    let longest = loud.iter().map(|a| a.took).max();
    eprintln!(
        "loud: {} answers, {:.4} in time, longest {longest:?}, {bids} bids; quiet: {:.3} bids; after: {:.3} bids",
        loud.len(),
        share(&loud, in_time),
        share(&quiet, bid),
        share(&after, bid),
    );
    // Reading a request takes microseconds; that it waited for its turn before is known too.
    let requests = shed.requests.load(Relaxed);
    let no_bids = [&loud, &quiet, &after].map(|answers| answers.iter().filter(|a| !a.bid).count());
    assert_eq!(requests, no_bids.iter().sum::<usize>() as u64);
    let waited_us = shed.waited_us.load(Relaxed) / requests;
    assert!(waited_us > 1_500, "{waited_us} µs");
    assert!(share(&loud, in_time) >= 0.999);
    assert!(share(&quiet, in_time) >= 0.999);
    // Two seconds at capacity are 500 bids; 204s cost some, a busy machine costs more.
    assert!(bids > 100, "{bids} bids");
    assert!(share(&quiet, bid) > 0.85, "{}", share(&quiet, bid));
    // Within a second of the end all is as it was before.
    assert!(share(&after, bid) > 0.95, "{}", share(&after, bid));
    let late = quiet
        .iter()
        .filter(|a| a.due > end + Duration::from_millis(700));
    let mut took: Vec<_> = late.map(|a| a.took).collect();
    took.sort();
    assert!(took[took.len() / 2] < Duration::from_millis(30));
}
