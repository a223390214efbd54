//! What an exchange may send us, where less than everything is wanted: `[exchanges.x.refuse]` for whole requests,
//! `[exchanges.x.ids]` for the ids in them.

use ipnet::IpNet;

use super::forms;
use super::sheet::Sheet;
use crate::identity;

/// Requests of an exchange that get no bid, whoever would want them. By default none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refuse {
    /// Whether crawlers that say that they are some are refused (`nbr` 3).
    pub crawlers: bool,
    /// User agents that contain one of these, lower case, are not taken for people (`nbr` 4).
    pub agents: Box<[String]>,
    /// Devices in these networks are data centres and proxies (`nbr` 5).
    pub networks: Box<[IpNet]>,
    /// Words for device types (`nbr` 6).
    pub device_types: Box<[String]>,
    /// Sites and apps' developers by domain, lower case, with all below it (`nbr` 7).
    pub domains: Box<[String]>,
    /// Apps by bundle (`nbr` 7).
    pub bundles: Box<[String]>,
    /// Publishers by the exchange's id (`nbr` 7).
    pub publishers: Box<[String]>,
    /// People of whom no dataset that may be read knows anything (`nbr` 8).
    pub unknown_people: bool,
    /// Requests whose supply chain is not there, not complete or not readable (`nbr` 16).
    pub incomplete_chains: bool,
    /// Sellers in the supply chain: a system's domain, lower case, or one seller of it as `domain/sid` (`nbr` 17).
    pub sellers: Box<[String]>,
}

impl Refuse {
    /// Whether anything is refused that the supply chain tells.
    pub fn asks_for_the_chain(&self) -> bool {
        self.incomplete_chains || !self.sellers.is_empty()
    }
}

pub(super) fn refuse(s: &mut Sheet<'_>) -> Refuse {
    Refuse {
        crawlers: s.get(
            "crawlers",
            &forms::switch(),
            "false",
            "refuse user agents that say bot, crawler or spider (nbr 3)",
        ),
        agents: s.get(
            "agents",
            &forms::texts(256, true),
            "[]",
            "refuse user agents that contain one of these, whatever the case (nbr 4)",
        ),
        networks: s.get(
            "networks",
            &forms::networks().map(Vec::into_boxed_slice),
            "[]",
            "refuse devices in these networks, as of data centres and proxies (nbr 5)",
        ),
        device_types: s.get(
            "device_types",
            &forms::texts(64, false),
            "[]",
            "refuse devices of these types, in the words of targeting's device_type (nbr 6)",
        ),
        domains: s.get(
            "domains",
            &forms::texts(256, true),
            "[]",
            "refuse sites of these domains and those below them (nbr 7)",
        ),
        bundles: s.get(
            "bundles",
            &forms::texts(256, false),
            "[]",
            "refuse apps of these bundles (nbr 7)",
        ),
        publishers: s.get(
            "publishers",
            &forms::texts(256, false),
            "[]",
            "refuse publishers of these ids (nbr 7)",
        ),
        unknown_people: s.get(
            "unknown_people",
            &forms::switch(),
            "false",
            "refuse requests about people whom no dataset that may be read knows (nbr 8)",
        ),
        incomplete_chains: s.get(
            "incomplete_chains",
            &forms::switch(),
            "false",
            "refuse requests whose supply chain is missing, incomplete or unreadable (nbr 16)",
        ),
        sellers: s.get(
            "sellers",
            &forms::texts(512, true),
            "[]",
            "refuse supply chains with these systems, as \"ssp.example\", or sellers of one, as \"ssp.example/1234\" (nbr 17)",
        ),
    }
}

pub(super) fn ids(s: &mut Sheet<'_>) -> identity::Policy {
    identity::Policy {
        refused_match_methods: s.get(
            "refused_match_methods",
            &codes("AdCOM match methods"),
            "[]",
            "extended ids matched so (mm) are not used: 0 unknown, 3 authenticated, 4 observed, 5 inferred",
        ),
        refused_agent_types: s.get(
            "refused_agent_types",
            &codes("AdCOM agent types"),
            "[]",
            "extended ids of this (atype) are not used: 0 not said, 1 a browser or device, 2 an app, 3 a person",
        ),
        matchers: s.get(
            "matchers",
            &forms::texts(256, true),
            "[]",
            "who may have matched an extended id (mm 3 and above), by domain; empty: anybody",
        ),
        inserters: s.get(
            "inserters",
            &forms::texts(256, true),
            "[]",
            "who may have put an extended id into the request, by domain; empty: anybody",
        ),
        own_source: s
            .get(
                "own_source",
                &forms::text(256).or_none(),
                "\"\"",
                "the source under which our own ids come as extended ones: their mm is that of buyeruid too",
            )
            .unwrap_or_default()
            .to_ascii_lowercase()
            .into_boxed_str(),
    }
}

fn codes(what: &str) -> forms::Form<Box<[i64]>> {
    forms::whole::<i64>(0, 9_999)
        .list(what)
        .map(Vec::into_boxed_slice)
}
