//! The bid threads' counts as Prometheus metric families.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::cpu::OsThread;
use super::{
    BidCounters, BidThreads, Count, DURATION_BUCKETS_US, ExchangeCounts, LookupTotals, Outcome,
};
use crate::decision::NoBid;
use crate::openrtb::FieldName;
use crate::privacy::Closed;

/// The exchange label of requests that named none of ours. No exchange can have this name.
const NO_EXCHANGE: &str = "(none)";

/// Gives the names of the datasets by ordinal, as they are now.
type DatasetNames = Box<dyn Fn() -> Vec<(usize, String)> + Send + Sync>;

/// A Prometheus collector over all bid threads.
pub struct BidMetrics {
    threads: Arc<BidThreads>,
    datasets: DatasetNames,
    descriptions: Vec<Desc>,
}

impl std::fmt::Debug for BidMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BidMetrics")
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

const FAMILIES: [(&str, &str, &[&str]); 13] = [
    (
        "kith_bid_requests_total",
        "Bid requests answered, by how.",
        &["exchange", "outcome"],
    ),
    (
        "kith_bid_duration_seconds",
        "From when a request's first byte could be read, as far as the thread's queue is known, to its answer.",
        &["exchange"],
    ),
    (
        "kith_no_bids_total",
        "Requests without a bid, by reason.",
        &["exchange", "reason"],
    ),
    ("kith_bids_total", "Bids made.", &["exchange"]),
    (
        "kith_bid_thread_cpu_seconds_total",
        "CPU time of a bid thread; a thread is full at one second a second.",
        &["thread"],
    ),
    (
        "kith_privacy_total",
        "Verdicts of the privacy gate.",
        &["exchange", "verdict"],
    ),
    (
        "kith_shed_total",
        "Requests answered without a bid because they had waited too long, or others would have.",
        &["exchange"],
    ),
    (
        "kith_unreadable_fields_total",
        "Requests in which a field could not be read.",
        &["field"],
    ),
    (
        "kith_lookups_total",
        "Ids looked up.",
        &["dataset", "result"],
    ),
    ("kith_in_flight", "Bid requests being worked on now.", &[]),
    (
        "kith_bid_queue_delay_seconds",
        "The longest that a request waited for its turn on a bid thread, in the last quarter of a second.",
        &[],
    ),
    (
        "kith_bid_threads_shedding",
        "Bid threads that are asked for more than they can do, and shed.",
        &[],
    ),
    (
        "kith_bid_busy_seconds_total",
        "Time in which bid threads were not idle, all threads together.",
        &[],
    ),
];

impl BidMetrics {
    /// A collector; `datasets` names what the ordinals stand for.
    pub fn new(
        threads: Arc<BidThreads>,
        datasets: DatasetNames,
    ) -> Result<Self, prometheus::Error> {
        let descriptions = FAMILIES
            .iter()
            .map(|(name, help, labels)| {
                let labels = labels.iter().map(|label| (*label).to_owned()).collect();
                Desc::new(
                    (*name).to_owned(),
                    (*help).to_owned(),
                    labels,
                    std::collections::HashMap::new(),
                )
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            threads,
            datasets,
            descriptions,
        })
    }
}

/// A count, as the sum over all threads.
fn sum<'c>(
    threads: &'c [Arc<BidCounters>],
    of: impl Fn(&'c BidCounters) -> Option<&'c Count>,
) -> u64 {
    threads
        .iter()
        .filter_map(|counters| of(counters))
        .map(Count::get)
        .fold(0, u64::wrapping_add)
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    pairs
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect()
}

fn counter(pairs: &[(&str, &str)], value: u64) -> Metric {
    float_counter(pairs, value as f64)
}

fn float_counter(pairs: &[(&str, &str)], value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_counter(counter);
    metric
}

