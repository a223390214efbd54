//! The frame of a `.kith` file: header, sections, checksums. The byte map with every field is `docs/snapshot-format.md`.
//!
//! ```text
//! header (512 bytes) | records | index | code | segments | checksums            format 3, an audience
//! header (512 bytes) | groups | table | sources | checksums                     format 3, an identity graph
//! header (512 bytes) | filter | segments | checksums                            format 2, a filter
//! header (512 bytes) | code | records | index | segments | checksums            format 2, an audience: read and no longer written
//! header (512 bytes) | segments | directory | records | checksums               format 1, read and no longer written
//! ```
//!
//! Little-endian, no pointers, no gaps: a section begins where the one before ends, the last ends where the
//! file ends. The header ends in its own CRC-32 and holds one of each section and the file's length; `checksums`
//! holds one of each 64 KiB of what lies between, so that damage is found where it is.
//!
//! A header is accepted only if writing what was read from it gives the same bytes. So there is one way to write
//! a version, and every reserved byte is checked.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::clock::Timestamp;
use crate::ids::{KeyId, Kind, Name};

use super::bits::AT_ONCE;
use super::filter::BLOCK_BYTES as FILTER_BLOCK_BYTES;
use super::graph::layout::{GROUPS_BYTES_MAX, LINE, SOURCE_ENTRY_BYTES, SOURCES_MAX, table_bytes};
use super::reader::Flaw;
use super::remix::{FINGERPRINT_BITS, buckets_for, salt};
use super::shard::{BinShape, ENTRY_BYTES, HASH_BYTES, SHARD_BITS_MAX};
use super::{AsOf, VersionMeta};

/// Begins every version file: a byte no text has, the name, and line ends that a transfer "as text" would change.
const MAGIC: [u8; 8] = *b"\x89KITH\r\n\x1a";
/// The newest format this Kith reads, and the one in which it writes audiences.
pub const VERSION_FILE_FORMAT: u32 = 3;
/// Most segments a dataset can have; a row keeps each as 16 bits while a version is built.
pub const SEGMENTS_MAX: u32 = 65_535;

pub(super) const HEADER_BYTES: usize = 512;
const HEADER_CRC_BYTES: usize = 4;
/// What one block checksum covers.
pub(super) const BLOCK_BYTES: usize = 64 << 10;
/// One entry of the segment table.
pub(super) const SEGMENT_ENTRY_BYTES: usize = 80;
/// Format 1: one entry of the directory, an offset into the records, 40 bits.
pub(super) const OFFSET_BYTES: usize = 5;
/// Most bytes of records that 40 bits can point into: 1 TiB, some 100 thousand million ids.
pub(super) const RECORDS_BYTES_MAX: u64 = (1 << 40) - 1;
/// Format 1: salts that a build tried.
const SALTS_MAX: u32 = 16;

const NAME_FIELD_BYTES: usize = 64;
const FLAG_BASE: u32 = 1;
const FLAG_EXPIRY: u32 = 2;
const FLAG_LENGTHS: u32 = 4;

/// Length and CRC-32 of one section; its offset follows from the lengths before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) length: u64,
    pub(super) crc: u32,
}

/// What the formats and kinds say differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// Format 1, an audience.
    One {
        /// Which salt was the first to keep all ids apart.
        salt_counter: u32,
    },
    /// Formats 2 and 3, an audience.
    Sharded {
        /// Bits of the hash that name the shard.
        shard_bits: u32,
        /// Bits of an expiry; 0 where none expires.
        expiry_bits: u32,
        /// In format 2: whether lengths stand before the sets.
        lengths: bool,
        /// The version whose salt it has: its own number, or of a delta and of what is made of deltas that of the full version
        /// at the bottom.
        root: u64,
        /// Of a delta: pairs that it takes away.
        removed: u64,
        /// The bins of format 3; in format 2 there are none.
        bins: BinShape,
    },
    /// Format 2, a filter: what there is to say of it stands in its section.
    Filter,
    /// Format 3, an identity graph.
    Graph {
        /// Lines of the table that keys are at home in.
        homes: u64,
        /// How many persons there are.
        persons: u64,
    },
}

/// All the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) meta: VersionMeta,
    pub(super) key_id: KeyId,
    pub(super) ids: u64,
    pub(super) rows: u64,
    pub(super) memberships: u64,
    pub(super) segments: u32,
    /// When the first membership that expires does, Unix seconds.
    pub(super) first_expiry: Option<i64>,
    pub(super) body: Body,
    /// As many as [`names`](Self::section_names).
    pub(super) sections: Vec<Section>,
}

