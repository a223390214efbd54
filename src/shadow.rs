//! Recent bid requests, kept for an hour to ask what a version that is not live yet would make of them.
//!
//! Bid threads put a few a second into the [`Sample`]; before a version is activated, [`compare()`] decides on each with the
//! live generation and with the one that would be. What differs says in bids and money what counts of ids can only hint at.
//!
//! Invariants. Only requests whose privacy gate was open, and on which a dataset could be read, are taken, and no tests. No id
//! is kept: the person is the keys that were looked up, the request is [abridged](crate::openrtb::abridge). Nothing of it is
//! written, logged or kept for longer than an hour; [`Sample::forget`] takes out a person at once. Deciding again commits
//! nothing, so that no budget, count or metric hears of it.
//!
//! Cost: a few instructions for a request that is not taken, some microseconds for one that is; 8 KiB of memory for each
//! request of the sample, as far as they are used. A comparison takes two decisions a request, on the upload's thread.

mod compare;
mod reservoir;
mod sample;

#[cfg(test)]
mod tests;

pub use compare::{Comparison, Side, TIME_MAX, Variance, compare};
pub use sample::{AGE_MAX, REQUEST_BYTES, Sample, Sampler, Taken, Wanted};
