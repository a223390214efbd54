//! The habits of this repository, checked by an ordinary test: it reads the tree and says, for each breach, where it
//! is and what to do instead.
//!
//! Judging is a pure function of a file's path and text ([`breaches`]), so that every habit has a small case below
//! which shows that its check can fail. Only the standard library is used.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Largest file in the repository. Bigger data is generated, or made by a script that is here.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Longest source file, tests not counted. Split by idea: `foo.rs` and `foo/part.rs`.
const SOURCE_LINES_MAX: usize = 700;
/// How many lines above an `unsafe` its argument may begin.
const SAFETY_LINES: usize = 12;

/// Modules that compute: no I/O runtime, no metrics, no clock of their own.
const PURE: &[&str] = &[
    "decision",
    "audience",
    "campaigns",
    "privacy",
    "openrtb",
    "identity",
    "ids",
    "clock",
    "money",
    "generation",
];
/// The only modules that may ask what time it is: the clock, and the outermost layers.
const MAY_ASK_THE_TIME: &[&str] = &["clock", "http", "cli", "datasets", "service", "main"];
/// The only module that may swap a generation.
const MAY_SWAP: &[&str] = &["datasets"];
/// The only modules that may hold `unsafe`, each in files whose `//!` says so.
const MAY_BE_UNSAFE: &[&str] = &["audience", "lines", "priority"];
/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "utils", "util", "types", "manager", "common", "helpers", "misc",
];

/// A word that source files do without.
struct Ban {
    word: &'static str,
    /// The modules in which it stands for a breach.
    where_banned: Where,
    instead: &'static str,
}

enum Where {
    /// In all source, tests too.
    Everywhere,
    /// In these modules of `src/`.
    In(&'static [&'static str]),
    /// In all modules of `src/` but these.
    Except(&'static [&'static str]),
}

const BANS: &[Ban] = &[
    Ban {
        word: "todo!",
        where_banned: Where::Everywhere,
        instead: "build it, or return an error that says it is not built",
    },
    Ban {
        word: "unimplemented!",
        where_banned: Where::Everywhere,
        instead: "build it, or return an error that says it is not built",
    },
    Ban {
        word: "dbg!",
        where_banned: Where::Everywhere,
        instead: "tracing::debug! off the bid path; in tests, an assertion",
    },
    Ban {
        word: "ArcSwap",
        where_banned: Where::Except(MAY_SWAP),
        instead: "take a &Generation, or a datasets::LiveReader where a request begins",
    },
    Ban {
        word: "arc_swap",
        where_banned: Where::Except(MAY_SWAP),
        instead: "take a &Generation, or a datasets::LiveReader where a request begins",
    },
    Ban {
        word: "hyper::",
        where_banned: Where::In(PURE),
        instead: "take bytes and plain data; http knows hyper",
    },
    Ban {
        word: "hyper_util::",
        where_banned: Where::In(PURE),
        instead: "take bytes and plain data; http knows hyper",
    },
    Ban {
        word: "tokio::",
        where_banned: Where::In(PURE),
        instead: "a plain function; http and datasets decide on which thread it runs",
    },
    Ban {
        word: "prometheus::",
        where_banned: Where::In(PURE),
        instead: "return what happened; metrics counts it",
    },
    Ban {
        word: "Instant::now",
        where_banned: Where::In(PURE),
        instead: "take the instant as a parameter",
    },
    Ban {
        word: "SystemTime",
        where_banned: Where::Except(MAY_ASK_THE_TIME),
        instead: "take a clock::Timestamp as a parameter",
    },
    Ban {
        word: "Timestamp::now",
        where_banned: Where::Except(MAY_ASK_THE_TIME),
        instead: "take a clock::Timestamp as a parameter",
    },
    Ban {
        word: "Zoned::now",
        where_banned: Where::Everywhere,
        instead: "take a clock::Timestamp as a parameter",
    },
];

/// Words that no source file has, comments included.
const NOTES_TO_SELF: &[&str] = &["FIXME", "XXX", "TODO", "HACK"];

/// How paths of one person's machine begin.
const MACHINE_PATHS: &[&str] = &["/work/", "/home/", "/root/", "/Users/"];

/// What is wrong with the file at `path` (from the repository's root, with `/`), one line each.
fn breaches(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !path.ends_with("tests/tidy.rs") {
        machine_paths(path, text, &mut found);
        if path.ends_with(".rs") {
            source(path, text, &mut found);
        }
    }
    found
}

