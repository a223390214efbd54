//! Names of segments to the numbers that rows are kept with: one dictionary for all threads, a cache in each.
//!
//! A number is given when the first good row names the segment, so which number a segment gets depends on who came
//! first; nothing that is written does. A thread looks a name up in its own cache, and only with a name that it never saw
//! takes the lock. All new names of a row are taken in together or not at all: a bad row leaves none behind.
//!
//! Cost: a hash and a comparison of a few bytes a name that is known.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::ids::Name;

/// More segments than there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany(pub(super) usize);

/// What all threads know.
#[derive(Debug)]
pub(super) struct Dictionary {
    most: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    names: Vec<Name>,
    numbers: HashMap<Name, u16>,
}

impl Dictionary {
    /// Of at most `most` names, which is at most 2¹⁶.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            known: Mutex::default(),
        }
    }

    /// The numbers of some different names, which are all taken in or, where there is no room, none.
    pub(super) fn numbers(&self, names: &[Name]) -> Result<Vec<u16>, TooMany> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let new = names
            .iter()
            .filter(|name| !known.numbers.contains_key(*name));
        if known.names.len() + new.count() > self.most {
            return Err(TooMany(self.most));
        }
        let number = |name: &Name| match known.numbers.get(name) {
            Some(&number) => number,
            None => {
                let number = known.names.len() as u16;
                known.names.push(name.clone());
                known.numbers.insert(name.clone(), number);
                number
            }
        };
        Ok(names.iter().map(number).collect())
    }

    /// All names, each at its number.
    pub(super) fn names(&self) -> Vec<Name> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.names.clone()
    }
}

/// What one thread knows: an open-addressing table, at most half full.
#[derive(Debug)]
pub(super) struct Cache {
    slots: Vec<Slot>,
    taken: usize,
    /// The names, one after the other.
    text: Vec<u8>,
    /// Drawn anew for each table, so that nobody can choose names that collide.
    seed: u64,
}

/// A length of 0 is no name's: the slot is free.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u64,
    /// Its first and its last eight bytes, where there are as many.
    ends: (u64, u64),
    start: u32,
    length: u16,
    number: u16,
}

const SLOTS_AT_FIRST: usize = 256;

impl Default for Cache {
    fn default() -> Self {
        Self {
            slots: vec![Slot::default(); SLOTS_AT_FIRST],
            taken: 0,
            text: Vec::new(),
            seed: RandomState::new().hash_one(0u8),
        }
    }
}

impl Cache {
    /// The number of a name.
    #[inline]
    pub(super) fn get(&self, name: &[u8]) -> Option<u16> {
        let hash = self.hash(name);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.length == 0 {
                return None;
            }
            if slot.hash == hash && self.is(slot, name) {
                return Some(slot.number);
            }
            at = (at + 1) & mask;
        }
    }

    /// Takes in a name that is not there, of 1 to 64 bytes.
    pub(super) fn insert(&mut self, name: &[u8], number: u16) {
        if 2 * (self.taken + 1) > self.slots.len() {
            let larger = vec![Slot::default(); 2 * self.slots.len()];
            for slot in std::mem::replace(&mut self.slots, larger) {
                if slot.length > 0 {
                    self.place(slot);
                }
            }
        }
        let slot = Slot {
            hash: self.hash(name),
            ends: ends(name),
            start: self.text.len() as u32,
            length: name.len() as u16,
            number,
        };
        self.text.extend_from_slice(name);
        self.taken += 1;
        self.place(slot);
    }

    fn place(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.hash as usize & mask;
        while self.slots[at].length > 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    #[inline]
    fn is(&self, slot: Slot, name: &[u8]) -> bool {
        match name.len() {
            8..=16 => usize::from(slot.length) == name.len() && slot.ends == ends(name),
            _ => self.text(slot) == name,
        }
    }

    fn text(&self, slot: Slot) -> &[u8] {
        &self.text[slot.start as usize..][..usize::from(slot.length)]
    }

    /// Multiplies and folds eight bytes at a time; the last word overlaps the one before.
    #[inline]
    fn hash(&self, name: &[u8]) -> u64 {
        let mut hash = self.seed ^ name.len() as u64;
        let mut mix = |word: u64| {
            let product = u128::from(hash ^ word) * 0x9e37_79b9_7f4a_7c15;
            hash = (product >> 64) as u64 ^ product as u64;
        };
        let four = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
        if let Some(last) = name.last_chunk::<8>() {
            let (words, _) = name[..name.len() - 1].as_chunks::<8>();
            for word in words {
                mix(u64::from_le_bytes(*word));
            }
            mix(u64::from_le_bytes(*last));
        } else if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
            mix(four(first) << 32 | four(last));
        } else {
            mix(name
                .iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
        hash
    }
}

#[inline]
fn ends(name: &[u8]) -> (u64, u64) {
    let word = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    (word(name.first_chunk()), word(name.last_chunk()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_knows_just_what_it_was_told() {
        let mut cache = Cache::default();
        let names: Vec<String> = (0..3000)
            .map(|n| format!("{}{n}", "s".repeat(n % 60)))
            .collect();
        for (number, name) in (0..).zip(&names) {
            assert_eq!(cache.get(name.as_bytes()), None, "{name}");
            cache.insert(name.as_bytes(), number);
        }
        for (number, name) in (0..).zip(&names) {
            assert_eq!(cache.get(name.as_bytes()), Some(number), "{name}");
        }
        assert_eq!(cache.get(b""), None);
    }

    #[test]
    fn names_are_taken_in_together_or_not_at_all() {
        let name = |text: &str| -> Name { text.parse().expect("a name") };
        let dictionary = Dictionary::new(3);
        assert_eq!(dictionary.numbers(&[name("a"), name("b")]), Ok(vec![0, 1]));
        let refused = dictionary.numbers(&[name("c"), name("b"), name("d")]);
        assert_eq!(refused, Err(TooMany(3)));
        assert_eq!(dictionary.numbers(&[name("b"), name("d")]), Ok(vec![1, 2]));
        assert_eq!(dictionary.names(), ["a", "b", "d"].map(name));
    }
}
