//! A version goes live while requests are answered, and the one before comes back.
//!
//! Two connections ask all the time. Each answer is held against the versions that were live between its sending and
//! its arrival: what fits none of them would be a decision that mixes two.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::connection::Connection;
use super::operator::Operator;
use super::page::{self, Page};
use super::stop::Stop;
use super::{DemoError, SITE_2, story};

const CONNECTIONS: usize = 2;
/// The one who buys, and the one who does not: nothing may change for the second.
const SHOPPERS: [&str; 2] = ["cart-abandoner", "ios-ifa-upper-case"];
/// How long traffic runs before, between and after the two switches.
const PHASE: Duration = Duration::from_millis(500);
/// Between two requests of a connection, so that there are thousands and not tens of thousands.
const PACE: Duration = Duration::from_micros(500);
/// Columns of the strip.
const STRIP: usize = 60;

/// One answer, in time since the traffic began.
struct Seen {
    shopper: usize,
    sent: Duration,
    answered: Duration,
    decided: Result<Value, String>,
}

/// A stretch of time in which answers of a version are right: from the call that made it live to the answer to the call
/// that made another live.
struct Live {
    from: Duration,
    to: Duration,
    /// What the version says to each of the shoppers.
    says: [Value; 2],
}

/// Swaps and rolls back. Returns what was not as it should be.
pub(super) fn show(
    bid: SocketAddr,
    operator: &Operator,
    page: &mut Page<'_>,
    stop: &Stop,
) -> Result<Vec<String>, DemoError> {
    let requests = SHOPPERS.map(|shopper| {
        let found = story::requests().find(|(id, _)| id == shopper);
        let fields = found.and_then(|(_, request)| request.strip_prefix('{'));
        // As tests, so that thousands of bids for one person spend nothing and reach no cap.
        format!("{{\"test\": 1, {}", fields.unwrap_or("}"))
    });
    let requests = [requests[0].as_str(), requests[1].as_str()];
    page.section("A new version goes live while traffic runs, and is taken back")?;
    page.line(&format!(
        "  {CONNECTIONS} connections ask for {} and {} all the time.",
        SHOPPERS[0], SHOPPERS[1]
    ))?;
    page.flush()?;
    let shed_before = story::shed(operator)?;
    let over = AtomicBool::new(false);
    let begin = Instant::now();
    let (seen, done) = thread::scope(|scope| {
        let (tell, told) = channel();
        for first in 0..CONNECTIONS {
            let (tell, over) = (tell.clone(), &over);
            let started = thread::Builder::new()
                .name("kith-demo-traffic".to_owned())
                .spawn_scoped(scope, move || {
                    traffic(bid, &requests, first, begin, over, &tell);
                });
            if let Err(error) = started {
                over.store(true, Relaxed);
                return (Vec::new(), Err(DemoError::System(error)));
            }
        }
        drop(tell);
        let done = switches(&requests, operator, page, stop, begin);
        over.store(true, Relaxed);
        (collect(&told), done)
    });
    let live = done?;
    let late = story::shed(operator)? - shed_before;
    judge(page, seen, &live, late as usize)
}

fn collect(told: &Receiver<Seen>) -> Vec<Seen> {
    let mut seen: Vec<Seen> = told.iter().collect();
    seen.sort_by_key(|seen| seen.answered);
    seen
}

fn traffic(
    bid: SocketAddr,
    requests: &[&str; 2],
    first: usize,
    begin: Instant,
    over: &AtomicBool,
    tell: &Sender<Seen>,
) {
    let mut connection = Connection::new(bid);
    let (_never, pace) = channel::<()>();
    for (shopper, request) in requests.iter().enumerate().cycle().skip(first) {
        if over.load(Relaxed) {
            return;
        }
        let sent = begin.elapsed();
        let answer = connection.bid(request.as_bytes());
        let answered = begin.elapsed();
        let decided = match &answer {
            Ok(answer) => story::decided(answer),
            Err(error) => Err(format!("no answer: {error}")),
        };
        let seen = Seen {
            shopper,
            sent,
            answered,
            decided,
        };
        if tell.send(seen).is_err() {
            return;
        }
        let _ = pace.recv_timeout(PACE);
    }
}

