//! Lines of an input, whatever it holds: numbered, bounded in memory, checked to be UTF-8.

use std::io::{self, BufRead, ErrorKind};

use super::Refused;

/// Longest line in bytes, its end not counted: a row of 20,000 segments fits, a file without line ends is not kept.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// A byte order mark, which some exports put before the first line.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Hands out lines that are not blank, without their ends.
pub(super) struct Lines<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            line: Vec::new(),
            number: 0,
        }
    }

    /// The next line that is not blank, with its number.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Result<&str, Refused>)>> {
        let whole = loop {
            let Some(whole) = self.fill()? else {
                return Ok(None);
            };
            self.number += 1;
            if self.number == 1 && self.line.starts_with(BOM) {
                self.line.drain(..BOM.len());
            }
            if self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
            if !(whole && self.line.trim_ascii().is_empty()) {
                break whole && self.line.len() <= LINE_BYTES_MAX;
            }
        };
        let text = if whole {
            simdutf8::basic::from_utf8(&self.line).map_err(|_| Refused::NotUtf8)
        } else {
            Err(Refused::TooLong)
        };
        Ok(Some((self.number, text)))
    }

    /// Takes the next line off the input; whether all of it was kept, or nothing at the input's end.
    fn fill(&mut self) -> io::Result<Option<bool>> {
        // One byte of a line end may have to be kept with the longest line, and a mark before it.
        const KEPT_MAX: usize = LINE_BYTES_MAX + 1 + BOM.len();
        self.line.clear();
        let mut whole = true;
        let mut any = false;
        loop {
            let seen = match self.input.fill_buf() {
                Ok(seen) => seen,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if seen.is_empty() {
                return Ok(any.then_some(whole));
            }
            any = true;
            let end = memchr::memchr(b'\n', seen);
            let part = &seen[..end.unwrap_or(seen.len())];
            if self.line.len() + part.len() <= KEPT_MAX {
                self.line.extend_from_slice(part);
            } else {
                whole = false;
            }
            let used = end.map_or(seen.len(), |end| end + 1);
            self.input.consume(used);
            if end.is_some() {
                return Ok(Some(whole));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_the_longest_allowed() {
        let endless = io::repeat(b'x').take(20 * LINE_BYTES_MAX as u64);
        let mut lines = Lines::new(io::BufReader::new(endless));
        let line = lines.next().expect("readable").expect("one line");
        assert_eq!(line, (1, Err(Refused::TooLong)));
        assert!(lines.line.capacity() <= 3 * LINE_BYTES_MAX);
        assert!(lines.next().expect("readable").is_none());
    }
}
