//! Two requests out of one is the bug class. Each case carries a second request inside what a laxer reader would take
//! for a body or a header; the toy bidder must never see it.

use super::*;

const HIDDEN: &str = "POST /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nhidden";

/// Sends the bytes; all replies until the server closes. None may be a success, and the bidder is never called.
fn check_refused(rig: &Rig, name: &str, request: impl AsRef<[u8]>) {
    let mut client = rig.client();
    client.send(request);
    let mut replies = 0;
    while let Some(reply) = client.try_reply() {
        replies += 1;
        assert!((400..500).contains(&reply.status), "{name}: {reply:?}");
        assert!(reply.closes(), "{name}: {reply:?}");
        let _ = client.stream.shutdown(Shutdown::Write);
    }
    assert_eq!(replies, 1, "{name}");
    assert_eq!(rig.seen.calls(), 0, "{name}");
}

#[test]
fn what_is_not_strict_is_refused_and_closed() {
    let rig = Rig::start();
    let start = "POST /bid/demo HTTP/1.1\r\nHost: x\r\n";
    for (name, lines) in [
        (
            "both lengths",
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "both, the other way",
            "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        ),
        (
            "two lengths",
            "Content-Length: 4\r\nContent-Length: 0\r\n\r\nnone",
        ),
        ("a list of lengths", "Content-Length: 4, 4\r\n\r\nnone"),
        ("a signed length", "Content-Length: +4\r\n\r\nnone"),
        ("a negative length", "Content-Length: -4\r\n\r\nnone"),
        ("a hex length", "Content-Length: 0x4\r\n\r\nnone"),
        (
            "a huge length",
            "Content-Length: 18446744073709551616\r\n\r\nnone",
        ),
        ("an empty length", "Content-Length:\r\n\r\nnone"),
        ("space before the colon", "Content-Length : 4\r\n\r\nnone"),
        ("a folded line", "X: y\r\n Content-Length: 4\r\n\r\nnone"),
        ("bare LF", "X: y\nContent-Length: 4\r\n\r\nnone"),
        ("bare LF at the end", "Content-Length: 4\r\n\nnone"),
        ("bare CR", "X: y\rContent-Length: 4\r\n\r\nnone"),
        ("NUL", "X: \0\r\nContent-Length: 4\r\n\r\nnone"),
        ("another coding", "Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n"),
        (
            "a coding before chunked",
            "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "identity, chunked",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked twice",
            "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked before another",
            "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ),
        (
            "quoted chunked",
            "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        ),
        ("two hosts", "Host: y\r\nContent-Length: 4\r\n\r\nnone"),
    ] {
        check_refused(&rig, name, format!("{start}{lines}{HIDDEN}"));
    }
    for (name, head) in [
        (
            "no host",
            "POST /bid/demo HTTP/1.1\r\nContent-Length: 4\r\n\r\nnone",
        ),
        (
            "1.0 and chunked",
            "POST /bid/demo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "another version",
            "POST /bid/demo HTTP/1.2\r\nHost: x\r\nContent-Length: 4\r\n\r\nnone",
        ),
        ("no version", "POST /bid/demo\r\n\r\n"),
        (
            "two spaces",
            "POST  /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnone",
        ),
        ("not HTTP", "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n"),
        (
            "a name that is none",
            "POST /bid/demo HTTP/1.1\r\nHo st: x\r\n\r\n",
        ),
    ] {
        check_refused(&rig, name, format!("{head}{HIDDEN}"));
    }
    soon("all counted", || rig.seen.counted(Refused::Framing) == 29);
}

#[test]
fn http_2_is_not_spoken() {
    let rig = Rig::start();
    let mut client = rig.client();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let _ = client.stream.shutdown(Shutdown::Write);
    assert_eq!(client.rest(), "");
    let upgrade =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    assert_eq!(rig.ask(post("/bid/demo", upgrade, "none")).status, 204);
}

#[test]
fn chunks_that_are_not_strict_end_the_connection() {
    let rig = Rig::start();
    for (name, chunks) in [
        ("no size", "\r\nnone\r\n0\r\n\r\n"),
        ("no hex", "zz\r\nnone\r\n0\r\n\r\n"),
        ("signed", "+4\r\nnone\r\n0\r\n\r\n"),
        ("0x", "0x4\r\nnone\r\n0\r\n\r\n"),
        ("2^64", "10000000000000000\r\nnone\r\n0\r\n\r\n"),
        ("2^64 + 4", "10000000000000004\r\nnone\r\n0\r\n\r\n"),
        ("too short for its data", "3\r\nnone\r\n0\r\n\r\n"),
        ("no CRLF after its data", "4\r\nnone0\r\n\r\n"),
        ("bare LF after its size", "4\nnone\r\n0\r\n\r\n"),
        ("LF in an extension", "4;a\nb\r\nnone\r\n0\r\n\r\n"),
        (
            "no empty line at the end",
            "4\r\nnone\r\n0\r\nPOST /bid/demo",
        ),
    ] {
        let head = "POST /bid/demo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        check_refused(&rig, name, format!("{head}{chunks}{HIDDEN}"));
    }
}

#[test]
fn a_body_is_a_body_whatever_it_says() {
    let rig = Rig::start();
    let mut client = rig.client();
    let body = format!("none {HIDDEN}");
    client.send(post("/bid/demo", "", &body));
    assert_eq!(client.reply().status, 204);
    client.send(post("/bid/unknown", "", HIDDEN));
    assert_eq!(client.reply().status, 404);
    client.send(format!(
        "GET /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{HIDDEN}",
        HIDDEN.len()
    ));
    assert_eq!(client.reply().status, 405);
    // Two equal lengths are one length, says RFC 9112 §6.3; and trailers are no headers.
    client.send(
        "POST /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nnone",
    );
    assert_eq!(client.reply().status, 204);
    client.send("POST /bid/demo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnone\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.reply().status, 204);
    client.still_serves();
    assert_eq!(rig.seen.bodies(), [&body, "none", "none", "bid again"]);
}

#[test]
fn a_pipelined_request_with_both_lengths_is_the_last() {
    let rig = Rig::start();
    let mut client = rig.client();
    let first = post("/bid/demo", "", "none");
    let both = "POST /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbid\r\n0\r\n\r\n";
    client.send([&first[..], both.as_bytes(), HIDDEN.as_bytes()].concat());
    assert_eq!(client.reply().status, 204);
    let _ = client.try_reply();
    assert!(client.is_closed());
    assert!(!rig.seen.bodies().contains(&"hidden".to_owned()));
}

#[test]
fn heads_over_the_limit() {
    let rig = Rig::start();
    let start = "POST /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n";
    for (name, head, status) in [
        (
            "one long line",
            format!("{start}X: {}\r\n\r\n", "y".repeat(1_000_000)),
            431,
        ),
        (
            "many lines",
            format!("{start}{}\r\n", "X: y\r\n".repeat(10_000)),
            431,
        ),
        (
            "101 lines",
            format!("{start}{}\r\n", "X: y\r\n".repeat(101)),
            431,
        ),
        (
            "a long path",
            format!(
                "POST /bid/{} HTTP/1.1\r\nHost: x\r\n\r\n",
                "y".repeat(70_000)
            ),
            431,
        ),
    ] {
        let mut client = rig.client();
        // The server may close before all of it is sent.
        let _ = client.stream.write_all(head.as_bytes());
        let _ = client.stream.shutdown(Shutdown::Write);
        assert_eq!(client.reply().status, status, "{name}");
        assert!(client.is_closed(), "{name}");
    }
    let mut client = rig.client();
    client.send(format!("{start}X: {}\r\n\r\nbid", "y".repeat(15_000)));
    assert_eq!(client.reply().status, 200);
    assert_eq!(rig.seen.calls(), 1);

    let rig = Rig::with(1, |limits| limits.bid_header_bytes = 1000);
    for (bytes, status) in [(800, 200), (1000, 431)] {
        let mut client = rig.client();
        client.send(format!("{start}X: {}\r\n\r\nbid", "y".repeat(bytes)));
        assert_eq!(
            client.reply().status,
            status,
            "{bytes}, under the read buffer's size"
        );
    }
}
