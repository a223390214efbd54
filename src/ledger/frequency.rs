//! Who was shown what, and when: the memory behind frequency caps.
//!
//! A *contact* is one impression of one person: billed, reported from another channel, or provisional while a bid is open (a
//! *hold*). It counts for its line item, its campaign and its advertiser at once, and is kept under the key of an id. Whoever has
//! several ids has as many histories; a cap counts in each, and the largest decides.
//!
//! **Shape.** Shards of a map from key to contacts, each behind a lock that bid threads only ever *try*: somebody else is in
//! there for a hundred nanoseconds, or, when the scheduler took the processor from him, for a millisecond. Then the
//! answer is "not now", which is a no-bid for the capped line item and never a cap that is skipped. A bid looks at
//! histories once a request (a copy), and when it is committed its holds are counted again and entered under the lock, so that two
//! threads that bid for one person at once cannot both take the last place.
//!
//! **Bounds.** [`CONTACTS_MAX`] a key, `keys_max` keys; what is over refuses capped line items rather than forget. Cost:
//! 24 bytes a contact, about 60 a key.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::ids::UserKey;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::spin_loop;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::yield_now;

/// Most contacts kept of one key. Whoever has more is refused by every cap until some are over.
pub const CONTACTS_MAX: usize = 1024;
/// How often a bid thread tries a lock before it gives up: about 50 µs.
const TRIES: usize = 50;
const ROUNDS: usize = 20;
const SHARDS: usize = 256;

/// A user key, cut to 64 bits: two people of a thousand million share one with a chance of three in a hundred.
pub type FrequencyKey = u64;

/// The key that a person's contacts are kept under.
pub(super) fn key_of(key: UserKey) -> FrequencyKey {
    (key.0 >> 64) as u64 ^ key.0 as u64
}

/// Names of what a contact counts for, as the ledger numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Scopes {
    /// The line item.
    pub line_item: u32,
    /// Its campaign.
    pub campaign: u32,
    /// Its advertiser.
    pub advertiser: u32,
}

/// For whom a cap counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The line item.
    LineItem,
    /// Its campaign.
    Campaign,
    /// Its advertiser.
    Advertiser,
}

/// At most so many contacts in a sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopedCap {
    /// Contacts; at least 1.
    pub count: u32,
    /// The window in seconds.
    pub seconds: u32,
    /// Of what.
    pub scope: Scope,
}

impl ScopedCap {
    /// Whether a contact of the one counts for the other.
    pub(super) fn is_of(&self, one: &Scopes, other: &Scopes) -> bool {
        match self.scope {
            Scope::LineItem => one.line_item == other.line_item,
            Scope::Campaign => one.campaign == other.campaign,
            Scope::Advertiser => one.advertiser == other.advertiser,
        }
    }
}

/// A provisional contact is of this bid, and is over at this second; a settled one has no bid.
const SETTLED: u64 = 0;

/// One contact. Times are seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contact {
    pub(super) at: u32,
    /// When it need not be remembered any more; a hold's: when it is over.
    pub(super) until: u32,
    pub(super) scopes: Scopes,
    /// The bid that holds it; [`SETTLED`] where it was billed or reported.
    bid: u64,
}

impl Contact {
    pub(super) fn settled(at: u32, until: u32, scopes: Scopes) -> Self {
        Self {
            at,
            until,
            scopes,
            bid: SETTLED,
        }
    }

    /// Held by a bid, whose number is not 0.
    pub(super) fn held(at: u32, until: u32, scopes: Scopes, bid: u64) -> Self {
        Self {
            at,
            until,
            scopes,
            bid: bid.max(1),
        }
    }

    fn counts_for(&self, cap: &ScopedCap, scopes: &Scopes, now: u32) -> bool {
        cap.is_of(&self.scopes, scopes)
            && self.at.saturating_add(cap.seconds) > now
            && (self.bid == SETTLED || self.until > now)
    }

    fn is_over(&self, now: u32) -> bool {
        self.until <= now
    }
}

/// The first cap that so many contacts leave no room under.
pub(super) fn reached<'c>(
    caps: &'c [ScopedCap],
    scopes: &Scopes,
    contacts: &[Contact],
    now: u32,
) -> Option<&'c ScopedCap> {
    caps.iter().find(|cap| {
        let mut left = cap.count;
        for contact in contacts {
            if contact.counts_for(cap, scopes, now) {
                left = left.saturating_sub(1);
            }
        }
        left == 0 || contacts.len() >= CONTACTS_MAX
    })
}

/// How many contacts count under a cap.
pub(super) fn counted(cap: &ScopedCap, scopes: &Scopes, contacts: &[Contact], now: u32) -> usize {
    let counting = contacts
        .iter()
        .filter(|contact| contact.counts_for(cap, scopes, now));
    counting.count()
}

