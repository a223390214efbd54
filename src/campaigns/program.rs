//! Compiles expressions into one program: a flat array of small operations that the evaluator runs front to back.
//!
//! Postfix, so that no tree is walked at a bid: a test pushes its answer, `And` and `Or` combine the two on top, and a
//! skip between the operands jumps over what can no longer change the answer. Strings are numbered once a book and
//! compared as numbers; segments are slots, bits of a set. `<>`, `not in`, `none of` and `is not` are their opposite
//! and a `Not`, which leaves null as it is.
//!
//! Invariants: skips go forward only; at most 63 answers are open at any point ([`NESTING_MAX`]); every range of a
//! list lies in its arena. Cost: 16 bytes an operation and 4 or 8 a list member.
//!
//! [`NESTING_MAX`]: super::NESTING_MAX

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::attributes::{Attribute, PERSON};
use super::index::{Demands, demands, left_to_ask};
use super::targeting::{Compare, Expr, Quantity, Test};
use crate::ids::SegmentRef;

/// A string's number in a book. Numbers over [`StringId::LAST`] are no string's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StringId(u32);

impl StringId {
    const LAST: u32 = u32::MAX - 2;
    /// Of a value that no expression names.
    pub(super) const UNNAMED: Self = Self(u32::MAX - 1);
    /// Of an attribute that is null.
    pub(super) const NULL: Self = Self(u32::MAX);

    pub(super) fn number(self) -> u32 {
        self.0
    }
}

/// A part of one of a program's arenas.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    start: u32,
    length: u32,
}

impl Range {
    const EMPTY: Self = Self {
        start: 0,
        length: 0,
    };

    /// The part itself; empty if it is none, which no compiled range is.
    pub(super) fn of<T>(self, arena: &[T]) -> &[T] {
        let start = self.start as usize;
        arena
            .get(start..start + self.length as usize)
            .unwrap_or(&[])
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    And,
    Or,
    Not,
    /// So many operations on, if the answer on top is false.
    SkipIfFalse(u32),
    /// So many operations on, if it is true.
    SkipIfTrue(u32),
    Bool(Attribute),
    TextIs(Attribute, StringId),
    TextIn(Attribute, Range),
    Integer(Attribute, Compare, i64),
    IntegerIn(Attribute, Range),
    Floor(Compare, i64),
    Texts(Attribute, Quantity, Range),
    Segments(Quantity, Range),
    IsNull(Attribute),
    IsEmpty(Attribute),
}

/// A line item's expression: its part of the book's program.
#[derive(Debug, Clone, Copy)]
pub struct Expression {
    pub(super) code: Range,
    /// What is left of it for those that the index leaves; nothing, and they match.
    pub(super) left: Option<Range>,
    reads: u64,
}

impl Expression {
    /// Of no operations, which answers null; stands in until the real one is compiled.
    pub(super) const fn none() -> Self {
        Self {
            code: Range::EMPTY,
            left: Some(Range::EMPTY),
            reads: 0,
        }
    }

    /// Whether it reads that attribute.
    pub fn reads(&self, attribute: Attribute) -> bool {
        self.reads & attribute.bit() != 0
    }

    /// Whether its answer can depend on who the person is: `segments`, `request_segments` or a `user_` attribute.
    pub fn depends_on_person(&self) -> bool {
        self.reads & PERSON != 0
    }

    /// Whether its answer can depend on the size of the creative: evaluate it for each size, else once.
    pub fn reads_size(&self) -> bool {
        self.reads(Attribute::Width) || self.reads(Attribute::Height)
    }

    /// Whether it reads the floor.
    pub fn reads_floor(&self) -> bool {
        self.reads(Attribute::Floor)
    }
}

/// All of a book's expressions.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub(super) code: Box<[Op]>,
    pub(super) strings: Box<[StringId]>,
    pub(super) integers: Box<[i64]>,
    /// Slots.
    pub(super) slots: Box<[u32]>,
    pub(super) names: HashMap<Box<str>, StringId, BuildHasherDefault<Mix>>,
    /// Attributes that any expression reads.
    pub(super) reads: u64,
}

