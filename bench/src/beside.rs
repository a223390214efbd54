//! Kith beside what one would otherwise keep an audience in: maps in memory, redb on disk, Redis over loopback.
//!
//! Every store is filled with the same people and is asked the same: from an id's text to the numbers of its segments, all of
//! which are read. Whatever that takes is in the figure: of Kith hashing under the secret key and decoding the set, of a map
//! hashing the text, of Redis the way there and back. An answer that is not Kith's is an error and no figure.
//!
//! Each store has a process of its own, in which it stands beside Kith alone, so that what memory is resident is its own. A
//! round times Kith and then the store, or the other way about, so that what else the machine does hits both; told is the median
//! of the rounds' own ratios. *One by one*, an id depends on the answer before, as far as the processor can tell. *Four together* are
//! the ids of one request: Kith fetches for all four before it reads, Redis is sent one `MGET`, and where a store has nothing of the kind
//! they are asked for one after the other and the processor overlaps what it can.
//!
//! A store is filled by one thread in the way that suits it: redb in the order of its keys in one transaction, Redis a thousand commands
//! at a time. Drawing the people is in the figure, 0.25 µs an id. Kith is built of CSV, on all cores, as rows are uploaded.

mod redis;
mod stores;

use std::fs;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use kith::audience::{Audience, Builder, RowFormat, VersionMeta};
use kith::ids::{Keyer, Kind, SecretKey};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::rows::{People, uuid};
use stores::{KithStore, Store};
pub use stores::{NAMES, Unavailable};

/// Bytes of memory that an id takes in the largest of the stores while it grows, Kith beside it.
const BYTES_AN_ID_MAX: u64 = 400;
/// Stores that wait for another process are asked for fewer.
const REMOTE_SHARE: usize = 20;
const ID_BYTES: usize = 36;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Who is in the stores.
    pub people: People,
    /// Rounds, of which the first warms up.
    pub rounds: usize,
    /// Lookups of each kind in a round.
    pub lookups: usize,
    /// Where files lie meanwhile.
    pub folder: PathBuf,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Ids in each store.
    pub ids: u64,
    /// How many there were to be, where memory is too little for them.
    pub ids_wanted: u64,
    /// Segments an id is in.
    pub segments_an_id: f64,
    /// Bytes of Kith's version file by ids.
    pub kith_bytes_an_id: f64,
    /// Seconds from CSV to a version file, and of CPU; the making of the CSV included.
    pub kith_fill_seconds: (f64, f64),
    /// The others.
    pub rows: Vec<Row>,
}

/// A store beside Kith.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its name, of [`NAMES`].
    pub store: String,
    /// What was measured, or why nothing was.
    pub measured: Result<Measured, String>,
}

/// What was measured of a store.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Seconds to fill it, by the clock on the wall.
    pub fill_seconds: f64,
    /// CPU seconds of that, its own process's too where it has one.
    pub fill_cpu_seconds: f64,
    /// Bytes of memory that it took, resident, by ids.
    pub resident_bytes_an_id: f64,
    /// Bytes of its file by ids, where it has one.
    pub disk_bytes_an_id: f64,
    /// Bytes of memory that Kith took in the same process, resident, by ids.
    pub kith_resident_bytes_an_id: f64,
    /// Lookups, by what was asked.
    pub asked: Vec<Asked>,
}

/// Lookups of one kind: medians over the rounds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    /// What was asked.
    pub name: String,
    /// Nanoseconds an id.
    pub ns: f64,
    /// The same of Kith in the same rounds.
    pub kith_ns: f64,
    /// Nanoseconds of CPU an id, its own process's too where it has one.
    pub cpu_ns: f64,
    /// Its time by Kith's.
    pub ratio: f64,
    /// The least and the most of these.
    pub spread: (f64, f64),
}

