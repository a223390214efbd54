//! `kith demo`: Kith at work, on this machine.

use std::path::Path;

use crate::cli::Failure;

/// Shows what Kith does; ends afterwards if `once`. `requests`: bid requests to send instead of the fixtures.
pub fn run(once: bool, requests: Option<&Path>) -> Result<(), Failure> {
    let _ = (once, requests);
    Err(Failure::new("this build has no demo yet"))
}
