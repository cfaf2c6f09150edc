//! `asgard doctor`: one line a check: `ok`, or what is wrong and how to fix it.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime};

use super::{summary, up};
use crate::gateway::Gateway;
use crate::install::{self, JAVA, NODE, SPACE};
use crate::paths::Paths;
use crate::ports::{LOOPBACK, holder, is_free};
use crate::problem::Result;
use crate::process::find_program;
use crate::state::State;
use crate::supervisor::control::{self, Request};
use crate::supervisor::part::PartStatus;

/// Oldest Rust that builds the workspace.
const RUST: (u32, u32) = (1, 92);
/// Least memory for all parts, in MB.
const MEMORY: u64 = 2_000;
/// Largest difference of the clocks of this machine and Keycloak that tokens survive, in seconds.
const SKEW: u64 = 5;

/// How a check came out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    /// All is well; what was seen.
    Fine(String),
    /// Worth knowing; nothing to fix.
    Note(String),
    /// What is wrong, and how to fix it.
    Wrong(String, String),
}

use Finding::{Fine, Note, Wrong};

/// Looks at everything. Exit code 1 when something has to be fixed.
///
/// # Errors
/// Does not fail; problems are findings.
pub async fn run(paths: &Paths) -> Result<ExitCode> {
    let state = State::load(paths);
    let reply = control::ask(paths, &Request::Status).await.ok().flatten();
    let running = reply.is_some();
    let mut findings = vec![("rust", rust())];
    findings.extend(tools(paths, state.as_ref().ok().and_then(Option::as_ref)));
    findings.push(("disk", disk(paths)));
    findings.push(("memory", memory(running)));
    findings.push(("state file", state_file(paths, &state)));
    if let Ok(Some(state)) = &state {
        findings.extend(summary::warnings(state).into_iter().map(|warning| {
            (
                "exposure",
                Wrong(warning, "see the state file; put the sample setup on a loopback address".to_owned()),
            )
        }));
        if !running {
            findings.extend(ports(paths, state));
        }
    }
    match &reply {
        None => findings.push(("parts", Note("not running; ./asgard up starts them".to_owned()))),
        Some(reply) => {
            for part in &reply.parts {
                findings.extend(health(part, &reply.notes).into_iter().map(|finding| ("part", finding)));
            }
            if let Ok(Some(state)) = &state {
                findings.push(("clock", clock(state).await));
            }
        }
    }
    let mut wrong = 0;
    for (check, finding) in &findings {
        match finding {
            Fine(text) => println!("ok       {check}: {text}"),
            Note(text) => println!("note     {check}: {text}"),
            Wrong(text, hint) => {
                wrong += 1;
                println!("problem  {check}: {text}\n         fix: {hint}");
            }
        }
    }
    println!(
        "{}",
        match wrong {
            0 => "nothing to fix".to_owned(),
            1 => "1 problem".to_owned(),
            n => format!("{n} problems"),
        }
    );
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A part that runs: ready, degraded (with each reason), or not ready.
fn health(part: &PartStatus, notes: &[String]) -> Vec<Finding> {
    let name = &part.name;
    let hint = || format!("see ./asgard logs {name}");
    if !part.ready {
        let of_part =
            |note: &&String| note.starts_with(&format!("{name}: ")) || note.starts_with(&format!("{name} "));
        let why = notes.iter().find(of_part).cloned();
        return vec![Wrong(why.unwrap_or_else(|| format!("{name} is not ready")), hint())];
    }
    if part.degraded.is_empty() {
        return vec![Fine(format!("{name} is ready at {}", part.address))];
    }
    let degraded = |what: &String| Wrong(format!("{name} is degraded: {what}"), hint());
    part.degraded.iter().map(degraded).collect()
}

fn rust() -> Finding {
    let hint = "install Rust: https://rustup.rs, or Debian's cargo-web and rustc-web".to_owned();
    let Some(cargo) = install::cargo() else { return Wrong("there is no cargo".to_owned(), hint) };
    let text = install::output_of(Command::new(&cargo).arg("--version")).unwrap_or_default();
    match version(&text) {
        Some(version) if version >= RUST => Fine(text.trim().to_owned()),
        Some((major, minor)) => {
            Wrong(format!("cargo is {major}.{minor}, not {}.{} or later", RUST.0, RUST.1), hint)
        }
        None => Wrong(format!("{} does not tell its version", cargo.display()), hint),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let word = text
        .split_whitespace()
        .find(|word| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()))?;
    let mut numbers = word.trim_start_matches('v').split('.').map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn tools(paths: &Paths, state: Option<&State>) -> Vec<(&'static str, Finding)> {
    let up_does = "run ./asgard up: it installs what is missing".to_owned();
    let program = |name: &'static str| {
        let finding = find_program(name).map_or_else(
            || Wrong(format!("{name} is not installed"), up_does.clone()),
            |path| Fine(path.display().to_string()),
        );
        (name, finding)
    };
    let mut findings = vec![program("pushpin"), program("redis-server"), program("setpriv")];
    let java =
        find_program("java").and_then(|java| install::java_version(&java).map(|version| (java, version)));
    findings.push((
        "java",
        match java {
            Some((java, version)) if version >= JAVA => {
                Fine(format!("{} is version {version}", java.display()))
            }
            Some((java, version)) => Wrong(
                format!("{} is version {version}, not {JAVA} or later", java.display()),
                up_does.clone(),
            ),
            None => Wrong("there is no java".to_owned(), up_does.clone()),
        },
    ));
    let kong = up::usable_kong();
    findings.push((
        "gateway",
        match &kong {
            Ok(()) => Fine("kong 3.9 is on PATH".to_owned()),
            Err(problem) if find_program("kong").is_some() => Note(format!("Envoy, as {problem}")),
            Err(_) => Fine("Envoy, as there is no kong on PATH".to_owned()),
        },
    ));
    if let Some(state) = state {
        let gateway = if kong.is_ok() { Gateway::Kong } else { Gateway::Envoy };
        let needs = install::Needs { gateway, inspector: true, only: Vec::new(), tests: false };
        let located = install::Tools::locate(paths, state, &needs);
        findings.push((
            "programs",
            match located {
                Ok(tools) => {
                    let node = tools.node.map(|node| node.display().to_string()).unwrap_or_default();
                    Fine(format!(
                        "Keycloak, gateway, filter, backend, worker, Inspector, Node.js ≥ {}.{} ({node})",
                        NODE.0, NODE.1
                    ))
                }
                Err(problem) => Wrong(problem.what, problem.hint.unwrap_or(up_does)),
            },
        ));
    }
    findings
}

fn disk(paths: &Paths) -> Finding {
    let place = paths.home.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    // Once everything is fetched and built, little more is needed.
    let need = if paths.target().join("release/mcp-backend").exists() { SPACE / 8 } else { SPACE };
    match install::free_space(place) {
        Some(free) if free < need => Wrong(
            format!("{} MB are free at {}, {} MB are needed", free >> 20, place.display(), need >> 20),
            "free some space, or point ASGARD_HOME, ASGARD_CACHE and CARGO_TARGET_DIR elsewhere".to_owned(),
        ),
        Some(free) => Fine(format!("{} MB free", free >> 20)),
        None => Note(format!("cannot tell the free space of {}", place.display())),
    }
}

fn memory(running: bool) -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kilobytes| kilobytes / 1024);
    match available {
        Some(free) if free < MEMORY && !running => Wrong(
            format!("{free} MB of memory are available, the parts take about {MEMORY} MB"),
            "stop other programs, or start fewer parts (--backends 1 --workers 1 --no-inspector)".to_owned(),
        ),
        Some(free) => Fine(format!("{free} MB available")),
        None => Note("cannot tell the available memory".to_owned()),
    }
}

