//! The real thing, on storage that is bytes in memory and a clock that is a number.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bumpalo::Bump;

use super::model::{self, Model};
use crate::audience::{Audience, AudienceFile, Builder, RowFormat, VersionMeta};
use crate::campaigns::Book;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::decision::{Scratch, Silent, decide};
use crate::generation::{Frame, Generation, LiveVersion, Members};
use crate::ids::{Keyer, Kind, SecretKey, UserKey};
use crate::people::Known;
use crate::people::acts::{Act, Rejection};
use crate::people::checkpoint::{self, Author};
use crate::people::office::replay;
use crate::people::register::{Register, Room};
use crate::people::rows::{PostedId, Reading, Row, write_line};
use crate::people::{frames, marks};
use crate::privacy::{Closed, Purposes};

pub(super) const IDS: usize = 4;
pub(super) const DATASETS: usize = 2;
/// Each with its dataset.
pub(super) const SEGMENTS: [(usize, &str); 3] = [(0, "d/a"), (0, "d/b"), (1, "e/c")];
const NAMES: [&str; DATASETS] = ["d", "e"];
const KEPT: usize = 3;

/// Who is in which segment.
pub(super) type Content = BTreeSet<(usize, usize)>;

/// Numbers that look drawn, from a seed.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(super) fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % count
    }

    fn size(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("small")
    }

    fn is(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// What may happen.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Update {
        id: usize,
        changes: &'static [(usize, bool)],
        sets: &'static [usize],
        ttl: u32,
        order: Option<(usize, u64)>,
    },
    Link {
        id: usize,
        person: Option<usize>,
        ttl: u32,
    },
    Erase(usize),
    OptOut(usize),
    Upload {
        dataset: usize,
        content: u8,
        covers: Cover,
    },
    Delta {
        dataset: usize,
        into: u8,
        out: u8,
        covers: Cover,
    },
    ActivateOlder {
        dataset: usize,
        place: usize,
    },
    Restart,
    /// Some of a checkpoint is written.
    Checkpoint,
    Sweep,
    Passes(i64),
}

/// What an upload says of its input.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cover {
    Nothing,
    All,
    AllBut(u64),
    /// All before so many seconds ago.
    Before(i64),
}

const CHANGES: [&[(usize, bool)]; 7] = [
    &[(0, true)],
    &[(0, false)],
    &[(1, true)],
    &[(1, false)],
    &[(2, true)],
    &[(2, false)],
    &[(0, true), (1, false), (2, true)],
];
type Changes = &'static [(usize, bool)];

const SETS: [(Changes, &[usize]); 3] = [(&[], &[0]), (&[(0, true)], &[0]), (&[(2, true)], &[1])];

/// Bits of who is in what, few enough that their files are made once.
const CONTENTS: [u8; 16] = [
    0, 1, 4, 16, 64, 0x55, 0xaa, 0x0f, 0xf0, 0x33, 0xcc, 0x99, 0x66, 0x81, 0x2d, 0xff,
];
const CHANGED: [u8; 4] = [0, 0x11, 0x64, 0xa9];

impl Step {
    /// What may bring somebody back who was erased: each of them, on the id that is.
    pub(super) const ERASING: [Step; 9] = [
        Step::Erase(0),
        Step::OptOut(1),
        Step::Update {
            id: 0,
            changes: &[(0, true)],
            sets: &[],
            ttl: 1_000,
            order: None,
        },
        Step::Upload {
            dataset: 0,
            content: 0b0101,
            covers: Cover::Nothing,
        },
        Step::Delta {
            dataset: 0,
            into: 0b0011,
            out: 0,
            covers: Cover::All,
        },
        Step::ActivateOlder {
            dataset: 0,
            place: 0,
        },
        Step::Link {
            id: 0,
            person: Some(0),
            ttl: 1_000,
        },
        Step::Link {
            id: 1,
            person: Some(0),
            ttl: 1_000,
        },
        Step::Restart,
    ];

