//! What may be asked of a store: the limits of protocol.md, checked before any work, with one text
//! for each refusal.
//!
//! Used by [`super::DbState`] and, before anything is sent, by a worker's database client, so that
//! a refusal is the same on both. Deliberately without quotas: those depend on what is stored.
//! Pure; any thread.

use crate::base::error::DbError;
use crate::base::limits::{
    KV_KEY_MAX_BYTES, KV_SCOPE_MAX_BYTES, KV_SCOPES_MAX, KV_SCOPES_MAX_BYTES, STATE_DATA_MAX_BYTES,
    STATE_EVENT_NAME_MAX_BYTES, STATE_EVENTS_MAX, VALUE_DEPTH_MAX,
};
use crate::store::global::check_op;
use crate::store::pattern::Pattern;
use crate::store::timers::check_timer_op;
use crate::wire;
use crate::wire::data::{
    DbOp, ERRORS_KEY, ERRORS_SCOPE, EncodedJson, EncodedValue, HOST_RULES_SCOPE, KeyValueOp,
    MESSAGE_RULES_KEY, MESSAGE_RULES_SCOPE, PublicGlobalKeyValueOp, SHOP_WATCH_KEY,
    SHOP_WATCH_SCOPE, Scopes, TEMPLATE_HISTORY_SCOPE, TEMPLATE_KEY, TEMPLATE_SCOPE,
    TemplateSources, TenantState,
};
use crate::wire::pack::plain::{PlainToken, PlainWalk};

pub(super) fn refused(why: impl Into<String>) -> DbError {
    DbError::Refused(why.into())
}

pub(super) fn without_nul(text: &str, what: &str) -> Result<(), DbError> {
    if text.contains('\0') {
        Err(refused(format!("{what} must not contain the character NUL")))
    } else {
        Ok(())
    }
}

/// Checks a key.
///
/// # Errors
/// `Refused`: it is empty, too long or contains NUL.
pub fn check_key(key: &str) -> Result<(), DbError> {
    if key.is_empty() || key.len() > KV_KEY_MAX_BYTES {
        return Err(refused(format!("a key has 1 to {KV_KEY_MAX_BYTES} bytes")));
    }
    without_nul(key, "a key")
}

/// Whether a record is its tenant's own template (docs/operations.md).
pub(super) fn is_template(key: &str, scopes: &Scopes) -> bool {
    key == TEMPLATE_KEY && matches!(scopes.as_slice(), [scope] if scope == TEMPLATE_SCOPE)
}

/// Whether an operation would write what a worker must not: such a version, as nothing would bound
/// what it stores, or what staff allows its tenant to call.
pub(super) fn writes_what_is_not_its_own(op: &KeyValueOp) -> bool {
    match op {
        KeyValueOp::Set { scopes, .. } | KeyValueOp::Delete { scopes, .. } => {
            // Also among others: what is found by such a scope is to be what masters wrote.
            let is_ours =
                |scope: &String| scope == TEMPLATE_HISTORY_SCOPE || scope == HOST_RULES_SCOPE;
            scopes.as_slice().iter().any(is_ours)
        }
        KeyValueOp::Get { .. } | KeyValueOp::ListScopes | KeyValueOp::Find { .. } => false,
    }
}

/// Whether an operation is one that workers make by themselves: reading a template, and the record
/// of the last errors.
pub(super) fn is_of_workers(op: &KeyValueOp) -> bool {
    let is_errors = |key: &str, scopes: &Scopes| {
        key == ERRORS_KEY && matches!(scopes.as_slice(), [scope] if scope == ERRORS_SCOPE)
    };
    match op {
        KeyValueOp::Get { key, scopes } => is_template(key, scopes) || is_errors(key, scopes),
        KeyValueOp::Set { key, scopes, .. } => is_errors(key, scopes),
        KeyValueOp::Delete { .. } | KeyValueOp::ListScopes | KeyValueOp::Find { .. } => false,
    }
}

/// Checks what is to be a tenant's own template.
///
/// # Errors
/// `Refused`: it is neither a text nor modules by name.
pub(super) fn check_template(value: &EncodedValue) -> Result<(), DbError> {
    let value = wire::pack::value::decode(value).map_err(|error| refused(error.to_string()))?;
    TemplateSources::of(value).map(drop).map_err(refused)
}

/// Whether a record is a version of a template that was replaced, which no quota counts.
pub(super) fn is_replaced_template(scopes: &Scopes) -> bool {
    matches!(scopes.as_slice(), [scope] if scope == TEMPLATE_HISTORY_SCOPE)
}

/// Whether a record says which messages its tenant receives.
pub(super) fn is_message_rules(key: &str, scopes: &Scopes) -> bool {
    key == MESSAGE_RULES_KEY && matches!(scopes.as_slice(), [scope] if scope == MESSAGE_RULES_SCOPE)
}

/// Whether a record says what its tenant watches of the shop.
pub(super) fn is_shop_patterns(key: &str, scopes: &Scopes) -> bool {
    key == SHOP_WATCH_KEY && matches!(scopes.as_slice(), [scope] if scope == SHOP_WATCH_SCOPE)
}

