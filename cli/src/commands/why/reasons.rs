//! The filter's reason codes in words: what each means, and what helps.

/// Code, meaning, fix.
type Reason = (&'static str, &'static str, &'static str);

const TOKEN: &str = "get a new token: ./asgard token USER; clients do it when they see the 401";
const CLIENT: &str = "this is for the client's author to fix";

#[rustfmt::skip]
const REASONS: &[Reason] = &[
    ("token_missing", "the request had no bearer token in its Authorization header", "log in: clients follow the challenge; by hand, ./asgard token USER"),
    ("token_malformed", "the token is no JSON Web Token, or a claim in it is of the wrong type", TOKEN),
    ("token_too_long", "the token is longer than max_token_bytes", "put fewer roles and groups into tokens, or raise max_token_bytes"),
    ("algorithm_refused", "the token is signed with an algorithm that the issuer's algorithms do not name", "compare the token's header (alg) with issuers[].algorithms"),
    ("token_kind", "the token is not an access token: an ID or refresh token, or one with a critical extension", "send the access_token of the token response"),
    ("token_bound", "the token is bound to a key of the client (DPoP or mutual TLS), which is not supported", "ask for plain bearer tokens"),
    ("key_unknown", "the issuer's key set has no key with the token's kid for that algorithm", "see whether issuers[].jwks leads to the issuer that signed the token"),
    ("signature_wrong", "the token's signature is not the issuer's: the token was changed, or is somebody else's", TOKEN),
    ("issuer_wrong", "the token's iss is none of the configured issuers", "compare iss with issuers[].issuer, to the byte: a slash more is another issuer"),
    ("subject_missing", "the token does not say whose it is (sub)", "in Keycloak the scope basic brings sub"),
    ("expiry_missing", "the token never expires", "tokens must have exp"),
    ("token_expired", "the token has expired", TOKEN),
    ("token_not_yet_valid", "the token is valid only later (nbf, iat)", "compare the clocks of the issuer and of the gateway"),
    ("audience_missing", "the token is for nobody in particular (no aud)", "ask with resource=URL of the organisation's endpoint, or add an audience mapper"),
    ("audience_wrong", "the token is for another resource than this organisation's endpoint", "ask for a token with resource=URL of this organisation's endpoint"),
    ("client_refused", "the token was issued to a client (azp) that issuers[].clients does not name", "add the client there, if it may call"),
    ("token_inactive", "the issuer says that the token is no longer good: logged out, revoked, or no longer a member", "log in again"),
    ("organisation_not_member", "the token shows no membership in the organisation of the path", "make the user a member, and let the client ask for the scope organization:NAME"),
    ("scope_missing", "the token lacks a scope that every request needs (scopes.required)", "let the client ask for the scopes that the challenge names"),
    ("policy_denied", "a rule of the policy, or its default, denies this method or tool to the caller", "./asgard can USER ORGANISATION TOOL shows which; the rules are in the policy"),
    ("origin_refused", "the request came from a web page whose origin is not configured", "add the page's origin to origins, if it is yours"),
    ("identity_too_large", "the caller has so many scopes, roles and groups that they do not fit into a header", "put fewer of them into tokens"),
    ("authorization_malformed", "the Authorization header is not one bearer token, or there are two", CLIENT),
    ("token_in_query", "the URL has an access token, which would end up in logs", CLIENT),
    ("identity_header", "the request had a header that only the gateway sets (X-Asgard-Identity, X-Userinfo)", CLIENT),
    ("path_malformed", "the path can be read in two ways: percent-encoding, double slashes, dots, or a semicolon", CLIENT),
    ("method_malformed", "the HTTP method is not one", CLIENT),
    ("not_found", "there is nothing at this path", "an organisation's endpoint is /api/v1/mcp/NAME"),
    ("method_not_allowed", "the metadata can only be read", CLIENT),
    ("host_unknown", "the request is for a host that this gateway is not", "if it is yours, add it to accepted_hosts in asgard.toml, then ./asgard reload (in containers to ACCEPTED_HOSTS in .env, then ./setup.sh); to give it to one organisation, ./asgard org add NAME --domain HOST"),
    ("too_many_headers", "the request has more headers than a filter can see", CLIENT),
    ("keys_unavailable", "the issuer's keys could not be fetched, and there are none that are recent enough", "see whether the issuer is up: ./asgard status, ./asgard logs keycloak"),
    ("introspection_unavailable", "the issuer could not be asked about the token", "see whether the issuer is up: ./asgard status, ./asgard logs keycloak"),
    ("introspection_busy", "too many tokens are being asked about at once", "raise issuers[].introspection.max_in_flight, or see why the issuer is slow"),
    ("introspection_refused", "the issuer refused the gateway's own client", "compare issuers[].introspection.client_id and client_secret with the issuer's"),
    ("misconfigured", "the filter's configuration is not usable, so every request is refused", "the gateway's log names the setting and how to fix it: ./asgard logs gateway"),
    ("gateway_failed", "the gateway did not let the filter change the request", "see the gateway's log"),
    ("host_refused", "the gateway did not let the filter change the request", "see the gateway's log"),
];

/// What a code means, and what helps.
pub(super) fn of(code: &str) -> (&'static str, &'static str) {
    REASONS.iter().find(|(known, ..)| *known == code).map_or(
        ("this version of the command does not know that reason", "see kong-filter/README.md"),
        |(_, meaning, hint)| (meaning, hint),
    )
}

/// Codes of the log lines that tell the cause behind a refusal with this code.
pub(super) fn cause_of(code: &str) -> &'static [&'static str] {
    match code {
        "keys_unavailable" => &["jwks_unavailable"],
        "introspection_unavailable" => &["introspection_unavailable"],
        "introspection_refused" => &["introspection_refused"],
        "misconfigured" => &["misconfigured"],
        _ => &[],
    }
}

/// Whether there is an explanation.
#[cfg(test)]
pub(super) fn is_known(code: &str) -> bool {
    REASONS.iter().any(|(known, ..)| *known == code)
}
