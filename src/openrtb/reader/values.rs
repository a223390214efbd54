//! One field's value: a text, a number, a flag, a price, a list, an object.
//!
//! Each reads the form that is usual at once, and every other form apart from it (`any_…`), through [`fields`]. What cannot be
//! read is noted under the field's name.

use super::super::fields::{self, Field, FieldName};
use super::super::json::{Cursor, Key, NotJson};
use super::super::list::List;
use super::super::request::Strings;
use super::{Read, Reader};
use crate::money::{Currency, Price};

/// Most elements of a list within an imp. Real ones have up to about thirty.
pub(super) const IMP_LIST_MAX: usize = 256;
/// Most MIME types of a slot: they are texts, and compared as such. Real lists have up to ten.
const TYPES_MAX: usize = 32;

/// What was where an object should be.
#[derive(PartialEq, Eq)]
pub(super) enum Entered {
    Object,
    /// `null`, `""`, `[]`: as if not sent.
    Nothing,
    Unreadable,
}

impl<'a> Reader<'a> {
    pub(super) fn note<T>(&mut self, field: Field<T>, name: FieldName) -> Field<T> {
        if field.is_unreadable() {
            self.unreadable.insert(name);
        }
        field
    }

    /// A text that is there and can be read. Where it is not JSON the cursor [breaks off](Cursor::break_off): two words come
    /// back in registers, and an error would not.
    #[inline(never)]
    pub(super) fn text(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Option<&'a str> {
        match c.plain_string() {
            Some("") => None,
            Some(text) => Some(text),
            None => self.any_text(c, name),
        }
    }

    #[inline(never)]
    fn any_text(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Option<&'a str> {
        match self.text_field(c, name) {
            Ok(field) => field.value(),
            Err(NotJson) => {
                c.break_off();
                None
            }
        }
    }

