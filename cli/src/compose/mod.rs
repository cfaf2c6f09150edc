//! With a container engine: the compose file instead of native parts.

mod env;
mod files;

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use crate::health;
use crate::paths::{Paths, write_private};
use crate::problem::{Problem, Result};
use crate::process::find_program;
use crate::supervisor::part::{Kind, PartStatus};
use crate::ui::say;

pub use env::Env;
pub use files::{files, folder, write};

/// Whether the stack can run in containers here: a compose file, an engine that answers, a compose command.
pub async fn is_usable(paths: &Paths) -> bool {
    let here = paths.root.join("docker-compose.yml").is_file();
    here && find_program("docker").is_some() && quiet("docker", &["info"]).await && command().await.is_some()
}

/// Whether `up` started it in containers.
#[must_use]
pub fn is_up(paths: &Paths) -> bool {
    marker(paths).exists()
}

/// Prepares the configuration, starts the containers and waits until they are healthy. Gives what they were configured with:
/// in containers `.env` rules, not the state file.
///
/// # Errors
/// When the preparation or compose fails.
pub async fn start(paths: &Paths) -> Result<Env> {
    say("  a container engine is here: starting the compose file (./asgard up --native does without)");
    let env = Env::load(paths)?;
    let rendered = files(paths, &env)?;
    env.save(paths)?;
    write(&folder(paths), &rendered)?;
    write_private(&marker(paths), b"compose\n")?;
    demand(paths, compose(paths, &["up", "-d", "--build"]).await?, "start the containers").await?;
    wait_healthy(paths).await?;
    Ok(env)
}

