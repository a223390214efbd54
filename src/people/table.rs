//! What bid threads read of people: a table that one thread writes and all others read without ever waiting.
//!
//! A key has a *tag* in a bucket (its lower 64 bits, in one cache line with six others) and beside it a *value*: flags, and the
//! first of the *leaves* in which stand what there is to say of it. Nearly all keys of requests are not here, and that is
//! told by the bucket's first line alone, which can be asked for ahead.
//!
//! The writer never changes a leaf that can be reached: it writes new ones and then stores the value, in one step. What is replaced is
//! kept for [`REST_MS`] before it is written on again, and every leaf has most of the other half of its key in it and how often it was
//! written on, by which a reader that was kept away for longer than that sees that it is another by now and begins anew. So no reader waits for a writer that
//! the scheduler took the processor from, as it would behind any lock: dashmap, say, whose shards are locks.
//!
//! A bucket that is full sends its further keys to the next of the [`LEVELS`], which are made when they are needed. Nothing moves.
//!
//! Cost: 32 bytes a key at four of seven tags used, and 64 bytes for each three changes; a key that is not here costs a load of one
//! line from memory.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

use crate::clock::Timestamp;
use crate::ids::UserKey;
use crate::lines::{Pair, Pairs, prefetch_line};

/// Words of a line: seven tags or values, and one before them.
const LINE_WORDS: usize = 8;
/// How often a key may be sent on. Each level has twice as many buckets as the one before, but for the second, which takes what a good
/// spread leaves over.
const LEVELS: usize = 16;
/// Keys of a bucket for which the first level is made.
const KEYS_A_BUCKET: usize = 4;
/// How long a replaced leaf is left as it is, in milliseconds.
const REST_MS: i64 = 2_000;
/// How often a reader begins anew before it gives up: that a leaf was written on under its eyes means that it was kept away for
/// seconds.
const TRIES: usize = 8;
/// Words of a leaf, two of which are in a pair.
const LEAF_WORDS: usize = LINE_WORDS;
const LEAVES_A_PAIR: usize = 2;
/// Words of a leaf between its key and what is next.
const BODY_WORDS: usize = 6;
/// Changes that stand in a leaf, and members.
const CHANGES_A_LEAF: usize = 3;
/// Most leaves of one key.
pub(super) const LEAVES_MAX: usize = 96;

/// What is said of a key before its leaves are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// It was erased: it is nobody's any more.
    pub erased: bool,
    /// Whoever it is does not want to be known.
    pub opted_out: bool,
}

const ERASED: u64 = 1 << 61;
const OPTED_OUT: u64 = 1 << 62;
const LEAF: u64 = u32::MAX as u64;

/// That an id came into a segment or left it, or left all segments of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Of the segment, or of the dataset as a whole.
    pub number: u32,
    /// Into it; else out of it.
    pub add: bool,
    /// When it is over, in seconds since 1970.
    pub expires: u32,
    /// Which of two changes is the later one.
    pub rank: u64,
}

const ADD: u64 = 1 << 63;

impl Change {
    fn words(self) -> [u64; 2] {
        let add = if self.add { ADD } else { 0 };
        let first = u64::from(self.number) | u64::from(self.expires).wrapping_shl(32);
        [first, self.rank & !ADD | add]
    }

    fn of(first: u64, second: u64) -> Self {
        Self {
            number: first as u32,
            expires: first.wrapping_shr(32) as u32,
            rank: second & !ADD,
            add: second & ADD != 0,
        }
    }
}

/// Hears what stands in a key's leaves.
pub(crate) trait Reader {
    /// Whatever was heard of this key before does not count: it is read again.
    fn begin(&mut self);
    /// A change.
    fn change(&mut self, change: Change);
    /// Whose id it is, until then.
    fn person(&mut self, person: UserKey, expires: u32);
    /// An id of this person, until then.
    fn member(&mut self, id: UserKey, expires: u32);
}

/// All that is said of a key, for the writer.
#[derive(Debug, Default)]
pub(super) struct Said<'s> {
    pub(super) standing: Standing,
    pub(super) changes: &'s [Change],
    pub(super) person: Option<(UserKey, u32)>,
    pub(super) members: &'s [(UserKey, u32)],
}

