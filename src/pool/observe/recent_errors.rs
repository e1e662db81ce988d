//! The last errors of dispatches, for the operator of a master: the same ones folded into one
//! with a count, and of a bounded number and size.
//!
//! When there is no room, an entry of the largest crowd goes first: the tenant with most entries,
//! or the text that stands in most of them. So neither a noisy tenant nor an outage that hits
//! everybody pushes all others out.
//!
//! Noted on the thread that has the error, which never waits here: one that comes while the lock
//! is held is not noted. Owned by the pool's `Traffic`. A tenant's author has another record, in
//! the tenant's own data.

use std::fmt::{self, Write};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Instant;

use crate::base::error::DispatchError;
use crate::base::limits::{RECENT_ERROR_MAX_CHARS, RECENT_ERRORS_MAX};
use crate::base::sync::Lock;
use crate::wire::data::TenantId;

/// One error, as often as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentError {
    /// Tells one from another; a later one has a higher number.
    pub id: u64,
    /// Whose event failed.
    pub tenant: TenantId,
    /// The event's or script's name, as far as it was observed.
    pub event: String,
    /// What kind of error, by the name that metrics have for it.
    pub kind: &'static str,
    /// Its text, cut.
    pub message: String,
    /// How often it came.
    pub count: u64,
    /// When it came first.
    pub first: Instant,
    /// When it came last.
    pub last: Instant,
}

/// The last errors of a pool.
#[derive(Debug, Default)]
pub struct RecentErrors {
    kept: Lock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    noted: u64,
    /// The one that came last stands last.
    entries: Vec<(RecentError, u64)>,
    hasher: RandomState,
}

impl RecentErrors {
    /// Notes an error; `kind` is its name in metrics. The event's name is kept as it is: the
    /// observed job has cut it.
    pub fn record(
        &self,
        tenant: TenantId,
        event: &str,
        kind: &'static str,
        error: &DispatchError,
        now: Instant,
    ) {
        let Some(mut kept) = self.kept.try_lock() else { return };
        let message = cut(error, RECENT_ERROR_MAX_CHARS);
        let text = kept.text(kind, &message);
        let same = |(entry, of): &(RecentError, u64)| {
            *of == text
                && entry.tenant == tenant
                && entry.event == event
                && entry.message == message
        };
        if let Some(place) = kept.entries.iter().rposition(same) {
            let (entry, _) = &mut kept.entries[place];
            entry.count += 1;
            entry.last = now;
            kept.entries[place..].rotate_left(1);
            return;
        }
        if kept.entries.len() >= RECENT_ERRORS_MAX {
            kept.make_room();
        }
        kept.noted += 1;
        let (id, event) = (kept.noted, event.to_owned());
        let entry =
            RecentError { id, tenant, event, kind, message, count: 1, first: now, last: now };
        kept.entries.push((entry, text));
    }

    /// The errors, the one that came last first.
    pub fn list(&self) -> Vec<RecentError> {
        let kept = self.kept.lock();
        kept.entries.iter().rev().map(|(entry, _)| entry.clone()).collect()
    }
}

impl Kept {
    /// A number for what an error says, the same for the same text.
    fn text(&self, kind: &str, message: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(kind.as_bytes());
        hasher.write_u8(0xff);
        hasher.write(message.as_bytes());
        hasher.finish()
    }

    fn make_room(&mut self) {
        let crowd = |(entry, text): &(RecentError, u64)| {
            let of_tenant =
                self.entries.iter().filter(|(other, _)| other.tenant == entry.tenant).count();
            let of_text = self.entries.iter().filter(|(_, other)| other == text).count();
            of_tenant.max(of_text)
        };
        // The first of the largest: the one that came last longest ago.
        let mut largest = (0, 0);
        for (place, entry) in self.entries.iter().enumerate() {
            let size = crowd(entry);
            if size > largest.1 {
                largest = (place, size);
            }
        }
        self.entries.remove(largest.0);
    }
}

