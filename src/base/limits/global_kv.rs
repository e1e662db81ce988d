//! The bounds of global entries, which tenants publish to each other; part of `limits.rs`, with its
//! rules.

use super::DB_BODY_MAX_BYTES;

/// Limit: key of a global entry (protocol.md).
pub const GLOBAL_KV_KEY_MIN_BYTES: usize = 3;

/// Limit: key of a global entry (protocol.md).
pub const GLOBAL_KV_KEY_MAX_BYTES: usize = 64;

/// Limit: texts, metadata and data of one global entry: what fits into a body of
/// [`DB_BODY_MAX_BYTES`] with room around it.
pub const GLOBAL_KV_ENTRY_MAX_BYTES: usize = DB_BODY_MAX_BYTES - 16 * 1024;

/// Limit: global entries of one owner. The protocol leaves it open; without a bound one tenant
/// could fill the disk.
pub const GLOBAL_KV_OWNED_MAX: u64 = 1000;

/// Limit: a review state; the reviewers' words are short.
pub const GLOBAL_KV_REVIEW_MAX_BYTES: usize = 64;
