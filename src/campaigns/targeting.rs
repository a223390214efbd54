//! Reads a targeting expression: text to a checked tree, or every mistake in it with its column.
//!
//! The grammar is in `targeting.pest`; here a name becomes an [`Attribute`], a literal the type that the attribute
//! has, and what does not fit is reported with what would. Text is measured before the grammar sees it (bytes,
//! parentheses), so that neither the parser's recursion nor anything behind it depends on what a person sent: the tree is
//! at most [`NESTING_MAX`] parentheses deep.
//!
//! Cost: some tens of µs for an expression of a line; at upload only.

use std::fmt;

use pest::Parser as _;
use pest::error::{ErrorVariant, InputLocation};
use pest::iterators::Pair;

use super::attributes::{Attribute, Type, doubt, doubt_number};
use super::nearest::nearest;
use crate::ids::SegmentRef;
use crate::money::{MICROS, PRICE_MICROS_MAX};

/// Most bytes of one expression: 10,000 postcodes and room.
pub const EXPRESSION_BYTES_MAX: usize = 256 * 1024;
/// Most parentheses inside one another. The evaluator keeps two open operands a level, and one more, in the 64 bits of a
/// word: 2 × (30 + 1) + 1 = 63.
pub const NESTING_MAX: usize = 30;
/// Most mistakes told of one expression.
const MISTAKES_MAX: usize = 20;

#[derive(pest_derive::Parser)]
#[grammar = "campaigns/targeting.pest"]
struct Grammar;

/// A checked expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    /// All of them; two or more.
    And(Vec<Expr>),
    /// Any of them; two or more.
    Or(Vec<Expr>),
    Not(Box<Expr>),
    Test(Test),
}

/// One question about one attribute; never null by itself but through the attribute.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Test {
    /// A boolean attribute.
    True(Attribute),
    /// A string is one of these.
    TextIn(Attribute, Vec<String>),
    /// A number stands so to the literal.
    Integer(Attribute, Compare, i64),
    /// A number is one of these.
    IntegerIn(Attribute, Vec<i64>),
    /// The floor, in micros, stands so to the literal.
    Floor(Compare, i64),
    /// A list of strings holds some, or all, of these.
    Texts(Attribute, Quantity, Vec<String>),
    /// The person is in some, or all, of these.
    Segments(Quantity, Vec<SegmentRef>),
    IsNull(Attribute),
    IsEmpty(Attribute),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    Less,
    AtMost,
    More,
    AtLeast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    One,
    All,
}

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    line: usize,
    column: usize,
    message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 1 {
            write!(f, "line {}, ", self.line)?;
        }
        write!(f, "column {}: {}", self.column, self.message)
    }
}

/// What an expression says, and what of it can never be true though it is well formed.
#[derive(Debug, PartialEq)]
pub(super) struct Parsed {
    pub(super) expr: Expr,
    pub(super) doubts: Vec<String>,
}

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Parsed, Vec<Mistake>> {
    measure(text).map_err(|mistake| vec![mistake])?;
    let mut reader = Reader {
        mistakes: Vec::new(),
        doubts: Vec::new(),
    };
    let expr = Grammar::parse(Rule::targeting, text)
        .map_err(|error| vec![syntax(text, &error)])?
        .next()
        .and_then(|whole| whole.into_inner().next())
        .and_then(|whole| reader.expression(whole));
    match expr {
        Some(expr) if reader.mistakes.is_empty() => Ok(Parsed {
            expr,
            doubts: reader.doubts,
        }),
        _ => Err(reader.mistakes),
    }
}

/// Refuses what is too long or too deep before anything recurses over it.
fn measure(text: &str) -> Result<(), Mistake> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(Mistake {
            line: 1,
            column: 1,
            message: format!(
                "the expression has {} bytes, at most {EXPRESSION_BYTES_MAX} are read: split it over several line items",
                text.len()
            ),
        });
    }
    let mut depth = 0usize;
    let mut quote = None;
    let mut escaped = false;
    for (place, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None => match c {
                '\'' | '"' => quote = Some(c),
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            },
        }
        if depth > NESTING_MAX {
            return Err(at(
                text,
                place,
                format!("over {NESTING_MAX} parentheses inside one another: write it flatter"),
            ));
        }
    }
    Ok(())
}

fn at(text: &str, place: usize, message: String) -> Mistake {
    let before = text.get(..place).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    Mistake {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message,
    }
}

