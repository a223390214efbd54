//! Section A of the checklist with real decisions behind it: what a body is answered over HTTP, however it is sent.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use kith::datasets::Live;
use kith::http::bid::{BidListener, BidServer};
use kith::http::bidder::{KithBidder, Shared};
use kith::ledger::Desk;
use kith::metrics::BidThreads;
use serde_json::{Value, json};

use crate::metamorphic::{own_requests, world_of};
use crate::world::{World, corpus, one};

/// A listener with one thread that decides in this world.
fn serve(world: &World) -> BidServer {
    let exchanges = Arc::new(world.config.exchanges.clone());
    let live = Live::new(Arc::clone(&world.generation));
    let threads = BidThreads::new(Arc::clone(&exchanges), 4);
    let shared = Shared {
        ready: Arc::new(AtomicBool::new(true)),
        imps_max: 128,
        books: None,
    };
    let bidder = move |_| {
        KithBidder::new(
            shared.clone(),
            live.reader(),
            Desk::alone(1),
            threads.enlist(),
        )
    };
    let listener = BidListener {
        listen: "127.0.0.1:0".parse().expect("an address"),
        threads: 1,
    };
    listener
        .start(&world.config.limits, exchanges, bidder)
        .expect("a free port")
}

/// A status, its headers in lower case, and what came with it.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    /// The response but for what differs from time to time: its bids' ids.
    fn said(&self) -> (u16, Value) {
        let mut response: Value = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        for seat in response["seatbid"].as_array_mut().into_iter().flatten() {
            for bid in seat["bid"].as_array_mut().into_iter().flatten() {
                assert!(bid["id"].take().is_string());
            }
        }
        (self.status, response)
    }
}

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn to(server: &BidServer) -> Self {
        let stream = TcpStream::connect(server.local_addr()).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self {
            stream: BufReader::new(stream),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("sent");
    }

    fn reply(&mut self) -> Reply {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(
                self.stream.read_line(&mut head).expect("a head"),
                0,
                "dropped: {head}"
            );
        }
        let head = head.to_ascii_lowercase();
        let status = head
            .get(9..12)
            .and_then(|code| code.parse().ok())
            .expect("a status");
        let length = head.split("content-length: ").nth(1).map_or(0, |rest| {
            let digits = rest.split("\r\n").next().unwrap_or_default();
            digits.parse().expect("a length")
        });
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("a body");
        Reply { status, head, body }
    }

    fn ask_at(&mut self, path: &str, lines: &str, body: &[u8]) -> Reply {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: kith\r\ncontent-length: {length}\r\n{lines}\r\n"
        );
        self.send(&[head.as_bytes(), body].concat());
        self.reply()
    }

    fn ask(&mut self, lines: &str, body: &[u8]) -> Reply {
        self.ask_at("/bid/demo", lines, body)
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("to memory");
    encoder.finish().expect("to memory")
}

const GOOD: &str = r#"{"id":"r","imp":[{"id":"1","banner":{"w":300,"h":250}}],"tmax":5000}"#;

#[test]
fn the_version_that_a_request_names_changes_nothing() {
    let server = serve(&one(&json!({})));
    let mut client = Client::to(&server);
    let plain = client.ask("", GOOD.as_bytes());
    assert_eq!(plain.status, 200);
    let twice = "2.5\r\nX-OpenRTB-Version: 3.0";
    for version in [
        "2.5",
        "2.6",
        "2.6-202606",
        "2.999",
        "3.0",
        "1",
        "",
        "two",
        "2.6, 2.5",
        "é",
        twice,
    ] {
        let lines = format!("x-openrtb-version: {version}\r\n");
        let reply = client.ask(&lines, GOOD.as_bytes());
        assert_eq!(reply.said(), plain.said(), "{version}");
        assert!(
            reply.head.contains("x-openrtb-version: 2.6\r\n"),
            "{version}"
        );
        // The body says what it is: a wrapper of 3.0 has no imp, whatever the header claims.
        let wrapped = br#"{"openrtb":{"ver":"3.0","domainspec":"adcom","request":{"id":"r","item":[{"id":"1"}]}}}"#;
        let reply = client.ask(&lines, wrapped);
        assert_eq!((reply.status, reply.body.len()), (400, 0), "{version}");
    }
}

