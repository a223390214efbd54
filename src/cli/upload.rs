//! `kith upload`: files to a running Kith, and what became of them.
//!
//! One file goes as it is, packed or not, but zstd is packed anew as HTTP takes it. Several become one body ([`joined`]): unpacked, with one CSV header. All that
//! can be wrong with the files is found before a byte is sent.

mod joined;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::client::{Admin, Answer, BodyHeaders, Client, escaped};
use super::input::{self, Coding, Format};
use super::progress::Progress;
use super::text::{count, plain, table};
use super::{Failure, print, print_json, rows};
use crate::audience::AsOf;
use crate::ids::{Kind, Name};

/// Files of more bytes together are not read twice for a digest's sake.
const DIGEST_BYTES_MAX: u64 = 1 << 30;
/// Errors of a document that are shown; `--json` shows all.
const ERRORS_SHOWN_MAX: usize = 50;

/// Upload a version to a running Kith, wait until it is in force or held, and print what became of its rows
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files are .csv, .ndjson, .jsonl, .txt (one id a line), .kith, and .json or .toml for campaigns; .gz of these go
as they are, .zst is packed anew, as HTTP takes less of zstd than files hold. Several files become one version: they are unpacked and sent one after the other, CSV with one header,
which must be the same in all. Up to 1 GiB a SHA-256 goes along, which Kith checks; above, only TCP watches.

Exit code 1 when Kith refuses the upload or holds the version, with its reasons.

Examples:
  kith upload --dataset crm crm.csv
  kith upload --dataset site --version 7 part-*.ndjson.gz
  kith upload --dataset vip ids.txt --source ifa --segment vip
  kith upload --dataset crm --base 7 changes.csv
  kith upload --dataset campaigns campaigns.json
  kith upload --dataset crm crm-7.kith --version 7 --stage-only --to http://10.0.0.5:9090 --token-file token")]
pub(super) struct Upload {
    /// The dataset; one that is not there yet is made
    #[arg(long, value_name = "NAME")]
    dataset: Name,
    /// The version's number; left out, the newest of the dataset and one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    version: Option<u64>,
    /// What to upload; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// How the files are written, where names do not say it
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// What a new dataset holds: audience, filter or identity
    #[arg(long, value_name = "KIND")]
    kind: Option<Kind>,
    /// The files say only what changes of this version, which must be the live one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    base: Option<u64>,
    /// Up to where the input had been read: an RFC 3339 time, or seq:N for a journal position
    #[arg(long, value_name = "TIME")]
    as_of: Option<AsOf>,
    /// Do not put it into force, only make it ready
    #[arg(long)]
    stage_only: bool,
    /// Of one id a line: the source of every id
    #[arg(long, value_name = "SOURCE", requires = "segment")]
    source: Option<String>,
    /// Of one id a line: the segment that every id is in
    #[arg(long, value_name = "SEGMENT", requires = "source")]
    segment: Option<Name>,
    #[command(flatten)]
    admin: Admin,
    /// Print Kith's answer as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Upload) -> Result<(), Failure> {
    let format = format(args)?;
    let client = Client::new(&args.admin)?;
    let mut body = Body::plan(args, format)?;
    let version = match args.version {
        Some(version) => version,
        None => next_version(&client, &args.dataset)?,
    };
    let path = format!(
        "/v1/datasets/{}/versions/{version}{}",
        args.dataset,
        query(args)
    );
    let progress = Progress::new("uploading", body.headers.length.or(body.stored_bytes));
    let mut sent = progress.of(Ending {
        input: body.source.open()?,
        progress: progress.clone(),
    });
    let answer = client.put(&path, &body.headers, &mut sent)?;
    drop((sent, progress));
    tell(args, version, &answer)
}

