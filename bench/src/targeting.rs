//! Kith's targeting index beside the a-tree crate and beside asking every line item: the same line items, the same requests, the same
//! answers.
//!
//! The line items are those of the [`scene`], of whom most want segments. A request is somebody in about nine of 2,000
//! segments, in a country, on a device. Each structure finds all line items whose targeting is true, on slots of every size; that it
//! finds the same as the others is checked for each request. What a request's facts are turned into first (`resolve`, a-tree's
//! event) is timed apart: all of Kith's ways share it.
//!
//! All times are CPU time of the one thread; a round times each structure in turn, and the median of the rounds is told.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io;

use a_tree::{ATree, AttributeDefinition, Event};
use kith::campaigns::{Book, Candidates, Facts, ImpFacts, Resolved, SegmentFacts, compile};
use kith::clock::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::scene::{self, CATEGORIES, Dice, SEGMENTS, SIZES};

const COUNTRIES: [&str; 8] = ["USA", "FRA", "DEU", "GBR", "CAN", "ESP", "ITA", "BEL"];
const SYSTEMS: [&str; 3] = ["ios", "android", "windows"];
/// Beyond so many line items a-tree is left out: its answers take milliseconds, its building minutes.
const ATREE_LINE_ITEMS_MAX: usize = 20_000;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Numbers of line items, one after the other.
    pub line_items: Vec<usize>,
    /// Different requests.
    pub requests: usize,
    /// Rounds, of which the first warms up.
    pub rounds: usize,
}

impl Effort {
    /// What figures are published from.
    pub fn full() -> Self {
        Self {
            line_items: vec![1_000, 10_000, 100_000],
            requests: 500,
            rounds: 10,
        }
    }

    /// What tests run.
    pub fn tiny() -> Self {
        Self {
            line_items: vec![200],
            requests: 50,
            rounds: 2,
        }
    }
}

/// What was measured, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One a number of line items.
    pub rows: Vec<Row>,
}

/// One number of line items. Times are nanoseconds a request.
#[derive(Debug, Serialize)]
pub struct Row {
    /// In the book.
    pub line_items: usize,
    /// Of them, those whose targeting is true, on average.
    pub matches: f64,
    /// Of them, those that the index leaves to be asked, on average.
    pub candidates: f64,
    /// Turning a request's facts into numbers.
    pub resolve_ns: f64,
    /// The index, and asking those that it leaves.
    pub index_ns: f64,
    /// The distance between the quartiles of the rounds.
    pub index_spread_ns: f64,
    /// Asking every line item.
    pub scan_ns: f64,
    /// The a-tree crate's search; nothing where there are too many line items for it.
    pub atree_ns: Option<f64>,
    /// Compiling the document, in milliseconds.
    pub compile_ms: f64,
}

impl Report {
    /// As a table.
    pub fn table(&self) -> String {
        let mut out = String::from(
            "line items  matches  candidates  resolve ns  index ns  spread     scan ns   a-tree ns  a-tree/index  compile ms\n",
        );
        for row in &self.rows {
            let atree = row.atree_ns.map_or("-".to_owned(), |ns| format!("{ns:.0}"));
            let ratio = row.atree_ns.map(|ns| ns / row.index_ns);
            let _ = writeln!(
                out,
                "{:>10}{:>9.1}{:>12.1}{:>12.0}{:>10.0}{:>8.0}{:>12.0}{atree:>12}{:>14}{:>12.0}",
                row.line_items,
                row.matches,
                row.candidates,
                row.resolve_ns,
                row.index_ns,
                row.index_spread_ns,
                row.scan_ns,
                ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.1}")),
                row.compile_ms,
            );
        }
        out
    }
}

/// Measures.
pub fn run(effort: &Effort) -> io::Result<Report> {
    let rows = effort.line_items.iter().map(|count| row(effort, *count));
    Ok(Report {
        rows: rows
            .collect::<Result<_, String>>()
            .map_err(io::Error::other)?,
    })
}

/// Somebody who asks.
struct Asker {
    segments: Vec<String>,
    country: &'static str,
    os: &'static str,
    device_type: &'static str,
    category: &'static str,
    width: i64,
    now: Timestamp,
    member: Vec<u64>,
}

