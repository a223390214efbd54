//! Reads a JSON or TOML document into one neutral tree, and takes tables of it apart with every mistake noted by path.
//!
//! Typed deserialising would stop at the first mistake; a campaign manager wants all of them. So the document becomes a
//! [`Node`] first, and [`Fields`] reads a table of it: it knows which keys there are, says which key was
//! probably meant, and hands out values of the type asked for or notes what is wrong and goes on.
//!
//! Cost: a copy of the document in memory, at upload only. Depth is bounded by the parsers (128 and 80 levels).

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::nearest::nearest;

/// Most errors told of one document; the rest are counted.
pub const ERRORS_MAX: usize = 1000;
/// Most keys in one object. Ours have at most 15; each is compared with those before it.
const KEYS_MAX: usize = 64;

/// One thing wrong with a document: where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, thiserror::Error)]
#[error("{}{message}", Place { path, id })]
pub struct DocumentError {
    /// Where, as in `line_items[3].price.cpm`; empty for the document as a whole.
    pub path: String,
    /// The id of what is there, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What is wrong and what to do, in lower case.
    pub message: String,
}

/// A path and an id before a message, for people: `line_items[3].price (acme-vip): `; nothing for the whole.
pub(super) struct Place<'a> {
    pub(super) path: &'a str,
    pub(super) id: &'a Option<String>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path, self.id) {
            ("", _) => Ok(()),
            (path, Some(id)) => write!(f, "{path} ({id}): "),
            (path, None) => write!(f, "{path}: "),
        }
    }
}

/// Errors as they are found; at most [`ERRORS_MAX`] are kept.
#[derive(Debug, Default)]
pub(super) struct Errors {
    list: Vec<DocumentError>,
    more: usize,
}

impl Errors {
    pub(super) fn add(&mut self, path: String, id: Option<&str>, message: impl Into<String>) {
        if self.list.len() >= ERRORS_MAX {
            self.more += 1;
            return;
        }
        self.list.push(DocumentError {
            path,
            id: id.map(str::to_owned),
            message: message.into(),
        });
    }

    pub(super) fn finish(mut self) -> Result<(), Vec<DocumentError>> {
        if self.more > 0 {
            self.list.push(DocumentError {
                path: String::new(),
                id: None,
                message: format!("and {} more errors", self.more),
            });
        }
        if self.list.is_empty() {
            Ok(())
        } else {
            Err(self.list)
        }
    }
}

/// A value of a document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Integer(i64),
    /// Any other number.
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the document's order; a key may come twice, which [`Fields::open`] refuses.
    Table(Vec<(String, Node)>),
}

