//! Hosts of organisations: which organisation a name belongs to, for the configuration of the gateway's filter.
//!
//! `hosts.toml` in the state folder: lines of `"host" = "organisation"`. `asgard org` writes it; without it the
//! sample's hosts hold.

use std::collections::BTreeMap;

use crate::hostname::is_name;
use crate::paths::{Paths, write_private};
use crate::problem::{Problem, Result};
use crate::state::State;

/// The short path of the MCP endpoint at an organisation's own host.
pub const SHORT_PATH: &str = "/mcp";

/// Hosts of the sample organisations. Browsers take every name below `localhost` for this machine.
const SAMPLE: [(&str, &str); 2] = [("org-1.localhost", "org-1"), ("org-2.localhost", "org-2")];
const HEAD: &str = "# Hosts of organisations, written by `asgard org`.\n\n";

/// Most hosts that there may be.
const MAX_HOSTS: usize = 1024;

/// Organisations by host. Each name is one ([`url`]), and each organisation's can stand in a path: they go into the
/// gateways' files as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts(BTreeMap<String, String>);

impl Hosts {
    /// Reads them.
    ///
    /// # Errors
    /// A file that is not as it should be.
    pub fn load(paths: &Paths) -> Result<Self> {
        let file = paths.hosts_file();
        let wrong = |why: &str| {
            Problem::new(format!("{}: {}", paths.shown(&file), why.replace('\n', " ")))
                .hint("correct it: each line is \"host\" = \"organisation\"")
        };
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                let hosts = toml::from_str(&text).map(Self).map_err(|e| wrong(e.message()))?;
                for (host, organisation) in hosts.iter() {
                    if !is_name(host) {
                        return Err(wrong(&format!("{host:?} is not a host name")));
                    }
                    if !identity::path::is_alias(organisation) {
                        return Err(wrong(&format!("{organisation:?} cannot be an organisation's name")));
                    }
                }
                if hosts.0.len() > MAX_HOSTS {
                    return Err(wrong(&format!("there are more than {MAX_HOSTS} hosts")));
                }
                Ok(hosts)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self(SAMPLE.map(|(host, organisation)| (host.to_owned(), organisation.to_owned())).into()))
            }
            Err(e) => Err(Problem::io("read", &file, &e)),
        }
    }

    /// Writes them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, paths: &Paths) -> Result<()> {
        let body = toml::to_string(&self.0).map_err(|e| Problem::new(format!("cannot write hosts: {e}")))?;
        write_private(&paths.hosts_file(), format!("{HEAD}{body}").as_bytes())
    }

    /// No hosts.
    #[must_use]
    pub fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Host and organisation of each.
    #[must_use]
    pub fn to_vec(&self) -> Vec<(String, String)> {
        self.iter().map(|(host, organisation)| (host.to_owned(), organisation.to_owned())).collect()
    }

    /// Host and organisation.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(host, organisation)| (host.as_str(), organisation.as_str()))
    }

    /// The hosts of an organisation.
    #[must_use]
    pub fn of(&self, organisation: &str) -> Vec<String> {
        self.iter().filter(|(_, owner)| *owner == organisation).map(|(host, _)| host.to_owned()).collect()
    }

    /// Gives a host to an organisation. True: that is a change.
    ///
    /// # Errors
    /// When another organisation has it, or there are too many.
    pub fn give(&mut self, host: &str, organisation: &str) -> Result<bool> {
        if self.0.len() >= MAX_HOSTS && !self.0.contains_key(host) {
            return Err(Problem::new(format!("there are {MAX_HOSTS} hosts already"))
                .hint("take one away first: ./asgard org remove NAME --domain HOST"));
        }
        match self.0.insert(host.to_owned(), organisation.to_owned()) {
            None => Ok(true),
            Some(owner) if owner == organisation => Ok(false),
            Some(owner) => {
                let problem = Problem::new(format!("{host} belongs to the organisation {owner}"))
                    .hint(format!("./asgard org remove {owner} --domain {host} takes it away there"));
                self.0.insert(host.to_owned(), owner);
                Err(problem)
            }
        }
    }

    /// Takes a host away. True: that is a change.
    pub fn take(&mut self, host: &str) -> bool {
        self.0.remove(host).is_some()
    }
}