/// Builds Kith's version and measures each store beside it, in a process of its own: `program` is this one, whose command `beside`
/// with `--store` and `--version-file` calls [`measure`].
///
/// # Errors
/// Where a store does not answer as Kith does, or a file cannot be written. A store that is not to be had is no error.
pub fn run(mut effort: Effort, program: &Path) -> io::Result<Report> {
    let ids_wanted = effort.people.ids;
    effort.people.ids = ids_wanted.min(memory_available()? / BYTES_AN_ID_MAX);
    let folder = tempfile::tempdir_in(&effort.folder)?;
    let file = folder.path().join("beside.kith");
    let built = build(effort.people, &file)?;
    let people = effort.people;
    let mut rows = Vec::new();
    for store in NAMES {
        let output = Command::new(program)
            .args(["beside", "--json", "--store", store, "--version-file"])
            .arg(&file)
            .arg("--folder")
            .arg(folder.path())
            .args(["--ids", &people.ids.to_string()])
            .args(["--segments", &people.segments.to_string()])
            .args(["--mean", &people.mean.to_string()])
            .args(["--seed", &people.seed.to_string()])
            .args(["--rounds", &effort.rounds.to_string()])
            .args(["--lookups", &effort.lookups.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            let what = format!("{store}: its process ended with {}", output.status);
            return Err(io::Error::other(what));
        }
        rows.push(serde_json::from_slice(&output.stdout)?);
    }
    Ok(Report {
        ids: people.ids,
        ids_wanted,
        segments_an_id: built.memberships as f64 / people.ids as f64,
        kith_bytes_an_id: fs::metadata(&file)?.len() as f64 / people.ids as f64,
        kith_fill_seconds: built.seconds,
        rows,
    })
}

/// What a version took to build.
#[derive(Debug)]
pub struct Built {
    memberships: u64,
    seconds: (f64, f64),
}

/// Builds a version file of these people.
///
/// # Errors
/// Where it cannot be written.
pub fn build(people: People, file: &Path) -> io::Result<Built> {
    let (began, cpu) = (Instant::now(), process_cpu());
    let (rows, out) = io::pipe()?;
    let writer = std::thread::spawn(move || people.write(&mut io::BufWriter::new(out), 1));
    let meta = VersionMeta {
        kind: Kind::Audience,
        dataset: "bench".parse().map_err(io::Error::other)?,
        version: 1,
        base: None,
        as_of: None,
    };
    let mut builder = Builder::new(meta, keyer()).map_err(io::Error::other)?;
    let rows = io::BufReader::with_capacity(1 << 18, rows);
    builder
        .read_rows(&RowFormat::Csv, rows, &mut |_| {})
        .map_err(io::Error::other)?;
    writer
        .join()
        .map_err(|_| io::Error::other("the generator has panicked"))??;
    let mut out = io::BufWriter::with_capacity(1 << 20, fs::File::create(file)?);
    builder.finish(&mut out).map_err(io::Error::other)?;
    drop(out);
    let seconds = (began.elapsed().as_secs_f64(), process_cpu() - cpu);
    let open = Audience::open(file).map_err(io::Error::other)?;
    Ok(Built {
        memberships: open.membership_count(),
        seconds,
    })
}

fn keyer() -> Keyer {
    Keyer::new(&SecretKey::from_bytes([7; 32]))
}

/// Fills a store and asks it beside the version in `file`, in this process.
///
/// # Errors
/// Where it does not answer as Kith does.
pub fn measure(effort: &Effort, store: &str, file: &Path) -> io::Result<Row> {
    let row = |measured| Row {
        store: store.to_owned(),
        measured,
    };
    let people = effort.people;
    let before = resident_bytes("self")?;
    let mut kith = KithStore::open(file, keyer())?;
    let with_kith = resident_bytes("self")?;

    let (began, cpu) = (Instant::now(), process_cpu());
    let mut other = match stores::fill(store, people, &effort.folder) {
        Ok(filled) => filled,
        Err(Unavailable::Missing(why)) => return Ok(row(Err(why))),
        Err(Unavailable::Failed(error)) => return Err(error),
    };
    let fill_seconds = began.elapsed().as_secs_f64();
    let fill_cpu_seconds = process_cpu() - cpu + other.other_cpu_seconds()?;

    let lookups = match other.is_remote() {
        true => (effort.lookups / REMOTE_SHARE).max(4),
        false => effort.lookups,
    };
    let mut random = Random(1);
    let known = Texts::new((0..lookups).map(|_| random.next() % people.ids));
    let unknown = Texts::new((0..lookups).map(|n| (1 << 40) + n as u64));
    let kinds = [
        ("hit", &known, 1),
        ("hit, four together", &known, 4),
        ("miss", &unknown, 1),
        ("miss, four together", &unknown, 4),
    ];
    let mut times: Vec<Vec<[Time; 2]>> = vec![Vec::new(); kinds.len()];
    for round in 0..effort.rounds {
        for ((name, texts, together), times) in kinds.iter().zip(&mut times) {
            let (ours, theirs) = if round % 2 == 0 {
                let ours = ask(&mut kith, texts, *together)?;
                (ours, ask(other.as_mut(), texts, *together)?)
            } else {
                let theirs = ask(other.as_mut(), texts, *together)?;
                (ask(&mut kith, texts, *together)?, theirs)
            };
            if ours.answers != theirs.answers {
                let what = format!("{store} does not answer as Kith does: {name}");
                return Err(io::Error::other(what));
            }
            if round > 0 {
                times.push([ours, theirs]);
            }
        }
    }
    // After the lookups, so that what a store keeps of what it read counts.
    let own = resident_bytes("self")?.saturating_sub(with_kith);
    let texts = (2 * lookups * ID_BYTES) as u64;
    let resident = own.saturating_sub(texts) + other.other_resident_bytes()?;
    let by_ids = |bytes: u64| bytes as f64 / people.ids as f64;
    let asked = kinds.iter().zip(times).map(|((name, ..), times)| {
        let ratios = times.iter().map(|[ours, theirs]| theirs.ns / ours.ns);
        let ratios: Vec<f64> = ratios.collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        Asked {
            name: (*name).to_owned(),
            ns: median(times.iter().map(|[_, theirs]| theirs.ns)),
            kith_ns: median(times.iter().map(|[ours, _]| ours.ns)),
            cpu_ns: median(times.iter().map(|[_, theirs]| theirs.cpu_ns)),
            ratio: median(ratios.into_iter()),
            spread: (least, most),
        }
    });
    Ok(row(Ok(Measured {
        fill_seconds,
        fill_cpu_seconds,
        resident_bytes_an_id: by_ids(resident),
        disk_bytes_an_id: by_ids(other.disk_bytes()?),
        kith_resident_bytes_an_id: by_ids(with_kith.saturating_sub(before)),
        asked: asked.collect(),
    })))
}

/// Ids as text, one behind the other.
struct Texts(Vec<u8>);

impl Texts {
    fn new(ids: impl ExactSizeIterator<Item = u64>) -> Self {
        let mut all = Vec::with_capacity(ids.len() * ID_BYTES);
        ids.for_each(|id| uuid(id + 1, &mut all));
        Self(all)
    }

    fn len(&self) -> usize {
        self.0.len() / ID_BYTES
    }

    fn at(&self, place: usize) -> &str {
        let text = &self.0[place * ID_BYTES..][..ID_BYTES];
        std::str::from_utf8(text).unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy)]
struct Time {
    ns: f64,
    cpu_ns: f64,
    /// All answers, added up.
    answers: u64,
}

#[inline(never)]
fn ask(store: &mut dyn Store, texts: &Texts, together: usize) -> io::Result<Time> {
    let zero = black_box(0usize);
    let mut answers = 0u64;
    let cpu = process_cpu() + store.other_cpu_seconds()?;
    let began = Instant::now();
    for batch in 0..texts.len() / together {
        // Nothing is added, but the processor has to wait for the answers before to know it.
        let from = batch * together + (answers as usize & zero);
        answers = answers.wrapping_add(match together {
            4 => store.four([0, 1, 2, 3].map(|nth| texts.at(from + nth)))?,
            _ => store.one(texts.at(from))?,
        });
    }
    let ns = began.elapsed().as_nanos() as f64;
    let cpu_ns = 1e9 * (process_cpu() + store.other_cpu_seconds()? - cpu);
    let ids = (texts.len() / together * together) as f64;
    Ok(Time {
        ns: ns / ids,
        cpu_ns: cpu_ns / ids,
        answers,
    })
}

fn process_cpu() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// Memory of a process that is its own and no file's.
fn resident_bytes(process: &str) -> io::Result<u64> {
    kib_in(&format!("/proc/{process}/status"), "RssAnon:")
}

fn memory_available() -> io::Result<u64> {
    kib_in("/proc/meminfo", "MemAvailable:")
}

fn kib_in(file: &str, field: &str) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other(format!("no {field} in {file}")))
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut of: Vec<f64> = of.collect();
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "{} ids, {:.2} segments an id",
            self.ids, self.segments_an_id
        );
        if self.ids < self.ids_wanted {
            let wanted = self.ids_wanted;
            let _ = write!(text, "; not {wanted}, for which there is too little memory");
        }
        let _ = writeln!(
            text,
            "\n\n{:<26}{:>8}{:>9}{:>12}{:>12}",
            "store", "fill s", "CPU s", "memory B/id", "disk B/id"
        );
        let (seconds, cpu) = self.kith_fill_seconds;
        let measured = |row: &Row| {
            row.measured
                .as_ref()
                .ok()
                .map(|m| m.kith_resident_bytes_an_id)
        };
        let resident = median(self.rows.iter().filter_map(measured));
        let disk = self.kith_bytes_an_id;
        let _ = writeln!(
            text,
            "{:<26}{seconds:>8.1}{cpu:>9.1}{resident:>12.1}{disk:>12.1}",
            "kith"
        );
        for row in &self.rows {
            let _ = match &row.measured {
                Err(why) => writeln!(text, "{:<26}left out: {why}", row.store),
                Ok(m) => writeln!(
                    text,
                    "{:<26}{:>8.1}{:>9.1}{:>12.1}{:>12.1}",
                    row.store,
                    m.fill_seconds,
                    m.fill_cpu_seconds,
                    m.resident_bytes_an_id,
                    m.disk_bytes_an_id
                ),
            };
        }
        let _ = writeln!(
            text,
            "\n{:<26}{:<22}{:>9}{:>9}{:>9}{:>8}{:>18}",
            "store", "lookup", "ns", "CPU ns", "kith ns", "ratio", "least to most"
        );
        for row in &self.rows {
            for asked in row.measured.iter().flat_map(|measured| &measured.asked) {
                let (least, most) = asked.spread;
                let spread = format!("{least:.2} to {most:.2}");
                let _ = writeln!(
                    text,
                    "{:<26}{:<22}{:>9.0}{:>9.0}{:>9.0}{:>8.2}{spread:>18}",
                    row.store, asked.name, asked.ns, asked.cpu_ns, asked.kith_ns, asked.ratio
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Redis is one more process, which not every machine has: its client is tested for itself.
    #[test]
    fn every_store_answers_as_kith_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let effort = Effort {
            people: People {
                ids: 20_000,
                segments: 50,
                mean: 3.0,
                seed: 1,
            },
            rounds: 3,
            lookups: 2_000,
            folder: folder.path().to_owned(),
        };
        let file = folder.path().join("v.kith");
        let built = build(effort.people, &file).expect("built");
        let mut rows = Vec::new();
        for store in NAMES.iter().filter(|name| **name != stores::REDIS) {
            let row = measure(&effort, store, &file).expect("measured");
            let measured = row.measured.as_ref().expect("it is here");
            assert_eq!(measured.asked.len(), 4);
            assert!(measured.asked.iter().all(|asked| asked.ns > 0.0));
            rows.push(row);
        }
        assert!(fs::metadata(folder.path().join(stores::REDB_FILE)).is_err());
        rows.push(Row {
            store: stores::REDIS.to_owned(),
            measured: Err("no redis-server".to_owned()),
        });
        let table = Report {
            ids: 20_000,
            ids_wanted: 30_000,
            segments_an_id: built.memberships as f64 / 20_000.0,
            kith_bytes_an_id: 8.0,
            kith_fill_seconds: built.seconds,
            rows,
        }
        .table();
        assert!(table.contains("not 30000, for which"), "{table}");
        assert!(table.contains("left out: no redis-server"), "{table}");
    }

    /// A store of other people is found out.
    #[test]
    fn a_wrong_answer_is_no_figure() {
        let folder = tempfile::tempdir().expect("a folder");
        let people = |seed| People {
            ids: 1_000,
            segments: 50,
            mean: 3.0,
            seed,
        };
        let file = folder.path().join("v.kith");
        build(people(1), &file).expect("built");
        let effort = Effort {
            people: people(2),
            rounds: 2,
            lookups: 100,
            folder: folder.path().to_owned(),
        };
        let told = measure(&effort, NAMES[0], &file).expect_err("other people");
        assert!(told.to_string().contains("does not answer as Kith does"));
    }
}
