//! One request after the other: who is it, what do we bid, and why not more.

use std::net::SocketAddr;

use serde_json::Value;

use super::connection::{Answer, Connection};
use super::operator::{Explained, ExplainedImp, Operator};
use super::page::{self, Page};
use super::stop::Stop;
use super::{DemoError, EXCHANGE, REQUESTS};
use crate::campaigns::CLICK_MACRO;

/// How often a request is asked again that was answered late because the machine was busy.
const TRIES: usize = 5;

/// What the fixture requests show.
const CAPTIONS: &[(&str, &str)] = &[
    ("vip-customer", "a customer of ours reads the news"),
    (
        "cart-abandoner",
        "a cart was left behind, in an app, under the phone's advertising id",
    ),
    (
        "ios-ifa-upper-case",
        "another one; iOS writes the id in capitals",
    ),
    (
        "unknown-person",
        "nobody has told us of them, and for strangers the floor is too high",
    ),
    ("sports-page", "nobody known, but the page is right"),
    (
        "extended-id-2.5",
        "known by an extended id, where OpenRTB 2.5 has it",
    ),
    (
        "france-cheap-slot",
        "GDPR without consent: nobody is looked up, and the place alone is worth a bid",
    ),
    (
        "private-deal",
        "a sports fan, and a deal that is offered to us alone",
    ),
    ("two-imps", "two slots on one page, for the same customer"),
    ("coppa", "the same customer on a page for children"),
    (
        "gdpr-no-consent",
        "the same customer in Germany, without consent",
    ),
    ("us-opted-out", "the same customer, opted out of sale"),
    (
        "blocked-category",
        "the publisher wants no ads of that category",
    ),
    ("floor-too-high", "too dear"),
    ("wrong-size", "no creative of that size"),
    ("audio-only", "no audio creative"),
    ("sports-video", "a video, above the floor for its length"),
    (
        "sports-feed",
        "a native ad of the assets that are asked for",
    ),
];

/// The fixture requests with their ids.
pub(super) fn requests() -> impl Iterator<Item = (String, &'static str)> {
    REQUESTS.lines().map(|line| {
        let request: Value = serde_json::from_str(line).unwrap_or_default();
        let id = request.get("id").and_then(Value::as_str);
        (id.unwrap_or("?").to_owned(), line)
    })
}

/// Sends every fixture request. Returns what was not as it should be.
pub(super) fn tell(
    bid: SocketAddr,
    operator: &Operator,
    page: &mut Page<'_>,
    stop: &Stop,
) -> Result<Vec<String>, DemoError> {
    page.section(&format!(
        "An exchange asks: POST http://{bid}/bid/{EXCHANGE}, one connection; the why from /v1/explain"
    ))?;
    let mut connection = Connection::new(bid);
    let mut late = Late {
        known: shed(operator)?,
    };
    let mut findings = Vec::new();
    for (id, request) in requests() {
        stop.check()?;
        let explained = operator.explain(request.as_bytes())?;
        let expected = without_ids(explained.response.clone());
        let mut answered = ask(&mut connection, request.as_bytes());
        for _ in 0..TRIES {
            if agrees(&answered, &expected).is_ok() || !late.have_come(operator)? {
                break;
            }
            answered = ask(&mut connection, request.as_bytes());
        }
        show(page, &id, &explained)?;
        if expected.is_null() != (explained.decision == "no_bid") {
            findings.push(format!("{id}: explain shows another response than it says"));
        }
        if let Err(finding) = agrees(&answered, &expected) {
            let finding = format!("{id}: {finding}");
            page.wrong(&finding)?;
            findings.push(finding);
        }
        page.flush()?;
    }
    Ok(findings)
}

fn ask(connection: &mut Connection, request: &[u8]) -> Result<Answer, String> {
    connection.bid(request).map_err(|e| e.to_string())
}

/// Answers that were no-bids only because the machine was too busy to decide in time. They are asked for again.
struct Late {
    known: f64,
}

impl Late {
    /// Whether there are more than at the last time.
    fn have_come(&mut self, operator: &Operator) -> Result<bool, DemoError> {
        let before = std::mem::replace(&mut self.known, shed(operator)?);
        Ok(self.known > before)
    }
}

