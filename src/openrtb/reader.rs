//! Reads a body into a [`Request`], in one pass.
//!
//! Of duplicate keys the last wins, an object as a whole; privacy signals alone are folded over all of them.

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

use super::fields::{self, Field, FieldName, FieldSet};
use super::json::{Cursor, NotJson, Raw, Shape};
use super::repair::{Text, readable};
use super::request::{
    AuctionType, Banner, Deal, Device, Geo, Imp, Placement, Request, Site, Size, Strings, User,
    UserData,
};
use super::signals::{Flag, Homes, Signals};
use crate::money::Currency;

/// Why a body is no bid request: answered 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// A byte outside any string is not UTF-8.
    #[error("the body is not UTF-8 outside its strings")]
    NotText,
    /// Not JSON, or nested too deep.
    #[error("{0}")]
    NotJson(#[from] NotJson),
    /// JSON, but no object.
    #[error("the body is not a JSON object")]
    NotObject,
    /// `id` is missing, empty or no string.
    #[error("the request has no usable `id`")]
    NoId,
    /// `imp` is missing, empty or not an array.
    #[error("the request's `imp` is not a non-empty array")]
    NoImp,
}

/// Reads a bid request. At most `imps_max` imps are kept; what does not fit in memory of `arena` is never asked for:
/// the view is at most a small multiple of the body.
pub fn read<'a>(
    body: &'a [u8],
    arena: &'a Bump,
    imps_max: usize,
) -> Result<Request<'a>, BadRequest> {
    let text = match readable(body, arena).ok_or(BadRequest::NotText)? {
        Text::Valid(text) | Text::Repaired(text) => text,
    };
    let mut cursor = Cursor::new(text, arena);
    if cursor.peek()? != Shape::Object {
        cursor.value()?;
        cursor.end()?;
        return Err(BadRequest::NotObject);
    }
    let mut reader = Reader {
        arena,
        imps_max,
        unreadable: FieldSet::default(),
        signals: Signals::default(),
    };
    let (mut request, id, has_imp) = reader.request(&mut cursor)?;
    cursor.end()?;
    request.id = id.value().ok_or(BadRequest::NoId)?;
    if !has_imp {
        return Err(BadRequest::NoImp);
    }
    request.signals = reader.signals;
    request.unreadable = reader.unreadable;
    Ok(request)
}

type Read<T> = Result<T, NotJson>;

struct Reader<'a> {
    arena: &'a Bump,
    imps_max: usize,
    unreadable: FieldSet,
    signals: Signals<'a>,
}

/// What was where an object should be.
#[derive(PartialEq, Eq)]
enum Entered {
    Object,
    /// `null`, `""`, `[]`: as if not sent.
    Nothing,
    Unreadable,
}