impl Said<'_> {
    /// How many leaves that takes.
    pub(super) fn leaves(&self) -> usize {
        let changes = self.changes.len().div_ceil(CHANGES_A_LEAF);
        let links = usize::from(self.person.is_some()).saturating_add(self.members.len());
        changes.saturating_add(links)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Changes = 0,
    Person = 1,
    Member = 2,
}

/// A leaf's last word: the place of the next, what it holds and how many.
fn tail(next: u64, kind: Kind, count: usize) -> u64 {
    next | (kind as u64).wrapping_shl(32) | (count as u64).wrapping_shl(40)
}

/// The readers' side.
#[derive(Debug)]
pub(crate) struct Table {
    levels: [OnceLock<Pairs>; LEVELS],
    leaves: Pairs,
    /// Keys that are in it.
    keys: AtomicUsize,
}

impl Table {
    /// With room for about so many keys, and for so many leaves. Memory is taken as it is used. The error is the system's.
    pub(super) fn new(keys: usize, leaves: usize) -> io::Result<Self> {
        let table = Self {
            levels: Default::default(),
            leaves: Pairs::zeroed(leaves.div_ceil(LEAVES_A_PAIR))?,
            keys: AtomicUsize::new(0),
        };
        if let Some(first) = table.levels.first() {
            let _ = first.set(Pairs::zeroed(keys.div_ceil(KEYS_A_BUCKET).max(1))?);
        }
        Ok(table)
    }

    /// With room for nobody.
    pub(super) fn none() -> Self {
        Self {
            levels: Default::default(),
            leaves: Pairs::none(),
            keys: AtomicUsize::new(0),
        }
    }

    /// How many keys there is something to say of.
    pub(crate) fn keys(&self) -> usize {
        self.keys.load(Acquire)
    }

    /// Has a key's bucket at hand soon.
    #[inline]
    pub(crate) fn prefetch(&self, key: UserKey) {
        // The other line of the bucket is read only where the key is there.
        if let Some(Pair([head, ..])) = self.bucket(0, key) {
            prefetch_line(head);
        }
    }

    #[inline(always)]
    fn bucket(&self, level: usize, key: UserKey) -> Option<&Pair> {
        let pairs = self.levels.get(level)?.get()?;
        let upper = (key.0 >> 64) as u64;
        let turned = upper.rotate_left(11u32.wrapping_mul(level as u32));
        let place = (u128::from(turned)).wrapping_mul(pairs.len() as u128) >> 64;
        pairs.get(place as usize)
    }

    /// A key's bucket and its place there.
    #[inline]
    fn find(&self, key: UserKey) -> Option<(&Pair, usize)> {
        let tag = tag(key);
        for level in 0..LEVELS {
            let pair = self.bucket(level, key)?;
            let (tags, _) = halves(pair);
            let place = tags.iter().position(|word| word.load(Acquire) == tag);
            if let Some(place) = place {
                return Some((pair, place));
            }
            let [head, ..] = &pair.0;
            if head.load(Acquire) == 0 {
                return None;
            }
        }
        None
    }

    /// A key's value; 0 where it has none.
    #[inline]
    fn value(&self, key: UserKey) -> u64 {
        let wanted = tag(key);
        for level in 0..LEVELS {
            let Some(pair) = self.bucket(level, key) else {
                return 0;
            };
            // Most keys of requests come so far and no further: over arrays, whose length the compiler knows.
            let Some(([head, tags @ ..], [_, values @ ..])) = lines(pair) else {
                return 0;
            };
            for (tag, value) in tags.iter().zip(values) {
                if tag.load(Acquire) == wanted {
                    let value = value.load(Acquire);
                    // Between the two loads it may have been taken away, and another key put in its place.
                    return if tag.load(Acquire) == wanted {
                        value
                    } else {
                        0
                    };
                }
            }
            if head.load(Acquire) == 0 {
                return 0;
            }
        }
        0
    }

    /// The first of two steps of reading: what stands in the key's bucket. Has the first leaf at hand soon.
    #[inline]
    pub(crate) fn approach(&self, key: UserKey) -> Approached {
        let value = self.value(key);
        let at = value & LEAF;
        if at != 0
            && let Some([head, ..]) = self.leaf(at)
        {
            prefetch_line(head);
        }
        Approached { value }
    }

