//! The stores, each behind the same two questions.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dashmap::DashMap;
use kith::audience::{Approach, Audience, Lookup};
use kith::clock::Timestamp;
use kith::ids::{Keyer, UserKey};
use redb::{Database, ReadOnlyTable, ReadableDatabase as _, TableDefinition};

use super::redis::Redis;
use crate::rows::{People, uuid};

/// The stores that Kith is held against.
pub const NAMES: [&str; 5] = [PLAIN, FRUGAL, DASHMAP, REDB, REDIS];
/// What one would write first.
const PLAIN: &str = "HashMap<String, Vec<u32>>";
/// What one would write who has to save memory: a 128-bit hash in place of the id, and sets without room to grow.
const FRUGAL: &str = "HashMap<u128, Box<[u16]>>";
const DASHMAP: &str = "DashMap<String, Vec<u32>>";
const REDB: &str = "redb";
pub(super) const REDIS: &str = "redis";

pub(super) const REDB_FILE: &str = "beside.redb";
/// Room for all of ten million ids: Kith is in memory too.
const REDB_CACHE_BYTES: usize = 4 << 30;
const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("ids");

/// Why there is nothing to measure.
#[derive(Debug)]
pub enum Unavailable {
    /// The machine has it not.
    Missing(String),
    /// It should have worked.
    Failed(io::Error),
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Unavailable {
    fn from(error: E) -> Self {
        Self::Failed(io::Error::other(error))
    }
}

/// Answers: 0 where the id is not there; else 1, and each of its segments' numbers and 1 more, added up.
pub(super) trait Store {
    fn one(&mut self, id: &str) -> io::Result<u64>;

    fn four(&mut self, ids: [&str; 4]) -> io::Result<u64> {
        let mut sum = 0;
        for id in ids {
            sum += self.one(id)?;
        }
        Ok(sum)
    }

    /// Whether another process answers.
    fn is_remote(&self) -> bool {
        false
    }

    /// CPU seconds that its other process has had.
    fn other_cpu_seconds(&self) -> io::Result<f64> {
        Ok(0.0)
    }

    fn other_resident_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }
}

fn sum(segments: impl Iterator<Item = u64>) -> u64 {
    1 + segments.map(|segment| segment + 1).sum::<u64>()
}

/// Of a set that is kept as bytes, two a segment.
pub(super) fn sum_of_bytes(set: &[u8]) -> u64 {
    let (pairs, _) = set.as_chunks();
    sum(pairs.iter().map(|pair| u16::from_le_bytes(*pair).into()))
}

/// A store by its name, with all of these people in it.
pub(super) fn fill(
    store: &str,
    people: People,
    folder: &Path,
) -> Result<Box<dyn Store>, Unavailable> {
    let drawer = people.drawer();
    let mut text = Vec::new();
    let mut drawn = Vec::new();
    let mut draw = |id: u64| -> io::Result<(String, Vec<u32>)> {
        text.clear();
        uuid(id + 1, &mut text);
        drawer.segments(id, &mut drawn);
        let text = std::str::from_utf8(&text).map_err(io::Error::other)?;
        Ok((text.to_owned(), drawn.clone()))
    };
    match store {
        PLAIN => {
            let mut map = HashMap::new();
            for id in 0..people.ids {
                let (text, set) = draw(id)?;
                map.insert(text, set);
            }
            Ok(Box::new(Plain(map)))
        }
        FRUGAL => {
            let keyer = super::keyer();
            let mut map = HashMap::new();
            for id in 0..people.ids {
                let (text, set) = draw(id)?;
                let set = short(&set).collect();
                map.insert(hashed(&keyer, &text)?.0, set);
            }
            Ok(Box::new(Frugal { keyer, map }))
        }
        DASHMAP => {
            let map = DashMap::new();
            for id in 0..people.ids {
                let (text, set) = draw(id)?;
                map.insert(text, set);
            }
            Ok(Box::new(Concurrent(map)))
        }
        REDB => Ok(Box::new(Tree::fill(people, folder, draw)?)),
        REDIS => {
            let mut redis = Redis::start(folder)?;
            redis.fill((0..people.ids).map(|id| {
                let (text, set) = draw(id)?;
                Ok((text, bytes(&set)))
            }))?;
            Ok(Box::new(redis))
        }
        other => Err(io::Error::other(format!("no store {other:?}")).into()),
    }
}

/// Segments are at most 65,535.
fn short(set: &[u32]) -> impl Iterator<Item = u16> {
    set.iter().map(|segment| *segment as u16)
}

fn bytes(set: &[u32]) -> Vec<u8> {
    short(set).flat_map(u16::to_le_bytes).collect()
}

#[inline(always)]
fn hashed(keyer: &Keyer, id: &str) -> io::Result<UserKey> {
    keyer.user_key("ifa", id).map_err(io::Error::other)
}

pub(super) struct KithStore {
    audience: Audience,
    keyer: Keyer,
    /// The number of each segment by rank.
    numbers: Vec<u64>,
}

