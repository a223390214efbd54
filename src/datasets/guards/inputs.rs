//! What the input itself tells: how many of its rows were bad, where its ids are from, whether anything in it still
//! holds, and up to where it had been read.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::manifest::{Check, Rows};
use super::{MEND, SourceRows, check, first, lasted, passed, percent};
use crate::audience::{AsOf, Sources};
use crate::clock::Timestamp;
use crate::config::Guards;
use crate::ids::Name;

/// Sources that Kith itself looks ids up in, or that the documentation names.
const BUILT_IN: [&str; 6] = ["ifa", "buyeruid", "email", "phone", "customer", "person"];
/// What the sources of exchanges' own user ids begin with.
const OF_EXCHANGE: &str = "exchange:";

/// More rows than this share a source before it is shown or remembered: in swapped columns, sources are ids.
const SHARED_ROWS: u64 = 20;
/// And at least this part of all rows.
const SHARED_PART: u64 = 100;
/// Sources named in a detail.
const SHOWN_MAX: usize = 5;

/// Of a version file the rejected rows are not known.
pub(super) fn rejected_rows_of_a_file() -> Check {
    passed(
        "rejected_rows",
        "not known: a version file does not tell how many rows were rejected when it was built; `kith build` did",
    )
}

pub(super) fn rejected_rows(guards: &Guards, rows: &Rows) -> Check {
    let all = rows.rows.saturating_add(rows.rejected_rows);
    let share = rows.rejected_rows as f64 / all.max(1) as f64;
    let found = format!(
        "{} of {all} rows were rejected ({}; at most {} may be)",
        rows.rejected_rows,
        percent(share),
        percent(guards.max_rejected_share)
    );
    check(
        "rejected_rows",
        share <= guards.max_rejected_share,
        found,
        "correct the rows listed under `rejected` and upload a higher version, or activate this one with force",
    )
}

/// The sources that are no news.
pub(super) struct Known<'a> {
    /// The configured exchanges.
    pub(super) exchanges: &'a [Name],
    /// What earlier versions had, where that is known of all of them.
    pub(super) earlier: Option<&'a Earlier>,
}

/// The sources of earlier versions.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in super::super) struct Earlier {
    /// Their names.
    pub(in super::super) named: BTreeSet<String>,
    /// The largest share of rows whose source was too rare to be remembered.
    pub(in super::super) others: f64,
}

/// Rows by source, with those that few rows share in one heap, unless `is_known` vouches for them.
fn shared(sources: &Sources, is_known: impl Fn(&str) -> bool) -> (Vec<(&str, u64)>, u64) {
    let all: u64 = sources.named.iter().map(|(_, rows)| rows).sum();
    let all = all.saturating_add(sources.others);
    let (mut named, mut others) = (Vec::new(), sources.others);
    for (name, rows) in &sources.named {
        let many = *rows >= SHARED_ROWS && rows.saturating_mul(SHARED_PART) >= all;
        if many || is_known(name) {
            named.push((name.as_str(), *rows));
        } else {
            others = others.saturating_add(*rows);
        }
    }
    (named, others)
}

/// What is remembered of a version's sources.
pub(super) fn remembered(sources: &Sources) -> SourceRows {
    let (named, others) = shared(sources, |name| BUILT_IN.contains(&name));
    let named = named
        .into_iter()
        .map(|(name, rows)| (name.to_owned(), rows));
    SourceRows {
        named: named.collect(),
        others,
    }
}

