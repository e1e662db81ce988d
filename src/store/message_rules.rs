//! The senders and topics that receivers of messages allow, as they wrote them, kept for a while.
//! Pure; the time is passed in.
//!
//! A write of the record forgets what is kept. What was read before a write and comes in after it
//! is not kept either: the generation tells.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::base::limits::{
    MESSAGE_RULE_TOPICS_MAX, MESSAGE_RULES_AGE_MAX, MESSAGE_RULES_CACHE_MAX_BYTES,
    MESSAGE_RULES_MAX,
};
use crate::base::sync::Lock;
use crate::wire::data::{EncodedValue, KhronosValue, TenantId};
use crate::wire::pack::value;

/// What a receiver's rules take besides their texts.
const RULES_BYTES: usize = 128;

/// What one receiver allows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MessageRules(Vec<(TenantId, Vec<String>)>);

impl MessageRules {
    /// Those that a record's value says; what is no rule in it allows nothing.
    pub(super) fn of(value: &EncodedValue) -> Self {
        let Ok(KhronosValue::Map(pairs)) = value::decode(value) else { return Self::default() };
        let text = |value| if let KhronosValue::Text(text) = value { Some(text) } else { None };
        let rule = |(tenant, topics)| {
            let KhronosValue::List(topics) = topics else { return None };
            let topics = topics.into_iter().take(MESSAGE_RULE_TOPICS_MAX).filter_map(text);
            Some((text(tenant)?.parse().ok()?, topics.collect()))
        };
        Self(pairs.into_iter().take(MESSAGE_RULES_MAX).filter_map(rule).collect())
    }

    /// Whether they let this sender send on this topic.
    pub(super) fn allow(&self, from: TenantId, topic: &str) -> bool {
        let of_sender = self.0.iter().filter(|(tenant, _)| *tenant == from);
        of_sender.flat_map(|(_, topics)| topics).any(|prefix| topic.starts_with(prefix))
    }

    fn bytes(&self) -> usize {
        let texts = self.0.iter().flat_map(|(_, topics)| topics);
        RULES_BYTES * (1 + self.0.len())
            + texts.map(|text| size_of::<String>() + text.len()).sum::<usize>()
    }
}

/// The rules of those receivers that were sent to lately.
#[derive(Debug, Default)]
pub(super) struct MessageRulesCache(Lock<KeptRules>);

#[derive(Debug, Default)]
struct KeptRules {
    /// Grows when something is forgotten.
    generation: u64,
    bytes: usize,
    by_receiver: HashMap<TenantId, (Instant, Arc<MessageRules>)>,
}

impl MessageRulesCache {
    /// A receiver's rules.
    ///
    /// # Errors
    /// They are to be read: the generation, for [`MessageRulesCache::keep`].
    pub(super) fn get(&self, receiver: TenantId, now: Instant) -> Result<Arc<MessageRules>, u64> {
        let kept = self.0.lock();
        match kept.by_receiver.get(&receiver) {
            Some((read, rules)) if now.saturating_duration_since(*read) < MESSAGE_RULES_AGE_MAX => {
                Ok(rules.clone())
            }
            _ => Err(kept.generation),
        }
    }

    /// Keeps rules whose reading began in that generation, and at that time.
    pub(super) fn keep(
        &self,
        receiver: TenantId,
        rules: &Arc<MessageRules>,
        generation: u64,
        read: Instant,
    ) {
        let mut kept = self.0.lock();
        if kept.generation != generation {
            return;
        }
        kept.forget(receiver);
        if kept.bytes + rules.bytes() > MESSAGE_RULES_CACHE_MAX_BYTES {
            kept.forget_all();
        }
        kept.bytes += rules.bytes();
        kept.by_receiver.insert(receiver, (read, rules.clone()));
    }

    /// A receiver's rules have changed, or may have.
    pub(super) fn forget(&self, receiver: TenantId) {
        let mut kept = self.0.lock();
        kept.generation += 1;
        kept.forget(receiver);
    }

