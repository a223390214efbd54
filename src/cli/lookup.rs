//! `kith lookup`: what a running Kith knows of an id.

use serde_json::Value;

use super::client::{Admin, Client, escaped};
use super::text::{percent, plain, table};
use super::{Failure, print, print_json};

/// Ask a running Kith what it knows of an id
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The id is put in normal form by Kith, as a bid request's is. It is sent to Kith, and shown nowhere.

Examples:
  kith lookup ifa facade00-0000-4000-8000-000000000001
  kith lookup uidapi.com 'AAAA...=' --json
  kith lookup exchange:demo user-17 --to http://10.0.0.5:9090 --token-file token")]
pub(super) struct Lookup {
    /// Where the id is from: ifa, buyeruid, exchange:NAME, an eid source such as uidapi.com, ...
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The id
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    admin: Admin,
    /// Print Kith's answer as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Lookup) -> Result<(), Failure> {
    if args.source.trim().is_empty() || args.id.trim().is_empty() {
        return Err(Failure::usage("SOURCE and ID may not be empty"));
    }
    let path = format!("/v1/users/{}/{}", escaped(&args.source), escaped(&args.id));
    let known = Client::new(&args.admin)?.get(&path)?.ok()?;
    if args.json {
        return print_json(&known);
    }
    print(&told(&known))
}

fn told(known: &Value) -> String {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(plain);
    let source = text(known, "source").unwrap_or_default();
    if let Some(refused) = text(known, "refused") {
        return format!("{source}: never looked up: {refused}\n");
    }
    let hash = text(known, "hash").map_or(String::new(), |hash| format!(" {hash}"));
    if known.get("known").and_then(Value::as_bool) == Some(false) {
        return format!("{source}{hash}: not known\n");
    }
    let head = ["SEGMENT", "VERSION", "EXPIRES"].map(String::from);
    let segments = known.get("segments").and_then(Value::as_array);
    let rows = segments.into_iter().flatten().map(|segment| {
        let expired = segment.get("expired").and_then(Value::as_bool) == Some(true);
        let expires = match text(segment, "expires") {
            Some(at) if expired => format!("{at} (expired)"),
            Some(at) => at,
            None => "never".to_owned(),
        };
        let expires = match segment.get("false_positive_rate").and_then(Value::as_f64) {
            Some(rate) => format!(
                "{expires} (approximate: {} of others are found too)",
                percent(rate)
            ),
            None => expires,
        };
        let version = segment.get("version").map(Value::to_string);
        let update = segment.get("sequence").map(|row| format!("update {row}"));
        [
            text(segment, "segment").unwrap_or_default(),
            version.or(update).unwrap_or_default(),
            expires,
        ]
    });
    let rows: Vec<[String; 3]> = std::iter::once(head).chain(rows).collect();
    let mut told = format!("{source}{hash}\n");
    for (key, what) in [
        ("erased", "erased: it never has a segment again"),
        ("opted_out", "opted out: nothing of the person is looked at"),
    ] {
        if known.get(key).and_then(Value::as_bool) == Some(true) {
            told.push_str(&format!("  {what}\n"));
        }
    }
    if let Some(person) = known.get("person").filter(|person| person.is_object()) {
        let ids = person.get("ids").and_then(Value::as_array);
        let (hash, by) = (text(person, "hash"), text(person, "by"));
        told.push_str(&format!(
            "  one of {} ids of person {} (by {})\n",
            ids.map_or(0, Vec::len),
            hash.unwrap_or_default(),
            by.unwrap_or_default()
        ));
    }
    if rows.len() > 1 {
        told.push_str(&table("  ", &rows));
    }
    told
}
