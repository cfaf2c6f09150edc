//! Template values: keys, principals, assertions, and what each request of revision 2026-07-28 carries.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use identity::{Assertion, AssertionKeys, EntryPoint, Principal};
use odin::protocol::session::SessionKeys;
use serde_json::{Value, json};

/// The server's name.
pub const SERVER: &str = "default";
/// Issuer of everybody's tokens.
pub const TOKENS: &str = "https://issuer.example";
/// What the gateway signs with.
const KEYS: &str = "k1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";

/// The keys of assertions.
#[must_use]
pub fn assertion_keys() -> AssertionKeys {
    AssertionKeys::parse(KEYS).unwrap()
}

/// The keys of session ids.
#[must_use]
pub fn session_keys() -> SessionKeys {
    SessionKeys::parse(&BASE64_URL_SAFE_NO_PAD.encode([7; 32])).unwrap()
}

/// Somebody of an organisation.
#[must_use]
pub fn principal(subject: &str, organisation: &str) -> Principal {
    Principal::new(TOKENS, subject, organisation)
}

/// The assertion (the header's value) that the gateway would send with a request of somebody: HTTP method, path, and the
/// values of `Mcp-Method` and `Mcp-Name`.
#[must_use]
pub fn assertion(
    principal: Principal,
    entry_point: EntryPoint,
    method: &str,
    path: &str,
    mcp: (Option<&str>, Option<&str>),
) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assertion_keys().sign(&Assertion {
        principal,
        audience: identity::assertion::AUDIENCE.into(),
        entry_point,
        method: method.into(),
        path: path.into(),
        mcp_method: mcp.0.map(str::to_owned),
        mcp_name: mcp.1.map(str::to_owned),
        issued_at: now,
        expires_at: now + identity::assertion::LIFE,
    })
}

/// The path of an organisation's endpoint.
#[must_use]
pub fn endpoint(organisation: &str) -> String {
    format!("/api/v1/mcp/{organisation}")
}

/// A message of JSON-RPC.
#[must_use]
pub fn request(id: impl Into<Value>, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params })
}

/// Adds the `_meta` that revision 2026-07-28 demands, with these capabilities of the client.
#[must_use]
pub fn with_meta(mut params: Value, capabilities: Value) -> Value {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities;
    params
}

/// Parameters of `initialize`.
#[must_use]
pub fn initialize(revision: &str, capabilities: Value) -> Value {
    json!({
        "protocolVersion": revision,
        "capabilities": capabilities,
        "clientInfo": { "name": "c", "version": "1" },
    })
}
