//! What `/metrics` says, as series.

use std::collections::{BTreeMap, BTreeSet};

use super::promql::Selector;

/// Labels that Prometheus adds to what it scrapes.
pub const ADDED: [&str; 2] = ["instance", "job"];

/// All series of one scrape.
#[derive(Debug)]
pub struct Exposition {
    series: Vec<(String, BTreeMap<String, String>)>,
    /// Families, as `# TYPE` names them.
    pub families: BTreeSet<String>,
}

impl Exposition {
    pub fn read(text: &str) -> Self {
        let families = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .map(str::to_owned)
            .collect();
        let series = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| {
                let (series, _value) = line.rsplit_once(' ').expect("a value");
                let selector = super::promql::selectors(series);
                let [selector] = selector.as_slice() else {
                    panic!("{line} is no series of ours")
                };
                let labels = selector.matchers.iter().cloned();
                let labels = labels.map(|(label, _, value)| (label, value)).collect();
                (selector.metric.clone(), labels)
            })
            .collect();
        Self { series, families }
    }

    /// The family that a metric of a query belongs to.
    pub fn family_of(&self, metric: &str) -> Option<&str> {
        let stem = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| metric.strip_suffix(end));
        let named = |name: &str| self.families.get(name).map(String::as_str);
        named(metric).or_else(|| named(stem?))
    }

    /// The label names of a metric's series.
    pub fn labels_of(&self, metric: &str) -> BTreeSet<&str> {
        let of = self.series.iter().filter(|(name, _)| name == metric);
        of.flat_map(|(_, labels)| labels.keys().map(String::as_str))
            .collect()
    }

    /// What a selector names and this does not have.
    pub fn missing(&self, selector: &Selector) -> Vec<String> {
        let metric = &selector.metric;
        if metric == "up" {
            return Vec::new();
        }
        if !self.series.iter().any(|(name, _)| name == metric) {
            return vec![format!("there is no {metric}")];
        }
        let known = self.labels_of(metric);
        let mut missing = Vec::new();
        for (label, _, _) in &selector.matchers {
            if !known.contains(label.as_str()) && !ADDED.contains(&label.as_str()) {
                missing.push(format!("{metric} has no label {label}"));
            }
        }
        for (label, value) in selector.named_values() {
            let has =
                |labels: &BTreeMap<String, String>| labels.get(label).is_some_and(|v| v == value);
            let added = ADDED.contains(&label);
            if !added
                && !self
                    .series
                    .iter()
                    .any(|(name, labels)| name == metric && has(labels))
            {
                missing.push(format!("{metric} has no {label}=\"{value}\""));
            }
        }
        missing
    }
}

#[test]
fn what_is_missing_is_named() {
    let text =
        "# TYPE kith_a histogram\nkith_a_bucket{x=\"1\",le=\"+Inf\"} 3\nkith_a_sum{x=\"1\"} 2.5\n";
    let exposition = Exposition::read(text);
    assert_eq!(exposition.family_of("kith_a_bucket"), Some("kith_a"));
    assert_eq!(exposition.family_of("kith_b"), None);
    for (query, missing) in [
        (r#"kith_a_sum{x=~"1|.*", job="kith"}"#, vec![]),
        ("kith_b", vec!["there is no kith_b"]),
        (
            r#"kith_a_sum{y="1"}"#,
            vec!["kith_a_sum has no label y", "kith_a_sum has no y=\"1\""],
        ),
        (r#"kith_a_sum{x!~"1|2"}"#, vec!["kith_a_sum has no x=\"2\""]),
    ] {
        let selector = &super::promql::selectors(query)[0];
        assert_eq!(exposition.missing(selector), missing, "{query}");
    }
}
