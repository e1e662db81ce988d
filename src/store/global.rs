//! The shop: immutable, versioned entries that tenants publish, staff reviews, and others read or
//! buy.
//!
//! An entry is named by key, version and scope and starts as `pending`; readers see what is
//! `approved`. Here are its rules and what each side of it may do; keeping entries is the
//! [`super::Store`]'s. Called from any thread.

use std::fmt::Write as _;

use super::pattern::Pattern;
use super::rules::{check_json, check_pattern, refused, without_nul};
use super::{DbState, FindLimits, Operation};
use crate::base::error::DbError;
use crate::base::limits::{
    GLOBAL_KV_ENTRY_MAX_BYTES, GLOBAL_KV_KEY_MAX_BYTES, GLOBAL_KV_KEY_MIN_BYTES,
    GLOBAL_KV_OWNED_MAX, GLOBAL_KV_REVIEW_MAX_BYTES, KV_SCOPE_MAX_BYTES,
};
use crate::wire::data::{
    CreateGlobalKv, EncodedJson, GlobalKeyValueOp, GlobalKv, GlobalKvData, PartialGlobalKv,
    TenantId, Timestamp,
};

/// The review state of an entry that readers see.
pub const APPROVED: &str = "approved";

/// The review state of a new entry.
pub const PENDING: &str = "pending";

/// The owner type of entries that staff made; only those have a price.
pub const STAFF: &str = "staff";

/// What names an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GlobalAddress {
    /// What kind of thing it is.
    pub scope: String,
    /// Its key.
    pub key: String,
    /// Its version.
    pub version: i32,
}

impl GlobalAddress {
    /// Where an entry is.
    pub fn of(entry: &PartialGlobalKv) -> Self {
        Self { scope: entry.scope.clone(), key: entry.key.clone(), version: entry.version }
    }

    fn check(&self) -> Result<(), DbError> {
        check_global_key(&self.key)?;
        check_global_scope(&self.scope)
    }
}

/// An entry as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalEntry {
    /// Everything but the data.
    pub partial: PartialGlobalKv,
    /// The data.
    pub data: EncodedJson,
}

impl GlobalEntry {
    /// What it takes of its owner's quota.
    pub fn charge(&self) -> u64 {
        self.bytes() as u64
    }

    /// About how many bytes it has.
    pub(super) fn bytes(&self) -> usize {
        let PartialGlobalKv { key, short, public_metadata, scope, long, .. } = &self.partial;
        let texts = key.len() + short.len() + scope.len() + long.as_ref().map_or(0, String::len);
        texts + public_metadata.as_bytes().len() + self.data.as_bytes().len()
    }

    /// The tenant that made it; none if staff did.
    pub(super) fn owner(&self) -> Option<TenantId> {
        TenantId::from_parts(&self.partial.owner_type, &self.partial.owner_id).ok()
    }
}

/// Which entries a reader finds, or staff looks at.
#[derive(Debug, Clone)]
pub struct GlobalFilter {
    /// Only those in this review state.
    pub review_state: Option<String>,
    /// Only those of this scope.
    pub scope: Option<String>,
    /// Only those whose key matches.
    pub pattern: Pattern,
}

impl GlobalFilter {
    /// A filter; a pattern that is not given matches every key.
    ///
    /// # Errors
    /// `Refused` by a rule.
    pub fn new(
        review_state: Option<String>,
        scope: Option<String>,
        pattern: Option<&str>,
    ) -> Result<Self, DbError> {
        without_nul(review_state.as_deref().unwrap_or_default(), "a review state")?;
        check_global_scope(scope.as_deref().unwrap_or_default())?;
        Ok(Self { review_state, scope, pattern: check_pattern(pattern.unwrap_or("%"))? })
    }

    /// Whether it lets an entry through.
    pub(super) fn lets_through(&self, entry: &PartialGlobalKv) -> bool {
        self.review_state.as_ref().is_none_or(|state| *state == entry.review_state)
            && self.scope.as_ref().is_none_or(|scope| *scope == entry.scope)
            && self.pattern.matches(&entry.key)
    }
}

