//! Money in integers. A [`Price`] is a CPM (price of a thousand impressions) in micros of its currency; one
//! impression at that price costs the same number of nano units, which is what the ledger counts.
//!
//! Decimal text is read and written exactly; floats exist only on the wire. Where a conversion cannot be exact,
//! the caller says which way to round: a floor up, a bid down, so that rounding never bids under a floor or over a price.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Micros in one unit of currency.
pub const MICROS: i64 = 1_000_000;
/// Largest price taken from anywhere: a CPM of a million. More is a mistake, not an offer.
pub const PRICE_MICROS_MAX: i64 = 1_000_000 * MICROS;

/// A CPM in micros, 0 to [`PRICE_MICROS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Price {
    micros: i64,
}

/// Which way an inexact amount goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// To the next micro up: floors.
    Up,
    /// To the next micro down: bids.
    Down,
}

impl Price {
    /// Nothing.
    pub const ZERO: Self = Self { micros: 0 };

    /// A price of so many micros, if that is from 0 to [`PRICE_MICROS_MAX`].
    pub fn from_micros(micros: i64) -> Option<Self> {
        (0..=PRICE_MICROS_MAX)
            .contains(&micros)
            .then_some(Self { micros })
    }

    /// The price in micros.
    pub const fn micros(self) -> i64 {
        self.micros
    }

    /// So many times the price; `None` where that is over [`PRICE_MICROS_MAX`].
    pub fn times(self, count: u32) -> Option<Self> {
        Self::from_micros(self.micros.checked_mul(i64::from(count))?)
    }

    /// As a float in whole units, for the `floor` attribute of targeting only.
    pub fn as_f64(self) -> f64 {
        self.micros as f64 / MICROS as f64
    }

    /// Reads a JSON number or the same text in a string: `4.20`, `0.5`, `1e-2`. `None` for what is no number, is
    /// negative, or is over [`PRICE_MICROS_MAX`].
    pub fn parse(text: &str, round: Round) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() || (mantissa.contains('.') && fraction.is_empty()) {
            return None;
        }
        let digits = || whole.bytes().chain(fraction.bytes());
        if !digits().all(|b| b.is_ascii_digit()) {
            return None;
        }
        // value = digits × 10^(exponent − fraction length); micros = value × 10^6.
        let fraction_digits = i32::try_from(fraction.len()).ok()?;
        let shift = exponent.checked_sub(fraction_digits)?.checked_add(6)?;
        let mut micros: i64 = 0;
        let mut inexact = false;
        let mut place = i32::try_from(whole.len() + fraction.len())
            .ok()?
            .checked_add(shift)?;
        for digit in digits() {
            place -= 1;
            if place < 0 {
                inexact |= digit != b'0';
                continue;
            }
            micros = micros
                .checked_mul(10)?
                .checked_add(i64::from(digit - b'0'))?;
            if micros > PRICE_MICROS_MAX {
                return None;
            }
        }
        while place > 0 && micros != 0 {
            micros = micros.checked_mul(10)?;
            place -= 1;
            if micros > PRICE_MICROS_MAX {
                return None;
            }
        }
        if inexact && round == Round::Up {
            micros += 1;
        }
        if negative && (micros != 0 || inexact) {
            return None;
        }
        Self::from_micros(micros)
    }
}

/// Digits of the largest price, the point, and six digits behind it.
const PRICE_BYTES_MAX: usize = 20;

impl Price {
    /// Appends the shortest decimal that reads back as the same micros: `4.2`, `0.000001`, `7`.
    pub fn write(self, out: &mut Vec<u8>) {
        self.with_text(|text| out.extend_from_slice(text));
    }

    fn with_text<T>(self, then: impl FnOnce(&[u8]) -> T) -> T {
        let mut text = [0; PRICE_BYTES_MAX];
        let mut start = text.len();
        let mut put = |byte| {
            start -= 1;
            text[start] = byte;
        };
        let mut left = self.micros.unsigned_abs();
        let mut is_fraction = false;
        for _ in 0..6 {
            let digit = (left % 10) as u8;
            left /= 10;
            is_fraction |= digit != 0;
            if is_fraction {
                put(b'0' + digit);
            }
        }
        if is_fraction {
            put(b'.');
        }
        loop {
            put(b'0' + (left % 10) as u8);
            left /= 10;
            if left == 0 {
                break;
            }
        }
        then(&text[start..])
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(str::from_utf8(text).unwrap_or_default()))
    }
}

/// An amount in nano units of a currency, to be shown as a decimal: `0.005`, `12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nanos(pub i64);

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, nano) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let (units, rest) = (nano / 1_000_000_000, nano % 1_000_000_000);
        let text = format!("{sign}{units}.{rest:09}");
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// How many impressions one showing counts for, as a screen out of home has many viewers: in millionths, over 0 and up to a
/// million. A price is of one impression, so that what is spent is the price times this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Multiplier {
    millionths: i64,
}