fn state_file(paths: &Paths, state: &Result<Option<State>>) -> Finding {
    let shown = paths.shown(&paths.state_file());
    match state {
        Err(problem) => {
            Wrong(problem.what.clone(), problem.hint.clone().unwrap_or_else(|| "correct it".to_owned()))
        }
        Ok(None) => Note(format!("{shown} is not written yet; the first ./asgard up does")),
        Ok(Some(_)) => match State::open_to_others(paths) {
            Some(mode) => Wrong(
                format!("{shown} has mode {mode:o}: others can read the secrets"),
                format!("chmod 600 {shown}"),
            ),
            None => Fine(format!("{shown}, mode 600, ports and secrets are sound")),
        },
    }
}

fn ports(paths: &Paths, state: &State) -> Vec<(&'static str, Finding)> {
    let listen = state.listen.parse().unwrap_or(LOOPBACK);
    let taken: Vec<_> = state
        .ports
        .named(state.size)
        .into_iter()
        .filter(|(name, port)| {
            let address = if matches!(name.as_str(), "gateway" | "pushpin") { listen } else { LOOPBACK };
            !is_free(address, *port)
        })
        .map(|(name, port)| {
            let by = holder(port).map_or_else(
                || "a program of another user".to_owned(),
                |holder| format!("pid {} ({})", holder.pid, holder.program),
            );
            let hint = format!("stop it, or write another port into {}", paths.shown(&paths.state_file()));
            ("port", Wrong(format!("{port} ({name}) is taken by {by}"), hint))
        })
        .collect();
    if taken.is_empty() { vec![("ports", Fine("all are free".to_owned()))] } else { taken }
}

