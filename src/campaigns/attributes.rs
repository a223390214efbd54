//! The attributes a targeting expression can read: their names, types and where their values come from.
//!
//! One enum and one table, so that the grammar's checks, the evaluator and `docs/targeting.md` cannot disagree. An
//! attribute's number is also its place in the arrays that hold a request's values, and its bit in an expression's
//! `reads` mask; there are under 64.

use super::Format;

/// An attribute, in the order of the table in `docs/targeting.md`.
///
/// The order carries meaning: single strings of the request first, then lists of them, so that each group's values
/// fit an array without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // the names say it; docs/targeting.md tells the rest
pub enum Attribute {
    UserGender,
    Country,
    Region,
    City,
    Metro,
    Zip,
    DeviceType,
    Os,
    OsVersion,
    Browser,
    Language,
    Connection,
    Carrier,
    SiteDomain,
    AppBundle,
    Publisher,
    Exchange,
    RequestSegments,
    UserKeywords,
    Categories,
    Keywords,
    Deals,
    Segments,
    UserAge,
    Hour,
    Weekday,
    Test,
    Format,
    Width,
    Height,
    Position,
    Floor,
    Interstitial,
    Rewarded,
    Secure,
}

/// How many attributes of the request are single strings: the first so many of [`Attribute`].
pub(super) const TEXTS: usize = Attribute::Exchange as usize + 1;
/// How many attributes of the request are lists of strings: the next so many.
pub(super) const LISTS: usize = Attribute::Keywords as usize + 1 - TEXTS;

/// What values an attribute has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// One string.
    Text,
    /// A list of strings.
    Texts,
    /// The list of segments the person is in.
    Segments,
    /// A whole number.
    Integer,
    /// A decimal number: a CPM in the line item's currency.
    Decimal,
    /// True or false.
    Boolean,
}

impl Type {
    /// The type and how one tests it, for a person who tried otherwise.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Text => "a string: use =, <>, in or not in with strings in quotes",
            Self::Texts => {
                "a list of strings: use one of, none of or all of with strings in quotes"
            }
            Self::Segments => {
                "a list of segments: use one of, none of or all of with segments like 'crm/vip'"
            }
            Self::Integer => {
                "a whole number: use =, <>, <, <=, >, >=, in or not in with whole numbers"
            }
            Self::Decimal => "a decimal number: use =, <>, <, <=, > or >= with a number",
            Self::Boolean => "true or false: write it alone, or with `not` before it",
        }
    }
}

const TABLE: [(Attribute, &str, Type); 35] = {
    use Attribute as A;
    use Type::*;
    [
        (A::UserGender, "user_gender", Text),
        (A::Country, "country", Text),
        (A::Region, "region", Text),
        (A::City, "city", Text),
        (A::Metro, "metro", Text),
        (A::Zip, "zip", Text),
        (A::DeviceType, "device_type", Text),
        (A::Os, "os", Text),
        (A::OsVersion, "os_version", Text),
        (A::Browser, "browser", Text),
        (A::Language, "language", Text),
        (A::Connection, "connection", Text),
        (A::Carrier, "carrier", Text),
        (A::SiteDomain, "site_domain", Text),
        (A::AppBundle, "app_bundle", Text),
        (A::Publisher, "publisher", Text),
        (A::Exchange, "exchange", Text),
        (A::RequestSegments, "request_segments", Texts),
        (A::UserKeywords, "user_keywords", Texts),
        (A::Categories, "categories", Texts),
        (A::Keywords, "keywords", Texts),
        (A::Deals, "deals", Texts),
        (A::Segments, "segments", Segments),
        (A::UserAge, "user_age", Integer),
        (A::Hour, "hour", Integer),
        (A::Weekday, "weekday", Integer),
        (A::Test, "test", Boolean),
        (A::Format, "format", Text),
        (A::Width, "width", Integer),
        (A::Height, "height", Integer),
        (A::Position, "position", Integer),
        (A::Floor, "floor", Decimal),
        (A::Interstitial, "interstitial", Boolean),
        (A::Rewarded, "rewarded", Boolean),
        (A::Secure, "secure", Boolean),
    ]
};

impl Attribute {
    /// Every attribute.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// Its name in the language.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// What values it has.
    pub fn kind(self) -> Type {
        TABLE[self as usize].2
    }

