//! Host and Origin, for a server that clients reach without a gateway.
//!
//! A web page that somebody opens can make their browser send requests to servers on their own machine, and by
//! DNS rebinding under the page's own name. Browsers then send that name in `Host`, and the page's origin in
//! `Origin` (MCP, transports, security: answer 403). Behind a gateway these checks are the gateway's.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

use super::headers::only;
use super::refusal::{Refusal, excerpt};

/// Which names this server answers to, and for which web pages. By default loopback names only, on any port.
#[derive(Debug, Clone, Default)]
pub struct HostRules {
    hosts: Vec<Authority>,
    origins: Vec<Origin>,
}

/// A rule that is not a host or origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not {1}")]
pub struct RuleError(String, &'static str);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    /// Lower case, IPv6 in brackets.
    host: String,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    authority: Authority,
}

impl HostRules {
    /// Also answer to this `Host`: `name` for any port, `name:port` for one.
    ///
    /// # Errors
    /// When it is not a host.
    pub fn allow_host(mut self, host: &str) -> Result<Self, RuleError> {
        let authority = authority(host)
            .ok_or_else(|| RuleError(excerpt(host).to_owned(), "a host, as in mcp.example.com:8443"))?;
        self.hosts.push(authority);
        Ok(self)
    }

    /// Also accept requests of web pages with this origin: scheme, host, and the port unless it is the
    /// scheme's own.
    ///
    /// # Errors
    /// When it is no origin.
    pub fn allow_origin(mut self, text: &str) -> Result<Self, RuleError> {
        let origin = origin(text)
            .ok_or_else(|| RuleError(excerpt(text).to_owned(), "an origin, as in https://app.example.com"))?;
        self.origins.push(origin);
        Ok(self)
    }

    /// Checks `Host` and, if there is one, `Origin`. `target` is the authority of the request's URI, which
    /// HTTP/2 sends in place of `Host` (and HTTP/1.1 may send as well: then both have to pass).
    ///
    /// # Errors
    /// 403.
    pub fn check(&self, headers: &HeaderMap, target: Option<&str>) -> Result<(), Refusal> {
        let host = only(headers, HOST).map_err(|_| Refusal::forbidden("Host must be sent once, as text."))?;
        if host.is_none() && target.is_none() {
            return Err(Refusal::forbidden("Host is missing."));
        }
        for name in [host, target].into_iter().flatten() {
            if !authority(name).is_some_and(|name| name.is_loopback() || self.allows_host(&name)) {
                return Err(Refusal::forbidden(format!(
                    "This server is not {:?}. Use its own address, or have this name allowed in its configuration.",
                    excerpt(name)
                )));
            }
        }
        match only(headers, ORIGIN) {
            Ok(None) => Ok(()),
            Ok(Some(text)) if origin(text).is_some_and(|origin| self.allows_origin(&origin)) => Ok(()),
            Ok(Some(text)) => Err(Refusal::forbidden(format!(
                "Web pages of {:?} may not use this server. Have this origin allowed in its configuration.",
                excerpt(text)
            ))),
            Err(_) => Err(Refusal::forbidden("Origin must be sent once, as text.")),
        }
    }

    fn allows_host(&self, name: &Authority) -> bool {
        self.hosts
            .iter()
            .any(|rule| rule.host == name.host && (rule.port.is_none() || rule.port == name.port))
    }

    fn allows_origin(&self, origin: &Origin) -> bool {
        let local = matches!(origin.scheme.as_str(), "http" | "https") && origin.authority.is_loopback();
        local || self.origins.contains(origin)
    }
}

impl Authority {
    fn is_loopback(&self) -> bool {
        let host = self.host.as_str();
        host == "localhost"
            || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
            || host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .is_some_and(|host| host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()))
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; nothing before or after, no user.
fn authority(text: &str) -> Option<Authority> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, rest)) => {
            ip.parse::<Ipv6Addr>().ok()?;
            (text.get(..ip.len() + 2)?, rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let valid = !host.is_empty() && (host.starts_with('[') || host.bytes().all(name));
    valid.then(|| Authority { host: host.to_ascii_lowercase(), port })
}

/// `scheme://authority`, without the scheme's own port (RFC 6454, 6.2). `null` is none.
fn origin(text: &str) -> Option<Origin> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    if scheme.is_empty() || !scheme.bytes().all(scheme_byte) {
        return None;
    }
    let scheme = scheme.to_ascii_lowercase();
    let mut authority = authority(rest)?;
    if matches!((scheme.as_str(), authority.port), ("http", Some(80)) | ("https", Some(443))) {
        authority.port = None;
    }
    Some(Origin { scheme, authority })
}
