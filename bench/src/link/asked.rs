//! What a master process is asked to do and what it answers: a line each, over its stdin and
//! stdout.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::str::FromStr;
use std::time::Duration;

/// What the events of a turn carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// A short text.
    Tiny,
    /// 60 pairs of texts, 2 KiB in all.
    TwoK,
    /// The same; our master makes the bytes from a tree, and of the answer a tree, as the peer
    /// must.
    TwoKTree,
    /// A text of 10 MiB.
    TenM,
    /// Of 100 events 70 tiny ones, 25 of 2 KiB, four of 20 KiB and one of 200 KiB.
    Mixed,
}

/// How a turn goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One event after the other, each timed.
    RoundTrip,
    /// So many in flight, counted only.
    Flight,
    /// So many in flight, each timed.
    Timed,
    /// Events that nobody waits for, until all of them have arrived.
    Nowait,
    /// As `Timed`, while another tenant loops for ever; what is unanswered at the end counts with
    /// its age.
    Noisy,
}

macro_rules! words {
    ($name:ident, $($variant:ident = $word:literal),+) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$variant => $word),+ })
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok($name::$variant),)+
                    _ => Err(format!("{word} is no {}", stringify!($name))),
                }
            }
        }
    };
}

words!(Size, Tiny = "tiny", TwoK = "2k", TwoKTree = "2k_tree", TenM = "10m", Mixed = "mixed");
words!(
    Kind,
    RoundTrip = "rtt",
    Flight = "flight",
    Timed = "timed",
    Nowait = "nowait",
    Noisy = "noisy"
);

/// A turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub kind: Kind,
    pub size: Size,
    pub in_flight: usize,
    /// Tenants that take turns.
    pub tenants: u64,
    pub lasting: Duration,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Load { kind, size, in_flight, tenants, lasting } = self;
        write!(f, "{kind} {size} {in_flight} {tenants} {}", lasting.as_millis())
    }
}

impl FromStr for Load {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, size, in_flight, tenants, ms] = words[..] else {
            return Err(format!("{line:?} is no load"));
        };
        let number = |word: &str| word.parse::<u64>().map_err(|_| format!("{word} is no number"));
        Ok(Self {
            kind: kind.parse()?,
            size: size.parse()?,
            in_flight: number(in_flight)? as usize,
            tenants: number(tenants)?,
            lasting: Duration::from_millis(number(ms)?),
        })
    }
}

/// What came of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// Events that were answered (of `Nowait`: that arrived).
    pub done: u64,
    /// From the first event to the end of the turn, or to the arrival of the last event if that is
    /// later.
    pub seconds: f64,
    /// p50, p99, p99.9 and the longest, in µs; zeros if nothing was timed.
    pub times: [f64; 4],
}

impl Outcome {
    /// From what was counted, and what was timed in nanoseconds.
    pub fn new(done: u64, took: Duration, mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let place = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
            times.get(place).map_or(0.0, |nanos| *nanos as f64 / 1000.0)
        };
        Self { done, seconds: took.as_secs_f64(), times: [at(0.5), at(0.99), at(0.999), at(1.0)] }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { done, seconds, times: [p50, p99, p999, worst] } = self;
        write!(f, "{done} {seconds} {p50} {p99} {p999} {worst}")
    }
}

impl FromStr for Outcome {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let numbers: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
        match numbers.as_deref() {
            Ok([done, seconds, p50, p99, p999, worst]) => Ok(Self {
                done: *done as u64,
                seconds: *seconds,
                times: [*p50, *p99, *p999, *worst],
            }),
            _ => Err(line.to_owned()),
        }
    }
}

/// Answers each line of stdin with a line, until stdin ends. An error is a line too, which its
/// reader cannot take for an answer.
pub fn answer_lines(mut answer: impl FnMut(&str) -> Result<String, String>) -> Result<(), String> {
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        say(&answer(&line).unwrap_or_else(|why| format!("error: {why}")))?;
    }
    Ok(())
}

/// Prints a line.
pub fn say(line: &str) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_and_outcomes_read_back_what_they_print() {
        for kind in [Kind::RoundTrip, Kind::Flight, Kind::Timed, Kind::Nowait, Kind::Noisy] {
            for size in [Size::Tiny, Size::TwoK, Size::TwoKTree, Size::TenM, Size::Mixed] {
                let load = Load {
                    kind,
                    size,
                    in_flight: 64,
                    tenants: 7,
                    lasting: Duration::from_millis(1500),
                };
                assert_eq!(load.to_string().parse(), Ok(load));
            }
        }
        let outcome = Outcome::new(3, Duration::from_millis(2500), vec![3000, 1000, 2000]);
        assert_eq!(outcome.times, [2.0, 3.0, 3.0, 3.0]);
        assert_eq!(outcome.to_string().parse(), Ok(outcome));
        assert!("error: no worker".parse::<Outcome>().is_err());
    }
}