/// Why a hold was not entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotHeld {
    /// A cap is reached.
    Capped,
    /// Somebody else is at it, or there is no room: it cannot be told now.
    Unknown,
}

/// Keys are keyed hashes already.
#[derive(Debug, Default, Clone, Copy)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

type Histories = HashMap<FrequencyKey, Vec<Contact>, BuildHasherDefault<AsIs>>;

/// Histories of some keys, and bits by which most keys that have none are told without a lock: one bit a key, set before the key
/// goes in, and all of them set anew when histories that are over are swept out.
#[derive(Debug)]
struct Shard {
    seen: Box<[AtomicU64]>,
    histories: Mutex<Histories>,
}

/// Bits a key that may be there, and most in a shard.
const SEEN_BITS: usize = 8;
const SEEN_WORDS_MAX: usize = 1 << 14;

impl Shard {
    fn new(keys_max: usize) -> Self {
        let words = keys_max.saturating_mul(SEEN_BITS) / 64;
        let words = words.clamp(1, SEEN_WORDS_MAX).next_power_of_two();
        Self {
            seen: (0..words).map(|_| AtomicU64::new(0)).collect(),
            histories: Mutex::default(),
        }
    }

    /// The word and the bit of a key. Others of its bits chose the shard, and choose the place in the map.
    fn bit(&self, key: FrequencyKey) -> Option<(&AtomicU64, u64)> {
        let mask = self.seen.len().saturating_sub(1);
        let word = usize::try_from(key >> 30).unwrap_or(0) & mask;
        Some((self.seen.get(word)?, 1 << ((key >> 24) & 63)))
    }

    fn may_have(&self, key: FrequencyKey) -> bool {
        self.bit(key)
            .is_none_or(|(word, bit)| word.load(Acquire) & bit != 0)
    }

    fn sees(&self, key: FrequencyKey) {
        if let Some((word, bit)) = self.bit(key) {
            word.fetch_or(bit, Release);
        }
    }

