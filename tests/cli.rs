//! The `kith` command as people and scripts meet it: the binary itself, its exit codes, and what it prints where.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// How a run of the command ended.
#[derive(Debug)]
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    #[track_caller]
    fn is(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }

    /// Whether standard error says so.
    #[track_caller]
    fn tells(self, what: &str) -> Self {
        assert!(self.err.contains(what), "wanted {what:?} in {self:#?}");
        self
    }

    #[track_caller]
    fn shows(self, what: &str) -> Self {
        assert!(self.out.contains(what), "wanted {what:?} in {self:#?}");
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect("JSON on standard output")
    }
}

/// Runs the command in a folder; arguments are split at blanks.
fn kith_in(folder: &Path, args: &str, stdin: &[u8]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kith"))
        .args(args.split_whitespace())
        .current_dir(folder)
        .env_remove("KITH_ADMIN_URL")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kith started");
    // Whoever does not read it may close it.
    let _ = child.stdin.take().expect("stdin").write_all(stdin);
    let done = child.wait_with_output().expect("kith ended");
    Run {
        code: done.status.code().expect("an exit code, not a signal"),
        out: String::from_utf8(done.stdout).expect("UTF-8"),
        err: String::from_utf8(done.stderr).expect("UTF-8"),
    }
}

/// A folder with files in it.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).expect("written");
    }
    folder
}

const ROWS: &[u8] =
    b"source,id,segments,expires\nifa,a-1,vip|new,\nifa,a-2,vip,2099-01-01T00:00:00Z\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(bytes).expect("packed");
    packer.finish().expect("packed")
}

/// Names in a folder, sorted, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn every_command_has_help_with_examples() {
    let here = folder(&[]);
    let all = kith_in(here.path(), "--help", b"").is(0);
    for command in [
        "demo",
        "serve",
        "build",
        "inspect",
        "diff",
        "upload",
        "lookup",
        "explain",
        "check",
        "completions",
    ] {
        assert!(all.out.contains(&format!("  {command} ")), "{command}");
        let help = kith_in(here.path(), &format!("{command} --help"), b"").is(0);
        let help = help.shows("Usage: kith").shows("Examples:");
        assert!(help.out.contains(&format!("  kith {command}")), "{command}");
    }
    kith_in(here.path(), "--version", b"")
        .is(0)
        .shows("kith 0.");
}

#[test]
fn asking_wrongly_is_exit_code_2() {
    let here = folder(&[
        ("a.csv", ROWS),
        ("a.txt", b"x\n"),
        ("a.dat", b""),
        ("a.json", b"{}"),
    ]);
    for (args, tells) in [
        ("", "Usage"),
        ("nonsense", "nonsense"),
        ("buld", "build"),
        ("inspect", "FILE"),
        ("diff a.kith", "<B>"),
        (
            "build --kind filter --dataset a --version 1 --input a.csv --output x.kith --false-positive-rate 0.5",
            "0.0001 to 0.1",
        ),
        (
            "build --dataset a --version 1 --input a.csv --output x.kith --false-positive-rate 0.01",
            "--kind filter",
        ),
        ("check", "--config"),
        ("build --dataset crm --version 1 --output x.kith", "--input"),
        (
            "build --dataset a/b --version 1 --input a.csv --output x.kith",
            "name",
        ),
        (
            "build --dataset a --version 0 --input a.csv --output x.kith",
            "0",
        ),
        (
            "build --dataset a --version 1 --input a.dat --output x.kith",
            "--format",
        ),
        (
            "build --dataset a --version 1 --input a.txt --output x.kith",
            "--source and --segment",
        ),
        (
            "build --dataset a --version 1 --input a.json --output x.kith",
            "ndjson",
        ),
        (
            "build --dataset a --version 2 --base 2 --input a.csv --output x.kith",
            "--base is a version below",
        ),
        (
            "build --dataset a --version 2 --root 1 --input a.csv --output x.kith",
            "--base",
        ),
        (
            "build --dataset a --version 1 --input a.csv --output x.kith --source s --segment g",
            "--source",
        ),
        (
            "build --dataset a --version 1 --input a.csv --output . ",
            "--output",
        ),
        (
            "build --dataset a --version 1 --input a.csv --output x.kith --max-rejected-share 2",
            "share",
        ),
        (
            "build --dataset a --version 1 --input a.csv --output x.kith --as-of 2999-01-01T00:00:00Z",
            "future",
        ),
        (
            "build --dataset a --version 1 --input a.csv --output x.kith --as-of soon",
            "as_of",
        ),
        (
            "build --dataset campaigns --kind campaigns --version 1 --input a.json --output x.kith",
            "kith upload",
        ),
        ("upload --dataset a a.csv a.json", "not written alike"),
        ("upload --dataset a a.txt", "--source and --segment"),
        ("upload --dataset a a.csv --to https://localhost:1", "TLS"),
        ("upload --dataset a a.csv --to localhost:1", "http://"),
        ("completions klingon", "klingon"),
    ] {
        let run = kith_in(here.path(), args, b"").is(2).tells(tells);
        assert_eq!(run.out, "", "{args}");
    }
    assert_eq!(
        names(here.path()),
        ["a.csv", "a.dat", "a.json", "a.txt"],
        "nothing is left"
    );
}

