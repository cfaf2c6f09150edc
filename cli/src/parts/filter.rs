//! The filter's configuration (JSON), the same for both gateways but for the way to Keycloak's keys.

use serde_json::{Value, json};

use super::{Gateway, Plan};
use crate::hosts::{self, Hosts, SHORT_PATH};
use crate::policy;
use crate::problem::Result;
use crate::state::TokenCheck;

/// The configuration as one line of JSON. It holds the assertion's keys.
///
/// # Errors
/// A hosts file, or a policy, that is not as it should be.
pub(super) fn config(plan: &Plan) -> Result<String> {
    let keycloak = Plan::local(plan.state.ports.keycloak);
    let upstream = match plan.gateway {
        Gateway::Envoy => "keycloak".to_owned(),
        Gateway::Kong => keycloak.clone(),
    };
    let endpoint = "/heimdall/realms/asgard/protocol/openid-connect";
    let jwks = json!({"upstream": upstream, "authority": keycloak, "path": format!("{endpoint}/certs")});
    let introspection = json!({
        "upstream": upstream,
        "authority": keycloak,
        "path": format!("{endpoint}/token/introspect"),
        "client_id": "bifrost",
        "client_secret": plan.state.secrets.gateway_client,
        "cache_s": plan.state.tokens.cache_s,
    });
    let mut issuer = json!({"issuer": plan.state.issuer()});
    if let Some(issuer) = issuer.as_object_mut() {
        let check = plan.state.tokens.check;
        if check != TokenCheck::Introspection {
            issuer.insert("jwks".to_owned(), jwks);
        }
        if check != TokenCheck::Keys {
            issuer.insert("introspection".to_owned(), introspection);
        }
    }
    let mut config = json!({
        "public_url": plan.state.public_url,
        "issuers": [issuer],
        "scopes": {
            "advertised": ["mcp:tools", "organization"],
            "required": [],
            "implied": policy::implied_scopes(),
        },
        "hosts": hosts(plan)?,
        "accepted_hosts": plan.state.accepted_hosts,
        "origins": origins(plan),
        "assertion": {"keys": plan.state.secrets.assertion_keys},
        "grip": {"issuer": "pushpin", "key": plan.state.secrets.grip_key},
    });
    if let (Gateway::Kong, Some(object)) = (plan.gateway, config.as_object_mut()) {
        // What the backends speak; it opens the lock of kong/kong.yml.in.
        object.insert("kong_scheme".to_owned(), json!("http"));
    }
    if let Some(object) = config.as_object_mut() {
        // In Kong the size of the zone of kong/kong.env.in.
        object.insert("shared_data_bytes".to_owned(), json!(2 << 20));
    }
    if let (Some(policy), Some(object)) = (policy::load(&plan.paths)?, config.as_object_mut()) {
        object.insert("policy".to_owned(), json!(policy));
    }
    Ok(config.to_string())
}

/// The organisations' own hosts.
fn hosts(plan: &Plan) -> Result<Vec<Value>> {
    let hosts = Hosts::load(&plan.paths)?;
    let one = |(host, organisation): (&str, &str)| {
        let url = hosts::url(&plan.state, host)?;
        Ok(json!({"url": url, "organisation": organisation, "path": SHORT_PATH}))
    };
    hosts.iter().map(one).collect()
}

/// Web origins that may call: the Inspector's page under both of its names.
pub(super) fn origins(plan: &Plan) -> Vec<String> {
    ["localhost", "127.0.0.1"].map(|host| format!("http://{host}:{}", plan.state.ports.inspector)).into()
}