/// What staff changes about an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GlobalChange {
    /// Its review state.
    Review(String),
    /// Its price, or that it has none.
    Price(Option<i64>),
}

fn check_global_key(key: &str) -> Result<(), DbError> {
    let is_long_enough = (GLOBAL_KV_KEY_MIN_BYTES..=GLOBAL_KV_KEY_MAX_BYTES).contains(&key.len());
    let has_only_allowed =
        key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_long_enough && has_only_allowed && !key.starts_with('.') && !key.ends_with('.') {
        return Ok(());
    }
    Err(refused(format!(
        "a global key has {GLOBAL_KV_KEY_MIN_BYTES} to {GLOBAL_KV_KEY_MAX_BYTES} of the characters A-Z a-z 0-9 . _ -, and \
         no dot at either end"
    )))
}

fn check_global_scope(scope: &str) -> Result<(), DbError> {
    if scope.len() > KV_SCOPE_MAX_BYTES {
        return Err(refused(format!("a scope has at most {KV_SCOPE_MAX_BYTES} bytes")));
    }
    without_nul(scope, "a scope")
}

/// Checks a new entry and gives the form in which it is stored.
fn check_entry(
    entry: CreateGlobalKv,
    owner_type: &str,
    owner_id: &str,
    now: Timestamp,
) -> Result<GlobalEntry, DbError> {
    check_global_key(&entry.key)?;
    check_global_scope(&entry.scope)?;
    without_nul(&entry.short, "the short text")?;
    without_nul(entry.long.as_deref().unwrap_or_default(), "the long text")?;
    let checked = GlobalEntry {
        partial: PartialGlobalKv {
            key: entry.key,
            version: entry.version,
            owner_id: owner_id.to_owned(),
            owner_type: owner_type.to_owned(),
            price: None,
            short: entry.short,
            public_metadata: check_json(&entry.public_metadata, GLOBAL_KV_ENTRY_MAX_BYTES)?,
            scope: entry.scope,
            created_at: now,
            last_updated_at: now,
            public_data: entry.public_data,
            review_state: PENDING.to_owned(),
            long: entry.long,
        },
        data: check_json(&entry.data, GLOBAL_KV_ENTRY_MAX_BYTES)?,
    };
    if checked.charge() > GLOBAL_KV_ENTRY_MAX_BYTES as u64 {
        return Err(refused(format!("an entry has at most {GLOBAL_KV_ENTRY_MAX_BYTES} bytes")));
    }
    Ok(checked)
}

fn check_entry_of(
    entry: CreateGlobalKv,
    owner: TenantId,
    now: Timestamp,
) -> Result<GlobalEntry, DbError> {
    check_entry(entry, owner.kind().as_str(), &owner.snowflake().to_string(), now)
}

/// Checks what a tenant asks of its own entries, as far as that does not depend on what is stored.
///
/// # Errors
/// `Refused` by a rule.
pub fn check_op(op: &GlobalKeyValueOp, tenant: TenantId) -> Result<(), DbError> {
    match op {
        GlobalKeyValueOp::Create { entry } => {
            check_entry_of(entry.clone(), tenant, Timestamp::EPOCH).map(drop)
        }
        GlobalKeyValueOp::Delete { key, scope, .. } => {
            check_global_key(key)?;
            check_global_scope(scope)
        }
    }
}

impl DbState {
    /// The approved entries of a scope whose key matches, ordered by key, then version, without
    /// their long texts.
    ///
    /// # Errors
    /// `Refused` by a rule or because too many match; else see [`super::Store`].
    pub fn global_find(&self, query: &str, scope: &str) -> Result<Vec<PartialGlobalKv>, DbError> {
        check_global_scope(scope)?;
        let (review_state, scope) = (Some(APPROVED.to_owned()), Some(scope.to_owned()));
        let filter = GlobalFilter { review_state, scope, pattern: check_pattern(query)? };
        self.store()
            .ask(Operation::GlobalFind, |store| store.global_find(&filter, FindLimits::default()))
    }

