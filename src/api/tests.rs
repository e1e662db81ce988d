//! The internal API over real sockets, in front of a stand-in for the pool: every gate, every
//! refusal.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::metrics::Figures;
use super::openapi::errors;
use super::token::{Secret, mint, mint_acting};
use super::waits::Waits;
use super::{Api, ApiCluster, ApiConfig, InternalApi, ROUTES, Readiness};
use crate::base::error::DispatchError;
use crate::base::limits::{API_BODY_MAX_BYTES, MESSAGE_MAX_BYTES};
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Answer as JobAnswer, Cancelled, Job, Refused, Request, RequestId};
use crate::feeds::Feeds;
use crate::net::http::router::{Found, find};
use crate::net::http::tests::client::{Answer, Client, PATIENCE};
use crate::net::http::{Body, Handler, HttpLimits, Method, RequestHead, ResponseBody};
use crate::pool::{Broadcasts, Hosts, Messages, Operator, Quarantine};
use crate::store::memory::MemoryStore;
use crate::store::{DbOptions, DbState};
use crate::wire::data::{CreateEvent, EventData, KhronosValue, TenantId};
use crate::wire::json;
use crate::wire::pack::value;

mod cluster;
mod data;
mod events;
mod load;
mod messages;
mod page;
mod service;

/// What reached the pool.
type Seen = (TenantId, CreateEvent);

/// Answers an event as its name says; `WAIT` is answered when the test says so, `NEVER` not at all.
struct StandIn {
    seen_tx: Sender<Seen>,
    waiting: Mutex<Vec<JobAnswer>>,
    cancelled_tx: Sender<RequestId>,
    last_request_id: Mutex<Option<RequestId>>,
    last_job: Mutex<Option<Job>>,
}

fn failure(name: &str) -> Option<DispatchError> {
    let text = "as asked".to_owned();
    Some(match name {
        "SCRIPT" => DispatchError::Script(text),
        "BUSY" => DispatchError::Busy(text),
        "NO_WORKER" => DispatchError::NoWorker(text),
        "NOT_SENT" => DispatchError::NotSent(text),
        "OUTCOME_UNKNOWN" => DispatchError::OutcomeUnknown(text),
        "BANNED" => DispatchError::Banned,
        "QUARANTINED" => DispatchError::Quarantined,
        "TOO_LARGE" => DispatchError::TooLarge { bytes: 2, limit: 1 },
        "BAD_INPUT" => DispatchError::BadInput(text),
        "DEADLINE" => DispatchError::Deadline { sent: false },
        _ => return None,
    })
}

impl WorkerLike for StandIn {
    fn id(&self) -> usize {
        0
    }

    fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
        let Request { tenant, id, ref job, ref answer, .. } = request;
        let event = match job.clone() {
            Job::Dispatch(event) | Job::RunScript { event, .. } => event,
            Job::DropTenant => {
                let name = match tenant {
                    TenantId::User(404) => "NO_WORKER",
                    TenantId::User(429) => "BUSY",
                    TenantId::User(504) => "DEADLINE",
                    _ => "DROP",
                };
                CreateEvent {
                    name: name.to_owned(),
                    author: None,
                    data: EventData::RawValue(String::new()),
                }
            }
        };
        if answer.is_awaited() {
            *self.last_job.lock().expect("a lock") = Some(job.clone());
            *self.last_request_id.lock().expect("a lock") = Some(id);
        }
        let name = event.name.clone();
        self.seen_tx.send((tenant, event)).expect("the test looks");
        let failure = failure(&name);
        if let Some(error) = failure.clone().filter(|_| !answer.is_awaited()) {
            return Err(request.refused(error));
        }
        let mut answer = request.answer;
        match (name.as_str(), failure) {
            (_, Some(error)) => answer.send(Err(error)),
            ("WAIT" | "NEVER", _) => self.waiting.lock().expect("a lock").push(answer),
            ("VALUE", _) => {
                let pair = |key: &str, value| (KhronosValue::Text(key.to_owned()), value);
                let map = vec![
                    pair("n", KhronosValue::Integer(-1)),
                    pair("b", KhronosValue::Buffer(vec![1, 2])),
                ];
                answer.send(Ok(value::encode(&KhronosValue::Map(map))));
            }
            ("LARGE", _) => answer.send(Ok(value::encode(&KhronosValue::Text("x".repeat(50_000))))),
            (name, _) => {
                if name == "UNSUBSCRIBED" {
                    answer.mark_not_subscribed();
                }
                answer.send(Ok(value::encode(&KhronosValue::Null)));
            }
        }
        Ok(())
    }

    fn cancel(&self, _tenant: TenantId, request_id: RequestId) -> Cancelled {
        self.cancelled_tx.send(request_id).expect("the test looks");
        Cancelled::Sent
    }

    fn kill(&self) {}
}

