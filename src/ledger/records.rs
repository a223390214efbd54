//! The journal's records: what must be known after a crash, in the order in which it came to be true.
//!
//! A journal is a row of frames: length (u32), CRC-32 of the body (u32), body; all little-endian. A body is a kind (one byte) and
//! numbers of seven bits a byte, least first, with texts and keys behind their lengths. What a crash leaves at the end
//! (a frame cut short, or one that does not match its checksum) was never acknowledged, and is cut off.
//!
//! The same records say a change and a whole state: a journal that has grown long is begun anew with those that
//! lead to where it is.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::account::Day;
use super::contacts::Scopes;
use super::frequency::FrequencyKey;
use super::seen::{Epoch, Live, SeenKey};
use super::settled::Kind;
use super::token::BidNumber;
use crate::money::Currency;

/// What a file begins with: what it is, and its format.
pub(super) const MAGIC: &[u8; 8] = b"KITHLED1";
const FRAME_HEAD_BYTES: usize = 8;
/// Longest body that is written, but for sets of bids; a longer one is damage.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Whose name a number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum NameKind {
    LineItem,
    Campaign,
    Advertiser,
    Creative,
    Exchange,
    /// Of what became of imps.
    Reason,
    Segment,
}

impl NameKind {
    const ALL: [Self; 7] = [
        Self::LineItem,
        Self::Campaign,
        Self::Advertiser,
        Self::Creative,
        Self::Exchange,
        Self::Reason,
        Self::Segment,
    ];
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// The service started; bids from here on have this number.
    Start { start: u32 },
    /// The service stopped, and what was held under caps is known.
    Closed,
    /// A key that tokens are sealed with, made at that second.
    Key { id: u8, at: u32, secret: [u8; 32] },
    /// From here on that number stands for that name.
    Name {
        number: u32,
        kind: NameKind,
        name: Box<str>,
    },
    /// An account: of whom, and of which day.
    Account { number: u32, of: u32, day: Day },
    /// The accounts of somebody are in this currency; those before it were in another.
    Currency { of: u32, currency: Currency },
    /// So much of an account may be used.
    Level { account: u32, nano: i64 },
    /// So much of an account is spent, where a journal begins anew.
    Spent { account: u32, nano: i64 },
    /// A notice was taken for the first time.
    Notice(Notice),
    /// Bids of which a notice was taken, where a journal begins anew.
    Settled {
        start: u32,
        desk: u16,
        hour: u32,
        kind: Kind,
        bids: Vec<u8>,
    },
    /// Somebody was shown something.
    Contact {
        key: FrequencyKey,
        at: u32,
        until: u32,
        scopes: Scopes,
    },
    /// A row of the report, as it is.
    Row {
        row: super::report::Key,
        counts: super::report::Counts,
    },
    /// So many requests came in that hour, since 1970.
    Hour { hour: i64, requests: u64 },
    /// An epoch begins: these line items count imps from here on, those do not any more.
    Live {
        epoch: Epoch,
        came: Vec<Live>,
        went: Vec<Live>,
    },
    /// Imps of an hour, an exchange and an epoch, as they are.
    Seen { of: SeenKey, imps: u64 },
    /// Imps by what became of them, as they are.
    Reason {
        row: super::report::Key,
        reason: u32,
        imps: u64,
    },
    /// What was delivered to people in a segment, as it is.
    Segment {
        row: super::report::Key,
        segment: u32,
        counts: super::report::Counts,
    },
    /// The report's rows of hours before this one are by the day from here on.
    Rolled { before: u32 },
    /// A switch was set (`off`) or taken back: 0 and 0 for all.
    Switch { kind: u8, name: Box<str>, off: bool },
}

/// A notice as it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) kind: Kind,
    pub(super) bid: BidNumber,
    /// Second of the bid.
    pub(super) bid_at: u32,
    /// Second of the notice.
    pub(super) at: u32,
    /// Where it is counted.
    pub(super) row: super::report::Key,
    /// Whether it booked, and how much.
    pub(super) booked: Option<i64>,
    /// What was reserved for it.
    pub(super) reserved: i64,
    /// Whether it came after its window.
    pub(super) late: bool,
    pub(super) accounts: Vec<u32>,
    /// Under which keys it counts, for how long.
    pub(super) keys: Vec<FrequencyKey>,
    pub(super) remembered: u32,
    /// Segments that the line item wanted and the person was in.
    pub(super) segments: Vec<u32>,
}

