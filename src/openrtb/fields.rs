//! What a field's value can be once somebody has tried to read it, and the names of the fields that can fail.

use bumpalo::Bump;

use super::json::{Raw, Shape};
use crate::money::{MICROS, Price, Round};

/// One read field. `null` and, for strings, `""` count as absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Field<T> {
    /// Not sent.
    #[default]
    Absent,
    /// Sent, and not to be understood.
    Unreadable,
    /// Sent and understood.
    Value(T),
}

impl<T> Field<T> {
    /// The value, if there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Unreadable => None,
        }
    }

    /// Whether something was sent that could not be read.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable)
    }

    pub(super) fn and_then<U>(self, read: impl FnOnce(T) -> Option<U>) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Unreadable => Field::Unreadable,
            Self::Value(value) => read(value).map_or(Field::Unreadable, Field::Value),
        }
    }
}

/// A string, or a number taken by its digits exactly as sent (ids come as numbers too).
pub(super) fn text<'a>(raw: Raw<'a>, arena: &'a Bump) -> Field<&'a str> {
    match raw.shape() {
        Shape::Null => Field::Absent,
        Shape::String => match raw.string(arena) {
            Some("") => Field::Absent,
            Some(text) => Field::Value(text),
            None => Field::Unreadable,
        },
        Shape::Number => Field::Value(raw.text()),
        Shape::Bool | Shape::Array | Shape::Object => Field::Unreadable,
    }
}

/// A whole number, also as `"1"`, `1.0` or `1e3`. One with a fraction is none: cut off, a least value would be less than
/// was asked for, and -1.9 another number's meaning.
pub(super) fn integer<'t>(raw: Raw<'t>, arena: &'t Bump) -> Field<i64> {
    number_text(raw, arena).and_then(|text| {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if fraction.bytes().all(|b| b == b'0')
            && let Ok(integer) = whole.parse::<i64>()
        {
            return Some(integer);
        }
        let float = exact(text)?;
        (float.trunc() == float).then_some(float as i64)
    })
}

/// A time in milliseconds; what it has beyond whole ones is cut off.
pub(super) fn milliseconds<'t>(raw: Raw<'t>, arena: &'t Bump) -> Field<i64> {
    match integer(raw, arena) {
        Field::Unreadable => {
            number_text(raw, arena).and_then(|text| Some(exact(text)?.trunc() as i64))
        }
        read => read,
    }
}

/// A number whose whole part a float holds exactly: those under 2^53.
fn exact(text: &str) -> Option<f64> {
    let float: f64 = text.parse().ok()?;
    (float.abs() < 9e15).then_some(float)
}

/// A 0/1 flag, also as `"1"`, `1.0` or `true`. Any other value cannot be read: 0.9 is not 0, and blank is not absent.
pub(super) fn flag<'t>(raw: Raw<'t>, arena: &'t Bump) -> Field<bool> {
    let said = match raw.shape() {
        Shape::Null => return Field::Absent,
        Shape::Bool | Shape::Number => Some(raw.text()),
        Shape::String => raw.string(arena),
        Shape::Array | Shape::Object => None,
    };
    match said.map(str::trim) {
        Some("") if raw.is_empty() => Field::Absent,
        Some("true") => Field::Value(true),
        Some("false") => Field::Value(false),
        Some(text) => match Price::parse(text, Round::Up).map(Price::micros) {
            Some(0) => Field::Value(false),
            Some(MICROS) => Field::Value(true),
            _ => Field::Unreadable,
        },
        None => Field::Unreadable,
    }
}

/// A floor, rounded up to the next micro. Negative and impossible ones cannot be read.
pub(super) fn price<'t>(raw: Raw<'t>, arena: &'t Bump) -> Field<Price> {
    number_text(raw, arena).and_then(|text| Price::parse(text, Round::Up))
}

fn number_text<'t>(raw: Raw<'t>, arena: &'t Bump) -> Field<&'t str> {
    match raw.shape() {
        Shape::Null => Field::Absent,
        Shape::Number => Field::Value(raw.text()),
        Shape::String if raw.is_empty() => Field::Absent,
        Shape::String => {
            let numeric =
                |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E');
            match raw.string(arena).map(str::trim) {
                Some(text) if !text.is_empty() && text.bytes().all(numeric) => Field::Value(text),
                _ => Field::Unreadable,
            }
        }
        Shape::Bool | Shape::Array | Shape::Object => Field::Unreadable,
    }
}

