//! Whether recent requests would be answered as before.
//!
//! The same requests are decided on twice, so that what chance does is in those alone that are answered differently. Chance
//! draws people, and with a person come all of their requests: of people whose requests change by *c* each, who might as
//! well have changed the other way, the sum varies by √Σc², and four times that is chance ([`DEVIATIONS`]). So one person
//! who asks a thousand times, a crawler or somebody's test, decides nothing. Of money it is the same with what each changes.

use super::{DEVIATIONS, MEND, check, lasted, passed, percent};
use crate::config::Guards;
use crate::datasets::manifest::Check;
use crate::shadow::Comparison;

const NAME: &str = "shadow";
/// A sample of fewer requests decides nothing.
const REQUESTS_MIN: u64 = 100;
/// Of fewer requests with a bid it says nothing by how much more there will be.
const BIDDING_MIN: u64 = 20;
/// Line items that are named.
const SHOWN_MAX: usize = 3;

/// Why recent requests were not decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::datasets) enum Unasked {
    /// None are kept.
    Off,
    /// There was no memory to open the version.
    Unopened,
}

/// What a version changes, and whether that is too much. Without a live version there is nothing to differ from, and nothing is
/// held for it.
pub(in crate::datasets) fn shadow(
    guards: &Guards,
    compared: Result<&Comparison, Unasked>,
    has_live: bool,
) -> Check {
    let of = match compared {
        Err(Unasked::Off) => return passed(NAME, "no requests are kept ([shadow] requests is 0)"),
        Err(Unasked::Unopened) => {
            return passed(NAME, "not known: this version has not been opened");
        }
        Ok(of) if of.requests == 0 => {
            return passed(
                NAME,
                "no recent request is kept that a version could be tried on",
            );
        }
        Ok(of) => of,
    };
    let told = told(of);
    if !has_live {
        let text = format!("{told}; the dataset has no live version yet: that holds nothing");
        return passed(NAME, &text);
    }
    if of.requests < REQUESTS_MIN {
        let text = format!("{told}; under {REQUESTS_MIN} requests decide nothing");
        return passed(NAME, &text);
    }
    let broken = broken(guards, of);
    if broken.is_empty() {
        return passed(NAME, &told);
    }
    let found = format!("{told}; {}", broken.join("; "));
    check(
        NAME,
        false,
        found,
        &format!("look at what the line items named are for; {MEND}"),
    )
}

/// What a document of campaigns changes. It is meant to, and holds nothing.
pub(in crate::datasets) fn shadow_of_campaigns(compared: &Comparison) -> Option<Check> {
    (compared.requests > 0).then(|| passed(NAME, &told(compared)))
}

/// The limits that are broken, each in words.
fn broken(guards: &Guards, of: &Comparison) -> Vec<String> {
    let (live, then) = (&of.live, &of.candidate);
    let mut broken = Vec::new();
    let bids = Swing {
        before: live.bidding as f64,
        after: then.bidding as f64,
        deviation: of.variance.bids.sqrt(),
    };
    let spend = Swing {
        before: live.spend,
        after: then.spend,
        deviation: of.variance.spend.sqrt(),
    };
    if let Some(share) = bids.lost(guards.max_bids_lost) {
        let most = percent(guards.max_bids_lost);
        broken.push(format!("{share} fewer requests get a bid (at most {most})"));
    }
    if let Some(share) = spend.lost(guards.max_spend_lost) {
        let most = percent(guards.max_spend_lost);
        broken.push(format!("bids would cost {share} less (at most {most})"));
    }
    if live.bidding >= BIDDING_MIN {
        if let Some(share) = bids.gained(guards.max_bids_gained) {
            let most = percent(guards.max_bids_gained);
            broken.push(format!("{share} more requests get a bid (at most {most})"));
        }
        if let Some(share) = spend.gained(guards.max_spend_gained) {
            let most = percent(guards.max_spend_gained);
            broken.push(format!("bids would cost {share} more (at most {most})"));
        }
    }
    // Of those that get a bid now.
    let (bidding, others) = (live.bidding as f64, (of.changed - of.gained) as f64);
    if others > guards.max_bids_changed * bidding
        && others > DEVIATIONS * of.variance.bidding.sqrt()
    {
        let (share, most) = (percent(others / bidding), percent(guards.max_bids_changed));
        broken.push(format!(
            "{share} of the requests with a bid get another or none (at most {most})"
        ));
    }
    broken
}

/// A sum over the sample, before and after, and what chance does to the difference.
struct Swing {
    before: f64,
    after: f64,
    deviation: f64,
}

impl Swing {
    /// The share that is gone, if it is more than `most` and more than chance.
    fn lost(&self, most: f64) -> Option<String> {
        self.beyond(self.before - self.after, most)
    }

    /// The share that has come, likewise.
    fn gained(&self, most: f64) -> Option<String> {
        self.beyond(self.after - self.before, most)
    }

    fn beyond(&self, change: f64, most: f64) -> Option<String> {
        let is_more = change > most * self.before && change > DEVIATIONS * self.deviation;
        (is_more && self.before > 0.0).then(|| percent(change / self.before))
    }
}