    /// What is said of a key; nothing where that is nothing. The reader hears the rest of it.
    #[inline]
    pub(crate) fn read(&self, key: UserKey, reader: &mut impl Reader) -> Option<Standing> {
        let approached = Approached {
            value: self.value(key),
        };
        self.read_at(key, approached, reader)
    }

    /// The second step: as [`read`](Self::read).
    #[inline]
    pub(crate) fn read_at(
        &self,
        key: UserKey,
        approached: Approached,
        reader: &mut impl Reader,
    ) -> Option<Standing> {
        let Approached { mut value } = approached;
        for _ in 0..TRIES {
            if value == 0 {
                return None;
            }
            if self.walk(key, value, reader).is_some() {
                return Some(Standing {
                    erased: value & ERASED != 0,
                    opted_out: value & OPTED_OUT != 0,
                });
            }
            value = self.value(key);
        }
        // It cannot be told, so nobody is known by it now.
        reader.begin();
        Some(Standing {
            erased: true,
            opted_out: false,
        })
    }

    /// Reads a key's leaves; nothing where they are not those of this value any more.
    fn walk(&self, key: UserKey, value: u64, reader: &mut impl Reader) -> Option<()> {
        reader.begin();
        let mut at = value & LEAF;
        let mut first = None;
        for place in 0..=LEAVES_MAX {
            if at == 0 {
                // Each leaf was whole. Were all of one value? They were unless it was replaced meanwhile; and if by one that begins in
                // the same leaf, that was written on.
                let is_one = place < 2
                    || first.is_some_and(|(owner, owned): (&AtomicU64, u64)| {
                        self.value(key) == value && owner.load(Acquire) == owned
                    });
                return is_one.then_some(());
            }
            let [owner, body @ .., last] = self.leaf(at)?;
            let owned = owner.load(Acquire);
            if owned & OWNER != check(key) {
                return None;
            }
            first = first.or(Some((owner, owned)));
            let mut words = [0u64; BODY_WORDS];
            for (word, from) in words.iter_mut().zip(body) {
                *word = from.load(Relaxed);
            }
            let last = last.load(Relaxed);
            fence(Acquire);
            if owner.load(Relaxed) != owned {
                return None;
            }
            let count = last.wrapping_shr(40) as usize & 0xff;
            let [a, b, c, ..] = words;
            let other = UserKey(u128::from(a) | u128::from(b) << 64);
            match last.wrapping_shr(32) & 0xff {
                kind if kind == Kind::Changes as u64 => {
                    let (pairs, _) = words.as_chunks::<2>();
                    for [first, second] in pairs.iter().take(count) {
                        reader.change(Change::of(*first, *second));
                    }
                }
                kind if kind == Kind::Person as u64 => reader.person(other, c as u32),
                _ => reader.member(other, c as u32),
            }
            at = last & LEAF;
        }
        None
    }

    fn leaf(&self, at: u64) -> Option<&[AtomicU64; LEAF_WORDS]> {
        let (pair, half) = leaf_place(at);
        let (leaves, _) = self.leaves.get(pair)?.0.as_chunks::<LEAF_WORDS>();
        leaves.get(half)
    }
}

/// In which pair a leaf is, and which of its halves; nowhere where it is none.
fn leaf_place(at: u64) -> (usize, usize) {
    let place = usize::try_from(at.wrapping_sub(1)).unwrap_or(usize::MAX);
    (place / LEAVES_A_PAIR, place % LEAVES_A_PAIR)
}

/// A key's value as it was a moment ago.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Approached {
    value: u64,
}

impl Approached {
    /// Whether nothing was said of the key.
    #[inline]
    pub(crate) fn is_nothing(self) -> bool {
        self.value == 0
    }
}

fn tag(key: UserKey) -> u64 {
    (key.0 as u64).max(1)
}

/// Of a leaf's first word: whose it is. The other bits count how often it was written on.
const OWNER: u64 = (1 << 48) - 1;

