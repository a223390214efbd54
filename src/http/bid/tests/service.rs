//! The listener over time: long connections, pipelines, panics, dealing, limits, the end.

use super::*;

#[test]
fn ten_thousand_requests_on_one_connection() {
    let rig = Rig::start();
    let mut client = rig.client();
    for n in 0..10_000 {
        let (body, status) = match n % 3 {
            0 => ("none", 204),
            1 => ("neither", 400),
            _ => ("bid", 200),
        };
        client.send(post("/bid/demo", "", body));
        assert_eq!(client.reply().status, status, "request {n}");
    }
    assert_eq!(rig.seen.calls(), 10_000);
}

#[test]
fn a_request_arrives_with_its_first_byte() {
    const PAUSE: Duration = Duration::from_millis(400);
    let rig = Rig::start();
    let mut client = rig.client();
    let age = |client: &mut Client| {
        let text = String::from_utf8(client.reply().body).expect("digits");
        Duration::from_millis(text.parse().expect("a number"))
    };
    // Neither opening the connection nor the request before counts.
    client.still_serves();
    thread::sleep(PAUSE);
    client.send(post("/bid/demo", "", "age"));
    assert!(age(&mut client) < PAUSE);
    for cut in [1, 30] {
        let request = post("/bid/demo", "", "age");
        let (first, rest) = request.split_at(cut);
        client.send(first);
        thread::sleep(PAUSE);
        client.send(rest);
        assert!(age(&mut client) >= PAUSE - Duration::from_millis(50));
    }
}

