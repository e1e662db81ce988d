//! The status page as a file: which callers get it, with which headers; and what it asks for.

use super::*;

#[test]
fn the_page_needs_no_token_and_has_a_policy() {
    let fixture = serve(config());
    let answer = fixture.ask("GET", "/", "", b"");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let policy = answer.header("content-security-policy").expect("a policy");
    for rule in [
        "default-src 'none'",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.split("; ").any(|said| said == rule), "{rule} is not in {policy}");
    }
    let nonce = policy
        .split("script-src 'nonce-")
        .nth(1)
        .and_then(|rest| rest.split('\'').next())
        .expect("a nonce");
    assert_eq!(
        answer.text().matches(&format!(" nonce=\"{nonce}\">")).count(),
        2,
        "the style and the script"
    );
    assert_eq!(
        answer.text().matches("<script").count() + answer.text().matches("<style").count(),
        2
    );
    let other = fixture.ask("GET", "/", "", b"");
    assert!(!other.text().contains(nonce), "a nonce is of one answer only");
}

#[test]
fn the_page_takes_no_parameter_and_no_other_method() {
    let fixture = serve(config());
    let answer = fixture.ask("HEAD", "/", "", b"");
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert!(answer.header("content-security-policy").is_some());
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = fixture.ask(method, "/", "", b"");
        expect_error(&answer, 405, "MethodNotAllowed", false);
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    }
    for query in ["?", "?token=1", "?x"] {
        let answer = fixture.ask("GET", &format!("/{query}"), "", b"");
        assert_eq!(answer.status, if query == "?" { 200 } else { 400 }, "{query}");
    }
}

#[test]
fn what_the_page_asks_for_needs_a_token() {
    let fixture = serve(config());
    expect_error(&fixture.ask("GET", "/i/status", "", b""), 401, "NoAuthToken", false);
    assert_eq!(fixture.ask("GET", "/i/status", &authorization(), b"").status, 200);
}
