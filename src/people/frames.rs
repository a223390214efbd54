//! Frames: what the journal, the log of erasures and checkpoints are written in.
//!
//! A frame is a mark (4 bytes), the length of its body and the CRC-32 of length and body (both u32, little-endian), and the body. What a
//! crash leaves at the end of a file, a frame that is cut or does not match its checksum, was never acknowledged and is cut off. The
//! same with a whole frame behind it is damage, for which somebody must decide.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io::{self, Read};

const MARK: [u8; 4] = *b"\x8bKPF";
const HEAD_BYTES: usize = 12;
/// Longest body.
pub(super) const BODY_BYTES_MAX: usize = 64 << 20;

/// Parts are cut about so long, each a frame.
pub(super) const PART_BYTES: usize = 1 << 20;

/// Appends lines, in frames of some of them, so that none is longer than what is read. A line itself must not be.
pub(super) fn write_lines(mut lines: &[u8], part_bytes: usize, into: &mut Vec<u8>) {
    while !lines.is_empty() {
        let last = lines
            .get(..part_bytes)
            .and_then(|part| memchr::memrchr(b'\n', part));
        let next = || memchr::memchr(b'\n', lines);
        let end = match lines.len() <= part_bytes {
            true => None,
            false => last.or_else(next),
        };
        let end = end.map_or(lines.len(), |end| end.saturating_add(1));
        let (part, rest) = lines.split_at_checked(end).unwrap_or((lines, &[]));
        write(part, into);
        lines = rest;
    }
}

/// Appends a frame, of at most [`BODY_BYTES_MAX`].
pub(super) fn write(body: &[u8], into: &mut Vec<u8>) {
    debug_assert!((1..=BODY_BYTES_MAX).contains(&body.len()), "{}", body.len());
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    into.extend_from_slice(&MARK);
    into.extend_from_slice(&length);
    into.extend_from_slice(&checksum(length, body).to_le_bytes());
    into.extend_from_slice(body);
}

fn checksum(length: [u8; 4], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length);
    crc.update(body);
    crc.finalize()
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it does not begin as such a file does")]
    Magic,
    #[error("byte {at} and what follows is damaged, and there is more behind it")]
    Damaged { at: u64 },
    #[error("what its checksum vouches for makes no sense, from byte {at} on")]
    Senseless { at: u64 },
}

/// Reads a file that begins with `magic`, frame by frame; `each` is handed a body and says whether it makes sense. The number of bytes up
/// to the last whole frame; 0 where not even the magic is whole.
pub(super) fn read(
    mut from: impl Read,
    magic: &[u8; 8],
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<u64, Unread> {
    let mut begin = Vec::new();
    from.by_ref().take(8).read_to_end(&mut begin)?;
    if begin.len() < magic.len() && magic.starts_with(&begin) {
        return Ok(0);
    }
    if begin != magic {
        return Err(Unread::Magic);
    }
    let mut at = magic.len() as u64;
    let mut body = Vec::new();
    loop {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        from.by_ref()
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut head)?;
        if head.is_empty() {
            return Ok(at);
        }
        body.clear();
        let told = lengths(&head);
        if let Some((length, _)) = told {
            from.by_ref().take(length as u64).read_to_end(&mut body)?;
        }
        let is_whole = told.is_some_and(|(length, crc)| {
            let bytes = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
            body.len() == length && checksum(bytes, &body) == crc
        });
        if !is_whole {
            let mut rest = head;
            rest.append(&mut body);
            from.read_to_end(&mut rest)?;
            return match has_frame(rest.get(1..).unwrap_or_default()) {
                true => Err(Unread::Damaged { at }),
                false => Ok(at),
            };
        }
        if !each(&body) {
            return Err(Unread::Senseless { at });
        }
        let bytes = HEAD_BYTES.saturating_add(body.len());
        at = at.saturating_add(bytes as u64);
    }
}

fn lengths(head: &[u8]) -> Option<(usize, u32)> {
    let rest = head.strip_prefix(&MARK)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (crc, _) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    (1..=BODY_BYTES_MAX)
        .contains(&length)
        .then_some((length, u32::from_le_bytes(*crc)))
}

/// Whether a whole frame begins anywhere.
fn has_frame(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, &MARK).any(|at| {
        let from = bytes.get(at..).unwrap_or_default();
        lengths(from).is_some_and(|(length, crc)| {
            let end = HEAD_BYTES.saturating_add(length);
            let body = from.get(HEAD_BYTES..end);
            let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
            body.is_some_and(|body| checksum(length, body) == crc)
        })
    })
}

/// Numbers and texts, little-endian, one behind the other.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*chunk)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.chunk().map(u128::from_le_bytes)
    }

    /// Behind its length.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
    use super::*;

    /// Whatever is written is read: the same lines, in frames that are not longer than they may be.
    #[test]
    fn lines_are_cut_into_frames_that_are_read() {
        for part in [1, 2, 3, 7, 8, 9, 64] {
            for lines in [
                "",
                "a\n",
                "a\nbc\n\nlonger than seven\n",
                "1234567\n12345678\n123456\n",
                "no end",
            ] {
                let mut file = MAGIC.to_vec();
                write_lines(lines.as_bytes(), part, &mut file);
                let (end, found) = bodies(&file).expect("whole");
                assert_eq!(
                    (end, found.concat()),
                    (file.len() as u64, lines.as_bytes().to_vec())
                );
                for body in &found {
                    let inner = body.strip_suffix(b"\n").unwrap_or(body);
                    assert!(
                        body.len() <= part || !inner.contains(&b'\n'),
                        "{part}: {body:?}"
                    );
                }
            }
        }
    }

    const MAGIC: &[u8; 8] = b"FRAMETST";

    fn bodies(file: &[u8]) -> Result<(u64, Vec<Vec<u8>>), Unread> {
        let mut all = Vec::new();
        let end = read(file, MAGIC, |body| {
            all.push(body.to_vec());
            true
        })?;
        Ok((end, all))
    }

    #[test]
    fn every_cut_leaves_what_was_whole_and_every_flip_is_found() {
        let mut file = MAGIC.to_vec();
        let mut ends = vec![file.len()];
        for body in [&b"one"[..], b"and another", b"x"] {
            write(body, &mut file);
            ends.push(file.len());
        }
        for cut in 0..=file.len() {
            let (end, all) = bodies(&file[..cut]).expect("a crash's end");
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let want = if cut < 8 { 0 } else { ends[whole - 1] };
            assert_eq!(
                (end, all.len()),
                (want as u64, whole.saturating_sub(1)),
                "{cut}"
            );
        }
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 4;
            let last = ends[ends.len() - 2];
            match bodies(&bad) {
                Ok((end, all)) => {
                    assert!(at >= last, "a flip at {at} is no end");
                    assert_eq!((end, all.len()), (last as u64, 2));
                }
                Err(Unread::Magic) => assert!(at < 8),
                Err(Unread::Damaged { .. }) => assert!((8..last).contains(&at), "{at}"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}
