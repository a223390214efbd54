//! Instructions that each part of a decision takes, counted by callgrind, and compared with what was recorded.
//!
//! The counting itself is `benches/instructions.rs`, which cargo builds and the runner of the crate gungraun runs under valgrind; here
//! its report is read. A count depends on the source, on the compiler, and on which SIMD instructions and which C library
//! the machine has, as `memchr`, `simdutf8` and `memcpy` choose by them ([`Machine`]). It does not depend on what else the machine
//! does: one program gives the same counts again, to 0.2 % where `decide` hashes by a random seed.
//!
//! Cost: about half a minute after the build.

mod record;

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::parts::{PARTS, REQUESTS};
pub use record::Record;

/// How much more a part may take than recorded. Most changes of the compiler's mind about inlining stay below, a
/// check forgotten in a loop does not.
pub const TOLERANCE_PERCENT: f64 = 3.0;

/// What was counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Counts {
    /// Where.
    pub machine: Machine,
    /// In the order of a request's way.
    pub parts: Vec<Count>,
}

/// A part's count.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Count {
    /// Its name, as in [`PARTS`].
    pub part: String,
    /// Mean over the requests, which are always the same.
    pub instructions_per_request: f64,
}

/// What a count depends on beside the source. Counts of different machines are not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The compiler's release, as in `1.95.0`.
    pub rustc: String,
    /// What it compiles for, as in `x86_64-unknown-linux-gnu`.
    pub target: String,
    /// The widest SIMD instructions that valgrind passes on and a library here asks for.
    pub simd: String,
    /// The C library and its release, as in `glibc 2.36`.
    pub libc: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rustc,
            target,
            simd,
            libc,
        } = self;
        write!(f, "rustc {rustc}, {target}, {simd}, {libc}")
    }
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// Where the compiler does not say what it is.
    pub fn here() -> io::Result<Self> {
        let rustc = output(Command::new("rustc").arg("-vV"))?;
        let said = |key: &str| {
            let value = rustc.lines().find_map(|line| line.strip_prefix(key));
            value
                .map(|value| value.trim().to_owned())
                .ok_or_else(|| io::Error::other(format!("rustc -vV does not say {key}")))
        };
        Ok(Self {
            rustc: said("release:")?,
            target: said("host:")?,
            simd: simd().to_owned(),
            // Only glibc tells.
            libc: output(Command::new("getconf").arg("GNU_LIBC_VERSION"))
                .map_or_else(|_| "-".to_owned(), |text| text.trim().to_owned()),
        })
    }
}

#[cfg(target_arch = "x86_64")]
fn simd() -> &'static str {
    // Valgrind hides AVX-512 from what runs in it.
    if std::arch::is_x86_feature_detected!("avx2") {
        "avx2"
    } else {
        "sse2"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn simd() -> &'static str {
    std::env::consts::ARCH
}

/// Builds the counting program, runs it, reads its report.
///
/// # Errors
/// Where valgrind or the runner is missing, the program does not build or fails, or a part is not in its report.
pub fn run() -> io::Result<Counts> {
    let path = path_with_tools()?;
    for tool in ["valgrind", "gungraun-runner"] {
        let found = Command::new(tool)
            .arg("--version")
            .env("PATH", &path)
            .stdin(Stdio::null())
            .output();
        if let Err(error) = found {
            let text = format!("{tool} does not run ({error}); `scripts/test counts` fetches it");
            return Err(io::Error::other(text));
        }
    }
    let mut cargo = Command::new("cargo");
    cargo
        .args(["bench", "--package", "bench", "--bench", "instructions"])
        .args(["--", "--output-format=json"])
        .current_dir(folder())
        .env("PATH", path)
        .stderr(Stdio::inherit());
    let report = output(&mut cargo)?;
    let parts = parse(&report).map_err(io::Error::other)?;
    Ok(Counts {
        machine: Machine::here()?,
        parts,
    })
}

/// This package's folder, of the checkout that it was built from.
fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where counts are recorded.
pub fn record_file() -> PathBuf {
    folder().join("record/instructions.tsv")
}

/// `PATH`, and before it the folder in which `scripts/test` keeps its tools.
#[expect(
    clippy::disallowed_methods,
    reason = "the system's PATH, not a setting of ours"
)]
pub(crate) fn path_with_tools() -> io::Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = folder().join("../target/tools/bin");
    std::env::join_paths([tools].into_iter().chain(std::env::split_paths(&path)))
        .map_err(io::Error::other)
}

