//! What a configuration must fulfil beyond its form.

use identity::path;

use super::{Config, ConfigError, Host, Introspection, Issuer, Jwks, wrong};
use crate::sites;

type Checked = Result<(), ConfigError>;

impl Config {
    pub(super) fn check(&self) -> Checked {
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
        self.check_scopes()?;
        self.check_hosts()?;
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
        range("shared_data_bytes", self.shared_data_bytes, 0, 1 << 30)?;
        if self.root_organisation.as_ref().is_some_and(|alias| !path::is_alias(alias)) {
            return wrong("root_organisation", "this can't be an organisation's alias");
        }
        Ok(())
    }

    fn check_scopes(&self) -> Checked {
        let scopes = &self.scopes;
        for (name, list) in [("advertised", &scopes.advertised), ("required", &scopes.required)] {
            check_scope_list(&format!("scopes.{name}"), list)?;
        }
        if scopes.implied.len() > 100 {
            return wrong("scopes.implied", "give at most 100 scopes that contain others");
        }
        for (scope, contained) in &scopes.implied {
            check_scope_list("scopes.implied", std::slice::from_ref(scope))?;
            check_scope_list(&format!("scopes.implied.{scope}"), contained)?;
        }
        Ok(())
    }

    fn check_hosts(&self) -> Checked {
        let public = sites::name_in_url(&self.public_url);
        for (index, host) in self.hosts.iter().enumerate() {
            let at = format!("hosts[{index}]");
            host.check(&at)?;
            let name = sites::name_in_url(&host.url);
            let mut before = self.hosts.iter().take(index).map(|other| sites::name_in_url(&other.url));
            if name == public || before.any(|other| other == name) {
                return wrong(
                    format!("{at}.url"),
                    "this host name comes twice (ports are not compared); give each organisation its own",
                );
            }
        }
        for (index, name) in self.accepted_hosts.iter().enumerate() {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
            if name != "*" && (name.is_empty() || name.len() > 256 || !name.bytes().all(plain)) {
                return wrong(
                    format!("accepted_hosts[{index}]"),
                    "give a host name without scheme and port, or * for all",
                );
            }
        }
        Ok(())
    }
}

impl Host {
    fn check(&self, at: &str) -> Checked {
        check_origin(&format!("{at}.url"), &self.url)?;
        if !path::is_alias(&self.organisation) {
            return wrong(format!("{at}.organisation"), "this can't be an organisation's alias");
        }
        let clean = |short: &str| {
            path::check(short).is_ok()
                && short.len() <= 128
                && !short.ends_with('/')
                && !short.starts_with("/api/")
                && !short.starts_with("/.")
        };
        if self.path.as_deref().is_some_and(|short| !clean(short)) {
            return wrong(
                format!("{at}.path"),
                "give a path such as /mcp: of letters, digits and -._~, not below /api/, without a slash at the end",
            );
        }
        Ok(())
    }
}

impl Issuer {
    fn check(&self, at: &str) -> Checked {
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
                "name at least one of RS256, RS384, RS512, PS256, ES256, ES384, EdDSA, or leave the list out",
            );
        }
        if self.jwks.is_none() && self.introspection.is_none() {
            return wrong(at, "give jwks, or introspection, or both: without them no token can be verified");
        }
        for (index, audience) in self.audiences.iter().enumerate() {
            if audience.is_empty() || audience.len() > 512 {
                return wrong(format!("{at}.audiences[{index}]"), "an audience has 1 to 512 bytes");
            }
        }
        if let Some(jwks) = &self.jwks {
            jwks.check(&format!("{at}.jwks"))?;
        }
        match &self.introspection {
            Some(introspection) => introspection.check(&format!("{at}.introspection")),
            None => Ok(()),
        }
    }
}

impl Jwks {
    fn check(&self, at: &str) -> Checked {
        check_upstream(at, &self.upstream, self.authority.as_deref(), &self.path, self.timeout_ms)?;
        range(&format!("{at}.refresh_s"), self.refresh_s, 5, 86_400)?;
        range(&format!("{at}.keep_s"), self.keep_s, self.refresh_s, 86_400)?;
        range(&format!("{at}.unknown_kid_s"), self.unknown_kid_s, 1, 3600)?;
        range(&format!("{at}.retry_s"), self.retry_s, 1, 300)
    }
}

impl Introspection {
    fn check(&self, at: &str) -> Checked {
        check_upstream(at, &self.upstream, self.authority.as_deref(), &self.path, self.timeout_ms)?;
        for (name, value) in [("client_id", &self.client_id), ("client_secret", &self.client_secret)] {
            if value.is_empty() || value.len() > 1024 {
                return wrong(format!("{at}.{name}"), "give 1 to 1024 bytes");
            }
        }
        range(&format!("{at}.cache_s"), self.cache_s, 0, 3600)?;
        range(&format!("{at}.negative_cache_s"), self.negative_cache_s, 0, 300)?;
        range(&format!("{at}.max_in_flight"), self.max_in_flight as u64, 1, 1000)?;
        range(&format!("{at}.retry_s"), self.retry_s, 1, 300)
    }
}

fn check_upstream(at: &str, upstream: &str, authority: Option<&str>, path: &str, timeout_ms: u64) -> Checked {
    let name =
        |text: &str| (1..=256).contains(&text.len()) && text.bytes().all(is_visible) && !text.contains('/');
    // Kong traps on an upstream with a scheme; Envoy's cluster names are free.
    if !name(upstream) {
        return wrong(
            format!("{at}.upstream"),
            "give the name of a cluster (Envoy) or host:port (Kong), without scheme and path",
        );
    }
    if !name(authority.unwrap_or(upstream)) {
        return wrong(format!("{at}.authority"), "give host or host:port");
    }
    if !path.starts_with('/') || path.len() > 1024 || !path.bytes().all(is_visible) {
        return wrong(format!("{at}.path"), "give the path of the endpoint, beginning with /");
    }
    range(&format!("{at}.timeout_ms"), timeout_ms, 100, 30_000)
}

fn check_scope_list(at: &str, scopes: &[String]) -> Checked {
    for (index, scope) in scopes.iter().enumerate() {
        if scope.is_empty() || scope.len() > 256 || !scope.bytes().all(is_scope_byte) {
            let place = format!("{at}[{index}]");
            return wrong(place, "a scope is 1 to 256 visible ASCII characters without \" and \\");
        }
    }
    Ok(())
}

fn range(path: &str, value: u64, least: u64, most: u64) -> Checked {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    wrong(path, format_args!("{value} is out of range; give {least} to {most}"))
}

fn check_origin(path: &str, url: &str) -> Checked {
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
