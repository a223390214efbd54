//! Listeners: what speaks HTTP, and nothing that decides.

pub mod admin;