/// How all files are written, once all that the arguments can have wrong is not.
fn format(args: &Upload) -> Result<Format, Failure> {
    let mut formats = args
        .files
        .iter()
        .map(|path| Ok((path, input::format_of(path, args.format)?)))
        .collect::<Result<Vec<_>, Failure>>()?
        .into_iter();
    let (first, format) = formats.next().ok_or_else(|| Failure::usage("no FILE"))?;
    if let Some((other, _)) = formats.find(|(_, other)| *other != format) {
        return Err(Failure::usage(format!(
            "{} and {} are not written alike; upload them as datasets of their own",
            first.display(),
            other.display()
        )));
    }
    let several = args.files.len() > 1;
    if several && matches!(format, Format::Kith | Format::Json | Format::Toml) {
        return Err(Failure::usage(format!(
            "several files of {} are not one version; upload one",
            format.media_type()
        )));
    }
    if several && args.files.iter().any(|path| input::is_stdin(path)) {
        return Err(Failure::usage(
            "standard input (-) goes alone; join it with the files before",
        ));
    }
    match (format, &args.source) {
        (Format::Text, None) => Err(Failure::usage(format!(
            "{} is one id a line; say whose ids and which segment with --source and --segment",
            first.display()
        ))),
        (Format::Text, Some(_)) | (_, None) => Ok(format),
        (_, Some(_)) => Err(Failure::usage(
            "--source and --segment are for one id a line (.txt, or --format text); other rows name their own",
        )),
    }
}

/// One more than any number that the dataset ever had, as far as Kith remembers.
fn next_version(client: &Client, dataset: &Name) -> Result<u64, Failure> {
    let answer = client.get(&format!("/v1/datasets/{dataset}"))?;
    if answer.status == 404 && answer.body.get("detail").is_some() {
        return Ok(1);
    }
    let known = answer.ok()?;
    let members = ["versions", "history"]
        .iter()
        .filter_map(|key| known.get(key)?.as_array());
    let numbers = members
        .flatten()
        .filter_map(|entry| entry.get("version")?.as_u64());
    let newest = numbers
        .chain(known.get("live").and_then(Value::as_u64))
        .max();
    newest.unwrap_or(0).checked_add(1).ok_or_else(|| {
        Failure::new(format!(
            "{dataset} has the highest version there can be; use a new dataset"
        ))
    })
}

fn query(args: &Upload) -> String {
    let pairs = [
        ("kind", args.kind.map(|kind| kind.to_string())),
        ("mode", args.base.map(|_| "delta".to_owned())),
        ("base", args.base.map(|base| base.to_string())),
        ("as_of", args.as_of.map(|as_of| as_of.to_string())),
        ("activate", args.stage_only.then(|| "false".to_owned())),
        ("source", args.source.clone()),
        ("segment", args.segment.as_ref().map(Name::to_string)),
    ];
    let pairs: Vec<String> = pairs
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", escaped(&value?))))
        .collect();
    match pairs.is_empty() {
        true => String::new(),
        false => format!("?{}", pairs.join("&")),
    }
}

/// What is sent.
struct Body {
    headers: BodyHeaders,
    /// The length of the files, packed as they are.
    stored_bytes: Option<u64>,
    source: Source,
}

/// Where the body is read from.
enum Source {
    /// One file, as [`input::sendable`] has it.
    File(PathBuf),
    /// Standard input or a pipe, already opened for a look at its first bytes. Read once.
    Once(Box<dyn Read>),
    /// Several files.
    Joined(joined::Joiner),
}

impl Body {
    /// Looks at all files, and reads them once for the digest if they are not too long.
    fn plan(args: &Upload, format: Format) -> Result<Self, Failure> {
        let stored_bytes = input::total_bytes(args.files.iter().map(PathBuf::as_path));
        let mut headers = BodyHeaders {
            media_type: format.media_type(),
            ..BodyHeaders::default()
        };
        let mut source = match args.files.as_slice() {
            [one] => {
                let (coding, raw) = input::open(one)?;
                headers.coding = coding.map(Coding::as_str);
                headers.length = stored_bytes.filter(|_| coding != Some(Coding::Zstd));
                match stored_bytes {
                    Some(_) => Source::File(one.clone()),
                    None => Source::Once(input::sendable(coding, raw)?),
                }
            }
            several => {
                several.iter().try_for_each(|path| readable_twice(path))?;
                Source::Joined(joined::Joiner::check(several, format == Format::Csv)?)
            }
        };
        if stored_bytes.is_some_and(|bytes| bytes <= DIGEST_BYTES_MAX) {
            let progress = Progress::new("reading", stored_bytes);
            let mut hash = Sha256::new();
            let length = io::copy(&mut progress.of(source.open()?), &mut hash)
                .map_err(|e| Failure::new(format!("reading the files failed: {e}")))?;
            headers.digest = Some(STANDARD.encode(hash.finalize()));
            headers.length = Some(length);
        }
        Ok(Self {
            headers,
            stored_bytes,
            source,
        })
    }
}

