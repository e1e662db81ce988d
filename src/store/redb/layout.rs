//! What the embedded store's file looks like: its tables, and how keys and records are written in
//! them.
//!
//! Keys are bytes whose order is the order of a scan. Texts in them end with a zero byte, which no
//! text of ours contains and which sorts before everything else, so a shorter text comes before a
//! longer one that it starts. A change of any of this needs a new [`SCHEMA`]. Pure; any thread.
//!
//! | table | key | value |
//! |---|---|---|
//! | `mesophyll` | `schema` | the layout's version |
//! | `tenant_states` | tenant | MessagePack: whether banned, then the state (events, data) or nil |
//! | `tenant_kv` | tenant, index form of the key, 0, the key if it differs, 0, then each scope and 0 | MessagePack: id, created, updated (µs since 1970), value |
//! | `tenant_scopes` | tenant, scope | how many of the tenant's records have it |
//! | `tenant_usage` | tenant | records, bytes of keys, scopes and values |
//! | `global_kv` | scope, 0, index form of the key, 0, the key if it differs, 0, version | MessagePack: the entry as it goes over the wire, then its data |
//! | `global_kv_usage` | owner type, 0, owner id | entries, their bytes |
//! | `global_kv_purchases` | tenant, scope, 0, key, 0, version | when, in µs since 1970 |
//! | `timers` | tenant, id | MessagePack: the timer |
//! | `timers_due` | due in µs since 1970, tenant, id | nothing |
//!
//! A tenant is 9 bytes: 0 for a guild or 1 for a user, then the snowflake, highest byte first. A
//! version is 4 bytes, and the time of a key 8, highest first, counted from the lowest there is.
//! The rows of the global entries are in `global_kv.rs`, those of timers, which came with layout 2,
//! in `timers.rs`.

use std::ops::Range;

use redb::TableDefinition;

use crate::store::pattern::index_fold;
use crate::store::{Standing, StoredState};
use crate::wire::WireError;
use crate::wire::data::{EncodedValue, KvRecord, Scopes, TenantId, TenantState, Timestamp};
use crate::wire::pack::reader::{Item, Reader};
use crate::wire::pack::shape::{Decode, Encode};
use crate::wire::pack::writer::Writer;

/// The version of this layout, which `mesophyll --version` shows.
pub const SCHEMA: u64 = 2;

/// The oldest layout that is brought to this one when a file is opened.
pub(super) const OLDEST_SCHEMA: u64 = 1;

/// The key of [`SCHEMA`] in [`META`].
pub(super) const SCHEMA_KEY: &str = "schema";

/// What the file is.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("mesophyll");

/// Tenants' states.
pub(super) const STATES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("tenant_states");

/// Tenants' records.
pub(super) const KV: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("tenant_kv");

/// How many records have a scope, so that listing scopes reads no records.
pub(super) const SCOPES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("tenant_scopes");

/// What counts against a tenant's quota: records and bytes.
pub(super) const USAGE: TableDefinition<'_, &[u8], (u64, u64)> =
    TableDefinition::new("tenant_usage");

/// Global entries.
pub(super) const GLOBAL: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("global_kv");

/// What counts against the quota of an owner of global entries.
pub(super) const GLOBAL_USAGE: TableDefinition<'_, &[u8], (u64, u64)> =
    TableDefinition::new("global_kv_usage");

/// The purchases, and when they were made.
pub(super) const PURCHASES: TableDefinition<'_, &[u8], i64> =
    TableDefinition::new("global_kv_purchases");

/// Timers.
pub(super) const TIMERS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("timers");

/// The same in the order in which they are due.
pub(super) const TIMERS_DUE: TableDefinition<'_, &[u8], ()> = TableDefinition::new("timers_due");

const TENANT_BYTES: usize = 9;

/// A tenant, as every key of its rows starts.
pub(super) fn tenant_key(tenant: TenantId) -> [u8; TENANT_BYTES] {
    let (kind, snowflake) = match tenant {
        TenantId::Guild(snowflake) => (0, snowflake),
        TenantId::User(snowflake) => (1, snowflake),
    };
    let mut bytes = [0; TENANT_BYTES];
    bytes[0] = kind;
    bytes[1..].copy_from_slice(&snowflake.to_be_bytes());
    bytes
}