/// However TCP cuts two requests apart, both are answered.
#[test]
fn a_pipelined_request_may_be_cut_anywhere() {
    let rig = Rig::start();
    let first = post("/bid/demo", "", "bid");
    let second = post("/bid/demo", "X-Long: of some length\r\n", "none");
    let both = [&first[..], &second[..]].concat();
    for cut in first.len()..both.len() {
        let mut client = rig.client();
        let (one, two) = both.split_at(cut);
        client.send(one);
        assert_eq!(client.reply().status, 200, "cut at {cut}");
        client.send(two);
        assert_eq!(client.reply().status, 204, "cut at {cut}");
        // And the connection is checked as strictly as ever afterwards.
        client.send(&first);
        assert_eq!(client.reply().status, 200, "cut at {cut}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let rig = Rig::start();
    let mut client = rig.client();
    let order = [
        ("none", 204),
        ("bid", 200),
        ("neither", 400),
        ("panic", 204),
        ("bid", 200),
    ];
    let mut all = Vec::new();
    for round in 0..20 {
        for (body, _) in order {
            all.extend(post("/bid/demo", "", body));
        }
        all.extend(post("/bid/unknown", "", format!("round {round}")));
    }
    client.send(&all);
    for _ in 0..20 {
        for (body, status) in order {
            assert_eq!(client.reply().status, status, "{body}");
        }
        assert_eq!(client.reply().status, 404);
    }
    client.still_serves();
    assert_eq!(rig.seen.calls(), 101);
}

#[test]
fn a_panic_costs_one_request() {
    let rig = Rig::start();
    let mut client = rig.client();
    let mut other = rig.client();
    other.still_serves();
    for _ in 0..3 {
        client.send(post("/bid/demo", "", "panic"));
        let reply = client.reply();
        assert_eq!(reply.status, 204);
        assert_eq!(reply.body, b"");
        client.still_serves();
    }
    other.still_serves();
    assert_eq!(rig.seen.made.load(Ordering::SeqCst), 4);
    assert_eq!(rig.seen.counted(Refused::Panicked), 3);
}

#[test]
fn ticks_come_busy_or_idle() {
    let rig = Rig::start();
    soon("three ticks", || rig.seen.ticks.load(Ordering::SeqCst) >= 3);
}

#[test]
fn connections_are_dealt_evenly_and_to_the_least_loaded() {
    let workers = Arc::new(Mutex::new(BTreeMap::<usize, usize>::new()));
    struct Which {
        index: usize,
        workers: Arc<Mutex<BTreeMap<usize, usize>>>,
    }
    impl Bidder for Which {
        fn bid(
            &mut self,
            _: &Exchange,
            _: &[u8],
            _: Instant,
            _: Instant,
            out: &mut Vec<u8>,
        ) -> Answer {
            *self
                .workers
                .lock()
                .expect("whole")
                .entry(self.index)
                .or_default() += 1;
            out.extend(self.index.to_string().bytes());
            Answer::Bid
        }
        fn shed(&mut self, _: &Exchange) {}
        fn answered(&mut self, _: &Exchange, _: Answer, _: Duration) {}

        fn tick(&mut self, _: Load) {}
        fn refused(&mut self, _: Option<&Exchange>, _: Refused) {}
    }
    let counts = Arc::clone(&workers);
    let listener = BidListener {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        threads: 2,
    };
    let factory = move |thread: BidThread| Which {
        index: thread.index,
        workers: Arc::clone(&counts),
    };
    let server = listener
        .start(&config().limits, exchanges(), factory)
        .expect("a free port");
    let open = |_| {
        let mut client = Client::to(server.local_addr());
        client.send(post("/bid/demo", "", "x"));
        let worker = client.reply().body;
        (client, worker)
    };
    let clients: Vec<_> = (0..40).map(open).collect();
    assert_eq!(
        *workers.lock().expect("whole"),
        BTreeMap::from([(0, 20), (1, 20)])
    );

    // With all of worker 0's connections gone, the next twenty are its.
    let kept: Vec<_> = clients
        .into_iter()
        .filter(|(_, worker)| worker == b"1")
        .collect();
    thread::sleep(Duration::from_millis(300));
    let again: Vec<_> = (0..20).map(open).collect();
    assert!(again.iter().all(|(_, worker)| worker == b"0"));
    drop(kept);
}

#[test]
fn connections_over_the_limit_are_closed_and_counted() {
    let rig = Rig::with(1, |limits| limits.bid_connections = 2);
    let mut first = rig.client();
    let mut second = rig.client();
    first.still_serves();
    second.still_serves();
    let mut third = rig.client();
    assert!(third.is_closed());
    soon("counted", || rig.seen.counted(Refused::Connections) == 1);
    drop(first);
    soon("room again", || {
        let mut next = rig.client();
        let sent = next.stream.write_all(&post("/bid/demo", "", "none"));
        sent.is_ok() && next.try_reply().is_some_and(|reply| reply.status == 204)
    });
    second.still_serves();
}

#[test]
fn half_received_bodies_are_bounded_together() {
    const BODY_BYTES: usize = 20_000;
    let rig = Rig::with(1, |limits| limits.bid_body_bytes = BODY_BYTES);
    let body = format!("none {}", "x".repeat(BODY_BYTES - 5));
    let request = post("/bid/demo", "", &body);
    let (most, last) = request.split_at(request.len() - 1);
    let mut clients: Vec<Client> = (0..140).map(|_| rig.client()).collect();
    for client in &mut clients {
        client.send(most);
    }
    // 128 whole bodies fit; 140 that lack a byte each do not.
    soon("refused", || rig.seen.counted(Refused::Overloaded) == 12);
    for client in &mut clients {
        client.send(last);
    }
    for client in &mut clients {
        assert_eq!(client.reply().status, 204);
        client.still_serves();
    }
    assert_eq!(rig.seen.calls(), 128 + 140);
    for client in &mut clients {
        client.send(&request);
        assert_eq!(client.reply().status, 204);
    }
    assert_eq!(
        rig.seen.counted(Refused::Overloaded),
        12,
        "all was given back"
    );
}

#[test]
fn whatever_bytes_come_the_answer_is_no_5xx_and_the_next_caller_is_served() {
    let rig = Rig::start();
    let chunked = b"POST /bid/demo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnone\r\n0\r\n\r\n";
    let seeds = [
        post("/bid/demo", "Content-Encoding: gzip\r\n", "none"),
        post("/bid/demo?q", "Content-Type: application/json\r\n", "bid"),
        chunked.to_vec(),
    ];
    // xorshift64: the same every time.
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound as u64).expect("small")
    };
    for case in 0..600 {
        let mut bytes = seeds[below(seeds.len())].clone();
        for _ in 0..=below(4) {
            let at = below(bytes.len());
            match below(4) {
                0 => bytes[at] = b"\r\n :0\0,;\xff"[below(9)],
                1 => bytes[at] ^= 1 << below(8),
                2 => drop(bytes.drain(at..(at + below(20)).min(bytes.len() - 1).max(at))),
                _ => {
                    let copy = bytes[at..].to_vec();
                    bytes.splice(at..at, copy);
                }
            }
        }
        let mut client = rig.client();
        client.send(&bytes);
        let _ = client.stream.shutdown(Shutdown::Write);
        let shown = String::from_utf8_lossy(&bytes);
        while let Some(reply) = client.try_reply() {
            assert!(
                (100..500).contains(&reply.status),
                "case {case}: {reply:?}\n{shown}"
            );
        }
        assert!(
            client.buffer.is_empty(),
            "case {case}: half a reply\n{shown}"
        );
    }
    rig.client().still_serves();
    assert_eq!(rig.seen.made.load(Ordering::SeqCst), 1, "no panic");
}