#[test]
fn answers_are_plain_json_whatever_is_accepted() {
    let server = serve(&one(&json!({})));
    let mut client = Client::to(&server);
    for accept in [
        "",
        "gzip",
        "gzip;q=0",
        "*",
        "*;q=0",
        "identity;q=0",
        "br, gzip;q=0.1",
        "\"",
    ] {
        for kind in ["", "application/json", "*/*", "application/x-protobuf"] {
            let lines = format!(
                "accept-encoding: {accept}\r\naccept: {kind}\r\ncontent-type: application/json\r\n"
            );
            let reply = client.ask(&lines, GOOD.as_bytes());
            assert_eq!(reply.status, 200, "{lines}");
            assert!(
                reply.head.contains("content-type: application/json\r\n"),
                "{lines}"
            );
            assert!(!reply.head.contains("content-encoding"), "{lines}");
            assert_eq!(reply.said().1["id"], "r", "{lines}");
            let none = client.ask(&lines, &GOOD.replace("300", "301").into_bytes());
            assert_eq!((none.status, none.body.len()), (204, 0), "{lines}");
            assert!(!none.head.contains("content-"), "{lines}: {}", none.head);
        }
    }
}

#[test]
fn a_no_bid_says_why_where_the_exchange_wants_it() {
    let server = serve(&one(&json!({})));
    let mut client = Client::to(&server);
    for (body, nbr) in [
        (GOOD.replace("5000", "1"), 15),
        (GOOD.replace("5000", "-7"), 15),
        (
            GOOD.replace("\"tmax\"", "\"site\":{},\"app\":{},\"tmax\""),
            2,
        ),
        (GOOD.replace("[{", "[{\"id\":\"1\"},{"), 2),
        (GOOD.replace("\"id\":\"1\",", ""), 2),
        (GOOD.replace("\"tmax\"", "\"badv\":7,\"tmax\""), 2),
        (GOOD.replace("300", "301"), 500),
    ] {
        let reply = client.ask_at("/bid/why", "accept-encoding: gzip\r\n", body.as_bytes());
        let said = format!("{{\"id\":\"r\",\"nbr\":{nbr}}}");
        assert_eq!(
            (reply.status, reply.body),
            (200, said.into_bytes()),
            "{body}"
        );
        assert!(
            reply.head.contains("content-type: application/json\r\n"),
            "{body}"
        );
        let plain = client.ask("", body.as_bytes());
        assert_eq!((plain.status, plain.body.len()), (204, 0), "{body}");
    }
    // What is no request is told no reason.
    for body in [
        "",
        "[]",
        "{}",
        r#"{"id":"r"}"#,
        r#"{"id":"","imp":[{}]}"#,
        "{\"id\":\"r\",\"imp\":[{}]}\0",
    ] {
        let reply = client.ask_at("/bid/why", "", body.as_bytes());
        assert_eq!((reply.status, reply.body.len()), (400, 0), "{body}");
    }
    assert_eq!(
        client.ask_at("/bid/why", "", GOOD.as_bytes()).status,
        200,
        "and on it goes"
    );
}

