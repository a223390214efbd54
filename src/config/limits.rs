//! Every size that something from outside could drive has a limit, and every limit has a name here.
//!
//! Memory that the bid listener can be made to hold: `bid_connections` heads of `bid_header_bytes` each (256 MiB by
//! default) and as many bodies as are in flight, each up to `bid_body_bytes`.

use super::forms;
use super::sheet::Sheet;
use crate::audience::{IDS_PER_PERSON_MAX, MEMORY_MIN};
use crate::identity::IDS_MAX;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// The limits, in the unit that ends each name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Body of a bid request, decoded.
    pub bid_body_bytes: usize,
    /// Request line and headers of a bid request.
    pub bid_header_bytes: usize,
    /// Connections to the bid listener.
    pub bid_connections: usize,
    /// From a request's first byte to the end of its headers.
    pub header_timeout_ms: u64,
    /// From the end of the headers to the end of the body.
    pub body_timeout_ms: u64,
    /// For the client to take the answer.
    pub write_timeout_ms: u64,
    /// Between two requests of a connection.
    pub idle_timeout_ms: u64,
    /// For requests under way to end when the service stops.
    pub drain_timeout_ms: u64,
    /// How long bid requests may wait for their turn on a thread.
    pub queue_target_ms: u64,
    /// Ids looked up for one request.
    pub ids_per_request: usize,
    /// Imps looked at in one request.
    pub imps_per_request: usize,
    /// Ids of which it is remembered what they were shown.
    pub frequency_keys: usize,
    /// The ledger's journal, before it is begun anew.
    pub journal_bytes: usize,
    /// Rows of the delivery report.
    pub report_rows: usize,
    /// One upload, decoded.
    pub upload_bytes: u64,
    /// Uploads at once.
    pub uploads: usize,
    /// Between two bytes of an upload.
    pub upload_stall_timeout_ms: u64,
    /// Body of an admin request that is no upload.
    pub admin_body_bytes: usize,
    /// Connections to the admin listener.
    pub admin_connections: usize,
    /// Datasets in all.
    pub datasets: usize,
    /// Segments of one dataset.
    pub segments_per_dataset: usize,
    /// A campaigns document, decoded.
    pub campaigns_bytes: usize,
    /// Memory for making one version of uploaded rows.
    pub build_memory_bytes: u64,
    /// Ids of one person in an identity dataset.
    pub ids_per_person: usize,
    /// Of those, from one source.
    pub ids_per_source: usize,
}

pub(super) fn limits(s: &mut Sheet<'_>) -> Limits {
    let mut size = |key, min, max, default, meaning| -> usize {
        let bytes = s.get(key, &forms::size(min, max), default, meaning);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    };
    let bid_body_bytes = size(
        "bid_body_bytes",
        KIB,
        64 * MIB,
        "\"1 MiB\"",
        "body of a bid request, decoded; more is 413",
    );
    let bid_header_bytes = size(
        "bid_header_bytes",
        // hyper refuses a smaller read buffer.
        8 * KIB,
        MIB,
        "\"16 KiB\"",
        "request line and headers of a bid request; more is 431",
    );
    let admin_body_bytes = size(
        "admin_body_bytes",
        KIB,
        64 * MIB,
        "\"1 MiB\"",
        "body of an admin request that is no upload",
    );
    let campaigns_bytes = size(
        "campaigns_bytes",
        KIB,
        GIB,
        "\"64 MiB\"",
        "a campaigns document, decoded",
    );
    let upload_bytes = s.get(
        "upload_bytes",
        &forms::size(KIB, 64 * TIB),
        "\"16 GiB\"",
        "one upload, decoded; [datasets.<name>] max_bytes overrides",
    );
    let build_memory_bytes = s.get(
        "build_memory_bytes",
        &forms::size(MEMORY_MIN, TIB),
        "\"512 MiB\"",
        "memory for making a version of one upload's rows; what is more goes to disk, in `data.dir`, but for rows of an identity dataset, which take 80 bytes each",
    );
    let mut ms = |key, default, meaning| -> u64 {
        const TEN_MINUTES: i64 = 600_000;
        s.get(key, &forms::whole(1, TEN_MINUTES), default, meaning)
    };
    let header_timeout_ms = ms(
        "header_timeout_ms",
        "5000",
        "from a request's first byte to the end of its headers",
    );
    let body_timeout_ms = ms(
        "body_timeout_ms",
        "5000",
        "from the end of the headers to the end of the body",
    );
    let write_timeout_ms = ms(
        "write_timeout_ms",
        "5000",
        "for the client to take the answer",
    );
    let idle_timeout_ms = ms(
        "idle_timeout_ms",
        "120000",
        "between two requests of a connection",
    );
    let drain_timeout_ms = ms(
        "drain_timeout_ms",
        "10000",
        "for requests under way to end when the service stops",
    );
    let upload_stall_timeout_ms = ms(
        "upload_stall_timeout_ms",
        "30000",
        "between two bytes of an upload",
    );
    let queue_target_ms = ms(
        "queue_target_ms",
        "20",
        "how long bid requests are meant to wait at most for their turn on a thread, and no more than a third of the time that the tightest exchange gives: what would make it longer is answered 204 unread",
    );
    let mut count = |key, max, default, meaning| -> usize {
        s.get(key, &forms::whole(1, max), default, meaning)
    };
    Limits {
        bid_body_bytes,
        bid_header_bytes,
        bid_connections: count(
            "bid_connections",
            1 << 20,
            "16384",
            "connections to the bid listener",
        ),
        header_timeout_ms,
        body_timeout_ms,
        write_timeout_ms,
        idle_timeout_ms,
        drain_timeout_ms,
        queue_target_ms,
        ids_per_request: count(
            "ids_per_request",
            IDS_MAX as i64,
            "64",
            "ids looked up for one request; the rest are left out",
        ),
        imps_per_request: count(
            "imps_per_request",
            128,
            "128",
            "imps looked at in one request; the rest get no bid",
        ),
        frequency_keys: count(
            "frequency_keys",
            1_000_000_000,
            "4000000",
            "ids of which it is remembered what they were shown, about three times each, for frequency caps; beyond them capped line items do not bid; 64 bytes each, taken when the first line item with a cap is live",
        ),
        journal_bytes: count(
            "journal_bytes",
            1 << 40,
            "67108864",
            "the ledger's journal, before it is begun anew with what still counts",
        ),
        report_rows: count(
            "report_rows",
            1_000_000_000,
            "2000000",
            "rows of the report, of about 100 bytes: by line item, exchange, hour and creative, segment or no-bid reason; beyond them hours become days before they are three days old, then the oldest days are forgotten",
        ),
        upload_bytes,
        uploads: count("uploads", 1024, "4", "uploads at once; more are 429"),
        upload_stall_timeout_ms,
        admin_body_bytes,
        admin_connections: count(
            "admin_connections",
            65_536,
            "256",
            "connections to the admin listener",
        ),
        datasets: count("datasets", 65_535, "256", "datasets in all"),
        segments_per_dataset: count(
            "segments_per_dataset",
            65_535,
            "65535",
            "segments of one dataset",
        ),
        campaigns_bytes,
        build_memory_bytes,
        ids_per_person: count(
            "ids_per_person",
            IDS_PER_PERSON_MAX as i64,
            "32",
            "ids of one person in an uploaded identity dataset; rows of more are rejected",
        ),
        ids_per_source: count(
            "ids_per_source",
            IDS_PER_PERSON_MAX as i64,
            "8",
            "of those, from one source",
        ),
    }
}