#[test]
fn no_key_is_made_where_another_was_meant() {
    let here = folder(&[("a.csv", ROWS)]);
    let build = "build --dataset crm --version 1 --input a.csv --output a.kith";
    kith_in(here.path(), &format!("{build} --key-file data/kye"), b"")
        .is(1)
        .tells("data/kye is not there");
    // Data without its key: it is lost, not new.
    fs::create_dir(here.path().join("data")).expect("made");
    fs::write(here.path().join("data/manifest.json"), "{}").expect("written");
    kith_in(here.path(), build, b"").is(1).tells("restore it");
    assert_eq!(names(here.path()), ["a.csv", "data"]);
    assert_eq!(names(&here.path().join("data")), ["manifest.json"]);
}

#[test]
fn rows_become_a_file_that_says_what_is_in_it() {
    let here = folder(&[
        ("crm.csv", ROWS),
        (
            "more.ndjson",
            b"{\"source\":\"ifa\",\"id\":\"a-1\",\"segments\":[\"old\"]}\n",
        ),
    ]);
    let args = "build --kind audience --dataset crm --version 7 --as-of seq:5 --input crm.csv more.ndjson --output crm.kith --json";
    let built = kith_in(here.path(), args, b"")
        .is(0)
        .tells("made a new key");
    let report = built.json();
    for (key, want) in [
        ("rows", 3),
        ("ids", 2),
        ("segments", 3),
        ("merged", 1),
        ("rejected_rows", 0),
    ] {
        assert_eq!(report[key], want, "{key}");
    }
    let key = here.path().join("data/key");
    let mode = fs::metadata(&key).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        names(here.path()),
        ["crm.csv", "crm.kith", "data", "more.ndjson"]
    );

    let seen = kith_in(here.path(), "inspect crm.kith --json", b"")
        .is(0)
        .json();
    let bytes = fs::metadata(here.path().join("crm.kith"))
        .expect("a file")
        .len();
    for (name, want) in [
        ("dataset", json!("crm")),
        ("kind", json!("audience")),
        ("version", json!(7)),
        ("as_of", json!("seq:5")),
        ("ids", json!(2)),
        ("rows", json!(3)),
        ("segments", json!(3)),
        ("bytes", json!(bytes)),
        ("verified", json!(true)),
        ("key_id", report["key_id"].clone()),
    ] {
        assert_eq!(seen[name], want, "{name}");
    }
    let told = kith_in(here.path(), "inspect crm.kith", b"").is(0);
    told.shows("every checksum is right").shows("  vip");

    // The same rows, another way in: the same bytes.
    let first = fs::read(here.path().join("crm.kith")).expect("read");
    let again = kith_in(
        here.path(),
        &args.replace("crm.csv more.ndjson", "more.ndjson crm.csv"),
        b"",
    )
    .is(0);
    assert_eq!(again.err, "", "the key is there now");
    assert_eq!(fs::read(here.path().join("crm.kith")).expect("read"), first);
}

