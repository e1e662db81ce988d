//! Two masters of a cluster, by their internal APIs: their tables say what the test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};

use super::super::cluster::{ForwardOutcome, ForwardedRequest, PeerHop};
use super::*;
use crate::cluster::{ClusterFigures, ShardTable};
use crate::net::http::Response;
use crate::store::lease::{ClusterLook, MasterId, MasterRow, MasterState, ShardRow};
use crate::wire::data::sharding::{SHARDS, Shard};

pub(super) const A: MasterId = MasterId(1);
pub(super) const B: MasterId = MasterId(2);

/// A master: what serves it, its table, and what it wants looked at.
pub(super) struct Member {
    pub(super) fixture: Fixture,
    pub(super) table: Arc<ShardTable>,
    nudged_rx: Receiver<()>,
    states_rx: Receiver<(String, MasterState)>,
}

fn member(name: &str, config: ApiConfig) -> Member {
    let (nudged_tx, nudged_rx) = unbounded();
    let (states_tx, states_rx) = unbounded();
    let nudge = move || nudged_tx.send(()).expect("the test looks");
    let table = Arc::new(ShardTable::new(Arc::default(), nudge));
    let cluster = ApiCluster {
        table: table.clone(),
        cluster: Some("test".to_owned()),
        name: name.to_owned(),
        set_state: Box::new(move |name, state| {
            states_tx.send((name.to_owned(), state)).expect("the test looks");
            Ok(name != "nobody")
        }),
        figures: Box::new(|| ClusterFigures { held: 7, ..ClusterFigures::default() }),
    };
    Member { fixture: serve_in(Some(cluster), config), table, nudged_rx, states_rx }
}

impl Member {
    fn addr(&self) -> SocketAddr {
        self.fixture.api.local_addr()
    }

    fn count(&self, outcome: ForwardOutcome) -> u64 {
        self.fixture.api.api.forwarder.outcomes().get(outcome)
    }

    /// Waits until its table is to look anew.
    fn expect_nudge(&self) {
        self.nudged_rx.recv_timeout(PATIENCE).expect("it wants to know better");
    }
}

/// Both masters, with what each believes.
pub(super) struct Pair {
    pub(super) a: Member,
    pub(super) b: Member,
}

pub(super) fn pair() -> Pair {
    Pair { a: member("a", config()), b: member("b", config()) }
}

fn row(id: MasterId, name: &str, api: SocketAddr) -> MasterRow {
    MasterRow {
        id,
        name: name.to_owned(),
        api: api.to_string(),
        version: "1".to_owned(),
        weight: 1,
        state: MasterState::Up,
        lease_left: Duration::from_secs(6),
        up_for: Duration::from_secs(60),
    }
}

/// Lets a table of master `me` say that `owner` has everything; `b` may be anywhere.
fn tell(table: &ShardTable, me: MasterId, a: SocketAddr, b: SocketAddr, owner: Option<MasterId>) {
    tell_each(table, me, a, b, |_| owner);
}

/// The same, shard by shard.
fn tell_each(
    table: &ShardTable,
    me: MasterId,
    a: SocketAddr,
    b: SocketAddr,
    owner: impl Fn(Shard) -> Option<MasterId>,
) {
    let shards: Vec<Shard> = (0..SHARDS).filter_map(Shard::new).collect();
    let owners: Vec<_> = shards.iter().map(|shard| owner(*shard)).collect();
    let look = ClusterLook {
        masters: vec![row(A, "a", a), row(B, "b", b)],
        shards: owners.iter().map(|owner| ShardRow { owner: *owner, epoch: 7 }).collect(),
    };
    table.serve(&shards.into_iter().filter(|shard| owner(*shard) == Some(me)).collect());
    table.show(Some(me), look, owners);
}

impl Pair {
    /// Both believe so.
    pub(super) fn owner(&self, owner: Option<MasterId>) {
        self.believe(owner, owner);
    }

    /// Both believe that `a` has this tenant's shard, and `b` all others.
    pub(super) fn split_at(&self, tenant: TenantId) {
        let owner = |shard| Some(if shard == Shard::of(tenant) { A } else { B });
        tell_each(&self.a.table, A, self.a.addr(), self.b.addr(), owner);
        tell_each(&self.b.table, B, self.a.addr(), self.b.addr(), owner);
    }

    fn believe(&self, of_a: Option<MasterId>, of_b: Option<MasterId>) {
        tell(&self.a.table, A, self.a.addr(), self.b.addr(), of_a);
        tell(&self.b.table, B, self.a.addr(), self.b.addr(), of_b);
    }
}

