//! What load is made of: bid requests, the people in them, the campaigns that want them.
//!
//! Everything here is made up and repeats: the same seed gives the same bytes, on every machine.

mod dice;
mod world;

pub mod audience;
pub mod campaigns;
pub mod requests;
pub mod scene;
