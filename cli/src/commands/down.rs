//! `asgard down`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::compose;
use crate::paths::Paths;
use crate::problem::{Problem, Result};
use crate::supervisor::control::{self, Request};
use crate::supervisor::{Lock, Supervisor};
use crate::ui::say;

/// Longest time that parts may take to end.
const PATIENCE: Duration = Duration::from_secs(40);

/// Stops the stack, however it was started.
///
/// # Errors
/// When it does not stop.
pub async fn run(paths: &Paths) -> Result<ExitCode> {
    if compose::is_up(paths) {
        return compose::down(paths).await;
    }
    let asked = control::ask(paths, &Request::Down).await?.is_some();
    let began = Instant::now();
    while !Lock::is_free(paths) {
        if began.elapsed() > PATIENCE {
            return Err(Problem::new("the supervisor does not end").hint("see .asgard/logs/supervisor.log"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What a supervisor that was killed has left.
    Supervisor::clear_leftovers(paths);
    paths.clear_run();
    say(if asked { "stopped" } else { "nothing was running" });
    Ok(ExitCode::SUCCESS)
}
