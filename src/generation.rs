//! The frozen whole that a decision reads: one version of each dataset, the campaigns' book, what was configured.
//!
//! Plain data, assembled off the bid threads and never changed; a request reads one generation from first to last, so no
//! decision can mix two versions. Slots tie the book to the datasets: the book numbers the segments that its targeting
//! names, and each dataset says which of its own indexes stands for which number, so that a lookup never
//! compares a name.
//!
//! Cost: 8 bytes per dataset and segment of it; assembling is one name search per segment that targeting names.

use std::sync::Arc;

use crate::audience::{Audience, Filter, Graph, GraphApproach, GraphProbe, Lookup, Person};
use crate::campaigns::{Book, TiedScores};
use crate::clock::Timestamp;
use crate::config::{Config, Exchanges};
use crate::ids::{Keyer, Name, SegmentRef, UserKey};
use crate::ledger::Plan;
use crate::money::Rates;
use crate::people::Known;
use crate::privacy::{Policy, Purposes};

/// What of a generation comes from the configuration and outlives every swap.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Turns ids into user keys.
    pub keyer: Keyer,
    /// Who may ask.
    pub exchanges: Arc<Exchanges>,
    /// When the privacy gate is closed.
    pub policy: Policy,
    /// Exchange rates.
    pub rates: Arc<Rates>,
    /// Most ids looked up for one request.
    pub ids_max: usize,
    /// What is known of people since versions were made: alive, and so the same for all generations.
    pub people: Arc<Known>,
}

impl Frame {
    /// What a configuration says, under the deployment's key.
    pub fn of(config: &Config, keyer: Keyer) -> Self {
        Self {
            keyer,
            exchanges: Arc::new(config.exchanges.clone()),
            policy: config.privacy.policy(),
            rates: Arc::new(config.currency.rates.clone()),
            ids_max: config.limits.ids_per_request,
            people: Arc::new(Known::none()),
        }
    }
}

/// Who is in a dataset's live version: open, and verified.
#[derive(Debug, Clone)]
pub enum Members {
    /// Segments of ids, exact.
    Exact(Arc<Audience>),
    /// One segment, approximate.
    Approximate {
        /// The set.
        filter: Arc<Filter>,
        /// The dataset that must have an id too before it is in.
        confirm: Option<Name>,
    },
}

/// One dataset's live version, before it is tied to a book.
#[derive(Debug, Clone)]
pub struct LiveVersion {
    /// The dataset.
    pub name: Name,
    /// A small integer of the dataset, stable within the process, for metrics.
    pub ordinal: usize,
    /// The version.
    pub version: u64,
    /// Who is in it.
    pub members: Members,
    /// TCF purposes that must be granted before it may be read.
    pub purposes: Purposes,
    /// Up to which row of people's journal its input had been read.
    pub covers: u64,
}

/// No slot of any book.
pub const NO_SLOT: u32 = u32::MAX;
/// No number of any segment or dataset.
const NO_NUMBER: u32 = u32::MAX;

/// One dataset's live version within a generation.
#[derive(Debug)]
pub struct LiveDataset {
    /// The dataset.
    pub name: Name,
    /// A small integer of the dataset, stable within the process, for metrics.
    pub ordinal: usize,
    /// The version.
    pub version: u64,
    /// Who is in it.
    pub members: Members,
    /// Who else must know an id.
    pub confirm: Confirm,
    /// TCF purposes that must be granted before it may be read.
    pub purposes: Purposes,
    /// For each of its segments (an audience's by rank, a filter's one), the book's slot for it, or [`NO_SLOT`] where no
    /// targeting names it.
    pub slots: Box<[u32]>,
    /// The number of each of its segments, in the same order; and its own, as a whole.
    pub numbers: Box<[u32]>,
    /// Its own number, as a whole.
    pub whole: u32,
    /// Up to which row of people's journal its input had been read.
    pub covers: u64,
}

/// What a number of a segment, or of a dataset as a whole, is in a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// The book's slot, or [`NO_SLOT`].
    pub slot: u32,
    /// The dataset's place, where it is live.
    pub dataset: Option<u32>,
    /// The number of its dataset as a whole.
    pub whole: u32,
    /// Up to which row the live version has read.
    pub covers: u64,
}

