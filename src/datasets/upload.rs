//! One upload: spooled, judged, built, validated, warmed, and activated or not.
//!
//! Who calls streams the decoded body into a [`Spool`] and then hands it to [`Datasets::publish`], which does the rest
//! or refuses and leaves no trace: the number stays free, the spool is gone.
//!
//! Order and idempotence. A number above the newest is taken by the first upload that gets through. The same body and
//! parameters again is the same upload again and changes nothing. Everything else is refused. Two uploads to one dataset
//! are judged one after the other, under the dataset's `building` lock; uploads to different datasets run in parallel.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

use super::activation::{Effect, Opened, known, known_mut, unknown_version};
use super::manifest::{
    Dataset, Manifest, Notice, Rejected, Standing, Version, compacted_file, version_file,
};
use super::measures::Outcome;
use super::{CAMPAIGNS, Datasets, Refused, Snapshot, VersionView, guards, listing, lock};
use crate::audience::{AsOf, RowFormat};
use crate::clock::Timestamp;
use crate::ids::{Hex, Kind, Name};
use crate::storage::StorageWriter;

/// How far ahead of our clock an `as_of` may lie: two clocks that NTP keeps differ by less.
const AS_OF_SKEW_MS: i64 = 60_000;
/// Highest version number: manifests, metrics and other languages' signed integers can all hold it.
const VERSION_MAX: u64 = i64::MAX as u64;

/// What an upload says about its body.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The dataset.
    pub dataset: Name,
    /// The number it wants.
    pub version: u64,
    /// The kind of a new dataset; must fit an existing one.
    pub kind: Option<Kind>,
    /// Full or delta.
    pub mode: Mode,
    /// The version a delta builds on.
    pub base: Option<u64>,
    /// Up to where the input had been read.
    pub as_of: Option<AsOf>,
    /// False: stage only.
    pub activate: bool,
    /// How the body is to be read.
    pub format: Format,
}

/// Whether an upload replaces or changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The whole dataset.
    Full,
    /// Changes to a base.
    Delta,
}

/// How a body is to be read.
#[derive(Debug, Clone)]
pub enum Format {
    /// A `.kith` file.
    Snapshot,
    /// Rows.
    Rows(RowFormat),
    /// A campaigns document, JSON or TOML.
    Document,
}

/// A decoded body on its way to disk. Dropped, it is gone.
#[derive(Debug)]
pub struct Spool {
    pub(super) writer: StorageWriter,
    digest: Sha256,
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

/// The answer to an upload.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Published {
    /// False: the same upload had been here before. Nothing has changed, unless its file was lost and is made anew.
    #[serde(skip)]
    pub fresh: bool,
    /// The dataset.
    pub dataset: Name,
    /// What became of the version.
    #[serde(flatten)]
    pub version: VersionView,
    /// The first refused rows.
    pub rejected: Vec<Rejected>,
    /// What in a document deserves a look.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Notice>,
}

impl Datasets {
    /// What can be refused before the body is read. Passing says nothing about later.
    pub fn admit(&self, upload: &Upload, now: Timestamp) -> Result<(), Refused> {
        let state = self.ready_snapshot()?;
        if !(1..=VERSION_MAX).contains(&upload.version) {
            return Err(Refused::VersionNumber);
        }
        let dataset = state.manifest.datasets.get(&upload.dataset);
        let kind = self.kind_of(upload, dataset)?;
        match (upload.mode, upload.base) {
            (Mode::Full, None) => {}
            (Mode::Delta, Some(_)) if kind == Kind::Identity => {
                return Err(Refused::NoDeltasOfPersons);
            }
            (Mode::Delta, Some(_)) if kind != Kind::Audience => {
                return Err(Refused::NoDeltas(kind));
            }
            (Mode::Delta, Some(base)) => {
                // One that is here already rests on what was live then.
                let known = dataset.is_some_and(|d| d.versions.contains_key(&upload.version));
                if !known {
                    may_rest_on(&state, &upload.dataset, base)?;
                }
            }
            _ => return Err(Refused::Base),
        }
        match (kind, &upload.format) {
            (Kind::Identity, Format::Rows(RowFormat::Text { .. }) | Format::Document) => {
                return Err(Refused::FormatOfKind {
                    kind,
                    takes: "application/vnd.kith.snapshot, text/csv and application/x-ndjson",
                });
            }
            (Kind::Campaigns | Kind::Scores, Format::Document)
            | (
                Kind::Audience | Kind::Filter | Kind::Identity,
                Format::Snapshot | Format::Rows(_),
            ) => {}
            (Kind::Campaigns | Kind::Scores, _) => {
                return Err(Refused::FormatOfKind {
                    kind,
                    takes: "application/json and application/toml",
                });
            }
            (Kind::Audience | Kind::Filter, Format::Document) => {
                return Err(Refused::FormatOfKind {
                    kind,
                    takes: "application/vnd.kith.snapshot, text/csv, text/plain and application/x-ndjson",
                });
            }
        }
        self.not_ahead(upload.as_of, now)?;
        match dataset {
            Some(dataset) => in_order(dataset, upload),
            None => self.room_for(&state.manifest, &upload.dataset),
        }
    }

