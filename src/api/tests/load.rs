//! Many callers at once, slow ones, large ones, and the end of the API: which are served, which are
//! told to come again.

use super::*;

impl Fixture {
    /// Begins a dispatch for a guild that reaches the pool.
    fn begin(&self, guild: u64, body: &str) -> Client {
        let mut client = self.connect();
        let target = format!("/i/dispatch-event/{guild}");
        client.send(head("POST", &target, &authorization(), body.len()).as_bytes());
        client.send(body.as_bytes());
        self.seen();
        client
    }
}

#[test]
fn callers_that_wait_leave_connections_for_health_checks() {
    let http = HttpLimits { connections: 20, ..config().http };
    let fixture = serve(ApiConfig { http, ..config() });
    let body = r#"{"name":"WAIT"}"#;
    let mut waiting: Vec<_> = (0..4).map(|guild| fixture.begin(guild, body)).collect();
    for _ in 0..30 {
        expect_error(&fixture.dispatch(GUILD, body), 503, "Busy", false);
        assert_eq!(fixture.ask("GET", "/livez", "", b"").status, 200);
        assert_eq!(fixture.ask("GET", "/metrics", "", b"").status, 200);
    }
    for answer in fixture.pool.waiting.lock().expect("a lock").drain(..) {
        answer.send(Ok(value::encode(&KhronosValue::Boolean(true))));
    }
    for client in &mut waiting {
        assert_eq!(client.answer().text(), "true");
    }
    // A place is free a moment after its answer arrived.
    let deadline = Instant::now() + PATIENCE;
    while fixture.dispatch(GUILD, r#"{"name":"X"}"#).status != 200 {
        assert!(Instant::now() < deadline, "no place is free");
    }
}