impl Multiplier {
    /// One showing, one impression.
    pub const ONE: Self = Self { millionths: MICROS };

    /// So many millionths, if that is over 0 and up to a million.
    pub fn from_millionths(millionths: i64) -> Option<Self> {
        (1..=PRICE_MICROS_MAX)
            .contains(&millionths)
            .then_some(Self { millionths })
    }

    /// What so many impressions at a price cost, in nano units, rounded up; `None` where that is beyond all budgets.
    pub fn nanos_of(self, price: Price) -> Option<i64> {
        if self == Self::ONE {
            return Some(price.micros);
        }
        let product = i128::from(price.micros) * i128::from(self.millionths);
        i64::try_from((product + i128::from(MICROS - 1)) / i128::from(MICROS)).ok()
    }

    /// The multiplier in millionths.
    pub const fn millionths(self) -> i64 {
        self.millionths
    }
}

/// An ISO 4217 code: three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// US dollars, OpenRTB's default.
    pub const USD: Self = Self(*b"USD");
    /// Before every other in their order.
    pub const LEAST: Self = Self(*b"AAA");

    /// The code as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }
}

impl FromStr for Currency {
    type Err = CurrencyRefused;

    /// Three ASCII letters; lower case is taken as upper, as exchanges send both.
    fn from_str(text: &str) -> Result<Self, CurrencyRefused> {
        let code: [u8; 3] = text
            .trim()
            .as_bytes()
            .try_into()
            .map_err(|_| CurrencyRefused)?;
        if code.iter().all(u8::is_ascii_alphabetic) {
            Ok(Self(code.map(|b| b.to_ascii_uppercase())))
        } else {
            Err(CurrencyRefused)
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse()
            .map_err(|e| serde::de::Error::custom(format!("`{text}`: {e}")))
    }
}

/// The text is not a currency code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a currency is an ISO 4217 code of three letters, like EUR")]
pub struct CurrencyRefused;

/// Exchange rates against one base: how many units of a currency one unit of the base buys.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    base: Currency,
    /// Rate in billionths.
    per_base: BTreeMap<Currency, u64>,
}

const RATE_UNIT: f64 = 1e9;

impl Rates {
    /// Rates against `base`; each must be a finite number over 0 and under a billion.
    pub fn new(
        base: Currency,
        rates: impl IntoIterator<Item = (Currency, f64)>,
    ) -> Result<Self, RateRefused> {
        let mut per_base = BTreeMap::new();
        for (currency, rate) in rates {
            let billionths = rate * RATE_UNIT;
            if !(1.0..=1e18).contains(&billionths) {
                return Err(RateRefused { currency });
            }
            per_base.insert(currency, billionths.round() as u64);
        }
        per_base.insert(base, RATE_UNIT as u64);
        Ok(Self { base, per_base })
    }

    /// No rate but a currency to itself.
    pub fn none(base: Currency) -> Self {
        Self {
            base,
            per_base: BTreeMap::from([(base, RATE_UNIT as u64)]),
        }
    }

    /// The currency the rates are against.
    pub fn base(&self) -> Currency {
        self.base
    }

    /// All currencies that have a rate, the base among them.
    pub fn currencies(&self) -> impl Iterator<Item = Currency> {
        self.per_base.keys().copied()
    }

    /// Whether a price in `currency` can be converted at all.
    pub fn knows(&self, currency: Currency) -> bool {
        self.per_base.contains_key(&currency)
    }

    /// The price in another currency, or nothing where a rate is missing or the amount is out of bounds.
    pub fn convert(
        &self,
        price: Price,
        from: Currency,
        to: Currency,
        round: Round,
    ) -> Option<Price> {
        if from == to {
            return Some(price);
        }
        Price::from_micros(self.scaled(price.micros, from, to, round)?)
    }

    /// An amount in another currency, in the units that it is in, rounded up.
    pub fn convert_amount(&self, amount: i64, from: Currency, to: Currency) -> Option<i64> {
        match from == to {
            true => Some(amount),
            false => self.scaled(amount, from, to, Round::Up),
        }
    }

    fn scaled(&self, amount: i64, from: Currency, to: Currency, round: Round) -> Option<i64> {
        let from = i128::from(*self.per_base.get(&from)?);
        let to = i128::from(*self.per_base.get(&to)?);
        let scaled = i128::from(amount).checked_mul(to)?;
        let amount = match round {
            Round::Down => scaled / from,
            Round::Up => (scaled + from - 1) / from,
        };
        i64::try_from(amount).ok()
    }
}

/// A rate is no positive number.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the rate of {currency} is not a number over 0")]
pub struct RateRefused {
    /// Whose rate.
    pub currency: Currency,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn micros(text: &str, round: Round) -> Option<i64> {
        Price::parse(text, round).map(Price::micros)
    }

