//! What an imp offers: banner, video, audio, native; and the floors that depend on an ad's length.
//!
//! Each format is put into the arena where it is offered, so that an imp is as short as the least of them.

use bumpalo::collections::Vec as ArenaVec;

use super::super::fields::{Field, FieldName};
use super::super::formats::{Banner, DurFloor, DurationFloors, Flex, Media, Size};
use super::super::json::{Cursor, Key, Raw, Shape};
use super::super::keys;
use super::super::list::List;
use super::super::native::Native;
use super::values::{Entered, IMP_LIST_MAX};
use super::{Read, Reader};

/// Most proportions kept of a banner's `format`.
const FLEX_MAX: usize = 16;

impl<'a> Reader<'a> {
    pub(super) fn banner(&mut self, c: &mut Cursor<'a>) -> Read<Option<&'a Banner<'a>>> {
        let mut banner = Banner::default();
        let (mut w, mut h) = (Field::Absent, Field::Absent);
        let entered = self.object(c, FieldName::ImpBanner, |reader, c, key| {
            match key {
                keys::W => w = reader.integer(c, FieldName::BannerSize)?,
                keys::H => h = reader.integer(c, FieldName::BannerSize)?,
                keys::FORMAT => reader.format(c, &mut banner)?,
                keys::MIMES => banner.mimes = reader.types(c, FieldName::FormatMimes)?,
                keys::API => banner.api = reader.few_integers(c, FieldName::FormatApi)?,
                keys::BATTR => banner.battr = reader.few_integers(c, FieldName::FormatBattr)?,
                keys::BTYPE => banner.btype = reader.few_integers(c, FieldName::BannerBtype)?,
                keys::POS => banner.pos = reader.integer(c, FieldName::FormatPosition)?.value(),
                _ => c.skip()?,
            }
            Ok(())
        })?;
        if let (Field::Value(w), Field::Value(h)) = (w, h)
            && !banner.sizes.contains(&Size { w, h })
        {
            let all = banner.sizes.iter().copied().chain([Size { w, h }]);
            banner.sizes = ArenaVec::from_iter_in(all, self.arena).into_bump_slice();
        }
        Ok((entered == Entered::Object).then(|| &*self.arena.alloc(banner)))
    }

    fn format(&mut self, c: &mut Cursor<'a>, banner: &mut Banner<'a>) -> Read<()> {
        let name = FieldName::BannerFormat;
        (banner.sizes, banner.flex) = (&[], &[]);
        if !c.at_array() {
            if !c.value()?.is_empty() {
                self.unreadable.insert(name);
            }
            return Ok(());
        }
        let mut sizes = List::new_in(self.arena);
        let mut flex = ArenaVec::new_in(self.arena);
        c.array(|c| {
            let (mut w, mut h) = (None, None);
            let (mut wratio, mut hratio, mut wmin) = (None, None, Field::Absent);
            self.object(c, name, |reader, c, key| {
                match key {
                    keys::W => w = reader.integer(c, name)?.value(),
                    keys::H => h = reader.integer(c, name)?.value(),
                    keys::WRATIO => wratio = reader.integer(c, name)?.value(),
                    keys::HRATIO => hratio = reader.integer(c, name)?.value(),
                    keys::WMIN => wmin = reader.integer(c, name)?,
                    _ => c.skip()?,
                }
                Ok(())
            })?;
            match (w.zip(h), wratio.zip(hratio)) {
                (Some((w, h)), _) => sizes.push(Size { w, h }),
                (None, Some((wratio @ 1.., hratio @ 1..)))
                    if flex.len() < FLEX_MAX && !wmin.is_unreadable() =>
                {
                    let wmin = wmin.value().unwrap_or(0);
                    flex.push(Flex {
                        wratio,
                        hratio,
                        wmin,
                    });
                }
                _ => self.unreadable.insert(name),
            }
            Ok(())
        })?;
        // Each may be held against every line item's creative.
        banner.sizes = sizes.slice();
        if banner.sizes.len() > IMP_LIST_MAX {
            self.unreadable.insert(name);
            banner.sizes = &[];
        }
        banner.flex = flex.into_bump_slice();
        Ok(())
    }

    pub(super) fn media(&mut self, c: &mut Cursor<'a>) -> Read<Option<&'a Media<'a>>> {
        let mut media = Media::default();
        let mut protocol = Field::Absent;
        let entered = self.object(c, FieldName::ImpFormat, |reader, c, key| {
            reader.media_field(c, key, &mut media, &mut protocol)
        })?;
        if media.protocols == Field::Absent {
            media.protocols = match protocol {
                Field::Absent => Field::Absent,
                Field::Unreadable => Field::Unreadable,
                Field::Value(protocol) => Field::Value(self.arena.alloc_slice_copy(&[protocol])),
            };
        }
        Ok((entered == Entered::Object).then(|| &*self.arena.alloc(media)))
    }

