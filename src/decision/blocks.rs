//! What a request forbids, as sets of the book's own numbers: seats, categories, advertisers' domains.
//!
//! Each list is gone through once a request and never compared with a line item; those of categories and domains, which are
//! long, only when the first line item has got so far that it matters.

use super::bits::Bits;
use crate::campaigns::{CreativeTerms, Terms};
use crate::openrtb::{Field, Request, Strings};

/// `cattax` when not said: IAB Content Category Taxonomy 1.0.
const CATTAX_DEFAULT: i64 = 1;
/// AdCOM's category taxonomies. What a list of another one blocks we cannot know.
const CATTAX_KNOWN: std::ops::RangeInclusive<i64> = 1..=9;

/// One request's blocks. Scratch.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Seats that may bid.
    seats: Bits,
    /// Whether the exchange's own seat may.
    default_seat: bool,
    /// Whether the sets below are made.
    made: bool,
    blocked_categories: Bits,
    /// Set only where `acat` is sent.
    allowed_categories: Bits,
    blocked_domains: Bits,
    blocked_apps: Bits,
    /// Set only where `wlang` or `wlangb` is sent: the tags listed, and those above them.
    allowed_languages: Bits,
    languages_above: Bits,
}

impl Blocks {
    /// Begins with a request.
    pub(super) fn begin(&mut self, request: &Request<'_>, default_seat: &str, terms: &Terms) {
        self.made = false;
        self.default_seat = seat_allowed(default_seat, request.wseat, request.bseat);
        self.seats.clear(terms.seats());
        match request.wseat.value() {
            None => self.seats.fill(),
            Some(allowed) => allowed
                .iter()
                .filter_map(|seat| terms.seat(seat))
                .for_each(|seat| self.seats.insert(seat)),
        }
        for seat in request.bseat.value().unwrap_or(&[]) {
            if let Some(seat) = terms.seat(seat) {
                self.seats.remove(seat);
            }
        }
    }

    /// Whether a line item's seat may bid; `None` is the exchange's own.
    pub(super) fn seat_allowed(&self, seat: Option<u32>) -> bool {
        seat.map_or(self.default_seat, |seat| self.seats.contains(seat))
    }

    /// Whether the creative's categories may be shown. Lists are compared within one taxonomy; an allow list of another
    /// taxonomy, or for a creative without categories, allows nothing.
    pub(super) fn categories_allowed(
        &mut self,
        request: &Request<'_>,
        terms: &Terms,
        ours: &CreativeTerms,
    ) -> bool {
        self.make(request, terms);
        let cattax = request.cattax.value().unwrap_or(CATTAX_DEFAULT);
        let unknown = !CATTAX_KNOWN.contains(&cattax) && cattax != i64::from(ours.cattax);
        if unknown && request.bcat.value().is_some() && !ours.categories.is_empty() {
            return false;
        }
        let blocked = ours
            .categories
            .iter()
            .flatten()
            .any(|category| self.blocked_categories.contains(*category));
        let allowed = request.acat.value().is_none()
            || (!ours.categories.is_empty()
                && ours.categories.iter().all(|up| {
                    up.iter()
                        .any(|category| self.allowed_categories.contains(*category))
                }));
        allowed && !blocked
    }

    /// Whether the creative's advertiser is blocked: its domain, or any above it.
    pub(super) fn advertiser_blocked(
        &mut self,
        request: &Request<'_>,
        terms: &Terms,
        ours: &CreativeTerms,
    ) -> bool {
        self.make(request, terms);
        ours.domains
            .iter()
            .any(|domain| self.blocked_domains.contains(*domain))
    }

    /// Whether the app that the creative advertises is blocked.
    pub(super) fn app_blocked(
        &mut self,
        request: &Request<'_>,
        terms: &Terms,
        ours: &CreativeTerms,
    ) -> bool {
        self.make(request, terms);
        ours.bundle
            .is_some_and(|bundle| self.blocked_apps.contains(bundle))
    }

