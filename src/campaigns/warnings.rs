//! What is valid but probably not meant: told at upload, never held against a document.
//!
//! Two kinds: what compiling saw (a budget that does not act yet, a country of two letters), kept in the book, and what
//! depends on the rest of the deployment, found when asked, so that it can be asked again after each upload.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Book;
use super::document::Place;
use crate::audience::Errors;
use crate::ids::{Name, SegmentRef};
use crate::money::Currency;

/// Most warnings told at once; the rest are counted.
pub const WARNINGS_MAX: usize = 1000;

/// One thing that is valid but may not do what was meant.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Warning {
    /// Where, as in `line_items[3].targeting`; empty for the deployment as a whole.
    pub path: String,
    /// The id of what is there, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What to know, and perhaps do.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Place {
            path: &self.path,
            id: &self.id,
        };
        write!(f, "{place}{}", self.message)
    }
}

/// What a deployment has besides campaigns.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Whether a live version has the segment.
    pub segments: &'a dyn Fn(&SegmentRef) -> bool,
    /// Which way the errors of a dataset may go; none where it has none.
    pub errors: &'a dyn Fn(&Name) -> Option<Errors>,
    /// Whether a dataset of scores has a live version.
    pub scores: &'a dyn Fn(&Name) -> bool,
    /// Whether a price in the currency can be converted.
    pub currencies: &'a dyn Fn(Currency) -> bool,
    /// The configured exchanges' names.
    pub exchanges: &'a [&'a str],
}

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("exchanges", &self.exchanges)
            .finish_non_exhaustive()
    }
}

/// What compiling saw, and what it noted down for later questions.
#[derive(Debug, Default)]
pub(super) struct Notes {
    warnings: Vec<Warning>,
    more: usize,
    /// Who names each segment, by slot; who names each exchange; who prices in each currency.
    pub(super) segments: Vec<Named>,
    pub(super) exchanges: BTreeMap<Box<str>, Users>,
    pub(super) currencies: BTreeMap<Currency, Users>,
    /// Who prices by each dataset of scores.
    pub(super) scores: BTreeMap<Name, Users>,
}

/// Who names a segment, and to what end.
#[derive(Debug, Default, Clone)]
pub(super) struct Named {
    /// All of them.
    pub(super) by: Users,
    /// Those who want the people in it.
    pub(super) wanting: Users,
    /// Those who do not want them.
    pub(super) unwanting: Users,
}

/// Who uses something: one of them by path and id, and how many there are.
#[derive(Debug, Default, Clone)]
pub(super) struct Users {
    path: String,
    id: String,
    count: usize,
}

impl Users {
    pub(super) fn add(&mut self, path: impl FnOnce() -> String, id: &str) {
        if self.count == 0 {
            self.path = path();
            self.id = id.to_owned();
        }
        self.count += 1;
    }

    fn warning(&self, message: String) -> Warning {
        let message = match self.count {
            0 | 1 => message,
            count => format!("{message} (so for {count} line items)"),
        };
        Warning {
            path: self.path.clone(),
            id: Some(self.id.clone()),
            message,
        }
    }
}

impl Notes {
    pub(super) fn warn(&mut self, path: String, id: Option<&str>, message: impl Into<String>) {
        if self.warnings.len() >= WARNINGS_MAX {
            self.more += 1;
            return;
        }
        self.warnings.push(Warning {
            path,
            id: id.map(str::to_owned),
            message: message.into(),
        });
    }
}

impl Book {
    /// What may not do what was meant, in these surroundings: about the document first, in its order, then segments
    /// that were never uploaded, approximate lists used against what is said of their errors, currencies without a
    /// rate and exchanges that are not configured. Changes nothing.
    pub fn warnings(&self, surroundings: &Surroundings<'_>) -> Vec<Warning> {
        let notes = &self.notes;
        let mut all = notes.warnings.clone();
        let mut more = notes.more;
        let missing = self.segments.iter().zip(&notes.segments);
        let segments = missing
            .filter(|(segment, _)| !(surroundings.segments)(segment))
            .map(|(segment, named)| {
                named.by.warning(format!(
                    "segment '{segment}' is in no live version: it counts as empty until it is uploaded"
                ))
            });
        let approximate = self.segments.iter().zip(&notes.segments);
        let approximate = approximate.filter_map(|(segment, named)| {
            let errors = (surroundings.errors)(&segment.dataset)?;
            let (users, does, meant) = match errors {
                Errors::WronglyExcluded => (&named.wanting, "wants", Errors::WronglyIncluded),
                Errors::WronglyIncluded => (&named.unwanting, "excludes", Errors::WronglyExcluded),
            };
            (users.count > 0).then(|| {
                users.warning(format!(
                    "this {does} '{segment}', an approximate list whose errors are declared as {}; errors would be {} here. \
                     Where that is meant, say so under [datasets.{}], or name a dataset there that confirms",
                    errors.as_str(), meant.as_str(), segment.dataset
                ))
            })
        });
        let currencies = notes
            .currencies
            .iter()
            .filter(|(currency, _)| !(surroundings.currencies)(**currency))
            .map(|(currency, users)| {
                users.warning(format!(
                    "there is no rate for {currency}: it bids only where the exchange takes {currency}; add one under [currency]"
                ))
            });
        let scores = notes.scores.iter();
        let scores = scores
            .filter(|(name, _)| !(surroundings.scores)(name))
            .map(|(name, users)| {
                users.warning(format!(
                    "no version of a dataset '{name}' of kind scores is live: prices are not multiplied by scores until one is uploaded"
                ))
            });
        let known: BTreeSet<&str> = surroundings.exchanges.iter().copied().collect();
        let exchanges = notes
            .exchanges
            .iter()
            .filter(|(name, _)| !known.contains(&***name))
            .map(|(name, users)| {
                users.warning(format!(
                    "exchange '{name}' is not configured: there are {}",
                    surroundings.exchanges.join(", ")
                ))
            });
        let all_found = segments.chain(approximate).chain(scores).chain(currencies);
        for warning in all_found.chain(exchanges) {
            if all.len() < WARNINGS_MAX {
                all.push(warning);
            } else {
                more += 1;
            }
        }
        if more > 0 {
            all.push(Warning {
                path: String::new(),
                id: None,
                message: format!("and {more} more warnings"),
            });
        }
        all
    }
}
