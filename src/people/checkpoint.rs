//! Checkpoints: what is held of people, in a file, so that a restart replays only what came since.
//!
//! It is written a slice at a time while rows come in; so its parts are of different moments, none earlier than the sequence
//! number at its head. Everything after that number is replayed over it, and says the same when it is said again
//! ([`register`](super::register)). What was erased stands in a log of its own and not here.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io::Read;

use super::Known;
use super::frames::{self, Fields, Unread};
use super::register::{Floor, Held, Linked, Opinion, Register};
use crate::ids::UserKey;

/// How a checkpoint's file begins.
pub(super) const MAGIC: &[u8; 8] = b"KITHPCP2";

/// What a frame holds, by its first byte.
const HEAD: u8 = 0;
const NAMES: u8 = 1;
const PEOPLE: u8 = 2;
const FLOORS: u8 = 3;
const TIMES: u8 = 4;

/// Which names.
const SEGMENTS: u8 = 0;
const WRITERS: u8 = 1;
const SOURCES: u8 = 2;

/// Writes a checkpoint's frames.
#[derive(Debug, Default)]
pub(super) struct Author {
    /// How many names of each kind are written.
    named: [usize; 3],
    /// The next place of the register.
    pub(super) next: usize,
}

impl Author {
    /// What a file begins with.
    pub(super) fn begin(sequence: u64, marks_bytes: u64) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut body = vec![HEAD];
        body.extend(sequence.to_le_bytes());
        body.extend(marks_bytes.to_le_bytes());
        frames::write(&body, &mut bytes);
        bytes
    }

    /// The next slice, of so many places; whether it was the last.
    pub(super) fn slice(
        &mut self,
        register: &Register,
        known: &Known,
        count: usize,
    ) -> (Vec<u8>, bool) {
        let end = self.next.saturating_add(count).min(register.places());
        let mut bytes = Vec::new();
        // Names are numbered before they are used, and so known by now.
        self.names(known, &mut bytes);
        let mut body = Parts::new(&[PEOPLE], &mut bytes);
        for place in self.next..end {
            if let Some(held) = register.at(place) {
                body.put(|body| write_held(held, body));
            }
        }
        body.end();
        self.next = end;
        (bytes, end >= register.places())
    }

    fn names(&mut self, known: &Known, bytes: &mut Vec<u8>) {
        let kinds = [
            (SEGMENTS, &known.segments),
            (WRITERS, &known.writers),
            (SOURCES, &known.sources),
        ];
        for ((kind, numbers), named) in kinds.into_iter().zip(&mut self.named) {
            let mut body = Parts::new(&[NAMES, kind], bytes);
            while let Some((number, name)) = u32::try_from(*named)
                .ok()
                .and_then(|number| Some((number, numbers.name(number)?)))
            {
                body.put(|body| {
                    body.extend(number.to_le_bytes());
                    text(&name, body);
                });
                *named = named.saturating_add(1);
            }
            body.end();
        }
    }

    /// What a file ends with.
    pub(super) fn end(&mut self, register: &Register, known: &Known) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.names(known, &mut bytes);
        let mut body = Parts::new(&[FLOORS], &mut bytes);
        for ((dataset, writer), floor) in register.floors() {
            body.put(|body| {
                body.extend(dataset.to_le_bytes());
                body.extend(writer.to_le_bytes());
                body.extend(floor.highest.to_le_bytes());
                body.extend(floor.turned.to_le_bytes());
                body.extend(floor.floor.to_le_bytes());
            });
        }
        body.end();
        let mut body = Parts::new(&[TIMES], &mut bytes);
        for (second, first) in known.times().all() {
            body.put(|body| {
                body.extend(second.to_le_bytes());
                body.extend(first.to_le_bytes());
            });
        }
        body.end();
        bytes
    }
}

/// Things of one kind, in as many frames as they take: none is longer than what is read.
struct Parts<'b> {
    head: Vec<u8>,
    body: Vec<u8>,
    into: &'b mut Vec<u8>,
}

impl<'b> Parts<'b> {
    fn new(head: &[u8], into: &'b mut Vec<u8>) -> Self {
        Self {
            head: head.to_vec(),
            body: head.to_vec(),
            into,
        }
    }

    fn put(&mut self, one: impl FnOnce(&mut Vec<u8>)) {
        one(&mut self.body);
        if self.body.len() >= frames::PART_BYTES {
            frames::write(&self.body, self.into);
            self.body.clone_from(&self.head);
        }
    }