fn source(path: &str, text: &str, found: &mut Vec<String>) {
    let module = Module::at(path);
    let stem = path.rsplit('/').next().unwrap_or(path);
    if stem == "mod.rs" {
        found.push(format!(
            "{path}: mod.rs; instead: foo.rs beside the folder foo/"
        ));
    }
    if let Some(name) = path
        .split(['/', '.'])
        .find(|part| EMPTY_NAMES.contains(part))
    {
        let instead = "a noun that says what is inside";
        found.push(format!("{path}: the name {name}; instead: {instead}"));
    }
    let is_test = stem == "tests.rs" || path.starts_with("tests/") || path.contains("/tests/");
    if path.starts_with("src/") && !is_test && !text.starts_with("//!") {
        found.push(format!(
            "{path}:1: opens without //!; instead: say what it is, why this shape, the invariant, the cost"
        ));
    }
    let code_lines = text
        .lines()
        .position(|line| line.starts_with("#[cfg(test)]"))
        .unwrap_or_else(|| text.lines().count());
    if !is_test && code_lines > SOURCE_LINES_MAX {
        found.push(format!(
            "{path}: {code_lines} lines before its tests, more than {SOURCE_LINES_MAX}; instead: split it by idea"
        ));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let mut breach = |what: &str, instead: &str| {
            found.push(format!("{path}:{number}: {what}; instead: {instead}"));
        };
        for word in NOTES_TO_SELF {
            if has_word(line, word) {
                breach(word, "do it, or a sentence that says why it is as it is");
            }
        }
        let code = without_comment(line);
        for ban in BANS {
            // A test is its own outermost layer: it may time itself.
            let timed_test = is_test && ban.word == "Instant::now";
            if has_word(code, ban.word) && !timed_test && module.is_banned(&ban.where_banned) {
                breach(ban.word, ban.instead);
            }
        }
        if code.trim_start().starts_with("#[ignore]") {
            breach(
                "#[ignore] without a reason",
                "#[ignore = \"why: scripts/long-tests NAME\"]",
            );
        }
        for name in EMPTY_NAMES {
            if code.trim_end().ends_with([';', '{']) && has_word(code, &format!("mod {name}")) {
                breach(&format!("mod {name}"), "a noun that says what is inside");
            }
        }
    }
    unsafe_code(path, &module, text, found);
}

fn unsafe_code(path: &str, module: &Module<'_>, text: &str, found: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    let allowed = match module {
        Module::In(name) => MAY_BE_UNSAFE.contains(name),
        // Counting allocators of tests and benches.
        Module::Outside => true,
    };
    let opening: Vec<&&str> = lines.iter().take_while(|l| l.starts_with("//!")).collect();
    let says_so = opening.iter().any(|line| line.contains("unsafe"));
    for (index, line) in lines.iter().enumerate() {
        if !has_word(without_comment(line), "unsafe") {
            continue;
        }
        let number = index + 1;
        let mut breach = |what: &str| found.push(format!("{path}:{number}: {what}"));
        if !allowed {
            breach("unsafe; instead: safe code, or a module of MAY_BE_UNSAFE");
        } else if matches!(module, Module::In(_)) && !says_so {
            breach(
                "unsafe in a file whose //! does not say so; instead: open with why it is needed",
            );
        }
        let above = lines.iter().take(index + 1).rev().take(SAFETY_LINES);
        if !above
            .into_iter()
            .any(|l| l.contains("SAFETY") || l.contains("# Safety"))
        {
            breach("unsafe without argument; instead: // SAFETY: why it holds");
        }
    }
}

fn machine_paths(path: &str, text: &str, found: &mut Vec<String>) {
    for (number, line) in (1..).zip(text.lines()) {
        for start in MACHINE_PATHS {
            let absolute = line.match_indices(start).any(|(at, _)| {
                let before = line.get(..at).and_then(|before| before.chars().next_back());
                !before.is_some_and(|c| c.is_alphanumeric() || "._-~$})>*".contains(c))
            });
            if absolute {
                found.push(format!(
                    "{path}:{number}: a path of one machine ({start}…); instead: a path from the repository's root"
                ));
            }
        }
    }
}

/// The links of a Markdown file that lead nowhere. `exists` answers for paths from the repository's root.
fn dead_links(path: &str, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let mut dead = Vec::new();
    let mut fenced = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in link_targets(line) {
            let file = target.split(['#', '?']).next().unwrap_or_default();
            let elsewhere = file.contains("://") || file.starts_with("mailto:");
            if file.is_empty() || elsewhere {
                continue;
            }
            if !exists(&flattened(&folder.join(file))) {
                dead.push(format!(
                    "{path}:{number}: a link to {target}, which is not there; instead: the path from this file's folder"
                ));
            }
        }
    }
    dead
}