struct States(
    Mutex<Vec<(usize, &'static str)>>,
    Operator,
    Option<ApiCluster>,
    Arc<Messages>,
    Arc<Feeds>,
    Broadcasts,
);

impl Readiness for States {
    fn workers(&self) -> Vec<(usize, &'static str)> {
        self.0.lock().expect("a lock").clone()
    }

    fn operator(&self) -> &Operator {
        &self.1
    }

    fn messages(&self) -> &Messages {
        &self.3
    }

    fn cluster(&self) -> Option<&ApiCluster> {
        self.2.as_ref()
    }

    fn broadcasts(&self) -> &Broadcasts {
        &self.5
    }

    fn feeds(&self) -> &Arc<Feeds> {
        &self.4
    }

    fn figures(&self) -> Figures {
        Figures::of_nobody()
    }
}

struct Fixture {
    api: InternalApi,
    pool: Arc<StandIn>,
    states: Arc<States>,
    db: Arc<DbState>,
    seen_rx: Receiver<Seen>,
    cancelled_rx: Receiver<RequestId>,
}

fn secret() -> Secret {
    Secret::new([b's'; 32]).expect("32 bytes")
}

fn token(user_id: u64, seconds_from_now: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    mint(&secret(), user_id, now.saturating_add_signed(seconds_from_now))
}

fn config() -> ApiConfig {
    let http =
        HttpLimits { body_timeout: PATIENCE, linger_timeout: PATIENCE, ..HttpLimits::default() };
    ApiConfig { default_deadline: PATIENCE, http, ..ApiConfig::new(secret()) }
}

fn stand_ins(
    cluster: Option<ApiCluster>,
    db: &Arc<DbState>,
) -> (Arc<StandIn>, Arc<States>, Receiver<Seen>, Receiver<RequestId>) {
    let (seen_tx, seen_rx) = unbounded();
    let (cancelled_tx, cancelled_rx) = unbounded();
    let (waiting, last_request_id, last_job) = Default::default();
    let pool = Arc::new(StandIn { seen_tx, waiting, cancelled_tx, last_request_id, last_job });
    let operator = Operator::new(Vec::new(), false, Arc::new(Quarantine::new(3)));
    let table = cluster.as_ref().map(|cluster| cluster.table.clone());
    let hosts = Hosts::new(db.clone(), Vec::new());
    let messages = Messages::new(pool.clone(), db.clone(), hosts, table);
    let workers = Mutex::new(vec![(0, "ready"), (1, "ready")]);
    let cast = Broadcasts::new(pool.clone(), db.clone(), Box::new(|_, _| Vec::new()));
    let states = Arc::new(States(workers, operator, cluster, messages, Arc::default(), cast));
    (pool, states, seen_rx, cancelled_rx)
}

fn serve(config: ApiConfig) -> Fixture {
    serve_in(None, config)
}

fn serve_in(cluster: Option<ApiCluster>, config: ApiConfig) -> Fixture {
    let db = data::empty_db();
    let (pool, states, seen_rx, cancelled_rx) = stand_ins(cluster, &db);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let api = InternalApi::start(listener, config, pool.clone(), states.clone(), db.clone())
        .expect("the API starts");
    Fixture { api, pool, states, db, seen_rx, cancelled_rx }
}

impl Fixture {
    fn connect(&self) -> Client {
        Client::connect(self.api.local_addr())
    }

    /// Asks on a connection of its own. `headers` are lines with their ends.
    fn ask(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        let mut client = self.connect();
        client.send(head(method, target, headers, body.len()).as_bytes());
        client.send(body);
        let answer = client.answer_to(method);
        expect_described(method, target, answer.status);
        answer
    }

    /// Dispatches as user 42.
    fn dispatch(&self, target: &str, body: &str) -> Answer {
        self.ask("POST", target, &authorization(), body.as_bytes())
    }

    fn seen(&self) -> (TenantId, CreateEvent) {
        self.seen_rx.recv_timeout(PATIENCE).expect("the pool is reached")
    }
}

/// Checks that a route says of every error that it may answer it.
fn expect_described(method: &str, target: &str, status: u16) {
    let path = target.split('?').next().unwrap_or_default();
    let method =
        [Method::Get, Method::Post, Method::Put].into_iter().find(|known| known.as_str() == method);
    if let Some(method) = method
        && let Found::Route(route, _) = find(ROUTES, method, path)
    {
        let is_success = (200..300).contains(&status);
        assert!(
            is_success || errors(route).contains_key(&status),
            "{method:?} {path}: {status} is not described"
        );
    }
}

fn authorization() -> String {
    format!("Authorization: Internal {}\r\n", token(42, 60))
}

fn head(method: &str, target: &str, headers: &str, length: usize) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n")
}