/// So many characters of a text, and no more of it in memory.
fn cut(text: impl fmt::Display, chars: usize) -> String {
    struct Cut {
        text: String,
        left: usize,
    }
    impl Write for Cut {
        fn write_str(&mut self, piece: &str) -> fmt::Result {
            for char in piece.chars() {
                self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
                self.text.push(char);
            }
            Ok(())
        }
    }
    let mut cut = Cut { text: String::new(), left: chars };
    // The only error is that there is no more room.
    if write!(cut, "{text}").is_err() {
        cut.text.push('…');
    }
    cut.text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: impl Into<String>) -> DispatchError {
        DispatchError::Script(text.into())
    }

    fn guild(number: u64) -> TenantId {
        TenantId::Guild(number)
    }

    #[test]
    fn the_same_error_is_one_entry_with_a_count() {
        let (errors, now) = (RecentErrors::default(), Instant::now());
        let later = now + std::time::Duration::from_secs(5);
        errors.record(guild(1), "A", "script", &script("x"), now);
        errors.record(guild(2), "A", "script", &script("x"), now);
        errors.record(guild(1), "A", "script", &script("x"), later);
        errors.record(guild(1), "B", "script", &script("x"), later);
        let seen: Vec<_> = errors
            .list()
            .into_iter()
            .map(|entry| (entry.tenant, entry.event, entry.count))
            .collect();
        assert_eq!(
            seen,
            [(guild(1), "B".into(), 1), (guild(1), "A".into(), 2), (guild(2), "A".into(), 1)]
        );
        let folded = &errors.list()[1];
        assert_eq!((folded.id, folded.first, folded.last), (1, now, later));
    }

    #[test]
    fn a_tenant_whose_errors_all_differ_pushes_nobody_else_out() {
        let (errors, now) = (RecentErrors::default(), Instant::now());
        for number in 1..=50 {
            errors.record(guild(number), "E", "script", &script(format!("of {number}")), now);
        }
        for number in 0..10_000 {
            errors.record(guild(99), "E", "script", &script(number.to_string()), now);
        }
        let kept = errors.list();
        assert_eq!(kept.len(), RECENT_ERRORS_MAX);
        assert!((1..=50).all(|number| kept.iter().any(|entry| entry.tenant == guild(number))));
        assert_eq!(kept[0].message, "9999");
    }

    #[test]
    fn an_outage_that_hits_everybody_leaves_the_errors_of_scripts() {
        let (errors, now) = (RecentErrors::default(), Instant::now());
        for number in 1..=10 {
            errors.record(guild(number), "E", "script", &script(format!("of {number}")), now);
        }
        for number in 0..5_000 {
            errors.record(
                guild(number),
                "E",
                "no_worker",
                &DispatchError::NoWorker("it is away".into()),
                now,
            );
        }
        let kept = errors.list();
        assert_eq!(kept.iter().filter(|entry| entry.kind == "script").count(), 10);
        assert_eq!((kept.len(), kept[0].tenant), (RECENT_ERRORS_MAX, guild(4_999)));
    }

    #[test]
    fn where_all_are_alike_the_oldest_goes() {
        let (errors, now) = (RecentErrors::default(), Instant::now());
        for number in 0..=RECENT_ERRORS_MAX as u64 {
            errors.record(guild(number), "E", "script", &script(number.to_string()), now);
        }
        let kept = errors.list();
        assert_eq!(kept.len(), RECENT_ERRORS_MAX);
        assert!(kept.iter().all(|entry| entry.tenant != guild(0)));
    }

    #[test]
    fn texts_are_cut_to_characters_and_marked() {
        let (errors, now) = (RecentErrors::default(), Instant::now());
        errors.record(guild(1), "E", "script", &script("ü".repeat(1 << 20)), now);
        assert_eq!(errors.list()[0].message, format!("{}…", "ü".repeat(RECENT_ERROR_MAX_CHARS)));
        errors.record(guild(1), "E", "script", &script("x".repeat(RECENT_ERROR_MAX_CHARS)), now);
        assert_eq!(errors.list()[0].message.len(), RECENT_ERROR_MAX_CHARS);
    }

    #[test]
    fn who_has_an_error_never_waits_for_who_looks() {
        let errors = RecentErrors::default();
        let looking = errors.kept.lock();
        errors.record(guild(1), "E", "script", &script("x"), Instant::now());
        drop(looking);
        assert_eq!(errors.list(), []);
    }
}