    pub(super) fn drawn(dice: &mut Dice, world: &World) -> Self {
        let ttl = [10, 100, 20_000][dice.size(3)];
        let id = dice.size(IDS);
        let covers = match dice.below(4) {
            0 => Cover::Nothing,
            1 => Cover::All,
            2 => Cover::AllBut(1 + dice.below(3)),
            _ => Cover::Before([0, 1, 7, 90][dice.size(4)]),
        };
        match dice.below(26) {
            0..=9 => {
                let (changes, sets) = match dice.is(4) {
                    true => SETS[dice.size(SETS.len())],
                    false => (CHANGES[dice.size(CHANGES.len())], &[][..]),
                };
                let order = (!dice.is(3)).then(|| (1 + dice.size(2), 1 + dice.below(9)));
                Self::Update {
                    id,
                    changes,
                    sets,
                    ttl,
                    order,
                }
            }
            10..=12 => {
                let person = (!dice.is(5)).then(|| dice.size(2));
                Self::Link { id, person, ttl }
            }
            13 if dice.is(2) => Self::Erase(id),
            13 if dice.is(2) => Self::OptOut(id),
            13..=15 => Self::Upload {
                dataset: dice.size(DATASETS),
                content: CONTENTS[dice.size(CONTENTS.len())],
                covers,
            },
            16 => Self::Delta {
                dataset: dice.size(DATASETS),
                into: CHANGED[dice.size(CHANGED.len())],
                out: CHANGED[dice.size(CHANGED.len())],
                covers,
            },
            17 | 18 => Self::ActivateOlder {
                dataset: dice.size(DATASETS),
                place: dice.size(KEPT),
            },
            19 => Self::Restart,
            20 | 21 => Self::Checkpoint,
            22 => Self::Sweep,
            _ if world.now < 40_000 => Self::Passes([1, 9, 95, 4_000][dice.size(4)]),
            _ => Self::Passes(1),
        }
    }
}

/// A version's file, made once for each content and what was changed of it.
type Files = HashMap<(usize, u8, Vec<(u8, u8)>), Arc<Audience>>;

thread_local! {
    static FILES: RefCell<Files> = RefCell::default();
}

/// What a version's file holds, what deltas changed of it, and up to where it has read.
type Kept = (u8, Vec<(u8, u8)>, u64);

pub(super) struct World {
    keyer: Keyer,
    reading: Reading,
    register: Register,
    known: Arc<Known>,
    generation: Generation,
    config: Config,
    book: Arc<Book>,
    scratch: Scratch,
    pub(super) now: i64,
    /// Files of each dataset: what they hold, and up to where they have read.
    kept: [BTreeMap<u64, Kept>; DATASETS],
    live: [Option<u64>; DATASETS],
    forgotten: [u64; DATASETS],
    next: u64,
    journal: Vec<u8>,
    erased: Vec<u8>,
    checkpoint: Option<Vec<u8>>,
    /// A checkpoint in the making.
    writing: Option<(Vec<u8>, Author)>,
}

const ROOM: Room = Room {
    ids: 1_000,
    ids_per_person: 8,
    ids_per_source: 8,
    order_seconds: 3_600,
};
const BEGIN: i64 = 1_800_000_000;

fn keyer() -> Keyer {
    Keyer::new(&SecretKey::from_bytes([9; 32]))
}

fn id_text(id: usize) -> String {
    format!("person-{id}-of-the-world")
}

