//! Masters that share the tenants of one database.

use serde_json::Value;

use super::DEADLINE;
use super::binary::{Master, get_with, token};
use super::postgres::Schema;
use super::process::within;

/// The options of a master of that name, with one worker.
pub(crate) fn place<'o>(schema: &'o Schema, name: &'o str) -> Vec<&'o str> {
    let place = ["--cluster", "test", "--advertise", "127.0.0.1:0", "--name", name];
    [&place[..], &["--workers", "1", "--store", schema.url()]].concat()
}

/// A tenant of each of the masters `one` and `two`, as soon as both say so: half of the shards go
/// to the second one, so such tenants are soon found.
pub(crate) fn tenants_of(one: &Master, two: &Master) -> (String, String) {
    let master_of = |at: &Master, tenant: &str| {
        let (_, body) = get_with(at.api(), &format!("/i/route/{tenant}"), &token(7));
        let route: Value = serde_json::from_str(&body).expect("JSON");
        route["master"].as_str().map(str::to_owned)
    };
    within(DEADLINE, "the shards are shared", || {
        let tenants: Vec<String> = (1_u64..20).map(|at| format!("guild/{}", at << 22)).collect();
        let of = |name: &str| {
            let is_of = |at: &Master, tenant: &str| master_of(at, tenant).as_deref() == Some(name);
            tenants.iter().find(|tenant| is_of(one, tenant) && is_of(two, tenant)).cloned()
        };
        Some((of("one")?, of("two")?))
    })
}