    /// Whether the dataset is there, or may be.
    fn room_for(&self, manifest: &Manifest, name: &Name) -> Result<(), Refused> {
        let most = self.settings.datasets_max;
        if manifest.datasets.contains_key(name) || manifest.datasets.len() < most {
            Ok(())
        } else {
            Err(Refused::TooManyDatasets(most))
        }
    }

    /// A place for a decoded body.
    pub fn spool(&self) -> Result<Spool, Refused> {
        Ok(Spool {
            writer: self.storage.create()?,
            digest: Sha256::new(),
        })
    }

    /// Makes a version of a spooled body and activates it if it may be. Blocks: reads, builds, syncs.
    ///
    /// `by` is who uploads, for the history.
    pub fn publish(
        &self,
        upload: &Upload,
        spool: Spool,
        by: &str,
        now: Timestamp,
    ) -> Result<Published, Refused> {
        let building = self.building(&upload.dataset);
        let published = {
            let _one_at_a_time = lock(&building);
            self.publish_alone(upload, spool, by, now)
        };
        drop(building);
        // Names of refused uploads must not pile up.
        lock(&self.building).retain(|_, users| Arc::strong_count(users) > 1);
        published
    }

    /// One upload to a dataset, while no other is made there.
    fn publish_alone(
        &self,
        upload: &Upload,
        mut spool: Spool,
        by: &str,
        now: Timestamp,
    ) -> Result<Published, Refused> {
        self.admit(upload, now)?;
        let state = self.ready_snapshot()?;
        let dataset = state.manifest.datasets.get(&upload.dataset);
        let kind = self.kind_of(upload, dataset)?;
        let body_sha256 = Hex(&spool.digest.clone().finalize()).to_string();
        let query = upload.spelled(kind);
        if let Some((dataset, known)) =
            dataset.and_then(|d| Some((d, d.versions.get(&upload.version)?)))
        {
            same(upload, known, &body_sha256, &query)?;
            let live = dataset.live == Some(upload.version);
            let lost = live && state.unreadable.contains_key(&upload.dataset);
            let damaged = known.damage.is_some()
                || (!live && self.is_damaged(&upload.dataset, upload.version, &state));
            if lost || damaged {
                return self.restore(upload, kind, spool, &state, by, now);
            }
            return Ok(published(upload, dataset, known, false));
        }

        // 1. Build, where memory allows what comes of it: the version file is durable under its name, which nothing refers to yet.
        let started = Instant::now();
        spool.flush()?;
        let body_bytes = spool.writer.bytes();
        self.room_to_build(upload, kind, body_bytes, &state)?;
        let built = self.build(upload, kind, spool, &state, now)?;
        let build_seconds = started.elapsed().as_secs_f64();
        let seen = built.seen;

        let mut version = Version {
            standing: Standing::Staged,
            body_sha256,
            query,
            as_of: built.as_of.map(|a| a.to_string()),
            covers: self.covers(upload, built.as_of, &state),
            base: upload.base,
            root: built.root,
            compacted: None,
            changed_ids: upload.base.map(|_| built.rows.ids),
            bytes: built.bytes,
            rows: built.rows,
            checks: Vec::new(),
            profile: None,
            warnings: built.warnings,
            uploaded_at: now,
            activated_at: None,
            build_seconds,
            activate_seconds: 0.0,
            verified_at: None,
            damage: None,
        };

        // 2. Open what was written as a restart would: every byte verified, every page warm. Where memory allows.
        let warming = Instant::now();
        let bytes = state.opening_bytes(&upload.dataset, upload.version, &version);
        let room = self.room(&upload.dataset, kind, bytes);
        let opened = if room.enough() {
            let opened = self.open_file(&upload.dataset, kind, upload.version, &version, &state);
            Some(opened.map_err(|reason| {
                self.forget(upload, kind);
                Refused::Unreadable {
                    dataset: upload.dataset.clone(),
                    version: upload.version,
                    reason,
                }
            })?)
        } else {
            None
        };
        version.activate_seconds = warming.elapsed().as_secs_f64();
        version.verified_at = opened.as_ref().map(|_| now);

        // 3. Guards, against what is live by now.
        if let Some(Opened::Audience(whole)) = opened.as_ref().filter(|_| upload.base.is_some()) {
            let (segments, most) = (whole.segments().len(), self.settings.segments_max);
            if segments > most {
                self.forget(upload, kind);
                return Err(Refused::TooManySegments { segments, most });
            }
            version.rows.ids = whole.ids();
            version.rows.segments = whole.segments().len() as u64;
        }
        let seen = seen.as_ref();
        let mut candidate = guards::Candidate {
            rows: &version.rows,
            format: &upload.format,
            as_of: built.as_of,
            seen,
            is_delta: upload.base.is_some(),
            opened: None,
            room: &room,
        };
        match (kind, &opened) {
            (Kind::Audience, opened) => {
                if let Some(Opened::Audience(audience)) = opened {
                    candidate.opened = Some(audience);
                    let lasting = self.lasting(&upload.dataset, &candidate, now);
                    let profile = guards::profile(audience, seen, lasting, body_bytes);
                    version.profile = Some(profile);
                }
                version.checks = self.checks(&upload.dataset, &candidate, now);
            }
            (Kind::Filter, opened) => {
                let measured = match opened {
                    Some(Opened::Filter(measured)) => Some(measured),
                    _ => None,
                };
                version.checks =
                    self.checks_of_a_filter(&upload.dataset, &candidate, measured, now);
                version.profile =
                    measured.map(|m| guards::profile_of_a_filter(&m.filter, seen, body_bytes));
            }
            (Kind::Identity, opened) => {
                let graph = match opened {
                    Some(Opened::Graph(graph)) => Some(graph.as_ref()),
                    _ => None,
                };
                version.checks = self.checks_of_a_graph(&upload.dataset, &candidate, now);
                version.profile = graph.map(|g| guards::profile_of_a_graph(g, seen, body_bytes));
            }
            (Kind::Campaigns | Kind::Scores, _) => {}
        }
        let shadow = self.shadow(upload, kind, opened.as_ref(), now);
        version.checks.extend(shadow);
        let held = version.checks.iter().any(|c| !c.ok);
        if held {
            version.standing = Standing::Held;
        }

        // 4. Known to the manifest, and live if it may be; in one step.
        let rows = version.rows.clone();
        let mut live = false;
        let done = self.change(|next| {
            let effect = self.admit_version(next, upload, kind, version, opened, by, now)?;
            live = effect.swap;
            Ok(((), effect))
        });
        // The manifest does not name the file then (or cannot be trusted, and storage refuses to remove).
        done.inspect_err(|_| self.forget(upload, kind))?;

        // 5. Told.
        self.measures.begin(&upload.dataset, kind);
        self.measures.rows(&upload.dataset, &rows);
        let seconds = warming.elapsed().as_secs_f64();
        if live {
            self.served(&upload.dataset, seconds);
        } else if held {
            self.measures.ended(&upload.dataset, Outcome::Held);
        }
        let state = self.snapshot();
        let dataset = known(&state, &upload.dataset)?;
        let stored = dataset
            .versions
            .get(&upload.version)
            .ok_or_else(|| unknown_version(&upload.dataset, upload.version))?;
        let mut answer = published(upload, dataset, stored, true);
        answer.version.activate_seconds = if live { seconds } else { 0.0 };
        Ok(answer)
    }

