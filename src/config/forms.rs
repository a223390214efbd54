//! The forms that values take: what is accepted, in the words in which the README and every complaint say it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::sheet::nearest;
use super::tree::{Node, Origin, Value};
use crate::audience::FalsePositiveRate;
use crate::ids::{Name, parse_hex};
use crate::money::Currency;

/// A way of reading a value, and the words for it.
pub(super) struct Form<T> {
    /// What it takes, to be read after "is not": `an address like 127.0.0.1:8080`.
    pub(super) takes: String,
    read: Box<Read<T>>,
}

type Read<T> = dyn Fn(&Node) -> Result<T, Wrong>;

/// A value that is not of its form: where, and the whole complaint.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) origin: Origin,
    pub(super) text: String,
}

impl<T: 'static> Form<T> {
    /// A form by a function that says nothing for a value it does not take.
    fn new(takes: impl Into<String>, read: impl Fn(&Node) -> Option<T> + 'static) -> Self {
        let takes = takes.into();
        let wanted = takes.clone();
        Self {
            takes,
            read: Box::new(move |node| {
                read(node).ok_or_else(|| wrong(node, format!("{node} is not {wanted}")))
            }),
        }
    }

    pub(super) fn read(&self, node: &Node) -> Result<T, Wrong> {
        (self.read)(node)
    }

    /// The same, and `""` for none.
    pub(super) fn or_none(self) -> Form<Option<T>> {
        Form {
            takes: format!("{}, or \"\" for none", self.takes),
            read: Box::new(move |node| match node.text() {
                Some("") => Ok(None),
                _ => (self.read)(node).map(Some),
            }),
        }
    }

    /// The same, as something else.
    pub(super) fn map<U: 'static>(self, into: impl Fn(T) -> U + 'static) -> Form<U> {
        self.checked(move |value| Ok(into(value)))
    }

    /// The same, where `check` lets it through; its error is the whole complaint.
    pub(super) fn checked<U: 'static>(
        self,
        check: impl Fn(T) -> Result<U, String> + 'static,
    ) -> Form<U> {
        Form {
            takes: self.takes,
            read: Box::new(move |node| {
                let value = (self.read)(node)?;
                check(value).map_err(|text| wrong(node, text))
            }),
        }
    }

    /// The same, and `stand_in` where the value is the text `word`.
    pub(super) fn or_word(self, word: &'static str, stand_in: fn() -> T) -> Self {
        Self {
            takes: format!("{word:?} or {}", self.takes),
            read: Box::new(move |node| match node.text() {
                Some(text) if text == word => Ok(stand_in()),
                _ => (self.read)(node),
            }),
        }
    }

    /// A list of such values.
    pub(super) fn list(self, many: &str) -> Form<Vec<T>> {
        let takes = format!("a list of {many}");
        let wanted = takes.clone();
        Form {
            takes,
            read: Box::new(move |node| match &node.value {
                Value::List(items) => items.iter().map(|item| (self.read)(item)).collect(),
                _ => Err(wrong(node, format!("{node} is not {wanted}"))),
            }),
        }
    }
}

fn wrong(node: &Node, text: String) -> Wrong {
    Wrong {
        origin: node.origin.clone(),
        text,
    }
}

/// A socket address.
pub(super) fn address() -> Form<SocketAddr> {
    Form::new("an address like 127.0.0.1:8080", |node| {
        node.text()?.parse().ok()
    })
}

/// A whole number from `min` to `max`.
pub(super) fn whole<T: TryFrom<i64> + 'static>(min: i64, max: i64) -> Form<T> {
    Form::new(
        format!("a whole number from {min} to {max}"),
        move |node| match node.value {
            Value::Whole(number) if (min..=max).contains(&number) => T::try_from(number).ok(),
            _ => None,
        },
    )
}

/// `true` or `false`.
pub(super) fn switch() -> Form<bool> {
    Form::new("true or false", |node| match node.value {
        Value::Switch(on) => Some(on),
        _ => None,
    })
}

/// A share from 0 to 1.
pub(super) fn share() -> Form<f64> {
    Form::new("a share from 0 to 1, like 0.01", |node| {
        let share = match node.value {
            Value::Decimal(number) => number,
            Value::Whole(0) => 0.0,
            Value::Whole(1) => 1.0,
            _ => return None,
        };
        (0.0..=1.0).contains(&share).then_some(share)
    })
}

/// By how many times something may grow beyond what it was.
pub(super) fn times() -> Form<f64> {
    Form::new("a number from 0 to 1000, 1 being as much again", |node| {
        let times = match node.value {
            Value::Decimal(number) => number,
            Value::Whole(number) => number as f64,
            _ => return None,
        };
        (0.0..=1000.0).contains(&times).then_some(times)
    })
}

