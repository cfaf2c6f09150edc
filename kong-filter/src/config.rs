//! The filter's configuration, as it is written in Kong's or Envoy's files, in JSON.
//!
//! Reading never fails halfway: it gives a [`Config`] that was checked as a whole, or one
//! [`ConfigError`] that names the place and the mend. What a wrong configuration does is decided in
//! [`crate::filter`]: every request is refused.

use std::fmt;

use identity::{ClaimNames, Policy, path};
use serde::Deserialize;

use crate::tree;

/// Largest configuration that is read, in bytes.
pub const MAX_CONFIG: usize = 1024 * 1024;

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address at which clients reach the gateway: scheme, host and, where it is not the scheme's
    /// own, port; no path. The OAuth resource of an organisation is this and `/api/v1/mcp/{org}`.
    pub public_url: String,
    /// The OpenID providers whose tokens are accepted, 1 to 8.
    pub issuers: Vec<Issuer>,
    /// OAuth scopes.
    #[serde(default)]
    pub scopes: Scopes,
    /// Web origins (`https://app.example`) that may call beside the gateway's own; a request with
    /// another `Origin` is refused.
    #[serde(default)]
    pub origins: Vec<String>,
    /// How the filter tells the backend who calls.
    pub assertion: Assertion,
    /// How a request that came through Pushpin is recognised. Without it none is.
    #[serde(default)]
    pub grip: Option<Grip>,
    /// Who may use which method and tool. Default: everybody everything.
    #[serde(default)]
    pub policy: Policy,
    /// Where in a token the claims stand that no standard places.
    #[serde(default)]
    pub claims: Claims,
    /// How far the clocks of issuer and gateway may differ, in seconds: 0 to 300.
    #[serde(default = "default_leeway")]
    pub clock_leeway_s: u64,
    /// The longest token that is read, in bytes: 512 to 16384.
    #[serde(default = "default_max_token")]
    pub max_token_bytes: usize,
    /// The cache of verified tokens, one for each worker of the gateway.
    #[serde(default)]
    pub token_cache: TokenCache,
    /// The organisation that the root form of the protected resource metadata
    /// (`/.well-known/oauth-protected-resource`) describes. Without it that document describes the
    /// gateway as a whole.
    #[serde(default)]
    pub root_organisation: Option<String>,
    /// For Kong alone: the scheme that the backends speak, `http` or `https`. The filter sets it on a
    /// request that it accepts (`kong.service.request.scheme`); without it, Kong's own configuration
    /// leaves the request with a scheme that leads nowhere, so that nothing passes without the filter.
    #[serde(default)]
    pub kong_scheme: Option<KongScheme>,
}

/// What Kong is to speak with the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KongScheme {
    /// HTTP in the clear.
    Http,
    /// HTTP over TLS.
    Https,
}

impl KongScheme {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// An OpenID provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Its name, to the byte as in the tokens' `iss`: an absolute URL.
    pub issuer: String,
    /// Where its keys are.
    pub jwks: Jwks,
    /// The signature algorithms that are accepted.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// The clients (`azp`) whose tokens are accepted; empty: all.
    #[serde(default)]
    pub clients: Vec<String>,
}

/// A signature algorithm (RFC 7518 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// RSA, PKCS #1 1.5, SHA-256.
    RS256,
    /// ECDSA on P-256, SHA-256.
    ES256,
}

/// Where an issuer's keys (RFC 7517) are, and how long they are used.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwks {
    /// In Envoy the name of a cluster; in Kong `host:port`.
    pub upstream: String,
    /// The `Host` of the request, and with TLS the name that the certificate must have.
    /// Default: `upstream`.
    #[serde(default)]
    pub authority: Option<String>,
    /// The path of the key set, with its `/`.
    pub path: String,
    /// Whether to fetch by TLS (in Envoy the cluster decides).
    #[serde(default)]
    pub tls: bool,
    /// How long a fetch may take, in milliseconds: 100 to 30000.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    /// The keys are fetched anew when they are this old, in seconds: at least 5.
    #[serde(default = "default_refresh")]
    pub refresh_s: u64,
    /// The keys are used until they are this old when none can be fetched, in seconds: at least
    /// `refresh_s`, at most a day.
    #[serde(default = "default_keep")]
    pub keep_s: u64,
    /// Seconds between two fetches because of an unknown key id: 1 to 3600.
    #[serde(default = "default_unknown")]
    pub unknown_kid_s: u64,
    /// Seconds after a failed fetch before the next: 1 to 300.
    #[serde(default = "default_retry")]
    pub retry_s: u64,
}

