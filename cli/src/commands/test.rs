//! `asgard test`: runs the suites of [`crate::suites`], each into a log of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::up;
use crate::install::{self, Browser, Clients, Conformance, Needs, Run, Tools, cargo};
use crate::paths::{Paths, private_dir};
use crate::ports::Ports;
use crate::problem::{Problem, Result};
use crate::process::{ending, find_program, kill_session, tail};
use crate::stack::{Options, Stack};
use crate::state::State;
use crate::suites::{Need, SUITES, Suite};
use crate::supervisor::part::Kind;
use crate::ui::{Step, seconds};

/// Lines of a failed suite's log that are shown.
const SHOWN: usize = 40;

/// Runs the named suites, or all; with `all` those that have a short form in full. The last line is
/// `N passed, N failed`; exit code 1 when one failed.
///
/// # Errors
/// A name that is no suite's.
pub async fn run(paths: &Paths, names: &[String], list: bool, all: bool) -> Result<ExitCode> {
    if list {
        SUITES.iter().for_each(|suite| println!("{:<10} {}", suite.name, suite.shows));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(SUITES, names)?;
    let logs = paths.logs().join("test");
    private_dir(&logs)?;
    let mut prepared = Prepared { all, ..Prepared::default() };
    let (mut passed, mut failed) = (0_u32, 0_u32);
    for suite in chosen {
        let log = logs.join(format!("{}.log", suite.name));
        let _ = std::fs::remove_file(&log);
        let ready = prepared.prepare(paths, suite).await;
        let began = Instant::now();
        let outcome = match ready {
            Ok(()) => run_suite(paths, suite, &log, &prepared.env(paths, suite)).await,
            Err(problem) => Err(problem.to_string()),
        };
        let took = seconds(began.elapsed());
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("passed  {} ({took})", suite.name);
                figures(&log).iter().for_each(|line| println!("    {line}"));
            }
            Err(why) => {
                failed += 1;
                println!("FAILED  {} ({took}): {why}; the whole log: {}", suite.name, paths.shown(&log));
                tail(&log, SHOWN).iter().for_each(|line| println!("    {line}"));
            }
        }
    }
    prepared.end(failed > 0).await;
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The figures that the end-to-end tests print, each under its entry point, era or store.
fn figures(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let is_figure = |line: &&str| {
        ["Bifrost", "Hermod", "Memory", "Stateless", "Stateful", "Corpus"]
            .iter()
            .any(|of| line.starts_with(of))
    };
    text.lines().filter(is_figure).map(str::to_owned).collect()
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
                    .hint(format!("the suites are {}", all.join(", ")))
            })
        })
        .collect()
}

/// What has been brought so far: each need is tried once.
#[derive(Default)]
struct Prepared {
    met: Vec<Need>,
    unmet: Vec<(Need, Problem)>,
    stack: Option<(Stack, PathBuf)>,
    queue_stack: Option<(Stack, PathBuf)>,
    envoy: Option<PathBuf>,
    browser: Option<Browser>,
    conformance: Option<Conformance>,
    clients: Option<Clients>,
    inspector: Option<PathBuf>,
    all: bool,
    node: Option<PathBuf>,
}

impl Prepared {
    async fn prepare(&mut self, paths: &Paths, suite: &Suite) -> Result<()> {
        for need in suite.needs {
            if self.met.contains(need) {
                continue;
            }
            if let Some((_, problem)) = self.unmet.iter().find(|(unmet, _)| unmet == need) {
                return Err(problem.clone());
            }
            if let Err(problem) = self.meet(paths, *need).await {
                self.unmet.push((*need, problem.clone()));
                return Err(problem);
            }
            self.met.push(*need);
        }
        Ok(())
    }

