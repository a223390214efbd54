//! The price in a notice: as a number, or encrypted as Google's Authorized Buyers and OpenX send it.
//!
//! The scheme ("Decrypt price confirmations", Authorized Buyers): base64 of an initialisation vector (16 bytes), the price XORed
//! with a pad (8 bytes), and a signature (4 bytes). The pad is HMAC-SHA1 of the vector under the encryption key; the signature
//! is the first four bytes of HMAC-SHA1 of price and vector under the integrity key. The price is the CPM in micros.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use subtle::ConstantTimeEq as _;

use crate::money::{Currency, PRICE_MICROS_MAX, Price, Round};

const VECTOR_BYTES: usize = 16;
const PRICE_BYTES: usize = 8;
const SIGNATURE_BYTES: usize = 4;
const SEALED_BYTES: usize = VECTOR_BYTES + PRICE_BYTES + SIGNATURE_BYTES;
/// Longest text that is looked at.
const TEXT_BYTES_MAX: usize = 256;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const WEB_SAFE: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);
const CLASSIC: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);

/// A pair of keys that an exchange encrypts prices with.
#[derive(Clone, PartialEq, Eq)]
pub struct PriceKey {
    /// What the price is encrypted with.
    pub encryption: Box<[u8]>,
    /// What it is signed with.
    pub integrity: Box<[u8]>,
}

impl fmt::Debug for PriceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PriceKey(..)")
    }
}

impl PriceKey {
    /// Reads a key as a file has it: 32 bytes as hexadecimal digits or base64.
    pub fn read(text: &str) -> Option<Box<[u8]>> {
        let text = text.trim();
        let digits = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bytes = match digits {
            true => {
                let pairs = text.as_bytes().chunks(2).map(|pair| {
                    let pair = std::str::from_utf8(pair).ok()?;
                    u8::from_str_radix(pair, 16).ok()
                });
                pairs.collect::<Option<Vec<u8>>>()?
            }
            false => WEB_SAFE
                .decode(text)
                .or_else(|_| CLASSIC.decode(text))
                .ok()?,
        };
        (bytes.len() == 32).then(|| bytes.into())
    }

    /// The price in micros; nothing where the signature is another.
    fn open(&self, sealed: &[u8; SEALED_BYTES]) -> Option<u64> {
        let (vector, rest) = sealed.split_at(VECTOR_BYTES);
        let (hidden, signature) = rest.split_at(PRICE_BYTES);
        let pad = signed(&self.encryption, &[vector])?;
        let mut price = [0; PRICE_BYTES];
        for (byte, (hidden, pad)) in price.iter_mut().zip(hidden.iter().zip(pad)) {
            *byte = hidden ^ pad;
        }
        let own = signed(&self.integrity, &[&price, vector])?;
        let is_ours = bool::from(own.get(..SIGNATURE_BYTES)?.ct_eq(signature));
        is_ours.then_some(u64::from_be_bytes(price))
    }
}

fn signed(key: &[u8], parts: &[&[u8]]) -> Option<[u8; 20]> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).ok()?;
    parts.iter().for_each(|part| mac.update(part));
    Some(mac.finalize().into_bytes().into())
}

/// Why a price cannot be read; the bid's is booked then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unreadable {
    /// There is none, or nothing.
    Absent,
    /// The exchange left the macro as it was.
    Literal,
    /// The exchange audits its own calls (`AUDIT`).
    Audit,
    /// Neither a number nor encrypted.
    Nonsense,
    /// Under 0, or beyond all prices.
    OutOfBounds,
    /// It may be encrypted, and the exchange has no `price_keys`.
    NoKey,
    /// It is encrypted with other keys, or was changed.
    Forged,
    /// A number that anybody can write, where the exchange has `price_keys`.
    Plain,
    /// Of a currency that is none.
    Currency,
}

impl Unreadable {
    /// All of them, each at its own number.
    pub const ALL: [Self; 9] = [
        Self::Absent,
        Self::Literal,
        Self::Audit,
        Self::Nonsense,
        Self::OutOfBounds,
        Self::NoKey,
        Self::Forged,
        Self::Plain,
        Self::Currency,
    ];

