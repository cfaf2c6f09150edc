//! The released clients that the tests drive: an environment for each, fetched into a folder of the cache of its own.
//!
//! `tests/sdks/environments` has a folder for each of them, with every package that it needs by version and hash:
//! `requirements.txt` for Python, `package.json` and `package-lock.json` for Node.js.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{fetch, output_of};
use crate::paths::{Paths, short_hash};
use crate::problem::{Problem, Result};
use crate::state::State;
use crate::ui::Step;

/// Where the environments are written down.
const ENVIRONMENTS: &str = "tests/sdks/environments";

/// What released clients need to run.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Where the environments are installed; a folder's name is `client-NAME-HASH`.
    pub environments: Vec<PathBuf>,
    /// A Node.js that is new enough.
    pub node: PathBuf,
    /// The Python that they were installed for.
    pub python: PathBuf,
}

impl Clients {
    /// Those that are tried in every run.
    pub const SHORT: [&str; 4] = ["fastmcp-4", "mcp-remote-0.15", "python-2", "typescript-1.15"];
    /// Those of the official SDKs whose newest releases are tried most thoroughly.
    pub const SDKS: [&str; 3] = ["python-1.30", "python-2", "typescript-2"];

    /// The names of all environments.
    ///
    /// # Errors
    /// Their folder can't be read.
    pub fn all(paths: &Paths) -> Result<Vec<String>> {
        let folder = paths.root.join(ENVIRONMENTS);
        let entries = std::fs::read_dir(&folder).map_err(|e| Problem::io("read", &folder, &e))?;
        let folders = entries.flatten().filter(|entry| entry.path().is_dir());
        let mut names: Vec<String> =
            folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Finds the named environments; fetches what is missing.
    ///
    /// # Errors
    /// What could not be fetched, and what to do.
    pub fn ensure(paths: &Paths, state: &State, names: &[&str]) -> Result<Self> {
        let _lock = super::lock(paths)?;
        fetch::ensure_node(paths, state)?;
        let none = || Problem::new("there is no Python with venv").hint("install python3-venv");
        let python = fetch::python().ok_or_else(none)?;
        let environments = names.iter().map(|name| environment(paths, state, &python, name));
        Ok(Self {
            environments: environments.collect::<Result<_>>()?,
            node: fetch::node(paths, state).ok_or_else(|| Problem::new("Node.js could not be fetched"))?,
            python,
        })
    }

    /// Adds the environments of others.
    pub fn extend(&mut self, others: Self) {
        self.environments.extend(others.environments);
    }
}

/// Finds one environment, or fetches it.
fn environment(paths: &Paths, state: &State, python: &Path, name: &str) -> Result<PathBuf> {
    let wanted = paths.root.join(ENVIRONMENTS).join(name);
    let requirements = wanted.join("requirements.txt");
    let for_python = requirements.exists();
    let lock = if for_python { requirements.clone() } else { wanted.join("package-lock.json") };
    let mut key = std::fs::read(&lock).map_err(|e| Problem::io("read", &lock, &e))?;
    if for_python {
        // Wheels are made for one version of Python.
        key.extend(output_of(Command::new(python).arg("--version")).unwrap_or_default().into_bytes());
    }
    let folder = paths.cache.join(format!("client-{name}-{}", short_hash(&key)));
    if !folder.exists() {
        let step = Step::begin(format!("client {name}: fetch"));
        let doing = format!("fetch {name} with npm");
        fetch::make_folder(&folder, |part| match for_python {
            true => fetch::pip(paths, part, name, &requirements, &step),
            false => fetch::npm(paths, state, &wanted, part, &fetch::runner(paths, name, &doing), &step),
        })?;
        step.done();
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each package by version and hash, from no named registry.
    #[test]
    fn all_that_clients_need_is_pinned() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
        let paths = Paths { home: root.clone(), cache: root.clone(), root };
        let names = Clients::all(&paths).unwrap();
        assert!(names.len() >= 15, "{names:?}");
        for name in Clients::SHORT.iter().chain(&Clients::SDKS) {
            assert!(names.iter().any(|known| known == name), "{name} has no environment");
        }
        for name in &names {
            let folder = paths.root.join(ENVIRONMENTS).join(name);
            if let Ok(text) = std::fs::read_to_string(folder.join("requirements.txt")) {
                // A package's line, then its hashes.
                let of_package = |line: &&str| !line.starts_with([' ', '#']);
                for line in text.lines().filter(of_package) {
                    assert!(line.contains("==") && line.ends_with('\\'), "{name}: {line}");
                }
                assert!(text.contains("--hash=sha256:") && !text.contains("://"), "{name}");
                continue;
            }
            let text = std::fs::read_to_string(folder.join("package-lock.json")).unwrap();
            let lock: serde_json::Value = serde_json::from_str(&text).unwrap();
            for (package, about) in lock["packages"].as_object().unwrap() {
                assert!(about.get("resolved").is_none(), "{name}: {package} names a registry");
                let hash = about["integrity"].as_str().unwrap_or_default();
                assert!(package.is_empty() || hash.starts_with("sha512-"), "{name}: {package}");
            }
        }
    }
}
