//! Checks between a built version and its activation: a version that fails one is held, never served by itself.
//!
//! Guards are plain functions from what is known to a [`Check`] whose detail says what to do.

use super::Format;
use super::manifest::{Check, Rows};
use crate::audience::{FilterSet, PROBES};
use crate::config::Guards;

/// Looks at a built audience version; of a version file the rejected rows are not known.
pub(super) fn checks(guards: &Guards, rows: &Rows, format: &Format) -> Vec<Check> {
    if !guards.enabled {
        return Vec::new();
    }
    match format {
        Format::Snapshot => vec![Check {
            name: "rejected_rows".to_owned(),
            ok: true,
            detail: "not known: a version file does not tell how many rows were rejected when it was built; `kith build` did".to_owned(),
        }],
        Format::Rows(_) | Format::Document => vec![rejected_rows(guards, rows)],
    }
}

fn rejected_rows(guards: &Guards, rows: &Rows) -> Check {
    // An estimate to compare and print, not money: a float will do.
    let all = rows.rows.saturating_add(rows.rejected_rows);
    let share = rows.rejected_rows as f64 / all.max(1) as f64;
    let ok = share <= guards.max_rejected_share;
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let found = format!(
        "{} of {} rows were rejected ({}; at most {} may be)",
        rows.rejected_rows,
        all,
        percent(share),
        percent(guards.max_rejected_share)
    );
    let detail = if ok {
        found
    } else {
        format!(
            "{found}; correct the rows listed under `rejected` and upload a higher version, or activate this one with force"
        )
    };
    Check {
        name: "rejected_rows".to_owned(),
        ok,
        detail,
    }
}

/// Measures a filter's real rate of false positives, and says whether it is no worse than declared. Not to be left out
/// where guards are off: what was declared is what the person who targets by it counts on.
///
/// Takes a hundredth of a second where the filter is in memory. The rate is given as a share.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "asked where filters are uploaded")
)]
pub(super) fn false_positives(set: &FilterSet) -> (f64, Check) {
    let shape = set.shape();
    // Any seed will do: the hashes of an honest filter were salted before this one could be known.
    let found = set.false_positives(shape.blocks());
    let measured = found as f64 / PROBES as f64;
    let declared = shape.rate();
    let ok = measured <= declared.share();
    let told = format!(
        "{:.4} % of {PROBES} ids that were not uploaded are in it; {declared} was declared",
        100.0 * measured
    );
    let detail = if ok {
        told
    } else {
        format!(
            "{told}. It was made for {} ids and seems to hold {:.0}: build it again for as many, or declare a higher \
             false_positive_rate and upload a higher version",
            shape.ids(),
            set.estimated_ids()
        )
    };
    let check = Check {
        name: "false_positive_rate".to_owned(),
        ok,
        detail,
    };
    (measured, check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audience::RowFormat;

    const GUARDS: Guards = Guards {
        enabled: true,
        max_rejected_share: 0.01,
    };

    #[track_caller]
    fn check(rejected_rows: u64, all: u64, ok: bool) {
        let rows = Rows {
            rows: all - rejected_rows,
            rejected_rows,
            ..Rows::default()
        };
        let checks = checks(&GUARDS, &rows, &Format::Rows(RowFormat::Csv));
        assert_eq!(checks.iter().all(|c| c.ok), ok, "{checks:?}");
    }

    #[test]
    fn one_in_a_hundred_may_be_bad_and_no_more() {
        check(0, 10, true);
        check(1, 100, true);
        check(1, 99, false);
        check(2, 100, false);
        check(0, 0, true);
    }

    #[test]
    fn disabled_guards_look_at_nothing() {
        let off = Guards {
            enabled: false,
            ..GUARDS
        };
        let rows = Rows {
            rows: 1,
            rejected_rows: 2,
            ..Rows::default()
        };
        assert!(checks(&off, &rows, &Format::Snapshot).is_empty());
    }

    #[test]
    fn a_filter_that_is_worse_than_declared_is_told() {
        use crate::audience::{FalsePositiveRate, FilterBuilder, FilterHasher, Shape};
        use crate::ids::UserKey;
        let hasher = FilterHasher::new(&[1; 16]);
        let told = |made_for: u64, ids: u64| {
            let rate = FalsePositiveRate::of_share(0.01).expect("a rate");
            let shape = Shape::for_ids(made_for, rate).expect("a shape");
            let mut builder = FilterBuilder::new(shape).expect("memory");
            builder.extend((1..=ids).map(|n| hasher.hash(UserKey(n.into()))));
            let (measured, check) = false_positives(&builder.finish().expect("a filter"));
            assert_eq!(check.ok, measured <= 0.01, "{check:?}");
            check
        };
        let good = told(100_000, 100_000);
        assert!(
            good.ok && good.detail.contains("1 % was declared"),
            "{good:?}"
        );
        let worse = told(100_000, 120_000);
        assert!(
            !worse.ok && worse.detail.contains("made for 100000 ids"),
            "{worse:?}"
        );
        assert!(
            worse
                .detail
                .contains("declare a higher false_positive_rate")
        );
    }

    #[test]
    fn of_a_version_file_it_is_not_known() {
        let checks = checks(&GUARDS, &Rows::default(), &Format::Snapshot);
        assert!(checks[0].ok && checks[0].detail.contains("not known"));
    }
}
