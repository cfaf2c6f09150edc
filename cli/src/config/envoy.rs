//! Envoy's file, from the template in `envoy/`.
//!
//! Names in `envoy/envoy.yaml.in`: `LISTEN`, `GATEWAY_PORT`: where it listens; `FILTER_WASM`: the module's
//! path; `FILTER_CONFIG`: its configuration as a quoted string; `PUBLIC_HOST`, `PUBLIC_PORT`,
//! `PUBLIC_SCHEME`: parts of the public URL; `CORS_MCP`, `CORS_METADATA`: CORS policies of the MCP endpoints
//! (the configured origins) and of the metadata (any origin: it is public); `BACKEND_ENDPOINTS`,
//! `PUSHPIN_ENDPOINTS`, `KEYCLOAK_ENDPOINTS`: lists of Envoy's `LbEndpoint`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Settings;
use crate::problem::{Problem, Result};
use crate::render::{Values, render_template, values};

/// Headers that browsers may send to an MCP endpoint.
const REQUEST_HEADERS: &str = "Authorization, Content-Type, Accept, MCP-Protocol-Version, Mcp-Session-Id, \
                               Mcp-Method, Mcp-Name, Last-Event-ID, Idempotency-Key, traceparent, tracestate, baggage";
/// Headers that scripts may read.
const RESPONSE_HEADERS: &str = "WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version, Retry-After";

/// Fills in `envoy.yaml`, which holds secrets. `filter` is the module, where Envoy finds it.
///
/// # Errors
/// A template that cannot be read, or names something that has no value; a public URL that is none.
pub fn file(settings: &Settings, filter: &Path) -> Result<String> {
    render_template(&settings.root.join("envoy/envoy.yaml.in"), &all_values(settings, filter)?)
}

/// The module for Envoy beside the one for Kong, if there is one: with fewer events, so that a request costs less.
#[must_use]
pub fn module(filter: &Path) -> PathBuf {
    let lean = filter.with_extension("envoy.wasm");
    if lean.is_file() { lean } else { filter.to_owned() }
}

fn all_values(settings: &Settings, filter: &Path) -> Result<Values> {
    let url =
        reqwest::Url::parse(&settings.public_url).map_err(|e| Problem::new(format!("public_url: {e}")))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let host = url.host_str().unwrap_or("localhost");
    let public_host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let origins = settings.origins.iter().map(|origin| json!({"exact": origin})).collect();
    let any = vec![json!({"safe_regex": {"regex": ".*"}})];
    Ok(values([
        ("LISTEN", settings.listen.clone()),
        ("GATEWAY_PORT", settings.port.to_string()),
        ("FILTER_WASM", filter.display().to_string()),
        // JSON within JSON: a quoted string of JSON is one of YAML.
        ("FILTER_CONFIG", Value::String(settings.filter_config.clone()).to_string()),
        ("PUBLIC_HOST", public_host),
        ("PUBLIC_PORT", port.to_string()),
        ("PUBLIC_SCHEME", url.scheme().to_owned()),
        ("CORS_MCP", cors(origins)),
        ("CORS_METADATA", cors(any)),
        ("BACKEND_ENDPOINTS", endpoints(&settings.backends)),
        ("PUSHPIN_ENDPOINTS", endpoints(&settings.pushpins)),
        ("KEYCLOAK_ENDPOINTS", endpoints(std::slice::from_ref(&settings.keycloak))),
    ]))
}

fn cors(origins: Vec<Value>) -> String {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": origins,
        "allow_methods": "GET, POST, DELETE, OPTIONS",
        "allow_headers": REQUEST_HEADERS,
        "expose_headers": RESPONSE_HEADERS,
        "max_age": "600",
        "forward_not_matching_preflights": false,
    })
    .to_string()
}

/// Envoy's `LbEndpoint`s, separated by commas.
fn endpoints(addresses: &[String]) -> String {
    let one = |address: &String| {
        let (host, port) = address.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        Some(
            json!({"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}})
                .to_string(),
        )
    };
    addresses.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_envoys() {
        assert_eq!(
            endpoints(&["127.0.0.1:1".to_owned()]),
            r#"{"endpoint":{"address":{"socket_address":{"address":"127.0.0.1","port_value":1}}}}"#
        );
    }
}