/// The address of an organisation's host: the public one with this name.
///
/// # Errors
/// What is no name (in lower case; no address, for Kong takes none), and the public name, where all organisations are.
pub fn url(state: &State, host: &str) -> Result<String> {
    let url = state.host_url(host)?;
    if !is_name(host) {
        return Err(Problem::new(format!("{host:?} is not a host name"))
            .hint("write a name such as acme.example: of a-z, 0-9, -, _ and dots between them"));
    }
    let public = reqwest::Url::parse(&state.public_url).ok();
    if public.is_some_and(|public| public.host_str() == Some(host)) {
        return Err(Problem::new(format!("{host} is the public name, where all organisations are"))
            .hint("give the organisation another name"));
    }
    Ok(url)
}

/// The addresses of an organisation's MCP endpoints, each an OAuth resource of its own (RFC 9728 section 3.3): Streamable
/// HTTP and HTTP+SSE at the public address, and what [`at_host`] gives for each of the hosts.
///
/// # Errors
/// A host that is none.
pub fn resources(state: &State, organisation: &str, hosts: &[String]) -> Result<Vec<String>> {
    let mut all = endpoints(&state.public_url, organisation);
    for host in hosts {
        all.extend(at_host(state, organisation, host)?);
    }
    Ok(all)
}

/// The addresses at one host: the same two, and a short one.
///
/// # Errors
/// A host that is none.
pub fn at_host(state: &State, organisation: &str, host: &str) -> Result<Vec<String>> {
    let url = url(state, host)?;
    let mut all = endpoints(&url, organisation);
    all.push(format!("{url}{SHORT_PATH}"));
    Ok(all)
}

fn endpoints(url: &str, organisation: &str) -> Vec<String> {
    let endpoint = format!("{url}{}", identity::path::resource_path(organisation));
    vec![endpoint.clone(), format!("{endpoint}/sse")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Ports;

    #[test]
    fn a_host_has_one_organisation() {
        let home = std::env::temp_dir().join(format!("asgard-hosts-{}", std::process::id()));
        let paths = Paths { root: "/r".into(), cache: home.join("cache"), home: home.clone() };
        let mut hosts = Hosts::load(&paths).unwrap();
        assert_eq!(hosts.of("org-1"), ["org-1.localhost"]);
        assert!(hosts.give("mcp.one.example", "org-1").unwrap());
        assert!(!hosts.give("mcp.one.example", "org-1").unwrap());
        assert!(hosts.give("mcp.one.example", "org-2").unwrap_err().what.contains("org-1"));
        assert!(hosts.take("org-2.localhost"));
        hosts.save(&paths).unwrap();
        assert_eq!(Hosts::load(&paths).unwrap(), hosts);
        for bad in [
            "x = 1",
            r#""A.example" = "org-1""#,
            r#""*.example" = "org-1""#,
            r#""127.0.0.1" = "org-1""#,
            r#""a.example" = "org-1$(x)""#,
            r#""a.example" = "mcp""#,
        ] {
            std::fs::write(paths.hosts_file(), bad).unwrap();
            assert!(Hosts::load(&paths).unwrap_err().what.contains("hosts.toml"), "{bad}");
        }
        let many: String = (0..=MAX_HOSTS).map(|i| format!("\"h{i}.example\" = \"org-1\"\n")).collect();
        std::fs::write(paths.hosts_file(), many).unwrap();
        assert!(Hosts::load(&paths).is_err());
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn a_host_is_a_name_and_not_the_public_one() {
        let mut state = State::new(Ports::default());
        for good in ["acme.localhost", "a_b.example", "xn--bcher-kva.example", "acme", "1.example"] {
            assert_eq!(url(&state, good).unwrap(), format!("http://{good}:8000"));
        }
        let long = format!("{}.example", "a".repeat(64));
        for bad in [
            "",
            "A.example",
            "a.example:1",
            "127.0.0.1",
            "[::1]",
            "*.example",
            "a.example.",
            "a..example",
            "-a.example",
            "a-.example",
            "a\"b",
            "$(a)",
            "localhost",
            &long,
        ] {
            assert!(url(&state, bad).is_err(), "{bad}");
        }
        state.public_url = "https://mcp.example".into();
        assert!(url(&state, "mcp.example").unwrap_err().what.contains("public name"));
    }

    #[test]
    fn an_organisation_has_two_endpoints_and_three_at_each_host() {
        let state = State::new(Ports::default());
        let all = resources(&state, "org-1", &["one.localhost".into()]).unwrap();
        assert_eq!(
            all,
            [
                "http://localhost:8000/api/v1/mcp/org-1",
                "http://localhost:8000/api/v1/mcp/org-1/sse",
                "http://one.localhost:8000/api/v1/mcp/org-1",
                "http://one.localhost:8000/api/v1/mcp/org-1/sse",
                "http://one.localhost:8000/mcp"
            ]
        );
    }
}
