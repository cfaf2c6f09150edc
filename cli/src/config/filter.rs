//! The filter's configuration (JSON), the same for both gateways but for the way to Keycloak's keys.

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::hosts::{self, Hosts, SHORT_PATH};
use crate::policy;
use crate::problem::Result;
use crate::state::{State, TokenCheck};

/// The size of the zone that Kong's workers share, in bytes: `KONG_NGINX_WASM_SHM_KV` of `kong/kong.env.in`.
const SHARED_DATA_BYTES: u32 = 2 << 20;

/// The configuration as one line of JSON. It holds the assertion's keys. `keycloak` is its `host:port`.
///
/// # Errors
/// A host that is not the name of one.
pub fn config(
    gateway: Gateway,
    state: &State,
    hosts: &Hosts,
    policy: Option<&identity::Policy>,
    keycloak: &str,
) -> Result<String> {
    let mut config = json!({
        "public_url": state.public_url,
        "issuers": [issuer(gateway, state, keycloak)],
        "scopes": {
            "advertised": ["mcp:tools", "organization"],
            "required": [],
            "implied": policy::implied_scopes(),
        },
        "hosts": own_hosts(state, hosts)?,
        "accepted_hosts": state.accepted_hosts,
        "origins": origins(state),
        "assertion": {"keys": state.secrets.assertion_keys},
        "grip": {"issuer": "pushpin", "key": state.secrets.grip_key},
        "shared_data_bytes": SHARED_DATA_BYTES,
    });
    if let Some(object) = config.as_object_mut() {
        if gateway == Gateway::Kong {
            // What the backends speak; it opens the lock of kong/kong.yml.in.
            object.insert("kong_scheme".to_owned(), json!("http"));
        }
        if let Some(policy) = policy {
            object.insert("policy".to_owned(), json!(policy));
        }
    }
    Ok(config.to_string())
}

/// Keycloak, and how its tokens are checked.
fn issuer(gateway: Gateway, state: &State, keycloak: &str) -> Value {
    let upstream = match gateway {
        // A cluster of envoy/envoy.yaml.in.
        Gateway::Envoy => "keycloak",
        Gateway::Kong => keycloak,
    };
    let endpoint = "/heimdall/realms/asgard/protocol/openid-connect";
    let jwks = json!({"upstream": upstream, "authority": keycloak, "path": format!("{endpoint}/certs")});
    let introspection = json!({
        "upstream": upstream,
        "authority": keycloak,
        "path": format!("{endpoint}/token/introspect"),
        "client_id": "bifrost",
        "client_secret": state.secrets.gateway_client,
        "cache_s": state.tokens.cache_s,
    });
    let check = state.tokens.check;
    let mut issuer = json!({"issuer": state.issuer()});
    if let Some(issuer) = issuer.as_object_mut() {
        if check != TokenCheck::Introspection {
            issuer.insert("jwks".to_owned(), jwks);
        }
        if check != TokenCheck::Keys {
            issuer.insert("introspection".to_owned(), introspection);
        }
    }
    issuer
}

/// The organisations' own hosts.
fn own_hosts(state: &State, hosts: &Hosts) -> Result<Vec<Value>> {
    let one = |(host, organisation): (&str, &str)| {
        let url = hosts::url(state, host)?;
        Ok(json!({"url": url, "organisation": organisation, "path": SHORT_PATH}))
    };
    hosts.iter().map(one).collect()
}

/// Web origins that may call: the Inspector's page under both of its names.
#[must_use]
pub fn origins(state: &State) -> Vec<String> {
    ["localhost", "127.0.0.1"].map(|host| format!("http://{host}:{}", state.ports.inspector)).into()
}
