//! A point in time, as text: RFC 3339 with the quirks of the async reference's own library, which is the one used here.
//!
//! The only file that knows `chrono`.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};

/// A point in time in UTC, to the nanosecond, leap seconds included; years −262,143 to 262,142.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(DateTime<Utc>);

/// A text or number that is no point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidTimestamp;

impl fmt::Display for InvalidTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an RFC 3339 date and time")
    }
}

impl std::error::Error for InvalidTimestamp {}

impl Timestamp {
    /// The point in time `micros` microseconds after 1970 (negative: before).
    ///
    /// # Errors
    /// It is outside the range of years.
    pub fn from_unix_micros(micros: i64) -> Result<Self, InvalidTimestamp> {
        DateTime::from_timestamp_micros(micros).map(Self).ok_or(InvalidTimestamp)
    }

    /// Microseconds since 1970, rounded down.
    pub fn unix_micros(self) -> i64 {
        self.0.timestamp_micros()
    }

    /// Now, to the microsecond: what PostgreSQL keeps, so that every store answers the same.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Self::from_unix_micros(micros).unwrap_or(Self(DateTime::UNIX_EPOCH))
    }
}

impl fmt::Display for Timestamp {
    /// The wire's form: a fraction of exactly 3, 6 or 9 digits or none, `Z`, years outside 0..=9999 signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<DateTime<Utc>>().map(Self).map_err(|_| InvalidTimestamp)
    }
}
