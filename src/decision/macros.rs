//! What the privacy macros in a creative's markup become: what the request says, passed on as it is.
//!
//! It comes from outside and goes into markup, so a string that is no TC or GPP string by its letters is left out.

use bumpalo::Bump;
use bumpalo::collections::String as ArenaString;

use crate::campaigns::PrivacyMacro;
use crate::openrtb::{Flag, Homes, Signals};

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

/// The first home's string, unchanged.
fn passed_on<'a>(homes: &Homes<'a>, besides: &[u8]) -> &'a str {
    let text = homes.iter().next().unwrap_or("");
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || besides.contains(&byte);
    if text.bytes().all(is_known) { text } else { "" }
}