/// A grammar error in our words: what was expected there, and a hint where the mistake is a usual one.
fn syntax(text: &str, error: &pest::error::Error<Rule>) -> Mistake {
    let place = match error.location {
        InputLocation::Pos(place) | InputLocation::Span((place, _)) => place,
    };
    let rest = text.get(place..).unwrap_or("");
    if let Some(hint) = hint(text, place, rest) {
        return at(text, place, hint);
    }
    let mut expected: Vec<&str> = match &error.variant {
        ErrorVariant::ParsingError { positives, .. } => {
            positives.iter().filter_map(|rule| wording(*rule)).collect()
        }
        ErrorVariant::CustomError { .. } => Vec::new(),
    };
    expected.sort_unstable();
    expected.dedup();
    let found = match rest.split_whitespace().next() {
        None => "the expression ends here".to_owned(),
        Some(word) => format!(
            "did not expect `{}`",
            word.chars().take(24).collect::<String>()
        ),
    };
    let message = if expected.is_empty() {
        found
    } else {
        format!("{found}; expected {}", expected.join(", "))
    };
    at(text, place, message)
}

fn wording(rule: Rule) -> Option<&'static str> {
    Some(match rule {
        Rule::and | Rule::or => "`and` or `or`",
        Rule::EOI => "the end",
        Rule::attribute | Rule::predicate | Rule::term | Rule::expression | Rule::conjunction => {
            "an attribute"
        }
        Rule::comparison | Rule::relation | Rule::membership | Rule::nullness => {
            "an operator (=, <>, <, <=, >, >=, in, not in, one of, none of, all of, is null, is empty)"
        }
        Rule::list => "a list like ['a', 'b']",
        Rule::literal | Rule::string | Rule::number | Rule::boolean => "a string or a number",
        _ => return None,
    })
}

/// The usual mistakes: of people who know SQL, C or Python.
fn hint(text: &str, place: usize, rest: &str) -> Option<String> {
    let word: String = rest
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    let before = text.get(..place).unwrap_or("").trim_end();
    if text.trim().is_empty() {
        return Some(
            "the expression is empty: write what the line item wants, such as country = 'FRA'"
                .into(),
        );
    }
    let lower = word.to_ascii_lowercase();
    let keywords = [
        "and", "or", "not", "in", "one", "none", "all", "of", "is", "null", "empty",
    ];
    if word != lower && keywords.contains(&lower.as_str()) {
        return Some(format!("keywords are in lower case: write `{lower}`"));
    }
    if word == "any" {
        return Some("write `one of`".into());
    }
    if rest.starts_with("!=") {
        return Some("write <> for `not equal`".into());
    }
    if rest.starts_with("==") || (before.ends_with('=') && rest.starts_with('=')) {
        return Some("write a single = for `equal`".into());
    }
    if rest.starts_with('\'') || rest.starts_with('"') {
        let quote = rest.chars().next().unwrap_or('\'');
        if rest.matches(quote).count() == 1 {
            return Some(format!(
                "the string that opens here is never closed: end it with {quote}"
            ));
        }
    }
    if rest.starts_with(['\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}']) {
        return Some("write straight quotes, ' or \"".into());
    }
    let last_word = before.split_whitespace().next_back().unwrap_or("");
    if ["in", "of"].contains(&last_word) && !rest.is_empty() {
        return Some("expected a list in brackets, like ['a', 'b']".into());
    }
    if ["=", "<>", "<", ">"]
        .iter()
        .any(|end| before.ends_with(end))
        && !word.is_empty()
    {
        return Some(format!("put strings in quotes: '{word}'"));
    }
    if rest.starts_with(')') && text.matches(')').count() > text.matches('(').count() {
        return Some("this ) closes nothing".into());
    }
    if rest.is_empty() && text.matches('(').count() > text.matches(')').count() {
        return Some("a ( is never closed".into());
    }
    None
}

struct Reader {
    mistakes: Vec<Mistake>,
    doubts: Vec<String>,
}

type Node<'i> = Pair<'i, Rule>;

impl Reader {
    fn wrong(&mut self, node: &Node<'_>, message: String) {
        // Finding a line walks the text; a list of 10,000 wrong values must not walk it as often.
        if self.mistakes.len() >= MISTAKES_MAX {
            return;
        }
        let (line, column) = node.line_col();
        self.mistakes.push(Mistake {
            line,
            column,
            message,
        });
    }

    fn expression(&mut self, node: Node<'_>) -> Option<Expr> {
        let parts = node
            .into_inner()
            .filter(|part| part.as_rule() == Rule::conjunction);
        // All of them are read, so that all their mistakes are told.
        let parts: Vec<_> = parts.map(|part| self.conjunction(part)).collect();
        Some(join(parts.into_iter().collect::<Option<_>>()?, Expr::Or))
    }

    fn conjunction(&mut self, node: Node<'_>) -> Option<Expr> {
        let parts = node
            .into_inner()
            .filter(|part| part.as_rule() == Rule::term);
        let parts: Vec<_> = parts.map(|part| self.term(part)).collect();
        Some(join(parts.into_iter().collect::<Option<_>>()?, Expr::And))
    }

