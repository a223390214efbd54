//! A creative's markup, made ready to be written into a response.
//!
//! A bid's `adm` is a JSON string that differs between bids only where macros stand. So the template is split at the
//! macros that Kith fills in itself and the pieces are escaped for JSON at compile time; writing a bid copies them. All
//! other `${…}` are the exchange's and stay as they are.

/// The macro that becomes the click URL.
pub const CLICK_MACRO: &str = "${KITH_CLICK_URL}";

/// Markup in pieces, each already escaped as the inside of a JSON string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markup {
    /// What stands before, between and behind the click macros: one more than there are macros.
    pub pieces: Box<[Box<str>]>,
    /// All of it, with the creative's landing page for the macros; without quotes around it.
    pub escaped: Box<str>,
}

impl Markup {
    /// Prepares a template whose clicks go to `landing`.
    pub(super) fn new(template: &str, landing: &str) -> Self {
        let pieces: Box<[Box<str>]> = template
            .split(CLICK_MACRO)
            .map(|piece| json_inside(piece).into())
            .collect();
        let escaped = pieces.join(json_inside(landing).as_str()).into();
        Self { pieces, escaped }
    }
}

/// A text as the inside of a JSON string, without the quotes around it.
pub fn json_inside(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(inside: &str) -> String {
        serde_json::from_str(&format!("\"{inside}\"")).expect("the inside of a JSON string")
    }

    #[test]
    fn the_click_macro_alone_is_filled_in() {
        let markup = Markup::new(
            "<a href=\"${KITH_CLICK_URL}\">${AUCTION_PRICE}</a><script>\u{2028}'${KITH_CLICK_URL}'</script>\n",
            "https://acme.example/?a=1&b=2",
        );
        assert_eq!(markup.pieces.len(), 3);
        assert_eq!(
            read(&markup.escaped),
            "<a href=\"https://acme.example/?a=1&b=2\">${AUCTION_PRICE}</a><script>\u{2028}'https://acme.example/?a=1&b=2'</script>\n"
        );
    }

    proptest! {
        #[test]
        fn any_text_survives(text in "\\PC*|[\\x00-\\x7f\"\\\\]*") {
            prop_assert_eq!(read(&json_inside(&text)), text.clone());
            let markup = Markup::new(&text, "https://acme.example/");
            prop_assert_eq!(read(&markup.escaped), text.replace(CLICK_MACRO, "https://acme.example/"));
        }
    }
}