impl Asker {
    fn draw(dice: &mut Dice, book: &Book) -> Self {
        let mut segments: Vec<String> = (0..1 + dice.below(17))
            .map(|_| format!("crm/s{}", dice.zipf(SEGMENTS)))
            .collect();
        segments.sort_unstable();
        segments.dedup();
        let mut member = vec![0u64; book.segments.len().div_ceil(64)];
        for (slot, segment) in book.segments.iter().enumerate() {
            if segments.binary_search(&segment.to_string()).is_ok() {
                member[slot / 64] |= 1 << (slot % 64);
            }
        }
        Self {
            segments,
            country: COUNTRIES[dice.zipf(COUNTRIES.len())],
            os: SYSTEMS[dice.below(SYSTEMS.len())],
            device_type: ["phone", "pc"][dice.below(2)],
            category: CATEGORIES[dice.below(CATEGORIES.len())],
            width: [300, 728, 320, 160][dice.below(4)],
            now: Timestamp::from_unix_seconds(1_800_000_000 + 3_600 * dice.below(24) as i64),
            member,
        }
    }

    /// Resolved, with an imp.
    fn resolve(&self, book: &Book, unreadable: &[u64], resolved: &mut Resolved) {
        let mut facts = Facts::new("demo", self.now);
        let categories = [self.category];
        facts.segments = Some(SegmentFacts {
            member: &self.member,
            unreadable,
            any: None,
        });
        facts.country = Some(self.country);
        facts.os = Some(self.os);
        facts.device_type = Some(self.device_type);
        facts.categories = &categories;
        book.resolve(black_box(&facts), resolved);
    }

    fn imp(&self) -> ImpFacts<'static> {
        ImpFacts {
            width: Some(self.width),
            ..ImpFacts::default()
        }
    }

    fn event(&self, tree: &ATree<u64>) -> Result<Event, String> {
        let segments: Vec<&str> = self.segments.iter().map(String::as_str).collect();
        let hour = self.now.unix_seconds() / 3_600 % 24;
        let mut event = tree.make_event();
        let added = event
            .with_string_list("segments", &segments)
            .and_then(|()| event.with_string_list("categories", &[self.category]))
            .and_then(|()| event.with_string("country", self.country))
            .and_then(|()| event.with_string("os", self.os))
            .and_then(|()| event.with_string("device_type", self.device_type))
            .and_then(|()| event.with_integer("hour", hour))
            .and_then(|()| event.with_integer("width", self.width));
        added
            .and_then(|()| event.build())
            .map_err(|error| format!("{error:?}"))
    }
}

/// The expressions as a-tree has them: texts in other quotes, and no "all of" that means what ours does.
fn for_atree(targeting: &str) -> String {
    let text = targeting.replace('\'', "\"");
    let Some((before, rest)) = text.split_once("segments all of [") else {
        return text;
    };
    let (list, after) = rest.split_once(']').unwrap_or((rest, ""));
    let each: Vec<String> = list
        .split(", ")
        .map(|one| format!("segments one of [{one}]"))
        .collect();
    format!("{before}({}){after}", each.join(" and "))
}

fn atree(document: &str) -> Result<ATree<u64>, String> {
    let definitions = [
        AttributeDefinition::string_list("segments"),
        AttributeDefinition::string_list("categories"),
        AttributeDefinition::string("country"),
        AttributeDefinition::string("os"),
        AttributeDefinition::string("device_type"),
        AttributeDefinition::integer("hour"),
        AttributeDefinition::integer("width"),
    ];
    let mut tree = ATree::new(&definitions).map_err(|error| format!("{error:?}"))?;
    let document: serde_json::Value =
        serde_json::from_str(document).map_err(|error| error.to_string())?;
    let line_items = document["line_items"].as_array();
    for (number, line_item) in (0u64..).zip(line_items.into_iter().flatten()) {
        let text = for_atree(line_item["targeting"].as_str().unwrap_or(""));
        let inserted = tree.insert(&number, &text);
        inserted.map_err(|error| format!("{text}: {error:?}"))?;
    }
    Ok(tree)
}

fn cpu_ns() -> f64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.tv_sec as f64 * 1e9 + spent.tv_nsec as f64
}

