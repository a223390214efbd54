//! People's figures, as of the last tick of their thread.

use prometheus::Registry;

use super::{Asked, AskedCounts};
use crate::people::{Figures, People};

/// Registers them all.
pub fn register(registry: &Registry, people: &People) -> Result<(), prometheus::Error> {
    let gauge = |name, help, of: fn(&Figures) -> f64| {
        let from = people.clone();
        registry.register(Box::new(Asked::new(name, help, move || {
            of(&from.figures())
        })?))
    };
    gauge(
        "kith_overlay_entries",
        "Real-time updates held, by id, segment and writer; those included that the live versions cover.",
        |of| of.counts.changes as f64,
    )?;
    gauge(
        "kith_overlay_ids",
        "Keys of which updates, links, erasure or an opt-out are held.",
        |of| of.keys as f64,
    )?;
    gauge(
        "kith_overlay_oldest_timestamp_seconds",
        "When the oldest update that is held was received, Unix seconds; 0 where there is none.",
        |of| of.oldest as f64,
    )?;
    gauge(
        "kith_people_links",
        "Ids that are linked to a person.",
        |of| of.counts.links as f64,
    )?;
    gauge("kith_people_erased", "Ids that were erased.", |of| {
        of.counts.erased as f64
    })?;
    gauge(
        "kith_people_opted_out",
        "Ids and persons that opted out.",
        |of| of.counts.opted_out as f64,
    )?;
    gauge(
        "kith_people_replay_bytes",
        "Bytes of people's journal that a restart would replay now.",
        |of| of.replay_bytes as f64,
    )?;
    gauge(
        "kith_people_replay_seconds",
        "How long it took at start to bring back what is held of people.",
        |of| of.replay_seconds,
    )?;
    let known = people.known().clone();
    registry.register(Box::new(Asked::new(
        "kith_people_sequence",
        "The journal's position: the last row that is durable and seen by bids.",
        move || known.sequence() as f64,
    )?))?;
    let from = people.clone();
    registry.register(Box::new(Asked::whether(
        "kith_people_writes",
        "0 while people's journal cannot be written, and updates are refused.",
        move || from.writes(),
    )?))?;
    let count = |of: fn(&Figures) -> u64| -> Box<dyn Fn() -> f64 + Send + Sync> {
        let from = people.clone();
        Box::new(move || of(&from.figures()) as f64)
    };
    registry.register(Box::new(AskedCounts::new(
        "kith_people_rows_total",
        "Rows of updates, links, opt-outs and erasures by what became of them.",
        "result",
        vec![
            ("accepted", count(|of| of.accepted)),
            ("rejected", count(|of| of.rejected)),
            ("refused_link", count(|of| of.refused_links)),
            ("unreadable", {
                let from = people.clone();
                Box::new(move || from.unread() as f64)
            }),
        ],
    )?))
}