    /// Makes the file of a known version anew from the body that it was first made of, and serves it where it is live.
    fn restore(
        &self,
        upload: &Upload,
        kind: Kind,
        mut spool: Spool,
        state: &Snapshot,
        by: &str,
        now: Timestamp,
    ) -> Result<Published, Refused> {
        let (name, number) = (&upload.dataset, upload.version);
        let mut version = known(state, name)?
            .versions
            .get(&number)
            .ok_or_else(|| unknown_version(name, number))?
            .clone();
        let started = Instant::now();
        spool.flush()?;
        version.bytes = self.build(upload, kind, spool, state, now)?.bytes;
        // What was compacted stays where it is whole: perhaps nothing else is kept of what it was made of.
        let compacted = version.compacted;
        if self.is_compacted_damaged(name, number, state) {
            version.compacted = None;
        }
        let gone = compacted.filter(|_| version.compacted.is_none());
        version.damage = None;
        version.build_seconds = started.elapsed().as_secs_f64();
        let unreadable = |reason| Refused::Unreadable {
            dataset: name.clone(),
            version: number,
            reason,
        };
        let warming = Instant::now();
        // What is not waited for is verified as it lies: opening it would take memory, and perhaps what it rests on is lost too.
        let is_waited_for = state.unreadable.contains_key(name);
        let is_live = known(state, name)?.live == Some(number);
        let mut opened = None;
        if is_waited_for && is_live {
            let whole = self.open_file(name, kind, number, &version, state);
            opened = Some(whole.map_err(unreadable)?);
        } else {
            self.verify_own(name, kind, number, &version)
                .map_err(unreadable)?;
        }
        version.activate_seconds = warming.elapsed().as_secs_f64();
        let live = self.change(|next| {
            let dataset = known_mut(next, name)?;
            // Deleted or activated meanwhile, perhaps: only what is of the file is put back.
            let current = dataset
                .versions
                .get_mut(&number)
                .ok_or_else(|| unknown_version(name, number))?;
            current.bytes = version.bytes;
            current.compacted = version.compacted;
            current.damage = None;
            current.verified_at = Some(now);
            current.build_seconds = version.build_seconds;
            current.activate_seconds = version.activate_seconds;
            dataset.note(now, "restored", Some(number), by);
            let served = opened.filter(|_| dataset.live == Some(number));
            let live = served.is_some();
            if let Some(opened) = served {
                next.hold_open(name, number, opened);
            }
            let gone = gone.map(|_| compacted_file(name, number));
            let effect = Effect {
                swap: live,
                gone: gone.into_iter().collect(),
                freeing: false,
            };
            Ok((live, effect))
        })?;
        if live {
            self.served(name, version.activate_seconds);
        }
        self.version(name, number)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one step of `publish`, called once"
    )]
    fn admit_version(
        &self,
        next: &mut Snapshot,
        upload: &Upload,
        kind: Kind,
        version: Version,
        opened: Option<Opened>,
        by: &str,
        now: Timestamp,
    ) -> Result<Effect, Refused> {
        let (name, number) = (&upload.dataset, upload.version);
        // Again, now that nobody else can add one: uploads to different datasets are judged side by side.
        self.room_for(&next.manifest, name)?;
        // Somebody may have gone back to another version meanwhile: the delta must not undo that.
        if let Some(base) = upload.base {
            may_rest_on(next, name, base)?;
        }
        next.ordinal(name);
        let dataset = next
            .manifest
            .datasets
            .entry(name.clone())
            .or_insert_with(|| Dataset::new(kind));
        let held = version.standing == Standing::Held;
        let reason = match version.checks.iter().find(|c| !c.ok) {
            Some(failed) => failed.detail.clone(),
            None if dataset.pinned => format!("{by}; the dataset is pinned"),
            None => by.to_owned(),
        };
        dataset.newest = dataset.newest.max(Some(number));
        dataset.versions.insert(number, version);
        let pinned = dataset.pinned;
        dataset.note(
            now,
            if held { "held" } else { "staged" },
            Some(number),
            &reason,
        );
        // What was not opened for want of memory is held.
        match opened {
            Some(opened) if !held && !pinned && upload.activate => {
                dataset.note(now, "activated", Some(number), by);
                self.serve(next, name, number, opened, now)
            }
            _ => Ok(Effect {
                swap: false,
                gone: self.retire(name, dataset, now),
                freeing: false,
            }),
        }
    }

    fn kind_of(&self, upload: &Upload, dataset: Option<&Dataset>) -> Result<Kind, Refused> {
        let is = dataset
            .map(|d| d.kind)
            .or_else(|| Some(self.settings.datasets.get(upload.dataset.as_str())?.kind));
        let kind = match (is, upload.kind) {
            (Some(is), Some(asked)) if is != asked => {
                return Err(Refused::OtherKind {
                    dataset: upload.dataset.clone(),
                    is,
                    asked,
                });
            }
            (Some(is), _) => is,
            (None, asked) => asked.unwrap_or(Kind::Audience),
        };
        if kind == Kind::Campaigns && upload.dataset.as_str() != CAMPAIGNS {
            return Err(Refused::CampaignsElsewhere);
        }
        Ok(kind)
    }

    /// Removes a version file that did not become a version.
    fn forget(&self, upload: &Upload, kind: Kind) {
        // A name that did not become a dataset gets no series: `limits.datasets` bounds them.
        if known(&self.snapshot(), &upload.dataset).is_ok() {
            self.measures.ended(&upload.dataset, Outcome::Failed);
        }
        let file = version_file(&upload.dataset, kind, upload.version);
        if let Err(error) = self.storage.remove(&file) {
            tracing::warn!(%error, "a version file that nothing names could not be removed");
        }
    }
}

