//! Tokens: what a notice's URL carries, sealed.
//!
//! A token holds everything that moves money when its notice comes: who bid, how much, on which accounts, for whom. It is sealed
//! with AES-256-GCM, so that nobody outside can read or change a bit of it, and Kith need not remember open bids one by
//! one. The nonce is the bid's number (start, desk, sequence), which never comes twice under a key; as plain text it
//! would tell competitors how many bids we make, so it is enciphered as one block of AES under a key of its own.
//!
//! **One token a kind of notice.** Whoever sees an ad sees its click's token, and a pixel's: neither may settle what the exchange's
//! own notices settle. So a bid has a token for each kind, which opens as that kind only. The body is sealed once; each token's tag
//! is GCM's, exclusive-or a block that AES makes of nonce and kind under a third key. (Sealing again with the kind as further
//! authenticated data would use a nonce twice: two such tags give GCM's key of authentication away, and with it every other.)
//! As no nonce has two bodies, each block is a pad for one tag, and whoever has three tokens of a bid can only guess the fourth.
//!
//! Layout before base64url (RFC 4648 §5, no padding): key id (1 byte), tag (16), enciphered block (16: start u32, desk u16,
//! sequence u48, second of the bid u32), sealed body. Key id and block are authenticated with the body. The first 18 bytes are
//! 24 characters of each token's own, what follows is the same text for all.
//!
//! Keys are made anew every day and at each start, and kept as long as a token of theirs may come. Cost: about 300 ns a bid, no allocation.
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
use super::settled::Kind;
use crate::money::Currency;

/// Most accounts that one bid spends from: day and total of line item, campaign and advertiser.
pub(super) const ACCOUNTS_MAX: usize = 6;
/// Most ids of a person that a bid counts for.
pub(super) const KEYS_MAX: usize = 16;
/// Most segments that a bid's delivery counts in.
pub const SEGMENTS_MAX: usize = 8;
/// Longest body before it is sealed: numbers of at most ten bytes each.
const BODY_BYTES_MAX: usize = 1 + 10 * (12 + ACCOUNTS_MAX + SEGMENTS_MAX) + 8 * KEYS_MAX;
const ID_BYTES: usize = 1;
const TAG_BYTES: usize = 16;
const BLOCK_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
/// Key id, tag and the block's first byte: what is each token's own, with a byte more, so that it is of whole characters.
const OWN_BYTES: usize = ID_BYTES + TAG_BYTES + 1;
const OWN_CHARS: usize = OWN_BYTES / 3 * 4;
/// What all tokens of a bid have in common.
const REST_BYTES_MAX: usize = BLOCK_BYTES - 1 + BODY_BYTES_MAX;
const TOKEN_BYTES_MAX: usize = OWN_BYTES + REST_BYTES_MAX;
/// Longest token, in characters.
pub const TOKEN_CHARS_MAX: usize = TOKEN_BYTES_MAX.div_ceil(3) * 4;
const KINDS: usize = Kind::ALL.len();
/// What is each token's own, of all tokens of a bid.
const OWNS_BYTES: usize = KINDS * OWN_BYTES;
const OWNS_CHARS: usize = KINDS * OWN_CHARS;
const TEXT_BYTES_MAX: usize = OWNS_BYTES + REST_BYTES_MAX;
const TEXT_CHARS_MAX: usize = TEXT_BYTES_MAX.div_ceil(3) * 4;
// Each token's own part is whole characters: no byte of it is in a character of the next.
const _: () = assert!(OWN_BYTES.is_multiple_of(3));

/// Which bid, of all that this deployment ever made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BidNumber {
    /// Which run of the service.
    pub start: u32,
    /// Which of its desks.
    pub desk: u16,
    /// Which of the desk's bids; under 2^48.
    pub sequence: u64,
}

impl BidNumber {
    /// As one number, by which a hold is known for a while: of bids so far apart that two share one none is open any more.
    pub(super) fn short(self) -> u64 {
        // The twelve bits that count.
        let start = u64::from(self.start) << 52;
        let desk = u64::from(self.desk & 0xfff) << 40;
        (start | desk | self.sequence & 0xff_ffff_ffff).max(1)
    }
}

/// A bid's tokens as text, in a place that is used again and again: what is each kind's own, by their numbers, and then what all
/// have in common.
pub struct TokenText {
    chars: [u8; TEXT_CHARS_MAX],
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
            chars: [0; TEXT_CHARS_MAX],
            length: 0,
        }
    }
}