impl Header {
    pub(super) fn format(&self) -> u32 {
        match self.body {
            Body::One { .. } => 1,
            Body::Sharded { bins, .. } if bins != BinShape::NONE => 3,
            Body::Graph { .. } => 3,
            Body::Sharded { .. } | Body::Filter => 2,
        }
    }

    /// The version whose salt it has.
    pub(super) fn root(&self) -> u64 {
        match self.body {
            Body::One { .. } | Body::Filter | Body::Graph { .. } => self.meta.version,
            Body::Sharded { root, .. } => root,
        }
    }

    /// Of a delta: pairs that it takes away.
    pub(super) fn removed(&self) -> u64 {
        match self.body {
            Body::One { .. } | Body::Filter | Body::Graph { .. } => 0,
            Body::Sharded { removed, .. } => removed,
        }
    }

    /// Bits of an expiry; 0 where none expires, or where they have no bits of their own.
    pub(super) fn expiry_bits(&self) -> u32 {
        match self.body {
            Body::One { .. } | Body::Filter | Body::Graph { .. } => 0,
            Body::Sharded { expiry_bits, .. } => expiry_bits,
        }
    }

    pub(super) fn salt(&self) -> [u8; 16] {
        let (version, counter) = match self.body {
            Body::One { salt_counter } => (self.meta.version, salt_counter),
            Body::Sharded { root, .. } => (root, 0),
            Body::Filter | Body::Graph { .. } => (self.meta.version, 0),
        };
        salt(&self.meta.dataset, version, counter)
    }

