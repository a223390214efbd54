//! What the datasets know that guards want to know: the live version, the exchanges, the memory there is.

use super::activation::Opened;
use super::guards::{self, Baseline, Candidate, Measured, Room, Unasked};
use super::manifest::Check;
use super::upload::{Format, Upload};
use super::{Datasets, Refused, Snapshot};
use crate::audience::Graph;
use crate::clock::Timestamp;
use crate::config::Guards;
use crate::ids::{Kind, Name};
use crate::shadow::compare;

impl Datasets {
    /// Holds a version that has been built against the one that is live now.
    pub(super) fn checks(
        &self,
        name: &Name,
        candidate: &Candidate<'_>,
        now: Timestamp,
    ) -> Vec<Check> {
        let state = self.snapshot();
        let baseline = state.baseline(name);
        let exchanges = &self.settings.exchanges;
        guards::checks(
            &self.guards(name),
            candidate,
            baseline.as_ref(),
            exchanges,
            now,
        )
    }

    /// About how many ids of a version are in something that has not expired.
    pub(super) fn lasting(&self, name: &Name, candidate: &Candidate<'_>, now: Timestamp) -> u64 {
        let state = self.snapshot();
        guards::lasting(candidate, state.baseline(name).as_ref(), now)
    }

    /// As [`checks`](Self::checks), of a filter.
    pub(super) fn checks_of_a_filter(
        &self,
        name: &Name,
        candidate: &Candidate<'_>,
        measured: Option<&Measured>,
        now: Timestamp,
    ) -> Vec<Check> {
        let state = self.snapshot();
        let baseline = state.baseline(name);
        let configured = self.settings.datasets.get_or_default(name);
        let dataset = state.manifest.datasets.get(name);
        // What could not be brought back is not what is open.
        let live = state.filters.get(name);
        let is_live = |m: &&Measured| dataset?.live.map(|n| n == m.filter.meta().version);
        let against = guards::OfFilter {
            declared_max: configured.filter.false_positive_rate,
            live: live.filter(|measured| is_live(measured) == Some(true)),
            baseline: baseline.as_ref(),
            exchanges: &self.settings.exchanges,
        };
        guards::checks_of_a_filter(&configured.guards, candidate, measured, &against, now)
    }

    /// As [`checks`](Self::checks), of an identity graph.
    pub(super) fn checks_of_a_graph(
        &self,
        name: &Name,
        candidate: &Candidate<'_>,
        now: Timestamp,
    ) -> Vec<Check> {
        let state = self.snapshot();
        let baseline = state.baseline(name);
        let dataset = state.manifest.datasets.get(name);
        // What could not be brought back is not what is open.
        let live = state.graphs.get(name);
        let is_live = |graph: &&Graph| dataset?.live.map(|n| n == graph.meta().version);
        let live = live.map(AsRef::as_ref);
        let against = guards::OfGraph {
            live: live.filter(|graph| is_live(graph) == Some(true)),
            baseline: baseline.as_ref(),
            exchanges: &self.settings.exchanges,
        };
        guards::checks_of_a_graph(&self.guards(name), candidate, &against, now)
    }

    /// Decides on recent requests with what is live and with what would be, were this version activated. Nothing is told of
    /// what is not guarded.
    pub(super) fn shadow(
        &self,
        upload: &Upload,
        kind: Kind,
        opened: Option<&Opened>,
        now: Timestamp,
    ) -> Option<Check> {
        let guards = self.guards(&upload.dataset);
        if !guards.enabled {
            return None;
        }
        let live = self.live.load();
        let compared = match opened {
            _ if !self.settings.sample.is_on() => Err(Unasked::Off),
            None => Err(Unasked::Unopened),
            Some(opened) => {
                let mut then = Snapshot::clone(&self.snapshot());
                then.hold_open(&upload.dataset, upload.version, opened.clone());
                let candidate = self.assemble(&then);
                Ok(compare(&self.settings.sample, &live, &candidate, now))
            }
        };
        let compared = compared.as_ref();
        if matches!(kind, Kind::Campaigns | Kind::Scores) {
            return compared.ok().and_then(guards::shadow_of_campaigns);
        }
        let has_live = live.datasets.iter().any(|of| of.name == upload.dataset)
            || live.graphs.iter().any(|of| of.name == upload.dataset);
        Some(guards::shadow(
            &guards,
            compared.map_err(|why| *why),
            has_live,
        ))
    }

    /// Whether there is memory to open a version whose file is so long.
    pub(super) fn room(&self, name: &Name, kind: Kind, file_bytes: u64) -> Room {
        let guards = self.guards(name);
        let is_opened = matches!(kind, Kind::Audience | Kind::Filter | Kind::Identity);
        let enabled = guards.enabled && is_opened;
        guards::room(&Guards { enabled, ..guards }, file_bytes)
    }

    /// Refuses what there would be no memory for, as far as that can be said before it is built.
    pub(super) fn room_to_build(
        &self,
        upload: &Upload,
        kind: Kind,
        body_bytes: u64,
        state: &Snapshot,
    ) -> Result<(), Refused> {
        let estimated = match upload.format {
            Format::Snapshot => Some(body_bytes),
            // As much file comes of a byte of rows as came of one before.
            Format::Rows(_) => state
                .baseline(&upload.dataset)
                .and_then(|baseline| baseline.bytes_a_byte)
                .map(|ratio| (body_bytes as f64 * ratio) as u64),
            Format::Document => None,
        };
        let Some(bytes) = estimated else {
            return Ok(());
        };
        let otherwise = "upload less and again; the number is still free";
        self.room(&upload.dataset, kind, bytes).or_refused(
            &upload.dataset,
            upload.version,
            otherwise,
        )
    }

    fn guards(&self, name: &Name) -> Guards {
        self.settings.datasets.get_or_default(name).guards
    }
}

impl Snapshot {
    fn baseline(&self, name: &Name) -> Option<Baseline<'_>> {
        let dataset = self.manifest.datasets.get(name)?;
        let open = self.audiences.get(name);
        // What could not be brought back is not what is open.
        let open = open.filter(|audience| dataset.live == Some(audience.meta().version));
        Baseline::of(dataset, open.map(AsRef::as_ref))
    }
}

impl Room {
    /// An error where there is not enough of it.
    pub(super) fn or_refused(
        &self,
        dataset: &Name,
        version: u64,
        otherwise: &'static str,
    ) -> Result<(), Refused> {
        if self.enough() {
            return Ok(());
        }
        Err(Refused::Memory {
            dataset: dataset.clone(),
            version,
            needed: guards::shown(self.needed),
            available: guards::shown(self.available.unwrap_or(0)),
            spare: guards::shown(self.spare),
            otherwise,
        })
    }
}
