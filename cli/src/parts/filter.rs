//! The filter's configuration (JSON), the same for both gateways but for the way to Keycloak's keys.

use serde_json::json;

use super::{Gateway, Plan};

/// The configuration as one line of JSON. It holds the assertion's keys.
pub(super) fn config(plan: &Plan) -> String {
    let keycloak = Plan::local(plan.state.ports.keycloak);
    let upstream = match plan.gateway {
        Gateway::Envoy => "keycloak".to_owned(),
        Gateway::Kong => keycloak.clone(),
    };
    let mut config = json!({
        "public_url": plan.state.public_url,
        "issuers": [{
            "issuer": plan.state.issuer(),
            "jwks": {
                "upstream": upstream,
                "authority": keycloak,
                "path": "/heimdall/realms/asgard/protocol/openid-connect/certs",
            },
        }],
        "scopes": {"advertised": ["mcp:tools", "organization"], "required": []},
        "origins": origins(plan),
        "assertion": {"keys": plan.state.secrets.assertion_keys},
        "grip": {"issuer": "pushpin", "key": plan.state.secrets.grip_key},
    });
    if let (Gateway::Kong, Some(object)) = (plan.gateway, config.as_object_mut()) {
        // What the backends speak; it opens the lock of kong/kong.yml.in.
        object.insert("kong_scheme".to_owned(), json!("http"));
    }
    config.to_string()
}

/// Web origins that may call: the Inspector's page under both of its names.
pub(super) fn origins(plan: &Plan) -> Vec<String> {
    ["localhost", "127.0.0.1"].map(|host| format!("http://{host}:{}", plan.state.ports.inspector)).into()
}