impl Program {
    /// The number of a string, as a value to compare with.
    pub(super) fn id(&self, text: &str) -> StringId {
        self.names.get(text).copied().unwrap_or(StringId::UNNAMED)
    }
}

/// The book's arenas would not fit their numbers: over four thousand million operations or list members.
#[derive(Debug, PartialEq)]
pub(super) struct Full;

/// Gathers expressions into a [`Program`].
#[derive(Debug, Default)]
pub(super) struct Compiler {
    code: Vec<Op>,
    strings: Vec<StringId>,
    integers: Vec<i64>,
    slots: Vec<u32>,
    names: HashMap<Box<str>, StringId, BuildHasherDefault<Mix>>,
    reads: u64,
}

impl Compiler {
    /// Adds one expression; `slots` has every segment that it names.
    pub(super) fn add(
        &mut self,
        expr: &Expr,
        slots: &BTreeMap<SegmentRef, u32>,
    ) -> Result<Expression, Full> {
        let start = self.code.len();
        let outer = std::mem::take(&mut self.reads);
        self.emit(expr, slots)?;
        let reads = self.reads;
        self.reads |= outer;
        let code = range(start, self.code.len())?;
        Ok(Expression {
            code,
            left: Some(code),
            reads,
        })
    }

    /// Adds one that the index has; what it demands, too.
    pub(super) fn add_indexed(
        &mut self,
        expr: &Expr,
        slots: &BTreeMap<SegmentRef, u32>,
    ) -> Result<(Expression, Demands), Full> {
        let mut whole = self.add(expr, slots)?;
        // Every string and segment of it has its number by now.
        let string = |text: &str| self.names.get(text).map_or(u32::MAX, |id| id.number());
        let slot = |segment: &SegmentRef| slots.get(segment).copied().unwrap_or(u32::MAX);
        let demands = demands(expr, &string, &slot);
        whole.left = match left_to_ask(expr, &demands, &string, &slot) {
            Some(left) if left == *expr => whole.left,
            Some(left) => self.add(&left, slots)?.left,
            None => None,
        };
        Ok((whole, demands))
    }

    pub(super) fn finish(self) -> Program {
        Program {
            code: self.code.into(),
            strings: self.strings.into(),
            integers: self.integers.into(),
            slots: self.slots.into(),
            names: self.names,
            reads: self.reads,
        }
    }

    /// Recurses as deep as the expression, which its parser bounds.
    fn emit(&mut self, expr: &Expr, slots: &BTreeMap<SegmentRef, u32>) -> Result<(), Full> {
        match expr {
            Expr::And(parts) => self.emit_chain(parts, Op::And, Op::SkipIfFalse, slots)?,
            Expr::Or(parts) => self.emit_chain(parts, Op::Or, Op::SkipIfTrue, slots)?,
            Expr::Not(inner) => {
                self.emit(inner, slots)?;
                self.code.push(Op::Not);
            }
            Expr::Test(test) => {
                let op = self.test(test, slots)?;
                self.code.push(op);
            }
        }
        Ok(())
    }

    fn emit_chain(
        &mut self,
        parts: &[Expr],
        combine: Op,
        skip: fn(u32) -> Op,
        slots: &BTreeMap<SegmentRef, u32>,
    ) -> Result<(), Full> {
        // In this logic the order is free: ask first what is cheap, and decides most often without looking at sets.
        let mut parts: Vec<_> = parts.iter().collect();
        parts.sort_by_cached_key(|part| cost(part));
        let mut skips = Vec::new();
        for (place, part) in parts.into_iter().enumerate() {
            if place > 0 {
                skips.push(self.code.len());
                self.code.push(skip(0));
            }
            self.emit(part, slots)?;
            if place > 0 {
                self.code.push(combine);
            }
        }
        let end = self.code.len();
        for at in skips {
            // Counted from the operation behind the skip, where the evaluator stands when it reads it.
            let on = u32::try_from(end - at - 1).map_err(|_| Full)?;
            if let Some(op) = self.code.get_mut(at) {
                *op = skip(on);
            }
        }
        Ok(())
    }

