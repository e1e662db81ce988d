//! The internal API's configuration for the commands that serve it: its secret and the sources it
//! answers. And the check of all that such a command is configured with.

use crate::api::token::{Secret, mint};
use crate::api::{ApiConfig, Cidr};
use crate::master::Master;
use crate::master::config::{ConfigError, PoolConfig};

use super::args::{Args, ValueSource};
use super::look::SecretState;
use crate::cli::CliError;
use crate::cli::commands::luau::check_templates;
use crate::cli::commands::token::{SECRET_VARIABLE, secret_from_environment};
use crate::cli::console::output;

/// An expiry that a master does not live to see: the year 9999.
const FOR_EVER: u64 = 253_370_764_800;

/// The configuration of the internal API; `None` if it is off.
///
/// # Errors
/// The secret is too short, or a trusted source is no network.
pub(in crate::cli) fn api_config(
    args: &Args,
    config: &PoolConfig,
) -> Result<Option<ApiConfig>, CliError> {
    if config.api.is_none() {
        return Ok(None);
    }
    let secret = match secret_from_environment()? {
        Some(secret) => secret,
        None => {
            check_secret_of(config)?;
            fresh_secret()
        }
    };
    let mut api = ApiConfig::new(secret);
    api.default_deadline = config.deadline;
    api.default_events = config.default_events.iter().cloned().collect();
    api.trusted_sources = networks(args, "trusted-source")?;
    api.caller_rate = config.caller_rate;
    api.peer_sources = networks(args, "peer-source")?;
    Ok(Some(api))
}

/// Without one of their own choosing, masters would not know each other's callers.
fn check_secret_of(config: &PoolConfig) -> Result<(), CliError> {
    if config.cluster.cluster.is_none() {
        return Ok(());
    }
    Err(CliError::config(format!(
        "--cluster: set {SECRET_VARIABLE}; all masters of a cluster have the same"
    )))
}

fn networks(args: &Args, option: &str) -> Result<Vec<Cidr>, CliError> {
    let parse = |(text, source): (&str, &ValueSource)| {
        text.parse().map_err(|error| {
            let message = format!("{} {text}: {error}", source.named(option));
            ConfigError { message, is_usage: *source == ValueSource::Flag }.into()
        })
    };
    args.given(option).map(parse).collect()
}

/// What becomes of the API's secret.
pub(in crate::cli) fn api_secret(config: &PoolConfig) -> SecretState {
    let if_unset = if config.api.is_some() { "made at start" } else { "not needed" };
    SecretState { variable: SECRET_VARIABLE, if_unset }
}

/// Checks of a pool what a start would, without starting anything.
///
/// # Errors
/// As the start's: a file, a URL, a secret that cannot be used.
pub(in crate::cli) fn check_pool(args: &Args, config: &PoolConfig) -> Result<(), CliError> {
    networks(args, "trusted-source")?;
    networks(args, "peer-source")?;
    if config.api.is_some() && secret_from_environment()?.is_none() {
        check_secret_of(config)?;
    }
    Master::check(config)?;
    check_templates(config.runtime.templates.as_deref())
}

/// A secret for this master's lifetime, with a token for user 0 that is printed once
/// (docs/operations.md).
fn fresh_secret() -> Secret {
    let secret = Secret::random();
    let token = mint(&secret, 0, FOR_EVER);
    output::tell(&format!(
        "no MESOPHYLL_API_SECRET: this token is good for user 0 until the master stops: {token}"
    ));
    secret
}
