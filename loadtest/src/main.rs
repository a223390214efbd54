//! An open-loop load generator for bid endpoints.

fn main() {}
