//! The filter itself: what becomes of a request. Pure: no host calls, no clock.
//!
//! [`Service::judge`] says of a request: answer it so, pass it on so, or fetch these keys first and ask
//! again. Whatever goes wrong on the way ends in a refusal.

use std::borrow::Cow;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::path::{self, Endpoint, EndpointKind, PathError};
use identity::{Assertion, AssertionKeys, Claims, EntryPoint, assertion};

use crate::cache::{Digest, RequestLine, digest};
use crate::checks::{check, check_policy, check_scopes, not_member};
use crate::config::{Config, ConfigError, Issuer, KongScheme};
use crate::introspect;
use crate::jwt::GripKey;
use crate::metadata;
use crate::recent::{RawRequest, Recent};
use crate::reply::{Refusal, Reply, Wording};
use crate::request::Request;
use crate::shared::SharedData;
use crate::sites::{Site, Sites, fill_all};
use crate::tokens::{self, Awaited, Halt, Progress, Tokens};

/// Longest `Mcp-Method` that goes into an assertion, in bytes.
const MAX_METHOD: usize = 128;
/// Longest `Mcp-Name` that does.
const MAX_MCP_NAME: usize = 4096;

/// Most headers of a request. Kong shows a filter the first hundred, four of which are its own, and
/// hides the others: a request with more could carry what the filter never saw.
const MAX_HEADERS: usize = 95;

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
    /// The issuer must be asked first; then the request is judged again.
    Call(Call),
}

/// What is changed in a request that goes on. `Authorization` is always set to the empty string: the
/// client's token ends here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Value of `X-Asgard-Identity`.
    pub identity: Rc<str>,
    /// Value of `X-Userinfo`, if the backend gets it.
    pub userinfo: Option<Rc<str>>,
    /// The path and query to send it to, when it came by an organisation's short path.
    pub target: Option<String>,
    /// In Kong: the scheme to send it with.
    pub scheme: Option<&'static str>,
    /// What the log says when the policy would have refused it, were it not in a dry run.
    pub would_refuse: Option<String>,
}

/// A request to an issuer.
pub struct Call {
    /// What the answer is for, to be given back to [`Service::answered`].
    pub awaited: Awaited,
    /// The gateway's upstream.
    pub upstream: String,
    /// All headers, pseudo-headers too.
    pub headers: Vec<(&'static str, String)>,
    /// The body, if it has one.
    pub body: Option<String>,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
}

enum Stop {
    Refuse(Refusal),
    Wait(Awaited),
    Preflight,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl From<Halt> for Stop {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Refuse(refusal) => Self::Refuse(refusal),
            Halt::Wait(awaited) => Self::Wait(awaited),
        }
    }
}

/// Which endpoint a request is for, and under which name.
struct Target<'a> {
    site: &'a Site,
    endpoint: Endpoint,
    /// Whether it came by the organisation's short path.
    short: bool,
    /// The path that the backend gets.
    path: Cow<'a, str>,
}

impl Service {
    /// Sets the filter up, for one worker that shares nothing with others. A wrong configuration gives one that refuses.
    pub fn new(configuration: &[u8]) -> Self {
        Self::sharing(configuration, None)
    }

    /// The same with the data that the gateway's workers share, which is used if the configuration says so.
    pub fn sharing(configuration: &[u8], data: Option<Rc<dyn SharedData>>) -> Self {
        match Config::read(configuration).and_then(|config| Filter::new(config, data)) {
            Ok(filter) => Self::Ready(Box::new(filter)),
            Err(error) => Self::Refusing(error.to_string()),
        }
    }

    /// Whether the gateway is Kong, and tells the raw target by a property.
    pub fn in_kong(&self) -> bool {
        matches!(self, Self::Ready(filter) if filter.config.kong_scheme.is_some())
    }

    /// Decides about a request, at `now` in seconds since 1970.
    pub fn judge(&mut self, request: &Request, now: u64, progress: &mut Progress) -> Step {
        let raw_request = request.raw_request();
        match self.recent(&raw_request, now) {
            Some(forward) => Step::Forward(forward.clone()),
            None => self.decide(request, &raw_request, now, progress),
        }
    }

    /// How the same request was let through a moment ago, when nothing can have changed since.
    #[inline(always)]
    pub fn recent(&mut self, raw_request: &RawRequest, now: u64) -> Option<&Forward> {
        match self {
            Self::Ready(filter) => filter.recent.get(raw_request, filter.tokens.epoch(), now),
            Self::Refusing(_) => None,
        }
    }

