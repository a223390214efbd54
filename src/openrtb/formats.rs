//! What an imp can offer: a banner, a video, an audio, as the request says it. Native has a document of its own
//! ([`super::native`]).
//!
//! Video and audio are one type, for they differ in no field that we read. What is not read limits nobody that we know of:
//! `startdelay`, `plcmt`, `placement`, `podseq` and `sequence` describe the place, `skip` the player (a publisher who wants
//! no skippable ads says so in `battr`), `delivery` and `playbackmethod` how it is played.

use super::fields::Field;
use super::request::Strings;
use crate::money::Price;

/// A list of codes of AdCOM. `Absent` when not sent or empty.
pub type Codes<'a> = Field<&'a [i64]>;

/// Width and height in device-independent pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Width.
    pub w: i64,
    /// Height.
    pub h: i64,
}

/// §3.2.10: a size given as proportions, `wratio` to `hratio`, both over 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flex {
    /// Relative width.
    pub wratio: i64,
    /// Relative height.
    pub hratio: i64,
    /// Least width; 0 where none is said.
    pub wmin: i64,
}

/// §3.2.6: a banner slot.
#[derive(Debug, Clone, Copy, Default)]
pub struct Banner<'a> {
    /// Every size allowed: those of `format`, and `w` by `h`.
    pub sizes: &'a [Size],
    /// The proportions allowed, of `format`.
    pub flex: &'a [Flex],
    /// MIME types allowed.
    pub mimes: Strings<'a>,
    /// API frameworks that are there.
    pub api: Codes<'a>,
    /// Blocked creative attributes.
    pub battr: Codes<'a>,
    /// Blocked banner types.
    pub btype: Codes<'a>,
    /// Position on screen.
    pub pos: Option<i64>,
}

/// §3.2.7, §3.2.8: a video or audio slot.
#[derive(Debug, Clone, Copy, Default)]
pub struct Media<'a> {
    /// MIME types allowed. The specification asks for them, requests leave them out: then there is nothing that may be shown.
    pub mimes: Strings<'a>,
    /// Shortest ad in seconds.
    pub minduration: Field<i64>,
    /// Longest ad in seconds.
    pub maxduration: Field<i64>,
    /// The only lengths allowed, in seconds.
    pub rqddurs: Codes<'a>,
    /// Protocols that the player understands: `protocols`, else the deprecated `protocol`.
    pub protocols: Codes<'a>,
    /// Width of the player.
    pub w: Option<i64>,
    /// Height of the player.
    pub h: Option<i64>,
    /// Whether the ad must be linear (1) or not (2).
    pub linearity: Field<i64>,
    /// Blocked creative attributes.
    pub battr: Codes<'a>,
    /// API frameworks that are there.
    pub api: Codes<'a>,
    /// Least bit rate in kbit/s.
    pub minbitrate: Field<i64>,
    /// Greatest bit rate in kbit/s.
    pub maxbitrate: Field<i64>,
    /// Position on screen.
    pub pos: Option<i64>,
    /// The break that the slot is part of.
    pub pod: Pod<'a>,
    /// Floors that depend on the ad's length, in the imp's currency.
    pub floors: DurationFloors<'a>,
}

/// §7.6: what a slot says of its pod. A pod is *dynamic* where its time or its number of ads is for us to share out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pod<'a> {
    /// What the slots of one pod have in common.
    pub podid: Field<&'a str>,
    /// Seconds that ads may fill in all.
    pub poddur: Field<i64>,
    /// Most ads.
    pub maxseq: Field<i64>,
    /// Which position the seller guarantees: 1 the first, -1 the last, 2 either, 0 none.
    pub slotinpod: i64,
}

impl Pod<'_> {
    /// Whether time or number are for us to share out.
    pub fn is_dynamic(&self) -> bool {
        self.poddur != Field::Absent || self.maxseq != Field::Absent
    }

    /// Whether a bid can be sure of a position, 1 or -1. Where either is guaranteed (2) the bid says which, which it can in
    /// a dynamic pod only.
    pub fn grants(&self, position: i64) -> bool {
        self.slotinpod == position || (self.slotinpod == 2 && self.is_dynamic())
    }
}

/// Floors by the length of the ad, of a slot or a deal.
#[derive(Debug, Clone, Copy, Default)]
pub struct DurationFloors<'a> {
    /// CPM for each second.
    pub mincpmpersec: Field<Price>,
    /// Floors of ranges of lengths.
    pub durfloors: Field<&'a [DurFloor]>,
}

/// §3.2.35: the floor of a range of lengths, both ends in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurFloor {
    /// Shortest, in seconds; none where it is open or cannot be read.
    pub mindur: Option<i64>,
    /// Longest, in seconds; none where it is open or cannot be read.
    pub maxdur: Option<i64>,
    /// CPM; absent is 0.
    pub bidfloor: Field<Price>,
}

impl DurFloor {
    /// Whether an ad of that length is in the range.
    pub fn covers(&self, seconds: i64) -> bool {
        self.mindur.is_none_or(|least| least <= seconds)
            && self.maxdur.is_none_or(|most| seconds <= most)
    }
}