    fn media_field(
        &mut self,
        c: &mut Cursor<'a>,
        key: Key,
        media: &mut Media<'a>,
        protocol: &mut Field<i64>,
    ) -> Read<()> {
        let duration = FieldName::MediaDuration;
        match key {
            keys::MIMES => media.mimes = self.types(c, FieldName::FormatMimes)?,
            keys::MINDURATION => media.minduration = self.integer(c, duration)?,
            keys::MAXDURATION => media.maxduration = self.integer(c, duration)?,
            keys::RQDDURS => media.rqddurs = self.few_integers(c, duration)?,
            keys::PROTOCOLS => media.protocols = self.few_integers(c, FieldName::MediaProtocols)?,
            keys::PROTOCOL => *protocol = self.integer(c, FieldName::MediaProtocols)?,
            keys::W => media.w = self.integer(c, FieldName::MediaSize)?.value(),
            keys::H => media.h = self.integer(c, FieldName::MediaSize)?.value(),
            keys::LINEARITY => media.linearity = self.integer(c, FieldName::MediaLinearity)?,
            keys::BATTR => media.battr = self.few_integers(c, FieldName::FormatBattr)?,
            keys::API => media.api = self.few_integers(c, FieldName::FormatApi)?,
            keys::MINBITRATE => media.minbitrate = self.integer(c, FieldName::MediaBitrate)?,
            keys::MAXBITRATE => media.maxbitrate = self.integer(c, FieldName::MediaBitrate)?,
            keys::POS => media.pos = self.integer(c, FieldName::FormatPosition)?.value(),
            keys::PODID => media.pod.podid = self.text_field(c, FieldName::MediaPod)?,
            keys::PODDUR => media.pod.poddur = self.integer(c, FieldName::MediaPod)?,
            keys::MAXSEQ => media.pod.maxseq = self.integer(c, FieldName::MediaPod)?,
            keys::SLOTINPOD => {
                let slot = self.integer(c, FieldName::MediaPod)?;
                media.pod.slotinpod = slot.value().unwrap_or(0);
            }
            keys::MINCPMPERSEC => {
                media.floors.mincpmpersec = self.price(c, FieldName::MediaFloors)?
            }
            keys::DURFLOORS => {
                media.floors.durfloors = self.durfloors(c, FieldName::MediaFloors)?
            }
            _ => c.skip()?,
        }
        Ok(())
    }

    /// Floors of ranges. An end that cannot be read is open, and a range that is no object is every length at a floor that
    /// nobody knows: a floor is not dropped for being unreadable.
    pub(super) fn durfloors(
        &mut self,
        c: &mut Cursor<'a>,
        name: FieldName,
    ) -> Read<Field<&'a [DurFloor]>> {
        let list = self.list(c, name, |reader, c| {
            let mut range = DurFloor {
                mindur: None,
                maxdur: None,
                bidfloor: Field::Absent,
            };
            let entered = reader.object(c, name, |reader, c, key| {
                match key {
                    keys::MINDUR => range.mindur = reader.integer(c, name)?.value(),
                    keys::MAXDUR => range.maxdur = reader.integer(c, name)?.value(),
                    keys::BIDFLOOR => range.bidfloor = reader.price(c, name)?,
                    _ => c.skip()?,
                }
                Ok(())
            })?;
            if entered == Entered::Unreadable {
                range.bidfloor = Field::Unreadable;
            }
            Ok(Some(range))
        })?;
        Ok(self.few(list, name))
    }

    /// Native: what is asked for stays as it was sent, to be read when a creative gets that far.
    pub(super) fn native(&mut self, c: &mut Cursor<'a>) -> Read<Option<&'a Native<'a>>> {
        let mut native = Native::default();
        let mut other_home = None;
        let entered = self.object(c, FieldName::ImpFormat, |reader, c, key| {
            match key {
                keys::REQUEST => native.request = reader.document(c)?,
                keys::REQUEST_NATIVE => other_home = reader.document(c)?,
                keys::VER => native.ver = reader.text(c, FieldName::NativeRequest),
                keys::API => native.api = reader.few_integers(c, FieldName::FormatApi)?,
                keys::BATTR => native.battr = reader.few_integers(c, FieldName::FormatBattr)?,
                _ => c.skip()?,
            }
            Ok(())
        })?;
        native.request = native.request.or(other_home);
        Ok((entered == Entered::Object).then(|| &*self.arena.alloc(native)))
    }

    /// A document within the request: an object, or the text of one.
    fn document(&mut self, c: &mut Cursor<'a>) -> Read<Option<Raw<'a>>> {
        let raw = c.value()?;
        if raw.is_empty() {
            return Ok(None);
        }
        let is_one = matches!(raw.shape(), Shape::Object | Shape::String);
        if !is_one {
            self.unreadable.insert(FieldName::NativeRequest);
        }
        Ok(is_one.then_some(raw))
    }

    pub(super) fn duration_floor(
        &mut self,
        c: &mut Cursor<'a>,
        key: Key,
        floors: &mut DurationFloors<'a>,
    ) -> Read<()> {
        match key {
            keys::MINCPMPERSEC => floors.mincpmpersec = self.price(c, FieldName::DealFloor)?,
            _ => floors.durfloors = self.durfloors(c, FieldName::DealFloor)?,
        }
        Ok(())
    }
}
