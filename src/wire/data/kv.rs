//! A tenant's key-value records and what can be asked of them.

use serde::Serialize;

use super::{EncodedValue, Timestamp};

/// The scope of a tenant's last errors, which its worker writes; scripts can read it, as every
/// scope that begins with `#`.
pub const ERRORS_SCOPE: &str = "#err";

/// The key of the record that has them: a list, the newest first.
pub const ERRORS_KEY: &str = "last";

/// A set of scopes: sorted by bytes, without duplicates. Together with the tenant and the key it
/// addresses a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Scopes(Vec<String>);

impl Scopes {
    /// Sorts and removes duplicates. Rules on number and length are the store's.
    pub fn new(scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut scopes: Vec<String> = scopes.into_iter().map(Into::into).collect();
        scopes.sort_unstable();
        scopes.dedup();
        Self(scopes)
    }

    /// The scopes, sorted by bytes.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// The scopes, sorted by bytes.
    pub fn into_vec(self) -> Vec<String> {
        self.0
    }

    /// Whether every scope of `asked` is in this set.
    pub fn contains_all(&self, asked: &Scopes) -> bool {
        asked.0.iter().all(|scope| self.0.binary_search(scope).is_ok())
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KvRecord {
    /// The record's own id, fixed when it is first set.
    pub id: String,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: EncodedValue,
    /// Its scopes, sorted.
    pub scopes: Vec<String>,
    /// When it was first set.
    pub created_at: Option<Timestamp>,
    /// When it was last set.
    pub last_updated_at: Option<Timestamp>,
}

/// What `/db/kv` can be asked. Answers: Get → record or nil · ListScopes → texts · Find → records ·
/// Set, Delete → nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyValueOp {
    /// The record with exactly these scopes.
    Get {
        /// Scopes.
        scopes: Scopes,
        /// Key.
        key: String,
    },
    /// All scopes of the tenant, sorted, distinct.
    ListScopes,
    /// Creates or replaces the record with exactly these scopes.
    Set {
        /// Scopes.
        scopes: Scopes,
        /// Key.
        key: String,
        /// New value.
        value: EncodedValue,
    },
    /// Deletes the record with exactly these scopes, if there is one.
    Delete {
        /// Scopes.
        scopes: Scopes,
        /// Key.
        key: String,
    },
    /// The records whose scopes contain all of these and whose key matches.
    Find {
        /// Scopes.
        scopes: Scopes,
        /// An SQL ILIKE pattern.
        query: String,
    },
}
