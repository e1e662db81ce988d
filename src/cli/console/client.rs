//! What the commands that talk to a running master share: its address, their token, one HTTP
//! exchange.

use std::io::Read;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::unversioned::resolver::DefaultResolver;

use crate::base::limits::CLIENT_REPLY_MAX_BYTES;
use crate::master::config;
use crate::net::https;

use crate::cli::CliError;
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::words::without_bom;

/// The options of every command that talks to a running master.
pub(in crate::cli) const CLIENT: &[OptionSpec] = &[
    OptionSpec::value("api", "ADDR", "the master's internal API (default: 127.0.0.1:7451)")
        .with_variable("MESOPHYLL_MASTER_API"),
    OptionSpec::value("tls-ca", "FILE", "authority of the API's certificate, for tls:HOST:PORT"),
    OptionSpec::value(
        "token-file",
        "FILE",
        "file with the token (default: MESOPHYLL_INTERNAL_TOKEN)",
    ),
];

/// The variable with the token, where there is no `--token-file`.
pub(in crate::cli) const TOKEN_VARIABLE: &str = "MESOPHYLL_INTERNAL_TOKEN";

/// On top of a request's own deadline: for connecting and for the bytes to travel.
const TRAVEL_TIME: Duration = Duration::from_secs(5);

/// How long the master may take for what waits for no tenant: longer than its store does.
pub(in crate::cli) const DATA_DEADLINE: Duration = Duration::from_secs(25);

/// A running master, as a client of its internal API.
pub(in crate::cli) struct ApiClient {
    agent: ureq::Agent,
    base: String,
    /// The address as an option names it.
    shown: String,
    authorization: String,
}

/// An answer of the internal API.
pub(in crate::cli) struct ApiAnswer {
    pub(in crate::cli) status: u16,
    /// The answer says that the tenant is not subscribed to the event.
    pub(in crate::cli) is_unsubscribed: bool,
    pub(in crate::cli) body: String,
}

impl ApiAnswer {
    /// The body of a success.
    ///
    /// # Errors
    /// The API's own error line, as a command's.
    pub(in crate::cli) fn success(self) -> Result<String, CliError> {
        match self.status {
            200..=299 => Ok(self.body),
            status => Err(refused(status, &self.body)),
        }
    }
}

impl ApiClient {
    /// A client from the command's options; `deadline` is that of the requests it is made for.
    pub(in crate::cli) fn new(args: &Args, deadline: Duration) -> Result<Self, CliError> {
        let (api, tls) = config::tls::api_of_client(args, "127.0.0.1:7451")?;
        let shown = format!("{}{api}", if tls.is_some() { "tls:" } else { "http://" });
        let tls = tls.map(|tls| tls.read()).transpose();
        let tls = tls.map_err(|error| CliError::config(format!("--tls-ca: {error}")))?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_connect(Some(TRAVEL_TIME))
            .timeout_global(Some(deadline + TRAVEL_TIME))
            .build();
        let (base, authorization) = (format!("http://{api}"), format!("Internal {}", token(args)?));
        let agent = https::agent(config, tls, DefaultResolver::default());
        Ok(Self { agent, base, shown, authorization })
    }

    /// Gets what is there.
    ///
    /// # Blocks
    /// Until the answer, or the deadline given at the making.
    ///
    /// # Errors
    /// There is no answer.
    pub(in crate::cli) fn get(&self, path: &str) -> Result<ApiAnswer, CliError> {
        self.read(self.look(path)?)
    }

    /// Posts a JSON body; blocks and errors as [`ApiClient::get`].
    pub(in crate::cli) fn post(&self, path: &str, body: &str) -> Result<ApiAnswer, CliError> {
        self.send(self.agent.post(self.url(path)), body)
    }

    /// Puts a JSON body; blocks and errors as [`ApiClient::get`].
    pub(in crate::cli) fn put(&self, path: &str, body: &str) -> Result<ApiAnswer, CliError> {
        self.send(self.agent.put(self.url(path)), body)
    }

    /// Posts without a body; blocks and errors as [`ApiClient::get`].
    pub(in crate::cli) fn post_nothing(&self, path: &str) -> Result<ApiAnswer, CliError> {
        self.post(path, "")
    }

    /// Deletes what is there; blocks and errors as [`ApiClient::get`].
    pub(in crate::cli) fn delete(&self, path: &str) -> Result<ApiAnswer, CliError> {
        let request = self.agent.delete(self.url(path));
        let request = request.header("Authorization", &self.authorization);
        self.read(request.call().map_err(|error| self.unreachable(&error))?)
    }

    /// A body of any length, to be read piece by piece.
    ///
    /// # Blocks
    /// Until the answer begins; its reader until the deadline given at the making.
    ///
    /// # Errors
    /// There is no answer, or the API refuses.
    pub(in crate::cli) fn download(&self, path: &str) -> Result<impl Read + use<>, CliError> {
        self.stream(self.look(path)?)
    }

