//! Sends a request to another master, once, and says what came of it.
//!
//! The rules are those of a worker's link: what did not leave may go elsewhere; what may have left
//! and was not answered has an unknown outcome. Runs on the connection's thread that has the
//! request; [`Forwarder::close`] frees those that wait.

use std::io::ErrorKind;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::http::Request;
use ureq::http::request::Builder;
use ureq::{Agent, Error, Timeout};

use super::hop::{ForwardedRequest, HOP, PEER, REFUSED};
use crate::api::admission::Permit;
use crate::api::dispatch::SUBSCRIBED;
use crate::api::token::Secret;
use crate::api::{Call, request_id};
use crate::base::labels::{OutcomeCounters, labels};
use crate::base::limits::{
    CLIENT_REPLY_MAX_BYTES, FORWARD_ADDRESS_AGE, FORWARD_CONNECT_TIMEOUT, FORWARD_IDLE_AGE,
    FORWARD_IDLE_CONNECTIONS, KV_FIND_MAX_BYTES,
};
use crate::base::random;
use crate::base::throttle::Throttle;
use crate::net::https;
use crate::net::lookup::Lookup;
use crate::net::stream::tls::TlsClient;

labels! {
    /// How an attempt to have another master answer ended.
    ForwardOutcome {
        /// It answered, be it an error.
        Answered = "answered",
        /// It does not have the tenant either.
        NotOwner = "not_owner",
        /// It could not be reached.
        NotSent = "not_sent",
        /// It does not take this master for one of its cluster.
        Refused = "refused",
        /// It answered, and there was no room for its answer.
        NoRoom = "no_room",
        /// It did not answer, and may have done it.
        Unknown = "outcome_unknown",
    }
}

/// The way to the other masters.
#[derive(Debug)]
pub(in crate::api) struct Forwarder {
    agent: Agent,
    /// For the log.
    pub(super) refusals: Throttle,
    ended: OutcomeCounters<ForwardOutcome>,
}

/// What a request needs besides what is signed.
pub(super) struct ForwardHeaders<'h> {
    pub(super) authorization: &'h str,
    pub(super) request_id: &'h str,
}

impl<'h> ForwardHeaders<'h> {
    /// Those of a caller's request, as which another master is asked.
    pub(super) fn of(call: &'h Call<'_>) -> Self {
        let authorization = call.head.header("authorization").unwrap_or_default();
        Self { authorization, request_id: call.id.as_str() }
    }
}

/// Another master's answer.
pub(in crate::api) struct PeerAnswer {
    pub(in crate::api) status: u16,
    pub(super) is_json: bool,
    /// Those of its headers that are passed on.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(in crate::api) body: Vec<u8>,
}

/// The headers of an answer that come from where the tenant is.
const PASSED_ON: [&str; 3] = [SUBSCRIBED, "Retry-After", super::MASTER];

impl Forwarder {
    pub(in crate::api) fn new(tls: Option<&TlsClient>) -> Self {
        Self {
            agent: peer_agent(tls),
            refusals: Throttle::default(),
            ended: OutcomeCounters::default(),
        }
    }

    /// Ends what is under way, and lets nothing begin.
    pub(in crate::api) fn close(&self) {
        self.agent.clone().shutdown();
    }

    /// How many attempts ended how.
    pub(in crate::api) fn outcomes(&self) -> &OutcomeCounters<ForwardOutcome> {
        &self.ended
    }

    /// Sends a request to the master whose API is there. Room for the answer is taken of `permit`.
    ///
    /// # Blocks
    /// Until the answer, or for `patience`.
    ///
    /// # Errors
    /// Any outcome but `Answered`.
    pub(super) fn send(
        &self,
        api: &str,
        request: &ForwardedRequest<'_>,
        headers: &ForwardHeaders<'_>,
        secret: &Secret,
        permit: &mut Permit,
        patience: Duration,
    ) -> Result<PeerAnswer, ForwardOutcome> {
        let answer = self.exchange(api, request, headers, secret, permit, patience);
        let outcome = answer.as_ref().err().copied().unwrap_or(ForwardOutcome::Answered);
        self.ended.add(outcome, 1);
        answer
    }

