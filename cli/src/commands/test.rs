//! `asgard test`: runs the suites of [`crate::suites`], each into a log of its own.

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::up;
use crate::install::{Needs, Tools, cargo};
use crate::paths::{Paths, private_dir};
use crate::ports::Ports;
use crate::problem::{Problem, Result};
use crate::process::{ending, kill_session, tail};
use crate::state::State;
use crate::suites::{Need, SUITES, Suite};
use crate::ui::{Step, seconds};

/// Lines of a failed suite's log that are shown.
const SHOWN: usize = 40;

/// Runs the named suites, or all. The last line is `N passed, N failed`; exit code 1 when one failed.
///
/// # Errors
/// A name that is no suite's.
pub async fn run(paths: &Paths, names: &[String], list: bool) -> Result<ExitCode> {
    if list {
        SUITES.iter().for_each(|suite| println!("{:<10} {}", suite.name, suite.shows));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(SUITES, names)?;
    let logs = paths.logs().join("test");
    private_dir(&logs)?;
    let (mut passed, mut failed, mut prepared) = (0_u32, 0_u32, Vec::new());
    for suite in chosen {
        let log = logs.join(format!("{}.log", suite.name));
        let _ = std::fs::remove_file(&log);
        let begun = Instant::now();
        let outcome = match prepare(paths, suite, &mut prepared).await {
            Ok(()) => run_suite(paths, suite, &log).await,
            Err(problem) => Err(problem.to_string()),
        };
        let took = seconds(begun.elapsed());
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("passed  {} ({took})", suite.name);
            }
            Err(why) => {
                failed += 1;
                println!("FAILED  {} ({took}): {why}; the whole log: {}", suite.name, paths.shown(&log));
                tail(&log, SHOWN).iter().for_each(|line| println!("    {line}"));
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn choose<'a>(suites: &'a [Suite], names: &[String]) -> Result<Vec<&'a Suite>> {
    if names.is_empty() {
        return Ok(suites.iter().collect());
    }
    names
        .iter()
        .map(|name| {
            suites.iter().find(|suite| suite.name == name).ok_or_else(|| {
                let all: Vec<&str> = suites.iter().map(|suite| suite.name).collect();
                Problem::new(format!("there is no suite {name:?}"))
                    .mend(format!("the suites are {}", all.join(", ")))
            })
        })
        .collect()
}

/// Brings what a suite needs, once.
async fn prepare(paths: &Paths, suite: &Suite, prepared: &mut Vec<Need>) -> Result<()> {
    for need in suite.needs {
        if prepared.contains(need) {
            continue;
        }
        match need {
            Need::Filter => {
                let mut build = tokio::process::Command::new(paths.root.join("scripts/build-filter"));
                let built =
                    build.current_dir(&paths.root).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
                if !built.is_ok_and(|status| status.success()) {
                    return Err(
                        Problem::new("the filter could not be built").mend("run scripts/build-filter")
                    );
                }
            }
            Need::Stack => {
                let paths = paths.clone();
                let install = tokio::task::spawn_blocking(move || {
                    // Versions alone matter here; a stack of a test has a state of its own.
                    let state = State::load(&paths)?.unwrap_or_else(|| State::new(Ports::default()));
                    let needs = Needs { gateway: up::gateway(None)?, inspector: true, only: Vec::new() };
                    Tools::ensure(&paths, &state, &needs).map(drop)
                });
                install.await.map_err(|e| Problem::new(format!("the installation broke off: {e}")))??;
            }
        }
        prepared.push(*need);
    }
    Ok(())
}

async fn run_suite(paths: &Paths, suite: &Suite, log: &Path) -> std::result::Result<(), String> {
    let (program, args) = suite.command.split_first().ok_or("it has no command")?;
    let program = match *program {
        "cargo" => cargo().ok_or("there is no cargo")?,
        script if script.contains('/') => paths.root.join(script),
        other => other.into(),
    };
    let open = || std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(|e| e.to_string());
    let asgard = std::env::current_exe().map_err(|e| e.to_string())?;
    // A session of its own: a suite that hangs is killed with all that it started.
    let mut child = tokio::process::Command::new("setsid")
        .args(["setpriv", "--pdeathsig", "TERM", "--"])
        .arg(program)
        .args(args)
        .envs(suite.env.iter().copied())
        .env("ASGARD_ROOT", &paths.root)
        .env("ASGARD_CACHE", &paths.cache)
        .env("ASGARD_BIN", asgard)
        .env("CARGO_TERM_COLOR", "never")
        .current_dir(&paths.root)
        .stdin(Stdio::null())
        .stdout(open()?)
        .stderr(open()?)
        .spawn()
        .map_err(|e| format!("cannot start it: {e}"))?;
    let session = child.id().unwrap_or_default();
    let step = Step::begin(suite.name);
    let deadline = tokio::time::sleep(Duration::from_secs(suite.limit_s));
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            status = child.wait() => {
                step.clear();
                kill_session(session);
                let status = status.map_err(|e| e.to_string())?;
                return if status.success() { Ok(()) } else { Err(ending(status)) };
            }
            () = &mut deadline => {
                kill_session(session);
                let _ = child.wait().await;
                return Err(format!("not done after {} s", suite.limit_s));
            }
            _ = tokio::signal::ctrl_c() => {
                kill_session(session);
                let _ = child.wait().await;
                return Err("interrupted".to_owned());
            }
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                let last = tail(log, 1).pop().unwrap_or_default();
                step.message(last.trim().chars().take(100).collect::<String>());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(name: &'static str, command: &'static [&'static str], limit_s: u64) -> Suite {
        Suite { name, shows: "", command, env: &[("WORD", "hello")], needs: &[], limit_s }
    }

    async fn outcome(suite: &Suite) -> (std::result::Result<(), String>, Vec<String>) {
        let root = std::env::temp_dir();
        let log = root.join(format!("asgard-suite-{}-{}.log", suite.name, std::process::id()));
        let paths = Paths { home: root.clone(), cache: root.clone(), root };
        let outcome = run_suite(&paths, suite, &log).await;
        let lines = tail(&log, 5);
        std::fs::remove_file(log).unwrap();
        (outcome, lines)
    }

    #[tokio::test]
    async fn a_suite_passes_fails_or_takes_too_long() {
        let (ok, log) = outcome(&suite("ok", &["sh", "-c", "echo $WORD"], 20)).await;
        assert_eq!((ok, log), (Ok(()), vec!["hello".to_owned()]));
        let (bad, log) = outcome(&suite("bad", &["sh", "-c", "echo why >&2; exit 3"], 20)).await;
        assert_eq!((bad, log), (Err("exit code 3".to_owned()), vec!["why".to_owned()]));
        let (late, _) = outcome(&suite("late", &["sleep", "60"], 1)).await;
        assert_eq!(late, Err("not done after 1 s".to_owned()));
    }

    #[test]
    fn suites_are_chosen_by_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(choose(SUITES, &[]).unwrap().len(), SUITES.len());
        assert_eq!(choose(SUITES, &names(&["unit", "fmt"])).unwrap()[0].name, "unit");
        assert!(choose(SUITES, &names(&["nope"])).unwrap_err().to_string().contains("The suites are fmt"));
    }

    #[test]
    fn suites_have_different_names() {
        let mut names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SUITES.len());
    }
}