/// As `inspect` and `diff` draw them up: the cells of the line that begins with this name.
fn line<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let mut lines = text.lines().map(str::trim_start);
    let line = lines.find(|line| line.starts_with(name));
    let cells = line.unwrap_or_default().split("  ").map(str::trim);
    cells.filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn a_list_becomes_a_filter_that_says_how_good_it_is() {
    let ids: String = (0..20_000).map(|n| format!("p-{n}\n")).collect();
    let here = folder(&[("ids.txt", ids.as_bytes()), ("two.csv", ROWS)]);
    let build = "build --kind filter --dataset optout --version 1 --input ids.txt --source ifa --segment list \
                 --false-positive-rate 0.001 --output optout.kith";
    kith_in(here.path(), build, b"").is(0);
    let seen = kith_in(here.path(), "inspect optout.kith --json", b"")
        .is(0)
        .json();
    for (name, want) in [
        ("kind", json!("filter")),
        ("ids", json!(20_000)),
        ("segments", json!(1)),
        ("memberships", json!(20_000)),
        ("verified", json!(true)),
    ] {
        assert_eq!(seen[name], want, "{name}");
    }
    assert_eq!(seen["filter"]["declared_rate"], 0.001);
    let expected = seen["filter"]["expected_rate"].as_f64().expect("a rate");
    assert!((0.000_5..0.001).contains(&expected), "{expected}");
    assert!(seen["sets"].is_null(), "{seen:#}");
    let told = kith_in(here.path(), "inspect optout.kith", b"").is(0).out;
    assert_eq!(line(&told, "declared"), ["declared", "0.1 %"]);
    assert_eq!(line(&told, "list"), ["list", "20,000"]);
    // Rows of two segments are no list: more of them are bad than may be.
    let two = "build --kind filter --dataset optout --version 2 --input two.csv --output two.kith";
    kith_in(here.path(), two, b"")
        .is(1)
        .tells("no good row")
        .shows("names a second segment, and a filter is one list");
}

#[test]
fn inspect_tells_what_sets_are_like() {
    let mut rows = String::from("source,id,segments,expires\n");
    for n in 0..2_000 {
        let more = if n % 4 == 0 { "|b|c|d|e" } else { "" };
        let expires = if n % 100 == 1 {
            "2099-01-01T00:00:00Z"
        } else {
            ""
        };
        rows.push_str(&format!("ifa,p{n},a{more},{expires}\n"));
    }
    let here = folder(&[("crm.csv", rows.as_bytes())]);
    let build = "build --dataset crm --version 1 --input crm.csv --output crm.kith";
    kith_in(here.path(), build, b"").is(0);
    let sets = kith_in(here.path(), "inspect crm.kith --json", b"")
        .is(0)
        .json()["sets"]
        .take();
    assert_eq!((&sets["mean"], &sets["max"]), (&json!(2.0), &json!(5)));
    let sizes = json!([{"from": 1, "to": 1, "ids": 1500}, {"from": 5, "to": 8, "ids": 500}]);
    assert_eq!(sets["sizes"], sizes);
    assert_eq!(sets["expiring"], 20);
    let told = kith_in(here.path(), "inspect crm.kith", b"").is(0).out;
    assert_eq!(line(&told, "1 segment"), ["1 segment", "1,500", "75 %"]);
    assert_eq!(line(&told, "5 to 8"), ["5 to 8 segments", "500", "25 %"]);
    assert!(
        told.contains("sets: 2.00 segments an id, 5 at most"),
        "{told}"
    );
    assert!(told.contains("20 memberships may expire"), "{told}");
    let records = line(&told, "records");
    assert!(records[2].ends_with(" an id"), "{records:?}");
}