    /// The histories, unless somebody stays in them.
    fn try_lock(&self) -> Option<MutexGuard<'_, Histories>> {
        for _ in 0..ROUNDS {
            for _ in 0..TRIES {
                match self.histories.try_lock() {
                    Ok(guard) => return Some(guard),
                    Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                    Err(TryLockError::WouldBlock) => spin_loop(),
                }
            }
            // Perhaps it is this processor that whoever is in there waits for.
            yield_now();
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Histories> {
        self.histories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out what is over.
    fn sweep(&self, histories: &mut Histories, now: u32) {
        histories.retain(|_, contacts| {
            contacts.retain(|contact| !contact.is_over(now));
            !contacts.is_empty()
        });
        // Nobody enters a key meanwhile; who looks for one that stays finds its bit in the old word or in the new.
        let mut seen = vec![0u64; self.seen.len()];
        let mask = self.seen.len().saturating_sub(1);
        for key in histories.keys() {
            let word = usize::try_from(key >> 30).unwrap_or(0) & mask;
            if let Some(word) = seen.get_mut(word) {
                *word |= 1 << ((key >> 24) & 63);
            }
        }
        for (word, seen) in self.seen.iter().zip(seen) {
            word.store(seen, Release);
        }
    }
}

/// The histories of all keys.
#[derive(Debug)]
pub(super) struct Frequency {
    shards: Box<[Shard]>,
    /// Most keys of a shard.
    keys_max: usize,
}

impl Frequency {
    /// With room for so many keys.
    pub(super) fn new(keys_max: usize) -> Self {
        let keys_max = keys_max.div_ceil(SHARDS);
        Self {
            shards: (0..SHARDS).map(|_| Shard::new(keys_max)).collect(),
            keys_max,
        }
    }

    fn shard(&self, key: FrequencyKey) -> Option<&Shard> {
        let place = usize::try_from(key >> 48 & 0xff).unwrap_or(0);
        self.shards.get(place)
    }

    /// Whether a key may have contacts. Most keys that have none are told without a lock.
    pub(super) fn may_have(&self, key: FrequencyKey) -> bool {
        self.shard(key).is_none_or(|shard| shard.may_have(key))
    }

    /// Appends a copy of a key's contacts that count for anything still; `None` where that cannot be told now.
    pub(super) fn copy(&self, key: FrequencyKey, now: u32, into: &mut Vec<Contact>) -> Option<()> {
        let shard = self.shard(key)?;
        if let Some(contacts) = shard.try_lock()?.get(&key) {
            into.extend(contacts.iter().filter(|contact| !contact.is_over(now)));
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
        let shard = self.shard(key).ok_or(NotHeld::Unknown)?;
        let mut histories = shard.try_lock().ok_or(NotHeld::Unknown)?;
        if !histories.contains_key(&key) && !self.has_room(shard, &mut histories, now) {
            return Err(NotHeld::Unknown);
        }
        shard.sees(key);
        let contacts = histories.entry(key).or_default();
        contacts.retain(|contact| !contact.is_over(now));
        if reached(caps, &contact.scopes, contacts, now).is_some() {
            return Err(NotHeld::Capped);
        }
        contacts.push(contact);
        Ok(())
    }

    /// Takes a bid's hold back. Waits; for what was entered must go.
    pub(super) fn let_go(&self, key: FrequencyKey, bid: u64) {
        let Some(shard) = self.shard(key) else { return };
        let mut histories = shard.lock();
        if let Some(contacts) = histories.get_mut(&key) {
            contacts.retain(|contact| contact.bid != bid.max(1));
            if contacts.is_empty() {
                histories.remove(&key);
            }
        }
    }

    /// A bid was billed, or a contact reported: it is settled, and the bid's hold is no more.
    pub(super) fn settle(&self, key: FrequencyKey, bid: Option<u64>, contact: Contact, now: u32) {
        let Some(shard) = self.shard(key) else { return };
        let mut histories = shard.lock();
        if !histories.contains_key(&key) && !self.has_room(shard, &mut histories, now) {
            // The one case in which something is forgotten: the table is full of people who all were shown something.
            return;
        }
        shard.sees(key);
        let contacts = histories.entry(key).or_default();
        let stays = |contact: &Contact| {
            !contact.is_over(now) && bid.is_none_or(|bid| contact.bid != bid.max(1))
        };
        contacts.retain(stays);
        if contacts.len() < CONTACTS_MAX {
            contacts.push(contact);
        }
    }

    /// Whether one more key has room in a shard, after what is over was taken out where need be.
    fn has_room(&self, shard: &Shard, histories: &mut Histories, now: u32) -> bool {
        if histories.len() >= self.keys_max {
            shard.sweep(histories, now);
        }
        histories.len() < self.keys_max
    }

    /// Takes out what is over, a shard at a time: `turn` grows by one a call.
    pub(super) fn sweep(&self, turn: usize, now: u32) {
        let place = turn.checked_rem(SHARDS).unwrap_or(0);
        if let Some(shard) = self.shards.get(place) {
            shard.sweep(&mut shard.lock(), now);
        }
    }

    /// How many keys have a history.
    pub(super) fn keys(&self) -> usize {
        let lens = self.shards.iter().map(|shard| shard.lock().len());
        lens.fold(0, usize::saturating_add)
    }

    /// All contacts that are settled, or all that are held.
    pub(super) fn each(&self, settled: bool, each: &mut impl FnMut(FrequencyKey, &Contact)) {
        for shard in &self.shards {
            for (key, contacts) in shard.lock().iter() {
                for contact in contacts {
                    if (contact.bid == SETTLED) == settled {
                        each(*key, contact);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
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
        let frequency = Frequency::new(1000);
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
    fn a_full_table_refuses_and_never_forgets() {
        let frequency = Frequency::new(SHARDS);
        let caps = [cap(1, 100, Scope::Advertiser)];
        let hold = |key, at| frequency.hold(key, &caps, Contact::held(at, at + 30, SCOPES, key));
        assert_eq!(hold(1, 1000), Ok(()));
        assert_eq!(hold(2, 1000), Err(NotHeld::Unknown), "its shard is full");
        assert_eq!(hold(1, 1001), Err(NotHeld::Capped));
        assert_eq!(hold(2, 1030), Ok(()), "what is over makes room");
        assert_eq!(frequency.keys(), 1);
    }

    #[test]
    fn whoever_is_in_a_shard_makes_a_cap_unknown() {
        let frequency = Frequency::new(1000);
        frequency.settle(5, None, Contact::settled(0, 9, SCOPES), 0);
        let inside = frequency.shards[0].lock();
        assert!(frequency.copy(5, 0, &mut Vec::new()).is_none());
        assert!(frequency.may_have(5) && !frequency.may_have(5 << 24));
        let held = frequency.hold(5, &[], Contact::held(1, 2, SCOPES, 1));
        assert_eq!(held, Err(NotHeld::Unknown));
        drop(inside);
        assert!(frequency.copy(5, 0, &mut Vec::new()).is_some());
    }

    #[test]
    fn threads_that_bid_at_once_share_the_places() {
        let frequency = Frequency::new(1000);
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
            let frequency = Frequency::new(1000);
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
    }
}