/// The tenant that a key starts with, and the rest of the key.
pub(super) fn split_tenant(key: &[u8]) -> Result<(TenantId, &[u8]), WireError> {
    let (kind, rest) = key.split_first().ok_or(WireError::Truncated)?;
    let (snowflake, rest) = rest.split_first_chunk().ok_or(WireError::Truncated)?;
    let snowflake = u64::from_be_bytes(*snowflake);
    match kind {
        0 => Ok((TenantId::Guild(snowflake), rest)),
        1 => Ok((TenantId::User(snowflake), rest)),
        _ => Err(WireError::Invalid("a row of no kind of tenant")),
    }
}

/// The row of a record.
pub(super) fn kv_key(tenant: TenantId, key: &str, scopes: &Scopes) -> Vec<u8> {
    let indexed = index_fold(key);
    let scope_bytes: usize = scopes.as_slice().iter().map(|scope| scope.len() + 1).sum();
    let mut bytes = Vec::with_capacity(TENANT_BYTES + indexed.len() + key.len() + 2 + scope_bytes);
    bytes.extend_from_slice(&tenant_key(tenant));
    let exact = if indexed == key { "" } else { key };
    push_texts(&mut bytes, [&indexed, exact]);
    push_texts(&mut bytes, scopes.as_slice());
    bytes
}

/// Adds texts to a row, each with its zero byte.
pub(super) fn push_texts(row: &mut Vec<u8>, texts: impl IntoIterator<Item: AsRef<str>>) {
    for text in texts {
        row.extend_from_slice(text.as_ref().as_bytes());
        row.push(0);
    }
}

/// The key and the scopes of a record's row.
pub(super) fn parse_kv_key(bytes: &[u8]) -> Result<(&str, Vec<&str>), WireError> {
    let (_, rest) = split_tenant(bytes)?;
    let mut texts = rest.strip_suffix(&[0]).ok_or(WireError::Truncated)?.split(|byte| *byte == 0);
    let indexed = texts.next().ok_or(WireError::Truncated)?;
    let exact = texts.next().ok_or(WireError::Truncated)?;
    let key = text(if exact.is_empty() { indexed } else { exact })?;
    Ok((key, texts.map(text).collect::<Result<_, _>>()?))
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::Invalid("a row's key is not text"))
}

/// The rows of a tenant whose rest starts with `prefix`.
pub(super) fn tenant_range(tenant: TenantId, prefix: &str) -> Range<Vec<u8>> {
    let mut start = tenant_key(tenant).to_vec();
    start.extend_from_slice(prefix.as_bytes());
    prefix_range(start)
}

/// The keys that start with `start`.
pub(super) fn prefix_range(start: Vec<u8>) -> Range<Vec<u8>> {
    let mut end = start.clone();
    // The first key past them: the last byte that can grow, grown. A tenant's first byte is 0 or 1,
    // and no byte of a text is 255, so there is always one.
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    start..end
}

/// The row of a tenant's scope.
pub(super) fn scope_key(tenant: TenantId, scope: &str) -> Vec<u8> {
    let mut bytes = tenant_key(tenant).to_vec();
    bytes.extend_from_slice(scope.as_bytes());
    bytes
}

/// The scope of such a row.
pub(super) fn parse_scope_key(bytes: &[u8]) -> Result<&str, WireError> {
    text(split_tenant(bytes)?.1)
}

/// A record as its row holds it, its value undecoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordRow<'a> {
    pub(super) id: &'a str,
    pub(super) created_at: Timestamp,
    pub(super) last_updated_at: Timestamp,
    pub(super) value: &'a [u8],
}

impl<'a> RecordRow<'a> {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(self.value.len() + self.id.len() + 24);
        writer.array(4);
        writer.text(self.id);
        writer.integer(self.created_at.unix_micros());
        writer.integer(self.last_updated_at.unix_micros());
        writer.encoded(self.value);
        writer.into_bytes()
    }

    pub(super) fn from_bytes(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let (Item::Array(4), Item::Str(id)) = (reader.item()?, reader.item()?) else {
            return Err(WireError::Invalid("a row that is no record"));
        };
        let (created_at, last_updated_at) = (read_time(&mut reader)?, read_time(&mut reader)?);
        Ok(Self { id: text(id)?, created_at, last_updated_at, value: reader.rest() })
    }

    /// The record as callers see it.
    pub(super) fn answer(&self, key: &str, scopes: Vec<String>) -> KvRecord {
        KvRecord {
            id: self.id.to_owned(),
            key: key.to_owned(),
            value: EncodedValue::from_checked(self.value.to_vec()),
            scopes,
            created_at: Some(self.created_at),
            last_updated_at: Some(self.last_updated_at),
        }
    }
}

