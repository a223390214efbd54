//! The instruments that judge Kith's speed. Every figure in `docs/performance.md` comes from a command of this crate or
//! of `loadtest`.
//!
//! - [`compare`]: Kith beside a bare HTTP server, same bodies, in turns, in one run: CPU time a request and their ratio.
//!   Wall time on a shared machine says little; the ratio of two CPU times taken seconds apart says much.
//! - [`parts`], the parts of a decision one by one: `benches/times.rs` times them, [`counts`] counts their instructions and
//!   compares with those recorded.
//! - [`build`]: a version built of the [`rows`] of many people: rows a second, CPU time, memory.
//! - [`store`]: lookups beside one random access to as much memory, under none, one and ten deltas; what a delta takes.
//! - [`beside`]: Kith beside maps, redb and Redis, filled with the same people: times, memory.
//! - [`filters`]: Kith's filter beside other structures of its kind: bits, rates, times.
//! - [`targeting`]: the index of line items beside the a-tree crate and beside asking them all.
//!
//! But for the last five, all of them run over one [`scene`], and all run small inside the tests, so that they cannot rot.

pub mod allocations;
pub mod beside;
pub mod bodies;
pub mod build;
pub mod compare;
pub mod counts;
pub mod filters;
pub mod load;
pub mod parts;
mod random;
pub mod rows;
pub mod scene;
pub mod servers;
pub mod store;
pub mod targeting;
