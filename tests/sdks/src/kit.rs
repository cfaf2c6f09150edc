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

/// The programs and packages, as `./asgard test` brings them.
#[derive(Debug)]
pub struct Kit {
    folder: PathBuf,
    node: PathBuf,
    python: PathBuf,
    /// Where the scripts of Node.js are: it looks for packages beside a script.
    stage: tempfile::TempDir,
}

impl Kit {
    /// Finds them by the environment.
    #[must_use]
    pub fn find() -> Self {
        let of = |name: &str| {
            let value = std::env::var_os(name).map(PathBuf::from);
            value.unwrap_or_else(|| panic!("{name} is not set: run ./asgard test sdks"))
        };
        let folder = of("ASGARD_SDKS");
        let stage = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.join("node/node_modules"), stage.path().join("node_modules"))
            .unwrap();
        let (node, python) = (of("ASGARD_NODE"), of("ASGARD_PYTHON"));
        // As npm would install it.
        let inspector = stage.path().join("mcp-inspector");
        let script = format!("#!/bin/sh\nexec {node:?} {:?} \"$@\"\n", of("ASGARD_INSPECTOR"));
        std::fs::write(&inspector, script).unwrap();
        std::fs::set_permissions(&inspector, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, node, python, stage }
    }

    /// A command that runs Python with the SDK.
    #[must_use]
    pub fn python(&self, sdk: Sdk) -> Command {
        let packages = if sdk == Sdk::Python1 { "python-1" } else { "python" };
        let mut command = self.command(&self.python);
        command.env("PYTHONPATH", self.folder.join(packages)).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// A command that runs a script (its text) with Node.js and both SDKs.
    #[must_use]
    pub fn node(&self, name: &str, script: &str) -> Command {
        let path = self.stage.path().join(name);
        std::fs::write(&path, script).unwrap();
        let mut command = self.command(&self.node);
        command.arg(path);
        command
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
