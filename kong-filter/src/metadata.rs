//! The protected resource metadata (RFC 9728) of each organisation.

use identity::path::{self, PathError};
use serde_json::json;

use crate::config::Config;
use crate::reply::{Refusal, Reply};
use crate::request::Request;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// URL of an organisation's resource: what its tokens have as audience.
pub fn resource(public_url: &str, organisation: &str) -> String {
    format!("{public_url}{}", path::resource_path(organisation))
}

/// URL of the metadata of an organisation's resource.
pub fn url(public_url: &str, organisation: &str) -> String {
    format!("{public_url}{WELL_KNOWN}{}", path::resource_path(organisation))
}

/// Answers a request for metadata; `None` when `path` asks for something else.
///
/// The document is public, for every well-formed name of an organisation, whether there is such a one
/// or not: the gateway does not know, and would not tell.
pub fn reply(config: &Config, request: &Request, path: &str) -> Option<Reply> {
    let rest = path.strip_prefix(WELL_KNOWN).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    let public = |reply: Reply| reply.with("access-control-allow-origin", "*");
    let refuse = |refusal: Refusal| Some(public(refusal.reply("", &[], request.id())));
    let resource = match (rest, path::parse(rest)) {
        ("", _) => match &config.root_organisation {
            Some(organisation) => resource(&config.public_url, organisation),
            None => config.public_url.clone(),
        },
        (_, Ok(endpoint)) => resource(&config.public_url, &endpoint.organisation),
        (_, Err(error @ (PathError::NotAnEndpoint | PathError::Reserved))) => {
            return refuse(Refusal::plain(404, "not_found", "not_found", error));
        }
        (_, Err(error)) => return refuse(Refusal::plain(400, "invalid_request", "path_malformed", error)),
    };
    match request.method.as_str() {
        "GET" | "HEAD" => {}
        "OPTIONS" => {
            let headers = "Accept, Authorization, Content-Type, MCP-Protocol-Version";
            let reply = public(Reply::empty(204))
                .with("access-control-allow-methods", "GET, HEAD, OPTIONS")
                .with("access-control-allow-headers", headers)
                .with("access-control-max-age", "600");
            return Some(reply);
        }
        _ => {
            let refusal = Refusal::plain(405, "method_not_allowed", "method_not_allowed", "use GET");
            return Some(public(refusal.reply("", &[], request.id())).with("allow", "GET, HEAD, OPTIONS"));
        }
    }
    let issuers: Vec<&str> = config.issuers.iter().map(|issuer| issuer.issuer.as_str()).collect();
    let mut document = json!({
        "resource": resource,
        "authorization_servers": issuers,
        "bearer_methods_supported": ["header"],
    });
    if let (false, Some(members)) = (config.scopes.advertised.is_empty(), document.as_object_mut()) {
        members.insert("scopes_supported".into(), json!(config.scopes.advertised));
    }
    Some(public(Reply::json(200, &document)).with("cache-control", "public, max-age=60"))
}
