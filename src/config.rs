//! Configuration: one TOML file, every key with a default, environment variables laid over it.
//!
//! A wrong key, type or value is refused at start, all of them at once, each with its line (or variable) and the
//! nearest right name; nothing is guessed and nothing half right is served. Each key is declared once, where it is
//! read ([`sections`], [`named`], [`limits`]), and the README's table is printed from those declarations
//! ([`table`]). The tree that is read remembers where each value was written ([`tree`]); reading it collects
//! complaints ([`sheet`]) by the forms that values take ([`forms`]).
//!
//! What is not built yet is accepted and says so in [`Config::warnings`], only where it was set. Tests hand the
//! environment in; only [`environment`] asks the process for it.

mod forms;
mod guards;
mod limits;
mod named;
mod people;
mod sections;
mod shadow;
mod sheet;
mod traffic;
mod tree;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

pub(crate) use forms::size_of;
pub use guards::Guards;
pub use limits::Limits;
pub use named::{
    Billing, CAMPAIGNS, Dataset, Datasets, Exchange, Exchanges, FilterTerms, NoBidForm,
};
pub use people::People;
pub use sections::{
    Admin, AdminToken, Bid, Budget, BudgetMode, CurrencyConfig, Data, Privacy, Role, TokenDatasets,
    Web,
};
pub use shadow::Shadow;
pub use sheet::Key;
pub use traffic::Refuse;

use sheet::{Log, Sheet};
use tree::{Malformed, Origin, Table};

/// Largest configuration file: thousands of exchanges fit, a mistaken file name does not.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The listener that exchanges call.
    pub bid: Bid,
    /// The listener for jobs and operators.
    pub admin: Admin,
    /// Where data is kept.
    pub data: Data,
    /// Who calls the bid endpoint; at least one.
    pub exchanges: Exchanges,
    /// What is configured of datasets.
    pub datasets: Datasets,
    /// Checks that can hold a version.
    pub guards: Guards,
    /// Recent requests that versions are tried on.
    pub shadow: Shadow,
    /// How privacy signals are read.
    pub privacy: Privacy,
    /// Updates, links and erasure in real time.
    pub people: People,
    /// How budgets are kept.
    pub budget: Budget,
    /// Currencies and their rates.
    pub currency: CurrencyConfig,
    /// Every size that something from outside could drive.
    pub limits: Limits,
    /// The listener for browsers.
    pub web: Web,
    warnings: Vec<String>,
}

impl Config {
    /// Reads the file, or only defaults where there is none, and lays the environment over it.
    ///
    /// `env` gives names and values, as [`environment`] does; names that do not begin with `KITH__` are left alone.
    pub fn load(
        path: Option<&Path>,
        env: &dyn Fn() -> Vec<(String, String)>,
    ) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Self::read("", "configuration", &env());
        };
        let name = path.display().to_string();
        let text = read_file(path).map_err(|source| ConfigError::File {
            path: name.clone(),
            source,
        })?;
        Self::read(&text, &name, &env())
    }

    /// Reads a file's text; `name` is what complaints call the file.
    pub fn from_toml(text: &str, name: &str) -> Result<Self, ConfigError> {
        Self::read(text, name, &[])
    }

    /// What was set and does nothing yet, or will surprise; for the log at start.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn read(text: &str, name: &str, env: &[(String, String)]) -> Result<Self, ConfigError> {
        let refused = |problems: Vec<(Origin, String)>| ConfigError::refused(name, problems);
        let problem = |m: Malformed| (m.origin, m.message);
        let mut document = tree::parse(text).map_err(|m| refused(vec![problem(m)]))?;
        let mut variables: Vec<&(String, String)> = env
            .iter()
            .filter(|(name, _)| name.starts_with(tree::VARIABLE_PREFIX))
            .collect();
        variables.sort();
        let mut problems: Vec<(Origin, String)> = variables
            .iter()
            .filter_map(|(name, value)| document.lay_over(name, value).err())
            .map(problem)
            .collect();
        let log = Log::new();
        let mut config = sheet::read_document(&document, &log, read);
        let found = log.into_findings();
        problems.extend(found.problems);
        if problems.is_empty() {
            config.warnings = found.warnings;
            Ok(config)
        } else {
            Err(refused(problems))
        }
    }
}

impl Default for Config {
    /// What no file and no environment give.
    fn default() -> Self {
        sheet::read_document(&Table::default(), &Log::new(), read)
    }
}