    /// One approved entry, as this reader may see it.
    ///
    /// # Errors
    /// `Refused` by a rule; else see [`super::Store`].
    pub fn global_get(
        &self,
        reader: Option<TenantId>,
        at: &GlobalAddress,
    ) -> Result<Option<GlobalKv>, DbError> {
        at.check()?;
        let Some(entry) = self.store().ask(Operation::GlobalGet, |store| store.global_get(at))?
        else {
            return Ok(None);
        };
        if !is_seen(&entry.partial) {
            return Ok(None);
        }
        let is_priced = entry.partial.price.is_some();
        let is_paid = match reader {
            Some(tenant) if is_priced => self
                .store()
                .ask(Operation::GlobalIsPurchased, |store| store.global_is_purchased(tenant, at))?,
            _ => !is_priced,
        };
        let data = if is_paid {
            GlobalKvData::Value {
                data: entry.data,
                opaque: is_priced || !entry.partial.public_data,
            }
        } else {
            GlobalKvData::PurchaseRequired { purchase_url: self.purchase_url(at) }
        };
        Ok(Some(GlobalKv { partial: entry.partial, data }))
    }

    /// Publishes or deletes an entry of the tenant's own.
    ///
    /// # Errors
    /// `Refused` by a rule or the quota; `Conflict`: it exists; `NotFound`: it does not;
    /// `Forbidden`: it is another's; else see [`super::Store`].
    pub fn global(&self, tenant: TenantId, op: GlobalKeyValueOp) -> Result<(), DbError> {
        match op {
            GlobalKeyValueOp::Create { entry } => {
                self.create(check_entry_of(entry, tenant, self.now())?)
            }
            GlobalKeyValueOp::Delete { key, version, scope } => {
                let at = GlobalAddress { scope, key, version };
                at.check()?;
                self.shop_changed(
                    self.store().ask(Operation::GlobalDelete, |store| {
                        store.global_delete(at, Some(tenant))
                    }),
                )
            }
        }
    }

    /// For staff: publishes an entry of the staff's own, which may have a price.
    ///
    /// # Errors
    /// `Refused` by a rule or the quota; `Conflict`: it exists; else see [`super::Store`].
    pub fn add_staff_entry(&self, owner_id: &str, entry: CreateGlobalKv) -> Result<(), DbError> {
        without_nul(owner_id, "an owner's id")?;
        let entry = check_entry(entry, STAFF, owner_id, self.now())?;
        self.create(entry)
    }

    fn create(&self, entry: GlobalEntry) -> Result<(), DbError> {
        let quota =
            super::Quota { records: GLOBAL_KV_OWNED_MAX, bytes: self.options().quota.bytes };
        self.shop_changed(
            self.store().ask(Operation::GlobalCreate, |store| store.global_create(entry, quota)),
        )
    }

    /// For staff: changes an entry's review state or price.
    ///
    /// # Errors
    /// `Refused` by a rule; `NotFound`; else see [`super::Store`].
    pub fn global_change(&self, at: GlobalAddress, change: GlobalChange) -> Result<(), DbError> {
        at.check()?;
        match &change {
            GlobalChange::Review(state)
                if state.is_empty() || state.len() > GLOBAL_KV_REVIEW_MAX_BYTES =>
            {
                return Err(refused(format!(
                    "a review state has 1 to {GLOBAL_KV_REVIEW_MAX_BYTES} bytes"
                )));
            }
            GlobalChange::Review(state) => without_nul(state, "a review state")?,
            GlobalChange::Price(Some(price)) if *price < 0 => {
                return Err(refused("a price is not negative"));
            }
            GlobalChange::Price(_) => {}
        }
        self.shop_changed(
            self.store()
                .ask(Operation::GlobalChange, |store| store.global_change(at, change, self.now())),
        )
    }

    /// For staff: the entries that a filter lets through, without their long texts.
    ///
    /// # Errors
    /// `Refused` because there are too many; else see [`super::Store`].
    pub fn global_list(&self, filter: &GlobalFilter) -> Result<Vec<PartialGlobalKv>, DbError> {
        self.store()
            .ask(Operation::GlobalList, |store| store.global_find(filter, FindLimits::default()))
    }