    fn term(&mut self, node: Node<'_>) -> Option<Expr> {
        let mut negated = false;
        let mut expr = None;
        for part in node.into_inner() {
            match part.as_rule() {
                Rule::not => negated = !negated,
                Rule::expression => expr = self.expression(part),
                _ => expr = self.predicate(part),
            }
        }
        Some(if negated { negate(expr?) } else { expr? })
    }

    fn predicate(&mut self, node: Node<'_>) -> Option<Expr> {
        let mut parts = node.into_inner();
        let first = parts.next()?;
        if first.as_rule() == Rule::reversed {
            let mut parts = first.into_inner();
            let (literal, comparison, name) = (parts.next()?, parts.next()?, parts.next()?);
            let attribute = self.attribute(&name)?;
            let mirrored = match comparison.as_str() {
                "<" => ">",
                "<=" => ">=",
                ">" => "<",
                ">=" => "<=",
                same => same,
            };
            return self.relation(attribute, mirrored, literal);
        }
        let attribute = self.attribute(&first)?;
        let Some(test) = parts.next() else {
            if attribute.kind() == Type::Boolean {
                return Some(Expr::Test(Test::True(attribute)));
            }
            self.misfit(&first, attribute);
            return None;
        };
        let rule = test.as_rule();
        let mut inner = test.into_inner();
        let operator = inner.next()?;
        match rule {
            Rule::relation => self.relation(attribute, operator.as_str(), inner.next()?),
            Rule::membership => self.membership(attribute, &operator, inner.next()?),
            _ => self.nullness(attribute, &operator),
        }
    }

    fn attribute(&mut self, node: &Node<'_>) -> Option<Attribute> {
        let name = node.as_str();
        let found = Attribute::by_name(name);
        if found.is_none() {
            let advice = match nearest(name, Attribute::all().map(Attribute::name)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "docs/targeting.md lists them".into(),
            };
            self.wrong(node, format!("there is no attribute `{name}`; {advice}"));
        }
        found
    }

    fn misfit(&mut self, node: &Node<'_>, attribute: Attribute) {
        let message = format!("`{}` is {}", attribute.name(), attribute.kind().advice());
        self.wrong(node, message);
    }

    fn relation(
        &mut self,
        attribute: Attribute,
        operator: &str,
        literal: Node<'_>,
    ) -> Option<Expr> {
        let value = literal.into_inner().next()?;
        let (compare, negated) = match operator {
            "=" => (Compare::Equal, false),
            "<>" => (Compare::Equal, true),
            "<" => (Compare::Less, false),
            "<=" => (Compare::AtMost, false),
            ">" => (Compare::More, false),
            _ => (Compare::AtLeast, false),
        };
        let test = match (attribute.kind(), value.as_rule(), compare) {
            (Type::Text, Rule::string, Compare::Equal) => {
                Test::TextIn(attribute, vec![self.text(attribute, &value)?])
            }
            (Type::Integer, Rule::number, _) => {
                Test::Integer(attribute, compare, self.integer(attribute, &value)?)
            }
            (Type::Decimal, Rule::number, _) => {
                let (compare, micros) = floor(compare, value.as_str());
                Test::Floor(compare, micros)
            }
            _ => {
                self.misfit(&value, attribute);
                return None;
            }
        };
        let test = Expr::Test(test);
        Some(if negated { negate(test) } else { test })
    }

    fn membership(
        &mut self,
        attribute: Attribute,
        operator: &Node<'_>,
        list: Node<'_>,
    ) -> Option<Expr> {
        if list.clone().into_inner().next().is_none() {
            self.wrong(&list, "the list is empty: name at least one value".into());
            return None;
        }
        let values = list
            .into_inner()
            .filter_map(|literal| literal.into_inner().next());
        let (quantity, negated) = match operator.as_rule() {
            Rule::within => (None, false),
            Rule::not_in => (None, true),
            Rule::one_of => (Some(Quantity::One), false),
            Rule::none_of => (Some(Quantity::One), true),
            _ => (Some(Quantity::All), false),
        };
        let wanted = match (attribute.kind(), quantity) {
            (Type::Text, None) | (Type::Texts | Type::Segments, Some(_)) => Rule::string,
            (Type::Integer, None) => Rule::number,
            _ => {
                self.misfit(operator, attribute);
                return None;
            }
        };
        let mut texts = Vec::new();
        let mut numbers = Vec::new();
        let mut segments = Vec::new();
        let mut whole = true;
        for value in values {
            if value.as_rule() != wanted {
                self.misfit(&value, attribute);
                whole = false;
            } else if wanted == Rule::number {
                whole &= self
                    .integer(attribute, &value)
                    .map(|number| numbers.push(number))
                    .is_some();
            } else if attribute == Attribute::Segments {
                whole &= self
                    .segment(&value)
                    .map(|segment| segments.push(segment))
                    .is_some();
            } else {
                whole &= self
                    .text(attribute, &value)
                    .map(|text| texts.push(text))
                    .is_some();
            }
        }
        if !whole {
            return None;
        }
        let test = match (wanted, quantity) {
            (Rule::number, _) => Test::IntegerIn(attribute, sorted(numbers)),
            (_, None) => Test::TextIn(attribute, sorted(texts)),
            (_, Some(quantity)) if attribute == Attribute::Segments => {
                Test::Segments(quantity, sorted(segments))
            }
            (_, Some(quantity)) => Test::Texts(attribute, quantity, sorted(texts)),
        };
        let test = Expr::Test(test);
        Some(if negated { negate(test) } else { test })
    }

