//! A stack of one's own for end-to-end tests: other ports, a state folder of its own, real parts.
//!
//! ```no_run
//! # async fn example() -> asgard::problem::Result<()> {
//! use asgard::stack::{Options, Stack};
//!
//! let stack = Stack::up(Options { inspector: false, ..Options::default() }).await?;
//! let token = stack.token("thor", Some("org-1")).await?;
//! stack.kill(&stack.part("backend-1").await?)?; // the supervisor starts it again
//! stack.stop("backend-2").await?; // stays down
//! stack.start("backend-2").await?;
//! stack.wait_ready(std::time::Duration::from_secs(20)).await?;
//! stack.down().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The stack ends when the value is dropped, and also when the process of the test is killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::client::Client;
use crate::gateway::Gateway;
use crate::paths::{Paths, private_dir};
use crate::ports::Ports;
use crate::problem::{Problem, Result};
use crate::process::{self, ending};
use crate::size::Size;
use crate::state::State;
use crate::supervisor::control::{self, Reply, Request};
use crate::supervisor::part::{Kind, PartStatus};
use crate::token;

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The gateway; none: as `asgard up` chooses.
    pub gateway: Option<Gateway>,
    /// Backends.
    pub backends: u16,
    /// Workers.
    pub workers: u16,
    /// Whether the Inspector runs.
    pub inspector: bool,
    /// Nothing but these parts (names or kinds); empty: all.
    pub only: Vec<String>,
    /// Extra environment by kind of part.
    pub env: BTreeMap<Kind, BTreeMap<String, String>>,
    /// Programs in place of our own, by kind of part (backend, worker).
    pub programs: BTreeMap<Kind, PathBuf>,
    /// The first port of the block; none: a free block.
    pub ports: Option<u16>,
    /// The `asgard` program; none: `ASGARD_BIN`, or the shim.
    pub program: Option<PathBuf>,
    /// The state folder; none: a temporary one, removed at the end unless the test panics.
    pub home: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            gateway: None,
            backends: 2,
            workers: 2,
            inspector: false,
            only: Vec::new(),
            env: BTreeMap::new(),
            programs: BTreeMap::new(),
            ports: None,
            program: None,
            home: None,
        }
    }
}

/// A running stack.
#[derive(Debug)]
pub struct Stack {
    paths: Paths,
    state: State,
    program: PathBuf,
    temporary: bool,
    down: bool,
}