#[test]
fn a_drain_answers_every_request_that_was_begun() {
    let rig = Rig::with(2, |_| {});
    let address = rig.server.local_addr();
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let mut client = Client::to(address);
            client.still_serves();
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    client.send(post("/bid/demo", "", "bid"));
                    let reply = client.reply();
                    answered.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(reply.status, 200);
                    if reply.closes() {
                        assert!(client.is_closed());
                        return true;
                    }
                }
                false
            })
        })
        .collect();
    // One whose body is under way, and one that is idle.
    let mut slow = rig.client();
    slow.send("POST /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nb");
    let mut idle = rig.client();
    idle.still_serves();
    soon("under load", || answered.load(Ordering::SeqCst) > 500);

    // One whose request was already on its way when the drain began.
    let mut late = rig.client();
    late.still_serves();
    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        late.send(post("/bid/demo", "", "bid"));
        let reply = late.reply();
        (reply.status, reply.closes())
    });
    let finishing = thread::spawn(move || {
        thread::sleep(Duration::from_millis(800));
        slow.send("id");
        let reply = slow.reply();
        assert!(slow.is_closed());
        (reply.status, reply.closes())
    });
    let report = rig.server.drain(Duration::from_secs(10));
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.join().expect("no request was lost"), "told to close");
    }
    assert_eq!(finishing.join().expect("answered"), (200, true));
    assert_eq!(late.join().expect("answered"), (200, true));
    assert!(idle.is_closed());
    assert_eq!((report.open, report.cut), (11, 0));
    assert!(report.took < Duration::from_secs(5), "{report:?}");
    assert!(TcpStream::connect(address).is_err(), "no longer listening");
    assert_eq!(
        rig.seen.calls(),
        answered.load(Ordering::SeqCst) + 8 + 1 + 1 + 2
    );
}

#[test]
fn a_drain_ends_at_its_deadline_whoever_is_left() {
    let rig = Rig::start();
    let mut stuck = rig.client();
    stuck.send("POST /bid/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nb");
    thread::sleep(Duration::from_millis(50));
    let report = rig.server.drain(Duration::from_millis(200));
    assert_eq!((report.open, report.cut), (1, 1));
    assert!(report.took < Duration::from_secs(2), "{report:?}");
    assert!(stuck.is_closed());
}

#[test]
fn a_dropped_server_closes_at_once() {
    let rig = Rig::start();
    let mut client = rig.client();
    client.still_serves();
    drop(rig);
    assert!(client.is_closed());
}

#[test]
fn what_cannot_start_says_why() {
    let rig = Rig::start();
    let taken = BidListener {
        listen: rig.server.local_addr(),
        threads: 1,
    };
    let toy = || Toy {
        seen: Arc::default(),
        keeps_bodies: false,
    };
    let again = taken.start(&config().limits, exchanges(), move |_| toy());
    assert_eq!(
        again.expect_err("taken").kind(),
        std::io::ErrorKind::AddrInUse
    );
    let free = BidListener {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        threads: 1,
    };
    let broken = |_| -> Toy { panic!("as asked") };
    assert!(free.start(&config().limits, exchanges(), broken).is_err());
}
