//! Who was shown what, and when: the memory behind frequency caps.
//!
//! A *contact* is one impression of one person: billed, reported from another channel, or provisional while a bid is open (a
//! *hold*). It counts for its line item, its campaign and its advertiser at once, and is kept under the key of an id. Whoever has
//! several ids has as many histories; a cap counts in each, and the largest decides.
//!
//! **Shape.** A table of buckets, each two cache lines that are fetched together: a word with the bucket's lock, what it holds and
//! bits and a time by which most keys of which nothing counts are told without the lock, and [`INLINE`] contacts. What more there is of
//! a bucket spills into a map. The table never grows or moves, so no bid waits for that; its memory is taken when the first plan
//! with a cap is made.
//!
//! Bid threads only ever *try* a bucket's lock: somebody else is in there for a hundred nanoseconds, or, when the scheduler
//! took the processor from him, for a millisecond. Then the answer is "not now", which is a no-bid for the capped line
//! item and never a cap that is skipped. A bid looks at histories once a request (a copy), and when it is committed its holds are
//! counted again and entered under the lock, so that two threads that bid for one person at once cannot both take the last place.
//!
//! **Bounds.** [`CONTACTS_MAX`] a key; `keys_max` keys with three contacts each, however they are spread. What is over refuses
//! capped line items rather than forget. Only contacts that are paid for are let in beyond that, up to as many again.
//! Cost: 64 bytes a key of `keys_max`, and about as much a contact that spills.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::spin_loop;
use std::io;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::yield_now;

use super::contacts::{CONTACTS_MAX, Contact, Count, SETTLED, ScopedCap, Scopes};
use crate::ids::UserKey;
use crate::lines::{Pair, Pairs, prefetch};

/// How often a bid thread tries a lock before it gives up: about 50 µs.
const TRIES: usize = 50;
const ROUNDS: usize = 20;

/// A user key, cut to 64 bits: two people of a thousand million share one with a chance of three in a hundred.
pub type FrequencyKey = u64;

/// The key that a person's contacts are kept under.
pub(super) fn key_of(key: UserKey) -> FrequencyKey {
    (key.0 >> 64) as u64 ^ key.0 as u64
}

/// Why a hold was not entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotHeld {
    /// A cap is reached.
    Capped,
    /// Somebody else is at it, or there is no room: it cannot be told now.
    Unknown,
}

/// Contacts of a bucket that stand in it.
const INLINE: usize = 3;
/// Words of one of them.
const CONTACT_WORDS: usize = 5;
/// Maps that spilled contacts are spread over.
const SPILLS: usize = 64;
/// Parts of the table, of which one is swept at a time.
const PARTS: usize = 1024;

/// A bucket's first word: one bit that it is locked, two for how many contacts stand in it, 13 for how many were spilled, one of 16
/// for each key in it, and 32 for the second when the last of its contacts is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head(u64);

impl Head {
    const LOCKED: u64 = 1;
    const SPILLED_MAX: usize = (1 << 13) - 1;

    fn of(inline: usize, spilled: usize, seen: u16, until: u32) -> Self {
        let inline = (inline as u64 & 3) << 1;
        let spilled = (spilled.min(Self::SPILLED_MAX) as u64) << 3;
        Self(inline | spilled | u64::from(seen) << 16 | u64::from(until) << 32)
    }

    fn is_locked(self) -> bool {
        self.0 & Self::LOCKED != 0
    }

    fn inline(self) -> usize {
        (self.0 >> 1 & 3) as usize
    }

    fn spilled(self) -> usize {
        self.0 as usize >> 3 & Self::SPILLED_MAX
    }

    fn seen(self) -> u16 {
        (self.0 >> 16) as u16
    }