    async fn meet(&mut self, paths: &Paths, need: Need) -> Result<()> {
        let for_step = paths.clone();
        match need {
            Need::Package(there, package) => {
                let found = if there.contains('/') {
                    Path::new(there).exists()
                } else {
                    find_program(there).is_some()
                };
                if !found {
                    blocking(move || install::install_packages(&for_step, &[package])).await?;
                }
            }
            Need::Component(command, component, package) => {
                blocking(move || demand_component(&for_step, (command, component, package))).await?;
            }
            Need::Filter => blocking(move || install::build_filter(&for_step)).await?,
            Need::Programs => self.envoy = programs(paths).await?.envoy,
            Need::Browser => {
                let browser = blocking(move || {
                    let state = State::load(&for_step)?.unwrap_or_else(|| State::new(Ports::default()));
                    Browser::ensure(&for_step, &state)
                });
                self.browser = Some(browser.await?);
            }
            Need::Conformance => {
                let suite = blocking(move || {
                    let state = State::load(&for_step)?.unwrap_or_else(|| State::new(Ports::default()));
                    Conformance::ensure(&for_step, &state)
                });
                self.conformance = Some(suite.await?);
            }
            Need::Node => {
                let node = blocking(move || {
                    let state = State::load(&for_step)?.unwrap_or_else(|| State::new(Ports::default()));
                    install::ensure_node(&for_step, &state)
                });
                self.node = Some(node.await?);
            }
            Need::Sdks => {
                self.bring_clients(paths, Clients::SDKS.map(str::to_owned).to_vec()).await?;
                let inspector = blocking(move || {
                    let state = State::load(&for_step)?.unwrap_or_else(|| State::new(Ports::default()));
                    install::ensure_inspector(&for_step, &state)
                });
                self.inspector = Some(inspector.await?);
            }
            Need::Clients => {
                let short = || Clients::SHORT.map(str::to_owned).to_vec();
                let names = if self.all { Clients::all(paths)? } else { short() };
                self.bring_clients(paths, names).await?;
            }
            Need::Stack => {
                programs(paths).await?;
                self.stack = Some(start_stack(true).await?);
            }
            Need::QueueStack => {
                programs(paths).await?;
                self.queue_stack = Some(start_stack(false).await?);
            }
        }
        Ok(())
    }

    async fn bring_clients(&mut self, paths: &Paths, names: Vec<String>) -> Result<()> {
        let paths = paths.clone();
        let clients = blocking(move || {
            let state = State::load(&paths)?.unwrap_or_else(|| State::new(Ports::default()));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Clients::ensure(&paths, &state, &names)
        });
        let clients = clients.await?;
        match &mut self.clients {
            Some(had) => had.extend(clients),
            None => self.clients = Some(clients),
        }
        Ok(())
    }

    fn env(&self, paths: &Paths, suite: &Suite) -> Vec<(&'static str, PathBuf)> {
        let mut env = Vec::new();
        env.extend(self.envoy.clone().map(|envoy| ("ASGARD_ENVOY", envoy)));
        if let Some(browser) = self.browser.clone().filter(|_| suite.needs.contains(&Need::Browser)) {
            env.extend([
                ("ASGARD_NODE", browser.node),
                ("ASGARD_INSPECTOR", browser.inspector),
                ("ASGARD_PLAYWRIGHT", browser.playwright),
                ("ASGARD_CHROMIUM", browser.chromium),
            ]);
        }
        env.extend(self.node.clone().map(|node| ("ASGARD_NODE", node)));
        // What a suite leaves for a person to look at.
        env.push(("ASGARD_ARTEFACTS", paths.logs().join("test").join(suite.name)));
        if let Some(Conformance { node, script }) = self.conformance.clone() {
            env.extend([("ASGARD_NODE", node), ("ASGARD_CONFORMANCE", script)]);
        }
        if let Some(Clients { environments, node, python }) = self.clients.clone() {
            let environments = std::env::join_paths(environments).unwrap_or_default();
            env.extend([("ASGARD_CLIENTS", environments.into()), ("ASGARD_NODE", node)]);
            env.push(("ASGARD_PYTHON", python));
        }
        if suite.needs.contains(&Need::Sdks) {
            env.extend(self.inspector.clone().map(|inspector| ("ASGARD_INSPECTOR", inspector)));
        }
        if self.all {
            env.push(("ASGARD_ALL", "1".into()));
        }
        if suite.needs.contains(&Need::Stack) {
            env.extend(self.stack.as_ref().map(|(stack, _)| ("ASGARD_HOME", stack.home().to_owned())));
        }
        if suite.needs.contains(&Need::QueueStack) {
            env.extend(self.queue_stack.as_ref().map(|(stack, _)| ("ASGARD_HOME", stack.home().to_owned())));
        }
        env
    }

    async fn end(&mut self, failed: bool) {
        for (stack, home) in [self.stack.take(), self.queue_stack.take()].into_iter().flatten() {
            if let Err(problem) = stack.down().await {
                println!("the tests' stack: {problem}");
            }
            if failed {
                println!("the logs of the tests' stack: {}", home.join("logs").display());
            } else {
                let _ = std::fs::remove_dir_all(&home);
            }
        }
    }
}

/// Runs something that blocks beside the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Problem::new(format!("a step broke off: {e}")))?
}

