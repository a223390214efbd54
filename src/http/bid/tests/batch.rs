//! Requests that wait for one worker together: each gets its own answer, and none waits for many slow ones.

use super::*;

/// A rig whose only worker is busy for a tenth of a second from now on.
fn busy() -> (Rig, Client) {
    let rig = Rig::start();
    let mut client = rig.client();
    client.send(post("/bid/demo", "", "sleep 100"));
    soon("the worker is busy", || rig.seen.calls() == 1);
    (rig, client)
}

#[test]
fn requests_that_wait_together_each_get_their_own_answer() {
    let (rig, mut first) = busy();
    // Over two batches of them.
    let mut clients: Vec<_> = (0..40).map(|_| rig.client()).collect();
    let asked = |n: usize| match n % 8 {
        5 => ("panic".to_owned(), 204, String::new()),
        6 => ("what?".to_owned(), 400, String::new()),
        7 => ("none".to_owned(), 204, String::new()),
        _ => (format!("echo {n}"), 200, n.to_string()),
    };
    for (n, client) in clients.iter_mut().enumerate() {
        let (body, ..) = asked(n);
        // Some come in two pieces, and some with the next one behind them.
        let mut bytes = post("/bid/demo", "", body);
        if n % 3 == 0 {
            bytes.extend(post("/bid/demo", "", format!("echo next {n}")));
        }
        let (head, rest) = bytes.split_at(if n % 2 == 0 {
            bytes.len()
        } else {
            bytes.len() - 2
        });
        client.send(head);
        client.send(rest);
    }
    assert_eq!(first.reply().status, 200);
    for (n, client) in clients.iter_mut().enumerate() {
        let (_, status, body) = asked(n);
        let reply = client.reply();
        assert_eq!(reply.status, status);
        assert_eq!(String::from_utf8_lossy(&reply.body), body);
        if n % 3 == 0 {
            assert_eq!(client.reply().body, b"next");
        }
        client.still_serves();
    }
    let pipelined = (0..40).filter(|n| n % 3 == 0).count();
    soon("all are counted once", || {
        rig.seen.answered.load(Ordering::SeqCst) == 1 + 40 - 5 + pipelined + 40
    });
}

#[test]
fn slow_decisions_are_not_heaped_up() {
    let (rig, mut first) = busy();
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut client = rig.client();
            client.send(post("/bid/demo", "", "sleep 20"));
            let seen = Arc::clone(&rig.seen);
            thread::spawn(move || {
                assert_eq!(client.reply().status, 200);
                seen.calls()
            })
        })
        .collect();
    assert_eq!(first.reply().status, 200);
    let decided = waiting
        .into_iter()
        .map(|client| client.join().expect("a reply"));
    assert!(
        decided.min() < Some(5),
        "the first was answered when all were decided on"
    );
}

#[test]
fn who_hangs_up_while_waiting_costs_the_others_nothing() {
    let (rig, mut first) = busy();
    let mut stays = rig.client();
    for n in 0..20 {
        let mut gone = rig.client();
        gone.send(post("/bid/demo", "", format!("echo {n}")));
    }
    stays.send(post("/bid/demo", "", "echo here"));
    assert_eq!(first.reply().status, 200);
    assert_eq!(stays.reply().body, b"here");
    stays.still_serves();
    drop((first, stays));
    let report = rig.server.drain(Duration::from_secs(5));
    assert_eq!(report.cut, 0);
}

#[test]
fn who_sends_ahead_does_not_overtake_those_who_wait() {
    const AHEAD: usize = 200;
    let (rig, mut first) = busy();
    let mut eager: Vec<_> = (0..20).map(|_| rig.client()).collect();
    for client in &mut eager {
        client.send(post("/bid/demo", "", "none").repeat(AHEAD));
    }
    let mut patient: Vec<_> = (0..50).map(|_| rig.client()).collect();
    for client in &mut patient {
        client.send(post("/bid/demo", "", "echo patient"));
    }
    assert_eq!(first.reply().status, 200);
    for client in &mut patient {
        assert_eq!(client.reply().status, 200);
    }
    for client in &mut eager {
        for _ in 0..AHEAD {
            assert_eq!(client.reply().status, 204);
        }
    }
    let bodies = rig.seen.bodies();
    let last = bodies.iter().rposition(|body| body == "echo patient");
    // A few turns of all; were it a batch for each of them, it would be a thousand.
    assert!(last < Some(400), "the last of them was number {last:?}");
}
