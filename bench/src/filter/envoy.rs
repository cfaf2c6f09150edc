//! Envoys that differ in one HTTP filter.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use super::ASSERTION_KEYS;
use super::issuer::{ISSUER, PUBLIC_URL};
use crate::Result;
use crate::wire::Connection;

/// What stands between client and backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Nothing,
    /// Envoy's own token check.
    JwtAuthn,
    /// Our filter.
    Ours,
}

/// What an Envoy is made of.
pub struct Site<'a> {
    pub program: &'a Path,
    pub wasm: &'a Path,
    pub folder: &'a Path,
    pub jwks: &'a str,
    pub jwks_port: u16,
    pub backend_port: u16,
    /// Changes to our filter's configuration.
    pub settings: Value,
}

/// A running Envoy with one worker; it ends when this is dropped.
pub struct Envoy {
    pub port: u16,
    pub pid: u32,
    _child: tokio::process::Child,
}

fn type_of(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.filters.{name}")
}

fn filter(kind: Kind, site: &Site<'_>) -> Option<Value> {
    match kind {
        Kind::Nothing => None,
        // It takes the token off, and passes its claims on, as ours does.
        Kind::JwtAuthn => Some(json!({"name": "jwt_authn", "typed_config": {
            "@type": type_of("http.jwt_authn.v3.JwtAuthentication"),
            "providers": {"keycloak": {
                "issuer": ISSUER,
                "audiences": [format!("{PUBLIC_URL}/api/v1/mcp/org-1")],
                "local_jwks": {"inline_string": site.jwks},
                "forward_payload_header": "x-userinfo",
                "jwt_cache_config": {"jwt_cache_size": 4096},
            }},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "keycloak"}}],
        }})),
        Kind::Ours => {
            let mut settings = json!({
                "public_url": PUBLIC_URL,
                "issuers": [{"issuer": ISSUER, "jwks": {"upstream": "keycloak", "path": "/certs"}}],
                "scopes": {"advertised": ["mcp:tools", "organization"], "required": ["mcp:tools"]},
                "origins": ["http://localhost:6274"],
                "assertion": {"keys": ASSERTION_KEYS},
                "grip": {"issuer": "pushpin", "key": "YW5vdGhlci1zZWNyZXQtb2YtMzItYnl0ZXMtb3ItbW9y"},
                "policy": {"rules": [
                    {"name": "no drops", "effect": "deny", "methods": ["tools/call"], "names": ["drop*"]},
                ]},
            });
            if let (Some(all), Some(more)) = (settings.as_object_mut(), site.settings.as_object()) {
                all.extend(more.clone());
            }
            Some(json!({"name": "bifrost", "typed_config": {
                "@type": type_of("http.wasm.v3.Wasm"),
                "config": {
                    "name": "bifrost", "root_id": "bifrost", "failure_policy": "FAIL_RELOAD",
                    "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": settings.to_string()},
                    "vm_config": {"vm_id": "bifrost", "runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": site.wasm}}},
                },
            }}))
        }
    }
}

fn cluster(name: &str, port: u16) -> Value {
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
            {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]},
    })
}

impl Envoy {
    /// Starts one with this filter, and waits until it listens.
    pub async fn start(kind: Kind, site: &Site<'_>) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let filters: Vec<Value> = filter(kind, site)
            .into_iter()
            .chain([json!({"name": "router", "typed_config": {"@type": type_of("http.router.v3.Router")}})])
            .collect();
        let manager = json!({
            "@type": type_of("network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "bench",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "backend"}},
            ]}]},
            "http_filters": filters,
        });
        let config = json!({"static_resources": {
            "listeners": [{
                "name": "bench",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
            }],
            "clusters": [cluster("keycloak", site.jwks_port), cluster("backend", site.backend_port)],
        }});
        let file: PathBuf = site.folder.join(format!("envoy-{port}.json"));
        std::fs::write(&file, config.to_string())?;
        let mut child = tokio::process::Command::new(site.program)
            .args(["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or("Envoy ended at once")?;
        for _ in 0..600 {
            if let Some(status) = child.try_wait()? {
                return Err(format!("Envoy ended: {status}").into());
            }
            if Connection::open(&format!("localhost:{port}")).await.is_ok() {
                return Ok(Self { port, pid, _child: child });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("Envoy does not listen".into())
    }
}
