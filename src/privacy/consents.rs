//! What consent strings say to us, each decoded once while it is remembered.
//!
//! A person sends the same string with every request for weeks. One cache a bid thread: a string has one place, by some
//! of its bytes, and takes it from whoever was there. Other strings that meet in a place cost a decoding, never a wrong
//! answer, for the whole string is compared. Memory is bounded: [`PLACES`] strings of at most [`TEXT_BYTES_MAX`] bytes; a longer
//! one is decoded each time, in time bounded by its length.

use super::Policy;
use super::gpp::Gpp;
use super::purposes::Purposes;
use super::tcf::TcString;

const PLACES: usize = 2048;
/// Real TC strings have 40 to 1,500 bytes.
const TEXT_BYTES_MAX: usize = 2048;

/// What a string is to be read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Tcf(Purposes),
    Gpp(Option<Gpp>),
}

#[derive(Debug)]
struct Place {
    text: String,
    said: Said,
}

/// The cache. Scratch of one thread.
#[derive(Debug, Default)]
pub struct Consents {
    places: Vec<Option<Place>>,
    /// Whose answers are remembered: those of another policy are other answers.
    policy: Option<Policy>,
    decoded: u64,
}

impl Consents {
    /// Strings decoded so far.
    pub fn decoded(&self) -> u64 {
        self.decoded
    }

    /// The purposes that a TC string grants us; none where it cannot be read.
    pub(super) fn tcf(&mut self, text: &str, policy: &Policy) -> Purposes {
        let decode = |text: &str| {
            let tc = TcString::read(text, policy.vendor_id);
            Said::Tcf(tc.map_or(Purposes::NONE, |tc| policy.granted(&tc)))
        };
        match self.said(text, policy, false, decode) {
            Said::Tcf(granted) => granted,
            Said::Gpp(_) => Purposes::NONE,
        }
    }

    /// What a GPP string says to us; nothing where it cannot be read.
    pub(super) fn gpp(&mut self, text: &str, policy: &Policy) -> Option<Gpp> {
        let decode = |text: &str| Said::Gpp(Gpp::read(text, policy));
        match self.said(text, policy, true, decode) {
            Said::Gpp(gpp) => gpp,
            Said::Tcf(_) => None,
        }
    }

    fn said(
        &mut self,
        text: &str,
        policy: &Policy,
        is_gpp: bool,
        decode: impl FnOnce(&str) -> Said,
    ) -> Said {
        if self.policy.as_ref() != Some(policy) {
            self.places.clear();
            self.places.resize_with(PLACES, || None);
            self.policy = Some(policy.clone());
        }
        let place = match self.places.get_mut(place_of(text, is_gpp)) {
            Some(place) if text.len() <= TEXT_BYTES_MAX => place,
            _ => {
                self.decoded = self.decoded.saturating_add(1);
                return decode(text);
            }
        };
        if let Some(known) = place
            && known.text == text
            && matches!(known.said, Said::Gpp(_)) == is_gpp
        {
            return known.said;
        }
        self.decoded = self.decoded.saturating_add(1);
        let said = decode(text);
        let known = place.get_or_insert_with(|| Place {
            text: String::new(),
            said,
        });
        known.text.clear();
        known.text.push_str(text);
        known.said = said;
        said
    }
}

/// Where a string is remembered: by its length, its beginning, where its times are, its middle and its end.
fn place_of(text: &str, is_gpp: bool) -> usize {
    let bytes = text.as_bytes();
    let mut hash = u64::try_from(bytes.len()).unwrap_or(0) ^ u64::from(is_gpp);
    let middle = bytes.len() / 2;
    let end = bytes.len().saturating_sub(8);
    for at in [0, 8, middle, end] {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
        let word = word.map_or(0, |word| u64::from_le_bytes(*word));
        hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    usize::try_from(hash).map_or(0, |hash| hash % PLACES)
}
