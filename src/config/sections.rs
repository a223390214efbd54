//! The sections that exist once: what each holds, and where each key is declared with its default and meaning.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::forms;
use super::sheet::Sheet;
use crate::ids::Name;
use crate::money::{Currency, Rates};
use crate::privacy::{GdprWhenAbsent, Policy, Registration};

/// The listener that exchanges call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bid {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What notice and click URLs begin with, without a slash at the end, where the user has said so.
    pub public_url: Option<String>,
    /// Bid threads; 0 is one per core.
    pub threads: usize,
}

impl Bid {
    /// What notice and click URLs begin with, once it is known where the listener is bound.
    pub fn public_url(&self, bound: SocketAddr) -> String {
        let given = self.public_url.clone();
        given.unwrap_or_else(|| format!("http://{bound}"))
    }

    /// How many bid threads to start, at least one.
    pub fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

pub(super) fn bid(s: &mut Sheet<'_>) -> Bid {
    Bid {
        listen: s.get(
            "listen",
            &forms::address(),
            "\"127.0.0.1:8080\"",
            "where exchanges post bid requests",
        ),
        public_url: s.get(
            "public_url",
            &forms::base_url().or_none(),
            "\"\"",
            "what notice and click URLs begin with; none: http:// and the listener's address",
        ),
        threads: s.get(
            "threads",
            &forms::whole(0, 1024),
            "0",
            "bid threads, one runtime each; 0: one per core",
        ),
    }
}

/// The listener for jobs and operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens. Loopback where there are no tokens.
    pub listen: SocketAddr,
    /// Who may do what. None: everything is allowed, from this machine only.
    pub tokens: Vec<AdminToken>,
}

/// A bearer token, known by its digest only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// What the log calls its holder; no two tokens share one.
    pub name: String,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
    /// Which datasets it may act on.
    pub datasets: TokenDatasets,
    /// What it may do there.
    pub role: Role,
}

/// The datasets a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenDatasets {
    /// All that there are and will be.
    All,
    /// These.
    Named(Vec<Name>),
}

impl TokenDatasets {
    /// Whether `dataset` is among them.
    pub fn include(&self, dataset: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name.as_str() == dataset),
        }
    }
}

/// What a token may do; each role may do all that the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// GET and explain.
    Read,
    /// Also PUT, activate and post rows.
    Upload,
    /// Also force, pin, delete, erase and the switches.
    Operate,
}

pub(super) fn admin(s: &mut Sheet<'_>) -> Admin {
    let listen: SocketAddr = s.get(
        "listen",
        &forms::address(),
        "\"127.0.0.1:9090\"",
        "where jobs upload and operators look; loopback only, unless there are tokens",
    );
    let tokens: Vec<AdminToken> = s.each("tokens", token);
    for (at, token) in tokens.iter().enumerate() {
        let before = || tokens.iter().take(at);
        if before().any(|other| other.name == token.name) {
            let text = format!(
                "two are named {:?}; the log could not tell them apart",
                token.name
            );
            s.problem(Some("tokens"), &text);
        } else if let Some(other) = before().find(|other| other.sha256 == token.sha256) {
            let text = format!("{:?} and {:?} have the same sha256", other.name, token.name);
            s.problem(Some("tokens"), &text);
        }
    }
    if tokens.is_empty() && !is_loopback(listen.ip()) {
        let text = format!(
            "{listen} can be reached from other machines, and without tokens everyone there may do everything; add a \
             token (tokens = [{{ name = \"job\", sha256 = \"…\", datasets = [\"*\"], role = \"upload\" }}]) or listen \
             on 127.0.0.1"
        );
        s.problem(Some("listen"), &text);
    }
    Admin { listen, tokens }
}

fn token(s: &mut Sheet<'_>) -> Option<AdminToken> {
    let name = s.require("name", &forms::text(64), "what the log calls its holder");
    let sha256 = s.require(
        "sha256",
        &forms::digest(),
        "SHA-256 of the token; the token itself is kept nowhere",
    );
    let datasets = s.require("datasets", &token_datasets(), "the datasets it may act on");
    let role = s.get(
        "role",
        &forms::word(&[
            ("read", Role::Read),
            ("upload", Role::Upload),
            ("operate", Role::Operate),
        ]),
        "\"read\"",
        "read: look and explain; upload: also upload, activate, post rows; operate: also force, pin, delete, erase",
    );
    Some(AdminToken {
        name: name?,
        sha256: sha256?,
        datasets: datasets?,
        role,
    })
}

