//! Lines of an input, whatever it holds: cut in blocks, numbered, bounded in memory, checked to be UTF-8.
//!
//! [`Blocks`] cuts where lines end, counts them, and leaves out what no line may be; the [`Lines`] of a block can be taken
//! apart on any thread.

use std::io::{self, BufRead, ErrorKind};

use super::Refused;

/// Longest line in bytes, its end not counted: a row of 20,000 segments fits, a file without line ends is not kept.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Bytes of a block, unless its first line is longer.
pub(in super::super) const BLOCK_BYTES: usize = 1 << 20;
/// Bytes read at once of a line that is longer than a block.
const MORE_BYTES: usize = 64 << 10;

/// A byte order mark, which some exports put before the first line.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// One byte of a line end may have to be kept with the longest line, and a mark before it.
const KEPT_MAX: usize = LINE_BYTES_MAX + 1 + BOM.len();

/// Whole lines; the last one of an input may lack its end.
#[derive(Debug, Default)]
pub(in super::super) struct Block {
    bytes: Vec<u8>,
    /// Where the lines begin that are to be taken.
    from: usize,
    /// The number of the line there.
    line: u64,
}

/// Cuts an input.
pub(in super::super) struct Blocks<R> {
    input: R,
    block_bytes: usize,
    /// The beginning of the next block.
    rest: Vec<u8>,
    /// Lines so far.
    lines: u64,
    at_end: bool,
    refused: Vec<(u64, Refused)>,
}

impl<R: BufRead> Blocks<R> {
    pub(in super::super) fn new(input: R, block_bytes: usize) -> Self {
        Self {
            input,
            block_bytes,
            rest: Vec::new(),
            lines: 0,
            at_end: false,
            refused: Vec::new(),
        }
    }

    /// Whether there is no further block.
    pub(in super::super) fn is_at_end(&self) -> bool {
        self.at_end
    }

    /// Whether there is a line that was too long even to be kept.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.refused.first().map(|(_, refused)| refused.clone())
    }

    /// The lines that were too long even to be kept. It takes much input for many of them.
    pub(in super::super) fn take_refused(&mut self) -> Vec<(u64, Refused)> {
        std::mem::take(&mut self.refused)
    }

    /// The next block, in an empty buffer.
    pub(in super::super) fn next(&mut self, buffer: Vec<u8>) -> io::Result<Option<Block>> {
        if self.at_end {
            return Ok(None);
        }
        let mut bytes = buffer;
        bytes.append(&mut self.rest);
        let mut searched = 0;
        loop {
            if bytes.len() >= self.block_bytes {
                let new = bytes.get(searched..).unwrap_or_default();
                if let Some(end) = memchr::memrchr(b'\n', new) {
                    let end = searched + end + 1;
                    self.rest
                        .extend_from_slice(bytes.get(end..).unwrap_or_default());
                    bytes.truncate(end);
                    return Ok(Some(self.block(bytes)));
                }
                searched = bytes.len();
            }
            if bytes.len() > KEPT_MAX && memchr::memchr(b'\n', &bytes).is_none() {
                self.pass_line()?;
                self.lines += 1;
                self.refused.push((self.lines, Refused::TooLong));
                bytes.clear();
                searched = 0;
            }
            let room = self.block_bytes.saturating_sub(bytes.len());
            let room = if room == 0 { MORE_BYTES } else { room };
            let Some(seen) = fill(&mut self.input)? else {
                self.at_end = true;
                let any = !bytes.is_empty();
                return Ok(any.then(|| self.block(bytes)));
            };
            let part = seen.get(..room).unwrap_or(seen);
            bytes.extend_from_slice(part);
            let used = part.len();
            self.input.consume(used);
        }
    }

    fn block(&mut self, bytes: Vec<u8>) -> Block {
        let line = self.lines + 1;
        self.lines += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        Block {
            bytes,
            from: 0,
            line,
        }
    }

    /// Goes past the end of a line.
    fn pass_line(&mut self) -> io::Result<()> {
        while let Some(seen) = fill(&mut self.input)? {
            let end = memchr::memchr(b'\n', seen);
            let used = end.map_or(seen.len(), |end| end + 1);
            self.input.consume(used);
            if end.is_some() {
                break;
            }
        }
        Ok(())
    }
}

/// What the input has next; nothing at its end.
fn fill(input: &mut impl BufRead) -> io::Result<Option<&[u8]>> {
    // Asked twice, since what an answer borrows cannot be given up again.
    while let Err(e) = input.fill_buf() {
        if e.kind() != ErrorKind::Interrupted {
            return Err(e);
        }
    }
    let seen = input.fill_buf()?;
    Ok((!seen.is_empty()).then_some(seen))
}

impl Block {
    /// Its buffer, to be filled again.
    pub(in super::super) fn emptied(self) -> Vec<u8> {
        let mut bytes = self.bytes;
        bytes.clear();
        bytes
    }