#[test]
fn diff_tells_what_changed() {
    let rows = |first: u32, segments: [&str; 2]| {
        let row = |n| format!("ifa,p{n},{}\n", segments[(n % 2) as usize]);
        let rows: String = (first..first + 100).map(row).collect();
        format!("source,id,segments\n{rows}")
    };
    let (one, two) = (rows(0, ["a|gone", "a|b"]), rows(0, ["a|new|b", "a|b"]));
    let here = folder(&[("1.csv", one.as_bytes()), ("2.csv", two.as_bytes())]);
    let build = |dataset: &str, n: u32, kind: &str| {
        let args = format!(
            "build --dataset {dataset} --kind {kind} --version {n} --input {n}.csv --output {dataset}-{n}.kith"
        );
        kith_in(here.path(), &args, b"").is(0);
    };
    build("crm", 1, "audience");
    build("crm", 2, "audience");
    build("site", 1, "audience");
    let told = kith_in(here.path(), "diff crm-1.kith crm-2.kith", b"")
        .is(0)
        .out;
    for (name, cells) in [
        ("version", vec!["version", "1", "2"]),
        ("ids", vec!["ids", "100", "100"]),
        (
            "memberships",
            vec!["memberships", "200", "250", "+50 (+25.0 %)"],
        ),
        ("b ", vec!["b", "50", "100", "+50 (+100.0 %)"]),
        ("gone", vec!["gone", "50", "none", "removed"]),
        ("new", vec!["new", "none", "50", "added"]),
        ("a ", vec![]),
    ] {
        assert_eq!(line(&told, name), cells, "{told}");
    }
    assert!(
        told.contains("1 segment added, 1 removed, 1 of another size, 1 of the same"),
        "{told}"
    );
    assert!(
        told.contains("Which ids came and went cannot be told"),
        "{told}"
    );
    let difference = kith_in(here.path(), "diff crm-1.kith crm-2.kith --json", b"")
        .is(0)
        .json();
    assert_eq!(difference["changed"], json!(["version"]));
    assert_eq!(difference["same_salt"], false);
    assert_eq!(difference["before"]["ids"], 100);
    let segments = &difference["segments"];
    assert_eq!(
        segments["resized"],
        json!([{"name": "b", "before": 50, "after": 100}])
    );
    assert_eq!(segments["removed"], json!([{"name": "gone", "ids": 50}]));
    // A file and itself; files of two datasets; a file and none.
    let same = kith_in(here.path(), "diff crm-1.kith crm-1.kith", b"").is(0);
    same.shows("0 segments added, 0 removed, 0 of another size, 3 of the same");
    kith_in(here.path(), "diff crm-1.kith site-1.kith", b"")
        .is(1)
        .tells("two versions of one dataset");
    kith_in(here.path(), "diff crm-1.kith 1.csv", b"")
        .is(1)
        .tells("not a Kith version file");
    // Two lists.
    fs::write(
        here.path().join("3.csv"),
        "source,id,segments\nifa,a,list\n",
    )
    .expect("written");
    fs::write(
        here.path().join("4.csv"),
        "source,id,segments\nifa,a,list\nifa,b,list\n",
    )
    .expect("written");
    build("optout", 3, "filter");
    build("optout", 4, "filter --false-positive-rate 0.001");
    let told = kith_in(here.path(), "diff optout-3.kith optout-4.kith", b"")
        .is(0)
        .out;
    assert_eq!(
        line(&told, "errors declared"),
        ["errors declared", "1 %", "0.1 %"]
    );
    assert_eq!(line(&told, "list"), ["list", "1", "2", "+1 (+100.0 %)"]);
}

#[test]
fn changes_become_a_delta() {
    let here = folder(&[("c.csv", b"source,id,add,remove\nifa,a,vip,cart\n")]);
    let args =
        "build --dataset crm --version 3 --base 2 --root 1 --input c.csv --output c.kith --json";
    let report: Value =
        serde_json::from_str(&kith_in(here.path(), args, b"").is(0).out).expect("JSON");
    assert_eq!((&report["ids"], &report["base"]), (&1.into(), &2.into()));
    let file = std::fs::read(here.path().join("c.kith")).expect("a file");
    assert_eq!(file[28] & 1, 1, "flagged as a delta");
}

#[test]
fn packed_files_and_standard_input_are_rows_too() {
    let zstd = zstd::encode_all(ROWS, 1).expect("packed");
    let here = folder(&[
        ("a.csv.gz", &gzip(ROWS)),
        ("b.csv", &zstd),
        ("c.txt", b"a-1\na-2\n"),
    ]);
    let build = |input: &str, stdin: &[u8]| {
        let args = format!(
            "build --dataset crm --version 1 --input {input} --output {}.kith --json",
            input.len()
        );
        kith_in(here.path(), &args, stdin).is(0).json()["ids"].clone()
    };
    assert_eq!(build("a.csv.gz", b""), 2);
    assert_eq!(build("b.csv", b""), 2);
    assert_eq!(build("-", ROWS), 2);
    assert_eq!(build("-", &gzip(ROWS)), 2);
    assert_eq!(build("c.txt --source ifa --segment vip", b""), 2);
    assert_eq!(
        build("- --format text --source ifa --segment vip", b"a-1\n"),
        1
    );
}

