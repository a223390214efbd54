//! Whether a creative can be shown in a slot at all: its format is offered, and it is of a size, a length, a type that the
//! slot takes.
//!
//! What a creative does not declare (a banner its MIME types, a video its bit rate) is not judged by what limits it. What
//! does limit it and cannot be read refuses it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::cell::OnceCell;

use bumpalo::Bump;

use super::bits::Bits;
use super::native;
use super::pods::Left;
use super::{Refusal, blocks};
use crate::campaigns::{Creative, CreativeTerms, Format, MediaAd, Terms};
use crate::openrtb::{Banner, Codes, Field, Imp, Media, NativeAsk, Size, Strings};

/// What an imp offers, as far as creatives are concerned.
#[derive(Debug)]
pub(super) struct Slots<'a, 'r> {
    banner: Option<&'a Banner<'a>>,
    pub(super) video: Option<MediaSlot<'a>>,
    pub(super) audio: Option<MediaSlot<'a>>,
    native: Option<&'a crate::openrtb::Native<'a>>,
    /// What the native document asks for, once a native creative has come by.
    ask: OnceCell<Option<&'a NativeAsk<'a>>>,
    /// All of it, of what creatives are made for.
    pub(super) open: &'r Bits,
    arena: &'a Bump,
}

/// A video or audio slot, and what is left of its pod.
#[derive(Debug, Clone, Copy)]
pub(super) struct MediaSlot<'a> {
    pub(super) media: &'a Media<'a>,
    pub(super) left: Left,
}

/// How a creative fits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fit<'a> {
    /// The size it is shown in: a banner's own, a video's own or its player's.
    pub(super) size: Option<Size>,
    /// The proportions, where only those are asked for.
    pub(super) flex: Option<(i64, i64)>,
    /// Where on the screen.
    pub(super) position: Option<i64>,
    /// What a native ad answers.
    pub(super) native: Option<&'a NativeAsk<'a>>,
}

impl<'a, 'r> Slots<'a, 'r> {
    /// What the imp offers; `left` says what is left of a pod. The set is filled with the slots of it.
    pub(super) fn of(
        imp: &Imp<'a>,
        terms: &Terms,
        left: impl Fn(&Media<'a>) -> Left,
        open: &'r mut Bits,
        arena: &'a Bump,
    ) -> Self {
        open.clear(terms.slots());
        if let Some(banner) = imp.banner {
            let sizes = banner
                .sizes
                .iter()
                .filter_map(|size| terms.size(size.w, size.h));
            sizes.for_each(|slot| open.insert(slot));
            for flex in banner.flex {
                let wide_enough = terms
                    .in_proportion(flex.wratio, flex.hratio)
                    .filter(|(_, w)| i64::from(*w) >= flex.wmin);
                wide_enough.for_each(|(slot, _)| open.insert(slot));
            }
        }
        // Without types there is nothing that a player is known to play.
        let media = |media: Option<&'a Media<'a>>| {
            let media = media.filter(|media| media.mimes.value().is_some())?;
            Some(MediaSlot {
                media,
                left: left(media),
            })
        };
        let (video, audio) = (media(imp.video), media(imp.audio));
        for (format, offered) in [
            (Format::Video, video.is_some()),
            (Format::Audio, audio.is_some()),
            (Format::Native, imp.native.is_some()),
        ] {
            if let Some(slot) = terms.slot(format).filter(|_| offered) {
                open.insert(slot);
            }
        }
        Self {
            banner: imp.banner,
            video,
            audio,
            native: imp.native,
            ask: OnceCell::new(),
            open,
            arena,
        }
    }

    /// Whether there is any format at all.
    pub(super) fn is_empty(&self) -> bool {
        self.banner.is_none()
            && self.video.is_none()
            && self.audio.is_none()
            && self.native.is_none()
    }

    /// Whether a banner is offered.
    pub(super) fn has_banner(&self) -> bool {
        self.banner.is_some()
    }

    /// The video or audio slot that a creative of that format would be shown in.
    pub(super) fn media(&self, format: Format) -> Option<MediaSlot<'a>> {
        match format {
            Format::Video => self.video,
            Format::Audio => self.audio,
            Format::Banner | Format::Native => None,
        }
    }

