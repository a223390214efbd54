//! What a creative is made of besides a banner's markup: the facts of a video or an audio, the assets of a native ad.

use super::markup::Markup;
use crate::openrtb::{ImageType, TrackerOut};

/// A VAST document's facts, as the campaigns document declares them. The VAST itself is never read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaAd {
    /// MIME types of its media files; at least one.
    pub mimes: Box<[Box<str>]>,
    /// Protocols that it is written in (AdCOM list "Creative Subtypes - Audio/Video"); at least one.
    pub protocols: Box<[u32]>,
    /// Seconds.
    pub duration: u32,
    /// Its media files' bit rates lie about this one, in kbit/s.
    pub bitrate: Option<u32>,
    /// Linear (1) or not (2).
    pub linearity: u32,
}

/// A native ad in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeAd {
    /// In the document's order: of several that fit, the first is shown. At least one.
    pub assets: Box<[NativeAsset]>,
    /// The members of its `link`, escaped for `adm`.
    pub link: Markup,
    /// What is tracked.
    pub trackers: Box<[TrackerOut]>,
    /// URL of a page about privacy.
    pub privacy: Option<Box<str>>,
}

/// A part of a native ad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeAsset {
    /// What it is.
    pub kind: NativeAssetKind,
    /// The members that say it in a response, escaped for `adm`.
    pub markup: Markup,
}

/// What a part of a native ad is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NativeAssetKind {
    /// A title of so many characters.
    Title {
        /// Unicode scalar values.
        chars: usize,
    },
    /// A picture.
    Image {
        /// AdCOM list "Native Image Asset Types".
        kind: u32,
        /// Width in pixels.
        w: u32,
        /// Height in pixels.
        h: u32,
        /// What it is written in, where that is declared or the URL's ending tells.
        mime: Option<ImageType>,
    },
    /// A text of some kind.
    Data {
        /// AdCOM list "Native Data Asset Types".
        kind: u32,
        /// Unicode scalar values.
        chars: usize,
    },
    /// A video.
    Video(MediaAd),
}
