//! Gzip bodies (RFC 1952), decoded into a buffer that never grows past the limit.
//!
//! The container is read here and only the deflate stream is flate2's, so that one inflater (44 KiB of state) serves a
//! worker for life instead of being made for every request. Strict: one member, nothing after it, checksum and
//! length right. A second member is legal in a file but sent by no exchange, and taking many would let a megabyte of
//! empty ones cost as many resets.
#![deny(clippy::indexing_slicing)]

use flate2::{Decompress, FlushDecompress, Status};

const HEADER_BYTES: usize = 10;
const FLAG_HEADER_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;
const FLAGS_RESERVED: u8 = 0b1110_0000;
/// The output grows by this much at a time, so that memory follows what was really decoded.
const STEP_BYTES: usize = 64 << 10;

/// Why a body could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GunzipError {
    /// Cut, damaged, or followed by something.
    Corrupt,
    /// More than the limit when decoded.
    TooLarge,
}

/// An inflater and its output, used again and again.
pub(super) struct Gunzip {
    inflate: Decompress,
    decoded: Vec<u8>,
}

impl Gunzip {
    pub(super) fn new() -> Self {
        Self {
            inflate: Decompress::new(false),
            decoded: Vec::new(),
        }
    }

    /// The decoded body, at most `limit` bytes of it.
    pub(super) fn decode(&mut self, body: &[u8], limit: usize) -> Result<&[u8], GunzipError> {
        let mut rest = after_header(body).ok_or(GunzipError::Corrupt)?;
        self.inflate.reset(false);
        self.decoded.clear();
        loop {
            if self.decoded.capacity() == self.decoded.len() {
                // One byte over the limit is room enough to see that there is more.
                let room = limit.saturating_sub(self.decoded.len()).saturating_add(1);
                self.decoded.reserve_exact(room.min(STEP_BYTES));
            }
            let before = (self.inflate.total_in(), self.decoded.len());
            let status = self
                .inflate
                .decompress_vec(rest, &mut self.decoded, FlushDecompress::None)
                .map_err(|_| GunzipError::Corrupt)?;
            let taken = usize::try_from(self.inflate.total_in().saturating_sub(before.0))
                .unwrap_or(usize::MAX);
            rest = rest.get(taken..).ok_or(GunzipError::Corrupt)?;
            if self.decoded.len() > limit {
                return Err(GunzipError::TooLarge);
            }
            match status {
                Status::StreamEnd => break,
                // No progress in either direction: the stream is cut.
                _ if taken == 0 && self.decoded.len() == before.1 => {
                    return Err(GunzipError::Corrupt);
                }
                Status::Ok | Status::BufError => {}
            }
        }
        let trailer: [u8; 8] = rest.try_into().map_err(|_| GunzipError::Corrupt)?;
        let [c0, c1, c2, c3, l0, l1, l2, l3] = trailer;
        let length_fits = u32::from_le_bytes([l0, l1, l2, l3]) as usize == self.decoded.len();
        let sum_fits = u32::from_le_bytes([c0, c1, c2, c3]) == crc32fast::hash(&self.decoded);
        if length_fits && sum_fits {
            Ok(&self.decoded)
        } else {
            Err(GunzipError::Corrupt)
        }
    }
}

