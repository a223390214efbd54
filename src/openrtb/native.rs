//! Native (Native Ads 1.2): what an imp asks for, read from the document within the request when somebody wants to answer
//! it, and the document that answers.
//!
//! The request comes as the text of a JSON object, as the specification has it, or as the object itself. Version 1.0 put the
//! object under a root `native`, later ones do not; an answer has the form of its request, root and version.

mod answer;

pub use answer::{NativeAnswer, TrackerOut, pixel};

use bumpalo::Bump;

use super::fields::Field;
use super::formats::{Codes, Media};
use super::json::Raw;
use super::reader::native_ask;

/// Most assets that a request may ask for. Whoever asks for more gets no native bid: one of them may be required.
pub const ASSETS_MAX: usize = 64;

/// §3.2.9: a native slot.
#[derive(Debug, Clone, Copy, Default)]
pub struct Native<'a> {
    /// `request`, else `request_native`: an object or a text.
    pub(super) request: Option<Raw<'a>>,
    /// What it asks for, where somebody has read it before.
    pub(super) read: Option<&'a NativeAsk<'a>>,
    /// Version of `request`.
    pub ver: Option<&'a str>,
    /// API frameworks that are there.
    pub api: Codes<'a>,
    /// Blocked creative attributes.
    pub battr: Codes<'a>,
}

impl<'a> Native<'a> {
    /// What is asked for; nothing where that cannot be read, or is nothing.
    pub fn ask(&self, arena: &'a Bump) -> Option<NativeAsk<'a>> {
        if let Some(read) = self.read {
            return Some(*read);
        }
        native_ask(self.request?, self.ver, arena)
    }
}

/// Native 1.2 §4.1: what is asked for.
#[derive(Debug, Clone, Copy)]
pub struct NativeAsk<'a> {
    /// Whether all of it was under a root `native`.
    pub rooted: bool,
    /// `1.0`, `1.1` or `1.2`, which is also what any other version is answered with.
    pub ver: &'static str,
    /// At least one, at most [`ASSETS_MAX`].
    pub assets: &'a [AssetAsk<'a>],
    /// Events that may be tracked, and by which methods.
    pub eventtrackers: &'a [(i64, &'a [i64])],
    /// Whether a page of ours about privacy is shown.
    pub privacy: bool,
}

impl NativeAsk<'_> {
    /// Whether an event may be tracked by a method.
    pub fn tracks(&self, event: i64, method: i64) -> bool {
        self.eventtrackers
            .iter()
            .any(|(offered, methods)| *offered == event && methods.contains(&method))
    }
}

/// Native 1.2 §4.2: one asset.
#[derive(Debug, Clone, Copy)]
pub struct AssetAsk<'a> {
    /// Its id; without one it cannot be answered.
    pub id: Option<i64>,
    /// Whether there is no ad without it.
    pub required: bool,
    /// What it is.
    pub kind: AssetKind<'a>,
}

/// What an asset is.
#[derive(Debug, Clone, Copy)]
pub enum AssetKind<'a> {
    /// A title of at most so many characters.
    Title {
        /// Most characters.
        len: Field<i64>,
    },
    /// A picture.
    Image(ImageAsk),
    /// A text of some kind.
    Data {
        /// AdCOM list "Native Data Asset Types".
        kind: Option<i64>,
        /// Most characters.
        len: Field<i64>,
    },
    /// A video.
    Video(&'a Media<'a>),
    /// None of these, or several.
    Unknown,
}

/// Native 1.2 §4.4: a picture.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageAsk {
    /// AdCOM list "Native Image Asset Types"; any where it is not said.
    pub kind: Field<i64>,
    /// Width; exact where no least width is said.
    pub w: Field<i64>,
    /// Height; exact where no least height is said.
    pub h: Field<i64>,
    /// Least width.
    pub wmin: Field<i64>,
    /// Least height.
    pub hmin: Field<i64>,
    /// Types allowed.
    pub mimes: Field<ImageTypes>,
}

/// What pictures are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is its name")]
pub enum ImageType {
    Jpeg,
    Png,
    Gif,
    Webp,
    Avif,
    Svg,
}

impl ImageType {
    /// By its MIME type, whatever the case. `image/jpg` is what many write for `image/jpeg`.
    pub fn of_mime(mime: &str) -> Option<Self> {
        let known = [
            ("image/jpeg", Self::Jpeg),
            ("image/jpg", Self::Jpeg),
            ("image/png", Self::Png),
            ("image/gif", Self::Gif),
            ("image/webp", Self::Webp),
            ("image/avif", Self::Avif),
            ("image/svg+xml", Self::Svg),
        ];
        let mime = mime.trim();
        let mut known = known.into_iter();
        known.find_map(|(name, found)| name.eq_ignore_ascii_case(mime).then_some(found))
    }
}

/// A set of [`ImageType`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImageTypes(u8);

impl ImageTypes {
    /// Those of a list of MIME types that are known.
    pub(super) fn of_mimes(list: &[&str]) -> Self {
        let known = list.iter().filter_map(|mime| ImageType::of_mime(mime));
        Self(known.fold(0, |set, found| set | Self::bit(found)))
    }

    /// Whether it is among them.
    pub fn contains(self, image: ImageType) -> bool {
        self.0 & Self::bit(image) != 0
    }

    pub(super) fn bits(self) -> u8 {
        self.0
    }

    pub(super) fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    fn bit(image: ImageType) -> u8 {
        1u8.rotate_left(image as u32)
    }
}
