//! What a person is in, and which layer says so: for people to read. The decision itself has it in bits.

use super::persons::Persons;
use crate::clock::Timestamp;
use crate::generation::{Generation, LiveDataset};
use crate::ids::{SegmentRef, UserKey};

/// Who says that somebody is in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The live version of that number, of this id.
    Version(u64, UserKey),
    /// The update of that sequence number.
    Update(u64),
}

/// A segment that somebody is in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layered {
    /// `dataset/segment`.
    pub segment: String,
    /// Who says so.
    pub layer: Layer,
    /// Until when, where the version says.
    pub expires: Option<Timestamp>,
    /// The dataset's place in the generation, where it is live.
    pub dataset: Option<usize>,
}

/// Finds out who is behind these keys, as a decision does.
pub fn persons_behind(generation: &Generation, keys: &[UserKey], now: Timestamp) -> Persons {
    let mut persons = Persons::default();
    persons.begin(generation, keys);
    persons.approach(generation);
    persons.gather(generation, |_| true, now);
    persons
}

/// All segments of datasets that may be read that these persons are in, or were until they expired.
pub fn layers(
    generation: &Generation,
    persons: &Persons,
    now: Timestamp,
    may: impl Fn(Option<&LiveDataset>) -> bool,
) -> Vec<Layered> {
    let people = &generation.frame.people;
    let mut all = Vec::new();
    for (place, dataset) in generation.datasets.iter().enumerate() {
        if !may(Some(dataset)) {
            continue;
        }
        for (bit, key) in (0u32..).zip(persons.keys()) {
            for (name, expires) in generation.confirmed(dataset, *key, now, |of| may(Some(of))) {
                let segment = format!("{}/{name}", dataset.name);
                let reference = segment.parse::<SegmentRef>().ok();
                let number = reference.and_then(|of| people.segment_number(&of));
                if number.is_some_and(|number| persons.is_out(bit, dataset, number)) {
                    continue;
                }
                all.push(Layered {
                    segment,
                    layer: Layer::Version(dataset.version, *key),
                    expires,
                    dataset: Some(place),
                });
            }
        }
    }
    for opinion in persons.opinions().iter().filter(|opinion| opinion.add) {
        let meaning = generation.meaning(opinion.number);
        let place = meaning.and_then(|meaning| usize::try_from(meaning.dataset?).ok());
        let dataset = place.and_then(|place| generation.datasets.get(place));
        if let Some(name) = people.segment_name(opinion.number).filter(|_| may(dataset)) {
            all.push(Layered {
                segment: name.to_string(),
                layer: Layer::Update(opinion.sequence),
                expires: None,
                dataset: place,
            });
        }
    }
    all.sort();
    all.dedup();
    all
}
