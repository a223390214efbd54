//! What is asked of a filter before it is served: what is asked of an audience, as far as a filter can answer, and whether
//! it keeps the rate of false positives that it declares.
//!
//! The rate is measured whenever a filter is opened, by [`Measured::of`], and so off the bid threads. That check and the one on
//! what was declared are made where guards are off, too: who targets by a list counts on what was declared of it.
//!
//! A filter cannot be listed, so its ids are compared by asking: the people kept while rows were read are looked up in the live
//! version, and of those found is taken off what its errors alone would find.
//!
//! Cost: a million probes, a hundredth of a second where the filter is near, a tenth where it is large.

use std::sync::Arc;

use super::inputs::{self, Known};
use super::profile::{Baseline, Profile};
use super::{Candidate, MEND, by_chance, check, first, memory, passed, percent, swing};
use crate::audience::{FalsePositiveRate, Filter, Lookup, PROBES, Seen};
use crate::clock::Timestamp;
use crate::config::Guards;
use crate::datasets::Format;
use crate::datasets::manifest::Check;
use crate::ids::Name;

/// A filter that holds less than this part of the ids that it says it holds is not the one that was built.
const HELD_SHARE: f64 = 0.5;

/// A filter, open, and how many of [`PROBES`] ids that were not uploaded were found in it.
#[derive(Debug, Clone)]
pub(in crate::datasets) struct Measured {
    pub(in crate::datasets) filter: Arc<Filter>,
    found: u64,
}

impl Measured {
    /// Measures it.
    pub(in crate::datasets) fn of(filter: Arc<Filter>) -> Self {
        // Any seed will do: the hashes of an honest filter were salted before this one could be known.
        let found = filter.set().false_positives(filter.set().shape().blocks());
        Self { filter, found }
    }

    /// The real rate, as a share.
    pub(in crate::datasets) fn rate(&self) -> f64 {
        self.found as f64 / PROBES as f64
    }
}

/// What a filter is held against.
pub(in crate::datasets) struct OfFilter<'a> {
    /// The rate that is configured for the dataset.
    pub(in crate::datasets) declared_max: FalsePositiveRate,
    /// The live version, where it is open.
    pub(in crate::datasets) live: Option<&'a Measured>,
    pub(in crate::datasets) baseline: Option<&'a Baseline<'a>>,
    pub(in crate::datasets) exchanges: &'a [Name],
}

/// Looks at a built filter; `measured` is it, unless memory did not allow to open it.
pub(in crate::datasets) fn checks_of_a_filter(
    guards: &Guards,
    of: &Candidate<'_>,
    measured: Option<&Measured>,
    against: &OfFilter<'_>,
    now: Timestamp,
) -> Vec<Check> {
    let mut checks = match measured {
        Some(measured) => vec![
            false_positives(measured),
            declared(measured, against.declared_max),
        ],
        None => Vec::new(),
    };
    if !guards.enabled {
        return checks;
    }
    let baseline = against.baseline;
    let known = baseline.map(|b| Known {
        exchanges: against.exchanges,
        earlier: b.sources.as_ref(),
    });
    checks.extend([
        match of.format {
            Format::Snapshot => inputs::rejected_rows_of_a_file(),
            Format::Rows(_) | Format::Document => inputs::rejected_rows(guards, of.rows),
        },
        swing::ids(guards, of.rows.ids, baseline.map(|b| b.ids)),
        segment(measured, baseline),
        overlap(guards, of.seen, of.rows.ids, against),
        inputs::sources(guards, of.seen.map(|s| &s.sources), known.as_ref()),
        empty(measured),
        inputs::age(guards, of.as_of, baseline.and_then(|b| b.as_of), now),
        memory::memory(of.room),
    ]);
    checks
}