/// Most of the other half, as it stands in leaves; 0 is that of none.
fn check(key: UserKey) -> u64 {
    ((key.0 >> 64) as u64 & OWNER).max(1)
}

type Line = [AtomicU64; LINE_WORDS];

/// A bucket's two lines, which are always there: whether it was ever too full, and the tags; a word that is not used, and the values.
#[inline(always)]
fn lines(pair: &Pair) -> Option<(&Line, &Line)> {
    let (first, second) = (pair.0.first_chunk(), pair.0.last_chunk());
    first.zip(second)
}

fn halves(pair: &Pair) -> (&[AtomicU64], &[AtomicU64]) {
    match lines(pair) {
        Some(([_, tags @ ..], [_, values @ ..])) => (tags, values),
        None => (&[], &[]),
    }
}

/// There is no room for so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

/// The writer's side: one a table.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Leaves that were never written on begin here.
    fresh: u64,
    free: Vec<u64>,
    /// Replaced, and when.
    resting: VecDeque<(i64, u64)>,
}

impl Writer {
    /// Leaves that can be written on now or soon.
    pub(super) fn room(&self, table: &Table) -> usize {
        let all = table.leaves.len().saturating_mul(LEAVES_A_PAIR);
        let fresh = all.saturating_sub(usize::try_from(self.fresh).unwrap_or(usize::MAX));
        fresh
            .saturating_add(self.free.len())
            .saturating_add(self.resting.len())
    }

    /// Puts in place of what was said of a key what is said now, in one step. Where there is no room nothing changes.
    pub(super) fn set(
        &mut self,
        table: &Table,
        key: UserKey,
        said: &Said<'_>,
        now: Timestamp,
    ) -> Result<(), NoRoom> {
        let before = table.value(key) & LEAF;
        let first = self.write(table, key, said, now)?;
        let Standing { erased, opted_out } = said.standing;
        let mut value = first;
        value |= if erased { ERASED } else { 0 };
        value |= if opted_out { OPTED_OUT } else { 0 };
        self.store(table, key, value)?;
        self.rest(table, before, now);
        Ok(())
    }

    fn store(&self, table: &Table, key: UserKey, value: u64) -> Result<(), NoRoom> {
        if let Some((pair, place)) = table.find(key) {
            let (tags, values) = halves(pair);
            let (Some(tag), Some(to)) = (tags.get(place), values.get(place)) else {
                return Err(NoRoom);
            };
            to.store(value, Release);
            if value == 0 {
                tag.store(0, Release);
                table.keys.fetch_sub(1, Release);
            }
            return Ok(());
        }
        if value == 0 {
            return Ok(());
        }
        for level in 0..LEVELS {
            let pair = match table.bucket(level, key) {
                Some(pair) => pair,
                None => {
                    make_level(table, level)?;
                    table.bucket(level, key).ok_or(NoRoom)?
                }
            };
            let (tags, values) = halves(pair);
            let free = tags.iter().position(|word| word.load(Relaxed) == 0);
            let free = free.and_then(|place| tags.get(place).zip(values.get(place)));
            if let Some((tag_word, to)) = free {
                to.store(value, Release);
                tag_word.store(tag(key), Release);
                table.keys.fetch_add(1, Release);
                return Ok(());
            }
            let [head, ..] = &pair.0;
            head.store(1, Release);
        }
        Err(NoRoom)
    }