    /// As [`ApiClient::download`], of events behind the one with this id, if it is not empty.
    pub(in crate::cli) fn follow(
        &self,
        path: &str,
        last_id: &str,
    ) -> Result<impl Read + use<>, CliError> {
        let request = self.agent.get(self.url(path)).header("Authorization", &self.authorization);
        let request = request.header("Last-Event-ID", last_id);
        self.stream(request.call().map_err(|error| self.unreachable(&error))?)
    }

    fn stream(
        &self,
        response: ureq::http::Response<ureq::Body>,
    ) -> Result<impl Read + use<>, CliError> {
        if response.status().as_u16() == 200 {
            return Ok(response.into_body().into_reader());
        }
        Err(match self.read(response)?.success() {
            Err(refused) => refused,
            Ok(_) => CliError::failed("the answer is not what was asked for"),
        })
    }

    fn look(&self, path: &str) -> Result<ureq::http::Response<ureq::Body>, CliError> {
        let request = self.agent.get(self.url(path)).header("Authorization", &self.authorization);
        request.call().map_err(|error| self.unreachable(&error))
    }

    fn send(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithBody>,
        body: &str,
    ) -> Result<ApiAnswer, CliError> {
        let request =
            request.header("Authorization", &self.authorization).content_type("application/json");
        self.read(request.send(body).map_err(|error| self.unreachable(&error))?)
    }

    fn read(&self, mut response: ureq::http::Response<ureq::Body>) -> Result<ApiAnswer, CliError> {
        let status = response.status().as_u16();
        let is_unsubscribed =
            response.headers().get("Mesophyll-Subscribed").is_some_and(|value| value == "false");
        let body = response.body_mut().with_config().limit(CLIENT_REPLY_MAX_BYTES).read_to_string();
        Ok(ApiAnswer {
            status,
            is_unsubscribed,
            body: body.map_err(|error| self.unreachable(&error))?,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn unreachable(&self, error: &ureq::Error) -> CliError {
        let shown = &self.shown;
        CliError::failed(format!(
            "no answer from {shown}: {error}; is a master running there? --api says where"
        ))
        .passing()
    }
}

/// The API's own error line, as a command's, with what to do about it where that is not plain.
fn refused(status: u16, body: &str) -> CliError {
    let error: Value = serde_json::from_str(body).unwrap_or_else(|_| json!({}));
    let code = error["code"].as_str().unwrap_or("?");
    let message =
        error["message"].as_str().unwrap_or("no message; is that the internal API of a master?");
    // How far a script came that failed, its error says.
    let sent = if error["sent"].as_bool() == Some(true) && code != "ScriptError" {
        " (it may have been done all the same)"
    } else {
        ""
    };
    let text = format!("{code} ({status}): {message}{sent}");
    match code {
        "NoAuthToken" | "InvalidToken" => CliError::failed(format!(
            "{text}; mesophyll token --user ID mints one, with the master's MESOPHYLL_API_SECRET"
        )),
        "Banned" => CliError::failed(format!("{text}; mesophyll tenant unban TENANT lifts it")),
        "Quarantined" => CliError::failed(format!(
            "{text}; mesophyll quarantine list says why, lift TENANT lifts it"
        )),
        "NoWorker" => CliError::failed(format!("{text}; mesophyll workers shows them")).passing(),
        "Busy" => CliError::failed(format!("{text}; try again")).passing(),
        "Unavailable" => CliError::failed(format!("{text}; the master's log says more")).passing(),
        _ => CliError::failed(text),
    }
}

/// What an answer of the API says, in the form that it should have.
///
/// # Errors
/// It has another one.
pub(in crate::cli) fn understood<T: DeserializeOwned>(answer: &str) -> Result<T, CliError> {
    serde_json::from_str(answer).map_err(|_| not_understood())
}

pub(in crate::cli) fn not_understood() -> CliError {
    CliError::failed("the answer is not understood; is the master of another version?")
}

fn token(args: &Args) -> Result<String, CliError> {
    let text = match args.get("token-file") {
        Some((path, _)) => {
            std::fs::read_to_string(path).map_err(|error| CliError::config(format!("--token-file {path}: {error}")))?
        }
        None => std::env::var_os(TOKEN_VARIABLE)
            .ok_or_else(|| {
                CliError::config(format!(
                    "no token: set {TOKEN_VARIABLE} or give --token-file (mesophyll token makes one)"
                ))
            })?
            .into_string()
            // Not shown, as it may be most of one.
            .map_err(|_| CliError::config(format!("{TOKEN_VARIABLE} is not UTF-8 text")))?,
    };
    let token = without_bom(&text).trim();
    if token.is_empty() || token.contains(|char: char| char.is_whitespace() || char.is_control()) {
        // It would be a header that cannot be sent, in an error that shows it.
        return Err(CliError::config("that is no token: mesophyll token makes one"));
    }
    Ok(token.to_owned())
}
