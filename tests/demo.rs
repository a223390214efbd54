//! `kith demo`, from its first line to its last, and requests from elsewhere through it.
#![expect(
    clippy::print_stdout,
    reason = "what was shown is what one wants to see of a test that failed"
)]
#![allow(clippy::disallowed_methods, reason = "a test may read its environment")]

use std::path::{Path, PathBuf};

use kith::demo::{DemoError, Options, show};

/// What is shown with these options, and whether it went through.
fn shown(requests: Option<PathBuf>) -> (String, Result<(), DemoError>) {
    let options = Options {
        once: true,
        requests,
    };
    let mut out = Vec::new();
    let result = show(&options, &mut out, false);
    let text = String::from_utf8(out).expect("text");
    println!("{text}");
    (text, result)
}

/// What is printed of one fixture request.
fn block<'t>(text: &'t str, id: &str) -> Vec<&'t str> {
    let lines = text.lines().skip_while(|line| {
        let mut words = line.split("  ").filter(|word| !word.is_empty());
        words.next() != Some(id)
    });
    lines.skip(1).take_while(|line| !line.is_empty()).collect()
}

#[test]
fn every_fixture_request_is_decided_as_its_name_says_and_the_swap_and_the_rollback_show() {
    let (text, result) = shown(None);
    result.expect("nothing wrong");
    let person_is = |id: &str, person: &str| {
        let block = block(&text, id);
        assert!(
            block
                .iter()
                .any(|line| line.trim_start().starts_with("person") && line.contains(person)),
            "{id}: {block:?}"
        );
    };
    let decided = |id: &str, decision: &str| {
        let block = block(&text, id);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            block.iter().any(|line| words(line).contains(decision)),
            "{id}: {block:?}"
        );
    };
    let refused = |id: &str, refusal: &str| {
        let block = block(&text, id).join(" ");
        let block = block.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(block.contains(refusal), "{id}: {block}");
    };

    person_is("vip-customer", "buyeruid → crm/newsletter crm/vip");
    decided("vip-customer", "bid 6.50 USD for trailhead-vip");
    person_is("cart-abandoner", "ifa → site/cart site/viewed-boots");
    decided("cart-abandoner", "bid 4.20 USD for trailhead-cart");
    person_is("ios-ifa-upper-case", "ifa → site/cart");
    decided("ios-ifa-upper-case", "bid 4.20 USD for trailhead-cart");
    person_is("unknown-person", "buyeruid → in none of our segments");
    decided("unknown-person", "no-bid floor");
    refused("unknown-person", "floor: stadium-anywhere");
    person_is("sports-page", "no id in the request");
    decided("sports-page", "bid 1.10 USD for stadium-sports-pages");
    person_is("extended-id-2.5", "uidapi.com → crm/vip");
    decided("extended-id-2.5", "bid 6.50 USD for trailhead-vip");
    person_is("france-cheap-slot", "nobody is looked up (closed: GDPR");
    decided("france-cheap-slot", "bid 0.80 USD for bistro-nearby");
    decided(
        "private-deal",
        "bid 8.00 USD in deal demo-deal-1 for stadium-deal",
    );
    decided("two-imps", "imp top bid 6.50 USD");
    decided("two-imps", "imp side bid 6.50 USD");
    for closed in ["coppa", "gdpr-no-consent", "us-opted-out"] {
        person_is(closed, "nobody is looked up (closed: ");
        decided(closed, "no-bid");
    }
    decided("blocked-category", "no-bid");
    refused("blocked-category", "blocked_category: trailhead-vip");
    decided("floor-too-high", "no-bid floor");
    refused("floor-too-high", "floor: stadium-anywhere, trailhead-vip");
    decided("wrong-size", "no-bid size");
    decided("audio-only", "no-bid format");
    decided("sports-video", "bid 2.40 USD for stadium-live");
    decided("sports-feed", "bid 2.40 USD for stadium-live");
    refused("vip-customer", "flight: trailhead-2024");
    refused("vip-customer", "paused: trailhead-winter");

    let at = |part: &str| {
        text.find(part)
            .unwrap_or_else(|| panic!("{part:?} is not shown"))
    };
    let order = [
        at("site version 1: cart-abandoner gets bid 4.20 USD"),
        at("PUT /v1/datasets/site/versions/2"),
        at("site version 2: cart-abandoner gets no-bid (now in site/buyers"),
        at("rollback done"),
        text.rfind("site version 1: cart-abandoner gets bid 4.20 USD")
            .expect("twice"),
        at("0 failed, 0 mixed decisions"),
    ];
    assert!(order.is_sorted() && order[0] < order[4], "{order:?}");
    for url in ["/bid/demo", "/v1/datasets", "/metrics", "/readyz"] {
        assert!(text[at("Try it yourself")..].contains(url), "{url}");
    }
    assert!(!text.contains("WRONG") && !text.contains('\x1b'));
}

#[test]
fn real_requests_go_through_without_a_failure() {
    let folder = std::env::var_os("KITH_CORPUS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"),
        PathBuf::from,
    );
    let corpus = folder.join("requests.jsonl");
    if !corpus.exists() {
        println!("skipped: there is no corpus of real requests beside the repository");
        return;
    }
    let lines = std::fs::read_to_string(&corpus)
        .expect("text")
        .lines()
        .count();
    let (text, result) = shown(Some(corpus));
    result.expect("nothing wrong");
    assert!(text.contains(&format!("{lines} lines in ")));
    for not_there in ["no answer", "not sent", "413 "] {
        assert!(!text.contains(not_there), "{not_there}");
    }
}

#[test]
fn lines_that_are_no_requests_are_told_and_hurt_nobody() {
    let good = include_str!("../fixtures/requests.jsonl");
    let good = good.lines().next().expect("a line").as_bytes();
    let mut file: Vec<u8> = Vec::new();
    for line in [
        good,
        b"",
        b"garbage",
        b"\xff\xfe\x00",
        b"[]",
        b"{\"id\":1",
        &[b'['; 100_000],
        &[b'x'; 2 << 20],
        &[b'y'; 9 << 20],
        good,
    ] {
        file.extend_from_slice(line);
        file.push(b'\n');
    }
    // The last line has no end.
    file.extend_from_slice(good);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("requests.jsonl");
    std::fs::write(&path, file).expect("written");
    let (text, result) = shown(Some(path));
    result.expect("that is no failure");
    let line = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        assert!(
            text.lines().any(|line| {
                let line: Vec<&str> = line.split_whitespace().collect();
                line.ends_with(&words)
            }),
            "{words:?}"
        );
    };
    line("3 200 bid");
    line("6 400 no bid request");
    line("1 413 too large");
    line("400 at line 2 3 4 5 6 7");
    line("413 at line 8");
    line("not sent 9");
}

#[test]
fn a_file_that_is_not_there_is_told_by_name() {
    let (_, result) = shown(Some(PathBuf::from("no-such-file.jsonl")));
    let error = result.expect_err("no file").to_string();
    assert!(error.contains("no-such-file.jsonl"), "{error}");
}