    /// Whether the creative's language may be shown: it is listed, or under one that is (`zh-Hant` where `zh` is), or says
    /// less than one that is. One without a language may.
    pub(super) fn language_allowed(
        &mut self,
        request: &Request<'_>,
        terms: &Terms,
        ours: &CreativeTerms,
    ) -> bool {
        self.make(request, terms);
        let limited = request.wlang.value().is_some() || request.wlangb.value().is_some();
        let Some(own) = ours.languages.first().filter(|_| limited) else {
            return true;
        };
        let mut tags = ours.languages.iter();
        tags.any(|tag| self.allowed_languages.contains(*tag)) || self.languages_above.contains(*own)
    }

    fn make(&mut self, request: &Request<'_>, terms: &Terms) {
        if self.made {
            return;
        }
        self.made = true;
        let cattax =
            u32::try_from(request.cattax.value().unwrap_or(CATTAX_DEFAULT)).unwrap_or(u32::MAX);
        for (list, set) in [
            (request.bcat, &mut self.blocked_categories),
            (request.acat, &mut self.allowed_categories),
        ] {
            set.clear(terms.categories());
            for category in list.value().unwrap_or(&[]) {
                if let Some(number) = terms.category(cattax, category) {
                    set.insert(number);
                }
            }
        }
        self.allowed_languages.clear(terms.languages());
        self.languages_above.clear(terms.languages());
        let lists = [request.wlang, request.wlangb];
        for tag in lists.iter().filter_map(|list| list.value()).flatten() {
            terms.language(tag, |steps, number| match steps {
                0 => self.allowed_languages.insert(number),
                _ => self.languages_above.insert(number),
            });
        }
        self.blocked_apps.clear(terms.bundles());
        for bundle in request.bapp.value().unwrap_or(&[]) {
            if let Some(number) = terms.bundle(bundle) {
                self.blocked_apps.insert(number);
            }
        }
        self.blocked_domains.clear(terms.domains());
        for domain in request.badv.value().unwrap_or(&[]) {
            if let Some(number) = terms.domain(domain) {
                self.blocked_domains.insert(number);
            }
        }
    }
}

/// Whether a seat may bid: with both lists, it must be in `wseat` and not in `bseat`.
pub(super) fn seat_allowed(seat: &str, wseat: Strings<'_>, bseat: Strings<'_>) -> bool {
    wseat.value().is_none_or(|allowed| allowed.contains(&seat))
        && bseat.value().is_none_or(|blocked| !blocked.contains(&seat))
}

/// AdCOM's banner types: XHTML banner, JavaScript, inline frame.
const BTYPE_BANNER: i64 = 2;
const BTYPE_SCRIPT: i64 = 3;
const BTYPE_IFRAME: i64 = 4;

/// Whether an imp's `btype` blocks the creative's markup.
pub(super) fn markup_blocked(btype: Field<&[i64]>, ours: &CreativeTerms) -> bool {
    match btype {
        Field::Absent => false,
        Field::Unreadable => true,
        Field::Value(blocked) => blocked.iter().any(|kind| match *kind {
            BTYPE_BANNER => true,
            BTYPE_SCRIPT => ours.script,
            BTYPE_IFRAME => ours.iframe,
            _ => false,
        }),
    }
}

/// Whether a domain is the listed one or under it, whatever the case or a final dot.
pub(super) fn domain_within(domain: &str, listed: &str) -> bool {
    let listed = listed.trim().trim_end_matches('.');
    let domain = domain.trim().trim_end_matches('.');
    let Some(start) = domain.len().checked_sub(listed.len()) else {
        return false;
    };
    let (Some(above), Some(tail)) = (domain.get(..start), domain.get(start..)) else {
        return false;
    };
    !listed.is_empty()
        && tail.eq_ignore_ascii_case(listed)
        && (above.is_empty() || above.ends_with('.'))
}

