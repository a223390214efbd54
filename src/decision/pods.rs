//! Pods: what is left of a break's time and places while we bid on its slots.
//!
//! A *dynamic* pod (`poddur` or `maxseq` sent) is filled from one imp, or from several with one `podid`; the seller may take
//! all that we bid, deals and open auction alike, so that together they must fit. A structured slot is bounded by its own
//! lengths and counts in no pod.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::cmp::Reverse;

use bumpalo::collections::Vec as ArenaVec;

use super::Proposal;
use super::fit::{MediaSlot, Slots};
use crate::campaigns::Format;
use crate::openrtb::{Field, Imp, Media};

/// What is left. Absent is without bound.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Left {
    seconds: Field<i64>,
    ads: Field<i64>,
}

impl Left {
    /// What the bids made so far leave of the slot's pod.
    pub(super) fn of<'a>(media: &Media<'a>, imps: &[Imp<'a>], proposals: &[Proposal<'a>]) -> Self {
        let pod = &media.pod;
        let mut left = Self {
            seconds: pod.poddur,
            ads: pod.maxseq,
        };
        if !pod.is_dynamic() || pod.podid == Field::Absent {
            return left;
        }
        // Which others it shares its bounds with is not known.
        if pod.podid.is_unreadable() {
            left.seconds = Field::Unreadable;
            left.ads = Field::Unreadable;
            return left;
        }
        for proposal in proposals {
            let other = imps
                .get(proposal.imp)
                .and_then(|imp| media_of(imp, proposal));
            let same =
                other.is_some_and(|other| other.pod.podid == pod.podid && other.pod.is_dynamic());
            if same {
                left.take(proposal.seconds());
            }
        }
        left
    }

    /// Whether an ad of that length fits.
    pub(super) fn has_time(&self, seconds: u32) -> bool {
        is_enough(self.seconds, i64::from(seconds))
    }

    /// Whether another ad fits.
    pub(super) fn has_place(&self) -> bool {
        is_enough(self.ads, 1)
    }

    fn take(&mut self, seconds: u32) {
        let less = |left: Field<i64>, taken: i64| match left {
            Field::Value(left) => Field::Value(left.saturating_sub(taken)),
            other => other,
        };
        self.seconds = less(self.seconds, i64::from(seconds));
        self.ads = less(self.ads, 1);
    }
}

fn is_enough(left: Field<i64>, needed: i64) -> bool {
    match left {
        Field::Absent => true,
        Field::Unreadable => false,
        Field::Value(left) => needed <= left,
    }
}

/// Of one imp's bids, from `first` on, keeps the dearest that its pods have room for together, and tells of the others.
pub(super) fn keep_what_fits<'a>(
    proposals: &mut ArenaVec<'a, Proposal<'a>>,
    first: usize,
    slots: &Slots<'a, '_>,
    mut dropped: impl FnMut(&Proposal<'a>),
) {
    let bounded =
        |slot: Option<MediaSlot<'a>>| slot.is_some_and(|slot| slot.media.pod.is_dynamic());
    let own = proposals.len().saturating_sub(first);
    if own < 2 || !(bounded(slots.video) || bounded(slots.audio)) {
        return;
    }
    if let Some(own) = proposals.get_mut(first..) {
        own.sort_unstable_by_key(|bid| (Reverse(bid.price), bid.line_item.index, bid.deal));
    }
    let mut video = slots.video.map(|slot| slot.left).unwrap_or_default();
    let mut audio = slots.audio.map(|slot| slot.left).unwrap_or_default();
    let podid = |slot: Option<MediaSlot<'a>>| slot.and_then(|slot| slot.media.pod.podid.value());
    let is_one_pod = podid(slots.video).is_some() && podid(slots.video) == podid(slots.audio);
    let mut place = 0usize;
    proposals.retain(|proposal| {
        let is_own = place >= first;
        place = place.saturating_add(1);
        let (left, other) = match proposal.creative.format {
            Format::Video if is_own => (&mut video, &mut audio),
            Format::Audio if is_own => (&mut audio, &mut video),
            _ => return true,
        };
        let seconds = proposal.seconds();
        let fits = left.has_time(seconds) && left.has_place();
        if fits {
            left.take(seconds);
            if is_one_pod {
                other.take(seconds);
            }
        } else {
            dropped(proposal);
        }
        fits
    });
}

fn media_of<'a>(imp: &Imp<'a>, proposal: &Proposal<'_>) -> Option<&'a Media<'a>> {
    match proposal.creative.format {
        Format::Video => imp.video,
        Format::Audio => imp.audio,
        Format::Banner | Format::Native => None,
    }
}