fn family(which: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    let help = FAMILIES
        .iter()
        .find(|(name, ..)| *name == which)
        .map_or("", |(_, help, _)| help);
    family.set_name(which.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

impl Collector for BidMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let threads = self.threads.all();
        let mut names: Vec<&str> = self
            .threads
            .exchanges
            .iter()
            .map(|exchange| exchange.name.as_str())
            .collect();
        names.push(NO_EXCHANGE);
        let of = |exchange: usize, pick: &dyn Fn(&ExchangeCounts) -> Option<&Count>| {
            sum(&threads, |counters| {
                counters.exchanges.get(exchange).and_then(pick)
            })
        };
        let by_exchange = |pairs: &dyn Fn(usize, &str) -> Vec<Metric>| -> Vec<Metric> {
            names
                .iter()
                .enumerate()
                .flat_map(|(index, name)| pairs(index, name))
                .collect()
        };
        let requests = by_exchange(&|index, name| {
            let one = |outcome: Outcome| {
                let count = of(index, &|counts| counts.outcomes.get(outcome.index()));
                counter(&[("exchange", name), ("outcome", outcome.as_str())], count)
            };
            Outcome::every().map(one).collect()
        });
        let durations = by_exchange(&|index, name| vec![histogram(&threads, index, name)]);
        let no_bids = by_exchange(&|index, name| {
            let one = |reason: NoBid| {
                let count = of(index, &|counts| counts.no_bids.get(reason.index()));
                counter(&[("exchange", name), ("reason", reason.as_str())], count)
            };
            NoBid::every().map(one).collect()
        });
        let bids = by_exchange(&|index, name| {
            vec![counter(
                &[("exchange", name)],
                of(index, &|counts| Some(&counts.bids)),
            )]
        });
        let privacy = by_exchange(&|index, name| {
            let closed = Closed::ALL.iter().map(|closed| closed.as_str());
            let verdicts = ["open", "limited"].into_iter().chain(closed);
            let one = |(place, verdict): (usize, &str)| {
                counter(
                    &[("exchange", name), ("verdict", verdict)],
                    of(index, &|counts| counts.privacy.get(place)),
                )
            };
            verdicts.enumerate().map(one).collect()
        });
        let shed = by_exchange(&|index, name| {
            vec![counter(
                &[("exchange", name)],
                of(index, &|counts| Some(&counts.shed)),
            )]
        });
        let unreadable = FieldName::ALL
            .iter()
            .map(|field| {
                let count = sum(&threads, |counters| {
                    counters.unreadable.get(*field as usize)
                });
                counter(&[("field", field.as_str())], count)
            })
            .collect();
        let gauge = |value: f64| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            vec![Metric::from_gauge(gauge)]
        };
        let in_flight = sum(&threads, |counters| Some(&counters.in_flight)) as f64;
        let delays = threads.iter().map(|counters| counters.queue_delay_us.get());
        let delay = delays.max().unwrap_or(0) as f64 / 1e6;
        let shedding = sum(&threads, |counters| Some(&counters.shedding)) as f64;
        let mut busy = Counter::default();
        busy.set_value(sum(&threads, |counters| Some(&counters.busy_us)) as f64 / 1e6);
        let mut busy_metric = Metric::default();
        busy_metric.set_counter(busy);
        vec![
            family("kith_bid_requests_total", MetricType::COUNTER, requests),
            family(
                "kith_bid_duration_seconds",
                MetricType::HISTOGRAM,
                durations,
            ),
            family("kith_no_bids_total", MetricType::COUNTER, no_bids),
            family("kith_bids_total", MetricType::COUNTER, bids),
            family(
                "kith_bid_thread_cpu_seconds_total",
                MetricType::COUNTER,
                cpu_seconds(&threads),
            ),
            family("kith_privacy_total", MetricType::COUNTER, privacy),
            family("kith_shed_total", MetricType::COUNTER, shed),
            family(
                "kith_unreadable_fields_total",
                MetricType::COUNTER,
                unreadable,
            ),
            family(
                "kith_lookups_total",
                MetricType::COUNTER,
                self.lookups(&threads),
            ),
            family("kith_in_flight", MetricType::GAUGE, gauge(in_flight)),
            family(
                "kith_bid_queue_delay_seconds",
                MetricType::GAUGE,
                gauge(delay),
            ),
            family(
                "kith_bid_threads_shedding",
                MetricType::GAUGE,
                gauge(shedding),
            ),
            family(
                "kith_bid_busy_seconds_total",
                MetricType::COUNTER,
                vec![busy_metric],
            ),
        ]
    }
}

impl BidMetrics {
    fn lookups(&self, threads: &[Arc<BidCounters>]) -> Vec<Metric> {
        let results: [(&str, PickLookups); 3] = [
            ("found", |totals| &totals.found),
            ("absent", |totals| &totals.absent),
            ("damaged", |totals| &totals.damaged),
        ];
        (self.datasets)()
            .iter()
            .flat_map(|(ordinal, name)| {
                results.map(|(result, pick)| {
                    let count = sum(threads, |counters| counters.lookups.get(*ordinal).map(pick));
                    counter(&[("dataset", name), ("result", result)], count)
                })
            })
            .collect()
    }
}

