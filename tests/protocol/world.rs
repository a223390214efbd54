//! A small deployment: an audience, line items that each hang on something else, one exchange; and what it says to a body.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use bumpalo::Bump;
use kith::audience::{Audience, Builder, RowFormat, VersionMeta};
use kith::campaigns::LineItem;
use kith::clock::Timestamp;
use kith::config::Config;
use kith::decision::{Recorder, Refusal, Scratch, decide};
use kith::generation::{Frame, Generation, LiveVersion, Members};
use kith::identity::IdOutcome;
use kith::ids::{Keyer, Kind, SecretKey};
use kith::openrtb::{BadRequest, BidId, Request, write_bids};
use kith::privacy::Purposes;
use serde_json::{Value, json};

pub(crate) const NOW: &str = "2026-11-21T12:00:00Z";
/// Ours in the Global Vendor List.
pub(crate) const VENDOR_ID: u16 = 7;

/// Banner sizes that some creative has.
const SIZES: [(u32, u32); 8] = [
    (300, 250),
    (728, 90),
    (320, 50),
    (300, 600),
    (970, 250),
    (160, 600),
    (320, 480),
    (468, 60),
];

/// Line items, each of which hangs on another part of a request: id, targeting, and what is changed of it.
fn line_items() -> Value {
    let everything: Vec<String> = SIZES.iter().map(|(w, h)| format!("acme-{w}x{h}")).collect();
    let played = ["video-15", "video-30", "audio-20"];
    let items = [
        ("anyone", "not test or test", json!({})),
        (
            "vips",
            "segments one of ['crm/vip']",
            json!({"price": {"cpm": "9", "currency": "USD"}}),
        ),
        (
            "others",
            "segments none of ['crm/other']",
            json!({"price": {"cpm": "8", "currency": "EUR"}}),
        ),
        (
            "fans",
            "segments all of ['crm/vip', 'web/fan'] or segments is empty",
            json!({}),
        ),
        (
            "unknown",
            "segments is null",
            json!({"price": {"cpm": "2", "currency": "USD"}}),
        ),
        (
            "americans",
            "country in ['USA'] and city is not null",
            json!({"seat": "s1"}),
        ),
        (
            "phones",
            "device_type = 'phone' or os = 'ios' or connection = 'wifi'",
            json!({}),
        ),
        (
            "readers",
            "categories one of ['IAB1', 'IAB1-1', 'IAB17', 'IAB2'] or keywords one of ['tea']",
            json!({}),
        ),
        (
            "pages",
            "site_domain is not null and publisher is not null",
            json!({}),
        ),
        (
            "apps",
            "app_bundle is not null",
            json!({"creatives": ["plain"]}),
        ),
        ("cheap", "floor < 1.5 and not interstitial", json!({})),
        (
            "shown",
            "position = 1 or rewarded or interstitial",
            json!({}),
        ),
        (
            "told",
            "request_segments is not empty or user_keywords is not empty",
            json!({}),
        ),
        ("young", "user_age < 60 or user_gender = 'F'", json!({})),
        ("wide", "width >= 728", json!({})),
        ("secure", "secure", json!({})),
        ("tests", "test", json!({})),
        (
            "dealer",
            "deals one of ['d1', 'some-deal-id', 'deal1', 'test-deal-id']",
            json!({}),
        ),
        (
            "by-deal",
            "not test or test",
            json!({"deals": ["d1", "d2", "some-deal-id", "1", "deal1"]}),
        ),
        (
            "french",
            "language = 'fr' or carrier is not null",
            json!({"creatives": ["plain"]}),
        ),
        (
            "players",
            "format = 'video' or format = 'audio'",
            json!({"creatives": played}),
        ),
        (
            "playing",
            "not test or test",
            json!({"creatives": played, "deals": ["d1", "some-deal-id"]}),
        ),
        (
            "natives",
            "format = 'native'",
            json!({"creatives": ["native"]}),
        ),
        (
            "dear",
            "hour = 12",
            json!({"price": {"cpm": "900", "currency": "USD"}, "creatives": ["plain"]}),
        ),
    ];
    items
        .into_iter()
        .map(|(id, targeting, changes)| {
            let mut item = json!({"id": id, "targeting": targeting, "creatives": everything,
                "price": {"cpm": "4.20", "currency": "USD"}});
            for (key, value) in changes.as_object().expect("an object") {
                item[key] = value.clone();
            }
            item
        })
        .collect()
}

