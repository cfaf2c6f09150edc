//! Runs the suite and reads what it wrote.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

/// A revision, and how many scenarios its requirements have for servers: scored and not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revision {
    pub(crate) name: &'static str,
    scenarios: usize,
    unscored: usize,
}

/// Both revisions that the suite has requirements for, as in 0.2.0-alpha.12.
pub(crate) const REVISIONS: [Revision; 2] = [
    Revision { name: "2025-11-25", scenarios: 33, unscored: 3 },
    Revision { name: "2026-07-28", scenarios: 50, unscored: 13 },
];

/// The suite waits for half a minute at most for each scenario.
const LIMIT: Duration = Duration::from_secs(600);

/// Scenarios that test nothing: the suite itself skips their only check.
const EMPTY: [&str; 1] = [
    // "The harness needs a rewrite against the new channel": its own words in the check that it skips.
    "tasks-status-notifications",
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Check {
    id: String,
    status: String,
    error_message: Option<String>,
}

/// What came of one run.
#[derive(Debug)]
pub(crate) struct Report {
    revision: Revision,
    succeeded: bool,
    scenarios: BTreeMap<String, Vec<Check>>,
}

impl Report {
    /// Runs the suite against a server.
    pub(crate) async fn of(url: &str, revision: Revision) -> Self {
        let program = |name: &str| {
            std::env::var_os(name)
                .unwrap_or_else(|| panic!("{name} is not set: run ./asgard test conformance"))
        };
        let folder = tempfile::tempdir().unwrap();
        let run = Command::new(program("ASGARD_NODE"))
            .arg(program("ASGARD_CONFORMANCE"))
            .args(["server", "--url", url, "--requirements", revision.name, "-o"])
            .arg(folder.path())
            .env("NO_PROXY", "localhost,127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(LIMIT, run).await.expect("the suite ends").unwrap();
        let scenarios = read(folder.path());
        if scenarios.is_empty() {
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            panic!("the suite did not run: {out}{err}");
        }
        Self { revision, succeeded: output.status.success(), scenarios }
    }

    fn count(&self, status: &str) -> usize {
        self.scenarios.values().flatten().filter(|check| check.status == status).count()
    }

    /// All that is not as it should be, one line each.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let revision = self.revision.name;
        if !self.succeeded {
            faults.push(format!("{revision}: the suite says that a scored scenario failed"));
        }
        if self.scenarios.len() != self.revision.scenarios {
            let (ran, known) = (self.scenarios.len(), self.revision.scenarios);
            faults.push(format!("{revision}: {ran} scenarios ran, {known} were expected"));
        }
        for (scenario, checks) in &self.scenarios {
            for check in checks.iter().filter(|check| matches!(check.status.as_str(), "FAILURE" | "WARNING"))
            {
                let why = check.error_message.as_deref().unwrap_or("no reason given");
                let why: String = why.chars().take(400).collect();
                faults.push(format!("{revision} {scenario}: {} {}: {why}", check.status, check.id));
            }
            let tested = checks.iter().any(|check| check.status == "SUCCESS");
            if !tested && !EMPTY.contains(&scenario.as_str()) {
                faults.push(format!("{revision} {scenario}: nothing was checked"));
            }
        }
        faults
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bad = |checks: &&Vec<Check>| !checks.iter().any(|check| check.status == "FAILURE");
        let passed = self.scenarios.values().filter(bad).count();
        write!(
            f,
            "{}: {passed} of {} scenarios passed ({} of them not scored); checks: {} passed, {} failed, {} warnings",
            self.revision.name,
            self.scenarios.len(),
            self.revision.unscored,
            self.count("SUCCESS"),
            self.count("FAILURE"),
            self.count("WARNING")
        )
    }
}

/// The checks by scenario. The suite names the folders `server-{scenario}-{time}`.
fn read(folder: &Path) -> BTreeMap<String, Vec<Check>> {
    let mut scenarios = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let Ok(text) = std::fs::read_to_string(entry.path().join("checks.json")) else { continue };
        let name = name.strip_prefix("server-").unwrap_or(&name);
        // The time is of the form 2026-11-23T08-17-27-213Z.
        let name = name.len().checked_sub(25).map_or(name, |end| &name[..end]);
        let checks = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        scenarios.insert(name.to_owned(), checks);
    }
    scenarios
}
