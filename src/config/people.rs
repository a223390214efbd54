//! `[people]`: updates, links and erasure in real time.

use std::time::Duration;

use super::forms;
use super::sheet::Sheet;

/// Most ids with updates: at some 250 bytes each, 64 GB.
const IDS_MAX: i64 = 256 << 20;

/// How people are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct People {
    /// Ids with updates or links.
    pub ids: usize,
    /// How long an update counts that does not say.
    pub ttl: Duration,
    /// The longest that one may count.
    pub ttl_max: Duration,
    /// How long a writer's rows may come in another order than that of their numbers.
    pub order_window: Duration,
    /// How long the journal is kept in clear, for segment jobs.
    pub retention: Duration,
    /// Bytes of journal that a restart may have to replay, about.
    pub checkpoint_bytes: u64,
}

pub(super) fn read(s: &mut Sheet<'_>) -> People {
    let ids: i64 = s.get(
        "ids",
        &forms::whole(100, IDS_MAX),
        "2000000",
        "ids of which updates or links are held at a time; the last tenth takes suppression only, and erasure needs none; about 250 bytes each",
    );
    People {
        ids: usize::try_from(ids).unwrap_or(usize::MAX),
        ttl: s.get(
            "ttl",
            &forms::duration(),
            "\"30d\"",
            "how long an update counts that does not say",
        ),
        ttl_max: s.get(
            "ttl_max",
            &forms::duration(),
            "\"400d\"",
            "the longest that an update may count; a link counts so long where it does not say",
        ),
        order_window: s.get(
            "order_window",
            &forms::duration(),
            "\"1h\"",
            "how late a row may come whose writer has given a higher seq since; later ones are rejected",
        ),
        retention: s.get(
            "retention",
            &forms::duration(),
            "\"3d\"",
            "how long rows are kept in clear for segment jobs (GET /v1/journal, people/feed); of an erased id nothing is left after that",
        ),
        checkpoint_bytes: s.get(
            "checkpoint_bytes",
            &forms::size(64 << 10, 1 << 40),
            "\"128 MiB\"",
            "bytes of journal after which a checkpoint is written: what a restart replays, about",
        ),
    }
}
