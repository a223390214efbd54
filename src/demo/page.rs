//! What is printed: headings, lines, columns, and colour where somebody looks.

use std::io::Write;
use std::time::Duration;

use super::DemoError;

/// Columns of a terminal that we count on.
const WIDTH: usize = 100;
/// Columns of the label before words and counts.
pub(super) const LABEL_WIDTH: usize = 13;

/// Where the demo is printed.
pub(super) struct Page<'o> {
    out: &'o mut dyn Write,
    colour: bool,
    sections: usize,
}

impl<'o> Page<'o> {
    pub(super) fn new(out: &'o mut dyn Write, colour: bool) -> Self {
        Self {
            out,
            colour,
            sections: 0,
        }
    }

    pub(super) fn line(&mut self, text: &str) -> Result<(), DemoError> {
        Ok(writeln!(self.out, "{text}")?)
    }

    pub(super) fn flush(&mut self) -> Result<(), DemoError> {
        Ok(self.out.flush()?)
    }

    pub(super) fn heading(&mut self, text: &str) -> Result<(), DemoError> {
        let text = self.bold(text);
        self.line(&text)
    }

    /// A numbered heading.
    pub(super) fn section(&mut self, text: &str) -> Result<(), DemoError> {
        self.sections = self.sections.saturating_add(1);
        let text = self.bold(&format!("{}. {text}", self.sections));
        self.line("")?;
        self.line(&text)?;
        self.flush()
    }

    /// Something that should not be.
    pub(super) fn wrong(&mut self, text: &str) -> Result<(), DemoError> {
        let text = self.paint("31;1", &format!("  WRONG: {text}"));
        self.line(&text)
    }

    /// Words under a label, broken between them at the page's width.
    pub(super) fn words(
        &mut self,
        indent: usize,
        label: &str,
        words: &[String],
    ) -> Result<(), DemoError> {
        let room = WIDTH.saturating_sub(indent + LABEL_WIDTH);
        let mut lines = vec![String::new()];
        for word in words {
            let full = lines
                .last()
                .is_some_and(|line| !line.is_empty() && width(line) + 1 + width(word) > room);
            if full {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
        }
        for (place, line) in lines.iter().enumerate() {
            let label = if place == 0 { label } else { "" };
            let label = self.dim(&format!("{label:<LABEL_WIDTH$}"));
            let line = format!("{:indent$}{label}{line}", "");
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    pub(super) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    /// A bid.
    pub(super) fn good(&self, text: &str) -> String {
        self.paint("32;1", text)
    }

    /// A no-bid: an answer, not an error.
    pub(super) fn quiet(&self, text: &str) -> String {
        self.paint("33;1", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Characters seen, without what colours them.
fn width(text: &str) -> usize {
    let mut seen = 0usize;
    let mut code = false;
    for c in text.chars() {
        match c {
            '\x1b' => code = true,
            'm' if code => code = false,
            _ if !code => seen = seen.saturating_add(1),
            _ => {}
        }
    }
    seen
}

/// A span of time in the unit that fits.
pub(super) fn seconds(span: Duration) -> String {
    let micros = span.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", span.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", span.as_secs_f64()),
    }
}

/// A price as JSON has it, with two decimals at least.
pub(super) fn price(number: &serde_json::Number) -> String {
    let text = number.to_string();
    match text.split_once('.') {
        Some((_, cents)) => format!("{text}{:0<1$}", "", 2usize.saturating_sub(cents.len())),
        None => format!("{text}.00"),
    }
}

/// Text from elsewhere, without control characters, which could repaint a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// The value that so many of a hundred are not above; of sorted values.
pub(super) fn percentile(sorted: &[Duration], percent: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let place = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted
        .get(place.saturating_sub(1).min(last))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_break_at_the_width_and_colour_takes_none() {
        let mut out = Vec::new();
        let mut page = Page::new(&mut out, true);
        let word = page.bold(&"w".repeat(40));
        page.words(4, "label", &[word.clone(), word.clone(), word])
            .expect("written");
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines.iter().map(|l| width(l)).collect::<Vec<_>>(), [98, 57]);
    }

    #[test]
    fn prices_have_two_decimals_at_least() {
        for (json, shown) in [
            ("4.2", "4.20"),
            ("5", "5.00"),
            ("0.125", "0.125"),
            ("6.5", "6.50"),
        ] {
            let number = serde_json::from_str(json).expect("a number");
            assert_eq!(price(&number), shown);
        }
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 50.0), Duration::from_millis(50));
        assert_eq!(percentile(&sorted, 99.0), Duration::from_millis(99));
        assert_eq!(percentile(&sorted, 100.0), Duration::from_millis(100));
        assert_eq!(percentile(&[], 50.0), Duration::ZERO);
    }

    #[test]
    fn time_is_told_in_the_unit_that_fits() {
        assert_eq!(seconds(Duration::from_micros(999)), "999 µs");
        assert_eq!(seconds(Duration::from_micros(1_500)), "1.5 ms");
        assert_eq!(seconds(Duration::from_millis(2_500)), "2.50 s");
    }
}