fn token_datasets() -> forms::Form<TokenDatasets> {
    let one = forms::name().map(Some).or_word("*", || None);
    let many = one.list("dataset names, or [\"*\"] for all");
    let all_or_named = many.map(|names| {
        let named: Option<Vec<Name>> = names.into_iter().collect();
        named.map_or(TokenDatasets::All, TokenDatasets::Named)
    });
    all_or_named.or_word("*", || TokenDatasets::All)
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Where data is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The folder of versions, journals and history.
    pub dir: PathBuf,
    /// The deployment's secret key.
    pub key_file: PathBuf,
    /// Versions of a dataset kept for rollback, the live one among them.
    pub keep_versions: usize,
    /// How often each version that is kept is verified again; none: never.
    pub scrub_every: Option<Duration>,
    /// How much of it is read a second, bytes.
    pub scrub_bytes_per_second: u64,
    /// How much of what was found damaged is kept, bytes.
    pub quarantine_bytes: u64,
}

pub(super) fn data(s: &mut Sheet<'_>) -> Data {
    let dir: PathBuf = s.get(
        "dir",
        &forms::path(),
        "\"./data\"",
        "the folder of versions, journals and history",
    );
    let key_file = s.get(
        "key_file",
        &forms::path().or_none(),
        "\"\"",
        "the deployment's secret key, made at first start; none: the file `key` in dir",
    );
    Data {
        key_file: key_file.unwrap_or_else(|| dir.join("key")),
        dir,
        keep_versions: s.get(
            "keep_versions",
            &forms::whole(1, 1000),
            "3",
            "how many of a dataset's newest versions are kept, and as many held ones; the live one always is",
        ),
        scrub_every: s.get(
            "scrub_every",
            &forms::duration_or_never(),
            "\"1d\"",
            "how often the files of each kept version are verified again, and what is live in memory",
        ),
        scrub_bytes_per_second: s.get(
            "scrub_bytes_per_second",
            &forms::size(64 << 10, 1 << 40),
            "\"16 MiB\"",
            "how much of a file is read a second for that, so that the disk is left to others",
        ),
        quarantine_bytes: s.get(
            "quarantine_bytes",
            &forms::size(0, 1 << 50),
            "\"4 GiB\"",
            "how much of what was found damaged is kept in quarantine/, to be looked at; the oldest goes first; 0: nothing",
        ),
    }
}

/// How privacy signals are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privacy {
    /// Ours in IAB's Global Vendor List; 0: no string can grant us anything.
    pub vendor_id: u16,
    /// What a request without a `gdpr` flag means.
    pub gdpr_when_absent: GdprWhenAbsent,
    /// Whether `device.dnt` closes the gate.
    pub honor_dnt: bool,
    /// TCF 2.3's rules on disclosed vendors and IsServiceSpecific.
    pub tcf_strict: bool,
    /// A file of the Global Vendor List, for what we have registered.
    pub vendor_list: Option<PathBuf>,
    /// Countries of publishers in which purpose 1 need not be asked for where it was not disclosed.
    pub purpose_one_undisclosed: Box<[[u8; 2]]>,
}

impl Privacy {
    /// What the gate goes by, but for what is [registered](Self::registration).
    pub fn policy(&self) -> Policy {
        Policy {
            gdpr_when_absent: self.gdpr_when_absent,
            honor_dnt: self.honor_dnt,
            vendor_id: self.vendor_id,
            registration: None,
            tcf_strict: self.tcf_strict,
            purpose_one_undisclosed: self.purpose_one_undisclosed.clone(),
        }
    }

    /// Reads our entry in the vendor list, where there is one. An error says which file, and what to do.
    pub fn registration(&self) -> Result<Option<Registration>, String> {
        let Some(path) = &self.vendor_list else {
            return Ok(None);
        };
        let told = |error: &dyn std::fmt::Display| {
            format!("privacy.vendor_list, {}: {error}", path.display())
        };
        let list = std::fs::read(path).map_err(|error| told(&error))?;
        let ours = Registration::in_list(&list, self.vendor_id).map_err(|error| told(&error))?;
        Ok(Some(ours))
    }
}

