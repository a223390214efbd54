//! Tokens: what a notice's URL carries, sealed.
//!
//! A token holds everything that moves money when its notice comes: who bid, how much, on which accounts, for whom. It is sealed
//! with AES-256-GCM, so that nobody outside can read or change a bit of it, and Kith need not remember open bids one by
//! one. The nonce is the bid's number (start, desk, sequence), which never comes twice under a key; as plain text it
//! would tell competitors how many bids we make, so it is enciphered as one block of AES under a key of its own.
//!
//! Layout before base64url (RFC 4648 §5, no padding): key id (1 byte), enciphered block (16: start u32, desk u16, sequence u48,
//! second of the bid u32), sealed body, tag (16). Key id and block are authenticated with the body.
//!
//! Keys are made anew every day and kept as long as a token of theirs may come. Cost: about 300 ns a token, no allocation.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use aes::Aes256;
use aes::cipher::{BlockDecrypt as _, BlockEncrypt as _, KeyInit as _};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::AeadInPlace as _;
use arrayvec::ArrayVec;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::contacts::Scopes;
use super::frequency::FrequencyKey;
use crate::money::Currency;

/// Most accounts that one bid spends from: day and total of line item, campaign and advertiser.
pub(super) const ACCOUNTS_MAX: usize = 6;
/// Most ids of a person that a bid counts for.
pub(super) const KEYS_MAX: usize = 16;
/// Most segments that a bid's delivery counts in.
pub const SEGMENTS_MAX: usize = 8;
/// Longest body before it is sealed: numbers of at most ten bytes each.
const BODY_BYTES_MAX: usize = 1 + 10 * (12 + ACCOUNTS_MAX + SEGMENTS_MAX) + 8 * KEYS_MAX;
const HEAD_BYTES: usize = 17;
const TAG_BYTES: usize = 16;
const TOKEN_BYTES_MAX: usize = HEAD_BYTES + BODY_BYTES_MAX + TAG_BYTES;
/// Longest token, in characters.
pub const TOKEN_CHARS_MAX: usize = TOKEN_BYTES_MAX.div_ceil(3) * 4;

/// Which bid, of all that this deployment ever made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BidNumber {
    /// Which start of the service.
    pub start: u32,
    /// Which of its desks.
    pub desk: u16,
    /// Which of the desk's bids; under 2^48.
    pub sequence: u64,
}

impl BidNumber {
    /// As one number, by which a hold is known for a while: of bids so far apart that two share one none is open any more.
    pub(super) fn short(self) -> u64 {
        let start = u64::from(self.start) << 52;
        let desk = u64::from(self.desk & 0xfff) << 40;
        (start | desk | self.sequence & 0xff_ffff_ffff).max(1)
    }
}

/// A token as text, in a place that is used again and again.
pub struct TokenText {
    chars: [u8; TOKEN_CHARS_MAX],
    length: usize,
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenText({})", self.length)
    }
}

impl Default for TokenText {
    fn default() -> Self {
        Self {
            chars: [0; TOKEN_CHARS_MAX],
            length: 0,
        }
    }
}

impl TokenText {
    /// The text; empty where there is no token.
    pub fn as_str(&self) -> &str {
        let text = self.chars.get(..self.length);
        text.and_then(|text| str::from_utf8(text).ok())
            .unwrap_or("")
    }

    pub(super) fn clear(&mut self) {
        self.length = 0;
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The bid.
    pub bid: BidNumber,
    /// When it was made, in seconds since 1970.
    pub at: u32,
    /// A test, which books nothing.
    pub test: bool,
    /// Whether impressions of it are counted for frequency caps.
    pub is_capped: bool,
    /// Number of the exchange's name.
    pub exchange: u32,
    /// Numbers of the names of who bid.
    pub scopes: Scopes,
    /// Number of the creative's name.
    pub creative: u32,
    /// What was bid: CPM in micros of `currency`.
    pub price_micros: i64,
    /// The bid's currency.
    pub currency: Currency,
    /// What one impression at that price costs, in nano units of `spends`.
    pub nano: i64,
    /// The currency of the accounts.
    pub spends: Currency,
    /// For how long an impression is remembered, in seconds.
    pub remembered: u32,
    /// The accounts that it is spent from.
    pub accounts: ArrayVec<u32, ACCOUNTS_MAX>,
    /// Under which keys it counts.
    pub keys: ArrayVec<FrequencyKey, KEYS_MAX>,
    /// Numbers of the names of segments that the line item wanted and the person was in.
    pub segments: ArrayVec<u32, SEGMENTS_MAX>,
}

/// A token that is none of ours, or was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token of ours")]
pub struct BadToken;

/// One day's key.
#[derive(Clone)]
pub(super) struct TokenKey {
    pub(super) id: u8,
    pub(super) secret: [u8; 32],
    block: Aes256,
    seal: Box<Aes256Gcm>,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", self.id)
    }
}

