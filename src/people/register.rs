//! What is held of people: a state machine without I/O, on the one thread that changes it.
//!
//! Of an id and a segment (or a dataset as a whole, where a row `set`s it) there is one *opinion* a writer: the one with the highest
//! sequence number of the writer's own, or the latest received where none was given. Of the opinions that are neither over nor covered
//! by a version the latest received counts, whatever it was that came before it. So nothing depends on when what is over is thrown
//! away, nor on the order in which a writer's rows arrive.
//!
//! Each act says again what it says when it is applied twice, or to a state that has later acts in it already: a checkpoint is
//! written while acts come in, and what came since is replayed over it.
//!
//! Cost: some 150 bytes an id with one opinion, beside what the [table](super::table) takes.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod links;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::Known;
use super::acts::{Act, Rejection, Update};
use super::table::{Change, NoRoom, Said, Standing, Writer};
use crate::clock::Timestamp;
use crate::ids::UserKey;

/// Most opinions of one id.
pub(super) const OPINIONS_MAX: usize = 64;
/// And so many more that only suppress: whoever has many is not to be pursued for that.
pub(super) const SUPPRESSIONS_MAX: usize = 64;
/// Who gives no sequence number of his own.
pub(super) const NOBODY: u32 = 0;

/// How much there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Ids with updates or links; suppression may use all of it, other updates nine tenths.
    pub ids: usize,
    /// Ids of one person.
    pub ids_per_person: usize,
    /// Of them, of one source.
    pub ids_per_source: usize,
    /// How long a writer's rows may come in another order than that of their numbers, in seconds.
    pub order_seconds: i64,
}

/// An opinion of an id and a segment, or a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opinion {
    pub(super) number: u32,
    pub(super) writer: u32,
    /// Seconds since 1970.
    pub(super) expires: u32,
    pub(super) add: bool,
    /// The writer's number, or ours.
    pub(super) seq: u64,
    /// Ours: when it was received, among all.
    pub(super) rank: u64,
}

/// A link of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Linked {
    pub(super) person: UserKey,
    pub(super) source: u32,
    pub(super) expires: u32,
    pub(super) rank: u64,
}

/// All that is held of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) key: UserKey,
    pub(super) standing: Standing,
    pub(super) opinions: Vec<Opinion>,
    /// Whose id it is; nobody's, where it was unlinked.
    pub(super) link: Option<Linked>,
    /// Of a person: whose links say so.
    pub(super) members: Vec<UserKey>,
    /// Whether it is counted as one of which there is a mark and nothing else.
    is_bare: bool,
}

impl Held {
    fn new(key: UserKey) -> Self {
        Self {
            key,
            standing: Standing::default(),
            opinions: Vec::new(),
            link: None,
            members: Vec::new(),
            is_bare: false,
        }
    }

    fn is_mark(&self) -> bool {
        self.opinions.is_empty()
            && self.link.is_none()
            && self.members.is_empty()
            && self.standing != Standing::default()
    }

    fn is_nothing(&self) -> bool {
        self.standing == Standing::default()
            && self.opinions.is_empty()
            && self.link.is_none()
            && self.members.is_empty()
    }
}

/// Of a keyed hash, which nobody can choose.
#[derive(Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<8>();
        for word in words {
            self.0 = self.0.rotate_left(5) ^ u64::from_le_bytes(*word);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64 ^ (key >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// How far a writer's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Floor {
    /// The highest.
    pub(super) highest: u64,
    /// The highest at the last turn.
    pub(super) turned: u64,
    /// And at the one before: what is not above it comes too late.
    pub(super) floor: u64,
}

/// What there is, in figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Opinions held.
    pub changes: usize,
    /// Ids that are linked.
    pub links: usize,
    /// Keys that were erased.
    pub erased: usize,
    /// Keys that opted out.
    pub opted_out: usize,
}

/// Which ids some version says are a person's, with their sources.
pub(super) type IdsOf<'a> = &'a dyn Fn(UserKey) -> Vec<(UserKey, u32)>;

#[derive(Debug)]
pub(super) struct Register {
    known: Arc<Known>,
    room: Room,
    slab: Vec<Held>,
    index: HashMap<UserKey, u32, BuildHasherDefault<KeyHasher>>,
    free: Vec<u32>,
    /// Places whose table entry is behind.
    dirty: Vec<u32>,
    writer: Writer,
    counts: Counts,
    /// Keys of which there is a mark and nothing else.
    bare: usize,
    sequence: u64,
    /// By dataset and writer: who may write to one must not push another's rows of a namesake out of order.
    floors: BTreeMap<(u32, u32), Floor>,
    turned: Option<i64>,
    swept: usize,
    /// The earliest opinion of the last sweep, and of the one under way.
    oldest: Option<u64>,
    oldest_so_far: Option<u64>,
}

