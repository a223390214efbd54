//! What must hold before a graph is served, beyond its checksums: checked once, at opening.
//!
//! Every group is walked, and every key in it looked up by the code that lookups use: it must lead back to its group. As there are
//! as many entries in the table as keys, that is all there is in it.

use super::layout::{Entry, LINE, SLOT_BYTES, SOURCE_ENTRY_BYTES, Source};
use super::{Flaw, Graph, GraphProbe, IDS_PER_PERSON_MAX};
use crate::ids::UserKey;

use arrayvec::ArrayVec;

/// A person's ids and her own key.
const KEYS_MAX: usize = IDS_PER_PERSON_MAX.strict_add(1);

/// The table of sources: names ascending.
pub(super) fn sources(bytes: &[u8]) -> Result<Box<[Source]>, Flaw> {
    let lies = || Flaw::Contradiction("the table of sources");
    let (entries, rest) = bytes.as_chunks::<SOURCE_ENTRY_BYTES>();
    let sources: Option<Box<[Source]>> = entries.iter().map(Source::read).collect();
    let sources = sources.ok_or_else(lies)?;
    let is_sorted = sources.is_sorted_by(|a, b| a.name < b.name);
    match is_sorted && rest.is_empty() {
        true => Ok(sources),
        false => Err(lies()),
    }
}

/// The groups and the table.
pub(super) fn groups(graph: &Graph) -> Result<(), Flaw> {
    let lies = || Flaw::Contradiction("a person's ids");
    let mut of_source = vec![0u64; graph.sources.len()];
    let (mut at, mut ids) = (0usize, 0u64);
    let mut before: Option<UserKey> = None;
    for _ in 0..graph.persons {
        let group = graph.group(at).ok_or_else(lies)?;
        let is_next = before.is_none_or(|before| before < group.person);
        let keys = group.ids().map(|(key, _)| key);
        if !is_next || !group.is_padded_with_zeros() || !keys.is_sorted_by(|a, b| a < b) {
            return Err(lies());
        }
        for (_, source) in group.ids() {
            let count = of_source.get_mut(usize::from(source)).ok_or_else(lies)?;
            *count = count.saturating_add(1);
            ids = ids.saturating_add(1);
        }
        // All are asked for before the first is waited for.
        let own = std::iter::once(group.person);
        let probes: ArrayVec<GraphProbe, KEYS_MAX> = own
            .chain(group.ids().map(|(key, _)| key))
            .take(KEYS_MAX)
            .map(|key| graph.probe(key))
            .collect();
        let leads_here =
            |probe: &GraphProbe| graph.find(*probe).map(|(found, _)| found) == Some(at);
        if !probes.iter().all(leads_here) {
            return Err(Flaw::Contradiction("where a key is found"));
        }
        before = Some(group.person);
        at = group
            .bytes()
            .and_then(|bytes| at.checked_add(bytes))
            .ok_or_else(lies)?;
    }
    let rest = graph.group_bytes().get(at..).ok_or_else(lies)?;
    let in_sources = graph.sources.iter().map(|source| source.ids);
    let claims = [
        (
            rest.len() < LINE && rest.iter().all(|byte| *byte == 0),
            "where the persons end",
        ),
        (ids == graph.header.ids, "the count of ids"),
        (
            of_source.iter().copied().eq(in_sources),
            "the sizes of the sources",
        ),
        (
            Some(entries(graph)?) == ids.checked_add(graph.persons),
            "the count of keys",
        ),
    ];
    match claims.into_iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err(Flaw::Contradiction(what)),
        None => Ok(()),
    }
}

/// How many entries the table has, each of which leads to what may be a group.
fn entries(graph: &Graph) -> Result<u64, Flaw> {
    let (slots, _) = graph.table_bytes().as_chunks::<SLOT_BYTES>();
    let taken = slots.iter().map(|slot| Entry::read(*slot));
    let mut taken = taken.filter(|entry| !entry.is_empty());
    taken.try_fold(0u64, |count, entry| {
        let at = entry.at().filter(|at| *at < graph.groups.len());
        at.ok_or(Flaw::Contradiction("where a key leads"))?;
        Ok(count.saturating_add(1))
    })
}
