//! The Lua plugins that `kong/` uses, as they behave in Kong 3.9: pre-function, cors, request-transformer.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use regex::Regex;
use serde::Deserialize;

use crate::config::{ConfigError, Plugin};

/// What the plugins of a route or Service do, in Kong's order.
#[derive(Debug, Default)]
pub struct Plugins {
    /// pre-function: what it does.
    pub function: Option<Function>,
    /// cors.
    pub cors: Option<Cors>,
    /// request-transformer.
    pub transformer: Option<Transformer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreFunction {
    access: Vec<String>,
}

/// What a pre-function does, of what is played here.
#[derive(Debug, Default)]
pub struct Function {
    /// More headers than these are refused with 431.
    pub max_headers: Option<usize>,
    /// The scheme that it writes.
    pub scheme: Option<String>,
}

/// The plugin cors.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    origins: Vec<String>,
    methods: Vec<String>,
    headers: Vec<String>,
    exposed_headers: Vec<String>,
    max_age: u32,
    credentials: bool,
    preflight_continue: bool,
}

/// The plugin request-transformer: removal of headers, another path.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transformer {
    /// `remove`.
    pub remove: Remove,
    /// `replace`.
    pub replace: Replace,
}

/// What request-transformer removes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Remove {
    /// Names of headers.
    pub headers: Vec<String>,
}

/// What request-transformer replaces.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replace {
    /// The path, with `$(uri_captures.NAME)`.
    pub uri: Option<String>,
}

impl Plugins {
    /// Reads the plugins of a route and its Service; a plugin of the route takes the place of the Service's.
    ///
    /// # Errors
    /// When a plugin is not one of the three, or its configuration not one that Kong takes.
    pub fn new<'a>(plugins: impl Iterator<Item = &'a Plugin>) -> Result<Self, ConfigError> {
        let mut all = Self::default();
        for plugin in plugins {
            let bad = |e: serde_json::Error| ConfigError(format!("plugin {}: {e}", plugin.name));
            let config = plugin.config.clone();
            match plugin.name.as_str() {
                "pre-function" => {
                    let function: PreFunction = serde_json::from_value(config).map_err(bad)?;
                    all.function.get_or_insert(function_of(&function)?);
                }
                "cors" => {
                    let cors: Cors = serde_json::from_value(config).map_err(bad)?;
                    if cors.credentials || cors.preflight_continue {
                        return Err(ConfigError("cors: not played here".into()));
                    }
                    all.cors.get_or_insert(cors);
                }
                "request-transformer" => {
                    all.transformer.get_or_insert(serde_json::from_value(config).map_err(bad)?);
                }
                other => return Err(ConfigError(format!("plugin {other} is not played here"))),
            }
        }
        Ok(all)
    }
}

/// Lua is not run here: the two statements of `kong.yml` are recognised. A real nginx runs them, `tests/nginx.rs`.
fn function_of(source: &PreFunction) -> Result<Function, ConfigError> {
    const REFUSE: [&str; 2] = [
        "if select(2, ngx.req.get_headers(",
        ")) then return kong.response.exit(431, { message = \"Too many request headers\" }) end",
    ];
    let mut function = Function::default();
    for statement in &source.access {
        let not_played = || ConfigError(format!("pre-function: not played here: {statement}"));
        let [before, after] = REFUSE;
        if let Some(number) = statement.strip_prefix(before).and_then(|s| s.strip_suffix(after)) {
            function.max_headers = Some(number.parse().map_err(|_| not_played())?);
        } else {
            let scheme =
                statement.strip_prefix("ngx.var.upstream_scheme = \"").and_then(|s| s.strip_suffix('"'));
            let scheme = scheme.filter(|s| !s.contains(['"', '\\'])).ok_or_else(not_played)?;
            function.scheme = Some(scheme.to_owned());
        }
    }
    Ok(function)
}

impl Cors {
    /// The answer to a preflight, or nothing when the request is none.
    pub fn preflight(&self, method: &str, request: &HeaderMap) -> Option<(StatusCode, HeaderMap)> {
        let asks = request.contains_key("origin") && request.contains_key("access-control-request-method");
        if method != "OPTIONS" || !asks {
            return None;
        }
        let mut headers = HeaderMap::new();
        self.allow_origin(request, &mut headers);
        put(&mut headers, "access-control-allow-headers", &self.headers.join(","));
        put(&mut headers, "access-control-allow-methods", &self.methods.join(","));
        put(&mut headers, "access-control-max-age", &self.max_age.to_string());
        Some((StatusCode::OK, headers))
    }

    /// Adds to an answer what it says about origins.
    pub fn answer(&self, request: &HeaderMap, headers: &mut HeaderMap) {
        self.allow_origin(request, headers);
        put(headers, "access-control-expose-headers", &self.exposed_headers.join(","));
    }

    fn allow_origin(&self, request: &HeaderMap, headers: &mut HeaderMap) {
        const ALLOW: &str = "access-control-allow-origin";
        if self.origins.is_empty() || self.origins == ["*"] {
            return put(headers, ALLOW, "*");
        }
        headers.append("vary", HeaderValue::from_static("Origin"));
        if let [one] = self.origins.as_slice()
            && is_plain(one)
        {
            return put(headers, ALLOW, one);
        }
        let origin = request.get("origin").and_then(|o| o.to_str().ok()).unwrap_or_default();
        let matches = |allowed: &String| match is_plain(allowed) {
            true => allowed == origin,
            false => Regex::new(&format!("^(?:{allowed})$")).is_ok_and(|r| r.is_match(origin)),
        };
        match self.origins.iter().any(matches) {
            true => put(headers, ALLOW, origin),
            false => drop(headers.remove(ALLOW)),
        }
    }
}

fn is_plain(origin: &str) -> bool {
    origin.bytes().all(|b| b.is_ascii_alphanumeric() || b".:/-".contains(&b))
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

impl Transformer {
    /// The path to ask the upstream for, where it is another than the client's. It is written to nginx's
    /// `$upstream_uri` alone: the request's own path, which a filter sees, stays as it is.
    pub fn path(&self, captures: &[(String, String)]) -> Option<String> {
        let mut path = self.replace.uri.clone()?;
        for (name, value) in captures {
            path = path.replace(&format!("$(uri_captures.{name})"), value);
        }
        Some(path)
    }
}
