//! Parts of a request that are kept as their text, and read by who asks for them: nobody pays for what no rule needs.
//!
//! Reading one is bounded by its text, and what cannot be read of it is left out; where that limits us it is said.

use bumpalo::Bump;

use super::fields::{self, Field};
use super::json::{Cursor, NotJson, Raw, Shape};
use super::keys;

/// `user.data`, unread until the privacy gate has opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserData<'a> {
    text: Option<Raw<'a>>,
    read: Option<&'a [&'a str]>,
}

/// Longest owner, and longest id of a segment, in bytes: each segment is a copy of both.
const SEGMENT_BYTES_MAX: usize = 256;

impl<'a> UserData<'a> {
    /// As it came.
    pub(super) fn kept(text: Option<Raw<'a>>) -> Self {
        Self { text, read: None }
    }

    /// Of which somebody has read the segments before.
    pub(super) fn read(segments: Option<&'a [&'a str]>) -> Self {
        Self {
            text: None,
            read: segments,
        }
    }

    /// The exchange's segments as `<segtax>:<id>`, or `<data.id>:<id>` where no taxonomy is named (else
    /// `<data.name>:<id>`). `None` when there is no `data` at all. At most `max` of them; those with an owner or id of over
    /// 256 bytes are left out.
    pub fn segments(&self, arena: &'a Bump, max: usize) -> Option<&'a [&'a str]> {
        if self.read.is_some() {
            return self.read;
        }
        let raw = self.text?;
        let mut segments = bumpalo::collections::Vec::new_in(arena);
        let _ = walk_objects(raw, arena, &mut |data| {
            let (mut id, mut name, mut segtax, mut list) = (None, None, None, None);
            data.object(|c, key| {
                match key {
                    keys::ID => id = fields::text(c.value()?, arena).value(),
                    keys::NAME => name = fields::text(c.value()?, arena).value(),
                    keys::SEGMENT => list = Some(c.value()?),
                    keys::EXT if c.at_object() => c.object(|c, key| {
                        let raw = c.value()?;
                        if key == keys::SEGTAX {
                            segtax = fields::integer(raw, arena).value();
                        }
                        Ok(())
                    })?,
                    _ => c.skip()?,
                }
                Ok(())
            })?;
            let Some(list) = list else { return Ok(()) };
            walk_objects(list, arena, &mut |segment| {
                let mut segment_id = None;
                segment.object(|c, key| {
                    let raw = c.value()?;
                    if key == keys::ID {
                        segment_id = fields::text(raw, arena).value();
                    }
                    Ok(())
                })?;
                let Some(segment_id) = segment_id else {
                    return Ok(());
                };
                let is_short = |text: &str| text.len() <= SEGMENT_BYTES_MAX;
                let owner_is_short = segtax.is_some() || id.or(name).is_none_or(is_short);
                if segments.len() < max && is_short(segment_id) && owner_is_short {
                    let text = match (segtax, id.or(name)) {
                        (Some(segtax), _) => {
                            bumpalo::format!(in arena, "{}:{}", segtax, segment_id)
                        }
                        (None, Some(owner)) => {
                            bumpalo::format!(in arena, "{}:{}", owner, segment_id)
                        }
                        (None, None) => return Ok(()),
                    };
                    segments.push(text.into_bump_str());
                }
                Ok(())
            })
        });
        Some(segments.into_bump_slice())
    }
}

/// Walks an array, entering only the elements that are objects.
fn walk_objects<'a>(
    raw: Raw<'a>,
    arena: &'a Bump,
    each: &mut dyn FnMut(&mut Cursor<'a>) -> Result<(), NotJson>,
) -> Result<(), NotJson> {
    if raw.shape() != Shape::Array {
        return Ok(());
    }
    raw.cursor(arena)
        .array(|c| if c.at_object() { each(c) } else { c.skip() })
}

/// `schain` (IAB "SupplyChain object" 1.0), from its three homes in the order in which they count: `source.schain`,
/// `source.ext.schain`, `ext.schain`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SupplyChain<'a> {
    pub(super) homes: [Field<Raw<'a>>; 3],
}

