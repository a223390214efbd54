//! Kith, the audience brain of a real-time bidder: which segments is this person in, and do we want this impression?
//!
//! Modules in the order in which one should read them; `ARCHITECTURE.md` tells how they fit.

// A test is its own outermost layer: it may wait, read its environment and look at the clock.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod ids;

pub mod clock;

pub mod money;

pub mod openrtb;

pub mod privacy;

pub mod identity;

pub mod audience;

pub mod campaigns;

pub mod generation;

pub mod ledger;

pub mod decision;

pub mod datasets;

pub mod storage;

pub mod http;

pub mod metrics;

pub mod config;

pub mod service;

pub mod cli;

pub mod demo;