/// What follows the member's header.
fn after_header(body: &[u8]) -> Option<&[u8]> {
    let (header, mut rest) = body.split_first_chunk::<HEADER_BYTES>()?;
    let [0x1f, 0x8b, 8, flags, ..] = *header else {
        return None;
    };
    if flags & FLAGS_RESERVED != 0 {
        return None;
    }
    if flags & FLAG_EXTRA != 0 {
        let (length, after) = rest.split_first_chunk::<2>()?;
        rest = after.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    for flag in [FLAG_NAME, FLAG_COMMENT] {
        if flags & flag != 0 {
            let end = memchr::memchr(0, rest)?;
            rest = rest.get(end.checked_add(1)?..)?;
        }
    }
    if flags & FLAG_HEADER_CRC != 0 {
        let (sum, after) = rest.split_first_chunk::<2>()?;
        let header_bytes = body.len().checked_sub(rest.len())?;
        let want = crc32fast::hash(body.get(..header_bytes)?) & 0xffff;
        if u32::from(u16::from_le_bytes(*sum)) != want {
            return None;
        }
        rest = after;
    }
    Some(rest)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, GzBuilder, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).expect("to memory");
        encoder.finish().expect("to memory")
    }

    fn decode(body: &[u8], limit: usize) -> Result<Vec<u8>, GunzipError> {
        Gunzip::new().decode(body, limit).map(<[u8]>::to_vec)
    }

    #[test]
    fn optional_header_fields_are_skipped() {
        let mut encoder = GzBuilder::new()
            .filename("request.json")
            .comment("a comment")
            .extra(vec![1, 2, 0, 3])
            .write(Vec::new(), Compression::fast());
        encoder.write_all(b"{}").expect("to memory");
        let body = encoder.finish().expect("to memory");
        assert_eq!(decode(&body, 2).expect("good"), b"{}");

        // The same by hand, with a checksum of the header.
        let plain = gzip(b"{}");
        let (header, rest) = plain.split_at(HEADER_BYTES);
        let mut summed = header.to_vec();
        summed[3] |= FLAG_HEADER_CRC;
        let sum = (crc32fast::hash(&summed) & 0xffff) as u16;
        summed.extend(sum.to_le_bytes());
        summed.extend(rest);
        assert_eq!(decode(&summed, 2).expect("good"), b"{}");
        summed[10] ^= 1;
        assert_eq!(decode(&summed, 2), Err(GunzipError::Corrupt));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let whole = gzip(b"{\"id\":\"1\",\"imp\":[{\"id\":\"1\"},{\"id\":\"2\"}]}");
        for cut in 0..whole.len() {
            assert_eq!(
                decode(&whole[..cut], 1000),
                Err(GunzipError::Corrupt),
                "{cut}"
            );
        }
        let want = decode(&whole, 1000);
        let mut harmless = Vec::new();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut broken = whole.clone();
                broken[at] ^= 1 << bit;
                let got = decode(&broken, 1000);
                if got == want {
                    harmless.push((at, bit));
                } else {
                    assert_eq!(got, Err(GunzipError::Corrupt), "{at}.{bit}");
                }
            }
        }
        // The text flag; time, extra flags and system, which say nothing; what pads the deflate stream's last byte.
        let last = whole.len() - 9;
        let unread = |(at, bit)| (at, bit) == (3, 0) || (4..10).contains(&at) || at == last;
        harmless.retain(|&place| !unread(place));
        assert_eq!(harmless, []);
    }

    #[test]
    fn what_follows_the_member_is_refused() {
        let one = gzip(b"{}");
        assert_eq!(
            decode(&[&one[..], b"x"].concat(), 9),
            Err(GunzipError::Corrupt)
        );
        assert_eq!(
            decode(&[&one[..], &one].concat(), 9),
            Err(GunzipError::Corrupt)
        );
        assert_eq!(
            decode(&gzip(&one), 99).expect("once"),
            one,
            "decoded once only"
        );
    }

    #[test]
    fn a_bomb_costs_the_limit_and_no_more() {
        let bomb = gzip(&vec![b' '; 50 << 20]);
        let mut gunzip = Gunzip::new();
        let limit = 1 << 20;
        assert_eq!(gunzip.decode(&bomb, limit), Err(GunzipError::TooLarge));
        assert!(gunzip.decoded.capacity() <= limit + STEP_BYTES);
        assert_eq!(
            gunzip.decode(&gzip(b"{}"), limit).expect("still good"),
            b"{}"
        );
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back_or_is_too_large(
            body in proptest::collection::vec(any::<u8>(), 0..3000),
            limit in 0usize..3000,
        ) {
            let want = if body.len() <= limit { Ok(body.clone()) } else { Err(GunzipError::TooLarge) };
            prop_assert_eq!(decode(&gzip(&body), limit), want);
        }

        #[test]
        fn noise_never_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&[&[0x1f, 0x8b, 8][..], &body].concat(), 1000);
        }
    }
}
