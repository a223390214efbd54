//! `bench/record/instructions.tsv`: a row for each recording, oldest first, so that a commit's diff shows what it changed
//! and `column -t -s $'\t'` shows the trend.
//!
//! The parent is the commit that the recorded tree builds on, as a row cannot name the commit that it is in. Recording again
//! on the same parent and machine replaces the row. A part that comes later gets a column at the end.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use kith::clock::Timestamp;

use super::{Count, Counts, Machine};

/// Columns before the parts'.
const FIXED: [&str; 6] = ["date", "parent", "rustc", "target", "simd", "libc"];
/// A cell that says nothing.
const NONE: &str = "-";

/// What was recorded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq)]
struct Row {
    date: String,
    parent: String,
    counts: Counts,
}

impl Record {
    /// Reads the file; one that is not there is an empty record.
    ///
    /// # Errors
    /// Where the file cannot be read or is not such a table.
    pub fn read(file: &Path) -> io::Result<Self> {
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(&text)
                .map_err(|error| io::Error::other(format!("{}: {error}", file.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        fs::write(file, self.text())
    }

    /// The newest counts of such a machine.
    pub fn latest(&self, machine: &Machine) -> Option<&Counts> {
        let mut counts = self.rows.iter().rev().map(|row| &row.counts);
        counts.find(|counts| counts.machine == *machine)
    }

    /// The newest counts of all.
    pub fn last(&self) -> Option<&Counts> {
        self.rows.last().map(|row| &row.counts)
    }

    /// Records counts of the tree as it is, on top of the commit that is checked out.
    pub fn add(&mut self, counts: Counts) {
        let parent = super::output(
            Command::new("git")
                .args(["rev-parse", "--short=10", "HEAD"])
                .current_dir(super::folder()),
        );
        let parent = parent.map_or_else(|_| NONE.to_owned(), |text| text.trim().to_owned());
        let date = Timestamp::now().to_string();
        let date = date.split('T').next().unwrap_or(NONE).to_owned();
        self.put(date, parent, counts);
    }

    fn put(&mut self, date: String, parent: String, counts: Counts) {
        self.rows
            .retain(|row| row.parent != parent || row.counts.machine != counts.machine);
        self.rows.push(Row {
            date,
            parent,
            counts,
        });
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate();
        let Some((_, header)) = lines.next() else {
            return Ok(Self::default());
        };
        let Some(parts) = header.strip_prefix(&FIXED.join("\t")) else {
            return Err(format!("does not begin with {}", FIXED.join(", ")));
        };
        let parts: Vec<&str> = parts.split('\t').skip(1).collect();
        let row = |(line, text): (usize, &str)| {
            let wrong = |what: &str| format!("line {}: {what}", line + 1);
            let cells: Vec<&str> = text.split('\t').collect();
            let [date, parent, rustc, target, simd, libc, figures @ ..] = cells.as_slice() else {
                return Err(wrong("too few cells"));
            };
            if figures.len() > parts.len() {
                return Err(wrong("more figures than parts"));
            }
            let mut counted = Vec::new();
            for (part, figure) in parts.iter().zip(figures).filter(|(_, f)| **f != NONE) {
                let figure = figure.parse().map_err(|_| wrong("not a figure"))?;
                counted.push(Count {
                    part: (*part).to_owned(),
                    instructions_per_request: figure,
                });
            }
            Ok(Row {
                date: (*date).to_owned(),
                parent: (*parent).to_owned(),
                counts: Counts {
                    machine: Machine {
                        rustc: (*rustc).to_owned(),
                        target: (*target).to_owned(),
                        simd: (*simd).to_owned(),
                        libc: (*libc).to_owned(),
                    },
                    parts: counted,
                },
            })
        };
        let rows = lines.map(row).collect::<Result<_, _>>()?;
        Ok(Self { rows })
    }

    fn text(&self) -> String {
        let mut parts: Vec<&str> = Vec::new();
        for count in self.rows.iter().flat_map(|row| &row.counts.parts) {
            if !parts.contains(&count.part.as_str()) {
                parts.push(&count.part);
            }
        }
        let header = FIXED.iter().chain(&parts).map(ToString::to_string);
        let mut lines = vec![header.collect::<Vec<_>>()];
        for Row {
            date,
            parent,
            counts,
        } in &self.rows
        {
            let machine = &counts.machine;
            let mut cells: Vec<String> = [
                date,
                parent,
                &machine.rustc,
                &machine.target,
                &machine.simd,
                &machine.libc,
            ]
            .map(Clone::clone)
            .into();
            cells.extend(parts.iter().map(|part| {
                let count = counts.parts.iter().find(|count| count.part == *part);
                count.map_or_else(
                    || NONE.to_owned(),
                    |count| format!("{:.2}", count.instructions_per_request),
                )
            }));
            lines.push(cells);
        }
        lines
            .into_iter()
            .map(|cells| cells.join("\t") + "\n")
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rustc: &str, parts: &[(&str, f64)]) -> Counts {
        let count = |(part, figure): &(&str, f64)| Count {
            part: (*part).to_owned(),
            instructions_per_request: *figure,
        };
        Counts {
            machine: Machine {
                rustc: rustc.to_owned(),
                target: "x86_64-unknown-linux-gnu".to_owned(),
                simd: "avx2".to_owned(),
                libc: "glibc 2.36".to_owned(),
            },
            parts: parts.iter().map(count).collect(),
        }
    }

    fn put(record: &mut Record, parent: &str, counts: &Counts) {
        record.put("2026-11-21".to_owned(), parent.to_owned(), counts.clone());
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut record = Record::default();
        put(&mut record, "a", &counts("1.95.0", &[("read", 1234.56)]));
        let later = counts("1.95.0", &[("read", 1200.0), ("gate", 0.07)]);
        put(&mut record, "b", &later);
        let text = record.text();
        assert_eq!(
            text,
            "date\tparent\trustc\ttarget\tsimd\tlibc\tread\tgate\n\
             2026-11-21\ta\t1.95.0\tx86_64-unknown-linux-gnu\tavx2\tglibc 2.36\t1234.56\t-\n\
             2026-11-21\tb\t1.95.0\tx86_64-unknown-linux-gnu\tavx2\tglibc 2.36\t1200.00\t0.07\n"
        );
        assert_eq!(Record::parse(&text), Ok(record));
    }

    #[test]
    fn the_latest_is_that_of_the_same_machine() {
        let mut record = Record::default();
        let (old, new) = (
            counts("1.95.0", &[("read", 1.0)]),
            counts("1.96.0", &[("read", 2.0)]),
        );
        put(&mut record, "a", &old);
        put(&mut record, "b", &new);
        assert_eq!(record.latest(&old.machine), Some(&old));
        assert_eq!(record.last(), Some(&new));
        assert_eq!(record.latest(&counts("1.97.0", &[]).machine), None);
    }

    #[test]
    fn recording_again_on_the_same_parent_replaces() {
        let mut record = Record::default();
        put(&mut record, "a", &counts("1.95.0", &[("read", 1.0)]));
        put(&mut record, "a", &counts("1.96.0", &[("read", 2.0)]));
        put(&mut record, "a", &counts("1.95.0", &[("read", 3.0)]));
        let figures: Vec<f64> = record
            .rows
            .iter()
            .flat_map(|row| &row.counts.parts)
            .map(|count| count.instructions_per_request)
            .collect();
        assert_eq!(figures, [2.0, 3.0]);
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_line() {
        let header = "date\tparent\trustc\ttarget\tsimd\tlibc\tread\n";
        for (text, told) in [
            ("read\tgate\n".to_owned(), "does not begin with"),
            (format!("{header}a\tb\n"), "line 2: too few cells"),
            (format!("{header}a\tb\tc\td\te\tf\tx\n"), "line 2: not a"),
            (format!("{header}a\tb\tc\td\te\tf\t1\t2\n"), "line 2: more"),
        ] {
            let error = Record::parse(&text).expect_err(told);
            assert!(error.contains(told), "{error}");
        }
        assert_eq!(Record::parse(""), Ok(Record::default()));
    }
}
