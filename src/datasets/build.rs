//! From a spooled body to a durable version file: rows built, snapshots verified, campaigns compiled.

use std::io::BufReader;

use super::manifest::{Notice, Rejected, Rows, version_file};
use super::upload::{Format, Spool, Upload};
use super::{Datasets, Refused, Snapshot};
use crate::audience::{
    self, AsOf, BuildError, FalsePositiveRate, Flaw, HeadLast, LayerError, OpenError, ReadError,
    RowReport, Seen, VersionMeta,
};
use crate::campaigns::{self, Book, Scores, Surroundings};
use crate::clock::Timestamp;
use crate::ids::{Kind, Name, SegmentRef};
use crate::storage::{INCOMING, StorageWriter, open_to_read};

/// A version made but not yet known to the manifest.
pub(super) struct Built {
    pub(super) rows: Rows,
    pub(super) warnings: Vec<Notice>,
    pub(super) as_of: Option<AsOf>,
    pub(super) bytes: u64,
    /// Of a delta, the full version under whose salt its ids are hashed.
    pub(super) root: Option<u64>,
    /// What was seen of the rows, where there were any.
    pub(super) seen: Option<Seen>,
}

impl Datasets {
    /// Makes a durable version file of a spooled body. Nothing refers to it yet.
    pub(super) fn build(
        &self,
        upload: &Upload,
        kind: Kind,
        spool: Spool,
        state: &Snapshot,
        now: Timestamp,
    ) -> Result<Built, Refused> {
        let file = version_file(&upload.dataset, kind, upload.version);
        match &upload.format {
            Format::Document => {
                let length = spool.writer.bytes();
                if length > self.settings.campaigns_bytes {
                    return Err(Refused::DocumentTooLong(self.settings.campaigns_bytes));
                }
                let document = std::fs::read(spool.writer.path())?;
                let (rows, segments, warnings) = if kind == Kind::Scores {
                    let scores = Scores::read(&document).map_err(Refused::Document)?;
                    (scores.len(), scores.len(), Vec::new())
                } else {
                    let book = campaigns::compile(&document).map_err(Refused::Document)?;
                    let warnings = self.warnings(&book, state);
                    (book.line_items.len(), book.segments.len(), warnings)
                };
                let rows = Rows {
                    rows: rows as u64,
                    segments: segments as u64,
                    ..Rows::default()
                };
                Ok(Built {
                    rows,
                    warnings,
                    as_of: upload.as_of,
                    bytes: spool.writer.commit(&file)?,
                    root: None,
                    seen: None,
                })
            }
            Format::Snapshot => {
                let version = audience::Version::open(spool.writer.path()).map_err(unusable)?;
                self.fits(&version, upload, kind, state)?;
                let as_of = version.meta().as_of;
                self.not_ahead(as_of, now)?;
                let rows = Rows {
                    rows: version.rows(),
                    ids: version.ids(),
                    segments: version.segments().len() as u64,
                    merged: version.rows().saturating_sub(version.ids()),
                    ..Rows::default()
                };
                drop(version);
                let delta_root = delta_root(state, upload)?;
                Ok(Built {
                    rows,
                    warnings: Vec::new(),
                    as_of,
                    bytes: spool.writer.commit(&file)?,
                    root: delta_root,
                    seen: None,
                })
            }
            Format::Rows(format) => {
                let meta = VersionMeta {
                    kind,
                    dataset: upload.dataset.clone(),
                    version: upload.version,
                    base: upload.base,
                    as_of: upload.as_of,
                };
                let keyer = self.settings.frame.keyer.clone();
                let delta_root = delta_root(state, upload)?;
                let builder = match delta_root {
                    None => audience::Builder::new(meta, keyer),
                    Some(root) => audience::Builder::delta(meta, root, keyer),
                };
                let mut builder = builder
                    .map_err(Refused::Build)?
                    .with_segments_max(self.settings.segments_max)
                    .with_false_positive_rate(self.declared_rate(&upload.dataset))
                    .with_ids_per_person(self.settings.ids_per_person, self.settings.ids_per_source)
                    .with_memory(
                        self.settings.build_memory,
                        self.storage.dir().join(INCOMING),
                    );
                let input = BufReader::with_capacity(1 << 18, open_to_read(spool.writer.path())?);
                builder
                    .read_rows(format, input, &mut |_| {})
                    .map_err(|error| match error {
                        ReadError::Io(disk) | ReadError::Scratch(disk) => disk.into(),
                        header => Refused::Rows(header),
                    })?;
                let seen = builder.take_seen();
                let mut out = self.storage.create()?;
                let report = builder.finish(&mut out).map_err(|error| match error {
                    BuildError::Empty { report } => Refused::NoGoodRow(rows(*report)),
                    BuildError::Io(disk) | BuildError::Scratch(disk) => disk.into(),
                    other => Refused::Build(other),
                })?;
                Ok(Built {
                    rows: rows(report),
                    warnings: Vec::new(),
                    as_of: upload.as_of,
                    bytes: out.commit(&file)?,
                    root: delta_root,
                    seen: Some(seen),
                })
            }
        }
    }

