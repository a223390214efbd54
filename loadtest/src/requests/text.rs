//! Writes JSON as exchanges do, each with habits of its own.
//!
//! A serialiser would write one kind of JSON. Real ones escape slashes (PHP), or `=` and `&` (Gson), write `1.50`, put
//! spaces after commas: what a fast reader must take without stumbling.

use std::fmt::Write as _;

/// How an exchange writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    Plain,
    /// `\/` in strings.
    Slashes,
    /// `\u003d` and `\u0026` in strings.
    Html,
    /// `": "` and `", "`.
    Spaces,
}

/// Members of an object, one after the other, without its braces.
#[derive(Debug)]
pub(super) struct Text {
    out: String,
    habit: Habit,
}

impl Text {
    pub(super) fn new(habit: Habit) -> Self {
        Self {
            out: String::new(),
            habit,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Several texts as one object, in this order.
    pub(super) fn joined(habit: Habit, parts: &[&Self]) -> String {
        let comma = if habit == Habit::Spaces { ", " } else { "," };
        let parts: Vec<&str> = parts
            .iter()
            .map(|part| part.out.as_str())
            .filter(|part| !part.is_empty())
            .collect();
        format!("{{{}}}", parts.join(comma))
    }

    /// A comma, unless something opens here. Text within a string ends in a quote, so the last byte tells.
    fn next(&mut self) {
        if !matches!(self.out.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.out.push(',');
            if self.habit == Habit::Spaces {
                self.out.push(' ');
            }
        }
    }

    fn key(&mut self, key: &str) {
        self.next();
        self.quoted(key);
        self.out.push(':');
    }

    fn quoted(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => {
                    self.out.push('\\');
                    self.out.push(c);
                }
                '/' if self.habit == Habit::Slashes => self.out.push_str("\\/"),
                '=' if self.habit == Habit::Html => self.out.push_str("\\u003d"),
                '&' if self.habit == Habit::Html => self.out.push_str("\\u0026"),
                c if c.is_control() => {
                    let _ = write!(self.out, "\\u{:04x}", c as u32);
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.quoted(value);
    }

    pub(super) fn int(&mut self, key: &str, value: i64) {
        self.key(key);
        let _ = write!(self.out, "{value}");
    }

    /// A decimal with `places` after the point, zeros kept.
    pub(super) fn decimal(&mut self, key: &str, value: f64, places: usize) {
        self.key(key);
        let _ = write!(self.out, "{value:.places$}");
    }

    /// A value that is JSON already.
    pub(super) fn raw(&mut self, key: &str, json: &str) {
        self.key(key);
        self.out.push_str(json);
    }

    pub(super) fn object(&mut self, key: &str, inside: impl FnOnce(&mut Self)) {
        self.key(key);
        self.braced(inside);
    }

    pub(super) fn list(&mut self, key: &str, inside: impl FnOnce(&mut Self)) {
        self.key(key);
        self.out.push('[');
        inside(self);
        self.out.push(']');
    }

    /// An element of the open list.
    pub(super) fn element(&mut self, inside: impl FnOnce(&mut Self)) {
        self.next();
        self.braced(inside);
    }

    /// A string of the open list.
    pub(super) fn word(&mut self, value: &str) {
        self.next();
        self.quoted(value);
    }

    /// A number of the open list.
    pub(super) fn number(&mut self, value: i64) {
        self.next();
        let _ = write!(self.out, "{value}");
    }

    pub(super) fn words(&mut self, key: &str, values: &[&str]) {
        self.list(key, |t| values.iter().for_each(|value| t.word(value)));
    }

    pub(super) fn numbers(&mut self, key: &str, values: &[i64]) {
        self.list(key, |t| values.iter().for_each(|value| t.number(*value)));
    }

    fn braced(&mut self, inside: impl FnOnce(&mut Self)) {
        self.out.push('{');
        inside(self);
        self.out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_habit_says_the_same() {
        let written = |habit| {
            let mut text = Text::new(habit);
            text.text("u", "https://a.example/?b=c&d=\"e\"\\\n:");
            text.list("l", |t| {
                t.element(|t| t.int("a", 1));
                t.element(|_| ());
                t.word("x,");
                t.number(-3);
            });
            text.decimal("f", 1.5, 2);
            text.object("o", |t| t.numbers("n", &[1, 2]));
            Text::joined(habit, &[&text, &Text::new(habit), &text])
        };
        let plain = written(Habit::Plain);
        assert!(plain.contains("\"f\":1.50,"), "{plain}");
        let want: serde_json::Value = serde_json::from_str(&plain).expect("JSON");
        for (habit, mark) in [
            (Habit::Slashes, "https:\\/\\/a"),
            (Habit::Html, "?b\\u003dc"),
            (Habit::Spaces, ", \"f\""),
        ] {
            let text = written(habit);
            assert!(text.contains(mark), "{text}");
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&text).expect("JSON"),
                want
            );
        }
    }
}