    pub(in super::super) fn lines(&self) -> Lines<'_> {
        let bytes = self.bytes.get(self.from..).unwrap_or_default();
        Lines {
            text: simdutf8::basic::from_utf8(bytes).ok(),
            bytes,
            at: 0,
            number: self.line,
        }
    }

    /// Leaves out the lines that were taken.
    pub(super) fn begin_at(&mut self, taken: (usize, u64)) {
        self.from += taken.0;
        self.line = taken.1;
    }
}

/// Hands out the lines of a block that are not blank, without their ends.
pub(in super::super) struct Lines<'a> {
    bytes: &'a [u8],
    /// The same, where all of it is UTF-8.
    text: Option<&'a str>,
    at: usize,
    number: u64,
}

impl<'a> Lines<'a> {
    /// How far it came, and the number of the next line.
    pub(super) fn taken(&self) -> (usize, u64) {
        (self.at, self.number)
    }

    /// The next line that is not blank, with its number.
    #[inline]
    pub(super) fn next(&mut self) -> Option<(u64, Result<&'a str, Refused>)> {
        loop {
            let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
            let end = memchr::memchr(b'\n', rest);
            let mut start = self.at;
            let mut line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            self.at += end.map_or(rest.len(), |end| end + 1);
            let number = self.number;
            self.number += 1;
            let whole = line.len() <= KEPT_MAX;
            if number == 1 && line.starts_with(BOM) {
                line = line.get(BOM.len()..).unwrap_or_default();
                start += BOM.len();
            }
            if let [before @ .., b'\r'] = line {
                line = before;
            }
            if whole && line.trim_ascii_start().is_empty() {
                continue;
            }
            if !whole || line.len() > LINE_BYTES_MAX {
                return Some((number, Err(Refused::TooLong)));
            }
            let text = match self.text {
                Some(text) => text.get(start..start + line.len()),
                None => simdutf8::basic::from_utf8(line).ok(),
            };
            return Some((number, text.ok_or(Refused::NotUtf8)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use proptest::prelude::*;

    /// All lines of an input, cut in blocks of so many bytes.
    fn lines(input: impl BufRead, block_bytes: usize) -> Vec<(u64, Result<String, Refused>)> {
        let mut blocks = Blocks::new(input, block_bytes);
        let mut all = Vec::new();
        while let Some(block) = blocks.next(Vec::new()).expect("readable") {
            let mut lines = block.lines();
            while let Some((number, line)) = lines.next() {
                all.push((number, line.map(str::to_owned)));
            }
        }
        all.extend(blocks.take_refused().into_iter().map(|(n, r)| (n, Err(r))));
        all.sort_by_key(|(number, _)| *number);
        all
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_the_longest_allowed() {
        let endless = io::repeat(b'x').take(20 * LINE_BYTES_MAX as u64);
        let input = io::BufReader::new(endless.chain(&b"\nnext"[..]));
        let mut blocks = Blocks::new(input, BLOCK_BYTES);
        let block = blocks.next(Vec::new()).expect("readable").expect("a block");
        assert_eq!(blocks.take_refused(), [(1, Refused::TooLong)]);
        assert_eq!(block.lines().next(), Some((2, Ok("next"))));
        assert!(block.bytes.capacity() <= 3 * LINE_BYTES_MAX);
        assert!(blocks.next(Vec::new()).expect("readable").is_none());
    }

    #[test]
    fn the_longest_line_is_taken_whatever_a_block_is() {
        let long = "x".repeat(LINE_BYTES_MAX);
        for (line, is_taken) in [
            (format!("\u{feff}{long}\r\n"), true),
            (format!("{long}x\n"), false),
            (format!("{long}\r\r\n"), false),
            (format!("{long}xxxxxxxx"), false),
        ] {
            for block in [1, 1000, BLOCK_BYTES, 3 * BLOCK_BYTES] {
                let told = lines(line.as_bytes(), block);
                assert_eq!(told.len(), 1);
                assert_eq!(told[0].0, 1);
                assert_eq!(told[0].1.is_ok(), is_taken, "{block}");
            }
        }
    }

    proptest! {
        /// However it is cut, lines are what they are.
        #[test]
        fn blocks_leave_no_trace(text in "(\u{feff})?[ab\r\n\u{e9} ]{0,60}", block in 1usize..70, read in 1usize..70) {
            let naive = text.strip_prefix('\u{feff}').unwrap_or(&text);
            let naive = (1u64..).zip(naive.split('\n'));
            let naive = naive.map(|(n, line)| (n, line.strip_suffix('\r').unwrap_or(line)));
            let naive = naive.filter(|(_, line)| !line.as_bytes().trim_ascii().is_empty());
            let naive: Vec<_> = naive.map(|(n, line)| (n, Ok(line.to_owned()))).collect();
            let input = io::BufReader::with_capacity(read, text.as_bytes());
            prop_assert_eq!(lines(input, block), naive);
        }
    }
}