    /// Writes leaves that nobody can reach yet; the first one's place and one, 0 where there are none.
    fn write(
        &mut self,
        table: &Table,
        key: UserKey,
        said: &Said<'_>,
        now: Timestamp,
    ) -> Result<u64, NoRoom> {
        if said.leaves() > LEAVES_MAX {
            return Err(NoRoom);
        }
        let mut next = 0;
        let link = |(other, expires): (UserKey, u32)| {
            let words = [other.0 as u64, (other.0 >> 64) as u64, u64::from(expires)];
            let [a, b, c] = words;
            [a, b, c, 0, 0, 0]
        };
        let members = said.members.iter().map(|of| (Kind::Member, 1, link(*of)));
        let person = said.person.iter().map(|of| (Kind::Person, 1, link(*of)));
        let changes = said.changes.chunks(CHANGES_A_LEAF).map(|some| {
            let mut words = [0u64; BODY_WORDS];
            let (pairs, _) = words.as_chunks_mut::<2>();
            for (pair, change) in pairs.iter_mut().zip(some) {
                *pair = change.words();
            }
            (Kind::Changes, some.len(), words)
        });
        for (kind, count, words) in members.chain(person).chain(changes) {
            let Some(at) = self.take(table, now) else {
                self.give_back(table, next);
                return Err(NoRoom);
            };
            let Some([owner, body @ .., last]) = table.leaf(at) else {
                return Err(NoRoom);
            };
            // Whoever still reads what stood here sees that it is nobody's before any of it changes.
            let uses = owner.load(Relaxed).wrapping_add(OWNER).wrapping_add(1) & !OWNER;
            owner.store(uses, Relaxed);
            fence(Release);
            for (to, word) in body.iter().zip(words) {
                to.store(word, Relaxed);
            }
            last.store(tail(next, kind, count), Relaxed);
            owner.store(uses | check(key), Release);
            next = at;
        }
        Ok(next)
    }

    fn take(&mut self, table: &Table, now: Timestamp) -> Option<u64> {
        while let Some((since, at)) = self.resting.front().copied() {
            // A clock that was set back must not keep them for ever.
            if (0..REST_MS).contains(&now.unix_ms.saturating_sub(since)) {
                break;
            }
            self.resting.pop_front();
            self.free.push(at);
        }
        if let Some(at) = self.free.pop() {
            return Some(at);
        }
        let at = self.fresh.checked_add(1)?;
        table.leaf(at)?;
        self.fresh = at;
        Some(at)
    }

    /// Leaves that nobody ever reached.
    fn give_back(&mut self, table: &Table, mut at: u64) {
        while let Some([.., last]) = table.leaf(at) {
            self.free.push(at);
            at = last.load(Relaxed) & LEAF;
        }
    }

    fn rest(&mut self, table: &Table, mut at: u64, now: Timestamp) {
        while let Some([.., last]) = table.leaf(at) {
            self.resting.push_back((now.unix_ms, at));
            at = last.load(Relaxed) & LEAF;
        }
    }
}

