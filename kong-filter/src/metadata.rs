//! Public documents: the protected resource metadata (RFC 9728) of each organisation, and where the
//! metadata of the authorization server is.

use identity::path::{self, PathError};
use serde_json::json;

use crate::config::Config;
use crate::reply::{Refusal, Reply, Wording};
use crate::request::Request;
use crate::sites::{Site, fill_all};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
/// Where clients of older revisions look for the authorization server's metadata: at the gateway.
const SERVER: [&str; 2] = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"];

/// URL of the metadata of an organisation's resource, under a site's name.
pub fn url(site: &Site, organisation: &str, short: bool) -> String {
    let resource = site.resource(organisation, short);
    let path = resource.strip_prefix(&site.url).unwrap_or_default();
    format!("{}{WELL_KNOWN}{path}", site.url)
}

/// Answers a request for a public document; `None` when `path` asks for something else.
///
/// The document is public, for every well-formed name of an organisation, whether there is such a one
/// or not: the gateway does not know, and would not tell.
pub fn reply(config: &Config, site: &Site, request: &Request, path: &str) -> Option<Reply> {
    let rest =
        |prefix: &str| path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let public = |reply: Reply| reply.with("access-control-allow-origin", "*");
    let refuse = |refusal: Refusal| {
        Some(public(refusal.reply(Wording { id: request.id.as_deref(), ..Wording::default() })))
    };
    // `None` in the first part: the authorization server's.
    let (resource, rest) = match (rest(WELL_KNOWN), SERVER.iter().find_map(|prefix| rest(prefix))) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        // The form that OpenID Connect Discovery has for a path.
        (None, None) => (false, path.strip_suffix(SERVER.last().copied().unwrap_or_default())?),
    };
    let organisation = match organisation(config, site, rest) {
        Ok(organisation) => organisation,
        Err(error @ (PathError::NotAnEndpoint | PathError::Reserved)) => {
            return refuse(Refusal::plain(404, "not_found", "not_found", error));
        }
        Err(error) => return refuse(Refusal::plain(400, "invalid_request", "path_malformed", error)),
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
            return refuse(refusal).map(|reply| reply.with("allow", "GET, HEAD, OPTIONS"));
        }
    }
    let cached = |reply: Reply| Some(public(reply).with("cache-control", "public, max-age=60"));
    if !resource {
        // Each issuer serves it itself, in this place, under its own name.
        let issuer = config.issuers.first()?.issuer.trim_end_matches('/');
        let location = format!("{issuer}{}", SERVER.last().copied().unwrap_or_default());
        return cached(Reply::empty(307).with("location", location));
    }
    let resource = match &organisation {
        Some(organisation) => site.resource(organisation, site.path.as_deref() == Some(rest)),
        None => site.url.clone(),
    };
    let issuers: Vec<&str> = config.issuers.iter().map(|issuer| issuer.issuer.as_str()).collect();
    let scopes = fill_all(&config.scopes.advertised, organisation.as_deref());
    let mut document = json!({
        "resource": resource,
        "authorization_servers": issuers,
        "bearer_methods_supported": ["header"],
    });
    if let (false, Some(members)) = (scopes.is_empty(), document.as_object_mut()) {
        members.insert("scopes_supported".into(), json!(scopes));
    }
    cached(Reply::json(200, &document))
}

/// The organisation that a document is asked for: by its path, or by none.
fn organisation(config: &Config, site: &Site, rest: &str) -> Result<Option<String>, PathError> {
    if rest.is_empty() {
        return Ok(site.organisation.as_ref().or(config.root_organisation.as_ref()).cloned());
    }
    if site.path.as_deref() == Some(rest) {
        return Ok(site.organisation.clone());
    }
    let endpoint = path::parse(rest)?;
    if site.organisation.as_ref().is_some_and(|only| *only != endpoint.organisation) {
        return Err(PathError::NotAnEndpoint);
    }
    Ok(Some(endpoint.organisation))
}