/// Both switches, with time in between.
fn switches(
    requests: &[&str; 2],
    operator: &Operator,
    page: &mut Page<'_>,
    stop: &Stop,
    begin: Instant,
) -> Result<[Live; 3], DemoError> {
    let says = || -> Result<[Value; 2], DemoError> {
        let [first, second] = requests.map(|request| operator.explain(request.as_bytes()));
        Ok([first?, second?].map(|explained| story::without_ids(explained.response)))
    };
    let event = |page: &mut Page<'_>, at: Duration, text: &str| {
        page.line(&format!("  {:>5.2} s  {text}", at.as_secs_f64()))?;
        page.flush()
    };
    let now = |page: &mut Page<'_>, version: u64| -> Result<(), DemoError> {
        let explained = operator.explain(requests[0].as_bytes())?;
        let live = explained.datasets.get("site").copied().unwrap_or_default();
        let decision = match explained.imps.first().and_then(|imp| imp.bids.first()) {
            Some(bid) => format!(
                "{} {} {} for {}",
                page.good("bid"),
                page::price(&bid.price),
                bid.currency,
                bid.line_item
            ),
            None => format!(
                "{} ({})",
                page.quiet("no-bid"),
                why_not(&explained.segments)
            ),
        };
        let text = format!("site version {live}: {} gets {decision}", SHOPPERS[0]);
        event(page, begin.elapsed(), &text)?;
        if live == version {
            Ok(())
        } else {
            Err(DemoError::Wrong {
                findings: vec![format!("site version {live} is live instead of {version}")],
            })
        }
    };

    now(page, 1)?;
    let first = says()?;
    stop.pause(PHASE)?;

    let swap_from = begin.elapsed();
    let uploaded = operator.upload("site", 2, "application/x-ndjson", SITE_2)?;
    let swap_to = begin.elapsed();
    let text = format!(
        "PUT /v1/datasets/site/versions/2: {}; swap done after {}",
        uploaded.contents(),
        page::seconds(uploaded.took)
    );
    event(page, swap_from, &page.dim(&text))?;
    now(page, 2)?;
    let second = says()?;
    stop.pause(PHASE)?;

    let back_from = begin.elapsed();
    let took = operator.activate("site", 1)?;
    let back_to = begin.elapsed();
    let text = format!(
        "POST /v1/datasets/site/activate {{\"version\": 1}}: rollback done after {}",
        page::seconds(took)
    );
    event(page, back_from, &page.dim(&text))?;
    now(page, 1)?;
    let third = says()?;
    stop.pause(PHASE)?;

    Ok([
        Live {
            from: Duration::ZERO,
            to: swap_to,
            says: first,
        },
        Live {
            from: swap_from,
            to: back_to,
            says: second,
        },
        Live {
            from: back_from,
            to: Duration::MAX,
            says: third,
        },
    ])
}

fn why_not(segments: &[String]) -> String {
    let bought = "site/buyers";
    if segments.iter().any(|segment| segment == bought) {
        format!("now in {bought}: nobody is shown what they have bought")
    } else {
        "for another reason than it should be".to_owned()
    }
}

/// Whether a version that was live while the request was under way says what was answered.
fn fits(seen: &Seen, decided: &Value, live: &[Live; 3]) -> bool {
    live.iter().any(|live| {
        let overlaps = seen.answered >= live.from && seen.sent <= live.to;
        overlaps && live.says.get(seen.shopper) == Some(decided)
    })
}

