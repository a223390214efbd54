//! Any file of bid requests, one a line, through the running service.
//!
//! The file is read as it is sent, so it may be larger than memory. Every line is sent, whatever is in it: what is no
//! bid request must be answered 400 and nothing worse.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::connection::Connection;
use super::operator::Operator;
use super::page::{self, LABEL_WIDTH, Page};
use super::stop::Stop;
use super::{DemoError, EXCHANGE};

const CONNECTIONS: usize = 4;
/// Lines read ahead.
const AHEAD: usize = 64;
/// Longest line that is sent: four times what a bid request may have by default, so that its refusal can be seen.
const LINE_BYTES_MAX: usize = 4 << 20;
/// Lines of a kind that are listed by number.
const LISTED: usize = 10;

struct Line {
    number: u64,
    /// None where it is too long to be sent.
    text: Option<Vec<u8>>,
}

enum Outcome {
    Status(u16),
    NotSent,
    Dropped(String),
}

struct Done {
    line: u64,
    outcome: Outcome,
    took: Duration,
}

/// Sends every line, and prints the sums. Returns what was not as it should be.
pub(super) fn replay(
    path: &Path,
    bid: SocketAddr,
    operator: &Operator,
    page: &mut Page<'_>,
    stop: &Stop,
) -> Result<Vec<String>, DemoError> {
    let unreadable = |source| DemoError::Requests {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    page.section(&format!(
        "Every line of {} goes to POST http://{bid}/bid/{EXCHANGE}, over {CONNECTIONS} connections",
        page::plain(&path.display().to_string())
    ))?;
    let before = operator.metrics()?;
    let begin = Instant::now();
    let bar = bar(bytes);
    let done = send_all(BufReader::new(file), bid, &bar, stop);
    bar.finish_and_clear();
    let (lines, done) = done?.map_err(unreadable)?;
    let took = begin.elapsed();
    let after = operator.metrics()?;
    let grown = Grown { before, after };
    let mut findings = findings(&done, &grown);
    if done.len() as u64 != lines {
        findings.push(format!(
            "of {lines} lines only {} were dealt with",
            done.len()
        ));
    }
    report(page, done, &grown, took)?;
    Ok(findings)
}

/// Drawn on a terminal's standard error only.
fn bar(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    let style = ProgressStyle::with_template("  {bar:40} {percent}% {msg} requests");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

fn send_all(
    input: impl BufRead,
    bid: SocketAddr,
    bar: &ProgressBar,
    stop: &Stop,
) -> Result<io::Result<(u64, Vec<Done>)>, DemoError> {
    let (deal, dealt) = sync_channel(AHEAD);
    // One hand at a time takes the next line.
    let dealt = Mutex::new(dealt);
    thread::scope(|scope| {
        let workers: Result<Vec<_>, io::Error> = (0..CONNECTIONS)
            .map(|_| {
                thread::Builder::new()
                    .name("kith-demo-replay".to_owned())
                    .spawn_scoped(scope, || worker(bid, &dealt))
            })
            .collect();
        // Where one did not start, dropping `deal` ends the others.
        let workers = workers.map_err(DemoError::System)?;
        let read = read_lines(input, deal, bar, stop);
        let mut done = Vec::new();
        for worker in workers {
            done.extend(worker.join().unwrap_or_default());
        }
        done.sort_by_key(|done: &Done| done.line);
        Ok(read?.map(|lines| (lines, done)))
    })
}

/// Hands the lines out, and says how many there were.
fn read_lines(
    mut input: impl BufRead,
    deal: SyncSender<Line>,
    bar: &ProgressBar,
    stop: &Stop,
) -> Result<io::Result<u64>, DemoError> {
    let mut number = 0u64;
    loop {
        stop.check()?;
        let (text, read) = match next_line(&mut input) {
            Ok(None) => return Ok(Ok(number)),
            Ok(Some(line)) => line,
            Err(error) => return Ok(Err(error)),
        };
        number = number.saturating_add(1);
        bar.inc(read);
        bar.set_message(number.to_string());
        if deal.send(Line { number, text }).is_err() {
            return Ok(Ok(number));
        }
    }
}

/// The next line without its end, and how many bytes it took; the text is None where it is over the limit.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<(Option<Vec<u8>>, u64)>> {
    let mut text = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    let mut read = input.by_ref().take(limit).read_until(b'\n', &mut text)? as u64;
    if read == 0 {
        return Ok(None);
    }
    if text.last() == Some(&b'\n') {
        text.pop();
    } else if read == limit {
        read = read.saturating_add(skip_line(input)?);
        return Ok(Some((None, read)));
    }
    if text.last() == Some(&b'\r') {
        text.pop();
    }
    Ok(Some((Some(text), read)))
}

/// Throws away the rest of a line, a buffer at a time.
fn skip_line(input: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0u64;
    loop {
        let buffer = input.fill_buf()?;
        let end = memchr::memchr(b'\n', buffer);
        let part = end.map_or(buffer.len(), |at| at.saturating_add(1));
        let over = end.is_some() || buffer.is_empty();
        input.consume(part);
        skipped = skipped.saturating_add(part as u64);
        if over {
            return Ok(skipped);
        }
    }
}

fn worker(bid: SocketAddr, dealt: &Mutex<Receiver<Line>>) -> Vec<Done> {
    let mut connection = Connection::new(bid);
    let mut done = Vec::new();
    loop {
        let next = match dealt.lock() {
            Ok(dealt) => dealt.recv(),
            Err(_) => return done,
        };
        let Ok(line) = next else {
            return done;
        };
        let begin = Instant::now();
        let outcome = match line.text {
            None => Outcome::NotSent,
            Some(text) => match connection.bid(&text) {
                Ok(answer) => Outcome::Status(answer.status),
                Err(error) => Outcome::Dropped(error.to_string()),
            },
        };
        done.push(Done {
            line: line.number,
            outcome,
            took: begin.elapsed(),
        });
    }
}

/// What the service's own counts say.
struct Grown {
    before: BTreeMap<String, f64>,
    after: BTreeMap<String, f64>,
}

impl Grown {
    fn series(&self, series: &str) -> u64 {
        let value = |of: &BTreeMap<String, f64>| of.get(series).copied().unwrap_or_default();
        (value(&self.after) - value(&self.before)) as u64
    }

    /// The series of a family that have grown, by the value of a label, the most grown first.
    fn family(&self, family: &str, label: &str) -> Vec<(String, u64)> {
        let mut grown = BTreeMap::<String, u64>::new();
        for series in self.after.keys() {
            let value = series
                .strip_prefix(family)
                .and_then(|rest| rest.strip_prefix('{'))
                .and_then(|labels| labels.split_once(&format!("{label}=\"")))
                .and_then(|(_, value)| value.split_once('"'));
            if let Some((value, _)) = value {
                let count = grown.entry(value.to_owned()).or_default();
                *count = count.saturating_add(self.series(series));
            }
        }
        let mut grown: Vec<(String, u64)> =
            grown.into_iter().filter(|(_, count)| *count > 0).collect();
        grown.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        grown
    }
}

fn with_status(done: &[Done], wanted: impl Fn(u16) -> bool) -> Vec<u64> {
    done.iter()
        .filter(|done| matches!(done.outcome, Outcome::Status(status) if wanted(status)))
        .map(|done| done.line)
        .collect()
}

fn findings(done: &[Done], grown: &Grown) -> Vec<String> {
    let mut findings = Vec::new();
    for done in done {
        match &done.outcome {
            Outcome::Status(200 | 204 | 400 | 413) | Outcome::NotSent => {}
            Outcome::Status(status) => {
                findings.push(format!("line {} was answered {status}", done.line));
            }
            Outcome::Dropped(why) => {
                findings.push(format!("line {} had no answer: {why}", done.line));
            }
        }
    }
    if findings.is_empty() {
        let outcomes = grown.family("kith_bid_requests_total", "outcome");
        let counted = |outcome: &str| {
            let found = outcomes.iter().find(|(known, _)| known == outcome);
            found.map_or(0, |(_, count)| *count)
        };
        for (status, outcome) in [(200, "bid"), (204, "no_bid")] {
            let seen = with_status(done, |of| of == status).len() as u64;
            let counted = counted(outcome);
            if seen != counted {
                findings.push(format!(
                    "{seen} answers were {status}, and /metrics counts {counted} as {outcome}"
                ));
            }
        }
        for (outcome, count) in &outcomes {
            if outcome == "panicked" {
                findings.push(format!("{count} decisions panicked; the log says where"));
            }
        }
    }
    findings
}

fn report(
    page: &mut Page<'_>,
    done: Vec<Done>,
    grown: &Grown,
    took: Duration,
) -> Result<(), DemoError> {
    let mut statuses = BTreeMap::<String, u64>::new();
    for done in &done {
        let status = match &done.outcome {
            Outcome::Status(status @ 200) => format!("{status} bid"),
            Outcome::Status(status @ 204) => format!("{status} no-bid"),
            Outcome::Status(status @ 400) => format!("{status} no bid request"),
            Outcome::Status(status @ 413) => format!("{status} too large"),
            Outcome::Status(status) => status.to_string(),
            Outcome::NotSent => format!("not sent: over {} MiB", LINE_BYTES_MAX >> 20),
            Outcome::Dropped(_) => "no answer".to_owned(),
        };
        let count = statuses.entry(status).or_default();
        *count = count.saturating_add(1);
    }
    page.line(&format!(
        "  {} lines in {}",
        page.bold(&done.len().to_string()),
        page::seconds(took)
    ))?;
    table(page, "answers", statuses.into_iter().collect())?;
    let bids = vec![(
        "in all".to_owned(),
        grown.series(&format!("kith_bids_total{{exchange=\"{EXCHANGE}\"}}")),
    )];
    table(page, "bids", bids)?;
    table(
        page,
        "no-bids",
        grown.family("kith_no_bids_total", "reason"),
    )?;
    table(
        page,
        "privacy",
        grown.family("kith_privacy_total", "verdict"),
    )?;
    table(
        page,
        "unreadable",
        grown.family("kith_unreadable_fields_total", "field"),
    )?;
    listed(
        page,
        "400 at line",
        with_status(&done, |status| status == 400),
    )?;
    listed(
        page,
        "413 at line",
        with_status(&done, |status| status == 413),
    )?;
    let not_sent = done
        .iter()
        .filter(|done| matches!(done.outcome, Outcome::NotSent));
    listed(page, "not sent", not_sent.map(|done| done.line).collect())?;
    let mut times: Vec<Duration> = done.iter().map(|done| done.took).collect();
    times.sort_unstable();
    page.line("")?;
    page.line(&page.dim(&format!(
        "  latency as these clients saw it: p50 {}, p90 {}, p99 {}, longest {} (no benchmark)",
        page::seconds(page::percentile(&times, 50.0)),
        page::seconds(page::percentile(&times, 90.0)),
        page::seconds(page::percentile(&times, 99.0)),
        page::seconds(times.last().copied().unwrap_or_default()),
    )))
}

fn table(page: &mut Page<'_>, label: &str, rows: Vec<(String, u64)>) -> Result<(), DemoError> {
    if rows.is_empty() {
        return Ok(());
    }
    page.line("")?;
    for (place, (name, count)) in rows.iter().enumerate() {
        let label = if place == 0 { label } else { "" };
        let label = page.dim(&format!("{label:<LABEL_WIDTH$}"));
        page.line(&format!("  {label}{count:>8}  {name}"))?;
    }
    Ok(())
}

/// The first lines of a kind, by number.
fn listed(page: &mut Page<'_>, label: &str, lines: Vec<u64>) -> Result<(), DemoError> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut words: Vec<String> = lines.iter().take(LISTED).map(u64::to_string).collect();
    if let Some(more) = lines.len().checked_sub(LISTED).filter(|more| *more > 0) {
        words.push(format!("and {more} more"));
    }
    page.line("")?;
    page.words(2, label, &words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<Option<usize>> {
        // A small buffer, so that long lines come in many pieces.
        let mut input = BufReader::with_capacity(1000, text);
        let mut lines = Vec::new();
        let mut read = 0;
        while let Some((line, bytes)) = next_line(&mut input).expect("memory can be read") {
            lines.push(line.map(|line| line.len()));
            read += bytes;
        }
        assert_eq!(read, text.len() as u64);
        lines
    }

    #[test]
    fn lines_end_where_they_end_and_the_too_long_are_left_out() {
        assert_eq!(lines(b""), []);
        assert_eq!(lines(b"a\nbc\r\n\nd"), [Some(1), Some(2), Some(0), Some(1)]);
        let mut long = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(lines(&long), [Some(LINE_BYTES_MAX)]);
        long.push(b'\n');
        assert_eq!(lines(&long), [Some(LINE_BYTES_MAX)]);
        long.insert(0, b'x');
        long.extend_from_slice(b"a\n");
        assert_eq!(lines(&long), [None, Some(1)]);
        long.extend(vec![b'x'; LINE_BYTES_MAX + 1]);
        assert_eq!(lines(&long), [None, Some(1), None]);
    }

    #[test]
    fn what_has_grown_is_told_by_label() {
        let page = |bid: f64, floor: f64| {
            [
                ("n{exchange=\"demo\",reason=\"size\"}", bid),
                ("n{exchange=\"other\",reason=\"size\"}", 1.0),
                ("n{exchange=\"demo\",reason=\"floor\"}", floor),
                ("n{exchange=\"demo\",reason=\"never\"}", 7.0),
                ("nn{exchange=\"demo\",reason=\"other\"}", bid),
            ]
            .map(|(series, value)| (series.to_owned(), value))
            .into()
        };
        let grown = Grown {
            before: page(1.0, 0.0),
            after: page(3.0, 5.0),
        };
        let expected = [("floor".to_owned(), 5), ("size".to_owned(), 2)];
        assert_eq!(grown.family("n", "reason"), expected);
    }

    #[test]
    fn what_is_worse_than_a_refusal_is_found_by_its_line() {
        let done = |line, outcome| Done {
            line,
            outcome,
            took: Duration::ZERO,
        };
        let nothing = || Grown {
            before: BTreeMap::new(),
            after: BTreeMap::new(),
        };
        let done = [
            done(1, Outcome::Status(400)),
            done(2, Outcome::Status(503)),
            done(3, Outcome::NotSent),
            done(4, Outcome::Dropped("closed".to_owned())),
        ];
        let found = findings(&done, &nothing());
        assert_eq!(
            found,
            ["line 2 was answered 503", "line 4 had no answer: closed"]
        );
        assert!(findings(&done[..1], &nothing()).is_empty());
        assert!(findings(&done[2..3], &nothing()).is_empty());
        let uncounted = [Done {
            line: 1,
            outcome: Outcome::Status(200),
            took: Duration::ZERO,
        }];
        assert_eq!(findings(&uncounted, &nothing()).len(), 1);
    }
}
