//! Accept, Content-Type, sizes.

use http::Method;

use super::{assert_code, headers, post};
use crate::protocol::{Incoming, Limits, classify};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;

fn with(name: &'static str, values: &[&str]) -> http::HeaderMap {
    let mut headers = headers(&[]);
    headers.remove(name);
    for value in values {
        headers.append(name, value.parse().unwrap());
    }
    headers
}

#[test]
fn accept() {
    for accepted in [
        &["application/json, text/event-stream"][..],
        &["application/json", "text/event-stream"],
        &["text/event-stream;charset=utf-8,application/json;q=0.1"],
        &["*/*"],
        &["application/*, text/*"],
        &["APPLICATION/JSON, Text/Event-Stream"],
        &["*/*;q=0, application/json, text/*"],
        &["text/*;q=0, text/event-stream, application/json"],
        &[],
    ] {
        assert!(post(&with("accept", accepted), INITIALIZE).is_ok(), "{accepted:?}");
    }
    for refused in [
        &["application/json"][..],
        &["text/event-stream"],
        &["text/html"],
        &["application/json, text/event-stream;q=0"],
        &["application/json, text/event-stream;q=0.000"],
        &["*/*, text/*;q=0"],
        &["*/*;Q=0"],
        &["application/jsonp, text/event-stream"],
        &["garbage"],
        &[""],
    ] {
        assert_code(post(&with("accept", refused), INITIALIZE), 406, -32600, "");
    }
    let mut get = with("accept", &["text/event-stream"]);
    get.insert("mcp-session-id", "s".parse().unwrap());
    assert!(matches!(classify(&Method::GET, &get, b"", &Limits::default()), Ok(Incoming::Listen { .. })));
    get.insert("accept", "application/json".parse().unwrap());
    assert_code(classify(&Method::GET, &get, b"", &Limits::default()), 406, -32600, "");
}

#[test]
fn content_type() {
    for accepted in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        r#"application/json;charset="UTF-8""#,
        " application/json ; x=y",
    ] {
        assert!(post(&with("content-type", &[accepted]), INITIALIZE).is_ok(), "{accepted}");
    }
    for refused in [
        &[][..],
        &["text/plain"],
        &["application/jsonrpc"],
        &["application/json; charset=latin1"],
        &["application/json", "application/json"],
        &["application/json, text/plain"],
        &[""],
    ] {
        assert_code(post(&with("content-type", refused), INITIALIZE), 415, -32600, "");
    }
    assert_code(post(&headers(&[("content-encoding", "gzip")]), INITIALIZE), 415, -32600, "");
    assert!(post(&headers(&[("content-encoding", "identity")]), INITIALIZE).is_ok());
}

#[test]
fn sizes() {
    let limits = Limits { body_bytes: INITIALIZE.len(), ..Limits::default() };
    let headers = headers(&[]);
    assert!(classify(&Method::POST, &headers, INITIALIZE.as_bytes(), &limits).is_ok());
    let larger = format!("{INITIALIZE} ");
    assert_code(classify(&Method::POST, &headers, larger.as_bytes(), &limits), 413, -32600, "");
}