impl TokenKey {
    /// Both ciphers' keys are derived from one secret.
    pub(super) fn new(id: u8, secret: [u8; 32]) -> Self {
        let derived = |what: &[u8]| {
            let hash = Sha256::new().chain_update(what).chain_update(secret);
            hash.finalize()
        };
        Self {
            id,
            secret,
            block: Aes256::new(&derived(b"kith token block")),
            seal: Box::new(Aes256Gcm::new(&derived(b"kith token seal"))),
        }
    }

    /// Writes the token as text.
    pub(super) fn seal(&self, token: &Token, text: &mut TokenText) -> Option<()> {
        let nonce = nonce(token.bid);
        let mut block = [0; 16];
        let (first, last) = block.split_at_mut(12);
        first.copy_from_slice(&nonce);
        last.copy_from_slice(&token.at.to_be_bytes());
        let mut block = block.into();
        self.block.encrypt_block(&mut block);
        let mut bytes = ArrayVec::<u8, TOKEN_BYTES_MAX>::new();
        bytes.try_push(self.id).ok()?;
        bytes.try_extend_from_slice(&block).ok()?;
        write_body(token, &mut bytes)?;
        let (head, body) = bytes.split_at_mut_checked(HEAD_BYTES)?;
        let sealed = self
            .seal
            .encrypt_in_place_detached(&nonce.into(), head, body);
        bytes.try_extend_from_slice(&sealed.ok()?).ok()?;
        text.length = URL_SAFE_NO_PAD.encode_slice(&bytes, &mut text.chars).ok()?;
        Some(())
    }

    fn open(&self, bytes: &mut [u8]) -> Result<Token, BadToken> {
        let (head, rest) = bytes.split_at_mut_checked(HEAD_BYTES).ok_or(BadToken)?;
        let block: [u8; 16] = head
            .get(1..)
            .and_then(|block| block.try_into().ok())
            .ok_or(BadToken)?;
        let mut block = block.into();
        self.block.decrypt_block(&mut block);
        let (first, last) = block.split_at(12);
        let nonce: [u8; 12] = first.try_into().map_err(|_| BadToken)?;
        let at = u32::from_be_bytes(last.try_into().map_err(|_| BadToken)?);
        let at_tag = rest.len().checked_sub(TAG_BYTES).ok_or(BadToken)?;
        let (body, tag) = rest.split_at_mut_checked(at_tag).ok_or(BadToken)?;
        let tag: [u8; TAG_BYTES] = (&*tag).try_into().map_err(|_| BadToken)?;
        let opened = self
            .seal
            .decrypt_in_place_detached(&nonce.into(), head, body, &tag.into());
        opened.map_err(|_| BadToken)?;
        read_body(body, bid_of(nonce), at).ok_or(BadToken)
    }
}

/// The keys of which a token may come, the newest last.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenKeys(pub(super) Vec<TokenKey>);

impl TokenKeys {
    /// The one to seal with.
    pub(super) fn newest(&self) -> Option<&TokenKey> {
        self.0.last()
    }

    /// Reads a token. Every bit of it is checked.
    pub(super) fn open(&self, text: &str) -> Result<Token, BadToken> {
        let mut bytes = [0; TOKEN_BYTES_MAX];
        let room = text.len() <= TOKEN_CHARS_MAX;
        let read = match room {
            true => URL_SAFE_NO_PAD.decode_slice(text, &mut bytes),
            false => return Err(BadToken),
        };
        let length = read.map_err(|_| BadToken)?;
        let bytes = bytes.get_mut(..length).ok_or(BadToken)?;
        let id = bytes.first().copied().ok_or(BadToken)?;
        let key = self.0.iter().rev().find(|key| key.id == id);
        key.ok_or(BadToken)?.open(bytes)
    }

    /// Whether a token says that it is of a key that is not here.
    pub(super) fn lacks(&self, text: &str) -> bool {
        // Four characters are three whole bytes.
        let id = text.get(..4).and_then(|first| {
            let mut bytes = [0; 3];
            let read = URL_SAFE_NO_PAD.decode_slice(first, &mut bytes);
            read.ok().map(|_| bytes)
        });
        id.is_none_or(|[id, ..]| !self.0.iter().any(|key| key.id == id))
    }
}