/// Asks a master from a thread of its own.
fn ask(addr: SocketAddr, method: &str, target: &str, body: &str) -> JoinHandle<Answer> {
    let head = head(method, target, &authorization(), body.len());
    let (body, method) = (body.to_owned(), method.to_owned());
    thread::spawn(move || {
        let mut client = Client::connect(addr);
        client.send(head.as_bytes());
        client.send(body.as_bytes());
        client.answer_to(&method)
    })
}

const EVENT: &str = r#"{"name":"X","data":{"n":1}}"#;

#[test]
fn a_request_is_answered_by_the_master_that_has_its_tenant() {
    let pair = pair();
    for (owner, here, elsewhere) in [(A, &pair.a, &pair.b), (B, &pair.b, &pair.a)] {
        pair.owner(Some(owner));
        let name = if owner == A { "a" } else { "b" };
        let headers = format!("{}X-Request-Id: mine\r\n", authorization());
        for target in [GUILD, "/i/dispatch-event/%67uild/123?deadline_ms=5000"] {
            let answer = pair.a.fixture.ask("POST", target, &headers, EVENT.as_bytes());
            assert_eq!((answer.status, answer.text()), (200, "null"));
            assert_eq!(answer.header("mesophyll-master"), Some(name));
            assert_eq!(answer.header("x-request-id"), Some("mine"));
            let (tenant, event) = here.fixture.seen();
            assert_eq!((tenant, event.author.as_deref()), (TenantId::Guild(123), Some("42")));
            let EventData::Json(data) = event.data else { panic!("plain JSON") };
            assert_eq!(json::json_from_encoded(&data).expect("JSON"), r#"{"n":1}"#);
        }
        let asked = |body: &str| pair.a.fixture.dispatch(GUILD, body);
        expect_error(&asked(r#"{"name":"SCRIPT"}"#), 422, "ScriptError", true);
        expect_error(&asked(r#"{"name":"BANNED"}"#), 403, "Banned", false);
        let busy = asked(r#"{"name":"BUSY"}"#);
        expect_error(&busy, 503, "Busy", false);
        assert_eq!(busy.header("retry-after"), Some("1"));
        expect_error(&asked(r#"{"nam":"X"}"#), 400, "BadRequest", false);
        let answer = asked(r#"{"name":"UNSUBSCRIBED"}"#);
        assert_eq!(answer.header("mesophyll-subscribed"), Some("false"));
        let answer = pair.a.fixture.dispatch(&format!("{GUILD}?nowait"), r#"{"name":"NEVER"}"#);
        assert_eq!((answer.status, answer.text()), (202, "{}"));
        assert_eq!(here.fixture.seen_rx.try_iter().count(), 5);
        assert!(elsewhere.fixture.seen_rx.is_empty());
    }
    assert_eq!(pair.a.count(ForwardOutcome::Answered), 8);
    let metrics = pair.a.fixture.ask("GET", "/metrics", "", b"");
    for line in [
        "mesophyll_forwards_total{outcome=\"answered\"} 8\n",
        "mesophyll_shards{state=\"held\"} 7\n",
        "mesophyll_shards{state=\"served\"} 0\n",
        "mesophyll_lease_seconds_left 0\n",
        "mesophyll_renewal_seconds_count 0\n",
    ] {
        assert!(metrics.text().contains(line), "{line}");
    }
}

#[test]
fn every_route_of_a_tenant_goes_to_its_master() {
    let pair = pair();
    pair.owner(Some(B));
    let ask = |(method, target, body): (&str, &str, &str)| {
        pair.a.fixture.ask(method, target, &authorization(), body.as_bytes())
    };
    let calls: Vec<_> =
        data::CALLS.iter().filter(|(_, target, _)| target.contains("/guild/")).collect();
    assert!(calls.len() > 6);
    for call in calls.into_iter().filter(|(_, target, _)| !target.starts_with("/i/route")) {
        let answer = ask(*call);
        assert_eq!(answer.header("mesophyll-master"), Some("b"), "{call:?}: {answer:?}");
    }
    let state = r#"{"events":["E"],"data":null}"#;
    assert_eq!(ask(("PUT", data::STATE, state)).status, 204);
    assert_eq!(ask(("GET", data::STATE, "")).text(), state);
    assert_eq!(ask(("HEAD", data::STATE, "")).status, 200);
    let tenant = TenantId::Guild(123);
    assert!(pair.b.fixture.db.tenant_state(tenant).is_some());
    assert!(pair.a.fixture.db.tenant_state(tenant).is_none());
    expect_error(&ask(("GET", "/i/tenant-state/guild/4", "")), 404, "NotFound", false);
    expect_error(&ask(("GET", "/i/tenant-state/guild/4", "x")), 400, "BadRequest", false);
    assert_eq!(ask(("GET", "/i/workers", "")).header("mesophyll-master"), Some("a"));
}

#[test]
fn large_bodies_and_answers_travel_whole_and_count_once() {
    let pair = pair();
    for owner in [A, B] {
        pair.owner(Some(owner));
        let large = "x".repeat(3_000_000);
        let value = &large[..200_000];
        let body = serde_json::json!({"op": "set", "key": "key", "scopes": ["s"], "value": value});
        let (status, _) = pair.a.fixture.post(data::KV, body);
        assert_eq!(status, 204);
        let find = serde_json::json!({ "op": "find", "pattern": "%" });
        let (status, found) = pair.a.fixture.post(data::KV, find);
        assert_eq!((status, found[0]["value"].as_str().map(str::len)), (200, Some(200_000)));
        let body = format!(r#"{{"name":"LARGE","data":"{large}"}}"#);
        let answer = pair.a.fixture.dispatch(GUILD, &body);
        assert_eq!((answer.status, answer.body.len()), (200, 50_002));
        let mut client = pair.a.fixture.connect();
        let length = API_BODY_MAX_BYTES + 1;
        client.send(head("POST", GUILD, &authorization(), length).as_bytes());
        expect_error(&client.answer(), 413, "TooLarge", false);
    }
    for member in [&pair.a, &pair.b] {
        // Nothing is held any more once the last answer is written: all there is can be had.
        let api = &member.fixture.api.api;
        let deadline = Instant::now() + PATIENCE;
        while api.admission.admit(None, api.config.bodies_max_bytes).is_err() {
            assert!(Instant::now() < deadline, "a request is counted after its end");
            thread::yield_now();
        }
    }
}

#[test]
fn a_tenant_that_has_moved_is_followed() {
    let pair = pair();
    // The other one does not have it: it is asked again, elsewhere, once the table knows.
    pair.believe(Some(B), Some(A));
    let asked = ask(pair.a.addr(), "POST", GUILD, EVENT);
    pair.a.expect_nudge();
    assert!(!asked.is_finished());
    pair.believe(Some(A), Some(A));
    assert_eq!(asked.join().expect("no panic").header("mesophyll-master"), Some("a"));
    assert!(pair.a.count(ForwardOutcome::NotOwner) >= 1);
    assert_eq!(pair.a.fixture.seen_rx.len(), 1, "once");
    // Between two holders it waits.
    pair.owner(None);
    let asked = ask(pair.a.addr(), "POST", GUILD, EVENT);
    pair.owner(Some(B));
    assert_eq!(asked.join().expect("no panic").header("mesophyll-master"), Some("b"));
    pair.owner(None);
    let late = pair.a.fixture.dispatch(&format!("{GUILD}?deadline_ms=50"), EVENT);
    expect_error(&late, 503, "NoWorker", false);
}

#[test]
fn what_is_forwarded_is_never_forwarded_on() {
    let pair = pair();
    pair.believe(Some(B), Some(A));
    let answer = pair.a.fixture.dispatch(&format!("{GUILD}?deadline_ms=400"), EVENT);
    expect_error(&answer, 503, "NoWorker", false);
    assert!(pair.a.count(ForwardOutcome::NotOwner) >= 1);
    // It may be the heir, and not have looked since.
    pair.b.expect_nudge();
    let sent = ForwardOutcome::ALL.map(|outcome| pair.b.count(outcome));
    assert_eq!(sent, [0; ForwardOutcome::ALL.len()]);
    assert!(pair.a.fixture.seen_rx.is_empty() && pair.b.fixture.seen_rx.is_empty());
}

#[test]
fn a_master_that_is_down_is_sent_nothing_and_waited_for() {
    let pair = pair();
    let nowhere = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port");
    tell(&pair.a.table, A, pair.a.addr(), nowhere, Some(B));
    let late = pair.a.fixture.dispatch(&format!("{GUILD}?deadline_ms=300"), EVENT);
    expect_error(&late, 503, "NoWorker", false);
    let asked = ask(pair.a.addr(), "POST", GUILD, EVENT);
    pair.a.expect_nudge();
    pair.owner(Some(B));
    assert_eq!(asked.join().expect("no panic").header("mesophyll-master"), Some("b"));
    assert!(pair.a.count(ForwardOutcome::NotSent) >= 2);
}

/// A master that takes a request and then does what the test says.
fn stub(
    mut answer: impl FnMut(usize, &mut TcpStream) + Send + 'static,
) -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("a port");
    let (requests_tx, requests_rx) = unbounded();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.expect("a connection");
            let request = read_request(&stream);
            if requests_tx.send(request).is_err() {
                return;
            }
            answer(number, &mut stream);
        }
    });
    (addr, requests_rx)
}

fn read_request(stream: &TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert!(reader.read_until(b'\n', &mut request).expect("a line") > 0);
    }
    let text = String::from_utf8(request.clone()).expect("text").to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).expect("a body");
    request.extend_from_slice(&body);
    request
}

#[test]
fn a_master_that_dies_with_a_request_leaves_its_outcome_unknown() {
    let pair = pair();
    let (dying, requests_rx) = stub(|_, _| ());
    tell(&pair.a.table, A, pair.a.addr(), dying, Some(B));
    for target in [GUILD, &format!("{GUILD}?nowait"), data::KV, "/i/drop-tenant/guild/123"] {
        let body = if target.contains("drop") { "" } else { EVENT };
        expect_error(&pair.a.fixture.dispatch(target, body), 502, "OutcomeUnknown", true);
        requests_rx.recv_timeout(PATIENCE).expect("it was sent");
    }
    assert!(requests_rx.is_empty(), "and never again");
    assert_eq!(pair.a.count(ForwardOutcome::Unknown), 4);
}

#[test]
fn what_no_master_answers_is_no_answer() {
    let pair = pair();
    let heads = [
        "101 Switching",
        "307 There",
        "999 What",
        "200 OK\r\nContent-Length: 18446744073709551615",
    ];
    let (garbling, requests_rx) = stub(move |number, stream| {
        let answer = format!("HTTP/1.1 {}\r\nLocation: /i/status\r\n\r\n", heads[number]);
        stream.write_all(answer.as_bytes()).expect("it is read");
    });
    tell(&pair.a.table, A, pair.a.addr(), garbling, Some(B));
    for _ in heads {
        expect_error(&pair.a.fixture.dispatch(GUILD, EVENT), 502, "OutcomeUnknown", true);
    }
    assert_eq!(requests_rx.len(), heads.len());
}

#[test]
fn what_only_looks_is_asked_again_of_a_master_that_breaks_off() {
    let pair = pair();
    let (breaking, requests_rx) = stub(|number, stream| {
        let rest = if number == 0 { "abc" } else { "abcdefghij" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{rest}"
        );
        stream.write_all(answer.as_bytes()).expect("it is read");
    });
    tell(&pair.a.table, A, pair.a.addr(), breaking, Some(B));
    let answer = pair.a.fixture.ask("GET", data::STATE, &authorization(), b"");
    assert_eq!((answer.status, answer.text()), (200, "abcdefghij"));
    assert_eq!(requests_rx.len(), 2);
}

#[test]
fn the_end_of_the_api_ends_what_another_master_does_not_answer() {
    let pair = pair();
    let (kept_tx, kept_rx) = unbounded();
    let (silent, requests_rx) =
        stub(move |_, stream| kept_tx.send(stream.try_clone().expect("a socket")).expect("kept"));
    tell(&pair.a.table, A, pair.a.addr(), silent, Some(B));
    let asked = ask(pair.a.addr(), "POST", &format!("{GUILD}?deadline_ms=300000"), EVENT);
    requests_rx.recv_timeout(PATIENCE).expect("it was sent");
    tell(&pair.a.table, A, pair.a.addr(), silent, None);
    let waiting = ask(pair.a.addr(), "POST", &format!("{GUILD}?deadline_ms=300000"), EVENT);
    while pair.a.fixture.api.stats().requests < 2 {
        thread::yield_now();
    }
    pair.a.fixture.api.shutdown(Instant::now());
    expect_error(&asked.join().expect("no panic"), 502, "OutcomeUnknown", true);
    expect_error(&waiting.join().expect("no panic"), 503, "NoWorker", false);
    drop(kept_rx);
}

#[test]
fn a_connection_that_the_other_master_closed_is_not_used_again() {
    let http = HttpLimits { idle_timeout: Duration::from_millis(20), ..config().http };
    let b = member("b", ApiConfig { http, ..config() });
    let pair = Pair { a: member("a", config()), b };
    pair.owner(Some(B));
    for _ in 0..3 {
        assert_eq!(pair.a.fixture.dispatch(GUILD, EVENT).status, 200);
        while pair.b.fixture.api.stats().open > 0 {
            thread::yield_now();
        }
    }
    assert_eq!(pair.b.fixture.api.stats().accepted, 3);
    let pair = self::pair();
    pair.owner(Some(B));
    (0..3).for_each(|_| assert_eq!(pair.a.fixture.dispatch(GUILD, EVENT).status, 200));
    assert_eq!(pair.b.fixture.api.stats().accepted, 1, "but one that is open is");
}

/// The headers of a request that master `a` forwards at this time.
fn hop(secret: &Secret, method: &str, target: &str, body: &str, from_now_ms: i64) -> String {
    let hop = PeerHop { epoch: 7, from: "a" };
    let signed = ForwardedRequest { method, target, hop, body: body.as_bytes() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let nonce = crate::base::random::u64();
    let proof = signed.sign(secret, now.saturating_add_signed(from_now_ms), nonce);
    format!("{}Mesophyll-Hop: {hop}\r\nMesophyll-Peer: {proof}\r\n", authorization())
}

#[test]
fn a_hop_counts_with_its_proof_and_once() {
    let pair = pair();
    pair.owner(Some(B));
    let good = |from_now_ms| hop(&secret(), "POST", GUILD, EVENT, from_now_ms);
    let ask =
        |headers: &str, body: &str| pair.b.fixture.ask("POST", GUILD, headers, body.as_bytes());
    let headers = good(0);
    assert_eq!(ask(&headers, EVENT).status, 200);
    let lone = |name: &str| {
        let lines = headers.split_inclusive("\r\n").filter(|line| !line.starts_with(name));
        lines.collect::<String>()
    };
    for (what, headers, body) in [
        ("a second time", headers.as_str(), EVENT),
        ("of another secret", &hop(&Secret::random(), "POST", GUILD, EVENT, 0), EVENT),
        ("of another body", &good(0), r#"{"name":"Y"}"#),
        ("of another route", &hop(&secret(), "POST", data::KV, EVENT, 0), EVENT),
        ("of long ago", &good(-31_000), EVENT),
        ("of times to come", &good(31_000), EVENT),
        ("without a proof", &lone("Mesophyll-Peer"), EVENT),
        ("of another kind", &good(0).replace("1; epoch", "2; epoch"), EVENT),
    ] {
        let answer = ask(headers, body);
        let message = expect_error(&answer, 400, "BadRequest", false);
        assert_eq!(answer.header("mesophyll-peer"), Some("refused"), "{what}: {message}");
    }
    assert_eq!(pair.b.fixture.seen_rx.len(), 1);
    let answer =
        pair.b.fixture.ask("GET", "/i/workers", &hop(&secret(), "GET", "/i/workers", "", 0), b"");
    expect_error(&answer, 400, "BadRequest", false);
    pair.owner(Some(A));
    let answer = ask(&good(0), EVENT);
    expect_error(&answer, 421, "NotOwner", false);
    assert_eq!(answer.header("mesophyll-owner"), Some("a, 7"));
    // A caller's token counts as ever.
    let answer = ask(&good(0).replace("Internal", "Other"), EVENT);
    expect_error(&answer, 401, "InvalidToken", false);
}

#[test]
fn masters_of_different_secrets_refuse_each_other() {
    let other = ApiConfig { secret: Secret::random(), ..config() };
    let pair = Pair { a: member("a", config()), b: member("b", other) };
    pair.owner(Some(B));
    expect_error(&pair.a.fixture.dispatch(GUILD, EVENT), 503, "Unavailable", false);
    assert_eq!(pair.a.count(ForwardOutcome::Refused), 1);
}

#[test]
fn a_hop_passes_from_peers_only() {
    let status = |peers: &[&str], trusted: &[&str], headers: &str| -> Response {
        let networks =
            |texts: &[&str]| texts.iter().map(|text| text.parse().expect("one")).collect();
        let config = ApiConfig {
            peer_sources: networks(peers),
            trusted_sources: networks(trusted),
            ..config()
        };
        let member = member("b", config);
        let nowhere = ([127, 0, 0, 1], 1).into();
        tell(&member.table, B, nowhere, nowhere, Some(B));
        let peer: SocketAddr = ([10, 0, 0, 1], 9).into();
        let head = RequestHead::parse(head("POST", GUILD, headers, EVENT.len()), peer);
        let body = &mut Body::from_bytes(EVENT.as_bytes());
        member.fixture.api.api.handle(&head.expect("a head"), body)
    };
    let forwarded = hop(&secret(), "POST", GUILD, EVENT, 0);
    let own = authorization();
    for (peers, trusted, headers, expected, is_refused) in [
        (&["10.0.0.0/8"][..], &[][..], &forwarded, 200, false),
        (&["10.0.0.0/8"], &[], &own, 403, false),
        (&[], &["10.0.0.0/8"], &own, 200, false),
        (&[], &["10.0.0.0/8"], &forwarded, 400, true),
        (&["11.0.0.0/8"], &[], &forwarded, 403, true),
    ] {
        let response = status(peers, trusted, headers);
        let refused = ("Mesophyll-Peer", "refused".to_owned());
        assert_eq!((response.status, response.headers.contains(&refused)), (expected, is_refused));
    }
}

#[test]
fn masters_are_listed_found_and_drained() {
    let pair = pair();
    pair.owner(Some(B));
    let masters = pair.a.fixture.ask("GET", "/i/masters", &authorization(), b"");
    let masters: serde_json::Value = serde_json::from_slice(&masters.body).expect("JSON");
    assert_eq!(
        masters[1],
        serde_json::json!({"name": "b", "state": "up", "lease_ms": 6000, "shards": 509,
            "wanted": 509, "version": "1", "api": pair.b.addr().to_string()})
    );
    assert_eq!((masters[0]["name"].as_str(), masters[0]["shards"].as_u64()), (Some("a"), Some(0)));
    let route = |member: &Member| {
        let answer = member.fixture.ask("GET", "/i/route/guild/123", &authorization(), b"");
        serde_json::from_slice::<serde_json::Value>(&answer.body).expect("JSON")
    };
    let api = pair.b.addr().to_string();
    let at_b =
        |here: bool| serde_json::json!({"master": "b", "api": &api, "here": here, "epoch": 7});
    assert_eq!((route(&pair.a), route(&pair.b)), (at_b(false), at_b(true)));
    let gone = MasterRow { state: MasterState::Dead, ..row(B, "b", pair.b.addr()) };
    pair.a.table.show(Some(A), ClusterLook { masters: vec![gone], shards: vec![] }, vec![]);
    let masters = pair.a.fixture.ask("GET", "/i/masters", &authorization(), b"");
    assert!(masters.text().contains(r#""state":"dead","lease_ms":0,"#), "{masters:?}");
    pair.owner(None);
    let nowhere = serde_json::json!({"master": null, "api": null, "here": false, "epoch": null});
    assert_eq!(route(&pair.a), nowhere);
    let post = |target: &str| pair.a.fixture.ask("POST", target, &authorization(), b"");
    for (target, name, state) in [
        ("/i/drain", "a", MasterState::Draining),
        ("/i/drain/b", "b", MasterState::Draining),
        ("/i/undrain/b", "b", MasterState::Up),
        ("/i/undrain", "a", MasterState::Up),
    ] {
        assert_eq!(post(target).status, 202);
        assert_eq!(pair.a.states_rx.try_recv(), Ok((name.to_owned(), state)));
    }
    expect_error(&post("/i/drain/nobody"), 404, "NotFound", false);
    assert_eq!(pair.a.fixture.ask("GET", "/readyz", "", b"").status, 200);
    pair.a.table.suspend(true);
    expect_error_of_health(&pair.a.fixture.ask("GET", "/readyz", "", b""));
}

#[track_caller]
fn expect_error_of_health(answer: &Answer) {
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("no member of its cluster"), "{}", answer.text());
}

#[test]
fn a_master_outside_a_cluster_says_so() {
    let fixture = serve(config());
    let ask = |method, target| fixture.ask(method, target, &authorization(), b"");
    assert_eq!(ask("GET", "/i/masters").text(), "[]");
    for (method, target) in
        [("GET", "/i/route/guild/1"), ("POST", "/i/drain"), ("POST", "/i/undrain/a")]
    {
        let message = expect_error(&ask(method, target), 404, "NotFound", false);
        assert!(message.contains("--cluster"), "{message}");
    }
    let hop = hop(&secret(), "POST", GUILD, EVENT, 0);
    let answer = fixture.ask("POST", GUILD, &hop, EVENT.as_bytes());
    assert_eq!((answer.status, answer.header("mesophyll-master")), (200, None));
}
