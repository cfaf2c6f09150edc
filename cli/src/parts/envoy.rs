//! Envoy as the gateway (Bifrost).
//!
//! Names in `envoy/envoy.yaml.in`: `LISTEN`, `GATEWAY_PORT`: where it listens; `FILTER_WASM`: the module's
//! path; `FILTER_CONFIG`: its configuration as a quoted string; `PUBLIC_HOST`, `PUBLIC_PORT`,
//! `PUBLIC_SCHEME`: parts of the public URL; `CORS_MCP`, `CORS_METADATA`: CORS policies of the MCP endpoints
//! (the configured origins) and of the metadata (any origin: it is public); `BACKEND_ENDPOINTS`,
//! `PUSHPIN_ENDPOINTS`, `KEYCLOAK_ENDPOINTS`: lists of Envoy's `LbEndpoint`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Plan, filter};
use crate::health::Probe;
use crate::problem::{Problem, Result};
use crate::render::{Values, render_file};
use crate::supervisor::part::{Kind, PartSpec};

/// Headers that browsers may send to an MCP endpoint.
const REQUEST_HEADERS: &str = "Authorization, Content-Type, Accept, MCP-Protocol-Version, Mcp-Session-Id, \
                               Mcp-Method, Mcp-Name, Last-Event-ID, Idempotency-Key, traceparent, tracestate, baggage";
/// Headers that scripts may read.
const RESPONSE_HEADERS: &str = "WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version, Retry-After";

pub(super) fn part(plan: &Plan) -> Result<PartSpec> {
    let program = plan.tools.envoy.clone().ok_or_else(|| Problem::new("Envoy is not installed"))?;
    let folder = plan.folder("gateway")?;
    let file = folder.join("envoy.yaml");
    render_file(&plan.paths.root.join("envoy/envoy.yaml.in"), &file, &values(plan)?)?;
    let address = format!("{}:{}", plan.state.listen, plan.state.ports.gateway);
    let host = if plan.state.listen == "0.0.0.0" { "127.0.0.1" } else { plan.state.listen.as_str() };
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let args =
        ["-c", &file.display().to_string(), "--disable-hot-restart", "--concurrency", &threads.to_string()]
            .map(str::to_owned)
            .into_iter()
            .chain(["-l", "warning", "--log-format", "%Y-%m-%d %T.%e %l %n %v"].map(str::to_owned))
            .collect();
    Ok(PartSpec {
        name: "gateway".to_owned(),
        kind: Kind::Gateway,
        address,
        program,
        args,
        env: BTreeMap::new(),
        folder,
        stale: Vec::new(),
        after: Vec::new(),
        probe: ready(host, plan.state.ports.gateway),
        start_timeout: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(3),
        orphan_signal: Signal::SIGKILL,
        stop_wave: 0,
    })
}

/// The filter itself answers this path: a good answer shows that it is loaded and configured.
pub(super) fn ready(host: &str, port: u16) -> Probe {
    Probe::Http(format!("http://{host}:{port}/.well-known/oauth-protected-resource/api/v1/mcp/org-1"))
}

fn values(plan: &Plan) -> Result<Values> {
    let url =
        reqwest::Url::parse(&plan.state.public_url).map_err(|e| Problem::new(format!("public_url: {e}")))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let host = url.host_str().unwrap_or("localhost");
    let public_host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let origins: Vec<Value> = filter::origins(plan)
        .into_iter()
        .chain([plan.state.public_url.clone()])
        .map(|origin| json!({"exact": origin}))
        .collect();
    let any = vec![json!({"safe_regex": {"regex": ".*"}})];
    let values = [
        ("LISTEN", plan.state.listen.clone()),
        ("GATEWAY_PORT", plan.state.ports.gateway.to_string()),
        ("FILTER_WASM", module(&plan.tools.filter).display().to_string()),
        // JSON within JSON: a quoted string of JSON is one of YAML.
        ("FILTER_CONFIG", Value::String(filter::config(plan)?).to_string()),
        ("PUBLIC_HOST", public_host),
        ("PUBLIC_PORT", port.to_string()),
        ("PUBLIC_SCHEME", url.scheme().to_owned()),
        ("CORS_MCP", cors(origins)),
        ("CORS_METADATA", cors(any)),
        ("BACKEND_ENDPOINTS", endpoints(plan.backend_addresses())),
        ("PUSHPIN_ENDPOINTS", endpoints([Plan::local(plan.state.ports.pushpin)])),
        ("KEYCLOAK_ENDPOINTS", endpoints([Plan::local(plan.state.ports.keycloak)])),
    ];
    Ok(values.map(|(name, value)| (name.to_owned(), value)).into())
}

/// The module for Envoy beside the one for Kong, if there is one: with fewer events, so that a request costs less.
fn module(filter: &Path) -> PathBuf {
    let lean = filter.with_extension("envoy.wasm");
    if lean.is_file() { lean } else { filter.to_owned() }
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
fn endpoints(addresses: impl IntoIterator<Item = String>) -> String {
    let one = |address: String| {
        let (host, port) = address.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        Some(
            json!({"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}})
                .to_string(),
        )
    };
    addresses.into_iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_envoys() {
        assert_eq!(
            endpoints(["127.0.0.1:1".to_owned()]),
            r#"{"endpoint":{"address":{"socket_address":{"address":"127.0.0.1","port_value":1}}}}"#
        );
    }
}