macro_rules! field_names {
    ($($variant:ident $name:literal,)*) => {
        /// A field that can be unreadable: the closed list behind `kith_unreadable_fields_total{field}`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each is its OpenRTB name")]
        #[repr(u8)]
        pub enum FieldName { $($variant),* }

        impl FieldName {
            /// Every field, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The field's path in the specification.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

field_names! {
    Acat "acat",
    At "at",
    Badv "badv",
    Bapp "bapp",
    Bcat "bcat",
    Bseat "bseat",
    Cattax "cattax",
    Cur "cur",
    Device "device",
    DeviceText "device.text",
    DeviceType "device.devicetype",
    Dnt "device.dnt",
    Ifa "device.ifa",
    Lmt "device.lmt",
    Geo "geo",
    Imp "imp",
    ImpBanner "imp.banner",
    ImpExp "imp.exp",
    ImpFloor "imp.bidfloor",
    ImpFormat "imp.format",
    ImpFloorCurrency "imp.bidfloorcur",
    ImpId "imp.id",
    ImpInstl "imp.instl",
    ImpPmp "imp.pmp",
    ImpPrivateAuction "imp.pmp.private_auction",
    ImpQty "imp.qty",
    ImpRewarded "imp.rwdd",
    ImpSecure "imp.secure",
    BannerFormat "imp.banner.format",
    BannerBtype "imp.banner.btype",
    BannerSize "imp.banner.size",
    FormatApi "imp.format.api",
    FormatBattr "imp.format.battr",
    FormatMimes "imp.format.mimes",
    FormatPosition "imp.format.pos",
    MediaBitrate "imp.media.bitrate",
    MediaDuration "imp.media.duration",
    MediaFloors "imp.media.floors",
    MediaLinearity "imp.media.linearity",
    MediaPod "imp.media.pod",
    MediaProtocols "imp.media.protocols",
    MediaSize "imp.media.size",
    NativeRequest "imp.native.request",
    Deal "imp.pmp.deals",
    DealAt "imp.pmp.deals.at",
    DealFloor "imp.pmp.deals.bidfloor",
    DealGuaranteed "imp.pmp.deals.guar",
    DealSeats "imp.pmp.deals.wseat",
    DealDomains "imp.pmp.deals.wadomain",
    Dsa "regs.dsa",
    Regs "regs",
    Coppa "regs.coppa",
    Gdpr "regs.gdpr",
    Gpc "regs.gpc",
    Gpp "regs.gpp",
    GppSid "regs.gpp_sid",
    UsPrivacy "regs.us_privacy",
    Site "site",
    App "app",
    Dooh "dooh",
    Test "test",
    Tmax "tmax",
    User "user",
    UserId "user.id",
    BuyerUid "user.buyeruid",
    Consent "user.consent",
    EidMatch "user.eids.mm",
    Eids "user.eids",
    Schain "source.schain",
    UserText "user.text",
    Yob "user.yob",
    UserData "user.data",
    Wlang "wlang",
    Wseat "wseat",
}

/// Which fields of a request could not be read, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldSet(u128);

const _: () = assert!(FieldName::ALL.len() <= 128);

impl FieldSet {
    /// Notes a field.
    pub fn insert(&mut self, field: FieldName) {
        self.0 |= 1u128.rotate_left(u32::from(field as u8));
    }

    /// Whether none was noted.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The fields noted.
    pub fn iter(self) -> impl Iterator<Item = FieldName> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let field = FieldName::ALL.get(left.trailing_zeros() as usize)?;
            left &= left.wrapping_sub(1);
            Some(*field)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::Cursor;
    use super::*;

    fn with<T>(json: &str, read: impl for<'a> Fn(Raw<'a>, &'a Bump) -> T) -> T {
        let arena = Bump::new();
        let text = arena.alloc_str(json);
        let raw = Cursor::new(text, &arena).value().expect("JSON");
        read(raw, &arena)
    }

    #[test]
    fn ids_keep_their_digits() {
        let read = |json: &str| {
            with(json, |raw, arena| {
                text(raw, arena).value().map(str::to_owned)
            })
        };
        assert_eq!(
            read("9007199254740993").as_deref(),
            Some("9007199254740993")
        );
        assert_eq!(read("\"a\"").as_deref(), Some("a"));
        assert_eq!(read("\"\""), None);
        assert!(with("\"\\ud800\"", |raw, arena| text(raw, arena).is_unreadable()));
        assert!(with("{}", |raw, arena| text(raw, arena).is_unreadable()));
    }

    #[test]
    fn integers_in_all_their_disguises() {
        use Field::{Absent, Unreadable, Value};
        for (json, want) in [
            ("1", Value(1)),
            ("1.0", Value(1)),
            ("933.33", Unreadable),
            ("\"-1.9\"", Unreadable),
            ("15e-1", Unreadable),
            ("150e-1", Value(15)),
            ("1.0e0", Value(1)),
            ("\"1\"", Value(1)),
            ("\" 7 \"", Value(7)),
            ("1e3", Value(1000)),
            ("-2", Value(-2)),
            ("null", Absent),
            ("\"\"", Absent),
            ("1e400", Unreadable),
            ("true", Unreadable),
            ("\"x\"", Unreadable),
            ("\"inf\"", Unreadable),
            ("[]", Unreadable),
            ("99999999999999999999", Unreadable),
        ] {
            assert_eq!(with(json, integer), want, "{json}");
        }
    }

    #[test]
    fn times_lose_what_they_have_beyond_milliseconds() {
        use Field::{Absent, Unreadable, Value};
        for (json, want) in [
            ("933.33", Value(933)),
            ("\"120.9\"", Value(120)),
            ("0.5", Value(0)),
            ("-0.5", Value(0)),
            ("80", Value(80)),
            ("1.2e2", Value(120)),
            ("null", Absent),
            ("1e400", Unreadable),
            ("\"soon\"", Unreadable),
        ] {
            assert_eq!(with(json, milliseconds), want, "{json}");
        }
    }

    #[test]
    fn flags_are_zero_or_one_and_nothing_else() {
        use Field::{Absent, Unreadable, Value};
        for (json, want) in [
            ("1", Value(true)),
            ("0", Value(false)),
            ("true", Value(true)),
            ("\"false\"", Value(false)),
            ("\"1\"", Value(true)),
            ("1.0", Value(true)),
            ("null", Absent),
            ("\"\"", Absent),
            ("\"tru\\u0065\"", Value(true)),
            ("\"\\u0031\"", Value(true)),
            ("\"0.0\"", Value(false)),
            ("1e0", Value(true)),
            ("2", Unreadable),
            ("0.9", Unreadable),
            ("\"0.5\"", Unreadable),
            ("1e-3", Unreadable),
            ("1e-400", Unreadable),
            ("-1", Unreadable),
            ("\" \"", Unreadable),
            ("[]", Unreadable),
            ("\"yes\"", Unreadable),
        ] {
            assert_eq!(with(json, flag), want, "{json}");
        }
    }

    #[test]
    fn floors_are_never_read_as_less() {
        let read = |json: &str| with(json, price);
        assert_eq!(
            read("0.0000001"),
            Field::Value(Price::from_micros(1).expect("a price"))
        );
        assert_eq!(
            read("\"0.5\""),
            Field::Value(Price::from_micros(500_000).expect("a price"))
        );
        assert_eq!(read("1e999"), Field::Unreadable);
        assert_eq!(read("-1"), Field::Unreadable);
        assert_eq!(read("\" \""), Field::Unreadable);
        assert_eq!(read("\"\""), Field::Absent);
        assert_eq!(
            read("\"0\\u002e5\""),
            Field::Value(Price::from_micros(500_000).expect("a price"))
        );
        assert_eq!(read("-0.0"), Field::Value(Price::ZERO));
    }

    #[test]
    fn a_set_of_fields_holds_each_once() {
        let mut set = FieldSet::default();
        set.insert(FieldName::Wseat);
        set.insert(FieldName::Acat);
        set.insert(FieldName::Wseat);
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [FieldName::Acat, FieldName::Wseat]
        );
    }
}