/// How many requests were answered without a bid because they had waited too long.
pub(super) fn shed(operator: &Operator) -> Result<f64, DemoError> {
    let series = format!("kith_shed_total{{exchange=\"{EXCHANGE}\"}}");
    let metrics = operator.metrics()?;
    Ok(metrics.get(&series).copied().unwrap_or_default())
}

/// Whether the bid listener has answered what the explanation said.
fn agrees(answered: &Result<Answer, String>, expected: &Value) -> Result<(), String> {
    let answer = answered.as_ref().map_err(|e| format!("no answer: {e}"))?;
    let got = decided(answer)?;
    if got == *expected {
        return Ok(());
    }
    Err(format!(
        "the bid listener answered {} {got}, and explain says {expected}",
        answer.status
    ))
}

/// What an answer says: the response, or null for a no-bid. Another status is an error.
pub(super) fn decided(answer: &Answer) -> Result<Value, String> {
    match answer.status {
        204 if answer.body.is_empty() => Ok(Value::Null),
        200 => serde_json::from_slice(&answer.body)
            .map(without_ids)
            .map_err(|e| format!("200 with a body that is not JSON: {e}")),
        status => Err(format!("status {status}")),
    }
}

/// Markup with the macro again where a click's URL stands, which is the bid's own.
fn without_clicks(adm: &str) -> String {
    let mut text = String::new();
    let mut rest = adm;
    while let Some((before, after)) = rest.split_once("/c/") {
        let begins = before.rfind("http").unwrap_or(before.len());
        text.push_str(before.get(..begins).unwrap_or(before));
        text.push_str(CLICK_MACRO);
        rest = after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "-_".contains(c));
    }
    text + rest
}

/// A response without the ids of its bids, which are new with each answer.
pub(super) fn without_ids(mut response: Value) -> Value {
    let seats = response.get_mut("seatbid").and_then(Value::as_array_mut);
    let bids = seats
        .into_iter()
        .flatten()
        .filter_map(|seat| seat.get_mut("bid")?.as_array_mut());
    for bid in bids.flatten().filter_map(Value::as_object_mut) {
        // Each bid has its own id, and notices of its own.
        for own in ["id", "nurl", "burl", "lurl"] {
            bid.remove(own);
        }
        if let Some(Value::String(adm)) = bid.get_mut("adm") {
            *adm = without_clicks(adm);
        }
    }
    response
}

fn show(page: &mut Page<'_>, id: &str, explained: &Explained) -> Result<(), DemoError> {
    let caption = CAPTIONS.iter().find(|(of, _)| *of == id);
    let caption = caption.map_or("", |(_, caption)| caption);
    page.line("")?;
    page.line(&format!(
        "  {}  {}",
        page.bold(&page::plain(id)),
        page.dim(caption)
    ))?;
    page.words(4, "person", &person(explained))?;
    let several = explained.imps.len() > 1;
    for imp in &explained.imps {
        show_imp(page, explained, imp, several)?;
    }
    if explained.imps.is_empty() {
        let words = no_bid(page, explained, None);
        page.words(4, "decision", &words)?;
    }
    Ok(())
}

fn show_imp(
    page: &mut Page<'_>,
    explained: &Explained,
    imp: &ExplainedImp,
    several: bool,
) -> Result<(), DemoError> {
    let mut label = "decision".to_owned();
    if several {
        label = format!("imp {}", page::plain(imp.id.as_deref().unwrap_or("?")));
    }
    for bid in &imp.bids {
        let mut words = vec![
            page.good("bid"),
            page.bold(&format!("{} {}", page::price(&bid.price), bid.currency)),
        ];
        if let Some(deal) = &bid.deal {
            words.push(format!("in deal {}", page::plain(deal)));
        }
        words.push(format!("for {}:", bid.line_item));
        words.push(format!("seat {},", bid.seat));
        let shape = match bid.w.zip(bid.h) {
            Some((w, h)) => format!("{} {w}x{h}", bid.format),
            None => bid.format.clone(),
        };
        words.push(format!("creative {} ({shape})", bid.creative));
        page.words(4, &label, &words)?;
    }
    if imp.bids.is_empty() {
        let words = no_bid(page, explained, Some(imp));
        page.words(4, &label, &words)?;
    }
    let refused = refused(imp);
    if !refused.is_empty() {
        page.words(4, "refused", &refused)?;
    }
    Ok(())
}