#[test]
fn the_id_comes_back_as_it_was_sent() {
    let server = serve(&one(&json!({})));
    let mut client = Client::to(&server);
    let long = "é€😀\u{2028}</script>\"\\/".repeat(50);
    assert!(long.len() > 1024);
    for id in [
        long.as_str(),
        "a\\b",
        "0",
        " ",
        "\u{7f}",
        "null",
        "9007199254740993",
    ] {
        let mut request: Value = serde_json::from_str(GOOD).expect("JSON");
        request["id"] = json!(id);
        request["imp"][0]["id"] = json!(id);
        let (status, response) = client.ask("", request.to_string().as_bytes()).said();
        assert_eq!((status, &response["id"]), (200, &json!(id)));
        assert_eq!(response["seatbid"][0]["bid"][0]["impid"], json!(id));
    }
    // A number for an id comes back as the text that its digits are.
    let body = GOOD.replace("\"r\"", "9007199254740993");
    assert_eq!(
        client.ask("", body.as_bytes()).said().1["id"],
        "9007199254740993"
    );
}

/// Our own requests, and of each folder of the corpus the first and the last.
fn sample() -> Vec<Value> {
    let mut sample = own_requests();
    let (Some(lines), Some(sources)) = (corpus("requests.jsonl"), corpus("SOURCES.tsv")) else {
        return sample;
    };
    let folder = |row: &String| {
        let mut cells = row.split('\t');
        let line: usize = cells.next()?.parse().ok()?;
        let path = cells.nth(2)?;
        Some((
            path.rsplit_once('/')
                .map_or("", |(folder, _)| folder)
                .to_owned(),
            line,
        ))
    };
    let mut folders = std::collections::BTreeMap::<String, (usize, usize)>::new();
    for (folder, line) in sources.iter().filter_map(folder) {
        folders.entry(folder).or_insert((line, line)).1 = line;
    }
    assert!(folders.len() > 50, "{}", folders.len());
    for (first, last) in folders.into_values() {
        for line in [first, last] {
            let text = lines.get(line.wrapping_sub(1)).expect("the line");
            sample.push(serde_json::from_str(text).expect("JSON"));
        }
    }
    sample
}

/// Whole, coded, in chunks, in many segments: one answer. And each is 200, 204 or 400, on a connection that stays.
#[test]
fn neither_coding_nor_chunks_change_an_answer() {
    let sample = sample();
    let world = world_of(&sample);
    let server = serve(&world);
    let mut client = Client::to(&server);
    let mut bids = 0;
    for request in &sample {
        let body = request.to_string();
        let plain = client.ask("", body.as_bytes());
        assert!(matches!(plain.status, 200 | 204), "{} {body}", plain.status);
        assert!(!plain.head.contains("connection: close"), "{body}");
        bids += usize::from(plain.status == 200);

        let packed = gzip(body.as_bytes());
        let coded = client.ask(
            "content-encoding: gzip\r\ncontent-type: application/json;charset=utf-8\r\n",
            &packed,
        );
        assert_eq!(coded.said(), plain.said(), "{body}");

        for (coding, bytes) in [
            ("", body.as_bytes()),
            ("content-encoding: GZIP\r\n", &packed),
        ] {
            let mut sent = format!("POST /bid/demo HTTP/1.1\r\nhost: kith\r\n{coding}transfer-encoding: chunked\r\n\r\n").into_bytes();
            for chunk in bytes.chunks(97) {
                sent.extend(format!("{:x}\r\n", chunk.len()).bytes());
                sent.extend(chunk);
                sent.extend(b"\r\n");
            }
            sent.extend(b"0\r\n\r\n");
            let (first, rest) = sent.split_at(sent.len() / 2);
            client.send(first);
            client.send(rest);
            assert_eq!(client.reply().said(), plain.said(), "{body}");
        }
    }
    assert!(bids > 5, "{bids} bids");
}

/// Real decisions, ten thousand of them on one connection: bids, no-bids and what is malformed.
#[test]
fn ten_thousand_decisions_on_one_connection() {
    let server = serve(&one(&json!({})));
    let mut client = Client::to(&server);
    let none = GOOD.replace("300", "301");
    for n in 0..10_000 {
        let (body, status) = [(GOOD, 200), (none.as_str(), 204), ("{", 400)][n % 3];
        assert_eq!(
            client.ask("", body.as_bytes()).status,
            status,
            "request {n}"
        );
    }
}
