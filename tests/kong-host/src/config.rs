//! Kong's declarative configuration (format 3.0), as far as `kong/` uses it, and Kong's environment.
//!
//! What Kong would refuse at its start is refused here: unknown fields, values out of range, a filter that is not
//! there, a configuration that is not as the filter's schema says, or not a string though the filter has none.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::schema::Schema;

/// Kong does not start with this configuration.
#[derive(Debug, thiserror::Error)]
#[error("kong would not start: {0}")]
pub struct ConfigError(pub String);

fn refuse<T>(why: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(why.into()))
}

/// `kong.yml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(rename = "_format_version")]
    format: String,
    /// Groups of targets that requests are balanced over.
    #[serde(default)]
    pub upstreams: Vec<Upstream>,
    /// Where requests go.
    pub services: Vec<Service>,
}

/// A group of targets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// What a Service has as its host.
    pub name: String,
    /// `round-robin` is all that is played here.
    pub algorithm: String,
    #[serde(default = "default_slots")]
    slots: u32,
    /// `host:port` of each.
    pub targets: Vec<Target>,
    #[serde(default)]
    healthchecks: Healthchecks,
}

/// One of an upstream's targets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `host:port`.
    pub target: String,
    #[serde(default = "default_weight")]
    weight: u16,
}

/// Known by their shape alone: nothing here is probed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Healthchecks {
    active: Option<Check>,
    passive: Option<Check>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    #[serde(rename = "type")]
    kind: String,
    http_path: Option<String>,
    timeout: Option<u16>,
    concurrency: Option<u32>,
    healthy: Thresholds,
    unhealthy: Thresholds,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Thresholds {
    interval: Option<u16>,
    successes: Option<u8>,
    tcp_failures: Option<u8>,
    timeouts: Option<u8>,
    http_failures: Option<u8>,
    http_statuses: Vec<u16>,
}

/// Where requests go, and what happens to them before.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub name: String,
    url: Option<String>,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    /// How often another target is tried when a connection fails.
    #[serde(default = "default_retries")]
    pub retries: u16,
    #[serde(default = "default_timeout")]
    connect_timeout: u32,
    #[serde(default = "default_timeout")]
    write_timeout: u32,
    #[serde(default = "default_timeout")]
    read_timeout: u32,
    /// Which requests.
    pub routes: Vec<Route>,
    /// Lua plugins.
    #[serde(default)]
    pub plugins: Vec<Plugin>,
    /// At most one: proxy-wasm filters.
    #[serde(default)]
    pub filter_chains: Vec<FilterChain>,
}

/// Which requests a Service gets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Prefixes, or with `~` regular expressions.
    pub paths: Vec<String>,
    /// Names without ports. Empty: all.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Empty: all.
    #[serde(default)]
    pub methods: BTreeSet<String>,
    /// Counts only for regular expressions.
    #[serde(default)]
    pub regex_priority: u32,
    /// Whether the matched part is taken off the path.
    #[serde(default = "yes")]
    pub strip_path: bool,
    /// Whether the upstream sees the client's `Host`.
    #[serde(default)]
    pub preserve_host: bool,
    /// Before those of the Service.
    #[serde(default)]
    pub plugins: Vec<Plugin>,
}

/// A Lua plugin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// Which.
    pub name: String,
    /// Its own configuration.
    pub config: Value,
}

/// A chain of filters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterChain {
    /// Its name.
    pub name: String,
    /// Run in this order.
    pub filters: Vec<Filter>,
}

/// One filter of a chain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The module's file name without `.wasm`.
    pub name: String,
    /// A string, or with a schema anything.
    #[serde(default)]
    pub config: Option<Value>,
}

fn default_slots() -> u32 {
    10_000
}
fn default_weight() -> u16 {
    100
}
fn default_retries() -> u16 {
    5
}
fn default_timeout() -> u32 {
    60_000
}
fn yes() -> bool {
    true
}

impl Service {
    /// `http`, `https` …
    pub fn protocol(&self) -> &str {
        self.protocol.as_deref().unwrap_or("http")
    }

    /// Host and port, or the name of an [`Upstream`].
    ///
    /// # Errors
    /// When the `url` can't be read, or there is no host.
    pub fn address(&self) -> Result<(String, u16), ConfigError> {
        match (&self.url, &self.host) {
            (Some(url), None) if self.protocol.is_none() && self.port.is_none() => {
                let address = url.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':'));
                match address.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?))) {
                    Some(address) => Ok(address),
                    None => refuse(format!("service {}: url {url:?} is not http://HOST:PORT", self.name)),
                }
            }
            (None, Some(host)) => Ok((host.clone(), self.port.unwrap_or(80))),
            _ => refuse(format!("service {}: either url, or protocol, host and port", self.name)),
        }
    }
}

impl Config {
    /// Reads and checks. `filters` are the modules that Kong has found, each with the schema of its configuration.
    ///
    /// # Errors
    /// [`ConfigError`] where Kong would not start.
    pub fn parse(text: &str, filters: &BTreeMap<String, Option<Schema>>) -> Result<Self, ConfigError> {
        let config: Self = serde_yaml_ng::from_str(text).map_err(|e| ConfigError(e.to_string()))?;
        if config.format != "3.0" {
            return refuse(format!("_format_version {:?}", config.format));
        }
        config.upstreams.iter().try_for_each(check_upstream)?;
        let mut names = BTreeSet::new();
        if let Some(twice) =
            config.services.iter().flat_map(|s| &s.routes).find(|r| !names.insert(r.name.as_str()))
        {
            return refuse(format!("uniqueness violation: two routes have the name {}", twice.name));
        }
        for service in &config.services {
            check_service(service, filters)?;
        }
        Ok(config)
    }
}

