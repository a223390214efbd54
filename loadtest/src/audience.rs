//! Audiences: a made-up one of any size, and the ids of any that is uploaded.
//!
//! A made audience remembers nothing: the id of row *n* is a function of the seed and *n*, so that a stream can draw from
//! ten million people without holding one of them, and the file that [`write()`] makes has the same ids. Of an audience
//! that is read only the first two columns count; a uniform sample of at most [`SAMPLE_MAX`] rows is kept (about
//! 100 bytes each).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

use crate::dice::{Dice, mixed};
use crate::world;

/// Most rows of a file that are kept to draw from.
pub const SAMPLE_MAX: usize = 1_000_000;
/// Most segments that one row of a made audience has.
pub const SEGMENTS_PER_ROW_MAX: usize = 64;

/// The sources of a made audience, row by row: row *n* is of source *n* modulo their number. 40 % `ifa`, 25 % `buyeruid`,
/// the rest extended ids.
const ROWS: [&str; 20] = [
    IFA, BUYERUID, IFA, UID, IFA, BUYERUID, IFA, GRAPH, IFA, BUYERUID, IFA, UID, IFA, BUYERUID,
    IFA, SHARED, GRAPH, BUYERUID, UID, CONNECT,
];
pub(crate) const IFA: &str = "ifa";
pub(crate) const BUYERUID: &str = "buyeruid";
const UID: &str = "uidapi.com";
const GRAPH: &str = "idgraph.example";
const SHARED: &str = "sharedid.example";
const CONNECT: &str = "connect.example";
/// Sources of extended ids; the last are in no made audience.
pub(crate) const EIDS: [&str; 8] = [
    UID,
    GRAPH,
    SHARED,
    CONNECT,
    "pubcommon.example",
    "panorama.example",
    "fabric.example",
    "crumbs.example",
];

/// Whom requests are about.
#[derive(Debug)]
pub enum Audience {
    /// The people that [`write()`] writes for the same count and seed.
    Made {
        /// How many rows.
        count: u64,
        /// Of which seed.
        seed: u64,
    },
    /// Rows of a file, by source.
    Sampled(BTreeMap<String, Vec<Box<str>>>),
}

impl Audience {
    /// Reads `source,id,…` with a header, as Kith takes it for an upload. Rows whose source no request carries (`email`,
    /// `phone`, `customer`, `person`) are left out.
    pub fn read(input: impl Read, seed: u64) -> Result<Self, csv::Error> {
        Self::sampled(input, seed, SAMPLE_MAX)
    }

    fn sampled(input: impl Read, seed: u64, most: usize) -> Result<Self, csv::Error> {
        let mut rows = csv::ReaderBuilder::new().flexible(true).from_reader(input);
        let mut row = csv::StringRecord::new();
        let mut dice = Dice::new(seed, 3);
        let mut kept: Vec<(Box<str>, Box<str>)> = Vec::new();
        let mut seen = 0usize;
        while rows.read_record(&mut row)? {
            let (Some(source), Some(id)) = (row.get(0), row.get(1)) else {
                continue;
            };
            if matches!(source, "email" | "phone" | "customer" | "person") || id.is_empty() {
                continue;
            }
            seen += 1;
            let pair = || (source.into(), id.into());
            if kept.len() < most {
                kept.push(pair());
            } else if let Some(slot) = kept.get_mut(dice.below(seen)) {
                *slot = pair();
            }
        }
        let mut by_source: BTreeMap<String, Vec<Box<str>>> = BTreeMap::new();
        for (source, id) in kept {
            by_source.entry(source.into()).or_default().push(id);
        }
        Ok(Self::Sampled(by_source))
    }

