//! Reading the tree against what we know: each key is declared where it is read, with its form, default and
//! meaning, and nowhere else.
//!
//! From those declarations come the value, the complaint about a wrong one, the complaint about a key that nobody
//! asked for, and the table of keys in the README. A section is read inside a closure, so that a key left over
//! when the closure returns is known to be unknown. Complaints are collected: a person mends all of them at once.

use std::cell::RefCell;

use super::forms::{Form, Wrong};
use super::tree::{self, Node, Origin, Table, Value};
use crate::ids::Name;

/// A key as the README's table shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The section, as `bid` or `exchanges.<name>`.
    pub section: String,
    /// Its name there.
    pub name: &'static str,
    /// What it takes.
    pub takes: String,
    /// The default as TOML, or words where it comes from another key.
    pub default: String,
    /// What it does.
    pub meaning: &'static str,
}

/// What reading has found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<(Origin, String)>,
    pub(super) warnings: Vec<String>,
    pub(super) keys: Vec<Key>,
}

/// Where findings go, and whether a real document is read or only the declarations are wanted.
#[derive(Debug, Default)]
pub(super) struct Log {
    found: RefCell<Findings>,
    declaring: bool,
}

impl Log {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A log for reading an empty document, in which every named section appears once as `<name>`.
    pub(super) fn declaring() -> Self {
        Self {
            declaring: true,
            ..Self::default()
        }
    }

    pub(super) fn problem(&self, origin: &Origin, text: String) {
        self.found
            .borrow_mut()
            .problems
            .push((origin.clone(), text));
    }

    pub(super) fn warn(&self, text: String) {
        self.found.borrow_mut().warnings.push(text);
    }

    pub(super) fn into_findings(self) -> Findings {
        self.found.into_inner()
    }
}

/// One section being read.
pub(super) struct Sheet<'a> {
    path: String,
    origin: Origin,
    table: Option<&'a Table>,
    asked: Vec<&'static str>,
    log: &'a Log,
}