fn output(command: &mut Command) -> io::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |what: String| io::Error::other(format!("{name}: {what}"));
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{} {}", output.status, told.trim())));
    }
    String::from_utf8(output.stdout).map_err(|_| failed("its output is not UTF-8".to_owned()))
}

/// The runner's report: a line of JSON for each benchmark.
fn parse(report: &str) -> Result<Vec<Count>, String> {
    let mut counted = Vec::new();
    for line in report.lines().filter(|line| line.starts_with('{')) {
        let summary: serde_json::Value =
            serde_json::from_str(line).map_err(|error| format!("the runner's report: {error}"))?;
        let part = summary["id"].as_str().unwrap_or_default();
        // The newest figure is alone on the first run, and beside the one before later.
        let instructions = summary
            .pointer("/profiles/0/data/total/metrics/Ir/values/new")
            .and_then(serde_json::Value::as_u64)
            .ok_or_else(|| format!("the runner's report has no instructions of {part:?}"))?;
        counted.push((part.to_owned(), instructions));
    }
    PARTS
        .iter()
        .map(|(name, _)| {
            let (part, instructions) = counted
                .iter()
                .find(|(part, _)| part == name)
                .ok_or_else(|| format!("the runner's report has no part {name:?}"))?;
            Ok(Count {
                part: part.clone(),
                instructions_per_request: *instructions as f64 / REQUESTS as f64,
            })
        })
        .collect()
}

/// A part now and as recorded.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    part: String,
    recorded: Option<f64>,
    now: Option<f64>,
}

/// What there is to say of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Kept,
    More,
    Less,
    New,
    Gone,
}

impl Change {
    fn percent(&self) -> Option<f64> {
        Some((self.now? / self.recorded? - 1.0) * 100.0)
    }

    fn verdict(&self) -> Verdict {
        match (self.recorded, self.percent()) {
            (_, Some(percent)) if percent > TOLERANCE_PERCENT => Verdict::More,
            (_, Some(percent)) if percent < -TOLERANCE_PERCENT => Verdict::Less,
            (_, Some(_)) => Verdict::Kept,
            (None, None) => Verdict::New,
            (Some(_), None) => Verdict::Gone,
        }
    }
}

/// Counts beside those recorded.
#[derive(Debug)]
pub struct Comparison(Vec<Change>);

impl Comparison {
    /// Every part of either side.
    pub fn new(now: &Counts, recorded: &[Count]) -> Self {
        let of = |counts: &[Count], part: &str| {
            let count = counts.iter().find(|count| count.part == part);
            count.map(|count| count.instructions_per_request)
        };
        let gone = recorded
            .iter()
            .filter(|count| of(&now.parts, &count.part).is_none());
        let change = |count: &Count| Change {
            part: count.part.clone(),
            recorded: of(recorded, &count.part),
            now: of(&now.parts, &count.part),
        };
        Self(now.parts.iter().chain(gone).map(change).collect())
    }

    fn any(&self, verdict: Verdict) -> bool {
        self.0.iter().any(|change| change.verdict() == verdict)
    }

    /// Whether a part takes more than recorded and tolerated.
    pub fn is_worse(&self) -> bool {
        self.any(Verdict::More)
    }

    /// Whether the record no longer says what is: a part takes less, is new or gone.
    pub fn is_outdated(&self) -> bool {
        self.any(Verdict::Less) || self.any(Verdict::New) || self.any(Verdict::Gone)
    }

    /// As a table for people: instructions a request.
    pub fn table(&self) -> String {
        let mut out = format!(
            "{:<14} {:>12} {:>12} {:>9}\n",
            "part", "recorded", "now", "change"
        );
        let number = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
        };
        for change in &self.0 {
            let percent = change
                .percent()
                .map_or_else(String::new, |percent| format!("{percent:+.2} %"));
            let note = match change.verdict() {
                Verdict::Kept => String::new(),
                Verdict::More => format!("  MORE, by over {TOLERANCE_PERCENT} %"),
                Verdict::Less => "  less".to_owned(),
                Verdict::New => "  new".to_owned(),
                Verdict::Gone => "  gone".to_owned(),
            };
            let _ = writeln!(
                out,
                "{:<14} {:>12} {:>12} {:>9}{note}",
                change.part,
                number(change.recorded),
                number(change.now),
                percent
            );
        }
        out
    }
}

impl Counts {
    /// As a table for people: instructions a request.
    pub fn table(&self) -> String {
        let mut out = format!("{:<14} {:>12}\n", "part", "instructions");
        for count in &self.parts {
            let _ = writeln!(
                out,
                "{:<14} {:>12.2}",
                count.part, count.instructions_per_request
            );
        }
        out
    }
}

#[cfg(test)]
mod tests;
