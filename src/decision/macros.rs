//! What the privacy macros in a creative's markup become: what the request says, passed on as it is.
//!
//! It comes from outside and goes into markup, so a string that is no TC or GPP string by its letters or its length is
//! left out, and so is one that another home contradicts.

use bumpalo::Bump;
use bumpalo::collections::String as ArenaString;

use crate::campaigns::PrivacyMacro;
use crate::openrtb::{Flag, Homes, Signals};

/// Longer strings are not passed on: each macro of each bid is a copy. Real ones have up to 1,500 bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// The value of a macro; empty where the request says nothing of it.
pub(super) fn value<'a>(which: PrivacyMacro, signals: &Signals<'a>, arena: &'a Bump) -> &'a str {
    match which {
        PrivacyMacro::Gdpr => match signals.gdpr {
            Flag::Absent => "",
            Flag::No => "0",
            Flag::Yes => "1",
        },
        PrivacyMacro::GdprConsent => passed_on(&signals.consent, b"-_.="),
        PrivacyMacro::GppString => passed_on(&signals.gpp, b"-_.~"),
        PrivacyMacro::GppSid if signals.gpp_sid.unreadable => "",
        PrivacyMacro::GppSid => {
            let mut list = ArenaString::new_in(arena);
            for section in signals.gpp_sid.iter() {
                if !list.is_empty() {
                    list.push('_');
                }
                let tens = section / 10;
                if tens > 0 {
                    list.push(char::from(b'0'.wrapping_add(tens)));
                }
                list.push(char::from(b'0'.wrapping_add(section % 10)));
            }
            list.into_bump_str()
        }
    }
}

/// The string, unchanged, where its homes agree.
fn passed_on<'a>(homes: &Homes<'a>, besides: &[u8]) -> &'a str {
    let mut texts = homes.iter();
    let (Some(text), None, false) = (texts.next(), texts.next(), homes.unreadable) else {
        return "";
    };
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || besides.contains(&byte);
    if text.len() <= TEXT_BYTES_MAX && text.bytes().all(is_known) {
        text
    } else {
        ""
    }
}
