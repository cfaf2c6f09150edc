//! Runs the supervisor: in the foreground for `up`, on its own for `up -d`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::{summary, up};
use crate::args::Up;
use crate::install::{Needs, Tools};
use crate::parts::{Plan, keycloak};
use crate::paths::Paths;
use crate::problem::{Problem, Result};
use crate::process::Identity;
use crate::state::State;
use crate::supervisor::control::{self, Control, Reply, Request};
use crate::supervisor::part::PartStatus;
use crate::supervisor::{Lock, Supervisor};
use crate::ui::{Step, say, seconds};

/// Runs the stack until Ctrl-C, SIGTERM or `down`.
///
/// # Errors
/// When a part cannot be started. Everything is stopped then.
pub async fn foreground(plan: &Plan, parent: Option<u32>, began: Instant) -> Result<ExitCode> {
    let ready = || {
        say(format!("ready after {}", seconds(began.elapsed())));
        summary::print(&plan.paths, &plan.state);
        say("Ctrl-C stops everything.");
    };
    run(plan, parent, ready).await
}

/// The same, as the process that `up -d` started: in a session of its own.
///
/// # Errors
/// When a part cannot be started. Everything is stopped then.
pub async fn detached(paths: &Paths, options: &Up) -> Result<ExitCode> {
    // Fails only when this process leads a group already, as it does when a person starts it by hand.
    let _ = nix::unistd::setsid();
    let state = State::existing(paths)?;
    let gateway = up::gateway(options.gateway)?;
    let needs = Needs { gateway, inspector: !options.no_inspector, only: options.only.clone(), tests: false };
    let tools = Tools::locate(paths, &state, &needs)?;
    let plan = up::plan(paths, &state, options, gateway, tools)?;
    run(&plan, options.parent, || say("all parts are ready")).await
}

async fn run(plan: &Plan, parent: Option<u32>, when_ready: impl FnOnce()) -> Result<ExitCode> {
    let paths = &plan.paths;
    let lock = Lock::take(paths)?;
    Supervisor::clear_leftovers(paths);
    paths.clear_run();
    paths.make_run()?;
    let outcome = supervise(plan, parent, when_ready).await;
    paths.clear_run();
    drop(lock);
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn supervise(plan: &Plan, parent: Option<u32>, when_ready: impl FnOnce()) -> Result<()> {
    let no_signals = |e: std::io::Error| Problem::new(format!("cannot wait for signals: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(no_signals)?;
    let control = Control::listen(&plan.paths)?;
    plan.demand_ports()?;
    let supervisor = Supervisor::start(plan.parts()?, &plan.paths)?;

    let step = Step::begin("start");
    let mut when_ready = Some(when_ready);
    let mut waiting = Some(Box::pin(supervisor.wait_ready(|parts| show_progress(&step, parts))));
    let mut failed = None;
    let mut orphaned = std::pin::pin!(end_of(parent));
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
            () = &mut orphaned => break,
            outcome = async { match waiting.as_mut() { Some(wait) => wait.await, None => std::future::pending().await } } => {
                waiting = None;
                step.hide();
                match outcome {
                    Ok(()) => {
                        keycloak::imported(&plan.paths);
                        if let Some(when_ready) = when_ready.take() {
                            when_ready();
                        }
                    }
                    Err(problem) => {
                        failed = Some(problem);
                        break;
                    }
                }
            }
            (request, stream) = control.next() => {
                let outcome = match &request {
                    Request::Status | Request::Down => Ok(()),
                    Request::Stop(part) => supervisor.stop(part).await,
                    Request::Start(part) => supervisor.start_part(part).await,
                };
                let reply = Reply {
                    parts: supervisor.status(),
                    notes: supervisor.notes(),
                    up: when_ready.is_none(),
                    error: outcome.err().map(|problem| problem.to_string()),
                };
                control::answer(stream, &reply).await;
                if request == Request::Down {
                    break;
                }
            }
        }
    }
    drop(waiting);
    step.clear();
    // A second Ctrl-C does not interrupt this: each part has a bounded time to end.
    let step = Step::begin("stop");
    supervisor.shutdown().await;
    step.clear();
    match failed {
        Some(problem) => Err(problem),
        None => {
            say("all parts are stopped");
            Ok(())
        }
    }
}

/// Shows how many parts are ready.
pub fn show_progress(step: &Step, parts: &[PartStatus]) {
    let ready = parts.iter().filter(|part| part.ready).count();
    let missing: Vec<&str> = parts.iter().filter(|part| !part.ready).map(|part| part.name.as_str()).collect();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    step.count(count(ready), count(parts.len()), missing.join(", "));
}

/// Returns when that process has ended; never without one.
async fn end_of(parent: Option<u32>) {
    let Some(parent) = parent.and_then(Identity::of) else { return std::future::pending().await };
    while parent.is_alive() {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