/// Ids in a source that nobody asks for are never found, and nothing else would tell.
pub(super) fn sources(
    guards: &Guards,
    sources: Option<&Sources>,
    known: Option<&Known<'_>>,
) -> Check {
    const NAME: &str = "sources";
    let Some(sources) = sources else {
        return passed(
            NAME,
            "not known: a version file does not tell where its ids are from",
        );
    };
    let Some(known) = known else {
        return first(NAME);
    };
    let Some(earlier) = known.earlier else {
        return passed(
            NAME,
            "nothing to compare with: of a version that was live it is not known where its ids are from",
        );
    };
    let is_known = |name: &str| {
        BUILT_IN.contains(&name)
            || earlier.named.contains(name)
            || name.strip_prefix(OF_EXCHANGE).is_some_and(|of| {
                let mut exchanges = known.exchanges.iter();
                exchanges.any(|exchange| exchange.as_str().eq_ignore_ascii_case(of))
            })
    };
    let (mut unknown, others) = shared(sources, is_known);
    let all = unknown.iter().map(|(_, rows)| rows).sum::<u64>() + others;
    unknown.retain(|(name, _)| !is_known(name));
    unknown.sort_by_key(|(name, rows)| (std::cmp::Reverse(*rows), *name));
    let usual = earlier.others * all as f64;
    let rows =
        unknown.iter().map(|(_, rows)| rows).sum::<u64>() as f64 + (others as f64 - usual).max(0.0);
    let share = rows / all.max(1) as f64;
    let mut told: Vec<String> = unknown
        .iter()
        .take(SHOWN_MAX)
        .map(|(name, rows)| format!("`{name}` ({rows} rows)"))
        .collect();
    if unknown.len() > SHOWN_MAX {
        told.push(format!("{} more", unknown.len() - SHOWN_MAX));
    }
    if others as f64 > usual {
        told.push(format!("sources that few rows share ({others} rows)"));
    }
    let told = match told.as_slice() {
        [] => String::new(),
        told => format!(": {}", told.join(", ")),
    };
    check(
        NAME,
        share <= guards.max_unknown_sources,
        format!(
            "{} of the rows have a source that no earlier version had (at most {} may){told}",
            percent(share),
            percent(guards.max_unknown_sources)
        ),
        &format!(
            "an id is found only under the source that requests name it by, such as ifa, buyeruid or uidapi.com; {MEND}"
        ),
    )
}

/// A version all of whose memberships are over would clear the dataset. `last_expiry` is the latest of them.
pub(super) fn empty(last_expiry: Option<i64>, now: Timestamp) -> Check {
    const NAME: &str = "empty";
    let Some(last) = last_expiry else {
        return passed(
            NAME,
            "not known: a version file does not tell when the last of its memberships expires",
        );
    };
    if last > now.unix_seconds() {
        return passed(NAME, "there are memberships that have not expired");
    }
    check(
        NAME,
        false,
        format!(
            "every membership has expired, the last one at {}",
            Timestamp::from_unix_seconds(last)
        ),
        "to serve it would clear the dataset: check `expires` and upload again under a higher number, or activate this version with force if the dataset is to be empty",
    )
}

/// A delta after which nobody is left.
pub(super) fn emptied(ids: u64) -> Check {
    check(
        "empty",
        ids > 0,
        match ids {
            0 => "the delta takes the last ids out of the dataset".to_owned(),
            ids => format!("{ids} ids are left or new"),
        },
        "if the dataset is to be empty, activate this version with force; if not, mend the job and make the delta again under a higher number",
    )
}

/// An input that had been read less far than the live version's would bring back what has been taken out since.
pub(super) fn age(
    guards: &Guards,
    as_of: Option<AsOf>,
    live: Option<AsOf>,
    now: Timestamp,
) -> Check {
    const NAME: &str = "age";
    let Some(as_of) = as_of else {
        return passed(NAME, "not known: the upload does not say as_of");
    };
    let behind = match (as_of, live) {
        (AsOf::Time(this), Some(AsOf::Time(live))) if this < live => {
            Some(format!("{} before", lasted(between(this, live))))
        }
        (AsOf::Position(this), Some(AsOf::Position(live))) if this < live => {
            Some(format!("{} entries before", live - this))
        }
        _ => None,
    };
    if let (Some(behind), Some(live)) = (behind, live) {
        return check(
            NAME,
            false,
            format!("as_of {as_of} lies {behind} the live version's, {live}: an older cut"),
            &format!("it would bring back who has been taken out since; {MEND}"),
        );
    }
    let age = match as_of {
        AsOf::Time(time) => between(time, now),
        AsOf::Position(_) => {
            return passed(NAME, "as_of is not before the live version's");
        }
    };
    let most = match guards.max_age {
        Some(most) => format!("at most {} may be", lasted(most)),
        None => "max_age sets no limit".to_owned(),
    };
    check(
        NAME,
        guards.max_age.is_none_or(|most| age <= most),
        format!("the input had been read up to {} ago ({most})", lasted(age)),
        &format!("see why the job reads old input; {MEND}"),
    )
}

fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    let ms = later.unix_ms.saturating_sub(earlier.unix_ms);
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
