//! The names under which the gateway is reached, and which organisations are there.
//!
//! A page of an attacker's can make its own host name lead to this gateway (DNS rebinding), and its
//! requests then look like those of a page of ours. They still say the attacker's name in `Host`: so a
//! request to an MCP endpoint is only taken under a name that the configuration knows.

use identity::path;

use crate::config::Config;

/// Stands for the alias of an organisation in configured texts.
const PLACEHOLDER: &str = "{organisation}";

/// One name, and what is there.
#[derive(Debug)]
pub struct Site {
    /// Scheme, host and port, without a path.
    pub url: String,
    /// The only organisation under this name; `None`: all.
    pub organisation: Option<String>,
    /// The short path of its endpoint.
    pub path: Option<String>,
}

/// All names.
#[derive(Debug)]
pub struct Sites {
    public: Site,
    hosts: Vec<Site>,
    accepted: Vec<String>,
}

/// The host name in an origin (`https://name:443`).
pub fn name_in_url(url: &str) -> &str {
    name(url.split_once("://").map_or(url, |(_, rest)| rest))
}

/// The host name in `name:port`, `[::1]:port` or `name`.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_loopback(name: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|known| known.eq_ignore_ascii_case(name))
}

impl Sites {
    /// The names that a configuration has.
    pub fn new(config: &Config) -> Self {
        let site = |url: &String, organisation, path| Site { url: url.clone(), organisation, path };
        let hosts = config.hosts.iter();
        Self {
            public: site(&config.public_url, None, None),
            hosts: hosts
                .map(|host| site(&host.url, Some(host.organisation.clone()), host.path.clone()))
                .collect(),
            accepted: config.accepted_hosts.clone(),
        }
    }

    /// Where clients reach the gateway, when nothing else is known.
    pub fn public(&self) -> &Site {
        &self.public
    }

    /// The site of a request by its `Host`; `None` when it is not one of ours.
    pub fn of(&self, host: &str) -> Option<&Site> {
        let name = name(host);
        let is = |site: &&Site| name_in_url(&site.url).eq_ignore_ascii_case(name);
        if is(&&self.public) {
            return Some(&self.public);
        }
        self.hosts.iter().find(is).or_else(|| {
            let known = self.accepted.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(name))
                || (is_loopback(name) && is_loopback(name_in_url(&self.public.url)));
            known.then_some(&self.public)
        })
    }

    /// Whether an audience is a URL of one of the organisation's resources, under any name that it has: scheme and
    /// host in any case (RFC 3986 section 6.2.2.1), everything else to the byte.
    pub fn is_resource(&self, audience: &str, organisation: &str) -> bool {
        let is = |site: &Site| {
            let (Some(origin), Some(path)) = (audience.get(..site.url.len()), audience.get(site.url.len()..))
            else {
                return false;
            };
            origin.eq_ignore_ascii_case(&site.url)
                && (path::is_resource_path(path, organisation) || site.path.as_deref() == Some(path))
        };
        let mut own = self.hosts.iter().filter(|site| site.organisation.as_deref() == Some(organisation));
        is(&self.public) || own.any(is)
    }
}

/// Puts an alias in for `{organisation}`.
pub fn fill(text: &str, organisation: &str) -> String {
    text.replace(PLACEHOLDER, organisation)
}

