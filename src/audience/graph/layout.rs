//! How a graph stands in its file: groups of ids, the table that leads to them, and the names of sources.
//!
//! ```text
//! group:   person's key (16 bytes) | ids (2) | source of each id (2 each) | zeros to 16 | key of each id (16 each)
//! table:   lines of 64 bytes: eight entries of 8
//! entry:   bits 0 to 32: 1 + where the group begins, in units of 16 bytes; bits 33 to 63: 31 bits of the key
//! source:  ids from it (8 bytes) | length (2) | name, then zeros (254)
//! ```
//!
//! Keys are user keys, hashes under a secret, and so as good as random: their highest 64 bits say which line is a key's
//! *home*, their lowest 31 what is kept of them in the entry. Entries stand in the order of keys' highest bits, each at the first
//! place that is in its home or behind it and behind the entry before; so the same keys make the same table. As many lines are added
//! behind the last home as a search goes through, so it never wraps around.
//!
//! Cost: a line for five keys, 12.8 bytes a key; a group of `n` ids takes `16 × (1 + n) + 2 + 2 n` bytes, rounded up to 16.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::ids::{SOURCE_BYTES_MAX, UserKey};

/// A line of the cache, and of the table.
pub(in super::super) const LINE: usize = 64;
/// Bytes of a key; groups begin at a multiple of it.
pub(in super::super) const KEY_BYTES: usize = 16;
/// Bytes of an entry of the table.
pub(in super::super) const SLOT_BYTES: usize = 8;
/// Entries of a line.
pub(in super::super) const SLOTS: usize = LINE.strict_div(SLOT_BYTES);
/// Keys a line is meant for. Of eight entries five are then taken, and one line in six is full.
const KEYS_PER_LINE: u64 = 5;
/// Lines that a search goes through at most. By chance no key is so far from home: one of 10⁸ would be three lines away.
pub(in super::super) const STEPS_MAX: usize = 8;
/// Most ids of one person, whatever is configured.
pub const IDS_PER_PERSON_MAX: usize = 64;
/// Most sources of one version.
pub const SOURCES_MAX: usize = 4096;
/// One entry of the table of sources.
pub(in super::super) const SOURCE_ENTRY_BYTES: usize = 264;
/// The source of persons' own keys, of which no id may be.
pub const PERSON_SOURCE: &str = "person";

/// Bits of where a group begins.
const PLACE_BITS: u32 = 33;
const PLACE_MASK: u64 = (1u64 << PLACE_BITS).strict_sub(1);
/// Most bytes of groups that an entry can point into: 128 GiB.
pub(in super::super) const GROUPS_BYTES_MAX: u64 = PLACE_MASK.strict_mul(KEY_BYTES as u64);

/// The bits of a key that say where it is at home.
pub(in super::super) fn spread(key: u128) -> u64 {
    // The high half of 128 bits fits.
    u64::try_from(key >> 64).unwrap_or(u64::MAX)
}

/// Which line is a spread's home, of so many.
#[inline]
pub(in super::super) fn home(spread: u64, homes: u64) -> u64 {
    // The high half of a product that never reaches `homes`.
    let product = u128::from(spread).wrapping_mul(u128::from(homes));
    u64::try_from(product >> 64).unwrap_or(u64::MAX)
}

/// How many homes a table for so many keys has.
pub(in super::super) fn homes_for(keys: u64) -> u64 {
    keys.div_ceil(KEYS_PER_LINE).max(1)
}

/// The bytes of a table of so many homes.
pub(in super::super) fn table_bytes(homes: u64) -> Option<u64> {
    let behind = (STEPS_MAX as u64).checked_sub(1)?;
    homes.checked_add(behind)?.checked_mul(LINE as u64)
}

/// Which group a key is in: a place, and what is kept of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Entry(u64);

impl Entry {
    /// Of a key whose group begins at this byte; nothing where an entry cannot say so.
    pub(in super::super) fn new(key: u128, at: u64) -> Option<Self> {
        let place = at.checked_div(KEY_BYTES as u64)?.checked_add(1)?;
        (at.is_multiple_of(KEY_BYTES as u64) && place <= PLACE_MASK)
            .then(|| Self(kept(key) | place))
    }

    #[inline]
    pub(in super::super) fn read(bytes: [u8; SLOT_BYTES]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }

    pub(in super::super) fn bytes(self) -> [u8; SLOT_BYTES] {
        self.0.to_le_bytes()
    }

    /// Whether nothing stands here, nor behind it.
    #[inline]
    pub(in super::super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it may be this key's.
    #[inline]
    pub(in super::super) fn is_of(self, key: u128) -> bool {
        self.0 & !PLACE_MASK == kept(key)
    }

    /// At which byte of the groups its group begins.
    #[inline]
    pub(in super::super) fn at(self) -> Option<usize> {
        let place = (self.0 & PLACE_MASK).checked_sub(1)?;
        usize::try_from(place).ok()?.checked_mul(KEY_BYTES)
    }
}

/// The lowest 31 bits of a key, at the top.
#[inline]
fn kept(key: u128) -> u64 {
    (key as u64) << PLACE_BITS
}

/// A person's key and her ids.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Group<'a> {
    pub(in super::super) person: UserKey,
    /// The source of each id, by its place in the table of sources.
    sources: &'a [[u8; 2]],
    keys: &'a [[u8; KEY_BYTES]],
    /// What stands between, which is zeros.
    padding: &'a [u8],
}

