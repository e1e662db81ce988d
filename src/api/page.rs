//! `GET /`: the status page, one HTML file with everything in it. It shows what `/i/status` says
//! and acts through the same routes as any other caller.
//!
//! The page is the same for everyone and holds nothing of the master's: a visitor without a token
//! sees a field for one. That is also why neither a forged request nor a rebound name needs a check
//! of its own here. No route goes by anything that a browser sends by itself (there are no
//! cookies), so a foreign page can make a browser send a request, but not one with a token. And a
//! page whose name was made to lead to this address (DNS rebinding) can read this file and the
//! other routes without a token, which tell figures of the whole and nothing of a tenant, but never
//! knows a token. A check of `Host` would keep out those that come by a name of their own or
//! through a proxy, and save nothing.
//!
//! Deliberately no build step and no asset from elsewhere: the pieces in `page/` are put together
//! as they stand.

use std::sync::OnceLock;

use super::error::ApiError;
use super::{Api, Call};
use crate::base::random;
use crate::net::http::{Body, Response};

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");

/// One script, in a scope of its own; the order counts.
const SCRIPT: &str = concat!(
    "\"use strict\";\n(() => {\n",
    include_str!("page/figures.js"),
    include_str!("page/session.js"),
    include_str!("page/tables.js"),
    include_str!("page/acts.js"),
    include_str!("page/charts.js"),
    include_str!("page/start.js"),
    "})();\n",
);

/// What stands in the page for the nonce of its answer.
const NONCE: &str = "{{nonce}}";

pub(super) fn page(
    _api: &Api,
    _call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    static PAGE: OnceLock<String> = OnceLock::new();
    let page =
        PAGE.get_or_init(|| HTML.replacen("{{style}}", STYLE, 1).replacen("{{script}}", SCRIPT, 1));
    let nonce = random::token();
    let page = page.replace(NONCE, &nonce).into_bytes();
    let response = Response::new(200, "text/html; charset=utf-8", page)
        .with_header("Content-Security-Policy", policy(&nonce))
        .with_header("X-Content-Type-Options", "nosniff")
        .with_header("X-Frame-Options", "DENY")
        .with_header("Referrer-Policy", "no-referrer")
        .with_header("Cross-Origin-Resource-Policy", "same-origin");
    Ok(response)
}

/// Only what this very answer brings runs, it asks only this listener, and no text can become
/// markup (trusted types). The nonce is of one answer only, so that a text that found its way into
/// the page could not know it.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_loads_nothing_from_elsewhere() {
        let pieces = [HTML, STYLE, SCRIPT];
        for (piece, marks) in pieces.iter().zip([4, 0, 0]) {
            assert_eq!(piece.matches("{{").count(), marks, "a mark that nothing replaces: {piece}");
            for banned in [
                "http:",
                "https:",
                "//cdn",
                "@import",
                "url(",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
            ] {
                // The namespace of SVG is a name and not an address.
                let found = piece.replace("http://www.w3.org/2000/svg", "").contains(banned);
                assert!(!found, "{banned}");
            }
            for banned in [
                "localStorage",
                "sessionStorage",
                "indexedDB",
                "document.cookie",
                "document.write",
                "eval(",
            ] {
                assert!(!piece.contains(banned), "{banned}");
            }
        }
        assert!(
            !STYLE.contains("</style") && !SCRIPT.contains("</script"),
            "a piece would end before its end"
        );
    }

    #[test]
    fn the_policy_allows_one_nonce_and_nothing_foreign() {
        let policy = policy("abc");
        assert_eq!(policy.matches("'nonce-abc'").count(), 2);
        assert!(policy.starts_with("default-src 'none'; "));
        for banned in ["unsafe", "*", "http", "strict-dynamic"] {
            assert!(!policy.contains(banned), "{banned}");
        }
    }
}
