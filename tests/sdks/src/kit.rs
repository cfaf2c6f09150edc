//! The fetched SDKs, and how scripts are run with them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::{Mode, Seen};

/// Longest time for one script: up to eight cases of up to a minute.
const LIMIT: Duration = Duration::from_secs(300);

/// One of the SDKs that scripts drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    /// PyPI's `mcp`, the 2.x line.
    Python,
    /// PyPI's `mcp`, the 1.x line.
    Python1,
    /// npm's `@modelcontextprotocol/client`, the 2.x line.
    TypeScript,
    /// npm's `@modelcontextprotocol/sdk`, the 1.x line.
    TypeScript1,
}

impl Sdk {
    /// Its environment in `environments`.
    fn environment(self) -> &'static str {
        match self {
            Self::Python => "python-2",
            Self::Python1 => "python-1.30",
            Self::TypeScript | Self::TypeScript1 => "typescript-2",
        }
    }
}

/// The programs and packages, as `./asgard test` brings them.
#[derive(Debug)]
pub struct Kit {
    /// The installed environments.
    environments: Vec<PathBuf>,
    node: PathBuf,
    python: PathBuf,
    /// Scripts and programs for them.
    stage: tempfile::TempDir,
}

impl Kit {
    /// Finds them by the environment.
    #[must_use]
    pub fn find() -> Self {
        let of = |name: &str| {
            let value = std::env::var_os(name).map(PathBuf::from);
            value.unwrap_or_else(|| panic!("{name} is not set: run ./asgard test sdks clients"))
        };
        let environments: Vec<PathBuf> = std::env::split_paths(&of("ASGARD_CLIENTS")).collect();
        let stage = tempfile::tempdir().unwrap();
        let (node, python) = (of("ASGARD_NODE"), of("ASGARD_PYTHON"));
        if let Some(inspector) = std::env::var_os("ASGARD_INSPECTOR") {
            // As npm would install it.
            program(&stage.path().join("mcp-inspector"), &[&node, Path::new(&inspector)]);
        }
        program(&stage.path().join("login"), &[&python, &source("clients/login.py")]);
        Self { environments, node, python, stage }
    }

    /// The folder of an environment, where it is installed.
    #[must_use]
    pub fn environment(&self, name: &str) -> Option<&Path> {
        let is_it = |folder: &&PathBuf| {
            let folder = folder.file_name().unwrap_or_default().to_string_lossy();
            folder
                .strip_prefix("client-")
                .and_then(|rest| rest.rsplit_once('-'))
                .is_some_and(|(n, _)| n == name)
        };
        self.environments.iter().find(is_it).map(PathBuf::as_path)
    }

    /// A command that runs Python with the SDK.
    #[must_use]
    pub fn python(&self, sdk: Sdk) -> Command {
        self.python_in(sdk.environment())
    }

    fn python_in(&self, environment: &str) -> Command {
        let packages = self.environment(environment).unwrap_or_else(|| panic!("{environment} is not there"));
        let mut command = self.command(&self.python);
        command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// A command that runs a script (its text) with Node.js and both lines of the TypeScript SDK.
    #[must_use]
    pub fn node(&self, name: &str, script: &str) -> Command {
        let path = self.stage_of(Sdk::TypeScript.environment()).join(name);
        std::fs::write(&path, script).unwrap();
        let mut command = self.command(&self.node);
        command.arg(path);
        command
    }

    /// A command that runs one of the scripts in `clients` in an environment. Its `login` is a user with a browser:
    /// `BROWSER` for clients that open one, `LOGIN` for those that leave it to the script.
    #[must_use]
    pub fn client(&self, environment: &str, script: &str) -> Command {
        let path = source("clients").join(script);
        let login = self.stage.path().join("login");
        let mut command;
        if path.extension().is_some_and(|extension| extension == "py") {
            command = self.python_in(environment);
            // In the background: Python's own `webbrowser` waits for any other one.
            command.arg(path).env("BROWSER", format!("{} %s &", login.display()));
        } else {
            let stage = self.stage_of(environment);
            for name in [script, "common.mjs"] {
                std::fs::copy(source("clients").join(name), stage.join(name)).unwrap();
            }
            command = self.command(&self.node);
            command.arg(stage.join(script)).current_dir(stage).env("BROWSER", &login);
        }
        command.env("LOGIN", login);
        command
    }

    /// A folder for scripts of Node.js, which looks for packages beside a script.
    fn stage_of(&self, environment: &str) -> PathBuf {
        let stage = self.stage.path().join(environment);
        if !stage.exists() {
            let packages =
                self.environment(environment).unwrap_or_else(|| panic!("{environment} is not there"));
            std::fs::create_dir(&stage).unwrap();
            std::os::unix::fs::symlink(packages.join("node_modules"), stage.join("node_modules")).unwrap();
        }
        stage
    }

    /// A command that runs a script (its text) with the shell, which finds the Inspector as `mcp-inspector`.
    #[must_use]
    pub fn shell(&self, script: &str) -> Command {
        let mut command = self.command(Path::new("sh"));
        let search = std::env::var_os("PATH").unwrap_or_default();
        let folders = [self.stage.path().to_owned()].into_iter().chain(std::env::split_paths(&search));
        command.args(["-euc", script]).env("PATH", std::env::join_paths(folders).unwrap());
        command.env("MCP_STORAGE_DIR", self.stage.path());
        command
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).kill_on_drop(true).current_dir(self.stage.path());
        // Neither language's client is to go through a proxy to this machine.
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs all cases with an SDK.
    pub async fn run(&self, sdk: Sdk, mode: Mode, [url, cut_url, blank_url]: [&str; 3], token: &str) -> Seen {
        let mut command = match sdk {
            Sdk::Python | Sdk::Python1 => {
                let mut command = self.python(sdk);
                command.arg(source("client.py"));
                command
            }
            Sdk::TypeScript | Sdk::TypeScript1 => {
                let script = std::fs::read_to_string(source("client.mjs")).unwrap();
                let mut command = self.node("client.mjs", &script);
                command.arg(if sdk == Sdk::TypeScript { "client" } else { "sdk" });
                command
            }
        };
        command.args([mode.name(), url, cut_url, blank_url, token]);
        let output = output(command).await;
        let said = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        // What the 1.x line for TypeScript says about formats in schemas that it does not know.
        assert!(!complaints.contains("ignored in schema"), "{sdk:?} {mode:?}: {complaints}");
        let lines = said.lines().filter(|line| line.starts_with('{'));
        let seen: Seen = lines
            .map(|line| {
                let seen: serde_json::Value = serde_json::from_str(line).unwrap();
                (seen["case"].as_str().unwrap().to_owned(), seen)
            })
            .collect();
        assert!(
            output.status.success() && !seen.is_empty(),
            "{sdk:?} {mode:?}: {}\n{said}\n{complaints}",
            output.status
        );
        seen
    }
}

/// Writes a program that runs a command with what arguments it gets.
fn program(path: &Path, command: &[&Path]) {
    let command: Vec<String> = command.iter().map(|part| format!("{part:?}")).collect();
    std::fs::write(path, format!("#!/bin/sh\nexec {} \"$@\"\n", command.join(" "))).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A file of this package.
#[must_use]
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs a command to its end.
pub async fn output(mut command: Command) -> Output {
    let what = format!("{command:?}");
    let done = tokio::time::timeout(LIMIT, command.output()).await;
    done.unwrap_or_else(|_| panic!("not done in time: {what}")).unwrap_or_else(|e| panic!("{e}: {what}"))
}
