//! An open-loop load generator for bid endpoints.
//!
//! A closed-loop tool sends its next request when the last one was answered; so it does not ask while the server
//! stalls, and its percentiles do not know of the stall. This one sends by a schedule that is fixed before the run,
//! and latency counts from when a request was due.
//!
//! Modules in reading order: when requests are due, what is sent where, one connection, the loop, threads, figures.
//! Then what load is made of: requests, the people in them, the campaigns that want them; all made up, and the same for the
//! same seed.

pub mod audience;
pub mod campaigns;
pub mod cli;
mod connection;
mod dice;
mod engine;
mod feed;
pub mod notices;
pub mod overload;
pub mod people;
mod progress;
pub mod rehearsal;
pub mod report;
pub mod requests;
pub mod run;
pub mod scene;
pub mod schedule;
pub mod search;
pub mod stall;
pub mod swap;
pub mod tally;
pub mod target;
pub mod timeline;
mod watch;
mod wire;
mod world;

pub use watch::{Ended, Limits, Live, Watch};
