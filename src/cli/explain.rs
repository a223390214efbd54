//! `kith explain`: why a running Kith answers a bid request as it does. Spends nothing.

use std::io::Read;
use std::path::PathBuf;

use serde_json::Value;

use super::client::{Admin, Client, escaped};
use super::text::{plain, table};
use super::{Failure, input, print, print_json};
use crate::ids::Name;

/// Largest request sent; Kith's own limit is below.
const REQUEST_BYTES_MAX: u64 = 64 << 20;

/// Ask a running Kith why it answers a bid request as it does; spends nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kith explain demo request.json
  head -1 fixtures/requests.jsonl | kith explain demo -
  kith explain demo request.json --json | jq .response")]
pub(super) struct Explain {
    /// The exchange that would ask, by its configured name
    #[arg(value_name = "EXCHANGE")]
    exchange: Name,
    /// An OpenRTB bid request; - is standard input
    #[arg(value_name = "REQUEST.json")]
    request: PathBuf,
    #[command(flatten)]
    admin: Admin,
    /// Print Kith's answer as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Explain) -> Result<(), Failure> {
    let client = Client::new(&args.admin)?;
    let told = |e: std::io::Error| Failure::new(format!("{}: {e}", args.request.display()));
    let (coding, raw) = input::open(&args.request)?;
    let mut request = Vec::new();
    input::unpacked(coding, raw)
        .and_then(|rows| rows.take(REQUEST_BYTES_MAX).read_to_end(&mut request))
        .map_err(told)?;
    let path = format!("/v1/explain/{}", escaped(args.exchange.as_str()));
    let answer = client.post(&path, "application/json", &request)?;
    let document = answer.ok()?;
    if args.json {
        return print_json(&document);
    }
    print(&rendered(&document))
}

/// The document of `POST /v1/explain/{exchange}`, for people. What is not in it is left out.
fn rendered(document: &Value) -> String {
    let why = |value: &Value| text(value, "why").map_or(String::new(), |why| format!(": {why}"));
    let mut facts = Vec::new();
    let mut fact = |what: &str, is: String| facts.push([what.to_owned(), is]);
    let decision = text(document, "decision")
        .unwrap_or_default()
        .replace('_', "-");
    let reason = text(document, "reason").map_or(String::new(), |reason| format!(", {reason}"));
    fact("decision", format!("{decision}{reason}{}", why(document)));
    let versions = document.get("datasets").and_then(Value::as_object);
    let versions: Vec<String> = versions
        .into_iter()
        .flatten()
        .map(|(name, version)| format!("{} {version}", plain(name)))
        .collect();
    if let Some(generation) = text(document, "generation") {
        let of = match versions.is_empty() {
            true => "nothing uploaded yet".to_owned(),
            false => versions.join(", "),
        };
        fact("generation", format!("{generation} ({of})"));
    }
    if let Some(privacy) = document.get("privacy") {
        let verdict = text(privacy, "verdict").unwrap_or_default();
        let signal =
            text(privacy, "signal").map_or(String::new(), |signal| format!(" by {signal}"));
        fact("privacy", format!("{verdict}{signal}{}", why(privacy)));
    }
    let unreadable = texts(document, "unreadable");
    if !unreadable.is_empty() {
        fact("unreadable", unreadable.join(", "));
    }
    let segments = texts(document, "segments");
    let none = || "none".to_owned();
    fact(
        "segments",
        if segments.is_empty() {
            none()
        } else {
            segments.join(", ")
        },
    );
    let ids = items(document, "ids");
    if ids.is_empty() {
        fact("ids", none());
    }
    let mut out = table("", &facts);
    if !ids.is_empty() {
        out.push_str("ids\n");
        out.push_str(&columns(
            "  ",
            ["SOURCE", "HASH", "USED", "WHY"],
            ids,
            |id| {
                let used = id.get("used").and_then(Value::as_bool) == Some(true);
                [
                    shown(id, "source"),
                    shown(id, "hash"),
                    (if used { "yes" } else { "no" }).to_owned(),
                    shown(id, "why"),
                ]
            },
        ));
    }
    for imp in items(document, "imps") {
        out.push_str(&rendered_imp(imp));
    }
    out
}

