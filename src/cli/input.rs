//! Files that people hand in: how they are written, told by their names, and how they are packed, told by their first
//! bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use super::Failure;

/// Bytes read at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// log₂ of the largest zstd window that is read, 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// How hard zstd is packed anew for sending: fast, with a window of 512 KiB.
const ZSTD_SENT_LEVEL: i32 = 1;

/// How a file's content is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Rows, with a header: source,id,segments and perhaps expires
    Csv,
    /// Rows, one JSON object a line
    Ndjson,
    /// One id a line, all in one segment
    Text,
    /// A campaigns document
    Json,
    /// A campaigns document
    Toml,
    /// A version file
    Kith,
}

impl Format {
    /// What the file's name says, a packer's ending aside.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let packed = [".gz", ".zst"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        match packed.unwrap_or(&name).rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "txt" => Some(Self::Text),
            "json" => Some(Self::Json),
            "toml" => Some(Self::Toml),
            "kith" => Some(Self::Kith),
            _ => None,
        }
    }

    /// Its media type.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::Ndjson => "application/x-ndjson",
            Self::Text => "text/plain",
            Self::Json => "application/json",
            Self::Toml => "application/toml",
            Self::Kith => "application/vnd.kith.snapshot",
        }
    }
}

/// What `path` is written in: what was said, else what its name says; standard input is taken as CSV.
pub(super) fn format_of(path: &Path, said: Option<Format>) -> Result<Format, Failure> {
    let by_name = || {
        if is_stdin(path) {
            Some(Format::Csv)
        } else {
            Format::of(path)
        }
    };
    said.or_else(by_name).ok_or_else(|| {
        Failure::usage(format!(
            "{}: the name does not say how it is written; say so with --format (csv, ndjson, text, ...)",
            path.display()
        ))
    })
}

/// Whether the path means standard input.
pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    /// Its word in `Content-Encoding`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn sniff(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd] => Some(Self::Zstd),
            // A skippable frame, with which parallel zstd tools begin.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The bytes of a file or of standard input, as they are, and how they are packed.
pub(super) fn open(path: &Path) -> Result<(Option<Coding>, Box<dyn Read>), Failure> {
    let told = |e: io::Error| Failure::new(format!("{}: {e}", path.display()));
    let mut raw: Box<dyn Read> = if is_stdin(path) {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(told)?)
    };
    // A pipe may hand out single bytes, so the start is read until it is whole or the input ends.
    let mut start = Vec::with_capacity(4);
    raw.by_ref().take(4).read_to_end(&mut start).map_err(told)?;
    let coding = Coding::sniff(&start);
    Ok((coding, Box::new(Cursor::new(start).chain(raw))))
}

/// What is sent of a file: as it is, but zstd packed anew. HTTP's zstd is one frame with a window of at most 8 MiB, which
/// neither parallel packers nor `--long` keep to.
pub(super) fn sendable(coding: Option<Coding>, raw: Box<dyn Read>) -> io::Result<Box<dyn Read>> {
    Ok(match coding {
        Some(Coding::Zstd) => Box::new(zstd::stream::read::Encoder::with_buffer(
            unpacked(coding, raw)?,
            ZSTD_SENT_LEVEL,
        )?),
        None | Some(Coding::Gzip) => raw,
    })
}

/// Undoes the packing.
pub(super) fn unpacked<'a>(
    coding: Option<Coding>,
    raw: impl Read + 'a,
) -> io::Result<Box<dyn BufRead + 'a>> {
    let raw = BufReader::with_capacity(BUFFER_BYTES, raw);
    Ok(match coding {
        None => Box::new(raw),
        Some(Coding::Gzip) => Box::new(BufReader::with_capacity(
            BUFFER_BYTES,
            flate2::bufread::MultiGzDecoder::new(raw),
        )),
        Some(Coding::Zstd) => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(raw)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        }
    })
}

/// The length of all files together; unknown as soon as one is standard input, a pipe or not there.
pub(super) fn total_bytes<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Option<u64> {
    paths.into_iter().try_fold(0u64, |total, path| {
        let file = std::fs::metadata(path).ok().filter(|_| !is_stdin(path))?;
        total.checked_add(file.is_file().then_some(file.len())?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_format() {
        for (name, want) in [
            ("a.csv", Some(Format::Csv)),
            ("a.b.CSV.GZ", Some(Format::Csv)),
            ("a.jsonl.zst", Some(Format::Ndjson)),
            ("a.ndjson", Some(Format::Ndjson)),
            ("a.txt", Some(Format::Text)),
            ("a.json", Some(Format::Json)),
            ("a.toml", Some(Format::Toml)),
            ("x/a.kith", Some(Format::Kith)),
            ("csv", None),
            ("a.gz", None),
            ("a.parquet", None),
        ] {
            assert_eq!(Format::of(Path::new(name)), want, "{name}");
        }
    }

    #[test]
    fn first_bytes_tell_the_packing() {
        for (start, want) in [
            (&b"\x1f\x8b\x08\x00"[..], Some(Coding::Gzip)),
            (b"\x28\xb5\x2f\xfd", Some(Coding::Zstd)),
            (b"\x50\x2a\x4d\x18", Some(Coding::Zstd)),
            (b"sour", None),
            (b"", None),
        ] {
            assert_eq!(Coding::sniff(start), want, "{start:?}");
        }
    }
}
