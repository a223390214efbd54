//! Time as a parameter: whoever decides is handed the time, and never asks for it.
//!
//! A [`Timestamp`] is a point on the wall clock, for expiry, flights and history. Deadlines are
//! `std::time::Instant`s and stay in `http`. Order never comes from either, but from versions and sequence numbers.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

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
    pub const fn unix_seconds(self) -> i64 {
        self.unix_ms.div_euclid(1000)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampRefused;

    /// RFC 3339, as in `2026-11-01T00:00:00Z`; an offset is required.
    fn from_str(text: &str) -> Result<Self, TimestampRefused> {
        let point: jiff::Timestamp = text.trim().parse().map_err(|_| TimestampRefused)?;
        Ok(Self {
            unix_ms: point.as_millisecond(),
        })
    }
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
    fn seconds_round_down_on_both_sides_of_the_epoch() {
        assert_eq!(Timestamp::from_unix_ms(1_999).unix_seconds(), 1);
        assert_eq!(Timestamp::from_unix_ms(-1).unix_seconds(), -1);
    }
}
