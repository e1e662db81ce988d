//! Which names of host processes a tenant may call, as its record says.

use super::DbState;
use crate::base::error::DbError;
use crate::wire::data::{
    EncodedValue, HOST_RULES_KEY, HOST_RULES_SCOPE, KeyValueOp, KhronosValue, Scopes, TenantId,
};
use crate::wire::pack::value;

impl DbState {
    /// Whether a tenant may call this name of a host process.
    ///
    /// # Blocks
    /// As a reading of a [`super::Store`].
    ///
    /// # Errors
    /// See [`super::Store`].
    pub fn allows_host(&self, tenant: TenantId, name: &str) -> Result<bool, DbError> {
        let (scopes, key) = (Scopes::new([HOST_RULES_SCOPE]), HOST_RULES_KEY.to_owned());
        let record = self.kv(tenant, KeyValueOp::Get { scopes, key })?.into_record()?;
        Ok(record.is_some_and(|record| names(&record.value, name)))
    }
}

/// Whether a value is a list of texts with this one.
fn names(value: &EncodedValue, name: &str) -> bool {
    match value::decode(value) {
        Ok(KhronosValue::List(texts)) => {
            texts.iter().any(|text| matches!(text, KhronosValue::Text(text) if text == name))
        }
        _ => false,
    }
}