/// Twelve bytes that no two bids share.
fn nonce(bid: BidNumber) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (start, rest) = nonce.split_at_mut(4);
    let (desk, sequence) = rest.split_at_mut(2);
    start.copy_from_slice(&bid.start.to_be_bytes());
    desk.copy_from_slice(&bid.desk.to_be_bytes());
    let bytes = bid.sequence.to_be_bytes();
    sequence.copy_from_slice(bytes.last_chunk::<6>().unwrap_or(&[0; 6]));
    nonce
}

fn bid_of(nonce: [u8; 12]) -> BidNumber {
    let [a, b, c, d, e, f, sequence @ ..] = nonce;
    let [g, h, i, j, k, l] = sequence;
    BidNumber {
        start: u32::from_be_bytes([a, b, c, d]),
        desk: u16::from_be_bytes([e, f]),
        sequence: u64::from_be_bytes([0, 0, g, h, i, j, k, l]),
    }
}

const TEST: u8 = 1;
const CAPPED: u8 = 2;
const SEGMENTS: u8 = 4;

fn write_body(token: &Token, out: &mut ArrayVec<u8, TOKEN_BYTES_MAX>) -> Option<()> {
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let has_segments = !token.segments.is_empty();
    let flags =
        flag(token.test, TEST) | flag(token.is_capped, CAPPED) | flag(has_segments, SEGMENTS);
    out.try_push(flags).ok()?;
    let mut number = |mut value: u64| {
        while value > 0x7f {
            out.try_push((value & 0x7f) as u8 | 0x80).ok()?;
            value >>= 7;
        }
        out.try_push(value as u8).ok()
    };
    for value in [
        token.exchange.into(),
        token.scopes.line_item.into(),
        token.scopes.campaign.into(),
        token.scopes.advertiser.into(),
        token.creative.into(),
        u64::try_from(token.price_micros).ok()?,
        currency_number(token.currency),
        u64::try_from(token.nano).ok()?,
        currency_number(token.spends),
        token.remembered.into(),
        // At most 6 and 16.
        (token.accounts.len() as u64) << 5 | token.keys.len() as u64,
    ] {
        number(value)?;
    }
    for account in &token.accounts {
        number((*account).into())?;
    }
    if has_segments {
        number(token.segments.len() as u64)?;
    }
    for segment in &token.segments {
        number((*segment).into())?;
    }
    for key in &token.keys {
        out.try_extend_from_slice(&key.to_le_bytes()).ok()?;
    }
    Some(())
}

fn read_body(body: &[u8], bid: BidNumber, at: u32) -> Option<Token> {
    let (flags, mut rest) = body.split_first()?;
    let mut number = || {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let (byte, after) = rest.split_first()?;
            rest = after;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    };
    let exchange = number()?.try_into().ok()?;
    let scopes = Scopes {
        line_item: number()?.try_into().ok()?,
        campaign: number()?.try_into().ok()?,
        advertiser: number()?.try_into().ok()?,
    };
    let creative = number()?.try_into().ok()?;
    let price_micros = number()?.try_into().ok()?;
    let currency = currency_of(number()?)?;
    let nano = number()?.try_into().ok()?;
    let spends = currency_of(number()?)?;
    let remembered = number()?.try_into().ok()?;
    let counts = number()?;
    let mut accounts = ArrayVec::new();
    for _ in 0..counts >> 5 {
        accounts.try_push(number()?.try_into().ok()?).ok()?;
    }
    let mut segments = ArrayVec::new();
    if flags & SEGMENTS != 0 {
        for _ in 0..number()? {
            segments.try_push(number()?.try_into().ok()?).ok()?;
        }
    }
    let mut keys = ArrayVec::new();
    let (chunks, tail) = rest.as_chunks::<8>();
    if chunks.len() as u64 != counts & 31 || !tail.is_empty() {
        return None;
    }
    for key in chunks {
        keys.try_push(u64::from_le_bytes(*key)).ok()?;
    }
    Some(Token {
        bid,
        at,
        test: flags & TEST != 0,
        is_capped: flags & CAPPED != 0,
        exchange,
        scopes,
        creative,
        price_micros,
        currency,
        nano,
        spends,
        remembered,
        accounts,
        keys,
        segments,
    })
}

fn currency_number(currency: Currency) -> u64 {
    let letters = currency.as_str().bytes();
    letters.fold(0, |number: u64, letter| {
        number << 5 | u64::from(letter & 0x1f)
    })
}