    fn until(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether a contact of the key may be there that is not over.
    fn may_have(self, key: FrequencyKey, now: u32) -> bool {
        self.seen() & Self::bit(key) != 0 && self.until() > now
    }

    /// A key's bit, by its lowest.
    fn bit(key: FrequencyKey) -> u16 {
        1u16.wrapping_shl(key as u32)
    }
}

fn two(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

type Entry = (FrequencyKey, Contact);

/// Contacts that were spilled, by their bucket.
#[derive(Debug, Default)]
struct Spilled {
    entries: HashMap<usize, Vec<Entry>, BuildHasherDefault<PlaceHasher>>,
    /// Memory of buckets that have none any more, for those that will: so that bids seldom wait for the allocator.
    spare: Vec<Vec<Entry>>,
}

/// Of a bucket's place, which comes of a keyed hash and need not be hashed as if somebody had chosen it.
#[derive(Debug, Default)]
struct PlaceHasher(u64);

impl Hasher for PlaceHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, place: usize) {
        // Multiplied by 2⁶⁴ over the golden ratio.
        self.0 = (self.0 ^ place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(32)
    }
}

/// So many lists are kept spare in each map.
const SPARE_MAX: usize = 1024;

impl Spilled {
    fn push(&mut self, place: usize, entry: Entry) {
        let list = self.entries.entry(place);
        list.or_insert_with(|| self.spare.pop().unwrap_or_default())
            .push(entry);
    }

    /// Nothing is left of a bucket's.
    fn is_emptied(&mut self, place: usize) {
        if let Some(list) = self.entries.remove(&place)
            && self.spare.len() < SPARE_MAX
        {
            self.spare.push(list);
        }
    }
}

/// Whether to give up on a lock that somebody stays in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// A bid thread's.
    Some,
    /// The ledger's.
    All,
}

/// Tries until it is done, or patience is over.
fn patiently<T>(patience: Patience, mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let mut rounds = 0usize;
    while rounds < ROUNDS || patience == Patience::All {
        for _ in 0..TRIES {
            if let Some(done) = done() {
                return Some(done);
            }
            spin_loop();
        }
        // Perhaps it is this processor that whoever is in there waits for.
        match rounds < ROUNDS {
            true => yield_now(),
            false => std::thread::park_timeout(std::time::Duration::from_micros(100)),
        }
        rounds = rounds.saturating_add(1);
    }
    None
}

/// The histories of all keys.
#[derive(Debug)]
pub(super) struct Frequency {
    buckets: Pairs,
    spills: Box<[Mutex<Spilled>]>,
    /// Contacts that were spilled, and how many may be.
    spilled: AtomicUsize,
    spilled_max: usize,
    /// Contacts in each part of the table when it was swept last.
    counts: Box<[AtomicU32]>,
    is_ready: AtomicBool,
    /// Whether anything was ever put in: otherwise its memory is left alone.
    is_used: AtomicBool,
    /// Contacts that were paid for and had no room.
    forgotten: AtomicU64,
}

/// A bucket that is locked by whoever has this.
struct Bucket<'f> {
    table: &'f Frequency,
    place: usize,
    pair: &'f Pair,
    inline: usize,
    seen: u16,
    until: u32,
    /// The map that its other contacts are in, where there are any or were.
    spill: Option<MutexGuard<'f, Spilled>>,
    spilled: usize,
    patience: Patience,
}

impl Frequency {
    /// With room for so many keys. The error is the system's: it has not that much memory.
    pub(super) fn new(keys_max: usize) -> io::Result<Self> {
        let buckets = keys_max.div_ceil(2);
        let inline = buckets.saturating_mul(INLINE);
        Ok(Self {
            buckets: Pairs::zeroed(buckets)?,
            spills: (0..SPILLS).map(|_| Mutex::default()).collect(),
            spilled: AtomicUsize::new(0),
            spilled_max: keys_max
                .saturating_mul(3)
                .saturating_sub(inline)
                .max(keys_max),
            counts: (0..PARTS).map(|_| AtomicU32::new(0)).collect(),
            is_ready: AtomicBool::new(false),
            is_used: AtomicBool::new(false),
            forgotten: AtomicU64::new(0),
        })
    }