    #[test]
    fn decimal_text_is_exact() {
        for (text, want) in [
            ("4.20", 4_200_000),
            ("0.1", 100_000),
            ("7", 7_000_000),
            ("0.000001", 1),
            ("1e-2", 10_000),
            ("1.5E2", 150_000_000),
            ("-0", 0),
            ("-0.0", 0),
            ("0e999", 0),
            ("1000000", PRICE_MICROS_MAX),
        ] {
            assert_eq!(micros(text, Round::Down), Some(want), "{text}");
        }
        let zeros = format!("0.{}", "0".repeat(400));
        assert_eq!(micros(&zeros, Round::Up), Some(0));
    }

    #[test]
    fn rounding_goes_the_way_asked() {
        assert_eq!(micros("0.0000014", Round::Up), Some(2));
        assert_eq!(micros("0.0000014", Round::Down), Some(1));
        assert_eq!(micros("1e-400", Round::Up), Some(1));
        assert_eq!(micros("1e-400", Round::Down), Some(0));
    }

    #[test]
    fn what_is_no_price_is_none() {
        for text in [
            "",
            "-",
            ".5",
            "5.",
            "-1",
            "-0.0000001",
            "1e999",
            "1000000.1",
            "NaN",
            "inf",
            "1e",
            "0x1",
            "1e99999999999",
            "１",
        ] {
            assert_eq!(micros(text, Round::Up), None, "{text}");
        }
    }

    #[test]
    fn a_showing_of_many_impressions_costs_as_many() {
        let price = Price::from_micros(4_200_001).expect("a price");
        assert_eq!(Multiplier::ONE.nanos_of(price), Some(4_200_001));
        let half = Multiplier::from_millionths(500_000).expect("one");
        assert_eq!(half.nanos_of(price), Some(2_100_001), "rounded up");
        let most = Multiplier::from_millionths(PRICE_MICROS_MAX).expect("one");
        let dear = Price::from_micros(PRICE_MICROS_MAX).expect("a price");
        assert_eq!(most.nanos_of(dear), Some(1_000_000_000_000_000_000));
    }

    #[test]
    fn nano_units_read_as_decimals() {
        for (nano, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (5_000_000, "0.005"),
            (12_000_000_000, "12"),
            (-1_500_000_000, "-1.5"),
            (i64::MIN, "-9223372036.854775808"),
        ] {
            assert_eq!(Nanos(nano).to_string(), text);
        }
    }

    #[test]
    fn rates_convert_both_ways_and_know_their_limits() {
        let eur = "eur".parse().expect("a code");
        let rates = Rates::new(Currency::USD, [(eur, 0.8)]).expect("good rates");
        let price = |text| Price::parse(text, Round::Down).expect("a price");
        assert_eq!(
            rates.convert(price("1"), Currency::USD, eur, Round::Down),
            Some(price("0.8"))
        );
        assert_eq!(
            rates.convert(price("1"), eur, Currency::USD, Round::Up),
            Some(price("1.25"))
        );
        let gbp = "GBP".parse().expect("a code");
        assert_eq!(rates.convert(price("1"), gbp, eur, Round::Up), None);
        assert_eq!(
            rates.convert(price("1"), gbp, gbp, Round::Up),
            Some(price("1"))
        );
        assert!(Rates::new(Currency::USD, [(eur, f64::NAN)]).is_err());
        assert!(Rates::new(Currency::USD, [(eur, -1.0)]).is_err());
    }

    proptest! {
        #[test]
        fn a_printed_price_reads_back_the_same(micros in 0..=PRICE_MICROS_MAX) {
            let price = Price::from_micros(micros).expect("in bounds");
            prop_assert_eq!(Price::parse(&price.to_string(), Round::Down), Some(price));
            let float: f64 = price.to_string().parse().expect("a float");
            prop_assert_eq!((float * 1e6).round() as i64, micros);
        }

        #[test]
        fn parsing_never_panics(text in "[-+0-9.eE]{0,40}") {
            let down = micros(&text, Round::Down);
            let up = micros(&text, Round::Up);
            if let (Some(down), Some(up)) = (down, up) {
                prop_assert!(up == down || up == down + 1);
            }
        }

        #[test]
        fn a_round_trip_never_gains(micros in 0i64..1_000_000_000, rate in 0.001f64..1000.0) {
            let eur = "EUR".parse().expect("a code");
            let rates = Rates::new(Currency::USD, [(eur, rate)]).expect("good rates");
            let price = Price::from_micros(micros).expect("in bounds");
            let there = rates.convert(price, Currency::USD, eur, Round::Down);
            let back = there.and_then(|there| rates.convert(there, eur, Currency::USD, Round::Down));
            prop_assert!(back.is_none_or(|back| back <= price));
        }
    }
}