    /// Decides about a request by itself; `raw_request` is the same one, as the gateway gave it.
    pub fn decide(
        &mut self,
        request: &Request,
        raw_request: &RawRequest,
        now: u64,
        progress: &mut Progress,
    ) -> Step {
        match self {
            Self::Ready(filter) => filter.judge(request, raw_request, now, progress),
            Self::Refusing(_) => {
                let message = "the gateway's filter is misconfigured; its log says how";
                let refusal = Refusal::plain(503, "unavailable", "misconfigured", message);
                Step::Reply(refusal.reply(Wording { id: request.id.as_deref(), ..Wording::default() }))
            }
        }
    }

    /// Takes the outcome of a call, as [`Tokens::answered`] does. Then the request is to be judged again, with the same
    /// progress.
    ///
    /// # Errors
    /// As there.
    pub fn answered(
        &mut self,
        awaited: Awaited,
        status: Option<u16>,
        body: &[u8],
        now: u64,
        progress: &mut Progress,
    ) -> Result<(), String> {
        match self {
            Self::Ready(filter) => filter.tokens.answered(awaited, status, body, now, progress),
            Self::Refusing(_) => Ok(()),
        }
    }
}

/// A filter with a usable configuration.
pub struct Filter {
    config: Rc<Config>,
    sites: Rc<Sites>,
    tokens: Tokens,
    recent: Recent,
    assertion_keys: AssertionKeys,
    grip: Option<GripKey>,
}

impl Filter {
    /// Sets the filter up.
    ///
    /// # Errors
    /// [`ConfigError`] when a secret is not usable.
    pub fn new(config: Config, data: Option<Rc<dyn SharedData>>) -> Result<Self, ConfigError> {
        let assertion_keys = AssertionKeys::parse(&config.assertion.keys)
            .map_err(|error| ConfigError { path: "assertion.keys".into(), hint: error.to_string() })?;
        let grip = match &config.grip {
            None => None,
            Some(grip) => {
                let key = URL_SAFE_NO_PAD.decode(&grip.key).ok();
                let key =
                    key.and_then(|key| GripKey::new(&grip.issuer, &key)).ok_or_else(|| ConfigError {
                        path: "grip.key".into(),
                        hint: "give the bytes of Pushpin's sig_key in base64url without padding".into(),
                    })?;
                Some(key)
            }
        };
        let config = Rc::new(config);
        Ok(Self {
            sites: Rc::new(Sites::new(&config)),
            tokens: Tokens::new(config.clone(), data),
            recent: Recent::new(&config.token_cache),
            assertion_keys,
            grip,
            config,
        })
    }

    fn judge(
        &mut self,
        request: &Request,
        raw_request: &RawRequest,
        now: u64,
        progress: &mut Progress,
    ) -> Step {
        let (config, sites) = (self.config.clone(), self.sites.clone());
        let plain = |refusal: Refusal| {
            Step::Reply(refusal.reply(Wording { id: request.id.as_deref(), ..Wording::default() }))
        };
        if request.header_count() > MAX_HEADERS {
            let message = format!("send at most {MAX_HEADERS} headers");
            return plain(Refusal::plain(431, "invalid_request", "too_many_headers", message));
        }
        let path = path::without_query(&request.target);
        let site = request.host(config.kong_scheme.is_some()).and_then(|host| sites.of(host));
        // These documents are public, and say the same whatever name they are asked for by.
        if let Some(reply) = metadata::reply(&config, site.unwrap_or(sites.public()), request, path) {
            return Step::Reply(reply);
        }
        let Some(site) = site else {
            let message = "there is no MCP server under this host name";
            return plain(Refusal::plain(421, "misdirected_request", "host_unknown", message));
        };
        let target = match target(site, path) {
            Ok(target) => target,
            Err(error) => return plain(path_refusal(error, site, path)),
        };
        let refusal = match self.admit(request, &target, now, progress) {
            Ok((forward, same_until)) => {
                if let Some(until) = same_until {
                    self.recent.keep(raw_request, &forward, self.tokens.epoch(), now, until);
                }
                return Step::Forward(forward);
            }
            Err(Stop::Refuse(refusal)) => refusal,
            Err(Stop::Preflight) => return Step::Reply(preflight(request)),
            Err(Stop::Wait(awaited)) => match self.call(awaited, request) {
                Some(call) => return Step::Call(call),
                None => tokens::keys_unavailable(),
            },
        };
        let organisation = target.endpoint.organisation.as_str();
        let resource = if target.short { path.into() } else { target.endpoint.resource_path() };
        let wording = Wording {
            metadata: &metadata::url(site, &resource),
            scopes: &fill_all(&config.scopes.advertised, organisation),
            organisation: Some(organisation),
            id: request.id.as_deref(),
        };
        let mut reply = refusal.reply(wording);
        if let Ok(Some(origin)) = self.origin(request, site) {
            // So that a page can read the challenge.
            reply = reply
                .with("access-control-allow-origin", origin)
                .with("access-control-expose-headers", "WWW-Authenticate");
            if config.kong_scheme.is_none() {
                // Kong's cors plugin adds one itself.
                reply = reply.with("vary", "Origin");
            }
        }
        Step::Reply(reply)
    }

