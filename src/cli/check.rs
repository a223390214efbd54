//! `kith check`: what is wrong with a configuration and a campaigns document, before they are used.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::text::plain;
use super::{Failure, print, print_json};
use crate::campaigns::{self, Book, Surroundings, Warning};
use crate::config::{self, Config, ConfigError};

/// Say what is wrong with a configuration and a campaigns document, by line and path
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Variables KITH__SECTION__KEY are laid over the file, as `kith serve` does. Whether the segments that targeting names
were ever uploaded is known only to a running Kith, which says so when the campaigns are uploaded. Without --config,
campaigns are held against the defaults: one exchange, demo, and no currency rates.

Examples:
  kith check --config kith.toml
  kith check --config kith.toml --campaigns campaigns.json
  kith check --campaigns campaigns.json --json")]
pub(super) struct Check {
    /// The configuration
    #[arg(long, value_name = "FILE", required_unless_present = "campaigns")]
    config: Option<PathBuf>,
    /// A campaigns document, JSON or TOML
    #[arg(long, value_name = "FILE")]
    campaigns: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Check) -> Result<(), Failure> {
    let mut errors = Vec::new();
    let mut told = String::new();
    let mut document = json!({"config": null, "campaigns": null});
    let mut config = Config::default();
    if let Some(path) = &args.config {
        match config::check(path, &config::environment) {
            Ok(report) => {
                told.push_str(&report.to_string());
                member(&mut document, "config", serde_json::to_value(&report)?);
                config = Config::load(Some(path), &config::environment)?;
                errors.extend(config.privacy.registration().err());
                let keys = config
                    .exchanges
                    .iter()
                    .map(|exchange| exchange.price_keys());
                errors.extend(keys.filter_map(Result::err));
            }
            Err(ConfigError::Refused { problems }) => errors.extend(problems),
            Err(other) => errors.push(other.to_string()),
        }
    }
    if let Some(path) = &args.campaigns {
        let file = path.display().to_string();
        match std::fs::read(path).map(|bytes| campaigns::compile(&bytes)) {
            Ok(Ok(book)) => {
                let warnings = warnings(&book, &config);
                told.push_str(&summary(&file, &book, &warnings));
                let described = json!({
                    "file": file, "line_items": book.line_items.len(), "creatives": book.creatives.len(),
                    "advertisers": book.advertisers.len(), "segments": names(&book), "warnings": warnings,
                });
                member(&mut document, "campaigns", described);
            }
            Ok(Err(wrong)) => errors.extend(wrong.iter().map(|error| match error.path.as_str() {
                "" => format!("{file}: {}", error.message),
                _ => format!("{file}: {error}"),
            })),
            Err(e) => errors.push(format!("{file}: {e}")),
        }
    }
    member(&mut document, "ok", errors.is_empty().into());
    member(&mut document, "errors", json!(errors));
    if args.json {
        print_json(&document)?;
    } else {
        print(&told)?;
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::all(errors))
}

fn member(document: &mut Value, name: &str, value: Value) {
    if let Some(members) = document.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

fn names(book: &Book) -> Vec<String> {
    book.segments.iter().map(ToString::to_string).collect()
}

/// What is valid and may not do what was meant. Which segments are uploaded is not known here, nor which scores, so none is questioned.
fn warnings(book: &Book, config: &Config) -> Vec<Warning> {
    let exchanges: Vec<&str> = config.exchanges.iter().map(|e| e.name.as_str()).collect();
    book.warnings(&Surroundings {
        segments: &|_| true,
        errors: &|name| config.datasets.get(name.as_str())?.errors(),
        scores: &|_| true,
        currencies: &|currency| config.currency.rates.knows(currency),
        exchanges: &exchanges,
    })
}

fn summary(file: &str, book: &Book, warnings: &[Warning]) -> String {
    let lines = [
        ("line items", book.line_items.len()),
        ("creatives", book.creatives.len()),
        ("advertisers", book.advertisers.len()),
    ]
    .map(|(what, number)| format!("  {what}: {number}\n"));
    let segments = format!("  segments: {}\n", names(book).join(", "));
    let warnings: String = warnings
        .iter()
        .map(|warning| format!("  warning: {}\n", plain(&warning.to_string())))
        .collect();
    format!("{file}: ok\n{}{segments}{warnings}", lines.concat())
}