impl TokenText {
    /// All of it, for [`TokenText::parts`]; empty where there is no token.
    pub fn as_str(&self) -> &str {
        let text = self.chars.get(..self.length);
        text.and_then(|text| str::from_utf8(text).ok())
            .unwrap_or("")
    }

    /// How each kind's token begins, by the kind's number, and how all of them go on.
    pub fn parts(text: &str) -> Option<([&str; KINDS], &str)> {
        let (mut owns, rest) = text.split_at_checked(OWNS_CHARS)?;
        let mut begins = [""; KINDS];
        for begin in &mut begins {
            (*begin, owns) = owns.split_at_checked(OWN_CHARS)?;
        }
        Some((begins, rest))
    }

    /// The token of one kind.
    #[cfg(test)]
    pub(super) fn of(&self, kind: Kind) -> String {
        let (begins, rest) = Self::parts(self.as_str()).expect("a token");
        begins.get(kind as usize).expect("a kind").to_string() + rest
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
    /// The kind of notice that books it, whatever its exchange is billed by since.
    pub bills: Kind,
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
    kinds: Aes256,
    seal: Box<Aes256Gcm>,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", self.id)
    }
}

impl TokenKey {
    /// All ciphers' keys are derived from one secret.
    pub(super) fn new(id: u8, secret: [u8; 32]) -> Self {
        let derived = |what: &[u8]| {
            let hash = Sha256::new().chain_update(what).chain_update(secret);
            hash.finalize()
        };
        Self {
            id,
            secret,
            block: Aes256::new(&derived(b"kith token block")),
            kinds: Aes256::new(&derived(b"kith token kinds")),
            seal: Box::new(Aes256Gcm::new(&derived(b"kith token seal"))),
        }
    }

    /// Writes the tokens of a bid as text.
    pub(super) fn seal(&self, token: &Token, text: &mut TokenText) -> Option<()> {
        let nonce = nonce(token.bid);
        let mut block = [0; BLOCK_BYTES];
        let (first, last) = block.split_at_mut(NONCE_BYTES);
        first.copy_from_slice(&nonce);
        last.copy_from_slice(&token.at.to_be_bytes());
        let mut block = block.into();
        self.block.encrypt_block(&mut block);
        let head = Head {
            id: self.id,
            block: block.into(),
        };
        let mut bytes = ArrayVec::<u8, TEXT_BYTES_MAX>::new();
        bytes.try_extend_from_slice(&[0; OWNS_BYTES]).ok()?;
        let [of_own, of_rest @ ..] = head.block;
        bytes.try_extend_from_slice(&of_rest).ok()?;
        let begin = bytes.len();
        write_body(token, &mut bytes)?;
        let body = bytes.get_mut(begin..)?;
        let tag = self
            .seal
            .encrypt_in_place_detached(&nonce.into(), &head.bytes(), body)
            .ok()?
            .into();
        let mut pads = Kind::ALL.map(|kind| pad_block(nonce, kind).into());
        self.kinds.encrypt_blocks(&mut pads);
        let (owns, _) = bytes.as_chunks_mut::<OWN_BYTES>();
        for (own, pad) in owns.iter_mut().zip(pads) {
            let [id, own @ .., after] = own;
            (*id, *own, *after) = (head.id, xor(tag, pad.into()), of_own);
        }
        text.length = URL_SAFE_NO_PAD.encode_slice(&bytes, &mut text.chars).ok()?;
        Some(())
    }

    fn open(&self, kind: Kind, tag: [u8; TAG_BYTES], rest: &[u8]) -> Result<Token, BadToken> {
        let (block, body) = rest.split_first_chunk().ok_or(BadToken)?;
        let head = Head {
            id: self.id,
            block: *block,
        };
        let mut block = head.block.into();
        self.block.decrypt_block(&mut block);
        let (nonce, at) = block.split_first_chunk().ok_or(BadToken)?;
        let at = u32::from_be_bytes(at.try_into().map_err(|_| BadToken)?);
        let mut pad = pad_block(*nonce, kind).into();
        self.kinds.encrypt_block(&mut pad);
        let tag = xor(tag, pad.into());
        let mut opened = ArrayVec::<u8, BODY_BYTES_MAX>::new();
        opened.try_extend_from_slice(body).map_err(|_| BadToken)?;
        self.seal
            .decrypt_in_place_detached(&(*nonce).into(), &head.bytes(), &mut opened, &tag.into())
            .map_err(|_| BadToken)?;
        read_body(&opened, bid_of(*nonce), at).ok_or(BadToken)
    }
}

