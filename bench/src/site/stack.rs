//! A stack of its own: started, asked and ended by the `asgard` command of a checkout, so that older ones do too.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::Result;
use crate::cpu::Part;
use crate::mcp::Endpoint;

/// The parts that a call may touch.
const OF_CALLS: [&str; 5] = ["gateway", "pushpin", "backend", "redis", "worker"];

/// A running stack; it ends when this is dropped.
pub struct Stack {
    /// What it is called in tables.
    pub name: String,
    program: PathBuf,
    root: PathBuf,
    folder: tempfile::TempDir,
    ports: Ports,
}

#[derive(Deserialize)]
struct Status {
    parts: Vec<PartStatus>,
}

/// A part, as `asgard status --json` describes it.
#[derive(Debug, Deserialize)]
pub struct PartStatus {
    /// Its name.
    name: String,
    /// Its kind.
    kind: String,
    /// Its process.
    pid: Option<u32>,
    /// Its address.
    pub address: String,
    /// Whether it is ready.
    ready: bool,
}

/// Where clients connect.
#[derive(Default)]
struct Ports {
    gateway: String,
    pushpin: String,
}

impl Stack {
    /// Starts the stack of a checkout, which builds what it needs, in a state folder of its own on free ports, and
    /// waits until it is ready.
    pub async fn start(name: &str, checkout: &Path, gateway: &str) -> Result<Self> {
        let mut stack = Self::start_with(name, checkout, &["--gateway", gateway]).await?;
        let parts = stack.parts().await?;
        let address = |kind: &str| parts.iter().find(|part| part.kind == kind).map(|part| &part.address);
        // Tokens are for the public URL, which has this name.
        let local = |address: Option<&String>| {
            let port = address.and_then(|address| address.rsplit_once(':')).map(|(_, port)| port);
            port.map(|port| format!("localhost:{port}")).ok_or("the stack has no gateway or no Pushpin")
        };
        stack.ports = Ports { gateway: local(address("gateway"))?, pushpin: local(address("pushpin"))? };
        Ok(stack)
    }

    /// Starts Pushpin alone; for what it passes on a test may listen at the port of the gateway.
    pub async fn pushpin_alone(checkout: &Path) -> Result<Self> {
        Self::start_with("Pushpin", checkout, &["--only", "pushpin"]).await
    }

    async fn start_with(name: &str, checkout: &Path, more: &[&str]) -> Result<Self> {
        let root = std::fs::canonicalize(checkout)?;
        // `asgard bench` is this checkout's own command; any other has its own.
        let own = std::env::var_os("ASGARD_ROOT").is_some_and(|own| Path::new(&own) == root);
        let program = std::env::var_os("ASGARD_BIN").filter(|_| own).map(PathBuf::from);
        let stack = Self {
            name: name.to_owned(),
            program: program.unwrap_or_else(|| root.join("asgard")),
            root,
            // Short, for the sockets inside.
            folder: tempfile::Builder::new().prefix("bench-").tempdir()?,
            ports: Ports::default(),
        };
        let parent = std::process::id().to_string();
        eprintln!("starting {name} ({}); what is not built yet is built first", stack.root.display());
        let up = ["up", "-d", "--native", "--no-inspector", "--ports", "free", "--parent", &parent];
        stack.ask(&[&up[..], more].concat()).await?;
        Ok(stack)
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command
            .args(arguments)
            .env_remove("ASGARD_BIN")
            .env("ASGARD_ROOT", &self.root)
            .env("ASGARD_HOME", self.folder.path())
            .stdin(Stdio::null());
        if !self.is_own() {
            // What is said of where this checkout's programs and filter are built.
            command.env_remove("CARGO_TARGET_DIR").env_remove("ASGARD_FILTER_WASM");
        }
        command
    }

    fn is_own(&self) -> bool {
        self.program != self.root.join("asgard")
    }