impl Stack {
    /// Starts a stack with the programs as they were installed and built (`asgard test` does that before its
    /// end-to-end suites) and waits until all is ready.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn up(options: Options) -> Result<Self> {
        let temporary = options.home.is_none();
        let home = options.home.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("asgard-{:012x}", rand::random::<u64>() >> 16))
        });
        let paths = Paths::discover()?.with_home(home);
        private_dir(&paths.home)?;
        let ports = match options.ports {
            Some(base) => Ports::from_base(base),
            None => Ports::parse("free")?,
        };
        let mut state = State::new(ports);
        state.size = Size { backends: options.backends, workers: options.workers };
        state.env = options.env.into_iter().map(|(kind, env)| (kind.name().to_owned(), env)).collect();
        state.programs =
            options.programs.into_iter().map(|(kind, program)| (kind.name().to_owned(), program)).collect();
        state.save(&paths)?;
        let program = options.program.unwrap_or_else(|| program(&paths));
        let mut command = tokio::process::Command::new(&program);
        command.args(["up", "-d", "--native", "--no-build", "--parent", &std::process::id().to_string()]);
        if let Some(gateway) = options.gateway {
            command.args(["--gateway", gateway.name()]);
        }
        if !options.inspector {
            command.arg("--no-inspector");
        }
        if !options.only.is_empty() {
            command.args(["--only", &options.only.join(",")]);
        }
        let output = command
            .env("ASGARD_ROOT", &paths.root)
            .env("ASGARD_HOME", &paths.home)
            .env("ASGARD_CACHE", &paths.cache)
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|e| Problem::io("start", &program, &e))?;
        let stack = Self { paths, state, program, temporary, down: false };
        if output.status.success() {
            return Ok(stack);
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().last().unwrap_or_default().to_owned();
        Err(Problem::new(format!("asgard up failed ({}): {last}", ending(output.status)))
            .hint(format!("see {}", stack.paths.logs().display())))
    }

    /// Ports, secrets, addresses.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The state folder.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.paths.home
    }

    /// The log of a part.
    #[must_use]
    pub fn log(&self, part: &str) -> PathBuf {
        self.paths.log(part)
    }

    /// The MCP endpoint of an organisation at the bifrost entry point: also the resource of its tokens.
    #[must_use]
    pub fn bifrost(&self, organisation: &str) -> String {
        self.state.resource(organisation)
    }

    /// The MCP endpoint of an organisation at the hermod entry point.
    #[must_use]
    pub fn hermod(&self, organisation: &str) -> String {
        format!("http://localhost:{}/api/v1/mcp/{organisation}", self.state.ports.pushpin)
    }

    /// An access token of a sample user; default organisation: the user's first.
    ///
    /// # Errors
    /// When Keycloak gives none.
    pub async fn token(&self, user: &str, organisation: Option<&str>) -> Result<String> {
        token::for_user(&self.state, user, organisation).await.map(|(token, _)| token)
    }

    /// A client of the modern era for a sample user at the bifrost entry point.
    ///
    /// # Errors
    /// When Keycloak gives no token.
    pub async fn client(&self, user: &str, organisation: &str) -> Result<Client> {
        Client::new(self.bifrost(organisation), self.token(user, Some(organisation)).await?)
    }

    /// How the parts are.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub async fn status(&self) -> Result<Vec<PartStatus>> {
        self.ask(Request::Status).await.map(|reply| reply.parts)
    }

    /// One part.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn part(&self, name: &str) -> Result<PartStatus> {
        let parts = self.status().await?;
        parts
            .into_iter()
            .find(|part| part.name == name)
            .ok_or_else(|| Problem::new(format!("there is no part {name}")))
    }

    /// The names of the parts of a kind.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub async fn names(&self, kind: Kind) -> Result<Vec<String>> {
        let parts = self.status().await?;
        Ok(parts.into_iter().filter(|part| part.kind == kind).map(|part| part.name).collect())
    }

    /// Kills a part and its children with SIGKILL, at once; the supervisor starts it again.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, part: &PartStatus) -> Result<()> {
        let pid = part.pid.ok_or_else(|| Problem::new(format!("{} does not run", part.name)))?;
        process::kill_session(pid);
        Ok(())
    }

    /// Sends a signal to a part's process (SIGSTOP and SIGCONT, for example).
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, part: &PartStatus, signal: Signal) -> Result<()> {
        let pid = part.pid.ok_or_else(|| Problem::new(format!("{} does not run", part.name)))?;
        process::signal_process(pid, signal);
        Ok(())
    }

    /// Stops a part until [`Stack::start`].
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn stop(&self, part: &str) -> Result<()> {
        self.ask(Request::Stop(part.to_owned())).await.map(drop)
    }

    /// Starts a part that was stopped, or that waits after its death. Use [`Stack::wait_ready`] then.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn start(&self, part: &str) -> Result<()> {
        self.ask(Request::Start(part.to_owned())).await.map(drop)
    }

    /// Waits until all parts are ready.
    ///
    /// # Errors
    /// When one is not within that time; says which and why.
    pub async fn wait_ready(&self, within: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            let reply = self.ask(Request::Status).await?;
            if reply.parts.iter().all(|part| part.ready) {
                return Ok(());
            }
            if started.elapsed() > within {
                return Err(Problem::new(format!(
                    "not ready after {} s: {}",
                    within.as_secs(),
                    reply.notes.join("; ")
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the stack.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn down(mut self) -> Result<()> {
        self.down = true;
        let mut command = self.down_command();
        let status = tokio::task::spawn_blocking(move || command.status())
            .await
            .map_err(|e| Problem::new(e.to_string()))?
            .map_err(|e| Problem::io("start", &self.program, &e))?;
        self.remove();
        if status.success() {
            Ok(())
        } else {
            Err(Problem::new(format!("asgard down failed: {}", ending(status))))
        }
    }

    async fn ask(&self, request: Request) -> Result<Reply> {
        control::ask(&self.paths, &request).await?.ok_or_else(|| Problem::new("the supervisor is gone"))
    }

    fn down_command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command
            .arg("down")
            .env("ASGARD_ROOT", &self.paths.root)
            .env("ASGARD_HOME", &self.paths.home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn remove(&self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.paths.home);
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.down {
            return;
        }
        let _ = self.down_command().status();
        // The logs of a test that failed are worth keeping.
        if std::thread::panicking() {
            eprintln!("the logs of this stack are in {}", self.paths.logs().display());
        } else {
            self.remove();
        }
    }
}

/// The `asgard` command: the one that runs the tests (`ASGARD_BIN`), or the shim.
#[must_use]
pub fn program(paths: &Paths) -> PathBuf {
    std::env::var_os("ASGARD_BIN").map_or_else(|| paths.root.join("asgard"), PathBuf::from)
}
