//! The internal API's configuration for the commands that serve it: its secret and whom it answers.

use crate::config::PoolConfig;
use crate::internal_api::ApiConfig;
use crate::internal_api::token::{Secret, mint};

use super::token::secret_from_environment;
use super::{CliError, output};

/// An expiry that a master does not live to see: the year 9999.
const FOR_EVER: u64 = 253_370_764_800;

/// The configuration of the internal API; `None` if it is off.
///
/// # Errors
/// The secret is too short, or a trusted source is no network.
pub(super) fn api_config(config: &PoolConfig) -> Result<Option<ApiConfig>, CliError> {
    if config.api.is_none() {
        return Ok(None);
    }
    let secret = match secret_from_environment()? {
        Some(secret) => secret,
        None => fresh_secret(),
    };
    let mut api = ApiConfig::new(secret);
    api.default_deadline = config.deadline;
    api.default_events = config.default_events.iter().cloned().collect();
    for source in &config.trusted_sources {
        let cidr = source.parse().map_err(|error| CliError::usage(format!("--trusted-source {source}: {error}")))?;
        api.trusted_sources.push(cidr);
    }
    Ok(Some(api))
}

/// A secret for this master's lifetime, with a token for user 0 that is printed once (interface.md).
fn fresh_secret() -> Secret {
    let secret = Secret::random();
    let token = mint(&secret, 0, FOR_EVER);
    output::tell(&format!("no MESOPHYLL_API_SECRET: this token is good for user 0 until the master stops: {token}"));
    secret
}