/// An identity dataset's live version within a generation: which ids are one person's.
#[derive(Debug, Clone)]
pub struct LiveGraph {
    /// The dataset.
    pub name: Name,
    /// A small integer of the dataset, stable within the process, for metrics.
    pub ordinal: usize,
    /// The version.
    pub version: u64,
    /// Whose ids are whose: open, and verified.
    pub graph: Arc<Graph>,
    /// TCF purposes that must be granted before it may be read.
    pub purposes: Purposes,
}

/// Whether what a filter says of an id must be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirm {
    /// No: it stands.
    Nobody,
    /// By the audience at this place in the generation.
    By(usize),
    /// By a dataset of which no audience is live: nothing can be confirmed.
    Missing,
}

impl LiveDataset {
    /// All that the version by itself says of an id, by segment, with the time at which it is over, for people to read.
    pub fn memberships(&self, key: UserKey) -> Vec<(&str, Option<Timestamp>)> {
        match &self.members {
            Members::Exact(audience) => {
                let names: Vec<&str> = audience.segments().collect();
                let named = |(index, expires): (u32, _)| {
                    let name = usize::try_from(index)
                        .ok()
                        .and_then(|index| names.get(index));
                    name.map(|name| (*name, expires))
                };
                let all = audience.memberships(key).into_iter();
                all.filter_map(named).collect()
            }
            Members::Approximate { filter, .. } => match filter.lookup(key) {
                Lookup::Found => vec![(filter.segment().as_str(), None)],
                Lookup::Absent | Lookup::Damaged => Vec::new(),
            },
        }
    }

    /// Whether an id is in any of its segments at that time, by the version itself.
    pub fn has(&self, key: UserKey, now: Timestamp) -> bool {
        let mut all = self.memberships(key).into_iter();
        all.any(|(_, expires)| expires.is_none_or(|at| at > now))
    }
}

/// Everything a decision reads, frozen.
#[derive(Debug)]
pub struct Generation {
    /// Grows by one at each swap.
    pub number: u64,
    /// The compiled campaigns.
    pub book: Arc<Book>,
    /// The version of `campaigns` that the book was compiled from.
    pub campaigns_version: Option<u64>,
    /// The live audiences and filters, by name.
    pub datasets: Box<[LiveDataset]>,
    /// The live identity graphs, by name.
    pub graphs: Box<[LiveGraph]>,
    /// For each slot of the book, the purposes that reading it takes: its dataset's, or the usual ones where that is not live.
    pub slot_purposes: Box<[Purposes]>,
    /// What numbers of segments and datasets are; nothing of those that neither targeting nor a live dataset names.
    pub meanings: Box<[Option<Meaning>]>,
    /// What segments are worth to prices that go by scores.
    pub scores: TiedScores,
    /// What comes from the configuration.
    pub frame: Frame,
    /// The ledger's side of the book. Of a generation that is not live, or where no books are kept: one that allows
    /// everything.
    pub plan: Arc<Plan>,
}

impl Generation {
    /// Ties the live versions to the book; scores, where there are any, by [`Book::tie_scores`], and graphs are put in by who has
    /// them.
    pub fn assemble(
        number: u64,
        book: Arc<Book>,
        campaigns_version: Option<u64>,
        live: Vec<LiveVersion>,
        frame: Frame,
    ) -> Generation {
        let mut datasets: Box<[LiveDataset]> = live
            .into_iter()
            .map(|live| tie(live, &book, &frame.people))
            .collect();
        let confirms: Vec<Confirm> = datasets.iter().map(|of| confirm(of, &datasets)).collect();
        for (dataset, confirm) in datasets.iter_mut().zip(confirms) {
            dataset.confirm = confirm;
        }
        let of_slot = |segment: &SegmentRef| {
            let mut live = datasets.iter();
            let dataset = live.find(|dataset| dataset.name == segment.dataset);
            dataset.map_or(Purposes::PROFILE, |dataset| dataset.purposes)
        };
        let slot_purposes = book.segments.iter().map(of_slot).collect();
        let meanings = meanings(&book, &datasets, &frame.people);
        Generation {
            meanings,
            number,
            book,
            campaigns_version,
            datasets,
            graphs: Box::default(),
            slot_purposes,
            scores: TiedScores::default(),
            frame,
            plan: Plan::none(),
        }
    }

    /// Whether any dataset says which ids are one person's.
    pub(crate) fn has_graphs(&self) -> bool {
        !self.graphs.is_empty()
    }

