//! What is measured over: a million people, two thousand segments, a thousand line items, and requests of four ids.
//!
//! The shape is that of a mid-sized buyer. Segments are popular or rare as in life (Zipf), a person is in about nine of them,
//! line items name about five hundred of the two thousand. The last tenth of the people are in segments that no line item
//! names: the exchange knows them, we know them, and nobody wants them. Everything is drawn from one seed.

use std::fmt::Write as _;
use std::sync::Arc;

use kith::audience::{Audience, Builder, Graph, RowFormat, VersionMeta};
use kith::campaigns::{Book, compile};
use kith::clock::Timestamp;
use kith::config::Config;
use kith::generation::{Frame, Generation, LiveGraph, LiveVersion, Members};
use kith::ids::{Keyer, Kind, SecretKey};
use kith::people::{Kind as PeopleKind, Known, People, Terms};
use kith::privacy::Purposes;
use kith::storage::Storage;

/// Segments of the dataset; the first quarter is named by line items.
pub const SEGMENTS: usize = 2_000;
const SEGMENTS_NAMED: usize = 500;
/// The most common segments, of which every wanted person is in one.
const SEGMENTS_COMMON: usize = 20;
/// Sources under which each person is known; a request carries all of them.
pub const SOURCES: [&str; 4] = ["buyeruid", "ifa", "uidapi.com", "crm.example"];
/// Most segments of a person.
const SEGMENTS_EACH_MAX: usize = 17;
/// Rows handed to the builder at a time.
const ROWS_AT_ONCE: usize = 10_000;

/// How much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// People in the audience, each under four ids.
    pub people: usize,
    /// Line items in the book.
    pub line_items: usize,
}

impl Size {
    /// The size that figures are published for.
    pub const FULL: Self = Self {
        people: 1_000_000,
        line_items: 1_000,
    };
    /// The size that tests run.
    pub const TINY: Self = Self {
        people: 2_000,
        line_items: 1_000,
    };
}

/// The id of a person under a source.
pub fn id(source: &str, person: usize) -> String {
    match source {
        // The form of a device's advertising id.
        "ifa" => format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            mix(person as u64) as u32,
            person & 0xffff,
            person >> 16 & 0xfff,
            person >> 28 & 0xfff,
            mix(person as u64 ^ 0xffff) & 0xffff_ffff_ffff
        ),
        _ => format!("{:016x}{:04x}", mix(person as u64), source.len()),
    }
}

/// People whom line items may want, of so many.
pub fn wanted(people: usize) -> usize {
    people - people / 10
}

/// The defaults, but for time: whatever else the machine does and however slow the program is, no request is late, and
/// none is shed. What is not decided on would pass for a decision that costs next to nothing.
///
/// # Errors
/// Where the scene itself is wrong.
pub fn config() -> Result<Config, String> {
    let toml = "[limits]\nqueue_target_ms = 20000\n[exchanges.demo]\ndefault_tmax_ms = 60000\n";
    Config::from_toml(toml, "scene").map_err(|e| e.to_string())
}

/// The whole as a decision reads it.
///
/// # Errors
/// Where the scene itself is wrong.
pub fn generation(size: Size, config: &Config) -> Result<Generation, String> {
    let people = Members::Exact(Arc::new(audience(size.people, &keyer())?));
    with(people, book(&document(size.line_items))?, config)
}

/// The same once more.
///
/// # Errors
/// Where the scene itself is wrong.
pub fn again(of: &Generation, size: Size, config: &Config) -> Result<Generation, String> {
    let people = of.datasets.first().map(|dataset| dataset.members.clone());
    let people = people.ok_or("no audience")?;
    with(people, book(&document(size.line_items))?, config)
}