    /// Decides about a request for an endpoint. With the decision comes the first second in which the same request
    /// may have to be judged otherwise, if it pays to know.
    fn admit(
        &mut self,
        request: &Request,
        target: &Target<'_>,
        now: u64,
        progress: &mut Progress,
    ) -> Result<(Forward, Option<u64>), Stop> {
        if let Some(name) = request.forged_identity() {
            let message = format!("the header {name} is the gateway's own; do not send it");
            return Err(Refusal::plain(400, "invalid_request", "identity_header", message).into());
        }
        let origin = self.origin(request, target.site)?;
        if request.method == "OPTIONS" && origin.is_some() && request.has("access-control-request-method") {
            return Err(Stop::Preflight);
        }
        if !(1..=16).contains(&request.method.len())
            || !request.method.bytes().all(|byte| byte.is_ascii_uppercase())
        {
            let message = "the HTTP method is malformed";
            return Err(Refusal::plain(400, "invalid_request", "method_malformed", message).into());
        }
        let token = request.bearer(self.config.max_token_bytes)?;
        let digest = &digest(token);
        let line = self.line(request, &target.path, now);
        let organisation = target.endpoint.organisation.as_str();
        let (config, sites) = (self.config.clone(), self.sites.clone());
        let check = |issuer: &Issuer, claims: &Claims| {
            check(&config, &sites, issuer, claims, organisation, now)?;
            check_scopes(&config, request, claims, organisation, &line)
        };
        let found = self.tokens.verified(token, digest, now, progress, &check)?;
        let would_refuse = check_policy(&config, request, &found.claims, organisation, &line)?;
        let (identity, identity_until) = self.identity(digest, &found.claims, organisation, &line, now)?;
        // A dry run writes to the log each time; Pushpin's signature has an end of its own.
        let may_repeat = would_refuse.is_none() && !request.has("grip-sig");
        let token_until = found.claims.expires_at.saturating_add(config.clock_leeway_s);
        let same_until = found.same_until.zip(identity_until).filter(|_| may_repeat);
        let same_until = same_until.map(|(token, identity)| token.min(identity).min(token_until));
        let forward = Forward {
            identity,
            userinfo: config.userinfo.then_some(found.userinfo),
            target: target.short.then(|| match request.target.split_once('?') {
                Some((_, query)) => format!("{}?{query}", target.path),
                None => target.path.to_string(),
            }),
            scheme: config.kong_scheme.map(KongScheme::as_str),
            would_refuse,
        };
        Ok((forward, same_until))
    }