#[test]
fn callers_of_one_tenant_leave_places_to_other_tenants() {
    let http = HttpLimits { connections: 40, ..config().http };
    let fixture = serve(ApiConfig { http, ..config() });
    let waiting: Vec<_> = (0..10).map(|_| fixture.begin(123, r#"{"name":"WAIT"}"#)).collect();
    for _ in 0..30 {
        let busy = fixture.dispatch(GUILD, r#"{"name":"X"}"#);
        assert!(expect_error(&busy, 503, "Busy", false).contains("for this tenant"));
        assert_eq!(busy.header("retry-after"), Some("1"));
        assert_eq!(fixture.dispatch("/i/dispatch-event/7", r#"{"name":"X"}"#).status, 200);
        assert_eq!(fixture.ask("POST", "/i/guilds-exist", &authorization(), b"[1]").status, 200);
    }
    for (method, route, body) in [
        ("GET", "tenant", ""),
        ("PUT", "tenant-state", r#"{"events":[]}"#),
        ("GET", "tenant-state", ""),
        ("POST", "kv", r#"{"op":"find","pattern":"%"}"#),
        ("POST", "drop-tenant", ""),
        ("POST", "ban", r#"{"banned":true}"#),
    ] {
        let target = format!("/i/{route}/guild/123");
        let answer = fixture.ask(method, &target, &authorization(), body.as_bytes());
        assert!((200..300).contains(&answer.status), "{method} {target}: {answer:?}");
    }
    drop(waiting);
}

#[test]
fn slow_senders_leave_connections_for_health_checks() {
    let http = HttpLimits { connections: 20, ..config().http };
    let fixture = serve(ApiConfig { http, ..config() });
    let slow: Vec<_> = (0..100)
        .map(|number| {
            let mut client = fixture.connect();
            let request = head("POST", GUILD, &authorization(), 1000);
            client
                .send(&request.as_bytes()[..if number % 2 == 0 { request.len() } else { number }]);
            client
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(fixture.ask("GET", "/livez", "", b"").status, 200);
    }
    drop(slow);
}

#[test]
fn bodies_share_a_budget_of_memory() {
    let fixture = serve(ApiConfig { bodies_max_bytes: 100_000, ..config() });
    let mut large = fixture.connect();
    let headers = format!("{}Expect: 100-continue\r\n", authorization());
    large.send(head("POST", GUILD, &headers, 90_000).as_bytes());
    // The body is asked for once it has its place.
    assert_eq!(large.answer().status, 100);
    let next = format!(r#"{{"name":"X","data":"{}"}}"#, "x".repeat(20_000));
    expect_error(&fixture.dispatch(GUILD, &next), 503, "Busy", false);
    assert_eq!(fixture.dispatch(GUILD, r#"{"name":"X"}"#).status, 200, "a small one finds room");
    large.send(&[b' '; 90_000]);
    expect_error(&large.answer(), 400, "BadRequest", false);
    // The place is free a moment after the answer.
    let deadline = Instant::now() + PATIENCE;
    while fixture.dispatch(GUILD, &next).status != 200 {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_body_may_come_in_chunks_within_the_same_bounds() {
    let fixture = serve(ApiConfig { bodies_max_bytes: 1_000_000, ..config() });
    let head = format!(
        "POST {GUILD} HTTP/1.1\r\nHost: x\r\n{}Transfer-Encoding: chunked\r\n\r\n",
        authorization()
    );
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let mut client = fixture.connect();
    for data in ["1".to_owned(), format!("\"{}\"", "x".repeat(100_000))] {
        client.send(
            format!(
                "{head}{}{}0\r\n\r\n",
                chunk(r#"{"name":"X","data":"#),
                chunk(&format!("{data}}}"))
            )
            .as_bytes(),
        );
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (200, false));
        assert_eq!(fixture.seen().1.name, "X");
    }
    // A body takes no more room than its chunks are said to have.
    let body = format!(r#"{{"name":"X","data":"{}"}}"#, "x".repeat(600_000));
    client.send(format!("{head}{}0\r\n\r\n", chunk(&body)).as_bytes());
    assert_eq!(client.answer().status, 200);
    fixture.seen();
    // What there is no room for is refused in the middle, before it has come.
    client.send(format!("{head}{:x}\r\n", 2_000_000).as_bytes());
    let answer = client.answer();
    expect_error(&answer, 503, "Busy", false);
    assert!(answer.closes());
    let mut client = fixture.connect();
    client.send(format!("{head}{:x}\r\n", API_BODY_MAX_BYTES + 1).as_bytes());
    expect_error(&client.answer(), 413, "TooLarge", false);
    let mut client = fixture.connect();
    client.send(format!("{head}x\r\n").as_bytes());
    expect_error(&client.answer(), 400, "BadRequest", false);
    assert!(fixture.seen_rx.is_empty());
}

#[test]
fn chunks_are_a_body_where_none_is_taken_unless_they_are_none() {
    let fixture = serve(config());
    let headers = format!("Host: x\r\n{}Transfer-Encoding: chunked\r\n", authorization());
    let head = format!("POST /i/drop-tenant/guild/123 HTTP/1.1\r\n{headers}\r\n");
    let mut client = fixture.connect();
    client.send(format!("{head}0\r\n\r\n").as_bytes());
    assert_eq!(client.answer().status, 204);
    client.send(format!("{head}2\r\n{{}}\r\n0\r\n\r\n").as_bytes());
    assert!(expect_error(&client.answer(), 400, "BadRequest", false).contains("no body"));
    assert_eq!(fixture.seen_rx.len(), 1, "what is refused reaches no tenant");
}

#[test]
fn shutdown_tells_those_who_still_wait_and_joins() {
    let fixture = serve(config());
    let body = r#"{"name":"NEVER"}"#;
    let mut client = fixture.connect();
    client.send(
        head("POST", &format!("{GUILD}?deadline_ms=300000"), &authorization(), body.len())
            .as_bytes(),
    );
    client.send(body.as_bytes());
    fixture.seen();
    let begun = Instant::now();
    fixture.api.shutdown(begun + Duration::from_millis(20));
    assert!(begun.elapsed() < PATIENCE);
    let answer = client.answer();
    expect_error(&answer, 502, "OutcomeUnknown", true);
    assert!(answer.closes());
    let cancelled = fixture.cancelled_rx.recv_timeout(PATIENCE).expect("a cancellation");
    assert_eq!(Some(cancelled), *fixture.pool.last_request_id.lock().expect("a lock"));
    fixture.api.shutdown(Instant::now());
}
