//! Time as a parameter: whoever decides is handed the time, and never asks for it.
//!
//! A [`Timestamp`] is a point on the wall clock, for expiry, flights and history. Deadlines are
//! `std::time::Instant`s and stay in `http`. Order never comes from either, but from versions and sequence numbers.
//! Where money or what is kept of people depends on the time it is a [`Guarded`] one.

mod guarded;

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

pub use guarded::{Guarded, LASTING, STEP_MS};

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Milliseconds since the Unix epoch; negative before it.
    pub unix_ms: i64,
}

impl Timestamp {
    /// A point given in milliseconds since the Unix epoch.
    pub const fn from_unix_ms(unix_ms: i64) -> Self {
        Self { unix_ms }
    }

    /// A point given in whole seconds since the Unix epoch.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self {
            unix_ms: seconds.saturating_mul(1000),
        }
    }

    /// What the system's clock says. Called by the outermost layer only.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks")]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            unix_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Whole seconds since the Unix epoch, rounded down.
    #[inline]
    pub const fn unix_seconds(self) -> i64 {
        self.unix_ms.div_euclid(1000)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampRefused;

    /// RFC 3339, as in `2026-11-01T00:00:00Z`; an offset is required.
    ///
    /// `9999-12-31T23:59:59Z`, by which many a database says "never", lies a day beyond what jiff can hold; such times
    /// are taken as the last that it can.
    fn from_str(text: &str) -> Result<Self, TimestampRefused> {
        let point: jiff::Timestamp = match text.trim().parse() {
            Ok(point) => point,
            Err(_) if is_beyond_the_last(text.trim()) => jiff::Timestamp::MAX,
            Err(_) => return Err(TimestampRefused),
        };
        Ok(Self {
            // Whole seconds at the very end: jiff does not take back its own last milliseconds.
            unix_ms: point
                .as_millisecond()
                .min(jiff::Timestamp::MAX.as_second() * 1000),
        })
    }
}

/// Whether the text is a whole time with an offset on one of the last days of year 9999.
fn is_beyond_the_last(text: &str) -> bool {
    const PARSER: jiff::fmt::temporal::DateTimeParser = jiff::fmt::temporal::DateTimeParser::new();
    PARSER.parse_pieces(text).is_ok_and(|pieces| {
        pieces.time().is_some()
            && pieces.offset().is_some()
            && pieces.date()
                >= jiff::Timestamp::MAX
                    .to_zoned(jiff::tz::TimeZone::UTC)
                    .date()
    })
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.unix_ms) {
            Ok(point) => point.fmt(f),
            Err(_) => write!(f, "{} ms", self.unix_ms),
        }
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse()
            .map_err(|e| serde::de::Error::custom(format!("`{text}`: {e}")))
    }
}

/// The text is not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time is written as RFC 3339 with its offset, like 2026-11-01T00:00:00Z")]
pub struct TimestampRefused;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let point: Timestamp = "2026-11-01T01:00:00+01:00".parse().expect("a time");
        assert_eq!(point.to_string(), "2026-11-01T00:00:00Z");
        assert_eq!(point, Timestamp::from_unix_seconds(1_793_491_200));
        for bad in ["", "2026-11-01", "2026-11-01T00:00:00", "soon"] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_end_of_year_9999_is_a_time_far_away() {
        let far: Timestamp = "9999-12-30T00:00:00Z".parse().expect("a time");
        for never in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999+00:00",
            "9999-12-31T00:00:00+02:00",
            "9999-12-30T23:59:59-12:00",
        ] {
            let point: Timestamp = never.parse().expect(never);
            assert!(point > far, "{never}");
            assert_eq!(point.to_string().parse(), Ok(point), "{never}");
        }
        for bad in [
            "9999-12-31",
            "9999-12-31T23:59:59",
            "9999-12-32T23:59:59Z",
            "9999-12-31T25:00:00Z",
            "10000-01-01T00:00:00Z",
            "+010000-01-01T00:00:00Z",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn seconds_round_down_on_both_sides_of_the_epoch() {
        assert_eq!(Timestamp::from_unix_ms(1_999).unix_seconds(), 1);
        assert_eq!(Timestamp::from_unix_ms(-1).unix_seconds(), -1);
    }
}