fn read(root: &mut Sheet<'_>) -> Config {
    let bid = root.section("bid", sections::bid);
    let admin = root.section("admin", sections::admin);
    let data = root.section("data", sections::data);
    let budget = root.section("budget", sections::budget);
    let exchanges = named::exchanges(root, &budget);
    let guards = root.section("guards", |s| guards::read(s, None));
    let shadow = root.section("shadow", shadow::read);
    let datasets = named::datasets(root, guards);
    let privacy = root.section("privacy", sections::privacy);
    let people = root.section("people", people::read);
    let currency = root.section("currency", sections::currency);
    let limits = root.section("limits", limits::limits);
    let web = root.section("web", sections::web);
    if bid.listen == admin.listen && bid.listen.port() != 0 {
        let text = format!("{} is the bid listener's address", admin.listen);
        root.problem_below("admin", "listen", text);
    }
    if datasets.len() > limits.datasets {
        let text = format!(
            "{} are configured (campaigns among them), more than {}",
            datasets.len(),
            limits.datasets
        );
        root.problem_below("limits", "datasets", text);
    }
    Config {
        bid,
        admin,
        data,
        exchanges,
        datasets,
        guards,
        shadow,
        privacy,
        people,
        budget,
        currency,
        limits,
        web,
        warnings: Vec::new(),
    }
}

fn read_file(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other("over 4 MiB; is it the right file?"));
    }
    Ok(text)
}

/// The process's variables that are ours, for [`Config::load`].
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| {
            let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
            (text(name), text(value))
        })
        .filter(|(name, _)| name.starts_with(tree::VARIABLE_PREFIX))
        .collect()
}

/// Every key there is, in the order in which sections are read.
pub fn keys() -> Vec<Key> {
    let log = Log::declaring();
    sheet::read_document(&Table::default(), &log, read);
    log.into_findings().keys
}

/// The README's table of keys, in Markdown.
pub fn table() -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('<', "\\<");
    let mut table = String::from("| key | takes | default | is |\n|---|---|---|---|\n");
    let mut section = None;
    for key in keys() {
        if section.as_ref() != Some(&key.section) {
            table.push_str(&format!("| **`[{}]`** | | | |\n", key.section));
        }
        let default = match key.default.as_str() {
            words @ "required" => words.to_owned(),
            words if words.starts_with("that of") => words.to_owned(),
            toml => format!("`{toml}`"),
        };
        let row = format!(
            "| `{}` | {} | {} | {} |\n",
            key.name,
            cell(&key.takes),
            cell(&default),
            cell(key.meaning)
        );
        table.push_str(&row);
        section = Some(key.section);
    }
    table
}

/// What `kith check` says of a configuration that can be used.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// The file.
    pub file: String,
    /// The exchanges, by name.
    pub exchanges: Vec<String>,
    /// The configured datasets, by name.
    pub datasets: Vec<String>,
    /// How many admin tokens there are.
    pub tokens: usize,
    /// As of [`Config::warnings`].
    pub warnings: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            exchanges,
            datasets,
            tokens,
            warnings,
        } = self;
        writeln!(f, "{file}: ok")?;
        writeln!(f, "  exchanges: {}", exchanges.join(", "))?;
        writeln!(f, "  datasets: {}", datasets.join(", "))?;
        writeln!(f, "  admin tokens: {tokens}")?;
        warnings
            .iter()
            .try_for_each(|warning| writeln!(f, "  warning: {warning}"))
    }
}

/// Checks a file as `kith serve` would read it, the environment laid over it.
pub fn check(path: &Path, env: &dyn Fn() -> Vec<(String, String)>) -> Result<Report, ConfigError> {
    let config = Config::load(Some(path), env)?;
    let names = |names: &mut dyn Iterator<Item = &crate::ids::Name>| -> Vec<String> {
        names.map(ToString::to_string).collect()
    };
    Ok(Report {
        file: path.display().to_string(),
        exchanges: names(&mut config.exchanges.iter().map(|exchange| &exchange.name)),
        datasets: names(&mut config.datasets.iter().map(|dataset| &dataset.name)),
        tokens: config.admin.tokens.len(),
        warnings: config.warnings(),
    })
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It says something that is wrong; each problem with its line or variable.
    #[error("{}", problems.join("\n"))]
    Refused {
        /// One line each, in the file's order, variables after it.
        problems: Vec<String>,
    },
}

impl ConfigError {
    fn refused(name: &str, mut problems: Vec<(Origin, String)>) -> Self {
        problems.sort();
        let place = |origin: &Origin| match origin {
            Origin::Line(line) => format!("{name}:{line}"),
            Origin::Variable(variable) => variable.clone(),
            Origin::Default => name.to_owned(),
        };
        let told = |(origin, text): &(Origin, String)| format!("{}: {text}", place(origin));
        Self::Refused {
            problems: problems.iter().map(told).collect(),
        }
    }
}
