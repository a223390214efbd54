//! What the datasets report to Prometheus. Every known dataset has its series from the start, at 0.
//!
//! The label is a dataset's name. It comes from the configuration or from an upload by a holder of a token, is bounded by
//! `limits.datasets`, and never comes from a bid request.

use prometheus::core::{AtomicU64, GenericGauge, GenericGaugeVec};
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry,
    register_histogram_vec_with_registry, register_int_counter_vec_with_registry,
};

use super::manifest::{Manifest, Rows};
use crate::ids::{Kind, Name};

type Gauges = GenericGaugeVec<AtomicU64>;

#[derive(Debug)]
pub(super) struct Measures {
    version: Gauges,
    as_of: Gauges,
    covers: Gauges,
    uploaded: Gauges,
    held: Gauges,
    damaged: Gauges,
    verified: Gauges,
    scrubbed: IntCounterVec,
    pinned: Gauges,
    ids: Gauges,
    bytes: Gauges,
    mapped: Gauges,
    changed_ids: Gauges,
    compactions: IntCounterVec,
    activations: IntCounterVec,
    activation_seconds: HistogramVec,
    upload_rows: IntCounterVec,
    false_positive_rate: GaugeVec,
    pub(super) generation: GenericGauge<AtomicU64>,
}

/// The two rates of a filter.
const RATES: [&str; 2] = ["declared", "measured"];

/// What became of a file, or of what is in memory, that was verified again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scrubbed {
    /// As it was written.
    Whole,
    /// Damaged, and written again, or not needed.
    Mended,
    /// Damaged, and nothing to write it again from.
    Lost,
    /// What was in memory had changed.
    Memory,
    /// It could not be read now; it is tried again.
    Unread,
}

impl Scrubbed {
    const ALL: [Scrubbed; 5] = [
        Scrubbed::Whole,
        Scrubbed::Mended,
        Scrubbed::Lost,
        Scrubbed::Memory,
        Scrubbed::Unread,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Scrubbed::Whole => "whole",
            Scrubbed::Mended => "mended",
            Scrubbed::Lost => "lost",
            Scrubbed::Memory => "memory",
            Scrubbed::Unread => "unread",
        }
    }
}

/// How compacting ended.
const COMPACTED: [&str; 2] = ["done", "failed"];

/// How an activation ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Activated,
    Held,
    Failed,
}

impl Outcome {
    const ALL: [Outcome; 3] = [Outcome::Activated, Outcome::Held, Outcome::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Outcome::Activated => "activated",
            Outcome::Held => "held",
            Outcome::Failed => "failed",
        }
    }
}

/// What is served of a dataset, as numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Served {
    pub(super) version: u64,
    pub(super) as_of_seconds: u64,
    pub(super) covers: u64,
    pub(super) uploaded_seconds: u64,
    pub(super) ids: u64,
    pub(super) bytes: u64,
    pub(super) changed_ids: u64,
}

