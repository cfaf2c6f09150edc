//! `asgard up`.

use std::fs::OpenOptions;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::{summary, supervise};
use crate::args::Up;
use crate::compose;
use crate::gateway::Gateway;
use crate::install::{Needs, Tools, output_of};
use crate::parts::Plan;
use crate::paths::{Paths, private_dir};
use crate::ports::Ports;
use crate::problem::{Problem, Result};
use crate::process::{find_program, tail};
use crate::size::Size;
use crate::state::State;
use crate::supervisor::control::{self, Request};
use crate::supervisor::{Lock, Supervisor};
use crate::ui::{Step, say, seconds};

/// Installs what is missing, starts all parts, waits until they are ready.
///
/// # Errors
/// What stands in the way, and what to do.
pub async fn run(paths: &Paths, up: Up) -> Result<ExitCode> {
    let started = Instant::now();
    let state = state(paths, up.ports.as_deref())?;
    if !up.native
        && up.gateway != Some(Gateway::Envoy)
        && up.only.is_empty()
        && compose::is_usable(paths).await
    {
        only_native(&up)?;
        return in_containers(paths, up.detach).await;
    }
    if !Lock::is_free(paths) {
        if !up.detach {
            return Lock::take(paths).map(|_| ExitCode::FAILURE);
        }
        let running = control::ask(paths, &Request::Status).await?.is_some_and(|reply| reply.up);
        if running {
            say("this stack is already running");
            summary::print(paths, &state);
            return Ok(ExitCode::SUCCESS);
        }
        return Err(Problem::new("this stack is just starting or stopping").hint("look at ./asgard status"));
    }
    // Before anything is installed: what cannot work anyway is said at once.
    Supervisor::clear_leftovers(paths);
    let gateway = gateway(up.gateway)?;
    size(&state, &up)?.check()?;
    let needs = Needs { gateway, inspector: !up.no_inspector, only: up.only.clone(), tests: false };
    check_ports(paths, &state, &up, gateway)?;
    let tools = if up.no_build {
        Tools::locate(paths, &state, &needs)?
    } else {
        let (paths, state) = (paths.clone(), state.clone());
        let install = tokio::task::spawn_blocking(move || Tools::ensure(&paths, &state, &needs));
        install.await.map_err(|e| Problem::new(format!("the installation broke off: {e}")))??
    };
    let plan = plan(paths, &state, &up, gateway, tools)?;
    if up.detach {
        detach(paths, &state, &up, gateway, started).await
    } else {
        supervise::foreground(&plan, up.parent, started).await
    }
}

/// What the compose file decides by itself is not taken and then ignored.
fn only_native(up: &Up) -> Result<()> {
    let options = [
        ("--backends", up.backends.is_some()),
        ("--workers", up.workers.is_some()),
        ("--ports", up.ports.is_some()),
        ("--no-inspector", up.no_inspector),
    ];
    match options.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => Err(Problem::new(format!(
            "{option} is for native parts, and a container engine is here, which takes docker-compose.yml"
        ))
        .hint("add --native, or leave it out and change docker-compose.yml")),
    }
}

/// The state file, written now if there is none.
fn state(paths: &Paths, ports: Option<&str>) -> Result<State> {
    match (State::load(paths)?, ports) {
        (Some(state), Some(ports)) if ports != "free" && Ports::parse(ports)? == state.ports => Ok(state),
        (Some(_), Some(_)) => Err(Problem::new(format!(
            "the ports of this stack are already written in {}, and are others",
            paths.shown(&paths.state_file())
        ))
        .hint("edit that file, or leave --ports out")),
        (Some(state), None) => Ok(state),
        (None, ports) => {
            let ports = ports.map(Ports::parse).transpose()?.unwrap_or_default();
            let state = State::new(ports);
            state.save(paths)?;
            Ok(state)
        }
    }
}

/// Starts the compose file; stays until Ctrl-C, unless detached.
async fn in_containers(paths: &Paths, detach: bool) -> Result<ExitCode> {
    let env = compose::start(paths).await?;
    summary::print(paths, &env.state);
    if detach {
        return Ok(ExitCode::SUCCESS);
    }
    say("Ctrl-C stops everything.");
    let _ = tokio::signal::ctrl_c().await;
    compose::down(paths).await
}

fn size(state: &State, up: &Up) -> Result<Size> {
    let size = Size {
        backends: up.backends.unwrap_or(state.size.backends),
        workers: up.workers.unwrap_or(state.size.workers),
    };
    size.check()?;
    Ok(size)
}

fn check_ports(paths: &Paths, state: &State, up: &Up, gateway: Gateway) -> Result<()> {
    // Ports do not depend on the tools.
    plan(paths, state, up, gateway, Tools::default())?.demand_ports()
}