/// `](target)` and `[name]: target`, outside of `code`.
fn link_targets(line: &str) -> Vec<String> {
    let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("\u{1}");
    let inline = prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next());
    let reference = prose
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]: "))
        .and_then(|(_, target)| target.split(' ').next());
    inline.chain(reference).map(str::to_owned).collect()
}

/// The path without `.` and `..`.
fn flattened(path: &Path) -> PathBuf {
    let mut flat = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                flat.pop();
            }
            other => flat.push(other),
        }
    }
    flat
}

/// Which module of `src/` a file belongs to, by the first name of its path.
enum Module<'p> {
    In(&'p str),
    /// Tests, benches, other members of the workspace.
    Outside,
}

impl<'p> Module<'p> {
    fn at(path: &'p str) -> Self {
        match path.strip_prefix("src/") {
            Some(rest) => Self::In(rest.split(['/', '.']).next().unwrap_or(rest)),
            None => Self::Outside,
        }
    }

    fn is_banned(&self, banned: &Where) -> bool {
        match (banned, self) {
            (Where::Everywhere, _) => true,
            (Where::In(modules), Self::In(name)) => modules.contains(name),
            (Where::Except(modules), Self::In(name)) => !modules.contains(name),
            (_, Self::Outside) => false,
        }
    }
}

/// Whether `word` is in the line and no part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    let joins = |edge: Option<char>, next: Option<char>| {
        edge.is_some_and(inside) && next.is_some_and(inside)
    };
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line
            .get(at + word.len()..)
            .and_then(|text| text.chars().next());
        !joins(word.chars().next(), before) && !joins(word.chars().next_back(), after)
    })
}

/// The line up to `//`. A URL in a string ends it too early, which hides nothing that we look for.
fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// The repository's files, from its root; build output, data and what is fetched are none of it.
fn files(root: &Path) -> Vec<PathBuf> {
    let skipped = HashSet::from(["target", ".git", "proptest-regressions"]);
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let entry = entry.expect("a readable entry");
            let name = entry.file_name();
            let data = folder == root && name == "data";
            let fuzzed = folder == root.join("fuzz") && (name == "corpus" || name == "artifacts");
            if data || fuzzed || name.to_str().is_some_and(|name| skipped.contains(name)) {
                continue;
            }
            let kind = entry.file_type().expect("a kind of file");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}

