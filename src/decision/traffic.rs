//! Requests that an exchange's configuration refuses as a whole (`[exchanges.x.refuse]`), cheapest rule first. Where nothing is
//! refused nothing is looked at.

use std::net::IpAddr;

use bumpalo::Bump;

use super::NoBid;
use super::blocks::domain_within;
use crate::campaigns::device_type;
use crate::config::Refuse;
use crate::openrtb::{Device, Field, Request};

/// What crawlers that say so have in their user agents, in lower case.
const CRAWLERS: [&str; 3] = ["bot", "crawler", "spider"];

/// A maker of phones, whose name is in the user agents of those who have one.
const NO_CRAWLER: &str = "cubot";

/// Why the request gets no bid, if it does.
pub(super) fn refused<'a>(
    refuse: &Refuse,
    request: &Request<'a>,
    arena: &'a Bump,
) -> Option<NoBid> {
    let device = &request.device;
    if (refuse.crawlers || !refuse.agents.is_empty())
        && let Some(agent) = device.ua
    {
        let agent = arena.alloc_str(agent);
        agent.make_ascii_lowercase();
        if refuse.crawlers && is_crawler(agent) {
            return Some(NoBid::Crawler);
        }
        if refuse.agents.iter().any(|word| agent.contains(&**word)) {
            return Some(NoBid::NonHuman);
        }
    }
    if !refuse.networks.is_empty() && is_within(device, refuse) {
        return Some(NoBid::DataCentre);
    }
    let is_listed = |list: &[String], text: &str| list.iter().any(|known| known == text);
    let kind = device.devicetype.and_then(device_type);
    if kind.is_some_and(|kind| is_listed(&refuse.device_types, kind)) {
        return Some(NoBid::Device);
    }
    let site = &request.site;
    let has_refused =
        |list: &[String], text: Option<&str>| text.is_some_and(|text| is_listed(list, text));
    let by_domain = site.domain.is_some_and(|domain| {
        refuse
            .domains
            .iter()
            .any(|listed| domain_within(domain, listed))
    });
    if by_domain
        || has_refused(&refuse.bundles, site.bundle)
        || has_refused(&refuse.publishers, site.publisher)
    {
        return Some(NoBid::Inventory);
    }
    if refuse.asks_for_the_chain() {
        return chain_refused(refuse, request, arena);
    }
    None
}

fn is_crawler(agent: &str) -> bool {
    let mut parts = agent.split(NO_CRAWLER);
    parts.any(|part| CRAWLERS.iter().any(|word| part.contains(word)))
}

fn is_within(device: &Device<'_>, refuse: &Refuse) -> bool {
    let addresses = [device.ip, device.ipv6].into_iter().flatten();
    let mut addresses = addresses.filter_map(|text| text.trim().parse::<IpAddr>().ok());
    addresses.any(|address| {
        let address = address.to_canonical();
        refuse
            .networks
            .iter()
            .any(|network| network.contains(&address))
    })
}

fn chain_refused<'a>(refuse: &Refuse, request: &Request<'a>, arena: &'a Bump) -> Option<NoBid> {
    let mut has_refused = false;
    let chain = request.schain.read(arena, |asi, sid| {
        let asi = asi.trim();
        has_refused |= refuse
            .sellers
            .iter()
            .any(|listed| match listed.split_once('/') {
                Some((system, seller)) => {
                    asi.eq_ignore_ascii_case(system) && sid.trim().eq_ignore_ascii_case(seller)
                }
                None => asi.eq_ignore_ascii_case(listed),
            });
    });
    // A chain of which a part cannot be read may hold a seller that is refused.
    let is_readable = match chain {
        Field::Absent => true,
        Field::Unreadable => false,
        Field::Value(chain) => chain.is_readable,
    };
    if has_refused || (!refuse.sellers.is_empty() && !is_readable) {
        return Some(NoBid::Seller);
    }
    let is_whole = matches!(chain, Field::Value(chain) if chain.is_complete && chain.is_readable);
    (refuse.incomplete_chains && !is_whole).then_some(NoBid::Chain)
}
