//! A request without the person in it, as bytes: what another decision on it would read, and nothing that says who it was.
//!
//! Shadow validation decides on recent requests again, and keeps them as this. Every field of the view is named here, to be
//! written or to be left out: whoever adds one is asked by the compiler. Left out are the request's own id and those of its imps
//! (their numbers stand in), every id of the person, addresses, the user agent but for the browser's mark, consent strings, and
//! what is only read of a whole request (the supply chain). What is kept as text in the view is read here and written as what
//! was read, so that no JSON of the sender's is kept.
//!
//! The bytes never leave the process: their order is this file's affair, and changes with it. Cost: what the view's strings have
//! in all, and a byte or two for every other field.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

use super::fields::{Field, FieldSet};
use super::formats::{Banner, DurFloor, DurationFloors, Flex, Media, Pod, Size};
use super::kept::{SupplyChain, UserAgent, UserData};
use super::native::{AssetAsk, AssetKind, ImageAsk, ImageTypes, Native, NativeAsk};
use super::request::{
    AuctionType, Deal, Device, Dsa, Floor, Geo, Imp, Placement, Request, Site, User,
};
use super::signals::Signals;
use crate::money::{Currency, Multiplier, Price};

/// What of the person and the device is kept in place of what the request has: as much as targeting asks for, and may see.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen<'a> {
    /// A user agent that has the mark of the same browser, and nothing else.
    pub ua: Option<&'static str>,
    /// The operating system, from wherever it was said.
    pub os: Option<&'a str>,
    /// Its version.
    pub osv: Option<&'a str>,
    /// The place.
    pub geo: Geo<'a>,
    /// Year of birth.
    pub yob: Option<i64>,
    /// `M`, `F`, `O`
    pub gender: Option<&'a str>,
    /// Of the person.
    pub keywords: Option<&'a [&'a str]>,
    /// The exchange's segments, as targeting names them.
    pub segments: Option<&'a [&'a str]>,
}

/// Writes what is kept of a request; how many bytes that is, or nothing where there is no room for it.
pub fn abridge<'a>(
    request: &Request<'a>,
    seen: &Seen<'a>,
    out: &mut [u8],
    arena: &'a Bump,
) -> Option<usize> {
    let whole = out.len();
    let mut sink = Sink {
        left: out,
        full: false,
        arena,
    };
    let Request {
        id: _,
        imp,
        placement,
        site,
        device,
        user,
        signals: _,
        tmax_ms,
        at,
        test,
        cur,
        wseat,
        bseat,
        bcat,
        acat,
        cattax,
        badv,
        bapp,
        wlang,
        wlangb,
        dsa,
        schain: _,
        unreadable: _,
    } = request;
    imp.write(&mut sink);
    placement.write(&mut sink);
    site.write(&mut sink);
    let Device {
        ifa: _,
        ua: _,
        sua: _,
        ip: _,
        ipv6: _,
        devicetype,
        os: _,
        osv: _,
        language,
        connectiontype,
        carrier,
        geo: _,
    } = device;
    devicetype.write(&mut sink);
    language.write(&mut sink);
    connectiontype.write(&mut sink);
    carrier.write(&mut sink);
    let User {
        id: _,
        buyeruid: _,
        yob: _,
        gender: _,
        keywords: _,
        eids: _,
        data: _,
    } = user;
    seen.ua.write(&mut sink);
    seen.os.write(&mut sink);
    seen.osv.write(&mut sink);
    seen.geo.write(&mut sink);
    seen.yob.write(&mut sink);
    seen.gender.write(&mut sink);
    seen.keywords.write(&mut sink);
    seen.segments.write(&mut sink);
    tmax_ms.write(&mut sink);
    at.write(&mut sink);
    test.write(&mut sink);
    for list in [cur, wseat, bseat, bcat, acat] {
        list.write(&mut sink);
    }
    cattax.write(&mut sink);
    for list in [badv, bapp, wlang, wlangb] {
        list.write(&mut sink);
    }
    dsa.write(&mut sink);
    (!sink.full).then(|| whole.saturating_sub(sink.left.len()))
}