/// Stops and removes the containers; named volumes stay.
///
/// # Errors
/// When compose fails.
pub async fn down(paths: &Paths) -> Result<ExitCode> {
    demand(paths, compose(paths, &["down", "--remove-orphans"]).await?, "stop the containers").await?;
    let _ = std::fs::remove_file(marker(paths));
    say("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Prints the containers' logs.
///
/// # Errors
/// When compose fails.
pub async fn logs(paths: &Paths, part: Option<&str>, follow: bool, lines: usize) -> Result<ExitCode> {
    let lines = lines.to_string();
    let mut args = vec!["logs", "--tail", &lines];
    args.extend(follow.then_some("--follow"));
    args.extend(part);
    demand(paths, compose(paths, &args).await?, "read the logs").await?;
    Ok(ExitCode::SUCCESS)
}

/// All that the containers have logged.
///
/// # Errors
/// When compose fails.
pub async fn all_logs(paths: &Paths) -> Result<String> {
    let output = compose(paths, &["logs", "--no-color"]).await?.stderr(Stdio::inherit()).output().await;
    let output = output.map_err(|e| Problem::new(format!("cannot read the containers' logs: {e}")))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    #[serde(default)]
    name: String,
    #[serde(default)]
    service: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    health: String,
    #[serde(default)]
    publishers: Option<Vec<Publisher>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Publisher {
    #[serde(default)]
    published_port: u16,
}

/// The containers, as parts. A container has no process id of this machine.
///
/// # Errors
/// When compose fails.
pub async fn status(paths: &Paths) -> Result<Vec<PartStatus>> {
    let output = compose(paths, &["ps", "-a", "--format", "json"])
        .await?
        .stderr(Stdio::inherit())
        .output()
        .await
        .map_err(|e| Problem::new(format!("cannot ask compose: {e}")))?;
    let mut parts = parse(&String::from_utf8_lossy(&output.stdout));
    for (container, part) in &mut parts {
        if matches!(part.kind, Kind::Backend | Kind::Worker) && part.ready {
            part.degraded = degraded(container).await;
        }
    }
    Ok(parts.into_iter().map(|(_, part)| part).collect())
}

/// What the last health check of a container printed as degraded.
async fn degraded(container: &str) -> Vec<String> {
    let args = ["inspect", "--format", "{{json .State.Health.Log}}", container];
    let output = Command::new("docker").args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    match tokio::time::timeout(Duration::from_secs(5), output).await {
        Ok(Ok(output)) => last_check(&output.stdout),
        _ => Vec::new(),
    }
}

fn last_check(log: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Check {
        output: String,
    }
    let log: Vec<Check> = serde_json::from_slice(log).unwrap_or_default();
    log.last().map_or_else(Vec::new, |check| health::degraded(check.output.trim().as_bytes()))
}

/// Compose prints a JSON array, or (since 2.21) an object a line.
fn parse(text: &str) -> Vec<(String, PartStatus)> {
    let containers: Vec<Container> = serde_json::from_str(text)
        .unwrap_or_else(|_| text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect());
    containers.into_iter().filter_map(part).collect()
}

fn part(container: Container) -> Option<(String, PartStatus)> {
    let kind = match container.service.split(['-', '_']).next()? {
        "kong" | "gateway" | "bifrost" => Kind::Gateway,
        "backend" | "mcp" => Kind::Backend,
        "worker" => Kind::Worker,
        "pushpin" | "hermod" => Kind::Pushpin,
        "redis" => Kind::Redis,
        "keycloak" | "heimdall" => Kind::Keycloak,
        "inspector" => Kind::Inspector,
        _ => return None,
    };
    let port = container.publishers.into_iter().flatten().map(|p| p.published_port).find(|port| *port != 0);
    let part = PartStatus {
        name: container.service,
        kind,
        pid: None,
        address: port.map_or_else(|| "inside".to_owned(), |port| format!("127.0.0.1:{port}")),
        ready: container.state == "running" && matches!(container.health.as_str(), "" | "healthy"),
        degraded: Vec::new(),
    };
    Some((container.name, part))
}

async fn wait_healthy(paths: &Paths) -> Result<()> {
    let began = std::time::Instant::now();
    loop {
        let parts = status(paths).await?;
        if !parts.is_empty() && parts.iter().all(|part| part.ready) {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(300) {
            let late: Vec<String> =
                parts.into_iter().filter(|part| !part.ready).map(|part| part.name).collect();
            return Err(Problem::new(format!("not healthy after 300 s: {}", late.join(", ")))
                .hint("see ./asgard logs PART, then ./asgard down"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn marker(paths: &Paths) -> std::path::PathBuf {
    paths.home.join("compose")
}

async fn quiet(program: &str, args: &[&str]) -> bool {
    let run = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    matches!(tokio::time::timeout(Duration::from_secs(5), run).await, Ok(Ok(status)) if status.success())
}

/// `docker compose`, or `docker-compose` of version 2.
async fn command() -> Option<Vec<&'static str>> {
    if quiet("docker", &["compose", "version"]).await {
        return Some(vec!["docker", "compose"]);
    }
    find_program("docker-compose").map(|_| vec!["docker-compose"])
}

async fn compose(paths: &Paths, args: &[&str]) -> Result<Command> {
    let words = command().await.ok_or_else(|| Problem::new("docker compose is not installed"))?;
    let (program, first) =
        words.split_first().ok_or_else(|| Problem::new("docker compose is not installed"))?;
    let mut command = Command::new(program);
    command.args(first).args(args).current_dir(&paths.root);
    Ok(command)
}

async fn demand(paths: &Paths, mut command: Command, doing: &str) -> Result<()> {
    let status = command
        .current_dir(&paths.root)
        .status()
        .await
        .map_err(|e| Problem::new(format!("cannot {doing}: {e}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Problem::new(format!("cannot {doing}: {}", crate::process::ending(status)))
        .hint("see above; `./asgard up --native` does without containers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_parts() {
        let lines = r#"{"Name":"asgard-backend-1-1","Service":"backend-1","State":"running","Health":"healthy","Publishers":[]}
{"Service":"gateway","State":"running","Health":"starting","Publishers":[{"PublishedPort":8000}]}
{"Service":"helper","State":"exited"}"#;
        let (names, parts): (Vec<_>, Vec<_>) = parse(lines).into_iter().unzip();
        assert_eq!(names, ["asgard-backend-1-1", ""]);
        assert!(parts[0].ready && parts[0].kind == Kind::Backend && parts[0].address == "inside");
        assert!(!parts[1].ready && parts[1].address == "127.0.0.1:8000");
        assert_eq!(parse(&format!("[{}]", lines.lines().next().unwrap())).len(), 1);
    }

    #[test]
    fn a_health_check_says_what_is_degraded() {
        let log = r#"[{"ExitCode":1,"Output":""},{"ExitCode":0,"Output":
            "{\"degraded\":[{\"part\":\"pushpin\",\"reason\":\"away\"}],\"ready\":true}\n"}]"#;
        assert_eq!(last_check(log.as_bytes()), ["pushpin: away"]);
        assert!(last_check(b"null").is_empty());
    }
}