    /// Whether a version file is for this service, dataset and number.
    fn fits(
        &self,
        version: &audience::Version,
        upload: &Upload,
        kind: Kind,
        state: &Snapshot,
    ) -> Result<(), Refused> {
        let meta = version.meta();
        let (file, ours) = (version.key_id(), self.settings.frame.keyer.key_id());
        if file != ours {
            return Err(Refused::OtherKey { file, ours });
        }
        if meta.base != upload.base {
            return Err(match meta.base {
                None => Refused::OtherMode {
                    file: "a full version".to_owned(),
                    parameters: "neither mode nor base".to_owned(),
                },
                Some(base) => Refused::OtherMode {
                    file: format!("a delta over version {base}"),
                    parameters: format!("mode=delta&base={base}"),
                },
            });
        }
        if meta.dataset != upload.dataset || meta.version != upload.version || meta.kind != kind {
            return Err(Refused::OtherVersion {
                file: format!("{} version {} ({})", meta.dataset, meta.version, meta.kind),
                asked: format!("{} version {} ({kind})", upload.dataset, upload.version),
            });
        }
        if let Some(base) = upload.base {
            let (own, below) = (version.root(), root(state, upload, base)?);
            if own != below {
                return Err(Refused::Delta(LayerError::OtherRoot {
                    version: meta.version,
                    root: own,
                    below,
                }));
            }
        }
        let (segments, most) = (version.segments().len(), self.settings.segments_max);
        if segments > most {
            return Err(Refused::TooManySegments { segments, most });
        }
        match upload.as_of {
            Some(query) if meta.as_of != Some(query) => Err(Refused::AsOfDiffers {
                file: meta
                    .as_of
                    .map_or_else(|| "none".to_owned(), |a| a.to_string()),
                query,
            }),
            _ => Ok(()),
        }
    }

    /// The rate that a filter dataset's versions are made for.
    fn declared_rate(&self, name: &Name) -> FalsePositiveRate {
        let configured = self.settings.datasets.get_or_default(name);
        configured.filter.false_positive_rate
    }

    /// What of a book may not do what was meant, given what is live and configured now.
    fn warnings(&self, book: &Book, state: &Snapshot) -> Vec<Notice> {
        let frame = &self.settings.frame;
        let segments = |segment: &SegmentRef| {
            let audience = state.audiences.get(&segment.dataset);
            let filter = state.filters.get(&segment.dataset);
            audience.is_some_and(|a| a.segment_index(segment.segment.as_str()).is_some())
                || filter.is_some_and(|of| *of.filter.segment() == segment.segment)
        };
        let errors = |name: &Name| match self.settings.datasets.get(name.as_str()) {
            Some(configured) => configured.errors(),
            // One that an upload has made has the terms that hold where nothing is said.
            None => {
                let terms = self.settings.datasets.get_or_default(name).filter;
                state.filters.contains_key(name).then_some(terms.errors)
            }
        };
        let currencies = |currency| frame.rates.knows(currency);
        let exchanges: Vec<&str> = self.settings.exchanges.iter().map(Name::as_str).collect();
        let warnings = book.warnings(&Surroundings {
            segments: &segments,
            errors: &errors,
            scores: &|name| state.scores.contains_key(name),
            currencies: &currencies,
            exchanges: &exchanges,
        });
        let notice = |w: campaigns::Warning| Notice {
            path: w.path,
            id: w.id,
            message: w.message,
        };
        warnings.into_iter().map(notice).collect()
    }
}

fn delta_root(state: &Snapshot, upload: &Upload) -> Result<Option<u64>, Refused> {
    upload
        .base
        .map(|base| root(state, upload, base))
        .transpose()
}

/// The full version whose salt a delta over `base` has: what it had when it was new, or that of what it is over.
fn root(state: &Snapshot, upload: &Upload, base: u64) -> Result<u64, Refused> {
    let dataset = state.manifest.datasets.get(&upload.dataset);
    let version = |number: u64| dataset.and_then(|dataset| dataset.versions.get(&number));
    if let Some(root) = version(upload.version).and_then(|known| known.root) {
        return Ok(root);
    }
    let open = state.audiences.get(&upload.dataset);
    if let Some(open) = open.filter(|open| open.meta().version == base) {
        return Ok(open.base().root());
    }
    let below = version(base).and_then(|below| match below.base {
        None => Some(base),
        Some(_) => below.root,
    });
    below.ok_or_else(|| Refused::BaseUnreadable {
        dataset: upload.dataset.clone(),
        base,
    })
}

/// A file that is at fault, or the disk that it was spooled to.
fn unusable(error: OpenError) -> Refused {
    match error.flaw {
        Flaw::Io(disk) => disk.into(),
        flaw => Refused::Snapshot(OpenError { flaw, ..error }),
    }
}

impl HeadLast for StorageWriter {
    fn write_head(&mut self, head: &[u8]) -> std::io::Result<()> {
        Self::write_head(self, head)
    }
}

fn rows(report: RowReport) -> Rows {
    let rejected = report.rejected.into_iter().map(|r| Rejected {
        line: r.line,
        reason: r.reason,
    });
    Rows {
        rows: report.rows,
        ids: report.ids,
        segments: report.segments,
        merged: report.merged,
        rejected_rows: report.rejected_rows,
        rejected: rejected.collect(),
    }
}
