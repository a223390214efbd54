//! The journal as segment jobs read it, and its files.
//!
//! `people/journal/<first row>-<hour>.log` are the files as they are written, frames of lines; when one is closed its lines are compressed
//! into `people/feed/<hour>-<first row>.ndjson.gz` beside, without those of ids that were erased meanwhile, and it is removed once a checkpoint
//! has all of it. Both go when they are older than `people.retention`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::Known;
use super::frames;
use super::rows::owner;
use crate::clock::Timestamp;
use crate::ids::Keyer;
use crate::storage::{Storage, open_to_read};

/// The checkpoint, in the data directory.
pub(super) const CHECKPOINT: &str = "people/checkpoint";
const JOURNAL: &str = "people/journal";
const FEED: &str = "people/feed";
pub(super) const JOURNAL_MAGIC: &[u8; 8] = b"KITHPJL1";
/// Longest page, about.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Rows of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// A line of JSON each.
    pub lines: Vec<u8>,
    /// Up to which row: to go on from.
    pub last: u64,
    /// How many.
    pub rows: usize,
}

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// It is not kept any more.
    #[error(
        "rows up to {gone} are not kept any more (people.retention); begin with a full read of your sources, then go on after {gone}"
    )]
    Gone {
        /// The last that is gone.
        gone: u64,
    },
    /// Nobody can have read so far.
    #[error(
        "the journal's last row is {last}: what you go on after is not of this journal, which was perhaps brought back from a backup; begin with a full read of your sources, then go on after {last}"
    )]
    Ahead {
        /// The last row.
        last: u64,
    },
    /// A file.
    #[error("the journal could not be read: {0}")]
    Io(#[from] io::Error),
}

/// A file of the journal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece {
    /// Its first row's number.
    pub(super) first: u64,
    /// Of 1970.
    pub(super) hour: i64,
    /// Inside the data directory.
    pub(super) path: PathBuf,
}

/// Where rows from this one on are journalled, in that hour.
pub(super) fn journal_file(first: u64, hour: i64) -> PathBuf {
    Path::new(JOURNAL).join(format!("{first:020}-{hour}.log"))
}

fn feed_file(piece: &Piece) -> PathBuf {
    let hour = Timestamp::from_unix_seconds(piece.hour.saturating_mul(3600)).to_string();
    let hour = hour.get(..13).unwrap_or(&hour);
    Path::new(FEED).join(format!(
        "{hour}Z-{:020}-{}.ndjson.gz",
        piece.first, piece.hour
    ))
}

fn pieces(dir: &Path, folder: &str, end: &str) -> io::Result<Vec<Piece>> {
    let entries = match std::fs::read_dir(dir.join(folder)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut all = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let piece = name.to_str().and_then(|name| {
            let mut parts = name.strip_suffix(end)?.rsplitn(3, '-');
            let hour = parts.next()?.parse().ok()?;
            let first = parts.next()?.parse().ok()?;
            let path = Path::new(folder).join(name);
            Some(Piece { first, hour, path })
        });
        all.extend(piece);
    }
    all.sort();
    Ok(all)
}

/// The journal's files, in the order of their rows.
pub(super) fn journals(dir: &Path) -> io::Result<Vec<Piece>> {
    pieces(dir, JOURNAL, ".log")
}

/// What is compressed of them.
pub(super) fn compressed(dir: &Path) -> io::Result<Vec<Piece>> {
    pieces(dir, FEED, ".ndjson.gz")
}

/// Whether a line is of an id that was erased, and is not what says so.
fn is_erased(line: &[u8], known: &Known, keyer: &Keyer) -> bool {
    !known.is_empty()
        && owner(line, keyer).is_some_and(|(key, says_so)| !says_so && known.standing(key).erased)
}