/// What is remembered of a filter from now on.
pub(in crate::datasets) fn profile_of_a_filter(
    filter: &Filter,
    seen: Option<&Seen>,
    body_bytes: u64,
) -> Profile {
    Profile {
        lasting: filter.ids(),
        segments: [(filter.segment().clone(), filter.ids())].into(),
        sources: seen.map(|seen| inputs::remembered(&seen.sources)),
        body_bytes,
    }
}

/// Whether the real rate is no worse than the declared one.
fn false_positives(measured: &Measured) -> Check {
    let set = measured.filter.set();
    let shape = set.shape();
    let declared = shape.rate();
    check(
        "false_positives",
        measured.rate() <= declared.share(),
        format!(
            "{:.4} % of {PROBES} ids that were not uploaded are in it; {declared} was declared",
            100.0 * measured.rate()
        ),
        &format!(
            "it was made for {} ids and seems to hold {:.0}: build it again with this Kith and upload it under a higher number",
            shape.ids(),
            set.estimated_ids()
        ),
    )
}

/// A version file may declare another rate than the dataset's.
fn declared(measured: &Measured, most: FalsePositiveRate) -> Check {
    let declared = measured.filter.set().shape().rate();
    let dataset = &measured.filter.meta().dataset;
    check(
        "declared_rate",
        declared <= most,
        format!("it declares {declared} of false positives; the dataset may have {most}"),
        &format!(
            "build it with --false-positive-rate {} and upload it under a higher number, or set false_positive_rate = {} in [datasets.{dataset}]",
            most.share(),
            declared.share()
        ),
    )
}

/// Whoever targets by the list names its segment: under another name it would be empty to them.
fn segment(measured: Option<&Measured>, baseline: Option<&Baseline<'_>>) -> Check {
    const NAME: &str = "segments";
    let Some(baseline) = baseline else {
        return first(NAME);
    };
    let before = baseline.sizes.as_ref();
    let before = before.and_then(|sizes| sizes.segments.keys().next());
    let (Some(measured), Some(before)) = (measured, before) else {
        return passed(
            NAME,
            "not known: this version or the live one has not been opened",
        );
    };
    let this = measured.filter.segment();
    check(
        NAME,
        this == before,
        format!("the list is `{this}`, in the live version `{before}`"),
        &format!("targeting by `{before}` would find nobody on it any more; {MEND}"),
    )
}

/// People whom the live version does not know come from another id space.
fn overlap(guards: &Guards, seen: Option<&Seen>, ids: u64, against: &OfFilter<'_>) -> Check {
    const NAME: &str = "overlap";
    if against.baseline.is_none() {
        return first(NAME);
    }
    let Some(seen) = seen else {
        return passed(
            NAME,
            "not known: a version file has no ids that could be looked up",
        );
    };
    let Some(live) = against.live else {
        return passed(NAME, "not known: the live version could not be read");
    };
    let is_in = |key| live.filter.lookup(key) == Lookup::Found;
    let found = seen.people.iter().filter(|person| is_in(person.key));
    let (asked, found) = (seen.people.len() as f64, found.count() as f64);
    // What is found by error is as many as the rate says of those who are not in it.
    let wrong = live.rate().min(0.99);
    let known = ((found - wrong * asked) / (1.0 - wrong)).max(0.0);
    let expected = asked * (live.filter.ids() as f64 / ids.max(1) as f64).min(1.0);
    let strangers = known < guards.min_overlap * expected && !by_chance(expected - known, asked);
    check(
        NAME,
        !strangers,
        format!(
            "the live version has about {known:.0} of {asked} people looked up, {} of those whom it could have (at least {} should be)",
            percent(known / expected.max(1.0)),
            percent(guards.min_overlap)
        ),
        &format!("check from which source, in which spelling or hash, the ids are; {MEND}"),
    )
}