#[test]
fn the_tree_keeps_its_habits() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let files = files(root);
    assert!(files.iter().any(|file| file.ends_with("src/lib.rs")));
    for file in files {
        let bytes = std::fs::read(&file).expect("a readable file");
        let path = file.strip_prefix(root).expect("below the root");
        let path = path.to_str().expect("a name in UTF-8").replace('\\', "/");
        if bytes.len() > FILE_BYTES_MAX {
            found.push(format!(
                "{path}: {} bytes, more than 1 MiB; instead: a script that makes it",
                bytes.len()
            ));
        }
        // What is not text has no lines to judge.
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        found.extend(breaches(&path, &text));
        if path.ends_with(".md") {
            found.extend(dead_links(&path, &text, &|to| root.join(to).exists()));
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// The names of the tests in a source file that are ignored.
fn ignored(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("#[ignore") {
            let name = lines.find_map(|line| line.trim_start().strip_prefix("fn "));
            names.extend(name.and_then(|rest| rest.split('(').next()));
        }
    }
    names
}

#[test]
fn every_ignored_test_is_run_by_a_script() {
    let text = "#[test]\n#[ignore = \"long\"]\n#[allow(x)]\nfn one() {}\nfn two() {}\n    #[ignore]\n    fn three() {";
    assert_eq!(ignored(text), ["one", "three"]);

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(root.join("scripts/long-tests")).expect("the script");
    let mut seen = 0;
    for file in files(root) {
        if file.extension().is_none_or(|is| is != "rs") || file.ends_with("tests/tidy.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a source file");
        for name in ignored(&text) {
            seen += 1;
            assert!(
                script.contains(name),
                "{}: {name} is ignored, and scripts/long-tests does not name it",
                file.display()
            );
        }
    }
    assert!(seen > 0);
}

/// What `text` at `path` is told: the parts before "; instead", each without its path.
fn told(path: &str, text: &str) -> Vec<String> {
    let rest = |line: &String| {
        let what = line.strip_prefix(path).expect("a line names its file");
        let what = what.split("; instead").next().unwrap_or(what);
        what.trim_start_matches(':').trim().to_owned()
    };
    breaches(path, text).iter().map(rest).collect()
}

#[test]
fn each_habit_can_be_broken() {
    for (path, text, expect) in [
        ("src/a.rs", "use b;", "1: opens without //!"),
        ("src/a/mod.rs", "//! a", "mod.rs"),
        ("src/utils.rs", "//! a", "the name utils"),
        ("src/a/common/b.rs", "//! a", "the name common"),
        ("src/a.rs", "//! a\nmod types;", "2: mod types"),
        ("src/a.rs", "//! a\ntodo!()", "2: todo!"),
        ("tests/a.rs", "unimplemented!()", "1: unimplemented!"),
        ("bench/src/a.rs", "dbg!(x)", "1: dbg!"),
        ("src/a.rs", "//! a\n// FIXME later", "2: FIXME"),
        ("tests/a.rs", "// XXX", "1: XXX"),
        ("src/http.rs", "//! a\nuse arc_swap::Cache;", "2: arc_swap"),
        ("src/decision/a.rs", "//! a\ntokio::spawn(x)", "2: tokio::"),
        ("src/money.rs", "//! a\nuse hyper::Body;", "2: hyper::"),
        (
            "src/audience.rs",
            "//! a\nprometheus::Counter",
            "2: prometheus::",
        ),
        (
            "src/campaigns.rs",
            "//! a\nInstant::now()",
            "2: Instant::now",
        ),
        (
            "src/ledger.rs",
            "//! a\nTimestamp::now()",
            "2: Timestamp::now",
        ),
        (
            "src/ledger.rs",
            "//! a\nuse std::time::SystemTime;",
            "2: SystemTime",
        ),
        (
            "src/a.rs",
            "//! a\n#[ignore]\nfn f() {}",
            "2: #[ignore] without a reason",
        ),
        (
            "src/http.rs",
            "//! a\n// SAFETY: no\nunsafe { f() }",
            "3: unsafe",
        ),
        (
            "src/audience/a.rs",
            "//! a\n// SAFETY: yes\nunsafe { f() }",
            "3: unsafe in a file whose //! does not say so",
        ),
        (
            "src/audience/a.rs",
            "//! holds unsafe\nunsafe { f() }",
            "2: unsafe without argument",
        ),
        (
            "docs/a.md",
            "run /root/x",
            "1: a path of one machine (/root/…)",
        ),
        (
            "fixtures/a.json",
            "\"/home/me/x\"",
            "1: a path of one machine (/home/…)",
        ),
    ] {
        let told = told(path, text);
        assert_eq!(told, [expect], "{path}: {text}");
    }
    let long = format!("//! a\n{}", "x();\n".repeat(SOURCE_LINES_MAX));
    assert_eq!(
        told("src/a.rs", &long),
        ["701 lines before its tests, more than 700"]
    );
}

#[test]
fn what_is_well_is_left_alone() {
    for (path, text) in [
        ("src/datasets/live.rs", "//! a\nuse arc_swap::ArcSwap;"),
        ("src/cli.rs", "//! a\nTimestamp::now()"),
        ("src/decision.rs", "//! a\n// tokio:: would not do here"),
        ("src/decision.rs", "//! a\nlet hyper = tokio_free();"),
        (
            "src/audience/a.rs",
            "//! Holds unsafe: maps files.\n// SAFETY: yes\nunsafe { f() }",
        ),
        (
            "src/a.rs",
            "//! a\n#![deny(unsafe_code)]\n#[ignore = \"slow\"]",
        ),
        ("src/a/tests.rs", "use super::*;"),
        (
            "tests/a.rs",
            "// SAFETY: counts and passes on\nunsafe impl GlobalAlloc for A {}",
        ),
        (
            "docs/a.md",
            "see https://a.example/root/x and $HOME/home/x, ./root/x",
        ),
        ("src/a.rs", "//! a\nlet datatypes = commonly();"),
    ] {
        assert!(
            breaches(path, text).is_empty(),
            "{:?}",
            breaches(path, text)
        );
    }
}

#[test]
fn dead_links_are_found() {
    let there = |path: &Path| path == Path::new("docs/a.md") || path == Path::new("README.md");
    let check = |text: &str| dead_links("docs/b.md", text, &there);
    for good in [
        "[a](a.md) [b](./a.md#part) [c](../README.md) [d](https://x.example/y) [e](#here)",
        "`[a](gone.md)`",
        "```\n[a](gone.md)\n```",
        "[a]: a.md",
    ] {
        assert!(check(good).is_empty(), "{good}");
    }
    for bad in [
        "[a](gone.md)",
        "[a](a.md) [b](README.md)",
        "[a]: gone.md \"title\"",
    ] {
        assert_eq!(check(bad).len(), 1, "{bad}");
    }
}