#[test]
fn bad_rows_are_reported_and_too_many_make_no_file() {
    let mut rows = ROWS.to_vec();
    rows.extend_from_slice(b"ifa,,vip,\n");
    let here = folder(&[
        ("crm.csv", &rows),
        ("bad.csv", b"source,id,segments\nifa,,vip\n"),
    ]);
    let args = "build --dataset crm --version 1 --input crm.csv --output crm.kith";
    let run = kith_in(here.path(), args, b"")
        .is(1)
        .tells("1 of 3 rows rejected");
    run.tells("--max-rejected-share")
        .shows("line 4: ")
        .shows("not made");
    let run = kith_in(here.path(), &format!("{args} --json"), b"").is(1);
    assert_eq!(run.json()["rejected"][0]["line"], 4);
    assert_eq!(run.json()["output"], Value::Null);
    let empty = kith_in(
        here.path(),
        "build --dataset crm --version 1 --input bad.csv --output crm.kith",
        b"",
    );
    empty.is(1).tells("no good row").shows("line 2: ");
    let headless = kith_in(here.path(), &args.replace("crm.csv", "-"), b"a,b\n").is(1);
    headless.tells("no readable CSV header");
    kith_in(here.path(), &args.replace("crm.csv", "gone.csv"), b"")
        .is(1)
        .tells("gone.csv");
    assert_eq!(
        names(here.path()),
        ["bad.csv", "crm.csv", "data"],
        "no file, no temporary one"
    );

    let lenient = kith_in(
        here.path(),
        &format!("{args} --max-rejected-share 0.5"),
        b"",
    )
    .is(0);
    lenient.shows("line 4: ").shows("rejected  1");
}

#[test]
fn a_damaged_file_is_named_with_what_is_wrong() {
    let here = folder(&[("crm.csv", ROWS), ("no.kith", b"not ours")]);
    kith_in(
        here.path(),
        "build --dataset crm --version 1 --input crm.csv --output crm.kith",
        b"",
    )
    .is(0);
    let path = here.path().join("crm.kith");
    let mut bytes = fs::read(&path).expect("read");
    let last = bytes.last_mut().expect("bytes");
    *last ^= 1;
    fs::write(&path, &bytes).expect("written");
    let run = kith_in(here.path(), "inspect crm.kith", b"")
        .is(1)
        .tells("damaged");
    assert_eq!(
        (run.out.as_str(), run.err.lines().count()),
        ("", 1),
        "{run:?}"
    );
    bytes.truncate(100);
    fs::write(&path, &bytes).expect("written");
    kith_in(here.path(), "inspect crm.kith --json", b"")
        .is(1)
        .tells("crm.kith");
    kith_in(here.path(), "inspect no.kith", b"")
        .is(1)
        .tells("not a Kith version file");
    kith_in(here.path(), "inspect gone.kith", b"")
        .is(1)
        .tells("gone.kith");
}

#[test]
fn a_wrong_key_is_told_with_its_line_and_the_nearest_right_name() {
    let campaigns = include_bytes!("../fixtures/campaigns.json");
    let here = folder(&[
        (
            "bad.toml",
            b"[bid]\nlissten = \"127.0.0.1:0\"\n[admin]\nlisten = 3\n",
        ),
        ("good.toml", b"[bid]\nlisten = \"127.0.0.1:8089\"\n"),
        ("campaigns.json", campaigns),
        (
            "bad.json",
            br#"{"line_items":[{"id":"a","creatives":["none"],"price":{"cpm":"x"}}]}"#,
        ),
    ]);
    let run = kith_in(here.path(), "check --config bad.toml", b"").is(1);
    run.tells("2 problems")
        .tells("bad.toml:2")
        .tells("listen")
        .tells("bad.toml:4");
    kith_in(here.path(), "check --config good.toml", b"")
        .is(0)
        .shows("good.toml: ok");
    let both = kith_in(
        here.path(),
        "check --config good.toml --campaigns campaigns.json --json",
        b"",
    )
    .is(0)
    .json();
    assert_eq!(both["ok"], true);
    assert!(both["campaigns"]["line_items"].as_u64() > Some(0), "{both}");
    let run = kith_in(here.path(), "check --campaigns bad.json", b"").is(1);
    run.tells("bad.json: line_items[0]")
        .tells("price")
        .tells("targeting");
    let run = kith_in(here.path(), "check --campaigns bad.json --json", b"").is(1);
    assert_eq!(run.json()["ok"], false);
    kith_in(here.path(), "check --config gone.toml", b"")
        .is(1)
        .tells("gone.toml");
}

