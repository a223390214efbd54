//! Which parts of a native ad answer which assets that a request asks for.
//!
//! Each part answers one asset at most, the first in the creative's order that fits. Required assets choose first, so that
//! an optional one takes nothing away from them. A text that is too long fits nowhere: it is never cut.
//!
//! Cost: at most 64 assets by 64 parts, once for each native creative that gets here, and once more for one that is bid.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use arrayvec::ArrayVec;
use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

use super::fit::{plays, takes_duration};
use crate::campaigns::{NativeAd, NativeAsset, NativeAssetKind};
use crate::openrtb;
use crate::openrtb::{ASSETS_MAX, AssetAsk, AssetKind, Field, ImageAsk, NativeAnswer, NativeAsk};

/// For each asset that is asked for, the part that answers it.
type Parts<'a> = ArrayVec<Option<&'a NativeAsset>, ASSETS_MAX>;

/// Whether the ad has a part for every asset that is required, and for one at all.
pub(super) fn is_complete(ask: &NativeAsk<'_>, ad: &NativeAd) -> bool {
    parts(ask, ad).is_some_and(|parts| parts.iter().any(Option::is_some))
}

/// What the ad answers, as a bid's markup; with the impression's pixel among its trackers where there is one.
pub(super) fn markup<'a>(
    ask: &'a NativeAsk<'a>,
    ad: &'a NativeAd,
    pixel: bool,
    arena: &'a Bump,
) -> &'a str {
    let parts = parts(ask, ad).unwrap_or_default();
    let answered = parts.iter().enumerate();
    let assets: ArrayVec<(usize, &str), ASSETS_MAX> = answered
        .filter_map(|(place, part)| Some((place, &*(*part)?.markup.escaped)))
        .collect();
    let own = pixel.then(openrtb::pixel);
    let trackers = ArenaVec::from_iter_in(ad.trackers.iter().chain(own), arena);
    let answer = NativeAnswer {
        ask,
        assets: &assets,
        link: &ad.link.escaped,
        trackers: &trackers,
        privacy: ad.privacy.as_deref(),
    };
    answer.markup(arena)
}

/// Nothing where a required asset has no answer; the first such one ends the search.
fn parts<'a>(ask: &NativeAsk<'_>, ad: &'a NativeAd) -> Option<Parts<'a>> {
    let mut answers: Parts<'a> = ask.assets.iter().take(ASSETS_MAX).map(|_| None).collect();
    let mut taken: ArrayVec<bool, ASSETS_MAX> =
        ad.assets.iter().take(ASSETS_MAX).map(|_| false).collect();
    for required in [true, false] {
        for (asked, answer) in ask.assets.iter().zip(&mut answers) {
            if asked.required != required {
                continue;
            }
            let mut free = ad.assets.iter().zip(&mut taken);
            let found = asked
                .id
                .and_then(|_| free.find(|(part, taken)| !**taken && fits(asked, part)));
            match found {
                Some((part, taken)) => {
                    *taken = true;
                    *answer = Some(part);
                }
                None if required => return None,
                None => {}
            }
        }
    }
    Some(answers)
}

fn fits(asked: &AssetAsk<'_>, part: &NativeAsset) -> bool {
    match (&asked.kind, &part.kind) {
        (AssetKind::Title { len }, NativeAssetKind::Title { chars }) => is_within(*chars, *len),
        (AssetKind::Data { kind, len }, NativeAssetKind::Data { kind: ours, chars }) => {
            *kind == Some(i64::from(*ours)) && is_within(*chars, *len)
        }
        (AssetKind::Image(image), NativeAssetKind::Image { kind, w, h, mime }) => {
            let kind_fits = match image.kind {
                Field::Absent => true,
                Field::Unreadable => false,
                Field::Value(wanted) => wanted == i64::from(*kind),
            };
            let type_fits = match image.mimes {
                Field::Absent => true,
                Field::Unreadable => false,
                Field::Value(types) => mime.is_some_and(|mime| types.contains(mime)),
            };
            kind_fits && type_fits && size_fits(image, *w, *h)
        }
        (AssetKind::Video(media), NativeAssetKind::Video(ad)) => {
            media.mimes.value().is_some() && plays(media, ad) && takes_duration(media, ad.duration)
        }
        _ => false,
    }
}

/// `len` counts characters; without one any length will do.
fn is_within(chars: usize, len: Field<i64>) -> bool {
    match len {
        Field::Absent => true,
        Field::Unreadable => false,
        Field::Value(len) => i64::try_from(chars).is_ok_and(|chars| chars <= len),
    }
}

/// A least length stands before an exact one: then the client scales.
fn size_fits(image: &ImageAsk, w: u32, h: u32) -> bool {
    let side = |exact: Field<i64>, least: Field<i64>, ours: u32| match (least, exact) {
        (Field::Value(least), _) => least <= i64::from(ours),
        (Field::Unreadable, _) | (Field::Absent, Field::Unreadable) => false,
        (Field::Absent, Field::Absent) => true,
        (Field::Absent, Field::Value(exact)) => exact == i64::from(ours),
    };
    side(image.w, image.wmin, w) && side(image.h, image.hmin, h)
}
