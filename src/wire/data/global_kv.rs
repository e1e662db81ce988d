//! The shop: immutable, versioned entries that tenants publish to each other.

use serde::Serialize;

use super::{EncodedJson, TenantId, Timestamp};

/// An entry without its data. In JSON it has no long text, either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartialGlobalKv {
    /// What kind of thing it is.
    pub scope: String,
    /// Key.
    pub key: String,
    /// Version of that key.
    pub version: i32,
    /// `guild`, `user` or `staff`.
    pub owner_type: String,
    /// Snowflake of the owner, in decimal (staff entries have no snowflake, so this stays text).
    pub owner_id: String,
    /// `pending`, `approved` or what else the reviewers use.
    pub review_state: String,
    /// Price, if it has one.
    pub price: Option<i64>,
    /// One line about it.
    pub short: String,
    /// Free data that every reader sees.
    pub public_metadata: EncodedJson,
    /// Whether scripts may see its data.
    pub public_data: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub last_updated_at: Timestamp,
    /// A longer text; left out of lists.
    #[serde(skip)]
    pub long: Option<String>,
}

/// The data of an entry, as a reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GlobalKvData {
    /// The data.
    Value {
        /// The data itself.
        data: EncodedJson,
        /// Whether scripts must not look inside.
        opaque: bool,
    },
    /// It has a price that the reader has not paid.
    PurchaseRequired {
        /// Where to buy it.
        purchase_url: String,
    },
}

/// An entry with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalKv {
    /// Everything but the data.
    pub partial: PartialGlobalKv,
    /// The data.
    pub data: GlobalKvData,
}

/// A new entry. Its owner is the tenant that creates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateGlobalKv {
    /// Key.
    pub key: String,
    /// Version.
    pub version: i32,
    /// One line about it.
    pub short: String,
    /// Free data that every reader sees.
    pub public_metadata: EncodedJson,
    /// What kind of thing it is.
    pub scope: String,
    /// Whether scripts may see its data.
    pub public_data: bool,
    /// A longer text.
    pub long: Option<String>,
    /// The data.
    pub data: EncodedJson,
}

/// What `/db/public-global-kv` can be asked. Answers: Find → list of [`PartialGlobalKv`] · Get →
/// [`GlobalKv`] or nil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicGlobalKeyValueOp {
    /// The approved entries of a scope whose key matches.
    Find {
        /// An SQL ILIKE pattern.
        query: String,
        /// Scope.
        scope: String,
    },
    /// One approved entry.
    Get {
        /// Key.
        key: String,
        /// Version.
        version: i32,
        /// Scope.
        scope: String,
        /// The tenant that asks, for purchases.
        id: Option<TenantId>,
    },
}

/// What `/db/global-kv` can be asked; both answer nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GlobalKeyValueOp {
    /// Publishes an entry.
    Create {
        /// The entry.
        entry: CreateGlobalKv,
    },
    /// Removes an entry of one's own.
    Delete {
        /// Key.
        key: String,
        /// Version.
        version: i32,
        /// Scope.
        scope: String,
    },
}