/// What to start.
///
/// # Errors
/// A number of backends or workers out of bounds; sample users where others can reach them.
pub fn plan(paths: &Paths, state: &State, up: &Up, gateway: Gateway, tools: Tools) -> Result<Plan> {
    state.check_samples()?;
    Ok(Plan {
        paths: paths.clone(),
        state: state.clone(),
        size: size(state, up)?,
        gateway,
        tools,
        inspector: !up.no_inspector,
        only: up.only.clone(),
    })
}

/// The gateway: what was asked for, or a usable `kong`, or Envoy.
///
/// # Errors
/// When Kong was asked for and is not usable.
pub fn gateway(wanted: Option<Gateway>) -> Result<Gateway> {
    match (wanted, usable_kong()) {
        (Some(Gateway::Envoy), _) | (None, Err(_)) => Ok(Gateway::Envoy),
        (_, Ok(())) => Ok(Gateway::Kong),
        (Some(Gateway::Kong), Err(problem)) => Err(problem),
    }
}

/// Whether a `kong` on `PATH` can run the filter.
///
/// # Errors
/// Why not.
pub fn usable_kong() -> Result<()> {
    let hint = "install Kong Gateway 3.9 (3.10 and later come without WebAssembly), or use --gateway envoy";
    let kong = find_program("kong").ok_or_else(|| Problem::new("there is no kong on PATH").hint(hint))?;
    let text = output_of(std::process::Command::new(&kong).arg("version"))
        .ok_or_else(|| Problem::new(format!("{} does not tell its version", kong.display())).hint(hint))?;
    match kong_version(&text) {
        Some((3, 9)) => Ok(()),
        Some((major, minor)) => Err(Problem::new(format!("kong is {major}.{minor}, not 3.9")).hint(hint)),
        None => Err(Problem::new(format!("{} tells no version that is known", kong.display())).hint(hint)),
    }
}

fn kong_version(text: &str) -> Option<(u32, u32)> {
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut numbers = version.split('.').map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Starts the supervisor as a process of its own and waits until all is ready.
async fn detach(
    paths: &Paths,
    state: &State,
    up: &Up,
    gateway: Gateway,
    started: Instant,
) -> Result<ExitCode> {
    private_dir(&paths.logs())?;
    let log = paths.log("supervisor");
    let _ = std::fs::rename(&log, log.with_extension("log.1"));
    let open = || {
        OpenOptions::new().create(true).append(true).open(&log).map_err(|e| Problem::io("write", &log, &e))
    };
    let program = crate::process::own_program()
        .map_err(|e| Problem::new(format!("cannot find the asgard program: {e}")))?;
    let mut child = tokio::process::Command::new(&program)
        .args(up.for_supervisor(gateway))
        .env("ASGARD_ROOT", &paths.root)
        .env("ASGARD_HOME", &paths.home)
        .env("ASGARD_CACHE", &paths.cache)
        .current_dir(&paths.root)
        .stdin(Stdio::null())
        .stdout(open()?)
        .stderr(open()?)
        .spawn()
        .map_err(|e| Problem::io("start", &program, &e))?;
    let step = Step::begin("start");
    loop {
        tokio::select! {
            status = child.wait() => {
                drop(step);
                let last = tail(&log, 1).pop().unwrap_or_default();
                let last = last.strip_prefix("asgard: ").map(str::to_owned).unwrap_or(last);
                let why = status.map_or_else(|e| e.to_string(), crate::process::ending);
                return Err(Problem::new(if last.is_empty() { format!("the supervisor ended: {why}") } else { last }));
            }
            _ = tokio::signal::ctrl_c() => {
                drop(step);
                let _ = control::ask(paths, &Request::Down).await;
                let _ = child.wait().await;
                return Err(Problem::new("interrupted; everything is stopped"));
            }
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                // A supervisor that fails ends, and the end of the process says why.
                let Ok(Some(reply)) = control::ask(paths, &Request::Status).await else { continue };
                supervise::show_progress(&step, &reply.parts);
                if reply.up {
                    break;
                }
            }
        }
    }
    step.clear();
    say(format!("ready after {}", seconds(started.elapsed())));
    summary::print(paths, state);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_compose_file_ignores_is_refused() {
        assert!(only_native(&Up { detach: true, ..Up::default() }).is_ok());
        for up in [
            Up { backends: Some(3), ..Up::default() },
            Up { workers: Some(3), ..Up::default() },
            Up { ports: Some("free".into()), ..Up::default() },
            Up { no_inspector: true, ..Up::default() },
        ] {
            assert!(only_native(&up).unwrap_err().hint.unwrap().contains("--native"), "{up:?}");
        }
    }

    #[test]
    fn kong_tells_its_version() {
        assert_eq!(kong_version("3.9.1\n"), Some((3, 9)));
        assert_eq!(kong_version("Kong Enterprise 3.10.0.2"), Some((3, 10)));
        assert_eq!(kong_version("error"), None);
    }
}
