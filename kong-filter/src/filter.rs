//! The filter itself: what becomes of a request. Pure: no host calls, no clock.
//!
//! [`Service::judge`] says of a request: answer it so, pass it on so, or fetch these keys first and ask
//! again. Whatever goes wrong on the way ends in a refusal.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::claims::Expected;
use identity::path::{self, Endpoint, PathError};
use identity::policy::{self, Effect};
use identity::{Assertion, AssertionKeys, ClaimNames, Claims, Road, assertion};

use crate::cache::{self, Digest, RequestLine, TokenCache, Verified};
use crate::config::{Config, ConfigError, KongScheme};
use crate::jwks;
use crate::jwt::{self, GripKey};
use crate::keys::{KeyStore, Lookup};
use crate::reply::{Refusal, Reply};
use crate::request::{Request, decode_name};
use crate::{metadata, userinfo};

/// Longest `Mcp-Method` that goes into an assertion, in bytes.
const MAX_METHOD: usize = 128;
/// Longest `Mcp-Name` that does.
const MAX_MCP_NAME: usize = 4096;
/// The first protocol revision in which the MCP headers are binding: the server must refuse a request
/// whose body says something else.
const BINDING_SINCE: &str = "2026-07-28";

/// A filter under one configuration: at work, or refusing everything.
pub enum Service {
    /// At work.
    Ready(Box<Filter>),
    /// The configuration is not usable; the text says why. A gateway that lets a filter fail may let
    /// requests pass without it, so it stays and refuses.
    Refusing(String),
}

/// What becomes of a request.
pub enum Step {
    /// The filter answers it.
    Reply(Reply),
    /// It goes on to the backend.
    Forward(Forward),
    /// A key set must be fetched first; then the request is judged again.
    Fetch(Fetch),
}

/// What is changed in a request that goes on. `Authorization` is always set to the empty string: the
/// client's token ends here.
pub struct Forward {
    /// Value of `X-Asgard-Identity`.
    pub identity: Rc<str>,
    /// Value of `X-Userinfo`.
    pub userinfo: Rc<str>,
    /// In Kong: the scheme to send it with.
    pub scheme: Option<&'static str>,
    /// The rule that would have refused it, were the policy not in a dry run.
    pub would_refuse: Option<String>,
}

/// A key set to fetch.
pub struct Fetch {
    /// Which issuer's, to be given back to [`Service::fetched`].
    pub issuer: usize,
    /// The gateway's upstream.
    pub upstream: String,
    /// All headers, pseudo-headers too.
    pub headers: Vec<(&'static str, String)>,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
}

enum Stop {
    Refuse(Refusal),
    Fetch(usize),
    Preflight,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl Service {
    /// Sets the filter up. A wrong configuration gives one that refuses.
    pub fn new(configuration: &[u8]) -> Self {
        match Config::read(configuration).and_then(Filter::new) {
            Ok(filter) => Self::Ready(Box::new(filter)),
            Err(error) => Self::Refusing(error.to_string()),
        }
    }

    /// Whether the gateway is Kong, and tells the raw target by a property.
    pub fn in_kong(&self) -> bool {
        matches!(self, Self::Ready(filter) if filter.config.kong_scheme.is_some())
    }

    /// Decides about a request, at `now` in seconds since 1970. `may_fetch` is false when the request
    /// has fetched keys already.
    pub fn judge(&mut self, request: &Request, now: u64, may_fetch: bool) -> Step {
        match self {
            Self::Ready(filter) => filter.judge(request, now, may_fetch),
            Self::Refusing(_) => {
                let message = "the gateway's filter is misconfigured; its log says how";
                let refusal = Refusal::plain(503, "unavailable", "misconfigured", message);
                Step::Reply(refusal.reply("", &[], request.id()))
            }
        }
    }

    /// Takes the outcome of a fetch: the HTTP status, `None` when there was no answer, and the body.
    ///
    /// # Errors
    /// What to write to the log when it brought no keys.
    pub fn fetched(
        &mut self,
        issuer: usize,
        status: Option<u16>,
        body: &[u8],
        now: u64,
    ) -> Result<(), String> {
        match self {
            Self::Ready(filter) => filter.fetched(issuer, status, body, now),
            Self::Refusing(_) => Ok(()),
        }
    }
}

/// A filter with a usable configuration.
pub struct Filter {
    config: Config,
    names: ClaimNames,
    keys: Vec<KeyStore>,
    assertion_keys: AssertionKeys,
    grip: Option<GripKey>,
    cache: TokenCache,
}

impl Filter {
    /// Sets the filter up.
    ///
    /// # Errors
    /// [`ConfigError`] when a secret is not usable.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let assertion_keys = AssertionKeys::parse(&config.assertion.keys)
            .map_err(|error| ConfigError { path: "assertion.keys".into(), mend: error.to_string() })?;
        let grip = match &config.grip {
            None => None,
            Some(grip) => {
                let key = URL_SAFE_NO_PAD.decode(&grip.key).ok();
                let key =
                    key.and_then(|key| GripKey::new(&grip.issuer, &key)).ok_or_else(|| ConfigError {
                        path: "grip.key".into(),
                        mend: "give the bytes of Pushpin's sig_key in base64url without padding".into(),
                    })?;
                Some(key)
            }
        };
        Ok(Self {
            names: config.claim_names(),
            keys: config.issuers.iter().map(|issuer| KeyStore::new(&issuer.jwks)).collect(),
            cache: TokenCache::new(config.token_cache.entries, config.token_cache.bytes),
            assertion_keys,
            grip,
            config,
        })
    }