/// Appends a record as a frame.
pub(super) fn write(record: &Record, out: &mut Vec<u8>) {
    let mut body = Body(Vec::with_capacity(64));
    match record {
        Record::Start { start } => body.kind(1).number(*start),
        Record::Closed => body.kind(13),
        Record::Key { id, at, secret } => body.kind(2).number(*id).number(*at).bytes(secret),
        Record::Name { number, kind, name } => body
            .kind(3)
            .number(*number)
            .number(*kind as u8)
            .bytes(name.as_bytes()),
        Record::Account { number, of, day } => body
            .kind(4)
            .number(*number)
            .number(*of)
            .signed((*day).into()),
        Record::Currency { of, currency } => body.kind(20).number(*of).currency(*currency),
        Record::Level { account, nano } => body.kind(5).number(*account).signed(*nano),
        Record::Spent { account, nano } => body.kind(6).number(*account).signed(*nano),
        // What was written before there were segments is read still.
        Record::Notice(notice) if notice.segments.is_empty() => write_notice(notice, body.kind(7)),
        Record::Notice(notice) => {
            let body = write_notice(notice, body.kind(18));
            body.number(notice.segments.len() as u64);
            for segment in &notice.segments {
                body.number(*segment);
            }
            body
        }
        Record::Settled {
            start,
            desk,
            hour,
            kind,
            bids,
        } => {
            let head = body.kind(8).number(*start).number(*desk);
            head.number(*hour).number(*kind as u8).bytes(bids)
        }
        Record::Contact {
            key,
            at,
            until,
            scopes,
        } => body
            .kind(9)
            .number(*key)
            .number(*at)
            .number(*until)
            .scopes(scopes),
        Record::Row { row, counts } => body.kind(10).row(row).counts(counts),
        Record::Segment {
            row,
            segment,
            counts,
        } => body.kind(19).row(row).number(*segment).counts(counts),
        Record::Hour { hour, requests } => body.kind(12).signed(*hour).number(*requests),
        Record::Live { epoch, came, went } => {
            body.kind(14).number(*epoch);
            for set in [came, went] {
                body.number(set.len() as u64);
                for live in set {
                    body.scopes(&live.scopes).currency(live.currency);
                }
            }
            &mut body
        }
        Record::Seen {
            of: (hour, exchange, epoch),
            imps,
        } => {
            let head = body.kind(15).number(*hour).number(*exchange);
            head.number(*epoch).number(*imps)
        }
        Record::Reason { row, reason, imps } => {
            body.kind(16).row(row).number(*reason).number(*imps)
        }
        Record::Rolled { before } => body.kind(17).number(*before),
        Record::Switch { kind, name, off } => body
            .kind(11)
            .number(*kind)
            .bytes(name.as_bytes())
            .number(u8::from(*off)),
    };
    let body = body.0;
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
}

fn write_notice<'b>(notice: &Notice, body: &'b mut Body) -> &'b mut Body {
    body.number(notice.kind as u8)
        .number(notice.bid.start)
        .number(notice.bid.desk)
        .number(notice.bid.sequence)
        .number(notice.bid_at)
        .number(notice.at)
        .row(&notice.row)
        .number(u8::from(notice.booked.is_some()))
        .signed(notice.booked.unwrap_or(0))
        .signed(notice.reserved)
        .number(u8::from(notice.late))
        .number(notice.remembered)
        .number(notice.accounts.len() as u64);
    for account in &notice.accounts {
        body.number(*account);
    }
    body.number(notice.keys.len() as u64);
    for key in &notice.keys {
        body.number(*key);
    }
    body
}

struct Body(Vec<u8>);

impl Body {
    fn kind(&mut self, kind: u8) -> &mut Self {
        self.0.push(kind);
        self
    }