    fn exchange(
        &self,
        api: &str,
        request: &ForwardedRequest<'_>,
        headers: &ForwardHeaders<'_>,
        secret: &Secret,
        permit: &mut Permit,
        patience: Duration,
    ) -> Result<PeerAnswer, ForwardOutcome> {
        let builder = peer_request(api, request, headers, secret);
        let answer = if matches!(request.method, "GET" | "DELETE") {
            builder.body(()).map_err(Error::from).and_then(|get| self.run(get, patience))
        } else {
            let builder = builder.header("Content-Type", "application/json");
            builder
                .body(request.body)
                .map_err(Error::from)
                .and_then(|post| self.run(post, patience))
        };
        let mut answer = answer.map_err(|error| {
            log::debug!("no answer from the master at {api}: {error}");
            if was_not_sent(&error) { ForwardOutcome::NotSent } else { ForwardOutcome::Unknown }
        })?;
        let header = |name: &str| {
            answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let status = answer.status().as_u16();
        match status {
            421 => return Err(ForwardOutcome::NotOwner),
            // The token was good here.
            401 => return Err(ForwardOutcome::Refused),
            _ if header(PEER).is_some_and(|value| value == REFUSED) => {
                return Err(ForwardOutcome::Refused);
            }
            200..=299 | 400..=599 => {}
            // No master answers so.
            _ => return Err(ForwardOutcome::Unknown),
        }
        let passed_on = PASSED_ON.iter().filter_map(|name| Some((*name, header(name)?))).collect();
        let is_json = header("content-type").is_some();
        let length = answer.body().content_length();
        let length = length.unwrap_or(KV_FIND_MAX_BYTES as u64).min(CLIENT_REPLY_MAX_BYTES);
        // Smaller than any address space.
        let length = length as usize;
        permit.expect_answer(length).map_err(|_| ForwardOutcome::NoRoom)?;
        let body = answer.body_mut().with_config().limit(CLIENT_REPLY_MAX_BYTES).read_to_vec();
        let body = body.map_err(|_| ForwardOutcome::Unknown)?;
        permit.settle_answer(body.len());
        Ok(PeerAnswer { status, is_json, headers: passed_on, body })
    }

    fn run(
        &self,
        request: Request<impl ureq::AsSendBody>,
        patience: Duration,
    ) -> Result<ureq::http::Response<ureq::Body>, Error> {
        // Less than the whole, so that it is known that nothing was sent.
        let connect = FORWARD_CONNECT_TIMEOUT.min(patience / 2);
        let request = self.agent.configure_request(request);
        let request = request
            .timeout_global(Some(patience))
            .timeout_resolve(Some(connect))
            .timeout_connect(Some(connect))
            .build();
        self.agent.run(request)
    }
}

/// A request that proves that it comes from a master.
pub(super) fn peer_request(
    api: &str,
    request: &ForwardedRequest<'_>,
    headers: &ForwardHeaders<'_>,
    secret: &Secret,
) -> Builder {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A time of 64 bits lasts.
    let proof = request.sign(secret, now.as_millis() as u64, random::u64());
    Request::builder()
        .method(request.method)
        .uri(format!("http://{api}{}", request.target))
        .header("Authorization", headers.authorization)
        .header(request_id::HEADER, headers.request_id)
        .header(HOP, request.hop.to_string())
        .header(PEER, proof)
}

/// A client for other masters.
pub(super) fn peer_agent(tls: Option<&TlsClient>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        // Never through what HTTP_PROXY says.
        .proxy(None)
        .user_agent("")
        .accept("")
        .accept_encoding("")
        .max_idle_connections(4 * FORWARD_IDLE_CONNECTIONS)
        .max_idle_connections_per_host(FORWARD_IDLE_CONNECTIONS)
        .max_idle_age(FORWARD_IDLE_AGE)
        .build();
    https::agent(config, tls.cloned(), Lookup::new(FORWARD_ADDRESS_AGE))
}

/// Whether an error says that the other master has seen nothing of the request.
fn was_not_sent(error: &Error) -> bool {
    match error {
        Error::HostNotFound
        | Error::ConnectionFailed
        | Error::BadUri(_)
        | Error::Http(_)
        | Error::Timeout(Timeout::Resolve | Timeout::Connect) => true,
        Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::AddrNotAvailable
                | ErrorKind::NotConnected
        ),
        _ => false,
    }
}