/// Several files are looked at before they are sent, which a pipe does not survive.
fn readable_twice(path: &Path) -> Result<(), Failure> {
    match std::fs::metadata(path) {
        Ok(file) if file.is_file() => Ok(()),
        Ok(_) => Err(Failure::usage(format!(
            "{} is no file; a pipe goes alone",
            path.display()
        ))),
        Err(e) => Err(Failure::new(format!("{}: {e}", path.display()))),
    }
}

impl Source {
    fn open(&mut self) -> Result<Box<dyn Read + '_>, Failure> {
        Ok(match self {
            Self::File(path) => {
                let (coding, raw) = input::open(path)?;
                input::sendable(coding, raw)?
            }
            Self::Once(raw) => Box::new(raw),
            Self::Joined(files) => Box::new(files.open()),
        })
    }
}

/// Tells the progress bar when all is sent and the waiting begins.
struct Ending<R> {
    input: R,
    progress: Progress,
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            self.progress.wait_for("sent; Kith builds and checks it");
        }
        Ok(read)
    }
}

fn tell(args: &Upload, version: u64, answer: &Answer) -> Result<(), Failure> {
    if args.json && !answer.body.is_null() {
        print_json(&answer.body)?;
    }
    let state = answer.body.get("state").and_then(Value::as_str);
    let (200..=299, Some(state)) = (answer.status, state) else {
        return Err(refused(args, answer));
    };
    if !args.json {
        print(&told(args, version, state, answer))?;
    }
    if state == "held" {
        return Err(Failure::new(format!(
            "{} version {version} is held: it failed a check and is not in force; the one before it still is. \
             Mend the input and upload it under a higher number",
            args.dataset
        )));
    }
    Ok(())
}

fn told(args: &Upload, version: u64, state: &str, answer: &Answer) -> String {
    let body = &answer.body;
    // 201 is for what is new.
    let again = match answer.status {
        200 => ", and was so before: the same upload again changes nothing",
        _ => "",
    };
    let mut text = format!(
        "{} version {version}: {}{again}\n",
        args.dataset,
        plain(state)
    );
    let names: Vec<String> = match args.files.as_slice() {
        [one] => vec![one.display().to_string()],
        _ => Vec::new(),
    };
    text.push_str(&rows::told(body, &names));
    let seconds = |key: &str| body.get(key).and_then(Value::as_f64);
    if let (Some(build), Some(activate)) = (seconds("build_seconds"), seconds("activate_seconds")) {
        text.push_str(&match state {
            "active" => format!("  built in {build:.2} s, activated in {activate:.2} s\n"),
            _ => format!("  built in {build:.2} s\n"),
        });
    }
    let checks: Vec<[String; 3]> = array(body, "checks")
        .iter()
        .map(|check| {
            let word = |key: &str| plain(check.get(key).and_then(Value::as_str).unwrap_or(""));
            let ok = check.get("ok").and_then(Value::as_bool) == Some(true);
            let verdict = if ok { "ok" } else { "FAILED" };
            [verdict.to_owned(), word("name"), word("detail")]
        })
        .collect();
    if !checks.is_empty() {
        text.push_str("checks\n");
        text.push_str(&table("  ", &checks));
    }
    for warning in array(body, "warnings") {
        text.push_str(&format!("warning: {}\n", placed(warning)));
    }
    text
}

/// Why Kith did not take it, with the errors or rows that it lists.
fn refused(args: &Upload, answer: &Answer) -> Failure {
    let errors = array(&answer.body, "errors");
    let mut failure = answer
        .refusal()
        .with(errors.iter().take(ERRORS_SHOWN_MAX).map(placed));
    let more = errors.len().saturating_sub(ERRORS_SHOWN_MAX);
    if more > 0 {
        failure = failure.and(format!("and {} more; --json shows all", count(more as u64)));
    }
    if args.json {
        return failure;
    }
    let rows = rows::rejected(&answer.body, &[]);
    failure.with(rows.lines().map(|line| line.trim().to_owned()))
}

/// An error or a warning with its place in the document.
fn placed(error: &Value) -> String {
    let word = |key: &str| {
        error
            .get(key)
            .and_then(Value::as_str)
            .filter(|w| !w.is_empty())
    };
    let id = word("id").map_or(String::new(), |id| format!(" ({id})"));
    let message = word("message").or_else(|| error.as_str()).unwrap_or("");
    plain(&match word("path") {
        Some(path) => format!("{path}{id}: {message}"),
        None => message.to_owned(),
    })
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    let items = value.get(key).and_then(Value::as_array);
    items.map(Vec::as_slice).unwrap_or_default()
}