/// Writes a closed file's lines compressed.
pub(super) fn compress(
    storage: &Storage,
    piece: &Piece,
    known: &Known,
    keyer: &Keyer,
) -> io::Result<()> {
    let out = storage.create()?;
    let mut packed = GzEncoder::new(out, Compression::default());
    let file = open_to_read(&storage.dir().join(&piece.path))?;
    let mut written = Ok(());
    let read = frames::read(
        BufReader::with_capacity(1 << 18, file),
        JOURNAL_MAGIC,
        |body| {
            for line in body.split_inclusive(|byte| *byte == b'\n') {
                if written.is_ok() && !is_erased(line, known, keyer) {
                    written = packed.write_all(line);
                }
            }
            true
        },
    );
    written?;
    read.map_err(|error| io::Error::other(error.to_string()))?;
    packed.finish()?.commit(&feed_file(piece))?;
    Ok(())
}

/// Up to `rows_max` rows after that one.
pub(super) fn page(
    dir: &Path,
    known: &Known,
    keyer: &Keyer,
    after: u64,
    rows_max: usize,
) -> Result<Page, FeedError> {
    let visible = known.sequence();
    let mut page = Page {
        last: after,
        ..Page::default()
    };
    // What is there in both forms is read as it was written.
    let mut all: BTreeMap<u64, (Piece, bool)> = BTreeMap::new();
    for piece in compressed(dir)? {
        all.insert(piece.first, (piece, true));
    }
    for piece in journals(dir)? {
        all.insert(piece.first, (piece, false));
    }
    if after > visible {
        return Err(FeedError::Ahead { last: visible });
    }
    let wanted = after.saturating_add(1);
    if wanted > visible {
        return Ok(page);
    }
    let begin = all.range(..=wanted).next_back().map(|(first, _)| *first);
    let Some(begin) = begin else {
        let first = all
            .keys()
            .next()
            .copied()
            .unwrap_or(visible.saturating_add(1));
        let gone = first.saturating_sub(1);
        return Err(FeedError::Gone { gone });
    };
    let mut is_cut = false;
    let mut line_of = |line: &[u8]| -> bool {
        let Some(sequence) = sequence_of(line) else {
            return true;
        };
        let is_enough = page.rows >= rows_max || page.lines.len() >= PAGE_BYTES_MAX;
        if sequence > visible || is_enough && sequence > after {
            is_cut = true;
            return false;
        }
        if sequence > after {
            page.last = sequence;
            if !is_erased(line, known, keyer) {
                page.lines.extend_from_slice(line);
                page.rows += 1;
            }
        }
        true
    };
    for (piece, is_packed) in all.range(begin..).map(|(_, piece)| piece) {
        let file = open_to_read(&dir.join(&piece.path))?;
        let goes_on = match is_packed {
            true => packed_lines(file, &mut line_of)?,
            false => raw_lines(file, &mut line_of)?,
        };
        if !goes_on {
            break;
        }
    }
    if !is_cut && page.last < visible {
        let told = format!(
            "rows {} to {visible} should be there and are not: a file under people/journal or people/feed is damaged",
            page.last.saturating_add(1)
        );
        return Err(io::Error::other(told).into());
    }
    Ok(page)
}

fn packed_lines(file: File, each: &mut impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
    let mut lines = BufReader::with_capacity(1 << 16, MultiGzDecoder::new(BufReader::new(file)));
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(true);
        }
        if !each(&line) {
            return Ok(false);
        }
    }
}

fn raw_lines(file: impl Read, each: &mut impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
    let mut goes_on = true;
    let from = BufReader::with_capacity(1 << 18, file);
    let read = frames::read(from, JOURNAL_MAGIC, |body| {
        for line in body.split_inclusive(|byte| *byte == b'\n') {
            goes_on = goes_on && each(line);
        }
        // What is not wanted any more need not be read.
        goes_on
    });
    match read {
        Ok(_) => Ok(goes_on),
        Err(frames::Unread::Senseless { .. }) if !goes_on => Ok(false),
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

/// The number that a line begins with.
fn sequence_of(line: &[u8]) -> Option<u64> {
    let digits = line.strip_prefix(b"{\"sequence\":")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}
