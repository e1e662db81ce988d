//! Schedules of timers against a reading of cron that is too simple to be wrong, and what goes over
//! `/db/timers`.

use mesophyll::base::error::DbError;
use mesophyll::base::limits::{TIMER_AHEAD_MAX, TIMER_EVERY_MIN, TIMER_SCHEDULE_MAX_BYTES};
use mesophyll::store::schedule::Schedule;
use mesophyll::wire::data::{Timer, TimerOp, Timestamp};
use mesophyll::wire::pack::shape::{Decode, Encode};
use mesophyll::wire::timer;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;

/// The first byte says what comes: an operation, a timer, or a time of five bytes and a schedule.
pub(super) fn timers(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    match which % 4 {
        0 => same_again::<TimerOp>(rest),
        1 => {
            same_again::<Timer>(rest);
            if let Ok(read) = Timer::from_bytes(rest) {
                let event = timer::event(&read).expect("data that was read is a value");
                assert_eq!((event.name, event.author), (read.name, None));
            }
        }
        _ => {
            let Some((time, text)) = rest.split_first_chunk::<5>() else { return };
            let Ok(text) = std::str::from_utf8(text) else { return };
            let millis = time.iter().fold(0, |all, byte| all << 8 | i64::from(*byte));
            schedule(text, at(millis * 1000));
        }
    }
}

fn same_again<T: Decode + Encode>(bytes: &[u8]) {
    let Ok(first) = T::from_bytes(bytes) else { return };
    let written = first.to_bytes();
    let second = T::from_bytes(&written).expect("what we write, we read");
    assert_eq!(second.to_bytes(), written);
}

/// Before the year 2040.
fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(micros).expect("in range")
}

fn schedule(text: &str, now: Timestamp) {
    let schedule = match Schedule::parse(text) {
        Ok(schedule) => schedule,
        Err(error) => return assert!(matches!(error, DbError::Refused(_)), "{error:?}"),
    };
    assert!(text.len() <= TIMER_SCHEDULE_MAX_BYTES);
    let next = schedule.next(now, now).expect("there is a next run");
    let after = schedule.next(next, next).expect("and one after that");
    let (from, first, second) = (now.unix_micros(), next.unix_micros(), after.unix_micros());
    assert!(first > from, "{text:?}: {next} is not after {now}");
    let least = i64::try_from(TIMER_EVERY_MIN.as_micros()).expect("small");
    assert!(second - first >= least, "{text:?}: {after} follows {next}");
    // A run that is late moves none of those to come.
    let between = at(first + (second - first) / 2);
    assert_eq!(schedule.next(next, between), Some(after), "{text:?} at {between}");
    match schedule {
        Schedule::Micros(every) => {
            assert!((first - from, second - first) == (every, every));
            assert!(u128::try_from(every).expect("positive") <= TIMER_AHEAD_MAX.as_micros());
        }
        Schedule::Cron(_) => cron(text, from, first),
    }
}

/// The run is at a minute that matches, and the minutes of the hours before it do not.
fn cron(text: &str, from: i64, first: i64) {
    assert_eq!(first % MINUTE, 0);
    assert!(matches(text, first), "{text:?} has no run at {}", at(first));
    let begin = (from / MINUTE + 1).max(first / MINUTE - 3 * 60);
    let skipped = (begin..first / MINUTE).find(|minute| matches(text, minute * MINUTE));
    assert_eq!(skipped, None, "{text:?} after {}", at(from));
}

fn matches(text: &str, time: i64) -> bool {
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let (month, day) = at(time).month_and_day();
    let (minute, hour) = (time % (60 * MINUTE) / MINUTE, time % DAY / (60 * MINUTE));
    // 1 January 1970 was a Thursday.
    let weekday = (time / DAY + 4) % 7;
    let has = |at: usize, number: i64| {
        let lowest = i64::from(matches!(at, 2 | 3));
        fields[at].split(',').any(|part| has(part, lowest, number))
    };
    let is_weekday = has(4, weekday) || (weekday == 0 && has(4, 7));
    let (is_day, is_any) = (has(2, day.into()), |at: usize| fields[at].starts_with('*'));
    let fits = match is_any(2) || is_any(4) {
        true => is_day && is_weekday,
        false => is_day || is_weekday,
    };
    has(0, minute) && has(1, hour) && has(3, month.into()) && fits
}

/// Whether a part of a field, such as `*/5`, `3` or `1-7/2`, has a number of a field, whose
/// lowest one is given.
fn has(part: &str, lowest: i64, number: i64) -> bool {
    let (range, step) =
        part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    // A step beyond every number is as good as any other.
    let step_by = step.map_or(1, |step| step.parse().unwrap_or(i64::MAX));
    let whole = |text: &str| text.parse::<i64>().expect("a number");
    let (low, high) = match range.split_once('-') {
        Some((low, high)) => (whole(low), whole(high)),
        None if range == "*" => (lowest, i64::MAX),
        None if step.is_some() => (whole(range), i64::MAX),
        None => (whole(range), whole(range)),
    };
    (low..=high).contains(&number) && (number - low) % step_by == 0
}