/// The bytes before the keys of a group of so many ids, but for the person's own.
fn sources_bytes(ids: usize) -> Option<usize> {
    let bytes = ids.checked_mul(2)?.checked_add(2)?;
    bytes.checked_next_multiple_of(KEY_BYTES)
}

impl<'a> Group<'a> {
    /// The group that begins where these bytes do; nothing where none can.
    #[inline]
    pub(in super::super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (person, rest) = bytes.split_first_chunk::<KEY_BYTES>()?;
        let count = usize::from(u16::from_le_bytes(*rest.first_chunk::<2>()?));
        if !(1..=IDS_PER_PERSON_MAX).contains(&count) {
            return None;
        }
        let (sources, rest) = rest.split_at_checked(sources_bytes(count)?)?;
        let keys = rest.get(..count.checked_mul(KEY_BYTES)?)?;
        let (sources, padding) = sources.get(2..)?.split_at_checked(count.checked_mul(2)?)?;
        Some(Self {
            person: UserKey(u128::from_le_bytes(*person)),
            sources: sources.as_chunks().0,
            keys: keys.as_chunks().0,
            padding,
        })
    }

    /// The ids' keys, each with the place of its source.
    #[inline]
    pub(in super::super) fn ids(self) -> impl ExactSizeIterator<Item = (UserKey, u16)> + 'a {
        let keys = self.keys.iter().zip(self.sources);
        keys.map(|(key, source)| {
            (
                UserKey(u128::from_le_bytes(*key)),
                u16::from_le_bytes(*source),
            )
        })
    }

    /// Whether the key is the person's or one of her ids'.
    #[inline]
    pub(in super::super) fn has(self, key: UserKey) -> bool {
        let wanted = key.0.to_le_bytes();
        self.person == key || self.keys.contains(&wanted)
    }

    pub(in super::super) fn is_padded_with_zeros(self) -> bool {
        self.padding.iter().all(|byte| *byte == 0)
    }

    /// The bytes that it takes.
    pub(in super::super) fn bytes(self) -> Option<usize> {
        let sources = sources_bytes(self.keys.len())?;
        let keys = self.keys.len().checked_add(1)?.checked_mul(KEY_BYTES)?;
        sources.checked_add(keys)
    }

    /// Appends a group of these ids, ascending by key; nothing where they are none or too many.
    pub(in super::super) fn write(
        out: &mut Vec<u8>,
        person: u128,
        ids: impl ExactSizeIterator<Item = (u128, u16)> + Clone,
    ) -> Option<()> {
        let count = ids.len();
        let head = sources_bytes(count)?;
        let fits = (1..=IDS_PER_PERSON_MAX).contains(&count);
        let count = u16::try_from(count).ok().filter(|_| fits)?;
        out.extend(person.to_le_bytes());
        let end = out.len().checked_add(head)?;
        out.extend(count.to_le_bytes());
        for (_, source) in ids.clone() {
            out.extend(source.to_le_bytes());
        }
        out.resize(end, 0);
        for (key, _) in ids {
            out.extend(key.to_le_bytes());
        }
        Some(())
    }
}

/// A source, and how many ids are from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Source {
    pub(in super::super) name: Box<str>,
    pub(in super::super) ids: u64,
}

impl Source {
    pub(in super::super) fn bytes(&self) -> Option<[u8; SOURCE_ENTRY_BYTES]> {
        let length = u16::try_from(self.name.len()).ok()?;
        let mut out = Vec::with_capacity(SOURCE_ENTRY_BYTES);
        out.extend(self.ids.to_le_bytes());
        out.extend(length.to_le_bytes());
        out.extend(self.name.as_bytes());
        let fits = self.name.len() <= SOURCE_BYTES_MAX;
        out.resize(SOURCE_ENTRY_BYTES, 0);
        out.try_into().ok().filter(|_| fits)
    }

    /// A source in normal form; nothing where the bytes are no way to write one.
    pub(in super::super) fn read(entry: &[u8; SOURCE_ENTRY_BYTES]) -> Option<Self> {
        let (ids, rest) = entry.split_first_chunk::<8>()?;
        let (length, field) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_le_bytes(*length));
        let (name, padding) = field.split_at_checked(length)?;
        let name = std::str::from_utf8(name).ok()?;
        let in_form = (1..=SOURCE_BYTES_MAX).contains(&length)
            && name.trim() == name
            && name
                .bytes()
                .all(|b| !b.is_ascii_uppercase() && b != b' ' && !b.is_ascii_control());
        let is_padded = padding.iter().all(|byte| *byte == 0);
        (in_form && is_padded && name != PERSON_SOURCE).then(|| Self {
            name: name.into(),
            ids: u64::from_le_bytes(*ids),
        })
    }
}
