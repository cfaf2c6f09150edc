//! `asgard reload`: what the state file and the hosts say now, for the running gateway.

use std::process::ExitCode;

use crate::gateway::Gateway;
use crate::install::{Needs, Tools};
use crate::parts::Plan;
use crate::paths::Paths;
use crate::problem::{Problem, Result};
use crate::size::Size;
use crate::state::State;
use crate::supervisor::control::{self, Request};
use crate::supervisor::part::Kind;
use crate::ui::say;

/// Gives the gateway its configuration anew.
///
/// # Errors
/// When no stack runs, or the gateway does not come back.
pub async fn run(paths: &Paths) -> Result<ExitCode> {
    let state = State::existing(paths)?;
    if control::ask(paths, &Request::Status).await?.is_none() {
        return Err(
            Problem::new("no stack is running").hint("run ./asgard up, which takes the settings as they are")
        );
    }
    gateway(paths, &state).await?;
    say("the gateway has its configuration anew");
    Ok(ExitCode::SUCCESS)
}

/// Writes the gateway's files anew and starts it again, if this stack runs.
///
/// # Errors
/// When the files cannot be written, or the gateway does not come back.
pub async fn gateway(paths: &Paths, state: &State) -> Result<()> {
    let Some(reply) = control::ask(paths, &Request::Status).await? else {
        if crate::compose::is_up(paths) {
            say(
                "  the gateway in the containers: ORGANISATION_HOSTS in .env, ./setup.sh, docker compose restart gateway (docs/organisations.md)",
            );
        }
        return Ok(());
    };
    let Some(part) = reply.parts.iter().find(|part| part.kind == Kind::Gateway) else { return Ok(()) };
    let count = |kind: Kind| {
        u16::try_from(reply.parts.iter().filter(|part| part.kind == kind).count()).unwrap_or(1).max(1)
    };
    let gateway = if paths.run().join("gateway/kong.yml").exists() { Gateway::Kong } else { Gateway::Envoy };
    let only = vec![Kind::Gateway.name().to_owned()];
    let needs = Needs { gateway, inspector: false, only: only.clone(), tests: false };
    let plan = Plan {
        paths: paths.clone(),
        state: state.clone(),
        size: Size { backends: count(Kind::Backend), workers: count(Kind::Worker) },
        gateway,
        tools: Tools::locate(paths, state, &needs)?,
        inspector: false,
        only,
    };
    plan.parts()?;
    control::ask(paths, &Request::Stop(part.name.clone())).await?;
    control::ask(paths, &Request::Start(part.name.clone())).await?;
    let started = std::time::Instant::now();
    loop {
        let reply = control::ask(paths, &Request::Status).await?;
        let ready = reply.iter().flat_map(|reply| &reply.parts).any(|one| one.name == part.name && one.ready);
        if ready {
            return Ok(());
        }
        if started.elapsed() > std::time::Duration::from_secs(60) {
            return Err(Problem::new("the gateway does not come back with the new host")
                .hint(format!("see ./asgard logs {}", part.name)));
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
