//! What a tenant is told of entries of the shop that it watches.

/// The event that tells it, without an author; the tenant need not be subscribed. Its data is an
/// object of `scope`, `key`, `version`, `change` and `review_state`, or of `gap`.
pub const SHOP_UPDATE: &str = "ShopUpdate";

/// The scope of the record that says what its tenant watches; scripts write it by `ctx.GlobalKV`
/// only.
pub const SHOP_WATCH_SCOPE: &str = "#shop";

/// The key of that record: its value is a map from scopes of the shop to lists of patterns.
pub const SHOP_WATCH_KEY: &str = "watched";
