//! What a verified token may do: audience and membership, scopes, policy.

use std::borrow::Cow;

use identity::claims::Expected;
use identity::{Claims, policy};

use crate::cache::RequestLine;
use crate::config::{Config, Issuer};
use crate::reply::Refusal;
use crate::request::{Request, decode_name};
use crate::sites::{Sites, fill};
use crate::tokens;

/// The first protocol revision in which the MCP headers are binding: the server must refuse a request
/// whose body says something else.
const BINDING_SINCE: &str = "2026-07-28";

/// Judges a verified token for an organisation.
///
/// # Errors
/// A token for others, or of somebody who is not a member.
pub fn check(
    config: &Config,
    sites: &Sites,
    issuer: &Issuer,
    claims: &Claims,
    organisation: &str,
    now: u64,
) -> Result<(), Refusal> {
    let audience = |audience: &str| {
        sites.is_resource(audience, organisation)
            || issuer.audiences.iter().any(|known| fill(known, organisation) == audience)
    };
    let clients = (!issuer.clients.is_empty()).then_some(issuer.clients.as_slice());
    let leeway = config.clock_leeway_s;
    claims
        .check(&Expected { issuer: &issuer.issuer, audience: &audience, clients, leeway, now })
        .map_err(tokens::claims_refusal)?;
    if !claims.organisations.iter().any(|own| own == organisation) {
        return Err(not_member());
    }
    Ok(())
}

/// The refusal of who is not a member of the organisation.
pub fn not_member() -> Refusal {
    let message = "the token does not show a membership in this organisation";
    Refusal::scope("organisation_not_member", message, Vec::new())
}

/// What the policy is asked: method and name of a request whose headers are binding. The backend asks
/// it about all others.
fn asked<'a>(request: &Request, line: &RequestLine<'a>) -> Option<(&'a str, Option<Cow<'a, str>>)> {
    let version = request.one("mcp-protocol-version", 32).ok().flatten()?;
    if version.len() != BINDING_SINCE.len() || version < BINDING_SINCE {
        return None;
    }
    let method = line.mcp_method?;
    match line.mcp_name {
        None => Some((method, None)),
        // Malformed: the backend refuses it.
        Some(name) => decode_name(name).map(|name| (method, Some(name))),
    }
}

fn caller<'a>(claims: &'a Claims, organisation: &'a str) -> policy::Caller<'a> {
    policy::Caller {
        organisation,
        client: claims.client.as_deref(),
        scopes: &claims.scopes,
        roles: &claims.roles,
        groups: &claims.groups,
    }
}

/// Whether the token has the scopes that every request needs. If not, the challenge names all that this
/// one needs, so that the client gets them at once.
///
/// # Errors
/// That challenge.
pub fn check_scopes(
    config: &Config,
    request: &Request,
    claims: &Claims,
    organisation: &str,
    line: &RequestLine<'_>,
) -> Result<(), Refusal> {
    let required = &config.scopes.required;
    if required.iter().all(|scope| claims.scopes.contains(scope)) {
        return Ok(());
    }
    let mut scopes = required.clone();
    let asked = asked(request, line);
    if let Some(decision) = asked.and_then(|(method, name)| {
        config.policy.decide_by_headers(caller(claims, organisation), method, name.as_deref())
    }) {
        add_scopes(&mut scopes, decision.scopes);
    }
    Err(Refusal::scope("scope_missing", "the token lacks a scope that the request needs", scopes))
}

fn add_scopes(scopes: &mut Vec<String>, more: &[String]) {
    for scope in more {
        if !scopes.contains(scope) {
            scopes.push(scope.clone());
        }
    }
}

/// Applies the policy where the headers are binding; the backend applies it everywhere. Gives what a
/// dry run would have refused, for the log.
///
/// # Errors
/// What the policy denies, with the scopes that would help.
pub fn check_policy(
    config: &Config,
    request: &Request,
    claims: &Claims,
    organisation: &str,
    line: &RequestLine<'_>,
) -> Result<Option<String>, Refusal> {
    let policy = &config.policy;
    if policy.is_open() {
        return Ok(None);
    }
    let Some((method, name)) = asked(request, line) else {
        return Ok(None);
    };
    let decision = policy.decide_by_headers(caller(claims, organisation), method, name.as_deref());
    let Some(decision) = decision.filter(|decision| !decision.allowed()) else {
        return Ok(None);
    };
    let rule = decision.rule_name();
    if !policy.refuses(&decision) {
        return Ok(Some(format!("reason=policy_denied organisation={organisation} rule={rule:?}")));
    }
    let message = "the policy does not allow this request";
    if decision.scopes.is_empty() {
        return Err(Refusal::plain(403, "forbidden", "policy_denied", message).by(rule));
    }
    let mut scopes = config.scopes.required.clone();
    add_scopes(&mut scopes, decision.scopes);
    Err(Refusal::scope("policy_denied", message, scopes).by(rule))
}