    /// Whether there is nobody to ask about.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Made { count, .. } => *count == 0,
            Self::Sampled(by_source) => by_source.is_empty(),
        }
    }

    /// Any row's source and id; `None` of an audience without rows.
    pub(crate) fn draw(&self, dice: &mut Dice) -> Option<(String, String)> {
        match self {
            Self::Made { count: 0, .. } => None,
            Self::Made { count, seed } => {
                let (source, id) = row(*seed, dice.bits() as u64 % count);
                Some((source.to_owned(), id))
            }
            Self::Sampled(by_source) => {
                let mut left = dice.below(by_source.values().map(Vec::len).sum());
                for (source, ids) in by_source {
                    match ids.get(left) {
                        Some(id) => return Some((source.clone(), id.to_string())),
                        None => left -= ids.len(),
                    }
                }
                None
            }
        }
    }

    /// An id of this source.
    pub(crate) fn draw_of(&self, source: &str, dice: &mut Dice) -> Option<String> {
        match self {
            Self::Made { count, seed } => {
                let start = dice.below(ROWS.len());
                let places = (0..ROWS.len()).map(|step| (start + step) % ROWS.len());
                let place = places.into_iter().find(|place| ROWS[*place] == source)? as u64;
                let cycles = count / ROWS.len() as u64;
                let n = match cycles {
                    0 => place,
                    _ => dice.bits() as u64 % cycles * ROWS.len() as u64 + place,
                };
                (n < *count).then(|| row(*seed, n).1)
            }
            Self::Sampled(by_source) => {
                let ids = by_source.get(source)?;
                ids.get(dice.below(ids.len())).map(|id| id.to_string())
            }
        }
    }
}

/// What [`write()`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Rows, which is ids.
    pub rows: u64,
    /// Segments named by all of them together.
    pub memberships: u64,
}

/// Writes the audience `Made { count, seed }` as CSV: each row in some of `segments` segments, about seven, whose popularity
/// follows Zipf's law.
pub fn write(
    out: &mut (impl Write + ?Sized),
    count: u64,
    segments: usize,
    seed: u64,
) -> io::Result<Written> {
    let mut dice = Dice::new(seed, 2);
    let popularity = popularity(segments);
    let how_many = rand_distr::LogNormal::new(1.8_f64, 0.75).map_err(io::Error::other)?;
    out.write_all(b"source,id,segments\n")?;
    let mut memberships = 0;
    let mut ranks: Vec<usize> = Vec::new();
    for n in 0..count {
        let (source, id) = row(seed, n);
        write!(out, "{source},{id},")?;
        let wanted = (dice.sample(how_many) as usize).clamp(1, SEGMENTS_PER_ROW_MAX);
        ranks.clear();
        ranks.extend((0..wanted).map(|_| dice.sample(popularity) as usize));
        ranks.sort_unstable();
        ranks.dedup();
        for (place, rank) in ranks.iter().enumerate() {
            let bar = if place == 0 { "" } else { "|" };
            write!(out, "{bar}{}", world::segment(*rank))?;
        }
        out.write_all(b"\n")?;
        memberships += ranks.len() as u64;
    }
    Ok(Written {
        rows: count,
        memberships,
    })
}

/// How often each of `segments` segments is met, by rank from 1.
pub(crate) fn popularity(segments: usize) -> rand_distr::Zipf<f64> {
    const EXPONENT: f64 = 0.9;
    rand_distr::Zipf::new(segments.max(1) as f64, EXPONENT)
        .expect("at least one segment, a positive exponent")
}

/// Row `n` of the audience of a seed.
fn row(seed: u64, n: u64) -> (&'static str, String) {
    let source = ROWS[(n % ROWS.len() as u64) as usize];
    let high = mixed(mixed(seed) ^ n);
    let bits = (u128::from(high) << 64) | u128::from(mixed(high ^ n.rotate_left(32)));
    (source, id_text(source, bits))
}

/// An id as its source writes them.
pub(crate) fn id_text(source: &str, bits: u128) -> String {
    let wide = |words: u64| -> Vec<u8> {
        let more = (0..words).flat_map(|n| mixed(bits as u64 ^ n).to_be_bytes());
        bits.to_be_bytes().into_iter().chain(more).collect()
    };
    match source {
        BUYERUID => BASE64_URL_SAFE_NO_PAD.encode(bits.to_be_bytes()),
        UID => BASE64_STANDARD.encode(wide(2)),
        GRAPH => format!("IG*{}", BASE64_URL_SAFE_NO_PAD.encode(wide(5))),
        CONNECT => format!("{bits:032x}"),
        "panorama.example" | "fabric.example" => BASE64_URL_SAFE_NO_PAD.encode(wide(3)),
        _ => uuid(bits),
    }
}