impl<'a> Reader<'a> {
    fn request(&mut self, cursor: &mut Cursor<'a>) -> Read<(Request<'a>, Field<&'a str>, bool)> {
        let mut request = Request::default();
        let mut id = Field::Absent;
        let mut has_imp = false;
        let (mut site, mut app, mut dooh) = (None, None, None);
        cursor.object(|c, key| {
            match key {
                "id" => id = fields::text(c.value()?, self.arena),
                "imp" => (request.imp, has_imp) = self.imps(c)?,
                "site" => site = self.site(c, FieldName::Site)?,
                "app" => app = self.site(c, FieldName::App)?,
                "dooh" => dooh = self.site(c, FieldName::Dooh)?,
                "device" => request.device = self.device(c)?,
                "user" => request.user = self.user(c)?,
                "regs" => self.regs(c, &mut request.dsa_required)?,
                "tmax" => request.tmax_ms = self.integer(c, FieldName::Tmax)?.value(),
                "at" => {
                    request.at = self
                        .integer(c, FieldName::At)?
                        .value()
                        .map_or_else(Default::default, AuctionType::from_code)
                }
                // A test that cannot be read as one: nothing is lost by booking nothing.
                "test" => {
                    let test = self.flag(c, FieldName::Test)?;
                    request.test = test.is_unreadable() || test == Field::Value(true);
                }
                "cur" => request.cur = self.strings(c, FieldName::Cur)?,
                "wseat" => request.wseat = self.strings(c, FieldName::Wseat)?,
                "bseat" => request.bseat = self.strings(c, FieldName::Bseat)?,
                "bcat" => request.bcat = self.strings(c, FieldName::Bcat)?,
                "acat" => request.acat = self.strings(c, FieldName::Acat)?,
                "cattax" => request.cattax = self.integer(c, FieldName::Cattax)?,
                "badv" => request.badv = self.strings(c, FieldName::Badv)?,
                "bapp" => request.bapp = self.strings(c, FieldName::Bapp)?,
                "wlang" => request.wlang = self.strings(c, FieldName::Wlang)?,
                "wlangb" => request.wlangb = self.strings(c, FieldName::Wlang)?,
                _ => drop(c.value()?),
            }
            Ok(())
        })?;
        (request.placement, request.site) = match (site, app, dooh) {
            (None, None, None) => (Placement::Unknown, Site::default()),
            (Some(site), None, None) => (Placement::Site, site),
            (None, Some(app), None) => (Placement::App, app),
            (None, None, Some(dooh)) => (Placement::Dooh, dooh),
            _ => (Placement::Several, Site::default()),
        };
        Ok((request, id, has_imp))
    }

    fn note<T>(&mut self, field: Field<T>, name: FieldName) -> Field<T> {
        if field.is_unreadable() {
            self.unreadable.insert(name);
        }
        field
    }

    fn text(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Field<&'a str>> {
        let field = fields::text(c.value()?, self.arena);
        Ok(self.note(field, name))
    }

