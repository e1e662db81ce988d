//! What a replay says at its end, on stderr: events, failures by kind, rate, latencies, workers and
//! restarts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::base::error::DispatchError;
use crate::master::Master;
use crate::master::config::PoolConfig;

use crate::cli::console::output;

/// Counts what came back.
#[derive(Debug)]
pub(super) struct ReplaySummary {
    started: Instant,
    events: u64,
    failures: BTreeMap<&'static str, u64>,
    latencies: Latencies,
}

impl ReplaySummary {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            events: 0,
            failures: BTreeMap::new(),
            latencies: Latencies::default(),
        }
    }

    pub(super) fn note(&mut self, error: Option<&DispatchError>, took: Duration) {
        self.events += 1;
        self.latencies.note(took);
        if let Some(error) = error {
            *self.failures.entry(error.kind()).or_default() += 1;
        }
    }

    /// How many events failed.
    pub(super) fn failures(&self) -> u64 {
        self.failures.values().sum()
    }

    /// The line that is drawn on a terminal meanwhile.
    pub(super) fn progress(&self) -> String {
        format!("{} events, {:.0}/s, {} failed", self.events, self.rate(), self.failures())
    }

    pub(super) fn print(&self, master: &Master, config: &PoolConfig) {
        let mut lines = vec![format!(
            "{} events in {:.2?}: {:.0} events/s",
            self.events,
            self.started.elapsed(),
            self.rate()
        )];
        let kinds: Vec<String> =
            self.failures.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let kinds =
            if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        lines.push(format!("failures: {}{kinds}", self.failures()));
        let ms = |quantile: f64| self.latencies.quantile_ms(quantile);
        lines.push(format!(
            "latency: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            ms(0.5),
            ms(0.99),
            ms(1.0)
        ));
        let restarts: u64 = master.reports().iter().map(|report| report.restarts.total()).sum();
        lines.push(format!("workers: {}, restarts: {restarts}", config.workers));
        output::tell(&lines.join("\n"));
    }

    fn rate(&self) -> f64 {
        self.events as f64 / self.started.elapsed().as_secs_f64().max(f64::EPSILON)
    }
}

/// Latencies in buckets a twentieth of a power of two wide: within 4 % of the truth, in bounded
/// memory however long a replay runs; the smallest and the largest are kept exactly, and no
/// quantile lies beyond them.
#[derive(Debug)]
struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    min: Duration,
    max: Duration,
}

/// From a nanosecond to 2⁶⁴ of them.
const BUCKETS: usize = 64 * BUCKETS_PER_DOUBLING;
const BUCKETS_PER_DOUBLING: usize = 20;

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, min: Duration::MAX, max: Duration::ZERO }
    }
}

impl Latencies {
    fn note(&mut self, took: Duration) {
        let doublings = (took.as_nanos().max(1) as f64).log2();
        let bucket = (doublings * BUCKETS_PER_DOUBLING as f64) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.count += 1;
        self.min = self.min.min(took);
        self.max = self.max.max(took);
    }

    fn quantile_ms(&self, quantile: f64) -> f64 {
        let [min, max] = [self.min, self.max].map(|took| took.as_secs_f64() * 1000.0);
        if quantile >= 1.0 {
            return max;
        }
        let rank = (self.count as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                let middle = (bucket as f64 + 0.5) / BUCKETS_PER_DOUBLING as f64;
                return (middle.exp2() / 1e6).max(min).min(max);
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_quantile_lies_beyond_what_was_measured() {
        for us in 1..5000 {
            let mut latencies = Latencies::default();
            latencies.note(Duration::from_micros(us));
            let took = Duration::from_micros(us).as_secs_f64() * 1000.0;
            assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| latencies.quantile_ms(share)), [took; 4]);
        }
    }

    #[test]
    fn quantiles_are_close_and_the_largest_is_exact() {
        let mut latencies = Latencies::default();
        for ms in 1..=1000 {
            latencies.note(Duration::from_millis(ms));
        }
        assert!(
            (480.0..520.0).contains(&latencies.quantile_ms(0.5)),
            "{}",
            latencies.quantile_ms(0.5)
        );
        assert!(
            (950.0..1030.0).contains(&latencies.quantile_ms(0.99)),
            "{}",
            latencies.quantile_ms(0.99)
        );
        assert_eq!(latencies.quantile_ms(1.0), 1000.0);
        assert_eq!(Latencies::default().quantile_ms(0.5), 0.0);
    }
}
