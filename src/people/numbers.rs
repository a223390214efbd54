//! Names that come in again and again, as small numbers: segments and whole datasets, writers, sources.
//!
//! A number stays its name's as long as the process lives, and is never written to disk without it. How many there may be is limited,
//! for anybody who may send updates can make names up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names by number, and numbers by name. Shared by threads; the lock is held for one search.
#[derive(Debug)]
pub(crate) struct Numbers {
    names: Mutex<Names>,
    most: usize,
}

#[derive(Debug, Default)]
struct Names {
    all: Vec<Arc<str>>,
    by_name: HashMap<Arc<str>, u32>,
}

impl Numbers {
    /// At most so many.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            names: Mutex::default(),
            most,
        }
    }

    /// The number of a name, which gets one if it has none; nothing where there are too many.
    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        let names = &mut *self.names();
        if let Some(number) = names.by_name.get(name) {
            return Some(*number);
        }
        let number = u32::try_from(names.all.len()).ok()?;
        if names.all.len() >= self.most {
            return None;
        }
        let name: Arc<str> = name.into();
        names.all.push(Arc::clone(&name));
        names.by_name.insert(name, number);
        Some(number)
    }

    /// The number of a name that has one.
    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.names().by_name.get(name).copied()
    }

    /// The name of a number.
    pub(crate) fn name(&self, number: u32) -> Option<Arc<str>> {
        let number = usize::try_from(number).ok()?;
        self.names().all.get(number).cloned()
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a dataset as a whole is called where segments are: no segment has such a name.
pub(crate) fn whole(dataset: &str) -> String {
    format!("{dataset}/*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_and_there_are_so_many() {
        let numbers = Numbers::new(2);
        assert_eq!(numbers.number("a/b"), Some(0));
        assert_eq!(numbers.number(&whole("a")), Some(1));
        assert_eq!(numbers.number("a/b"), Some(0));
        assert_eq!(numbers.number("c/d"), None);
        assert_eq!(numbers.name(1).as_deref(), Some("a/*"));
        assert_eq!(numbers.name(2), None);
    }
}
