//! Statuses, headers, bodies: what each kind of request is answered, and what becomes of its connection.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("to memory");
    encoder.finish().expect("to memory")
}

#[test]
fn a_bid_a_no_bid_and_a_malformed_body() {
    let rig = Rig::start();
    let mut client = rig.client();

    client.send(post("/bid/demo", "", "bid"));
    let bid = client.reply();
    assert_eq!(bid.status, 200);
    assert_eq!(bid.body, BID.as_bytes());
    assert_eq!(bid.header("content-type"), Some("application/json"));
    assert_eq!(bid.header("x-openrtb-version"), Some("2.6"));

    let gzip_please = "Accept-Encoding: gzip\r\n";
    for nothing in ["none", "empty"] {
        client.send(post("/bid/demo", gzip_please, nothing));
        let reply = client.reply();
        assert_eq!(reply.status, 204);
        assert_eq!(reply.header("x-openrtb-version"), Some("2.6"));
        for absent in [
            "content-type",
            "content-encoding",
            "content-length",
            "transfer-encoding",
            "connection",
        ] {
            assert_eq!(reply.header(absent), None, "{absent}");
        }
    }

    for malformed in ["", "neither"] {
        client.send(post("/bid/demo", "", malformed));
        let reply = client.reply();
        assert_eq!(reply.status, 400);
        assert_eq!(reply.header("content-length"), Some("0"));
        assert_eq!(reply.header("content-type"), None);
        assert_eq!(reply.header("x-openrtb-version"), Some("2.6"));
    }
    client.still_serves();
    assert_eq!(
        rig.seen.bodies(),
        ["bid", "none", "empty", "", "neither", "bid again"]
    );
}

#[test]
fn who_may_call_where() {
    let rig = Rig::start();
    let mut client = rig.client();
    for (path, status) in [
        ("/bid/demo?a=b&c", 204),
        ("http://any.example/bid/demo", 204),
        ("/bid/near", 204),
        ("/bid/far", 403),
        ("/bid/keyed/k3y", 204),
        ("/bid/keyed/k3y?x", 204),
        ("/bid/keyed", 404),
        ("/bid/keyed/", 404),
        ("/bid/keyed/K3Y", 404),
        ("/bid/keyed/k3y/", 404),
        ("/bid/demo/k3y", 404),
        ("/bid/demo/", 404),
        ("/bid/unknown", 404),
        ("/bid/", 404),
        ("/bid", 404),
        ("/Bid/demo", 404),
        ("/", 404),
        ("/v1/datasets", 404),
        ("/metrics", 404),
        ("/n/win/token", 404),
        ("*", 404),
    ] {
        client.send(post(path, "", "none"));
        let reply = client.reply();
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.body, b"", "{path}");
        assert_eq!(reply.header("x-openrtb-version"), Some("2.6"), "{path}");
        assert!(!reply.closes(), "{path}");
    }
    client.still_serves();
    assert_eq!(rig.seen.calls(), 6, "nothing refused reached the bidder");
    let refused = rig.seen.refused.lock().expect("whole").clone();
    assert!(refused.contains(&(Some("far".to_owned()), Refused::Caller)));
    assert!(refused.contains(&(Some("keyed".to_owned()), Refused::Key)));
    assert!(refused.contains(&(None, Refused::Path)));
}

#[test]
fn an_ipv4_caller_of_an_ipv6_socket_is_known_by_its_ipv4_address() {
    let rig = Rig::at("[::]:0", 1, |_| {});
    let port = rig.server.local_addr().port();
    let mut client = Client::to(SocketAddr::from(([127, 0, 0, 1], port)));
    for (path, status) in [("/bid/near", 204), ("/bid/far", 403)] {
        client.send(post(path, "", "none"));
        assert_eq!(client.reply().status, status, "{path}");
    }
}

#[test]
fn post_is_the_only_method() {
    let rig = Rig::start();
    let mut client = rig.client();
    for method in [
        "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "post", "BREW",
    ] {
        client.send(format!(
            "{method} /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nbid"
        ));
        let reply = client.reply();
        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.header("allow"), Some("POST"), "{method}");
        assert!(!reply.closes(), "{method}");
    }
    client.send("GET /c/token HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.reply().status, 404);
    client.still_serves();
    assert_eq!(rig.seen.calls(), 1);
    assert_eq!(
        rig.ask("CONNECT kith:80 HTTP/1.1\r\nHost: kith:80\r\n\r\n")
            .status,
        404
    );
}

