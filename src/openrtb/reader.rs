//! Reads a body into a [`Request`], in one pass: which fields there are and what becomes of them.
//!
//! Of duplicate keys the last wins, an object as a whole; privacy signals alone are folded over all of them.

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

use super::fields::{self, Field, FieldName, FieldSet};
use super::json::{Cursor, Key, NotJson, Raw, Shape};
use super::kept::{SupplyChain, UserAgent, UserData};
use super::keys;
use super::repair::{Text, readable};
use super::request::{
    AuctionType, Deal, Device, Dsa, Eid, Geo, Imp, Placement, Request, Site, Uid, User,
};
use super::signals::{Flag, Homes, Signals};
use crate::money::Multiplier;

mod formats;
mod native;
mod values;

pub(super) use native::native_ask;

use values::Entered;

/// Why a body is no bid request: answered 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// A byte outside any string is not UTF-8.
    #[error("the body is not UTF-8 outside its strings")]
    NotText,
    /// Not JSON, or nested too deep.
    #[error("not JSON at byte {at}")]
    NotJson {
        /// Offset in bytes where reading stopped.
        at: usize,
    },
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
/// the view takes at most some twenty times the body's bytes, for a body made to that end.
pub fn read<'a>(
    body: &'a [u8],
    arena: &'a Bump,
    imps_max: usize,
) -> Result<&'a Request<'a>, BadRequest> {
    let text = match readable(body, arena).ok_or(BadRequest::NotText)? {
        Text::Valid(text) | Text::Repaired(text) => text,
    };
    let mut cursor = Cursor::new(text, arena);
    let mut reader = Reader {
        arena,
        imps_max,
        unreadable: FieldSet::default(),
        signals: Signals::default(),
    };
    // Where it is made it stays: it is long.
    let request = arena.alloc(Request::default());
    match reader.body(&mut cursor, request) {
        Ok(Ok(())) => Ok(request),
        Ok(Err(reason)) => Err(reason),
        Err(NotJson) => Err(BadRequest::NotJson { at: cursor.at() }),
    }
}

pub(super) type Read<T> = Result<T, NotJson>;

pub(super) struct Reader<'a> {
    arena: &'a Bump,
    imps_max: usize,
    unreadable: FieldSet,
    signals: Signals<'a>,
}

impl<'a> Reader<'a> {
    fn body(
        &mut self,
        cursor: &mut Cursor<'a>,
        request: &mut Request<'a>,
    ) -> Read<Result<(), BadRequest>> {
        if !cursor.at_object() {
            cursor.skip()?;
            cursor.end()?;
            return Ok(Err(BadRequest::NotObject));
        }
        let (id, has_imp) = self.request(cursor, request)?;
        cursor.end()?;
        let Field::Value(id) = id else {
            return Ok(Err(BadRequest::NoId));
        };
        if !has_imp {
            return Ok(Err(BadRequest::NoImp));
        }
        request.id = id;
        request.signals = self.signals;
        request.unreadable = self.unreadable;
        Ok(Ok(()))
    }