/// OAuth scopes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scopes {
    /// What clients are told to ask for: in the metadata and in challenges.
    #[serde(default)]
    pub advertised: Vec<String>,
    /// What every token must have.
    #[serde(default)]
    pub required: Vec<String>,
}

/// The signed identity assertion. See `crates/identity`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// The shared secrets, `id:base64url[,id:base64url]`, each of at least 32 bytes; the first signs.
    pub keys: String,
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion").finish_non_exhaustive()
    }
}

/// How Pushpin signs the requests that it passes on (its options `sig_iss` and `sig_key`).
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grip {
    /// `sig_iss`.
    pub issuer: String,
    /// The bytes of `sig_key`, in base64url without padding.
    pub key: String,
}

impl fmt::Debug for Grip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grip").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Where claims stand: JSON pointers (RFC 6901) into the token's payload.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The organisations. Default: `/organization`.
    #[serde(default)]
    pub organisations: Option<String>,
    /// The roles. Default: `/realm_access/roles`.
    #[serde(default)]
    pub roles: Option<String>,
    /// The groups. Default: `/groups`.
    #[serde(default)]
    pub groups: Option<String>,
}

/// Bounds of the token cache.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenCache {
    /// Most tokens: 0 (no cache) to 100000.
    #[serde(default = "default_entries")]
    pub entries: usize,
    /// Most memory, about, in bytes.
    #[serde(default = "default_bytes")]
    pub bytes: usize,
}

impl Default for TokenCache {
    fn default() -> Self {
        Self { entries: default_entries(), bytes: default_bytes() }
    }
}

fn default_leeway() -> u64 {
    30
}
fn default_max_token() -> usize {
    8192
}
fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256]
}
fn default_timeout() -> u64 {
    3000
}
fn default_refresh() -> u64 {
    300
}
fn default_keep() -> u64 {
    3600
}
fn default_unknown() -> u64 {
    10
}
fn default_retry() -> u64 {
    2
}
fn default_entries() -> usize {
    4096
}
fn default_bytes() -> usize {
    16 * 1024 * 1024
}

/// What is wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {mend}")]
pub struct ConfigError {
    /// The place, such as `issuers[0].jwks.path`; `configuration` for the whole.
    pub path: String,
    /// What is wrong there, and what would be right. Shows no secret.
    pub mend: String,
}

fn wrong<T>(path: impl Into<String>, mend: impl fmt::Display) -> Result<T, ConfigError> {
    Err(ConfigError { path: path.into(), mend: mend.to_string() })
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// [`ConfigError`] names the first thing that is wrong.
    pub fn read(json: &[u8]) -> Result<Self, ConfigError> {
        if json.is_empty() {
            return wrong("configuration", "there is none; give it as a JSON object");
        }
        if json.len() > MAX_CONFIG {
            return wrong("configuration", format_args!("larger than {MAX_CONFIG} bytes"));
        }
        let value = match identity::json::read(json) {
            Ok(value) => value,
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                return wrong(
                    "configuration",
                    format_args!("not JSON, or a member comes twice: see line {line}, column {column}"),
                );
            }
        };
        let config: Self = tree::read(&value).map_err(|tree::Error { path, message }| {
            let path = if path.is_empty() { "configuration".to_owned() } else { path };
            ConfigError { path, mend: message }
        })?;
        config.check()?;
        Ok(config)
    }

    /// The names of the claims, with the defaults filled in.
    pub fn claim_names(&self) -> ClaimNames {
        let default = ClaimNames::default();
        ClaimNames {
            organisations: self.claims.organisations.clone().unwrap_or(default.organisations),
            roles: self.claims.roles.clone().unwrap_or(default.roles),
            groups: self.claims.groups.clone().unwrap_or(default.groups),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_origin("public_url", &self.public_url)?;
        if !(1..=8).contains(&self.issuers.len()) {
            return wrong("issuers", "give 1 to 8 issuers");
        }
        for (index, issuer) in self.issuers.iter().enumerate() {
            issuer.check(&format!("issuers[{index}]"))?;
            if self.issuers.iter().take(index).any(|other| other.issuer == issuer.issuer) {
                return wrong(
                    format!("issuers[{index}].issuer"),
                    "the same issuer comes twice; name each once",
                );
            }
        }
        for (name, scopes) in [("advertised", &self.scopes.advertised), ("required", &self.scopes.required)] {
            for (index, scope) in scopes.iter().enumerate() {
                if scope.is_empty() || scope.len() > 256 || !scope.bytes().all(is_scope_byte) {
                    let place = format!("scopes.{name}[{index}]");
                    return wrong(place, "a scope is 1 to 256 visible ASCII characters without \" and \\");
                }
            }
        }
        for (index, origin) in self.origins.iter().enumerate() {
            check_origin(&format!("origins[{index}]"), origin)?;
        }
        if let Err(error) = self.policy.check() {
            return wrong("policy", error);
        }
        for (name, pointer) in [
            ("organisations", &self.claims.organisations),
            ("roles", &self.claims.roles),
            ("groups", &self.claims.groups),
        ] {
            if pointer.as_ref().is_some_and(|pointer| !pointer.starts_with('/') || pointer.len() > 256) {
                return wrong(format!("claims.{name}"), "give a JSON pointer such as /realm_access/roles");
            }
        }
        range("clock_leeway_s", self.clock_leeway_s, 0, 300)?;
        range("max_token_bytes", self.max_token_bytes as u64, 512, 16_384)?;
        range("token_cache.entries", self.token_cache.entries as u64, 0, 100_000)?;
        range("token_cache.bytes", self.token_cache.bytes as u64, 0, 1 << 30)?;
        if self.root_organisation.as_ref().is_some_and(|alias| !path::is_alias(alias)) {
            return wrong("root_organisation", "this can't be an organisation's alias");
        }
        Ok(())
    }
}