#[test]
fn content_types_and_encodings() {
    let rig = Rig::start();
    let mut client = rig.client();
    for (lines, status) in [
        ("Content-Type: application/json;charset=utf-8\r\n", 204),
        ("Content-Type:Application/JSON \r\n", 204),
        ("Content-Type: application/openrtb+json\r\n", 204),
        ("Content-Type: text/plain\r\n", 415),
        ("Content-Type: application/x-protobuf\r\n", 415),
        ("Content-Type: avro/binary\r\n", 415),
        ("Content-Encoding: identity\r\n", 204),
        ("Content-Encoding: br\r\n", 415),
        ("Content-Encoding: gzip, gzip\r\n", 415),
        ("x-openrtb-version: 2.5\r\n", 204),
        ("x-openrtb-version: 3.0\r\n", 204),
        ("x-openrtb-version: \r\n", 204),
        ("Upgrade: h2c\r\nConnection: upgrade\r\n", 204),
    ] {
        client.send(post("/bid/demo", lines, "none"));
        assert_eq!(client.reply().status, status, "{lines:?}");
    }
    client.still_serves();
    assert_eq!(rig.seen.counted(Refused::ContentType), 3);
    assert_eq!(rig.seen.counted(Refused::ContentEncoding), 2);
}

#[test]
fn gzip_bodies() {
    let rig = Rig::with(1, |limits| limits.bid_body_bytes = 10_000);
    let mut client = rig.client();
    let mut ask = |encoding: &str, body: &[u8]| {
        let line = format!("Content-Encoding: {encoding}\r\n");
        client.send(post("/bid/demo", &line, body));
        let reply = client.reply();
        assert!(!reply.closes());
        reply.status
    };
    let whole = gzip(b"none of it");
    assert_eq!(ask("gzip", &whole), 204);
    assert_eq!(ask("GZIP", &whole), 204);
    assert_eq!(ask("identity", &whole), 400, "not announced, not decoded");
    assert_eq!(ask("gzip", b"none"), 400, "announced, but not so");
    assert_eq!(ask("gzip", b""), 400);
    assert_eq!(ask("gzip", &whole[..whole.len() - 1]), 400, "cut");
    assert_eq!(ask("gzip", &[&whole[..], b"\0"].concat()), 400, "trailing");
    assert_eq!(
        ask("gzip", &[&whole[..], &whole].concat()),
        400,
        "two members"
    );
    let mut wrong_sum = whole.clone();
    let sum_at = whole.len() - 8;
    wrong_sum[sum_at] ^= 1;
    assert_eq!(ask("gzip", &wrong_sum), 400);
    assert_eq!(
        ask("gzip", &gzip(&whole)),
        400,
        "coded twice: what comes out is no request"
    );
    let exact = format!("none {}", "x".repeat(9_995));
    assert_eq!(ask("gzip", &gzip(exact.as_bytes())), 204);
    assert_eq!(ask("gzip", &gzip(format!("{exact}y").as_bytes())), 413);
    assert_eq!(ask("gzip", &gzip(&vec![b' '; 4 << 20])), 413, "a bomb");
    assert_eq!(ask("gzip", &whole), 204, "and on it goes");
    assert_eq!(rig.seen.counted(Refused::TooLarge), 2);
    assert_eq!(rig.seen.counted(Refused::Gzip), 6);
}

fn chunked(parts: &[&str]) -> String {
    let mut text =
        "POST /bid/demo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n".to_owned();
    for part in parts {
        text += &format!("{:x};ext=1\r\n{part}\r\n", part.len());
    }
    text + "0\r\nTrailer: x\r\n\r\n"
}

