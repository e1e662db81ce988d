//! When a timer is due again and again: so many seconds, or five fields as cron has them, in UTC.
//! Pure.

use crate::base::error::DbError;
use crate::base::limits::{TIMER_AHEAD_MAX, TIMER_EVERY_MIN, TIMER_SCHEDULE_MAX_BYTES};
use crate::wire::data::Timestamp;

use super::rules::refused;

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// How many days are looked at for the next run: any 29 February is among them, also around a
/// century's end.
const DAYS: i64 = 9 * 366;

/// Each field of cron: what it is called, and its lowest and highest number.
const FIELDS: [(&str, u32, u32); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7)];

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// So many microseconds from one run to the next.
    Micros(i64),
    /// In each minute that matches.
    Cron(Cron),
}

/// Five fields, each as the set of its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    sets: [u64; 5],
    /// Either of both decides: none of the two is `*`.
    any_day: bool,
}

impl Schedule {
    /// The schedule that a text says.
    ///
    /// # Errors
    /// `Refused`: it says none, runs too often, or never.
    pub fn parse(text: &str) -> Result<Self, DbError> {
        if text.len() > TIMER_SCHEDULE_MAX_BYTES {
            let text = format!("a schedule has at most {TIMER_SCHEDULE_MAX_BYTES} bytes");
            return Err(refused(text));
        }
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        match fields[..] {
            [seconds] => Self::seconds(seconds),
            [..] if fields.len() == FIELDS.len() => Cron::parse(&fields).map(Schedule::Cron),
            _ => Err(refused(format!(
                "{text:?} is no schedule: a number of seconds, or the five fields of cron"
            ))),
        }
    }

    fn seconds(text: &str) -> Result<Self, DbError> {
        let (least, most) = (TIMER_EVERY_MIN.as_secs_f64(), TIMER_AHEAD_MAX.as_secs_f64());
        match text.parse::<f64>() {
            // Within those bounds it fits.
            Ok(seconds) if (least..=most).contains(&seconds) => {
                Ok(Schedule::Micros((seconds * 1e6) as i64))
            }
            Ok(_) => Err(refused(format!("a timer runs every {least} s at most"))),
            Err(_) => Err(refused(format!("{text:?} is no number of seconds"))),
        }
    }

    /// The first run after `now` of a timer that was due then: runs that were missed are not made
    /// up for. `None`: there is none.
    pub fn next(&self, due: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let (due, now) = (due.unix_micros(), now.unix_micros());
        let next = match self {
            Schedule::Micros(every) => due + (now.max(due) - due) / every * every + every,
            Schedule::Cron(cron) => cron.next(now.max(due).div_euclid(1_000_000))? * 1_000_000,
        };
        Timestamp::from_unix_micros(next).ok()
    }
}

impl Cron {
    fn parse(fields: &[&str]) -> Result<Self, DbError> {
        let mut sets = [0; FIELDS.len()];
        for ((set, text), (name, low, high)) in sets.iter_mut().zip(fields).zip(FIELDS) {
            for part in text.split(',') {
                let numbers = numbers(part, low, high)
                    .ok_or_else(|| refused(format!("{text:?} is no {name} of a schedule")))?;
                *set |= numbers;
            }
        }
        // Sunday is 0 and 7.
        sets[4] |= sets[4] >> 7 & 1;
        let any_day = !fields[2].starts_with('*') && !fields[4].starts_with('*');
        let cron = Self { sets, any_day };
        match cron.next(0) {
            Some(_) => Ok(cron),
            None => Err(refused("a schedule without any day that matches")),
        }
    }

    /// The beginning of the first minute after this second.
    fn next(&self, after: i64) -> Option<i64> {
        let first = after.div_euclid(MINUTE) * MINUTE + MINUTE;
        let today = first.div_euclid(DAY);
        (today..today + DAYS).filter(|day| self.has_day(*day)).find_map(|day| {
            let from = (first - day * DAY).max(0) / MINUTE;
            let mut minutes = from..DAY / MINUTE;
            let minute = minutes.find(|minute| {
                self.has(1, (minute / 60) as u32) && self.has(0, (minute % 60) as u32)
            });
            minute.map(|minute| day * DAY + minute * MINUTE)
        })
    }

    fn has(&self, field: usize, number: u32) -> bool {
        self.sets[field] >> number & 1 == 1
    }