impl Issuer {
    fn check(&self, at: &str) -> Result<(), ConfigError> {
        let issuer = &self.issuer;
        if !is_url(issuer) || issuer.contains(['?', '#']) {
            return wrong(
                format!("{at}.issuer"),
                "give the issuer's URL as in the tokens' iss: http(s)://host/…, without query and fragment",
            );
        }
        if self.algorithms.is_empty() {
            return wrong(
                format!("{at}.algorithms"),
                "name at least one of RS256, ES256, or leave the list out",
            );
        }
        let jwks = &self.jwks;
        // Kong traps on an upstream with a scheme; Envoy's cluster names are free.
        let upstream = jwks.upstream.as_str();
        if upstream.is_empty()
            || upstream.len() > 256
            || !upstream.bytes().all(is_visible)
            || upstream.contains('/')
        {
            return wrong(
                format!("{at}.jwks.upstream"),
                "give the name of a cluster (Envoy) or host:port (Kong), without scheme and path",
            );
        }
        let authority = jwks.authority.as_deref().unwrap_or(upstream);
        if authority.is_empty()
            || authority.len() > 256
            || !authority.bytes().all(is_visible)
            || authority.contains('/')
        {
            return wrong(format!("{at}.jwks.authority"), "give host or host:port");
        }
        if !jwks.path.starts_with('/') || jwks.path.len() > 1024 || !jwks.path.bytes().all(is_visible) {
            return wrong(format!("{at}.jwks.path"), "give the path of the key set, beginning with /");
        }
        range(&format!("{at}.jwks.timeout_ms"), jwks.timeout_ms, 100, 30_000)?;
        range(&format!("{at}.jwks.refresh_s"), jwks.refresh_s, 5, 86_400)?;
        range(&format!("{at}.jwks.keep_s"), jwks.keep_s, jwks.refresh_s, 86_400)?;
        range(&format!("{at}.jwks.unknown_kid_s"), jwks.unknown_kid_s, 1, 3600)?;
        range(&format!("{at}.jwks.retry_s"), jwks.retry_s, 1, 300)
    }
}

fn range(path: &str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    wrong(path, format_args!("{value} is out of range; give {least} to {most}"))
}

fn check_origin(path: &str, url: &str) -> Result<(), ConfigError> {
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
    match host {
        Some(host) if !host.is_empty() && host.len() <= 256 && host.bytes().all(plain) => Ok(()),
        _ => wrong(
            path,
            "give scheme and host, and port if any, in lower case and without a path: https://mcp.example",
        ),
    }
}

fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        && url.len() <= identity::claims::MAX_NAME
        && url.bytes().all(|byte| is_visible(byte) && byte != b'"' && byte != b'\\')
}

fn is_visible(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

/// scope-token of RFC 6749 section 3.3.
fn is_scope_byte(byte: u8) -> bool {
    is_visible(byte) && byte != b'"' && byte != b'\\'
}