/// Reads what [`abridge`] wrote, as a request of nobody.
pub fn abridged<'a>(bytes: &'a [u8], arena: &'a Bump) -> Option<Request<'a>> {
    let mut from = Source { left: bytes, arena };
    let from = &mut from;
    let imp: &'a [Imp<'a>] = Part::read(from)?;
    let imp = imp.iter().enumerate().map(|(number, imp)| Imp {
        id: match imp.id {
            Field::Value(_) => Field::Value(numbered(number, arena)),
            other => other,
        },
        ..imp.clone()
    });
    Some(Request {
        id: "",
        imp: ArenaVec::from_iter_in(imp, arena).into_bump_slice(),
        placement: Part::read(from)?,
        site: Part::read(from)?,
        device: Device {
            ifa: None,
            sua: UserAgent::default(),
            ip: None,
            ipv6: None,
            devicetype: Part::read(from)?,
            language: Part::read(from)?,
            connectiontype: Part::read(from)?,
            carrier: Part::read(from)?,
            ua: Part::read(from)?,
            os: Part::read(from)?,
            osv: Part::read(from)?,
            geo: Part::read(from)?,
        },
        user: User {
            id: None,
            buyeruid: None,
            eids: [&[], &[]],
            yob: Part::read(from)?,
            gender: Part::read(from)?,
            keywords: Part::read(from)?,
            data: UserData::read(Part::read(from)?),
        },
        signals: Signals::default(),
        tmax_ms: Part::read(from)?,
        at: Part::read(from)?,
        test: Part::read(from)?,
        cur: Part::read(from)?,
        wseat: Part::read(from)?,
        bseat: Part::read(from)?,
        bcat: Part::read(from)?,
        acat: Part::read(from)?,
        cattax: Part::read(from)?,
        badv: Part::read(from)?,
        bapp: Part::read(from)?,
        wlang: Part::read(from)?,
        wlangb: Part::read(from)?,
        dsa: Part::read(from)?,
        schain: SupplyChain::default(),
        unreadable: FieldSet::default(),
    })
}

fn numbered(number: usize, arena: &Bump) -> &str {
    bumpalo::format!(in arena, "{}", number).into_bump_str()
}

struct Sink<'s, 'a> {
    left: &'s mut [u8],
    full: bool,
    /// Where what is read only now is put meanwhile.
    arena: &'a Bump,
}

impl Sink<'_, '_> {
    fn bytes(&mut self, bytes: &[u8]) {
        match std::mem::take(&mut self.left).split_at_mut_checked(bytes.len()) {
            Some((place, left)) if !self.full => {
                place.copy_from_slice(bytes);
                self.left = left;
            }
            _ => self.full = true,
        }
    }

    fn byte(&mut self, byte: u8) {
        self.bytes(&[byte]);
    }

    /// Seven bits a byte, the lowest first; the eighth says that there are more.
    fn number(&mut self, mut number: u64) {
        while number > 0x7f {
            self.byte((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }
}

struct Source<'a> {
    left: &'a [u8],
    arena: &'a Bump,
}

impl<'a> Source<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, left) = self.left.split_at_checked(length)?;
        self.left = left;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, left) = self.left.split_first()?;
        self.left = left;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn length(&mut self) -> Option<usize> {
        // Nothing takes less than a byte: what says it has more elements than there are bytes left is none of ours.
        let length = usize::try_from(self.number()?).ok()?;
        (length <= self.left.len()).then_some(length)
    }
}

/// One value, written and read back.
trait Part<'a>: Sized {
    fn write(&self, out: &mut Sink<'_, 'a>);
    fn read(from: &mut Source<'a>) -> Option<Self>;
}

impl<'a> Part<'a> for bool {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        out.byte(u8::from(*self));
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        Some(from.byte()? != 0)
    }
}

impl<'a> Part<'a> for i64 {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        // The sign goes last, so that small numbers below zero are short too.
        let number = self.cast_unsigned().rotate_left(1);
        let flipped = if *self < 0 { number ^ !1 } else { number };
        out.number(flipped);
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        let number = from.number()?;
        let flipped = if number & 1 == 1 { number ^ !1 } else { number };
        Some(flipped.rotate_right(1).cast_signed())
    }
}

