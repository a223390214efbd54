//! The sample: for each bid thread a share of a fixed number of places, behind a lock that the bid thread only tries.
//!
//! Why a share a thread: nobody else puts into it, so that the lock is free but while a comparison copies one request out of
//! it, or somebody is forgotten. A request that comes just then is dropped, and counted. Places are bytes made at the start;
//! putting a request in copies into them.
//!
//! Until a share is full a request is taken each millisecond. Then one comes into a place drawn by lot, so seldom that requests
//! stay for [`STAY`] on average, more of them for less. What is [`AGE_MAX`] old is blanked.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::reservoir::{Reservoir, Turn};
use crate::clock::Timestamp;
use crate::ids::UserKey;
use crate::privacy::Open;

/// What a request may take, its person's keys included; a longer one is not sampled.
pub const REQUEST_BYTES: usize = 8 << 10;
/// How long a request is kept.
pub const AGE_MAX: Duration = Duration::from_secs(3600);

/// A slice of time of which one request is taken, while there are empty places.
const FILLING_SLICE: Duration = Duration::from_millis(1);
/// How long a request stays on average once there are none, where there is always a next one.
const STAY: Duration = Duration::from_secs(900);
/// Places looked at in a tick for what is too old: a share of 1,000 is gone through in four seconds.
const AGED_A_TICK: usize = 64;
const KEY_BYTES: usize = size_of::<u128>();

/// The requests of all bid threads.
#[derive(Debug)]
pub struct Sample {
    shares: Box<[Arc<Share>]>,
}

#[derive(Debug)]
struct Share {
    kept: Mutex<Kept>,
    places: usize,
    /// How many places are taken.
    held: AtomicUsize,
    /// Requests that came while somebody else had the lock.
    busy: AtomicU64,
    /// Requests that were too long.
    long: AtomicU64,
}

struct Kept {
    places: Box<[Place]>,
    /// [`REQUEST_BYTES`] for each place: keys, then the request. Zero but for what the place says.
    bytes: Box<[u8]>,
    /// Where the next look for an empty place, or for an old one, begins.
    next_empty: usize,
    next_aged: usize,
    /// How many places are taken.
    held: usize,
}

impl std::fmt::Debug for Kept {
    /// Without what is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

/// What a place holds.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// None where it is empty.
    of: Option<Of>,
    /// Bytes of keys.
    keys: usize,
    /// Bytes of keys and request.
    length: usize,
}

/// Of which request it is.
#[derive(Debug, Clone, Copy)]
struct Of {
    at: Timestamp,
    exchange: usize,
    leave: Open,
}

/// One request of the sample, copied out of it.
#[derive(Debug)]
pub struct Taken {
    /// When it was decided on.
    pub at: Timestamp,
    /// The exchange's index.
    pub exchange: usize,
    /// What the gate said.
    pub leave: Open,
    /// The person.
    pub keys: Vec<UserKey>,
    /// The request, [abridged](crate::openrtb::abridge).
    pub request: Vec<u8>,
}

impl Sample {
    /// Places for so many requests, shared out among so many bid threads.
    pub fn new(requests: usize, threads: usize) -> Self {
        let threads = threads.max(1);
        let places = requests.div_ceil(threads);
        let share = |_| {
            Arc::new(Share {
                kept: Mutex::new(Kept::new(places)),
                places,
                held: AtomicUsize::new(0),
                busy: AtomicU64::new(0),
                long: AtomicU64::new(0),
            })
        };
        let shares = if places == 0 { 0 } else { threads };
        Self {
            shares: (0..shares).map(share).collect(),
        }
    }

    /// What a bid thread puts requests in with; nothing where none are kept.
    pub fn sampler(&self, thread: usize) -> Option<Sampler> {
        let share = self.shares.get(thread.checked_rem(self.shares.len())?)?;
        let places = u32::try_from(share.places).unwrap_or(u32::MAX);
        Some(Sampler {
            share: Arc::clone(share),
            full_slice: STAY.checked_div(places)?,
            reservoir: Reservoir::new(),
            place: None,
            room: vec![0; REQUEST_BYTES].into(),
        })
    }

    /// Whether requests are kept at all.
    pub fn is_on(&self) -> bool {
        !self.shares.is_empty()
    }

    /// How many requests are held.
    pub fn held(&self) -> usize {
        let held = self.shares.iter().map(|share| share.held.load(Relaxed));
        held.fold(0, usize::saturating_add)
    }