fn check_upstream(upstream: &Upstream) -> Result<(), ConfigError> {
    let name = &upstream.name;
    if upstream.algorithm != "round-robin" || !(10..=65_536).contains(&upstream.slots) {
        return refuse(format!("upstream {name}: algorithm or slots"));
    }
    let bad = |t: &&Target| t.weight == 0 || !is_address(&t.target);
    if let Some(target) = upstream.targets.iter().find(bad) {
        return refuse(format!("upstream {name}: target {:?}", target.target));
    }
    let checks = &upstream.healthchecks;
    for check in [&checks.active, &checks.passive].into_iter().flatten() {
        let path = check.http_path.as_deref().unwrap_or("/");
        let concurrency = check.concurrency.unwrap_or(10) > 0 && check.timeout.unwrap_or(1) > 0;
        if check.kind != "http" || !path.starts_with('/') || !concurrency {
            return refuse(format!("upstream {name}: healthchecks"));
        }
        for thresholds in [&check.healthy, &check.unhealthy] {
            // The numbers are bounded by their types.
            let _ = (thresholds.interval, thresholds.successes, thresholds.tcp_failures);
            let _ = (thresholds.timeouts, thresholds.http_failures);
            if !thresholds.http_statuses.iter().all(|s| (100..=999).contains(s)) {
                return refuse(format!("upstream {name}: http_statuses"));
            }
        }
    }
    Ok(())
}

fn check_service(service: &Service, filters: &BTreeMap<String, Option<Schema>>) -> Result<(), ConfigError> {
    let name = &service.name;
    service.address()?;
    if !["http", "https"].contains(&service.protocol()) {
        return refuse(format!("service {name}: a route of protocol http can't have such a service"));
    }
    for route in &service.routes {
        if !route.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) {
            return refuse(format!("route {:?}: invalid name", route.name));
        }
        if let Some(host) = route.hosts.iter().find(|h| !is_host(h)) {
            return refuse(format!("route {}: host {host:?}", route.name));
        }
    }
    let timeouts = [service.connect_timeout, service.write_timeout, service.read_timeout];
    if timeouts.contains(&0) || service.filter_chains.len() > 1 {
        return refuse(format!("service {name}: timeouts, or more than one filter chain"));
    }
    for filter in service.filter_chains.iter().flat_map(|c| &c.filters) {
        match (filters.get(&filter.name), &filter.config) {
            (None, _) => return refuse(format!("service {name}: no such filter: {}", filter.name)),
            (Some(None), Some(config)) if !config.is_string() && !config.is_null() => {
                return refuse(format!("service {name}: filter {}: expected a string", filter.name));
            }
            (Some(Some(schema)), config) => {
                let config = config.as_ref().unwrap_or(&Value::Null);
                schema.check(config).map_err(|error| {
                    ConfigError(format!("service {name}: filter {}: {error}", filter.name))
                })?;
            }
            _ => {}
        }
    }
    if service.filter_chains.iter().any(|c| c.filters.is_empty()) {
        return refuse(format!("service {name}: a filter chain without filters"));
    }
    Ok(())
}

/// What Kong takes in `hosts` of a route: a name, no address, no port. (It takes `*` at an end too; not played here.)
fn is_host(text: &str) -> bool {
    let labels: Vec<&str> = text.split('.').collect();
    let last = labels.len().saturating_sub(1);
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && labels.iter().enumerate().all(|(i, l)| !l.ends_with('-') && (!l.is_empty() || i == last))
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// Kong's environment, from `NAME=value` lines.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the lines; `#` begins a comment line.
    ///
    /// # Errors
    /// When a line has another form, or a name is not Kong's.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut values = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let Some((name, value)) = line.split_once('=').filter(|(n, _)| n.starts_with("KONG_")) else {
                return refuse(format!("environment: {line:?}"));
            };
            if values.insert(name.to_owned(), value.to_owned()).is_some() {
                return refuse(format!("environment: {name} twice"));
            }
        }
        Ok(Self(values))
    }

    /// The value of `name` (`KONG_…`).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether `name` is `on`.
    pub fn on(&self, name: &str) -> bool {
        self.get(name) == Some("on")
    }

    /// The number that `name` has, or the default of Kong.
    ///
    /// # Errors
    /// When it is no number.
    pub fn number(&self, name: &str, default: usize) -> Result<usize, ConfigError> {
        match self.get(name) {
            Some(text) => text.parse().map_err(|_| ConfigError(format!("environment: {name}={text}"))),
            None => Ok(default),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names() {
        for good in ["acme.localhost", "a_b.example", "xn--bcher-kva.example", "a.example.", "A.example"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "127.0.0.1", "::1", "[::1]", "a:80", "a b", "a..b", ".a", "a-.b", "a/b", "\"", "ä"] {
            assert!(!is_host(bad), "{bad}");
        }
    }
}