/// A random UUID (version 4) of these bits.
pub(crate) fn uuid(bits: u128) -> String {
    let versioned = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{versioned:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeSet, HashMap};

    fn made(count: u64, segments: usize, seed: u64) -> (String, Written) {
        let mut out = Vec::new();
        let written = write(&mut out, count, segments, seed).expect("written");
        (String::from_utf8(out).expect("text"), written)
    }

    #[test]
    fn a_made_audience_repeats_and_is_mixed() {
        let (text, written) = made(20_000, 2000, 1);
        assert_eq!(made(20_000, 2000, 1).0, text);
        assert_ne!(made(20_000, 2000, 2).0, text);
        let mean = written.memberships as f64 / written.rows as f64;
        assert!((4.0..=12.0).contains(&mean), "{mean} segments a row");
        let mut sources: HashMap<&str, usize> = HashMap::new();
        let mut ids = BTreeSet::new();
        let mut uses: HashMap<&str, usize> = HashMap::new();
        for line in text.lines().skip(1) {
            let mut columns = line.split(',');
            let source = columns.next().expect("a source");
            *sources.entry(source).or_default() += 1;
            assert!(
                ids.insert(columns.next().expect("an id")),
                "{line}: ids are unique"
            );
            for segment in columns.next().expect("segments").split('|') {
                *uses.entry(segment).or_default() += 1;
            }
        }
        assert_eq!(
            (sources["ifa"], sources["buyeruid"], sources["uidapi.com"]),
            (8000, 5000, 3000)
        );
        assert_eq!(sources.len(), 6);
        // Zipf: the first is met several times as often as the tenth, and the tail is long.
        assert!(
            uses["s00001"] > 3 * uses["s00010"] && uses.len() > 1800,
            "{} segments",
            uses.len()
        );
    }

    #[test]
    fn every_row_can_be_uploaded() {
        let key = kith::ids::Keyer::new(&kith::ids::SecretKey::from_bytes([7; 32]));
        for line in made(2000, 50, 9).0.lines().skip(1) {
            let mut columns = line.split(',');
            let (source, id) = (
                columns.next().expect("a source"),
                columns.next().expect("an id"),
            );
            key.user_key(source, id).expect(line);
        }
    }

    #[test]
    fn drawn_ids_are_those_of_the_file() {
        let (text, _) = made(1000, 20, 5);
        let rows: BTreeSet<(String, String)> = text
            .lines()
            .skip(1)
            .map(|line| {
                let mut columns = line.split(',').map(str::to_owned);
                (
                    columns.next().expect("a source"),
                    columns.next().expect("an id"),
                )
            })
            .collect();
        let read = Audience::read(text.as_bytes(), 1).expect("a file");
        for audience in [
            Audience::Made {
                count: 1000,
                seed: 5,
            },
            read,
        ] {
            let mut dice = Dice::new(8, 0);
            let mut drawn = BTreeSet::new();
            for _ in 0..2000 {
                let pair = audience.draw(&mut dice).expect("a row");
                assert!(rows.contains(&pair), "{pair:?}");
                drawn.insert(pair);
                let id = audience.draw_of(UID, &mut dice).expect("an id");
                assert!(rows.contains(&(UID.to_owned(), id)));
            }
            assert!(
                drawn.len() > 800,
                "{} of 1000 rows in 2000 draws",
                drawn.len()
            );
            assert_eq!(audience.draw_of("crumbs.example", &mut dice), None);
        }
        let mut dice = Dice::new(1, 0);
        assert_eq!(Audience::Made { count: 0, seed: 5 }.draw(&mut dice), None);
        assert_eq!(
            Audience::read("source,id\n".as_bytes(), 1)
                .expect("a file")
                .draw(&mut dice),
            None
        );
    }

    #[test]
    fn a_sample_is_bounded_and_skips_what_no_request_carries() {
        let mut text =
            String::from("source,id,segments\nemail,x,a\nifa,,a\n\"exchange:demo\",\"a,b\",a\n");
        (0..5000).for_each(|n| text.push_str(&format!("ifa,i{n},a\n")));
        let Audience::Sampled(by_source) =
            Audience::sampled(text.as_bytes(), 1, 100).expect("a file")
        else {
            unreachable!("a file is sampled");
        };
        assert_eq!(by_source.values().map(Vec::len).sum::<usize>(), 100);
        let late = by_source["ifa"].iter().filter(|id| id.len() == 5).count();
        assert!(late > 50, "{late} of the last 4000 in a sample of 100");
        let Audience::Sampled(all) = Audience::read(text.as_bytes(), 1).expect("a file") else {
            unreachable!("a file is sampled");
        };
        assert_eq!((all.len(), &*all["exchange:demo"][0]), (2, "a,b"));
    }
}
