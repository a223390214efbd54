//! Format 1, which is no longer written: one bucket's bytes, and the set of one id.
//!
//! ```text
//! bucket := count:u8  fingerprint:u40 × count  length:varint × count  set × count      (an empty bucket has no bytes)
//! ```
//!
//! The fingerprints stand together, so that a miss, which is the usual answer, reads one cache line and no set. They
//! ascend, which makes the bytes independent of the order of rows. The sets hold segment *ranks*, most named first,
//! so that most gaps fit a byte. Where no membership of a file expires, expiry costs nothing; where some do, a bit of
//! each length tells whether the set has any.
//!
//! Everything here reads bytes that may hold anything: nothing indexes, overflows or trusts a length.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::cmp::Ordering;

use super::bits::Nonsense;
use super::code::Membership;
use super::remix::FINGERPRINT_BYTES;

/// How the memberships of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// None ever expires.
    Unused,
    /// Some do; times are seconds after this one.
    Since(i64),
}

impl Expiry {
    /// How many bytes a set has, by its length as written.
    fn bytes_of(self, length: u64) -> u64 {
        match self {
            Self::Unused => length,
            Self::Since(_) => length >> 1,
        }
    }

    /// Takes a set of that written length off the front.
    fn set<'a>(self, length: u64, sets: &mut &'a [u8]) -> Result<Set<'a>, Nonsense> {
        let since = match self {
            Self::Since(since) if length & 1 == 1 => Some(since),
            _ => None,
        };
        let length = usize::try_from(self.bytes_of(length)).map_err(|_| Nonsense)?;
        let bytes = take(sets, length)?;
        if bytes.is_empty() {
            return Err(Nonsense);
        }
        Ok(Set {
            bytes,
            next: 0,
            since,
        })
    }
}

/// Takes a varint off the front. Only the shortest form of a number is one.
#[inline(always)]
fn take_varint(bytes: &mut &[u8]) -> Result<u64, Nonsense> {
    match **bytes {
        [first, ref rest @ ..] if first < 0x80 => {
            *bytes = rest;
            Ok(u64::from(first))
        }
        [first, second @ 1..0x80, ref rest @ ..] => {
            *bytes = rest;
            Ok(u64::from(first & 0x7f) | u64::from(second) << 7)
        }
        _ => {
            // A copy, so that the slice itself may stay in registers.
            let mut rest = *bytes;
            let value = take_long_varint(&mut rest)?;
            *bytes = rest;
            Ok(value)
        }
    }
}

#[inline(never)]
fn take_long_varint(bytes: &mut &[u8]) -> Result<u64, Nonsense> {
    let (&first, rest) = bytes.split_first().ok_or(Nonsense)?;
    *bytes = rest;
    let mut value = u64::from(first & 0x7f);
    for shift in [7, 14, 21, 28, 35, 42, 49, 56] {
        let (&byte, rest) = bytes.split_first().ok_or(Nonsense)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return if byte == 0 { Err(Nonsense) } else { Ok(value) };
        }
    }
    Err(Nonsense)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Nonsense> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Nonsense)?;
    *bytes = rest;
    Ok(taken)
}

/// One bucket's bytes, taken apart as far as its fingerprints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket<'a> {
    fingerprints: &'a [u8],
    rest: &'a [u8],
    expiry: Expiry,
}

impl<'a> Bucket<'a> {
    pub(super) fn parse(mut bytes: &'a [u8], expiry: Expiry) -> Result<Self, Nonsense> {
        let count = match bytes.split_first() {
            None => 0,
            Some((0, _)) => return Err(Nonsense),
            Some((&count, rest)) => {
                bytes = rest;
                usize::from(count)
            }
        };
        let fingerprints = take(&mut bytes, count.saturating_mul(FINGERPRINT_BYTES))?;
        Ok(Self {
            fingerprints,
            rest: bytes,
            expiry,
        })
    }

    /// The fingerprints in their order.
    pub(super) fn fingerprints(self) -> impl ExactSizeIterator<Item = u64> + 'a {
        self.fingerprints
            .chunks_exact(FINGERPRINT_BYTES)
            .map(|bytes| {
                bytes
                    .iter()
                    .rev()
                    .fold(0, |value, &byte| value << 8 | u64::from(byte))
            })
    }

    /// The set of the id with this fingerprint.
    pub(super) fn find(self, fingerprint: u64) -> Result<Option<Set<'a>>, Nonsense> {
        let wanted = fingerprint.to_le_bytes();
        let wanted = wanted.first_chunk().ok_or(Nonsense)?;
        let (stored, _) = self.fingerprints.as_chunks::<FINGERPRINT_BYTES>();
        let position = stored.iter().position(|stored| stored == wanted);
        match position {
            None => Ok(None),
            Some(position) => self.set(position).map(Some),
        }
    }

    /// The set at that position.
    fn set(self, position: usize) -> Result<Set<'a>, Nonsense> {
        let (lengths, sets) = self
            .rest
            .split_at_checked(self.fingerprints().len())
            .ok_or(Nonsense)?;
        if lengths.iter().any(|&length| length >= 0x80) {
            return self.set_behind_long_lengths(position);
        }
        // A byte each: they need not be taken apart to be added.
        let mut sets = sets;
        let (before, rest) = lengths.split_at_checked(position).ok_or(Nonsense)?;
        let before = before.iter().fold(0u64, |sum, &length| {
            sum.saturating_add(self.expiry.bytes_of(length.into()))
        });
        take(&mut sets, usize::try_from(before).map_err(|_| Nonsense)?)?;
        let own = rest.first().copied().ok_or(Nonsense)?;
        self.expiry.set(u64::from(own), &mut sets)
    }

    /// The set at that position, in one pass over lengths of any length.
    #[inline(never)]
    fn set_behind_long_lengths(self, position: usize) -> Result<Set<'a>, Nonsense> {
        let mut sets = self.rest;
        let (mut before, mut own) = (0u64, 0);
        for place in 0..self.fingerprints().len() {
            let length = take_varint(&mut sets)?;
            match place.cmp(&position) {
                Ordering::Less => before = before.saturating_add(self.expiry.bytes_of(length)),
                Ordering::Equal => own = length,
                Ordering::Greater => {}
            }
        }
        take(&mut sets, usize::try_from(before).map_err(|_| Nonsense)?)?;
        self.expiry.set(own, &mut sets)
    }

    /// All sets in the order of the fingerprints. Ends in nonsense unless the bucket's bytes end with the last one.
    pub(super) fn sets(self) -> Result<Sets<'a>, Nonsense> {
        let count = self.fingerprints().len();
        let mut sets = self.rest;
        for _ in 0..count {
            take_varint(&mut sets)?;
        }
        Ok(Sets {
            left: count,
            lengths: self.rest,
            sets,
            expiry: self.expiry,
        })
    }
}