fn currency_of(number: u64) -> Option<Currency> {
    let letter = |shift: u32| {
        let letter = (number >> shift & 0x1f) as u8;
        (1..=26).contains(&letter).then_some(letter | 0x40)
    };
    let letters = [letter(10)?, letter(5)?, letter(0)?];
    std::str::from_utf8(&letters).ok()?.parse().ok()
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(id: u8) -> TokenKey {
        TokenKey::new(id, [id; 32])
    }

    fn keys(ids: &[u8]) -> TokenKeys {
        TokenKeys(ids.iter().map(|id| key(*id)).collect())
    }

    fn text(token: &Token, key: &TokenKey) -> String {
        let mut out = TokenText::default();
        key.seal(token, &mut out).expect("it fits");
        out.as_str().to_owned()
    }

    fn a_token() -> Token {
        Token {
            bid: BidNumber {
                start: 3,
                desk: 1,
                sequence: 77,
            },
            at: 1_800_000_000,
            test: false,
            is_capped: true,
            exchange: 4,
            scopes: Scopes {
                line_item: 5,
                campaign: 6,
                advertiser: 7,
            },
            creative: 8,
            price_micros: 4_200_000,
            currency: Currency::USD,
            nano: 3_900_000,
            spends: "EUR".parse().expect("a code"),
            remembered: 86_400,
            accounts: [9, 10].into_iter().collect(),
            keys: [u64::MAX, 1].into_iter().collect(),
            segments: [3, 300].into_iter().collect(),
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let token = a_token();
        let text = text(&token, &key(1));
        assert_eq!(keys(&[0, 1]).open(&text), Ok(token));
        let bytes = URL_SAFE_NO_PAD.decode(&text).expect("base64");
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped = URL_SAFE_NO_PAD.encode(&bytes);
            assert_eq!(keys(&[0, 1]).open(&flipped), Err(BadToken), "bit {bit}");
        }
        for length in 0..text.len() {
            assert_eq!(
                keys(&[0, 1]).open(&text[..length]),
                Err(BadToken),
                "{length}"
            );
        }
        assert_eq!(keys(&[1]).open(&format!("{text}A")), Err(BadToken));
        let long = "A".repeat(TOKEN_CHARS_MAX + 1);
        assert_eq!(keys(&[0]).open(&long), Err(BadToken));
    }

    #[test]
    fn a_key_that_is_gone_opens_nothing() {
        let text = text(&a_token(), &key(200));
        assert!(keys(&[1, 2]).lacks(&text));
        assert!(!keys(&[1, 200]).lacks(&text));
        assert_eq!(keys(&[1, 2]).open(&text), Err(BadToken));
        let other = TokenKeys(vec![TokenKey::new(200, [1; 32])]);
        assert_eq!(other.open(&text), Err(BadToken), "another key of that id");
        assert!(keys(&[0]).lacks("") && keys(&[0]).lacks("é"));
    }

    #[test]
    fn bids_that_follow_each_other_do_not_look_like_it() {
        let mut token = a_token();
        let one = text(&token, &key(1));
        token.bid.sequence += 1;
        let two = text(&token, &key(1));
        let head = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64")[1..17].to_vec();
        let same = head(&one)
            .iter()
            .zip(head(&two))
            .filter(|(a, b)| **a == *b)
            .count();
        assert!(same < 8, "{same} of 16 bytes");
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_read(
            (start, desk, sequence) in (any::<u32>(), any::<u16>(), 0u64..1 << 48),
            (price_micros, nano) in (0i64..=1_000_000_000_000, 0i64..=i64::MAX / 8),
            names in any::<[u32; 5]>(),
            (at, remembered, test, is_capped) in (any::<u32>(), any::<u32>(), any::<bool>(), any::<bool>()),
            accounts in prop::collection::vec(any::<u32>(), 0..=ACCOUNTS_MAX),
            segments in prop::collection::vec(any::<u32>(), 0..=SEGMENTS_MAX),
            counted in prop::collection::vec(any::<u64>(), 0..=KEYS_MAX),
            currency in "[A-Z]{3}",
        ) {
            let token = Token {
                bid: BidNumber { start, desk, sequence },
                at, test, is_capped, price_micros, nano, remembered,
                exchange: names[0],
                scopes: Scopes { line_item: names[1], campaign: names[2], advertiser: names[3] },
                creative: names[4],
                currency: currency.parse().expect("a code"),
                spends: Currency::USD,
                accounts: accounts.into_iter().collect(),
                keys: counted.into_iter().collect(),
                segments: segments.into_iter().collect(),
            };
            prop_assert_eq!(keys(&[9]).open(&text(&token, &key(9))), Ok(token));
        }

        #[test]
        fn nonsense_is_refused(text in "\\PC{0,400}") {
            prop_assert_eq!(keys(&[0, 1, 2]).open(&text), Err(BadToken));
        }
    }
}
