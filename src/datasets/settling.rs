//! A version that takes the place of another is served where its file lies, mapped, until the other's memory is given
//! back; then it is copied into memory of its own, and served from there under the same number.
//!
//! So a swap takes no more anonymous memory than what serves all the time. Why not for ever mapped: see
//! [`AudienceFile::open_mapped`](crate::audience::AudienceFile::open_mapped). Where nothing is replaced, as at a start, and where a file is small, it is read at
//! once.

use std::sync::{Arc, Weak};

use super::activation::{Effect, Opened};
use super::housekeeping::Reason;
use super::{Datasets, Snapshot, lock};
use crate::audience::{AudienceFile, Filter, Graph, OpenError};
use crate::ids::{Kind, Name};

/// Below this a second copy does not matter. Tests have small files.
pub(super) const MAPPED_FROM_BYTES: u64 = if cfg!(test) { 2 << 10 } else { 4 << 20 };

/// Memory of a version that was replaced, for as long as somebody reads it.
#[derive(Debug)]
pub(super) enum Remains {
    Audience(Weak<AudienceFile>),
    Filter(Weak<Filter>),
    Graph(Weak<Graph>),
}

impl Remains {
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Audience(file) => file.strong_count() == 0,
            Self::Filter(filter) => filter.strong_count() == 0,
            Self::Graph(graph) => graph.strong_count() == 0,
        }
    }
}

impl Snapshot {
    /// Whether a version of a dataset that is opened now takes the place of one that has memory.
    pub(super) fn replaces(&self, name: &Name) -> bool {
        self.audiences.contains_key(name)
            || self.filters.contains_key(name)
            || self.graphs.contains_key(name)
    }

    /// Bytes of a dataset that are served mapped.
    fn mapped_bytes(&self, name: &Name) -> u64 {
        let audience = self.audiences.get(name).map(|audience| audience.base());
        let audience = audience.filter(|base| base.is_mapped());
        let filter = self.filters.get(name).map(|measured| &measured.filter);
        let filter = filter.filter(|filter| filter.is_mapped());
        let bytes = audience.map_or(0, |base| base.bytes());
        let graph = self.graphs.get(name).filter(|graph| graph.is_mapped());
        bytes
            .saturating_add(filter.map_or(0, |filter| filter.bytes()))
            .saturating_add(graph.map_or(0, |graph| graph.bytes()))
    }
}

impl Datasets {
    /// Asks for what `next` serves mapped to be copied, once what it replaces is gone.
    pub(super) fn settle_after(&self, before: &Snapshot, next: &Snapshot) {
        let others = next.filters.keys().chain(next.graphs.keys());
        for name in next.audiences.keys().chain(others) {
            let mapped = next.mapped_bytes(name);
            self.measures.mapped(name, mapped);
            if mapped == 0 {
                continue;
            }
            let mut remains = Vec::new();
            if let Some(audience) = before.audiences.get(name) {
                let stays = next.audiences.get(name);
                if stays.is_none_or(|next| !Arc::ptr_eq(next.base(), audience.base())) {
                    remains.push(Remains::Audience(Arc::downgrade(audience.base())));
                }
            }
            if let Some(measured) = before.filters.get(name) {
                let stays = next.filters.get(name);
                if stays.is_none_or(|next| !Arc::ptr_eq(&next.filter, &measured.filter)) {
                    remains.push(Remains::Filter(Arc::downgrade(&measured.filter)));
                }
            }
            if let Some(graph) = before.graphs.get(name) {
                let stays = next.graphs.get(name);
                if stays.is_none_or(|next| !Arc::ptr_eq(next, graph)) {
                    remains.push(Remains::Graph(Arc::downgrade(graph)));
                }
            }
            self.chores.settle(name, remains);
        }
    }

    /// Copies what a dataset serves mapped, and serves the copy. Whether there was anything to copy.
    pub(super) fn settle(&self, name: &Name) -> Result<bool, Reason> {
        let before = self.snapshot();
        if let Some(audience) = before.audiences.get(name)
            && audience.base().is_mapped()
        {
            self.room_to_settle(name, Kind::Audience, audience.base().bytes())?;
            let settled = audience.base().settled();
            let settled = settled.map_err(|e| self.lost(name, audience.meta().version, &e))?;
            let settled = Arc::new(settled);
            return self.serve_settled(name, |now| {
                // Deltas may have come meanwhile.
                let now = now.audiences.get(name)?;
                let same = Arc::ptr_eq(now.base(), audience.base());
                let settled = now.with_base(Arc::clone(&settled));
                same.then(|| (now.meta().version, Opened::Audience(Arc::new(settled))))
            });
        }
        if let Some(measured) = before.filters.get(name)
            && measured.filter.is_mapped()
        {
            self.room_to_settle(name, Kind::Filter, measured.filter.bytes())?;
            let version = measured.filter.meta().version;
            let settled = measured.filter.settled();
            let settled = settled.map_err(|e| self.lost(name, version, &e))?;
            let settled = Arc::new(settled);
            return self.serve_settled(name, |now| {
                let now = now.filters.get(name)?;
                let same = Arc::ptr_eq(&now.filter, &measured.filter);
                let mut copy = now.clone();
                copy.filter = settled;
                same.then(|| (copy.filter.meta().version, Opened::Filter(copy)))
            });
        }
        if let Some(graph) = before.graphs.get(name)
            && graph.is_mapped()
        {
            self.room_to_settle(name, Kind::Identity, graph.bytes())?;
            let version = graph.meta().version;
            let settled = graph.settled();
            let settled = Arc::new(settled.map_err(|e| self.lost(name, version, &e))?);
            return self.serve_settled(name, |now| {
                let now = now.graphs.get(name)?;
                let same = Arc::ptr_eq(now, graph);
                same.then(|| (version, Opened::Graph(settled)))
            });
        }
        Ok(false)
    }

    /// What is served mapped is not what it was: what is to be done about it is for [`mend`](super::mend) to find out.
    fn lost(&self, name: &Name, version: u64, error: &OpenError) -> Reason {
        self.chores.suspect(name, version);
        error.to_string()
    }

    fn room_to_settle(&self, name: &Name, kind: Kind, bytes: u64) -> Result<(), Reason> {
        match self.room(name, kind, bytes).enough() {
            true => Ok(()),
            false => Err(
                "there is not enough memory for it; the file is served where it lies".to_owned(),
            ),
        }
    }

    /// Puts a copy in force, unless something else is by now.
    fn serve_settled(
        &self,
        name: &Name,
        of: impl FnOnce(&Snapshot) -> Option<(u64, Opened)>,
    ) -> Result<bool, Reason> {
        // While no upload is on its way, which would be laid over what is in force now and be put in its place.
        let building = self.building(name);
        let _nothing_comes = lock(&building);
        let swapped = self.change(|next| {
            let copy = of(next);
            let swap = copy.is_some();
            if let Some((number, opened)) = copy {
                next.hold_open(name, number, opened);
            }
            let effect = Effect {
                swap,
                ..Effect::default()
            };
            Ok((swap, effect))
        });
        swapped.map_err(|e| e.to_string())
    }
}