/// The share of ids that a filter may wrongly have.
pub(super) fn false_positive_rate() -> Form<FalsePositiveRate> {
    let (least, most) = (FalsePositiveRate::MIN, FalsePositiveRate::MAX);
    let takes = format!(
        "a share from {} to {}, like 0.01",
        least.share(),
        most.share()
    );
    Form::new(takes, |node| match node.value {
        Value::Decimal(number) => FalsePositiveRate::of_share(number),
        _ => None,
    })
}

const SIZE_UNITS: [(&str, u64); 4] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A size in bytes, as a number or as text with a unit.
pub(super) fn size(min: u64, max: u64) -> Form<u64> {
    let takes = format!(
        "a size from {} to {}, in bytes or like \"16 MiB\"",
        shown_size(min),
        shown_size(max)
    );
    Form::new(takes, move |node| {
        let bytes = match &node.value {
            Value::Whole(bytes) => u64::try_from(*bytes).ok()?,
            _ => split_unit(node.text()?, &SIZE_UNITS)?,
        };
        (min..=max).contains(&bytes).then_some(bytes)
    })
}

/// A size in bytes that stands in a text, with or without a unit.
pub(crate) fn size_of(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| split_unit(text, &SIZE_UNITS))
}

fn shown_size(bytes: u64) -> String {
    let unit = SIZE_UNITS
        .iter()
        .rev()
        .find(|(_, unit)| bytes.is_multiple_of(*unit));
    match unit {
        Some((name, unit)) if bytes > 0 => format!("{} {name}", bytes / unit),
        _ => format!("{bytes}"),
    }
}

const TIME_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// A length of time with its unit, up to ten years.
pub(super) fn duration() -> Form<Duration> {
    const MS_MAX: u64 = 3_650 * 86_400_000;
    Form::new(
        "a length of time over 0, like \"90s\", \"30m\", \"1h\" or \"7d\"",
        |node| {
            let ms = split_unit(node.text()?, &TIME_UNITS)?;
            (1..=MS_MAX)
                .contains(&ms)
                .then(|| Duration::from_millis(ms))
        },
    )
}

/// A length of time, or 0 for never.
pub(super) fn duration_or_never() -> Form<Option<Duration>> {
    let lasting = duration();
    Form::new(
        format!("{}, or 0 for never", lasting.takes),
        move |node| match (&node.value, node.text()) {
            (Value::Whole(0), _) | (_, Some("0")) => Some(None),
            _ => lasting.read(node).ok().map(Some),
        },
    )
}

/// `"16 MiB"` or `"1h"` to the smallest unit.
fn split_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let (_, size) = units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit.trim_start()))?;
    number.checked_mul(*size)
}