impl Register {
    pub(super) fn new(known: Arc<Known>, room: Room) -> Self {
        Self {
            known,
            room,
            slab: Vec::new(),
            index: HashMap::default(),
            free: Vec::new(),
            dirty: Vec::new(),
            writer: Writer::default(),
            counts: Counts::default(),
            bare: 0,
            sequence: 0,
            floors: BTreeMap::new(),
            turned: None,
            swept: 0,
            oldest: None,
            oldest_so_far: None,
        }
    }

    /// Of the last row.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Rows up to here were taken, whatever they said.
    pub(super) fn came_to(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// The number of the earliest opinion that is held, as of the last sweep.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.oldest
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Keys of which something is held.
    pub(super) fn keys(&self) -> usize {
        self.index.len()
    }

    /// Of these, those with more than a mark, as of the last time that all was told: who opted out or was erased takes nobody's room.
    fn in_use(&self) -> usize {
        self.index.len().saturating_sub(self.bare)
    }

    pub(super) fn floors(&self) -> &BTreeMap<(u32, u32), Floor> {
        &self.floors
    }

    pub(super) fn set_floor(&mut self, dataset: u32, writer: u32, floor: Floor) {
        self.floors.insert((dataset, writer), floor);
    }

    /// Places that may hold something.
    pub(super) fn places(&self) -> usize {
        self.slab.len()
    }

    /// What is held at a place.
    pub(super) fn at(&self, place: usize) -> Option<&Held> {
        self.slab.get(place).filter(|held| !held.is_nothing())
    }

    pub(super) fn held(&self, key: UserKey) -> Option<&Held> {
        self.at(usize::try_from(*self.index.get(&key)?).ok()?)
    }

    pub(super) fn standing(&self, key: UserKey) -> Standing {
        self.held(key).map_or(Standing::default(), |of| of.standing)
    }

    /// Whether a row may be taken.
    pub(super) fn check(&self, act: &Act, ids_of: IdsOf<'_>, now: i64) -> Result<(), Rejection> {
        match act {
            Act::Update(update) => self.check_update(update),
            Act::Link(link) => self.check_link(link, ids_of, now),
            Act::Unlink { key } if self.standing(*key).erased => Err(Rejection::Erased),
            Act::Unlink { .. } | Act::Erase { .. } | Act::OptOut { .. } => Ok(()),
        }
    }

    fn check_update(&self, update: &Update) -> Result<(), Rejection> {
        let held = self.held(update.key);
        if held.is_some_and(|held| held.standing.erased) {
            return Err(Rejection::Erased);
        }
        let none = Vec::new();
        let opinions = held.map_or(&none, |held| &held.opinions);
        let (writer, seq) = update.order.unwrap_or((NOBODY, u64::MAX));
        let of = |number: u32| {
            let mut all = opinions.iter();
            all.find(move |of| of.number == number && of.writer == writer)
        };
        let changed = update.changes.iter().map(|(number, _)| *number);
        let most = match update.suppresses {
            true => OPINIONS_MAX.saturating_add(SUPPRESSIONS_MAX),
            false => OPINIONS_MAX,
        };
        let mut numbers = changed.chain(update.sets.iter().copied());
        let floors = update.datasets(&self.known).filter_map(|dataset| {
            let floor = self.floors.get(&(dataset, writer))?;
            Some(floor.floor)
        });
        let floor = floors.max().unwrap_or(0);
        if floor > 0 && seq <= floor {
            // What is known already does no harm, however often it comes.
            let is_known = numbers.all(|number| of(number).is_some_and(|of| of.seq >= seq));
            return if is_known {
                Ok(())
            } else {
                Err(Rejection::Late)
            };
        }
        let fresh = numbers.filter(|number| of(*number).is_none()).count();
        if opinions.len().saturating_add(fresh) > most {
            return Err(Rejection::TooManyChanges);
        }
        self.has_room(held.is_none(), update.suppresses)
    }

    fn has_room(&self, for_key: bool, suppresses: bool) -> Result<(), Rejection> {
        let share = |all: usize| match suppresses {
            true => all,
            false => all.saturating_sub(all / 10),
        };
        let keys = self.in_use().saturating_add(usize::from(for_key));
        // Each that waits to be told may take some.
        let leaves = self.writer.room(&self.known.table);
        let leaves = leaves.saturating_sub(self.dirty.len().saturating_mul(4));
        let reserve = match suppresses {
            true => self.room.ids / 20,
            false => self.room.ids / 5,
        };
        match keys <= share(self.room.ids) && leaves > reserve {
            true => Ok(()),
            false => Err(Rejection::Full),
        }
    }

    /// Does what a row says, received as that number and at that second.
    pub(super) fn apply(&mut self, act: &Act, sequence: u64, at: i64) {
        self.sequence = self.sequence.max(sequence);
        match act {
            Act::Update(update) => self.update(update, sequence, at),
            Act::Link(link) => {
                let linked = Linked {
                    person: link.person,
                    source: link.source,
                    expires: until(at, link.ttl),
                    rank: sequence,
                };
                self.link(link.key, linked);
            }
            Act::Unlink { key } => {
                let is_later = |held: &Held| held.link.is_some_and(|link| link.rank < sequence);
                if self.held(*key).is_some_and(is_later) {
                    self.unlink(*key);
                }
            }
            Act::Erase { keys } => keys.iter().for_each(|key| self.erase(*key)),
            Act::OptOut { keys } => keys.iter().for_each(|key| self.opt_out(*key)),
        }
    }

    fn place(&mut self, key: UserKey) -> u32 {
        if let Some(place) = self.index.get(&key) {
            return *place;
        }
        let fresh = u32::try_from(self.slab.len()).unwrap_or(u32::MAX);
        let place = self.free.pop().unwrap_or(fresh);
        if place == fresh {
            self.slab.push(Held::new(key));
        } else if let Some(held) = self.slab.get_mut(place as usize) {
            *held = Held::new(key);
        }
        self.index.insert(key, place);
        place
    }

    /// What is held of a key, to be changed.
    fn entry(&mut self, key: UserKey) -> Option<&mut Held> {
        let place = self.place(key);
        self.dirty.push(place);
        self.slab.get_mut(place as usize)
    }

    fn update(&mut self, update: &Update, sequence: u64, at: i64) {
        if self.standing(update.key).erased {
            return;
        }
        let (writer, seq) = update.order.unwrap_or((NOBODY, sequence));
        let known = Arc::clone(&self.known);
        if update.order.is_some() {
            for dataset in update.datasets(&known) {
                let floor = self.floors.entry((dataset, writer)).or_default();
                floor.highest = floor.highest.max(seq);
            }
        }
        let expires = until(at, update.ttl);
        let Some(held) = self.entry(update.key) else {
            return;
        };
        let opinions = &mut held.opinions;
        let before = opinions.len();
        let fresh = |number, add| Opinion {
            number,
            writer,
            expires,
            add,
            seq,
            rank: sequence,
        };
        // A row that came before with the same number stands: it is this one, come again, or the writer's mistake.
        let mut set = Vec::new();
        for dataset in &update.sets {
            let own = |of: &Opinion| of.writer == writer;
            let mut all = opinions.iter();
            if all.any(|of| own(of) && of.number == *dataset && of.seq >= seq) {
                continue;
            }
            set.push(*dataset);
            opinions.retain_mut(|of| {
                if !own(of) || known.dataset_of(of.number) != *dataset {
                    return true;
                }
                // What the writer has said later of a segment stands above what is said of all now.
                of.rank = of.rank.max(sequence);
                of.seq >= seq
            });
            opinions.push(fresh(*dataset, false));
        }
        for (number, add) in &update.changes {
            let dataset = known.dataset_of(*number);
            let is_stale = |of: &Opinion| {
                of.writer == writer
                    && of.seq >= seq
                    && (of.number == *number || of.number == dataset && !set.contains(&dataset))
            };
            if opinions.iter().any(is_stale) {
                continue;
            }
            opinions.retain(|of| of.writer != writer || of.number != *number);
            opinions.push(fresh(*number, *add));
        }
        let after = opinions.len();
        self.counts.changes = self
            .counts
            .changes
            .saturating_add(after)
            .saturating_sub(before);
    }

    /// Takes what a checkpoint held of a key.
    pub(super) fn restore(&mut self, key: UserKey, opinions: Vec<Opinion>, link: Option<Linked>) {
        if self.standing(key).erased {
            return;
        }
        self.counts.changes = self.counts.changes.saturating_add(opinions.len());
        if let Some(held) = self.entry(key) {
            held.opinions = opinions;
        }
        if let Some(link) = link {
            self.link(key, link);
        }
    }

    /// Tells the table what has changed. What has no room there stays to be told.
    pub(super) fn publish(&mut self, now: Timestamp) -> Result<(), NoRoom> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        let mut untold = Vec::new();
        for place in dirty {
            if self.tell(place, now).is_err() {
                untold.push(place);
            }
        }
        self.dirty = untold;
        match self.dirty.is_empty() {
            true => Ok(()),
            false => Err(NoRoom),
        }
    }