    fn request(
        &mut self,
        cursor: &mut Cursor<'a>,
        request: &mut Request<'a>,
    ) -> Read<(Field<&'a str>, bool)> {
        let mut id = Field::Absent;
        let mut has_imp = false;
        let (mut site, mut app, mut dooh) = (None, None, None);
        cursor.object(|c, key| {
            match key {
                keys::ID => id = fields::text(c.value()?, self.arena),
                keys::IMP => (request.imp, has_imp) = self.imps(c)?,
                keys::SITE => site = self.site(c, FieldName::Site)?,
                keys::APP => app = self.site(c, FieldName::App)?,
                keys::DOOH => dooh = self.site(c, FieldName::Dooh)?,
                keys::DEVICE => self.device(c, &mut request.device)?,
                keys::USER => self.user(c, &mut request.user)?,
                keys::REGS => self.regs(c, &mut request.dsa)?,
                keys::SOURCE => self.source(c, &mut request.schain)?,
                keys::EXT => self.ext(c, &mut request.schain)?,
                keys::TMAX => request.tmax_ms = self.milliseconds(c, FieldName::Tmax)?.value(),
                keys::AT => {
                    request.at = self
                        .integer(c, FieldName::At)?
                        .value()
                        .map_or_else(Default::default, AuctionType::from_code)
                }
                // A test that cannot be read as one: nothing is lost by booking nothing.
                keys::TEST => {
                    let test = self.flag(c, FieldName::Test)?;
                    request.test = test.is_unreadable() || test == Field::Value(true);
                }
                keys::CUR => request.cur = self.strings(c, FieldName::Cur)?,
                keys::WSEAT => request.wseat = self.strings(c, FieldName::Wseat)?,
                keys::BSEAT => request.bseat = self.blocks(c, FieldName::Bseat)?,
                keys::BCAT => request.bcat = self.blocks(c, FieldName::Bcat)?,
                keys::ACAT => request.acat = self.strings(c, FieldName::Acat)?,
                keys::CATTAX => request.cattax = self.integer(c, FieldName::Cattax)?,
                keys::BADV => request.badv = self.blocks(c, FieldName::Badv)?,
                keys::BAPP => request.bapp = self.blocks(c, FieldName::Bapp)?,
                keys::WLANG => request.wlang = self.strings(c, FieldName::Wlang)?,
                keys::WLANGB => request.wlangb = self.strings(c, FieldName::Wlang)?,
                _ => c.skip()?,
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
        Ok((id, has_imp))
    }

    fn imps(&mut self, c: &mut Cursor<'a>) -> Read<(&'a [Imp<'a>], bool)> {
        if !c.at_array() {
            c.skip()?;
            return Ok((&[], false));
        }
        let mut imps = ArenaVec::new_in(self.arena);
        let mut has_element = false;
        c.array(|c| {
            has_element = true;
            if imps.len() >= self.imps_max || !c.at_object() {
                self.unreadable.insert(FieldName::Imp);
                return c.skip();
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
                keys::ID => imp.id = self.text_field(c, FieldName::ImpId)?,
                keys::BANNER => imp.banner = self.banner(c)?,
                keys::VIDEO => imp.video = self.media(c)?,
                keys::AUDIO => imp.audio = self.media(c)?,
                keys::NATIVE => imp.native = self.native(c)?,
                keys::BIDFLOOR => imp.floor.amount = self.price(c, FieldName::ImpFloor)?,
                keys::BIDFLOORCUR => {
                    imp.floor.currency = self.currency(c, FieldName::ImpFloorCurrency)?
                }
                keys::SECURE => imp.secure = self.flag(c, FieldName::ImpSecure)?,
                keys::INSTL => imp.instl = self.flag(c, FieldName::ImpInstl)?.value(),
                keys::RWDD => imp.rwdd = self.flag(c, FieldName::ImpRewarded)?.value(),
                keys::PMP => self.pmp(c, &mut imp)?,
                keys::EXP => imp.exp = self.integer(c, FieldName::ImpExp)?,
                keys::QTY => imp.multiplier = self.multiplier(c)?,
                _ => c.skip()?,
            }
            Ok(())
        })?;
        Ok(imp)
    }

    /// `qty.multiplier`: how many impressions one showing counts for. It multiplies what we pay, so that it limits us.
    fn multiplier(&mut self, c: &mut Cursor<'a>) -> Read<Field<Multiplier>> {
        let mut said = Field::Absent;
        let entered = self.object(c, FieldName::ImpQty, |reader, c, key| {
            match key {
                keys::MULTIPLIER => said = reader.price(c, FieldName::ImpQty)?,
                _ => c.skip()?,
            }
            Ok(())
        })?;
        if entered == Entered::Unreadable {
            return Ok(Field::Unreadable);
        }
        let multiplier = said.and_then(|said| Multiplier::from_millionths(said.micros()));
        Ok(self.note(multiplier, FieldName::ImpQty))
    }

    fn pmp(&mut self, c: &mut Cursor<'a>, imp: &mut Imp<'a>) -> Read<()> {
        (imp.private_auction, imp.deals) = (Field::Absent, &[]);
        let entered = self.object(c, FieldName::ImpPmp, |reader, c, key| {
            match key {
                keys::PRIVATE_AUCTION => {
                    imp.private_auction = reader.flag(c, FieldName::ImpPrivateAuction)?
                }
                keys::DEALS => {
                    imp.deals = reader
                        .list(c, FieldName::Deal, |reader, c| reader.deal(c))?
                        .value()
                        .unwrap_or(&[])
                }
                _ => c.skip()?,
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
                keys::ID => id = reader.text(c, FieldName::Deal),
                keys::BIDFLOOR => deal.floor.amount = reader.price(c, FieldName::DealFloor)?,
                keys::BIDFLOORCUR => {
                    deal.floor.currency = reader.currency(c, FieldName::DealFloor)?
                }
                keys::AT => {
                    deal.at = reader
                        .integer(c, FieldName::DealAt)?
                        .value()
                        .map(AuctionType::from_code)
                }
                keys::WSEAT => deal.wseat = reader.few_strings(c, FieldName::DealSeats)?,
                keys::WADOMAIN => deal.wadomain = reader.few_strings(c, FieldName::DealDomains)?,
                keys::GUAR => deal.guar = reader.flag(c, FieldName::DealGuaranteed)?,
                keys::MINCPMPERSEC | keys::DURFLOORS => {
                    reader.duration_floor(c, key, &mut deal.duration_floors)?
                }
                _ => c.skip()?,
            }
            Ok(())
        })?;
        Ok(id.map(|id| Deal { id, ..deal }))
    }

    fn site(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Option<Site<'a>>> {
        let mut site = Site::default();
        let (mut keywords, mut kwarray) = (None, None);
        let entered = self.object(c, name, |reader, c, key| {
            match key {
                keys::DOMAIN => site.domain = reader.text(c, name),
                keys::BUNDLE => site.bundle = reader.text(c, name),
                keys::CAT => site.cat = reader.strings(c, name)?.value().unwrap_or(&[]),
                keys::KEYWORDS => keywords = reader.keywords(c, name)?,
                keys::KWARRAY => kwarray = reader.keyword_array(c, name)?,
                keys::PUBLISHER => {
                    site.publisher = None;
                    reader.object(c, name, |reader, c, key| {
                        match key {
                            keys::ID => site.publisher = reader.text(c, name),
                            _ => c.skip()?,
                        }
                        Ok(())
                    })?;
                }
                _ => c.skip()?,
            }
            Ok(())
        })?;
        // Only one of the two may be there. Where both are, their order must not matter.
        site.keywords = kwarray.or(keywords).unwrap_or(&[]);
        Ok((entered != Entered::Nothing).then_some(site))
    }

    /// `keywords`: one string, split at commas. A list there is a mistake of the sender's, and says nothing.
    fn keywords(&mut self, c: &mut Cursor<'a>, name: FieldName) -> Read<Option<&'a [&'a str]>> {
        let Some(text) = self.text(c, name) else {
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

    fn device(&mut self, c: &mut Cursor<'a>, device: &mut Device<'a>) -> Read<()> {
        *device = Device::default();
        let text = FieldName::DeviceText;
        let entered = self.object(c, FieldName::Device, |reader, c, key| {
            match key {
                keys::IFA => device.ifa = reader.text(c, FieldName::Ifa),
                keys::UA => device.ua = reader.text(c, text),
                keys::SUA => device.sua = UserAgent(reader.kept(c, Shape::Object, text)?),
                keys::IP => device.ip = reader.text(c, text),
                keys::IPV6 => device.ipv6 = reader.text(c, text),
                keys::DEVICETYPE => {
                    device.devicetype = reader.integer(c, FieldName::DeviceType)?.value()
                }
                keys::OS => device.os = reader.text(c, text),
                keys::OSV => device.osv = reader.text(c, text),
                keys::LANGUAGE => device.language = reader.text(c, text),
                keys::CONNECTIONTYPE => device.connectiontype = reader.integer(c, text)?.value(),
                keys::CARRIER => device.carrier = reader.text(c, text),
                keys::GEO => device.geo = reader.geo(c)?,
                keys::LMT => {
                    let said = reader.privacy_flag(c, FieldName::Lmt)?;
                    reader.signals.lmt.fold(said);
                }
                keys::DNT => {
                    let said = reader.privacy_flag(c, FieldName::Dnt)?;
                    reader.signals.dnt.fold(said);
                }
                _ => c.skip()?,
            }
            Ok(())
        })?;
        self.signals.broken |= entered == Entered::Unreadable;
        Ok(())
    }

    fn geo(&mut self, c: &mut Cursor<'a>) -> Read<Geo<'a>> {
        let mut geo = Geo::default();
        let name = FieldName::Geo;
        let entered = self.object(c, name, |reader, c, key| {
            match key {
                keys::COUNTRY => {
                    let raw = c.value()?;
                    reader.home(raw, name, |signals| &mut signals.country);
                    geo.country = fields::text(raw, reader.arena).value();
                }
                keys::REGION => geo.region = reader.text(c, name),
                keys::CITY => geo.city = reader.text(c, name),
                keys::METRO => geo.metro = reader.text(c, name),
                keys::ZIP => geo.zip = reader.text(c, name),
                _ => c.skip()?,
            }
            Ok(())
        })?;
        self.signals.country.unreadable |= entered == Entered::Unreadable;
        Ok(geo)
    }

    fn user(&mut self, c: &mut Cursor<'a>, user: &mut User<'a>) -> Read<()> {
        *user = User::default();
        let text = FieldName::UserText;
        let mut kwarray = None;
        let entered = self.object(c, FieldName::User, |reader, c, key| {
            match key {
                keys::ID => user.id = reader.text(c, FieldName::UserId),
                keys::BUYERUID => user.buyeruid = reader.text(c, FieldName::BuyerUid),
                keys::YOB => user.yob = reader.integer(c, FieldName::Yob)?.value(),
                keys::GENDER => user.gender = reader.text(c, text),
                keys::KEYWORDS => user.keywords = reader.keywords(c, text)?,
                keys::KWARRAY => kwarray = reader.keyword_array(c, text)?,
                keys::GEO => drop(reader.geo(c)?),
                keys::EIDS => user.eids[0] = reader.eids(c)?,
                keys::DATA => {
                    user.data = UserData::kept(reader.kept(c, Shape::Array, FieldName::UserData)?)
                }
                keys::CONSENT => {
                    let raw = c.value()?;
                    reader.home(raw, FieldName::Consent, |signals| &mut signals.consent);
                }
                keys::EXT => {
                    let entered = reader.object(c, FieldName::User, |reader, c, key| {
                        match key {
                            keys::EIDS => user.eids[1] = reader.eids(c)?,
                            keys::CONSENT => {
                                let raw = c.value()?;
                                reader
                                    .home(raw, FieldName::Consent, |signals| &mut signals.consent);
                            }
                            _ => c.skip()?,
                        }
                        Ok(())
                    })?;
                    reader.signals.broken |= entered == Entered::Unreadable;
                }
                _ => c.skip()?,
            }
            Ok(())
        })?;
        user.keywords = kwarray.or(user.keywords);
        self.signals.broken |= entered == Entered::Unreadable;
        Ok(())
    }

    fn eids(&mut self, c: &mut Cursor<'a>) -> Read<&'a [Eid<'a>]> {
        let eids = self.list(c, FieldName::Eids, |reader, c| {
            let (mut source, mut uids) = (None, None);
            let (mut inserter, mut matcher, mut mm) = (Field::Absent, Field::Absent, Field::Absent);
            reader.object(c, FieldName::Eids, |reader, c, key| {
                match key {
                    keys::SOURCE => source = reader.text(c, FieldName::Eids),
                    keys::UIDS => uids = reader.uids(c)?,
                    keys::INSERTER => inserter = reader.text_field(c, FieldName::EidMatch)?,
                    keys::MATCHER => matcher = reader.text_field(c, FieldName::EidMatch)?,
                    keys::MM => mm = reader.integer(c, FieldName::EidMatch)?,
                    _ => c.skip()?,
                }
                Ok(())
            })?;
            Ok(source.zip(uids).map(|(source, uids)| Eid {
                source,
                inserter,
                matcher,
                mm,
                uids,
            }))
        })?;
        Ok(eids.value().unwrap_or(&[]))
    }

    fn uids(&mut self, c: &mut Cursor<'a>) -> Read<Option<&'a [Uid<'a>]>> {
        let ids = self.list(c, FieldName::Eids, |reader, c| {
            let (mut id, mut atype) = (None, Field::Absent);
            reader.object(c, FieldName::Eids, |reader, c, key| {
                match key {
                    keys::ID => id = reader.text(c, FieldName::Eids),
                    keys::ATYPE => atype = reader.integer(c, FieldName::EidMatch)?,
                    _ => c.skip()?,
                }
                Ok(())
            })?;
            Ok(id.map(|id| Uid { id, atype }))
        })?;
        Ok(ids.value())
    }

    fn regs(&mut self, c: &mut Cursor<'a>, dsa: &mut Dsa) -> Read<()> {
        let entered = self.object(c, FieldName::Regs, |reader, c, key| match key {
            keys::EXT => {
                let entered = reader.object(c, FieldName::Regs, |reader, c, key| match key {
                    keys::DSA => reader.dsa(c, dsa),
                    _ => reader.regs_field(c, key),
                })?;
                reader.signals.broken |= entered == Entered::Unreadable;
                Ok(())
            }
            keys::DSA => reader.dsa(c, dsa),
            _ => reader.regs_field(c, key),
        })?;
        self.signals.broken |= entered == Entered::Unreadable;
        Ok(())
    }

    /// Of two homes the strictest: `dsarequired` 2 or 3, or unreadable, in either.
    fn dsa(&mut self, c: &mut Cursor<'a>, dsa: &mut Dsa) -> Read<()> {
        let entered = self.object(c, FieldName::Dsa, |reader, c, key| {
            match key {
                keys::DSAREQUIRED => match reader.integer(c, FieldName::Dsa)? {
                    Field::Absent | Field::Value(0 | 1) => {}
                    Field::Value(_) | Field::Unreadable => dsa.required = true,
                },
                keys::PUBRENDER => {
                    let said = reader.integer(c, FieldName::Dsa)?;
                    dsa.pubrender = match (dsa.pubrender, said) {
                        (Field::Absent, only) | (only, Field::Absent) => only,
                        (before, said) if before == said => said,
                        _ => Field::Unreadable,
                    };
                }
                _ => c.skip()?,
            }
            Ok(())
        })?;
        dsa.is_there |= entered != Entered::Nothing;
        dsa.required |= entered == Entered::Unreadable;
        Ok(())
    }

    /// A field that lives in `regs` since 2.6 and in `regs.ext` before.
    fn regs_field(&mut self, c: &mut Cursor<'a>, key: Key) -> Read<()> {
        match key {
            keys::COPPA => {
                let said = self.privacy_flag(c, FieldName::Coppa)?;
                self.signals.coppa.fold(said);
            }
            keys::GDPR => {
                let said = self.privacy_flag(c, FieldName::Gdpr)?;
                self.signals.gdpr.fold(said);
            }
            keys::GPC => {
                let said = self.privacy_flag(c, FieldName::Gpc)?;
                self.signals.gpc.fold(said);
            }
            keys::US_PRIVACY => {
                let raw = c.value()?;
                self.home(raw, FieldName::UsPrivacy, |signals| &mut signals.us_privacy);
            }
            keys::GPP => {
                let raw = c.value()?;
                self.home(raw, FieldName::Gpp, |signals| &mut signals.gpp);
            }
            keys::GPP_SID => self.section_ids(c)?,
            _ => c.skip()?,
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
        if !c.at_array() {
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

    /// A list or object kept as its text, to be read only if somebody asks.
    fn kept(&mut self, c: &mut Cursor<'a>, shape: Shape, name: FieldName) -> Read<Option<Raw<'a>>> {
        let raw = c.value()?;
        if raw.shape() != shape && !raw.is_empty() {
            self.unreadable.insert(name);
        }
        Ok((raw.shape() == shape).then_some(raw))
    }

    /// `source.schain`, `source.ext.schain`.
    fn source(&mut self, c: &mut Cursor<'a>, schain: &mut SupplyChain<'a>) -> Read<()> {
        self.object(c, FieldName::Schain, |reader, c, key| match key {
            keys::SCHAIN => reader.schain(c, &mut schain.homes[0]),
            keys::EXT => {
                let second = &mut schain.homes[1];
                reader.object(c, FieldName::Schain, |reader, c, key| match key {
                    keys::SCHAIN => reader.schain(c, second),
                    _ => c.skip(),
                })?;
                Ok(())
            }
            _ => c.skip(),
        })?;
        Ok(())
    }

    /// `ext.schain`. An `ext` of any other type says nothing.
    fn ext(&mut self, c: &mut Cursor<'a>, schain: &mut SupplyChain<'a>) -> Read<()> {
        if !c.at_object() {
            return c.skip();
        }
        c.object(|c, key| match key {
            keys::SCHAIN => self.schain(c, &mut schain.homes[2]),
            _ => c.skip(),
        })
    }

    fn schain(&mut self, c: &mut Cursor<'a>, home: &mut Field<Raw<'a>>) -> Read<()> {
        let raw = c.value()?;
        *home = match raw.shape() {
            Shape::Object => Field::Value(raw),
            _ if raw.is_empty() => Field::Absent,
            _ => Field::Unreadable,
        };
        *home = self.note(*home, FieldName::Schain);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
