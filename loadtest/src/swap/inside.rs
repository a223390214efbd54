//! How long requests took inside the server: from its first byte to its answer, as its own histogram counts them.
//!
//! What a client sees has its own waits in it: where both share two cores, those are of the size of what is looked for.

use std::net::SocketAddr;

/// Requests by how long they took at most, in microseconds: cumulative, the last bound infinite.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Durations(Vec<(f64, u64)>);

impl Durations {
    /// What the server has counted so far; nothing where it does not say.
    pub(super) fn now(agent: &ureq::Agent, admin: SocketAddr) -> Self {
        let answer = agent.get(format!("http://{admin}/metrics")).call();
        let text = answer.and_then(|mut answer| answer.body_mut().read_to_string());
        Self::read(&text.unwrap_or_default())
    }

    /// The exposition's text.
    fn read(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| {
            let rest =
                line.strip_prefix("kith_bid_duration_seconds_bucket{exchange=\"demo\",le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            let bound: f64 = bound.replace("+Inf", "inf").parse().ok()?;
            Some((bound * 1e6, count.trim().parse().ok()?))
        });
        Self(lines.collect())
    }

    /// What came since.
    pub(super) fn since(&self, before: &Self) -> Self {
        let before = before.0.iter().map(|(_, count)| *count);
        let both = self.0.iter().zip(before.chain(std::iter::repeat(0)));
        Self(
            both.map(|((bound, count), before)| (*bound, count.saturating_sub(before)))
                .collect(),
        )
    }

    /// The 99th percentile in microseconds, as if the requests of a bucket were spread over it evenly; 0 of none.
    pub(super) fn p99_us(&self) -> f64 {
        let wanted = self.0.last().map_or(0, |(_, all)| *all) as f64 * 0.99;
        let mut below = (0.0, 0);
        for (bound, count) in &self.0 {
            if *count > 0 && *count as f64 >= wanted {
                let share = (wanted - below.1 as f64) / (count - below.1) as f64;
                return match bound.is_finite() {
                    true => below.0 + (bound - below.0) * share,
                    false => below.0,
                };
            }
            below = (*bound, *count);
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_came_since() {
        let text = |counts: [u64; 4]| {
            let [a, b, c, all] = counts;
            format!(
                "# HELP x\nkith_bid_duration_seconds_bucket{{exchange=\"demo\",le=\"0.00005\"}} {a}\n\
                 kith_bid_duration_seconds_bucket{{exchange=\"other\",le=\"0.00005\"}} 7\n\
                 kith_bid_duration_seconds_bucket{{exchange=\"demo\",le=\"0.0001\"}} {b}\n\
                 kith_bid_duration_seconds_bucket{{exchange=\"demo\",le=\"0.001\"}} {c}\n\
                 kith_bid_duration_seconds_bucket{{exchange=\"demo\",le=\"+Inf\"}} {all}\n"
            )
        };
        let before = Durations::read(&text([10, 10, 10, 10]));
        let after = Durations::read(&text([100, 108, 110, 110]));
        let came = after.since(&before);
        assert_eq!(
            came.0.iter().map(|(_, count)| *count).collect::<Vec<_>>(),
            [90, 98, 100, 100]
        );
        // The 99th of a hundred is the first of two between 100 and 1,000.
        assert!((came.p99_us() - 550.0).abs() < 1e-6, "{}", came.p99_us());
        assert_eq!(after.since(&Durations::default()), after);
        assert_eq!(Durations::default().p99_us(), 0.0);
        let slow = Durations::read(&text([0, 0, 0, 5]));
        assert_eq!(slow.p99_us(), 1000.0);
    }
}