impl Upload {
    /// The parameters in one spelling, so that equal ones compare equal however they were written.
    fn spelled(&self, kind: Kind) -> String {
        let mut text = match &self.format {
            Format::Snapshot => "snapshot".to_owned(),
            Format::Document => "document".to_owned(),
            Format::Rows(RowFormat::Csv) => "csv".to_owned(),
            Format::Rows(RowFormat::Ndjson) => "ndjson".to_owned(),
            Format::Rows(RowFormat::Text { source, segment }) => {
                format!("text source={source:?} segment={segment}")
            }
        };
        text.push_str(&format!(" kind={kind} activate={}", self.activate));
        if let Some(base) = self.base {
            text.push_str(&format!(" mode=delta base={base}"));
        }
        if let Some(as_of) = self.as_of {
            text.push_str(&format!(" as_of={as_of}"));
        }
        text
    }
}

/// Whether the number is known or above the newest.
fn in_order(dataset: &Dataset, upload: &Upload) -> Result<(), Refused> {
    let (name, version) = (upload.dataset.clone(), upload.version);
    if dataset.versions.contains_key(&version) {
        return Ok(());
    }
    match dataset.newest {
        Some(newest) if version == newest => Err(Refused::Deleted {
            dataset: name,
            version,
        }),
        Some(newest) if version < newest => Err(Refused::BelowNewest {
            dataset: name,
            version,
            newest,
        }),
        _ => Ok(()),
    }
}

