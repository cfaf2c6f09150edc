//! Hosts of organisations: which organisation a name belongs to, as the gateway's filter is told.
//!
//! `hosts.toml` in the state folder: lines of `"host" = "organisation"`. `asgard org` writes it; without it the
//! sample's hosts hold.

use std::collections::BTreeMap;

use crate::paths::{Paths, write_private};
use crate::problem::{Problem, Result};
use crate::state::State;

/// The short path of the MCP endpoint at an organisation's own host.
pub const SHORT_PATH: &str = "/mcp";

/// Hosts of the sample organisations. Browsers take every name below `localhost` for this machine.
const SAMPLE: [(&str, &str); 2] = [("org-1.localhost", "org-1"), ("org-2.localhost", "org-2")];
const HEAD: &str = "# Hosts of organisations, written by `asgard org`.\n\n";

/// Organisations by host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts(BTreeMap<String, String>);

impl Hosts {
    /// Reads them.
    ///
    /// # Errors
    /// A file that is not as it should be.
    pub fn load(paths: &Paths) -> Result<Self> {
        let file = paths.hosts_file();
        match std::fs::read_to_string(&file) {
            Ok(text) => toml::from_str(&text).map(Self).map_err(|e| {
                Problem::new(format!("{}: {}", paths.shown(&file), e.message().replace('\n', " ")))
                    .mend("correct it: each line is \"host\" = \"organisation\"")
            }),
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
    /// When another organisation has it.
    pub fn give(&mut self, host: &str, organisation: &str) -> Result<bool> {
        match self.0.insert(host.to_owned(), organisation.to_owned()) {
            None => Ok(true),
            Some(owner) if owner == organisation => Ok(false),
            Some(owner) => {
                let problem = Problem::new(format!("{host} belongs to the organisation {owner}"))
                    .mend(format!("./asgard org remove {owner} --domain {host} takes it away there"));
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

/// The addresses of an organisation's MCP endpoints: at the public address, and two at each of the hosts.
///
/// # Errors
/// A host that is none.
pub fn resources(state: &State, organisation: &str, hosts: &[String]) -> Result<Vec<String>> {
    let mut all = vec![state.resource(organisation)];
    for host in hosts {
        let url = state.host_url(host)?;
        all.extend([format!("{url}/api/v1/mcp/{organisation}"), format!("{url}{SHORT_PATH}")]);
    }
    Ok(all)
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
        std::fs::write(paths.hosts_file(), "x = 1").unwrap();
        assert!(Hosts::load(&paths).unwrap_err().what.contains("hosts.toml"));
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn an_organisation_has_an_endpoint_and_two_at_each_host() {
        let state = State::new(Ports::default());
        let all = resources(&state, "org-1", &["one.localhost".into()]).unwrap();
        assert_eq!(
            all,
            [
                "http://localhost:8000/api/v1/mcp/org-1",
                "http://one.localhost:8000/api/v1/mcp/org-1",
                "http://one.localhost:8000/mcp"
            ]
        );
    }
}