    fn end(self) {
        if self.body.len() > self.head.len() {
            frames::write(&self.body, self.into);
        }
    }
}

fn text(text: &str, into: &mut Vec<u8>) {
    into.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    into.extend(text.as_bytes());
}

fn write_held(held: &Held, body: &mut Vec<u8>) {
    if held.standing.erased || held.opinions.is_empty() && held.link.is_none() {
        return;
    }
    body.extend(held.key.0.to_le_bytes());
    body.push(u8::try_from(held.opinions.len()).unwrap_or(u8::MAX));
    for of in &held.opinions {
        body.extend(of.number.to_le_bytes());
        body.extend(of.writer.to_le_bytes());
        body.extend(of.expires.to_le_bytes());
        body.push(u8::from(of.add));
        body.extend(of.seq.to_le_bytes());
        body.extend(of.rank.to_le_bytes());
    }
    body.push(u8::from(held.link.is_some()));
    if let Some(link) = held.link {
        body.extend(link.person.0.to_le_bytes());
        body.extend(link.source.to_le_bytes());
        body.extend(link.expires.to_le_bytes());
        body.extend(link.rank.to_le_bytes());
    }
}

/// What a checkpoint says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Head {
    /// Rows up to here are in it.
    pub(super) sequence: u64,
    /// How long the log of erasures and opt-outs was.
    pub(super) marks_bytes: u64,
}

/// Reads a checkpoint into the register.
pub(super) fn read(
    from: impl Read,
    register: &mut Register,
    known: &Known,
) -> Result<Head, Unread> {
    let mut head = None;
    let mut numbers: [Vec<u32>; 3] = Default::default();
    let end = frames::read(from, MAGIC, |body| {
        frame(body, &mut head, &mut numbers, register, known).is_some()
    })?;
    head.ok_or(Unread::Senseless { at: end })
}

fn frame(
    body: &[u8],
    head: &mut Option<Head>,
    numbers: &mut [Vec<u32>; 3],
    register: &mut Register,
    known: &Known,
) -> Option<()> {
    let mut fields = Fields(body);
    match fields.u8()? {
        HEAD => {
            *head = Some(Head {
                sequence: fields.u64()?,
                marks_bytes: fields.u64()?,
            });
        }
        NAMES => {
            let kind = fields.u8()?;
            let own = numbers.get_mut(usize::from(kind))?;
            while !fields.is_empty() {
                let (number, name) = (fields.u32()?, fields.text()?);
                let now = match kind {
                    SEGMENTS => known.number_of_name(name)?,
                    WRITERS => known.writers.number(name)?,
                    _ => known.sources.number(name)?,
                };
                (own.len() == usize::try_from(number).ok()?).then(|| own.push(now))?;
            }
        }
        PEOPLE => {
            let [segments, writers, sources] = &*numbers;
            let of = |numbers: &Vec<u32>, number: u32| {
                numbers.get(usize::try_from(number).ok()?).copied()
            };
            while !fields.is_empty() {
                let key = UserKey(fields.u128()?);
                let mut opinions = Vec::new();
                for _ in 0..fields.u8()? {
                    opinions.push(Opinion {
                        number: of(segments, fields.u32()?)?,
                        writer: of(writers, fields.u32()?)?,
                        expires: fields.u32()?,
                        add: fields.u8()? == 1,
                        seq: fields.u64()?,
                        rank: fields.u64()?,
                    });
                }
                let link = match fields.u8()? {
                    0 => None,
                    _ => Some(Linked {
                        person: UserKey(fields.u128()?),
                        source: of(sources, fields.u32()?)?,
                        expires: fields.u32()?,
                        rank: fields.u64()?,
                    }),
                };
                register.restore(key, opinions, link);
            }
        }
        FLOORS => {
            let [segments, writers, _] = &*numbers;
            while !fields.is_empty() {
                let dataset = usize::try_from(fields.u32()?).ok()?;
                let writer = usize::try_from(fields.u32()?).ok()?;
                let floor = Floor {
                    highest: fields.u64()?,
                    turned: fields.u64()?,
                    floor: fields.u64()?,
                };
                register.set_floor(*segments.get(dataset)?, *writers.get(writer)?, floor);
            }
        }
        TIMES => {
            while !fields.is_empty() {
                let second = i64::from_le_bytes(fields.u64()?.to_le_bytes());
                known.times().note(second, fields.u64()?);
            }
        }
        _ => return None,
    }
    Some(())
}
