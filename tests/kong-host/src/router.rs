//! Which route a request takes (Kong's router, flavour `traditional_compatible`).

use std::cmp::Reverse;

use regex::Regex;

use crate::config::{Config, ConfigError, Route};

/// A route that fits.
#[derive(Debug, Clone)]
pub struct Match {
    /// Index of the Service in the configuration.
    pub service: usize,
    /// Index of the route in the Service.
    pub route: usize,
    /// Named groups of the expression.
    pub captures: Vec<(String, String)>,
}

enum Pattern {
    Prefix(String),
    Regex(Regex),
}

struct Entry {
    /// Number of criteria, whether it has hosts, whether a regular expression, its priority, length: the greater is
    /// asked first.
    rank: (usize, bool, bool, u32, usize),
    pattern: Pattern,
    service: usize,
    route: usize,
}

/// All routes in the order in which they are asked.
pub struct Router {
    entries: Vec<Entry>,
}

impl Router {
    /// Sorts the routes of a configuration.
    ///
    /// # Errors
    /// When an expression can't be read or a path is not normalised.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let mut entries = Vec::new();
        for (service, s) in config.services.iter().enumerate() {
            for (route, r) in s.routes.iter().enumerate() {
                for path in &r.paths {
                    let pattern =
                        pattern(path).map_err(|why| ConfigError(format!("route {}: {why}", r.name)))?;
                    entries.push(Entry { rank: rank(r, &pattern), pattern, service, route });
                }
            }
        }
        entries.sort_by_key(|e| Reverse(e.rank));
        Ok(Self { entries })
    }

    /// The route of a request. `host` is its header; `path` is normalised, without the query.
    pub fn find(&self, config: &Config, method: &str, host: &str, path: &str) -> Option<Match> {
        self.entries.iter().find_map(|entry| {
            let route = config.services.get(entry.service)?.routes.get(entry.route)?;
            if !route.methods.is_empty() && !route.methods.contains(method) {
                return None;
            }
            // To the letter: Kong does not make it lower case.
            if !route.hosts.is_empty() && !route.hosts.iter().any(|h| h == without_port(host)) {
                return None;
            }
            let captures = match &entry.pattern {
                Pattern::Prefix(prefix) => path.starts_with(prefix.as_str()).then(Vec::new)?,
                Pattern::Regex(regex) => {
                    let found = regex.captures(path)?;
                    let names = regex.capture_names().flatten();
                    let value = |n: &str| found.name(n).map(|m| m.as_str().to_owned());
                    names.filter_map(|n| Some((n.to_owned(), value(n)?))).collect()
                }
            };
            Some(Match { service: entry.service, route: entry.route, captures })
        })
    }
}

fn pattern(path: &str) -> Result<Pattern, String> {
    match path.strip_prefix('~') {
        Some(regex) => {
            Regex::new(&format!("^{regex}")).map(Pattern::Regex).map_err(|e| format!("{path:?}: {e}"))
        }
        None if path.starts_with('/') && normalise(path) == path => Ok(Pattern::Prefix(path.to_owned())),
        None => Err(format!("path {path:?} is not normalised")),
    }
}

fn rank(route: &Route, pattern: &Pattern) -> (usize, bool, bool, u32, usize) {
    let hosts = !route.hosts.is_empty();
    let criteria = 1 + usize::from(!route.methods.is_empty()) + usize::from(hosts);
    match pattern {
        Pattern::Prefix(prefix) => (criteria, hosts, false, 0, prefix.len()),
        Pattern::Regex(_) => (criteria, hosts, true, route.regex_priority, 0),
    }
}

/// Kong takes off what stands behind the first colon, if it is a number.
fn without_port(host: &str) -> &str {
    match host.split_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The path as Kong's router sees it: dot segments and double slashes gone, unreserved characters decoded.
pub fn normalise(path: &str) -> String {
    let decoded = decode_unreserved(path);
    let mut out: Vec<&str> = Vec::new();
    let segments: Vec<&str> = decoded.split('/').collect();
    let last = segments.len().saturating_sub(1);
    for (i, segment) in segments.iter().enumerate() {
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    out.pop();
                }
                if i == last {
                    out.push("");
                }
            }
            "" if i != last => {}
            other => out.push(other),
        }
    }
    format!("/{}", out.join("/"))
}

fn decode_unreserved(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let byte = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(b) if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => {
                out.push(char::from(b));
                rest = after.get(2..).unwrap_or("");
            }
            _ => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_with_a_host_is_for_that_host() {
        let text = r#"
            _format_version: "3.0"
            services:
            - name: s
              url: http://127.0.0.1:1
              routes:
              - { name: all, paths: ["/a", "/b"] }
              - { name: own, paths: ["~/a$"], hosts: [one.example, two.example] }
              - { name: regex, paths: ["~/b$"], hosts: [one.example] }
              - { name: method, paths: ["/b"], methods: [GET], hosts: [one.example] }
        "#;
        let config = Config::parse(text, &std::collections::BTreeMap::new()).unwrap();
        let router = Router::new(&config).unwrap();
        for (method, host, path, route) in [
            ("GET", "one.example", "/a", Some("own")),
            ("GET", "one.example:8000", "/a", Some("own")),
            ("GET", "two.example", "/a", Some("own")),
            ("GET", "one.example", "/a/", Some("all")),
            ("GET", "One.example", "/a", Some("all")),
            ("GET", "one.example:x", "/a", Some("all")),
            ("GET", "one.example.", "/a", Some("all")),
            ("GET", "evil-one.example", "/a", Some("all")),
            ("GET", "", "/a", Some("all")),
            ("POST", "one.example", "/b", Some("regex")),
            ("GET", "one.example", "/b", Some("method")),
            ("GET", "two.example", "/b", Some("all")),
            ("GET", "one.example", "/c", None),
        ] {
            let found = router.find(&config, method, host, path);
            let name = found.map(|f| config.services[f.service].routes[f.route].name.as_str());
            assert_eq!(name, route, "{method} {host} {path}");
        }
    }

    #[test]
    fn paths_are_normalised() {
        for (raw, normal) in [
            ("/a//b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../a", "/a"),
            ("/a/..", "/"),
            ("/a/", "/a/"),
            ("/%61%2fb", "/a%2fb"),
            ("/a/%2e%2e/b", "/b"),
            ("/", "/"),
        ] {
            assert_eq!(normalise(raw), normal, "{raw}");
        }
    }
}