    /// How the creative fits, or why it does not.
    pub(super) fn fit(
        &self,
        creative: &'a Creative,
        terms: &CreativeTerms,
    ) -> Result<Fit<'a>, Refusal> {
        match creative.format {
            Format::Banner => {
                let banner = self.banner.ok_or(Refusal::Format)?;
                self.banner(banner, creative, terms)
            }
            Format::Video | Format::Audio => {
                let slot = self.media(creative.format).ok_or(Refusal::Format)?;
                let ad = creative.media.as_ref().ok_or(Refusal::Format)?;
                media(&slot, ad)?;
                let own = creative.w.zip(creative.h);
                let own = own.map(|(w, h)| (i64::from(w), i64::from(h)));
                let player = slot.media.w.zip(slot.media.h);
                Ok(Fit {
                    size: own.or(player).map(|(w, h)| Size { w, h }),
                    position: slot.media.pos,
                    ..Fit::default()
                })
            }
            Format::Native => {
                let ask = self.ask().ok_or(Refusal::Format)?;
                let ad = creative.native.as_ref().ok_or(Refusal::Format)?;
                if !native::is_complete(ask, ad) {
                    return Err(Refusal::Assets);
                }
                Ok(Fit {
                    native: Some(ask),
                    ..Fit::default()
                })
            }
        }
    }

    fn banner(
        &self,
        banner: &'a Banner<'a>,
        creative: &Creative,
        terms: &CreativeTerms,
    ) -> Result<Fit<'a>, Refusal> {
        let (Some(w), Some(h), Some(slot)) = (creative.w, creative.h, terms.slot) else {
            return Err(Refusal::Format);
        };
        if !self.open.contains(slot) {
            return Err(Refusal::Size);
        }
        if !creative.mimes.is_empty() && !takes_mime(banner.mimes, &creative.mimes) {
            return Err(Refusal::Media);
        }
        let (w, h) = (i64::from(w), i64::from(h));
        let size = Size { w, h };
        let flex = if banner.flex.is_empty() || banner.sizes.contains(&size) {
            None
        } else {
            banner.flex.iter().find(|flex| {
                let sides = w.checked_mul(flex.hratio).zip(h.checked_mul(flex.wratio));
                sides.is_some_and(|(one, other)| one == other) && w >= flex.wmin
            })
        };
        Ok(Fit {
            size: Some(size),
            flex: flex.map(|flex| (flex.wratio, flex.hratio)),
            position: banner.pos,
            native: None,
        })
    }

    /// What the native document asks for.
    fn ask(&self) -> Option<&'a NativeAsk<'a>> {
        let read = || Some(&*self.arena.alloc(self.native?.ask(self.arena)?));
        *self.ask.get_or_init(read)
    }

    /// Whether the slot that the creative fits blocks an attribute of it.
    pub(super) fn blocks_attribute(&self, creative: &Creative, terms: &CreativeTerms) -> bool {
        let battr = match creative.format {
            Format::Banner => self.banner.map(|banner| banner.battr),
            Format::Native => self.native.map(|native| native.battr),
            format => self.media(format).map(|slot| slot.media.battr),
        };
        let btype = self.banner.map(|banner| banner.btype);
        let markup_blocked = creative.format == Format::Banner
            && btype.is_some_and(|btype| blocks::markup_blocked(btype, terms));
        let attribute_blocked = match battr.unwrap_or_default() {
            Field::Absent => false,
            Field::Unreadable => true,
            Field::Value(blocked) => has_common(blocked, &creative.attr),
        };
        attribute_blocked || markup_blocked
    }

    /// Whether the slot has every framework that the creative needs. One that is not listed is not there.
    pub(super) fn has_api(&self, creative: &Creative) -> bool {
        if creative.api.is_empty() {
            return true;
        }
        let api = match creative.format {
            Format::Banner => self.banner.map(|banner| banner.api),
            Format::Native => self.native.map(|native| native.api),
            format => self.media(format).map(|slot| slot.media.api),
        };
        let listed = api.unwrap_or_default().value().unwrap_or(&[]);
        let needed = &mut creative.api.iter();
        needed.all(|framework| listed.contains(&i64::from(*framework)))
    }
}

/// Whether a video or audio slot takes the ad, and its pod has room for it.
fn media(slot: &MediaSlot<'_>, ad: &MediaAd) -> Result<(), Refusal> {
    if !plays(slot.media, ad) {
        return Err(Refusal::Media);
    }
    if !takes_duration(slot.media, ad.duration) || !slot.left.has_time(ad.duration) {
        return Err(Refusal::Duration);
    }
    if !slot.left.has_place() {
        return Err(Refusal::Pod);
    }
    Ok(())
}

/// Whether a player plays the ad: types, protocols, linearity, bit rate.
pub(super) fn plays(media: &Media<'_>, ad: &MediaAd) -> bool {
    let linearity = match media.linearity {
        Field::Absent => true,
        Field::Unreadable => false,
        Field::Value(wanted) => wanted == i64::from(ad.linearity),
    };
    let bitrate = ad
        .bitrate
        .is_none_or(|bitrate| within(media.minbitrate, media.maxbitrate, i64::from(bitrate)));
    // A list that was sent empty or not at all does not say which protocols there are.
    let protocol = match media.protocols {
        Codes::Absent => true,
        Codes::Unreadable => false,
        Codes::Value(known) => has_common(known, &ad.protocols),
    };
    linearity && bitrate && protocol && takes_mime(media.mimes, &ad.mimes)
}

/// Whether an ad may be so long. `rqddurs` excludes the other two; where both are sent, it is the one that counts.
pub(super) fn takes_duration(media: &Media<'_>, seconds: u32) -> bool {
    let seconds = i64::from(seconds);
    match media.rqddurs {
        Field::Absent => within(media.minduration, media.maxduration, seconds),
        Field::Unreadable => false,
        Field::Value(lengths) => lengths.contains(&seconds),
    }
}

fn within(least: Field<i64>, most: Field<i64>, value: i64) -> bool {
    !least.is_unreadable()
        && !most.is_unreadable()
        && least.value().is_none_or(|least| least <= value)
        && most.value().is_none_or(|most| value <= most)
}

/// Whether a list takes one of our MIME types, whatever the case. No list takes all.
pub(super) fn takes_mime(list: Strings<'_>, ours: &[Box<str>]) -> bool {
    match list {
        Field::Absent => true,
        Field::Unreadable => false,
        Field::Value(listed) => listed.iter().any(|listed| {
            let listed = listed.trim();
            ours.iter().any(|mime| mime.eq_ignore_ascii_case(listed))
        }),
    }
}

fn has_common(theirs: &[i64], ours: &[u32]) -> bool {
    ours.iter().any(|code| theirs.contains(&i64::from(*code)))
}
