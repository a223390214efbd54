//! `kith build`: rows to a version file, offline.
//!
//! The file appears under its name only when it is whole and synced; until then it is a temporary one beside it, which
//! goes away when anything fails.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::input::{self, Format};
use super::progress::Progress;
use super::text::counted;
use super::{Failure, note, print, print_json, rows};
use crate::audience::{
    AsOf, BuildError, Builder, FalsePositiveRate, IDS_PER_PERSON, IDS_PER_PERSON_MAX,
    IDS_PER_SOURCE, MEMORY_MIN, RowFormat, RowReport, VersionMeta,
};
use crate::clock::Timestamp;
use crate::config::size_of;
use crate::ids::{Keyer, Kind, Name, SecretKey};

/// Where `kith serve` keeps the key if nothing is configured, and what is there once it has served.
const KEY_FILE: &str = "./data/key";
const MANIFEST: &str = "./data/manifest.json";

/// Compile rows to a version file, offline
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Rows are CSV (source,id,segments[,expires], segments split by |), NDJSON, or one id a line with --source and --segment.
The file's name says which; .gz and .zst files are unpacked, whatever their name. Of a filter all rows name the same segment,
and none expires. Of kind identity rows are CSV or NDJSON and say whose an id is: source,id,person.

With --base the file is a delta. Its rows say what changes: source,id,add,remove[,expires][,delete] in CSV, add and remove
lists of segments, delete true where all that is known of the id goes; the same names in NDJSON; one id a line is added.

Ids are hashed under the deployment's secret key, so only a Kith with the same key can serve the file.

Examples:
  kith build --dataset crm --version 7 --input crm.csv --output crm-7.kith
  kith build --dataset site --version 3 --input mon.ndjson.gz tue.ndjson.gz --output site-3.kith
  psql -c '...' | kith build --dataset crm --version 8 --input - --output crm-8.kith
  kith build --dataset a --version 1 --input ids.txt --source ifa --segment vip --output a.kith
  kith build --dataset crm --version 9 --base 8 --input changes.csv --output crm-9.kith
  kith build --kind filter --dataset optout --version 1 --input ids.txt.gz --source ifa --segment list --output optout-1.kith
  kith build --kind identity --dataset graph --version 1 --input links.csv.gz --output graph-1.kith")]
pub(super) struct Build {
    /// What the dataset holds: audience, filter for one list as an approximate set, or identity for which ids are one person's
    #[arg(long, value_name = "KIND", default_value = "audience")]
    kind: Kind,
    /// Of a filter: the largest share of ids not in the input that may be in it all the same, 0.0001 to 0.1 (left out: 0.01)
    #[arg(long, value_name = "SHARE", value_parser = rate)]
    false_positive_rate: Option<FalsePositiveRate>,
    /// Of kind identity: how many ids one person may have; rows of more are rejected
    #[arg(long, value_name = "N", default_value_t = IDS_PER_PERSON, value_parser = ids_max)]
    ids_per_person: usize,
    /// Of kind identity: how many of those may be of one source
    #[arg(long, value_name = "N", default_value_t = IDS_PER_SOURCE, value_parser = ids_max)]
    ids_per_source: usize,
    /// The dataset it is a version of
    #[arg(long, value_name = "NAME")]
    dataset: Name,
    /// Its number, from 1; must be higher than any that the dataset had
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    version: u64,
    /// Make a delta: the version whose ids it changes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    base: Option<u64>,
    /// The full version below a base that is a delta itself; without it the base is a full one
    #[arg(long, value_name = "N", requires = "base", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    root: Option<u64>,
    /// The deployment's key. In the default place it is made if there is none and no data either
    #[arg(long, value_name = "FILE", default_value = KEY_FILE)]
    key_file: PathBuf,
    /// Up to where the input had been read: an RFC 3339 time, or seq:N for a journal position
    #[arg(long, value_name = "TIME")]
    as_of: Option<AsOf>,
    /// Rows; - is standard input
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    input: Vec<PathBuf>,
    /// How the rows are written, where names do not say it: csv, ndjson or text
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    format: Option<Format>,
    /// Of one id a line: the source of every id
    #[arg(long, value_name = "SOURCE", requires = "segment")]
    source: Option<String>,
    /// Of one id a line: the segment that every id is in
    #[arg(long, value_name = "SEGMENT", requires = "source")]
    segment: Option<Name>,
    /// The version file to make
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Memory for rows, in bytes or like "512 MiB"; what is more goes to disk beside the output, but for kind identity [default: a quarter of the
    /// machine's, at most 2 GiB]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// Make no file when more than this share of the rows is bad
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    max_rejected_share: f64,
    /// Print the row report as JSON
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<FalsePositiveRate, String> {
    let share = text.parse().ok().and_then(FalsePositiveRate::of_share);
    share.ok_or_else(|| {
        let (least, most) = (FalsePositiveRate::MIN, FalsePositiveRate::MAX);
        format!(
            "a rate is a share from {} to {}, like 0.001 for one in a thousand",
            least.share(),
            most.share()
        )
    })
}

fn ids_max(text: &str) -> Result<usize, String> {
    let ids = text.parse().ok();
    let ids = ids.filter(|ids| (1..=IDS_PER_PERSON_MAX).contains(ids));
    ids.ok_or_else(|| format!("that many ids are 1 to {IDS_PER_PERSON_MAX}"))
}

/// Most that is taken where nobody says how much.
const MEMORY_DEFAULT_MAX: u64 = 2 << 30;

fn memory(text: &str) -> Result<u64, String> {
    let bytes = size_of(text).filter(|bytes| *bytes >= MEMORY_MIN);
    bytes.ok_or_else(|| "memory is a size from 16 MiB on, in bytes or like \"512 MiB\"".to_owned())
}

/// A quarter of what the machine has, or the group of processes may have.
fn memory_default() -> u64 {
    let system = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    });
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse().ok());
    let all = [system, group].into_iter().flatten().min();
    let quarter = all.map_or(MEMORY_MIN, |all: u64| all / 4);
    quarter.clamp(MEMORY_MIN, MEMORY_DEFAULT_MAX)
}