impl World {
    pub(super) fn new() -> Self {
        let keyer = keyer();
        let targetings = SEGMENTS
            .iter()
            .map(|(_, name)| format!("segments one of ['{name}']"));
        let items: Vec<_> = targetings
            .enumerate()
            .map(|(n, targeting)| {
                serde_json::json!({"id": format!("l{n}"), "creatives": ["box"], "targeting": targeting,
                    "price": {"cpm": "1", "currency": "USD"}})
            })
            .collect();
        let document = serde_json::json!({"advertisers": [{"id": "acme", "domain": "acme.example"}],
            "creatives": [{"id": "box", "advertiser": "acme", "type": "banner", "w": 1, "h": 1, "adm": "<p>"}],
            "line_items": items});
        let book = crate::campaigns::compile(document.to_string().as_bytes()).expect("a book");
        let config = Config::from_toml("[privacy]\ngdpr_when_absent = \"not\"\n", "kith.toml")
            .expect("good");
        let known = Arc::new(Known::with_room(ROOM.ids).expect("memory"));
        let book = Arc::new(book);
        let mut world = Self {
            reading: Reading {
                keyer: keyer.clone(),
                ttl_default: 100,
                ttl_max: 40_000_000,
                suppression: Vec::new(),
            },
            register: Register::new(Arc::clone(&known), ROOM),
            generation: assembled(&config, &keyer, &book, &known, Vec::new()),
            known,
            keyer,
            config,
            book,
            scratch: Scratch::default(),
            now: 0,
            kept: Default::default(),
            live: [None; DATASETS],
            forgotten: [0; DATASETS],
            next: 1,
            journal: Vec::new(),
            erased: Vec::new(),
            checkpoint: None,
            writing: None,
        };
        world.assemble();
        world
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_unix_seconds(BEGIN + self.now)
    }

    fn key(&self, id: usize) -> UserKey {
        self.keyer.user_key("ifa", &id_text(id)).expect("an id")
    }

    fn person_key(&self, person: usize) -> UserKey {
        self.keyer
            .user_key("person", &format!("p{person}"))
            .expect("a person")
    }

    fn assemble(&mut self) {
        let mut live = Vec::new();
        for (place, name) in NAMES.iter().enumerate() {
            let Some(number) = self.live[place] else {
                continue;
            };
            let (content, deltas, covers) = &self.kept[place][&number];
            live.push(LiveVersion {
                name: name.parse().expect("a name"),
                ordinal: place,
                version: number,
                members: Members::Exact(file(place, *content, deltas, &self.keyer)),
                purposes: Purposes::PROFILE,
                covers: self.forgotten[place].max(*covers),
            });
        }
        self.generation = assembled(&self.config, &self.keyer, &self.book, &self.known, live);
        let covered = NAMES.iter().zip(&self.forgotten);
        let covered = covered.map(|(name, to)| (name.parse().expect("a name"), *to));
        self.known.cover(&covered.collect());
    }

    /// Takes a row as the people thread does; its number, where it is taken.
    fn row(&mut self, row: &Row) -> Result<u64, Rejection> {
        let second = self.time().unix_seconds();
        self.register.check(&row.act, &|_| Vec::new(), second)?;
        if matches!(row.act, Act::Erase { .. } | Act::OptOut { .. }) {
            let mut body = Vec::new();
            marks::put(&row.act, &mut body);
            frames::write(&body, &mut self.erased);
        }
        let sequence = self.register.sequence() + 1;
        self.known.times().note(second, sequence);
        let mut line = Vec::new();
        write_line(&row.tail, sequence, &self.time().to_string(), &mut line);
        frames::write(&line, &mut self.journal);
        self.register.apply(&row.act, sequence, second);
        if let Act::Link(link) = &row.act {
            let keys = self.register.reached(link, &|_| Vec::new(), second);
            if !keys.is_empty() {
                self.row(&Reading::opt_out_with(row, keys))?;
            }
        }
        self.publish();
        Ok(sequence)
    }

    fn publish(&mut self) {
        self.register.publish(self.time()).expect("room");
        let sequence = self.register.sequence();
        self.known
            .sequence
            .store(sequence, std::sync::atomic::Ordering::Relaxed);
    }

    fn position(&self, covers: Cover) -> u64 {
        let sequence = self.register.sequence();
        match covers {
            Cover::Nothing => 0,
            Cover::All => sequence,
            Cover::AllBut(count) => sequence.saturating_sub(count),
            Cover::Before(seconds) => {
                let time = Timestamp::from_unix_seconds(BEGIN + self.now - seconds);
                self.known.position(crate::audience::AsOf::Time(time))
            }
        }
    }

