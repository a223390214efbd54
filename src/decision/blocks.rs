//! What a request forbids: seats, categories, advertisers. Each question has one answer here and one reading of the
//! specification's silences.

use crate::openrtb::{Field, Request, Strings};

/// `cattax` when not said: IAB Content Category Taxonomy 1.0.
const CATTAX_DEFAULT: i64 = 1;

/// Whether a seat may bid: with both lists, it must be in `wseat` and not in `bseat`.
pub(super) fn seat_allowed(seat: &str, wseat: Strings<'_>, bseat: Strings<'_>) -> bool {
    wseat.value().is_none_or(|allowed| allowed.contains(&seat))
        && bseat.value().is_none_or(|blocked| !blocked.contains(&seat))
}

/// Whether categories of taxonomy `cattax` may be shown. Blocks are compared within one taxonomy, parents block
/// their children (`IAB3` blocks `IAB3-1`); an allow list of another taxonomy allows nothing.
pub(super) fn categories_allowed(
    categories: &[Box<str>],
    cattax: i64,
    request: &Request<'_>,
) -> bool {
    let same = request.cattax.value().unwrap_or(CATTAX_DEFAULT) == cattax;
    let within = |category: &str, list: &[&str]| list.iter().any(|listed| covers(listed, category));
    let blocked = request
        .bcat
        .value()
        .is_some_and(|bcat| same && categories.iter().any(|category| within(category, bcat)));
    let allowed = request.acat.value().is_none_or(|acat| {
        same && !categories.is_empty() && categories.iter().all(|category| within(category, acat))
    });
    allowed && !blocked
}

fn covers(listed: &str, category: &str) -> bool {
    let Some(start) = category.get(..listed.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(listed)
        && matches!(category.as_bytes().get(listed.len()), None | Some(b'-'))
}

/// Whether an advertiser's domain is blocked: itself, or any domain above it, whatever the case or a final dot.
pub(super) fn domain_blocked(domain: &str, badv: Strings<'_>) -> bool {
    badv.value()
        .is_some_and(|blocked| blocked.iter().any(|listed| domain_within(domain, listed)))
}

/// Whether a domain is the listed one or under it.
pub(super) fn domain_within(domain: &str, listed: &str) -> bool {
    let plain = |name: &str| name.trim().trim_end_matches('.').len();
    let domain = domain.trim().get(..plain(domain)).unwrap_or("");
    let listed = listed.trim().get(..plain(listed)).unwrap_or("");
    if listed.is_empty() || domain.len() < listed.len() {
        return false;
    }
    let start = domain.len().saturating_sub(listed.len());
    let (Some(above), Some(tail)) = (domain.get(..start), domain.get(start..)) else {
        return false;
    };
    tail.eq_ignore_ascii_case(listed) && (above.is_empty() || above.ends_with('.'))
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
    ];
    let lists_blocked = lists.iter().any(Field::is_unreadable);
    // A taxonomy limits nothing unless there is a list in it.
    let names_categories = request.bcat.value().is_some() || request.acat.value().is_some();
    lists_blocked || (request.cattax.is_unreadable() && names_categories)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_need_the_one_list_and_not_the_other() {
        let list = |seats: &'static [&'static str]| Field::Value(seats);
        assert!(seat_allowed("a", Field::Absent, Field::Absent));
        assert!(seat_allowed("a", list(&["b", "a"]), list(&["c"])));
        assert!(!seat_allowed("a", list(&["b"]), Field::Absent));
        assert!(!seat_allowed("a", list(&["a"]), list(&["a"])));
        assert!(!seat_allowed("a", list(&["A"]), Field::Absent));
    }

    fn allowed(ours: &[&str], cattax: i64, fields: &str) -> bool {
        let arena = bumpalo::Bump::new();
        let body = arena.alloc_str(&format!(r#"{{"id":"r","imp":[{{}}],{fields}}}"#));
        let request = crate::openrtb::read(body.as_bytes(), &arena, 1).expect("a request");
        let ours: Vec<Box<str>> = ours.iter().map(|c| (*c).into()).collect();
        categories_allowed(&ours, cattax, &request)
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
        for (domain, listed, want) in [
            ("acme.example", "acme.example", true),
            ("acme.example", "ACME.example.", true),
            ("shop.acme.example", "acme.example", true),
            ("acme.example", "shop.acme.example", false),
            ("notacme.example", "acme.example", false),
            ("acme.example", "", false),
            ("acme.example", ".", false),
        ] {
            assert_eq!(domain_within(domain, listed), want, "{domain} {listed}");
        }
    }
}
