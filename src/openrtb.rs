//! The only owner of OpenRTB JSON: a borrowed, lenient view of a bid request, and the writer of a response.
//!
//! A body becomes a [`Request`] in one pass: the fields a bidder reads, as slices of the body, and everything else
//! skipped. Real requests are wrong in a hundred small ways, so no field but `id` and `imp` can make one
//! malformed. What cannot be read is absent and noted in [`Request::unreadable`]; what *limits* us and cannot be read
//! is kept as [`Field::Unreadable`], so that the decision refuses what it limits instead of bidding as if it
//! were not there. Privacy signals are gathered across duplicates and homes, none lost.
//!
//! Invariant: no JSON text leaves this module but as opaque slices to echo (`id`, `impid`, `dealid`) or
//! to come back for a later look (`user.data`). Cost: 28,000 instructions for 2.8 KB (callgrind,
//! `read` of `bench counts`), UTF-8 check included; strings with escapes and lists go
//! into the caller's arena, so that a warm reader allocates nothing.

pub mod json;

mod abridged;
mod fields;
mod formats;
mod kept;
mod keys;
mod list;
mod native;
mod reader;
mod repair;
mod request;
mod response;
mod signals;

pub use abridged::{Seen, abridge, abridged};
pub use fields::{Field, FieldName, FieldSet};
pub use formats::{Banner, Codes, DurFloor, DurationFloors, Flex, Media, Pod, Size};
pub use kept::{BrandVersion, Chain, SupplyChain, UserAgent, UserData};
pub use native::{
    ASSETS_MAX, AssetAsk, AssetKind, ImageAsk, ImageType, ImageTypes, Native, NativeAnswer,
    NativeAsk, TrackerOut, pixel,
};
pub use reader::{BadRequest, read};
pub use repair::{Text, readable};
pub use request::{
    AuctionType, Deal, Device, Dsa, Eid, Floor, Geo, Imp, Placement, Request, Site, Strings, Uid,
    User,
};
pub use response::{
    BidId, BidOut, CLICK_MACRO, CreativeOut, Mtype, NoticeTokens, NoticeUrls, PIXEL_HTML_MACRO,
    PIXEL_VAST_MACRO, line_item_part, transparency_part, write_bids, write_no_bid,
};
pub use signals::{Flag, Homes, SectionIds, Signals};
