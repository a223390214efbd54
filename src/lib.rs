//! Kith, the audience brain of a real-time bidder: which segments is this person in, and do we want this impression?
//!
//! Modules in the order in which one should read them; `ARCHITECTURE.md` tells how they fit. The whole of it in small, from
//! a job's rows and a campaign manager's document to a bid, without a socket, a thread or a clock:
//!
//! ```
//! use std::sync::Arc;
//!
//! use kith::audience::{Audience, Builder, RowFormat, VersionMeta};
//! use kith::config::Config;
//! use kith::decision::{Scratch, Silent, decide};
//! use kith::generation::{Frame, Generation, LiveVersion, Members};
//! use kith::ids::{Keyer, Kind, SecretKey};
//! use kith::privacy::Purposes;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::default();
//! let keyer = Keyer::new(&SecretKey::from_bytes([7; 32]));
//!
//! // A segment job's rows become a version file, and the file an audience.
//! let meta = VersionMeta { kind: Kind::Audience, dataset: "crm".parse()?, version: 1, base: None, as_of: None };
//! let mut builder = Builder::new(meta, keyer.clone())?;
//! builder.read_rows(&RowFormat::Csv, &b"source,id,segments\nbuyeruid,u-1,vip\n"[..], &mut |_| {})?;
//! let mut file = Vec::new();
//! builder.finish(&mut file)?;
//! let members = Members::Exact(Arc::new(Audience::from_bytes(&file)?));
//!
//! // A campaigns document becomes a book.
//! let book = kith::campaigns::compile(br#"{
//!     "advertisers": [{"id": "acme", "domain": "acme.example"}],
//!     "creatives": [{"id": "box", "advertiser": "acme", "type": "banner", "w": 300, "h": 250, "adm": "<p>hello</p>"}],
//!     "line_items": [{"id": "vips", "creatives": ["box"], "price": {"cpm": "4.20", "currency": "USD"},
//!                     "targeting": "segments one of ['crm/vip']"}]}"#)
//!     .map_err(|mistakes| mistakes[0].to_string())?;
//!
//! // Both, frozen, are what a request is decided on.
//! let live = LiveVersion { name: "crm".parse()?, ordinal: 0, version: 1, members, purposes: Purposes::PROFILE, covers: 0 };
//! let generation = Generation::assemble(1, Arc::new(book), Some(1), vec![live], Frame::of(&config, keyer));
//!
//! let body = br#"{"id": "r", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}], "user": {"buyeruid": "u-1"}}"#;
//! let arena = bumpalo::Bump::new();
//! let request = kith::openrtb::read(body, &arena, 128)?;
//! let exchange = config.exchanges.get("demo").ok_or("no such exchange")?;
//! let (now, mut scratch) = ("2026-11-21T12:00:00Z".parse()?, Scratch::default());
//! let decision = decide(&generation, exchange, &request, now, &arena, &mut scratch, &mut Silent);
//! let bids = decision.outcome.map_err(|no_bid| no_bid.why())?;
//! assert_eq!((&*bids[0].line_item.id, bids[0].price.to_string()), ("vips", "4.2".to_owned()));
//! # Ok(())
//! # }
//! ```

// A test is its own outermost layer: it may wait, read its environment and look at the clock.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod ids;

mod lines;

pub mod clock;

pub mod money;

pub mod openrtb;

pub mod privacy;

pub mod identity;

pub mod audience;

pub mod people;

pub mod campaigns;

pub mod ledger;

pub mod generation;

pub mod decision;

pub mod shadow;

pub mod datasets;

pub mod storage;

pub mod delivery;

mod priority;

pub mod http;

pub mod metrics;

pub mod config;

pub mod service;

pub mod cli;

pub mod demo;