    /// A text of which it matters whether it is there.
    pub(super) fn text_field(
        &mut self,
        c: &mut Cursor<'a>,
        name: FieldName,
    ) -> Read<Field<&'a str>> {
        let field = fields::text(c.value()?, self.arena);
        Ok(self.note(field, name))
    }

    #[inline(never)]
    pub(super) fn integer(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Field<i64>> {
        match c.small_integer() {
            Some(integer) => Ok(Field::Value(integer)),
            None => self.any_integer(c, name),
        }
    }

    #[inline(never)]
    fn any_integer(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Field<i64>> {
        let field = fields::integer(c.value()?, self.arena);
        Ok(self.note(field, name))
    }

    /// A time of which only whole milliseconds matter.
    pub(super) fn milliseconds(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Field<i64>> {
        if let Some(whole) = c.small_integer() {
            return Ok(Field::Value(whole));
        }
        let field = fields::milliseconds(c.value()?, self.arena);
        Ok(self.note(field, name))
    }

    #[inline(never)]
    pub(super) fn flag(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Field<bool>> {
        match c.digit() {
            Some(0) => Ok(Field::Value(false)),
            Some(1) => Ok(Field::Value(true)),
            Some(_) => Ok(self.note(Field::Unreadable, name)),
            None => self.any_flag(c, name),
        }
    }

    #[inline(never)]
    fn any_flag(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Field<bool>> {
        let field = fields::flag(c.value()?, self.arena);
        Ok(self.note(field, name))
    }

    /// Enters an object, or notes that there is none.
    pub(super) fn object(
        &mut self,
        c: &mut Cursor<'a>,
        name: FieldName,
        mut each: impl FnMut(&mut Self, &mut Cursor<'a>, Key) -> Read<()>,
    ) -> Read<Entered> {
        if c.at_object() {
            c.object(|c, key| each(self, c, key))?;
            return Ok(Entered::Object);
        }
        if c.value()?.is_empty() {
            return Ok(Entered::Nothing);
        }
        self.unreadable.insert(name);
        Ok(Entered::Unreadable)
    }

    /// Walks a list whose elements are read by `each`; an element that `each` refuses is dropped.
    pub(super) fn list<T: Copy>(
        &mut self,
        c: &mut Cursor<'a>,
        name: FieldName,
        mut each: impl FnMut(&mut Self, &mut Cursor<'a>) -> Read<Option<T>>,
    ) -> Read<Field<&'a [T]>> {
        if !c.at_array() {
            let field = if c.value()?.is_empty() {
                Field::Absent
            } else {
                Field::Unreadable
            };
            return Ok(self.note(field, name));
        }
        let mut list = List::new_in(self.arena);
        let mut dropped = false;
        c.array(|c| {
            match each(self, c)? {
                Some(element) => list.push(element),
                None => dropped = true,
            }
            Ok(())
        })?;
        if dropped {
            self.unreadable.insert(name);
        }
        Ok(match (list.is_empty(), dropped) {
            (false, _) => Field::Value(list.slice()),
            (true, true) => Field::Unreadable,
            (true, false) => Field::Absent,
        })
    }

    pub(super) fn strings(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Strings<'a>> {
        self.list(c, name, |reader, c| match c.plain_string() {
            Some("") => Ok(None),
            Some(text) => Ok(Some(text)),
            None => Ok(fields::text(c.value()?, reader.arena).value()),
        })
    }

    pub(super) fn integers(
        &mut self,
        c: &mut Cursor<'a>,
        name: FieldName,
    ) -> Read<Field<&'a [i64]>> {
        self.list(c, name, |reader, c| match c.small_integer() {
            Some(integer) => Ok(Some(integer)),
            None => Ok(fields::integer(c.value()?, reader.arena).value()),
        })
    }

    /// A list within an imp. It is held against one creative after the other, so one that is long cannot be read.
    pub(super) fn few<T>(&mut self, list: Field<&'a [T]>, name: FieldName) -> Field<&'a [T]> {
        match list {
            Field::Value(list) if list.len() > IMP_LIST_MAX => self.note(Field::Unreadable, name),
            list => list,
        }
    }

    pub(super) fn few_strings(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Strings<'a>> {
        let list = self.strings(c, name)?;
        Ok(self.few(list, name))
    }

    pub(super) fn types(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Strings<'a>> {
        match self.strings(c, name)? {
            Field::Value(list) if list.len() > TYPES_MAX => Ok(self.note(Field::Unreadable, name)),
            list => Ok(list),
        }
    }

    /// What is blocked. Blank elements block nothing: a list of those alone is none.
    pub(super) fn blocks(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Strings<'a>> {
        let mut is_blank = c.at_array();
        let list = self.list(c, name, |reader, c| match c.plain_string() {
            Some("") => Ok(None),
            Some(text) => Ok(Some(text)),
            None => {
                let field = fields::text(c.value()?, reader.arena);
                is_blank &= !field.is_unreadable();
                Ok(field.value())
            }
        })?;
        let is_blank = is_blank && list.is_unreadable();
        Ok(if is_blank { Field::Absent } else { list })
    }

    pub(super) fn few_integers(
        &mut self,
        c: &mut Cursor<'a>,
        name: FieldName,
    ) -> Read<Field<&'a [i64]>> {
        let list = self.integers(c, name)?;
        Ok(self.few(list, name))
    }

    #[inline(never)]
    pub(super) fn price(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Field<Price>> {
        match c.small_decimal() {
            Some(micros) => {
                let field = Field::Value(micros).and_then(Price::from_micros);
                Ok(self.note(field, name))
            }
            None => self.any_price(c, name),
        }
    }

    #[inline(never)]
    fn any_price(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Field<Price>> {
        let field = fields::price(c.value()?, self.arena);
        Ok(self.note(field, name))
    }

    pub(super) fn currency(
        &mut self,
        c: &mut Cursor<'a>,
        name: FieldName,
    ) -> Read<Field<Currency>> {
        let field = self.text_field(c, name)?.and_then(|code| code.parse().ok());
        Ok(self.note(field, name))
    }
}
