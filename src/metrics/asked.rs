//! What is asked for when somebody scrapes, because it is a state and not a count: readiness, the disk, what is still read.
//!
//! A gauge here cannot be forgotten in some branch that changes the state: there is no copy of it. What it asks must answer
//! at once, since `/metrics` waits for it; each costs an atomic load, a short lock or one system call.

use prometheus::Opts;
use prometheus::core::{Collector, Desc, Describer as _};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Gives the value as it is now.
pub type Ask = Box<dyn Fn() -> f64 + Send + Sync>;

/// One gauge without labels whose value is asked for at scrape time.
pub struct Asked {
    name: &'static str,
    help: &'static str,
    description: Desc,
    ask: Ask,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Asked {
    /// A gauge of that name.
    pub fn new(
        name: &'static str,
        help: &'static str,
        ask: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            name,
            help,
            description: Opts::new(name, help).describe()?,
            ask: Box::new(ask),
        })
    }

    /// A gauge that is 1 where something holds, and else 0.
    pub fn whether(
        name: &'static str,
        help: &'static str,
        holds: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self, prometheus::Error> {
        Self::new(name, help, move || f64::from(u8::from(holds())))
    }
}

impl Collector for Asked {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut gauge = Gauge::default();
        gauge.set_value((self.ask)());
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(vec![Metric::from_gauge(gauge)]);
        vec![family]
    }
}

/// A count that somebody else keeps, by one label of which all values are known: asked for at scrape time.
pub struct AskedCounts {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    description: Desc,
    asks: Vec<(&'static str, Ask)>,
}

impl std::fmt::Debug for AskedCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AskedCounts")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl AskedCounts {
    /// Counters of that name, one for each value of the label.
    pub fn new(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        asks: Vec<(&'static str, Ask)>,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            name,
            help,
            label,
            description: Desc::new(
                name.to_owned(),
                help.to_owned(),
                vec![label.to_owned()],
                std::collections::HashMap::new(),
            )?,
            asks,
        })
    }
}

impl Collector for AskedCounts {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let metric = |(value, ask): &(&'static str, Ask)| {
            let mut pair = LabelPair::default();
            pair.set_name(self.label.to_owned());
            pair.set_value((*value).to_owned());
            let mut counter = Counter::default();
            counter.set_value(ask());
            let mut metric = Metric::from_label(vec![pair]);
            metric.set_counter(counter);
            metric
        };
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(MetricType::COUNTER);
        family.set_metric(self.asks.iter().map(metric).collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    #[test]
    fn each_scrape_asks_again() {
        let state = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&state);
        let gauge = Asked::whether("kith_it", "It.", move || asked.load(Relaxed)).expect("a gauge");
        let value = || gauge.collect()[0].get_metric()[0].get_gauge().get_value();
        assert_eq!(value(), 0.0);
        state.store(true, Relaxed);
        assert_eq!(value(), 1.0);
    }
}