impl<'a> Part<'a> for &'a str {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        out.number(self.len() as u64);
        out.bytes(self.as_bytes());
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        let length = from.length()?;
        std::str::from_utf8(from.bytes(length)?).ok()
    }
}

impl<'a, T: Part<'a>> Part<'a> for &'a [T] {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        out.number(self.len() as u64);
        self.iter().for_each(|part| part.write(out));
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        let length = from.length()?;
        let mut list = ArenaVec::new_in(from.arena);
        for _ in 0..length {
            list.push(T::read(from)?);
        }
        Some(list.into_bump_slice())
    }
}

impl<'a, T: Part<'a>> Part<'a> for &'a T {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        T::write(self, out);
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        let read = T::read(from)?;
        Some(&*from.arena.alloc(read))
    }
}

impl<'a, A: Part<'a>, B: Part<'a>> Part<'a> for (A, B) {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        self.0.write(out);
        self.1.write(out);
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        Some((A::read(from)?, B::read(from)?))
    }
}

impl<'a, T: Part<'a>> Part<'a> for Option<T> {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        match self {
            None => out.byte(0),
            Some(value) => {
                out.byte(1);
                value.write(out);
            }
        }
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        match from.byte()? {
            0 => Some(None),
            _ => T::read(from).map(Some),
        }
    }
}

impl<'a, T: Part<'a>> Part<'a> for Field<T> {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        match self {
            Self::Absent => out.byte(0),
            Self::Unreadable => out.byte(1),
            Self::Value(value) => {
                out.byte(2);
                value.write(out);
            }
        }
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        match from.byte()? {
            0 => Some(Self::Absent),
            1 => Some(Self::Unreadable),
            _ => T::read(from).map(Self::Value),
        }
    }
}

impl<'a> Part<'a> for Price {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        self.micros().write(out);
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        Self::from_micros(i64::read(from)?)
    }
}

impl<'a> Part<'a> for Multiplier {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        self.millionths().write(out);
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        Self::from_millionths(i64::read(from)?)
    }
}

impl<'a> Part<'a> for Currency {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        out.bytes(self.as_str().as_bytes());
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        std::str::from_utf8(from.bytes(3)?).ok()?.parse().ok()
    }
}

/// What is written field by field; all of them, or it would not compile.
macro_rules! parts {
    ($($name:ident $(<$life:lifetime>)? { $($field:ident),* $(,)? })*) => { $(
        impl<'a> Part<'a> for $name $(<$life>)? {
            fn write(&self, out: &mut Sink<'_, 'a>) {
                let Self { $($field),* } = self;
                $($field.write(out);)*
            }

            fn read(from: &mut Source<'a>) -> Option<Self> {
                Some(Self { $($field: Part::read(from)?),* })
            }
        }
    )* };
}

parts! {
    Site<'a> { domain, bundle, publisher, cat, keywords }
    Geo<'a> { country, region, city, metro, zip }
    Floor { amount, currency }
    Deal<'a> { id, floor, duration_floors, guar, at, wseat, wadomain }
    DurationFloors<'a> { mincpmpersec, durfloors }
    DurFloor { mindur, maxdur, bidfloor }
    Banner<'a> { sizes, flex, mimes, api, battr, btype, pos }
    Size { w, h }
    Flex { wratio, hratio, wmin }
    Media<'a> {
        mimes, minduration, maxduration, rqddurs, protocols, w, h, linearity, battr, api, minbitrate, maxbitrate, pos, pod,
        floors,
    }
    Pod<'a> { podid, poddur, maxseq, slotinpod }
    Dsa { required, is_there, pubrender }
    AssetAsk<'a> { id, required, kind }
    ImageAsk { kind, w, h, wmin, hmin, mimes }
}