#[test]
fn chunked_bodies_and_split_segments() {
    let rig = Rig::start();
    let mut client = rig.client();
    client.send(chunked(&["bid"]));
    assert_eq!(client.reply().status, 200);
    client.send(chunked(&["bi", "d", " and more"]));
    assert_eq!(client.reply().status, 200);
    client.send(chunked(&[]));
    assert_eq!(client.reply().status, 400);
    for request in [
        post("/bid/demo", "", "bid it"),
        chunked(&["bid", " it"]).into_bytes(),
    ] {
        for byte in request {
            client.send([byte]);
        }
        assert_eq!(client.reply().status, 200);
    }
    let long = format!("none {}", "0123456789".repeat(20_000));
    client.send(post("/bid/demo", "", &long));
    assert_eq!(client.reply().status, 204);
    let thousands: Vec<&str> = long
        .as_bytes()
        .chunks(1000)
        .map(|c| std::str::from_utf8(c).expect("ascii"))
        .collect();
    client.send(chunked(&thousands));
    assert_eq!(client.reply().status, 204);
    assert_eq!(
        rig.seen.bodies(),
        ["bid", "bid and more", "", "bid it", "bid it", &long, &long]
    );
}

#[test]
fn expect_continue_is_answered_by_a_hundred_or_by_the_refusal_itself() {
    let rig = Rig::start();
    let expecting = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut client = rig.client();
    client.send(expecting("/bid/demo"));
    assert_eq!(client.reply().status, 100);
    client.send("bid");
    assert_eq!(client.reply().status, 200);
    client.still_serves();

    let mut refused = rig.client();
    refused.send(expecting("/bid/unknown"));
    let reply = refused.reply();
    assert_eq!(reply.status, 404);
    assert!(reply.closes());
    assert!(refused.is_closed());

    let mut long = rig.client();
    long.send("POST /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(long.reply().status, 413);
    assert!(long.is_closed());
}

#[test]
fn too_large_is_said_before_the_connection_closes() {
    let rig = Rig::with(1, |limits| limits.bid_body_bytes = 50_000);
    let body = vec![b' '; 3_000_000];

    // Announced: answered from the head alone, and the answer survives what the client goes on sending.
    let mut client = rig.client();
    client.send(post("/bid/demo", "", &body));
    let reply = client.reply();
    assert_eq!(reply.status, 413);
    assert!(reply.closes());
    client.stream.shutdown(Shutdown::Write).expect("open");
    assert!(client.is_closed());

    // Not announced: as soon as it is over.
    let mut client = rig.client();
    client.send("POST /bid/demo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..60 {
        client.send("3e8\r\n");
        client.send(&body[..1000]);
        client.send("\r\n");
    }
    assert_eq!(client.reply().status, 413);

    // A refused request's body is drained within the same bound.
    let mut client = rig.client();
    client.send(post("/bid/unknown", "", &body[..50_000]));
    assert!(!client.reply().closes());
    client.send(post("/bid/unknown", "", &body));
    let reply = client.reply();
    assert_eq!(reply.status, 404);
    assert!(reply.closes());
    let mut client = rig.client();
    client.send("POST /bid/unknown HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("ea60\r\n");
    client.send(&body[..60_000]);
    let reply = client.reply();
    assert_eq!(reply.status, 404, "without the body's end");
    assert!(reply.closes());

    let mut client = rig.client();
    client.send(post("/bid/demo", "", &body[..50_000]));
    assert_eq!(client.reply().status, 400, "at the limit it is asked about");
    client.still_serves();
    assert_eq!(rig.seen.counted(Refused::TooLarge), 2);
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let rig = Rig::start();
    let mut client = rig.client();
    client
        .send("POST /bid/demo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nbid");
    let reply = client.reply();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body, BID.as_bytes());
    assert!(client.is_closed());
}

#[test]
fn a_client_that_closes_its_half_is_still_answered() {
    let rig = Rig::start();
    let mut client = rig.client();
    client.send(post("/bid/demo", "", "bid"));
    client.stream.shutdown(Shutdown::Write).expect("open");
    assert_eq!(client.reply().status, 200);
    assert!(client.is_closed());

    // Within a body: there is no request, and it is told so.
    let mut client = rig.client();
    client.send("POST /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nbid");
    client.stream.shutdown(Shutdown::Write).expect("open");
    let reply = client.reply();
    assert_eq!(reply.status, 400);
    assert!(reply.closes());
    assert!(client.is_closed());
    assert_eq!(rig.seen.bodies(), ["bid"]);
    assert_eq!(rig.seen.counted(Refused::Framing), 1);
}