fn row(effort: &Effort, line_items: usize) -> Result<Row, String> {
    let document = scene::document(line_items);
    let begun = cpu_ns();
    let book = compile(document.as_bytes()).map_err(|mistakes| format!("{mistakes:?}"))?;
    let compile_ms = (cpu_ns() - begun) / 1e6;
    let tree = match line_items <= ATREE_LINE_ITEMS_MAX {
        true => Some(atree(&document)?),
        false => None,
    };
    let mut dice = Dice::new(3);
    let askers: Vec<Asker> = (0..effort.requests)
        .map(|_| Asker::draw(&mut dice, &book))
        .collect();
    let unreadable = vec![0; book.segments.len().div_ceil(64)];
    // An imp that takes every size.
    let slots = [(1 << SIZES.len()) - 1];
    let resolved: Vec<Resolved> = askers
        .iter()
        .map(|asker| {
            let mut resolved = Resolved::default();
            asker.resolve(&book, &unreadable, &mut resolved);
            resolved
        })
        .collect();
    let mut candidates = Candidates::default();
    let mut found: Vec<u32> = Vec::with_capacity(line_items);
    let (mut matches, mut asked) = (0usize, 0usize);
    // What is timed is right.
    for (asker, resolved) in askers.iter().zip(&resolved) {
        book.candidates(resolved, &mut candidates);
        book.candidates_of_slots(&slots, &mut candidates);
        asked += candidates.of(&book).count();
        by_index(
            &book,
            resolved,
            &asker.imp(),
            &slots,
            &mut candidates,
            &mut found,
        );
        found.sort_unstable();
        let of_index = found.clone();
        by_scan(&book, resolved, &asker.imp(), &mut found);
        if found != of_index {
            return Err(format!("the index finds {of_index:?}, a scan {found:?}"));
        }
        matches += found.len();
        if let Some(tree) = &tree {
            let report = tree
                .search(&asker.event(tree)?)
                .map_err(|e| format!("{e:?}"))?;
            // The book has its line items in the order of their ids, which is that of the document.
            let mut of_tree: Vec<u32> = report.matches().iter().map(|id| **id as u32).collect();
            of_tree.sort_unstable();
            if of_tree != found {
                return Err(format!("a-tree finds {of_tree:?}, a scan {found:?}"));
            }
        }
    }
    let requests = askers.len() as f64;
    let mut times: [Vec<f64>; 4] = Default::default();
    for round in 0..effort.rounds {
        let mut spent = [0.0; 4];
        let mut scratch = Resolved::default();
        let begun = cpu_ns();
        for asker in &askers {
            asker.resolve(&book, &unreadable, &mut scratch);
        }
        spent[0] = cpu_ns() - begun;
        let begun = cpu_ns();
        for (asker, resolved) in askers.iter().zip(&resolved) {
            by_index(
                &book,
                resolved,
                &asker.imp(),
                &slots,
                &mut candidates,
                &mut found,
            );
            black_box(&found);
        }
        spent[1] = cpu_ns() - begun;
        let begun = cpu_ns();
        for (asker, resolved) in askers.iter().zip(&resolved) {
            by_scan(&book, resolved, &asker.imp(), &mut found);
            black_box(&found);
        }
        spent[2] = cpu_ns() - begun;
        if let Some(tree) = &tree {
            for asker in &askers {
                let event = asker.event(tree)?;
                let begun = cpu_ns();
                let report = tree.search(&event);
                spent[3] += cpu_ns() - begun;
                black_box(
                    report
                        .map_err(|error| format!("{error:?}"))?
                        .matches()
                        .len(),
                );
            }
        }
        if round > 0 {
            for (times, spent) in times.iter_mut().zip(spent) {
                times.push(spent / requests);
            }
        }
    }
    for times in &mut times {
        times.sort_unstable_by(f64::total_cmp);
    }
    let at = |times: &[f64], share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Ok(Row {
        line_items,
        matches: matches as f64 / requests,
        candidates: asked as f64 / requests,
        resolve_ns: at(&times[0], 0.5),
        index_ns: at(&times[1], 0.5),
        index_spread_ns: at(&times[1], 0.75) - at(&times[1], 0.25),
        scan_ns: at(&times[2], 0.5),
        atree_ns: tree.map(|_| at(&times[3], 0.5)),
        compile_ms,
    })
}

fn by_index(
    book: &Book,
    resolved: &Resolved,
    imp: &ImpFacts<'_>,
    slots: &[u64],
    candidates: &mut Candidates,
    found: &mut Vec<u32>,
) {
    found.clear();
    book.candidates(resolved, candidates);
    book.candidates_of_slots(slots, candidates);
    for line_item in candidates.of(book) {
        if book.candidate_matches(line_item, resolved, imp) == Some(true) {
            found.push(line_item.index);
        }
    }
}

fn by_scan(book: &Book, resolved: &Resolved, imp: &ImpFacts<'_>, found: &mut Vec<u32>) {
    found.clear();
    for line_item in &book.line_items {
        if book.matches(line_item, resolved, imp) == Some(true) {
            found.push(line_item.index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That all find the same is checked by the run itself.
    #[test]
    fn all_find_the_same() {
        let report = run(&Effort::tiny()).expect("a report");
        let row = &report.rows[0];
        assert!(row.matches > 0.0 && row.candidates >= row.matches);
        assert!(row.candidates < row.line_items as f64 / 4.0);
        assert!(row.index_ns > 0.0 && row.atree_ns.is_some_and(|ns| ns > 0.0));
        assert_eq!(report.table().lines().count(), 2);
    }
}