    /// How many requests were to be taken and came while a comparison or an erasure had the lock.
    pub fn dropped_busy(&self) -> u64 {
        let busy = self.shares.iter().map(|share| share.busy.load(Relaxed));
        busy.fold(0, u64::saturating_add)
    }

    /// How many requests were to be taken and were too long.
    pub fn dropped_long(&self) -> u64 {
        let long = self.shares.iter().map(|share| share.long.load(Relaxed));
        long.fold(0, u64::saturating_add)
    }

    /// Shows each request that is not too old, until `then` says no. Each is copied out for itself, so that bid threads can
    /// put others in meanwhile.
    pub fn each(&self, now: Timestamp, mut then: impl FnMut(&Taken) -> bool) {
        let most = self.shares.first().map_or(0, |share| share.places);
        let both = (0..most).flat_map(|place| self.shares.iter().map(move |share| (share, place)));
        for (share, place) in both {
            let taken = share.lock().taken(place, now);
            if let Some(taken) = taken
                && !then(&taken)
            {
                return;
            }
        }
    }

    /// Takes out every request of somebody who has one of these keys; how many they were. A comparison under way may still
    /// have one of them, for as long as two decisions take.
    pub fn forget(&self, keys: &[UserKey]) -> usize {
        let mut forgotten = 0usize;
        for share in &self.shares {
            let mut kept = share.lock();
            for place in 0..share.places {
                if kept.keys(place).any(|key| keys.contains(&key)) {
                    kept.blank(place);
                    share.held.store(kept.held, Relaxed);
                    forgotten = forgotten.saturating_add(1);
                }
            }
        }
        forgotten
    }
}

#[cfg(test)]
impl Sample {
    /// All bytes of all places.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let all = self.shares.iter();
        all.flat_map(|share| share.lock().bytes.to_vec()).collect()
    }

    /// The first share's lock, as a comparison has it.
    pub(super) fn locked(&self) -> impl Drop + '_ {
        self.shares.first().expect("on").lock()
    }
}

