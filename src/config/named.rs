//! The sections that users name: exchanges, which exist only as configured, and datasets, which also come into
//! being by upload and are configured only where the defaults do not fit.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::forms;
use super::guards::{self, Guards};
use super::sections::Budget;
use super::sheet::{Log, Sheet, read_document};
use super::traffic::{self, Refuse};
use super::tree::Table;
use crate::audience::{Errors, FalsePositiveRate};
use crate::campaigns::device_type;
use crate::identity;
use crate::ids::{Kind, Name};
use crate::ledger::PriceKey;
use crate::money::Currency;

/// Who calls the bid endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name, in `POST /bid/{name}` and in metric labels.
    pub name: Name,
    /// The source of its own user ids: `exchange:<name>`.
    pub id_source: String,
    /// Its position among all exchanges.
    pub index: usize,
    /// What we bid in where the request does not say.
    pub currency: Currency,
    /// The deadline of a request without `tmax`.
    pub default_tmax_ms: u32,
    /// Network time left out of `tmax`.
    pub margin_ms: u32,
    /// How no-bids are answered.
    pub no_bid: NoBidForm,
    /// Which notice bills.
    pub billing: Billing,
    /// How long after a bid its notice may come.
    pub billing_window: Duration,
    /// What the exchange puts the price for, in URLs of ours.
    pub price_macro: String,
    /// Files of the keys that it encrypts prices with.
    pub price_keys: Vec<PriceKeyFiles>,
    /// The networks it may call from; empty: any.
    pub allow: Vec<IpNet>,
    /// SHA-256 of the key in `POST /bid/{name}/{key}`; where set, the path without it does not exist.
    pub path_key_sha256: Option<[u8; 32]>,
    /// The buyer we bid for where a line item names none.
    pub seat: String,
    /// Whether a request with `test: 1` may ask for debug output.
    pub debug: bool,
    /// Requests that get no bid.
    pub refuse: Refuse,
    /// Ids that are not used.
    pub ids: identity::Policy,
}

/// The files of a pair of keys, each 32 bytes as hexadecimal digits or base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceKeyFiles {
    /// What prices are encrypted with.
    pub encryption: PathBuf,
    /// What they are signed with.
    pub integrity: PathBuf,
}

impl Exchange {
    /// Reads the keys that it encrypts prices with. An error says which file, and what to do.
    pub fn price_keys(&self) -> Result<Vec<PriceKey>, String> {
        let read = |path: &Path| {
            let told = |what: &dyn std::fmt::Display| {
                format!(
                    "exchanges.{}.price_keys, {}: {what}",
                    self.name,
                    path.display()
                )
            };
            let text = std::fs::read_to_string(path).map_err(|error| told(&error))?;
            PriceKey::read(&text).ok_or_else(|| {
                told(&"it holds no key: write its 32 bytes as 64 hexadecimal digits or as base64")
            })
        };
        let key = |files: &PriceKeyFiles| {
            Ok(PriceKey {
                encryption: read(&files.encryption)?,
                integrity: read(&files.integrity)?,
            })
        };
        self.price_keys.iter().map(key).collect()
    }

    /// Whether it may call from this address.
    pub fn admits(&self, caller: IpAddr) -> bool {
        let caller = caller.to_canonical();
        self.allow.is_empty() || self.allow.iter().any(|network| network.contains(&caller))
    }

    /// How long after its arrival a request without `tmax` must have been answered.
    pub fn answer_within(&self) -> Duration {
        Duration::from_millis(self.default_tmax_ms.saturating_sub(self.margin_ms).into())
    }
}

/// How a no-bid is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoBidForm {
    /// 204 without a body.
    Status204,
    /// 200 with `nbr`.
    Reason,
}

/// Which notice bills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Billing {
    /// The billing notice, `burl`.
    Burl,
    /// The win notice, `nurl`.
    Nurl,
    /// A pixel in the markup.
    Impression,
}

/// All exchanges, by name; an exchange's index is its position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchanges {
    list: Vec<Exchange>,
}