    fn test(&mut self, test: &Test, slots: &BTreeMap<SegmentRef, u32>) -> Result<Op, Full> {
        let mut reads = |attribute: Attribute| {
            self.reads |= attribute.bit();
            attribute
        };
        Ok(match test {
            Test::True(attribute) => Op::Bool(reads(*attribute)),
            Test::TextIn(attribute, values) => {
                let attribute = reads(*attribute);
                match values.as_slice() {
                    [only] => Op::TextIs(attribute, self.intern(only)?),
                    several => Op::TextIn(attribute, self.intern_all(several)?),
                }
            }
            Test::Integer(attribute, compare, value) => {
                Op::Integer(reads(*attribute), *compare, *value)
            }
            Test::IntegerIn(attribute, values) => {
                let attribute = reads(*attribute);
                let start = self.integers.len();
                self.integers.extend(values);
                Op::IntegerIn(attribute, range(start, self.integers.len())?)
            }
            Test::Floor(compare, micros) => {
                reads(Attribute::Floor);
                Op::Floor(*compare, *micros)
            }
            Test::Texts(attribute, quantity, values) => {
                let attribute = reads(*attribute);
                Op::Texts(attribute, *quantity, self.intern_all(values)?)
            }
            Test::Segments(quantity, segments) => {
                reads(Attribute::Segments);
                let start = self.slots.len();
                for segment in segments {
                    self.slots.push(*slots.get(segment).ok_or(Full)?);
                }
                Op::Segments(*quantity, range(start, self.slots.len())?)
            }
            Test::IsNull(attribute) => Op::IsNull(reads(*attribute)),
            Test::IsEmpty(attribute) => Op::IsEmpty(reads(*attribute)),
        })
    }

    pub(super) fn intern(&mut self, text: &str) -> Result<StringId, Full> {
        if let Some(id) = self.names.get(text) {
            return Ok(*id);
        }
        let number = u32::try_from(self.names.len()).map_err(|_| Full)?;
        if number > StringId::LAST {
            return Err(Full);
        }
        self.names.insert(text.into(), StringId(number));
        Ok(StringId(number))
    }

    /// Numbers strings, and keeps the numbers in order, as the evaluator searches them.
    fn intern_all(&mut self, texts: &[String]) -> Result<Range, Full> {
        let start = self.strings.len();
        for text in texts {
            let id = self.intern(text)?;
            self.strings.push(id);
        }
        if let Some(new) = self.strings.get_mut(start..) {
            new.sort_unstable();
        }
        range(start, self.strings.len())
    }
}

/// How long an answer takes, roughly in operations.
fn cost(expr: &Expr) -> usize {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().map(cost).sum(),
        Expr::Not(inner) => cost(inner),
        Expr::Test(Test::Segments(_, segments)) => 2 + segments.len(),
        Expr::Test(Test::Texts(..)) => 4,
        Expr::Test(Test::TextIn(_, values)) if values.len() > 1 => 2,
        Expr::Test(Test::IntegerIn(..)) => 2,
        Expr::Test(_) => 1,
    }
}

fn range(start: usize, end: usize) -> Result<Range, Full> {
    Ok(Range {
        start: u32::try_from(start).map_err(|_| Full)?,
        length: u32::try_from(end - start).map_err(|_| Full)?,
    })
}

/// A hash for the strings of a book: multiply and rotate over words of eight bytes, about 3 ns for a domain.
///
/// The table is filled at upload by the operator's own document, and only read with what exchanges send, so a sender
/// can make no collisions in it.
#[derive(Debug, Default, Clone)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        let mut last = [0u8; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.write_u64(u64::from_le_bytes(last) ^ ((rest.len() as u64) << 56));
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(&self) -> u64 {
        // The table takes its bucket from the low bits, where a multiplication mixes least.
        self.0 ^ (self.0 >> 32)
    }
}
