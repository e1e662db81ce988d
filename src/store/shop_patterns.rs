//! What a tenant watches of the shop, as its record says. Pure.

use super::global::GlobalAddress;
use super::pattern::Pattern;
use super::rules::{check_pattern, refused};
use crate::base::error::DbError;
use crate::base::limits::SHOP_PATTERNS_MAX;
use crate::wire::data::{EncodedValue, KhronosValue};
use crate::wire::pack::value;

/// Patterns of keys, each within a scope.
#[derive(Debug, Clone, Default)]
pub struct ShopPatterns(Vec<(String, Pattern)>);

impl ShopPatterns {
    /// Those that a record's value says.
    ///
    /// # Errors
    /// `Refused`: it is not a map from scopes to lists of patterns, or has too many of them.
    pub(super) fn of(record: &EncodedValue) -> Result<Self, DbError> {
        let wrong = || refused("what is watched is a map from scopes to lists of patterns");
        let Ok(KhronosValue::Map(pairs)) = value::decode(record) else { return Err(wrong()) };
        let mut patterns = Vec::new();
        for pair in pairs {
            let (KhronosValue::Text(scope), KhronosValue::List(texts)) = pair else {
                return Err(wrong());
            };
            for text in texts {
                let KhronosValue::Text(text) = text else { return Err(wrong()) };
                patterns.push((scope.clone(), check_pattern(&text)?));
            }
        }
        if patterns.len() > SHOP_PATTERNS_MAX {
            return Err(refused(format!("a tenant watches at most {SHOP_PATTERNS_MAX} patterns")));
        }
        Ok(Self(patterns))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them matches an entry.
    pub fn match_entry(&self, at: &GlobalAddress) -> bool {
        self.0.iter().any(|(scope, pattern)| *scope == at.scope && pattern.matches(&at.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::value_from_json;

    fn patterns(json: &str) -> Result<ShopPatterns, DbError> {
        ShopPatterns::of(&value_from_json(json.as_bytes()).expect("a value"))
    }

    #[test]
    fn a_pattern_matches_within_its_scope() {
        let of = patterns(r#"{"templates":["welcome%","x_z"],"themes":["%"]}"#).expect("patterns");
        for (scope, key, matches) in [
            ("templates", "welcome.v2", true),
            ("templates", "xyz", true),
            ("templates", "other", false),
            ("themes", "other", true),
            ("", "welcome", false),
        ] {
            let at = GlobalAddress { scope: scope.to_owned(), key: key.to_owned(), version: 1 };
            assert_eq!(of.match_entry(&at), matches, "{scope} {key}");
        }
        assert!(patterns("{}").is_ok_and(|none| none.is_empty()));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let many = format!(r#"{{"s":[{}"a"]}}"#, r#""a","#.repeat(SHOP_PATTERNS_MAX));
        for json in ["null", r#"["a"]"#, r#"{"s":"a"}"#, r#"{"s":[1]}"#, r#"{"s":["\\"]}"#, &many] {
            assert!(matches!(patterns(json), Err(DbError::Refused(_))), "{json}");
        }
    }
}
