//! What `mesophyll --version` prints: all that tells one build from another, in one line.

use crate::store::redb::SCHEMA;

/// `mesophyll X.Y.Z (commit; features; store layout N)`.
pub(in crate::cli) fn line() -> String {
    let all = [
        ("http2", cfg!(feature = "http2")),
        ("luau", cfg!(feature = "luau")),
        ("postgres", cfg!(feature = "postgres")),
        ("postgres-tls", cfg!(feature = "postgres-tls")),
        ("sandbox", cfg!(feature = "sandbox")),
        ("tls", cfg!(feature = "tls")),
    ];
    let on: Vec<_> = all.into_iter().filter_map(|(name, is_on)| is_on.then_some(name)).collect();
    let features = if on.is_empty() { "no features".to_owned() } else { on.join(", ") };
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("BUILT_FROM_COMMIT"));
    format!("mesophyll {version} ({commit}; {features}; store layout {SCHEMA})")
}