    fn number(&mut self, value: impl Into<u64>) -> &mut Self {
        let mut value = value.into();
        while value > 0x7f {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// Small numbers on both sides of zero are short.
    fn signed(&mut self, value: i64) -> &mut Self {
        self.number(((value << 1) ^ (value >> 63)).cast_unsigned())
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn scopes(&mut self, scopes: &Scopes) -> &mut Self {
        self.number(scopes.line_item)
            .number(scopes.campaign)
            .number(scopes.advertiser)
    }

    fn row(&mut self, row: &super::report::Key) -> &mut Self {
        self.number(row.hour)
            .scopes(&row.scopes)
            .number(row.creative)
            .number(row.exchange)
            .currency(row.currency)
    }

    fn counts(&mut self, counts: &super::report::Counts) -> &mut Self {
        for count in [counts.bids, counts.wins, counts.impressions, counts.clicks] {
            self.number(count);
        }
        self.signed(counts.spend)
    }

    fn currency(&mut self, currency: Currency) -> &mut Self {
        self.bytes(currency.as_str().as_bytes())
    }
}

/// Why a journal could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("it does not begin as a ledger's journal does")]
    Magic,
    #[error("what its checksum vouches for makes no sense, from byte {0} on")]
    Record(usize),
    #[error("bytes {at} to {end} are damaged, and there is more behind them")]
    Damaged { at: usize, end: usize },
}

/// Reads a journal's records in order; the number of bytes up to the last whole one.
///
/// A cut or damaged frame at the end is what a crash leaves. One in the middle is damage, for which somebody must decide.
pub(super) fn read(bytes: &[u8], mut each: impl FnMut(Record)) -> Result<usize, Unread> {
    if bytes.len() < MAGIC.len() {
        // Cut within its first bytes, before anything was in it.
        return if MAGIC.starts_with(bytes) {
            Ok(0)
        } else {
            Err(Unread::Magic)
        };
    }
    if !bytes.starts_with(MAGIC) {
        return Err(Unread::Magic);
    }
    let mut at = MAGIC.len();
    while let Some((length, crc, rest)) = frame_head(bytes, at) {
        let end = at.saturating_add(FRAME_HEAD_BYTES).saturating_add(length);
        let body = rest
            .get(..length)
            .filter(|body| crc32fast::hash(body) == crc);
        let Some(body) = body.filter(|body| !body.is_empty()) else {
            if has_frame_after(bytes, at) {
                return Err(Unread::Damaged { at, end });
            }
            return Ok(at);
        };
        each(read_body(body).ok_or(Unread::Record(at))?);
        at = end;
    }
    Ok(at)
}

fn frame_head(bytes: &[u8], at: usize) -> Option<(usize, u32, &[u8])> {
    let (length, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    Some((length, u32::from_le_bytes(*crc), rest))
}

/// Whether behind a frame that cannot be read a whole one begins somewhere: then it is no end that a crash has cut.
fn has_frame_after(bytes: &[u8], at: usize) -> bool {
    (at.saturating_add(1)..bytes.len()).any(|at| {
        frame_head(bytes, at).is_some_and(|(length, crc, rest)| {
            let body = rest
                .get(..length)
                .filter(|_| (1..=BODY_BYTES_MAX).contains(&length));
            body.is_some_and(|body| crc32fast::hash(body) == crc && read_body(body).is_some())
        })
    })
}

fn read_body(body: &[u8]) -> Option<Record> {
    let (kind, rest) = body.split_first()?;
    let mut from = Reader(rest);
    let record = match kind {
        1 => Record::Start { start: from.u32()? },
        2 => Record::Key {
            id: from.number()?.try_into().ok()?,
            at: from.u32()?,
            secret: from.bytes()?.try_into().ok()?,
        },
        3 => Record::Name {
            number: from.u32()?,
            kind: *NameKind::ALL.get(from.place()?)?,
            name: from.text()?,
        },
        4 => Record::Account {
            number: from.u32()?,
            of: from.u32()?,
            day: from.signed()?.try_into().ok()?,
        },
        20 => Record::Currency {
            of: from.u32()?,
            currency: from.currency()?,
        },
        5 => Record::Level {
            account: from.u32()?,
            nano: from.signed()?,
        },
        6 => Record::Spent {
            account: from.u32()?,
            nano: from.signed()?,
        },
        7 => Record::Notice(from.notice()?),
        18 => {
            let mut notice = from.notice()?;
            let count = from.place()?.min(from.0.len());
            notice.segments = (0..count).map(|_| from.u32()).collect::<Option<_>>()?;
            Record::Notice(notice)
        }
        19 => Record::Segment {
            row: from.row()?,
            segment: from.u32()?,
            counts: from.counts()?,
        },
        8 => Record::Settled {
            start: from.u32()?,
            desk: from.number()?.try_into().ok()?,
            hour: from.u32()?,
            kind: from.kind()?,
            bids: from.bytes()?.to_vec(),
        },
        9 => Record::Contact {
            key: from.number()?,
            at: from.u32()?,
            until: from.u32()?,
            scopes: from.scopes()?,
        },
        10 => Record::Row {
            row: from.row()?,
            counts: from.counts()?,
        },
        13 => Record::Closed,
        12 => Record::Hour {
            hour: from.signed()?,
            requests: from.number()?,
        },
        14 => {
            let epoch = from.u32()?;
            let mut set = || {
                // As many as there is room for, whatever the number says.
                let count = from.place()?.min(from.0.len());
                let set = (0..count).map(|_| {
                    Some(Live {
                        scopes: from.scopes()?,
                        currency: from.currency()?,
                    })
                });
                set.collect::<Option<_>>()
            };
            Record::Live {
                epoch,
                came: set()?,
                went: set()?,
            }
        }
        15 => Record::Seen {
            of: (from.u32()?, from.u32()?, from.u32()?),
            imps: from.number()?,
        },
        16 => Record::Reason {
            row: from.row()?,
            reason: from.u32()?,
            imps: from.number()?,
        },
        17 => Record::Rolled {
            before: from.u32()?,
        },
        11 => Record::Switch {
            kind: from.number()?.try_into().ok()?,
            name: from.text()?,
            off: from.number()? != 0,
        },
        _ => return None,
    };
    from.0.is_empty().then_some(record)
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            // Of the tenth byte only one bit has room.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn u32(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn place(&mut self) -> Option<usize> {
        self.number()?.try_into().ok()
    }

    fn kind(&mut self) -> Option<Kind> {
        Kind::ALL.get(self.place()?).copied()
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.number()?;
        Some((value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg())
    }

    fn bytes(&mut self) -> Option<&'b [u8]> {
        let length = self.place()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<Box<str>> {
        std::str::from_utf8(self.bytes()?).ok().map(Into::into)
    }

    fn scopes(&mut self) -> Option<Scopes> {
        Some(Scopes {
            line_item: self.u32()?,
            campaign: self.u32()?,
            advertiser: self.u32()?,
        })
    }

    fn row(&mut self) -> Option<super::report::Key> {
        Some(super::report::Key {
            hour: self.u32()?,
            scopes: self.scopes()?,
            creative: self.u32()?,
            exchange: self.u32()?,
            currency: self.currency()?,
        })
    }

    fn counts(&mut self) -> Option<super::report::Counts> {
        Some(super::report::Counts {
            bids: self.number()?,
            wins: self.number()?,
            impressions: self.number()?,
            clicks: self.number()?,
            spend: self.signed()?,
        })
    }

    fn currency(&mut self) -> Option<Currency> {
        self.text()?.parse().ok()
    }

    fn notice(&mut self) -> Option<Notice> {
        Some(Notice {
            kind: self.kind()?,
            bid: BidNumber {
                start: self.u32()?,
                desk: self.number()?.try_into().ok()?,
                sequence: self.number()?,
            },
            bid_at: self.u32()?,
            at: self.u32()?,
            row: self.row()?,
            booked: {
                let books = self.number()? != 0;
                let nano = self.signed()?;
                books.then_some(nano)
            },
            reserved: self.signed()?,
            late: self.number()? != 0,
            remembered: self.u32()?,
            accounts: {
                let count = self.place()?.min(1000);
                (0..count).map(|_| self.u32()).collect::<Option<_>>()?
            },
            keys: {
                let count = self.place()?.min(1000);
                (0..count).map(|_| self.number()).collect::<Option<_>>()?
            },
            segments: Vec::new(),
        })
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records() -> Vec<Record> {
        let row = super::super::report::Key {
            hour: 500_000,
            scopes: Scopes {
                line_item: 1,
                campaign: 2,
                advertiser: 3,
            },
            creative: 4,
            exchange: 5,
            currency: crate::money::Currency::USD,
        };
        vec![
            Record::Start { start: 7 },
            Record::Closed,
            Record::Key {
                id: 3,
                at: 1_800_000_000,
                secret: [9; 32],
            },
            Record::Name {
                number: 1,
                kind: NameKind::Exchange,
                name: "é/x".into(),
            },
            Record::Account {
                number: 0,
                of: 1,
                day: i32::MIN,
            },
            Record::Currency {
                of: 1,
                currency: crate::money::Currency::USD,
            },
            Record::Level {
                account: 0,
                nano: i64::MAX,
            },
            Record::Spent {
                account: 0,
                nano: -5,
            },
            Record::Notice(Notice {
                kind: Kind::Bill,
                bid: BidNumber {
                    start: 7,
                    desk: 65_535,
                    sequence: (1 << 48) - 1,
                },
                bid_at: 1_800_000_000,
                at: 1_800_000_009,
                row,
                booked: Some(4_000_000),
                reserved: 5_000_000,
                late: true,
                accounts: vec![0, 1, u32::MAX],
                keys: vec![u64::MAX, 0],
                remembered: 86_400,
                segments: vec![1, 300],
            }),
            Record::Settled {
                start: 7,
                desk: 0,
                hour: 500_000,
                kind: Kind::Win,
                bids: vec![1, 2, 3],
            },
            Record::Contact {
                key: 77,
                at: 5,
                until: 9,
                scopes: row.scopes,
            },
            Record::Row {
                row,
                counts: super::super::report::Counts {
                    bids: 9,
                    wins: 8,
                    impressions: 7,
                    clicks: 6,
                    spend: 5,
                },
            },
            Record::Hour {
                hour: 498_000,
                requests: 77,
            },
            Record::Live {
                epoch: 3,
                came: Vec::new(),
                went: vec![Live {
                    scopes: row.scopes,
                    currency: row.currency,
                }],
            },
            Record::Seen {
                of: (500_000, 5, 3),
                imps: 1 << 40,
            },
            Record::Reason {
                row,
                reason: 6,
                imps: 9,
            },
            Record::Segment {
                row,
                segment: 7,
                counts: super::super::report::Counts::default(),
            },
            Record::Rolled { before: 499_992 },
            Record::Switch {
                kind: 2,
                name: "acme".into(),
                off: true,
            },
        ]
    }

    fn journal(records: &[Record]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        records.iter().for_each(|record| write(record, &mut out));
        out
    }

    fn read_all(bytes: &[u8]) -> Result<(Vec<Record>, usize), String> {
        let mut found = Vec::new();
        let end = read(bytes, |record| found.push(record)).map_err(|error| error.to_string())?;
        Ok((found, end))
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = journal(&records());
        assert_eq!(read_all(&bytes), Ok((records(), bytes.len())));
    }

    /// Wherever a crash cuts it, what came before is read, and nothing else.
    #[test]
    fn a_cut_end_is_left_out() {
        let bytes = journal(&records());
        let mut ends = vec![MAGIC.len()];
        for count in 1..=records().len() {
            ends.push(journal(&records()[..count]).len());
        }
        for length in 0..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= length).count();
            let (found, end) = read_all(&bytes[..length]).expect("a crash leaves no worse");
            assert_eq!(found, records()[..whole.saturating_sub(1)], "{length}");
            assert_eq!(
                end,
                if whole == 0 { 0 } else { ends[whole - 1] },
                "{length}"
            );
        }
    }

    /// A flip is seen: the record is not read, and unless it is the last, nobody goes on as if nothing had been.
    #[test]
    fn a_flipped_bit_is_noticed() {
        let bytes = journal(&records());
        let last = journal(&records()[..records().len() - 1]).len();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match read_all(&bytes) {
                Ok((found, end)) => {
                    assert!(bit / 8 >= last, "bit {bit}");
                    assert_eq!((found.len(), end), (records().len() - 1, last), "bit {bit}");
                }
                Err(_) => assert!(bit / 8 < last, "bit {bit}"),
            }
        }
    }

    proptest! {
        #[test]
        fn nonsense_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut all = MAGIC.to_vec();
            all.extend(bytes);
            let _ = read_all(&all);
            let _ = read_body(&all[4..]);
        }
    }
}