    /// Begins to look for whose id a key is: its place in the first graph is asked for. Others are asked when they are needed.
    #[inline]
    pub(crate) fn probe_person(&self, key: UserKey) -> Option<GraphProbe> {
        self.graphs.first().map(|live| live.graph.probe(key))
    }

    /// Goes on to look for whose id a key is: who it may be in the first graph is asked for.
    #[inline]
    pub(crate) fn approach_person(&self, probe: Option<GraphProbe>) -> Option<GraphApproach> {
        let (live, probe) = self.graphs.first().zip(probe)?;
        Some(live.graph.approach(probe))
    }

    /// Whether no graph says whose id it is.
    #[inline]
    pub(crate) fn is_nobodys(&self, approach: Option<&GraphApproach>) -> bool {
        match (&*self.graphs, approach) {
            ([], _) => true,
            ([_], Some(approach)) => approach.is_nobodys(),
            _ => false,
        }
    }

    /// Whose id it is, by the first graph that knows it of those that may be read; and where in the first graph she is, if there.
    pub(crate) fn person_at(
        &self,
        key: UserKey,
        approach: Option<GraphApproach>,
        may: impl Fn(Purposes) -> bool,
    ) -> Option<(UserKey, Option<GraphApproach>)> {
        let mut graphs = self.graphs.iter().enumerate();
        graphs.find_map(|(place, live)| {
            if !may(live.purposes) {
                return None;
            }
            match (place, approach) {
                (0, Some(approach)) => {
                    let person = live.graph.person_at(approach)?;
                    Some((person.key(), Some(live.graph.toward(approach, person))))
                }
                _ => Some((live.graph.person(key)?.key(), None)),
            }
        })
    }

    /// Whose id a key is, by what versions say.
    pub(crate) fn person_of(&self, key: UserKey) -> Option<UserKey> {
        self.person_at(key, None, |_| true).map(|(key, _)| key)
    }

    /// A person's ids, with their sources, by the graphs that may be read; none that an earlier graph says is somebody else's.
    pub(crate) fn ids_of(
        &self,
        person: UserKey,
        may: impl Fn(Purposes) -> bool,
        each: impl FnMut(UserKey, &str),
    ) {
        self.ids_at(person, None, may, each);
    }

    /// The same of one of whom it is known where she may be in the first graph.
    pub(crate) fn ids_at(
        &self,
        person: UserKey,
        approach: Option<GraphApproach>,
        may: impl Fn(Purposes) -> bool,
        mut each: impl FnMut(UserKey, &str),
    ) {
        for (place, live) in self.graphs.iter().enumerate() {
            if !may(live.purposes) {
                continue;
            }
            let hers = match (place, approach) {
                (0, Some(approach)) => live.graph.person_at(approach),
                _ => live.graph.person(person),
            };
            let Some(hers) = hers else {
                continue;
            };
            let earlier = self.graphs.get(..place).unwrap_or_default();
            for (id, source) in hers.ids() {
                let mut others = earlier.iter().filter(|live| may(live.purposes));
                let owner = others.find_map(|live| live.graph.person(id).map(Person::key));
                if owner.is_none_or(|owner| owner == person) {
                    each(id, source);
                }
            }
        }
    }

    /// What a number is here.
    #[inline]
    pub(crate) fn meaning(&self, number: u32) -> Option<&Meaning> {
        let place = usize::try_from(number).ok()?;
        self.meanings.get(place)?.as_ref()
    }

    /// All that a dataset says of an id, as [`LiveDataset::memberships`], and nothing that another one had to confirm
    /// and does not, perhaps because it may not be asked.
    pub fn confirmed<'g>(
        &'g self,
        dataset: &'g LiveDataset,
        key: UserKey,
        now: Timestamp,
        may: impl Fn(&LiveDataset) -> bool,
    ) -> Vec<(&'g str, Option<Timestamp>)> {
        let confirms = |place| {
            let other = self.datasets.get(place);
            other.is_some_and(|other| may(other) && other.has(key, now))
        };
        match dataset.confirm {
            Confirm::By(place) if !confirms(place) => Vec::new(),
            Confirm::Missing => Vec::new(),
            Confirm::By(_) | Confirm::Nobody => dataset.memberships(key),
        }
    }
}