    fn put(&mut self, model: &mut Model, dataset: usize, what: (u8, Vec<(u8, u8)>), covers: u64) {
        let number = self.next;
        self.next += 1;
        let content = content_of(dataset, what.0, &what.1);
        model.versions[dataset].insert(number, model::Version { content, covers });
        model.live[dataset] = Some(number);
        self.kept[dataset].insert(number, (what.0, what.1, covers));
        self.live[dataset] = Some(number);
        while self.kept[dataset].len() > KEPT {
            let (oldest, _) = self.kept[dataset].pop_first().expect("some");
            model.versions[dataset].remove(&oldest);
        }
        let least = self.kept[dataset].values().map(|(.., covers)| *covers);
        let least = least.min().unwrap_or(0);
        self.forgotten[dataset] = self.forgotten[dataset].max(least);
        model.forgotten[dataset] = self.forgotten[dataset];
        self.assemble();
    }

    pub(super) fn take(&mut self, step: &Step, model: &mut Model) {
        match step {
            Step::Update {
                id,
                changes,
                sets,
                ttl,
                order,
            } => self.update(model, *id, changes, sets, *ttl, *order),
            Step::Link { id, person, ttl } => {
                let person = person.map(|person| format!("p{person}"));
                let line = match &person {
                    Some(person) => {
                        serde_json::json!({"source": "ifa", "id": id_text(*id), "person": person, "ttl": format!("{ttl}s")})
                    }
                    None => serde_json::json!({"source": "ifa", "id": id_text(*id)}),
                };
                let row = self
                    .reading
                    .link(line.to_string().as_bytes(), &self.known)
                    .expect("a row");
                let taken = self.row(&row);
                assert_eq!(taken.is_ok(), !model.erased.contains(id), "{taken:?}");
                if taken.is_ok() {
                    let Step::Link { person, .. } = step else {
                        return;
                    };
                    model.linked(*id, *person, self.now + i64::from(*ttl), self.now);
                }
            }
            Step::Erase(id) => {
                let (posted, key) = (self.posted(*id), self.key(*id));
                self.row(&Reading::erase(&posted, vec![key]))
                    .expect("taken");
                model.erase(*id);
            }
            Step::OptOut(id) => {
                let mut keys = vec![self.key(*id)];
                if let Some(person) = model.person_of(*id, self.now) {
                    keys.push(self.person_key(person));
                    let hers =
                        (0..IDS).filter(|other| model.person_of(*other, self.now) == Some(person));
                    keys.extend(hers.map(|other| self.key(other)));
                }
                let posted = self.posted(*id);
                self.row(&Reading::opt_out(&posted, keys)).expect("taken");
                model.opt_out(*id, self.now);
            }
            Step::Upload {
                dataset,
                content,
                covers,
            } => {
                let covers = self.position(*covers);
                self.put(model, *dataset, (*content, Vec::new()), covers);
            }
            Step::Delta {
                dataset,
                into,
                out,
                covers,
            } => {
                let Some(live) = self.live[*dataset] else {
                    return;
                };
                let (content, mut deltas, below) = self.kept[*dataset][&live].clone();
                if deltas.len() >= 2 {
                    return;
                }
                deltas.push((*into, *out & !*into));
                let covers = match covers {
                    Cover::Nothing => below,
                    other => self.position(*other),
                };
                self.put(model, *dataset, (content, deltas), covers);
            }
            Step::ActivateOlder { dataset, place } => {
                let number = self.kept[*dataset].keys().nth(*place).copied();
                if let Some(number) = number {
                    self.live[*dataset] = Some(number);
                    model.live[*dataset] = Some(number);
                    self.assemble();
                }
            }
            Step::Restart => self.restart(),
            Step::Checkpoint => self.write_checkpoint(),
            Step::Sweep => {
                let second = self.time().unix_seconds();
                self.register.turn(second);
                let covered = self.known.covered();
                while !self.register.sweep(2, &covered, second) {}
                self.publish();
            }
            Step::Passes(seconds) => self.now += seconds,
        }
    }