/// Prints the sums. What was answered late, and therefore with a no-bid, is no mixed decision.
fn judge(
    page: &mut Page<'_>,
    seen: Vec<Seen>,
    live: &[Live; 3],
    late: usize,
) -> Result<Vec<String>, DemoError> {
    let mut findings = Vec::new();
    let failed: Vec<&str> = seen
        .iter()
        .filter_map(|seen| seen.decided.as_ref().err())
        .map(String::as_str)
        .collect();
    if let Some(first) = failed.first() {
        findings.push(format!(
            "{} requests failed during the swaps, the first with: {first}",
            failed.len()
        ));
    }
    let odd: Vec<(&Seen, &Value)> = seen
        .iter()
        .filter_map(|seen| Some((seen, seen.decided.as_ref().ok()?)))
        .filter(|(seen, decided)| !fits(seen, decided, live))
        .collect();
    let late = late.min(odd.iter().filter(|(_, decided)| decided.is_null()).count());
    let mixed = odd.len().saturating_sub(late);
    if let (Some((seen, decided)), true) = (odd.first(), mixed > 0) {
        findings.push(format!(
            "{mixed} answers fit no version that was live, the first at {:.3} s: {decided}",
            seen.answered.as_secs_f64()
        ));
    }
    let [before, during, after] = live;
    if before.says != after.says || before.says[1] != during.says[1] {
        findings.push("something changed that the new version does not say".to_owned());
    }
    if before.says[0].is_null() || !during.says[0].is_null() {
        findings.push(format!(
            "the swap did not stop the bids for {}",
            SHOPPERS[0]
        ));
    }
    page.line("")?;
    let end = seen.last().map_or(Duration::ZERO, |seen| seen.answered);
    let name_width = SHOPPERS.map(str::len).into_iter().max().unwrap_or_default();
    for (shopper, name) in SHOPPERS.iter().enumerate() {
        let strip = strip(page, &seen, shopper, end);
        page.line(&format!("  {name:<name_width$}  {strip}"))?;
    }
    let legend = format!(
        "█ bid   · no-bid   ▒ both   one column = {}",
        page::seconds(end / STRIP as u32)
    );
    page.line(&page.dim(&format!("  {:name_width$}  {legend}", "")))?;
    let mut times: Vec<Duration> = seen
        .iter()
        .map(|seen| seen.answered.saturating_sub(seen.sent))
        .collect();
    times.sort_unstable();
    page.line("")?;
    page.line(&format!(
        "  {} requests while it was swapped and rolled back: {} failed, {mixed} mixed decisions{}",
        page.bold(&seen.len().to_string()),
        failed.len(),
        if late > 0 {
            format!(", {late} answered without a bid because this machine was too busy")
        } else {
            String::new()
        },
    ))?;
    page.line(&page.dim(&format!(
        "  latency as these clients saw it: median {}, longest {} (a demo's figure, no benchmark)",
        page::seconds(page::percentile(&times, 50.0)),
        page::seconds(times.last().copied().unwrap_or_default()),
    )))?;
    Ok(findings)
}

/// What a shopper was answered over time, a column a stretch.
fn strip(page: &Page<'_>, seen: &[Seen], shopper: usize, end: Duration) -> String {
    let mut columns = [(false, false); STRIP];
    for seen in seen.iter().filter(|seen| seen.shopper == shopper) {
        let share = seen.answered.as_secs_f64() / end.as_secs_f64().max(f64::EPSILON);
        let place = ((share * STRIP as f64) as usize).min(STRIP - 1);
        if let (Some((bids, no_bids)), Ok(decided)) = (columns.get_mut(place), &seen.decided) {
            *bids |= !decided.is_null();
            *no_bids |= decided.is_null();
        }
    }
    let sign = |column: &(bool, bool)| match column {
        (true, false) => page.good("█"),
        (false, true) => page.quiet("·"),
        (true, true) => "▒".to_owned(),
        (false, false) => " ".to_owned(),
    };
    columns.iter().map(sign).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_answer_fits_the_versions_that_were_live_while_it_was_under_way_and_no_other() {
        let says = |what: &Value| [what.clone(), json!("always")];
        let (bid, none) = (json!("bid"), Value::Null);
        let live = |from, to, what| Live {
            from,
            to,
            says: says(what),
        };
        let live = [
            live(ms(0), ms(110), &bid),
            live(ms(100), ms(210), &none),
            live(ms(200), Duration::MAX, &bid),
        ];
        let check = |sent, answered, decided: &Value, fit: bool| {
            let seen = Seen {
                shopper: 0,
                sent: ms(sent),
                answered: ms(answered),
                decided: Ok(decided.clone()),
            };
            assert_eq!(
                fits(&seen, decided, &live),
                fit,
                "{sent} {answered} {decided}"
            );
        };
        check(1, 2, &bid, true);
        check(1, 2, &none, false);
        check(99, 105, &none, true);
        check(105, 111, &bid, true);
        check(111, 112, &bid, false);
        check(111, 112, &none, true);
        check(205, 206, &bid, true);
        check(211, 212, &none, false);
        check(211, 212, &json!("other"), false);
    }
}