/// Compares this clock with Keycloak's `Date`, as tokens carry times.
async fn clock(state: &State) -> Finding {
    let url = format!("{}/.well-known/openid-configuration", state.issuer());
    let seen = async {
        let response =
            crate::health::http_client(Duration::from_secs(5)).ok()?.get(&url).send().await.ok()?;
        let date = response.headers().get("date")?.to_str().ok()?;
        parse_date(date)
    };
    let Some(theirs) = seen.await else { return Note("Keycloak tells no time".to_owned()) };
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    match ours.abs_diff(theirs) {
        skew if skew <= SKEW => Fine(format!("Keycloak's clock differs by {skew} s")),
        skew => Wrong(
            format!("Keycloak's clock differs by {skew} s: tokens look expired, or not yet valid"),
            "set the clock (timedatectl set-ntp true)".to_owned(),
        ),
    }
}

/// Seconds since 1970 of an IMF-fixdate (RFC 9110 section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
fn parse_date(text: &str) -> Option<u64> {
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        .iter()
        .position(|name| *name == month)?;
    let year: u64 = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(str::parse::<u64>);
    let seconds = time.next()?.ok()? * 3600 + time.next()?.ok()? * 60 + time.next()?.ok()?;
    // Days since 1970-01-01, counted in years that begin in March (so that the leap day is the last).
    let month = u64::try_from(month).ok()? + 1;
    let (y, m) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day.checked_sub(1)?;
    days.checked_sub(719_468)?.checked_mul(86_400)?.checked_add(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(parse_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_date("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        assert_eq!(parse_date("Sunday"), None);
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("cargo 1.95.0 (f2d3ce0bd 2026-03-21)"), Some((1, 95)));
        assert_eq!(version("v24.1.0"), Some((24, 1)));
        assert_eq!(version("none"), None);
    }

    #[test]
    fn a_state_file_that_others_can_read_is_a_problem() {
        use std::os::unix::fs::PermissionsExt;
        let home = std::env::temp_dir().join(format!("asgard-doctor-{}", std::process::id()));
        let paths = Paths { root: "/r".into(), cache: home.join("cache"), home };
        State::new(crate::ports::Ports::default()).save(&paths).unwrap();
        assert!(matches!(state_file(&paths, &State::load(&paths)), Fine(_)));
        std::fs::set_permissions(paths.state_file(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(state_file(&paths, &State::load(&paths)), Wrong(what, _) if what.contains("644")));
        std::fs::remove_dir_all(paths.home).unwrap();
    }
}