    /// The request's `Origin`, if it has one and it is accepted.
    fn origin<'a>(&self, request: &'a Request, site: &Site) -> Result<Option<&'a str>, Refusal> {
        let refusal = || {
            let message = "requests from this web origin are not accepted";
            Refusal::plain(403, "forbidden", "origin_refused", message)
        };
        let Some(origin) = request.one("origin", 256).map_err(|_| refusal())? else {
            return Ok(None);
        };
        let own = [&self.config.public_url, &site.url];
        if own.into_iter().chain(&self.config.origins).any(|known| known.eq_ignore_ascii_case(origin)) {
            Ok(Some(origin))
        } else {
            Err(refusal())
        }
    }

    /// What the assertion is bound to. An MCP header that comes twice or is malformed is left out, so
    /// that the backend, which sees it, finds the two different and refuses by the protocol's own rules.
    fn line<'a>(&self, request: &'a Request, path: &'a str, now: u64) -> RequestLine<'a> {
        let grip = self.grip.as_ref().zip(request.one("grip-sig", 1024).ok().flatten());
        let entry_point = match grip {
            Some((key, signature)) if key.verifies(signature, now) => EntryPoint::Hermod,
            _ => EntryPoint::Bifrost,
        };
        RequestLine {
            entry_point,
            method: &request.method,
            path,
            mcp_method: request.one("mcp-method", MAX_METHOD).ok().flatten(),
            mcp_name: request.one("mcp-name", MAX_MCP_NAME).ok().flatten(),
        }
    }

    /// The signed assertion: a fresh one, or one that was made for the same token and request line and
    /// has half of its life before it; then with the first second in which it has not.
    fn identity(
        &mut self,
        digest: &Digest,
        claims: &Claims,
        organisation: &str,
        line: &RequestLine<'_>,
        now: u64,
    ) -> Result<(Rc<str>, Option<u64>), Refusal> {
        let rest = assertion::LIFE / 2;
        if let Some((found, expires)) = self.tokens.assertion(digest, line, now.saturating_add(rest)) {
            return Ok((found, Some(expires.saturating_sub(rest).saturating_add(1))));
        }
        let expires_at = now.saturating_add(assertion::LIFE);
        let principal = claims.principal(organisation).ok_or_else(not_member)?;
        let signed: Rc<str> = self
            .assertion_keys
            .sign(&Assertion {
                principal,
                audience: assertion::AUDIENCE.to_owned(),
                entry_point: line.entry_point,
                method: line.method.to_owned(),
                path: line.path.to_owned(),
                mcp_method: line.mcp_method.map(str::to_owned),
                mcp_name: line.mcp_name.map(str::to_owned),
                issued_at: now,
                expires_at,
            })
            .into();
        if signed.len() > assertion::MAX_LEN {
            let message = "the token's scopes, roles and groups are too many to pass on";
            return Err(Refusal::plain(403, "forbidden", "identity_too_large", message));
        }
        self.tokens.keep_assertion(digest, line, signed.clone(), expires_at);
        Ok((signed, None))
    }

    /// The request to an issuer for what is awaited.
    fn call(&self, awaited: Awaited, request: &Request) -> Option<Call> {
        let issuer = |index: usize| self.config.issuers.get(index);
        match awaited {
            Awaited::Keys(index) => {
                let jwks = issuer(index)?.jwks.as_ref()?;
                let headers = vec![
                    (":method", "GET".to_owned()),
                    (":scheme", if jwks.tls { "https" } else { "http" }.to_owned()),
                    (":authority", jwks.authority.clone().unwrap_or_else(|| jwks.upstream.clone())),
                    (":path", jwks.path.clone()),
                    ("accept", "application/jwk-set+json, application/json".to_owned()),
                ];
                let (upstream, timeout_ms) = (jwks.upstream.clone(), jwks.timeout_ms);
                Some(Call { awaited, upstream, headers, body: None, timeout_ms })
            }
            Awaited::Introspection(index, _) => {
                let config = issuer(index)?.introspection.as_ref()?;
                let token = request.bearer(self.config.max_token_bytes).ok()?;
                let (headers, body) = introspect::question(config, token);
                let (upstream, timeout_ms) = (config.upstream.clone(), config.timeout_ms);
                Some(Call { awaited, upstream, headers, body: Some(body), timeout_ms })
            }
        }
    }
}

/// The endpoint that a path names under a site's name.
fn target<'a>(site: &'a Site, path: &'a str) -> Result<Target<'a>, PathError> {
    if let (Some(organisation), true) = (&site.organisation, site.path.as_deref() == Some(path)) {
        let endpoint = Endpoint { organisation: organisation.clone(), kind: EndpointKind::Streamable };
        let path = endpoint.resource_path().into();
        return Ok(Target { site, endpoint, short: true, path });
    }
    let endpoint = path::parse(path)?;
    if site.organisation.as_ref().is_some_and(|only| *only != endpoint.organisation) {
        return Err(PathError::NotAnEndpoint);
    }
    Ok(Target { site, endpoint, short: false, path: path.into() })
}

/// What is said of a path that is no endpoint: the right address, where a slash too many is all that is wrong with it.
fn path_refusal(error: PathError, site: &Site, path: &str) -> Refusal {
    let not_found = |message: String| Refusal::plain(404, "not_found", "not_found", message);
    let error = match path::without_extra_slashes(path) {
        None => error,
        Some(right) => match target(site, &right) {
            // Sessions' addresses are their owners' alone.
            Ok(_) if right.ends_with("/messages") => PathError::NotAnEndpoint,
            Ok(_) => {
                let address = format!("there is a slash too many in the path; use {}{right}", site.url);
                return not_found(address);
            }
            Err(error) => error,
        },
    };
    match error {
        PathError::NotAnEndpoint | PathError::Reserved => not_found(error.to_string()),
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