#[track_caller]
fn expect_error(answer: &Answer, status: u16, code: &str, sent: bool) -> String {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let object = body.as_object().expect("an object");
    assert_eq!(object.keys().collect::<Vec<_>>(), ["code", "message", "sent"], "{body}");
    assert_eq!(
        (answer.status, object["code"].as_str(), object["sent"].as_bool()),
        (status, Some(code), Some(sent))
    );
    let message = object["message"].as_str().expect("a text").to_owned();
    assert!(!message.is_empty());
    message
}

const GUILD: &str = "/i/dispatch-event/guild/123";

#[test]
fn an_event_reaches_its_tenant_with_its_author_and_data() {
    let fixture = serve(config());
    for (target, tenant) in [
        ("/i/dispatch-event/guild/123", TenantId::Guild(123)),
        ("/i/dispatch-event/user/456", TenantId::User(456)),
        ("/i/dispatch-event/789", TenantId::Guild(789)),
    ] {
        let answer =
            fixture.dispatch(target, r#"{"name":"VALUE","data":{"b":[1,2.5,"x"],"a":null}}"#);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let value: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(value, serde_json::json!({"n": -1, "b": {"$buffer": "AQI="}}));
        let (seen_tenant, event) = fixture.seen();
        assert_eq!(
            (seen_tenant, event.name.as_str(), event.author.as_deref()),
            (tenant, "VALUE", Some("42"))
        );
        let EventData::Json(data) = event.data else { panic!("plain JSON") };
        assert_eq!(json::json_from_encoded(&data).expect("JSON"), r#"{"b":[1,2.5,"x"],"a":null}"#);
    }
}

#[test]
fn an_author_is_the_tokens_user_or_whom_the_token_may_act_for() {
    let fixture = serve(config());
    let acting = format!("Authorization: Internal {}\r\n", mint_acting(&secret(), 99, u64::MAX));
    let script = "/i/run-script/guild/123";
    for (target, body) in [(GUILD, r#"{"name":"X""#), (script, r#"{"name":"X","code":"return 1""#)]
    {
        for (authorization, author, seen) in [
            (&authorization(), "", "42"),
            (&authorization(), r#","author":null"#, "42"),
            (&authorization(), r#","author":"42""#, "42"),
            (&acting, "", "99"),
            (&acting, r#","author":"99""#, "99"),
            (&acting, r#","author":"7""#, "7"),
        ] {
            let answer =
                fixture.ask("POST", target, authorization, format!("{body}{author}}}").as_bytes());
            assert_eq!(answer.status, 200, "{author}");
            assert_eq!(fixture.seen().1.author.as_deref(), Some(seen));
        }
        let answer = fixture.ask(
            "POST",
            target,
            &authorization(),
            format!(r#"{body},"author":"7"}}"#).as_bytes(),
        );
        expect_error(&answer, 403, "Restricted", false);
        assert!(!answer.closes());
    }
    assert!(fixture.seen_rx.is_empty(), "what is refused reaches no tenant");
}

#[test]
fn an_answer_says_when_the_tenant_is_not_subscribed() {
    let fixture = serve(config());
    for (name, says) in [("UNSUBSCRIBED", Some("false")), ("X", None)] {
        let answer = fixture.dispatch(GUILD, &format!(r#"{{"name":"{name}"}}"#));
        assert_eq!(
            (answer.status, answer.text(), answer.header("mesophyll-subscribed")),
            (200, "null", says)
        );
    }
}

#[test]
fn data_may_be_missing_and_names_may_be_anything() {
    let fixture = serve(config());
    for name in ["X", "любое событие", "a/b c\\n", &"n".repeat(256)] {
        let body = serde_json::json!({ "name": name }).to_string();
        let answer = fixture.dispatch(GUILD, &body);
        assert_eq!((answer.status, answer.text()), (200, "null"), "{name}");
        let (_, event) = fixture.seen();
        assert_eq!(event.name, name);
        assert_eq!(event.data, EventData::Json(crate::wire::data::EncodedJson::null()));
    }
}

#[test]
fn nowait_answers_before_the_tenant_does() {
    let fixture = serve(config());
    for query in ["nowait", "nowait=true", "nowait=1", "deadline_ms=5&nowait=true"] {
        let answer = fixture.dispatch(&format!("{GUILD}?{query}"), r#"{"name":"NEVER"}"#);
        assert_eq!((answer.status, answer.text()), (202, "{}"), "{query}");
        assert_eq!(fixture.seen().1.name, "NEVER");
    }
    for query in ["nowait=false", "nowait=0"] {
        assert_eq!(
            fixture.dispatch(&format!("{GUILD}?{query}"), r#"{"name":"X"}"#).status,
            200,
            "{query}"
        );
    }
    let answer = fixture.dispatch(&format!("{GUILD}?nowait=true"), r#"{"name":"BUSY"}"#);
    expect_error(&answer, 503, "Busy", false);
}

#[test]
fn every_failure_of_a_dispatch_has_its_status_and_code() {
    let fixture = serve(config());
    for (name, status, code, sent) in [
        ("SCRIPT", 422, "ScriptError", true),
        ("BUSY", 503, "Busy", false),
        ("NO_WORKER", 503, "NoWorker", false),
        ("NOT_SENT", 503, "NoWorker", false),
        ("OUTCOME_UNKNOWN", 502, "OutcomeUnknown", true),
        ("BANNED", 403, "Banned", false),
        ("QUARANTINED", 403, "Quarantined", false),
        ("TOO_LARGE", 413, "TooLarge", false),
        ("BAD_INPUT", 400, "BadRequest", false),
        ("DEADLINE", 504, "Deadline", false),
    ] {
        let answer = fixture.dispatch(GUILD, &format!(r#"{{"name":"{name}"}}"#));
        expect_error(&answer, status, code, sent);
    }
}

#[test]
fn a_deadline_that_passes_is_told_and_the_job_given_up() {
    let fixture = serve(config());
    let answer = fixture.dispatch(&format!("{GUILD}?deadline_ms=20"), r#"{"name":"NEVER"}"#);
    expect_error(&answer, 504, "Deadline", true);
    let cancelled = fixture.cancelled_rx.recv_timeout(PATIENCE).expect("a cancellation");
    assert_eq!(Some(cancelled), *fixture.pool.last_request_id.lock().expect("a lock"));
    let fixture = serve(ApiConfig { default_deadline: Duration::from_millis(20), ..config() });
    expect_error(&fixture.dispatch(GUILD, r#"{"name":"NEVER"}"#), 504, "Deadline", true);
}

#[test]
fn tokens_are_checked() {
    let fixture = serve(config());
    let other = mint(&Secret::random(), 42, u64::MAX);
    for (header, code) in [
        (String::new(), "NoAuthToken"),
        (format!("Authorization: Internal {}\r\n", token(42, -1)), "InvalidToken"),
        (format!("Authorization: Internal {other}\r\n"), "InvalidToken"),
        (format!("Authorization: Internal {}x\r\n", token(42, 60)), "InvalidToken"),
        (format!("Authorization: Bearer {}\r\n", token(42, 60)), "InvalidToken"),
        (format!("Authorization: {}\r\n", token(42, 60)), "InvalidToken"),
        ("Authorization: Internal\r\n".to_owned(), "InvalidToken"),
        ("Authorization: \r\n".to_owned(), "InvalidToken"),
    ] {
        let answer = fixture.ask("POST", GUILD, &header, br#"{"name":"X"}"#);
        let message = expect_error(&answer, 401, code, false);
        assert_eq!(answer.header("www-authenticate"), Some("Internal"));
        assert_eq!(message.contains("expired"), header.contains(&token(42, -1)), "{message}");
    }
    assert!(fixture.seen_rx.is_empty(), "nothing got through");
    for scheme in ["Internal", "internal", "INTERNAL"] {
        let header = format!("Authorization: {scheme} {}\r\n", token(u64::MAX, 60));
        assert_eq!(fixture.ask("POST", GUILD, &header, br#"{"name":"X"}"#).status, 200);
        assert_eq!(fixture.seen().1.author, Some(u64::MAX.to_string()));
    }
}

#[test]
fn unknown_routes_and_wrong_methods_are_told_before_the_token() {
    let fixture = serve(config());
    for target in [
        "/x",
        "/i",
        "/i/dispatch-event",
        "/i/dispatch-event/",
        "/i/dispatch-event/a/b/c",
        "/livez/",
        "/Livez",
    ] {
        expect_error(&fixture.ask("POST", target, "", b""), 404, "NotFound", false);
    }
    for (method, target, allow) in [
        ("GET", GUILD, "POST"),
        ("PUT", "/i/dispatch-event/1", "POST"),
        ("POST", "/livez", "GET, HEAD"),
        ("BREW", "/readyz", "GET, HEAD"),
        ("OPTIONS", "/readyz", "GET, HEAD"),
    ] {
        let answer = fixture.ask(method, target, "", b"");
        expect_error(&answer, 405, "MethodNotAllowed", false);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {target}");
    }
}

#[test]
fn malformed_paths_are_refused_between_token_and_body() {
    let fixture = serve(config());
    for target in [
        "/i/dispatch-event/role/1",
        "/i/dispatch-event/Guild/1",
        "/i/dispatch-event/guild/x",
        "/i/dispatch-event/guild/-1",
        "/i/dispatch-event/guild/+1",
        "/i/dispatch-event/guild/%31%20",
        "/i/dispatch-event/guild/18446744073709551615",
        "/i/dispatch-event/guild:1",
        "/i/dispatch-event/guild/1?nowait=yes",
        "/i/dispatch-event/guild/1?nowait&nowait",
        "/i/dispatch-event/guild/1?no_wait",
        "/i/dispatch-event/guild/1?deadline_ms",
        "/i/dispatch-event/guild/1?deadline_ms=0",
        "/i/dispatch-event/guild/1?deadline_ms=-1",
        "/i/dispatch-event/guild/1?deadline_ms=+1",
        "/i/dispatch-event/guild/1?deadline_ms=1.5",
        "/i/dispatch-event/guild/1?deadline_ms=300001",
        "/i/dispatch-event/guild/1?deadline_ms=99999999999999999999",
        "/readyz?verbose=maybe",
    ] {
        let method = if target.starts_with("/i") { "POST" } else { "GET" };
        expect_error(
            &fixture.ask(method, target, &authorization(), b"not JSON"),
            400,
            "BadRequest",
            false,
        );
        if method == "POST" {
            expect_error(&fixture.ask(method, target, "", b"not JSON"), 401, "NoAuthToken", false);
        }
    }
    assert_eq!(
        fixture.dispatch(&format!("{GUILD}?deadline_ms=300000"), r#"{"name":"X"}"#).status,
        200
    );
}

#[test]
fn malformed_bodies_are_refused_and_unknown_fields_named() {
    let fixture = serve(config());
    let long = format!(r#"{{"name":"{}"}}"#, "n".repeat(257));
    let deep = format!(r#"{{"name":"X","data":{}{}}}"#, "[".repeat(2000), "]".repeat(2000));
    for (body, hint) in [
        ("", "object"),
        ("null", "object"),
        ("[]", "object"),
        ("{", "object"),
        (r#"{"name":"X"}{}"#, "object"),
        (r#"{"name":"X",}"#, "object"),
        ("{}", "name"),
        (r#"{"data":1}"#, "name"),
        (r#"{"name":null}"#, "name"),
        (r#"{"name":1}"#, "name"),
        (r#"{"name":""}"#, "1 to 256"),
        (&long, "1 to 256"),
        (r#"{"name":"\ud800"}"#, "name"),
        (r#"{"name":"X","name":"Y"}"#, "repeated"),
        (r#"{"name":"X","author":"x"}"#, "\"author\""),
        (r#"{"name":"X","author":"+1"}"#, "\"author\""),
        (r#"{"name":"X","author":""}"#, "\"author\""),
        (r#"{"name":"X","author":42}"#, "\"author\""),
        (r#"{"name":"X","auther":"1"}"#, "\"auther\""),
        (r#"{"name":"X","data":}"#, "object"),
        (r#"{"name":"X","data":nul}"#, "data"),
        (r#"{"name":"X","data":01}"#, "data"),
        (r#"{"name":"X","data":[1,]}"#, "data"),
        (r#"{"name":"X","data":{} []}"#, "data"),
        (r#"{"name":"X","data":NaN}"#, "data"),
        (&deep, "data"),
    ] {
        let message = expect_error(&fixture.dispatch(GUILD, body), 400, "BadRequest", false);
        assert!(message.contains(hint), "{body}: {message}");
    }
    expect_error(
        &fixture.ask("POST", GUILD, &authorization(), b"{\"name\":\"\xff\"}"),
        400,
        "BadRequest",
        false,
    );
    assert!(fixture.seen_rx.is_empty(), "nothing got through");
}

#[test]
fn sizes_are_limited_before_reading_and_after_encoding() {
    let fixture = serve(config());
    let mut client = fixture.connect();
    client.send(head("POST", GUILD, &authorization(), API_BODY_MAX_BYTES + 1).as_bytes());
    expect_error(&client.answer(), 413, "TooLarge", false);

    let text = "x".repeat(MESSAGE_MAX_BYTES - 1000);
    let answer = fixture.dispatch(GUILD, &format!(r#"{{"name":"X","data":"{text}"}}"#));
    assert_eq!(answer.status, 200);
    let answer = fixture.dispatch(GUILD, &format!(r#"{{"name":"X","data":"{text}{text}"}}"#));
    expect_error(&answer, 413, "TooLarge", false);
    let text = "x".repeat(MESSAGE_MAX_BYTES);
    expect_error(
        &fixture.dispatch(GUILD, &format!(r#"{{"name":"X","data":"{text}"}}"#)),
        413,
        "TooLarge",
        false,
    );
}

#[test]
fn what_never_became_a_request_is_refused_in_the_same_form() {
    let fixture = serve(config());
    let long = format!("GET /livez HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(20_000));
    for (request, status, code) in [
        ("GET /livez HTTP/1.1\r\n\r\n", 400, "BadRequest"),
        ("GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "BadRequest"),
        ("GET /livez HTTP/3.0\r\nHost: x\r\n\r\n", 505, "BadRequest"),
        (&long, 431, "TooLarge"),
    ] {
        let mut client = fixture.connect();
        client.send(request.as_bytes());
        expect_error(&client.answer(), status, code, false);
    }
    // A POST without a length is refused when its body is wanted, not before.
    let mut client = fixture.connect();
    client.send(format!("POST {GUILD} HTTP/1.1\r\nHost: x\r\n{}\r\n", authorization()).as_bytes());
    expect_error(&client.answer(), 411, "BadRequest", false);
    let mut client = fixture.connect();
    client.send(format!("POST {GUILD} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    expect_error(&client.answer(), 401, "NoAuthToken", false);
}

#[test]
fn a_slow_body_is_a_deadline() {
    let http = HttpLimits { body_timeout: Duration::from_millis(20), ..config().http };
    let fixture = serve(ApiConfig { http, ..config() });
    let mut client = fixture.connect();
    client.send(head("POST", GUILD, &authorization(), 100).as_bytes());
    expect_error(&client.answer(), 408, "Deadline", false);
}

#[test]
fn other_sources_are_refused_whatever_they_ask() {
    let status = |trusted: &[&str], request: &str, peer: &str| {
        let trusted_sources = trusted.iter().map(|text| text.parse().expect("a network")).collect();
        let db = data::empty_db();
        let (pool, states, ..) = stand_ins(None, &db);
        let config = ApiConfig { trusted_sources, ..config() };
        let api = Api::new(config, pool, states, db, Arc::new(Waits::new()));
        let peer: SocketAddr = peer.parse().expect("an address");
        let response = match RequestHead::parse(request, peer) {
            Ok(head) => api.handle(&head, &mut Body::from_bytes(b"")),
            Err(refusal) => api.refuse(&refusal, peer.into()),
        };
        let ResponseBody::Bytes(body) = response.body else { panic!("it is short") };
        (response.status, String::from_utf8(body).expect("text").contains(r#""code":"Restricted""#))
    };
    let requests = [
        (head("POST", GUILD, &authorization(), 0), 400),
        (head("POST", GUILD, "", 0), 401),
        (head("POST", "/nowhere", "", 0), 404),
        (head("DELETE", "/livez", "", 0), 405),
        (head("GET", "/livez", "", 0), 200),
        (head("GET", "/", "", 0), 200),
        (head("GET", "/i/status", "", 0), 401),
        (head("GET", "/readyz?verbose=maybe", "", 0), 400),
        ("nonsense\r\n\r\n".to_owned(), 400),
    ];
    for (request, expected) in &requests {
        for peer in ["10.0.0.1:9", "[::ffff:10.0.0.1]:9", "[2001:db8::1]:9", "0.0.0.0:9"] {
            assert_eq!(status(&[], request, peer), (403, true), "{request} {peer}");
            assert_eq!(
                status(&["11.0.0.0/8", "fd00::/8"], request, peer),
                (403, true),
                "{request} {peer}"
            );
        }
        for peer in ["127.0.0.1:9", "[::1]:9", "10.0.0.1:9", "[::ffff:10.0.0.1]:9"] {
            assert_eq!(
                status(&["10.0.0.0/8"], request, peer),
                (*expected, false),
                "{request} {peer}"
            );
        }
    }
}

#[test]
fn health_needs_no_token_and_says_how_the_workers_are() {
    let fixture = serve(config());
    let answer = fixture.ask("GET", "/livez", "", b"");
    assert_eq!((answer.status, answer.text()), (200, r#"{"live":true}"#));
    assert_eq!(fixture.ask("HEAD", "/livez", "", b"").status, 200);
    let answer = fixture.ask("GET", "/readyz", "", b"");
    assert_eq!((answer.status, answer.text()), (200, r#"{"ready":true}"#));
    for (states, status, reason) in [
        (vec![(0, "ready"), (1, "failed"), (2, "stopped")], 200, None),
        (vec![(0, "ready"), (1, "starting")], 503, Some("worker 1 is starting")),
        (vec![(0, "dead"), (1, "failed")], 503, Some("worker 0 is dead")),
        (vec![(0, "failed"), (1, "stopped")], 503, Some("every worker is failed or stopped")),
    ] {
        *fixture.states.0.lock().expect("a lock") = states.clone();
        let answer = fixture.ask("GET", "/readyz?verbose", "", b"");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!((answer.status, body["message"].as_str()), (status, reason));
        assert_eq!(body["code"].as_str(), reason.map(|_| "NoWorker"));
        let workers: Vec<_> = states
            .iter()
            .map(|(id, state)| serde_json::json!({"id": id, "state": state}))
            .collect();
        assert_eq!(body["workers"], serde_json::Value::Array(workers));
        assert!(!fixture.ask("GET", "/readyz", "", b"").text().contains("workers"));
    }
}