    fn posted(&self, id: usize) -> PostedId {
        PostedId {
            source: "ifa".to_owned(),
            id: id_text(id),
        }
    }

    fn update(
        &mut self,
        model: &mut Model,
        id: usize,
        changes: &[(usize, bool)],
        sets: &[usize],
        ttl: u32,
        order: Option<(usize, u64)>,
    ) {
        let named = |add: bool| -> Vec<&str> {
            let own = changes
                .iter()
                .filter(|(segment, own)| *own == add && !sets.contains(&SEGMENTS[*segment].0));
            own.map(|(segment, _)| SEGMENTS[*segment].1).collect()
        };
        let set: serde_json::Map<String, serde_json::Value> = sets
            .iter()
            .map(|dataset| {
                let own = changes
                    .iter()
                    .filter(|(segment, _)| SEGMENTS[*segment].0 == *dataset);
                let own = own.map(|(segment, _)| SEGMENTS[*segment].1.split('/').nth(1));
                (NAMES[*dataset].to_owned(), own.collect())
            })
            .collect();
        let mut line = serde_json::json!({"source": "ifa", "id": id_text(id), "add": named(true),
            "remove": named(false), "set": set, "ttl": format!("{ttl}s")});
        if let Some((writer, seq)) = order {
            line["writer"] = format!("w{writer}").into();
            line["seq"] = seq.into();
        }
        let row = self
            .reading
            .update(line.to_string().as_bytes(), &self.known, &|_| true)
            .expect("a row");
        match self.row(&row) {
            Ok(sequence) => {
                let (writer, seq) = order.unwrap_or((0, sequence));
                model.said(model::Said {
                    id,
                    changes: changes.to_vec(),
                    sets: sets.to_vec(),
                    writer,
                    seq,
                    sequence,
                    until: self.now + i64::from(ttl),
                });
            }
            Err(Rejection::Erased) => assert!(model.erased.contains(&id)),
            Err(Rejection::Late) => assert!(order.is_some()),
            Err(other) => panic!("{other}"),
        }
    }

    /// What was held is what the bytes say.
    fn restart(&mut self) {
        let known = Arc::new(Known::with_room(ROOM.ids).expect("memory"));
        let mut register = Register::new(Arc::clone(&known), ROOM);
        let magic = *b"SIMULATE";
        let begun = |bytes: &[u8]| [&magic[..], bytes].concat();
        let read = frames::read(&begun(&self.erased)[..], &magic, |body| {
            marks::enter(body, &mut register).is_some()
        });
        read.expect("whole");
        let checkpointed = self.checkpoint.as_ref().map_or(0, |bytes| {
            let head = checkpoint::read(&bytes[..], &mut register, &known);
            head.expect("whole").sequence
        });
        register.came_to(checkpointed);
        let read = frames::read(&begun(&self.journal)[..], &magic, |body| {
            replay(body, checkpointed, &self.reading, &known, &mut register).is_some()
        });
        read.expect("whole");
        self.writing = None;
        self.register = register;
        self.known = known;
        self.publish();
        self.assemble();
    }

    /// A slice of a checkpoint; begins one, or ends it.
    fn write_checkpoint(&mut self) {
        let (mut bytes, mut author) = self.writing.take().unwrap_or_else(|| {
            (
                Author::begin(self.register.sequence(), 0),
                Author::default(),
            )
        });
        let (slice, is_last) = author.slice(&self.register, &self.known, 2);
        bytes.extend(slice);
        if is_last {
            bytes.extend(author.end(&self.register, &self.known));
            self.checkpoint = Some(bytes);
        } else {
            self.writing = Some((bytes, author));
        }
    }

