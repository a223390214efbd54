//! Several files as one body: unpacked, each ending with a line end, CSV with the first one's header only.
//!
//! One file is open at a time, however many there are.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use crate::cli::{Failure, input};

/// Longest header, as of `audience::LINE_BYTES_MAX`.
const HEADER_BYTES_MAX: u64 = crate::audience::LINE_BYTES_MAX as u64;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// What was found out about the files before they are sent.
pub(super) struct Joiner {
    files: Vec<PathBuf>,
    /// Whether the first line of all files but the first is left out.
    headers: bool,
}

impl Joiner {
    /// Opens every file once; with `headers`, their first lines must be the same.
    pub(super) fn check(files: &[PathBuf], headers: bool) -> Result<Self, Failure> {
        let mut first: Option<(&Path, Vec<u8>)> = None;
        for path in files {
            let mut rows = open(path).map_err(Failure::new)?;
            if !headers {
                continue;
            }
            let header =
                header(&mut rows).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
            match &first {
                _ if header.is_empty() && rows.fill_buf()?.is_empty() => {}
                None => first = Some((path, header)),
                Some((_, known)) if *known == header => {}
                Some((other, known)) => {
                    return Err(Failure::new(format!(
                        "{} and {} have different CSV headers ({:?} and {:?}); give all files the same columns in the same order",
                        other.display(),
                        path.display(),
                        String::from_utf8_lossy(known),
                        String::from_utf8_lossy(&header)
                    )));
                }
            }
        }
        Ok(Self {
            files: files.to_vec(),
            headers,
        })
    }

    /// The files as one.
    pub(super) fn open(&self) -> Joined<'_> {
        Joined {
            headers: self.headers,
            first: true,
            files: self.files.iter(),
            current: None,
            line_open: false,
        }
    }
}

/// The one body.
pub(super) struct Joined<'a> {
    headers: bool,
    first: bool,
    files: std::slice::Iter<'a, PathBuf>,
    current: Option<Box<dyn BufRead>>,
    /// Whether the last byte handed out was something else than a line end.
    line_open: bool,
}

impl Read for Joined<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(current) = &mut self.current {
                let read = current.read(buffer)?;
                if let Some(last) = buffer.get(..read).and_then(|read| read.last()) {
                    self.line_open = *last != b'\n';
                    return Ok(read);
                }
                if buffer.is_empty() {
                    return Ok(0);
                }
                self.current = None;
            }
            if let (true, Some(end)) = (self.line_open, buffer.first_mut()) {
                *end = b'\n';
                self.line_open = false;
                return Ok(1);
            }
            let Some(path) = self.files.next() else {
                return Ok(0);
            };
            let mut rows = open(path).map_err(io::Error::other)?;
            // A part without a row, as some jobs leave, has no header either.
            if !rows.fill_buf()?.is_empty() {
                if self.headers && !self.first {
                    header(&mut rows)?;
                }
                self.first = false;
            }
            self.current = Some(rows);
        }
    }
}

/// The file unpacked, without the byte order mark that some exports begin with.
fn open(path: &Path) -> Result<Box<dyn BufRead>, String> {
    let told = |e: io::Error| format!("{}: {e}", path.display());
    let (coding, raw) = input::open(path).map_err(|failure| failure.first_line().to_owned())?;
    let mut rows = input::unpacked(coding, raw).map_err(told)?;
    if rows.fill_buf().map_err(told)?.starts_with(BOM) {
        rows.consume(BOM.len());
    }
    Ok(rows)
}

/// Takes the first line off, without its end.
fn header(rows: &mut dyn BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    rows.take(HEADER_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.len() as u64 >= HEADER_BYTES_MAX {
        return Err(io::Error::other(
            "the first line is no CSV header: it is over 1 MiB long",
        ));
    }
    line.truncate(line.trim_ascii_end().len());
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn joined(files: &[&[u8]], headers: bool) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let paths: Vec<PathBuf> = (0..files.len())
            .map(|number| folder.path().join(number.to_string()))
            .collect();
        for (path, bytes) in paths.iter().zip(files) {
            std::fs::write(path, bytes).expect("written");
        }
        let joiner = Joiner::check(&paths, headers).map_err(|f| f.first_line().to_owned())?;
        let mut text = String::new();
        joiner
            .open()
            .read_to_string(&mut text)
            .map_err(|e| e.to_string())?;
        Ok(text)
    }

    #[test]
    fn rows_follow_each_other_on_lines_of_their_own() {
        assert_eq!(
            joined(&[b"a\nb", b"", b"c\n", b"d"], false),
            Ok("a\nb\nc\nd\n".into())
        );
    }

    #[test]
    fn one_header_is_left() {
        let files: [&[u8]; 4] = [b"", b"h,i\na\n", b"\xef\xbb\xbfh,i\r\nb", b"h,i"];
        assert_eq!(joined(&files, true), Ok("h,i\na\nb\n".into()));
        let refused = joined(&[b"h,i\na\n", b"i,h\nb\n"], true).expect_err("other columns");
        assert!(refused.contains("different CSV headers"), "{refused}");
    }

    #[test]
    fn packed_files_are_unpacked() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"h\nb").expect("packed");
        let packed = packed.finish().expect("packed");
        assert_eq!(joined(&[b"h\na", &packed], true), Ok("h\na\nb\n".into()));
    }
}
