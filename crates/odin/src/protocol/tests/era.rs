//! Which era a request belongs to, and which methods an era has.

use http::{Method, StatusCode};

use super::{META, assert_code, headers, modern_headers, post};
use crate::protocol::{Incoming, Limits, Message, NotificationRoute, Revision, Route, classify};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"roots":{}},"clientInfo":{"name":"c","version":"1"}}}"#;

#[test]
fn meta_beats_session_and_initialize_begins_one() {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{META}}}}}"#);
    let mut modern = modern_headers("tools/list", None);
    modern.insert("mcp-session-id", "s".parse().unwrap());
    assert!(matches!(post(&modern, &body), Ok(Incoming::Stateless { .. })));

    for extra in [
        &[][..],
        &[("mcp-protocol-version", "2025-11-25")],
        &[("mcp-protocol-version", "2026-07-28")],
        &[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "initialize")],
        &[("mcp-session-id", "old")],
    ] {
        let headers = headers(extra);
        let Ok(Incoming::Initialize { request, revision }) = post(&headers, INITIALIZE) else {
            panic!("{extra:?}")
        };
        assert_eq!(revision, Revision::V2025_06_18);
        assert_eq!(request.raw.get(), INITIALIZE);
    }
    // A gateway under a modern version header believes Mcp-Method.
    let lies = headers(&[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")]);
    assert_code(post(&lies, INITIALIZE), 400, -32020, "0");
    assert_code(post(&headers(&[("mcp-protocol-version", "1.0")]), INITIALIZE), 400, -32022, "0");
}

#[test]
fn a_version_in_the_meta_of_a_session_is_harmless() {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2025-11-25"}}}"#;
    let with = headers(&[("mcp-protocol-version", "2025-11-25"), ("mcp-session-id", "s")]);
    assert!(matches!(post(&with, body), Ok(Incoming::Stateful { session: "s", .. })));
    assert_code(post(&headers(&[("mcp-protocol-version", "2025-11-25")]), body), 400, -32022, "1");
}

#[test]
fn negotiation() {
    for (requested, revision) in [
        ("2024-11-05", Revision::V2024_11_05),
        ("2025-03-26", Revision::V2025_03_26),
        ("2025-06-18", Revision::V2025_06_18),
        ("2025-11-25", Revision::V2025_11_25),
        ("2026-07-28", Revision::V2025_11_25),
        ("1.0", Revision::V2025_11_25),
        ("", Revision::V2025_11_25),
    ] {
        assert_eq!(Revision::negotiate(requested), revision, "{requested}");
    }
    assert!(Revision::ALL.windows(2).all(|pair| pair[0] > pair[1]));
    for revision in Revision::ALL {
        assert_eq!(Revision::parse(revision.as_str()), Some(revision));
    }
    assert_eq!(Revision::parse(" 2025-11-25"), None);
}

#[test]
fn methods_by_revision() {
    use Revision::{V2024_11_05, V2025_06_18, V2025_11_25, V2026_07_28};
    for (method, revision, route) in [
        ("tools/call", V2024_11_05, Route::Worker),
        ("tools/call", V2026_07_28, Route::Worker),
        ("ping", V2025_11_25, Route::Ping),
        ("ping", V2026_07_28, Route::NotInRevision),
        ("logging/setLevel", V2024_11_05, Route::SetLevel),
        ("logging/setLevel", V2026_07_28, Route::NotInRevision),
        ("resources/subscribe", V2025_11_25, Route::Subscribe),
        ("resources/unsubscribe", V2025_11_25, Route::Unsubscribe),
        ("resources/subscribe", V2026_07_28, Route::NotInRevision),
        ("initialize", V2025_11_25, Route::Initialize),
        ("initialize", V2026_07_28, Route::NotInRevision),
        ("server/discover", V2025_11_25, Route::NotInRevision),
        ("server/discover", V2026_07_28, Route::Worker),
        ("subscriptions/listen", V2025_11_25, Route::NotInRevision),
        ("subscriptions/listen", V2026_07_28, Route::Listen),
        ("tasks/get", V2025_06_18, Route::NotInRevision),
        ("tasks/get", V2025_11_25, Route::Worker),
        ("tasks/get", V2026_07_28, Route::Worker),
        ("tasks/list", V2025_11_25, Route::Worker),
        ("tasks/list", V2026_07_28, Route::NotInRevision),
        ("tasks/update", V2025_11_25, Route::NotInRevision),
        ("mine/own", V2024_11_05, Route::Worker),
        ("mine/own", V2026_07_28, Route::Worker),
        ("Tools/call", V2026_07_28, Route::Worker),
    ] {
        assert_eq!(Route::of(revision, method), route, "{method} {revision}");
    }
    for (method, session, modern) in [
        ("notifications/initialized", NotificationRoute::Nothing, NotificationRoute::Nothing),
        ("notifications/cancelled", NotificationRoute::Cancel, NotificationRoute::Nothing),
        ("notifications/progress", NotificationRoute::Progress, NotificationRoute::Nothing),
        ("notifications/roots/list_changed", NotificationRoute::Worker, NotificationRoute::Worker),
        ("notifications/own", NotificationRoute::Worker, NotificationRoute::Worker),
    ] {
        assert_eq!(NotificationRoute::of(V2025_11_25, method), session, "{method}");
        assert_eq!(NotificationRoute::of(V2026_07_28, method), modern, "{method}");
    }
}

#[test]
fn other_http_methods() {
    let limits = Limits::default();
    for method in [Method::PUT, Method::HEAD, Method::OPTIONS, Method::PATCH] {
        let refusal = classify(&method, &headers(&[]), b"", &limits).unwrap_err();
        let response = refusal.into_response();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()["allow"], "POST, GET, DELETE");
    }
    for method in [Method::GET, Method::DELETE] {
        let modern = headers(&[("mcp-protocol-version", "2026-07-28"), ("mcp-session-id", "s")]);
        let response = classify(&method, &modern, b"", &limits).unwrap_err().into_response();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()["allow"], "POST");
    }
}

#[test]
fn modern_requests_of_each_kind() {
    for method in ["server/discover", "subscriptions/listen"] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{META}}}}}"#);
        let headers = modern_headers(method, None);
        let Ok(Incoming::Stateless { message: Message::Request(request), revision }) = post(&headers, &body)
        else {
            panic!("{method}")
        };
        assert_ne!(Route::of(revision, &request.method), Route::NotInRevision);
    }
}