/// Whether a delta may be laid over a version: the live one, which is open.
fn may_rest_on(state: &Snapshot, name: &Name, base: u64) -> Result<(), Refused> {
    let live = state.manifest.datasets.get(name).and_then(|d| d.live);
    let dataset = name.clone();
    if live != Some(base) {
        return Err(Refused::BaseNotLive {
            dataset,
            base,
            live,
        });
    }
    let open = state.audiences.get(name);
    let open = open.filter(|open| open.meta().version == base);
    let open = open.ok_or(Refused::BaseUnreadable { dataset, base })?;
    open.may_be_changed().map_err(Refused::Delta)
}

/// Whether an upload is the one that took the number.
fn same(upload: &Upload, known: &Version, body: &str, query: &str) -> Result<(), Refused> {
    let (dataset, version) = (upload.dataset.clone(), upload.version);
    if known.body_sha256 != body {
        return Err(Refused::OtherBytes {
            dataset,
            version,
            known: known.body_sha256.clone(),
            given: body.to_owned(),
        });
    }
    if known.query != query {
        return Err(Refused::OtherQuery {
            dataset,
            version,
            known: known.query.clone(),
            given: query.to_owned(),
        });
    }
    Ok(())
}

impl Datasets {
    /// Nobody has read what is not there yet.
    pub(super) fn not_ahead(&self, as_of: Option<AsOf>, now: Timestamp) -> Result<(), Refused> {
        let latest = now.unix_ms.saturating_add(AS_OF_SKEW_MS);
        let is_ahead = match as_of {
            Some(AsOf::Time(time)) => time.unix_ms > latest,
            Some(AsOf::Position(position)) => position > self.settings.frame.people.sequence(),
            None => false,
        };
        match as_of.filter(|_| is_ahead) {
            Some(as_of) => Err(Refused::AsOfFuture(as_of)),
            None => Ok(()),
        }
    }

    /// Up to which row of people's journal an upload's input had been read. A delta that does not say has what is below it.
    fn covers(&self, upload: &Upload, as_of: Option<AsOf>, state: &Snapshot) -> Option<u64> {
        let own = as_of.map(|as_of| self.settings.frame.people.position(as_of));
        own.or_else(|| {
            let dataset = state.manifest.datasets.get(&upload.dataset)?;
            dataset.versions.get(&upload.base?)?.covers
        })
    }
}

fn published(upload: &Upload, dataset: &Dataset, known: &Version, fresh: bool) -> Published {
    Published {
        fresh,
        dataset: upload.dataset.clone(),
        version: listing::version_view(upload.version, known, dataset, false),
        rejected: known.rows.rejected.clone(),
        warnings: known.warnings.clone(),
    }
}
