//! Public documents: the protected resource metadata (RFC 9728) of each organisation's endpoints.

use identity::path::{self, PathError};
use serde_json::json;

use crate::config::Config;
use crate::reply::{Refusal, Reply, Wording};
use crate::request::Request;
use crate::sites::{Site, fill_all};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// URL of the metadata of a resource, by its path under a site's name.
pub fn url(site: &Site, resource: &str) -> String {
    format!("{}{WELL_KNOWN}{resource}", site.url)
}

/// Answers a request for a public document; `None` when `path` asks for something else.
///
/// The document is public, for every well-formed name of an organisation, whether there is such a one
/// or not: the gateway does not know, and would not tell.
pub fn reply(config: &Config, site: &Site, request: &Request, path: &str) -> Option<Reply> {
    let rest = path.strip_prefix(WELL_KNOWN).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    let public = |reply: Reply| reply.with("access-control-allow-origin", "*");
    let refuse = |refusal: Refusal| {
        Some(public(refusal.reply(Wording { id: request.id.as_deref(), ..Wording::default() })))
    };
    let (organisation, resource) = match resource(config, site, rest) {
        Ok(found) => found,
        Err(PathError::NotAnEndpoint | PathError::Reserved) => {
            let message = "add the path of an MCP endpoint, such as /api/v1/mcp/NAME";
            return refuse(Refusal::plain(404, "not_found", "not_found", message));
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
    let issuers: Vec<&str> = config.issuers.iter().map(|issuer| issuer.issuer.as_str()).collect();
    let scopes = fill_all(&config.scopes.advertised, &organisation);
    let mut document = json!({
        "resource": format!("{}{resource}", site.url),
        "authorization_servers": issuers,
        "bearer_methods_supported": ["header"],
    });
    if let (false, Some(members)) = (scopes.is_empty(), document.as_object_mut()) {
        members.insert("scopes_supported".into(), json!(scopes));
    }
    Some(public(Reply::json(200, &document)).with("cache-control", "public, max-age=60"))
}

/// Organisation and path of the resource that a document is asked for: the path behind the well-known part, to the
/// byte (RFC 9728 section 3.3). Without one it is the only organisation that there is, if that is so: nobody gets a
/// token for the gateway as a whole.
fn resource(config: &Config, site: &Site, rest: &str) -> Result<(String, String), PathError> {
    if rest.is_empty() {
        let only = site.organisation.as_ref().or(config.root_organisation.as_ref());
        let only = only.ok_or(PathError::NotAnEndpoint)?;
        return Ok((only.clone(), path::resource_path(only)));
    }
    if let (Some(only), true) = (&site.organisation, site.path.as_deref() == Some(rest)) {
        return Ok((only.clone(), rest.to_owned()));
    }
    let endpoint = path::parse(rest)?;
    let resource = endpoint.resource_path();
    // The older form of an address, and where messages go, are no resources of their own.
    if resource != rest || site.organisation.as_ref().is_some_and(|only| *only != endpoint.organisation) {
        return Err(PathError::NotAnEndpoint);
    }
    Ok((endpoint.organisation, resource))
}