fn make_level(table: &Table, level: usize) -> Result<(), NoRoom> {
    let first = table.levels.first().and_then(OnceLock::get).ok_or(NoRoom)?;
    let buckets = match level {
        0 | 1 => first.len().div_ceil(4),
        _ => {
            let twice = u32::try_from(level).unwrap_or(u32::MAX).saturating_sub(2);
            first.len().checked_shl(twice).ok_or(NoRoom)?
        }
    };
    let pairs = Pairs::zeroed(buckets.max(1)).map_err(|_| NoRoom)?;
    let of = table.levels.get(level).ok_or(NoRoom)?;
    let _ = of.set(pairs);
    Ok(())
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default, Clone, PartialEq)]
    struct Heard {
        changes: Vec<Change>,
        person: Option<(UserKey, u32)>,
        members: Vec<(UserKey, u32)>,
    }

    impl Reader for Heard {
        fn begin(&mut self) {
            *self = Self::default();
        }
        fn change(&mut self, change: Change) {
            self.changes.push(change);
        }
        fn person(&mut self, person: UserKey, expires: u32) {
            self.person = Some((person, expires));
        }
        fn member(&mut self, id: UserKey, expires: u32) {
            self.members.push((id, expires));
        }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    fn key(n: u64) -> UserKey {
        // Few upper halves, so that buckets run over.
        UserKey(u128::from(n + 2) | u128::from(n % 5) << 125)
    }

    fn change(number: u32, rank: u64) -> Change {
        Change {
            number,
            add: rank.is_multiple_of(2),
            expires: number.wrapping_add(7),
            rank,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_says_what_a_map_says(
            steps in proptest::collection::vec((0u64..40, 0usize..9, 0usize..4, any::<bool>(), any::<bool>(), 0i64..3_000), 1..300)
        ) {
            let table = Table::new(8, 4_000).expect("memory");
            let (mut writer, mut map) = (Writer::default(), HashMap::new());
            let mut now = 0;
            for (n, changes, members, linked, erased, passed) in steps {
                now += passed;
                let said: Vec<Change> = (0..changes).map(|i| change(i as u32, n + i as u64)).collect();
                let members: Vec<(UserKey, u32)> = (0..members).map(|i| (key(100 + i as u64), 9)).collect();
                let person = linked.then_some((key(1_000 + n), 5));
                let standing = Standing { erased, opted_out: false };
                let all = Said { standing, changes: &said, person, members: &members };
                writer.set(&table, key(n), &all, at(now)).expect("room");
                map.insert(n, (standing, said, person, members));
                for n in 0..40 {
                    let mut heard = Heard::default();
                    let read = table.read(key(n), &mut heard);
                    let want = map.get(&n).filter(|(standing, changes, person, members)| {
                        standing.erased || !changes.is_empty() || person.is_some() || !members.is_empty()
                    });
                    prop_assert_eq!(read, want.map(|want| want.0));
                    if let Some((_, changes, person, members)) = want {
                        heard.changes.sort_by_key(|change| change.number);
                        heard.members.sort_unstable();
                        prop_assert_eq!((&heard.changes, &heard.person, &heard.members), (changes, person, members));
                    }
                }
                let there = map.values().filter(|(standing, changes, person, members)| {
                    standing.erased || !changes.is_empty() || person.is_some() || !members.is_empty()
                });
                prop_assert_eq!(table.keys(), there.count());
            }
        }
    }

    #[test]
    fn what_has_no_room_changes_nothing() {
        let table = Table::new(4, 4).expect("memory");
        let mut writer = Writer::default();
        let some: Vec<Change> = (0..6).map(|n| change(n, 1)).collect();
        let said = |changes| Said {
            changes,
            ..Said::default()
        };
        let mut set =
            |n, count: usize, ms| writer.set(&table, key(n), &said(&some[..count]), at(ms));
        set(1, 6, 0).expect("two leaves");
        set(2, 6, 0).expect("two more");
        assert_eq!(set(3, 1, 0), Err(NoRoom));
        // A replacement needs its leaves beside what it replaces, until that has rested.
        assert_eq!(set(1, 3, 0), Err(NoRoom));
        let mut heard = Heard::default();
        table.read(key(1), &mut heard).expect("there");
        assert_eq!(heard.changes.len(), 6);
        set(1, 0, 0).expect("takes nothing");
        assert_eq!(set(3, 3, 1_999), Err(NoRoom));
        set(3, 6, 2_000).expect("has rested");
    }

    /// Readers beside a writer that replaces everything all the time see a whole value, old or new, and never none.
    #[test]
    fn readers_see_whole_values_while_they_are_replaced() {
        let table = Arc::new(Table::new(64, 40_000).expect("memory"));
        let stop = Arc::new(AtomicBool::new(false));
        let mut writer = Writer::default();
        let mut put = |n: u64, round: u64, now: i64| {
            let changes: Vec<Change> = (0..5).map(|i| change(i, round)).collect();
            let said = Said {
                changes: &changes,
                ..Said::default()
            };
            // Without a rest, so that leaves are written on at once.
            writer.set(&table, key(n), &said, at(now)).expect("room");
        };
        (0..30).for_each(|n| put(n, 0, 0));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (table, stop) = (Arc::clone(&table), Arc::clone(&stop));
                std::thread::spawn(move || {
                    let mut reads = 0u64;
                    // Once at least, however late it gets to run.
                    loop {
                        for n in 0..30 {
                            let mut heard = Heard::default();
                            let standing = table.read(key(n), &mut heard).expect("always there");
                            if standing.erased {
                                continue;
                            }
                            assert_eq!(heard.changes.len(), 5);
                            let rank = heard.changes[0].rank;
                            assert!(heard.changes.iter().all(|change| change.rank == rank));
                            reads += 1;
                        }
                        if stop.load(Relaxed) {
                            break;
                        }
                    }
                    reads
                })
            })
            .collect();
        for round in 1..6_000u64 {
            put(round % 30, round, round as i64 * REST_MS);
        }
        stop.store(true, Relaxed);
        for reader in readers {
            assert!(reader.join().expect("no torn read") > 0);
        }
    }
}