    /// Asks a bid about everybody, alone and together.
    pub(super) fn compare(&mut self, model: &Model) -> Result<(), String> {
        for ids in [&[0][..], &[1], &[2], &[3], &[0, 2], &[1, 3]] {
            let (found, closed) = self.asked(ids);
            let may = model.may_be_known(ids, self.now);
            if may == closed {
                return Err(format!(
                    "{ids:?}: may be known {may}, but the gate was closed {closed}"
                ));
            }
            for (segment, (_, name)) in SEGMENTS.iter().enumerate() {
                let want = may && model.is_in(ids, segment, self.now);
                if found.contains(&segment) != want {
                    return Err(format!("{ids:?} in {name}: {} and not {want}", !want));
                }
            }
        }
        Ok(())
    }

    fn asked(&mut self, ids: &[usize]) -> (Vec<usize>, bool) {
        let arena = Bump::new();
        let ifa = ids.first().map(|id| id_text(*id)).unwrap_or_default();
        let eids = ids.get(1).map(|id| id_text(*id));
        let user = eids.map_or(String::new(), |id| format!(r#""buyeruid":"{id}""#));
        // The second id comes as another source would: its key is that of an ifa all the same.
        let body = match ids.len() {
            1 => format!(
                r#"{{"id":"r","imp":[{{"id":"1","banner":{{"w":1,"h":1}}}}],"device":{{"ifa":"{ifa}"}}}}"#
            ),
            _ => format!(
                r#"{{"id":"r","imp":[{{"id":"1","banner":{{"w":1,"h":1}}}}],"device":{{"ifa":"{ifa}"}},"user":{{{user}}}}}"#
            ),
        };
        let keys: Vec<UserKey> = ids.iter().map(|id| self.key(*id)).collect();
        let request = crate::openrtb::read(body.as_bytes(), &arena, 8).expect("a request");
        let exchange = self.config.exchanges.get("demo").expect("an exchange");
        let (now, generation) = (self.time(), &self.generation);
        let slots: Vec<u32> = SEGMENTS
            .iter()
            .map(|(_, name)| {
                let mut all = (0u32..).zip(&generation.book.segments);
                all.find(|(_, of)| of.to_string() == *name)
                    .expect("targeted")
                    .0
            })
            .collect();
        let leave =
            crate::privacy::gate(request, &generation.frame.policy, &mut Default::default())
                .expect("open");
        let decision = crate::decision::decide_again(
            generation,
            exchange,
            request,
            leave,
            &keys,
            now,
            &arena,
            &mut self.scratch,
        );
        let closed = decision.gate == Err(Closed::OptedOut);
        let one = (ids.len() == 1).then(|| {
            let mut scratch = Scratch::default();
            let whole = decide(
                generation,
                exchange,
                request,
                now,
                &arena,
                &mut scratch,
                &mut Silent,
            );
            (whole.gate, scratch.in_segments(&slots).collect::<Vec<_>>())
        });
        let found: Vec<u32> = self.scratch.in_segments(&slots).collect();
        if let Some((gate, whole)) = one {
            assert_eq!(
                (gate, &whole),
                (decision.gate, &found),
                "a request says the same as its keys"
            );
        }
        let place = |slot: u32| slots.iter().position(|of| *of == slot).expect("asked");
        (found.into_iter().map(place).collect(), closed)
    }

    /// Whether what outlives the journal holds nothing by which an erased id is known, but that it was erased.
    pub(super) fn has_no_trace(&self, model: &Model) -> Result<(), String> {
        for id in &model.erased {
            let held = self
                .register
                .held(self.key(*id))
                .ok_or("erased and not known")?;
            if !held.opinions.is_empty() || held.link.is_some() {
                return Err(format!("something is held of {id}: {held:?}"));
            }
            let text = id_text(*id);
            let hash = <sha2::Sha256 as sha2::Digest>::digest(text.as_bytes());
            for bytes in [
                &self.erased,
                self.checkpoint.as_ref().unwrap_or(&self.erased),
            ] {
                let has = |trace: &[u8]| memchr::memmem::find(bytes, trace).is_some();
                if has(text.as_bytes()) || has(&hash) {
                    return Err(format!("a trace of {id}"));
                }
            }
        }
        Ok(())
    }
}

fn assembled(
    config: &Config,
    keyer: &Keyer,
    book: &Arc<Book>,
    known: &Arc<Known>,
    live: Vec<LiveVersion>,
) -> Generation {
    let frame = Frame {
        people: Arc::clone(known),
        ..Frame::of(config, keyer.clone())
    };
    Generation::assemble(1, Arc::clone(book), Some(1), live, frame)
}

/// Of a byte, a bit for each id and segment of the dataset: eight of them.
fn pairs(dataset: usize, bits: u8) -> impl Iterator<Item = (usize, usize)> {
    let own: Vec<usize> = (0..SEGMENTS.len())
        .filter(|of| SEGMENTS[*of].0 == dataset)
        .collect();
    let all: Vec<(usize, usize)> = (0..IDS)
        .flat_map(|id| own.clone().into_iter().map(move |of| (id, of)))
        .collect();
    all.into_iter()
        .enumerate()
        .filter(move |(place, _)| bits >> place & 1 == 1)
        .map(|(_, pair)| pair)
}

fn content_of(dataset: usize, full: u8, deltas: &[(u8, u8)]) -> Content {
    let mut content: Content = pairs(dataset, full).collect();
    for (into, out) in deltas {
        for pair in pairs(dataset, *out) {
            content.remove(&pair);
        }
        content.extend(pairs(dataset, *into));
    }
    content
}

fn file(dataset: usize, full: u8, deltas: &[(u8, u8)], keyer: &Keyer) -> Arc<Audience> {
    let key = (dataset, full, deltas.to_vec());
    if let Some(file) = FILES.with_borrow(|files| files.get(&key).cloned()) {
        return file;
    }
    let meta = |version: u64| VersionMeta {
        kind: Kind::Audience,
        dataset: NAMES[dataset].parse().expect("a name"),
        version,
        base: version.checked_sub(1).filter(|base| *base > 0),
        as_of: None,
    };
    let made = |mut builder: Builder, rows: String| {
        builder
            .read_rows(&RowFormat::Csv, rows.as_bytes(), &mut |_| {})
            .expect("rows");
        let mut bytes = Vec::new();
        builder.finish(&mut bytes).expect("a version");
        AudienceFile::from_bytes(&bytes).expect("readable")
    };
    let short = |segment: usize| SEGMENTS[segment].1.split('/').nth(1).expect("a name");
    // Somebody is always in something, or there would be no version.
    let mut rows = format!(
        "source,id,segments\nifa,somebody-else,{}\n",
        if dataset == 0 { "a|b" } else { "c" }
    );
    for (id, segment) in pairs(dataset, full) {
        rows.push_str(&format!("ifa,{},{}\n", id_text(id), short(segment)));
    }
    let base = made(
        Builder::new(meta(1), keyer.clone()).expect("a builder"),
        rows,
    );
    let layers: Vec<AudienceFile> = (2u64..)
        .zip(deltas)
        .map(|(version, (into, out))| {
            let mut rows = "source,id,add,remove\nifa,somebody-else,,nothing\n".to_owned();
            for id in 0..IDS {
                let of = |bits: u8| -> Vec<&str> {
                    pairs(dataset, bits)
                        .filter(|(own, _)| *own == id)
                        .map(|(_, segment)| short(segment))
                        .collect()
                };
                let (add, remove) = (of(*into).join("|"), of(*out).join("|"));
                if !add.is_empty() || !remove.is_empty() {
                    rows.push_str(&format!("ifa,{},{add},{remove}\n", id_text(id)));
                }
            }
            made(
                Builder::delta(meta(version), 1, keyer.clone()).expect("a builder"),
                rows,
            )
        })
        .collect();
    let whole: Audience = base.into();
    let whole = if layers.is_empty() {
        whole
    } else {
        whole.changed_by(&layers).expect("they fit")
    };
    let whole = Arc::new(whole);
    FILES.with_borrow_mut(|files| files.insert(key, Arc::clone(&whole)));
    whole
}