/// Whether a record is that of its tenant's last errors, which is written whatever the tenant's
/// quota says.
pub(super) fn is_errors(key: &str, scopes: &Scopes) -> bool {
    key == ERRORS_KEY && matches!(scopes.as_slice(), [scope] if scope == ERRORS_SCOPE)
}

/// Checks the scopes that address a record.
///
/// # Errors
/// `Refused`: there are none or too many, or one is too long or contains NUL.
pub fn check_scopes(scopes: &Scopes) -> Result<(), DbError> {
    if scopes.as_slice().is_empty() {
        return Err(refused("a record has at least one scope"));
    }
    if scopes.as_slice().iter().map(String::len).sum::<usize>() > KV_SCOPES_MAX_BYTES {
        return Err(refused(format!(
            "a record's scopes have at most {KV_SCOPES_MAX_BYTES} bytes together"
        )));
    }
    check_asked_scopes(scopes)
}

/// Checks the scopes that a Find asks for; none asks for every record.
///
/// # Errors
/// `Refused`: there are too many, or one is too long or contains NUL.
pub fn check_asked_scopes(scopes: &Scopes) -> Result<(), DbError> {
    if scopes.as_slice().len() > KV_SCOPES_MAX {
        return Err(refused(format!("a record has at most {KV_SCOPES_MAX} scopes")));
    }
    for scope in scopes.as_slice() {
        if scope.len() > KV_SCOPE_MAX_BYTES {
            return Err(refused(format!("a scope has at most {KV_SCOPE_MAX_BYTES} bytes")));
        }
        without_nul(scope, "a scope")?;
    }
    Ok(())
}

/// Checks and compiles the pattern of a Find.
///
/// # Errors
/// `Refused`: it is no pattern, is too long or contains NUL.
pub fn check_pattern(pattern: &str) -> Result<Pattern, DbError> {
    without_nul(pattern, "a pattern")?;
    Pattern::parse(pattern).map_err(|error| refused(error.to_string()))
}

/// Checks a value and gives the form in which it is stored.
///
/// # Errors
/// `Refused`: it is too large, nests too deep, or holds what PostgreSQL's jsonb cannot keep.
pub fn check_value(value: &EncodedValue) -> Result<EncodedValue, DbError> {
    wire::pack::value::storable(value).map_err(refused)
}

/// Checks how many events a tenant's state names: a list of them before names that come twice fall
/// together, too.
///
/// # Errors
/// `Refused`: too many.
pub fn check_event_count(count: usize) -> Result<(), DbError> {
    if count > STATE_EVENTS_MAX {
        return Err(refused(format!("a tenant subscribes to at most {STATE_EVENTS_MAX} events")));
    }
    Ok(())
}

/// Checks a tenant's state and gives the form in which it is stored: keys of its data sorted, no
/// −0.0 in it.
///
/// # Errors
/// `Refused`: too many events, a name that is too long, data that is too large or deep, or what
/// jsonb cannot keep.
pub fn check_tenant_state(state: &TenantState) -> Result<TenantState, DbError> {
    check_event_count(state.events.len())?;
    for name in &state.events {
        if name.len() > STATE_EVENT_NAME_MAX_BYTES {
            return Err(refused(format!(
                "an event's name has at most {STATE_EVENT_NAME_MAX_BYTES} bytes"
            )));
        }
        without_nul(name, "an event's name")?;
    }
    Ok(TenantState {
        events: state.events.clone(),
        data: check_json(&state.data, STATE_DATA_MAX_BYTES)?,
    })
}