/// Reads the whole document through `read`.
pub(super) fn read_document<T>(
    document: &Table,
    log: &Log,
    read: impl FnOnce(&mut Sheet<'_>) -> T,
) -> T {
    Sheet {
        path: String::new(),
        origin: Origin::Default,
        table: Some(document),
        asked: Vec::new(),
        log,
    }
    .finish(read)
}

impl<'a> Sheet<'a> {
    /// A key's value, or its default where it is absent or wrong; the latter is a problem.
    pub(super) fn get<T: 'static>(
        &mut self,
        key: &'static str,
        form: &Form<T>,
        default: &'static str,
        meaning: &'static str,
    ) -> T {
        let given = self.ask(key, form, default, meaning);
        given.unwrap_or_else(|| {
            let node = tree::parse_value(default, &Origin::Default);
            node.and_then(|node| form.read(&node).ok())
                .expect("a default of ours is of its key's form")
        })
    }

    /// A key that takes another key's value where it is absent; `from` says whose.
    pub(super) fn inherit<T: 'static>(
        &mut self,
        key: &'static str,
        form: &Form<T>,
        inherited: T,
        from: &'static str,
        meaning: &'static str,
    ) -> T {
        self.ask(key, form, from, meaning).unwrap_or(inherited)
    }

    /// A key that must be there.
    pub(super) fn require<T: 'static>(
        &mut self,
        key: &'static str,
        form: &Form<T>,
        meaning: &'static str,
    ) -> Option<T> {
        let given = self.ask(key, form, "required", meaning);
        if given.is_none() && self.node(key).is_none() {
            let text = format!("{} needs the key \"{key}\": {}", self.shown(), form.takes);
            self.log.problem(&self.origin, text);
        }
        given
    }

    fn ask<T: 'static>(
        &mut self,
        key: &'static str,
        form: &Form<T>,
        default: &str,
        meaning: &'static str,
    ) -> Option<T> {
        self.asked.push(key);
        if self.log.declaring {
            self.log.found.borrow_mut().keys.push(Key {
                section: self.path.clone(),
                name: key,
                takes: form.takes.clone(),
                default: default.to_owned(),
                meaning,
            });
        }
        let node = self.node(key)?;
        match form.read(node) {
            Ok(value) => Some(value),
            Err(Wrong { origin, text }) => {
                let text = format!("{} {key}: {text}", self.shown());
                self.log.problem(&origin, text);
                None
            }
        }
    }

    /// A section of this one, read whether or not it is there.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Sheet<'_>) -> T,
    ) -> T {
        self.asked.push(key);
        let (origin, table) = match self.node(key) {
            Some(node) => (node.origin.clone(), self.table_in(node, key)),
            None => (self.origin.clone(), None),
        };
        self.below(key.to_owned(), origin, table).finish(read)
    }

    /// The sections below `key` that users name, each read with its name. Names that are no names are problems.
    pub(super) fn named<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&Name, &mut Sheet<'_>) -> T,
    ) -> Vec<T> {
        self.asked.push(key);
        if self.log.declaring {
            let stand_in: Name = "name".parse().expect("a name of ours is a name");
            let mut sheet = self.below(format!("{key}.<name>"), Origin::Default, None);
            return vec![read(&stand_in, &mut sheet)];
        }
        let table = self.node(key).and_then(|node| self.table_in(node, key));
        let mut all = Vec::new();
        for (text, (at, node)) in table.iter().flat_map(|table| &table.entries) {
            let name = match text.parse::<Name>() {
                Ok(name) => name,
                Err(e) => {
                    self.log.problem(at, format!("[{key}] {text:?}: {e}"));
                    continue;
                }
            };
            let path = format!("{key}.{name}");
            let Some(table) = self.table_in(node, &path) else {
                continue;
            };
            let sheet = self.below(path, node.origin.clone(), Some(table));
            all.push(sheet.finish(|sheet| read(&name, sheet)));
        }
        all
    }

    /// The tables in the list at `key`, each read in turn.
    pub(super) fn each<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Sheet<'_>) -> Option<T>,
    ) -> Vec<T> {
        self.asked.push(key);
        if self.log.declaring {
            let sheet = self.below(format!("{key}[]"), Origin::Default, None);
            return sheet.finish(read).into_iter().collect();
        }
        let Some(node) = self.node(key) else {
            return Vec::new();
        };
        let Value::List(items) = &node.value else {
            let text = format!("{} {key}: {node} is not a list of tables", self.shown());
            self.log.problem(&node.origin, text);
            return Vec::new();
        };
        let mut all = Vec::new();
        for item in items {
            let path = format!("{key}[]");
            let Some(table) = self.table_in(item, &path) else {
                continue;
            };
            let sheet = self.below(path, item.origin.clone(), Some(table));
            all.extend(sheet.finish(&mut read));
        }
        all
    }

    /// Says `text` as a warning if the user has set the key.
    pub(super) fn warn_if_set(&self, key: &'static str, text: &str) {
        if self.node(key).is_some() {
            self.log.warn(format!("{} {key}: {text}", self.shown()));
        }
    }

    /// Says `text` as a warning.
    pub(super) fn warn(&self, text: String) {
        self.log.warn(text);
    }

    /// A problem with this section, or with one of its keys.
    pub(super) fn problem(&self, key: Option<&str>, text: &str) {
        let node = key.and_then(|key| self.node(key));
        let origin = node.map_or(&self.origin, |node| &node.origin);
        let text = match key {
            Some(key) => format!("{} {key}: {text}", self.shown()),
            None => format!("{} {text}", self.shown()),
        };
        self.log.problem(origin, text);
    }

    /// A problem with a key of a section below, which has been read already; `text` is the whole complaint.
    pub(super) fn problem_below(&self, section: &str, key: &str, text: String) {
        let table = self.node(section).and_then(|node| match &node.value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        let origin = table
            .and_then(|table| table.entries.get(key))
            .map_or(&self.origin, |(at, _)| at);
        self.log
            .problem(origin, format!("[{section}] {key}: {text}"));
    }

    fn node(&self, key: &str) -> Option<&'a Node> {
        self.table?.entries.get(key).map(|(_, node)| node)
    }

    fn table_in(&self, node: &'a Node, key: &str) -> Option<&'a Table> {
        if let Value::Table(table) = &node.value {
            return Some(table);
        }
        let place = match self.path.as_str() {
            "" => format!("[{key}]"),
            path => format!("[{path}] {key}"),
        };
        let text = format!("{place}: {node} is not a section of keys");
        self.log.problem(&node.origin, text);
        None
    }

    fn below(&self, key: String, origin: Origin, table: Option<&'a Table>) -> Sheet<'a> {
        let path = match self.path.as_str() {
            "" => key,
            path => format!("{path}.{key}"),
        };
        Sheet {
            path,
            origin,
            table,
            asked: Vec::new(),
            log: self.log,
        }
    }

    fn shown(&self) -> String {
        format!("[{}]", self.path)
    }

    fn finish<T>(mut self, read: impl FnOnce(&mut Sheet<'_>) -> T) -> T {
        let value = read(&mut self);
        let entries = self.table.iter().flat_map(|table| &table.entries);
        for (key, (at, _)) in entries {
            if self.asked.contains(&key.as_str()) {
                continue;
            }
            let unknown = match self.path.as_str() {
                "" => format!("unknown section [{key}]"),
                path => format!("unknown key {key:?} in [{path}]"),
            };
            let advice = match nearest(key, self.asked.iter().copied()) {
                Some(near) if self.path.is_empty() => format!("did you mean [{near}]?"),
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("it has {}", self.asked.join(", ")),
            };
            self.log.problem(at, format!("{unknown}; {advice}"));
        }
        value
    }
}

/// The word that was probably meant, if one is near enough to be worth saying.
pub(super) fn nearest<'w>(given: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    /// Jaro-Winkler similarity from which a guess helps more than a list: one slip in five letters gives 0.9.
    const NEAR: f64 = 0.8;
    let given = given.to_lowercase();
    words
        .map(|word| (strsim::jaro_winkler(&given, word), word))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}