/// The texts with the alias put in.
pub fn fill_all(texts: &[String], organisation: &str) -> Vec<String> {
    texts.iter().map(|text| fill(text, organisation)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn sites(public: &str, accepted: &[&str]) -> Sites {
        let site = |url: &str, organisation: Option<&str>, path: Option<&str>| Site {
            url: url.into(),
            organisation: organisation.map(str::to_owned),
            path: path.map(str::to_owned),
        };
        Sites {
            public: site(public, None, None),
            hosts: vec![
                site("https://tools.org1.example", Some("org-1"), Some("/mcp")),
                site("https://tools.org2.example:8443", Some("org-2"), None),
            ],
            accepted: accepted.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn names() {
        for (host, wanted) in [
            ("a.example", "a.example"),
            ("a.example:8000", "a.example"),
            ("[::1]:8000", "[::1]"),
            ("[::1]", "[::1]"),
            ("a.example:80a", "a.example:80a"),
            ("a:1:2", "a:1"),
            ("", ""),
        ] {
            assert_eq!(name(host), wanted, "{host}");
        }
        assert_eq!(name_in_url("http://localhost:8000"), "localhost");
        assert_eq!(name_in_url("https://a.example"), "a.example");
    }

    #[test]
    fn only_known_names_are_accepted() {
        let found = |sites: &Sites, host: &str| sites.of(host).map(|site| site.organisation.clone());
        let local = sites("http://localhost:8000", &["inner.example"]);
        for (host, organisation) in [
            ("localhost:8000", None),
            ("LOCALHOST", None),
            ("127.0.0.1:7999", None),
            ("[::1]:8000", None),
            ("inner.example", None),
            ("tools.org1.example", Some("org-1")),
            ("Tools.Org1.Example:443", Some("org-1")),
            ("tools.org2.example", Some("org-2")),
        ] {
            assert_eq!(found(&local, host), Some(organisation.map(str::to_owned)), "{host}");
        }
        for host in [
            "",
            "attacker.example",
            "localhost.",
            "localhost.attacker.example",
            "tools.org1.example.attacker.example",
            "xtools.org1.example",
            "127.0.0.2",
            "localhost:8000,attacker.example",
        ] {
            assert_eq!(found(&local, host), None, "{host}");
        }
        let remote = sites("https://mcp.example", &[]);
        assert_eq!(found(&remote, "localhost"), None);
        assert_eq!(found(&sites("https://mcp.example", &["*"]), "any.example"), Some(None));
    }

    #[test]
    fn a_resource_has_all_its_names() {
        let sites = sites("http://localhost:8000", &[]);
        for (audience, organisation, is) in [
            ("http://localhost:8000/api/v1/mcp/org-1", "org-1", true),
            ("https://tools.org1.example/api/v1/mcp/org-1", "org-1", true),
            ("HTTPS://Tools.Org1.Example/mcp", "org-1", true),
            ("https://tools.org1.example/mcp", "org-2", false),
            ("https://tools.org1.example/mcp/", "org-1", false),
            ("https://tools.org1.example/api/v1/mcp/org-2", "org-2", false),
            ("https://tools.org2.example:8443/api/v1/mcp/org-2", "org-2", true),
            ("https://tools.org2.example:8443/mcp", "org-2", false),
            ("https://tools.org1.example", "org-1", false),
            ("http://localhost:8000/api/v1/mcp/org-1/sse", "org-1", true),
            ("https://tools.org1.example/api/v1/mcp/org-1/sse", "org-1", true),
            ("http://localhost:8000/api/v1/mcp/org-1/sse", "org-2", false),
            ("http://localhost:8000/api/v1/mcp/org-1/sse/sse", "org-1", false),
            ("http://localhost:8000/api/v1/mcp/org-1/sse/", "org-1", false),
            ("http://localhost:8000/api/v1/org-1/sse", "org-1", false),
            ("https://tools.org1.example/mcp/sse", "org-1", false),
            ("", "org-1", false),
        ] {
            assert_eq!(sites.is_resource(audience, organisation), is, "{audience} {organisation}");
        }
    }

    #[test]
    fn placeholders_are_filled_in() {
        let texts = ["mcp:tools".to_owned(), "organization:{organisation}".to_owned()];
        assert_eq!(fill_all(&texts, "org-1"), ["mcp:tools", "organization:org-1"]);
    }

    proptest! {
        #[test]
        fn a_name_that_is_not_configured_is_never_accepted(host in "[a-z.:\\[\\]@%]{0,20}|tools\\.org1\\.example[a-z.@]{1,5}") {
            let sites = sites("https://mcp.example", &[]);
            let known = ["mcp.example", "tools.org1.example", "tools.org2.example"];
            prop_assert_eq!(sites.of(&host).is_some(), known.contains(&name(&host)));
        }
    }
}