#[test]
fn who_stops_reading_is_no_failure() {
    let here = folder(&[]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_kith"))
        .args(["completions", "bash"])
        .current_dir(here.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kith started");
    drop(child.stdout.take());
    let done = child.wait_with_output().expect("ended");
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    assert_eq!(done.status.code(), Some(0));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        kith_in(here.path(), &format!("completions {shell}"), b"")
            .is(0)
            .shows("kith");
    }
}

/// What the fake admin listener was asked.
#[derive(Debug)]
struct Asked {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(n, _)| n == name);
        all.next().map(|(_, value)| value.as_str())
    }
}

/// An admin listener that says what it is told to, one answer a connection.
struct Fake {
    address: SocketAddr,
    asked: mpsc::Receiver<Asked>,
    thread: JoinHandle<()>,
}

impl Fake {
    fn start(answers: Vec<(u16, Value)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (tell, asked) = mpsc::channel();
        let thread = thread::spawn(move || {
            for (status, body) in answers {
                let (connection, _) = listener.accept().expect("a connection");
                let _ = tell.send(answer(connection, status, &body));
            }
        });
        Self {
            address,
            asked,
            thread,
        }
    }

    fn run(&self, here: &Path, args: &str, stdin: &[u8]) -> Run {
        kith_in(
            here,
            &format!("{args} --to http://{}/", self.address),
            stdin,
        )
    }

    /// All that was asked, once all answers are given.
    fn asked(self) -> Vec<Asked> {
        self.thread.join().expect("all answers were asked for");
        self.asked.iter().collect()
    }
}

fn answer(connection: TcpStream, status: u16, body: &Value) -> Asked {
    let mut reader = BufReader::new(&connection);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers = lines
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(": "));
    let mut asked = Asked {
        line: lines.first().cloned().unwrap_or_default(),
        headers: headers
            .map(|(n, v)| (n.to_lowercase(), v.to_owned()))
            .collect(),
        body: Vec::new(),
    };
    if asked.header("expect").is_some() {
        (&connection)
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .expect("sent");
    }
    if let Some(length) = asked.header("content-length") {
        let length = length.parse().expect("a length");
        asked.body = vec![0; length];
        reader.read_exact(&mut asked.body).expect("the body");
    } else if asked.header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).expect("a chunk's length");
            let size = u64::from_str_radix(size.trim(), 16).expect("hex");
            let mut chunk = Vec::new();
            (&mut reader)
                .take(size + 2)
                .read_to_end(&mut chunk)
                .expect("a chunk");
            chunk.truncate(chunk.len() - 2);
            if chunk.is_empty() {
                break;
            }
            asked.body.extend(chunk);
        }
    }
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    (&connection).write_all(head.as_bytes()).expect("sent");
    (&connection).write_all(body.as_bytes()).expect("sent");
    asked
}

fn published(state: &str, ok: bool) -> Value {
    json!({"dataset": "crm", "version": 8, "state": state, "rows": 2, "ids": 2, "segments": 2, "merged": 0,
        "rejected_rows": 1, "rejected": [{"line": 4, "reason": "the id is empty"}], "bytes": 1234,
        "checks": [{"name": "shrink", "ok": ok, "detail": "2 ids, 2000 before"}],
        "build_seconds": 0.5, "activate_seconds": 0.25})
}

#[test]
fn an_upload_in_force_is_reported() {
    let here = folder(&[("crm.csv", ROWS), ("token", b"sesame\n")]);
    let known = json!({"live": 6, "versions": [{"version": 7}, {"version": 6}], "history": [{"version": 5}]});
    let fake = Fake::start(vec![(200, known), (201, published("active", true))]);
    let args = "upload --dataset crm crm.csv --token-file token --kind audience --as-of 2026-01-01T00:00:00Z";
    let run = fake.run(here.path(), args, b"").is(0);
    let run = run
        .shows("crm version 8: active")
        .shows("line 4: the id is empty")
        .shows("ok  shrink");
    assert_eq!(run.err, "");
    let [get, put] = <[Asked; 2]>::try_from(fake.asked()).expect("two questions");
    assert_eq!(get.line, "GET /v1/datasets/crm HTTP/1.1");
    assert_eq!(
        put.line,
        "PUT /v1/datasets/crm/versions/8?kind=audience&as_of=2026-01-01T00%3A00%3A00Z HTTP/1.1"
    );
    let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(ROWS)));
    for (name, want) in [
        ("authorization", Some("Bearer sesame")),
        ("content-type", Some("text/csv")),
        ("content-digest", Some(&digest)),
        ("content-encoding", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(put.header(name), want, "{name}");
    }
    assert_eq!(put.body, ROWS);
}

