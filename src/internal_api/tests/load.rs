//! Many callers at once, slow ones, large ones, and the end of the API: who is served, who is told to come again.

use super::*;

#[test]
fn callers_that_wait_leave_connections_for_health_checks() {
    let http = HttpLimits { connections: 20, ..config().http };
    let fixture = serve(ApiConfig { http, ..config() });
    let body = r#"{"name":"WAIT"}"#;
    let mut waiting: Vec<_> = (0..4).map(|_| fixture.connect()).collect();
    for client in &mut waiting {
        client.send(head("POST", GUILD, &authorization(), body.len()).as_bytes());
        client.send(body.as_bytes());
        fixture.seen();
    }
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
fn slow_senders_leave_connections_for_health_checks() {
    let http = HttpLimits { connections: 20, ..config().http };
    let fixture = serve(ApiConfig { http, ..config() });
    let slow: Vec<_> = (0..100)
        .map(|number| {
            let mut client = fixture.connect();
            let request = head("POST", GUILD, &authorization(), 1000);
            client.send(&request.as_bytes()[..if number % 2 == 0 { request.len() } else { number }]);
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
    let fixture = serve(ApiConfig { bodies_max_bytes: 1000, ..config() });
    let mut large = fixture.connect();
    let headers = format!("{}Expect: 100-continue\r\n", authorization());
    large.send(head("POST", GUILD, &headers, 990).as_bytes());
    // The body is asked for once it has its place.
    assert_eq!(large.answer().status, 100);
    expect_error(&fixture.dispatch(GUILD, r#"{"name":"X"}"#), 503, "Busy", false);
    large.send(&[b' '; 990]);
    expect_error(&large.answer(), 400, "BadRequest", false);
    // The place is free a moment after the answer.
    let deadline = Instant::now() + PATIENCE;
    while fixture.dispatch(GUILD, r#"{"name":"X"}"#).status != 200 {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn shutdown_tells_those_who_still_wait_and_joins() {
    let fixture = serve(config());
    let body = r#"{"name":"NEVER"}"#;
    let mut client = fixture.connect();
    client.send(head("POST", &format!("{GUILD}?deadline_ms=300000"), &authorization(), body.len()).as_bytes());
    client.send(body.as_bytes());
    fixture.seen();
    let begun = Instant::now();
    fixture.api.shutdown(begun + Duration::from_millis(20));
    assert!(begun.elapsed() < PATIENCE);
    let answer = client.answer();
    expect_error(&answer, 502, "OutcomeUnknown", true);
    assert!(answer.closes());
    let cancelled = fixture.cancelled_rx.recv_timeout(PATIENCE).expect("a cancellation");
    assert_eq!(Some(cancelled), *fixture.pool.last_ticket.lock().expect("a lock"));
    fixture.api.shutdown(Instant::now());
}