/// Whether a list that limits bids was sent and cannot be read.
pub(super) fn has_unreadable_limit(request: &Request<'_>) -> bool {
    let lists = [
        request.cur,
        request.wseat,
        request.bseat,
        request.bcat,
        request.acat,
        request.badv,
        request.bapp,
        request.wlang,
        request.wlangb,
    ];
    let names_categories = request.bcat.value().is_some() || request.acat.value().is_some();
    // A taxonomy limits nothing unless there is a list in it.
    lists.iter().any(Field::is_unreadable) || (request.cattax.is_unreadable() && names_categories)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaigns::{Book, compile};

    #[test]
    fn seats_need_the_one_list_and_not_the_other() {
        let list = |seats: &'static [&'static str]| Field::Value(seats);
        assert!(seat_allowed("a", Field::Absent, Field::Absent));
        assert!(seat_allowed("a", list(&["b", "a"]), list(&["c"])));
        assert!(!seat_allowed("a", list(&["b"]), Field::Absent));
        assert!(!seat_allowed("a", list(&["a"]), list(&["a"])));
        assert!(!seat_allowed("a", list(&["A"]), Field::Absent));
    }

    /// A book of one creative with these categories, and one of another taxonomy beside it.
    fn book(categories: &[&str], cattax: u32) -> Book {
        let document = serde_json::json!({
            "advertisers": [{"id": "a", "domain": "shop.acme.example", "categories": categories, "cattax": cattax},
                            {"id": "b", "domain": "b.example", "categories": ["IAB3-1"], "cattax": 1}],
            "creatives": [{"id": "cr", "advertiser": "a", "type": "banner", "w": 1, "h": 1, "adm": "x"},
                          {"id": "other", "advertiser": "b", "type": "banner", "w": 1, "h": 1, "adm": "x"}]});
        compile(document.to_string().as_bytes()).expect("a good document")
    }

    fn blocks(
        book: &Book,
        fields: &str,
        ask: impl Fn(&mut Blocks, &Request<'_>, &Terms, &CreativeTerms) -> bool,
    ) -> bool {
        let arena = bumpalo::Bump::new();
        let body = arena.alloc_str(&format!(r#"{{"id":"r","imp":[{{}}],{fields}}}"#));
        let request = crate::openrtb::read(body.as_bytes(), &arena, 1).expect("a request");
        let mut blocks = Blocks::default();
        blocks.begin(request, "kith", &book.terms);
        ask(
            &mut blocks,
            request,
            &book.terms,
            book.terms.creative(0).expect("the creative"),
        )
    }

    fn allowed(ours: &[&str], cattax: u32, fields: &str) -> bool {
        blocks(&book(ours, cattax), fields, Blocks::categories_allowed)
    }

    #[test]
    fn categories_are_compared_within_one_taxonomy() {
        assert!(!allowed(&["IAB3-1"], 1, r#""bcat":["IAB3"]"#));
        assert!(!allowed(&["IAB3"], 1, r#""bcat":["iab3"]"#));
        assert!(allowed(&["IAB3"], 1, r#""bcat":["IAB3-1"]"#));
        assert!(allowed(&["IAB31"], 1, r#""bcat":["IAB3"]"#));
        assert!(allowed(&["596"], 7, r#""bcat":["596"]"#));
        assert!(!allowed(&["596"], 7, r#""bcat":[596],"cattax":7"#));
        assert!(allowed(&[], 1, r#""bcat":["IAB3"]"#));
        // A taxonomy that nobody knows may block anything that has a category.
        assert!(!allowed(&["IAB3"], 1, r#""bcat":["x"],"cattax":777"#));
        assert!(allowed(&[], 1, r#""bcat":["x"],"cattax":777"#));
        assert!(allowed(&["x"], 777, r#""bcat":["y"],"cattax":777"#));
    }

    #[test]
    fn an_allow_list_allows_only_what_it_names() {
        assert!(allowed(&["IAB3-1"], 1, r#""acat":["IAB3"]"#));
        assert!(!allowed(&["IAB3-1", "IAB4"], 1, r#""acat":["IAB3"]"#));
        assert!(!allowed(&[], 1, r#""acat":["IAB3"]"#));
        assert!(!allowed(&["596"], 7, r#""acat":["IAB3"]"#));
        assert!(!allowed(&["IAB3"], 1, r#""acat":["IAB3"],"bcat":["IAB3"]"#));
    }

    #[test]
    fn a_blocked_domain_blocks_those_under_it() {
        for (listed, want) in [
            ("shop.acme.example", true),
            ("acme.example", true),
            (" ACME.example. ", true),
            ("example", true),
            ("me.example", false),
            ("x.shop.acme.example", false),
            ("", false),
            (".", false),
        ] {
            let fields = format!(r#""badv":["y.example","{listed}"]"#);
            assert_eq!(
                blocks(&book(&[], 1), &fields, Blocks::advertiser_blocked),
                want,
                "{listed}"
            );
            assert_eq!(domain_within("shop.acme.example", listed), want, "{listed}");
        }
    }
}