fn share(text: &str) -> Result<f64, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    share
        .ok_or_else(|| "a share is a number from 0 to 1, like 0.01 for one in a hundred".to_owned())
}

pub(super) fn run(args: &Build) -> Result<(), Failure> {
    let inputs = checked(args)?;
    let meta = VersionMeta {
        kind: args.kind,
        dataset: args.dataset.clone(),
        version: args.version,
        base: args.base,
        as_of: args.as_of,
    };
    // Whatever can be refused is, before the key is made and hours of rows are read.
    let new_key = matches!(fs::metadata(&args.key_file), Err(e) if e.kind() == ErrorKind::NotFound);
    let mut partial = Partial::create(&args.output)?;
    // A version built under a new key where another was meant could be served by nobody.
    let may_make = args.key_file == Path::new(KEY_FILE) && !Path::new(MANIFEST).exists();
    let key = match may_make {
        true => SecretKey::load_or_create(&args.key_file)?,
        false => SecretKey::load(&args.key_file)?,
    };
    if new_key {
        note(&format!(
            "made a new key, {}; Kith must run with the same one to serve what is built under it",
            args.key_file.display()
        ));
    }
    let keyer = Keyer::new(&key);
    let key_id = keyer.key_id();
    let progress = Progress::new(
        "reading rows",
        input::total_bytes(args.input.iter().map(PathBuf::as_path)),
    );
    let rate = args.false_positive_rate;
    let builder = match args.root {
        Some(root) => Builder::delta(meta, root, keyer)?,
        None => Builder::new(meta, keyer)?,
    };
    let folder = args.output.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).to_owned();
    let mut builder = builder
        .with_false_positive_rate(rate.unwrap_or(FalsePositiveRate::DEFAULT))
        .with_ids_per_person(args.ids_per_person, args.ids_per_source)
        .with_memory(args.memory.unwrap_or_else(memory_default), folder);
    for (path, format) in &inputs {
        let told = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", path.display()));
        let (coding, raw) = input::open(path)?;
        let rows = input::unpacked(coding, progress.of(raw)).map_err(|e| told(&e))?;
        builder
            .read_rows(format, rows, &mut |rows| progress.tell_rows(rows))
            .map_err(|e| told(&e))?;
    }
    progress.wait_for("sorting and writing");
    let mut told = |done, all| progress.tell_share(done, all);
    let built = match builder.finish_telling(&mut partial.out, &mut told) {
        Err(BuildError::Empty { report }) => Err(*report),
        Err(failed) => return Err(failed.into()),
        Ok(report) if rejected_share(&report) > args.max_rejected_share => Err(report),
        Ok(report) => Ok((partial.keep(&args.output)?, report)),
    };
    drop(progress);
    let (bytes, report) = match &built {
        Ok((bytes, report)) => (Some(*bytes), report),
        Err(report) => (None, report),
    };
    let mut document = serde_json::to_value(report)?;
    if let Some(members) = document.as_object_mut() {
        let output = bytes.map(|_| args.output.display().to_string());
        members.extend([
            ("output".to_owned(), json!(output)),
            ("dataset".to_owned(), json!(args.dataset)),
            ("kind".to_owned(), json!(args.kind)),
            ("version".to_owned(), json!(args.version)),
            ("base".to_owned(), json!(args.base)),
            ("key_id".to_owned(), json!(key_id.to_string())),
        ]);
        members.extend(bytes.map(|bytes| ("bytes".to_owned(), json!(bytes))));
    }
    tell(args, &document, bytes.is_some())?;
    match built {
        Ok(_) => Ok(()),
        Err(report) if report.rows == 0 => {
            Err(Failure::new("no good row was read, so no file was made"))
        }
        Err(report) => Err(Failure::new(format!(
            "{} of {} rejected, more than --max-rejected-share {} allows, so no file was made; mend the rows or allow more",
            report.rejected_rows,
            counted(report.rows.saturating_add(report.rejected_rows), "row"),
            args.max_rejected_share
        ))),
    }
}