    /// With room for nobody.
    pub(super) fn none() -> Self {
        Self {
            buckets: Pairs::none(),
            spills: Box::default(),
            spilled: AtomicUsize::new(0),
            spilled_max: 0,
            counts: Box::default(),
            is_ready: AtomicBool::new(false),
            is_used: AtomicBool::new(false),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Takes the table's memory now, so that no bid waits until the system gives it.
    pub(super) fn get_ready(&self) {
        if !self.is_ready.swap(true, Relaxed) {
            self.buckets.touch();
        }
    }

    /// A key's bucket, by its upper bits.
    fn place(&self, key: FrequencyKey) -> usize {
        let wide = u128::from(key).saturating_mul(self.buckets.len() as u128);
        (wide >> 64) as usize
    }

    /// Has a key's bucket at hand soon.
    pub(super) fn prefetch(&self, key: FrequencyKey) {
        if let Some(pair) = self.buckets.get(self.place(key)) {
            prefetch(pair);
        }
    }

    fn open(&self, place: usize, patience: Patience) -> Option<Bucket<'_>> {
        let pair = self.buckets.get(place)?;
        let [word, ..] = &pair.0;
        let head = patiently(patience, || {
            let head = word.load(Relaxed);
            let is_mine = !Head(head).is_locked()
                && word
                    .compare_exchange(head, head | Head::LOCKED, Acquire, Relaxed)
                    .is_ok();
            is_mine.then_some(Head(head))
        })?;
        let mut bucket = Bucket {
            table: self,
            place,
            pair,
            inline: head.inline(),
            seen: head.seen(),
            until: head.until(),
            spill: None,
            spilled: head.spilled(),
            patience,
        };
        if bucket.spilled > 0 && !bucket.open_spill() {
            return None;
        }
        Some(bucket)
    }

    /// Whether a key may have contacts that count. Most keys that have none are told without a lock.
    fn may_have(&self, key: FrequencyKey, now: u32) -> bool {
        self.buckets.get(self.place(key)).is_none_or(|pair| {
            let [word, ..] = &pair.0;
            Head(word.load(Acquire)).may_have(key, now)
        })
    }

    /// Appends a copy of a key's contacts that count for anything still; `None` where that cannot be told now.
    pub(super) fn copy(&self, key: FrequencyKey, now: u32, into: &mut Vec<Contact>) -> Option<()> {
        if self.may_have(key, now) {
            let bucket = self.open(self.place(key), Patience::Some)?;
            bucket.copy(key, now, into);
        }
        Some(())
    }

    /// Enters a hold under one key, unless a cap says no.
    pub(super) fn hold(
        &self,
        key: FrequencyKey,
        caps: &[ScopedCap],
        contact: Contact,
    ) -> Result<(), NotHeld> {
        let now = contact.at;
        let bucket = self.open(self.place(key), Patience::Some);
        let mut bucket = bucket.ok_or(NotHeld::Unknown)?;
        let mut count = Count::under(caps, contact.scopes, now);
        let mut is_any_over = false;
        bucket.each(|of, contact| {
            if contact.is_over(now) {
                is_any_over = true;
            } else if of == key {
                count.add(contact);
            }
        });
        if is_any_over {
            bucket.take_out_what_is_over(now);
        }
        if count.is_reached() {
            return Err(NotHeld::Capped);
        }
        match bucket.push((key, contact), self.spilled_max) {
            true => Ok(()),
            false => Err(NotHeld::Unknown),
        }
    }

    /// Takes a bid's hold back. Waits; for what was entered must go.
    pub(super) fn let_go(&self, key: FrequencyKey, bid: u64) {
        if let Some(mut bucket) = self.open(self.place(key), Patience::All) {
            bucket.retain(|of, contact| of != key || contact.bid != bid.max(1));
        }
    }

    /// A bid was billed, or a contact reported: it is settled, and the bid's hold is no more.
    pub(super) fn settle(&self, key: FrequencyKey, bid: Option<u64>, contact: Contact, now: u32) {
        let Some(mut bucket) = self.open(self.place(key), Patience::All) else {
            return;
        };
        let mut of_key = 0usize;
        bucket.retain(|of, contact| {
            let is_released = bid.is_some_and(|bid| of == key && contact.bid == bid.max(1));
            let stays = !contact.is_over(now) && !is_released;
            of_key = of_key.saturating_add(usize::from(stays && of == key));
            stays
        });
        let room = self.spilled_max.saturating_mul(2);
        if of_key >= CONTACTS_MAX || !bucket.push((key, contact), room) {
            self.forgotten.fetch_add(1, Relaxed);
        }
    }

    /// Takes out what is over, a part of the table at a time: `turn` grows by one a call.
    pub(super) fn sweep(&self, turn: usize, now: u32) {
        if !self.is_used.load(Relaxed) {
            return;
        }
        let part = turn.checked_rem(PARTS).unwrap_or(0);
        let of_part = self.buckets.len().div_ceil(PARTS);
        let from = part.saturating_mul(of_part);
        let mut count = 0u32;
        for (pair, place) in self.buckets.iter().skip(from).take(of_part).zip(from..) {
            let [word, ..] = &pair.0;
            if word.load(Relaxed) == 0 {
                continue;
            }
            if let Some(mut bucket) = self.open(place, Patience::Some) {
                bucket.take_out_what_is_over(now);
                let contacts = bucket.inline.saturating_add(bucket.spilled);
                count = count.saturating_add(u32::try_from(contacts).unwrap_or(u32::MAX));
            }
        }
        if let Some(of_part) = self.counts.get(part) {
            of_part.store(count, Relaxed);
        }
    }

    /// How many contacts there are, as of the last sweep of each part.
    pub(super) fn contacts(&self) -> usize {
        let counts = self.counts.iter().map(|count| count.load(Relaxed) as usize);
        counts.fold(0, usize::saturating_add)
    }

    /// How many contacts that were paid for had no room.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    /// All contacts that are settled, or all that are held.
    pub(super) fn each(&self, settled: bool, each: &mut impl FnMut(FrequencyKey, &Contact)) {
        if !self.is_used.load(Acquire) {
            return;
        }
        for (place, pair) in self.buckets.iter().enumerate() {
            let [word, ..] = &pair.0;
            if word.load(Acquire) == 0 {
                continue;
            }
            if let Some(bucket) = self.open(place, Patience::All) {
                bucket.each(|key, contact| {
                    if (contact.bid == SETTLED) == settled {
                        each(key, contact);
                    }
                });
            }
        }
    }
}

impl Bucket<'_> {
    /// Goes into the map of what was spilled.
    fn open_spill(&mut self) -> bool {
        if self.spill.is_some() {
            return true;
        }
        let Some(spill) = self.table.spills.get(self.place % SPILLS) else {
            return false;
        };
        self.spill = patiently(self.patience, || match spill.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => None,
        });
        self.spill.is_some()
    }

    fn words(&self, slot: usize) -> Option<&[AtomicU64; CONTACT_WORDS]> {
        let [_, contacts @ ..] = &self.pair.0;
        let (contacts, _) = contacts.as_chunks::<CONTACT_WORDS>();
        contacts.get(slot)
    }

    fn get(&self, slot: usize) -> Option<Entry> {
        let words = self.words(slot)?;
        let [key, times, scopes, advertiser, bid] = words.each_ref().map(|word| word.load(Relaxed));
        let contact = Contact {
            at: times as u32,
            until: (times >> 32) as u32,
            scopes: Scopes {
                line_item: scopes as u32,
                campaign: (scopes >> 32) as u32,
                advertiser: advertiser as u32,
            },
            bid,
        };
        Some((key, contact))
    }

    fn set(&self, slot: usize, (key, contact): Entry) {
        let scopes = contact.scopes;
        let values = [
            key,
            two(contact.at, contact.until),
            two(scopes.line_item, scopes.campaign),
            scopes.advertiser.into(),
            contact.bid,
        ];
        if let Some(words) = self.words(slot) {
            for (word, value) in words.iter().zip(values) {
                word.store(value, Relaxed);
            }
        }
    }

    fn each(&self, mut each: impl FnMut(FrequencyKey, &Contact)) {
        for slot in 0..self.inline {
            if let Some((key, contact)) = self.get(slot) {
                each(key, &contact);
            }
        }
        let spilled = self
            .spill
            .as_ref()
            .and_then(|map| map.entries.get(&self.place));
        for (key, contact) in spilled.into_iter().flatten() {
            each(*key, contact);
        }
    }

    fn copy(&self, key: FrequencyKey, now: u32, into: &mut Vec<Contact>) {
        self.each(|of, contact| {
            if of == key && !contact.is_over(now) {
                into.push(*contact);
            }
        });
    }

    fn take_out_what_is_over(&mut self, now: u32) {
        if self.until > now || self.spilled > 0 {
            self.retain(|_, contact| !contact.is_over(now));
        } else {
            // All of it, by what the head says.
            (self.inline, self.seen, self.until) = (0, 0, 0);
        }
    }

    /// Takes out what does not stay, and what was spilled back in where there is room then.
    fn retain(&mut self, mut stays: impl FnMut(FrequencyKey, &Contact) -> bool) {
        let mut kept = 0usize;
        for slot in 0..self.inline {
            let Some((key, contact)) = self.get(slot) else {
                break;
            };
            if stays(key, &contact) {
                if kept != slot {
                    self.set(kept, (key, contact));
                }
                kept = kept.saturating_add(1);
            }
        }
        self.inline = kept;
        if let Some(mut map) = self.spill.take() {
            if let Some(entries) = map.entries.get_mut(&self.place) {
                let before = entries.len();
                entries.retain(|(key, contact)| stays(*key, contact));
                while self.inline < INLINE
                    && let Some(entry) = entries.pop()
                {
                    self.set(self.inline, entry);
                    self.inline = self.inline.saturating_add(1);
                }
                self.spilled = entries.len();
                let gone = before.saturating_sub(self.spilled);
                self.table.spilled.fetch_sub(gone, Relaxed);
                if entries.is_empty() {
                    map.is_emptied(self.place);
                }
            }
            self.spill = Some(map);
        }
        let (mut seen, mut until) = (0, 0);
        self.each(|key, contact| {
            seen |= Head::bit(key);
            until = contact.until.max(until);
        });
        (self.seen, self.until) = (seen, until);
    }

    /// Puts one in; not where that many are spilled already.
    fn push(&mut self, entry: Entry, spilled_max: usize) -> bool {
        if self.inline < INLINE {
            self.set(self.inline, entry);
            self.inline = self.inline.saturating_add(1);
        } else {
            if self.spilled >= Head::SPILLED_MAX
                || self.table.spilled.load(Relaxed) >= spilled_max
                || !self.open_spill()
            {
                return false;
            }
            if let Some(map) = &mut self.spill {
                map.push(self.place, entry);
                self.spilled = self.spilled.saturating_add(1);
                self.table.spilled.fetch_add(1, Relaxed);
            }
        }
        if !self.table.is_used.load(Relaxed) {
            self.table.is_used.store(true, Release);
        }
        self.seen |= Head::bit(entry.0);
        self.until = self.until.max(entry.1.until);
        true
    }
}

