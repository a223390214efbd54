//! Each phase of a connection has its own deadline, and only its own.

use super::*;

const SHORT_MS: u64 = 300;
/// A deadline fires at its length plus two sweeps of a quarter; the rest is what a busy machine adds.
const IN_TIME: std::ops::Range<Duration> =
    Duration::from_millis(SHORT_MS)..Duration::from_millis(1500);

fn until_closed(client: &mut Client) -> Duration {
    let began = Instant::now();
    assert_eq!(client.rest(), "");
    began.elapsed()
}

#[test]
fn an_idle_connection() {
    let rig = Rig::with(1, |limits| limits.idle_timeout_ms = SHORT_MS);
    let mut fresh = rig.client();
    let mut used = rig.client();
    used.still_serves();
    assert!(IN_TIME.contains(&until_closed(&mut fresh)));
    assert_eq!(used.rest(), "");
    assert!(
        rig.seen.refused.lock().expect("whole").is_empty(),
        "idling is no offence"
    );
}

#[test]
fn a_head_that_does_not_end() {
    let rig = Rig::with(1, |limits| limits.header_timeout_ms = SHORT_MS);
    let mut silent = rig.client();
    silent.send("POST /bid/demo HTTP/1.1\r\nHo");
    assert!(IN_TIME.contains(&until_closed(&mut silent)));

    // Byte by byte, for ever: the deadline is the head's, not the byte's.
    let mut slow = rig.client();
    let began = Instant::now();
    while slow.stream.write_all(b"P").is_ok() {
        assert!(began.elapsed() < IN_TIME.end);
        thread::sleep(Duration::from_millis(20));
    }
    assert!(IN_TIME.contains(&began.elapsed()));
    assert_eq!(rig.seen.counted(Refused::HeadTimeout), 2);

    // Neither an idle connection nor a slow body is a slow head.
    let mut idle = rig.client();
    let mut body = rig.client();
    body.send("POST /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nb");
    thread::sleep(Duration::from_millis(2 * SHORT_MS));
    body.send("id");
    assert_eq!(body.reply().status, 200);
    idle.still_serves();
}

#[test]
fn a_body_that_does_not_end() {
    let rig = Rig::with(1, |limits| limits.body_timeout_ms = SHORT_MS);
    for lines in [
        "Content-Length: 5\r\n\r\nnone",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nnone\r\n",
        "Content-Length: 5\r\n\r\n",
    ] {
        let mut client = rig.client();
        client.send(format!("POST /bid/demo HTTP/1.1\r\nHost: x\r\n{lines}"));
        assert!(IN_TIME.contains(&until_closed(&mut client)), "{lines:?}");
    }
    let mut unsent = rig.client();
    unsent.send(
        "POST /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(unsent.reply().status, 100);
    assert!(unsent.is_closed());
    let mut refused = rig.client();
    refused.send("POST /bid/unknown HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n");
    assert!(IN_TIME.contains(&until_closed(&mut refused)));
    assert_eq!(rig.seen.calls(), 0);
    soon("all counted", || {
        rig.seen.counted(Refused::BodyTimeout) == 5
    });
    let counted = rig.seen.refused.lock().expect("whole").clone();
    assert_eq!(counted[0], (Some("demo".to_owned()), Refused::BodyTimeout));
}

#[test]
fn a_client_that_never_reads() {
    let rig = Rig::with(1, |limits| limits.write_timeout_ms = SHORT_MS);
    let mut client = rig.client();
    client.send(post("/bid/demo", "", "big"));
    soon("closed", || rig.seen.counted(Refused::WriteTimeout) == 1);
    assert!(client.rest().len() < BIG_ANSWER_BYTES);

    // One that reads gets all of it; how long 32 MiB take here is not the point.
    let rig = Rig::start();
    let mut client = rig.client();
    client.send(post("/bid/demo", "", "big"));
    assert_eq!(client.reply().body.len(), BIG_ANSWER_BYTES);
    client.still_serves();
}

#[test]
fn a_refused_client_that_goes_on_sending() {
    let rig = Rig::with(1, |limits| limits.write_timeout_ms = SHORT_MS);
    let mut client = rig.client();
    client.send("POST /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n");
    assert_eq!(client.reply().status, 413);
    let began = Instant::now();
    while client.stream.write_all(b"x").is_ok() {
        assert!(began.elapsed() < IN_TIME.end);
        thread::sleep(Duration::from_millis(10));
    }
}