    /// The sections in their order, by the names that reports use.
    pub(super) fn section_names(&self) -> &'static [&'static str] {
        match self.body {
            Body::One { .. } => &["segments", "directory", "records", "checksums"],
            Body::Sharded { bins, .. } if bins == BinShape::NONE => {
                &["code", "records", "index", "segments", "checksums"]
            }
            // What has bins begins where a line of the cache does.
            Body::Sharded { .. } => &["records", "index", "code", "segments", "checksums"],
            Body::Filter => &["filter", "segments", "checksums"],
            Body::Graph { .. } => &["groups", "table", "sources", "checksums"],
        }
    }

    /// Which section has the records of an audience with shards; the index comes behind it.
    pub(super) fn records_at(&self) -> usize {
        let names = self.section_names();
        names
            .iter()
            .position(|name| *name == "records")
            .unwrap_or(0)
    }

    /// Where each section lies, by offset and length; nothing where they do not fit a file.
    pub(super) fn places(&self) -> Option<Vec<(u64, u64)>> {
        let mut offset = HEADER_BYTES as u64;
        let place = |section: &Section| {
            let at = offset;
            offset = offset.checked_add(section.length)?;
            Some((at, section.length))
        };
        self.sections.iter().map(place).collect()
    }

    /// The length of the whole file.
    pub(super) fn file_bytes(&self) -> Option<u64> {
        let (offset, length) = self.places()?.last().copied()?;
        offset.checked_add(length)
    }

    /// The header's bytes, its checksum included.
    pub(super) fn encode(&self) -> Option<[u8; HEADER_BYTES]> {
        let kind: u32 = match self.meta.kind {
            Kind::Audience => 1,
            Kind::Filter => 2,
            Kind::Identity => 3,
            Kind::Campaigns => 4,
            Kind::Scores => 5,
        };
        let (as_of_kind, as_of) = match self.meta.as_of {
            None => (0u32, [0; 8]),
            Some(AsOf::Time(time)) => (1, time.unix_ms.to_le_bytes()),
            Some(AsOf::Position(position)) => (2, position.to_le_bytes()),
        };
        let mut flags = 0;
        let mut set = |flag, is: bool| flags |= if is { flag } else { 0 };
        set(FLAG_BASE, self.meta.base.is_some());
        set(FLAG_EXPIRY, self.first_expiry.is_some());
        let (salt_counter, fingerprint_bits, spread) = match self.body {
            Body::One { salt_counter } => (salt_counter, FINGERPRINT_BITS, buckets_for(self.ids)),
            Body::Sharded {
                shard_bits,
                lengths,
                ..
            } => {
                set(FLAG_LENGTHS, lengths);
                let bits = match self.meta.base {
                    None => FINGERPRINT_BITS,
                    Some(_) => (HASH_BYTES as u32).saturating_mul(8),
                };
                (0, bits, shard_bits.into())
            }
            Body::Filter => (0, 0, 0),
            Body::Graph { homes, .. } => (0, 0, homes),
        };
        let name = self.meta.dataset.as_str().as_bytes();

        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend(MAGIC);
        out.extend(self.format().to_le_bytes());
        out.extend((HEADER_BYTES as u32).to_le_bytes());
        out.extend(self.file_bytes()?.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(flags.to_le_bytes());
        out.extend(self.meta.version.to_le_bytes());
        out.extend(self.meta.base.unwrap_or(0).to_le_bytes());
        out.extend(as_of_kind.to_le_bytes());
        out.extend(salt_counter.to_le_bytes());
        out.extend(as_of);
        out.extend(self.key_id.0);
        out.extend(self.salt());
        out.extend(self.ids.to_le_bytes());
        out.extend(self.rows.to_le_bytes());
        out.extend(self.memberships.to_le_bytes());
        out.extend(self.segments.to_le_bytes());
        out.extend(fingerprint_bits.to_le_bytes());
        out.extend(u64::to_le_bytes(spread));
        out.extend(self.first_expiry.unwrap_or(0).to_le_bytes());
        out.extend((BLOCK_BYTES as u32).to_le_bytes());
        out.extend((self.sections.len() as u32).to_le_bytes());
        out.extend((name.len() as u32).to_le_bytes());
        out.extend(name);
        out.resize(NAME_AT.checked_add(NAME_FIELD_BYTES)?, 0);
        let (expiry_bits, root, removed, bins) = match self.body {
            Body::One { .. } => (0, 0, 0, BinShape::NONE),
            Body::Sharded {
                expiry_bits,
                root,
                removed,
                bins,
                ..
            } => (expiry_bits, root, removed, bins),
            Body::Filter | Body::Graph { .. } => (0, self.meta.version, 0, BinShape::NONE),
        };
        out.extend(u32::to_le_bytes(expiry_bits));
        out.extend(u64::to_le_bytes(root));
        out.extend(u64::to_le_bytes(removed));
        out.extend(u16::try_from(bins.bytes).ok()?.to_le_bytes());
        out.push(u8::try_from(bins.unit).ok()?);
        out.push(u8::try_from(bins.length_bits).ok()?);
        if let Body::Graph { persons, .. } = self.body {
            out.extend(persons.to_le_bytes());
        }
        out.resize(TABLE_AT, 0);
        for (number, (section, (offset, length))) in
            (1u32..).zip(self.sections.iter().zip(self.places()?))
        {
            out.extend(number.to_le_bytes());
            out.extend(section.crc.to_le_bytes());
            out.extend(offset.to_le_bytes());
            out.extend(length.to_le_bytes());
        }
        out.resize(HEADER_BYTES.checked_sub(HEADER_CRC_BYTES)?, 0);
        out.extend(crc32fast::hash(&out).to_le_bytes());
        out.try_into().ok()
    }

    /// Reads a header, and checks all that can be checked without the sections. `file_bytes` is the length of the file
    /// it was found in.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES], file_bytes: u64) -> Result<Self, Flaw> {
        let header = Self::take(bytes, file_bytes)?;
        header.check()?;
        if header.encode().as_ref() != Some(bytes) {
            return Err(Flaw::Contradiction("a header field"));
        }
        Ok(header)
    }

    fn take(bytes: &[u8], file_bytes: u64) -> Result<Self, Flaw> {
        let mut fields = Fields(bytes);
        if fields.array()? != MAGIC {
            return Err(Flaw::NotKith);
        }
        let format = fields.u32()?;
        if format > VERSION_FILE_FORMAT {
            return Err(Flaw::NewerFormat {
                found: format,
                known: VERSION_FILE_FORMAT,
            });
        }
        let (covered, crc) = bytes
            .split_last_chunk::<HEADER_CRC_BYTES>()
            .ok_or(Flaw::NotKith)?;
        if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
            return Err(Flaw::Damaged {
                part: "header",
                at: 0,
            });
        }
        let _header_bytes = fields.u32()?;
        let recorded = fields.u64()?;
        if recorded != file_bytes {
            return Err(Flaw::Length {
                recorded,
                found: file_bytes,
            });
        }
        let kind = match fields.u32()? {
            1 => Kind::Audience,
            2 => Kind::Filter,
            3 => Kind::Identity,
            _ => return Err(Flaw::Contradiction("the kind")),
        };
        let flags = fields.u32()?;
        let version = fields.u64()?;
        let base = fields.u64()?;
        let as_of_kind = fields.u32()?;
        let salt_counter = fields.u32()?;
        let as_of = fields.array::<8>()?;
        let as_of = match as_of_kind {
            1 => Some(AsOf::Time(Timestamp::from_unix_ms(i64::from_le_bytes(
                as_of,
            )))),
            2 => Some(AsOf::Position(u64::from_le_bytes(as_of))),
            _ => None,
        };
        let key_id = KeyId(fields.array()?);
        let _salt = fields.array::<16>()?;
        let ids = fields.u64()?;
        let rows = fields.u64()?;
        let memberships = fields.u64()?;
        let segments = fields.u32()?;
        let _fingerprint_bits = fields.u32()?;
        let spread = fields.u64()?;
        let since = i64::from_le_bytes(fields.array()?);
        let _block_bytes = fields.u32()?;
        let _sections = fields.u32()?;
        let name_bytes = fields.u32()?;
        let name = fields.array::<NAME_FIELD_BYTES>()?;
        let dataset = read_name(&name, name_bytes).ok_or(Flaw::Contradiction("the dataset"))?;
        let (body, sections) = if format < 2 {
            (Body::One { salt_counter }, 4)
        } else if kind == Kind::Filter {
            (Body::Filter, 3)
        } else if kind == Kind::Identity && format > 2 {
            // What is of shards and bins.
            let _reserved = fields.array::<24>()?;
            let body = Body::Graph {
                homes: spread,
                persons: fields.u64()?,
            };
            (body, 4)
        } else {
            let body = Body::Sharded {
                shard_bits: u32::try_from(spread).unwrap_or(u32::MAX),
                expiry_bits: fields.u32()?,
                lengths: flags & FLAG_LENGTHS != 0,
                root: fields.u64()?,
                removed: fields.u64()?,
                bins: match format {
                    2 => BinShape::NONE,
                    _ => BinShape {
                        bytes: u16::from_le_bytes(fields.array()?).into(),
                        unit: u8::from_le_bytes(fields.array()?).into(),
                        length_bits: u8::from_le_bytes(fields.array()?).into(),
                    },
                },
            };
            (body, 5)
        };
        let mut table = Fields(bytes.get(TABLE_AT..).unwrap_or_default());
        let sections = (0..sections).map(|_| {
            let _number = table.u32()?;
            let crc = table.u32()?;
            let _offset = table.u64()?;
            let length = table.u64()?;
            Ok(Section { length, crc })
        });
        Ok(Self {
            meta: VersionMeta {
                kind,
                dataset,
                version,
                base: (flags & FLAG_BASE != 0).then_some(base),
                as_of,
            },
            key_id,
            ids,
            rows,
            memberships,
            segments,
            first_expiry: (flags & FLAG_EXPIRY != 0).then_some(since),
            body,
            sections: sections.collect::<Result<_, Flaw>>()?,
        })
    }

    fn check(&self) -> Result<(), Flaw> {
        match (self.meta.kind, &self.body) {
            (Kind::Audience, Body::One { .. } | Body::Sharded { .. })
            | (Kind::Filter, Body::Filter)
            | (Kind::Identity, Body::Graph { .. }) => {}
            (Kind::Filter | Kind::Identity, _) => return Err(Flaw::Contradiction("the kind")),
            (other, _) => return Err(Flaw::KindNotReadYet(other)),
        }
        let is_delta = self.meta.base.is_some();
        let length_of = |count: u64, each: usize| count.checked_mul(each as u64);
        let blocks = self
            .blocks()
            .ok_or(Flaw::Contradiction("the section table"))?;
        let length = |at: usize| self.sections.get(at).map_or(0, |section| section.length);
        let (segment_table, records, checksums) = match self.body {
            Body::One { .. } => (length(0), length(2), length(3)),
            Body::Sharded { .. } => (length(3), length(self.records_at()), length(4)),
            Body::Filter => (length(1), length(0), length(2)),
            // It has no segments.
            Body::Graph { .. } => (0, length(0), length(3)),
        };
        let body_claims = match self.body {
            Body::One { salt_counter } => {
                let offsets = buckets_for(self.ids).checked_add(1);
                let directory = offsets.and_then(|n| length_of(n, OFFSET_BYTES));
                [
                    (salt_counter < SALTS_MAX && !is_delta, "the salt counter"),
                    (directory == Some(length(1)), "the length of the directory"),
                    (self.segments > 0, "the count of segments"),
                ]
            }
            Body::Sharded {
                shard_bits,
                expiry_bits,
                lengths,
                root,
                removed,
                bins,
            } => {
                let shards = 1u64.checked_shl(shard_bits).unwrap_or(0);
                let index = shards
                    .checked_add(1)
                    .and_then(|n| length_of(n, ENTRY_BYTES));
                let expires = self.first_expiry.is_some();
                [
                    (
                        shard_bits <= SHARD_BITS_MAX
                            && index == Some(length(self.records_at().saturating_add(1)))
                            && (bins == BinShape::NONE || bins.is_sound() && !lengths),
                        "the length of the index, or of a bin",
                    ),
                    (
                        expires == (expiry_bits > 0) && expiry_bits <= AT_ONCE,
                        "the bits of an expiry",
                    ),
                    (
                        match self.meta.base {
                            None => root <= self.meta.version && removed == 0 && self.segments > 0,
                            Some(base) => root <= base && base < self.meta.version,
                        },
                        "the version that it is based on",
                    ),
                ]
            }
            Body::Filter => [
                (
                    !is_delta && self.first_expiry.is_none(),
                    "a base or an expiry",
                ),
                (
                    self.segments == 1 && self.memberships == self.ids,
                    "the count of segments",
                ),
                // A head and at least one block.
                (
                    records > FILTER_BLOCK_BYTES as u64
                        && records.is_multiple_of(FILTER_BLOCK_BYTES as u64),
                    "the length of the filter",
                ),
            ],
            Body::Graph { homes, persons } => {
                let sources = length(2).checked_div(SOURCE_ENTRY_BYTES as u64);
                let sources = sources.unwrap_or(0);
                [
                    (
                        !is_delta && self.first_expiry.is_none() && self.segments == 0,
                        "a base, an expiry or segments",
                    ),
                    (
                        (1..=self.ids).contains(&persons) && self.memberships == self.ids,
                        "the count of persons",
                    ),
                    (
                        homes > 0
                            && table_bytes(homes) == Some(length(1))
                            && records <= GROUPS_BYTES_MAX
                            && records.is_multiple_of(LINE as u64)
                            && (1..=SOURCES_MAX as u64).contains(&sources)
                            && length_of(sources, SOURCE_ENTRY_BYTES) == Some(length(2)),
                        "the length of the groups, the table or the sources",
                    ),
                ]
            }
        };
        let claims = [
            (
                self.ids > 0 && self.rows >= self.ids && (is_delta || self.memberships >= self.ids),
                "the counts of ids, rows and memberships",
            ),
            (
                self.segments <= SEGMENTS_MAX
                    && (is_delta || u64::from(self.segments) <= self.memberships),
                "the count of segments",
            ),
            (
                length_of(self.segments.into(), SEGMENT_ENTRY_BYTES) == Some(segment_table),
                "the length of the segment table",
            ),
            (records <= RECORDS_BYTES_MAX, "the length of the records"),
            (
                length_of(blocks, 4) == Some(checksums),
                "the length of the checksums",
            ),
        ];
        match claims
            .into_iter()
            .chain(body_claims)
            .find(|(holds, _)| !holds)
        {
            Some((_, what)) => Err(Flaw::Contradiction(what)),
            None => Ok(()),
        }
    }

    /// How many block checksums the sections before the last need.
    fn blocks(&self) -> Option<u64> {
        let (_, covered) = self.sections.split_last()?;
        let mut covered = covered.iter();
        let bytes = covered.try_fold(0u64, |sum, section| sum.checked_add(section.length))?;
        Some(bytes.div_ceil(BLOCK_BYTES as u64))
    }
}

/// Where the dataset's name stands, and where the section table does.
const NAME_AT: usize = 148;
const TABLE_AT: usize = 256;

/// A name in a zero-padded field.
pub(super) fn read_name(field: &[u8; NAME_FIELD_BYTES], length: u32) -> Option<Name> {
    let (name, padding) = field.split_at_checked(usize::try_from(length).ok()?)?;
    if padding.iter().any(|&byte| byte != 0) {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// Takes fixed-width fields off the front of some bytes.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let (field, rest) = self
            .0
            .split_first_chunk()
            .ok_or(Flaw::Contradiction("a length"))?;
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Flaw> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Flaw> {
        self.array().map(u64::from_le_bytes)
    }
}
