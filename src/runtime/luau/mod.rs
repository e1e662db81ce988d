//! Luau (placeholder replaced by its owner).
