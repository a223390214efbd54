//! What a person is shown of the running service: what is known of an id, and why a request is answered as it is.

use bumpalo::Bump;
use serde_json::{Value, json};

use super::admin::Problem;
use crate::clock::Timestamp;
use crate::config::Exchanges;
use crate::decision::explain;
use crate::generation::{Confirm, Generation, Members};
use crate::openrtb;

/// What is known of an id, and from which version. The id itself is not repeated.
pub fn user(generation: &Generation, source: &str, id: &str, now: Timestamp) -> Value {
    let keyer = &generation.frame.keyer;
    let key = match keyer.user_key(source, id) {
        Ok(key) => key,
        Err(refused) => {
            return json!({"source": source, "known": false, "refused": refused.to_string(), "datasets": {}, "segments": []});
        }
    };
    let mut segments = Vec::new();
    let mut datasets = serde_json::Map::new();
    for dataset in &generation.datasets {
        let memberships = generation.confirmed(dataset, key, now, |_| true);
        if !memberships.is_empty() {
            datasets.insert(dataset.name.to_string(), dataset.version.into());
        }
        for (name, expires) in memberships {
            let mut segment = json!({
                "segment": format!("{}/{name}", dataset.name),
                "version": dataset.version,
                "expires": expires,
                "expired": expires.is_some_and(|expires| expires <= now),
            });
            // What nobody else has confirmed may be an error.
            if let (Members::Approximate { filter, .. }, Confirm::Nobody) =
                (&dataset.members, dataset.confirm)
            {
                let rate = filter.set().shape().rate();
                segment["false_positive_rate"] = rate.share().into();
            }
            segments.push(segment);
        }
    }
    json!({
        "source": source.trim().to_ascii_lowercase(),
        "hash": keyer.short_hash(key),
        "known": !datasets.is_empty(),
        "datasets": datasets,
        "segments": segments,
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
