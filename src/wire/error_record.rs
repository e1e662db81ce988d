//! What a tenant's record of its last errors holds: a list of maps, the newest first.

use super::pack::value;
use crate::base::limits::ERROR_RECORDS_KEPT;
use crate::wire::data::{EncodedValue, KhronosValue, KvRecord, Timestamp};

/// One error.
pub fn entry(
    at: Timestamp,
    event: String,
    message: String,
    template: String,
    traceback: Vec<String>,
) -> KhronosValue {
    let traceback = traceback.into_iter().map(KhronosValue::Text).collect();
    let of = |name: &str, value| (KhronosValue::Text(name.to_owned()), value);
    KhronosValue::Map(vec![
        of("at", KhronosValue::Timestamptz(at)),
        of("event", KhronosValue::Text(event)),
        of("message", KhronosValue::Text(message)),
        of("template", KhronosValue::Text(template)),
        of("traceback", KhronosValue::List(traceback)),
    ])
}

/// The record's value with new errors before those that it has, of which the oldest go.
pub fn with_newest(
    before: Option<&KvRecord>,
    newest_first: impl Iterator<Item = KhronosValue>,
) -> EncodedValue {
    let before = match before.map(|record| value::decode(&record.value)) {
        Some(Ok(KhronosValue::List(before))) => before,
        // Nothing yet, or not ours.
        _ => Vec::new(),
    };
    let list = newest_first.chain(before).take(ERROR_RECORDS_KEPT).collect();
    value::encode(&KhronosValue::List(list))
}
