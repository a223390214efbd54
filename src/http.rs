//! Listeners: the outermost layer, the only one that knows sockets, deadlines and HTTP.
//!
//! [`bid`] is the public one, for exchanges: what it has read and checked it hands to a [`Bidder`](bid::Bidder), of which
//! [`bidder`] is ours. [`admin`] is for jobs, operators and Prometheus, and [`lenses`] is what it shows a person of the
//! running service. The two share no thread.

pub mod bid;

pub mod bidder;

pub mod admin;

pub mod lenses;