    /// The attribute of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Its bit in a mask of attributes.
    pub(super) const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// Attributes that tell of the person: null, all of them, while the privacy gate is closed.
pub(super) const PERSON: u64 = Attribute::Segments.bit()
    | Attribute::RequestSegments.bit()
    | Attribute::UserAge.bit()
    | Attribute::UserGender.bit()
    | Attribute::UserKeywords.bit();

/// The word for an OpenRTB `devicetype` (AdCOM list "Device Types"), which is what `device_type` compares with.
pub fn device_type(code: i64) -> Option<&'static str> {
    let place = usize::try_from(code).ok()?.checked_sub(1)?;
    DEVICE_TYPES.get(place).copied()
}

/// The word for an OpenRTB `connectiontype` (AdCOM list "Connection Types"), which is what `connection` compares
/// with. `None` for 0, unknown.
pub fn connection(code: i64) -> Option<&'static str> {
    let place = usize::try_from(code).ok()?.checked_sub(1)?;
    CONNECTIONS.get(place).copied()
}

/// The words that `browser` compares with: what a user agent's own mark makes it.
pub const BROWSERS: [&str; 9] = [
    "chrome", "edge", "firefox", "ie", "opera", "safari", "samsung", "uc", "yandex",
];

const DEVICE_TYPES: [&str; 8] = [
    "mobile",
    "pc",
    "tv",
    "phone",
    "tablet",
    "connected_device",
    "set_top_box",
    "ooh",
];
const CONNECTIONS: [&str; 7] = ["ethernet", "wifi", "cellular", "2g", "3g", "4g", "5g"];

/// Why a string can never be this attribute's value, if that is so: a typing error that would never match.
pub(super) fn doubt(attribute: Attribute, value: &str) -> Option<String> {
    let one_of = |words: &[&str]| {
        (!words.contains(&value)).then(|| {
            format!(
                "`{}` is never '{value}': it is one of {}",
                attribute.name(),
                words.join(", ")
            )
        })
    };
    match attribute {
        Attribute::Format => one_of(&Format::ALL.map(Format::as_str)),
        Attribute::DeviceType => one_of(&DEVICE_TYPES),
        Attribute::Connection => one_of(&CONNECTIONS),
        Attribute::UserGender => one_of(&["M", "F", "O"]),
        Attribute::Browser => one_of(&BROWSERS),
        // Requests spell these in every way; they are compared in lower case.
        Attribute::Os | Attribute::Language | Attribute::SiteDomain
            if value.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            Some(format!(
                "`{}` is never '{value}': it is compared in lower case, '{}'",
                attribute.name(),
                value.to_ascii_lowercase()
            ))
        }
        Attribute::Country
            if value.len() != 3 || !value.bytes().all(|b| b.is_ascii_uppercase()) =>
        {
            Some(format!(
                "`country` is never '{value}': it is an ISO 3166 code of three capital letters, like 'FRA'"
            ))
        }
        _ => None,
    }
}

/// Why a whole number can never be this attribute's value, if that is so.
pub(super) fn doubt_number(attribute: Attribute, value: i64) -> Option<String> {
    let within = |from: i64, to: i64| {
        (!(from..=to).contains(&value)).then(|| {
            format!(
                "`{}` is never {value}: it goes from {from} to {to}",
                attribute.name()
            )
        })
    };
    match attribute {
        Attribute::Hour => within(0, 23),
        Attribute::Weekday => within(1, 7),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (place, (attribute, name, kind)) in TABLE.iter().enumerate() {
            assert_eq!(*attribute as usize, place);
            assert_eq!(Attribute::by_name(name), Some(*attribute));
            assert_eq!(attribute.kind(), *kind);
            assert_eq!(
                place < TEXTS,
                *kind == Type::Text && *attribute != Attribute::Format
            );
        }
        assert_eq!((TEXTS, LISTS), (17, 4));
    }

    #[test]
    fn codes_have_words() {
        assert_eq!(device_type(4), Some("phone"));
        assert_eq!(connection(2), Some("wifi"));
        for code in [-1, 0, 9, i64::MAX] {
            assert_eq!(device_type(code), None);
        }
        assert_eq!(connection(8), None);
    }
}