impl Measures {
    pub(super) fn register(registry: &Registry) -> Result<Measures, prometheus::Error> {
        let gauges = |name: &str, help: &str| {
            let gauges = Gauges::new(Opts::new(name, help), &["dataset"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let generation = GenericGauge::new(
            "kith_generation",
            "Number of the generation in force; grows by one at each swap.",
        )?;
        registry.register(Box::new(generation.clone()))?;
        let false_positive_rate = GaugeVec::new(
            Opts::new(
                "kith_filter_false_positive_rate",
                "Of a live filter: the share of ids not uploaded that are in it all the same, as it declares and as measured on a million when it was opened; 0 when there is none.",
            ),
            &["dataset", "kind"],
        )?;
        registry.register(Box::new(false_positive_rate.clone()))?;
        Ok(Measures {
            version: gauges("kith_dataset_version", "Live version; 0 when there is none.")?,
            as_of: gauges(
                "kith_dataset_as_of_seconds",
                "Unix time up to which the live version's input had been read; 0 when it does not say.",
            )?,
            covers: gauges(
                "kith_dataset_covers_sequence",
                "Row of people's journal up to which the live version's input had been read: updates up to it do not count beside it.",
            )?,
            uploaded: gauges(
                "kith_dataset_uploaded_seconds",
                "Unix time at which the live version was uploaded; 0 when there is none.",
            )?,
            held: gauges(
                "kith_dataset_held_versions",
                "Versions that failed a check and are newer than the live one, so that their data waits for somebody.",
            )?,
            damaged: gauges(
                "kith_dataset_damaged_versions",
                "Kept versions that cannot be opened because a file of theirs, or one that they rest on, was found damaged.",
            )?,
            verified: gauges(
                "kith_dataset_verified_seconds",
                "Unix time at which that version was verified which was so longest ago; 0 when there is none.",
            )?,
            scrubbed: register_int_counter_vec_with_registry!(
                "kith_scrubbed_total",
                "Files verified again, and what is in memory, by what was found and done: whole, mended, lost, memory, unread.",
                &["dataset", "result"],
                registry
            )?,
            pinned: gauges(
                "kith_dataset_pinned",
                "1 while uploads are staged and do not displace the live version.",
            )?,
            ids: gauges("kith_dataset_ids", "Distinct ids in the live version.")?,
            bytes: gauges(
                "kith_dataset_bytes",
                "Bytes of the live version's file; of one with deltas what it takes in memory.",
            )?,
            mapped: gauges(
                "kith_dataset_mapped_bytes",
                "Bytes of the live version that are read from its file where it lies, until what it replaced has given its memory back; 0 otherwise.",
            )?,
            changed_ids: gauges(
                "kith_dataset_changed_ids",
                "Ids that deltas have changed of the full version below the live one, since it was last compacted.",
            )?,
            compactions: register_int_counter_vec_with_registry!(
                "kith_compactions_total",
                "Live versions whose deltas were made into a full version in the background: done, failed.",
                &["dataset", "result"],
                registry
            )?,
            activations: register_int_counter_vec_with_registry!(
                "kith_activations_total",
                "Versions that came to activation, by how it ended: activated, held, failed.",
                &["dataset", "result"],
                registry
            )?,
            activation_seconds: register_histogram_vec_with_registry!(
                HistogramOpts::new(
                    "kith_activation_duration_seconds",
                    "From a version file on disk to its being served: opening, verifying, warming, manifest, swap."
                )
                .buckets(vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]),
                &["dataset"],
                registry
            )?,
            upload_rows: register_int_counter_vec_with_registry!(
                "kith_upload_rows_total",
                "Rows of uploads that became versions: accepted, rejected.",
                &["dataset", "result"],
                registry
            )?,
            false_positive_rate,
            generation,
        })
    }

    /// Makes every series of a dataset exist.
    pub(super) fn begin(&self, name: &Name, kind: Kind) {
        let dataset = name.as_str();
        if kind == Kind::Filter {
            for kind in RATES {
                self.false_positive_rate.with_label_values(&[dataset, kind]);
            }
        }
        for result in Scrubbed::ALL {
            let all = &self.scrubbed;
            all.with_label_values(&[dataset, result.as_str()]);
        }
        for gauges in [&self.damaged, &self.verified] {
            gauges.with_label_values(&[dataset]);
        }
        let all = [
            &self.version,
            &self.as_of,
            &self.covers,
            &self.uploaded,
            &self.held,
        ];
        for gauges in all.into_iter().chain([
            &self.pinned,
            &self.ids,
            &self.bytes,
            &self.mapped,
            &self.changed_ids,
        ]) {
            gauges.with_label_values(&[dataset]);
        }
        for result in COMPACTED {
            self.compactions.with_label_values(&[dataset, result]);
        }
        for outcome in Outcome::ALL {
            self.activations
                .with_label_values(&[dataset, outcome.as_str()]);
        }
        self.activation_seconds.with_label_values(&[dataset]);
        for result in ["accepted", "rejected"] {
            self.upload_rows.with_label_values(&[dataset, result]);
        }
    }

    /// What waits for an operator, of every dataset.
    pub(super) fn waiting(&self, manifest: &Manifest) {
        for (name, dataset) in &manifest.datasets {
            let after_live = |number: u64| dataset.live.is_none_or(|live| number > live);
            let held = dataset
                .versions
                .iter()
                .filter(|(number, version)| version.held() && after_live(**number))
                .count();
            let label = &[name.as_str()];
            self.held.with_label_values(label).set(held as u64);
            let versions = dataset.versions.iter();
            let (damaged, sound): (Vec<_>, Vec<_>) =
                versions.partition(|(number, _)| dataset.lost(**number).is_some());
            let damaged = damaged.len() as u64;
            self.damaged.with_label_values(label).set(damaged);
            let verified = sound
                .iter()
                .map(|(_, v)| v.verified_at.unwrap_or(v.uploaded_at));
            let oldest = verified.min_by_key(|at| at.unix_ms);
            let oldest = oldest.map_or(0, |at| u64::try_from(at.unix_seconds()).unwrap_or(0));
            self.verified.with_label_values(label).set(oldest);
            self.pinned
                .with_label_values(label)
                .set(u64::from(dataset.pinned));
        }
    }

    pub(super) fn rows(&self, name: &Name, rows: &Rows) {
        for (result, count) in [("accepted", rows.rows), ("rejected", rows.rejected_rows)] {
            self.upload_rows
                .with_label_values(&[name.as_str(), result])
                .inc_by(count);
        }
    }

    pub(super) fn ended(&self, name: &Name, outcome: Outcome) {
        self.activations
            .with_label_values(&[name.as_str(), outcome.as_str()])
            .inc();
    }

    /// The rates of a filter that is live now, as shares.
    pub(super) fn false_positives(&self, name: &Name, declared: f64, measured: f64) {
        for (kind, rate) in RATES.into_iter().zip([declared, measured]) {
            let gauge = &self.false_positive_rate;
            gauge.with_label_values(&[name.as_str(), kind]).set(rate);
        }
    }

    pub(super) fn scrubbed(&self, name: &Name, result: Scrubbed) {
        let all = &self.scrubbed;
        all.with_label_values(&[name.as_str(), result.as_str()])
            .inc();
    }

    /// Nothing is live any more.
    pub(super) fn withdrawn(&self, name: &Name) {
        let all = [
            &self.version,
            &self.as_of,
            &self.covers,
            &self.uploaded,
            &self.ids,
        ];
        for gauges in all.into_iter().chain([&self.bytes, &self.changed_ids]) {
            gauges.with_label_values(&[name.as_str()]).set(0);
        }
    }

    pub(super) fn compacted(&self, name: &Name, done: bool) {
        let [well, badly] = COMPACTED;
        let result = if done { well } else { badly };
        let all = &self.compactions;
        all.with_label_values(&[name.as_str(), result]).inc();
    }

    /// How much of what a dataset serves is mapped.
    pub(super) fn mapped(&self, name: &Name, bytes: u64) {
        self.mapped.with_label_values(&[name.as_str()]).set(bytes);
    }

    pub(super) fn served(&self, name: &Name, served: Served, seconds: f64) {
        let dataset = &[name.as_str()];
        self.version.with_label_values(dataset).set(served.version);
        self.as_of
            .with_label_values(dataset)
            .set(served.as_of_seconds);
        self.covers.with_label_values(dataset).set(served.covers);
        self.uploaded
            .with_label_values(dataset)
            .set(served.uploaded_seconds);
        self.ids.with_label_values(dataset).set(served.ids);
        self.bytes.with_label_values(dataset).set(served.bytes);
        self.changed_ids
            .with_label_values(dataset)
            .set(served.changed_ids);
        self.activation_seconds
            .with_label_values(dataset)
            .observe(seconds);
    }
}