/// One of a few words.
pub(super) fn word<T: Copy + 'static>(words: &'static [(&'static str, T)]) -> Form<T> {
    let quoted: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    let takes = format!("one of {}", quoted.join(", "));
    let wanted = takes.clone();
    Form {
        takes,
        read: Box::new(move |node| {
            let given = node.text();
            let known = words.iter().find(|(word, _)| given == Some(word));
            known.map(|(_, value)| *value).ok_or_else(|| {
                let near = given.and_then(|given| nearest(given, words.iter().map(|(w, _)| *w)));
                let hint = near.map(|near| format!("; did you mean {near:?}?"));
                let text = format!("{node} is not {wanted}{}", hint.unwrap_or_default());
                wrong(node, text)
            })
        }),
    }
}

/// SHA-256 in hex. The value is never shown: a person who pastes the secret itself must not find it in a log.
pub(super) fn digest() -> Form<[u8; 32]> {
    const TAKES: &str = "the 64 hex digits of a SHA-256";
    /// SHA-256 of no bytes at all, which an unset shell variable gives.
    const OF_NOTHING: [u8; 32] = [
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52,
        0xb8, 0x55,
    ];
    Form {
        takes: TAKES.to_owned(),
        read: Box::new(|node| match node.text().and_then(parse_hex::<32>) {
            Some(digest) if digest == OF_NOTHING => {
                let text = "the value is the SHA-256 of nothing: the secret was empty";
                Err(wrong(node, text.to_owned()))
            }
            Some(digest) => Ok(digest),
            None => {
                let how = "printf %s \"$SECRET\" | sha256sum";
                let text = format!("the value is not {TAKES}; make them with: {how}");
                Err(wrong(node, text))
            }
        }),
    }
}

/// Networks in CIDR form; a single address is a network of one.
pub(super) fn networks() -> Form<Vec<IpNet>> {
    let one = Form::new(
        "a network like 203.0.113.0/24 or a single address",
        |node| {
            let text = node.text()?.trim();
            let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
            text.parse::<IpNet>().ok().or_else(single)
        },
    );
    one.list("networks like \"203.0.113.0/24\" or single addresses")
}

/// Text of 1 to `max` bytes without control characters.
pub(super) fn text(max: usize) -> Form<String> {
    Form::new(format!("text of 1 to {max} bytes"), move |node| {
        let text = node.text()?;
        let fits = (1..=max).contains(&text.len()) && !text.chars().any(char::is_control);
        fits.then(|| text.to_owned())
    })
}

/// Texts of 1 to `max` bytes, in lower case where they are `folded`.
pub(super) fn texts(max: usize, folded: bool) -> Form<Box<[String]>> {
    let many = format!("texts of 1 to {max} bytes");
    text(max).list(&many).map(move |mut texts| {
        if folded {
            texts
                .iter_mut()
                .for_each(|text| text.make_ascii_lowercase());
        }
        texts.into_boxed_slice()
    })
}

/// What an exchange replaces in a URL. Nothing is let through that would end it.
pub(super) fn price_macro() -> Form<String> {
    Form::new(
        "text of 1 to 64 visible ASCII characters without quotes, \\, < and >",
        |node| {
            let text = node.text()?;
            let safe = |b: u8| b.is_ascii_graphic() && !b"\"'\\<>&#".contains(&b);
            let fits = (1..=64).contains(&text.len()) && text.bytes().all(safe);
            fits.then(|| text.to_owned())
        },
    )
}

/// A path.
pub(super) fn path() -> Form<PathBuf> {
    Form::new("a path", |node| {
        let text = node.text().filter(|text| !text.is_empty())?;
        (!text.contains('\0')).then(|| PathBuf::from(text))
    })
}

/// What URLs begin with. It goes into markup, so nothing is let through that could end an attribute.
pub(super) fn base_url() -> Form<String> {
    Form::new(
        "a URL that begins with http:// or https://, without query or fragment",
        |node| {
            let text = node.text()?;
            let rest = text
                .strip_prefix("https://")
                .or_else(|| text.strip_prefix("http://"))?;
            let safe = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/[]%".contains(&b);
            let host = !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(safe);
            host.then(|| text.trim_end_matches('/').to_owned())
        },
    )
}

/// An ISO 4217 code.
pub(super) fn currency() -> Form<Currency> {
    Form::new("a currency code of three letters, like EUR", |node| {
        node.text()?.parse().ok()
    })
}

/// Purposes of IAB's Transparency and Consent Framework, sorted, each once, at least one.
pub(super) fn purposes() -> Form<Box<[u8]>> {
    let list = whole::<u8>(1, 24).list("TCF purposes from 1 to 24, at least one");
    list.checked(|mut purposes| {
        purposes.sort_unstable();
        purposes.dedup();
        if purposes.is_empty() {
            return Err(
                "name at least one purpose, such as 1 for data that is only read".to_owned(),
            );
        }
        Ok(purposes.into_boxed_slice())
    })
}

/// Countries by ISO 3166-1 alpha-2, upper case.
pub(super) fn countries() -> Form<Box<[[u8; 2]]>> {
    let one = Form::new("a country's two letters, like \"DE\"", |node| {
        let code: [u8; 2] = node.text()?.as_bytes().try_into().ok()?;
        let letters = code.iter().all(u8::is_ascii_alphabetic);
        letters.then(|| code.to_ascii_uppercase().try_into().ok())?
    });
    one.list("countries like \"DE\"").map(Vec::into_boxed_slice)
}

/// A name as of a dataset.
pub(super) fn name() -> Form<Name> {
    Form::new("a name of 1 to 64 of a-z A-Z 0-9 . _ -", |node| {
        node.text()?.parse().ok()
    })
}

/// How many units of each currency one unit of the base buys.
pub(super) fn rates() -> Form<Vec<(Currency, f64)>> {
    const TAKES: &str = "a table like { EUR = 0.92 }";
    Form {
        takes: TAKES.to_owned(),
        read: Box::new(|node| {
            let Value::Table(table) = &node.value else {
                return Err(wrong(node, format!("{node} is not {TAKES}")));
            };
            let mut rates: Vec<(Currency, f64)> = Vec::new();
            for (code, (at, rate)) in &table.entries {
                let at = |text: String| Wrong {
                    origin: at.clone(),
                    text,
                };
                let currency: Currency = code.parse().map_err(|e| at(format!("{code:?}: {e}")))?;
                if rates.iter().any(|(known, _)| *known == currency) {
                    return Err(at(format!("{currency} has two rates")));
                }
                let number = match rate.value {
                    Value::Decimal(number) => number,
                    Value::Whole(number) => number as f64,
                    _ => f64::NAN,
                };
                if !(1e-6..=1e6).contains(&number) {
                    let text =
                        format!("{rate} is not a rate of {currency} from 0.000001 to 1000000");
                    return Err(wrong(rate, text));
                }
                rates.push((currency, number));
            }
            Ok(rates)
        }),
    }
}