#[test]
fn bodies_go_as_they_should() {
    let rows = String::from_utf8(ROWS.to_vec()).expect("text");
    let (head, one) = rows.split_once('\n').expect("a header");
    let long = "ifa,a-3,vip,\n".repeat(100_000);
    let here = folder(&[
        ("a.csv", ROWS),
        ("b.csv.gz", &gzip(format!("{head}\n{}", long).as_bytes())),
        ("other.csv", b"id,source,segments\n"),
        ("ids.txt", b"x\ny"),
        ("c.kith", b"pretended"),
    ]);
    let sent = |args: &str, stdin: &[u8]| {
        let fake = Fake::start(vec![(201, published("staged", true))]);
        let args = format!("upload --dataset crm --version 8 --stage-only {args}");
        fake.run(here.path(), &args, stdin).is(0).shows("staged");
        fake.asked().pop().expect("a question")
    };
    let put = sent("a.csv b.csv.gz", b"");
    assert_eq!(
        put.body,
        format!("{head}\n{one}{long}").as_bytes(),
        "joined, one header"
    );
    assert_eq!(put.header("content-encoding"), None);
    assert_eq!(put.header("expect"), Some("100-continue"), "it is long");
    let put = sent("b.csv.gz", b"");
    assert_eq!(put.header("content-encoding"), Some("gzip"));
    assert_eq!(
        put.body,
        fs::read(here.path().join("b.csv.gz")).expect("read"),
        "as it is"
    );
    let put = sent("ids.txt --source ifa --segment vip", b"");
    assert!(
        put.line.contains("?activate=false&source=ifa&segment=vip "),
        "{}",
        put.line
    );
    assert_eq!(put.header("content-type"), Some("text/plain"));
    let put = sent("c.kith", b"");
    assert_eq!(
        put.header("content-type"),
        Some("application/vnd.kith.snapshot")
    );
    let put = sent("-", ROWS);
    assert_eq!(
        (put.body.as_slice(), put.header("content-digest")),
        (ROWS, None),
        "in chunks"
    );

    let args = "upload --dataset crm --version 8 a.csv other.csv --to http://127.0.0.1:1";
    kith_in(here.path(), args, b"")
        .is(1)
        .tells("different CSV headers");
}

#[test]
fn a_pipe_with_a_name_is_read_once() {
    let here = folder(&[("crm.csv", ROWS)]);
    let fake = Fake::start(vec![(200, published("active", true))]);
    let script = format!(
        "{} upload --dataset crm --version 8 --format csv <(cat crm.csv)",
        env!("CARGO_BIN_EXE_kith")
    );
    let done = Command::new("bash")
        .args(["-c", &script])
        .current_dir(here.path())
        .env("KITH_ADMIN_URL", format!("http://{}", fake.address))
        .output()
        .expect("bash");
    assert!(done.status.success(), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stdout).contains("was so before"));
    assert_eq!(fake.asked()[0].body, ROWS);
}

#[test]
fn a_held_version_fails_with_its_checks() {
    let here = folder(&[("crm.csv", ROWS)]);
    let unknown = json!({"detail": "no such dataset"});
    let fake = Fake::start(vec![(404, unknown), (201, published("held", false))]);
    let run = fake
        .run(here.path(), "upload --dataset crm crm.csv", b"")
        .is(1)
        .tells("held");
    run.shows("FAILED  shrink  2 ids, 2000 before");
    assert!(
        fake.asked()[1]
            .line
            .starts_with("PUT /v1/datasets/crm/versions/1 ")
    );

    let fake = Fake::start(vec![(201, published("held", false))]);
    let run = fake
        .run(
            here.path(),
            "upload --dataset crm --version 3 crm.csv --json",
            b"",
        )
        .is(1);
    assert_eq!(run.json()["state"], "held");
}