impl KithStore {
    pub(super) fn open(file: &Path, keyer: Keyer) -> io::Result<Self> {
        let audience = Audience::open(file).map_err(io::Error::other)?;
        let names: Vec<&str> = audience.segments().collect();
        let number = |index: &u32| {
            names[*index as usize]
                .strip_prefix("segment-")?
                .parse()
                .ok()
        };
        let numbers: Option<_> = audience.indexes_by_rank().iter().map(number).collect();
        Ok(Self {
            numbers: numbers.ok_or_else(|| io::Error::other("a segment without a number"))?,
            audience,
            keyer,
        })
    }

    #[inline(always)]
    fn read(&self, approach: Approach) -> io::Result<u64> {
        let mut sum = 1;
        let now = Timestamp::from_unix_seconds(0);
        let lookup = self.audience.lookup_at(approach, now, |rank| {
            sum += self.numbers[rank as usize] + 1;
        });
        answer(lookup, sum)
    }
}

impl Store for KithStore {
    fn one(&mut self, id: &str) -> io::Result<u64> {
        let probe = self.audience.probe(hashed(&self.keyer, id)?);
        self.read(self.audience.approach(probe))
    }

    fn four(&mut self, ids: [&str; 4]) -> io::Result<u64> {
        let keys = ids.map(|id| hashed(&self.keyer, id));
        let [Ok(a), Ok(b), Ok(c), Ok(d)] = keys else {
            return Err(io::Error::other("an id that cannot be one"));
        };
        let probes = [a, b, c, d].map(|key| self.audience.probe(key));
        let approaches = probes.map(|probe| self.audience.approach(probe));
        let mut all = 0;
        for approach in approaches {
            all += self.read(approach)?;
        }
        Ok(all)
    }
}

fn answer(lookup: Lookup, sum: u64) -> io::Result<u64> {
    match lookup {
        Lookup::Found => Ok(sum),
        Lookup::Absent => Ok(0),
        Lookup::Damaged => Err(io::Error::other("damaged")),
    }
}

struct Plain(HashMap<String, Vec<u32>>);

impl Store for Plain {
    fn one(&mut self, id: &str) -> io::Result<u64> {
        let set = self.0.get(id);
        Ok(set.map_or(0, |set| sum(set.iter().map(|segment| u64::from(*segment)))))
    }
}

/// Keys are hashed already, but only its own hasher is safe against keys that somebody chose.
struct Frugal {
    keyer: Keyer,
    map: HashMap<u128, Box<[u16]>>,
}

impl Store for Frugal {
    fn one(&mut self, id: &str) -> io::Result<u64> {
        let set = self.map.get(&hashed(&self.keyer, id)?.0);
        Ok(set.map_or(0, |set| sum(set.iter().map(|segment| u64::from(*segment)))))
    }
}

struct Concurrent(DashMap<String, Vec<u32>>);

impl Store for Concurrent {
    fn one(&mut self, id: &str) -> io::Result<u64> {
        let set = self.0.get(id);
        Ok(set.map_or(0, |set| sum(set.iter().map(|segment| u64::from(*segment)))))
    }
}

/// redb: a B-tree in a file, under one transaction for all lookups.
struct Tree {
    table: ReadOnlyTable<&'static str, &'static [u8]>,
    file: PathBuf,
    _database: Database,
}

impl Tree {
    fn fill(
        people: People,
        folder: &Path,
        mut draw: impl FnMut(u64) -> io::Result<(String, Vec<u32>)>,
    ) -> Result<Self, Unavailable> {
        let file = folder.join(REDB_FILE);
        let database = Database::builder()
            .set_cache_size(REDB_CACHE_BYTES)
            .create(&file)?;
        let mut order = Vec::new();
        for id in 0..people.ids {
            let mut text = Vec::new();
            uuid(id + 1, &mut text);
            // Twelve digits tell nearly all apart; a few that stand the wrong way round cost nothing.
            let head = text.iter().filter(|byte| **byte != b'-').take(12);
            let head = head.fold(0u64, |head, digit| {
                (head << 4) + u64::from(digit & 15) + 9 * u64::from(digit >> 6)
            });
            order.push((head, id));
        }
        order.sort_unstable();
        let write = database.begin_write()?;
        {
            let mut table = write.open_table(TABLE)?;
            for (_, id) in order {
                let (text, set) = draw(id)?;
                table.insert(text.as_str(), bytes(&set).as_slice())?;
            }
        }
        write.commit()?;
        let table = database.begin_read()?.open_table(TABLE)?;
        Ok(Self {
            table,
            file,
            _database: database,
        })
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

impl Store for Tree {
    fn one(&mut self, id: &str) -> io::Result<u64> {
        let set = self.table.get(id).map_err(io::Error::other)?;
        Ok(set.map_or(0, |set| sum_of_bytes(set.value())))
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        Ok(fs::metadata(&self.file)?.len())
    }
}
