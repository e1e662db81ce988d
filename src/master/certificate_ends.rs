//! What is said of certificates before they end, and after.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::base::sync::Lock;

/// From so long before a certificate's end on it is said every day.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);

const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Warns of certificates that end, once a day.
#[derive(Debug, Default)]
pub struct CertificateEnds {
    warned: Lock<Option<Instant>>,
}

/// Seconds since 1970.
pub fn seconds_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

impl CertificateEnds {
    /// Says which of these end soon, or have ended: each by its name, with its end in seconds since
    /// 1970.
    pub fn warn(&self, ends: &[(&str, i64)]) {
        let lines = lines(ends, seconds_now());
        let mut warned = self.warned.lock();
        if lines.is_empty() || warned.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            return;
        }
        *warned = Some(Instant::now());
        for (level, line) in lines {
            log::log!(level, "{line}");
        }
    }
}

fn lines(ends: &[(&str, i64)], now: i64) -> Vec<(log::Level, String)> {
    let near = ends.iter().filter(|(_, at)| at.saturating_sub(now) < WARN_BEFORE.as_secs() as i64);
    near.map(|(name, at)| match at.saturating_sub(now) {
        left @ 0.. => {
            (log::Level::Warn, format!("{name}: the certificate ends in {} hours", left / 3600))
        }
        over => {
            (log::Level::Error, format!("{name}: the certificate ended {} hours ago", -over / 3600))
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_spoken_of_two_weeks_before_its_end() {
        let now = 1_800_000_000;
        let of = |left: i64| lines(&[("worker", now + left)], now).pop();
        assert_eq!(of(15 * 24 * 3600), None);
        let (level, line) = of(13 * 24 * 3600).expect("it ends soon");
        assert_eq!(
            (level, &*line),
            (log::Level::Warn, "worker: the certificate ends in 312 hours")
        );
        let (level, line) = of(-7200).expect("it has ended");
        assert_eq!(
            (level, &*line),
            (log::Level::Error, "worker: the certificate ended 2 hours ago")
        );
    }
}