/// What is authenticated with the body.
struct Head {
    id: u8,
    block: [u8; BLOCK_BYTES],
}

impl Head {
    fn bytes(&self) -> [u8; ID_BYTES + BLOCK_BYTES] {
        let mut bytes = [self.id; ID_BYTES + BLOCK_BYTES];
        let [_, block @ ..] = &mut bytes;
        *block = self.block;
        bytes
    }
}

/// What a kind's pad is made of.
fn pad_block(nonce: [u8; NONCE_BYTES], kind: Kind) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let (first, last) = block.split_at_mut(NONCE_BYTES);
    first.copy_from_slice(&nonce);
    last.copy_from_slice(&(kind as u32).to_be_bytes());
    block
}

fn xor(a: [u8; TAG_BYTES], b: [u8; TAG_BYTES]) -> [u8; TAG_BYTES] {
    (u128::from_ne_bytes(a) ^ u128::from_ne_bytes(b)).to_ne_bytes()
}

/// The keys of which a token may come, the newest last.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenKeys(pub(super) Vec<TokenKey>);

impl TokenKeys {
    /// The one to seal with.
    pub(super) fn newest(&self) -> Option<&TokenKey> {
        self.0.last()
    }

    /// Reads a token of a kind. Every bit of it is checked.
    pub(super) fn open(&self, kind: Kind, text: &str) -> Result<Token, BadToken> {
        let mut bytes = [0; TOKEN_BYTES_MAX];
        let room = text.len() <= TOKEN_CHARS_MAX;
        let read = match room {
            true => URL_SAFE_NO_PAD.decode_slice(text, &mut bytes),
            false => return Err(BadToken),
        };
        let length = read.map_err(|_| BadToken)?;
        let bytes = bytes.get(..length).ok_or(BadToken)?;
        let (id, rest) = bytes.split_first().ok_or(BadToken)?;
        let (tag, rest) = rest.split_first_chunk().ok_or(BadToken)?;
        let mut keys = self.0.iter().rev().filter(|key| key.id == *id);
        // A key is made at each start: where there were many of late, several have one id.
        let opened = keys.find_map(|key| key.open(kind, *tag, rest).ok());
        opened.ok_or(BadToken)
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
fn nonce(bid: BidNumber) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    let (start, rest) = nonce.split_at_mut(4);
    let (desk, sequence) = rest.split_at_mut(2);
    start.copy_from_slice(&bid.start.to_be_bytes());
    desk.copy_from_slice(&bid.desk.to_be_bytes());
    let bytes = bid.sequence.to_be_bytes();
    sequence.copy_from_slice(bytes.last_chunk::<6>().unwrap_or(&[0; 6]));
    nonce
}

fn bid_of(nonce: [u8; NONCE_BYTES]) -> BidNumber {
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
const BILLED_BY_WIN: u8 = 8;

fn write_body(token: &Token, out: &mut ArrayVec<u8, TEXT_BYTES_MAX>) -> Option<()> {
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let has_segments = !token.segments.is_empty();
    let flags = flag(token.test, TEST)
        | flag(token.is_capped, CAPPED)
        | flag(has_segments, SEGMENTS)
        | flag(token.bills == Kind::Win, BILLED_BY_WIN);
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
        bills: match flags & BILLED_BY_WIN {
            0 => Kind::Bill,
            _ => Kind::Win,
        },
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

    fn texts(token: &Token, key: &TokenKey) -> [String; 4] {
        let mut out = TokenText::default();
        key.seal(token, &mut out).expect("it fits");
        Kind::ALL.map(|kind| out.of(kind))
    }

    fn text(token: &Token, key: &TokenKey) -> String {
        texts(token, key)[Kind::Bill as usize].clone()
    }

    fn opened(ids: &[u8], text: &str) -> Result<Token, BadToken> {
        keys(ids).open(Kind::Bill, text)
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
            bills: Kind::Win,
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
        assert_eq!(opened(&[0, 1], &text), Ok(token));
        let bytes = URL_SAFE_NO_PAD.decode(&text).expect("base64");
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped = URL_SAFE_NO_PAD.encode(&bytes);
            for kind in Kind::ALL {
                let opened = keys(&[0, 1]).open(kind, &flipped);
                assert_eq!(opened, Err(BadToken), "bit {bit} as {kind:?}");
            }
        }
        for length in 0..text.len() {
            assert_eq!(opened(&[0, 1], &text[..length]), Err(BadToken), "{length}");
        }
        assert_eq!(opened(&[1], &format!("{text}A")), Err(BadToken));
        let long = "A".repeat(TOKEN_CHARS_MAX + 1);
        assert_eq!(opened(&[0], &long), Err(BadToken));
    }

    /// Whoever has the tokens of some kinds has none of another, whatever of theirs is put together.
    #[test]
    fn a_token_opens_as_its_own_kind_only() {
        let (token, keys) = (a_token(), keys(&[1]));
        let all = texts(&token, &key(1));
        for (kind, text) in Kind::ALL.into_iter().zip(&all) {
            for asked in Kind::ALL {
                let opened = keys.open(asked, text);
                let expected = match asked == kind {
                    true => Ok(token.clone()),
                    false => Err(BadToken),
                };
                assert_eq!(opened, expected, "{kind:?} as {asked:?}");
            }
            assert_eq!(text[OWN_CHARS..], all[0][OWN_CHARS..], "{kind:?}");
            assert_eq!(text.len(), all[0].len());
        }
        // Tags added up, of any three kinds or two, are none of another's.
        let tag = |text: &str| -> [u8; TAG_BYTES] {
            let bytes = URL_SAFE_NO_PAD.decode(text).expect("base64");
            bytes[ID_BYTES..][..TAG_BYTES].try_into().expect("a tag")
        };
        let tags = all.each_ref().map(|text| tag(text));
        let mut another = token.clone();
        another.bid.sequence += 1;
        let others = texts(&another, &key(1)).map(|text| tag(&text));
        for asked in Kind::ALL {
            let at = asked as usize;
            for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
                // What two kinds differ by for one bid is nothing for another one.
                let of = match at {
                    _ if at == a => b,
                    _ if at == b => a,
                    _ => continue,
                };
                let made = xor(tags[of], xor(others[a], others[b]));
                let mut bytes = URL_SAFE_NO_PAD.decode(&all[of]).expect("base64");
                bytes[ID_BYTES..][..TAG_BYTES].copy_from_slice(&made);
                let made = URL_SAFE_NO_PAD.encode(&bytes);
                assert_eq!(keys.open(asked, &made), Err(BadToken), "{asked:?}");
            }
        }
    }