/// The same people, and line items that have budgets, pacing and caps besides.
///
/// # Errors
/// Where the scene itself is wrong.
pub fn with_money(of: &Generation, size: Size, config: &Config) -> Result<Generation, String> {
    let people = of.datasets.first().map(|dataset| dataset.members.clone());
    let people = people.ok_or("no audience")?;
    let limits = r#","budget":{"day":"1000000","total":"100000000"},"pacing":"even","caps":[{"count":900,"per":"24h"},{"count":1000,"per":"7d"}]}"#;
    // The last brace of each line item is the one behind its price.
    let document = document(size.line_items).replace(
        r#""currency":"USD"}}"#,
        &format!(r#""currency":"USD"}}{limits}"#),
    );
    with(people, book(&document)?, config)
}

/// The same people and line items, and besides as many real-time updates as there are people, one in four of them of an id that requests
/// come with, and a dataset that says of every other person that two of the four ids and a third are hers.
///
/// # Errors
/// Where the scene itself is wrong, or there is no disk to write on.
pub fn with_people(of: &Generation, size: Size, config: &Config) -> Result<Generation, String> {
    let shown = |error: &dyn std::fmt::Display| error.to_string();
    let members = of.datasets.first().map(|dataset| dataset.members.clone());
    let members = members.ok_or("no audience")?;
    let known = Known::with_room(size.people * 2).map_err(|e| shown(&e))?;
    let known = Arc::new(known);
    update(&known, size, config)?;
    let live = live(members)?;
    let frame = Frame {
        people: known,
        ..Frame::of(config, keyer())
    };
    let book = Arc::new(book(&document(size.line_items))?);
    let mut generation = Generation::assemble(1, book, Some(1), vec![live], frame);
    generation.graphs = [LiveGraph {
        name: "people".parse().map_err(|e| shown(&e))?,
        ordinal: 1,
        version: 1,
        graph: Arc::new(graph(size.people)?),
        purposes: Purposes::PROFILE,
    }]
    .into();
    Ok(generation)
}

/// Has so many updates taken, by a thread of their own that ends with them.
fn update(known: &Arc<Known>, size: Size, config: &Config) -> Result<(), String> {
    let shown = |error: &dyn std::fmt::Display| error.to_string();
    let dir = tempfile::tempdir().map_err(|e| shown(&e))?;
    let storage = Storage::start(dir.path()).map_err(|e| shown(&e))?;
    let mut terms = Terms::of(config, keyer());
    terms.room.ids = size.people * 2;
    let nobody = Box::new(|_| Vec::new());
    let people = People::start(terms, Arc::clone(known), storage, Timestamp::now, nobody);
    let people = people.map_err(|e| shown(&e))?;
    while people.recovered().is_none() {
        std::thread::yield_now();
    }
    let mut person = 0;
    while person < size.people {
        let mut rows = String::new();
        for person in person..size.people.min(person + ROWS_AT_ONCE) {
            let id = match person % 4 {
                0 => id("ifa", person),
                _ => format!("a-stranger-{person}"),
            };
            let _ = writeln!(
                rows,
                r#"{{"source":"ifa","id":"{id}","add":["site/s{}"]}}"#,
                person % 50
            );
        }
        let (done, unread) = people
            .take_lines(PeopleKind::Updates, rows.as_bytes())
            .map_err(|e| shown(&e))?;
        if unread + done.rejected.len() > 0 {
            return Err("an update was not taken".to_owned());
        }
        person += ROWS_AT_ONCE;
    }
    people.close();
    Ok(())
}

fn graph(people: usize) -> Result<Graph, String> {
    let meta = VersionMeta {
        kind: Kind::Identity,
        dataset: "people".parse().map_err(|e| format!("{e}"))?,
        version: 1,
        base: None,
        as_of: None,
    };
    let mut builder = Builder::new(meta, keyer()).map_err(|e| e.to_string())?;
    let mut person = 0;
    while person < people {
        let mut rows = String::from("source,id,person\n");
        for person in (person..people.min(person + ROWS_AT_ONCE)).step_by(2) {
            for source in ["ifa", "uidapi.com"] {
                let _ = writeln!(rows, "{source},{},p{person}", id(source, person));
            }
            let _ = writeln!(rows, "tv.example,set-{person},p{person}");
        }
        builder
            .read_rows(&RowFormat::Csv, rows.as_bytes(), &mut |_| {})
            .map_err(|e| e.to_string())?;
        person += ROWS_AT_ONCE;
    }
    let mut file = Vec::new();
    builder.finish(&mut file).map_err(|e| e.to_string())?;
    Graph::from_bytes(&file).map_err(|e| e.to_string())
}

fn keyer() -> Keyer {
    Keyer::new(&SecretKey::from_bytes([7; 32]))
}

fn live(members: Members) -> Result<LiveVersion, String> {
    Ok(LiveVersion {
        name: "crm".parse().map_err(|e| format!("{e}"))?,
        ordinal: 0,
        version: 1,
        members,
        purposes: Purposes::PROFILE,
        covers: 0,
    })
}

fn with(members: Members, book: Book, config: &Config) -> Result<Generation, String> {
    let live = live(members)?;
    let book = Arc::new(book);
    let frame = Frame::of(config, keyer());
    Ok(Generation::assemble(1, book, Some(1), vec![live], frame))
}

fn audience(people: usize, keyer: &Keyer) -> Result<Audience, String> {
    let meta = VersionMeta {
        kind: Kind::Audience,
        dataset: "crm".parse().map_err(|e| format!("{e}"))?,
        version: 1,
        base: None,
        as_of: None,
    };
    let mut builder = Builder::new(meta, keyer.clone()).map_err(|e| e.to_string())?;
    let mut dice = Dice::new(1);
    let mut segments = String::new();
    let mut person = 0;
    while person < people {
        let mut rows = String::from("source,id,segments\n");
        for person in person..people.min(person + ROWS_AT_ONCE) {
            segments.clear();
            for n in 0..1 + dice.below(SEGMENTS_EACH_MAX) {
                let segment = if person < wanted(people) {
                    dice.zipf(if n == 0 { SEGMENTS_COMMON } else { SEGMENTS })
                } else {
                    SEGMENTS_NAMED + dice.below(SEGMENTS - SEGMENTS_NAMED)
                };
                let bar = if n > 0 { "|" } else { "" };
                let _ = write!(segments, "{bar}s{segment}");
            }
            for source in SOURCES {
                let _ = writeln!(rows, "{source},{},{segments}", id(source, person));
            }
        }
        builder
            .read_rows(&RowFormat::Csv, rows.as_bytes(), &mut |_| {})
            .map_err(|e| e.to_string())?;
        person += ROWS_AT_ONCE;
    }
    let mut file = Vec::new();
    builder.finish(&mut file).map_err(|e| e.to_string())?;
    Audience::from_bytes(&file).map_err(|e| e.to_string())
}

fn book(document: &str) -> Result<Book, String> {
    compile(document.as_bytes()).map_err(|mistakes| {
        mistakes
            .first()
            .map_or_else(String::new, ToString::to_string)
    })
}

/// Countries by how much is bought in them; the first is where requests come from.
const COUNTRIES: [&str; 8] = ["USA", "FRA", "DEU", "GBR", "CAN", "ESP", "ITA", "BEL"];
/// What contextual line items want, and what the sites of wanted people are about.
pub const CATEGORIES: [&str; 12] = [
    "IAB1", "IAB2", "IAB3", "IAB4", "IAB5", "IAB6", "IAB7", "IAB8", "IAB9", "IAB10", "IAB17",
    "IAB19",
];
/// What the other sites are about; no line item wants it.
pub const CATEGORY_UNWANTED: &str = "IAB15";
/// Of creatives.
pub const SIZES: [(u32, u32); 5] = [(300, 250), (728, 90), (320, 50), (160, 600), (300, 600)];

/// The campaigns document: of ten line items six want segments (two of them not others), one is
/// contextual, one asks for a device, one buys through a deal, one takes anybody in some countries who is in a common segment.
pub fn document(line_items: usize) -> String {
    let mut dice = Dice::new(2);
    let mut out = String::from(r#"{"advertisers":["#);
    for n in 0..20 {
        let comma = if n > 0 { "," } else { "" };
        let _ = write!(
            out,
            r#"{comma}{{"id":"adv{n}","domain":"brand{n}.example","categories":["IAB{}"]}}"#,
            n % 20 + 1
        );
    }
    out.push_str(r#"],"creatives":["#);
    for n in 0..20 * SIZES.len() {
        let (w, h) = SIZES[n % SIZES.len()];
        let comma = if n > 0 { "," } else { "" };
        let _ = write!(
            out,
            r#"{comma}{{"id":"cr{n}","advertiser":"adv{}","type":"banner","w":{w},"h":{h},"secure":true,
                "adm":"<a href=\"${{KITH_CLICK_URL}}\"><img src=\"https://cdn.brand.example/{n}/{w}x{h}.png\" width=\"{w}\" height=\"{h}\"></a>"}}"#,
            n / SIZES.len()
        );
    }
    out.push_str(r#"],"line_items":["#);
    for n in 0..line_items {
        let advertiser = dice.below(20);
        let first = dice.below(SIZES.len());
        let creatives: Vec<String> = (first..=first + dice.below(3))
            .map(|place| format!("\"cr{}\"", advertiser * SIZES.len() + place % SIZES.len()))
            .collect();
        let mut named = || format!("'crm/s{}'", dice.below(SEGMENTS_NAMED));
        let segments = [named(), named(), named()].join(", ");
        let others = [named(), named()].join(", ");
        let here = COUNTRIES[dice.zipf(COUNTRIES.len())];
        let there = COUNTRIES[dice.zipf(COUNTRIES.len())];
        let country = format!("country in ['{here}', '{there}']");
        let targeting = match n % 10 {
            0..=3 => format!("segments one of [{segments}] and {country}"),
            4 | 5 => format!(
                "segments one of [{segments}] and segments none of [{others}] and {country}"
            ),
            6 => format!(
                "categories one of ['{}', '{}-1'] and {country}",
                CATEGORIES[dice.below(CATEGORIES.len())],
                CATEGORIES[dice.below(CATEGORIES.len())]
            ),
            7 => format!(
                "{country} and device_type = 'phone' and os in ['ios', 'android'] and segments one of [{others}]"
            ),
            8 => format!("segments all of [{others}] and {country} and not (hour < 6)"),
            _ => format!(
                "{country} and segments one of ['crm/s{}'] and width >= 300",
                dice.below(SEGMENTS_COMMON)
            ),
        };
        let deals = if n % 10 == 7 {
            format!("\"deal-{}\"", n % 50)
        } else {
            String::new()
        };
        let comma = if n > 0 { "," } else { "" };
        let _ = write!(
            out,
            r#"{comma}{{"id":"li-{n:05}","campaign":"c{}","creatives":[{}],"targeting":"{targeting}","deals":[{deals}],
                "price":{{"cpm":"{}.{:02}","currency":"USD"}}}}"#,
            n / 10,
            creatives.join(","),
            1 + dice.below(6),
            dice.below(100)
        );
    }
    out.push_str("]}");
    out
}

/// The scene's chance: the same from run to run.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Evenly from 0 to under `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// From 0 to under `n`, the `k`-th about `k` times rarer than the first (Zipf's law, by inverting its integral).
    pub fn zipf(&mut self, n: usize) -> usize {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        let rank = ((n + 1) as f64).powf(unit) - 1.0;
        (rank as usize).min(n - 1)
    }
}

/// SplitMix64's finaliser (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn mix(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}
