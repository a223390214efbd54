//! Why the datasets refuse something, each telling what to do. How it looks in HTTP is the admin listener's business.

use super::manifest::Rows;
use crate::audience::{AsOf, BuildError, LayerError, OpenError, ReadError};
use crate::campaigns::DocumentError;
use crate::ids::{KeyId, Kind, Name};
use crate::storage::StorageError;

/// Why a call on datasets was refused. Unless said otherwise, nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Still recovering what was live before the restart.
    #[error("the service is still bringing back what was live; try again when /readyz says ready")]
    Recovering,
    /// No dataset of that name.
    #[error("there is no dataset `{0}`; GET /v1/datasets lists them, and an upload creates one")]
    UnknownDataset(Name),
    /// No such version.
    #[error(
        "dataset `{dataset}` has no version {version}; GET /v1/datasets/{dataset} lists what it has"
    )]
    UnknownVersion {
        /// The dataset.
        dataset: Name,
        /// The version asked for.
        version: u64,
    },
    /// The number is out of range.
    #[error("a version is a whole number from 1 to 9223372036854775807")]
    VersionNumber,
    /// A number below the newest.
    #[error(
        "version {version} is below the newest, {newest}, of dataset `{dataset}`; upload under a higher number, or activate an older version to roll back"
    )]
    BelowNewest {
        /// The dataset.
        dataset: Name,
        /// The version asked for.
        version: u64,
        /// The highest number taken.
        newest: u64,
    },
    /// The number was taken by a version that has been deleted.
    #[error(
        "version {version} of dataset `{dataset}` was deleted and its number stays taken; upload under a higher number"
    )]
    Deleted {
        /// The dataset.
        dataset: Name,
        /// The version asked for.
        version: u64,
    },
    /// The number is taken by other bytes.
    #[error(
        "version {version} of dataset `{dataset}` holds other bytes (sha-256 {known}, these are {given}); upload them under a higher number"
    )]
    OtherBytes {
        /// The dataset.
        dataset: Name,
        /// The version asked for.
        version: u64,
        /// Digest of the decoded body that took the number.
        known: String,
        /// Digest of this one.
        given: String,
    },
    /// The number is taken by the same bytes, read otherwise.
    #[error(
        "version {version} of dataset `{dataset}` was uploaded with other parameters (`{known}`, now `{given}`); upload under a higher number"
    )]
    OtherQuery {
        /// The dataset.
        dataset: Name,
        /// The version asked for.
        version: u64,
        /// Parameters of the upload that took the number.
        known: String,
        /// Parameters of this one.
        given: String,
    },
    /// The dataset is of another kind.
    #[error(
        "dataset `{dataset}` is of kind {is}, not {asked}; leave `kind` out, or use another name"
    )]
    OtherKind {
        /// The dataset.
        dataset: Name,
        /// Its kind.
        is: Kind,
        /// The kind asked for.
        asked: Kind,
    },
    /// Campaigns under another name.
    #[error("the campaigns document is uploaded to the dataset `campaigns`, which always exists")]
    CampaignsElsewhere,
    /// A delta over a version that is not live.
    #[error(
        "a delta is laid over the live version, and {} of dataset `{dataset}`, not {base}; make it over what is live, or upload a full version",
        .live.map_or_else(|| "there is none".to_owned(), |live| format!("that is version {live}"))
    )]
    BaseNotLive {
        /// The dataset.
        dataset: Name,
        /// The version that the delta changes.
        base: u64,
        /// What the dataset serves.
        live: Option<u64>,
    },
    /// A delta over a live version that could not be read back.
    #[error(
        "version {base} of dataset `{dataset}` is live but could not be read back, so a delta cannot be laid over it; upload a full version"
    )]
    BaseUnreadable {
        /// The dataset.
        dataset: Name,
        /// The version that the delta changes.
        base: u64,
    },
    /// A delta of a kind that has none.
    #[error("a dataset of kind {0} has no deltas; leave out mode and base and upload all of it")]
    NoDeltas(Kind),
    /// A delta of an identity dataset.
    #[error(
        "a dataset of kind identity has no deltas; leave out mode and base and upload all of it: what changes in between is linked live, by POST /v1/links"
    )]
    NoDeltasOfPersons,
    /// A delta that does not fit what it is laid over.
    #[error("the delta does not fit: {0}")]
    Delta(LayerError),
    /// A delta's file without `mode=delta`, or a full version's with it.
    #[error("this version file is {file}; upload it with {parameters}")]
    OtherMode {
        /// What the file is.
        file: String,
        /// What the query should say.
        parameters: String,
    },
    /// A version that others are deltas over cannot be deleted.
    #[error(
        "version {by} of dataset `{dataset}` is a delta over version {version}, perhaps by way of others; delete that one first"
    )]
    Needed {
        /// The dataset.
        dataset: Name,
        /// The version asked for.
        version: u64,
        /// One that needs it.
        by: u64,
    },
    /// `mode=full` with a base, or `mode=delta` without.
    #[error("`base` belongs to mode=delta, and mode=delta needs it")]
    Base,
    /// The media type does not fit the kind.
    #[error("a dataset of kind {kind} takes {takes}")]
    FormatOfKind {
        /// The dataset's kind.
        kind: Kind,
        /// The media types that fit.
        takes: &'static str,
    },
    /// The limit on datasets is reached.
    #[error(
        "there are already {0} datasets, which is limits.datasets; raise it, or use one that exists"
    )]
    TooManyDatasets(usize),
    /// `as_of` lies ahead.
    #[error(
        "as_of {0} lies in the future: it is the time, or the row of the journal (GET /v1/journal), up to which the input had been read"
    )]
    AsOfFuture(AsOf),
    /// `as_of` of the query and of the file differ.
    #[error("the file says as_of {file}, the query {query}; leave the query's out")]
    AsOfDiffers {
        /// In the file, or `none`.
        file: String,
        /// In the query.
        query: AsOf,
    },
    /// The rows cannot be read at all.
    #[error("the rows cannot be read: {0}")]
    Rows(ReadError),
    /// Not one good row.
    #[error(
        "there is no good row in the upload ({} were rejected); an empty version would clear the dataset, so correct the rows listed under `rejected` and upload again",
        .0.rejected_rows
    )]
    NoGoodRow(Rows),
    /// A version file that is not one, or damaged.
    #[error(
        "the version file cannot be used (`kith inspect` says the same): {}", .0.flaw
    )]
    Snapshot(OpenError),
    /// A version file made under another key.
    #[error(
        "this version file was made under key {file}, this service has key {ours}; build it with the service's key file (--key-file)"
    )]
    OtherKey {
        /// Of the file.
        file: KeyId,
        /// Of this service.
        ours: KeyId,
    },
    /// A version file of another dataset, version or kind.
    #[error(
        "this version file was built for {file}, not for {asked}; build it with --dataset, --version and --kind as they are there (a new dataset is of the kind that ?kind= says)"
    )]
    OtherVersion {
        /// What the file says.
        file: String,
        /// What the call says.
        asked: String,
    },
    /// A version file, or what comes of a delta, of more segments than are taken.
    #[error(
        "it has {segments} segments, more than limits.segments_per_dataset ({most}); raise it, or spread them over several datasets"
    )]
    TooManySegments {
        /// How many it has.
        segments: usize,
        /// How many are taken.
        most: usize,
    },
    /// A document, of campaigns or scores, has errors.
    #[error("the document has {} error(s), listed under `errors`; correct them and upload again", .0.len())]
    Document(Vec<DocumentError>),
    /// A document is too long.
    #[error("the document is over {0} bytes, which is limits.campaigns_bytes")]
    DocumentTooLong(u64),
    /// A pinned dataset.
    #[error("dataset `{dataset}` is pinned at version {live}; unpin it, or activate with force")]
    Pinned {
        /// The dataset.
        dataset: Name,
        /// What it serves.
        live: u64,
    },
    /// A held version.
    #[error("version {version} of dataset `{dataset}` is held: {why}")]
    Held {
        /// The dataset.
        dataset: Name,
        /// The version.
        version: u64,
        /// The checks it failed.
        why: String,
    },
    /// Nothing to pin.
    #[error("dataset `{0}` has no live version to pin; activate one first")]
    NothingLive(Name),
    /// Not the live one.
    #[error(
        "dataset `{dataset}` serves another version than {version}; activate it first, then pin"
    )]
    NotLive {
        /// The dataset.
        dataset: Name,
        /// The version asked for.
        version: u64,
    },
    /// The live version cannot be deleted.
    #[error("version {version} of dataset `{dataset}` is live; activate another one first")]
    Live {
        /// The dataset.
        dataset: Name,
        /// The version asked for.
        version: u64,
    },
    /// A stored version that cannot be read any more.
    #[error(
        "version {version} of dataset `{dataset}` cannot be read: {reason}; upload the same body again to restore it, or activate another version"
    )]
    Unreadable {
        /// The dataset.
        dataset: Name,
        /// The version.
        version: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// It could not be opened beside the live version.
    #[error(
        "there is not enough memory to open version {version} of dataset `{dataset}` beside the live one: it takes about {needed}, {available} can be had and {spare} must be left; give the service more memory, lower guards.spare_memory, or {otherwise}"
    )]
    Memory {
        /// The dataset.
        dataset: Name,
        /// The version.
        version: u64,
        /// What it takes.
        needed: String,
        /// What there is.
        available: String,
        /// What must be left.
        spare: String,
        /// What else could be done.
        otherwise: &'static str,
    },
    /// It could not be stored. What was live stays live.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It could not be read back.
    #[error("reading back what was stored failed: {0}")]
    Io(std::io::Error),
    /// The version file could not be made.
    #[error("the version file could not be made: {0}")]
    Build(BuildError),
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Refused {
        match error.downcast::<StorageError>() {
            Ok(storage) => Refused::Storage(storage),
            Err(other) => Refused::Io(other),
        }
    }
}
