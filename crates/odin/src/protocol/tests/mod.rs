//! Tables of the rules with the exact answers, and properties over arbitrary input.

mod era;
mod modern;
mod negotiation;
mod nulls;
mod origin;
mod params;
mod properties;
mod session;
mod session_era;
mod sse;
mod well_formed;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::{Incoming, Limits, Refusal, classify};

/// `_meta` that has all that a stateless request needs.
pub(super) const META: &str = concat!(
    r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientCapabilities":{}}"#
);

pub(super) fn headers(extra: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("accept", HeaderValue::from_static("application/json, text/event-stream"));
    for (name, value) in extra {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// Headers of a stateless request for `method` with `Mcp-Name`, if any.
pub(super) fn modern_headers(method: &str, name: Option<&str>) -> HeaderMap {
    let mut all = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
    all.extend(name.map(|name| ("mcp-name", name)));
    headers(&all)
}

pub(super) fn post<'a>(headers: &'a HeaderMap, body: &'a str) -> Result<Incoming<'a>, Refusal> {
    classify(&Method::POST, headers, body.as_bytes(), &Limits::default())
}

/// Asserts the refusal's status and its body, byte for byte.
#[track_caller]
pub(super) fn assert_refused(result: Result<Incoming<'_>, Refusal>, status: StatusCode, body: &str) {
    let refusal = match result {
        Err(refusal) => refusal,
        Ok(incoming) => panic!("accepted: {incoming:?}"),
    };
    let response = refusal.into_response();
    assert_eq!(std::str::from_utf8(response.body()).unwrap(), body);
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/json");
}

/// Asserts the refusal's status, code and id (as JSON; "" for none).
#[track_caller]
pub(super) fn assert_code(result: Result<Incoming<'_>, Refusal>, status: u16, code: i32, id: &str) {
    let refusal = match result {
        Err(refusal) => refusal,
        Ok(incoming) => panic!("accepted: {incoming:?}"),
    };
    let body: serde_json::Value = serde_json::from_slice(&refusal.body()).unwrap();
    assert_eq!((refusal.status().as_u16(), refusal.code()), (status, code), "{body}");
    assert_eq!(body.get("id").map(ToString::to_string).unwrap_or_default(), id, "{body}");
    assert_eq!(body["jsonrpc"], "2.0");
    assert!(body["error"]["message"].as_str().unwrap().len() > 10);
}
