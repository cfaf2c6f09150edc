//! The filter's configuration, as it is written in Kong's or Envoy's files, in JSON.
//!
//! Reading never fails halfway: it gives a [`Config`] that was checked as a whole, or one
//! [`ConfigError`] that names the place and says what to do. What a wrong configuration does is decided in
//! [`crate::filter`]: every request is refused.
//!
//! The doc comments of these types are the reference: the JSON Schema for Kong and the page
//! `docs/filter-configuration.md` are made of them (`tests/schema.rs`).

mod check;

use std::collections::BTreeMap;
use std::fmt;

use identity::{ClaimNames, Policy};
use serde::Deserialize;

use crate::tree;

/// Largest configuration that is read, in bytes.
pub const MAX_CONFIG: usize = 1024 * 1024;

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
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
    /// Hosts of single organisations, beside `public_url`: what reaches the gateway under such a name is
    /// for that organisation alone, and metadata and challenges speak in that name.
    #[serde(default)]
    pub hosts: Vec<Host>,
    /// More host names, without port, under which the gateway is reached: in a `Host` header, other than
    /// the names in `public_url` and `hosts`. A request to an MCP endpoint with any other is refused. When
    /// `public_url` has a name of the loopback interface, all such names are accepted. `*` accepts all.
    #[serde(default)]
    pub accepted_hosts: Vec<String>,
    /// Web origins (`https://app.example`) that may call beside the gateway's own; a request with
    /// another `Origin` is refused.
    #[serde(default)]
    pub origins: Vec<String>,
    /// How the filter tells the backend who calls.
    pub assertion: Assertion,
    /// How a request that came through Pushpin is recognised. Without it none is.
    #[serde(default)]
    pub grip: Option<Grip>,
    /// Whether the backend gets `X-Userinfo`, as kong-oidc sends it, beside the signed assertion. Servers that
    /// read the assertion, as ours do, need no other; without it a request costs a little less.
    #[serde(default = "default_userinfo")]
    pub userinfo: bool,
    /// Who may use which method and tool. Default: everybody everything.
    #[serde(default)]
    pub policy: Policy,
    /// Where in a token the claims stand that no standard places.
    #[serde(default)]
    pub claims: Claims,
    /// How far the clocks of issuer and gateway may differ, in seconds: 0 to 300.
    #[serde(default = "default_leeway")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 0, max = 300)))]
    pub clock_leeway_s: u64,
    /// The longest token that is read, in bytes: 512 to 16384.
    #[serde(default = "default_max_token")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 512, max = 16384)))]
    pub max_token_bytes: usize,
    /// The cache of verified tokens, one for each worker of the gateway.
    #[serde(default)]
    pub token_cache: TokenCache,
    /// That the gateway's workers share the key sets which one of them has fetched, so that a worker without keys is not
    /// lost while an issuer can't be reached: the size of Kong's zone for shared data (`KONG_NGINX_WASM_SHM_KV`), in bytes,
    /// at most 1073741824. A key set takes a sixteenth of it at most. 0, the default, where there is no zone: Kong would
    /// answer 500. In Envoy, which needs no zone, any number does.
    #[serde(default)]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 0, max = 1073741824)))]
    pub shared_data_bytes: u64,
    /// The organisation that the root form of the protected resource metadata
    /// (`/.well-known/oauth-protected-resource`) describes. Without it there is no such document (404), except under an
    /// organisation's own host: nobody gets a token for the gateway as a whole.
    #[serde(default)]
    pub root_organisation: Option<String>,
    /// For Kong alone: the scheme that the backends speak, `http` or `https`. The filter sets it on a
    /// request that it accepts (nginx's variable `upstream_scheme`); without it, Kong's own configuration
    /// leaves the request with a scheme that leads nowhere, so that nothing passes without the filter.
    #[serde(default)]
    pub kong_scheme: Option<KongScheme>,
}

/// What Kong is to speak with the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
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
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Its name, to the byte as in the tokens' `iss`: an absolute URL.
    pub issuer: String,
    /// Where its keys are. With them, tokens must be signed JWTs.
    #[serde(default)]
    pub jwks: Option<Jwks>,
    /// Where to ask whether a token is still good. At least one of `jwks` and `introspection` is needed.
    /// With both, the signature is verified first, and what a token gives is what both say. Without
    /// `jwks`, tokens may be of any form; one that is no JWT belongs to the first such issuer.
    #[serde(default)]
    pub introspection: Option<Introspection>,
    /// The signature algorithms that are accepted, with `jwks`.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// What is accepted as audience (`aud`) beside the URLs of the organisation's resource. In each,
    /// `{organisation}` stands for the alias.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// The clients (`azp`) whose tokens are accepted; empty: all.
    #[serde(default)]
    pub clients: Vec<String>,
}

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037 section 3.1). None of them is symmetric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
pub enum Algorithm {
    /// RSA, PKCS #1 1.5, SHA-256.
    RS256,
    /// RSA, PKCS #1 1.5, SHA-384.
    RS384,
    /// RSA, PKCS #1 1.5, SHA-512.
    RS512,
    /// RSA, PSS, SHA-256.
    PS256,
    /// ECDSA on P-256, SHA-256.
    ES256,
    /// ECDSA on P-384, SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    /// The one of this name (`alg`), if it is implemented. Names differ by case.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::RS256,
            "RS384" => Self::RS384,
            "RS512" => Self::RS512,
            "PS256" => Self::PS256,
            "ES256" => Self::ES256,
            "ES384" => Self::ES384,
            "EdDSA" => Self::EdDSA,
            _ => return None,
        })
    }
}