#[test]
fn a_refusal_says_what_kith_says() {
    let here = folder(&[("crm.csv", ROWS), ("campaigns.json", b"{}")]);
    let rows = json!({"detail": "no good row; mend them", "rejected": [{"line": 2, "reason": "the id is empty"}]});
    let fake = Fake::start(vec![(422, rows)]);
    let run = fake
        .run(here.path(), "upload --dataset crm --version 3 crm.csv", b"")
        .is(1);
    run.tells("error: no good row; mend them (422)\n  line 2: the id is empty");

    let document = json!({"detail": "the document has 1 error", "errors": [
        {"path": "line_items[0].price", "id": "a", "message": "is required"}]});
    let fake = Fake::start(vec![(422, document)]);
    let run = fake
        .run(
            here.path(),
            "upload --dataset campaigns --version 3 campaigns.json",
            b"",
        )
        .is(1);
    run.tells("line_items[0].price (a): is required");

    let fake = Fake::start(vec![(401, json!({"detail": "a token is wanted"}))]);
    let run = fake
        .run(here.path(), "upload --dataset crm crm.csv", b"")
        .is(1);
    run.tells("a token is wanted").tells("--token-file");

    let fake = Fake::start(vec![(502, json!("<html>\u{1b}[2J"))]);
    let run = fake
        .run(here.path(), "upload --dataset crm --version 3 crm.csv", b"")
        .is(1);
    assert!(!run.err.contains('\u{1b}'), "{run:?}");
}

#[test]
fn where_nobody_listens_says_how_to_start_one() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("an address");
    drop(port);
    let here = folder(&[("crm.csv", ROWS), ("r.json", b"{}")]);
    for args in [
        "upload --dataset crm crm.csv",
        "lookup ifa x",
        "explain demo r.json",
    ] {
        let run = kith_in(here.path(), &format!("{args} --to http://{address}"), b"").is(1);
        let run = run.tells("no Kith answers").tells("kith serve");
        assert_eq!(
            (run.out.as_str(), run.err.lines().count()),
            ("", 1),
            "{run:?}"
        );
    }
}

#[test]
fn questions_are_asked_and_answers_shown() {
    let here = folder(&[("r.json", b"{\"id\":\"1\"}")]);
    let known = json!({"source": "exchange:a/b", "hash": "ab12", "known": true, "datasets": {"crm": 3}, "segments": [
        {"segment": "crm/vip", "version": 3, "expires": null, "expired": false},
        {"segment": "crm/old", "version": 3, "expires": "2020-01-01T00:00:00Z", "expired": true},
        {"segment": "optout/list", "version": 1, "expires": null, "expired": false, "false_positive_rate": 0.001}]});
    let fake = Fake::start(vec![(200, known.clone()), (200, known.clone())]);
    let run = fake.run(here.path(), "lookup exchange:a/b x%y", b"").is(0);
    run.shows("crm/vip      3        never")
        .shows("2020-01-01T00:00:00Z (expired)")
        .shows("never (approximate: 0.1 % of others are found too)");
    let run = fake
        .run(here.path(), "lookup exchange:a/b x%y --json", b"")
        .is(0);
    assert_eq!(run.json(), known);
    assert_eq!(
        fake.asked()[0].line,
        "GET /v1/users/exchange%3Aa%2Fb/x%25y HTTP/1.1"
    );

    let document = json!({"generation": 4, "datasets": {}, "privacy": {"verdict": "open"}, "ids": [],
        "segments": ["crm/vip"], "imps": [], "decision": "no_bid", "reason": "no_line_item", "why": "none matches"});
    let fake = Fake::start(vec![(200, document.clone()), (200, document)]);
    let run = fake.run(here.path(), "explain demo r.json", b"").is(0);
    run.shows("decision    no-bid, no_line_item: none matches")
        .shows("crm/vip");
    fake.run(here.path(), "explain demo -", b"{}").is(0);
    let [first, second] = <[Asked; 2]>::try_from(fake.asked()).expect("two questions");
    assert_eq!(first.line, "POST /v1/explain/demo HTTP/1.1");
    assert_eq!(
        (first.body.as_slice(), second.body.as_slice()),
        (&b"{\"id\":\"1\"}"[..], &b"{}"[..])
    );
}

#[test]
fn serve_says_each_thing_wrong_with_its_configuration_on_a_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = "[bid]\nlisen = 1\nthreads = -1\n";
    fs::write(folder.path().join("kith.toml"), wrong).expect("written");
    for command in ["serve --config kith.toml", "check --config kith.toml"] {
        let run = kith_in(folder.path(), command, b"").is(1);
        let lines: Vec<&str> = run.err.lines().collect();
        assert_eq!(lines.len(), 3, "{run:#?}");
        assert_eq!(lines[0], "error: 2 problems");
        assert!(lines[1].starts_with("  kith.toml:2: "), "{run:#?}");
        assert!(lines[2].starts_with("  kith.toml:3: "), "{run:#?}");
    }
}
