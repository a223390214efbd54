//! Listeners: the outermost layer, the only one that knows sockets, deadlines and HTTP.
//!
//! [`bid`] is the public one, for exchanges. It knows nothing of decisions: what it has read and checked it hands to a
//! [`Bidder`](bid::Bidder). [`admin`] is for jobs, operators and Prometheus, on threads of its own.

pub mod bid;

pub mod admin;
