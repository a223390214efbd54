//! Measurements of Kith, beside a bare HTTP server.

fn main() {}