fn read_time(reader: &mut Reader<'_>) -> Result<Timestamp, WireError> {
    let micros = match reader.item()? {
        Item::Unsigned(micros) => i64::try_from(micros).ok(),
        Item::Negative(micros) => Some(micros),
        _ => None,
    };
    let invalid = WireError::Invalid("a row without its time");
    Timestamp::from_unix_micros(micros.ok_or(invalid.clone())?).map_err(|_| invalid)
}

/// A tenant's state as its row holds it.
pub(super) fn state_to_bytes(stored: &StoredState) -> Vec<u8> {
    let data_bytes = stored.state.as_ref().map_or(0, |state| state.data.as_bytes().len());
    let mut writer = Writer::with_capacity(data_bytes + 64);
    writer.array(2);
    writer.boolean(stored.standing == Standing::Banned);
    stored.state.encode(&mut writer);
    writer.into_bytes()
}

/// The state of such a row.
pub(super) fn state_from_bytes(bytes: &[u8]) -> Result<StoredState, WireError> {
    let mut reader = Reader::new(bytes);
    let (Item::Array(2), Item::Boolean(is_banned)) = (reader.item()?, reader.item()?) else {
        return Err(WireError::Invalid("a row that is no tenant state"));
    };
    let state = Option::<TenantState>::decode(&mut reader)?;
    reader.end()?;
    Ok(StoredState { state, standing: if is_banned { Standing::Banned } else { Standing::Good } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_back_its_key_and_scopes() {
        let tenant = TenantId::User(u64::MAX - 1);
        for (key, scopes) in [
            ("k", vec!["s"]),
            ("Key", vec!["", "a", "b"]),
            ("ÄÖ", vec!["ü"]),
            ("\u{212A}", vec!["x", "xx"]),
            ("\u{1}\u{2}", vec!["\u{1}"]),
        ] {
            let scopes = Scopes::new(scopes);
            let row = kv_key(tenant, key, &scopes);
            let (parsed_key, parsed_scopes) = parse_kv_key(&row).expect("a row");
            assert_eq!((parsed_key, &Scopes::new(parsed_scopes)), (key, &scopes));
            assert!(tenant_range(tenant, &index_fold(key)).contains(&row));
            assert!(!tenant_range(TenantId::User(1), "").contains(&row));
        }
    }

    #[test]
    fn rows_of_one_index_form_are_ordered_by_key_then_scopes() {
        let row = |key: &str, scopes: &[&str]| {
            kv_key(TenantId::Guild(1), key, &Scopes::new(scopes.iter().copied()))
        };
        let ordered = [
            row("a", &["a"]),
            row("a", &["a", "b"]),
            row("a", &["aa"]),
            row("A", &["a"]),
            row("a!", &["a"]),
            row("ab", &[""]),
        ];
        assert!(ordered.is_sorted());
    }

    #[test]
    fn a_tenants_rows_lie_together_even_at_the_end_of_the_numbers() {
        for tenant in [
            TenantId::Guild(0),
            TenantId::Guild(u64::MAX - 1),
            TenantId::User(0),
            TenantId::User(255),
        ] {
            let range = tenant_range(tenant, "");
            assert!(
                range.contains(&kv_key(tenant, "\u{10FFFF}", &Scopes::new(["\u{10FFFF}"]))),
                "{tenant}"
            );
            for other in [
                TenantId::Guild(1),
                TenantId::User(1),
                TenantId::User(256),
                TenantId::User(u64::MAX - 1),
            ] {
                assert!(
                    !range.contains(&kv_key(other, "k", &Scopes::new(["s"]))),
                    "{tenant} {other}"
                );
            }
            assert_eq!(split_tenant(&tenant_key(tenant)), Ok((tenant, &[][..])));
        }
    }

    #[test]
    fn a_record_and_a_state_give_back_what_they_hold() {
        let at = |micros| Timestamp::from_unix_micros(micros).expect("in range");
        let record =
            RecordRow { id: "id", created_at: at(-5), last_updated_at: at(7), value: b"\xa4Null" };
        assert_eq!(RecordRow::from_bytes(&record.to_bytes()), Ok(record));
        let state = TenantState {
            events: ["A".to_owned()].into(),
            data: crate::wire::data::EncodedJson::null(),
        };
        for stored in [
            StoredState { state: Some(state.clone()), standing: Standing::Banned },
            StoredState { state: Some(state), standing: Standing::Good },
            StoredState { state: None, standing: Standing::Banned },
        ] {
            assert_eq!(state_from_bytes(&state_to_bytes(&stored)), Ok(stored));
        }
        assert!(RecordRow::from_bytes(b"").is_err());
        assert!(state_from_bytes(b"\x92\xc2").is_err());
    }
}
