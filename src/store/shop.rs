//! Changes of the shop's entries, as those that watch it hear of them: what a change is to readers,
//! and the notes of changes that a store keeps until every master has looked.
//!
//! A note is made with its change, or not at all. A reader asks for what came since its last look
//! and is told how far that goes; one that lost its place, or was away for too long, is told that
//! it missed some. Pure but for the lock of `ShopNotes`; any thread.

use std::collections::VecDeque;
use std::time::Duration;

use super::global::{GlobalAddress, is_seen};
use crate::base::labels::labels;
use crate::base::limits::SHOP_NOTES_MAX;
use crate::base::sync::Lock;
use crate::wire::data::{PartialGlobalKv, TenantId};

labels! {
    /// What became of an entry.
    ShopChangeKind {
        /// Readers see it from now on.
        Approved = "approved",
        /// Readers see it, as before; something else about it changed.
        Changed = "changed",
        /// Readers see it no more.
        Withdrawn = "withdrawn",
        /// It is there, and readers do not see it.
        Hidden = "hidden",
        /// It is gone, and readers did not see it.
        Deleted = "deleted",
    }
}

impl ShopChangeKind {
    /// Whether others than the entry's owner hear of it: readers see the entry, or have seen it.
    pub fn is_public(self) -> bool {
        match self {
            ShopChangeKind::Approved | ShopChangeKind::Changed | ShopChangeKind::Withdrawn => true,
            ShopChangeKind::Hidden | ShopChangeKind::Deleted => false,
        }
    }
}

/// A change of an entry, and how it is since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShopChange {
    /// Which entry.
    pub at: GlobalAddress,
    /// The tenant that made it; `None`: staff did.
    pub owner: Option<TenantId>,
    /// What became of it.
    pub kind: ShopChangeKind,
    /// Its review state; `None`: it was deleted.
    pub review_state: Option<String>,
}

impl ShopChange {
    /// The change of an entry that readers did or did not see before; `is_there`: it was not
    /// deleted.
    pub(super) fn new(was_seen: bool, entry: &PartialGlobalKv, is_there: bool) -> Self {
        let kind = match (was_seen, is_there && is_seen(entry)) {
            (false, true) => ShopChangeKind::Approved,
            (true, true) => ShopChangeKind::Changed,
            (true, false) => ShopChangeKind::Withdrawn,
            (false, false) if is_there => ShopChangeKind::Hidden,
            (false, false) => ShopChangeKind::Deleted,
        };
        Self {
            at: GlobalAddress::of(entry),
            owner: TenantId::from_parts(&entry.owner_type, &entry.owner_id).ok(),
            kind,
            review_state: is_there.then(|| entry.review_state.clone()),
        }
    }
}

/// What a look at the notes found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShopLook {
    /// What was noted since, those of one entry in their order.
    pub changes: Vec<ShopChange>,
    /// From where the next look goes on.
    pub until: i64,
    /// Others were noted, and are not among them.
    pub has_gap: bool,
    /// For how long the oldest note waits that the look could not have yet.
    pub held_up: Duration,
}

/// Notes in the memory of a store that has one master. Those of an earlier run are gone.
#[derive(Debug, Default)]
pub(super) struct ShopNotes(Lock<KeptNotes>);

#[derive(Debug, Default)]
struct KeptNotes {
    /// The number of the first that is kept, less one.
    before: i64,
    kept: VecDeque<ShopChange>,
}

impl ShopNotes {
    /// Notes changes that are made.
    pub(super) fn add(&self, changes: impl IntoIterator<Item = ShopChange>) {
        let mut notes = self.0.lock();
        for change in changes {
            if notes.kept.len() == SHOP_NOTES_MAX {
                notes.kept.pop_front();
                notes.before += 1;
            }
            notes.kept.push_back(change);
        }
    }

    /// Notes that a change may have been made of which nothing is known.
    pub(super) fn lose(&self) {
        let mut notes = self.0.lock();
        notes.before += 1 + notes.kept.len() as i64;
        notes.kept.clear();
    }

    /// What was noted since a look; `None`: there was none.
    pub(super) fn since(&self, since: Option<i64>) -> ShopLook {
        let notes = self.0.lock();
        let until = notes.before + notes.kept.len() as i64;
        let from = since.filter(|since| (notes.before..=until).contains(since));
        let new = from.map_or(0, |from| usize::try_from(until - from).unwrap_or(0));
        let changes = notes.kept.iter().skip(notes.kept.len() - new).cloned().collect();
        ShopLook { changes, until, has_gap: from.is_none(), held_up: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str) -> ShopChange {
        let at = GlobalAddress { scope: "s".to_owned(), key: key.to_owned(), version: 1 };
        ShopChange { at, owner: None, kind: ShopChangeKind::Hidden, review_state: None }
    }

    #[test]
    fn each_look_goes_on_where_the_last_one_ended() {
        let notes = ShopNotes::default();
        notes.add([change("early")]);
        let first = notes.since(None);
        assert!(first.has_gap && first.changes.is_empty(), "what came before is not known");
        notes.add([change("a"), change("b")]);
        let second = notes.since(Some(first.until));
        assert_eq!((second.has_gap, second.changes), (false, vec![change("a"), change("b")]));
        assert_eq!(notes.since(Some(second.until)).changes, []);
        notes.add([change("c")]);
        assert_eq!(notes.since(Some(second.until)).changes, [change("c")]);
        assert!(notes.since(Some(second.until + 9)).has_gap, "a place that there is not");
    }

    #[test]
    fn a_look_that_comes_too_late_is_told_so() {
        let notes = ShopNotes::default();
        notes.add((0..SHOP_NOTES_MAX).map(|number| change(&number.to_string())));
        assert_eq!(notes.since(Some(0)).changes.len(), SHOP_NOTES_MAX);
        notes.add([change("last")]);
        let late = notes.since(Some(0));
        assert!(late.has_gap && late.changes.is_empty());
        let whole = notes.since(Some(1));
        assert_eq!((whole.changes.len(), whole.has_gap), (SHOP_NOTES_MAX, false));
        notes.lose();
        let lost = notes.since(Some(whole.until));
        assert!(lost.has_gap && lost.changes.is_empty());
        notes.add([change("new")]);
        assert_eq!(notes.since(Some(lost.until)).changes, [change("new")]);
    }
}
