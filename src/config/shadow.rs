//! `[shadow]`: recent requests that are kept in memory, for versions to be tried on before they are activated.

use super::forms;
use super::sheet::Sheet;

/// Most requests that are kept: at 8 KiB each, 1.6 GB.
const REQUESTS_MAX: i64 = 200_000;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shadow {
    /// How many requests, of all bid threads together; 0: none.
    pub requests: usize,
}

pub(super) fn read(s: &mut Sheet<'_>) -> Shadow {
    Shadow {
        requests: s.get(
            "requests",
            &forms::whole(0, REQUESTS_MAX),
            "2000",
            "recent bid requests kept in memory, without ids, to try versions on; at most 8 KiB each; 0: none",
        ),
    }
}
