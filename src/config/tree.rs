//! The configuration as a tree that remembers where each value came from, so that every complaint can name a
//! line of the file or a variable of the environment.
//!
//! Two sources, one tree: the TOML file first, then variables named `KITH__SECTION__KEY` laid over it. What the
//! values mean is decided by whoever reads the tree; here they are only text, numbers, lists and tables.

use std::collections::BTreeMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

/// What every variable that we read begins with.
pub(super) const VARIABLE_PREFIX: &str = "KITH__";

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// A line of the file, from 1.
    Line(usize),
    /// A variable of the environment, by name.
    Variable(String),
    /// Nobody wrote it: it is a default of ours.
    Default,
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
    /// A variable's own text: `KITH__EXCHANGES__DEMO__NO_BID=204` is text to who wants text.
    raw: Option<String>,
}

/// What TOML can say, as far as we use it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Whole(i64),
    Decimal(f64),
    Switch(bool),
    List(Vec<Node>),
    Table(Table),
    /// A date, or a number beyond 64 bits: nothing that any key wants, kept to be shown in the complaint.
    Other(String),
}

/// A table; each entry has its key's origin and its value.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) entries: BTreeMap<String, (Origin, Node)>,
}

/// The text is not TOML.
#[derive(Debug)]
pub(super) struct Malformed {
    pub(super) origin: Origin,
    pub(super) message: String,
}

/// Reads a file's text.
pub(super) fn parse(text: &str) -> Result<Table, Malformed> {
    let lines = Lines::of(text);
    let table = DeTable::parse(text).map_err(|e| Malformed {
        origin: Origin::Line(e.span().map_or(1, |span| lines.at(span.start))),
        message: e.message().trim().replace('\n', ", "),
    })?;
    Ok(own_table(table.get_ref(), &|at| Origin::Line(lines.at(at))))
}

/// Reads one value of our own, such as a default.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Option<Node> {
    let value = DeValue::parse(text).ok()?;
    Some(Node {
        origin: origin.clone(),
        value: own_value(value.get_ref(), &|_| origin.clone()),
        raw: None,
    })
}

impl Table {
    /// Lays a variable over the table: each part of its name after the prefix goes one table deeper, in lower case
    /// unless a key is there that differs only in case, or in `-` and `.` where a variable's name must have `_`.
    pub(super) fn lay_over(&mut self, variable: &str, text: &str) -> Result<(), Malformed> {
        let origin = Origin::Variable(variable.to_owned());
        let malformed = |message: &str| Malformed {
            origin: origin.clone(),
            message: message.to_owned(),
        };
        let path = variable.get(VARIABLE_PREFIX.len()..).unwrap_or_default();
        let parts: Vec<&str> = path.split("__").collect();
        let Some((key, tables)) = parts.split_last().filter(|(_, tables)| !tables.is_empty())
        else {
            return Err(malformed("a variable is named KITH__SECTION__KEY"));
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err(malformed("a variable is named KITH__SECTION__KEY"));
        }
        let mut table = self;
        for part in tables {
            let name = table.spelling_of(part);
            let (_, node) = table.entries.entry(name.clone()).or_insert_with(|| {
                let empty = Node {
                    origin: origin.clone(),
                    value: Value::Table(Self::default()),
                    raw: None,
                };
                (origin.clone(), empty)
            });
            table = match &mut node.value {
                Value::Table(inner) => inner,
                _ => return Err(malformed(&format!("{name} is a value, not a section"))),
            };
        }
        let mut node = parse_value(text, &origin).unwrap_or_else(|| Node {
            origin: origin.clone(),
            value: Value::Text(text.to_owned()),
            raw: None,
        });
        node.raw = Some(text.to_owned());
        table.entries.insert(table.spelling_of(key), (origin, node));
        Ok(())
    }

    fn spelling_of(&self, part: &str) -> String {
        let fold = |text: &str| text.to_ascii_lowercase().replace(['-', '.'], "_");
        let exact = |key: &&String| key.eq_ignore_ascii_case(part);
        let alike = |key: &&String| fold(key) == fold(part);
        let keys = || self.entries.keys();
        keys()
            .find(exact)
            .or_else(|| keys().find(alike))
            .cloned()
            .unwrap_or_else(|| part.to_ascii_lowercase())
    }
}

impl Node {
    /// The value as text, if it is text or a variable that can be taken as text.
    pub(super) fn text(&self) -> Option<&str> {
        match (&self.value, &self.raw) {
            (Value::Text(text), _) => Some(text),
            (Value::List(_) | Value::Table(_), _) => None,
            (_, raw) => raw.as_deref(),
        }
    }
}

impl fmt::Display for Node {
    /// As a person would write it, cut short where it is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_CHARS_MAX: usize = 60;
        match &self.value {
            Value::Text(text) if text.chars().count() > SHOWN_CHARS_MAX => {
                let start: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                write!(f, "{start:?}…")
            }
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Whole(number) => write!(f, "{number}"),
            Value::Decimal(number) => write!(f, "{number:?}"),
            Value::Switch(on) => write!(f, "{on}"),
            Value::List(_) => f.write_str("a list"),
            Value::Table(_) => f.write_str("a table"),
            Value::Other(text) => f.write_str(text),
        }
    }
}

fn own_table(table: &DeTable<'_>, origin: &dyn Fn(usize) -> Origin) -> Table {
    let own = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let key: &toml::Spanned<toml::de::DeString<'_>> = key;
        let node = Node {
            origin: origin(value.span().start),
            value: own_value(value.get_ref(), origin),
            raw: None,
        };
        let name = key.get_ref().clone().into_owned();
        (name, (origin(key.span().start), node))
    };
    Table {
        entries: table.iter().map(own).collect(),
    }
}

fn own_value(value: &DeValue<'_>, origin: &dyn Fn(usize) -> Origin) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(whole) => Value::Whole(whole),
            Err(_) => Value::Other(number.to_string()),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(decimal) => Value::Decimal(decimal),
            Err(_) => Value::Other(number.to_string()),
        },
        DeValue::Boolean(on) => Value::Switch(*on),
        DeValue::Datetime(date) => Value::Other(date.to_string()),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| Node {
                    origin: origin(item.span().start),
                    value: own_value(item.get_ref(), origin),
                    raw: None,
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(own_table(table, origin)),
    }
}

/// Byte offsets to line numbers.
struct Lines {
    ends: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Self {
        Self {
            ends: text.match_indices('\n').map(|(at, _)| at).collect(),
        }
    }

    fn at(&self, offset: usize) -> usize {
        self.ends.partition_point(|end| *end < offset) + 1
    }
}