pub(super) fn privacy(s: &mut Sheet<'_>) -> Privacy {
    Privacy {
        vendor_id: s.get(
            "vendor_id",
            &forms::whole(0, 65_535),
            "0",
            "ours in IAB's Global Vendor List; 0: no consent string can grant us anything",
        ),
        gdpr_when_absent: s.get(
            "gdpr_when_absent",
            &forms::word(&[
                ("by_country", GdprWhenAbsent::ByCountry),
                ("applies", GdprWhenAbsent::Applies),
                ("not", GdprWhenAbsent::Not),
            ]),
            "\"by_country\"",
            "a request without a gdpr flag: by_country: GDPR applies in the EEA, the UK, Switzerland and where a TC \
             string is present",
        ),
        honor_dnt: s.get(
            "honor_dnt",
            &forms::switch(),
            "true",
            "whether device.dnt = 1 closes the privacy gate, as lmt = 1 always does",
        ),
        tcf_strict: s.get(
            "tcf_strict",
            &forms::switch(),
            "false",
            "TCF 2.3: a TC string grants only where it is service-specific and its disclosed vendors include ours",
        ),
        vendor_list: s.get(
            "vendor_list",
            &forms::path().or_none(),
            "\"\"",
            "a file of IAB's Global Vendor List (vendor-list.json), for what we have registered; none: consent for every \
             purpose, legitimate interest for none",
        ),
        purpose_one_undisclosed: s.get(
            "purpose_one_undisclosed",
            &forms::countries(),
            "[]",
            "countries of publishers, as [\"DE\"], in which purpose 1 needs no consent where the TC string says that it was not \
             disclosed",
        ),
    }
}

/// How budgets are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// How exactly.
    pub mode: BudgetMode,
    /// How long after a bid its notice may come.
    pub billing_window: Duration,
}

/// How exactly budgets are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetMode {
    /// Of an open bid as much is held as such bids come to; overspend is bounded.
    Bounded,
    /// Every open bid is held in full; no overspend.
    Strict,
}

pub(super) fn budget(s: &mut Sheet<'_>) -> Budget {
    Budget {
        mode: s.get(
            "mode",
            &forms::word(&[
                ("bounded", BudgetMode::Bounded),
                ("strict", BudgetMode::Strict),
            ]),
            "\"bounded\"",
            "how budgets are kept: strict: each open bid is held in full until it is billed, lost, or its window is over; bounded: as much as such bids come to",
        ),
        billing_window: s.get(
            "billing_window",
            &forms::duration(),
            "\"1h\"",
            "how long after a bid its notice may come and is money that was held for it",
        ),
    }
}

/// Currencies and their rates.
#[derive(Debug, Clone, PartialEq)]
pub struct CurrencyConfig {
    /// What the rates are against.
    pub base: Currency,
    /// The rates, the base's own among them.
    pub rates: Rates,
}

pub(super) fn currency(s: &mut Sheet<'_>) -> CurrencyConfig {
    let base = s.get(
        "base",
        &forms::currency(),
        "\"USD\"",
        "the currency that rates are against",
    );
    let given: Vec<(Currency, f64)> = s.get(
        "rates",
        &forms::rates(),
        "{}",
        "how many units of each currency one unit of the base buys; a price in a currency without a rate is only bid \
         in its own",
    );
    if given
        .iter()
        .any(|(code, rate)| *code == base && *rate != 1.0)
    {
        let text = format!("{base} is the base: its rate is 1");
        s.problem(Some("rates"), &text);
    }
    let rates = Rates::new(base, given).unwrap_or_else(|e| {
        s.problem(Some("rates"), &e.to_string());
        Rates::none(base)
    });
    CurrencyConfig { base, rates }
}

/// The listener for browsers: events, consent, user sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Web {
    /// Where it listens, if anywhere.
    pub listen: Option<SocketAddr>,
}

pub(super) fn web(s: &mut Sheet<'_>) -> Web {
    s.warn_if_set(
        "listen",
        "the listener for browsers is not built yet: nothing listens there",
    );
    Web {
        listen: s.get(
            "listen",
            &forms::address().or_none(),
            "\"\"",
            "where browsers send events, consent and user sync; none: off (not built yet)",
        ),
    }
}
