//! What a build costs: rows a second, CPU time, and the most memory it ever took.
//!
//! Rows are made beforehand and lie in a file, so that making them is not in the figures; the file is read once to be in
//! the kernel's memory. The build itself is `kith build`'s: same code, same bounds, into a file beside the rows.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use kith::audience::{Builder, RowFormat, VersionMeta};
use kith::ids::{Keyer, Kind, SecretKey};
use serde::Serialize;

use crate::rows::People;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Rows, each of another id.
    pub rows: u64,
    /// Segments an id is in.
    pub segments_an_id: f64,
    /// Bytes of CSV.
    pub csv_bytes: u64,
    /// Threads that built.
    pub threads: usize,
    /// Bytes of memory that rows were bounded to.
    pub memory_bytes: u64,
    /// Seconds of reading, by the clock on the wall.
    pub read_seconds: f64,
    /// Seconds in all.
    pub seconds: f64,
    /// Rows by seconds in all.
    pub rows_per_second: f64,
    /// CPU seconds, of the system too.
    pub cpu_seconds: f64,
    /// Most memory that the process ever had, bytes.
    pub peak_bytes: u64,
    /// Bytes of the version file by ids.
    pub bytes_an_id: f64,
}

/// Builds a version of these people in `folder`, where files come and go.
pub fn run(people: People, threads: usize, memory: u64, folder: &Path) -> io::Result<Report> {
    let rows = folder.join("rows.csv");
    let version = folder.join("rows.kith");
    let made = measure(people, threads, memory, &rows, &version);
    for file in [rows, version] {
        let _ = fs::remove_file(file);
    }
    made
}

fn measure(
    people: People,
    threads: usize,
    memory: u64,
    rows: &Path,
    version: &Path,
) -> io::Result<Report> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(rows)?);
    people.write(&mut out, threads)?;
    out.flush()?;
    let csv_bytes = io::copy(&mut File::open(rows)?, &mut io::sink())?;

    let (began, cpu) = (Instant::now(), cpu_seconds());
    let meta = VersionMeta {
        kind: Kind::Audience,
        dataset: "bench".parse().map_err(io::Error::other)?,
        version: 1,
        base: None,
        as_of: None,
    };
    let folder = rows.parent().unwrap_or(Path::new(".")).to_owned();
    let mut builder = Builder::new(meta, Keyer::new(&SecretKey::from_bytes([7; 32])))
        .map_err(io::Error::other)?
        .with_threads(threads)
        .with_memory(memory, folder);
    let input = BufReader::with_capacity(256 << 10, File::open(rows)?);
    builder
        .read_rows(&RowFormat::Csv, input, &mut |_| {})
        .map_err(io::Error::other)?;
    let read_seconds = began.elapsed().as_secs_f64();
    let mut out = BufWriter::with_capacity(1 << 20, File::create(version)?);
    let report = builder.finish(&mut out).map_err(io::Error::other)?;
    drop(out);
    let (seconds, cpu_seconds) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let peak_bytes = peak_bytes()?;
    let open = kith::audience::Audience::open(version).map_err(io::Error::other)?;
    Ok(Report {
        rows: report.rows,
        segments_an_id: open.membership_count() as f64 / report.ids as f64,
        csv_bytes,
        threads,
        memory_bytes: memory,
        read_seconds,
        seconds,
        rows_per_second: report.rows as f64 / seconds,
        cpu_seconds,
        peak_bytes,
        bytes_an_id: fs::metadata(version)?.len() as f64 / report.ids as f64,
    })
}

fn cpu_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// The most that was ever resident, the making of the rows included, which takes less.
fn peak_bytes() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("no VmHWM in /proc/self/status"))
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        format!(
            "{} rows, {:.2} segments an id, {:.0} MiB of CSV; {} threads, {:.0} MiB for rows\n\
             {:.2} s, of which reading {:.2} s: {:.0} rows a second\n\
             {:.2} s of CPU: {:.2} µs a row\n\
             at most {:.0} MiB of memory\n\
             {:.2} bytes an id\n",
            self.rows,
            self.segments_an_id,
            mib(self.csv_bytes),
            self.threads,
            mib(self.memory_bytes),
            self.seconds,
            self.read_seconds,
            self.rows_per_second,
            self.cpu_seconds,
            1e6 * self.cpu_seconds / self.rows as f64,
            mib(self.peak_bytes),
            self.bytes_an_id,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works() {
        let people = People {
            ids: 30_000,
            segments: 50,
            mean: 3.0,
            seed: 1,
        };
        let folder = std::env::temp_dir().join(format!("kith-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let report = run(people, 2, 16 << 20, &folder).expect("built");
        assert_eq!(report.rows, 30_000);
        assert!(report.bytes_an_id > 5.0);
        fs::remove_dir(&folder).expect("nothing is left");
    }
}