    fn integer(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Field<i64>> {
        let field = fields::integer(c.value()?, self.arena);
        Ok(self.note(field, name))
    }

    fn flag(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Field<bool>> {
        let field = fields::flag(c.value()?, self.arena);
        Ok(self.note(field, name))
    }

    /// Enters an object, or notes that there is none.
    fn object(
        &mut self,
        c: &mut Cursor<'a>,
        name: FieldName,
        mut each: impl FnMut(&mut Self, &mut Cursor<'a>, &str) -> Read<()>,
    ) -> Read<Entered> {
        if c.peek()? == Shape::Object {
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
    fn list<T: Copy>(
        &mut self,
        c: &mut Cursor<'a>,
        name: FieldName,
        mut each: impl FnMut(&mut Self, &mut Cursor<'a>) -> Read<Option<T>>,
    ) -> Read<Field<&'a [T]>> {
        if c.peek()? != Shape::Array {
            let field = if c.value()?.is_empty() {
                Field::Absent
            } else {
                Field::Unreadable
            };
            return Ok(self.note(field, name));
        }
        let mut list = ArenaVec::new_in(self.arena);
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
            (false, _) => Field::Value(list.into_bump_slice()),
            (true, true) => Field::Unreadable,
            (true, false) => Field::Absent,
        })
    }

    fn strings(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Strings<'a>> {
        self.list(c, name, |reader, c| {
            Ok(fields::text(c.value()?, reader.arena).value())
        })
    }

    fn imps(&mut self, c: &mut Cursor<'a>) -> Read<(&'a [Imp<'a>], bool)> {
        if c.peek()? != Shape::Array {
            c.value()?;
            return Ok((&[], false));
        }
        let mut imps = ArenaVec::new_in(self.arena);
        let mut has_element = false;
        c.array(|c| {
            has_element = true;
            if imps.len() >= self.imps_max || c.peek()? != Shape::Object {
                self.unreadable.insert(FieldName::Imp);
                return c.value().map(drop);
            }
            imps.push(self.imp(c)?);
            Ok(())
        })?;
        Ok((imps.into_bump_slice(), has_element))
    }

    fn imp(&mut self, c: &mut Cursor<'a>) -> Read<Imp<'a>> {
        let mut imp = Imp::default();
        c.object(|c, key| {
            match key {
                "id" => imp.id = self.text(c, FieldName::ImpId)?,
                "banner" => imp.banner = self.banner(c)?,
                "video" => imp.video = self.offered(c)?,
                "audio" => imp.audio = self.offered(c)?,
                "native" => imp.native = self.offered(c)?,
                "bidfloor" => imp.floor.amount = self.price(c, FieldName::ImpFloor)?,
                "bidfloorcur" => {
                    imp.floor.currency = self.currency(c, FieldName::ImpFloorCurrency)?
                }
                "secure" => imp.secure = self.flag(c, FieldName::ImpSecure)?,
                "instl" => imp.instl = self.flag(c, FieldName::ImpInstl)?.value(),
                "rwdd" => imp.rwdd = self.flag(c, FieldName::ImpRewarded)?.value(),
                "pmp" => self.pmp(c, &mut imp)?,
                _ => drop(c.value()?),
            }
            Ok(())
        })?;
        Ok(imp)
    }

    /// Whether a format that is not looked into is offered.
    fn offered(&mut self, c: &mut Cursor<'a>) -> Read<bool> {
        let raw = c.value()?;
        if raw.shape() != Shape::Object && !raw.is_empty() {
            self.unreadable.insert(FieldName::ImpFormat);
        }
        Ok(raw.shape() == Shape::Object)
    }

    fn price(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Field<crate::money::Price>> {
        let field = fields::price(c.value()?, self.arena);
        Ok(self.note(field, name))
    }

    fn currency(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Field<Currency>> {
        let field = fields::text(c.value()?, self.arena).and_then(|code| code.parse().ok());
        Ok(self.note(field, name))
    }

    fn banner(&mut self, c: &mut Cursor<'a>) -> Read<Option<Banner<'a>>> {
        let mut banner = Banner::default();
        let (mut w, mut h) = (Field::Absent, Field::Absent);
        let entered = self.object(c, FieldName::ImpBanner, |reader, c, key| {
            match key {
                "w" => w = reader.integer(c, FieldName::BannerSize)?,
                "h" => h = reader.integer(c, FieldName::BannerSize)?,
                "format" => banner.sizes = reader.formats(c)?,
                "battr" => {
                    banner.battr = reader.list(c, FieldName::BannerBattr, |reader, c| {
                        Ok(fields::integer(c.value()?, reader.arena).value())
                    })?;
                }
                "btype" => {
                    banner.btype = reader.list(c, FieldName::BannerBtype, |reader, c| {
                        Ok(fields::integer(c.value()?, reader.arena).value())
                    })?;
                }
                "pos" => banner.pos = reader.integer(c, FieldName::BannerPosition)?.value(),
                _ => drop(c.value()?),
            }
            Ok(())
        })?;
        if let (Field::Value(w), Field::Value(h)) = (w, h)
            && !banner.sizes.contains(&Size { w, h })
        {
            let all = banner.sizes.iter().copied().chain([Size { w, h }]);
            banner.sizes = ArenaVec::from_iter_in(all, self.arena).into_bump_slice();
        }
        Ok((entered == Entered::Object).then_some(banner))
    }

    fn formats(&mut self, c: &mut Cursor<'a>) -> Read<&'a [Size]> {
        let sizes = self.list(c, FieldName::BannerFormat, |reader, c| {
            let (mut w, mut h) = (None, None);
            reader.object(c, FieldName::BannerFormat, |reader, c, key| {
                match key {
                    "w" => w = reader.integer(c, FieldName::BannerFormat)?.value(),
                    "h" => h = reader.integer(c, FieldName::BannerFormat)?.value(),
                    _ => drop(c.value()?),
                }
                Ok(())
            })?;
            Ok(w.zip(h).map(|(w, h)| Size { w, h }))
        })?;
        Ok(sizes.value().unwrap_or(&[]))
    }

    fn pmp(&mut self, c: &mut Cursor<'a>, imp: &mut Imp<'a>) -> Read<()> {
        (imp.private_auction, imp.deals) = (Field::Absent, &[]);
        let entered = self.object(c, FieldName::ImpPmp, |reader, c, key| {
            match key {
                "private_auction" => {
                    imp.private_auction = reader.flag(c, FieldName::ImpPrivateAuction)?
                }
                "deals" => {
                    imp.deals = reader
                        .list(c, FieldName::Deal, |reader, c| reader.deal(c))?
                        .value()
                        .unwrap_or(&[])
                }
                _ => drop(c.value()?),
            }
            Ok(())
        })?;
        if entered == Entered::Unreadable {
            imp.private_auction = Field::Unreadable;
        }
        Ok(())
    }

    fn deal(&mut self, c: &mut Cursor<'a>) -> Read<Option<Deal<'a>>> {
        let mut deal = Deal::default();
        let mut id = None;
        self.object(c, FieldName::Deal, |reader, c, key| {
            match key {
                "id" => id = reader.text(c, FieldName::Deal)?.value(),
                "bidfloor" => deal.floor.amount = reader.price(c, FieldName::DealFloor)?,
                "bidfloorcur" => deal.floor.currency = reader.currency(c, FieldName::DealFloor)?,
                "at" => {
                    deal.at = reader
                        .integer(c, FieldName::DealAt)?
                        .value()
                        .map(AuctionType::from_code)
                }
                "wseat" => deal.wseat = reader.strings(c, FieldName::DealSeats)?,
                "wadomain" => deal.wadomain = reader.strings(c, FieldName::DealDomains)?,
                _ => drop(c.value()?),
            }
            Ok(())
        })?;
        Ok(id.map(|id| Deal { id, ..deal }))
    }

    fn site(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Option<Site<'a>>> {
        let mut site = Site::default();
        let entered = self.object(c, name, |reader, c, key| {
            match key {
                "domain" => site.domain = reader.text(c, name)?.value(),
                "bundle" => site.bundle = reader.text(c, name)?.value(),
                "cat" => site.cat = reader.strings(c, name)?.value().unwrap_or(&[]),
                "keywords" => site.keywords = reader.keywords(c, name)?.unwrap_or(site.keywords),
                "kwarray" => {
                    site.keywords = reader.keyword_array(c, name)?.unwrap_or(site.keywords)
                }
                "publisher" => {
                    site.publisher = None;
                    reader.object(c, name, |reader, c, key| {
                        match key {
                            "id" => site.publisher = reader.text(c, name)?.value(),
                            _ => drop(c.value()?),
                        }
                        Ok(())
                    })?;
                }
                _ => drop(c.value()?),
            }
            Ok(())
        })?;
        Ok((entered != Entered::Nothing).then_some(site))
    }

    /// `keywords`: one string, split at commas. A list there is a mistake of the sender's, and says nothing.
    fn keywords(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Option<&'a [&'a str]>> {
        let Some(text) = self.text(c, name)?.value() else {
            return Ok(None);
        };
        let words = text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty());
        Ok(Some(
            ArenaVec::from_iter_in(words, self.arena).into_bump_slice(),
        ))
    }

    fn keyword_array(
        &mut self,
        c: &mut Cursor<'a>,
        name: FieldName,
    ) -> Read<Option<&'a [&'a str]>> {
        Ok(self.strings(c, name)?.value())
    }

    fn device(&mut self, c: &mut Cursor<'a>) -> Read<Device<'a>> {
        let mut device = Device::default();
        let text = FieldName::DeviceText;
        let entered = self.object(c, FieldName::Device, |reader, c, key| {
            match key {
                "ifa" => device.ifa = reader.text(c, FieldName::Ifa)?.value(),
                "ua" => device.ua = reader.text(c, text)?.value(),
                "devicetype" => {
                    device.devicetype = reader.integer(c, FieldName::DeviceType)?.value()
                }
                "os" => device.os = reader.text(c, text)?.value(),
                "osv" => device.osv = reader.text(c, text)?.value(),
                "language" => device.language = reader.text(c, text)?.value(),
                "connectiontype" => device.connectiontype = reader.integer(c, text)?.value(),
                "carrier" => device.carrier = reader.text(c, text)?.value(),
                "geo" => device.geo = reader.geo(c)?,
                "lmt" => {
                    let said = reader.privacy_flag(c, FieldName::Lmt)?;
                    reader.signals.lmt.fold(said);
                }
                "dnt" => {
                    let said = reader.privacy_flag(c, FieldName::Dnt)?;
                    reader.signals.dnt.fold(said);
                }
                _ => drop(c.value()?),
            }
            Ok(())
        })?;
        self.signals.broken |= entered == Entered::Unreadable;
        Ok(device)
    }

    fn geo(&mut self, c: &mut Cursor<'a>) -> Read<Geo<'a>> {
        let mut geo = Geo::default();
        let name = FieldName::Geo;
        let entered = self.object(c, name, |reader, c, key| {
            match key {
                "country" => {
                    let raw = c.value()?;
                    reader.home(raw, name, |signals| &mut signals.country);
                    geo.country = fields::text(raw, reader.arena).value();
                }
                "region" => geo.region = reader.text(c, name)?.value(),
                "city" => geo.city = reader.text(c, name)?.value(),
                "metro" => geo.metro = reader.text(c, name)?.value(),
                "zip" => geo.zip = reader.text(c, name)?.value(),
                _ => drop(c.value()?),
            }
            Ok(())
        })?;
        self.signals.country.unreadable |= entered == Entered::Unreadable;
        Ok(geo)
    }

    fn user(&mut self, c: &mut Cursor<'a>) -> Read<User<'a>> {
        let mut user = User::default();
        let text = FieldName::UserText;
        let entered = self.object(c, FieldName::User, |reader, c, key| {
            match key {
                "id" => user.id = reader.text(c, FieldName::UserId)?.value(),
                "buyeruid" => user.buyeruid = reader.text(c, FieldName::BuyerUid)?.value(),
                "yob" => user.yob = reader.integer(c, FieldName::Yob)?.value(),
                "gender" => user.gender = reader.text(c, text)?.value(),
                "keywords" => user.keywords = reader.keywords(c, text)?.or(user.keywords),
                "kwarray" => user.keywords = reader.keyword_array(c, text)?.or(user.keywords),
                "geo" => drop(reader.geo(c)?),
                "eids" => user.eids.homes[0] = reader.array(c, FieldName::Eids)?,
                "data" => user.data = UserData(reader.array(c, FieldName::UserData)?),
                "consent" => {
                    let raw = c.value()?;
                    reader.home(raw, FieldName::Consent, |signals| &mut signals.consent);
                }
                "ext" => {
                    let entered = reader.object(c, FieldName::User, |reader, c, key| {
                        match key {
                            "eids" => user.eids.homes[1] = reader.array(c, FieldName::Eids)?,
                            "consent" => {
                                let raw = c.value()?;
                                reader
                                    .home(raw, FieldName::Consent, |signals| &mut signals.consent);
                            }
                            _ => drop(c.value()?),
                        }
                        Ok(())
                    })?;
                    reader.signals.broken |= entered == Entered::Unreadable;
                }
                _ => drop(c.value()?),
            }
            Ok(())
        })?;
        self.signals.broken |= entered == Entered::Unreadable;
        Ok(user)
    }

    fn regs(&mut self, c: &mut Cursor<'a>, dsa_required: &mut bool) -> Read<()> {
        let entered = self.object(c, FieldName::Regs, |reader, c, key| match key {
            "coppa" => {
                let said = reader.privacy_flag(c, FieldName::Coppa)?;
                reader.signals.coppa.fold(said);
                Ok(())
            }
            "ext" => {
                let entered = reader.object(c, FieldName::Regs, |reader, c, key| match key {
                    "dsa" => reader.dsa(c, dsa_required),
                    _ => reader.regs_field(c, key),
                })?;
                reader.signals.broken |= entered == Entered::Unreadable;
                Ok(())
            }
            "dsa" => reader.dsa(c, dsa_required),
            _ => reader.regs_field(c, key),
        })?;
        self.signals.broken |= entered == Entered::Unreadable;
        Ok(())
    }

    /// `dsarequired` 2 or 3, or unreadable: only bids with DSA transparency are taken.
    fn dsa(&mut self, c: &mut Cursor<'a>, required: &mut bool) -> Read<()> {
        let entered = self.object(c, FieldName::Dsa, |reader, c, key| {
            match key {
                "dsarequired" => match reader.integer(c, FieldName::Dsa)? {
                    Field::Absent | Field::Value(0 | 1) => {}
                    Field::Value(_) | Field::Unreadable => *required = true,
                },
                _ => drop(c.value()?),
            }
            Ok(())
        })?;
        *required |= entered == Entered::Unreadable;
        Ok(())
    }

    /// A field that lives in `regs` since 2.6 and in `regs.ext` before.
    fn regs_field(&mut self, c: &mut Cursor<'a>, key: &str) -> Read<()> {
        match key {
            "gdpr" => {
                let said = self.privacy_flag(c, FieldName::Gdpr)?;
                self.signals.gdpr.fold(said);
            }
            "gpc" => {
                let said = self.privacy_flag(c, FieldName::Gpc)?;
                self.signals.gpc.fold(said);
            }
            "us_privacy" => {
                let raw = c.value()?;
                self.home(raw, FieldName::UsPrivacy, |signals| &mut signals.us_privacy);
            }
            "gpp" => {
                let raw = c.value()?;
                self.home(raw, FieldName::Gpp, |signals| &mut signals.gpp);
            }
            "gpp_sid" => self.section_ids(c)?,
            _ => drop(c.value()?),
        }
        Ok(())
    }

    /// A privacy flag that cannot be read counts as said.
    fn privacy_flag(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Flag> {
        Ok(match self.flag(c, name)? {
            Field::Absent => Flag::Absent,
            Field::Value(false) => Flag::No,
            Field::Value(true) | Field::Unreadable => Flag::Yes,
        })
    }

    fn home(
        &mut self,
        raw: Raw<'a>,
        name: FieldName,
        of: impl for<'s> Fn(&'s mut Signals<'a>) -> &'s mut Homes<'a>,
    ) {
        match self.note(fields::text(raw, self.arena), name) {
            Field::Absent => {}
            Field::Value(text) => of(&mut self.signals).fold(text),
            Field::Unreadable => of(&mut self.signals).unreadable = true,
        }
    }

    fn section_ids(&mut self, c: &mut Cursor<'a>) -> Read<()> {
        if c.peek()? != Shape::Array {
            if !c.value()?.is_empty() {
                self.unreadable.insert(FieldName::GppSid);
                self.signals.gpp_sid.unreadable = true;
            }
            return Ok(());
        }
        c.array(|c| {
            match self.integer(c, FieldName::GppSid)? {
                Field::Value(id) => self.signals.gpp_sid.fold(id),
                Field::Absent => {}
                Field::Unreadable => self.signals.gpp_sid.unreadable = true,
            }
            Ok(())
        })
    }

    /// A list kept as its text, to be read only if the gate opens.
    fn array(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Option<Raw<'a>>> {
        let raw = c.value()?;
        if raw.shape() != Shape::Array && !raw.is_empty() {
            self.unreadable.insert(name);
        }
        Ok((raw.shape() == Shape::Array).then_some(raw))
    }
}

#[cfg(test)]
mod tests;