    #[test]
    fn a_key_that_is_gone_opens_nothing() {
        let text = text(&a_token(), &key(200));
        assert!(keys(&[1, 2]).lacks(&text));
        assert!(!keys(&[1, 200]).lacks(&text));
        assert_eq!(opened(&[1, 2], &text), Err(BadToken));
        let other = TokenKeys(vec![TokenKey::new(200, [1; 32])]);
        let of_another_key = other.open(Kind::Bill, &text);
        assert_eq!(of_another_key, Err(BadToken), "another key of that id");
        // Both keys of an id open what is theirs.
        let both = TokenKeys(vec![TokenKey::new(200, [1; 32]), key(200)]);
        assert!(both.open(Kind::Bill, &text).is_ok());
        let both = TokenKeys(vec![key(200), TokenKey::new(200, [1; 32])]);
        assert!(both.open(Kind::Bill, &text).is_ok());
        assert!(keys(&[0]).lacks("") && keys(&[0]).lacks("é"));
    }

    #[test]
    fn bids_that_follow_each_other_do_not_look_like_it() {
        let mut token = a_token();
        let one = text(&token, &key(1));
        token.bid.sequence += 1;
        let two = text(&token, &key(1));
        let head = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64")[17..33].to_vec();
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
            (at, remembered) in any::<(u32, u32)>(),
            (test, is_capped, by_win) in any::<(bool, bool, bool)>(),
            accounts in prop::collection::vec(any::<u32>(), 0..=ACCOUNTS_MAX),
            segments in prop::collection::vec(any::<u32>(), 0..=SEGMENTS_MAX),
            counted in prop::collection::vec(any::<u64>(), 0..=KEYS_MAX),
            currency in "[A-Z]{3}",
        ) {
            let token = Token {
                bid: BidNumber { start, desk, sequence },
                bills: if by_win { Kind::Win } else { Kind::Bill },
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
            for (kind, text) in Kind::ALL.into_iter().zip(texts(&token, &key(9))) {
                let opened = keys(&[9]).open(kind, &text);
                prop_assert_eq!(opened.as_ref(), Ok(&token));
            }
        }

        #[test]
        fn nonsense_is_refused(text in "\\PC{0,400}") {
            prop_assert_eq!(opened(&[0, 1, 2], &text), Err(BadToken));
        }
    }
}