    /// As [`publish`](Self::publish), of these keys alone.
    pub(super) fn publish_only(&mut self, keys: &[UserKey], now: Timestamp) -> Result<(), NoRoom> {
        for key in keys {
            if let Some(place) = self.index.get(key).copied() {
                self.tell(place, now)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, place: u32, now: Timestamp) -> Result<(), NoRoom> {
        let Some(held) = self.slab.get(place as usize) else {
            return Ok(());
        };
        let changes: Vec<Change> = held
            .opinions
            .iter()
            .map(|of| Change {
                number: of.number,
                add: of.add,
                expires: of.expires,
                rank: of.rank,
            })
            .collect();
        let members: Vec<(UserKey, u32)> = held
            .members
            .iter()
            .filter_map(|id| Some((*id, self.held(*id)?.link?.expires)))
            .collect();
        let said = Said {
            standing: held.standing,
            changes: &changes,
            person: held.link.map(|link| (link.person, link.expires)),
            members: &members,
        };
        let key = held.key;
        let is_nothing = held.is_nothing();
        let (was_bare, is_bare) = (held.is_bare, held.is_mark());
        // A place that is free already is nobody's.
        if self.index.get(&key) == Some(&place) {
            self.writer.set(&self.known.table, key, &said, now)?;
            if let Some(held) = self.slab.get_mut(place as usize) {
                held.is_bare = is_bare;
            }
            self.bare = match (was_bare, is_bare) {
                (false, true) => self.bare.saturating_add(1),
                (true, false) => self.bare.saturating_sub(1),
                _ => self.bare,
            };
            if is_nothing {
                self.index.remove(&key);
                self.free.push(place);
            }
        }
        Ok(())
    }

    /// Lets a writer's numbers become too late to come, when it is time.
    pub(super) fn turn(&mut self, now: i64) {
        let window = self.room.order_seconds;
        let passed = self.turned.map(|turned| now.saturating_sub(turned));
        if passed.is_some_and(|passed| (0..window).contains(&passed)) {
            return;
        }
        if self.turned.replace(now).is_some() {
            for floor in self.floors.values_mut() {
                floor.floor = floor.turned;
                floor.turned = floor.highest;
            }
        }
    }

    /// Looks at so many places, on from where it was last, and throws away what is over, and what all of a dataset's versions
    /// cover up to its position of `covered`. Whether it has been through all.
    pub(super) fn sweep(&mut self, count: usize, covered: &BTreeMap<u32, u64>, now: i64) -> bool {
        let end = self.swept.saturating_add(count).min(self.slab.len());
        for place in self.swept..end {
            self.sweep_one(place, covered, now);
        }
        self.swept = match end >= self.slab.len() {
            true => 0,
            false => end,
        };
        if self.swept == 0 {
            self.oldest = self.oldest_so_far.take();
        }
        self.swept == 0
    }

    fn sweep_one(&mut self, place: usize, covered: &BTreeMap<u32, u64>, now: i64) {
        let (known, floors) = (Arc::clone(&self.known), &self.floors);
        let Some(held) = self.slab.get_mut(place) else {
            return;
        };
        let key = held.key;
        let before = held.opinions.len();
        held.opinions.retain(|of| {
            let dataset = known.dataset_of(of.number);
            let is_covered = covered.get(&dataset).is_some_and(|to| of.rank <= *to);
            let is_over = i64::from(of.expires) <= now || is_covered;
            let floor = floors.get(&(dataset, of.writer));
            let floor = floor.map_or(0, |floor| floor.floor);
            !is_over || of.writer != NOBODY && of.seq > floor
        });
        let gone = before.saturating_sub(held.opinions.len());
        let earliest = held.opinions.iter().map(|of| of.rank).min();
        self.oldest_so_far = self.oldest_so_far.into_iter().chain(earliest).min();
        let link_over = held.link.is_some_and(|link| i64::from(link.expires) <= now);
        if gone > 0 {
            self.counts.changes = self.counts.changes.saturating_sub(gone);
            self.dirty.push(u32::try_from(place).unwrap_or(u32::MAX));
        }
        if link_over {
            self.unlink(key);
        }
    }
}

/// The second at which what was received at that second is over.
fn until(at: i64, ttl: u32) -> u32 {
    u32::try_from(at.saturating_add(i64::from(ttl))).unwrap_or(u32::MAX)
}