/// What is one of a few, by its place among them.
macro_rules! choices {
    ($($name:ident { $($choice:ident),* $(,)? })*) => { $(
        impl<'a> Part<'a> for $name {
            fn write(&self, out: &mut Sink<'_, 'a>) {
                out.byte(match self { $(Self::$choice => Self::$choice as u8),* });
            }

            fn read(from: &mut Source<'a>) -> Option<Self> {
                let byte = from.byte()?;
                [$(Self::$choice),*].into_iter().find(|choice| *choice as u8 == byte)
            }
        }
    )* };
}

choices! {
    Placement { Unknown, Site, App, Dooh, Several }
    AuctionType { First, Second, Fixed, Other }
}

impl<'a> Part<'a> for Imp<'a> {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        let Self {
            id,
            banner,
            video,
            audio,
            native,
            floor,
            secure,
            instl,
            rwdd,
            private_auction,
            deals,
            exp,
            multiplier,
        } = self;
        // Its number will do.
        let id: Field<&str> = match id {
            Field::Value(_) => Field::Value(""),
            other => *other,
        };
        id.write(out);
        banner.write(out);
        video.write(out);
        audio.write(out);
        native.write(out);
        floor.write(out);
        secure.write(out);
        instl.write(out);
        rwdd.write(out);
        private_auction.write(out);
        deals.write(out);
        exp.write(out);
        multiplier.write(out);
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        Some(Self {
            id: Part::read(from)?,
            banner: Part::read(from)?,
            video: Part::read(from)?,
            audio: Part::read(from)?,
            native: Part::read(from)?,
            floor: Part::read(from)?,
            secure: Part::read(from)?,
            instl: Part::read(from)?,
            rwdd: Part::read(from)?,
            private_auction: Part::read(from)?,
            deals: Part::read(from)?,
            exp: Part::read(from)?,
            multiplier: Part::read(from)?,
        })
    }
}

impl<'a> Part<'a> for Native<'a> {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        let ask = self.ask(out.arena);
        // Who asks which version shows in what was read of it.
        let Self {
            request: _,
            read: _,
            ver: _,
            api,
            battr,
        } = self;
        ask.write(out);
        api.write(out);
        battr.write(out);
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        Some(Self {
            request: None,
            read: Part::read(from)?,
            ver: None,
            api: Part::read(from)?,
            battr: Part::read(from)?,
        })
    }
}

impl<'a> Part<'a> for NativeAsk<'a> {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        let Self {
            rooted,
            ver,
            assets,
            eventtrackers,
            privacy,
        } = self;
        rooted.write(out);
        ver.write(out);
        assets.write(out);
        eventtrackers.write(out);
        privacy.write(out);
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        Some(Self {
            rooted: Part::read(from)?,
            ver: {
                let ver: &str = Part::read(from)?;
                ["1.0", "1.1", "1.2"]
                    .into_iter()
                    .find(|known| *known == ver)?
            },
            assets: Part::read(from)?,
            eventtrackers: Part::read(from)?,
            privacy: Part::read(from)?,
        })
    }
}

impl<'a> Part<'a> for AssetKind<'a> {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        match self {
            Self::Title { len } => {
                out.byte(0);
                len.write(out);
            }
            Self::Image(image) => {
                out.byte(1);
                image.write(out);
            }
            Self::Data { kind, len } => {
                out.byte(2);
                kind.write(out);
                len.write(out);
            }
            Self::Video(video) => {
                out.byte(3);
                video.write(out);
            }
            Self::Unknown => out.byte(4),
        }
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        Some(match from.byte()? {
            0 => Self::Title {
                len: Part::read(from)?,
            },
            1 => Self::Image(Part::read(from)?),
            2 => Self::Data {
                kind: Part::read(from)?,
                len: Part::read(from)?,
            },
            3 => Self::Video(Part::read(from)?),
            _ => Self::Unknown,
        })
    }
}

impl<'a> Part<'a> for ImageTypes {
    fn write(&self, out: &mut Sink<'_, 'a>) {
        out.byte(self.bits());
    }

    fn read(from: &mut Source<'a>) -> Option<Self> {
        from.byte().map(Self::from_bits)
    }
}

#[cfg(test)]
mod tests;
