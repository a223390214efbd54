//! Whether a filter keeps the rate of false positives that it declares.

use crate::audience::{FilterSet, PROBES};
use crate::datasets::manifest::Check;

/// Measures a filter's real rate of false positives, and says whether it is no worse than declared. Not to be left out
/// where guards are off: what was declared is what the person who targets by it counts on.
///
/// Takes a hundredth of a second where the filter is in memory. The rate is given as a share.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "asked where filters are uploaded")
)]
pub(in crate::datasets) fn false_positives(set: &FilterSet) -> (f64, Check) {
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
}