    fn judge(&mut self, request: &Request, now: u64, may_fetch: bool) -> Step {
        let path = path::without_query(&request.target);
        if let Some(reply) = metadata::reply(&self.config, request, path) {
            return Step::Reply(reply);
        }
        let endpoint = match path::parse(path) {
            Ok(endpoint) => endpoint,
            Err(error) => return Step::Reply(path_refusal(error).reply("", &[], request.id())),
        };
        let refusal = match self.admit(request, &endpoint, path, now, may_fetch) {
            Ok(forward) => return Step::Forward(forward),
            Err(Stop::Refuse(refusal)) => refusal,
            Err(Stop::Preflight) => return Step::Reply(preflight(request)),
            Err(Stop::Fetch(issuer)) => match self.fetch(issuer) {
                Some(fetch) => return Step::Fetch(fetch),
                None => unavailable(),
            },
        };
        let url = metadata::url(&self.config.public_url, &endpoint.organisation);
        let mut reply = refusal.reply(&url, &self.config.scopes.advertised, request.id());
        if let Ok(Some(origin)) = self.origin(request) {
            // So that a page can read the challenge.
            reply = reply
                .with("access-control-allow-origin", origin)
                .with("access-control-expose-headers", "WWW-Authenticate")
                .with("vary", "Origin");
        }
        Step::Reply(reply)
    }

    fn admit(
        &mut self,
        request: &Request,
        endpoint: &Endpoint,
        path: &str,
        now: u64,
        may_fetch: bool,
    ) -> Result<Forward, Stop> {
        if let Some(name) = request.forged_identity() {
            let message = format!("the header {name} is the gateway's own; do not send it");
            return Err(Refusal::plain(400, "invalid_request", "identity_header", message).into());
        }
        let origin = self.origin(request)?;
        if request.method == "OPTIONS" && origin.is_some() && request.has("access-control-request-method") {
            return Err(Stop::Preflight);
        }
        if !(1..=16).contains(&request.method.len())
            || !request.method.bytes().all(|byte| byte.is_ascii_uppercase())
        {
            return Err(Refusal::plain(
                400,
                "invalid_request",
                "method_malformed",
                "the HTTP method is malformed",
            )
            .into());
        }
        let token = request.bearer(self.config.max_token_bytes)?;
        let digest = cache::digest(token);
        let (issuer, claims, userinfo) = self.verified(token, digest, now, may_fetch)?;
        let organisation = endpoint.organisation.as_str();
        self.check(issuer, &claims, organisation, now)?;

        let line = self.line(request, path, now);
        let would_refuse = self.check_policy(request, &claims, organisation, &line)?;
        let identity = self.identity(&digest, &claims, organisation, line, now)?;
        let scheme = self.config.kong_scheme.map(KongScheme::as_str);
        Ok(Forward { identity, userinfo, scheme, would_refuse })
    }