    /// Whether it runs on the day of this number since 1970, which began on a Thursday.
    fn has_day(&self, day: i64) -> bool {
        let Ok(date) = Timestamp::from_unix_micros(day * DAY * 1_000_000) else { return false };
        let ((month, of_month), weekday) = (date.month_and_day(), (day + 4).rem_euclid(7) as u32);
        let (fits, fits_too) = (self.has(2, of_month), self.has(4, weekday));
        self.has(3, month) && if self.any_day { fits || fits_too } else { fits && fits_too }
    }
}

/// The numbers of `*`, `a`, `a-b`, and each of these with `/step`.
fn numbers(part: &str, low: u32, high: u32) -> Option<u64> {
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && (low..=high).contains(number))
    };
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(step.parse().ok().filter(|step| *step > 0)?)),
        None => (part, None),
    };
    let (from, to) = match range.split_once('-') {
        Some((from, to)) => (number(from)?, number(to)?),
        None if range == "*" => (low, high),
        // `5/10`: from 5 to the end.
        None => (number(range)?, if step.is_some() { high } else { number(range)? }),
    };
    let all = (from..=to).step_by(step.unwrap_or(1));
    (from <= to).then(|| all.fold(0, |set, number| set | 1 << number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn runs(schedule: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(schedule).expect("a schedule");
        let mut time = at(from);
        let next = |_| {
            time = schedule.next(time, time)?;
            Some(time.to_string())
        };
        (0..count).filter_map(next).collect()
    }

    #[test]
    fn minutes_of_a_day_match() {
        let from = "2024-02-28T23:58:30.5Z";
        assert_eq!(runs("* * * * *", from, 1), ["2024-02-28T23:59:00Z"]);
        assert_eq!(runs("0 9 * * *", from, 2), ["2024-02-29T09:00:00Z", "2024-03-01T09:00:00Z"]);
        assert_eq!(runs("*/20 0 * * *", from, 2), ["2024-02-29T00:00:00Z", "2024-02-29T00:20:00Z"]);
        assert_eq!(runs("50/5 23,1-2 * * *", from, 1), ["2024-02-29T01:50:00Z"]);
        assert_eq!(runs("58 23 * * *", "2024-02-28T23:58:00Z", 1), ["2024-02-29T23:58:00Z"]);
    }

    #[test]
    fn days_match_by_month_and_weekday() {
        // 1 January 2024 is a Monday.
        let from = "2024-01-01T00:00:00Z";
        assert_eq!(runs("0 0 * * 0", from, 1), ["2024-01-07T00:00:00Z"]);
        assert_eq!(runs("0 0 * * 7", from, 1), ["2024-01-07T00:00:00Z"]);
        assert_eq!(runs("0 0 * * 6-7", from, 2), ["2024-01-06T00:00:00Z", "2024-01-07T00:00:00Z"]);
        assert_eq!(runs("0 0 15 2 *", from, 1), ["2024-02-15T00:00:00Z"]);
        // Either of both.
        assert_eq!(runs("0 0 4 * 3", from, 2), ["2024-01-03T00:00:00Z", "2024-01-04T00:00:00Z"]);
        let leap = ["2024-02-29T12:00:00Z", "2028-02-29T12:00:00Z"];
        assert_eq!(runs("0 12 29 2 *", from, 2), leap);
        assert_eq!(runs("0 12 29 2 *", "2096-03-01T00:00:00Z", 1), ["2104-02-29T12:00:00Z"]);
    }

    #[test]
    fn seconds_go_on_from_where_they_were_due() {
        let (due, every) = (at("2024-01-01T00:00:05Z"), Schedule::parse("10").expect("seconds"));
        let next = |now: &str| every.next(due, at(now)).expect("a time").to_string();
        assert_eq!(next("2024-01-01T00:00:05Z"), "2024-01-01T00:00:15Z");
        assert_eq!(next("2024-01-01T00:00:14.9Z"), "2024-01-01T00:00:15Z");
        assert_eq!(next("2024-01-01T00:00:15Z"), "2024-01-01T00:00:25Z");
        assert_eq!(next("2024-01-02T00:00:17Z"), "2024-01-02T00:00:25Z", "missed ones are gone");
        assert_eq!(Schedule::parse("12.5"), Ok(Schedule::Micros(12_500_000)));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "9",
            "9.999",
            "-10",
            "inf",
            "nan",
            "1e300",
            "ten",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "a * * * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "+5 * * * *",
            "1,,2 * * * *",
            "0 0 31 2 *",
            "* * * JAN *",
        ] {
            assert!(matches!(Schedule::parse(text), Err(DbError::Refused(_))), "{text:?}");
        }
        assert!(Schedule::parse(&format!("{}1 * * * *", "1,".repeat(200))).is_err());
    }
}