impl Exchanges {
    /// The exchange of that name, exactly as written.
    pub fn get(&self, name: &str) -> Option<&Exchange> {
        let found = self
            .list
            .binary_search_by(|exchange| exchange.name.as_str().cmp(name));
        found.ok().and_then(|index| self.list.get(index))
    }

    /// The exchange at that index.
    pub fn by_index(&self, index: usize) -> Option<&Exchange> {
        self.list.get(index)
    }

    /// All, by index.
    pub fn iter(&self) -> std::slice::Iter<'_, Exchange> {
        self.list.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none, which a configuration never gives.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl<'a> IntoIterator for &'a Exchanges {
    type Item = &'a Exchange;
    type IntoIter = std::slice::Iter<'a, Exchange>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The name of the only exchange when none is configured.
const DEMO: &str = "demo";

/// What a section of that name gives when nothing is written in it.
fn empty_section<T>(name: &str, read: impl FnOnce(&Name, &mut Sheet<'_>) -> T) -> T {
    let name: Name = name.parse().expect("a name of ours is a name");
    read_document(&Table::default(), &Log::new(), |s| read(&name, s))
}

pub(super) fn exchanges(root: &mut Sheet<'_>, budget: &Budget) -> Exchanges {
    let mut taken: Vec<String> = Vec::new();
    let mut list = root.named("exchanges", |name, s| {
        // User ids of an exchange have the source `exchange:<name>`, and sources are folded to lower case.
        let folded = name.as_str().to_ascii_lowercase();
        if taken.contains(&folded) {
            s.problem(
                None,
                "another exchange's name differs only in case; their users could not be told apart",
            );
        }
        taken.push(folded);
        exchange(name, s, budget)
    });
    if list.is_empty() {
        list.push(empty_section(DEMO, |name, s| exchange(name, s, budget)));
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    for (index, exchange) in list.iter_mut().enumerate() {
        exchange.index = index;
    }
    Exchanges { list }
}

fn price_key(s: &mut Sheet<'_>) -> Option<PriceKeyFiles> {
    let encryption = s.require(
        "encryption",
        &forms::path(),
        "a file of the key that prices are encrypted with: 32 bytes as hexadecimal digits or base64",
    );
    let integrity = s.require(
        "integrity",
        &forms::path(),
        "a file of the key that they are signed with",
    );
    Some(PriceKeyFiles {
        encryption: encryption?,
        integrity: integrity?,
    })
}

fn exchange(name: &Name, s: &mut Sheet<'_>, budget: &Budget) -> Exchange {
    let exchange = Exchange {
        name: name.clone(),
        id_source: format!("exchange:{name}"),
        index: 0,
        currency: s.get(
            "currency",
            &forms::currency(),
            "\"USD\"",
            "what we bid in where a request allows it or does not say",
        ),
        default_tmax_ms: s.get(
            "default_tmax_ms",
            &forms::whole(1, 60_000),
            "100",
            "milliseconds to answer in where a request has no tmax",
        ),
        margin_ms: s.get(
            "margin_ms",
            &forms::whole(0, 60_000),
            "10",
            "network time left out of tmax",
        ),
        no_bid: s.get(
            "no_bid",
            &forms::word(&[("204", NoBidForm::Status204), ("reason", NoBidForm::Reason)]),
            "\"204\"",
            "how a no-bid is answered: 204, or 200 with nbr",
        ),
        billing: s.get(
            "billing",
            &forms::word(&[
                ("burl", Billing::Burl),
                ("nurl", Billing::Nurl),
                ("impression", Billing::Impression),
            ]),
            "\"burl\"",
            "what bills: the billing notice, the win notice, or a pixel in the markup",
        ),
        billing_window: s.inherit(
            "billing_window",
            &forms::duration(),
            budget.billing_window,
            "that of [budget]",
            "how long after a bid its notice may come",
        ),
        price_macro: s.get(
            "price_macro",
            &forms::price_macro(),
            "\"${AUCTION_PRICE}\"",
            "what stands for the price in our notices' URLs, as the exchange wants it: \"%%WINNING_PRICE%%\"",
        ),
        price_keys: s.each("price_keys", price_key),
        allow: s.get(
            "allow",
            &forms::networks(),
            "[]",
            "where it may call from; empty: anywhere",
        ),
        path_key_sha256: s.get(
            "path_key_sha256",
            &forms::digest().or_none(),
            "\"\"",
            "SHA-256 of a secret key; where set, the exchange calls /bid/<name>/<key>",
        ),
        seat: s.get(
            "seat",
            &forms::text(64),
            "\"kith\"",
            "the buyer's seat where a line item names none",
        ),
        debug: s.get(
            "debug",
            &forms::switch(),
            "false",
            "whether answers to test requests may carry debug output",
        ),
        refuse: s.section("refuse", traffic::refuse),
        ids: s.section("ids", traffic::ids),
    };
    let known = |word: &String| (1..=64).filter_map(device_type).any(|type_| type_ == word);
    if let Some(unknown) = exchange
        .refuse
        .device_types
        .iter()
        .find(|word| !known(word))
    {
        let words: Vec<&str> = (1..=64).filter_map(device_type).collect();
        let text = format!(
            "device_types: {unknown:?} is not one of {}",
            words.join(", ")
        );
        s.problem(Some("refuse"), &text);
    }
    if exchange.margin_ms >= exchange.default_tmax_ms {
        let text = format!(
            "leaves nothing of default_tmax_ms ({}); every request without tmax would be a no-bid",
            exchange.default_tmax_ms
        );
        s.problem(Some("margin_ms"), &text);
    }
    exchange
}

/// What is configured of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Its name.
    pub name: Name,
    /// What it holds.
    pub kind: Kind,
    /// The TCF purposes that must be granted before it may be read, sorted, at least one.
    pub purposes: Box<[u8]>,
    /// Its guards.
    pub guards: Guards,
    /// The largest upload, decoded, where it is not the general limit.
    pub max_bytes: Option<u64>,
    /// Whether its segments are of people who are not wanted: coming into one only suppresses.
    pub suppression: bool,
    /// What holds where it is of kind filter.
    pub filter: FilterTerms,
}

impl Dataset {
    /// Which way its errors may go, where it is of a kind that has any and nobody confirms what it says.
    pub fn errors(&self) -> Option<Errors> {
        let errs = self.kind == Kind::Filter && self.filter.confirm.is_none();
        errs.then_some(self.filter.errors)
    }
}

/// What is configured of a dataset of kind filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterTerms {
    /// The largest share of ids that were not uploaded and are in it all the same.
    pub false_positive_rate: FalsePositiveRate,
    /// Which way such an error may go.
    pub errors: Errors,
    /// The exact dataset that must have an id too.
    pub confirm: Option<Name>,
}

/// The name of the one dataset of kind campaigns.
pub const CAMPAIGNS: &str = "campaigns";

/// Configured datasets and what holds for all others.
#[derive(Debug, Clone, PartialEq)]
pub struct Datasets {
    list: Vec<Dataset>,
    others: Dataset,
}

impl Datasets {
    /// What is configured of the dataset of that name.
    pub fn get(&self, name: &str) -> Option<&Dataset> {
        self.list
            .iter()
            .find(|dataset| dataset.name.as_str() == name)
    }

    /// What holds for the dataset of that name: as configured, else the defaults, with kind audience.
    pub fn get_or_default(&self, name: &Name) -> Dataset {
        match self.get(name.as_str()) {
            Some(dataset) => dataset.clone(),
            None => Dataset {
                name: name.clone(),
                ..self.others.clone()
            },
        }
    }

    /// The configured ones, by name; `campaigns` is always among them.
    pub fn iter(&self) -> std::slice::Iter<'_, Dataset> {
        self.list.iter()
    }

    /// How many are configured.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether none is, which a configuration never gives.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl<'a> IntoIterator for &'a Datasets {
    type Item = &'a Dataset;
    type IntoIter = std::slice::Iter<'a, Dataset>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

pub(super) fn datasets(root: &mut Sheet<'_>, guards: Guards) -> Datasets {
    let mut list = root.named("datasets", |name, s| dataset(name, s, guards));
    let others = empty_section("others", |name, s| dataset(name, s, guards));
    if !list
        .iter()
        .any(|dataset| dataset.name.as_str() == CAMPAIGNS)
    {
        list.push(empty_section(CAMPAIGNS, |name, s| dataset(name, s, guards)));
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    for dataset in &list {
        check_confirm(root, dataset, &list);
    }
    Datasets { list, others }
}

/// Whether what a filter says can be confirmed where it says.
fn check_confirm(root: &Sheet<'_>, dataset: &Dataset, list: &[Dataset]) {
    let (name, Some(confirm)) = (&dataset.name, &dataset.filter.confirm) else {
        return;
    };
    match list.iter().find(|other| other.name == *confirm) {
        _ if dataset.kind != Kind::Filter => {}
        Some(other) if other.kind == Kind::Audience => {}
        Some(other) => {
            let text = format!(
                "confirm: {confirm} is of kind {}, and only a dataset of kind audience can confirm",
                other.kind
            );
            root.problem_below("datasets", name.as_str(), text);
        }
        None => root.warn(format!(
            "[datasets.{name}] confirm: {confirm} is not configured; until a dataset of that name is live, whoever is in {name} \
             is neither in nor out of it"
        )),
    }
}

fn dataset(name: &Name, s: &mut Sheet<'_>, guards: Guards) -> Dataset {
    let is_campaigns = name.as_str() == CAMPAIGNS;
    let kinds = forms::word(&[
        ("audience", Kind::Audience),
        ("filter", Kind::Filter),
        ("identity", Kind::Identity),
        ("campaigns", Kind::Campaigns),
        ("scores", Kind::Scores),
    ]);
    let meaning = "what it holds; the dataset campaigns is always of kind campaigns";
    let kind = if is_campaigns {
        s.inherit("kind", &kinds, Kind::Campaigns, "", meaning)
    } else {
        s.get("kind", &kinds, "\"audience\"", meaning)
    };
    if is_campaigns != (kind == Kind::Campaigns) {
        let text = match is_campaigns {
            true => format!("the dataset {CAMPAIGNS} is always of kind campaigns, not {kind}"),
            false => {
                format!("only the dataset {CAMPAIGNS} is of kind campaigns; give another kind")
            }
        };
        s.problem(Some("kind"), &text);
    }
    let filter = filter_terms(s);
    if kind != Kind::Filter {
        for key in ["false_positive_rate", "errors", "confirm"] {
            s.warn_if_set(key, &format!("does nothing for a dataset of kind {kind}"));
        }
    }
    Dataset {
        name: name.clone(),
        kind,
        filter,
        suppression: s.get(
            "suppression",
            &forms::switch(),
            "false",
            "its segments are of people who are not wanted, as buyers are: updates that put people into them, or take them out of others, are taken when there is no room for more",
        ),
        purposes: s.get(
            "purposes",
            &forms::purposes(),
            "[1, 3, 4]",
            "the TCF purposes that must be granted before it may be read, where GDPR applies",
        ),
        max_bytes: s.inherit(
            "max_bytes",
            &forms::size(1, 64 << 40).map(Some),
            None,
            "that of [limits]",
            "the largest upload, decoded",
        ),
        guards: s.section("guards", |s| guards::read(s, Some(guards))),
    }
}

fn filter_terms(s: &mut Sheet<'_>) -> FilterTerms {
    FilterTerms {
        false_positive_rate: s.get(
            "false_positive_rate",
            &forms::false_positive_rate(),
            "0.01",
            "of a filter: the largest share of ids that were not uploaded and are in it all the same; a version that is measured worse is held",
        ),
        errors: s.get(
            "errors",
            &forms::word(ERRORS),
            "\"wrongly_excluded\"",
            "of a filter: which way such an error may go. wrongly_excluded: a list of people who are not wanted; wrongly_included: of people who are",
        ),
        confirm: s.get(
            "confirm",
            &forms::name().or_none(),
            "\"\"",
            "of a filter: an exact dataset that must have an id too before it counts as in the filter",
        ),
    }
}

const ERRORS: &[(&str, Errors)] = &[
    (Errors::WronglyIncluded.as_str(), Errors::WronglyIncluded),
    (Errors::WronglyExcluded.as_str(), Errors::WronglyExcluded),
];