impl Drop for Bucket<'_> {
    fn drop(&mut self) {
        self.spill = None;
        let [word, ..] = &self.pair.0;
        word.store(
            Head::of(self.inline, self.spilled, self.seen, self.until).0,
            Release,
        );
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test may panic")]
mod tests {
    use super::super::contacts::Scope;
    use super::*;
    use proptest::prelude::*;

    const SCOPES: Scopes = Scopes {
        line_item: 1,
        campaign: 2,
        advertiser: 3,
    };

    fn cap(count: u32, seconds: u32, scope: Scope) -> ScopedCap {
        ScopedCap {
            count,
            seconds,
            scope,
        }
    }

    #[test]
    fn a_hold_takes_a_place_until_it_is_over_or_let_go() {
        let frequency = Frequency::new(1000).expect("memory");
        let caps = [cap(2, 100, Scope::LineItem)];
        let hold = |at, bid| frequency.hold(9, &caps, Contact::held(at, at + 30, SCOPES, bid));
        assert_eq!(hold(1000, 1), Ok(()));
        assert_eq!(hold(1000, 2), Ok(()));
        assert_eq!(hold(1001, 3), Err(NotHeld::Capped));
        frequency.let_go(9, 1);
        assert_eq!(hold(1001, 4), Ok(()));
        assert_eq!(hold(1029, 5), Err(NotHeld::Capped));
        assert_eq!(hold(1030, 6), Ok(()), "the second bid's hold is over");
        frequency.settle(9, Some(6), Contact::settled(1030, 1130, SCOPES), 1031);
        frequency.settle(9, Some(4), Contact::settled(1032, 1132, SCOPES), 1032);
        assert_eq!(hold(1129, 7), Err(NotHeld::Capped), "both are billed");
        assert_eq!(hold(1130, 8), Ok(()), "the window slid past the first");
    }

    #[test]
    fn a_full_table_refuses_and_never_forgets_what_is_held() {
        let frequency = Frequency::new(2).expect("memory");
        let caps = [cap(1, 100, Scope::Advertiser)];
        let hold = |key, at| {
            let contact = Contact::held(at, at + 30, SCOPES, key);
            frequency.hold(key, &caps, contact)
        };
        let room = INLINE as u64 + 3;
        for key in 0..room {
            assert_eq!(hold(key, 1000), Ok(()));
        }
        assert_eq!(hold(room, 1000), Err(NotHeld::Unknown), "no room");
        for key in 0..room {
            assert_eq!(hold(key, 1001), Err(NotHeld::Capped));
        }
        // Whoever paid has a place for as long as there is any.
        for key in room..2 * room {
            frequency.settle(key, None, Contact::settled(1001, 1101, SCOPES), 1001);
        }
        assert_eq!(frequency.forgotten(), 3);
        assert_eq!(hold(room, 1030), Err(NotHeld::Capped));
        assert_eq!(hold(room + 8, 1030), Ok(()), "what is over makes room");
        frequency.sweep(0, 1101);
        assert_eq!(frequency.contacts(), 0);
    }

    #[test]
    fn whoever_is_in_a_bucket_makes_a_cap_unknown() {
        let frequency = Frequency::new(1000).expect("memory");
        frequency.settle(5, None, Contact::settled(0, 9, SCOPES), 0);
        let inside = frequency.open(0, Patience::Some);
        assert!(frequency.copy(5, 0, &mut Vec::new()).is_none());
        assert!(frequency.may_have(5, 8) && !frequency.may_have(6, 8) && !frequency.may_have(5, 9));
        let held = frequency.hold(5, &[], Contact::held(1, 2, SCOPES, 1));
        assert_eq!(held, Err(NotHeld::Unknown));
        drop(inside);
        assert!(frequency.copy(5, 0, &mut Vec::new()).is_some());
    }

    #[test]
    fn threads_that_bid_at_once_share_the_places() {
        let frequency = Frequency::new(1000).expect("memory");
        let caps = [cap(10, 1000, Scope::Campaign)];
        let taken: usize = std::thread::scope(|threads| {
            let takers = [1u64, 2, 3].map(|thread| {
                let (frequency, caps) = (&frequency, &caps);
                threads.spawn(move || {
                    let own = (0..1000u64).filter(|n| {
                        let contact = Contact::held(50, 90, SCOPES, thread << 32 | n);
                        frequency.hold(7, caps, contact) == Ok(())
                    });
                    own.count()
                })
            });
            takers
                .into_iter()
                .map(|taker| taker.join().expect("no panic"))
                .sum()
        });
        assert_eq!(taken, 10);
    }

    proptest! {
        /// As a list that forgets nothing counts.
        #[test]
        fn caps_count_as_a_list_would(
            steps in prop::collection::vec((0u32..40, 0u32..3, 0u32..2, any::<bool>()), 1..60),
            count in 1u32..4, seconds in 1u32..60,
        ) {
            let frequency = Frequency::new(1000).expect("memory");
            let mut shown: Vec<(u32, Scopes)> = Vec::new();
            let mut now = 1000;
            for (bid, (wait, line_item, campaign, settles)) in (1u64..).zip(steps) {
                now += wait;
                let scopes = Scopes { line_item, campaign, advertiser: 0 };
                let caps = [cap(count, seconds, Scope::LineItem), cap(count + 1, seconds * 2, Scope::Campaign)];
                let of = |same: &dyn Fn(&Scopes) -> bool, window: u32| {
                    shown.iter().filter(|(at, scopes)| same(scopes) && at + window > now).count()
                };
                let free = of(&|other| other.line_item == line_item, seconds) < count as usize
                    && of(&|other| other.campaign == campaign, seconds * 2) < count as usize + 1;
                let held = frequency.hold(3, &caps, Contact::held(now, now + 200, scopes, bid));
                prop_assert_eq!(held.is_ok(), free);
                if held.is_ok() && settles {
                    frequency.settle(3, Some(bid), Contact::settled(now, now + 200, scopes), now);
                    shown.push((now, scopes));
                } else if held.is_ok() {
                    frequency.let_go(3, bid);
                }
            }
        }

        /// Many keys in few buckets, as lists that each stand alone.
        #[test]
        fn buckets_keep_what_a_map_would(
            steps in prop::collection::vec((0u64..24, 0u32..3, 0u8..5, 1u64..40), 1..300),
        ) {
            let frequency = Frequency::new(8).expect("memory");
            let mut model: std::collections::BTreeMap<u64, Vec<Contact>> = Default::default();
            let mut now = 1000;
            for (key, wait, what, bid) in steps {
                now += wait;
                // Keys of one bucket, and of one bit.
                let key = (key % 6) | ((key / 6) << 60);
                for contacts in model.values_mut() {
                    contacts.retain(|contact| !contact.is_over(now));
                }
                let of_key = model.entry(key).or_default();
                let contact = Contact::held(now, now + 20, SCOPES, bid);
                match what {
                    0 | 1 => {
                        if frequency.hold(key, &[], contact).is_ok() {
                            of_key.push(contact);
                        }
                    }
                    2 => {
                        frequency.let_go(key, bid);
                        of_key.retain(|contact| contact.bid != bid);
                    }
                    3 => {
                        let forgotten = frequency.forgotten();
                        let settled = Contact::settled(now, now + 50, SCOPES);
                        frequency.settle(key, Some(bid), settled, now);
                        of_key.retain(|contact| contact.bid != bid);
                        if frequency.forgotten() == forgotten {
                            of_key.push(settled);
                        }
                    }
                    _ => frequency.sweep(bid as usize % 4, now),
                }
                for (key, of_key) in &model {
                    let mut found = Vec::new();
                    frequency.copy(*key, now, &mut found).expect("nobody else");
                    let sorted = |contacts: &[Contact]| {
                        let mut all: Vec<(u32, u64)> = contacts.iter().map(|c| (c.at, c.bid)).collect();
                        all.sort_unstable();
                        all
                    };
                    prop_assert_eq!(sorted(&found), sorted(of_key));
                }
            }
            let mut all = 0;
            frequency.each(true, &mut |_, _| all += 1);
            frequency.each(false, &mut |_, _| all += 1);
            let kept = frequency.buckets.iter().map(|pair| {
                let head = Head(pair.0[0].load(Relaxed));
                head.inline() + head.spilled()
            });
            prop_assert_eq!(kept.sum::<usize>(), all);
        }
    }
}