impl Node {
    /// What it is, for "expected a string, found …".
    fn noun(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Table(_) => "an object",
        }
    }

    /// A number's or string's text, to read a decimal from. The shortest text of a float is what was written, for
    /// any amount of up to 15 digits.
    pub(super) fn decimal(&self) -> Option<String> {
        match self {
            Self::Integer(number) => Some(number.to_string()),
            Self::Float(number) => Some(number.to_string()),
            Self::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

/// Reads a document: JSON if its first character is `{`, else TOML.
pub(super) fn read(document: &[u8]) -> Result<Node, DocumentError> {
    let whole = |message: String| DocumentError {
        path: String::new(),
        id: None,
        message,
    };
    let text = std::str::from_utf8(document).map_err(|error| {
        whole(format!(
            "the document is not UTF-8 from byte {} on: save it as UTF-8",
            error.valid_up_to()
        ))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| whole(format!("not JSON: {error}")))
    } else {
        toml::from_str(text)
            .map_err(|error| whole(format!("not TOML: {}", error.to_string().trim_end())))
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Node::Float(value as f64), Node::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(part) = parts.next_element()? {
            list.push(part);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut parts: A) -> Result<Node, A::Error> {
        let mut table: Vec<(String, Node)> = Vec::new();
        while let Some((key, value)) = parts.next_entry::<String, Node>()? {
            // How TOML's date-times come through serde; JSON has them as strings.
            if key == "$__toml_private_datetime" {
                return Ok(value);
            }
            table.push((key, value));
        }
        Ok(Node::Table(table))
    }
}

/// A table being read: its path, the id of what it describes, and its values.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    path: String,
    id: Option<&'a str>,
    entries: &'a [(String, Node)],
}

impl<'a> Fields<'a> {
    /// Opens a table, noting keys that are not `known` or come twice; `None` if it is no table.
    pub(super) fn open(
        node: &'a Node,
        path: String,
        id: Option<&'a str>,
        known: &[&str],
        errors: &mut Errors,
    ) -> Option<Self> {
        let Node::Table(entries) = node else {
            errors.add(
                path,
                id,
                format!("expected an object, found {}", node.noun()),
            );
            return None;
        };
        let own = entries.iter().find_map(|(key, value)| match value {
            Node::Text(text) if key == "id" => Some(text.as_str()),
            _ => None,
        });
        let fields = Self {
            path,
            id: own.or(id),
            entries,
        };
        if entries.len() > KEYS_MAX {
            let message = format!("has {} keys, at most {KEYS_MAX} are read", entries.len());
            errors.add(fields.path, fields.id, message);
            return None;
        }
        for (place, (key, _)) in entries.iter().enumerate() {
            if !known.contains(&key.as_str()) {
                let advice = match nearest(key, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", known.join(", ")),
                };
                fields.wrong(key, format!("there is no key `{key}`; {advice}"), errors);
            } else if entries.iter().take(place).any(|(before, _)| before == key) {
                fields.wrong(key, "this key comes twice: keep one", errors);
            }
        }
        Some(fields)
    }

    /// The id of what the table describes.
    pub(super) fn id(&self) -> Option<&'a str> {
        self.id
    }

    /// Where a key of it is.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Notes that a key's value is wrong.
    pub(super) fn wrong(&self, key: &str, message: impl Into<String>, errors: &mut Errors) {
        errors.add(self.at(key), self.id, message);
    }

    /// A key's value; `null` is as good as left out.
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        let (_, value) = self.entries.iter().find(|(name, _)| name == key)?;
        (*value != Node::Null).then_some(value)
    }

    /// A key's value, which must be there.
    pub(super) fn required(
        &self,
        key: &str,
        example: &str,
        errors: &mut Errors,
    ) -> Option<&'a Node> {
        let value = self.get(key);
        if value.is_none() {
            self.wrong(key, format!("is required, like {example}"), errors);
        }
        value
    }

    /// A value's string.
    pub(super) fn text_of(
        &self,
        key: &str,
        node: &'a Node,
        errors: &mut Errors,
    ) -> Option<&'a str> {
        match node {
            Node::Text(text) => Some(text),
            other => {
                let found = format!("expected a string, found {}", other.noun());
                self.wrong(key, found, errors);
                None
            }
        }
    }

    /// A string that may be left out.
    pub(super) fn text(&self, key: &str, errors: &mut Errors) -> Option<&'a str> {
        self.get(key)
            .and_then(|node| self.text_of(key, node, errors))
    }

    /// A string that is read as something else, which says what is wrong itself.
    pub(super) fn parsed<T: std::str::FromStr<Err: fmt::Display>>(
        &self,
        key: &str,
        errors: &mut Errors,
    ) -> Option<T> {
        let text = self.text(key, errors)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(refused) => {
                self.wrong(key, format!("`{text}`: {refused}"), errors);
                None
            }
        }
    }

    /// One of a few words that may be left out.
    pub(super) fn word<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
        errors: &mut Errors,
    ) -> Option<T> {
        let text = self.text(key, errors)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("`{text}` is none of {}", all.join(", "));
            self.wrong(key, message, errors);
        }
        found.map(|(_, value)| *value)
    }

    /// A boolean that may be left out.
    pub(super) fn flag(&self, key: &str, errors: &mut Errors) -> Option<bool> {
        match self.get(key)? {
            Node::Bool(value) => Some(*value),
            other => {
                let message = format!("expected true or false, found {}", other.noun());
                self.wrong(key, message, errors);
                None
            }
        }
    }

    /// A whole number within bounds that may be left out.
    pub(super) fn integer(
        &self,
        key: &str,
        bounds: std::ops::RangeInclusive<u32>,
        errors: &mut Errors,
    ) -> Option<u32> {
        let node = self.get(key)?;
        let value = match node {
            Node::Integer(number) => u32::try_from(*number).ok(),
            _ => None,
        };
        let value = value.filter(|number| bounds.contains(number));
        if value.is_none() {
            let (from, to) = bounds.into_inner();
            let message = format!("expected a whole number from {from} to {to}");
            self.wrong(key, message, errors);
        }
        value
    }

    /// A list's values with their keys, as in `deals[2]`; empty if it is left out, or no list, which is noted.
    pub(super) fn list(
        &self,
        key: &str,
        most: usize,
        errors: &mut Errors,
    ) -> impl Iterator<Item = (String, &'a Node)> + use<'a> {
        let list = match self.get(key) {
            None => &[],
            Some(Node::List(list)) if list.len() <= most => list.as_slice(),
            Some(Node::List(list)) => {
                let message = format!("has {} entries, at most {most} are taken", list.len());
                self.wrong(key, message, errors);
                &[]
            }
            Some(other) => {
                let message = format!("expected a list, found {}", other.noun());
                self.wrong(key, message, errors);
                &[]
            }
        };
        let key = key.to_owned();
        list.iter()
            .enumerate()
            .map(move |(place, node)| (format!("{key}[{place}]"), node))
    }

    /// Whether a key has a list without entries.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        matches!(self.get(key), Some(Node::List(list)) if list.is_empty())
    }

    /// A list of strings.
    pub(super) fn texts(
        &self,
        key: &str,
        most: usize,
        errors: &mut Errors,
    ) -> Vec<(String, &'a str)> {
        let list: Vec<_> = self.list(key, most, errors).collect();
        list.into_iter()
            .filter_map(|(key, node)| {
                let text = self.text_of(&key, node, errors)?;
                Some((key, text))
            })
            .collect()
    }

    /// A list of small whole numbers, as of AdCOM's lists.
    pub(super) fn codes(&self, key: &str, most: usize, errors: &mut Errors) -> Box<[u32]> {
        let list: Vec<_> = self.list(key, most, errors).collect();
        let mut codes = Vec::with_capacity(list.len());
        for (key, node) in list {
            match node {
                Node::Integer(number) if (1..=9999).contains(number) => {
                    codes.extend(u32::try_from(*number));
                }
                _ => self.wrong(&key, "expected a whole number from 1 to 9999", errors),
            }
        }
        codes.sort_unstable();
        codes.dedup();
        codes.into()
    }
}
