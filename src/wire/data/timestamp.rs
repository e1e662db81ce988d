//! A point in time, as text: RFC 3339 with the quirks of the async reference's own library, which
//! is the one used here.
//!
//! The only file that knows `chrono`.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat, Timelike, Utc};

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
    /// The beginning of 1970.
    pub const EPOCH: Self = Self(DateTime::UNIX_EPOCH);

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

    /// The month, from 1, and the day in it, from 1.
    pub fn month_and_day(self) -> (u32, u32) {
        (self.0.month(), self.0.day())
    }

    /// Now, to the microsecond: what PostgreSQL keeps, so that every store answers the same.
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// A time of the system, to the microsecond.
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Self::from_unix_micros(micros).unwrap_or(Self(DateTime::UNIX_EPOCH))
    }
}

impl fmt::Display for Timestamp {
    /// The wire's form: a fraction of exactly 3, 6 or 9 digits or none, `Z`, years outside 0..=9999
    /// signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; PLAIN_MAX_BYTES];
        match plain_text(&self.0, &mut text) {
            Some(text) => f.write_str(text),
            None => f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        }
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = plain_time(text.as_bytes()).map(Ok);
        plain
            .unwrap_or_else(|| text.parse())
            .map(Self)
            .map_err(|_: chrono::ParseError| InvalidTimestamp)
    }
}

// Every record has two times, so a Find over a thousand records writes and reads two thousand. The
// library's way takes half of the whole Find; what follows does the form that they nearly all have,
// and leaves the rest to the library.

/// `2024-02-29T12:34:56.123456789Z`
const PLAIN_MAX_BYTES: usize = 30;

/// Where the digits before the fraction stand, and what stands between them.
const PLAIN_FORM: &[u8; 19] = b"dddd-dd-ddTdd:dd:dd";

/// The text of a time in a year of four digits, unless it is in a leap second.
fn plain_text<'t>(time: &DateTime<Utc>, text: &'t mut [u8; PLAIN_MAX_BYTES]) -> Option<&'t str> {
    let (year, nanos) =
        (u32::try_from(time.year()).ok().filter(|year| *year <= 9999)?, time.nanosecond());
    let digits = match nanos {
        0 => 0,
        1_000_000_000.. => return None,
        _ if nanos % 1_000_000 == 0 => 3,
        _ if nanos % 1000 == 0 => 6,
        _ => 9,
    };
    text[..PLAIN_FORM.len()].copy_from_slice(PLAIN_FORM);
    write_digits(&mut text[0..4], year);
    for (at, number) in [
        (5, time.month()),
        (8, time.day()),
        (11, time.hour()),
        (14, time.minute()),
        (17, time.second()),
    ] {
        write_digits(&mut text[at..at + 2], number);
    }
    let mut end = PLAIN_FORM.len();
    if digits > 0 {
        text[end] = b'.';
        write_digits(&mut text[end + 1..end + 1 + digits], nanos / 10_u32.pow(9 - digits as u32));
        end += 1 + digits;
    }
    text[end] = b'Z';
    std::str::from_utf8(&text[..=end]).ok()
}

fn write_digits(text: &mut [u8], mut number: u32) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The time of such a text; none if it is any other, or no time at all.
fn plain_time(text: &[u8]) -> Option<DateTime<Utc>> {
    let (main, rest) = text.split_first_chunk::<19>()?;
    let has_form = main
        .iter()
        .zip(PLAIN_FORM)
        .all(|(is, form)| if *form == b'd' { is.is_ascii_digit() } else { is == form });
    if !has_form {
        return None;
    }
    let nanos = match rest.strip_suffix(b"Z")? {
        [] => 0,
        [b'.', digits @ ..]
            if matches!(digits.len(), 3 | 6 | 9) && digits.iter().all(u8::is_ascii_digit) =>
        {
            number(digits) * 10_u32.pow(9 - digits.len() as u32)
        }
        _ => return None,
    };
    let date = NaiveDate::from_ymd_opt(
        number(&main[..4]) as i32,
        number(&main[5..7]),
        number(&main[8..10]),
    )?;
    // None in a leap second, which the library takes in some places.
    let time = date.and_hms_nano_opt(
        number(&main[11..13]),
        number(&main[14..16]),
        number(&main[17..19]),
        nanos,
    )?;
    Some(time.and_utc())
}

/// The number that these digits write, at most nine of them.
fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_form_is_written_and_read_as_the_library_does() {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut draw = |bound: i64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % bound.unsigned_abs()) as i64
        };
        let mut plain = 0;
        for turn in 0..50_000 {
            // Two thousand years before year 0, and as many after 9999.
            let secs = draw(450_000_000_000) - 130_000_000_000;
            let nanos = [0, 1, 1000, 1_000_000, 999_000_000, 1_000_000_000, draw(2_000_000_000)]
                [turn % 7] as u32;
            let Some(time) = DateTime::from_timestamp(secs, nanos) else { continue };
            let text = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            assert_eq!(Timestamp(time).to_string(), text);
            assert_eq!(
                text.parse(),
                Ok(Timestamp(text.parse().expect("the library's own"))),
                "{text}"
            );
            plain += u32::from(plain_time(text.as_bytes()).is_some());
        }
        assert!(plain > 10_000, "{plain}");
    }

    #[test]
    fn what_is_nearly_a_time_is_judged_by_the_library() {
        let time = "2024-02-29T12:34:56.123456Z";
        for at in 0..time.len() {
            for by in
                [&b""[..], b"0", b"9", b"6", b"Z", b".", b"-", b" ", b":", b"+", "é".as_bytes()]
            {
                let text = [&time.as_bytes()[..at], by, &time.as_bytes()[at + 1..]].concat();
                let text = std::str::from_utf8(&text).expect("text");
                let library =
                    text.parse::<DateTime<Utc>>().map(Timestamp).map_err(|_| InvalidTimestamp);
                assert_eq!(text.parse(), library, "{text}");
            }
        }
        for text in [
            "",
            "Z",
            "2023-02-29T00:00:00Z",
            "2016-12-31T23:59:60Z",
            "2016-12-31T23:59:60.5Z",
            "2024-01-01T24:00:00Z",
        ] {
            let library =
                text.parse::<DateTime<Utc>>().map(Timestamp).map_err(|_| InvalidTimestamp);
            assert_eq!(text.parse(), library, "{text}");
        }
    }
}
