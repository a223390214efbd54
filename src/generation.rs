//! The frozen whole that a decision reads: one version of each dataset, the campaigns' book, what was configured.
//!
//! Plain data, assembled off the bid threads and never changed; a request reads one generation from first to last, so no
//! decision can mix two versions. Slots tie the book to the datasets: the book numbers the segments that its targeting
//! names, and each dataset says which of its own indexes stands for which number, so that a lookup never
//! compares a name.
//!
//! Cost: 8 bytes per dataset and segment of it; assembling is one name search per segment that targeting names.

use std::sync::Arc;

use crate::audience::Audience;
use crate::campaigns::Book;
use crate::config::{Config, Exchanges};
use crate::ids::{Keyer, Name, SegmentRef};
use crate::money::Rates;
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
        }
    }
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
    /// The open, verified file.
    pub audience: Arc<Audience>,
    /// TCF purposes that must be granted before it may be read.
    pub purposes: Purposes,
}

/// No slot of any book.
pub const NO_SLOT: u32 = u32::MAX;

/// One dataset's live version within a generation.
#[derive(Debug)]
pub struct LiveDataset {
    /// The dataset.
    pub name: Name,
    /// A small integer of the dataset, stable within the process, for metrics.
    pub ordinal: usize,
    /// The version.
    pub version: u64,
    /// The open, verified file.
    pub audience: Arc<Audience>,
    /// TCF purposes that must be granted before it may be read.
    pub purposes: Purposes,
    /// For each of the audience's segments, by rank, the book's slot for it, or [`NO_SLOT`] where no targeting names it.
    pub slots: Box<[u32]>,
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
    /// The live audiences, by name.
    pub datasets: Box<[LiveDataset]>,
    /// For each slot of the book, the purposes that reading it takes: its dataset's, or the usual ones where that is not live.
    pub slot_purposes: Box<[Purposes]>,
    /// What comes from the configuration.
    pub frame: Frame,
}

impl Generation {
    /// Ties the live versions to the book.
    pub fn assemble(
        number: u64,
        book: Arc<Book>,
        campaigns_version: Option<u64>,
        audiences: Vec<LiveVersion>,
        frame: Frame,
    ) -> Generation {
        let datasets: Box<[LiveDataset]> =
            audiences.into_iter().map(|live| tie(live, &book)).collect();
        let of_slot = |segment: &SegmentRef| {
            let mut live = datasets.iter();
            let dataset = live.find(|dataset| dataset.name == segment.dataset);
            dataset.map_or(Purposes::PROFILE, |dataset| dataset.purposes)
        };
        let slot_purposes = book.segments.iter().map(of_slot).collect();
        Generation {
            number,
            book,
            campaigns_version,
            datasets,
            slot_purposes,
            frame,
        }
    }
}

fn tie(live: LiveVersion, book: &Book) -> LiveDataset {
    let mut slots = vec![NO_SLOT; live.audience.segments().len()];
    for (slot, segment) in (0u32..).zip(book.segments.iter()) {
        if segment.dataset != live.name {
            continue;
        }
        let local = live.audience.segment_index(segment.segment.as_str());
        let place = local
            .and_then(|local| usize::try_from(local).ok())
            .and_then(|local| slots.get_mut(local));
        if let Some(place) = place {
            *place = slot;
        }
    }
    let by_rank = live.audience.indexes_by_rank().iter().map(|index| {
        let place = usize::try_from(*index).ok();
        let slot = place.and_then(|place| slots.get(place));
        slot.copied().unwrap_or(NO_SLOT)
    });
    let slots = by_rank.collect();
    LiveDataset {
        name: live.name,
        ordinal: live.ordinal,
        version: live.version,
        audience: live.audience,
        purposes: live.purposes,
        slots,
    }
}