/// Checks plain JSON and gives the form in which it is stored: keys sorted, no −0.0.
pub(super) fn check_json(json: &EncodedJson, max_bytes: usize) -> Result<EncodedJson, DbError> {
    if json.as_bytes().len() > max_bytes {
        return Err(refused(format!("the data has at most {max_bytes} bytes")));
    }
    let mut walk = PlainWalk::new(json);
    let mut depth = 0_usize;
    while let Some(token) = walk.next().map_err(|error| refused(error.to_string()))? {
        match token {
            PlainToken::Text(text) | PlainToken::Key(text) => without_nul(text, "the data")?,
            PlainToken::Float(number) if !number.is_finite() => {
                return Err(refused("the data must not contain NaN or infinities"));
            }
            PlainToken::Array(_) | PlainToken::Object(_) => {
                depth += 1;
                if depth > VALUE_DEPTH_MAX {
                    return Err(refused(format!(
                        "the data nests at most {VALUE_DEPTH_MAX} levels"
                    )));
                }
            }
            PlainToken::End => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(wire::pack::plain::storable(json))
}

/// Checks an operation on a tenant's records; its value gets the form in which it is stored.
///
/// # Errors
/// `Refused` by a rule.
pub(super) fn check_kv(op: &mut KeyValueOp) -> Result<(), DbError> {
    match op {
        KeyValueOp::ListScopes => Ok(()),
        KeyValueOp::Find { scopes, query } => {
            check_asked_scopes(scopes)?;
            check_pattern(query).map(drop)
        }
        KeyValueOp::Get { scopes, key } | KeyValueOp::Delete { scopes, key } => {
            check_key(key)?;
            check_scopes(scopes)
        }
        KeyValueOp::Set { scopes, key, value } => {
            check_key(key)?;
            check_scopes(scopes)?;
            *value = check_value(value)?;
            Ok(())
        }
    }
}

/// Checks an operation as far as that does not depend on what is stored, and gives the form in
/// which it is sent to a master, which checks it again.
///
/// # Errors
/// `Refused` by a rule.
pub fn checked(mut op: DbOp) -> Result<DbOp, DbError> {
    match &mut op {
        DbOp::Kv(_, op) => check_kv(op)?,
        DbOp::Public(_, PublicGlobalKeyValueOp::Find { query, .. }) => drop(check_pattern(query)?),
        DbOp::Public(_, PublicGlobalKeyValueOp::Get { .. }) => {}
        DbOp::Global(tenant, op) => check_op(op, *tenant)?,
        DbOp::SetTenantState(_, state) => *state = check_tenant_state(state)?,
        DbOp::Timer(_, op) => check_timer_op(op)?,
    }
    Ok(op)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::wire::pack::writer::Writer;

    fn refusal<T: std::fmt::Debug>(result: Result<T, DbError>) -> String {
        match result {
            Err(DbError::Refused(text)) => text,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    fn json(write: impl FnOnce(&mut Writer)) -> EncodedJson {
        let mut writer = Writer::default();
        write(&mut writer);
        wire::pack::plain::check(writer.into_bytes()).expect("plain JSON")
    }

    #[test]
    fn keys_have_1_to_512_bytes_and_no_nul() {
        assert_eq!(check_key("k"), Ok(()));
        assert_eq!(check_key(&"k".repeat(512)), Ok(()));
        assert_eq!(check_key(&"é".repeat(256)), Ok(()));
        refusal(check_key(""));
        refusal(check_key(&"k".repeat(513)));
        refusal(check_key(&"é".repeat(257)));
        refusal(check_key("a\0b"));
    }

    #[test]
    fn a_record_has_1_to_10_scopes_and_a_find_may_ask_for_none() {
        let scopes = |count: usize| Scopes::new((0..count).map(|number| number.to_string()));
        assert_eq!(check_scopes(&scopes(1)), Ok(()));
        assert_eq!(check_scopes(&scopes(10)), Ok(()));
        assert_eq!(check_asked_scopes(&scopes(0)), Ok(()));
        refusal(check_scopes(&scopes(0)));
        refusal(check_scopes(&scopes(11)));
        refusal(check_asked_scopes(&scopes(11)));
        refusal(check_scopes(&Scopes::new(["a\0"])));
        refusal(check_scopes(&Scopes::new(["s".repeat(513)])));
        assert_eq!(check_scopes(&Scopes::new(vec!["same"; 11])), Ok(()), "a set of one");
    }

    #[test]
    fn a_tenant_state_keeps_to_its_limits() {
        let with =
            |events: BTreeSet<String>, data| check_tenant_state(&TenantState { events, data });
        let names =
            |count: usize| (0..count).map(|number| number.to_string()).collect::<BTreeSet<_>>();
        assert!(with(names(1024), EncodedJson::null()).is_ok());
        refusal(with(names(1025), EncodedJson::null()));
        refusal(with(["E".repeat(513)].into(), EncodedJson::null()));
        refusal(with(["E\0".to_owned()].into(), EncodedJson::null()));
        refusal(with(names(0), json(|writer| writer.text("\0"))));
        refusal(with(names(0), json(|writer| writer.f64(f64::NAN))));
        refusal(with(names(0), json(|writer| writer.f64(f64::INFINITY))));
        assert!(with(names(0), json(|writer| writer.text(&"x".repeat(256 * 1024 - 5)))).is_ok());
        refusal(with(names(0), json(|writer| writer.text(&"x".repeat(256 * 1024 - 4)))));
        let nested = |depth: usize| {
            json(|writer| {
                (1..depth).for_each(|_| writer.array(1));
                writer.array(0);
            })
        };
        assert!(with(names(0), nested(32)).is_ok());
        refusal(with(names(0), nested(33)));
    }

    #[test]
    fn the_data_of_a_state_is_stored_with_sorted_keys() {
        let data = json(|writer| {
            writer.map(2);
            writer.text("b");
            writer.unsigned(1);
            writer.text("a");
            writer.unsigned(2);
        });
        let stored = check_tenant_state(&TenantState { events: BTreeSet::new(), data })
            .expect("within the limits");
        assert_eq!(stored.data.as_bytes(), b"\x82\xa1a\x02\xa1b\x01");
    }

    #[test]
    fn negative_zero_in_the_data_is_stored_as_zero() {
        let data = |zero: f64| {
            json(|writer| {
                writer.array(3);
                writer.f64(zero);
                writer.f64(-1.5);
                writer.unsigned(0);
            })
        };
        let stored = check_tenant_state(&TenantState { events: BTreeSet::new(), data: data(-0.0) });
        assert_eq!(stored.expect("within the limits").data, data(0.0));
        assert_ne!(data(0.0), data(-0.0), "the test can tell them apart");
    }
}