fn rendered_imp(imp: &Value) -> String {
    let mut out = format!("imp {}\n", shown(imp, "id"));
    let line_items = items(imp, "line_items");
    if let Some(why) = text(imp, "why") {
        out.push_str(&format!("  {why}\n"));
    } else if line_items.is_empty() {
        out.push_str("  no line item was considered\n");
    } else {
        let head = ["LINE ITEM", "OUTCOME", "REASON", "WHY"];
        out.push_str(&columns("  ", head, line_items, |item| {
            ["id", "outcome", "reason", "why"].map(|key| shown(item, key))
        }));
    }
    let bids = items(imp, "bids");
    if !bids.is_empty() {
        out.push_str("  bids\n");
        let head = [
            "LINE ITEM",
            "CREATIVE",
            "SEAT",
            "PRICE",
            "DEAL",
            "FORMAT",
            "SIZE",
        ];
        out.push_str(&columns("    ", head, bids, |bid| {
            let size = match (text(bid, "w"), text(bid, "h")) {
                (Some(w), Some(h)) => format!("{w}x{h}"),
                _ => "-".to_owned(),
            };
            let price = format!("{} {}", shown(bid, "price"), shown(bid, "currency"));
            let [line_item, creative, seat, deal, format] =
                ["line_item", "creative", "seat", "deal", "format"].map(|key| shown(bid, key));
            [line_item, creative, seat, price, deal, format, size]
        }));
    }
    out
}

/// A table with a head.
fn columns<const N: usize>(
    indent: &str,
    head: [&str; N],
    items: &[Value],
    row: impl Fn(&Value) -> [String; N],
) -> String {
    let mut rows = vec![head.map(String::from)];
    rows.extend(items.iter().map(row));
    table(indent, &rows)
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    let items = value.get(key).and_then(Value::as_array);
    items.map(Vec::as_slice).unwrap_or_default()
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    let texts = items(value, key).iter().filter_map(Value::as_str);
    texts.map(plain).collect()
}

/// A member as text; `None` where it is not there or null.
fn text(value: &Value, key: &str) -> Option<String> {
    match value.get(key)? {
        Value::Null => None,
        Value::String(text) => Some(plain(text)),
        other => Some(other.to_string()),
    }
}

/// A member as a cell.
fn shown(value: &Value, key: &str) -> String {
    text(value, key).unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bid() {
        let document = json!({
            "generation": 12,
            "datasets": {"campaigns": 1, "crm": 3},
            "privacy": {"verdict": "open", "signal": null, "why": "no signal forbids it"},
            "ids": [
                {"source": "buyeruid", "used": true, "why": "looked up", "hash": "ab12cd34"},
                {"source": "ifa", "used": false, "why": "is all zeros"},
            ],
            "segments": ["crm/newsletter", "crm/vip"],
            "unreadable": ["imp.secure"],
            "imps": [{"id": "1",
                "line_items": [
                    {"id": "acme-vip", "outcome": "bid", "reason": null},
                    {"id": "acme-all", "outcome": "refused", "reason": "outbid", "why": "another pays more"},
                ],
                "bids": [{"line_item": "acme-vip", "creative": "c1", "seat": "acme", "price": 4.2,
                    "currency": "EUR", "deal": null, "format": "banner", "w": 300, "h": 250}]}],
            "decision": "bid", "reason": null, "why": null, "response": {},
        });
        let want = "\
decision    bid
generation  12 (campaigns 1, crm 3)
privacy     open: no signal forbids it
unreadable  imp.secure
segments    crm/newsletter, crm/vip
ids
  SOURCE    HASH      USED  WHY
  buyeruid  ab12cd34  yes   looked up
  ifa       -         no    is all zeros
imp 1
  LINE ITEM  OUTCOME  REASON  WHY
  acme-vip   bid      -       -
  acme-all   refused  outbid  another pays more
  bids
    LINE ITEM  CREATIVE  SEAT  PRICE    DEAL  FORMAT  SIZE
    acme-vip   c1        acme  4.2 EUR  -     banner  300x250
";
        assert_eq!(rendered(&document), want);
    }

    #[test]
    fn a_no_bid_behind_a_closed_gate() {
        let document = json!({
            "generation": 1, "datasets": {},
            "privacy": {"verdict": "closed", "signal": "coppa", "why": "a child"},
            "ids": [], "segments": [], "unreadable": [], "imps": [{"id": "1", "line_items": [], "bids": [], "why": null},
                {"id": null, "line_items": [], "bids": [], "why": "the imp has no id that can be read"}],
            "decision": "no_bid", "reason": "no_line_item", "why": "nothing matches", "response": null,
        });
        let want = "\
decision    no-bid, no_line_item: nothing matches
generation  1 (nothing uploaded yet)
privacy     closed by coppa: a child
segments    none
ids         none
imp 1
  no line item was considered
imp -
  the imp has no id that can be read
";
        assert_eq!(rendered(&document), want);
    }

    #[test]
    fn anything_else_is_rendered_without_a_panic() {
        for document in [
            json!(null),
            json!([1]),
            json!({"imps": [1], "ids": {"a": 1}, "datasets": 3}),
        ] {
            assert!(rendered(&document).starts_with("decision"));
        }
    }
}
