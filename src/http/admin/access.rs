//! Who asks, and whether they may.
//!
//! A token is compared by its SHA-256 against every configured one in constant time, so that neither the time taken nor
//! the place in the list tells anything. The token itself is never kept or logged; its configured name is.

use hyper::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Problem;
use crate::config::{AdminToken, CAMPAIGNS, Role, TokenDatasets};
use crate::ids::Name;

/// Someone who may do something.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// What the history calls them.
    pub(super) name: String,
    role: Role,
    datasets: TokenDatasets,
}

impl Caller {
    /// Finds out who asks: 401 where nobody known does.
    pub(super) fn of(tokens: &[AdminToken], headers: &HeaderMap) -> Result<Caller, Problem> {
        if tokens.is_empty() {
            return Ok(Caller {
                name: "anyone on this machine".to_owned(),
                role: Role::Operate,
                datasets: TokenDatasets::All,
            });
        }
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let digest: [u8; 32] = Sha256::digest(token.unwrap_or_default().as_bytes()).into();
        // Every token is compared, whichever fits.
        let mut found = None;
        for known in tokens {
            if bool::from(known.sha256.ct_eq(&digest)) {
                found = Some(known);
            }
        }
        match (token, found) {
            (Some(_), Some(known)) => Ok(Caller {
                name: known.name.clone(),
                role: known.role,
                datasets: known.datasets.clone(),
            }),
            (None, _) => Err(Problem::unauthorized(
                "send `Authorization: Bearer <token>` with a token configured under admin.tokens",
            )),
            (Some(_), None) => Err(Problem::unauthorized(
                "this token is not known here; admin.tokens lists the SHA-256 of those that are",
            )),
        }
    }

    /// Whether they may do what needs `role` on a dataset.
    pub(super) fn may(&self, role: Role, dataset: &Name) -> Result<(), Problem> {
        if !self.covers(dataset) {
            return Err(Problem::new(
                403,
                "dataset_not_covered",
                format!(
                    "token `{}` is not for dataset `{dataset}`; add it to the token's `datasets` in admin.tokens, or use another token",
                    self.name
                ),
            ));
        }
        self.has(role)
    }

    /// Whether they may do what needs `role` and shows or touches every dataset.
    pub(super) fn may_everywhere(&self, role: Role) -> Result<(), Problem> {
        if self.datasets != TokenDatasets::All {
            return Err(Problem::new(
                403,
                "dataset_not_covered",
                format!(
                    "this shows a person's segments in every dataset; token `{}` needs datasets = [\"*\"]",
                    self.name
                ),
            ));
        }
        self.has(role)
    }

    /// Whether they may do what needs `role` and is of the campaigns' money: budgets, delivery, switches, contacts.
    pub(super) fn may_count(&self, role: Role) -> Result<(), Problem> {
        if !self.datasets.include(CAMPAIGNS) {
            return Err(Problem::new(
                403,
                "dataset_not_covered",
                format!(
                    "budgets, delivery and switches are of dataset `{CAMPAIGNS}`, which token `{}` is not for; add it to the token's `datasets` in admin.tokens, or use another token",
                    self.name
                ),
            ));
        }
        self.has(role)
    }

    /// Whether they may do what needs `role` on some dataset.
    pub(super) fn may_somewhere(&self, role: Role) -> Result<(), Problem> {
        self.has(role)
    }

    /// Whether their token is for the dataset.
    pub(super) fn covers(&self, dataset: &Name) -> bool {
        self.datasets.include(dataset.as_str())
    }

    fn has(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        let (is, needs) = (word(self.role), word(role));
        Err(Problem::new(
            403,
            "role_too_low",
            format!(
                "token `{}` has role {is}, this needs {needs}; use a token of that role",
                self.name
            ),
        ))
    }
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Read => "read",
        Role::Upload => "upload",
        Role::Operate => "operate",
    }
}