    fn nullness(&mut self, attribute: Attribute, operator: &Node<'_>) -> Option<Expr> {
        let rule = operator.as_rule();
        let test = match rule {
            Rule::is_null | Rule::is_not_null => Test::IsNull(attribute),
            _ if matches!(attribute.kind(), Type::Texts | Type::Segments) => {
                Test::IsEmpty(attribute)
            }
            _ => {
                let message = format!(
                    "`{}` is no list: ask `is null` or `is not null`",
                    attribute.name()
                );
                self.wrong(operator, message);
                return None;
            }
        };
        let test = Expr::Test(test);
        let negated = matches!(rule, Rule::is_not_null | Rule::is_not_empty);
        Some(if negated { negate(test) } else { test })
    }

    /// A string's content, escapes undone: `\'`, `\"` and `\\` are the character after the backslash.
    fn unescaped(&mut self, node: &Node<'_>) -> Option<String> {
        let content = node.clone().into_inner().next()?;
        let content = content.as_str();
        let mut text = String::with_capacity(content.len());
        let mut chars = content.chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                text.push(c);
                continue;
            }
            match chars.next() {
                Some(c @ ('\\' | '\'' | '"')) => text.push(c),
                _ => {
                    self.wrong(node, "write \\\\ for a backslash in a string".into());
                    return None;
                }
            }
        }
        Some(text)
    }

    fn text(&mut self, attribute: Attribute, node: &Node<'_>) -> Option<String> {
        let text = self.unescaped(node)?;
        self.doubts.extend(doubt(attribute, &text));
        Some(text)
    }

    fn segment(&mut self, node: &Node<'_>) -> Option<SegmentRef> {
        let text = self.unescaped(node)?;
        match text.parse() {
            Ok(segment) => Some(segment),
            Err(refused) => {
                self.wrong(node, format!("'{text}' names no segment: {refused}"));
                None
            }
        }
    }

    fn integer(&mut self, attribute: Attribute, node: &Node<'_>) -> Option<i64> {
        let text = node.as_str();
        if text.contains('.') {
            self.misfit(node, attribute);
            return None;
        }
        match text.parse() {
            Ok(number) => {
                self.doubts.extend(doubt_number(attribute, number));
                Some(number)
            }
            Err(_) => {
                self.wrong(node, format!("{text} is out of the range of whole numbers"));
                None
            }
        }
    }
}

fn join(mut parts: Vec<Expr>, make: fn(Vec<Expr>) -> Expr) -> Expr {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return only;
    }
    make(parts)
}

fn negate(expr: Expr) -> Expr {
    match expr {
        Expr::Not(inner) => *inner,
        other => Expr::Not(Box::new(other)),
    }
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort_unstable();
    values.dedup();
    values
}

/// A comparison of a floor with a decimal literal as one of whole micros, exactly.
///
/// A floor is a whole number of micros from 0 to [`PRICE_MICROS_MAX`]. With a
/// literal of m micros and a bit, below it means at most m and at least it means over m; equal to it is no floor, which
/// −1 stands for. A literal over any floor is one micro over the largest.
fn floor(compare: Compare, literal: &str) -> (Compare, i64) {
    let (negative, digits) = match literal.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, literal),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let over = PRICE_MICROS_MAX + 1;
    let whole = whole
        .parse::<i64>()
        .ok()
        .and_then(|whole| whole.checked_mul(MICROS))
        .map_or(over, |whole| whole.min(over));
    let (kept, cut) = fraction.split_at(fraction.len().min(6));
    let part = format!("{kept:0<6}").parse::<i64>().unwrap_or(0);
    let micros = (whole + part).min(over);
    let inexact = cut.bytes().any(|b| b != b'0');
    if negative && (micros != 0 || inexact) {
        return (compare, -1);
    }
    match compare {
        Compare::Less if inexact => (Compare::AtMost, micros),
        Compare::AtLeast if inexact => (Compare::More, micros),
        Compare::Equal if inexact => (Compare::Equal, -1),
        same => (same, micros),
    }
}

#[cfg(test)]
mod tests;