/// By which ids the person was looked up and in which segments they are, or why nobody was looked up.
fn person(explained: &Explained) -> Vec<String> {
    if explained.privacy.verdict != "open" {
        return split(&format!(
            "nobody is looked up ({}: {})",
            explained.privacy.verdict, explained.privacy.why
        ));
    }
    if explained.ids.is_empty() {
        return split("no id in the request");
    }
    let ids = explained.ids.iter().map(|id| {
        let source = page::plain(&id.source);
        if id.used {
            source
        } else {
            format!("{source} ({})", page::plain(&id.why))
        }
    });
    let mut words: Vec<String> = ids.collect();
    words.push("→".to_owned());
    if explained.segments.is_empty() {
        words.extend(split("in none of our segments"));
    }
    words.extend(explained.segments.iter().cloned());
    words
}

/// A no-bid and the reason for it: of this imp where all its line items were refused, else of the whole request.
fn no_bid(page: &Page<'_>, explained: &Explained, imp: Option<&ExplainedImp>) -> Vec<String> {
    let nearest = || {
        let considered = &imp?.line_items;
        considered
            .iter()
            .find_map(|line_item| line_item.why.clone())
    };
    let why = explained.why.clone().or_else(nearest);
    let reason = explained.reason.as_deref();
    let mut words = vec![page.quiet("no-bid")];
    words.extend(reason.map(|reason| format!("{reason}:")));
    words.extend(split(&why.unwrap_or_default()));
    words
}

/// The refused line items, by reason. They were all considered; what is not here has bid.
fn refused(imp: &ExplainedImp) -> Vec<String> {
    let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
    for line_item in &imp.line_items {
        let Some(reason) = line_item.reason.as_deref() else {
            continue;
        };
        match by_reason.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, ids)) => ids.push(&line_item.id),
            None => by_reason.push((reason, vec![&line_item.id])),
        }
    }
    // What tells most comes first; who is not meant or not running comes last.
    by_reason.sort_by_key(|(reason, _)| match *reason {
        "targeting" => 1,
        "flight" | "paused" => 2,
        _ => 0,
    });
    let last = by_reason.len().saturating_sub(1);
    let groups = by_reason.iter().enumerate();
    groups
        .flat_map(|(place, (reason, ids))| {
            let end = if place == last { "" } else { ";" };
            split(&format!("{reason}: {}{end}", ids.join(", ")))
        })
        .collect()
}

fn split(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_fixture_request_has_its_caption() {
        let ids: Vec<String> = requests().map(|(id, _)| id).collect();
        let captions: Vec<&str> = CAPTIONS.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, captions);
    }

    #[test]
    fn an_answer_agrees_only_with_its_explanation() {
        let response = |id: &str, price: f64| json!({"id": "r", "seatbid": [{"seat": "s", "bid": [{"id": id, "price": price}]}]});
        let expected = without_ids(response("1", 4.2));
        let check = |status, body: &Value, expected: &Value, agree: bool| {
            let body = match body {
                Value::Null => Vec::new(),
                body => body.to_string().into_bytes(),
            };
            let answered = Ok(Answer { status, body });
            assert_eq!(agrees(&answered, expected).is_ok(), agree, "{answered:?}");
        };
        check(200, &response("2", 4.2), &expected, true);
        check(200, &response("2", 4.3), &expected, false);
        check(200, &response("2", 4.2), &Value::Null, false);
        check(204, &Value::Null, &Value::Null, true);
        check(204, &Value::Null, &expected, false);
        check(200, &Value::Null, &Value::Null, false);
        check(500, &Value::Null, &Value::Null, false);
        assert!(agrees(&Err("closed".to_owned()), &Value::Null).is_err());
    }
}
