//! What the commands that talk to a running master share: its address, their token, one HTTP exchange.

use std::time::Duration;

use crate::limits::API_BODY_MAX_BYTES;

use super::CliError;
use super::args::{Args, OptionSpec};

/// The options of every command that talks to a running master.
pub(super) const CLIENT: &[OptionSpec] = &[
    OptionSpec::value("api", "ADDR", "the master's internal API (default: 127.0.0.1:7451)"),
    OptionSpec::value("token-file", "FILE", "file with the token (default: MESOPHYLL_INTERNAL_TOKEN)"),
];

const TOKEN_VARIABLE: &str = "MESOPHYLL_INTERNAL_TOKEN";

/// On top of a request's own deadline: for connecting and for the bytes to travel.
const TRAVEL_TIME: Duration = Duration::from_secs(5);

/// A running master, as a client of its internal API.
pub(super) struct ApiClient {
    agent: ureq::Agent,
    base: String,
    token: String,
}

/// An answer of the internal API.
pub(super) struct ApiAnswer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl ApiClient {
    /// A client from the command's options; `deadline` is that of the one request it is made for.
    pub(super) fn new(args: &Args, deadline: Duration) -> Result<Self, CliError> {
        let api = args.get("api").map_or("127.0.0.1:7451", |(api, _)| api);
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_connect(Some(TRAVEL_TIME))
            .timeout_global(Some(deadline + TRAVEL_TIME))
            .build();
        Ok(Self { agent: config.into(), base: format!("http://{api}"), token: token(args)? })
    }

    /// The user whose token it is: the part before the first dot.
    pub(super) fn user(&self) -> Option<&str> {
        self.token.split_once('.').map(|(user, _)| user)
    }

    /// Posts a JSON body.
    ///
    /// # Blocks
    /// Until the answer, or the deadline given at the making.
    ///
    /// # Errors
    /// Nobody answers there.
    pub(super) fn post(&self, path: &str, body: &str) -> Result<ApiAnswer, CliError> {
        let unreachable = |error: ureq::Error| {
            CliError::failed(format!(
                "no answer from {}: {error}; is a master running there? --api says where",
                self.base
            ))
        };
        let response = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("Authorization", format!("Internal {}", self.token))
            .content_type("application/json")
            .send(body);
        let mut response = response.map_err(unreachable)?;
        let status = response.status().as_u16();
        // The largest answer is a message of the largest size, written as JSON.
        let limit = u64::try_from(API_BODY_MAX_BYTES).unwrap_or(u64::MAX);
        let body = response.body_mut().with_config().limit(limit).read_to_string().map_err(unreachable)?;
        Ok(ApiAnswer { status, body })
    }
}

fn token(args: &Args) -> Result<String, CliError> {
    let text = match args.get("token-file") {
        Some((path, _)) => {
            std::fs::read_to_string(path).map_err(|error| CliError::config(format!("--token-file {path}: {error}")))?
        }
        None => std::env::var(TOKEN_VARIABLE).map_err(|_| {
            CliError::config(format!("no token: set {TOKEN_VARIABLE} or give --token-file (mesophyll token makes one)"))
        })?,
    };
    Ok(text.trim().to_owned())
}