    /// The request's `Origin`, if it has one and it is accepted.
    fn origin<'a>(&self, request: &'a Request) -> Result<Option<&'a str>, Refusal> {
        let refusal = || {
            Refusal::plain(
                403,
                "forbidden",
                "origin_refused",
                "requests from this web origin are not accepted",
            )
        };
        let Some(origin) = request.one("origin", 256).map_err(|_| refusal())? else {
            return Ok(None);
        };
        let own = std::iter::once(&self.config.public_url).chain(&self.config.origins);
        if own.into_iter().any(|known| known.eq_ignore_ascii_case(origin)) {
            Ok(Some(origin))
        } else {
            Err(refusal())
        }
    }

    /// The claims of a token whose signature was verified, now or before.
    fn verified(
        &mut self,
        token: &str,
        digest: Digest,
        now: u64,
        may_fetch: bool,
    ) -> Result<(usize, Rc<Claims>, Rc<str>), Stop> {
        if let Some(known) = self.cache.get(&digest) {
            let found = (known.issuer, known.claims.clone(), known.userinfo.clone());
            let store = self.keys.get_mut(known.issuer).ok_or_else(unavailable)?;
            match store.lookup_cached(&known.key, now, may_fetch) {
                Lookup::Keys(_) => return Ok(found),
                Lookup::Fetch => return Err(Stop::Fetch(found.0)),
                Lookup::Unavailable => return Err(unavailable().into()),
                // The issuer took the key back: whatever it signed is judged anew.
                Lookup::Unknown => self.cache.remove(&digest),
            }
        }
        let jwt = jwt::parse(token).map_err(|error| Refusal::token(error.code(), error))?;
        let named = jwt.payload.get("iss").and_then(serde_json::Value::as_str);
        let index = self.config.issuers.iter().position(|issuer| Some(issuer.issuer.as_str()) == named);
        let wrong = || Refusal::token("issuer_wrong", identity::ClaimsError::Issuer);
        let index = index.ok_or_else(wrong)?;
        let (issuer, store) =
            self.config.issuers.get(index).zip(self.keys.get_mut(index)).ok_or_else(wrong)?;
        if !issuer.algorithms.contains(&jwt.algorithm) {
            let error = jwt::JwtError::Algorithm;
            return Err(Refusal::token(error.code(), error).into());
        }
        let keys = match store.lookup(jwt.key_id.as_deref(), jwt.algorithm, now, may_fetch) {
            Lookup::Keys(keys) => keys,
            Lookup::Fetch => return Err(Stop::Fetch(index)),
            Lookup::Unavailable => return Err(unavailable().into()),
            Lookup::Unknown => {
                return Err(Refusal::token("key_unknown", "the token is signed with an unknown key").into());
            }
        };
        // A token that names no key may be any one's; more than a few would be a way to burn CPU.
        let key = keys.into_iter().take(4).find(|key| key.verifies(jwt.signed, &jwt.signature));
        let key = key
            .ok_or_else(|| Refusal::token("signature_wrong", "the token's signature is wrong"))?
            .fingerprint;
        let claims = Claims::from_object(&jwt.payload, &self.names).map_err(claims_refusal)?;
        let userinfo = userinfo::header(&jwt.payload);
        let verified = Verified::new(index, key, claims, &userinfo);
        let found = (index, verified.claims.clone(), verified.userinfo.clone());
        if found.1.check_times(now, self.config.clock_leeway_s).is_ok() {
            self.cache.put(digest, verified, token.len());
        }
        Ok(found)
    }

    /// Judges a verified token for an organisation.
    fn check(&self, issuer: usize, claims: &Claims, organisation: &str, now: u64) -> Result<(), Refusal> {
        let issuer = self.config.issuers.get(issuer).ok_or_else(unavailable)?;
        let audience = metadata::resource(&self.config.public_url, organisation);
        let clients = (!issuer.clients.is_empty()).then_some(issuer.clients.as_slice());
        let leeway = self.config.clock_leeway_s;
        claims
            .check(&Expected { issuer: &issuer.issuer, audience: &audience, clients, leeway, now })
            .map_err(claims_refusal)?;
        if !claims.organisations.iter().any(|own| own == organisation) {
            let message = "the token does not show a membership in this organisation";
            return Err(Refusal::scope("organisation_not_member", message, Vec::new()));
        }
        let required = &self.config.scopes.required;
        if !required.iter().all(|scope| claims.scopes.contains(scope)) {
            let message = "the token lacks a scope that every request needs";
            return Err(Refusal::scope("scope_missing", message, required.clone()));
        }
        Ok(())
    }

    /// What the assertion is bound to. An MCP header that comes twice or is malformed is left out, so
    /// that the backend, which sees it, finds the two different and refuses by the protocol's own rules.
    fn line(&self, request: &Request, path: &str, now: u64) -> RequestLine {
        let grip = self.grip.as_ref().zip(request.one("grip-sig", 1024).ok().flatten());
        let road = match grip {
            Some((key, signature)) if key.verifies(signature, now) => Road::Hermod,
            _ => Road::Bifrost,
        };
        let header = |name, max| request.one(name, max).ok().flatten().map(str::to_owned);
        RequestLine {
            road,
            method: request.method.clone(),
            path: path.to_owned(),
            mcp_method: header("mcp-method", MAX_METHOD),
            mcp_name: header("mcp-name", MAX_MCP_NAME),
        }
    }

    /// Applies the policy where the headers are binding; the backend applies it everywhere. Gives the
    /// rule that a dry run would have refused by.
    fn check_policy(
        &self,
        request: &Request,
        claims: &Claims,
        organisation: &str,
        line: &RequestLine,
    ) -> Result<Option<String>, Refusal> {
        let policy = &self.config.policy;
        if policy.rules.is_empty() && policy.default == Effect::Allow {
            return Ok(None);
        }
        let version = request.one("mcp-protocol-version", 32).ok().flatten();
        let binding =
            version.is_some_and(|version| version.len() == BINDING_SINCE.len() && version >= BINDING_SINCE);
        let (true, Some(method)) = (binding, line.mcp_method.as_deref()) else {
            return Ok(None);
        };
        let name = match line.mcp_name.as_deref().map(decode_name) {
            // Malformed: the backend refuses it.
            Some(None) => return Ok(None),
            Some(name) => name,
            None => None,
        };
        let Some(caller) = claims.principal(organisation) else {
            return Err(unavailable());
        };
        let decision = policy.decide(&caller, policy::Request { method, name: name.as_deref() });
        if decision.allowed() {
            return Ok(None);
        }
        if policy.dry_run {
            return Ok(Some(decision.rule_name()));
        }
        let message = "the policy does not allow this request";
        if decision.scopes.is_empty() {
            return Err(Refusal::plain(403, "forbidden", "policy_denied", message));
        }
        let mut scopes = self.config.scopes.required.clone();
        scopes.extend(
            decision.scopes.iter().filter(|scope| !self.config.scopes.required.contains(scope)).cloned(),
        );
        Err(Refusal::scope("policy_denied", message, scopes))
    }

    /// The signed assertion: a fresh one, or one that was made for the same token and request line and
    /// has half of its life before it.
    fn identity(
        &mut self,
        digest: &Digest,
        claims: &Claims,
        organisation: &str,
        line: RequestLine,
        now: u64,
    ) -> Result<Rc<str>, Refusal> {
        let mut cached = self.cache.get(digest);
        let until = now.saturating_add(assertion::LIFE / 2);
        if let Some(found) = cached.as_ref().and_then(|known| known.assertion(&line, until)) {
            return Ok(found);
        }
        let expires_at = now.saturating_add(assertion::LIFE);
        let principal = claims.principal(organisation).ok_or_else(unavailable)?;
        let signed: Rc<str> = self
            .assertion_keys
            .sign(&Assertion {
                principal,
                audience: assertion::AUDIENCE.to_owned(),
                road: line.road,
                method: line.method.clone(),
                path: line.path.clone(),
                mcp_method: line.mcp_method.clone(),
                mcp_name: line.mcp_name.clone(),
                issued_at: now,
                expires_at,
            })
            .into();
        if signed.len() > assertion::MAX_LEN {
            let message = "the token's scopes, roles and groups are too many to pass on";
            return Err(Refusal::plain(403, "forbidden", "identity_too_large", message));
        }
        if let Some(known) = &mut cached {
            known.keep(line, signed.clone(), expires_at);
        }
        Ok(signed)
    }

    fn fetch(&self, issuer: usize) -> Option<Fetch> {
        let jwks = &self.config.issuers.get(issuer)?.jwks;
        let headers = vec![
            (":method", "GET".to_owned()),
            (":scheme", if jwks.tls { "https" } else { "http" }.to_owned()),
            (":authority", jwks.authority.clone().unwrap_or_else(|| jwks.upstream.clone())),
            (":path", jwks.path.clone()),
            ("accept", "application/jwk-set+json, application/json".to_owned()),
        ];
        Some(Fetch { issuer, upstream: jwks.upstream.clone(), headers, timeout_ms: jwks.timeout_ms })
    }

    fn fetched(&mut self, issuer: usize, status: Option<u16>, body: &[u8], now: u64) -> Result<(), String> {
        let keys = match status {
            Some(200) => jwks::parse(body).map_err(|error| error.to_string()),
            Some(status) => Err(format!("the answer has status {status}")),
            None => Err("no answer".to_owned()),
        };
        let (keys, error) = match keys {
            Ok(keys) => (Some(keys), None),
            Err(error) => (None, Some(error)),
        };
        if let Some(store) = self.keys.get_mut(issuer) {
            store.fetched(keys, now);
        }
        let name = self.config.issuers.get(issuer).map_or("", |issuer| issuer.issuer.as_str());
        error.map_or(Ok(()), |error| Err(format!("reason=jwks_unavailable issuer={name}: {error}")))
    }
}