fn document() -> Value {
    let mut creatives: Vec<Value> = SIZES
        .iter()
        .map(|(w, h)| {
            json!({"id": format!("acme-{w}x{h}"), "advertiser": "acme", "type": "banner", "w": w, "h": h,
                "adm": "<a href=\"${KITH_CLICK_URL}\"></a>", "secure": true})
        })
        .collect();
    let played = |id: &str, kind: &str, mime: &str, duration: u32| {
        json!({"id": id, "advertiser": "acme", "type": kind, "secure": true, "adm": "<VAST version=\"4.0\"></VAST>",
            "duration": duration, "mimes": [mime], "protocols": [2, 3, 7]})
    };
    creatives.extend([
        json!({"id": "plain", "advertiser": "other", "type": "banner", "w": 300, "h": 250, "adm": "<b>", "attr": [6], "language": "fr"}),
        played("video-15", "video", "video/mp4", 15),
        played("video-30", "video", "video/mp4", 30),
        played("audio-20", "audio", "audio/mp4", 20),
        json!({"id": "native", "advertiser": "acme", "type": "native", "secure": true, "assets": [
            {"title": {"text": "Boots for long ways"}},
            {"img": {"type": 3, "url": "https://cdn.acme.example/wide.jpg", "w": 1200, "h": 627}},
            {"img": {"type": 1, "url": "https://cdn.acme.example/icon.png", "w": 80, "h": 80}},
            {"data": {"type": 1, "value": "Acme"}}, {"data": {"type": 2, "value": "Say \"boots\""}}]}),
    ]);
    json!({
        "advertisers": [
            {"id": "acme", "domain": "acme.example", "categories": ["IAB3-1"]},
            {"id": "other", "domain": "other.example", "categories": ["IAB25"]}],
        "creatives": creatives, "line_items": line_items()})
}

/// What is deployed, and how it is configured.
pub(crate) struct World {
    pub(crate) generation: Arc<Generation>,
    pub(crate) config: Config,
}

impl World {
    /// With these (source, id)s in the audience, every third of them in each of three segments, and all in another dataset.
    pub(crate) fn new(people: &[(String, String)], line_items: Option<Value>) -> Self {
        let keyer = Keyer::new(&SecretKey::from_bytes([7; 32]));
        let toml = format!(
            "[privacy]\nvendor_id = {VENDOR_ID}\n[currency]\nbase = \"USD\"\nrates = {{ EUR = 0.5 }}\n\
             [limits]\nqueue_target_ms = 20000\n\
             [exchanges.demo]\ndefault_tmax_ms = 5000\n[exchanges.why]\nno_bid = \"reason\"\ndefault_tmax_ms = 5000\n"
        );
        let config = Config::from_toml(&toml, "test").expect("a configuration");
        let segments = ["vip", "other", "vip|other"];
        let rows = |segments: &[&str]| -> Vec<Value> {
            // Somebody is there, so that the version is not empty.
            let somebody = ("customer".to_owned(), "somebody".to_owned());
            let people = people
                .iter()
                .chain([&somebody])
                .zip(segments.iter().cycle());
            let row = |((source, id), segments): (&(String, String), &&str)| {
                let segments: Vec<&str> = segments.split('|').collect();
                json!({"source": source, "id": id, "segments": segments})
            };
            people.map(row).collect()
        };
        let datasets = [("crm", rows(&segments)), ("web", rows(&["fan"]))];
        let live = datasets
            .iter()
            .enumerate()
            .map(|(ordinal, (name, rows))| LiveVersion {
                name: name.parse().expect("a name"),
                ordinal,
                version: 1,
                members: Members::Exact(Arc::new(audience(name, rows, &keyer))),
                purposes: Purposes::PROFILE,
                covers: 0,
            });
        let mut document = document();
        if let Some(line_items) = line_items {
            document["line_items"] = line_items;
        }
        let book =
            kith::campaigns::compile(document.to_string().as_bytes()).expect("a good document");
        let frame = Frame::of(&config, keyer.clone());
        let generation = Generation::assemble(1, Arc::new(book), Some(1), live.collect(), frame);
        Self {
            generation: Arc::new(generation),
            config,
        }
    }

    /// What is decided on a body, and everything that led to it.
    pub(crate) fn told(&self, body: impl AsRef<[u8]>) -> Result<Told, BadRequest> {
        let arena = Bump::new();
        let request = kith::openrtb::read(body.as_ref(), &arena, 128)?;
        Ok(self.decided(request, &arena))
    }