/// A filter with next to nothing in it would clear the list.
fn empty(measured: Option<&Measured>) -> Check {
    const NAME: &str = "empty";
    let Some(measured) = measured else {
        return passed(NAME, "not known: it has not been opened");
    };
    let says = measured.filter.ids();
    let held = measured.filter.set().estimated_ids();
    check(
        NAME,
        held >= HELD_SHARE * says as f64,
        format!("it says that it holds {says} ids, and by its bits holds about {held:.0}"),
        "to serve it would clear most of the list: build it again with this Kith and upload it under a higher number",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audience::{Builder, RowFormat, VersionMeta};
    use crate::ids::{Keyer, Kind, SecretKey};

    fn file(ids: u32) -> Vec<u8> {
        let meta = VersionMeta {
            kind: Kind::Filter,
            dataset: "optout".parse().expect("a name"),
            version: 1,
            base: None,
            as_of: None,
        };
        let keyer = Keyer::new(&SecretKey::from_bytes([7; 32]));
        let mut builder = Builder::new(meta, keyer).expect("a filter");
        let format = RowFormat::Text {
            source: "ifa".to_owned(),
            segment: "list".parse().expect("a name"),
        };
        let rows: String = (0..ids).map(|n| format!("p{n}\n")).collect();
        builder
            .read_rows(&format, rows.as_bytes(), &mut |_| {})
            .expect("rows");
        let mut file = Vec::new();
        builder.finish(&mut file).expect("a version");
        file
    }

    /// The file, with its blocks changed and all checksums made true again.
    fn changed(ids: u32, change: impl Fn(&mut [u8])) -> Measured {
        let mut file = file(ids);
        let at = |file: &[u8], at: usize| {
            u64::from_le_bytes(file[at..at + 8].try_into().expect("eight")) as usize
        };
        let filter = at(&file, 264)..at(&file, 264) + at(&file, 272);
        change(&mut file[filter.clone()][64..]);
        let crc = crc32fast::hash(&file[filter]).to_le_bytes();
        file[260..264].copy_from_slice(&crc);
        let sums = at(&file, 312);
        let blocks = file[512..sums].chunks(1 << 16);
        let of_blocks: Vec<u8> = blocks
            .flat_map(|b| crc32fast::hash(b).to_le_bytes())
            .collect();
        file[sums..].copy_from_slice(&of_blocks);
        file[308..312].copy_from_slice(&crc32fast::hash(&of_blocks).to_le_bytes());
        let crc = crc32fast::hash(&file[..508]).to_le_bytes();
        file[508..512].copy_from_slice(&crc);
        Measured::of(Arc::new(Filter::from_bytes(&file).expect("sound")))
    }

    #[test]
    fn a_filter_that_is_worse_than_declared_is_told() {
        let good = changed(2_000, |_| {});
        let told = false_positives(&good);
        assert!(
            told.ok && told.detail.ends_with("1 % was declared"),
            "{told:?}"
        );
        // In each word 24 bits more, whichever.
        let worse = changed(2_000, |blocks| {
            blocks.chunks_mut(8).for_each(|word| word[..3].fill(0xff));
        });
        let told = false_positives(&worse);
        assert!(
            !told.ok && told.detail.contains("made for 2000 ids and seems to hold"),
            "{told:?}"
        );
        assert!(empty(Some(&worse)).ok);
        let cleared = changed(2_000, |blocks| blocks.fill(0));
        assert!(false_positives(&cleared).ok && !empty(Some(&cleared)).ok);
    }

    #[test]
    fn more_errors_than_the_dataset_may_have_are_told() {
        let filter = changed(10, |_| {});
        let rate = |share| FalsePositiveRate::of_share(share).expect("a rate");
        assert!(declared(&filter, rate(0.01)).ok && declared(&filter, rate(0.1)).ok);
        let told = declared(&filter, rate(0.001));
        let both = "build it with --false-positive-rate 0.001 and upload it under a higher number, or set false_positive_rate = 0.01 in [datasets.optout]";
        assert!(!told.ok && told.detail.ends_with(both), "{told:?}");
    }
}