    /// Any rules may have changed.
    pub(super) fn forget_all(&self) {
        let mut kept = self.0.lock();
        kept.generation += 1;
        kept.forget_all();
    }
}

impl KeptRules {
    fn forget(&mut self, receiver: TenantId) {
        if let Some((_, rules)) = self.by_receiver.remove(&receiver) {
            self.bytes -= rules.bytes();
        }
    }

    fn forget_all(&mut self) {
        self.by_receiver.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TenantId = TenantId::Guild(1);
    const B: TenantId = TenantId::User(2);

    fn rules(pairs: &[(&str, &[&str])]) -> EncodedValue {
        let text = |text: &str| KhronosValue::Text(text.to_owned());
        let list =
            |topics: &[&str]| KhronosValue::List(topics.iter().map(|topic| text(topic)).collect());
        let pairs = pairs.iter().map(|(tenant, topics)| (text(tenant), list(topics)));
        value::encode(&KhronosValue::Map(pairs.collect()))
    }

    #[test]
    fn a_rule_allows_topics_that_begin_as_it_says_from_its_tenant() {
        let of = MessageRules::of(&rules(&[("guild:1", &["duel.", "x"]), ("user:2", &[""])]));
        for (from, topic, is_allowed) in [
            (A, "duel.accept", true),
            (A, "duel", false),
            (A, "xyz", true),
            (A, "", false),
            (B, "", true),
            (B, "anything", true),
            (TenantId::User(1), "duel.accept", false),
        ] {
            assert_eq!(of.allow(from, topic), is_allowed, "{from} {topic}");
        }
    }

    #[test]
    fn what_is_no_rule_allows_nothing() {
        let text = KhronosValue::Text("guild:1".to_owned());
        let number = KhronosValue::Map(vec![(text.clone(), KhronosValue::Integer(1))]);
        for value in [KhronosValue::Null, text.clone(), number] {
            assert_eq!(MessageRules::of(&value::encode(&value)), MessageRules::default());
        }
        let of = MessageRules::of(&rules(&[("everybody", &[""]), ("*", &[""]), ("guild:", &[""])]));
        assert_eq!(of, MessageRules::default());
        let many: Vec<String> = (0..17).map(|number| format!("guild:{number}")).collect();
        let many: Vec<_> = many.iter().map(|tenant| (tenant.as_str(), &[""][..])).collect();
        let of = MessageRules::of(&rules(&many));
        assert!(of.allow(TenantId::Guild(15), "t") && !of.allow(TenantId::Guild(16), "t"));
    }

    #[test]
    fn rules_that_changed_while_they_were_read_are_not_kept() {
        let (cache, now) = (MessageRulesCache::default(), Instant::now());
        let old = Arc::new(MessageRules::of(&rules(&[("guild:1", &[""])])));
        let generation = cache.get(B, now).expect_err("nothing is kept");
        cache.forget(B);
        cache.keep(B, &old, generation, now);
        let generation = cache.get(B, now).expect_err("it came too late");
        cache.keep(B, &old, generation, now);
        assert_eq!(cache.get(B, now), Ok(old.clone()));
        assert_eq!(cache.get(B, now + MESSAGE_RULES_AGE_MAX), Err(generation), "too old");
        for forget in [MessageRulesCache::forget_all, |cache: &MessageRulesCache| cache.forget(B)] {
            forget(&cache);
            let generation = cache.get(B, now).expect_err("forgotten");
            cache.keep(B, &old, generation, now);
        }
        assert_eq!(cache.0.lock().bytes, old.bytes(), "each counts once");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (cache, now) = (MessageRulesCache::default(), Instant::now());
        let large = "x".repeat(60_000);
        let large = Arc::new(MessageRules::of(&rules(&[("guild:1", &[&large])])));
        for number in 0..1000 {
            let receiver = TenantId::User(number);
            let generation = cache.get(receiver, now).expect_err("new");
            cache.keep(receiver, &large, generation, now);
            assert!(cache.0.lock().bytes <= MESSAGE_RULES_CACHE_MAX_BYTES);
            assert!(cache.get(receiver, now).is_ok());
        }
    }
}