/// One series a thread. A bidder made anew after a panic has new counters on the same thread.
fn cpu_seconds(threads: &[Arc<BidCounters>]) -> Vec<Metric> {
    let by_name: BTreeMap<&str, &OsThread> = threads
        .iter()
        .map(|counters| (counters.thread.name.as_str(), &counters.thread))
        .collect();
    by_name
        .iter()
        .map(|(name, thread)| {
            float_counter(&[("thread", name)], thread.cpu_seconds().unwrap_or(0.0))
        })
        .collect()
}

/// Picks one of a dataset's counts.
type PickLookups = fn(&LookupTotals) -> &Count;

fn histogram(threads: &[Arc<BidCounters>], exchange: usize, name: &str) -> Metric {
    let of = |pick: &dyn Fn(&ExchangeCounts) -> Option<&Count>| {
        sum(threads, |counters| {
            counters.exchanges.get(exchange).and_then(pick)
        })
    };
    let mut cumulative = 0u64;
    let mut buckets = Vec::with_capacity(DURATION_BUCKETS_US.len());
    for (place, bound) in DURATION_BUCKETS_US.iter().enumerate() {
        cumulative = cumulative.wrapping_add(of(&|counts| counts.durations.get(place)));
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(cumulative);
        buckets.push(bucket);
    }
    let total = cumulative.wrapping_add(of(&|counts| counts.durations.last()));
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(total);
    histogram.set_sample_sum(of(&|counts| Some(&counts.duration_sum_us)) as f64 / 1e6);
    let mut metric = Metric::from_label(labels(&[("exchange", name)]));
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::decision::LookupCounts;
    use crate::http::bid::{Load, Refused};
    use prometheus::{Encoder as _, Registry, TextEncoder};
    use std::time::Duration;

    #[test]
    fn threads_are_added_up_and_every_series_is_there_from_the_start() {
        let exchanges = Arc::new(Config::default().exchanges);
        let threads = Arc::new(BidThreads::new(exchanges, 4));
        let names: DatasetNames = Box::new(|| vec![(2, "crm".to_owned())]);
        let registry = Registry::new();
        registry
            .register(Box::new(
                BidMetrics::new(Arc::clone(&threads), names).expect("metrics"),
            ))
            .expect("registered");
        let text = || {
            let mut out = Vec::new();
            TextEncoder::new()
                .encode(&registry.gather(), &mut out)
                .expect("text");
            String::from_utf8(out).expect("UTF-8")
        };
        let (one, two) = (threads.enlist(), threads.enlist());
        assert!(text().contains("kith_no_bids_total{exchange=\"demo\",reason=\"outbid\"} 0"));
        let of_threads = "kith_bid_thread_cpu_seconds_total{";
        assert_eq!(
            text().matches(of_threads).count(),
            1,
            "both are this thread's"
        );
        for counters in [&one, &two] {
            counters.finished(0, Outcome::Bid, Duration::from_micros(60));
            counters.lookups(
                2,
                LookupCounts {
                    found: 1,
                    absent: 2,
                    damaged: 0,
                },
            );
        }
        two.refused(None, Refused::Path);
        for (counters, ms) in [(&one, 3), (&two, 1)] {
            counters.set_load(Load {
                in_flight: 5,
                queue_delay: Duration::from_millis(ms),
                shedding: ms == 3,
                busy: Duration::from_millis(250),
            });
        }
        let text = text();
        for line in [
            "kith_bid_requests_total{exchange=\"demo\",outcome=\"bid\"} 2",
            "kith_bid_requests_total{exchange=\"(none)\",outcome=\"path\"} 1",
            "kith_bid_duration_seconds_bucket{exchange=\"demo\",le=\"0.00005\"} 0",
            "kith_bid_duration_seconds_bucket{exchange=\"demo\",le=\"0.000075\"} 2",
            "kith_bid_duration_seconds_count{exchange=\"(none)\"} 0",
            "kith_lookups_total{dataset=\"crm\",result=\"absent\"} 4",
            "kith_in_flight 10",
            "kith_bid_queue_delay_seconds 0.003",
            "kith_bid_threads_shedding 1",
            "kith_bid_busy_seconds_total 0.5",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