    /// Runs a command of the checkout; what it prints.
    pub async fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = tokio::process::Command::from(self.command(arguments)).output().await?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        Err(format!("asgard {} of {}: {last}", arguments.join(" "), self.root.display()).into())
    }

    /// All parts.
    pub async fn parts(&self) -> Result<Vec<PartStatus>> {
        // Its exit code says whether all are ready, which is a matter of the document too.
        let output = tokio::process::Command::from(self.command(&["status", "--json"])).output().await?;
        Ok(serde_json::from_slice::<Status>(&output.stdout)?.parts)
    }

    /// A part by name.
    pub async fn part(&self, name: &str) -> Result<PartStatus> {
        let parts = self.parts().await?;
        parts
            .into_iter()
            .find(|part| part.name == name)
            .ok_or_else(|| format!("the stack has no {name}").into())
    }

    /// The process of a part.
    pub async fn pid(&self, name: &str) -> Result<u32> {
        self.part(name).await?.pid.ok_or_else(|| format!("{name} does not run").into())
    }

    /// The program that a part runs.
    pub async fn program(&self, name: &str) -> Result<PathBuf> {
        Ok(std::fs::read_link(format!("/proc/{}/exe", self.pid(name).await?))?)
    }

    /// The parts that calls touch, by kind.
    pub async fn of_calls(&self) -> Result<Vec<Part>> {
        let parts = self.parts().await?;
        let of = |kind: &str| Part {
            name: kind.to_owned(),
            pids: parts.iter().filter(|part| part.kind == kind).filter_map(|part| part.pid).collect(),
        };
        Ok(OF_CALLS.map(of).into())
    }

    /// An access token.
    pub async fn token(&self, user: &str, organisation: &str) -> Result<String> {
        Ok(self.ask(&["token", user, "--org", organisation]).await?.trim().to_owned())
    }

    /// The endpoint at the gateway, for `thor` of `org-1`, with all parts.
    pub async fn bifrost(&self) -> Result<Endpoint> {
        self.endpoint(&self.name, &self.ports.gateway, ("thor", "org-1")).await
    }

    /// The endpoint at Pushpin.
    pub async fn hermod(&self) -> Result<Endpoint> {
        self.endpoint("through Pushpin first", &self.ports.pushpin, ("thor", "org-1")).await
    }

    /// The endpoint at Pushpin for any user.
    pub async fn hermod_of(&self, user: &str, organisation: &str) -> Result<Endpoint> {
        self.endpoint(organisation, &self.ports.pushpin, (user, organisation)).await
    }

    /// The endpoint at the gateway for any user.
    pub async fn endpoint_of(&self, user: &str, organisation: &str) -> Result<Endpoint> {
        self.endpoint(organisation, &self.ports.gateway, (user, organisation)).await
    }

    async fn endpoint(&self, name: &str, edge: &str, (user, organisation): (&str, &str)) -> Result<Endpoint> {
        let endpoint = Endpoint::new(name, &format!("http://{edge}/api/v1/mcp/{organisation}"))?;
        let token = self.token(user, organisation).await?;
        Ok(endpoint.with_token(Some(token)).with_parts(self.of_calls().await?))
    }

    /// Stops a part.
    pub async fn stop(&self, part: &str) -> Result<()> {
        self.ask(&["stop", part]).await.map(drop)
    }

    /// Starts a part that was stopped, and waits until it is ready.
    pub async fn restart(&self, part: &str) -> Result<()> {
        self.ask(&["start", part]).await?;
        let started = Instant::now();
        while !self.part(part).await?.ready {
            if started.elapsed() > Duration::from_secs(60) {
                return Err(format!("{part} does not get ready").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Those that it works with find it a little later.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    /// A port of the state file.
    pub fn port(&self, name: &str) -> Result<u16> {
        let text = std::fs::read_to_string(self.folder.path().join("asgard.toml"))?;
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().strip_prefix('=')?.trim().parse().ok());
        found.ok_or_else(|| format!("the state file has no port {name}").into())
    }

    /// The folder of a run: rendered configuration and sockets.
    pub fn run_folder(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Where the filter's module for Envoy is.
    pub fn filter(&self) -> PathBuf {
        let given = std::env::var_os("ASGARD_FILTER_WASM").map(PathBuf::from);
        given.unwrap_or_else(|| self.root.join("target/wasm/kong_filter.wasm")).with_extension("envoy.wasm")
    }

    /// Ends it.
    pub async fn down(&self) -> Result<()> {
        self.ask(&["down"]).await.map(drop)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // After `down` there is nothing left to end.
        let _ = self.command(&["down"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
