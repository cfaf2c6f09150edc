//! `.env`: settings and secrets of the containers. `docker compose` reads it, and so does the renderer of their
//! configuration. What it lacks is added; what is there stays.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::hosts::{self, Hosts};
use crate::paths::{Paths, read_text, write_private};
use crate::ports::Ports;
use crate::problem::{Problem, Result};
use crate::state::State;

const HEAD: &str = "# Written by ./setup.sh, read by docker compose. Secrets: keep it to yourself.\n";
/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Made of `ASGARD_GRIP_KEY`, as Pushpin wants it.
const GRIP_KEY_BASE64: &str = "ASGARD_GRIP_KEY_BASE64";

/// What `.env` says.
#[derive(Debug)]
pub struct Env {
    /// Public address, accepted hosts, secrets; everything else is as at the start of a new stack.
    pub state: State,
    /// Hosts of organisations.
    pub hosts: Hosts,
    /// Pushpin's address in the containers' network.
    pub pushpin: IpAddr,
    /// The settings, as they stand in the file.
    values: BTreeMap<&'static str, String>,
    /// Lines of somebody else's.
    others: Vec<String>,
}

/// The settings in the order of the file, and their values at the first time.
fn defaults(state: &State) -> [(&'static str, String); 18] {
    let secrets = &state.secrets;
    [
        ("PUBLIC_URL", state.public_url.clone()),
        // Whether accounts that everybody knows may be where others can reach them: `local` or `anywhere`.
        ("SAMPLE_USERS", "local".to_owned()),
        // HOST=ORGANISATION, with commas between them. A comma alone: none.
        ("ORGANISATION_HOSTS", "org-1.localhost=org-1,org-2.localhost=org-2".to_owned()),
        // More names, without port, under which clients may reach the gateway, with commas between them.
        ("ACCEPTED_HOSTS", ",".to_owned()),
        ("ASGARD_SUBNET", "172.30.77.0/24".to_owned()),
        ("ASGARD_PUSHPIN_IP", "172.30.77.7".to_owned()),
        ("KEYCLOAK_ADMIN_USER", secrets.admin_user.clone()),
        ("KEYCLOAK_ADMIN_PASSWORD", secrets.admin_password.clone()),
        ("ASGARD_ASSERTION_KEYS", secrets.assertion_keys.clone()),
        ("ASGARD_SESSION_KEY", secrets.session_key.clone()),
        ("ASGARD_STATE_KEY", secrets.dialogue_key.clone()),
        ("ASGARD_BROADCAST_KEY", secrets.broadcast_key.clone()),
        ("ASGARD_LINK_KEY", secrets.link_key.clone()),
        ("ASGARD_ADMIN_TOKEN", secrets.admin_token.clone()),
        ("ASGARD_GRIP_KEY", secrets.grip_key.clone()),
        ("GATEWAY_CLIENT_SECRET", secrets.gateway_client.clone()),
        ("TESTS_CLIENT_SECRET", secrets.tests_client.clone()),
        ("MCP_INSPECTOR_API_TOKEN", secrets.inspector_token.clone()),
    ]
}

/// Where the file is.
fn file(paths: &Paths) -> PathBuf {
    paths.root.join(".env")
}

impl Env {
    /// Reads the file, and adds what it lacks: defaults and new secrets.
    ///
    /// # Errors
    /// A file that cannot be read, or a setting that is not as it should be.
    pub fn load(paths: &Paths) -> Result<Self> {
        let path = file(paths);
        if path.exists() && !path.is_file() {
            return Err(Problem::new(format!("{} is there, and is not a file", paths.shown(&path))));
        }
        let text = if path.exists() { read_text(&path, MAX_FILE)? } else { String::new() };
        Self::parse(&text).map_err(|p| Problem { what: format!("{}: {}", paths.shown(&path), p.what), ..p })
    }

    fn parse(text: &str) -> Result<Self> {
        let mut state = State::new(Ports::default());
        let mut values: BTreeMap<&'static str, String> = defaults(&state).into();
        let mut others = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            match values.get_mut(name) {
                Some(place) if !value.is_empty() => value.clone_into(place),
                Some(_) => {}
                None if name == GRIP_KEY_BASE64 => {}
                None => others.push(line.to_owned()),
            }
        }
        let stray = |c: char| !c.is_ascii_alphanumeric() && !"._:/@,+=*-".contains(c);
        if let Some((name, _)) = values.iter().find(|(_, value)| value.contains(stray)) {
            return Err(Problem::new(format!("{name} has characters that it must not have"))
                .hint("write letters, digits and . _ : / @ , + = * - alone"));
        }
        fill(&mut state, &values)?;
        let of = |name: &'static str| {
            move |p: Problem| Problem { what: format!("{name}: {}", p.what.replace('\n', " ")), ..p }
        };
        state.check_public_url().map_err(of("PUBLIC_URL"))?;
        check_samples(&state)?;
        state.check_accepted().map_err(of("ACCEPTED_HOSTS"))?;
        state.check_keys()?;
        let hosts = organisation_hosts(&state, value(&values, "ORGANISATION_HOSTS"))
            .map_err(of("ORGANISATION_HOSTS"))?;
        let pushpin = value(&values, "ASGARD_PUSHPIN_IP")
            .parse()
            .map_err(|_| Problem::new("ASGARD_PUSHPIN_IP is not an IP address"))?;
        Ok(Self { state, hosts, pushpin, values, others })
    }

    /// Writes the file (mode 600).
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, paths: &Paths) -> Result<()> {
        let mut text = HEAD.to_owned();
        for (name, _) in defaults(&self.state) {
            text.push_str(&format!("{name}={}\n", value(&self.values, name)));
        }
        text.push_str(&format!("{GRIP_KEY_BASE64}={}\n", self.state.secrets.grip_key_standard()?));
        for line in &self.others {
            text.push_str(&format!("{line}\n"));
        }
        write_private(&file(paths), text.as_bytes())
    }

    /// Whether accounts that everybody knows are there, wherever the public address can be reached from.
    #[must_use]
    pub fn has_samples_anywhere(&self) -> bool {
        self.state.sample_users == Some(true)
    }
}