    pub(crate) fn decided<'a>(&'a self, request: &Request<'a>, arena: &'a Bump) -> Told {
        let exchange = self.config.exchanges.get("demo").expect("the exchange");
        let mut scratch = Scratch::default();
        let now: Timestamp = NOW.parse().expect("a time");
        let mut heard = Heard::default();
        let decision = decide(
            &self.generation,
            exchange,
            request,
            now,
            arena,
            &mut scratch,
            &mut heard,
        );
        let mut bids = Vec::new();
        let outcome = match decision.outcome {
            Ok(proposals) => {
                for bid in proposals {
                    let deal = bid.deal.map(|deal| format!(" {deal}")).unwrap_or_default();
                    let (impid, line_item) = (bid.impid, &bid.line_item.id);
                    bids.push(format!("{impid} {line_item} @ {}{deal}", bid.price));
                }
                let written: Vec<_> = proposals.iter().map(|bid| bid.bid_out(BidId(7))).collect();
                let mut response = Vec::new();
                write_bids(&mut response, request.id, decision.currency, &written);
                heard.story += &String::from_utf8(response).expect("text");
                "bid"
            }
            Err(reason) => reason.as_str(),
        };
        let lookups = scratch.lookups().iter();
        Told {
            outcome,
            bids,
            gate: decision
                .gate
                .map_or_else(|closed| closed.as_str(), |_| "open"),
            lookups: lookups
                .map(|counts| counts.found + counts.absent + counts.damaged)
                .sum(),
            unreadable: request
                .unreadable
                .iter()
                .map(|field| field.as_str())
                .collect(),
            story: format!("{} {:?}", decision.currency, decision.gate) + &heard.story,
        }
    }

    /// The bids as `imp line-item @ price [deal]`, or the reason why there are none.
    pub(crate) fn answer(&self, body: impl AsRef<[u8]>) -> Vec<String> {
        match self.told(body) {
            Ok(told) if told.bids.is_empty() => vec![told.outcome.to_owned()],
            Ok(told) => told.bids,
            Err(reason) => vec![format!("400: {reason}")],
        }
    }
}

/// A decision, in words that can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// `bid`, or the reason why there is none.
    pub(crate) outcome: &'static str,
    pub(crate) bids: Vec<String>,
    /// `open`, or why it is closed.
    pub(crate) gate: &'static str,
    /// How many ids were looked up, over all datasets.
    pub(crate) lookups: u32,
    /// Fields that could not be read.
    pub(crate) unreadable: Vec<&'static str>,
    /// What became of each id, and of each line item on each imp, and the response.
    pub(crate) story: String,
}

/// Hears everything, so that a difference shows that changes no bid.
#[derive(Default)]
struct Heard {
    story: String,
}

impl Recorder for Heard {
    fn id(&mut self, source: &str, outcome: IdOutcome) {
        let _ = write!(self.story, "\n{source} {outcome:?}");
    }

    fn line_item(&mut self, imp: usize, line_item: &LineItem, verdict: Result<(), Refusal>) {
        let _ = write!(self.story, "\n{imp} {} {verdict:?}", line_item.id);
    }
}

fn audience(name: &str, rows: &[Value], keyer: &Keyer) -> Audience {
    let meta = VersionMeta {
        kind: Kind::Audience,
        dataset: name.parse().expect("a name"),
        version: 1,
        base: None,
        as_of: None,
    };
    let mut builder = Builder::new(meta, keyer.clone()).expect("a builder");
    let mut lines = String::new();
    for row in rows {
        let _ = writeln!(lines, "{row}");
    }
    builder
        .read_rows(&RowFormat::Ndjson, lines.as_bytes(), &mut |_| {})
        .expect("rows");
    let mut file = Vec::new();
    builder.finish(&mut file).expect("a version");
    Audience::from_bytes(&file).expect("readable")
}

/// One line item for everybody, in three creatives.
pub(crate) fn one(changes: &Value) -> World {
    let mut item = json!({"id": "li", "targeting": "not test or test", "creatives": ["acme-300x250", "acme-728x90"],
        "price": {"cpm": "2", "currency": "USD"}});
    for (key, value) in changes.as_object().expect("an object") {
        item[key] = value.clone();
    }
    World::new(&[], Some(json!([item])))
}

/// The lines of a file of the corpus; nothing, and said so, where it is not here.
pub(crate) fn corpus(file: &str) -> Option<Vec<String>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    let folder = std::env::var_os("KITH_CORPUS").map_or(beside, PathBuf::from);
    match std::fs::read_to_string(folder.join(file)) {
        Ok(text) => Some(text.lines().map(str::to_owned).collect()),
        Err(_) => {
            eprintln!("left out: the corpus ({file}) is not here");
            None
        }
    }
}

/// Every (source, id) that a request names, as a job would upload it.
pub(crate) fn ids_in(request: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let user = &request["user"];
    let own = [
        ("exchange:demo", &user["id"]),
        ("buyeruid", &user["buyeruid"]),
        ("ifa", &request["device"]["ifa"]),
    ];
    let mut ids: Vec<_> = own
        .into_iter()
        .filter_map(|(source, id)| Some((source.to_owned(), text(id)?)))
        .collect();
    for eid in [&user["eids"], &user["ext"]["eids"]]
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
    {
        for uid in eid["uids"].as_array().into_iter().flatten() {
            ids.extend(text(&eid["source"]).zip(text(&uid["id"])));
        }
    }
    ids
}