/// Where an issuer's keys (RFC 7517) are, and how long they are used.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
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
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 100, max = 30000)))]
    pub timeout_ms: u64,
    /// The keys are fetched anew when they are this old, in seconds: 5 to 86400.
    #[serde(default = "default_refresh")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 5, max = 86400)))]
    pub refresh_s: u64,
    /// The keys are used until they are this old when none can be fetched, in seconds: at least
    /// `refresh_s`, at most a day.
    #[serde(default = "default_keep")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 5, max = 86400)))]
    pub keep_s: u64,
    /// Seconds between two fetches because of an unknown key id: 1 to 3600.
    #[serde(default = "default_unknown")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 1, max = 3600)))]
    pub unknown_kid_s: u64,
    /// Seconds after a failed fetch before the next: 1 to 300.
    #[serde(default = "default_retry")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 1, max = 300)))]
    pub retry_s: u64,
}

/// Token introspection (RFC 7662): the issuer is asked about each token, and its answer is kept for a
/// while.
#[derive(Clone, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Introspection {
    /// In Envoy the name of a cluster; in Kong `host:port`.
    pub upstream: String,
    /// The `Host` of the request, and with TLS the name that the certificate must have.
    /// Default: `upstream`.
    #[serde(default)]
    pub authority: Option<String>,
    /// The path of the introspection endpoint, with its `/`.
    pub path: String,
    /// Whether to ask by TLS (in Envoy the cluster decides).
    #[serde(default)]
    pub tls: bool,
    /// How long an answer may take, in milliseconds: 100 to 30000.
    #[serde(default = "default_timeout")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 100, max = 30_000)))]
    pub timeout_ms: u64,
    /// The client that asks. It must be one that may introspect tokens for other audiences.
    pub client_id: String,
    /// Its secret; sent by HTTP Basic.
    pub client_secret: String,
    /// How long an answer that a token is active is used, in seconds, at most until the token expires:
    /// 0 to 3600. So long a token that was taken back still passes.
    #[serde(default = "default_cache")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 0, max = 3600)))]
    pub cache_s: u64,
    /// How long an answer that it is not is used, in seconds: 0 to 300.
    #[serde(default = "default_negative")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 0, max = 300)))]
    pub negative_cache_s: u64,
    /// Most questions at the same time, for each worker of the gateway: 1 to 1000. What would be one more
    /// gets 503.
    #[serde(default = "default_in_flight")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 1, max = 1000)))]
    pub max_in_flight: usize,
    /// Seconds after a question that was not answered before the next: 1 to 300.
    #[serde(default = "default_retry")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 1, max = 300)))]
    pub retry_s: u64,
}

impl fmt::Debug for Introspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspection").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

/// A host of one organisation.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The address at which clients reach it: scheme, host and, where it is not the scheme's own, port; no
    /// path. Requests are distinguished by the host name alone.
    pub url: String,
    /// The alias of the organisation.
    pub organisation: String,
    /// A short path for its endpoint, such as `/mcp`, beside `/api/v1/mcp/{org}`.
    #[serde(default)]
    pub path: Option<String>,
}

/// OAuth scopes.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Scopes {
    /// The scopes that metadata and challenges advertise to clients. In each, `{organisation}`
    /// stands for the alias.
    #[serde(default)]
    pub advertised: Vec<String>,
    /// What every token must have.
    #[serde(default)]
    pub required: Vec<String>,
    /// Scopes that contain others: `{"mcp:admin": ["mcp:tools"]}`. A token with the first has the others.
    #[serde(default)]
    pub implied: BTreeMap<String, Vec<String>>,
}

/// The signed identity assertion. See `crates/identity`.
#[derive(Clone, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
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
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
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
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
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
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenCache {
    /// Most tokens: 0 (no cache) to 100000.
    #[serde(default = "default_entries")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 0, max = 100000)))]
    pub entries: usize,
    /// Most memory, about, in bytes: 0 to 1073741824. An eighth of it more is for requests of the last seconds.
    #[serde(default = "default_bytes")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 0, max = 1073741824)))]
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
fn default_userinfo() -> bool {
    true
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
fn default_cache() -> u64 {
    30
}
fn default_negative() -> u64 {
    5
}
fn default_in_flight() -> usize {
    32
}
fn default_entries() -> usize {
    4096
}
fn default_bytes() -> usize {
    16 * 1024 * 1024
}

/// What is wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {hint}")]
pub struct ConfigError {
    /// The place, such as `issuers[0].jwks.path`; `configuration` for the whole.
    pub path: String,
    /// What is wrong there, and what would be right. Shows no secret.
    pub hint: String,
}

fn wrong<T>(path: impl Into<String>, hint: impl fmt::Display) -> Result<T, ConfigError> {
    Err(ConfigError { path: path.into(), hint: hint.to_string() })
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
            ConfigError { path, hint: message }
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
}
