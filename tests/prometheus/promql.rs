//! As much of PromQL as it takes to find what a query names: selectors, their matchers, and its comparisons.
//!
//! No parser: Prometheus itself runs every query in these tests. What it cannot tell is which metric of a query that
//! gives something was misspelt, and what a comparison hides; this finds both in the text.

/// One `name{label="value", …}` of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    /// Label, operator, value.
    pub matchers: Vec<(String, String, String)>,
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let matchers = self.matchers.iter();
        let matchers: Vec<String> = matchers
            .map(|(label, op, value)| format!("{label}{op}\"{value}\""))
            .collect();
        write!(f, "{}{{{}}}", self.metric, matchers.join(","))
    }
}

impl Selector {
    /// Every single value that a matcher names, whether to take it or to leave it out: each is a word that may be renamed.
    pub fn named_values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.matchers.iter().flat_map(|(label, op, value)| {
            let regex = op.ends_with('~');
            value
                .split(if regex { '|' } else { '\0' })
                .filter(move |word| !(regex && word.contains(['*', '+', '$'])))
                .map(|word| (label.as_str(), word))
        })
    }
}

/// The query's text in pieces: words, strings (with their quotes), operators; blanks are dropped.
fn pieces(query: &str) -> Vec<&str> {
    let word = |c: char| c.is_alphanumeric() || "_:.$".contains(c);
    let mut pieces = Vec::new();
    let mut rest = query.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first == '"' || first == '\'' {
            let body = rest.get(1..).unwrap_or("");
            body.find(first).map_or(rest.len(), |end| end + 2)
        } else if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else {
            let two = ["==", "!=", ">=", "<=", "=~", "!~"];
            let long = two.iter().any(|op| rest.starts_with(op));
            if long { 2 } else { first.len_utf8() }
        };
        let (piece, after) = rest.split_at(length);
        pieces.push(piece);
        rest = after.trim_start();
    }
    pieces
}

/// A word that can only be a metric: of Kith, of its process, or Prometheus's own.
fn is_metric(word: &str) -> bool {
    word == "up" || word.starts_with("kith_") || word.starts_with("process_")
}

/// All selectors of a query, in order.
pub fn selectors(query: &str) -> Vec<Selector> {
    let pieces = pieces(query);
    let mut found = Vec::new();
    for (at, metric) in pieces
        .iter()
        .enumerate()
        .filter(|(_, word)| is_metric(word))
    {
        let mut matchers = Vec::new();
        let mut after = pieces.iter().skip(at + 1);
        if after.next() == Some(&"{") {
            let inside: Vec<&str> = after.copied().take_while(|piece| *piece != "}").collect();
            for matcher in inside
                .split(|piece| *piece == ",")
                .filter(|m| !m.is_empty())
            {
                let [label, op, value] = matcher else {
                    panic!("{matcher:?} is no matcher in {query}")
                };
                let value = value.trim_matches(['"', '\'']);
                matchers.push(((*label).to_owned(), (*op).to_owned(), value.to_owned()));
            }
        }
        found.push(Selector {
            metric: (*metric).to_owned(),
            matchers,
        });
    }
    found
}

/// The query with every comparison told to answer 0 or 1 instead of nothing, over windows as short as the test's past.
///
/// What is left empty then is a join of series whose labels do not meet, or a metric that is not there.
pub fn unconditional(query: &str, window: &str) -> String {
    let mut out = Vec::new();
    let (mut braces, mut brackets, mut skip) = (0, 0, false);
    for piece in pieces(query) {
        match piece {
            "{" => braces += 1,
            "}" => braces -= 1,
            _ => {}
        }
        if std::mem::take(&mut skip) {
            continue;
        }
        match piece {
            "[" => {
                brackets += 1;
                out.push(format!("[{window}]"));
            }
            "]" => brackets -= 1,
            _ if brackets > 0 => {}
            "offset" => skip = true,
            "==" | "!=" | ">" | "<" | ">=" | "<=" if braces == 0 => {
                out.push(format!("{piece} bool"))
            }
            _ => out.push(piece.to_owned()),
        }
    }
    out.join(" ")
}

/// The labels that a template names: `{{exchange}}` of a legend, `{{ $labels.exchange }}` of an alert.
pub fn template_labels(text: &str) -> Vec<String> {
    let inside = text
        .split("{{")
        .skip(1)
        .filter_map(|rest| rest.split("}}").next());
    inside
        .map(str::trim)
        .filter_map(|name| match name.strip_prefix('$') {
            Some(name) => name.strip_prefix("labels."),
            None => Some(name),
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn selectors_are_found_wherever_they_stand() {
    let query = r#"sum by (kind) (rate(kith_a_total{x="1", y=~"b|c"}[5m] offset 1h)) / kith_b > 0 and up{job!="up"}"#;
    let found: Vec<String> = selectors(query).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            r#"kith_a_total{x="1",y=~"b|c"}"#,
            "kith_b{}",
            r#"up{job!="up"}"#
        ]
    );
    let first = &selectors(query)[0];
    let named: Vec<_> = first.named_values().collect();
    assert_eq!(named, [("x", "1"), ("y", "b"), ("y", "c")]);
}

#[test]
fn comparisons_answer_and_windows_shrink() {
    let query = r#"rate(kith_a{x!="1"}[5m] offset 1h) > 0.5 and kith_b == 0 or kith_c >= 2"#;
    assert_eq!(
        unconditional(query, "4s"),
        r#"rate ( kith_a { x != "1" } [4s] ) > bool 0.5 and kith_b == bool 0 or kith_c >= bool 2"#
    );
}

#[test]
fn templates_tell_their_labels() {
    assert_eq!(
        template_labels("{{dataset}} of {{ $labels.instance }}, {{ $value | humanize }}"),
        ["dataset", "instance"]
    );
    assert!(template_labels("p99").is_empty());
}