/// What the numbers are that this book and these datasets know of.
fn meanings(book: &Book, datasets: &[LiveDataset], people: &Known) -> Box<[Option<Meaning>]> {
    let mut all: Vec<Option<Meaning>> = Vec::new();
    let mut put = |number: u32, meaning: Meaning| {
        let Ok(place) = usize::try_from(number) else {
            return;
        };
        // There is no such number where there were too many names.
        if number == NO_NUMBER {
            return;
        }
        if all.len() <= place {
            all.resize(place.saturating_add(1), None);
        }
        if let Some(at) = all.get_mut(place) {
            *at = Some(meaning);
        }
    };
    for (place, dataset) in (0u32..).zip(datasets) {
        let of = |slot| Meaning {
            slot,
            dataset: Some(place),
            whole: dataset.whole,
            covers: dataset.covers,
        };
        put(dataset.whole, of(NO_SLOT));
        for (number, slot) in dataset.numbers.iter().zip(&dataset.slots) {
            put(*number, of(*slot));
        }
    }
    for (slot, segment) in (0u32..).zip(book.segments.iter()) {
        let live = (0u32..)
            .zip(datasets)
            .find(|(_, dataset)| dataset.name == segment.dataset);
        let whole = people.dataset_number(&segment.dataset).unwrap_or(NO_NUMBER);
        let meaning = Meaning {
            slot,
            dataset: live.map(|(place, _)| place),
            whole,
            covers: live.map_or(0, |(_, dataset)| dataset.covers),
        };
        put(people.segment_number(segment).unwrap_or(NO_NUMBER), meaning);
        if live.is_none() {
            put(
                whole,
                Meaning {
                    slot: NO_SLOT,
                    ..meaning
                },
            );
        }
    }
    all.into()
}

fn tie(live: LiveVersion, book: &Book, people: &Known) -> LiveDataset {
    let own = |slot: &(u32, &SegmentRef)| slot.1.dataset == live.name;
    let named = (0u32..).zip(book.segments.iter()).filter(own);
    let number = |segment: &str| {
        let segment = segment.parse().ok().map(|segment| SegmentRef {
            dataset: live.name.clone(),
            segment,
        });
        let number = segment.and_then(|segment| people.segment_number(&segment));
        number.unwrap_or(NO_NUMBER)
    };
    let numbers = match &live.members {
        Members::Exact(audience) => {
            let by_index: Vec<u32> = audience.segments().map(number).collect();
            let of = |index: &u32| by_index.get(usize::try_from(*index).ok()?).copied();
            let by_rank = audience.indexes_by_rank().iter();
            by_rank
                .map(|index| of(index).unwrap_or(NO_NUMBER))
                .collect()
        }
        Members::Approximate { filter, .. } => [number(filter.segment().as_str())].into(),
    };
    let whole = people.dataset_number(&live.name).unwrap_or(NO_NUMBER);
    let slots = match &live.members {
        Members::Exact(audience) => {
            let mut slots = vec![NO_SLOT; audience.segments().len()];
            for (slot, segment) in named {
                let local = audience.segment_index(segment.segment.as_str());
                let place = local
                    .and_then(|local| usize::try_from(local).ok())
                    .and_then(|local| slots.get_mut(local));
                if let Some(place) = place {
                    *place = slot;
                }
            }
            let by_rank = audience.indexes_by_rank().iter().map(|index| {
                let place = usize::try_from(*index).ok();
                let slot = place.and_then(|place| slots.get(place));
                slot.copied().unwrap_or(NO_SLOT)
            });
            by_rank.collect()
        }
        Members::Approximate { filter, .. } => {
            let mut own = named.filter(|(_, segment)| segment.segment == *filter.segment());
            [own.next().map_or(NO_SLOT, |(slot, _)| slot)].into()
        }
    };
    LiveDataset {
        name: live.name,
        ordinal: live.ordinal,
        version: live.version,
        members: live.members,
        confirm: Confirm::Nobody,
        purposes: live.purposes,
        slots,
        numbers,
        whole,
        covers: live.covers,
    }
}

/// Who confirms what this dataset says.
fn confirm(of: &LiveDataset, datasets: &[LiveDataset]) -> Confirm {
    let Members::Approximate {
        confirm: Some(name),
        ..
    } = &of.members
    else {
        return Confirm::Nobody;
    };
    let exact = |dataset: &LiveDataset| {
        dataset.name == *name && matches!(dataset.members, Members::Exact(_))
    };
    datasets
        .iter()
        .position(exact)
        .map_or(Confirm::Missing, Confirm::By)
}