fn tell(args: &Build, document: &Value, made: bool) -> Result<(), Failure> {
    if args.json {
        return print_json(document);
    }
    let names: Vec<String> = args.input.iter().map(|p| p.display().to_string()).collect();
    let head = match made {
        true => format!(
            "{}: {} version {}",
            args.output.display(),
            args.dataset,
            args.version
        ),
        false => format!("{} version {}: not made", args.dataset, args.version),
    };
    print(&format!("{head}\n{}", rows::told(document, &names)))
}

/// The inputs and how each is written, once all that the arguments can have wrong is not.
fn checked(args: &Build) -> Result<Vec<(&Path, RowFormat)>, Failure> {
    if args.kind == Kind::Scores {
        return Err(Failure::usage(
            "scores are not compiled to a file: upload the document as it is, with `kith upload --dataset NAME --kind scores FILE`",
        ));
    }
    if args.kind == Kind::Campaigns {
        return Err(Failure::usage(
            "a campaigns document is not compiled to a file: upload it as it is, with `kith upload --dataset campaigns FILE`; \
             `kith check --campaigns FILE` says beforehand what is wrong with it",
        ));
    }
    if let Some(base) = args.base
        && !(args.root.unwrap_or(base) <= base && base < args.version)
    {
        return Err(Failure::usage(
            "--base is a version below --version, and --root one that is not above --base",
        ));
    }
    if args.false_positive_rate.is_some() && args.kind != Kind::Filter {
        return Err(Failure::usage(format!(
            "--false-positive-rate is of a filter, and this is of kind {}; leave it out, or give --kind filter",
            args.kind
        )));
    }
    if let Some(AsOf::Time(as_of)) = args.as_of
        && as_of > Timestamp::now()
    {
        return Err(Failure::usage(format!(
            "--as-of {as_of} is in the future; it is the time up to which the input had been read"
        )));
    }
    if args
        .input
        .iter()
        .filter(|path| input::is_stdin(path))
        .count()
        > 1
    {
        return Err(Failure::usage("standard input (-) can be read only once"));
    }
    let inputs = args.input.iter().map(|path| {
        if !input::is_stdin(path) {
            fs::metadata(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
        }
        let format = row_format(args, input::format_of(path, args.format)?)
            .map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        Ok((path.as_path(), format))
    });
    let inputs: Vec<(&Path, RowFormat)> = inputs.collect::<Result<_, Failure>>()?;
    let any_text = |(_, format): &(&Path, RowFormat)| matches!(format, RowFormat::Text { .. });
    if args.source.is_some() && !inputs.iter().any(any_text) {
        return Err(Failure::usage(
            "--source and --segment are for one id a line (.txt, or --format text); other rows name their own",
        ));
    }
    Ok(inputs)
}

fn row_format(args: &Build, format: Format) -> Result<RowFormat, &'static str> {
    match format {
        Format::Csv => Ok(RowFormat::Csv),
        Format::Ndjson => Ok(RowFormat::Ndjson),
        Format::Text => match (&args.source, &args.segment) {
            (Some(source), Some(segment)) => Ok(RowFormat::Text {
                source: source.clone(),
                segment: segment.clone(),
            }),
            _ => {
                Err("is one id a line; say whose ids and which segment with --source and --segment")
            }
        },
        Format::Kith => Err("is a version file already; `kith upload` takes it as it is"),
        Format::Json => Err(
            "is one JSON document; rows are one object a line: name it .ndjson, or give --format ndjson",
        ),
        Format::Toml => Err("holds no rows; rows are CSV, NDJSON or one id a line"),
    }
}

fn rejected_share(report: &RowReport) -> f64 {
    let all = report.rows.saturating_add(report.rejected_rows);
    if all == 0 {
        return 0.0;
    }
    report.rejected_rows as f64 / all as f64
}

/// A file in the making, beside where it will be. Removed when dropped, unless it was kept.
struct Partial {
    path: PathBuf,
    out: BufWriter<File>,
    kept: bool,
}

impl Partial {
    fn create(output: &Path) -> Result<Self, Failure> {
        let name = output
            .file_name()
            .filter(|_| !output.is_dir())
            .ok_or_else(|| {
                Failure::usage(format!(
                    "--output {} is not a file's name",
                    output.display()
                ))
            })?;
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}", std::process::id()));
        let path = output.with_file_name(beside);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file =
            file.map_err(|e| Failure::new(format!("cannot make {}: {e}", output.display())))?;
        Ok(Self {
            path,
            out: BufWriter::with_capacity(1 << 20, file),
            kept: false,
        })
    }

    /// Syncs it and gives it its name; its length in bytes.
    fn keep(mut self, output: &Path) -> Result<u64, Failure> {
        let kept: io::Result<u64> = (|| {
            self.out.flush()?;
            let file = self.out.get_ref();
            file.sync_all()?;
            let bytes = file.metadata()?.len();
            fs::rename(&self.path, output)?;
            self.kept = true;
            let folder = output.parent().filter(|p| !p.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(bytes)
        })();
        kept.map_err(|e| Failure::new(format!("writing {} failed: {e}", output.display())))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}