fn claims_refusal(error: identity::ClaimsError) -> Refusal {
    Refusal::token(error.code(), error)
}

fn unavailable() -> Refusal {
    let message = "the identity provider's keys can't be had now; try again";
    Refusal::plain(503, "unavailable", "keys_unavailable", message)
}

fn path_refusal(error: PathError) -> Refusal {
    match error {
        PathError::NotAnEndpoint | PathError::Reserved => {
            Refusal::plain(404, "not_found", "not_found", error)
        }
        PathError::TooLong | PathError::Ambiguous => {
            Refusal::plain(400, "invalid_request", "path_malformed", error)
        }
    }
}

/// The answer to a CORS preflight of an accepted origin, where the gateway has no CORS of its own.
fn preflight(request: &Request) -> Reply {
    let header = |name| request.one(name, 2048).ok().flatten().unwrap_or_default().to_owned();
    Reply::empty(204)
        .with("access-control-allow-origin", header("origin"))
        .with("access-control-allow-methods", "GET, POST, DELETE")
        .with("access-control-allow-headers", header("access-control-request-headers"))
        .with("access-control-expose-headers", "Mcp-Session-Id, WWW-Authenticate")
        .with("access-control-max-age", "600")
        .with("vary", "Origin, Access-Control-Request-Headers")
}
