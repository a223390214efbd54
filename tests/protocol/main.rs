//! The protocol as an exchange sees it: whole requests, read and decided on as a bid thread does it, or sent to a listener.
//!
//! `docs/conformance.md` says which row of the checklist is shown by which test. The corpus of public requests is not part of
//! the repository; what needs it says that it is left out.

#![allow(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test may wait, and says what it leaves out"
)]

mod corpus;
mod leniency;
mod listener;
mod malformed;
mod metamorphic;
mod rewritten;
mod semantics;
mod world;
