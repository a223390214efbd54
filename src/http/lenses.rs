//! What a person is shown of the running service: what is known of an id, and why a request is answered as it is.

use bumpalo::Bump;
use serde_json::{Value, json};

use super::admin::Problem;
use crate::clock::Timestamp;
use crate::config::Exchanges;
use crate::decision::{Layer, explain, layers, persons_behind};
use crate::generation::{Confirm, Generation, LiveDataset, Members};
use crate::openrtb;
use crate::people::{People, Standing, ViewedOpinion};

/// What is held of an id and of the person whose it is, and from where. The id itself is not repeated.
pub fn user(
    generation: &Generation,
    people: Option<&People>,
    source: &str,
    id: &str,
    now: Timestamp,
) -> Value {
    let keyer = &generation.frame.keyer;
    let key = match keyer.user_key(source, id) {
        Ok(key) => key,
        Err(refused) => {
            return json!({"source": source, "known": false, "refused": refused.to_string(), "datasets": {}, "segments": []});
        }
    };
    let view = people
        .and_then(|people| people.view(key))
        .unwrap_or_default();
    let persons = persons_behind(generation, &[key], now);
    let mut datasets = serde_json::Map::new();
    let mut segments = Vec::new();
    for of in layers(generation, &persons, now, |_| true) {
        let live = of.dataset.and_then(|place| generation.datasets.get(place));
        let mut segment = json!({
            "segment": of.segment,
            "expires": of.expires,
            "expired": of.expires.is_some_and(|expires| expires <= now),
        });
        match of.layer {
            Layer::Version(version, owner) => {
                segment["layer"] = "version".into();
                segment["version"] = version.into();
                if owner != key {
                    segment["of"] = keyer.short_hash(owner).into();
                }
                datasets.extend(live.map(|live| (live.name.to_string(), version.into())));
                // What nobody else has confirmed may be an error.
                if let Some(LiveDataset {
                    members: Members::Approximate { filter, .. },
                    confirm: Confirm::Nobody,
                    ..
                }) = live
                {
                    let rate = filter.set().shape().rate();
                    segment["false_positive_rate"] = rate.share().into();
                }
            }
            Layer::Update(sequence) => {
                segment["layer"] = "update".into();
                segment["sequence"] = sequence.into();
            }
        }
        segments.push(segment);
    }
    let updates: Vec<Value> = view
        .opinions
        .iter()
        .map(|of| update(generation, of, now))
        .collect();
    let by_version = generation.person_of(key);
    let person = view.person.map(|(person, _)| person).or(by_version);
    let person = person.map(|person| {
        let ids = persons.keys().iter().filter(|of| **of != person);
        let ids: Vec<String> = ids.map(|of| keyer.short_hash(*of)).collect();
        let (by, expires) = match view.person {
            Some((_, expires)) => ("link", Some(expires)),
            None => ("version", None),
        };
        json!({"hash": keyer.short_hash(person), "by": by, "expires": expires, "ids": ids})
    });
    let Standing { erased, opted_out } = view.standing;
    json!({
        "source": source.trim().to_ascii_lowercase(),
        "hash": keyer.short_hash(key),
        "known": !segments.is_empty() || !updates.is_empty() || person.is_some() || erased || opted_out,
        "erased": erased,
        "opted_out": opted_out || persons.has_opted_out(),
        "datasets": datasets,
        "segments": segments,
        "updates": updates,
        "person": person,
    })
}

/// An update of an id, and whether it counts.
fn update(generation: &Generation, of: &ViewedOpinion, now: Timestamp) -> Value {
    let dataset = of.segment.split('/').next().unwrap_or_default();
    let mut live = generation.datasets.iter();
    let live = live.find(|live| live.name.as_str() == dataset);
    json!({
        "segment": of.segment,
        "in": of.add,
        "expires": of.expires,
        "expired": of.expires <= now,
        "covered": live.is_some_and(|live| of.sequence <= live.covers),
        "writer": of.writer.as_ref().map(|(writer, _)| writer),
        "seq": of.writer.as_ref().map(|(_, seq)| seq),
        "sequence": of.sequence,
    })
}

/// Why a bid request is answered as it is. Spends nothing.
pub fn explanation(
    generation: &Generation,
    exchanges: &Exchanges,
    imps_max: usize,
    exchange: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<Value, Problem> {
    let Some(exchange) = exchanges.get(exchange) else {
        let names: Vec<&str> = exchanges
            .iter()
            .map(|exchange| exchange.name.as_str())
            .collect();
        let detail = format!(
            "there is no exchange of that name; there are: {}",
            names.join(", ")
        );
        return Err(Problem::new(404, "unknown_exchange", detail));
    };
    let arena = Bump::new();
    let request = openrtb::read(body, &arena, imps_max).map_err(|bad| {
        Problem::new(
            400,
            "no_bid_request",
            format!("{bad}; the bid listener would answer 400 without a body"),
        )
    })?;
    Ok(explain(generation, exchange, request, now).document)
}