    /// For staff: one entry whole, in any review state and at any price.
    ///
    /// # Errors
    /// `Refused` by a rule; else see [`super::Store`].
    pub fn global_entry(&self, at: &GlobalAddress) -> Result<Option<GlobalEntry>, DbError> {
        at.check()?;
        self.store().ask(Operation::GlobalGet, |store| store.global_get(at))
    }

    /// For staff: deletes an entry of any owner. Purchases of it stay.
    ///
    /// # Errors
    /// `Refused` by a rule; `NotFound`; else see [`super::Store`].
    pub fn global_remove(&self, at: GlobalAddress) -> Result<(), DbError> {
        at.check()?;
        self.shop_changed(
            self.store().ask(Operation::GlobalDelete, |store| store.global_delete(at, None)),
        )
    }

    /// For staff: lets a tenant read a priced entry from now on. A second purchase changes nothing.
    ///
    /// # Errors
    /// `NotFound`: there is no such entry; else see [`super::Store`].
    pub fn global_purchase(&self, tenant: TenantId, at: GlobalAddress) -> Result<(), DbError> {
        at.check()?;
        self.store()
            .ask(Operation::GlobalPurchase, |store| store.global_purchase(tenant, at, self.now()))
    }

    /// Where to buy an entry: the operator's URL with the entry's name in it.
    fn purchase_url(&self, at: &GlobalAddress) -> String {
        let Some(url) = &self.options().purchase_url else { return String::new() };
        url.replace("{scope}", &percent_encoded(&at.scope))
            .replace("{key}", &percent_encoded(&at.key))
            .replace("{version}", &at.version.to_string())
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// What a store answers when an entry is there already.
pub(super) fn exists() -> DbError {
    DbError::Conflict("an entry with this key, version and scope exists already".to_owned())
}

/// What a store answers when there is no such entry.
pub(super) fn not_found() -> DbError {
    DbError::NotFound("there is no entry with this key, version and scope".to_owned())
}

/// Checks that an entry is the tenant's own; without a tenant it is the staff that asks.
pub(super) fn check_owner(
    entry: &PartialGlobalKv,
    tenant: Option<TenantId>,
) -> Result<(), DbError> {
    let Some(tenant) = tenant else { return Ok(()) };
    if entry.owner_type == tenant.kind().as_str()
        && entry.owner_id == tenant.snowflake().to_string()
    {
        return Ok(());
    }
    Err(DbError::Forbidden("the entry belongs to somebody else".to_owned()))
}

/// Whether readers see an entry.
pub(super) fn is_seen(entry: &PartialGlobalKv) -> bool {
    entry.review_state == APPROVED
}

/// Carries a staff's change out on an entry.
pub(super) fn change(
    entry: &mut PartialGlobalKv,
    change: GlobalChange,
    now: Timestamp,
) -> Result<(), DbError> {
    match change {
        GlobalChange::Review(state) => entry.review_state = state,
        GlobalChange::Price(Some(_)) if entry.owner_type != STAFF => {
            return Err(refused("only an entry of the staff has a price"));
        }
        GlobalChange::Price(price) => entry.price = price,
    }
    entry.last_updated_at = super::touched(Some(entry.last_updated_at), now);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn global_keys_have_3_to_64_characters_and_no_outer_dot() {
        for key in ["abc", "a.b", "A-Z_09", &"k".repeat(64), "-_-"] {
            assert_eq!(check_global_key(key), Ok(()), "{key}");
        }
        for key in ["", "ab", ".ab", "ab.", "a b", "a/b", "äbc", "a\0b", &"k".repeat(65)] {
            assert!(matches!(check_global_key(key), Err(DbError::Refused(_))), "{key}");
        }
    }

    #[test]
    fn a_url_takes_names_only_encoded() {
        assert_eq!(percent_encoded("a/b c?é~"), "a%2Fb%20c%3F%C3%A9~");
    }
}
