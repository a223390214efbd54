//! `docs/conformance.md` is held to what it claims: all rows of the protocol's checklist, each once and in order, each with
//! tests that exist.
//!
//! Judging is a pure function of the page's text and of a way to read files ([`flaws`]), so that each flaw has a small case below.

use std::path::Path;

/// Rows of the checklist.
const ROWS: u32 = 150;
/// One line of the table.
struct Row<'t> {
    line: usize,
    number: u32,
    tests: &'t str,
}

/// The lines of the table whose head is `| row | tests |`.
fn rows(page: &str) -> Vec<Row<'_>> {
    let numbered = (1..).zip(page.lines());
    let mut table = numbered.skip_while(|(_, line)| line.trim() != "| row | tests |");
    let head = table.by_ref().take(2).count();
    debug_assert!(head <= 2);
    table
        .take_while(|(_, line)| line.starts_with('|'))
        .map(|(line, text)| {
            let cells = text.trim_matches('|').split_once('|');
            let (number, tests) = cells.unwrap_or((text, ""));
            Row {
                line,
                number: number.trim().parse().unwrap_or(0),
                tests: tests.trim(),
            }
        })
        .collect()
}

/// The names of tests in a cell, as (path, name): what stands between backticks and looks like `path.rs::name`.
fn named(cell: &str) -> Vec<(&str, &str)> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|text| text.rsplit_once("::"))
        .filter(|(path, _)| path.ends_with(".rs"))
        .collect()
}

/// Whether a source file has `fn name` right behind `#[test]`, other attributes and comments between them.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let begins = format!("fn {name}(");
    let is_test = |at: usize| {
        lines
            .get(..at)
            .unwrap_or(&[])
            .iter()
            .rev()
            .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
            .any(|line| *line == "#[test]")
    };
    let mut found = (0..)
        .zip(&lines)
        .filter(|(_, line)| line.starts_with(&begins));
    found.any(|(at, _)| is_test(at))
}

/// What is wrong with the page, one line each. `read` reads a file by its path from the repository's root.
fn flaws(page: &str, read: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    let rows = rows(page);
    let mut expected = 1;
    for row in &rows {
        let (line, number) = (row.line, row.number);
        if number != expected {
            found.push(format!(
                "line {line}: row {expected} should stand here, not {number}"
            ));
        }
        expected = number + 1;
        let tests = named(row.tests);
        if tests.is_empty() {
            found.push(format!("line {line}: row {number} has no test"));
        }
        for (path, name) in tests {
            match read(path) {
                None => found.push(format!("line {line}: there is no file {path}")),
                Some(source) if !has_test(&source, name) => {
                    found.push(format!("line {line}: there is no test {name} in {path}"));
                }
                Some(_) => {}
            }
        }
    }
    if expected != ROWS + 1 {
        found.push(format!("the table ends before row {expected} of {ROWS}"));
    }
    found
}

#[test]
fn every_row_of_the_checklist_has_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let page = read("docs/conformance.md").expect("the page");
    let found = flaws(&page, &read);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// A page whose rows have these cells; `None` leaves a row out.
fn page(cell: impl Fn(u32) -> Option<String>) -> String {
    let lines = (1..=ROWS).filter_map(|row| Some(format!("| {row} | {} |\n", cell(row)?)));
    format!(
        "# T\n\nWords.\n\n| row | tests |\n|---|---|\n{}\nMore.\n",
        lines.collect::<String>()
    )
}

const GOOD: &str = "`src/a.rs::shows`";

fn told(page: &str) -> Vec<String> {
    let read = |path: &str| {
        let source = "#[test]\n#[ignore = \"long\"]\n// why\nfn shows() {}\n\nfn helper() {}\n";
        (path == "src/a.rs").then(|| source.to_owned())
    };
    flaws(page, &read)
}

#[test]
fn what_is_well_is_left_alone() {
    let cell = |row| match row {
        9 => format!("{GOOD}, {GOOD}; `wseat` and `bseat`: both count"),
        _ => GOOD.to_owned(),
    };
    assert_eq!(told(&page(|row| Some(cell(row)))), [""; 0]);
}

#[test]
fn each_flaw_is_found() {
    let with = |at: u32, cell: &str| {
        page(|row| {
            Some(if row == at {
                cell.to_owned()
            } else {
                GOOD.to_owned()
            })
        })
    };
    let check = |page: &str, want: &str| {
        let found = told(page);
        assert!(
            matches!(&found[..], [flaw] if flaw.contains(want)),
            "{want}: {found:?}"
        );
    };
    check(
        &page(|row| (row != 5).then(|| GOOD.to_owned())),
        "row 5 should stand here, not 6",
    );
    check(
        &page(|row| (row != 150).then(|| GOOD.to_owned())),
        "ends before row 150",
    );
    let doubled = with(6, GOOD).replace("| 6 |", "| 6 | `src/a.rs::shows` |\n| 6 |");
    check(&doubled, "row 7 should stand here, not 6");
    check(&with(7, "words, and `wseat`"), "row 7 has no test");
    check(&with(7, ""), "row 7 has no test");
    check(&with(7, "`src/b.rs::shows`"), "no file src/b.rs");
    check(&with(7, "`src/a.rs::gone`"), "no test gone in src/a.rs");
    check(&with(7, "`src/a.rs::helper`"), "no test helper in src/a.rs");
    let turned = with(6, GOOD)
        .replace("| 6 |", "| x |")
        .replace("| 7 |", "| 6 |")
        .replace("| x |", "| 7 |");
    assert!(!told(&turned).is_empty());
    assert!(!told("no table").is_empty());
}