/// What was found, in a sentence.
fn told(of: &Comparison) -> String {
    let rate = |bidding: u64| percent(bidding as f64 / of.requests.max(1) as f64);
    let spend = match (of.live.spend, of.candidate.spend) {
        (before, after) if before > 0.0 => {
            let change = (after - before) / before;
            let sign = if change > 0.0 { "+" } else { "" };
            format!("{sign}{}", percent(change))
        }
        (_, after) if after > 0.0 => "from nothing".to_owned(),
        _ => "none".to_owned(),
    };
    let mut told = format!(
        "{} requests of the last {}: bid rate {} to {}, spend {spend}, {} answered differently",
        of.requests,
        lasted(of.oldest),
        rate(of.live.bidding),
        rate(of.candidate.bidding),
        of.changed,
    );
    let mut line_items: Vec<(&str, i128)> = of
        .line_items
        .iter()
        .map(|(id, (live, then))| (id.as_str(), i128::from(*then) - i128::from(*live)))
        .collect();
    line_items.sort_by_key(|(id, change)| (std::cmp::Reverse(change.abs()), *id));
    let most: Vec<String> = line_items
        .iter()
        .take(SHOWN_MAX)
        .map(|(id, change)| {
            let word = if *change < 0 { "fewer" } else { "more" };
            format!("`{id}` {} bids {word}", change.abs())
        })
        .collect();
    if !most.is_empty() {
        told.push_str(&format!(" ({})", most.join(", ")));
    }
    let reason = of.reasons.iter().max_by_key(|(_, count)| **count);
    if let Some((reason, count)) = reason {
        told.push_str(&format!("; {count} would get none for `{reason}`"));
    }
    if of.cut_short {
        told.push_str("; there was no time for the rest of them");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::shadow::{Side, Variance};
    use std::time::Duration;

    fn guards() -> Guards {
        Config::default().guards
    }

    /// A thousand requests, some with bids at a CPM of 2, before and then; as few of them others as can be.
    fn of(before: u64, after: u64) -> Comparison {
        let (lost, gained) = (before.saturating_sub(after), after.saturating_sub(before));
        let side = |bidding: u64| Side {
            bidding,
            spend: 2.0 * bidding as f64,
        };
        Comparison {
            requests: 1000,
            oldest: Duration::from_secs(1860),
            live: side(before),
            candidate: side(after),
            lost,
            gained,
            changed: lost + gained,
            variance: Variance {
                bids: (lost + gained) as f64,
                spend: 4.0 * (lost + gained) as f64,
                bidding: before as f64,
            },
            line_items: [("vips".to_owned(), (before, after))].into(),
            ..Comparison::default()
        }
    }

    fn ok(compared: &Comparison) -> bool {
        shadow(&guards(), Ok(compared), true).ok
    }

    #[test]
    fn it_says_what_changes_and_what_to_do() {
        let check = shadow(&guards(), Ok(&of(400, 100)), true);
        assert!(!check.ok);
        for part in [
            "1000 requests of the last 31 min: bid rate 40.0 % to 10.0 %, spend -75.0 %, 300 answered differently",
            "(`vips` 300 bids fewer)",
            "75.0 % fewer requests get a bid (at most 50.0 %)",
            "bids would cost 75.0 % less (at most 50.0 %)",
            "mend the job",
            "with force",
        ] {
            assert!(check.detail.contains(part), "{part}: {}", check.detail);
        }
    }

    #[test]
    fn what_is_within_the_limits_passes() {
        for (before, after) in [
            (400, 400),
            (400, 201),
            (400, 900),
            (100, 499),
            (0, 900),
            (0, 0),
        ] {
            assert!(ok(&of(before, after)), "{before} {after}");
        }
        for (before, after) in [(400, 199), (100, 501), (400, 0), (20, 400)] {
            assert!(!ok(&of(before, after)), "{before} {after}");
        }
    }

    #[test]
    fn few_requests_decide_nothing() {
        let few = Comparison {
            requests: 99,
            ..of(80, 0)
        };
        assert!(ok(&few));
        let enough = Comparison {
            requests: 100,
            ..of(80, 0)
        };
        assert!(!ok(&enough));
        // Of 16 bids all may go, of 17 not; and from a handful any number may come.
        assert!(ok(&of(16, 0)) && !ok(&of(17, 0)));
        assert!(ok(&of(19, 900)));
        // A first version differs from nothing.
        assert!(shadow(&guards(), Ok(&of(400, 0)), false).ok);
    }

    #[test]
    fn as_many_bids_by_others_hold_too() {
        let swapped = Comparison {
            lost: 350,
            gained: 350,
            changed: 700,
            ..of(400, 400)
        };
        let check = shadow(&guards(), Ok(&swapped), true);
        let text = "87.5 % of the requests with a bid get another or none (at most 80.0 %)";
        assert!(!check.ok && check.detail.contains(text), "{}", check.detail);
        let half = Comparison {
            lost: 100,
            gained: 100,
            changed: 200,
            ..of(400, 400)
        };
        assert!(ok(&half));
    }

    #[test]
    fn money_counts_by_itself() {
        // The one bid in ten that pays is gone.
        let mut of = of(400, 380);
        of.live.spend = 4_000.0;
        of.candidate.spend = 1_900.0;
        of.variance.spend = 20.0 * 105.0 * 105.0;
        assert!(!ok(&of));
        // All of it in one request: chance.
        of.variance.spend = 2_100.0 * 2_100.0;
        assert!(ok(&of));
    }

    #[test]
    fn what_cannot_be_asked_passes_and_says_so() {
        for (why, text) in [
            (Unasked::Off, "[shadow]"),
            (Unasked::Unopened, "not been opened"),
        ] {
            let check = shadow(&guards(), Err(why), true);
            assert!(check.ok && check.detail.contains(text));
        }
        let none = shadow(&guards(), Ok(&Comparison::default()), true);
        assert!(none.ok && none.detail.contains("no recent request"));
    }
}
