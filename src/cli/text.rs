//! Plain text for people: tables, counts, and nothing that a terminal would obey.

/// Rows in columns, two spaces apart, each line after `indent`. Without a line's trailing blanks.
pub(super) fn table<const N: usize>(indent: &str, rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        text.push_str(indent);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A number with its thousands apart: `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share as people read it, to four places: `0.1 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", (share * 1e6).round() / 1e4)
}

/// A number and its noun, in the plural where it is one: `1 row`, `2 rows`.
pub(super) fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// Text from elsewhere without control characters, which could repaint a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_where_their_text_does() {
        let rows = [["a", "é", ""], ["long", "b", "c"]].map(|row| row.map(String::from));
        assert_eq!(table(" ", &rows), " a     é\n long  b  c\n");
    }

    #[test]
    fn thousands_stand_apart() {
        for (number, want) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(number), want);
        }
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(counted(1000, "row"), "1,000 rows");
    }

    #[test]
    fn shares_are_percents() {
        let shown = [0.0, 0.001, 0.009_347_6, 0.1, 1.0].map(percent);
        assert_eq!(shown, ["0 %", "0.1 %", "0.9348 %", "10 %", "100 %"]);
    }

    #[test]
    fn escape_sequences_are_disarmed() {
        assert_eq!(plain("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }
}
