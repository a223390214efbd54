//! The dashboard as Grafana reads it: panels, queries, variables.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// One query of the dashboard.
#[derive(Debug, Clone)]
pub struct Query {
    /// The panel or annotation that asks, and which of its queries.
    pub place: String,
    pub expr: String,
    pub legend: String,
    /// Annotations say when something happened: nothing is a good answer.
    pub may_be_empty: bool,
}

impl Query {
    /// The query with the dashboard's variables filled in, as Grafana does it with "All" chosen.
    pub fn filled_in(&self, window: &str) -> String {
        let windows = ["$__rate_interval", "$__interval"];
        let filled = windows
            .iter()
            .fold(self.expr.clone(), |expr, w| expr.replace(w, window));
        ["$instance", "$exchange", "$dataset"]
            .iter()
            .fold(filled, |expr, variable| expr.replace(variable, ".*"))
    }
}

pub fn read() -> Value {
    let text = super::rig::file("grafana/dashboards/kith.json");
    serde_json::from_str(&text).expect("JSON")
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Every query of every panel and annotation.
pub fn queries(dashboard: &Value) -> Vec<Query> {
    let mut queries = Vec::new();
    for panel in list(dashboard, "panels") {
        for target in list(panel, "targets") {
            queries.push(Query {
                place: format!(
                    "panel \"{}\", {}",
                    text(panel, "title"),
                    text(target, "refId")
                ),
                expr: text(target, "expr").to_owned(),
                legend: text(target, "legendFormat").to_owned(),
                may_be_empty: false,
            });
        }
    }
    for annotation in list(&dashboard["annotations"], "list") {
        if annotation["builtIn"] != 1 {
            queries.push(Query {
                place: format!("annotation \"{}\"", text(annotation, "name")),
                expr: text(annotation, "expr").to_owned(),
                legend: text(annotation, "titleFormat").to_owned() + text(annotation, "textFormat"),
                may_be_empty: true,
            });
        }
    }
    queries
}

/// The variables that ask Prometheus for values, as the series they ask for and the label they want of it.
pub fn variables(dashboard: &Value) -> Vec<(String, String, String)> {
    let mut variables = Vec::new();
    for variable in list(&dashboard["templating"], "list") {
        if variable["type"] == "query" {
            let query = text(&variable["query"], "query");
            let asked = query
                .strip_prefix("label_values(")
                .and_then(|q| q.strip_suffix(')'));
            let (series, label) = asked
                .and_then(|q| q.rsplit_once(", "))
                .expect("label_values(series, label)");
            variables.push((
                text(variable, "name").to_owned(),
                series.to_owned(),
                label.to_owned(),
            ));
        }
    }
    variables
}

/// What Grafana would stumble over, or a person.
pub fn flaws(dashboard: &Value) -> Vec<String> {
    let mut flaws = Vec::new();
    let mut ids = BTreeSet::new();
    let mut cells: BTreeMap<(u64, u64), String> = BTreeMap::new();
    for key in ["uid", "title"] {
        if text(dashboard, key).is_empty() {
            flaws.push(format!("the dashboard has no {key}"));
        }
    }
    if !dashboard["schemaVersion"].is_u64() {
        flaws.push("the dashboard has no schemaVersion".to_owned());
    }
    for panel in list(dashboard, "panels") {
        let title = text(panel, "title");
        let mut flaw = |what: &str| flaws.push(format!("panel \"{title}\": {what}"));
        if title.is_empty() {
            flaw("no title");
        }
        match panel["id"].as_u64() {
            Some(id) if ids.insert(id) => {}
            _ => flaw("its id is missing or another panel's"),
        }
        let grid = |key: &str| panel["gridPos"][key].as_u64();
        if let (Some(x), Some(y), Some(w), Some(h)) = (grid("x"), grid("y"), grid("w"), grid("h")) {
            if w == 0 || h == 0 || x + w > 24 {
                flaw("its gridPos is outside the 24 columns");
            }
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                if let Some(other) = cells.insert(cell, title.to_owned()) {
                    flaw(&format!("it overlaps \"{other}\" at {cell:?}"));
                    break;
                }
            }
        } else {
            flaw("its gridPos is incomplete");
        }
        if panel["type"] == "row" {
            if !list(panel, "panels").is_empty() {
                flaw("it is collapsed; panels inside it would not be tested");
            }
            continue;
        }
        const TYPES: [&str; 5] = ["timeseries", "stat", "table", "heatmap", "state-timeline"];
        if !TYPES.contains(&text(panel, "type")) {
            flaw("its type is not one of Grafana's own that this test knows");
        }
        if text(panel, "description").split("\n\n").count() < 2 {
            flaw(
                "its description says what it is and, after an empty line, what to do when it looks bad",
            );
        }
        if text(&panel["fieldConfig"]["defaults"], "unit").is_empty() {
            flaw("no unit");
        }
        if list(panel, "targets").is_empty() {
            flaw("it asks nothing");
        }
        let mut refs = BTreeSet::new();
        for target in list(panel, "targets") {
            let named = text(target, "refId");
            if named.is_empty() || !refs.insert(named) {
                flaw("a refId is missing or double");
            }
            if text(target, "expr").is_empty() {
                flaw("a query without expr");
            }
            for asked in [&panel["datasource"], &target["datasource"]] {
                if asked["uid"] != "${datasource}" {
                    flaw("it does not use the variable datasource");
                }
            }
        }
    }
    flaws.extend(undeclared(dashboard));
    flaws
}

/// Variables used and not there, and the other way round.
fn undeclared(dashboard: &Value) -> Vec<String> {
    let declared: BTreeSet<&str> = list(&dashboard["templating"], "list")
        .iter()
        .map(|variable| text(variable, "name"))
        .collect();
    let mut used = BTreeSet::from(["datasource"]);
    let queries = queries(dashboard);
    for query in &queries {
        for rest in query.expr.split('$').skip(1) {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let name = rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest);
            if !name.starts_with("__") {
                used.insert(name);
            }
        }
    }
    used.symmetric_difference(&declared)
        .map(|name| format!("variable {name} is used and not declared, or declared and not used"))
        .collect()
}
