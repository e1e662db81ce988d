//! `ctx.Messages`: messages to other tenants, and which ones the tenant receives.

use std::time::Instant;

use mlua::Value;

use super::rules::{changing, reading};
use super::{
    CallArgs, CallError, CallReply, PreparedCall, field, only_fields, refuse, text, texts,
};
use crate::base::error::DbError;
use crate::base::limits::{
    CALL_BYTES, MESSAGE_RULE_TOPICS_MAX, MESSAGE_RULES_MAX, TENANT_MESSAGE_MAX_BYTES,
    TENANT_MESSAGE_TOPIC_MAX_BYTES,
};
use crate::runtime::luau::convert::{ConvertErrorKind, json_from_luau};
use crate::runtime::luau::io::{Asked, CallTo, IoOutput, blocking, texts_bytes};
use crate::runtime::luau::locks::RecordKey;
use crate::wire::data::{
    KhronosValue, MESSAGE_RULES_KEY, MESSAGE_RULES_SCOPE, MessageOutcome, Scopes, TenantId,
    TenantMessage,
};

/// Limit: the name of a tenant; every one is shorter.
const TENANT_MAX_BYTES: usize = 64;

/// `depth`: how many messages in a row led to the event that sends.
pub(super) fn send(
    tenant: TenantId,
    depth: u64,
    args: &CallArgs<'_>,
) -> Result<PreparedCall, CallError> {
    let (to, topic) = (other(args.value(0), "the receiver")?, args.value(1));
    if topic
        .as_string()
        .is_some_and(|topic| topic.as_bytes().len() > TENANT_MESSAGE_TOPIC_MAX_BYTES)
    {
        return refuse(refusal(MessageOutcome::TooLarge));
    }
    let topic = text(topic, "the topic", TENANT_MESSAGE_TOPIC_MAX_BYTES)?;
    let data =
        json_from_luau(args.lua, args.value(2), TENANT_MESSAGE_MAX_BYTES).map_err(|error| {
            match error.kind() {
                ConvertErrorKind::TooLarge(_) => {
                    CallError::Refused(refusal(MessageOutcome::TooLarge))
                }
                _ => error.into(),
            }
        })?;
    // It is copied once, into what goes over the link.
    let bytes = CALL_BYTES + 2 * (topic.len() + data.as_bytes().len());
    let depth = depth.saturating_add(1);
    let message = TenantMessage { from: tenant, to, topic, data, depth };
    Ok(PreparedCall {
        asked: Asked { to: CallTo::Tenant, at: Instant::now() },
        work: blocking(move |db| IoOutput::Sent(db.send(message))),
        reply: CallReply::Whole,
        bytes,
        lock: None,
    })
}

/// What a script is told of a message that was not accepted: first the kind, for programs.
pub(super) fn refusal(outcome: MessageOutcome) -> String {
    format!("{}: {}", outcome.as_str(), outcome.explanation())
}

pub(super) fn allow(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let rule = args.table(0, "the rule")?;
    only_fields(rule, "the rule", &["from", "topics"])?;
    let from = other(&field(rule, "from")?, "from")?;
    let topics = texts(
        &field(rule, "topics")?,
        "topics",
        MESSAGE_RULE_TOPICS_MAX,
        "a topic",
        TENANT_MESSAGE_TOPIC_MAX_BYTES,
    )?;
    if topics.is_empty() {
        return refuse("topics must name at least one prefix; \"\" is every topic");
    }
    let bytes = texts_bytes(&topics);
    Ok(changing(tenant, record(), bytes, move |rules| {
        let topics = KhronosValue::List(topics.into_iter().map(KhronosValue::Text).collect());
        let from = KhronosValue::Text(from.to_string());
        match rules.iter().position(|(tenant, _)| *tenant == from) {
            Some(at) => rules[at].1 = topics,
            None if rules.len() >= MESSAGE_RULES_MAX => {
                let text = format!("at most {MESSAGE_RULES_MAX} tenants can be allowed to send");
                return Err(DbError::Refused(text));
            }
            None => rules.push((from, topics)),
        }
        Ok(())
    }))
}

pub(super) fn disallow(tenant: TenantId, args: &CallArgs<'_>) -> Result<PreparedCall, CallError> {
    let from = KhronosValue::Text(other(args.value(0), "from")?.to_string());
    Ok(changing(tenant, record(), 0, move |rules| {
        rules.retain(|(tenant, _)| *tenant != from);
        Ok(())
    }))
}

pub(super) fn allowed(tenant: TenantId) -> PreparedCall {
    reading(tenant, record())
}

fn record() -> RecordKey {
    (MESSAGE_RULES_KEY.to_owned(), Scopes::new([MESSAGE_RULES_SCOPE]))
}

/// Another tenant, as `guild:123`.
fn other(value: &Value, what: &str) -> Result<TenantId, CallError> {
    let name = text(value, what, TENANT_MAX_BYTES)?;
    name.parse().map_err(|_| {
        CallError::Refused(format!("{what} must be a tenant such as \"guild:123\", not {name:?}"))
    })
}
