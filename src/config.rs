//! TEMPORARY, to be replaced by the real `config` at the merge: only the fields that the bid listener reads.

use ipnet::IpNet;

use crate::ids::Name;

/// An exchange that may call us.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Its name in the bid path.
    pub name: Name,
    /// Its position in [`Exchanges`].
    pub index: usize,
    /// Callers that are let in; empty: all.
    pub allow: Vec<IpNet>,
    /// SHA-256 of the secret that its bid path must end with.
    pub path_key_sha256: Option<[u8; 32]>,
}

/// All exchanges, sorted by name.
#[derive(Debug, Clone, Default)]
pub struct Exchanges {
    list: Vec<Exchange>,
}

impl Exchanges {
    /// Sorts and numbers them.
    pub fn new(mut list: Vec<Exchange>) -> Self {
        list.sort_by(|a, b| a.name.cmp(&b.name));
        for (index, exchange) in list.iter_mut().enumerate() {
            exchange.index = index;
        }
        Self { list }
    }

    /// The exchange of that name.
    pub fn get(&self, name: &str) -> Option<&Exchange> {
        let at = self
            .list
            .binary_search_by(|e| e.name.as_str().cmp(name))
            .ok()?;
        self.list.get(at)
    }

    /// All of them, by index.
    pub fn iter(&self) -> std::slice::Iter<'_, Exchange> {
        self.list.iter()
    }
}

/// Sizes and times, each with its name.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest body of a bid request, on the wire and decoded.
    pub bid_body_bytes: usize,
    /// Largest head of a bid request.
    pub bid_header_bytes: usize,
    /// Most open connections on the bid listener.
    pub bid_connections: usize,
    /// Longest from a request's first byte to the end of its head.
    pub header_timeout_ms: u64,
    /// Longest from the end of the head to the end of the body.
    pub body_timeout_ms: u64,
    /// Longest from the answer to its last byte taken by the client's socket.
    pub write_timeout_ms: u64,
    /// Longest between an answer and the next request.
    pub idle_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bid_body_bytes: 1 << 20,
            bid_header_bytes: 16 << 10,
            bid_connections: 16_384,
            header_timeout_ms: 5_000,
            body_timeout_ms: 5_000,
            write_timeout_ms: 5_000,
            idle_timeout_ms: 120_000,
        }
    }
}
