//! Floors: which one holds for an ad, and what it is in another currency.
//!
//! In a deal the deal's own guidance counts; where it has none, and in the open auction, that of the video or audio slot;
//! where there is none either, the imp's (§7.11.2). Guidance by length is a floor for each second, or one for a range of lengths;
//! where several hold at once, the highest does.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::fit::Slots;
use crate::campaigns::Creative;
use crate::money::{Currency, Price, Rates, Round};
use crate::openrtb::{Deal, DurationFloors, Field, Floor};

/// The floor that the slot says for the creative in the open auction.
pub(super) fn of_slot(imp: Floor, slots: &Slots<'_, '_>, creative: &Creative) -> Floor {
    let by_length = slots.media(creative.format).map_or(Field::Absent, |slot| {
        by_length(&slot.media.floors, creative.seconds())
    });
    Floor {
        amount: match by_length {
            Field::Absent => imp.amount,
            said => said,
        },
        currency: imp.currency,
    }
}

/// The floor that a deal says for the creative; nothing where it leaves it to the slot.
pub(super) fn of_deal(deal: &Deal<'_>, imp: Floor, creative: &Creative) -> Option<Floor> {
    let own = deal.floor.amount;
    let lengths = &deal.duration_floors;
    let seconds = creative.seconds();
    let by_length = by_length(lengths, seconds);
    let amount = highest(own, by_length);
    if amount != Field::Absent {
        let currency = deal.floor.currency;
        return Some(Floor { amount, currency });
    }
    // Its ranges leave out ads of this length: for those the imp's floor is the default (§3.2.35).
    (seconds.is_some() && lengths.durfloors != Field::Absent).then_some(imp)
}

/// The floor for an ad of that length; absent where none is said for it, or it has no length.
fn by_length(floors: &DurationFloors<'_>, seconds: Option<u32>) -> Field<Price> {
    let Some(seconds) = seconds else {
        return Field::Absent;
    };
    let each_second = match floors.mincpmpersec {
        // Nothing a second is no floor.
        Field::Absent | Field::Value(Price::ZERO) => Field::Absent,
        Field::Unreadable => Field::Unreadable,
        Field::Value(price) => price.times(seconds).map_or(Field::Unreadable, Field::Value),
    };
    let ranges = match floors.durfloors {
        Field::Absent => Field::Absent,
        Field::Unreadable => Field::Unreadable,
        Field::Value(ranges) => ranges
            .iter()
            .filter(|range| range.covers(i64::from(seconds)))
            .map(|range| match range.bidfloor {
                Field::Absent => Field::Value(Price::ZERO),
                said => said,
            })
            .fold(Field::Absent, highest),
    };
    highest(each_second, ranges)
}

/// The higher of two floors; one that cannot be read may be the highest of all.
fn highest(one: Field<Price>, other: Field<Price>) -> Field<Price> {
    match (one, other) {
        (Field::Absent, only) | (only, Field::Absent) => only,
        (Field::Value(one), Field::Value(other)) => Field::Value(one.max(other)),
        _ => Field::Unreadable,
    }
}

/// A floor in some currency, rounded up; 0 where none is sent, `None` where it cannot be known.
pub(super) fn converted(floor: Floor, to: Currency, rates: &Rates) -> Option<Price> {
    match floor.amount {
        Field::Absent | Field::Value(Price::ZERO) => Some(Price::ZERO),
        _ => said_in(floor, to, rates),
    }
}

/// A floor in some currency, rounded up; `None` where none is sent or it cannot be known.
pub(super) fn said_in(floor: Floor, to: Currency, rates: &Rates) -> Option<Price> {
    let from = match floor.currency {
        Field::Absent => Currency::USD,
        Field::Unreadable => return None,
        Field::Value(currency) => currency,
    };
    rates.convert(floor.amount.value()?, from, to, Round::Up)
}