    /// Its word in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Literal => "literal",
            Self::Audit => "audit",
            Self::Nonsense => "nonsense",
            Self::OutOfBounds => "out_of_bounds",
            Self::NoKey => "no_key",
            Self::Forged => "forged",
            Self::Plain => "plain",
            Self::Currency => "currency",
        }
    }
}

/// Whether the exchange left a macro as it was.
fn is_macro(text: &str) -> bool {
    ["${", "%%", "{{"].iter().any(|mark| text.contains(mark))
}

/// Reads the currency of a notice's price. Where none is said, or the macro was left as it was, the price is in the bid's.
pub fn read_currency(text: &str) -> Result<Option<Currency>, Unreadable> {
    let text = text.trim();
    if text.is_empty() || is_macro(text) {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Unreadable::Currency)
}

/// Reads the price of a notice: a CPM. Where there are keys it must be encrypted: what is signed, nobody on the way can make less.
pub fn read(text: Option<&str>, keys: &[PriceKey]) -> Result<Price, Unreadable> {
    let text = text.unwrap_or("").trim();
    if text.is_empty() {
        return Err(Unreadable::Absent);
    }
    if is_macro(text) {
        return Err(Unreadable::Literal);
    }
    if text.eq_ignore_ascii_case("audit") {
        return Err(Unreadable::Audit);
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(Unreadable::Nonsense);
    }
    if let Some(price) = Price::parse(text, Round::Up) {
        return keys.is_empty().then_some(price).ok_or(Unreadable::Plain);
    }
    if text.parse::<f64>().is_ok_and(f64::is_finite) {
        return Err(Unreadable::OutOfBounds);
    }
    let sealed = WEB_SAFE.decode(text).or_else(|_| CLASSIC.decode(text));
    let sealed: [u8; SEALED_BYTES] = sealed
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(Unreadable::Nonsense)?;
    if keys.is_empty() {
        return Err(Unreadable::NoKey);
    }
    let micros = keys.iter().find_map(|key| key.open(&sealed));
    let micros = micros.ok_or(Unreadable::Forged)?;
    let micros = i64::try_from(micros)
        .ok()
        .filter(|micros| *micros <= PRICE_MICROS_MAX);
    micros
        .and_then(Price::from_micros)
        .ok_or(Unreadable::OutOfBounds)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u8) -> PriceKey {
        PriceKey {
            encryption: Box::new([n; 32]),
            integrity: Box::new([n ^ 0xff; 32]),
        }
    }

    /// As an exchange seals a price.
    fn sealed(key: &PriceKey, micros: u64, vector: [u8; 16]) -> Vec<u8> {
        let pad = signed(&key.encryption, &[&vector]).expect("a key");
        let price = micros.to_be_bytes();
        let hidden: Vec<u8> = price
            .iter()
            .zip(pad)
            .map(|(byte, pad)| byte ^ pad)
            .collect();
        let signature = signed(&key.integrity, &[&price, &vector]).expect("a key");
        [&vector[..], &hidden, &signature[..4]].concat()
    }

    #[test]
    fn numbers_are_read_and_the_rest_is_told_apart() {
        for (text, want) in [
            ("4.2", Ok(4_200_000)),
            (" 0 ", Ok(0)),
            ("1e0", Ok(1_000_000)),
            ("0.0000001", Ok(1)),
            ("", Err(Unreadable::Absent)),
            ("${AUCTION_PRICE}", Err(Unreadable::Literal)),
            ("%%WINNING_PRICE%%", Err(Unreadable::Literal)),
            ("{{PRICE}}", Err(Unreadable::Literal)),
            ("AUDIT", Err(Unreadable::Audit)),
            ("Audit", Err(Unreadable::Audit)),
            ("-1", Err(Unreadable::OutOfBounds)),
            ("1e12", Err(Unreadable::OutOfBounds)),
            ("four", Err(Unreadable::Nonsense)),
            ("NaN", Err(Unreadable::Nonsense)),
        ] {
            let price = read(Some(text), &[]).map(Price::micros);
            assert_eq!(price, want, "{text:?}");
            // Where prices are encrypted nobody is believed who did not.
            let with_keys = want.and(Err(Unreadable::Plain));
            assert_eq!(read(Some(text), &[key(1)]), with_keys, "{text:?}");
        }
        assert_eq!(read(None, &[]), Err(Unreadable::Absent));
        assert_eq!(read(None, &[key(1)]), Err(Unreadable::Absent));
    }

    #[test]
    fn a_currency_that_is_none_is_not_taken_for_the_bids() {
        let euro: Currency = "EUR".parse().expect("a code");
        for (text, want) in [
            ("EUR", Ok(Some(euro))),
            (" eur ", Ok(Some(euro))),
            ("", Ok(None)),
            ("  ", Ok(None)),
            ("${AUCTION_CURRENCY}", Ok(None)),
            ("%%CURRENCY%%", Ok(None)),
            ("JPYY", Err(Unreadable::Currency)),
            ("$", Err(Unreadable::Currency)),
            ("392", Err(Unreadable::Currency)),
            ("¥", Err(Unreadable::Currency)),
        ] {
            assert_eq!(read_currency(text), want, "{text:?}");
        }
    }

    #[test]
    fn an_encrypted_price_is_opened_by_any_of_the_keys_and_a_changed_one_by_none() {
        let bytes = sealed(&key(2), 1_230_000, *b"0123456789abcdef");
        for text in [WEB_SAFE.encode(&bytes), CLASSIC.encode(&bytes)] {
            for text in [text.as_str(), text.trim_end_matches('=')] {
                let price = read(Some(text), &[key(1), key(2)]).map(Price::micros);
                assert_eq!(price, Ok(1_230_000));
                assert_eq!(read(Some(text), &[key(1)]), Err(Unreadable::Forged));
                assert_eq!(read(Some(text), &[]), Err(Unreadable::NoKey));
            }
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let text = WEB_SAFE.encode(&bytes);
            assert_eq!(
                read(Some(&text), &[key(2)]),
                Err(Unreadable::Forged),
                "bit {bit}"
            );
        }
        let huge = WEB_SAFE.encode(sealed(&key(2), u64::MAX, [0; 16]));
        assert_eq!(read(Some(&huge), &[key(2)]), Err(Unreadable::OutOfBounds));
    }

    /// The vectors of other implementations, where they are.
    #[test]
    fn other_implementations_prices_are_read() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../shared/corpus/price_vectors.jsonl"
        );
        let Ok(text) = std::fs::read_to_string(path) else {
            return;
        };
        let mut opened = 0;
        for line in text.lines() {
            let vector: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let part = |name: &str| vector[name].as_str().unwrap_or_default();
            let from_hex = |name: &str| -> Box<[u8]> {
                let digits = part(name).as_bytes().chunks(2);
                let byte =
                    |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16);
                digits.map(|pair| byte(pair).expect("a digit")).collect()
            };
            let key = PriceKey {
                encryption: from_hex("encryption_key_hex"),
                integrity: from_hex("integrity_key_hex"),
            };
            let price = read(Some(part("ciphertext")), &[key]).map(Price::micros);
            match vector["price_int64"].as_i64() {
                Some(want) => {
                    assert_eq!(price, Ok(want), "{line}");
                    opened += 1;
                }
                None => assert!(price.is_err(), "{line}: {price:?}"),
            }
        }
        assert!(opened > 0);
    }

    #[test]
    fn keys_are_read_from_either_spelling() {
        let bytes: Vec<u8> = (0..32).collect();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [
            hex,
            WEB_SAFE.encode(&bytes),
            format!("{}\n", CLASSIC.encode(&bytes)),
        ] {
            assert_eq!(
                PriceKey::read(&text).as_deref(),
                Some(bytes.as_slice()),
                "{text}"
            );
        }
        assert_eq!(PriceKey::read("abc"), None);
        assert_eq!(PriceKey::read(&"00".repeat(31)), None);
    }

    proptest! {
        #[test]
        fn any_price_comes_back(micros in 0u64..=PRICE_MICROS_MAX as u64, vector in any::<[u8; 16]>()) {
            let text = WEB_SAFE.encode(sealed(&key(3), micros, vector));
            let read = read(Some(&text), &[key(3)]).map(|price| price.micros() as u64);
            prop_assert_eq!(read, Ok(micros));
        }

        #[test]
        fn nonsense_is_no_panic(text in "\\PC{0,300}") {
            let _ = read(Some(&text), &[key(3)]);
        }
    }
}
