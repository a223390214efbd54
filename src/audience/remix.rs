//! From a user key to its place in one file.
//!
//! A file must not hold user keys: whoever got two files could join them. So each remixes the keys under a salt of its
//! own and keeps 40 bits of the result. The salt is public and follows from the dataset's name, the version and
//! a counter, so that the same rows always make the same bytes; nobody without the deployment's secret can
//! choose keys that crowd one bucket.
//!
//! Cost: one SipHash-1-3 of 16 bytes to 128 bits.

use sha2::{Digest as _, Sha256};
use siphasher::sip128::SipHasher13;

use super::shard::Hashed;
use crate::ids::{Name, UserKey};

/// Bits of a stored fingerprint.
pub(super) const FINGERPRINT_BITS: u32 = 40;
/// Format 1: bytes of a stored fingerprint.
pub(super) const FINGERPRINT_BYTES: usize = 5;
const FINGERPRINT_MASK: u64 = (1 << FINGERPRINT_BITS) - 1;

/// Format 1: ids a bucket holds on average.
const IDS_PER_BUCKET: u64 = 8;

/// Says where a key stands in a file.
#[derive(Clone, Debug)]
pub(super) struct Remix(SipHasher13);

/// The public salt of a version, for the `counter`-th attempt at one without clashes.
pub(super) fn salt(dataset: &Name, version: u64, counter: u32) -> [u8; 16] {
    // The name comes last: what stands before it has a fixed length, so no two triples hash the same text.
    let digest = Sha256::new()
        .chain_update(b"kith salt 1\0")
        .chain_update(version.to_le_bytes())
        .chain_update(counter.to_le_bytes())
        .chain_update(dataset.as_str().as_bytes())
        .finalize();
    let mut salt = [0; 16];
    for (byte, from) in salt.iter_mut().zip(digest) {
        *byte = from;
    }
    salt
}

impl Remix {
    pub(super) fn new(salt: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(salt))
    }

    pub(super) fn mix(&self, key: UserKey) -> Hashed {
        let hash = self.0.hash(&key.0.to_le_bytes());
        Hashed {
            spread: hash.h1,
            check: hash.h2,
        }
    }
}

/// Format 1: what is stored of a hash.
pub(super) fn fingerprint(hashed: Hashed) -> u64 {
    hashed.check & FINGERPRINT_MASK
}

/// Format 1: how many buckets hold `ids` ids.
pub(super) fn buckets_for(ids: u64) -> u64 {
    ids.div_ceil(IDS_PER_BUCKET)
}

/// Format 1: the bucket of a spread, the high half of spread × buckets, which never reaches `buckets`.
pub(super) fn bucket_of(spread: u64, buckets: u64) -> u64 {
    let product = u128::from(spread).wrapping_mul(u128::from(buckets));
    // The high half of a product of two 64-bit numbers fits.
    u64::try_from(product >> 64).unwrap_or(0)
}
