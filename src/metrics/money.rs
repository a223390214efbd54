//! The ledger's figures, as of its last tick: what is spent, reserved, and may be overspent, by currency, and what became of notices.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use crate::ledger::{Figures, Outcome, Sums, Unreadable};

/// Name, help, label, and whether it counts.
type Series = (&'static str, &'static str, &'static str, bool);

const SPEND: Series = (
    "kith_spend_total",
    "Booked, in units of the currency.",
    "currency",
    true,
);
const RESERVED: Series = (
    "kith_budget_reserved",
    "Held for open bids, in units of the currency.",
    "currency",
    false,
);
const BOUND: Series = (
    "kith_budget_bound",
    "What open bids would cost beyond what is held for them, if all were won, in units of the currency.",
    "currency",
    false,
);
const OVERSPENT: Series = (
    "kith_budget_overspent",
    "Spent beyond live budgets, in units of the currency.",
    "currency",
    false,
);
const NOTICES: Series = (
    "kith_notices_total",
    "Notices by what became of them.",
    "outcome",
    true,
);
const PRICES: Series = (
    "kith_notice_prices_total",
    "Prices of notices that were not taken as they came: over the bid, or unreadable. The bid was booked.",
    "what",
    true,
);
const KEPT: Series = (
    "kith_ledger_kept",
    "What the ledger has in memory.",
    "what",
    false,
);
const ALL: [Series; 7] = [SPEND, RESERVED, BOUND, OVERSPENT, NOTICES, PRICES, KEPT];

/// Asks for the figures at each scrape.
pub struct MoneyMetrics {
    descriptions: Vec<Desc>,
    figures: Box<dyn Fn() -> Figures + Send + Sync>,
}

impl std::fmt::Debug for MoneyMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MoneyMetrics(..)")
    }
}

impl MoneyMetrics {
    /// Of the figures that `figures` gives.
    pub fn new(
        figures: impl Fn() -> Figures + Send + Sync + 'static,
    ) -> Result<Self, prometheus::Error> {
        let descriptions = ALL.iter().map(|(name, help, label, _)| {
            let labels = vec![(*label).to_owned()];
            Desc::new(
                (*name).to_owned(),
                (*help).to_owned(),
                labels,
                HashMap::new(),
            )
        });
        Ok(Self {
            descriptions: descriptions.collect::<Result<_, _>>()?,
            figures: Box::new(figures),
        })
    }
}

fn family(series: &Series, values: impl Iterator<Item = (String, f64)>) -> MetricFamily {
    let (name, help, label, counts) = series;
    let metric = |(value, number): (String, f64)| {
        let mut pair = LabelPair::default();
        pair.set_name((*label).to_owned());
        pair.set_value(value);
        let mut metric = Metric::from_label(vec![pair]);
        if *counts {
            let mut counter = Counter::default();
            counter.set_value(number);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(number);
            metric.set_gauge(gauge);
        }
        metric
    };
    let mut family = MetricFamily::default();
    family.set_name((*name).to_owned());
    family.set_help((*help).to_owned());
    family.set_field_type(match counts {
        true => MetricType::COUNTER,
        false => MetricType::GAUGE,
    });
    family.set_metric(values.map(metric).collect());
    family
}

impl Collector for MoneyMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let figures = (self.figures)();
        let money = |series: &Series, of: fn(&Sums) -> i64| {
            let units = figures
                .sums
                .iter()
                .map(|(currency, sums)| (currency.as_str().to_owned(), of(sums) as f64 / 1e9));
            family(series, units)
        };
        let counters = &figures.counters;
        let notices = Outcome::ALL.iter().zip(counters.notices);
        let unreadable = Unreadable::ALL.iter().zip(counters.prices_unreadable);
        let unreadable = unreadable.map(|(why, count)| (why.as_str().to_owned(), count as f64));
        let named = |values: &[(&str, f64)]| -> Vec<(String, f64)> {
            let owned = values
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value));
            owned.collect()
        };
        vec![
            money(&SPEND, |sums| sums.spent),
            money(&RESERVED, |sums| sums.reserved),
            money(&BOUND, |sums| sums.bound),
            money(&OVERSPENT, |sums| sums.overspent),
            family(
                &NOTICES,
                notices.map(|(outcome, count)| (outcome.as_str().to_owned(), count as f64)),
            ),
            family(
                &PRICES,
                unreadable.chain(named(&[
                    ("over", counters.prices_over as f64),
                    ("no_rate", counters.prices_unconverted as f64),
                ])),
            ),
            family(
                &KEPT,
                named(&[
                    ("accounts", figures.accounts as f64),
                    ("contacts", figures.contacts as f64),
                    ("contacts_forgotten", figures.contacts_forgotten as f64),
                    ("notices", figures.notices_remembered as f64),
                    ("report_rows", figures.report_rows as f64),
                ])
                .into_iter(),
            ),
        ]
    }
}