async fn programs(paths: &Paths) -> Result<Tools> {
    let paths = paths.clone();
    blocking(move || {
        // Versions alone matter here; a stack of a test has a state of its own.
        let state = State::load(&paths)?.unwrap_or_else(|| State::new(Ports::default()));
        let needs = Needs { gateway: up::gateway(None)?, inspector: false, only: Vec::new(), tests: true };
        Tools::ensure(&paths, &state, &needs)
    })
    .await
}

/// `direct`: calls go straight to workers where they can.
async fn start_stack(direct: bool) -> Result<(Stack, PathBuf)> {
    let step = Step::begin("the tests' own stack: start");
    // Short: sockets are made in it.
    let home = std::env::temp_dir().join(format!("asgard-test-{:08x}", rand::random::<u32>()));
    let journal = ("ASGARD_JOURNAL".to_owned(), home.join("journal.jsonl").display().to_string());
    let switch = ("ASGARD_DIRECT".to_owned(), direct.to_string());
    let options = Options {
        env: [(Kind::Worker, [journal, switch.clone()].into()), (Kind::Backend, [switch].into())].into(),
        program: crate::process::own_program().ok(),
        home: Some(home.clone()),
        ..Options::default()
    };
    let stack = Stack::up(options).await?;
    step.done();
    Ok((stack, home))
}

/// Brings a component of the toolchain where it is missing: by rustup, or Debian's package.
fn demand_component(paths: &Paths, (command, component, package): (&str, &str, &'static str)) -> Result<()> {
    let cargo =
        cargo().ok_or_else(|| Problem::new("there is no cargo").hint("install Rust: https://rustup.rs"))?;
    let there = || install::output_of(Command::new(&cargo).args([command, "--version"])).is_some();
    if there() {
        return Ok(());
    }
    if let Some(rustup) = find_program("rustup") {
        let step = Step::begin(format!("{component}: install"));
        let log = paths.log("install-components");
        let run = Run {
            doing: "add a component to the Rust toolchain",
            log_shown: paths.shown(&log),
            log,
            hint: "run rustup component add rustfmt clippy",
        };
        run.run(Command::new(rustup).args(["component", "add", component]), &step, |_, _| {})?;
        step.done();
    } else {
        install::install_packages(paths, &[package])?;
    }
    if there() {
        Ok(())
    } else {
        Err(Problem::new(format!("cargo {command} does not work")).hint("see cargo's own help"))
    }
}

async fn run_suite(
    paths: &Paths,
    suite: &Suite,
    log: &Path,
    env: &[(&str, PathBuf)],
) -> std::result::Result<(), String> {
    let (program, args) = suite.command.split_first().ok_or("it has no command")?;
    let program = match *program {
        "cargo" => cargo().ok_or("there is no cargo")?,
        script if script.contains('/') => paths.root.join(script),
        other => other.into(),
    };
    let open = || {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(|e| format!("{}: {e}", log.display()))
    };
    let asgard = crate::process::own_program().map_err(|e| e.to_string())?;
    // A session of its own: a suite that hangs is killed with all that it started.
    let mut child = tokio::process::Command::new("setsid")
        .args(["setpriv", "--pdeathsig", "TERM", "--"])
        .arg(program)
        .args(args)
        .env_remove("ASGARD_HOME")
        .env("ASGARD_ROOT", &paths.root)
        .env("ASGARD_CACHE", &paths.cache)
        .env("ASGARD_BIN", asgard)
        .env("CARGO_TERM_COLOR", "never")
        .env("TERM", "dumb")
        .envs(env.iter().map(|(name, value)| (name, value)))
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
    let outcome = loop {
        tokio::select! {
            status = child.wait() => break match status {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(ending(status)),
                Err(e) => Err(e.to_string()),
            },
            () = &mut deadline => break Err(format!("not done after {} s", suite.limit_s)),
            _ = tokio::signal::ctrl_c() => break Err("interrupted".to_owned()),
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                let last = tail(log, 1).pop().unwrap_or_default();
                step.message(last.trim().chars().take(100).collect::<String>());
            }
        }
    };
    step.clear();
    kill_session(session);
    let _ = child.wait().await;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(name: &'static str, command: &'static [&'static str], limit_s: u64) -> Suite {
        Suite { name, shows: "", command, needs: &[], limit_s }
    }

    async fn outcome(suite: &Suite) -> (std::result::Result<(), String>, Vec<String>) {
        let root = std::env::temp_dir();
        let log = root.join(format!("asgard-suite-{}-{}.log", suite.name, std::process::id()));
        let paths = Paths { home: root.clone(), cache: root.clone(), root };
        let outcome = run_suite(&paths, suite, &log, &[("WORD", "hello".into())]).await;
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