/// The sets of a bucket, one after the other.
#[derive(Debug)]
pub(super) struct Sets<'a> {
    left: usize,
    lengths: &'a [u8],
    sets: &'a [u8],
    expiry: Expiry,
}

impl<'a> Sets<'a> {
    fn take(&mut self) -> Result<Set<'a>, Nonsense> {
        let length = take_varint(&mut self.lengths)?;
        let set = self.expiry.set(length, &mut self.sets)?;
        if self.left == 0 && !self.sets.is_empty() {
            return Err(Nonsense);
        }
        Ok(set)
    }
}

impl<'a> Iterator for Sets<'a> {
    type Item = Result<Set<'a>, Nonsense>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(self.take())
    }
}

/// The memberships of one id, in the order of ranks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Set<'a> {
    bytes: &'a [u8],
    next: u64,
    since: Option<i64>,
}

impl Set<'_> {
    /// Calls `each` with every rank and the second it expires at: what the iterator does, without a [`Membership`] for each.
    /// Gives the number behind the last rank. Ranks ascend, so that one look at it tells whether all of them were ranks:
    /// where it is more than there are, `each` was told nonsense.
    #[inline(always)]
    pub(super) fn walk(mut self, mut each: impl FnMut(u32, Option<i64>)) -> Result<u64, Nonsense> {
        if self.since.is_some() {
            for membership in self.by_ref() {
                let membership = membership?;
                each(membership.rank, membership.expires);
            }
            return Ok(self.next);
        }
        let (mut bytes, mut next) = (self.bytes, 0u64);
        while !bytes.is_empty() {
            let gap = take_varint(&mut bytes)?;
            if gap > u64::from(u32::MAX) {
                return Err(Nonsense);
            }
            // Each gap takes a byte at least, so that their sum does not come near the end of the numbers.
            let rank = next.wrapping_add(gap);
            each(u32::try_from(rank).unwrap_or(u32::MAX), None);
            next = rank.wrapping_add(1);
        }
        Ok(next)
    }

    fn take(&mut self) -> Result<Membership, Nonsense> {
        let mut gap = take_varint(&mut self.bytes)?;
        let mut expires = None;
        if let Some(since) = self.since {
            if gap & 1 == 1 {
                let after = take_varint(&mut self.bytes)?;
                expires = Some(since.checked_add_unsigned(after).ok_or(Nonsense)?);
            }
            gap >>= 1;
        }
        let rank = self.next.checked_add(gap).ok_or(Nonsense)?;
        self.next = rank.checked_add(1).ok_or(Nonsense)?;
        Ok(Membership {
            rank: u32::try_from(rank).map_err(|_| Nonsense)?,
            expires,
        })
    }
}

impl Iterator for Set<'_> {
    type Item = Result<Membership, Nonsense>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let taken = self.take();
        if taken.is_err() {
            self.bytes = &[];
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put_varint(out: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn set(bytes: &[u8], since: Option<i64>) -> Set<'_> {
        Set {
            bytes,
            next: 0,
            since,
        }
    }

    proptest! {
        /// Over any bytes: the same memberships as one after the other, and the number behind the last rank.
        #[test]
        fn a_walk_says_what_the_iterator_says(
            bytes in prop::collection::vec(prop_oneof![3 => 0u8..0x80, 1 => any::<u8>()], 1..24),
            since in prop::option::of(Just(1_000i64)),
        ) {
            let mut walked = Vec::new();
            let end = set(&bytes, since).walk(|rank, expires| walked.push(Membership { rank, expires }));
            match set(&bytes, since).collect::<Result<Vec<_>, _>>() {
                Ok(all) => {
                    prop_assert_eq!(end, Ok(all.last().map_or(0, |last| u64::from(last.rank) + 1)));
                    prop_assert_eq!(walked, all);
                }
                // A rank that is none is seen at the end, by whoever knows how many there are.
                Err(Nonsense) => prop_assert!(end.is_ok_and(|end| end > u64::from(u32::MAX)) || end.is_err()),
            }
        }
    }

    #[test]
    fn ranks_beyond_all_ranks_do_not_come_round_again() {
        let mut bytes = Vec::new();
        for gap in [4, 0xffff_fffe] {
            put_varint(&mut bytes, gap);
        }
        let mut told = Vec::new();
        let end = set(&bytes, None).walk(|rank, _| told.push(rank));
        assert!(end.is_ok_and(|end| end > u64::from(u32::MAX)));
        assert_eq!(told, [4, u32::MAX]);
    }
}