fn value<'a>(values: &'a BTreeMap<&'static str, String>, name: &str) -> &'a str {
    values.get(name).map_or("", String::as_str)
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|word| !word.is_empty())
}

/// Takes the file's values over.
fn fill(state: &mut State, values: &BTreeMap<&'static str, String>) -> Result<()> {
    let of = |name: &str| value(values, name).to_owned();
    state.public_url = of("PUBLIC_URL");
    state.sample_users = match value(values, "SAMPLE_USERS") {
        "local" => None,
        "anywhere" => Some(true),
        _ => return Err(Problem::new("SAMPLE_USERS must be local or anywhere")),
    };
    state.accepted_hosts = list(value(values, "ACCEPTED_HOSTS")).map(str::to_owned).collect();
    let secrets = &mut state.secrets;
    secrets.admin_user = of("KEYCLOAK_ADMIN_USER");
    secrets.admin_password = of("KEYCLOAK_ADMIN_PASSWORD");
    secrets.assertion_keys = of("ASGARD_ASSERTION_KEYS");
    secrets.session_key = of("ASGARD_SESSION_KEY");
    secrets.dialogue_key = of("ASGARD_STATE_KEY");
    secrets.broadcast_key = of("ASGARD_BROADCAST_KEY");
    secrets.link_key = of("ASGARD_LINK_KEY");
    secrets.admin_token = of("ASGARD_ADMIN_TOKEN");
    secrets.grip_key = of("ASGARD_GRIP_KEY");
    secrets.gateway_client = of("GATEWAY_CLIENT_SECRET");
    secrets.tests_client = of("TESTS_CLIENT_SECRET");
    secrets.inspector_token = of("MCP_INSPECTOR_API_TOKEN");
    Ok(())
}

/// As [`State::check_samples`], in the words of this file.
fn check_samples(state: &State) -> Result<()> {
    if state.is_loopback() || state.sample_users == Some(true) {
        return Ok(());
    }
    Err(Problem::new(format!(
        "PUBLIC_URL {} is not this machine alone, and the sample users and the administrator have passwords that everybody knows",
        state.public_url
    ))
    .hint(
        "write SAMPLE_USERS=anywhere into it to start all the same; then, before others can reach it, remove them and the \
         client asgard-cli in Keycloak, and change the administrator's password",
    ))
}

/// `HOST=ORGANISATION`, with commas between them.
fn organisation_hosts(state: &State, text: &str) -> Result<Hosts> {
    let mut hosts = Hosts::none();
    for pair in list(text) {
        let wrong = || {
            Problem::new(format!("{pair} is not HOST=ORGANISATION"))
                .hint("write a name in lower case, and an organisation's, with commas between such pairs")
        };
        let (host, organisation) = pair.split_once('=').ok_or_else(wrong)?;
        hosts::url(state, host)?;
        if !identity::path::is_alias(organisation) {
            return Err(wrong());
        }
        if !hosts.give(host, organisation)? {
            return Err(Problem::new(format!("{host} is there twice")));
        }
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Env::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_there_stays_and_the_rest_is_made() {
        let home = std::env::temp_dir().join(format!("asgard-env-{}", std::process::id()));
        let paths = Paths { root: home.clone(), home: home.clone(), cache: home.clone() };
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(file(&paths), "# mine\nPUBLIC_URL=http://127.0.0.1:8000\nMINE=a b\nASGARD_SUBNET=\n")
            .unwrap();
        let first = Env::load(&paths).unwrap();
        first.save(&paths).unwrap();
        let text = std::fs::read_to_string(file(&paths)).unwrap();
        assert!(
            text.contains("\nPUBLIC_URL=http://127.0.0.1:8000\n") && text.ends_with("\nMINE=a b\n"),
            "{text}"
        );
        assert!(text.contains("\nASGARD_SUBNET=172.30.77.0/24\n"), "an empty one has none: {text}");
        let second = Env::load(&paths).unwrap();
        assert_eq!(second.values, first.values);
        second.save(&paths).unwrap();
        assert_eq!(std::fs::read_to_string(file(&paths)).unwrap(), text);
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn mistakes_are_named() {
        for (line, expected) in [
            ("ASGARD_SESSION_KEY=AAAA", "session_key is shorter"),
            ("ASGARD_PUSHPIN_IP=pushpin", "ASGARD_PUSHPIN_IP is not an IP address"),
            ("SAMPLE_USERS=yes", "SAMPLE_USERS must be"),
            ("KEYCLOAK_ADMIN_USER=a$b", "KEYCLOAK_ADMIN_USER has characters"),
            ("ORGANISATION_HOSTS=localhost=org-1", "ORGANISATION_HOSTS: localhost is the public name"),
            ("ORGANISATION_HOSTS=a.example=x,a.example=x", "a.example is there twice"),
            ("PUBLIC_URL=https://mcp.example", "SAMPLE_USERS=anywhere"),
        ] {
            let problem = problem(line);
            assert!(problem.contains(expected), "{line}: {problem}");
        }
    }
}