impl Share {
    /// For who may wait, which a bid thread may not.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a bid thread: the lock, if it is free.
    fn try_lock(&self) -> Option<MutexGuard<'_, Kept>> {
        match self.kept.try_lock() {
            Ok(kept) => Some(kept),
            // A place is empty until it is whole, so that what a panic left is whole.
            Err(TryLockError::Poisoned(kept)) => Some(kept.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Kept {
    fn new(places: usize) -> Self {
        Self {
            places: vec![Place::default(); places].into(),
            // Memory that nobody has written to yet is the system's.
            bytes: vec![0; places.saturating_mul(REQUEST_BYTES)].into(),
            next_empty: 0,
            next_aged: 0,
            held: 0,
        }
    }

    /// A place and its bytes.
    fn place(&mut self, place: usize) -> Option<(&mut Place, &mut [u8])> {
        let start = place.checked_mul(REQUEST_BYTES)?;
        let end = start.checked_add(REQUEST_BYTES)?;
        Some((self.places.get_mut(place)?, self.bytes.get_mut(start..end)?))
    }

    /// The keys and the request of a place.
    fn parts(&self, place: usize) -> Option<(Of, &[u8], &[u8])> {
        let of = self.places.get(place)?;
        let start = place.checked_mul(REQUEST_BYTES)?;
        let bytes = self.bytes.get(start..start.checked_add(of.length)?)?;
        let (keys, request) = bytes.split_at_checked(of.keys)?;
        Some((of.of?, keys, request))
    }

    fn keys(&self, place: usize) -> impl Iterator<Item = UserKey> + '_ {
        let keys = self.parts(place).map_or(&[][..], |(_, keys, _)| keys);
        let (keys, _) = keys.as_chunks::<KEY_BYTES>();
        keys.iter().map(|key| UserKey(u128::from_le_bytes(*key)))
    }

    fn taken(&self, place: usize, now: Timestamp) -> Option<Taken> {
        let (of, _, request) = self.parts(place)?;
        (!of.is_old(now)).then(|| Taken {
            at: of.at,
            exchange: of.exchange,
            leave: of.leave,
            keys: self.keys(place).collect(),
            request: request.to_vec(),
        })
    }

    /// Overwrites what a place holds.
    fn blank(&mut self, place: usize) {
        let Some((of, bytes)) = self.place(place) else {
            return;
        };
        let was = std::mem::take(of);
        if let Some(used) = bytes.get_mut(..was.length) {
            used.fill(0);
        }
        if was.of.is_some() {
            self.held = self.held.saturating_sub(1);
        }
    }

    /// Puts a request into a place, over what was there.
    fn put(&mut self, place: usize, of: Of, keys: &[UserKey], request: &[u8]) {
        self.blank(place);
        let Some((held, bytes)) = self.place(place) else {
            return;
        };
        let keys_length = keys.len().saturating_mul(KEY_BYTES);
        let Some((room, left)) = bytes.split_at_mut_checked(keys_length) else {
            return;
        };
        let (room, _) = room.as_chunks_mut::<KEY_BYTES>();
        for (room, key) in room.iter_mut().zip(keys) {
            *room = key.0.to_le_bytes();
        }
        if let Some(room) = left.get_mut(..request.len()) {
            room.copy_from_slice(request);
            *held = Place {
                of: Some(of),
                keys: keys_length,
                length: keys_length.saturating_add(request.len()),
            };
            self.held = self.held.saturating_add(1);
        }
    }

    /// The next empty place.
    fn empty(&mut self) -> Option<usize> {
        let count = self.places.len();
        for _ in 0..count {
            let place = self.next_empty;
            self.next_empty = place.saturating_add(1).checked_rem(count)?;
            if self.places.get(place)?.of.is_none() {
                return Some(place);
            }
        }
        None
    }
}

impl Of {
    fn is_old(&self, now: Timestamp) -> bool {
        let age = now.unix_ms.saturating_sub(self.at.unix_ms);
        u128::try_from(age).is_ok_and(|age| age >= AGE_MAX.as_millis())
    }
}

/// One bid thread's way into its share.
#[derive(Debug)]
pub struct Sampler {
    share: Arc<Share>,
    /// A slice of time of which one request is taken, once there are no empty places.
    full_slice: Duration,
    reservoir: Reservoir,
    /// The place of this slice's request.
    place: Option<usize>,
    /// Where a request is written before the lock is tried.
    room: Box<[u8]>,
}

/// A request's turn: to be [put](Sampler::put).
#[derive(Debug)]
pub struct Wanted {
    first: bool,
}

impl Sampler {
    /// Whether the request that was decided on now is to be put in. To be asked of every one that may be.
    #[inline]
    pub fn wants(&mut self, now: Instant) -> Option<Wanted> {
        let full = self.share.held.load(Relaxed) >= self.share.places;
        let slice = if full { self.full_slice } else { FILLING_SLICE };
        match self.reservoir.turn(now, slice) {
            Turn::Pass => None,
            Turn::First => Some(Wanted { first: true }),
            Turn::Instead => Some(Wanted { first: false }),
        }
    }

    /// Puts a request in that `write` writes, if there is room and the lock is free: a copy of some kilobytes.
    pub fn put(
        &mut self,
        wanted: Wanted,
        at: Timestamp,
        exchange: usize,
        leave: Open,
        keys: &[UserKey],
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        if wanted.first {
            self.place = None;
        }
        let share = &*self.share;
        let length = self.room.len().saturating_sub(size_of_val(keys));
        let written = self.room.get_mut(..length).and_then(write);
        let Some(request) = written.and_then(|length| self.room.get(..length)) else {
            count(&share.long);
            self.room.fill(0);
            return;
        };
        let Some(mut kept) = share.try_lock() else {
            count(&share.busy);
            self.room.fill(0);
            return;
        };
        let random = || {
            let random = usize::try_from(self.reservoir.random() >> 32).unwrap_or(0);
            random.checked_rem(share.places)
        };
        let place = self.place.or_else(|| kept.empty()).or_else(random);
        self.place = place;
        if let Some(place) = place {
            let of = Of {
                at,
                exchange,
                leave,
            };
            kept.put(place, of, keys, request);
            share.held.store(kept.held, Relaxed);
        }
        drop(kept);
        self.room.fill(0);
    }

    /// Blanks what has become too old, a few places at a time.
    pub fn tick(&mut self, now: Timestamp) {
        let share = &*self.share;
        let Some(mut kept) = share.try_lock() else {
            return;
        };
        for _ in 0..AGED_A_TICK.min(share.places) {
            let place = kept.next_aged;
            let next = place.saturating_add(1).checked_rem(share.places);
            kept.next_aged = next.unwrap_or(0);
            let is_old = kept.parts(place).is_some_and(|(of, ..)| of.is_old(now));
            if is_old {
                kept.blank(place);
                share.held.store(kept.held, Relaxed);
            }
        }
    }
}

/// Adds one; only the owning bid thread does.
fn count(count: &AtomicU64) {
    count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
}
