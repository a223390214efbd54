//! The document within `imp.native`: which assets, events and notices it asks for.
//!
//! It is bounded by the body it came in, read once an imp, and what is in it is not counted as unreadable: that would take a
//! request that somebody answers.

use bumpalo::Bump;

use super::super::fields::{Field, FieldName, FieldSet};
use super::super::json::{Cursor, Key, NotJson, Raw, Shape};
use super::super::keys;
use super::super::native::{ASSETS_MAX, AssetAsk, AssetKind, ImageAsk, ImageTypes, NativeAsk};
use super::super::signals::Signals;
use super::values::Entered;
use super::{Read, Reader};

/// Versions that are answered in kind.
const VERSIONS: [&str; 3] = ["1.0", "1.1", "1.2"];

/// What is asked for; nothing where it is not JSON, asks for nothing, or for more than [`ASSETS_MAX`] assets.
pub(in crate::openrtb) fn native_ask<'a>(
    document: Raw<'a>,
    outer_version: Option<&'a str>,
    arena: &'a Bump,
) -> Option<NativeAsk<'a>> {
    let mut cursor = match document.shape() {
        Shape::String => Cursor::new(document.string(arena)?, arena),
        _ => document.cursor(arena),
    };
    let mut reader = Reader {
        arena,
        imps_max: 0,
        unreadable: FieldSet::default(),
        signals: Signals::default(),
    };
    let mut found = Found::default();
    let read = if cursor.at_object() {
        reader.root(&mut cursor, &mut found)
    } else {
        Err(NotJson)
    };
    read.and_then(|()| cursor.end()).ok()?;
    let assets = found.assets.value()?;
    if assets.is_empty() || assets.len() > ASSETS_MAX {
        return None;
    }
    let said = found.ver.or(outer_version);
    let known = VERSIONS.iter().find(|version| said == Some(**version));
    Some(NativeAsk {
        rooted: found.rooted,
        ver: known.copied().unwrap_or("1.2"),
        assets,
        eventtrackers: found.eventtrackers,
        privacy: found.privacy,
    })
}

#[derive(Default)]
struct Found<'a> {
    rooted: bool,
    ver: Option<&'a str>,
    assets: Field<&'a [AssetAsk<'a>]>,
    eventtrackers: &'a [(i64, &'a [i64])],
    privacy: bool,
}

/// Everything in the document is noted under one name.
const NAME: FieldName = FieldName::NativeRequest;

impl<'a> Reader<'a> {
    fn root(&mut self, c: &mut Cursor<'a>, found: &mut Found<'a>) -> Read<()> {
        c.object(|c, key| match key {
            keys::NATIVE if c.at_object() => {
                found.rooted = true;
                c.object(|c, key| self.native_field(c, key, found))
            }
            _ => self.native_field(c, key, found),
        })
    }

    fn native_field(&mut self, c: &mut Cursor<'a>, key: Key, found: &mut Found<'a>) -> Read<()> {
        match key {
            keys::VER => found.ver = self.text(c, NAME),
            keys::ASSETS => {
                let mut assets = 0usize;
                found.assets = self.list(c, NAME, |reader, c| {
                    assets = assets.saturating_add(1);
                    // One too many is enough to know that there are.
                    if assets > ASSETS_MAX.saturating_add(1) {
                        c.skip()?;
                        return Ok(None);
                    }
                    reader.asset(c).map(Some)
                })?;
            }
            keys::EVENTTRACKERS => {
                let trackers = self.list(c, NAME, |reader, c| reader.event_tracker(c))?;
                found.eventtrackers = trackers.value().unwrap_or(&[]);
            }
            keys::PRIVACY => found.privacy = self.flag(c, NAME)? == Field::Value(true),
            _ => c.skip()?,
        }
        Ok(())
    }

    /// An asset. What it asks for of which nothing can be made is nothing that we have, and may still be required.
    fn asset(&mut self, c: &mut Cursor<'a>) -> Read<AssetAsk<'a>> {
        let mut asset = AssetAsk {
            id: None,
            required: false,
            kind: AssetKind::Unknown,
        };
        let mut kinds = 0u32;
        let entered = self.object(c, NAME, |reader, c, key| {
            match key {
                keys::ID => asset.id = reader.integer(c, NAME)?.value(),
                keys::REQUIRED => {
                    let required = reader.flag(c, NAME)?;
                    asset.required = required.is_unreadable() || required == Field::Value(true);
                }
                keys::TITLE | keys::IMG | keys::DATA | keys::VIDEO => {
                    if let Some(kind) = reader.asset_kind(c, key)? {
                        asset.kind = kind;
                        kinds = kinds.saturating_add(1);
                    }
                }
                _ => c.skip()?,
            }
            Ok(())
        })?;
        asset.required |= entered == Entered::Unreadable;
        if kinds != 1 {
            asset.kind = AssetKind::Unknown;
        }
        Ok(asset)
    }

    /// What an asset is by one of its keys; nothing where that is null.
    fn asset_kind(&mut self, c: &mut Cursor<'a>, key: Key) -> Read<Option<AssetKind<'a>>> {
        if key == keys::VIDEO {
            return Ok(self.media(c)?.map(AssetKind::Video));
        }
        let mut kind = Field::Absent;
        let mut len = Field::Absent;
        let mut image = ImageAsk::default();
        let entered = self.object(c, NAME, |reader, c, key| {
            match key {
                keys::LEN => len = reader.integer(c, NAME)?,
                keys::TYPE => kind = reader.integer(c, NAME)?,
                keys::W => image.w = reader.integer(c, NAME)?,
                keys::H => image.h = reader.integer(c, NAME)?,
                keys::WMIN => image.wmin = reader.integer(c, NAME)?,
                keys::HMIN => image.hmin = reader.integer(c, NAME)?,
                keys::MIMES => {
                    let mimes = reader.strings(c, NAME)?;
                    image.mimes = mimes.and_then(|list| Some(ImageTypes::of_mimes(list)));
                }
                _ => c.skip()?,
            }
            Ok(())
        })?;
        Ok(match entered {
            Entered::Nothing => None,
            Entered::Unreadable => Some(AssetKind::Unknown),
            Entered::Object => Some(match key {
                keys::TITLE => AssetKind::Title { len },
                keys::IMG => AssetKind::Image(ImageAsk { kind, ..image }),
                _ => AssetKind::Data {
                    kind: kind.value(),
                    len,
                },
            }),
        })
    }

    fn event_tracker(&mut self, c: &mut Cursor<'a>) -> Read<Option<(i64, &'a [i64])>> {
        let (mut event, mut methods) = (None, None);
        self.object(c, NAME, |reader, c, key| {
            match key {
                keys::EVENT => event = reader.integer(c, NAME)?.value(),
                keys::METHODS => methods = reader.integers(c, NAME)?.value(),
                _ => c.skip()?,
            }
            Ok(())
        })?;
        Ok(event.zip(methods))
    }
}
