//! The owner of a sandbox: a Discord guild or user. The protocol's `Id`.

use std::fmt;
use std::str::FromStr;

/// The kind of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TenantKind {
    /// A Discord guild (server).
    Guild,
    /// A Discord user.
    User,
}

impl TenantKind {
    /// The lower-case word used in queries, paths and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            TenantKind::Guild => "guild",
            TenantKind::User => "user",
        }
    }
}

/// A tenant: written `guild:123` by people, `{"Guild": "123"}` on the wire. The number is a Discord
/// snowflake; `u64::MAX` is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TenantId {
    /// A guild's snowflake.
    Guild(u64),
    /// A user's snowflake.
    User(u64),
}

/// A text that does not name a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseTenantIdError;

impl fmt::Display for ParseTenantIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a tenant is written guild:ID or user:ID, with ID a decimal number below 2^64-1",
        )
    }
}

impl std::error::Error for ParseTenantIdError {}

impl TenantId {
    /// A tenant from its two parts as they stand in queries and paths.
    ///
    /// # Errors
    /// The kind is not `guild` or `user`, or the id is not a decimal u64 below `u64::MAX`.
    pub fn from_parts(kind: &str, id: &str) -> Result<Self, ParseTenantIdError> {
        // Digits only: u64's parser would accept a leading plus sign.
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ParseTenantIdError);
        }
        let snowflake = match id.parse::<u64>() {
            Ok(u64::MAX) | Err(_) => return Err(ParseTenantIdError),
            Ok(number) => number,
        };
        match kind {
            "guild" => Ok(TenantId::Guild(snowflake)),
            "user" => Ok(TenantId::User(snowflake)),
            _ => Err(ParseTenantIdError),
        }
    }

    /// Whether it is a guild or a user.
    pub fn kind(self) -> TenantKind {
        match self {
            TenantId::Guild(_) => TenantKind::Guild,
            TenantId::User(_) => TenantKind::User,
        }
    }

    /// The Discord snowflake.
    pub fn snowflake(self) -> u64 {
        match self {
            TenantId::Guild(snowflake) | TenantId::User(snowflake) => snowflake,
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind().as_str(), self.snowflake())
    }
}

impl FromStr for TenantId {
    type Err = ParseTenantIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, id) = text.split_once(':').ok_or(ParseTenantIdError)?;
        Self::from_parts(kind, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_read_back_what_they_print() {
        for tenant in [TenantId::Guild(0), TenantId::User(u64::MAX - 1)] {
            assert_eq!(tenant.to_string().parse(), Ok(tenant));
        }
    }

    #[test]
    fn what_is_not_a_tenant_is_refused() {
        for text in [
            "",
            "guild",
            "guild:",
            "role:1",
            "Guild:1",
            "guild:+1",
            "guild:-1",
            "guild: 1",
            "user:18446744073709551615",
        ] {
            assert_eq!(text.parse::<TenantId>(), Err(ParseTenantIdError), "{text}");
        }
    }
}
