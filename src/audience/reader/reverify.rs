//! Verified once more: whether bytes that were a version are still those that were written.
//!
//! Disks and memory rot, so what was verified at opening is not so for ever. [`reverify`] goes through a version as it stands
//! now, block by block, against the checksums of its own header, and takes no memory but a block and the list of sums, 64 bytes a
//! megabyte. It does not walk the records again: checksums that match prove that these are the bytes that were walked. How fast
//! it goes, and whether it goes on, says who calls, after each block.
//!
//! Cost: reading, and a CRC-32 over it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use super::verify::{Frame, ReadAt};
use super::{AudienceFile, Flaw};
use crate::audience::format::{BLOCK_BYTES, HEADER_BYTES, Header, VERSION_FILE_FORMAT};
use crate::audience::{Audience, Filter, Graph, Version, VersionMeta};
use crate::ids::KeyId;

/// Where a header names its format.
const FORMAT_AT: Range<usize> = 8..12;

/// Told after each block how many bytes it had; `false` ends the work, which is then not done.
pub type Pace<'a> = &'a mut dyn FnMut(usize) -> bool;

/// What a file says of itself whose bytes are whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    /// The version that it is.
    pub meta: VersionMeta,
    /// The key that it was made under.
    pub key_id: KeyId,
}

/// Whether a version is as it was written; nothing where `pace` ended it before that was known.
fn reverify(length: u64, read_at: ReadAt<'_>, pace: Pace<'_>) -> Result<Option<Header>, Flaw> {
    let frame = Frame::read(length, read_at).map_err(|flaw| match flaw {
        Flaw::NewerFormat { .. } if was_read_here(length, read_at) => Flaw::Damaged {
            part: "header",
            at: 0,
        },
        other => other,
    })?;
    let mut block = vec![0; BLOCK_BYTES];
    let starts = (HEADER_BYTES..frame.sums_at).step_by(BLOCK_BYTES);
    for (number, at) in starts.enumerate() {
        let left = frame.sums_at.saturating_sub(at).min(BLOCK_BYTES);
        let block = block.get_mut(..left).unwrap_or_default();
        read_at(block, at as u64)?;
        frame.check(number, block)?;
        if !pace(left) {
            return Ok(None);
        }
    }
    Ok(Some(frame.header))
}

/// Whether a header that names a later format is one of ours but for that name: damaged, not of a newer Kith.
fn was_read_here(length: u64, read_at: ReadAt<'_>) -> bool {
    let mut bytes = [0; HEADER_BYTES];
    if read_at(&mut bytes, 0).is_err() {
        return false;
    }
    (1..=VERSION_FILE_FORMAT).any(|format| {
        if let Some(field) = bytes.get_mut(FORMAT_AT) {
            field.copy_from_slice(&format.to_le_bytes());
        }
        Header::decode(&bytes, length).is_ok()
    })
}

impl Version {
    /// Whether a version file is as it was written, and what it then says of itself; nothing where `pace` ended it.
    ///
    /// # Errors
    /// Where it cannot be read, is no version file, or is damaged.
    pub fn reverify(file: &File, pace: Pace<'_>) -> Result<Option<Stated>, Flaw> {
        let length = file.metadata()?.len();
        let read_at = |bytes: &mut [u8], at| file.read_exact_at(bytes, at);
        let header = reverify(length, &read_at, pace)?;
        Ok(header.map(|header| Stated {
            key_id: header.key_id,
            meta: header.meta,
        }))
    }
}

impl AudienceFile {
    /// The file's bytes, as they are held.
    pub fn file(&self) -> &[u8] {
        &self.memory
    }

    /// Whether the bytes held are those that were read; `false` where `pace` ended it before that was known.
    ///
    /// # Errors
    /// Where memory has changed.
    pub fn reverify(&self, pace: Pace<'_>) -> Result<bool, Flaw> {
        held(&self.memory, &self.header, pace)
    }

    /// The same version with one bit of what is held the other way, as failing memory would have it.
    #[cfg(test)]
    pub(crate) fn with_flipped_bit(mut self, at: usize, bit: u8) -> Self {
        use crate::audience::memory::{Memory, zeroed};
        let mut copy = zeroed(self.memory.len()).expect("memory");
        copy.copy_from_slice(&self.memory);
        *copy.get_mut(at).expect("a byte") ^= 1 << bit;
        self.memory = Memory::freeze(copy).expect("read-only");
        self
    }
}

impl Audience {
    /// Whether the bytes held, of the full version and of what deltas changed, are those that were read or made; `false` where
    /// `pace` ended it before that was known.
    ///
    /// # Errors
    /// Where memory has changed.
    pub fn reverify(&self, pace: Pace<'_>) -> Result<bool, Flaw> {
        if !self.base().reverify(pace)? {
            return Ok(false);
        }
        self.changed()
            .map_or(Ok(true), |layer| layer.reverify(pace))
    }
}

impl Filter {
    /// The file's bytes, as they are held.
    pub fn file(&self) -> &[u8] {
        self.set().held()
    }

    /// Whether the bytes held are those that were read; `false` where `pace` ended it before that was known.
    ///
    /// # Errors
    /// Where memory has changed.
    pub fn reverify(&self, pace: Pace<'_>) -> Result<bool, Flaw> {
        held(self.file(), self.header(), pace)
    }
}

impl Graph {
    /// The file's bytes, as they are held.
    pub fn file(&self) -> &[u8] {
        self.held()
    }

    /// Whether the bytes held are those that were read; `false` where `pace` ended it before that was known.
    ///
    /// # Errors
    /// Where memory has changed.
    pub fn reverify(&self, pace: Pace<'_>) -> Result<bool, Flaw> {
        held(self.file(), self.header(), pace)
    }
}

fn held(memory: &[u8], header: &Header, pace: Pace<'_>) -> Result<bool, Flaw> {
    let read_at = |bytes: &mut [u8], at: u64| {
        let from = usize::try_from(at).ok();
        let range = from.and_then(|from| {
            Some(Range {
                start: from,
                end: from.checked_add(bytes.len())?,
            })
        });
        let part = range.and_then(|range| memory.get(range));
        bytes.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    match reverify(memory.len() as u64, &read_at, pace)? {
        None => Ok(false),
        Some(now) if now == *header => Ok(true),
        Some(_) => Err(Flaw::Contradiction("the header")),
    }
}