/// What a supply chain says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// It goes back to the owner of the site or app.
    pub is_complete: bool,
    /// Every node names a system and a seller.
    pub is_readable: bool,
}

impl<'a> SupplyChain<'a> {
    /// Reads the chain of the first home that has one, telling of each node's `asi` and `sid`. `Absent` where there is
    /// none.
    pub fn read(&self, arena: &'a Bump, mut node: impl FnMut(&'a str, &'a str)) -> Field<Chain> {
        let home = self
            .homes
            .iter()
            .find(|home| !matches!(home, Field::Absent));
        let raw = match home {
            None | Some(Field::Absent) => return Field::Absent,
            Some(Field::Unreadable) => return Field::Unreadable,
            Some(Field::Value(raw)) => *raw,
        };
        let mut chain = Chain {
            is_complete: false,
            is_readable: true,
        };
        let (mut listed, mut told) = (0usize, 0usize);
        let read = raw.cursor(arena).object(|c, key| {
            match key {
                keys::COMPLETE => {
                    chain.is_complete = fields::integer(c.value()?, arena) == Field::Value(1);
                }
                keys::NODES if c.at_array() => c.array(|c| {
                    listed = listed.saturating_add(1);
                    if !c.at_object() {
                        return c.skip();
                    }
                    let (mut asi, mut sid) = (None, None);
                    c.object(|c, key| {
                        match key {
                            keys::ASI => asi = fields::text(c.value()?, arena).value(),
                            keys::SID => sid = fields::text(c.value()?, arena).value(),
                            _ => c.skip()?,
                        }
                        Ok(())
                    })?;
                    if let (Some(asi), Some(sid)) = (asi, sid) {
                        told = told.saturating_add(1);
                        node(asi, sid);
                    }
                    Ok(())
                })?,
                _ => c.skip()?,
            }
            Ok(())
        });
        chain.is_readable = read.is_ok() && told == listed && listed > 0;
        Field::Value(chain)
    }
}

/// `device.sua`, the user agent in parts (§3.2.29).
#[derive(Debug, Clone, Copy, Default)]
pub struct UserAgent<'a>(pub(super) Option<Raw<'a>>);

/// A brand and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrandVersion<'a> {
    /// As sent.
    pub brand: &'a str,
    /// The parts, joined by points.
    pub version: Option<&'a str>,
}

impl<'a> UserAgent<'a> {
    /// Whether one was sent.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// The first of `browsers` of which `wanted` makes something.
    pub fn browser<T>(&self, arena: &'a Bump, wanted: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut found = None;
        let _ = self.0?.cursor(arena).object(|c, key| match key {
            keys::BROWSERS => walk_objects(c.value()?, arena, &mut |browser| {
                let brand = brand_version(browser, arena)?;
                if found.is_none() {
                    found = brand.and_then(|brand| wanted(brand.brand));
                }
                Ok(())
            }),
            _ => c.skip(),
        });
        found
    }

    /// `platform`: the operating system.
    pub fn platform(&self, arena: &'a Bump) -> Option<BrandVersion<'a>> {
        let mut platform = None;
        let _ = self.0?.cursor(arena).object(|c, key| {
            match key {
                keys::PLATFORM if c.at_object() => platform = brand_version(c, arena)?,
                _ => c.skip()?,
            }
            Ok(())
        });
        platform
    }
}

fn brand_version<'a>(
    c: &mut Cursor<'a>,
    arena: &'a Bump,
) -> Result<Option<BrandVersion<'a>>, NotJson> {
    let (mut brand, mut version) = (None, None);
    c.object(|c, key| {
        match key {
            keys::BRAND => brand = fields::text(c.value()?, arena).value(),
            keys::VERSION if c.at_array() => {
                let mut joined = bumpalo::collections::String::new_in(arena);
                c.array(|c| {
                    if let Field::Value(part) = fields::text(c.value()?, arena) {
                        if !joined.is_empty() {
                            joined.push('.');
                        }
                        joined.push_str(part);
                    }
                    Ok(())
                })?;
                version = (!joined.is_empty()).then(|| joined.into_bump_str());
            }
            _ => c.skip()?,
        }
        Ok(())
    })?;
    Ok(brand.map(|brand| BrandVersion { brand, version }))
}
